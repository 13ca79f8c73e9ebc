//! Accounts that are not as they should be, or not ours, and servers that are busy.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Presence};
use curfew::connector::recipe::Users;
use curfew::credential::{CredentialId, Kind};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, Executor as _};

use super::life::Rotating;
use super::own::Own;
use super::{admin, as_user, least, make, run, shared, target_by};
use crate::postgres::shelf::DEAD;
use crate::world::{env, unique, until};

#[tokio::test]
async fn administrators_are_left_alone() {
    let role = unique("admins");
    let mut admin = admin().await;
    run(&mut admin, format!("CREATE ROLE '{role}'")).await;
    run(&mut admin, format!("GRANT SUPER ON *.* TO '{role}'")).await;
    for grant in [
        "GRANT SUPER ON *.* TO {}",
        "GRANT CREATE USER ON *.* TO {}",
        "GRANT SELECT ON *.* TO {} WITH GRANT OPTION",
        "GRANT INSERT ON *.* TO {}",
        "GRANT UPDATE ON *.* TO {}",
        "GRANT DELETE ON *.* TO {}",
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
        life.recipe.credential = CredentialId::new(Kind::MariadbUser, "appdb", own).unwrap();
        assert_protected(&mut life, own).await;
    }
    let (url, own) = least(&shared()).await;
    life.target = target_by(&url).await;
    life.recipe.users = Users::One(own.clone());
    let id = format!("{own}@%");
    life.recipe.credential = CredentialId::new(Kind::MariadbUser, "appdb", &id).unwrap();
    assert_protected(&mut life, "our own").await;
    // What only reads them, or grants its own rights on its own database, is a workload like any other.
    let mut life = Rotating::in_mariadb(false).await;
    life.sql(0, "GRANT SELECT ON mysql.* TO {}").await;
    life.sql(0, "GRANT SELECT, CREATE, EXECUTE ON *.* TO {}").await;
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

/// What waits for a lock at the server is given up there as well: it does not happen later, behind our back.
#[tokio::test]
async fn a_statement_that_waits_is_over_when_we_give_up() {
    let own = Own::start().await;
    let mut life = Rotating::of_server(&own.url, false).await;
    life.look().await;
    life.offer();
    let mut backup = MySqlConnection::connect(&own.url).await.unwrap();
    run(&mut backup, "FLUSH TABLES WITH READ LOCK".to_owned()).await;
    let waits = life.refusal(Act::Set).await;
    assert!(matches!(waits.kind, FailureKind::Unknown | FailureKind::Unavailable), "{waits:?}");
    let waiting = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER USER%'";
    let none = || async {
        let mut admin = MySqlConnection::connect(&own.url).await.unwrap();
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
    let near = as_user(&shared(), &user, "namesakes").socket(socket);
    let mut namesake = MySqlConnection::connect_with(&near).await.unwrap();
    let mut session = life.login(0, &life.old).await.unwrap();
    life.contains = true;
    life.look().await;
    life.act(Act::Disable).await;
    assert_eq!(life.act(Act::EndSessions).await.derived, 1);
    assert!(session.execute("SELECT 1").await.is_err());
    namesake.execute("SELECT 1").await.unwrap();
    // It fits `%` as well: had it been open before its account was made, it would be ours.
    assert_eq!(life.probe().await, (Answer::Refused, true, true));
    drop(namesake);
    until("the namesake's end", || async { (life.probe().await == DEAD).then_some(()) }).await;
    assert!(MySqlConnection::connect_with(&near).await.is_ok(), "it is let in");
    // Of an account that no login from here reaches nothing is begun; a leak of its value is contained, and not proven.
    let id = format!("{user}@10.0.0.%");
    life.recipe.credential = CredentialId::new(Kind::MariadbUser, "appdb", &id).unwrap();
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
    // Another one of its name took over: what is open may be of either.
    let mut life = Rotating::in_mariadb(false).await;
    let user = life.user(0);
    life.look().await;
    make(&mut life.admin, &format!("'{user}'@'127.0.0.1'"), "namesakes").await;
    let mut consumer = life.login(0, "namesakes").await.unwrap();
    life.sql(0, "DROP USER {}").await;
    assert_eq!(life.refusal(Act::EndSessions).await.kind, FailureKind::Refused);
    consumer.execute("SELECT 1").await.unwrap();
    assert_eq!(life.probe().await, (Answer::Refused, true, true));
    // One of a pair is missing: known is the one whose value goes, once that is known.
    let mut life = Rotating::in_mariadb(true).await;
    life.sql(1, "DROP USER {}").await;
    assert!(life.look().await.principal_id.is_some());
    life.turn.old = None;
    assert_eq!(life.look().await.principal_id, None);
}
