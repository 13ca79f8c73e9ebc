//! Static roles of Vault's database engine: every plan killed at every append, each call failed in each way, each effect
//! repeated, each reply cut; and what happens to them, told one by one on real servers.
//!
//! A process that is killed has forgotten the old password: the one after it has connectors of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Level, Output, Residue, Verdict};
use curfew::case::state::Phase;
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::{Adoption, Keeper, Late, PasswordRules, Place, Recipe, Users};
use curfew::connector::{Connector, Failure, Gate, Registry, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::journal::{CaseLine, Journal};
use curfew::outcome;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{Ground, Victim, assert_one_end, finding_of, one_end, registered, validity_of};
use crate::endure::{self, Trial};
use crate::stage::{Between, Stage, case_of, ended, record, started};
use crate::store::Store;
use crate::world::{Proxy, unique, until};

/// A static role: as a victim, and what it was when the case began.
struct Minted {
    victim: Victim,
    /// The version of its first value.
    first: i64,
}

impl Ground {
    async fn minted(&self) -> Minted {
        self.minted_by(&self.pg.host, Adoption::default()).await
    }

    /// Vault reaches the database at `host`.
    async fn minted_by(&self, host: &str, adoption: Adoption) -> Minted {
        let user = unique("static").replace('-', "_");
        let pool = self.pg.pool().await;
        let create = AssertSqlSafe(format!("CREATE ROLE \"{user}\" LOGIN PASSWORD 'set-by-a-person'"));
        sqlx::query(create).execute(&pool).await.unwrap();
        let mount = self.admin.database_at(host).await;
        let role = json!({ "db_name": "pg", "username": user, "rotation_period": "24h" });
        self.admin.done("POST", &format!("{mount}/static-roles/service"), role).await;
        let recipe = Recipe {
            name: user.clone(),
            credential: CredentialId::new(Kind::PostgresRole, "appdb", &user).unwrap(),
            place: Place {
                keeper: Keeper::StaticRole,
                realm: "test".to_owned(),
                mount,
                path: "static-creds/service".to_owned(),
                field: "password".to_owned(),
                user_field: None,
            },
            users: Users::One(user.clone()),
            password: PasswordRules::default(),
            adoption,
            environment: Some("test".to_owned()),
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
            copies: Vec::new(),
            webhooks: Vec::new(),
        };
        let registry = self.registry(&recipe).await;
        let old = (user, String::new());
        let mut victim = Victim {
            recipe,
            registry,
            old,
            hook: None,
            first: 1,
            shelf: super::safe::Shelf::of(&self.admin),
            behind: super::Behind::Postgres,
            pg: self.pg.clone(),
        };
        let (first, value) = handed_out(&victim).await;
        victim.old.1 = value;
        Minted { victim, first }
    }
}

/// What Vault hands out: version and value.
async fn handed_out(victim: &Victim) -> (i64, String) {
    let Place { mount, path, .. } = &victim.recipe.place;
    let (status, body) = victim.shelf.admin.call("GET", &format!("{mount}/{path}"), Value::Null).await;
    assert_eq!(status, 200, "{body}");
    let text = |name: &str| body["data"][name].as_str().unwrap().to_owned();
    let at: jiff::Timestamp = text("last_vault_rotation").parse().unwrap();
    (at.as_millisecond(), text("password"))
}

/// Somebody has it rotated.
async fn rotated_by_hand(victim: &Victim) {
    let path = format!("{}/rotate-role/service", victim.recipe.place.mount);
    victim.shelf.admin.done("POST", &path, json!({})).await;
}

impl Minted {
    async fn open_case(&self, journal: &dyn Journal, action: Action) {
        let found = finding_of(&self.victim, self.first, validity_of(action));
        record(journal, vec![registered(&self.victim, self.first), found]).await;
    }

    /// As the witness sees it.
    async fn assert_rotated(&self, line: &CaseLine, what: &str) {
        let (version, value) = handed_out(&self.victim).await;
        let user = self.victim.old.0.clone();
        assert!(version > self.first, "{what}");
        assert!(self.victim.works(&(user, value)).await, "{what}: what Vault hands out does not work");
        assert!(!self.victim.works(&self.victim.old).await, "{what}: the old value still works");
        let new = line.case.state.turn.new.as_ref();
        assert_eq!(new.map(|new| new.version), Some(version), "{what}: not rotated again behind the case's back");
    }
}

/// One that is rotated.
struct Rotated<'a> {
    ground: &'a Ground,
    minted: Minted,
    action: Action,
}

