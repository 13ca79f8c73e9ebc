//! What the real Vault answers, and what the connectors make of it.

mod approles;
pub mod bind;
mod inventory;
mod kv;
mod outage;
mod reconcile;
mod static_roles;
mod tokens;
mod transit;

use std::sync::Arc;

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

/// A Vault of a test's own, which ends with the first of the two, and its root.
pub async fn private() -> (Box<dyn std::any::Any + Send>, crate::admin::Admin) {
    let private = outage::Private::start().await;
    let admin = crate::admin::Admin::at(&private.root.address, &private.root.token);
    (Box::new(private), admin)
}

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
        let text = std::fs::read_to_string(crate::repository().join(format!("deploy/vault/{file}.hcl"))).unwrap();
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

    /// The accessors of all tokens that came by `path`.
    async fn tokens_of(&self, path: &str) -> Vec<String> {
        let (_, list) = self.ask("LIST", "auth/token/accessors", Value::Null).await;
        let mut found = Vec::new();
        for accessor in list["data"]["keys"].as_array().unwrap() {
            let (_, token) = self.ask("POST", "auth/token/lookup-accessor", json!({ "accessor": accessor })).await;
            if token["data"]["path"] == json!(path) {
                found.push(accessor.as_str().unwrap().to_owned());
            }
        }
        found
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

pub fn about(kind: Kind, id: &str) -> Subject {
    Subject {
        credential: CredentialId::new(kind, REALM, id).unwrap(),
        principal: None,
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
    let (token, _) = root.token(json!({ "policies": ["default"], "ttl": "10m" })).await;
    settings.auth = Auth::Token(SecretString::from(token));
    let blind = connected(&settings).await.remove(0);
    let failure = blind.perform(Act::Revoke, &about(Kind::VaultLease, &own)).await.unwrap_err();
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true));
    assert_eq!(kind(blind.self_check().await), FailureKind::Denied);
    let (status, _) = root.ask("PUT", "sys/leases/lookup", json!({ "lease_id": own })).await;
    assert_eq!(status, 200, "after all that it lives");
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
    let fence = root.policy("approle", &mount).await;
    root.put(
        &format!("auth/{mount}/role/ci-runner"),
        json!({ "token_policies": [policy, fence], "token_ttl": "3s", "token_max_ttl": "8s" }),
    )
    .await;
    let (_, id) = root.ask("GET", &format!("auth/{mount}/role/ci-runner/role-id"), Value::Null).await;
    let secret = root.put(&format!("auth/{mount}/role/ci-runner/secret-id"), json!({})).await;
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
    settings.secret_id_roles = vec![format!("{mount}/ci-runner")];
    let connectors = connected(&settings).await;
    // The role by which we log in ourselves is never fenced off.
    let own = format!("{mount}/ci-runner/{}", secret["data"]["secret_id_accessor"].as_str().unwrap());
    assert!(connectors[2].observe(&about(Kind::VaultSecretId, &own)).await.unwrap().protected);
    let login = format!("auth/{mount}/login");
    let first = root.tokens_of(&login).await.pop().expect("our login");
    // Past its first life it is renewed, past its longest there is another; no call fails meanwhile.
    let told = async || {
        connectors[1].self_check().await.unwrap();
        root.ask("POST", "auth/token/lookup-accessor", json!({ "accessor": first })).await
    };
    until("its renewal", async || told().await.1["data"]["last_renewal"].is_string().then_some(())).await;
    until("its end", async || (told().await.0 != 200).then_some(())).await;
    // Somebody kills it: the next call logs in again. From now on logins last, so that only that ends this one.
    root.put(
        &format!("auth/{mount}/role/ci-runner"),
        json!({ "token_policies": [policy, fence], "token_ttl": "10m", "token_max_ttl": "10m" }),
    )
    .await;
    let lasting = until("a login that lasts", async || {
        connectors[1].self_check().await.unwrap();
        for accessor in root.tokens_of(&login).await {
            let (_, seen) = root.ask("POST", "auth/token/lookup-accessor", json!({ "accessor": accessor })).await;
            if seen["data"]["ttl"].as_u64() > Some(60) {
                return Some(accessor);
            }
        }
        None
    })
    .await;
    assert_ne!(lasting, first);
    let subject = about(Kind::VaultToken, &lasting);
    let seen = connectors[1].observe(&subject).await.unwrap();
    assert!(seen.protected, "ours, by accessor or by entity");
    assert_eq!(seen.role, Some(format!("{mount}/ci-runner")), "by which role it logged in");
    root.put("auth/token/revoke-accessor", json!({ "accessor": lasting })).await;
    let (_, accessor) = root.token(json!({ "ttl": "10m" })).await;
    connectors[1].perform(Act::Revoke, &about(Kind::VaultToken, &accessor)).await.unwrap();
}
