//! What the real Vault answers, and what the connectors make of it.

use std::sync::Arc;
use std::time::Duration;

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue};
use curfew::clock::System;
use curfew::connector::vault::{Auth, ConnectError, VaultSettings, connect};
use curfew::connector::{Connector, Failure, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::task::RunKey;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::world::{Proxy, env, unique, until};

const REALM: &str = "vault-test";

/// Vault's root, to set things up and to witness.
#[derive(Clone)]
struct Root {
    http: reqwest::Client,
    address: String,
    token: String,
}

impl Root {
    fn of(address: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().tls_certs_only(Vec::new()).no_proxy().build().unwrap();
        Self { http, address: address.to_owned(), token: token.to_owned() }
    }

    fn shared() -> Self {
        Self::of(&env("CURFEW_TEST_VAULT_ADDR"), &env("CURFEW_TEST_VAULT_TOKEN"))
    }

    async fn ask_as(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}/v1/{path}", self.address);
        let mut request = self.http.request(method, url).header("x-vault-token", token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask_as(&self.token, method, path, body).await
    }

    async fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, body).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    /// The policies of `deploy/vault/`, for our own mount, under names of our own.
    async fn policy(&self, file: &str, mount: &str) -> String {
        let text = std::fs::read_to_string(format!("{}/deploy/vault/{file}.hcl", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let text =
            text.replace("database/creds", &format!("{mount}/creds")).replace("auth/approle", &format!("auth/{mount}"));
        let name = unique(file);
        self.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
        name
    }

    /// `(token, accessor)`
    async fn token(&self, body: Value) -> (String, String) {
        let auth = self.put("auth/token/create-orphan", body).await["auth"].take();
        (auth["client_token"].as_str().unwrap().to_owned(), auth["accessor"].as_str().unwrap().to_owned())
    }

    async fn token_of(&self, policies: &[&str]) -> (String, String) {
        self.token(json!({ "policies": policies, "no_default_policy": true, "ttl": "10m" })).await
    }

    /// A database mount whose connection goes to `postgres` (host:port), with one role.
    async fn database(&self, postgres: &str) -> String {
        let mount = unique("db");
        let url: reqwest::Url = env("CURFEW_TEST_POSTGRES").parse().unwrap();
        self.put(&format!("sys/mounts/{mount}"), json!({ "type": "database" })).await;
        let connection = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{postgres}/postgres?sslmode=disable&connect_timeout=2"
        );
        self.put(
            &format!("{mount}/config/pg"),
            json!({ "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": connection,
                    "username": url.username(), "password": url.password() }),
        )
        .await;
        let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
        self.put(
            &format!("{mount}/roles/task"),
            json!({ "db_name": "pg", "creation_statements": [create], "default_ttl": "10m" }),
        )
        .await;
        mount
    }

    /// `(lease id, user)`
    async fn lease(&self, mount: &str) -> (String, String) {
        let (status, answer) = self.ask("GET", &format!("{mount}/creds/task"), Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        (answer["lease_id"].as_str().unwrap().to_owned(), answer["data"]["username"].as_str().unwrap().to_owned())
    }
}

fn postgres_address() -> String {
    let url: reqwest::Url = env("CURFEW_TEST_POSTGRES").parse().unwrap();
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
}

fn settings(address: &str, token: &str) -> VaultSettings {
    VaultSettings::new(address, Auth::Token(SecretString::from(token.to_owned())))
}

async fn connected(settings: &VaultSettings) -> Vec<Arc<dyn Connector>> {
    connect(REALM, settings, Mode::Enforce, System::shared()).await.unwrap()
}

fn about(kind: Kind, id: &str) -> Subject {
    Subject {
        credential: CredentialId::new(kind, REALM, id).unwrap(),
        principal: None,
        seen: None,
        issuer: None,
        run: None,
        key: None,
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Failure>) -> FailureKind {
    result.unwrap_err().kind
}

async fn look(connector: &Arc<dyn Connector>, subject: &mut Subject) -> Observation {
    let seen = connector.observe(subject).await.unwrap();
    subject.seen = Some(seen.clone());
    seen
}

#[tokio::test]
async fn a_lease_is_looked_at_revoked_and_seen_dead() {
    let root = Root::shared();
    let mount = root.database(&postgres_address()).await;
    let policy = root.policy("enforce", &mount).await;
    let (token, _) = root.token_of(&[&policy]).await;
    let mut settings = settings(&root.address, &token);
    settings.lease_prefixes = vec![format!("{mount}/creds/")];
    let lease = connected(&settings).await.remove(0);
    assert_eq!((lease.name(), lease.system()), ("vault-lease", REALM));
    lease.self_check().await.unwrap();

    let (id, _) = root.lease(&mount).await;
    let mut subject = about(Kind::VaultLease, &id);
    let seen = look(&lease, &mut subject).await;
    assert_eq!(seen.presence, Presence::Present);
    assert!(seen.issued_ms.unwrap() < seen.expires_ms.unwrap() && seen.request_id.is_some());
    let alive = lease.probe(&subject).await;
    assert_eq!((alive.answer, alive.level), (Answer::Accepted, Level::Issuer));
    lease.perform(Act::Revoke, &subject).await.unwrap();
    let dead = lease.probe(&subject).await;
    assert_eq!((dead.answer, dead.control), (Answer::Refused, true));
    // Again: 204 for what is gone, and for what never was. It proves nothing, so it harms nothing.
    lease.perform(Act::Revoke, &subject).await.unwrap();
    let never = about(Kind::VaultLease, &format!("{mount}/creds/task/never"));
    lease.perform(Act::Revoke, &never).await.unwrap();
    assert_eq!(lease.observe(&never).await.unwrap().presence, Presence::Gone);
    assert!(lease.probe(&never).await.control, "the control call speaks where nothing was seen before");
    // No act of this connector.
    assert_eq!(kind(lease.perform(Act::Disable, &subject).await), FailureKind::Refused);
}

#[tokio::test]
async fn what_our_policy_does_not_reach_is_refused_and_blocks_nothing() {
    let root = Root::shared();
    let (mount, other) = (root.database(&postgres_address()).await, root.database(&postgres_address()).await);
    let policy = root.policy("enforce", &mount).await;
    let (token, _) = root.token_of(&[&policy]).await;
    let mut settings = settings(&root.address, &token);
    settings.lease_prefixes = vec![format!("{mount}/creds/")];
    let lease = connected(&settings).await.remove(0);
    let (own, _) = root.lease(&mount).await;
    let (foreign, _) = root.lease(&other).await;
    let subject = about(Kind::VaultLease, &foreign);
    for failure in [lease.observe(&subject).await.unwrap_err(), lease.perform(Act::Revoke, &subject).await.unwrap_err()]
    {
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Refused, false));
    }
    assert_eq!(lease.probe(&subject).await.answer, Answer::Unknown);
    // A body's lease_id would override the URL: the policy lets it through for no lease, its own neither.
    for id in [&foreign, &own] {
        let (status, _) = root
            .ask_as(&token, "PUT", &format!("sys/leases/revoke/{own}"), json!({ "sync": true, "lease_id": id }))
            .await;
        assert_eq!(status, 403);
    }
    for (path, body) in [
        (format!("sys/leases/revoke/{own}"), json!({})),
        (format!("sys/leases/revoke/{own}"), json!({ "sync": false })),
        ("sys/leases/revoke".to_owned(), json!({ "lease_id": own, "sync": true })),
        (format!("sys/leases/revoke-prefix/{mount}/creds"), json!({})),
        (format!("sys/leases/revoke-force/{mount}/creds"), json!({})),
        ("sys/leases/lookup".to_owned(), json!({ "lease_id": foreign })),
    ] {
        let (status, answer) = root.ask_as(&token, "PUT", &path, body).await;
        assert_eq!(status, 403, "{path} {answer}");
    }
    for id in ["../x", "a//b", "a/../b", "x?y", "a/b/", "%2e%2e/x", "a/*"] {
        assert_eq!(kind(lease.perform(Act::Revoke, &about(Kind::VaultLease, id)).await), FailureKind::Refused, "{id}");
    }
    // The same without the right at all: now it is our access, and the system is blocked.
    let (token, _) = root.token_of(&["default"]).await;
    settings.auth = Auth::Token(SecretString::from(token));
    let blind = connected(&settings).await.remove(0);
    let failure = blind.perform(Act::Revoke, &about(Kind::VaultLease, &own)).await.unwrap_err();
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true));
    assert_eq!(kind(blind.self_check().await), FailureKind::Denied);
    let (status, _) = root.ask("PUT", "sys/leases/lookup", json!({ "lease_id": own })).await;
    assert_eq!(status, 200, "after all that it lives");
}

