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

mod openlineage;
#[cfg(test)]
mod tests;

use super::envelope::is_text;
use super::read::Fields;
use super::tree::Node;
use super::{Data, Delivery, Event, Fault, Limits, RejectReason, Type, digest16};

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
}

impl Format {
    /// Those of schedulers.
    pub const SCHEDULERS: [Self; 1] = [Self::OpenLineage];

    /// The name in configuration and paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Curfew => "curfew",
            Self::OpenLineage => "openlineage",
        }
    }

    /// What can be said in it.
    pub const fn says(self) -> &'static [Type] {
        match self {
            Self::Curfew => &Type::INPUTS,
            _ => &[Type::TaskStarted, Type::TaskHeartbeat, Type::TaskEnded],
        }
    }

    /// The scheduler's format of this name.
    pub fn of_scheduler(name: &str) -> Option<Self> {
        Self::SCHEDULERS.into_iter().find(|one| one.as_str() == name)
    }

    /// Who reads it; `None`: it is Curfew's own.
    pub(super) fn reader(self) -> Option<Reader> {
        match self {
            Self::Curfew => None,
            Self::OpenLineage => Some(openlineage::read),
        }
    }
}

/// Reads one record.
pub(super) type Reader = fn(&Delivery, &str, &Limits) -> Result<Option<Said>, Fault>;

/// What one record says.
pub(super) struct Said {
    /// Who says it, and whose the run is.
    source: String,
    /// What.
    data: Data,
    /// All else that was read, as it was written: it tells two records apart.
    words: Vec<String>,
}

/// The event that a record says.
pub(super) fn read(delivery: &Delivery, limits: &Limits, reader: Reader) -> Result<Option<Event>, Fault> {
    let payload = delivery.payload.as_deref().ok_or(RejectReason::Tombstone)?;
    if payload.len() > MAX_SCHEDULER_BYTES {
        return Err(RejectReason::TooLarge.into());
    }
    let text = std::str::from_utf8(payload).map_err(|_| RejectReason::BadUtf8)?;
    Ok(reader(delivery, text, limits)?.map(|said| event(delivery, said)))
}

fn event(delivery: &Delivery, Said { source, data, words }: Said) -> Event {
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
