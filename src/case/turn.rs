//! A rotation's turn: which value goes, and which one comes. PURE.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::plan::Act;
use super::record::{Generation, Observation, Output};

/// What a case knows of the two values, kept over its plans. Nothing of the values themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Turn {
    /// The value that was current when the case first looked: it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Generation>,
    /// Values that were to go before that one, when the one that took their place had to go as well: they end with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Generation>,
    /// Of a user whose keys the provider names: those that there were when the case first looked. One that came since may
    /// be ours, made by a call whose answer was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// Keys of that user that were made for this case, by their ids: whoever uses them, they are ours to take back.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub made: BTreeSet<String>,
    /// Another one may have been made, by a call whose answer was lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
    /// The value that consumers read since the promotion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Generation>,
    /// When the target was last given a candidate, by its own clock: what was open before is of the old value. Nobody but
    /// our own test knows a candidate before it is promoted. Of a value that its provider set: when our test was let in
    /// with it; who was faster has to come again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_ms: Option<i64>,
    /// When its provider was last asked to make another value, by our clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun_ms: Option<i64>,
    /// The same, where the target does not say when what is open was opened: its own mark between the older and the younger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Whether the target has a candidate, or may have one.
    pub is_set: bool,
    /// The old value was seen to work after the plan had been carried out: what was promoted did not replace it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refuted: bool,
    /// Candidates that the target did not take.
    pub rejected: u32,
    /// When the new value was promoted, by our clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promoted_ms: Option<i64>,
    /// Consumers that said that they have the new value.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub adopted: BTreeSet<String>,
    /// Of a split: how many of the shared user's grants the agent's own has not.
    #[serde(skip_serializing_if = "is_none")]
    pub withheld: u32,
    /// A consumer said that it cannot work with the new value: the old one comes back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Turn {
    /// So many candidates are offered to a target before the case is parked.
    pub const CANDIDATES: u32 = 3;
    /// So many consumers are remembered.
    pub const CONSUMERS: usize = 64;
    /// So many values are remembered that are left to end, the newest.
    pub const LEFT: usize = 32;

    pub(super) fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// A look into the store. The first one says which value goes: a later one may already see the new one.
    pub(super) fn saw(&mut self, seen: &Observation) {
        if self.old.is_none() {
            self.old.clone_from(&seen.current);
        }
        if self.keys.is_none() {
            self.keys.clone_from(&seen.keys);
        }
    }

    pub(super) fn did(&mut self, act: Act, output: &Output) {
        match act {
            Act::Provision => self.withheld = output.withheld,
            Act::Create => self.made.extend(output.current.as_ref().and_then(|made| made.user.clone())),
            Act::Set => {
                self.is_set = true;
                self.set_ms = output.done_ms.or(self.set_ms);
                self.mark = output.mark.clone().or(self.mark.take());
            }
            Act::Begin => {
                self.is_set = true;
                self.begun_ms = output.done_ms;
            }
            Act::Promote => {
                self.new.clone_from(&output.current);
                self.promoted_ms = output.done_ms;
                self.refuted = false;
                self.adopted.clear();
            }
            // Stored anew, the old value is a version of its own.
            Act::Revert => {
                self.old = output.current.clone().or(self.old.take());
                (self.new, self.promoted_ms) = (None, None);
            }
            Act::Mint => {
                self.new.clone_from(&output.current);
                self.promoted_ms = output.done_ms;
                self.refuted = false;
                self.adopted.clear();
                // Not before the target was seen to take it.
                (self.set_ms, self.mark) = (None, None);
            }
            Act::Restore => (self.is_set, self.set_ms, self.mark) = (false, None, None),
            _ => {}
        }
    }

    /// A consumer's word on the new value.
    pub(super) fn hear(&mut self, consumer: &str, failed: bool) {
        self.unhealthy |= failed;
        if !failed && self.adopted.len() < Self::CONSUMERS {
            self.adopted.insert(consumer.to_owned());
        }
    }

    /// Another directive takes over. Where it is about the value that came, that one goes now.
    pub(super) fn go_on(&mut self, generation: Option<i64>) {
        (self.rejected, self.unhealthy) = (0, false);
        if generation.is_some() && generation == self.new.as_ref().map(|new| new.version) {
            let mut left = std::mem::take(&mut self.left);
            left.extend(self.old.take());
            let surplus = left.len().saturating_sub(Self::LEFT);
            *self = Self { left: left.split_off(surplus), ..Self::default() };
        }
    }

    /// How long consumers have had the new value: since the promotion, by our clock (`now_ms`); where it was set later, or that
    /// is all that is known, since then, by the clock that says so (`there_ms`). Between the two a store may have been away.
    pub fn had_ms(&self, now_ms: i64, there_ms: i64) -> i64 {
        let promoted = self.promoted_ms.map(|since_ms| now_ms.saturating_sub(since_ms));
        let set = self.set_ms.map(|since_ms| there_ms.saturating_sub(since_ms));
        promoted.into_iter().chain(set).min().unwrap_or(0).max(0)
    }

    /// The oldest version that goes.
    pub fn first(&self) -> Option<i64> {
        self.left.iter().chain(&self.old).map(|goes| goes.version).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_have_had_a_value_since_it_was_promoted_not_since_it_was_set() {
        let turn = |set_ms, promoted_ms| Turn { set_ms, promoted_ms, ..Turn::default() };
        // The target's clock is an hour behind ours.
        let (now_ms, there_ms) = (10_000_000, 6_400_000);
        for (of, had_ms, what) in [
            (turn(Some(6_390_000), Some(9_990_000)), 10_000, "at once"),
            (turn(Some(1_000_000), Some(9_990_000)), 10_000, "the promotion was late"),
            // What a provider made is seen at the target after it: who was faster has to come again.
            (turn(Some(6_399_000), Some(5_000_000)), 1_000, "the test was late"),
            (turn(Some(6_300_000), None), 100_000, "not known when"),
            (turn(None, Some(9_000_000)), 1_000_000, "not seen at the target"),
            (turn(None, None), 0, "not known at all"),
        ] {
            assert_eq!(of.had_ms(now_ms, there_ms), had_ms, "{what}");
        }
    }
}
