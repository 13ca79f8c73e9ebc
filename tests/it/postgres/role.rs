//! The life of a stored password at a real PostgreSQL, with a store in memory.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Presence};
use curfew::connector::Gate;
use curfew::connector::recipe::{PasswordRules, Rotation, Users};
use sqlx::{Connection as _, Executor as _};
use uuid::Uuid;

use super::shelf::{DEAD, Life, role_at, value};
use super::{admin, quoted, run};
use crate::admin::Postgres;
use crate::world::{Proxy, env, unique, until};

#[tokio::test]
async fn a_single_user_switches_and_its_old_sessions_end() {
    let mut life = Life::of(false).await;
    life.target.self_check().await.unwrap();
    let seen = life.look().await;
    assert_eq!((seen.presence, seen.protected), (Presence::Present, false));
    assert!(seen.principal_id.unwrap().parse::<u32>().unwrap() > 16_384);
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
    life.dead().await;
    after.execute("SELECT 1").await.unwrap();
    // A later look at the same old value, when it is not stored any more: a role has one password.
    life.shelf.destroy(1);
    assert_eq!(life.probe().await, DEAD);
}

#[tokio::test]
async fn two_users_take_turns_and_nobody_is_cut_off() {
    let mut life = Life::of(true).await;
    let oids = life.look().await.principal_id.unwrap();
    assert_eq!(oids.split(',').count(), 2);
    let before = life.login(0, &life.old).await.unwrap();
    life.renew().await;
    assert!(life.logs_in(0, &life.old).await && life.logs_in(1, &life.new).await, "both work");
    assert_eq!(life.probe().await.0, Answer::Accepted);

    let Ok(Gate::Shut { again_ms }) = life.gate(Act::Adopt).await else { panic!("a session is left") };
    let now_ms = curfew::clock::System::shared().wall_ms();
    assert!(again_ms > now_ms && again_ms <= now_ms + 5_000);
    // Set long ago, promoted just now: consumers could not have it before.
    let set_ms = life.turn.set_ms.replace(0);
    assert_eq!(life.gate(Act::Adopt).await, Ok(Gate::Late));
    life.turn.promoted_ms = Some(now_ms);
    assert!(matches!(life.gate(Act::Adopt).await, Ok(Gate::Shut { .. })), "no overlap");
    life.turn.set_ms = set_ms;
    life.recipe.adoption.within_ms = 0;
    assert_eq!(life.gate(Act::Adopt).await, Ok(Gate::Late));
    before.close().await.unwrap();
    until("adoption", || async { (life.gate(Act::Adopt).await == Ok(Gate::Open)).then_some(()) }).await;

    let mut late = life.login(0, &life.old).await.unwrap();
    life.act(Act::Disable).await;
    life.act(Act::Disable).await;
    assert!(!life.logs_in(0, &life.old).await);
    assert_eq!(life.probe().await, (Answer::Accepted, true, true));
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert!(late.execute("SELECT 1").await.is_err());
    assert_eq!(life.probe().await, DEAD);
    // Its password is nobody's: it does not come back with the right to log in.
    life.sql(0, "ALTER ROLE {} LOGIN").await;
    assert!(!life.logs_in(0, &life.old).await);
    assert_eq!(life.probe().await, DEAD);
    // Not stored any more, and it may log in: nothing can be said, until it may not.
    life.shelf.destroy(1);
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    life.sql(0, "ALTER ROLE {} NOLOGIN").await;
    assert_eq!(life.probe().await, DEAD);

    // The next turn goes the other way.
    life.turn = curfew::case::turn::Turn { old: life.turn.new.take(), ..Default::default() };
    life.old = life.new.clone();
    life.renew().await;
    life.act(Act::Disable).await;
    life.act(Act::EndSessions).await;
    assert_eq!(life.probe().await, DEAD);
    assert!(life.logs_in(0, &life.new).await && !life.logs_in(1, &life.old).await);
    // The first value's user has the third one now: only the value is dead.
    let mut of_now = life.login(0, &life.new).await.unwrap();
    life.turn.set_ms = None;
    life.turn.old = Some(curfew::case::record::Generation { version: 1, user: None });
    assert_eq!(life.probe().await, DEAD);
    of_now.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn what_somebody_wrote_back_is_not_cut_off() {
    let mut life = Life::of(true).await;
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
        let mut life = Life::of(two).await;
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
        life.dead().await;
    }
}

