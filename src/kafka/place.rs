//! Where a partition starts, when it is assigned: a pure decision, and the look at the log that it may need.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, Timestamp, TopicPartitionList};

use super::settings::{Connection, FirstStart};
use super::{Error, lane};
use crate::journal::Position;

/// A record as seen by a look at the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its offset: later than asked where the asked one is gone.
    pub offset: i64,
    /// Its timestamp.
    pub ms: Option<i64>,
    /// Whether the broker set the timestamp.
    pub appended: bool,
    /// As [`Position::last_digest`].
    pub digest: [u8; 16],
}

impl Seen {
    /// The record with this timestamp.
    pub fn new(offset: i64, stamp: Timestamp, digest: [u8; 16]) -> Self {
        let (ms, appended) = match stamp {
            Timestamp::NotAvailable => (None, false),
            Timestamp::CreateTime(ms) => (Some(ms), false),
            Timestamp::LogAppendTime(ms) => (Some(ms), true),
        };
        Self { offset, ms, appended, digest }
    }

    fn of(message: &BorrowedMessage<'_>) -> Self {
        Self::new(message.offset(), message.timestamp(), lane::digest(message.payload()))
    }

    /// Whether a look for this record found another one in its place. One that is gone (compacted) tells nothing.
    pub fn is_other(&self, found: &Self) -> bool {
        found.offset == self.offset && found != self
    }
}

/// What is known of a partition when it is assigned.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the journal holds.
    pub position: Option<&'a Position>,
    /// What Kafka holds for the group; read before the journal's, which only grows.
    pub committed: Option<i64>,
    /// The first offset of the log.
    pub low: i64,
    /// The offset after its last record.
    pub high: i64,
}

/// Where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Read on from here.
    At {
        /// The next offset to read.
        offset: i64,
        /// Why the journal must be older than what was done with it; `None`: it is not.
        older: Option<String>,
        /// The topic was recreated: what was read before is another log's.
        recreated: bool,
    },
    /// Nobody but an operator can say.
    Halt {
        /// What is wrong.
        why: String,
        /// The first offset of the log: where an operator would usually go on.
        suggest: i64,
    },
}

impl Facts<'_> {
    /// The offset of the record that must be looked at before [`Facts::place`] can decide.
    pub fn wanted(&self) -> Option<i64> {
        let position = self.position?;
        let next = position.next_offset;
        if next > self.high {
            (self.low < self.high).then_some(self.low)
        } else {
            // An operator's position has no marks: there is nothing to compare.
            (next > self.low && next > 0 && position.last_digest != [0; 16]).then_some(next - 1)
        }
    }

    /// Reads another log than before, from its start: what was read already is only repeated, and recognised.
    pub fn again(&self) -> Place {
        Place::At { offset: self.low, older: None, recreated: true }
    }

    /// Decides. `seen` is the record at [`Facts::wanted`], or the next one that is left.
    pub fn place(&self, first: FirstStart, seen: Option<Seen>) -> Place {
        let Some(position) = self.position else {
            let offset = match first {
                FirstStart::Earliest => self.low,
                FirstStart::Latest => self.high,
            };
            let older = self.committed.filter(|at| *at > 0).map(|at| {
                format!("the group's committed offset is {at}, and the journal knows nothing of this partition")
            });
            return Place::At { offset, older, recreated: false };
        };
        let next = position.next_offset;
        let again = self.again();
        if next > self.high {
            // A log that starts at 0 and holds only records that are younger than our last one is another log.
            // Starting again can only repeat, and repetitions are recognised.
            let younger = match seen {
                None => self.low == self.high && self.low == 0,
                Some(seen) => self.low == 0 && seen.ms.is_some_and(|ms| ms > position.last_ms),
            };
            if younger {
                return again;
            }
            return Place::Halt {
                why: format!("the journal goes on at {next}, but the log ends at {}: records were lost", self.high),
                suggest: self.high,
            };
        }
        if next < self.low {
            return Place::Halt {
                why: format!(
                    "the journal goes on at {next}, but the log begins at {}: unread records were deleted",
                    self.low
                ),
                suggest: self.low,
            };
        }
        if let Some(seen) = seen.filter(|seen| seen.offset == next - 1) {
            let other = seen.digest != position.last_digest
                || (seen.appended && seen.ms.is_some_and(|ms| ms > position.last_ms));
            if other {
                return again;
            }
        }
        let older = self
            .committed
            // An operator who set the position back knows.
            .filter(|at| *at > next && position.last_digest != [0; 16])
            .map(|at| format!("the group's committed offset is {at}, and the journal's is {next}"));
        Place::At { offset: next, older, recreated: false }
    }
}

