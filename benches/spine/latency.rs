//! From a produced `task.ended` to its credential proven dead and that made durable, at a fixed open-loop rate of about a
//! fifth of what the machine can do. Bare: one loop that polls, appends 512 bytes with fdatasync for each journal commit
//! on the path (intake, `Started`, close), looks, revokes, looks. Same broker, same Vault, same rate.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use curfew::clock::System;
use curfew::credential::CredentialId;
use curfew::event::Limits;
use curfew::intake::Intake;
use curfew::kafka::consumer;
use curfew::kafka::settings::{Connection, Settings, Topic};
use curfew::metrics::Metrics;
use curfew::outcome;
use curfew::policy::Rules;
use curfew::relay::Backlog;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use crate::revoke::Memory;
use crate::table::{Goal, Table};
use crate::world::{env, unique};
use crate::{admin, stage};

const TASKS: usize = 300;
const RUNS: usize = 5;
const EVERY: Duration = Duration::from_millis(20);

pub(crate) fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", env("CURFEW_TEST_KAFKA"));
    config
}

pub(crate) async fn new_topic() -> String {
    let name = unique("latency");
    let admin: AdminClient<DefaultClientContext> = config().create().unwrap();
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    name
}

pub(crate) fn event(kind: &str, n: usize, accessor: &str) -> String {
    let grants = json!([{"cred_id": format!("urn:curfew:cred:vault-token:test:{accessor}")}]);
    let data = json!({"run_id": format!("run-{n}"), "task": "bench", "grants": grants});
    let id = format!("{n}-{kind}");
    json!({"specversion": "1.0", "type": format!("dev.curfew.task.{kind}.v1"), "source": "/bench", "id": id, "data": data})
        .to_string()
}