#[tokio::test]
async fn what_nothing_replaces_ends_with_all_of_its_users() {
    for (two, promoted) in [(false, false), (true, false), (true, true)] {
        let mut life = Life::of(two).await;
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
            life.sql(place, "ALTER ROLE {} LOGIN").await;
            assert!(!life.logs_in(place, &value).await, "its password is nobody's");
        }
        life.sql(0, "DROP ROLE {}").await;
        let again = life.target.perform(Act::Disable, &life.subject()).await.map_err(|failure| failure.kind);
        assert_eq!(again.err(), (!two).then_some(FailureKind::Gone));
    }
}

#[tokio::test]
async fn what_was_set_is_undone() {
    let mut life = Life::of(false).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    life.act(Act::Restore).await;
    life.act(Act::Restore).await;
    assert!(life.logs_in(0, &life.old).await && !life.logs_in(0, &life.new).await);
    // What leaked does not come back.
    life.contains = true;
    life.act(Act::Restore).await;
    life.sql(0, "ALTER ROLE {} LOGIN").await;
    assert!(!life.logs_in(0, &life.old).await && !life.logs_in(0, &life.new).await);

    let mut life = Life::of(true).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    life.act(Act::Restore).await;
    assert!(life.logs_in(0, &life.old).await && !life.logs_in(1, &life.new).await);
    life.sql(1, "ALTER ROLE {} LOGIN").await;
    assert!(!life.logs_in(1, &life.new).await);
}

#[tokio::test]
async fn only_our_own_fresh_candidate_is_set() {
    let mut life = Life::of(true).await;
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
    for (kind, seen) in [
        (FailureKind::Throttled { after_ms: None }, FailureKind::Unavailable),
        (FailureKind::Unknown, FailureKind::Unavailable),
        (FailureKind::Denied, FailureKind::Denied),
    ] {
        life.shelf.fail(Some(kind));
        let failure = life.refusal(Act::Set).await;
        assert_eq!((failure.kind, failure.blocks_system), (seen, false), "the store's failure is not PostgreSQL's");
        assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    }
    life.shelf.fail(None);
    // Somebody uses the user whose turn it would be: then this is no pair.
    life.sql(1, "ALTER ROLE {} LOGIN PASSWORD 'somebody'").await;
    let in_use = life.login(1, "somebody").await.unwrap();
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused);
    assert_eq!(life.refusal(Act::Restore).await.kind, FailureKind::Refused);
    in_use.close().await.unwrap();
    assert!(life.logs_in(1, "somebody").await && life.logs_in(0, &life.old).await, "nothing was changed");
    until("its end", || async { life.target.perform(Act::Set, &life.subject()).await.ok() }).await;
    let told = format!("{:?} {:?}", life.rotation(), life.rotation().candidate().await.unwrap());
    assert!(!told.contains(&life.new) && !told.contains(&life.old));
}

