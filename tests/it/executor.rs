//! The executor on a real Vault: what holds a case and what lets it go, and that a hold, a full disk or a lost claim means
//! no effect. Every call of an effect is counted between the executor and the real connector.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{Answer, KilledBy, Level, Observation, Output, Presence, Record, Sighting, Verdict};
use curfew::case::state::Phase;
use curfew::case::{Action, HoldReason};
use curfew::clock::{Clock, Simulated};
use curfew::connector::{Connector, Failure, Realm, Registry, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{Data, Event, FindingObserved, GrantSpec, Type};
use curfew::guard::{Authority, Mode};
use curfew::journal::{Append, CaseLine, Error, Journal, Want};
use curfew::outcome;
use curfew::probe::Settle;
use curfew::task::{RunKey, Tenure};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::admin::{Admin, connectors};
use crate::stage::{Between, Stage, TOPIC, case_of, ended, new_run, now_ms, record, started};
use crate::store::Store;
use crate::world::until;

mod feedback;
mod full;
mod half;
mod lost;
mod named;
mod pauses;

type Alter = Arc<dyn Fn(&mut Observation) + Send + Sync>;

/// What stands between the executor and the connectors.
#[derive(Clone)]
struct Ledger {
    /// Every effect that was asked for.
    effects: Arc<Mutex<Vec<(Act, CredentialId)>>>,
    /// What a look is made to show.
    alter: Alter,
    /// Looks answer only with a permit of this.
    gate: Arc<Semaphore>,
    /// Looks that wait at the gate.
    waiting: Arc<Semaphore>,
}

#[async_trait]
impl Between for Ledger {
    async fn observe(&self, inner: &dyn Connector, subject: &Subject) -> Result<Observation, Failure> {
        self.waiting.add_permits(1);
        let _open = self.gate.acquire().await.unwrap();
        let mut seen = inner.observe(subject).await?;
        (self.alter)(&mut seen);
        Ok(seen)
    }

    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        self.effects.lock().unwrap().push((act, subject.credential.clone()));
        inner.perform(act, subject).await
    }
}

/// A Vault, a journal, and the ledger between.
struct Scene {
    admin: Admin,
    stage: Stage,
    journal: Arc<dyn Journal>,
    ledger: Ledger,
}

impl Scene {
    /// Tokens only.
    async fn new(store: Store) -> Self {
        Self::altered(store, Arc::new(|_| ())).await
    }

    async fn altered(store: Store, alter: Alter) -> Self {
        let admin = Admin::shared();
        let registry = connectors(&admin, "", false).await;
        Self::with(store, admin, &registry, alter).await
    }

    async fn with(store: Store, admin: Admin, registry: &Registry, alter: Alter) -> Self {
        let journal = store.open().await;
        Self::upon(store, journal, admin, registry, alter)
    }

    fn upon(store: Store, journal: Arc<dyn Journal>, admin: Admin, registry: &Registry, alter: Alter) -> Self {
        let ledger = Ledger {
            effects: Arc::default(),
            alter,
            gate: Arc::new(Semaphore::new(1_000)),
            waiting: Arc::new(Semaphore::new(0)),
        };
        let stage = Stage::new(store, ledger.before(registry));
        Self { admin, stage, journal, ledger }
    }

    async fn token(&self, extra: Value) -> (CredentialId, String) {
        let (accessor, token) = self.admin.token(extra).await;
        assert!(self.admin.token_works(&token).await);
        (token_id(&accessor), token)
    }

    async fn ends(&self, run: &RunKey, credential: &CredentialId) {
        self.stage.task_ends(self.journal.as_ref(), run, credential, None).await;
    }

    async fn line(&self, credential: &CredentialId) -> CaseLine {
        case_of(self.journal.as_ref(), credential).await.expect("there is a case")
    }

    /// Works once over all that is due, twice: what is held by a word of the configuration stays so.
    async fn drain(&self) {
        for _ in 0..2 {
            self.stage.executor(self.journal.clone()).drain().await.unwrap();
        }
    }

    async fn closes(&self, credential: &CredentialId) -> Verdict {
        self.stage.run_until_closed(&self.journal, credential).await.verdict
    }

    fn effects(&self) -> usize {
        self.ledger.effects.lock().unwrap().len()
    }

