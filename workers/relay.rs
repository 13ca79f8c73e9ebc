//! Role `relay`: what waits in the outbox leaves. One process at a time.

use std::sync::Arc;
use std::time::Duration;

use curfew::relay::{NullRelay, Relay, Topics};

use crate::process::Process;
use crate::{Failed, intake};

/// Looks whether this journal is older than what was published from it. Before anything is written to it: later its own
/// new rows would hide the gap.
pub async fn hold_if_older(process: &Process) -> Result<(), Failed> {
    let Some(relay) = relay(process)? else { return Ok(()) };
    while let Err(error) = relay.hold_if_older().await {
        tracing::warn!(%error, "the start waits until it is known whether this journal is the newest");
        tokio::select! {
            () = process.tasks.cancel.cancelled() => break,
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
    Ok(())
}

/// Publishes; without Kafka the rows are only marked as sent.
pub fn start(process: &Process) -> Result<(), Failed> {
    let (journal, outbox, backlog) = (process.intake.journal.clone(), process.outbox.clone(), process.backlog.clone());
    match relay(process)? {
        Some(relay) => {
            let (relay, tasks) = (Arc::new(relay), process.tasks.clone());
            process.lead("relay", move |cancel| {
                let (relay, tasks) = (relay.clone(), tasks.clone());
                async move {
                    if let Err(error) = relay.run(cancel).await {
                        tasks.fail(format!("relay: {error}"));
                    }
                }
            });
        }
        None => {
            let relay = Arc::new(NullRelay::new(journal, outbox, backlog));
            process.lead("relay", move |cancel| {
                let relay = relay.clone();
                async move { relay.run(cancel).await }
            });
        }
    }
    Ok(())
}

fn relay(process: &Process) -> Result<Option<Relay>, Failed> {
    let Some(kafka) = &process.config.kafka else { return Ok(None) };
    let publish = &process.config.publish;
    let topics = Topics {
        outcomes: publish.outcomes.clone(),
        states: publish.states.clone(),
        rotated: publish.rotated.clone(),
        rejected: publish.rejected.clone(),
    };
    let (journal, outbox, backlog) = (process.intake.journal.clone(), process.outbox.clone(), process.backlog.clone());
    Ok(Some(Relay::new(journal, intake::connection(kafka)?, topics, outbox, backlog)))
}
