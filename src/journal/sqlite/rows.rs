//! Rows to values and back: tasks, grants, credentials, positions, cases.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;

use super::Error;
use crate::case::record::{Observation, Presence, Record};
use crate::case::state::Phase as CasePhase;
use crate::case::{Case, CaseId};
use crate::credential::CredentialId;
use crate::journal::Position;
use crate::task::{Boundary, Credential, Grant, GrantPhase, Phase, RunKey, Task, Tenant, Tenure};

/// Runs a cached statement.
pub(super) fn exec(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize, Error> {
    Ok(db.prepare_cached(sql)?.execute(params)?)
}

/// The first row of a cached query.
pub(super) fn one<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, Error> {
    Ok(db.prepare_cached(sql)?.query_row(params, read).optional()?)
}

/// All rows of a cached query.
pub(super) fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?.collect::<rusqlite::Result<Vec<T>>>()?;
    Ok(rows)
}

/// Reads JSON that this journal wrote.
pub(super) fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|_| Error::Corrupt { what })
}

/// Writes JSON.
pub(super) fn text(what: &'static str, value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Corrupt { what })
}

fn credential_id(text: &str) -> rusqlite::Result<CredentialId> {
    CredentialId::parse(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

fn boundary(text: &str) -> rusqlite::Result<Boundary> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(17, rusqlite::types::Type::Text, Box::new(e)))
}

pub(super) const TASK: &str = "tenant, run, source, within, name, identity, attempt, phase, first_seen_ms, started_ms, \
    deadline_ms, clamped_from_ms, heartbeat_every_ms, last_beat_ms, ended_ms, outcome, unbound, boundary";

pub(super) fn task(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        tenant: row.get(0)?,
        run: RunKey(row.get(1)?),
        source: row.get(2)?,
        within: row.get::<_, Option<Arc<str>>>(3)?.map(RunKey),
        name: row.get(4)?,
        identity: row.get(5)?,
        attempt: row.get(6)?,
        phase: match row.get::<_, i64>(7)? {
            0 => Phase::Expected,
            1 => Phase::Running,
            _ => Phase::Ended,
        },
        first_seen_ms: row.get(8)?,
        started_ms: row.get(9)?,
        deadline_ms: row.get(10)?,
        clamped_from_ms: row.get(11)?,
        heartbeat_every_ms: row.get(12)?,
        last_beat_ms: row.get(13)?,
        ended_ms: row.get(14)?,
        outcome: row.get(15)?,
        unbound: row.get(16)?,
        boundary: row.get::<_, Option<String>>(17)?.map(|text| boundary(&text)).transpose()?,
    })
}

pub(super) fn put_task(db: &Connection, task: &Task, missed: u32) -> Result<(), Error> {
    let phase = match task.phase {
        Phase::Expected => 0,
        Phase::Running => 1,
        Phase::Ended => 2,
    };
    let alive = task.last_beat_ms.or(task.started_ms).unwrap_or(task.first_seen_ms);
    let due = task.due_ms(missed).unwrap_or(task.deadline_ms);
    exec(
        db,
        "INSERT INTO tasks (tenant, run, source, within, name, identity, attempt, phase, first_seen_ms, started_ms, deadline_ms, \
         clamped_from_ms, heartbeat_every_ms, last_beat_ms, ended_ms, outcome, unbound, alive_ms, due_ms, boundary) \
         VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET \
         source=excluded.source, within=excluded.within, name=excluded.name, identity=excluded.identity, \
         attempt=excluded.attempt, \
         phase=excluded.phase, first_seen_ms=excluded.first_seen_ms, started_ms=excluded.started_ms, \
         deadline_ms=excluded.deadline_ms, clamped_from_ms=excluded.clamped_from_ms, \
         heartbeat_every_ms=excluded.heartbeat_every_ms, last_beat_ms=excluded.last_beat_ms, \
         ended_ms=excluded.ended_ms, outcome=excluded.outcome, unbound=excluded.unbound, \
         alive_ms=excluded.alive_ms, due_ms=excluded.due_ms, boundary=excluded.boundary",
        params![
            task.tenant,
            task.run.as_str(),
            task.source,
            task.within.as_ref().map(RunKey::as_str),
            task.name,
            task.identity,
            task.attempt,
            phase,
            task.first_seen_ms,
            task.started_ms,
            task.deadline_ms,
            task.clamped_from_ms,
            task.heartbeat_every_ms,
            task.last_beat_ms,
            task.ended_ms,
            task.outcome,
            task.unbound,
            alive,
            due,
            task.boundary.as_ref().map(|boundary| text("tasks", boundary)).transpose()?,
        ],
    )?;
    Ok(())
}

