//! Appends, in groups: what callers queue while one transaction commits becomes the next one.

use std::collections::{BTreeMap, HashMap};

use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::rows::{self, CasePut, ClaimAfter, RecordsPut, column, texts};
use super::{Error, Inner, Way, leaving};
use crate::case::rank;
use crate::case::record::{Observation, Presence, Verdict};
use crate::case::state::Phase;
use crate::case::{Case, CaseId};
use crate::journal::{Append, draft};
use crate::outcome::Message;
use crate::scope::Fence;

type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// What waits to be written.
pub(super) enum Job {
    /// See [`crate::journal::Journal::append`].
    Append(Box<Append>, Answer<Case>),
    /// See [`crate::journal::Journal::unclaim`].
    Unclaim {
        /// The case.
        case: CaseId,
        /// The claim's.
        epoch: i64,
        /// When it is due again.
        due_ms: i64,
        /// Where the answer goes.
        answer: Answer<()>,
    },
}

impl Job {
    fn claim(&self) -> (CaseId, i64) {
        match self {
            Self::Append(append, _) => (append.case, append.epoch),
            Self::Unclaim { case, epoch, .. } => (*case, *epoch),
        }
    }
}

/// Ends when nobody can queue any more.
pub(super) async fn run(inner: std::sync::Arc<Inner>, mut jobs: mpsc::UnboundedReceiver<Job>, most: usize) {
    let mut group = Vec::new();
    while jobs.recv_many(&mut group, most).await > 0 {
        let done = inner.write(|| write(&inner, &group)).await;
        // A caller that went away needs no answer.
        match done {
            Ok(fates) => group.drain(..).zip(fates).for_each(|(job, fate)| answer(&inner, job, fate)),
            Err(error) => {
                let why = error.to_string();
                for job in group.drain(..) {
                    let (case, epoch) = job.claim();
                    inner.orphan(case, epoch);
                    let lost = Error::Unavailable(why.as_str().into());
                    match job {
                        Job::Append(_, to) => drop(to.send(Err(lost))),
                        Job::Unclaim { answer: to, .. } => drop(to.send(Err(lost))),
                    }
                }
            }
        }
    }
}

fn answer(inner: &Inner, job: Job, fate: Result<Case, Error>) {
    let kept = matches!(&job, Job::Append(append, _) if append.keep)
        && fate.as_ref().map_or_else(|error| matches!(error, Error::CapReached), |case| !case.state.is_closed());
    if !kept {
        inner.let_go(job.claim().0);
    }
    match job {
        Job::Append(_, to) => drop(to.send(fate)),
        Job::Unclaim { answer: to, .. } => drop(to.send(fate.map(drop))),
    }
}

/// A claimed case's row, as it is locked, and what the group makes of it.
struct Row {
    case: Case,
    epoch: Option<i64>,
    expect: Option<i64>,
    due_ms: Option<i64>,
    closed_ms: Option<i64>,
    claim: ClaimAfter,
    changed: bool,
}

/// What a group comes to, besides the cases' rows.
#[derive(Default)]
struct Group<'a> {
    records: Vec<RecordsPut>,
    learned: Vec<Learned>,
    messages: Vec<(&'a Message, i64)>,
    closed: Vec<Uuid>,
    fences: Vec<Fence>,
    lifted: Vec<CaseId>,
    fates: Vec<Result<Case, Error>>,
}

/// One transaction: a fate for each job, in order.
async fn write(inner: &Inner, jobs: &[Job]) -> Result<Vec<Result<Case, Error>>, Error> {
    let mut tx = inner.pool.begin().await?;
    let db = &mut *tx;
    let mut stands = lock(inner, db, jobs.iter().map(|job| job.claim().0)).await?;
    let mut charges = Charges::lock(db, jobs, &stands).await?;
    let mut group = Group::default();
    for job in jobs {
        let (id, epoch) = job.claim();
        let fate = match stands.get_mut(&id).filter(|row| row.epoch == Some(epoch) && !inner.state.is_fenced(epoch)) {
            None => Err(Error::ClaimVoid),
            Some(row) => match job {
                Job::Append(a, _) if row.expect == Some(a.seq) => group.append(row, a, &mut charges)?,
                Job::Append(..) => Err(Error::ClaimVoid),
                Job::Unclaim { due_ms, .. } => {
                    (row.due_ms, row.epoch, row.claim, row.changed) = (Some(*due_ms), None, ClaimAfter::Ends, true);
                    Ok(row.case.clone())
                }
            },
        };
        group.fates.push(fate);
    }
    let changed = stands.into_values().filter(|row| row.changed);
    let puts: Vec<CasePut> = changed
        .map(|row| CasePut { case: row.case, due_ms: row.due_ms, closed_ms: row.closed_ms, claim: row.claim })
        .collect();
    if puts.is_empty() {
        // Now, and not when the pool comes to it: a claim leaves out what is locked.
        tx.rollback().await?;
        return Ok(group.fates);
    }
    rows::update_cases(db, &puts).await?;
    rows::put_records(db, &group.records).await?;
    leaving::note(db, &group.fences, &group.lifted).await?;
    learn(db, &group.learned).await?;
    let counts = close_events(db, &group.closed).await?;
    charges.put(db).await?;
    inner.send(db, &group.messages).await?;
    let commits = inner.count(db, Way::Appends, &counts).await?;
    tx.commit().await?;
    inner.acknowledge(Way::Appends, commits);
    Ok(group.fates)
}

