//! Many deadlines at once against a system that bears only so much: how long until all are acted on, against the count
//! divided by the limit; whether the limit is kept in each second, and memory; and how long an operator's revoke takes in
//! the midst of it.
//!
//! The limit is 500 revocations with proof per second: 1 500 calls, since each looks, revokes and looks again. The clock
//! starts when the first deadline has passed by the grace in which its end event may still come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew::clock::System;
use curfew::deadlines::{ClockTrust, Deadlines, Settings};
use curfew::event::{Data, Event, GrantSpec, Limits};
use curfew::intake::Intake;
use curfew::journal::Journal;
use curfew::limit::Budget;
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use curfew::task::Tenure;
use tokio_util::sync::CancellationToken;

use crate::stage::{self, Stage};
use crate::store::Store;
use crate::table::{Goal, Table};
use crate::toy::{self, CALLS_A_CASE, Toy};
use crate::usage;

const A_SECOND: usize = 500;
const CALLS: usize = 16;
const ANSWERS: Duration = Duration::from_millis(5);
/// Revokes by an operator: so many before, so many in the midst of it.
const URGENT: usize = 5;

/// Tasks that hold the tokens `0..count`; their deadlines lie within one second. Returns the first one.
async fn start_tasks(journal: &dyn Journal, toy: &Toy, count: usize) -> i64 {
    let first_ms = stage::now_ms() + 3_000 + count as i64 / 3;
    let tokens: Vec<usize> = (0..count).collect();
    for some in tokens.chunks(500) {
        let events = some.iter().map(|token| {
            let (credential, tenure) = (toy.credential(*token), Tenure::Minted);
            let grant = GrantSpec { credential, tenure, principal: None, expires_ms: None };
            let mut event = stage::started(&stage::new_run(), vec![grant]);
            if let Data::TaskStarted(task) = &mut event.data {
                task.deadline_ms = Some(first_ms + (token * 1_000 / count) as i64);
            }
            event
        });
        stage::record(journal, events.collect()).await;
    }
    assert!(stage::now_ms() < first_ms, "the deadlines lie ahead when all is set");
    first_ms
}

/// An operator revokes these tokens, one after the other: the median time until it is done, in milliseconds.
async fn urgent_ms(intake: &Intake, toy: &Toy, tokens: std::ops::Range<usize>) -> f64 {
    let mut took = Vec::new();
    for token in tokens {
        let (tenant, id) = ("default".into(), uuid::Uuid::new_v4().to_string());
        let credential = toy.credential(token);
        let wish = Event::operator_revoke(tenant, id, credential, "ana".into(), "bench".into(), stage::now_ms());
        let asked = Instant::now();
        intake.notice(vec![wish]).await.unwrap();
        took.push((toy.revoked(token).await - asked).as_secs_f64() * 1_000.0);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

async fn run(store: Store, what: &str, count: usize, table: &mut Table) {
    let toy = Toy::new("test", ANSWERS, count + 2 * URGENT);
    let mut stage = Stage::new(store, toy::registry(std::slice::from_ref(&toy)));
    let most = A_SECOND * CALLS_A_CASE;
    stage.settings.budgets.insert("test".into(), Budget { calls: CALLS as u32, per_second: Some(most as u32) });
    let journal = stage.open().await;
    let intake = Intake {
        journal: journal.clone(),
        rules: Arc::new(Rules::default()),
        limits: Limits::default(),
        clock: System::shared(),
        metrics: Arc::new(Metrics::default()),
        stirred: Arc::default(),
        trust: None,
        types: None,
    };
    let first_ms = start_tasks(journal.as_ref(), &toy, count).await;
    let stop = CancellationToken::new();
    let settings = Settings { kafka: false, ..Settings::default() };
    let begins_ms = first_ms + settings.grace_ms;
    let looking = Deadlines::new(intake.clone(), settings, ClockTrust::new(System::shared()));
    let looking = tokio::spawn(looking.run(stop.clone()));
    let working = tokio::spawn(stage.executor_rung_by(journal, intake.stirred.clone()).run(stop.clone()));
    // With nothing else to do.
    let idle_ms = urgent_ms(&intake, &toy, count..count + URGENT).await;
    let left_ms = begins_ms - stage::now_ms();
    tokio::time::sleep(Duration::from_millis(left_ms.max(0) as u64)).await;

    let (started, begin_mb) = (Instant::now(), usage::resident_mb());
    let busy = tokio::spawn({
        let (toy, intake) = (toy.clone(), intake.clone());
        async move {
            while toy.effects() < count / 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            urgent_ms(&intake, &toy, count + URGENT..count + 2 * URGENT).await
        }
    });
    let mut peak_mb = begin_mb;
    let all = count + 2 * URGENT;
    while stage.store.counter("cases_closed").await < all as i64 {
        peak_mb = usage::resident_mb().max(peak_mb);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = started.elapsed().as_secs_f64();
    let busy_ms = busy.await.unwrap();
    stop.cancel();
    looking.await.unwrap();
    working.await.unwrap();
    let ideal = (count + URGENT) as f64 / A_SECOND as f64;
    let worst = toy.most_in_a_second();
    assert!((0..all).all(|token| toy.acted(token).is_some()), "each deadline fires");
    assert_eq!(toy.effects(), all, "and each once");
    eprintln!("  {what}: {took:.1} s of {ideal:.1} s; at most {worst} calls in any second of {most} allowed;");
    eprintln!(
        "  {begin_mb:.0} MB at the begin, {peak_mb:.0} MB at most; urgent: {busy_ms:.0} ms, idle {idle_ms:.0} ms"
    );
    let name = |row: &str| format!("{count} deadlines at once, {A_SECOND}/s allowed, {what}: {row}");
    table.add(name("until all are dead, against the least"), "s", &[(took, ideal)], Goal::AtMost(1.1));
    table.add(
        name("most calls in any second, against the limit"),
        "1/s",
        &[(worst as f64, most as f64)],
        Goal::AtMost(1.0),
    );
    table.add(name("memory, most against begin"), "MB", &[(peak_mb, begin_mb)], Goal::Seen);
    table.add(name("an urgent revoke, amid against idle"), "ms", &[(busy_ms, idle_ms)], Goal::Seen);
}

pub async fn measure(table: &mut Table) {
    let count = if usage::full() { 100_000 } else { 20_000 };
    eprintln!("deadlines: {count} within one second");
    run(Store::sqlite(), "SQLite", count, table).await;
    run(Store::postgres(), "PostgreSQL", count, table).await;
}
