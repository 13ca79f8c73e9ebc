//! The group member: polls, records, moves on.
//!
//! It is a `BaseConsumer` on an own thread: rebalances are then answered where we poll, between two batches, so that
//! what is in hand is durable before its partition is given away. (`StreamConsumer` answers them on a thread of its
//! own, beside the batch under way.) A batch is recorded by one call; nothing else of it is in flight. Each partition has
//! a queue, and a batch takes its share of each.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Timestamp, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::lane::{self, Lanes, Standing, Take};
use super::place::Looker;
use super::queues::Queues;
use super::settings::Settings;
use super::turns::{Turn, Turns};
use super::watch::Watch;
use super::{Error, tend, watch};
use crate::event::Delivery;
use crate::intake::Intake;
use crate::journal;
use crate::relay::Backlog;

/// Records in a batch that holds fresh ones beside a backlog, and in the one after it, which their effects wait for.
const SMALL: usize = 100;
/// How long a broker may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Reads `settings.topics` into `intake` until `stop`. A fatal error of the client builds a new one.
///
/// # Errors
/// The configuration is refused, or the thread cannot be started.
pub async fn run(
    intake: Intake,
    settings: Settings,
    backlog: Arc<Backlog>,
    stop: CancellationToken,
) -> Result<(), Error> {
    settings.connection.member(&settings.group)?;
    let stop = stop.child_token();
    let _stops_with_us = stop.clone().drop_guard();
    let (done, ended) = oneshot::channel();
    let handle = Handle::current();
    std::thread::Builder::new()
        .name("kafka-intake".into())
        .spawn(move || {
            let result = members(&intake, &settings, &backlog, &stop, &handle);
            // When `run` returns, the journal is no longer held from here.
            drop(intake);
            // Nobody waits any more: the caller was dropped.
            done.send(result).ok();
        })
        .map_err(|error| Error::Thread(format!("could not be started: {error}")))?;
    ended.await.map_err(|_| Error::Thread("died".into()))?
}

fn members(
    intake: &Intake,
    settings: &Settings,
    backlog: &Arc<Backlog>,
    stop: &CancellationToken,
    handle: &Handle,
) -> Result<(), Error> {
    while !stop.is_cancelled() {
        let ended = Member::join(intake, settings, backlog, handle).and_then(|mut member| {
            let ended = member.serve(stop);
            member.leave();
            ended
        });
        match ended {
            Ok(()) => break,
            Err(error @ (Error::Ours(_) | Error::Client(KafkaError::ClientConfig(..)))) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the Kafka client is rebuilt");
                handle.block_on(async { tokio::time::timeout(Duration::from_secs(1), stop.cancelled()).await.ok() });
            }
        }
    }
    Ok(())
}

/// One client and what it was assigned.
pub(super) struct Member<'a> {
    pub(super) client: Arc<BaseConsumer<Turns>>,
    pub(super) intake: &'a Intake,
    pub(super) settings: &'a Settings,
    pub(super) handle: &'a Handle,
    pub(super) cluster: Arc<str>,
    pub(super) lanes: Lanes,
    pub(super) looker: Option<Looker>,
    pub(super) queues: Queues,
    /// The one that polls.
    pub(super) thread: Thread,
    pub(super) backlog: &'a Backlog,
    pub(super) batch: Vec<Delivery>,
    bytes: usize,
    began: Instant,
    /// Whether librdkafka was told to fetch nothing.
    pub(super) paused: bool,
    /// So many batches to come are small.
    small: u8,
    /// The journal did not take the batch: not again before then, and the wait after that.
    pub(super) stuck: Option<(Instant, Duration)>,
    pub(super) tended: Instant,
    pub(super) watch: Watch,
    /// Topics whose records have no time of the broker's: said once for each.
    untimed: HashSet<Arc<str>>,
    /// Partitions that the journal has a row of.
    pub(super) counted: HashSet<(Arc<str>, i32)>,
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.watch.stop();
        self.queues.clear();
        self.client.context().close();
    }
}