/// The rows of open cases, locked in the order of their ids.
async fn lock(
    inner: &Inner,
    db: &mut PgConnection,
    ids: impl Iterator<Item = CaseId>,
) -> Result<HashMap<CaseId, Row>, Error> {
    let found: Vec<(Uuid, String, Option<i64>, Option<i64>)> = sqlx::query_as(
        // Whose shared lane another case has by now, its claim is void, also where nobody took the case itself.
        "SELECT id, body, CASE WHEN claimed_by = $2 AND (lane IS NULL OR EXISTS (SELECT 1 FROM lanes l \
         WHERE l.lane = cases.lane AND l.case_id = cases.id)) THEN claim_epoch END, claim_seq FROM cases WHERE id = ANY($1) \
         AND closed_ms IS NULL ORDER BY id FOR UPDATE",
    )
    .bind(ids.collect::<Vec<_>>())
    .bind(inner.state.me)
    .fetch_all(db)
    .await?;
    found
        .into_iter()
        .map(|(id, body, epoch, expect)| {
            let case = rows::json("cases", &body)?;
            let (due_ms, closed_ms, claim, changed) = (None, None, ClaimAfter::Stays, false);
            Ok((id, Row { case, epoch, expect, due_ms, closed_ms, claim, changed }))
        })
        .collect()
}

impl<'a> Group<'a> {
    /// One append to a case whose claim and seq are right.
    fn append(&mut self, row: &mut Row, a: &'a Append, charges: &mut Charges) -> Result<Result<Case, Error>, Error> {
        let mut case = match draft::appended(row.case.clone(), &a.records) {
            Ok(case) => case,
            Err(illegal) => return Ok(Err(illegal.into())),
        };
        if let Some(cap) = a.charge.filter(|_| !case.charged) {
            if !charges.take(a.now_ms, rank::cost(case.blast), cap) {
                return Ok(Err(Error::CapReached));
            }
            case.charged = true;
        }
        let seen = a.learned.as_ref().filter(|seen| seen.presence == Presence::Present).map(|seen| seen.at_ms);
        case.seen_ms = case.seen_ms.or(seen);
        self.records.push(RecordsPut::new(&case, a.now_ms, &a.records)?);
        self.fences.extend(draft::fence(&case, &a.records));
        self.lifted.extend(draft::lifted(&case, &a.records));
        self.messages.extend(a.messages.iter().map(|message| (message, a.now_ms)));
        let verdict = match &case.state.phase {
            Phase::Closed { verdict } => Some(verdict),
            _ => None,
        };
        let dead_ms = match verdict {
            Some(Verdict::Dead { at_ms, .. }) if case.ends_credential() => Some(*at_ms),
            _ => None,
        };
        let rotated = verdict.is_some() && case.state.turn.new.is_some();
        if a.learned.is_some() || dead_ms.is_some() || rotated {
            self.learned.push(Learned::of(&case, a.learned.as_ref(), dead_ms));
        }
        row.changed = true;
        if verdict.is_some() {
            self.closed.push(case.id);
            (row.closed_ms, row.due_ms, row.claim, row.epoch) =
                (Some(a.now_ms), Some(i64::MAX), ClaimAfter::Ends, None);
        } else if a.keep {
            (row.claim, row.expect) = (ClaimAfter::GoesOn, Some(case.seq));
        } else {
            (row.due_ms, row.claim, row.epoch) = (Some(a.due_ms), ClaimAfter::Ends, None);
        }
        row.case = case.clone();
        Ok(Ok(case))
    }
}

/// What a case learned of its credential.
#[derive(Debug, Clone)]
pub(super) struct Learned {
    tenant: crate::task::Tenant,
    credential: String,
    seen_ms: Option<i64>,
    issued_ms: Option<i64>,
    expires_ms: Option<i64>,
    dead_ms: Option<i64>,
    lives: bool,
    version: Option<i64>,
}

impl Learned {
    /// Alive after its death: the death is not recorded any more.
    pub(super) fn of(case: &Case, seen: Option<&Observation>, dead_ms: Option<i64>) -> Self {
        let (version, promoted_ms) = case.settled().map_or((None, None), |(version, at)| (Some(version), at));
        Self {
            tenant: case.tenant.clone(),
            credential: case.directive.credential.as_str().to_owned(),
            seen_ms: case.seen_ms,
            issued_ms: promoted_ms.or(seen.and_then(|s| s.issued_ms)),
            expires_ms: seen.and_then(|s| s.expires_ms),
            dead_ms,
            lives: case.lives(seen),
            version,
        }
    }
}

