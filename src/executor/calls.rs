//! Calls at each system: how many are under way, how many start in a second.
//!
//! More cases are at work than calls are under way: the others wait for the journal meanwhile. What this process may use
//! of a system's budget is its part ([`crate::limit`]), renewed while it lives.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limit::Budget;

/// A case that waited this long for a call gives its place at work to others: they may be more urgent.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this process may do at one system.
#[derive(Debug, Clone)]
struct Place {
    budget: Budget,
    calls: Arc<Semaphore>,
    /// Absent: no limit, or nothing at all.
    pace: Option<Arc<DefaultDirectRateLimiter>>,
}

impl Place {
    fn new(budget: Budget) -> Self {
        Self { budget, calls: Arc::new(Semaphore::new(size(budget.calls))), pace: pace(budget.per_second) }
    }
}

/// The places for calls at all systems of a process.
#[derive(Debug)]
pub(super) struct Calls {
    /// Of a system that nothing was said about.
    most: Budget,
    systems: Mutex<HashMap<String, Place>>,
}

impl Calls {
    /// At any system that nothing else is said about, at most `calls` at once.
    pub(super) fn new(calls: usize) -> Self {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX).max(1);
        Self { most: Budget { calls, per_second: None }, systems: Mutex::default() }
    }

    /// Nothing may be called at `system` before something is allowed.
    pub(super) fn begin(&self, system: &str) {
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        systems.entry(system.to_owned()).or_insert_with(|| Place::new(Budget::NONE));
    }

    /// From now on `system` may be used so. Fewer calls than before: those under way end first.
    pub(super) fn allow(&self, system: &str, budget: Budget) {
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = systems.get_mut(system) else {
            systems.insert(system.to_owned(), Place::new(budget));
            return;
        };
        let (before, now) = (size(place.budget.calls), size(budget.calls));
        if now > before {
            place.calls.add_permits(now - before);
        }
        if now < before {
            // In the queue like a call: what is under way goes on, what comes later waits.
            let (calls, fewer) = (place.calls.clone(), u32::try_from(before - now).unwrap_or(u32::MAX));
            tokio::spawn(async move {
                if let Ok(taken) = calls.acquire_many_owned(fewer).await {
                    taken.forget();
                }
            });
        }
        if place.budget.per_second != budget.per_second {
            place.pace = pace(budget.per_second);
        }
        place.budget = budget;
    }

    /// What `system` may be used for now: what was allowed last.
    pub(super) fn budget(&self, system: &str) -> Budget {
        self.systems.lock().unwrap_or_else(PoisonError::into_inner).get(system).map_or(self.most, |place| place.budget)
    }

    /// Waits until another call may start. False: not within [`PATIENCE`].
    pub(super) async fn turn(&self, system: &str) -> bool {
        let place = self.at(system);
        if place.budget.is_none() {
            return false;
        }
        let Some(pace) = place.pace else { return true };
        tokio::time::timeout(PATIENCE, pace.until_ready()).await.is_ok()
    }

    /// Waits for a place, in order of arrival; it is free again when the permit is dropped. `None`: not within
    /// [`PATIENCE`].
    pub(super) async fn place(&self, system: &str) -> Option<OwnedSemaphorePermit> {
        let place = self.at(system);
        tokio::time::timeout(PATIENCE, place.calls.acquire_owned()).await.ok()?.ok()
    }

    fn at(&self, system: &str) -> Place {
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        match systems.get(system) {
            Some(place) => place.clone(),
            None => systems.entry(system.to_owned()).or_insert_with(|| Place::new(self.most)).clone(),
        }
    }
}

fn size(calls: u32) -> usize {
    usize::try_from(calls).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)
}

/// Evenly spaced, 5 % below the limit, of which the burst takes one back: a call reaches the provider a little after its
/// turn, an effect only after its commit, and those that waited for one commit come together.
fn pace(per_second: Option<u32>) -> Option<Arc<DefaultDirectRateLimiter>> {
    let rate = per_second.filter(|rate| *rate > 0)?;
    let apart = Duration::from_secs_f64(1.0 / (f64::from(rate) * 0.95));
    let burst = NonZeroU32::new(rate / 100).unwrap_or(NonZeroU32::MIN);
    Some(Arc::new(RateLimiter::direct(Quota::with_period(apart)?.allow_burst(burst))))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_full_system_lets_nobody_in_and_others_are_free() {
        let calls = Calls::new(2);
        let (first, second) = (calls.place("a").await, calls.place("a").await);
        assert!(first.is_some() && second.is_some());
        assert!(calls.place("a").now_or_never().is_none());
        assert!(calls.place("b").now_or_never().is_some());
        drop(first);
        assert!(calls.place("a").now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_smaller_part_counts_as_soon_as_calls_end() {
        let calls = Calls::new(2);
        calls.allow("a", Budget { calls: 2, per_second: None });
        let (first, second) = (calls.place("a").await, calls.place("a").await);
        calls.allow("a", Budget { calls: 1, per_second: None });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(calls.place("a").now_or_never().is_none());
        drop(second);
        assert!(calls.place("a").now_or_never().is_some_and(|place| place.is_some()));
    }

    #[tokio::test]
    async fn nothing_starts_where_nothing_is_allowed() {
        let calls = Calls::new(2);
        calls.allow("a", Budget::NONE);
        assert!(!calls.turn("a").await);
        assert!(calls.turn("b").await);
    }

    #[tokio::test]
    async fn turns_come_evenly() {
        let calls = Calls::new(2);
        calls.allow("a", Budget { calls: 2, per_second: Some(100) });
        assert!(calls.turn("a").now_or_never().is_some());
        assert!(calls.turn("a").now_or_never().is_none());
    }
}
