//! Tokens by accessor, and secret_ids with the tokens that they gave.

use super::*;

#[tokio::test]
async fn tokens_die_by_accessor_and_ours_and_root_are_protected() {
    let root = Root::shared();
    let policy = root.policy("tokens", "database").await;
    let (token, own) = root.token_of(&[&policy]).await;
    let mut settings = settings(&root.address, &token);
    settings.tokens = true;
    let connectors = connected(&settings).await;
    let tokens = &connectors[1];
    tokens.self_check().await.unwrap();
    let (_, accessor) =
        root.token(json!({ "policies": ["default"], "ttl": "10m", "meta": { "curfew_run": "ci:run-1" } })).await;
    let mut subject = about(Kind::VaultToken, &accessor);
    let seen = look(tokens, &mut subject).await;
    assert_eq!((seen.presence, seen.run.as_deref(), seen.protected), (Presence::Present, Some("ci:run-1"), false));
    assert!(!seen.only_expires && seen.expires_ms.is_some() && seen.issued_ms.is_some());
    tokens.perform(Act::Revoke, &subject).await.unwrap();
    let dead = tokens.probe(&subject).await;
    assert_eq!((dead.answer, dead.control), (Answer::Refused, true));
    // Again: 200 with a warning.
    assert_eq!(tokens.perform(Act::Revoke, &subject).await.unwrap(), Output::default());
    let never = about(Kind::VaultToken, "never-was");
    assert_eq!(tokens.observe(&never).await.unwrap().presence, Presence::Gone);
    assert!(tokens.probe(&never).await.control, "our own accessor is found on the same path");

    let own = about(Kind::VaultToken, &own);
    assert!(tokens.observe(&own).await.unwrap().protected);
    assert_eq!(kind(tokens.perform(Act::Revoke, &own).await), FailureKind::Refused);
    let (_, rooted) = root.token(json!({ "policies": ["root"], "ttl": "10m" })).await;
    assert!(tokens.observe(&about(Kind::VaultToken, &rooted)).await.unwrap().protected);
}

#[tokio::test]
async fn a_token_in_its_last_use_is_not_dead_yet() {
    let root = Root::shared();
    let proxy = Proxy::to(&postgres_address()).await;
    let mount = root.database(&proxy.address).await;
    let policy = unique("creds");
    let text = format!("path \"{mount}/creds/*\" {{ capabilities = [\"read\"] }}");
    root.put(&format!("sys/policies/acl/{policy}"), json!({ "policy": text })).await;
    let mut settings = settings(&root.address, &root.token);
    settings.tokens = true;
    let tokens = connected(&settings).await.remove(1);
    let body = json!({ "policies": [policy], "no_default_policy": true, "ttl": "10m", "num_uses": 1 });
    let (token, accessor) = root.token(body).await;
    let mut subject = about(Kind::VaultToken, &accessor);
    look(&tokens, &mut subject).await;
    // A slow database makes its last use last.
    proxy.off();
    proxy.delay();
    let (witness, path) = (root.clone(), format!("{mount}/creds/task"));
    let last_use = tokio::spawn(async move { witness.ask_as(&token, "GET", &path, Value::Null).await });
    until("its last use to have begun", || async {
        let (status, answer) = root.ask("POST", "auth/token/lookup-accessor", json!({ "accessor": accessor })).await;
        assert_eq!(status, 200);
        (answer["data"]["num_uses"] == json!(-1)).then_some(())
    })
    .await;
    assert!(!last_use.is_finished());
    assert_eq!(tokens.probe(&subject).await.answer, Answer::Accepted);
    proxy.on();
    last_use.await.unwrap();
    until("its death", || async { (tokens.probe(&subject).await.answer == Answer::Refused).then_some(()) }).await;
}

