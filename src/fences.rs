//! Fences end: what a case put a fence in the place of comes back when the offboarding's time is over.
//!
//! The journal has a row of each fence since before it was set, and until a case has given back what there was. Each round says
//! `fence.over` of those that have stood long enough, unless something is at work on the identity: a kill, a lost event or a case that
//! came to nothing is made good by the next round.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::intake::Intake;
use crate::journal::{Error, Filter};

/// How often fences are looked at.
pub const EVERY: Duration = Duration::from_secs(10);
/// Fences that are ended together.
const MOST: u32 = 100;

/// Looks again and again.
pub async fn run(intake: Intake, cancel: CancellationToken) {
    loop {
        if let Err(error) = tick(&intake).await {
            tracing::warn!(%error, "fences that are over wait for the journal");
        }
        tokio::select! { () = cancel.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
    }
}

/// One round. Returns how many fences are said to be over.
///
/// # Errors
/// The journal's.
pub async fn tick(intake: &Intake) -> Result<usize, Error> {
    let now_ms = intake.clock.wall_ms();
    let mut events = Vec::new();
    for fence in intake.journal.fences(now_ms, MOST).await? {
        let filter = Filter { credential: Some(fence.identity.clone()), limit: Some(1), ..Filter::default() };
        if intake.journal.cases(filter).await?.is_empty() {
            events.extend(Event::fence_over(&fence, now_ms));
        }
    }
    let said = events.len();
    if said > 0 {
        tracing::info!(said, "fences are over: what there was before comes back");
        intake.notice(events).await?;
    }
    Ok(said)
}
