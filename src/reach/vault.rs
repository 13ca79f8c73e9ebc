//! What the policies of one Vault let its tokens, roles and entities reach.
//!
//! [`Reader`] has a login of its own that can only list and read settings (`deploy/vault/reach.hcl`): never a secret. What each
//! policy allows is asked of [`policy`] for each place that is known: what the engines list, and what others named. A list that is
//! refused makes the reading a part.

pub mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde_json::Value;

use super::notice::ALIAS;
use super::unused::NARROWS;
use super::{Fact, Lifetimes, Node, NodeKind, Reading, Via};
use crate::case::record::{FailureKind, Presence};
use crate::connector::Failure;
use crate::connector::vault::Vault;
use crate::connector::vault::answers::{Call, Meaning};
use crate::connector::vault::client::Raw;
use crate::credential::CredentialId;
use crate::event::digest16;
use policy::Policy;

/// Reads per second, where nothing else is said.
pub const PER_SECOND: u32 = 50;
/// So much of each list is looked at.
const MOST: usize = 20_000;

/// What a place at Vault is, and how it is asked for.
struct Place {
    /// Its name below the realm.
    name: String,
    /// The path of Vault's API.
    api: String,
    /// Any of these opens what is there; all else only touches it.
    opens: &'static [&'static str],
    /// Where it leads.
    to: Vec<(Node, Via)>,
}

const READ: &[&str] = &["read", "root"];
const MAKE: &[&str] = &["create", "update", "root"];

/// Reads one Vault.
pub struct Reader {
    realm: String,
    vault: Arc<Vault>,
    /// `<prefix of leases>` → target, as the realm's configuration has it.
    targets: Vec<(String, String)>,
    limit: DefaultDirectRateLimiter,
}

/// One reading under way.
struct Round {
    reading: Reading,
    /// KV version 2 mounts, without the slash at their end.
    kv: BTreeSet<String>,
    places: Vec<Place>,
    /// The policies that somebody has.
    policies: BTreeSet<String>,
    /// The roles and users of each auth method, by its mount.
    logins: BTreeMap<String, Vec<Node>>,
    /// Which AppRole has which role_id, by mount and digest: `None` where we may not read one of them. No role_id is kept.
    role_ids: BTreeMap<String, Option<BTreeMap<[u8; 16], Node>>>,
}

/// Nothing more can be asked now.
struct Stop;

impl Reader {
    /// For `realm`, on a login of its own ([`Vault::open`] with [`crate::guard::Mode::Observe`]).
    pub fn new(realm: &str, vault: Arc<Vault>, targets: Vec<(String, String)>, per_second: NonZeroU32) -> Self {
        let limit = RateLimiter::direct(Quota::per_second(per_second));
        Self { realm: realm.to_owned(), vault, targets, limit }
    }

    /// All that it holds. `known`: places of this Vault that others named, `<mount>/<path>`; `tokens`: those that the journal
    /// knows and that live.
    pub async fn read(&self, known: &BTreeSet<String>, tokens: &[CredentialId]) -> Reading {
        let mut round = Round {
            reading: Reading::default(),
            kv: BTreeSet::new(),
            places: Vec::new(),
            policies: BTreeSet::from(["default".to_owned()]),
            logins: BTreeMap::new(),
            role_ids: BTreeMap::new(),
        };
        if self.walk(&mut round, known, tokens).await.is_err() {
            round.reading.fault("the rest was not read");
        }
        round.reading
    }

    async fn walk(&self, round: &mut Round, known: &BTreeSet<String>, tokens: &[CredentialId]) -> Result<(), Stop> {
        self.engines(round).await?;
        self.logins(round).await?;
        self.entities(round).await?;
        self.tokens(round, tokens).await?;
        self.known(round, known);
        self.policies(round).await
    }

    fn node(&self, round: &mut Round, kind: NodeKind, name: &str) -> Option<Node> {
        round.reading.node(kind, &format!("{}/{name}", self.realm))
    }

    /// Settings. `None`: they are gone, or refused, which is noted.
    async fn settings(&self, round: &mut Round, path: &str) -> Result<Option<Value>, Stop> {
        self.limit.until_ready().await;
        match self.vault.ask(Call::Settings, Raw::get(path)).await {
            Meaning::Done { mut data, .. } => Ok(Some(data["data"].take())),
            Meaning::Gone => Ok(None),
            Meaning::Forbidden => {
                round.reading.fault(format!("our login may not read {path}: see deploy/vault/reach.hcl"));
                Ok(None)
            }
            Meaning::Failed(failure) => missed(round, path, &failure).map(|()| None),
            Meaning::Outdated | Meaning::Unclear(_) => {
                round.reading.fault(format!("an odd answer to {path}"));
                Ok(None)
            }
        }
    }

