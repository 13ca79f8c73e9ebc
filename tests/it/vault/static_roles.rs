//! Static roles of the database engine: what a rotation by Vault itself answers, and what the connector makes of it.
//! `last_vault_rotation` is the only thing that tells one rotation from the next.

use curfew::case::record::Generation;
use curfew::case::turn::Turn;
use curfew::connector::recipe::{Adoption, Keeper, PasswordRules, Place, Recipe, Rotation, Store, Users, Which};
use curfew::connector::vault::connect_stores;
use secrecy::ExposeSecret as _;

use super::*;
use crate::admin::Postgres;

/// A PostgreSQL user, and the static role `app` for it.
async fn static_role(root: &Root, postgres: &str) -> (String, String) {
    let mount = root.database(postgres).await;
    let user = unique("static").replace('-', "_");
    let admin = Postgres::shared().pool().await;
    let create = format!("CREATE ROLE {user} LOGIN PASSWORD 'set-by-a-person'");
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&admin).await.unwrap();
    let body = json!({ "db_name": "pg", "username": user, "rotation_period": "24h" });
    root.put(&format!("{mount}/static-roles/app"), body).await;
    (mount, user)
}

/// `(password, last_vault_rotation)`
async fn creds(root: &Root, mount: &str) -> (String, jiff::Timestamp) {
    let (status, answer) = root.ask("GET", &format!("{mount}/static-creds/app"), Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    let text = |key: &str| answer["data"][key].as_str().unwrap();
    (text("password").to_owned(), text("last_vault_rotation").parse().unwrap())
}

#[tokio::test]
async fn what_a_rotation_by_vault_answers() {
    let root = Root::shared();
    let postgres = Postgres::shared();
    let (mount, user) = static_role(&root, &postgres_address()).await;
    let ask = async |method: &str, path: &str| root.ask(method, &format!("{mount}/{path}"), json!({})).await;
    let text = |answer: &Value| answer["errors"][0].as_str().unwrap_or_default().to_owned();
    // To register one is a rotation: what a person had set is dead at once.
    assert!(postgres.login(&user, "set-by-a-person").await.is_err());
    let (_, answer) = root.ask("GET", &format!("{mount}/static-creds/app"), Value::Null).await;
    assert_eq!(
        (&answer["lease_id"], &answer["data"]["username"]),
        (&json!(""), &json!(user)),
        "no lease: nothing to revoke"
    );
    let (first, at) = creds(&root, &mount).await;
    let mut session = postgres.login(&user, &first).await.unwrap();
    // Made, set and stored in one call, without a body: neither version nor value nor time.
    assert_eq!(ask("POST", "rotate-role/app").await, (204, Value::Null));
    let (second, later) = creds(&root, &mount).await;
    assert!(second != first && later > at);
    assert!(postgres.login(&user, &first).await.is_err(), "one user: the old one ends where the new one begins");
    postgres.login(&user, &second).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut session).await.unwrap();
    // Not idempotent: each call is another password. Only the time tells that it has been done.
    assert_eq!(ask("POST", "rotate-role/app").await.0, 204);
    assert!(creds(&root, &mount).await.0 != second);
    // Unknown, or a role of the other sort: 400, not 404.
    for (method, path, said) in [
        ("POST", "rotate-role/none", "no static role found for role name"),
        ("POST", "rotate-role/task", "no static role found for role name"),
        ("GET", "static-creds/none", "unknown role: none"),
        ("GET", "static-creds/task", "unknown role: task"),
    ] {
        let (status, answer) = ask(method, path).await;
        assert_eq!((status, &*text(&answer)), (400, said), "{path}");
    }
    assert_eq!(ask("GET", "static-roles/none").await, (404, json!({ "errors": [] })));
    // A second static role for the same user is let in, and silently kills what the first one hands out.
    let (handed_out, _) = creds(&root, &mount).await;
    let body = json!({ "db_name": "pg", "username": user, "rotation_period": "24h" });
    root.put(&format!("{mount}/static-roles/twin"), body).await;
    assert_eq!(creds(&root, &mount).await.0, handed_out);
    assert!(postgres.login(&user, &handed_out).await.is_err());
    // Deleting the static role leaves the user and its password as they are.
    let (_, twin) = root.ask("GET", &format!("{mount}/static-creds/twin"), Value::Null).await;
    assert_eq!(ask("DELETE", "static-roles/twin").await.0, 204);
    postgres.login(&user, twin["data"]["password"].as_str().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_rotation_that_failed_may_still_happen_by_itself() {
    let root = Root::shared();
    let proxy = Proxy::to(&postgres_address()).await;
    let (mount, user) = static_role(&root, &proxy.address).await;
    let (password, at) = creds(&root, &mount).await;
    proxy.off();
    let (status, answer) = root.ask("POST", &format!("{mount}/rotate-role/app"), json!({})).await;
    let said = answer["errors"][0].as_str().unwrap();
    assert_eq!(status, 500);
    assert!(said.contains("unable to finish rotating credentials; retries will continue in the background"), "{said}");
    assert_eq!(creds(&root, &mount).await, (password.clone(), at), "the old one is still handed out");
    Postgres::shared().login(&user, &password).await.unwrap();
    // When the database is back, nobody asks again, and it happens: 500 is "unknown", and never "nothing happened".
    proxy.on();
    let (new, _) =
        until("Vault's own retry", async || Some(creds(&root, &mount).await).filter(|(_, now)| *now > at)).await;
    assert!(Postgres::shared().login(&user, &password).await.is_err());
    Postgres::shared().login(&user, &new).await.unwrap();
    // A user that is not there any more: the same 500, for ever.
    let admin = Postgres::shared().pool().await;
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP ROLE {user}"))).execute(&admin).await.unwrap();
    let (status, answer) = root.ask("POST", &format!("{mount}/rotate-role/app"), json!({})).await;
    assert_eq!(status, 500);
    assert!(answer["errors"][0].as_str().unwrap().contains("SQLSTATE 42704"));
}

#[tokio::test]
async fn a_rotator_needs_two_rights_and_cannot_tell_a_missing_role_from_a_forbidden_one() {
    let root = Root::shared();
    let (mount, _) = static_role(&root, &postgres_address()).await;
    let name = unique("rotator");
    let text = format!(
        "path \"{mount}/rotate-role/app\" {{ capabilities = [\"update\"] }}\n\
         path \"{mount}/static-roles/app\" {{ capabilities = [\"read\"] }}"
    );
    root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
    let (token, _) = root.token_of(&[&name]).await;
    let (_, before) = root.ask_as(&token, "GET", &format!("{mount}/static-roles/app"), Value::Null).await;
    assert_eq!(root.ask_as(&token, "POST", &format!("{mount}/rotate-role/app"), json!({})).await.0, 204);
    // The time of the last rotation stands beside the role as well: no right to the value is needed to look.
    let (_, after) = root.ask_as(&token, "GET", &format!("{mount}/static-roles/app"), Value::Null).await;
    assert!(before["data"]["last_vault_rotation"] != after["data"]["last_vault_rotation"]);
    assert!(after["data"].get("password").is_none());
    for path in ["rotate-role/none", "rotate-role/other"] {
        assert_eq!(root.ask_as(&token, "POST", &format!("{mount}/{path}"), json!({})).await.0, 403);
    }
}

/// The policy of `deploy/vault/static-roles.hcl`, for the role `app` of a mount.
async fn policy(root: &Root, mount: &str) -> String {
    let text = std::fs::read_to_string(crate::repository().join("deploy/vault/static-roles.hcl")).unwrap();
    let name = unique("static-roles");
    let text = text.replace("path \"database/", &format!("path \"{mount}/"));
    root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
    name
}

fn recipe(mount: &str, user: &str, role: &str) -> Recipe {
    Recipe {
        name: "app".to_owned(),
        credential: CredentialId::new(Kind::PostgresRole, "appdb", user).unwrap(),
        place: Place {
            keeper: Keeper::StaticRole,
            realm: REALM.to_owned(),
            mount: mount.to_owned(),
            path: format!("static-creds/{role}"),
            field: "password".to_owned(),
            user_field: None,
        },
        users: Users::One(user.to_owned()),
        password: PasswordRules::default(),
        adoption: Adoption::default(),
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
        copies: Vec::new(),
        webhooks: Vec::new(),
    }
}

async fn store(settings: &VaultSettings, recipe: &Recipe) -> Arc<dyn Store> {
    let places = [recipe.place.clone()];
    connect_stores(REALM, settings, Mode::Enforce, System::shared(), &places, &[]).await.unwrap().remove(0)
}

fn subject(recipe: &Recipe, store: &Arc<dyn Store>, turn: &Turn) -> Subject {
    let rotation = Rotation {
        recipe: Arc::new(recipe.clone()),
        store: store.clone(),
        turn: turn.clone(),
        candidate: None,
        contains: false,
        ends: false,
        copy: None,
        since_ms: 0,
        splits: false,
        share: None,
        moved: None,
    };
    Subject { rotation: Some(rotation), ..about(Kind::PostgresRole, "app") }
}

#[tokio::test]
async fn a_static_role_is_looked_at_rotated_once_and_its_old_password_remembered() {
    let root = Root::shared();
    let (mount, user) = static_role(&root, &postgres_address()).await;
    let (token, _) = root.token_of(&[&policy(&root, &mount).await]).await;
    let recipe = recipe(&mount, &user, "app");
    let store = store(&settings(&root.address, &token), &recipe).await;
    assert_eq!((store.name(), store.system()), ("vault-static-role", REALM));
    store.self_check().await.unwrap();
    let (old, at) = creds(&root, &mount).await;
    let mut turn = Turn::default();
    let seen = store.observe(&subject(&recipe, &store, &turn)).await.unwrap();
    let version = at.as_millisecond();
    assert_eq!((seen.presence, seen.issued_ms), (Presence::Present, Some(version)));
    assert_eq!(seen.current, Some(Generation { version, user: None }));
    turn.old = seen.current;
    let minted = store.perform(Act::Mint, &subject(&recipe, &store, &turn)).await.unwrap().current.unwrap();
    assert!(minted.version > version);
    // Again, as after an answer that was lost: it is done.
    let again = store.perform(Act::Mint, &subject(&recipe, &store, &turn)).await.unwrap().current.unwrap();
    assert_eq!(again, minted);
    // The one that came did not work either: now it is another one.
    turn.new = Some(minted.clone());
    let third = store.perform(Act::Mint, &subject(&recipe, &store, &turn)).await.unwrap().current.unwrap();
    assert!(third.version > minted.version);
    let value = async |which| {
        let stored = store.read(&recipe.place, which).await.unwrap();
        stored.map(|stored| (stored.version, stored.value.expose_secret().to_owned()))
    };
    assert_eq!(value(Which::Version(version)).await, Some((version, old)), "the first one is the one that leaked");
    assert_eq!(value(Which::Version(minted.version)).await, None, "nobody keeps what was in between");
    let (now, _) = creds(&root, &mount).await;
    assert_eq!(value(Which::Current).await, Some((third.version, now.clone())));
    assert_eq!(value(Which::Version(third.version)).await, Some((third.version, now)));
    assert_eq!(value(Which::Candidate).await, None);
    store.perform(Act::Destroy, &subject(&recipe, &store, &turn)).await.unwrap();
    assert_eq!(value(Which::Version(version)).await, None, "and with the case it goes");
    for act in [Act::Create, Act::Promote, Act::Set] {
        assert_eq!(kind(store.perform(act, &subject(&recipe, &store, &turn)).await), FailureKind::Refused);
    }
}

#[tokio::test]
async fn a_static_role_that_is_not_the_recipes_is_never_rotated() {
    let root = Root::shared();
    let (mount, user) = static_role(&root, &postgres_address()).await;
    let before = creds(&root, &mount).await;
    let turn = Turn { old: Some(Generation { version: before.1.as_millisecond(), user: None }), ..Turn::default() };
    // P6: of another user than the recipe says.
    let other = recipe(&mount, "somebody-else", "app");
    let all = store(&settings(&root.address, &root.token), &other).await;
    assert_eq!(kind(all.observe(&subject(&other, &all, &turn)).await), FailureKind::Refused);
    assert_eq!(kind(all.perform(Act::Mint, &subject(&other, &all, &turn)).await), FailureKind::Refused);
    // Nobody looked at what it was before: nothing could be compared with it afterwards.
    let own = recipe(&mount, &user, "app");
    let all = store(&settings(&root.address, &root.token), &own).await;
    assert_eq!(kind(all.perform(Act::Mint, &subject(&own, &all, &Turn::default())).await), FailureKind::Refused);
    // There is none, or it mints a user for each lease.
    for role in ["none", "task"] {
        let none = recipe(&mount, &user, role);
        let all = store(&settings(&root.address, &root.token), &none).await;
        assert_eq!(all.observe(&subject(&none, &all, &turn)).await.unwrap().presence, Presence::Gone);
        assert_eq!(kind(all.perform(Act::Mint, &subject(&none, &all, &turn)).await), FailureKind::Refused);
        assert!(all.read(&none.place, Which::Current).await.unwrap().is_none());
    }
    assert_eq!(creds(&root, &mount).await, before);
    // Without the right to rotate it is our own access; where the policy is of another role, this one is out of reach.
    let name = unique("reads");
    let text = format!("path \"{mount}/static-*\" {{ capabilities = [\"read\"] }}");
    root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
    let (token, _) = root.token(json!({ "policies": ["default", name], "ttl": "10m" })).await;
    let blind = store(&settings(&root.address, &token), &own).await;
    let failure = blind.perform(Act::Mint, &subject(&own, &blind, &turn)).await.unwrap_err();
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true));
    assert_eq!(creds(&root, &mount).await, before);
}

#[tokio::test]
async fn a_rotation_whose_answer_is_lost_is_unknown_and_seen_at_the_next_look() {
    let root = Root::shared();
    let (mount, user) = static_role(&root, &postgres_address()).await;
    let recipe = recipe(&mount, &user, "app");
    let proxy = Proxy::to(root.address.trim_start_matches("http://")).await;
    let far = store(&settings(&format!("http://{}", proxy.address), &root.token), &recipe).await;
    let before = creds(&root, &mount).await.1.as_millisecond();
    let turn = Turn { old: Some(Generation { version: before, user: None }), ..Turn::default() };
    proxy.cut_after(b"rotate-role");
    assert_eq!(kind(far.perform(Act::Mint, &subject(&recipe, &far, &turn)).await), FailureKind::Unknown);
    proxy.on();
    let after = creds(&root, &mount).await.1.as_millisecond();
    assert!(after > before);
    let done = far.perform(Act::Mint, &subject(&recipe, &far, &turn)).await.unwrap();
    assert_eq!(done.current, Some(Generation { version: after, user: None }));
    assert_eq!(creds(&root, &mount).await.1.as_millisecond(), after, "not once more");
}
