//! What is taken from an identity, and how it is given back. PURE.
//!
//! A [`Cut`] is frozen when it is decided: whatever an identity is granted later is not in it. What of it is taken is what the
//! identity still has, in the form in which the case saw it last ([`Scope`]): that form is what gives it back exactly.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::credential::{CredentialId, Kind};

/// The sort of what a fence takes of an identity: that anything new can be had by it. Nobody names one but an offboarding.
pub const FENCE: &str = "fence";
/// So many permissions may one cut name.
pub const MOST: usize = 32;
/// So many agents may one case move.
pub const MOVES: usize = 8;
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

    /// Whether it is what a fence takes.
    pub fn is_fence(&self) -> bool {
        self.parts().0 == FENCE
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

/// One of those that share a credential, who is moved off it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Who, as `split` of the configuration names it.
    pub agent: String,
    /// What it may at the most from then on; `None`: nobody said so, and the configuration counts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Vec<Permission>>,
}

/// What a directive asks to be taken, or given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Which permissions.
    pub permissions: Vec<Permission>,
    /// Of a restoration: what a case took, and how it was given before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
    /// Of a fence: until when it stands (our clock).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// Of a restoration: the case that took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<Uuid>,
    /// Of a split: these agents are moved, and nobody else; what they shared lives on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
}

impl Cut {
    /// These permissions are taken.
    pub fn of(permissions: Vec<Permission>) -> Self {
        Self { permissions, held: Vec::new(), until_ms: None, case: None, moves: Vec::new() }
    }

    /// These agents are moved, each once: at most [`MOVES`]. `None`: nobody is named.
    pub fn moving(moves: impl IntoIterator<Item = Move>) -> Option<Self> {
        let mut all: Vec<Move> = Vec::new();
        for one in moves {
            if all.len() < MOVES && !all.iter().any(|known| known.agent == one.agent) {
                all.push(one);
            }
        }
        (!all.is_empty()).then(|| Self { moves: all, ..Self::of(Vec::new()) })
    }

    /// What `case` took is given back.
    ///
    /// # Errors
    /// [`BadPermission::Count`]: it took nothing.
    pub fn back(held: Vec<Held>, case: Uuid) -> Result<Self, BadPermission> {
        let permissions = permissions(held.iter().map(|held| held.permission.as_str()))?;
        Ok(Self { held, case: Some(case), ..Self::of(permissions) })
    }

    /// The fence of what a credential of this kind lets in as. `None`: no connector can fence it.
    pub fn fence(kind: Kind, until_ms: i64) -> Option<Self> {
        let named = fence_of(kind)?.iter().map(|what| format!("{FENCE}:{what}"));
        Some(Self { until_ms: Some(until_ms), ..Self::of(permissions(named).ok()?) })
    }

    /// Whether it is about a fence, and about nothing else.
    pub fn is_fence(&self) -> bool {
        !self.permissions.is_empty() && self.permissions.iter().all(Permission::is_fence)
    }
}

/// What a fence takes of an identity, by the kind of one of its credentials.
fn fence_of(kind: Kind) -> Option<&'static [&'static str]> {
    match kind {
        Kind::VaultApprole | Kind::VaultSecretId => Some(&["entity", "secret_id_bound_cidrs", "token_bound_cidrs"]),
        Kind::AwsUser | Kind::AwsAccessKey => Some(&["user_policy"]),
        _ => None,
    }
}

/// The identity of a credential, as what is taken from it is called: the AppRole of a secret_id, the user of an access key; else
/// the credential itself.
pub fn identity_of(id: &CredentialId) -> CredentialId {
    let kind = match id.kind() {
        Kind::VaultSecretId => Kind::VaultApprole,
        Kind::AwsAccessKey => Kind::AwsUser,
        _ => return id.clone(),
    };
    let name = id.id();
    let owner = name.rsplit_once('/').and_then(|(owner, _)| CredentialId::new(kind, id.instance(), owner).ok());
    owner.unwrap_or_else(|| id.clone())
}

/// A fence that a case has set, or may have: what is given back when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Whose.
    pub tenant: String,
    /// The case that set it.
    pub case: Uuid,
    /// The identity, as what is taken from it is called: [`identity_of`].
    pub identity: CredentialId,
    /// When it ends (our clock).
    pub until_ms: i64,
    /// What was there before.
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
    /// It is the attempt at work that began it: none before may have taken anything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// Of what was frozen these stay: they were used before anything was taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spared: Vec<Permission>,
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

    /// An attempt begins.
    pub(crate) fn begin(&mut self) {
        (self.first, self.begun) = (!self.begun, true);
    }

    /// The attempt changed nothing. Whether nothing was ever begun, then.
    pub(crate) fn left_untouched(&mut self) -> bool {
        if self.first {
            (self.first, self.begun) = (false, false);
        }
        !self.begun
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
        (self.first, self.begun) = (false, false);
    }

    /// The same, of a fence.
    pub fn fenced(&self) -> Vec<Held> {
        self.missing().into_iter().filter(|held| held.permission.is_fence()).collect()
    }

    /// What was taken, or may have been by an effect that failed on its way.
    pub fn missing(&self) -> Vec<Held> {
        let mut all = self.clone();
        if all.begun {
            all.took();
        }
        all.taken
    }

    /// These stay.
    pub(crate) fn spare(&mut self, permissions: &[Permission]) {
        for one in permissions {
            if self.spared.len() < MOST && !self.spared.contains(one) {
                self.spared.push(one.clone());
            }
        }
        if let Some(before) = &mut self.before {
            before.held.retain(|held| !permissions.contains(&held.permission));
        }
    }

    /// It is looked at anew, before anything is taken.
    pub(crate) fn again(&mut self) {
        (self.before, self.begun, self.first, self.done_ms) = (None, false, false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_of_the_identity_and_not_of_one_of_its_values() {
        let id = |kind, id| CredentialId::new(kind, "prod", id).unwrap();
        let secret_id = id(Kind::VaultSecretId, "approle/team/etl/acc-1");
        assert_eq!(identity_of(&secret_id), id(Kind::VaultApprole, "approle/team/etl"));
        assert_eq!(identity_of(&id(Kind::AwsAccessKey, "ci/bot/AKIA1")), id(Kind::AwsUser, "ci/bot"));
        let role = id(Kind::PostgresRole, "etl");
        assert_eq!(identity_of(&role), role);
        assert_eq!(Cut::fence(role.kind(), 7), None, "nobody can fence it");
        let fence = Cut::fence(secret_id.kind(), 7).unwrap();
        assert!(fence.is_fence() && fence.until_ms == Some(7));
        assert_eq!(fence, Cut::fence(Kind::VaultApprole, 7).unwrap());
        let mut mixed = fence.clone();
        mixed.permissions.push(Permission::parse("policy:a").unwrap());
        assert!(!mixed.is_fence() && !Cut::of(Vec::new()).is_fence());
        // What an offboarding took beside it is given back by a person.
        let held = |name: &str| Held { permission: Permission::parse(name).unwrap(), how: String::new() };
        let before = Scope { held: vec![held("fence:token_bound_cidrs")], ..Scope::default() };
        let cutting =
            Cutting { before: Some(before), begun: true, taken: vec![held("policy:a")], ..Cutting::default() };
        assert_eq!(cutting.fenced(), [held("fence:token_bound_cidrs")]);
        assert_eq!(Cut::back(Vec::new(), Uuid::nil()), Err(BadPermission::Count));
    }

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
