//! `postgres-role`: users of a PostgreSQL whose password is stored and rotated. A value is dead when a login with it is
//! refused, and no session is left that was opened with it.
//!
//! PostgreSQL gets a SCRAM verifier, never a value. A new password and the right to log in are one statement, so there is
//! no instant at which an old value works again. Sessions live on when a password changes: those count as the old
//! value's that began before the new one was set, by the server's clock. Before the promotion nobody knows the new value
//! but our own test, so the clock is read after it was set, not before.
//!
//! Superusers, users that make users (another administrator, a break-glass login), roles that PostgreSQL brings, and our
//! own are protected. Users that replicate or bypass row security are workloads like any other: where we may not alter
//! them, PostgreSQL says so. What our role needs: `deploy/postgres/`.

mod effects;
mod gates;
mod proof;
mod rights;
mod sessions;
mod value;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{Connection as _, Error};

use super::answers::{self, Login};
use super::{BY_NAME, BY_OID, PostgresSettings, SELF, VERSION, bounded};
use crate::case::plan::Act;
use crate::case::record::{FailureKind, Observation, Output, Presence, Sighting};
use crate::clock;
use crate::connector::recipe::{Users, of_store};
use crate::connector::turns::{going, with_left};
use crate::connector::vault::ConnectError;
use crate::connector::{Connector, Failure, Gate, Subject, within};
use crate::probe::Settle;

/// The users of one PostgreSQL.
struct PostgresRole {
    target: String,
    timeout: Duration,
    pool: PgPool,
    /// Where others log in as well.
    options: PgConnectOptions,
    clock: clock::Shared,
}

/// Makes a target's connector. Connections are opened when they are needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &PostgresSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    let timeout = Duration::from_millis(settings.timeout_ms);
    let options = super::options(settings).await?;
    let pool = super::pool(options.clone(), timeout);
    Ok(Arc::new(PostgresRole { target: target.to_owned(), timeout, pool, options, clock }))
}

/// A role, as `pg_roles` shows it.
struct Role {
    oid: i64,
    name: String,
    can_log_in: bool,
    protected: bool,
}

fn refused<T>(note: &str) -> Result<T, Failure> {
    Err(Failure::new(FailureKind::Refused, note))
}

impl PostgresRole {
    async fn bounded<T>(
        &self,
        has_effect: bool,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Failure> {
        bounded(self.timeout, has_effect, call).await
    }

    /// The role by its recorded OID; by name only where none was ever recorded.
    async fn role(&self, subject: &Subject, users: &Users, name: &str) -> Result<Option<Role>, Failure> {
        let row = async {
            match recorded(subject, users, name) {
                Some(oid) => sqlx::query_as(BY_OID).bind(oid).fetch_optional(&self.pool).await,
                None => sqlx::query_as(BY_NAME).bind(name).fetch_optional(&self.pool).await,
            }
        };
        let row: Option<(i64, String, bool, bool)> = self.bounded(false, row).await?;
        let role = |(oid, name, can_log_in, protected)| Role { oid, name, can_log_in, protected };
        Ok(row.map(role))
    }

    /// Whether the name is another role's by now. That one is not ours to change before it was looked at, but whoever has
    /// the old value may log in as it: only a login says.
    async fn is_made_anew(&self, subject: &Subject, users: &Users, name: &str) -> Result<bool, Failure> {
        let row = sqlx::query_as(BY_NAME).bind(name).fetch_optional(&self.pool);
        let row: Option<(i64, String, bool, bool)> = self.bounded(false, row).await?;
        Ok(row.is_some_and(|(oid, ..)| recorded(subject, users, name).is_some_and(|recorded| recorded != oid)))
    }

    /// The role, where it is ours to change: it exists, under its name, and is not protected.
    async fn ours(&self, subject: &Subject, users: &Users, name: &str) -> Result<Role, Failure> {
        let Some(role) = self.role(subject, users, name).await? else {
            return Err(Failure::new(FailureKind::Gone, "the role is gone"));
        };
        if role.protected {
            return refused("our own role, or an administrator: never touched");
        }
        Ok(role)
    }

    /// Whether the role says that it cannot log in: a refusal that is no word on the password has other reasons as well.
    async fn is_shut(&self, subject: &Subject, users: &Users, user: &str) -> Result<bool, Failure> {
        Ok(self.role(subject, users, user).await?.is_none_or(|role| !role.can_log_in))
    }

    /// A login of its own with another password, at once closed again.
    async fn log_in(&self, user: &str, value: &SecretString, purpose: &str) -> Login {
        let options = self.options.clone().username(user).password(value.expose_secret()).application_name(purpose);
        match tokio::time::timeout(self.timeout, PgConnection::connect_with(&options)).await {
            Ok(Ok(connection)) => {
                // In it was, however the farewell goes.
                tokio::time::timeout(self.timeout, connection.close()).await.ok();
                Login::In
            }
            Ok(Err(error)) => answers::login(&error),
            Err(_) => Login::Unclear,
        }
    }
}

/// The OID that was recorded of `user`: those of all users are, in the recipe's order. `0`: there was no such role.
fn recorded(subject: &Subject, users: &Users, user: &str) -> Option<i64> {
    let place = users.names().iter().position(|name| *name == user)?;
    let ids = [&subject.seen, &subject.issuer].into_iter().flatten().find_map(|seen| seen.principal_id.as_deref())?;
    ids.split(',').nth(place)?.parse().ok().filter(|oid| *oid > 0)
}

#[async_trait]
impl Connector for PostgresRole {
    fn name(&self) -> &'static str {
        "postgres-role"
    }