impl Trial for Rotated<'_> {
    fn credential(&self) -> &CredentialId {
        self.minted.victim.credential()
    }

    fn registry(&self) -> Registry {
        self.minted.victim.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        self.minted.open_case(journal, self.action).await;
    }

    async fn died(&self, what: &str) -> Registry {
        let victim = &self.minted.victim;
        let now = (victim.old.0.clone(), handed_out(victim).await.1);
        assert!(victim.works(&now).await, "{what}: what Vault hands out works at every instant");
        self.ground.registry(&victim.recipe).await
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, forgot: bool, what: &str) {
        let level = one_end(journal, line, what).await;
        assert!(forgot || level == Level::Target, "{what}: {level:?}");
        self.minted.assert_rotated(line, what).await;
    }
}

async fn every_kill(store: Store, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || Rotated { ground: &ground, minted: ground.minted().await, action };
    endure::every_kill(&store, 3, fresh).await;
}

async fn every_fault(store: Store, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || Rotated { ground: &ground, minted: ground.minted().await, action };
    endure::every_fault(&store, 6, fresh).await;
}

over_both! {
    a_static_role_contained_survives_every_kill,
    a_static_role_rolled_over_survives_every_kill,
    a_static_role_contained_survives_every_fault,
    a_static_role_rolled_over_survives_every_fault,
    a_leaked_static_password_is_replaced_and_seen_dead,
    a_rotation_that_answers_500_and_happens_later_is_not_repeated,
    a_value_that_somebody_else_replaced_is_looked_at_and_closed_as_dead,
    a_rotation_of_somebody_else_just_before_ours_is_as_good,
    a_process_that_forgot_the_old_password_has_the_issuers_word,
    a_half_made_rotation_is_mended_by_another,
    a_user_that_cannot_log_in_parks_the_case,
    consumers_that_still_use_the_old_password_are_waited_for,
    a_static_role_that_is_revoked_cannot_log_in_whatever_vault_hands_out,
}

async fn a_static_role_contained_survives_every_kill(store: Store) {
    every_kill(store, Action::Contain).await;
}

async fn a_static_role_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Action::Rollover).await;
}

async fn a_static_role_contained_survives_every_fault(store: Store) {
    every_fault(store, Action::Contain).await;
}

async fn a_static_role_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Action::Rollover).await;
}

