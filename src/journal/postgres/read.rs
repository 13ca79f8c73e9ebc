//! What people, metrics and roles read.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{AssertSqlSafe, FromRow, Row as _};

use super::Error;
use super::rows::{CREDENTIAL, Of, TASK, from_columns, json};
use crate::case::record::{Record, Verdict};
use crate::case::{Action, Case, CaseId};
use crate::credential::{self, CredentialId};
use crate::journal::{
    CaseLine, Cluster, Due, DueAt, EventLine, Filter, Known, MOST_UNBOUND, Outgoing, Overrun, Source, Standing, Stats,
    Timeline, UNBOUND_MS, Watermark,
};
use crate::outcome::Kind;
use crate::probe;
use crate::task::{Credential, RunKey, Task, Tenant};

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) async fn watermark(pool: &PgPool) -> Result<Watermark, Error> {
    let sql = "SELECT topic, min(greatest(last_ms, caught_up_ms)) FROM positions GROUP BY topic";
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(pool).await?;
    Ok(Watermark(rows.into_iter().collect()))
}

pub(super) async fn clusters(pool: &PgPool) -> Result<Vec<Cluster>, Error> {
    let sql = "SELECT cluster, count(*), max(greatest(last_ms, caught_up_ms)) FROM positions GROUP BY cluster \
               ORDER BY cluster";
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(sql).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(id, partitions, read_ms)| Cluster { id, partitions, read_ms }).collect())
}

impl FromRow<'_, PgRow> for Of<Due> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Of(task) = Of::<Task>::from_row(row)?;
        let at = DueAt { due_ms: row.try_get("due_ms")?, tenant: task.tenant.clone(), run: task.run.clone() };
        Ok(Self(Due { at, task }))
    }
}

pub(super) async fn due(pool: &PgPool, before_ms: i64, after: Option<&DueAt>, max: usize) -> Result<Vec<Due>, Error> {
    let (due_ms, tenant, run) = after.map_or((i64::MIN, "", ""), |at| (at.due_ms, &*at.tenant, at.run.as_str()));
    // Byte order, as everywhere else.
    let sql = format!(
        "SELECT {TASK}, due_ms FROM tasks WHERE phase < 2 AND due_ms < $1 AND (due_ms, tenant, run) > ($2, $3, $4) \
         ORDER BY due_ms, tenant, run LIMIT $5"
    );
    let rows: Vec<Of<Due>> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(before_ms)
        .bind(due_ms)
        .bind(tenant)
        .bind(run)
        .bind(count(max))
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

pub(super) async fn sources(pool: &PgPool) -> Result<Vec<Source>, Error> {
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "SELECT tenant, source, count(*), max(alive_ms) FROM tasks \
         WHERE phase < 2 AND heartbeat_every_ms IS NOT NULL GROUP BY tenant, source",
    )
    .fetch_all(pool)
    .await?;
    let source = |(tenant, source, live, last_beat_ms): (String, String, i64, i64)| Source {
        tenant: tenant.into(),
        source,
        live: live.unsigned_abs(),
        last_beat_ms,
    };
    Ok(rows.into_iter().map(source).collect())
}

/// An open case that looks at its credential by itself: one that was opened held does not.
const LOOKS: &str = "SELECT 1 FROM cases k WHERE k.tenant = c.tenant AND k.credential = c.id AND k.closed_ms IS NULL \
    AND coalesce(k.hold, '') NOT IN ('finding', 'unregistered')";

pub(super) async fn unseen(
    pool: &PgPool,
    realm: Option<&str>,
    max: usize,
    now_ms: i64,
) -> Result<Vec<Credential>, Error> {
    let sql = format!(
        "SELECT {CREDENTIAL} FROM credentials c WHERE lookup_due_ms IS NOT NULL AND lookup_due_ms <= $1 \
         AND ($3::text IS NULL OR split_part(c.id, ':', 5) = $3) \
         AND NOT EXISTS ({LOOKS}) ORDER BY lookup_due_ms LIMIT $2"
    );
    let rows: Vec<Of<Credential>> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(now_ms).bind(count(max)).bind(realm).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

impl FromRow<'_, PgRow> for Of<Known> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Of(credential) = Of::<Credential>::from_row(row)?;
        let nobody = (!row.try_get::<bool, _>("registered")?).then_some(credential.registered_ms);
        Ok(Self(Known {
            live: row.try_get("live")?,
            over_ms: row.try_get::<Option<i64>, _>("over_ms")?.or(nobody),
            open: row.try_get("open")?,
            looks: row.try_get("looks")?,
            credential,
        }))
    }
}