    /// Held for `reason`, published so, and nothing was done.
    async fn assert_held(&self, credential: &CredentialId, reason: HoldReason) {
        self.drain().await;
        let line = self.line(credential).await;
        assert_eq!(line.case.state.phase, Phase::Held { reason });
        assert_eq!(line.verdict, Verdict::Alive { by: reason });
        assert!(!line.case.state.acted && line.closed_ms.is_none());
        assert_eq!(self.effects(), 0, "{reason:?}");
        let told = self.told(credential, outcome::Kind::CredentialState).await;
        assert!(told.iter().any(|data| data["verdict"]["by"] == reason.as_str()), "{reason:?}: {told:?}");
    }

    /// The data of what was published about `credential`.
    async fn told(&self, credential: &CredentialId, kind: outcome::Kind) -> Vec<Value> {
        let rows = self.journal.outbox(0, 10_000).await.unwrap();
        let rows = rows.iter().filter(|row| row.kind == kind && row.key == credential.as_str());
        rows.map(|row| serde_json::from_slice::<Value>(&row.body).unwrap()["data"].clone()).collect()
    }

    async fn records(&self, credential: &CredentialId) -> Vec<Record> {
        let id = self.line(credential).await.case.id;
        let timeline = self.journal.timeline(id).await.unwrap().unwrap();
        timeline.records.into_iter().flat_map(|(_, _, records)| records).collect()
    }
}

fn token_id(accessor: &str) -> CredentialId {
    CredentialId::new(Kind::VaultToken, "test", accessor).unwrap()
}

fn minted(credential: &CredentialId) -> GrantSpec {
    GrantSpec { credential: credential.clone(), tenure: Tenure::Minted, principal: None, expires_ms: None }
}

fn is_dead(verdict: &Verdict, killer: KilledBy) -> bool {
    matches!(verdict, Verdict::Dead { level: Level::Issuer, by, .. } if *by == killer)
}

over_both! {
    over_the_cap_cases_wait_for_the_next_minute,
    a_topic_without_the_authority_cuts_nothing,
    a_deadline_cuts_no_more_than_the_topic_that_registered_the_grant_may,
    nothing_outside_the_allowed_prefixes_is_cut,
    what_is_protected_is_never_touched,
    a_credential_of_another_task_is_held_and_the_tasks_own_is_cut,
    gone_and_never_seen_is_not_found_but_gone_and_seen_is_dead_by_others,
    what_only_expires_is_awaited_and_then_seen_dead,
    what_nobody_said_how_to_rotate_waits_without_a_word,
    what_a_live_task_shares_is_cut_only_when_the_last_one_ends,
    a_stronger_directive_voids_the_claim_that_was_being_worked_on,
    a_word_on_a_case_that_is_being_worked_on_comes_before_its_effect,
    an_abandoned_case_that_is_seen_alive_again_and_again_acts_no_more,
    a_case_that_was_opened_held_and_resumed_is_planned_again_when_it_is_seen_alive,
}

async fn over_the_cap_cases_wait_for_the_next_minute(store: Store) {
    let mut scene = Scene::new(store).await;
    scene.stage.settings.effects_per_minute = Some(2);
    let mut tokens = Vec::new();
    for _ in 0..7 {
        let (id, _) = scene.token(json!({})).await;
        scene.ends(&new_run(), &id).await;
        tokens.push(id);
    }
    let clock = Simulated::at((now_ms() / 60_000 + 1) * 60_000);
    let mut minutes = Vec::new();
    for _ in 0..2 {
        // Within the minute nothing more is let through, however often it is asked.
        for _ in 0..5 {
            scene.stage.executor_at(scene.journal.clone(), &clock).drain().await.unwrap();
            clock.advance_ms(1_000);
        }
        minutes.push(scene.effects());
        clock.advance_ms(55_000);
    }
    assert_eq!(minutes, [2, 4]);
    let stats = scene.journal.stats(clock.wall_ms()).await.unwrap();
    assert_eq!(stats.held, [("cap".to_owned(), 3)]);

    // What waits is recorded once, and told once: not each time that it is tried.
    for id in &tokens {
        let held = scene.records(id).await.iter().filter(|record| matches!(record, Record::Held { .. })).count();
        let told = scene.told(id, outcome::Kind::CredentialState).await;
        let told = told.iter().filter(|data| data["verdict"]["by"] == "cap").count();
        assert!(held <= 1 && told == held, "{held} {told}");
    }
    scene.stage.settings.effects_per_minute = Some(100);
    scene.stage.executor_at(scene.journal.clone(), &clock).drain().await.unwrap();
    assert_eq!(scene.effects(), 7, "a higher cap counts from the next minute on");
    for id in &tokens {
        assert!(is_dead(&scene.line(id).await.verdict, KilledBy::Curfew), "none was dropped");
    }
}

