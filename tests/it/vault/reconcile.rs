//! What no producer said, and what a registration's look-up shows.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use curfew::case::record::{Record, Verdict};
use curfew::case::{Case, CaseId, Trigger};
use curfew::clock::{self, Clock as _, Simulated};
use curfew::connector::Registry;
use curfew::connector::vault::Vault;
use curfew::deadlines::ClockTrust;
use curfew::event::{Data, Event, GrantSpec, Limits};
use curfew::guard::Freeze;
use curfew::intake::Intake;
use curfew::journal::{
    Append, Arrival, Batch, CaseLine, Claim, Cluster, Due, DueAt, Error, Fate, Filter, Journal, Known, Old, Outgoing,
    Overrun, Position, Recorded, Source, Stats, Tail, Timeline, Want, Watermark, Worker, shown,
};
use curfew::limit::Part;
use curfew::reconcile::{Reconcile, ReconcileSettings, Registrar};
use curfew::task::{Credential, Tenant, Tenure};

use uuid::Uuid;

use super::*;
use crate::stage::{ended, new_run, now_ms, record, started};
use crate::store::Store;

/// A journal that knows some credentials and keeps what it is told.
#[derive(Default)]
struct Knows {
    known: Vec<Credential>,
    watermark: Option<i64>,
    /// A case came between.
    killed: AtomicBool,
    events: Mutex<Vec<Event>>,
    saw: Mutex<Vec<(CredentialId, Observation, Option<i64>)>>,
}

