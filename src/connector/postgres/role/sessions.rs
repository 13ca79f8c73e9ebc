//! Which sessions of a user were opened with the old value, and whether they are left.

use super::{PostgresRole, Role};
use crate::connector::Failure;
use crate::connector::recipe::Rotation;
use crate::connector::turns::has_new;

/// Sessions of who logged in, whatever SET ROLE or SET SESSION AUTHORIZATION made of them since. When they began is NULL
/// for who may not see it. Workers that the server starts by itself have no login. With the server's clock, and how long a
/// login may take.
const SESSIONS: &str = "SELECT \
     count(*) FILTER (WHERE $2::bigint IS NULL OR extract(epoch FROM backend_start) * 1000 < $2), \
     count(*) FILTER (WHERE $2::bigint IS NOT NULL AND backend_start IS NULL), \
     (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint, \
     (SELECT setting::bigint * 1000 FROM pg_catalog.pg_settings WHERE name = 'authentication_timeout') \
     FROM pg_catalog.pg_stat_activity WHERE usesysid = $1::bigint::oid \
     AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')";
pub(super) const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
     WHERE usesysid = $1::bigint::oid AND pid <> pg_catalog.pg_backend_pid() \
     AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender') \
     AND ($2::bigint IS NULL OR extract(epoch FROM backend_start) * 1000 < $2)";
/// Of all sessions but our own logins, which may be closing.
pub(super) const IN_USE: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1::bigint::oid \
     AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender') \
     AND coalesce(application_name, '') NOT IN ('curfew-test', 'curfew-probe')";

/// Which sessions of a user were opened with the old value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Those that began before this time of the server's clock.
    Before(i64),
    Nothing,
}

impl Scope {
    /// Of `user`, who has this row now, if any.
    pub(super) fn of(rotation: &Rotation, user: &str, role: Option<&Role>) -> Self {
        match rotation.turn.set_ms {
            _ if role.is_none_or(|role| !role.can_log_in) || !has_new(rotation, user) => Self::All,
            Some(set_ms) => Self::Before(set_ms),
            None if rotation.contains => Self::All,
            None => Self::Nothing,
        }
    }
}

/// What is open of a scope.
pub(super) struct Open {
    pub(super) sessions: i64,
    /// Of these we may not see when they began.
    pub(super) unseen: i64,
    /// The server's clock.
    pub(super) now_ms: i64,
    /// How long the server lets a login take.
    login_ms: i64,
}

impl Open {
    /// Whether a login that began before the cut may still be under way: PostgreSQL reads the password when it begins,
    /// and shows no session before it ends. A role that cannot log in by then is not let in.
    pub(super) fn may_come(&self, scope: Scope) -> bool {
        matches!(scope, Scope::Before(set_ms) if self.now_ms <= set_ms.saturating_add(self.login_ms))
    }
}

/// `None`: no session. `Some(None)`: all.
pub(super) fn before(scope: Scope) -> Option<Option<i64>> {
    match scope {
        Scope::All => Some(None),
        Scope::Before(ms) => Some(Some(ms)),
        Scope::Nothing => None,
    }
}

impl PostgresRole {
    /// Looks what is open.
    pub(super) async fn open(&self, oid: i64, scope: Scope) -> Result<Open, Failure> {
        let Some(before) = before(scope) else { return Ok(Open { sessions: 0, unseen: 0, now_ms: 0, login_ms: 0 }) };
        let row = sqlx::query_as(SESSIONS).bind(oid).bind(before).fetch_one(&self.pool);
        let (sessions, unseen, now_ms, login_ms) = self.bounded(false, row).await?;
        Ok(Open { sessions, unseen, now_ms, login_ms })
    }
}
