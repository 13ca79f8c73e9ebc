//! What the users and roles of one account of AWS may do, and who may become whom.
//!
//! All of IAM's own words in one list, and the access keys of the users with their last use. What services, resource policies
//! (of buckets, keys, secrets) and other accounts allow is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::{Fact, Node, NodeKind, Reading, Via};
use crate::case::record::FailureKind;
use crate::connector::aws::assume;
use crate::connector::aws::authorizations::{Authorizations, Document, Holder, Used};
use crate::connector::aws::document::{self, Allow, allows};
use crate::connector::aws::name::policy_name;
use crate::connector::aws::{Account, Listed};
use crate::connector::recipe::SECRETS_MANAGER;
use crate::credential::{CredentialId, Kind};

/// Calls per second: IAM serves a whole account's tools from one budget.
pub const PER_SECOND: u32 = 10;

/// Reads one account.
pub struct Reader {
    target: String,
    account: Account,
    limit: DefaultDirectRateLimiter,
}

/// What of an access key is known.
struct Key {
    listed: Listed,
    used: Option<Used>,
}

impl Reader {
    /// For the account `target`, through a login that can only look.
    pub fn new(target: &str, account: Account, per_second: NonZeroU32) -> Self {
        Self { target: target.to_owned(), account, limit: RateLimiter::direct(Quota::per_second(per_second)) }
    }

    /// All that it holds. `secrets`: names of those in Secrets Manager that are known.
    pub async fn read(&self, secrets: &BTreeSet<String>) -> Reading {
        let all = match self.account.authorizations().await {
            Ok(all) => all,
            Err(failure) => return Reading { facts: Vec::new(), faults: vec![failure.note] },
        };
        let (mut keys, mut faults) = (Vec::new(), Vec::new());
        'users: for user in &all.users {
            self.limit.until_ready().await;
            let listed = match self.account.keys(&user.full).await {
                Ok(listed) => listed.unwrap_or_default(),
                Err(failure) => {
                    faults.push(format!("keys of {}: {}", user.full, failure.note));
                    // One that is refused is one user; what is denied, down or throttled is so for all of them.
                    if failure.kind == FailureKind::Refused { continue } else { break 'users }
                }
            };
            for key in listed {
                self.limit.until_ready().await;
                let used = match self.account.last_used(&key).await {
                    Ok(used) => used,
                    Err(failure) => {
                        faults.push(format!("last use of a key of {}: {}", user.full, failure.note));
                        None
                    }
                };
                keys.push(Key { listed: key, used });
            }
        }
        let mut reading = facts(&self.target, &all, &keys, secrets);
        faults.into_iter().for_each(|fault| reading.fault(fault));
        reading
    }
}

/// What is made of one account. PURE.
struct Making<'a> {
    target: &'a str,
    opened: Node,
    secrets: &'a BTreeSet<String>,
    roles: BTreeMap<&'a str, (Node, Vec<Allow>)>,
    reading: Reading,
}

fn facts(target: &str, all: &Authorizations, keys: &[Key], secrets: &BTreeSet<String>) -> Reading {
    let mut reading = Reading::default();
    if all.cut {
        reading.fault("IAM's list has no end: the rest was not read");
    }
    if all.unsaid > 0 {
        reading.fault(format!("IAM did not say what {} policies allow", all.unsaid));
    }
    let Some(opened) = reading.node(NodeKind::Target, target) else { return reading };
    let mut making = Making { target, opened, secrets, roles: BTreeMap::new(), reading };
    for role in &all.roles {
        let node = making.node(NodeKind::Identity, &format!("role/{}", role.full));
        let trust = role.trust.as_deref().and_then(allows);
        if trust.is_none() {
            making.reading.fault(format!("the trust policy of role {} cannot be read", role.full));
        }
        if let Some(node) = node {
            making.roles.insert(&role.arn, (node, trust.unwrap_or_default()));
        }
    }
    for (arn, policy) in &all.policies {
        making.policy(&policy_name(arn), policy);
    }
    for group in &all.groups {
        making.holder(NodeKind::Policy, "group", group);
    }
    for user in &all.users {
        making.holder(NodeKind::Identity, "user", user);
    }
    for role in &all.roles {
        making.holder(NodeKind::Identity, "role", role);
    }
    for key in keys {
        making.key(key);
    }
    making.reading
}