#[async_trait::async_trait]
#[allow(clippy::unimplemented)]
impl Journal for Knows {
    fn healthy(&self) -> bool {
        true
    }
    fn reach(&self) -> &dyn curfew::reach::Facts {
        unimplemented!()
    }
    async fn record_batch(&self, batch: Batch) -> Result<Recorded, Error> {
        let mut events = self.events.lock().unwrap();
        let mut fates = Vec::new();
        for arrival in batch.arrivals {
            let Arrival::Event(event) = arrival else { unreachable!() };
            let again = events.iter().any(|e| e.natural_key() == event.natural_key());
            fates.push(if again { Fate::Duplicate } else { Fate::Accepted });
            if !again {
                events.push(*event);
            }
        }
        Ok(Recorded { fates, stirred: 0 })
    }
    async fn offboardings(&self, _: u32) -> Result<Vec<curfew::offboard::Offboarding>, Error> {
        unimplemented!()
    }
    async fn mind_offboardings(&self, _: Vec<curfew::offboard::Minded>) -> Result<u64, Error> {
        unimplemented!()
    }
    async fn fences(&self, _: i64, _: u32) -> Result<Vec<curfew::scope::Fence>, Error> {
        unimplemented!()
    }
    async fn lived(
        &self,
        _: Option<i64>,
        _: Option<curfew::journal::LivedAt>,
        _: u32,
    ) -> Result<curfew::journal::LivedPage, Error> {
        unimplemented!()
    }
    async fn watermark(&self) -> Result<Watermark, Error> {
        Ok(Watermark(self.watermark.map(|at_ms| ("t".to_owned(), at_ms)).into_iter().collect()))
    }
    async fn unseen(&self, _: Option<&str>, _: usize, _: i64) -> Result<Vec<Credential>, Error> {
        Ok(self.known.clone())
    }
    async fn saw(&self, _: &Tenant, id: &CredentialId, seen: Observation, again: Option<i64>) -> Result<(), Error> {
        self.saw.lock().unwrap().push((id.clone(), seen, again));
        Ok(())
    }
    async fn known(&self, _: &Tenant, ids: Vec<CredentialId>) -> Result<Vec<Known>, Error> {
        let known = |one: &Credential| Known {
            credential: one.clone(),
            live: true,
            over_ms: None,
            open: false,
            looks: self.killed.load(Ordering::SeqCst),
        };
        Ok(self.known.iter().filter(|one| ids.contains(&one.id)).map(known).collect())
    }
    async fn position(&self, _: &str, _: &str, _: i32) -> Result<Option<Position>, Error> {
        unimplemented!()
    }
    async fn caught_up(&self, _: &str, _: &str, _: i32, _: i64) -> Result<(), Error> {
        unimplemented!()
    }
    async fn set_position(&self, _: Position) -> Result<(), Error> {
        unimplemented!()
    }
    async fn clusters(&self) -> Result<Vec<Cluster>, Error> {
        unimplemented!()
    }
    async fn forget_cluster(&self, _: &str) -> Result<u64, Error> {
        unimplemented!()
    }
    async fn claim(&self, _: Want) -> Result<Vec<Claim>, Error> {
        unimplemented!()
    }
    async fn append(&self, _: Append) -> Result<Case, Error> {
        unimplemented!()
    }
    async fn unclaim(&self, _: CaseId, _: i64, _: i64) -> Result<(), Error> {
        unimplemented!()
    }
    async fn block(&self, _: &str, _: i64, _: &str) -> Result<(), Error> {
        unimplemented!()
    }
    async fn announce(&self, _: Worker, _: i64) -> Result<Vec<Part>, Error> {
        unimplemented!()
    }
    async fn leave(&self, _: Uuid) -> Result<(), Error> {
        unimplemented!()
    }
    async fn lead(&self, _: &str, _: Uuid, _: i64) -> Result<bool, Error> {
        unimplemented!()
    }
    async fn due(&self, _: i64, _: u32, _: Option<DueAt>, _: usize) -> Result<Vec<Due>, Error> {
        unimplemented!()
    }
    async fn sources(&self) -> Result<Vec<Source>, Error> {
        unimplemented!()
    }
    async fn freeze(&self, _: Freeze, _: &str, _: &str) -> Result<(), Error> {
        unimplemented!()
    }
    async fn release(&self, _: &str) -> Result<(), Error> {
        unimplemented!()
    }
    async fn frozen(&self) -> Result<Option<Freeze>, Error> {
        unimplemented!()
    }
    async fn hold_start(&self, _: &str) -> Result<(), Error> {
        unimplemented!()
    }
    async fn started_held(&self) -> Result<Option<String>, Error> {
        unimplemented!()
    }
    async fn command(&self, _: CaseId, _: Option<Record>, _: i64) -> Result<Case, Error> {
        unimplemented!()
    }
    async fn outbox(&self, _: i64, _: usize) -> Result<Vec<Outgoing>, Error> {
        unimplemented!()
    }
    async fn sent(&self, _: i64) -> Result<(), Error> {
        unimplemented!()
    }
    async fn tail(&self) -> Result<Tail, Error> {
        unimplemented!()
    }
    async fn cases(&self, _: Filter) -> Result<Vec<CaseLine>, Error> {
        unimplemented!()
    }
    async fn cases_between(&self, _: CaseId, _: CaseId, _: u32) -> Result<Vec<CaseId>, Error> {
        unimplemented!()
    }
    async fn timeline(&self, _: CaseId) -> Result<Option<Timeline>, Error> {
        unimplemented!()
    }
    async fn tasks(&self, _: curfew::journal::TaskFilter) -> Result<Vec<curfew::journal::TaskLine>, Error> {
        unimplemented!()
    }
    async fn matched(&self, _: String, _: (i64, String), _: u32) -> Result<Vec<curfew::finding::Finding>, Error> {
        unimplemented!()
    }
    async fn watched(&self, _: shown::Page) -> Result<Vec<shown::Watched>, Error> {
        unimplemented!()
    }
    async fn last_closed(&self, _: u32) -> Result<Vec<CaseLine>, Error> {
        unimplemented!()
    }
    async fn deaths(&self, _: i64, _: u32) -> Result<shown::Deaths, Error> {
        unimplemented!()
    }
    async fn excerpt(&self, _: CaseId, _: u32) -> Result<Option<shown::Excerpt>, Error> {
        unimplemented!()
    }
    async fn holders(&self, _: shown::Which, _: u32) -> Result<Vec<shown::Holder>, Error> {
        unimplemented!()
    }
    async fn findings(&self, _: bool, _: u32) -> Result<Vec<curfew::finding::Finding>, Error> {
        unimplemented!()
    }
    async fn overrun(&self, _: i64) -> Result<Vec<Overrun>, Error> {
        unimplemented!()
    }
    async fn standing(&self, _: u32) -> Result<Vec<curfew::journal::Standing>, Error> {
        unimplemented!()
    }
    async fn stats(&self, _: i64) -> Result<Stats, Error> {
        unimplemented!()
    }
    async fn prune(&self, _: Old, _: usize) -> Result<u64, Error> {
        unimplemented!()
    }
}

fn intake(journal: Arc<Knows>) -> Intake {
    Intake {
        journal,
        rules: Arc::default(),
        limits: Limits::default(),
        clock: System::shared(),
        metrics: Arc::default(),
        stirred: Arc::default(),
        trust: None,
        types: None,
    }
}

fn registered(subject: &Subject) -> Credential {
    Credential {
        blast: None,
        tenant: "default".into(),
        id: subject.credential.clone(),
        principal: None,
        registered_ms: 1,
        seen_ms: None,
        issued_ms: None,
        expires_ms: None,
        dead_ms: None,
        version: None,
        environment: None,
        owner: None,
    }
}

