//! The secret_id of an AppRole that consumers read from KV: every plan killed at every append, each call failed in each
//! way, each effect repeated, each reply cut; and what happens to them, on real servers.

use std::sync::Arc;

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Residue, Verdict};
use curfew::case::state::Phase;
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::{Adoption, Keeper, Late, PasswordRules, Place, Recipe, Users};
use curfew::connector::vault::{Auth, VaultSettings};
use curfew::connector::{Connector, Failure, Gate, Realm, Registry, Subject, vault};
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::journal::{CaseLine, Journal};
use serde_json::{Value, json};

use super::adoption::{consumers, every_kill_of, is_held, is_promoted, killed_on_the_way_back, run_until, says};
use super::{Ground, Victim, assert_one_end, finding, finding_of, open_case, registered};
use crate::endure::{self, Trial};
use crate::stage::{Between, Stage, case_of, ended, now_ms, record, started};
use crate::store::Store;
use crate::world::{unique, until};

/// A role, and what consumers read of it.
pub struct Ours {
    pub victim: Victim,
    pub mount: String,
    role_id: String,
    /// Of another secret_id of the role, that is nobody's business.
    pub bystander: String,
}

impl Ground {
    pub async fn approle(&self, adoption: Adoption) -> Ours {
        let mount = self.admin.approle().await;
        let (_, first) = self.admin.secret_id(&mount, json!({ "team": "billing" })).await;
        let (_, bystander) = self.admin.secret_id(&mount, json!({})).await;
        let (_, id) = self.admin.call("GET", &format!("auth/{mount}/role/ci/role-id"), Value::Null).await;
        let role_id = id["data"]["role_id"].as_str().unwrap().to_owned();
        let path = format!("apps/{}", unique("secret"));
        let secret = json!({"data": {"username": "ci", "password": first, "host": "db.example"}});
        self.admin.done("POST", &format!("{}/data/{path}", self.mount), secret).await;
        let name = format!("{mount}/ci");
        let recipe = Recipe {
            name: name.clone(),
            credential: CredentialId::new(Kind::VaultApprole, "test", &name).unwrap(),
            place: Place {
                keeper: Keeper::Kv,
                realm: "test".to_owned(),
                mount: self.mount.clone(),
                path,
                field: "password".to_owned(),
                user_field: None,
            },
            users: Users::Many(name.clone()),
            password: PasswordRules::default(),
            adoption,
            environment: Some("test".to_owned()),
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
            copies: Vec::new(),
            webhooks: Vec::new(),
        };
        let clock = curfew::clock::System::shared();
        let mut settings = VaultSettings::new(&self.admin.address, Auth::Token(self.token.clone().into()));
        settings.approles = vec![name.clone()];
        settings.derived_tokens = true;
        // All tokens of the server are looked at, and other tests make many.
        settings.timeout_ms = 20_000;
        let mut registry = Registry::default();
        let allowed_prefixes = vec![format!("{}{name}", curfew::guard::APPROLES)];
        registry.add_realm(Realm {
            name: "test".to_owned(),
            mode: Mode::Enforce,
            allowed_prefixes,
            reducible: Vec::new(),
            targets: Vec::new(),
        });
        for connector in vault::connect("test", &settings, Mode::Enforce, clock.clone()).await.unwrap() {
            registry.add(connector);
        }
        let places = [recipe.place.clone()];
        let stores = vault::connect_stores("test", &settings, Mode::Enforce, clock, &places, &[]).await.unwrap();
        stores.into_iter().for_each(|store| registry.add_store(store));
        registry.add_recipe(recipe.clone());
        let old = (name, first);
        let victim = Victim {
            recipe,
            registry,
            old,
            hook: None,
            first: 1,
            shelf: super::safe::Shelf::of(&self.admin),
            behind: super::Behind::Postgres,
            pg: self.pg.clone(),
        };
        Ours { victim, mount, role_id, bystander }
    }
}

