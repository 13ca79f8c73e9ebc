//! The whole pipeline against the worker that teams write today (`benches/naive/worker.py`, started as they would): the
//! same number of ended tasks in real Kafka, their tokens on the same Vault with memory storage, the same three calls for
//! each. Both are at work before the clock starts; it stops when the last token was seen dead and that was recorded:
//! the case closed in the journal, the line logged by the worker.
//!
//! Beside them, the most that this machine's Vault bears: the three calls alone, as many at once as Curfew makes. No
//! pipeline can be more times faster than the worker than this is.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
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
use futures::future::join_all;
use serde_json::json;

use crate::admin::Admin;
use crate::latency::{event, new_topic, producer, send};
use crate::revoke::Memory;
use crate::stage;
use crate::table::{Goal, Table};
use crate::world::{env, unique};

const TASKS: usize = 1_000;
const RUNS: usize = 5;
/// As many calls at once as a system bears where the configuration says nothing.
const CALLS: usize = 16;

/// Ends tasks `first..`, all at once.
async fn end(topic: &str, first: usize, accessors: &[String]) {
    let producer = &producer();
    let ended = accessors.iter().enumerate().map(|(n, accessor)| (first + n, accessor));
    join_all(ended.map(|(n, accessor)| async move { send(producer, topic, &event("ended", n, accessor)).await })).await;
}

async fn ours(vault: &Memory, accessors: &[String]) -> f64 {
    let topic = new_topic().await;
    let mut stage =
        stage::Stage::new(crate::store::Store::sqlite(), crate::admin::connectors(&vault.admin, "none", false).await);
    let authority = stage.settings.authority[stage::TOPIC].clone();
    stage.settings.authority.insert(topic.clone(), authority);
    stage.settings.calls_per_system = CALLS;
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
    let topics =
        vec![Topic { name: topic.as_str().into(), tenant: "default".into(), format: curfew::event::Format::Curfew }];
    let settings = Settings::new(Connection::plain(env("CURFEW_TEST_KAFKA")), unique("bench"), topics);
    let reading = tokio::spawn(consumer::run(intake, settings, Arc::new(Backlog::default()), stop.clone()));
    let acting = tokio::spawn(stage.executor_rung_by(journal.clone(), stirred).run(stop.clone()));
    let closed = async |wanted: usize| {
        while journal.stats(stage::now_ms()).await.unwrap().closed < wanted as i64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };

    end(&topic, 0, &accessors[..1]).await;
    closed(1).await;
    let started = Instant::now();
    end(&topic, 1, &accessors[1..]).await;
    closed(accessors.len()).await;
    let rate = (accessors.len() - 1) as f64 / started.elapsed().as_secs_f64();

    stop.cancel();
    acting.await.unwrap();
    reading.await.unwrap().unwrap();
    rate
}

/// `benches/naive/worker.py` on a topic, gone with this.
struct Worker {
    child: Child,
    log: Receiver<String>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Worker {
    async fn start(vault: &Memory, topic: &str) -> Self {
        let mut child = Command::new(env("CURFEW_NAIVE_PYTHON"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/naive/worker.py"))
            .env("KAFKA_BROKERS", env("CURFEW_TEST_KAFKA"))
            .env("KAFKA_TOPIC", topic)
            .env("KAFKA_GROUP", unique("naive"))
            .env("VAULT_ADDR", &vault.admin.address)
            // With the authority that Curfew has: Vault works harder for a token with policies than for root.
            .env("VAULT_TOKEN", vault.admin.curfew_token().await)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (says, log) = channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // Ends with the pipe, or when nobody listens any more.
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| says.send(line)));
        Self { child, log }
    }

    /// Waits for this many revocations.
    fn revokes(&self, wanted: usize) {
        let mut seen = 0;
        while seen < wanted {
            let line = self.log.recv_timeout(Duration::from_secs(60)).expect("the worker goes on");
            if line.contains(" INFO revoked ") {
                seen += 1;
            } else {
                eprintln!("  worker: {line}");
            }
        }
    }
}

async fn naive(vault: &Memory, accessors: &[String]) -> f64 {
    let topic = new_topic().await;
    let worker = Worker::start(vault, &topic).await;
    end(&topic, 0, &accessors[..1]).await;
    tokio::task::block_in_place(|| worker.revokes(1));
    let started = Instant::now();
    end(&topic, 1, &accessors[1..]).await;
    tokio::task::block_in_place(|| worker.revokes(accessors.len() - 1));
    (accessors.len() - 1) as f64 / started.elapsed().as_secs_f64()
}

async fn bare(vault: &Memory, accessors: &[String]) -> f64 {
    let caller = &Admin::at(&vault.admin.address, &vault.admin.curfew_token().await);
    let started = Instant::now();
    futures::stream::iter(accessors)
        .for_each_concurrent(CALLS, |accessor| async move {
            for call in ["lookup", "revoke", "lookup"] {
                caller.call("POST", &format!("auth/token/{call}-accessor"), json!({"accessor": accessor})).await;
            }
        })
        .await;
    accessors.len() as f64 / started.elapsed().as_secs_f64()
}

async fn all_dead(vault: &Memory, accessors: &[String]) {
    for accessor in accessors {
        let body = json!({"accessor": accessor});
        assert_ne!(vault.admin.call("POST", "auth/token/lookup-accessor", body).await.0, 200, "one is still alive");
    }
}

pub async fn measure(table: &mut Table) {
    eprintln!("naive: {TASKS} ended tasks, {RUNS} runs");
    let vault = Memory::start().await;
    let mut pairs = Vec::new();
    for _ in 0..RUNS {
        // One more each: it shows that they are at work.
        let (for_ours, for_naive) = (vault.tokens(TASKS + 1).await, vault.tokens(TASKS + 1).await);
        let for_bare = vault.tokens(TASKS).await;
        let pair = (ours(&vault, &for_ours).await, naive(&vault, &for_naive).await);
        let most = bare(&vault, &for_bare).await;
        let (times, at_most) = (pair.0 / pair.1, most / pair.1);
        eprintln!(
            "  curfew {:.0}/s, worker {:.0}/s: {times:.1} times; Vault's calls alone {most:.0}/s: {at_most:.1} times",
            pair.0, pair.1
        );
        for accessors in [&for_ours, &for_naive, &for_bare] {
            all_dead(&vault, accessors).await;
        }
        pairs.push(pair);
    }
    table.add("revocations per second against the naive worker", "1/s", &pairs, Goal::AtLeast(20.0));
}
