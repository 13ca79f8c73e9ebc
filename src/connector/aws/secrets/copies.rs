//! Copies that Secrets Manager keeps.

use secrecy::ExposeSecret as _;

use super::engine::{Found, OURS, PREVIOUS};
use super::{Secrets, refused, stored};
use crate::case::record::{Generation, Output};
use crate::connector::Failure;
use crate::connector::copies::{self, MOST, alike, leave};
use crate::connector::recipe::{Keeper, Rotation};

impl Secrets {
    /// Writes what consumers read to a copy.
    pub(super) async fn copy(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let copy = copies::named(rotation, &self.account.target)?;
        let value = copies::value(rotation).await?;
        let known = self.described(&copy.path).await?;
        let found = self.current(copy).await?.filter(|_| known.is_some());
        let found = found.ok_or_else(|| refused("a copy holds nothing: write the secret there once"))?;
        let held = stored(copy, &found)?;
        let has = |version, request_ids| {
            let current = Some(Generation { version, user: value.user.clone() });
            Output { current, request_ids, ..Output::default() }
        };
        if alike(copy, &held, &value) {
            return Ok(has(held.version, Vec::new()));
        }
        copies::may_write(rotation, copy, &held, value.version).await?;
        let content = found.content.holding(copy, value.value.expose_secret(), value.user.as_deref());
        // A value that is written again is another version, whatever it follows.
        let (version, request_ids) =
            self.replace(&copy.path, &found, content, &format!("copy:{}", value.version), &[OURS]).await?;
        Ok(has(version, request_ids))
    }

    /// Takes the label off what the copies had before, and says what stays stored.
    pub(super) async fn strip_copies(&self, rotation: &Rotation, output: &mut Output) -> Result<(), Failure> {
        let mut all = rotation.recipe.copies_at((Keeper::AwsSecret, &self.account.target)).peekable();
        if all.peek().is_none() {
            return Ok(());
        }
        let old = copies::gone(rotation).await?;
        for copy in all {
            let Some(known) = self.described(&copy.path).await? else { continue };
            // What is not as the recipe says is somebody else's.
            let is_old =
                |found: &Found| Ok(stored(copy, found).is_ok_and(|held| old.iter().any(|old| alike(copy, &held, old))));
            self.strip(&copy.path, PREVIOUS, &known, is_old).await?;
            let held = self.before(copy, i64::MAX, MOST).await?;
            let mut held = held.iter();
            if old.is_empty() || held.any(|held| old.iter().any(|old| alike(copy, held, old))) {
                leave(output);
            }
        }
        Ok(())
    }
}
