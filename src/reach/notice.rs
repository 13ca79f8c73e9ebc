//! What reach itself finds: a credential that crosses zones, one with several users, one that nobody owns or uses, one that opens
//! more than was declared, one that belongs to somebody who leaves. PURE.
//!
//! Each is a finding like a scanner's, with what it rests on as its place, under the topic [`TOPIC`] with an authority of its own.
//! What is not true any more is closed. Of sources that are not whole nothing is concluded: neither that something is there,
//! nor that it is over.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::graph::NodeIndex;
use serde::Deserialize;

use super::ask::{self, users, zone_bits};
use super::graph::{Graph, Link};
use super::long_lived;
use super::unused::{self, Asked};
use super::uses::Uses;
use super::{Departure, Node, NodeKind, Via, outside};
use crate::case::Case;
use crate::credential::{CredentialId, Kind};
use crate::event::Leaves;
use crate::finding::Finding;
use crate::journal::CaseLine;
use crate::scope::{self, Move, Permission};

/// On whose authority they are. No topic of a broker can be called so.
pub const TOPIC: &str = "reach:";
/// What their detectors are called before the colon: such findings follow only rules that name them.
pub const DETECTOR: &str = "curfew";
/// So many of one sort are open at a time, and so many more that wait for a person: a mistake in a declaration is no flood of cases, and
/// what nobody decides keeps nothing that goes on by itself from being found.
pub const MOST: usize = 100;
/// The scope of an edge by which a role is known to log in as just that entity.
pub const ALIAS: &str = "alias";
/// Characters of what a finding rests on.
const PLACE: usize = 400;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// It opens targets in more than one zone.
    CrossesZones,
    /// More than one agent or consumer uses it.
    Shared,
    /// Nobody answers for it.
    Unowned,
    /// It was not used for a time.
    Dormant,
    /// It opens more than was declared for whom it belongs to.
    Beyond,
    /// A task holds it, and it opens more than the task said that it is for.
    Outside,
    /// It belongs to somebody who leaves. Always looked for.
    Offboarded,
    /// Policies of it granted nothing for a time.
    Unused,
    /// What it gives lives longer than the tasks that work by it.
    LongLived,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::CrossesZones,
        Self::Shared,
        Self::Unowned,
        Self::Dormant,
        Self::Beyond,
        Self::Outside,
        Self::Offboarded,
        Self::Unused,
        Self::LongLived,
    ];

    /// The name of its detector, behind `curfew:`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CrossesZones => "crosses_zones",
            Self::Shared => "shared",
            Self::Unowned => "unowned",
            Self::Dormant => "dormant",
            Self::Beyond => "beyond",
            Self::Outside => "outside",
            Self::Offboarded => "offboarded",
            Self::Unused => "unused",
            Self::LongLived => "long_lived",
        }
    }

    /// Whether it rests on what a log of use does not say.
    pub fn is_silence(self) -> bool {
        matches!(self, Self::Dormant | Self::Unused)
    }

    /// The detector's whole name.
    pub fn detector(self) -> String {
        format!("{DETECTOR}:{}", self.as_str())
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub sort: Sort,
    /// Of which.
    pub credential: CredentialId,
    /// What it rests on, in short.
    pub place: String,
    /// Who answers for it, where somebody does.
    pub owner: Option<String>,
    /// The permissions that are too much, where they can be named.
    pub excess: Vec<Permission>,
    /// Of somebody who leaves: what follows from that.
    pub leaves: Option<Leaving>,
    /// Of what tasks hold and is too much for them: the agents that can do with less, and with how much.
    pub moves: Vec<Move>,
}

/// Of a credential that belongs to somebody who leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Whose words these are.
    pub tenant: String,
    /// What each who says so asks of the credential.
    pub words: BTreeSet<Word>,
    /// None of them may have it done.
    pub powerless: bool,
}

/// What follows for a credential from one topic's word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// The topic.
    pub topic: String,
    /// Until when whoever it lets in as is fenced. `None`: only the credential is meant.
    pub fence_until_ms: Option<i64>,
    /// An agent that does not leave uses it as well.
    pub shared: bool,
}

impl Leaving {
    /// As the event says it: the longest fence, and who asked for just that.
    pub fn said(&self) -> Leaves {
        let shared = self.shared();
        let asks = || self.words.iter().filter(|word| word.shared == shared);
        let fence_until_ms = asks().filter_map(|word| word.fence_until_ms).max();
        let topics: BTreeSet<&String> =
            asks().filter(|word| word.fence_until_ms == fence_until_ms).map(|word| &word.topic).collect();
        Leaves { topics: topics.into_iter().cloned().collect(), fence_until_ms, shared }
    }

