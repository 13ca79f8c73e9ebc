//! `vault-scope`: policies and lifetimes are taken from an AppRole of Vault, and given back. And its fence: from where it lets in, and
//! its tokens, becomes nowhere while its values die, and the entity behind it is disabled.
//!
//! A disabled entity is let in by no method, and its tokens do nothing until it is enabled again (Vault 1.18: `handleLoginRequest` and
//! `CheckToken` ask for it). It may stand for others as well: one that has another alias stays as it is, and so does one that our
//! login may not change. A write of `disabled` alone changes nothing else of it.
//!
//! Its own settings are changed, never a policy: others may hold that. Vault has no check-and-set for roles: they are read,
//! written and read again, and what somebody else writes to the list between the first two is overwritten. Tokens that the role gave before keep what they were
//! given until they expire (`token_max_ttl` at the latest): that is said as what remains.
//!
//! Whether a policy still counts is asked of the role and of the entity behind it with its groups. A role that was made anew
//! under its name has another role_id: it is known by the digest of that, which is kept nowhere in plain.

mod entity;
pub(super) mod form;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::rights::Need;
use super::{Vault, exact, odd, unsupported};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue, Sighting};
use crate::connector::{Connector, Failure, Gate, Rescope, Subject};
use crate::event::digest16;
use crate::probe::Settle;
use crate::scope::{Held, MAX_HOW_BYTES, Permission, Scope, identity_of};
use form::{Behind, Form, Named, Settings};

/// Takes from the AppRoles of one realm.
pub struct VaultScope {
    vault: Arc<Vault>,
}

/// What a look at a role showed.
struct Role {
    /// The digest of its role_id.
    id: String,
    role_id: String,
    settings: Settings,
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

fn named(permission: &Permission) -> Result<Named<'_>, Failure> {
    Named::of(permission).ok_or_else(|| refused("of an AppRole policies are taken (policy:NAME), and lifetimes"))
}

fn all(rescope: &Rescope) -> Result<Vec<Named<'_>>, Failure> {
    let all: Vec<Named<'_>> = rescope.cut.permissions.iter().map(named).collect::<Result<_, _>>()?;
    if form::names_twice(&all) { Err(refused("one lifetime of a role is named twice")) } else { Ok(all) }
}

/// `<mount>/<role>`, apart.
fn place(subject: &Subject) -> Result<(String, String), Failure> {
    // What closes a role is a step of the plans of its secret_ids as well.
    let id = identity_of(&subject.credential).id();
    exact(&id)?;
    let (mount, role) = id.rsplit_once('/').ok_or_else(|| refused("an AppRole is named <mount>/<role>"))?;
    Ok((mount.to_owned(), role.to_owned()))
}

fn words(value: &Value) -> impl Iterator<Item = String> + '_ {
    value.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned()))
}

/// What is to go, or to come back, as it was recorded.
fn owed<'a>(rescope: &'a Rescope, role: &Role) -> Result<Vec<(Named<'a>, Form)>, Failure> {
    let mut owed = Vec::new();
    for one in rescope.owed() {
        let form: Form = serde_json::from_str(&one.how).map_err(|_| refused("what was recorded cannot be read"))?;
        if form.role != role.id {
            return Err(refused("another role has its name by now"));
        }
        owed.push((named(&one.permission)?, form));
    }
    Ok(owed)
}

/// What of the named permissions it has, and the digest of all else.
fn scope(rescope: &Rescope, role: &Role) -> Result<Scope, Failure> {
    let mut scope = Scope::default();
    let all = all(rescope)?;
    for (permission, named) in rescope.cut.permissions.iter().zip(&all) {
        if let Some(form) = role.settings.held(*named, &role.id) {
            let how = serde_json::to_string(&form).map_err(|_| odd())?;
            if how.len() > MAX_HOW_BYTES {
                return Err(refused("how it was given is too long to be recorded, so it is not taken"));
            }
            scope.held.push(Held { permission: permission.clone(), how });
        }
    }
    scope.rest_count = u32::try_from(role.settings.others(&all)).unwrap_or(u32::MAX);
    let lines = role.settings.rest(&all);
    let parts: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    scope.rest = hex::encode(digest16(&parts));
    Ok(scope)
}

impl VaultScope {
    /// The connector, on a login of its own: `deploy/vault/reduce.hcl`.
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    /// What our policy must allow for the roles that are named whole.
    fn needs(&self) -> Vec<Need> {
        let whole = self.vault.settings.scopes.iter().filter(|id| !id.ends_with('*'));
        let mut needs = Vec::new();
        for (mount, role) in whole.filter_map(|id| id.rsplit_once('/')) {
            let mut need = |what: &str, rights| {
                needs.push(Need { path: format!("auth/{mount}/role/{role}{what}"), rights });
            };
            need("", &["read"]);
            need("/role-id", &["read"]);
            if self.vault.enforce {
                for place in ["/policies", "/token-ttl", "/token-max-ttl", "/secret-id-ttl"] {
                    need(place, &["update"]);
                }
            }
        }
        needs
    }

