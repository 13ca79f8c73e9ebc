//! What cannot get on waits: it neither hammers whom it asks, nor writes on and on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use curfew::case::record::FailureKind;
use tokio_util::sync::CancellationToken;

use super::*;

/// Our own access: while it is denied, every call says so.
#[derive(Clone, Default)]
struct Access {
    denied: Arc<AtomicBool>,
}

impl Access {
    fn ask(&self) -> Result<(), Failure> {
        if self.denied.load(Ordering::SeqCst) {
            return Err(Failure::new(FailureKind::Denied, "scripted: our own access"));
        }
        Ok(())
    }
}

#[async_trait]
impl Between for Access {
    async fn observe(&self, inner: &dyn Connector, subject: &Subject) -> Result<Observation, Failure> {
        self.ask()?;
        inner.observe(subject).await
    }

    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        self.ask()?;
        inner.perform(act, subject).await
    }

    async fn self_check(&self, inner: &dyn Connector) -> Result<(), Failure> {
        self.ask()?;
        inner.self_check().await
    }
}

over_both! {
    a_denied_login_is_asked_every_few_seconds_and_writes_as_little,
    while_records_are_refused_it_pauses_nothing_is_cut_and_then_it_goes_on,
}

async fn a_denied_login_is_asked_every_few_seconds_and_writes_as_little(store: Store) {
    const MINUTE_MS: i64 = 60_000;
    let admin = Admin::shared();
    let access = Access::default();
    let registry = access.before(&connectors(&admin, "", false).await);
    let scene = Scene::with(store, admin, &registry, Arc::new(|_| ())).await;
    let clock = Simulated::at(now_ms());
    let executor = scene.stage.executor_at(scene.journal.clone(), &clock);
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let (id, _) = scene.token(json!({})).await;
        scene.ends(&new_run(), &id).await;
        tokens.push(id);
    }
    access.denied.store(true, Ordering::SeqCst);
    for _ in 0..MINUTE_MS / 100 {
        executor.drain().await.unwrap();
        clock.advance_ms(100);
    }
    for id in &tokens {
        let failed = |record: &Record| matches!(record, Record::Failed { failure: FailureKind::Denied, .. });
        let records = scene.records(id).await;
        let denied = records.iter().filter(|record| failed(record)).count();
        // Every 5 s at most, and not given up.
        assert!((2..=13).contains(&denied), "{denied} times in a minute");
        assert!(records.len() <= 2 + 2 * denied, "{records:#?}");
        assert_eq!(scene.line(id).await.case.state.attempts, 0, "it burns no attempt");
    }
    let rows = scene.journal.outbox(0, 10_000).await.unwrap().len();
    assert!(rows <= 3 * 13, "{rows} messages in a minute");
    assert_eq!(scene.effects(), 0);

    access.denied.store(false, Ordering::SeqCst);
    until("all to be dead", || async {
        clock.advance_ms(1_000);
        executor.drain().await.unwrap();
        for id in &tokens {
            if !is_dead(&scene.line(id).await.verdict, KilledBy::Curfew) {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert_eq!(scene.effects(), 3);
}

/// When each look began.
#[derive(Clone, Default)]
struct Looks(Arc<Mutex<Vec<Instant>>>);

#[async_trait]
impl Between for Looks {
    async fn observe(&self, inner: &dyn Connector, subject: &Subject) -> Result<Observation, Failure> {
        self.0.lock().unwrap().push(Instant::now());
        inner.observe(subject).await
    }
}

/// A trigger refuses the records of a case, and nothing else: claims are made as ever.
async fn while_records_are_refused_it_pauses_nothing_is_cut_and_then_it_goes_on(store: Store) {
    let admin = Admin::shared();
    let looks = Looks::default();
    let registry = looks.before(&connectors(&admin, "", false).await);
    let scene = Scene::with(store, admin, &registry, Arc::new(|_| ())).await;
    let (id, token) = scene.token(json!({})).await;
    scene.ends(&new_run(), &id).await;
    let before = scene.records(&id).await;
    scene.stage.store.refuse_records().await;

    let cancel = CancellationToken::new();
    let running = tokio::spawn(scene.stage.executor(scene.journal.clone()).run(cancel.clone()));
    until("five attempts", || async { (looks.0.lock().unwrap().len() >= 5).then_some(()) }).await;
    // It pauses for a second, but for one round of claims that may be under way; no machine is too slow for a pause to be
    // no shorter than it is.
    let times = looks.0.lock().unwrap().clone();
    for three in times.windows(3) {
        assert!(three[2] - three[0] >= Duration::from_secs(1), "three looks in {:?}", three[2] - three[0]);
    }
    assert_eq!(scene.effects(), 0);
    assert_eq!(scene.records(&id).await, before, "nothing was recorded");
    assert!(scene.admin.token_works(&token).await);

    scene.stage.store.accept_records().await;
    until("its death", || async { is_dead(&scene.line(&id).await.verdict, KilledBy::Curfew).then_some(()) }).await;
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(scene.effects(), 1);
    assert!(!scene.admin.token_works(&token).await);
}
