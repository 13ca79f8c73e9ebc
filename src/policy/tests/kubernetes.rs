//! A cluster's objects in any order, doubled, with states that nobody saw: no live run is ended, no ended one is forgotten.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::*;
use crate::event::kubernetes::{Sort, record_gone};
use crate::event::{Delivery, Format, Limits, understand};
use crate::task::Phase;

/// One object, from its creation to its deletion: its states, and from which on it is over.
struct Life {
    sort: Sort,
    states: Vec<(&'static str, Value)>,
    over: usize,
}

fn condition(kind: &str, holds: bool) -> Value {
    since(kind, holds, "2027-01-15T08:20:00Z")
}

fn since(kind: &str, holds: bool, at: &str) -> Value {
    json!({"type": kind, "status": if holds { "True" } else { "False" }, "reason": "R", "lastTransitionTime": at})
}

fn job(status: Value) -> Value {
    json!({"spec": {"activeDeadlineSeconds": 3600, "suspend": true}, "status": status})
}

fn pod(status: Value) -> Value {
    json!({"metadata": {"ownerReferences": [{"kind": "Job", "controller": true}]}, "spec": {}, "status": status})
}

/// A Job that was suspended, and fails later on; one that is deleted while it is suspended; a Pod that is evicted.
fn lives() -> [Life; 3] {
    let (first, second) = ("2027-01-15T08:00:00Z", "2027-01-15T08:20:00Z");
    let suspended =
        |minute: u32| job(json!({"conditions": [since("Suspended", true, &format!("2027-01-15T08:{minute}:00Z"))]}));
    let resumed = |more: &[Value]| {
        let conditions = [&[condition("Suspended", false)], more].concat();
        job(json!({"startTime": second, "conditions": conditions}))
    };
    let interim = [condition("FailureTarget", true), condition("Complete", false)];
    let failed = [&interim[..], &[condition("Failed", true)]].concat();
    let long = Life {
        sort: Sort::Job,
        states: vec![
            ("ADDED", job(json!({}))),
            ("MODIFIED", job(json!({"startTime": first, "active": 1}))),
            ("MODIFIED", suspended(10)),
            ("MODIFIED", resumed(&[])),
            ("MODIFIED", resumed(&interim)),
            ("MODIFIED", resumed(&failed)),
            ("DELETED", resumed(&failed)),
        ],
        over: 5,
    };
    let short = Life {
        sort: Sort::Job,
        states: vec![
            ("ADDED", suspended(10)),
            ("MODIFIED", resumed(&[])),
            ("MODIFIED", suspended(30)),
            ("DELETED", suspended(30)),
        ],
        over: 3,
    };
    let phase = |phase: &str, more: Value| pod(json!({"phase": phase, "startTime": first, "conditions": more}));
    let evicted = || json!([condition("DisruptionTarget", true)]);
    let evicted = Life {
        sort: Sort::Pod,
        states: vec![
            ("ADDED", pod(json!({"phase": "Pending"}))),
            ("MODIFIED", phase("Running", json!([]))),
            ("MODIFIED", phase("Unknown", json!([]))),
            ("MODIFIED", phase("Running", evicted())),
            ("MODIFIED", phase("Failed", evicted())),
            ("DELETED", phase("Failed", evicted())),
        ],
        over: 4,
    };
    [long, short, evicted]
}

fn heard(now_ms: i64, body: String) -> Option<Event> {
    let delivery = Delivery {
        at: Coordinates { cluster: "kubernetes".into(), topic: "k8s".into(), partition: -1, offset: -1 },
        tenant: "acme".into(),
        format: Format::Kubernetes,
        broker_ms: now_ms,
        headers: vec![("ce_source".into(), Some("/kubernetes/prod".into()))],
        payload: Some(body.into()),
    };
    understand(&delivery, &Limits::default()).unwrap()
}

fn seen(now_ms: i64, run: usize, life: &Life, nth: usize) -> Option<Event> {
    let (word, object) = &life.states[nth];
    let mut object = object.clone();
    object["kind"] = json!(life.sort.kind());
    for (field, value) in [("uid", run.to_string()), ("name", format!("n{run}")), ("namespace", "ml".into())] {
        object["metadata"][field] = json!(value);
    }
    heard(now_ms, json!({"type": word, "object": object}).to_string())
}

fn key_of(run: usize) -> RunKey {
    RunKey::new("/kubernetes/prod/ml", &run.to_string())
}

/// A state that is seen, or that somebody granted a lease to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Granted,
    Seen(usize),
}