async fn a_topic_without_the_authority_cuts_nothing(store: Store) {
    let mut scene = Scene::new(store).await;
    let track = Authority { kinds: ["vault-token".to_owned()].into(), strongest: Action::Track };
    let other = Authority { kinds: ["vault-lease".to_owned()].into(), strongest: Action::Revoke };
    for authority in [BTreeMap::new(), [(TOPIC.to_owned(), track)].into(), [(TOPIC.to_owned(), other)].into()] {
        scene.stage.settings.authority = authority;
        let (id, token) = scene.token(json!({})).await;
        scene.ends(&new_run(), &id).await;
        scene.assert_held(&id, HoldReason::Authority).await;
        assert!(scene.admin.token_works(&token).await);
    }
}

/// P7: a deadline is noticed by Curfew, but the grant was a producer's word.
async fn a_deadline_cuts_no_more_than_the_topic_that_registered_the_grant_may(store: Store) {
    let mut scene = Scene::new(store).await;
    let track = Authority { kinds: ["vault-token".to_owned()].into(), strongest: Action::Track };
    let able = scene.stage.settings.authority.insert(TOPIC.to_owned(), track).unwrap();
    scene.stage.settings.authority.insert("able".to_owned(), able);
    let by = |topic: &str, mut event: Event| {
        event.at.topic = topic.into();
        event
    };
    // Registered for the same run by both in the end; the first one by the weaker alone.
    let lapse = async |both: bool| {
        let (run, (id, token)) = (new_run(), scene.token(json!({})).await);
        let mut start = started(&run, vec![minted(&id)]);
        let deadline_ms = now_ms();
        if let Data::TaskStarted(it) = &mut start.data {
            it.started_ms = Some(deadline_ms - 1_000);
            it.deadline_ms = Some(deadline_ms);
        }
        let mut said = vec![start];
        if both {
            said.push(by("able", started(&run, vec![minted(&id)])));
        }
        said.push(Event::deadline_passed("default".into(), run, deadline_ms, now_ms()));
        record(scene.journal.as_ref(), said).await;
        (id, token)
    };
    let (id, token) = lapse(false).await;
    scene.assert_held(&id, HoldReason::Authority).await;
    assert!(scene.admin.token_works(&token).await);
    let (both, _) = lapse(true).await;
    assert!(is_dead(&scene.closes(&both).await, KilledBy::Curfew), "any of them that may will do");
    // An operator's word is Curfew's own.
    let (tenant, word) = ("default".into(), || "x".to_owned());
    let revoke = Event::operator_revoke(tenant, word(), id.clone(), word(), word(), now_ms());
    record(scene.journal.as_ref(), vec![revoke]).await;
    assert!(is_dead(&scene.closes(&id).await, KilledBy::Curfew));
}

async fn nothing_outside_the_allowed_prefixes_is_cut(store: Store) {
    let admin = Admin::shared();
    let mount = admin.database().await;
    let allowed = [vec![], vec![format!("{mount}/creds/ap")], vec![String::new()], vec!["token:".to_owned()]];
    for allowed_prefixes in allowed {
        let mut registry = connectors(&admin, &mount, false).await;
        let (name, mode) = ("test".to_owned(), Mode::Enforce);
        registry.add_realm(Realm { name, mode, allowed_prefixes, reducible: Vec::new(), targets: Vec::new() });
        let scene = Scene::with(store.fresh(), admin.clone(), &registry, Arc::new(|_| ())).await;
        let lease = admin.database_credential(&mount).await.lease;
        let id = CredentialId::new(Kind::VaultLease, "test", &lease).unwrap();
        scene.ends(&new_run(), &id).await;
        scene.assert_held(&id, HoldReason::Prefix).await;
        assert!(admin.lease_lives(&lease).await);
    }
}

