//! The connector of access keys: looks, disables, denies sessions, and looks until IAM shows nothing else any more.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::operation::RequestId as _;
use aws_sdk_iam::types::StatusType;

use super::name::KeyName;
use super::{Account, CALLS, sessions};
use crate::case::plan::{Act, ROLES};
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue, Sighting};
use crate::connector::{Connector, Failure, Subject, within};
use crate::credential::Kind;
use crate::guard;
use crate::pace::Quota;
use crate::probe::Settle;

fn refused<T>(note: &str) -> Result<T, Failure> {
    Err(Failure::new(FailureKind::Refused, note))
}

fn named(subject: &Subject) -> Result<KeyName, Failure> {
    let name = KeyName::parse(&subject.credential.id());
    name.ok_or_else(|| Failure::new(FailureKind::Refused, "an access key is `<path><user>/<access key id>`"))
}

impl Account {
    /// Whether the user is not ours to touch: our own, or one that the configuration does not name.
    pub(super) async fn protects(&self, name: &KeyName) -> Result<bool, Failure> {
        let own = self.client.identity().await?;
        // Two users never have one name, whatever their paths.
        let is_own = own
            .user
            .is_some_and(|own| own.rsplit('/').next().is_some_and(|own| own.eq_ignore_ascii_case(name.user_name())));
        Ok(is_own || !guard::names_user(&self.users, name.user()))
    }

    /// The user, where it is ours to touch and still stands at its path.
    pub(super) async fn ours(&self, name: &KeyName) -> Result<(), Failure> {
        if self.protects(name).await? {
            return refused("our own user, or one that `users` does not name: never touched");
        }
        match self.user(name.user_name()).await? {
            Some(user) if user.full == name.user() => Ok(()),
            Some(_) => refused("the user has another path by now"),
            None => Err(Failure::new(FailureKind::Gone, "the user is gone")),
        }
    }

    async fn look(&self, name: &KeyName) -> Result<Observation, Failure> {
        let mut seen = Observation { at_ms: self.clock.wall_ms(), ..Observation::default() };
        seen.protected = self.protects(name).await?;
        seen.presence = Presence::Gone;
        let Some(user) = self.user(name.user_name()).await? else { return Ok(seen) };
        if user.full != name.user() {
            return refused("the user has another path by now");
        }
        seen.principal_id = Some(user.id);
        seen.quarantined = Box::pin(self.is_quarantined(name.user())).await?;
        let over_ms = Box::pin(self.fence_over_ms(name)).await?;
        seen.lifts = over_ms.is_some_and(|over_ms| over_ms <= seen.at_ms);
        let listed = self.keys(name.user()).await?.unwrap_or_default();
        if let Some(key) = listed.into_iter().find(|key| key.name == *name) {
            seen.presence = Presence::Present;
            seen.issued_ms = key.created_ms;
        }
        Ok(seen)
    }

    /// Disabled, not deleted: what turns out to be needed can be given back by who administers the account.
    async fn disable(&self, name: &KeyName) -> Result<Output, Failure> {
        self.ours(name).await?;
        let call = self.client.iam.update_access_key();
        let call = call.user_name(name.user_name()).access_key_id(name.key()).status(StatusType::Inactive).send();
        let done = self.client.ask("iam:UpdateAccessKey", true, call).await?;
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        Ok(Output { request_ids, ..Output::default() })
    }

    /// Denies what the user's keys opened. Also what they open until the key is seen dead: so long it may still be let in.
    pub(super) async fn deny_sessions(&self, name: &KeyName) -> Result<Output, Failure> {
        self.ours(name).await?;
        let cut_ms = self.clock.wall_ms().saturating_add(self.settle.window_ms);
        let Some(policy) = sessions::policy(cut_ms) else { return refused("our clock shows no time") };
        let call = self.client.iam.put_user_policy();
        let call = call.user_name(name.user_name()).policy_name(sessions::name(name)).policy_document(policy).send();
        let done = self.client.ask("iam:PutUserPolicy", true, call).await?;
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        // Roles that the user assumed are not reached: those are looked at next.
        Ok(Output { request_ids, ..Output::default() })
    }

