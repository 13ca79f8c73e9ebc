//! Looks each registered credential up once: a typo alarms now, not at the task's end.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use super::{AGAIN_MS, AT_ONCE, BATCH, limiter};
use crate::case::record::{FailureKind, Observation, Presence};
use crate::clock;
use crate::connector::{Registry, Subject};
use crate::intake::Intake;
use crate::journal;
use crate::metrics::Alarm;
use crate::task::Credential;

/// Looks registered credentials up, once each.
pub struct Registrar {
    intake: Intake,
    registry: Arc<Registry>,
    clock: clock::Shared,
    limit: DefaultDirectRateLimiter,
    per_second: u32,
    realm: Option<String>,
}

impl Registrar {
    /// Of all realms, with at most `per_second` look-ups (50 is a good start).
    pub fn new(intake: Intake, registry: Arc<Registry>, per_second: u32) -> Self {
        Self {
            clock: intake.clock.clone(),
            intake,
            registry,
            limit: limiter(per_second),
            per_second: per_second.max(1),
            realm: None,
        }
    }

    /// Of one realm: where processes serve realms apart, none may take from another what it cannot look up itself.
    #[must_use]
    pub fn of_realm(mut self, realm: &str) -> Self {
        self.realm = Some(realm.to_owned());
        self
    }

    /// Looks until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let rounds = async {
            loop {
                match self.tick().await {
                    Ok(0) => tokio::time::sleep(Duration::from_millis(500)).await,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "look-ups wait for the journal");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        };
        tokio::select! { () = cancel.cancelled() => {}, () = rounds => {} }
    }

    /// One round; returns how many were looked up.
    ///
    /// # Errors
    /// The journal's.
    pub async fn tick(&self) -> Result<usize, journal::Error> {
        let most = usize::try_from(self.per_second).unwrap_or(BATCH).min(BATCH);
        let unseen = self.intake.journal.unseen(self.realm.as_deref(), most, self.clock.wall_ms()).await?;
        let looked = unseen.len();
        let mut looks = futures::stream::iter(unseen)
            .map(|credential| async move {
                self.limit.until_ready().await;
                let seen = self.look(&credential).await;
                (credential, seen)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((credential, (seen, again_ms))) = looks.next().await {
            let over = credential.dead_ms.is_some() || credential.expires_ms.is_some_and(|at_ms| at_ms <= seen.at_ms);
            let gone = seen.presence == Presence::Gone && credential.seen_ms.is_none() && !over;
            if gone && !self.was_killed(&credential).await? {
                self.intake.metrics.alarm(Alarm::Typo);
                tracing::warn!(credential = %credential.id, "registered, but its issuer does not know it");
            }
            self.intake.journal.saw(&credential.tenant, &credential.id, seen, again_ms).await?;
        }
        Ok(looked)
    }

    /// Whether a case came between the list and the look: what it killed was no typo.
    async fn was_killed(&self, credential: &Credential) -> Result<bool, journal::Error> {
        let known = self.intake.journal.known(&credential.tenant, vec![credential.id.clone()]).await?;
        Ok(known.iter().any(|k| k.looks || k.credential.dead_ms.is_some() || k.credential.seen_ms.is_some()))
    }

    async fn look(&self, credential: &Credential) -> (Observation, Option<i64>) {
        let at_ms = self.clock.wall_ms();
        let unclear = Observation { at_ms, ..Observation::default() };
        // Not served here: another process may, or the next configuration; rarely asked again.
        let Some(connector) = self.registry.issuer(&credential.id) else {
            return (unclear, Some(at_ms + 3_600_000));
        };
        let subject = Subject {
            credential: credential.id.clone(),
            principal: credential.principal.clone(),
            seen: None,
            issuer: None,
            run: None,
            key: None,
            rotation: None,
            rescope: None,
            message: None,
            place: None,
        };
        match connector.observe(&subject).await {
            Ok(seen) if seen.presence == Presence::Unclear => (seen, Some(at_ms + AGAIN_MS)),
            Ok(seen) => (seen, None),
            // It never will be found there under this name: what a typo looks like where the path is at fault.
            Err(failure) if failure.kind == FailureKind::Refused => {
                self.intake.metrics.alarm(Alarm::Typo);
                tracing::warn!(credential = %credential.id, %failure, "registered, but it cannot be looked up");
                (unclear, Some(at_ms + 3_600_000))
            }
            Err(failure) => {
                tracing::debug!(credential = %credential.id, %failure, "the look-up is repeated");
                let after = match failure.kind {
                    FailureKind::Throttled { after_ms } => after_ms.unwrap_or(AGAIN_MS),
                    _ => AGAIN_MS,
                };
                (unclear, Some(at_ms + after))
            }
        }
    }
}
