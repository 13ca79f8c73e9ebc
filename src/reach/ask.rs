//! Questions about reach. PURE: from the graph alone.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};

use super::graph::{Graph, Link};
use super::long_lived::{self, LongLiveds};
use super::unused::{self, Asked, Granteds, Silence};
use super::uses::Uses;
use super::{About, Departure, MOST_SCOPE, Node, NodeKind, Via, outside};

/// So many zones are told apart.
pub const MOST_ZONES: usize = 64;
/// Targets of one identity that are told one by one; all are counted.
const MOST_OPENED: usize = 1_000;

/// One step on the way to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// How it is left towards the next one.
    pub via: Via,
    /// Where it leads.
    pub to: Node,
    /// What it allows, in the system's words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
    /// Who says so.
    pub source: String,
    /// Since when it is stated so (UTC milliseconds).
    pub since_ms: i64,
}

/// A target that is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Which: a target, or a place in a store that lies in a zone of its own.
    pub target: Node,
    /// The zones in which it lies.
    pub zones: Vec<Node>,
    /// What all ways to it allow together.
    pub scope: Vec<String>,
    /// The shortest way, from the one that was asked about.
    pub way: Vec<Hop>,
}

/// What one node opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Which.
    pub node: Node,
    /// What is known of itself.
    pub about: About,
    /// Who answers for it.
    pub owners: Vec<Node>,
    /// What it opens, the heaviest zones first; at most a thousand.
    pub opened: Vec<Opened>,
    /// How many targets it opens.
    pub targets: usize,
    /// The zones, and how many of the targets lie in each.
    pub zones: BTreeMap<Node, usize>,
    /// Credentials that it holds, or finds on its way.
    pub credentials: usize,
    /// Places of stores that it reads.
    pub places: usize,
    /// Blast radius: its targets, each counted with the weight of its heaviest zone; 1 outside all zones.
    pub blast: u64,
}

/// How far a walk has come at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is written or listed, and what is behind it stays shut.
    Touched,
    /// It leads on.
    Open,
}

/// A walk forward: each node with the edge over which it was reached first.
pub(super) struct Walk<'a> {
    graph: &'a Graph,
    seen: HashMap<NodeIndex, (State, Option<(NodeIndex, Link)>)>,
}

impl<'a> Walk<'a> {
    fn from(graph: &'a Graph, start: NodeIndex) -> Self {
        Self::around(graph, start, &BTreeSet::new())
    }

