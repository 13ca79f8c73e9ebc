//! `aws-user`: the access key of an IAM user that consumers read from a store: another one takes its place, then it is
//! disabled, seen dead, and deleted.
//!
//! IAM makes keys and names them, tells their secret once, and takes no token by which a repeated call would be known. So the
//! case records which keys the user had when it first looked ([`Turn::keys`]). One that came
//! since, in the time in which this case ran, that nobody ever used and that no store has, is one of ours whose answer was
//! lost: it is disabled and deleted. Any other is somebody else's, and holds the case.
//!
//! Facts: IAM's API reference (2010-05-08): at most two access keys for a user; `CreateAccessKey` has no idempotency token;
//! the secret is in its answer only; changes are seen everywhere after some seconds.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::operation::RequestId as _;
use aws_sdk_iam::types::StatusType;
use secrecy::SecretString;

use super::name::{KeyName, last};
use super::{Account, Listed, MOST_KEYS};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Generation, Level, Observation, Output, Presence, Residue, Sighting};
use crate::case::turn::Turn;
use crate::connector::many;
use crate::connector::recipe::{Rotation, Stored, Users, Which, of_store};
use crate::connector::{Connector, Failure, Gate, Subject};
use crate::credential::Kind;
use crate::pace::Quota;
use crate::probe::Settle;

/// Clocks that differ: IAM's, in whole seconds, and ours.
const SKEW_MS: i64 = 5_000;
/// So long IAM may take until it knows a new key everywhere.
const KNOWN_AFTER_MS: i64 = 60_000;
/// How often a new key is tried.
const AGAIN_MS: i64 = 2_000;

/// Stands for any key of a user.
const ANY_KEY: &str = "AKIA0000000000000000";
const NO_ROOM: &str = "the user has two keys, and IAM lets it have no third: delete the one that nobody uses";

/// See the top.
pub struct UserKeys(pub(super) Account);

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

fn rotation(subject: &Subject) -> Result<(&Rotation, &str), Failure> {
    let rotation = subject.rotation.as_ref().ok_or_else(|| refused("this credential has no recipe"))?;
    match &rotation.recipe.users {
        Users::Keys(user) => Ok((rotation, user)),
        _ => Err(refused("the recipe names no user of IAM")),
    }
}

