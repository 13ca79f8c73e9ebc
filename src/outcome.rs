//! What leaves Curfew: outcomes, credential states, rejects. Written to the outbox in the transaction of the fact.
//!
//! The data is built here, field by field, from facts that hold no secret; `schemas/events` closes it: a field that is
//! not in the schema cannot leave. [`envelope`] wraps it when the journal knows its place in the chain.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::case::Case;
use crate::case::derived::{Derived, Role};
use crate::case::plan::{Act, Agent};
use crate::case::record::{Generation, Level, Output, UnknownWhy, Verdict};
use crate::connector::recipe::{self, Recipe};
use crate::event::{Reject, digest16};
use crate::probe;

/// The largest body that [`envelope`] makes: what every CloudEvents intermediary must forward.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest text of foreign origin in a body. Longer ones are cut: no body may grow past [`MAX_BODY_BYTES`].
const MAX_TEXT_BYTES: usize = 1024;

/// The most provider request ids in a body.
const MAX_REQUEST_IDS: usize = 16;

/// What an outbox row is about; decides its topic and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A case closed: `dev.curfew.outcome.v1`, id = case id.
    Outcome,
    /// A case changed its standing without closing: `dev.curfew.credential.state.v1`, with a sequence.
    CredentialState,
    /// Consumers must read a new value: `dev.curfew.credential.rotated.v1`.
    Rotated,
    /// A delivery was not accepted: `dev.curfew.rejected.v1`.
    Rejected,
}

impl Kind {
    /// The CloudEvents type.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Outcome => "dev.curfew.outcome.v1",
            Self::CredentialState => "dev.curfew.credential.state.v1",
            Self::Rotated => "dev.curfew.credential.rotated.v1",
            Self::Rejected => "dev.curfew.rejected.v1",
        }
    }

    /// The `$id` of the schema that closes it.
    pub fn schema(self) -> &'static str {
        match self {
            Self::Outcome => "urn:curfew:schema:outcome.v1",
            Self::CredentialState => "urn:curfew:schema:credential.state.v1",
            Self::Rotated => "urn:curfew:schema:credential.rotated.v1",
            Self::Rejected => "urn:curfew:schema:rejected.v1",
        }
    }

    /// The CloudEvents source: with the id unique for each distinct message.
    pub fn source(self) -> &'static str {
        match self {
            Self::Outcome => "/curfew/outcomes",
            Self::CredentialState => "/curfew/states",
            Self::Rotated => "/curfew/rotations",
            Self::Rejected => "/curfew/rejects",
        }
    }
}

/// One message on its way out: a structured CloudEvent without its chain link, which the journal adds (`prev`).
#[derive(Debug, Clone)]
pub struct Message {
    /// What.
    pub kind: Kind,
    /// Kafka key: the credential's URN, or the topic that the delivery came from for rejects.
    pub key: String,
    /// CloudEvents id: stable, so that at-least-once can be deduplicated.
    pub id: String,
    /// The CloudEvent's `data`.
    pub data: Value,
    /// The producer's trace context.
    pub traceparent: Option<String>,
}

/// The outcome of a case that closes with `verdict` at `now_ms`.
pub fn closed(case: &Case, verdict: &Verdict, now_ms: i64) -> Message {
    let mut data = common(case, verdict);
    data.insert("closed_at".into(), time(now_ms));
    if let Verdict::Dead { at_ms, .. } = verdict {
        // Two clocks, two figures: the broker's is the same for all producers, the scheduler's is what people mean by
        // "the task ended". Either may come out negative; that is a fact about clocks, and is published as it is.
        data.insert("ended_to_dead_ms".into(), at_ms.saturating_sub(case.directive.broker_ms).into());
        if let Some(end_ms) = case.directive.end_ms {
            data.insert("overrun_ms".into(), at_ms.saturating_sub(end_ms).into());
        }
    }
    // Nobody opens a session with it after the series that proved it dead.
    let closed_ms = case.state.series.last_ms.filter(|_| matches!(verdict, Verdict::Dead { .. }));
    if let Some(derived) = &case.state.derived {
        data.insert("derived".into(), outlives(derived, closed_ms));
    }
    message(Kind::Outcome, case, case.id.to_string(), data)
}

