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

mod http;
mod out;
mod rebalance;

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

    pub async fn beats(&self, topic: &str, partition: i32, ids: std::ops::Range<i32>) {
        for id in ids {
            self.beat(topic, partition, &format!("{partition}-{id}")).await;
        }
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
    pub journal: Arc<Sqlite>,
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
        let intake = Intake {
            journal: journal.clone(),
            rules: Arc::new(Rules::default()),
            limits: Limits::default(),
            clock: System::shared(),
            metrics: Arc::new(Metrics::default()),
            stirred: Arc::new(Notify::new()),
        };
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        Self { journal, intake, group: group.into(), topics, backlog: Arc::default() }
    }

    pub fn join(&self) -> Member {
        self.join_with(|_| {})
    }

    pub fn join_with(&self, change: impl FnOnce(&mut Settings)) -> Member {
        let topics = self.topics.iter().map(|name| Topic { name: name.as_str().into(), tenant: "default".into() });
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

    pub async fn position(&self, topic: &str, partition: i32) -> Option<Position> {
        self.journal.position(&cluster(), topic, partition).await.unwrap()
    }
}

pub fn cluster() -> String {
    let client: BaseConsumer = config().create().unwrap();
    client.client().fetch_cluster_id(Duration::from_secs(10)).unwrap()
}

fn commit(group: &str, topic: &str, partition: i32, offset: i64) {
    let client: BaseConsumer = config().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    client.commit(&list, CommitMode::Sync).unwrap();
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
    commit(&group, &topic, 0, 3);
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
async fn an_empty_partition_moves_the_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    Pen::new().beats(&topic, 0, 0..1).await;
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(1).await;
    let now = station.intake.clock.wall_ms();
    until("the watermark to pass now", || async {
        station.journal.watermark().await.unwrap().filter(|mark| *mark > now)
    })
    .await;
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_compare_and_set_drops_the_batch_and_reads_again() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    let pen = Pen::new();
    pen.beats(&topic, 0, 0..10).await;
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(10).await;
    // Somebody else moves the partition under the member.
    let mut moved = station.position(&topic, 0).await.unwrap();
    moved.next_offset = 7;
    moved.last_digest = [0; 16];
    station.journal.set_position(moved).await.unwrap();
    pen.beats(&topic, 0, 10..12).await;
    let stats = station.consumed(15).await;
    assert_eq!((stats.accepted, stats.duplicates), (12, 3));
    assert_eq!(station.position(&topic, 0).await.unwrap().next_offset, 12);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_outside_the_log_halts_one_partition() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(2).await;
    let pen = Pen::new();
    for partition in 0..2 {
        pen.beats(&topic, partition, 0..5).await;
    }
    let station = Station::open(dir.path(), &[&topic]);
    let outside = |next_offset| Position {
        cluster: cluster().into(),
        topic: topic.as_str().into(),
        partition: 0,
        next_offset,
        last_ms: station.intake.clock.wall_ms(),
        last_digest: [0; 16],
    };
    station.journal.set_position(outside(50)).await.unwrap();
    let member = station.join();
    station.consumed(5).await;
    pen.beats(&topic, 1, 5..10).await;
    let stats = station.consumed(10).await;
    assert_eq!(stats.consumed, 10, "the halted partition is not read");
    assert!(station.intake.metrics.render().contains("halted_partition"));
    // The operator's answer takes effect without a restart.
    station.journal.set_position(outside(2)).await.unwrap();
    let stats = station.consumed(13).await;
    assert_eq!((stats.consumed, stats.accepted), (13, 13));
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_read_from_its_start() {
    for records in [3, 30] {
        let dir = tempfile::tempdir().unwrap();
        let topic = topic(1).await;
        let pen = Pen::new();
        pen.beats(&topic, 0, 0..10).await;
        let station = Station::open(dir.path(), &[&topic]);
        let member = station.join();
        station.consumed(10).await;
        member.leave().await;
        delete(&topic).await;
        create(&topic, 1).await;
        let pen = Pen::new();
        pen.beats(&topic, 0, 100..100 + records).await;
        let member = station.join();
        let stats = station.consumed(10 + i64::from(records)).await;
        assert_eq!((stats.accepted, stats.duplicates), (10 + i64::from(records), 0));
        assert_eq!(station.position(&topic, 0).await.unwrap().next_offset, i64::from(records));
        member.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_ahead_of_the_journal_holds_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    Pen::new().beats(&topic, 0, 0..10).await;
    let station = Station::open(dir.path(), &[&topic]);
    commit(&station.group, &topic, 0, 6);
    let member = station.join();
    let stats = station.consumed(10).await;
    assert_eq!(stats.accepted, 10, "intake goes on from the first start");
    assert!(station.journal.started_held().await.unwrap().unwrap().contains("older"));
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
    tokio::time::sleep(Duration::from_secs(1)).await;
    pen.beats(&topic, 0, 5..10).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(station.stats().await.consumed, 5);
    station.backlog.set(9);
    let stats = station.consumed(10).await;
    assert_eq!((stats.accepted, stats.duplicates), (10, 0));
    member.leave().await;
}
