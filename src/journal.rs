//! The durable truth. The trait speaks intents, never SQL; each call returns when its effect is durable.

mod draft;
pub mod postgres;
pub mod shown;
pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::case::record::{Observation, Record, Verdict};
use crate::case::{Action, Case, CaseId};
use crate::credential::{CredentialId, Kind};
use crate::event::{Event, Reject};
use crate::finding::Finding;
use crate::guard::Freeze;
use crate::limit::{Budget, Part};
use crate::offboard::{Minded, Offboarding};
use crate::outcome::Message;
use crate::policy::Rules;
use crate::reach;
use crate::scope::Fence;
use crate::task::{Credential, Grant, RunKey, Task, Tenant, Tenure};

/// Why the journal did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stored offset is not the expected one: another member has this partition. Drop the batch, nothing happened.
    #[error("partition {partition} of {topic} was moved on by somebody else")]
    PositionMoved {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The claim is void: another process or a later start has the case, or its records went on. Nothing happened.
    #[error("the claim on this case is void")]
    ClaimVoid,
    /// The record cannot follow. A bug: nothing happened.
    #[error(transparent)]
    Illegal(#[from] crate::case::state::Illegal),
    /// The cap is reached; nothing happened.
    #[error("the cap of effects per minute is reached")]
    CapReached,
    /// Disk full, I/O error: not ready, and no effect may follow.
    #[error("the journal cannot be written")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The release itself found that the database lost commits, and what nobody was shown yet nobody can let go.
    #[error(
        "nothing was released: only now it was found that the database lost commits which it had acknowledged (a failover \
         to an older copy?), and all starts are held for it. What was done since that copy is not known here: compare \
         `curfew cases` with what the systems say, let the topics be read again where they still hold it, and say \
         `curfew release` once more"
    )]
    LostCommits,
    /// Another process has it open.
    #[error("another curfew process ({holder}) has the journal {path} open; stop it, or use its socket")]
    InUse {
        /// The file.
        path: String,
        /// Its process id, where known.
        holder: String,
    },
    /// No case has this id.
    #[error("no case has this id")]
    NoSuchCase,
    /// A stored row cannot be read back: an older or foreign file.
    #[error("the journal holds a row that this version cannot read ({what})")]
    Corrupt {
        /// The table.
        what: &'static str,
    },
}

/// What arrived: an event to decide on, or a reject to record.
#[derive(Debug, Clone)]
pub enum Arrival {
    /// Decoded.
    Event(Box<Event>),
    /// Not accepted.
    Reject(Reject),
}

/// A Kafka cluster that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its id.
    pub id: String,
    /// How many of its partitions have a position.
    pub partitions: i64,
    /// Up to when any of them was read.
    pub read_ms: i64,
}

/// A partition's place: the next offset, moved by compare-and-set, with the last record's marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The Kafka cluster's id.
    pub cluster: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record to read.
    pub next_offset: i64,
    /// Append time of the last recorded one: the partition's part of the intake watermark.
    pub last_ms: i64,
    /// Digest of the last recorded one: tells a recreated topic.
    pub last_digest: [u8; 16],
}

/// A step of a position: `from` is what must stand there now (`None`: nothing).
#[derive(Debug, Clone)]
pub struct Move {
    /// The expected next offset.
    pub from: Option<i64>,
    /// What it becomes.
    pub to: Position,
}

/// Up to when what producers said is known: for each topic, its slowest partition's append time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watermark(pub BTreeMap<String, i64>);

/// The topics that hold Curfew's own events back until they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {
    /// Each of them is at the broker: while one was never read, it may say anything.
    pub read: BTreeSet<String>,
    /// The one of HTTP need not be there. If it is, it counts as well.
    pub http: Option<String>,
}

impl Watermark {
    /// Of these topics (`None`: of all that were ever read) the slowest. `None` while one of them was never read, or none
    /// of them was. What was read once, and is not configured any more, holds nobody back.
    pub fn of(&self, topics: Option<&Topics>) -> Option<i64> {
        let Some(topics) = topics else { return self.0.values().min().copied() };
        let part = |topic: &String| self.0.get(topic).copied();
        let read: Vec<i64> = topics.read.iter().map(part).collect::<Option<_>>()?;
        read.into_iter().chain(topics.http.as_ref().and_then(part)).min()
    }

