//! Catching up after an outage: a long backlog in Kafka, taken by the whole intake into SQLite, against the same consumer
//! on a short one: events per second, and memory. Meanwhile tasks end whose events come by another topic: how long from
//! the produced end until their token is revoked, against the time where nothing else is to be done.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew::clock::System;
use curfew::event::Limits;
use curfew::intake::Intake;
use curfew::kafka::consumer;
use curfew::kafka::settings::{Connection, Settings, Topic};
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use curfew::relay::Backlog;
use futures::StreamExt;
use rdkafka::producer::FutureProducer;

use crate::intake::payload;
use crate::latency::{config, event, new_topic, producer, send};
use crate::stage::{self, Stage};
use crate::store::Store;
use crate::table::{Goal, Table};
use crate::toy::{self, Toy};
use crate::usage;
use crate::world::{env, unique};

const SHORT: usize = 20_000;
const ANSWERS: Duration = Duration::from_millis(5);
/// Task ends of the other topic: at most so many, one after the other.
const URGENT: usize = 2_000;
const IDLE: usize = 11;
const PAUSE: Duration = Duration::from_millis(100);

/// Names the topic and how many events this process is to produce, and nothing else.
pub const PRODUCE: &str = "CURFEW_BENCH_PRODUCE";

/// See [`PRODUCE`].
pub async fn produce(what: &str) {
    let (topic, count) = what.split_once('=').unwrap();
    let producer: &FutureProducer = &config().set("linger.ms", "5").create().unwrap();
    futures::stream::iter(0..count.parse().unwrap())
        .for_each_concurrent(2_000, |n| async move {
            send(producer, topic, &String::from_utf8(payload(0, n)).unwrap()).await;
        })
        .await;
}

/// A topic with a backlog. Another process makes it: the memory that a producer leaves behind is not to count here.
async fn backlog(count: usize) -> String {
    let topic = new_topic().await;
    let producing = Command::new(std::env::current_exe().unwrap()).env(PRODUCE, format!("{topic}={count}")).status();
    assert!(producing.unwrap().success());
    topic
}

/// What came of a backlog.
struct Caught {
    /// Events per second.
    rate: f64,
    /// The most memory while it was taken, and when it was.
    peak_mb: f64,
    after_mb: f64,
    /// Milliseconds from a produced task end to the revoke: while it was taken, and when it was.
    busy_ms: Vec<f64>,
    idle_ms: Vec<f64>,
}

/// Ends the task that holds this token; how long until it is revoked.
async fn end_ms(producer: &FutureProducer, topic: &str, toy: &Toy, token: usize) -> f64 {
    let produced = Instant::now();
    send(producer, topic, &event("ended", token, &token.to_string())).await;
    (toy.revoked(token).await - produced).as_secs_f64() * 1_000.0
}

async fn catch_up(bulk: &str, count: usize) -> Caught {
    let prompt = new_topic().await;
    let toy = Toy::new("test", ANSWERS, URGENT);
    let mut stage = Stage::new(Store::sqlite(), toy::registry(std::slice::from_ref(&toy)));
    let authority = stage.settings.authority[stage::TOPIC].clone();
    stage.settings.authority.insert(prompt.clone(), authority);
    let journal = stage.open().await;
    let stirred = Arc::new(tokio::sync::Notify::new());
    let intake = Intake {
        journal: journal.clone(),
        rules: Arc::new(Rules::default()),
        limits: Limits::default(),
        clock: System::shared(),
        metrics: Arc::new(Metrics::default()),
        stirred: stirred.clone(),
        trust: None,
        types: None,
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let topics = [bulk, &prompt].map(|name| Topic { name: name.into(), tenant: "default".into() }).to_vec();
    let settings = Settings::new(Connection::plain(env("CURFEW_TEST_KAFKA")), unique("bench"), topics);
    let reading = tokio::spawn(consumer::run(intake, settings, Arc::new(Backlog::default()), stop.clone()));
    let acting = tokio::spawn(stage.executor_rung_by(journal, stirred).run(stop.clone()));
    let db = stage.store.connect();
    let mut consumed = db.prepare("SELECT value FROM counters WHERE name = 'consumed'").unwrap();
    let mut taken = || consumed.query_row([], |row| row.get::<_, i64>(0)).unwrap_or(0) as usize;
    // Joining the group is not what is measured: the clock starts with the first durable batch.
    let (first, started) = loop {
        match taken() {
            0 => tokio::time::sleep(Duration::from_millis(1)).await,
            first => break (first, Instant::now()),
        }
    };
    let over = tokio_util::sync::CancellationToken::new();
    let ending = tokio::spawn({
        let (over, prompt, toy) = (over.clone(), prompt.clone(), toy.clone());
        async move {
            let (producer, mut took) = (producer(), Vec::new());
            loop {
                tokio::time::sleep(PAUSE).await;
                let ms = end_ms(&producer, &prompt, &toy, took.len()).await;
                // Of the last one nobody knows whether it was before the end.
                if over.is_cancelled() {
                    return took;
                }
                took.push(ms);
            }
        }
    });
    let mut peak_mb = usage::resident_mb();
    while taken() < count {
        peak_mb = usage::resident_mb().max(peak_mb);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = (taken() - first) as f64 / started.elapsed().as_secs_f64();
    over.cancel();
    let busy_ms = ending.await.unwrap();
    let (producer, mut idle_ms) = (producer(), Vec::new());
    for nth in 0..IDLE {
        tokio::time::sleep(PAUSE).await;
        idle_ms.push(end_ms(&producer, &prompt, &toy, URGENT - 1 - nth).await);
    }
    let after_mb = usage::resident_mb();
    stop.cancel();
    acting.await.unwrap();
    reading.await.unwrap().unwrap();
    Caught { rate, peak_mb, after_mb, busy_ms, idle_ms }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub async fn measure(table: &mut Table) {
    let (count, text, runs) = if usage::full() { (1_000_000, "1 M", 1) } else { (200_000, "200 k", 3) };
    eprintln!("catchup: {text} events behind, {runs} runs");
    let (short, long) = (backlog(SHORT).await, backlog(count).await);
    let (mut rates, mut memory, mut urgent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (mut peak, mut caught) = (catch_up(&short, SHORT).await, catch_up(&long, count).await);
        let (busy, idle) = (median(&mut caught.busy_ms), median(&mut peak.idle_ms));
        eprintln!(
            "  {:.0}/s of {:.0}/s; {:.0} MB at most, {:.0} MB steady; {} ended meanwhile, {busy:.0} ms each (at most \
             {:.0}), unloaded {idle:.0} ms",
            caught.rate,
            peak.rate,
            caught.peak_mb,
            peak.after_mb,
            caught.busy_ms.len(),
            caught.busy_ms[caught.busy_ms.len() - 1],
        );
        rates.push((caught.rate, peak.rate));
        memory.push((caught.peak_mb, peak.after_mb));
        urgent.push((busy, idle));
    }
    let name = |row: &str| format!("{text} events behind: {row}");
    table.add(name("taken, against the peak"), "1/s", &rates, Goal::AtLeast(0.9));
    table.add(name("memory, most against steady"), "MB", &memory, Goal::AtMost(1.2));
    table.add(name("a task end meanwhile, against unloaded"), "ms", &urgent, Goal::AtMost(5.0));
}