    /// Only words of this tenant count; and what a topic says that `may` not have it done counts only where no other topic says
    /// anything. Whether there is a word.
    pub fn keep(&mut self, tenant: &str, may: impl Fn(&str) -> bool) -> bool {
        if self.tenant != tenant {
            return false;
        }
        self.powerless = !self.words.iter().any(|word| may(&word.topic));
        if !self.powerless {
            self.words.retain(|word| may(&word.topic));
        }
        !self.words.is_empty()
    }

    /// Whether all of them know of somebody who stays.
    fn shared(&self) -> bool {
        self.words.iter().all(|word| word.shared)
    }

    fn fences(&self) -> bool {
        self.words.iter().any(|word| word.fence_until_ms.is_some())
    }
}

impl Found {
    /// The finding's key: the same as long as it is there, whatever it rests on.
    pub fn key(&self) -> String {
        format!("{}:{}", self.sort.as_str(), self.credential)
    }

    /// Whether a person decides about it, whatever the rules say: somebody who stays uses it as well, or nobody who says so may.
    fn waits(&self) -> bool {
        self.leaves.as_ref().is_some_and(|leaves| leaves.shared() || leaves.powerless)
    }
}

/// By what silence is measured, and how long tasks live.
#[derive(Debug, Clone)]
pub struct Silences {
    /// What logs say of use.
    pub uses: Uses,
    /// For `dormant`.
    pub dormant: Asked,
    /// For `unused`.
    pub unused: Asked,
    /// For `long_lived`.
    pub lives: long_lived::Asked,
}

/// What is there, sort by sort, the heaviest first; no log of use is read.
pub fn found(graph: &Graph, sorts: &[Sort], dormant_before_ms: i64) -> BTreeMap<Sort, Vec<Found>> {
    let asked = Asked { for_ms: 0, youngest_ms: 0, now_ms: dormant_before_ms };
    let lives = long_lived::Asked::default();
    found_by(graph, sorts, &Silences { uses: Uses::default(), dormant: asked, unused: asked, lives })
}

/// The same, with what logs say of use.
pub fn found_by(graph: &Graph, sorts: &[Sort], by: &Silences) -> BTreeMap<Sort, Vec<Found>> {
    let of = |sort: &Sort| {
        let all = match sort {
            Sort::CrossesZones => crossing(graph),
            Sort::Shared => shared(graph),
            Sort::Unowned => listed(graph, Sort::Unowned, ask::unowned(graph, usize::MAX), "nobody answers for it"),
            Sort::Dormant => {
                let lines = ask::silent(graph, &by.uses, &by.dormant, usize::MAX);
                listed(graph, Sort::Dormant, lines, "not used for longer than is allowed")
            }
            Sort::Beyond => beyond(graph, false),
            Sort::Outside => beyond(graph, true),
            Sort::Offboarded => offboarded(graph),
            Sort::Unused => silent_grants(graph, by),
            Sort::LongLived => long_lives(graph, by),
        };
        (*sort, all)
    };
    sorts.iter().map(of).collect()
}

/// The credential of a node, where it is one that stands: what a task holds ends with it.
fn standing(graph: &Graph, at: NodeIndex) -> Option<CredentialId> {
    let node = graph.node(at);
    let id = CredentialId::parse(&node.name).ok().filter(|_| node.kind == NodeKind::Credential)?;
    let off = graph.about(at).is_some_and(|about| about.off);
    (!off && id.kind() != Kind::Unserved).then_some(id)
}

fn is_of_task(graph: &Graph, at: NodeIndex) -> bool {
    graph.links(at, Incoming).any(|(from, _)| graph.node(from).kind == NodeKind::Task)
}

fn make(graph: &Graph, at: NodeIndex, sort: Sort, credential: CredentialId, place: &str) -> Found {
    let mut owned = graph.links(at, Outgoing).filter(|(_, link)| link.via == Via::OwnedBy);
    let owner = owned.next().map(|(owner, _)| graph.node(owner).name.to_string());
    Found {
        sort,
        credential,
        place: place.chars().take(PLACE).collect(),
        owner,
        excess: Vec::new(),
        leaves: None,
        moves: Vec::new(),
    }
}

