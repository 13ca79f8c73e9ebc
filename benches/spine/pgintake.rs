//! Task events made durable per second in PostgreSQL: from Kafka's bytes through `Intake`, against the same statements,
//! rows and batches put bare into the same server on one connection.

use std::time::Instant;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::intake::{BATCH, BATCHES, ours};
use crate::schema::Schema;
use crate::stage::now_ms;
use crate::table::{Goal, Table};

const PENDING: usize = 10_000;
const RUNS: usize = 5;

/// Pending tasks that are there already.
async fn fill(schema: &mut Schema, pending: usize) {
    let (now, due) = (now_ms(), now_ms() + 86_400_000);
    let sql = format!(
        "INSERT INTO tasks (tenant, run, source, attempt, phase, first_seen_ms, started_ms, deadline_ms, alive_ms, due_ms) \
         SELECT 'default', '/old:run-' || i, '/old', 1, 1, {now}, {now}, {due} + i, {now}, {due} + i \
         FROM generate_series(1, {pending}) i"
    );
    schema.execute(sql).await;
    let writer = "INSERT INTO writers (id, way, at_ms) VALUES ('00000000-0000-4000-8000-000000000000', 0, 0)";
    schema.execute(writer.to_owned()).await;
    schema.settle().await;
}

/// The rows of one batch, a column each. Keys as the journal makes them: random hashes in `seen`, time-ordered ids in
/// `events`.
struct Rows {
    hashes: Vec<Vec<u8>>,
    ids: Vec<uuid::Uuid>,
    runs: Vec<String>,
    credentials: Vec<String>,
    now_ms: i64,
}

impl Rows {
    fn new(round: usize, batch: usize) -> Self {
        let numbers = || batch * BATCH..(batch + 1) * BATCH;
        let hash = |n: usize| curfew::event::digest16(&[b"bare", &round.to_be_bytes(), &n.to_be_bytes()]).to_vec();
        let credential = |n| format!("urn:curfew:cred:vault-lease:prod:database/creds/app/bare-{round}-{n:08}");
        Self {
            hashes: numbers().map(hash).collect(),
            ids: numbers().map(|_| uuid::Uuid::now_v7()).collect(),
            runs: numbers().map(|n| format!("/bare:run-{round}-{n:08}")).collect(),
            credentials: numbers().map(credential).collect(),
            now_ms: now_ms(),
        }
    }

    fn all<T: Clone>(&self, value: T) -> Vec<T> {
        vec![value; self.runs.len()]
    }

    /// What decisions look at.
    async fn look(&self, db: &mut PgConnection) {
        for sql in [
            "SELECT t.* FROM unnest($2::text[]) r(run) CROSS JOIN LATERAL (SELECT * FROM tasks WHERE tenant = $1 \
             AND run = r.run LIMIT 1) t",
            "SELECT g.* FROM unnest($2::text[]) r(run) CROSS JOIN LATERAL (SELECT * FROM grants WHERE tenant = $1 \
             AND run = r.run OFFSET 0) g",
        ] {
            look(sqlx::query(sql).bind("default").bind(&self.runs), db).await;
        }
        for sql in [
            "SELECT body FROM cases WHERE id = ANY(ARRAY(SELECT c.id FROM unnest($2::text[]) u(credential) CROSS JOIN LATERAL \
             (SELECT id FROM cases WHERE tenant = $1 AND credential = u.credential AND closed_ms IS NULL LIMIT 1) c)) \
             AND closed_ms IS NULL ORDER BY id FOR UPDATE",
            "SELECT c.* FROM (SELECT id FROM unnest($2::text[]) u(id) ORDER BY id OFFSET 0) i CROSS JOIN LATERAL \
             (SELECT * FROM credentials WHERE tenant = $1 AND id = i.id FOR UPDATE) c",
            "SELECT g.* FROM unnest($2::text[]) c(id) CROSS JOIN LATERAL (SELECT * FROM grants WHERE tenant = $1 \
             AND credential = c.id ORDER BY phase LIMIT 256) g",
        ] {
            look(sqlx::query(sql).bind("default").bind(&self.credentials), db).await;
        }
    }

