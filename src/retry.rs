//! When to try again. PURE: retries are due times in the journal, nothing sleeps.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Deserialize, Serialize};

use crate::case::record::FailureKind;

/// Backoff with a ceiling and without an end: a live credential is never forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// After the first failure.
    pub first_ms: u64,
    /// The ceiling; later attempts keep this interval for ever.
    pub ceiling_ms: u64,
    /// How far a provider's `Retry-After` is believed.
    pub throttle_ceiling_ms: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { first_ms: 500, ceiling_ms: 60_000, throttle_ceiling_ms: 300_000 }
    }
}

impl Schedule {
    /// How long to wait after failure number `attempt` (from 1). `spread` in 0..=1 moves it by up to a quarter, so that
    /// many cases do not come back together; callers derive it from the case's id.
    pub fn after_ms(&self, attempt: u32, failure: FailureKind, spread: f64) -> i64 {
        let first = self.first_ms.clamp(1, self.ceiling_ms.max(1));
        let waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(first))
            .with_max_delay(Duration::from_millis(self.ceiling_ms.max(1)))
            .with_factor(2.0)
            .without_max_times()
            .build();
        // The ceiling is reached long before 32 doublings.
        let nth = attempt.clamp(1, 32) as usize - 1;
        let wait = waits.into_iter().nth(nth).unwrap_or(Duration::from_millis(self.ceiling_ms));
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4);
        let asked_ms = match failure {
            FailureKind::Throttled { after_ms: Some(after) } => {
                after.clamp(0, i64::try_from(self.throttle_ceiling_ms).unwrap_or(i64::MAX / 4))
            }
            _ => 0,
        };
        // What a provider asked for is spread too: it asked everybody for the same.
        let wait_ms = wait_ms.max(asked_ms.min(i64::MAX / 4));
        wait_ms + (wait_ms as f64 * 0.25 * spread.clamp(0.0, 1.0)) as i64
    }
}

/// A fixed number in 0..1 for an id: the spread of its retries.
pub fn spread_of(id: uuid::Uuid) -> f64 {
    let [.., a, b] = *id.as_bytes();
    f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)
}
