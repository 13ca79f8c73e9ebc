//! `vault-static-role`: static roles of the database engine, as the store of rotations that mint.
//!
//! Vault makes another password, sets it at the database and hands it out, in one call without a body. The call is not
//! idempotent: what tells one rotation from the next is the time of the last one, which is the version here. It is
//! recorded before and compared after: another time than the recorded ones means that it has been done, by us or by
//! somebody else, which serves as well. A 500 may still happen by itself, and a half-made one is mended by the next.
//!
//! Vault keeps no password but the newest. So the old one is read before it goes and remembered in this process alone,
//! for the login that proves it dead; what was to be destroyed is that memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::rights::Need;
use super::{Vault, exact, odd, time_ms, unsupported};
use crate::case::plan::Act;
use crate::case::record::{FailureKind, Generation, Observation, Output, Presence, Residue, Sighting};
use crate::connector::recipe::{Keeper, Place, Rotation, Store, Stored, Which};
use crate::connector::wiped::Wiped;
use crate::connector::{Connector, Failure, Subject};
use crate::probe::Settle;

/// Where consumers read the password of a static role, below its mount.
pub const CREDS: &str = "static-creds/";
/// The field that holds it.
pub const FIELD: &str = "password";
/// A case that was left alone ends nothing: what is remembered for it is dropped after this time.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// A static role, without its password.
pub(crate) struct Known {
    /// The time of its last rotation; 0: Vault has not rotated it yet.
    pub(crate) version: i64,
    /// The user at the database.
    pub(crate) user: String,
    /// Vault's id of the request.
    pub(crate) request_id: Option<String>,
}

/// The static roles of one realm's recipes.
pub struct StaticRoles {
    vault: Arc<Vault>,
    needs: Vec<Need>,
    /// Old passwords of rotations under way: one for each role at most.
    memory: Mutex<HashMap<Place, Old>>,
}

struct Old {
    version: i64,
    value: SecretString,
    since: Instant,
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

/// The role of a place.
fn role(place: &Place) -> Result<&str, Failure> {
    let name = place.path.strip_prefix(CREDS).filter(|name| !name.is_empty() && !name.contains('/'));
    name.ok_or_else(|| refused("the path names no static role"))
}

/// Checks where a value is stored.
///
/// # Errors
/// `Refused`: it names no single static role.
pub fn check_place(place: &Place) -> Result<(), Failure> {
    exact(&place.mount)?;
    exact(role(place)?)?;
    if place.keeper != Keeper::StaticRole || place.field != FIELD || place.user_field.is_some() {
        return Err(refused("a static role hands out one password, of one user"));
    }
    Ok(())
}

/// What our policy must allow for a place.
fn needs(place: &Place, enforce: bool) -> Result<Vec<Need>, Failure> {
    let (mount, role) = (&place.mount, role(place)?);
    let need = |what: &str, rights| Need { path: format!("{mount}/{what}/{role}"), rights };
    let mut all = vec![need("static-roles", &["read"]), need("static-creds", &["read"])];
    if enforce {
        all.push(need("rotate-role", &["update"]));
    }
    Ok(all)
}

fn known(data: &Value, request_id: Option<String>) -> Result<Known, Failure> {
    let user = data["username"].as_str().ok_or_else(odd)?.to_owned();
    Ok(Known { version: time_ms(&data["last_vault_rotation"]).unwrap_or(0), user, request_id })
}

impl Vault {
    /// Looks at a static role. `None`: there is no such role, or no such mount.
    pub(crate) async fn static_role(&self, mount: &str, role: &str, needs: &[Need]) -> Result<Option<Known>, Failure> {
        let raw = Raw::get(format!("{mount}/static-roles/{role}"));
        match self.ask(Call::StaticRole, raw).await {
            Meaning::Done { mut data, request_id } => known(&data["data"].take(), request_id).map(Some),
            Meaning::Gone => Ok(None),
            other => Err(self.static_failure(other, needs).await),
        }
    }

    /// What a static role hands out. `None`: there is no such role.
    pub(crate) async fn static_creds(
        &self,
        mount: &str,
        role: &str,
        needs: &[Need],
    ) -> Result<Option<(Known, SecretString)>, Failure> {
        let raw = Raw::get(format!("{mount}/static-creds/{role}"));
        match self.ask(Call::StaticCreds, raw).await {
            Meaning::Done { mut data, request_id } => {
                let data = Wiped(data["data"].take());
                let password = data.0[FIELD].as_str();
                let value = password.ok_or_else(|| refused("this static role hands out no password"))?;
                Ok(Some((known(&data.0, request_id)?, SecretString::from(value))))
            }
            Meaning::Gone => Ok(None),
            other => Err(self.static_failure(other, needs).await),
        }
    }

    async fn static_failure(&self, meaning: Meaning, needs: &[Need]) -> Failure {
        match meaning {
            Meaning::Forbidden => self.out_of_reach(needs).await,
            Meaning::Failed(failure) => failure,
            Meaning::Done { .. } | Meaning::Gone | Meaning::Outdated | Meaning::Unclear(_) => odd(),
        }
    }
}

/// P6: the role is of the user that the recipe names. A role that was made anew for another one is not ours.
fn same_user(rotation: &Rotation, known: &Known) -> Result<(), Failure> {
    if rotation.recipe.users.names() == [known.user.as_str()] {
        Ok(())
    } else {
        Err(refused("the static role is of another user than the recipe says"))
    }
}

impl StaticRoles {
    /// The store, on a login, for the recipes whose values are at `places`.
    ///
    /// # Errors
    /// `Refused`: a place that names no static role, or two the same: each would undo what the other did.
    pub fn new(vault: Arc<Vault>, places: &[Place]) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for (at, place) in places.iter().enumerate() {
            check_place(place)?;
            if places[..at].contains(place) {
                return Err(refused("two recipes rotate one static role"));
            }
            all.extend(needs(place, vault.enforce)?);
        }
        Ok(Self { vault, needs: all, memory: Mutex::default() })
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Old>> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.retain(|_, old| old.since.elapsed() < REMEMBERED);
        memory
    }

