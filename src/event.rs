//! What producers say and what Curfew itself notices: all the same kind of thing, CloudEvents 1.0.
//!
//! [`decode`] turns a [`Delivery`] into an [`Event`] or a [`Reject`]; it mirrors `schemas/events`. [`understand`] does the
//! same for what schedulers say in a format of their own.

pub mod adapters;
mod data;
mod envelope;
mod own;
mod read;
mod says;
mod schedulers;
#[cfg(test)]
mod tests;
mod time;
mod tree;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::task::Tenant;

pub use data::{
    ACCESS_KEY_ID, CredentialAdopted, CredentialRegistered, Data, FindingClosed, FindingObserved, GrantRegistered,
    GrantReleased, GrantSpec, Identifier, IdentityOffboarded, Leaves, Location, PartFingerprint, Scanner, TaskEnded,
    TaskExtended, TaskHeartbeat, TaskStarted, access_key_mark,
};
pub use own::OWN;
pub use says::{Says, Unheard, is_like, run_among};
pub use schedulers::{Format, MAX_SCHEDULER_BYTES, kubernetes};

/// Where a record came from. For HTTP intake the topic is the configured one and partition and offset are ‑1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Coordinates {
    /// The Kafka cluster's id, or `http`.
    pub cluster: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Bytes with their coordinates; nothing is known of them yet.
#[derive(Clone)]
pub struct Delivery {
    /// Where from.
    pub at: Coordinates,
    /// From the topic's configuration, never from the payload.
    pub tenant: Tenant,
    /// What its bytes are: from the topic's configuration or the path of the request, never from the payload.
    pub format: Format,
    /// The broker's append time; where the broker has none, and over HTTP, when it came.
    pub broker_ms: i64,
    /// Header names and values; a value may be null in Kafka.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The record's value; `None` is a tombstone.
    pub payload: Option<Bytes>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({:?}, {} bytes)", self.at, self.payload.as_ref().map_or(0, Bytes::len))
    }
}

/// The event types, without the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// A task began.
    TaskStarted,
    /// A task's deadline moved.
    TaskExtended,
    /// A task lives.
    TaskHeartbeat,
    /// A task is over.
    TaskEnded,
    /// A task holds a credential.
    GrantRegistered,
    /// A task gave a credential back.
    GrantReleased,
    /// An inventory knows a credential, by fingerprints.
    CredentialRegistered,
    /// A consumer took a new value, or cannot work with it.
    CredentialAdopted,
    /// A scanner saw a credential where it should not be.
    FindingObserved,
    /// A scanner's user closed a finding.
    FindingClosed,
    /// Somebody leaves: what it holds is to end.
    IdentityOffboarded,
    /// Curfew: a task's deadline passed.
    DeadlinePassed,
    /// Curfew: a task that promised heartbeats fell silent.
    HeartbeatMissed,
    /// Curfew: the issuer holds something that the journal does not expect.
    ReconcileFound,
    /// Curfew: a value is about to be older than its recipe allows.
    RotationDue,
    /// Curfew: what denies the sessions of a dead credential has nothing left to deny.
    SessionsOver,
    /// Curfew: the fence of an offboarding has stood as long as it was to.
    FenceOver,
    /// Curfew: an operator's command.
    OperatorOffboard,
    /// Curfew: an operator's command.
    OperatorRotate,
    /// Curfew: an operator's command.
    OperatorReduce,
    /// Curfew: an operator's command.
    OperatorRestore,
    /// Curfew: an operator's command.
    OperatorRevoke,
}

