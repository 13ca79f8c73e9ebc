//! What happens to findings of stored credentials, told one by one on real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Output, Residue, Verdict};
use curfew::case::state::Phase;
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::{Adoption, Late};
use curfew::connector::{Connector, Failure, Gate, Realm, Registry, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{Data, Type};
use curfew::guard::Mode;
use curfew::journal::Filter;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::adoption::{consumers, is_promoted, run_until};
use super::{Ground, Shape, assert_one_end, finding, finding_of, open_case, registered};
use crate::stage::{Between, Stage, case_of, ended, event, record, started};
use crate::store::Store;
use crate::world::until;

over_both! {
    ten_findings_of_one_credential_are_one_rotation,
    a_finding_of_a_value_that_was_replaced_is_looked_at_and_closed_as_dead,
    a_rollover_that_runs_is_taken_over_by_a_containment,
    a_new_value_that_leaks_before_the_old_one_is_cut_takes_both_with_it,
    every_candidate_is_rejected_and_the_old_value_works_on,
    a_user_whom_nothing_lets_in_gets_its_old_value_back,
    a_store_that_is_down_between_set_and_promote_delays_and_loses_nothing,
    an_open_session_of_the_old_value_ends,
    a_consumer_that_never_adopts_is_waited_for,
    a_consumer_that_is_late_is_cut_where_the_rule_says_so,
    a_finding_that_is_closed_takes_its_rollover_back,
    a_task_that_ends_while_its_credential_is_rotated_ends_it,
    an_older_value_that_still_works_is_contained,
    a_target_that_observes_holds_rotations_and_no_leases,
    the_old_password_that_is_set_again_behind_our_back_is_replaced_again,
    a_role_that_is_made_anew_with_the_leaked_password_is_contained,
}

async fn ten_findings_of_one_credential_are_one_rotation(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let mut events = vec![registered(&victim, 1)];
    events.extend((0..10).map(|_| finding(&victim, "active")));
    record(journal.as_ref(), events).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "ten findings").await;
    victim.assert_rotated("ten findings").await;
    assert_eq!(victim.stored().await.0, 2, "one rotation");
}

async fn a_finding_of_a_value_that_was_replaced_is_looked_at_and_closed_as_dead(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    stage.run_until_closed(&journal, victim.credential()).await;
    let (version, _, value) = victim.stored().await;
    // The scanner finds the old one in another place, and the inventory has not read the new one yet.
    record(journal.as_ref(), vec![finding(&victim, "active")]).await;
    let executor = stage.executor(journal.clone());
    let line = until("the look at it to end", || async {
        executor.drain().await.unwrap();
        let filter = Filter { credential: Some(victim.credential().clone()), closed: true, ..Filter::default() };
        let lines = journal.cases(filter).await.unwrap();
        lines.into_iter().find(|line| line.case.directive.action == Action::Verify && line.closed_ms.is_some())
    })
    .await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    assert_eq!(victim.stored().await, (version, victim.old.0.clone(), value), "nothing was rotated again");
}

async fn a_rollover_that_runs_is_taken_over_by_a_containment(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["billing".into()], within_ms: 3_600_000, late: Late::Hold, ..Adoption::default() };
    let victim = ground.victim(Shape::Two, adoption).await;
    // Somebody still uses the old user: the rollover waits for it.
    let session = ground.pg.login(&victim.old.0, &victim.old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    until("the promotion", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        line.case.state.turn.new.is_some().then_some(())
    })
    .await;
    assert!(victim.works(&victim.old).await, "a rollover lets the old one live until all have the new one");
    record(journal.as_ref(), vec![finding(&victim, "active")]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Contain);
    assert_one_end(&journal, &line, "taken over").await;
    victim.assert_rotated("taken over").await;
    drop(session);
}

/// No candidate is taken.
#[derive(Clone)]
struct Picky(Arc<AtomicUsize>);

