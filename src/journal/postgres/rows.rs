//! Rows to values and back, many at once.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{FromRow, Row as _};
use uuid::Uuid;

use super::Error;
use crate::case::record::Record;
use crate::case::state::Phase as CasePhase;
use crate::case::{Case, CaseId};
use crate::credential::CredentialId;
use crate::journal::{Position, draft};
use crate::task::{Credential, Grant, GrantPhase, Phase, RunKey, Task, Tenant, Tenure};

/// Reads JSON that this journal wrote.
pub(super) fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|_| Error::Corrupt { what })
}

/// Writes JSON.
pub(super) fn text(what: &'static str, value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Corrupt { what })
}

/// The serialized name of a plain enum.
pub(super) fn name(value: &impl Serialize) -> Result<String, Error> {
    Ok(text("name", value)?.trim_matches('"').to_owned())
}

/// A column's texts for one bound array.
pub(super) fn texts<'a, T, A: AsRef<str> + ?Sized + 'a>(rows: &'a [T], of: impl Fn(&'a T) -> &'a A) -> Vec<&'a str> {
    rows.iter().map(|row| of(row).as_ref()).collect()
}

/// A column's numbers for one bound array.
pub(super) fn column<T, V>(rows: &[T], of: impl FnMut(&T) -> V) -> Vec<V> {
    rows.iter().map(of).collect()
}

fn credential_id(row: &PgRow, column: &str) -> Result<CredentialId, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    CredentialId::parse(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Reads a struct's fields from the columns of their names.
macro_rules! from_columns {
    ($name:ident { $($field:ident),* }) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $name {
            fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: sqlx::Row::try_get(row, stringify!($field))?),* })
            }
        }
    };
}
pub(super) use from_columns;

/// A row of a type that does not know its store.
pub(super) struct Of<T>(pub(super) T);

pub(super) const TASK: &str = "tenant, run, source, within, name, identity, attempt, phase, first_seen_ms, started_ms, \
    deadline_ms, clamped_from_ms, heartbeat_every_ms, last_beat_ms, ended_ms, outcome, unbound, boundary";

impl FromRow<'_, PgRow> for Of<Task> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Task {
            tenant: row.try_get::<&str, _>("tenant")?.into(),
            run: RunKey(row.try_get::<&str, _>("run")?.into()),
            source: row.try_get("source")?,
            within: row.try_get::<Option<&str>, _>("within")?.map(|run| RunKey(run.into())),
            name: row.try_get("name")?,
            identity: row.try_get("identity")?,
            attempt: u32::try_from(row.try_get::<i64, _>("attempt")?).unwrap_or(u32::MAX),
            phase: match row.try_get::<i16, _>("phase")? {
                0 => Phase::Expected,
                1 => Phase::Running,
                _ => Phase::Ended,
            },
            first_seen_ms: row.try_get("first_seen_ms")?,
            started_ms: row.try_get("started_ms")?,
            deadline_ms: row.try_get("deadline_ms")?,
            clamped_from_ms: row.try_get("clamped_from_ms")?,
            heartbeat_every_ms: row.try_get("heartbeat_every_ms")?,
            last_beat_ms: row.try_get("last_beat_ms")?,
            ended_ms: row.try_get("ended_ms")?,
            outcome: row.try_get("outcome")?,
            unbound: row.try_get("unbound")?,
            boundary: match row.try_get::<Option<&str>, _>("boundary")? {
                Some(text) => serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
                None => None,
            },
        }))
    }
}

pub(super) const GRANT: &str = "tenant, run, credential, attempt, tenure, phase, registered_ms, topics";

impl FromRow<'_, PgRow> for Of<Grant> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Grant {
            tenant: row.try_get::<&str, _>("tenant")?.into(),
            run: RunKey(row.try_get::<&str, _>("run")?.into()),
            credential: credential_id(row, "credential")?,
            attempt: u32::try_from(row.try_get::<i64, _>("attempt")?).unwrap_or(u32::MAX),
            tenure: match row.try_get::<i16, _>("tenure")? {
                0 => Tenure::Minted,
                1 => Tenure::Exclusive,
                _ => Tenure::Standing,
            },
            phase: match row.try_get::<i16, _>("phase")? {
                0 => GrantPhase::Held,
                1 => GrantPhase::Released,
                _ => GrantPhase::Cut,
            },
            registered_ms: row.try_get("registered_ms")?,
            topics: serde_json::from_str(row.try_get("topics")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        }))
    }
}

pub(super) const CREDENTIAL: &str = "tenant, id, principal, registered_ms, seen_ms, issued_ms, expires_ms, dead_ms, version, \
    environment, owner, blast";

