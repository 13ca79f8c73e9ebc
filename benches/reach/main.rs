//! Reach over 10 k to 1 M credentials: how long a question takes beside a bare walk, and what the graph takes of memory.
//! Without servers. See benches/README.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use curfew::reach::graph::Graph;
use curfew::reach::{Edge, Fact, Node, NodeKind, Via, ask, blast};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How long questions about reach take, and what the graph takes of memory
#[derive(Debug, Parser)]
struct Asked {
    /// Credentials, one line for each
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    credentials: Vec<u32>,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

const ZONES: u32 = 16;

/// What there is for so many credentials.
struct World {
    credentials: u32,
    identities: u32,
    agents: u32,
    policies: u32,
    paths: u32,
    targets: u32,
}

impl World {
    fn of(credentials: u32) -> Self {
        let part = |of: u32| (credentials / of).max(16);
        Self {
            credentials,
            identities: part(5),
            agents: part(20),
            policies: part(100),
            paths: part(10),
            targets: part(200),
        }
    }

    fn name(kind: NodeKind, no: u32) -> String {
        match kind {
            NodeKind::Credential => {
                format!("urn:curfew:cred:vault-lease:prod:database/creds/service-{}/{no:024x}", no % 997)
            }
            NodeKind::Path => format!("prod/kv/team-{}/service-{}/key-{no}", no % 89, no % 997),
            NodeKind::Identity => format!("appdb-{}/service_user_{no}", no % 50),
            _ => format!("prod/{}-{no}", kind.as_str()),
        }
    }

    fn node(kind: NodeKind, no: u32) -> Node {
        Node::new(kind, &Self::name(kind, no)).unwrap()
    }

    /// All facts, one at a time: they are never all in memory.
    fn facts(&self, mut each: impl FnMut(Fact)) {
        use NodeKind as K;
        let mut dice = StdRng::seed_from_u64(7);
        let scope = |no: u32| vec![format!("schema_{}.*: SELECT", no % 64), "CONNECT".to_owned()];
        let edge = |kind, no, via, words: Vec<String>| Edge { to: Self::node(kind, no), via, scope: words };
        for no in 0..self.targets {
            let edges = vec![edge(K::Zone, no % ZONES, Via::In, Vec::new())];
            each(Fact { edges, ..Fact::of(Self::node(K::Target, no)) });
        }
        for no in 0..self.paths {
            let edges = vec![edge(K::Credential, dice.random_range(0..self.credentials), Via::Stores, Vec::new())];
            each(Fact { edges, ..Fact::of(Self::node(K::Path, no)) });
        }
        for no in 0..self.policies {
            // A team's places lie together.
            let first = dice.random_range(0..self.paths);
            let edges = (0..8).map(|at| edge(K::Path, (first + at) % self.paths, Via::Reads, vec!["read".to_owned()]));
            each(Fact { edges: edges.collect(), ..Fact::of(Self::node(K::Policy, no)) });
        }
        for no in 0..self.identities {
            let mut edges = vec![edge(K::Target, no % self.targets, Via::Opens, scope(no))];
            edges.push(edge(K::Owner, no % 300, Via::OwnedBy, Vec::new()));
            // Few may read stores, else everybody reaches everything.
            if no % 20 == 0 {
                edges.push(edge(K::Policy, dice.random_range(0..self.policies), Via::Has, Vec::new()));
            }
            each(Fact { edges, ..Fact::of(Self::node(K::Identity, no)) });
        }
        for no in 0..self.agents {
            let held =
                (0..4).map(|_| edge(K::Credential, dice.random_range(0..self.credentials), Via::Holds, Vec::new()));
            each(Fact { edges: held.collect(), ..Fact::of(Self::node(K::Agent, no)) });
        }
        for no in 0..self.credentials {
            let mut edges = vec![edge(K::Identity, no % self.identities, Via::LogsIn, Vec::new())];
            edges.push(edge(K::Target, no % self.identities % self.targets, Via::Opens, scope(no)));
            each(Fact { edges, ..Fact::of(Self::node(K::Credential, no)) });
        }
    }
}

/// Memory of this process that no file backs, in bytes.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A bare walk: numbers only, one visited mark for each node, no way, no scope, no zone.
fn bare(edges: &[Vec<u32>], seen: &mut [u32], round: u32, start: u32) -> usize {
    let mut next = VecDeque::from([start]);
    seen[start as usize] = round;
    let mut count = 0;
    while let Some(at) = next.pop_front() {
        count += 1;
        for to in &edges[at as usize] {
            if seen[*to as usize] != round {
                seen[*to as usize] = round;
                next.push_back(*to);
            }
        }
    }
    count
}

fn main() {
    let asked = Asked::parse();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "credentials",
        "nodes",
        "edges",
        "built",
        "memory",
        "reach p50",
        "p99",
        "most",
        "bare p50",
        "ratio",
        "crosses zones",
        "who",
        "all blast radii",
    ]);
    for credentials in asked.credentials {
        table.add_row(row(&World::of(credentials)));
    }
    println!("{table}");
}