    async fn failure(&self, meaning: Meaning) -> Failure {
        match meaning {
            Meaning::Forbidden => self.vault.out_of_reach(&self.needs()).await,
            Meaning::Failed(failure) => failure,
            Meaning::Done { .. } | Meaning::Gone | Meaning::Outdated | Meaning::Unclear(_) => odd(),
        }
    }

    /// The role, with who stands behind it where its fence is asked of. `None`: there is none.
    async fn role(&self, subject: &Subject) -> Result<Option<Role>, Failure> {
        let (mount, name) = place(subject)?;
        let path = format!("auth/{mount}/role/{name}");
        let role_id = match self.vault.ask(Call::RoleId, Raw::get(format!("{path}/role-id"))).await {
            Meaning::Done { data, .. } => data["data"]["role_id"].as_str().ok_or_else(odd)?.to_owned(),
            Meaning::Gone => return Ok(None),
            other => return Err(self.failure(other).await),
        };
        let mut settings = match self.vault.ask(Call::Settings, Raw::get(path)).await {
            Meaning::Done { mut data, .. } => Settings::of(data["data"].take()),
            Meaning::Gone => return Ok(None),
            other => return Err(self.failure(other).await),
        };
        settings.behind = self.behind(subject, &role_id).await?;
        Ok(Some(Role { id: hex::encode(digest16(&[role_id.as_bytes()])), role_id, settings }))
    }

    /// The role, where it is ours to change, and is the one that the case saw.
    async fn ours(&self, subject: &Subject) -> Result<Role, Failure> {
        if self.is_own(subject) {
            return Err(refused("the role of our own login: never touched"));
        }
        let role = self.role(subject).await?.ok_or_else(|| Failure::new(FailureKind::Gone, "the role is gone"))?;
        let seen = [&subject.seen, &subject.issuer].into_iter().flatten().find_map(|seen| seen.principal_id.as_deref());
        if seen.is_some_and(|seen| seen != role.id) {
            return Err(refused("another role has its name by now"));
        }
        Ok(role)
    }

    /// P6: by which role we log in ourselves.
    fn is_own(&self, subject: &Subject) -> bool {
        let own = self.vault.session.load_full().and_then(|session| session.role.clone());
        own.is_some_and(|own| own.eq_ignore_ascii_case(&identity_of(&subject.credential).id()))
    }

    async fn look(&self, subject: &Subject) -> Result<Observation, Failure> {
        let rescope = subject.asked()?;
        let mut seen = self.vault.blank();
        seen.protected = self.is_own(subject);
        match self.role(subject).await? {
            Some(mut role) => {
                if let Some(id) = role.settings.behind.closes()
                    && !rescope.gives
                    && !self.may_close(id).await?
                {
                    role.settings.behind = Behind::Hidden;
                }
                seen.presence = Presence::Present;
                seen.scope = Some(scope(rescope, &role)?);
                seen.principal_id = Some(role.id);
            }
            None => seen.presence = Presence::Gone,
        }
        Ok(seen)
    }

    async fn change(&self, subject: &Subject, gives: bool) -> Result<Output, Failure> {
        let rescope = subject.asked()?;
        let role = self.ours(subject).await?;
        let owed = owed(rescope, &role)?;
        if role.settings.is_changed(&owed) {
            return Err(refused(if gives {
                "somebody has changed the fence: it is left as it is"
            } else {
                "from where the role lets in was changed since it was looked at"
            }));
        }
        if !gives && let Some(why) = role.settings.refuses(&owed) {
            return Err(refused(why));
        }
        let mut output = Output::default();
        let (mount, name) = place(subject)?;
        let mut written = false;
        for (what, body) in form::writes(&role.settings, &owed, gives) {
            let path = format!("auth/{mount}/role/{name}/{what}");
            let raw = match body {
                Some(body) => Raw::post(path, body),
                None => Raw::delete(path),
            };
            match self.vault.ask(Call::RoleWrite, raw).await {
                Meaning::Done { request_id, .. } => {
                    written = true;
                    output.request_ids.extend(request_id);
                }
                // What was written before it stays: it is looked at before anything is repeated.
                other => {
                    let failure = self.failure(other).await;
                    let is_half = rescope.cut.is_fence() && !gives && written;
                    return Err(if is_half { Failure::new(FailureKind::Unknown, failure.note) } else { failure });
                }
            }
        }
        // Last: where it cannot be had the role is closed all the same.
        match self.write_entity(&role, &owed, gives).await {
            Ok(request_id) => output.request_ids.extend(request_id),
            Err(Meaning::Forbidden) if !gives => output.residue.push(Residue::EntityOpen),
            Err(other) => {
                let failure = self.failure(other).await;
                let is_half = !gives && written;
                return Err(if is_half { Failure::new(FailureKind::Unknown, failure.note) } else { failure });
            }
        }
        output.derived = u32::try_from(owed.len()).unwrap_or(u32::MAX);
        if !gives && !owed.is_empty() && !rescope.cut.is_fence() {
            output.residue.push(Residue::OlderTokens);
        }
        Ok(output)
    }

