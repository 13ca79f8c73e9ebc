//! What Redis's errors mean: by their code, which is the first word of an answer. Two answers of ACL SAVE have the same
//! code, so of that call the text is read; nowhere else.

use redis::RedisError;

use crate::case::record::FailureKind;
use crate::connector::Failure;

/// Redis's words where it was not told in which file its users are kept.
const NO_FILE: &str = "not configured to use an ACL file";

/// What `error` means for a call that changes something (`has_effect`) or only looks.
pub fn failure(error: &RedisError, has_effect: bool) -> Failure {
    let doubt = if has_effect { FailureKind::Unknown } else { FailureKind::Unavailable };
    let (kind, note) = match error.code() {
        Some("NOPERM") => (FailureKind::Denied, "our own user lacks a right: see deploy/redis"),
        Some("WRONGPASS" | "NOAUTH") => (FailureKind::Denied, "Redis refuses our own login"),
        Some("LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" | "OOM") => {
            (FailureKind::Unavailable, "Redis is not ready")
        }
        // Too many clients: told before anything else. Every other error is about what was asked.
        Some("ERR") if error.detail().is_some_and(|text| text.contains("max number of clients")) => {
            (FailureKind::Unavailable, "Redis takes no more clients")
        }
        Some(_) => (FailureKind::Refused, "Redis refuses the command as such"),
        None if error.is_connection_refusal() => (FailureKind::Unavailable, "no connection to Redis"),
        None if error.is_io_error() => (doubt, "the connection to Redis broke"),
        None => (doubt, "Redis's answer cannot be read"),
    };
    Failure::new(kind, note)
}

/// What `error` of ACL SAVE means. The change before it has happened in memory: it is in doubt until it is saved.
pub fn not_saved(error: &RedisError) -> Failure {
    let is_general = error.code() == Some("ERR");
    if is_general && error.detail().is_some_and(|text| text.contains(NO_FILE)) {
        let note = "Redis keeps its users in no file (`aclfile`): after a restart the old password would work again";
        return Failure::new(FailureKind::Refused, note);
    }
    if is_general {
        return Failure::new(FailureKind::Unknown, "Redis could not save its users: see its log");
    }
    failure(error, true)
}

/// What came of a login as the user of whom it is asked whether it is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It is in.
    In,
    /// The password is refused, or the user is off, or there is none: Redis does not tell them apart.
    Refused,
    /// Says nothing of the password.
    Unclear,
}

/// What the answer to AUTH means.
pub fn login<T>(answer: &Result<T, RedisError>) -> Login {
    match answer {
        Ok(_) => Login::In,
        Err(error) if error.code() == Some("WRONGPASS") => Login::Refused,
        Err(_) => Login::Unclear,
    }
}
