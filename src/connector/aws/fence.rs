//! `aws-fence`: while the keys of a user die, an inline policy on the user denies it everything: also to make another key, and what
//! its older sessions could still do. What the user may by itself is not touched, so taking the policy off gives all of it back.
//!
//! Its end stands in its text: IAM itself stops minding it then (`aws:CurrentTime`), also where nobody is left to take it off. What a
//! person changed under its name is a person's, and left alone.
//!
//! It does not reach roles that the user has assumed: those are denied at the roles ([`super::roles`]).
//!
//! Facts: IAM's user guide on global condition keys (`aws:CurrentTime` is in every request) and on inline policies (of a user all
//! together at most 2 048 characters).

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_iam::operation::RequestId as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Account, User, answers};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Sighting};
use crate::connector::{Connector, Failure, Gate, Rescope, Subject};
use crate::event::digest16;
use crate::guard;
use crate::pace::Quota;
use crate::probe::Settle;
use crate::scope::{Held, Scope, identity_of};

/// What the policy is called.
pub const NAME: &str = "curfew-fence";
/// What its one statement is called.
const SID: &str = "CurfewFence";

/// See the top.
pub struct Fences(pub(super) Account);

/// What there was before: no policy of this name, on this user.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    /// The digest of IAM's immutable id of the user.
    user: String,
}

/// Denies everything until then. `None`: that is no time.
pub fn policy(until_ms: i64) -> Option<String> {
    // Whole seconds, and not before the end.
    let until = jiff::Timestamp::from_second(until_ms.saturating_add(999).div_euclid(1_000)).ok()?;
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": SID,
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateLessThan": {"aws:CurrentTime": until.to_string()}},
        }],
    });
    Some(policy.to_string())
}

/// Until when a document as we write it denies. `None`: it is none of ours.
pub fn until_ms(document: &str) -> Option<i64> {
    let said: Value = serde_json::from_str(document).ok()?;
    let until = said["Statement"][0]["Condition"]["DateLessThan"]["aws:CurrentTime"].as_str()?;
    let until_ms = until.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    let own: Value = serde_json::from_str(&policy(until_ms)?).ok()?;
    (said == own).then_some(until_ms)
}

/// What stands there under the fence's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Nothing,
    /// Until then.
    Ours(i64),
    Another,
}