#[tokio::test]
async fn leases_of_a_dead_token_die_later_and_batch_tokens_have_no_name() {
    let root = Root::shared();
    let proxy = Proxy::to(&postgres_address()).await;
    let mount = root.database(&proxy.address).await;
    let policy = unique("creds");
    let text = format!("path \"{mount}/creds/*\" {{ capabilities = [\"read\"] }}");
    root.put(&format!("sys/policies/acl/{policy}"), json!({ "policy": text })).await;
    let mut settings = settings(&root.address, &root.token);
    settings.tokens = true;
    let connectors = connected(&settings).await;
    let (token, accessor) = root.token_of(&[&policy]).await;
    let (status, lease) = root.ask_as(&token, "GET", &format!("{mount}/creds/task"), Value::Null).await;
    assert_eq!(status, 200, "{lease}");
    let lease = about(Kind::VaultLease, lease["lease_id"].as_str().unwrap());
    let token = about(Kind::VaultToken, &accessor);
    proxy.off();
    connectors[1].perform(Act::Revoke, &token).await.unwrap();
    assert_eq!(connectors[1].probe(&token).await.answer, Answer::Refused);
    // So a token's death says nothing of its leases: each is a credential of its own.
    assert_eq!(connectors[0].probe(&lease).await.answer, Answer::Accepted);
    proxy.on();
    connectors[0].perform(Act::Revoke, &lease).await.unwrap();
    assert_eq!(connectors[0].probe(&lease).await.answer, Answer::Refused);

    let batch =
        root.put("auth/token/create-orphan", json!({ "type": "batch", "ttl": "10m", "policies": ["default"] })).await;
    assert_eq!(batch["auth"]["accessor"], "");
    assert!(CredentialId::new(Kind::VaultToken, REALM, "").is_err(), "it cannot even be registered");
}

#[tokio::test]
async fn a_token_of_a_disabled_entity_is_still_there() {
    let root = Root::shared();
    let mount = unique("approle");
    root.put(&format!("sys/auth/{mount}"), json!({ "type": "approle" })).await;
    root.put(&format!("auth/{mount}/role/job"), json!({ "token_ttl": "10m" })).await;
    let login = login(&root, &mount, "job", json!({})).await;
    let entity = login["entity_id"].as_str().unwrap();
    root.put(&format!("identity/entity/id/{entity}"), json!({ "disabled": true })).await;
    let (status, _) =
        root.ask_as(login["client_token"].as_str().unwrap(), "GET", "auth/token/lookup-self", Value::Null).await;
    assert_eq!(status, 403);
    let mut settings = settings(&root.address, &root.token);
    settings.tokens = true;
    let tokens = connected(&settings).await.remove(1);
    let subject = about(Kind::VaultToken, login["accessor"].as_str().unwrap());
    assert_eq!(tokens.probe(&subject).await.answer, Answer::Accepted, "a 403 of today is no death: it can be enabled");
    tokens.perform(Act::Revoke, &subject).await.unwrap();
    assert_eq!(tokens.probe(&subject).await.answer, Answer::Refused);
}

/// Logs in by a new secret_id; the answer's `auth`, with the secret_id's accessor as `secret`.
async fn login(root: &Root, mount: &str, role: &str, secret: Value) -> Value {
    let (_, id) = root.ask("GET", &format!("auth/{mount}/role/{role}/role-id"), Value::Null).await;
    let secret = root.put(&format!("auth/{mount}/role/{role}/secret-id"), secret).await["data"].take();
    let body = json!({ "role_id": id["data"]["role_id"], "secret_id": secret["secret_id"] });
    let mut auth = root.put(&format!("auth/{mount}/login"), body.clone()).await["auth"].take();
    auth["secret"] = secret["secret_id_accessor"].clone();
    auth["body"] = body;
    auth
}

