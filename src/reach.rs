//! Reach: what each identity can open, through which grants, and who says so.
//!
//! A **source** (a Vault, a PostgreSQL, an account of AWS, the journal, a file that people wrote) states [`Fact`]s: one node,
//! and the edges that leave it. A [`Reading`] is all that it stated at one time; what differs from the one before becomes
//! durable ([`changes`]), and [`graph::Graph`] joins what all sources say. [`ask`] answers questions about it.
//!
//! Reach is told from above: where a source was read in part, or too long ago, what it does not show may still be there. So each
//! answer names the sources that are not whole, and nobody takes them for "no access". What other rules might deny (Vault's more
//! specific paths in another policy, AWS's conditions and boundaries) is not subtracted.

pub mod ask;
#[cfg(feature = "aws")]
pub mod aws;
pub mod blast;
pub mod changes;
pub mod declared;
pub mod draw;
pub mod graph;
pub mod kept;
pub mod known;
pub mod lives;
pub mod long_lived;
pub mod notice;
pub mod outside;
pub mod postgres;
pub mod unused;
pub mod uses;
pub mod vault;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::journal::Error;
use crate::scope::Permission;

/// The longest name of a node, in bytes. What is longer is left out, and its source is read in part.
pub const MAX_NAME_BYTES: usize = 1024;
/// Words of one edge's scope that are kept.
pub const MOST_SCOPE: usize = 64;
/// Facts that are written, or read, together.
pub const CHUNK: usize = 2_000;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Who is let in: an entity or a role of an auth method of Vault, a role of PostgreSQL, a user or role of IAM.
    /// `<system>/<its name there>`.
    Identity,
    /// Who answers for an identity or a credential.
    Owner,
    /// An agent or workload that runs tasks.
    Agent,
    /// A task: its run.
    Task,
    /// A credential, by its URN.
    Credential,
    /// Where a store keeps or hands out something: `<realm>/<mount>/<path>`; one that ends in `*` stands for all below it.
    Path,
    /// Who reads a value from a store.
    Consumer,
    /// What grants: a policy of Vault or of IAM, a group. `<system>/<name>`.
    Policy,
    /// What is opened: a system of the configuration, or one that was declared.
    Target,
    /// Targets of one trust.
    Zone,
}

impl NodeKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Identity,
        Self::Owner,
        Self::Agent,
        Self::Task,
        Self::Credential,
        Self::Path,
        Self::Consumer,
        Self::Policy,
        Self::Target,
        Self::Zone,
    ];

    /// What its nodes' names begin with, before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Owner => "owner",
            Self::Agent => "agent",
            Self::Task => "task",
            Self::Credential => "credential",
            Self::Path => "path",
            Self::Consumer => "consumer",
            Self::Policy => "policy",
            Self::Target => "target",
            Self::Zone => "zone",
        }
    }
}

/// Why a text names no node. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNode {
    /// Not one of the kinds, or nothing behind the colon.
    #[error("a node is <kind>:<name>, such as identity:prod/approle/etl, target:appdb, or the urn of a credential")]
    Shape,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a node's name has at most {MAX_NAME_BYTES} bytes")]
    TooLong,
}

/// A node: `<kind>:<name>`. A credential may also be written as its URN alone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// What it is called.
    pub name: Arc<str>,
}

impl Node {
    /// The node, if its name may be one.
    ///
    /// # Errors
    /// [`BadNode`].
    pub fn new(kind: NodeKind, name: &str) -> Result<Self, BadNode> {
        if name.is_empty() || name.chars().any(char::is_control) {
            Err(BadNode::Shape)
        } else if name.len() > MAX_NAME_BYTES {
            Err(BadNode::TooLong)
        } else {
            Ok(Self { kind, name: name.into() })
        }
    }

    /// Reads `<kind>:<name>`, or the URN of a credential.
    ///
    /// # Errors
    /// [`BadNode`].
    pub fn parse(text: &str) -> Result<Self, BadNode> {
        if text.starts_with("urn:") {
            return Self::new(NodeKind::Credential, text);
        }
        let (kind, name) = text.split_once(':').ok_or(BadNode::Shape)?;
        let kind = NodeKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(BadNode::Shape)?;
        Self::new(kind, name)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Node {
    type Error = BadNode;
    fn try_from(text: String) -> Result<Self, BadNode> {
        Self::parse(&text)
    }
}

impl From<Node> for String {
    fn from(node: Node) -> Self {
        node.to_string()
    }
}

/// How one node leads to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// An agent runs a task, or works as an identity.
    Runs,
    /// A task or agent holds a credential.
    Holds,
    /// A consumer reads a place, or a policy lets read it, or make something there.
    Reads,
    /// A policy lets write or list a place, and not read it: what is stored there is not opened.
    Touches,
    /// A place stores a credential.
    Stores,
    /// A credential lets in as an identity.
    LogsIn,
    /// An identity has a policy, or is a member of a group or of another identity.
    Has,
    /// An identity may become another one.
    Assumes,
    /// It opens a target.
    Opens,
    /// A target or a place lies in a zone.
    In,
    /// Who answers for it. Opens nothing.
    OwnedBy,
}

impl Via {
    /// The word in tables, pictures and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Holds => "holds",
            Self::Reads => "reads",
            Self::Touches => "touches",
            Self::Stores => "stores",
            Self::LogsIn => "logs_in",
            Self::Has => "has",
            Self::Assumes => "assumes",
            Self::Opens => "opens",
            Self::In => "in",
            Self::OwnedBy => "owned_by",
        }
    }
}

