//! `vault-kv`: KV version 2 as the store of rotations.
//!
//! Consumers read a secret's newest version; KV has no label for one that is not to be read yet. So a candidate lies at
//! a side path that only Curfew reads, with the key of the step that made it, until it is written over the consumers'
//! secret. Each write names the version that it follows (check-and-set): what somebody else wrote is never lost.

mod copies;
pub(crate) mod engine;

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::rights::Need;
use super::{Vault, exact, unsupported};
use crate::case::plan::Act;
use crate::case::record::{FailureKind, Generation, Observation, Output, Presence, Residue, Sighting};
use crate::connector::candidate::candidate;
use crate::connector::recipe::{Keeper, Place, Rotation, Store, Stored, Which};
use crate::connector::wiped::Wiped;
use crate::connector::{Connector, Failure, Subject};
use crate::probe::Settle;
use engine::{Kv, Secret, Version, Written, refused};

/// Candidates lie below this path of the same mount.
pub const PENDING: &str = "curfew-pending";
/// The field of a candidate that holds the key of the step that made it.
const KEY: &str = "curfew_key";
/// So many candidates of one case are kept: it makes fewer.
const KEPT: u32 = 10;
/// A secret that others write to all the time is not written for ever.
const TRIES: u32 = 3;
/// Versions between the old and the new value that are looked at.
const BETWEEN: usize = 32;
/// Versions before the old one that are looked at.
const BEFORE: usize = 8;

/// The secrets of one realm's recipes.
pub struct Secrets {
    kv: Kv,
}

/// Checks where a value is stored.
///
/// # Errors
/// `Refused`: it names no single secret, or one of Curfew's own.
pub fn check_place(place: &Place) -> Result<(), Failure> {
    exact(&place.mount)?;
    exact(&place.path)?;
    if place.path.split('/').next() == Some(PENDING) {
        return Err(refused("below curfew-pending are Curfew's own candidates"));
    }
    let fields = [Some(&place.field), place.user_field.as_ref()];
    if fields.into_iter().flatten().any(|field| field.is_empty() || field == KEY) {
        return Err(refused("a field needs a name, and curfew_key is Curfew's own"));
    }
    if place.user_field.as_ref() == Some(&place.field) {
        return Err(refused("value and user name are in one field"));
    }
    Ok(())
}

fn side(place: &Place) -> String {
    format!("{PENDING}/{}", place.path)
}

/// What our policy must allow for a place.
fn needs(place: &Place, enforce: bool, is_copy: bool) -> Vec<Need> {
    let Place { mount, path, .. } = place;
    let need = |what: &str, path: &str, rights| Need { path: format!("{mount}/{what}/{path}"), rights };
    if !enforce {
        return vec![need("data", path, &["read"])];
    }
    let side = side(place);
    let mut needs = vec![
        need("data", path, &["read", "update"]),
        need("metadata", path, &["read"]),
        need("destroy", path, &["update"]),
    ];
    if is_copy {
        return needs;
    }
    needs.extend([
        need("data", &side, &["create", "read", "update"]),
        need("metadata", &side, &["create", "update", "delete"]),
    ]);
    needs
}

/// The value of a place in a secret.
fn stored(place: &Place, found: &Secret) -> Result<Stored, Failure> {
    let key = found.text(KEY).ok().and_then(|key| Uuid::parse_str(key).ok());
    Ok(Stored { key, ..found.content()?.stored(place, found.version)? })
}

impl Secrets {
    /// The store, on a login, for the recipes whose values are at `places`, and those that have `copies` there.
    ///
    /// # Errors
    /// `Refused`: a place that names no single secret, or two at one secret: each would undo what the other did.
    pub fn new(vault: Arc<Vault>, places: &[Place], copies: &[Place]) -> Result<Self, Failure> {
        let all: Vec<&Place> = places.iter().chain(copies).collect();
        for (at, place) in all.iter().enumerate() {
            check_place(place)?;
            if all[..at].iter().any(|other| (&other.mount, &other.path) == (&place.mount, &place.path)) {
                return Err(refused("two recipes rotate fields of one secret: give each a secret of its own"));
            }
        }
        let of = |places: &[Place], are_copies: bool| -> Vec<Need> {
            places.iter().flat_map(|place| needs(place, vault.enforce, are_copies)).collect()
        };
        let needs = [of(places, false), of(copies, true)].concat();
        Ok(Self { kv: Kv::new(vault, needs) })
    }

