//! One assigned partition: what is durable, what was polled, and whether what comes next may be trusted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, Timestamp, TopicPartitionList};

use super::place::Seen;
use crate::event::{self, Coordinates, Delivery, Format};
use crate::journal::{Move, Position};
use crate::task::Tenant;

/// The digest of a record's value that is kept with the offset.
pub fn digest(payload: Option<&[u8]>) -> [u8; 16] {
    match payload {
        Some(payload) => event::digest16(&[payload]),
        None => event::digest16(&[]),
    }
}

/// Where a lane stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Records are taken.
    Live,
    /// Its place must be found again, not before this instant; records are ignored.
    Lost(Instant),
    /// Its place is outside the log: records are ignored until an operator answers.
    Halted(Instant),
}

/// One assigned partition.
#[derive(Debug)]
pub struct Lane {
    /// Whose.
    pub tenant: Tenant,
    /// What its records are.
    pub format: Format,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// What the journal holds, as far as we know: the compare of compare-and-set.
    pub durable: Option<i64>,
    /// The next offset that we expect to be handed.
    pub next: i64,
    /// Where it stands.
    pub standing: Standing,
    /// No record came since the last seek: the first must be the expected one, or the gap is confirmed by a second seek.
    fresh: bool,
    /// The first record after the last seek, where it was not the expected one.
    gap: Option<i64>,
    /// Index of its last delivery in the batch.
    last: Option<usize>,
    /// Moved since Kafka's own commit.
    pub uncommitted: bool,
    /// When it was assigned or sought, by the monotonic clock: an older look at the log says nothing of it.
    pub since_ms: i64,
    /// A record of the log that this lane reads: where another is found, the topic was made anew.
    pub anchor: Option<Seen>,
    /// The topic was made anew and nothing of the new log is recorded: the journal's position says nothing of it.
    pub anew: bool,
    /// The last one that was recorded; it becomes the anchor when the log was seen to be the same after it.
    pub latest: Option<Seen>,
    /// The timestamp of the last one taken.
    stamp: Timestamp,
}

/// What a record is to its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// The next one.
    Yes,
    /// Recorded already, or the lane is not live.
    No,
    /// Records before it are missing: seek once more to be sure.
    Gap,
}

impl Lane {
    /// Not placed yet.
    pub fn new(tenant: Tenant, format: Format, topic: Arc<str>, partition: i32, now: Instant) -> Self {
        Self {
            tenant,
            format,
            topic,
            partition,
            durable: None,
            next: 0,
            standing: Standing::Lost(now),
            fresh: true,
            gap: None,
            last: None,
            uncommitted: false,
            since_ms: 0,
            anchor: None,
            anew: false,
            latest: None,
            stamp: Timestamp::NotAvailable,
        }
    }

    /// Goes on at `next`, where the journal holds `durable` and the log `anchor`.
    pub fn set(&mut self, durable: Option<i64>, next: i64, since_ms: i64, anchor: Option<Seen>) {
        self.anchor = anchor;
        self.latest = None;
        self.durable = durable;
        self.next = next;
        self.standing = Standing::Live;
        self.last = None;
        self.since_ms = since_ms;
        self.distrust();
    }

    /// The client was told to go on somewhere: what it hands over next is checked.
    pub fn distrust(&mut self) {
        self.fresh = true;
    }

    /// Whether nothing of it waits in the batch.
    pub fn is_idle(&self) -> bool {
        self.last.is_none()
    }

    /// Judges the record at `offset`.
    ///
    /// librdkafka hands records over in order, but after a seek one of the former place could still be under way:
    /// taking it would skip what lies between. So the first record after a seek must be the expected one; another is
    /// believed (compaction and transaction marks leave gaps) when a second seek brings the same.
    pub fn judge(&mut self, offset: i64) -> Take {
        if self.standing != Standing::Live || offset < self.next {
            return Take::No;
        }
        if self.fresh && offset > self.next && self.gap != Some(offset) {
            self.gap = Some(offset);
            return Take::Gap;
        }
        self.fresh = false;
        self.gap = None;
        self.next = offset + 1;
        Take::Yes
    }