#[tokio::test]
async fn a_secret_id_dies_with_its_tokens() {
    let root = Root::shared();
    let mount = unique("approle");
    root.put(&format!("sys/auth/{mount}"), json!({ "type": "approle" })).await;
    for role in ["ci-runner", "other"] {
        root.put(&format!("auth/{mount}/role/{role}"), json!({ "token_ttl": "10m" })).await;
    }
    let marked = json!({ "metadata": "{\"curfew_run\":\"ci:7\"}" });
    let held = login(&root, &mount, "ci-runner", marked).await;
    let bystander = login(&root, &mount, "ci-runner", json!({ "metadata": "{\"curfew_run\":\"ci:8\"}" })).await;
    let other = login(&root, &mount, "other", json!({})).await;
    let policy = root.policy("approle", &mount).await;
    let (token, _) = root.token_of(&[&policy]).await;
    let mut settings = settings(&root.address, &token);
    settings.secret_id_roles = vec![format!("{mount}/ci-runner")];
    let fence = connected(&settings).await.remove(1);
    fence.self_check().await.unwrap();
    let id = |role: &str, auth: &Value| format!("{mount}/{role}/{}", auth["secret"].as_str().unwrap());
    let mut subject = about(Kind::VaultSecretId, &id("ci-runner", &held));
    let seen = look(&fence, &mut subject).await;
    assert_eq!((seen.presence, seen.run.as_deref(), seen.protected), (Presence::Present, Some("ci:7"), false));
    // Another role's accessor through this role: 204 without a body, and 403.
    let wrong = about(Kind::VaultSecretId, &id("ci-runner", &other));
    assert_eq!(kind(fence.observe(&wrong).await), FailureKind::Refused);
    assert_eq!(kind(fence.perform(Act::Revoke, &wrong).await), FailureKind::Refused);
    // Another role: outside of the policy.
    let outside = about(Kind::VaultSecretId, &id("other", &other));
    assert_eq!(kind(fence.perform(Act::Revoke, &outside).await), FailureKind::Refused);

    fence.perform(Act::Revoke, &subject).await.unwrap();
    let dead = fence.probe(&subject).await;
    assert_eq!((dead.answer, dead.control), (Answer::Refused, true));
    fence.perform(Act::Revoke, &subject).await.unwrap();
    let (status, _) = root.ask("POST", &format!("auth/{mount}/login"), held["body"].clone()).await;
    assert_eq!(status, 400, "the fence: no new tokens");
    // Its token lives on, and this realm may not end it.
    let output = fence.perform(Act::RevokeDerived, &subject).await.unwrap();
    assert_eq!((output.derived, output.residue), (0, vec![Residue::DerivedUnknown]));

    settings.auth = Auth::Token(SecretString::from(root.token.clone()));
    settings.derived_tokens = true;
    settings.timeout_ms = 20_000;
    let whole = connected(&settings).await.remove(1);
    let output = whole.perform(Act::RevokeDerived, &subject).await.unwrap();
    assert_eq!((output.derived, output.residue), (1, vec![]));
    for (auth, lives) in [(&held, false), (&bystander, true), (&other, true)] {
        let body = json!({ "accessor": auth["accessor"] });
        let (status, _) = root.ask("POST", "auth/token/lookup-accessor", body).await;
        assert_eq!(status == 200, lives);
    }
    // Gone before we looked: only the case knows the run, and what else it gave stays unknown.
    let mut subject = about(Kind::VaultSecretId, &id("ci-runner", &bystander));
    root.put(
        &format!("auth/{mount}/role/ci-runner/secret-id-accessor/destroy"),
        json!({ "secret_id_accessor": bystander["secret"] }),
    )
    .await;
    subject.run = Some(RunKey::new("ci", "8"));
    look(&whole, &mut subject).await;
    let output = whole.perform(Act::RevokeDerived, &subject).await.unwrap();
    assert_eq!((output.derived, output.residue), (1, vec![Residue::DerivedUnknown]));
}

