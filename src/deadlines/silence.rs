//! Is it the task that fell silent, or its scheduler, or the way to us? PURE.
//!
//! One task's silence means something only beside others of its source that go on speaking. So a task is acted on only
//! when its source was heard all through the time in which the task was not, when it stayed silent one interval longer
//! than it had to (by then everything that stopped together is late together), and when it is one of a few.

use std::collections::{BTreeMap, VecDeque};

use crate::task::{RunKey, Tenant};

/// Who speaks: a tenant's scheduler, by its CloudEvents source.
pub type Speaker = (Tenant, String);

/// How many quiet periods of each order of length are remembered. As many of the same order are longer together than any
/// window in which they matter, so what is dropped lies before it.
const QUIETS: usize = 16;

/// When silence is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whole intervals without a sign of life, as in the rules.
    pub missed: u32,
    /// More tasks of one source than this at once are held.
    pub max_count: u64,
    /// A larger share of a source's live tasks than this, in percent, is held.
    pub max_percent: u64,
    /// Up to this many, the share does not count: one of four is 25 %.
    pub min_count: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { missed: 3, max_count: 50, max_percent: 20, min_count: 5 }
    }
}

/// A live task that sent no heartbeat for as long as its limit allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Its key.
    pub run: RunKey,
    /// Its scheduler.
    pub speaker: Speaker,
    /// Its last sign of life.
    pub last_ms: i64,
    /// The interval that it promised.
    pub every_ms: i64,
}

impl Silent {
    fn window_ms(&self, limits: &Limits) -> i64 {
        self.every_ms.saturating_mul(i64::from(limits.missed.max(1)).saturating_add(1))
    }
}

/// What was heard of a source: when it began to be heard, and its quiet periods since.
#[derive(Debug, Clone, Default)]
pub struct Voice {
    since_ms: i64,
    newest_ms: i64,
    quiets: BTreeMap<u32, VecDeque<(i64, i64)>>,
    mass_ms: Option<i64>,
    acted: VecDeque<i64>,
}

impl Voice {
    /// First heard: what was before is not known.
    pub fn first(newest_ms: i64) -> Self {
        Self { since_ms: newest_ms, newest_ms, ..Self::default() }
    }

    /// The newest sign of life of any of its tasks, as it is now.
    pub fn hear(&mut self, newest_ms: i64) {
        if newest_ms <= self.newest_ms {
            return;
        }
        let order = newest_ms.saturating_sub(self.newest_ms).max(1).ilog2();
        let alike = self.quiets.entry(order).or_default();
        if alike.len() == QUIETS {
            alike.pop_front();
        }
        alike.push_back((self.newest_ms, newest_ms));
        self.newest_ms = newest_ms;
    }

    /// Forgets what is older than any window.
    pub fn forget(&mut self, before_ms: i64) {
        for alike in self.quiets.values_mut() {
            alike.retain(|(_, end)| *end >= before_ms);
        }
        self.acted.retain(|at| *at >= before_ms);
    }

    /// Whether it was heard from `from_ms` to `to_ms` with no more than two intervals between.
    fn spoke_through(&self, from_ms: i64, to_ms: i64, every_ms: i64) -> bool {
        let most_ms = every_ms.saturating_mul(2);
        self.since_ms <= from_ms
            && to_ms.saturating_sub(self.newest_ms) <= most_ms
            && self.quiets.values().flatten().all(|(a, b)| *b < from_ms || b.saturating_sub(*a) <= most_ms)
    }
}

/// What is done about the silent ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// Indexes of those that count as lost.
    pub act: Vec<usize>,
    /// How many are held because they are too many, or because their source is silent.
    pub held: u64,
    /// Whether a source has too many of them at once.
    pub mass: bool,
}

/// These were acted on, durably: they count among those that fall silent after them. What was judged and could not be recorded is
/// judged again, and would count twice.
pub fn acted<'a>(on: impl Iterator<Item = &'a Silent>, voices: &mut BTreeMap<Speaker, Voice>, before_ms: i64) {
    for task in on {
        if let Some(voice) = voices.get_mut(&task.speaker) {
            voice.acted.push_back(before_ms);
        }
    }
}

/// Judges all tasks that are silent at `before_ms`; who acts on them says so by [`acted`]. `live`: tasks with heartbeats of each source; `voices`: what was
/// heard of them. A source of which nothing is known is not acted on.
pub fn judge_silence(
    silent: &[Silent],
    live: &BTreeMap<Speaker, u64>,
    voices: &mut BTreeMap<Speaker, Voice>,
    before_ms: i64,
    limits: &Limits,
) -> Judged {
    let mut judged = Judged::default();
    let mut by_speaker: BTreeMap<&Speaker, Vec<usize>> = BTreeMap::new();
    for (index, task) in silent.iter().enumerate() {
        by_speaker.entry(&task.speaker).or_default().push(index);
    }
    for (speaker, indexes) in by_speaker {
        let (Some(voice), Some(live)) = (voices.get_mut(speaker), live.get(speaker)) else {
            judged.held += indexes.len() as u64;
            continue;
        };
        // Also those that were acted on a moment ago: a thousand one by one are a thousand.
        let longest_ms = indexes.iter().map(|i| silent[*i].window_ms(limits)).max().unwrap_or(0);
        let recent_from = before_ms.saturating_sub(longest_ms);
        let recent = voice.acted.iter().filter(|at| **at >= recent_from).count() as u64;
        let count = indexes.len() as u64 + recent;
        let share = count.saturating_mul(100) > limits.max_percent.saturating_mul(live.saturating_add(recent));
        if count > limits.max_count || (count > limits.min_count && share) {
            judged.mass = true;
            judged.held += indexes.len() as u64;
            voice.mass_ms = Some(before_ms);
            continue;
        }
        for index in indexes {
            let task = &silent[index];
            let window_ms = task.window_ms(limits);
            let from_ms = before_ms.saturating_sub(window_ms);
            // After an outage each gets a whole window to speak again.
            let calm = voice.mass_ms.is_none_or(|at| at <= from_ms);
            let ripe = task.last_ms <= from_ms;
            if ripe && calm && voice.spoke_through(from_ms, before_ms, task.every_ms) {
                judged.act.push(index);
            } else {
                judged.held += u64::from(ripe);
            }
        }
    }
    judged
}
