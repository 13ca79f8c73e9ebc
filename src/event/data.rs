//! What each type of event says, as plain facts.

use serde::{Deserialize, Serialize};

use crate::case::{Action, CaseId};
use crate::credential::{CredentialId, Kind};
use crate::fingerprint::Fingerprint;
use crate::reach::Node;
use crate::scope::{Cut, Move, Permission};
use crate::task::{Boundary, RunKey, Tenure};

/// What an event says.
#[derive(Debug, Clone)]
pub enum Data {
    /// `task.started`
    TaskStarted(TaskStarted),
    /// `task.extended`
    TaskExtended(TaskExtended),
    /// `task.heartbeat`
    TaskHeartbeat(TaskHeartbeat),
    /// `task.ended`
    TaskEnded(TaskEnded),
    /// `grant.registered`
    GrantRegistered(GrantRegistered),
    /// `grant.released`
    GrantReleased(GrantReleased),
    /// `credential.registered`
    CredentialRegistered(CredentialRegistered),
    /// `credential.adopted`
    CredentialAdopted(CredentialAdopted),
    /// `finding.observed`; by far the largest of them.
    FindingObserved(Box<FindingObserved>),
    /// `finding.closed`
    FindingClosed(FindingClosed),
    /// `identity.offboarded`
    IdentityOffboarded(IdentityOffboarded),
    /// `deadline.passed`: fired for exactly this deadline; a later one makes it void.
    DeadlinePassed {
        /// Whose deadline.
        run: RunKey,
        /// The deadline that passed.
        deadline_ms: i64,
    },
    /// `heartbeat.missed`: fired for silence since exactly this sign of life.
    HeartbeatMissed {
        /// Who fell silent.
        run: RunKey,
        /// The last sign of life.
        last_beat_ms: i64,
    },
    /// `reconcile.found`
    ReconcileFound {
        /// What the issuer holds.
        credential: CredentialId,
        /// The run that its metadata names.
        run: Option<RunKey>,
        /// Whether it lies under a prefix that is declared to be Curfew's tasks' alone.
        exclusive: bool,
    },
    /// `rotation.due`: about exactly this version; a newer one makes it void.
    RotationDue {
        /// Which.
        credential: CredentialId,
        /// The store's version that is in use.
        version: i64,
        /// How old it was then.
        age_ms: i64,
    },
    /// `sessions.over`
    SessionsOver {
        /// Whose sessions were denied.
        credential: CredentialId,
    },
    /// `fence.over`
    FenceOver {
        /// The identity, as what is taken from it is called.
        credential: CredentialId,
        /// What there was before, and the case that found it so.
        cut: Cut,
    },
    /// `operator.offboard`
    OperatorOffboard {
        /// Who leaves, or stays after all.
        node: Node,
        /// It is not so any more.
        back: bool,
        /// When its fences end.
        until_ms: Option<i64>,
        /// Who says so.
        by: String,
        /// Why.
        reason: String,
    },
    /// `operator.rotate`
    OperatorRotate {
        /// What to rotate.
        credential: CredentialId,
        /// The new value first, the old one first where it leaked, or split among those that share it.
        how: Action,
        /// Of a split: only these of them are moved; empty: all.
        agents: Vec<String>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// `operator.reduce`
    OperatorReduce {
        /// From whose identity it is taken.
        credential: CredentialId,
        /// What.
        cut: Cut,
        /// Not before.
        not_before_ms: Option<i64>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// `operator.restore`
    OperatorRestore {
        /// To whose identity it is given back.
        credential: CredentialId,
        /// What, as the case had found it.
        cut: Cut,
        /// The case that took it.
        case: CaseId,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// `operator.revoke`
    OperatorRevoke {
        /// What to kill.
        credential: CredentialId,
        /// Who says so.
        by: String,
        /// Why.
        reason: String,
    },
}

/// A grant inside a task or grant event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSpec {
    /// What is held.
    pub credential: CredentialId,
    /// Why it is held.
    pub tenure: Tenure,
    /// The user name at the system behind.
    pub principal: Option<String>,
    /// When it dies by itself, as the producer believes.
    pub expires_ms: Option<i64>,
}

/// `task.started`
#[derive(Debug, Clone)]
pub struct TaskStarted {
    /// The run.
    pub run: RunKey,
    /// The run that it is a part of.
    pub within: Option<RunKey>,
    /// From 1.
    pub attempt: u32,
    /// The logical task.
    pub task: Option<String>,
    /// Workload identity, or agent.
    pub identity: Option<String>,
    /// When, as the scheduler says.
    pub started_ms: Option<i64>,
    /// When it must be over.
    pub deadline_ms: Option<i64>,
    /// The interval at which it will send heartbeats.
    pub heartbeat_every_ms: Option<i64>,
    /// What it holds from the start.
    pub grants: Vec<GrantSpec>,
    /// What that is for.
    pub boundary: Option<Boundary>,
}

/// `task.extended`
#[derive(Debug, Clone)]
pub struct TaskExtended {
    /// The run.
    pub run: RunKey,
    /// The new deadline.
    pub deadline_ms: i64,
}

/// `task.heartbeat`
#[derive(Debug, Clone)]
pub struct TaskHeartbeat {
    /// The run.
    pub run: RunKey,
}

/// `task.ended`
#[derive(Debug, Clone)]
pub struct TaskEnded {
    /// The run.
    pub run: RunKey,
    /// From 1; an end of an older attempt does not end a newer one.
    pub attempt: u32,
    /// The logical task.
    pub task: Option<String>,
    /// Workload identity, or agent.
    pub identity: Option<String>,
    /// When, as the scheduler says; never a reason to reject.
    pub ended_ms: Option<i64>,
    /// `success`, `failure`, `cancelled`, `timeout`, `rejected`, `lost`, `unknown`.
    pub outcome: Option<String>,
    /// What it held, where the scheduler says so only now.
    pub grants: Vec<GrantSpec>,
    /// The run that goes on with the same credentials: then this end cuts nothing.
    pub continued_as: Option<RunKey>,
}

/// `grant.registered`
#[derive(Debug, Clone)]
pub struct GrantRegistered {
    /// The run that holds it.
    pub run: RunKey,
    /// The attempt, where known.
    pub attempt: Option<u32>,
    /// Workload identity, or agent, that runs it: for a task of which nobody else says.
    pub identity: Option<String>,
    /// What.
    pub grant: GrantSpec,
}

/// `grant.released`
#[derive(Debug, Clone)]
pub struct GrantReleased {
    /// The run that held it.
    pub run: RunKey,
    /// What.
    pub credential: CredentialId,
}

/// `credential.registered`: an inventory says that a credential exists, and by which fingerprints its value is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRegistered {
    /// Which.
    pub credential: CredentialId,
    /// Of the parts of its value, by each live key.
    pub fingerprints: Vec<PartFingerprint>,
    /// Which of its values in time, such as the version of a secret in a KV store: a later one is larger.
    pub version: Option<i64>,
    /// Whether this value is the one in use; an older one may still work.
    pub current: bool,
    /// When this value was made.
    pub issued_ms: Option<i64>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Where it is used, such as `prod`.
    pub environment: Option<String>,
}

impl CredentialRegistered {
    /// By what findings of it are known: what its own id names alone, and the fingerprints of its value.
    pub fn marks(&self) -> impl Iterator<Item = Fingerprint> {
        let id = (self.credential.kind() == Kind::AwsAccessKey).then(|| self.credential.id());
        let named = id.and_then(|id| access_key_mark(id.rsplit('/').next().unwrap_or_default()));
        let given = self.fingerprints.iter().map(|part| part.fingerprint.clone());
        let given = given.filter({
            let named = named.clone();
            move |mark| named.as_ref() != Some(mark)
        });
        named.into_iter().chain(given)
    }
}

/// `credential.adopted`: a consumer answers `credential.rotated`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialAdopted {
    /// Which.
    pub credential: CredentialId,
    /// The version that it took, as `credential.rotated` named it.
    pub version: i64,
    /// Who, by the name that the recipe knows.
    pub consumer: String,
    /// It cannot work with it: the old value is wanted back.
    pub failed: bool,
}

