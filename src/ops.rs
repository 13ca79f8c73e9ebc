//! Operators: what they may ask for, the socket over which they ask a running process, and the freeze file.
//!
//! A command is a [`Request`]; [`operator::Operator`] answers it from the journal, whether it came over the socket of
//! the running process ([`server`], [`client`]) or none runs and the command opened the journal itself.

pub mod client;
pub mod freeze_file;
pub mod half;
pub mod operator;
pub mod server;

use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::guard::Freeze;
use crate::journal::{Filter, TaskFilter};
use crate::reach::ask::Question;
use crate::scope::Permission;

/// What an operator asks for: one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Cases.
    Cases {
        /// Which.
        #[serde(default)]
        filter: Filter,
    },
    /// Tasks, and what they hold.
    Tasks {
        /// Which.
        filter: TaskFilter,
    },
    /// Findings.
    Findings {
        /// Also those that are matched, closed or ignored.
        all: bool,
        /// At most.
        max: u32,
    },
    /// One case.
    Case {
        /// Its id, or an unambiguous beginning.
        id: String,
    },
    /// When a credential was last seen at its issuer.
    Seen {
        /// Which.
        credential: CredentialId,
        /// Whose.
        tenant: String,
    },
    /// Stop all effects.
    Freeze {
        /// Half-made cases too.
        hard: bool,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// What a hard freeze leaves half-made, and what mends it. A request of its own: a freeze is answered at once, this after a look at
    /// each open case.
    HalfMade {},
    /// Lift a freeze, and a held start.
    Release {
        /// Who.
        by: String,
    },
    /// Let a held case go on.
    Resume {
        /// Which.
        id: String,
        /// Who.
        by: String,
    },
    /// Act no more on a case.
    Abandon {
        /// Which.
        id: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Try a case again now.
    RetryNow {
        /// Which.
        id: String,
    },
    /// Rotate a credential.
    Rotate {
        /// What.
        credential: CredentialId,
        /// The old value first.
        leaked: bool,
        /// Each of those that share it gets a user of its own, and then it dies.
        #[serde(default)]
        split: bool,
        /// Of a split: only these of them are moved, and it lives on. Empty: all.
        #[serde(default)]
        agents: Vec<String>,
        /// Whose.
        tenant: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Take permissions from a credential's identity.
    Reduce {
        /// Whose.
        credential: CredentialId,
        /// Which.
        permissions: Vec<Permission>,
        /// How long whoever answers for it has to say no.
        notice_ms: i64,
        /// Whose.
        tenant: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Give back what a reduction took.
    Rollback {
        /// Its case.
        id: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Keep an identity as it is, for a time, though a reduction was announced.
    Keep {
        /// The reduction's case.
        id: String,
        /// For how long.
        for_ms: i64,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Say that somebody leaves, or stays after all.
    Offboard {
        /// Who: as reach calls it, or, with `yes`, the end of that name.
        name: String,
        /// It is not so any more.
        back: bool,
        /// The end of a name will do, where it is that of one alone.
        #[serde(default)]
        yes: bool,
        /// When its fences end; as the configuration says, where it is left out.
        until_ms: Option<i64>,
        /// Whose.
        tenant: String,
        /// Who says so.
        by: String,
        /// Why.
        reason: String,
    },
    /// Who leaves, and the fences that stand.
    Offboarded {},
    /// Revoke a credential.
    Revoke {
        /// What.
        credential: CredentialId,
        /// Whose.
        tenant: String,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Overrun of each credential.
    Overrun {},
    /// Credentials that end with no task.
    Standing {
        /// At most.
        max: u32,
    },
    /// Who reaches what.
    Reach {
        /// What is asked.
        question: Question,
    },
    /// Figures.
    Stats {},
    /// Where intake goes on.
    PositionSet {
        /// The Kafka cluster's id.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset of the next record to read.
        offset: i64,
    },
    /// Forget the positions in a Kafka cluster that is read no more.
    PositionDrop {
        /// Its id.
        cluster: String,
    },
}

/// The answer: one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Ok(serde_json::Value),
    /// Not done.
    Refused(Refused),
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What to make of it.
    pub kind: RefusedKind,
    /// For people.
    pub message: String,
}

/// What to make of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedKind {
    /// No such case, or more than one.
    NotFound,
    /// It makes no sense as it stands.
    Invalid,
    /// The journal cannot do it now.
    Unavailable,
}

impl Refused {
    /// A refusal.
    pub fn new(kind: RefusedKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The freeze in force: the stronger of the journal's and the file's. For the guard, before every effect.
pub fn in_force(journal: Option<Freeze>, file: &std::path::Path) -> Option<Freeze> {
    journal.max(freeze_file::read(file).map(|note| note.how))
}