impl Type {
    /// The name between `dev.curfew.` and the version, also the value of metric labels and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskStarted => "task.started",
            Self::TaskExtended => "task.extended",
            Self::TaskHeartbeat => "task.heartbeat",
            Self::TaskEnded => "task.ended",
            Self::GrantRegistered => "grant.registered",
            Self::GrantReleased => "grant.released",
            Self::CredentialRegistered => "credential.registered",
            Self::CredentialAdopted => "credential.adopted",
            Self::FindingObserved => "finding.observed",
            Self::FindingClosed => "finding.closed",
            Self::IdentityOffboarded => "identity.offboarded",
            Self::DeadlinePassed => "deadline.passed",
            Self::HeartbeatMissed => "heartbeat.missed",
            Self::ReconcileFound => "reconcile.found",
            Self::RotationDue => "rotation.due",
            Self::SessionsOver => "sessions.over",
            Self::FenceOver => "fence.over",
            Self::OperatorOffboard => "operator.offboard",
            Self::OperatorRotate => "operator.rotate",
            Self::OperatorReduce => "operator.reduce",
            Self::OperatorRestore => "operator.restore",
            Self::OperatorRevoke => "operator.revoke",
        }
    }

    /// What producers may say.
    pub const INPUTS: [Self; 11] = [
        Self::TaskStarted,
        Self::TaskExtended,
        Self::TaskHeartbeat,
        Self::TaskEnded,
        Self::GrantRegistered,
        Self::GrantReleased,
        Self::CredentialRegistered,
        Self::CredentialAdopted,
        Self::FindingObserved,
        Self::FindingClosed,
        Self::IdentityOffboarded,
    ];
    /// What only Curfew itself may say; from outside it is rejected.
    pub const OWN: [Self; 11] = [
        Self::DeadlinePassed,
        Self::HeartbeatMissed,
        Self::ReconcileFound,
        Self::RotationDue,
        Self::SessionsOver,
        Self::FenceOver,
        Self::OperatorOffboard,
        Self::OperatorRotate,
        Self::OperatorReduce,
        Self::OperatorRestore,
        Self::OperatorRevoke,
    ];

    /// Whether it is one of [`Self::OWN`].
    pub fn is_own(self) -> bool {
        Self::OWN.contains(&self)
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where from; own events have cluster `curfew`.
    pub at: Coordinates,
    /// Whose.
    pub tenant: Tenant,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `id`; with `source` unique for each distinct event.
    pub id: String,
    /// The type, without version.
    pub kind: Type,
    /// The broker's append time; own events: when Curfew noticed.
    pub broker_ms: i64,
    /// The first 16 bytes of SHA-256 over (type, subject, canonical data): the same (source, id) with another digest is a conflict.
    pub digest: [u8; 16],
    /// W3C trace context of the producer.
    pub traceparent: Option<String>,
    /// What it says.
    pub data: Data,
}

impl Event {
    /// The natural key in the `seen` index: 16 bytes of SHA-256 over tenant, source and id.
    pub fn natural_key(&self) -> [u8; 16] {
        digest16(&[self.tenant.as_bytes(), self.source.as_bytes(), self.id.as_bytes()])
    }
}

/// The first 16 bytes of SHA-256 over length-prefixed parts.
pub fn digest16(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&context.finish().as_ref()[..16]);
    out
}

/// Why a delivery was not accepted: the value of `reason` in events and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// No value: a tombstone where none is expected.
    Tombstone,
    /// A CloudEvents header is null, doubled or not UTF-8.
    BadHeader,
    /// A required attribute is missing or malformed.
    BadEnvelope,
    /// Larger than the limit.
    TooLarge,
    /// Nested deeper than the limit.
    TooDeep,
    /// Not UTF-8.
    BadUtf8,
    /// Not JSON.
    BadJson,
    /// JSON, but not as the type's schema says.
    WrongSchema,
    /// Not a type that Curfew knows.
    UnknownType,
    /// A known type in a version that this build does not read.
    UnknownVersion,
    /// Times that no clock can have shown (an end event is never rejected for its times).
    AbsurdTime,
    /// A type that only Curfew itself may emit.
    Forbidden,
    /// The same (source, id) was seen with other content.
    Conflict,
}

