//! Task events made durable per second: from Kafka's bytes (decode, decide, record) against the same statements, rows and
//! batches put bare into SQLite, with few and with many pending tasks in the file.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use curfew::clock::System;
use curfew::event::{Coordinates, Delivery, Limits};
use curfew::intake::Intake;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::journal::{Journal, Move, Position};
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use rusqlite::{Connection, params};

use crate::stage::now_ms;
use crate::table::{Goal, Table};

pub(crate) const BATCH: usize = 1_000;
pub(crate) const BATCHES: usize = 20;
const RUNS: usize = 5;

pub(crate) fn payload(round: usize, n: usize) -> Vec<u8> {
    serde_json::json!({
        "specversion": "1.0", "type": "dev.curfew.task.started.v1", "source": "/bench", "id": format!("{round}-{n}"),
        "datacontenttype": "application/json",
        "data": {
            "task": "bench", "run_id": format!("run-{round}-{n:08}"), "attempt": 1, "workload_id": "spiffe://bench/agent",
            "started_at": "2026-11-24T00:00:00Z",
            "grants": [{"cred_id": format!("urn:curfew:cred:vault-lease:prod:database/creds/app/{round}-{n:08}"),
                        "tenure": "minted", "principal": format!("v-app-{round}-{n:08}")}],
        },
    })
    .to_string()
    .into_bytes()
}

pub(crate) fn delivery(round: usize, n: usize) -> Delivery {
    Delivery {
        at: Coordinates { cluster: "bench".into(), topic: "curfew.tasks".into(), partition: 0, offset: n as i64 },
        tenant: "default".into(),
        format: curfew::event::Format::Curfew,
        broker_ms: now_ms(),
        headers: vec![("content-type".to_owned(), Some(Bytes::from_static(b"application/cloudevents+json")))],
        payload: Some(payload(round, n).into()),
    }
}

/// Pending tasks that are there already, put in by SQL.
fn fill(path: &Path, pending: usize) {
    drop(Sqlite::open(path, Settings::default()).unwrap());
    let db = Connection::open(path).unwrap();
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO tasks (tenant, run, source, attempt, phase, first_seen_ms, started_ms, deadline_ms, alive_ms, due_ms)
         SELECT 'default', '/old:run-' || i, '/old', 1, 1, ?2, ?2, ?2 + 86400000 + i, ?2, ?2 + 86400000 + i FROM n",
        params![pending as i64, now_ms()],
    )
    .unwrap();
}

/// The whole intake into `journal`.
pub(crate) async fn ours(journal: Arc<dyn Journal>, round: usize) -> f64 {
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
    let batches: Vec<Vec<Delivery>> =
        (0..BATCHES).map(|b| (0..BATCH).map(|n| delivery(round, b * BATCH + n)).collect()).collect();
    let started = Instant::now();
    let mut from = intake.journal.position("bench", "curfew.tasks", 0).await.unwrap().map(|p| p.next_offset);
    for batch in &batches {
        let to = Position {
            cluster: "bench".into(),
            topic: "curfew.tasks".into(),
            partition: 0,
            next_offset: from.unwrap_or(0) + BATCH as i64,
            last_ms: now_ms(),
            last_digest: [0; 16],
        };
        let next = to.next_offset;
        let recorded = intake.record(batch, vec![Move { from, to }]).await.unwrap();
        assert_eq!(recorded.fates.len(), BATCH);
        from = Some(next);
    }
    (BATCH * BATCHES) as f64 / started.elapsed().as_secs_f64()
}

