//! Half-made cases: what a hard freeze leaves behind, and what mends it by hand. PURE.
//!
//! A plan whose one effect is at Vault has no half state: before it the credential lives, after it it is dead. Only plans
//! with more effects than one stand in between: a PostgreSQL user that may not log in while its lease lives, and what is
//! still open (sessions, derived tokens) after the credential itself was revoked; and rotations, whose stored and working
//! values differ for a while.

use serde::Serialize;

use crate::case::plan::{Act, Step};
use crate::case::record::{Presence, Residue};
use crate::case::state::{Phase, State};
use crate::case::{Case, CaseId};
use crate::credential::{CredentialId, Kind};

/// A case between two of its effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HalfMade {
    /// Which.
    pub case: CaseId,
    /// On what.
    pub credential: CredentialId,
    /// What is half done.
    pub what: &'static str,
    /// The system behind at which it is; `None`: the plan is being made anew.
    pub at: Option<String>,
    /// Whether it goes on by itself after `curfew release`: not if it was abandoned.
    pub goes_on: bool,
    /// What a person can run, each with what it is good for.
    pub by_hand: Vec<ByHand>,
}

/// A command, quoted as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ByHand {
    /// What it is good for.
    pub to: &'static str,
    /// For a shell, or SQL for the system behind.
    pub run: String,
}

/// What of `case` is half-made, if anything is.
pub fn half_made(case: &Case) -> Option<HalfMade> {
    let state = &case.state;
    if state.is_closed() || !state.acted {
        return None;
    }
    let id = &case.directive.credential;
    let principal = case.principal.as_deref();
    let (what, at, by_hand) = if case.directive.action.rescopes() {
        let (what, at) = rescoping(state)?;
        (what, Some(at), vec![rolls_back(case)])
    } else if let Some((what, at)) = shut(state) {
        (what, Some(at), Vec::new())
    } else if id.kind() == Kind::AwsAccessKey {
        let (what, at) = disabled(state)?;
        (what, Some(at), vec![enables(id)])
    } else if id.kind().rotates() {
        let (what, at) = rotating(state)?;
        (what, at, Vec::new())
    } else if state.killed {
        let (what, at) = still_open(state)?;
        (what, Some(at), vec![ends_sessions(state, principal)])
    } else {
        let (what, at) = fenced(state, principal)?;
        (what, at, vec![revokes(id), lets_in(principal)])
    };
    let goes_on = state.phase != Phase::Abandoned;
    let by_hand = by_hand.into_iter().flatten().collect();
    Some(HalfMade { case: case.id, credential: id.clone(), what, at, goes_on, by_hand })
}

/// Between what an identity may do and what it is to do.
fn rescoping(state: &State) -> Option<(&'static str, String)> {
    let what = match state.current()?.act {
        Act::Narrow if state.in_doubt => "permissions may have been taken, and nothing was compared yet",
        Act::Test | Act::Prove if state.cutting.begun => {
            "permissions were taken, and that was not compared or proven yet"
        }
        Act::Widen if state.in_doubt => "what was taken may be there again, or only some of it",
        _ => return None,
    };
    Some((what, state.current()?.system.clone()))
}

/// Whether whoever it lets in as is closed, or perhaps, while no value of it has died.
fn shut(state: &State) -> Option<(&'static str, String)> {
    let plan = state.plan.as_ref()?;
    let at = plan.find(Act::Fence)?;
    let next = plan.steps.iter().skip(at + 1).position(|step| step.act.has_effect()).map(|behind| at + 1 + behind)?;
    let begins = state.step == next && !state.in_doubt;
    let is_it = (state.step == at && state.in_doubt) || (state.step > at && state.step < next) || begins;
    let what = "its identity is fenced, or may be, and its values live: they let nobody in";
    (is_it && !state.cutting.fenced().is_empty()).then(|| (what, plan.steps[at].system.clone()))
}

fn rolls_back(case: &Case) -> Option<ByHand> {
    let taken = !case.state.cutting.missing().is_empty();
    let run = format!("curfew rollback {} --reason 'half-made'", case.id);
    taken.then_some(ByHand { to: "give back what was taken, once released", run })
}

/// Between which two values a rotation stands. By hand nothing safe can be said: only the case knows which value is whose.
fn rotating(state: &State) -> Option<(&'static str, Option<String>)> {
    let doubt = |act| state.in_doubt && state.current().is_some_and(|step| step.act == act);
    let what = if state.turn.new.is_some() {
        let replaced = "consumers read the new value; the old one may still work";
        state.proven.is_none().then_some(replaced)?
    } else if state.turn.is_set || doubt(Act::Set) || doubt(Act::Begin) || doubt(Act::Mint) {
        "the target may have a new value that consumers do not read yet"
    } else if state.fenced || doubt(Act::Disable) {
        "the old value may be shut out, and there is no new one yet"
    } else {
        return None;
    };
    Some((what, state.current().map(|step| step.system.clone())))
}

