//! Findings, the fingerprints that wait for a match, and the marks that match them, in sets.

use std::collections::{BTreeSet, HashMap};

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgPool};

use super::Error;
use super::rows::{column, json, text, texts};
use crate::credential::CredentialId;
use crate::event::{Event, digest16};
use crate::finding::{Finding, MOST_SHARERS, MOST_WAITING, Mark, Phase};
use crate::fingerprint::Fingerprint;
use crate::journal::draft;
use crate::policy::{self, View};
use crate::task::Tenant;

/// What a fingerprint is looked up by.
fn name(tenant: &Tenant, fingerprint: &Fingerprint) -> Vec<u8> {
    digest16(&[tenant.as_bytes(), fingerprint.to_string().as_bytes()]).to_vec()
}

/// What the batch's events may look at of findings; returns the credentials that it leads to.
pub(super) async fn load(
    db: &mut PgConnection,
    tenant: &Tenant,
    events: &[&Event],
    view: &mut View,
) -> Result<BTreeSet<CredentialId>, Error> {
    let (mut keys, mut marks) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        let (key, fingerprints) = policy::finding_keys(event);
        keys.extend(key);
        marks.extend(fingerprints);
    }
    let mut credentials = BTreeSet::new();
    if !marks.is_empty() {
        let names: HashMap<Vec<u8>, &Fingerprint> = marks.iter().map(|mark| (name(tenant, mark), mark)).collect();
        let rows: Vec<(Vec<u8>, String, i64)> = sqlx::query_as(
            "SELECT f.name, m.credential, m.version FROM unnest($1::bytea[]) f(name) CROSS JOIN LATERAL (SELECT credential, \
             max(version) AS version FROM marks WHERE name = f.name GROUP BY credential ORDER BY credential LIMIT $2) m",
        )
        .bind(names.keys().map(Vec::as_slice).collect::<Vec<_>>())
        .bind(MOST_SHARERS)
        .fetch_all(&mut *db)
        .await?;
        for (name, credential, version) in rows {
            let (Some(fingerprint), Ok(credential)) = (names.get(&name), CredentialId::parse(&credential)) else {
                return Err(Error::Corrupt { what: "marks" });
            };
            credentials.insert(credential.clone());
            let (tenant, fingerprint) = (tenant.clone(), (*fingerprint).clone());
            view.put_mark(Mark { tenant, fingerprint, credential, version });
        }
        let waiting: Vec<String> = sqlx::query_scalar(
            "SELECT w.key FROM unnest($2::text[]) f(name) CROSS JOIN LATERAL (SELECT key FROM waiting \
             WHERE tenant = $1 AND fingerprint = f.name LIMIT $3) w",
        )
        .bind(&**tenant)
        .bind(marks.iter().map(Fingerprint::to_string).collect::<Vec<_>>())
        .bind(MOST_WAITING)
        .fetch_all(&mut *db)
        .await?;
        keys.extend(waiting);
    }
    if !keys.is_empty() {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let bodies: Vec<String> = sqlx::query_scalar(
            "SELECT f.body FROM unnest($2::text[]) k(key) CROSS JOIN LATERAL (SELECT body FROM findings \
             WHERE tenant = $1 AND key = k.key LIMIT 1) f",
        )
        .bind(&**tenant)
        .bind(keys)
        .fetch_all(db)
        .await?;
        for body in bodies {
            let finding: Finding = json("findings", &body)?;
            credentials.extend(finding.credentials.iter().cloned());
            view.put_finding(finding);
        }
    }
    Ok(credentials)
}

/// See [`crate::journal::Journal::findings`].
pub(super) async fn list(pool: &PgPool, unmatched: bool, max: u32) -> Result<Vec<Finding>, Error> {
    let sql = if unmatched {
        "SELECT body FROM findings WHERE phase = 0 ORDER BY first_ms LIMIT $1"
    } else {
        "SELECT body FROM findings ORDER BY last_ms DESC LIMIT $1"
    };
    let bodies: Vec<String> = sqlx::query_scalar(sql).bind(i64::from(max)).fetch_all(pool).await?;
    bodies.iter().map(|body| json("findings", body)).collect()
}

