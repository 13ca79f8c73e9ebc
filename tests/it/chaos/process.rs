//! The four processes: how each is configured, started, killed, stopped, told to end, and started again when it ended.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::process::{Child, Command};

use super::history::{Exit, Pause};
use super::load::{OUTCOMES, REJECTED, TASKS};
use super::now_ms;
use super::proxy::Proxies;
use super::rotating;
use super::servers::{SCHEMA, Servers};
use crate::world::until;

/// How long a claim lasts: the least that the time-outs below allow.
pub const LEASE_MS: u64 = 11_000;

/// Name, realm, roles. Each role has several candidates, and none has all of them.
const FLEET: [(&str, &str, &str); 4] = [
    ("a1", "a", "intake,enforce,deadlines,reconcile,inventory,relay,serve"),
    ("a2", "a", "enforce,deadlines,reconcile,inventory,relay"),
    ("b1", "b", "intake,enforce,reconcile,relay,serve"),
    ("b2", "b", "intake,enforce,deadlines,reconcile"),
];

/// One process, over all its starts.
pub struct Curfew {
    pub name: &'static str,
    pub folder: PathBuf,
    realm: &'static str,
    roles: &'static str,
    metrics: u16,
    running: tokio::sync::Mutex<Running>,
    /// Held by the fault that has it.
    pub busy: Arc<tokio::sync::Mutex<()>>,
    pub exits: Mutex<Vec<Exit>>,
    pub pauses: Mutex<Vec<Pause>>,
}

#[derive(Default)]
struct Running {
    child: Option<Child>,
    /// It is to run: if it ends, it is started again, as an init system would.
    wanted: bool,
}

/// Sends a signal by name.
pub fn signal(pid: &str, name: &str) {
    let sent = std::process::Command::new("kill").args(["-s", name, pid]).status().unwrap();
    assert!(sent.success(), "{name} to {pid}");
}

/// Writes the folders and configurations of all.
pub async fn fleet(servers: &Servers, proxies: &Proxies, cap: u32) -> Vec<Arc<Curfew>> {
    let mut fleet = Vec::new();
    for (name, realm, roles) in FLEET {
        let folder = servers.folder.join(name);
        tokio::fs::create_dir_all(&folder).await.unwrap();
        let curfew = Curfew {
            name,
            folder,
            realm,
            roles,
            metrics: crate::canary::port(),
            running: tokio::sync::Mutex::default(),
            busy: Arc::default(),
            exits: Mutex::default(),
            pauses: Mutex::default(),
        };
        curfew.configure(servers, proxies, cap).await;
        fleet.push(Arc::new(curfew));
    }
    fleet
}

impl Curfew {
    async fn configure(&self, servers: &Servers, proxies: &Proxies, cap: u32) {
        let name = self.name;
        let address = proxies.listen(name).await;
        // Its own logins only: what it needs no login for it must not ask for.
        self.secret("journal.url", &servers.login(name).await);
        if self.realm == "a" {
            self.secret("appdb.url", &servers.login(&format!("fence_{name}")).await);
        }
        for login in [self.realm, "reconcile", "inventory"] {
            let (role, secret) = servers.approle(login).await;
            self.secret(&format!("{login}.role"), &role);
            self.secret(&format!("{login}.secret"), &secret);
        }
        let login =
            |whose: &str| json!({"role_id_file": format!("{whose}.role"), "secret_id_file": format!("{whose}.secret")});
        let vault = |realm: &str| json!({"address": &address, "timeout": "3s", "approle": login(realm)});
        let app = json!([{"prefix": "database/creds/app", "exclusive": true}]);
        let mut config = json!({
            "journal": {"path": "curfew.db", "postgres": {"url_file": "journal.url", "schema": SCHEMA, "connections": 6}},
            "kafka": {
                "brokers": servers.brokers(),
                "group": "chaos",
                // A static member: a killed process has not left, and its next start takes its place at once.
                "properties": {"group.instance.id": name, "session.timeout.ms": "6000"},
            },
            "topics": {TASKS: {"strongest": "revoke"}},
            "publish": {"outcomes": OUTCOMES, "states": OUTCOMES, "rotated": OUTCOMES, "rejected": REJECTED},
            "metrics": {"listen": format!("127.0.0.1:{}", self.metrics)},
            "realms": [
                {
                    "name": "a", "mode": "enforce", "vault": vault("a"),
                    "allowed_prefixes": ["database/creds/app/"],
                    "targets": [{"prefix": "database/creds/app/", "target": "appdb"}],
                    "reconcile": {"approle": login("reconcile"), "prefixes": app, "every": "10s"},
                },
                {
                    "name": "b", "mode": "enforce", "vault": vault("b"),
                    "allowed_prefixes": ["token:"],
                    "reconcile": {"approle": login("reconcile"), "tokens": true, "every": "20s"},
                },
            ],
            "targets": [{"name": "appdb", "mode": "enforce", "postgres": {"url_file": "appdb.url", "timeout": "1s"}}],
            "policy": {"grace": "1s"},
            "retry": {"first": "50ms", "ceiling": "2s"},
            "limits": {"effects_per_minute": cap, "claim_lease": format!("{LEASE_MS}ms"), "shutdown": "10s"},
            "log": {"level": "info,curfew=debug,librdkafka=error,rdkafka=error"},
        });
        rotating::configure(&mut config, login("inventory"), &servers.keys());
        self.secret("curfew.yaml", &config.to_string());
    }