async fn what_is_protected_is_never_touched(store: Store) {
    let mut scene = Scene::new(store).await;
    let (listed, first) = scene.token(json!({})).await;
    scene.stage.settings.protected = [listed.as_str().to_owned()].into();
    // Nobody has to list root.
    let (root, second) = scene.token(json!({"policies": ["root"], "ttl": "10m"})).await;
    for (id, token) in [(listed, first), (root, second)] {
        scene.ends(&new_run(), &id).await;
        scene.assert_held(&id, HoldReason::Protected).await;
        assert!(scene.admin.token_works(&token).await);
    }
}

async fn a_credential_of_another_task_is_held_and_the_tasks_own_is_cut(store: Store) {
    let scene = Scene::new(store).await;
    let run = new_run();
    let (id, token) = scene.token(json!({"meta": {"curfew_run": "/tests:another"}})).await;
    scene.ends(&run, &id).await;
    scene.assert_held(&id, HoldReason::OtherTask).await;
    assert!(scene.admin.token_works(&token).await);

    let run = new_run();
    let (id, token) = scene.token(json!({"meta": {"curfew_run": run.as_str()}})).await;
    scene.ends(&run, &id).await;
    assert!(is_dead(&scene.closes(&id).await, KilledBy::Curfew));
    assert!(!scene.admin.token_works(&token).await);
}

async fn gone_and_never_seen_is_not_found_but_gone_and_seen_is_dead_by_others(store: Store) {
    let scene = Scene::new(store).await;
    let typo = token_id("GkxP4bJxY1nQeXoUq7dZ0aTw");
    scene.ends(&new_run(), &typo).await;
    assert_eq!(scene.closes(&typo).await, Verdict::NotFound);

    let (id, token) = scene.token(json!({})).await;
    let run = new_run();
    record(scene.journal.as_ref(), vec![started(&run, vec![minted(&id)])]).await;
    let seen = Observation { presence: Presence::Present, at_ms: now_ms(), ..Observation::default() };
    scene.journal.saw(&"default".into(), &id, seen, None).await.unwrap();
    scene.admin.call("POST", "auth/token/revoke", json!({"token": token})).await;
    assert!(!scene.admin.token_works(&token).await);
    record(scene.journal.as_ref(), vec![ended(&run)]).await;
    let verdict = scene.closes(&id).await;
    assert!(is_dead(&verdict, KilledBy::Others), "{verdict:?}");
    assert_eq!(scene.effects(), 0);
}

/// Vault's batch tokens have no accessor, so none can be registered; what only expires is played by a token whose look-up
/// says so.
async fn what_only_expires_is_awaited_and_then_seen_dead(store: Store) {
    let scene = Scene::altered(store, Arc::new(|seen| seen.only_expires = true)).await;
    let (id, token) = scene.token(json!({"ttl": "3s"})).await;
    scene.ends(&new_run(), &id).await;
    let verdict = scene.closes(&id).await;
    assert!(is_dead(&verdict, KilledBy::Others), "{verdict:?}");
    assert!(!scene.admin.token_works(&token).await);
    assert_eq!(scene.effects(), 0, "it cannot be revoked");
    let told = scene.told(&id, outcome::Kind::CredentialState).await;
    assert!(told.iter().any(|data| data["verdict"]["state"] == "dies_at"), "{told:?}");
}

/// It is tried again and again: each time would be a row, and a message.
async fn what_nobody_said_how_to_rotate_waits_without_a_word(store: Store) {
    let (scene, _, clock) = scripted(store).await;
    let id = token_id("n1");
    let order = Event::operator_rotate(
        "default".into(),
        "o1".into(),
        id.clone(),
        Action::Rollover,
        "ann".into(),
        "test".into(),
        now_ms(),
    );
    record(scene.journal.as_ref(), vec![order]).await;
    scene.rounds(&clock, 5).await;
    assert_eq!(scene.line(&id).await.case.state.phase, Phase::Held { reason: HoldReason::NoRecipe });
    let records = scene.records(&id).await;
    assert_eq!(records.iter().filter(|record| matches!(record, Record::Held { .. })).count(), 1, "{records:?}");
    assert!(!records.iter().any(|record| matches!(record, Record::Resumed { .. })), "{records:?}");
    assert_eq!(scene.told(&id, outcome::Kind::CredentialState).await.len(), 1);
    assert_eq!(scene.effects(), 0);
}

