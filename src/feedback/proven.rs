//! Whether what leaked was seen dead. PURE.

use crate::case::CaseId;
use crate::case::record::Verdict;
use crate::finding::Finding;
use crate::journal::CaseLine;

/// The case that proved it, of the newest of its credentials; `cases` are those of each of them, open ones first, then the
/// newest. `None`: it may live, or somebody is at it.
///
/// A case counts that was about this finding, or one that ended its credential for good. One that rotated for another
/// finding's sake does not: it may have been about an older value than the one that leaked here.
pub(super) fn proven(finding: &Finding, cases: &[Vec<CaseLine>]) -> Option<CaseId> {
    let ids: Option<Vec<CaseId>> = cases.iter().map(|of_one| of_credential(finding, of_one)).collect();
    ids?.into_iter().max()
}

fn of_credential(finding: &Finding, cases: &[CaseLine]) -> Option<CaseId> {
    let mut ours = cases.iter().filter(|line| line.case.tenant == finding.tenant).peekable();
    if ours.peek().is_some_and(|newest| newest.closed_ms.is_none()) {
        return None;
    }
    let id = finding.id();
    let counts = |line: &&CaseLine| {
        let is_dead = matches!(line.verdict, Verdict::Dead { .. });
        (line.case.directive.finding.as_ref() == Some(&id)) || (is_dead && line.case.ends_credential())
    };
    // The last word counts: what was called dead may have come back.
    let last = ours.find(counts).filter(|line| matches!(line.verdict, Verdict::Dead { .. }));
    last.map(|line| line.case.id)
}
