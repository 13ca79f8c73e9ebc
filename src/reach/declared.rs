//! What people say: zones, targets, owners, who works as whom, and what an identity may reach. PURE; the file is read by whoever
//! asks.
//!
//! Nothing of it gives anybody access: it names what the systems do not know.

use serde::Deserialize;

use super::{Fact, Node, NodeKind, Reading, Via};
use crate::config::problem::said;
use crate::config::yaml;
use crate::reach::ask::MOST_ZONES;

/// So large may the file be, in bytes.
pub const MAX_BYTES: u64 = 8 << 20;

/// The file `reach.declared`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    /// Trust zones.
    zones: Vec<Zone>,
    /// What is opened, and where it lies.
    targets: Vec<Target>,
    /// Places in stores that lie in a zone, or belong to somebody.
    places: Vec<Place>,
    /// Identities and credentials.
    identities: Vec<Identity>,
    /// Agents and workloads.
    agents: Vec<Agent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Zone {
    name: String,
    /// What one of its targets counts in a blast radius.
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    name: String,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    owner: Option<String>,
    /// Whoever reads one of these places opens it: `<realm>/<mount>/<path>`.
    #[serde(default)]
    opened_by: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// `<realm>/<mount>/<path>`; one that ends in `*` stands for all below it.
    path: String,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    owner: Option<String>,
    /// Consumers that read it.
    #[serde(default)]
    read_by: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    /// `identity:…`, or the URN of a credential.
    id: Node,
    #[serde(default)]
    owner: Option<String>,
    /// Zones and targets that it may open, and no others.
    #[serde(default)]
    may: Option<May>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    name: String,
    #[serde(default)]
    owner: Option<String>,
    /// What it works as: identities, or credentials that it holds.
    #[serde(default, rename = "as")]
    works_as: Vec<Node>,
    #[serde(default)]
    may: Option<May>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct May {
    zones: Vec<String>,
    targets: Vec<String>,
}

/// Why the file was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read; where, and what was wanted. Without what stands there: it is kept, and shown to whoever asks.
    #[error("{0}")]
    Text(String),
    /// A zone that `zones` does not name.
    #[error("as a zone {} is not one of `zones`", said(.0))]
    NoZone(String),
    /// More zones than can be told apart.
    #[error("more than {MOST_ZONES} zones")]
    Zones,
    /// Neither an identity nor a credential.
    #[error("{} is neither an identity nor a credential", said(.0))]
    NoIdentity(String),
}

impl Declared {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Wrong`]. One mistake is enough: half a declaration would open what it leaves out.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let declared: Self = yaml(text).map_err(|problem| {
            let place = problem.line.map(|line| format!("line {line}: ")).unwrap_or_default();
            Wrong::Text(format!("{place}{}", problem.message))
        })?;
        if declared.zones.len() > MOST_ZONES {
            return Err(Wrong::Zones);
        }
        let zones = declared.targets.iter().map(|one| &one.zone).chain(declared.places.iter().map(|one| &one.zone));
        let may = declared.identities.iter().map(|one| &one.may).chain(declared.agents.iter().map(|one| &one.may));
        let named = zones.flatten().chain(may.flatten().flat_map(|may| &may.zones));
        for zone in named {
            if !declared.zones.iter().any(|known| known.name == *zone) {
                return Err(Wrong::NoZone(zone.clone()));
            }
        }
        let nodes = declared.identities.iter().map(|one| &one.id);
        for node in nodes.chain(declared.agents.iter().flat_map(|agent| &agent.works_as)) {
            if !matches!(node.kind, NodeKind::Identity | NodeKind::Credential) {
                return Err(Wrong::NoIdentity(node.to_string()));
            }
        }
        Ok(declared)
    }

    /// What it says.
    pub fn facts(&self) -> Reading {
        let mut reading = Reading::default();
        for zone in &self.zones {
            if let Some(node) = reading.node(NodeKind::Zone, &zone.name) {
                let mut fact = Fact::of(node);
                fact.about.weight = Some(zone.weight);
                reading.facts.push(fact);
            }
        }
        for target in &self.targets {
            let Some(node) = reading.node(NodeKind::Target, &target.name) else { continue };
            for path in &target.opened_by {
                let Some(place) = reading.node(NodeKind::Path, path) else { continue };
                let mut fact = Fact::of(place);
                fact.edge_to(Some(&node), Via::Opens);
                reading.facts.push(fact);
            }
            lies(&mut reading, node, target.zone.as_deref(), target.owner.as_deref());
        }
        for place in &self.places {
            let Some(node) = reading.node(NodeKind::Path, &place.path) else { continue };
            for consumer in &place.read_by {
                let Some(consumer) = reading.node(NodeKind::Consumer, consumer) else { continue };
                let mut fact = Fact::of(consumer);
                fact.edge_to(Some(&node), Via::Reads);
                reading.facts.push(fact);
            }
            lies(&mut reading, node, place.zone.as_deref(), place.owner.as_deref());
        }
        for identity in &self.identities {
            let fact = somebody(&mut reading, identity.id.clone(), identity.owner.as_deref(), identity.may.as_ref());
            reading.facts.push(fact);
        }
        for agent in &self.agents {
            let Some(node) = reading.node(NodeKind::Agent, &agent.name) else { continue };
            let mut fact = somebody(&mut reading, node, agent.owner.as_deref(), agent.may.as_ref());
            for works_as in &agent.works_as {
                let via = if works_as.kind == NodeKind::Credential { Via::Holds } else { Via::Runs };
                fact.edge_to(Some(works_as), via);
            }
            reading.facts.push(fact);
        }
        reading
    }
}

/// Where it lies, and whose it is.
fn lies(reading: &mut Reading, node: Node, zone: Option<&str>, owner: Option<&str>) {
    let mut fact = Fact::of(node);
    fact.edge_to(zone.and_then(|zone| reading.node(NodeKind::Zone, zone)).as_ref(), Via::In);
    fact.edge_to(owner.and_then(|owner| reading.node(NodeKind::Owner, owner)).as_ref(), Via::OwnedBy);
    reading.facts.push(fact);
}

fn somebody(reading: &mut Reading, node: Node, owner: Option<&str>, may: Option<&May>) -> Fact {
    let mut fact = Fact::of(node);
    fact.edge_to(owner.and_then(|owner| reading.node(NodeKind::Owner, owner)).as_ref(), Via::OwnedBy);
    fact.about.may = may.map(|may| {
        let zones = may.zones.iter().map(|name| (NodeKind::Zone, name));
        let targets = may.targets.iter().map(|name| (NodeKind::Target, name));
        zones.chain(targets).filter_map(|(kind, name)| reading.node(kind, name)).collect()
    });
    fact
}