pub(super) const GRANT: &str = "tenant, run, credential, attempt, tenure, phase, registered_ms, topics";

pub(super) fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        tenant: row.get(0)?,
        run: RunKey(row.get(1)?),
        credential: credential_id(row.get_ref(2)?.as_str()?)?,
        attempt: row.get(3)?,
        tenure: match row.get::<_, i64>(4)? {
            0 => Tenure::Minted,
            1 => Tenure::Exclusive,
            _ => Tenure::Standing,
        },
        phase: match row.get::<_, i64>(5)? {
            0 => GrantPhase::Held,
            1 => GrantPhase::Released,
            _ => GrantPhase::Cut,
        },
        registered_ms: row.get(6)?,
        topics: names(row.get_ref(7)?.as_str()?)?,
    })
}

/// A JSON list of names.
fn names(text: &str) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

pub(super) fn put_grant(db: &Connection, grant: &Grant) -> Result<(), Error> {
    let tenure = match grant.tenure {
        Tenure::Minted => 0,
        Tenure::Exclusive => 1,
        Tenure::Standing => 2,
    };
    let phase = match grant.phase {
        GrantPhase::Held => 0,
        GrantPhase::Released => 1,
        GrantPhase::Cut => 2,
    };
    exec(
        db,
        "INSERT INTO grants (tenant, run, credential, attempt, tenure, phase, registered_ms, topics) \
         VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET attempt=excluded.attempt, tenure=excluded.tenure, phase=excluded.phase, \
         registered_ms=excluded.registered_ms, topics=excluded.topics",
        params![
            grant.tenant,
            grant.run.as_str(),
            grant.credential.as_str(),
            grant.attempt,
            tenure,
            phase,
            grant.registered_ms,
            text("grants", &grant.topics)?
        ],
    )?;
    Ok(())
}

pub(super) const CREDENTIAL: &str = "tenant, id, principal, registered_ms, seen_ms, issued_ms, expires_ms, dead_ms, version, \
    environment, owner, blast";

pub(super) fn credential(row: &Row<'_>) -> rusqlite::Result<Credential> {
    Ok(Credential {
        tenant: row.get(0)?,
        id: credential_id(row.get_ref(1)?.as_str()?)?,
        principal: row.get(2)?,
        registered_ms: row.get(3)?,
        seen_ms: row.get(4)?,
        issued_ms: row.get(5)?,
        expires_ms: row.get(6)?,
        dead_ms: row.get(7)?,
        version: row.get(8)?,
        environment: row.get(9)?,
        owner: row.get(10)?,
        blast: row.get::<_, Option<i64>>(11)?.and_then(|blast| u64::try_from(blast).ok()),
    })
}

/// A new credential that was never seen is to be looked up at once; an old one keeps its look-up.
pub(super) fn put_credential(db: &Connection, c: &Credential, now_ms: i64) -> Result<(), Error> {
    let lookup = c.needs_lookup().then_some(now_ms);
    exec(
        db,
        "INSERT INTO credentials (tenant, id, principal, registered_ms, seen_ms, issued_ms, expires_ms, dead_ms, \
         lookup_due_ms, version, environment, owner) VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET principal=excluded.principal, \
         registered_ms=excluded.registered_ms, seen_ms=excluded.seen_ms, issued_ms=excluded.issued_ms, \
         expires_ms=excluded.expires_ms, dead_ms=excluded.dead_ms, version=excluded.version, \
         environment=excluded.environment, owner=excluded.owner",
        params![
            c.tenant,
            c.id.as_str(),
            c.principal,
            c.registered_ms,
            c.seen_ms,
            c.issued_ms,
            c.expires_ms,
            c.dead_ms,
            lookup,
            c.version,
            c.environment,
            c.owner
        ],
    )?;
    Ok(())
}

pub(super) fn position(db: &Connection, cluster: &str, topic: &str, partition: i32) -> Result<Option<Position>, Error> {
    one(
        db,
        "SELECT cluster, topic, partition, next_offset, last_ms, last_digest FROM positions \
         WHERE cluster=? AND topic=? AND partition=? AND next_offset IS NOT NULL",
        params![cluster, topic, partition],
        |row| {
            Ok(Position {
                cluster: row.get(0)?,
                topic: row.get(1)?,
                partition: row.get(2)?,
                next_offset: row.get(3)?,
                last_ms: row.get(4)?,
                last_digest: row.get(5)?,
            })
        },
    )
}

