//! Processor time for each event where very many credentials are known, against few: of this process, and of PostgreSQL
//! where the journal is there. The events are of tasks that take up a known credential, at random, and end.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use curfew::clock::System;
use curfew::event::{Coordinates, Delivery, Limits};
use curfew::intake::Intake;
use curfew::journal::Journal;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use rusqlite::Connection;
use serde_json::json;

use crate::schema::Schema;
use crate::stage::now_ms;
use crate::store::give_digest16;
use crate::table::{Goal, Table};
use crate::usage;

const FEW: usize = 10_000;
const BATCH: usize = 1_000;
/// Started and ended, each, in a round.
const TASKS: usize = 2_000;
const RUNS: usize = 5;

const CREDENTIAL: &str = "urn:curfew:cred:vault-lease:prod:database/creds/app/";

/// What puts known credentials there, with the live tasks that hold them; see [`sqlite`].
fn fill(numbers: &str, sql: &Dialect) -> String {
    let (now, due, padded) = (now_ms(), now_ms() + 86_400_000, (sql.padded)(8));
    format!(
        "INSERT INTO tasks (tenant, run, source, attempt, phase, first_seen_ms, started_ms, deadline_ms, alive_ms, due_ms) \
         SELECT 'default', '/old:run-' || {padded}, '/old', 1, 1, {now}, {now}, {due} + i, {now}, {due} + i {numbers}; \
         INSERT INTO grants (tenant, run, credential, attempt, tenure, phase, registered_ms, topics) \
         SELECT 'default', '/old:run-' || {padded}, '{CREDENTIAL}' || {padded}, 1, 0, 0, {now}, '[\"curfew.tasks\"]' \
         {numbers}; \
         INSERT INTO credentials (tenant, id, registered_ms, seen_ms) \
         SELECT 'default', '{CREDENTIAL}' || {padded}, {now}, {now} {numbers};"
    )
}

/// How a store writes what both have.
pub struct Dialect {
    /// A text of the number `i`, so many digits long.
    pub padded: fn(u8) -> String,
    /// The key of some texts, as [`curfew::event::digest16`] makes it.
    pub digest16: fn(&[String]) -> String,
}

/// Makes SQL of where the numbers `i` come from.
pub type Fill = fn(&str, &Dialect) -> String;

const SQLITE: Dialect = Dialect {
    padded: |digits| format!("printf('%0{digits}d', i)"),
    digest16: |texts| format!("digest16({})", texts.join(", ")),
};

const POSTGRES: Dialect = Dialect {
    padded: |digits| format!("lpad(i::text, {digits}, '0')"),
    digest16: |texts| {
        let each = |text: &String| format!("int8send(octet_length({text})) || convert_to({text}, 'UTF8')");
        format!("substr(sha256({}), 1, 16)", texts.iter().map(each).collect::<Vec<_>>().join(" || "))
    },
};

/// A journal with what `fill` puts there `count` times, in the order of the keys: that is quick.
pub async fn sqlite(path: &Path, count: usize, fill: Fill) -> Arc<dyn Journal> {
    drop(Sqlite::open(path, Settings::default()).unwrap());
    let db = Connection::open(path).unwrap();
    let numbers = format!(
        "FROM (WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1) SELECT i FROM n)"
    );
    give_digest16(&db);
    db.execute_batch(&fill(&numbers, &SQLITE)).unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    Sqlite::open(path, Settings::default()).unwrap()
}

/// As [`sqlite`].
pub async fn postgres(schema: &mut Schema, count: usize, fill: Fill) -> Arc<dyn Journal> {
    let numbers = format!("FROM generate_series(0, {count} - 1) i");
    schema.execute(fill(&numbers, &POSTGRES)).await;
    schema.settle().await;
    schema.open().await
}

fn delivery(kind: &str, run: &str, credential: Option<usize>) -> Delivery {
    let mut data = json!({"task": "bench", "run_id": run, "attempt": 1});
    if let Some(credential) = credential {
        data["grants"] = json!([{"cred_id": format!("{CREDENTIAL}{credential:08}")}]);
    }
    let body = json!({
        "specversion": "1.0", "type": format!("dev.curfew.task.{kind}.v1"), "source": "/bench",
        "id": format!("{run}-{kind}"), "datacontenttype": "application/json", "data": data,
    });
    Delivery {
        at: Coordinates { cluster: "bench".into(), topic: "curfew.tasks".into(), partition: 0, offset: 0 },
        tenant: "default".into(),
        format: curfew::event::Format::Curfew,
        broker_ms: now_ms(),
        headers: vec![("content-type".to_owned(), Some(Bytes::from_static(b"application/cloudevents+json")))],
        payload: Some(body.to_string().into_bytes().into()),
    }
}

/// Microseconds of processor for each event; `used_ms` is what was used so far.
async fn each_us(journal: Arc<dyn Journal>, known: usize, used_ms: impl Fn() -> i64) -> f64 {
    let intake = Intake {
        journal,
        rules: Arc::new(Rules::default()),
        limits: Limits::default(),
        clock: System::shared(),
        metrics: Arc::new(Metrics::default()),
        stirred: Arc::default(),
        trust: None,
        types: None,
    };
    let runs: Vec<uuid::Uuid> = (0..TASKS).map(|_| uuid::Uuid::new_v4()).collect();
    let credential = |run: &uuid::Uuid| (run.as_u128() >> 64) as usize % known;
    let started = runs.iter().map(|run| delivery("started", &run.to_string(), Some(credential(run))));
    let ended = runs.iter().map(|run| delivery("ended", &run.to_string(), None));
    let all: Vec<Delivery> = started.chain(ended).collect();
    let before = used_ms();
    for batch in all.chunks(BATCH) {
        intake.record(batch, Vec::new()).await.unwrap();
    }
    ((used_ms() - before) * 1_000) as f64 / all.len() as f64
}

/// `each` of both, in turn.
pub async fn compare(
    many: (Arc<dyn Journal>, usize),
    few: (Arc<dyn Journal>, usize),
    each: impl AsyncFn(Arc<dyn Journal>, usize) -> f64,
) -> Vec<(f64, f64)> {
    let mut pairs = Vec::new();
    // The first round fills the caches.
    for _ in 0..=RUNS {
        pairs.push((each(many.0.clone(), many.1).await, each(few.0.clone(), few.1).await));
    }
    pairs.split_off(1)
}

pub async fn measure(table: &mut Table) {
    let (count, text) = if usage::full() { (10_000_000, "10 M") } else { (1_000_000, "1 M") };
    eprintln!("known: {text} known credentials against {FEW}, {} events a run, {RUNS} runs", 2 * TASKS);
    let name = |store: &str| format!("processor for each event, {text} known credentials against 10 k, {store}");

    let dir = tempfile::tempdir().unwrap();
    let many = (sqlite(&dir.path().join("many.db"), count, fill).await, count);
    let few = (sqlite(&dir.path().join("few.db"), FEW, fill).await, FEW);
    let each = async |journal, known| each_us(journal, known, usage::own_ms).await;
    table.add(name("SQLite"), "us", &compare(many, few, each).await, Goal::AtMost(2.0));

    let (mut many, mut few) = (Schema::new().await, Schema::new().await);
    let both = ((postgres(&mut many, count, fill).await, count), (postgres(&mut few, FEW, fill).await, FEW));
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut few.side).await.unwrap();
    let used_ms = || usage::own_ms() + usage::postgres_ms(backend);
    let each = async |journal, known| each_us(journal, known, used_ms).await;
    table.add(name("PostgreSQL"), "us", &compare(both.0, both.1, each).await, Goal::AtMost(2.0));
}
