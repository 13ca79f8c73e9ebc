//! Static roles of the database engine: what a rotation by Vault itself answers. No connector reads this yet; it is what
//! one has to know. `last_vault_rotation` is the only thing that tells one rotation from the next.

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
