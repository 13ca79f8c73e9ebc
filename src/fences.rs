//! Fences end: what a case put a fence in the place of comes back when the offboarding's time is over.
//!
//! The journal has a row of each fence since before it was set, and until a case has given back what there was. Each round says
//! `fence.over` of those that have stood long enough, unless something is at work on the identity: a kill, a lost event or a case that
//! came to nothing is made good by the next round.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::credential::CredentialId;
use crate::event::Event;
use crate::intake::Intake;
use crate::journal::{Error, Filter};
use crate::offboard;
use crate::scope::Fence;

/// How often fences are looked at.
pub const EVERY: Duration = Duration::from_secs(10);
/// Fences that are ended together.
const MOST: usize = 100;

/// Looks again and again.
pub async fn run(intake: Intake, cancel: CancellationToken) {
    loop {
        if let Err(error) = tick(&intake).await {
            tracing::warn!(%error, "fences that are over wait for the journal");
        }
        tokio::select! { () = cancel.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
    }
}

/// Those that are over, the earliest first. Where another case's fence of the same identity stands longer, that one's end counts for
/// both: what an earlier one found there must not come back under it.
fn over(all: &[Fence], now_ms: i64) -> impl Iterator<Item = &Fence> {
    let mut last: BTreeMap<(&str, &CredentialId), i64> = BTreeMap::new();
    for fence in all {
        let until_ms = last.entry((&fence.tenant, &fence.identity)).or_insert(fence.until_ms);
        *until_ms = fence.until_ms.max(*until_ms);
    }
    let is_last = move |fence: &&Fence| last.get(&(fence.tenant.as_str(), &fence.identity)) == Some(&fence.until_ms);
    all.iter().filter(move |fence| fence.until_ms <= now_ms).filter(is_last)
}

/// One round; none while the clock is not believed. Returns how many fences are said to be over.
///
/// # Errors
/// The journal's.
pub async fn tick(intake: &Intake) -> Result<usize, Error> {
    if !intake.believes_clock() {
        return Ok(0);
    }
    let now_ms = intake.clock.wall_ms();
    if intake.journal.fences(now_ms, 1).await?.is_empty() {
        return Ok(0);
    }
    let all = intake.journal.fences(i64::MAX, offboard::MOST).await?;
    let mut events = Vec::new();
    // Those that something is at work on keep no others waiting.
    for fence in over(&all, now_ms) {
        if events.len() >= MOST {
            break;
        }
        let filter = Filter { credential: Some(fence.identity.clone()), limit: Some(1), ..Filter::default() };
        if intake.journal.cases(filter).await?.is_empty() {
            events.extend(Event::fence_over(fence, now_ms));
        }
    }
    let said = events.len();
    if said > 0 {
        tracing::info!(said, "fences are over: what there was before comes back");
        intake.notice(events).await?;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Kind;

    #[test]
    fn a_fence_of_the_same_identity_that_stands_longer_is_waited_for() {
        let fence = |no: u128, tenant: &str, name: &str, until_ms| Fence {
            tenant: tenant.to_owned(),
            case: uuid::Uuid::from_u128(no),
            identity: CredentialId::new(Kind::AwsUser, "aws", name).unwrap(),
            until_ms,
            held: Vec::new(),
        };
        let mut all = vec![fence(1, "a", "ci/bot", 5), fence(2, "a", "ci/bob", 6), fence(3, "a", "ci/bot", 9)];
        let said = |all: &[Fence], now_ms| over(all, now_ms).map(|one| one.case.as_u128()).collect::<Vec<_>>();
        assert_eq!(said(&all, 7), [2], "another case's stands until 9");
        assert_eq!(said(&all, 9), [2, 3], "and is taken off first");
        all.remove(2);
        assert_eq!(said(&all, 9), [1, 2]);
        all.push(fence(4, "b", "ci/bot", 99));
        assert_eq!(said(&all, 9), [1, 2], "another tenant's is another's");
    }
}
