//! Task events from Kafka to durable rows per second, against a consumer that polls and drops: what all of Curfew's intake
//! costs beside only reading. No goal: dropping is no work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew::clock::System;
use curfew::event::Limits;
use curfew::intake::Intake;
use curfew::journal::Journal;
use curfew::journal::sqlite::{Settings as File, Sqlite};
use curfew::kafka::consumer;
use curfew::kafka::settings::{Connection, Settings, Topic};
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use curfew::relay::Backlog;
use futures::StreamExt;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::latency::{config, event, new_topic, send};
use crate::table::{Goal, Table};
use crate::world::{env, unique};

const EVENTS: usize = 20_000;
const RUNS: usize = 5;

async fn ours(topic: &str) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let intake = Intake {
        journal: Sqlite::open(&path, File::default()).unwrap() as Arc<dyn Journal>,
        rules: Arc::new(Rules::default()),
        limits: Limits::default(),
        clock: System::shared(),
        metrics: Arc::new(Metrics::default()),
        stirred: Arc::default(),
        trust: None,
        types: None,
    };
    let topics = vec![Topic { name: topic.into(), tenant: "default".into(), format: curfew::event::Format::Curfew }];
    let settings = Settings::new(Connection::plain(env("CURFEW_TEST_KAFKA")), unique("bench"), topics);
    let stop = tokio_util::sync::CancellationToken::new();
    let reading = tokio::spawn(consumer::run(intake, settings, Arc::new(Backlog::default()), stop.clone()));
    let db = rusqlite::Connection::open(&path).unwrap();
    let mut consumed = db.prepare("SELECT value FROM counters WHERE name = 'consumed'").unwrap();
    let mut count = || consumed.query_row([], |row| row.get::<_, i64>(0)).unwrap_or(0);
    // Joining the group is not what is measured: the clock starts with the first durable batch.
    let (first, started) = loop {
        match count() {
            0 => tokio::time::sleep(Duration::from_millis(1)).await,
            first => break (first, Instant::now()),
        }
    };
    while count() < EVENTS as i64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = (EVENTS as i64 - first) as f64 / started.elapsed().as_secs_f64();
    stop.cancel();
    reading.await.unwrap().unwrap();
    rate
}

fn bare(topic: &str) -> f64 {
    let consumer: BaseConsumer = config().set("group.id", unique("bare")).create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let mut read = 0;
    let mut started = Instant::now();
    while read < EVENTS {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        message.unwrap();
        if read == 0 {
            started = Instant::now();
        }
        read += 1;
    }
    (EVENTS - 1) as f64 / started.elapsed().as_secs_f64()
}

pub async fn measure(table: &mut Table) {
    eprintln!("fetch: {EVENTS} events in one partition, {RUNS} runs");
    let topic = new_topic().await;
    let producer = config().set("linger.ms", "5").create().unwrap();
    let (producer, to) = (&producer, topic.as_str());
    futures::stream::iter(0..EVENTS)
        .for_each_concurrent(
            1_000,
            |n| async move { send(producer, to, &event("started", n, &format!("a-{n}"))).await },
        )
        .await;
    let mut pairs = Vec::new();
    for _ in 0..RUNS {
        let ours = ours(&topic).await;
        let topic = topic.clone();
        pairs.push((ours, tokio::task::spawn_blocking(move || bare(&topic)).await.unwrap()));
    }
    table.add("task events from Kafka made durable, against poll and drop", "1/s", &pairs, Goal::Seen);
}
