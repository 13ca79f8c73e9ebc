//! CDEvents (0.5.1): task runs and pipeline runs, as they are or as the data of a CloudEvent.
//!
//! A subject's id is its run's, unique below its source. All other subjects say nothing of a run's life. `errors`, `uri`
//! and `customData` are not read.

use super::super::read::{Fields, Times};
use super::super::tree::{Entries, Names};
use super::super::{Delivery, Fault, RejectReason};
use super::{Moment, Said, name, words};

const CONTEXT: Names = Names(&[("type", None), ("source", None), ("timestamp", None)]);
const CONTENT: Names = Names(&[("taskName", None), ("pipelineName", None), ("outcome", None)]);
const SUBJECT: Names = Names(&[("id", None), ("source", None), ("content", Some(&CONTENT))]);

/// What is read.
pub(super) const NAMES: Names = Names(&[
    ("context", Some(&CONTEXT)),
    ("subject", Some(&SUBJECT)),
    // Structured mode of CloudEvents: the type stands within as well.
    ("data", Some(&Names(&[("context", Some(&CONTEXT)), ("subject", Some(&SUBJECT))]))),
]);

pub(super) fn read(delivery: &Delivery, entries: &Entries<'_>) -> Result<Option<Said>, Fault> {
    let record = Fields::of_record(entries, delivery.broker_ms, Times::Checked);
    let event = match record.get("context") {
        Some(_) => record,
        None => record.object("data", "/data")?.unwrap_or(record),
    };
    let context = event.object("context", "/context")?.ok_or_else(|| event.wrong("context"))?;
    let word = context.str("type")?.ok_or_else(|| context.wrong("type"))?;
    let Some(rest) = word.strip_prefix("dev.cdevents.") else {
        return Err(context.fault(RejectReason::UnknownType, "type"));
    };
    let mut parts = rest.splitn(3, '.');
    let (of, what) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if !["taskrun", "pipelinerun"].contains(&of) || !["started", "finished"].contains(&what) {
        return Ok(None);
    }
    let subject = event.object("subject", "/subject")?.ok_or_else(|| event.wrong("subject"))?;
    let content = subject.object("content", "/subject/content")?;
    let id = subject.str("id")?.ok_or_else(|| subject.wrong("id"))?;
    // Its own source counts; without one it is the event's.
    let own = match name(&subject, "source") {
        Some(own) => own,
        None => context.str("source")?.ok_or_else(|| context.wrong("source"))?.to_owned(),
    };
    let source = format!("/cdevents/{}", own.trim_start_matches('/'));
    let run = subject.key(&source, id, "id")?;
    let outcome = content.and_then(|content| name(&content, "outcome"));
    let moment = if what == "started" { Moment::START } else { Moment::Ends(ending(outcome.as_deref())) };
    let at_ms = context.forgiving(moment.times()).zoned_time("timestamp")?;
    let named = |field| content.and_then(|content| name(&content, field));
    let (task, written) = (named("taskName").or_else(|| named("pipelineName")), name(&context, "timestamp"));
    let words = words([Some(word), Some(id), task.as_deref(), outcome.as_deref(), written.as_deref()]);
    Ok(Some(Said { source, run, within: None, attempt: 1, moment, at_ms, task, identity: None, words }))
}

/// A free text until 0.5, of four words in 0.6.
fn ending(outcome: Option<&str>) -> &'static str {
    match outcome {
        Some("success" | "succeeded") => "success",
        Some("failure" | "failed" | "error") => "failure",
        Some("cancel" | "cancelled" | "canceled") => "cancelled",
        Some("timeout") => "timeout",
        _ => "unknown",
    }
}
