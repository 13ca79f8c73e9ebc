//! Which steps end a credential, or put another value in its place. PURE: from static facts and the case.

mod split;

use super::recipe::Recipe;
use super::webhook;
use crate::case::Action;
use crate::case::plan::{Act, Plan, ROLES, Step};
use crate::case::record::{Generation, Residue};
use crate::case::state::State;
use crate::credential::Kind;
use crate::scope::{Held, Move};

/// A connector, by its name and system.
pub type At<'a> = (&'a str, &'a str);

/// What a plan is composed from.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The kind of credential.
    pub kind: Kind,
    /// Who issued it.
    pub issuer: At<'a>,
    /// The system behind it, which refuses it when it is dead.
    pub target: Option<At<'a>>,
    /// How it is rotated, and the store of its value.
    pub recipe: Option<(&'a Recipe, At<'a>)>,
    /// Who takes permissions from its identity, and gives them back.
    pub scope: Option<At<'a>>,
    /// Of a split that does not move all who share it: whom.
    pub moves: Option<&'a [Move]>,
    /// Of an offboarding: who closes the identity first, and whether that one can look at it. Else the issuer says that it cannot.
    pub fence: Option<(At<'a>, bool)>,
    /// Roles whose sessions end along; `None`: the issuer knows of none that a holder may become.
    pub cut_roles: Option<&'a [String]>,
}

/// Which connector takes permissions from the identity of a credential of this kind.
pub fn scope_connector(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::PostgresRole => Some("postgres-scope"),
        Kind::VaultApprole => Some("vault-scope"),
        // Taken is what the key's user was granted.
        Kind::AwsUser | Kind::AwsAccessKey => Some("aws-scope"),
        _ => None,
    }
}

/// Which connector closes the identity of a credential of this kind.
pub fn fence_connector(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::VaultApprole | Kind::VaultSecretId => Some("vault-scope"),
        Kind::AwsUser | Kind::AwsAccessKey => Some("aws-fence"),
        _ => None,
    }
}

/// What of all that a case took one restoration gives back, and how many come back by the next. Where another connector sets the fence
/// than takes permissions, the fence is first, as long as it stands.
pub fn gives_back(kind: Kind, held: Vec<Held>, stands: bool) -> (Vec<Held>, usize) {
    let fences = held.iter().filter(|one| one.permission.is_fence()).count();
    let is_mixed = fences > 0 && fences < held.len();
    if !is_mixed || fence_connector(kind) == scope_connector(kind) {
        return (held, 0);
    }
    let left = if stands { held.len() - fences } else { 0 };
    (held.into_iter().filter(|one| one.permission.is_fence() == stands).collect(), left)
}

fn step(act: Act, at: At<'_>, optional: bool) -> Step {
    Step { act, connector: at.0.to_owned(), system: at.1.to_owned(), optional, place: None, agent: None }
}

fn plan(steps: Vec<Step>) -> Plan {
    // What a provider replaced is stored nowhere any more.
    let final_act = |s: &Step| matches!(s.act, Act::Revoke | Act::Begin | Act::Mint | Act::Destroy);
    let pivot = steps.iter().position(final_act).unwrap_or(steps.len().saturating_sub(1));
    Plan { steps, pivot, undoes: false }
}

/// The plan of `action` where the case stands at `state`. `None`: there is no way to do it.
pub fn compose(action: Action, parts: Parts<'_>, state: &State) -> Option<Plan> {
    let made = composed(action, parts, state)?;
    match parts.fence.filter(|_| action == Action::Revoke && !made.undoes) {
        Some((at, looks)) => Some(fenced(made, at, looks)),
        None => Some(made),
    }
}

/// The identity is closed after the looks and before the first effect: while one value dies no other one can be had. Where that
/// cannot be done the values die all the same.
fn fenced(made: Plan, at: At<'_>, looks: bool) -> Plan {
    let mut steps = made.steps;
    let first = steps.iter().position(|step| step.act.has_effect()).unwrap_or(steps.len());
    let look = looks.then(|| step(Act::Observe, at, true));
    steps.splice(first..first, look.into_iter().chain([step(Act::Fence, at, true)]));
    plan(steps)
}