/// As `policy::decide` counts holders, so that what is noticed is also acted on.
pub(super) async fn known(pool: &PgPool, tenant: &Tenant, ids: &[CredentialId]) -> Result<Vec<Known>, Error> {
    let held = "FROM grants g LEFT JOIN tasks t ON t.tenant = g.tenant AND t.run = g.run \
                WHERE g.tenant = c.tenant AND g.credential = c.id";
    let sql = format!(
        "SELECT {CREDENTIAL}, \
         EXISTS (SELECT 1 {held} AND g.phase = 0 AND (t.phase IS NULL OR t.phase < 2)) AS live, \
         (SELECT max(greatest(g.registered_ms, coalesce(t.ended_ms, g.registered_ms))) {held} AND g.tenure < 2 \
          AND (g.phase > 0 OR t.phase = 2)) AS over_ms, \
         EXISTS (SELECT 1 {held}) AS registered, \
         EXISTS (SELECT 1 FROM cases k WHERE k.tenant = c.tenant AND k.credential = c.id AND k.closed_ms IS NULL) \
          AS open, EXISTS ({LOOKS}) AS looks \
         FROM credentials c WHERE c.tenant = $1 AND c.id = ANY($2)"
    );
    let rows: Vec<Of<Known>> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(&**tenant)
        .bind(ids.iter().map(CredentialId::as_str).collect::<Vec<_>>())
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

pub(super) async fn outbox(pool: &PgPool, after: i64, max: usize) -> Result<Vec<Outgoing>, Error> {
    type Row = (i64, String, String, Vec<u8>, Option<String>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT seq, kind, key, body, traceparent FROM outbox WHERE seq > $1 AND seq > (SELECT sent FROM outbox_tail) \
         ORDER BY seq LIMIT $2",
    )
    .bind(after)
    .bind(count(max))
    .fetch_all(pool)
    .await?;
    let row = |(seq, kind, key, body, traceparent): Row| {
        Ok(Outgoing { seq, kind: json::<Kind>("outbox", &kind)?, key, body, traceparent })
    };
    rows.into_iter().map(row).collect()
}

/// A case's row as people read it.
pub(super) struct Line {
    body: String,
    due_ms: i64,
    closed_ms: Option<i64>,
}
from_columns!(Line { body, due_ms, closed_ms });

impl Line {
    pub(super) fn line(self) -> Result<CaseLine, Error> {
        let case: Case = json("cases", &self.body)?;
        Ok(CaseLine { verdict: probe::standing(&case), case, closed_ms: self.closed_ms, due_ms: self.due_ms })
    }
}

/// Open cases first, newest first.
pub(super) async fn cases(pool: &PgPool, filter: &Filter) -> Result<Vec<CaseLine>, Error> {
    let limit = i64::from(filter.limit.unwrap_or(1000));
    let closed = filter.closed || filter.state.as_deref() == Some("closed");
    let mut lines = Vec::new();
    let only = "($1::text IS NULL OR credential = $1) AND ($2::text IS NULL OR run = $2) \
                AND ($3::text IS NULL OR state = $3)";
    let mut lists = vec![("closed_ms IS NULL", "opened_ms DESC, no DESC")];
    if closed {
        lists.push(("closed_ms IS NOT NULL", "closed_ms DESC"));
    }
    for (which, order) in lists {
        let sql =
            format!("SELECT body, due_ms, closed_ms FROM cases WHERE {which} AND {only} ORDER BY {order} LIMIT $4");
        let rows: Vec<Line> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(filter.credential.as_ref().map(CredentialId::as_str))
            .bind(filter.run.as_ref().map(RunKey::as_str))
            .bind(filter.state.as_deref())
            .bind(limit - count(lines.len()))
            .fetch_all(pool)
            .await?;
        for row in rows {
            lines.push(row.line()?);
        }
    }
    Ok(lines)
}

/// The first events that link to a case, at most `max`.
pub(super) async fn event(db: &mut PgConnection, id: CaseId, max: i64) -> Result<Vec<EventLine>, Error> {
    let rows = sqlx::query(
        "SELECT e.source, e.event_id, e.kind, e.verb, e.reason, e.facts, e.rules, e.broker_ms FROM links l \
         JOIN events e ON e.tenant = l.tenant AND e.id = l.event_id WHERE l.case_id = $1 ORDER BY l.event_id LIMIT $2",
    )
    .bind(id)
    .bind(max)
    .fetch_all(db)
    .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        events.push(EventLine {
            source: row.try_get(0)?,
            id: row.try_get(1)?,
            kind: row.try_get(2)?,
            verb: row.try_get(3)?,
            reason: row.try_get(4)?,
            facts: json("events", row.try_get(5)?)?,
            rules: row.try_get(6)?,
            broker_ms: row.try_get(7)?,
        });
    }
    Ok(events)
}

