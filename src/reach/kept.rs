//! Facts to a store, and back as a graph: built anew where something has changed since.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::ask::{self, Question, Told, Unknown};
use super::changes::{changes, otherwise};
use super::graph::Graph;
use super::uses::Uses;
use super::{CHUNK, Facts, Reading, Source, Standing};
use crate::journal::{Error, Journal};

/// Makes durable what a source stated. Returns how many facts are new, other or gone.
///
/// # Errors
/// The journal's: what was written stays, and the source stands as it did until all is.
pub async fn record(facts: &dyn Facts, source: Source, mut reading: Reading, now_ms: i64) -> Result<usize, Error> {
    let before = facts.digests(&source.tenant, &source.name).await?;
    // What a part does not show of a node may be there: it is joined with what was known.
    if !reading.faults.is_empty() {
        let nodes = otherwise(&before, &reading);
        reading.facts.extend(facts.stated(&source.tenant, &source.name, nodes).await?);
    }
    let (sources, _) = facts.sources().await?;
    let last = sources.iter().find(|known| known.tenant == source.tenant && known.name == source.name);
    let steps = changes(&before, reading, last, source, now_ms);
    let count = steps.iter().map(|step| step.put.len() + step.gone.len()).sum();
    for step in steps {
        facts.change(step).await?;
    }
    Ok(count)
}

/// What all logs say of use, as it is durable.
///
/// # Errors
/// The journal's.
pub async fn uses(facts: &dyn Facts) -> Result<Uses, Error> {
    let mut all = Vec::new();
    for watched in facts.watched().await? {
        let said = facts.uses(&watched.tenant, &watched.source).await?;
        all.push((watched, said));
    }
    Ok(Uses::of(all))
}

/// A source, as people are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLine {
    /// The source.
    #[serde(flatten)]
    pub source: Source,
    /// How far it can be relied on.
    pub standing: Standing,
}

/// An answer, and on what it rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked for.
    pub told: Told,
    /// The sources.
    pub sources: Vec<SourceLine>,
    /// Whether there is a source, and each is whole: else what is not shown may be there.
    pub whole: bool,
    /// Nodes that are known.
    pub nodes: usize,
    /// Edges that are known.
    pub edges: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Whom it asks about.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The journal's.
    #[error(transparent)]
    Journal(#[from] Error),
    /// A bug.
    #[error("the answer could not be made")]
    Died,
}

/// The graph of what a journal holds.
pub struct Kept {
    journal: Arc<dyn Journal>,
    /// Sources that the configuration names: one that was never read is missing.
    named: Vec<Source>,
    /// Who is known for less is not called unused.
    youngest_ms: i64,
    /// Of which generation.
    graph: Mutex<Option<(i64, Arc<Graph>)>>,
}

impl Kept {
    /// Nothing is read yet.
    pub fn new(journal: Arc<dyn Journal>, named: Vec<Source>) -> Arc<Self> {
        Self::with(journal, named, 0)
    }

    /// The same; who is known for less than `youngest_ms` is not called unused.
    pub fn with(journal: Arc<dyn Journal>, named: Vec<Source>, youngest_ms: i64) -> Arc<Self> {
        Arc::new(Self { journal, named, youngest_ms, graph: Mutex::default() })
    }

    /// What logs say of use.
    ///
    /// # Errors
    /// The journal's.
    pub async fn uses(&self) -> Result<Uses, Error> {
        uses(self.journal.reach()).await
    }

    /// The graph as it stands, and whether it is of one moment: nothing was written while it was read.
    ///
    /// # Errors
    /// The journal's.
    pub async fn graph(&self) -> Result<(Arc<Graph>, bool), Error> {
        let mut kept = self.graph.lock().await;
        let (_, generation) = self.journal.reach().sources().await?;
        if let Some((known, graph)) = &*kept
            && *known == generation
        {
            return Ok((graph.clone(), true));
        }
        let (mut graph, mut after) = (Graph::default(), None);
        loop {
            let page = self.journal.reach().page(after.take(), CHUNK).await?;
            for (source, fact, since_ms) in page.facts {
                graph.add(&source, fact, since_ms);
            }
            // Between two pages others have their turn.
            tokio::task::yield_now().await;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        graph.settle();
        let graph = Arc::new(graph);
        let (_, after) = self.journal.reach().sources().await?;
        *kept = Some((generation, graph.clone()));
        Ok((graph, after == generation))
    }

    /// All sources, those that were never read among them.
    ///
    /// # Errors
    /// The journal's.
    pub async fn sources(&self, now_ms: i64) -> Result<Vec<SourceLine>, Error> {
        let (mut sources, _) = self.journal.reach().sources().await?;
        for named in &self.named {
            if !sources.iter().any(|known| known.name == named.name) {
                sources.push(named.clone());
            }
        }
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        let line = |source: Source| SourceLine { standing: source.standing(now_ms), source };
        Ok(sources.into_iter().map(line).collect())
    }

    /// Answers.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn answer(&self, question: Question, now_ms: i64) -> Result<Answer, NoAnswer> {
        let (graph, is_one) = self.graph().await?;
        let sources = self.sources(now_ms).await?;
        let whole = is_one && !sources.is_empty() && sources.iter().all(|one| one.standing == Standing::Whole);
        let (nodes, edges) = graph.size();
        let uses = match question {
            Question::Dormant { .. } | Question::Unused { .. } => self.uses().await?,
            _ => Uses::default(),
        };
        let youngest_ms = self.youngest_ms;
        // Some questions walk all of it.
        let told = tokio::task::spawn_blocking(move || ask::answer_by(&graph, &uses, youngest_ms, &question, now_ms));
        let told = told.await.map_err(|error| {
            tracing::error!(why = crate::telemetry::died(&error), "a question about reach died");
            NoAnswer::Died
        })??;
        Ok(Answer { told, sources, whole, nodes, edges })
    }
}
