//! Kafka in and out. A Kafka offset means "durably recorded in the journal", never "done".
//!
//! [`consumer`] polls and records, `queues` keeps partitions apart until then, [`lane`] keeps each partition's place,
//! [`place`] decides where a partition starts, [`producer`] sends; [`settings`] says which librdkafka properties are ours.

mod assign;
pub mod consumer;
pub mod lane;
pub mod place;
pub mod producer;
mod queues;
pub mod settings;
mod tend;
mod turns;
mod watch;

/// Why Kafka could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A property is Curfew's own: setting it would break a promise.
    #[error("the Kafka property {0} is set by Curfew itself and cannot be configured")]
    Ours(String),
    /// librdkafka refuses the configuration.
    #[error("Kafka client: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    /// The thread that polls could not be started, or died.
    #[error("the thread that polls Kafka {0}")]
    Thread(String),
    /// The journal did not answer what was needed.
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
    /// The broker did not answer in time.
    #[error("Kafka did not answer: {0}")]
    NoAnswer(String),
    /// Of one topic: it may not be there, or not be ours to write to.
    #[error("the topic {topic} takes nothing: {error}")]
    Topic {
        /// Its name.
        topic: String,
        /// What the broker says.
        error: Box<Self>,
    },
    /// The broker took a record for a repeat and did not say where the first one is.
    #[error("Kafka did not say where it put a record, which may be lost: send it again, a repeat does no harm")]
    Unplaced,
}