/// The standing of a case that goes on.
pub fn standing(case: &Case, now_ms: i64) -> Message {
    let mut data = common(case, &probe::standing(case));
    data.insert("sequence".into(), case.seq.into());
    data.insert("phase".into(), case.state.name().into());
    data.insert("as_of".into(), time(now_ms));
    if let Some(derived) = &case.state.derived {
        data.insert("derived".into(), outlives(derived, None));
    }
    if !case.state.residue.is_empty() {
        data.insert("residue".into(), json!(case.state.residue));
    }
    message(Kind::CredentialState, case, format!("{}:{}", case.id, case.seq), data)
}

/// Another value stands where consumers read, by a promotion or its undoing: its version and place, never the value.
pub fn rotated(
    case: &Case,
    (act, agent): (Act, Option<&Agent>),
    output: &Output,
    recipe: Option<&Recipe>,
    now_ms: i64,
) -> Message {
    let turn = &case.state.turn;
    let before = if act == Act::Revert { &turn.new } else { &turn.old };
    let place = recipe.map(|recipe| (&recipe.place, None));
    let mut message = replaced(case, before.as_ref(), output.current.as_ref(), place, now_ms);
    // Versions at the places of two agents may be called alike.
    if let Some(agent) = agent {
        message.id = format!("{}:{}", message.id, hex::encode(digest16(&[agent.user.as_bytes()])));
        message.data["agent"] = clip(&agent.name).into();
    }
    message
}

/// The same at a copy, which has the value now.
pub fn copied(case: &Case, output: &Output, copy: &recipe::Place, now_ms: i64) -> Message {
    let (before, after) = standing_values(case);
    let version = output.current.as_ref().map(|there| there.version);
    let mut message = replaced(case, before, after, Some((copy, version)), now_ms);
    let name = hex::encode(digest16(&[copy.realm.as_bytes(), copy.name().as_bytes()]));
    message.id = format!("{}:{name}", message.id);
    message
}

/// What a webhook is told of the value that consumers read now. Its id is that of the message that the topic has.
pub fn called(case: &Case, recipe: &Recipe, now_ms: i64) -> Message {
    let (before, after) = standing_values(case);
    let at_ms = case.state.turn.promoted_ms.unwrap_or(now_ms);
    replaced(case, before, after, Some((&recipe.place, None)), at_ms)
}

/// The value before, and the one that consumers read: after a way back, the old one.
fn standing_values(case: &Case) -> (Option<&Generation>, Option<&Generation>) {
    let turn = &case.state.turn;
    match &turn.new {
        Some(new) => (turn.old.as_ref(), Some(new)),
        None => (None, turn.old.as_ref()),
    }
}

fn replaced(
    case: &Case,
    before: Option<&Generation>,
    after: Option<&Generation>,
    place: Option<(&recipe::Place, Option<i64>)>,
    now_ms: i64,
) -> Message {
    let directive = &case.directive;
    let mut data = Map::new();
    data.insert("case_id".into(), case.id.to_string().into());
    data.insert("tenant".into(), clip(&case.tenant).into());
    data.insert("cred_id".into(), directive.credential.as_str().into());
    data.insert("action".into(), directive.action.as_str().into());
    data.insert("rotated_at".into(), time(now_ms));
    for (name, generation) in [("old", before), ("new", after)] {
        if let Some(generation) = generation {
            let mut value = Map::new();
            value.insert("version".into(), generation.version.into());
            value.extend(generation.user.as_ref().map(|user| ("user".to_owned(), clip(user).into())));
            data.insert(name.into(), value.into());
        }
    }
    if let Some((place, version)) = place {
        let mut at = json!({"realm": clip(&place.realm), "mount": clip(&place.mount), "path": clip(&place.path)});
        if let Some(version) = version {
            at["version"] = version.into();
        }
        data.insert("store".into(), at);
    }
    let version = after.map_or(0, |new| new.version);
    message(Kind::Rotated, case, format!("{}:{version}", case.id), data)
}