#[tokio::test]
async fn with_the_database_down_a_revoke_is_in_doubt_and_the_lease_lives_on() {
    let root = Root::shared();
    let proxy = Proxy::to(&postgres_address()).await;
    let mount = root.database(&proxy.address).await;
    let lease = connected(&settings(&root.address, &root.token)).await.remove(0);
    let (id, _) = root.lease(&mount).await;
    let mut subject = about(Kind::VaultLease, &id);
    let before = look(&lease, &mut subject).await;
    proxy.off();
    assert_eq!(kind(lease.perform(Act::Revoke, &subject).await), FailureKind::Unknown);
    let after = look(&lease, &mut subject).await;
    assert_eq!((after.presence, after.expires_ms), (Presence::Present, before.expires_ms));
    assert_eq!(lease.probe(&subject).await.answer, Answer::Accepted);
    proxy.on();
    lease.perform(Act::Revoke, &subject).await.unwrap();
    assert_eq!(lease.probe(&subject).await.answer, Answer::Refused);
}

#[tokio::test]
async fn a_cut_or_late_answer_is_in_doubt_and_no_connection_is_not() {
    let root = Root::shared();
    let proxy = Proxy::to(root.address.trim_start_matches("http://")).await;
    let mut settings = settings(&format!("http://{}", proxy.address), &root.token);
    settings.tokens = true;
    settings.timeout_ms = 2000;
    let connectors = connected(&settings).await;
    let tokens = &connectors[1];
    let (_, accessor) = root.token(json!({ "ttl": "10m" })).await;
    let subject = about(Kind::VaultToken, &accessor);
    proxy.cut_replies();
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unknown);
    assert_eq!(tokens.probe(&subject).await.answer, Answer::Unknown);
    proxy.on();
    // It was carried out.
    assert_eq!(tokens.observe(&subject).await.unwrap().presence, Presence::Gone);
    proxy.delay();
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unknown);
    assert_eq!(kind(tokens.observe(&subject).await), FailureKind::Unavailable);
    drop(proxy);
    // A port where nobody listens: nothing can have happened.
    settings.address = "http://127.0.0.1:1".into();
    let nobody = connected(&settings).await;
    assert_eq!(kind(nobody[1].perform(Act::Revoke, &subject).await), FailureKind::Unavailable);
    assert_eq!(nobody[1].probe(&subject).await.answer, Answer::Unknown);
}

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
    let (_, accessor) = root.token(json!({ "ttl": "10m", "meta": { "curfew_run": "ci:run-1" } })).await;
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
async fn the_login_must_be_an_orphan_of_the_right_cluster() {
    let root = Root::shared();
    let child = root.put("auth/token/create", json!({ "ttl": "10m" })).await["auth"]["client_token"].clone();
    let child = settings(&root.address, child.as_str().unwrap());
    let open = |settings: VaultSettings, mode| async move {
        connect(REALM, &settings, mode, System::shared()).await.map(|all| all.len())
    };
    assert_eq!(open(child.clone(), Mode::Enforce).await, Err(ConnectError::NotOrphan));
    assert_eq!(open(child, Mode::Observe).await, Ok(1));
    let mut wrong = settings(&root.address, &root.token);
    wrong.cluster_id = Some("somewhere-else".into());
    assert!(matches!(open(wrong, Mode::Enforce).await, Err(ConnectError::WrongCluster { .. })));
    let stranger = settings(&root.address, "hvs.nobody");
    assert!(matches!(open(stranger, Mode::Enforce).await, Err(ConnectError::Login(_))));
    for address in ["http://vault.example:8200", "https://u@h", "ftp://h", "http://127.0.0.1/x", "x"] {
        assert!(
            matches!(open(settings(address, "t"), Mode::Enforce).await, Err(ConnectError::Settings(_))),
            "{address}"
        );
    }
    let broken = settings(&root.address, "two\ntokens");
    assert!(matches!(open(broken, Mode::Enforce).await, Err(ConnectError::Settings(_))));
}

