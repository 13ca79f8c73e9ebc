//! What people, metrics and roles read, on connections of their own.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use serde::Serialize;

use super::Error;
use super::rows::{self, CASE, CREDENTIAL, TASK, all, json, one};
use crate::case::record::{Record, Verdict};
use crate::case::{Action, CaseId};
use crate::credential::{self, CredentialId};
use crate::journal::{
    CaseLine, Cluster, Due, DueAt, EventLine, Filter, Known, MOST_UNBOUND, Outgoing, Overrun, Source, Standing, Stats,
    Tail, Timeline, UNBOUND_MS, Watermark,
};
use crate::outcome::Kind;
use crate::probe;
use crate::task::{Credential, Tenant};

/// The serialized name of a plain enum.
pub(super) fn name(value: &impl Serialize) -> Result<String, Error> {
    Ok(rows::text("name", value)?.trim_matches('"').to_owned())
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn watermark(db: &Connection) -> Result<Watermark, Error> {
    let sql = "SELECT topic, min(max(last_ms, caught_up_ms)) FROM positions GROUP BY topic";
    Ok(Watermark(all(db, sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect()))
}

pub(super) fn clusters(db: &Connection) -> Result<Vec<Cluster>, Error> {
    let sql = "SELECT cluster, count(*), max(max(last_ms, caught_up_ms)) FROM positions GROUP BY cluster";
    all(db, sql, [], |row| Ok(Cluster { id: row.get(0)?, partitions: row.get(1)?, read_ms: row.get(2)? }))
}

pub(super) fn due(db: &Connection, before_ms: i64, after: Option<&DueAt>, max: usize) -> Result<Vec<Due>, Error> {
    let (due_ms, tenant, run) = after.map_or((i64::MIN, "", ""), |at| (at.due_ms, &*at.tenant, at.run.as_str()));
    let sql = format!(
        "SELECT {TASK}, due_ms FROM tasks WHERE phase < 2 AND due_ms < ? AND (due_ms, tenant, run) > (?, ?, ?) \
         ORDER BY due_ms, tenant, run LIMIT ?"
    );
    all(db, &sql, params![before_ms, due_ms, tenant, run, count(max)], |row| {
        let task = rows::task(row)?;
        let at = DueAt { due_ms: row.get("due_ms")?, tenant: task.tenant.clone(), run: task.run.clone() };
        Ok(Due { at, task })
    })
}

pub(super) fn sources(db: &Connection) -> Result<Vec<Source>, Error> {
    let sql = "SELECT tenant, source, count(*), max(alive_ms) FROM tasks \
               WHERE phase < 2 AND heartbeat_every_ms IS NOT NULL GROUP BY tenant, source";
    all(db, sql, [], |row| {
        let live: i64 = row.get(2)?;
        Ok(Source { tenant: row.get(0)?, source: row.get(1)?, live: live.unsigned_abs(), last_beat_ms: row.get(3)? })
    })
}

/// An open case that looks at its credential by itself: one that was opened held does not.
const LOOKS: &str = "SELECT 1 FROM cases k WHERE k.tenant = c.tenant AND k.credential = c.id AND k.closed_ms IS NULL \
    AND coalesce(k.hold, '') NOT IN ('finding', 'unregistered')";

pub(super) fn unseen(db: &Connection, realm: Option<&str>, max: usize, now_ms: i64) -> Result<Vec<Credential>, Error> {
    // A realm's name has none of the signs that mean something to GLOB, and the parts of an id have no colon.
    let sql = format!(
        "SELECT {CREDENTIAL} FROM credentials c WHERE lookup_due_ms IS NOT NULL AND lookup_due_ms <= ?1 \
         AND (?2 IS NULL OR c.id GLOB 'urn:curfew:cred:*:' || ?2 || ':*') \
         AND NOT EXISTS ({LOOKS}) ORDER BY lookup_due_ms LIMIT ?3"
    );
    all(db, &sql, params![now_ms, realm, count(max)], rows::credential)
}

/// As `policy::decide` counts holders, so that what is noticed is also acted on.
pub(super) fn known(db: &Connection, tenant: &Tenant, ids: &[CredentialId]) -> Result<Vec<Known>, Error> {
    let held = "FROM grants g LEFT JOIN tasks t ON t.tenant = g.tenant AND t.run = g.run \
                WHERE g.tenant = c.tenant AND g.credential = c.id";
    let sql = format!(
        "SELECT {CREDENTIAL}, \
         EXISTS (SELECT 1 {held} AND g.phase = 0 AND (t.phase IS NULL OR t.phase < 2)) AS live, \
         (SELECT max(max(g.registered_ms, coalesce(t.ended_ms, g.registered_ms))) {held} AND g.tenure < 2 \
          AND (g.phase > 0 OR t.phase = 2)) AS over_ms, \
         EXISTS (SELECT 1 {held}) AS registered, \
         EXISTS (SELECT 1 FROM cases k WHERE k.tenant = c.tenant AND k.credential = c.id AND k.closed_ms IS NULL) \
          AS open, EXISTS ({LOOKS}) AS looks \
         FROM credentials c WHERE tenant=? AND id=?"
    );
    let mut found = Vec::new();
    for id in ids {
        found.extend(one(db, &sql, params![tenant, id.as_str()], |row| {
            let credential = rows::credential(row)?;
            let nobody = (!row.get::<_, bool>("registered")?).then_some(credential.registered_ms);
            Ok(Known {
                live: row.get("live")?,
                over_ms: row.get::<_, Option<i64>>("over_ms")?.or(nobody),
                open: row.get("open")?,
                looks: row.get("looks")?,
                credential,
            })
        })?);
    }
    Ok(found)
}

pub(super) fn outbox(db: &Connection, after: i64, max: usize) -> Result<Vec<Outgoing>, Error> {
    let sent = sent(db)?;
    let sql = "SELECT seq, kind, key, body, traceparent FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?";
    let rows = all(db, sql, params![after.max(sent), count(max)], |row| {
        Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    })?;
    rows.into_iter()
        .map(|(seq, kind, key, body, traceparent)| {
            Ok(Outgoing { seq, kind: json::<Kind>("outbox", &kind)?, key, body, traceparent })
        })
        .collect()
}

fn sent(db: &Connection) -> Result<i64, Error> {
    let sent = one(db, "SELECT value FROM meta WHERE name='sent'", [], |row| row.get::<_, String>(0))?;
    Ok(sent.and_then(|n| n.parse().ok()).unwrap_or(0))
}

pub(super) fn tail(db: &Connection) -> Result<Tail, Error> {
    let id = one(db, "SELECT value FROM meta WHERE name='journal'", [], |row| row.get::<_, String>(0))?;
    let journal = id.and_then(|id| id.parse().ok()).ok_or(Error::Corrupt { what: "meta" })?;
    let seq = one(db, "SELECT max(seq) FROM outbox", [], |row| row.get::<_, Option<i64>>(0))?.flatten();
    Ok(Tail { journal, seq: seq.unwrap_or(0) })
}

pub(super) fn line(stored: rows::Stored) -> CaseLine {
    let verdict = probe::standing(&stored.case);
    CaseLine { verdict, case: stored.case, closed_ms: stored.closed_ms, due_ms: stored.due_ms }
}

/// The tenants that have an open case, by the index alone.
const EACH_TENANT: &str = " AND tenant IN (WITH RECURSIVE t(x) AS (SELECT min(tenant) FROM cases WHERE closed_ms IS NULL \
    UNION ALL SELECT (SELECT min(tenant) FROM cases WHERE closed_ms IS NULL AND tenant > x) FROM t WHERE x IS NOT NULL) \
    SELECT x FROM t WHERE x IS NOT NULL)";

/// Open cases first, newest first. Only the numbers are sorted; rows are read until there are enough.
pub(super) fn cases(db: &Connection, filter: &Filter) -> Result<Vec<CaseLine>, Error> {
    let limit = usize::try_from(filter.limit.unwrap_or(1000)).unwrap_or(usize::MAX);
    let closed = filter.closed || filter.state.as_deref() == Some("closed");
    let mut only = String::new();
    let mut values: Vec<&str> = Vec::new();
    if let Some(credential) = &filter.credential {
        only.push_str(" AND credential = ?");
        values.push(credential.as_str());
    }
    if let Some(run) = &filter.run {
        only.push_str(" AND run = ?");
        values.push(run.as_str());
    }
    // Open ones have an index by tenant and credential: each tenant is asked.
    let each = if filter.credential.is_some() { EACH_TENANT } else { "" };
    let mut lists =
        vec![format!("SELECT no FROM cases WHERE closed_ms IS NULL{each}{only} ORDER BY opened_ms DESC, no DESC")];
    if closed {
        lists.push(format!("SELECT no FROM cases WHERE closed_ms IS NOT NULL{only} ORDER BY closed_ms DESC"));
    }
    let mut lines = Vec::new();
    for sql in lists {
        let mut statement = db.prepare_cached(&sql)?;
        let mut numbers = statement.query(rusqlite::params_from_iter(&values))?;
        while lines.len() < limit
            && let Some(number) = numbers.next()?
        {
            let sql = format!("SELECT {CASE} FROM cases WHERE no=?");
            let Some(row) = one(db, &sql, [number.get::<_, i64>(0)?], rows::case_row)? else { continue };
            // The row's state may be behind while a case is claimed: it is compared with its newest records.
            let stored = rows::stored(db, row)?;
            if filter.state.as_deref().is_none_or(|state| state == stored.case.state.name()) {
                lines.push(line(stored));
            }
        }
    }
    Ok(lines)
}

/// The first events that link to a case, at most `max`.
pub(super) fn event(db: &Connection, tenant: &Tenant, id: CaseId, max: u32) -> Result<Vec<EventLine>, Error> {
    let events = all(
        db,
        "SELECT e.source, e.event_id, e.kind, e.verb, e.reason, e.facts, e.rules, e.broker_ms FROM links l \
         JOIN events e ON e.tenant = l.tenant AND e.id = l.event_id WHERE l.tenant=? AND l.case_id=? \
         ORDER BY l.event_id LIMIT ?",
        params![tenant, id.as_bytes(), max],
        |row| {
            let facts: String = row.get(5)?;
            Ok((
                EventLine {
                    source: row.get(0)?,
                    id: row.get(1)?,
                    kind: row.get(2)?,
                    verb: row.get(3)?,
                    reason: row.get(4)?,
                    facts: serde_json::Value::Null,
                    rules: row.get(6)?,
                    broker_ms: row.get(7)?,
                },
                facts,
            ))
        },
    )?;
    events.into_iter().map(|(event, facts)| Ok(EventLine { facts: json("events", &facts)?, ..event })).collect()
}

pub(super) fn cases_between(db: &Connection, from: CaseId, to: CaseId, max: u32) -> Result<Vec<CaseId>, Error> {
    let sql = "SELECT id FROM cases WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?";
    all(db, sql, params![from.as_bytes(), to.as_bytes(), max], |row| row.get(0).map(CaseId::from_bytes))
}

pub(super) fn timeline(db: &Connection, id: CaseId) -> Result<Option<Timeline>, Error> {
    let Some(stored) = rows::case_by_id(db, id)? else { return Ok(None) };
    let tenant = stored.case.tenant.clone();
    let events = event(db, &tenant, id, u32::MAX)?;
    let rows = all(
        db,
        "SELECT seq, at_ms, records FROM records WHERE tenant=? AND case_id=? ORDER BY seq",
        params![tenant, id.as_bytes()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)),
    )?;
    let records = rows
        .into_iter()
        .map(|(seq, at, text)| Ok((seq, at, json::<Vec<Record>>("records", &text)?)))
        .collect::<Result<_, Error>>()?;
    Ok(Some(Timeline { line: line(stored), events, records }))
}

pub(super) fn overrun(db: &Connection, now_ms: i64) -> Result<Vec<Overrun>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT c.body, c.due_ms, c.closed_ms, t.started_ms, t.ended_ms, k.issued_ms, k.expires_ms, k.dead_ms \
         FROM cases c LEFT JOIN tasks t ON t.tenant = c.tenant AND t.run = c.run \
         LEFT JOIN credentials k ON k.tenant = c.tenant AND k.id = c.credential ORDER BY c.no",
    )?;
    let mut rows = statement.query([])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let stored = rows::stored(db, rows::case_row(row)?)?;
        let directive = stored.case.directive.clone();
        if directive.action != Action::Revoke {
            continue;
        }
        let verdict = probe::standing(&stored.case);
        let dead_ms = match &verdict {
            Verdict::Dead { at_ms, .. } => Some(*at_ms),
            _ => row.get(7)?,
        };
        let task_ended_ms: Option<i64> = row.get::<_, Option<i64>>(4)?.or(directive.end_ms);
        let until = if verdict.closes() { dead_ms } else { Some(dead_ms.unwrap_or(now_ms)) };
        lines.push(Overrun {
            credential: directive.credential,
            run: directive.run,
            trigger: directive.trigger,
            task_started_ms: row.get(3)?,
            task_ended_ms,
            issued_ms: row.get(5)?,
            expires_ms: row.get(6)?,
            dead_ms,
            overrun_ms: until.zip(task_ended_ms).map(|(until, end)| until - end),
        });
    }
    Ok(lines)
}