    /// Which store this is.
    fn own(&self) -> (Keeper, &str) {
        (Keeper::Kv, &self.kv.vault.realm)
    }

    async fn find(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        check_place(place)?;
        let (path, version) = match which {
            Which::Candidate => (side(place), None),
            Which::Current => (place.path.clone(), None),
            Which::Version(version) => (place.path.clone(), Some(version)),
        };
        let found = self.kv.read(&place.mount, &path, version).await?;
        found.filter(Secret::is_readable).map(|found| stored(place, &found)).transpose()
    }

    async fn look(&self, rotation: &Rotation) -> Result<Observation, Failure> {
        let place = &rotation.recipe.place;
        check_place(place)?;
        let mut seen = self.kv.vault.blank();
        seen.presence = Presence::Gone;
        if let Some(found) = self.kv.read(&place.mount, &place.path, None).await?.filter(Secret::is_readable) {
            seen.presence = Presence::Present;
            seen.issued_ms = found.created_ms;
            seen.current = Some(stored(place, &found)?.generation());
            seen.request_id = found.request_id;
        }
        Ok(seen)
    }

    async fn create(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let user = rotation.taker()?;
        self.put_candidate(rotation, Some(user), || candidate(&rotation.recipe.password)).await
    }

    /// Stores what `make` makes, unless the candidate is there.
    async fn put_candidate(
        &self,
        rotation: &Rotation,
        user: Option<&str>,
        make: impl FnOnce() -> SecretString,
    ) -> Result<Output, Failure> {
        let place = &rotation.recipe.place;
        check_place(place)?;
        let key = rotation.candidate.ok_or_else(|| refused("this plan makes no candidate"))?;
        let side = side(place);
        let newest = self.kv.read(&place.mount, &side, None).await?;
        let is_ours = |found: &Secret| found.text(KEY).is_ok_and(|text| text == key.to_string());
        if newest.as_ref().is_some_and(is_ours) {
            return Ok(Output::default());
        }
        let cas = newest.map_or(0, |found| found.version);
        if cas == 0 {
            self.kv.keep(&place.mount, &side, KEPT).await?;
        }
        let fields = Wiped(json!({ KEY: key.to_string() })).holding(place, make().expose_secret(), user);
        match self.kv.write(&place.mount, &side, fields, cas).await? {
            Written::Version(_, request) => {
                Ok(Output { request_ids: request.into_iter().collect(), ..Output::default() })
            }
            Written::Outdated => Err(again("another candidate was written at the same time")),
        }
    }

    async fn promote(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let place = &rotation.recipe.place;
        let candidate = rotation.candidate().await?;
        for _ in 0..TRIES {
            let found = self.kv.read(&place.mount, &place.path, None).await?.filter(Secret::is_readable);
            let found = found.ok_or_else(|| refused("consumers read nothing there any more"))?;
            let current = stored(place, &found)?;
            if current.is(&candidate) {
                return Ok(Output { current: Some(current.generation()), ..Output::default() });
            }
            let turn = &rotation.turn;
            let expected = [&turn.old, &turn.new].into_iter().flatten().any(|known| known.version == current.version);
            if !expected && !self.is_ours(rotation, &current).await? {
                return Err(refused("somebody else wrote the secret meanwhile"));
            }
            let fields = found.content()?.holding(place, candidate.value.expose_secret(), candidate.user.as_deref());
            if let Written::Version(version, request) =
                self.kv.write(&place.mount, &place.path, fields, current.version).await?
            {
                let current = Some(Generation { version, user: candidate.user.clone() });
                return Ok(Output { current, request_ids: request.into_iter().collect(), ..Output::default() });
            }
        }
        Err(again("others keep writing the secret"))
    }

    /// Writes the old value anew, where the promoted one still stands.
    async fn revert(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let (place, turn) = (&rotation.recipe.place, &rotation.turn);
        let (Some(old), Some(new)) = (&turn.old, &turn.new) else { return Err(refused("nothing was promoted")) };
        let old = self.find(place, Which::Version(old.version)).await?;
        let old = old.ok_or_else(|| refused("the old value is not stored any more"))?;
        let found = self.kv.read(&place.mount, &place.path, None).await?.filter(Secret::is_readable);
        let found = found.ok_or_else(|| refused("consumers read nothing there any more"))?;
        let current = stored(place, &found)?;
        if current.is(&old) {
            return Ok(Output { current: Some(current.generation()), ..Output::default() });
        }
        if current.version != new.version {
            return Err(refused("somebody else wrote the secret meanwhile"));
        }
        let fields = found.content()?.holding(place, old.value.expose_secret(), old.user.as_deref());
        match self.kv.write(&place.mount, &place.path, fields, current.version).await? {
            Written::Version(version, request) => {
                let current = Some(Generation { version, user: old.user.clone() });
                Ok(Output { current, request_ids: request.into_iter().collect(), ..Output::default() })
            }
            Written::Outdated => Err(again("somebody wrote the secret at the same time")),
        }
    }

