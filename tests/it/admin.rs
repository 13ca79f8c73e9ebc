//! What an administrator does before Curfew comes: mounts, roles, credentials. Speaks to Vault as root, over plain HTTP.
#![allow(dead_code)]

use curfew::connector::postgres::{self, PostgresSettings};
use curfew::connector::vault::{self, Auth, VaultSettings};
use curfew::connector::{Realm, Registry};
use curfew::guard::Mode;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::world::{env, repository, unique};

/// Root at a Vault.
#[derive(Clone)]
pub struct Admin {
    pub address: String,
    token: String,
    http: reqwest::Client,
}

/// A database credential as Vault hands it out.
pub struct DatabaseCredential {
    pub lease: String,
    pub username: String,
    pub password: String,
}

impl Admin {
    /// The Vault that `tests/servers/servers` started.
    pub fn shared() -> Self {
        Self::at(&env("CURFEW_TEST_VAULT_ADDR"), &env("CURFEW_TEST_VAULT_TOKEN"))
    }

    pub fn at(address: &str, token: &str) -> Self {
        // Another test of this process may have been first: that is as good.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { address: address.to_owned(), token: token.to_owned(), http }
    }

    /// One call; status and body.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_as(&self.token, method, path, body).await
    }

    /// One call with another token.
    pub async fn call_as(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}/v1/{path}", self.address);
        let mut request = self.http.request(method, url).header("X-Vault-Token", token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// One call that must succeed.
    pub async fn done(&self, method: &str, path: &str, body: Value) {
        self.ok(method, path, body).await;
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// A database engine on a mount of its own, opening `url` (`{{username}}:{{password}}` are filled in by Vault).
    pub async fn database(&self) -> String {
        self.database_at(&Postgres::shared().host).await
    }

    /// The same, reaching PostgreSQL at `host`.
    pub async fn database_at(&self, host: &str) -> String {
        self.database_of(&Postgres { host: host.to_owned(), ..Postgres::shared() }, &[]).await
    }

    /// The same at that PostgreSQL; what is said of each user beside that it is made.
    pub async fn database_of(&self, pg: &Postgres, also: &[&str]) -> String {
        let (mount, host) = (unique("db"), &pg.host);
        self.ok("POST", &format!("sys/mounts/{mount}"), json!({"type": "database"})).await;
        let config = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            // It would keep four for each mount, and there is one for each test.
            "max_idle_connections": 1,
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}/postgres?sslmode=disable&connect_timeout=2"),
            "username": pg.user,
            "password": pg.password,
        });
        self.ok("POST", &format!("{mount}/config/pg"), config).await;
        let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';";
        let statements = [&[create], also].concat();
        let role = json!({
            "db_name": "pg",
            "creation_statements": statements,
            "default_ttl": "1h",
            "max_ttl": "2h",
        });
        self.ok("POST", &format!("{mount}/roles/app"), role).await;
        mount
    }

    /// A fresh credential of a [`Self::database`] mount.
    pub async fn database_credential(&self, mount: &str) -> DatabaseCredential {
        let answer = self.ok("GET", &format!("{mount}/creds/app"), Value::Null).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        DatabaseCredential {
            lease: text(&answer["lease_id"]),
            username: text(&answer["data"]["username"]),
            password: text(&answer["data"]["password"]),
        }
    }

    /// A service token that may look itself up; its accessor and itself.
    pub async fn token(&self, extra: Value) -> (String, String) {
        // Never `no_default_policy`: it takes `default` away also where it is asked for, and such a token looks dead.
        let mut body = json!({"no_parent": true, "ttl": "1h", "policies": ["default"]});
        for (key, value) in extra.as_object().cloned().unwrap_or_default() {
            body[key] = value;
        }
        let answer = self.ok("POST", "auth/token/create", body).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&answer["auth"]["accessor"]), text(&answer["auth"]["client_token"]))
    }

    /// An AppRole mount with role `ci`; the mount.
    pub async fn approle(&self) -> String {
        let mount = unique("approle");
        self.ok("POST", &format!("sys/auth/{mount}"), json!({"type": "approle"})).await;
        self.ok("POST", &format!("auth/{mount}/role/ci"), json!({"token_ttl": "1h", "secret_id_ttl": "1h"})).await;
        mount
    }

    /// A secret_id of [`Self::approle`]; its accessor and itself.
    pub async fn secret_id(&self, mount: &str, metadata: Value) -> (String, String) {
        let body = json!({"metadata": metadata.to_string()});
        let answer = self.ok("POST", &format!("auth/{mount}/role/ci/secret-id"), body).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&answer["data"]["secret_id_accessor"]), text(&answer["data"]["secret_id"]))
    }

    /// Logs in by AppRole; the token and its accessor.
    pub async fn approle_login(&self, mount: &str, secret_id: &str) -> (String, String) {
        let role = self.ok("GET", &format!("auth/{mount}/role/ci/role-id"), Value::Null).await;
        let body = json!({"role_id": role["data"]["role_id"], "secret_id": secret_id});
        let answer = self.ok("POST", &format!("auth/{mount}/login"), body).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&answer["auth"]["client_token"]), text(&answer["auth"]["accessor"]))
    }

    /// An orphan token for Curfew that may do all that the connectors need, on any mount. The least policies of
    /// `deploy/vault` have tests of their own.
    pub async fn curfew_token(&self) -> String {
        let policy = r#"path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }"#;
        self.ok("PUT", "sys/policies/acl/curfew-tests", json!({"policy": policy})).await;
        self.token(json!({"policies": ["curfew-tests"], "period": "1h"})).await.1
    }

    /// A policy of `deploy/vault`, with other names in it; what it is called.
    pub async fn policy(&self, file: &str, replaced: &[(&str, &str)]) -> String {
        let text = std::fs::read_to_string(repository().join(format!("deploy/vault/{file}.hcl"))).unwrap();
        let text = replaced.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{file}.hcl says nothing of {from}");
            text.replace(from, to)
        });
        let name = unique(file);
        self.ok("PUT", &format!("sys/policies/acl/{name}"), json!({"policy": text})).await;
        name
    }

    /// A token with these policies and no other.
    pub async fn token_of(&self, policies: &[&str]) -> String {
        self.token(json!({"policies": policies, "no_default_policy": true})).await.1
    }

    /// A transit engine on a mount of its own, with the key `curfew-fingerprint`; the mount.
    pub async fn transit(&self) -> String {
        let mount = unique("transit");
        self.ok("POST", &format!("sys/mounts/{mount}"), json!({"type": "transit"})).await;
        self.ok("POST", &format!("{mount}/keys/curfew-fingerprint"), json!({})).await;
        mount
    }

    /// Tokens of who may unwrap and of who may make keys of [`Self::transit`], and nothing else.
    pub async fn transit_logins(&self, mount: &str) -> (String, String) {
        let own = format!("\"{mount}/");
        let uses = self.policy("fingerprint-transit", &[("\"transit/", &own)]).await;
        let makes = self.policy("fingerprint-transit-make", &[("\"transit/", &own)]).await;
        (self.token_of(&[&uses]).await, self.token_of(&[&makes]).await)
    }

    /// Whether a token still works.
    pub async fn token_works(&self, token: &str) -> bool {
        self.call_as(token, "GET", "auth/token/lookup-self", Value::Null).await.0 == 200
    }

    /// Whether a lease is still known.
    pub async fn lease_lives(&self, lease: &str) -> bool {
        self.call("PUT", "sys/leases/lookup", json!({"lease_id": lease})).await.0 == 200
    }
}