/// See [`crate::journal::Journal::standing`].
pub(super) fn standing(db: &Connection, max: u32) -> Result<Vec<Standing>, Error> {
    let held = "FROM grants g LEFT JOIN tasks t ON t.tenant = g.tenant AND t.run = g.run \
                WHERE g.tenant = c.tenant AND g.credential = c.id";
    let rotated =
        credential::Kind::ROTATED.map(|kind| format!("id GLOB 'urn:curfew:cred:{}:*'", kind.as_str())).join(" OR ");
    let sql = format!(
        "SELECT {CREDENTIAL}, (SELECT count(*) {held}) AS runs, \
         (SELECT count(*) {held} AND g.phase = 0 AND coalesce(t.phase, 0) < 2) AS live, \
         (SELECT max(g.registered_ms) {held}) AS last_ms \
         FROM credentials c WHERE dead_ms IS NULL AND ({rotated} OR (seen_ms IS NOT NULL AND expires_ms IS NULL \
         AND NOT EXISTS (SELECT 1 {held} AND g.tenure < 2))) ORDER BY tenant, id LIMIT ?"
    );
    all(db, &sql, [max], |row| {
        let (runs, live, last_ms) = (row.get("runs")?, row.get("live")?, row.get("last_ms")?);
        Ok(Standing { credential: rows::credential(row)?, runs, live, last_ms })
    })
}