/// The ids of the keys that go: by the versions that hold them. Never the one that consumers read by now.
fn going(rotation: &Rotation) -> Vec<&str> {
    let turn = &rotation.turn;
    let stays = turn.new.as_ref().filter(|_| !rotation.ends).and_then(|new| new.user.as_deref());
    let all = turn.old.iter().chain(&turn.left).chain(turn.new.iter().filter(|_| rotation.ends));
    // Nothing takes its place: so what was to goes as well.
    let made = turn.made.iter().map(String::as_str).filter(|_| rotation.ends);
    let all = all.filter_map(|goes| goes.user.as_deref()).chain(made);
    let mut ids: Vec<&str> = all.filter(|id| Some(*id) != stays).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Until when what is opened with a new key may be denied along with the leaked one's sessions: that policy reaches to when the
/// leaked key is seen dead, and was written before the new one was set.
fn denied_until_ms(turn: &Turn, contains: bool, window_ms: i64) -> Option<i64> {
    turn.set_ms.filter(|_| contains).map(|set_ms| set_ms.saturating_add(window_ms))
}

impl UserKeys {
    fn key(user: &str, id: &str) -> Result<KeyName, Failure> {
        KeyName::new(user, id).ok_or_else(|| refused("what stands beside the stored value is no access key id"))
    }

    /// A policy is called after one of the keys that go: what it cuts is all of the user's.
    fn of_going(rotation: &Rotation, user: &str) -> Result<KeyName, Failure> {
        Self::key(user, going(rotation).first().copied().unwrap_or(ANY_KEY))
    }

    /// The user's keys, where it is ours to touch and still stands at its path.
    async fn listed(&self, user: &str) -> Result<Vec<Listed>, Failure> {
        // Any key of the user says whose it is.
        let name = KeyName::new(user, ANY_KEY).ok_or_else(|| refused("no user is called so"))?;
        self.0.ours(&name).await?;
        self.0.keys(user).await?.ok_or_else(|| Failure::new(FailureKind::Gone, "the user is gone"))
    }

    async fn look(&self, user: &str) -> Result<Observation, Failure> {
        let name = KeyName::new(user, ANY_KEY).ok_or_else(|| refused("no user is called so"))?;
        let mut seen = Observation { at_ms: self.0.clock.wall_ms(), ..Observation::default() };
        seen.protected = self.0.protects(&name).await?;
        seen.presence = Presence::Gone;
        let Some(found) = self.0.user(name.user_name()).await? else { return Ok(seen) };
        if found.full != user {
            return Err(refused("the user has another path by now"));
        }
        (seen.presence, seen.principal_id) = (Presence::Present, Some(found.id));
        seen.quarantined = self.0.is_quarantined(user).await?;
        let keys = self.0.keys(user).await?.unwrap_or_default();
        seen.keys = Some(keys.iter().map(|key| key.name.key().to_owned()).collect());
        Ok(seen)
    }

    /// Makes a key and stores it, or finds that both were done. What an earlier try left behind goes first.
    async fn create(&self, rotation: &Rotation, user: &str) -> Result<Output, Failure> {
        let made = many::read(rotation, Which::Candidate).await?;
        let mut listed = match self.listed(user).await {
            Err(failure) if failure.kind == FailureKind::Gone => return Err(refused("there is no such user any more")),
            listed => listed?,
        };
        if let Some(made) = made.as_ref().filter(|made| made.key.is_some() && made.key == rotation.candidate) {
            if listed.iter().any(|key| made.user.as_deref() == Some(key.name.key())) {
                return Ok(Output { current: named(made.user.clone()), ..Output::default() });
            }
            // The store keeps what it has for this step: with another key it would go on saying this one.
            return Err(Failure::new(FailureKind::Rejected, "the stored key is not there any more"));
        }
        for key in self.left_behind(rotation, &listed, made.as_ref()).await? {
            self.delete(&key).await?;
            listed.retain(|one| one.name != key);
        }
        // What this case has shut already goes anyway: where it is in the way, now.
        for id in rotation.turn.left.iter().filter_map(|left| left.user.as_deref()).filter(|_| rotation.contains) {
            let is_shut = |one: &&Listed| !one.active && one.name.key() == id;
            if listed.len() >= MOST_KEYS
                && let Some(key) = listed.iter().find(is_shut).map(|one| one.name.clone())
            {
                self.delete(&key).await?;
                listed.retain(|one| one.name != key);
            }
        }
        if listed.len() >= MOST_KEYS {
            return Err(refused(NO_ROOM));
        }
        let call = self.0.client.iam.create_access_key().user_name(last(user)).send();
        let Some(said) = self.0.client.ask_for_room("iam:CreateAccessKey", call).await? else {
            return Err(self.no_room(user).await);
        };
        let request_id = said.request_id().map(str::to_owned);
        let unknown = || Failure::new(FailureKind::Unknown, "IAM's answer lacks the key");
        let key = said.access_key.ok_or_else(unknown)?;
        let name = Self::key(user, key.access_key_id())?;
        let value = SecretString::from(key.secret_access_key);
        let current = named(Some(key.access_key_id.clone()));
        let minted = Stored { version: 0, user: Some(key.access_key_id), value, key: rotation.candidate };
        if let Err(failure) = rotation.store.keep(rotation, &minted).await {
            // It may be stored: the next try finds it there, or a key that nobody has.
            if failure.kind == FailureKind::Unknown {
                return Err(Failure { blocks_system: false, ..failure });
            }
            // Nobody has its secret but us.
            self.delete(&name).await.map_err(|failure| Failure { kind: FailureKind::Unknown, ..failure })?;
            return Err(of_store(failure));
        }
        Ok(Output { current, request_ids: request_id.into_iter().collect(), ..Output::default() })
    }

    /// Why there is no room for a key. IAM counts a key that was just deleted for some seconds more.
    async fn no_room(&self, user: &str) -> Failure {
        match self.listed(user).await {
            Ok(listed) if listed.len() < MOST_KEYS => {
                Failure::new(FailureKind::Unavailable, "IAM still counts a key that it does not list any more")
            }
            Ok(_) => refused(NO_ROOM),
            Err(failure) => failure,
        }
    }

    /// Keys that this case had made, and that nobody reads: a stored candidate's, and one whose answer was lost.
    async fn left_behind(
        &self,
        rotation: &Rotation,
        listed: &[Listed],
        candidate: Option<&Stored>,
    ) -> Result<Vec<KeyName>, Failure> {
        let turn = &rotation.turn;
        let before = turn.keys.as_deref().ok_or_else(|| refused("it was not recorded which keys there were"))?;
        let known = turn.old.iter().chain(&turn.left).chain(&turn.new).filter_map(|one| one.user.as_deref());
        let current = many::read(rotation, Which::Current).await?.and_then(|current| current.user);
        let known: Vec<&str> = known.chain(current.as_deref()).collect();
        let is_new = |key: &&Listed| !before.iter().any(|id| id == key.name.key()) && !known.contains(&key.name.key());
        let (ours, unknown): (Vec<&Listed>, Vec<&Listed>) = listed.iter().filter(is_new).partition(|key| {
            let id = key.name.key();
            turn.made.contains(id)
                || candidate.is_some_and(|made| made.key.is_some() && made.user.as_deref() == Some(id))
        });
        let mut left: Vec<KeyName> = ours.into_iter().map(|key| key.name.clone()).collect();
        match unknown.as_slice() {
            [] => {}
            [orphan] if self.is_orphan(rotation, orphan).await? => left.push(orphan.name.clone()),
            _ => return Err(refused("the user has a key that came since, and that somebody else may have made")),
        }
        Ok(left)
    }

    /// Whether a key can only be ours: made while the case ran, which has lost an answer, and never used.
    async fn is_orphan(&self, rotation: &Rotation, key: &Listed) -> Result<bool, Failure> {
        if !rotation.turn.asked {
            return Ok(false);
        }
        let now_ms = self.0.clock.wall_ms();
        let since_ms = rotation.since_ms.saturating_sub(SKEW_MS);
        if !key.created_ms.is_some_and(|made_ms| made_ms >= since_ms && made_ms <= now_ms.saturating_add(SKEW_MS)) {
            return Ok(false);
        }
        let call = self.0.client.iam.get_access_key_last_used().access_key_id(key.name.key()).send();
        let Some(said) = self.0.client.look("iam:GetAccessKeyLastUsed", call).await? else { return Ok(true) };
        Ok(said.access_key_last_used().is_none_or(|used| used.last_used_date().is_none()))
    }

    /// Disabled first: a deletion that is lost half-way leaves no key that lets in.
    async fn delete(&self, key: &KeyName) -> Result<(), Failure> {
        self.inactivate(key).await?;
        let call = self.0.client.iam.delete_access_key().user_name(key.user_name()).access_key_id(key.key()).send();
        gone_is_done(self.0.client.ask("iam:DeleteAccessKey", true, call).await)
    }

    async fn inactivate(&self, key: &KeyName) -> Result<(), Failure> {
        let call = self.0.client.iam.update_access_key().user_name(key.user_name()).access_key_id(key.key());
        let call = call.status(StatusType::Inactive).send();
        gone_is_done(self.0.client.ask("iam:UpdateAccessKey", true, call).await)
    }

    /// The candidate lets in once IAM knows it everywhere, and what is opened with it then lives.
    async fn test(&self, rotation: &Rotation) -> Result<Gate, Failure> {
        let candidate = rotation.candidate().await?;
        let id = candidate.user.as_deref().ok_or_else(|| refused("the candidate has no id"))?;
        let lets_in = self.0.client.lets_in(id, &candidate.value).await?;
        let now_ms = self.0.clock.wall_ms();
        if lets_in {
            let until_ms = denied_until_ms(&rotation.turn, rotation.contains, self.0.settle.window_ms);
            let until_ms = until_ms.filter(|until_ms| now_ms < *until_ms);
            return Ok(until_ms.map_or(Gate::Open, |again_ms| Gate::Shut { again_ms }));
        }
        let since_ms = now_ms.saturating_sub(rotation.turn.set_ms.unwrap_or(now_ms));
        if since_ms < KNOWN_AFTER_MS {
            return Ok(Gate::Shut { again_ms: now_ms.saturating_add(AGAIN_MS) });
        }
        Err(Failure::new(FailureKind::Rejected, "the new key does not let in"))
    }

    /// Disables what goes. Sessions that were opened with it live on, for up to 36 hours.
    async fn disable(&self, rotation: &Rotation, user: &str) -> Result<Output, Failure> {
        let listed = self.listed(user).await?;
        let current = many::read(rotation, Which::Current).await?.and_then(|current| current.user);
        for id in going(rotation) {
            if !rotation.contains && current.as_deref() == Some(id) {
                return Err(refused("consumers read this key"));
            }
            let key = Self::key(user, id)?;
            if listed.iter().any(|one| one.name == key) {
                self.inactivate(&key).await?;
            }
        }
        for key in self.left_unread(rotation, &listed).await? {
            self.inactivate(&key).await?;
        }
        let residue = if rotation.contains { Vec::new() } else { vec![Residue::DerivedUnknown] };
        Ok(Output { residue, ..Output::default() })
    }

    /// Where all ends: keys that the case had made, and whose answers were lost.
    async fn left_unread(&self, rotation: &Rotation, listed: &[Listed]) -> Result<Vec<KeyName>, Failure> {
        if !rotation.ends || !rotation.turn.asked {
            return Ok(Vec::new());
        }
        let made = many::read(rotation, Which::Candidate).await?;
        self.left_behind(rotation, listed, made.as_ref()).await
    }

    async fn destroy(&self, rotation: &Rotation, user: &str) -> Result<Output, Failure> {
        let listed = self.listed(user).await?;
        for key in self.left_unread(rotation, &listed).await? {
            self.delete(&key).await?;
        }
        for id in going(rotation) {
            let key = Self::key(user, id)?;
            match listed.iter().find(|one| one.name == key) {
                Some(one) if one.active => return Err(refused("the key was enabled again: somebody needs it")),
                Some(_) => self.delete(&key).await?,
                None => {}
            }
        }
        Ok(Output::default())
    }

    /// No candidate of this case lets in any more.
    async fn restore(&self, rotation: &Rotation, user: &str) -> Result<Output, Failure> {
        let made = many::read(rotation, Which::Candidate).await?;
        let listed = match self.listed(user).await {
            Err(failure) if failure.kind == FailureKind::Gone => return Ok(Output::default()),
            listed => listed?,
        };
        for key in self.left_behind(rotation, &listed, made.as_ref()).await? {
            self.delete(&key).await?;
        }
        Ok(Output::default())
    }

    /// Whether any of the keys that go lets in, as IAM lists them.
    async fn sight(&self, rotation: &Rotation, user: &str) -> Result<(Answer, bool), Failure> {
        self.0.client.identity().await?;
        let goes = going(rotation);
        let Some(listed) = self.0.keys(user).await? else {
            self.0.client.ask_identity().await?;
            return Ok((Answer::Refused, true));
        };
        if goes.is_empty() {
            // An older version: which key it was, the store may still say.
            let old = many::old(rotation).await?.and_then(|old| old.user);
            let current = many::read(rotation, Which::Current).await?.and_then(|current| current.user);
            let mut active = listed.iter().filter(|key| key.active).map(|key| key.name.key());
            return Ok(match old {
                Some(old) if active.any(|id| id == old) => (Answer::Accepted, true),
                Some(_) => (Answer::Refused, true),
                // Whichever it was, it is none of those that let in.
                None if current.is_some() && active.all(|id| Some(id) == current.as_deref()) => (Answer::Refused, true),
                None => (Answer::Unknown, false),
            });
        }
        let alive = listed.iter().any(|key| key.active && goes.contains(&key.name.key()));
        Ok((if alive { Answer::Accepted } else { Answer::Refused }, true))
    }
}

fn gone_is_done<T>(answer: Result<T, Failure>) -> Result<(), Failure> {
    match answer {
        Err(failure) if failure.kind != FailureKind::Gone => Err(failure),
        _ => Ok(()),
    }
}

/// What the case remembers of a key that was made.
fn named(user: Option<String>) -> Option<Generation> {
    Some(Generation { version: 0, user })
}

#[async_trait]
impl Connector for UserKeys {
    fn name(&self) -> &'static str {
        Kind::AwsUser.as_str()
    }

    fn system(&self) -> &str {
        &self.0.target
    }

    fn call_timeout_ms(&self) -> i64 {
        self.0.call_timeout_ms()
    }

    fn settle(&self) -> Settle {
        self.0.settle
    }

    fn quotas(&self) -> Vec<Arc<Quota>> {
        self.0.quotas()
    }

    fn cut_roles(&self) -> Option<&[String]> {
        Some(self.0.cut_roles())
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        let (rotation, user) = rotation(subject)?;
        if let Some(place) = &subject.place {
            return self.0.observe_derived(&Self::of_going(rotation, user)?, place).await;
        }
        self.0.within(FailureKind::Unavailable, self.look(user)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, user) = rotation(subject)?;
        let doubt = FailureKind::Unknown;
        if let Some(role) = &subject.place {
            return self.0.perform_derived(act, &Self::of_going(rotation, user)?, role).await;
        }
        match act {
            Act::Create => self.0.within(doubt, self.create(rotation, user)).await,
            // It lets in from the moment on at which IAM made it. From now it is ours to take back.
            Act::Set => Ok(Output { done_ms: Some(self.0.clock.wall_ms()), ..Output::default() }),
            Act::Disable => self.0.within(doubt, self.disable(rotation, user)).await,
            Act::EndSessions => {
                let name = Self::of_going(rotation, user)?;
                self.0.within(doubt, self.0.deny_sessions(&name)).await
            }
            Act::Destroy => self.0.within(doubt, self.destroy(rotation, user)).await,
            Act::Restore => self.0.within(doubt, self.restore(rotation, user)).await,
            _ => Err(refused("this connector has no such step")),
        }
    }

    async fn pass(&self, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        let (rotation, _) = rotation(subject)?;
        match act {
            Act::Test => self.0.within(FailureKind::Unavailable, self.test(rotation)).await,
            Act::Adopt => Ok(many::adopted(rotation, self.0.clock.wall_ms())),
            _ => Err(refused("this connector has no such gate")),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.0.clock.wall_ms();
        let sight = async {
            let (rotation, user) = rotation(subject)?;
            self.sight(rotation, user).await
        };
        let sight = self.0.within(FailureKind::Unavailable, sight).await;
        let (answer, control) = sight.unwrap_or((Answer::Unknown, false));
        Sighting { level: Level::Issuer, answer, at_ms, control, residue: Vec::new(), request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.0.self_check().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_of_a_containment_is_kept_back_until_its_sessions_are_not_denied() {
        let turn = Turn { set_ms: Some(1_000), ..Turn::default() };
        assert_eq!(denied_until_ms(&turn, true, 30_000), Some(31_000));
        assert_eq!(denied_until_ms(&turn, false, 30_000), None, "a rollover denies nothing");
    }
}
