//! Intake, relay and HTTP on real Kafka and a real journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use curfew::clock::System;
use curfew::event::Limits;
use curfew::intake::Intake;
use curfew::journal::sqlite::{self, Sqlite};
use curfew::journal::{Journal, Position, Stats};
use curfew::kafka::consumer;
use curfew::kafka::settings::{Connection, Settings, Topic};
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use curfew::relay::Backlog;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::{env, unique, until};

mod github;
mod gitlab;
mod http;
mod out;
mod place;
mod rebalance;
mod schedulers;
mod time;

const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";

pub fn brokers() -> String {
    env("CURFEW_TEST_KAFKA")
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers());
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    config().create().unwrap()
}

pub async fn create(topic: &str, partitions: i32) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for result in admin().create_topics([&new], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

pub async fn topic(partitions: i32) -> String {
    let name = unique("intake");
    create(&name, partitions).await;
    name
}

async fn delete(topic: &str) {
    for result in admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
    let client: BaseConsumer = config().set("group.id", "looks").create().unwrap();
    until("the topic to be gone", || async {
        let found = client.fetch_metadata(None, Duration::from_secs(5)).unwrap();
        (!found.topics().iter().any(|found| found.name() == topic)).then_some(())
    })
    .await;
}

/// A heartbeat: the event with the fewest consequences.
pub fn beat(id: &str) -> String {
    json!({"specversion": "1.0", "type": "dev.curfew.task.heartbeat.v1", "source": "/tests/intake", "id": id,
        "datacontenttype": "application/json", "data": {"run_id": "run-1"}})
    .to_string()
}

pub struct Pen(FutureProducer);

impl Pen {
    pub fn new() -> Self {
        Self(config().set("linger.ms", "1").create().unwrap())
    }

    /// Any record at all.
    pub async fn raw(&self, topic: &str, partition: i32, payload: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: *value });
        }
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).partition(partition).headers(owned);
        record.payload = payload;
        self.0.send(record, Duration::from_secs(20)).await.unwrap();
    }

    pub async fn beat(&self, topic: &str, partition: i32, id: &str) {
        let headers = [("content-type", Some(STRUCTURED.as_bytes()))];
        self.raw(topic, partition, Some(beat(id).as_bytes()), &headers).await;
    }

    /// In order: each is handed over before the next, and all are waited for together.
    pub async fn beats(&self, topic: &str, partition: i32, ids: std::ops::Range<i32>) {
        let ids: Vec<_> = ids.map(|id| format!("{partition}-{id}")).collect();
        futures::future::join_all(ids.iter().map(|id| self.beat(topic, partition, id))).await;
    }
}

pub struct Member {
    stop: CancellationToken,
    running: JoinHandle<Result<(), curfew::kafka::Error>>,
}

