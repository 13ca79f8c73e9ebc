//! `aws-scope`: what a user of IAM was granted is taken from it, and given back to the letter.
//!
//! Taken is what the user has itself: an attached managed policy, an inline policy, the membership of a group. No policy that
//! others may hold is ever edited, and no permissions boundary. Where the grant is not ours to edit, single actions are denied by
//! one inline policy of our own on the user (`curfew-reduced`, of a key `curfew-reduced-<its id>`), which this credential's cases
//! alone edit. What also denies is not taken: who lost it could do more.
//!
//! IAM has no check-and-set: what is to change is read whole right before, and our own policy again right after. What somebody
//! else writes to the same policy in between is overwritten; who was overwritten sees it by its own comparison. And IAM answers
//! from copies that may be late: so a comparison that fails is made again until the settle window is over, and the proof is a
//! series.
//!
//! Whether an action is gone is asked (`SimulatePrincipalPolicy`), never tried; where IAM does not say, the lists are the proof.
//! Policies of resources, of organisations and of sessions are not looked at. The user's sessions have no more rights than the user;
//! those of roles that it assumed before go on.
//!
//! Facts: AWS's IAM API reference (2010-05-08), and
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_general.html>: changes are not seen everywhere at once. Never run
//! against AWS itself.

mod form;
mod overlay;
mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::name::{KeyName, last};
use super::{Account, AwsSettings, answers, may_lack};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue, Sighting};
use crate::clock;
use crate::connector::vault::ConnectError;
use crate::connector::{Connector, Failure, Gate, Rescope, Subject};
use crate::credential::Kind;
use crate::event::digest16;
use crate::pace::Quota;
use crate::probe::Settle;
use crate::scope::{Held, MAX_HOW_BYTES, Permission, Scope};
use form::{Changes, Form, Grants, Named};

/// The decision of a statement that denies.
const DENIED: &str = "explicitDeny";
/// That of one that allows, where none denies.
const ALLOWED: &str = "allowed";

/// Takes from the users of one account.
pub struct UserScope(Account);

/// Makes the connector, on a login of its own: `deploy/aws/reduce.json`. Nothing is called before it is needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &AwsSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    Ok(Arc::new(UserScope(Account::open(target, settings, clock).await?)))
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

fn named(permission: &Permission) -> Result<Named<'_>, Failure> {
    let what = "of a user of IAM managed:ARN, inline:NAME, group:NAME and action:SERVICE:ACTION are taken";
    Named::of(permission).ok_or_else(|| refused(what))
}

fn all(rescope: &Rescope) -> Result<Vec<Named<'_>>, Failure> {
    let all: Vec<Named<'_>> = rescope.cut.permissions.iter().map(named).collect::<Result<_, _>>()?;
    if form::names_twice(&all) { Err(refused("one action is named twice")) } else { Ok(all) }
}

fn owed(rescope: &Rescope) -> Result<Vec<(Named<'_>, Form)>, Failure> {
    let one = |held: &'_ Held| serde_json::from_str(&held.how).map_err(|_| refused("what was recorded cannot be read"));
    rescope.owed().iter().map(|held| Ok((named(&held.permission)?, one(held)?))).collect()
}

/// `<path><name>` of the user, also where the credential is one of its keys; and what our policy for it is called.
fn user_of(subject: &Subject) -> Result<(String, String), Failure> {
    let id = subject.credential.id();
    match subject.credential.kind() {
        Kind::AwsAccessKey => KeyName::parse(&id).map(|key| (key.user().to_owned(), overlay::name(Some(&key)))),
        _ => Some((id, overlay::name(None))),
    }
    .ok_or_else(|| refused("an access key is `<path><user>/<access key id>`"))
}

fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

impl UserScope {
    /// P6: our own user. Two users never have one name, whatever their paths.
    async fn is_own(&self, user: &str) -> Result<bool, Failure> {
        let own = self.0.client.identity().await?.user;
        Ok(own.is_some_and(|own| last(&own).eq_ignore_ascii_case(last(user))))
    }