pub(super) fn stats(db: &Connection, now_ms: i64) -> Result<Stats, Error> {
    // One snapshot: the counters must agree with each other.
    let tx = db.unchecked_transaction()?;
    let counters: BTreeMap<String, i64> =
        all(&tx, "SELECT name, value FROM counters", [], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect();
    let counter = |name: &str| counters.get(name).copied().unwrap_or(0);
    let mut stats = Stats {
        consumed: counter("consumed"),
        accepted: counter("accepted"),
        closed: counter("closed"),
        rejected: counter("rejected"),
        duplicates: counter("duplicates"),
        ..Stats::default()
    };
    let sql = "SELECT state, hold, count(*), min(opened_ms) FROM cases WHERE closed_ms IS NULL GROUP BY state, hold";
    let mut states: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (state, hold, count, oldest) in all(&tx, sql, [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
    })? {
        let sum = states.entry(state).or_insert((0, i64::MAX));
        *sum = (sum.0 + count, sum.1.min(oldest));
        stats.held.extend(hold.map(|hold| (hold, count)));
    }
    for (state, (count, oldest)) in states {
        stats.oldest_ms.push((state.clone(), (now_ms - oldest).max(0)));
        stats.cases.push((state, count));
    }
    let passed = "SELECT count(*), min(deadline_ms) FROM tasks WHERE phase < 2 AND due_ms <= ?1 AND deadline_ms <= ?1";
    let (count, oldest): (i64, Option<i64>) =
        one(&tx, passed, [now_ms], |row| Ok((row.get(0)?, row.get(1)?)))?.unwrap_or_default();
    stats.deadlines_passed = count;
    stats.deadline_lag_ms = oldest.map_or(0, |oldest| (now_ms - oldest).max(0));
    let blocked = "SELECT system, reason, blocked_until_ms > ? FROM systems WHERE reason <> '' ORDER BY system";
    stats.blocked = all(&tx, blocked, [now_ms], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    stats.deadlines_pending = counter("tasks_live") - stats.deadlines_passed;
    let unmatched = "SELECT count(*), min(first_ms) FROM findings WHERE phase = 0";
    let (count, oldest): (i64, Option<i64>) =
        one(&tx, unmatched, [], |row| Ok((row.get(0)?, row.get(1)?)))?.unwrap_or_default();
    stats.unmatched = count;
    let unbound = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE unbound = 1 AND ended_ms > ? LIMIT ?)";
    let since = params![now_ms - UNBOUND_MS, MOST_UNBOUND];
    stats.unbound = one(&tx, unbound, since, |row| row.get(0))?.unwrap_or(0);
    stats.oldest_unmatched_ms = oldest.map_or(0, |oldest| (now_ms - oldest).max(0));
    stats.outbox = (tail(&tx)?.seq - sent(&tx)?).max(0);
    Ok(stats)
}
