//! What a task holds may do more at a target than the task said that it is for; and who is to get what is narrower. PURE.
//!
//! Compared is what sources tell: what roles of a PostgreSQL were granted, in whatever way, and which policies of a Vault somebody has.
//! What PostgreSQL lets everybody do, and the policy that each token of a Vault has, are in no credential: no other one would have
//! less.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::graph::NodeIndex;

use super::ask::Walk;
use super::graph::Graph;
use super::{Node, NodeKind, Via, postgres};
use crate::credential::{CredentialId, Kind};
use crate::scope::{self, MOVES, Move, Permission};

/// What everybody has who logs in at a Vault.
const DEFAULT: &str = "default";

/// Target by target, what is too much.
pub type Excess = BTreeMap<String, BTreeSet<String>>;

/// What `credential` may beyond what `task` said that it is for, at the targets of which it said anything.
pub(super) fn excess(graph: &Graph, task: NodeIndex, credential: NodeIndex) -> Excess {
    let said = graph.about(task).and_then(|about| about.actions.as_deref()).into_iter().flatten();
    let of = said.map(|(target, said)| (target.clone(), beyond(graph, credential, target, said)));
    of.filter(|(_, beyond)| !beyond.is_empty()).collect()
}

/// The same of all that the task holds.
pub(super) fn of_task(graph: &Graph, task: NodeIndex) -> Excess {
    let mut all = Excess::new();
    let held = graph.links(task, Outgoing).filter(|(_, link)| link.via == Via::Holds);
    for (target, beyond) in held.flat_map(|(credential, _)| excess(graph, task, credential)) {
        all.entry(target).or_default().extend(beyond);
    }
    all
}

/// In words, the first target first.
pub fn told(excess: &Excess) -> String {
    let at = |(target, all): (&String, &BTreeSet<String>)| {
        format!("at {target} {}", all.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    excess.iter().map(at).collect::<Vec<_>>().join("; ")
}

/// What `start` may do at `target` in any way that `said` does not name.
fn beyond(graph: &Graph, start: NodeIndex, target: &str, said: &BTreeSet<Permission>) -> BTreeSet<String> {
    // Whoever may be a member of a group may do what the group may.
    let group = |one: &Permission| match one.parts() {
        ("member", group) => graph.find(&Node::new(NodeKind::Identity, &format!("{target}/{group}")).ok()?),
        _ => None,
    };
    let barred: BTreeSet<NodeIndex> = said.iter().filter_map(group).filter(|at| *at != start).collect();
    let (database, vault) = (format!("postgres:{target}"), format!("vault:{target}"));
    let mut all = BTreeSet::new();
    for at in Walk::around(graph, start, &barred).open() {
        for (to, link) in graph.links(at, Outgoing) {
            let (by, node) = (graph.source(link), graph.node(to));
            let opens = link.via == Via::Opens && node.kind == NodeKind::Target && *node.name == *target;
            if opens && by == database && !postgres::is_public(target, graph.node(at)) {
                all.extend(graph.scope(link).iter().flat_map(|word| postgres::beyond(word, said)));
            }
            if link.via == Via::Has && by == vault {
                all.extend(policy(graph, to, target).filter(|name| !said.iter().any(|one| one.as_str() == name)));
            }
        }
    }
    all
}

/// A policy of a Vault, as it is taken; a group has policies, and is none.
fn policy(graph: &Graph, at: NodeIndex, vault: &str) -> Option<String> {
    let node = graph.node(at);
    let name = node.name.strip_prefix(vault)?.strip_prefix('/')?;
    let is_group = name.starts_with("group/") && graph.links(at, Outgoing).all(|(_, link)| link.via == Via::Has);
    (node.kind == NodeKind::Policy && name != DEFAULT && !is_group).then(|| format!("policy:{name}"))
}

/// The agents whose tasks hold the shared user of a PostgreSQL for less than it may, each with all that its tasks are for: at most
/// [`MOVES`]. One of whose tasks nobody said what it does there is left to a person: it would be cut off.
pub(super) fn moves(graph: &Graph, credential: NodeIndex, id: &CredentialId) -> Vec<Move> {
    if id.kind() != Kind::PostgresRole {
        return Vec::new();
    }
    let target = id.instance();
    let (mut needs, mut over) = (BTreeMap::<&str, Option<BTreeSet<Permission>>>::new(), BTreeSet::new());
    let holds = graph.links(credential, Incoming).filter(|(_, link)| link.via == Via::Holds).map(|(from, _)| from);
    for task in holds.filter(|at| graph.node(*at).kind == NodeKind::Task) {
        let said = graph.about(task).and_then(|about| about.actions.as_ref()?.get(target));
        let exceeds = said.is_some_and(|said| !beyond(graph, credential, target, said).is_empty());
        let runs = graph.links(task, Incoming).filter(|(_, link)| link.via == Via::Runs).map(|(from, _)| from);
        for agent in runs.filter(|at| graph.node(*at).kind == NodeKind::Agent) {
            let name: &str = &graph.node(agent).name;
            let all = needs.entry(name).or_insert_with(|| Some(BTreeSet::new()));
            match said {
                Some(said) => all.iter_mut().for_each(|all| all.extend(said.iter().cloned())),
                None => *all = None,
            }
            over.extend(exceeds.then_some(name));
        }
    }
    let meant = needs.into_iter().filter(|(name, _)| over.contains(name));
    let meant = meant.filter_map(|(name, all)| Some((name, all.filter(|all| all.len() <= scope::MOST)?)));
    let moved = meant.map(|(name, all)| Move { agent: name.to_owned(), at_most: Some(all.into_iter().collect()) });
    moved.take(MOVES).collect()
}

#[cfg(test)]
mod tests;