    /// What the user was granted, where it still stands at its path. `None`: there is none.
    async fn grants(&self, user: &str, own: &str) -> Result<Option<Grants>, Failure> {
        let grants = self.0.grants(user, own).await?;
        match &grants {
            Some(grants) if grants.full != user => Err(refused("the user has another path by now")),
            _ => Ok(grants),
        }
    }

    /// The same, where it is ours to change, and is the one that the case saw.
    async fn ours(&self, subject: &Subject) -> Result<Grants, Failure> {
        let (user, own) = user_of(subject)?;
        if self.is_own(&user).await? {
            return Err(refused("the user of our own login: never touched"));
        }
        let gone = || Failure::new(FailureKind::Gone, "the user is gone");
        let grants = self.grants(&user, &own).await?.ok_or_else(gone)?;
        let seen = [&subject.seen, &subject.issuer].into_iter().flatten().find_map(|seen| seen.principal_id.as_deref());
        if seen.is_some_and(|seen| seen != grants.id) {
            return Err(refused("another user has its name by now"));
        }
        Ok(grants)
    }

    /// What of the named permissions it has, and the digest of all else, with what IAM says of actions that stay.
    async fn scope(&self, rescope: &Rescope, grants: &Grants) -> Result<Scope, Failure> {
        let all = all(rescope)?;
        let mut scope = Scope::default();
        for (permission, named) in rescope.cut.permissions.iter().zip(&all) {
            let Some(form) = grants.held(*named) else { continue };
            let how = serde_json::to_string(&form).map_err(|_| answers::odd())?;
            if how.len() > MAX_HOW_BYTES {
                return Err(refused("an inline policy is larger than is recorded: it could not be given back"));
            }
            scope.held.push(Held { permission: permission.clone(), how });
        }
        let mut lines = grants.rest(&all);
        scope.rest_count = number(lines.len());
        let mut of_resource: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (action, resource) in grants.kept(&all) {
            of_resource.entry(resource).or_default().insert(action);
        }
        for (resource, actions) in of_resource {
            // What another case of ours denies counts as if it did not: that comes and goes.
            let says = |action: &str, says: &str| {
                let by_us = says == DENIED && grants.is_denied_by_us(action);
                format!("{action} {resource} {}", if by_us { ALLOWED } else { says })
            };
            // A name of theirs that IAM takes for none is not ours to mend.
            match may_lack(self.0.simulated(grants, &actions, &resource).await)? {
                Some(said) => lines.extend(said.iter().map(|(action, decision)| says(action, decision))),
                None => lines.push(format!("{resource} not said")),
            }
        }
        let parts: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        scope.rest = hex::encode(digest16(&parts));
        Ok(scope)
    }

    async fn look(&self, subject: &Subject) -> Result<Observation, Failure> {
        let (rescope, (user, own)) = (subject.asked()?, user_of(subject)?);
        let mut seen = Observation { at_ms: self.0.clock.wall_ms(), ..Observation::default() };
        seen.protected = self.is_own(&user).await?;
        if seen.protected {
            return Ok(seen);
        }
        seen.presence = Presence::Gone;
        let Some(grants) = self.grants(&user, &own).await? else { return Ok(seen) };
        seen.presence = Presence::Present;
        seen.scope = Some(self.scope(rescope, &grants).await?);
        if !rescope.gives {
            // While a person may still be asked.
            self.may_take(rescope, &grants).await?;
            self.asked(rescope, &grants).await?;
        }
        seen.principal_id = Some(grants.id);
        Ok(seen)
    }