fn names(nodes: impl IntoIterator<Item = Node>) -> String {
    nodes.into_iter().map(|node| node.name.to_string()).collect::<Vec<_>>().join(", ")
}

fn crossing(graph: &Graph) -> Vec<Found> {
    let (zones, bits) = zone_bits(graph);
    let mut all: Vec<(u64, Found)> = Vec::new();
    for at in graph.of_kind(NodeKind::Credential) {
        let reached = bits[at.index()];
        let Some(id) = standing(graph, at).filter(|_| reached.count_ones() > 1) else { continue };
        let in_it = zones.iter().enumerate().filter(|(no, _)| reached & (1 << no) != 0).map(|(_, zone)| *zone);
        let in_it: Vec<NodeIndex> = in_it.collect();
        let weight = in_it.iter().map(|zone| graph.weight(*zone)).sum();
        let place = format!("opens zones {}", names(in_it.iter().map(|zone| graph.node(*zone).clone())));
        all.push((weight, make(graph, at, Sort::CrossesZones, id, &place)));
    }
    sorted(all)
}

fn shared(graph: &Graph) -> Vec<Found> {
    let mut all = Vec::new();
    for at in graph.of_kind(NodeKind::Credential) {
        let Some(id) = standing(graph, at) else { continue };
        let users = users(graph, at);
        if users.len() > 1 {
            let place = format!("used by {}", names(users.iter().map(|user| graph.node(*user).clone())));
            all.push((users.len() as u64, make(graph, at, Sort::Shared, id, &place)));
        }
    }
    sorted(all)
}

fn listed(graph: &Graph, sort: Sort, lines: ask::Lines, place: &str) -> Vec<Found> {
    let nodes = lines.lines.iter().filter_map(|line| graph.find(&line.node));
    let of = |at| Some(make(graph, at, sort, standing(graph, at).filter(|_| !is_of_task(graph, at))?, place));
    nodes.filter_map(of).collect()
}

/// Credentials for which something was declared, or for whom they log in as, or who holds them: by people, or by the task that
/// holds them.
fn beyond(graph: &Graph, by_task: bool) -> Vec<Found> {
    let sort = if by_task { Sort::Outside } else { Sort::Beyond };
    let mut all: BTreeMap<CredentialId, (u64, Found)> = BTreeMap::new();
    let is_asked = |at: &NodeIndex| (graph.node(*at).kind == NodeKind::Task) == by_task;
    let declared = graph.all.node_indices().filter(|at| graph.about(*at).is_some_and(|about| about.may.is_some()));
    let declared = declared.filter(is_asked);
    for at in declared {
        let gate = ask::gate(graph, at);
        let works = by_task && graph.about(at).is_some_and(|about| about.actions.is_some());
        if gate.beyond.is_empty() && !works {
            continue;
        }
        let opened = names(gate.beyond.iter().map(|one| one.target.clone()));
        let place = format!("{} opens {opened} beyond what was declared", gate.node);
        let logs_in = graph.links(at, Incoming).filter(|(_, link)| link.via == Via::LogsIn).map(|(from, _)| from);
        let logs_in: Vec<NodeIndex> = logs_in.collect();
        let bearer = bearer(graph, &logs_in);
        let held = graph.links(at, Outgoing).filter(|(_, link)| link.via == Via::Holds).map(|(to, _)| to);
        for credential in std::iter::once(at).chain(logs_in.iter().copied()).chain(held) {
            // Of what a task holds, that which opens it.
            let opens = || {
                ask::opened_by(graph, credential).iter().any(|one| gate.beyond.iter().any(|b| b.target == one.target))
            };
            let Some(id) = standing(graph, credential).filter(|id| !all.contains_key(id)) else { continue };
            let does = if works { outside::excess(graph, at, credential) } else { outside::Excess::new() };
            let place = match (does.is_empty(), !by_task || opens()) {
                (true, false) => continue,
                (true, true) => place.clone(),
                (false, false) => format!("{} may {} beyond what was declared", gate.node, outside::told(&does)),
                (false, true) => format!("{place}, and may {}", outside::told(&does)),
            };
            let found = make(graph, credential, sort, id.clone(), &place);
            let is_others = is_of_iam(&id) && bearer.as_ref() != Some(&id);
            let excess = if credential == at || by_task || is_others { Vec::new() } else { excess(graph, at, &id) };
            let moves = if by_task { outside::moves(graph, credential, &id) } else { Vec::new() };
            let weight = gate.beyond.len() + does.values().map(BTreeSet::len).sum::<usize>();
            all.insert(id, (weight as u64, Found { excess, moves, ..found }));
        }
    }
    sorted(all.into_values().collect())
}

