//! How much a system bears, and which part of it each process may use. PURE.
//!
//! A process says every few seconds what it serves and what it still uses; the journal answers what it may use until it
//! says so again. A newcomer gets what is free at once, and its fair part when the others have shrunk to theirs: the sum
//! of what is granted is never more than the whole.

use serde::{Deserialize, Serialize};

/// What a system bears from all processes together, or a process's part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Calls under way at once.
    pub calls: u32,
    /// Calls started per second; `None`: no such limit.
    pub per_second: Option<u32>,
}

impl Budget {
    /// Nothing may be called.
    pub const NONE: Self = Self { calls: 0, per_second: Some(0) };

    /// Whether no call can be made within it.
    pub fn is_none(self) -> bool {
        self.calls == 0 || self.per_second == Some(0)
    }
}

/// A part of a system's budget, as one process has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it may use from now on: no more than is free.
    pub granted: Budget,
    /// What it is to shrink to, where that is less; said so again, the rest is free for others.
    pub fair: Budget,
}

/// A process among those that use a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How many come before it, in an order that all of them see.
    pub before: u32,
    /// How many there are, with it.
    pub of: u32,
}

/// The fair part of the process at `place`: what is left of even parts goes to the first ones, so that all together are
/// the whole. Nobody is left without while the whole is enough for one each.
pub fn fair(whole: u32, place: Place) -> u32 {
    let of = place.of.max(1);
    whole / of + u32::from(place.before < whole % of)
}

/// The part of the process at `place` that uses `mine` of `whole`, of which all others use `others`.
pub fn part(whole: Budget, mine: Budget, others: Budget, place: Place) -> Part {
    let one = |whole: u32, mine: u32, others: u32| {
        let fair = fair(whole, place);
        let free = whole.saturating_sub(others);
        // What it uses it goes on using until it says otherwise; it grows only into what is free.
        let granted = if mine > fair { mine } else { fair.min(free).max(mine) };
        (granted, fair)
    };
    let (calls, fair_calls) = one(whole.calls, mine.calls, others.calls);
    let rate = whole.per_second.map(|whole| {
        // A process that had no limit before begins with nothing.
        one(whole, mine.per_second.unwrap_or(0), others.per_second.unwrap_or(whole))
    });
    Part {
        granted: Budget { calls, per_second: rate.map(|r| r.0) },
        fair: Budget { calls: fair_calls, per_second: rate.map(|r| r.1) },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(parts: &[Budget]) -> Budget {
        parts.iter().fold(Budget { calls: 0, per_second: Some(0) }, |sum, one| Budget {
            calls: sum.calls + one.calls,
            per_second: Some(sum.per_second.unwrap_or(0) + one.per_second.unwrap_or(0)),
        })
    }

    /// What the journal has down for a process, and what the process will say that it uses.
    #[derive(Debug, Clone, Copy)]
    struct Process {
        recorded: Budget,
        uses: Budget,
    }

    fn renew(whole: Budget, all: &mut [Option<Process>; 6], who: usize) {
        let mine = all[who].map_or(Budget::NONE, |process| process.uses);
        let others: Vec<Budget> = (0..6).filter(|i| *i != who).filter_map(|i| Some(all[i]?.recorded)).collect();
        let before = all[..who].iter().flatten().count() as u32;
        let part = part(whole, mine, sum(&others), Place { before, of: others.len() as u32 + 1 });
        let uses = Budget {
            calls: part.granted.calls.min(part.fair.calls),
            per_second: part.granted.per_second.min(part.fair.per_second),
        };
        all[who] = Some(Process { recorded: part.granted, uses });
    }

    proptest! {
        /// Processes come, renew and vanish in any order: never more than the whole, and all get theirs in the end.
        #[test]
        fn the_parts_never_exceed_the_whole(
            calls in 0_u32..40, rate in 0_u32..2_000,
            steps in proptest::collection::vec((0_usize..6, 0_u8..4), 0..200),
        ) {
            let whole = Budget { calls, per_second: Some(rate) };
            let mut all = [None; 6];
            for (who, what) in steps {
                if what == 0 {
                    all[who] = None;
                } else {
                    renew(whole, &mut all, who);
                }
                let recorded: Vec<Budget> = all.iter().flatten().map(|process| process.recorded).collect();
                let recorded = sum(&recorded);
                prop_assert!(recorded.calls <= whole.calls, "{recorded:?}");
                prop_assert!(recorded.per_second <= whole.per_second, "{recorded:?}");
            }
            for who in (0..6).cycle().take(30) {
                renew(whole, &mut all, who);
            }
            let uses: Vec<Budget> = all.iter().flatten().map(|process| process.uses).collect();
            prop_assert_eq!(sum(&uses), whole, "nothing is left unused");
            if calls >= 6 && rate >= 6 {
                prop_assert!(uses.iter().all(|uses| !uses.is_none()), "{uses:?}");
            }
        }

        #[test]
        fn fair_parts_are_the_whole_and_nobody_has_two_more(whole in 0_u32..3_000, of in 1_u32..100) {
            let parts: Vec<u32> = (0..of).map(|before| fair(whole, Place { before, of })).collect();
            prop_assert_eq!(parts.iter().sum::<u32>(), whole);
            prop_assert!(parts.iter().all(|part| *part >= whole / of && *part <= whole / of + 1));
        }
    }

    const fn at(before: u32, of: u32) -> Place {
        Place { before, of }
    }

    #[test]
    fn of_sixteen_calls_the_last_of_five_has_three() {
        assert_eq!([0, 1, 4].map(|before| fair(16, at(before, 5))), [4, 3, 3]);
        assert_eq!([0, 1, 2, 3].map(|before| fair(2, at(before, 4))), [1, 1, 0, 0]);
    }

    #[test]
    fn one_alone_has_all_and_two_have_halves() {
        let whole = Budget { calls: 16, per_second: Some(500) };
        let alone = part(whole, Budget::NONE, Budget::NONE, at(0, 1));
        assert_eq!(alone.granted, whole);
        let second = part(whole, Budget::NONE, whole, at(1, 2));
        assert_eq!((second.granted, second.fair), (Budget::NONE, Budget { calls: 8, per_second: Some(250) }));
        let first = part(whole, whole, Budget::NONE, at(0, 2));
        assert_eq!((first.granted, first.fair.calls), (whole, 8));
        let then = part(whole, Budget::NONE, first.fair, at(1, 2));
        assert_eq!(then.granted, Budget { calls: 8, per_second: Some(250) });
    }

    #[test]
    fn without_a_rate_only_calls_are_counted() {
        let whole = Budget { calls: 4, per_second: None };
        assert_eq!(part(whole, Budget::NONE, Budget::NONE, at(0, 1)).granted, whole);
    }
}