#[async_trait]
impl Between for Picky {
    async fn pass(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        if act == Act::Test {
            self.0.fetch_add(1, Ordering::SeqCst);
            return Err(Failure::new(FailureKind::Rejected, "injected: not this one"));
        }
        inner.pass(act, subject).await
    }
}

/// The new value is promoted, the old one lives for those who have not adopted it; then the new one is found as well.
async fn a_new_value_that_leaks_before_the_old_one_is_cut_takes_both_with_it(store: Store) {
    let ground = Ground::new().await;
    let waits = consumers(3_600_000, Late::Hold);
    for shape in [Shape::One, Shape::Two, Shape::Spread] {
        let victim = ground.victim(shape, waits.clone()).await;
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, Action::Rollover).await;
        run_until(&stage, &journal, &victim, "the promotion", is_promoted).await;
        let second = victim.stored().await;
        assert_eq!(second.0, 2);
        let session = if victim.works(&victim.old).await { Some(victim.old.clone()) } else { None };
        let session = match &session {
            Some((user, value)) => Some(victim.pg.login(user, value).await.unwrap()),
            None => None,
        };
        assert_eq!(session.is_some(), shape != Shape::One, "of one user the old value is dead by now");
        record(journal.as_ref(), vec![registered(&victim, 2), finding_of(&victim, 2, "active")]).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        let what = format!("{shape:?}");
        assert_one_end(&journal, &line, &what).await;
        victim.assert_rotated(&what).await;
        assert!(!victim.works(&(second.1, second.2)).await, "{what}: the second value still works");
        assert_eq!(victim.kept().await, [3], "{what}: the versions that are stored");
        if let Some(mut session) = session {
            assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "{what}: a session lives");
        }
    }
}

async fn every_candidate_is_rejected_and_the_old_value_works_on(store: Store) {
    let ground = Ground::new().await;
    for shape in [Shape::One, Shape::Two, Shape::MariaOne, Shape::MariaTwo] {
        let victim = ground.victim(shape, Adoption::default()).await;
        let picky = Picky(Arc::default());
        let stage = Stage::new(store.fresh(), picky.before(&victim.registry));
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, Action::Rollover).await;
        let executor = stage.executor(journal.clone());
        until("the case to be parked", || async {
            executor.drain().await.unwrap();
            let line = case_of(journal.as_ref(), victim.credential()).await?;
            matches!(line.case.state.phase, Phase::Held { reason: HoldReason::CandidateRejected }).then_some(())
        })
        .await;
        assert_eq!(picky.0.load(Ordering::SeqCst), 3, "three candidates");
        assert!(victim.works(&victim.old).await, "{shape:?}: what worked before works");
        assert_eq!(victim.stored().await.0, 1, "nothing was promoted");
        assert_eq!(victim.candidate().await, None, "and no candidate is left");
    }
}

async fn a_user_whom_nothing_lets_in_gets_its_old_value_back(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let pool = ground.pg.pool().await;
    let role = &victim.old.0;
    let alter = |what: &str| AssertSqlSafe(format!("ALTER ROLE \"{role}\" VALID UNTIL '{what}'"));
    // Whatever password it gets, it is refused.
    sqlx::query(alter("2001-01-01")).execute(&pool).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let line = until("the case to be parked", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::CandidateRejected }).then_some(line)
    })
    .await;
    assert_eq!(victim.stored().await.0, 1, "nothing was promoted");
    sqlx::query(alter("infinity")).execute(&pool).await.unwrap();
    assert!(victim.works(&victim.old).await, "what worked before works");
    // A person has it tried again, now that the role is valid.
    let resumed = curfew::case::record::Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "tried again").await;
    victim.assert_rotated("tried again").await;
}

async fn a_store_that_is_down_between_set_and_promote_delays_and_loses_nothing(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let down = super::Down::of("vault-kv", curfew::case::plan::Act::Promote);
    let stage = Stage::new(store, down.before(&victim.registry));
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let executor = stage.executor(journal.clone());
    until("some attempts", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        (line.case.state.attempts >= 3).then_some(())
    })
    .await;
    assert!(!victim.works(&victim.old).await, "contained meanwhile");
    down.ends();
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "store down").await;
    victim.assert_rotated("store down").await;
}

