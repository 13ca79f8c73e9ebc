//! Push notifications of A2A (1.0, and 0.3): what an agent's task is at.
//!
//! An agent that waits for input or for somebody's consent has not ended. Messages and artifacts say nothing of a task's
//! life, and are not read. A notification names no agent: the header `ce_source` does, over HTTP from the path.

use super::super::envelope::{Headers, is_text};
use super::super::read::{Fields, Times};
use super::super::tree::{Entries, Names};
use super::super::{Delivery, Fault, RejectReason};
use super::{Moment, Said, name, words};

/// Below it are the agents.
const SOURCE: &str = "/a2a";

const STATUS: Names = Names(&[("state", None), ("timestamp", None)]);
const TASK: Names = Names(&[("id", None), ("status", Some(&STATUS))]);
const UPDATE: Names = Names(&[("taskId", None), ("status", Some(&STATUS))]);

/// What is read: the shapes of 1.0, and those of 0.3, which stand bare.
pub(super) const NAMES: Names = Names(&[
    ("task", Some(&TASK)),
    ("statusUpdate", Some(&UPDATE)),
    ("message", Some(&Names(&[]))),
    ("artifactUpdate", Some(&Names(&[]))),
    ("kind", None),
    ("id", None),
    ("taskId", None),
    ("status", Some(&STATUS)),
]);

pub(super) fn read(delivery: &Delivery, entries: &Entries<'_>) -> Result<Option<Said>, Fault> {
    let record = Fields::of_record(entries, delivery.broker_ms, Times::Checked);
    let (task, id) = match (record.object("task", "/task")?, record.object("statusUpdate", "/statusUpdate")?) {
        (Some(_), Some(_)) => return Err(record.wrong("statusUpdate")),
        (Some(task), None) => (task, "id"),
        (None, Some(update)) => (update, "taskId"),
        (None, None) => match record.str("kind")? {
            Some("task") => (record, "id"),
            Some("status-update") => (record, "taskId"),
            Some("message" | "artifact-update") => return Ok(None),
            Some(_) => return Err(record.fault(RejectReason::UnknownType, "kind")),
            None if record.get("message").is_some() || record.get("artifactUpdate").is_some() => return Ok(None),
            None => return Err(record.wrong("kind")),
        },
    };
    let status = task.object("status", "/status")?.ok_or_else(|| task.wrong("status"))?;
    let state = status.str("state")?.ok_or_else(|| status.wrong("state"))?;
    let moment = match state {
        "TASK_STATE_SUBMITTED" | "submitted" | "TASK_STATE_WORKING" | "working" => Moment::START,
        "TASK_STATE_INPUT_REQUIRED" | "input-required" | "TASK_STATE_AUTH_REQUIRED" | "auth-required" => Moment::Lives,
        "TASK_STATE_COMPLETED" | "completed" => Moment::Ends("success"),
        "TASK_STATE_FAILED" | "failed" => Moment::Ends("failure"),
        "TASK_STATE_CANCELED" | "canceled" => Moment::Ends("cancelled"),
        "TASK_STATE_REJECTED" | "rejected" => Moment::Ends("rejected"),
        "TASK_STATE_UNSPECIFIED" | "unknown" => return Ok(None),
        _ => return Err(status.fault(RejectReason::UnknownType, "state")),
    };
    let task_id = task.str(id)?.ok_or_else(|| task.wrong(id))?;
    let agent = agent(delivery)?;
    let source = agent.as_ref().map_or_else(|| SOURCE.to_owned(), |agent| format!("{SOURCE}/{agent}"));
    let run = task.key(&source, task_id, id)?;
    let at_ms = status.forgiving(moment.times()).zoned_time("timestamp")?;
    let written = name(&status, "timestamp");
    let words = words([Some(state), Some(task_id), written.as_deref()]);
    Ok(Some(Said { source, run, within: None, attempt: 1, moment, at_ms, task: None, identity: agent, words }))
}

/// Whose task it is, as its address says.
fn agent(delivery: &Delivery) -> Result<Option<String>, Fault> {
    let Some(source) = Headers::read(delivery)?.get("source") else { return Ok(None) };
    let agent = source.strip_prefix(SOURCE).and_then(|rest| rest.strip_prefix('/')).filter(|agent| is_text(agent));
    agent.map(|agent| Some(agent.to_owned())).ok_or_else(|| RejectReason::BadHeader.into())
}
