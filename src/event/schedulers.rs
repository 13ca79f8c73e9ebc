//! Schedulers' own events, as they publish them, become ours: a start, a sign of life, an end. PURE.
//!
//! One record says one thing about one run, or nothing that Curfew acts on. Only named fields are read; all others, where
//! schedulers put environments, sources, parameters and errors with all the secrets in them, are passed over and never
//! become a value (`tree::Names`). What is named here cannot become a name of a credential either: grants come from who
//! hands out credentials.
//!
//! The event's id is a hash of all that was read, so the same record again is a duplicate, and never a conflict. The run
//! key is `<source>:<run id>`, and the source has the scheduler's own name for itself in it: `sources` and `speaks_for` of
//! a topic bound whose runs it may speak of, as for any producer.

mod a2a;
mod cdevents;
pub mod kubernetes;
mod openlineage;
mod tekton;
#[cfg(test)]
mod tests;

use super::envelope::is_text;
use super::read::Fields;
use super::tree::{self, Entries, Names, Node};
use super::{
    Data, Delivery, Event, Fault, Limits, RejectReason, TaskEnded, TaskHeartbeat, TaskStarted, Type, digest16,
};
use crate::task::RunKey;

/// Bytes of a scheduler's record at most: Kafka's own default. Events of Spark are long, by what is not read.
pub const MAX_SCHEDULER_BYTES: usize = 1024 * 1024;

/// In which format a topic's records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Curfew's own events.
    #[default]
    Curfew,
    /// `RunEvent`s of OpenLineage, as Airflow, Spark, dbt and Flink publish them.
    OpenLineage,
    /// `CDEvents` of task runs and pipeline runs.
    CdEvents,
    /// Tekton's own CloudEvents.
    Tekton,
    /// Push notifications of A2A, on tasks of agents.
    A2a,
    /// Jobs and Pods of Kubernetes. Nobody publishes them: the role `kubernetes` watches, and speaks as the topic.
    Kubernetes,
}

impl Format {
    /// Those that schedulers publish.
    pub const SCHEDULERS: [Self; 4] = [Self::OpenLineage, Self::CdEvents, Self::Tekton, Self::A2a];

    /// The name in configuration and paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Curfew => "curfew",
            Self::OpenLineage => "openlineage",
            Self::CdEvents => "cdevents",
            Self::Tekton => "tekton",
            Self::A2a => "a2a",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// What can be said in it.
    pub const fn says(self) -> &'static [Type] {
        match self {
            Self::Curfew => &Type::INPUTS,
            Self::Kubernetes => &[Type::TaskStarted, Type::TaskEnded],
            _ => &[Type::TaskStarted, Type::TaskHeartbeat, Type::TaskEnded],
        }
    }

    /// The scheduler's format of this name.
    pub fn of_scheduler(name: &str) -> Option<Self> {
        Self::SCHEDULERS.into_iter().find(|one| one.as_str() == name)
    }

    /// Who reads it; `None`: it is Curfew's own.
    pub(super) fn reader(self) -> Option<Reader> {
        Some(match self {
            Self::Curfew => return None,
            Self::OpenLineage => Reader { names: &openlineage::NAMES, read: openlineage::read },
            Self::CdEvents => Reader { names: &cdevents::NAMES, read: cdevents::read },
            Self::Tekton => Reader { names: &tekton::NAMES, read: tekton::read },
            Self::A2a => Reader { names: &a2a::NAMES, read: a2a::read },
            Self::Kubernetes => Reader { names: &kubernetes::NAMES, read: kubernetes::read },
        })
    }
}

/// Reads records of one format.
pub(super) struct Reader {
    /// What is read of them.
    names: &'static Names,
    /// What one says; `None`: nothing of a run's life.
    read: fn(&Delivery, &Entries<'_>) -> Result<Option<Said>, Fault>,
}

/// What one record says.
struct Said {
    /// Who says it, and whose the run is.
    source: String,
    /// Which run.
    run: RunKey,
    /// The run that it is a part of.
    within: Option<RunKey>,
    /// Which attempt, from 1: where one run id is one attempt, the first.
    attempt: u32,
    /// What became of it.
    moment: Moment,
    /// When, as the scheduler says.
    at_ms: Option<i64>,
    /// The logical task.
    task: Option<String>,
    /// Who runs it.
    identity: Option<String>,
    /// All else that was read, as it was written: it tells two records apart.
    words: Vec<String>,
}

/// A moment in the life of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// It runs, and when it must be over.
    Starts { deadline_ms: Option<i64> },
    /// It lives.
    Lives,
    /// It is over, and how.
    Ends(&'static str),
}

impl Moment {
    const START: Self = Self::Starts { deadline_ms: None };

    /// An end must get through: its times are forgiven.
    fn times(self) -> super::read::Times {
        use super::read::Times;
        if matches!(self, Self::Ends(_)) { Times::Forgiven } else { Times::Checked }
    }
}

/// The event that a record says.
pub(super) fn read(delivery: &Delivery, limits: &Limits, reader: Reader) -> Result<Option<Event>, Fault> {
    let payload = delivery.payload.as_deref().ok_or(RejectReason::Tombstone)?;
    if payload.len() > MAX_SCHEDULER_BYTES {
        return Err(RejectReason::TooLarge.into());
    }
    let text = std::str::from_utf8(payload).map_err(|_| RejectReason::BadUtf8)?;
    let Node::Object(entries) = tree::parse_only(text, limits.max_depth, reader.names)? else {
        return Err(RejectReason::WrongSchema.into());
    };
    Ok((reader.read)(delivery, &entries)?.map(|said| event(delivery, said)))
}

fn event(delivery: &Delivery, said: Said) -> Event {
    let Said { source, run, within, attempt, moment, at_ms, task, identity, words } = said;
    let data = match moment {
        Moment::Starts { deadline_ms } => Data::TaskStarted(TaskStarted {
            boundary: None,
            run,
            within,
            attempt,
            task,
            identity,
            started_ms: at_ms,
            deadline_ms,
            heartbeat_every_ms: None,
            grants: Vec::new(),
        }),
        Moment::Lives => Data::TaskHeartbeat(TaskHeartbeat { run }),
        Moment::Ends(outcome) => Data::TaskEnded(TaskEnded {
            run,
            attempt,
            task,
            identity,
            ended_ms: at_ms,
            outcome: Some(outcome.to_owned()),
            grants: Vec::new(),
            continued_as: None,
        }),
    };
    let kind = data.kind();
    let mut parts = vec![delivery.format.as_str().as_bytes(), kind.as_str().as_bytes(), source.as_bytes()];
    parts.extend(words.iter().map(String::as_bytes));
    let digest = digest16(&parts);
    Event {
        at: delivery.at.clone(),
        tenant: delivery.tenant.clone(),
        id: hex::encode(digest),
        source,
        kind,
        broker_ms: delivery.broker_ms,
        digest,
        traceparent: None,
        data,
    }
}

/// A name for people, where there is one that can be shown: it is nothing to reject an end for.
fn name(fields: &Fields<'_>, field: &str) -> Option<String> {
    match fields.get(field) {
        Some(Node::Text(text)) if is_text(text) => Some(text.clone().into_owned()),
        _ => None,
    }
}

/// The words of a record, those that are not there as empty ones.
fn words<const N: usize>(words: [Option<&str>; N]) -> Vec<String> {
    words.map(|word| word.unwrap_or_default().to_owned()).to_vec()
}
