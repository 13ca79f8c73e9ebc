//! Findings. First: a scanner's report of 100 k, one of a hundred of a secret that the inventory knows, until all of it is
//! durable (read, fingerprinted, decoded, matched, decided, recorded), against reading, fingerprinting and decoding alone.
//! Then: the processor that one match takes, where very many credentials are known, against few.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use curfew::clock::System;
use curfew::credential::CredentialId;
use curfew::event::adapters::{self, Adapter, Converted, Given};
use curfew::event::{Coordinates, CredentialRegistered, Data, Delivery, Limits, PartFingerprint, Type, decode};
use curfew::fingerprint::Keys;
use curfew::http::findings::TOGETHER;
use curfew::intake::Intake;
use curfew::journal::Journal;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use curfew::policy::rules::{FindingRule, Response, When};
use serde_json::json;

use crate::known;
use crate::schema::Schema;
use crate::stage::{self, now_ms};
use crate::table::{Goal, Table};
use crate::usage;

const FINDINGS: usize = 100_000;
/// One of so many is of a known credential.
const OURS: usize = 100;
const RUNS: usize = 5;

const FEW: usize = 10_000;
/// Matched in a round.
const MATCHES: usize = 5_000;

/// One is live, but for the time in which it is changed.
static KEYS: LazyLock<Keys> =
    LazyLock::new(|| Keys::parse(format!("k1 {}\n", "c3b1f0a7".repeat(8)).as_bytes()).unwrap());

fn secret(round: usize, n: usize) -> String {
    hex::encode(curfew::event::digest16(&[b"bench", &round.to_be_bytes(), &n.to_be_bytes()]))
}

/// As Gitleaks writes it.
fn report(round: usize) -> Vec<u8> {
    let mut text = b"[".to_vec();
    for n in 0..FINDINGS {
        let secret = secret(round, n);
        let leak = json!({
            "RuleID": "generic-api-key", "Description": "Detected a Generic API Key, potentially exposing access",
            "StartLine": n % 400 + 1, "EndLine": n % 400 + 1, "StartColumn": 24, "EndColumn": 43,
            "Match": format!("password: {secret}"), "Secret": secret, "File": format!("services/app-{:04}/conf.yaml", n / 400),
            "SymlinkFile": "", "Commit": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567", "Entropy": 3.73, "Author": "Ana",
            "Email": "ana@example.test", "Date": "2026-10-14T17:05:15Z", "Message": "Configuration of the service",
            "Tags": [], "Fingerprint": format!("0a1b2c3d4e5f60718293a4b5c6d7e8f901234567:conf.yaml:generic-api-key:{n}"),
        });
        text.extend_from_slice(if n == 0 { b"\n " } else { b",\n " });
        text.extend_from_slice(leak.to_string().as_bytes());
    }
    text.extend_from_slice(b"\n]\n");
    text
}

fn delivery(body: Vec<u8>) -> Delivery {
    Delivery {
        at: Coordinates { cluster: "http".into(), topic: "curfew.findings".into(), partition: -1, offset: -1 },
        tenant: "default".into(),
        format: curfew::event::Format::Curfew,
        broker_ms: now_ms(),
        headers: vec![("content-type".to_owned(), Some(Bytes::from_static(b"application/cloudevents+json")))],
        payload: Some(body.into()),
    }
}

fn read(report: &[u8]) -> impl Iterator<Item = Converted> {
    let given = Given { keys: Some(&KEYS), repository: Some("github.com/o/r"), now_ms: now_ms() };
    adapters::read(Adapter::Gitleaks, report, given).unwrap().map(|made| made.unwrap())
}

fn intake(journal: Arc<dyn Journal>, findings: Vec<FindingRule>) -> Intake {
    Intake {
        journal,
        rules: Arc::new(Rules { findings, ..Rules::default() }),
        limits: Limits::default(),
        clock: System::shared(),
        metrics: Arc::new(Metrics::default()),
        stirred: Arc::default(),
        trust: None,
        types: None,
    }
}

/// What the inventory knows: the secrets that are ours.
async fn register(journal: &dyn Journal, round: usize) {
    let known = (0..FINDINGS).step_by(OURS).map(|n| {
        let id = format!("urn:curfew:cred:postgres-role:appdb:app-{round}-{n}");
        let part = |fingerprint| PartFingerprint { fingerprint, part: None };
        let data = CredentialRegistered {
            credential: CredentialId::parse(&id).unwrap(),
            fingerprints: KEYS.of(&secret(round, n)).into_iter().map(part).collect(),
            version: Some(1),
            current: true,
            issued_ms: None,
            owner: None,
            environment: None,
        };
        stage::event(Type::CredentialRegistered, Data::CredentialRegistered(data))
    });
    stage::record(journal, known.collect()).await;
}

/// Until all is durable. The next findings are read while some are recorded, as where several reports come in.
async fn ours(journal: Arc<dyn Journal>, round: usize, report: Arc<Vec<u8>>) -> (f64, i64) {
    register(journal.as_ref(), round).await;
    let before = journal.stats(now_ms()).await.unwrap();
    let intake = intake(journal.clone(), FindingRule::defaults());
    let used = usage::own_ms();
    let started = Instant::now();
    let (put, mut batches) = tokio::sync::mpsc::channel::<Vec<Delivery>>(2);
    let reading = tokio::task::spawn_blocking(move || {
        let mut all = read(&report).map(|made| delivery(made.body)).peekable();
        while all.peek().is_some() {
            let some = all.by_ref().take(TOGETHER).collect();
            put.blocking_send(some).unwrap();
        }
    });
    while let Some(batch) = batches.recv().await {
        intake.record(&batch, Vec::new()).await.unwrap();
    }
    let rate = FINDINGS as f64 / started.elapsed().as_secs_f64();
    reading.await.unwrap();
    let used = usage::own_ms() - used;
    let after = journal.stats(now_ms()).await.unwrap();
    assert_eq!(after.accepted - before.accepted, FINDINGS as i64);
    assert_eq!(after.unmatched - before.unmatched, (FINDINGS - FINDINGS / OURS) as i64, "the others are ours");
    (rate, used)
}

