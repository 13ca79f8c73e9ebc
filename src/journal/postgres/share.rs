//! What processes say to each other through the database: parts of budgets, who leads, freeze and held start.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::rows::{from_columns, json, text};
use super::{Error, Inner, State, Way, trust};
use crate::case::Action;
use crate::guard::Freeze;
use crate::journal::Worker;
use crate::limit::{self, Budget, Part, Place};

/// How often the switches are read: the truth. A notification only makes it sooner.
const LOOK: Duration = Duration::from_millis(250);
/// As of when they still count: a freeze is felt everywhere within a second.
const FRESH: Duration = Duration::from_millis(700);

/// Freeze and held start, in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Switches {
    pub(super) freeze: Option<Freeze>,
    pub(super) held: Option<String>,
}

impl State {
    /// What is known of the switches changes, as of `asked`. What was asked for later is newer, and stays. Returns what
    /// is known then.
    pub(super) fn learn(&self, change: impl FnOnce(&mut Switches), asked: Instant) -> Switches {
        let mut known = self.switches.write().unwrap_or_else(PoisonError::into_inner);
        if known.1.is_none_or(|at| at < asked) {
            change(&mut known.0);
            known.1 = Some(asked);
        }
        known.0.clone()
    }
}

/// The switches, as fresh as a guard needs them.
///
/// # Errors
/// They are not fresh, and the database does not answer: no effect may follow.
pub(super) async fn switches(inner: &Inner) -> Result<Switches, Error> {
    let known = {
        let known = inner.state.switches.read().unwrap_or_else(PoisonError::into_inner);
        known.1.filter(|at| at.elapsed() < FRESH).map(|_| known.0.clone())
    };
    let mut switches = match known {
        Some(known) => known,
        None => refresh(inner).await?,
    };
    if inner.state.has_lost() {
        switches.held.get_or_insert_with(|| trust::LOST.to_owned());
    }
    Ok(switches)
}

/// Reads the switches.
pub(super) async fn refresh(inner: &Inner) -> Result<Switches, Error> {
    let asked = Instant::now();
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT name, value FROM meta WHERE name IN ('freeze', 'started_held')")
            .fetch_all(&inner.pool)
            .await?;
    let mut read = Switches::default();
    for (name, value) in rows {
        match name.as_str() {
            "freeze" => read.freeze = Some(json::<(Freeze, String, String)>("meta", &value)?.0),
            _ => read.held = Some(value),
        }
    }
    Ok(inner.state.learn(|known| *known = read, asked))
}

/// Keeps the switches fresh, and while the journal is not healthy tries it, so that readiness returns without traffic.
pub(super) async fn watch(inner: std::sync::Arc<Inner>, channel: String, ends: CancellationToken) {
    let (mut listener, mut stayed) = (None, Instant::now());
    loop {
        if listener.is_none() {
            listener = listen(&inner, &channel).await;
        }
        let rung = async {
            match &mut listener {
                Some(ears) => ears.try_recv().await.is_ok_and(|heard| heard.is_some()),
                None => std::future::pending().await,
            }
        };
        let deaf = tokio::select! {
            () = ends.cancelled() => return,
            () = tokio::time::sleep(LOOK) => false,
            heard = rung => !heard,
        };
        if deaf {
            listener = None;
            tokio::time::sleep(LOOK).await;
        }
        let done = match refresh(&inner).await {
            Ok(_) => inner.look().await,
            Err(error) => Err(error),
        };
        if done.is_err() || !inner.state.healthy.load(Ordering::SeqCst) {
            let tried = match done {
                Ok(_) => probe(&inner).await,
                Err(error) => Err(error),
            };
            inner.wrote(tried).ok();
        }
        if stayed.elapsed() >= trust::ALIVE && inner.stay().await.is_ok() {
            stayed = Instant::now();
        }
    }
}

async fn listen(inner: &Inner, channel: &str) -> Option<PgListener> {
    let mut listener = PgListener::connect_with(&inner.pool).await.ok()?;
    listener.listen(&notices(channel)).await.ok()?;
    Some(listener)
}

fn notices(schema: &str) -> String {
    format!("curfew_{schema}")
}

/// A write that says nothing: whether it can be written.
async fn probe(inner: &Inner) -> Result<(), Error> {
    let tried = "INSERT INTO meta VALUES ('probe', '') ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    sqlx::query(tried).execute(&inner.pool).await?;
    Ok(())
}

/// Writes or deletes switches, and rings. It counts as a commit: a freeze that a failover loses is missed.
async fn switch(inner: &Inner, put: Option<(&str, String)>, by: Option<&str>) -> Result<(), Error> {
    let mut tx = inner.pool.begin().await?;
    let sql = "INSERT INTO meta VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    if let Some((name, value)) = put {
        sqlx::query(sql).bind(name).bind(value).execute(&mut *tx).await?;
    }
    if let Some(by) = by {
        sqlx::query("DELETE FROM meta WHERE name IN ('freeze', 'started_held')").execute(&mut *tx).await?;
        sqlx::query(sql).bind("released_by").bind(by).execute(&mut *tx).await?;
    }
    sqlx::query("SELECT pg_notify('curfew_' || current_schema(), '')").execute(&mut *tx).await?;
    let commits = inner.count(&mut tx, Way::Other, &BTreeMap::new()).await?;
    tx.commit().await?;
    inner.acknowledge(Way::Other, commits);
    refresh(inner).await.map(drop)
}

/// See [`crate::journal::Journal::freeze`].
pub(super) async fn freeze(inner: &Inner, how: Freeze, by: &str, reason: &str) -> Result<(), Error> {
    // Not refused for the sake of a loss that it happens to find.
    inner.look().await?;
    switch(inner, Some(("freeze", text("meta", &(how, by, reason))?)), None).await
}

