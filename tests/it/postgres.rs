//! What a PostgreSQL user's death looks like, on a real server.

mod later;
mod logins;
mod rights;
mod role;
mod sessions;
pub mod shelf;

use std::sync::Arc;

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Level, Observation, Presence, Residue};
use curfew::clock::System;
use curfew::connector::postgres::{PostgresSettings, connect};
use curfew::connector::{Connector, Subject};
use curfew::credential::{CredentialId, Kind};
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::world::{Proxy, env, unique, until};

async fn admin() -> PgConnection {
    PgConnection::connect(&env("CURFEW_TEST_POSTGRES")).await.unwrap()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn run(connection: &mut PgConnection, sql: String) {
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
}

async fn make(name: &str) -> PgConnection {
    let mut admin = admin().await;
    run(&mut admin, format!("CREATE ROLE {} LOGIN PASSWORD 'w1tness'", quoted(name))).await;
    admin
}

fn as_user(name: &str) -> PgConnectOptions {
    env("CURFEW_TEST_POSTGRES").parse::<PgConnectOptions>().unwrap().username(name).password("w1tness")
}

async fn target_by(url: &str) -> Arc<dyn Connector> {
    let mut settings = PostgresSettings::new(SecretString::from(url.to_owned()));
    settings.timeout_ms = 3000;
    connect("pg", &settings, System::shared()).await.unwrap().remove(0)
}

async fn target() -> Arc<dyn Connector> {
    target_by(&env("CURFEW_TEST_POSTGRES")).await
}

/// A Curfew with few rights: neither superuser, nor may it end sessions, nor alter the tasks' roles.
async fn weak_target() -> Arc<dyn Connector> {
    let name = unique("weak");
    make(&name).await;
    let url: reqwest::Url = env("CURFEW_TEST_POSTGRES").parse().unwrap();
    let (host, port) = (url.host_str().unwrap(), url.port().unwrap());
    target_by(&format!("postgres://{name}:w1tness@{host}:{port}/postgres")).await
}

fn about(principal: &str) -> Subject {
    Subject {
        credential: CredentialId::new(Kind::VaultLease, "vault", "database/creds/task/x").unwrap(),
        principal: Some(principal.to_owned()),
        seen: None,
        issuer: None,
        run: None,
        key: None,
        rotation: None,
        rescope: None,
        message: None,
        place: None,
    }
}

async fn look(target: &Arc<dyn Connector>, subject: &mut Subject) -> Observation {
    let seen = target.observe(subject).await.unwrap();
    subject.seen = Some(seen.clone());
    seen
}

#[tokio::test]
async fn a_login_is_disabled_its_sessions_end_and_it_is_dead() {
    // Names as a nasty template would make them; a second one differs by case alone.
    let name = format!("{}-\"; DROP ROLE x; --é", unique("v-Task"));
    let mut admin = make(&name).await;
    make(&name.to_lowercase()).await;
    let target = target().await;
    target.self_check().await.unwrap();
    let mut subject = about(&name);
    let seen = look(&target, &mut subject).await;
    assert_eq!((seen.presence, seen.protected), (Presence::Present, false));
    assert!(seen.principal_id.as_ref().unwrap().parse::<u32>().unwrap() > 0);
    let mut session = PgConnection::connect_with(&as_user(&name)).await.unwrap();
    let alive = target.probe(&subject).await;
    assert_eq!((alive.answer, alive.level), (Answer::Accepted, Level::Target));

    target.perform(Act::Disable, &subject).await.unwrap();
    target.perform(Act::Disable, &subject).await.unwrap();
    assert!(PgConnection::connect_with(&as_user(&name)).await.is_err(), "NOLOGIN");
    assert!(PgConnection::connect_with(&as_user(&name.to_lowercase())).await.is_ok(), "exactly this one");
    // Its open session works on, so it is not dead.
    session.execute("SELECT 1").await.unwrap();
    let open = target.probe(&subject).await;
    assert_eq!((open.answer, open.residue), (Answer::Accepted, vec![Residue::Sessions]));
    assert_eq!(target.perform(Act::EndSessions, &subject).await.unwrap().derived, 1);
    assert!(session.execute("SELECT 1").await.is_err());
    let dead = target.probe(&subject).await;
    assert_eq!((dead.answer, dead.control, dead.residue), (Answer::Refused, true, vec![]));
    run(&mut admin, format!("DROP ROLE {}", quoted(&name))).await;
    assert_eq!(look(&target, &mut subject).await.presence, Presence::Gone);
    assert_eq!(target.probe(&subject).await.answer, Answer::Refused);
    target.perform(Act::EndSessions, &subject).await.unwrap();
}

#[tokio::test]
async fn a_session_outlives_drop_role_and_is_found_by_its_oid() {
    let name = unique("v-task");
    let mut admin = make(&name).await;
    let (target, weak) = (target().await, weak_target().await);
    let mut subject = about(&name);
    let oid = look(&target, &mut subject).await.principal_id;
    let mut session = PgConnection::connect_with(&as_user(&name)).await.unwrap();
    run(&mut admin, format!("DROP ROLE {}", quoted(&name))).await;
    session.execute("SELECT 1").await.unwrap();
    let again = look(&target, &mut subject).await;
    assert_eq!((again.presence, again.principal_id), (Presence::Gone, oid), "the OID is kept");
    // The same name again is another user.
    make(&name).await;
    assert_eq!(target.observe(&subject).await.unwrap().presence, Presence::Gone);
    assert_eq!(target.perform(Act::Disable, &subject).await.unwrap_err().kind, FailureKind::Gone);
    // Who may not end it reports it; who may does not call it dead.
    let refused = weak.perform(Act::EndSessions, &subject).await.unwrap_err();
    assert_eq!((refused.kind, refused.blocks_system), (FailureKind::Refused, false));
    let reported = weak.probe(&subject).await;
    assert_eq!((reported.answer, reported.residue), (Answer::Refused, vec![Residue::Sessions]));
    assert_eq!(target.probe(&subject).await.answer, Answer::Accepted);
    target.perform(Act::EndSessions, &subject).await.unwrap();
    assert!(session.execute("SELECT 1").await.is_err());
    let dead = target.probe(&subject).await;
    assert_eq!((dead.answer, dead.residue), (Answer::Refused, vec![]));
}

#[tokio::test]
async fn what_is_not_ours_to_change_is_refused() {
    let name = unique("v-task");
    make(&name).await;
    let (target, weak) = (target().await, weak_target().await);
    let mut subject = about(&name);
    look(&weak, &mut subject).await;
    let refused = weak.perform(Act::Disable, &subject).await.unwrap_err();
    assert_eq!((refused.kind, refused.blocks_system), (FailureKind::Refused, false));
    assert_eq!(target.perform(Act::Revoke, &subject).await.unwrap_err().kind, FailureKind::Refused);
    // Whoever a producer may name: no user of leases, no administrator, no login of ours.
    let (app, maker) = (unique("billing"), unique("v-maker"));
    let mut admin = make(&app).await;
    make(&maker).await;
    run(&mut admin, format!("ALTER ROLE {} CREATEROLE", quoted(&maker))).await;
    let mut session = PgConnection::connect_with(&as_user(&app)).await.unwrap();
    for name in [&app, &maker] {
        let mut subject = about(name);
        look(&target, &mut subject).await;
        for act in [Act::Disable, Act::EndSessions] {
            assert_eq!(target.perform(act, &subject).await.unwrap_err().kind, FailureKind::Refused, "{name}");
        }
        assert!(PgConnection::connect_with(&as_user(name)).await.is_ok(), "{name} is shut out");
    }
    session.execute("SELECT 1").await.unwrap();
    let mut own = about("postgres");
    assert!(look(&target, &mut own).await.protected);
    for act in [Act::Disable, Act::EndSessions] {
        assert_eq!(target.perform(act, &own).await.unwrap_err().kind, FailureKind::Refused);
    }
    // PostgreSQL would cut a longer name to 63 bytes, and mean another user.
    let long = format!("{}{}", unique("v-task"), "x".repeat(60));
    make(&long[..63]).await;
    let mut subject = about(&long);
    assert_eq!(look(&target, &mut subject).await.presence, Presence::Gone);
    assert_eq!(target.perform(Act::Disable, &subject).await.unwrap_err().kind, FailureKind::Gone);
    let mut nobody = about("x");
    nobody.principal = None;
    assert_eq!(target.observe(&nobody).await.unwrap_err().kind, FailureKind::Refused);
    assert_eq!(target.probe(&nobody).await.answer, Answer::Unknown);
}

#[tokio::test]
async fn down_late_or_cut_proves_nothing() {
    let name = unique("v-task");
    let mut admin = make(&name).await;
    let url: reqwest::Url = env("CURFEW_TEST_POSTGRES").parse().unwrap();
    let proxy = Proxy::to(&format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())).await;
    let mut near = url.clone();
    near.set_port(Some(proxy.address.rsplit_once(':').unwrap().1.parse().unwrap())).unwrap();
    let target = target_by(near.as_str()).await;
    let mut subject = about(&name);
    look(&target, &mut subject).await;
    proxy.off();
    let sighting = target.probe(&subject).await;
    assert_eq!((sighting.answer, sighting.control), (Answer::Unknown, false));
    assert_eq!(target.observe(&subject).await.unwrap_err().kind, FailureKind::Unavailable);
    assert_eq!(target.self_check().await.unwrap_err().kind, FailureKind::Unavailable);
    proxy.on();
    until("the way back", || async { target.observe(&subject).await.ok() }).await;
    proxy.delay();
    assert_eq!(target.probe(&subject).await.answer, Answer::Unknown);
    proxy.on();
    until("the way back again", || async { target.observe(&subject).await.ok() }).await;
    run(&mut admin, format!("DROP ROLE {}", quoted(&name))).await;
    until("its death", || async { (target.probe(&subject).await.answer == Answer::Refused).then_some(()) }).await;
    // A wrong password is about our own access.
    near.set_password(Some("wrong")).unwrap();
    let failure = target_by(near.as_str()).await.self_check().await.unwrap_err();
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true));
}

#[tokio::test]
async fn plain_text_stays_on_loopback() {
    for (url, good) in [
        ("postgres://u:p@db.example/x", false),
        ("postgres://u:p@db.example/x?sslmode=require", false),
        ("postgres://u:p@db.example/x?sslmode=verify-full", true),
        ("postgres://u:p@127.0.0.1/x", true),
        ("postgres://u:p@%2Frun%2Fpostgresql/x", true),
        ("not a url", false),
    ] {
        let settings = PostgresSettings::new(SecretString::from(url.to_owned()));
        assert_eq!(connect("pg", &settings, System::shared()).await.is_ok(), good, "{url}");
    }
}