fn row(world: &World) -> Vec<String> {
    let before = memory();
    let began = Instant::now();
    let mut graph = Graph::default();
    let source: Arc<str> = "bench".into();
    world.facts(|fact| graph.add(&source, fact, 1_700_000_000_000));
    graph.settle();
    let built = began.elapsed();
    let taken = memory().saturating_sub(before);
    let (nodes, edges) = graph.size();

    let mut numbers: Vec<Vec<u32>> = vec![Vec::new(); nodes];
    world.facts(|fact| {
        let from = graph.find(&fact.node).unwrap().index();
        let opening = fact.edges.iter().filter(|edge| edge.via != Via::OwnedBy);
        numbers[from].extend(opening.map(|edge| u32::try_from(graph.find(&edge.to).unwrap().index()).unwrap()));
    });
    let mut dice = StdRng::seed_from_u64(11);
    let kinds = [
        (NodeKind::Identity, world.identities),
        (NodeKind::Agent, world.agents),
        (NodeKind::Credential, world.credentials),
    ];
    let mut seen = vec![0; nodes];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=3_000 {
        let (kind, many) = kinds[round as usize % 3];
        let start = graph.find(&World::node(kind, dice.random_range(0..many))).unwrap();
        let began = Instant::now();
        black_box(ask::reach(&graph, start));
        ours.push(began.elapsed());
        let began = Instant::now();
        black_box(bare(&numbers, &mut seen, round, u32::try_from(start.index()).unwrap()));
        theirs.push(began.elapsed());
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    let began = Instant::now();
    let crossing = ask::crossing(&graph, 100).total;
    let crossed = began.elapsed();
    let began = Instant::now();
    let who = ask::who(&graph, graph.find(&World::node(NodeKind::Target, 3)).unwrap(), 100).total;
    let asked = began.elapsed();
    let began = Instant::now();
    let widest = blast::blasts(&graph).into_iter().map(|(_, blast)| blast).max().unwrap_or(0);
    let measured = began.elapsed();
    let part = |all: &[Duration], part: f64| all[((all.len() - 1) as f64 * part) as usize];
    let us = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    let ratio = part(&ours, 0.5).as_secs_f64() / part(&theirs, 0.5).as_secs_f64();
    vec![
        world.credentials.to_string(),
        nodes.to_string(),
        edges.to_string(),
        format!("{:.1} s", built.as_secs_f64()),
        format!("{} MiB", taken >> 20),
        us(part(&ours, 0.5)),
        us(part(&ours, 0.99)),
        us(part(&ours, 1.0)),
        us(part(&theirs, 0.5)),
        format!("{ratio:.0}"),
        format!("{:.2} s ({crossing})", crossed.as_secs_f64()),
        format!("{:.2} s ({who})", asked.as_secs_f64()),
        format!("{:.2} s (up to {widest})", measured.as_secs_f64()),
    ]
}