/// See [`crate::journal::Journal::release`].
pub(super) async fn release(inner: &Inner, by: &str) -> Result<(), Error> {
    // Nobody releases what was not shown yet.
    if inner.look().await? {
        return Err(Error::LostCommits);
    }
    switch(inner, None, Some(by)).await
}

/// See [`crate::journal::Journal::hold_start`].
pub(super) async fn hold_start(inner: &Inner, reason: &str) -> Result<(), Error> {
    inner.look().await?;
    switch(inner, Some(("started_held", reason.to_owned())), None).await
}

/// See [`crate::journal::Journal::lead`].
pub(super) async fn lead(inner: &Inner, what: &str, worker: Uuid, lease_ms: i64) -> Result<bool, Error> {
    let leads: Option<i32> = sqlx::query_scalar(
        "INSERT INTO leaders AS l VALUES ($1, $2, now_ms() + $3) ON CONFLICT (what) DO UPDATE \
         SET worker = excluded.worker, until_ms = excluded.until_ms \
         WHERE l.worker = excluded.worker OR l.until_ms <= now_ms() RETURNING 1",
    )
    .bind(what)
    .bind(worker)
    .bind(lease_ms)
    .fetch_optional(&inner.pool)
    .await?;
    Ok(leads.is_some())
}

/// See [`crate::journal::Journal::leave`].
pub(super) async fn leave(inner: &Inner, worker: Uuid) -> Result<(), Error> {
    let mut tx = inner.pool.begin().await?;
    sqlx::query("DELETE FROM workers WHERE id = $1").bind(worker).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM leaders WHERE worker = $1").bind(worker).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// What one system's other workers have: how many they are, how many of them come first, and their parts altogether.
#[derive(Debug, Clone, Default)]
struct Others {
    system: String,
    workers: i64,
    before: i64,
    calls: i64,
    per_second: i64,
    unlimited: bool,
}
from_columns!(Others { system, workers, before, calls, per_second, unlimited });

/// See [`crate::journal::Journal::announce`].
pub(super) async fn announce(inner: &Inner, worker: &Worker, lease_ms: i64) -> Result<Vec<Part>, Error> {
    let mut tx = inner.pool.begin().await?;
    let db = &mut *tx;
    let mut systems: Vec<&str> = worker.calls.iter().map(|(system, ..)| system.as_str()).collect();
    systems.sort_unstable();
    // Who gives parts of a system away is alone with it until the commit.
    sqlx::query("INSERT INTO systems (system) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING")
        .bind(&systems)
        .execute(&mut *db)
        .await?;
    sqlx::query("SELECT 1 FROM systems WHERE system = ANY($1) ORDER BY system FOR NO KEY UPDATE")
        .bind(&systems)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM workers WHERE id IN (SELECT id FROM workers WHERE until_ms <= now_ms() AND id <> $1 \
         ORDER BY id FOR UPDATE SKIP LOCKED)",
    )
    .bind(worker.id)
    .execute(&mut *db)
    .await?;
    let serves = worker.serves.as_ref();
    let served: Vec<&str> = serves.map(|s| s.systems.iter().map(String::as_str).collect()).unwrap_or_default();
    let actions: Option<Vec<&str>> =
        serves.and_then(|s| s.actions.as_ref()).map(|all| all.iter().copied().map(Action::as_str).collect());
    sqlx::query(
        "INSERT INTO workers VALUES ($1, now_ms() + $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE \
         SET until_ms = excluded.until_ms, enforces = excluded.enforces, systems = excluded.systems, \
         actions = excluded.actions",
    )
    .bind(worker.id)
    .bind(lease_ms)
    .bind(serves.is_some())
    .bind(served)
    .bind(actions)
    .execute(&mut *db)
    .await?;
    let others: Vec<Others> = sqlx::query_as(
        "SELECT b.system, count(*) AS workers, count(*) FILTER (WHERE b.worker < $2) AS before, \
         sum(b.calls)::bigint AS calls, \
         coalesce(sum(b.per_second), 0)::bigint AS per_second, bool_or(b.per_second IS NULL) AS unlimited \
         FROM budgets b JOIN workers w ON w.id = b.worker WHERE b.system = ANY($1) AND b.worker <> $2 \
         GROUP BY b.system",
    )
    .bind(&systems)
    .bind(worker.id)
    .fetch_all(&mut *db)
    .await?;
    let others: BTreeMap<&str, &Others> = others.iter().map(|one| (one.system.as_str(), one)).collect();
    let none = Others::default();
    let narrow = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    let parts: Vec<Part> = worker
        .calls
        .iter()
        .map(|(system, whole, mine)| {
            let others = others.get(system.as_str()).copied().unwrap_or(&none);
            let used = Budget {
                calls: narrow(others.calls),
                per_second: (!others.unlimited).then(|| narrow(others.per_second)),
            };
            let place = Place { before: narrow(others.before), of: narrow(others.workers.saturating_add(1)) };
            limit::part(*whole, *mine, used, place)
        })
        .collect();
    sqlx::query(
        "INSERT INTO budgets SELECT s, $2, c, p FROM unnest($1::text[], $3::bigint[], $4::bigint[]) v(s, c, p) \
         ON CONFLICT (system, worker) DO UPDATE SET calls = excluded.calls, per_second = excluded.per_second",
    )
    .bind(worker.calls.iter().map(|(system, ..)| system.as_str()).collect::<Vec<_>>())
    .bind(worker.id)
    .bind(parts.iter().map(|part| i64::from(part.granted.calls)).collect::<Vec<_>>())
    .bind(parts.iter().map(|part| part.granted.per_second.map(i64::from)).collect::<Vec<_>>())
    .execute(&mut *db)
    .await?;
    tx.commit().await?;
    Ok(parts)
}
