//! Role `deadlines`: what time brings. One process at a time notices deadlines and silence, one the age of values, one
//! the end of fences, and one prunes.

use std::time::Duration;

use std::sync::Arc;

use curfew::ages::{Ages, Aging};
use curfew::config::Retention;
use curfew::deadlines::{ClockTrust, Deadlines, Settings};
use curfew::fences;
use curfew::journal::Old;
use tokio_util::sync::CancellationToken;

use crate::process::Process;

/// How often what is too old is deleted, and how many rows at a time.
const PRUNE: (Duration, usize) = (Duration::from_secs(600), 1_000);

/// Notices what no producer said, and deletes what was kept long enough.
pub fn start(process: &Process) {
    let this = process.clone();
    process.lead("deadlines", move |cancel| {
        let config = &this.config;
        let settings = Settings {
            grace_ms: config.grace_ms,
            kafka: config.kafka.is_some(),
            topics: Some(config.read()),
            ..Settings::default()
        };
        Deadlines::new(this.intake.clone(), settings, this.trust.clone()).run(cancel)
    });
    let aging = aging(process);
    if !aging.is_empty() {
        let this = process.clone();
        process
            .lead("ages", move |cancel| Ages::new(this.intake.clone(), aging.clone(), this.trust.clone()).run(cancel));
    }
    let this = process.clone();
    process.lead("fences", move |cancel| fences::run(this.intake.clone(), cancel));
    let this = process.clone();
    process.lead("prune", move |cancel| prune(this.clone(), cancel));
}

/// The recipes whose values may only become so old.
fn aging(process: &Process) -> Vec<Aging> {
    let config = &process.config;
    let aging = config.recipes.iter().filter_map(|recipe| {
        let tenant = config.tenant_of(&recipe.place.realm)?.clone();
        Some(Aging { tenant, max_age_ms: recipe.max_age_ms?, recipe: Arc::new(recipe.clone()) })
    });
    aging.collect()
}

/// What was kept long enough. Nothing while the clock is not believed: by one that is ahead, all was.
fn old(trust: &ClockTrust, now_ms: i64, retention: Retention) -> Option<Old> {
    trust.check().then_some(Old {
        seen_ms: now_ms - retention.seen_ms,
        events_ms: now_ms - retention.events_ms,
        closed_ms: now_ms - retention.closed_ms,
    })
}

/// Deletes what is older than it must be kept, a little at a time.
async fn prune(process: Process, cancel: CancellationToken) {
    let (journal, retention) = (process.intake.journal.clone(), process.config.retention);
    loop {
        tokio::select! { () = cancel.cancelled() => return, () = tokio::time::sleep(PRUNE.0) => {} }
        let now_ms = process.clock.wall_ms();
        let Some(old) = old(&process.trust, now_ms, retention) else { continue };
        loop {
            match journal.prune(old, PRUNE.1).await {
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

#[cfg(test)]
mod tests {
    use curfew::clock::{Clock as _, Simulated};

    use super::*;

    #[test]
    fn by_a_clock_that_stepped_nothing_is_old() {
        let clock = Simulated::at(1_800_000_000_000);
        let trust = ClockTrust::new(clock.clone());
        let retention = Retention { seen_ms: 3_000, events_ms: 2_000, closed_ms: 1_000 };
        let kept = |old: Old| (old.seen_ms, old.events_ms, old.closed_ms);
        clock.advance_ms(86_400_000);
        let now_ms = clock.wall_ms();
        let all = Some((now_ms - 3_000, now_ms - 2_000, now_ms - 1_000));
        assert_eq!(old(&trust, now_ms, retention).map(kept), all);
        clock.step_wall_ms(400 * 86_400_000);
        assert_eq!(old(&trust, clock.wall_ms(), retention).map(kept), None);
    }
}