    /// Closes the role: neither a login nor a new secret_id gives anything from then on. Tokens that it gave before live.
    async fn fence(&self, subject: &Subject) -> Result<Output, Failure> {
        let rescope = subject.asked()?;
        if rescope.cutting.before.is_none() || !rescope.cut.is_fence() {
            return Err(refused("nobody has looked at what is to be closed"));
        }
        let Output { request_ids, mut residue, .. } = self.change(subject, false).await?;
        // Seen by asking, before the first value dies. Who cannot see it has written it all the same.
        let unseen = |failure: Failure| Failure::new(FailureKind::Unknown, failure.note);
        let role = self.ours(subject).await.map_err(unseen)?;
        let mut owed = owed(rescope, &role).map_err(unseen)?;
        owed.retain(|(named, _)| *named != Named::Entity || residue.is_empty());
        if !role.settings.stands(&owed) {
            return Err(Failure::new(FailureKind::Unknown, "the fence does not stand"));
        }
        if residue.is_empty() && role.settings.behind.is_open() {
            residue.push(Residue::EntityOpen);
        }
        // What it gave before is ended by the steps behind it.
        Ok(Output { request_ids, residue, ..Output::default() })
    }

    /// Policies that the role's tokens get beside its own: of the entity behind it, and of that one's groups.
    async fn of_entity(&self, subject: &Subject, role: &Role) -> Result<BTreeSet<String>, Failure> {
        let entity = match self.entity(subject, &role.role_id).await {
            Ok(Some(entity)) => entity,
            Ok(None) => return Ok(BTreeSet::new()),
            Err(other) => return Err(self.failure(other).await),
        };
        let mut policies: BTreeSet<String> = words(&entity["policies"]).collect();
        let groups: BTreeSet<String> =
            words(&entity["group_ids"]).chain(words(&entity["inherited_group_ids"])).collect();
        for group in groups {
            match self.vault.ask(Call::Settings, Raw::get(format!("identity/group/id/{group}"))).await {
                Meaning::Done { data, .. } => policies.extend(words(&data["data"]["policies"])),
                Meaning::Gone => {}
                other => return Err(self.failure(other).await),
            }
        }
        Ok(policies)
    }

    /// How many of the named permissions count for the role, and of how many.
    async fn count(&self, subject: &Subject, role: &Role) -> Result<(usize, usize), Failure> {
        let rescope = subject.asked()?;
        if rescope.gives {
            let mut there = 0;
            for one in rescope.owed() {
                let form: Form = serde_json::from_str(&one.how).map_err(|_| odd())?;
                there += usize::from(role.settings.has(named(&one.permission)?, &form));
            }
            return Ok((there, rescope.owed().len()));
        }
        let all = all(rescope)?;
        let is_policy = |one: &Named<'_>| matches!(one, Named::Policy(_));
        let others = if all.iter().any(is_policy) { self.of_entity(subject, role).await? } else { BTreeSet::new() };
        let otherwise = |one: &Named<'_>| matches!(one, Named::Policy(name) if others.contains(*name));
        let there = all.iter().filter(|one| role.settings.held(**one, "").is_some() || otherwise(one)).count();
        Ok((there, all.len()))
    }

    async fn gate(&self, subject: &Subject) -> Result<Gate, Failure> {
        let rescope = subject.asked()?;
        let role = match self.ours(subject).await {
            Ok(role) => role,
            Err(failure) if failure.kind == FailureKind::Gone => return Ok(Gate::Open),
            Err(failure) => return Err(failure),
        };
        let (there, of) = self.count(subject, &role).await?;
        if rescope.gives {
            return if there == of { Ok(Gate::Open) } else { Err(refused("not all of it was given back")) };
        }
        if there > 0 {
            return Err(refused("a policy still counts: its entity, or a group of that one, has it as well"));
        }
        let now = scope(rescope, &role)?;
        match rescope.cutting.before.as_ref().is_some_and(|before| before.rest == now.rest) {
            true => Ok(Gate::Open),
            false => Err(refused("something else of the role has changed")),
        }
    }

    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool, Level), Failure> {
        let active = self.vault.is_active().await;
        let Some(role) = self.role(subject).await? else { return Ok((Answer::Refused, active, Level::Issuer)) };
        let (there, of) = self.count(subject, &role).await?;
        Ok((subject.asked()?.answer(there, of), active, Level::Issuer))
    }
}

#[async_trait]
impl Connector for VaultScope {
    fn name(&self) -> &'static str {
        "vault-scope"
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
        self.vault.bounded(false, self.look(subject)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        match act {
            Act::Narrow => self.vault.bounded(true, self.change(subject, false)).await,
            // After a write all that fails is `Unknown`.
            Act::Fence => self.vault.bounded(true, self.fence(subject)).await.map_err(Failure::untouched),
            Act::Widen => self.vault.bounded(true, self.change(subject, true)).await,
            _ => Err(unsupported()),
        }
    }

    async fn pass(&self, _act: Act, subject: &Subject) -> Result<Gate, Failure> {
        self.vault.bounded(false, self.gate(subject)).await
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        self.vault.sighted(self.sight(subject)).await
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.vault.bounded(false, self.vault.check_needs(&self.needs())).await
    }
}
