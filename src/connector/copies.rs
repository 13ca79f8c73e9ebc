//! Other places where the same value is read: what they get, and what they lose.
//!
//! A copy is written only over a value that the first place has, or had: a place that was named by mistake keeps what it
//! has. Which of its versions hold the old value is told by comparing, since its numbers are its own.

use super::Failure;
use super::recipe::{Place, Rotation, Stored, Which, of_store};
use crate::case::record::{FailureKind, Output, Residue};

/// Versions of the first place that are looked at, and of a copy.
pub(super) const MOST: usize = 32;

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

/// The copy that the step is about, where `realm` keeps it.
pub(super) fn named<'a>(rotation: &'a Rotation, realm: &str) -> Result<&'a Place, Failure> {
    let copy = rotation.copy.as_ref().filter(|copy| copy.realm == realm);
    copy.ok_or_else(|| refused("the configuration names no such copy any more"))
}

/// What consumers read in the first place: what a copy gets.
pub(super) async fn value(rotation: &Rotation) -> Result<Stored, Failure> {
    let turn = &rotation.turn;
    let current = turn.new.as_ref().or(turn.old.as_ref());
    let current = current.ok_or_else(|| refused("consumers read nothing that could be copied"))?.version;
    let value = rotation.store.read(&rotation.recipe.place, Which::Version(current)).await.map_err(of_store)?;
    value.ok_or_else(|| refused("the value to copy is not stored any more"))
}

/// Whether a copy may be written over: it holds what the first place had at `newest` or before, the old value, or one that
/// was taken back.
///
/// # Errors
/// `Refused` where it may not.
pub(super) async fn may_write(rotation: &Rotation, copy: &Place, held: &Stored, newest: i64) -> Result<(), Failure> {
    let earlier = rotation.store.earlier(&rotation.recipe.place, newest, MOST).await.map_err(of_store)?;
    if earlier.iter().any(|value| alike(copy, held, value)) {
        return Ok(());
    }
    Err(refused("a copy holds a value that never was the rotated one"))
}

/// The values that go, as the first place still has them.
pub(super) async fn gone(rotation: &Rotation) -> Result<Vec<Stored>, Failure> {
    let (old, new) = (rotation.turn.old.as_ref(), rotation.turn.new.as_ref());
    let last = match (old, new) {
        (Some(old), Some(new)) if rotation.ends => old.version.max(new.version),
        (Some(_), Some(new)) => new.version - 1,
        (Some(old), None) if rotation.contains => old.version,
        _ => return Ok(Vec::new()),
    };
    let first = rotation.turn.first().unwrap_or(last);
    let values = rotation.store.earlier(&rotation.recipe.place, last, MOST).await.map_err(of_store)?;
    Ok(values.into_iter().filter(|value| value.version >= first).collect())
}

/// The same value, for the same user where the copy names one.
pub(super) fn alike(copy: &Place, held: &Stored, value: &Stored) -> bool {
    (copy.user_field.is_none() || held.user == value.user) && held.is_alike(value)
}

/// Something of the old value stays stored.
pub(super) fn leave(output: &mut Output) {
    if !output.residue.contains(&Residue::OldValueStored) {
        output.residue.push(Residue::OldValueStored);
    }
}