/// The fingerprint of one part of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFingerprint {
    /// The fingerprint.
    pub fingerprint: Fingerprint,
    /// Which part, in the words of who said it, such as `secret_access_key`.
    pub part: Option<String>,
}

/// `finding.observed`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindingObserved {
    /// The finding's key, stable over re-scans.
    pub finding_key: String,
    /// The credential, where the scanner knows its id.
    pub credential: Option<CredentialId>,
    /// The detector's name.
    pub detector: String,
    /// `active`, `inactive` or `unknown`.
    pub validity: String,
    /// When somebody tried it.
    pub checked_ms: Option<i64>,
    /// Who tried it.
    pub checked_by: Option<String>,
    /// Visible to the public.
    pub public: bool,
    /// A honeytoken is never touched.
    pub honeytoken: bool,
    /// It was closed, and counts again.
    pub reopened: bool,
    /// Of the parts of the secret, by each live key of who found it.
    pub fingerprints: Vec<PartFingerprint>,
    /// What names the credential in public, such as the id of an access key.
    pub identifiers: Vec<Identifier>,
    /// Where it was seen.
    pub location: Option<Location>,
    /// `critical`, `high`, `medium`, `low`, `info` or `unknown`, where the scanner says so.
    pub severity: Option<String>,
    /// Who may answer for it, such as the author of the commit: a hint, not an owner.
    pub owner_hint: Option<String>,
    /// The scanner, and its own names for the finding.
    pub source: Option<Scanner>,
    /// Who issued the secret, such as `aws`.
    pub provider: Option<String>,
    /// When the scanner saw it.
    pub detected_ms: Option<i64>,
    /// Of what reach finds: the permissions that are too much. A scanner cannot say so.
    pub excess: Vec<Permission>,
    /// Of what reach finds: it belongs to somebody who leaves. A scanner cannot say so.
    pub leaves: Option<Leaves>,
    /// The agents that can do with less than they share. A scanner cannot say so.
    pub moves: Vec<Move>,
}