impl Member {
    pub async fn leave(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

pub struct Station {
    pub journal: Arc<dyn Journal>,
    pub intake: Intake,
    pub group: String,
    pub topics: Vec<String>,
    pub backlog: Arc<Backlog>,
}

impl Station {
    pub fn open(dir: &Path, topics: &[&str]) -> Self {
        Self::as_group(dir, topics, &unique("group"))
    }

    pub fn as_group(dir: &Path, topics: &[&str], group: &str) -> Self {
        let journal = Sqlite::open(&dir.join("journal.db"), sqlite::Settings::default()).unwrap();
        Self::of(journal, topics, group)
    }

    /// Of a process with this journal.
    pub fn of(journal: Arc<dyn Journal>, topics: &[&str], group: &str) -> Self {
        let intake = Intake {
            journal: journal.clone(),
            rules: Arc::new(Rules::default()),
            limits: Limits::default(),
            clock: System::shared(),
            metrics: Arc::new(Metrics::default()),
            stirred: Arc::new(Notify::new()),
            trust: None,
            types: None,
        };
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        Self { journal, intake, group: group.into(), topics, backlog: Arc::default() }
    }

    pub fn join(&self) -> Member {
        self.join_with(|_| {})
    }

    pub fn join_with(&self, change: impl FnOnce(&mut Settings)) -> Member {
        let topics = self.topics.iter().map(|name| Topic {
            name: name.as_str().into(),
            tenant: "default".into(),
            format: curfew::event::Format::Curfew,
        });
        let mut settings = Settings::new(Connection::plain(brokers()), &self.group, topics.collect());
        change(&mut settings);
        let stop = CancellationToken::new();
        let running = consumer::run(self.intake.clone(), settings, self.backlog.clone(), stop.clone());
        Member { running: tokio::spawn(running), stop }
    }

    pub async fn stats(&self) -> Stats {
        self.journal.stats(self.intake.clock.wall_ms()).await.unwrap()
    }

    pub async fn consumed(&self, count: i64) -> Stats {
        until(&format!("{count} records"), || async { Some(self.stats().await).filter(|s| s.consumed >= count) }).await
    }

    /// Waits until the member has told the journal, at a look that it began after this call, that nothing is left to read.
    pub async fn seen_to_the_end(&self) {
        let now = self.intake.clock.wall_ms();
        until("the watermark to pass now", || async {
            self.journal.watermark().await.unwrap().of(None).filter(|mark| *mark > now)
        })
        .await;
    }

    pub async fn position(&self, topic: &str, partition: i32) -> Option<Position> {
        self.journal.position(&cluster(), topic, partition).await.unwrap()
    }
}

pub fn cluster() -> String {
    let client: BaseConsumer = config().create().unwrap();
    client.client().fetch_cluster_id(Duration::from_secs(10)).unwrap()
}

async fn commit(group: &str, topic: &str, partition: i32, offset: i64) {
    let client: BaseConsumer = config().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    until("the coordinator to take a commit", || async { client.commit(&list, CommitMode::Sync).ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_modes_and_poison_of_each_kind() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    let pen = Pen::new();
    let kind: (&str, Option<&[u8]>) = ("content-type", Some(STRUCTURED.as_bytes()));
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let large = vec![b' '; 300_000];
    let binary: [(&str, Option<&[u8]>); 5] = [
        ("ce_specversion", Some(b"1.0")),
        ("ce_type", Some(b"dev.curfew.task.heartbeat.v1")),
        ("ce_source", Some(b"/tests/intake")),
        ("ce_id", Some(b"binary")),
        ("content-type", Some(b"application/json")),
    ];
    let mut null = binary;
    null[3].1 = None;
    let unknown = beat("u").replace("task.heartbeat", "task.dreamt");
    let version = beat("v").replace("heartbeat.v1", "heartbeat.v99");
    let schema = beat("s").replace("run_id", "ruin_id");
    pen.beat(&topic, 0, "structured").await;
    pen.raw(&topic, 0, Some(br#"{"run_id": "run-1"}"#), &binary).await;
    pen.raw(&topic, 0, Some(br#"{"run_id": "run-1"}"#), &null).await;
    pen.raw(&topic, 0, None, &[kind]).await;
    for payload in [b"{".as_slice(), b"\xff\xfe", &large, deep.as_bytes()] {
        pen.raw(&topic, 0, Some(payload), &[kind]).await;
    }
    for payload in [&unknown, &version, &schema] {
        pen.raw(&topic, 0, Some(payload.as_bytes()), &[kind]).await;
    }
    pen.raw(&topic, 0, Some(b"x"), &[]).await;
    pen.beat(&topic, 0, "structured").await;
    pen.beat(&topic, 0, "after").await;

    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    let stats = station.consumed(14).await;
    assert_eq!((stats.consumed, stats.accepted, stats.rejected, stats.duplicates), (14, 3, 10, 1));
    assert_eq!(station.position(&topic, 0).await.unwrap().next_offset, 14);
    let reasons: Vec<String> = station
        .journal
        .outbox(0, 100)
        .await
        .unwrap()
        .iter()
        .map(|row| serde_json::from_slice::<serde_json::Value>(&row.body).unwrap())
        .map(|body| body["data"]["reason"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "bad_header",
        "tombstone",
        "bad_json",
        "bad_utf8",
        "too_large",
        "too_deep",
        "unknown_type",
        "unknown_version",
        "wrong_schema",
        "bad_envelope",
    ];
    assert_eq!(reasons, expected);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_where_the_journal_stands() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(2).await;
    let pen = Pen::new();
    pen.beats(&topic, 0, 0..20).await;
    pen.beats(&topic, 1, 0..5).await;
    let group = {
        let station = Station::open(dir.path(), &[&topic]);
        let member = station.join();
        station.consumed(25).await;
        member.leave().await;
        station.group.clone()
    };
    // What Kafka believes is of no weight: an older commit changes nothing.
    commit(&group, &topic, 0, 3).await;
    pen.beats(&topic, 0, 20..30).await;
    let station =
        until("the journal's file to be free", || async { Some(Station::as_group(dir.path(), &[&topic], &group)) })
            .await;
    let member = station.join();
    let stats = station.consumed(35).await;
    assert_eq!((stats.accepted, stats.duplicates), (35, 0));
    assert_eq!(station.journal.started_held().await.unwrap(), None);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_pauses_intake_and_membership_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    let pen = Pen::new();
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join_with(|settings| settings.backlog = 10);
    pen.beats(&topic, 0, 0..5).await;
    station.consumed(5).await;
    station.backlog.set(11);
    station.seen_to_the_end().await;
    // A reader beside it, of an own group and journal, shows that each record can be had.
    let beside = tempfile::tempdir().unwrap();
    let control = Station::open(beside.path(), &[&topic]);
    let reader = control.join();
    for id in 5..10 {
        pen.beat(&topic, 0, &format!("0-{id}")).await;
        control.consumed(i64::from(id) + 1).await;
        assert_eq!(station.stats().await.consumed, 5);
    }
    let lag = format!("curfew_consumer_lag_records{{partition=\"0\",topic=\"{topic}\"}} 5");
    until("what is not taken to show as lag", || async {
        station.intake.metrics.render().contains(&lag).then_some(())
    })
    .await;
    assert_eq!(station.stats().await.consumed, 5);
    station.backlog.set(9);
    let stats = station.consumed(10).await;
    assert_eq!((stats.accepted, stats.duplicates), (10, 0));
    reader.leave().await;
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_intake_and_loses_nothing() {
    const EACH: i32 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(2).await;
    let pen = Arc::new(Pen::new());
    let mut writing = Vec::new();
    for partition in 0..2 {
        let (pen, topic) = (pen.clone(), topic.clone());
        writing.push(tokio::spawn(async move { pen.beats(&topic, partition, 0..EACH).await }));
    }
    for written in writing {
        written.await.unwrap();
    }
    let group = unique("group");
    {
        let small = sqlite::Settings { max_pages: Some(150), ..sqlite::Settings::default() };
        let journal = Sqlite::open(&dir.path().join("journal.db"), small).unwrap();
        let station = Station::of(journal.clone(), &[&topic], &group);
        let member = station.join_with(|settings| settings.batch = 100);
        // It fills, and is refused what the member brings; half a batch is never taken.
        until("the journal to refuse", || async { (!journal.healthy()).then_some(()) }).await;
        // A batch that still fits may come between two looks: then once more.
        let (sum, consumed) = until("two equal looks", || async {
            let before = station.stats().await.consumed;
            let mut sum = 0;
            for partition in 0..2 {
                sum += station.position(&topic, partition).await.map_or(0, |position| position.next_offset);
            }
            (station.stats().await.consumed == before).then_some((sum, before))
        })
        .await;
        assert!(consumed < i64::from(2 * EACH), "the journal was not small enough: {consumed}");
        assert_eq!(sum, consumed);
        member.leave().await;
    }
    let station = Station::as_group(dir.path(), &[&topic], &group);
    let member = station.join();
    let stats = station.consumed(i64::from(2 * EACH)).await;
    assert_eq!((stats.accepted, stats.duplicates), (i64::from(2 * EACH), 0));
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_transactions_hold_up_nothing() {
    use rdkafka::producer::Producer;
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    let producer: FutureProducer = config().set("transactional.id", unique("tx")).create().unwrap();
    let limit = Duration::from_secs(30);
    producer.init_transactions(limit).unwrap();
    for (ids, commit) in [(0..3, true), (3..6, false), (6..9, true)] {
        producer.begin_transaction().unwrap();
        for id in ids {
            let body = beat(&id.to_string());
            let headers = OwnedHeaders::new().insert(Header { key: "content-type", value: Some(STRUCTURED) });
            let record: FutureRecord<'_, str, str> = FutureRecord::to(&topic).payload(body.as_str()).headers(headers);
            producer.send(record, limit).await.unwrap();
        }
        if commit { producer.commit_transaction(limit).unwrap() } else { producer.abort_transaction(limit).unwrap() }
    }
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(6).await;
    station.seen_to_the_end().await;
    member.leave().await;
    // The gap at the place where a restart begins is no loss.
    let pen = Pen::new();
    pen.beat(&topic, 0, "after").await;
    let member = station.join();
    let stats = station.consumed(7).await;
    assert_eq!((stats.consumed, stats.accepted, stats.duplicates), (7, 7, 0));
    member.leave().await;
}
