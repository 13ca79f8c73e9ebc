//! `aws-secret`: AWS Secrets Manager as the store of rotations.
//!
//! A version has an id without an order; its number here is the millisecond in which AWS made it. Consumers read the
//! version with the label AWSCURRENT. A candidate is a version of its own with the label AWSPENDING, as in AWS's own
//! rotations, and one of ours, by which it is known for Curfew's; its id is the key of the step that made it, so that it is
//! made once. AWSCURRENT is only moved from the version that was looked at: else AWS refuses.
//!
//! AWS destroys no single version: one without labels goes when there are a hundred newer ones. What stays stored of an old
//! value is said as a residue.
//!
//! Facts: AWS's Secrets Manager API reference (2017-10-17), and moto for what it has of it. Never run against AWS itself.

mod copies;
mod engine;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::{Account, AwsSettings, CALLS};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Generation, Level, Observation, Output, Presence, Residue, Sighting};
use crate::clock;
use crate::connector::candidate::candidate;
use crate::connector::copies::leave;
use crate::connector::recipe::{Keeper, Place, Rotation, Store, Stored, Which};
use crate::connector::vault::ConnectError;
use crate::connector::{Connector, Failure, Subject, within};
use crate::pace::Quota;
use crate::probe::Settle;
use engine::OURS;
pub(super) use engine::{By, Described, Found, PENDING};
pub(crate) use engine::{CURRENT, Listed, PREVIOUS};

/// So old a candidate of somebody else's is left over from a rotation that ended half-way.
const STALE_MS: i64 = 86_400_000;

/// The secrets of one account's recipes, in one Region.
pub struct Secrets {
    account: Account,
    places: Vec<Place>,
}

/// Makes an account's store, for the recipes whose values are at `places`, or copied there. Nothing is called before it is
/// needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &AwsSettings,
    clock: clock::Shared,
    places: &[Place],
) -> Result<Arc<dyn Store>, ConnectError> {
    for (at, place) in places.iter().enumerate() {
        check_place(place).map_err(|failure| ConnectError::Settings(failure.note))?;
        if places[..at].iter().any(|other| other.path == place.path) {
            let note = "two recipes rotate fields of one secret: give each a secret of its own";
            return Err(ConnectError::Settings(note.to_owned()));
        }
    }
    Ok(Arc::new(Secrets::open(target, settings, clock, places).await?))
}