    /// The same, never into one of `barred`.
    pub(super) fn around(graph: &'a Graph, start: NodeIndex, barred: &BTreeSet<NodeIndex>) -> Self {
        let mut walk = Self { graph, seen: HashMap::from([(start, (State::Open, None))]) };
        let mut next = VecDeque::from([start]);
        while let Some(at) = next.pop_front() {
            let (state, _) = walk.seen[&at];
            let enters = |to: &NodeIndex, link: Link| Graph::opens(link) && !barred.contains(to);
            for (to, link) in graph.links(at, Outgoing).filter(|(to, link)| enters(to, *link)) {
                if state == State::Touched && link.via != Via::In {
                    continue;
                }
                let new = if link.via == Via::Touches { State::Touched } else { State::Open };
                match walk.seen.entry(to) {
                    Entry::Vacant(free) => {
                        free.insert((new, Some((at, link))));
                        next.push_back(to);
                    }
                    Entry::Occupied(mut there) if there.get().0 == State::Touched && new == State::Open => {
                        there.insert((new, Some((at, link))));
                        next.push_back(to);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        walk
    }

    /// The nodes that lead on.
    pub(super) fn open(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.seen.iter().filter(|(_, (state, _))| *state == State::Open).map(|(at, _)| *at)
    }

    /// The way to a node, from the start.
    fn way(&self, to: NodeIndex) -> Vec<Hop> {
        let (mut way, mut at) = (Vec::new(), to);
        while let Some((_, Some((from, link)))) = self.seen.get(&at) {
            way.push(hop(self.graph, at, *link));
            at = *from;
        }
        way.reverse();
        way
    }

    /// What all edges from reached nodes to this one allow.
    fn scope(&self, to: NodeIndex) -> Vec<String> {
        let open = |from: &NodeIndex| self.seen.get(from).is_some_and(|(state, _)| *state == State::Open);
        let links = self.graph.links(to, Incoming).filter(|(from, link)| open(from) && Graph::opens(*link));
        let all: BTreeSet<&String> = links.flat_map(|(_, link)| self.graph.scope(link)).collect();
        all.into_iter().take(MOST_SCOPE).cloned().collect()
    }
}

fn hop(graph: &Graph, to: NodeIndex, link: Link) -> Hop {
    Hop {
        via: link.via,
        to: graph.node(to).clone(),
        scope: graph.scope(link).to_vec(),
        source: graph.source(link).to_owned(),
        since_ms: graph.since_ms(link),
    }
}

/// Whether it counts as a target: one, or a place that lies in a zone itself.
pub(super) fn is_target(graph: &Graph, at: NodeIndex, zones: &BTreeSet<NodeIndex>) -> bool {
    match graph.node(at).kind {
        NodeKind::Target => true,
        NodeKind::Path => !zones.is_empty(),
        _ => false,
    }
}

/// What `start` opens.
pub fn reach(graph: &Graph, start: NodeIndex) -> Reach {
    told(graph, start, MOST_OPENED)
}

/// The same, with at most so many targets told one by one.
fn told(graph: &Graph, start: NodeIndex, most: usize) -> Reach {
    let walk = Walk::from(graph, start);
    let (mut opened, mut zones, mut blast) = (Vec::new(), BTreeMap::new(), 0);
    for at in walk.seen.keys().filter(|at| **at != start) {
        let of = graph.zones(*at);
        if is_target(graph, *at, &of) {
            let weight = of.iter().map(|zone| graph.weight(*zone)).max().unwrap_or(1);
            blast += weight;
            for zone in &of {
                *zones.entry(graph.node(*zone).clone()).or_insert(0) += 1;
            }
            opened.push((weight, *at, of));
        }
    }
    opened.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| graph.node(a.1).cmp(graph.node(b.1))));
    let targets = opened.len();
    let told = opened.into_iter().take(most).map(|(_, at, of)| Opened {
        target: graph.node(at).clone(),
        zones: of.iter().map(|zone| graph.node(*zone).clone()).collect(),
        scope: walk.scope(at),
        way: walk.way(at),
    });
    let opened = told.collect();
    let count = |kind| {
        let is = |(at, (state, _)): &(&NodeIndex, &(State, _))| {
            **at != start && graph.node(**at).kind == kind && *state == State::Open
        };
        walk.seen.iter().filter(is).count()
    };
    Reach {
        node: graph.node(start).clone(),
        about: graph.about(start).cloned().unwrap_or_default(),
        owners: owners(graph, start),
        opened,
        targets,
        zones,
        credentials: count(NodeKind::Credential),
        places: count(NodeKind::Path),
        blast,
    }
}

fn owners(graph: &Graph, at: NodeIndex) -> Vec<Node> {
    let owned = graph.links(at, Outgoing).filter(|(_, link)| link.via == Via::OwnedBy);
    let all: BTreeSet<&Node> = owned.map(|(owner, _)| graph.node(owner)).collect();
    all.into_iter().cloned().collect()
}

/// Somebody who reaches, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Who.
    pub node: Node,
    /// Who answers for it.
    pub owners: Vec<Node>,
    /// What it is listed for: zones, users, or the way to the target.
    pub why: Vec<Node>,
    /// When it was last used, where that is known.
    pub used_ms: Option<i64>,
}

/// A list, and how long it would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// At most as many as were asked for.
    pub lines: Vec<Line>,
    /// How many there are.
    pub total: usize,
    /// Of how many it cannot be said, because no source tells.
    pub unknown: usize,
}

