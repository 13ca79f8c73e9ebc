//! One user, or two that take turns, of whom each has one password: whose value goes, and whose is read. PURE.

use super::Failure;
use super::recipe::{Rotation, Stored, Users};
use crate::case::record::FailureKind;

/// The users whose value goes.
///
/// # Errors
/// `Refused` where it is not known who has it.
pub(super) fn going(rotation: &Rotation) -> Result<Vec<&str>, Failure> {
    match rotation.old_user() {
        _ if rotation.ends => Ok(rotation.recipe.users.names()),
        Some(user) => Ok(vec![user]),
        None => Err(Failure::new(FailureKind::Refused, "it is not known who has the old value")),
    }
}

/// Those users, and those whose value was to go before: sessions of it may be left, though the user has another by now.
pub(super) fn with_left<'a>(mut users: Vec<&'a str>, rotation: &'a Rotation) -> Vec<&'a str> {
    for left in rotation.turn.left.iter().filter_map(|left| left.user.as_deref()) {
        // No name that the recipe does not know.
        if !users.contains(&left) && rotation.recipe.users.names().contains(&left) {
            users.push(left);
        }
    }
    users
}

/// Of two users: whether `current`, what consumers read, is of the one whose turn it is to take candidates. Then somebody
/// else wrote it, and it must go on working; unless it leaked, or a promotion of ours is in doubt.
pub(super) fn reads_of(rotation: &Rotation, current: Option<&Stored>, user: &str) -> bool {
    let its = current.is_some_and(|stored| stored.user.as_deref() == Some(user));
    rotation.recipe.users.overlap() && !rotation.contains && its
}

/// Whether `user` has the new value, as far as the case knows: then not all that is open of it is of the old one.
pub(super) fn has_new(rotation: &Rotation, user: &str) -> bool {
    let new = rotation.turn.new.as_ref();
    match &rotation.recipe.users {
        Users::One(_) | Users::Many(_) | Users::Keys(_) => true,
        Users::Two(..) => new.is_some_and(|new| new.user.as_deref().is_none_or(|own| own == user)),
    }
}

/// What consumers read, and who logs in with it.
pub(super) struct Holder<'a> {
    pub(super) user: &'a str,
    pub(super) stored: &'a Stored,
}

impl<'a> Holder<'a> {
    pub(super) fn of(rotation: &'a Rotation, current: Option<&'a Stored>) -> Option<Self> {
        let stored = current?;
        let names = rotation.recipe.users.names();
        let user = match (&rotation.recipe.users, &stored.user) {
            (Users::One(user) | Users::Many(user) | Users::Keys(user), _) => user.as_str(),
            (Users::Two(..), Some(user)) => names.into_iter().find(|name| name == user)?,
            (Users::Two(..), None) => return None,
        };
        Some(Self { user, stored })
    }
}