impl<'a> Member<'a> {
    fn join(
        intake: &'a Intake,
        settings: &'a Settings,
        backlog: &'a Backlog,
        handle: &'a Handle,
    ) -> Result<Self, Error> {
        let mut client: BaseConsumer<Turns> =
            settings.connection.member(&settings.group)?.create_with_context(Turns::default())?;
        let thread = std::thread::current();
        client.set_nonempty_callback({
            let thread = thread.clone();
            move || thread.unpark()
        });
        let client = Arc::new(client);
        let cluster = client.client().fetch_cluster_id(PATIENCE);
        let cluster = cluster.ok_or_else(|| Error::NoAnswer("no broker told the cluster's id".into()))?;
        let time = (intake.clock.clone(), intake.trust.clone());
        let names = settings.topics.iter().map(|topic| topic.name.clone()).collect();
        let watch = Watch::start(settings.connection.clone(), names, time)?;
        let topics: Vec<&str> = settings.topics.iter().map(|topic| &*topic.name).collect();
        let now = Instant::now();
        let mut member = Self {
            watch,
            client,
            intake,
            settings,
            handle,
            cluster: cluster.into(),
            lanes: Lanes::default(),
            looker: None,
            queues: Queues::default(),
            thread,
            backlog,
            batch: Vec::with_capacity(settings.batch),
            bytes: 0,
            began: now,
            paused: false,
            small: 0,
            stuck: None,
            tended: now,
            untimed: HashSet::new(),
            counted: HashSet::new(),
        };
        // Before the first record of any of them.
        for topic in &settings.topics {
            let all = watch::partitions(&member.client, &topic.name, PATIENCE)?;
            member.count(all)?;
        }
        member.client.subscribe(&topics)?;
        tracing::info!(cluster = %member.cluster, ?topics, group = %settings.group, "joining the consumer group");
        Ok(member)
    }

