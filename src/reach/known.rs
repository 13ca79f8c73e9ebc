//! What Curfew knows by itself: recipes, tasks and what they hold, and the credentials that stand. PURE.

use std::collections::BTreeSet;

use super::{Departure, Fact, Node, NodeKind, Offboarded, Reading, Via};
use crate::connector::Realm;
use crate::connector::recipe::{Place, Recipe};
use crate::credential::{CredentialId, Kind};
use crate::journal::{Standing, TaskLine};
use crate::offboard::{self, Offboarding};
use crate::task::{Boundary, GrantPhase};

/// So many live tasks, and so many credentials that stand, are taken.
pub const MOST: u32 = 100_000;

/// What is known, as it stands.
pub struct Known<'a> {
    /// The configuration's.
    pub recipes: &'a [Recipe],
    /// The configuration's.
    pub realms: &'a [Realm],
    /// Names of its targets.
    pub targets: &'a [String],
    /// Live tasks.
    pub tasks: &'a [TaskLine],
    /// Credentials that end with no task.
    pub standing: &'a [Standing],
    /// Who leaves.
    pub offboardings: &'a [Offboarding],
}

/// Who a user of a target is, by the kind of its credential.
pub fn identity_of(kind: Kind, instance: &str, user: &str) -> String {
    match kind {
        Kind::AwsUser | Kind::AwsAccessKey => format!("{instance}/user/{user}"),
        _ => format!("{instance}/{user}"),
    }
}

/// Where a value is stored, as a node is called.
pub fn path_of(place: &Place) -> String {
    format!("{}/{}/{}", place.realm, place.mount, place.path)
}

/// The tokens that a Vault's policies are asked for.
pub fn tokens<'a>(known: &'a Known<'_>, realm: &str) -> BTreeSet<&'a CredentialId> {
    let held = known.tasks.iter().flat_map(|line| &line.holds).filter(|one| one.dead_ms.is_none());
    let held = held.map(|one| &one.grant.credential);
    let standing = known.standing.iter().map(|one| &one.credential.id);
    let of = |id: &&CredentialId| id.kind() == Kind::VaultToken && id.instance() == realm;
    held.chain(standing).filter(of).collect()
}

/// All of it.
pub fn facts(known: &Known<'_>) -> Reading {
    let mut reading = Reading::default();
    let full = usize::try_from(MOST).unwrap_or(usize::MAX);
    if known.tasks.len() >= full || known.standing.len() >= full {
        reading.fault(format!("more than {MOST} live tasks, or credentials that stand: the rest was not read"));
    }
    if known.offboardings.len() >= usize::try_from(offboard::MOST).unwrap_or(usize::MAX) {
        reading.fault(format!("more than {} words on who leaves: the rest was not read", offboard::MOST));
    }
    for one in known.offboardings {
        let (tenant, topic) = (one.tenant.to_string(), one.topic.clone());
        let word = Departure { tenant, topic, since_ms: one.since_ms, until_ms: one.until_ms };
        let mut fact = Fact::of(one.node.clone());
        fact.about.offboarded = Some(Box::new(Offboarded { words: [word].into() }));
        reading.facts.push(fact);
    }
    for target in known.targets {
        if let Some(node) = reading.node(NodeKind::Target, target) {
            reading.facts.push(Fact::of(node));
        }
    }
    for recipe in known.recipes {
        rotated(&mut reading, recipe);
    }
    for line in known.tasks {
        task(&mut reading, line, known.realms);
    }
    for one in known.standing {
        let credential = &one.credential;
        let Some(mut fact) =
            self::credential(&mut reading, &credential.id, credential.principal.as_deref(), known.realms)
        else {
            continue;
        };
        fact.about.issued_ms = credential.issued_ms;
        owned(&mut reading, &mut fact, credential.owner.as_deref());
        reading.facts.push(fact);
        stored(&mut reading, &credential.id);
    }
    reading
}

fn owned(reading: &mut Reading, fact: &mut Fact, owner: Option<&str>) {
    fact.edge_to(owner.and_then(|owner| reading.node(NodeKind::Owner, owner)).as_ref(), Via::OwnedBy);
}

/// What a recipe says of its credential: who logs in with it, where it is stored, who reads it there.
fn rotated(reading: &mut Reading, recipe: &Recipe) {
    let (id, instance) = (&recipe.credential, recipe.credential.instance());
    let Some(node) = reading.node(NodeKind::Credential, id.as_str()) else { return };
    let mut fact = Fact::of(node.clone());
    for user in recipe.users.names() {
        let Some(identity) = reading.node(NodeKind::Identity, &identity_of(id.kind(), instance, user)) else {
            continue;
        };
        fact.edge_to(Some(&identity), Via::LogsIn);
        let mut login = Fact::of(identity);
        // An AppRole opens what its policies say, and no target of its own.
        if id.kind() != Kind::VaultApprole {
            login.edge_to(reading.node(NodeKind::Target, instance).as_ref(), Via::Opens);
        }
        owned(reading, &mut login, recipe.owner.as_deref());
        reading.facts.push(login);
    }
    owned(reading, &mut fact, recipe.owner.as_deref());
    reading.facts.push(fact);
    for place in std::iter::once(&recipe.place).chain(&recipe.copies) {
        let Some(path) = reading.node(NodeKind::Path, &path_of(place)) else { continue };
        let mut stores = Fact::of(path);
        stores.edge_to(Some(&node), Via::Stores);
        reading.facts.push(stores);
    }
    let Some(path) = reading.node(NodeKind::Path, &path_of(&recipe.place)) else { return };
    for consumer in &recipe.adoption.consumers {
        let Some(consumer) = reading.node(NodeKind::Consumer, consumer) else { continue };
        let mut reads = Fact::of(consumer);
        reads.edge_to(Some(&path), Via::Reads);
        reading.facts.push(reads);
    }
}

