//! One batch of arrivals: offsets, events, decisions, cases and rejects, in sets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::rows::{
    self, CREDENTIAL, CasePut, ClaimAfter, GRANT, Of, RecordsPut, TASK, column, name, put_credentials, put_grants,
    put_records, put_tasks, text, texts,
};
use super::{Error, Inner, Way, findings, leaving};
use crate::case::Case;
use crate::credential::CredentialId;
use crate::event::Event;
use crate::journal::draft::{Before, Draft, EventRow, Touch};
use crate::journal::{Arrival, Batch, Move, Position, Recorded};
use crate::policy::{self, View};
use crate::task::{Credential, Grant, RunKey, Task, Tenant};

/// Holders of one credential that a decision sees, those that hold it first.
const HOLDERS: i64 = 256;

/// See [`crate::journal::Journal::record_batch`].
pub(super) async fn record(inner: &Inner, batch: &Batch) -> Result<Recorded, Error> {
    inner.allow_missed(batch.rules.heartbeats_missed).await?;
    let mut tx = inner.pool.begin().await?;
    let db = &mut *tx;
    expect_positions(db, &batch.moves).await?;
    let mut events: BTreeMap<Tenant, Vec<&Event>> = BTreeMap::new();
    for arrival in &batch.arrivals {
        if let Arrival::Event(event) = arrival {
            events.entry(event.tenant.clone()).or_default().push(event);
        }
    }
    // One batch of a tenant at a time: two that decide at once could each miss what the other one is about to record,
    // and leave a credential that both of its tasks gave up.
    lock(db, inner.state.journal, events.keys()).await?;
    let mut seen = Seen::note(db, events.values().flatten().copied(), batch.now_ms).await?;
    let mut views = HashMap::new();
    for (tenant, events) in &events {
        views.insert(tenant.clone(), load(db, tenant, events).await?);
    }
    let mut draft = Draft::new(batch, &inner.ids, views);
    for arrival in &batch.arrivals {
        match arrival {
            Arrival::Reject(reject) => draft.reject(reject),
            Arrival::Event(event) => {
                let before = seen.before(event);
                draft.take(event, before).map_err(|bug| Error::Unavailable(Box::new(bug)))?;
            }
        }
    }
    write(db, batch, &mut draft).await?;
    let messages: Vec<_> = draft.messages.iter().map(|message| (message, batch.now_ms)).collect();
    inner.send(db, &messages).await?;
    let commits = inner.count(db, Way::Intake, &draft.counts).await?;
    tx.commit().await?;
    inner.acknowledge(Way::Intake, commits);
    Ok(draft.recorded())
}

/// Compare, of compare-and-set: the rows stay locked until the commit.
async fn expect_positions(db: &mut PgConnection, moves: &[Move]) -> Result<(), Error> {
    let mut sorted: Vec<&Move> = moves.iter().collect();
    sorted.sort_by_key(|step| (&step.to.cluster, &step.to.topic, step.to.partition));
    for step in sorted {
        let p = &step.to;
        let moved = || Error::PositionMoved { topic: p.topic.to_string(), partition: p.partition };
        let stands: Option<Option<i64>> = sqlx::query_scalar(
            "SELECT next_offset FROM positions WHERE cluster = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
        )
        .bind(&*p.cluster)
        .bind(&*p.topic)
        .bind(p.partition)
        .fetch_optional(&mut *db)
        .await?;
        match stands {
            Some(stands) if stands == step.from => {}
            Some(_) => return Err(moved()),
            // The first one to put the row there wins; the other one waits for it here, and then finds it moved.
            None if step.from.is_none() => {
                let put: Option<i32> = sqlx::query_scalar(
                    "INSERT INTO positions (cluster, topic, partition, last_ms, last_digest) VALUES ($1, $2, $3, 0, '') \
                     ON CONFLICT DO NOTHING RETURNING 1",
                )
                .bind(&*p.cluster)
                .bind(&*p.topic)
                .bind(p.partition)
                .fetch_optional(&mut *db)
                .await?;
                put.ok_or_else(moved)?;
            }
            None => return Err(moved()),
        }
    }
    Ok(())
}

