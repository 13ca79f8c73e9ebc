//! What a reading changes of what its source stated before. PURE.

use std::collections::{BTreeMap, HashMap};

use super::{CHUNK, Changes, Fact, Node, Reading, Source, Stated};
use crate::event::digest16;

/// What a fact is compared by.
pub fn digest(fact: &Fact) -> [u8; 16] {
    // A fact has maps of no kind, so its JSON is always the same.
    digest16(&[&serde_json::to_vec(fact).unwrap_or_default()])
}

/// One fact for each node, its edges in order: two readings of the same are the same.
fn joined(facts: Vec<Fact>) -> BTreeMap<Node, Fact> {
    let mut all: BTreeMap<Node, Fact> = BTreeMap::new();
    for fact in facts {
        match all.entry(fact.node.clone()) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(fact);
            }
            std::collections::btree_map::Entry::Occupied(mut there) => {
                let known = there.get_mut();
                known.edges.extend(fact.edges);
                known.about = super::graph::both(std::mem::take(&mut known.about), fact.about);
            }
        }
    }
    for fact in all.values_mut() {
        fact.edges.sort_by(|a, b| (&a.to, a.via, &a.scope).cmp(&(&b.to, b.via, &b.scope)));
        fact.edges.dedup();
    }
    all
}

/// The steps by which what was `before` becomes what was read, at most [`CHUNK`] facts each, at least one: it says when the source
/// was read. Only a whole reading takes away what it does not show.
pub fn changes(
    before: &HashMap<Node, [u8; 16]>,
    reading: Reading,
    last: Option<&Source>,
    mut source: Source,
    now_ms: i64,
) -> Vec<Changes> {
    let whole = reading.faults.is_empty();
    source.faults = reading.faults;
    source.read_ms = now_ms;
    let facts = joined(reading.facts);
    let mut gone: Vec<Node> = Vec::new();
    if whole {
        gone.extend(before.keys().filter(|node| !facts.contains_key(*node)).cloned());
        gone.sort_unstable();
    }
    let stated = facts.into_values().map(|fact| Stated { digest: digest(&fact), fact, since_ms: now_ms });
    let put: Vec<Stated> = stated.filter(|one| before.get(&one.fact.node) != Some(&one.digest)).collect();
    // Until the last step is written it is a part, and what is new is there before what is gone is taken away.
    let whole_ms = last.and_then(|last| last.whole_ms);
    let unfinished = Source { whole_ms, faults: vec!["it is being written".to_owned()], ..source.clone() };
    let finished = Source { whole_ms: if whole { Some(now_ms) } else { whole_ms }, ..source };
    let step =
        |put: &[Stated], gone: &[Node]| Changes { source: unfinished.clone(), put: put.to_vec(), gone: gone.to_vec() };
    let puts = put.chunks(CHUNK).map(|put| step(put, &[]));
    let mut steps: Vec<Changes> = puts.chain(gone.chunks(CHUNK).map(|gone| step(&[], gone))).collect();
    if steps.is_empty() {
        steps.push(step(&[], &[]));
    }
    if let Some(last) = steps.last_mut() {
        last.source = finished;
    }
    steps
}

/// The facts that were read of nodes that were stated otherwise before.
pub fn otherwise(before: &HashMap<Node, [u8; 16]>, reading: &Reading) -> Vec<Node> {
    let facts = joined(reading.facts.clone());
    let differs = |fact: &Fact| before.get(&fact.node).is_some_and(|known| *known != digest(fact));
    facts.into_values().filter(differs).map(|fact| fact.node).collect()
}

/// A number for what all sources say, by how often each has changed: another one where any of them has.
pub fn generation<'a>(sources: impl Iterator<Item = (&'a str, &'a str, i64)>) -> i64 {
    let text: String = sources.map(|(tenant, name, count)| format!("{tenant}\n{name}\n{count}\n")).collect();
    let digest = digest16(&[text.as_bytes()]);
    i64::from_be_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}