#[tokio::test]
async fn reconcile_finds_what_nobody_registered_and_only_that() {
    let root = Root::shared();
    let (mount, forbidden) = (root.database(&postgres_address()).await, root.database(&postgres_address()).await);
    let (known, _) = root.lease(&mount).await;
    let (stray, _) = root.lease(&mount).await;
    root.lease(&forbidden).await;
    let (_, accessor) =
        root.token(json!({ "policies": ["default"], "ttl": "10m", "meta": { "curfew_run": "ci:9" } })).await;
    let policy = root.policy("reconcile", &mount).await;
    let (token, _) = root.token_of(&[&policy]).await;
    let vault = Vault::open(REALM, &settings(&root.address, &token), Mode::Observe, System::shared()).await.unwrap();
    let clock = Simulated::at(System::shared().wall_ms());
    let trust = ClockTrust::new(clock.clone());
    let at = |watermark: Option<i64>, clock: clock::Shared| {
        let journal = Arc::new(Knows {
            known: vec![registered(&about(Kind::VaultLease, &known))],
            watermark,
            ..Knows::default()
        });
        let settings = ReconcileSettings {
            prefixes: vec![format!("{mount}/creds/"), format!("{forbidden}/creds/")],
            exclusive: vec![format!("{mount}/creds/task/")],
            tokens: true,
            per_second: 500,
            ..ReconcileSettings::default()
        };
        let intake = Intake { clock, trust: Some(trust.clone()), ..intake(journal.clone()) };
        (journal, Reconcile::new(intake, settings, REALM, vault.clone()))
    };
    let round = |watermark| at(watermark, System::shared());
    let aged = |watermark| at(watermark, clock.clone());
    // Nor by a clock that is not believed.
    clock.step_wall_ms(120_000);
    let (journal, reconcile) = aged(Some(clock.wall_ms()));
    reconcile.tick().await.unwrap();
    assert!(journal.events.lock().unwrap().is_empty());
    clock.step_wall_ms(-120_000);
    clock.advance_ms(120_000);
    // Without a watermark, or with one before these were issued, nothing can be said.
    for watermark in [None, Some(System::shared().wall_ms())] {
        let (journal, reconcile) = round(watermark);
        reconcile.tick().await.unwrap();
        let events = journal.events.lock().unwrap();
        assert!(!events.iter().any(|event| event.id.contains(&mount) || event.id.contains(&accessor)));
    }
    // One that a wrong clock has made reaches no further than now.
    let (journal, reconcile) = round(Some(System::shared().wall_ms() + 120_000));
    reconcile.tick().await.unwrap();
    let ours = |event: &Event| event.id.contains(&mount) || event.id.contains(&accessor);
    assert!(!journal.events.lock().unwrap().iter().any(ours));
    let (journal, reconcile) = aged(Some(System::shared().wall_ms() + 120_000));
    for _ in 0..2 {
        assert!(reconcile.tick().await.unwrap().partial, "one prefix is not ours to list");
    }
    let events = journal.events.lock().unwrap();
    let found: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.data {
            Data::ReconcileFound { credential, run, exclusive } => {
                Some((credential.id(), run.as_ref().map(|r| r.as_str().to_owned()), *exclusive))
            }
            _ => None,
        })
        .collect();
    assert!(found.contains(&(stray, None, true)));
    assert!(found.contains(&(accessor, Some("ci:9".into()), false)));
    assert_eq!(found.iter().filter(|(id, ..)| id.contains('/')).count(), 1, "{found:?}");
}

#[tokio::test]
async fn a_registered_credential_is_looked_up_once() {
    let root = Root::shared();
    let mut settings = settings(&root.address, &root.token);
    settings.tokens = true;
    let mut registry = Registry::default();
    for connector in connected(&settings).await {
        registry.add(connector);
    }
    let (_, accessor) = root.token(json!({ "policies": ["default"], "ttl": "10m" })).await;
    let ids = [(Kind::VaultToken, accessor.as_str()), (Kind::VaultToken, "typo"), (Kind::VaultSecretId, "a/b/c")];
    let known = ids.iter().map(|(kind, id)| registered(&about(*kind, id))).collect();
    let journal = Arc::new(Knows { known, ..Knows::default() });
    let registry = Arc::new(registry);
    assert_eq!(Registrar::new(intake(journal.clone()), registry.clone(), 50).tick().await.unwrap(), 3);
    let saw = journal.saw.lock().unwrap();
    drop(saw);
    let typos = |journal: Arc<Knows>| {
        let (intake, registry) = (intake(journal), registry.clone());
        async move {
            Registrar::new(intake.clone(), registry, 50).tick().await.unwrap();
            !intake.metrics.render().contains("curfew_alarms_total{alarm=\"typo\"} 0\n")
        }
    };
    assert!(typos(journal.clone()).await, "one is not known there");
    journal.killed.store(true, Ordering::SeqCst);
    assert!(!typos(journal.clone()).await, "a case came between and may have killed it");
    let saw = journal.saw.lock().unwrap();
    for (n, (presence, again)) in
        [(Presence::Present, false), (Presence::Gone, false), (Presence::Unclear, true)].into_iter().enumerate()
    {
        let (_, seen, at) = saw.iter().find(|(id, ..)| id.id() == ids[n].1).unwrap();
        assert_eq!((seen.presence, at.is_some()), (presence, again));
    }
}

