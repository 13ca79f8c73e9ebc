//! Calls at each system: how many are under way, how many start in a second.
//!
//! More cases are at work than calls are under way: the others wait for the journal meanwhile. What this process may use
//! of a system's budget is its part ([`crate::limit`]), renewed while it lives.
//!
//! A call has its [`turn`](Calls::turn) first, before what must be durable before it is written: no more is recorded as
//! started than can start. What waited for one commit then comes together, so that the limit is kept a second time, at
//! the call itself ([`place`](Calls::place)).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limit::Budget;
use crate::pace::Pace;

/// A case that waited this long for a call gives its place at work to others: they may be more urgent.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this process may do at one system.
#[derive(Debug, Clone)]
struct Place {
    budget: Budget,
    calls: Arc<Semaphore>,
    /// Of turns, and of starts. Absent: no limit, or nothing at all.
    pace: Option<Arc<[Pace; 2]>>,
}

impl Place {
    fn new(budget: Budget) -> Self {
        let mut place = Self { budget, calls: Arc::new(Semaphore::new(size(budget.calls))), pace: None };
        place.keep(budget.per_second);
        place
    }

    fn keep(&mut self, per_second: Option<u32>) {
        match (&self.pace, per_second.filter(|rate| *rate > 0)) {
            (Some(pace), Some(rate)) => pace.iter().for_each(|pace| pace.change(rate)),
            (_, rate) => self.pace = rate.map(|rate| Arc::new([Pace::new(rate), Pace::new(rate)])),
        }
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
        place.keep(budget.per_second);
        place.budget = budget;
    }

    /// What `system` may be used for now: what was allowed last.
    pub(super) fn budget(&self, system: &str) -> Budget {
        self.systems.lock().unwrap_or_else(PoisonError::into_inner).get(system).map_or(self.most, |place| place.budget)
    }

    /// Waits until another call may be prepared. False: not within [`PATIENCE`].
    pub(super) async fn turn(&self, system: &str) -> bool {
        let place = self.at(system);
        if place.budget.is_none() {
            return false;
        }
        let Some(pace) = place.pace else { return true };
        tokio::time::timeout(PATIENCE, pace[0].pass()).await.is_ok()
    }

    /// Waits for a place, in order of arrival, and until the call may start; it must do so at once. The place is free
    /// again when the permit is dropped. `None`: not within [`PATIENCE`].
    pub(super) async fn place(&self, system: &str) -> Option<OwnedSemaphorePermit> {
        let place = self.at(system);
        let start = async {
            let taken = place.calls.acquire_owned().await.ok()?;
            if let Some(pace) = place.pace {
                pace[1].pass().await;
            }
            Some(taken)
        };
        tokio::time::timeout(PATIENCE, start).await.ok()?
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
        calls.allow("a", Budget { calls: 2, per_second: Some(30) });
        assert!(calls.turn("a").now_or_never().is_some());
        assert!(calls.turn("a").now_or_never().is_none());
    }

    /// What had its turns one after the other waited for one commit, and would start together.
    #[tokio::test]
    async fn calls_that_come_together_start_evenly() {
        let calls = Calls::new(20);
        calls.allow("a", Budget { calls: 20, per_second: Some(100) });
        let began = std::time::Instant::now();
        let starts = futures::future::join_all((0..20).map(|_| async {
            drop(calls.place("a").await);
            began.elapsed()
        }));
        let starts = starts.await;
        assert!(starts.iter().max() >= Some(&Duration::from_millis(180)), "{starts:?}");
    }

    #[tokio::test]
    async fn a_limit_comes_changes_and_goes() {
        let calls = Calls::new(2);
        for (per_second, at_once) in [(None, 2), (Some(10), 1), (Some(5), 0), (None, 2)] {
            calls.allow("a", Budget { calls: 2, per_second });
            let all = (0..2).filter(|_| calls.turn("a").now_or_never().is_some()).count();
            assert_eq!(all, at_once, "{per_second:?}");
        }
    }
}
