//! What sightings prove. PURE: the connectors look, this judges.

use crate::case::record::{KilledBy, Level, Presence, Residue, UnknownWhy, Verdict};
use crate::case::{Action, Case, state::Phase};

/// When a credential counts as dead, and how soon to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settle {
    /// How long the provider may go on accepting what it said is gone; 0: one sighting proves.
    pub window_ms: i64,
    /// Refusals needed when the window is not zero, spread over it.
    pub sightings: u32,
}

/// What to do after a sighting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is over.
    Close(Verdict),
    /// Look again, not before `at_ms`.
    Again {
        /// When.
        at_ms: i64,
    },
    /// Nothing was proven and nothing refuted: retry by the schedule.
    Retry,
}

/// What the proving series of `case` proves at `now_ms`.
pub fn judge(case: &Case, settle: Settle, now_ms: i64) -> Judgement {
    let state = &case.state;
    let series = &state.series;
    let issuer = state.issuer();
    // What was given back was seen to be there: one look shows it.
    if case.directive.action == Action::Restore {
        if series.refused > 0 && issuer.is_some_and(|seen| seen.presence == Presence::Gone) {
            return Judgement::Close(Verdict::NotFound);
        }
        return if series.broken > 0 {
            Judgement::Close(Verdict::RolledBack { at_ms: now_ms })
        } else {
            Judgement::Retry
        };
    }
    if let Some(expires_ms) = issuer.filter(|seen| seen.only_expires).and_then(|seen| seen.expires_ms)
        && now_ms < expires_ms
    {
        return Judgement::Again { at_ms: expires_ms };
    }
    let (Some(first_ms), Some(last_ms), Some(level)) = (series.first_ms, series.last_ms, series.level) else {
        return Judgement::Retry;
    };
    if !series.control {
        return Judgement::Retry;
    }
    // A target that never knew the user proves nothing by not knowing it: the name or the target may be wrong.
    let level = if state.principal_id.is_none() { Level::Issuer } else { level };
    let window_ms = settle.window_ms.max(0);
    let needed = if window_ms == 0 { 1 } else { settle.sightings.max(2) };
    if series.refused < needed || last_ms.saturating_sub(first_ms) < window_ms {
        let gap = window_ms / i64::from(needed.saturating_sub(1).max(1));
        return Judgement::Again { at_ms: last_ms.saturating_add(gap.max(1)) };
    }
    // Nobody ever saw it: a look that was unclear does not make it known, nor does a revoke of what hung on it.
    let seen = case.seen_ms.is_some()
        || issuer.is_some_and(|seen| seen.presence == Presence::Present || seen.issued_ms.is_some());
    let never_seen = !seen && !state.killed;
    if never_seen && level == Level::Issuer {
        return Judgement::Close(Verdict::NotFound);
    }
    let mut residue: Vec<Residue> = state.residue.clone();
    for one in &series.residue {
        if !residue.contains(one) {
            residue.push(*one);
        }
    }
    if case.directive.action == Action::Reduce {
        let taken = u32::try_from(state.cutting.taken.len()).unwrap_or(u32::MAX);
        return Judgement::Close(Verdict::Reduced { at_ms: first_ms, sightings: series.refused, taken, residue });
    }
    // Nobody else was moved, and what they share lives.
    if case.directive.moves().is_some() {
        if state.moved.is_empty() {
            return Judgement::Close(Verdict::Obsolete);
        }
        residue.push(Residue::StillShared);
        let taken = state.moved.iter().fold(0, |sum: u32, one| sum.saturating_add(one.withheld));
        return Judgement::Close(Verdict::Reduced { at_ms: first_ms, sightings: series.refused, taken, residue });
    }
    let by = if state.is_ours() { KilledBy::Curfew } else { KilledBy::Others };
    Judgement::Close(Verdict::Dead { level, at_ms: first_ms, sightings: series.refused, by, residue })
}

/// What can be said of a case that is not closed (P8).
pub fn standing(case: &Case) -> Verdict {
    match &case.state.phase {
        Phase::Closed { verdict } => verdict.clone(),
        // Held in the middle of it, nobody's decision keeps it alive.
        Phase::Held { reason } if case.state.may_be_dead() => Verdict::Unknown { why: UnknownWhy::Held(*reason) },
        Phase::Held { reason } => Verdict::Alive { by: *reason },
        Phase::Abandoned => Verdict::Unknown { why: UnknownWhy::Abandoned },
        Phase::Open => {
            if let Some(at_ms) = case.state.issuer().filter(|seen| seen.only_expires).and_then(|seen| seen.expires_ms) {
                return Verdict::DiesAt { at_ms };
            }
            let why = match case.state.name() {
                "in_doubt" => UnknownWhy::InDoubt,
                "retrying" => UnknownWhy::Unreachable,
                "proving" => UnknownWhy::Proving,
                _ => UnknownWhy::Pending,
            };
            Verdict::Unknown { why }
        }
    }
}
