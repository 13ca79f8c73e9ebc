//! A queue for each partition: what one of them has fetched ahead of a long backlog is not what another's fresh record
//! waits for.
//!
//! In librdkafka's common queue it would wait twice: behind what the others have there, and, while that is full, for its
//! own partition to be fetched at all. A queue that was split off stays so through seeks and pauses; records that were
//! fetched before still come through the common one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;

use super::turns::Turns;

/// One partition's.
pub(super) struct Queue {
    topic: String,
    partition: i32,
    pub(super) records: PartitionQueue<Turns>,
    /// Something may be in it. Set by librdkafka's thread, when the queue was empty.
    filled: Arc<AtomicBool>,
    /// It was not read to its end when it was read last.
    behind: Cell<bool>,
}

impl Queue {
    /// Whether it was read to its end before: what is in it now is fresh.
    pub(super) fn is_fresh(&self) -> bool {
        !self.behind.get()
    }

    /// It was read, to its end or not.
    pub(super) fn was_read(&self, to_the_end: bool) {
        self.behind.set(!to_the_end);
        if !to_the_end {
            self.filled.store(true, Ordering::SeqCst);
        }
    }
}

/// All of a member's.
#[derive(Default)]
pub(super) struct Queues {
    all: Vec<Rc<Queue>>,
    /// Where the next round begins.
    turn: usize,
}

impl Queues {
    /// Gives a partition its own queue, before it is assigned; `thread` is woken when something comes.
    pub(super) fn split(&mut self, client: &Arc<BaseConsumer<Turns>>, topic: &str, partition: i32, thread: &Thread) {
        // The old one first: with it goes the callback.
        self.remove(topic, partition);
        let Some(mut records) = client.split_partition_queue(topic, partition) else {
            tracing::warn!(topic, partition, "no queue of its own: it shares one with others");
            return;
        };
        let filled = Arc::new(AtomicBool::new(true));
        let (mark, thread) = (filled.clone(), thread.clone());
        records.set_nonempty_callback(move || {
            mark.store(true, Ordering::SeqCst);
            thread.unpark();
        });
        self.all.push(Rc::new(Queue { topic: topic.to_owned(), partition, records, filled, behind: Cell::new(false) }));
    }

    /// Its partition was given away.
    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        self.all.retain(|queue| queue.partition != partition || queue.topic != topic);
    }

    /// Before the client goes: a queue must not outlive it.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// Those in which something may be: fresh ones first, then in turn. They are not marked any more: whoever reads them
    /// says how far.
    pub(super) fn filled(&mut self) -> Vec<Rc<Queue>> {
        self.turn = if self.turn + 1 < self.all.len() { self.turn + 1 } else { 0 };
        let (before, from) = self.all.split_at(self.turn);
        let all = from.iter().chain(before);
        let mut filled: Vec<_> = all.filter(|queue| queue.filled.swap(false, Ordering::SeqCst)).cloned().collect();
        filled.sort_by_key(|queue| !queue.is_fresh());
        filled
    }

    /// All are looked into once more, whatever librdkafka says.
    pub(super) fn look_again(&self) {
        self.all.iter().for_each(|queue| queue.filled.store(true, Ordering::SeqCst));
    }
}