fn bare(report: &[u8]) -> (f64, i64) {
    let used = usage::own_ms();
    let started = Instant::now();
    let limits = Limits::default();
    let count = read(report).filter(|made| decode(&delivery(made.body.clone()), &limits).is_ok()).count();
    assert_eq!(count, FINDINGS);
    (FINDINGS as f64 / started.elapsed().as_secs_f64(), usage::own_ms() - used)
}

/// One report into each of some journals, or all of them into one.
async fn pairs(table: &mut Table, name: &str, goal: Goal, journal: impl Fn(usize) -> std::path::PathBuf) {
    let mut pairs = Vec::new();
    for round in 0..RUNS {
        let report = Arc::new(report(round));
        let journal = Sqlite::open(&journal(round), Settings::default()).unwrap();
        let ((ours, own_ms), (bare, bare_ms)) = (ours(journal, round, report.clone()).await, bare(&report));
        let each = |ms: i64| ms * 1_000 / FINDINGS as i64;
        eprintln!("  curfew {ours:.0}/s, {} us of processor; bare {bare:.0}/s, {} us", each(own_ms), each(bare_ms));
        pairs.push((ours, bare));
    }
    table.add(name, "1/s", &pairs, goal);
}

pub async fn measure(table: &mut Table) {
    eprintln!(
        "found: {FINDINGS} findings, 1 of {OURS} ours, {RUNS} runs, each in a journal of its own, then all in one"
    );
    let dir = tempfile::tempdir().unwrap();
    let name = "100 k findings made durable, 1 % ours, against decoding and hashing";
    pairs(table, name, Goal::AtLeast(0.5), |round| dir.path().join(format!("{round}.db"))).await;
    let name = "five such reports, one after the other, in one journal";
    pairs(table, name, Goal::Seen, |_| dir.path().join("all.db")).await;
}

const CREDENTIAL: &str = "urn:curfew:cred:postgres-role:appdb:app-";

/// What puts known credentials there, with the fingerprint of a value of each; see [`known::sqlite`].
fn fill(numbers: &str, sql: &known::Dialect) -> String {
    let (now, name) = (now_ms(), (sql.padded)(8));
    let mark = (sql.digest16)(&["'default'".to_owned(), format!("'k1:' || {}", (sql.padded)(64))]);
    format!(
        "INSERT INTO credentials (tenant, id, registered_ms, seen_ms, version) \
         SELECT 'default', '{CREDENTIAL}' || {name}, {now}, {now}, 1 {numbers}; \
         INSERT INTO marks (name, credential, version) SELECT {mark}, '{CREDENTIAL}' || {name}, 1 {numbers} ORDER BY 1;"
    )
}

/// A finding of one of the known values, at random; the rules leave it at the match.
fn finding(known: usize) -> Delivery {
    let id = uuid::Uuid::new_v4();
    let which = (id.as_u128() >> 64) as usize % known;
    let body = json!({
        "specversion": "1.0", "type": "dev.curfew.finding.observed.v1", "source": "/bench", "id": id.to_string(),
        "datacontenttype": "application/json",
        "data": {
            "finding_key": id.simple().to_string(), "detector": "bench",
            "fingerprints": [{"kid": "k1", "alg": "hmac-sha256", "value": format!("{which:064}")}],
        },
    });
    delivery(body.to_string().into_bytes())
}

/// Microseconds of processor for each finding that is matched; `used_ms` is what was used so far.
async fn each_us(journal: Arc<dyn Journal>, known: usize, used_ms: impl Fn() -> i64) -> f64 {
    let intake = intake(journal.clone(), vec![FindingRule::new(When::default(), Response::Ignore)]);
    let all: Vec<Delivery> = (0..MATCHES).map(|_| finding(known)).collect();
    let (unmatched, before) = (journal.stats(now_ms()).await.unwrap().unmatched, used_ms());
    for batch in all.chunks(TOGETHER) {
        intake.record(batch, Vec::new()).await.unwrap();
    }
    let used = used_ms() - before;
    assert_eq!(journal.stats(now_ms()).await.unwrap().unmatched, unmatched, "all are matched");
    (used * 1_000) as f64 / all.len() as f64
}

pub async fn matches(table: &mut Table) {
    let count = 1_000_000;
    eprintln!("match: {count} known credentials against {FEW}, {MATCHES} matches a run, {RUNS} runs");
    let name = |store: &str| format!("processor for each match, 1 M known credentials against 10 k, {store}");
    let dir = tempfile::tempdir().unwrap();
    let many = (known::sqlite(&dir.path().join("many.db"), count, fill).await, count);
    let few = (known::sqlite(&dir.path().join("few.db"), FEW, fill).await, FEW);
    let each = async |journal, known| each_us(journal, known, usage::own_ms).await;
    table.add(name("SQLite"), "us", &known::compare(many, few, each).await, Goal::AtMost(1.3));

    let (mut many, mut few) = (Schema::new().await, Schema::new().await);
    let many_there = (known::postgres(&mut many, count, fill).await, count);
    let few_there = (known::postgres(&mut few, FEW, fill).await, FEW);
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut few.side).await.unwrap();
    let used_ms = || usage::own_ms() + usage::postgres_ms(backend);
    let each = async |journal, known| each_us(journal, known, used_ms).await;
    table.add(name("PostgreSQL"), "us", &known::compare(many_there, few_there, each).await, Goal::AtMost(1.3));
}
