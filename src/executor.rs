//! Claims due cases and walks their plans. It decides nothing: [`State::todo`](crate::case::state::State::todo) says what
//! comes next, [`guard`](crate::guard) whether it may be, [`probe`](crate::probe) what it proved, [`retry`](crate::retry)
//! when to come back.
//!
//! A claim is worked on in `executor/work.rs`: records pile up in memory and become durable together, at the latest before an
//! effect starts (`Started` first), when the case waits, or when it closes. Whatever a crash loses of them is only
//! looking, which is repeated. There is no recovery path: a restarted process claims what is due and goes on.

mod breaker;
mod budget;
mod calls;
mod lanes;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::clock;
use crate::connector::Registry;
use crate::guard::{Authority, Freeze};
use crate::journal::{Error, Journal, Served, Want};
use crate::limit::Budget;
use crate::metrics::Metrics;
use crate::reach::kept::TaskLives;
use crate::reach::lives::Terms;
use crate::retry::Schedule;

/// What must be left of a claim beside the call's time-out when an effect starts.
const MARGIN_MS: i64 = 2_000;

/// The shortest claim that is of use where the slowest call may take `slowest_ms`: the effect's margin, and room for
/// what comes before it. A shorter one would come back for ever.
pub const fn least_claim_ms(slowest_ms: i64) -> i64 {
    slowest_ms.saturating_add(3 * MARGIN_MS)
}

/// With so many cases at work, those that are due wait [`REFILL`] for more to claim: a claim of many costs little more
/// than a claim of one. With fewer nobody waits.
const CROWD: usize = 16;
/// The pause between claims in a crowd.
const REFILL: Duration = Duration::from_millis(10);
/// How long nothing is claimed after the journal refused what was done.
const UNWRITABLE: Duration = Duration::from_secs(1);

/// How the executor works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Cases worked on at once; most of them wait for the journal or for a place to call. As many systems as fit into it,
    /// each with its [`per_system`](Self::per_system), may hang before they hold all places.
    pub concurrency: usize,
    /// Of them, at most for one system: one that hangs must not fill all places.
    pub per_system: usize,
    /// Calls under way at one system that `budgets` does not name.
    pub calls_per_system: usize,
    /// What each system bears, from all processes together.
    pub budgets: BTreeMap<String, Budget>,
    /// The cases that this process works on; `None`: all.
    pub served: Option<Served>,
    /// How long a claim lasts; raised to [`least_claim_ms`].
    pub claim_lease_ms: i64,
    /// How often to look for due cases when nothing rings.
    pub idle_ms: u64,
    /// When the guard is asked again about a held case.
    pub recheck_ms: i64,
    /// Effects per minute, over all systems; beyond it cases are held, not dropped.
    pub effects_per_minute: Option<u32>,
    /// When to try again.
    pub retry: Schedule,
    /// What each topic's producers may ask for.
    pub authority: BTreeMap<String, Authority>,
    /// URNs that are never touched.
    pub protected: BTreeSet<String>,
    /// How the lives of tasks are measured, for what rests on them.
    pub terms: Terms,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 1_024,
            per_system: 64,
            calls_per_system: 16,
            budgets: BTreeMap::new(),
            served: None,
            claim_lease_ms: 60_000,
            idle_ms: 100,
            recheck_ms: 1_000,
            effects_per_minute: Some(600),
            retry: Schedule::default(),
            authority: BTreeMap::new(),
            protected: BTreeSet::new(),
            terms: Terms::default(),
        }
    }
}

/// Everything that working on a case needs.
#[derive(Clone)]
pub struct Parts {
    /// This process, among those that share the journal.
    pub worker: Uuid,
    /// Durable truth.
    pub journal: Arc<dyn Journal>,
    /// Connectors and realms.
    pub registry: Arc<Registry>,
    /// How to work.
    pub settings: Arc<Settings>,
    /// Time.
    pub clock: clock::Shared,
    /// Whether wall and monotonic clock agree.
    pub clock_trusted: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The freeze file beside the journal: read at each guard call, so that it works when all else hangs.
    pub freeze_file: Arc<dyn Fn() -> Option<Freeze> + Send + Sync>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Rung by intake when something may be due.
    pub stirred: Arc<Notify>,
    /// Rung when something was put into the outbox: the relay listens.
    pub outbox: Arc<Notify>,
}

/// Claims and works until it is told to stop.
pub struct Executor {
    parts: Parts,
    breakers: Arc<breaker::Breakers>,
    lives: Arc<TaskLives>,
    calls: Arc<calls::Calls>,
    lanes: Arc<lanes::Lanes>,
}