    async fn put_events(&self, db: &mut PgConnection) {
        let sql = "INSERT INTO events (tenant, id, source, event_id, kind, topic, partition, \"offset\", broker_ms, at_ms, \
             verb, reason, facts, rules, linked, open_cases, traceparent) SELECT t, i, s, e, k, o, p, f, b, $10, v, r, fa, \
             $14, c, c, tr FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], \
             $8::bigint[], $9::bigint[], $11::text[], $12::text[], $13::text[], $15::bigint[], $16::text[]) \
             u(t, i, s, e, k, o, p, f, b, v, r, fa, c, tr)";
        let query = sqlx::query(sql)
            .bind(self.all("default"))
            .bind(&self.ids)
            .bind(self.all("/bench"))
            .bind(&self.runs)
            .bind(self.all("dev.curfew.task.started.v1"))
            .bind(self.all("curfew.tasks"))
            .bind(self.all(0_i32))
            .bind(self.all(self.now_ms))
            .bind(self.all(self.now_ms))
            .bind(self.now_ms)
            .bind(self.all("track"))
            .bind(self.all("noted"))
            .bind(self.all("{\"grants\":1}"))
            .bind("0011223344556677")
            .bind(self.all(0_i64))
            .bind(self.all(None::<String>));
        query.execute(db).await.unwrap();
    }

    async fn put_tasks(&self, db: &mut PgConnection) {
        let sql = "INSERT INTO tasks (tenant, run, source, name, identity, attempt, phase, first_seen_ms, started_ms, \
             deadline_ms, clamped_from_ms, heartbeat_every_ms, last_beat_ms, ended_ms, outcome, alive_ms, due_ms, \
             unbound, within) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], \
             $7::smallint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], \
             $14::bigint[], $15::text[], $16::bigint[], $17::bigint[], $18::boolean[], $19::text[]) ON CONFLICT (tenant, run) DO UPDATE SET \
             source=excluded.source, name=excluded.name, identity=excluded.identity, attempt=excluded.attempt, \
             phase=excluded.phase, first_seen_ms=excluded.first_seen_ms, started_ms=excluded.started_ms, \
             deadline_ms=excluded.deadline_ms, clamped_from_ms=excluded.clamped_from_ms, \
             heartbeat_every_ms=excluded.heartbeat_every_ms, last_beat_ms=excluded.last_beat_ms, \
             ended_ms=excluded.ended_ms, outcome=excluded.outcome, alive_ms=excluded.alive_ms, due_ms=excluded.due_ms, \
             unbound=excluded.unbound, within=excluded.within";
        let due_ms = self.now_ms + 86_400_000;
        let query = sqlx::query(sql)
            .bind(self.all("default"))
            .bind(&self.runs)
            .bind(self.all("/bench"))
            .bind(self.all("bench"))
            .bind(self.all("spiffe://bench/agent"))
            .bind(self.all(1_i64))
            .bind(self.all(1_i16))
            .bind(self.all(self.now_ms))
            .bind(self.all(self.now_ms))
            .bind(self.all(due_ms))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<String>))
            .bind(self.all(self.now_ms))
            .bind(self.all(due_ms))
            .bind(self.all(false))
            .bind(self.all(None::<String>));
        query.execute(db).await.unwrap();
    }

    async fn put_grants(&self, db: &mut PgConnection) {
        let sql = "INSERT INTO grants (tenant, run, credential, attempt, tenure, phase, registered_ms, topics) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::smallint[], $6::smallint[], \
             $7::bigint[], $8::text[]) ON CONFLICT (tenant, run, credential) DO UPDATE SET attempt=excluded.attempt, \
             tenure=excluded.tenure, phase=excluded.phase, registered_ms=excluded.registered_ms, topics=excluded.topics";
        let query = sqlx::query(sql)
            .bind(self.all("default"))
            .bind(&self.runs)
            .bind(&self.credentials)
            .bind(self.all(1_i64))
            .bind(self.all(0_i16))
            .bind(self.all(0_i16))
            .bind(self.all(self.now_ms))
            .bind(self.all("[\"curfew.tasks\"]"));
        query.execute(db).await.unwrap();
    }

    async fn put_credentials(&self, db: &mut PgConnection) {
        let sql = "INSERT INTO credentials (tenant, id, principal, registered_ms, seen_ms, issued_ms, expires_ms, dead_ms, \
             lookup_due_ms, version, environment, owner) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], \
             $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], \
             $11::text[], $12::text[]) ON CONFLICT (tenant, id) DO UPDATE SET \
             principal=excluded.principal, registered_ms=excluded.registered_ms, seen_ms=excluded.seen_ms, \
             issued_ms=excluded.issued_ms, expires_ms=excluded.expires_ms, dead_ms=excluded.dead_ms, version=excluded.version, \
             environment=excluded.environment, owner=excluded.owner";
        let query = sqlx::query(sql)
            .bind(self.all("default"))
            .bind(&self.credentials)
            .bind(&self.runs)
            .bind(self.all(self.now_ms))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<i64>))
            .bind(self.all(self.now_ms))
            .bind(self.all(None::<i64>))
            .bind(self.all(None::<String>))
            .bind(self.all(None::<String>));
        query.execute(db).await.unwrap();
    }
}