    fn system(&self) -> &str {
        &self.target
    }

    fn call_timeout_ms(&self) -> i64 {
        i64::try_from(super::whole(self.timeout).as_millis()).unwrap_or(i64::MAX)
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    /// Present: at least one user is. The immutable id is that of the user whose value goes, among those of all users;
    /// none, where it is not there, or it is not known yet who that is and one is missing.
    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        let at_ms = self.clock.wall_ms();
        let Some(rotation) = &subject.rotation else { return refused("no recipe names its users") };
        let users = &rotation.recipe.users;
        let call = async {
            let mut roles = Vec::new();
            for name in users.names() {
                roles.push((name, self.role(subject, users, name).await?));
            }
            Ok(roles)
        };
        let roles = within(super::whole(self.timeout), FailureKind::Unavailable, call).await?;
        let ids: Vec<(&str, i64)> = roles
            .iter()
            .map(|(name, role)| {
                let oid = role.as_ref().map(|role| role.oid);
                (*name, recorded(subject, users, name).or(oid).unwrap_or_default())
            })
            .collect();
        let known = match rotation.old_user() {
            Some(old) => ids.iter().any(|(name, oid)| *name == old && *oid > 0),
            None => ids.iter().all(|(_, oid)| *oid > 0),
        };
        let ids: Vec<String> = ids.iter().map(|(_, oid)| oid.to_string()).collect();
        let some = roles.iter().any(|(_, role)| role.is_some());
        Ok(Observation {
            presence: if some { Presence::Present } else { Presence::Gone },
            at_ms,
            protected: roles.iter().filter_map(|(_, role)| role.as_ref()).any(|role| role.protected),
            principal_id: known.then(|| ids.join(",")),
            ..Observation::default()
        })
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let Some(rotation) = &subject.rotation else { return refused("no recipe names its users") };
        let call = async {
            match act {
                Act::Set => self.set(subject, rotation).await,
                Act::Disable => self.disable(subject, rotation).await,
                Act::Restore => self.restore(subject, rotation).await,
                Act::EndSessions => self.end_sessions(subject, rotation).await,
                _ => refused("this connector has no such step"),
            }
        };
        within(super::whole(self.timeout), FailureKind::Unknown, Box::pin(call)).await
    }

    async fn pass(&self, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        let Some(rotation) = &subject.rotation else { return refused("no recipe names its users") };
        let call = async {
            match act {
                Act::Test => self.test(subject, rotation).await,
                Act::Adopt => self.adopted(subject, rotation).await,
                _ => refused("this connector has no such gate"),
            }
        };
        within(super::whole(self.timeout), FailureKind::Unavailable, Box::pin(call)).await
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let call = Box::pin(self.sight(subject));
        let sight = within(super::whole(self.timeout), FailureKind::Unavailable, call).await;
        let proof::Sight { answer, control, residue, level } = sight.unwrap_or_default();
        Sighting { level, answer, at_ms, control, residue, request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        let look = sqlx::query_as::<_, (bool, bool, bool)>(SELF).fetch_one(&self.pool);
        match self.bounded(false, look).await? {
            (true, ..) => Ok(()),
            _ => Err(Failure::new(FailureKind::Denied, "our own role does not exist any more")),
        }
    }
}