fn composed(action: Action, parts: Parts<'_>, state: &State) -> Option<Plan> {
    if action.rescopes() {
        return parts.scope.map(|scope| rescope(action, scope, state));
    }
    if state.is_spent() {
        let moved = state.current().and_then(|step| step.agent.as_ref());
        let (recipe, store) = parts.recipe?;
        return match moved {
            Some(agent) => split::undo(recipe, agent, parts.issuer, state),
            None => Some(undo(recipe, parts.issuer, store, state)),
        };
    }
    let derived = derived(&parts);
    match (action, parts.recipe) {
        (Action::Verify, recipe) => Some(verify(parts, recipe.map(|(_, store)| store))),
        (Action::Revoke, Some((recipe, store))) => Some(retire(recipe, parts.issuer, store, derived)),
        (Action::Revoke | Action::Track, None) if parts.kind == Kind::AwsAccessKey => {
            Some(disable(parts.issuer, derived))
        }
        (Action::Revoke | Action::Track, None) => Some(revoke(parts)),
        (Action::Contain, Some((recipe, store))) => Some(contain(recipe, parts.issuer, store, state, derived)),
        // Its agents read it elsewhere, and would be shut out: it is split, or contained where it leaked.
        (Action::Rollover, Some((recipe, _))) if !recipe.shares.is_empty() => None,
        (Action::Rollover, Some((recipe, store))) => Some(rollover(recipe, parts.issuer, store, state)),
        (Action::Track, Some((_, store))) => Some(verify(parts, Some(store))),
        (Action::Split, Some((recipe, store))) => {
            split::compose(recipe, parts.issuer, store, parts.scope?, parts.moves)
        }
        (Action::Contain | Action::Rollover | Action::Split, None) | (Action::Reduce | Action::Restore, _) => None,
    }
}

/// Takes permissions, or gives back what was taken. What the identity has then is compared with what it was to have: by it alone
/// a reduction is undone.
fn rescope(action: Action, at: At<'_>, state: &State) -> Plan {
    if action == Action::Reduce && state.is_spent() {
        return Plan { steps: vec![step(Act::Widen, at, false)], pivot: 0, undoes: true };
    }
    let act = if action == Action::Reduce { Act::Narrow } else { Act::Widen };
    plan(vec![
        step(Act::Observe, at, false),
        step(act, at, false),
        step(Act::Test, at, false),
        step(Act::Prove, at, false),
    ])
}

/// What the holder may have become is looked at when nothing new can be opened any more: a leaked credential does not wait for
/// a long list. Whose sessions end along, a rule names.
fn derived(parts: &Parts<'_>) -> Vec<Step> {
    let Some(roles) = parts.cut_roles else { return Vec::new() };
    let at = |act, place: &str| Step { place: Some(place.to_owned()), ..step(act, parts.issuer, true) };
    let looks = std::iter::once(at(Act::Observe, ROLES));
    looks.chain(roles.iter().map(|role| at(Act::RevokeDerived, role))).collect()
}

/// Kills a credential that nothing replaces.
fn revoke(parts: Parts<'_>) -> Plan {
    let Parts { kind, issuer, target, .. } = parts;
    let mut steps = vec![step(Act::Observe, issuer, false)];
    if let Some(target) = target {
        steps.push(step(Act::Observe, target, false));
        steps.push(step(Act::Disable, target, true));
        // Sessions own temporary tables, and a user that owns anything is not dropped.
        steps.push(step(Act::EndSessions, target, true));
    }
    steps.push(step(Act::Revoke, issuer, false));
    if kind == Kind::VaultSecretId {
        steps.push(step(Act::RevokeDerived, issuer, true));
    }
    if let Some(target) = target {
        // Where the login could not be shut before, others may have come: else it is skipped.
        steps.push(step(Act::EndSessions, target, true));
    }
    steps.push(step(Act::Prove, target.unwrap_or(issuer), false));
    plan(steps)
}

/// Ends a credential at an issuer that can give it back: it stays there, disabled. What was opened with it is ended after
/// that, so that nothing is opened in between.
fn disable(issuer: At<'_>, derived: Vec<Step>) -> Plan {
    let mut steps = vec![
        step(Act::Observe, issuer, false),
        step(Act::Disable, issuer, false),
        step(Act::EndSessions, issuer, true),
    ];
    steps.extend(derived);
    steps.push(step(Act::Prove, issuer, false));
    plan(steps)
}

/// Looks whether it is as dead as was recorded.
fn verify(parts: Parts<'_>, store: Option<At<'_>>) -> Plan {
    let mut steps = vec![step(Act::Observe, parts.issuer, false)];
    steps.extend(store.or(parts.target).map(|at| step(Act::Observe, at, false)));
    if parts.kind == Kind::AwsAccessKey {
        let roles = parts.cut_roles.unwrap_or_default();
        let at = |act, role: &String| Step { place: Some(role.clone()), ..step(act, parts.issuer, true) };
        steps.extend(roles.iter().map(|role| at(Act::Observe, role)));
        steps.push(step(Act::Lift, parts.issuer, true));
        steps.extend(roles.iter().map(|role| at(Act::Lift, role)));
    }
    steps.push(step(Act::Prove, parts.target.unwrap_or(parts.issuer), false));
    plan(steps)
}

