//! Tekton's own CloudEvents: the type says what happened, the data is the whole resource.
//!
//! They are sent in no order, and again after a restart of the controller. Each that is no end says when the run began and
//! what time it has, so each of them can be the one that starts it. A queued one has not begun. Of the resource neither
//! parameters nor steps, results or messages are read.

use super::super::envelope::{self, Headers};
use super::super::read::{Fields, Times};
use super::super::tree::{Entries, Names};
use super::super::{Delivery, Fault, RejectReason};
use super::{Moment, Said, name, words};
use crate::task::RunKey;

const REF: Names = Names(&[("name", None)]);
const SPEC: Names = Names(&[
    ("serviceAccountName", None),
    ("taskRunTemplate", Some(&Names(&[("serviceAccountName", None)]))),
    ("timeout", None),
    ("timeouts", Some(&Names(&[("pipeline", None)]))),
    ("retries", None),
    ("taskRef", Some(&REF)),
    ("pipelineRef", Some(&REF)),
]);
const STATUS: Names = Names(&[
    ("startTime", None),
    ("completionTime", None),
    ("conditions", Some(&Names(&[("type", None), ("reason", None)]))),
]);
const ABOUT: Names = Names(&[
    ("uid", None),
    ("name", None),
    ("namespace", None),
    ("ownerReferences", Some(&Names(&[("kind", None), ("uid", None)]))),
]);
const RUN: Names = Names(&[("metadata", Some(&ABOUT)), ("spec", Some(&SPEC)), ("status", Some(&STATUS))]);
const DATA: [(&str, Option<&Names>); 4] =
    [("taskRun", Some(&RUN)), ("pipelineRun", Some(&RUN)), ("customRun", Some(&RUN)), ("run", Some(&RUN))];

/// What is read.
pub(super) const NAMES: Names = Names(&[
    DATA[0],
    DATA[1],
    DATA[2],
    DATA[3],
    // Structured mode of CloudEvents.
    ("type", None),
    ("data", Some(&Names(&DATA))),
]);

/// Retries of one task run that are believed.
const MAX_RETRIES: i64 = 1_000;

pub(super) fn read(delivery: &Delivery, entries: &Entries<'_>) -> Result<Option<Said>, Fault> {
    let headers = Headers::read(delivery)?;
    let record = Fields::of_record(entries, delivery.broker_ms, Times::Checked);
    let (word, data) = if envelope::is_structured(headers.content_type)? {
        let word = record.str("type")?.ok_or_else(|| record.fault(RejectReason::BadEnvelope, "type"))?;
        (word, record.object("data", "/data")?.ok_or_else(|| record.wrong("data"))?)
    } else {
        (headers.get("type").ok_or_else(|| record.fault(RejectReason::BadEnvelope, "type"))?, record)
    };
    let unknown = || record.fault(RejectReason::UnknownType, "type");
    let rest = word.strip_prefix("dev.tekton.event.").ok_or_else(unknown)?;
    let (of, what) = rest.split_once('.').ok_or_else(unknown)?;
    let (of, base): (_, &'static str) = match of {
        "taskrun" => ("taskRun", "/taskRun"),
        "pipelinerun" => ("pipelineRun", "/pipelineRun"),
        "customrun" => ("customRun", "/customRun"),
        "run" => ("run", "/run"),
        _ => return Err(unknown()),
    };
    let is_over = match what {
        "started.v1" | "running.v1" | "unknown.v1" => false,
        "successful.v1" | "failed.v1" => true,
        "queued.v1" => return Ok(None),
        _ => return Err(unknown()),
    };
    let run = data.object(of, base)?.ok_or_else(|| data.wrong(of))?;
    let about = run.object("metadata", "/metadata")?.ok_or_else(|| run.wrong("metadata"))?;
    let uid = about.str("uid")?.ok_or_else(|| about.wrong("uid"))?;
    let namespace = about.str("namespace")?.ok_or_else(|| about.wrong("namespace"))?;
    let source = format!("/tekton/{namespace}");
    let key = about.key(&source, uid, "uid")?;
    let pipeline = if is_over { None } else { pipeline_run(&about, &source) };
    let (spec, status) = (run.object("spec", "/spec")?, run.object("status", "/status")?);
    let reason = status.and_then(|status| reason(&status));
    let ending = if what == "successful.v1" { "success" } else { ending(reason.as_deref()) };
    let mut moment = if is_over { Moment::Ends(ending) } else { Moment::START };
    let when = if is_over { "completionTime" } else { "startTime" };
    let at_ms = match status {
        Some(status) => status.forgiving(moment.times()).zoned_time(when)?,
        None => None,
    };
    let within = |fields: Option<Fields<'_>>, object: &'static str, field: &str| {
        let fields = fields?.object(object, "/spec").ok().flatten()?;
        name(&fields, field)
    };
    if let (Moment::Starts { deadline_ms }, Some(begun_ms)) = (&mut moment, at_ms) {
        *deadline_ms = spec.and_then(|spec| time_ms(&spec)).and_then(|time_ms| begun_ms.checked_add(time_ms));
    }
    let task = within(spec, "taskRef", "name").or_else(|| within(spec, "pipelineRef", "name"));
    let task = task.or_else(|| name(&about, "name"));
    let account = spec.and_then(|spec| name(&spec, "serviceAccountName"));
    let account = account.or_else(|| within(spec, "taskRunTemplate", "serviceAccountName"));
    let identity = account.map(|account| format!("system:serviceaccount:{namespace}:{account}"));
    let written = status.and_then(|status| name(&status, when));
    let deadline = match moment {
        Moment::Starts { deadline_ms } => deadline_ms.map(|ms| ms.to_string()),
        _ => None,
    };
    let words = words([
        Some(word),
        Some(uid),
        task.as_deref(),
        identity.as_deref(),
        written.as_deref(),
        deadline.as_deref(),
        reason.as_deref(),
        pipeline.as_ref().map(RunKey::as_str),
    ]);
    Ok(Some(Said { source, run: key, within: pipeline, attempt: 1, moment, at_ms, task, identity, words }))
}

