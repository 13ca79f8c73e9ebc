//! A breaker for each system: when several calls in a row find it unavailable, all its cases wait together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Failures in a row that open it.
const OPENS_AFTER: u32 = 3;
/// The first pause.
const FIRST_MS: i64 = 250;
/// The longest pause: how late a system's return is noticed at worst.
const CEILING_MS: i64 = 5_000;

/// All breakers of a process. Memory only: after a restart the first calls find out again.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    failures: Mutex<HashMap<String, u32>>,
}

impl Breakers {
    /// The system answered.
    pub(super) fn answered(&self, system: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(system);
    }

    /// The system was unavailable: for how long to leave it alone, if it is time for that.
    pub(super) fn unavailable(&self, system: &str) -> Option<i64> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(system.to_owned()).or_default();
        *count += 1;
        let over = count.checked_sub(OPENS_AFTER)?;
        Some(FIRST_MS.saturating_mul(1 << (over / 2).min(8)).min(CEILING_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_only_for_that_system() {
        let breakers = Breakers::default();
        assert_eq!(breakers.unavailable("a"), None);
        assert_eq!(breakers.unavailable("a"), None);
        assert_eq!(breakers.unavailable("b"), None);
        assert_eq!(breakers.unavailable("a"), Some(FIRST_MS));
        for _ in 0..40 {
            breakers.unavailable("a");
        }
        assert_eq!(breakers.unavailable("a"), Some(CEILING_MS));
        breakers.answered("a");
        assert_eq!(breakers.unavailable("a"), None);
    }
}
