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
    // Until the last step is written the source stands as it did.
    let unfinished = Source { whole_ms: last.and_then(|last| last.whole_ms), ..source.clone() };
    let finished = Source { whole_ms: if whole { Some(now_ms) } else { unfinished.whole_ms }, ..source };
    let mut puts = put.chunks(CHUNK).map(<[Stated]>::to_vec);
    let mut gones = gone.chunks(CHUNK).map(<[Node]>::to_vec);
    let mut steps = Vec::new();
    loop {
        let (put, gone) = (puts.next(), gones.next());
        if put.is_none() && gone.is_none() && !steps.is_empty() {
            break;
        }
        let last = puts.len() == 0 && gones.len() == 0;
        let source = if last { finished.clone() } else { unfinished.clone() };
        steps.push(Changes { source, put: put.unwrap_or_default(), gone: gone.unwrap_or_default() });
        if last {
            break;
        }
    }
    steps
}