impl Ours {
    /// Logs in as a consumer: the token.
    pub async fn log_in(&self, value: &str) -> Option<String> {
        let body = json!({ "role_id": self.role_id, "secret_id": value });
        let (status, answer) = self.victim.shelf.admin.call("POST", &format!("auth/{}/login", self.mount), body).await;
        (status == 200).then(|| answer["auth"]["client_token"].as_str().unwrap().to_owned())
    }

    /// How many secret_ids the role has.
    async fn alive(&self) -> usize {
        let (_, list) =
            self.victim.shelf.admin.call("LIST", &format!("auth/{}/role/ci/secret-id", self.mount), Value::Null).await;
        list["data"]["keys"].as_array().map_or(0, Vec::len)
    }

    /// What consumers read is the old one again, and of the two it is the only one that works.
    async fn assert_given_back(&self, what: &str) {
        let (version, _, value) = self.victim.stored().await;
        assert_eq!((version, &value), (3, &self.victim.old.1), "{what}: stored anew");
        assert!(self.log_in(&value).await.is_some(), "{what}: the old one works");
        assert!(self.log_in(&self.bystander).await.is_some(), "{what}: another secret_id of the role was touched");
        assert_eq!((self.alive().await, self.victim.candidate().await), (2, None), "{what}: no candidate is left");
        let new = self.victim.version(2).await.1;
        assert!(self.log_in(&new).await.is_none(), "{what}: the new one does not work any more");
    }

    /// As the witness sees it.
    pub async fn assert_rotated(&self, what: &str) {
        let (version, _, value) = self.victim.stored().await;
        assert!(version >= 2 && value != self.victim.old.1, "{what}");
        assert!(self.log_in(&value).await.is_some(), "{what}: what consumers read does not work");
        assert!(self.log_in(&self.victim.old.1).await.is_none(), "{what}: the old one still works");
        assert!(self.log_in(&self.bystander).await.is_some(), "{what}: another secret_id of the role was touched");
        assert_eq!(self.alive().await, 2, "{what}: a secret_id is left behind");
        assert_eq!(self.victim.candidate().await, None, "{what}: a candidate is left behind");
    }
}

/// One that is rotated.
struct Rotated {
    ours: Ours,
    action: Action,
}

impl Trial for Rotated {
    fn credential(&self) -> &CredentialId {
        self.ours.victim.credential()
    }

    fn registry(&self) -> Registry {
        self.ours.victim.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        open_case(journal, &self.ours.victim, self.action).await;
    }

    async fn died(&self, what: &str) -> Registry {
        if self.action == Action::Rollover {
            let (_, _, now) = self.ours.victim.stored().await;
            assert!(self.ours.log_in(&now).await.is_some(), "{what}: what consumers read works at every instant");
        }
        self.registry()
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        assert_one_end(journal, line, what).await;
        self.ours.assert_rotated(what).await;
    }
}

async fn every_kill(store: Store, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || Rotated { ours: ground.approle(Adoption::default()).await, action };
    endure::every_kill(&store, 5, fresh).await;
}

async fn every_fault(store: Store, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || Rotated { ours: ground.approle(Adoption::default()).await, action };
    endure::every_fault(&store, 9, fresh).await;
}

over_both! {
    an_approle_contained_survives_every_kill,
    an_approle_rolled_over_survives_every_kill,
    an_approle_contained_survives_every_fault,
    an_approle_rolled_over_survives_every_fault,
    the_tokens_of_the_old_secret_id_end_and_those_of_others_live,
    a_rollover_of_an_approle_that_is_taken_over_leaves_no_candidate,
    a_new_secret_id_that_leaks_before_the_old_one_is_cut_takes_both_with_it,
    a_candidate_that_is_refused_is_destroyed_and_the_old_one_works_on,
    an_approle_that_is_revoked_has_its_one_secret_id_destroyed,
    a_consumer_that_cannot_log_in_with_the_new_secret_id_gets_the_old_one_back,
    giving_the_old_secret_id_back_survives_every_kill,
}

async fn an_approle_contained_survives_every_kill(store: Store) {
    every_kill(store, Action::Contain).await;
}

async fn an_approle_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Action::Rollover).await;
}

async fn an_approle_contained_survives_every_fault(store: Store) {
    every_fault(store, Action::Contain).await;
}