fn check_place(place: &Place) -> Result<(), Failure> {
    place.check_secret().map_err(refused)
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

/// Nothing happened, and the next try begins with a look.
fn again(note: &str) -> Failure {
    Failure::new(FailureKind::Unavailable, note)
}

fn rotation(subject: &Subject) -> Result<&Rotation, Failure> {
    subject.rotation.as_ref().ok_or_else(|| refused("this credential has no recipe"))
}

/// What a version holds at a place.
fn stored(place: &Place, found: &Found) -> Result<Stored, Failure> {
    found.content.stored(place, found.number)
}

impl Secrets {
    /// As [`connect`], for who only reads: without places.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn open(
        target: &str,
        settings: &AwsSettings,
        clock: clock::Shared,
        places: &[Place],
    ) -> Result<Self, ConnectError> {
        Ok(Self { account: Account::open(target, settings, clock).await?, places: places.to_vec() })
    }

    /// The account, as it is called.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Where the recipes' values are.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The version that consumers read.
    async fn current(&self, place: &Place) -> Result<Option<Found>, Failure> {
        check_place(place)?;
        self.version(&place.path, By::Label(CURRENT)).await
    }

    /// The same, where there has to be one.
    async fn needed(&self, place: &Place) -> Result<Found, Failure> {
        self.current(place).await?.ok_or_else(|| refused("consumers read nothing there any more"))
    }

    async fn find(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        check_place(place)?;
        let name = &place.path;
        let found = match which {
            Which::Candidate => self.version(name, By::Label(PENDING)).await?,
            Which::Current => self.version(name, By::Label(CURRENT)).await?,
            Which::Version(number) => self.numbered(name, number).await?,
        };
        let Some(found) = found else { return Ok(None) };
        // Whoever rotates it otherwise has the same label, and ids of the same form.
        let is_ours = which == Which::Candidate && found.labels.iter().any(|label| label == OURS);
        let key = is_ours.then(|| Uuid::parse_str(&found.id).ok()).flatten();
        Ok(Some(Stored { key, ..stored(place, &found)? }))
    }

    async fn look(&self, rotation: &Rotation) -> Result<Observation, Failure> {
        let place = &rotation.recipe.place;
        let mut seen = Observation { at_ms: self.account.clock.wall_ms(), ..Observation::default() };
        seen.presence = Presence::Gone;
        if let Some(found) = self.current(place).await? {
            seen.presence = Presence::Present;
            seen.issued_ms = Some(found.number);
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
        let key = rotation.candidate.ok_or_else(|| refused("this plan makes no candidate"))?.to_string();
        let known = self.described(&place.path).await?;
        let known = known.ok_or_else(|| refused("there is no such secret any more"))?;
        if known.holder(PENDING) == Some(&key) {
            return Ok(Output::default());
        }
        if self.version(&place.path, By::Id(&key)).await?.is_some() {
            return Err(refused("somebody else took the label AWSPENDING off the candidate"));
        }
        let current = self.needed(place).await?;
        if let Some(other) = known.holder(PENDING).filter(|other| **other != current.id)
            && !known.has(other, OURS)
        {
            let listed = self.list(&place.path).await?;
            let made_ms = listed.iter().find(|(_, id)| id == other).map(|(number, _)| *number);
            let age_ms = made_ms.map(|made_ms| self.account.clock.wall_ms().saturating_sub(made_ms));
            if age_ms.is_none_or(|age_ms| age_ms < STALE_MS) {
                return Err(refused("somebody else rotates this secret: another version has the label AWSPENDING"));
            }
            tracing::warn!(target = self.account.target, secret = place.path, "a stale AWSPENDING is taken over");
        }
        let content = current.content.holding(place, make().expose_secret(), user);
        self.put(&place.path, &key, content, &[PENDING, OURS]).await
    }

    async fn promote(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let place = &rotation.recipe.place;
        let candidate = rotation.candidate().await?;
        let key = candidate.key.ok_or_else(|| refused("the stored candidate is another case's"))?.to_string();
        let current = self.needed(place).await?;
        let done = |request_ids| Output { current: Some(candidate.generation()), request_ids, ..Output::default() };
        if current.id == key {
            return Ok(done(Vec::new()));
        }
        let turn = &rotation.turn;
        let expected = [&turn.old, &turn.new].into_iter().flatten().any(|known| known.version == current.number);
        // What was written before the candidate was made may be in it as well.
        let is_within =
            self.is_old(rotation, &current).await? && self.is_in_candidate(place, &candidate, &current).await?;
        if !expected && !is_within {
            return Err(refused("somebody else wrote the secret meanwhile"));
        }
        self.make_current(&place.path, &current.id, &key).await.map(done)
    }

    /// Whether the candidate is what consumers read now, but for the value.
    async fn is_in_candidate(&self, place: &Place, candidate: &Stored, current: &Found) -> Result<bool, Failure> {
        let Some(found) = self.version(&place.path, By::Label(PENDING)).await? else { return Ok(false) };
        let user = candidate.user.as_deref();
        Ok(current.content.holding(place, candidate.value.expose_secret(), user).0 == found.content.0)
    }

    /// Whether a version holds the old value: another field was written.
    async fn is_old(&self, rotation: &Rotation, current: &Found) -> Result<bool, Failure> {
        let (place, Some(old)) = (&rotation.recipe.place, &rotation.turn.old) else { return Ok(false) };
        let Some(old) = self.find(place, Which::Version(old.version)).await? else { return Ok(false) };
        Ok(stored(place, current).is_ok_and(|current| current.is(&old)))
    }

    /// Writes the old value anew, where the promoted one still stands: numbers only grow.
    async fn revert(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let (place, turn) = (&rotation.recipe.place, &rotation.turn);
        let (Some(old), Some(new)) = (&turn.old, &turn.new) else { return Err(refused("nothing was promoted")) };
        let old = self.find(place, Which::Version(old.version)).await?;
        let old = old.ok_or_else(|| refused("the old value is not stored any more"))?;
        let found = self.needed(place).await?;
        let current = stored(place, &found)?;
        if current.is(&old) {
            return Ok(Output { current: Some(current.generation()), ..Output::default() });
        }
        if current.version != new.version {
            return Err(refused("somebody else wrote the secret meanwhile"));
        }
        let content = found.content.holding(place, old.value.expose_secret(), old.user.as_deref());
        let (version, request_ids) = self.replace(&place.path, &found, content, "revert", &[PENDING, OURS]).await?;
        let current = Some(Generation { version, user: old.user });
        Ok(Output { current, request_ids, ..Output::default() })
    }

    /// Takes the labels off the old value, and says that it stays stored.
    async fn destroy(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let place = &rotation.recipe.place;
        let mut output = Output::default();
        // By what the place holds of the old value: so it comes last.
        self.strip_copies(rotation, &mut output).await?;
        if place.store() != (Keeper::AwsSecret, &self.account.target) {
            return Ok(output);
        }
        check_place(place)?;
        let turn = &rotation.turn;
        let goes = |number: i64| turn.left.iter().chain(&turn.old).any(|goes| goes.version == number);
        if let Some(known) = self.described(&place.path).await? {
            if turn.new.is_some() && !rotation.ends {
                self.strip(&place.path, PREVIOUS, &known, |found| Ok(goes(found.number))).await?;
            }
            let is_over = |found: &Found| {
                let is_current = known.holder(PENDING) == known.holder(CURRENT);
                Ok(is_current || (rotation.ends && found.labels.iter().any(|label| label == OURS)))
            };
            self.strip(&place.path, PENDING, &known, is_over).await?;
        }
        let left = self.list(&place.path).await?;
        if rotation.ends || turn.old.is_none() || left.iter().any(|(number, _)| goes(*number)) {
            leave(&mut output);
        }
        Ok(output)
    }

    /// From here on nobody takes the candidate for one: the target has the old value.
    async fn discard(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let place = &rotation.recipe.place;
        check_place(place)?;
        if let Some(known) = self.described(&place.path).await? {
            let is_ours = known.holder(PENDING).is_some_and(|id| known.has(id, OURS));
            self.strip(&place.path, PENDING, &known, |_| Ok(is_ours)).await?;
        }
        Ok(Output::default())
    }

    pub(super) async fn within<T>(
        &self,
        kind: FailureKind,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        within(self.whole(), kind, Box::pin(call)).await
    }

    /// For all calls of one step.
    fn whole(&self) -> Duration {
        self.account.timeout * u32::try_from(CALLS).unwrap_or(1)
    }
}

#[async_trait]
impl Connector for Secrets {
    fn name(&self) -> &'static str {
        Keeper::AwsSecret.as_str()
    }

    fn system(&self) -> &str {
        &self.account.target
    }

    fn call_timeout_ms(&self) -> i64 {
        i64::try_from(self.whole().as_millis()).unwrap_or(i64::MAX)
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    fn quotas(&self) -> Vec<Arc<Quota>> {
        self.account.client.quotas.all()
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.within(FailureKind::Unavailable, self.look(rotation(subject)?)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let (doubt, rotation) = (FailureKind::Unknown, rotation(subject)?);
        match act {
            Act::Create => self.within(doubt, self.create(rotation)).await,
            Act::Promote => self.within(doubt, self.promote(rotation)).await,
            Act::Copy => self.within(doubt, self.copy(rotation)).await,
            Act::Revert => self.within(doubt, self.revert(rotation)).await,
            Act::Destroy => self.within(doubt, self.destroy(rotation)).await,
            Act::Discard => self.within(doubt, self.discard(rotation)).await,
            _ => Err(refused("this connector has no such step")),
        }
    }

    /// A store proves nothing: what a value opens does.
    async fn probe(&self, _subject: &Subject) -> Sighting {
        let at_ms = self.account.clock.wall_ms();
        let (answer, residue): (_, Vec<Residue>) = (Answer::Unknown, Vec::new());
        Sighting { level: Level::Issuer, answer, at_ms, control: false, residue, request_id: None }
    }

    /// Our login works, is of the account that it must be of, and may read what is rotated.
    async fn self_check(&self) -> Result<(), Failure> {
        let check = async {
            self.account.client.ask_identity().await?;
            for place in &self.places {
                self.described(&place.path).await?;
            }
            Ok(())
        };
        self.within(FailureKind::Unavailable, check).await
    }
}

#[async_trait]
impl Store for Secrets {
    async fn read(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        self.within(FailureKind::Unavailable, self.find(place, which)).await
    }

    async fn keep(&self, rotation: &Rotation, minted: &Stored) -> Result<Output, Failure> {
        let put = self.put_candidate(rotation, minted.user.as_deref(), || minted.value.clone());
        self.within(FailureKind::Unknown, put).await
    }

    async fn earlier(&self, place: &Place, last: i64, most: usize) -> Result<Vec<Stored>, Failure> {
        self.within(FailureKind::Unavailable, self.before(place, last, most)).await
    }
}
