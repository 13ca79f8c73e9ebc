//! What is taken from an identity, and how it is given back. PURE.
//!
//! A [`Cut`] is frozen when it is decided: whatever an identity is granted later is not in it. What of it is taken is what the
//! identity still has, in the form in which the case saw it last ([`Scope`]): that form is what gives it back exactly.

use serde::{Deserialize, Serialize};

/// So many permissions may one cut name.
pub const MOST: usize = 32;
/// The longest name of a permission, in bytes.
pub const MAX_BYTES: usize = 512;
/// The longest text of how one is given, in bytes. AWS: all inline policies of a role together have at most 10 240 characters.
pub const MAX_HOW_BYTES: usize = 16 << 10;

/// Why a text names no permission. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPermission {
    /// Not of the shape.
    #[error("a permission is <sort>:<what>, such as member:readers, policy:etl-write or relation:public.orders:DELETE")]
    Shape,
    /// Longer than [`MAX_BYTES`].
    #[error("a permission's name has at most {MAX_BYTES} bytes")]
    TooLong,
    /// More than [`MOST`], or none.
    #[error("a cut names between one and {MOST} permissions")]
    Count,
}

/// One permission as its system names it: `<sort>:<what>`. Each connector says which sorts it knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permission(Box<str>);

impl Permission {
    /// Reads `<sort>:<what>`.
    ///
    /// # Errors
    /// [`BadPermission`].
    pub fn parse(text: &str) -> Result<Self, BadPermission> {
        if text.len() > MAX_BYTES {
            return Err(BadPermission::TooLong);
        }
        let (sort, what) = text.split_once(':').ok_or(BadPermission::Shape)?;
        let is_word = !sort.is_empty() && sort.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if !is_word || what.is_empty() || text.chars().any(char::is_control) {
            return Err(BadPermission::Shape);
        }
        Ok(Self(text.into()))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first colon, and behind it.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or((&self.0, ""))
    }
}

impl TryFrom<String> for Permission {
    type Error = BadPermission;
    fn try_from(text: String) -> Result<Self, BadPermission> {
        Self::parse(&text)
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> Self {
        permission.0.into()
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Several permissions, each once.
///
/// # Errors
/// [`BadPermission`].
pub fn permissions<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Vec<Permission>, BadPermission> {
    let mut all = texts.into_iter().map(|text| Permission::parse(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    if all.is_empty() || all.len() > MOST { Err(BadPermission::Count) } else { Ok(all) }
}

/// A permission that an identity has, and how it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    pub permission: Permission,
    /// What gives it again exactly, in its connector's own words; no secret.
    pub how: String,
}

/// What a look showed of an identity's permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Of those that the cut names, what it has.
    pub held: Vec<Held>,
    /// The digest of all else that it was granted: nobody else's is to change.
    pub rest: String,
    /// How many these are.
    pub rest_count: u32,
}

/// What a directive asks to be taken, or given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Which permissions.
    pub permissions: Vec<Permission>,
    /// Of a restoration: what a case took, and how it was given before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
}

/// What a case knows of a reduction, kept over its plans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cutting {
    /// What the identity had before anything was taken: from the last look before the first effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Scope>,
    /// Something of it may have been taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// What was taken, or may have been, and was not given back: also by plans before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<Held>,
    /// When the last effect on it was over, in UTC milliseconds, where its connector says so: the system may be late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_ms: Option<i64>,
}

impl Cutting {
    pub(crate) fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// What was there is taken, or may be.
    pub(crate) fn took(&mut self) {
        for held in self.before.iter().flat_map(|before| &before.held) {
            if !self.taken.contains(held) {
                self.taken.push(held.clone());
            }
        }
    }

    /// What was there before is there again.
    pub(crate) fn gave_back(&mut self) {
        let given = self.before.iter().flat_map(|before| &before.held);
        let given: Vec<&Held> = given.collect();
        self.taken.retain(|held| !given.contains(&held));
        self.begun = false;
    }

    /// What was taken, or may have been by an effect that failed on its way.
    pub fn missing(&self) -> Vec<Held> {
        let mut all = self.clone();
        if all.begun {
            all.took();
        }
        all.taken
    }

    /// It is looked at anew, before anything is taken.
    pub(crate) fn again(&mut self) {
        (self.before, self.begun, self.done_ms) = (None, false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_permission_is_refused() {
        for (text, why) in [
            ("", BadPermission::Shape),
            ("member", BadPermission::Shape),
            ("member:", BadPermission::Shape),
            ("Member:x", BadPermission::Shape),
            ("member:a\nb", BadPermission::Shape),
        ] {
            assert_eq!(Permission::parse(text), Err(why), "{text}");
        }
        assert_eq!(Permission::parse(&format!("member:{}", "x".repeat(MAX_BYTES))), Err(BadPermission::TooLong));
        let one = Permission::parse("relation:public.\"odd:name\":SELECT").unwrap();
        assert_eq!(one.parts(), ("relation", "public.\"odd:name\":SELECT"));
        assert_eq!(permissions(["policy:b", "policy:a", "policy:b"]).unwrap().len(), 2);
        assert_eq!(permissions::<&str>([]), Err(BadPermission::Count));
        assert_eq!(permissions((0..=MOST).map(|n| format!("policy:{n}"))), Err(BadPermission::Count));
    }
}