/// For each run its grant and some of its states, some of them twice, all of it in any order; and whether in the end the
/// cluster is asked for those that a list does not show.
fn streams() -> impl Strategy<Value = Vec<(usize, Told)>> {
    let run = |run: usize, states: usize| {
        prop::collection::vec(0..3_usize, states).prop_map(move |times| {
            let seen = times.into_iter().enumerate().flat_map(|(nth, times)| vec![Told::Seen(nth); times]);
            seen.chain([Told::Granted]).map(|told| (run, told)).collect::<Vec<_>>()
        })
    };
    let [a, b, c] = lives().map(|life| life.states.len());
    (run(0, a), run(1, b), run(2, c)).prop_map(|(a, b, c)| [a, b, c].concat()).prop_shuffle()
}

proptest! {
    #[test]
    fn no_live_run_is_ended_and_no_ended_one_is_forgotten(stream in streams()) {
        let lives = lives();
        let mut world = World::new();
        let (mut ended, mut granted, mut known) = (HashSet::new(), HashSet::new(), HashSet::new());
        for (run, told) in stream {
            world.now_ms += 1_000;
            match told {
                Told::Granted => {
                    let grant = GrantRegistered { run: key_of(run), attempt: None, identity: None, grant: minted(&run.to_string()) };
                    world.take(&event(world.now_ms, Data::GrantRegistered(grant)));
                    granted.insert(run);
                }
                Told::Seen(nth) => {
                    let said = seen(world.now_ms, run, &lives[run], nth);
                    let is_over = nth >= lives[run].over;
                    let says_end = said.as_ref().is_some_and(|said| matches!(said.data, Data::TaskEnded(_)));
                    prop_assert_eq!(says_end, is_over, "{:?}", &lives[run].states[nth]);
                    if let Some(said) = said.filter(|said| known.insert(said.natural_key())) {
                        world.take(&said);
                    }
                    if is_over {
                        ended.insert(run);
                    }
                }
            }
            for run in 0..lives.len() {
                let is_over = ended.contains(&run) && granted.contains(&run);
                prop_assert_eq!(world.cut().contains(&lease(&run.to_string())), is_over, "run {}", run);
                if ended.contains(&run) {
                    prop_assert_eq!(world.view.tasks[&key_of(run)].phase, Phase::Ended, "no end is taken back");
                }
            }
        }
        // Whose end nobody saw is asked for by name, and is not there.
        for (run, life) in lives.iter().enumerate() {
            let task = world.view.tasks[&key_of(run)].clone();
            let gone = record_gone(life.sort, "ml", &format!("n{run}"), &run.to_string(), task.attempt);
            let gone = heard(world.now_ms, String::from_utf8(gone.to_vec()).unwrap()).unwrap();
            world.take(&gone);
            prop_assert_eq!(world.view.tasks[&key_of(run)].phase, Phase::Ended);
            prop_assert!(world.cut().contains(&lease(&run.to_string())));
        }
    }
}

/// In the order in which it happens the deadline is the one of Kubernetes, which does not count while a Job is suspended.
#[test]
fn a_suspended_job_has_no_deadline_of_its_own_and_a_new_one_when_it_goes_on() {
    let [long, ..] = lives();
    let mut world = World::new();
    let mut deadlines = Vec::new();
    for nth in 0..4 {
        world.now_ms += 1_000;
        if let Some(said) = seen(world.now_ms, 0, &long, nth) {
            world.take(&said);
            let task = &world.view.tasks[&key_of(0)];
            deadlines.push((task.deadline_ms - NOW, task.attempt));
        }
    }
    let attempt = |minutes: i64| u32::try_from((NOW + minutes * 60_000) / 1_000).unwrap();
    let (waits, goes_on) = (HOUR / 6 + world.rules.longest_life_ms, HOUR / 3 + HOUR);
    assert_eq!(deadlines, [(HOUR, 1), (waits, attempt(10)), (goes_on, attempt(20))]);
    // The deadline of its first start is nobody's any more.
    world.take(&Event::deadline_passed("acme".into(), key_of(0), NOW + HOUR, NOW + HOUR + 1));
    assert_eq!(world.view.tasks[&key_of(0)].phase, Phase::Running);
}
