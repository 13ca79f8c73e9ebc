//! Facts to a store, and back as a graph: built anew where something has changed since.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::ask::{self, Question, Told, Unknown};
use super::changes::{changes, otherwise};
use super::graph::Graph;
use super::lives::{Tally, Terms};
use super::long_lived;
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

/// How long tasks live, as the journal has it; read anew where what is known is too old.
#[derive(Debug, Default)]
pub struct TaskLives {
    /// When it was read.
    known: Mutex<Option<(i64, Arc<Tally>)>>,
}

impl TaskLives {
    /// What is known, where that is no older than `oldest_ms`; else one pass over the tasks that live, and those that ended within
    /// the time. Whoever asks meanwhile waits for the same one.
    ///
    /// # Errors
    /// The journal's.
    pub async fn read(
        &self,
        journal: &dyn Journal,
        terms: &Terms,
        now_ms: i64,
        oldest_ms: i64,
    ) -> Result<Arc<Tally>, Error> {
        let mut known = self.known.lock().await;
        if let Some((read_ms, tally)) = &*known
            && (*read_ms..read_ms.saturating_add(oldest_ms)).contains(&now_ms)
        {
            return Ok(tally.clone());
        }
        let (mut tally, max) = (Tally::default(), u32::try_from(CHUNK).unwrap_or(u32::MAX));
        // Those that live come first: one that ends in between is seen at least once.
        for since_ms in [None, Some(now_ms.saturating_sub(terms.over_ms))] {
            let mut after = None;
            loop {
                let page = journal.lived(since_ms, after.take(), max).await?;
                for line in &page.lines {
                    tally.add(line, terms, now_ms);
                }
                // Between two pages others have their turn.
                tokio::task::yield_now().await;
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        let tally = Arc::new(tally);
        *known = Some((now_ms, tally.clone()));
        Ok(tally)
    }
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
    /// Who is known for less is not called unused, or long-lived.
    youngest_ms: i64,
    /// Of which generation.
    graph: Mutex<Option<(i64, Arc<Graph>)>>,
    /// How lives are measured.
    terms: Terms,
    lives: TaskLives,
}

impl Kept {
    /// Nothing is read yet.
    pub fn new(journal: Arc<dyn Journal>, named: Vec<Source>) -> Arc<Self> {
        Self::with(journal, named, 0, Terms::default())
    }

    /// The same; who is known for less than `youngest_ms` is not called unused, or long-lived.
    pub fn with(journal: Arc<dyn Journal>, named: Vec<Source>, youngest_ms: i64, terms: Terms) -> Arc<Self> {
        let (graph, lives) = (Mutex::default(), TaskLives::default());
        Arc::new(Self { journal, named, youngest_ms, graph, terms, lives })
    }

    /// By what it is judged what lives too long. All tasks of the time are read for it: once in the interval in which sources are.
    ///
    /// # Errors
    /// The journal's.
    pub async fn lives(&self, now_ms: i64) -> Result<long_lived::Asked, Error> {
        let every_ms = self.named.iter().map(|source| source.every_ms).max().unwrap_or(0);
        let tally = self.lives.read(self.journal.as_ref(), &self.terms, now_ms, every_ms).await?;
        Ok(long_lived::Asked { tally, terms: self.terms.clone(), youngest_ms: self.youngest_ms, now_ms })
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
            Question::Dormant { .. } | Question::Unused { .. } | Question::LongLived { .. } => self.uses().await?,
            _ => Uses::default(),
        };
        let lives = match question {
            Question::LongLived { .. } => self.lives(now_ms).await?,
            _ => long_lived::Asked { youngest_ms: self.youngest_ms, now_ms, ..Default::default() },
        };
        // Some questions walk all of it.
        let told = tokio::task::spawn_blocking(move || ask::answer_by(&graph, &uses, &lives, &question));
        let told = told.await.map_err(|error| {
            tracing::error!(why = crate::telemetry::died(&error), "a question about reach died");
            NoAnswer::Died
        })??;
        Ok(Answer { told, sources, whole, nodes, edges })
    }
}