type Query<'a> = sqlx::query::Query<'a, sqlx::Postgres, sqlx::postgres::PgArguments>;

async fn look(query: Query<'_>, db: &mut PgConnection) -> Vec<PgRow> {
    query.fetch_all(db).await.unwrap()
}

/// One transaction for each batch; nothing is decoded or decided.
async fn bare(db: &mut PgConnection, round: usize) -> f64 {
    let batches: Vec<Rows> = (0..BATCHES).map(|batch| Rows::new(round, batch)).collect();
    let started = Instant::now();
    for rows in &batches {
        let mut tx = db.begin().await.unwrap();
        let db = &mut *tx;
        let place = "SELECT next_offset FROM positions WHERE cluster = $1 AND topic = $2 AND partition = $3 FOR UPDATE";
        look(sqlx::query(place).bind("bare").bind("curfew.tasks").bind(0_i32), db).await;
        look(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(1_i64), db).await;
        let seen = "INSERT INTO seen (hash, digest, at_ms) SELECT h, d, $3 FROM unnest($1::bytea[], $2::bytea[]) v(h, d) \
                    ON CONFLICT DO NOTHING RETURNING hash";
        look(sqlx::query(seen).bind(&rows.hashes).bind(&rows.hashes).bind(rows.now_ms), db).await;
        rows.look(db).await;
        rows.put_events(db).await;
        rows.put_tasks(db).await;
        rows.put_grants(db).await;
        rows.put_credentials(db).await;
        let place = "INSERT INTO positions (cluster, topic, partition, next_offset, last_ms, last_digest) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (cluster, topic, partition) DO UPDATE \
             SET next_offset = excluded.next_offset, last_ms = excluded.last_ms, last_digest = excluded.last_digest";
        let place = sqlx::query(place).bind("bare").bind("curfew.tasks").bind(0_i32);
        place.bind(1_i64).bind(rows.now_ms).bind(&[0_u8; 16][..]).execute(&mut *db).await.unwrap();
        let count = "UPDATE writers SET commits = commits + 1, consumed = consumed + $1, accepted = accepted + $1, \
             closed = closed + $1, tasks_live = tasks_live + $1 \
             WHERE id = '00000000-0000-4000-8000-000000000000' AND way = 0 RETURNING commits";
        look(sqlx::query(count).bind(BATCH as i64), db).await;
        tx.commit().await.unwrap();
    }
    (BATCH * BATCHES) as f64 / started.elapsed().as_secs_f64()
}

pub async fn measure(table: &mut Table) {
    eprintln!("pgintake: {PENDING} pending tasks, {} events a run, {RUNS} runs", BATCH * BATCHES);
    let (mut for_ours, mut for_bare) = (Schema::new().await, Schema::new().await);
    fill(&mut for_ours, PENDING).await;
    fill(&mut for_bare, PENDING).await;
    let mut pairs = Vec::new();
    for round in 0..RUNS {
        let ours = ours(for_ours.open().await, round).await;
        pairs.push((ours, bare(&mut for_bare.side, round).await));
    }
    table.add("task events made durable in PostgreSQL, 10 k pending", "1/s", &pairs, Goal::AtLeast(0.7));
}
