//! What all roles of a process share, and what keeps them running.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use curfew::clock;
use curfew::config::Config;
use curfew::deadlines::ClockTrust;
use curfew::intake::Intake;
use curfew::reach::kept::Kept;
use curfew::relay::Backlog;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How long a leader leads before it must say so again.
const LEAD_MS: i64 = 10_000;

/// One process: what its roles work with.
#[derive(Clone)]
pub struct Process {
    /// Made at each start.
    pub worker: Uuid,
    pub config: Arc<Config>,
    /// The journal, and the way in.
    pub intake: Intake,
    /// Who reaches what, for whoever asks.
    pub reach: Arc<Kept>,
    pub clock: clock::Shared,
    pub trust: Arc<ClockTrust>,
    /// Rows of the outbox that wait.
    pub backlog: Arc<Backlog>,
    /// Rung when the outbox may have grown.
    pub outbox: Arc<Notify>,
    /// Whether all roles have started.
    pub started: Arc<AtomicBool>,
    pub tasks: Tasks,
}

impl Process {
    /// Runs what only one process may do, while this one is the one. `make` is called anew for each term.
    pub fn lead<F, R>(&self, what: &'static str, make: F)
    where
        F: Fn(CancellationToken) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.lead_one(what, "", make);
    }

    /// As [`Self::lead`], for one of several things of that kind.
    pub fn lead_one<F, R>(&self, what: &'static str, which: &str, make: F)
    where
        F: Fn(CancellationToken) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let process = self.clone();
        let cancel = self.tasks.cancel.clone();
        let name = format!("{what} {which}").trim_end().to_owned();
        self.tasks.spawn(what, async move {
            while !cancel.is_cancelled() {
                let asked_ms = process.clock.monotonic_ms();
                if process.leads(&name).await {
                    process.term(&name, asked_ms, &make).await;
                } else {
                    pause(&cancel, LEAD_MS / 2).await;
                }
            }
        });
    }

    /// One term: until another leads, the journal does not answer in time, or the process ends.
    async fn term<F, R>(&self, what: &str, asked_ms: i64, make: &F)
    where
        F: Fn(CancellationToken) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        tracing::debug!(what, "this process leads");
        let term = self.tasks.cancel.child_token();
        let mut running = tokio::spawn(make(term.clone()));
        let mut until_ms = asked_ms + LEAD_MS;
        loop {
            tokio::select! {
                ended = &mut running => {
                    if ended.is_err() || !term.is_cancelled() {
                        self.tasks.fail(format!("{what} ended by itself"));
                    }
                    return;
                }
                () = pause(&term, LEAD_MS / 3) => {}
            }
            if term.is_cancelled() {
                break;
            }
            let asked_ms = self.clock.monotonic_ms();
            if self.leads(what).await {
                until_ms = asked_ms + LEAD_MS;
            } else if self.clock.monotonic_ms() >= until_ms {
                tracing::warn!(what, "another process leads, or the journal does not answer");
                term.cancel();
                break;
            }
        }
        if running.await.is_err() {
            self.tasks.fail(format!("{what} died of a bug"));
        }
    }

    /// Whether this process is the one that does `what`, or is from now on.
    pub async fn leads(&self, what: &str) -> bool {
        match self.intake.journal.lead(what, self.worker, LEAD_MS).await {
            Ok(leads) => leads,
            Err(error) => {
                tracing::warn!(%error, what, "who leads is not known");
                false
            }
        }
    }
}

async fn pause(cancel: &CancellationToken, ms: i64) {
    let wait = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    tokio::select! { () = cancel.cancelled() => {} () = tokio::time::sleep(wait) => {} }
}

/// What runs, by name. One that fails ends all: a half-working process is worse than one that is started again.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    pub cancel: CancellationToken,
    running: Arc<Mutex<BTreeSet<&'static str>>>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    pub fn spawn_fallible<E: std::fmt::Display + Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        let (all, task) = (self.clone(), tokio::spawn(task));
        self.tracker.spawn(async move {
            let why = match task.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{name}: {error}")),
                Err(_) => Some(format!("{name} died of a bug")),
            };
            all.running.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            let early = !all.cancel.is_cancelled();
            match why.or_else(|| early.then(|| format!("{name} ended by itself"))) {
                Some(why) => all.fail(why),
                None => all.cancel.cancel(),
            }
        });
    }

    /// Ends all, and says why: the first reason counts.
    pub fn fail(&self, why: String) {
        tracing::error!(why, "a part failed: ending");
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.cancel.cancel();
    }

    /// Cancels, and waits for at most `grace_ms`: what is left is recovered at the next start.
    pub async fn end(&self, grace_ms: i64) {
        self.cancel.cancel();
        self.tracker.close();
        let grace = Duration::from_millis(u64::try_from(grace_ms).unwrap_or(0));
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            let left: Vec<&str> = self.running.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
            tracing::warn!(left = left.join(", "), "the grace is over; the journal knows where to go on");
        }
    }

    pub fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