/// See [`crate::journal::Journal::matched`].
pub(super) async fn matched(
    pool: &PgPool,
    prefix: &str,
    (ms, id): &(i64, String),
    max: u32,
) -> Result<Vec<Finding>, Error> {
    let own = draft::only_own(prefix);
    let sql = format!(
        "SELECT body FROM findings WHERE phase > 0 AND phase = 1{own} AND (last_ms, key COLLATE \"C\") > ($1, $2) \
         AND starts_with(key, $3) ORDER BY last_ms, key COLLATE \"C\" LIMIT $4"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(ms).bind(id).bind(prefix).bind(i64::from(max));
    let bodies: Vec<String> = query.fetch_all(pool).await?;
    bodies.iter().map(|body| json("findings", body)).collect()
}

/// Writes findings and marks.
pub(super) async fn put(db: &mut PgConnection, findings: &[Finding], marks: &[Mark]) -> Result<(), Error> {
    if !findings.is_empty() {
        let bodies = findings.iter().map(|f| text("findings", f)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<String> = findings.iter().map(Finding::id).collect();
        sqlx::query(
            "INSERT INTO findings (tenant, key, phase, first_ms, last_ms, body) SELECT * FROM unnest($1::text[], $2::text[], \
             $3::smallint[], $4::bigint[], $5::bigint[], $6::text[]) ON CONFLICT (tenant, key) DO UPDATE \
             SET phase=excluded.phase, first_ms=excluded.first_ms, last_ms=excluded.last_ms, body=excluded.body",
        )
        .bind(texts(findings, |f| &*f.tenant))
        .bind(&ids)
        .bind(column(findings, |f| f.phase.code()))
        .bind(column(findings, |f| f.first_ms))
        .bind(column(findings, |f| f.last_ms))
        .bind(bodies)
        .execute(&mut *db)
        .await?;
        let of = |waits: bool| {
            let those = findings.iter().filter(move |f| (f.phase == Phase::Unmatched) == waits);
            let each = |f: &Finding| {
                let (tenant, id) = (f.tenant.clone(), f.id());
                f.fingerprints.iter().map(move |one| (tenant.clone(), one.to_string(), id.clone())).collect::<Vec<_>>()
            };
            those.flat_map(each).collect::<Vec<_>>()
        };
        let (waits, over) = (of(true), of(false));
        for (rows, sql) in [
            (
                waits,
                "INSERT INTO waiting (tenant, fingerprint, key) SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) \
                 ON CONFLICT DO NOTHING",
            ),
            (
                over,
                "DELETE FROM waiting w USING unnest($1::text[], $2::text[], $3::text[]) v(tenant, fingerprint, key) \
                 WHERE w.tenant = v.tenant AND w.fingerprint = v.fingerprint AND w.key = v.key",
            ),
        ] {
            if !rows.is_empty() {
                sqlx::query(sql)
                    .bind(texts(&rows, |row| &*row.0))
                    .bind(texts(&rows, |row| &row.1))
                    .bind(texts(&rows, |row| &row.2))
                    .execute(&mut *db)
                    .await?;
            }
        }
    }
    if !marks.is_empty() {
        sqlx::query(
            "INSERT INTO marks (name, credential, version) SELECT * FROM unnest($1::bytea[], $2::text[], $3::bigint[]) \
             ON CONFLICT DO NOTHING",
        )
        .bind(column(marks, |m| name(&m.tenant, &m.fingerprint)))
        .bind(texts(marks, |m| m.credential.as_str()))
        .bind(column(marks, |m| m.version))
        .execute(db)
        .await?;
    }
    Ok(())
}
