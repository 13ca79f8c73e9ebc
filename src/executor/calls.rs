//! Calls under way at each system. More cases are at work than calls: the others wait for the journal meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places for calls at all systems of a process.
#[derive(Debug)]
pub(super) struct Calls {
    most: usize,
    systems: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Calls {
    /// At most `most` calls at once at any system.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), systems: Mutex::default() }
    }

    /// Waits for a place, in order of arrival. It is free again when the permit is dropped.
    pub(super) async fn place(&self, system: &str) -> Option<OwnedSemaphorePermit> {
        let places = {
            let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
            match systems.get(system) {
                Some(places) => places.clone(),
                None => systems.entry(system.to_owned()).or_insert(Arc::new(Semaphore::new(self.most))).clone(),
            }
        };
        // Never closed.
        places.acquire_owned().await.ok()
    }
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
}
