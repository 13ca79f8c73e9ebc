//! Users of a MariaDB: every plan killed at every append, each call failed in each way, each effect repeated, each reply cut;
//! and what becomes of pairs that are none, of new values that leak, and of sessions.

use curfew::case::record::{Record, Residue, Verdict};
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::{Adoption, Late, Users};
use curfew::journal::CaseLine;
use sqlx::Executor as _;

use super::adoption::{consumers, every_kill_on_the_way_back, is_held, is_promoted, run_until};
use super::{Ground, Shape, assert_one_end, every_fault, every_kill, finding_of, open_case, registered};
use crate::mariadb::{admin, login, run};
use crate::stage::{Stage, now_ms, record};
use crate::store::Store;
use crate::world::unique;

// The plans are those of PostgreSQL's users, of which both journals see all: here each has its half.
over_each! {
    sqlite: one_user_contained_survives_every_kill,
        one_user_rolled_over_survives_every_kill,
        two_users_contained_survive_every_kill,
        two_users_rolled_over_survive_every_kill,
        one_user_that_ends_survives_every_kill,
        two_users_that_end_survive_every_kill,
        giving_the_old_value_back_survives_every_kill_with_one_user,
        giving_the_old_value_back_survives_every_kill_with_two_users;
    postgres: one_user_contained_survives_every_fault,
        one_user_rolled_over_survives_every_fault,
        two_users_contained_survive_every_fault,
        two_users_rolled_over_survive_every_fault,
        one_user_that_ends_survives_every_fault,
        two_users_that_end_survive_every_fault
}

over_both! {
    a_pair_that_has_drifted_apart_is_held,
    a_new_value_that_leaks_before_the_old_one_is_cut_takes_both_with_it,
    sessions_of_the_old_value_end_and_no_others,
    an_administrator_is_held_and_left_alone,
    a_value_that_aws_keeps_is_rotated_as_well,
}

/// The first of them with this password, the other locked.
pub(super) async fn make(users: &Users, password: &str) {
    let mut admin = admin().await;
    for (at, user) in users.names().into_iter().enumerate() {
        let account = format!("'{user}'@'%'");
        match at {
            0 => crate::mariadb::make(&mut admin, &account, password).await,
            _ => run(&mut admin, format!("CREATE USER {account} ACCOUNT LOCK")).await,
        }
    }
}

/// How many of them are not locked.
pub(super) async fn open(users: &Users) -> i64 {
    let mut admin = admin().await;
    let mut open = 0;
    for user in users.names() {
        let unlocked = "SELECT CAST(COUNT(*) AS SIGNED) FROM mysql.global_priv \
             WHERE User = ? AND COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) = 0";
        open += sqlx::query_scalar::<_, i64>(unlocked).bind(user).fetch_one(&mut admin).await.unwrap();
    }
    open
}

async fn one_user_contained_survives_every_kill(store: Store) {
    every_kill(store, Shape::MariaOne, Action::Contain).await;
}

async fn one_user_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Shape::MariaOne, Action::Rollover).await;
}

async fn two_users_contained_survive_every_kill(store: Store) {
    every_kill(store, Shape::MariaTwo, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_kill(store: Store) {
    every_kill(store, Shape::MariaTwo, Action::Rollover).await;
}

async fn one_user_that_ends_survives_every_kill(store: Store) {
    every_kill(store, Shape::MariaOne, Action::Revoke).await;
}

async fn two_users_that_end_survive_every_kill(store: Store) {
    every_kill(store, Shape::MariaTwo, Action::Revoke).await;
}

async fn giving_the_old_value_back_survives_every_kill_with_one_user(store: Store) {
    every_kill_on_the_way_back(store, Shape::MariaOne).await;
}

async fn giving_the_old_value_back_survives_every_kill_with_two_users(store: Store) {
    every_kill_on_the_way_back(store, Shape::MariaTwo).await;
}

async fn one_user_contained_survives_every_fault(store: Store) {
    every_fault(store, Shape::MariaOne, Action::Contain).await;
}

async fn one_user_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Shape::MariaOne, Action::Rollover).await;
}

