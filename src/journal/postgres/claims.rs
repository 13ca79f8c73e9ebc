//! Claims, by lease of the database's clock; a person's word on a case; what look-ups saw.

use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::rows::{self, CasePut, ClaimAfter, RecordsPut};
use super::writer::{Learned, close_events, learn};
use super::{Error, Held, Inner, Way};
use crate::case::rank::Rank;
use crate::case::record::{Observation, Presence, Record, Verdict};
use crate::case::state::{Illegal, Phase};
use crate::case::{Action, Case, CaseId};
use crate::credential::CredentialId;
use crate::journal::{Claim, Want, draft};
use crate::task::Tenant;

/// A due case, with its lane where others share it.
#[derive(Debug)]
struct Candidate {
    system: String,
    id: Uuid,
    lane: Option<String>,
    urgency: i16,
    due_ms: i64,
}
rows::from_columns!(Candidate { system, id, lane, urgency, due_ms });

/// See [`crate::journal::Journal::claim`].
pub(super) async fn claim(inner: &Inner, want: &Want) -> Result<Vec<Claim>, Error> {
    let busy = busy(inner, want.steady_ms);
    let orphans = std::mem::take(&mut *inner.orphans.lock().unwrap_or_else(PoisonError::into_inner));
    let claims = claim_and_give_back(inner, want, &busy, &orphans).await;
    let claims = claims.inspect_err(|_| {
        inner.orphans.lock().unwrap_or_else(PoisonError::into_inner).extend(&orphans);
    })?;
    let mut held = inner.held.lock().unwrap_or_else(PoisonError::into_inner);
    for claim in &claims {
        held.insert(claim.case.id, Held { system: claim.case.system.clone(), until_ms: claim.until_ms });
    }
    Ok(claims)
}

async fn claim_and_give_back(
    inner: &Inner,
    want: &Want,
    busy: &BTreeMap<String, i64>,
    orphans: &[(CaseId, i64)],
) -> Result<Vec<Claim>, Error> {
    let mut tx = inner.pool.begin().await?;
    let db = &mut *tx;
    // A claim that a crash of the database takes away is void, and nothing else: it need not be synced. Its epoch may be
    // given out again then, so an epoch counts only together with whose it is.
    sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *db).await?;
    give_back(inner, db, orphans).await?;
    let due = candidates(db, want, busy).await?;
    let chosen = choose(due, want.max);
    let chosen = lanes(db, chosen, want.lease_ms).await?;
    let claims = if chosen.is_empty() { Vec::new() } else { take(inner, db, &chosen, want).await? };
    tx.commit().await?;
    Ok(claims)
}

/// How many cases of each system this process has claimed.
fn busy(inner: &Inner, steady_ms: i64) -> BTreeMap<String, i64> {
    let mut held = inner.held.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|_, held| held.until_ms > steady_ms);
    let mut busy = BTreeMap::new();
    for one in held.values() {
        *busy.entry(one.system.clone()).or_default() += 1;
    }
    busy
}

/// Gives claims back whose work is over, if they are still this process's.
async fn give_back(inner: &Inner, db: &mut PgConnection, orphans: &[(CaseId, i64)]) -> Result<(), Error> {
    if orphans.is_empty() {
        return Ok(());
    }
    let back: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE cases SET claim_epoch = NULL, claim_until_ms = 0 FROM unnest($1::uuid[], $2::bigint[]) v(id, epoch) \
         WHERE cases.id = v.id AND cases.claim_epoch = v.epoch AND cases.claimed_by = $3 RETURNING cases.id",
    )
    .bind(rows::column(orphans, |o| o.0))
    .bind(rows::column(orphans, |o| o.1))
    .bind(inner.state.me)
    .fetch_all(&mut *db)
    .await?;
    sqlx::query("DELETE FROM lanes WHERE case_id = ANY($1)").bind(back).execute(db).await?;
    Ok(())
}

