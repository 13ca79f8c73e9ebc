//! What a member looks after beside reading: its commits, its pauses, where each partition ends, and what went wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Error;
use super::consumer::Member;
use super::lane::{Lane, Standing};
use super::watch::{Found, Log};

/// How often what is not urgent is looked after.
pub(super) const EVERY: Duration = Duration::from_millis(200);

impl Member<'_> {
    /// Kafka's own commit, which follows the journal: for lag tools only, so a failed one is only logged.
    pub(super) fn commit(&mut self) {
        let list = self.lanes.to_commit();
        if list.count() > 0
            && let Err(error) = self.client.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "Kafka's own commit failed");
        }
    }

    pub(super) fn tend(&mut self) -> Result<(), Error> {
        self.tended = Instant::now();
        let pause = self.stuck.is_some() || self.backlog.unsent() > self.settings.backlog;
        if pause != self.paused {
            tracing::warn!(pause, unsent = self.backlog.unsent(), "intake pauses or goes on");
            let list = self.lanes.list(|lane| !matches!(lane.standing, Standing::Halted(_)));
            if pause {
                self.client.pause(&list)?;
            } else {
                self.client.resume(&list)?;
                self.lanes.iter().for_each(Lane::distrust);
            }
            self.paused = pause;
        }
        self.commit();
        self.queues.look_again();
        self.find_lost()?;
        self.caught_up();
        self.watch_assigned();
        Ok(())
    }

    /// What the watch asks about follows the assignment.
    pub(super) fn watch_assigned(&mut self) {
        self.watch.follow(&mut self.lanes);
    }

    /// New lanes fetch nothing while the others do not.
    pub(super) fn pause_if_paused(&self, list: &TopicPartitionList) -> Result<(), Error> {
        if self.paused && list.count() > 0 {
            self.client.pause(list)?;
        }
        Ok(())
    }

    /// Makes them count in the watermark from now on, whoever reads them: what one holds that nobody has read may say anything.
    pub(super) fn count(&mut self, all: Vec<(Arc<str>, i32)>) -> Result<(), Error> {
        for (topic, partition) in all {
            if !self.counted.contains(&(topic.clone(), partition)) {
                // It is known up to no time yet, or up to what it was.
                self.handle.block_on(self.intake.journal.caught_up(&self.cluster, &topic, partition, 0))?;
                self.counted.insert((topic, partition));
            }
        }
        Ok(())
    }

    /// Partitions that were read to their end move the watermark on, though nothing came.
    fn caught_up(&mut self) {
        let Found { looks: looked, partitions } = self.watch.take();
        if let Err(error) = self.count(partitions) {
            tracing::warn!(%error, "the watermark stands still");
            return;
        }
        if looked.is_empty() {
            return;
        }
        let polled = self.client.position().map(|list| list.to_topic_map()).unwrap_or_default();
        let mut lost = Vec::new();
        for look in looked {
            let Some(lane) = self.lanes.get(&look.topic, look.partition) else { continue };
            let live = lane.standing == Standing::Live && lane.since_ms <= look.steady_ms;
            // What was read is no longer there: the topic is gone or made anew, or the log was shortened.
            if live && (look.log == Log::Other || (!lane.anew && look.high < look.durable.unwrap_or(0))) {
                tracing::warn!(topic = %look.topic, partition = look.partition,
                    "the log is not the one that was read: its place is looked for again");
                lost.push((look.topic, look.partition));
                continue;
            }
            if look.log != Log::Same {
                continue;
            }
            if live {
                lane.anchor = look.latest.or(lane.anchor);
            }
            self.intake.metrics.consumer_lag(&look.topic, look.partition, (look.high - lane.next).max(0));
            // The client's own place is further where the log ends with marks of a transaction; a seek forgets it.
            let own = polled.get(&(look.topic.to_string(), look.partition)).and_then(|offset| offset.to_raw());
            let read = lane.next.max(own.unwrap_or(-1));
            // A watermark by a wrong clock would stay, and run ahead of what is read long after the clock is right again.
            let believed = look.believed && self.intake.believes_clock();
            if live && believed && lane.is_idle() && read >= look.high {
                let told = self.intake.journal.caught_up(&self.cluster, &look.topic, look.partition, look.asked_ms);
                if let Err(error) = self.handle.block_on(told) {
                    tracing::warn!(%error, "the watermark stands still");
                }
            }
        }
        for (topic, partition) in lost {
            self.lose(&topic, partition);
        }
    }

    pub(super) fn fault(&mut self, error: KafkaError) -> Result<(), Error> {
        use RDKafkaErrorCode as Code;
        match error {
            KafkaError::MessageConsumptionFatal(_) => return Err(error.into()),
            // It does not say which partition: all are looked at again.
            KafkaError::MessageConsumption(
                Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition,
            ) => {
                tracing::warn!(%error, "all partitions are compared with the log again");
                let lanes: Vec<_> = self.lanes.iter().map(|lane| (lane.topic.clone(), lane.partition)).collect();
                self.flush();
                for (topic, partition) in lanes {
                    self.lose(&topic, partition);
                }
            }
            error => tracing::warn!(%error, "Kafka"),
        }
        if let Some((code, why)) = self.client.client().fatal_error() {
            tracing::error!(why, "Kafka: fatal");
            return Err(Error::Client(KafkaError::MessageConsumptionFatal(code)));
        }
        Ok(())
    }
}
