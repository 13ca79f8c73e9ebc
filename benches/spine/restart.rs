//! A journal with many open cases is opened again: how long until the first case is claimed and its effect starts.

use std::time::Instant;

use curfew::credential::{CredentialId, Kind};
use curfew::event::GrantSpec;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::journal::{Arrival, Batch, Journal, Want};
use curfew::policy::Rules;
use curfew::task::{RunKey, Tenure};
use std::sync::Arc;

use crate::stage;
use crate::table::{Goal, Table};

const RUNS: usize = 5;

async fn filled(path: &std::path::Path, cases: usize) {
    let journal = Sqlite::open(path, Settings::default()).unwrap();
    for first in (0..cases).step_by(500) {
        let mut arrivals = Vec::new();
        for n in first..(first + 500).min(cases) {
            let run = RunKey::new("/bench", &format!("run-{n:08}"));
            let credential = CredentialId::new(Kind::VaultToken, "test", &format!("accessor-{n:08}")).unwrap();
            let grant = GrantSpec { credential, tenure: Tenure::Minted, principal: None, expires_ms: None };
            arrivals.push(Arrival::Event(Box::new(stage::started(&run, vec![grant]))));
            arrivals.push(Arrival::Event(Box::new(stage::ended(&run))));
        }
        let batch = Batch { arrivals, moves: Vec::new(), rules: Arc::new(Rules::default()), now_ms: stage::now_ms() };
        journal.record_batch(batch).await.unwrap();
    }
}

async fn to_first_claim_ms(path: &std::path::Path) -> f64 {
    let started = Instant::now();
    let journal = Sqlite::open(path, Settings::default()).unwrap();
    let want = Want { max: 16, max_per_system: 16, now_ms: stage::now_ms(), lease_ms: 60_000, only: None };
    assert_eq!(journal.claim(want).await.unwrap().len(), 16);
    started.elapsed().as_secs_f64() * 1_000.0
}

pub async fn measure(table: &mut Table) {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (dir.path().join("small.db"), dir.path().join("large.db"));
    eprintln!("restart: filling 1 k and 100 k open cases");
    filled(&small, 1_000).await;
    filled(&large, 100_000).await;
    let mut pairs = Vec::new();
    for _ in 0..RUNS {
        pairs.push((to_first_claim_ms(&large).await, to_first_claim_ms(&small).await));
    }
    table.add("restart to first claims, 100 k open cases against 1 k", "ms", &pairs, Goal::AtMost(3.0));
}