    /// Whether a value is the case's old one (another field was written meanwhile) or one of its candidates.
    async fn is_ours(&self, rotation: &Rotation, current: &Stored) -> Result<bool, Failure> {
        let place = &rotation.recipe.place;
        if let Some(old) = &rotation.turn.old
            && let Some(old) = self.find(place, Which::Version(old.version)).await?
            && old.is(current)
        {
            return Ok(true);
        }
        let side = side(place);
        let newest = self.kv.read(&place.mount, &side, None).await?.map_or(0, |found| found.version);
        for version in (1..=newest).rev().take(KEPT as usize) {
            let found = self.kv.read(&place.mount, &side, Some(version)).await?.filter(Secret::is_readable);
            if let Some(found) = found
                && stored(place, &found).is_ok_and(|candidate| candidate.is(current))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same of a version between the old and the new one: another field was written, or an older plan promoted.
    async fn is_ours_at(&self, rotation: &Rotation, version: i64) -> Result<bool, Failure> {
        match self.find(&rotation.recipe.place, Which::Version(version)).await {
            Ok(Some(one)) => self.is_ours(rotation, &one).await,
            Ok(None) => Ok(false),
            // It is not as the recipe says: somebody else's.
            Err(failure) if failure.kind == FailureKind::Refused => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Those of the versions whose values are such; what cannot be read as the recipe says is somebody else's.
    async fn alike(
        &self,
        place: &Place,
        versions: &[i64],
        is_such: impl Fn(&Stored) -> bool,
    ) -> Result<Vec<i64>, Failure> {
        let mut all = Vec::new();
        for version in versions {
            match self.find(place, Which::Version(*version)).await {
                Ok(Some(one)) if is_such(&one) => all.push(*version),
                Ok(_) => {}
                Err(failure) if failure.kind == FailureKind::Refused => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(all)
    }

    /// Destroys what is stored of the old value, then the candidates. What was written after the case looked, by anybody
    /// else, stays.
    async fn destroy(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let place = &rotation.recipe.place;
        let mut output = Output::default();
        // By what the place holds of the old value: so it comes last.
        self.destroy_copies(rotation, &mut output).await?;
        if place.store() != self.own() {
            return Ok(output);
        }
        check_place(place)?;
        if let Some(versions) = self.kv.versions(&place.mount, &place.path).await? {
            let (old, new) = (rotation.turn.old.as_ref(), rotation.turn.new.as_ref());
            let known = [old, new].into_iter().flatten().map(|one| one.version).max().unwrap_or(0);
            let stored = |version: &i64| versions.all.get(version).is_some_and(|state| *state != Version::Destroyed);
            let mut doomed: Vec<i64> = Vec::new();
            match (old, new) {
                // It was forgotten as a whole, and written again: the numbers mean other values now.
                _ if versions.newest < known => {}
                // Nothing takes its place: no value of it stays.
                (Some(old), new) if rotation.ends => {
                    let last = new.map_or(old.version, |new| new.version.max(old.version));
                    doomed.extend(versions.all.range(..=last).map(|(version, _)| *version));
                    if versions.all.range(last + 1..).any(|(_, state)| *state != Version::Destroyed) {
                        output.residue.push(Residue::OldValueStored);
                    }
                }
                (Some(old), Some(new)) if old.version < new.version && old.version != versions.newest => {
                    let goes =
                        |version: &i64| rotation.turn.left.iter().chain([old]).any(|goes| goes.version == *version);
                    let first = rotation.turn.first().unwrap_or(old.version);
                    let all = versions.all.range(first..new.version).map(|(version, _)| *version).filter(stored);
                    let (known, between): (Vec<i64>, Vec<i64>) = all.partition(goes);
                    doomed.extend(known);
                    // It was written anew when it was given back: then it stands before that as well.
                    let before = versions.all.range(..first).rev().map(|(version, _)| *version).filter(stored);
                    let before: Vec<i64> = before.take(BEFORE).collect();
                    if !before.is_empty()
                        && let Some(old) = self.find(place, Which::Version(old.version)).await?
                    {
                        doomed.extend(self.alike(place, &before, |one| old.is(one)).await?);
                    }
                    if between.len() > BETWEEN {
                        output.residue.push(Residue::OldValueStored);
                    }
                    for version in between.into_iter().take(BETWEEN) {
                        if self.is_ours_at(rotation, version).await? {
                            doomed.push(version);
                        }
                    }
                }
                // An agent that reads its own user's value already: what it shared stands only in earlier versions.
                (Some(old), None) if rotation.share.is_some() => {
                    let before = versions.all.range(..old.version).rev().map(|(version, _)| *version).filter(stored);
                    let before: Vec<i64> = before.take(BEFORE).collect();
                    let users = rotation.recipe.users.names();
                    let shared = users.first().copied();
                    doomed.extend(self.alike(place, &before, |one| one.user.as_deref() == shared).await?);
                }
                // Retired: nothing replaces it.
                (old, None) if rotation.contains => {
                    let hollow = versions.all.get(&versions.newest) != Some(&Version::Readable);
                    let last = old.map_or(if hollow { versions.newest } else { 0 }, |old| old.version);
                    doomed.extend(versions.all.range(..=last).map(|(version, _)| *version));
                    if versions.all.range(last + 1..).any(|(_, state)| *state != Version::Destroyed) {
                        output.residue.push(Residue::OldValueStored);
                    }
                }
                _ => output.residue.push(Residue::OldValueStored),
            }
            doomed.retain(stored);
            if !doomed.is_empty() {
                self.kv.destroy(&place.mount, &place.path, &doomed).await?;
            }
        }
        self.kv.forget(&place.mount, &side(place)).await?;
        Ok(output)
    }

    async fn discard(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let place = &rotation.recipe.place;
        check_place(place)?;
        self.kv.forget(&place.mount, &side(place)).await?;
        Ok(Output::default())
    }
}

/// Nothing happened, and the next try begins with a look.
fn again(note: &str) -> Failure {
    Failure::new(FailureKind::Unavailable, note)
}

fn rotation(subject: &Subject) -> Result<&Rotation, Failure> {
    subject.rotation.as_ref().ok_or_else(|| refused("this credential has no recipe"))
}

#[async_trait]
impl Connector for Secrets {
    fn name(&self) -> &'static str {
        Keeper::Kv.as_str()
    }

    fn system(&self) -> &str {
        &self.kv.vault.realm
    }

    fn call_timeout_ms(&self) -> i64 {
        self.kv.vault.call_timeout_ms()
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.kv.vault.bounded(false, self.look(rotation(subject)?)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let (vault, rotation) = (&self.kv.vault, rotation(subject)?);
        match act {
            Act::Create => vault.bounded(true, self.create(rotation)).await,
            Act::Promote => vault.bounded(true, self.promote(rotation)).await,
            Act::Copy => vault.bounded(true, self.copy(rotation)).await,
            Act::Revert => vault.bounded(true, self.revert(rotation)).await,
            Act::Destroy => vault.bounded(true, self.destroy(rotation)).await,
            Act::Discard => vault.bounded(true, self.discard(rotation)).await,
            _ => Err(unsupported()),
        }
    }

    async fn probe(&self, _subject: &Subject) -> Sighting {
        self.kv.vault.unsighted()
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.kv.vault.bounded(false, self.kv.check_needs()).await
    }
}

#[async_trait]
impl Store for Secrets {
    async fn read(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        self.kv.vault.bounded(false, self.find(place, which)).await
    }

    async fn keep(&self, rotation: &Rotation, minted: &Stored) -> Result<Output, Failure> {
        let put = self.put_candidate(rotation, minted.user.as_deref(), || minted.value.clone());
        self.kv.vault.bounded(true, put).await
    }

    async fn earlier(&self, place: &Place, last: i64, most: usize) -> Result<Vec<Stored>, Failure> {
        let mut values = Vec::new();
        // Version 0 would mean the newest of all.
        for version in (1..=last).rev().take(most) {
            values.extend(self.read(place, Which::Version(version)).await?);
        }
        Ok(values)
    }
}
