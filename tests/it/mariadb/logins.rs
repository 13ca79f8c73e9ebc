//! What MariaDB answers to logins, and what a look at an old value makes of it.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind};
use curfew::connector::Gate;
use curfew::connector::mariadb::answers::{Login, login};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError};
use sqlx::{Connection as _, Executor as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::life::Rotating;
use super::own::Own;
use super::{admin, as_user, make, run, shared};
use crate::postgres::shelf::DEAD;
use crate::world::{unique, until};

/// What a login comes to, and the error's number.
async fn tried(options: &MySqlConnectOptions) -> (Login, u16) {
    let tried = async {
        let mut connection = MySqlConnection::connect_with(options).await?;
        connection.execute("SELECT 1").await
    };
    match tried.await {
        Ok(_) => (Login::In, 0),
        Err(error) => {
            let database = error.as_database_error();
            (login(&error), database.map_or(0, |error| error.downcast_ref::<MySqlDatabaseError>().number()))
        }
    }
}

#[tokio::test]
async fn answers_to_logins_are_told_apart_by_their_numbers() {
    let (name, none) = (unique("login"), unique("nobody"));
    let mut admin = admin().await;
    make(&mut admin, &format!("'{name}'@'%'"), "w1tness").await;
    let (good, bad) = (as_user(&shared(), &name, "w1tness"), as_user(&shared(), &name, "wrong"));
    assert_eq!(tried(&good).await, (Login::In, 0));
    assert_eq!(tried(&bad).await, (Login::Refused, 1045));
    assert_eq!(tried(&as_user(&shared(), &none, "w1tness")).await, (Login::Refused, 1045), "no such account");
    assert_eq!(tried(&good.clone().database("mysql")).await, (Login::Unclear, 1044));
    for (change, with_good, with_bad) in [
        ("ACCOUNT LOCK", (Login::Locked, 4151), (Login::Refused, 1045)),
        ("ACCOUNT UNLOCK PASSWORD EXPIRE", (Login::Expired, 1820), (Login::Refused, 1045)),
        ("REQUIRE SSL", (Login::Refused, 1045), (Login::Refused, 1045)),
    ] {
        run(&mut admin, format!("ALTER USER '{name}'@'%' {change}")).await;
        assert_eq!(tried(&good).await, with_good, "{change}");
        assert_eq!(tried(&bad).await, with_bad, "{change}");
    }
    let name = unique("full");
    make(&mut admin, &format!("'{name}'@'%'"), "w1tness").await;
    run(&mut admin, format!("ALTER USER '{name}'@'%' WITH MAX_USER_CONNECTIONS 1")).await;
    let only = as_user(&shared(), &name, "w1tness");
    let held = MySqlConnection::connect_with(&only).await.unwrap();
    assert_eq!(tried(&only).await, (Login::Unclear, 1226));
    drop(held);
    let name = unique("socket");
    run(&mut admin, format!("CREATE USER '{name}'@'%' IDENTIFIED VIA unix_socket")).await;
    assert_eq!(tried(&as_user(&shared(), &name, "w1tness")).await, (Login::Unclear, 1698));
    assert_eq!(tried(&good.port(1)).await, (Login::Unclear, 0));
}

/// Those that a whole server answers: full, shut to our machine, or blocking who was wrong too often.
#[tokio::test]
async fn a_server_that_is_full_or_blocks_says_nothing_of_a_password() {
    let own = Own::start().await;
    let mut life = Rotating::of_server(&own.url, false).await;
    life.look().await;
    life.renew().await;
    assert_eq!(life.probe().await, DEAD);
    let mut admin = own.admin().await;
    // The old value and a random one: then the right one takes the count back.
    run(&mut admin, "SET GLOBAL max_password_errors = 3".to_owned()).await;
    for _ in 0..3 {
        assert_eq!(life.probe().await, DEAD);
    }
    run(&mut admin, "SET GLOBAL max_password_errors = 1".to_owned()).await;
    let user = life.user(0);
    for number in [1045, 4150] {
        assert_eq!(tried(&as_user(&own.url, &user, "wrong")).await.1, number);
    }
    assert_eq!(tried(&as_user(&own.url, &user, &life.new)).await, (Login::Blocked, 4150));
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    // One that is locked lets nobody in, blocked or not.
    life.sql(0, "ALTER USER {} ACCOUNT LOCK").await;
    for _ in 0..3 {
        assert_eq!(life.probe().await, DEAD);
    }
    life.sql(0, "ALTER USER {} ACCOUNT UNLOCK").await;
    run(&mut admin, "SET GLOBAL max_password_errors = 100".to_owned()).await;
    run(&mut admin, "FLUSH PRIVILEGES".to_owned()).await;
    assert_eq!(life.probe().await, DEAD);
    run(&mut admin, "SET GLOBAL disconnect_on_expired_password = 1".to_owned()).await;
    life.sql(0, "ALTER USER {} PASSWORD EXPIRE").await;
    assert_eq!(tried(&as_user(&own.url, &user, &life.new)).await, (Login::Expired, 1862));
    assert_eq!(life.probe().await, (Answer::Refused, false, false), "what consumers read does not work");
    let new = life.new.clone();
    life.set_by_hand(0, &new).await;
    let (weak, _) = super::least(&own.url).await;
    life.target = super::target_by(&weak).await;
    assert_eq!(life.probe().await, DEAD);
    run(&mut admin, "SET GLOBAL max_connections = 10".to_owned()).await;
    let mut all = Vec::new();
    while let Ok(one) = MySqlConnection::connect_with(&as_user(&own.url, &user, &life.new)).await {
        all.push(one);
    }
    assert_eq!(tried(&as_user(&own.url, &user, &life.new)).await, (Login::Unclear, 1040));
    // For who may end sessions there is one more connection; the one that was just turned away may still hold it.
    until("the last connection", || async { life.target.observe(&life.subject()).await.ok() }).await;
    life.look().await;
    assert!(!life.probe().await.1, "there is no control");
}

#[tokio::test]
async fn a_refusal_counts_only_while_the_new_value_is_let_in() {
    let mut life = Rotating::in_mariadb(false).await;
    life.look().await;
    life.renew().await;
    assert_eq!(life.probe().await, DEAD);
    life.sql(0, "ALTER USER {} PASSWORD EXPIRE").await;
    assert_eq!(life.probe().await, (Answer::Refused, false, false), "what consumers read does not work");
    let new = life.new.clone();
    life.set_by_hand(0, &new).await;
    assert_eq!(life.probe().await, DEAD);
    // A locked account lets nobody in: that is dead as well.
    life.sql(0, "ALTER USER {} ACCOUNT LOCK").await;
    assert_eq!(life.probe().await, DEAD);
    life.sql(0, "ALTER USER {} ACCOUNT UNLOCK").await;
    // Somebody set the old value again; or one that has expired: with it another one could be set.
    let old = life.old.clone();
    life.set_by_hand(0, &old).await;
    assert_eq!(life.probe().await.0, Answer::Accepted);
    life.sql(0, "ALTER USER {} PASSWORD EXPIRE").await;
    assert_eq!(life.probe().await.0, Answer::Accepted);
    life.shelf.destroy(1);
    assert_eq!(life.probe().await, (Answer::Unknown, false, false), "what consumers read is refused");
}

#[tokio::test]
async fn the_gate_says_whose_fault_a_failed_login_is() {
    let mut life = Rotating::in_mariadb(false).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    life.set_by_hand(0, "another").await;
    assert_eq!(life.rejects(Act::Test).await.0, FailureKind::Rejected);
    life.act(Act::Set).await;
    for (breaks, kind) in [
        ("ALTER USER {} ACCOUNT LOCK", FailureKind::Rejected),
        ("ALTER USER {} PASSWORD EXPIRE", FailureKind::Refused),
        ("ALTER USER {} WITH MAX_CONNECTIONS_PER_HOUR 1", FailureKind::Unavailable),
    ] {
        life.sql(0, breaks).await;
        if breaks.contains("HOUR") {
            // The one that it may make.
            assert!(life.logs_in(0, &life.new).await);
        }
        assert_eq!(life.rejects(Act::Test).await.0, kind, "{breaks}");
        life.sql(0, "ALTER USER {} WITH MAX_CONNECTIONS_PER_HOUR 0").await;
        life.act(Act::Set).await;
        assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open), "{breaks}");
    }
}

