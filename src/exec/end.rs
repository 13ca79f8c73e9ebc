//! The end: revoked here, told to Curfew, and said what is left.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::child::Signals;
use super::say::Left;
use super::{Exec, Have};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::tell;

/// Between two tries at the end: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

impl Exec<'_> {
    /// Revokes, and tells Curfew; each is tried for itself, for a bounded time. Answers what is left.
    pub(super) async fn end(&self, outcome: &str, have: &mut Have, signals: &mut Signals) -> Left {
        // Files first: what is in them is about to be worth nothing.
        have.folder = None;
        let ended_ms = self.clock.wall_ms();
        let message = self.plan.run.ended(ended_ms, outcome, &have.held);
        let patient = self.plan.end_within;
        let hurry = CancellationToken::new();
        let revoke = async {
            let Some(token) = &have.token else { return Ok(()) };
            let again = |failure: &Failure| !matches!(failure.kind, FailureKind::Denied | FailureKind::Refused);
            tries(patient, &hurry, again, || self.issuer.end(token)).await.map_err(|failure| failure.note)
        };
        let tell = async {
            let Ok(teller) = &self.teller else { return Err("it was never told of the task".to_owned()) };
            if !have.told {
                return Err("it was never told of the task".to_owned());
            }
            // Where not even the start came through, one more try is enough.
            let patient = if have.registered { patient } else { Duration::ZERO };
            let again = |error: &tell::Error| matches!(error, tell::Error::Unavailable(_));
            let told = tries(patient, &hurry, again, || teller.tell(std::slice::from_ref(&message))).await;
            told.map_err(|error| error.to_string())
        };
        let both = async { tokio::join!(revoke, tell) };
        tokio::pin!(both);
        let (revoked, told) = loop {
            tokio::select! {
                done = &mut both => break done,
                (_, name) = signals.ending(), if !hurry.is_cancelled() => {
                    (self.say)(&format!("{name}: the end is tried no longer"));
                    hurry.cancel();
                }
            }
        };
        Left {
            credentials: have.held.clone(),
            has_token: have.token.is_some(),
            revoked: revoked.err(),
            told: told.err(),
            registered: have.registered,
            dies_ms: have.dies_ms,
        }
    }
}

/// Tries for `patient`, or until somebody is in a hurry; at least once.
async fn tries<E>(
    patient: Duration,
    hurry: &CancellationToken,
    again: impl Fn(&E) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<(), E>,
) -> Result<(), E> {
    let until = Instant::now() + patient;
    let mut pause = AGAIN.0;
    loop {
        let error = match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !again(&error) || hurry.is_cancelled() || Instant::now() + pause > until {
            return Err(error);
        }
        tokio::select! { () = sleep(pause) => {}, () = hurry.cancelled() => {} }
        pause = (pause * 2).min(AGAIN.1);
    }
}