/// The same statements in the same batches, without decoding or deciding. Keys as the journal makes them: random hashes in
/// `seen`, time-ordered ids in `events`.
fn bare(path: &Path, round: usize) -> f64 {
    let mut db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.pragma_update(None, "synchronous", "full").unwrap();
    db.set_prepared_statement_cache_capacity(64);
    let facts = "{\"grants\":1}";
    let keys: Vec<([u8; 16], uuid::Uuid, String, String)> = (0..BATCH * BATCHES)
        .map(|n| {
            let hash = curfew::event::digest16(&[b"bare", &round.to_be_bytes(), &n.to_be_bytes()]);
            let run = format!("/bare:run-{round}-{n:08}");
            let credential = format!("urn:curfew:cred:vault-lease:prod:database/creds/app/bare-{round}-{n:08}");
            (hash, uuid::Uuid::now_v7(), run, credential)
        })
        .collect();
    let started = Instant::now();
    for batch in keys.chunks(BATCH) {
        let tx = db.transaction().unwrap();
        let exec = |sql: &str, p: &[&dyn rusqlite::ToSql]| {
            tx.prepare_cached(sql).unwrap().execute(p).unwrap();
        };
        let look = |sql: &str, p: &[&dyn rusqlite::ToSql]| {
            let mut statement = tx.prepare_cached(sql).unwrap();
            let mut rows = statement.query(p).unwrap();
            while rows.next().unwrap().is_some() {}
        };
        let now = now_ms();
        for (_, _, run, credential) in batch {
            look("SELECT * FROM tasks WHERE tenant=? AND run=?", &[&"default", run]);
            look("SELECT * FROM grants WHERE tenant=? AND run=?", &[&"default", run]);
            look("SELECT * FROM credentials WHERE tenant=? AND id=?", &[&"default", credential]);
            look(
                "SELECT * FROM grants WHERE tenant=? AND credential=? ORDER BY phase LIMIT 256",
                &[&"default", credential],
            );
            look(
                "SELECT body FROM cases WHERE tenant=? AND credential=? AND closed_ms IS NULL",
                &[&"default", credential],
            );
        }
        for (hash, id, run, credential) in batch {
            exec(
                "INSERT INTO seen (hash, digest, at_ms) VALUES (?,?,?) ON CONFLICT DO NOTHING",
                &[&&hash[..], &&hash[..], &now],
            );
            exec(
                "INSERT INTO events (tenant, id, source, event_id, kind, topic, partition, offset, broker_ms, at_ms, verb, \
                 reason, facts, rules, linked, open_cases, traceparent) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                &[
                    &"default",
                    &&id.as_bytes()[..],
                    &"/bench",
                    run,
                    &"task.started",
                    &"curfew.tasks",
                    &0,
                    &now,
                    &now,
                    &now,
                    &"track",
                    &"noted",
                    &facts,
                    &"0011223344556677",
                    &0,
                    &0,
                    &None::<String>,
                ],
            );
            exec(
                "INSERT INTO tasks (tenant, run, source, name, identity, attempt, phase, first_seen_ms, started_ms, \
                 deadline_ms, clamped_from_ms, heartbeat_every_ms, last_beat_ms, ended_ms, outcome, alive_ms, due_ms) \
                 VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                &[
                    &"default",
                    run,
                    &"/bench",
                    &"bench",
                    &"spiffe://bench/agent",
                    &1,
                    &1,
                    &now,
                    &now,
                    &(now + 86_400_000),
                    &None::<i64>,
                    &None::<i64>,
                    &None::<i64>,
                    &None::<i64>,
                    &None::<String>,
                    &now,
                    &(now + 86_400_000),
                ],
            );
            exec(
                "INSERT INTO grants (tenant, run, credential, attempt, tenure, phase, registered_ms, topics) \
                 VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                &[&"default", run, credential, &1, &0, &0, &now, &"[\"curfew.tasks\"]"],
            );
            exec(
                "INSERT INTO credentials (tenant, id, principal, registered_ms, seen_ms, issued_ms, expires_ms, dead_ms, \
                 lookup_due_ms) VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                &[&"default", credential, run, &now, &None::<i64>, &None::<i64>, &None::<i64>, &None::<i64>, &now],
            );
        }
        for name in ["consumed", "accepted", "closed", "tasks_live"] {
            exec(
                "INSERT INTO counters VALUES (?,?) ON CONFLICT DO UPDATE SET value=value+excluded.value",
                &[&name, &(BATCH as i64)],
            );
        }
        exec(
            "INSERT INTO positions (cluster, topic, partition, next_offset, last_ms, last_digest) VALUES (?,?,?,?,?,?) \
             ON CONFLICT DO UPDATE SET next_offset=excluded.next_offset, last_ms=excluded.last_ms",
            &[&"bare", &"curfew.tasks", &0, &1, &now, &&[0_u8; 16][..]],
        );
        tx.commit().unwrap();
    }
    (BATCH * BATCHES) as f64 / started.elapsed().as_secs_f64()
}

pub async fn measure(table: &mut Table) {
    for (pending, label) in [(10_000, "10 k"), (1_000_000, "1 M")] {
        eprintln!("intake: {label} pending tasks, {} events a run, {RUNS} runs", BATCH * BATCHES);
        let dir = tempfile::tempdir().unwrap();
        let (for_ours, for_bare) = (dir.path().join("ours.db"), dir.path().join("bare.db"));
        fill(&for_ours, pending);
        fill(&for_bare, pending);
        let mut pairs = Vec::new();
        for round in 0..RUNS {
            let journal = Sqlite::open(&for_ours, Settings::default()).unwrap();
            pairs.push((ours(journal, round).await, bare(&for_bare, round)));
        }
        table.add(format!("task events made durable, {label} pending"), "1/s", &pairs, Goal::AtLeast(0.7));
    }
}
