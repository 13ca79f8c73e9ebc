//! Which policies of an AppRole granted nothing over a time, and why others are not called so; who was silent altogether. PURE:
//! from the graph and what the logs say.

use std::collections::BTreeSet;

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::uses::{Told, Uses};
use super::{Node, NodeKind, Via};

/// The word at a policy of an identity that holds others back: without it the identity could do more.
pub const NARROWS: &str = "narrows";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Over which time, up to now, in milliseconds.
    pub for_ms: i64,
    /// Identities that have been known for less are left alone, in milliseconds.
    pub youngest_ms: i64,
    /// Ours.
    pub now_ms: i64,
}

impl Asked {
    fn begins_ms(&self) -> i64 {
        self.now_ms.saturating_sub(self.for_ms)
    }
}

/// Why a policy is not called unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It granted something.
    Used,
    /// `default`: every token has it.
    Default,
    /// No log of use is read of this system.
    Untracked,
    /// The log says nothing new.
    Stale,
    /// The log is not watched for long enough without a gap.
    Unwatched,
    /// The identity is too young.
    Young,
    /// It was granted too short a time ago, or the identity's grants have changed since.
    Fresh,
    /// The identity did nothing at all: that is `dormant`.
    Silent,
    /// The identity has it in another way as well: by its entity, or a group of that one.
    Otherwise,
    /// It holds another policy back: without it the identity could do more.
    Narrows,
}

impl Why {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Used => "it was used",
            Self::Default => "every token has it",
            Self::Untracked => "no log of use is read",
            Self::Stale => "the log says nothing new",
            Self::Unwatched => "not watched for long enough",
            Self::Young => "the identity is too young",
            Self::Fresh => "granted too short a time ago",
            Self::Silent => "the identity is silent altogether",
            Self::Otherwise => "it has it in another way as well",
            Self::Narrows => "it holds another policy back",
        }
    }
}

/// A policy of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Who has it.
    pub node: Node,
    /// The policy.
    pub policy: Node,
    /// When it last granted something, as far as is watched.
    pub used_ms: Option<i64>,
    /// Since when it is stated so (UTC milliseconds).
    pub since_ms: i64,
    /// Why it is not called unused. `None`: it is.
    pub why: Option<Why>,
}

/// Policies, and what is not called unused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granteds {
    /// What is unused first; at most as many as were asked for.
    pub lines: Vec<Granted>,
    /// How many are unused.
    pub unused: usize,
    /// How many there are.
    pub total: usize,
    /// The logs: realm, since when each is watched without a gap, its newest line, and lines that could not be read.
    pub logs: Vec<Log>,
}

/// A log of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Of which realm.
    pub realm: String,
    /// Since when without a gap.
    pub since_ms: Option<i64>,
    /// Up to when.
    pub until_ms: i64,
    /// Lines that were passed over.
    pub unread: u64,
}

/// `<realm>`, `<mount>/<role>` of an AppRole: of nobody else's role a secret_id is made.
pub(super) fn approle(graph: &Graph, at: NodeIndex) -> Option<(&str, &str)> {
    let node = graph.node(at);
    let (realm, role) = node.name.split_once('/').filter(|_| node.kind == NodeKind::Identity)?;
    let (mount, name) = role.rsplit_once('/')?;
    let made_at = Node::new(NodeKind::Path, &format!("{realm}/auth/{mount}/role/{name}/secret-id")).ok()?;
    let made_at = graph.find(&made_at)?;
    let is_its = graph.links(made_at, Outgoing).any(|(to, link)| to == at && link.via == Via::Assumes);
    is_its.then_some((realm, role))
}

/// The policies of its own list.
fn own(graph: &Graph, at: NodeIndex) -> impl Iterator<Item = (NodeIndex, super::graph::Link)> + '_ {
    let has = graph.links(at, Outgoing).filter(|(_, link)| link.via == Via::Has);
    has.filter(|(to, _)| graph.node(*to).kind == NodeKind::Policy)
}

/// A policy's name without its realm's.
fn named<'a>(graph: &'a Graph, realm: &str, policy: NodeIndex) -> Option<&'a str> {
    graph.node(policy).name.strip_prefix(realm)?.strip_prefix('/')
}

/// What it has by the entities that it may become, and by their groups.
fn otherwise(graph: &Graph, at: NodeIndex) -> BTreeSet<NodeIndex> {
    let entities = graph.links(at, Outgoing).filter(|(_, link)| link.via == Via::Assumes);
    let mut next: Vec<NodeIndex> = entities.flat_map(|(entity, _)| own(graph, entity)).map(|(to, _)| to).collect();
    // Groups of a directory stand at the identity itself.
    let groups = own(graph, at).filter(|(to, _)| own(graph, *to).next().is_some());
    next.extend(groups.flat_map(|(group, _)| own(graph, group)).map(|(to, _)| to));
    let mut all = BTreeSet::new();
    while let Some(policy) = next.pop() {
        if all.insert(policy) {
            next.extend(own(graph, policy).map(|(to, _)| to));
        }
    }
    all
}

