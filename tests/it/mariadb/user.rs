//! The life of a stored password at a real MariaDB, with a store in memory.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Generation, Presence};
use curfew::case::turn::Turn;
use curfew::connector::Gate;
use curfew::connector::recipe::{PasswordRules, Rotation, Users};
use sqlx::Executor as _;
use uuid::Uuid;

use super::life::Rotating;
use super::{hashed, least, make, run, shared, target_by};
use crate::postgres::shelf::{DEAD, value};
use crate::world::{Proxy, env, unique, until};

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
async fn administrators_are_left_alone() {
    let role = unique("admins");
    let mut admin = super::admin().await;
    run(&mut admin, format!("CREATE ROLE '{role}'")).await;
    run(&mut admin, format!("GRANT SUPER ON *.* TO '{role}'")).await;
    for grant in [
        "GRANT SUPER ON *.* TO {}",
        "GRANT CREATE USER ON *.* TO {}",
        "GRANT SELECT ON *.* TO {} WITH GRANT OPTION",
        "GRANT UPDATE ON mysql.* TO {}",
        "GRANT SELECT ON `m%`.* TO {} WITH GRANT OPTION",
        "GRANT INSERT ON mysql.global_priv TO {}",
        "GRANT ROLE TO {}",
    ] {
        let mut life = Rotating::in_mariadb(false).await;
        life.sql(0, &grant.replace("ROLE", &format!("'{role}'"))).await;
        assert_protected(&mut life, grant).await;
        assert!(life.logs_in(0, &life.old).await, "{grant}");
    }
    // By name: the server's own, and ours.
    let mut life = Rotating::in_mariadb(false).await;
    for own in ["root@127.0.0.1", "mariadb.sys@localhost"] {
        life.recipe.users = Users::One(own.split('@').next().unwrap().to_owned());
        life.recipe.credential =
            curfew::credential::CredentialId::new(curfew::credential::Kind::MariadbUser, "appdb", own).unwrap();
        assert_protected(&mut life, own).await;
    }
    let (url, own) = least(&shared()).await;
    life.target = target_by(&url).await;
    life.recipe.users = Users::One(own.clone());
    let id = format!("{own}@%");
    life.recipe.credential =
        curfew::credential::CredentialId::new(curfew::credential::Kind::MariadbUser, "appdb", &id).unwrap();
    assert_protected(&mut life, "our own").await;
    // What only reads them, or grants its own rights on its own database, is a workload like any other.
    let mut life = Rotating::in_mariadb(false).await;
    life.sql(0, "GRANT SELECT ON mysql.* TO {}").await;
    life.sql(0, "GRANT ALL ON `an app's`.* TO {} WITH GRANT OPTION").await;
    assert!(!life.look().await.protected);
}

async fn assert_protected(life: &mut Rotating, what: &str) {
    assert!(life.look().await.protected, "{what}");
    life.offer();
    life.contains = true;
    for act in [Act::Set, Act::Disable, Act::Restore, Act::EndSessions] {
        assert_eq!(life.refusal(act).await.kind, FailureKind::Refused, "{what} {act:?}");
    }
    life.contains = false;
}

#[tokio::test]
async fn accounts_with_another_way_in_are_refused() {
    for (row, what) in [
        (r#"{"access":0,"plugin":"unix_socket","authentication_string":""}"#, "unix_socket"),
        (r#"{"access":0,"plugin":"ed25519","authentication_string":"x"}"#, "ed25519"),
        (r#"{"access":0,"plugin":"pam","authentication_string":"mariadb"}"#, "pam"),
        (
            r#"{"access":0,"plugin":"mysql_native_password","authentication_string":"","auth_or":[{},{"plugin":"unix_socket"}]}"#,
            "both",
        ),
    ] {
        let mut life = Rotating::in_mariadb(false).await;
        // As the server keeps them: its plugins need not be there.
        let user = life.user(0);
        run(&mut life.admin, format!("UPDATE mysql.global_priv SET Priv = '{row}' WHERE User = '{user}'")).await;
        for contains in [false, true] {
            life.contains = contains;
            let failure = life.target.observe(&life.subject()).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Refused, "{what}");
            assert!(failure.note.contains("another plugin"), "{what}: {}", failure.note);
            life.offer();
            for act in [Act::Set, Act::Disable, Act::Restore, Act::EndSessions] {
                assert_eq!(life.refusal(act).await.kind, FailureKind::Refused, "{what} {act:?}");
            }
        }
    }
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
    for (breaks, mends) in [("ACCOUNT LOCK", "ACCOUNT UNLOCK"), ("PASSWORD EXPIRE", "PASSWORD EXPIRE NEVER")] {
        run(&mut admin, format!("ALTER USER '{own}'@'%' {breaks}")).await;
        let failure = life.target.observe(&life.subject()).await.unwrap_err();
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true), "{breaks}");
        run(&mut admin, format!("ALTER USER '{own}'@'%' {mends}")).await;
        if breaks == "PASSWORD EXPIRE" {
            break;
        }
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

/// What waits for a lock at the server is given up there as well: it does not happen later, behind our back.
#[tokio::test]
async fn a_statement_that_waits_is_over_when_we_give_up() {
    let own = super::own::Own::start().await;
    let mut life = Rotating::of_server(&own.url, false).await;
    life.look().await;
    life.offer();
    let mut backup = sqlx::Connection::connect(&own.url).await.unwrap();
    run(&mut backup, "FLUSH TABLES WITH READ LOCK".to_owned()).await;
    let waits = life.refusal(Act::Set).await;
    assert!(matches!(waits.kind, FailureKind::Unknown | FailureKind::Unavailable), "{waits:?}");
    let waiting = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER USER%'";
    let none = || async {
        let mut admin: sqlx::mysql::MySqlConnection = sqlx::Connection::connect(&own.url).await.unwrap();
        (sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut admin).await.unwrap() == 0).then_some(())
    };
    until("the statement to be given up", none).await;
    run(&mut backup, "UNLOCK TABLES".to_owned()).await;
    assert!(own.lets_in(&life.user(0), &life.old).await && !own.lets_in(&life.user(0), &life.new).await);
    // Read-only: nothing is begun, and nothing proven.
    run(&mut backup, "SET GLOBAL read_only = 1".to_owned()).await;
    let (weak, _) = least(&own.url).await;
    life.target = target_by(&weak).await;
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Unavailable);
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
}