impl Making<'_> {
    fn node(&mut self, kind: NodeKind, name: &str) -> Option<Node> {
        self.reading.node(kind, &format!("{}/{name}", self.target))
    }

    /// What a document allows: on the account, on the secrets that are known, and to become a role.
    fn policy(&mut self, name: &str, document: &Document) {
        let Some(node) = self.node(NodeKind::Policy, name) else { return };
        let Some(all) = allows(&document.encoded) else {
            self.reading.fault(format!("{name} cannot be read"));
            return;
        };
        let mut fact = Fact::of(node);
        let words: Vec<String> = all.iter().flat_map(Allow::words).collect();
        if !words.is_empty() {
            fact.edge(self.opened.clone(), Via::Opens, words);
        }
        for secret in self.secrets {
            // AWS adds a hyphen and six characters to a secret's name.
            let arn = format!("arn:aws:secretsmanager:*:*:secret:{secret}-??????");
            let is_it = |allow: &Allow| {
                let named = |pattern: &String| reaches(pattern, &arn, secret);
                allow.actions.iter().any(|action| document::fits(action, "secretsmanager:getsecretvalue"))
                    && allow.resources.iter().any(named)
            };
            if all.iter().any(is_it) {
                let path = self.node(NodeKind::Path, &format!("{SECRETS_MANAGER}/{secret}"));
                if let Some(path) = path {
                    fact.edge(path, Via::Reads, ["secretsmanager:GetSecretValue"]);
                }
            }
        }
        let assumed: Vec<Node> = self
            .roles
            .iter()
            // Who is not named by the role itself needs a policy, and the role must trust the account.
            .filter(|(arn, (_, trust))| {
                assume::trusts_account(trust, assume::account_of(arn))
                    && all.iter().any(|one| one.on("sts:assumerole", arn))
            })
            .map(|(_, (node, _))| node.clone())
            .collect();
        for role in assumed {
            fact.edge(role, Via::Assumes, ["sts:AssumeRole"]);
        }
        self.reading.facts.push(fact);
    }

    fn holder(&mut self, kind: NodeKind, what: &str, holder: &Holder) {
        let Some(node) = self.node(kind, &format!("{what}/{}", holder.full)) else { return };
        let mut fact = Fact::of(node);
        fact.about.issued_ms = holder.created_ms;
        if what == "role" {
            fact.about.used_ms = holder.used_ms;
        }
        if holder.bounded {
            fact.about.label = Some("within a permissions boundary".to_owned());
        }
        for arn in &holder.attached {
            fact.edge_to(self.node(NodeKind::Policy, &policy_name(arn)).as_ref(), Via::Has);
        }
        for inline in &holder.inline {
            let name = format!("{what}/{}/inline/{}", holder.full, inline.name);
            self.policy(&name, inline);
            fact.edge_to(self.node(NodeKind::Policy, &name).as_ref(), Via::Has);
        }
        for group in &holder.groups {
            fact.edge_to(self.node(NodeKind::Policy, &format!("group/{group}")).as_ref(), Via::Has);
        }
        // A role that names a principal of its own account lets it in, whatever its policies say.
        let named: Vec<Node> = self
            .roles
            .values()
            .filter(|(_, trust)| what != "group" && assume::names(trust, &holder.arn))
            .map(|(role, _)| role.clone())
            .collect();
        for role in named {
            fact.edge(role, Via::Assumes, ["trusted by name"]);
        }
        self.reading.facts.push(fact);
    }

    fn key(&mut self, key: &Key) {
        let name = &key.listed.name;
        let Ok(id) = CredentialId::new(Kind::AwsAccessKey, self.target, &name.id()) else { return };
        let Some(node) = self.reading.node(NodeKind::Credential, id.as_str()) else { return };
        let mut fact = Fact::of(node);
        fact.about.issued_ms = key.listed.created_ms;
        fact.about.off = !key.listed.active;
        match key.used {
            Some(Used::At(ms)) => fact.about.used_ms = Some(ms),
            Some(Used::Never) => fact.about.never_used = true,
            None => {}
        }
        fact.edge_to(self.node(NodeKind::Identity, &format!("user/{}", name.user())).as_ref(), Via::LogsIn);
        self.reading.facts.push(fact);
    }
}

/// Whether a pattern of ARNs reaches a secret of this name, whatever its Region, account and ending; of a name that ends in `*`
/// whether it may reach anything below it.
fn reaches(pattern: &str, arn: &str, secret: &str) -> bool {
    let Some(rest) = pattern.splitn(7, ':').nth(6) else { return document::fits(pattern, arn) };
    if let Some(start) = secret.strip_suffix('*') {
        let before = rest.split(['*', '?']).next().unwrap_or_default();
        return before.starts_with(start) || (before.len() < rest.len() && start.starts_with(before));
    }
    let ending = format!("{secret}-AbCdEf");
    rest == secret || document::fits(rest, &ending)
}
