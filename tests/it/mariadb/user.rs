//! The life of a stored password at a real MariaDB, with a store in memory.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Generation, Presence};
use curfew::case::turn::Turn;
use curfew::connector::Gate;
use curfew::connector::recipe::{PasswordRules, Rotation};
use sqlx::Executor as _;
use uuid::Uuid;

use super::life::Rotating;
use super::{hashed, least, run, shared, target_by};
use crate::postgres::shelf::DEAD;
use crate::world::{Proxy, env, until};

#[tokio::test]
async fn a_single_user_switches_and_its_old_sessions_end() {
    let mut life = Rotating::in_mariadb(false).await;
    life.target.self_check().await.unwrap();
    let seen = life.look().await;
    assert_eq!((seen.presence, seen.protected), (Presence::Present, false));
    assert_eq!(seen.principal_id, Some(format!("{}@%", life.user(0))));
    let mut before = life.login(0, &life.old).await.unwrap();
    assert_eq!(life.probe().await.0, Answer::Accepted);

    life.offer();
    life.act(Act::Set).await;
    life.act(Act::Set).await;
    assert!(!life.logs_in(0, &life.old).await && life.logs_in(0, &life.new).await);
    assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open));
    life.promote();
    let mut after = life.login(0, &life.new).await.unwrap();
    // The old value is refused; a session that was opened with it lives.
    before.execute("SELECT 1").await.unwrap();
    assert_eq!(life.probe().await, (Answer::Accepted, true, true));
    assert!(matches!(life.gate(Act::Adopt).await, Ok(Gate::Shut { .. })));
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert!(before.execute("SELECT 1").await.is_err());
    after.execute("SELECT 1").await.unwrap();
    assert_eq!(life.act(Act::EndSessions).await.derived, 0);
    assert_eq!(life.gate(Act::Adopt).await, Ok(Gate::Open));
    assert_eq!(life.probe().await, DEAD);
    after.execute("SELECT 1").await.unwrap();
    // A later look at the same old value, when it is not stored any more: an account has one password.
    life.shelf.destroy(1);
    assert_eq!(life.probe().await, DEAD);
}

