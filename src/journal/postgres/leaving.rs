//! Who leaves, and the fences that stand.

use sqlx::postgres::{PgConnection, PgPool};

use super::Error;
use super::rows::{column, json, text, texts};
use crate::case::CaseId;
use crate::offboard::{Minded, Offboarding};
use crate::policy::Change;
use crate::scope::Fence;

/// What a batch said of who leaves, in its order: it is rare.
pub(super) async fn put(db: &mut PgConnection, changes: &[Change]) -> Result<(), Error> {
    for change in changes {
        match change {
            Change::Offboarded(one) => {
                sqlx::query(
                    "INSERT INTO offboardings (tenant, node, topic, since_ms, body) VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (tenant, node, topic) DO UPDATE SET since_ms = excluded.since_ms, body = excluded.body",
                )
                .bind(&*one.tenant)
                .bind(one.node.to_string())
                .bind(&one.topic)
                .bind(one.since_ms)
                .bind(text("offboardings", one)?)
                .execute(&mut *db)
                .await?;
            }
            Change::Onboarded(tenant, node) => {
                sqlx::query("DELETE FROM offboardings WHERE tenant = $1 AND node = $2")
                    .bind(&**tenant)
                    .bind(node.to_string())
                    .execute(&mut *db)
                    .await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The fences that a group of appends begins to set, and those that were given back with it.
pub(super) async fn note(db: &mut PgConnection, fences: &[Fence], lifted: &[CaseId]) -> Result<(), Error> {
    if !fences.is_empty() {
        let bodies = fences.iter().map(|fence| text("fences", fence)).collect::<Result<Vec<String>, _>>()?;
        sqlx::query(
            "INSERT INTO fences (case_id, until_ms, body) SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[]) \
             ON CONFLICT (case_id) DO NOTHING",
        )
        .bind(column(fences, |fence| fence.case))
        .bind(column(fences, |fence| fence.until_ms))
        .bind(texts(&bodies, String::as_str))
        .execute(&mut *db)
        .await?;
    }
    if !lifted.is_empty() {
        sqlx::query("DELETE FROM fences WHERE case_id = ANY($1)").bind(lifted).execute(&mut *db).await?;
    }
    Ok(())
}

/// See [`crate::journal::Journal::offboardings`].
pub(super) async fn offboardings(pool: &PgPool, max: u32) -> Result<Vec<Offboarding>, Error> {
    let sql = "SELECT body FROM offboardings ORDER BY since_ms, tenant, node, topic LIMIT $1";
    let bodies: Vec<String> = sqlx::query_scalar(sql).bind(i64::from(max)).fetch_all(pool).await?;
    bodies.iter().map(|body| json("offboardings", body)).collect()
}

/// See [`crate::journal::Journal::mind_offboardings`].
pub(super) async fn mind(pool: &PgPool, minded: &[Minded]) -> Result<u64, Error> {
    let mut done = 0;
    for (before, after) in minded {
        let sql = match after {
            Some(_) => "UPDATE offboardings SET body = $5 WHERE tenant = $1 AND node = $2 AND topic = $3 AND body = $4",
            None => "DELETE FROM offboardings WHERE tenant = $1 AND node = $2 AND topic = $3 AND body = $4",
        };
        let (node, stands) = (before.node.to_string(), text("offboardings", before)?);
        let mut query = sqlx::query(sql).bind(&*before.tenant).bind(node).bind(&before.topic).bind(stands);
        if let Some(after) = after {
            query = query.bind(text("offboardings", after)?);
        }
        done += query.execute(pool).await?.rows_affected();
    }
    Ok(done)
}

/// See [`crate::journal::Journal::fences`].
pub(super) async fn fences(pool: &PgPool, before_ms: i64, max: u32) -> Result<Vec<Fence>, Error> {
    let sql = "SELECT body FROM fences WHERE until_ms <= $1 ORDER BY until_ms, case_id LIMIT $2";
    let bodies: Vec<String> = sqlx::query_scalar(sql).bind(before_ms).bind(i64::from(max)).fetch_all(pool).await?;
    bodies.iter().map(|body| json("fences", body)).collect()
}
