//! Catching up after an outage: a long backlog in Kafka, taken by the whole intake into SQLite, against the same process
//! on a short one: events per second, and memory. Meanwhile tasks end whose events come by another topic: how long from
//! the produced end until their token is revoked, against the time where nothing else is to be done.
//!
//! Both are taken by a process that has run for a while: its journal holds as many events as the long backlog has, and
//! SQLite's page cache is full. An empty journal is faster to write and its process smaller, whatever is behind.

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

use crate::intake::{BATCH, delivery, payload};
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

/// Rounds of [`payload`]: of what is there already, and of the backlogs.
const BEFORE: usize = 2;
const SHORTER: usize = 1;
const LONGER: usize = 0;

/// Names the topic, the round, and how many events this process is to produce, and nothing else.
pub const PRODUCE: &str = "CURFEW_BENCH_PRODUCE";

/// See [`PRODUCE`].
pub async fn produce(what: &str) {
    let [topic, round, count]: [&str; 3] = what.split('=').collect::<Vec<_>>().try_into().unwrap();
    let round = round.parse().unwrap();
    let producer: &FutureProducer = &config().set("linger.ms", "5").create().unwrap();
    futures::stream::iter(0..count.parse().unwrap())
        .for_each_concurrent(2_000, |n| async move {
            send(producer, topic, &String::from_utf8(payload(round, n)).unwrap()).await;
        })
        .await;
}

/// A topic with a backlog. Another process makes it: the memory that a producer leaves behind is not to count here.
async fn backlog(round: usize, count: usize) -> String {
    let topic = new_topic().await;
    let what = format!("{topic}={round}={count}");
    let producing = Command::new(std::env::current_exe().unwrap()).env(PRODUCE, what).status();
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

/// One process with what it has.
struct Running {
    stage: Stage,
    intake: Intake,
    toy: Arc<Toy>,
    /// Where tasks end meanwhile.
    prompt: String,
    group: String,
}

impl Running {
    /// Its journal holds `before` events.
    async fn new(before: usize) -> Self {
        let prompt = new_topic().await;
        let toy = Toy::new("test", ANSWERS, URGENT);
        let mut stage = Stage::new(Store::sqlite(), toy::registry(std::slice::from_ref(&toy)));
        let authority = stage.settings.authority[stage::TOPIC].clone();
        stage.settings.authority.insert(prompt.clone(), authority);
        let intake = Intake {
            journal: stage.open().await,
            rules: Arc::new(Rules::default()),
            limits: Limits::default(),
            clock: System::shared(),
            metrics: Arc::new(Metrics::default()),
            stirred: Arc::new(tokio::sync::Notify::new()),
            trust: None,
            types: None,
        };
        for first in (0..before).step_by(BATCH) {
            let some: Vec<_> = (first..before.min(first + BATCH)).map(|n| delivery(BEFORE, n)).collect();
            intake.record(&some, Vec::new()).await.unwrap();
        }
        Self { stage, intake, toy, prompt, group: unique("bench") }
    }

    /// Takes a backlog of `count` events; tokens from `token` on are those of the tasks that end meanwhile.
    async fn catch_up(&self, bulk: &str, count: usize, token: usize) -> Caught {
        let stop = tokio_util::sync::CancellationToken::new();
        let topics = [bulk, &self.prompt]
            .map(|name| Topic { name: name.into(), tenant: "default".into(), format: curfew::event::Format::Curfew })
            .to_vec();
        let settings = Settings::new(Connection::plain(env("CURFEW_TEST_KAFKA")), &self.group, topics);
        let db = self.stage.store.connect();
        let mut consumed = db.prepare("SELECT value FROM counters WHERE name = 'consumed'").unwrap();
        let mut taken = || consumed.query_row([], |row| row.get::<_, i64>(0)).unwrap_or(0) as usize;
        let before = taken();
        let reading = consumer::run(self.intake.clone(), settings, Arc::new(Backlog::default()), stop.clone());
        let reading = tokio::spawn(reading);
        let (journal, stirred) = (self.intake.journal.clone(), self.intake.stirred.clone());
        let acting = tokio::spawn(self.stage.executor_rung_by(journal, stirred).run(stop.clone()));
        // Joining the group is not what is measured: the clock starts with the first durable batch.
        let (first, started) = loop {
            match taken() - before {
                0 => tokio::time::sleep(Duration::from_millis(1)).await,
                first => break (first, Instant::now()),
            }
        };
        let over = tokio_util::sync::CancellationToken::new();
        let ending = tokio::spawn({
            let (over, prompt, toy) = (over.clone(), self.prompt.clone(), self.toy.clone());
            async move {
                let (producer, mut took) = (producer(), Vec::new());
                loop {
                    tokio::time::sleep(PAUSE).await;
                    let ms = end_ms(&producer, &prompt, &toy, token + took.len()).await;
                    // Of the last one nobody knows whether it was before the end.
                    if over.is_cancelled() {
                        return took;
                    }
                    took.push(ms);
                }
            }
        });
        let mut peak_mb = usage::resident_mb();
        while taken() - before < count {
            peak_mb = usage::resident_mb().max(peak_mb);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rate = (taken() - before - first) as f64 / started.elapsed().as_secs_f64();
        over.cancel();
        let busy_ms = ending.await.unwrap();
        let (producer, mut idle_ms) = (producer(), Vec::new());
        for nth in 1..=IDLE {
            tokio::time::sleep(PAUSE).await;
            idle_ms.push(end_ms(&producer, &self.prompt, &self.toy, token + busy_ms.len() + nth).await);
        }
        let after_mb = usage::resident_mb();
        stop.cancel();
        acting.await.unwrap();
        reading.await.unwrap().unwrap();
        Caught { rate, peak_mb, after_mb, busy_ms, idle_ms }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub async fn measure(table: &mut Table) {
    let (count, text, runs) = if usage::full() { (1_000_000, "1 M", 1) } else { (200_000, "200 k", 3) };
    eprintln!("catchup: {text} events behind, {runs} runs");
    let (short, long) = (backlog(SHORTER, SHORT).await, backlog(LONGER, count).await);
    let (mut rates, mut memory, mut urgent) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let running = Running::new(count).await;
        let mut peak = running.catch_up(&short, SHORT, 0).await;
        let mut caught = running.catch_up(&long, count, URGENT / 2).await;
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