#[tokio::test]
async fn an_approle_login_is_renewed_and_opened_again_when_it_was_killed() {
    let root = Root::shared();
    let mount = unique("approle");
    root.put(&format!("sys/auth/{mount}"), json!({ "type": "approle" })).await;
    let policy = root.policy("tokens", "database").await;
    root.put(
        &format!("auth/{mount}/role/curfew"),
        json!({ "token_policies": [policy], "token_ttl": "3s", "token_max_ttl": "8s" }),
    )
    .await;
    let (_, id) = root.ask("GET", &format!("auth/{mount}/role/curfew/role-id"), Value::Null).await;
    let secret = root.put(&format!("auth/{mount}/role/curfew/secret-id"), json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{}\n", text.as_str().unwrap())).unwrap();
        path
    };
    let auth = Auth::Approle {
        mount: mount.clone(),
        role_id_file: file("role", &id["data"]["role_id"]),
        secret_id_file: file("secret", &secret["data"]["secret_id"]),
    };
    let mut settings = VaultSettings::new(&root.address, auth);
    settings.tokens = true;
    settings.secret_id_roles = vec![format!("{mount}/curfew")];
    let connectors = connected(&settings).await;
    // Past its first life, and past its longest.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        connectors[1].self_check().await.unwrap();
    }
    // Somebody kills it: the next call logs in again.
    let (_, list) = root.ask("LIST", "auth/token/accessors", Value::Null).await;
    for accessor in list["data"]["keys"].as_array().unwrap() {
        let (_, token) = root.ask("POST", "auth/token/lookup-accessor", json!({ "accessor": accessor })).await;
        if token["data"]["path"] == json!(format!("auth/{mount}/login")) {
            let subject = about(Kind::VaultToken, accessor.as_str().unwrap());
            assert!(connectors[1].observe(&subject).await.unwrap().protected, "ours, by accessor or by entity");
            root.put("auth/token/revoke-accessor", json!({ "accessor": accessor })).await;
        }
    }
    let (_, accessor) = root.token(json!({ "ttl": "10m" })).await;
    connectors[1].perform(Act::Revoke, &about(Kind::VaultToken, &accessor)).await.unwrap();
}

