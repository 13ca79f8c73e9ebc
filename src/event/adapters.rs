//! Scanners' own reports become `finding.observed`, before anything is written: secrets are fingerprinted and dropped.
//!
//! Only named fields are read, and what they say goes through `hide`: scanners put one secret into many fields. What a
//! scanner says in a way that it may not mean is not believed: not verified is not inactive, and what it masked is no
//! secret. A report is read item by item, so that a long one needs no more memory than a short one, and an item that
//! cannot be read is named by its line and never quoted.
//!
//! The finding's key is the same at each scan: the hash of tool, detector, place and, of these, what is known first: what
//! names the credential in public, its fingerprint under the newest key, the scanner's own id. A new fingerprint key
//! gives findings new keys. The event's id is a hash of its content: the nightly scan that sees the same again says the
//! same event, which is a duplicate. What a scanner *verified* is a fresh look, and said anew each day (UTC).

mod finding;
pub mod github;
mod gitlab;
mod gitleaks;
mod hide;
mod items;
mod object;
pub mod revocations;
#[cfg(test)]
mod tests;
mod trufflehog;

use std::io::Read;

use crate::finding::Validity;
use crate::fingerprint::Keys;
use finding::By;
use items::{Items, Piece};
use object::{Object, Wiped};

/// Bytes of one finding in a report at most.
pub const MAX_ITEM_BYTES: usize = 1024 * 1024;
/// Nesting of one finding.
const MAX_DEPTH: usize = 32;
const DAY_MS: i64 = 86_400_000;

/// Whose reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Adapter {
    /// Gitleaks v8: `--report-format json`.
    Gitleaks,
    /// TruffleHog v3: `--json`.
    TruffleHog,
    /// GitLab's secret detection: `gl-secret-detection-report.json`, schemas 14 and 15.
    GitLab,
}

impl Adapter {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Gitleaks, Self::TruffleHog, Self::GitLab];

    /// The name in paths and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gitleaks => "gitleaks",
            Self::TruffleHog => "trufflehog",
            Self::GitLab => "gitlab",
        }
    }

    /// The CloudEvents source of its events.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Gitleaks => "/scanners/gitleaks",
            Self::TruffleHog => "/scanners/trufflehog",
            Self::GitLab => "/scanners/gitlab",
        }
    }

    const fn by(self) -> By {
        By { tool: self.as_str(), source: self.source() }
    }

    /// Whether its reports say what was scanned.
    const fn names_repository(self) -> bool {
        matches!(self, Self::TruffleHog)
    }

    /// The adapter of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// What a report does not say by itself.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// By which secrets are fingerprinted; without them a finding is known by place and public names only.
    pub keys: Option<&'a Keys>,
    /// What was scanned. Gitleaks' and GitLab's reports do not say it; where TruffleHog's do, they are right.
    pub repository: Option<&'a str>,
    /// Now.
    pub now_ms: i64,
}

/// A finding, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Converted {
    /// The line of the report on which it begins, from 1.
    pub line: u64,
    /// The Kafka key: the finding's key.
    pub key: String,
    /// A structured CloudEvent, without any secret.
    pub body: Vec<u8>,
    /// How many fingerprints are in it. None: there was no key, or the secret was masked or too short.
    pub fingerprints: usize,
}

impl std::fmt::Debug for Converted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Converted({} on line {}, {} fingerprints)", self.key, self.line, self.fingerprints)
    }
}

/// A finding that cannot be read: where it stands and why, never what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadItem {
    /// From 1.
    pub line: u64,
    /// Why.
    pub why: Why,
}

/// Why a finding cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Reading stopped in the middle.
    #[error("the report cannot be read to its end")]
    Read,
    /// The report ends within it.
    #[error("the report ends in the middle of a finding")]
    Cut,
    /// Not framed as reports of its scanner are.
    #[error("a report is a JSON array, or one JSON object a line; GitLab's an object with `vulnerabilities`")]
    NoReport,
    /// Not JSON, or a name stands twice.
    #[error("not JSON")]
    NoJson,
    /// Larger than [`MAX_ITEM_BYTES`].
    #[error("a finding of more than {MAX_ITEM_BYTES} bytes")]
    TooLarge,
    /// More parts of a secret than any secret has.
    #[error("a finding with too many parts of a secret")]
    TooMany,
    /// Nested too deep.
    #[error("a finding nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// No rule or detector: another tool's, or one of another version.
    #[error(
        "not a finding of Gitleaks v8, TruffleHog v3 or GitLab's secret detection: the rule or detector is missing"
    )]
    NoDetector,
}

/// Some scanners' reports do not say which repository they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a report of {0} does not name its repository, and findings of two would be taken for one: name it")]
pub struct NoRepository(
    /// Whose.
    pub &'static str,
);

/// Reads a report, finding by finding.
///
/// # Errors
/// [`NoRepository`].
pub fn read<R: Read>(adapter: Adapter, report: R, given: Given<'_>) -> Result<Report<'_, R>, NoRepository> {
    if !adapter.names_repository() && given.repository.is_none_or(|name| name.trim().is_empty()) {
        return Err(NoRepository(adapter.as_str()));
    }
    let items = match adapter {
        Adapter::Gitleaks | Adapter::TruffleHog => Items::new(report),
        Adapter::GitLab => Items::within(report, gitlab::LIST),
    };
    Ok(Report { adapter, given, items })
}

/// The findings of a report, in its order.
pub struct Report<'a, R> {
    adapter: Adapter,
    given: Given<'a>,
    items: Items<R>,
}

impl<R: Read> Iterator for Report<'_, R> {
    type Item = Result<Converted, BadItem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.items.next()? {
                Ok(Piece { line }) => line,
                Err(bad) => return Some(Err(bad)),
            };
            match item(self.adapter, self.items.bytes(), &self.given) {
                Ok(Some(made)) => return Some(Ok(Converted { line, ..made })),
                Ok(None) => {}
                Err(why) => return Some(Err(BadItem { line, why })),
            }
        }
    }
}

/// One piece of a report, as JSON.
fn parsed(bytes: &[u8]) -> Result<Wiped<'_>, Why> {
    let text = std::str::from_utf8(bytes).map_err(|_| Why::NoJson)?;
    let node = super::tree::parse(text, MAX_DEPTH).map_err(|reason| match reason {
        super::RejectReason::TooDeep => Why::TooDeep,
        _ => Why::NoJson,
    })?;
    Ok(Wiped(node))
}

/// One finding. `None`: it is none, and not meant to be.
fn item(adapter: Adapter, bytes: &[u8], given: &Given<'_>) -> Result<Option<Converted>, Why> {
    let node = parsed(bytes)?;
    let object = Object::of(&node.0).ok_or(Why::NoDetector)?;
    let found = match adapter {
        Adapter::Gitleaks => gitleaks::found(object, given.repository.unwrap_or_default())?,
        Adapter::GitLab => gitlab::found(object, given.repository.unwrap_or_default())?,
        Adapter::TruffleHog => match trufflehog::found(object, given.repository)? {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    // What somebody tried is a fresh look.
    let is_tried = found.validity == Validity::Active;
    let day = if is_tried { given.now_ms.div_euclid(DAY_MS).to_string() } else { String::new() };
    Ok(Some(found.event(adapter.by(), given.keys, &day)))
}