pub(super) async fn put_positions(db: &mut PgConnection, all: &[Position]) -> Result<(), Error> {
    for p in all {
        sqlx::query(
            "INSERT INTO positions (cluster, topic, partition, next_offset, last_ms, last_digest) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (cluster, topic, partition) DO UPDATE \
             SET next_offset = excluded.next_offset, last_ms = excluded.last_ms, last_digest = excluded.last_digest",
        )
        .bind(&*p.cluster)
        .bind(&*p.topic)
        .bind(p.partition)
        .bind(p.next_offset)
        .bind(p.last_ms)
        .bind(&p.last_digest[..])
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// The tenants' intake is ours until the commit.
pub(super) async fn lock(
    db: &mut PgConnection,
    journal: Uuid,
    tenants: impl Iterator<Item = &Tenant>,
) -> Result<(), Error> {
    let keys: BTreeSet<i64> = tenants
        .map(|tenant| {
            let hash = crate::event::digest16(&[b"intake", journal.as_bytes(), tenant.as_bytes()]);
            i64::from_be_bytes(hash[..8].try_into().unwrap_or_default())
        })
        .collect();
    for key in keys {
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key).execute(&mut *db).await?;
    }
    Ok(())
}

/// Which events were seen before, in the journal or earlier in the batch.
struct Seen {
    /// With the digest of the first content.
    stored: HashMap<[u8; 16], [u8; 16]>,
}

impl Seen {
    async fn note(db: &mut PgConnection, events: impl Iterator<Item = &Event>, now_ms: i64) -> Result<Self, Error> {
        let mut firsts: HashMap<[u8; 16], [u8; 16]> = HashMap::new();
        for event in events {
            firsts.entry(event.natural_key()).or_insert(event.digest);
        }
        if firsts.is_empty() {
            return Ok(Self { stored: HashMap::new() });
        }
        let hashes: Vec<&[u8]> = firsts.keys().map(|hash| &hash[..]).collect();
        let digests: Vec<&[u8]> = firsts.values().map(|digest| &digest[..]).collect();
        let new: Vec<Vec<u8>> = sqlx::query_scalar(
            "INSERT INTO seen (hash, digest, at_ms) SELECT h, d, $3 FROM unnest($1::bytea[], $2::bytea[]) v(h, d) \
             ON CONFLICT DO NOTHING RETURNING hash",
        )
        .bind(&hashes)
        .bind(&digests)
        .bind(now_ms)
        .fetch_all(&mut *db)
        .await?;
        let mut stored = HashMap::new();
        if new.len() < hashes.len() {
            let new: HashSet<&[u8]> = new.iter().map(Vec::as_slice).collect();
            let old: Vec<&[u8]> = hashes.into_iter().filter(|hash| !new.contains(hash)).collect();
            let rows: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as("SELECT hash, digest FROM seen WHERE hash = ANY($1)")
                .bind(old)
                .fetch_all(&mut *db)
                .await?;
            for (hash, digest) in rows {
                let bad = |_| Error::Corrupt { what: "seen" };
                stored.insert(hash.try_into().map_err(bad)?, digest.try_into().map_err(bad)?);
            }
        }
        Ok(Self { stored })
    }

    fn before(&mut self, event: &Event) -> Before {
        let key = event.natural_key();
        match self.stored.get(&key) {
            Some(digest) => Before::Seen(*digest),
            None => {
                self.stored.insert(key, event.digest);
                Before::New
            }
        }
    }
}

/// Everything that decisions on a tenant's events may look at. Open cases and credentials stay locked: what executors
/// learn of them meanwhile waits, or was waited for.
///
/// Each key is looked up by itself: of `key = ANY(…)` PostgreSQL may think, where its statistics are older than the rows,
/// that to look through all rows of the tenant is cheaper.
async fn load(db: &mut PgConnection, tenant: &Tenant, events: &[&Event]) -> Result<View, Error> {
    let mut view = View::default();
    let (mut runs, mut credentials) = (HashSet::new(), BTreeSet::new());
    for event in events {
        let (run, named) = policy::keys(event);
        runs.extend(run.into_iter().chain(policy::also_run(event)));
        credentials.extend(named);
    }
    load_tasks(db, tenant, runs.iter(), &mut view).await?;
    // What comes late for a run that went on under another key is handed to that one.
    let outcomes = view.tasks.values().filter_map(|task| task.outcome.as_deref());
    let next = outcomes.filter_map(|o| o.strip_prefix("continued_as ")).map(|next| RunKey(next.into()));
    let next: Vec<RunKey> = next.filter(|run| !runs.contains(run)).collect();
    load_tasks(db, tenant, next.iter(), &mut view).await?;
    runs.extend(next);
    load_parts(db, tenant, events.iter().filter_map(|event| policy::whole_run(event)), &mut view).await?;
    let sql = format!(
        "SELECT g.* FROM unnest($2::text[]) r(run) CROSS JOIN LATERAL (SELECT {GRANT} FROM grants WHERE tenant = $1 \
         AND run = r.run OFFSET 0) g"
    );
    let grants: Vec<Of<Grant>> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(&**tenant)
        .bind(runs.iter().map(RunKey::as_str).collect::<Vec<_>>())
        .fetch_all(&mut *db)
        .await?;
    for Of(grant) in grants {
        credentials.insert(grant.credential.clone());
        view.put_grant(grant);
    }
    credentials.extend(findings::load(db, tenant, events, &mut view).await?);
    let ids: Vec<&str> = credentials.iter().map(CredentialId::as_str).collect();
    if ids.is_empty() {
        return Ok(view);
    }
    let cases: Vec<String> = sqlx::query_scalar(
        "SELECT body FROM cases WHERE id = ANY(ARRAY(SELECT c.id FROM unnest($2::text[]) u(credential) CROSS JOIN LATERAL \
         (SELECT id FROM cases WHERE tenant = $1 AND credential = u.credential AND closed_ms IS NULL LIMIT 1) c)) \
         AND closed_ms IS NULL ORDER BY id FOR UPDATE",
    )
    .bind(&**tenant)
    .bind(&ids)
    .fetch_all(&mut *db)
    .await?;
    for body in cases {
        let case: Case = rows::json("cases", &body)?;
        view.cases.insert(case.directive.credential.clone(), Arc::new(case));
    }
    let sql = format!(
        "SELECT c.* FROM (SELECT id FROM unnest($2::text[]) u(id) ORDER BY id OFFSET 0) i CROSS JOIN LATERAL \
         (SELECT {CREDENTIAL} FROM credentials WHERE tenant = $1 AND id = i.id FOR UPDATE) c"
    );
    let known: Vec<Of<Credential>> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(&**tenant).bind(&ids).fetch_all(&mut *db).await?;
    view.credentials = known.into_iter().map(|Of(known)| (known.id.clone(), known)).collect();
    let sql = format!(
        "SELECT g.* FROM unnest($2::text[]) c(id) CROSS JOIN LATERAL (SELECT {GRANT} FROM grants WHERE tenant = $1 \
         AND credential = c.id ORDER BY phase LIMIT $3) g"
    );
    let holders: Vec<Of<Grant>> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(&**tenant).bind(&ids).bind(HOLDERS).fetch_all(&mut *db).await?;
    let others: HashSet<RunKey> =
        holders.iter().map(|Of(grant)| grant.run.clone()).filter(|run| !runs.contains(run)).collect();
    load_tasks(db, tenant, others.iter(), &mut view).await?;
    holders.into_iter().for_each(|Of(grant)| view.put_grant(grant));
    Ok(view)
}

async fn load_tasks(
    db: &mut PgConnection,
    tenant: &Tenant,
    runs: impl Iterator<Item = &RunKey>,
    view: &mut View,
) -> Result<(), Error> {
    let runs: Vec<&str> = runs.map(RunKey::as_str).collect();
    if runs.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT t.* FROM unnest($2::text[]) r(run) CROSS JOIN LATERAL (SELECT {TASK} FROM tasks WHERE tenant = $1 \
         AND run = r.run LIMIT 1) t"
    );
    let tasks: Vec<Of<Task>> = sqlx::query_as(AssertSqlSafe(sql)).bind(&**tenant).bind(runs).fetch_all(db).await?;
    tasks.into_iter().for_each(|Of(task)| view.put_task(task));
    Ok(())
}