/// An edge, as a source states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Where it leads.
    pub to: Node,
    /// How.
    pub via: Via,
    /// What it allows, in the system's own words, sorted: capabilities, privileges, actions. At most [`MOST_SCOPE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
}

/// Target by target, what is to be done there.
pub type Actions = BTreeMap<String, BTreeSet<Permission>>;

/// What is known of a node itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_ms: Option<i64>,
    /// When it was last used, where its system tells. Absent: not known, which is not "never".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_ms: Option<i64>,
    /// Its system tells when it is used, and it never was.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never_used: bool,
    /// Since when a source states anything of it. From the journal, never stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<i64>,
    /// It lets nobody in now: disabled, locked, without login.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// Of a zone: what one of its targets counts in a blast radius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Declared: the targets and zones that it may open, and no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub may: Option<Vec<Node>>,
    /// Of a task: at these targets it may do what is named, and no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions: Option<Box<Actions>>,
    /// Somebody said that it leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offboarded: Option<Box<Offboarded>>,
    /// Of an AppRole: how long what it gives lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetimes: Option<Box<Lifetimes>>,
}

/// How long what an AppRole of Vault gives lives: its settings, in seconds. 0: the role says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifetimes {
    /// A token, before it is renewed; 0: as the mount has it.
    pub token_ttl: u64,
    /// A token, however often it is renewed; 0: as the mount has it.
    pub token_max_ttl: u64,
    /// The same, also of a periodic one; 0: not bounded so.
    pub token_explicit_max_ttl: u64,
    /// With each renewal a token lives for so long again; 0: it is not periodic.
    pub token_period: u64,
    /// A secret_id; 0: for ever.
    pub secret_id_ttl: u64,
    /// Its tokens are batch tokens: they cannot be renewed.
    pub batch: bool,
    /// What its mount gives where nothing is said, and the most that it gives: the system's where the mount says nothing. `None`:
    /// our login may not read that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<(u64, u64)>,
}

/// That somebody leaves, as all say who say so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offboarded {
    /// Each word for itself: what a tenant says decides nothing of another's, and each topic has its own authority.
    pub words: BTreeSet<Departure>,
}

/// One word that somebody leaves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Departure {
    /// Whose word.
    pub tenant: String,
    /// The topic that says so.
    pub topic: String,
    /// Since when.
    pub since_ms: i64,
    /// When the fences end that are set because of it.
    pub until_ms: i64,
}

impl Offboarded {
    /// What two words say.
    pub fn and(mut self, other: &Self) -> Self {
        self.words.extend(other.words.iter().cloned());
        self
    }
}

/// What one source says of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Of which.
    pub node: Node,
    /// Of itself.
    #[serde(default)]
    pub about: About,
    /// The edges that leave it.
    #[serde(default)]
    pub edges: Vec<Edge>,
}

impl Fact {
    /// Of a node, without edges yet.
    pub fn of(node: Node) -> Self {
        Self { node, about: About::default(), edges: Vec::new() }
    }

    /// Adds an edge; its scope is sorted and bounded.
    pub fn edge<S: Into<String>>(&mut self, to: Node, via: Via, scope: impl IntoIterator<Item = S>) {
        let mut scope: Vec<String> = scope.into_iter().map(Into::into).collect();
        scope.sort_unstable();
        scope.dedup();
        if scope.len() > MOST_SCOPE {
            let more = scope.len() - MOST_SCOPE;
            scope.truncate(MOST_SCOPE);
            scope.push(format!("(and {more} more)"));
        }
        self.edges.push(Edge { to, via, scope });
    }

    /// Adds an edge without a scope, to a node that there may not be.
    pub fn edge_to(&mut self, to: Option<&Node>, via: Via) {
        if let Some(to) = to {
            self.edges.push(Edge { to: to.clone(), via, scope: Vec::new() });
        }
    }
}