pub(super) async fn cases_between(pool: &PgPool, from: CaseId, to: CaseId, max: u32) -> Result<Vec<CaseId>, Error> {
    let sql = "SELECT id FROM cases WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3";
    Ok(sqlx::query_scalar(sql).bind(from).bind(to).bind(i64::from(max)).fetch_all(pool).await?)
}

pub(super) async fn timeline(pool: &PgPool, id: CaseId) -> Result<Option<Timeline>, Error> {
    let row: Option<Line> =
        sqlx::query_as("SELECT body, due_ms, closed_ms FROM cases WHERE id = $1").bind(id).fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(None) };
    let events = event(&mut *pool.acquire().await?, id, i64::MAX).await?;
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as("SELECT seq, at_ms, records FROM records WHERE case_id = $1 ORDER BY seq")
            .bind(id)
            .fetch_all(pool)
            .await?;
    let records = rows
        .into_iter()
        .map(|(seq, at, text)| Ok((seq, at, json::<Vec<Record>>("records", &text)?)))
        .collect::<Result<_, Error>>()?;
    Ok(Some(Timeline { line: row.line()?, events, records }))
}

pub(super) async fn overrun(pool: &PgPool, now_ms: i64) -> Result<Vec<Overrun>, Error> {
    let mut rows = sqlx::query(
        "SELECT c.body, t.started_ms, t.ended_ms, k.issued_ms, k.expires_ms, k.dead_ms FROM cases c \
         LEFT JOIN tasks t ON t.tenant = c.tenant AND t.run = c.run \
         LEFT JOIN credentials k ON k.tenant = c.tenant AND k.id = c.credential ORDER BY c.no",
    )
    .fetch(pool);
    let mut lines = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let case: Case = json("cases", row.try_get(0)?)?;
        if case.directive.action != Action::Revoke {
            continue;
        }
        let verdict = probe::standing(&case);
        let directive = case.directive;
        let dead_ms = match &verdict {
            Verdict::Dead { at_ms, .. } => Some(*at_ms),
            _ => row.try_get(5)?,
        };
        let task_ended_ms: Option<i64> = row.try_get::<Option<i64>, _>(2)?.or(directive.end_ms);
        let until = if verdict.closes() { dead_ms } else { Some(dead_ms.unwrap_or(now_ms)) };
        lines.push(Overrun {
            credential: directive.credential,
            run: directive.run,
            trigger: directive.trigger,
            task_started_ms: row.try_get(1)?,
            task_ended_ms,
            issued_ms: row.try_get(3)?,
            expires_ms: row.try_get(4)?,
            dead_ms,
            overrun_ms: until.zip(task_ended_ms).map(|(until, end)| until - end),
        });
    }
    Ok(lines)
}

/// Open cases that are alike.
struct Alike {
    state: String,
    hold: Option<String>,
    system: String,
    action: String,
    cases: i64,
    oldest: i64,
}
from_columns!(Alike { state, hold, system, action, cases, oldest });

/// What a worker that lives serves.
struct Serves {
    systems: BTreeSet<String>,
    actions: Option<BTreeSet<String>>,
}

impl FromRow<'_, PgRow> for Of<Serves> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let systems: Vec<String> = row.try_get(0)?;
        let actions: Option<Vec<String>> = row.try_get(1)?;
        Ok(Self(Serves {
            systems: systems.into_iter().collect(),
            actions: actions.map(|all| all.into_iter().collect()),
        }))
    }
}

/// See [`crate::journal::Journal::standing`].
pub(super) async fn standing(pool: &PgPool, max: u32) -> Result<Vec<Standing>, Error> {
    let held = "FROM grants g LEFT JOIN tasks t ON t.tenant = g.tenant AND t.run = g.run \
                WHERE g.tenant = c.tenant AND g.credential = c.id";
    let rotated =
        credential::Kind::ROTATED.map(|kind| format!("id LIKE 'urn:curfew:cred:{}:%'", kind.as_str())).join(" OR ");
    let sql = format!(
        "SELECT {CREDENTIAL}, (SELECT count(*) {held}) AS runs, \
         (SELECT count(*) {held} AND g.phase = 0 AND coalesce(t.phase, 0) < 2) AS live, \
         (SELECT max(g.registered_ms) {held}) AS last_ms \
         FROM credentials c WHERE dead_ms IS NULL AND ({rotated} OR (seen_ms IS NOT NULL AND expires_ms IS NULL \
         AND NOT EXISTS (SELECT 1 {held} AND g.tenure < 2))) ORDER BY tenant, id LIMIT $1"
    );
    let rows: Vec<Of<Standing>> = sqlx::query_as(AssertSqlSafe(sql)).bind(i64::from(max)).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

impl FromRow<'_, PgRow> for Of<Standing> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Of(credential): Of<Credential> = Of::from_row(row)?;
        let (runs, live, last_ms) = (row.try_get("runs")?, row.try_get("live")?, row.try_get("last_ms")?);
        Ok(Self(Standing { credential, runs, live, last_ms }))
    }
}

