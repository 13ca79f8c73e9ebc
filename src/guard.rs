//! The one gate before every effect. PURE: the executor gathers the facts, this says go or hold.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::case::record::Observation;
use crate::case::{Action, Case, HoldReason, Trigger};
use crate::credential::{CredentialId, Kind};
use crate::event::is_like;
use crate::scope::{self, Cut};
use crate::task::RunKey;

/// What a realm's cases may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decide, record, publish what would be done; no effect.
    #[default]
    Observe,
    /// Act.
    Enforce,
}

/// How far a freeze reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freeze {
    /// New cases stop at once; a case that has changed a target goes on to its next safe point.
    Soft,
    /// Everything stops before its next effect.
    Hard,
}

/// What a topic's producers may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Credential kinds, by name.
    pub kinds: BTreeSet<String>,
    /// The strongest action.
    pub strongest: Action,
}

impl Authority {
    /// Whether it reaches as far as what `case` does.
    pub fn covers(&self, case: &Case) -> bool {
        let directive = &case.directive;
        self.kinds.contains(directive.credential.kind_name()) && directive.action <= self.strongest
    }

    /// Whether it reaches as far as to end a credential of this kind.
    pub fn ends(&self, kind: &str) -> bool {
        self.kinds.contains(kind) && self.strongest >= Action::Revoke
    }
}

/// The authority under which a case may act: that of a topic on which its directive rests, or, where that does not reach,
/// of another topic that asked for as much and joined. Else a producer without authority that came first would keep one
/// with authority from having its way.
pub fn authority_of<'a>(case: &Case, of_topic: impl Fn(&str) -> Option<&'a Authority>) -> Option<&'a Authority> {
    let joined = case.state.joined.iter().filter(|(action, _)| *action >= case.directive.action);
    let asked = case.directive.asked_by().chain(joined.map(|(_, topic)| topic.as_str()));
    let mut authorities = asked.filter_map(of_topic).peekable();
    let first = authorities.peek().copied();
    authorities.find(|authority| authority.covers(case)).or(first)
}

/// What the guard looks at.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The case.
    pub case: &'a Case,
    /// The last look at the issuer.
    pub seen: Option<&'a Observation>,
    /// A freeze, if any.
    pub freeze: Option<Freeze>,
    /// The process started held (an older journal) and nobody released it.
    pub started_held: bool,
    /// The realm's mode; `None`: no connector serves it here.
    pub mode: Option<Mode>,
    /// What the event's topic may ask for; `None`: not configured, so nothing.
    pub authority: Option<&'a Authority>,
    /// Whose permissions the realm may take; empty: nobody's.
    pub reducible: &'a [String],
    /// Our clock.
    pub now_ms: i64,
    /// The realm's allowed prefixes of issuer ids; empty: none is allowed.
    pub allowed_prefixes: &'a [String],
    /// Ids (URNs) that are never touched: Curfew's own, break-glass.
    pub protected: &'a BTreeSet<String>,
    /// Wall and monotonic clock agree.
    pub clock_trusted: bool,
    /// Effects that the cap still allows this minute; `None`: no cap.
    pub cap_left: Option<u32>,
}

/// Go, or hold and why.
///
/// # Errors
/// The reason to hold.
pub fn check(facts: &Facts<'_>) -> Result<(), HoldReason> {
    let case = facts.case;
    let directive = &case.directive;
    // P6 first: what must never be touched is not touched under any mode.
    let is_fence = directive.cut.as_deref().is_some_and(Cut::is_fence);
    let protects = |id: &CredentialId| facts.protected.contains(id.as_str());
    if protects(&directive.credential)
        || (is_fence && protects(&scope::identity_of(&directive.credential)))
        || facts.seen.is_some_and(|seen| seen.protected)
    {
        return Err(HoldReason::Protected);
    }
    // What is only recorded has nothing to enforce, also when a person lets it go on.
    if directive.action == Action::Track {
        return Err(HoldReason::Finding);
    }
    match facts.freeze {
        Some(Freeze::Hard) => return Err(HoldReason::Frozen),
        Some(Freeze::Soft) if !case.state.acted || case.state.is_between_agents() => return Err(HoldReason::Frozen),
        _ => {}
    }
    if facts.started_held {
        return Err(HoldReason::StartedHeld);
    }
    let mode = facts.mode.ok_or(HoldReason::Unserved)?;
    if !facts.authority.is_some_and(|authority| authority.covers(case)) {
        return Err(HoldReason::Authority);
    }
    let is_allowed = if directive.action.rescopes() && is_fence {
        is_fenceable(&directive.credential, facts.reducible, facts.allowed_prefixes)
    } else if directive.action.rescopes() {
        is_reducible(&directive.credential, facts.reducible)
    } else {
        is_allowed(&directive.credential, facts.allowed_prefixes)
    };
    if !is_allowed {
        return Err(HoldReason::Prefix);
    }
    if let (Some(run), Some(named)) = (&directive.run, facts.seen.and_then(|seen| seen.run.as_deref()))
        && !named.is_empty()
        && !same_run(run, named)
    {
        return Err(HoldReason::OtherTask);
    }
    if !facts.clock_trusted && matches!(directive.trigger, Trigger::Deadline | Trigger::Heartbeat) {
        return Err(HoldReason::Clock);
    }
    // What has begun goes on.
    if !case.state.begun {
        if case.state.kept_until_ms.is_some_and(|until_ms| facts.now_ms < until_ms) {
            return Err(HoldReason::Kept);
        }
        if directive.not_before_ms.is_some_and(|from_ms| facts.now_ms < from_ms) {
            return Err(HoldReason::Notice);
        }
    }
    if mode == Mode::Observe {
        return Err(HoldReason::Observe);
    }
    if !case.charged && facts.cap_left == Some(0) {
        return Err(HoldReason::Cap);
    }
    Ok(())
}