#[tokio::test]
async fn two_users_take_turns_and_nobody_is_cut_off() {
    let mut life = Rotating::in_mariadb(true).await;
    let both = life.look().await.principal_id.unwrap();
    assert_eq!(both.split(',').count(), 2);
    let before = life.login(0, &life.old).await.unwrap();
    life.renew().await;
    assert!(life.logs_in(0, &life.old).await && life.logs_in(1, &life.new).await, "both work");
    assert_eq!(life.probe().await.0, Answer::Accepted);

    assert!(matches!(life.gate(Act::Adopt).await, Ok(Gate::Shut { .. })), "a session is left");
    life.recipe.adoption.within_ms = 0;
    assert_eq!(life.gate(Act::Adopt).await, Ok(Gate::Late));
    drop(before);
    until("adoption", || async { (life.gate(Act::Adopt).await == Ok(Gate::Open)).then_some(()) }).await;

    let mut late = life.login(0, &life.old).await.unwrap();
    life.act(Act::Disable).await;
    life.act(Act::Disable).await;
    assert!(!life.logs_in(0, &life.old).await);
    assert_eq!(life.probe().await, (Answer::Accepted, true, true));
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert!(late.execute("SELECT 1").await.is_err());
    assert_eq!(life.probe().await, DEAD);
    // Its password is nobody's: it does not come back with the lock.
    life.sql(0, "ALTER USER {} ACCOUNT UNLOCK").await;
    assert!(!life.logs_in(0, &life.old).await);
    assert_eq!(life.probe().await, DEAD);
    // Not stored any more, and not locked: nothing can be said, until it is.
    life.shelf.destroy(1);
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    life.sql(0, "ALTER USER {} ACCOUNT LOCK").await;
    assert_eq!(life.probe().await, DEAD);

    // The next turn goes the other way.
    life.turn = Turn { old: life.turn.new.take(), ..Turn::default() };
    life.old = life.new.clone();
    life.renew().await;
    life.act(Act::Disable).await;
    life.act(Act::EndSessions).await;
    assert_eq!(life.probe().await, DEAD);
    assert!(life.logs_in(0, &life.new).await && !life.logs_in(1, &life.old).await);
    // The first value's user has the third one now: only the value is dead.
    let mut of_now = life.login(0, &life.new).await.unwrap();
    (life.turn.set_ms, life.turn.mark) = (None, None);
    life.turn.old = Some(Generation { version: 1, user: None });
    assert_eq!(life.probe().await, DEAD);
    of_now.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn what_somebody_wrote_back_is_not_cut_off() {
    let mut life = Rotating::in_mariadb(true).await;
    life.look().await;
    life.renew().await;
    // Before the old user is shut, its value is what consumers read again.
    life.shelf.put(Some(&life.user(0)), &life.old);
    let failure = life.refusal(Act::Disable).await;
    assert_eq!((failure.kind, &*failure.note), (FailureKind::Refused, "consumers read a value of this user"));
    assert!(life.logs_in(0, &life.old).await);
    // Without a word of the store nobody is shut out.
    life.shelf.fail(Some(FailureKind::Unavailable));
    assert_eq!(life.refusal(Act::Disable).await.kind, FailureKind::Unavailable);
    assert!(life.logs_in(0, &life.old).await);
    // What leaked goes all the same, and waits for no store.
    life.contains = true;
    life.act(Act::Disable).await;
    assert!(!life.logs_in(0, &life.old).await);
}

#[tokio::test]
async fn a_leaked_value_dies_before_another_comes() {
    for two in [false, true] {
        let mut life = Rotating::in_mariadb(two).await;
        life.contains = true;
        life.look().await;
        let mut session = life.login(0, &life.old).await.unwrap();
        life.act(Act::Disable).await;
        assert_eq!(life.act(Act::EndSessions).await.derived, 1);
        assert!(session.execute("SELECT 1").await.is_err());
        assert_eq!(life.probe().await, DEAD, "with nothing in its place yet");
        life.renew().await;
        let place = usize::from(two);
        assert!(life.logs_in(place, &life.new).await && !life.logs_in(0, &life.old).await);
        life.act(Act::EndSessions).await;
        assert_eq!(life.probe().await, DEAD);
    }
}

#[tokio::test]
async fn what_nothing_replaces_ends_with_all_of_its_users() {
    for (two, promoted) in [(false, false), (true, false), (true, true)] {
        let mut life = Rotating::in_mariadb(two).await;
        life.look().await;
        if promoted {
            life.renew().await;
        }
        (life.contains, life.ends) = (true, true);
        assert_eq!(life.probe().await.0, Answer::Accepted);
        let place = usize::from(promoted);
        let value = if promoted { life.new.clone() } else { life.old.clone() };
        let mut of_now = life.login(place, &value).await.unwrap();
        life.act(Act::Disable).await;
        life.act(Act::Disable).await;
        assert_eq!(life.probe().await, (Answer::Accepted, true, true), "a session is left");
        assert_eq!(life.act(Act::EndSessions).await.derived, 1);
        assert!(of_now.execute("SELECT 1").await.is_err());
        assert_eq!(life.probe().await, DEAD);
        life.shelf.destroy(1);
        assert_eq!(life.probe().await, DEAD);
        for place in 0..life.recipe.users.names().len() {
            life.sql(place, "ALTER USER {} ACCOUNT UNLOCK").await;
            assert!(!life.logs_in(place, &value).await, "its password is nobody's");
        }
        life.sql(0, "DROP USER {}").await;
        let again = life.target.perform(Act::Disable, &life.subject()).await.map_err(|failure| failure.kind);
        assert_eq!(again.err(), (!two).then_some(FailureKind::Gone));
    }
}

#[tokio::test]
async fn what_was_set_is_undone() {
    let mut life = Rotating::in_mariadb(false).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    life.act(Act::Restore).await;
    life.act(Act::Restore).await;
    assert!(life.logs_in(0, &life.old).await && !life.logs_in(0, &life.new).await);
    // What leaked does not come back.
    life.contains = true;
    life.act(Act::Restore).await;
    life.sql(0, "ALTER USER {} ACCOUNT UNLOCK").await;
    assert!(!life.logs_in(0, &life.old).await && !life.logs_in(0, &life.new).await);

    let mut life = Rotating::in_mariadb(true).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    life.act(Act::Restore).await;
    assert!(life.logs_in(0, &life.old).await && !life.logs_in(1, &life.new).await);
    life.sql(1, "ALTER USER {} ACCOUNT UNLOCK").await;
    assert!(!life.logs_in(1, &life.new).await);
}

#[tokio::test]
async fn only_our_own_fresh_candidate_is_set() {
    let mut life = Rotating::in_mariadb(true).await;
    life.look().await;
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused, "there is none");
    life.offer();
    let (ours, key) = (life.new.clone(), life.key);
    life.key = Uuid::new_v4();
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused, "another case's");
    life.key = key;
    life.shelf.offer(Some(&life.user(0)), &ours, key);
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused, "another user's");
    for bad in ["", "********************************************", "short", &life.old.clone()] {
        life.shelf.offer(Some(&life.user(1)), bad, key);
        assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Rejected, "{bad}");
    }
    life.offer();
    life.shelf.fail(Some(FailureKind::Unknown));
    let failure = life.refusal(Act::Set).await;
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Unavailable, false), "not MariaDB's failure");
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    life.shelf.fail(None);
    // Somebody uses the user whose turn it would be: then this is no pair.
    life.set_by_hand(1, "somebody").await;
    life.sql(1, "ALTER USER {} ACCOUNT UNLOCK").await;
    let in_use = life.login(1, "somebody").await.unwrap();
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused);
    assert_eq!(life.refusal(Act::Restore).await.kind, FailureKind::Refused);
    drop(in_use);
    assert!(life.logs_in(1, "somebody").await && life.logs_in(0, &life.old).await, "nothing was changed");
    until("its end", || async { life.target.perform(Act::Set, &life.subject()).await.ok() }).await;
    let told = format!("{:?} {:?}", life.rotation(), life.rotation().candidate().await.unwrap());
    assert!(!told.contains(&life.new) && !told.contains(&life.old));
    life.recipe.password = PasswordRules { length: 1000, ..PasswordRules::default() };
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Rejected);
    assert_eq!(life.refusal(Act::Destroy).await.kind, FailureKind::Refused);
    assert_eq!(life.gate(Act::Promote).await.unwrap_err().kind, FailureKind::Refused);
    life.turn.old = None;
    for act in [Act::Set, Act::Disable, Act::EndSessions, Act::Restore] {
        assert_eq!(life.refusal(act).await.kind, FailureKind::Refused, "whose turn it is, nobody knows");
    }
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    let mut subject = life.subject();
    subject.rotation = None::<Rotation>;
    assert_eq!(life.target.observe(&subject).await.unwrap_err().kind, FailureKind::Refused);
}

