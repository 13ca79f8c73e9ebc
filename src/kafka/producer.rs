//! Sends structured CloudEvents: the relay's, and those of `curfew publish`.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::Error;
use super::settings::Connection;

/// What CloudEvents' structured mode calls a JSON event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// One record to send.
#[derive(Debug, Clone, Copy)]
pub struct Out<'a> {
    /// Where to.
    pub topic: &'a str,
    /// The key; records of one key stay in order.
    pub key: &'a str,
    /// The structured CloudEvent.
    pub body: &'a [u8],
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
}

/// An idempotent producer with `acks=all`.
pub struct Producer {
    client: FutureProducer,
}

impl Producer {
    /// Connects lazily. `give_up`: how long an unreachable broker is tried; `None`: for ever.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn new(connection: &Connection, give_up: Option<Duration>) -> Result<Self, Error> {
        let mut config: ClientConfig = connection.producer()?;
        config.set("message.timeout.ms", give_up.map_or(0, |time| time.as_millis()).to_string());
        Ok(Self { client: config.create()? })
    }

    /// Hands a record over; the future ends when the broker has it. Waits while the local queue is full.
    ///
    /// # Errors
    /// librdkafka does not take it.
    pub async fn send(&self, out: Out<'_>) -> Result<DeliveryFuture, Error> {
        loop {
            let mut headers =
                OwnedHeaders::new().insert(Header { key: "content-type", value: Some(CONTENT_TYPE.as_bytes()) });
            if let Some(traceparent) = out.traceparent {
                headers = headers.insert(Header { key: "traceparent", value: Some(traceparent.as_bytes()) });
            }
            for (key, value) in out.headers {
                headers = headers.insert(Header { key, value: Some(value.as_bytes()) });
            }
            let record = FutureRecord::to(out.topic).key(out.key).payload(out.body).headers(headers);
            match self.client.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Sends events, each with its key, and returns when the broker has them all.
    ///
    /// # Errors
    /// The first that the broker did not take; what came before it is published, as may be some of what follows.
    pub async fn publish<'a>(
        &self,
        topic: &str,
        events: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), Error> {
        let mut deliveries = Vec::new();
        let mut result = Ok(());
        for (key, body) in events {
            match self.send(Out { topic, key, body, traceparent: None, headers: &[] }).await {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for delivery in deliveries {
            let delivered = acked(delivery).await;
            result = result.and(delivered);
        }
        result
    }

    /// Forgets what was not sent and drops the client, which blocks.
    pub async fn close(self) {
        let closed = tokio::task::spawn_blocking(move || {
            self.client.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
        });
        if closed.await.is_err() {
            tracing::error!("dropping the Kafka producer failed");
        }
    }
}

/// Waits until the broker has a record.
///
/// # Errors
/// It does not, or does not say where.
pub async fn acked(delivery: DeliveryFuture) -> Result<(), Error> {
    match delivery.await {
        Ok(Ok(delivered)) => placed(delivered.offset),
        Ok(Err((error, _))) => Err(error.into()),
        Err(_) => Err(Error::NoAnswer("the producer was dropped".into())),
    }
}

/// librdkafka tells success without an offset where the broker answers that it has this sequence number already. A broker
/// that was restarted takes whichever of the records under way comes first for the beginning, and says so of the earlier
/// ones, which nobody has (seen by the chaos run). So what has no place is not sent: sent again, it is at worst a repeat.
fn placed(offset: i64) -> Result<(), Error> {
    if offset < 0 { Err(Error::Unplaced) } else { Ok(()) }
}

/// Publishes structured CloudEvents, each with its key, and returns when the broker has them all.
///
/// # Errors
/// As [`Producer::publish`].
pub async fn publish(connection: &Connection, topic: &str, events: &[(String, Vec<u8>)]) -> Result<(), Error> {
    let producer = Producer::new(connection, Some(Duration::from_secs(30)))?;
    let result = producer.publish(topic, events.iter().map(|(key, body)| (key.as_str(), body.as_slice()))).await;
    producer.close().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_without_a_place_is_no_success() {
        // RD_KAFKA_OFFSET_INVALID
        assert!(matches!(placed(-1001), Err(Error::Unplaced)));
        assert!(placed(0).is_ok());
    }
}