/// Who is asked about: not policies, places or tasks, which are ways and not somebody.
const SOMEBODY: [NodeKind; 3] = [NodeKind::Identity, NodeKind::Agent, NodeKind::Credential];

fn line(graph: &Graph, at: NodeIndex, why: Vec<Node>) -> Line {
    let used_ms = graph.about(at).and_then(|about| about.used_ms);
    Line { node: graph.node(at).clone(), owners: owners(graph, at), why, used_ms }
}

/// Whether somebody said that it leaves.
pub fn leaves(graph: &Graph, at: NodeIndex) -> bool {
    departures(graph, at).next().is_some()
}

/// The words on that.
pub fn departures(graph: &Graph, at: NodeIndex) -> impl Iterator<Item = &Departure> {
    graph.about(at).and_then(|about| about.offboarded.as_deref()).into_iter().flat_map(|all| &all.words)
}

fn is_off(graph: &Graph, at: NodeIndex) -> bool {
    graph.about(at).is_some_and(|about| about.off)
}

fn somebody(graph: &Graph) -> impl Iterator<Item = NodeIndex> + '_ {
    graph.all.node_indices().filter(|at| SOMEBODY.contains(&graph.node(*at).kind) && !is_off(graph, *at))
}

/// Marks all that lead to `goal`, each with the edge over which it leads there first.
fn backward(graph: &Graph, goal: NodeIndex, mut mark: impl FnMut(NodeIndex, NodeIndex, Link) -> bool) {
    // What lies in a zone is reached by touching it; all else must be opened.
    let mut next = VecDeque::from([(goal, true)]);
    while let Some((at, touching)) = next.pop_front() {
        for (from, link) in graph.links(at, Incoming).filter(|(_, link)| Graph::opens(*link)) {
            if link.via == Via::Touches && !touching {
                continue;
            }
            if mark(from, at, link) {
                next.push_back((from, link.via == Via::In));
            }
        }
    }
}

/// The zones that each node reaches: a bit for each, in the order of their nodes.
pub fn zone_bits(graph: &Graph) -> (Vec<NodeIndex>, Vec<u64>) {
    let mut zones: Vec<NodeIndex> = graph.of_kind(NodeKind::Zone).collect();
    zones.sort_by(|a, b| graph.node(*a).cmp(graph.node(*b)));
    zones.truncate(MOST_ZONES);
    let mut bits = vec![0_u64; graph.all.node_count()];
    for (no, zone) in zones.iter().enumerate() {
        let bit = 1_u64 << no;
        // All that lies in the zone itself is met first, so that who only touches it is not missed.
        backward(graph, *zone, |from, _, _| {
            let slot = &mut bits[from.index()];
            let new = *slot & bit == 0;
            *slot |= bit;
            new
        });
    }
    (zones, bits)
}

/// Who reaches more than one zone, the most zones first.
pub fn crossing(graph: &Graph, max: usize) -> Lines {
    let (zones, bits) = zone_bits(graph);
    let mut found: Vec<(u32, NodeIndex)> =
        somebody(graph).map(|at| (bits[at.index()].count_ones(), at)).filter(|(count, _)| *count > 1).collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| graph.node(a.1).cmp(graph.node(b.1))));
    let of = |at: NodeIndex| {
        let in_it = |(no, _): &(usize, &NodeIndex)| bits[at.index()] & (1 << no) != 0;
        zones.iter().enumerate().filter(in_it).map(|(_, zone)| graph.node(*zone).clone()).collect()
    };
    let total = found.len();
    Lines { lines: found.into_iter().take(max).map(|(_, at)| line(graph, at, of(at))).collect(), total, unknown: 0 }
}

