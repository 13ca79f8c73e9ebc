//! What its holder opened with a credential, and what outlives it: sessions of roles. PURE.
//!
//! A session of a role asks for no key any more: it lives until its time is over. So each role that the holder may have become
//! is named, with the longest life of a session of it; after the death of the credential nobody opens another one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// So many roles are named; of the others only their number is said.
pub const MOST_ROLES: usize = 16;

/// The roles that the holder of a credential may become, as its issuer tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// At most [`MOST_ROLES`], those first whose sessions a rule of the configuration ends.
    pub roles: Vec<Role>,
    /// So many more there are.
    #[serde(default)]
    pub more: u32,
    /// Whether that is all: nothing could not be read, no other account has a role for it, and none of these roles may become
    /// another one.
    pub whole: bool,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Its issuer's name for it: at AWS the ARN.
    pub name: String,
    /// So long a session of it lives at the most.
    pub lasts_ms: i64,
    /// Who says so.
    pub by: Says,
    /// Who else may open sessions of it.
    pub others: Others,
    /// What was opened before then is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_ms: Option<i64>,
}

/// Where the longest life of a role's session is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// The role itself has that limit (AWS: its `MaxSessionDuration`).
    Role,
    /// It could not be read: the most that the issuer allows any role.
    Limit,
}

impl Says {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Limit => "limit",
        }
    }
}

/// How many others may become a role: users, roles, services, accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// So many can be told.
    pub count: u32,
    /// There may be more: of an account as a whole, of an identity provider, or of everybody.
    pub at_least: bool,
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = if self.at_least { "at least " } else { "" };
        write!(f, "{bound}{}", self.count)
    }
}

impl Derived {
    /// The role of this name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The same after a later look, which knows nothing of what was denied before.
    pub(super) fn seen_again(mut self, later: &Self) -> Self {
        let denied = |name: &str| self.role(name).and_then(|role| role.denied_ms);
        let roles = later.roles.iter().map(|role| Role { denied_ms: denied(&role.name), ..role.clone() }).collect();
        self.roles = roles;
        (self.more, self.whole) = (later.more, later.whole);
        self
    }

    /// What was opened of a role before then is denied.
    pub(super) fn deny(&mut self, name: &str, before_ms: Option<i64>) {
        for role in self.roles.iter_mut().filter(|role| role.name == name) {
            role.denied_ms = before_ms.or(role.denied_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, denied_ms: Option<i64>) -> Role {
        Role { name: name.to_owned(), lasts_ms: 1, by: Says::Role, others: Others::default(), denied_ms }
    }

    #[test]
    fn a_later_look_takes_no_denial_back() {
        let mut first = Derived { roles: vec![role("a", None), role("b", None)], more: 0, whole: true };
        first.deny("a", Some(7));
        first.deny("a", None);
        let later = Derived { roles: vec![role("a", None), role("c", None)], more: 3, whole: false };
        let both = first.seen_again(&later);
        assert_eq!(both, Derived { roles: vec![role("a", Some(7)), role("c", None)], more: 3, whole: false });
    }

    #[test]
    fn others_are_a_number_or_a_bound() {
        assert_eq!(Others { count: 3, at_least: false }.to_string(), "3");
        assert_eq!(Others { count: 0, at_least: true }.to_string(), "at least 0");
    }
}