async fn a_leaked_static_password_is_replaced_and_seen_dead(store: Store) {
    let ground = Ground::new().await;
    let minted = ground.minted().await;
    let (victim, old) = (&minted.victim, &minted.victim.old);
    let mut session = ground.pg.login(&old.0, &old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    minted.open_case(journal.as_ref(), Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    // By a login with the old one: it was remembered.
    assert_one_end(&journal, &line, "leaked").await;
    minted.assert_rotated(&line, "leaked").await;
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "the session outlived its password");
    let rows = journal.outbox(0, 100).await.unwrap();
    let told = rows.iter().find(|row| row.kind == outcome::Kind::Rotated).unwrap();
    let told: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(told["data"]["store"]["path"], "static-creds/service");
    assert_eq!(told["data"]["old"]["version"], minted.first);
    let all = rows.iter().map(|row| String::from_utf8_lossy(&row.body).into_owned()).collect::<String>();
    assert!(!all.contains(&old.1) && !all.contains(&handed_out(victim).await.1));
    // What was remembered of it went with the case.
    let rotation = victim.registry.rotation(&line.case).unwrap();
    let which = curfew::connector::recipe::Which::Version(minted.first);
    assert!(rotation.store.read(&victim.recipe.place, which).await.unwrap().is_none());
}

/// Counts what reaches Vault, and holds each further one back until Vault has rotated by itself.
#[derive(Clone)]
struct OnlyOnce {
    asked: Arc<AtomicUsize>,
    later: Arc<AtomicBool>,
}

#[async_trait]
impl Between for OnlyOnce {
    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        if act != Act::Mint {
            return inner.perform(act, subject).await;
        }
        if self.asked.load(Ordering::SeqCst) > 0 && !self.later.load(Ordering::SeqCst) {
            return Err(Failure::new(FailureKind::Unavailable, "injected: not yet"));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        inner.perform(act, subject).await
    }
}

async fn a_rotation_that_answers_500_and_happens_later_is_not_repeated(store: Store) {
    let ground = Ground::new().await;
    let proxy = Proxy::to(&ground.pg.host).await;
    let minted = ground.minted_by(&proxy.address, Adoption::default()).await;
    let victim = &minted.victim;
    let once = OnlyOnce { asked: Arc::default(), later: Arc::default() };
    let stage = Stage::new(store, once.before(&victim.registry));
    let journal = stage.open().await;
    proxy.off();
    minted.open_case(journal.as_ref(), Action::Contain).await;
    let executor = stage.executor(journal.clone());
    until("the 500", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        (line.case.state.attempts >= 1).then_some(())
    })
    .await;
    assert_eq!(handed_out(victim).await.0, minted.first);
    proxy.on();
    let (later, _) = until("Vault's own retry", || async {
        Some(handed_out(victim).await).filter(|(version, _)| *version > minted.first)
    })
    .await;
    once.later.store(true, Ordering::SeqCst);
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "500").await;
    minted.assert_rotated(&line, "500").await;
    assert_eq!(handed_out(victim).await.0, later, "what Vault did by itself counts");
}

async fn a_value_that_somebody_else_replaced_is_looked_at_and_closed_as_dead(store: Store) {
    let ground = Ground::new().await;
    let minted = ground.minted().await;
    let victim = &minted.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    minted.open_case(journal.as_ref(), Action::Contain).await;
    // P6: the finding is about a value that is current no more when the case comes to it.
    rotated_by_hand(victim).await;
    let now = handed_out(victim).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Verify);
    let Verdict::Dead { level, .. } = line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(level, Level::Issuer, "nobody here ever knew the old value");
    assert_eq!(handed_out(victim).await, now, "nothing was rotated again");
}

/// Somebody else has it rotated just before we do, once.
#[derive(Clone)]
struct Rival {
    mount: String,
    admin: crate::admin::Admin,
    done: Arc<AtomicUsize>,
}

#[async_trait]
impl Between for Rival {
    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        if act == Act::Mint && self.done.fetch_add(1, Ordering::SeqCst) == 0 {
            self.admin.done("POST", &format!("{}/rotate-role/service", self.mount), json!({})).await;
        }
        inner.perform(act, subject).await
    }
}

