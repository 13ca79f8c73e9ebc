//! Which steps give each of those that share a credential a user of its own, and then end what they shared. PURE.
//!
//! One agent is moved after another, each as in a rollover: its user is made, a value is stored, set, tried and written where that
//! agent reads it, and it is waited for. What cannot work with it goes back to the shared value, alone. When nobody uses that one
//! any more it dies as any stored credential does. Whoever reads its own user's value already is not moved again: so a plan may begin
//! anew at any time. Where only some are named these are moved in the same way, and nothing ends: the others share it still.

use super::{At, destroys, retire, step, undo as undo_one};
use crate::case::plan::{Act, Agent, Plan, Step};
use crate::case::state::State;
use crate::connector::recipe::{Recipe, Share};
use crate::scope::Move;

fn store_of(share: &Share) -> At<'_> {
    let place = &share.recipe.place;
    (place.keeper.as_str(), &place.realm)
}

/// Its steps, about the agent.
fn moves(share: &Share, target: At<'_>, scope: At<'_>) -> impl Iterator<Item = Step> {
    let store = store_of(share);
    let steps = [
        step(Act::Observe, store, false),
        step(Act::Provision, scope, false),
        step(Act::Observe, target, false),
        step(Act::Create, store, false),
        step(Act::Set, target, false),
        step(Act::Test, target, false),
        step(Act::Promote, store, false),
        step(Act::Adopt, target, false),
        step(Act::Destroy, store, true),
    ];
    steps.into_iter().map(|one| Step { agent: Some(share.agent.clone()), ..one })
}

/// `None`: nobody is named who shares it, or those whom it is about are none of these.
pub(super) fn compose(
    recipe: &Recipe,
    target: At<'_>,
    store: At<'_>,
    scope: At<'_>,
    only: Option<&[Move]>,
) -> Option<Plan> {
    let shares = recipe.shares_of(only);
    if shares.is_empty() {
        return None;
    }
    let mut steps = vec![step(Act::Observe, target, false)];
    steps.extend(shares.iter().flat_map(|share| moves(share, target, scope)));
    if only.is_some() {
        // The others work on with what they share: proven is what those who were moved may not any more.
        let pivot = steps.len();
        steps.push(step(Act::Prove, scope, false));
        return Some(Plan { steps, pivot, undoes: false });
    }
    steps.push(step(Act::Adopt, target, false));
    // From here on nobody can go back to it.
    let pivot = steps.len();
    let mut ends = retire(recipe, target, store, Vec::new()).steps;
    ends.retain(|one| one.act != Act::Destroy && (one.act, one.system.as_str()) != (Act::Observe, target.1));
    steps.extend(ends);
    steps.extend(destroys(recipe, target, store));
    Some(Plan { steps, pivot, undoes: false })
}

/// The one whose turn it was goes back.
pub(super) fn undo(recipe: &Recipe, agent: &Agent, target: At<'_>, state: &State) -> Option<Plan> {
    let share = recipe.shares.iter().find(|share| share.agent == *agent)?;
    let mut plan = undo_one(&share.recipe, target, store_of(share), state);
    for one in &mut plan.steps {
        one.agent = Some(agent.clone());
    }
    Some(plan)
}