    /// Whether what the user has of what is named can be taken at all.
    async fn may_take(&self, rescope: &Rescope, grants: &Grants) -> Result<(), Failure> {
        let held = all(rescope)?.into_iter().filter_map(|one| Some((one, grants.held(one)?)));
        let held: Vec<(Named<'_>, Form)> = held.collect();
        if let Some(why) = form::refuses(&self.0.documents_of(&held).await?) {
            return Err(refused(why));
        }
        form::changes(grants, &held, false).map_err(refused).map(|_| ())
    }

    /// What is to be called, and for whom.
    async fn due(&self, subject: &Subject, gives: bool) -> Result<(Grants, Changes), Failure> {
        let rescope = subject.asked()?;
        let grants = self.ours(subject).await?;
        let owed = owed(rescope)?;
        if owed.iter().any(|(_, form)| form.user != grants.id) {
            return Err(refused("another user has its name by now"));
        }
        if !gives {
            self.may_take(rescope, &grants).await?;
        }
        let changes = form::changes(&grants, &owed, gives).map_err(refused)?;
        if changes.all.iter().any(|change| change.writes(grants.own_policy().0)) {
            match self.is_as_read(&grants).await {
                // All else is given back; its own turn says so.
                Err(failure) if gives && failure.kind == FailureKind::Refused => {}
                read => read?,
            }
        }
        Ok((grants, changes))
    }

    async fn change(&self, subject: &Subject, gives: bool) -> Result<Output, Failure> {
        let (grants, changes) = self.due(subject, gives).await.map_err(Failure::untouched)?;
        let owed = subject.asked()?.owed().len();
        let mut output = Output { derived: number(owed), ..Output::default() };
        let (mut no, mut is_untouched) = (changes.no, true);
        for change in &changes.all {
            match self.call(&grants, change).await {
                Ok(request_id) => output.request_ids.extend(request_id),
                // What can be given back is: a policy or group that is gone keeps nothing else from it.
                Err(failure) if gives && failure.kind == FailureKind::Refused => {
                    no = no.or((!change.is_so(&grants)).then_some(GONE));
                }
                Err(failure) if is_untouched => return Err(failure.untouched()),
                Err(failure) => return Err(failure),
            }
            is_untouched = false;
        }
        self.is_not_overwritten(&grants, &changes.all).await?;
        if let Some(why) = no {
            return Err(refused(why));
        }
        output.done_ms = Some(self.0.clock.wall_ms());
        Ok(output)
    }

    /// What IAM says of the actions that are named whole, where our login may ask: the simulator takes no wildcards.
    async fn asked(&self, rescope: &Rescope, grants: &Grants) -> Result<BTreeMap<String, String>, Failure> {
        let all = all(rescope)?;
        let asked = all.iter().filter_map(|one| if let Named::Action(action) = one { Some(*action) } else { None });
        let asked = asked.filter(|action| !action.contains(['*', '?'])).map(str::to_ascii_lowercase).collect();
        Ok(self.0.simulated(grants, &asked, "*").await?.unwrap_or_default())
    }

    /// How many of the named permissions count for the user, and of how many.
    async fn count(&self, rescope: &Rescope, grants: &Grants) -> Result<(usize, usize), Failure> {
        if rescope.gives {
            let owed = owed(rescope)?;
            let there = owed.iter().filter(|(named, form)| grants.held(*named).as_ref() == Some(form)).count();
            return Ok((there, owed.len()));
        }
        let all = all(rescope)?;
        let mut of_groups = BTreeSet::new();
        if all.iter().any(|one| matches!(one, Named::Managed(_))) {
            for group in &grants.groups {
                of_groups.extend(self.0.attached_to(group).await?);
            }
        }
        // Its groups may have the same policy.
        let otherwise = Grants { managed: of_groups, ..Grants::default() };
        let said = self.asked(rescope, grants).await?;
        let is_there = |one: &&Named<'_>| match one {
            Named::Managed(_) => grants.held(**one).is_some() || otherwise.held(**one).is_some(),
            Named::Action(action) => {
                let says = said.get(&action.to_ascii_lowercase());
                grants.held(**one).is_some() || says.is_some_and(|says| says != DENIED)
            }
            Named::Inline(_) | Named::Group(_) => grants.held(**one).is_some(),
        };
        Ok((all.iter().filter(is_there).count(), all.len()))
    }