#[tokio::test]
async fn a_role_is_known_by_its_oid_and_administrators_are_left_alone() {
    let mut life = Life::of(false).await;
    let name = life.user(0);
    life.look().await;
    life.offer();
    life.sql(0, &format!("ALTER ROLE {{}} RENAME TO {}", quoted(&format!("{name}-2")))).await;
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused, "consumers would not find it");
    run(&mut life.admin, format!("DROP ROLE {}", quoted(&format!("{name}-2")))).await;
    let sighting = life.target.probe(&life.subject()).await;
    assert_eq!((sighting.answer, sighting.control), (Answer::Refused, true));
    // The same name again is another user.
    life.sql(0, "CREATE ROLE {} LOGIN PASSWORD 'w1tness'").await;
    assert_eq!(life.look().await.presence, Presence::Gone);
    assert_eq!(life.refusal(Act::Disable).await.kind, FailureKind::Gone);
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused);
    assert!(life.logs_in(0, "w1tness").await);
    // But what is dead is said by a login: the new one may have the old value.
    life.shelf.put(None, &value());
    let verifier = postgres_protocol::password::scram_sha_256(life.old.as_bytes());
    life.sql(0, &format!("ALTER ROLE {{}} PASSWORD '{verifier}'")).await;
    assert_eq!(life.target.probe(&life.subject()).await.answer, Answer::Accepted);
    for (user, with) in [("", "SUPERUSER"), ("", "CREATEROLE"), ("postgres", ""), ("pg_monitor", "")] {
        let mut life = Life::of(false).await;
        if user.is_empty() {
            life.sql(0, &format!("ALTER ROLE {{}} {with}")).await;
        } else {
            life.recipe.users = Users::One(user.to_owned());
        }
        assert!(life.look().await.protected, "{user}{with}");
        life.offer();
        life.contains = true;
        for act in [Act::Set, Act::Disable, Act::Restore, Act::EndSessions] {
            assert_eq!(life.refusal(act).await.kind, FailureKind::Refused, "{user}{with} {act:?}");
        }
    }
    let mut life = Life::of(true).await;
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
    // One of the pair is missing: known is the one whose value goes, once that is known.
    life.sql(1, "DROP ROLE {}").await;
    assert_eq!(life.look().await.principal_id, None);
    life.turn.old = Some(curfew::case::record::Generation { version: 1, user: Some(life.user(0)) });
    assert!(life.look().await.principal_id.unwrap().ends_with(",0"));
}

#[tokio::test]
async fn the_least_grants_are_enough_and_no_value_is_in_the_log() {
    the_least_grants(Postgres::shared()).await;
}

#[tokio::test]
async fn the_least_grants_of_18_are_enough_and_no_value_is_in_the_log() {
    the_least_grants(Postgres::later()).await;
}

async fn the_least_grants(pg: Postgres) {
    let (name, url) = pg.curfew().await;
    let (all, min) = ("log_statement = 'all'", "log_min_duration_statement = 0");
    pg.run([all, min].map(|setting| format!("ALTER ROLE {name} SET {setting}"))).await;
    for two in [false, true] {
        let mut life = Life::at(pg.clone(), two, role_at(&url).await).await;
        let users: Vec<String> = life.recipe.users.names().into_iter().map(str::to_owned).collect();
        // Known to the log from here on by other names.
        let old = value();
        let verifier = postgres_protocol::password::scram_sha_256(old.as_bytes());
        life.sql(0, &format!("ALTER ROLE {{}} PASSWORD '{verifier}'")).await;
        life.old = old;
        life.turn.old = Some(life.shelf.put(two.then(|| life.user(0)).as_deref(), &life.old));
        life.target.self_check().await.unwrap();
        life.look().await;
        let _session = life.login(0, &life.old).await.unwrap();
        life.offer();
        if pg.is_later() {
            // Whoever may make users alters none that somebody else made.
            assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused);
            let users: Vec<String> = users.iter().map(|user| quoted(user)).collect();
            pg.lets_alter(&name, &users.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        life.act(Act::Set).await;
        life.act(Act::Restore).await;
        life.renew().await;
        if two {
            life.act(Act::Disable).await;
            // After the promotion consumers need the user that took the candidate.
            assert_eq!(life.refusal(Act::Restore).await.kind, FailureKind::Refused);
        }
        assert_eq!(life.act(Act::EndSessions).await.derived, 1);
        life.dead().await;
        let log = pg.log();
        assert!(log.lines().any(|line| line.contains("ALTER ROLE") && line.contains(&life.user(0))), "it is logged");
        assert!(!log.contains(&life.old) && !log.contains(&life.new));
        if pg.is_later() {
            // It has nothing else of them.
            let may = "SELECT pg_has_role(r.oid, u.oid, 'USAGE') OR pg_has_role(r.oid, u.oid, 'SET') \
                FROM pg_roles r, pg_roles u WHERE r.rolname = $1 AND u.rolname = $2";
            let may: bool =
                sqlx::query_scalar(may).bind(&name).bind(&users[0]).fetch_one(&mut *life.admin).await.unwrap();
            assert!(!may, "neither their rights, nor to become them");
        }
    }
}

#[tokio::test]
async fn a_curfew_with_fewer_rights_reports_what_it_may_not_do() {
    let weak = unique("weak");
    let mut admin = admin().await;
    run(&mut admin, format!("CREATE ROLE {} LOGIN PASSWORD 'w1tness'", quoted(&weak))).await;
    let host = Postgres::shared().host;
    let mut life = Life::with(false, role_at(&format!("postgres://{weak}:w1tness@{host}/postgres")).await).await;
    let _session = life.login(0, &life.old).await.unwrap();
    life.look().await;
    life.offer();
    for act in [Act::Set, Act::Restore] {
        let failure = life.refusal(act).await;
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Refused, false));
    }
    // Another did it for us. When its sessions began is not shown to us.
    let strong = role_at(&env("CURFEW_TEST_POSTGRES")).await;
    life.turn.set_ms = strong.perform(Act::Set, &life.subject()).await.unwrap().done_ms;
    life.promote();
    assert_eq!(life.refusal(Act::EndSessions).await.kind, FailureKind::Refused);
    let reported = || async { (life.probe().await == (Answer::Refused, true, true)).then_some(()) };
    until("its death, with sessions left", reported).await;
    // It is shown, and we may still not end them.
    run(&mut admin, format!("GRANT pg_read_all_stats TO {}", quoted(&weak))).await;
    assert_eq!(life.refusal(Act::EndSessions).await.kind, FailureKind::Refused);
    assert_eq!(life.probe().await, (Answer::Refused, true, true));
    // As a member of the user we may.
    life.sql(0, &format!("GRANT {{}} TO {}", quoted(&weak))).await;
    assert_eq!(life.probe().await, (Answer::Accepted, true, true));
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    life.dead().await;
}

