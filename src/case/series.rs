//! The sightings that prove death, one after another. PURE.

use serde::{Deserialize, Serialize};

use super::record::{Answer, Level, Residue, Sighting};

/// The unbroken run of refusals that proves death; one late success starts it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The weakest level among its sightings.
    pub level: Option<Level>,
    /// When the first refusal was seen.
    pub first_ms: Option<i64>,
    /// When the last refusal was seen.
    pub last_ms: Option<i64>,
    /// How many.
    pub refused: u32,
    /// Whether a control showed at least once within it that the path works.
    pub control: bool,
    /// How often a success broke it.
    pub broken: u32,
    /// What the last sighting saw left behind.
    pub residue: Vec<Residue>,
}

impl Series {
    pub(super) fn add(&mut self, sighting: &Sighting) {
        match sighting.answer {
            Answer::Unknown => {}
            Answer::Accepted => *self = Self { broken: self.broken.saturating_add(1), ..Self::default() },
            Answer::Refused => {
                // The clock went back: how long it was refused cannot be said by two clocks.
                if self.last_ms.is_some_and(|last_ms| sighting.at_ms < last_ms) {
                    *self = Self { broken: self.broken, ..Self::default() };
                }
                self.level = Some(self.level.map_or(sighting.level, |l| l.min(sighting.level)));
                self.first_ms = Some(self.first_ms.unwrap_or(sighting.at_ms));
                self.last_ms = Some(sighting.at_ms);
                self.refused = self.refused.saturating_add(1);
                self.control |= sighting.control;
                self.residue.clone_from(&sighting.residue);
            }
        }
    }
}
