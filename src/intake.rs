//! Deliveries become arrivals, arrivals become one durable batch. The one way in, for Kafka, HTTP and own events.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock;
use crate::deadlines::ClockTrust;
use crate::event::{self, Delivery, Event, Reject, Says, Unheard};
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
    /// Whether the clock is believed. Who reads a broker tells it the broker's time; nothing that our own clock stamped does, as it
    /// would agree with itself. `None`: it always is.
    pub trust: Option<Arc<ClockTrust>>,
    /// What each topic's producers may say; what else they say is rejected as `forbidden`. `None`: anything.
    pub types: Option<Arc<BTreeMap<String, Says>>>,
}

impl Intake {
    /// Decodes `deliveries` and makes them durable together with `moves`; all or nothing. There is a fate for each; one
    /// that says nothing is only counted.
    ///
    /// # Errors
    /// As [`Journal::record_batch`]: nothing of the batch was recorded.
    pub async fn record(&self, deliveries: &[Delivery], moves: Vec<Move>) -> Result<Recorded, Error> {
        let understood: Vec<Option<Arrival>> = deliveries.iter().map(|delivery| self.understand(delivery)).collect();
        let says: Vec<bool> = understood.iter().map(Option::is_some).collect();
        let arrivals: Vec<Arrival> = understood.into_iter().flatten().collect();
        let topics: Vec<Arc<str>> = deliveries.iter().map(|d| d.at.topic.clone()).collect();
        let mut recorded = Recorded::default();
        if !arrivals.is_empty() || !moves.is_empty() {
            recorded = self.commit(arrivals, moves).await?;
        }
        let mut fates = std::mem::take(&mut recorded.fates).into_iter();
        recorded.fates = says.iter().map_while(|says| if *says { fates.next() } else { Some(Fate::Ignored) }).collect();
        for (topic, fate) in topics.iter().zip(&recorded.fates) {
            match fate {
                Fate::Accepted => self.metrics.event(topic, "accepted"),
                Fate::Duplicate => self.metrics.event(topic, "duplicate"),
                Fate::Rejected(reason) => {
                    self.metrics.event(topic, "rejected");
                    self.metrics.rejected(reason.as_str());
                }
                Fate::Ignored => self.metrics.event(topic, "ignored"),
            }
        }
        Ok(recorded)
    }

    /// `None`: it says nothing.
    fn understand(&self, delivery: &Delivery) -> Option<Arrival> {
        match event::understand(delivery, &self.limits) {
            Ok(None) => None,
            Ok(Some(mut event)) => Some(match self.hear(&mut event) {
                Ok(()) => Arrival::Event(Box::new(event)),
                Err(unheard) => Arrival::Reject(refused(delivery, unheard)),
            }),
            Err(reject) => Some(Arrival::Reject(reject)),
        }
    }

    fn hear(&self, event: &mut Event) -> Result<(), Unheard> {
        let Some(topics) = &self.types else { return Ok(()) };
        let nothing = Says::default();
        topics.get(&*event.at.topic).unwrap_or(&nothing).hear(event)
    }

    /// Whether the wall clock is believed now: what only time brings waits while it is not.
    pub fn believes_clock(&self) -> bool {
        self.trust.as_ref().is_none_or(|trust| trust.check())
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

fn refused(delivery: &Delivery, unheard: Unheard) -> Reject {
    Reject {
        at: delivery.at.clone(),
        tenant: delivery.tenant.clone(),
        reason: unheard.reason,
        pointer: Some(unheard.pointer.to_owned()),
        size_bytes: delivery.payload.as_ref().map_or(0, |payload| payload.len() as u64),
        broker_ms: delivery.broker_ms,
    }
}