    /// Its record is at this index of the batch.
    pub fn taken(&mut self, index: usize, stamp: Timestamp) {
        self.last = Some(index);
        self.stamp = stamp;
    }
}

/// All assigned partitions.
#[derive(Debug, Default)]
pub struct Lanes(HashMap<Arc<str>, BTreeMap<i32, Lane>>);

impl Lanes {
    /// One lane.
    pub fn get(&mut self, topic: &str, partition: i32) -> Option<&mut Lane> {
        self.0.get_mut(topic)?.get_mut(&partition)
    }

    /// All.
    pub fn iter(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.0.values_mut().flat_map(BTreeMap::values_mut)
    }

    /// Adds or replaces one.
    pub fn put(&mut self, lane: Lane) {
        self.0.entry(lane.topic.clone()).or_default().insert(lane.partition, lane);
    }

    /// Gives one away.
    pub fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(lanes) = self.0.get_mut(topic) {
            lanes.remove(&partition);
        }
    }

    /// Whether nothing is assigned.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeMap::is_empty)
    }

    /// Those that match, as librdkafka takes them.
    pub fn list(&mut self, mut matches: impl FnMut(&Lane) -> bool) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for lane in self.iter().filter(|lane| matches(lane)) {
            list.add_partition(&lane.topic, lane.partition);
        }
        list
    }

    /// The steps that go with `batch`.
    pub fn moves(&mut self, cluster: &Arc<str>, batch: &[Delivery]) -> Vec<Move> {
        self.iter()
            .filter_map(|lane| {
                let last = batch.get(lane.last?)?;
                let last_ms = reached_ms(lane.stamp, last.broker_ms);
                let to = Position {
                    cluster: cluster.clone(),
                    topic: lane.topic.clone(),
                    partition: lane.partition,
                    next_offset: last.at.offset + 1,
                    last_ms,
                    last_digest: digest(last.payload.as_deref()),
                };
                Some(Move { from: lane.durable, to })
            })
            .collect()
    }

    /// The batch is durable.
    pub fn moved(&mut self, moves: &[Move]) {
        for step in moves {
            if let Some(lane) = self.get(&step.to.topic, step.to.partition) {
                lane.durable = Some(step.to.next_offset);
                lane.last = None;
                lane.uncommitted = true;
                lane.latest = Some(Seen::new(step.to.next_offset - 1, lane.stamp, step.to.last_digest));
                lane.anchor = lane.anchor.or(lane.latest);
                lane.anew = false;
            }
        }
    }

    /// The batch is dropped: every lane in it must find its place again.
    pub fn dropped(&mut self, now: Instant) {
        for lane in self.iter().filter(|lane| lane.last.is_some()) {
            lane.last = None;
            lane.standing = Standing::Lost(now);
        }
    }

    /// The batch lost some of its records: each lane's last one is found again.
    pub fn reindex(&mut self, batch: &[Delivery]) {
        self.iter().for_each(|lane| lane.last = None);
        for (index, delivery) in batch.iter().enumerate() {
            if let Some(lane) = self.get(&delivery.at.topic, delivery.at.partition) {
                lane.last = Some(index);
            }
        }
    }

    /// What Kafka's own commit should follow to, and forgets that it should.
    pub fn to_commit(&mut self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for lane in self.iter().filter(|lane| lane.uncommitted) {
            lane.uncommitted = false;
            let offset = Offset::Offset(lane.durable.unwrap_or(lane.next));
            // The only error is a negative offset.
            list.add_partition_offset(&lane.topic, lane.partition, offset).ok();
        }
        list
    }
}

/// A record's headers; `None`: one whose name is not UTF-8, which rdkafka unwraps. Whoever may produce could stop us with one byte.
pub fn headers(message: &BorrowedMessage<'_>) -> impl Iterator<Item = Option<(String, Option<Bytes>)>> {
    let all = message.headers();
    (0..all.map_or(0, Headers::count)).map(move |index| {
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let header = all?.try_get(index)?;
            Some((header.key.to_owned(), header.value.map(Bytes::copy_from_slice)))
        }));
        read.ok().flatten()
    })
}

