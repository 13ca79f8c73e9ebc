//! What MariaDB's errors mean: by number, nowhere else; and what it calls its version. Its texts are not read.
//!
//! Facts: <https://mariadb.com/kb/en/mariadb-error-codes/>, and the tests on a real server.

use sqlx::Error;
use sqlx::mysql::MySqlDatabaseError;

use crate::case::record::FailureKind;
use crate::connector::Failure;

/// The oldest that is served: before it only SUPER ends others' sessions.
const OLDEST: (u32, u32) = (10, 5);

/// The number of an error of the server; `None`: of something between it and us.
fn number(error: &Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// What `error` means for a call that changes something (`has_effect`) or only looks.
pub fn failure(error: &Error, has_effect: bool) -> Failure {
    let doubt = if has_effect { FailureKind::Unknown } else { FailureKind::Unavailable };
    let (kind, note) = match number(error) {
        Some(number) => told(number, doubt),
        None => match error {
            Error::Tls(_) | Error::Configuration(_) => (FailureKind::Unavailable, "no connection to MariaDB"),
            Error::Io(_) | Error::Protocol(_) => (doubt, "the connection to MariaDB broke"),
            _ => (doubt, "MariaDB's answer cannot be read"),
        },
    };
    Failure::new(kind, note)
}

/// What an error's number means; `doubt` is what a call has come to that may have done its work.
fn told(number: u16, doubt: FailureKind) -> (FailureKind, &'static str) {
    match number {
        // Access denied, of a password or of an account without one; locked, blocked, expired; no account for our machine.
        1045 | 1698 | 4151 | 4150 | 1862 | 1820 | 1130 => (FailureKind::Denied, "MariaDB refuses our own login"),
        // On a database, a table, a column; a right of the server; to end a session.
        1044 | 1142 | 1143 | 1227 | 1095 => (FailureKind::Denied, "our own user lacks a right: see deploy/mariadb"),
        // Too many connections, of all or of us; our host made too many errors; no part of its cluster.
        1040 | 1203 | 1226 | 1129 | 1047 => (FailureKind::Unavailable, "MariaDB is not ready"),
        // Lock wait, deadlock: rolled back.
        1205 | 1213 => (FailureKind::Unavailable, "MariaDB rolled it back"),
        // Interrupted: by somebody, by `max_statement_time`, with its connection, by the server's end.
        1317 | 1969 | 1927 | 1053 => (doubt, "MariaDB broke it off"),
        // An account that is gone; and as well one whose new password a plugin would have to see.
        1396 => (FailureKind::Refused, "MariaDB does not change this account: a plugin may want to check passwords"),
        1290 => (FailureKind::Refused, "an option of this MariaDB forbids it"),
        1146 => (FailureKind::Refused, "this MariaDB has no mysql.global_priv: it is older than 10.4"),
        _ => (FailureKind::Refused, "MariaDB refuses the statement as such"),
    }
}

/// Whether `error` says that a session that was to be ended is not there any more.
pub(super) fn is_no_session(error: &Error) -> bool {
    number(error) == Some(1094)
}

/// What came of a login as a user of whom it is asked whether it is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It is in.
    In,
    /// The password is right, and has expired: whoever has it is let in to set another one.
    Expired,
    /// The password is refused; the account need not exist, and where it demands TLS that may be the reason.
    Refused,
    /// The password is right, and the account is locked.
    Locked,
    /// Too many wrong passwords came before: it is not looked at.
    Blocked,
    /// Says nothing of the password.
    Unclear,
}

/// What `error` means for a login as another user. MariaDB looks at the password first: with a wrong one it says so, whether
/// the account is locked or not.
pub fn login(error: &Error) -> Login {
    match number(error) {
        Some(1045) => Login::Refused,
        Some(4151) => Login::Locked,
        Some(4150) => Login::Blocked,
        Some(1820 | 1862) => Login::Expired,
        // Among others: 1040 and 1226 too many connections, 1130 no account for our machine, 1698 an account without a
        // password.
        _ => Login::Unclear,
    }
}

/// Whether what VERSION() gives is of a MariaDB that is served. MySQL has no `mysql.global_priv`, and keeps a second
/// password of its own.
///
/// # Errors
/// `Refused` where not.
pub fn is_served(version: &str) -> Result<(), Failure> {
    let refused = |note: &str| Err(Failure::new(FailureKind::Refused, note));
    if !version.contains("MariaDB") {
        return refused("this is no MariaDB: MySQL is not served");
    }
    // Some of them pretend to be MySQL 5.5 for old clients of replication.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    let known = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if known < OLDEST { refused("this MariaDB is older than 10.5") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_off_may_be_done() {
        for doubt in [FailureKind::Unknown, FailureKind::Unavailable] {
            for number in [1053, 1317, 1927, 1969] {
                assert_eq!(told(number, doubt).0, doubt, "{number}");
            }
            // These came before anything was done, or were rolled back.
            for number in [1040, 1129, 1205, 1213] {
                assert_eq!(told(number, doubt).0, FailureKind::Unavailable, "{number}");
            }
        }
    }

    #[test]
    fn only_mariadb_from_10_5_on_is_served() {
        for (version, is_good) in [
            ("10.11.19-MariaDB-0+deb12u1-log", true),
            ("5.5.5-10.6.18-MariaDB", true),
            ("11.8.2-MariaDB-ubu2404", true),
            ("10.5.0-MariaDB", true),
            ("10.4.34-MariaDB", false),
            ("5.5.68-MariaDB", false),
            ("8.4.2", false),
            ("8.0.36-0ubuntu0.22.04.1", false),
            ("", false),
        ] {
            assert_eq!(is_served(version).is_ok(), is_good, "{version}");
        }
    }
}
