//! Jobs and Pods of Kubernetes, as a watch shows them (`batch/v1`, `v1`).
//!
//! Each state that is seen says by itself where the run stands, so states may be missed, come twice, or in any order. A Job
//! is a run, and so is each of its Pods: a Pod is one try. What is over and what only looks so is Kubernetes' own
//! word: a Job's conditions `Complete` and `Failed`, a Pod's phases `Succeeded` and `Failed`, or that it is not there any
//! more. Neither `FailureTarget` nor a `deletionTimestamp` is an end: containers run.
//!
//! Which cluster it is the reader says, in the header `ce_source`: an object does not know.

mod kept;

use super::super::envelope::Headers;
use super::super::read::{Fields, Times};
use super::super::tree::{Entries, Names};
use super::super::{Delivery, Fault, RejectReason};
use super::{Moment, Said, name, words};

pub use kept::{Kept, Sort, record_gone, record_seen};

/// Below it are the clusters, and below each its namespaces.
pub const SOURCE: &str = "/kubernetes";

const CONDITION: Names = Names(&[("type", None), ("status", None), ("reason", None), ("lastTransitionTime", None)]);
const CONTAINER: Names = Names(&[("state", Some(&Names(&[("terminated", Some(&Names(&[("finishedAt", None)])))])))]);
const OBJECT: Names = Names(&[
    ("kind", None),
    (
        "metadata",
        Some(&Names(&[
            ("name", None),
            ("namespace", None),
            ("uid", None),
            ("resourceVersion", None),
            ("ownerReferences", Some(&Names(&[("kind", None), ("controller", None)]))),
        ])),
    ),
    (
        "spec",
        Some(&Names(&[
            ("activeDeadlineSeconds", None),
            ("serviceAccountName", None),
            ("template", Some(&Names(&[("spec", Some(&Names(&[("serviceAccountName", None)])))]))),
        ])),
    ),
    (
        "status",
        Some(&Names(&[
            ("startTime", None),
            ("phase", None),
            ("reason", None),
            ("conditions", Some(&CONDITION)),
            ("containerStatuses", Some(&CONTAINER)),
        ])),
    ),
]);

/// What is read of a watch event. `kind` stands beside an object that came in a list; `attempt` where it is gone.
pub(super) const NAMES: Names = Names(&[("type", None), ("kind", None), ("attempt", None), ("object", Some(&OBJECT))]);

/// Conditions, and containers, that are looked at. Kubernetes has fewer.
const MANY: usize = 1_024;
/// Seconds: over it a deadline is none.
const MAX_SECONDS: i64 = 1 << 40;
/// Pods of these have no end of their own: they are services. A Node's is the mirror of what it runs without being asked.
const NO_TASKS: [&str; 5] = ["ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Node"];

/// The object of a watch event.
struct Seen<'t> {
    kind: Sort,
    uid: &'t str,
    name: &'t str,
    namespace: &'t str,
    about: Fields<'t>,
    spec: Option<Fields<'t>>,
    status: Option<Fields<'t>>,
}

pub(super) fn read(delivery: &Delivery, entries: &Entries<'_>) -> Result<Option<Said>, Fault> {
    let record = Fields::of_record(entries, delivery.broker_ms, Times::Forgiven);
    let word = record.str("type")?.ok_or_else(|| record.wrong("type"))?;
    match word {
        "ADDED" | "MODIFIED" | "DELETED" | GONE => {}
        // Marks of the watch itself.
        "BOOKMARK" | "ERROR" => return Ok(None),
        _ => return Err(record.fault(RejectReason::UnknownType, "type")),
    }
    let seen = Seen::read(&record)?;
    let Some(cluster) = Headers::read(delivery)?.get("source").filter(|source| is_cluster(source)) else {
        return Err(RejectReason::BadHeader.into());
    };
    let source = format!("{cluster}/{}", seen.namespace);
    let run = seen.about.key(&source, seen.uid, "uid")?;
    let known = record.integer("attempt", 1, i64::from(u32::MAX))?.and_then(|attempt| u32::try_from(attempt).ok());
    let Some(State { moment, attempt, at_ms, why }) = seen.state(word, known) else { return Ok(None) };
    let task = format!("{}/{}", seen.kind.as_str(), seen.name);
    let identity = seen.identity();
    // What the deadline is, and which attempt, belongs to the state. A name or an account cannot change.
    let deadline = match moment {
        Moment::Starts { deadline_ms } => deadline_ms.map(|ms| ms.to_string()),
        _ => None,
    };
    let (attempt_word, at_word) = (attempt.to_string(), at_ms.map(|ms| ms.to_string()));
    let words =
        words([Some(seen.uid), Some(why), Some(attempt_word.as_str()), at_word.as_deref(), deadline.as_deref()]);
    Ok(Some(Said { source, run, within: None, attempt, moment, at_ms, task: Some(task), identity, words }))
}

