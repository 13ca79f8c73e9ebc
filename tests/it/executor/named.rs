//! Whom a producer names as the user of a lease: nobody is shut out on its word who is none of the users of leases.

use curfew::connector::recipe::{Adoption, Keeper, PasswordRules, Place, Recipe, Users};
use sqlx::{AssertSqlSafe, Executor as _};

use super::*;
use crate::admin::Postgres;
use crate::world::unique;

over_both! {
    who_is_no_user_of_leases_is_not_shut_out,
    whose_password_is_rotated_is_not_shut_out,
    nobody_is_shut_out_for_a_lease_that_never_was,
}

/// A user that a producer may name, with a session.
async fn user(pg: &Postgres, name: &str) -> sqlx::PgConnection {
    let sql = AssertSqlSafe(format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'w1tness'"));
    pg.pool().await.execute(sql).await.unwrap();
    pg.login(name, "w1tness").await.unwrap()
}

fn id_of(lease: &str) -> CredentialId {
    CredentialId::new(Kind::VaultLease, "test", lease).unwrap()
}

async fn who_is_no_user_of_leases_is_not_shut_out(store: Store) {
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let mount = admin.database().await;
    let scene = Scene::with(store, admin, &connectors(&Admin::shared(), &mount, true).await, Arc::new(|_| ())).await;
    let name = unique("billing");
    let mut session = user(&pg, &name).await;
    let made = scene.admin.database_credential(&mount).await;
    let id = id_of(&made.lease);
    scene.stage.task_ends(scene.journal.as_ref(), &new_run(), &id, Some(&name)).await;
    let verdict = scene.closes(&id).await;
    // The lease dies, and it is said by whose word.
    let Verdict::Dead { level: Level::Issuer, .. } = verdict else { panic!("{verdict:?}") };
    assert!(!scene.admin.lease_lives(&made.lease).await);
    session.execute("SELECT 1").await.unwrap();
    pg.login(&name, "w1tness").await.expect("it was shut out");
}

async fn whose_password_is_rotated_is_not_shut_out(store: Store) {
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let mount = admin.database().await;
    let mut registry = connectors(&admin, &mount, true).await;
    // Called as users of leases are.
    let (name, idle) = (unique("v-app"), unique("v-idle"));
    registry.add_recipe(Recipe {
        name: "app".to_owned(),
        credential: CredentialId::new(Kind::PostgresRole, "elsewhere", &format!("{idle},{name}")).unwrap(),
        place: Place {
            keeper: Keeper::Kv,
            realm: "test".to_owned(),
            mount: "kv".to_owned(),
            path: "app".to_owned(),
            field: "password".to_owned(),
            user_field: Some("username".to_owned()),
        },
        copies: Vec::new(),
        webhooks: Vec::new(),
        users: Users::Two(idle, name.clone()),
        password: PasswordRules::default(),
        adoption: Adoption::default(),
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
    });
    let scene = Scene::with(store, admin, &registry, Arc::new(|_| ())).await;
    let mut session = user(&pg, &name).await;
    let made = scene.admin.database_credential(&mount).await;
    let id = id_of(&made.lease);
    scene.stage.task_ends(scene.journal.as_ref(), &new_run(), &id, Some(&name)).await;
    let verdict = scene.closes(&id).await;
    let Verdict::Dead { level: Level::Issuer, .. } = verdict else { panic!("{verdict:?}") };
    session.execute("SELECT 1").await.unwrap();
    pg.login(&name, "w1tness").await.expect("it was shut out");
}

async fn nobody_is_shut_out_for_a_lease_that_never_was(store: Store) {
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let mount = admin.database().await;
    let scene = Scene::with(store, admin, &connectors(&Admin::shared(), &mount, true).await, Arc::new(|_| ())).await;
    // The user of somebody else's lease.
    let other = scene.admin.database_credential(&mount).await;
    let mut session = pg.login(&other.username, &other.password).await.unwrap();
    let id = id_of(&format!("{mount}/creds/app/never-was"));
    scene.stage.task_ends(scene.journal.as_ref(), &new_run(), &id, Some(&other.username)).await;
    assert_eq!(scene.closes(&id).await, Verdict::NotFound);
    assert_eq!(scene.effects(), 0);
    session.execute("SELECT 1").await.unwrap();
    pg.login(&other.username, &other.password).await.expect("it was shut out");
    // With its own lease it ends as ever, at the target.
    let id = id_of(&other.lease);
    scene.stage.task_ends(scene.journal.as_ref(), &new_run(), &id, Some(&other.username)).await;
    let verdict = scene.closes(&id).await;
    let Verdict::Dead { level: Level::Target, .. } = verdict else { panic!("{verdict:?}") };
    session.execute("SELECT 1").await.unwrap_err();
}