async fn an_approle_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Action::Rollover).await;
}

async fn the_tokens_of_the_old_secret_id_end_and_those_of_others_live(store: Store) {
    let ground = Ground::new().await;
    let ours = ground.approle(Adoption::default()).await;
    let victim = &ours.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    // What a person made has no mark, so its tokens cannot be told from others of the role: that is said.
    open_case(journal.as_ref(), victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    let residue = |line: &CaseLine| {
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
        residue.clone()
    };
    assert_eq!(residue(&line), vec![Residue::DerivedUnknown]);
    // What we made has one.
    let (version, _, second) = victim.stored().await;
    let given = ours.log_in(&second).await.unwrap();
    let bystanders = ours.log_in(&ours.bystander).await.unwrap();
    let again = curfew::event::FindingObserved {
        finding_key: unique("finding"),
        fingerprints: vec![super::mark(victim, version)],
        detector: "tests".to_owned(),
        validity: "active".to_owned(),
        ..Default::default()
    };
    let again = curfew::event::Data::FindingObserved(Box::new(again));
    let events = vec![registered(victim, version), crate::stage::event(curfew::event::Type::FindingObserved, again)];
    record(journal.as_ref(), events).await;
    let executor = stage.executor(journal.clone());
    let second_line = until("the second case to close", || async {
        executor.drain().await.unwrap();
        let filter = curfew::journal::Filter {
            credential: Some(victim.credential().clone()),
            closed: true,
            ..curfew::journal::Filter::default()
        };
        let lines = journal.cases(filter).await.unwrap();
        lines.into_iter().find(|other| other.case.id != line.case.id && other.closed_ms.is_some())
    })
    .await;
    assert_eq!(residue(&second_line), vec![]);
    assert!(!ground.admin.token_works(&given).await, "a token of the leaked secret_id lives");
    assert!(ground.admin.token_works(&bystanders).await);
    ours.assert_rotated("tokens").await;
    let timeline = format!("{:?}", journal.timeline(second_line.case.id).await.unwrap());
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let told: String = rows.iter().map(|row| String::from_utf8_lossy(&row.body).into_owned()).collect();
    let third = victim.stored().await.2;
    for value in [&victim.old.1, &second, &third, &given] {
        assert!(!timeline.contains(value.as_str()) && !told.contains(value.as_str()));
    }
}

async fn a_rollover_of_an_approle_that_is_taken_over_leaves_no_candidate(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["billing".into()], within_ms: 3_600_000, late: Late::Hold, ..Adoption::default() };
    for until_act in [Act::Test, Act::Adopt] {
        let ours = ground.approle(adoption.clone()).await;
        let victim = &ours.victim;
        let shut = Shut { act: until_act, kind: FailureKind::Unavailable };
        let mut stage = Stage::new(store.fresh(), shut.before(&victim.registry));
        {
            let journal = stage.open().await;
            open_case(journal.as_ref(), victim, Action::Rollover).await;
            let executor = stage.executor(journal.clone());
            until("the gate", || async {
                executor.drain().await.unwrap();
                let line = case_of(journal.as_ref(), victim.credential()).await?;
                (line.case.state.current()?.act == until_act && line.case.state.attempts > 0).then_some(())
            })
            .await;
        }
        assert_eq!(ours.alive().await, 3, "old, new and a bystander");
        stage.registry = std::sync::Arc::new(victim.registry.clone());
        stage.store.leases_end().await;
        let journal = stage.open().await;
        record(journal.as_ref(), vec![finding(victim, "active")]).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert_eq!(line.case.directive.action, Action::Contain);
        assert_one_end(&journal, &line, "taken over").await;
        ours.assert_rotated(&format!("taken over at {until_act:?}")).await;
    }
}

