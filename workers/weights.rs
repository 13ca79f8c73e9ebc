//! Tells the journal how much each credential opens, where the graph of reach is another one.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use curfew::config::Config;
use curfew::credential::CredentialId;
use curfew::journal;
use curfew::reach::graph::Graph;
use curfew::reach::{CHUNK, Node, NodeKind, ask, blast};
use curfew::task::Tenant;
use tokio::sync::Mutex;

use crate::process::Process;

/// Whose a credential is, by where it lives.
pub fn tenant(config: &Config, id: &CredentialId) -> Tenant {
    config.tenant_of(id.instance()).cloned().unwrap_or_else(|| "default".into())
}

/// What was told last.
pub struct Weights {
    /// So often it is told again: a credential may have become known since, of which the graph knew before.
    every: Duration,
    last: Mutex<Option<Last>>,
}

/// Of which graph, whether that was whole, and when.
struct Last {
    graph: Weak<Graph>,
    whole: bool,
    at: Instant,
}

impl Weights {
    /// Nothing is told yet.
    pub fn new(every: Duration) -> Self {
        Self { every, last: Mutex::default() }
    }

    /// Of a graph that is not whole no figure becomes smaller.
    pub async fn tell(&self, process: &Process, graph: &Arc<Graph>, whole: bool) -> Result<(), journal::Error> {
        let mut last = self.last.lock().await;
        let now = Last { graph: Arc::downgrade(graph), whole, at: Instant::now() };
        let is_same = |last: &Last| Weak::ptr_eq(&last.graph, &now.graph) && last.whole == whole;
        if last.as_ref().is_some_and(|last| is_same(last) && last.at.elapsed() < self.every) {
            return Ok(());
        }
        let of = graph.clone();
        let Ok(weights) = tokio::task::spawn_blocking(move || blast::blasts(&of)).await else { return Ok(()) };
        let mut told = 0;
        for some in weights.chunks(CHUNK) {
            let named = |(at, weight): &(_, u64)| Some((CredentialId::parse(&graph.node(*at).name).ok()?, *weight));
            told += note(process, some.iter().filter_map(named).collect(), whole).await?;
        }
        tracing::debug!(told, whole, "what credentials open was measured");
        *last = Some(now);
        Ok(())
    }
}

/// Tells it of these, by a graph that is whole: they may have become known since all were told.
pub async fn tell_of(
    process: &Process,
    graph: &Arc<Graph>,
    credentials: Vec<CredentialId>,
) -> Result<(), journal::Error> {
    let of = graph.clone();
    let measured = tokio::task::spawn_blocking(move || {
        let at = |id: &CredentialId| of.find(&Node::new(NodeKind::Credential, id.as_str()).ok()?);
        let weigh = |id: CredentialId| at(&id).map(|at| (id, ask::reach(&of, at).blast));
        credentials.into_iter().filter_map(weigh).collect::<Vec<_>>()
    });
    let Ok(measured) = measured.await else { return Ok(()) };
    note(process, measured, true).await.map(drop)
}

async fn note(process: &Process, weights: Vec<(CredentialId, u64)>, whole: bool) -> Result<u64, journal::Error> {
    let mut all: BTreeMap<Tenant, Vec<(CredentialId, u64)>> = BTreeMap::new();
    for (id, weight) in weights {
        all.entry(tenant(&process.config, &id)).or_default().push((id, weight));
    }
    let mut told = 0;
    for (tenant, weights) in all {
        told += process.intake.journal.reach().weigh(&tenant, weights, !whole).await?;
    }
    Ok(told)
}
