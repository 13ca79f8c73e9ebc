//! One walk on a lane at a time, also where a claim was taken away: a call that is under way knows nothing of that, and what comes
//! after it looks only when it has come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

type Lane = tokio::sync::Mutex<()>;

/// So many lanes are kept before those are forgotten on which nobody is.
const CROWD: usize = 4_096;

/// The lanes on which this process is at work.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<String, Weak<Lane>>>);

impl Lanes {
    /// Waits until nobody is on this lane; it is taken for as long as what is returned lives.
    pub(super) async fn enter(&self, lane: &str) -> OwnedMutexGuard<()> {
        let lane = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.len() >= CROWD {
                lanes.retain(|_, lane| lane.strong_count() > 0);
            }
            let known = lanes.get(lane).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let new = Arc::new(Lane::default());
                lanes.insert(lane.to_owned(), Arc::downgrade(&new));
                new
            })
        };
        lane.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_comes_second_waits_and_others_do_not() {
        let lanes = Lanes::default();
        let first = lanes.enter("a").await;
        let mut second = Box::pin(lanes.enter("a"));
        assert!(second.as_mut().now_or_never().is_none());
        drop(lanes.enter("b").now_or_never().expect("another lane is free"));
        drop(first);
        drop(second.await);
        for no in 0..3 * CROWD {
            drop(lanes.enter(&no.to_string()).await);
        }
        assert!(lanes.0.lock().unwrap().len() <= CROWD);
    }
}
