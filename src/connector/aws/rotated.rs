//! `aws-rotated-secret`: secrets that AWS rotates itself, by a function or a service of its own, as the store of rotations
//! that mint.
//!
//! `RotateSecret` only asks for it: the function makes a version with the label AWSPENDING, sets it at the target, tests it
//! there, and moves AWSCURRENT. So [`Act::Begin`] asks, under the step's key as the new version's id; at [`Act::Test`] it is
//! watched until another version is current than those that the case knows; and [`Act::Mint`] takes down which one. Who had
//! it rotated is all the same: another value is another value.
//!
//! No call says that a rotation failed. AWS tries it again some times by itself; what is not there in time has failed. The
//! label AWSPENDING then stays on what it made, and every later rotation is refused as one that is under way. Where nothing
//! was made (the version is empty), nothing was set at the target either, and the label is taken off. Where something was
//! made, the target may have it: only a person can tell which of the two values works, so that is said and held.
//!
//! Facts: AWS's Secrets Manager API reference (`RotateSecret`, `DescribeSecret`), and its published rotation functions. Never
//! run against AWS itself.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use aws_sdk_secretsmanager::operation::RequestId as _;
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;

use super::secrets::{By, CURRENT, Described, Found, PENDING, Secrets};
use super::{Account, AwsSettings};
use crate::case::plan::Act;
use crate::case::record::{FailureKind, Generation, Observation, Output, Presence, Residue, Sighting};
use crate::case::turn::Turn;
use crate::clock;
use crate::connector::recipe::{Keeper, Place, Rotation, Store, Stored, Which};
use crate::connector::vault::ConnectError;
use crate::connector::{Connector, Failure, Gate, Subject};
use crate::pace::Quota;
use crate::probe::Settle;

/// How AWS's own rotations are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// What is not there after this time has failed: a function runs for 15 minutes at the most.
    pub within_ms: i64,
    /// How often it is looked.
    pub every_ms: i64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { within_ms: 20 * 60_000, every_ms: 2_000 }
    }
}

/// The secrets of one account that AWS rotates, in one Region.
pub struct Rotated {
    secrets: Secrets,
    patience: Patience,
}

/// Makes the store for the recipes whose values are at `places`. Nothing is called before it is needed.
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
        place.check_secret().map_err(|why| ConnectError::Settings(why.to_owned()))?;
        if places[..at].iter().any(|other| other.path == place.path) {
            return Err(ConnectError::Settings("two recipes are of one secret that AWS rotates".to_owned()));
        }
    }
    let secrets = Secrets::open(target, settings, clock, places).await?;
    Ok(Arc::new(Rotated { secrets, patience: settings.patience }))
}

fn failed(kind: FailureKind, note: &str) -> Failure {
    Failure::new(kind, note)
}

fn refused(note: &str) -> Failure {
    failed(FailureKind::Refused, note)
}

fn rotation(subject: &Subject) -> Result<&Rotation, Failure> {
    subject.rotation.as_ref().ok_or_else(|| refused("this credential has no recipe"))
}

/// AWS is at work on this one secret, and answers for all others.
fn just_now() -> Failure {
    Failure::wait("AWS rotates this secret just now")
}

/// P6: what stands there is of a user that the recipe names.
fn same_user(rotation: &Rotation, stored: &Stored) -> Result<(), Failure> {
    match &stored.user {
        Some(user) if rotation.recipe.users.names().contains(&user.as_str()) => Ok(()),
        _ => Err(refused("AWS's rotation is of another user than the recipe says: name both, where two take turns")),
    }
}

/// Whether a version is one that the case has seen before: also one that is to die with it is no new one.
fn is_known(turn: &Turn, version: i64) -> bool {
    [&turn.old, &turn.new].into_iter().flatten().chain(&turn.left).any(|known| known.version == version)
}

impl Rotated {
    fn account(&self) -> &Account {
        self.secrets.account()
    }

    fn now_ms(&self) -> i64 {
        self.account().clock.wall_ms()
    }

    /// The secret without its values, where AWS rotates it.
    async fn described(&self, place: &Place) -> Result<DescribeSecretOutput, Failure> {
        place.check_secret().map_err(refused)?;
        let said = self.secrets.describe(&place.path).await?;
        let said = said.ok_or_else(|| refused("there is no such secret any more"))?;
        if said.deleted_date().is_some() {
            return Err(refused("the secret is scheduled for deletion: restore it, or end its rotation"));
        }
        let is_owned = said.owning_service().is_some_and(|service| !service.is_empty());
        if said.rotation_enabled() != Some(true) && !is_owned {
            return Err(refused("AWS does not rotate this secret: set its rotation up, or rotate it as a `secret`"));
        }
        Ok(said)
    }

