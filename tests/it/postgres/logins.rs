//! What PostgreSQL answers to logins, and what a look at an old value makes of it.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind};
use curfew::connector::Gate;
use curfew::connector::postgres::answers::{Login, login};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::shelf::{DEAD, Life};
use super::{admin, as_user, make, quoted, run};
use crate::admin::Postgres;
use crate::world::{env, unique, until};

/// What a login comes to, and the SQLSTATE.
async fn tried(options: &PgConnectOptions) -> (Login, String) {
    match PgConnection::connect_with(options).await {
        Ok(_) => (Login::In, String::new()),
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
            (login(&error), code)
        }
    }
}

/// Puts `line` before what pg_hba.conf says: it must name a role of this test.
async fn hba(line: &str) {
    let mut admin = admin().await;
    // One test at a time: another one's line would get lost.
    admin.execute("SELECT pg_advisory_lock(4711)").await.unwrap();
    let whole = "SELECT lo_from_bytea(0, convert_to($1 || E'\\n' || pg_read_file(current_setting('hba_file')), 'UTF8'))::bigint";
    let written: i64 = sqlx::query_scalar(whole).bind(line).fetch_one(&mut admin).await.unwrap();
    let write = "SELECT lo_export($1::bigint::oid, current_setting('hba_file'))";
    sqlx::query(write).bind(written).execute(&mut admin).await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test]
async fn answers_to_logins_are_told_apart_by_their_codes() {
    let name = unique("login");
    let mut admin = make(&name).await;
    let role = quoted(&name);
    let (good, bad) = (as_user(&name), as_user(&name).password("wrong"));
    let none = unique("nowhere");
    let code = |login, code: &str| (login, code.to_owned());
    assert_eq!(tried(&good).await, code(Login::In, ""));
    assert_eq!(tried(&bad).await, code(Login::Refused, "28P01"));
    assert_eq!(tried(&as_user(&none)).await, code(Login::Refused, "28P01"), "no such role");
    assert_eq!(tried(&good.clone().database(&none)).await, code(Login::Unclear, "3D000"));
    assert_eq!(tried(&bad.clone().database(&none)).await, code(Login::Refused, "28P01"));
    for (change, with_good, with_bad) in [
        ("NOLOGIN", (Login::Shut, "28000"), (Login::Refused, "28P01")),
        ("LOGIN CONNECTION LIMIT 0", (Login::Unclear, "53300"), (Login::Refused, "28P01")),
        ("CONNECTION LIMIT -1 VALID UNTIL '2001-01-01'", (Login::Refused, "28P01"), (Login::Refused, "28P01")),
        ("VALID UNTIL 'infinity' PASSWORD NULL", (Login::Refused, "28P01"), (Login::Refused, "28P01")),
        ("PASSWORD 'w1tness'", (Login::In, ""), (Login::Refused, "28P01")),
    ] {
        run(&mut admin, format!("ALTER ROLE {role} {change}")).await;
        assert_eq!(tried(&good).await, code(with_good.0, with_good.1), "{change}");
        assert_eq!(tried(&bad).await, code(with_bad.0, with_bad.1), "{change}");
    }
    let database = unique("shut");
    run(&mut admin, format!("CREATE DATABASE {}", quoted(&database))).await;
    run(&mut admin, format!("REVOKE CONNECT ON DATABASE {} FROM public", quoted(&database))).await;
    assert_eq!(tried(&good.clone().database(&database)).await, code(Login::Unclear, "42501"));
    run(&mut admin, format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", quoted(&database))).await;
    assert_eq!(tried(&good.clone().database(&database)).await, code(Login::Unclear, "55000"));
    run(&mut admin, format!("DROP DATABASE {}", quoted(&database))).await;
    assert_eq!(tried(&good.clone().port(1)).await, code(Login::Unclear, ""));
}

#[tokio::test]
async fn a_rule_before_the_password_proves_nothing() {
    let mut life = Life::of(false).await;
    life.look().await;
    life.renew().await;
    life.act(Act::EndSessions).await;
    life.dead().await;
    // Rejected before any password is asked for: the same code as NOLOGIN has, and the role says that it may log in.
    hba(&format!("host all {} all reject", quoted(&life.user(0)))).await;
    let user = life.user(0);
    let rejected = as_user(&user).password(&life.new);
    until("the rule", || async { (tried(&rejected).await.0 == Login::Shut).then_some(()) }).await;
    assert_eq!(tried(&rejected).await.1, "28000");
    assert_eq!(life.probe().await, (Answer::Unknown, false, false));
    life.offer();
    life.act(Act::Set).await;
    assert_eq!(life.rejects(Act::Test).await.0, FailureKind::Unavailable, "no word on the candidate");
    // Everybody is let in: nothing can be dead.
    let mut life = Life::of(false).await;
    life.look().await;
    hba(&format!("host all {} all trust", quoted(&life.user(0)))).await;
    let anybody = as_user(&life.user(0)).password("anything");
    until("the rule", || async { (tried(&anybody).await.0 == Login::In).then_some(()) }).await;
    life.renew().await;
    assert_eq!(life.probe().await.0, Answer::Accepted);
    life.shelf.destroy(1);
    until("no control", || async { (life.probe().await == (Answer::Refused, false, false)).then_some(()) }).await;
}

#[tokio::test]
async fn a_refusal_counts_only_while_the_new_value_is_let_in() {
    let mut life = Life::of(false).await;
    life.look().await;
    life.renew().await;
    life.act(Act::EndSessions).await;
    life.dead().await;
    for (breaks, mends) in [
        ("ALTER ROLE {} VALID UNTIL '2001-01-01'", "ALTER ROLE {} VALID UNTIL 'infinity'"),
        ("ALTER ROLE {} CONNECTION LIMIT 0", "ALTER ROLE {} CONNECTION LIMIT -1"),
    ] {
        life.sql(0, breaks).await;
        assert_eq!(life.probe().await, (Answer::Refused, false, false), "{breaks}");
        life.sql(0, mends).await;
        assert_eq!(life.probe().await, DEAD);
    }
    // Somebody set the old value again, or another one.
    let old = life.old.clone();
    life.sql(0, &format!("ALTER ROLE {{}} PASSWORD '{old}'")).await;
    assert_eq!(life.probe().await.0, Answer::Accepted);
    life.shelf.destroy(1);
    assert_eq!(life.probe().await, (Answer::Unknown, false, false), "what consumers read is refused");
}

#[tokio::test]
async fn the_gate_says_whose_fault_a_failed_login_is() {
    let mut life = Life::of(false).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    for (breaks, kind, mends) in [
        ("ALTER ROLE {} PASSWORD 'another'", FailureKind::Rejected, "ALTER ROLE {} NOLOGIN"),
        ("ALTER ROLE {} NOLOGIN", FailureKind::Rejected, "ALTER ROLE {} LOGIN"),
        ("ALTER ROLE {} CONNECTION LIMIT 0", FailureKind::Unavailable, "ALTER ROLE {} CONNECTION LIMIT -1"),
        ("ALTER ROLE {} VALID UNTIL '2001-01-01'", FailureKind::Rejected, "ALTER ROLE {} VALID UNTIL 'infinity'"),
    ] {
        life.sql(0, breaks).await;
        assert_eq!(life.rejects(Act::Test).await.0, kind, "{breaks}");
        life.sql(0, mends).await;
        life.act(Act::Set).await;
        assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open), "{mends}");
    }
}