/// A reject: reason and coordinates, none of the bytes.
pub fn rejected(reject: &Reject) -> Message {
    let at = &reject.at;
    let mut id = format!("{}/{}/{}/{}", at.cluster, at.topic, at.partition, at.offset);
    if at.offset < 0 {
        // HTTP has no offset that would tell two rejects apart.
        id = format!("{id}/{}", Uuid::new_v4());
    }
    let mut data = Map::new();
    data.insert("tenant".into(), reject.tenant.as_ref().into());
    data.insert("cluster".into(), at.cluster.as_ref().into());
    data.insert("topic".into(), at.topic.as_ref().into());
    data.insert("partition".into(), at.partition.into());
    data.insert("offset".into(), at.offset.into());
    data.insert("reason".into(), reject.reason.as_str().into());
    if let Some(pointer) = &reject.pointer {
        data.insert("pointer".into(), clip(pointer).into());
    }
    data.insert("size_bytes".into(), reject.size_bytes.into());
    data.insert("appended_at".into(), time(reject.broker_ms));
    Message { kind: Kind::Rejected, key: at.topic.to_string(), id, data: data.into(), traceparent: None }
}

/// Where a message stands in what its journal sends.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The journal's own id.
    pub journal: Uuid,
    /// The message's number in its outbox.
    pub seq: i64,
    /// The SHA-256 (hex) of the body before it.
    pub prev: Option<&'a str>,
}

/// The structured CloudEvent. The same arguments give the same bytes.
pub fn envelope(message: &Message, place: Place<'_>, now_ms: i64) -> Vec<u8> {
    let mut event = attributes(message, now_ms);
    // CloudEvents compares sequences as text, so it has a fixed width.
    event.insert("sequence".into(), format!("{:020}", place.seq).into());
    event.insert("journal".into(), place.journal.to_string().into());
    if let Some(prev) = place.prev {
        event.insert("prev".into(), prev.into());
    }
    let body = Value::Object(event).to_string().into_bytes();
    debug_assert!(body.len() <= MAX_BODY_BYTES, "every text in a body is bounded");
    body
}

/// The structured CloudEvent of a message that has no place in the outbox: what a webhook gets.
pub fn unchained(message: &Message, now_ms: i64) -> Vec<u8> {
    Value::Object(attributes(message, now_ms)).to_string().into_bytes()
}

fn attributes(message: &Message, now_ms: i64) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("specversion".into(), "1.0".into());
    event.insert("type".into(), message.kind.event_type().into());
    event.insert("source".into(), message.kind.source().into());
    event.insert("id".into(), message.id.as_str().into());
    event.insert("time".into(), time(now_ms));
    event.insert("subject".into(), message.key.as_str().into());
    event.insert("partitionkey".into(), message.key.as_str().into());
    event.insert("datacontenttype".into(), "application/json".into());
    event.insert("dataschema".into(), message.kind.schema().into());
    if let Some(traceparent) = &message.traceparent {
        event.insert("traceparent".into(), clip(traceparent).into());
    }
    event.insert("data".into(), message.data.clone());
    event
}

fn message(kind: Kind, case: &Case, id: String, data: Map<String, Value>) -> Message {
    let key = case.directive.credential.to_string();
    Message { kind, key, id, data: data.into(), traceparent: case.traceparent.clone() }
}