/// Whether the user may not log in, or perhaps not, while its credential was not revoked.
fn fenced(state: &State, principal: Option<&str>) -> Option<(&'static str, Option<String>)> {
    let Some(plan) = &state.plan else {
        let what = "the user may be NOLOGIN, its lease is not revoked; the plan is being made anew";
        return principal.map(|_| (what, None));
    };
    let (index, step) = plan.steps.iter().enumerate().find(|(_, step)| step.act == Act::Disable)?;
    let is_gone = state.observation_for(step).is_some_and(|seen| seen.presence == Presence::Gone);
    let what = match state.step.cmp(&index) {
        _ if is_gone || state.residue.contains(&Residue::NotFenced) => return None,
        std::cmp::Ordering::Less => return None,
        std::cmp::Ordering::Equal if state.in_doubt => "the user may be NOLOGIN, its lease is not revoked",
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater
            if state.in_doubt && state.current().is_some_and(|step| step.act == Act::Revoke) =>
        {
            "the user is NOLOGIN, its lease may be revoked"
        }
        std::cmp::Ordering::Greater => "the user is NOLOGIN, its lease is not revoked",
    };
    Some((what, Some(step.system.clone())))
}

/// Between a key that is disabled and the end of what was opened with it.
fn disabled(state: &State) -> Option<(&'static str, String)> {
    let plan = state.plan.as_ref()?;
    let ends = plan.find(Act::EndSessions)?;
    let at = plan.steps.get(ends)?.system.clone();
    let rest = plan.steps.get(state.step..).unwrap_or_default();
    let cuts = rest.iter().any(|step| step.act == Act::RevokeDerived);
    let what = match state.current()?.act {
        Act::Disable if state.in_doubt => "the key may be disabled, its user's sessions are open",
        Act::EndSessions if state.fenced => "the key is disabled, its user's sessions may be open",
        Act::EndSessions => "the key is gone, its user's sessions may be open",
        Act::Observe | Act::RevokeDerived if state.step > ends && cuts => {
            "the key is disabled or gone, sessions of roles that its user assumed may be open"
        }
        _ => return None,
    };
    Some((what, at))
}

/// Which account it is of, the shell's own login says.
fn enables(id: &CredentialId) -> Option<ByHand> {
    let name = id.id();
    let (user, key) = name.rsplit_once('/')?;
    let user = for_shell(user.rsplit('/').next().unwrap_or(user));
    let key = for_shell(key);
    let run = format!("aws iam update-access-key --user-name {user} --access-key-id {key} --status Active");
    Some(ByHand { to: "undo it", run })
}

/// What may still be open though the credential was revoked.
fn still_open(state: &State) -> Option<(&'static str, String)> {
    let rest: &[Step] = state.plan.as_ref()?.steps.get(state.step..)?;
    rest.iter().find_map(|step| match step.act {
        Act::EndSessions if !state.sessions_ended(step) => {
            Some(("its lease is revoked, its sessions may be open", step.system.clone()))
        }
        Act::RevokeDerived => Some(("the secret_id is destroyed, its tokens may live", step.system.clone())),
        _ => None,
    })
}

fn revokes(id: &CredentialId) -> Option<ByHand> {
    // What could hide or turn is no command to be pasted.
    let name = id.id();
    let is_plain = name.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    (id.kind() == Kind::VaultLease && is_plain)
        .then(|| ByHand { to: "end it", run: format!("vault lease revoke {}", for_shell(&name)) })
}

fn lets_in(principal: Option<&str>) -> Option<ByHand> {
    let run = format!("ALTER ROLE {} LOGIN;", quoted(principal?, '"')?);
    Some(ByHand { to: "undo it", run })
}

/// By the user's immutable id: after DROP ROLE its name finds no session.
fn ends_sessions(state: &State, principal: Option<&str>) -> Option<ByHand> {
    let step = state.plan.as_ref()?.steps.get(state.step..)?.iter().find(|step| step.act == Act::EndSessions);
    let by = match state.principal_id.as_deref().filter(|oid| oid.bytes().all(|b| b.is_ascii_digit())) {
        Some(oid) => format!("usesysid = {oid}"),
        None => format!("usename = {}", quoted(principal?, '\'')?),
    };
    step.map(|_| ByHand {
        to: "end it",
        run: format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {by};"),
    })
}

/// Names come from events: one that a terminal or a parser would read otherwise than a person is given no command.
fn quoted(name: &str, mark: char) -> Option<String> {
    let plain = !name.is_empty() && name.chars().all(|c| c != '\\' && (c.is_ascii_graphic() || c == ' '));
    plain.then(|| format!("{mark}{}{mark}", name.replace(mark, &format!("{mark}{mark}"))))
}

/// An argument that a shell takes as it stands.
fn for_shell(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.:=@".contains(&b)) && !text.starts_with('-');
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
#[path = "half/tests.rs"]
mod tests;