/// Since when any source states anything of it.
pub(super) fn first_ms(graph: &Graph, at: NodeIndex) -> i64 {
    graph.about(at).and_then(|about| about.first_ms).unwrap_or(i64::MAX)
}

/// All policies of all AppRoles, what is unused first.
pub fn granted(graph: &Graph, uses: &Uses, asked: &Asked) -> Vec<Granted> {
    let mut all = Vec::new();
    for at in graph.of_kind(NodeKind::Identity) {
        let Some((realm, role)) = approle(graph, at) else { continue };
        let whole = role_told(graph, uses, (at, realm, role), asked);
        let elsewhere = otherwise(graph, at);
        for (policy, link) in own(graph, at) {
            let Some(name) = named(graph, realm, policy) else { continue };
            let told = uses.policy(realm, role, name, asked.begins_ms(), asked.now_ms);
            let since_ms = graph.since_ms(link);
            let used_ms = if let Told::Last(last_ms) = told { last_ms } else { None };
            let is_narrowing = graph.scope(link).iter().any(|word| word == NARROWS);
            let why = match told {
                _ if name == "default" => Some(Why::Default),
                Told::Untracked => Some(Why::Untracked),
                Told::Stale => Some(Why::Stale),
                Told::TooShort => Some(Why::Unwatched),
                Told::Last(Some(last_ms)) if last_ms >= asked.begins_ms() => Some(Why::Used),
                _ if first_ms(graph, at) > asked.now_ms.saturating_sub(asked.youngest_ms.max(asked.for_ms)) => {
                    Some(Why::Young)
                }
                _ if since_ms > asked.begins_ms() => Some(Why::Fresh),
                _ if elsewhere.contains(&policy) => Some(Why::Otherwise),
                _ if is_narrowing => Some(Why::Narrows),
                _ if !matches!(whole, Told::Last(Some(last_ms)) if last_ms >= asked.begins_ms()) => Some(Why::Silent),
                _ => None,
            };
            let (node, policy) = (graph.node(at).clone(), graph.node(policy).clone());
            all.push(Granted { node, policy, used_ms, since_ms, why });
        }
    }
    all.sort_by(|a, b| (a.why, &a.node, &a.policy).cmp(&(b.why, &b.node, &b.policy)));
    all
}

/// The same, as it is told.
pub fn told(graph: &Graph, uses: &Uses, asked: &Asked, max: usize) -> Granteds {
    let mut lines = granted(graph, uses, asked);
    let (total, unused) = (lines.len(), lines.iter().filter(|line| line.why.is_none()).count());
    lines.truncate(max);
    let log = |log: &super::uses::Watched| Log {
        realm: log.realm.clone(),
        since_ms: log.since_ms,
        until_ms: log.until_ms,
        unread: log.unread,
    };
    Granteds { lines, unused, total, logs: uses.watched().map(log).collect() }
}

fn role_told(graph: &Graph, uses: &Uses, (at, realm, role): (NodeIndex, &str, &str), asked: &Asked) -> Told {
    let names: Vec<&str> = own(graph, at).filter_map(|(policy, _)| named(graph, realm, policy)).collect();
    uses.role(realm, role, names.iter().copied(), asked.begins_ms(), asked.now_ms)
}

/// How long an identity, or who logs in as it, is silent, where a log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It is no AppRole of a system with a log.
    Elsewhere,
    /// The log cannot say.
    Unknown,
    /// It did something.
    No,
    /// It did nothing, since then where that is known.
    Yes(Option<i64>),
}

/// Whether somebody was silent over the whole time.
pub fn silence(graph: &Graph, uses: &Uses, at: NodeIndex, asked: &Asked) -> Silence {
    let is_credential = graph.node(at).kind == NodeKind::Credential;
    let behind = graph.links(at, Outgoing).filter(|(_, link)| link.via == Via::LogsIn).map(|(to, _)| to);
    let identity = if is_credential { behind.into_iter().next() } else { Some(at) };
    let Some((identity, (realm, role))) = identity.and_then(|at| Some((at, approle(graph, at)?))) else {
        return Silence::Elsewhere;
    };
    match role_told(graph, uses, (identity, realm, role), asked) {
        Told::Untracked => Silence::Elsewhere,
        Told::Stale | Told::TooShort => Silence::Unknown,
        Told::Last(Some(last_ms)) if last_ms >= asked.begins_ms() => Silence::No,
        Told::Last(_) if first_ms(graph, identity) > asked.begins_ms() => Silence::Unknown,
        Told::Last(last_ms) => Silence::Yes(last_ms),
    }
}

/// Credentials that log in as an identity.
pub fn credentials(graph: &Graph, identity: NodeIndex) -> impl Iterator<Item = NodeIndex> + '_ {
    graph.links(identity, Incoming).filter(|(_, link)| link.via == Via::LogsIn).map(|(from, _)| from)
}
