//! What is so from PostgreSQL 16 on: whoever may make users alters only those that it administers. On a real 18, with users that
//! a real Vault makes.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Presence, Residue};
use serde_json::json;
use sqlx::Executor as _;

use super::{about, look, target_by};
use crate::admin::{Admin, Postgres};
use crate::repository;

/// What the document says to add to the creation statements.
fn of_document() -> String {
    let text = std::fs::read_to_string(repository().join("docs/deploy.md")).unwrap();
    let mut quoted = text.split('`');
    quoted.find(|part| part.starts_with("GRANT \"{{name}}\" TO curfew")).expect("deploy.md says it").to_owned()
}

#[tokio::test]
async fn a_user_that_vault_makes_is_shut_where_its_creation_statements_say_that_we_may() {
    let (pg, vault) = (Postgres::later(), Admin::shared());
    let (name, url) = pg.curfew().await;
    let grant = of_document().replace(" curfew", &format!(" {name}")) + ";";
    let also = [grant.as_str()];
    for says in [true, false] {
        let mount = vault.database_of(&pg, &also[..usize::from(says)]).await;
        let credential = vault.database_credential(&mount).await;
        let target = target_by(&url).await;
        target.self_check().await.unwrap();
        let mut subject = about(&credential.username);
        assert_eq!(look(&target, &mut subject).await.presence, Presence::Present);
        let mut session = pg.login(&credential.username, &credential.password).await.unwrap();
        let shut = target.perform(Act::Disable, &subject).await.map_err(|failure| failure.kind);
        assert_eq!(shut.err(), (!says).then_some(FailureKind::Refused));
        assert_eq!(pg.login(&credential.username, &credential.password).await.is_err(), says);
        // By `pg_signal_backend`, whosever they are.
        let open = target.probe(&subject).await;
        assert_eq!(open.answer, Answer::Accepted);
        assert_eq!(open.residue, if says { vec![Residue::Sessions] } else { vec![] });
        assert_eq!(target.perform(Act::EndSessions, &subject).await.unwrap().derived, 1);
        assert!(session.execute("SELECT 1").await.is_err());
        // What Vault made it drops, though it gave it away.
        vault.done("PUT", "sys/leases/revoke", json!({"lease_id": credential.lease, "sync": true})).await;
        assert_eq!(look(&target, &mut subject).await.presence, Presence::Gone);
        let dead = target.probe(&subject).await;
        assert_eq!((dead.answer, dead.control, dead.residue), (Answer::Refused, true, vec![]));
    }
}

/// Superusers' sessions are nobody's to end, and a superuser nobody's to shut.
#[tokio::test]
async fn a_superuser_is_left_alone() {
    let pg = Postgres::later();
    let (_, url) = pg.curfew().await;
    let user = crate::world::unique("v-super");
    pg.run([format!("CREATE ROLE \"{user}\" LOGIN SUPERUSER PASSWORD 'w1tness'")]).await;
    let target = target_by(&url).await;
    let mut subject = about(&user);
    assert!(look(&target, &mut subject).await.protected);
    let mut session = pg.login(&user, "w1tness").await.unwrap();
    for act in [Act::Disable, Act::EndSessions] {
        assert_eq!(target.perform(act, &subject).await.unwrap_err().kind, FailureKind::Refused);
    }
    session.execute("SELECT 1").await.unwrap();
    pg.run([format!("ALTER ROLE \"{user}\" NOSUPERUSER NOLOGIN")]).await;
}