async fn a_new_secret_id_that_leaks_before_the_old_one_is_cut_takes_both_with_it(store: Store) {
    let ground = Ground::new().await;
    let ours = ground.approle(consumers(3_600_000, Late::Hold)).await;
    let victim = &ours.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), victim, Action::Rollover).await;
    run_until(&stage, &journal, victim, "the promotion", is_promoted).await;
    let second = victim.stored().await.2;
    record(journal.as_ref(), vec![registered(victim, 2), finding_of(victim, 2, "active")]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "both leaked").await;
    ours.assert_rotated("both leaked").await;
    assert!(ours.log_in(&second).await.is_none(), "the second one still works");
    assert_eq!(victim.kept().await, [3]);
}

/// A gate that always says the same.
#[derive(Clone)]
struct Shut {
    act: Act,
    kind: FailureKind,
}

#[async_trait]
impl Between for Shut {
    async fn pass(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        if act == self.act {
            return Err(Failure::new(self.kind, "injected"));
        }
        inner.pass(act, subject).await
    }
}

async fn a_candidate_that_is_refused_is_destroyed_and_the_old_one_works_on(store: Store) {
    let ground = Ground::new().await;
    let ours = ground.approle(Adoption::default()).await;
    let victim = &ours.victim;
    let shut = Shut { act: Act::Test, kind: FailureKind::Refused };
    let stage = Stage::new(store, shut.before(&victim.registry));
    let journal = stage.open().await;
    open_case(journal.as_ref(), victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    until("the case to be parked", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::CandidateRejected }).then_some(())
    })
    .await;
    assert!(ours.log_in(&victim.old.1).await.is_some(), "what worked before works");
    assert_eq!((ours.alive().await, victim.candidate().await), (2, None));
    assert_eq!(victim.stored().await.0, 1, "nothing was promoted");
}

async fn an_approle_that_is_revoked_has_its_one_secret_id_destroyed(store: Store) {
    let ground = Ground::new().await;
    let ours = ground.approle(Adoption::default()).await;
    let victim = &ours.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let run = crate::stage::new_run();
    let grant = curfew::event::GrantSpec {
        credential: victim.credential().clone(),
        tenure: curfew::task::Tenure::Minted,
        principal: None,
        expires_ms: None,
    };
    record(journal.as_ref(), vec![started(&run, vec![grant]), ended(&run)]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    assert!(ours.log_in(&victim.old.1).await.is_none());
    assert!(ours.log_in(&ours.bystander).await.is_some(), "P6: never all of the role");
    assert_eq!(ours.alive().await, 1);
}

async fn a_consumer_that_cannot_log_in_with_the_new_secret_id_gets_the_old_one_back(store: Store) {
    let ground = Ground::new().await;
    let ours = ground.approle(consumers(3_600_000, Late::Hold)).await;
    let victim = &ours.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), victim, Action::Rollover).await;
    run_until(&stage, &journal, victim, "the promotion", is_promoted).await;
    assert_eq!(ours.alive().await, 3, "old, new and a bystander");
    record(journal.as_ref(), vec![says(victim, 2, "billing", false), says(victim, 2, "web", true)]).await;
    let unhealthy = |line: &CaseLine| is_held(line, HoldReason::Unhealthy);
    let line = run_until(&stage, &journal, victim, "the way back", unhealthy).await;
    ours.assert_given_back("unhealthy").await;
    // A person has it tried again.
    let resumed = curfew::case::record::Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), now_ms()).await.unwrap();
    let again = |line: &CaseLine| line.case.state.turn.new.as_ref().is_some_and(|new| new.version == 4);
    run_until(&stage, &journal, victim, "another new value", again).await;
    record(journal.as_ref(), vec![says(victim, 4, "billing", false), says(victim, 4, "web", false)]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    ours.assert_rotated("tried again").await;
}

async fn giving_the_old_secret_id_back_survives_every_kill(store: Store) {
    let ground = Ground::new().await;
    every_kill_of(async |death| {
        let what = format!("approle killed {death:?} on the way back");
        let ours = ground.approle(consumers(3_600_000, Late::Hold)).await;
        let works = async || {
            let (_, _, now) = ours.victim.stored().await;
            assert!(ours.log_in(&now).await.is_some(), "{what}: what consumers read works at every instant");
        };
        let died = killed_on_the_way_back(store.fresh(), &ours.victim, death, works).await;
        ours.assert_given_back(&what).await;
        died
    })
    .await;
}