#[tokio::test]
async fn a_session_is_of_who_logged_in() {
    let mut life = Life::of(true).await;
    let (old, new) = (life.user(0), life.user(1));
    life.look().await;
    // Away from the user whose value goes, and to it.
    life.sql(0, &format!("GRANT {} TO {{}}", quoted(&new))).await;
    let mut away = life.login(0, &life.old).await.unwrap();
    run(&mut away, format!("SET ROLE {}", quoted(&new))).await;
    let mut to = admin().await;
    run(&mut to, format!("SET ROLE {}", quoted(&old))).await;
    let mut became = admin().await;
    run(&mut became, format!("SET SESSION AUTHORIZATION {}", quoted(&old))).await;
    life.contains = true;
    life.act(Act::Disable).await;
    assert_eq!(life.probe().await, (Answer::Accepted, true, true));
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert!(away.execute("SELECT 1").await.is_err());
    to.execute("SELECT 1").await.unwrap();
    became.execute("SELECT 1").await.unwrap();
    assert_eq!(life.probe().await, DEAD);
}

#[tokio::test]
async fn a_cut_or_late_answer_is_in_doubt_and_comes_again() {
    let host = Postgres::shared().host;
    let proxy = Proxy::to(&host).await;
    let target = role_at(&env("CURFEW_TEST_POSTGRES").replace(&host, &proxy.address)).await;
    let mut life = Life::with(false, target).await;
    life.look().await;
    life.renew().await;
    proxy.off();
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    assert_eq!(life.refusal(Act::Restore).await.kind, FailureKind::Unavailable);
    assert_eq!(life.target.observe(&life.subject()).await.unwrap_err().kind, FailureKind::Unavailable);
    assert_eq!(life.gate(Act::Test).await.unwrap_err().kind, FailureKind::Refused, "the candidate was promoted");
    proxy.on();
    until("the way back", || async { life.target.observe(&life.subject()).await.ok() }).await;
    proxy.delay();
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    let late = life.refusal(Act::Disable).await.kind;
    assert!(matches!(late, FailureKind::Unknown | FailureKind::Unavailable), "{late:?}");
    proxy.on();
    until("the way back again", || async { life.target.observe(&life.subject()).await.ok() }).await;
    until("its death", || async { (life.probe().await == DEAD).then_some(()) }).await;
    life.recipe.password = PasswordRules { length: 1000, ..PasswordRules::default() };
    life.offer();
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Rejected);
}