async fn what_a_live_task_shares_is_cut_only_when_the_last_one_ends(store: Store) {
    let scene = Scene::new(store).await;
    let (id, token) = scene.token(json!({})).await;
    let (first, last) = (new_run(), new_run());
    let both = vec![started(&first, vec![minted(&id)]), started(&last, vec![minted(&id)]), ended(&first)];
    record(scene.journal.as_ref(), both).await;
    scene.drain().await;
    assert!(case_of(scene.journal.as_ref(), &id).await.is_none());
    assert!(scene.admin.token_works(&token).await);
    assert_eq!(scene.effects(), 0);
    record(scene.journal.as_ref(), vec![ended(&last)]).await;
    assert!(is_dead(&scene.closes(&id).await, KilledBy::Curfew));
    assert!(!scene.admin.token_works(&token).await);
    assert_eq!(scene.effects(), 1);
}

async fn a_stronger_directive_voids_the_claim_that_was_being_worked_on(store: Store) {
    let scene = Scene::new(store).await;
    let (id, token) = scene.token(json!({})).await;
    let run = new_run();
    let mut finding = ended(&run);
    finding.kind = Type::FindingObserved;
    finding.data = Data::FindingObserved(Box::new(FindingObserved {
        finding_key: "f1".to_owned(),
        credential: Some(id.clone()),
        detector: "test".to_owned(),
        validity: "unknown".to_owned(),
        ..FindingObserved::default()
    }));
    record(scene.journal.as_ref(), vec![started(&run, vec![minted(&id)]), finding]).await;
    let want =
        Want { max: 10, max_per_system: 10, now_ms: now_ms(), steady_ms: now_ms(), lease_ms: 60_000, only: None };
    let old = scene.journal.claim(want).await.unwrap().pop().expect("the finding's case is due");
    assert_eq!(old.case.directive.action, Action::Track);

    record(scene.journal.as_ref(), vec![ended(&run)]).await;
    let late = Append {
        case: old.case.id,
        epoch: old.epoch,
        seq: old.case.seq,
        records: vec![Record::Held { reason: HoldReason::Frozen }],
        due_ms: now_ms(),
        keep: false,
        charge: None,
        learned: None,
        messages: Vec::new(),
        now_ms: now_ms(),
    };
    assert!(matches!(scene.journal.append(late).await, Err(Error::ClaimVoid)));
    let line = scene.line(&id).await;
    assert_eq!((line.case.id, line.case.directive.action), (old.case.id, Action::Revoke), "the same case, stronger");
    assert!(is_dead(&scene.closes(&id).await, KilledBy::Curfew));
    assert!(!scene.admin.token_works(&token).await);
    assert_eq!(scene.effects(), 1);
}

async fn a_word_on_a_case_that_is_being_worked_on_comes_before_its_effect(store: Store) {
    let scene = Scene::new(store).await;
    let (id, token) = scene.token(json!({})).await;
    scene.ends(&new_run(), &id).await;
    let shut = scene.ledger.gate.acquire_many(1_000).await.unwrap();
    let executor = scene.stage.executor(scene.journal.clone());
    let working = tokio::spawn(async move { executor.drain().await });
    // It is claimed, and looks.
    scene.ledger.waiting.acquire().await.unwrap().forget();
    let case = scene.line(&id).await.case.id;
    let word = Record::Abandoned { by: "ana".to_owned(), reason: "test".to_owned() };
    scene.journal.command(case, Some(word), now_ms()).await.unwrap();
    drop(shut);
    working.await.unwrap().unwrap();
    scene.drain().await;
    assert_eq!(scene.effects(), 0, "the claim was void when the effect was about to start");
    assert_eq!(scene.line(&id).await.case.state.phase, Phase::Abandoned);
    assert!(scene.admin.token_works(&token).await);
}

/// An issuer by script: it knows everything, does what it is told, and its credentials work for as long as `lives`.
struct Scripted {
    lives: Arc<AtomicBool>,
}

