//! What a look at the issuer proves, with the control that shows that the path works.

use super::Vault;
use crate::case::record::{Answer, Level, Observation, Presence, Sighting};
use crate::connector::{Failure, Subject};

impl Vault {
    /// The sighting of `look` at `subject`. Absence counts where the issuer answers and the credential was seen on this
    /// path before; else where `stranger`, a control that needs no earlier look, holds.
    pub(super) async fn sight(
        &self,
        subject: &Subject,
        look: impl Future<Output = Result<Observation, Failure>> + Send,
        stranger: impl Future<Output = bool> + Send,
    ) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let (answer, request_id) = match self.bounded(false, look).await {
            Ok(seen) => match seen.presence {
                Presence::Gone => (Answer::Refused, seen.request_id),
                Presence::Present => (Answer::Accepted, seen.request_id),
                Presence::Unclear => (Answer::Unknown, seen.request_id),
            },
            Err(_) => (Answer::Unknown, None),
        };
        let control =
            answer == Answer::Refused && if seen_before(subject) { self.is_active().await } else { stranger.await };
        Sighting { level: Level::Issuer, answer, at_ms, control, residue: Vec::new(), request_id }
    }

    /// The sighting of a look that says all of it: answer, control, level.
    pub(super) async fn sighted(
        &self,
        look: impl Future<Output = Result<(Answer, bool, Level), Failure>> + Send,
    ) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let seen = self.bounded(false, look).await;
        let (answer, control, level) = seen.unwrap_or((Answer::Unknown, false, Level::Target));
        Sighting { level, answer, at_ms, control, residue: Vec::new(), request_id: None }
    }

    /// Of a store: it uses no value, so it cannot say whether one works.
    pub(super) fn unsighted(&self) -> Sighting {
        let (level, answer, at_ms) = (Level::Issuer, Answer::Unknown, self.clock.wall_ms());
        Sighting { level, answer, at_ms, control: false, residue: Vec::new(), request_id: None }
    }
}

/// Whether this case has seen the credential on this path before: then its absence means something.
fn seen_before(subject: &Subject) -> bool {
    [&subject.seen, &subject.issuer].into_iter().flatten().any(|seen| seen.presence == Presence::Present)
}