/// What may be opened within a boundary: also where it is said what is to be done there, and no more.
pub fn may(boundary: &Boundary) -> Vec<Node> {
    let zones = boundary.zones.iter().map(|name| (NodeKind::Zone, name));
    let worked_on = boundary.actions.iter().map(|one| &one.target);
    let targets = boundary.targets.iter().chain(worked_on).map(|name| (NodeKind::Target, name));
    zones.chain(targets).filter_map(|(kind, name)| Node::new(kind, name).ok()).collect()
}

/// A live task, who runs it, and what it holds.
fn task(reading: &mut Reading, line: &TaskLine, realms: &[Realm]) {
    let Some(node) = reading.node(NodeKind::Task, line.task.run.as_str()) else { return };
    let agent = line.task.identity.as_deref().and_then(|name| reading.node(NodeKind::Agent, name));
    if let Some(agent) = agent {
        let mut runs = Fact::of(agent);
        runs.edge_to(Some(&node), Via::Runs);
        reading.facts.push(runs);
    }
    let mut fact = Fact::of(node);
    fact.about.label = line.task.name.clone();
    fact.about.may = line.task.boundary.as_ref().map(may);
    for one in line.task.boundary.iter().flat_map(|boundary| &boundary.actions) {
        fact.about
            .actions
            .get_or_insert_default()
            .entry(one.target.clone())
            .or_default()
            .extend(one.permissions.iter().cloned());
    }
    for one in line.holds.iter().filter(|one| one.dead_ms.is_none() && one.grant.phase == GrantPhase::Held) {
        let Some(held) = credential(reading, &one.grant.credential, one.principal.as_deref(), realms) else { continue };
        fact.edge_to(Some(&held.node), Via::Holds);
        reading.facts.push(held);
    }
    reading.facts.push(fact);
}

/// What a credential opens, as far as its id tells.
fn credential(reading: &mut Reading, id: &CredentialId, principal: Option<&str>, realms: &[Realm]) -> Option<Fact> {
    let mut fact = Fact::of(reading.node(NodeKind::Credential, id.as_str())?);
    let (instance, name) = (id.instance(), id.id());
    match id.kind() {
        Kind::VaultLease => {
            let realm = realms.iter().find(|realm| realm.name == instance);
            let target = realm.and_then(|realm| target_of(realm, &name));
            let user = target.zip(principal).map(|(target, user)| format!("{target}/{user}"));
            fact.edge_to(user.and_then(|user| reading.node(NodeKind::Identity, &user)).as_ref(), Via::LogsIn);
            fact.edge_to(target.and_then(|target| reading.node(NodeKind::Target, target)).as_ref(), Via::Opens);
        }
        // `<mount>/<role>/<accessor>`
        Kind::VaultSecretId => {
            let role = name.rsplit_once('/').map(|(role, _)| format!("{instance}/{role}"));
            fact.edge_to(role.and_then(|role| reading.node(NodeKind::Identity, &role)).as_ref(), Via::LogsIn);
        }
        // `<mount>/<role>`
        Kind::VaultApprole => {
            fact.edge_to(reading.node(NodeKind::Identity, &format!("{instance}/{name}")).as_ref(), Via::LogsIn);
        }
        // `<path><user>/<key>`
        Kind::AwsAccessKey => {
            let user = name.rsplit_once('/').map(|(user, _)| identity_of(id.kind(), instance, user));
            fact.edge_to(user.and_then(|user| reading.node(NodeKind::Identity, &user)).as_ref(), Via::LogsIn);
        }
        // A recipe says who logs in with it; a token's policies say what it may.
        _ => {}
    }
    Some(fact)
}

/// The target that a lease opens: the longest prefix counts.
fn target_of<'a>(realm: &'a Realm, lease: &str) -> Option<&'a str> {
    let fitting = realm.targets.iter().filter(|(prefix, _)| lease.starts_with(prefix.as_str()));
    fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, target)| target.as_str())
}

/// Values that the inventory knows are called by their place.
fn stored(reading: &mut Reading, id: &CredentialId) {
    let name = id.id();
    let place = match id.kind() {
        Kind::VaultKv => name.rsplit_once('#').map(|(path, _)| format!("{}/{path}", id.instance())),
        Kind::AwsSecret => {
            let secret = name.rsplit_once('#').map(|(secret, _)| secret.to_owned());
            secret.map(|secret| format!("{}/{}/{secret}", id.instance(), crate::connector::recipe::SECRETS_MANAGER))
        }
        _ => None,
    };
    let path = place.and_then(|place| reading.node(NodeKind::Path, &place));
    let node: Option<Node> = reading.node(NodeKind::Credential, id.as_str());
    if let (Some(path), Some(node)) = (path, node) {
        let mut fact = Fact::of(path);
        fact.edge_to(Some(&node), Via::Stores);
        reading.facts.push(fact);
    }
}
