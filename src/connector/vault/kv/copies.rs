//! Copies that KV keeps.

use secrecy::ExposeSecret as _;

use super::engine::{Secret, Version, Written, refused};
use super::{Secrets, TRIES, again, stored};
use crate::case::record::{Generation, Output};
use crate::connector::Failure;
use crate::connector::copies::{self, MOST, alike, leave};
use crate::connector::recipe::Rotation;

impl Secrets {
    /// Writes what consumers read to a copy.
    pub(super) async fn copy(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let copy = copies::named(rotation, &self.kv.vault.realm)?;
        let value = copies::value(rotation).await?;
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
            copies::may_write(rotation, copy, &held, value.version).await?;
            let fields = found.content()?.holding(copy, value.value.expose_secret(), value.user.as_deref());
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
        let mut all = rotation.recipe.copies_at(self.own()).peekable();
        if all.peek().is_none() {
            return Ok(());
        }
        let old = copies::gone(rotation).await?;
        // Where nothing took its place, the newest version holds it as well.
        let replaced = rotation.turn.new.is_some() && !rotation.ends;
        for copy in all {
            let Some(versions) = self.kv.versions(&copy.mount, &copy.path).await? else { continue };
            let readable = versions.all.iter().rev().filter(|(_, state)| **state == Version::Readable);
            let last = if replaced { versions.newest - 1 } else { versions.newest };
            let older: Vec<i64> = readable.map(|(version, _)| *version).filter(|version| *version <= last).collect();
            if older.len() > MOST || (old.is_empty() && !older.is_empty()) {
                leave(output);
            }
            let mut doomed = Vec::new();
            for version in older.into_iter().take(MOST) {
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
