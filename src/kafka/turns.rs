//! Rebalances, as librdkafka tells them: taken down in its callback, answered by the member between two batches.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// A change of the assignment that waits for its answer.
pub(super) enum Turn {
    Assign(Vec<(String, i32)>),
    Revoke(Vec<(String, i32)>),
}

/// Takes rebalances down; they are answered between two batches.
#[derive(Default)]
pub(super) struct Turns {
    waiting: Mutex<VecDeque<Turn>>,
    /// The client is being dropped: nobody answers any more but the callback itself.
    closing: AtomicBool,
}

impl Turns {
    fn push(&self, turn: Turn) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(turn);
    }

    /// The next one to answer.
    pub(super) fn pop(&self) -> Option<Turn> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on each is answered at once: the client is being dropped.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}

impl ClientContext for Turns {}

impl ConsumerContext for Turns {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RespErr, list: &mut TopicPartitionList) {
        let assign = err == RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            // Without an answer the client never closes.
            let answered = if assign { Ok(()) } else { consumer.incremental_unassign(list) };
            if let Err(error) = answered {
                tracing::warn!(%error, "closing the Kafka client");
            }
            return;
        }
        let which = list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        self.push(if assign { Turn::Assign(which) } else { Turn::Revoke(which) });
    }
}