/// The pipeline run that owns a task run: it is over when all its task runs are, or were told to stop.
fn pipeline_run(about: &Fields<'_>, source: &str) -> Option<RunKey> {
    let owner = |one: &Fields<'_>| Ok((name(one, "kind"), name(one, "uid")));
    let owners = about.list("ownerReferences", "/metadata/ownerReferences", 16, owner).ok()?;
    let (_, uid) = owners.into_iter().find(|(kind, _)| kind.as_deref() == Some("PipelineRun"))?;
    about.key(source, &uid?, "uid").ok()
}

/// Of the one condition that says how the run stands.
fn reason(status: &Fields<'_>) -> Option<String> {
    let conditions =
        status.list("conditions", "/status/conditions", 64, |one| Ok((name(one, "type"), name(one, "reason"))));
    let mut conditions = conditions.unwrap_or_default().into_iter();
    conditions.find(|(kind, _)| kind.as_deref() == Some("Succeeded"))?.1
}

/// Words of Tekton's API.
fn ending(reason: Option<&str>) -> &'static str {
    match reason {
        Some("TaskRunTimeout" | "PipelineRunTimeout" | "CustomRunTimedOut" | "RunTimedOut") => "timeout",
        Some("TaskRunCancelled" | "Cancelled" | "CancelledRunningFinally" | "StoppedRunningFinally") => "cancelled",
        Some("PipelineRunCancelled" | "CustomRunCancelled" | "RunCancelled") => "cancelled",
        _ => "failure",
    }
}

/// How long it may take, all tries of a task run together: each has the whole time-out.
fn time_ms(spec: &Fields<'_>) -> Option<i64> {
    let of_pipeline = spec.object("timeouts", "/spec/timeouts").ok().flatten();
    let text = of_pipeline.and_then(|times| name(&times, "pipeline")).or_else(|| name(spec, "timeout"))?;
    let tries = spec.integer("retries", 0, MAX_RETRIES).ok()?.unwrap_or(0) + 1;
    go_duration_ms(&text)?.checked_mul(tries).filter(|ms| *ms > 0)
}

/// A duration as Go writes it, such as `1h0m0s` or `1m30.5s`. `0s` is no limit.
fn go_duration_ms(text: &str) -> Option<i64> {
    let (mut rest, mut total) = (text, 0_i64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let unit = rest[number..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let ms = match &rest[number..number + unit] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        let (whole, part) = rest[..number].split_once('.').unwrap_or((&rest[..number], ""));
        total = total.checked_add(whole.parse::<i64>().ok()?.checked_mul(ms)?)?;
        if let Some(tenths) = part.bytes().next().filter(u8::is_ascii_digit) {
            total = total.checked_add(i64::from(tenths - b'0') * ms / 10)?;
        }
        rest = &rest[number + unit..];
    }
    Some(total)
}
