//! Other places where the same value is read: they get what the first place has, and lose what it lost.
//!
//! A copy is written only over a value that the first place has, or had: a place that was named by mistake keeps what it
//! has. Which of its versions hold the old value is told by comparing, since its numbers are its own.

use secrecy::ExposeSecret as _;

use super::engine::{Secret, Version, Written, refused};
use super::{BETWEEN, Secrets, TRIES, again, same_value, stored};
use crate::case::record::{Generation, Output, Residue};
use crate::connector::Failure;
use crate::connector::recipe::{Place, Rotation, Stored, Which, of_store};

impl Secrets {
    /// Writes what consumers read to a copy.
    pub(super) async fn copy(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let (turn, copy) = (&rotation.turn, rotation.copy.as_ref());
        let copy = copy.filter(|copy| copy.realm == self.kv.vault.realm);
        let copy = copy.ok_or_else(|| refused("the configuration names no such copy any more"))?;
        let current = turn.new.as_ref().or(turn.old.as_ref());
        let current = current.ok_or_else(|| refused("consumers read nothing that could be copied"))?.version;
        let value = first_place(rotation, current).await?;
        let value = value.ok_or_else(|| refused("the value to copy is not stored any more"))?;
        let has = |version, request: Option<String>| {
            let current = Some(Generation { version, user: value.user.clone() });
            Output { current, request_ids: request.into_iter().collect(), ..Output::default() }
        };
        for _ in 0..TRIES {
            let found = self.kv.read(&copy.mount, &copy.path, None).await?.filter(Secret::is_readable);
            let found = found.ok_or_else(|| refused("a copy holds nothing: write the secret there once"))?;
            let held = stored(copy, &found)?;
            if alike(copy, &held, &value) {
                return Ok(has(held.version, None));
            }
            if !was_in_first_place(rotation, copy, &held, value.version).await? {
                return Err(refused("a copy holds a value that never was the rotated one"));
            }
            let mut changes = vec![(copy.field.as_str(), value.value.expose_secret())];
            changes.extend(copy.user_field.as_deref().zip(value.user.as_deref()));
            let fields = found.with(&changes);
            if let Written::Version(version, request) =
                self.kv.write(&copy.mount, &copy.path, fields, held.version).await?
            {
                return Ok(has(version, request));
            }
        }
        Err(again("others keep writing a copy"))
    }

    /// Destroys what the copies in this realm still store of the old value.
    pub(super) async fn destroy_copies(&self, rotation: &Rotation, output: &mut Output) -> Result<(), Failure> {
        let mut copies = rotation.recipe.copies_in(&self.kv.vault.realm).peekable();
        if copies.peek().is_none() {
            return Ok(());
        }
        let old = gone(rotation).await?;
        // Where nothing took its place, the newest version holds it as well.
        let replaced = rotation.turn.new.is_some() && !rotation.ends;
        for copy in copies {
            let Some(versions) = self.kv.versions(&copy.mount, &copy.path).await? else { continue };
            let readable = versions.all.iter().rev().filter(|(_, state)| **state == Version::Readable);
            let last = if replaced { versions.newest - 1 } else { versions.newest };
            let older: Vec<i64> = readable.map(|(version, _)| *version).filter(|version| *version <= last).collect();
            if older.len() > BETWEEN || (old.is_empty() && !older.is_empty()) {
                leave(output);
            }
            let mut doomed = Vec::new();
            for version in older.into_iter().take(BETWEEN) {
                let Some(found) = self.kv.read(&copy.mount, &copy.path, Some(version)).await? else { continue };
                // What is not as the recipe says is somebody else's.
                let Some(held) = Some(found).filter(Secret::is_readable).and_then(|found| stored(copy, &found).ok())
                else {
                    continue;
                };
                if old.iter().any(|old| alike(copy, &held, old)) {
                    doomed.push(version);
                }
            }
            if !doomed.is_empty() {
                self.kv.destroy(&copy.mount, &copy.path, &doomed).await?;
            }
        }
        Ok(())
    }
}

/// A version of what consumers read in the first place.
async fn first_place(rotation: &Rotation, version: i64) -> Result<Option<Stored>, Failure> {
    let (store, place) = (&rotation.store, &rotation.recipe.place);
    store.read(place, Which::Version(version)).await.map_err(of_store)
}

/// Whether a copy's value is one that the first place had at `newest` or before: the old one, or one that was taken back.
async fn was_in_first_place(rotation: &Rotation, copy: &Place, held: &Stored, newest: i64) -> Result<bool, Failure> {
    for version in window(newest) {
        if first_place(rotation, version).await?.is_some_and(|value| alike(copy, held, &value)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The values that go, as the first place still has them.
async fn gone(rotation: &Rotation) -> Result<Vec<Stored>, Failure> {
    let (old, new) = (rotation.turn.old.as_ref(), rotation.turn.new.as_ref());
    let last = match (old, new) {
        (Some(old), Some(new)) if rotation.ends => old.version.max(new.version),
        (Some(_), Some(new)) => new.version - 1,
        (Some(old), None) if rotation.contains => old.version,
        _ => return Ok(Vec::new()),
    };
    let first = rotation.turn.first().unwrap_or(last);
    let mut values = Vec::new();
    for version in window(last).filter(|version| *version >= first) {
        values.extend(first_place(rotation, version).await?);
    }
    Ok(values)
}

/// The newest of the versions until `last`, the newest first. Version 0 would mean the newest of all.
fn window(last: i64) -> impl Iterator<Item = i64> {
    (1..=last).rev().take(BETWEEN)
}

/// The same value, for the same user where the copy names one.
fn alike(copy: &Place, held: &Stored, value: &Stored) -> bool {
    (copy.user_field.is_none() || held.user == value.user) && same_value(held, value)
}

fn leave(output: &mut Output) {
    if !output.residue.contains(&Residue::OldValueStored) {
        output.residue.push(Residue::OldValueStored);
    }
}
