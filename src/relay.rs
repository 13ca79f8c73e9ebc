//! Publishes the journal's outbox in order, at least once: rows are marked sent after the broker has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::journal::{self, Journal, Outgoing};
use crate::kafka::place::Looker;
use crate::kafka::producer::{Out, Producer, acked};
use crate::kafka::settings::Connection;
use crate::kafka::{Error, lane};
use crate::outcome::Kind;
use crate::telemetry::died;

/// Record header: the id of the journal whose outbox it is from.
pub const JOURNAL_HEADER: &str = "curfew-journal";
/// Record header: its number in that outbox.
pub const SEQ_HEADER: &str = "curfew-seq";

/// Rows that are under way at most.
const ROUND: usize = 500;
/// How long a record may be under way. A producer can stop for good while the broker is there again (seen by the chaos run,
/// after a restart of the broker): then a new one takes its place, and at worst repeats.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How often the outbox is looked at unasked.
const POLL: Duration = Duration::from_millis(200);
/// Records that are looked at, at the end of each partition, to find our newest one among other journals'.
const TAIL: i64 = 64;

/// How many outbox rows wait to be published: above a bound, intake pauses.
#[derive(Debug, Default)]
pub struct Backlog(AtomicI64);

impl Backlog {
    /// The figure, as of the relay's last look.
    pub fn unsent(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A new figure.
    pub fn set(&self, unsent: i64) {
        self.0.store(unsent, Ordering::Relaxed);
    }
}

/// Where each kind goes.
#[derive(Debug, Clone)]
pub struct Topics {
    /// `dev.curfew.outcome.v1`
    pub outcomes: String,
    /// `dev.curfew.credential.state.v1`
    pub states: String,
    /// `dev.curfew.credential.rotated.v1`
    pub rotated: String,
    /// `dev.curfew.rejected.v1`
    pub rejected: String,
}

impl Default for Topics {
    fn default() -> Self {
        let name = |what: &str| format!("curfew.{what}");
        Self {
            outcomes: name("outcomes"),
            states: name("states"),
            rotated: name("rotated"),
            rejected: name("rejected"),
        }
    }
}

impl Topics {
    /// The topic of a kind.
    pub fn of(&self, kind: Kind) -> &str {
        match kind {
            Kind::Outcome => &self.outcomes,
            Kind::CredentialState => &self.states,
            Kind::Rotated => &self.rotated,
            Kind::Rejected => &self.rejected,
        }
    }
}

/// The way out to Kafka.
pub struct Relay {
    journal: Arc<dyn Journal>,
    connection: Connection,
    topics: Topics,
    wake: Arc<Notify>,
    backlog: Arc<Backlog>,
}

impl Relay {
    /// `wake` is rung when the outbox may have grown.
    pub fn new(
        journal: Arc<dyn Journal>,
        connection: Connection,
        topics: Topics,
        wake: Arc<Notify>,
        backlog: Arc<Backlog>,
    ) -> Self {
        Self { journal, connection, topics, wake, backlog }
    }

    /// Compares the journal with what was published from it, and holds the start where it is older. To be awaited
    /// before anything writes to the journal: later its own new rows would hide the gap.
    ///
    /// # Errors
    /// Kafka or the journal does not answer: it is not known.
    pub async fn hold_if_older(&self) -> Result<Option<String>, Error> {
        let ours = self.journal.tail().await?.journal.to_string();
        let (connection, topics) = (self.connection.clone(), self.topics.clone());
        let looked = tokio::task::spawn_blocking(move || newest(&connection, &topics, &ours));
        let newest = looked.await.map_err(|error| Error::Thread(died(&error).to_owned()))??;
        let Some((seq, body)) = newest else { return Ok(None) };
        // Kafka's end first, the journal's second: other processes write and publish meanwhile, and what is published was
        // written before.
        let tail = self.journal.tail().await?;
        let why = if seq > tail.seq {
            format!("row {seq} of this journal's outbox was published, and it holds only {}", tail.seq)
        } else {
            // A row that waits, but was published with other content: it was written after an older copy came back.
            let waiting = self.journal.outbox(seq - 1, 1).await?;
            match waiting.first() {
                Some(row) if row.seq == seq && row.body != body => {
                    format!("row {seq} of this journal's outbox was published with other content")
                }
                _ => return Ok(None),
            }
        };
        let why = format!("{why}: the journal is older than what was published");
        tracing::error!(why, "start held until `curfew release`");
        self.journal.hold_start(&why).await?;
        Ok(Some(why))
    }

