//! Tasks for people.

use std::collections::HashMap;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, FromRow, Row as _};

use super::Error;
use super::rows::{Of, TASK, texts};
use crate::journal::{Holding, TaskFilter, TaskLine};
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