/// What belongs to somebody who leaves: what lets in as that identity, what the agent's tasks hold, what was named itself. An owner
/// leaves nothing behind but what nobody answers for.
fn offboarded(graph: &Graph) -> Vec<Found> {
    let mut all: BTreeMap<(CredentialId, &str), Found> = BTreeMap::new();
    for at in graph.all.node_indices() {
        let tenants: BTreeSet<&str> = ask::departures(graph, at).map(|word| word.tenant.as_str()).collect();
        for tenant in tenants {
            for (credential, fences, others) in belongings(graph, at, tenant) {
                let Some(id) = standing(graph, credential) else { continue };
                let of = if others.is_empty() {
                    String::new()
                } else {
                    format!(", and is used by {}", names(others.iter().map(|other| graph.node(*other).clone())))
                };
                let place = format!("belongs to {}, who leaves{of}", graph.node(at));
                let word = |word: &Departure| Word {
                    topic: word.topic.clone(),
                    fence_until_ms: fences.then_some(word.until_ms),
                    shared: !others.is_empty(),
                };
                let words = ask::departures(graph, at).filter(|word| word.tenant == tenant).map(word).collect();
                let leaves = Leaving { tenant: tenant.to_owned(), words, powerless: false };
                let found = make(graph, credential, Sort::Offboarded, id.clone(), &place);
                let known = all.entry((id, tenant)).or_insert_with(|| found.clone());
                let before = known.leaves.get_or_insert_with(|| leaves.clone());
                if before.shared() && !leaves.shared() {
                    known.place = found.place;
                }
                before.words.extend(leaves.words);
            }
        }
    }
    // Who is fenced comes first: what is not ended yet makes nothing new then.
    let weight = |found: &Found| {
        let fences = found.leaves.as_ref().is_some_and(Leaving::fences);
        u64::from(fences) + u64::from(fences && found.credential.kind() == Kind::VaultApprole)
    };
    sorted(all.into_values().map(|found| (weight(&found), found)).collect())
}

/// The credentials of somebody who leaves, as a tenant says; whether whoever one lets in as is fenced: nobody who stays lets himself
/// in as that one; and the agents that stay and use it as well.
fn belongings(graph: &Graph, at: NodeIndex, tenant: &str) -> Vec<(NodeIndex, bool, BTreeSet<NodeIndex>)> {
    let ways = |at, direction, via| {
        graph.links(at, direction).filter(move |(_, link)| link.via == via).map(|(other, _)| other)
    };
    let leaves = |at: &NodeIndex| ask::departures(graph, *at).any(|word| word.tenant == tenant);
    let stays = |at: &NodeIndex| graph.node(*at).kind == NodeKind::Agent && !leaves(at);
    let others = |credential| -> BTreeSet<NodeIndex> { users(graph, credential).into_iter().filter(stays).collect() };
    match graph.node(at).kind {
        NodeKind::Credential => vec![(at, false, BTreeSet::new())],
        // Whoever works as it: it was said of the identity itself. Of an entity: of the roles that log in as it, and as nobody else.
        NodeKind::Identity => {
            let is_alias = |(_, link): &(NodeIndex, Link)| {
                link.via == Via::Assumes && graph.scope(*link).iter().any(|one| one == ALIAS)
            };
            let roles = graph.links(at, Incoming).filter(is_alias).map(|(role, _)| role);
            let all = std::iter::once(at).chain(roles).flat_map(|one| ways(one, Incoming, Via::LogsIn));
            all.map(|one| (one, true, BTreeSet::new())).collect()
        }
        NodeKind::Agent => {
            let mut all: Vec<_> = ways(at, Outgoing, Via::Holds).map(|one| (one, false, others(one))).collect();
            for run in ways(at, Outgoing, Via::Runs) {
                // Its identity: another agent may work as the same, or another's work lean on one of its values.
                let same: BTreeSet<NodeIndex> = ways(run, Incoming, Via::Runs).filter(stays).collect();
                let alone = |one| users(graph, one).iter().all(leaves);
                let fences = same.is_empty() && ways(run, Incoming, Via::LogsIn).all(alone);
                all.extend(
                    ways(run, Incoming, Via::LogsIn)
                        .map(|one| (one, fences, others(one).into_iter().chain(same.iter().copied()).collect())),
                );
                // Its task: what that holds.
                all.extend(ways(run, Outgoing, Via::Holds).map(|one| (one, false, others(one))));
            }
            all
        }
        _ => Vec::new(),
    }
}

