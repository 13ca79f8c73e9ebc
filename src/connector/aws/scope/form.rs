//! What of a user of IAM is taken, and by which changes. PURE.
//!
//! Facts: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>: the inline policies of a user have at most
//! 2 048 characters together, white space not counted;
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>: one `Deny` that fits ends it,
//! whatever else allows; names of actions are the same in large and small letters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::overlay::{self, denied, denying};
use crate::connector::aws::document::{allows_in, denies, fits};
use crate::connector::aws::name::{last, policy_name};
use crate::connector::aws::sessions;
use crate::scope::Permission;

/// So many characters the inline policies of a user may have together.
pub const ROOM: usize = 2_048;
/// Of so many actions that stay it is asked whether they are still allowed, each on one resource.
pub const MOST_KEPT: usize = 16;
const ASSUME: &str = "sts:assumerole";

/// The note where a policy has our name and is not ours.
pub const FOREIGN: &str =
    "its inline policy `curfew-reduced`, or that of the key, is not as we write it: somebody else's, and left alone";
const NO_ROOM: &str = "the user's inline policies would have more than the 2048 characters that IAM allows together";
const ANEW: &str = "an inline policy was written anew since it was looked at";

/// A permission of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// `managed:<ARN>`, or as reach calls it (`policy/<path><name>`, `policy/aws/<name>`): the attachment of a managed policy.
    Managed(&'a str),
    /// `inline:<name>`: an inline policy of its own.
    Inline(&'a str),
    /// `group:<name>`: the membership of a group.
    Group(&'a str),
    /// `action:<service>:<action>`, which may have wildcards behind the service: denied by our own policy.
    Action(&'a str),
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

fn is_of_sessions(name: &str) -> bool {
    sessions::is_ours(&name.to_ascii_lowercase())
}

/// How IAM spells a name of a group or an inline policy, which is the same in large and small letters.
fn spelled<'a>(mut all: impl Iterator<Item = &'a String>, name: &str) -> Option<&'a String> {
    all.find(|one| one.eq_ignore_ascii_case(name))
}

fn is_policy(text: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
    let path = |text: &str| text.strip_prefix("policy/").is_some_and(|path| path.split('/').all(is_part));
    match text.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", _, "iam", "", _, rest] => path(rest),
        [short] => path(short),
        _ => false,
    }
}

fn is_action(text: &str) -> bool {
    let Some((service, action)) = text.split_once(':') else { return false };
    let is_service = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"*?".contains(&b);
    text.len() <= 128
        && !service.is_empty()
        && service.bytes().all(is_service)
        && !action.is_empty()
        && action.bytes().all(is_part)
}

impl<'a> Named<'a> {
    /// Reads it. `None`: no permission of a user, or a policy that Curfew itself puts there.
    pub fn of(permission: &'a Permission) -> Option<Self> {
        match permission.parts() {
            ("managed", policy) if is_policy(policy) => Some(Self::Managed(policy)),
            ("inline", name) if is_name(name) && !overlay::is_named(name) && !is_of_sessions(name) => {
                Some(Self::Inline(name))
            }
            ("group", name) if is_name(name) => Some(Self::Group(name)),
            ("action", action) if is_action(action) => Some(Self::Action(action)),
            _ => None,
        }
    }

    /// Whether the managed policy of this ARN is meant. A customer's own below a path `aws/` is meant by its ARN only.
    fn is_managed(self, arn: &str) -> bool {
        let Self::Managed(name) = self else { return false };
        let of_aws = arn.split(':').nth(4) == Some("aws");
        name == arn || (name == policy_name(arn) && of_aws == name.starts_with("policy/aws/"))
    }
}

/// Whether one thing is named more than once, in letters of another size: which is given back could not be told.
pub fn names_twice(named: &[Named<'_>]) -> bool {
    let lower = |one: &Named<'_>| match one {
        Named::Managed(_) => None,
        Named::Action(name) => Some((0, name.to_ascii_lowercase())),
        Named::Inline(name) => Some((1, name.to_ascii_lowercase())),
        Named::Group(name) => Some((2, name.to_ascii_lowercase())),
    };
    let all: Vec<(u8, String)> = named.iter().filter_map(lower).collect();
    all.iter().collect::<BTreeSet<_>>().len() < all.len()
}

/// How a user was given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// IAM's own id of the user, which no other one ever has.
    pub user: String,
    /// Of a managed policy: its ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Of an inline policy: its document, as IAM has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Of a group or an inline policy: its name, where IAM spells it otherwise than it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a user was granted, read whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// What our own policy for the credential in question is called.
    pub own: String,
    /// IAM's own id of the user.
    pub id: String,
    /// Its ARN.
    pub arn: String,
    /// `<path><name>` without the first slash.
    pub full: String,
    /// The ARN of its permissions boundary.
    pub boundary: Option<String>,
    /// ARNs of the managed policies that are attached.
    pub managed: BTreeSet<String>,
    /// Its inline policies: name and document.
    pub inline: BTreeMap<String, String>,
    /// Its groups.
    pub groups: BTreeSet<String>,
}