#[tokio::test]
async fn a_look_logs_in_three_times_at_most() {
    let tries = |user: &str| {
        let log = std::fs::read(env("CURFEW_TEST_PG_LOG")).unwrap();
        let log = String::from_utf8_lossy(&log);
        let of = |what: &str| log.lines().filter(|line| line.contains(user) && line.contains(what)).count();
        of("FATAL") + of("connection authorized")
    };
    for two in [false, true] {
        let mut life = Life::of(two).await;
        life.look().await;
        life.renew().await;
        if two {
            life.act(Act::Disable).await;
        }
        let name = life.user(0).trim_end_matches("_a").to_owned();
        life.dead().await;
        for stored in [true, false] {
            let before = tries(&name);
            assert_eq!(life.probe().await, DEAD);
            let after = tries(&name) - before;
            assert!((1..=3).contains(&after), "{after} logins, two users: {two}, stored: {stored}");
            life.shelf.destroy(1);
        }
    }
}

#[tokio::test]
async fn a_login_that_began_with_the_old_value_is_waited_for() {
    for contains in [false, true] {
        let mut life = Life::of(false).await;
        life.contains = contains;
        life.look().await;
        let begun = Slow::begin(&life.user(0), &life.old).await;
        let mut never = Slow::begin(&life.user(0), &life.old).await;
        if contains {
            life.act(Act::Disable).await;
            assert!(!never.end().await, "it cannot log in");
        }
        life.renew().await;
        life.act(Act::EndSessions).await;
        assert_eq!(life.probe().await, (Answer::Unknown, true, false), "another one may be under way");
        // PostgreSQL reads what it compares with when a login begins.
        let mut begun = begun;
        assert!(begun.end().await, "the old value lets in");
        assert_eq!(life.probe().await, (Answer::Accepted, true, true));
        assert_eq!(life.act(Act::EndSessions).await.derived, 1);
        life.dead().await;
    }
}

/// A login that takes its time.
struct Slow {
    stream: TcpStream,
    scram: ScramSha256,
}

impl Slow {
    /// Until the server has said with what it will compare.
    async fn begin(user: &str, password: &str) -> Self {
        let stream = TcpStream::connect(Postgres::shared().host).await.unwrap();
        let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut slow = Self { stream, scram };
        let parameters = format!("user\0{user}\0database\0postgres\0\0");
        let length = u32::try_from(parameters.len() + 8).unwrap();
        let start = [&length.to_be_bytes(), &196_608_u32.to_be_bytes(), parameters.as_bytes()].concat();
        slow.stream.write_all(&start).await.unwrap();
        assert_eq!(slow.hear().await.0, b'R');
        let first = slow.scram.message().to_vec();
        let length = u32::try_from(first.len()).unwrap();
        slow.say(&[b"SCRAM-SHA-256\0", length.to_be_bytes().as_slice(), &first].concat()).await;
        let (kind, challenge) = slow.hear().await;
        assert_eq!(kind, b'R');
        slow.scram.update(&challenge[4..]).unwrap();
        slow
    }

    /// Whether it is let in.
    async fn end(&mut self) -> bool {
        let proof = self.scram.message().to_vec();
        self.say(&proof).await;
        loop {
            match self.hear().await.0 {
                b'Z' => return true,
                b'E' => return false,
                _ => {}
            }
        }
    }

    async fn say(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap();
        self.stream.write_all(&[b"p", length.to_be_bytes().as_slice(), body].concat()).await.unwrap();
    }

    async fn hear(&mut self) -> (u8, Vec<u8>) {
        let kind = self.stream.read_u8().await.unwrap();
        let length = self.stream.read_u32().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body).await.unwrap();
        (kind, body)
    }
}