    /// One of these topics that was never read, or of which a partition never was.
    pub fn unread<'a>(&self, topics: Option<&'a Topics>) -> Option<&'a str> {
        let mut read = topics.into_iter().flat_map(|topics| &topics.read);
        read.find(|topic| self.0.get(*topic).is_none_or(|at_ms| *at_ms <= 0)).map(String::as_str)
    }
}

/// Everything that one transaction of intake makes durable.
#[derive(Debug, Clone)]
pub struct Batch {
    /// In the order of arrival.
    pub arrivals: Vec<Arrival>,
    /// One for each partition in it; none for HTTP and own events.
    pub moves: Vec<Move>,
    /// The rules to decide by.
    pub rules: Arc<Rules>,
    /// Our clock.
    pub now_ms: i64,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// For each arrival, in order.
    pub fates: Vec<Fate>,
    /// Cases that were opened or superseded: something may be due now.
    pub stirred: u32,
}

/// What became of one arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Decided and recorded.
    Accepted,
    /// Seen before, with the same content: nothing was done.
    Duplicate,
    /// Rejected, also when the conflict was found only now.
    Rejected(crate::event::RejectReason),
    /// It says nothing that Curfew acts on, so it never arrived: no journal gives this, intake does.
    Ignored,
}

/// A case that this process may work on until the lease ends.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The case.
    pub case: Case,
    /// The fencing epoch: each append is conditional on it.
    pub epoch: i64,
    /// When the claim ends, by the clock of [`Want::steady_ms`].
    pub until_ms: i64,
}

/// What to claim.
#[derive(Debug, Clone)]
pub struct Want {
    /// At most.
    pub max: usize,
    /// At most per system, counted with what is claimed already.
    pub max_per_system: usize,
    /// Now, by the wall clock: what is due by then.
    pub now_ms: i64,
    /// Now, by a clock that never steps: a claim lasts by it, since a call that is under way knows nothing of the wall clock's steps.
    pub steady_ms: i64,
    /// How long a claim lasts.
    pub lease_ms: i64,
    /// Which ones; `None`: all that there are.
    pub only: Option<Served>,
}

/// The cases that a process serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Of these systems.
    pub systems: BTreeSet<String>,
    /// With these actions; `None`: any.
    pub actions: Option<BTreeSet<Action>>,
}

/// A process that takes part, as it says of itself.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Made at its start.
    pub id: Uuid,
    /// Cases that it serves; `None`: it enforces nothing.
    pub serves: Option<Served>,
    /// The systems that it calls: what each bears altogether, and what this process still uses of it.
    pub calls: Vec<(String, Budget, Budget)>,
}

/// The next records of a claimed case, in one durable step.
#[derive(Debug, Clone)]
pub struct Append {
    /// The case as it was claimed or last appended: `seq` and `state` before.
    pub case: CaseId,
    /// From the claim.
    pub epoch: i64,
    /// The expected `seq`.
    pub seq: i64,
    /// At least one.
    pub records: Vec<Record>,
    /// When the case is due again; ignored when it closes.
    pub due_ms: i64,
    /// Whether the claim is kept (work goes on) or given back.
    pub keep: bool,
    /// Charge the case to the cap of effects per minute: fails with `CapReached` when none is left.
    pub charge: Option<u32>,
    /// What was learned of the credential by looking.
    pub learned: Option<Observation>,
    /// Leaves through the outbox.
    pub messages: Vec<Message>,
    /// Our clock.
    pub now_ms: i64,
}

/// A task that may need an own event.
#[derive(Debug, Clone)]
pub struct Due {
    /// Its place among what is due.
    pub at: DueAt,
    /// The task.
    pub task: Task,
}

/// A place in the order of what is due. Unique and stable: a page goes on behind the last one of the page before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueAt {
    /// As [`Task::due_ms`].
    pub due_ms: i64,
    /// Whose.
    pub tenant: Tenant,
    /// The task's key.
    pub run: RunKey,
}