/// Ends a stored credential for good: its user cannot log in, and no value of it stays stored.
fn retire(recipe: &Recipe, target: At<'_>, store: At<'_>, roles: Vec<Step>) -> Plan {
    let (ends, derived) = recipe.users.cut();
    if ends == Act::Revoke || recipe.users.are_made_there() {
        let mut steps = looks(recipe, target, store);
        steps.extend([step(ends, target, false), step(derived, target, true)]);
        steps.extend(roles);
        steps.push(step(Act::Prove, target, false));
        steps.extend(destroys(recipe, target, store));
        return plan(steps);
    }
    let mut steps = vec![
        step(Act::Observe, target, false),
        // All of its users: that needs no word of the store, which may be down.
        step(Act::Disable, target, false),
        step(Act::EndSessions, target, true),
        step(Act::Observe, store, false),
        step(Act::Prove, target, false),
    ];
    steps.extend(destroys(recipe, target, store));
    plan(steps)
}

/// What consumers read stands elsewhere as well. `optional`: it goes on without a place that cannot have it.
fn copied(recipe: &Recipe, optional: bool) -> impl Iterator<Item = Step> {
    recipe.copies.iter().map(move |copy| Step {
        place: Some(copy.name()),
        ..step(Act::Copy, (copy.keeper.as_str(), &copy.realm), optional)
    })
}

/// Whoever is called about another value is called; what they do not hear, they hear from the topic.
fn called(recipe: &Recipe) -> impl Iterator<Item = Step> {
    recipe.webhooks.iter().map(|name| step(Act::Notify, (webhook::NAME, name), true))
}

/// Another value is made: by the store, or where it is to let in. There it is looked at once it is stored.
fn makes(recipe: &Recipe, target: At<'_>, store: At<'_>) -> [Step; 4] {
    let maker = if recipe.users.are_made_there() { target } else { store };
    [
        step(Act::Create, maker, false),
        step(Act::Set, target, false),
        step(Act::Test, target, false),
        step(Act::Promote, store, false),
    ]
}

/// The old value is told by the place where consumers read it, so it goes there last. A key that its provider named is
/// deleted there as well: until then it could be given back.
fn destroys(recipe: &Recipe, target: At<'_>, store: At<'_>) -> Vec<Step> {
    let others = recipe.stores_of_copies().into_iter().map(|(keeper, realm)| (keeper.as_str(), realm));
    let others = others.filter(|other| *other != store);
    let mut steps: Vec<Step> = others.map(|other| step(Act::Destroy, other, true)).collect();
    if recipe.users.are_made_there() {
        // Enabled again by somebody, it is not dead: that is not to be skipped.
        steps.insert(0, step(Act::Destroy, target, false));
    }
    steps.push(step(Act::Destroy, store, true));
    steps
}

/// The looks before anything is done. Which of many values is stored there is looked at once the store was.
fn looks(recipe: &Recipe, target: At<'_>, store: At<'_>) -> Vec<Step> {
    let mut steps = vec![step(Act::Observe, target, false), step(Act::Observe, store, false)];
    if recipe.users.cut().0 == Act::Revoke {
        steps.push(step(Act::Observe, target, false));
    }
    steps
}

/// The old value dies first; then a new one takes its place. What was promoted already is not made again. Where the
/// provider mints, the old value ends with that one call.
fn contain(recipe: &Recipe, target: At<'_>, store: At<'_>, state: &State, roles: Vec<Step>) -> Plan {
    let promoted = state.turn.new.is_some() && !state.turn.refuted;
    if recipe.place.keeper.mints() {
        return minted(recipe, target, store, state, (!promoted, false));
    }
    let (ends, derived) = recipe.users.cut();
    let mut steps = looks(recipe, target, store);
    // A single user already has the new value then, and its consumers need it.
    if !promoted || recipe.users.overlap() {
        steps.push(step(ends, target, false));
    }
    steps.push(step(derived, target, true));
    steps.extend(roles);
    if !promoted {
        steps.extend(makes(recipe, target, store));
        // Who has the new value now may be whose value was to go before: sessions of that one came until a moment ago. Of a
        // user of several keys it would end what consumers have opened with the new one.
        if ends == Act::Disable && !recipe.users.are_made_there() && !state.turn.left.is_empty() {
            steps.push(step(derived, target, true));
        }
    }
    // The old value is dead: nobody is kept alive by waiting for a place that cannot have the new one.
    steps.extend(copied(recipe, true).chain(called(recipe)));
    steps.push(step(Act::Prove, target, false));
    steps.extend(destroys(recipe, target, store));
    plan(steps)
}