async fn an_open_session_of_the_old_value_ends(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let mut session = ground.pg.login(&victim.old.0, &victim.old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "session").await;
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "the session outlived its password");
}

async fn a_consumer_that_never_adopts_is_waited_for(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["billing".into()], within_ms: 0, late: Late::Hold, ..Adoption::default() };
    let victim = ground.victim(Shape::Two, adoption).await;
    let session = ground.pg.login(&victim.old.0, &victim.old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    until("the case to be held", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::NotAdopted }).then_some(())
    })
    .await;
    assert!(victim.works(&victim.old).await, "nobody is cut off");
    let (_, user, value) = victim.stored().await;
    assert!(victim.works(&(user, value)).await, "and the new one works");
    drop(session);
}

async fn a_consumer_that_is_late_is_cut_where_the_rule_says_so(store: Store) {
    let ground = Ground::new().await;
    let adoption = Adoption { consumers: vec!["billing".into()], within_ms: 0, late: Late::Cut, ..Adoption::default() };
    let victim = ground.victim(Shape::Two, adoption).await;
    let _session = ground.pg.login(&victim.old.0, &victim.old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "late").await;
    victim.assert_rotated("late").await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("not dead") };
    assert!(residue.contains(&Residue::NotAdopted), "why is recorded: {residue:?}");
}

async fn a_finding_that_is_closed_takes_its_rollover_back(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let observed = finding(&victim, "unknown");
    let Data::FindingObserved(it) = &observed.data else { unreachable!() };
    let closed = curfew::event::FindingClosed { finding_key: it.finding_key.clone(), reason: "false_positive".into() };
    let closed = event(Type::FindingClosed, Data::FindingClosed(closed));
    record(journal.as_ref(), vec![registered(&victim, 1), observed]).await;
    record(journal.as_ref(), vec![closed]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.verdict, Verdict::Obsolete);
    assert!(victim.works(&victim.old).await);
    assert_eq!(victim.stored().await.0, 1);
}

async fn a_task_that_ends_while_its_credential_is_rotated_ends_it(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["billing".into()], within_ms: 3_600_000, late: Late::Hold, ..Adoption::default() };
    let victim = ground.victim(Shape::Two, adoption).await;
    let session = ground.pg.login(&victim.old.0, &victim.old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let run = crate::stage::new_run();
    let grant = curfew::event::GrantSpec {
        credential: victim.credential().clone(),
        tenure: curfew::task::Tenure::Minted,
        principal: None,
        expires_ms: None,
    };
    record(journal.as_ref(), vec![started(&run, vec![grant])]).await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    until("the promotion", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        line.case.state.turn.new.is_some().then_some(())
    })
    .await;
    record(journal.as_ref(), vec![ended(&run)]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Revoke);
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    assert!(!victim.works(&victim.old).await, "the old value");
    let path = format!("{}/data/{}", victim.recipe.place.mount, victim.recipe.place.path);
    let (_, body) = ground.admin.call("GET", &path, Value::Null).await;
    assert!(
        body["data"]["data"]["password"].is_null(),
        "nothing of it stays stored: {}",
        json!(body["data"]["metadata"])
    );
    let known = journal.known(&"default".into(), vec![victim.credential().clone()]).await.unwrap();
    assert!(known[0].credential.dead_ms.is_some(), "a later finding must not bring it back to life");
    let pool = ground.pg.pool().await;
    for user in victim.recipe.users.names() {
        let can: bool = sqlx::query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1")
            .bind(user)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert!(!can, "{user} can still log in");
    }
    drop(session);
}