/// What is a part of these runs and lives; of those that are over, one tells that a run has parts.
async fn load_parts(
    db: &mut PgConnection,
    tenant: &Tenant,
    wholes: impl Iterator<Item = &RunKey>,
    view: &mut View,
) -> Result<(), Error> {
    let wholes: Vec<&str> = wholes.map(RunKey::as_str).collect();
    if wholes.is_empty() {
        return Ok(());
    }
    let of = |phase: &str, max: &str| {
        format!("(SELECT {TASK} FROM tasks WHERE tenant = $1 AND within = w.run AND phase {phase} LIMIT {max})")
    };
    let parts = [of("< 2", "$3"), of("= 2", "1")].join(" UNION ALL ");
    let sql = format!("SELECT p.* FROM unnest($2::text[]) w(run) CROSS JOIN LATERAL ({parts}) p");
    let parts: Vec<Of<Task>> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(&**tenant).bind(wholes).bind(policy::PARTS).fetch_all(db).await?;
    parts.into_iter().for_each(|Of(part)| view.put_task(part));
    Ok(())
}

/// Writes everything but the outbox and the counters, which come last.
async fn write(db: &mut PgConnection, batch: &Batch, draft: &mut Draft<'_>) -> Result<(), Error> {
    put_events(db, &draft.events, &batch.rules.digest(), batch.now_ms).await?;
    let records = draft.records.iter().map(|row| RecordsPut::of(row, batch.now_ms)).collect::<Result<Vec<_>, _>>()?;
    put_records(db, &records).await?;
    if !draft.links.is_empty() {
        sqlx::query(
            "INSERT INTO links (tenant, case_id, event_id) SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[])",
        )
        .bind(texts(&draft.links, |link| &*link.0))
        .bind(column(&draft.links, |link| link.1))
        .bind(column(&draft.links, |link| link.2))
        .execute(&mut *db)
        .await?;
    }
    let (mut opened, mut met) = (Vec::new(), Vec::new());
    for row in draft.cases.values() {
        let case = row.case.clone();
        match row.touch {
            Touch::Opened => {
                opened.push(CasePut { case, due_ms: None, closed_ms: None, claim: ClaimAfter::Ends });
            }
            // What the running executor appends next finds its claim void, and nothing else happens.
            Touch::Superseded => {
                met.push(CasePut { case, due_ms: Some(batch.now_ms), closed_ms: None, claim: ClaimAfter::Ends });
            }
            Touch::Joined => met.push(CasePut { case, due_ms: None, closed_ms: None, claim: ClaimAfter::Stays }),
        }
    }
    rows::insert_cases(db, &opened, batch.now_ms).await?;
    rows::update_cases(db, &met).await?;
    let changes = draft.changes();
    put_tasks(db, &changes.tasks, batch.rules.heartbeats_missed).await?;
    put_grants(db, &changes.grants).await?;
    put_credentials(db, &changes.credentials, batch.now_ms).await?;
    findings::put(db, &changes.findings, &changes.marks).await?;
    leaving::put(db, &changes.leaving).await?;
    let positions: Vec<Position> = batch.moves.iter().map(|step| step.to.clone()).collect();
    put_positions(db, &positions).await
}

