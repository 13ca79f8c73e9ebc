//! How much each credential opens, all of them in one pass. PURE.
//!
//! What a node opens is what those open to whom it leads, so circles become one and the graph is gone through from its ends. Equal
//! sets of targets are kept once. Beyond [`MOST`] targets of one node they are not told apart any more: the figure is then from above, as all of
//! reach is.

use std::collections::HashSet;
use std::rc::Rc;

use petgraph::Direction::Outgoing;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::NodeIndex;
use petgraph::visit::{EdgeFiltered, EdgeRef as _};

use super::ask::is_target;
use super::graph::Graph;
use super::{NodeKind, Via};

/// So many targets of one node are told apart.
pub const MOST: usize = 4_096;

/// What a node opens.
#[derive(Clone)]
enum Opens {
    /// Just these, and their weight.
    These(Rc<[u32]>, u64),
    /// At most so much.
    Above(u64),
}

impl Opens {
    fn blast(&self) -> u64 {
        match self {
            Self::These(_, blast) | Self::Above(blast) => *blast,
        }
    }
}

/// Each credential with its blast radius, as [`Reach::blast`](super::ask::Reach::blast) counts it.
pub fn blasts(graph: &Graph) -> Vec<(NodeIndex, u64)> {
    let weights: Vec<u64> = graph.all.node_indices().map(|at| weight(graph, at)).collect();
    let all: u64 = weights.iter().fold(0, |all, one| all.saturating_add(*one));
    let leads = EdgeFiltered::from_fn(&graph.all, |edge| {
        Graph::opens(*edge.weight()) && edge.weight().via != Via::Touches && edge.source() != edge.target()
    });
    let circles = kosaraju_scc(&leads);
    let mut circle_of = vec![0_usize; graph.all.node_count()];
    for (no, circle) in circles.iter().enumerate() {
        circle.iter().for_each(|at| circle_of[at.index()] = no);
    }
    let mut opened: Vec<Opens> = Vec::with_capacity(circles.len());
    let mut same: HashSet<Rc<[u32]>> = HashSet::new();
    for (no, circle) in circles.iter().enumerate() {
        let (mut own, mut behind): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
        let mut opens = |at: NodeIndex| {
            if weights[at.index()] > 0 {
                own.extend(u32::try_from(at.index()));
            }
        };
        for at in circle {
            for (to, link) in graph.links(*at, Outgoing).filter(|(_, link)| Graph::opens(*link)) {
                opens(to);
                if link.via != Via::Touches && circle_of[to.index()] != no {
                    behind.push(circle_of[to.index()]);
                }
            }
        }
        behind.sort_unstable();
        behind.dedup();
        own.sort_unstable();
        own.dedup();
        opened.push(match join(own, &behind, &opened, &weights, &mut same) {
            Opens::Above(blast) => Opens::Above(blast.min(all)),
            these => these,
        });
    }
    graph.of_kind(NodeKind::Credential).map(|at| (at, opened[circle_of[at.index()]].blast())).collect()
}

/// What a node counts as a target; 0 where it is none.
fn weight(graph: &Graph, at: NodeIndex) -> u64 {
    let zones = graph.zones(at);
    if !is_target(graph, at, &zones) {
        return 0;
    }
    zones.iter().map(|zone| graph.weight(*zone)).max().unwrap_or(1)
}

fn join(own: Vec<u32>, behind: &[usize], opened: &[Opens], weights: &[u64], same: &mut HashSet<Rc<[u32]>>) -> Opens {
    let weighs = |all: &[u32]| all.iter().fold(0_u64, |sum, at| sum.saturating_add(weights[*at as usize]));
    if let ([one], []) = (behind, &*own) {
        return opened[*one].clone();
    }
    let (mut all, mut above) = (own, None);
    for one in behind {
        match &opened[*one] {
            Opens::These(these, _) => all.extend(these.iter()),
            Opens::Above(blast) => above = Some(above.unwrap_or(0_u64).saturating_add(*blast)),
        }
    }
    all.sort_unstable();
    all.dedup();
    if above.is_some() || all.len() > MOST {
        return Opens::Above(weighs(&all).saturating_add(above.unwrap_or(0)));
    }
    let blast = weighs(&all);
    let these: Rc<[u32]> = all.into();
    let these = same.get(&these).cloned().unwrap_or_else(|| {
        same.insert(these.clone());
        these
    });
    Opens::These(these, blast)
}
