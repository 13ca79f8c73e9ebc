//! OpenLineage `RunEvent`s (spec 2-0-2).
//!
//! A run id is one attempt: Airflow makes a new one for each try. `OTHER`, and events about jobs and datasets, which come
//! on the same topic, say nothing of a run's life. No input is read and no output, and of the facets only what a task of
//! Airflow's says of the run of its DAG: a task whose process is killed has no end of its own, but that run has.

use super::super::read::{Fields, Times};
use super::super::tree::{Entries, Names};
use super::super::{Delivery, Fault, RejectReason};
use super::{Moment, Said, name, words};
use crate::task::RunKey;

const PARENT: Names =
    Names(&[("run", Some(&Names(&[("runId", None)]))), ("job", Some(&Names(&[("namespace", None)])))]);
const TYPE: Names = Names(&[("integration", None), ("jobType", None)]);

/// What is read.
pub(super) const NAMES: Names = Names(&[
    ("eventType", None),
    ("eventTime", None),
    ("run", Some(&Names(&[("runId", None), ("facets", Some(&Names(&[("parent", Some(&PARENT))])))]))),
    (
        "job",
        Some(&Names(&[("namespace", None), ("name", None), ("facets", Some(&Names(&[("jobType", Some(&TYPE))])))])),
    ),
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
    let within = if moment == Moment::START { dag_run(&run, &job, &source) } else { None };
    let (task, written) = (name(&job, "name"), name(&f, "eventTime"));
    let words = words([word, Some(run_id), task.as_deref(), written.as_deref(), within.as_ref().map(RunKey::as_str)]);
    Ok(Some(Said { source, run: key, within, attempt: 1, moment, at_ms, task, identity: None, words }))
}

/// The run of the DAG that a task of Airflow's belongs to: Airflow ends it when all its tasks are over. What others call
/// a parent may end before what it started: a task that submits a Spark application does not wait for it.
fn dag_run(run: &Fields<'_>, job: &Fields<'_>, source: &str) -> Option<RunKey> {
    let kind = facet(job, "jobType")?;
    if name(&kind, "integration").as_deref() != Some("AIRFLOW") || name(&kind, "jobType").as_deref() != Some("TASK") {
        return None;
    }
    let parent = facet(run, "parent")?;
    let namespace = name(&parent.object("job", "/job").ok().flatten()?, "namespace")?;
    let id = name(&parent.object("run", "/run").ok().flatten()?, "runId")?;
    // Of another namespace its producers may not speak.
    let key = parent.key(source, &id, "runId").ok()?;
    (format!("/openlineage/{namespace}") == source).then_some(key)
}

fn facet<'t>(fields: &Fields<'t>, name: &'static str) -> Option<Fields<'t>> {
    fields.object("facets", "/facets").ok().flatten()?.object(name, "/facets").ok().flatten()
}
