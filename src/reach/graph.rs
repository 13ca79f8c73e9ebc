//! What all sources say, as one graph. PURE: built anew where facts have changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;

use super::{About, Fact, Node, NodeKind, Via};

/// A node, and what is known of it.
#[derive(Debug)]
pub struct Vertex {
    /// Which.
    pub node: Node,
    /// Of itself, where anything is.
    pub about: Option<Box<About>>,
}

/// An edge: small, since there are millions.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// How.
    pub via: Via,
    /// Who says so: in [`Graph::source`].
    source: u16,
    /// What it allows: in [`Graph::scope`].
    scope: u32,
    /// Since when it is stated in this form; seconds since 1970.
    since_s: u32,
}

/// What is reached from where, as far as the sources know.
#[derive(Debug, Default)]
pub struct Graph {
    pub(super) all: DiGraph<Vertex, Link>,
    index: HashMap<Node, NodeIndex>,
    sources: Vec<Arc<str>>,
    scopes: Vec<Vec<String>>,
    scope_index: HashMap<Vec<String>, u32>,
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.zip(b).map(|(a, b)| a.min(b)).or(a).or(b)
}

/// What two sources say of one node: the later use, the earlier issue, and the stricter bound.
pub fn both(a: About, b: About) -> About {
    let may = match (a.may, b.may) {
        (Some(a), Some(b)) => Some(a.into_iter().filter(|node| b.contains(node)).collect()),
        (a, b) => a.or(b),
    };
    let used_ms = a.used_ms.max(b.used_ms);
    About {
        label: a.label.or(b.label),
        issued_ms: earlier(a.issued_ms, b.issued_ms),
        first_ms: earlier(a.first_ms, b.first_ms),
        never_used: used_ms.is_none() && (a.never_used || b.never_used),
        used_ms,
        off: a.off || b.off,
        weight: a.weight.max(b.weight),
        may,
        // Only the journal says so.
        actions: a.actions.or(b.actions),
        offboarded: match (a.offboarded, b.offboarded) {
            (Some(a), Some(b)) => Some(Box::new(a.and(&b))),
            (a, b) => a.or(b),
        },
        lifetimes: a.lifetimes.or(b.lifetimes),
    }
}

impl Graph {
    /// Adds what a source said.
    pub fn add(&mut self, source: &Arc<str>, fact: Fact, since_ms: i64) {
        let source = self.source_no(source);
        let since_s = u32::try_from(since_ms / 1_000).unwrap_or(0);
        let from = self.vertex(fact.node);
        if fact.about != About::default() {
            let slot = &mut self.all[from].about;
            let known = slot.take().map(|about| *about).unwrap_or_default();
            *slot = Some(Box::new(both(known, fact.about)));
        }
        for edge in fact.edges {
            let to = self.vertex(edge.to);
            let scope = self.scope_no(edge.scope);
            self.all.add_edge(from, to, Link { via: edge.via, source, scope, since_s });
        }
    }

    /// What was said of all below a place (`…*`) is true of each place that is known there. To be called once, when all is added.
    pub fn settle(&mut self) {
        let name = |at: &NodeIndex| self.all[*at].node.name.clone();
        let mut places: Vec<(Arc<str>, NodeIndex)> = self.of_kind(NodeKind::Path).map(|at| (name(&at), at)).collect();
        places.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut new = Vec::new();
        for (pattern, from) in places.iter().filter(|(name, _)| name.ends_with('*')) {
            let before = pattern.trim_end_matches('*');
            let inherited = |link: &Link| matches!(link.via, Via::In | Via::OwnedBy | Via::Opens);
            let links: Vec<_> = self.links(*from, Direction::Outgoing).filter(|(_, link)| inherited(link)).collect();
            // Whoever was said to read all of it. What a policy lets read there is told place by place.
            let reads = |(at, _): &(NodeIndex, Link)| self.all[*at].node.kind != NodeKind::Policy;
            let readers: Vec<_> = self.links(*from, Direction::Incoming).filter(reads).collect();
            let first = places.partition_point(|(name, _)| &**name < before);
            let below = places[first..].iter().take_while(|(name, _)| name.starts_with(before));
            for (_, at) in below.filter(|(_, at)| at != from) {
                new.extend(links.iter().map(|(to, link)| (*at, *to, *link)));
                new.extend(readers.iter().map(|(reader, link)| (*reader, *at, *link)));
            }
        }
        for (from, to, link) in new {
            self.all.add_edge(from, to, link);
        }
    }