/// Whether a fence of ours that ends at `until_ms` does as well as one until `wanted_ms`.
fn will_do(until_ms: i64, wanted_ms: Option<i64>, now_ms: i64) -> bool {
    until_ms > now_ms && wanted_ms.is_none_or(|wanted_ms| until_ms >= wanted_ms)
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

fn digest(user: &User) -> String {
    hex::encode(digest16(&[user.id.as_bytes()]))
}

fn asked(subject: &Subject) -> Result<&Rescope, Failure> {
    subject.asked().and_then(|it| if it.cut.is_fence() { Ok(it) } else { Err(refused("here is only fenced")) })
}

impl Fences {
    /// `<path><name>` of the user, whichever of its credentials is meant.
    fn name(subject: &Subject) -> String {
        identity_of(&subject.credential).id()
    }

    /// Whether the user is not ours to touch: our own, or one that the configuration does not name.
    async fn protects(&self, name: &str) -> Result<bool, Failure> {
        let own = self.0.client.identity().await?.user;
        let last = |full: &str| super::name::last(full).to_ascii_lowercase();
        Ok(own.is_some_and(|own| last(&own) == last(name)) || !guard::names_user(&self.0.users, name))
    }

    /// The user, where it still stands at its path. `None`: there is none.
    async fn user(&self, name: &str) -> Result<Option<User>, Failure> {
        match self.0.user(super::name::last(name)).await? {
            Some(user) if user.full != name => Err(refused("the user has another path by now")),
            found => Ok(found),
        }
    }

    async fn stands(&self, name: &str) -> Result<Stands, Failure> {
        let call = self.0.client.iam.get_user_policy().user_name(super::name::last(name)).policy_name(NAME).send();
        let Some(found) = self.0.client.look("iam:GetUserPolicy", call).await? else { return Ok(Stands::Nothing) };
        // IAM hands documents out as parts of a URL.
        let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().ok();
        Ok(text.and_then(|text| until_ms(&text)).map_or(Stands::Another, Stands::Ours))
    }

    async fn look(&self, subject: &Subject) -> Result<Observation, Failure> {
        let (rescope, name) = (asked(subject)?, Self::name(subject));
        let mut seen = Observation { at_ms: self.0.clock.wall_ms(), ..Observation::default() };
        seen.protected = self.protects(&name).await?;
        let Some(user) = self.user(&name).await? else {
            seen.presence = Presence::Gone;
            return Ok(seen);
        };
        seen.presence = Presence::Present;
        let how = serde_json::to_string(&Form { user: digest(&user) }).map_err(|_| answers::odd())?;
        let mut scope = Scope::default();
        match self.stands(&name).await? {
            Stands::Ours(until_ms) if will_do(until_ms, rescope.cut.until_ms, seen.at_ms) => {}
            // One that is over, or ends too early, is written anew.
            Stands::Nothing | Stands::Ours(_) => {
                let held = |permission: &_| Held { permission: Clone::clone(permission), how: how.clone() };
                scope.held = rescope.cut.permissions.iter().map(held).collect();
            }
            Stands::Another => return Err(refused("another policy has the fence's name: it is left as it is")),
        }
        seen.scope = Some(scope);
        Ok(seen)
    }

    /// The user's name, where it is ours to touch and the one that was recorded.
    async fn ours(&self, subject: &Subject) -> Result<String, Failure> {
        let (rescope, name) = (asked(subject)?, Self::name(subject));
        if self.protects(&name).await? {
            return Err(refused("our own user, or one that `users` does not name: never touched"));
        }
        let user = self.user(&name).await?.ok_or_else(|| Failure::new(FailureKind::Gone, "the user is gone"))?;
        for one in rescope.owed() {
            let form: Form = serde_json::from_str(&one.how).map_err(|_| refused("what was recorded cannot be read"))?;
            if form.user != digest(&user) {
                return Err(refused("another user has its name by now"));
            }
        }
        Ok(name)
    }

    async fn fence(&self, subject: &Subject) -> Result<Output, Failure> {
        let rescope = asked(subject)?;
        let name = self.ours(subject).await?;
        if rescope.cutting.before.is_none() {
            return Err(refused("nobody has looked at what is to be closed"));
        }
        let wanted_ms = rescope.cut.until_ms;
        let policy = wanted_ms.and_then(policy).ok_or_else(|| refused("it is not said until when"))?;
        let is_done = |stands, now_ms| matches!(stands, Stands::Ours(until_ms) if will_do(until_ms, wanted_ms, now_ms));
        match self.stands(&name).await? {
            stands if is_done(stands, self.0.clock.wall_ms()) => return Ok(Output::default()),
            Stands::Another => return Err(refused("another policy has the fence's name: it is left as it is")),
            Stands::Nothing | Stands::Ours(_) => {}
        }
        if wanted_ms.is_some_and(|wanted_ms| wanted_ms <= self.0.clock.wall_ms()) {
            return Err(refused("its end is past: it would close nothing"));
        }
        let user = super::name::last(&name);
        let call = self.0.client.iam.put_user_policy();
        let call = call.user_name(user).policy_name(NAME).policy_document(policy).send();
        let done = self.0.client.ask("iam:PutUserPolicy", true, call).await?;
        // Seen by asking, before the first key dies.
        let stands = self.stands(&name).await;
        // Who cannot see it has written it all the same.
        let stands = stands.map_err(|failure| Failure::new(FailureKind::Unknown, failure.note))?;
        if !is_done(stands, self.0.clock.wall_ms()) {
            return Err(Failure::new(FailureKind::Unknown, "the fence does not stand yet"));
        }
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        Ok(Output { request_ids, ..Output::default() })
    }

    /// All of one user share a lane: no other case writes it meanwhile.
    async fn lift(&self, subject: &Subject) -> Result<Output, Failure> {
        let name = self.ours(subject).await?;
        match self.stands(&name).await? {
            Stands::Nothing => return Ok(Output::default()),
            Stands::Another => return Err(refused("somebody has changed the fence: it is left as it is")),
            Stands::Ours(_) => {}
        }
        let user = super::name::last(&name);
        let call = self.0.client.iam.delete_user_policy().user_name(user).policy_name(NAME).send();
        let done = self.0.client.ask("iam:DeleteUserPolicy", true, call).await?;
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        Ok(Output { request_ids, ..Output::default() })
    }

    async fn gate(&self, subject: &Subject) -> Result<Gate, Failure> {
        let name = match self.ours(subject).await {
            Err(failure) if failure.kind == FailureKind::Gone => return Ok(Gate::Open),
            ours => ours?,
        };
        match self.stands(&name).await? {
            Stands::Nothing => Ok(Gate::Open),
            Stands::Ours(_) | Stands::Another => Err(refused("the fence stands")),
        }
    }

    /// Of a restoration: whether there is what there was.
    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool), Failure> {
        let (rescope, name) = (asked(subject)?, Self::name(subject));
        self.0.client.identity().await?;
        if self.user(&name).await?.is_none() {
            self.0.client.ask_identity().await?;
            return Ok((Answer::Refused, true));
        }
        let is_back = self.stands(&name).await? == Stands::Nothing;
        Ok((rescope.answer(usize::from(is_back), 1), true))
    }
}