/// Due, unblocked and unclaimed cases, in order for each system, locked: what others look at meanwhile leaves them out.
async fn candidates(
    db: &mut PgConnection,
    want: &Want,
    busy: &BTreeMap<String, i64>,
) -> Result<BTreeMap<String, Vec<Candidate>>, Error> {
    let only = want.only.as_ref();
    let systems: Option<Vec<&str>> = only.map(|only| only.systems.iter().map(String::as_str).collect());
    let actions = only.and_then(|only| only.actions.as_ref());
    let actions: Option<Vec<&str>> = actions.map(|actions| actions.iter().copied().map(Action::as_str).collect());
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let found: Vec<Candidate> = sqlx::query_as(
        "SELECT s.system, c.id, c.lane, c.urgency, c.due_ms FROM \
          (SELECT s.system, least($1, $2 - coalesce(b.n, 0)) AS room FROM systems s \
            LEFT JOIN unnest($3::text[], $4::bigint[]) b(system, n) ON b.system = s.system \
            WHERE s.blocked_until_ms <= $5 AND ($6::text[] IS NULL OR s.system = ANY($6))) s \
         CROSS JOIN LATERAL (SELECT k.* FROM unnest($8::smallint[]) u(urgency) CROSS JOIN LATERAL \
           (SELECT id, lane, urgency, due_ms FROM cases c WHERE c.closed_ms IS NULL AND c.system = s.system \
             AND c.urgency = u.urgency AND c.due_ms <= $5 AND c.claim_until_ms <= (SELECT now_ms()) \
             AND ($7::text[] IS NULL OR c.action = ANY($7)) \
             AND (c.lane IS NULL OR NOT EXISTS \
               (SELECT 1 FROM lanes l WHERE l.lane = c.lane AND l.until_ms > (SELECT now_ms()))) \
             ORDER BY c.due_ms LIMIT s.room FOR UPDATE OF c SKIP LOCKED) k LIMIT s.room) c \
         WHERE s.room > 0",
    )
    .bind(number(want.max))
    .bind(number(want.max_per_system))
    .bind(busy.keys().map(String::as_str).collect::<Vec<_>>())
    .bind(busy.values().copied().collect::<Vec<_>>())
    .bind(want.now_ms)
    .bind(systems)
    .bind(actions)
    .bind(Rank::DESCENDING.iter().map(|rank| i16::try_from(rank.number()).unwrap_or(0)).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let mut due: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for one in found {
        due.entry(one.system.clone()).or_default().push(one);
    }
    // The most urgent last: they are taken from the end.
    due.values_mut().for_each(|list| list.sort_by_key(|c| (c.urgency, std::cmp::Reverse(c.due_ms))));
    Ok(due)
}

/// Round-robin over systems; of a shared lane the first one.
fn choose(mut due: BTreeMap<String, Vec<Candidate>>, max: usize) -> Vec<Candidate> {
    let mut chosen = Vec::new();
    let mut lanes = HashSet::new();
    while chosen.len() < max && !due.is_empty() {
        for list in due.values_mut() {
            let next = list.pop().filter(|one| one.lane.as_ref().is_none_or(|lane| lanes.insert(lane.clone())));
            if chosen.len() < max {
                chosen.extend(next);
            }
        }
        due.retain(|_, list| !list.is_empty());
    }
    chosen
}

/// Takes the shared lanes; a case whose lane another process took meanwhile is left out.
async fn lanes(db: &mut PgConnection, chosen: Vec<Candidate>, lease_ms: i64) -> Result<Vec<Candidate>, Error> {
    let mut shared: Vec<(&str, Uuid)> = chosen.iter().filter_map(|c| Some((c.lane.as_deref()?, c.id))).collect();
    if shared.is_empty() {
        return Ok(chosen);
    }
    shared.sort_unstable();
    let taken: HashSet<String> = sqlx::query_scalar(
        "INSERT INTO lanes AS l SELECT lane, id, now_ms() + $3 FROM unnest($1::text[], $2::uuid[]) v(lane, id) \
         ON CONFLICT (lane) DO UPDATE SET case_id = excluded.case_id, until_ms = excluded.until_ms \
         WHERE l.until_ms <= now_ms() OR l.case_id = excluded.case_id RETURNING l.lane",
    )
    .bind(shared.iter().map(|s| s.0).collect::<Vec<_>>())
    .bind(shared.iter().map(|s| s.1).collect::<Vec<_>>())
    .bind(lease_ms)
    .fetch_all(db)
    .await?
    .into_iter()
    .collect();
    Ok(chosen.into_iter().filter(|c| c.lane.as_ref().is_none_or(|lane| taken.contains(lane))).collect())
}

/// Puts our lease and a new epoch into the chosen rows.
async fn take(inner: &Inner, db: &mut PgConnection, chosen: &[Candidate], want: &Want) -> Result<Vec<Claim>, Error> {
    let taken: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "UPDATE cases SET claim_epoch = nextval('epochs'), claim_seq = seq, claim_until_ms = now_ms() + $2, \
         claimed_by = $3 WHERE id = ANY($1) RETURNING id, body, claim_epoch",
    )
    .bind(rows::column(chosen, |c| c.id))
    .bind(want.lease_ms)
    .bind(inner.state.me)
    .fetch_all(db)
    .await?;
    let place = |id: &Uuid| chosen.iter().position(|c| c.id == *id);
    let mut claims = Vec::with_capacity(taken.len());
    for (id, body, epoch) in taken {
        match rows::json::<Case>("cases", &body) {
            // Our clock was read before the database's: the lease ends there no sooner than here.
            Ok(case) => {
                claims.push((place(&id), Claim { case, epoch, until_ms: want.steady_ms.saturating_add(want.lease_ms) }))
            }
            // One row that cannot be read must not stop all others.
            Err(_) => tracing::error!(case = %id, "a case cannot be read and is left out"),
        }
    }
    claims.sort_by_key(|(place, _)| *place);
    Ok(claims.into_iter().map(|(_, claim)| claim).collect())
}

