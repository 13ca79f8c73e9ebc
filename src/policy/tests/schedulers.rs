//! Streams of schedulers with duplicates, in any order, with losses: no live task is cut, no ended one keeps what it held.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::*;
use crate::event::{Delivery, Format, Limits, understand};

/// What a scheduler tells of one run, in the order in which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    Live,
    Other,
    End,
}

const LIFE: [Step; 5] = [Step::Start, Step::Live, Step::Live, Step::Other, Step::End];

/// One record of run `run`; `nth` of its life: its headers, its body.
fn record(format: Format, run: usize, nth: usize) -> (Vec<(&'static str, String)>, Value) {
    let at = format!("2027-01-15T08:00:0{nth}Z");
    match format {
        Format::Curfew | Format::Kubernetes => unreachable!("of schedulers"),
        Format::OpenLineage => {
            let kind = ["START", "RUNNING", "RUNNING", "OTHER", ["COMPLETE", "FAIL", "ABORT"][run]][nth];
            let body = json!({"eventType": kind, "eventTime": at, "run": {"runId": run.to_string()},
                "job": {"namespace": "prod", "name": "etl"}});
            (Vec::new(), body)
        }
        Format::CdEvents => {
            // Nothing between start and end.
            let kind = ["started", "started", "started", "queued", "finished"][nth];
            let outcome = ["success", "failure", "x"][run];
            let body = json!({"context": {"type": format!("dev.cdevents.taskrun.{kind}.0.3.0"), "source": "/ci", "timestamp": at},
                "subject": {"id": run.to_string(), "content": {"outcome": outcome}}});
            (Vec::new(), body)
        }
        Format::Tekton => {
            let kind = ["started", "running", "unknown", "queued", ["successful", "failed", "failed"][run]][nth];
            let body = json!({"taskRun": {"metadata": {"uid": run.to_string(), "namespace": "ci"},
                "spec": {"timeout": "1h0m0s"}, "status": {"startTime": "2027-01-15T08:00:00Z", "completionTime": at}}});
            (vec![("ce_type", format!("dev.tekton.event.taskrun.{kind}.v1"))], body)
        }
        Format::A2a => {
            let ends = ["TASK_STATE_COMPLETED", "canceled", "TASK_STATE_REJECTED"];
            let state = ["submitted", "TASK_STATE_INPUT_REQUIRED", "auth-required", "unknown", ends[run]][nth];
            let body =
                json!({"statusUpdate": {"taskId": run.to_string(), "status": {"state": state, "timestamp": at}}});
            (vec![("ce_source", "/a2a/triage".to_owned())], body)
        }
    }
}

fn heard(format: Format, now_ms: i64, run: usize, nth: usize) -> Option<Event> {
    let (headers, body) = record(format, run, nth);
    let delivery = Delivery {
        at: Coordinates { cluster: "k".into(), topic: "schedulers".into(), partition: 0, offset: 0 },
        tenant: "acme".into(),
        format,
        broker_ms: now_ms,
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), Some(value.into()))).collect(),
        payload: Some(body.to_string().into()),
    };
    understand(&delivery, &Limits::default()).unwrap()
}

/// The key of a run, as the scheduler's own events have it.
fn key_of(format: Format, run: usize) -> RunKey {
    let start = heard(format, NOW, run, 0).unwrap();
    keys(&start).0.unwrap()
}

/// A record, or that somebody granted a lease to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Granted,
    Record(usize),
}

/// For each run the grant and what is left of its records, twice where it is doubled, all of it in any order.
fn streams() -> impl Strategy<Value = Vec<(usize, Told)>> {
    let run = |run: usize| {
        prop::collection::vec(0..3_usize, LIFE.len()).prop_map(move |times| {
            let records = times.into_iter().enumerate().flat_map(|(nth, times)| vec![Told::Record(nth); times]);
            records.chain([Told::Granted]).map(|told| (run, told)).collect::<Vec<_>>()
        })
    };
    (run(0), run(1), run(2)).prop_map(|(a, b, c)| [a, b, c].concat()).prop_shuffle()
}

proptest! {
    #[test]
    fn no_live_task_is_cut_and_no_ended_one_keeps_its_credential(
        stream in streams(),
        format in prop::sample::select(Format::SCHEDULERS.to_vec()),
    ) {
        let mut world = World::new();
        let (mut ended, mut granted, mut seen) = (HashSet::new(), HashSet::new(), HashSet::new());
        for (run, told) in stream {
            world.now_ms += 1_000;
            match told {
                Told::Granted => {
                    let spec = minted(&run.to_string());
                    let data = GrantRegistered { run: key_of(format, run), attempt: None, identity: None, grant: spec };
                    world.take(&event(world.now_ms, Data::GrantRegistered(data)));
                    granted.insert(run);
                }
                Told::Record(nth) => {
                    let said = heard(format, world.now_ms, run, nth);
                    prop_assert_eq!(said.is_none(), LIFE[nth] == Step::Other);
                    // As the journal has it: what was seen before is a duplicate.
                    if let Some(said) = said.filter(|said| seen.insert(said.natural_key())) {
                        world.take(&said);
                    }
                    if LIFE[nth] == Step::End {
                        ended.insert(run);
                    }
                }
            }
            for run in 0..3 {
                let is_over = ended.contains(&run) && granted.contains(&run);
                prop_assert_eq!(world.cut().contains(&lease(&run.to_string())), is_over, "run {}", run);
                if ended.contains(&run) {
                    prop_assert_eq!(world.view.tasks[&key_of(format, run)].phase, Life::Ended, "no end is taken back");
                }
            }
        }
        // What was lost is caught by the last limit, which no record moved.
        for run in 0..3 {
            let key = key_of(format, run);
            let task = world.view.tasks[&key].clone();
            prop_assert!(task.deadline_ms <= world.now_ms + world.rules.longest_life_ms);
            let passed = Event::deadline_passed("acme".into(), key, task.deadline_ms, task.deadline_ms + 1);
            world.take(&passed);
            prop_assert!(world.cut().contains(&lease(&run.to_string())));
        }
    }
}