    /// What consumers read, of one of the recipe's users.
    async fn current(&self, rotation: &Rotation) -> Result<(Found, Stored), Failure> {
        let place = &rotation.recipe.place;
        place.check_secret().map_err(refused)?;
        let found = self.secrets.version(&place.path, By::Label(CURRENT)).await?;
        let found = found.ok_or_else(|| refused("consumers read nothing there any more"))?;
        let stored = found.content.stored(place, found.number)?;
        same_user(rotation, &stored)?;
        Ok((found, stored))
    }

    async fn look(&self, rotation: &Rotation) -> Result<Observation, Failure> {
        let place = &rotation.recipe.place;
        let mut seen = Observation { at_ms: self.now_ms(), ..Observation::default() };
        seen.presence = Presence::Gone;
        place.check_secret().map_err(refused)?;
        if let Some(found) = self.secrets.version(&place.path, By::Label(CURRENT)).await? {
            let stored = found.content.stored(place, found.number)?;
            same_user(rotation, &stored)?;
            seen.presence = Presence::Present;
            seen.issued_ms = Some(found.number);
            seen.current = Some(stored.generation());
            seen.request_id = found.request_id;
        }
        Ok(seen)
    }

    /// Asks AWS to rotate, unless another value came meanwhile, or it was asked before.
    async fn begin(&self, rotation: &Rotation, key: Uuid) -> Result<Output, Failure> {
        let (name, token) = (&rotation.recipe.place.path, key.to_string());
        let known = Described::of(&self.described(&rotation.recipe.place).await?);
        let (current, stored) = self.current(rotation).await?;
        let done = |request_ids| Output { done_ms: Some(self.now_ms()), request_ids, ..Output::default() };
        if !is_known(&rotation.turn, stored.version) || known.has(&token, PENDING) {
            return Ok(done(Vec::new()));
        }
        if let Some(other) = known.holder(PENDING).filter(|other| **other != current.id) {
            Box::pin(self.take_over(name, other)).await?;
        }
        let client = &self.account().client;
        let call = client.secrets.rotate_secret().secret_id(name).client_request_token(&token).send();
        match client.ask("secretsmanager:RotateSecret", true, call).await {
            Ok(said) => Ok(done(said.request_id().map(str::to_owned).into_iter().collect())),
            // It began by itself between our look and our call.
            Err(failure) if failure.kind == FailureKind::Refused => {
                let now = Described::of(&self.described(&rotation.recipe.place).await?);
                match now.holder(PENDING) {
                    Some(other) if Some(other) != now.holder(CURRENT) => Err(just_now()),
                    _ => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// What an earlier rotation left behind: with it every further one is refused.
    async fn take_over(&self, name: &str, other: &str) -> Result<(), Failure> {
        let left = self.secrets.version(name, By::Id(other)).await?;
        let said = self.secrets.describe(name).await?;
        let changed_ms = said.and_then(|said| said.last_changed_date().and_then(|at| at.to_millis().ok()));
        let since_ms = left.as_ref().map(|left| left.number).max(changed_ms);
        let age_ms = since_ms.map_or(i64::MAX, |since_ms| self.now_ms().saturating_sub(since_ms));
        if age_ms < self.patience.within_ms {
            return Err(just_now());
        }
        if left.is_some() {
            return Err(refused(
                "a rotation by AWS was left half-way: its version has AWSPENDING, and its value may be the one that works. \
                 Try both; then move AWSCURRENT to it, or take AWSPENDING off it",
            ));
        }
        tracing::warn!(
            target = self.account().target,
            secret = name,
            "an empty AWSPENDING is taken off: nothing was made"
        );
        self.secrets.unlabel(name, PENDING, other).await
    }

    /// Whether AWS has come to the end of what was begun.
    async fn finished(&self, rotation: &Rotation) -> Result<Gate, Failure> {
        let place = &rotation.recipe.place;
        let (current, stored) = self.current(rotation).await?;
        if !is_known(&rotation.turn, stored.version) {
            return Ok(Gate::Open);
        }
        let now_ms = self.now_ms();
        let since_ms = now_ms.saturating_sub(rotation.turn.begun_ms.unwrap_or(now_ms));
        if since_ms < self.patience.within_ms {
            return Ok(Gate::Shut { again_ms: now_ms.saturating_add(self.patience.every_ms) });
        }
        let known = Described::of(&self.described(place).await?);
        let Some(pending) = known.holder(PENDING).filter(|pending| **pending != current.id) else {
            return Err(failed(FailureKind::Rejected, "AWS's rotation came to nothing"));
        };
        if self.secrets.version(&place.path, By::Id(pending)).await?.is_none() {
            self.secrets.unlabel(&place.path, PENDING, pending).await?;
            return Err(failed(FailureKind::Rejected, "AWS's rotation made no value"));
        }
        Err(refused(
            "AWS's rotation made a value, and does not come to its end: what its function says, stands in its log. The new \
             value has AWSPENDING, and may be the one that works",
        ))
    }

    /// Takes down what AWS made.
    async fn mint(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let (found, stored) = self.current(rotation).await?;
        if is_known(&rotation.turn, stored.version) {
            return Err(failed(FailureKind::Rejected, "somebody moved AWSCURRENT back"));
        }
        let current = Some(Generation { version: stored.version, user: stored.user });
        Ok(Output { current, request_ids: found.request_id.into_iter().collect(), ..Output::default() })
    }

    /// AWS has no call that destroys a version. The labels are its own rotation's.
    async fn destroy(&self, rotation: &Rotation) -> Result<Output, Failure> {
        let (place, mut output) = (&rotation.recipe.place, Output::default());
        let left = self.secrets.list(&place.path).await?;
        let goes = |number: i64| rotation.turn.left.iter().chain(&rotation.turn.old).any(|one| one.version == number);
        if rotation.ends || rotation.turn.old.is_none() || left.iter().any(|(number, _)| goes(*number)) {
            output.residue.push(Residue::OldValueStored);
        }
        Ok(output)
    }

    async fn find(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        place.check_secret().map_err(refused)?;
        let found = match which {
            // What AWS makes is read by nobody before it is current.
            Which::Candidate => return Ok(None),
            Which::Current => self.secrets.version(&place.path, By::Label(CURRENT)).await?,
            Which::Version(number) => self.secrets.numbered(&place.path, number).await?,
        };
        found.map(|found| found.content.stored(place, found.number)).transpose()
    }
}

#[async_trait]
impl Connector for Rotated {
    fn name(&self) -> &'static str {
        Keeper::AwsRotated.as_str()
    }

    fn system(&self) -> &str {
        &self.account().target
    }

    fn call_timeout_ms(&self) -> i64 {
        self.secrets.call_timeout_ms()
    }

    fn settle(&self) -> Settle {
        self.secrets.settle()
    }

    fn quotas(&self) -> Vec<Arc<Quota>> {
        self.secrets.quotas()
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.secrets.within(FailureKind::Unavailable, self.look(rotation(subject)?)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let (doubt, rotation) = (FailureKind::Unknown, rotation(subject)?);
        match act {
            Act::Begin => {
                let key = subject.key.ok_or_else(|| refused("a rotation needs the key of its step"))?;
                self.secrets.within(doubt, self.begin(rotation, key)).await
            }
            Act::Mint => self.secrets.within(doubt, self.mint(rotation)).await,
            Act::Destroy => self.secrets.within(doubt, self.destroy(rotation)).await,
            // What was made and not finished may be what works: its label stays.
            Act::Discard => Ok(Output::default()),
            _ => Err(refused("this connector has no such step")),
        }
    }

    async fn pass(&self, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        match act {
            Act::Test => self.secrets.within(FailureKind::Unavailable, self.finished(rotation(subject)?)).await,
            _ => Err(refused("this connector has no such gate")),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        self.secrets.probe(subject).await
    }

    /// Our login works, is of the account that it must be of, and AWS rotates what the recipes say.
    async fn self_check(&self) -> Result<(), Failure> {
        let check = async {
            self.account().client.ask_identity().await?;
            for place in self.secrets.places() {
                self.described(place).await?;
            }
            Ok(())
        };
        self.secrets.within(FailureKind::Unavailable, check).await
    }
}

#[async_trait]
impl Store for Rotated {
    async fn read(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        self.secrets.within(FailureKind::Unavailable, self.find(place, which)).await
    }

    async fn keep(&self, _rotation: &Rotation, _minted: &Stored) -> Result<Output, Failure> {
        Err(refused("AWS makes what stands here"))
    }

    /// Nobody asks: what AWS rotates has no copies of ours.
    async fn earlier(&self, _place: &Place, _last: i64, _most: usize) -> Result<Vec<Stored>, Failure> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_die_is_not_taken_for_a_new_value() {
        let of = |version| Generation { version, user: None };
        let turn = Turn { old: Some(of(2)), left: vec![of(1)], new: Some(of(3)), ..Turn::default() };
        assert!([1, 2, 3].iter().all(|version| is_known(&turn, *version)));
        assert!(!is_known(&turn, 4));
    }
}
