//! What the user is told. PURE: what is left, and until when; no secret is known here.

use serde_json::{Value, json};

use super::events::{Held, text_of};
use super::times::Times;
use crate::tell;

/// What the end left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// What the task held.
    pub credentials: Vec<Held>,
    /// Whether there was anything to revoke.
    pub has_token: bool,
    /// Why it was not revoked; `None`: it was.
    pub revoked: Option<String>,
    /// Why Curfew was not told; `None`: it was.
    pub told: Option<String>,
    /// Whether Curfew knows of the task.
    pub registered: bool,
    /// When all of it is dead by itself.
    pub dies_ms: Option<i64>,
}

/// What ran.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The run's key.
    pub run: String,
    /// Which try.
    pub attempt: u32,
    /// In the words of the schema.
    pub outcome: String,
    /// What the shell is told.
    pub exit_code: u8,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its times.
    pub times: Times,
    /// When all was done.
    pub ended_ms: i64,
    /// Whether Curfew knows of it.
    pub registered: bool,
    /// The names of the variables.
    pub variables: Vec<String>,
    /// What is left.
    pub left: Left,
}

impl Summary {
    /// For machines.
    pub fn json(&self) -> Value {
        let credential = |held: &Held| {
            json!({
                "cred_id": held.credential.as_str(), "principal": held.principal, "expires_at": text_of(held.expires_ms),
            })
        };
        json!({
            "run": self.run, "attempt": self.attempt, "outcome": self.outcome, "exit_code": self.exit_code,
            "signal": self.signal, "started_at": text_of(self.times.started_ms), "ended_at": text_of(self.ended_ms),
            "deadline": text_of(self.times.deadline_ms), "registered": self.registered,
            "revoked": self.left.has_token && self.left.revoked.is_none(), "told": self.left.told.is_none(),
            "dies_at": self.left.dies_ms.filter(|_| self.left.revoked.is_some()).map(text_of),
            "variables": self.variables, "credentials": self.left.credentials.iter().map(credential).collect::<Vec<_>>(),
        })
    }
}

/// What the end left, if anything: who ends it, and when at the latest.
pub fn left(left: &Left) -> Vec<String> {
    let mut lines = Vec::new();
    let names: Vec<String> = left.credentials.iter().map(|held| held.credential.id()).collect();
    let names = if names.is_empty() { "the task's token".to_owned() } else { names.join(", ") };
    let dies = left.dies_ms.map(|at| format!(" dies at {}", text_of(at))).unwrap_or_default();
    match (&left.revoked, &left.told) {
        (None, None) => {}
        (Some(why), None) => {
            lines.push(format!(
                "not revoked here ({why}). Curfew was told, and revokes it; at the latest it{dies}: {names}"
            ));
        }
        (Some(why), Some(also)) => {
            lines.push(format!("NOT revoked ({why}), and Curfew was not told ({also}). It{dies}: {names}"));
        }
        (None, Some(why)) if left.registered => {
            let what = if left.has_token { "revoked at Vault, but " } else { "" };
            lines.push(format!("{what}Curfew was not told that the task ended ({why}); it notices by the deadline"));
        }
        (None, Some(_)) => {}
    }
    lines
}

/// It goes on without Curfew.
pub fn unregistered(why: &str) -> String {
    format!(
        "UNREGISTERED: Curfew does not know of this task ({why}). Only the TTL bounds its credentials if this is killed"
    )
}

/// It does not go on without Curfew.
pub fn not_registered(error: &tell::Error) -> String {
    match error {
        tell::Error::Unavailable(why) => format!(
            "Curfew cannot be told of this task ({why}). Start `curfew run`, or name its intake by --http or --kafka; \
             --unregistered runs it with nothing but the TTL"
        ),
        tell::Error::Refused(why) if why.contains("409") => {
            format!("Curfew knows this run already ({why}): give another --run, or a higher --attempt")
        }
        tell::Error::Refused(why) => format!(
            "Curfew does not take this task ({why}): its topic's configuration says which sources may speak (--source)"
        ),
    }
}

/// Its time is over.
pub fn late(times: &Times) -> String {
    format!("its time is over: told to end, and killed at {}", text_of(times.deadline_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{CredentialId, Kind};

    #[test]
    fn what_is_left_is_said_with_its_end() {
        let credential = CredentialId::new(Kind::VaultLease, "prod", "database/creds/ro/x1").unwrap();
        let held = Held { credential, principal: None, expires_ms: 1_800_000_000_000 };
        let all = Left {
            credentials: vec![held],
            has_token: true,
            revoked: Some("no connection to Vault".into()),
            told: Some("nobody answers".into()),
            registered: true,
            dies_ms: Some(1_800_000_000_000),
        };
        let said = left(&all).join("\n");
        assert!(said.contains("NOT revoked") && said.contains("dies at 2027-01-15T08:00:00Z"), "{said}");
        assert!(said.contains("database/creds/ro/x1"), "{said}");
        let said = left(&Left { told: None, ..all.clone() }).join("\n");
        assert!(said.contains("Curfew was told, and revokes it"), "{said}");
        let said = left(&Left { revoked: None, ..all.clone() }).join("\n");
        assert!(said.contains("revoked at Vault, but Curfew was not told"), "{said}");
        assert!(left(&Left { revoked: None, told: None, ..all.clone() }).is_empty());
        assert!(left(&Left { revoked: None, registered: false, ..all }).is_empty());
    }
}