#[tokio::test]
async fn of_a_name_only_the_account_that_was_named_is_touched() {
    let mut life = Rotating::in_mariadb(false).await;
    let user = life.user(0);
    // By another way in: MariaDB takes a client of its socket for `localhost`.
    make(&mut life.admin, &format!("'{user}'@'localhost'"), "namesakes").await;
    make(&mut life.admin, &format!("'{user}'@'10.0.0.%'"), "another").await;
    let socket = std::path::Path::new(&env("CURFEW_TEST_MARIADB_DATA")).join("socket");
    let near = super::as_user(&shared(), &user, "namesakes").socket(socket);
    let mut namesake = <sqlx::mysql::MySqlConnection as sqlx::Connection>::connect_with(&near).await.unwrap();
    let mut session = life.login(0, &life.old).await.unwrap();
    life.contains = true;
    life.look().await;
    life.act(Act::Disable).await;
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert!(session.execute("SELECT 1").await.is_err());
    namesake.execute("SELECT 1").await.unwrap();
    assert_eq!(life.probe().await, DEAD);
    assert!(<sqlx::mysql::MySqlConnection as sqlx::Connection>::connect_with(&near).await.is_ok(), "it is let in");
    // Of an account that no login from here reaches nothing is begun; a leak of its value is contained, and not proven.
    let id = format!("{user}@10.0.0.%");
    life.recipe.credential =
        curfew::credential::CredentialId::new(curfew::credential::Kind::MariadbUser, "appdb", &id).unwrap();
    life.contains = false;
    let failure = life.target.observe(&life.subject()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.note.contains("do not reach"), "{}", failure.note);
    life.contains = true;
    assert_eq!(life.look().await.presence, Presence::Present);
    life.act(Act::Disable).await;
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    let locked = "SELECT CAST(COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) AS SIGNED) FROM mysql.global_priv \
         WHERE User = ? AND Host = ?";
    for (host, is_locked) in [("10.0.0.%", 1), ("localhost", 0)] {
        let row = sqlx::query_scalar::<_, i64>(locked).bind(&user).bind(host).fetch_one(&mut life.admin).await;
        assert_eq!(row.unwrap(), is_locked, "{host}");
    }
}

#[tokio::test]
async fn an_account_that_demands_tls_says_nothing_without_it() {
    let mut life = Rotating::in_mariadb(false).await;
    life.sql(0, "ALTER USER {} REQUIRE SSL").await;
    // The right password is refused like a wrong one.
    assert!(!life.logs_in(0, &life.old).await);
    assert_eq!(life.target.observe(&life.subject()).await.unwrap_err().kind, FailureKind::Refused);
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    life.offer();
    life.act(Act::Set).await;
    assert_eq!(life.gate(Act::Test).await.unwrap_err().kind, FailureKind::Refused);
}

#[tokio::test]
async fn an_account_that_is_gone_is_dead_when_its_sessions_are() {
    let mut life = Rotating::in_mariadb(false).await;
    life.look().await;
    let mut session = life.login(0, &life.old).await.unwrap();
    life.sql(0, "DROP USER {}").await;
    session.execute("SELECT 1").await.unwrap();
    assert_eq!(life.look().await.presence, Presence::Gone);
    assert_eq!(life.refusal(Act::Disable).await.kind, FailureKind::Gone);
    life.offer();
    assert_eq!(life.refusal(Act::Set).await.kind, FailureKind::Refused);
    assert_eq!(life.probe().await, (Answer::Accepted, true, true), "a session of it lives");
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert!(session.execute("SELECT 1").await.is_err());
    assert_eq!(life.probe().await, DEAD);
    // One of a pair is missing: known is the one whose value goes, once that is known.
    let mut life = Rotating::in_mariadb(true).await;
    life.sql(1, "DROP USER {}").await;
    assert!(life.look().await.principal_id.is_some());
    life.turn.old = None;
    assert_eq!(life.look().await.principal_id, None);
}
