//! In which order cases are worked on, and what each costs of the cap: by urgency, then by how much its credential opens. PURE.

use super::Urgency;

/// Orders of magnitude of a blast radius that are told apart: below 10, below 100, below 1 000, and above.
const MAGNITUDES: u8 = 4;

/// The order of magnitude of a blast radius; what nobody has measured counts as the smallest.
fn magnitude(blast: Option<u64>) -> u8 {
    match blast.unwrap_or(0) {
        0..10 => 0,
        10..100 => 1,
        100..1_000 => 2,
        _ => MAGNITUDES - 1,
    }
}

/// A place in the order of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    urgency: Urgency,
    magnitude: u8,
}

impl Rank {
    /// All of them, the first to be worked on first.
    pub const DESCENDING: [Self; Urgency::DESCENDING.len() * MAGNITUDES as usize] = {
        let mut all =
            [Self { urgency: Urgency::Urgent, magnitude: 0 }; Urgency::DESCENDING.len() * MAGNITUDES as usize];
        let (mut at, mut place) = (0, 0);
        while place < Urgency::DESCENDING.len() {
            let mut magnitude = MAGNITUDES;
            while magnitude > 0 {
                magnitude -= 1;
                all[at] = Self { urgency: Urgency::DESCENDING[place], magnitude };
                at += 1;
            }
            place += 1;
        }
        all
    };

    /// Of a case that is so urgent, on a credential that opens so much.
    pub fn of(urgency: Urgency, blast: Option<u64>) -> Self {
        Self { urgency, magnitude: magnitude(blast) }
    }

    /// The number in the journal's index.
    pub fn number(self) -> i64 {
        self.urgency.rank() * i64::from(MAGNITUDES) + i64::from(self.magnitude)
    }

    /// How much others come first: 0 is the first of all.
    pub fn behind(self) -> i64 {
        Self::DESCENDING[0].number() - self.number()
    }
}

/// What an effect on a credential that opens so much counts in the cap: 1, 2, 4 or 8.
pub fn cost(blast: Option<u64>) -> u32 {
    1 << magnitude(blast)
}

/// Whether it fits into what the cap leaves of its minute. One that costs more than the whole cap has a minute of its own.
pub fn fits(charged: u32, cost: u32, cap: u32) -> bool {
    charged < cap && (charged == 0 || charged.saturating_add(cost) <= cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgency_comes_first_and_then_what_is_opened() {
        let numbers: Vec<i64> = Rank::DESCENDING.iter().map(|rank| rank.number()).collect();
        assert_eq!(numbers, (0..16).rev().collect::<Vec<_>>());
        assert_eq!(Rank::DESCENDING.map(Rank::behind).to_vec(), (0..16).collect::<Vec<_>>());
        let of = Rank::of;
        assert!(of(Urgency::Urgent, None) > of(Urgency::Prompt, Some(u64::MAX)));
        assert!(of(Urgency::Prompt, Some(1_000)) > of(Urgency::Prompt, Some(999)));
        assert_eq!(of(Urgency::Prompt, Some(9)), of(Urgency::Prompt, None));
        // An old journal's numbers are these, where nothing was measured.
        assert_eq!(of(Urgency::Urgent, None).number(), 4 * Urgency::Urgent.rank());
    }

    #[test]
    fn the_cap_is_reached_sooner_by_what_opens_much() {
        let costs = [None, Some(9), Some(10), Some(99), Some(100), Some(1_000), Some(u64::MAX)].map(cost);
        assert_eq!(costs, [1, 1, 2, 2, 4, 8, 8]);
        assert!(fits(0, 1, 1) && !fits(1, 1, 1) && !fits(0, 1, 0));
        assert!(fits(0, 8, 5) && !fits(1, 8, 5) && fits(2, 8, 10) && !fits(3, 8, 10));
        assert!(!fits(u32::MAX, 8, 5));
    }
}
