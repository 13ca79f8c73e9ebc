//! AppRole secret_ids that we pick: what Vault answers, before a connector reads it.

use super::*;

/// A mount with a role, and the role's id.
async fn role(root: &Root, settings: Value) -> (String, String) {
    let mount = unique("approle");
    root.put(&format!("sys/auth/{mount}"), json!({ "type": "approle" })).await;
    root.put(&format!("auth/{mount}/role/billing"), settings).await;
    let (_, id) = root.ask("GET", &format!("auth/{mount}/role/billing/role-id"), Value::Null).await;
    (mount, id["data"]["role_id"].as_str().unwrap().to_owned())
}

fn said(answer: &Value) -> &str {
    answer["errors"][0].as_str().unwrap_or_default()
}

#[tokio::test]
async fn what_a_secret_id_of_our_own_answers() {
    let root = Root::shared();
    let (mount, role_id) = role(&root, json!({ "token_ttl": "10m" })).await;
    let at = |what: &str| format!("auth/{mount}/role/billing/{what}");
    let ask = async |what: &str, body: Value| root.ask("POST", &at(what), body).await;
    let log_in = async |value: &str| {
        let body = json!({ "role_id": role_id, "secret_id": value });
        root.ask("POST", &format!("auth/{mount}/login"), body).await
    };
    let value = unique("picked-by-us");
    let body = json!({ "secret_id": value, "metadata": json!({ "curfew_key": "k" }).to_string() });
    let (status, made) = ask("custom-secret-id", body.clone()).await;
    assert_eq!((status, &made["data"]["secret_id"]), (200, &json!(value)), "the value comes back: wipe it");
    // Once more is an error, whoever it was.
    let (status, again) = ask("custom-secret-id", body).await;
    assert_eq!(status, 500);
    assert!(said(&again).contains("SecretID is already registered"), "{again}");
    // The value says which one it is, and whose.
    let (status, known) = ask("secret-id/lookup", json!({ "secret_id": value })).await;
    assert_eq!((status, &known["data"]["metadata"]["curfew_key"]), (200, &json!("k")));
    assert_eq!(known["data"]["secret_id_accessor"], made["data"]["secret_id_accessor"]);
    assert_eq!(known["data"]["secret_id_num_uses"], 0);
    assert!(known["data"].get("secret_id").is_none());
    assert_eq!(ask("secret-id/lookup", json!({ "secret_id": "never-was" })).await, (204, Value::Null));
    // Its metadata goes on to the tokens that it gives.
    let (status, token) = log_in(&value).await;
    assert_eq!((status, &token["auth"]["metadata"]["curfew_key"]), (200, &json!("k")));
    assert_eq!(token["auth"]["metadata"]["role_name"], "billing");
    let body = json!({ "secret_id_accessor": made["data"]["secret_id_accessor"] });
    assert_eq!(ask("secret-id-accessor/destroy", body).await.0, 204);
    assert_eq!(ask("secret-id/lookup", json!({ "secret_id": value })).await, (204, Value::Null));
    let (status, answer) = log_in(&value).await;
    assert_eq!((status, said(&answer)), (400, "invalid role or secret ID"));
    // A role that never was.
    let (status, answer) = root.ask("GET", &format!("auth/{mount}/role/none/role-id"), Value::Null).await;
    assert_eq!((status, answer), (404, json!({ "errors": [] })));
    for what in ["secret-id/lookup", "custom-secret-id"] {
        let path = format!("auth/{mount}/role/none/{what}");
        let (status, answer) = root.ask("POST", &path, json!({ "secret_id": "x" })).await;
        assert!(
            matches!(status, 400 | 404 | 500) && said(&answer).contains("does not exist"),
            "{what} {status} {answer}"
        );
    }
}

#[tokio::test]
async fn wrong_logins_lock_the_role_for_everybody_and_a_right_one_takes_them_back() {
    let root = Root::shared();
    let (mount, role_id) = role(&root, json!({ "token_ttl": "10m" })).await;
    let right = unique("right");
    root.put(&format!("auth/{mount}/role/billing/custom-secret-id"), json!({ "secret_id": right })).await;
    let log_in = async |value: &str| {
        let body = json!({ "role_id": role_id, "secret_id": value });
        root.ask("POST", &format!("auth/{mount}/login"), body).await.0
    };
    // Two wrong ones for each right one go on for ever.
    for _ in 0..4 {
        assert_eq!((log_in("wrong").await, log_in("wrong").await, log_in(&right).await), (400, 400, 200));
    }
    let mut wrong = 0;
    while log_in("wrong").await == 400 {
        wrong += 1;
        assert!(wrong < 20, "there is no lock");
    }
    assert!(wrong <= 5);
    assert_eq!(log_in(&right).await, 403, "locked, also for who is right");
}

