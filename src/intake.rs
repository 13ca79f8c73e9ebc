//! Deliveries become arrivals, arrivals become one durable batch. The one way in, for Kafka, HTTP and own events.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock;
use crate::deadlines::ClockTrust;
use crate::event::{self, Delivery, Event, Reject, RejectReason, Type};
use crate::journal::{Arrival, Batch, Error, Fate, Journal, Move, Recorded};
use crate::metrics::Metrics;
use crate::policy::Rules;

/// What all ways in share.
#[derive(Clone)]
pub struct Intake {
    /// Where it becomes durable.
    pub journal: Arc<dyn Journal>,
    /// What decides.
    pub rules: Arc<Rules>,
    /// What a delivery may be.
    pub limits: event::Limits,
    /// Time.
    pub clock: clock::Shared,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Rung when a case may be due: the executor listens.
    pub stirred: Arc<Notify>,
    /// Told the broker's time with each batch; `None` where our own clock stamps the deliveries.
    pub trust: Option<Arc<ClockTrust>>,
    /// Which event types a topic's producers may send; what else they send is rejected as `forbidden`.
    pub types: Option<Arc<BTreeMap<String, HashSet<Type>>>>,
}

impl Intake {
    /// Decodes `deliveries` and makes them durable together with `moves`; all or nothing.
    ///
    /// # Errors
    /// As [`Journal::record_batch`]: nothing of the batch was recorded.
    pub async fn record(&self, deliveries: &[Delivery], moves: Vec<Move>) -> Result<Recorded, Error> {
        let arrivals: Vec<Arrival> = deliveries
            .iter()
            .map(|delivery| match event::decode(delivery, &self.limits) {
                Ok(event) if !self.may_send(&event) => Arrival::Reject(forbidden(delivery)),
                Ok(event) => Arrival::Event(Box::new(event)),
                Err(reject) => Arrival::Reject(reject),
            })
            .collect();
        if let (Some(trust), Some(last)) = (&self.trust, deliveries.last()) {
            trust.agree(last.broker_ms);
        }
        let topics: Vec<Arc<str>> = deliveries.iter().map(|d| d.at.topic.clone()).collect();
        let recorded = self.commit(arrivals, moves).await?;
        for (topic, fate) in topics.iter().zip(&recorded.fates) {
            match fate {
                Fate::Accepted => self.metrics.event(topic, "accepted"),
                Fate::Duplicate => self.metrics.event(topic, "duplicate"),
                Fate::Rejected(reason) => {
                    self.metrics.event(topic, "rejected");
                    self.metrics.rejected(reason.as_str());
                }
            }
        }
        Ok(recorded)
    }

    fn may_send(&self, event: &Event) -> bool {
        let Some(types) = &self.types else { return true };
        types.get(&*event.at.topic).is_some_and(|allowed| allowed.contains(&event.kind))
    }

    /// Makes Curfew's own events durable.
    ///
    /// # Errors
    /// As [`Journal::record_batch`].
    pub async fn notice(&self, events: Vec<Event>) -> Result<Recorded, Error> {
        let arrivals = events.into_iter().map(|event| Arrival::Event(Box::new(event))).collect();
        self.commit(arrivals, Vec::new()).await
    }

    async fn commit(&self, arrivals: Vec<Arrival>, moves: Vec<Move>) -> Result<Recorded, Error> {
        let batch = Batch { arrivals, moves, rules: self.rules.clone(), now_ms: self.clock.wall_ms() };
        let started = self.clock.monotonic_ms();
        let recorded = self.journal.record_batch(batch).await?;
        self.metrics.journal_commit(self.clock.monotonic_ms() - started);
        if recorded.stirred > 0 {
            self.stirred.notify_one();
        }
        Ok(recorded)
    }
}

fn forbidden(delivery: &Delivery) -> Reject {
    Reject {
        at: delivery.at.clone(),
        tenant: delivery.tenant.clone(),
        reason: RejectReason::Forbidden,
        pointer: Some("/type".to_owned()),
        size_bytes: delivery.payload.as_ref().map_or(0, |payload| payload.len() as u64),
        broker_ms: delivery.broker_ms,
    }
}