pub(super) async fn stats(pool: &PgPool, now_ms: i64) -> Result<Stats, Error> {
    // One snapshot: the counters must agree with each other.
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let counters = sqlx::query(
        "SELECT coalesce(sum(consumed), 0)::bigint, coalesce(sum(accepted), 0)::bigint, coalesce(sum(closed), 0)::bigint, \
         coalesce(sum(rejected), 0)::bigint, coalesce(sum(duplicates), 0)::bigint, \
         coalesce(sum(tasks_live), 0)::bigint, (SELECT seq - sent FROM outbox_tail) FROM writers",
    )
    .fetch_one(&mut *tx)
    .await?;
    let mut stats = Stats {
        consumed: counters.try_get(0)?,
        accepted: counters.try_get(1)?,
        closed: counters.try_get(2)?,
        rejected: counters.try_get(3)?,
        duplicates: counters.try_get(4)?,
        outbox: counters.try_get(6)?,
        ..Stats::default()
    };
    let alike: Vec<Alike> = sqlx::query_as(
        "SELECT state, hold, system, action, count(*) AS cases, min(opened_ms) AS oldest FROM cases \
         WHERE closed_ms IS NULL GROUP BY state, hold, system, action",
    )
    .fetch_all(&mut *tx)
    .await?;
    let serves: Vec<Of<Serves>> =
        sqlx::query_as("SELECT systems, actions FROM workers WHERE enforces AND until_ms > now_ms()")
            .fetch_all(&mut *tx)
            .await?;
    let mut states: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut held: BTreeMap<String, i64> = BTreeMap::new();
    for one in alike {
        let served = |Of(worker): &Of<Serves>| {
            worker.systems.contains(&one.system)
                && worker.actions.as_ref().is_none_or(|actions| actions.contains(&one.action))
        };
        if one.hold.is_none() && !serves.iter().any(served) {
            stats.unserved += one.cases;
        }
        let sum = states.entry(one.state).or_insert((0, i64::MAX));
        *sum = (sum.0 + one.cases, sum.1.min(one.oldest));
        if let Some(hold) = one.hold {
            *held.entry(hold).or_default() += one.cases;
        }
    }
    let (count, oldest): (i64, Option<i64>) =
        sqlx::query_as("SELECT count(*), min(first_ms) FROM findings WHERE phase = 0").fetch_one(&mut *tx).await?;
    stats.unmatched = count;
    let unbound = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE unbound AND ended_ms > $1 LIMIT $2) AS few";
    stats.unbound =
        sqlx::query_scalar(unbound).bind(now_ms - UNBOUND_MS).bind(MOST_UNBOUND).fetch_one(&mut *tx).await?;
    stats.oldest_unmatched_ms = oldest.map_or(0, |oldest| (now_ms - oldest).max(0));
    stats.held = held.into_iter().collect();
    for (state, (cases, oldest)) in states {
        stats.oldest_ms.push((state.clone(), (now_ms - oldest).max(0)));
        stats.cases.push((state, cases));
    }
    let passed = "SELECT count(*), min(deadline_ms) FROM tasks WHERE phase < 2 AND due_ms <= $1 AND deadline_ms <= $1";
    let (count, oldest): (i64, Option<i64>) = sqlx::query_as(passed).bind(now_ms).fetch_one(&mut *tx).await?;
    stats.deadlines_passed = count;
    stats.deadline_lag_ms = oldest.map_or(0, |oldest| (now_ms - oldest).max(0));
    let blocked = "SELECT system, reason, blocked_until_ms > $1 FROM systems WHERE reason <> '' ORDER BY system";
    stats.blocked = sqlx::query_as(blocked).bind(now_ms).fetch_all(&mut *tx).await?;
    stats.deadlines_pending = counters.try_get::<i64, _>(5)? - stats.deadlines_passed;
    tx.commit().await?;
    Ok(stats)
}