    /// Takes the sessions' policy of the key off, if it is as we wrote it and denies nothing any more. It is looked at anew: a
    /// person may have changed it. No other case writes it meanwhile: all of one user share a lane.
    async fn lift(&self, name: &KeyName) -> Result<Output, Failure> {
        self.ours(name).await?;
        if self.fence_over_ms(name).await?.is_none_or(|over_ms| over_ms > self.clock.wall_ms()) {
            return Ok(Output::default());
        }
        let call = self.client.iam.delete_user_policy();
        let call = call.user_name(name.user_name()).policy_name(sessions::name(name)).send();
        let done = self.client.ask("iam:DeleteUserPolicy", true, call).await?;
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        Ok(Output { request_ids, ..Output::default() })
    }

    /// Whether the key lets in, as IAM lists it, and whether that can be believed.
    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool, Vec<Residue>), Failure> {
        let name = named(subject)?;
        // The control of what is not there any more: the account that we mean answers us, and tells its users apart.
        self.client.identity().await?;
        let Some(listed) = self.keys(name.user()).await? else {
            self.client.ask_identity().await?;
            return Ok((Answer::Refused, true, Vec::new()));
        };
        Ok(match listed.iter().find(|key| key.name == name) {
            Some(key) if key.active => (Answer::Accepted, true, Vec::new()),
            Some(_) => (Answer::Refused, true, vec![Residue::Disabled]),
            None => (Answer::Refused, true, Vec::new()),
        })
    }

    /// What the user may have become, and at one role what we put there. An account whose list takes too long is not asked again.
    pub(super) async fn observe_derived(&self, name: &KeyName, place: &str) -> Result<Observation, Failure> {
        let whole = self.timeout * u32::try_from(CALLS - 1).unwrap_or(1);
        let look = async {
            if place == ROLES { self.look_at_roles(name.user()).await } else { self.look_at_role(name, place).await }
        };
        within(whole, FailureKind::Refused, Box::pin(look)).await
    }

    /// Denies a role's sessions, or takes that off again.
    pub(super) async fn perform_derived(&self, act: Act, name: &KeyName, role: &str) -> Result<Output, Failure> {
        match act {
            Act::RevokeDerived => self.within(FailureKind::Unknown, self.deny_role(name, role)).await,
            Act::Lift => self.within(FailureKind::Unknown, self.lift_role(name, role)).await,
            _ => refused("this connector has no such step at a role"),
        }
    }

    pub(super) async fn within<T>(
        &self,
        kind: FailureKind,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        let whole = self.timeout * u32::try_from(CALLS).unwrap_or(1);
        within(whole, kind, Box::pin(call)).await
    }
}

#[async_trait]
impl Connector for Account {
    fn name(&self) -> &'static str {
        Kind::AwsAccessKey.as_str()
    }

    fn system(&self) -> &str {
        &self.target
    }

    fn call_timeout_ms(&self) -> i64 {
        i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX).saturating_mul(CALLS)
    }

    fn settle(&self) -> Settle {
        self.settle
    }

    fn quotas(&self) -> Vec<Arc<Quota>> {
        self.client.quotas.all()
    }

    fn cut_roles(&self) -> Option<&[String]> {
        Some(&self.cut_roles)
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        let name = named(subject)?;
        match &subject.place {
            Some(place) => self.observe_derived(&name, place).await,
            None => self.within(FailureKind::Unavailable, self.look(&name)).await,
        }
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let name = named(subject)?;
        if let Some(role) = &subject.place {
            return self.perform_derived(act, &name, role).await;
        }
        match act {
            Act::Disable => self.within(FailureKind::Unknown, self.disable(&name)).await,
            Act::EndSessions => self.within(FailureKind::Unknown, self.deny_sessions(&name)).await,
            Act::Lift => self.within(FailureKind::Unknown, self.lift(&name)).await,
            _ => refused("this connector has no such step"),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let sight = self.within(FailureKind::Unavailable, self.sight(subject)).await;
        let (answer, control, residue) = sight.unwrap_or((Answer::Unknown, false, Vec::new()));
        Sighting { level: Level::Issuer, answer, at_ms, control, residue, request_id: None }
    }

    /// Our login works, and is of the account that it must be of.
    async fn self_check(&self) -> Result<(), Failure> {
        self.within(FailureKind::Unavailable, self.client.ask_identity()).await.map(|_| ())
    }
}