impl FromRow<'_, PgRow> for Of<Credential> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self(Credential {
            tenant: row.try_get::<&str, _>("tenant")?.into(),
            id: credential_id(row, "id")?,
            principal: row.try_get("principal")?,
            registered_ms: row.try_get("registered_ms")?,
            seen_ms: row.try_get("seen_ms")?,
            issued_ms: row.try_get("issued_ms")?,
            expires_ms: row.try_get("expires_ms")?,
            dead_ms: row.try_get("dead_ms")?,
            version: row.try_get("version")?,
            environment: row.try_get("environment")?,
            owner: row.try_get("owner")?,
            blast: row.try_get::<Option<i64>, _>("blast")?.and_then(|blast| u64::try_from(blast).ok()),
        }))
    }
}

impl FromRow<'_, PgRow> for Of<Position> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let digest: &[u8] = row.try_get("last_digest")?;
        Ok(Self(Position {
            cluster: row.try_get::<&str, _>("cluster")?.into(),
            topic: row.try_get::<&str, _>("topic")?.into(),
            partition: row.try_get("partition")?,
            next_offset: row.try_get("next_offset")?,
            last_ms: row.try_get("last_ms")?,
            last_digest: digest.try_into().map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        }))
    }
}

pub(super) async fn put_tasks(db: &mut PgConnection, tasks: &[Task], missed: u32) -> Result<(), Error> {
    if tasks.is_empty() {
        return Ok(());
    }
    let phase = |task: &Task| match task.phase {
        Phase::Expected => 0_i16,
        Phase::Running => 1,
        Phase::Ended => 2,
    };
    let boundary = |task: &Task| task.boundary.as_ref().map(|one| text("tasks", one)).transpose();
    let boundaries = tasks.iter().map(boundary).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO tasks (tenant, run, source, name, identity, attempt, phase, first_seen_ms, started_ms, deadline_ms, \
         clamped_from_ms, heartbeat_every_ms, last_beat_ms, ended_ms, outcome, unbound, alive_ms, due_ms, within, boundary) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::smallint[], \
         $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], \
         $15::text[], $16::boolean[], $17::bigint[], $18::bigint[], $19::text[], $20::text[]) \
         ON CONFLICT (tenant, run) DO UPDATE SET \
         source=excluded.source, within=excluded.within, name=excluded.name, identity=excluded.identity, \
         attempt=excluded.attempt, \
         phase=excluded.phase, first_seen_ms=excluded.first_seen_ms, started_ms=excluded.started_ms, \
         deadline_ms=excluded.deadline_ms, clamped_from_ms=excluded.clamped_from_ms, \
         heartbeat_every_ms=excluded.heartbeat_every_ms, last_beat_ms=excluded.last_beat_ms, \
         ended_ms=excluded.ended_ms, outcome=excluded.outcome, unbound=excluded.unbound, \
         alive_ms=excluded.alive_ms, due_ms=excluded.due_ms, boundary=excluded.boundary",
    )
    .bind(texts(tasks, |t| &*t.tenant))
    .bind(texts(tasks, |t| t.run.as_str()))
    .bind(texts(tasks, |t| &t.source))
    .bind(tasks.iter().map(|t| t.name.as_deref()).collect::<Vec<_>>())
    .bind(tasks.iter().map(|t| t.identity.as_deref()).collect::<Vec<_>>())
    .bind(column(tasks, |t| i64::from(t.attempt)))
    .bind(column(tasks, phase))
    .bind(column(tasks, |t| t.first_seen_ms))
    .bind(column(tasks, |t| t.started_ms))
    .bind(column(tasks, |t| t.deadline_ms))
    .bind(column(tasks, |t| t.clamped_from_ms))
    .bind(column(tasks, |t| t.heartbeat_every_ms))
    .bind(column(tasks, |t| t.last_beat_ms))
    .bind(column(tasks, |t| t.ended_ms))
    .bind(tasks.iter().map(|t| t.outcome.as_deref()).collect::<Vec<_>>())
    .bind(column(tasks, |t| t.unbound))
    .bind(column(tasks, |t| t.last_beat_ms.or(t.started_ms).unwrap_or(t.first_seen_ms)))
    .bind(column(tasks, |t| t.due_ms(missed).unwrap_or(t.deadline_ms)))
    .bind(tasks.iter().map(|t| t.within.as_ref().map(RunKey::as_str)).collect::<Vec<_>>())
    .bind(boundaries)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn put_grants(db: &mut PgConnection, grants: &[Grant]) -> Result<(), Error> {
    if grants.is_empty() {
        return Ok(());
    }
    let tenure = |grant: &Grant| match grant.tenure {
        Tenure::Minted => 0_i16,
        Tenure::Exclusive => 1,
        Tenure::Standing => 2,
    };
    let phase = |grant: &Grant| match grant.phase {
        GrantPhase::Held => 0_i16,
        GrantPhase::Released => 1,
        GrantPhase::Cut => 2,
    };
    let topics = grants.iter().map(|g| text("grants", &g.topics)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO grants (tenant, run, credential, attempt, tenure, phase, registered_ms, topics) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::smallint[], $6::smallint[], \
         $7::bigint[], $8::text[]) ON CONFLICT (tenant, run, credential) DO UPDATE SET attempt=excluded.attempt, \
         tenure=excluded.tenure, phase=excluded.phase, registered_ms=excluded.registered_ms, topics=excluded.topics",
    )
    .bind(texts(grants, |g| &*g.tenant))
    .bind(texts(grants, |g| g.run.as_str()))
    .bind(texts(grants, |g| g.credential.as_str()))
    .bind(column(grants, |g| i64::from(g.attempt)))
    .bind(column(grants, tenure))
    .bind(column(grants, phase))
    .bind(column(grants, |g| g.registered_ms))
    .bind(topics)
    .execute(db)
    .await?;
    Ok(())
}