/// The entry of a realm's allowed prefixes that allows tokens: they have no path.
pub const TOKENS: &str = "token:";

/// Begins the entries of a realm's allowed prefixes that allow the rotation of an AppRole's secret_id: each is of one role,
/// and allows nothing else of it.
pub const APPROLES: &str = "approle:";

/// Whether a realm's allowed prefixes reach this credential. Leases by `<mount>/creds/<role>/`, secret_ids by
/// `<mount>/<role>/`, access keys and their users by [`names_user`], tokens only by the explicit entry [`TOKENS`]. A prefix ends at a path segment, so that one role
/// does not allow another whose name looks alike; an id with empty, `.` or `..` segments is allowed by none.
pub fn is_allowed(credential: &CredentialId, prefixes: &[String]) -> bool {
    let kind = credential.kind();
    if kind == Kind::VaultToken {
        return prefixes.iter().any(|prefix| prefix == TOKENS);
    }
    let id = credential.id();
    if kind == Kind::AwsAccessKey {
        return id.rsplit_once('/').is_some_and(|(user, _)| names_user(prefixes, user));
    }
    if kind == Kind::AwsUser {
        return names_user(prefixes, &id);
    }
    if kind == Kind::VaultApprole {
        return prefixes.iter().any(|prefix| prefix.strip_prefix(APPROLES) == Some(&*id));
    }
    if kind == Kind::Unserved || id.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return false;
    }
    let is_path = |prefix: &&String| !prefix.is_empty() && *prefix != TOKENS && !prefix.starts_with(APPROLES);
    prefixes.iter().filter(is_path).any(|prefix| {
        id.strip_prefix(prefix.as_str())
            .is_some_and(|rest| prefix.ends_with('/') || rest.starts_with('/') || rest.is_empty())
    })
}

/// Whether permissions of this credential's identity may be taken: `reducible` names it as it is, or by a beginning and `*`. Of two
/// users in turn each must be named; of an access key its user.
pub fn is_reducible(credential: &CredentialId, reducible: &[String]) -> bool {
    let id = credential.id();
    let is_path = |name: &str| name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let named = |name: &str| is_path(name) && reducible.iter().any(|one| is_like(name, one) && one != "*");
    match credential.kind() {
        Kind::PostgresRole => id.split(',').all(named),
        Kind::VaultApprole | Kind::AwsUser => named(&id),
        Kind::AwsAccessKey => id.rsplit_once('/').is_some_and(|(user, _)| named(user)),
        _ => false,
    }
}

/// Whether this identity may be closed while its values die, and opened again: whose permissions may be taken. A user of IAM: whose
/// keys may be disabled, since the same login can deny it everything.
pub fn is_fenceable(identity: &CredentialId, reducible: &[String], prefixes: &[String]) -> bool {
    match identity.kind() {
        Kind::AwsUser => names_user(prefixes, &identity.id()),
        _ => is_reducible(identity, reducible),
    }
}

/// Whether `users` name the user of IAM at `<path><name>`: as it is, or by a path that ends in `/`. A name allows nobody
/// below a path that looks like it.
pub fn names_user(users: &[String], user: &str) -> bool {
    if user.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return false;
    }
    let names = |one: &String| user == one || (one.len() > 1 && one.ends_with('/') && user.starts_with(one.as_str()));
    users.iter().any(names)
}

/// Whether the issuer's metadata names this run: with a colon in it by the whole key, else by the run id alone.
pub fn same_run(run: &RunKey, named: &str) -> bool {
    run.as_str() == named || (!named.contains(':') && run.parts().is_some_and(|(_, id)| id == named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_iam_is_reduced_by_its_whole_name_also_by_one_of_its_keys() {
        let named = ["ci/etl".to_owned(), "agents/*".to_owned(), "*".to_owned()];
        let key = "/AKIAIOSFODNN7EXAMPLE";
        for (user, expected) in [
            ("ci/etl", true),
            ("ci/etl2", false),
            ("etl", false),
            ("agents/a", true),
            ("agents/deep/a", true),
            ("agents/../admin", false),
            ("other/agents/a", false),
        ] {
            let of = |kind, id: &str| CredentialId::new(kind, "cloud", id).is_ok_and(|id| is_reducible(&id, &named));
            assert_eq!(of(Kind::AwsUser, user), expected, "{user}");
            assert_eq!(of(Kind::AwsAccessKey, &format!("{user}{key}")), expected, "{user}");
        }
    }
}
