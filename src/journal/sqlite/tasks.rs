//! Tasks for people.

use rusqlite::{Connection, params};

use super::Error;
use super::rows::{GRANT, TASK, all, grant, task};
use crate::journal::{Holding, TaskFilter, TaskLine};

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