/// How many live tasks with heartbeats a source has: the judgement of silence needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Whose. Two tenants may call their schedulers alike.
    pub tenant: Tenant,
    /// The CloudEvents source.
    pub source: String,
    /// Live tasks that promised heartbeats.
    pub live: u64,
    /// The newest sign of life of any of its tasks.
    pub last_beat_ms: i64,
}

/// A credential with what the journal expects of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As recorded.
    pub credential: Credential,
    /// A task holds it that has not ended, or of which nothing is known.
    pub live: bool,
    /// Since when it has no reason to be: the last end of those with whom it was to die, or where nobody ever held it
    /// the time at which it became known. `None`: it was to outlive its tasks.
    pub over_ms: Option<i64>,
    /// A case about it is open.
    pub open: bool,
    /// That case looks at its issuer by itself: it was not opened held.
    pub looks: bool,
}

/// One row of the outbox.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its number, without gaps.
    pub seq: i64,
    /// What: decides the topic.
    pub kind: crate::outcome::Kind,
    /// Kafka key.
    pub key: String,
    /// The structured CloudEvent, as bytes.
    pub body: Vec<u8>,
    /// For the record's headers.
    pub traceparent: Option<String>,
}

/// A case as listed by `curfew cases`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CaseLine {
    /// The row.
    pub case: Case,
    /// P8's one sentence.
    pub verdict: Verdict,
    /// When it closed.
    pub closed_ms: Option<i64>,
    /// When it is due.
    pub due_ms: i64,
}

/// A case with its events and its records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Timeline {
    /// The row.
    pub line: CaseLine,
    /// The events that link to it: source, id, type, decision, reason, broker time.
    pub events: Vec<EventLine>,
    /// `(seq, at_ms, records)` of each append.
    pub records: Vec<(i64, i64, Vec<Record>)>,
}

/// An event as shown with a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventLine {
    /// CloudEvents source.
    pub source: String,
    /// CloudEvents id.
    pub id: String,
    /// The type.
    pub kind: String,
    /// The decision's verb.
    pub verb: String,
    /// The decision's reason.
    pub reason: String,
    /// The facts that the decision saw.
    pub facts: serde_json::Value,
    /// The digest of the rules.
    pub rules: String,
    /// Broker append time.
    pub broker_ms: i64,
}

/// Which tasks to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFilter {
    /// Also those that ended, the newest first; else those that live, the next that is due first.
    pub ended: bool,
    /// Only those that ended and of which nobody has said what they held, the last one first.
    #[serde(default)]
    pub unbound: bool,
    /// By who speaks for them.
    pub source: Option<String>,
    /// By who runs them.
    pub identity: Option<String>,
    /// At most.
    pub limit: u32,
}

/// A task, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// The task.
    pub task: Task,
    /// What it holds, or held.
    pub holds: Vec<Holding>,
}

/// What a task holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Why, and who says so.
    pub grant: Grant,
    /// The user name at the system behind.
    pub principal: Option<String>,
    /// When it dies by itself.
    pub expires_ms: Option<i64>,
    /// When it was proven dead.
    pub dead_ms: Option<i64>,
}

/// A task, and what it was said to hold of what logs in at a Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lived {
    /// The task.
    pub task: Task,
    /// AppRoles, secret_ids and tokens. At least one.
    pub logins: Vec<Login>,
}

/// What a task logs in by, or has logged in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Which.
    pub credential: CredentialId,
    /// Why it holds it.
    pub tenure: Tenure,
    /// Of a token: the AppRole that gave it, where its issuer said so.
    pub principal: Option<String>,
    /// When its issuer says it was issued.
    pub issued_ms: Option<i64>,
}

impl Login {
    /// Of these kinds.
    pub const KINDS: [Kind; 3] = [Kind::VaultApprole, Kind::VaultSecretId, Kind::VaultToken];
}

/// A part of the tasks that [`Journal::lived`] reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LivedPage {
    /// Of those that were looked at, the ones that hold something of the kind.
    pub lines: Vec<Lived>,
    /// Behind which the next part begins; `None`: this was the last.
    pub next: Option<LivedAt>,
}