/// Realm `test` at a Vault, acting on `mount`; with `target` its leases are proven at the PostgreSQL behind.
pub async fn connectors(admin: &Admin, mount: &str, target: bool) -> Registry {
    let mut settings = VaultSettings::new(&admin.address, Auth::Token(admin.curfew_token().await.into()));
    settings.tokens = true;
    settings.derived_tokens = true;
    settings.lease_prefixes = vec![format!("{mount}/creds/")];
    settings.secret_id_roles = vec![format!("{mount}/ci")];
    let mut registry = Registry::default();
    let mut allowed_prefixes = settings.allowed_prefixes();
    allowed_prefixes.push("token:".to_owned());
    let targets = if target { vec![(format!("{mount}/creds/"), "appdb".to_owned())] } else { Vec::new() };
    registry.add_realm(Realm {
        name: "test".to_owned(),
        mode: Mode::Enforce,
        allowed_prefixes,
        reducible: Vec::new(),
        targets,
    });
    let clock = curfew::clock::System::shared();
    for connector in vault::connect("test", &settings, Mode::Enforce, clock.clone()).await.unwrap() {
        registry.add(connector);
    }
    if target {
        let settings = PostgresSettings::new(Postgres::shared().url.into());
        for connector in postgres::connect("appdb", &settings, clock).await.unwrap() {
            registry.add(connector);
        }
    }
    registry
}

/// The PostgreSQL that `tests/servers/servers` started, as its administrator.
#[derive(Clone)]
pub struct Postgres {
    pub url: String,
    pub host: String,
    pub user: String,
    pub password: String,
}

impl Postgres {
    /// The system's own: 15.
    pub fn shared() -> Self {
        Self::at(&env("CURFEW_TEST_POSTGRES"))
    }