/// Who uses a credential: agents that hold it, or run a task that does, and consumers of the places that store it.
pub fn users(graph: &Graph, credential: NodeIndex) -> BTreeSet<NodeIndex> {
    let mut users = BTreeSet::new();
    for (from, link) in graph.links(credential, Incoming) {
        let (kind, via) = (graph.node(from).kind, link.via);
        let behind = graph.links(from, Incoming);
        match (kind, via) {
            (NodeKind::Agent | NodeKind::Consumer, Via::Holds) => {
                users.insert(from);
            }
            (NodeKind::Task, Via::Holds) => {
                let agents = behind.filter(|(at, _)| graph.node(*at).kind == NodeKind::Agent).map(|(at, _)| at);
                users.extend(agents);
            }
            (NodeKind::Path, Via::Stores) => {
                let reads = |at: &NodeIndex| matches!(graph.node(*at).kind, NodeKind::Agent | NodeKind::Consumer);
                users.extend(behind.map(|(at, _)| at).filter(reads));
            }
            _ => {}
        }
    }
    users
}

/// Credentials with more than one user, the most users first.
pub fn shared(graph: &Graph, max: usize) -> Lines {
    let of = |at: NodeIndex| (users(graph, at), at);
    let mut found: Vec<(BTreeSet<NodeIndex>, NodeIndex)> =
        graph.of_kind(NodeKind::Credential).map(of).filter(|(users, _)| users.len() > 1).collect();
    found.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| graph.node(a.1).cmp(graph.node(b.1))));
    let named = |users: &BTreeSet<NodeIndex>| users.iter().map(|user| graph.node(*user).clone()).collect();
    let total = found.len();
    Lines {
        lines: found.iter().take(max).map(|(users, at)| line(graph, *at, named(users))).collect(),
        total,
        unknown: 0,
    }
}

/// Who was not used since `before_ms`, the longest first. Of whom no source tells nothing is said.
pub fn dormant(graph: &Graph, before_ms: i64, max: usize) -> Lines {
    let asked = Asked { for_ms: 0, youngest_ms: 0, now_ms: before_ms };
    silent(graph, &Uses::default(), &asked, max)
}

/// The same, where logs of use are read as well.
pub fn silent(graph: &Graph, uses: &Uses, asked: &Asked, max: usize) -> Lines {
    let (mut found, mut unknown) = (Vec::new(), 0);
    let before_ms = asked.now_ms.saturating_sub(asked.for_ms);
    for at in somebody(graph).filter(|at| graph.node(*at).kind != NodeKind::Agent) {
        match unused::silence(graph, uses, at, asked) {
            Silence::Elsewhere => {}
            Silence::Unknown => {
                unknown += 1;
                continue;
            }
            Silence::No => continue,
            Silence::Yes(used_ms) => {
                found.push((used_ms.unwrap_or(i64::MIN), at));
                continue;
            }
        }
        let about = graph.about(at);
        match about.map(|about| (about.used_ms, about.never_used, about.issued_ms)) {
            Some((Some(used_ms), ..)) if used_ms < before_ms => found.push((used_ms, at)),
            Some((Some(_), ..)) => {}
            // What was never used counts from when it was made.
            Some((None, true, Some(issued_ms))) if issued_ms < before_ms => found.push((i64::MIN, at)),
            Some((None, true, Some(_))) => {}
            _ => unknown += 1,
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| graph.node(a.1).cmp(graph.node(b.1))));
    let total = found.len();
    let told = |(used_ms, at): (i64, NodeIndex)| Line {
        used_ms: Some(used_ms).filter(|ms| *ms > i64::MIN),
        ..line(graph, at, Vec::new())
    };
    Lines { lines: found.into_iter().take(max).map(told).collect(), total, unknown }
}

