//! One pass over everything that is due, a bounded part of it in each tick. PURE.
//!
//! In a mass silence all of a source's tasks stay due for as long as they are held. Silence is judged only at the end of
//! a pass: a part of a mass must not look like a few.

use std::collections::BTreeMap;

use super::silence::{Silent, Speaker};
use crate::journal::DueAt;

/// Where the pass stands, and whom it found silent.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// The last one that was looked at.
    pub after: Option<DueAt>,
    /// Silent ones, at most as many of each speaker as asked.
    pub silent: Vec<Silent>,
    /// How many more there are.
    pub more: u64,
    counts: BTreeMap<Speaker, u64>,
}

impl Round {
    /// Notes a silent task. Of one speaker no more than `most` are kept: as many are a mass, and none of a mass is
    /// acted on.
    pub fn note(&mut self, silent: Silent, most: u64) {
        let count = self.counts.entry(silent.speaker.clone()).or_default();
        *count += 1;
        if *count <= most {
            self.silent.push(silent);
        } else {
            self.more += 1;
        }
    }
}
