//! What a member does with partitions that it is given: finds each one's place, and finds it again when it was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::Error;
use super::consumer::{Member, PATIENCE};
use super::lane::{Lane, Standing};
use super::place::{Facts, Looker, Place, Seen};
use crate::metrics::Alarm;

/// How long a lost lane waits until its place is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

impl Member<'_> {
    /// Takes partitions over, each at the journal's offset.
    pub(super) fn assigned(&mut self, which: &[(String, i32)]) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in which {
            let Some(known) = self.settings.topics.iter().find(|known| *known.name == **topic) else { continue };
            let mut lane =
                Lane::new(known.tenant.clone(), known.format, known.name.clone(), *partition, Instant::now());
            // A lane without a place ignores what comes until it is sought.
            let offset = self.find(&mut lane).map_or(Offset::End, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset)?;
            self.queues.split(&self.client, topic, *partition, &self.thread);
            self.lanes.put(lane);
        }
        self.client.incremental_assign(&list)?;
        self.pause_if_paused(&list)?;
        let idle = self.lanes.list(|lane| matches!(lane.standing, Standing::Halted(_)));
        self.client.pause(&idle)?;
        self.watch_assigned();
        self.commit();
        self.show_halted();
        tracing::info!(?which, "partitions assigned");
        Ok(())
    }

    /// Looks again for the place of lanes that lost it, or that wait for an operator.
    pub(super) fn find_lost(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let due: Vec<(Arc<str>, i32)> = self
            .lanes
            .iter()
            .filter(|lane| matches!(lane.standing, Standing::Lost(at) | Standing::Halted(at) if at <= now))
            .map(|lane| (lane.topic.clone(), lane.partition))
            .collect();
        let looked = !due.is_empty();
        for (topic, partition) in due {
            let Some(lane) = self.lanes.get(&topic, partition) else { continue };
            let was_halted = matches!(lane.standing, Standing::Halted(_));
            let blank = Lane::new(lane.tenant.clone(), lane.format, topic.clone(), partition, now);
            let mut lane = std::mem::replace(lane, blank);
            let offset = self.find(&mut lane);
            let halted = matches!(lane.standing, Standing::Halted(_));
            self.lanes.put(lane);
            let mut list = TopicPartitionList::new();
            list.add_partition(&topic, partition);
            if halted && !was_halted {
                self.client.pause(&list)?;
            }
            let Some(offset) = offset else { continue };
            if was_halted {
                self.client.resume(&list)?;
                self.pause_if_paused(&list)?;
            }
            if !self.seek(&topic, partition, offset)
                && !self.assign_again(&topic, partition, offset)
                && let Some(lane) = self.lanes.get(&topic, partition)
            {
                lane.standing = Standing::Lost(now + AGAIN / 5);
            }
        }
        if looked {
            self.show_halted();
        }
        Ok(())
    }

    /// How many partitions of each topic wait for an operator.
    pub(super) fn show_halted(&mut self) {
        let halted: Vec<Arc<str>> = self
            .lanes
            .iter()
            .filter(|lane| matches!(lane.standing, Standing::Halted(_)))
            .map(|lane| lane.topic.clone())
            .collect();
        for topic in &self.settings.topics {
            let count = halted.iter().filter(|one| **one == topic.name).count();
            self.intake.metrics.halted(&topic.name, count);
        }
    }

    /// Tells the client to go on at `offset`; not possible while the assignment is still under way.
    pub(super) fn seek(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let mut list = TopicPartitionList::new();
        if list.add_partition_offset(topic, partition, Offset::Offset(offset)).is_err() {
            return false;
        }
        if let Some(lane) = self.lanes.get(topic, partition) {
            lane.distrust();
        }
        match self.client.seek_partitions(list, PATIENCE) {
            Ok(answer) => answer.elements().iter().all(|element| element.error().is_ok()),
            Err(error) => {
                tracing::debug!(topic, partition, offset, %error, "seek");
                false
            }
        }
    }

    /// A partition whose offset was out of range is stopped in librdkafka, and cannot be sought: it is taken out of the
    /// client's assignment and put back. The group hears nothing of it.
    fn assign_again(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let mut list = TopicPartitionList::new();
        if list.add_partition_offset(topic, partition, Offset::Offset(offset)).is_err() {
            return false;
        }
        let assigned = self.client.incremental_unassign(&list).and_then(|()| {
            // The client may have forgotten all of it, and the queue with it.
            self.queues.split(&self.client, topic, partition, &self.thread);
            self.client.incremental_assign(&list)
        });
        match assigned.map_err(Error::from).and_then(|()| self.pause_if_paused(&list)) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(topic, partition, offset, %error, "assigning again");
                false
            }
        }
    }

    /// Finds the lane's place; `None`: not now, or not without an operator.
    fn find(&mut self, lane: &mut Lane) -> Option<i64> {
        let since_ms = self.intake.clock.monotonic_ms();
        let was_halted = matches!(lane.standing, Standing::Halted(_));
        match self.place(lane) {
            Ok(Found { durable, anchor, place: Place::At { offset, older, recreated } }) => {
                if recreated {
                    tracing::warn!(topic = %lane.topic, partition = lane.partition, ?durable, offset,
                        "the topic was recreated: reading it from its start");
                }
                let held = older.is_some();
                if let Some(why) = older {
                    let why =
                        format!("{}[{}]: {why}: the journal is older than what was done", lane.topic, lane.partition);
                    tracing::error!(why, "start held until `curfew release`");
                    if let Err(error) = self.handle.block_on(self.intake.journal.hold_start(&why)) {
                        tracing::error!(%error, "the start cannot be held: this partition waits");
                        lane.standing = Standing::Lost(Instant::now() + AGAIN);
                        return None;
                    }
                }
                lane.set(durable, offset, since_ms, if recreated { None } else { anchor });
                lane.anew = recreated;
                // It is held durably now: Kafka's commit may follow, or each restart would hold again.
                lane.uncommitted |= held;
                Some(offset)
            }
            Ok(Found { place: Place::Halt { why, suggest }, .. }) => {
                if !was_halted {
                    self.intake.metrics.alarm(Alarm::HaltedPartition);
                    tracing::error!(topic = %lane.topic, partition = lane.partition, why,
                        resolve = format!("curfew position set --cluster {} --topic {} --partition {} --offset {suggest}",
                            self.cluster, lane.topic, lane.partition),
                        "partition halted: others go on");
                }
                lane.standing = Standing::Halted(Instant::now() + AGAIN);
                None
            }
            Err(error) => {
                tracing::warn!(topic = %lane.topic, partition = lane.partition, %error, "place not found yet");
                lane.standing = Standing::Lost(Instant::now() + AGAIN);
                None
            }
        }
    }

    fn place(&mut self, lane: &Lane) -> Result<Found, Error> {
        let (topic, partition) = (&*lane.topic, lane.partition);
        // Kafka's first, the journal's second: the journal's only grows, so a commit ahead of it is no race.
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let committed = self.client.committed_offsets(list, PATIENCE)?;
        let committed = committed.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
        let position = self.handle.block_on(self.intake.journal.position(&self.cluster, topic, partition))?;
        let (low, high) = self.client.fetch_watermarks(topic, partition, PATIENCE)?;
        let facts = Facts { position: position.as_ref(), committed, low, high };
        let durable = position.as_ref().map(|position| position.next_offset);
        // An operator who set the position knows: nothing is compared.
        let marked = position.as_ref().is_some_and(|position| position.last_digest != [0; 16]);
        let anchor = lane.anchor.filter(|_| marked);
        if marked && lane.anew {
            return Ok(Found { durable, anchor: None, place: facts.again() });
        }
        // The position may have moved on in another log before that was noticed: the anchor is older and surer.
        if let Some(anchor) = anchor.filter(|anchor| (low..high).contains(&anchor.offset))
            && anchor.is_other(&self.look(topic, partition, anchor.offset)?)
        {
            return Ok(Found { durable, anchor: None, place: facts.again() });
        }
        let seen = facts.wanted().map(|offset| self.look(topic, partition, offset)).transpose()?;
        let last = seen.filter(|seen| durable == Some(seen.offset + 1));
        Ok(Found { durable, anchor: anchor.or(last), place: facts.place(self.settings.first_start, seen) })
    }

    fn look(&mut self, topic: &str, partition: i32, offset: i64) -> Result<Seen, Error> {
        let looker = match self.looker.take() {
            Some(looker) => looker,
            None => Looker::new(&self.settings.connection)?,
        };
        let seen = looker.look(topic, partition, offset)?;
        // One that failed is not used again: what it knows of the topic may be old.
        self.looker = Some(looker);
        Ok(seen)
    }
}

/// A lane's place, and what it was found by.
struct Found {
    /// What the journal holds.
    durable: Option<i64>,
    /// As [`Lane::anchor`].
    anchor: Option<Seen>,
    place: Place,
}
