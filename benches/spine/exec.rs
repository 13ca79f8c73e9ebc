//! What `curfew exec` adds to a command: beside what Vault itself takes to answer, and against two `curl`s around it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use curfew::connector::vault::mint::Issuer;
use curfew::connector::vault::{Auth, VaultSettings};
use serde_json::json;

use crate::admin::Admin;
use crate::table::{Goal, Table};
use crate::world::until;

const RUNS: usize = 20;
/// What it may add.
const MOST_MS: f64 = 30.0;

/// A Curfew that is told over HTTP; killed with the value.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn start(folder: &Path, admin: &Admin, mount: &str) -> Running {
    std::fs::write(folder.join("token"), admin.curfew_token().await).unwrap();
    let metrics = port();
    let config = json!({
        "http": {"listen": format!("127.0.0.1:{}", port())},
        "metrics": {"listen": format!("127.0.0.1:{metrics}")},
        "realms": [{
            "name": "test", "mode": "enforce", "vault": {"address": &admin.address, "token_file": "token"},
            "allowed_prefixes": [format!("{mount}/creds/")],
        }],
        "limits": {"effects_per_minute": null},
    });
    std::fs::write(folder.join("curfew.yaml"), config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command.current_dir(folder).arg("run").stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    until("curfew to run", || async {
        let ready = reqwest::get(format!("http://127.0.0.1:{metrics}/readyz")).await;
        ready.is_ok_and(|answer| answer.status().is_success()).then_some(())
    })
    .await;
    running
}

/// What Vault takes for the same calls.
async fn vault(issuer: &Issuer, path: &str) -> f64 {
    let began = Instant::now();
    issuer.own().await.unwrap();
    let token = issuer.task_token(&[], "/bench:1", Duration::from_secs(900)).await.unwrap();
    let minted = issuer.mint(&token, path).await.unwrap();
    issuer.bound(&token, &minted.lease, Duration::from_secs(900)).await.unwrap();
    issuer.end(&token).await.unwrap();
    ms(began)
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}

/// Runs to its end; how long that took.
fn run(command: &mut Command, folder: &Path, admin: &Admin, token: &str) -> f64 {
    let command = command.current_dir(folder).env("VAULT_ADDR", &admin.address).env("VAULT_TOKEN", token);
    let began = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ms(began)
}

pub async fn measure(table: &mut Table) {
    eprintln!("exec: `true` with a database credential of its own, {RUNS} runs");
    let admin = Admin::shared();
    let mount = admin.database().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _running = start(folder, &admin, &mount).await;
    let token = admin.curfew_token().await;
    let settings = VaultSettings::new(&admin.address, Auth::Token(token.clone().into()));
    let issuer = Issuer::new(&settings, &token.clone().into()).unwrap();
    let path = format!("{mount}/creds/app");
    // What somebody writes who has only `curl`: mint, run, revoke.
    let bare = format!(
        "set -e; made=$(curl -fsS -H \"X-Vault-Token: $VAULT_TOKEN\" $VAULT_ADDR/v1/{path}); \
         lease=${{made#*\\\"lease_id\\\":\\\"}}; lease=${{lease%%\\\"*}}; true; \
         curl -fsS -X POST -H \"X-Vault-Token: $VAULT_TOKEN\" -d '{{\"sync\":true}}' $VAULT_ADDR/v1/sys/leases/revoke/$lease"
    );
    let (mut added, mut pairs) = (Vec::new(), Vec::new());
    for nth in 0..=RUNS {
        let mut exec = Command::new(env!("CARGO_BIN_EXE_curfew"));
        exec.args(["exec", "--realm", "test", "--role", &format!("DB={path}"), "--", "true"]);
        let ours = run(&mut exec, folder, &admin, &token);
        let answers = vault(&issuer, &path).await;
        let curl = run(Command::new("sh").args(["-c", &bare]), folder, &admin, &token);
        // The first opens files for all.
        if nth > 0 {
            added.push(((ours - answers).max(0.1), MOST_MS));
            pairs.push((ours, curl));
        }
    }
    table.add("curfew exec beside Vault's own answers, of 30 ms", "ms", &added, Goal::AtMost(1.0));
    table.add("curfew exec against curl, run, curl", "ms", &pairs, Goal::Seen);
}
