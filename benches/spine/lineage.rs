//! OpenLineage events, read and decided: how many one core takes.

use std::time::Instant;

use curfew::credential::{CredentialId, Kind};
use curfew::event::{Coordinates, Data, Delivery, Format, GrantRegistered, GrantSpec, Limits, Type, understand};
use curfew::policy::{Rules, View, decide};
use curfew::task::{RunKey, Tenure};
use serde_json::{Value, json};

use crate::stage;
use crate::table::{Goal, Table};

const TASKS: usize = 10_000;
const RUNS: usize = 5;
/// What one core is to take each second.
const WANTED: f64 = 50_000.0;
const LIFE: [&str; 3] = ["START", "RUNNING", "COMPLETE"];

/// As Airflow's provider writes it: most of it is facets.
fn event(round: usize, task: usize, kind: &str) -> Delivery {
    let words = "lorem ipsum dolor sit amet ".repeat(20);
    let facet = json!({"_producer": "https://github.com/apache/airflow/tree/providers-openlineage/2.9.0",
        "_schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet", "text": words});
    let body = json!({
        "eventType": kind, "eventTime": "2026-11-26T10:00:00.641Z",
        "producer": "https://github.com/apache/airflow/tree/providers-openlineage/2.9.0",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": id(round, task), "facets": {"parent": facet, "airflow": facet, "processing_engine": facet}},
        "job": {"namespace": "prod", "name": "etl.load", "facets": {"jobType": facet, "sourceCode": facet}},
        "inputs": [{"namespace": "postgres://db", "name": "a.b", "facets": {"schema": {"fields": [1, 2.5, true, null]}}}],
        "outputs": [],
    });
    Delivery {
        at: Coordinates { cluster: "bench".into(), topic: "lineage".into(), partition: 0, offset: 0 },
        tenant: "default".into(),
        format: Format::OpenLineage,
        broker_ms: stage::now_ms(),
        headers: Vec::new(),
        payload: Some(body.to_string().into()),
    }
}

fn id(round: usize, task: usize) -> String {
    format!("ea041791-68bc-3ae1-{round:04}-{task:012}")
}

/// What its run holds is known before.
fn grant(view: &mut View, rules: &Rules, round: usize, task: usize) {
    let grant = GrantSpec {
        credential: CredentialId::new(Kind::VaultLease, "prod", &format!("database/creds/ro/{round}-{task}")).unwrap(),
        tenure: Tenure::Minted,
        principal: None,
        expires_ms: None,
    };
    let run = RunKey::new("/openlineage/prod", &id(round, task));
    let data = Data::GrantRegistered(GrantRegistered { run, attempt: None, identity: None, grant });
    let granted = stage::event(Type::GrantRegistered, data);
    view.apply(&decide(&granted, view, rules).changes);
}

fn ours(round: usize, all: &[Delivery]) -> f64 {
    let (rules, limits, mut view) = (Rules::default(), Limits::default(), View::default());
    (0..TASKS).for_each(|task| grant(&mut view, &rules, round, task));
    let (started, mut cut) = (Instant::now(), 0);
    for delivery in all {
        let event = understand(delivery, &limits).unwrap().unwrap();
        let decision = decide(&event, &view, &rules);
        view.apply(&decision.changes);
        cut += decision.directives.len();
    }
    let rate = all.len() as f64 / started.elapsed().as_secs_f64();
    assert_eq!(cut, TASKS, "each run's end cuts what it held");
    rate
}

fn bare(all: &[Delivery]) -> f64 {
    let started = Instant::now();
    let read = |one: &&Delivery| serde_json::from_slice::<Value>(one.payload.as_ref().unwrap()).is_ok();
    assert_eq!(all.iter().filter(read).count(), all.len());
    all.len() as f64 / started.elapsed().as_secs_f64()
}

pub fn measure(table: &mut Table) {
    eprintln!("lineage: {TASKS} runs of {} events, {RUNS} rounds", LIFE.len());
    let (mut wanted, mut json) = (Vec::new(), Vec::new());
    for round in 0..RUNS {
        let all: Vec<Delivery> =
            LIFE.iter().flat_map(|kind| (0..TASKS).map(move |task| event(round, task, kind))).collect();
        let (ours, bare) = (ours(round, &all), bare(&all));
        wanted.push((ours, WANTED));
        json.push((ours, bare));
    }
    table.add("OpenLineage events read and decided on one core, against 50 k/s", "1/s", &wanted, Goal::AtLeast(1.0));
    table.add("OpenLineage events read and decided, against reading them as JSON", "1/s", &json, Goal::Seen);
}