async fn a_rotation_of_somebody_else_just_before_ours_is_as_good(store: Store) {
    let ground = Ground::new().await;
    let minted = ground.minted().await;
    let victim = &minted.victim;
    let rival = Rival { mount: victim.recipe.place.mount.clone(), admin: ground.admin.clone(), done: Arc::default() };
    let stage = Stage::new(store, rival.before(&victim.registry));
    let journal = stage.open().await;
    minted.open_case(journal.as_ref(), Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(one_end(&journal, &line, "rival").await, Level::Issuer);
    minted.assert_rotated(&line, "rival").await;
}

/// The gate of the test stays shut.
#[derive(Clone)]
struct Shut;

#[async_trait]
impl Between for Shut {
    async fn pass(&self, _: &dyn Connector, _: Act, _: &Subject) -> Result<Gate, Failure> {
        Err(Failure::new(FailureKind::Unavailable, "injected: shut"))
    }
}

async fn a_process_that_forgot_the_old_password_has_the_issuers_word(store: Store) {
    let ground = Ground::new().await;
    let minted = ground.minted().await;
    let victim = &minted.victim;
    let mut stage = Stage::new(store, Shut.before(&victim.registry));
    {
        let journal = stage.open().await;
        minted.open_case(journal.as_ref(), Action::Contain).await;
        let executor = stage.executor(journal.clone());
        until("the rotation", || async {
            executor.drain().await.unwrap();
            let line = case_of(journal.as_ref(), victim.credential()).await?;
            line.case.state.turn.new.is_some().then_some(())
        })
        .await;
    }
    stage.registry = Arc::new(ground.registry(&victim.recipe).await);
    stage.store.leases_end().await;
    let journal = stage.open().await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(one_end(&journal, &line, "forgotten").await, Level::Issuer);
    minted.assert_rotated(&line, "forgotten").await;
}

/// Somebody sets a password at the database by hand, once, just before the test.
#[derive(Clone)]
struct ByHand {
    user: String,
    pool: sqlx::PgPool,
    done: Arc<AtomicUsize>,
}

#[async_trait]
impl Between for ByHand {
    async fn pass(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        if act == Act::Test && self.done.fetch_add(1, Ordering::SeqCst) == 0 {
            let sql = format!("ALTER ROLE \"{}\" PASSWORD 'by-hand'", self.user);
            sqlx::query(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
        }
        inner.pass(act, subject).await
    }
}

async fn a_half_made_rotation_is_mended_by_another(store: Store) {
    let ground = Ground::new().await;
    let minted = ground.minted().await;
    let victim = &minted.victim;
    let by_hand = ByHand { user: victim.old.0.clone(), pool: ground.pg.pool().await, done: Arc::default() };
    let stage = Stage::new(store, by_hand.before(&victim.registry));
    let journal = stage.open().await;
    minted.open_case(journal.as_ref(), Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.state.turn.rejected, 1, "what Vault handed out was tried, and did not work");
    assert_one_end(&journal, &line, "half made").await;
    minted.assert_rotated(&line, "half made").await;
}

async fn a_user_that_cannot_log_in_parks_the_case(store: Store) {
    let ground = Ground::new().await;
    let minted = ground.minted().await;
    let victim = &minted.victim;
    let pool = ground.pg.pool().await;
    let alter = |what: &str| AssertSqlSafe(format!("ALTER ROLE \"{}\" {what}", victim.old.0));
    sqlx::query(alter("NOLOGIN")).execute(&pool).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    minted.open_case(journal.as_ref(), Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let line = until("the case to be parked", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::CandidateRejected }).then_some(line)
    })
    .await;
    let (version, value) = handed_out(victim).await;
    assert_eq!(line.case.state.turn.new.as_ref().map(|new| new.version), Some(version), "one rotation");
    // Nothing was changed at the database but the password; a person lets it log in, and has it tried again.
    sqlx::query(alter("LOGIN")).execute(&pool).await.unwrap();
    assert!(victim.works(&(victim.old.0.clone(), value)).await);
    let resumed = curfew::case::record::Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
}

async fn consumers_that_still_use_the_old_password_are_waited_for(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["billing".into()], within_ms: 3_600_000, late: Late::Hold, ..Adoption::default() };
    let minted = ground.minted_by(&ground.pg.host, adoption).await;
    let (victim, old) = (&minted.victim, &minted.victim.old);
    let session = ground.pg.login(&old.0, &old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    minted.open_case(journal.as_ref(), Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let line = until("the gate", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        (line.case.state.current()?.act == Act::Adopt).then_some(line)
    })
    .await;
    assert!(line.case.state.turn.set_ms.is_some(), "by the database's clock, what began before is of the old value");
    drop(session);
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    one_end(&journal, &line, "adopted").await;
    minted.assert_rotated(&line, "adopted").await;
}

async fn a_static_role_that_is_revoked_cannot_log_in_whatever_vault_hands_out(store: Store) {
    let ground = Ground::new().await;
    let minted = ground.minted().await;
    let victim = &minted.victim;
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
    let Verdict::Dead { level, residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(*level, Level::Target);
    assert!(
        residue.contains(&Residue::OldValueStored),
        "Vault's role is still there, and says a password: {residue:?}"
    );
    let login = async || {
        let now = handed_out(victim).await.1;
        victim.works(&(victim.old.0.clone(), now)).await
    };
    assert!(!victim.works(&victim.old).await && !login().await);
    // Vault goes on rotating it, which opens nothing.
    rotated_by_hand(victim).await;
    assert!(!login().await);
}