/// A new credential that was never seen is to be looked up at once; an old one keeps its look-up.
pub(super) async fn put_credentials(db: &mut PgConnection, all: &[Credential], now_ms: i64) -> Result<(), Error> {
    if all.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO credentials (tenant, id, principal, registered_ms, seen_ms, issued_ms, expires_ms, dead_ms, \
         lookup_due_ms, version, environment, owner) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], \
         $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[]) \
         ON CONFLICT (tenant, id) DO UPDATE SET \
         principal=excluded.principal, registered_ms=excluded.registered_ms, seen_ms=excluded.seen_ms, \
         issued_ms=excluded.issued_ms, expires_ms=excluded.expires_ms, dead_ms=excluded.dead_ms, \
         version=excluded.version, environment=excluded.environment, owner=excluded.owner",
    )
    .bind(texts(all, |c| &*c.tenant))
    .bind(texts(all, |c| c.id.as_str()))
    .bind(all.iter().map(|c| c.principal.as_deref()).collect::<Vec<_>>())
    .bind(column(all, |c| c.registered_ms))
    .bind(column(all, |c| c.seen_ms))
    .bind(column(all, |c| c.issued_ms))
    .bind(column(all, |c| c.expires_ms))
    .bind(column(all, |c| c.dead_ms))
    .bind(column(all, |c| c.needs_lookup().then_some(now_ms)))
    .bind(column(all, |c| c.version))
    .bind(all.iter().map(|c| c.environment.as_deref()).collect::<Vec<_>>())
    .bind(all.iter().map(|c| c.owner.as_deref()).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// What becomes of a case's claim when its row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimAfter {
    /// As it was.
    Stays,
    /// Goes on: the next append must name the new seq.
    GoesOn,
    /// Is over, or void.
    Ends,
}

/// A case's row to write.
#[derive(Debug)]
pub(super) struct CasePut {
    pub(super) case: Case,
    /// `None`: as it was.
    pub(super) due_ms: Option<i64>,
    pub(super) closed_ms: Option<i64>,
    pub(super) claim: ClaimAfter,
}

fn hold(case: &Case) -> Option<&'static str> {
    match &case.state.phase {
        CasePhase::Held { reason } => Some(reason.as_str()),
        _ => None,
    }
}

fn bodies(puts: &[CasePut]) -> Result<Vec<String>, Error> {
    puts.iter().map(|put| text("cases", &put.case)).collect()
}

fn rank(case: &Case) -> i16 {
    i16::try_from(case.rank().number()).unwrap_or(0)
}

/// The lane, where others may share it.
fn shared_lane(case: &Case) -> Option<&str> {
    (case.lane != case.directive.credential.as_str()).then_some(case.lane.as_str())
}