/// A Vault of one's own: to seal and to kill.
struct Private {
    child: tokio::process::Child,
    root: Root,
    key: String,
}

impl Private {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = tokio::process::Command::new(env("CURFEW_TEST_VAULT_BIN"))
            .args(["-listen", &format!("127.0.0.1:{port}"), "-data", ""])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut root = Root::of(&format!("http://127.0.0.1:{port}"), "");
        let url = format!("{}/v1/sys/init", root.address);
        let made: Value = until("Vault's start", || async {
            let body = json!({ "secret_shares": 1, "secret_threshold": 1 });
            let answer = root.http.put(&url).json(&body).send().await.ok()?;
            if answer.status() != 200 { None } else { answer.json().await.ok() }
        })
        .await;
        root.token = made["root_token"].as_str().unwrap().to_owned();
        let private = Self { child, root, key: made["keys_base64"][0].as_str().unwrap().to_owned() };
        private.unseal().await;
        private
    }

    async fn unseal(&self) {
        self.root.put("sys/unseal", json!({ "key": self.key })).await;
        until("the active node", || async {
            (self.root.ask("GET", "sys/health", Value::Null).await.0 == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn sealed_killed_and_throttling_mean_nothing_happened() {
    let mut vault = Private::start().await;
    let root = vault.root.clone();
    let mut settings = settings(&root.address, &root.token);
    settings.tokens = true;
    let tokens = connected(&settings).await.remove(1);
    let (_, accessor) = root.token(json!({ "ttl": "10m" })).await;
    let subject = about(Kind::VaultToken, &accessor);
    root.put("sys/quotas/rate-limit/tight", json!({ "path": "auth/token/", "rate": 1, "interval": "60s" })).await;
    let mut throttled = None;
    for _ in 0..4 {
        throttled = tokens.observe(&subject).await.err().or(throttled);
    }
    let throttled = throttled.unwrap();
    assert!(matches!(throttled.kind, FailureKind::Throttled { after_ms: Some(1..=60_000) }), "{throttled:?}");
    let (status, _) = root.ask("DELETE", "sys/quotas/rate-limit/tight", Value::Null).await;
    assert_eq!(status, 204);
    root.put("sys/seal", json!({})).await;
    assert_eq!(kind(tokens.observe(&subject).await), FailureKind::Unavailable);
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unavailable);
    let sighting = tokens.probe(&subject).await;
    assert_eq!((sighting.answer, sighting.control), (Answer::Unknown, false));
    // A start against a sealed Vault waits for it.
    let late = connected(&settings).await.remove(1);
    assert_eq!(kind(late.self_check().await), FailureKind::Unavailable);
    vault.unseal().await;
    late.self_check().await.unwrap();
    assert_eq!(tokens.observe(&subject).await.unwrap().presence, Presence::Present);
    vault.child.kill().await.unwrap();
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unavailable);
}