#[tokio::test]
async fn batch_tokens_of_a_secret_id_are_said_to_be_left() {
    let root = Root::shared();
    let mount = unique("approle");
    root.put(&format!("sys/auth/{mount}"), json!({ "type": "approle" })).await;
    let role = format!("auth/{mount}/role/ci-runner");
    let mut settings = settings(&root.address, &root.token);
    (settings.derived_tokens, settings.timeout_ms) = (true, 20_000);
    settings.secret_id_roles = vec![format!("{mount}/ci-runner")];
    let whole = connected(&settings).await.remove(1);
    // Who may end tokens and not look at the role does not know.
    let (ends, looks) = (root.policy("tokens", "database").await, root.policy("approle", &mount).await);
    let list = "path \"auth/token/accessors/\" { capabilities = [\"list\", \"sudo\"] }";
    let lists = unique("lists");
    root.put(&format!("sys/policies/acl/{lists}"), json!({ "policy": list })).await;
    for (of_role, of_mount, left) in [
        ("default", "default-service", false),
        ("batch", "default-service", true),
        ("default", "default-batch", true),
        ("service", "default-batch", false),
        ("service", "batch", true),
        ("batch", "service", false),
    ] {
        let what = format!("{of_role} at {of_mount}");
        root.put(&role, json!({ "token_ttl": "10m", "token_type": of_role })).await;
        root.put(&format!("sys/auth/{mount}/tune"), json!({ "token_type": of_mount })).await;
        let held = login(&root, &mount, "ci-runner", json!({ "metadata": "{\"curfew_run\":\"ci:7\"}" })).await;
        let is_batch = held["accessor"] == json!("");
        assert_eq!(is_batch, left, "{what}: {}", held["token_type"]);
        let id = format!("{mount}/ci-runner/{}", held["secret"].as_str().unwrap());
        let mut subject = about(Kind::VaultSecretId, &id);
        look(&whole, &mut subject).await;
        whole.perform(Act::Revoke, &subject).await.unwrap();
        let output = whole.perform(Act::RevokeDerived, &subject).await.unwrap();
        let residue = if left { vec![Residue::DerivedUnknown] } else { Vec::new() };
        assert_eq!((output.derived, output.residue), (u32::from(!left), residue), "{what}");
        let token = held["client_token"].as_str().unwrap();
        let (status, _) = root.ask_as(token, "GET", "auth/token/lookup-self", Value::Null).await;
        assert_eq!(status == 200, left, "{what}: the witness");
    }
    root.put(&role, json!({ "token_ttl": "10m", "token_type": "service" })).await;
    root.put(&format!("sys/auth/{mount}/tune"), json!({ "token_type": "default-service" })).await;
    for (policies, left) in [(vec![&*ends, &*lists], true), (vec![&*ends, &*lists, &*looks], false)] {
        let held = login(&root, &mount, "ci-runner", json!({ "metadata": "{\"curfew_run\":\"ci:7\"}" })).await;
        let mut subject =
            about(Kind::VaultSecretId, &format!("{mount}/ci-runner/{}", held["secret"].as_str().unwrap()));
        look(&whole, &mut subject).await;
        let (token, _) = root.token_of(&policies).await;
        settings.auth = Auth::Token(SecretString::from(token));
        let least = connected(&settings).await.remove(1);
        let output = least.perform(Act::RevokeDerived, &subject).await.unwrap();
        let residue = if left { vec![Residue::DerivedUnknown] } else { Vec::new() };
        assert_eq!((output.derived, output.residue), (1, residue), "{policies:?}");
    }
}

#[tokio::test]
async fn a_secret_id_is_gone_with_its_role() {
    let root = Root::shared();
    let mount = unique("approle");
    root.put(&format!("sys/auth/{mount}"), json!({ "type": "approle" })).await;
    let role = format!("auth/{mount}/role/ci-runner");
    root.put(&role, json!({ "token_ttl": "10m" })).await;
    let held = login(&root, &mount, "ci-runner", json!({})).await;
    let mut settings = settings(&root.address, &root.token);
    settings.secret_id_roles = vec![format!("{mount}/ci-runner")];
    let fence = connected(&settings).await.remove(1);
    let mut subject = about(Kind::VaultSecretId, &format!("{mount}/ci-runner/{}", held["secret"].as_str().unwrap()));
    assert_eq!(look(&fence, &mut subject).await.presence, Presence::Present);
    assert_eq!(root.ask("DELETE", &role, Value::Null).await.0, 204);
    assert_eq!(look(&fence, &mut subject).await.presence, Presence::Gone);
    fence.perform(Act::Revoke, &subject).await.unwrap();
    let dead = fence.probe(&subject).await;
    assert_eq!((dead.answer, dead.control), (Answer::Refused, true));
    // Another role of its name does not bring it back. Its accessor is left in Vault, and looks like one of another role.
    root.put(&role, json!({ "token_ttl": "10m" })).await;
    assert_eq!(kind(fence.observe(&subject).await), FailureKind::Refused);
    let (status, _) = root.ask("POST", &format!("auth/{mount}/login"), held["body"].clone()).await;
    assert_eq!(status, 400, "the witness");
}
