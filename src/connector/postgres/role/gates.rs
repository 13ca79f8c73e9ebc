//! Whether a rotation may go on: the candidate works and is worth as much, consumers have left the old value.

use super::sessions::{IN_USE, Scope};
use super::{PostgresRole, VERSION, of_store, recorded, refused, rights};
use crate::case::record::FailureKind;
use crate::connector::postgres::answers::Login;
use crate::connector::recipe::Rotation;
use crate::connector::{Failure, Gate, Subject};

/// How often it is looked whether consumers have left the old value.
const ADOPTION_MS: i64 = 5_000;
/// What decides how a login works at all, and no agent's needs can name.
const UNSAID: [&str; 4] = ["settings", "attributes", "grants on databases", "row policies"];
/// How often it is looked whether an agent has come: others wait for their turn.
const MOVED_MS: i64 = 1_000;

impl PostgresRole {
    pub(super) async fn test(&self, subject: &Subject, rotation: &Rotation) -> Result<Gate, Failure> {
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let users = &rotation.recipe.users;
        // Whose turn it was, who makes the values says: of two users each in its turn.
        let named = candidate.user.as_deref().filter(|user| rotation.mints() && users.names().contains(user));
        let Some(user) = named.or(rotation.new_user()) else { return refused("it is not known whose turn it is") };
        let Some(role) = self.role(subject, users, user).await? else { return refused("there is no such role") };
        // What an agent is known to need it was given. Else it is to lack nothing, nor what nobody can say that it needs.
        let is_narrower = rotation.share.as_ref().is_some_and(|share| share.needs.is_some());
        if let Some(old) = rotation.old_user().filter(|_| users.overlap())
            && let Some(old) = self.role(subject, users, old).await?
        {
            let version = self.bounded(false, sqlx::query_scalar(VERSION).fetch_one(&self.pool)).await?;
            let mut lacking = self.bounded(false, rights::lacking(&self.pool, version, old.oid, role.oid)).await?;
            lacking.retain(|(what, _)| !is_narrower || UNSAID.contains(&what.as_str()));
            if !lacking.is_empty() {
                return refused(&rights::told(&lacking));
            }
        }
        match self.log_in(user, &candidate.value, "curfew-test").await {
            // Read after the login: the value was set before, so who is in by then may be in with the old one.
            Login::In if rotation.mints() => Ok(Gate::Cut { ms: self.server_ms().await? }),
            Login::In => Ok(Gate::Open),
            Login::Refused => Err(Failure::new(FailureKind::Rejected, "the login with the candidate is refused")),
            Login::Shut if self.is_shut(subject, users, user).await? => {
                // Who sets the password here does not open the login as well.
                if rotation.mints() {
                    return refused("the user cannot log in, and another password will not change that");
                }
                Err(Failure::new(FailureKind::Rejected, "the user of the candidate cannot log in"))
            }
            Login::Shut | Login::Unclear => {
                Err(Failure::new(FailureKind::Unavailable, "the login with the candidate says nothing of it"))
            }
        }
    }

    /// What PostgreSQL shows of adoption: consumers that took the new value have no session of the old one.
    pub(super) async fn adopted(&self, subject: &Subject, rotation: &Rotation) -> Result<Gate, Failure> {
        if rotation.splits {
            return self.moved(subject, rotation).await;
        }
        let Some(user) = rotation.old_user() else { return refused("it is not known who has the old value") };
        let users = &rotation.recipe.users;
        let role = self.role(subject, users, user).await?;
        let scope = Scope::of(rotation, user, role.as_ref());
        let Some(oid) = recorded(subject, users, user).or(role.map(|role| role.oid)) else { return Ok(Gate::Open) };
        let open = self.open(oid, scope).await?;
        if open.sessions + open.unseen == 0 {
            return Ok(Gate::Open);
        }
        let now_ms = self.clock.wall_ms();
        let left_ms = rotation.recipe.adoption.within_ms.saturating_sub(rotation.turn.had_ms(now_ms, open.now_ms));
        if left_ms <= 0 {
            return Ok(Gate::Late);
        }
        Ok(Gate::Shut { again_ms: now_ms.saturating_add(left_ms.min(ADOPTION_MS)) })
    }

    /// Of a split: its agent is seen as its own user, whose password nobody else has; in the end nobody is the shared one.
    async fn moved(&self, subject: &Subject, rotation: &Rotation) -> Result<Gate, Failure> {
        let users = &rotation.recipe.users;
        let is_one = rotation.share.is_some();
        let user = if is_one { rotation.new_user() } else { rotation.old_user() };
        let Some(user) = user else { return refused("it is not known who is moved") };
        let Some(role) = self.role(subject, users, user).await? else {
            return if is_one { refused("there is no such role") } else { Ok(Gate::Open) };
        };
        let sessions = sqlx::query_scalar::<_, i64>(IN_USE).bind(role.oid).fetch_one(&self.pool);
        let in_use = self.bounded(false, sessions).await? > 0;
        if in_use == is_one {
            return Ok(Gate::Open);
        }
        let (since_ms, now_ms) = (rotation.turn.promoted_ms.unwrap_or(rotation.since_ms), self.clock.wall_ms());
        let left_ms = since_ms.saturating_add(rotation.recipe.adoption.within_ms).saturating_sub(now_ms);
        if left_ms <= 0 {
            return Ok(Gate::Late);
        }
        Ok(Gate::Shut { again_ms: now_ms.saturating_add(left_ms.min(MOVED_MS)) })
    }
}
