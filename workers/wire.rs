//! From the configuration to the parts that act and that notice.

use std::sync::Arc;
use std::time::Duration;

use curfew::config::Config;
use curfew::connector::Registry;
use curfew::deadlines::{self, ClockTrust, Deadlines};
use curfew::executor::{Executor, Parts, Settings};
use curfew::intake::Intake;
use curfew::ops::freeze_file;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often what is too old is deleted, and how many rows at a time.
const PRUNE: (Duration, usize) = (Duration::from_secs(600), 1_000);

/// What claims due cases and works on them.
pub fn executor(
    config: &Config,
    intake: &Intake,
    worker: Uuid,
    registry: Arc<Registry>,
    trust: Arc<ClockTrust>,
    outbox: Arc<Notify>,
) -> Executor {
    let freeze = freeze_file::path_of(&config.journal);
    let settings = Settings {
        concurrency: config.limits.concurrency,
        per_system: config.limits.per_system,
        calls_per_system: config.limits.calls_per_system,
        budgets: config.budgets(),
        claim_lease_ms: config.limits.claim_lease_ms,
        effects_per_minute: config.limits.effects_per_minute,
        retry: config.retry,
        authority: config.authorities(),
        protected: config.protected.clone(),
        ..Settings::default()
    };
    Executor::new(Parts {
        worker,
        journal: intake.journal.clone(),
        registry,
        settings: Arc::new(settings),
        clock: intake.clock.clone(),
        clock_trusted: Arc::new(move || trust.check()),
        freeze_file: Arc::new(move || freeze_file::read(&freeze).map(|note| note.how)),
        metrics: intake.metrics.clone(),
        stirred: intake.stirred.clone(),
        outbox,
    })
}

/// What notices deadlines and silence.
pub fn deadlines(config: &Config, intake: &Intake, trust: Arc<ClockTrust>) -> Deadlines {
    let settings = deadlines::Settings {
        grace_ms: config.grace_ms,
        kafka: config.kafka.is_some(),
        ..deadlines::Settings::default()
    };
    Deadlines::new(intake.clone(), settings, trust)
}

/// Deletes what is older than it must be kept, a little at a time.
pub async fn prune(config: Arc<Config>, intake: Intake, cancel: CancellationToken) {
    loop {
        tokio::select! { () = cancel.cancelled() => return, () = tokio::time::sleep(PRUNE.0) => {} }
        let now_ms = intake.clock.wall_ms();
        let (seen, closed) = (now_ms - config.retention.seen_ms, now_ms - config.retention.closed_ms);
        loop {
            match intake.journal.prune(seen, closed, PRUNE.1).await {
                Ok(0) => break,
                Ok(rows) => tracing::debug!(rows, "pruned"),
                Err(error) => {
                    tracing::warn!(%error, "cannot prune");
                    break;
                }
            }
            if cancel.is_cancelled() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