pub(super) fn put_position(db: &Connection, p: &Position) -> Result<(), Error> {
    exec(
        db,
        "INSERT INTO positions (cluster, topic, partition, next_offset, last_ms, last_digest) VALUES (?,?,?,?,?,?) \
         ON CONFLICT DO UPDATE SET next_offset=excluded.next_offset, last_ms=excluded.last_ms, \
         last_digest=excluded.last_digest",
        params![p.cluster, p.topic, p.partition, p.next_offset, p.last_ms, p.last_digest],
    )?;
    Ok(())
}

/// A stored case: its row, brought up to its newest record.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) case: Case,
    pub(super) due_ms: i64,
    pub(super) closed_ms: Option<i64>,
    /// What its newest records learned of the credential, and nobody wrote there.
    pub(super) learned: Option<Observation>,
}

pub(super) const CASE: &str = "body, due_ms, closed_ms";

pub(super) fn case_row(row: &Row<'_>) -> rusqlite::Result<(String, i64, Option<i64>)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// Parses a case row and folds in the records that came after it was written.
pub(super) fn stored(db: &Connection, row: (String, i64, Option<i64>)) -> Result<Stored, Error> {
    let mut case: Case = json("cases", &row.0)?;
    let tail = all(
        db,
        "SELECT seq, records FROM records WHERE tenant=? AND case_id=? AND seq>? ORDER BY seq",
        params![case.tenant, case.id.as_bytes(), case.seq],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)),
    )?;
    // What joined a case meanwhile looked at nothing.
    let mut looked = false;
    for (seq, records) in tail {
        for record in json::<Vec<Record>>("records", &records)? {
            case.state = case.state.next(&record).map_err(|_| Error::Corrupt { what: "records" })?;
            looked |= matches!(record, Record::Observed { .. });
            // What started was charged before.
            case.charged |= matches!(record, Record::Started { .. });
        }
        case.seq = seq;
        let seen = case.state.issuer().filter(|seen| seen.presence == Presence::Present).map(|seen| seen.at_ms);
        case.seen_ms = case.seen_ms.or(seen);
    }
    let learned = case.state.issuer().filter(|_| looked).cloned();
    Ok(Stored { case, due_ms: row.1, closed_ms: row.2, learned })
}

pub(super) fn case_by_id(db: &Connection, id: CaseId) -> Result<Option<Stored>, Error> {
    let row = one(db, "SELECT body, due_ms, closed_ms FROM cases WHERE id=?", params![id.as_bytes()], case_row)?;
    row.map(|row| stored(db, row)).transpose()
}

pub(super) fn open_case(db: &Connection, tenant: &Tenant, id: &CredentialId) -> Result<Option<Stored>, Error> {
    let sql = "SELECT body, due_ms, closed_ms FROM cases WHERE tenant=? AND credential=? AND closed_ms IS NULL";
    let row = one(db, sql, params![tenant, id.as_str()], case_row)?;
    row.map(|row| stored(db, row)).transpose()
}

/// Inserts a new case or writes the row of an old one.
pub(super) fn put_case(db: &Connection, new: bool, case: &Case, due: i64, closed: Option<i64>) -> Result<(), Error> {
    let hold = match &case.state.phase {
        CasePhase::Held { reason } => Some(reason.as_str()),
        _ => None,
    };
    let body = text("cases", case)?;
    let d = &case.directive;
    let rank = case.rank().number();
    if new {
        exec(
            db,
            "INSERT INTO cases (tenant, id, credential, run, system, urgency, due_ms, state, hold, opened_ms, closed_ms, \
             seq, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            params![
                case.tenant,
                case.id.as_bytes(),
                d.credential.as_str(),
                d.run.as_ref().map(RunKey::as_str),
                case.system,
                rank,
                due,
                case.state.name(),
                hold,
                case.opened_ms,
                closed,
                case.seq,
                body
            ],
        )?;
    } else {
        exec(
            db,
            "UPDATE cases SET run=?, urgency=?, due_ms=?, state=?, hold=?, closed_ms=?, seq=?, body=? WHERE id=?",
            params![
                d.run.as_ref().map(RunKey::as_str),
                rank,
                due,
                case.state.name(),
                hold,
                closed,
                case.seq,
                body,
                case.id.as_bytes()
            ],
        )?;
    }
    Ok(())
}

/// One append of records.
pub(super) fn put_records(
    db: &Connection,
    case: (&Arc<str>, CaseId),
    seq: i64,
    at_ms: i64,
    records: &[Record],
) -> Result<(), Error> {
    exec(
        db,
        "INSERT INTO records (tenant, case_id, seq, at_ms, records) VALUES (?,?,?,?,?)",
        params![case.0, case.1.as_bytes(), seq, at_ms, text("records", &records)?],
    )?;
    Ok(())
}
