//! Whether what rests on "nobody used it" may still be done, asked just before its first effect. PURE.

use super::{Told, Uses};
use crate::case::{Case, Directive};
use crate::credential::Kind;
use crate::finding;
use crate::reach::notice::{Sort, TOPIC};
use crate::scope::Permission;

/// What the log says of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apply {
    /// It rests on no use, or nothing of it was used.
    Go,
    /// These were used since: they stay.
    Spare(Vec<Permission>),
    /// All of it was used since.
    Withdraw,
    /// The log does not say yet: what is not known stays.
    Wait,
}

/// On which finding of reach a directive rests that may be over when it begins: on silence, or on how long tasks live.
pub fn rests_on(directive: &Directive) -> Option<Sort> {
    let finding = directive.finding.as_deref()?;
    let is = |sort: &Sort| finding.starts_with(&finding::id(TOPIC, &format!("{}:", sort.as_str())));
    [Sort::Unused, Sort::Dormant, Sort::LongLived].into_iter().find(is)
}

/// Frozen ∩ still unused, since the finding that froze it. All of the notice must have been read.
pub fn apply(case: &Case, uses: &Uses, now_ms: i64) -> Apply {
    let directive = &case.directive;
    let Some(sort) = rests_on(directive) else { return Apply::Go };
    let id = &directive.credential;
    let (realm, name) = (id.instance(), id.id());
    let role = match id.kind() {
        Kind::VaultApprole => name.as_ref(),
        Kind::VaultSecretId => name.rsplit_once('/').map_or(name.as_ref(), |(role, _)| role),
        // What other systems tell is in the finding alone.
        _ => return Apply::Go,
    };
    // So late may the log have been when it was found.
    let Some(log) = uses.log(realm) else { return Apply::Wait };
    let from_ms = directive.broker_ms.saturating_sub(log.stale_ms);
    if log.until_ms < directive.not_before_ms.unwrap_or(directive.broker_ms) {
        return Apply::Wait;
    }
    let was_used = |told| match told {
        Told::Last(last_ms) => Some(last_ms.is_some_and(|last_ms| last_ms >= from_ms)),
        _ => None,
    };
    if sort == Sort::Dormant {
        return match was_used(uses.anything(realm, role, from_ms, now_ms)) {
            None => Apply::Wait,
            Some(true) => Apply::Withdraw,
            Some(false) => Apply::Go,
        };
    }
    let frozen = directive.cut.iter().flat_map(|cut| &cut.permissions);
    let frozen: Vec<&Permission> = frozen.filter(|one| !case.state.cutting.spared.contains(one)).collect();
    let mut spared = Vec::new();
    for permission in &frozen {
        let ("policy", policy) = permission.parts() else { continue };
        match was_used(uses.policy(realm, role, policy, from_ms, now_ms)) {
            None => return Apply::Wait,
            Some(true) => spared.push((*permission).clone()),
            Some(false) => {}
        }
    }
    match spared.len() {
        // Nothing is named that was not used.
        0 if frozen.is_empty() => Apply::Withdraw,
        0 => Apply::Go,
        some if some == frozen.len() => Apply::Withdraw,
        _ => Apply::Spare(spared),
    }
}