/// Reads single records without being in the group.
pub struct Looker {
    client: BaseConsumer,
}

impl Looker {
    /// Connects lazily.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        Ok(Self { client: connection.reader()?.create()? })
    }

    /// For looks at single records again and again: fetches little.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn small(connection: &Connection) -> Result<Self, Error> {
        let mut config = connection.reader()?;
        // At least one batch comes, however large.
        config.set("fetch.message.max.bytes", "4096");
        Ok(Self { client: config.create()? })
    }

    /// At each place the record, or the first one after it, as far as they come in time. Blocks, at most two seconds.
    ///
    /// # Errors
    /// As librdkafka.
    pub fn firsts(
        &self,
        places: &[(Arc<str>, i32, i64)],
        mut go_on: impl FnMut() -> bool,
    ) -> Result<HashMap<(String, i32), Seen>, Error> {
        let mut assignment = TopicPartitionList::new();
        for (topic, partition, offset) in places {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        self.client.assign(&assignment)?;
        let until = Instant::now() + Duration::from_secs(2);
        let mut found = HashMap::new();
        while found.len() < places.len() && Instant::now() < until && go_on() {
            match self.client.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let place = (message.topic().to_owned(), message.partition());
                    found.entry(place).or_insert_with(|| Seen::of(&message));
                }
                // It does not say whose: who has no answer is asked for again.
                Some(Err(error)) => tracing::debug!(%error, "a look at the log"),
                None => {}
            }
        }
        self.client.unassign()?;
        Ok(found)
    }

    /// The record at `offset`, or the first one after it. Blocks.
    ///
    /// # Errors
    /// Nothing came in time.
    pub fn look(&self, topic: &str, partition: i32, offset: i64) -> Result<Seen, Error> {
        let mut found = None;
        self.read(topic, partition, offset, None, |message| {
            found = Some(Seen::of(message));
            true
        })?;
        found.ok_or_else(|| Error::NoAnswer(format!("no record of {topic}[{partition}] from {offset} on")))
    }

    /// Hands over records from `offset` on, until `enough`, or until all before `end` was read: the last of it may be a mark of a
    /// transaction, which nobody is handed. Blocks, at most ten seconds.
    ///
    /// # Errors
    /// It was not enough in time.
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        end: Option<i64>,
        mut enough: impl FnMut(&BorrowedMessage<'_>) -> bool,
    ) -> Result<(), Error> {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        self.client.assign(&assignment)?;
        let until = Instant::now() + Duration::from_secs(10);
        let mut last = None;
        while Instant::now() < until {
            match self.client.poll(Duration::from_millis(100)) {
                Some(Ok(message)) if enough(&message) => {
                    self.client.unassign()?;
                    return Ok(());
                }
                Some(Err(error)) => last = Some(error),
                Some(Ok(_)) => {}
                None if end.is_some_and(|end| self.is_at(topic, partition, end)) => {
                    self.client.unassign()?;
                    return Ok(());
                }
                None => {}
            }
        }
        self.client.unassign()?;
        Err(Error::NoAnswer(format!("{topic}[{partition}] from {offset} on: {last:?}")))
    }

    /// Whether the client has come to `end`. Its own place passes marks as well.
    fn is_at(&self, topic: &str, partition: i32, end: i64) -> bool {
        let Ok(places) = self.client.position() else { return false };
        let place = places.find_partition(topic, partition).and_then(|place| place.offset().to_raw());
        place.is_some_and(|place| place >= end)
    }

    /// The first offset of the log and the one after its last record. Blocks.
    ///
    /// # Errors
    /// As librdkafka.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        Ok(self.client.fetch_watermarks(topic, partition, Duration::from_secs(10))?)
    }

    /// The partitions of a topic; none where it does not exist. Blocks.
    ///
    /// # Errors
    /// As librdkafka.
    pub fn partitions(&self, topic: &str) -> Result<Vec<i32>, Error> {
        let metadata = self.client.fetch_metadata(Some(topic), Duration::from_secs(10))?;
        let found = metadata.topics().iter().filter(|found| found.name() == topic);
        Ok(found.flat_map(|found| found.partitions().iter().map(|partition| partition.id())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(next_offset: i64) -> Position {
        Position {
            cluster: "c".into(),
            topic: "t".into(),
            partition: 0,
            next_offset,
            last_ms: 1000,
            last_digest: [1; 16],
        }
    }

    fn seen(offset: i64, ms: i64, digest: u8) -> Option<Seen> {
        Some(Seen { offset, ms: Some(ms), appended: true, digest: [digest; 16] })
    }

    fn at(offset: i64) -> Place {
        Place::At { offset, older: None, recreated: false }
    }

    fn again() -> Place {
        Place::At { offset: 0, older: None, recreated: true }
    }

    #[test]
    fn first_start() {
        let facts = Facts { position: None, committed: None, low: 3, high: 9 };
        assert_eq!(facts.place(FirstStart::Earliest, None), at(3));
        assert_eq!(facts.place(FirstStart::Latest, None), at(9));
        let older = Facts { committed: Some(5), ..facts }.place(FirstStart::Earliest, None);
        assert!(matches!(older, Place::At { offset: 3, older: Some(_), .. }));
        let zero = Facts { committed: Some(0), ..facts }.place(FirstStart::Earliest, None);
        assert_eq!(zero, at(3));
    }

    #[test]
    fn goes_on() {
        let position = position(7);
        let facts = Facts { position: Some(&position), committed: Some(7), low: 0, high: 9 };
        assert_eq!(facts.wanted(), Some(6));
        assert_eq!(facts.place(FirstStart::Latest, seen(6, 1000, 1)), at(7));
        assert_eq!(facts.place(FirstStart::Latest, seen(8, 9999, 2)), at(7), "compacted: nothing to compare");
        let older = Facts { committed: Some(8), ..facts }.place(FirstStart::Latest, seen(6, 1000, 1));
        assert!(matches!(older, Place::At { offset: 7, older: Some(_), recreated: false }));
        let operator = Position { last_digest: [0; 16], ..position.clone() };
        let set_back = Facts { position: Some(&operator), committed: Some(9), ..facts };
        assert_eq!((set_back.wanted(), set_back.place(FirstStart::Latest, None)), (None, at(7)));
    }

    #[test]
    fn recreated() {
        let position = position(7);
        let longer = Facts { position: Some(&position), committed: Some(7), low: 0, high: 9 };
        assert_eq!(longer.place(FirstStart::Latest, seen(6, 1000, 2)), again());
        assert_eq!(longer.place(FirstStart::Latest, seen(6, 1001, 1)), again(), "the same bytes, appended later");
        let shorter = Facts { high: 3, ..longer };
        assert_eq!(shorter.wanted(), Some(0));
        assert_eq!(shorter.place(FirstStart::Latest, seen(0, 1001, 2)), again());
        let empty = Facts { high: 0, ..longer };
        assert_eq!(empty.wanted(), None);
        assert_eq!(empty.place(FirstStart::Latest, None), again());
    }

    #[test]
    fn another_record_in_its_place() {
        let anchor = seen(6, 1000, 1).unwrap();
        assert!(!anchor.is_other(&anchor));
        assert!(anchor.is_other(&seen(6, 1000, 2).unwrap()), "other bytes");
        assert!(anchor.is_other(&seen(6, 1001, 1).unwrap()), "the same bytes, written at another time");
        assert!(!anchor.is_other(&seen(7, 2000, 2).unwrap()), "compacted away");
    }

    #[test]
    fn outside_the_log() {
        let position = position(7);
        let deleted = Facts { position: Some(&position), committed: None, low: 8, high: 9 };
        assert!(matches!(deleted.place(FirstStart::Earliest, None), Place::Halt { suggest: 8, .. }));
        let lost = Facts { low: 0, high: 5, ..deleted };
        assert!(matches!(lost.place(FirstStart::Earliest, seen(0, 10, 3)), Place::Halt { suggest: 5, .. }));
        let touching = Facts { low: 7, high: 9, ..deleted };
        assert_eq!(touching.wanted(), None);
        assert_eq!(touching.place(FirstStart::Earliest, None), at(7));
    }
}
