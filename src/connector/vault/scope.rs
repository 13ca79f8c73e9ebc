//! `vault-scope`: policies are taken from an AppRole of Vault, and given back.
//!
//! Its own list is changed, never a policy: others may hold that. Vault has no check-and-set for roles, so the list is read,
//! written and read again; what else changed in between is seen there. Tokens that the role gave before keep what they were
//! given until they expire (`token_max_ttl` at the latest): that is said as what remains.
//!
//! Whether a policy still counts is asked of the role and of the entity behind it with its groups. A role that was made anew
//! under its name has another role_id: it is known by the digest of that, which is kept nowhere in plain.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::rights::Need;
use super::{Vault, exact, odd, unsupported};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue, Sighting};
use crate::connector::{Connector, Failure, Gate, Rescope, Subject};
use crate::event::digest16;
use crate::probe::Settle;
use crate::scope::{Held, Permission, Scope};

/// Takes from the AppRoles of one realm.
pub struct VaultScope {
    vault: Arc<Vault>,
}

/// What a look at a role showed.
struct Role {
    /// The digest of its role_id.
    id: String,
    role_id: String,
    /// Their order means nothing: Vault sorts what is written to the list alone.
    policies: Vec<String>,
    /// Its other settings, as Vault has them.
    rest: Value,
}

/// How a role was given a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    /// The digest of its role_id.
    role: String,
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

fn asked(subject: &Subject) -> Result<&Rescope, Failure> {
    subject.rescope.as_ref().ok_or_else(|| refused("it is not said which permissions are meant"))
}

/// `policy:<name>`. `default` is everybody's, and given by another setting.
fn policy(permission: &Permission) -> Result<&str, Failure> {
    match permission.parts() {
        ("policy", name) if !matches!(name, "default" | "root") => Ok(name),
        _ => Err(refused("of an AppRole of Vault policies are taken, but for `default`: policy:NAME")),
    }
}

/// `<mount>/<role>`, apart.
fn place(subject: &Subject) -> Result<(String, String), Failure> {
    let id = subject.credential.id();
    exact(&id)?;
    let (mount, role) = id.rsplit_once('/').ok_or_else(|| refused("an AppRole is named <mount>/<role>"))?;
    Ok((mount.to_owned(), role.to_owned()))
}

fn words(value: &Value) -> impl Iterator<Item = String> + '_ {
    value.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned()))
}

