//! Findings, and the marks by which they are matched. Plain facts: [`crate::policy`] decides on them.

use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::event::Leaves;
use crate::fingerprint::Fingerprint;
use crate::task::Tenant;

/// Fingerprints of one finding that are kept.
pub const MOST_FINGERPRINTS: usize = 16;
/// Credentials that one finding is matched with. One secret in more of them is a finding of its own.
pub const MOST_MATCHES: usize = 16;
/// Credentials that share a fingerprint and are looked at by one decision.
pub const MOST_SHARERS: i64 = 64;
/// Unmatched findings of one fingerprint that one decision matches.
pub const MOST_WAITING: i64 = 256;

/// Where a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No credential that is known has its fingerprint: it waits for the inventory, or for its owner.
    Unmatched,
    /// It led to a decision about credentials.
    Matched,
    /// Its producer closed it.
    Closed,
    /// Nothing is to be done about it: a honeytoken.
    Ignored,
}

impl Phase {
    /// The number in the journal's rows.
    pub fn code(self) -> i16 {
        match self {
            Self::Unmatched => 0,
            Self::Matched => 1,
            Self::Closed => 2,
            Self::Ignored => 3,
        }
    }

    /// The name in metrics and lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unmatched => "unmatched",
            Self::Matched => "matched",
            Self::Closed => "closed",
            Self::Ignored => "ignored",
        }
    }
}

/// Whether a secret works, as far as somebody tried. Weakest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// Somebody tried it, and it was refused.
    Inactive,
    /// Nobody tried it, or the attempt said nothing.
    #[default]
    Unknown,
    /// Somebody logged in with it.
    Active,
}

impl Validity {
    /// Reads the word in an event; any other word is [`Self::Unknown`].
    pub fn of(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "inactive" => Self::Inactive,
            _ => Self::Unknown,
        }
    }
}

/// What the journal calls a finding: `<topic>:<the scanner's key>`. The keys are no secrets, so what one topic says must not
/// colour what another one said under the same key: it would be acted on by the authority of that one.
pub fn id(topic: &str, key: &str) -> String {
    format!("{topic}:{key}")
}

/// A finding, as the journal knows it: all scans of it that one topic brought are one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whose.
    pub tenant: Tenant,
    /// The topic that observed it: only that one may close it, and only its authority counts.
    pub topic: String,
    /// The scanner's key, stable over re-scans.
    pub key: String,
    /// The detector's name.
    pub detector: String,
    /// Where it stands.
    pub phase: Phase,
    /// What the newest scan said of it.
    pub validity: Validity,
    /// Whether any scan said that the public can see it.
    pub public: bool,
    /// `critical`, `high`, `medium`, `low`, `info`, `unknown`.
    pub severity: Option<String>,
    /// By which it is matched.
    pub fingerprints: Vec<Fingerprint>,
    /// What it was matched with.
    pub credentials: Vec<CredentialId>,
    /// Who may answer for it.
    pub owner_hint: Option<String>,
    /// Where it was seen, in short.
    pub place: Option<String>,
    /// Of one about somebody who leaves: what it rested on when it was last said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Leaves>,
    /// When it was first seen here (broker time): its age counts from then.
    pub first_ms: i64,
    /// When it was last seen (broker time).
    pub last_ms: i64,
}

impl Finding {
    /// See [`id`].
    pub fn id(&self) -> String {
        id(&self.topic, &self.key)
    }
}

/// A fingerprint of one of a credential's values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Whose.
    pub tenant: Tenant,
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// Of which credential.
    pub credential: CredentialId,
    /// Of which of its values: the store's version. 0 where the issuer has no versions.
    pub version: i64,
}