/// The new value works before the old one dies, where two users take turns; else they switch.
fn rollover(recipe: &Recipe, target: At<'_>, store: At<'_>, state: &State) -> Plan {
    if recipe.place.keeper.mints() {
        return minted(recipe, target, store, state, (true, !recipe.adoption.consumers.is_empty()));
    }
    let (ends, derived) = recipe.users.cut();
    let mut steps = looks(recipe, target, store);
    steps.extend(makes(recipe, target, store));
    // Of one user the old value is dead by now: to wait for a place that cannot have the new one would help nobody.
    steps.extend(copied(recipe, !recipe.users.overlap()).chain(called(recipe)));
    if !recipe.adoption.consumers.is_empty() {
        steps.push(step(Act::Adopt, target, false));
    }
    if recipe.users.overlap() {
        steps.push(step(ends, target, false));
    }
    // Of a user of several keys it would end what consumers have opened with the new one.
    if !recipe.users.are_made_there() {
        steps.push(step(derived, target, true));
    }
    steps.push(step(Act::Prove, target, false));
    steps.extend(destroys(recipe, target, store));
    plan(steps)
}

/// The provider makes, sets and stores the new value: in one call, or it is asked, and takes its time.
fn mints(recipe: &Recipe, target: At<'_>, store: At<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if recipe.place.keeper.takes_its_time() {
        steps.extend([step(Act::Begin, store, false), step(Act::Test, store, false)]);
    }
    steps.extend([step(Act::Mint, store, false), step(Act::Test, target, false)]);
    steps.extend(called(recipe));
    steps
}

/// What the provider makes ends the old value. Of two users in turn it ends when its own user's turn comes again: so it is
/// made twice, and nobody is shut out, since the provider itself logs in with what consumers read.
fn minted(recipe: &Recipe, target: At<'_>, store: At<'_>, state: &State, (makes, adopts): (bool, bool)) -> Plan {
    let user = |one: &Option<Generation>| one.as_ref().and_then(|one| one.user.clone());
    let is_back = !makes && user(&state.turn.new) == user(&state.turn.old);
    let mut steps = vec![step(Act::Observe, target, false), step(Act::Observe, store, false)];
    if makes {
        steps.extend(mints(recipe, target, store));
    }
    if adopts {
        steps.push(step(Act::Adopt, target, false));
    }
    if recipe.users.overlap() && !is_back {
        steps.extend(mints(recipe, target, store));
    }
    steps.extend([
        step(Act::EndSessions, target, true),
        step(Act::Prove, target, false),
        step(Act::Destroy, store, true),
    ]);
    plan(steps)
}

/// No candidate was taken, or none can be worked with: none of them works, and after a rollover what consumers read does
/// again.
fn undo(recipe: &Recipe, target: At<'_>, store: At<'_>, state: &State) -> Plan {
    let mut steps = Vec::new();
    let goes_back = state.turn.new.is_some() && state.turn.unhealthy;
    if goes_back {
        steps.push(step(Act::Revert, store, false));
        steps.extend(copied(recipe, true));
    }
    // What a provider gave the target, only that one takes back.
    if !recipe.place.keeper.mints() {
        steps.push(step(Act::Restore, target, false));
    }
    steps.extend(called(recipe).filter(|_| goes_back));
    steps.push(step(Act::Discard, store, false));
    Plan { steps, pivot: 0, undoes: true }
}

/// What a skipped optional step leaves behind.
pub fn residue_of(step: &Step) -> Option<Residue> {
    match step.act {
        Act::Observe if step.place.as_deref() == Some(ROLES) => Some(Residue::DerivedUnknown),
        Act::RevokeDerived if step.place.is_some() => Some(Residue::Derived),
        // No other look without a place may be left out.
        Act::Observe if step.place.is_none() => Some(Residue::NotFenced),
        Act::Disable | Act::Fence => Some(Residue::NotFenced),
        Act::EndSessions => Some(Residue::Sessions),
        Act::RevokeDerived => Some(Residue::DerivedUnknown),
        Act::Destroy => Some(Residue::OldValueStored),
        Act::Copy => Some(Residue::CopyNotUpdated),
        Act::Notify => Some(Residue::NotNotified),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