/// A place among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivedAt {
    /// When the task ended, or is due.
    pub at_ms: i64,
    /// Whose.
    pub tenant: Tenant,
    /// Its key.
    pub run: RunKey,
}

/// Which cases to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// By `cases{state}` name.
    pub state: Option<String>,
    /// By credential.
    pub credential: Option<CredentialId>,
    /// By run.
    pub run: Option<RunKey>,
    /// Also closed ones.
    pub closed: bool,
    /// At most.
    pub limit: Option<u32>,
}

/// One line of `curfew audit overrun`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overrun {
    /// The credential.
    pub credential: CredentialId,
    /// The run that held it.
    pub run: Option<RunKey>,
    /// What set the case off.
    pub trigger: crate::case::Trigger,
    /// Task's life.
    pub task_started_ms: Option<i64>,
    /// Task's life.
    pub task_ended_ms: Option<i64>,
    /// Credential's validity.
    pub issued_ms: Option<i64>,
    /// Credential's validity.
    pub expires_ms: Option<i64>,
    /// When it was seen dead; `None`: it is not.
    pub dead_ms: Option<i64>,
    /// Excess: death (or now) minus task end; negative where it died first.
    pub overrun_ms: Option<i64>,
}

/// A credential that ends with no task, and who is known to have held it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The credential.
    pub credential: Credential,
    /// The runs that were said to hold it.
    pub runs: i64,
    /// Of these, the ones that go on.
    pub live: i64,
    /// When the last of them was said to hold it.
    pub last_ms: Option<i64>,
}

/// Figures for metrics and for `accepted = closed + open`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Deliveries that were taken from a source.
    pub consumed: i64,
    /// Accepted events.
    pub accepted: i64,
    /// Of them, those whose cases are all closed.
    pub closed: i64,
    /// Rejected deliveries.
    pub rejected: i64,
    /// Repeated deliveries of accepted events.
    pub duplicates: i64,
    /// Open cases by state name.
    pub cases: Vec<(String, i64)>,
    /// Age in milliseconds of the oldest open case by state name.
    pub oldest_ms: Vec<(String, i64)>,
    /// Held cases by reason.
    pub held: Vec<(String, i64)>,
    /// Tasks with a deadline ahead, and those past it.
    pub deadlines_pending: i64,
    /// Past their deadline and not ended.
    pub deadlines_passed: i64,
    /// For how many milliseconds the oldest of these deadlines has passed.
    pub deadline_lag_ms: i64,
    /// Systems that were ever blocked: (system, reason, whether it is blocked now).
    pub blocked: Vec<(String, String, bool)>,
    /// Open cases that no process serves, held ones left out.
    pub unserved: i64,
    /// Findings of which no credential is known.
    pub unmatched: i64,
    /// Age in milliseconds of the oldest of them.
    pub oldest_unmatched_ms: i64,
    /// Runs that ended in the last day, and of which nobody has said what they held: up to [`MOST_UNBOUND`].
    pub unbound: i64,
    /// Rows that the relay has not published.
    pub outbox: i64,
}

/// So many of them are counted.
pub const MOST_UNBOUND: i64 = 100_000;
/// How long a run that ended so counts, in milliseconds.
pub const UNBOUND_MS: i64 = 86_400_000;

/// The tail of the outbox: compared with what the topic holds to notice a restored, older journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The journal's own id.
    pub journal: Uuid,
    /// The number of the last outbox row ever written.
    pub seq: i64,
}

/// From before when what is no longer kept. UTC milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    /// Keys of events.
    pub seen_ms: i64,
    /// Events that led to no case.
    pub events_ms: i64,
    /// Closed cases with their events, ended tasks with their grants.
    pub closed_ms: i64,
}

