//! `curfew exec` on real Vault and PostgreSQL, with a real Curfew that is told over HTTP: whatever ends or breaks, the
//! credential ends seen dead, by Curfew and by a witness who tries it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::admin::{Admin, Postgres};
use crate::canary::{self, Running, port};
use crate::world::{unique, until};

mod ends;
mod hands;
mod signals;
mod within;

/// Vault, PostgreSQL, a Curfew with its folder, and a user who may start tasks: with the policy of `deploy/vault`.
struct World {
    folder: TempDir,
    admin: Admin,
    pg: Postgres,
    mount: String,
    token: String,
    vault: String,
    curfew: Option<Running>,
}

impl World {
    /// With a running Curfew.
    async fn new() -> Self {
        let mut world = Self::alone().await;
        world.start().await;
        world
    }

    async fn alone() -> Self {
        Self::at(Admin::shared(), json!({})).await
    }

    /// At one Vault, with more in the configuration.
    async fn at(admin: Admin, more: Value) -> Self {
        let pg = Postgres::shared();
        let mount = admin.database().await;
        let folder = tempfile::tempdir().unwrap();
        canary::private(folder.path().join("token"), &admin.curfew_token().await);
        canary::private(folder.path().join("pg.url"), &pg.url);
        let mut config = json!({
            "http": {"listen": format!("127.0.0.1:{}", port())},
            "metrics": {"listen": format!("127.0.0.1:{}", port())},
            "realms": [{
                "name": "test",
                "mode": "enforce",
                "vault": {"address": &admin.address, "token_file": "token"},
                "allowed_prefixes": [format!("{mount}/creds/"), "token:"],
                "targets": [{"prefix": format!("{mount}/creds/"), "target": "appdb"}],
            }],
            "targets": [{"name": "appdb", "postgres": {"url_file": "pg.url"}}],
            "policy": {"grace": "500ms"},
            "retry": {"first": "50ms", "ceiling": "500ms"},
            "limits": {"effects_per_minute": null},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            match (name.as_str(), value) {
                ("http", Value::Object(more)) => config["http"].as_object_mut().unwrap().extend(more.clone()),
                _ => config[name] = value.clone(),
            }
        }
        fs::write(folder.path().join("curfew.yaml"), config.to_string()).unwrap();
        let text = fs::read_to_string(crate::repository().join("deploy/vault/exec.hcl")).unwrap();
        let policy = unique("exec");
        let text = text.replace("database/creds/ro", &format!("{mount}/creds/app"));
        admin.done("PUT", &format!("sys/policies/acl/{policy}"), json!({"policy": text})).await;
        let (_, token) = admin.token(json!({"policies": [policy]})).await;
        let vault = admin.address.clone();
        Self { folder, admin, pg, mount, token, vault, curfew: None }
    }

    async fn start(&mut self) {
        let mut command = canary::curfew(self.path());
        command.args(["run", "--log-json"]);
        let nth = fs::read_dir(self.path()).unwrap().count();
        let mut running = Running::start(command, self.path().join(format!("log-{nth}")));
        running.says("curfew runs").await;
        self.curfew = Some(running);
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn role(&self) -> String {
        format!("DB={}/creds/app", self.mount)
    }

    /// `curfew exec` as the user calls it; the command is a shell script that runs in the world's folder.
    fn exec(&self, flags: &[&str], script: &str) -> Command {
        self.exec_of(flags, &["sh", "-c", script])
    }

    fn exec_of(&self, flags: &[&str], command: &[&str]) -> Command {
        // What started the tests may ignore signals (`nohup`, a background job), and what is ignored is inherited.
        let mut exec = Command::new("env");
        exec.arg("--default-signal").arg(assert_cmd::cargo::cargo_bin!("curfew"));
        exec.current_dir(self.path()).env_clear().env("HOME", self.path()).env("PATH", "/usr/bin:/bin");
        exec.env("VAULT_ADDR", &self.vault).env("VAULT_TOKEN", &self.token).env("RUST_LOG", "trace");
        exec.args(["exec", "--realm", "test"]).args(flags).arg("--").args(command).kill_on_drop(true);
        exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        exec
    }

    /// Starts it with the database's role, and waits until the command has written what it got.
    async fn begin(&self, flags: &[&str], script: &str) -> (Child, Got) {
        let role = self.role();
        let script = format!("{WRITES}; {script}");
        let exec = self.exec(&[&["--role", &role], flags].concat(), &script).spawn().unwrap();
        let got = until("the command to have its credential", || async { self.got() }).await;
        assert!(self.pg.login(&got.username, &got.password).await.is_ok(), "it works while the task runs");
        if self.curfew.is_some() {
            // What Curfew never looked at while it lived, it later calls `not_found` and not `dead`.
            until("Curfew to look at it", || async { self.looked_at().then_some(()) }).await;
        }
        (exec, got)
    }

    /// What the command got, once it has written that.
    fn got(&self) -> Option<Got> {
        let text = fs::read_to_string(self.file("got")).ok()?;
        let (username, password) = text.split_once(' ')?;
        Some(Got { username: username.to_owned(), password: password.to_owned() })
    }

    /// Whether Curfew has seen each credential that it knows.
    fn looked_at(&self) -> bool {
        let journal = rusqlite::Connection::open(self.file("curfew.db")).unwrap();
        let counts = "SELECT count(*), count(seen_ms) FROM credentials";
        let (all, seen): (i64, i64) = journal.query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        all > 0 && all == seen
    }

    async fn refused(&self, got: &Got) {
        until("PostgreSQL to refuse the login", || async {
            self.pg.login(&got.username, &got.password).await.is_err().then_some(())
        })
        .await;
    }

    async fn curfew(&self, args: &[&str]) -> Value {
        let folder = self.path().to_owned();
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let asked = tokio::task::spawn_blocking(move || {
            canary::curfew(&folder).env_remove("RUST_LOG").args(&args).output().unwrap()
        });
        let output = asked.await.unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// The same, of commands that were too short for Curfew to have looked before.
    async fn seen_gone(&self, credentials: usize) {
        self.closed(credentials, &["dead", "not_found"]).await;
    }

    /// Until Curfew has seen all that the runs held dead; its cases.
    async fn seen_dead(&self, credentials: usize) -> Vec<Value> {
        self.closed(credentials, &["dead"]).await
    }

    async fn closed(&self, credentials: usize, verdicts: &[&str]) -> Vec<Value> {
        let cases = || async {
            let cases = self.curfew(&["cases", "--closed", "--json"]).await;
            cases.as_array().unwrap().clone()
        };
        let closed = until("Curfew to have seen it dead", || async {
            let cases = cases().await;
            let is_dead = |line: &Value| verdicts.iter().any(|verdict| line["verdict"]["state"] == *verdict);
            let dead = cases.iter().all(|line| is_dead(line) && line["closed_ms"].is_i64());
            (cases.len() == credentials && dead).then_some(cases)
        });
        match tokio::time::timeout(Duration::from_secs(55), closed).await {
            Ok(cases) => cases,
            Err(_) => panic!("{}\n{}", Value::from(cases().await), self.curfew.as_ref().unwrap().log()),
        }
    }

    /// The leases that Vault holds below the mount.
    async fn leases(&self) -> usize {
        let (_, answer) =
            self.admin.call("LIST", &format!("sys/leases/lookup/{}/creds/app", self.mount), Value::Null).await;
        answer["data"]["keys"].as_array().map_or(0, Vec::len)
    }
}

/// What the command got.
struct Got {
    username: String,
    password: String,
}

/// The command's first words: whole or not at all, since somebody looks.
const WRITES: &str = r#"printf '%s %s' "$DB_USERNAME" "$DB_PASSWORD" > got.tmp; mv got.tmp got"#;
/// And its last, once the test says so.
const WAITS: &str = "while [ ! -e go ]; do sleep 0.05; done";

fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

async fn ends(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    said(&output)
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_a_credential_of_its_own_that_ends_with_it() {
    let world = World::new().await;
    let flags = ["--ttl", "10m", "--summary", "summary.json", "--task", "report", "--identity", "spiffe://t/reports"];
    let script = format!("env > seen; echo out; echo err >&2; {WAITS}; exit 3");
    let (child, got) = world.begin(&flags, &script).await;

    // What it sees: its own credential, who it is, and not what started it.
    let seen = until("its environment", || async {
        fs::read_to_string(world.file("seen")).ok().filter(|seen| seen.contains("DB_PASSWORD"))
    })
    .await;
    assert!(!seen.contains(&world.token) && !seen.contains("VAULT_TOKEN"), "the caller's token stays outside");
    assert!(seen.contains("CURFEW_RUN=/exec:") && seen.contains("CURFEW_DEADLINE="), "{seen}");
    // The database itself knows the deadline: seconds as Vault counts them, and the five that it adds.
    let until_then: f64 =
        sqlx::query_scalar("SELECT extract(epoch FROM rolvaliduntil - now())::float8 FROM pg_roles WHERE rolname = $1")
            .bind(&got.username)
            .fetch_one(&world.pg.pool().await)
            .await
            .unwrap();
    assert!((500.0..=606.0).contains(&until_then), "{until_then}");

    // What runs, what it holds, till when.
    let tasks = world.curfew(&["tasks", "--identity", "spiffe://t/reports", "--json"]).await;
    let (task, held) = (&tasks[0]["task"], &tasks[0]["holds"][0]);
    assert_eq!(
        (&task["name"], &task["phase"], &task["source"]),
        (&json!("report"), &json!("running"), &json!("/exec"))
    );
    assert_eq!(
        (&held["principal"], &held["grant"]["topics"]),
        (&json!(got.username), &json!(["curfew.tasks"])),
        "{held}"
    );
    let (dies, deadline) = (held["expires_ms"].as_i64().unwrap(), task["deadline_ms"].as_i64().unwrap());
    assert!((deadline - 5_000..=deadline + 1_000).contains(&dies), "{dies} {deadline}");
    assert_eq!(world.curfew(&["tasks", "--source", "/ci", "--json"]).await, json!([]));
    let table = canary::curfew(world.path()).env_remove("RUST_LOG").arg("tasks").output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    let lease = held["grant"]["credential"].as_str().unwrap();
    assert!(table.contains("spiffe://t/reports") && table.contains(lease) && table.contains("in 9m"), "{table}");

    fs::write(world.file("go"), "").unwrap();
    let (code, out, err) = ends(child).await;
    assert_eq!((code, out.as_str()), (Some(3), "out\n"), "{err}");
    assert_eq!(err, "err\n", "where all goes well, nothing is said");
    world.refused(&got).await;
    let cases = world.seen_dead(1).await;
    assert_eq!(cases[0]["case"]["directive"]["trigger"], "task_end", "{}", cases[0]);
    assert_eq!(world.curfew(&["tasks", "--json"]).await, json!([]));
    let ended = world.curfew(&["tasks", "--ended", "--json"]).await;
    assert!(ended[0]["task"]["outcome"] == "failure" && ended[0]["holds"][0]["dead_ms"].is_i64(), "{ended}");
    let summary: Value = serde_json::from_slice(&fs::read(world.file("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["exit_code"], &summary["outcome"]), (&json!(3), &json!("failure")), "{summary}");
    assert_eq!(
        (&summary["registered"], &summary["revoked"], &summary["told"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert_eq!(summary["credentials"][0]["cred_id"], cases[0]["case"]["directive"]["credential"]);
    assert_eq!(summary["credentials"][0]["principal"], got.username);
    assert_eq!(summary["variables"], json!(["CURFEW_DEADLINE", "CURFEW_RUN", "DB_PASSWORD", "DB_USERNAME"]));

    // Nowhere a secret: what exec said, the summary, Curfew's log at trace, its journal.
    let secrets = [("password".to_owned(), got.password.clone()), ("token".to_owned(), world.token.clone())].into();
    let scanner = canary::Scanner::new(&secrets);
    let log = world.curfew.as_ref().unwrap().log();
    for text in
        [err.as_bytes(), summary.to_string().as_bytes(), log.as_bytes(), &canary::rows(&world.file("curfew.db"))]
    {
        assert!(!text.is_empty());
        assert_eq!(scanner.names(text), std::collections::BTreeSet::new());
    }
    assert_eq!(scanner.names(&fs::read(world.file("got")).unwrap()).len(), 1, "the scanner finds it where it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_is_told_what_it_knows() {
    let world = World::new().await;
    let role = world.role();
    let code = async |flags: &[&str], command: &[&str]| {
        let (code, _, err) = said(&world.exec_of(flags, command).output().await.unwrap());
        (code.unwrap(), err)
    };
    // Before anything is minted.
    fs::write(world.file("plain"), "").unwrap();
    assert_eq!(code(&["--role", &role], &["no-such-command"]).await.0, 127);
    assert_eq!(code(&["--role", &role], &["./plain"]).await.0, 126);
    assert_eq!(code(&[], &["true"]).await.0, 2, "nothing is asked for");
    assert_eq!(code(&["--role", "nonsense"], &["true"]).await.0, 2);
    assert_eq!(code(&["--role", &role, "--ttl", "1000d"], &["true"]).await.0, 2);
    assert_eq!(code(&["--role", &role, "--ttl", "1s"], &["true"]).await.0, 2);
    assert_eq!(code(&["--role", &role, "--env", "X=DC.password"], &["true"]).await.0, 2);
    // No such path, and one that gives a standing secret.
    let (status, err) = code(&["--role", "nowhere/creds/app"], &["true"]).await;
    assert!(status == 125 && err.contains("gives no read on nowhere/creds/app"), "{err}");
    assert_eq!(world.leases().await, 0);
    assert_eq!(code(&["--role", &role], &["true"]).await.0, 0);
    assert_eq!(code(&["--role", &role], &["sh", "-c", "exit 7"]).await.0, 7);
    assert_eq!(code(&["--role", &role], &["sh", "-c", "kill -9 $$"]).await.0, 137);
    until("their leases to be gone", || async { (world.leases().await == 0).then_some(()) }).await;
    // The token that is not good is named as what it is.
    let mut exec = world.exec_of(&["--role", &role], &["true"]);
    let (status, _, err) = said(&exec.env("VAULT_TOKEN", "hvs.no-such-token").output().await.unwrap());
    assert!(status == Some(125) && err.contains("log in again"), "{err}");
    world.seen_gone(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_once() {
    let world = World::new().await;
    let role = world.role();
    let flags =
        |attempt: &'static str| ["--role", &role, "--run", "nightly-1", "--attempt", attempt].map(str::to_owned);
    let run = async |attempt: &'static str| {
        let flags = flags(attempt);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        said(&world.exec(&flags, WRITES).output().await.unwrap())
    };
    assert_eq!(run("1").await.0, Some(0));
    let (code, _, err) = run("1").await;
    assert!(code == Some(125) && err.contains("a higher --attempt"), "{err}");
    assert_eq!(run("2").await.0, Some(0));
    world.seen_gone(2).await;
}
