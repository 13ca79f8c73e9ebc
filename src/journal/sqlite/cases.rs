//! Claims and what is appended under them; a person's word on a case.

use std::collections::{HashMap, HashSet, VecDeque};

use rusqlite::params;

use super::rows::{self, all, exec, one};
use super::writer::{Held, Writer};
use super::{Error, leaving};
use crate::case::rank::{self, Rank};
use crate::case::record::{Observation, Presence, Record, Verdict};
use crate::case::state::{Illegal, Phase};
use crate::case::{Case, CaseId};
use crate::credential::CredentialId;
use crate::journal::{Append, Claim, Old, Want, draft};

/// Due cases beyond the wanted ones that one claim looks at for free lanes.
const LOOK_AHEAD: usize = 256;

/// Due and unblocked cases of one system, in order, without those that are claimed or whose lane is.
fn candidates(
    w: &Writer,
    system: &str,
    room: usize,
    now_ms: i64,
    lanes: &HashSet<String>,
) -> Result<VecDeque<(CaseId, String)>, Error> {
    let mut found = VecDeque::new();
    let mut mine = HashSet::new();
    let limit = i64::try_from(room + w.claims.len() + LOOK_AHEAD).unwrap_or(i64::MAX);
    for rank in Rank::DESCENDING {
        let mut statement = w.db.prepare_cached(
            "SELECT id, credential FROM cases WHERE closed_ms IS NULL AND system=? AND urgency=? AND due_ms<=? \
             ORDER BY due_ms LIMIT ?",
        )?;
        let mut rows = statement.query(params![system, rank.number(), now_ms, limit])?;
        while let Some(row) = rows.next()? {
            let id = CaseId::from_bytes(row.get(0)?);
            if w.claims.contains_key(&id) {
                continue;
            }
            let credential = row.get_ref(1)?.as_str().map_err(|_| Error::Corrupt { what: "cases" })?;
            let credential = CredentialId::parse(credential).map_err(|_| Error::Corrupt { what: "cases" })?;
            let lane = draft::lane(&credential);
            if lanes.contains(&lane) || !mine.insert(lane.clone()) {
                continue;
            }
            found.push_back((id, lane));
            if found.len() >= room {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// See [`crate::journal::Journal::claim`].
pub(super) fn claim(w: &mut Writer, want: &Want) -> Result<Vec<Claim>, Error> {
    w.claims.retain(|_, held| held.until_ms > want.steady_ms);
    let mut lanes: HashSet<String> = HashSet::new();
    let mut busy: HashMap<String, usize> = HashMap::new();
    for held in w.claims.values() {
        lanes.insert(held.case.lane.clone());
        *busy.entry(held.case.system.clone()).or_default() += 1;
    }
    let (before, after): (Vec<_>, Vec<_>) = w.mem.systems.iter().cloned().partition(|s| *s <= w.turn);
    let mut round = Vec::new();
    for system in after.into_iter().chain(before) {
        if want.only.as_ref().is_some_and(|only| !only.systems.contains(&system)) {
            continue;
        }
        let blocked = w.mem.blocked.get(&system).is_some_and(|until| *until > want.now_ms);
        let room = want.max_per_system.saturating_sub(busy.get(&system).copied().unwrap_or(0)).min(want.max);
        if !blocked && room > 0 {
            let due = candidates(w, &system, room, want.now_ms, &lanes)?;
            if !due.is_empty() {
                round.push((system, due));
            }
        }
    }
    let mut claims = Vec::new();
    while claims.len() < want.max && !round.is_empty() {
        for (system, due) in &mut round {
            if claims.len() >= want.max {
                break;
            }
            let Some((id, lane)) = due.pop_front() else { continue };
            if !lanes.insert(lane) {
                continue;
            }
            let stored = match rows::case_by_id(&w.db, id) {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                // One row that cannot be read must not stop all others.
                Err(Error::Corrupt { what }) => {
                    tracing::error!(case = %id, what, "a case cannot be read and is left out");
                    continue;
                }
                Err(e) => return Err(e),
            };
            let actions = want.only.as_ref().and_then(|only| only.actions.as_ref());
            if actions.is_some_and(|actions| !actions.contains(&stored.case.directive.action)) {
                continue;
            }
            w.claimed += 1;
            let claim = Claim {
                epoch: (w.start << 40) | w.claimed,
                until_ms: want.steady_ms.saturating_add(want.lease_ms),
                case: stored.case,
            };
            w.touched.insert(id);
            w.claims.insert(
                id,
                Held {
                    epoch: claim.epoch,
                    until_ms: claim.until_ms,
                    expect: claim.case.seq,
                    case: claim.case.clone(),
                    learned: stored.learned,
                },
            );
            w.turn.clone_from(system);
            claims.push(claim);
        }
        round.retain(|(_, due)| !due.is_empty());
    }
    Ok(claims)
}

/// See [`crate::journal::Journal::append`]. While the claim is kept only the records are written: the row follows when
/// the case closes or the claim is given back, and whoever loads it before folds in the records that it lacks.
pub(super) fn append(w: &mut Writer, a: Append) -> Result<Case, Error> {
    let Some(held) = w.claims.get(&a.case).filter(|held| held.epoch == a.epoch && held.expect == a.seq) else {
        return Err(Error::ClaimVoid);
    };
    let mut case = draft::appended(held.case.clone(), &a.records)?;
    let learned = a.learned.or_else(|| held.learned.clone());
    if let Some(cap) = a.charge.filter(|_| !case.charged) {
        let cost = rank::cost(case.blast);
        if !rank::fits(w.charges(a.now_ms)?, cost, cap) {
            return Err(Error::CapReached);
        }
        w.mem.charges.1 += cost;
        w.charged = true;
        case.charged = true;
    }
    let seen = learned.as_ref().filter(|seen| seen.presence == Presence::Present).map(|seen| seen.at_ms);
    case.seen_ms = case.seen_ms.or(seen);
    w.touched.insert(case.id);
    rows::put_records(&w.db, (&case.tenant, case.id), case.seq, a.now_ms, &a.records)?;
    leaving::note(&w.db, &case, &a.records)?;
    if case.state.is_closed() {
        close(w, &case, learned.as_ref(), a.now_ms)?;
        w.claims.remove(&case.id);
    } else if a.keep {
        if let Some(held) = w.claims.get_mut(&case.id) {
            held.case = case.clone();
            held.expect = case.seq;
            held.learned = learned;
        }
    } else {
        rows::put_case(&w.db, false, &case, a.due_ms, None)?;
        if let Some(seen) = &learned {
            learn(w, &case, Some(seen), None)?;
        }
        w.claims.remove(&case.id);
    }
    for message in &a.messages {
        w.send(message, a.now_ms)?;
    }
    Ok(case)
}

/// Everything that follows from a case's end.
fn close(w: &mut Writer, case: &Case, learned: Option<&Observation>, now_ms: i64) -> Result<(), Error> {
    let Phase::Closed { verdict } = &case.state.phase else { return Ok(()) };
    rows::put_case(&w.db, false, case, i64::MAX, Some(now_ms))?;
    let left = all(
        &w.db,
        "UPDATE events SET open_cases = open_cases - 1 WHERE tenant = ?1 AND id IN \
         (SELECT event_id FROM links WHERE tenant = ?1 AND case_id = ?2) RETURNING open_cases",
        params![case.tenant, case.id.as_bytes()],
        |row| row.get::<_, i64>(0),
    )?;
    w.count("closed", left.iter().filter(|open| **open == 0).map(|_| 1).sum());
    w.count("cases_closed", 1);
    let dead_ms = match verdict {
        Verdict::Dead { at_ms, .. } if case.ends_credential() => Some(*at_ms),
        _ => None,
    };
    if learned.is_some() || dead_ms.is_some() || case.state.turn.new.is_some() {
        learn(w, case, learned, dead_ms)?;
    }
    Ok(())
}

/// What a case learned of its credential. Alive after its death: the death is not recorded any more.
pub(super) fn learn(w: &Writer, case: &Case, seen: Option<&Observation>, dead_ms: Option<i64>) -> Result<(), Error> {
    let (version, promoted_ms) = case.settled().map_or((None, None), |(version, at)| (Some(version), at));
    exec(
        &w.db,
        "UPDATE credentials SET seen_ms = coalesce(seen_ms, ?), issued_ms = coalesce(?, issued_ms), \
         expires_ms = coalesce(?, expires_ms), dead_ms = iif(? IS NOT NULL, ?, iif(?, NULL, dead_ms)), \
         version = coalesce(max(version, ?), version, ?), lookup_due_ms = NULL WHERE tenant = ? AND id = ?",
        params![
            case.seen_ms,
            promoted_ms.or(seen.and_then(|s| s.issued_ms)),
            seen.and_then(|s| s.expires_ms),
            dead_ms,
            dead_ms,
            case.lives(seen),
            version,
            version,
            case.tenant,
            case.directive.credential.as_str()
        ],
    )?;
    Ok(())
}

/// See [`crate::journal::Journal::unclaim`].
pub(super) fn unclaim(w: &mut Writer, id: CaseId, epoch: i64, due_ms: i64) -> Result<(), Error> {
    if w.claims.get(&id).is_none_or(|held| held.epoch != epoch) {
        return Err(Error::ClaimVoid);
    }
    w.touched.insert(id);
    if let Some(held) = w.claims.remove(&id) {
        rows::put_case(&w.db, false, &held.case, due_ms, None)?;
        if let Some(seen) = &held.learned {
            learn(w, &held.case, Some(seen), None)?;
        }
    }
    Ok(())
}

/// See [`crate::journal::Journal::command`].
pub(super) fn command(w: &mut Writer, id: CaseId, record: Option<&Record>, now_ms: i64) -> Result<Case, Error> {
    let stored = rows::case_by_id(&w.db, id)?.ok_or(Error::NoSuchCase)?;
    let held = w.claims.get(&id);
    let learned = held.and_then(|held| held.learned.clone());
    let mut case = held.map_or(stored.case, |held| held.case.clone());
    if case.state.is_closed() {
        return Err(Illegal { state: "closed", record: record.map_or("due", Record::name) }.into());
    }
    if let Some(record) = record {
        case = draft::appended(case, std::slice::from_ref(record))?;
        rows::put_records(&w.db, (&case.tenant, id), case.seq, now_ms, std::slice::from_ref(record))?;
    }
    w.touched.insert(id);
    w.claims.remove(&id);
    if case.state.is_closed() {
        close(w, &case, learned.as_ref(), now_ms)?;
    } else {
        rows::put_case(&w.db, false, &case, now_ms, None)?;
        if let Some(seen) = &learned {
            learn(w, &case, Some(seen), None)?;
        }
    }
    Ok(case)
}

/// See [`crate::journal::Journal::block`].
pub(super) fn block(w: &mut Writer, system: &str, until_ms: i64, reason: &str) -> Result<(), Error> {
    exec(
        &w.db,
        "INSERT INTO systems VALUES (?,?,?) ON CONFLICT DO UPDATE SET blocked_until_ms=excluded.blocked_until_ms, \
         reason=excluded.reason",
        params![system, until_ms, reason],
    )?;
    w.mem.blocked.insert(system.to_owned(), until_ms);
    Ok(())
}

/// See [`crate::journal::Journal::saw`].
pub(super) fn saw(
    w: &mut Writer,
    tenant: &str,
    id: &CredentialId,
    seen: &Observation,
    again_ms: Option<i64>,
) -> Result<(), Error> {
    let present = (seen.presence == Presence::Present).then_some(seen.at_ms);
    exec(
        &w.db,
        "UPDATE credentials SET seen_ms = coalesce(seen_ms, ?), issued_ms = coalesce(?, issued_ms), \
         expires_ms = coalesce(?, expires_ms), principal = coalesce(?, principal), lookup_due_ms = ? \
         WHERE tenant = ? AND id = ?",
        params![present, seen.issued_ms, seen.expires_ms, seen.role, again_ms, tenant, id.as_str()],
    )?;
    // An open case knows it too.
    if present.is_some()
        && let Some(mut stored) = rows::open_case(&w.db, &tenant.into(), id)?
        && stored.case.seen_ms.is_none()
    {
        let id = stored.case.id;
        if let Some(held) = w.claims.get_mut(&id) {
            held.case.seen_ms = held.case.seen_ms.or(present);
            w.touched.insert(id);
            return Ok(());
        }
        stored.case.seen_ms = present;
        rows::put_case(&w.db, false, &stored.case, stored.due_ms, None)?;
    }
    Ok(())
}

/// See [`crate::journal::Journal::prune`].
pub(super) fn prune(w: &Writer, old: Old, max: usize) -> Result<u64, Error> {
    let (db, closed_before) = (&w.db, old.closed_ms);
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let left = |done: usize| max.saturating_sub(i64::try_from(done).unwrap_or(i64::MAX)).max(0);
    let sql = "DELETE FROM seen WHERE hash IN (SELECT hash FROM seen WHERE at_ms < ? ORDER BY at_ms LIMIT ?)";
    let mut done = exec(db, sql, params![old.seen_ms, max])?;
    let sql = "DELETE FROM events WHERE (tenant, id) IN (SELECT tenant, id FROM events WHERE linked = 0 AND at_ms < ? \
               ORDER BY at_ms LIMIT ?)";
    done += exec(db, sql, params![old.events_ms, left(done)])?;
    exec(db, "DELETE FROM charges WHERE minute < ?", [closed_before.div_euclid(60_000)])?;
    let sql = "SELECT tenant, id FROM cases WHERE closed_ms < ? AND closed_ms IS NOT NULL ORDER BY closed_ms LIMIT ?";
    let closed = all(db, sql, params![closed_before, left(done)], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, [u8; 16]>(1)?))
    })?;
    for (tenant, id) in closed {
        if left(done) == 0 {
            break;
        }
        done += exec(db, "DELETE FROM records WHERE tenant=? AND case_id=?", params![tenant, id])?;
        let sql = "DELETE FROM links WHERE tenant=? AND case_id=?";
        done += exec(db, sql, params![tenant, id])?;
        done += exec(db, "DELETE FROM cases WHERE id=?", params![id])?;
    }
    let sql = "DELETE FROM findings WHERE id IN (SELECT id FROM findings WHERE phase > 0 AND last_ms < ? \
               ORDER BY last_ms LIMIT ?)";
    done += exec(db, sql, params![closed_before, left(done)])?;
    // Ended tasks without an open case, with their grants and the credentials that nobody else holds and no case is about.
    // What an inventory knows stays: it says so once.
    let sql = "SELECT tenant, run FROM tasks t WHERE phase = 2 AND ended_ms < ? AND NOT EXISTS (SELECT 1 FROM grants g \
               JOIN cases c ON c.tenant = g.tenant AND c.credential = g.credential AND c.closed_ms IS NULL \
               WHERE g.tenant = t.tenant AND g.run = t.run) ORDER BY ended_ms LIMIT ?";
    let ended = all(db, sql, params![closed_before, left(done)], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    for (tenant, run) in ended {
        if left(done) == 0 {
            break;
        }
        let held = all(db, "SELECT credential FROM grants WHERE tenant=? AND run=?", [&tenant, &run], |row| {
            row.get::<_, String>(0)
        })?;
        done += exec(db, "DELETE FROM grants WHERE tenant=? AND run=?", [&tenant, &run])?;
        for credential in held {
            done += exec(
                db,
                "DELETE FROM credentials WHERE tenant = ?1 AND id = ?2 \
                 AND version IS NULL AND environment IS NULL AND owner IS NULL \
                 AND NOT EXISTS (SELECT 1 FROM grants WHERE tenant = ?1 AND credential = ?2) \
                 AND NOT EXISTS (SELECT 1 FROM cases WHERE tenant = ?1 AND credential = ?2 AND closed_ms IS NULL)",
                [&tenant, &credential],
            )?;
        }
        done += exec(db, "DELETE FROM tasks WHERE tenant=? AND run=?", [&tenant, &run])?;
    }
    // Events that are closed, by their time-ordered ids.
    let tenant = one(db, "SELECT tenant FROM events ORDER BY tenant, id LIMIT 1", [], |row| row.get::<_, String>(0))?;
    let mut next = tenant;
    while let Some(tenant) = next {
        done += exec(
            db,
            "DELETE FROM events WHERE (tenant, id) IN (SELECT tenant, id FROM events WHERE tenant=?1 AND id < ?2 \
             AND open_cases = 0 AND at_ms < ?3 ORDER BY id LIMIT ?4)",
            params![tenant, time_prefix(closed_before), closed_before, left(done)],
        )?;
        let sql = "SELECT tenant FROM events WHERE tenant > ? ORDER BY tenant LIMIT 1";
        next = one(db, sql, [&tenant], |row| row.get::<_, String>(0))?;
    }
    Ok(u64::try_from(done).unwrap_or(u64::MAX))
}

/// The smallest UUIDv7 of a time.
fn time_prefix(ms: i64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&ms.max(0).to_be_bytes()[2..]);
    id
}
