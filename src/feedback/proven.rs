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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::case::record::{Generation, KilledBy, Level, UnknownWhy};
    use crate::case::state::State;
    use crate::case::{Action, Case, Directive, Trigger, Urgency};
    use crate::credential::{CredentialId, Kind};
    use crate::finding::{Phase, Validity};

    fn finding(credentials: usize) -> Finding {
        let credential = |n| CredentialId::new(Kind::VaultToken, "prod", &format!("a{n}")).unwrap();
        Finding {
            tenant: "default".into(),
            topic: "t".to_owned(),
            key: "github/o/r/1".to_owned(),
            detector: "d".to_owned(),
            phase: Phase::Matched,
            validity: Validity::Active,
            public: true,
            severity: None,
            fingerprints: Vec::new(),
            credentials: (0..credentials).map(credential).collect(),
            owner_hint: None,
            place: None,
            leaves: None,
            first_ms: 0,
            last_ms: 0,
        }
    }

    fn dead() -> Verdict {
        Verdict::Dead { level: Level::Issuer, at_ms: 1, sightings: 1, by: KilledBy::Curfew, residue: Vec::new() }
    }

    /// A closed case of this verdict, about this finding; number `n`.
    fn line(n: u128, action: Action, about: Option<&str>, verdict: Verdict) -> CaseLine {
        let directive = Directive {
            credential: CredentialId::new(Kind::VaultToken, "prod", "a0").unwrap(),
            action,
            trigger: Trigger::Finding,
            urgency: Urgency::Prompt,
            held: None,
            run: None,
            end_ms: None,
            broker_ms: 0,
            topic: "t".to_owned(),
            grantors: Vec::new(),
            finding: about.map(|key| format!("t:{key}")),
            generation: None,
            not_before_ms: None,
            cut: None,
        };
        let state = State::opened(&directive);
        let case = Case {
            id: Uuid::from_u128(n),
            tenant: "default".into(),
            directive,
            system: "s".to_owned(),
            lane: "l".to_owned(),
            principal: None,
            seen_ms: None,
            opened_ms: 0,
            traceparent: None,
            seq: 1,
            blast: None,
            charged: false,
            state,
        };
        CaseLine { case, verdict, closed_ms: Some(1), due_ms: 0 }
    }

    #[test]
    fn only_a_death_of_what_leaked_here_is_one() {
        let (ours, others) = (Some("github/o/r/1"), Some("github/o/r/2"));
        let unknown = || Verdict::Unknown { why: UnknownWhy::Unreachable };
        // The case replaced the value.
        let rotated = |n, about, verdict| {
            let mut line = line(n, Action::Contain, about, verdict);
            line.case.state.turn.new = Some(Generation { version: 8, user: None });
            line
        };
        let open = |mut line: CaseLine| {
            line.closed_ms = None;
            line
        };
        for (what, cases, wanted) in [
            ("nothing was done", vec![], None),
            ("a revoke for us", vec![line(1, Action::Revoke, ours, dead())], Some(1)),
            ("a revoke for whatever reason", vec![line(1, Action::Revoke, None, dead())], Some(1)),
            ("a rotation for us", vec![rotated(1, ours, dead())], Some(1)),
            ("a rotation for others", vec![rotated(1, others, dead())], None),
            ("a rotation for others after ours", vec![rotated(2, others, dead()), rotated(1, ours, dead())], Some(1)),
            ("a look for us", vec![line(1, Action::Verify, ours, dead())], Some(1)),
            ("nobody knows", vec![line(1, Action::Revoke, ours, unknown())], None),
            (
                "it came back",
                vec![line(2, Action::Verify, ours, unknown()), line(1, Action::Revoke, ours, dead())],
                None,
            ),
            (
                "somebody is at it",
                vec![open(line(2, Action::Verify, None, dead())), line(1, Action::Revoke, ours, dead())],
                None,
            ),
        ] {
            assert_eq!(proven(&finding(1), &[cases]), wanted.map(Uuid::from_u128), "{what}");
        }
        let mut foreign = line(1, Action::Revoke, ours, dead());
        foreign.case.tenant = "other".into();
        assert_eq!(proven(&finding(1), &[vec![foreign]]), None, "another tenant's");
    }

    #[test]
    fn of_several_credentials_each_must_have_died() {
        let ours = Some("github/o/r/1");
        let died = |n| vec![line(n, Action::Revoke, ours, dead())];
        assert_eq!(proven(&finding(2), &[died(1), died(2)]), Some(Uuid::from_u128(2)));
        assert_eq!(proven(&finding(2), &[died(1), vec![]]), None);
        assert_eq!(proven(&finding(0), &[]), None);
    }
}
