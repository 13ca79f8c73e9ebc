//! A plan that is put through everything: killed at every append (before and after it is durable), each call failed in each
//! way, each effect repeated, each reply cut. Whatever it is, it must come to its one end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use curfew::case::record::FailureKind;
use curfew::connector::Registry;
use curfew::credential::CredentialId;
use curfew::journal::{CaseLine, Journal};
use futures::StreamExt as _;

use crate::stage::{Broken, Death, Dying, Fault, Stage, case_of};
use crate::store::Store;
use crate::world::until;

/// Runs of one suite side by side: they wait more than they work.
const AT_ONCE: usize = 4;

/// What is put through it. Each run has a fresh one.
pub trait Trial {
    fn credential(&self) -> &CredentialId;

    fn registry(&self) -> Registry;

    async fn open_case(&self, journal: &dyn Journal);

    /// Between a death and the next process: what must hold at every instant. The connectors of that process.
    async fn died(&self, what: &str) -> Registry;

    /// Whether it has come to its end.
    fn is_over(&self, line: &CaseLine) -> bool {
        line.closed_ms.is_some()
    }

    /// What must hold in the end. `forgot`: the process that finished is not the one that began.
    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, forgot: bool, what: &str);
}

/// A run that dies, then a fresh process that finishes. Returns whether the death took place.
async fn killed_and_resumed(store: Store, trial: &impl Trial, death: Death) -> bool {
    let what = format!("{} killed {death:?}", trial.credential());
    let mut stage = Stage::new(store, trial.registry());
    let died = {
        let journal = stage.open().await;
        trial.open_case(journal.as_ref()).await;
        let dying = Dying::new(journal.clone(), death);
        let executor = stage.executor(dying.clone());
        until("the death or the end", || async {
            let drained = executor.drain().await;
            let over = case_of(journal.as_ref(), trial.credential()).await.is_some_and(|line| trial.is_over(&line));
            (dying.died() || drained.is_err() || over).then_some(())
        })
        .await;
        dying.died()
    };
    stage.registry = Arc::new(trial.died(&what).await);
    stage.store.leases_end().await;
    let journal = stage.open().await;
    let line = stage.run_until(&journal, trial.credential(), |line| trial.is_over(line)).await;
    trial.assert_over(&journal, &line, true, &what).await;
    died
}

/// A run with a fault. Returns how many calls there were.
async fn broken_and_finished(store: Store, trial: &impl Trial, fault: Fault) -> usize {
    let what = format!("{} with {fault:?}", trial.credential());
    let (registry, calls) = Broken::all(&trial.registry(), fault);
    let stage = Stage::new(store, registry);
    let journal = stage.open().await;
    trial.open_case(journal.as_ref()).await;
    let line = stage.run_until(&journal, trial.credential(), |line| trial.is_over(line)).await;
    trial.assert_over(&journal, &line, false, &what).await;
    calls.load(Ordering::SeqCst)
}

/// Runs that die at each append, until one ends before its death: at least `least` appends.
pub async fn every_kill<T: Trial>(store: &Store, least: usize, fresh: impl AsyncFn() -> T) {
    let both = [Death::Before as fn(usize) -> Death, Death::After].map(async |make| {
        let mut at = 0;
        while killed_and_resumed(store.fresh(), &fresh().await, make(at)).await {
            at += 1;
        }
        assert!(at >= least, "there are several appends, killed at {at}");
    });
    futures::future::join_all(both).await;
}

/// Runs with each fault at each call: at least `least` calls.
pub async fn every_fault<T: Trial>(store: &Store, least: usize, fresh: impl AsyncFn() -> T) {
    let run = async |fault| broken_and_finished(store.fresh(), &fresh().await, fault).await;
    let calls = run(Fault::Twice).await;
    assert!(calls >= least, "looks and acts: {calls} calls");
    let each = |nth| {
        let fails = |kind| Fault::Fails(nth, kind);
        [fails(FailureKind::Unavailable), fails(FailureKind::Unknown), Fault::ReplyCut(nth)]
    };
    let runs = futures::stream::iter((0..calls).flat_map(each)).map(run);
    runs.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}
