//! Who shares a value, and what each of them gets instead: shapes, and what must hold between the parts.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::check::Checks;
use super::problem::{Problem, said};
use super::reductions::Reduction;
use super::rotations::Rotation;
use crate::connector::postgres::scope::is_permission;
use crate::connector::recipe::{self, Recipe, Users};
use crate::credential::Kind;
use crate::guard;
use crate::scope::{self, Permission};

/// So many may share one value.
const MOST: usize = 64;

/// One of `split`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Who.
    pub agent: String,
    /// The rotation of the user that it gets: it says where the agent reads.
    pub rotation: Spanned<String>,
    /// Which of the shared user's permissions it needs; absent: not known, so all of them.
    #[serde(default)]
    pub needs: Option<Spanned<Vec<String>>>,
}

/// Gives the recipes of shared values those that share them.
pub(super) fn shares(c: &mut Checks<'_>, raw: &[Spanned<Rotation>], recipes: &mut [Recipe], reductions: &[Reduction]) {
    for Spanned { value: one, .. } in raw.iter().filter(|one| !one.value.split.is_empty()) {
        let at = one.name.referenced;
        let Some(index) = recipes.iter().position(|recipe| recipe.name == one.name.value) else { continue };
        let whole = recipes[index].clone();
        let Users::One(shared) = &whole.users else {
            c.wrong(at, "`split` is for the value of a single user");
            continue;
        };
        if whole.credential.kind() != Kind::PostgresRole || whole.place.keeper.mints() {
            c.wrong(at, "`split` is for a user of a PostgreSQL whose password Curfew makes");
            continue;
        }
        if let Some(age) = &one.max_age {
            c.wrong(
                age.referenced,
                "what is to be split is not rolled over: its agents read it elsewhere, and would be shut out",
            );
        }
        if one.split.len() > MOST {
            c.wrong(at, format!("`split` names {MOST} at the most"));
            continue;
        }
        let (mut agents, mut users) = (BTreeSet::new(), BTreeSet::new());
        let mut all = Vec::new();
        for Spanned { value: share, .. } in &one.split {
            let at = share.rotation.referenced;
            if share.agent.is_empty() || !agents.insert(&share.agent) {
                c.wrong(at, "each agent is named once");
            }
            let Some(own) = recipes.iter().find(|recipe| recipe.name == share.rotation.value) else {
                let message = format!("there is no rotation {}", said(&share.rotation.value));
                let known = recipes.iter().map(|recipe| recipe.name.as_str());
                c.problems.push(Problem::new(at, message).nearest(&share.rotation.value, known));
                continue;
            };
            if let Some(why) = unfit(own, &whole, &share.agent) {
                c.wrong(at, why);
                continue;
            }
            if !users.insert(own.credential.clone()) {
                c.wrong(at, "each agent has a user of its own");
            }
            let makes = |one: &Reduction| {
                one.system == own.credential.instance() && guard::is_reducible(&own.credential, &one.identities)
            };
            if !reductions.iter().any(makes) {
                let message = format!("nobody may make the user of rotation {}", said(&own.name));
                let help = "name it in `identities` of the target's `reductions`: see deploy/postgres/split.sql";
                c.problems.push(Problem::new(at, message).help(help));
            }
            let needs = needs(c, share.needs.as_ref());
            all.extend(recipe::Share::new(&share.agent, shared, own, needs).map(Arc::new));
        }
        recipes[index].shares = all;
    }
}

/// Why an agent cannot be moved to the user of a rotation.
fn unfit(own: &Recipe, whole: &Recipe, agent: &str) -> Option<&'static str> {
    let consumers = &own.adoption.consumers;
    if own.name == whole.name || own.credential.instance() != whole.credential.instance() {
        Some("an agent's own rotation is another one at the same target")
    } else if own.credential.kind() != Kind::PostgresRole || !matches!(own.users, Users::One(_)) {
        Some("an agent gets a single user")
    } else if own.place.keeper.mints() || own.place.user_field.is_none() {
        Some("where an agent reads, `store.user_field` says whose value it is, and nobody else makes it")
    } else if !own.copies.is_empty() || !own.webhooks.is_empty() {
        Some("where an agent reads its own value, there are no copies and no webhooks")
    } else if !consumers.is_empty() && *consumers != [agent] {
        Some("`consumers` of an agent's rotation name the agent alone: by that name it answers")
    } else {
        None
    }
}

fn needs(c: &mut Checks<'_>, raw: Option<&Spanned<Vec<String>>>) -> Option<Vec<Permission>> {
    let raw = raw?;
    match scope::permissions(&raw.value) {
        Ok(needs) if needs.iter().all(is_permission) => Some(needs),
        Ok(_) => {
            let message = "`needs` names permissions of a PostgreSQL: relation:, schema: or member:";
            c.problems.push(Problem::new(raw.referenced, message).help("see docs/reduce.md"));
            None
        }
        Err(why) => {
            c.wrong(raw.referenced, format!("`needs`: {why}"));
            None
        }
    }
}