    fn remembered(&self, place: &Place, version: i64) -> Option<Stored> {
        let memory = self.memory();
        let old = memory.get(place).filter(|old| old.version == version)?;
        Some(Stored { version, user: None, value: old.value.clone(), key: None })
    }

    async fn look_at(&self, place: &Place) -> Result<Option<Known>, Failure> {
        check_place(place)?;
        self.vault.static_role(&place.mount, role(place)?, &self.needs).await
    }

    async fn current(&self, place: &Place) -> Result<Option<(Known, SecretString)>, Failure> {
        check_place(place)?;
        self.vault.static_creds(&place.mount, role(place)?, &self.needs).await
    }

    async fn look(&self, rotation: &Rotation) -> Result<Observation, Failure> {
        let mut seen = self.vault.blank();
        seen.presence = Presence::Gone;
        if let Some(known) = self.look_at(&rotation.recipe.place).await? {
            same_user(rotation, &known)?;
            seen.presence = Presence::Present;
            seen.issued_ms = Some(known.version).filter(|version| *version > 0);
            seen.current = Some(Generation { version: known.version, user: None });
            seen.request_id = known.request_id;
        }
        Ok(seen)
    }

    async fn mint(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let (place, turn) = (&rotation.recipe.place, &rotation.turn);
        let old = turn.old.as_ref().ok_or_else(|| refused("consumers read nothing that could be replaced"))?;
        let is_known = |version: i64| {
            [turn.old.as_ref(), turn.new.as_ref()].into_iter().flatten().any(|one| one.version == version)
        };
        let done = |known: Known, requests: Vec<String>| Output {
            current: Some(Generation { version: known.version, user: None }),
            request_ids: requests,
            ..Output::default()
        };
        let (before, value) = self.current(place).await?.ok_or_else(|| refused("Vault has no such static role"))?;
        same_user(rotation, &before)?;
        if !is_known(before.version) {
            return Ok(done(before, Vec::new()));
        }
        if before.version == old.version {
            let remembered = Old { version: old.version, value, since: Instant::now() };
            self.memory().insert(place.clone(), remembered);
        }
        let raw = Raw::post(format!("{}/rotate-role/{}", place.mount, role(place)?), json!({}));
        let request_id = match self.vault.ask(Call::StaticRotate, raw).await {
            Meaning::Done { request_id, .. } => request_id,
            Meaning::Gone => return Err(refused("Vault has no such static role")),
            other => return Err(self.vault.static_failure(other, &self.needs).await),
        };
        // It is done, so no failure from here on may say that nothing happened.
        let unknown = |note: &str| Failure::new(FailureKind::Unknown, note);
        let after = self.look_at(place).await.map_err(|failure| unknown(&failure.note))?;
        match after {
            Some(after) if !is_known(after.version) => Ok(done(after, request_id.into_iter().collect())),
            _ => Err(unknown("Vault rotated, and does not show it")),
        }
    }

    /// The old password is in no store: what is remembered of it goes. Where nothing takes its place, Vault goes on handing
    /// out the newest one, of a user that cannot log in.
    fn forget(&self, rotation: &Rotation) -> Output {
        self.memory().remove(&rotation.recipe.place);
        let residue = if rotation.ends { vec![Residue::OldValueStored] } else { Vec::new() };
        Output { residue, ..Output::default() }
    }
}

fn rotation(subject: &Subject) -> Result<&Rotation, Failure> {
    subject.rotation.as_ref().ok_or_else(|| refused("this credential has no recipe"))
}

#[async_trait]
impl Connector for StaticRoles {
    fn name(&self) -> &'static str {
        Keeper::StaticRole.as_str()
    }

    fn system(&self) -> &str {
        &self.vault.realm
    }

    fn call_timeout_ms(&self) -> i64 {
        self.vault.call_timeout_ms()
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.vault.bounded(false, self.look(rotation(subject)?)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let rotation = rotation(subject)?;
        match act {
            Act::Mint => self.vault.bounded(true, self.mint(rotation)).await,
            Act::Destroy | Act::Discard => Ok(self.forget(rotation)),
            _ => Err(unsupported()),
        }
    }

    async fn probe(&self, _subject: &Subject) -> Sighting {
        self.vault.unsighted()
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.vault.bounded(false, self.vault.check_needs(&self.needs)).await
    }
}

#[async_trait]
impl Store for StaticRoles {
    async fn read(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        let wanted = match which {
            // A minted value is never anything but current.
            Which::Candidate => return Ok(None),
            Which::Current => None,
            Which::Version(version) => Some(version),
        };
        if let Some(old) = wanted.and_then(|version| self.remembered(place, version)) {
            return Ok(Some(old));
        }
        let current = self.vault.bounded(false, self.current(place)).await?;
        let current = current.filter(|(known, _)| wanted.is_none_or(|version| version == known.version));
        Ok(current.map(|(known, value)| Stored { version: known.version, user: Some(known.user), value, key: None }))
    }

    async fn keep(&self, _rotation: &Rotation, _minted: &Stored) -> Result<Output, Failure> {
        Err(unsupported())
    }

    /// Nobody asks: what Vault hands out has no copies.
    async fn earlier(&self, _place: &Place, _last: i64, _most: usize) -> Result<Vec<Stored>, Failure> {
        Ok(Vec::new())
    }
}
