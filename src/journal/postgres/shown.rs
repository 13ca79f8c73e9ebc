//! What people watch: each read is by a key of an index, and bounded.

use std::collections::HashMap;

use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{AssertSqlSafe, FromRow, Row as _};

use super::Error;
use super::read::{Line, event};
use super::rows::{CREDENTIAL, Of, TASK, json, texts};
use crate::case::CaseId;
use crate::case::record::Record;
use crate::finding::Finding;
use crate::journal::shown::{Deaths, Excerpt, Held, Holder, Page, Place, RANK, Watched, Which};
use crate::journal::{CaseLine, Holding};
use crate::task::{Credential, RunKey, Task, Tenant};

/// One snapshot for several reads.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// See [`crate::journal::Journal::watched`].
pub(super) async fn watched(pool: &PgPool, page: &Page) -> Result<Vec<Watched>, Error> {
    let sql = format!(
        "SELECT body, due_ms, closed_ms, id, opened_ms FROM cases WHERE closed_ms IS NULL AND ({RANK}) = $1 \
         AND urgency = $2 AND (opened_ms, id) > ($3, $4) ORDER BY opened_ms, id LIMIT $5"
    );
    let max = usize::try_from(page.max).unwrap_or(usize::MAX);
    // One snapshot, so that a case that moves on is not shown twice.
    let mut tx = pool.begin_with(SNAPSHOT).await?;
    let mut found = Vec::new();
    for (group, rank, after) in page.pieces() {
        let (opened_ms, id) = after.map_or((i64::MIN, CaseId::nil()), |at| (at.opened_ms, at.id));
        let rows = sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(i32::try_from(group.rank()).unwrap_or(0))
            .bind(i16::try_from(rank.number()).unwrap_or(0))
            .bind(opened_ms)
            .bind(id)
            .bind(i64::try_from(max - found.len()).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await?;
        for row in rows {
            let at =
                Place { group, behind: rank.behind(), opened_ms: row.try_get("opened_ms")?, id: row.try_get("id")? };
            found.push(Watched { at, line: Line::from_row(&row)?.line()? });
        }
        if found.len() >= max {
            break;
        }
    }
    tx.commit().await?;
    Ok(found)
}

/// See [`crate::journal::Journal::last_closed`].
pub(super) async fn last_closed(pool: &PgPool, max: u32) -> Result<Vec<CaseLine>, Error> {
    let sql = "SELECT body, due_ms, closed_ms FROM cases WHERE closed_ms IS NOT NULL ORDER BY closed_ms DESC LIMIT $1";
    let found: Vec<Line> = sqlx::query_as(sql).bind(i64::from(max)).fetch_all(pool).await?;
    found.into_iter().map(Line::line).collect()
}

/// See [`crate::journal::Journal::deaths`].
pub(super) async fn deaths(pool: &PgPool, since_ms: i64, max: u32) -> Result<Deaths, Error> {
    let sql = "SELECT body FROM cases WHERE closed_ms IS NOT NULL AND closed_ms > $1 ORDER BY closed_ms DESC LIMIT $2";
    let bodies: Vec<String> = sqlx::query_scalar(sql).bind(since_ms).bind(i64::from(max)).fetch_all(pool).await?;
    Deaths::of_bodies(&bodies).map_err(|_| Error::Corrupt { what: "cases" })
}

/// See [`crate::journal::Journal::excerpt`].
pub(super) async fn excerpt(pool: &PgPool, id: CaseId, max: u32) -> Result<Option<Excerpt>, Error> {
    let mut tx = pool.begin_with(SNAPSHOT).await?;
    let sql = "SELECT body, due_ms, closed_ms FROM cases WHERE id = $1";
    let row: Option<Line> = sqlx::query_as(sql).bind(id).fetch_optional(&mut *tx).await?;
    let Some(row) = row else { return Ok(None) };
    let line = row.line()?;
    let more = usize::try_from(max).unwrap_or(usize::MAX);
    let mut events = event(&mut tx, id, i64::from(max) + 1).await?;
    let more_events = events.len() > more;
    events.truncate(more);
    let first = appends(&mut tx, id, i64::MIN, "ORDER BY seq", max).await?;
    let end = first.last().map_or(i64::MAX, |(seq, ..)| *seq);
    let mut last = appends(&mut tx, id, end, "ORDER BY seq DESC", max).await?;
    last.reverse();
    let left_out = last.first().map_or(0, |(seq, ..)| (seq - end - 1).max(0));
    let (tenant, directive) = (&*line.case.tenant, &line.case.directive);
    let sql = "SELECT body FROM findings WHERE tenant = $1 AND key = $2";
    let body: Option<String> =
        sqlx::query_scalar(sql).bind(tenant).bind(&directive.finding).fetch_optional(&mut *tx).await?;
    let finding = body.map(|body| json::<Finding>("findings", &body)).transpose()?;
    let sql = format!("SELECT {CREDENTIAL} FROM credentials WHERE tenant = $1 AND id = $2");
    let credential: Option<Of<Credential>> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(directive.credential.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    tx.commit().await?;
    let credential = credential.map(|found| found.0);
    Ok(Some(Excerpt { line, events, more_events, first, left_out, last, finding, credential }))
}

async fn appends(
    db: &mut PgConnection,
    id: CaseId,
    behind: i64,
    order: &str,
    max: u32,
) -> Result<Vec<(i64, i64, Vec<Record>)>, Error> {
    let sql = format!("SELECT seq, at_ms, records FROM records WHERE case_id = $1 AND seq > $2 {order} LIMIT $3");
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as(AssertSqlSafe(sql)).bind(id).bind(behind).bind(i64::from(max)).fetch_all(db).await?;
    rows.into_iter().map(|(seq, at_ms, text)| Ok((seq, at_ms, json("records", &text)?))).collect()
}

/// A task, and when it needs a look.
struct Looked {
    task: Task,
    due_ms: i64,
}

impl FromRow<'_, PgRow> for Looked {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self { task: Of::<Task>::from_row(row)?.0, due_ms: row.try_get("due_ms")? })
    }
}