pub(crate) async fn send(producer: &FutureProducer, topic: &str, body: &str) {
    let header = Header { key: "content-type", value: Some("application/cloudevents+json") };
    let headers = OwnedHeaders::new().insert(header);
    let record = FutureRecord::to(topic).key("k").payload(body).headers(headers);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

pub(crate) fn producer() -> FutureProducer {
    config().set("linger.ms", "0").create().unwrap()
}

/// Ends every task at its time; returns when each was produced.
async fn end_all(topic: &str, accessors: &[String]) -> HashMap<String, Instant> {
    let producer = Arc::new(producer());
    let first = Instant::now() + EVERY;
    let mut produced = HashMap::new();
    let mut sending = Vec::new();
    for (n, accessor) in accessors.iter().enumerate() {
        tokio::time::sleep_until((first + EVERY * u32::try_from(n).unwrap()).into()).await;
        produced.insert(accessor.clone(), Instant::now());
        let (producer, topic, body) = (producer.clone(), topic.to_owned(), event("ended", n, accessor));
        sending.push(tokio::spawn(async move { send(&producer, &topic, &body).await }));
    }
    for one in sending {
        one.await.unwrap();
    }
    produced
}

fn p99_ms(whose: &str, produced: &HashMap<String, Instant>, dead: &HashMap<String, Instant>) -> f64 {
    let mut took: Vec<f64> = produced.iter().map(|(a, at)| (dead[a] - *at).as_secs_f64() * 1_000.0).collect();
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[took.len() * percent / 100];
    eprintln!("  {whose}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms", at(50), at(90), at(99));
    at(99)
}

async fn ours(vault: &Memory) -> f64 {
    let accessors = vault.tokens(TASKS).await;
    let topic = new_topic().await;
    let mut stage =
        stage::Stage::new(crate::store::Store::sqlite(), crate::admin::connectors(&vault.admin, "none", false).await);
    let authority = stage.settings.authority[stage::TOPIC].clone();
    stage.settings.authority.insert(topic.clone(), authority);
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
    let starting = producer();
    for (n, accessor) in accessors.iter().enumerate() {
        send(&starting, &topic, &event("started", n, accessor)).await;
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let topics =
        vec![Topic { name: topic.as_str().into(), tenant: "default".into(), format: curfew::event::Format::Curfew }];
    let settings = Settings::new(Connection::plain(env("CURFEW_TEST_KAFKA")), unique("bench"), topics);
    let reading = tokio::spawn(consumer::run(intake, settings, Arc::new(Backlog::default()), stop.clone()));
    let acting = tokio::spawn(stage.executor_rung_by(journal.clone(), stirred).run(stop.clone()));
    while journal.stats(stage::now_ms()).await.unwrap().accepted < TASKS as i64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let dead = Arc::new(Mutex::new(HashMap::new()));
    let watching = tokio::spawn({
        let (journal, dead, outbox) = (journal.clone(), dead.clone(), stage.outbox.clone());
        async move {
            let mut after = 0;
            loop {
                for row in journal.outbox(after, 1_000).await.unwrap() {
                    after = row.seq;
                    if row.kind == outcome::Kind::Outcome {
                        let accessor = CredentialId::parse(&row.key).unwrap().id();
                        dead.lock().unwrap().insert(accessor, Instant::now());
                    }
                }
                if dead.lock().unwrap().len() == TASKS {
                    break;
                }
                outbox.notified().await;
            }
        }
    });
    let produced = end_all(&topic, &accessors).await;
    watching.await.unwrap();
    stop.cancel();
    acting.await.unwrap();
    reading.await.unwrap().unwrap();
    let db = rusqlite::Connection::open(stage.store.file()).unwrap();
    for (what, sql) in [
        ("appended to recorded", "SELECT at_ms - broker_ms FROM events WHERE kind = 'task.ended' ORDER BY 1"),
        ("recorded to closed", "SELECT closed_ms - opened_ms FROM cases ORDER BY 1"),
    ] {
        let mut statement = db.prepare(sql).unwrap();
        let took: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        eprintln!("  {what}: p50 {} ms, p99 {} ms", took[took.len() / 2], took[took.len() * 99 / 100]);
    }
    let dead = dead.lock().unwrap();
    p99_ms("curfew", &produced, &dead)
}

async fn bare(vault: &Memory) -> f64 {
    let accessors = vault.tokens(TASKS).await;
    let topic = new_topic().await;
    let consumer: BaseConsumer = config()
        .set("group.id", unique("bare"))
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    consumer.subscribe(&[&topic]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(Mutex::new(File::create(dir.path().join("log")).unwrap()));
    let sync = move || {
        let mut log = log.lock().unwrap();
        log.write_all(&[0; 512]).unwrap();
        log.sync_data().unwrap();
    };
    let dead = Arc::new(Mutex::new(HashMap::new()));
    let runtime = tokio::runtime::Handle::current();
    // With the authority that Curfew has: Vault works harder for a token with policies than for root.
    let caller = admin::Admin::at(&vault.admin.address, &vault.admin.curfew_token().await);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let reading = std::thread::spawn({
        let (dead, admin) = (dead.clone(), caller);
        move || {
            let mut working = Vec::new();
            while working.len() < TASKS {
                let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
                let value: serde_json::Value = serde_json::from_slice(message.unwrap().payload().unwrap()).unwrap();
                if value["type"] == "dev.curfew.task.started.v1" {
                    ready.send(()).unwrap();
                    continue;
                }
                let urn = value["data"]["grants"][0]["cred_id"].as_str().unwrap();
                let accessor = CredentialId::parse(urn).unwrap().id();
                sync();
                let (admin, dead, sync) = (admin.clone(), dead.clone(), sync.clone());
                working.push(runtime.spawn(async move {
                    let body = json!({"accessor": accessor});
                    admin.call("POST", "auth/token/lookup-accessor", body.clone()).await;
                    tokio::task::spawn_blocking(sync.clone()).await.unwrap();
                    admin.call("POST", "auth/token/revoke-accessor", body.clone()).await;
                    assert_ne!(admin.call("POST", "auth/token/lookup-accessor", body).await.0, 200);
                    tokio::task::spawn_blocking(sync).await.unwrap();
                    dead.lock().unwrap().insert(accessor, Instant::now());
                }));
            }
            working
        }
    });
    // It must be reading before the clock starts.
    send(&producer(), &topic, &event("started", TASKS, "none")).await;
    tokio::task::spawn_blocking(move || is_ready.recv().unwrap()).await.unwrap();
    let produced = end_all(&topic, &accessors).await;
    for one in tokio::task::spawn_blocking(move || reading.join().unwrap()).await.unwrap() {
        one.await.unwrap();
    }
    let dead = dead.lock().unwrap();
    p99_ms("bare", &produced, &dead)
}

pub async fn measure(table: &mut Table) {
    eprintln!("latency: {TASKS} tasks, one each {} ms, {RUNS} runs", EVERY.as_millis());
    let vault = Memory::start().await;
    let mut pairs = Vec::new();
    for run in 0..RUNS {
        pairs.push(if run % 2 == 0 {
            let ours = ours(&vault).await;
            (ours, bare(&vault).await)
        } else {
            let bare = bare(&vault).await;
            (ours(&vault).await, bare)
        });
    }
    table.add("task end produced to proven dead, p99", "ms", &pairs, Goal::AtMost(1.5));
}