over_both! {
    what_outlived_its_closed_case_is_found_and_nothing_else_that_is_known,
}

/// Its case was closed though it lives (as it was registered before it was made, say): nothing but the list tells.
async fn what_outlived_its_closed_case_is_found_and_nothing_else_that_is_known(store: Store) {
    let root = Root::shared();
    let mount = root.database(&postgres_address()).await;
    let lease = async || about(Kind::VaultLease, &root.lease(&mount).await.0).credential;
    let grant =
        |id: &CredentialId, tenure| GrantSpec { credential: id.clone(), tenure, principal: None, expires_ms: None };
    let journal = store.open().await;
    let (outlived, lives, stands, dying, shared) =
        (lease().await, lease().await, lease().await, lease().await, lease().await);
    let runs: Vec<RunKey> = (0..5).map(|_| new_run()).collect();
    let minted = |id| vec![grant(id, Tenure::Minted)];
    record(
        journal.as_ref(),
        vec![
            started(&runs[0], minted(&outlived)),
            started(&runs[1], vec![grant(&lives, Tenure::Minted), grant(&shared, Tenure::Minted)]),
            started(&runs[2], vec![grant(&stands, Tenure::Standing)]),
            started(&runs[3], minted(&dying)),
            started(&runs[4], minted(&shared)),
        ],
    )
    .await;
    let before_end_ms = now_ms() + 1;
    until("the clock to move on", || async { (now_ms() > before_end_ms).then_some(()) }).await;
    record(journal.as_ref(), vec![ended(&runs[0])]).await;
    let want =
        Want { max: 1, max_per_system: 1, now_ms: now_ms() + 1, steady_ms: now_ms() + 1, lease_ms: 60_000, only: None };
    let claim = journal.claim(want).await.unwrap().remove(0);
    let close = Append {
        case: claim.case.id,
        epoch: claim.epoch,
        seq: claim.case.seq,
        records: vec![Record::Closed { verdict: Verdict::NotFound }],
        due_ms: 0,
        keep: false,
        charge: None,
        learned: None,
        messages: Vec::new(),
        now_ms: now_ms(),
    };
    journal.append(close).await.unwrap();
    record(journal.as_ref(), vec![ended(&runs[2]), ended(&runs[3]), ended(&runs[4])]).await;

    let settings_of = settings(&root.address, &root.token);
    let vault = Vault::open(REALM, &settings_of, Mode::Observe, System::shared()).await.unwrap();
    let settings = ReconcileSettings {
        prefixes: vec![format!("{mount}/creds/")],
        exclusive: vec![format!("{mount}/creds/")],
        per_second: 500,
        grace_ms: 0,
        ..ReconcileSettings::default()
    };
    let intake = Intake { journal: journal.clone(), ..intake(Arc::default()) };
    let reconcile = Reconcile::new(intake, settings, REALM, vault);
    let found = async |watermark_ms| {
        journal.caught_up("k", "t", 0, watermark_ms).await.unwrap();
        reconcile.tick().await.unwrap().found
    };
    // All were issued before; but what the topic says after this may be a registration for another task.
    assert_eq!(found(before_end_ms).await, 0);
    assert_eq!(found(now_ms() + 60_000).await, 1);
    let open = journal.cases(Filter::default()).await.unwrap();
    let case = open.iter().find(|line| line.case.directive.credential == outlived).unwrap();
    assert_eq!(case.case.directive.trigger, Trigger::Reconcile);
    assert_eq!((&case.case.directive.run, case.case.directive.held), (&Some(runs[0].clone()), None));
    assert_eq!(found(now_ms() + 60_000).await, 0, "a case is at work on it");
    assert_eq!(open.len(), 2, "and one on what is dying");
}