async fn put_events(db: &mut PgConnection, all: &[EventRow<'_>], rules: &str, now_ms: i64) -> Result<(), Error> {
    if all.is_empty() {
        return Ok(());
    }
    let reasons = all.iter().map(|row| name(&row.decision.reason)).collect::<Result<Vec<_>, _>>()?;
    let facts = all.iter().map(|row| text("events", &row.decision.facts)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO events (tenant, id, source, event_id, kind, topic, partition, \"offset\", broker_ms, at_ms, verb, \
         reason, facts, rules, linked, open_cases, traceparent) SELECT t, i, s, e, k, o, p, f, b, $10, v, r, fa, $14, c, c, tr \
         FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::bigint[], \
         $9::bigint[], $11::text[], $12::text[], $13::text[], $15::bigint[], $16::text[]) \
         u(t, i, s, e, k, o, p, f, b, v, r, fa, c, tr)",
    )
    .bind(texts(all, |row| &*row.event.tenant))
    .bind(column(all, |row| row.id))
    .bind(texts(all, |row| &row.event.source))
    .bind(texts(all, |row| &row.event.id))
    .bind(column(all, |row| row.event.kind.as_str()))
    .bind(texts(all, |row| &*row.event.at.topic))
    .bind(column(all, |row| row.event.at.partition))
    .bind(column(all, |row| row.event.at.offset))
    .bind(column(all, |row| row.event.broker_ms))
    .bind(now_ms)
    .bind(column(all, |row| row.decision.verb.as_str()))
    .bind(reasons)
    .bind(facts)
    .bind(rules)
    .bind(column(all, |row| row.open_cases))
    .bind(all.iter().map(|row| row.event.traceparent.as_deref()).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}