/// Inserts new cases.
pub(super) async fn insert_cases(db: &mut PgConnection, puts: &[CasePut], now_ms: i64) -> Result<(), Error> {
    if puts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO cases (tenant, id, credential, run, system, action, lane, urgency, due_ms, state, hold, opened_ms, \
         seq, body) SELECT t, i, c, r, s, a, l, u, $9, st, h, o, q, b FROM unnest($1::text[], $2::uuid[], $3::text[], \
         $4::text[], $5::text[], $6::text[], $7::text[], $8::smallint[], $10::text[], $11::text[], $12::bigint[], \
         $13::bigint[], $14::text[]) v(t, i, c, r, s, a, l, u, st, h, o, q, b)",
    )
    .bind(texts(puts, |p| &*p.case.tenant))
    .bind(column(puts, |p| p.case.id))
    .bind(texts(puts, |p| p.case.directive.credential.as_str()))
    .bind(puts.iter().map(|p| p.case.directive.run.as_ref().map(RunKey::as_str)).collect::<Vec<_>>())
    .bind(texts(puts, |p| &p.case.system))
    .bind(column(puts, |p| p.case.directive.action.as_str()))
    .bind(puts.iter().map(|p| shared_lane(&p.case)).collect::<Vec<_>>())
    .bind(column(puts, |p| rank(&p.case)))
    .bind(now_ms)
    .bind(column(puts, |p| p.case.state.name()))
    .bind(column(puts, |p| hold(&p.case)))
    .bind(column(puts, |p| p.case.opened_ms))
    .bind(column(puts, |p| p.case.seq))
    .bind(bodies(puts)?)
    .execute(&mut *db)
    .await?;
    sqlx::query("INSERT INTO systems (system) SELECT DISTINCT unnest($1::text[]) ORDER BY 1 ON CONFLICT DO NOTHING")
        .bind(texts(puts, |p| &p.case.system))
        .execute(db)
        .await?;
    Ok(())
}

/// Writes the rows of cases that are there.
pub(super) async fn update_cases(db: &mut PgConnection, puts: &[CasePut]) -> Result<(), Error> {
    if puts.is_empty() {
        return Ok(());
    }
    let ends: Vec<Uuid> = puts
        .iter()
        .filter(|p| p.claim == ClaimAfter::Ends && shared_lane(&p.case).is_some())
        .map(|p| p.case.id)
        .collect();
    sqlx::query(
        "UPDATE cases SET run=v.run, action=v.action, urgency=v.urgency, due_ms=coalesce(v.due, cases.due_ms), \
         state=v.state, hold=v.hold, closed_ms=v.closed, seq=v.seq, body=v.body, \
         claim_epoch=CASE WHEN v.claim = 2 THEN NULL ELSE cases.claim_epoch END, \
         claim_seq=CASE WHEN v.claim = 1 THEN v.seq ELSE cases.claim_seq END, \
         claim_until_ms=CASE WHEN v.claim = 2 THEN 0 ELSE cases.claim_until_ms END \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::bigint[], $6::text[], $7::text[], \
         $8::bigint[], $9::bigint[], $10::text[], $11::smallint[]) \
         v(id, run, action, urgency, due, state, hold, closed, seq, body, claim) WHERE cases.id = v.id",
    )
    .bind(column(puts, |p| p.case.id))
    .bind(puts.iter().map(|p| p.case.directive.run.as_ref().map(RunKey::as_str)).collect::<Vec<_>>())
    .bind(column(puts, |p| p.case.directive.action.as_str()))
    .bind(column(puts, |p| rank(&p.case)))
    .bind(column(puts, |p| p.due_ms))
    .bind(column(puts, |p| p.case.state.name()))
    .bind(column(puts, |p| hold(&p.case)))
    .bind(column(puts, |p| p.closed_ms))
    .bind(column(puts, |p| p.case.seq))
    .bind(bodies(puts)?)
    .bind(column(puts, |p| p.claim as i16))
    .execute(&mut *db)
    .await?;
    if !ends.is_empty() {
        sqlx::query("DELETE FROM lanes WHERE case_id = ANY($1)").bind(ends).execute(db).await?;
    }
    Ok(())
}

/// One append of records to a case.
#[derive(Debug)]
pub(super) struct RecordsPut {
    pub(super) tenant: Tenant,
    pub(super) case: CaseId,
    pub(super) seq: i64,
    pub(super) at_ms: i64,
    pub(super) records: String,
}

impl RecordsPut {
    pub(super) fn new(case: &Case, at_ms: i64, records: &[Record]) -> Result<Self, Error> {
        let (tenant, records) = (case.tenant.clone(), text("records", &records)?);
        Ok(Self { tenant, case: case.id, seq: case.seq, at_ms, records })
    }

    pub(super) fn of(row: &draft::RecordRow, at_ms: i64) -> Result<Self, Error> {
        let records = text("records", &[&row.record])?;
        Ok(Self { tenant: row.tenant.clone(), case: row.case, seq: row.seq, at_ms, records })
    }
}

pub(super) async fn put_records(db: &mut PgConnection, puts: &[RecordsPut]) -> Result<(), Error> {
    if puts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO records (tenant, case_id, seq, at_ms, records) \
         SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[])",
    )
    .bind(texts(puts, |p| &*p.tenant))
    .bind(column(puts, |p| p.case))
    .bind(column(puts, |p| p.seq))
    .bind(column(puts, |p| p.at_ms))
    .bind(texts(puts, |p| &p.records))
    .execute(db)
    .await?;
    Ok(())
}
