//! What of a user of IAM is taken, and by which changes. PURE.
//!
//! Facts: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>: the inline policies of a user have at most
//! 2 048 characters together, white space not counted;
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>: one `Deny` that fits ends it,
//! whatever else allows; names of actions are the same in large and small letters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::connector::aws::document::{allows_in, denies, fits};
use crate::connector::aws::name::{last, policy_name};
use crate::connector::aws::sessions;
use crate::scope::Permission;

/// What our own policy is called: it denies what was taken as `action:`.
pub const OVERLAY: &str = "curfew-reduced";
/// What its one statement is called.
const SID: &str = "CurfewReduced";
/// So many characters the inline policies of a user may have together.
pub const ROOM: usize = 2_048;
/// Of so many actions that stay it is asked whether they are still allowed, each on one resource.
pub const MOST_KEPT: usize = 16;
const ASSUME: &str = "sts:assumerole";

/// The note where a policy has our name and is not ours.
pub const FOREIGN: &str = "its inline policy `curfew-reduced` is not as we write it: somebody else's, and left alone";
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
    /// `action:<service>:<action>`, which may have wildcards behind the service: denied by [`OVERLAY`].
    Action(&'a str),
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
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
            ("inline", name) if is_name(name) && name != OVERLAY && !sessions::is_ours(name) => {
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

/// Whether one action is named more than once, in letters of another size: which is given back could not be told.
pub fn names_twice(named: &[Named<'_>]) -> bool {
    let lower = |one: &Named<'_>| if let Named::Action(it) = one { Some(it.to_ascii_lowercase()) } else { None };
    let all: Vec<String> = named.iter().filter_map(lower).collect();
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
}

/// What a user was granted, read whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
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

/// The actions that our policy denies, by its document. `None`: it is not as we write it.
pub fn denied(document: &str) -> Option<Vec<String>> {
    let said: Value = serde_json::from_str(document).ok()?;
    let words = said["Statement"][0]["Action"].as_array()?.iter().map(|word| word.as_str().map(str::to_owned));
    let actions: Vec<String> = words.collect::<Option<_>>()?;
    let own: Value = serde_json::from_str(&denying(&actions)).ok()?;
    (said == own && !actions.is_empty()).then_some(actions)
}

/// Our policy.
pub fn denying(actions: &[String]) -> String {
    let one = json!({"Sid": SID, "Effect": "Deny", "Action": actions, "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [one]}).to_string()
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

    /// The actions that our policy denies. `None`: a policy of that name is somebody else's.
    pub fn overlay(&self) -> Option<Vec<String>> {
        self.inline.get(OVERLAY).map_or_else(|| Some(Vec::new()), |document| denied(document))
    }

    /// Whether the user has it, and how. Of an action: whether our policy does not deny it.
    pub fn held(&self, named: Named<'_>) -> Option<Form> {
        let form = |arn: Option<&String>, document: Option<&String>| Form {
            user: self.id.clone(),
            arn: arn.cloned(),
            document: document.cloned(),
        };
        match named {
            Named::Managed(_) => self.managed.iter().find(|arn| named.is_managed(arn)).map(|arn| form(Some(arn), None)),
            Named::Inline(name) => self.inline.get(name).map(|document| form(None, Some(document))),
            Named::Group(name) => self.groups.contains(name).then(|| form(None, None)),
            Named::Action(action) => (!has(&self.overlay().unwrap_or_default(), action)).then(|| form(None, None)),
        }
    }

    /// Policies that Curfew's own cases put there: they come and go.
    fn is_ours(name: &str, document: &str) -> bool {
        (name == OVERLAY && denied(document).is_some())
            || (sessions::is_ours(name) && sessions::over_ms(document).is_some())
    }

    /// All that is not named, in lines.
    pub fn rest(&self, named: &[Named<'_>]) -> Vec<String> {
        let mut lines: Vec<String> = self.boundary.iter().map(|arn| format!("boundary {arn}")).collect();
        let managed = self.managed.iter().filter(|arn| !named.iter().any(|one| one.is_managed(arn)));
        lines.extend(managed.map(|arn| format!("managed {arn}")));
        lines.extend(self.others(named).map(|(name, document)| format!("inline {name} {document}")));
        let groups = self.groups.iter().filter(|name| !named.contains(&Named::Group(name)));
        lines.extend(groups.map(|name| format!("group {name}")));
        lines
    }

    /// The inline policies that are neither named nor ours.
    fn others(&self, named: &[Named<'_>]) -> impl Iterator<Item = (&String, &String)> {
        let stays =
            |name: &str, document: &str| !named.contains(&Named::Inline(name)) && !Self::is_ours(name, document);
        self.inline.iter().filter(move |(name, document)| stays(name, document))
    }

    /// Actions that the inline policies which stay allow, each with a resource of which that can be asked: at most [`MOST_KEPT`].
    pub fn kept(&self, named: &[Named<'_>]) -> BTreeSet<(String, String)> {
        let is_taken = |action: &str| {
            let pattern =
                |one: &Named<'_>| if let Named::Action(it) = one { Some(it.to_ascii_lowercase()) } else { None };
            named.iter().filter_map(pattern).any(|pattern| fits(&pattern, action))
        };
        let denied: Vec<String> =
            self.overlay().unwrap_or_default().iter().map(|one| one.to_ascii_lowercase()).collect();
        let is_plain = |text: &str| !text.contains(['*', '?', '$']);
        let mut kept = BTreeSet::new();
        for one in self.others(named).flat_map(|(_, document)| allows_in(document).unwrap_or_default()) {
            let actions = one.actions.iter().filter(|action| is_plain(action) && !one.conditional);
            for action in actions.filter(|it| !is_taken(it) && !denied.iter().any(|pattern| fits(pattern, it))) {
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
                changes.all.push(if gives { Change::Join(name.to_owned()) } else { Change::Leave(name.to_owned()) });
            }
            (Named::Inline(name), document) => match (inline.get(name), document) {
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
            },
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
                let change = if actions.is_empty() {
                    inline.remove(OVERLAY);
                    Change::Delete(OVERLAY.to_owned())
                } else {
                    let document = denying(&actions);
                    inline.insert(OVERLAY.to_owned(), document.clone());
                    Change::Put(OVERLAY.to_owned(), document)
                };
                // What makes room comes first.
                let at = if gives { 0 } else { changes.all.len() };
                changes.all.insert(at, change);
            }
        }
    }
    let sum = |all: &BTreeMap<String, String>| all.values().map(|document| size(document)).sum::<usize>();
    if sum(&inline) > ROOM.max(sum(&now.inline)) { Err(NO_ROOM) } else { Ok(changes) }
}

#[cfg(test)]
#[path = "form/tests.rs"]
mod tests;