/// See [`crate::journal::Journal::holders`].
pub(super) async fn holders(pool: &PgPool, which: &Which, max: u32) -> Result<Vec<Holder>, Error> {
    // One snapshot: a task, and what it held then.
    let mut tx = pool.begin_with(SNAPSHOT).await?;
    let tasks: Vec<Looked> = match which {
        Which::Next(most) => {
            let sql = format!("SELECT {TASK}, due_ms FROM tasks WHERE phase < 2 ORDER BY due_ms, tenant, run LIMIT $1");
            sqlx::query_as(AssertSqlSafe(sql)).bind(i64::from(*most)).fetch_all(&mut *tx).await?
        }
        Which::Run(tenant, run) => {
            let sql = format!("SELECT {TASK}, due_ms FROM tasks WHERE tenant = $1 AND run = $2");
            sqlx::query_as(AssertSqlSafe(sql)).bind(&**tenant).bind(run.as_str()).fetch_all(&mut *tx).await?
        }
    };
    let rows = sqlx::query(
        "SELECT g.*, c.principal, c.expires_ms, c.dead_ms, k.id AS open FROM unnest($1::text[], $2::text[]) w(tenant, run) \
         CROSS JOIN LATERAL (SELECT * FROM grants WHERE tenant = w.tenant AND run = w.run ORDER BY credential LIMIT $3) g \
         LEFT JOIN LATERAL (SELECT principal, expires_ms, dead_ms FROM credentials \
         WHERE tenant = g.tenant AND id = g.credential LIMIT 1) c ON true \
         LEFT JOIN LATERAL (SELECT id FROM cases WHERE tenant = g.tenant AND credential = g.credential \
         AND closed_ms IS NULL LIMIT 1) k ON true ORDER BY g.credential",
    )
    .bind(texts(&tasks, |one| &*one.task.tenant))
    .bind(texts(&tasks, |one| one.task.run.as_str()))
    .bind(i64::from(max) + 1)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let mut all: HashMap<(Tenant, RunKey), Vec<Held>> = HashMap::new();
    for row in rows {
        let Of(holding) = Of::<Holding>::from_row(&row)?;
        let key = (holding.grant.tenant.clone(), holding.grant.run.clone());
        all.entry(key).or_default().push(Held { holding, case: row.try_get("open")? });
    }
    let most = usize::try_from(max).unwrap_or(usize::MAX);
    let holder = |Looked { task, due_ms }: Looked| {
        let mut holds = all.remove(&(task.tenant.clone(), task.run.clone())).unwrap_or_default();
        let more = holds.len() > most;
        holds.truncate(most);
        Holder { task, due_ms, holds, more }
    };
    Ok(tasks.into_iter().map(holder).collect())
}
