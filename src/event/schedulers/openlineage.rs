//! OpenLineage `RunEvent`s (spec 2-0-2).
//!
//! A run id is one attempt: Airflow makes a new one for each try. `OTHER`, and events about jobs and datasets, which come
//! on the same topic, say nothing of a run's life. No facet is read, no input and no output.

use super::super::read::{Fields, Times};
use super::super::tree::{Entries, Names};
use super::super::{Delivery, Fault, RejectReason};
use super::{Moment, Said, name, words};

/// What is read.
pub(super) const NAMES: Names = Names(&[
    ("eventType", None),
    ("eventTime", None),
    ("run", Some(&Names(&[("runId", None)]))),
    ("job", Some(&Names(&[("namespace", None), ("name", None)]))),
    // Only whether it is there.
    ("dataset", Some(&Names(&[]))),
]);

pub(super) fn read(delivery: &Delivery, entries: &Entries<'_>) -> Result<Option<Said>, Fault> {
    let f = Fields::of_record(entries, delivery.broker_ms, Times::Checked);
    let word = f.str("eventType")?;
    let moment = match word {
        None | Some("OTHER") => None,
        Some("START") => Some(Moment::START),
        Some("RUNNING") => Some(Moment::Lives),
        Some("COMPLETE") => Some(Moment::Ends("success")),
        Some("FAIL") => Some(Moment::Ends("failure")),
        Some("ABORT") => Some(Moment::Ends("cancelled")),
        Some(_) => return Err(f.fault(RejectReason::UnknownType, "eventType")),
    };
    let (run, job) = (f.object("run", "/run")?, f.object("job", "/job")?);
    let Some(run) = run else {
        // A JobEvent or a DatasetEvent. What is neither is no event of OpenLineage.
        let is_other = word.is_none() && (job.is_some() || f.get("dataset").is_some());
        return if is_other { Ok(None) } else { Err(f.wrong("run")) };
    };
    let Some(moment) = moment else { return Ok(None) };
    let job = job.ok_or_else(|| f.wrong("job"))?;
    let run_id = run.str("runId")?.ok_or_else(|| run.wrong("runId"))?;
    let source = format!("/openlineage/{}", job.str("namespace")?.ok_or_else(|| job.wrong("namespace"))?);
    let key = run.key(&source, run_id, "runId")?;
    if f.get("eventTime").is_none() && moment.times() == Times::Checked {
        return Err(f.wrong("eventTime"));
    }
    let at_ms = f.forgiving(moment.times()).zoned_time("eventTime")?;
    let (task, written) = (name(&job, "name"), name(&f, "eventTime"));
    let words = words([word, Some(run_id), task.as_deref(), written.as_deref()]);
    Ok(Some(Said { source, run: key, attempt: 1, moment, at_ms, task, identity: None, words }))
}
