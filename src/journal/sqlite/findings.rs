//! Findings, the fingerprints that wait for a match, and the marks that match them.

use rusqlite::{Connection, params};

use super::Error;
use super::rows::{all, exec, json, one, text};
use super::writer::Writer;
use crate::credential::CredentialId;
use crate::event::digest16;
use crate::finding::{Finding, MOST_SHARERS, MOST_WAITING, Mark, Phase};
use crate::fingerprint::Fingerprint;
use crate::journal::draft;
use crate::policy::View;
use crate::task::Tenant;

/// What findings and fingerprints are looked up by: short, since each lies on a page of its own.
fn name(tenant: &Tenant, text: &str) -> [u8; 16] {
    digest16(&[tenant.as_bytes(), text.as_bytes()])
}

/// The finding of this id.
pub(super) fn load(w: &Writer, view: &mut View, tenant: &Tenant, id: &str) -> Result<(), Error> {
    if view.findings.contains_key(id) {
        return Ok(());
    }
    let sql = "SELECT body FROM findings WHERE name=?";
    if let Some(body) = one(&w.db, sql, [name(tenant, id)], |row| row.get::<_, String>(0))? {
        view.put_finding(json("findings", &body)?);
    }
    Ok(())
}

/// The finding of this id, for people.
pub(super) fn one_by_id(db: &Connection, tenant: &Tenant, id: &str) -> Result<Option<Finding>, Error> {
    let body = one(db, "SELECT body FROM findings WHERE name=?", [name(tenant, id)], |row| row.get::<_, String>(0))?;
    body.map(|body| json("findings", &body)).transpose()
}

/// What is known by this fingerprint, once for each batch: whose value has it, and which findings wait for it.
pub(super) fn load_marks(
    w: &Writer,
    view: &mut View,
    tenant: &Tenant,
    fingerprint: &Fingerprint,
) -> Result<Vec<CredentialId>, Error> {
    let name = name(tenant, &fingerprint.to_string());
    let sql = "SELECT credential, max(version) FROM marks WHERE name=? GROUP BY credential ORDER BY credential LIMIT ?";
    let rows = all(&w.db, sql, params![name, MOST_SHARERS], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let mut credentials = Vec::with_capacity(rows.len());
    for (credential, version) in rows {
        let credential = CredentialId::parse(&credential).map_err(|_| Error::Corrupt { what: "marks" })?;
        let (tenant, fingerprint) = (tenant.clone(), fingerprint.clone());
        credentials.push(credential.clone());
        view.put_mark(Mark { tenant, fingerprint, credential, version });
    }
    let sql = "SELECT f.key FROM waiting w JOIN findings f ON f.id = w.finding WHERE w.name=? LIMIT ?";
    for key in all(&w.db, sql, params![name, MOST_WAITING], |row| row.get::<_, String>(0))? {
        load(w, view, tenant, &key)?;
    }
    Ok(credentials)
}

/// See [`crate::journal::Journal::findings`].
pub(super) fn list(db: &Connection, unmatched: bool, max: u32) -> Result<Vec<Finding>, Error> {
    let sql = if unmatched {
        "SELECT body FROM findings WHERE phase = 0 ORDER BY first_ms LIMIT ?"
    } else {
        "SELECT body FROM findings ORDER BY last_ms DESC LIMIT ?"
    };
    let bodies = all(db, sql, params![max], |row| row.get::<_, String>(0))?;
    bodies.iter().map(|body| json("findings", body)).collect()
}

/// See [`crate::journal::Journal::matched`].
pub(super) fn matched(
    db: &Connection,
    prefix: &str,
    (ms, id): &(i64, String),
    max: u32,
) -> Result<Vec<Finding>, Error> {
    let own = draft::only_own(prefix);
    let sql = format!(
        "SELECT body FROM findings WHERE phase > 0 AND phase = 1{own} AND last_ms >= ? AND (last_ms, key) > (?, ?) \
         AND substr(key, 1, length(?)) = ? ORDER BY last_ms, key LIMIT ?"
    );
    let bodies = all(db, &sql, params![ms, ms, id, prefix, prefix, max], |row| row.get::<_, String>(0))?;
    bodies.iter().map(|body| json("findings", body)).collect()
}

/// Writes findings and marks.
pub(super) fn put(w: &Writer, findings: &[Finding], marks: &[Mark]) -> Result<(), Error> {
    for finding in findings {
        let (tenant, id) = (&finding.tenant, finding.id());
        let row: Option<i64> = one(
            &w.db,
            "INSERT INTO findings (name, tenant, key, phase, first_ms, last_ms, body) VALUES (?,?,?,?,?,?,?) ON CONFLICT DO \
             UPDATE SET phase=excluded.phase, first_ms=excluded.first_ms, last_ms=excluded.last_ms, body=excluded.body \
             RETURNING id",
            params![
                name(tenant, &id),
                tenant,
                id,
                finding.phase.code(),
                finding.first_ms,
                finding.last_ms,
                text("findings", finding)?
            ],
            |row| row.get(0),
        )?;
        for fingerprint in &finding.fingerprints {
            let sql = if finding.phase == Phase::Unmatched {
                "INSERT INTO waiting (name, finding) VALUES (?,?) ON CONFLICT DO NOTHING"
            } else {
                "DELETE FROM waiting WHERE name=? AND finding=?"
            };
            exec(&w.db, sql, params![name(tenant, &fingerprint.to_string()), row])?;
        }
    }
    for mark in marks {
        exec(
            &w.db,
            "INSERT INTO marks (name, credential, version) VALUES (?,?,?) ON CONFLICT DO NOTHING",
            params![name(&mark.tenant, &mark.fingerprint.to_string()), mark.credential.as_str(), mark.version],
        )?;
    }
    Ok(())
}