#[tokio::test]
async fn the_least_grants_are_enough_and_no_value_is_in_the_logs() {
    let (url, name) = least(&shared()).await;
    for two in [false, true] {
        let mut life = Rotating::by(two, target_by(&url).await).await;
        life.target.self_check().await.unwrap();
        life.look().await;
        let _session = life.login(0, &life.old).await.unwrap();
        life.offer();
        life.act(Act::Set).await;
        life.act(Act::Restore).await;
        life.renew().await;
        if two {
            life.act(Act::Disable).await;
            // After the promotion consumers need the user that took the candidate.
            assert_eq!(life.refusal(Act::Restore).await.kind, FailureKind::Refused);
        }
        assert_eq!(life.act(Act::EndSessions).await.derived, 1);
        assert_eq!(life.probe().await, DEAD);
        let logged = std::fs::read(env("CURFEW_TEST_MARIADB_LOG")).unwrap();
        let logged = String::from_utf8_lossy(&logged);
        assert!(
            logged.contains("ALTER USER") && logged.contains(&life.user(0)) && logged.contains(&name),
            "it is logged"
        );
        let changes = super::changes(env("CURFEW_TEST_MARIADB_DATA").as_ref());
        assert!(changes.contains(&hashed(&life.new)), "the hash is in the binary log");
        for value in [&life.old, &life.new] {
            assert!(!logged.contains(value.as_str()) && !changes.contains(value.as_str()));
        }
    }
}