/// What outcomes and states have in common.
fn common(case: &Case, verdict: &Verdict) -> Map<String, Value> {
    let directive = &case.directive;
    let mut data = Map::new();
    data.insert("case_id".into(), case.id.to_string().into());
    data.insert("tenant".into(), clip(&case.tenant).into());
    data.insert("cred_id".into(), directive.credential.as_str().into());
    data.insert("kind".into(), directive.credential.kind_name().into());
    data.insert("system".into(), clip(&case.system).into());
    data.insert("action".into(), directive.action.as_str().into());
    data.insert("trigger".into(), directive.trigger.as_str().into());
    data.insert("verdict".into(), proof(verdict));
    data.insert("opened_at".into(), time(case.opened_ms));
    data.insert("event_at".into(), time(directive.broker_ms));
    data.extend(case.blast.map(|blast| ("blast_radius".to_owned(), blast.into())));
    if let Some(run) = &directive.run {
        data.insert("run_key".into(), clip(run.as_str()).into());
    }
    if let Some(principal) = &case.principal {
        data.insert("principal".into(), clip(principal).into());
    }
    if let Some(end_ms) = directive.end_ms {
        data.insert("task_ended_at".into(), time(end_ms));
    }
    if let Some(moves) = directive.moves() {
        data.insert("agents".into(), moves.iter().map(|one| Value::from(clip(&one.agent))).collect());
    } else if let Some(cut) = &directive.cut {
        data.insert("permissions".into(), json!(cut.permissions));
    }
    data.extend(directive.not_before_ms.map(|from_ms| ("not_before".to_owned(), time(from_ms))));
    if let Some(quarantined) = case.state.issuer().and_then(|seen| seen.quarantined) {
        data.insert("quarantined".into(), quarantined.into());
    }
    let ids: Vec<Value> = (case.state.requests.iter()).take(MAX_REQUEST_IDS).map(|id| clip(id).into()).collect();
    if !ids.is_empty() {
        data.insert("request_ids".into(), ids.into());
    }
    data
}

/// What outlives a credential that nobody opened anything with after `closed_ms`.
fn outlives(derived: &Derived, closed_ms: Option<i64>) -> Value {
    let one = |role: &Role| {
        let mut said = json!({
            "role": clip(&role.name),
            "lasts_ms": role.lasts_ms,
            "lasts_by": role.by.as_str(),
            "others": role.others.count,
            "others_at_least": role.others.at_least,
        });
        if let Some(closed_ms) = closed_ms {
            said["over_at"] = time(closed_ms.saturating_add(role.lasts_ms));
        }
        if let Some(denied_ms) = role.denied_ms {
            said["denied_before"] = time(denied_ms);
        }
        said
    };
    let roles: Vec<Value> = derived.roles.iter().map(one).collect();
    json!({"roles": roles, "more": derived.more, "whole": derived.whole})
}

/// A verdict as P8 publishes it: exactly one state, with what backs it.
fn proof(verdict: &Verdict) -> Value {
    let state = verdict.as_str();
    match verdict {
        Verdict::Dead { level, at_ms, sightings, by, residue } => json!({
            "state": state,
            "by": by,
            "proof": { "level": level, "refused_at": time(*at_ms), "sightings": sightings },
            "residue": residue,
        }),
        Verdict::Reduced { at_ms, sightings, taken, residue } => json!({
            "state": state,
            "taken": taken,
            "proof": { "level": Level::Target, "refused_at": time(*at_ms), "sightings": sightings },
            "residue": residue,
        }),
        Verdict::RolledBack { at_ms } => json!({ "state": state, "at": time(*at_ms) }),
        Verdict::DiesAt { at_ms } => json!({ "state": state, "at": time(*at_ms) }),
        Verdict::Alive { by } => json!({ "state": state, "by": by }),
        Verdict::Unknown { why: UnknownWhy::Held(by) } => json!({ "state": state, "why": "held", "by": by }),
        Verdict::Unknown { why } => json!({ "state": state, "why": why }),
        Verdict::NotFound | Verdict::Obsolete => json!({ "state": state }),
    }
}

/// RFC 3339 in UTC with milliseconds; what no calendar holds is shown at the calendar's edge: a wished deadline may have
/// come from anywhere, and year -1 is no RFC 3339.
fn time(ms: i64) -> Value {
    const YEAR_0_MS: i64 = -62_167_219_200_000;
    let at = jiff::Timestamp::from_millisecond(ms.max(YEAR_0_MS)).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}").into()
}

/// At most [`MAX_TEXT_BYTES`], cut between characters.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}
