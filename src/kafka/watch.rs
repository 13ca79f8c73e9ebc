//! Asks the broker beside the polling, once per second: where each partition ends, for lag and to prove that it is read
//! up; and whether its log is still the one that was read.
//!
//! librdkafka does not tell that a topic was deleted and made again under a member: it reads on at the old offset, in
//! silence, and what the new log holds before it would never be read. So each lane has an anchor, a record that is
//! known to be of its log, and where another one is found in its place the lane must find its own place again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::lane::Lanes;
use super::place::{Looker, Seen};
use super::settings::Connection;
use super::{Error, consumer};
use crate::clock;
use crate::deadlines::ClockTrust;

/// Whose log was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// The one that was read, as far as can be told.
    Same,
    /// Another one, a shorter one, or none.
    Other,
    /// No answer.
    Unknown,
}

/// What the broker answered about a partition.
pub(super) struct Look {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// The offset after its last record, committed or not.
    pub(super) high: i64,
    /// Our clock before the question: what was appended by then lies before `high`.
    pub(super) asked_ms: i64,
    /// The same by a clock that never steps.
    pub(super) steady_ms: i64,
    /// Whether that clock was believed then.
    pub(super) believed: bool,
    /// Where the lane stood before the question: the log reaches at least that far. (Where it stands when the answer is
    /// read may lie beyond `high`: it read on meanwhile.)
    pub(super) durable: Option<i64>,
    /// Asked after `high`.
    pub(super) log: Log,
    /// The lane's latest record before the question: of this log, if it is the same.
    pub(super) latest: Option<Seen>,
}

#[derive(Clone)]
struct Followed {
    topic: Arc<str>,
    partition: i32,
    durable: Option<i64>,
    anchor: Option<Seen>,
    latest: Option<Seen>,
}

/// What was found in a round.
#[derive(Default)]
pub(super) struct Found {
    /// Of the partitions that are followed.
    pub(super) looks: Vec<Look>,
    /// All that the topics have, whoever reads them. Asked before the looks.
    pub(super) partitions: Vec<(Arc<str>, i32)>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    follow: Mutex<Vec<Followed>>,
    found: Mutex<Found>,
}

/// A thread that asks once per second.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(
        connection: Connection,
        topics: Vec<Arc<str>>,
        (clock, trust): (clock::Shared, Option<Arc<ClockTrust>>),
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let client = connection.end_reader()?.create()?;
        let mut asker = Asker { shared: shared.clone(), client, connection, topics, clock, trust, looker: None };
        let thread = std::thread::Builder::new()
            .name("kafka-watch".into())
            .spawn(move || {
                while !asker.stopped() {
                    std::thread::park_timeout(Duration::from_secs(1));
                    asker.ask();
                }
            })
            .map_err(|error| Error::Thread(format!("could not be started: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks about these from now on.
    pub(super) fn follow(&self, lanes: &mut Lanes) {
        let which = lanes
            .iter()
            .map(|lane| Followed {
                topic: lane.topic.clone(),
                partition: lane.partition,
                durable: lane.durable,
                anchor: lane.anchor,
                latest: lane.latest,
            })
            .collect();
        *self.shared.follow.lock().unwrap_or_else(PoisonError::into_inner) = which;
    }

    /// The answers since the last call.
    pub(super) fn take(&self) -> Found {
        std::mem::take(&mut *self.shared.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that watches Kafka's watermarks died");
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Asker {
    shared: Arc<Shared>,
    /// Not the member's: see [`Connection::end_reader`].
    client: BaseConsumer,
    connection: Connection,
    topics: Vec<Arc<str>>,
    clock: clock::Shared,
    trust: Option<Arc<ClockTrust>>,
    looker: Option<Looker>,
}

impl Asker {
    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn ask(&mut self) {
        let follow = self.shared.follow.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let partitions = self.topics.iter().flat_map(|topic| {
            // What a topic has is not known now: then nothing of it is added, and its partitions stay as they are known.
            partitions(&self.client, topic, consumer::PATIENCE / 5).unwrap_or_default()
        });
        let partitions: Vec<_> = partitions.collect();
        let mut looks = Vec::with_capacity(follow.len());
        // Which look waits for which record.
        let mut sought: Vec<(usize, Seen)> = Vec::new();
        for Followed { topic, partition, durable, anchor, latest } in follow {
            if self.stopped() {
                return;
            }
            let (asked_ms, steady_ms) = (self.clock.wall_ms(), self.clock.monotonic_ms());
            let believed = self.trust.as_ref().is_none_or(|trust| trust.check());
            let (high, log) = match self.client.fetch_watermarks(&topic, partition, consumer::PATIENCE / 5) {
                Ok((low, high)) => match anchor {
                    Some(anchor) if anchor.offset >= high => (high, Log::Other),
                    Some(anchor) if anchor.offset >= low => {
                        sought.push((looks.len(), anchor));
                        (high, Log::Unknown)
                    }
                    // Nothing was read yet, or it is gone by retention: a log made anew would begin before it.
                    _ => (high, Log::Same),
                },
                Err(KafkaError::MetadataFetch(
                    Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition,
                )) => (0, Log::Other),
                // A broker that does not answer proves nothing.
                Err(_) => continue,
            };
            looks.push(Look { topic, partition, high, asked_ms, steady_ms, believed, durable, log, latest });
        }
        self.compare(&mut looks, &sought);
        let mut found = self.shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.partitions = partitions;
        found.looks.append(&mut looks);
    }

    /// Fills in whose logs they are.
    fn compare(&mut self, looks: &mut [Look], sought: &[(usize, Seen)]) {
        if sought.is_empty() {
            return;
        }
        let places: Vec<_> = sought
            .iter()
            .filter_map(|(index, anchor)| looks.get(*index).map(|look| (look, anchor)))
            .map(|(look, anchor)| (look.topic.clone(), look.partition, anchor.offset))
            .collect();
        let looker = match self.looker.take() {
            Some(looker) => Ok(looker),
            None => Looker::small(&self.connection),
        };
        let found = looker.and_then(|looker| Ok((looker.firsts(&places, || !self.stopped())?, looker)));
        let (found, looker) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the log cannot be compared with what was read");
                return;
            }
        };
        // One that got no answer is not used again: what it knows of the topic may be old.
        self.looker = (found.len() == places.len()).then_some(looker);
        for (index, anchor) in sought {
            let Some(look) = looks.get_mut(*index) else { continue };
            if let Some(seen) = found.get(&(look.topic.to_string(), look.partition)) {
                look.log = if anchor.is_other(seen) { Log::Other } else { Log::Same };
            }
        }
    }
}

/// The partitions that `topic` has; none where it does not exist. Blocks.
pub(super) fn partitions<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &Arc<str>,
    patience: Duration,
) -> Result<Vec<(Arc<str>, i32)>, Error> {
    let metadata = client.fetch_metadata(Some(topic), patience)?;
    let found = metadata.topics().iter().filter(|found| found.name() == &**topic);
    Ok(found.flat_map(|found| found.partitions()).map(|partition| (topic.clone(), partition.id())).collect())
}