/// Writes what was learned; the credentials' rows are locked in order.
pub(super) async fn learn(db: &mut PgConnection, learned: &[Learned]) -> Result<(), Error> {
    if learned.is_empty() {
        return Ok(());
    }
    // By the whole key: without the tenant all credentials would be read.
    sqlx::query(
        "SELECT 1 FROM credentials c JOIN unnest($1::text[], $2::text[]) v(tenant, id) \
         ON c.tenant = v.tenant AND c.id = v.id ORDER BY c.tenant, c.id FOR UPDATE OF c",
    )
    .bind(texts(learned, |l| &*l.tenant))
    .bind(texts(learned, |l| &l.credential))
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE credentials c SET seen_ms = coalesce(c.seen_ms, v.seen), issued_ms = coalesce(v.issued, c.issued_ms), \
         expires_ms = coalesce(v.expires, c.expires_ms), \
         dead_ms = CASE WHEN v.dead IS NOT NULL THEN v.dead WHEN v.lives THEN NULL ELSE c.dead_ms END, \
         version = greatest(c.version, v.version), lookup_due_ms = NULL \
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bool[], \
         $8::bigint[]) v(tenant, id, seen, issued, expires, dead, lives, version) \
         WHERE c.tenant = v.tenant AND c.id = v.id",
    )
    .bind(texts(learned, |l| &*l.tenant))
    .bind(texts(learned, |l| &l.credential))
    .bind(column(learned, |l| l.seen_ms))
    .bind(column(learned, |l| l.issued_ms))
    .bind(column(learned, |l| l.expires_ms))
    .bind(column(learned, |l| l.dead_ms))
    .bind(column(learned, |l| l.lives))
    .bind(column(learned, |l| l.version))
    .execute(db)
    .await?;
    Ok(())
}

/// These cases closed: their events have fewer that are open. Returns what is to be counted.
pub(super) async fn close_events(db: &mut PgConnection, closed: &[Uuid]) -> Result<BTreeMap<&'static str, i64>, Error> {
    if closed.is_empty() {
        return Ok(BTreeMap::new());
    }
    let left: Vec<i64> = sqlx::query_scalar(
        "WITH l AS (SELECT tenant, event_id, count(*) AS n FROM links WHERE case_id = ANY($1) GROUP BY tenant, event_id), \
         e AS MATERIALIZED (SELECT e.tenant, e.id, l.n FROM events e JOIN l ON e.tenant = l.tenant AND e.id = l.event_id \
         ORDER BY e.tenant, e.id FOR UPDATE OF e) \
         UPDATE events SET open_cases = open_cases - e.n FROM e \
         WHERE events.tenant = e.tenant AND events.id = e.id RETURNING open_cases",
    )
    .bind(closed)
    .fetch_all(db)
    .await?;
    let ended = left.iter().filter(|open| **open == 0).count();
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(BTreeMap::from([("closed", number(ended)), ("cases_closed", number(closed.len()))]))
}

/// What effects cost of the cap, by minute. The rows stay locked until the commit.
struct Charges(BTreeMap<i64, (i64, bool)>);

fn minute(now_ms: i64) -> i64 {
    now_ms.div_euclid(60_000)
}

impl Charges {
    async fn lock(db: &mut PgConnection, jobs: &[Job], stands: &HashMap<CaseId, Row>) -> Result<Self, Error> {
        let mut minutes = BTreeMap::new();
        for job in jobs {
            if let Job::Append(a, _) = job
                && a.charge.is_some()
                && stands.get(&a.case).is_some_and(|row| !row.case.charged)
            {
                minutes.insert(minute(a.now_ms), (0, false));
            }
        }
        for (minute, count) in &mut minutes {
            let stands = sqlx::query_scalar(
                "INSERT INTO charges VALUES ($1, 0) ON CONFLICT (minute) DO UPDATE SET count = charges.count \
                 RETURNING count",
            );
            count.0 = stands.bind(*minute).fetch_one(&mut *db).await?;
        }
        Ok(Self(minutes))
    }

    fn take(&mut self, now_ms: i64, cost: u32, cap: u32) -> bool {
        let Some((count, changed)) = self.0.get_mut(&minute(now_ms)) else { return false };
        if !rank::fits(u32::try_from(*count).unwrap_or(u32::MAX), cost, cap) {
            return false;
        }
        (*count, *changed) = (*count + i64::from(cost), true);
        true
    }

    async fn put(&self, db: &mut PgConnection) -> Result<(), Error> {
        for (minute, (count, _)) in self.0.iter().filter(|(_, (_, changed))| *changed) {
            sqlx::query("UPDATE charges SET count = $2 WHERE minute = $1")
                .bind(minute)
                .bind(count)
                .execute(&mut *db)
                .await?;
        }
        Ok(())
    }
}