fn is_of_iam(id: &CredentialId) -> bool {
    matches!(id.kind(), Kind::AwsUser | Kind::AwsAccessKey)
}

/// The one credential of a user of IAM by which what is too much is taken from it, the user's own where there is one: all of
/// them have the same grants, and what one case takes two need not.
fn bearer(graph: &Graph, logs_in: &[NodeIndex]) -> Option<CredentialId> {
    let ids = logs_in.iter().filter_map(|at| standing(graph, *at)).filter(is_of_iam);
    ids.min_by(|a, b| {
        let is_key = |id: &CredentialId| id.kind() == Kind::AwsAccessKey;
        is_key(a).cmp(&is_key(b)).then_with(|| a.cmp(b))
    })
}

/// The permissions of an identity that open nothing but what is beyond what was declared for it. One that also opens what is
/// allowed is a person's to mend: taken whole it would cut off the work.
fn excess(graph: &Graph, identity: NodeIndex, credential: &CredentialId) -> Vec<Permission> {
    let Some(may) = graph.about(identity).and_then(|about| about.may.as_deref()) else { return Vec::new() };
    let named = |node: &Node| {
        let own = node.name.strip_prefix(credential.instance())?.strip_prefix('/')?;
        let (sort, own) = match (credential.kind(), node.kind) {
            (Kind::PostgresRole, NodeKind::Identity) => ("member", own),
            (Kind::VaultApprole, NodeKind::Policy) if own != "default" => ("policy", own),
            // A policy of its own is called after the user: `user/<path><name>/inline/<policy>`.
            (Kind::AwsUser | Kind::AwsAccessKey, NodeKind::Policy) => match own.split_once('/')? {
                ("policy", _) => ("managed", own),
                ("group", name) => ("group", name),
                ("user", rest) => ("inline", rest.rsplit_once("/inline/")?.1),
                _ => return None,
            },
            _ => return None,
        };
        Permission::parse(&format!("{sort}:{own}")).ok()
    };
    // Of a PostgreSQL a membership by which it may only become the role is one as well.
    let grants = graph.links(identity, Outgoing).filter(|(_, link)| matches!(link.via, Via::Has | Via::Assumes));
    let is_too_much = |to: NodeIndex| {
        let opened = ask::opened_by(graph, to);
        !opened.is_empty() && opened.iter().all(|one| ask::is_beyond(Some(may), one))
    };
    let mut all: Vec<Permission> =
        grants.filter(|(to, _)| is_too_much(*to)).filter_map(|(to, _)| named(graph.node(to))).collect();
    all.sort_unstable();
    all.dedup();
    all.truncate(scope::MOST);
    all
}

/// AppRoles with policies that granted nothing. What has more of them comes first.
fn silent_grants(graph: &Graph, by: &Silences) -> Vec<Found> {
    let mut identities: BTreeMap<Node, Vec<Node>> = BTreeMap::new();
    for line in unused::granted(graph, &by.uses, &by.unused).into_iter().filter(|line| line.why.is_none()) {
        identities.entry(line.node).or_default().push(line.policy);
    }
    let mut all = Vec::new();
    for (identity, policies) in identities {
        let Some(at) = graph.find(&identity) else { continue };
        for credential in unused::credentials(graph, at) {
            let Some(id) = standing(graph, credential).filter(|id| id.kind() == Kind::VaultApprole) else { continue };
            let own = |node: &Node| Some(node.name.strip_prefix(id.instance())?.strip_prefix('/')?.to_owned());
            let names: Vec<String> = policies.iter().filter_map(own).collect();
            let place = format!("{identity} did not use {}", names.join(", "));
            let permission = |name: &String| Permission::parse(&format!("policy:{name}")).ok();
            let mut excess: Vec<Permission> = names.iter().filter_map(permission).collect();
            excess.truncate(scope::MOST);
            let found = make(graph, credential, Sort::Unused, id, &place);
            all.push((excess.len() as u64, Found { excess, ..found }));
        }
    }
    sorted(all)
}