/// The durable truth.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Whether the last write succeeded. While it did not the process is not ready and no effect may start.
    fn healthy(&self) -> bool;
    /// What sources say of reach, in tables of their own.
    fn reach(&self) -> &dyn reach::Facts;

    /// Intake: events, decisions, cases, rejects and offsets, all or nothing.
    async fn record_batch(&self, batch: Batch) -> Result<Recorded, Error>;
    /// Where a partition stands.
    async fn position(&self, cluster: &str, topic: &str, partition: i32) -> Result<Option<Position>, Error>;
    /// The partition was read to its end at `at_ms` (broker time): its part of the watermark moves on.
    async fn caught_up(&self, cluster: &str, topic: &str, partition: i32, at_ms: i64) -> Result<(), Error>;
    /// Up to when the source was read, in each topic of which anything is known.
    async fn watermark(&self) -> Result<Watermark, Error>;
    /// An operator's answer to a halted partition: the offset from which to go on.
    async fn set_position(&self, to: Position) -> Result<(), Error>;
    /// The Kafka clusters that were ever read.
    async fn clusters(&self) -> Result<Vec<Cluster>, Error>;
    /// Forgets all positions in a cluster that is read no more: they hold the watermark back. Returns how many.
    async fn forget_cluster(&self, cluster: &str) -> Result<u64, Error>;

    /// Claims due cases: round-robin over systems, then urgency, then due time; one per lane; blocked systems wait.
    async fn claim(&self, want: Want) -> Result<Vec<Claim>, Error>;
    /// Appends to a claimed case. Returns the case as it is now.
    async fn append(&self, append: Append) -> Result<Case, Error>;
    /// Gives a claim back without a record.
    async fn unclaim(&self, case: CaseId, epoch: i64, due_ms: i64) -> Result<(), Error>;
    /// Breaker, throttle, `Denied`: no case of `system` is claimed before `until_ms`.
    async fn block(&self, system: &str, until_ms: i64, reason: &str) -> Result<(), Error>;

    /// A process takes part, or goes on doing so, for `lease_ms` from now. Returns its part of each system's budget, in
    /// the order of [`Worker::calls`]; it may use that until then, and no longer.
    async fn announce(&self, worker: Worker, lease_ms: i64) -> Result<Vec<Part>, Error>;
    /// A process ends: its parts and its leaderships are free at once.
    async fn leave(&self, worker: Uuid) -> Result<(), Error>;
    /// Whether `worker` is the one that does `what` (deadlines, reconcile, relay) for `lease_ms` from now.
    async fn lead(&self, what: &str, worker: Uuid, lease_ms: i64) -> Result<bool, Error>;

    /// Live tasks whose deadline or silence lies before `before_ms`, behind `after`, at most `max`, in the order of
    /// [`DueAt`].
    async fn due(&self, before_ms: i64, missed: u32, after: Option<DueAt>, max: usize) -> Result<Vec<Due>, Error>;
    /// Sources with live tasks that promised heartbeats.
    async fn sources(&self) -> Result<Vec<Source>, Error>;
    /// Credentials that were registered and not yet looked up, at most `max`, of one `realm` or of all. Not those that a
    /// case looks at by itself.
    async fn unseen(&self, realm: Option<&str>, max: usize, now_ms: i64) -> Result<Vec<Credential>, Error>;
    /// What the look-up after registration showed; an unclear one is looked up again at `again_ms`.
    async fn saw(
        &self,
        tenant: &Tenant,
        id: &CredentialId,
        seen: Observation,
        again_ms: Option<i64>,
    ) -> Result<(), Error>;
    /// Of these credentials, those that the journal knows.
    async fn known(&self, tenant: &Tenant, ids: Vec<CredentialId>) -> Result<Vec<Known>, Error>;

    /// Freezes, durably.
    async fn freeze(&self, how: Freeze, by: &str, reason: &str) -> Result<(), Error>;
    /// Lifts a freeze, and a held start.
    async fn release(&self, by: &str) -> Result<(), Error>;
    /// The freeze in force.
    async fn frozen(&self) -> Result<Option<Freeze>, Error>;
    /// Marks that this journal may be older than what was published: nothing acts until released.
    async fn hold_start(&self, reason: &str) -> Result<(), Error>;
    /// Whether it is held so.
    async fn started_held(&self) -> Result<Option<String>, Error>;
    /// A person's word on one case: `Resumed`, `Abandoned`, or a new due time with no records.
    async fn command(&self, case: CaseId, record: Option<Record>, now_ms: i64) -> Result<Case, Error>;

    /// Rows to publish, in order, after `after`.
    async fn outbox(&self, after: i64, max: usize) -> Result<Vec<Outgoing>, Error>;
    /// Everything up to `seq` was acknowledged by the broker.
    async fn sent(&self, seq: i64) -> Result<(), Error>;
    /// The tail of the outbox.
    async fn tail(&self) -> Result<Tail, Error>;

    /// Cases for people.
    async fn cases(&self, filter: Filter) -> Result<Vec<CaseLine>, Error>;
    /// The ids of cases between these two, both included, at most so many.
    async fn cases_between(&self, from: CaseId, to: CaseId, max: u32) -> Result<Vec<CaseId>, Error>;
    /// One case for people.
    async fn timeline(&self, case: CaseId) -> Result<Option<Timeline>, Error>;
    /// Tasks for people, with what they hold.
    async fn tasks(&self, filter: TaskFilter) -> Result<Vec<TaskLine>, Error>;
    /// Tasks for how long they live: those that ended at `since_ms` or later, or, where nothing is said, those that live. At most
    /// `max` behind `after` are looked at.
    async fn lived(&self, since_ms: Option<i64>, after: Option<LivedAt>, max: u32) -> Result<LivedPage, Error>;
    /// Open cases for people who watch, in the order of [`shown::Place`].
    async fn watched(&self, page: shown::Page) -> Result<Vec<shown::Watched>, Error>;
    /// The cases that closed last, the newest first.
    async fn last_closed(&self, max: u32) -> Result<Vec<CaseLine>, Error>;
    /// Of the cases that closed after `since_ms`, of the newest `max` those in which a credential died after its task had an
    /// end: the newest first.
    async fn deaths(&self, since_ms: i64, max: u32) -> Result<shown::Deaths, Error>;
    /// One case for people who watch: its first `max` events, and of its appends the first and the last `max`.
    async fn excerpt(&self, case: CaseId, max: u32) -> Result<Option<shown::Excerpt>, Error>;
    /// Tasks for people who watch, each with at most `max` of what it holds.
    async fn holders(&self, which: shown::Which, max: u32) -> Result<Vec<shown::Holder>, Error>;
    /// Findings for people, at most `max`: those that are unmatched, the oldest first, or all, the newest first.
    async fn findings(&self, unmatched: bool, max: u32) -> Result<Vec<Finding>, Error>;
    /// Findings that are matched and whose id begins with `prefix`, in the order of when they were last seen, then of their
    /// ids: those behind `after`, at most `max`.
    async fn matched(&self, prefix: String, after: (i64, String), max: u32) -> Result<Vec<Finding>, Error>;
    /// Overrun of each credential that a task held.
    async fn overrun(&self, now_ms: i64) -> Result<Vec<Overrun>, Error>;
    /// Credentials that are not dead and end with no task, at most `max`: those of kinds that are rotated, and of the others
    /// what its issuer gave no end and no task was to end.
    async fn standing(&self, max: u32) -> Result<Vec<Standing>, Error>;
    /// Who leaves, at most `max` words, the oldest first.
    async fn offboardings(&self, max: u32) -> Result<Vec<Offboarding>, Error>;
    /// Words on who leaves are changed, or end, each where it still stands as it was: what was said anew meanwhile stays. Returns how
    /// many.
    async fn mind_offboardings(&self, minded: Vec<Minded>) -> Result<u64, Error>;
    /// Fences that end at `before_ms` or earlier, at most `max`, the earliest first: those that a case has set, or may have, and
    /// none has given back.
    async fn fences(&self, before_ms: i64, max: u32) -> Result<Vec<Fence>, Error>;
    /// Figures.
    async fn stats(&self, now_ms: i64) -> Result<Stats, Error>;
    /// Deletes what is older than asked, at most about `max` rows, and says how many. Open cases and what they need stay,
    /// and counters do.
    async fn prune(&self, old: Old, max: usize) -> Result<u64, Error>;
}