    /// Publishes until `stop`.
    ///
    /// # Errors
    /// The configuration is refused. All else is tried again.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let id = loop {
            match self.journal.tail().await {
                Ok(tail) => break tail.journal.to_string(),
                Err(error) if stop.is_cancelled() => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "the relay waits for the journal"),
            }
            tokio::time::sleep(POLL).await;
        };
        let mut wait = POLL;
        let mut producer = Producer::new(&self.connection, Some(GIVE_UP))?;
        while !stop.is_cancelled() {
            let published = tokio::select! {
                () = stop.cancelled() => break,
                published = self.round(&producer, &id) => published,
            };
            match published {
                Ok(0) => {
                    wait = POLL;
                    idle(&self.wake, &stop, wait).await;
                }
                Ok(_) => wait = POLL,
                Err(error) => {
                    // An idempotent producer that failed once may have lost its sequence: a new one begins a new one.
                    tracing::error!(%error, "outcomes are not published; trying again");
                    std::mem::replace(&mut producer, Producer::new(&self.connection, Some(GIVE_UP))?).close().await;
                    wait = (wait * 2).min(Duration::from_secs(10));
                    tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(wait) => {} }
                }
            }
        }
        producer.close().await;
        Ok(())
    }

    async fn round(&self, producer: &Producer, id: &str) -> Result<usize, Error> {
        let rows = next_rows(&*self.journal, &self.backlog).await?;
        let mut deliveries = Vec::with_capacity(rows.len());
        let mut result = Ok(());
        for row in &rows {
            let seq = row.seq.to_string();
            let out = Out {
                topic: self.topics.of(row.kind),
                key: &row.key,
                body: &row.body,
                traceparent: row.traceparent.as_deref(),
                headers: &[(JOURNAL_HEADER, id), (SEQ_HEADER, &seq)],
            };
            match producer.send(out).await {
                Ok(delivery) => deliveries.push((row.seq, self.topics.of(row.kind), delivery)),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        // Sent is what the broker has without a gap.
        let mut sent = None;
        for (seq, topic, delivery) in deliveries {
            if let Err(error) = acked(delivery).await {
                result = Err(Error::Topic { topic: topic.to_owned(), error: Box::new(error) });
                break;
            }
            sent = Some(seq);
        }
        if let Some(seq) = sent {
            self.journal.sent(seq).await?;
        }
        result.map(|()| rows.len())
    }
}

/// Without Kafka: outcomes stay in the journal, where the commands read them; each is logged and marked sent.
pub struct NullRelay {
    journal: Arc<dyn Journal>,
    wake: Arc<Notify>,
    backlog: Arc<Backlog>,
}

impl NullRelay {
    /// `wake` is rung when the outbox may have grown.
    pub fn new(journal: Arc<dyn Journal>, wake: Arc<Notify>, backlog: Arc<Backlog>) -> Self {
        Self { journal, wake, backlog }
    }

    /// Marks rows sent until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.round().await {
                Ok(0) => idle(&self.wake, &stop, POLL).await,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be read");
                    idle(&Notify::new(), &stop, Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn round(&self) -> Result<usize, journal::Error> {
        let rows = next_rows(&*self.journal, &self.backlog).await?;
        for row in &rows {
            tracing::debug!(seq = row.seq, kind = ?row.kind, key = row.key, "outcome, kept in the journal");
        }
        if let Some(last) = rows.last() {
            self.journal.sent(last.seq).await?;
        }
        Ok(rows.len())
    }
}

/// Looks how much waits to be published: for a process that does not publish.
///
/// # Errors
/// The journal's.
pub async fn look(journal: &dyn Journal, backlog: &Backlog) -> Result<(), journal::Error> {
    rows(journal, backlog, 1).await.map(drop)
}

async fn next_rows(journal: &dyn Journal, backlog: &Backlog) -> Result<Vec<Outgoing>, journal::Error> {
    rows(journal, backlog, ROUND).await
}

/// The rows that wait; the backlog's figure follows.
async fn rows(journal: &dyn Journal, backlog: &Backlog, most: usize) -> Result<Vec<Outgoing>, journal::Error> {
    let rows = journal.outbox(0, most).await?;
    let unsent = match rows.first() {
        // Numbers have no gaps.
        Some(first) => journal.tail().await?.seq - first.seq + 1,
        None => 0,
    };
    backlog.set(unsent);
    Ok(rows)
}

async fn idle(wake: &Notify, stop: &CancellationToken, wait: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = wake.notified() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

/// The newest record of our journal in its topics. Blocks.
fn newest(connection: &Connection, topics: &Topics, ours: &str) -> Result<Option<(i64, Vec<u8>)>, Error> {
    let looker = Looker::new(connection)?;
    let mut newest: Option<(i64, Vec<u8>)> = None;
    let mut names = vec![&topics.outcomes, &topics.states, &topics.rotated, &topics.rejected];
    names.sort();
    names.dedup();
    for topic in names {
        for partition in looker.partitions(topic)? {
            let (low, high) = looker.bounds(topic, partition)?;
            if low == high {
                continue;
            }
            looker.read(topic, partition, low.max(high - TAIL), Some(high), |message| {
                if let Some(seq) = seq_of(message, ours)
                    && newest.as_ref().is_none_or(|(newest, _)| *newest < seq)
                {
                    newest = Some((seq, message.payload().unwrap_or_default().to_vec()));
                }
                message.offset() >= high - 1
            })?;
        }
    }
    Ok(newest)
}

fn seq_of(message: &BorrowedMessage<'_>, ours: &str) -> Option<i64> {
    let (mut journal, mut seq) = (None, None);
    for (name, value) in lane::headers(message).flatten() {
        match name.as_str() {
            JOURNAL_HEADER => journal = value,
            SEQ_HEADER => seq = value,
            _ => {}
        }
    }
    if journal?.as_ref() != ours.as_bytes() {
        return None;
    }
    std::str::from_utf8(&seq?).ok()?.parse().ok()
}