    async fn gate(&self, subject: &Subject) -> Result<Gate, Failure> {
        let rescope = subject.asked()?;
        let grants = match self.ours(subject).await {
            Ok(grants) => grants,
            Err(failure) if failure.kind == FailureKind::Gone => return Ok(Gate::Open),
            Err(failure) => return Err(failure),
        };
        let (there, of) = self.count(rescope, &grants).await?;
        let before = rescope.cutting.before.as_ref();
        let wrong = if rescope.gives {
            (there < of).then_some("not all of it was given back")
        } else if there > 0 {
            Some("it still may: a group of it has the same policy, or our own policy does not deny it")
        } else {
            let now = self.scope(rescope, &grants).await?;
            let is_same = before.is_some_and(|before| before.rest == now.rest);
            (!is_same).then_some("something else that it was granted, or may do, has changed")
        };
        let Some(why) = wrong else { return Ok(Gate::Open) };
        // IAM may still show what was before.
        let seen_ms = subject.seen.as_ref().map(|seen| seen.at_ms);
        let since_ms = rescope.cutting.done_ms.max(seen_ms).unwrap_or_default();
        let (now_ms, settle) = (self.0.clock.wall_ms(), self.0.settle);
        if now_ms.saturating_sub(since_ms) > settle.window_ms {
            return Err(refused(why));
        }
        let gap_ms = settle.window_ms / i64::from(settle.sightings.max(1));
        Ok(Gate::Shut { again_ms: now_ms.saturating_add(gap_ms.max(1)) })
    }

    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool, Vec<Residue>), Failure> {
        let (rescope, (user, own)) = (subject.asked()?, user_of(subject)?);
        self.0.client.identity().await?;
        let Some(grants) = self.grants(&user, &own).await? else {
            // The account that we mean answers us, and tells its users apart.
            self.0.client.ask_identity().await?;
            return Ok((Answer::Refused, true, Vec::new()));
        };
        let (there, of) = self.count(rescope, &grants).await?;
        let mut residue = Vec::new();
        if !rescope.gives {
            // By what was recorded: an effect whose answer was lost says nothing of it.
            let taken = owed(rescope)?;
            let documents = self.0.documents_of(&taken).await?;
            let named: Vec<Named<'_>> = taken.iter().map(|(named, _)| *named).collect();
            if form::assumes(&documents, &named) {
                residue.push(Residue::DerivedUnknown);
            }
        }
        Ok((rescope.answer(there, of), true, residue))
    }
}

/// The note where something cannot be given back.
const GONE: &str = "not all can be given back: a policy or a group is gone, or IAM refuses it; the rest is";

#[async_trait]
impl Connector for UserScope {
    fn name(&self) -> &'static str {
        "aws-scope"
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

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        Box::pin(self.0.within(FailureKind::Unavailable, self.look(subject))).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let gives = match act {
            Act::Narrow => false,
            Act::Widen => true,
            _ => return Err(refused("this connector has no such step")),
        };
        Box::pin(self.0.within(FailureKind::Unknown, self.change(subject, gives))).await
    }

    async fn pass(&self, _act: Act, subject: &Subject) -> Result<Gate, Failure> {
        Box::pin(self.0.within(FailureKind::Unavailable, self.gate(subject))).await
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.0.clock.wall_ms();
        let sight = Box::pin(self.0.within(FailureKind::Unavailable, self.sight(subject))).await;
        let (answer, control, residue) = sight.unwrap_or((Answer::Unknown, false, Vec::new()));
        Sighting { level: Level::Issuer, answer, at_ms, control, residue, request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.0.self_check().await
    }
}
