//! Who leaves, and the fences that stand.

use rusqlite::{Connection, params};

use super::Error;
use super::rows::{all, exec, json, text};
use crate::case::record::Record;
use crate::case::{Case, CaseId};
use crate::journal::draft;
use crate::offboard::{Minded, Offboarding};
use crate::policy::Change;
use crate::scope::Fence;

/// What a batch said of who leaves, in its order.
pub(super) fn put(db: &Connection, changes: &[Change]) -> Result<(), Error> {
    for change in changes {
        match change {
            Change::Offboarded(one) => {
                let sql = "INSERT INTO offboardings (tenant, node, topic, since_ms, body) VALUES (?,?,?,?,?) \
                           ON CONFLICT DO UPDATE SET since_ms=excluded.since_ms, body=excluded.body";
                let body = text("offboardings", one)?;
                exec(db, sql, params![one.tenant, one.node.to_string(), one.topic, one.since_ms, body])?;
            }
            Change::Onboarded(tenant, node) => {
                exec(db, "DELETE FROM offboardings WHERE tenant=? AND node=?", params![tenant, node.to_string()])?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The fence that an append begins to set, or one that was given back with it.
pub(super) fn note(db: &Connection, case: &Case, records: &[Record]) -> Result<(), Error> {
    if let Some(fence) = draft::fence(case, records) {
        let sql = "INSERT INTO fences (case_id, until_ms, body) VALUES (?,?,?) ON CONFLICT DO NOTHING";
        exec(db, sql, params![fence.case.as_bytes(), fence.until_ms, text("fences", &fence)?])?;
    }
    match draft::lifted(case, records) {
        Some(case) => forget(db, case),
        None => Ok(()),
    }
}

fn forget(db: &Connection, case: CaseId) -> Result<(), Error> {
    exec(db, "DELETE FROM fences WHERE case_id=?", params![case.as_bytes()]).map(drop)
}

/// See [`crate::journal::Journal::offboardings`].
pub(super) fn offboardings(db: &Connection, max: u32) -> Result<Vec<Offboarding>, Error> {
    let sql = "SELECT body FROM offboardings ORDER BY since_ms, tenant, node, topic LIMIT ?";
    let bodies = all(db, sql, [max], |row| row.get::<_, String>(0))?;
    bodies.iter().map(|body| json("offboardings", body)).collect()
}

/// See [`crate::journal::Journal::mind_offboardings`].
pub(super) fn mind(db: &Connection, minded: &[Minded]) -> Result<u64, Error> {
    let mut done = 0;
    for (before, after) in minded {
        let (node, stands) = (before.node.to_string(), text("offboardings", before)?);
        done += match after {
            Some(after) => {
                let sql = "UPDATE offboardings SET body=? WHERE tenant=? AND node=? AND topic=? AND body=?";
                let body = text("offboardings", after)?;
                exec(db, sql, params![body, before.tenant, node, before.topic, stands])?
            }
            None => {
                let sql = "DELETE FROM offboardings WHERE tenant=? AND node=? AND topic=? AND body=?";
                exec(db, sql, params![before.tenant, node, before.topic, stands])?
            }
        };
    }
    Ok(u64::try_from(done).unwrap_or(u64::MAX))
}

/// See [`crate::journal::Journal::fences`].
pub(super) fn fences(db: &Connection, before_ms: i64, max: u32) -> Result<Vec<Fence>, Error> {
    let sql = "SELECT body FROM fences WHERE until_ms<=? ORDER BY until_ms, case_id LIMIT ?";
    let bodies = all(db, sql, params![before_ms, max], |row| row.get::<_, String>(0))?;
    bodies.iter().map(|body| json("fences", body)).collect()
}
