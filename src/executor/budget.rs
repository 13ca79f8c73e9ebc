//! Says to the journal that this process lives and what it calls, and applies what it may use of each system, and of each
//! quota that a provider has for some of its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Parts;
use super::calls::Calls;
use crate::journal::{Error, Served, Worker};
use crate::limit::{self, Budget};
use crate::pace::Quota;

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// How long a word holds: a process that dies keeps its parts for so long.
const LEASE_MS: i64 = 6_000;

/// What is said, and where the answer goes.
pub(super) struct Announcer {
    calls: Arc<Calls>,
    /// All systems that this process may call, with what each bears.
    systems: Vec<(String, Budget)>,
    quotas: Vec<Shared>,
}

/// One quota, as the connectors of this process have it in their hands: each its part of ours.
struct Shared {
    name: String,
    whole: u32,
    hands: Vec<Arc<Quota>>,
}

impl Shared {
    fn all(parts: &Parts) -> Vec<Self> {
        let mut all: BTreeMap<String, Self> = BTreeMap::new();
        for quota in parts.registry.all().flat_map(|connector| connector.quotas()) {
            let (name, whole) = (quota.name().to_owned(), quota.whole());
            let one = all.entry(name.clone()).or_insert_with(|| Self { name, whole, hands: Vec::new() });
            one.whole = one.whole.min(whole);
            if !one.hands.iter().any(|known| Arc::ptr_eq(known, &quota)) {
                quota.begin();
                one.hands.push(quota);
            }
        }
        all.into_values().collect()
    }

    /// No calls are counted that are under way.
    fn budget(per_second: u32) -> Budget {
        Budget { calls: 0, per_second: Some(per_second) }
    }

    fn used(&self) -> Budget {
        Self::budget(self.hands.iter().map(|quota| quota.allowed()).sum())
    }

    fn allow(&self, per_second: u32) {
        let of = u32::try_from(self.hands.len()).unwrap_or(u32::MAX);
        for (before, quota) in (0..).zip(&self.hands) {
            quota.allow(limit::fair(per_second, limit::Place { before, of }));
        }
    }
}

impl Announcer {
    pub(super) fn new(parts: &Parts, calls: Arc<Calls>) -> Self {
        let settings = &parts.settings;
        let most = u32::try_from(settings.calls_per_system).unwrap_or(u32::MAX).max(1);
        let mut systems: Vec<String> = parts.registry.all().map(|c| c.system().to_owned()).collect();
        systems.sort_unstable();
        systems.dedup();
        let whole = |system: &String| settings.budgets.get(system).copied();
        let systems = systems.into_iter().map(|system| {
            let budget = whole(&system).unwrap_or(Budget { calls: most, per_second: None });
            (system, budget)
        });
        let systems: Vec<_> = systems.collect();
        systems.iter().for_each(|(system, _)| calls.begin(system));
        Self { calls, systems, quotas: Shared::all(parts) }
    }

    /// Says it once.
    ///
    /// # Errors
    /// As [`crate::journal::Journal::announce`].
    pub(super) async fn say(&self, parts: &Parts) -> Result<(), Error> {
        let calls = self.systems.iter().map(|(name, whole)| (name.clone(), *whole, self.calls.budget(name)));
        let quotas = self.quotas.iter().map(|one| (one.name.clone(), Shared::budget(one.whole), one.used()));
        let calls = calls.chain(quotas).collect();
        let worker = Worker { id: parts.worker, serves: Some(self.served(parts)), calls };
        let answer = parts.journal.announce(worker, LEASE_MS).await?;
        let less = |a: Option<u32>, b: Option<u32>| a.zip(b).map(|(a, b)| a.min(b));
        for (one, part) in self.quotas.iter().zip(answer.iter().skip(self.systems.len())) {
            one.allow(less(part.granted.per_second, part.fair.per_second).unwrap_or(0));
        }
        for ((system, _), part) in self.systems.iter().zip(answer) {
            self.calls.allow(
                system,
                Budget {
                    calls: part.granted.calls.min(part.fair.calls),
                    per_second: less(part.granted.per_second, part.fair.per_second),
                },
            );
        }
        Ok(())
    }

    fn served(&self, parts: &Parts) -> Served {
        let all = || Served { systems: self.systems.iter().map(|(name, _)| name.clone()).collect(), actions: None };
        parts.settings.served.clone().unwrap_or_else(all)
    }

    /// Goes on saying it until `until`. When the journal does not take it in time, nothing is called any more.
    pub(super) async fn run(self, parts: Parts, first: Result<(), Error>, until: CancellationToken) {
        let now_ms = || parts.clock.monotonic_ms();
        let mut good_until_ms = if first.is_ok() { now_ms() + LEASE_MS } else { now_ms() };
        loop {
            tokio::select! { () = until.cancelled() => break, () = tokio::time::sleep(EVERY) => {} }
            let asked_ms = now_ms();
            match self.say(&parts).await {
                Ok(()) => good_until_ms = asked_ms + LEASE_MS,
                Err(error) => {
                    warn!(%error, "this process is not known to be alive");
                    if now_ms() >= good_until_ms {
                        self.systems.iter().for_each(|(system, _)| self.calls.allow(system, Budget::NONE));
                        self.quotas.iter().for_each(|one| one.allow(0));
                    }
                }
            }
        }
        if let Err(error) = parts.journal.leave(parts.worker).await {
            warn!(%error, "what this process used of its systems is free when its lease ends");
        }
    }
}

/// Of what is served, the systems that may be called now: a case is not claimed to wait for a part of nothing.
pub(super) fn usable(served: &Served, calls: &Calls) -> Served {
    let systems = served.systems.iter().filter(|system| !calls.budget(system).is_none()).cloned().collect();
    Served { systems, actions: served.actions.clone() }
}
