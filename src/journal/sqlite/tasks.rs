//! Tasks for people, and for how long they live.

use rusqlite::{Connection, params};

use super::Error;
use super::rows::{GRANT, TASK, all, grant, task};
use crate::journal::{Holding, Lived, LivedAt, LivedPage, Login, TaskFilter, TaskLine};

/// See [`crate::journal::Journal::tasks`].
pub(super) fn list(db: &Connection, filter: &TaskFilter) -> Result<Vec<TaskLine>, Error> {
    // One snapshot: a task, and what it held then.
    let tx = db.unchecked_transaction()?;
    let (which, order) = match (filter.unbound, filter.ended) {
        (true, _) => ("unbound = 1", "ended_ms DESC"),
        (false, true) => ("phase < 3", "first_seen_ms DESC"),
        (false, false) => ("phase < 2", "due_ms"),
    };
    let sql = format!(
        "SELECT {TASK} FROM tasks WHERE {which} AND (?1 IS NULL OR source = ?1) \
         AND (?2 IS NULL OR identity = ?2) ORDER BY {order}, tenant, run LIMIT ?3"
    );
    let tasks = all(&tx, &sql, params![filter.source, filter.identity, filter.limit], task)?;
    let columns: Vec<String> = GRANT.split(", ").map(|column| format!("g.{column}")).collect();
    let sql = format!(
        "SELECT {}, c.principal, c.expires_ms, c.dead_ms FROM grants g \
         LEFT JOIN credentials c ON c.tenant = g.tenant AND c.id = g.credential \
         WHERE g.tenant = ? AND g.run = ? ORDER BY g.registered_ms, g.credential",
        columns.join(", ")
    );
    let mut lines = Vec::with_capacity(tasks.len());
    for task in tasks {
        let holds = all(&tx, &sql, params![task.tenant, task.run.as_str()], |row| {
            Ok(Holding { grant: grant(row)?, principal: row.get(8)?, expires_ms: row.get(9)?, dead_ms: row.get(10)? })
        })?;
        lines.push(TaskLine { task, holds });
    }
    Ok(lines)
}

/// See [`crate::journal::Journal::lived`].
pub(super) fn lived(
    db: &Connection,
    since_ms: Option<i64>,
    after: Option<&LivedAt>,
    max: u32,
) -> Result<LivedPage, Error> {
    let tx = db.unchecked_transaction()?;
    let (which, at) = if since_ms.is_some() { ("phase = 2", "ended_ms") } else { ("phase < 2", "due_ms") };
    let sql = format!(
        "SELECT {TASK}, {at} FROM tasks WHERE {which} AND {at} >= ?1 AND ({at}, tenant, run) > (?1, ?2, ?3) \
         ORDER BY {at}, tenant, run LIMIT ?4"
    );
    let from_ms = after.map(|after| after.at_ms).or(since_ms).unwrap_or(i64::MIN);
    let (tenant, run) = after.map_or(("", ""), |after| (&*after.tenant, after.run.as_str()));
    let tasks = all(&tx, &sql, params![from_ms, tenant, run, max], |row| Ok((task(row)?, row.get::<_, i64>(18)?)))?;
    let kinds = Login::KINDS.map(|kind| format!("g.credential GLOB 'urn:curfew:cred:{}:*'", kind.as_str()));
    let columns: Vec<String> = GRANT.split(", ").map(|column| format!("g.{column}")).collect();
    let sql = format!(
        "SELECT {}, c.principal, c.issued_ms FROM grants g \
         LEFT JOIN credentials c ON c.tenant = g.tenant AND c.id = g.credential \
         WHERE g.tenant = ? AND g.run = ? AND ({}) ORDER BY g.credential",
        columns.join(", "),
        kinds.join(" OR ")
    );
    let next = tasks.last().filter(|_| u32::try_from(tasks.len()).is_ok_and(|len| len >= max));
    let next = next.map(|(last, at_ms)| LivedAt { at_ms: *at_ms, tenant: last.tenant.clone(), run: last.run.clone() });
    let mut lines = Vec::new();
    for (task, _) in tasks {
        let logins = all(&tx, &sql, params![task.tenant, task.run.as_str()], |row| {
            let grant = grant(row)?;
            let (credential, tenure) = (grant.credential, grant.tenure);
            Ok(Login { credential, tenure, principal: row.get(8)?, issued_ms: row.get(9)? })
        })?;
        if !logins.is_empty() {
            lines.push(Lived { task, logins });
        }
    }
    Ok(LivedPage { lines, next })
}
