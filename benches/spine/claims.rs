//! Cases closed per second by four processes on one PostgreSQL journal against one process. The provider answers each call
//! in 50 ms and bears more calls than all of them make; a process works on few cases at once, so one is bound by its own
//! places. What is measured is whether claims stand in each other's way.
//!
//! A process is an executor with a worker id, a journal handle and connections of its own; all run in this one. With many
//! places each, four would be bound by the two cores of the machine instead.

use std::time::{Duration, Instant};

use crate::stage::Stage;
use crate::store::Store;
use crate::table::{Goal, Table};
use crate::toy::{self, Toy};

const PROCESSES: usize = 4;
/// Cases that a process works on at once.
const PLACES: usize = 8;
const ANSWERS: Duration = Duration::from_millis(50);
const CASES: usize = 1_500;
const WINDOW: Duration = Duration::from_secs(3);
/// Each says once a second what it uses of the system: after so long all have their part.
const SHARED: Duration = Duration::from_secs(4);
const RUNS: usize = 5;

async fn rate(processes: usize) -> f64 {
    let toy = Toy::new("test", ANSWERS, CASES);
    let mut stage = Stage::new(Store::postgres(), toy::registry(std::slice::from_ref(&toy)));
    stage.settings.concurrency = PLACES;
    stage.settings.calls_per_system = 16 * PROCESSES * PLACES;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut working = Vec::new();
    for _ in 0..processes {
        stage.worker = uuid::Uuid::new_v4();
        working.push(tokio::spawn(stage.executor(stage.open().await).run(stop.clone())));
    }
    tokio::time::sleep(SHARED).await;
    toy::open_cases(stage.open().await.as_ref(), std::slice::from_ref(&toy), 0..CASES).await;
    let closed = async || stage.store.counter("cases_closed").await;
    while closed().await < (2 * PLACES * processes) as i64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (before, started) = (closed().await, Instant::now());
    tokio::time::sleep(WINDOW).await;
    let (after, took) = (closed().await, started.elapsed());
    assert!(after < CASES as i64, "there must be work for all of the time");
    stop.cancel();
    for one in working {
        one.await.unwrap();
    }
    (after - before) as f64 / took.as_secs_f64()
}

pub async fn measure(table: &mut Table) {
    eprintln!("claims: {PROCESSES} processes, {PLACES} places each, calls of {} ms, {RUNS} runs", ANSWERS.as_millis());
    let mut pairs = Vec::new();
    for _ in 0..RUNS {
        pairs.push((rate(PROCESSES).await, rate(1).await));
    }
    table.add(format!("claims of {PROCESSES} processes against one"), "1/s", &pairs, Goal::AtLeast(3.5));
}