#[tokio::test]
async fn a_right_that_is_lacking_is_said() {
    let (url, own) = least(&shared()).await;
    let target = target_by(&url).await;
    let mut admin = super::admin().await;
    target.self_check().await.unwrap();
    for (right, lacks) in [
        ("PROCESS ON *.*", "PROCESS"),
        ("CREATE USER ON *.*", "CREATE USER"),
        ("CONNECTION ADMIN ON *.*", "CONNECTION ADMIN"),
        ("SELECT ON mysql.global_priv", "a right"),
        ("SELECT ON mysql.procs_priv", "a right"),
    ] {
        run(&mut admin, format!("REVOKE {right} FROM '{own}'@'%'")).await;
        let failure = target.self_check().await.unwrap_err();
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true), "{right}");
        assert!(failure.note.contains(lacks), "{right}: {}", failure.note);
        run(&mut admin, format!("GRANT {right} TO '{own}'@'%'")).await;
    }
    // Another did the change for us. Sessions that we cannot see may be left; those that we may not end are left.
    let mut life = Rotating::by(false, target).await;
    life.look().await;
    let mut session = life.login(0, &life.old).await.unwrap();
    life.renew().await;
    run(&mut admin, format!("REVOKE CONNECTION ADMIN ON *.* FROM '{own}'@'%'")).await;
    assert_eq!(life.refusal(Act::EndSessions).await.kind, FailureKind::Denied);
    assert_eq!(life.probe().await, (Answer::Refused, true, true));
    run(&mut admin, format!("REVOKE PROCESS ON *.* FROM '{own}'@'%'")).await;
    assert_eq!(life.probe().await, (Answer::Refused, true, true));
    run(&mut admin, format!("GRANT PROCESS, CONNECTION ADMIN ON *.* TO '{own}'@'%'")).await;
    assert_eq!(life.probe().await, (Answer::Accepted, true, true));
    session.execute("SELECT 1").await.unwrap();
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert_eq!(life.probe().await, DEAD);
    // Our own login is refused: that is about our access.
    for breaks in ["ACCOUNT LOCK", "ACCOUNT UNLOCK PASSWORD EXPIRE"] {
        run(&mut admin, format!("ALTER USER '{own}'@'%' {breaks}")).await;
        let failure = life.target.observe(&life.subject()).await.unwrap_err();
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true), "{breaks}");
    }
}

#[tokio::test]
async fn a_cut_or_late_answer_is_in_doubt_and_comes_again() {
    let url = shared();
    let host = url.rsplit_once('@').unwrap().1.trim_end_matches('/').to_owned();
    let proxy = Proxy::to(&host).await;
    let mut life = Rotating::by(false, target_by(&url.replace(&host, &proxy.address)).await).await;
    life.look().await;
    life.renew().await;
    proxy.off();
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    assert_eq!(life.refusal(Act::Restore).await.kind, FailureKind::Unavailable);
    assert_eq!(life.target.observe(&life.subject()).await.unwrap_err().kind, FailureKind::Unavailable);
    proxy.on();
    life.offer();
    // The statement reaches the server; its answer does not reach us.
    proxy.cut_after(b"ALTER USER");
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Unknown);
    assert!(life.logs_in(0, &life.new).await, "it was done");
    proxy.on();
    life.act(Act::Set).await;
    assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open));
    life.promote();
    proxy.delay();
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    let late = life.refusal(Act::Disable).await.kind;
    assert!(matches!(late, FailureKind::Unknown | FailureKind::Unavailable), "{late:?}");
    proxy.on();
    until("its death", || async { (life.probe().await == DEAD).then_some(()) }).await;
}
