//! What is old enough goes, in batches.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;

use super::{Error, Inner, intake, trust};
use crate::journal::Old;
use crate::task::Tenant;

/// See [`crate::journal::Journal::prune`].
pub(super) async fn prune(inner: &Inner, old: Old, max: usize) -> Result<u64, Error> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mut done = 0;
    let mut db = inner.pool.acquire().await?;
    done += run(
        &mut db,
        "DELETE FROM seen WHERE hash IN (SELECT hash FROM seen WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)",
        old.seen_ms,
        max,
    )
    .await?;
    done += run(
        &mut db,
        "DELETE FROM events WHERE (tenant, id) IN (SELECT tenant, id FROM events WHERE linked = 0 AND at_ms < $1 \
         ORDER BY at_ms LIMIT $2)",
        old.events_ms,
        max - done,
    )
    .await?;
    done += run(
        &mut db,
        "WITH old AS (SELECT id FROM cases WHERE closed_ms < $1 AND closed_ms IS NOT NULL ORDER BY closed_ms LIMIT $2), \
         r AS (DELETE FROM records USING old WHERE case_id = old.id), \
         l AS (DELETE FROM links USING old WHERE case_id = old.id) \
         DELETE FROM cases USING old WHERE cases.id = old.id",
        old.closed_ms,
        max - done,
    )
    .await?;
    done += run(
        &mut db,
        "DELETE FROM findings WHERE (tenant, key) IN (SELECT tenant, key FROM findings WHERE phase > 0 AND last_ms < $1 \
         ORDER BY last_ms LIMIT $2)",
        old.closed_ms,
        max - done,
    )
    .await?;
    drop(db);
    done += tasks(inner, old.closed_ms, max - done).await?;
    let mut db = inner.pool.acquire().await?;
    done += events(&mut db, old.closed_ms, max - done).await?;
    housekeep(&mut db, old.closed_ms).await?;
    Ok(u64::try_from(done).unwrap_or(0))
}

async fn run(db: &mut PgConnection, sql: &'static str, before_ms: i64, most: i64) -> Result<i64, Error> {
    if most <= 0 {
        return Ok(0);
    }
    let done = sqlx::query(sql).bind(before_ms).bind(most).execute(db).await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}

/// Events whose cases are all closed, tenant by tenant: the ids of each grow with time, so that only what is old is read.
async fn events(db: &mut PgConnection, before_ms: i64, most: i64) -> Result<i64, Error> {
    let (mut done, mut after) = (0, None);
    while done < most {
        let sql = "SELECT tenant FROM events WHERE $1::text IS NULL OR tenant > $1 ORDER BY tenant LIMIT 1";
        let Some(tenant) = sqlx::query_scalar::<_, String>(sql).bind(after.take()).fetch_optional(&mut *db).await?
        else {
            break;
        };
        let gone = sqlx::query(
            "DELETE FROM events WHERE tenant = $3 AND id IN (SELECT id FROM events WHERE tenant = $3 AND open_cases = 0 \
             AND at_ms < $1 AND id < (lpad(to_hex(greatest($1, 0)), 12, '0') || repeat('0', 20))::uuid ORDER BY id LIMIT $2)",
        );
        let gone = gone.bind(before_ms).bind(most - done).bind(&tenant).execute(&mut *db).await?;
        done += i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX);
        after = Some(tenant);
    }
    Ok(done)
}

/// Ended tasks without an open case, with their grants and the credentials that nobody else holds and no case is about.
/// What an inventory knows stays: it says so once. While a tenant's intake stands still: it could just be opening one.
async fn tasks(inner: &Inner, before_ms: i64, most: i64) -> Result<i64, Error> {
    if most <= 0 {
        return Ok(0);
    }
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT tenant, run FROM tasks t WHERE phase = 2 AND ended_ms < $1 AND NOT EXISTS (SELECT 1 FROM grants g \
         JOIN cases c ON c.tenant = g.tenant AND c.credential = g.credential AND c.closed_ms IS NULL \
         WHERE g.tenant = t.tenant AND g.run = t.run) ORDER BY ended_ms LIMIT $2",
    )
    .bind(before_ms)
    .bind(most)
    .fetch_all(&inner.pool)
    .await?;
    let mut by_tenant: BTreeMap<Tenant, Vec<String>> = BTreeMap::new();
    for (tenant, run) in found {
        by_tenant.entry(tenant.into()).or_default().push(run);
    }
    let mut done = 0;
    for (tenant, runs) in by_tenant {
        let mut tx = inner.pool.begin().await?;
        intake::lock(&mut tx, inner.state.journal, std::iter::once(&tenant)).await?;
        let gone: i64 = sqlx::query_scalar(
            "WITH t AS (DELETE FROM tasks t WHERE tenant = $1 AND run = ANY($2) AND phase = 2 AND ended_ms < $3 \
              AND NOT EXISTS (SELECT 1 FROM grants g JOIN cases c ON c.tenant = g.tenant \
              AND c.credential = g.credential AND c.closed_ms IS NULL WHERE g.tenant = t.tenant AND g.run = t.run) \
              RETURNING run), \
             g AS (DELETE FROM grants g USING t WHERE g.tenant = $1 AND g.run = t.run RETURNING g.credential, g.run), \
             c AS (DELETE FROM credentials c WHERE c.tenant = $1 AND c.id IN (SELECT credential FROM g) \
              AND c.version IS NULL AND c.environment IS NULL AND c.owner IS NULL \
              AND NOT EXISTS (SELECT 1 FROM grants o WHERE o.tenant = $1 AND o.credential = c.id \
               AND o.run NOT IN (SELECT run FROM t)) \
              AND NOT EXISTS (SELECT 1 FROM cases k WHERE k.tenant = $1 AND k.credential = c.id AND k.closed_ms IS NULL) \
              RETURNING 1) \
             SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM g) + (SELECT count(*) FROM c)",
        )
        .bind(&*tenant)
        .bind(runs)
        .bind(before_ms)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        done += gone;
    }
    Ok(done)
}

/// Small tables that grow with time or with restarts; what they count is kept.
async fn housekeep(db: &mut PgConnection, before_ms: i64) -> Result<(), Error> {
    trust::fold(db).await?;
    sqlx::query("DELETE FROM charges WHERE minute < $1").bind(before_ms.div_euclid(60_000)).execute(&mut *db).await?;
    sqlx::query("DELETE FROM lanes WHERE until_ms < now_ms() - 86400000").execute(&mut *db).await?;
    sqlx::query(
        "DELETE FROM systems s WHERE blocked_until_ms <= $1 AND NOT EXISTS (SELECT 1 FROM cases c \
         WHERE c.system = s.system AND c.closed_ms IS NULL) AND NOT EXISTS (SELECT 1 FROM budgets b \
         WHERE b.system = s.system)",
    )
    .bind(before_ms)
    .execute(db)
    .await?;
    Ok(())
}