/// All that one source stated at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The facts. A node that is stated twice is joined.
    pub facts: Vec<Fact>,
    /// What was left out, and why, in our own words. Anything here makes it a part: what it does not show may be there.
    pub faults: Vec<String>,
}

impl Reading {
    /// Something is left out.
    pub fn fault(&mut self, what: impl Into<String>) {
        // Some are enough to say that it is a part, and of what kind.
        if self.faults.len() < 16 {
            self.faults.push(what.into());
        }
    }

    /// A node that a system named; one that cannot be a node is left out.
    pub fn node(&mut self, kind: NodeKind, name: &str) -> Option<Node> {
        match Node::new(kind, name) {
            Ok(node) => Some(node),
            Err(bad) => {
                self.fault(format!("a name that no node can have ({bad})"));
                None
            }
        }
    }
}

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Whose.
    pub tenant: String,
    /// Its name: `vault:prod`, `postgres:appdb`, `aws:account`, `journal`, `declared`.
    pub name: String,
    /// How often it is read, in milliseconds.
    pub every_ms: i64,
    /// When it was last read, whole or in part.
    pub read_ms: i64,
    /// When it was last read whole.
    pub whole_ms: Option<i64>,
    /// Why the last reading was a part.
    #[serde(default)]
    pub faults: Vec<String>,
}

/// How far a source can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It was read whole, and not long ago.
    Whole,
    /// Its last reading was a part: what was known before is kept.
    Partial,
    /// It was not read for three of its intervals.
    Stale,
    /// The configuration names it, and it was never read.
    Unread,
}

impl Source {
    /// As of `now_ms`.
    pub fn standing(&self, now_ms: i64) -> Standing {
        let late = now_ms.saturating_sub(self.read_ms) > self.every_ms.saturating_mul(3);
        match self.whole_ms {
            None if self.read_ms == 0 => Standing::Unread,
            _ if late => Standing::Stale,
            _ if !self.faults.is_empty() || self.whole_ms.is_none() => Standing::Partial,
            _ => Standing::Whole,
        }
    }
}

/// What a reading changed. One durable step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The source, as it stands after this.
    pub source: Source,
    /// New or other facts.
    pub put: Vec<Stated>,
    /// Nodes of which it says nothing any more.
    pub gone: Vec<Node>,
}

/// A fact as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// The fact.
    pub fact: Fact,
    /// Of its content: an unchanged one is not written again.
    pub digest: [u8; 16],
    /// Since when it is stated in this form.
    pub since_ms: i64,
}

/// One page of what is stored.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// With the names of their sources, since when they say it so. When the source first said anything of the node
    /// is in [`About::first_ms`].
    pub facts: Vec<(Arc<str>, Fact, i64)>,
    /// Behind which the next page begins; `None`: this was the last.
    pub next: Option<[String; 3]>,
}

/// Where facts are kept: tables of their own beside the journal, never joined while cases are claimed.
#[async_trait]
pub trait Facts: Send + Sync {
    /// The digest of each fact that a source has stated.
    async fn digests(&self, tenant: &str, source: &str) -> Result<HashMap<Node, [u8; 16]>, Error>;
    /// Writes what a reading changed.
    async fn change(&self, changes: Changes) -> Result<(), Error>;
    /// What a source has stated of these nodes.
    async fn stated(&self, tenant: &str, source: &str, nodes: Vec<Node>) -> Result<Vec<Fact>, Error>;
    /// Forgets a source, and all that it has stated.
    async fn forget(&self, tenant: &str, source: &str) -> Result<(), Error>;
    /// All sources that were ever read, and a number that is another one after each change of a fact.
    async fn sources(&self) -> Result<(Vec<Source>, i64), Error>;
    /// The logs of use that are read, and where each was read up to.
    async fn watched(&self) -> Result<Vec<uses::Watched>, Error>;
    /// What a log said of use.
    async fn uses(&self, tenant: &str, source: &str) -> Result<Vec<uses::Use>, Error>;
    /// What was read of a log, and where that ended: one durable step.
    async fn used(&self, watched: uses::Watched, uses: Vec<uses::Use>) -> Result<(), Error>;
    /// Whoever a log said these were is forgotten, and since when it is watched is another time: one durable step.
    async fn forget_uses(&self, watched: uses::Watched, gone: Vec<String>) -> Result<(), Error>;
    /// Notes how much each of these credentials opens, of those that the journal knows. Where the graph is not whole
    /// (`only_more`), no figure becomes smaller. How many changed.
    async fn weigh(&self, tenant: &str, weights: Vec<(CredentialId, u64)>, only_more: bool) -> Result<u64, Error>;
    /// Facts behind `after` (tenant, source, node), in that order, at most `max`.
    async fn page(&self, after: Option<[String; 3]>, max: usize) -> Result<Page, Error>;
}

#[cfg(test)]
mod tests;