/// What of the named policies it has, and the digest of all else.
fn scope(rescope: &Rescope, role: &Role) -> Result<Scope, Failure> {
    let mut scope = Scope::default();
    let mut rest: BTreeSet<String> = role.policies.iter().cloned().collect();
    for permission in &rescope.cut.permissions {
        let name = policy(permission)?;
        rest.remove(name);
        if role.policies.iter().any(|one| one == name) {
            let how = serde_json::to_string(&Form { role: role.id.clone() }).map_err(|_| odd())?;
            scope.held.push(Held { permission: permission.clone(), how });
        }
    }
    scope.rest_count = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let lines: Vec<String> = rest.into_iter().chain([role.rest.to_string()]).collect();
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
                need("/policies", &["update"]);
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

    /// The role. `None`: there is none.
    async fn role(&self, subject: &Subject) -> Result<Option<Role>, Failure> {
        let (mount, name) = place(subject)?;
        let path = format!("auth/{mount}/role/{name}");
        let role_id = match self.vault.ask(Call::RoleId, Raw::get(format!("{path}/role-id"))).await {
            Meaning::Done { data, .. } => data["data"]["role_id"].as_str().ok_or_else(odd)?.to_owned(),
            Meaning::Gone => return Ok(None),
            other => return Err(self.failure(other).await),
        };
        let mut rest = match self.vault.ask(Call::Settings, Raw::get(path)).await {
            Meaning::Done { mut data, .. } => data["data"].take(),
            Meaning::Gone => return Ok(None),
            other => return Err(self.failure(other).await),
        };
        let mut policies: Vec<String> = words(&rest["token_policies"]).collect();
        // An older name of the same list.
        policies.extend(words(&rest["policies"]).filter(|one| !policies.contains(one)).collect::<Vec<_>>());
        if let Some(rest) = rest.as_object_mut() {
            rest.remove("token_policies");
            rest.remove("policies");
        }
        Ok(Some(Role { id: hex::encode(digest16(&[role_id.as_bytes()])), role_id, policies, rest }))
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
        own.is_some_and(|own| own.eq_ignore_ascii_case(&subject.credential.id()))
    }

    async fn look(&self, subject: &Subject) -> Result<Observation, Failure> {
        let rescope = asked(subject)?;
        let mut seen = self.vault.blank();
        seen.protected = self.is_own(subject);
        match self.role(subject).await? {
            Some(role) => {
                seen.presence = Presence::Present;
                seen.scope = Some(scope(rescope, &role)?);
                seen.principal_id = Some(role.id);
            }
            None => seen.presence = Presence::Gone,
        }
        Ok(seen)
    }

    async fn change(&self, subject: &Subject, gives: bool) -> Result<Output, Failure> {
        let rescope = asked(subject)?;
        let role = self.ours(subject).await?;
        let mut owed = Vec::new();
        for one in rescope.owed() {
            let form: Form = serde_json::from_str(&one.how).map_err(|_| refused("what was recorded cannot be read"))?;
            if form.role != role.id {
                return Err(refused("another role has its name by now"));
            }
            owed.push(policy(&one.permission)?);
        }
        let mut wanted = role.policies.clone();
        wanted.retain(|one| !owed.iter().any(|name| one == name));
        if gives {
            wanted.extend(owed.into_iter().map(str::to_owned));
        }
        let changed = wanted.len().abs_diff(role.policies.len());
        let mut output = Output { derived: u32::try_from(changed).unwrap_or(u32::MAX), ..Output::default() };
        if changed > 0 {
            let (mount, name) = place(subject)?;
            let raw = Raw::post(format!("auth/{mount}/role/{name}/policies"), json!({ "token_policies": wanted }));
            match self.vault.ask(Call::RoleWrite, raw).await {
                Meaning::Done { request_id, .. } => output.request_ids.extend(request_id),
                other => return Err(self.failure(other).await),
            }
        }
        if !gives && !rescope.owed().is_empty() {
            output.residue.push(Residue::OlderTokens);
        }
        Ok(output)
    }

    /// Policies that the role's tokens get beside its own: of the entity behind it, and of that one's groups.
    async fn of_entity(&self, subject: &Subject, role: &Role) -> Result<BTreeSet<String>, Failure> {
        let (mount, _) = place(subject)?;
        let raw = Raw::get(format!("sys/internal/ui/mounts/auth/{mount}"));
        let accessor = match self.vault.ask(Call::Mount, raw).await {
            Meaning::Done { data, .. } => data["data"]["accessor"].as_str().ok_or_else(odd)?.to_owned(),
            other => return Err(self.failure(other).await),
        };
        let alias = json!({ "alias_name": role.role_id, "alias_mount_accessor": accessor });
        let entity = match self.vault.ask(Call::EntityLookup, Raw::post("identity/lookup/entity", alias)).await {
            Meaning::Done { mut data, .. } => data["data"].take(),
            Meaning::Gone => return Ok(BTreeSet::new()),
            other => return Err(self.failure(other).await),
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

    /// How many of the named policies count for the role, and of how many.
    async fn count(&self, subject: &Subject, role: &Role) -> Result<(usize, usize), Failure> {
        let rescope = asked(subject)?;
        if rescope.gives {
            let owed: Vec<&str> = rescope.owed().iter().map(|one| policy(&one.permission)).collect::<Result<_, _>>()?;
            return Ok((owed.iter().filter(|name| role.policies.iter().any(|has| has == *name)).count(), owed.len()));
        }
        let others = self.of_entity(subject, role).await?;
        let mut there = 0;
        for permission in &rescope.cut.permissions {
            let name = policy(permission)?;
            there += usize::from(role.policies.iter().any(|has| has == name) || others.contains(name));
        }
        Ok((there, rescope.cut.permissions.len()))
    }

    async fn gate(&self, subject: &Subject) -> Result<Gate, Failure> {
        let rescope = asked(subject)?;
        let role = self.ours(subject).await?;
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
        let answer = match (there, asked(subject)?.gives) {
            (0, _) => Answer::Refused,
            (_, true) if there < of => Answer::Unknown,
            _ => Answer::Accepted,
        };
        Ok((answer, active, Level::Issuer))
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
