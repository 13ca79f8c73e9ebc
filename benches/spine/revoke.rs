//! Revocations per second with proof, against a bare loop of the same Vault calls: look, revoke, look again.
//! Tokens on a Vault with memory storage; the cases are recorded before the clock starts.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use curfew::credential::{CredentialId, Kind};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::table::{Goal, Table};
use crate::{admin, stage, world};

const TOKENS: usize = 1_000;
/// Many short ones: the machine's own pace changes from second to second.
const RUNS: usize = 11;
const CONCURRENCY: usize = 16;

/// A Vault of the bench's own, gone with it.
pub struct Memory {
    child: Child,
    pub admin: admin::Admin,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Memory {
    pub async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let child = Command::new(world::env("CURFEW_TEST_VAULT_BIN"))
            .args(["-listen", &listen, "-data", "", "-log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("http://{listen}");
        let blank = admin::Admin::at(&address, "");
        let init = json!({"secret_shares": 1, "secret_threshold": 1});
        let answer = loop {
            match reqwest::Client::new().put(format!("{address}/v1/sys/init")).json(&init).send().await {
                Ok(answer) => break answer.json::<Value>().await.unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        blank.call("PUT", "sys/unseal", json!({"key": answer["keys"][0]})).await;
        let admin = admin::Admin::at(&address, answer["root_token"].as_str().unwrap());
        world::until("the Vault to be unsealed", || async {
            let (status, _) = admin.call("GET", "sys/health", Value::Null).await;
            (status == 200).then_some(())
        })
        .await;
        Self { child, admin }
    }

    pub async fn tokens(&self, count: usize) -> Vec<String> {
        futures::stream::iter(0..count)
            .map(|_| async { self.admin.token(json!({})).await.0 })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await
    }
}

/// Processor time that a process has used, in microseconds.
fn used_us(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks = |field: usize| after_name.split_whitespace().nth(field).unwrap().parse::<u64>().unwrap();
    // utime and stime, in ticks of 10 ms.
    (ticks(11) + ticks(12)) * 10_000
}

/// Processor time of this process and of Vault since `since`, for each case.
pub struct Used {
    since: (u64, u64),
    cases: usize,
}

impl Used {
    fn now(vault: &Memory) -> (u64, u64) {
        (used_us(std::process::id()), used_us(vault.child.id()))
    }

    pub fn start(vault: &Memory, cases: usize) -> Self {
        Self { since: Self::now(vault), cases }
    }

    pub fn print(&self, what: &str, vault: &Memory) {
        let (own, its) = Self::now(vault);
        let each = |us: u64| us / self.cases as u64;
        eprintln!(
            "  {what}: {} us of processor for each case, Vault {} us",
            each(own - self.since.0),
            each(its - self.since.1)
        );
    }
}

async fn bare(vault: &Memory, accessors: Vec<String>) -> f64 {
    // With the authority that Curfew has: Vault works harder for a token with policies than for root.
    let token = vault.admin.curfew_token().await;
    let caller = &admin::Admin::at(&vault.admin.address, &token);
    let used = Used::start(vault, TOKENS);
    let started = Instant::now();
    futures::stream::iter(accessors)
        .for_each_concurrent(CONCURRENCY, |accessor| async move {
            let body = json!({"accessor": accessor});
            assert_eq!(caller.call("POST", "auth/token/lookup-accessor", body.clone()).await.0, 200);
            assert_eq!(caller.call("POST", "auth/token/revoke-accessor", body.clone()).await.0, 204);
            assert_ne!(caller.call("POST", "auth/token/lookup-accessor", body).await.0, 200);
        })
        .await;
    let rate = TOKENS as f64 / started.elapsed().as_secs_f64();
    used.print("bare", vault);
    rate
}

/// Waits until so many cases have closed, by one cheap look: `stats` counts rows, and what this asks for is not Curfew's
/// work.
pub async fn closed(store: &crate::store::Store, cases: usize) {
    let db = rusqlite::Connection::open(store.file()).unwrap();
    let mut closed = db.prepare("SELECT value FROM counters WHERE name = 'cases_closed'").unwrap();
    while closed.query_row([], |row| row.get::<_, i64>(0)).unwrap_or(0) < cases as i64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn ours(vault: &Memory, accessors: Vec<String>) -> f64 {
    let registry = admin::connectors(&vault.admin, "none", false).await;
    let mut stage = stage::Stage::new(crate::store::Store::sqlite(), registry);
    stage.settings.calls_per_system = CONCURRENCY;
    let journal = stage.open().await;
    let mut events = Vec::new();
    for accessor in &accessors {
        let id = CredentialId::new(Kind::VaultToken, "test", accessor).unwrap();
        events.extend(stage::whole_task(&stage::new_run(), &id, None));
    }
    stage::record(journal.as_ref(), events).await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let used = Used::start(vault, TOKENS);
    let started = Instant::now();
    let running = tokio::spawn(stage.executor(journal.clone()).run(cancel.clone()));
    closed(&stage.store, TOKENS).await;
    let rate = TOKENS as f64 / started.elapsed().as_secs_f64();
    used.print("curfew", vault);
    cancel.cancel();
    running.await.unwrap();
    rate
}

pub async fn measure(table: &mut Table) {
    eprintln!("revoke: {TOKENS} tokens, {CONCURRENCY} at once, {RUNS} runs");
    let vault = Memory::start().await;
    let mut pairs = Vec::new();
    for run in 0..RUNS {
        let (for_ours, for_bare) = (vault.tokens(TOKENS).await, vault.tokens(TOKENS).await);
        // In turn: whoever comes first also pays for what Vault still has to do for the new tokens.
        pairs.push(if run % 2 == 0 {
            let ours = ours(&vault, for_ours).await;
            (ours, bare(&vault, for_bare).await)
        } else {
            let bare = bare(&vault, for_bare).await;
            (ours(&vault, for_ours).await, bare)
        });
    }
    table.add("revocations with proof (tokens)", "1/s", &pairs, Goal::AtLeast(0.8));
}
