//! OpenLineage `RunEvent`s (spec 2-0-2).
//!
//! A run id is one attempt: Airflow makes a new one for each try. `OTHER`, and events about jobs and datasets, which come
//! on the same topic, say nothing of a run's life. No facet is read, no input and no output.

use super::super::read::{Fields, Times};
use super::super::tree::{self, Names, Node};
use super::super::{Data, Delivery, Fault, Limits, RejectReason, TaskEnded, TaskHeartbeat, TaskStarted};
use super::{Said, name};

/// What is read.
const NAMES: Names = Names(&[
    ("eventType", None),
    ("eventTime", None),
    ("run", Some(&Names(&[("runId", None)]))),
    ("job", Some(&Names(&[("namespace", None), ("name", None)]))),
    // Only whether it is there.
    ("dataset", Some(&Names(&[]))),
]);

/// What a `RunEvent` says.
enum Kind {
    Start,
    Running,
    End(&'static str),
}

pub(super) fn read(delivery: &Delivery, text: &str, limits: &Limits) -> Result<Option<Said>, Fault> {
    let Node::Object(entries) = tree::parse_only(text, limits.max_depth, &NAMES)? else {
        return Err(RejectReason::WrongSchema.into());
    };
    let record = |times| Fields::of_record(&entries, delivery.broker_ms, times);
    let f = record(Times::Checked);
    let word = f.str("eventType")?;
    let kind = match word {
        None | Some("OTHER") => None,
        Some("START") => Some(Kind::Start),
        Some("RUNNING") => Some(Kind::Running),
        Some("COMPLETE") => Some(Kind::End("success")),
        Some("FAIL") => Some(Kind::End("failure")),
        Some("ABORT") => Some(Kind::End("cancelled")),
        Some(_) => return Err(f.fault(RejectReason::UnknownType, "eventType")),
    };
    let (run, job) = (f.object("run", "/run")?, f.object("job", "/job")?);
    let Some(run) = run else {
        // A JobEvent or a DatasetEvent. What is neither is no event of OpenLineage.
        let is_other = word.is_none() && (job.is_some() || f.get("dataset").is_some());
        return if is_other { Ok(None) } else { Err(f.wrong("run")) };
    };
    let Some(kind) = kind else { return Ok(None) };
    let job = job.ok_or_else(|| f.wrong("job"))?;
    let run_id = run.str("runId")?.ok_or_else(|| run.wrong("runId"))?;
    let source = format!("/openlineage/{}", job.str("namespace")?.ok_or_else(|| job.wrong("namespace"))?);
    let key = run.key(&source, run_id, "runId")?;
    let task = name(&job, "name");
    // An end is never rejected for its time.
    let f = record(if matches!(kind, Kind::End(_)) { Times::Forgiven } else { Times::Checked });
    if f.get("eventTime").is_none() && !matches!(kind, Kind::End(_)) {
        return Err(f.wrong("eventTime"));
    }
    let at_ms = f.zoned_time("eventTime")?;
    let written = name(&f, "eventTime");
    let words = [word, Some(run_id), task.as_deref(), written.as_deref()];
    let words = words.map(|word| word.unwrap_or_default().to_owned()).to_vec();
    let data = match kind {
        Kind::Start => Data::TaskStarted(TaskStarted {
            run: key,
            attempt: 1,
            task,
            identity: None,
            started_ms: at_ms,
            deadline_ms: None,
            heartbeat_every_ms: None,
            grants: Vec::new(),
        }),
        Kind::Running => Data::TaskHeartbeat(TaskHeartbeat { run: key }),
        Kind::End(outcome) => Data::TaskEnded(TaskEnded {
            run: key,
            attempt: 1,
            task,
            identity: None,
            ended_ms: at_ms,
            outcome: Some(outcome.to_owned()),
            grants: Vec::new(),
            continued_as: None,
        }),
    };
    Ok(Some(Said { source, data, words }))
}