    /// The one whose memberships have grantors and options: 18.
    pub fn later() -> Self {
        Self::at(&env("CURFEW_TEST_POSTGRES_18"))
    }

    pub fn is_later(&self) -> bool {
        self.url != Self::shared().url
    }

    /// What `deploy/postgres` says of this version: the statements of a file, with other names in them.
    pub fn deployed(&self, file: &str, names: &[(&str, &str)]) -> Vec<String> {
        statements(file, self.is_later(), names, false)
    }

    /// The same of what a file only shows, since names are a reader's own.
    pub fn shown(&self, file: &str, names: &[(&str, &str)]) -> Vec<String> {
        statements(file, self.is_later(), names, true)
    }

    /// Curfew's own role, as `deploy/postgres` says of this version: its name, and how it logs in.
    pub async fn curfew(&self) -> (String, String) {
        let name = unique("curfew").replace('-', "_");
        let file = if self.is_later() { "curfew-16.sql" } else { "curfew-15.sql" };
        let statements = self.deployed(file, &[("curfew", &name)]).into_iter().filter(|one| !one.contains("app_a"));
        self.run(statements.chain([format!("ALTER ROLE {name} PASSWORD 'w1tness'")])).await;
        let url = format!("postgresql://{name}:w1tness@{}/postgres", self.host);
        (name, url)
    }

    /// Lets it alter these users, in so far as that has to be said.
    pub async fn lets_alter(&self, curfew: &str, users: &[&str]) {
        if !self.is_later() {
            return;
        }
        for user in users {
            let names = [("curfew", curfew), ("app_a", *user), ("app_b", *user)];
            let statements = self.deployed("curfew-16.sql", &names);
            self.run(statements.into_iter().filter(|one| one.contains(user))).await;
        }
    }

    /// As the administrator, on one connection.
    pub async fn run(&self, statements: impl IntoIterator<Item = String>) {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        for statement in statements {
            let what = statement.clone();
            let done = sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await;
            done.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        connection.close().await.unwrap();
    }

    pub fn at(url: &str) -> Self {
        let rest = url.split("://").nth(1).unwrap();
        let (login, place) = rest.split_once('@').unwrap();
        let (user, password) = login.split_once(':').unwrap();
        let host = place.split('/').next().unwrap();
        Self { url: url.to_owned(), host: host.to_owned(), user: user.to_owned(), password: password.to_owned() }
    }

    pub async fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(2).connect(&self.url).await.unwrap()
    }

    /// Logs in with a user's own password.
    pub async fn login(&self, username: &str, password: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&format!("postgresql://{username}:{password}@{}/postgres", self.host)).await
    }

    /// The server's log.
    pub fn log(&self) -> String {
        let name = if self.is_later() { "CURFEW_TEST_PG_18_LOG" } else { "CURFEW_TEST_PG_LOG" };
        String::from_utf8_lossy(&std::fs::read(env(name)).unwrap()).into_owned()
    }

    /// How often the server's log says that this role was dropped.
    pub fn drops(&self, role: &str) -> usize {
        self.log().lines().filter(|line| line.contains("DROP ROLE") && line.contains(role)).count()
    }
}

/// Statements of a file of `deploy/postgres`: those that it runs, or those that it shows (`--   …;`). What a paragraph says of
/// "Up to" or "From PostgreSQL 16 on" is of that side only.
fn statements(file: &str, is_later: bool, names: &[(&str, &str)], shown: bool) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("deploy/postgres").join(file)).unwrap();
    let of_this = |paragraph: &&str| {
        let of = |words: &str| paragraph.lines().any(|line| line.starts_with(words));
        !of(if is_later { "-- Up to PostgreSQL 15" } else { "-- From PostgreSQL 16 on" })
    };
    let mut found = Vec::new();
    for line in text.split("\n\n").filter(of_this).flat_map(str::lines).filter(|line| line.ends_with(';')) {
        match (line.strip_prefix("--   "), shown) {
            (Some(statement), true) => found.push(renamed(statement, names)),
            (None, false) if !line.starts_with("--") => found.push(renamed(line, names)),
            _ => {}
        }
    }
    assert!(!found.is_empty(), "{file} says nothing");
    found
}

/// With other names in place of whole words.
fn renamed(statement: &str, names: &[(&str, &str)]) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut all, mut rest) = (String::new(), statement);
    while !rest.is_empty() {
        let word = &rest[..rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())];
        let other = names.iter().find(|(from, _)| *from == word).map_or(word, |(_, to)| to);
        rest = &rest[word.len()..];
        let between = &rest[..rest.find(is_of_word).unwrap_or(rest.len())];
        rest = &rest[between.len()..];
        all.push_str(other);
        all.push_str(between);
    }
    all
}