async fn two_users_contained_survive_every_fault(store: Store) {
    every_fault(store, Shape::MariaTwo, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_fault(store: Store) {
    every_fault(store, Shape::MariaTwo, Action::Rollover).await;
}

async fn one_user_that_ends_survives_every_fault(store: Store) {
    every_fault(store, Shape::MariaOne, Action::Revoke).await;
}

async fn two_users_that_end_survive_every_fault(store: Store) {
    every_fault(store, Shape::MariaTwo, Action::Revoke).await;
}

/// A grant to one of them alone: consumers would break with the other.
async fn a_pair_that_has_drifted_apart_is_held(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::MariaTwo, Adoption::default()).await;
    let (mut admin, database) = (admin().await, unique("orders"));
    run(&mut admin, format!("CREATE DATABASE `{database}`")).await;
    let grant = |user: &str| format!("GRANT SELECT, INSERT ON `{database}`.* TO '{user}'@'%'");
    let users = victim.recipe.users.names();
    run(&mut admin, grant(users[0])).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let held = |line: &CaseLine| is_held(line, HoldReason::CandidateRejected);
    let line = run_until(&stage, &journal, &victim, "the case to be held", held).await;
    assert!(victim.works(&victim.old).await, "what worked before works");
    assert_eq!((victim.stored().await.0, victim.candidate().await), (1, None), "nothing is promoted or left");
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let told = format!("{:?}", timeline.records);
    assert!(told.contains("(grants on databases: 2)") && !told.contains(&database), "{told}");
    // A person makes them even, and has it tried again.
    run(&mut admin, grant(users[1])).await;
    journal.command(line.case.id, Some(Record::Resumed { by: "ann".into() }), now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "even").await;
    victim.assert_rotated("even").await;
}

async fn a_new_value_that_leaks_before_the_old_one_is_cut_takes_both_with_it(store: Store) {
    let ground = Ground::new().await;
    for shape in [Shape::MariaOne, Shape::MariaTwo] {
        let victim = ground.victim(shape, consumers(3_600_000, Late::Hold)).await;
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, Action::Rollover).await;
        run_until(&stage, &journal, &victim, "the promotion", is_promoted).await;
        let (version, user, second) = victim.stored().await;
        assert_eq!(version, 2);
        let mut session = login(&user, &second).await.unwrap();
        record(journal.as_ref(), vec![registered(&victim, 2), finding_of(&victim, 2, "active")]).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        let what = format!("{shape:?}");
        assert_one_end(&journal, &line, &what).await;
        victim.assert_rotated(&what).await;
        assert!(!victim.works(&(user, second)).await, "{what}: the second value works");
        assert!(session.execute("SELECT 1").await.is_err(), "{what}: a session of it lives");
        assert_eq!(victim.kept().await, [3], "{what}: the versions that are stored");
    }
}

async fn sessions_of_the_old_value_end_and_no_others(store: Store) {
    let ground = Ground::new().await;
    for (shape, action) in [
        (Shape::MariaOne, Action::Rollover),
        (Shape::MariaOne, Action::Contain),
        (Shape::MariaTwo, Action::Rollover),
        (Shape::MariaTwo, Action::Contain),
    ] {
        let what = format!("{shape:?} {action:?}");
        let victim = ground.victim(shape, Adoption::default()).await;
        let bystander = ground.victim(Shape::MariaOne, Adoption::default()).await;
        let mut session = login(&victim.old.0, &victim.old.1).await.unwrap();
        let mut other = login(&bystander.old.0, &bystander.old.1).await.unwrap();
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, action).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert_one_end(&journal, &line, &what).await;
        assert!(session.execute("SELECT 1").await.is_err(), "{what}: the session outlived its password");
        other.execute("SELECT 1").await.unwrap();
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{what}: {:?}", line.verdict) };
        assert!(!residue.contains(&Residue::Sessions), "{what}: {residue:?}");
    }
}

async fn an_administrator_is_held_and_left_alone(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::MariaTwo, Adoption::default()).await;
    let mut admin = admin().await;
    run(&mut admin, format!("GRANT ALL ON *.* TO '{}'@'%' WITH GRANT OPTION", victim.recipe.users.names()[1])).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let protected = |line: &CaseLine| is_held(line, HoldReason::Protected);
    run_until(&stage, &journal, &victim, "the case to be held", protected).await;
    assert!(victim.works(&victim.old).await);
    assert_eq!(victim.stored().await.0, 1);
}

async fn a_value_that_aws_keeps_is_rotated_as_well(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::MariaAws, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "AWS").await;
    victim.assert_rotated("AWS").await;
}
