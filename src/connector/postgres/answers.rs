//! What PostgreSQL's errors mean: by SQLSTATE, nowhere else. Its texts are not read.

use sqlx::Error;

use crate::case::record::FailureKind;
use crate::connector::Failure;

/// What `error` means for a call that changes something (`has_effect`) or only looks.
pub fn failure(error: &Error, has_effect: bool) -> Failure {
    let doubt = if has_effect { FailureKind::Unknown } else { FailureKind::Unavailable };
    let (kind, note) = match error {
        Error::PoolTimedOut | Error::PoolClosed | Error::Tls(_) => {
            (FailureKind::Unavailable, "no connection to PostgreSQL")
        }
        Error::Io(_) | Error::Protocol(_) | Error::WorkerCrashed => (doubt, "the connection to PostgreSQL broke"),
        Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
            // insufficient_privilege: about this one role, PostgreSQL decides by role.
            "42501" => (FailureKind::Refused, "PostgreSQL gives us no right to do this"),
            // undefined_object: dropped between our look and our act.
            "42704" => (FailureKind::Gone, "the role is gone"),
            // invalid_authorization, invalid_password, connecting to this database is not allowed.
            "28000" | "28P01" | "3D000" => (FailureKind::Denied, "PostgreSQL refuses our own login"),
            // Too many connections, shutting down, starting up, out of memory or disk: before anything happened.
            "53300" | "57P01" | "57P02" | "57P03" => (FailureKind::Unavailable, "PostgreSQL is not ready"),
            // Cancelled, deadlock, lock not available, read-only: rolled back.
            "57014" | "40P01" | "40001" | "55P03" => (FailureKind::Unavailable, "PostgreSQL rolled it back"),
            "25006" => (FailureKind::Unavailable, "this PostgreSQL is a read-only replica"),
            code if code.starts_with("53") || code.starts_with("58") => (doubt, "PostgreSQL is short of resources"),
            code if code.starts_with("08") || code.starts_with("XX") => (doubt, "an error inside PostgreSQL"),
            _ => (FailureKind::Refused, "PostgreSQL refuses the statement as such"),
        },
        _ => (doubt, "PostgreSQL's answer cannot be read"),
    };
    Failure::new(kind, note)
}

/// What came of a login as a user of whom it is asked whether it is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It is in.
    In,
    /// The password is refused: wrong, none is set, or past its VALID UNTIL; the user need not exist.
    Refused,
    /// Refused after, or instead of, the password: NOLOGIN, and as well what `pg_hba.conf` rejects. Which of them, the
    /// role's row says.
    Shut,
    /// Says nothing of the password.
    Unclear,
}

/// What `error` means for a login as another user. PostgreSQL looks at the password first: with a wrong one it says so,
/// whether the role may log in or not, is full, or names a database that is not there.
pub fn login(error: &Error) -> Login {
    match error {
        Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
            "28P01" => Login::Refused,
            "28000" => Login::Shut,
            // Among others: 53300 too many connections (of this role as well), 3D000 no such database, 55000 a database
            // that takes none, 42501 no right to connect, 57P03 starting up.
            _ => Login::Unclear,
        },
        _ => Login::Unclear,
    }
}