#[tokio::test]
async fn a_login_that_began_with_the_old_value_is_ended_like_a_session() {
    for contains in [false, true] {
        let mut life = Rotating::in_mariadb(false).await;
        life.contains = contains;
        life.look().await;
        let mut begun = Slow::begin(&life.user(0)).await;
        let mut never = Slow::begin(&life.user(0)).await;
        if contains {
            life.act(Act::Disable).await;
        }
        life.renew().await;
        assert_eq!(life.probe().await, (Answer::Accepted, true, true), "logins are under way");
        // MariaDB compares with what it read when it heard the name: not even the lock counts.
        assert!(begun.end(&life.old).await, "the old value lets in");
        assert_eq!(life.probe().await, (Answer::Accepted, true, true));
        assert_eq!(life.act(Act::EndSessions).await.derived, 2);
        assert!(!never.end(&life.old).await, "it is ended before it is through");
        assert_eq!(life.probe().await, DEAD);
    }
}

/// A login that takes its time: it says its name, and lets the server ask for the password once more.
struct Slow {
    stream: TcpStream,
    turn: u8,
    salt: Vec<u8>,
}

impl Slow {
    /// Until the server has said with what the password is to be mixed.
    async fn begin(user: &str) -> Self {
        let url = shared();
        let host = url.rsplit_once('@').unwrap().1.trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(host).await.unwrap();
        let mut slow = Self { stream, turn: 0, salt: Vec::new() };
        slow.hear().await.unwrap();
        // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH; and a plugin that is not the account's.
        let capabilities: u32 = 0x0200 | 0x8000 | 0x8_0000;
        let mut hello = [capabilities.to_le_bytes(), 0x0100_0000_u32.to_le_bytes()].concat();
        hello.push(45);
        hello.extend([0; 23]);
        hello.extend(user.as_bytes());
        hello.extend([0, 0]);
        hello.extend(b"dialog\0");
        slow.say(&hello).await;
        let asks = slow.hear().await.unwrap();
        assert_eq!(asks[0], 0xfe, "it asks again");
        let salt = asks.splitn(2, |byte| *byte == 0).nth(1).unwrap();
        slow.salt = salt[..20].to_vec();
        slow
    }

    /// Whether it is let in.
    async fn end(&mut self, password: &str) -> bool {
        use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
        let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
        let once = sha1(password.as_bytes());
        let mixed = sha1(&[self.salt.clone(), sha1(&once)].concat());
        let answer: Vec<u8> = once.iter().zip(mixed).map(|(one, other)| one ^ other).collect();
        self.say(&answer).await;
        self.hear().await.is_some_and(|packet| packet[0] == 0)
    }

    async fn say(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        let packet = [&length[..3], &[self.turn], body].concat();
        // It may be gone by now.
        self.stream.write_all(&packet).await.ok();
    }

    /// `None`: the server has gone.
    async fn hear(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await.ok()?;
        self.turn = head[3] + 1;
        let mut body = vec![0; usize::try_from(u32::from_le_bytes([head[0], head[1], head[2], 0])).unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body)
    }
}
