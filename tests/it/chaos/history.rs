//! What a run leaves behind, as plain facts: what was sent, what Curfew recorded and published, what Vault and PostgreSQL
//! say was asked of them, what the witness found. [`super::check`] reads nothing else.

use curfew::case::Case;
use curfew::case::record::Record;
use serde::Serialize;
use uuid::Uuid;

/// All of it.
#[derive(Default, Clone, Serialize)]
pub struct History {
    pub sent: Vec<Sent>,
    pub credentials: Vec<Credential>,
    pub looks: Vec<Look>,
    pub journal: Journal,
    /// What the topics of outcomes and rejects hold, as bytes, in their order.
    #[serde(skip)]
    pub published: Vec<Vec<u8>>,
    /// Vault's audit log, as far as Curfew asked.
    pub asked: Vec<Asked>,
    /// PostgreSQL's log.
    pub roles: Vec<RoleChange>,
    /// Roles that PostgreSQL still has, of those that Vault made; leases and accessors that Vault still has.
    pub left: Vec<String>,
    pub rotated: Vec<Rotated>,
    /// Findings that no credential was matched with.
    pub waiting: i64,
    pub pauses: Vec<Pause>,
    pub exits: Vec<(String, Exit)>,
    pub freezes: Vec<Freeze>,
    /// When PostgreSQL was stopped: what it did just before may lack its line in the log.
    pub database_stops_ms: Vec<i64>,
    /// Events that named what was not theirs.
    pub forged: usize,
    /// Effects per minute, at most.
    pub cap: i64,
    /// Where no secret may be: a name and all that stands there.
    #[serde(skip)]
    pub places: Vec<(String, String)>,
    #[serde(skip)]
    pub secrets: Vec<String>,
}

/// The journal's tables.
#[derive(Default, Clone, Serialize)]
pub struct Journal {
    /// `id` of each event that came through the topic, and of each own one how many.
    pub events: Vec<String>,
    pub own_events: usize,
    /// Events whose `open_cases` is not what their links say.
    pub miscounted: Vec<String>,
    pub counters: Counters,
    pub cases: Vec<CaseRow>,
    pub claims: Vec<Claim>,
    /// `(minute, count)` of the cap.
    pub charges: Vec<(i64, i64)>,
    /// The newest number of the outbox, and up to which it was sent.
    pub outbox: (i64, i64),
}

/// The journal's counters.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Counters {
    pub consumed: i64,
    pub accepted: i64,
    pub closed: i64,
    pub rejected: i64,
    pub duplicates: i64,
    pub cases_opened: i64,
    pub cases_closed: i64,
}

/// What was produced, and where the broker put it.
#[derive(Debug, Clone, Serialize)]
pub struct Sent {
    pub topic: &'static str,
    pub id: String,
    pub what: What,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum What {
    Event,
    Repeat,
    Poison,
}

/// What was handed out.
#[derive(Debug, Clone, Serialize)]
pub struct Credential {
    pub urn: String,
    pub issuer_id: String,
    /// At the database.
    pub user: Option<String>,
    /// Before this nobody may cut it.
    pub cut_from_ms: i64,
    /// By a task; else it is a bystander.
    pub registered: bool,
}

/// The witness tried a credential.
#[derive(Debug, Clone, Serialize)]
pub struct Look {
    pub urn: String,
    pub at_ms: i64,
    pub when: When,
    pub answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum When {
    TaskLives,
    AtTheEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Answer {
    Works,
    Refused,
    Unknown,
}

/// A case, with the records of each append.
#[derive(Clone, Serialize)]
pub struct CaseRow {
    pub case: Case,
    pub closed_ms: Option<i64>,
    /// `(seq, at_ms, records)`
    pub records: Vec<(i64, i64, Vec<Record>)>,
}

/// A change of who has a case.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    pub case: Uuid,
    /// `None`: given back, or ended.
    pub epoch: Option<i64>,
    pub worker: Option<Uuid>,
    /// The process.
    pub by: String,
    pub at_ms: i64,
    pub until_ms: i64,
}

/// A request of Curfew's to Vault.
#[derive(Debug, Clone, Serialize)]
pub struct Asked {
    pub at_ms: i64,
    /// The process.
    pub by: String,
    pub path: String,
    /// The lease or accessor that it is about.
    pub about: Option<String>,
    /// Vault's answer: what was wrong, or the warning that there was nothing to do. `None`: it was done, or found.
    pub refused: Option<String>,
}

impl Asked {
    /// Whether it ends or changes a credential.
    pub fn is_effect(&self) -> bool {
        super::proxy::is_effect(&self.path)
    }
}

/// A line of PostgreSQL's log.
#[derive(Debug, Clone, Serialize)]
pub struct RoleChange {
    pub at_ms: i64,
    pub user: String,
    /// The login that did it.
    pub by: String,
    /// Dropped; else its login was disabled.
    pub dropped: bool,
}

/// How a stored password that leaked again and again stands in the end.
#[derive(Debug, Clone, Serialize)]
pub struct Rotated {
    pub urn: String,
    pub issuer_id: String,
    pub users: Vec<String>,
    /// The version that consumers read.
    pub current: i64,
    /// What the witness saw of each value that they ever read.
    pub stood: Vec<Stood>,
    /// Versions that are stored still.
    pub kept: Vec<i64>,
    /// A candidate is left at the side path.
    pub pending: bool,
}

/// Whether a value lets in, in the end.
#[derive(Debug, Clone, Serialize)]
pub struct Stood {
    pub version: i64,
    pub user: String,
    pub answer: Answer,
}

/// SIGSTOP until SIGCONT.
#[derive(Debug, Clone, Serialize)]
pub struct Pause {
    pub who: String,
    pub from_ms: i64,
    pub to_ms: i64,
    /// The same process was ready again afterwards.
    pub rejoined: bool,
}

/// A process ended.
#[derive(Debug, Clone, Serialize)]
pub struct Exit {
    pub at_ms: i64,
    /// By SIGTERM; else by itself.
    pub asked: bool,
    pub code: Option<i32>,
}

/// `curfew freeze` had answered, `curfew release` was asked.
#[derive(Debug, Clone, Serialize)]
pub struct Freeze {
    pub from_ms: i64,
    pub to_ms: i64,
}