    /// The keys of a list, without slashes at their ends.
    async fn list(&self, round: &mut Round, path: &str) -> Result<Vec<String>, Stop> {
        self.limit.until_ready().await;
        match self.vault.list(path).await {
            Ok(mut keys) => {
                if keys.len() > MOST {
                    round.reading.fault(format!("{path} has more than {MOST}: the rest was not read"));
                    keys.truncate(MOST);
                }
                Ok(keys.into_iter().map(|key| key.trim_end_matches('/').to_owned()).collect())
            }
            Err(failure) => missed(round, path, &failure).map(|()| Vec::new()),
        }
    }

    /// Which engines there are, and what the database engines mint.
    async fn engines(&self, round: &mut Round) -> Result<(), Stop> {
        let Some(mounts) = self.settings(round, "sys/mounts").await? else { return Ok(()) };
        for (path, mount) in mounts.as_object().into_iter().flatten() {
            let path = path.trim_end_matches('/');
            match mount["type"].as_str() {
                Some("kv") if mount["options"]["version"] == "2" => {
                    round.kv.insert(path.to_owned());
                }
                Some("database") => {
                    for (list, creds) in [("roles", "creds"), ("static-roles", "static-creds")] {
                        for role in self.list(round, &format!("{path}/{list}")).await? {
                            let name = format!("{path}/{creds}/{role}");
                            let to = self.opened(round, &name);
                            round.places.push(Place { api: name.clone(), name, opens: READ, to });
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What a lease of this path opens, by the realm's `targets`: the longest prefix counts.
    fn opened(&self, round: &mut Round, name: &str) -> Vec<(Node, Via)> {
        let fitting = self.targets.iter().filter(|(prefix, _)| {
            let prefix = prefix.trim_end_matches('/');
            name == prefix || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        });
        let best = fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, target)| target.clone());
        best.and_then(|target| round.reading.node(NodeKind::Target, &target))
            .map(|node| (node, Via::Opens))
            .into_iter()
            .collect()
    }

    /// Roles and users of the auth methods, and what a token of each may do.
    async fn logins(&self, round: &mut Round) -> Result<(), Stop> {
        let Some(methods) = self.settings(round, "sys/auth").await? else { return Ok(()) };
        for (path, method) in methods.as_object().into_iter().flatten() {
            let mount = path.trim_end_matches('/');
            let kind = method["type"].as_str().unwrap_or_default();
            let list = match kind {
                "approle" | "jwt" | "oidc" | "kubernetes" | "aws" | "gcp" | "azure" => "role",
                "userpass" | "ldap" => "users",
                "token" => "roles",
                _ => continue,
            };
            let roles = self.list(round, &format!("auth/{mount}/{list}")).await?;
            let leases = if kind == "approle" && !roles.is_empty() { self.leases(round, mount).await? } else { None };
            for role in roles {
                let settings = self.settings(round, &format!("auth/{mount}/{list}/{role}")).await?;
                let Some(settings) = settings else { continue };
                let lifetimes = (kind == "approle").then(|| lifetimes(&settings, &method["config"], leases));
                self.login(round, (mount, kind, &role), &settings, lifetimes);
                if kind == "approle" {
                    self.role_id(round, mount, &role).await?;
                }
            }
            if kind == "ldap" {
                self.directory(round, mount).await?;
            }
        }
        Ok(())
    }

    /// An entity's alias at an AppRole is called by the role's role_id. Who may not read that does not tell one role of the method from
    /// another; nothing else is left out by it.
    async fn role_id(&self, round: &mut Round, mount: &str, role: &str) -> Result<(), Stop> {
        let Some(node) = self.node(round, NodeKind::Identity, &format!("{mount}/{role}")) else { return Ok(()) };
        let known = round.role_ids.entry(mount.to_owned()).or_insert_with(|| Some(BTreeMap::new()));
        let Some(all) = known else { return Ok(()) };
        self.limit.until_ready().await;
        match self.vault.ask(Call::RoleId, Raw::get(format!("auth/{mount}/role/{role}/role-id"))).await {
            Meaning::Done { data, .. } => {
                let id = data["data"]["role_id"].as_str().unwrap_or_default();
                all.insert(digest16(&[id.as_bytes()]), node);
            }
            Meaning::Gone => {}
            Meaning::Failed(failure) if failure.kind != FailureKind::Refused => {
                missed(round, "the role_id of a role", &failure)?;
            }
            _ => *known = None,
        }
        Ok(())
    }

    /// How long a mount's tokens live where its roles say nothing, and the longest that they may. `None`: our login may not read
    /// it. That makes no part: who opens what does not rest on it.
    async fn leases(&self, round: &mut Round, mount: &str) -> Result<Option<(u64, u64)>, Stop> {
        let path = format!("sys/mounts/auth/{mount}/tune");
        self.limit.until_ready().await;
        match self.vault.ask(Call::Settings, Raw::get(&path)).await {
            Meaning::Done { data, .. } => {
                let of = |name: &str| data["data"][name].as_u64().filter(|seconds| *seconds > 0);
                Ok(of("default_lease_ttl").zip(of("max_lease_ttl")))
            }
            Meaning::Forbidden | Meaning::Gone | Meaning::Outdated | Meaning::Unclear(_) => Ok(None),
            Meaning::Failed(failure) => missed(round, &path, &failure).map(|()| None),
        }
    }

    fn login(
        &self,
        round: &mut Round,
        (mount, kind, role): (&str, &str, &str),
        settings: &Value,
        lifetimes: Option<Lifetimes>,
    ) {
        let Some(node) = self.node(round, NodeKind::Identity, &format!("{mount}/{role}")) else { return };
        let fields = if kind == "token" { ["allowed_policies", "policies"] } else { ["token_policies", "policies"] };
        let mut policies: BTreeSet<String> = fields.iter().flat_map(|field| words(&settings[*field])).collect();
        let bare = settings["token_no_default_policy"].as_bool().unwrap_or(false);
        if !bare && kind != "token" {
            policies.insert("default".to_owned());
        }
        let mut fact = Fact::of(node.clone());
        fact.about.lifetimes = lifetimes.map(Box::new);
        self.has(round, &mut fact, policies);
        round.reading.facts.push(fact);
        round.logins.entry(mount.to_owned()).or_default().push(node.clone());
        // Who may make a secret_id of it, or a token of it, may become it.
        let made_at = match kind {
            "approle" => format!("auth/{mount}/role/{role}/secret-id"),
            "token" => format!("auth/token/create/{role}"),
            _ => return,
        };
        let to = vec![(node, Via::Assumes)];
        round.places.push(Place { api: made_at.clone(), name: made_at, opens: MAKE, to });
    }

    /// Who is in which group only the directory knows: whoever it lets in may be in each of them.
    async fn directory(&self, round: &mut Round, mount: &str) -> Result<(), Stop> {
        let mut groups = Vec::new();
        for group in self.list(round, &format!("auth/{mount}/groups")).await? {
            let Some(settings) = self.settings(round, &format!("auth/{mount}/groups/{group}")).await? else { continue };
            let Some(node) = self.node(round, NodeKind::Policy, &format!("group/{mount}/{group}")) else { continue };
            let mut fact = Fact::of(node.clone());
            self.has(round, &mut fact, words(&settings["policies"]).into_iter().collect());
            round.reading.facts.push(fact);
            groups.push(node);
        }
        if groups.is_empty() {
            return Ok(());
        }
        let anybody = self.node(round, NodeKind::Identity, &format!("{mount}/(whom the directory lets in)"));
        let known = round.logins.get(mount).cloned().unwrap_or_default();
        for login in anybody.into_iter().chain(known) {
            let mut fact = Fact::of(login);
            for group in &groups {
                fact.edge_to(Some(group), Via::Has);
            }
            round.reading.facts.push(fact);
        }
        Ok(())
    }

    fn has(&self, round: &mut Round, fact: &mut Fact, policies: BTreeSet<String>) {
        for policy in policies {
            if let Some(node) = self.node(round, NodeKind::Policy, &policy) {
                fact.edge_to(Some(&node), Via::Has);
                round.policies.insert(policy);
            }
        }
    }

    /// Entities and groups of the identity store.
    async fn entities(&self, round: &mut Round) -> Result<(), Stop> {
        let mut groups: BTreeMap<String, Node> = BTreeMap::new();
        for id in self.list(round, "identity/group/id").await? {
            let Some(group) = self.settings(round, &format!("identity/group/id/{id}")).await? else { continue };
            let name = group["name"].as_str().unwrap_or(&id);
            let Some(node) = self.node(round, NodeKind::Policy, &format!("group/{name}")) else { continue };
            let mut fact = Fact::of(node.clone());
            self.has(round, &mut fact, words(&group["policies"]).into_iter().collect());
            round.reading.facts.push(fact);
            groups.insert(id, node);
        }
        for id in self.list(round, "identity/entity/id").await? {
            let Some(entity) = self.settings(round, &format!("identity/entity/id/{id}")).await? else { continue };
            let name = entity["name"].as_str().unwrap_or(&id);
            let Some(node) = self.node(round, NodeKind::Identity, &format!("entity/{name}")) else { continue };
            let mut fact = Fact::of(node.clone());
            fact.about.off = entity["disabled"].as_bool().unwrap_or(false);
            fact.about.issued_ms = entity["creation_time"].as_str().and_then(milliseconds);
            self.has(round, &mut fact, words(&entity["policies"]).into_iter().collect());
            for group in words(&entity["group_ids"]).iter().filter_map(|id| groups.get(id)) {
                fact.edge_to(Some(group), Via::Has);
            }
            // Who logs in as one of its aliases has what it has.
            let gives = !fact.edges.is_empty() && !fact.about.off;
            self.aliases(round, &entity["aliases"], &node, gives);
            round.reading.facts.push(fact);
        }
        Ok(())
    }

    /// Who becomes an entity by logging in. A user is called as its alias is; an AppRole by its role_id, where that is known; of other
    /// roles the alias says something else (a claim), so each role of the method may be meant, where it has anything by that (`gives`).
    fn aliases(&self, round: &mut Round, aliases: &Value, entity: &Node, gives: bool) {
        for alias in aliases.as_array().into_iter().flatten() {
            let path = alias["mount_path"].as_str().unwrap_or_default();
            let mount = path.trim_start_matches("auth/").trim_end_matches('/');
            let is_user = matches!(alias["mount_type"].as_str(), Some("userpass" | "ldap"));
            let name = alias["name"].as_str().unwrap_or_default();
            if let Some(Some(known)) = round.role_ids.get(mount) {
                // An alias that fits none of them is of a role that is gone.
                if let Some(role) = known.get(&digest16(&[name.as_bytes()])).cloned() {
                    let mut fact = Fact::of(role);
                    fact.edge(entity.clone(), Via::Assumes, [ALIAS]);
                    round.reading.facts.push(fact);
                }
                continue;
            }
            if !gives {
                continue;
            }
            let who = if is_user {
                self.node(round, NodeKind::Identity, &format!("{mount}/{name}")).into_iter().collect()
            } else {
                round.logins.get(mount).cloned().unwrap_or_default()
            };
            for login in who {
                let mut fact = Fact::of(login);
                fact.edge_to(Some(entity), Via::Assumes);
                round.reading.facts.push(fact);
            }
        }
    }

    /// What the tokens that the journal knows may do.
    async fn tokens(&self, round: &mut Round, tokens: &[CredentialId]) -> Result<(), Stop> {
        if tokens.len() > MOST {
            round.reading.fault(format!("more than {MOST} tokens: the rest was not looked at"));
        }
        for token in tokens.iter().take(MOST) {
            self.limit.until_ready().await;
            match self.vault.look_at_token(&token.id()).await {
                Ok((seen, said)) if seen.presence == Presence::Present => {
                    let Some(node) = round.reading.node(NodeKind::Credential, token.as_str()) else { continue };
                    let mut fact = Fact::of(node);
                    fact.about.issued_ms = seen.issued_ms;
                    let all = ["policies", "identity_policies"].iter().flat_map(|field| words(&said[*field]));
                    self.has(round, &mut fact, all.collect());
                    round.reading.facts.push(fact);
                }
                Ok(_) => {}
                Err(failure) => missed(round, "auth/token/lookup-accessor", &failure)?,
            }
        }
        Ok(())
    }

    /// Places that others named, where no engine listed them.
    fn known(&self, round: &mut Round, known: &BTreeSet<String>) {
        let listed: BTreeSet<String> = round.places.iter().map(|place| place.name.clone()).collect();
        for name in known.iter().filter(|name| !listed.contains(*name)) {
            let of_kv = round.kv.iter().filter_map(|mount| Some((mount, name.strip_prefix(mount)?.strip_prefix('/')?)));
            let api = of_kv
                .max_by_key(|(mount, _)| mount.len())
                .map_or_else(|| name.clone(), |(mount, path)| format!("{mount}/data/{path}"));
            round.places.push(Place { name: name.clone(), api, opens: READ, to: Vec::new() });
        }
    }

    /// What each policy allows at each place.
    async fn policies(&self, round: &mut Round) -> Result<(), Stop> {
        let names = self.list(round, "sys/policies/acl").await?;
        let places = std::mem::take(&mut round.places);
        for place in &places {
            let Some(node) = self.node(round, NodeKind::Path, &place.name) else { continue };
            let mut fact = Fact::of(node);
            for (to, via) in &place.to {
                fact.edge_to(Some(to), *via);
            }
            round.reading.facts.push(fact);
        }
        let mut texts: BTreeMap<Node, Policy> = BTreeMap::new();
        let listed: BTreeSet<String> = names.into_iter().chain(["root".to_owned()]).collect();
        for name in listed {
            let policy = if name == "root" {
                Policy::root()
            } else {
                let Some(said) = self.settings(round, &format!("sys/policies/acl/{name}")).await? else { continue };
                match Policy::parse(said["policy"].as_str().unwrap_or_default()) {
                    Ok(policy) => policy,
                    Err(bad) => {
                        round.reading.fault(format!("policy {name}: {bad}"));
                        continue;
                    }
                }
            };
            let Some(node) = self.node(round, NodeKind::Policy, &name) else { continue };
            let mut fact = Fact::of(node);
            for place in &places {
                let allowed = match place.api.strip_suffix('*') {
                    Some(start) => policy.below(start),
                    None => policy.on(&place.api),
                };
                if allowed.is_empty() {
                    continue;
                }
                let via =
                    if place.opens.iter().any(|word| allowed.contains(*word)) { Via::Reads } else { Via::Touches };
                if let Some(to) = self.node(round, NodeKind::Path, &place.name) {
                    fact.edge(to, via, allowed);
                }
            }
            texts.insert(fact.node.clone(), policy);
            round.reading.facts.push(fact);
            // Policies times places: others have their turn between two of them.
            tokio::task::yield_now().await;
        }
        narrows(&mut round.reading.facts, &texts);
        Ok(())
    }
}

/// Says of each policy of an identity that holds back another one that it has, itself or as the entity that it may become: taken
/// alone, it would leave more than there was.
fn narrows(facts: &mut [Fact], texts: &BTreeMap<Node, Policy>) {
    let mut given: BTreeMap<Node, BTreeSet<Node>> = BTreeMap::new();
    for fact in facts.iter() {
        let all = fact.edges.iter().filter(|edge| matches!(edge.via, Via::Has | Via::Assumes));
        given.entry(fact.node.clone()).or_default().extend(all.map(|edge| edge.to.clone()));
    }
    for fact in facts.iter_mut().filter(|fact| fact.node.kind == NodeKind::Identity) {
        let (mut all, mut next) = (BTreeSet::new(), vec![fact.node.clone()]);
        while let Some(at) = next.pop() {
            for to in given.get(&at).into_iter().flatten() {
                if all.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        for edge in fact.edges.iter_mut().filter(|edge| edge.via == Via::Has) {
            let Some(policy) = texts.get(&edge.to) else { continue };
            let others = all.iter().filter(|other| **other != edge.to).filter_map(|other| texts.get(other));
            if others.into_iter().any(|other| policy.holds_back(other)) {
                edge.scope.push(NARROWS.to_owned());
            }
        }
    }
}

/// What an AppRole says of how long what it gives lives, and what its mount does.
fn lifetimes(role: &Value, mount: &Value, leases: Option<(u64, u64)>) -> Lifetimes {
    let of = |name: &str| role[name].as_u64().unwrap_or(0);
    let batch = match role["token_type"].as_str() {
        Some("batch") => true,
        Some("service") => false,
        _ => matches!(mount["token_type"].as_str(), Some("batch" | "default-batch")),
    };
    Lifetimes {
        token_ttl: of("token_ttl"),
        token_max_ttl: of("token_max_ttl"),
        token_explicit_max_ttl: of("token_explicit_max_ttl"),
        token_period: of("token_period"),
        secret_id_ttl: of("secret_id_ttl"),
        batch,
        mount: leases,
    }
}

/// A look that failed. What is refused is one; what is down or throttled is so for all.
fn missed(round: &mut Round, path: &str, failure: &Failure) -> Result<(), Stop> {
    round.reading.fault(format!("{path}: {}", failure.note));
    if matches!(failure.kind, FailureKind::Refused | FailureKind::Gone) { Ok(()) } else { Err(Stop) }
}

fn words(json: &Value) -> Vec<String> {
    json.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
}

fn milliseconds(text: &str) -> Option<i64> {
    Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}
