//! `curfew run` is killed (-9) in mid-work and started again: how long from the start of the process to the first effect
//! at Vault, with many open cases and with few. The effect is seen from outside, in Vault's audit log.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew::credential::{CredentialId, Kind};
use curfew::event::GrantSpec;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::journal::{Arrival, Batch, Journal};
use curfew::policy::Rules;
use curfew::task::{RunKey, Tenure};
use serde_json::json;

use crate::revoke::Memory;
use crate::stage;
use crate::table::{Goal, Table};

const RUNS: usize = 5;
/// Cases whose token lives, the most urgent ones; Vault does not know those that follow. Each start ends some.
const LIVE: usize = 1_000;

/// A journal with `cases` open cases.
async fn filled(vault: &Memory, path: &Path, cases: usize) {
    let live = vault.tokens(LIVE).await;
    let journal = Sqlite::open(path, Settings::default()).unwrap();
    for first in (0..cases).step_by(500) {
        let mut arrivals = Vec::new();
        for n in first..(first + 500).min(cases) {
            let run = RunKey::new("/bench", &format!("run-{n:08}"));
            let accessor = live.get(n).cloned().unwrap_or_else(|| format!("accessor-{n:08}"));
            let credential = CredentialId::new(Kind::VaultToken, "test", &accessor).unwrap();
            let grant = GrantSpec { credential, tenure: Tenure::Minted, principal: None, expires_ms: None };
            arrivals.push(Arrival::Event(Box::new(stage::started(&run, vec![grant]))));
            arrivals.push(Arrival::Event(Box::new(stage::ended(&run))));
        }
        let batch = Batch { arrivals, moves: Vec::new(), rules: Arc::new(Rules::default()), now_ms: stage::now_ms() };
        journal.record_batch(batch).await.unwrap();
    }
}

/// Writes what `curfew run` needs beside a journal.
fn configure(folder: &Path, vault: &Memory, token: &str) {
    use std::os::unix::fs::PermissionsExt;
    for (name, text) in [("token", token), ("intake.token", "an-intake-token-of-the-bench")] {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = json!({
        "journal": {"path": "curfew.db"},
        "http": {"listen": free(), "token_file": "intake.token"},
        "topics": {stage::TOPIC: {"strongest": "revoke"}},
        "metrics": {"listen": free()},
        "realms": [{
            "name": "test",
            "mode": "enforce",
            "vault": {"address": &vault.admin.address, "token_file": "token"},
            "allowed_prefixes": ["token:"],
        }],
        "limits": {"effects_per_minute": null},
    });
    // JSON is YAML.
    fs::write(folder.join("curfew.yaml"), config.to_string()).unwrap();
}

/// Vault works on nothing any more when its audit log did not grow for so long.
const QUIET: Duration = Duration::from_millis(300);

/// Starts the process, waits until Vault was asked to revoke something, kills it.
async fn to_first_effect_ms(folder: &Path, audit: &Path) -> f64 {
    // What the process before had under way ends at Vault after it: that is not ours.
    let length = || fs::metadata(audit).unwrap().len();
    let mut before = length();
    loop {
        tokio::time::sleep(QUIET).await;
        let now = length();
        if now == before {
            break;
        }
        before = now;
    }
    let mut seen = BufReader::new(fs::File::open(audit).unwrap());
    std::io::Seek::seek(&mut seen, std::io::SeekFrom::End(0)).unwrap();
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_curfew"))
        .current_dir(folder)
        .env_clear()
        .arg("run")
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let took = loop {
        if seen.read_line(&mut line).unwrap() == 0 {
            assert!(started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "{folder:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else if line.ends_with('\n') {
            if line.contains("revoke-accessor") {
                break started.elapsed();
            }
            line.clear();
        }
    };
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    took.as_secs_f64() * 1_000.0
}

pub async fn measure(table: &mut Table) {
    let vault = Memory::start().await;
    let token = vault.admin.curfew_token().await;
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.log");
    let device = json!({"type": "file", "options": {"file_path": audit}});
    assert_eq!(vault.admin.call("PUT", "sys/audit/bench", device).await.0, 204);
    let (small, large) = (dir.path().join("small"), dir.path().join("large"));
    eprintln!("restart: filling 1 k and 100 k open cases");
    for (folder, cases) in [(&small, 1_000), (&large, 100_000)] {
        fs::create_dir(folder).unwrap();
        filled(&vault, &folder.join("curfew.db"), cases).await;
        configure(folder, &vault, &token);
        // The first start follows no kill.
        to_first_effect_ms(folder, &audit).await;
    }
    let mut pairs = Vec::new();
    for _ in 0..RUNS {
        pairs.push((to_first_effect_ms(&large, &audit).await, to_first_effect_ms(&small, &audit).await));
    }
    table.add("kill -9 to first effect, 100 k open cases against 1 k", "ms", &pairs, Goal::AtMost(3.0));
}
