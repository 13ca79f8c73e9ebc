//! What an operator sets for Kafka, and which librdkafka properties are Curfew's own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::event::Format;
use crate::task::Tenant;

/// Properties that carry a promise: where reading starts, when an offset counts, how partitions change hands.
pub const OURS: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "auto.commit.enable",
    "auto.offset.reset",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "partition.assignment.strategy",
    "isolation.level",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "partitioner",
];

/// Another name that librdkafka has for a property with a default of ours, and the name that we use. Set by both names,
/// which one wins is undecided: they are kept in no order.
const ALIASES: &[(&str, &str)] =
    &[("max.partition.fetch.bytes", "fetch.message.max.bytes"), ("queue.buffering.max.ms", "linger.ms")];

/// How a broker is reached; shared by everything that talks to it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Any other librdkafka property: SASL, TLS, buffers.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Connection").field("brokers", &self.brokers).field("properties", &names).finish()
    }
}

impl Connection {
    /// Plain text, no properties.
    pub fn plain(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), properties: BTreeMap::new() }
    }

    /// # Errors
    /// Names the first property that is Curfew's own.
    pub fn check(&self) -> Result<(), Error> {
        match self.properties.keys().find(|name| OURS.contains(&name.as_str())) {
            Some(name) => Err(Error::Ours(name.clone())),
            None => Ok(()),
        }
    }

    fn base(&self, defaults: &[(&str, &str)]) -> Result<ClientConfig, Error> {
        self.check()?;
        let mut config = ClientConfig::new();
        config.set("client.id", "curfew");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            let ours = ALIASES.iter().find(|(alias, _)| alias == name).map_or(name.as_str(), |(_, ours)| ours);
            config.set(ours, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        Ok(config)
    }

    /// The configuration of a group member.
    ///
    /// # Errors
    /// A property is Curfew's own.
    pub fn member(&self, group: &str) -> Result<ClientConfig, Error> {
        // Each partition has a queue, and these count for each: memory stays bounded with many of them. While what one has
        // fetched lasts, a fetch may wait at the broker for another that has nothing; so that wait must end before it is
        // used up. A short back-off, because a full queue would otherwise stall fetching for a second. A record larger
        // than a fetch comes alone.
        let mut config = self.base(&[
            ("queued.min.messages", "1000"),
            ("queued.max.messages.kbytes", "1024"),
            ("fetch.message.max.bytes", "131072"),
            ("fetch.max.bytes", "8388608"),
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.wait.max.ms", "50"),
            // A topic that was deleted and made again is found within seconds, not minutes.
            ("topic.metadata.refresh.interval.ms", "10000"),
        ])?;
        config.set("group.id", group);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("isolation.level", "read_committed");
        if self.properties.get("group.protocol").is_none_or(|protocol| protocol == "classic") {
            config.set("partition.assignment.strategy", "cooperative-sticky");
            // After a kill the group waits for the dead member's session: the default of 45 s is long for a task's end.
            // KIP-848 has it at the broker, and refuses it here.
            if !self.properties.contains_key("session.timeout.ms") {
                config.set("session.timeout.ms", "10000");
            }
        }
        Ok(config)
    }

    /// The configuration of a client that only looks: no group, nothing is committed.
    ///
    /// # Errors
    /// A property is Curfew's own.
    pub fn reader(&self) -> Result<ClientConfig, Error> {
        let mut config = self.base(&[("fetch.wait.max.ms", "10"), ("queued.min.messages", "1")])?;
        for name in ["group.instance.id", "group.protocol", "session.timeout.ms", "group.remote.assignor"] {
            config.remove(name);
        }
        // librdkafka asks for a group even where none is joined: this one is never joined nor committed to.
        config.set("group.id", "curfew-looks");
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("isolation.level", "read_committed");
        Ok(config)
    }

    /// As [`Self::reader`], for a client that asks where a log ends, open transactions and all. To one that reads what is committed,
    /// the broker answers with the last stable offset: what an open transaction holds back would count as read.
    ///
    /// # Errors
    /// A property is Curfew's own.
    pub fn end_reader(&self) -> Result<ClientConfig, Error> {
        let mut config = self.reader()?;
        config.set("isolation.level", "read_uncommitted");
        Ok(config)
    }

    /// The configuration of a producer: idempotent, and with Java's partitioner, so that keys land where others expect.
    ///
    /// # Errors
    /// A property is Curfew's own.
    pub fn producer(&self) -> Result<ClientConfig, Error> {
        let mut config = self.base(&[("linger.ms", "2"), ("queue.buffering.max.kbytes", "65536")])?;
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config.set("partitioner", "murmur2_random");
        Ok(config)
    }
}

/// A topic that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Whose events it carries: from here, never from the payload.
    pub tenant: Tenant,
    /// What its records are; from here as well.
    #[serde(default)]
    pub format: Format,
}

/// Where a partition starts that neither the journal nor Kafka knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstStart {
    /// At its first record.
    #[default]
    Earliest,
    /// At its end.
    Latest,
}

/// What the consumer needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The brokers.
    pub connection: Connection,
    /// The consumer group.
    pub group: String,
    /// What is read.
    pub topics: Vec<Topic>,
    /// Where a partition starts that nobody knows.
    pub first_start: FirstStart,
    /// Records in one batch at most. One commit is paid for many, and whoever else writes waits for all of them.
    pub batch: usize,
    /// Bytes of values in one batch at most.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more.
    pub linger_ms: u64,
    /// Unpublished outbox rows above which intake pauses.
    pub backlog: i64,
}

impl Settings {
    /// The defaults for `topics`.
    pub fn new(connection: Connection, group: impl Into<String>, topics: Vec<Topic>) -> Self {
        Self {
            connection,
            group: group.into(),
            topics,
            first_start: FirstStart::Earliest,
            batch: 250,
            batch_bytes: 8 * 1024 * 1024,
            linger_ms: 1,
            backlog: 100_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_properties_are_refused() {
        for name in OURS {
            let mut connection = Connection::plain("localhost:9092");
            connection.properties.insert((*name).into(), "x".into());
            assert!(matches!(connection.member("g"), Err(Error::Ours(found)) if found == *name));
            assert!(connection.producer().is_err() && connection.reader().is_err());
        }
    }

    #[test]
    fn an_alias_replaces_our_default() {
        let mut connection = Connection::plain("localhost:9092");
        assert!(connection.member("g").unwrap().get("fetch.message.max.bytes").is_some());
        assert!(connection.producer().unwrap().get("linger.ms").is_some());
        for (alias, _) in ALIASES {
            connection.properties.insert((*alias).into(), "77777".into());
        }
        let (member, producer) = (connection.member("g").unwrap(), connection.producer().unwrap());
        assert_eq!(member.get("fetch.message.max.bytes"), Some("77777"));
        assert_eq!(producer.get("linger.ms"), Some("77777"));
        for (alias, _) in ALIASES {
            assert!(member.get(alias).is_none() && producer.get(alias).is_none(), "{alias} is not set a second time");
        }
    }

    #[test]
    fn others_pass_and_are_not_shown() {
        let mut connection = Connection::plain("localhost:9092");
        connection.properties.insert("sasl.password".into(), "hunter2".into());
        connection.properties.insert("queued.min.messages".into(), "7".into());
        let config = connection.member("g").unwrap();
        assert_eq!(config.get("sasl.password"), Some("hunter2"));
        assert_eq!(config.get("queued.min.messages"), Some("7"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert!(!format!("{connection:?}").contains("hunter2"));
    }
}