/// AppRoles whose tokens or secret_ids live longer than their tasks. The longest, measured by these, come first.
fn long_lives(graph: &Graph, by: &Silences) -> Vec<Found> {
    let mut all = Vec::new();
    for line in long_lived::judge(graph, &by.uses, &by.lives).into_iter().filter(|line| line.why.is_none()) {
        for credential in graph.find(&line.node).into_iter().flat_map(|at| unused::credentials(graph, at)) {
            let Some(id) = standing(graph, credential).filter(|id| id.kind() == Kind::VaultApprole) else { continue };
            let found = make(graph, credential, Sort::LongLived, id, &line.place());
            all.push((line.weight(), Found { excess: line.excess.clone(), ..found }));
        }
    }
    sorted(all)
}

fn sorted(mut all: Vec<(u64, Found)>) -> Vec<Found> {
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.credential.cmp(&b.1.credential)));
    all.into_iter().map(|(_, found)| found).collect()
}

/// How what is found still stands to what is being done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// As it was said.
    Same,
    /// A case is open, and would take what is not found any more: it is said again.
    Less,
    /// What was done about it is over, and something else is found since: it is said anew.
    Anew,
}

/// Compares a finding that was said with the newest case that rests on it: what that froze, and whether it is over.
pub fn again(found: &Found, frozen: &[Permission], is_over: bool) -> Again {
    let more = found.excess.iter().any(|one| !frozen.contains(one));
    let less = frozen.iter().any(|one| !found.excess.contains(one));
    match is_over {
        false if less && !found.excess.is_empty() => Again::Less,
        true if more => Again::Anew,
        _ => Again::Same,
    }
}

/// What is left to be said of a finding about what agents share, after the cases that rest on it, each with whether it is over: the
/// agents whom none of them moved. Whether all of them are over, and it is said anew. `None`: nothing, or what was begun comes first.
pub fn unmoved<'a>(found: &Found, cases: impl Iterator<Item = (&'a Case, bool)>) -> Option<(Found, bool)> {
    let (mut named, mut is_over) = (BTreeSet::new(), true);
    for (case, over) in cases.filter(|(case, _)| case.directive.moves().is_some()) {
        named.extend(case.directive.moves().unwrap_or_default().iter().map(|one| one.agent.as_str()));
        is_over &= over;
        if !over && case.state.acted {
            return None;
        }
    }
    let left: Vec<Move> = found.moves.iter().filter(|one| !named.contains(one.agent.as_str())).cloned().collect();
    // Where no case rests on it a person, or the rules, left it as it is.
    (!named.is_empty() && !left.is_empty()).then(|| (Found { moves: left, ..found.clone() }, is_over))
}

/// What is to be said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News<'a> {
    /// It is there, and was not before.
    pub new: Vec<&'a Found>,
    /// It was there, and is not any more.
    pub over: Vec<&'a Finding>,
    /// It is there, and not said, because there is too much of its sort.
    pub left: usize,
}

/// Whether what was to be done about it was taken over by something else, which is over by now: then it is to be done still.
pub fn is_taken_over(finding: &Finding, of_credential: &[CaseLine]) -> bool {
    let last = of_credential.iter().max_by_key(|line| line.case.opened_ms);
    last.is_some_and(|line| {
        let is_its = line.case.directive.finding.as_ref() == Some(&finding.id());
        !is_its && line.closed_ms.is_some_and(|closed_ms| closed_ms > finding.last_ms)
    })
}

/// A log that is behind says nothing: what rests on it is neither found, nor over. All else goes on.
pub fn leave_silences(open: &mut Vec<Finding>) {
    let silences = [Sort::Dormant, Sort::Unused].map(Sort::detector);
    open.retain(|finding| !silences.contains(&finding.detector));
}

/// Compares what is there with what is open. A sort that is not looked for any more is over.
pub fn news<'a>(found: &'a BTreeMap<Sort, Vec<Found>>, open: &'a [Finding]) -> News<'a> {
    let mut news = News::default();
    let there: BTreeSet<String> = found.values().flatten().map(Found::key).collect();
    let known: BTreeSet<&str> = open.iter().map(|finding| finding.key.as_str()).collect();
    news.over.extend(open.iter().filter(|finding| !there.contains(&finding.key)));
    for (all, waits) in found.values().flat_map(|all| [(all, false), (all, true)]) {
        let these = all.iter().filter(|found| found.waits() == waits);
        let (said, new): (Vec<_>, Vec<_>) = these.partition(|found| known.contains(found.key().as_str()));
        let room = MOST.saturating_sub(said.len());
        news.left += new.len().saturating_sub(room);
        news.new.extend(new.into_iter().take(room));
    }
    news
}