/// The row of a case that is locked until the commit.
async fn locked(db: &mut PgConnection, id: CaseId) -> Result<Option<Case>, Error> {
    let body: Option<String> =
        sqlx::query_scalar("SELECT body FROM cases WHERE id = $1 FOR UPDATE").bind(id).fetch_optional(db).await?;
    body.map(|body| rows::json("cases", &body)).transpose()
}

/// See [`crate::journal::Journal::command`].
pub(super) async fn command(inner: &Inner, id: CaseId, record: Option<&Record>, now_ms: i64) -> Result<Case, Error> {
    let mut tx = inner.pool.begin().await?;
    let db = &mut *tx;
    let mut case = locked(db, id).await?.ok_or(Error::NoSuchCase)?;
    if case.state.is_closed() {
        return Err(Illegal { state: "closed", record: record.map_or("due", Record::name) }.into());
    }
    if let Some(record) = record {
        case = draft::appended(case, std::slice::from_ref(record))?;
        let put = RecordsPut::new(&case, now_ms, std::slice::from_ref(record))?;
        rows::put_records(db, &[put]).await?;
    }
    let verdict = match &case.state.phase {
        Phase::Closed { verdict } => Some(verdict),
        _ => None,
    };
    let (due_ms, closed_ms) = if verdict.is_some() { (i64::MAX, Some(now_ms)) } else { (now_ms, None) };
    let dead = match verdict {
        Some(Verdict::Dead { at_ms, .. }) => vec![Learned::of(&case, None, Some(*at_ms))],
        _ => Vec::new(),
    };
    let closed: Vec<Uuid> = verdict.iter().map(|_| id).collect();
    let put = CasePut { case: case.clone(), due_ms: Some(due_ms), closed_ms, claim: ClaimAfter::Ends };
    rows::update_cases(db, &[put]).await?;
    learn(db, &dead).await?;
    let counts = close_events(db, &closed).await?;
    let commits = inner.count(db, Way::Other, &counts).await?;
    tx.commit().await?;
    inner.acknowledge(Way::Other, commits);
    Ok(case)
}

/// See [`crate::journal::Journal::block`].
pub(super) async fn block(inner: &Inner, system: &str, until_ms: i64, reason: &str) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO systems VALUES ($1, $2, $3) ON CONFLICT (system) DO UPDATE \
         SET blocked_until_ms = excluded.blocked_until_ms, reason = excluded.reason",
    )
    .bind(system)
    .bind(until_ms)
    .bind(reason)
    .execute(&inner.pool)
    .await?;
    Ok(())
}

/// See [`crate::journal::Journal::saw`].
pub(super) async fn saw(
    inner: &Inner,
    tenant: &Tenant,
    id: &CredentialId,
    seen: &Observation,
    again_ms: Option<i64>,
) -> Result<(), Error> {
    let present = (seen.presence == Presence::Present).then_some(seen.at_ms);
    let mut tx = inner.pool.begin().await?;
    let db = &mut *tx;
    // An open case knows it too.
    if present.is_some() {
        let body: Option<String> = sqlx::query_scalar(
            "SELECT body FROM cases WHERE tenant = $1 AND credential = $2 AND closed_ms IS NULL FOR UPDATE",
        )
        .bind(&**tenant)
        .bind(id.as_str())
        .fetch_optional(&mut *db)
        .await?;
        if let Some(body) = body {
            let mut case: Case = rows::json("cases", &body)?;
            if case.seen_ms.is_none() {
                case.seen_ms = present;
                let put = CasePut { case, due_ms: None, closed_ms: None, claim: ClaimAfter::Stays };
                rows::update_cases(db, &[put]).await?;
            }
        }
    }
    sqlx::query(
        "UPDATE credentials SET seen_ms = coalesce(seen_ms, $1), issued_ms = coalesce($2, issued_ms), \
         expires_ms = coalesce($3, expires_ms), principal = coalesce($7, principal), lookup_due_ms = $4 \
         WHERE tenant = $5 AND id = $6",
    )
    .bind(present)
    .bind(seen.issued_ms)
    .bind(seen.expires_ms)
    .bind(again_ms)
    .bind(&**tenant)
    .bind(id.as_str())
    .bind(&seen.role)
    .execute(&mut *db)
    .await?;
    let commits = inner.count(db, Way::Other, &BTreeMap::new()).await?;
    tx.commit().await?;
    inner.acknowledge(Way::Other, commits);
    Ok(())
}