    fn secret(&self, file: &str, text: &str) {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(self.folder.join(file));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Its own secret_ids: canaries as well.
    pub fn secrets(&self) -> Vec<String> {
        let read = |login: &str| std::fs::read_to_string(self.folder.join(format!("{login}.secret"))).unwrap();
        [self.realm, "reconcile", "inventory"].map(read).to_vec()
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn spawn(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        Command::new(assert_cmd::cargo::cargo_bin!("curfew"))
            .current_dir(&self.folder)
            .env_clear()
            .args(["run", "--realm", self.realm, "--role", self.roles])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    pub async fn start(&self) {
        let mut running = self.running.lock().await;
        running.child = Some(self.spawn());
        running.wanted = true;
    }

    /// Starts it again whenever it ends by itself.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut running = self.running.lock().await;
            let ended = running.child.as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended.filter(|_| running.wanted) {
                self.exits.lock().unwrap().push(Exit { at_ms: now_ms(), asked: false, code: status.code() });
                running.child = Some(self.spawn());
            }
        }
    }

    /// SIGKILL; it stays down until it is started.
    pub async fn kill(&self) {
        let mut running = self.running.lock().await;
        running.wanted = false;
        if let Some(mut child) = running.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// SIGTERM; how it ended is noted.
    pub async fn terminate(&self) {
        let mut running = self.running.lock().await;
        running.wanted = false;
        let Some(mut child) = running.child.take() else { return };
        if let Some(pid) = child.id() {
            signal(&pid.to_string(), "TERM");
        }
        let code = match tokio::time::timeout(Duration::from_secs(40), child.wait()).await {
            Ok(status) => status.unwrap().code(),
            // It hangs: that is noted as no exit code, and a finding.
            Err(_) => {
                child.kill().await.unwrap();
                None
            }
        };
        self.exits.lock().unwrap().push(Exit { at_ms: now_ms(), asked: true, code });
    }

    /// SIGSTOP, and SIGCONT when its claims have been void for a while.
    pub async fn pause(&self) {
        let pid = {
            let running = self.running.lock().await;
            running.child.as_ref().and_then(Child::id)
        };
        let Some(pid) = pid.map(|pid| pid.to_string()) else { return };
        let from_ms = now_ms();
        signal(&pid, "STOP");
        tokio::time::sleep(Duration::from_millis(LEASE_MS + 2_000)).await;
        let to_ms = now_ms();
        signal(&pid, "CONT");
        self.pauses.lock().unwrap().push(Pause { who: self.name.to_owned(), from_ms, to_ms, rejoined: false });
        // It goes on by itself: ready again, in the same process.
        let ready = until("a woken process to be ready", || async { self.is_ready().await.then_some(()) });
        let rejoined = tokio::time::timeout(Duration::from_secs(45), ready).await.is_ok();
        let same = self.running.lock().await.child.as_ref().and_then(Child::id).map(|pid| pid.to_string());
        self.pauses.lock().unwrap().last_mut().unwrap().rejoined = rejoined && same.as_deref() == Some(&*pid);
    }

    pub async fn is_ready(&self) -> bool {
        let asked = reqwest::get(format!("http://127.0.0.1:{}/readyz", self.metrics));
        matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(answer)) if answer.status() == 200)
    }

    pub async fn ready(&self) {
        until(&format!("{} to be ready", self.name), || async { self.is_ready().await.then_some(()) }).await;
    }

    /// The page for Prometheus.
    pub async fn page(&self) -> Option<String> {
        let asked = async { reqwest::get(format!("http://127.0.0.1:{}/metrics", self.metrics)).await?.text().await };
        tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?.ok()
    }

    /// One of the operators' commands.
    pub async fn ask(&self, args: &[&str]) -> Output {
        ask(&self.folder, args).await
    }
}

async fn ask(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
    command.current_dir(folder).env_clear().env("USER", "ana").args(args).kill_on_drop(true);
    command.output().await.unwrap()
}