/// Of a credential that belongs to somebody who leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    /// The topics that say so: any of them will do as authority.
    pub topics: Vec<String>,
    /// It lets in as somebody who leaves: that one is fenced until then. `None`: only the credential is meant.
    pub fence_until_ms: Option<i64>,
    /// Somebody else, who does not leave, uses it as well.
    pub shared: bool,
}

/// `identity.offboarded`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityOffboarded {
    /// Who leaves.
    pub node: Node,
    /// Since when.
    pub since_ms: Option<i64>,
    /// When its fences end.
    pub until_ms: Option<i64>,
    /// Why.
    pub reason: String,
}

impl FindingObserved {
    /// By what it is matched: the fingerprints of its secrets, and those of what names its credential alone.
    pub fn marks(&self) -> impl Iterator<Item = Fingerprint> {
        let named = self.identifiers.iter().filter(|one| one.kind == ACCESS_KEY_ID);
        let named = named.filter_map(|one| access_key_mark(&one.value));
        named.chain(self.fingerprints.iter().map(|part| part.fingerprint.clone()))
    }
}

/// The kind of identifier that names one access key of AWS.
pub const ACCESS_KEY_ID: &str = "aws_access_key_id";

/// By what a long-lived access key is known; `None`: that is no id of one.
pub fn access_key_mark(id: &str) -> Option<Fingerprint> {
    let is_upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    let is_id = (16..=128).contains(&id.len()) && id.starts_with("AKIA") && id.bytes().all(is_upper);
    is_id.then(|| Fingerprint::of_public(ACCESS_KEY_ID, id))
}

/// What names a credential in public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier {
    /// Of which kind, such as `aws_access_key_id`.
    pub kind: String,
    /// The name.
    pub value: String,
}

/// Where a secret was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// What kind of place, such as `git` or `s3`.
    pub kind: Option<String>,
    /// The repository, bucket, image or space.
    pub repo: Option<String>,
    /// The file in it.
    pub path: Option<String>,
    /// The commit or version.
    pub commit: Option<String>,
    /// From 1; 0 where the place has no lines.
    pub line: Option<i64>,
    /// A page that shows it.
    pub url: Option<String>,
}

/// Who found a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scanner {
    /// The tool, such as `gitleaks`.
    pub tool: Option<String>,
    /// The tool's version.
    pub version: Option<String>,
    /// The tool's own id of the finding.
    pub native_id: Option<String>,
    /// The tool's page of the finding.
    pub url: Option<String>,
}

/// `finding.closed`
#[derive(Debug, Clone)]
pub struct FindingClosed {
    /// The scanner's own key.
    pub finding_key: String,
    /// `false_positive`, `wont_fix`, `revoked`, `used_in_tests`, `inactive`.
    pub reason: String,
}
