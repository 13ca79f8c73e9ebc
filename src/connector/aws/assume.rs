//! Who may assume a role, as IAM tells it. PURE.
//!
//! Told from above, as all that [`super::document`] reads: what is told of a user is never too little, unless it says so itself
//! ([`Found::whole`]).
//!
//! Facts: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>: a principal of the same
//! account that a trust policy names needs no policy of its own; where it names the account, its own policies decide.

use std::collections::{BTreeMap, BTreeSet};

use super::authorizations::{Authorizations, Holder};
use super::document::{Allow, allows, fits};
use crate::case::derived::Others;

const ASSUME: &str = "sts:AssumeRole";

/// The account that an ARN is of.
pub fn account_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// The account as a whole, in a trust policy.
fn whole_account(principal: &str) -> Option<&str> {
    if is_account(principal) { Some(principal) } else { principal.ends_with(":root").then(|| account_of(principal)) }
}

/// Whether a trust policy leaves it to the policies of who is of `account`.
pub fn trusts_account(trust: &[Allow], account: &str) -> bool {
    let is_it = |one: &String| one == "*" || whole_account(one) == Some(account);
    trust.iter().any(|one| one.principals.iter().any(is_it))
}

/// Whether a trust policy lets in who is called `arn`, whatever its own policies say.
pub fn names(trust: &[Allow], arn: &str) -> bool {
    trust.iter().any(|one| one.principals.iter().any(|principal| principal == "*" || principal == arn))
}

/// What an identity's policies allow of assuming roles, and whether all of them could be read.
struct Granted {
    allows: Vec<Allow>,
    whole: bool,
}

/// An account, read once.
pub struct Roles<'a> {
    all: &'a Authorizations,
    /// Of each user and role, by its ARN.
    granted: BTreeMap<&'a str, Granted>,
    /// Of each role what its trust policy says; `None`: it cannot be read.
    trust: Vec<(&'a Holder, Option<Vec<Allow>>)>,
}

/// Which roles a user may assume.
pub struct Found<'a> {
    /// In order of their ARNs.
    pub roles: Vec<&'a Holder>,
    /// Whether that is all: all could be read, no policy reaches into other accounts, and none of the roles may become another.
    pub whole: bool,
}

/// What a document says of assuming roles. `None`: it cannot be read.
fn assumes(encoded: &str) -> Option<Vec<Allow>> {
    let is_it = |one: &Allow| one.actions.iter().any(|action| fits(action, &ASSUME.to_ascii_lowercase()));
    allows(encoded).map(|all| all.into_iter().filter(is_it).collect())
}

impl<'a> Roles<'a> {
    /// Reads what IAM said.
    pub fn new(all: &'a Authorizations) -> Self {
        let managed: BTreeMap<&str, Option<Vec<Allow>>> =
            all.policies.iter().map(|(arn, policy)| (arn.as_str(), assumes(&policy.encoded))).collect();
        let groups: BTreeMap<&str, &Holder> = all.groups.iter().map(|group| (group.full.as_str(), group)).collect();
        let granted = |holder: &Holder| {
            let (mut allows, mut whole) = (Vec::new(), true);
            let mut add = |read: Option<Vec<Allow>>| match read {
                Some(some) => allows.extend(some),
                None => whole = false,
            };
            let groups = holder.groups.iter().map(|name| groups.get(name.as_str()).copied());
            for one in std::iter::once(Some(holder)).chain(groups) {
                let Some(one) = one else {
                    add(None);
                    continue;
                };
                one.inline.iter().for_each(|inline| add(assumes(&inline.encoded)));
                one.attached.iter().for_each(|arn| add(managed.get(arn.as_str()).cloned().flatten()));
            }
            Granted { allows, whole }
        };
        let holders = all.users.iter().chain(&all.roles);
        let granted = holders.map(|holder| (holder.arn.as_str(), granted(holder))).collect();
        let trust = all.roles.iter().map(|role| (role, role.trust.as_deref().and_then(allows))).collect();
        Self { all, granted, trust }
    }

    /// Whether the policies of who is called `arn` let it assume `role`.
    fn may(&self, arn: &str, role: &str) -> bool {
        self.granted.get(arn).is_some_and(|granted| granted.allows.iter().any(|one| one.on(ASSUME, role)))
    }

    /// The roles that `holder` may assume at once, and whether that is all of them.
    fn direct(&self, holder: &Holder) -> (Vec<&'a Holder>, bool) {
        let account = account_of(&holder.arn);
        let elsewhere = |pattern: &String| account_of(pattern) != account;
        let stays = |granted: &Granted| !granted.allows.iter().any(|one| one.resources.iter().any(elsewhere));
        let mut whole = self.granted.get(&*holder.arn).is_some_and(|granted| granted.whole && stays(granted));
        let mut roles = Vec::new();
        for (role, trust) in &self.trust {
            let Some(trust) = trust else {
                whole = false;
                continue;
            };
            let by_policy = || trusts_account(trust, account) && self.may(&holder.arn, &role.arn);
            if role.arn != holder.arn && (names(trust, &holder.arn) || by_policy()) {
                roles.push(*role);
            }
        }
        roles.sort_by(|one, other| one.arn.cmp(&other.arn));
        (roles, whole)
    }

    /// Which roles the user at `<path><name>` may assume. `None`: IAM's list has no such user.
    pub fn of_user(&self, full: &str) -> Option<Found<'a>> {
        let user = self.all.users.iter().find(|user| user.full == full)?;
        let (roles, whole) = self.direct(user);
        let ends_there = |role: &&Holder| {
            let (next, whole) = self.direct(role);
            next.is_empty() && whole
        };
        let whole = whole && !self.all.cut && roles.iter().all(ends_there);
        Some(Found { roles, whole })
    }

    /// Who may assume a role besides the user at `full`.
    pub fn others(&self, role: &Holder, full: &str) -> Others {
        let read = self.trust.iter().find(|(one, _)| one.arn == role.arn);
        let Some(trust) = read.and_then(|(_, trust)| trust.as_deref()) else {
            return Others { count: 0, at_least: true };
        };
        let own = account_of(&role.arn);
        let user = self.all.users.iter().find(|user| user.full == full).map(|user| user.arn.as_str());
        let (mut who, mut at_least) = (BTreeSet::new(), self.all.cut);
        for one in trust {
            for principal in &one.principals {
                let whole = whole_account(principal);
                at_least |= principal == "*" || whole.is_some();
                if principal != "*" && whole != Some(own) && Some(principal.as_str()) != user {
                    who.insert(principal.as_str());
                }
            }
            who.extend(one.services.iter().map(String::as_str));
            at_least |= !one.providers.is_empty();
            who.extend(one.providers.iter().map(String::as_str));
        }
        if trusts_account(trust, own) {
            for holder in self.all.users.iter().chain(&self.all.roles) {
                let is_other = Some(holder.arn.as_str()) != user && holder.arn != role.arn;
                if is_other && (names(trust, &holder.arn) || self.may(&holder.arn, &role.arn)) {
                    who.insert(holder.arn.as_str());
                }
            }
        }
        Others { count: u32::try_from(who.len()).unwrap_or(u32::MAX), at_least }
    }
}

#[cfg(test)]
#[path = "assume/tests.rs"]
mod tests;