async fn an_older_value_that_still_works_is_contained(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    // Somebody stored another value and never set it at the database.
    let path = format!("{}/data/{}", victim.recipe.place.mount, victim.recipe.place.path);
    let by_hand = json!({"data": {"username": victim.old.0, "password": "never-set-anywhere", "host": "db.example"}});
    ground.admin.done("POST", &path, by_hand).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    record(journal.as_ref(), vec![registered(&victim, 1), registered(&victim, 2), finding(&victim, "active")]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Contain, "called replaced, and it works");
    assert_one_end(&journal, &line, "older value").await;
    assert!(!victim.works(&victim.old).await);
    let (version, user, value) = victim.stored().await;
    assert_eq!(version, 3);
    assert!(victim.works(&(user, value)).await);
}

async fn a_target_that_observes_holds_rotations_and_no_leases(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let mut registry = victim.registry.clone();
    let observes = |registry: &mut Registry, prefixes| {
        let (name, mode) = ("appdb".to_owned(), Mode::Observe);
        registry.add_realm(Realm {
            name,
            mode,
            allowed_prefixes: prefixes,
            reducible: Vec::new(),
            targets: Vec::new(),
        });
    };
    observes(&mut registry, vec![victim.credential().id()]);
    let stage = Stage::new(store.fresh(), registry);
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let executor = stage.executor(journal.clone());
    until("the rotation to be held", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Observe }).then_some(())
    })
    .await;
    assert!(victim.works(&victim.old).await);
    // The same target behind a lease: what counts is the mode of the lease's realm.
    let mount = ground.admin.database().await;
    let mut registry = crate::admin::connectors(&ground.admin, &mount, true).await;
    observes(&mut registry, Vec::new());
    let stage = Stage::new(store.fresh(), registry);
    let journal = stage.open().await;
    let lease = ground.admin.database_credential(&mount).await;
    let id = CredentialId::new(Kind::VaultLease, "test", &lease.lease).unwrap();
    stage.task_ends(journal.as_ref(), &crate::stage::new_run(), &id, Some(&lease.username)).await;
    let line = stage.run_until_closed(&journal, &id).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
}

/// Just before this effect somebody with other ideas does something, once.
#[derive(Clone)]
struct Meddler {
    sql: Arc<str>,
    pool: sqlx::PgPool,
    done: Arc<AtomicUsize>,
    ahead_of: Act,
}

#[async_trait]
impl Between for Meddler {
    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        if act == self.ahead_of && self.done.fetch_add(1, Ordering::SeqCst) == 0 {
            sqlx::raw_sql(AssertSqlSafe(self.sql.to_string())).execute(&self.pool).await.unwrap();
        }
        inner.perform(act, subject).await
    }
}

async fn the_old_password_that_is_set_again_behind_our_back_is_replaced_again(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let (user, password) = &victim.old;
    let sql = format!("ALTER ROLE \"{user}\" LOGIN PASSWORD '{password}'").into();
    let meddler = Meddler { sql, pool: ground.pg.pool().await, done: Arc::default(), ahead_of: Act::Promote };
    let stage = Stage::new(store, meddler.before(&victim.registry));
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "set again").await;
    assert!(!victim.works(&victim.old).await);
    let (version, user, value) = victim.stored().await;
    assert_eq!(version, 3, "another value was promoted");
    assert!(victim.works(&(user, value)).await);
}

async fn a_role_that_is_made_anew_with_the_leaked_password_is_contained(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let (user, password) = &victim.old;
    let sql = format!("DROP ROLE \"{user}\"; CREATE ROLE \"{user}\" LOGIN PASSWORD '{password}'").into();
    let meddler = Meddler { sql, pool: ground.pg.pool().await, done: Arc::default(), ahead_of: Act::Promote };
    let stage = Stage::new(store, meddler.before(&victim.registry));
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    // The first plan ended in a login that came through; the second one looked at who has the name now.
    assert!(line.case.state.plan_no >= 2);
    assert_one_end(&journal, &line, "made anew").await;
    victim.assert_rotated("made anew").await;
}
