//! Tasks for people, and for how long they live.

use std::collections::HashMap;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, FromRow, Row as _};

use super::Error;
use super::rows::{Of, TASK, texts};
use crate::journal::{Holding, Lived, LivedAt, LivedPage, Login, TaskFilter, TaskLine};
use crate::task::{Grant, RunKey, Task, Tenant};

/// See [`crate::journal::Journal::tasks`].
pub(super) async fn list(pool: &PgPool, filter: &TaskFilter) -> Result<Vec<TaskLine>, Error> {
    // One snapshot: a task, and what it held then.
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let (which, order) = match (filter.unbound, filter.ended) {
        (true, _) => ("unbound", "ended_ms DESC"),
        (false, true) => ("phase < 3", "first_seen_ms DESC"),
        (false, false) => ("phase < 2", "due_ms"),
    };
    let sql = format!(
        "SELECT {TASK} FROM tasks WHERE {which} AND ($1::text IS NULL OR source = $1) \
         AND ($2::text IS NULL OR identity = $2) ORDER BY {order}, tenant, run LIMIT $3"
    );
    let tasks: Vec<Of<Task>> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(&filter.source)
        .bind(&filter.identity)
        .bind(i64::from(filter.limit))
        .fetch_all(&mut *tx)
        .await?;
    let tasks: Vec<Task> = tasks.into_iter().map(|row| row.0).collect();
    let rows: Vec<Of<Holding>> = sqlx::query_as(
        "SELECT g.*, c.principal, c.expires_ms, c.dead_ms FROM unnest($1::text[], $2::text[]) w(tenant, run) \
         JOIN grants g ON g.tenant = w.tenant AND g.run = w.run \
         LEFT JOIN credentials c ON c.tenant = g.tenant AND c.id = g.credential ORDER BY g.registered_ms, g.credential",
    )
    .bind(texts(&tasks, |task| &*task.tenant))
    .bind(texts(&tasks, |task| task.run.as_str()))
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let mut holds: HashMap<(Tenant, RunKey), Vec<Holding>> = HashMap::new();
    for Of(holding) in rows {
        holds.entry((holding.grant.tenant.clone(), holding.grant.run.clone())).or_default().push(holding);
    }
    let line = |task: Task| {
        let holds = holds.remove(&(task.tenant.clone(), task.run.clone())).unwrap_or_default();
        TaskLine { task, holds }
    };
    Ok(tasks.into_iter().map(line).collect())
}

impl FromRow<'_, PgRow> for Of<Holding> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Of(grant): Of<Grant> = Of::from_row(row)?;
        Ok(Self(Holding {
            grant,
            principal: row.try_get("principal")?,
            expires_ms: row.try_get("expires_ms")?,
            dead_ms: row.try_get("dead_ms")?,
        }))
    }
}

/// See [`crate::journal::Journal::lived`].
pub(super) async fn lived(
    pool: &PgPool,
    since_ms: Option<i64>,
    after: Option<&LivedAt>,
    max: u32,
) -> Result<LivedPage, Error> {
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let (which, at) = if since_ms.is_some() { ("phase = 2", "ended_ms") } else { ("phase < 2", "due_ms") };
    let sql = format!(
        "SELECT {TASK}, {at} AS lived_ms FROM tasks WHERE {which} AND {at} >= $1 AND ({at}, tenant, run) > ($1, $2, $3) \
         ORDER BY {at}, tenant, run LIMIT $4"
    );
    let from_ms = after.map(|after| after.at_ms).or(since_ms).unwrap_or(i64::MIN);
    let (tenant, run) = after.map_or(("", ""), |after| (&*after.tenant, after.run.as_str()));
    let tasks: Vec<Of<(Task, i64)>> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(from_ms)
        .bind(tenant)
        .bind(run)
        .bind(i64::from(max))
        .fetch_all(&mut *tx)
        .await?;
    let tasks: Vec<(Task, i64)> = tasks.into_iter().map(|row| row.0).collect();
    let kinds = Login::KINDS.map(|kind| format!("g.credential LIKE 'urn:curfew:cred:{}:%'", kind.as_str()));
    let sql = format!(
        "SELECT g.*, c.principal, c.issued_ms FROM unnest($1::text[], $2::text[]) w(tenant, run) \
         JOIN grants g ON g.tenant = w.tenant AND g.run = w.run AND ({}) \
         LEFT JOIN credentials c ON c.tenant = g.tenant AND c.id = g.credential ORDER BY g.credential",
        kinds.join(" OR ")
    );
    let rows: Vec<Of<(Grant, Login)>> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(texts(&tasks, |(task, _)| &*task.tenant))
        .bind(texts(&tasks, |(task, _)| task.run.as_str()))
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    let next = tasks.last().filter(|_| u32::try_from(tasks.len()).is_ok_and(|len| len >= max));
    let next = next.map(|(last, at_ms)| LivedAt { at_ms: *at_ms, tenant: last.tenant.clone(), run: last.run.clone() });
    let mut logins: HashMap<(Tenant, RunKey), Vec<Login>> = HashMap::new();
    for Of((grant, login)) in rows {
        logins.entry((grant.tenant, grant.run)).or_default().push(login);
    }
    let line = |(task, _): (Task, i64)| {
        let logins = logins.remove(&(task.tenant.clone(), task.run.clone()))?;
        Some(Lived { task, logins })
    };
    Ok(LivedPage { lines: tasks.into_iter().filter_map(line).collect(), next })
}

impl FromRow<'_, PgRow> for Of<(Task, i64)> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Of(task): Of<Task> = Of::from_row(row)?;
        Ok(Self((task, row.try_get("lived_ms")?)))
    }
}

impl FromRow<'_, PgRow> for Of<(Grant, Login)> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Of(grant): Of<Grant> = Of::from_row(row)?;
        let (principal, issued_ms) = (row.try_get("principal")?, row.try_get("issued_ms")?);
        let login = Login { credential: grant.credential.clone(), tenure: grant.tenure, principal, issued_ms };
        Ok(Self((grant, login)))
    }
}
