//! What leaves Curfew: outcomes, credential states, rejects. Written to the outbox in the transaction of the fact.

use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::case::record::Verdict;
use crate::event::Reject;

/// What an outbox row is about; decides its topic and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A case closed: `dev.curfew.outcome.v1`, id = case id.
    Outcome,
    /// A case changed its standing without closing: `dev.curfew.credential.state.v1`, with a sequence.
    CredentialState,
    /// A delivery was not accepted: `dev.curfew.rejected.v1`.
    Rejected,
}

/// One message on its way out: a structured CloudEvent without its chain link, which the journal adds (`prev`).
#[derive(Debug, Clone)]
pub struct Message {
    /// What.
    pub kind: Kind,
    /// Kafka key: the credential's URN, or the adapter's name for rejects.
    pub key: String,
    /// CloudEvents id: stable, so that at-least-once can be deduplicated.
    pub id: String,
    /// The CloudEvent's `data`.
    pub data: serde_json::Value,
    /// The producer's trace context.
    pub traceparent: Option<String>,
}

/// The outcome of a case that closes with `verdict` at `now_ms`.
pub fn closed(_case: &Case, _verdict: &Verdict, _now_ms: i64) -> Message {
    unimplemented!()
}

/// The standing of a case that goes on.
pub fn standing(_case: &Case, _now_ms: i64) -> Message {
    unimplemented!()
}

/// A reject.
pub fn rejected(_reject: &Reject) -> Message {
    unimplemented!()
}