#[tokio::test]
async fn a_role_of_another_network_refuses_in_other_words() {
    let root = Root::shared();
    let (mount, role_id) = role(&root, json!({ "secret_id_bound_cidrs": "192.0.2.0/24" })).await;
    let value = unique("far");
    root.put(&format!("auth/{mount}/role/billing/custom-secret-id"), json!({ "secret_id": value })).await;
    let body = json!({ "role_id": role_id, "secret_id": value });
    let (status, answer) = root.ask("POST", &format!("auth/{mount}/login"), body).await;
    assert!(status >= 400 && !said(&answer).contains("invalid role or secret ID"), "{status} {answer}");
}

/// A fence rests on this: whoever logs in as the entity is shut out, by whichever method, and nothing of it is lost.
#[tokio::test]
async fn what_a_disabled_entity_answers() {
    let root = Root::shared();
    let (mount, role_id) = role(&root, json!({ "token_ttl": "10m" })).await;
    let (_, made) = root.ask("POST", &format!("auth/{mount}/role/billing/secret-id"), json!({})).await;
    let by_role = json!({ "role_id": role_id, "secret_id": made["data"]["secret_id"] });
    let (_, first) = root.ask("POST", &format!("auth/{mount}/login"), by_role.clone()).await;
    let (token, entity) = (first["auth"]["client_token"].clone(), first["auth"]["entity_id"].clone());
    let at = format!("identity/entity/id/{}", entity.as_str().unwrap());
    root.put(&at, json!({ "policies": ["some"], "metadata": { "team": "billing" } })).await;
    // Somebody else logs in as the same.
    let users = unique("userpass");
    root.put(&format!("sys/auth/{users}"), json!({ "type": "userpass" })).await;
    root.put(&format!("auth/{users}/users/ana"), json!({ "password": "of-ana" })).await;
    let (_, auth) = root.ask("GET", "sys/auth", Value::Null).await;
    let accessor = &auth["data"][format!("{users}/")]["accessor"];
    let alias = json!({ "name": "ana", "canonical_id": entity, "mount_accessor": accessor });
    root.put("identity/entity-alias", alias).await;
    let ana = json!({ "password": "of-ana" });
    let works = async |token: &Value| {
        root.ask_as(token.as_str().unwrap(), "GET", "auth/token/lookup-self", Value::Null).await.0
    };
    let (_, before) = root.ask("GET", &at, Value::Null).await;
    assert_eq!(root.ask("POST", &at, json!({ "disabled": true })).await, (204, Value::Null));
    assert_eq!(root.ask("POST", &at, json!({ "disabled": true })).await.0, 204, "again");
    assert_eq!(works(&token).await, 403, "its tokens do nothing");
    assert_eq!(root.ask("POST", &format!("auth/{mount}/login"), by_role.clone()).await.0, 403);
    assert_eq!(root.ask("POST", &format!("auth/{users}/login/ana"), ana.clone()).await.0, 403, "by whichever method");
    let (_, meant) = root.ask("POST", "identity/lookup/entity", json!({ "id": entity })).await;
    assert_eq!((&meant["data"]["disabled"], meant["data"]["aliases"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!(root.ask("POST", &at, json!({ "disabled": false })).await.0, 204);
    assert_eq!(works(&token).await, 200, "they were not revoked");
    assert_eq!(root.ask("POST", &format!("auth/{mount}/login"), by_role).await.0, 200);
    assert_eq!(root.ask("POST", &format!("auth/{users}/login/ana"), ana).await.0, 200);
    let (_, after) = root.ask("GET", &at, Value::Null).await;
    for what in ["policies", "metadata", "name"] {
        assert_eq!(before["data"][what], after["data"][what], "{what}: `disabled` alone was written");
    }
    // One that is not there is not made.
    assert_eq!(root.ask("POST", "identity/entity/id/none", json!({ "disabled": true })).await.0, 400);
    assert_eq!(root.ask("POST", "identity/lookup/entity", json!({ "id": "none" })).await, (204, Value::Null));
}
