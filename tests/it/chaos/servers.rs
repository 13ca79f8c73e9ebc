//! Kafka, Vault and PostgreSQL of the chaos run alone: it restarts and seals them, so nobody else may use them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use tokio::process::{Child, Command};

use crate::admin::{Admin, Postgres};
use crate::world::until;

/// The journal's schema.
pub const SCHEMA: &str = "curfew";
/// Vault's and the journal's database.
const DATABASE: &str = "postgres";

/// The servers, in a folder of their own.
pub struct Servers {
    pub folder: PathBuf,
    /// Keeps the servers while its stdin is open: they end with this process, however it ends.
    keeper: Child,
    env: BTreeMap<String, String>,
    pub vault: Admin,
    pub postgres: Postgres,
    /// As PostgreSQL's administrator, past the journal.
    pub side: PgPool,
}

fn script() -> PathBuf {
    crate::repository().join("tests/servers/servers")
}

impl Servers {
    /// Starts all three; returns when they answer.
    pub async fn start(folder: &Path) -> Self {
        let keeper = Command::new(script())
            .arg("run")
            .arg(folder)
            .args(["kafka", "vault", "postgres", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let written = folder.join("env");
        let text =
            until("the servers of the chaos run", || async { tokio::fs::read_to_string(&written).await.ok() }).await;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let env: BTreeMap<String, String> =
            pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned())).collect();
        let vault = Admin::at(&env["CURFEW_TEST_VAULT_ADDR"], &env["CURFEW_TEST_VAULT_TOKEN"]);
        let postgres = Postgres::at(&env["CURFEW_TEST_POSTGRES"]);
        let options: PgConnectOptions = postgres.url.parse().unwrap();
        let options = options.options([("search_path", SCHEMA)]).disable_statement_logging();
        let side =
            PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(5)).connect_lazy_with(options);
        Self { folder: folder.to_owned(), keeper, env, vault, postgres, side }
    }

    pub fn env(&self, name: &str) -> &str {
        &self.env[name]
    }

    pub fn brokers(&self) -> &str {
        self.env("CURFEW_TEST_KAFKA")
    }

    /// The file of fingerprint keys.
    pub fn keys(&self) -> PathBuf {
        self.folder.join("fingerprint.keys")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("vault-audit-raw.log")
    }

    /// Runs the script of the servers to its end.
    async fn order(&self, what: &str, server: &str) {
        let done = Command::new(script()).arg(what).arg(&self.folder).arg(server).stdin(Stdio::null()).output();
        let done = done.await.unwrap();
        assert!(done.status.success(), "{what} {server}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub async fn stop(&self, server: &str) {
        self.order("stop", server).await;
    }

    pub async fn go_on(&self, server: &str) {
        self.order("start", server).await;
    }

    /// The server ends at once, without a word to anybody.
    pub async fn crash(&self, server: &str, signal: &str) {
        let pid = tokio::fs::read_to_string(self.folder.join(format!("{server}.pid"))).await.unwrap();
        super::process::signal(pid.trim(), signal);
        let proc = PathBuf::from(format!("/proc/{}", pid.trim()));
        // A zombie is gone as well: its parent is a script that does not look.
        until("the server to be gone", || async {
            let state = tokio::fs::read_to_string(proc.join("stat")).await.ok();
            state.is_none_or(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))).then_some(())
        })
        .await;
    }

    pub async fn seal(&self) {
        let (status, answer) = self.vault.call("PUT", "sys/seal", json!({})).await;
        assert!(status == 204, "{status} {answer}");
    }

    pub async fn unseal(&self) {
        let key = self.env("CURFEW_TEST_VAULT_UNSEAL_KEY");
        self.vault.call("PUT", "sys/unseal", json!({ "key": key })).await;
        until("Vault to be open", || async {
            (self.vault.call("GET", "sys/health", Value::Null).await.0 == 200).then_some(())
        })
        .await;
    }

    /// What an administrator does once: engines, policies, logins, logs that tell who did what.
    pub async fn prepare(&self) {
        // Vault's own user says each statement when it is done, and only then: a DROP ROLE that a crash took back is none.
        for sql in [
            "CREATE ROLE vault_admin SUPERUSER LOGIN PASSWORD 'vault-admin'",
            "ALTER ROLE vault_admin SET log_statement = 'none'",
            "ALTER ROLE vault_admin SET log_min_duration_statement = 0",
            "CREATE SCHEMA chaos",
            // Who had which case, and until when: what the cases' rows say only of now.
            "CREATE TABLE chaos.claims (no BIGINT GENERATED ALWAYS AS IDENTITY, case_id UUID, epoch BIGINT, \
             worker UUID, by TEXT, at_ms BIGINT, until_ms BIGINT)",
        ] {
            self.side.execute(sql).await.unwrap();
        }
        let vault = &self.vault;
        let host = &self.postgres.host;
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}/{DATABASE}?sslmode=disable");
        let config = json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url,
            "username": "vault_admin", "password": "vault-admin",
        });
        let role = json!({
            "db_name": "pg", "default_ttl": "2h", "max_ttl": "4h",
            "creation_statements":
                ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"],
        });
        let raw = json!({"type": "file", "options": {"file_path": self.audit_log(), "log_raw": "true"}});
        // The proxy says for whom it asks; the audit log repeats it in clear.
        self.put("sys/config/auditing/request-headers/x-chaos", json!({"hmac": false})).await;
        self.put("sys/audit/raw", raw).await;
        self.put("sys/mounts/database", json!({"type": "database"})).await;
        self.put("database/config/pg", config).await;
        self.put("database/roles/app", role.clone()).await;
        self.put("database/roles/other", role).await;
        self.put("sys/auth/approle", json!({"type": "approle"})).await;
        for policy in ["enforce", "tokens", "reconcile", "kv-inventory"] {
            let file = crate::repository().join(format!("deploy/vault/{policy}.hcl"));
            let text = tokio::fs::read_to_string(file).await.unwrap();
            self.put(&format!("sys/policies/acl/curfew-{policy}"), json!({"policy": text})).await;
        }
        self.prepare_rotations().await;
        for (login, policies) in [
            ("a", &["enforce", "kv-store"][..]),
            ("b", &["tokens"]),
            ("reconcile", &["reconcile"]),
            ("inventory", &["kv-inventory"]),
        ] {
            let policies: Vec<String> = policies.iter().map(|policy| format!("curfew-{policy}")).collect();
            let body = json!({"token_policies": policies, "token_ttl": "2h", "token_no_default_policy": true});
            self.put(&format!("auth/approle/role/{login}"), body).await;
        }
        assert_eq!(vault.call("GET", "sys/health", Value::Null).await.0, 200);
    }

    async fn put(&self, path: &str, body: Value) {
        let (status, answer) = self.vault.call("POST", path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
    }

    /// role_id and secret_id of a login of Curfew's.
    pub async fn approle(&self, login: &str) -> (String, String) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (_, role) = self.vault.call("GET", &format!("auth/approle/role/{login}/role-id"), Value::Null).await;
        let (_, secret) = self.vault.call("POST", &format!("auth/approle/role/{login}/secret-id"), json!({})).await;
        (text(&role["data"]["role_id"]), text(&secret["data"]["secret_id"]))
    }

    /// The accessor of one of Curfew's own logins.
    pub async fn own_accessor(&self, login: &str) -> String {
        until("a login of Curfew's", || async {
            let (_, all) = self.vault.call("LIST", "auth/token/accessors", Value::Null).await;
            for accessor in all["data"]["keys"].as_array()? {
                let body = json!({"accessor": accessor});
                let (_, about) = self.vault.call("POST", "auth/token/lookup-accessor", body).await;
                if about["data"]["meta"]["role_name"] == login {
                    return accessor.as_str().map(str::to_owned);
                }
            }
            None
        })
        .await
    }

    /// A login of one process at PostgreSQL, so that its log and the claims tell who it was; its URL.
    pub async fn login(&self, name: &str) -> String {
        let sql = AssertSqlSafe(format!("CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{name}'"));
        self.side.execute(sql).await.unwrap();
        format!("postgres://{name}:{name}@{}/{DATABASE}", self.postgres.host)
    }

    /// From now on each change of a claim is noted. The journal's schema must be there.
    pub async fn note_claims(&self) {
        for sql in [
            "CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO chaos.claims (case_id, epoch, worker, by, at_ms, until_ms) VALUES (NEW.id, NEW.claim_epoch, \
             NEW.claimed_by, session_user, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
             NEW.claim_until_ms); RETURN NULL; END $$",
            "CREATE TRIGGER chaos_note AFTER UPDATE ON curfew.cases FOR EACH ROW \
             WHEN (OLD.claim_epoch IS DISTINCT FROM NEW.claim_epoch) EXECUTE FUNCTION chaos.note()",
        ] {
            self.side.execute(sql).await.unwrap();
        }
    }

    /// Stops all.
    pub async fn end(mut self) {
        self.side.close().await;
        drop(self.keeper.stdin.take());
        self.keeper.wait().await.unwrap();
    }
}
