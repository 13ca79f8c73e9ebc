//! Role `intake`: events from Kafka into the journal.

use std::time::Duration;

use curfew::config::Kafka;
use curfew::kafka::consumer;
use curfew::kafka::settings::{Connection, Settings, Topic};
use curfew::relay;

use crate::Failed;
use crate::process::Process;

/// How often a process that does not publish looks how much waits to be published.
const LOOK: Duration = Duration::from_secs(1);

/// Where the broker is.
pub fn connection(kafka: &Kafka) -> Result<Connection, Failed> {
    let connection = Connection { brokers: kafka.brokers.clone(), properties: kafka.properties.0.clone() };
    connection.check().map_err(anyhow::Error::from)?;
    Ok(connection)
}

/// Reads the configured topics. Without Kafka there is nothing to read: HTTP is of the role `serve`.
pub fn start(process: &Process, relays: bool) -> Result<(), Failed> {
    let (config, tasks) = (&process.config, &process.tasks);
    let Some(kafka) = &config.kafka else { return Ok(()) };
    let topics = config.published().map(|(name, topic)| Topic {
        name: name.as_str().into(),
        tenant: topic.tenant.clone(),
        format: topic.format,
    });
    let mut settings = Settings::new(connection(kafka)?, &kafka.group, topics.collect());
    settings.backlog = config.limits.outbox;
    let backlog = process.backlog.clone();
    tasks.spawn_fallible(
        "kafka",
        consumer::run(process.intake.clone(), settings, backlog.clone(), tasks.cancel.clone()),
    );
    if !relays {
        let (journal, cancel) = (process.intake.journal.clone(), tasks.cancel.clone());
        tasks.spawn("backlog", async move {
            while !cancel.is_cancelled() {
                if let Err(error) = relay::look(&*journal, &backlog).await {
                    tracing::warn!(%error, "how much waits to be published is not known");
                }
                tokio::select! { () = cancel.cancelled() => {} () = tokio::time::sleep(LOOK) => {} }
            }
        });
    }
    Ok(())
}