    fn vertex(&mut self, node: Node) -> NodeIndex {
        if let Some(at) = self.index.get(&node) {
            return *at;
        }
        let at = self.all.add_node(Vertex { node: node.clone(), about: None });
        self.index.insert(node, at);
        at
    }

    fn source_no(&mut self, name: &Arc<str>) -> u16 {
        let at = self.sources.iter().position(|known| known == name).unwrap_or_else(|| {
            self.sources.push(name.clone());
            self.sources.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn scope_no(&mut self, scope: Vec<String>) -> u32 {
        if let Some(no) = self.scope_index.get(&scope) {
            return *no;
        }
        let no = u32::try_from(self.scopes.len()).unwrap_or(u32::MAX);
        self.scopes.push(scope.clone());
        self.scope_index.insert(scope, no);
        no
    }

    /// How many nodes and edges it has.
    pub fn size(&self) -> (usize, usize) {
        (self.all.node_count(), self.all.edge_count())
    }

    /// Where a node is.
    pub fn find(&self, node: &Node) -> Option<NodeIndex> {
        self.index.get(node).copied()
    }

    /// The node whose name is `text`, or ends in `/text`; those that could be meant, where it is not one.
    ///
    /// # Errors
    /// None, or several: at most a few of them.
    pub fn named(&self, text: &str) -> Result<NodeIndex, Vec<Node>> {
        if let Some(at) = Node::parse(text).ok().and_then(|node| self.find(&node)) {
            return Ok(at);
        }
        let tail = format!("/{text}");
        let fits = |node: &Node| *node.name == *text || node.name.ends_with(&tail);
        let mut found: Vec<NodeIndex> =
            self.all.node_indices().filter(|at| fits(&self.all[*at].node)).take(9).collect();
        match found.as_slice() {
            [one] => Ok(*one),
            _ => {
                found.truncate(8);
                Err(found.into_iter().map(|at| self.all[at].node.clone()).collect())
            }
        }
    }

    /// A node.
    pub fn node(&self, at: NodeIndex) -> &Node {
        &self.all[at].node
    }

    /// What is known of it.
    pub fn about(&self, at: NodeIndex) -> Option<&About> {
        self.all[at].about.as_deref()
    }

    /// Who says that an edge is there.
    pub fn source(&self, link: Link) -> &str {
        self.sources.get(usize::from(link.source)).map_or("?", |name| name)
    }

    /// What an edge allows.
    pub fn scope(&self, link: Link) -> &[String] {
        self.scopes.get(link.scope as usize).map_or(&[], Vec::as_slice)
    }

    /// Since when an edge is stated in this form.
    pub fn since_ms(&self, link: Link) -> i64 {
        i64::from(link.since_s) * 1_000
    }

    /// All nodes of a kind.
    pub fn of_kind(&self, kind: NodeKind) -> impl Iterator<Item = NodeIndex> + '_ {
        self.all.node_indices().filter(move |at| self.all[*at].node.kind == kind)
    }

    /// Where the edges of `at` lead, or come from.
    pub fn links(&self, at: NodeIndex, way: Direction) -> impl Iterator<Item = (NodeIndex, Link)> + '_ {
        self.all.edges_directed(at, way).map(move |edge| {
            let other = if way == Direction::Outgoing { edge.target() } else { edge.source() };
            (other, *edge.weight())
        })
    }

    /// Whether an edge opens anything.
    pub fn opens(link: Link) -> bool {
        link.via != Via::OwnedBy
    }

    /// The zones in which a node lies.
    pub fn zones(&self, at: NodeIndex) -> BTreeSet<NodeIndex> {
        self.links(at, Direction::Outgoing).filter(|(_, link)| link.via == Via::In).map(|(zone, _)| zone).collect()
    }

    /// What one target of a zone counts.
    pub fn weight(&self, zone: NodeIndex) -> u64 {
        u64::from(self.about(zone).and_then(|about| about.weight).unwrap_or(1))
    }
}