/// When a record came: as the broker says, else as its producer does, never later than now. What was on its way while the broker was
/// away has the time at which it was said: a deadline that passed meanwhile lies behind that.
fn came_ms(stamp: Timestamp, now_ms: i64) -> i64 {
    match stamp {
        Timestamp::LogAppendTime(ms) => ms,
        Timestamp::CreateTime(ms) => ms.clamp(0, now_ms.max(0)),
        Timestamp::NotAvailable => now_ms,
    }
}

/// Up to when its partition is known with it. What is behind it in a backlog may be older than it came: of that, a producer's time
/// says more than ours, but never more than that.
fn reached_ms(stamp: Timestamp, came_ms: i64) -> i64 {
    match stamp {
        Timestamp::LogAppendTime(ms) => ms,
        Timestamp::CreateTime(ms) => ms.clamp(0, came_ms.max(0)),
        Timestamp::NotAvailable => 0,
    }
}

/// A record with its coordinates, copied out of librdkafka's memory.
pub fn delivery(cluster: &Arc<str>, lane: &Lane, message: &BorrowedMessage<'_>, now_ms: i64) -> Delivery {
    // A null CloudEvents header: `decode` makes a reject of it.
    let headers = headers(message).map(|header| header.unwrap_or_else(|| ("ce_id".to_owned(), None))).collect();
    Delivery {
        at: Coordinates {
            cluster: cluster.clone(),
            topic: lane.topic.clone(),
            partition: lane.partition,
            offset: message.offset(),
        },
        tenant: lane.tenant.clone(),
        format: lane.format,
        broker_ms: came_ms(message.timestamp(), now_ms),
        headers,
        payload: message.payload().map(Bytes::copy_from_slice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(next: i64) -> Lane {
        let mut lane = Lane::new("t".into(), Format::Curfew, "topic".into(), 0, Instant::now());
        lane.set(Some(next), next, 0, None);
        lane
    }

    #[test]
    fn a_producers_time_is_never_later_than_now() {
        let appended = Timestamp::LogAppendTime(700);
        assert_eq!((came_ms(appended, 1_000), reached_ms(appended, 700)), (700, 700));
        for (told, reached) in [(300, 300), (5_000, 1_000), (-1, 0)] {
            let stamp = Timestamp::CreateTime(told);
            assert_eq!((came_ms(stamp, 1_000), reached_ms(stamp, 1_000)), (reached, reached));
        }
        let none = Timestamp::NotAvailable;
        assert_eq!(
            (came_ms(none, 1_000), reached_ms(none, 1_000)),
            (1_000, 0),
            "of what is behind it nothing is known"
        );
    }

    #[test]
    fn in_order() {
        let mut lane = lane(5);
        assert_eq!(
            [4, 5, 5, 6, 9].map(|offset| lane.judge(offset)),
            [Take::No, Take::Yes, Take::No, Take::Yes, Take::Yes]
        );
        assert_eq!(lane.next, 10);
    }

    #[test]
    fn a_straggler_after_a_seek_is_not_taken() {
        let mut lane = lane(5);
        assert_eq!(lane.judge(20), Take::Gap);
        assert_eq!(lane.judge(5), Take::Yes);
        assert_eq!(lane.judge(6), Take::Yes);
    }

    #[test]
    fn a_real_gap_is_taken_when_it_shows_twice() {
        let mut lane = lane(5);
        assert_eq!(lane.judge(8), Take::Gap);
        assert_eq!(lane.judge(8), Take::Yes);
        assert_eq!(lane.judge(9), Take::Yes);
    }

    #[test]
    fn a_lost_lane_takes_nothing() {
        let mut lane = lane(5);
        lane.standing = Standing::Lost(Instant::now());
        assert_eq!(lane.judge(5), Take::No);
    }
}