#[async_trait]
impl Connector for Scripted {
    fn name(&self) -> &'static str {
        "vault-token"
    }
    fn system(&self) -> &'static str {
        "test"
    }
    fn call_timeout_ms(&self) -> i64 {
        1_000
    }
    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }
    async fn observe(&self, _: &Subject) -> Result<Observation, Failure> {
        Ok(Observation { presence: Presence::Present, at_ms: now_ms(), ..Observation::default() })
    }
    async fn perform(&self, _: Act, _: &Subject) -> Result<Output, Failure> {
        Ok(Output::default())
    }
    async fn probe(&self, _: &Subject) -> Sighting {
        let answer = if self.lives.load(Ordering::SeqCst) { Answer::Accepted } else { Answer::Refused };
        let (level, at_ms) = (Level::Issuer, now_ms());
        Sighting { level, answer, at_ms, control: true, residue: Vec::new(), request_id: None }
    }
    async fn self_check(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// A scene with such an issuer, and a clock that the test moves.
async fn scripted(store: Store) -> (Scene, Arc<AtomicBool>, Arc<Simulated>) {
    let lives = Arc::new(AtomicBool::new(true));
    let mut registry = Registry::default();
    registry.add(Arc::new(Scripted { lives: lives.clone() }));
    let (name, mode, allowed_prefixes) = ("test".to_owned(), Mode::Enforce, vec!["token:".to_owned()]);
    registry.add_realm(Realm { name, mode, allowed_prefixes, reducible: Vec::new(), targets: Vec::new() });
    (Scene::with(store, Admin::shared(), &registry, Arc::new(|_| ())).await, lives, Simulated::at(now_ms()))
}

impl Scene {
    /// So many rounds of work, each long enough after the one before that everything is due again.
    async fn rounds(&self, clock: &Arc<Simulated>, count: usize) {
        for _ in 0..count {
            clock.advance_ms(10_000);
            self.stage.executor_at(self.journal.clone(), clock).drain().await.unwrap();
        }
    }

    async fn command(&self, credential: &CredentialId, word: Record, clock: &Arc<Simulated>) {
        let case = self.line(credential).await.case.id;
        self.journal.command(case, Some(word), clock.wall_ms()).await.unwrap();
    }
}

async fn an_abandoned_case_that_is_seen_alive_again_and_again_acts_no_more(store: Store) {
    let (scene, lives, clock) = scripted(store).await;
    let id = token_id("a1");
    scene.ends(&new_run(), &id).await;
    scene.rounds(&clock, 1).await;
    assert_eq!((scene.effects(), scene.line(&id).await.case.state.series.broken), (1, 1));
    let word = Record::Abandoned { by: "ana".to_owned(), reason: "test".to_owned() };
    scene.command(&id, word, &clock).await;
    scene.rounds(&clock, 4).await;
    let state = scene.line(&id).await.case.state;
    assert_eq!((state.phase, state.plan_no, state.series.broken), (Phase::Abandoned, 1, 5));
    assert_eq!(scene.effects(), 1);
    // It goes on looking: what dies is seen dead.
    lives.store(false, Ordering::SeqCst);
    scene.rounds(&clock, 1).await;
    assert!(matches!(scene.line(&id).await.verdict, Verdict::Dead { .. }));
    assert_eq!(scene.effects(), 1);
}

async fn a_case_that_was_opened_held_and_resumed_is_planned_again_when_it_is_seen_alive(store: Store) {
    let (scene, lives, clock) = scripted(store).await;
    let id = token_id("b1");
    let found = Event::reconcile_found("default".into(), id.clone(), None, false, now_ms());
    record(scene.journal.as_ref(), vec![found]).await;
    scene.rounds(&clock, 3).await;
    assert_eq!(scene.line(&id).await.case.state.phase, Phase::Held { reason: HoldReason::Unregistered });
    assert_eq!(scene.effects(), 0);
    scene.command(&id, Record::Resumed { by: "ana".to_owned() }, &clock).await;
    scene.rounds(&clock, 2).await;
    assert_eq!((scene.effects(), scene.line(&id).await.case.state.plan_no), (1, 1));
    scene.rounds(&clock, 3).await;
    let state = scene.line(&id).await.case.state;
    assert_eq!((scene.effects(), state.plan_no, state.phase), (2, 2, Phase::Open));
    lives.store(false, Ordering::SeqCst);
    scene.rounds(&clock, 1).await;
    assert!(is_dead(&scene.line(&id).await.verdict, KilledBy::Curfew));
}