impl RejectReason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Tombstone,
        Self::BadHeader,
        Self::BadEnvelope,
        Self::TooLarge,
        Self::TooDeep,
        Self::BadUtf8,
        Self::BadJson,
        Self::WrongSchema,
        Self::UnknownType,
        Self::UnknownVersion,
        Self::AbsurdTime,
        Self::Forbidden,
        Self::Conflict,
    ];

    /// The reason as it stands in events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::BadHeader => "bad_header",
            Self::BadEnvelope => "bad_envelope",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::BadUtf8 => "bad_utf8",
            Self::BadJson => "bad_json",
            Self::WrongSchema => "wrong_schema",
            Self::UnknownType => "unknown_type",
            Self::UnknownVersion => "unknown_version",
            Self::AbsurdTime => "absurd_time",
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
        }
    }
}

/// A delivery that was not accepted: reason and coordinates, never its bytes nor a parser's words (they can quote it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Where from.
    pub at: Coordinates,
    /// Whose.
    pub tenant: Tenant,
    /// Why.
    pub reason: RejectReason,
    /// JSON pointer to the place at fault, built from the schema's own names only.
    pub pointer: Option<String>,
    /// Size of the value in bytes.
    pub size_bytes: u64,
    /// The broker's append time.
    pub broker_ms: i64,
}

/// What a delivery may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a record's value.
    pub max_bytes: usize,
    /// Nesting of JSON arrays and objects in `data`, itself included.
    pub max_depth: usize,
    /// Grants in one event.
    pub max_grants: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 256 * 1024, max_depth: 16, max_grants: 256 }
    }
}

/// Reads a delivery as one of Curfew's own events: both Kafka modes of CloudEvents 1.0.
///
/// The value is parsed once; unknown attributes and fields are dropped with it.
///
/// # Errors
/// The [`Reject`], without any of the bytes.
pub fn decode(delivery: &Delivery, limits: &Limits) -> Result<Event, Reject> {
    read(delivery, limits).map_err(|fault| reject(delivery, fault))
}

/// Reads a delivery in the format that it has. `None`: it says nothing that Curfew acts on.
///
/// # Errors
/// The [`Reject`], without any of the bytes.
pub fn understand(delivery: &Delivery, limits: &Limits) -> Result<Option<Event>, Reject> {
    match delivery.format.reader() {
        None => decode(delivery, limits).map(Some),
        Some(reader) => schedulers::read(delivery, limits, reader).map_err(|fault| reject(delivery, fault)),
    }
}

fn reject(delivery: &Delivery, fault: Fault) -> Reject {
    Reject {
        at: delivery.at.clone(),
        tenant: delivery.tenant.clone(),
        reason: fault.reason,
        pointer: fault.pointer.map(Cow::into_owned),
        size_bytes: delivery.payload.as_ref().map_or(0, |payload| payload.len() as u64),
        broker_ms: delivery.broker_ms,
    }
}

fn read(delivery: &Delivery, limits: &Limits) -> Result<Event, Fault> {
    let envelope = envelope::open(delivery, limits)?;
    let data = read::data(&envelope, delivery.broker_ms, limits)?;
    let mut canonical = Vec::with_capacity(512);
    envelope.data.canonical(&mut canonical);
    let subject = envelope.subject.as_deref().unwrap_or_default();
    Ok(Event {
        at: delivery.at.clone(),
        tenant: delivery.tenant.clone(),
        digest: digest16(&[envelope.type_name.as_bytes(), subject.as_bytes(), &canonical]),
        source: envelope.source.into_owned(),
        id: envelope.id.into_owned(),
        kind: envelope.kind,
        broker_ms: delivery.broker_ms,
        traceparent: envelope.traceparent,
        data,
    })
}

/// A [`Reject`] before it knows its coordinates. The pointer is made of the schema's names and list indices.
struct Fault {
    reason: RejectReason,
    pointer: Option<Cow<'static, str>>,
}

impl Fault {
    fn at(reason: RejectReason, pointer: &'static str) -> Self {
        Self { reason, pointer: Some(Cow::Borrowed(pointer)) }
    }
}

impl From<RejectReason> for Fault {
    fn from(reason: RejectReason) -> Self {
        Self { reason, pointer: None }
    }
}
