//! What people watch: each read is by a key of an index, and bounded.

use rusqlite::{Connection, params};

use super::Error;
use super::findings;
use super::read::{event, line};
use super::rows::{self, CASE, CREDENTIAL, GRANT, TASK, all, json, one};
use crate::case::CaseId;
use crate::case::record::Record;
use crate::journal::shown::{Deaths, Excerpt, Held, Holder, Page, Place, RANK, Watched, Which};
use crate::journal::{CaseLine, Holding};

/// See [`crate::journal::Journal::watched`].
pub(super) fn watched(db: &Connection, page: &Page) -> Result<Vec<Watched>, Error> {
    let sql = format!(
        "SELECT {CASE}, id, opened_ms FROM cases INDEXED BY cases_watched WHERE closed_ms IS NULL AND ({RANK}) = ? \
         AND urgency = ? AND (opened_ms, id) > (?, ?) ORDER BY opened_ms, id LIMIT ?"
    );
    let max = usize::try_from(page.max).unwrap_or(usize::MAX);
    // One snapshot, so that a case that moves on is not shown twice.
    let tx = db.unchecked_transaction()?;
    let mut found = Vec::new();
    for (group, rank, after) in page.pieces() {
        let (opened_ms, id) = after.map_or((i64::MIN, CaseId::nil()), |at| (at.opened_ms, at.id));
        let room = i64::try_from(max - found.len()).unwrap_or(i64::MAX);
        let ids = params![group.rank(), rank.number(), opened_ms, id.as_bytes(), room];
        for (row, id, opened_ms) in
            all(&tx, &sql, ids, |row| Ok((rows::case_row(row)?, CaseId::from_bytes(row.get(3)?), row.get(4)?)))?
        {
            let at = Place { group, behind: rank.behind(), opened_ms, id };
            // The row may be behind while a case is claimed: what is shown is as new as its records.
            found.push(Watched { at, line: line(rows::stored(&tx, row)?) });
        }
        if found.len() >= max {
            break;
        }
    }
    Ok(found)
}

/// See [`crate::journal::Journal::last_closed`].
pub(super) fn last_closed(db: &Connection, max: u32) -> Result<Vec<CaseLine>, Error> {
    let sql = format!("SELECT {CASE} FROM cases WHERE closed_ms IS NOT NULL ORDER BY closed_ms DESC LIMIT ?");
    let found = all(db, &sql, [max], rows::case_row)?;
    found.into_iter().map(|row| Ok(line(rows::stored(db, row)?))).collect()
}

/// See [`crate::journal::Journal::deaths`].
pub(super) fn deaths(db: &Connection, since_ms: i64, max: u32) -> Result<Deaths, Error> {
    let sql = "SELECT body FROM cases WHERE closed_ms IS NOT NULL AND closed_ms > ? ORDER BY closed_ms DESC LIMIT ?";
    let bodies = all(db, sql, params![since_ms, max], |row| row.get::<_, String>(0))?;
    Deaths::of_bodies(&bodies).map_err(|_| Error::Corrupt { what: "cases" })
}

/// See [`crate::journal::Journal::excerpt`].
pub(super) fn excerpt(db: &Connection, id: CaseId, max: u32) -> Result<Option<Excerpt>, Error> {
    let tx = db.unchecked_transaction()?;
    let Some(stored) = rows::case_by_id(&tx, id)? else { return Ok(None) };
    let (tenant, case) = (stored.case.tenant.clone(), stored.case.clone());
    let more = usize::try_from(max).unwrap_or(usize::MAX);
    let mut events = event(&tx, &tenant, id, max.saturating_add(1))?;
    let more_events = events.len() > more;
    events.truncate(more);
    let appends = |which: &str, border: i64| -> Result<Vec<(i64, i64, Vec<Record>)>, Error> {
        let sql = format!("SELECT seq, at_ms, records FROM records WHERE tenant=? AND case_id=? AND {which} LIMIT ?");
        let found = all(&tx, &sql, params![tenant, id.as_bytes(), border, max], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })?;
        found.into_iter().map(|(seq, at_ms, text)| Ok((seq, at_ms, json("records", &text)?))).collect()
    };
    let first = appends("seq > ? ORDER BY seq", i64::MIN)?;
    let end = first.last().map_or(i64::MAX, |(seq, ..)| *seq);
    let mut last = appends("seq > ? ORDER BY seq DESC", end)?;
    last.reverse();
    let left_out = last.first().map_or(0, |(seq, ..)| (seq - end - 1).max(0));
    let finding = case.directive.finding.as_deref();
    let finding = finding.map(|finding| findings::one_by_id(&tx, &tenant, finding)).transpose()?.flatten();
    let sql = format!("SELECT {CREDENTIAL} FROM credentials WHERE tenant=? AND id=?");
    let credential = one(&tx, &sql, params![tenant, case.directive.credential.as_str()], rows::credential)?;
    Ok(Some(Excerpt { line: line(stored), events, more_events, first, left_out, last, finding, credential }))
}

/// See [`crate::journal::Journal::holders`].
pub(super) fn holders(db: &Connection, which: &Which, max: u32) -> Result<Vec<Holder>, Error> {
    // One snapshot: a task, and what it held then.
    let tx = db.unchecked_transaction()?;
    let read = |row: &rusqlite::Row<'_>| Ok((rows::task(row)?, row.get::<_, i64>("due_ms")?));
    let tasks = match which {
        Which::Next(most) => {
            let sql = format!("SELECT {TASK}, due_ms FROM tasks WHERE phase < 2 ORDER BY due_ms, tenant, run LIMIT ?");
            all(&tx, &sql, [most], read)?
        }
        Which::Run(tenant, run) => {
            let sql = format!("SELECT {TASK}, due_ms FROM tasks WHERE tenant = ? AND run = ?");
            all(&tx, &sql, params![tenant, run.as_str()], read)?
        }
    };
    let columns: Vec<String> = GRANT.split(", ").map(|column| format!("g.{column}")).collect();
    let sql = format!(
        "SELECT {}, c.principal, c.expires_ms, c.dead_ms, k.id FROM grants g \
         LEFT JOIN credentials c ON c.tenant = g.tenant AND c.id = g.credential \
         LEFT JOIN cases k ON k.tenant = g.tenant AND k.credential = g.credential AND k.closed_ms IS NULL \
         WHERE g.tenant = ? AND g.run = ? ORDER BY g.credential LIMIT ?",
        columns.join(", ")
    );
    let most = usize::try_from(max).unwrap_or(usize::MAX);
    let mut found = Vec::with_capacity(tasks.len());
    for (task, due_ms) in tasks {
        let mut holds = all(&tx, &sql, params![task.tenant, task.run.as_str(), max.saturating_add(1)], |row| {
            let (principal, expires_ms, dead_ms) = (row.get(8)?, row.get(9)?, row.get(10)?);
            let holding = Holding { grant: rows::grant(row)?, principal, expires_ms, dead_ms };
            Ok(Held { holding, case: row.get::<_, Option<[u8; 16]>>(11)?.map(CaseId::from_bytes) })
        })?;
        let more = holds.len() > most;
        holds.truncate(most);
        found.push(Holder { task, due_ms, holds, more });
    }
    Ok(found)
}