#[async_trait]
impl Connector for Fences {
    fn name(&self) -> &'static str {
        "aws-fence"
    }

    fn system(&self) -> &str {
        &self.0.target
    }

    fn call_timeout_ms(&self) -> i64 {
        self.0.call_timeout_ms()
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    fn quotas(&self) -> Vec<Arc<Quota>> {
        self.0.quotas()
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.0.within(FailureKind::Unavailable, self.look(subject)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        match act {
            // After the write all that fails is `Unknown`.
            Act::Fence => self.0.within(FailureKind::Unknown, self.fence(subject)).await.map_err(Failure::untouched),
            Act::Widen => self.0.within(FailureKind::Unknown, self.lift(subject)).await,
            _ => Err(refused("this connector has no such step")),
        }
    }

    async fn pass(&self, _act: Act, subject: &Subject) -> Result<Gate, Failure> {
        self.0.within(FailureKind::Unavailable, self.gate(subject)).await
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.0.clock.wall_ms();
        let sight = self.0.within(FailureKind::Unavailable, self.sight(subject)).await;
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
    fn only_a_fence_that_stands_long_enough_will_do() {
        assert!(will_do(9_000, Some(8_500), 1_000) && will_do(9_000, None, 1_000));
        assert!(!will_do(9_000, Some(9_001), 1_000), "it ends too early");
        assert!(!will_do(9_000, Some(8_500), 9_000), "it is over, whatever its text says");
    }

    #[test]
    fn all_is_denied_until_the_end_that_stands_in_it() {
        let text = policy(1_764_188_100_250).unwrap();
        let said: Value = serde_json::from_str(&text).unwrap();
        let [one] = said["Statement"].as_array().unwrap().as_slice() else { panic!("{said}") };
        assert_eq!((one["Effect"].as_str(), one["Action"].as_str()), (Some("Deny"), Some("*")));
        let until = json!({"DateLessThan": {"aws:CurrentTime": "2025-11-26T20:15:01Z"}});
        assert_eq!(one["Condition"], until, "without it the user would be shut out for ever");
        assert_eq!(until_ms(&text), Some(1_764_188_101_000));
        assert!(until_ms(&serde_json::to_string_pretty(&said).unwrap()).is_some(), "blanks say nothing");
        assert!(text.len() < 256, "it fits beside the user's own");
        for changed in [
            text.replace("\"*\"", "\"s3:*\""),
            text.replace("Deny", "Allow"),
            text.replace("DateLessThan", "DateGreaterThan"),
            text.replace(SID, "Theirs"),
            "{}".to_owned(),
        ] {
            assert_ne!(changed, text);
            assert_eq!(until_ms(&changed), None, "{changed}");
        }
        assert_eq!(policy(i64::MAX), None);
    }
}
