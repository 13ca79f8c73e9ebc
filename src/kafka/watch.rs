//! Asks the broker where each partition ends, beside the polling: for lag, and to prove that a partition is read up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::lane::Lanes;
use super::turns::Turns;
use super::{Error, consumer};
use crate::clock;

/// The end of a partition, as the broker answered.
pub(super) struct Look {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// The offset after its last record.
    pub(super) high: i64,
    /// Our clock before the question: what was appended by then lies before `high`.
    pub(super) asked_ms: i64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    follow: Mutex<Vec<(Arc<str>, i32)>>,
    looks: Mutex<Vec<Look>>,
}

/// A thread that asks once per second.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(client: Arc<BaseConsumer<Turns>>, clock: clock::Shared) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-watch".into())
            .spawn(move || {
                while !theirs.stop.load(Ordering::SeqCst) {
                    std::thread::park_timeout(Duration::from_secs(1));
                    let follow = theirs.follow.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    for (topic, partition) in follow {
                        if theirs.stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let asked_ms = clock.wall_ms();
                        // A broker that does not answer proves nothing.
                        if let Ok((_, high)) = client.fetch_watermarks(&topic, partition, consumer::PATIENCE / 5) {
                            let look = Look { topic, partition, high, asked_ms };
                            theirs.looks.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                        }
                    }
                }
            })
            .map_err(|error| Error::Thread(format!("could not be started: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks about these from now on.
    pub(super) fn follow(&self, lanes: &mut Lanes) {
        let which = lanes.iter().map(|lane| (lane.topic.clone(), lane.partition)).collect();
        *self.shared.follow.lock().unwrap_or_else(PoisonError::into_inner) = which;
    }

    /// The answers since the last call.
    pub(super) fn take(&self) -> Vec<Look> {
        std::mem::take(&mut *self.shared.looks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the thread and waits for it: it holds the client.
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