impl Executor {
    /// An executor of `parts`. A claim lasts at least as long as the slowest call may take: an effect that could never
    /// start would come back for ever.
    pub fn new(mut parts: Parts) -> Self {
        let slowest_ms = parts.registry.all().map(|c| c.call_timeout_ms()).max().unwrap_or(0);
        let least_ms = least_claim_ms(slowest_ms);
        if parts.settings.claim_lease_ms < least_ms {
            let settings = Settings { claim_lease_ms: least_ms, ..(*parts.settings).clone() };
            parts.settings = Arc::new(settings);
        }
        let calls = Arc::new(calls::Calls::new(parts.settings.calls_per_system));
        Self { parts, breakers: Arc::default(), lives: Arc::default(), calls, lanes: Arc::default() }
    }

    /// Works until `cancel`; then starts nothing new and returns when what was under way has reached a record boundary.
    pub async fn run(self, cancel: CancellationToken) {
        let tracker = TaskTracker::new();
        let announcing = CancellationToken::new();
        let announcer = budget::Announcer::new(&self.parts, self.calls.clone());
        let first = announcer.say(&self.parts).await;
        let (parts, until) = (self.parts.clone(), announcing.clone());
        let announced = tokio::spawn(async move { announcer.run(parts, first, until).await });
        let places = self.parts.settings.concurrency.max(1);
        let permits = Arc::new(Semaphore::new(places));
        let idle = Duration::from_millis(self.parts.settings.idle_ms);
        let refused = Arc::new(AtomicBool::new(false));
        while !cancel.is_cancelled() {
            if refused.swap(false, Ordering::Relaxed) {
                // The case is due again at once: without a pause a full disk would make us look for ever.
                let pause = tokio::time::sleep(UNWRITABLE);
                tokio::select! { () = cancel.cancelled() => {} () = pause => {} }
            }
            // One free place at least: a claim that nobody works on would only block its lane.
            let Ok(first) = permits.clone().acquire_owned().await else { break };
            if places - permits.available_permits() > CROWD {
                tokio::time::sleep(REFILL).await;
            }
            let mut held = vec![first];
            while let Ok(more) = permits.clone().try_acquire_owned() {
                held.push(more);
            }
            let claims = match self.claim(held.len()).await {
                Ok(claims) => claims,
                Err(error) => {
                    warn!(%error, "nothing can be claimed; no effect happens until the journal answers");
                    Vec::new()
                }
            };
            let none = claims.is_empty();
            for claim in claims {
                let Some(permit) = held.pop() else { break };
                let (parts, breakers, calls) = (self.parts.clone(), self.breakers.clone(), self.calls.clone());
                let lives = self.lives.clone();
                let (cancel, refused, lanes) = (cancel.clone(), refused.clone(), self.lanes.clone());
                tracker.spawn(async move {
                    let _alone = lanes.enter(&claim.case.lane).await;
                    if !work::work(&parts, &breakers, &calls, &lives, claim, &cancel).await {
                        refused.store(true, Ordering::Relaxed);
                    }
                    drop(permit);
                    // A freed place may have something waiting for it.
                    parts.stirred.notify_one();
                });
            }
            drop(held);
            if none {
                tokio::select! {
                    () = self.parts.stirred.notified() => {}
                    () = tokio::time::sleep(idle) => {}
                    () = cancel.cancelled() => {}
                }
            }
        }
        tracker.close();
        debug!(under_way = tracker.len(), "the executor starts nothing new");
        tracker.wait().await;
        announcing.cancel();
        if announced.await.is_err() {
            warn!("what this process may use of its systems is free only when its lease ends");
        }
    }

    /// Works on everything that is due now, once, and returns how many cases that were: for tests and benches.
    ///
    /// # Errors
    /// As [`Journal::claim`].
    pub async fn drain(&self) -> Result<usize, Error> {
        let cancel = CancellationToken::new();
        let mut worked = 0;
        budget::Announcer::new(&self.parts, self.calls.clone()).say(&self.parts).await?;
        loop {
            let claims = self.claim(self.parts.settings.concurrency).await?;
            if claims.is_empty() {
                return Ok(worked);
            }
            worked += claims.len();
            let works = claims.into_iter().map(async |claim| {
                let _alone = self.lanes.enter(&claim.case.lane).await;
                work::work(&self.parts, &self.breakers, &self.calls, &self.lives, claim, &cancel).await
            });
            futures::future::join_all(works).await;
        }
    }

    async fn claim(&self, max: usize) -> Result<Vec<crate::journal::Claim>, Error> {
        let settings = &self.parts.settings;
        let want = Want {
            max,
            max_per_system: settings.per_system,
            now_ms: self.parts.clock.wall_ms(),
            steady_ms: self.parts.clock.monotonic_ms(),
            lease_ms: settings.claim_lease_ms,
            only: settings.served.as_ref().map(|served| budget::usable(served, &self.calls)),
        };
        self.parts.journal.claim(want).await
    }
}