    fn serve(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let linger = Duration::from_millis(self.settings.linger_ms);
        while !stop.is_cancelled() {
            self.turn()?;
            if self.tended.elapsed() >= tend::EVERY {
                self.tend()?;
            }
            let any = self.round()?;
            let waits = self.stuck.is_some_and(|(until, _)| Instant::now() < until);
            if !waits && !self.batch.is_empty() && (self.is_full() || self.began.elapsed() >= linger) {
                self.flush();
            } else if !any {
                // Until a queue is filled: librdkafka wakes us.
                std::thread::park_timeout(match (self.batch.is_empty(), waits) {
                    (_, true) => Duration::from_millis(20),
                    (true, false) => Duration::from_millis(100),
                    (false, false) => linger.saturating_sub(self.began.elapsed()),
                });
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let most = if self.small > 0 { self.settings.batch.min(SMALL) } else { self.settings.batch };
        self.batch.len() >= most || self.bytes >= self.settings.batch_bytes
    }

    /// Takes what is there, from each partition its share of the batch. Returns whether there was anything.
    fn round(&mut self) -> Result<bool, Error> {
        let client = self.client.clone();
        // Errors, rebalances, and what was fetched before a partition had its own queue.
        let mut any = match client.poll(Duration::ZERO) {
            Some(Ok(message)) => {
                self.take(&message);
                true
            }
            Some(Err(error)) => {
                self.fault(error)?;
                true
            }
            None => false,
        };
        if self.is_full() {
            return Ok(any);
        }
        let filled = self.queues.filled();
        let share = (self.settings.batch / filled.len().max(1)).max(1);
        let beside_a_backlog = filled.last().is_some_and(|queue| !queue.is_fresh());
        for queue in filled {
            let (mut left, before, fresh) = (share, self.batch.len(), queue.is_fresh());
            let mut to_the_end = false;
            while left > 0 && !to_the_end && !self.is_full() {
                match queue.records.poll(Duration::ZERO) {
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(error)) => self.fault(error)?,
                    None => to_the_end = true,
                }
                left -= 1;
            }
            queue.was_read(to_the_end);
            // What was not taken was there as well: the next is not waited for.
            any |= left < share && !(to_the_end && left + 1 == share);
            if fresh && beside_a_backlog && self.batch.len() > before {
                self.small = 2;
            }
        }
        Ok(any)
    }

    /// Leaves the group as a good member: what is in hand becomes durable, partitions are given back.
    fn leave(&mut self) {
        self.flush();
        self.client.unsubscribe();
        let until = Instant::now() + PATIENCE;
        while !self.lanes.is_empty() && Instant::now() < until {
            if let Err(error) = self.turn() {
                tracing::warn!(%error, "leaving the consumer group");
                break;
            }
            // What still comes is not taken.
            drop(self.client.poll(Duration::from_millis(20)));
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let Some(lane) = self.lanes.get(message.topic(), message.partition()) else { return };
        match lane.judge(message.offset()) {
            Take::No => {}
            Take::Gap => {
                let (topic, partition, next) = (lane.topic.clone(), lane.partition, lane.next);
                if !self.seek(&topic, partition, next) {
                    self.lose(&topic, partition);
                }
            }
            Take::Yes => {
                let delivery = lane::delivery(&self.cluster, lane, message, self.intake.clock.wall_ms());
                match (message.timestamp(), &self.intake.trust) {
                    (Timestamp::LogAppendTime(ms), Some(trust)) => trust.agree(ms),
                    (Timestamp::LogAppendTime(_), None) => {}
                    _ if self.untimed.contains(&lane.topic) => {}
                    _ => {
                        tracing::warn!(topic = %lane.topic, "its records have no time of the broker's: \
                            set message.timestamp.type=LogAppendTime for this topic");
                        self.untimed.insert(lane.topic.clone());
                    }
                }
                lane.taken(self.batch.len(), message.timestamp());
                if self.batch.is_empty() {
                    self.began = Instant::now();
                }
                self.bytes += delivery.payload.as_ref().map_or(0, bytes::Bytes::len);
                self.batch.push(delivery);
            }
        }
    }

    /// Makes the batch durable with the offsets, or drops it, or keeps it and waits.
    pub(super) fn flush(&mut self) {
        let now = Instant::now();
        if self.batch.is_empty() || self.stuck.is_some_and(|(until, _)| now < until) {
            return;
        }
        let moves = self.lanes.moves(&self.cluster, &self.batch);
        match self.handle.block_on(self.intake.record(&self.batch, moves.clone())) {
            Ok(_) => {
                self.lanes.moved(&moves);
                self.small = self.small.saturating_sub(1);
                if self.stuck.take().is_some() {
                    tracing::info!("the journal takes records again");
                }
            }
            Err(journal::Error::PositionMoved { topic, partition }) => {
                tracing::warn!(topic, partition, dropped = self.batch.len(), "another member moved on: batch dropped");
                self.lanes.dropped(now);
                self.stuck = None;
            }
            Err(error) => {
                let wait =
                    self.stuck.map_or(Duration::from_millis(100), |(_, wait)| (wait * 2).min(Duration::from_secs(5)));
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, retry_ms = wait.as_millis(), "intake waits for the journal");
                self.stuck = Some((now + wait, wait));
                return;
            }
        }
        self.batch.clear();
        self.bytes = 0;
    }

    /// Answers rebalances.
    fn turn(&mut self) -> Result<(), Error> {
        while let Some(turn) = self.client.context().pop() {
            match turn {
                Turn::Assign(which) => self.assigned(&which)?,
                Turn::Revoke(which) => {
                    // In hand becomes durable first; what the journal does not take now, the next owner reads again.
                    self.stuck = self.stuck.map(|(_, wait)| (Instant::now(), wait));
                    self.flush();
                    for (topic, partition) in &which {
                        self.lose(topic, *partition);
                    }
                    if !self.client.assignment_lost() {
                        self.commit();
                    }
                    let mut list = TopicPartitionList::new();
                    for (topic, partition) in &which {
                        self.lanes.remove(topic, *partition);
                        self.queues.remove(topic, *partition);
                        self.intake.metrics.partition_left(topic, *partition);
                        list.add_partition(topic, *partition);
                    }
                    tracing::info!(?which, "partitions given away");
                    self.client.incremental_unassign(&list)?;
                    self.watch_assigned();
                    self.show_halted();
                }
            }
        }
        Ok(())
    }

    /// The lane must find its place again; what it has in the batch is dropped.
    pub(super) fn lose(&mut self, topic: &str, partition: i32) {
        let Some(lane) = self.lanes.get(topic, partition) else { return };
        lane.standing = Standing::Lost(Instant::now());
        if lane.is_idle() {
            return;
        }
        self.batch.retain(|delivery| delivery.at.partition != partition || *delivery.at.topic != *topic);
        self.bytes = self.batch.iter().filter_map(|delivery| delivery.payload.as_ref()).map(bytes::Bytes::len).sum();
        self.lanes.reindex(&self.batch);
    }
}