/// The record's type where somebody asked for the object by its name, and it is not there. Kubernetes has no such word.
pub(super) const GONE: &str = "GONE";

/// `/kubernetes/<cluster>`
fn is_cluster(source: &str) -> bool {
    let name = source.strip_prefix(SOURCE).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Where a run stands.
struct State {
    moment: Moment,
    attempt: u32,
    at_ms: Option<i64>,
    /// In one word of ours or of Kubernetes': tells two states apart.
    why: &'static str,
}

impl<'t> Seen<'t> {
    fn read(record: &Fields<'t>) -> Result<Self, Fault> {
        let object = record.object("object", "/object")?.ok_or_else(|| record.wrong("object"))?;
        let kind = match object.str("kind")? {
            Some(kind) => Some(kind),
            None => record.str("kind")?,
        };
        let kind = kind.and_then(Sort::of).ok_or_else(|| record.fault(RejectReason::UnknownType, "kind"))?;
        let about = object.object("metadata", "/object/metadata")?.ok_or_else(|| object.wrong("metadata"))?;
        let text = |field| about.str(field)?.ok_or_else(|| about.wrong(field));
        Ok(Self {
            kind,
            uid: text("uid")?,
            name: text("name")?,
            namespace: text("namespace")?,
            about,
            spec: object.object("spec", "/object/spec")?,
            status: object.object("status", "/object/status")?,
        })
    }

    /// What this state says of the run's life; `None`: nothing.
    fn state(&self, word: &str, known: Option<u32>) -> Option<State> {
        if self.is_service() {
            return None;
        }
        let begun_ms = self.time("startTime");
        let attempt = known.unwrap_or_else(|| self.attempt(begun_ms));
        let end = |outcome, at_ms, why| State { moment: Moment::Ends(outcome), attempt, at_ms, why };
        if word == GONE {
            return Some(end("unknown", None, "gone"));
        }
        let over = match self.kind {
            Sort::Job => self.job_over(),
            Sort::Pod => self.pod_over(),
        };
        if let Some((outcome, at_ms, why)) = over {
            return Some(end(outcome, at_ms, why));
        }
        if word == "DELETED" {
            return Some(end("cancelled", None, "deleted"));
        }
        if let Some(begun_ms) = begun_ms {
            let deadline_ms = self.deadline_ms(begun_ms);
            let moment = Moment::Starts { deadline_ms };
            return Some(State { moment, attempt, at_ms: Some(begun_ms), why: "runs" });
        }
        // Kubernetes took its start away with its Pods, and its deadline. It can go on: then that begins anew.
        let (true, since_ms) = self.condition("Suspended")? else { return None };
        Some(State { moment: Moment::START, attempt, at_ms: since_ms, why: "suspended" })
    }

    /// Whether it is a Pod that ends with what it serves, not with a task.
    fn is_service(&self) -> bool {
        if self.kind != Sort::Pod {
            return false;
        }
        let owner = |one: &Fields<'t>| Ok((one.flag("controller", false).unwrap_or(false), name(one, "kind")));
        let owners = self.about.list("ownerReferences", "/object/metadata/ownerReferences", MANY, owner);
        let mut owners = owners.unwrap_or_default().into_iter().filter(|(controls, _)| *controls);
        owners.any(|(_, kind)| kind.is_some_and(|kind| NO_TASKS.contains(&kind.as_str())))
    }

    fn job_over(&self) -> Option<(&'static str, Option<i64>, &'static str)> {
        if let Some((true, at_ms)) = self.condition("Complete") {
            return Some(("success", at_ms, "complete"));
        }
        let (true, at_ms) = self.condition("Failed")? else { return None };
        match self.reason("Failed").as_deref() {
            Some("DeadlineExceeded") => Some(("timeout", at_ms, "deadline")),
            _ => Some(("failure", at_ms, "failed")),
        }
    }

    fn pod_over(&self) -> Option<(&'static str, Option<i64>, &'static str)> {
        let status = self.status?;
        match name(&status, "phase")?.as_str() {
            "Succeeded" => Some(("success", self.finished_ms(), "complete")),
            "Failed" if name(&status, "reason").as_deref() == Some("DeadlineExceeded") => {
                Some(("timeout", self.finished_ms(), "deadline"))
            }
            "Failed" if self.condition("DisruptionTarget").is_some_and(|(it_is, _)| it_is) => {
                Some(("cancelled", self.finished_ms(), "disrupted"))
            }
            "Failed" => Some(("failure", self.finished_ms(), "failed")),
            _ => None,
        }
    }

    /// When the last of its containers ended.
    fn finished_ms(&self) -> Option<i64> {
        let base = "/object/status/containerStatuses";
        let finished = |one: &Fields<'t>| {
            let state = one.object("state", base)?;
            let Some(state) = state else { return Ok(None) };
            let Some(ended) = state.object("terminated", base)? else { return Ok(None) };
            ended.zoned_time("finishedAt")
        };
        let all = self.status?.list("containerStatuses", base, MANY, finished).ok()?;
        all.into_iter().flatten().max()
    }

    /// A Pod is one attempt, and so is a Job. Where that is suspended it waits as another one, and goes on as the next:
    /// since when, in seconds, tells them apart.
    fn attempt(&self, begun_ms: Option<i64>) -> u32 {
        let changed = self.condition("Suspended").filter(|_| self.kind == Sort::Job);
        let Some((_, since_ms)) = changed else { return 1 };
        begun_ms.or(since_ms).and_then(|ms| u32::try_from(ms / 1_000).ok()).unwrap_or(1)
    }

    fn deadline_ms(&self, begun_ms: i64) -> Option<i64> {
        let seconds = self.spec?.integer("activeDeadlineSeconds", 1, MAX_SECONDS).ok()??;
        begun_ms.checked_add(seconds.checked_mul(1_000)?)
    }

    fn identity(&self) -> Option<String> {
        let spec = self.spec?;
        let account = match self.kind {
            Sort::Pod => name(&spec, "serviceAccountName"),
            Sort::Job => {
                let template = spec.object("template", "/object/spec/template").ok().flatten()?;
                let pods = template.object("spec", "/object/spec/template/spec").ok().flatten()?;
                name(&pods, "serviceAccountName")
            }
        };
        let account = account.unwrap_or_else(|| "default".to_owned());
        Some(format!("system:serviceaccount:{}:{account}", self.namespace))
    }

    fn time(&self, field: &'static str) -> Option<i64> {
        self.status?.zoned_time(field).ok().flatten()
    }

    /// Whether a condition holds, and since when.
    fn condition(&self, kind: &str) -> Option<(bool, Option<i64>)> {
        let read = |one: &Fields<'t>| {
            let holds = name(one, "status").as_deref() == Some("True");
            Ok((name(one, "type"), holds, one.zoned_time("lastTransitionTime")?))
        };
        let all = self.status?.list("conditions", "/object/status/conditions", MANY, read).ok()?;
        all.into_iter().find(|(of, ..)| of.as_deref() == Some(kind)).map(|(_, holds, since_ms)| (holds, since_ms))
    }

    fn reason(&self, kind: &str) -> Option<String> {
        let read = |one: &Fields<'t>| Ok((name(one, "type"), name(one, "reason")));
        let all = self.status?.list("conditions", "/object/status/conditions", MANY, read).ok()?;
        all.into_iter().find(|(of, _)| of.as_deref() == Some(kind))?.1
    }
}