/// Identities and credentials for which nobody answers: not themselves, nor who they log in as.
pub fn unowned(graph: &Graph, max: usize) -> Lines {
    // Who leaves answers for nothing.
    let owned = |at: NodeIndex| {
        graph.links(at, Outgoing).any(|(owner, link)| link.via == Via::OwnedBy && !leaves(graph, owner))
    };
    let is = |at: &NodeIndex| match graph.node(*at).kind {
        NodeKind::Identity => !owned(*at),
        NodeKind::Credential => {
            let mut as_whom = graph.links(*at, Outgoing).filter(|(_, link)| link.via == Via::LogsIn);
            // What a task holds is its agent's, and ends with it.
            let of_task = graph.links(*at, Incoming).any(|(from, _)| graph.node(from).kind == NodeKind::Task);
            !of_task && !owned(*at) && !as_whom.any(|(identity, _)| owned(identity))
        }
        _ => false,
    };
    let mut found: Vec<NodeIndex> = somebody(graph).filter(is).collect();
    found.sort_by(|a, b| graph.node(*a).cmp(graph.node(*b)));
    let total = found.len();
    Lines { lines: found.into_iter().take(max).map(|at| line(graph, at, Vec::new())).collect(), total, unknown: 0 }
}

/// Who opens a target, zone or place, the shortest way first.
pub fn who(graph: &Graph, goal: NodeIndex, max: usize) -> Lines {
    let mut towards: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut order = Vec::new();
    backward(graph, goal, |from, at, _| match towards.entry(from) {
        Entry::Vacant(free) if from != goal => {
            free.insert(at);
            order.push(from);
            true
        }
        _ => false,
    });
    let way = |from: NodeIndex| {
        let (mut way, mut at) = (Vec::new(), from);
        while let Some(next) = towards.get(&at) {
            way.push(graph.node(*next).clone());
            at = *next;
        }
        way
    };
    let is = |at: &NodeIndex| {
        let kind = graph.node(*at).kind;
        (SOMEBODY.contains(&kind) || kind == NodeKind::Consumer) && !is_off(graph, *at)
    };
    let found: Vec<NodeIndex> = order.into_iter().filter(is).collect();
    let total = found.len();
    Lines { lines: found.into_iter().take(max).map(|at| line(graph, at, way(at))).collect(), total, unknown: 0 }
}

/// Whether something may go to production as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Which.
    pub node: Node,
    /// What was declared for it. `None`: nothing.
    pub may: Option<Vec<Node>>,
    /// What it opens beyond that, each with its way.
    pub beyond: Vec<Opened>,
    /// The zones of that.
    pub zones: BTreeSet<Node>,
    /// Of a task that said what it does at targets: what more it may there by what it holds, target by target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub excess: BTreeMap<String, BTreeSet<String>>,
}

/// Whether `may` names neither the target nor all zones in which it lies.
pub fn is_beyond(may: Option<&[Node]>, one: &Opened) -> bool {
    let named = |node: &Node| may.is_some_and(|may| may.contains(node));
    !(named(&one.target) || (!one.zones.is_empty() && one.zones.iter().all(named)))
}

/// What is opened by a grant alone: all that `start` leads to.
pub fn opened_by(graph: &Graph, start: NodeIndex) -> Vec<Opened> {
    told(graph, start, usize::MAX).opened
}

