//! One of four systems hangs: no call there is answered before its time-out. What the other three still do, against the
//! same three without it. All have more cases than can be done; SQLite.

use std::time::{Duration, Instant};

use crate::stage::Stage;
use crate::store::Store;
use crate::table::{Goal, Table};
use crate::toy::{self, Toy};

const ANSWERS: Duration = Duration::from_millis(5);
/// Of each system that answers: more than can be done in the time.
const CASES: usize = 2_500;
/// Of the one that hangs: more than it has places for. Not as many as the others have, else what is measured is the size of
/// the journal.
const HUNG: usize = 500;
const WINDOW: Duration = Duration::from_secs(3);
/// By then those at work wait for the one that hangs.
const WARM: Duration = Duration::from_secs(1);
const RUNS: usize = 5;

/// Effects per second at three systems, with the cases of a fourth one that hangs or without.
async fn rate(hung: bool) -> f64 {
    let toys = ["a", "b", "c", "d"].map(|system| Toy::new(system, ANSWERS, CASES));
    let (three, fourth) = toys.split_at(3);
    fourth[0].hang();
    let stage = Stage::new(Store::sqlite(), toy::registry(&toys));
    let journal = stage.open().await;
    toy::open_cases(journal.as_ref(), three, 0..CASES).await;
    if hung {
        toy::open_cases(journal.as_ref(), fourth, 0..HUNG).await;
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let working = tokio::spawn(stage.executor(journal).run(stop.clone()));
    tokio::time::sleep(WARM).await;
    let effects = || three.iter().map(|toy| toy.effects()).sum::<usize>();
    let (before, started) = (effects(), Instant::now());
    tokio::time::sleep(WINDOW).await;
    let (after, took) = (effects(), started.elapsed());
    assert!(three.iter().all(|toy| toy.effects() < CASES), "there must be work for all of the time");
    assert_eq!(fourth[0].effects(), 0);
    stop.cancel();
    working.await.unwrap();
    (after - before) as f64 / took.as_secs_f64()
}

pub async fn measure(table: &mut Table) {
    eprintln!("hang: four systems, {} ms a call, {RUNS} runs", ANSWERS.as_millis());
    let mut pairs = Vec::new();
    for run in 0..RUNS {
        // In turn: the machine's own pace changes.
        pairs.push(if run % 2 == 0 {
            let ours = rate(true).await;
            (ours, rate(false).await)
        } else {
            let alone = rate(false).await;
            (rate(true).await, alone)
        });
    }
    table.add("three systems beside one that hangs, against them alone", "1/s", &pairs, Goal::AtLeast(0.95));
}