/// Characters as IAM counts them.
fn size(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

fn has(actions: &[String], action: &str) -> bool {
    actions.iter().any(|one| one.eq_ignore_ascii_case(action))
}

impl Grants {
    /// The name without the path.
    pub fn name(&self) -> &str {
        last(&self.full)
    }

    /// Our own policy for the credential in question, as IAM spells it, and its document where there is one.
    pub fn own_policy(&self) -> (&str, Option<&String>) {
        match spelled(self.inline.keys(), &self.own) {
            Some(name) => (name, self.inline.get(name)),
            None => (&self.own, None),
        }
    }

    /// The actions that it denies. `None`: a policy of that name is somebody else's.
    pub fn overlay(&self) -> Option<Vec<String>> {
        self.own_policy().1.map_or_else(|| Some(Vec::new()), |document| denied(document))
    }

    /// Whether one of our policies denies an action, for whichever credential.
    pub fn is_denied_by_us(&self, action: &str) -> bool {
        let ours = self.inline.iter().filter(|(name, _)| overlay::is_named(name));
        let patterns = ours.filter_map(|(_, document)| denied(document)).flatten();
        let action = action.to_ascii_lowercase();
        patterns.into_iter().any(|pattern| fits(&pattern.to_ascii_lowercase(), &action))
    }

    /// Whether the user has it, and how. Of an action: whether our own policy for this credential does not deny it.
    pub fn held(&self, named: Named<'_>) -> Option<Form> {
        let form = Form { user: self.id.clone(), arn: None, document: None, name: None };
        let other = |spelled: &String, name: &str| (spelled != name).then(|| spelled.clone());
        match named {
            Named::Managed(_) => {
                let arn = self.managed.iter().find(|arn| named.is_managed(arn))?;
                Some(Form { arn: Some(arn.clone()), ..form })
            }
            Named::Inline(name) => {
                let there = spelled(self.inline.keys(), name)?;
                Some(Form { document: self.inline.get(there).cloned(), name: other(there, name), ..form })
            }
            Named::Group(name) => {
                let there = spelled(self.groups.iter(), name)?;
                Some(Form { name: other(there, name), ..form })
            }
            Named::Action(action) => (!has(&self.overlay().unwrap_or_default(), action)).then_some(form),
        }
    }

    /// Policies that Curfew's own cases put there: they come and go.
    fn is_ours(name: &str, document: &str) -> bool {
        (overlay::is_named(name) && denied(document).is_some())
            || (sessions::is_ours(name) && sessions::over_ms(document).is_some())
    }

    /// All that is not named, in lines.
    pub fn rest(&self, named: &[Named<'_>]) -> Vec<String> {
        let mut lines: Vec<String> = self.boundary.iter().map(|arn| format!("boundary {arn}")).collect();
        let managed = self.managed.iter().filter(|arn| !named.iter().any(|one| one.is_managed(arn)));
        lines.extend(managed.map(|arn| format!("managed {arn}")));
        lines.extend(self.others(named).map(|(name, document)| format!("inline {name} {document}")));
        let is_named =
            |name: &str| named.iter().any(|one| matches!(one, Named::Group(it) if it.eq_ignore_ascii_case(name)));
        let groups = self.groups.iter().filter(|name| !is_named(name));
        lines.extend(groups.map(|name| format!("group {name}")));
        lines
    }

    /// The inline policies that are neither named nor ours.
    fn others(&self, named: &[Named<'_>]) -> impl Iterator<Item = (&String, &String)> {
        let is_named =
            |name: &str| named.iter().any(|one| matches!(one, Named::Inline(it) if it.eq_ignore_ascii_case(name)));
        let stays = move |name: &str, document: &str| !is_named(name) && !Self::is_ours(name, document);
        self.inline.iter().filter(move |(name, document)| stays(name, document))
    }

    /// Actions that the inline policies which stay allow, each with a resource of which that can be asked: at most [`MOST_KEPT`].
    /// What our policies deny has no part in the choice: they come and go.
    pub fn kept(&self, named: &[Named<'_>]) -> BTreeSet<(String, String)> {
        let is_taken = |action: &str| {
            let pattern =
                |one: &Named<'_>| if let Named::Action(it) = one { Some(it.to_ascii_lowercase()) } else { None };
            named.iter().filter_map(pattern).any(|pattern| fits(&pattern, action))
        };
        let is_plain = |text: &str| !text.contains(['*', '?', '$']);
        let mut kept = BTreeSet::new();
        for one in self.others(named).flat_map(|(_, document)| allows_in(document).unwrap_or_default()) {
            let actions = one.actions.iter().filter(|action| is_plain(action) && !one.conditional);
            for action in actions.filter(|it| !is_taken(it)) {
                let resources = one.resources.iter().filter(|resource| *resource == "*" || is_plain(resource));
                kept.extend(resources.map(|resource| (action.clone(), resource.clone())));
            }
        }
        kept.into_iter().take(MOST_KEPT).collect()
    }
}

/// Why these policies are not taken: one that also denies would give by its going.
pub fn refuses(documents: &[String]) -> Option<&'static str> {
    let all: Option<Vec<bool>> = documents.iter().map(|document| denies(document)).collect();
    match all {
        None => Some("a policy cannot be read: what its going would do is not known"),
        Some(all) => all.contains(&true).then_some("a policy of it also denies: who lost it could do more, not less"),
    }
}

/// Whether what is taken may have let it assume roles: their sessions go on.
pub fn assumes(documents: &[String], named: &[Named<'_>]) -> bool {
    let by_action = |one: &Named<'_>| matches!(one, Named::Action(it) if fits(&it.to_ascii_lowercase(), ASSUME));
    let allowed = |document: &String| allows_in(document).unwrap_or_default();
    let by_policy =
        |document: &String| allowed(document).iter().any(|one| one.actions.iter().any(|pattern| fits(pattern, ASSUME)));
    named.iter().any(by_action) || documents.iter().any(by_policy)
}

/// One call that changes something. Each may be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A managed policy, by its ARN.
    Detach(String),
    /// The same.
    Attach(String),
    /// An inline policy, by its name.
    Delete(String),
    /// An inline policy: name and document.
    Put(String, String),
    /// A group.
    Leave(String),
    /// The same.
    Join(String),
}

impl Change {
    /// Whether it is so already, as far as IAM shows.
    pub fn is_so(&self, now: &Grants) -> bool {
        match self {
            Self::Attach(arn) => now.managed.contains(arn),
            Self::Detach(arn) => !now.managed.contains(arn),
            Self::Put(name, document) => now.inline.get(name) == Some(document),
            Self::Delete(name) => !now.inline.contains_key(name),
            Self::Join(group) => now.groups.contains(group),
            Self::Leave(group) => !now.groups.contains(group),
        }
    }

    /// Whether it changes the inline policy of this name.
    pub fn writes(&self, policy: &str) -> bool {
        matches!(self, Self::Put(name, _) | Self::Delete(name) if name == policy)
    }
}

/// What is to be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// In this order.
    pub all: Vec<Change>,
    /// What cannot be given back, though the others can.
    pub no: Option<&'static str>,
}

/// The calls that take what is owed, or give it again. Lists of IAM may be late: what is said to be so already is called for
/// again, since that is what an undoing right after the taking sees.
///
/// # Errors
/// Why nothing may be changed at all.
pub fn changes(now: &Grants, owed: &[(Named<'_>, Form)], gives: bool) -> Result<Changes, &'static str> {
    let (mut changes, mut inline) = (Changes::default(), now.inline.clone());
    let mut actions = now.overlay();
    let is_action = |(one, _): &(Named<'_>, Form)| matches!(one, Named::Action(_));
    for (named, form) in owed {
        match (*named, form.document.as_ref()) {
            (Named::Managed(name), _) => {
                let arn = form.arn.clone().unwrap_or_else(|| name.to_owned());
                changes.all.push(if gives { Change::Attach(arn) } else { Change::Detach(arn) });
            }
            (Named::Group(name), _) => {
                let there = spelled(now.groups.iter(), name).or(form.name.as_ref());
                let name = there.cloned().unwrap_or_else(|| name.to_owned());
                changes.all.push(if gives { Change::Join(name) } else { Change::Leave(name) });
            }
            (Named::Inline(name), document) => {
                let there = spelled(now.inline.keys(), name).or(form.name.as_ref());
                let name = there.map_or(name, String::as_str);
                match (now.inline.get(name), document) {
                    (Some(there), Some(document)) if there != document && gives => changes.no = Some(ANEW),
                    (Some(there), document) if Some(there) != document => return Err(ANEW),
                    (_, Some(document)) if gives => {
                        inline.insert(name.to_owned(), document.clone());
                        changes.all.push(Change::Put(name.to_owned(), document.clone()));
                    }
                    _ if gives => changes.no = Some("what was recorded of an inline policy lacks its document"),
                    _ => {
                        inline.remove(name);
                        changes.all.push(Change::Delete(name.to_owned()));
                    }
                }
            }
            (Named::Action(action), _) => {
                let Some(actions) = &mut actions else { continue };
                actions.retain(|one| !one.eq_ignore_ascii_case(action));
                if !gives {
                    actions.push(action.to_owned());
                }
            }
        }
    }
    if owed.iter().any(is_action) {
        match actions {
            None if gives => changes.no = Some(FOREIGN),
            None => return Err(FOREIGN),
            Some(mut actions) => {
                actions.sort_unstable();
                let own = now.own_policy().0.to_owned();
                let change = if actions.is_empty() {
                    inline.remove(&own);
                    Change::Delete(own)
                } else {
                    let document = denying(&actions);
                    inline.insert(own.clone(), document.clone());
                    Change::Put(own, document)
                };
                // What makes room comes first.
                let at = if gives { 0 } else { changes.all.len() };
                changes.all.insert(at, change);
            }
        }
    }
    let sum = |all: &BTreeMap<String, String>| all.values().map(|document| size(document)).sum::<usize>();
    let room = ROOM.max(sum(&now.inline));
    if sum(&inline) > room && !gives {
        return Err(NO_ROOM);
    }
    // What fits is given back all the same.
    let is_new = |name: &str| !now.inline.contains_key(name);
    let stays = inline.iter().filter(|(name, _)| !is_new(name));
    let mut used: usize = stays.map(|(_, document)| size(document)).sum();
    changes.all.retain(|change| match change {
        Change::Put(name, document) if is_new(name) && gives => {
            let fits = used + size(document) <= room;
            if fits {
                used += size(document);
            } else {
                changes.no = Some(NO_ROOM);
            }
            fits
        }
        _ => true,
    });
    Ok(changes)
}

#[cfg(test)]
#[path = "form/tests.rs"]
mod tests;