/// Holds what `start` opens against what was declared. A target may be opened where it is named, or where each zone in which it
/// lies is.
pub fn gate(graph: &Graph, start: NodeIndex) -> Gate {
    let reach = told(graph, start, usize::MAX);
    let may = reach.about.may;
    let named = |node: &Node| may.as_ref().is_some_and(|may| may.contains(node));
    let beyond: Vec<Opened> = reach.opened.into_iter().filter(|one| is_beyond(may.as_deref(), one)).collect();
    let zones = beyond.iter().flat_map(|one| one.zones.iter().cloned()).filter(|zone| !named(zone)).collect();
    Gate { node: reach.node, may, beyond, zones, excess: BTreeMap::new() }
}

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// What somebody opens.
    Of {
        /// A node, or the end of its name where no other ends so.
        id: String,
    },
    /// Who reaches more than one zone.
    Crossing {
        /// At most so many.
        max: usize,
    },
    /// Credentials with more than one user.
    Shared {
        /// At most so many.
        max: usize,
    },
    /// Who was not used for a time.
    Dormant {
        /// How long, in milliseconds.
        for_ms: i64,
        /// At most so many.
        max: usize,
    },
    /// Which policies granted nothing over a time, and why others are not called so.
    Unused {
        /// How long, in milliseconds.
        for_ms: i64,
        /// At most so many.
        max: usize,
    },
    /// Whose tokens and secret_ids live longer than the tasks that work by them, and why others' are not called so.
    LongLived {
        /// At most so many.
        max: usize,
    },
    /// For whom nobody answers.
    Unowned {
        /// At most so many.
        max: usize,
    },
    /// Who opens this.
    Who {
        /// As in [`Self::Of`].
        id: String,
        /// At most so many.
        max: usize,
    },
    /// Whether somebody opens more than was declared.
    Gate {
        /// As in [`Self::Of`].
        id: String,
    },
    /// Only where the sources stand.
    Sources {},
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Of one.
    Reach(Box<Reach>),
    /// A list.
    Lines(Lines),
    /// Policies.
    Unused(Granteds),
    /// AppRoles.
    LongLived(LongLiveds),
    /// Of a gate.
    Gate(Box<Gate>),
    /// Only the sources.
    Sources {},
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No source names it.
    #[error("no source names {0}: `curfew reach --sources` says which were read; a node is <kind>:<name>")]
    Nobody(String),
    /// It could be several.
    #[error("{0} could be {1}: name one of them")]
    Several(String, String),
}

fn find(graph: &Graph, id: &str) -> Result<NodeIndex, Unknown> {
    graph.named(id).map_err(|meant| {
        let asked: String = id.chars().filter(|c| !c.is_control()).take(200).collect();
        match meant.as_slice() {
            [] => Unknown::Nobody(asked),
            several => Unknown::Several(asked, several.iter().map(Node::to_string).collect::<Vec<_>>().join(", ")),
        }
    })
}

/// Answers.
///
/// # Errors
/// [`Unknown`]: whom it asks about.
pub fn answer(graph: &Graph, question: &Question, now_ms: i64) -> Result<Told, Unknown> {
    answer_by(graph, &Uses::default(), &long_lived::Asked { now_ms, ..Default::default() }, question)
}

/// The same, with what logs say of use, and how long tasks live. Who is known for less than its `youngest_ms` is not called
/// unused either.
///
/// # Errors
/// [`Unknown`]: whom it asks about.
pub fn answer_by(graph: &Graph, uses: &Uses, lives: &long_lived::Asked, question: &Question) -> Result<Told, Unknown> {
    let asked = |for_ms| Asked { for_ms, youngest_ms: lives.youngest_ms, now_ms: lives.now_ms };
    Ok(match question {
        Question::Of { id } => Told::Reach(Box::new(reach(graph, find(graph, id)?))),
        Question::Crossing { max } => Told::Lines(crossing(graph, *max)),
        Question::Shared { max } => Told::Lines(shared(graph, *max)),
        Question::Dormant { for_ms, max } => Told::Lines(silent(graph, uses, &asked(*for_ms), *max)),
        Question::Unused { for_ms, max } => Told::Unused(unused::told(graph, uses, &asked(*for_ms), *max)),
        Question::LongLived { max } => Told::LongLived(long_lived::told(graph, uses, lives, *max)),
        Question::Unowned { max } => Told::Lines(unowned(graph, *max)),
        Question::Who { id, max } => Told::Lines(who(graph, find(graph, id)?, *max)),
        Question::Gate { id } => {
            let at = find(graph, id)?;
            Told::Gate(Box::new(Gate { excess: outside::of_task(graph, at), ..gate(graph, at) }))
        }
        Question::Sources {} => Told::Sources {},
    })
}
