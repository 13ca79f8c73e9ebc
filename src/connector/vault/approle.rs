//! `vault-approle`: the secret_id of an AppRole that consumers read from a store, replaced by one that we pick.
//!
//! Many secret_ids of a role work at once, so the new one works before the old one ends. Which one a stored value is, a
//! look-up of that value says, by its accessor: never "the others of the role". Ours carry in their metadata whose they
//! are and which step made them; so do the tokens that they give. To register one twice is an error at Vault: it is looked
//! up first, and is "already so" only where its metadata is ours.
//!
//! While the role is fenced ([`super::scope`]) no login says anything of a value: Vault itself is asked for it, and nobody waits for an
//! end that the fence has, while what leaked lives.
//!
//! Whoever logs in wrongly five times locks the role for everybody. So a look begins with a value that works, where there
//! is one, and tries nothing but the old one beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::{self, Raw};
use super::rights::Need;
use super::scope::form::Settings;
use super::secret_id::WALK;
use super::{Vault, exact, odd, unsupported};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue, Sighting};
use crate::connector::candidate::check;
use crate::connector::many::{self, Going, Why};
use crate::connector::recipe::{Rotation, Which, of_store};
use crate::connector::wiped::Wiped;
use crate::connector::{Connector, Failure, Gate, Subject};
use crate::credential::Kind;
use crate::probe::Settle;

/// In a secret_id's metadata: the credential that it is a value of, and the key of the step that made it.
const CREDENTIAL: &str = "curfew_credential";
const KEY: &str = "curfew_key";
/// How often it is tried to end the token of a login of our own.
const FAREWELLS: u32 = 3;

/// The AppRoles of one realm whose secret_ids are rotated.
pub struct AppRoles {
    vault: Arc<Vault>,
}

/// `<mount>/<role>`, apart.
struct Role<'a> {
    mount: &'a str,
    name: &'a str,
}

impl<'a> Role<'a> {
    fn of(name: &'a str) -> Result<Self, Failure> {
        exact(name)?;
        let (mount, name) = name.rsplit_once('/').ok_or_else(|| refused("an AppRole is named <mount>/<role>"))?;
        Ok(Self { mount, name })
    }

    fn path(&self, what: &str) -> String {
        format!("auth/{}/role/{}/{what}", self.mount, self.name)
    }
}

/// A secret_id that Vault knows.
struct Known {
    accessor: String,
    /// Of ours: the key of its step.
    key: Option<String>,
    /// It is a value of this credential, made by us.
    is_ours: bool,
    /// It can be used so often only.
    is_bounded: bool,
}

/// What came of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    In,
    Refused,
    Unclear,
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

fn rotation(subject: &Subject) -> Result<(&Rotation, Role<'_>), Failure> {
    let rotation = subject.rotation.as_ref().ok_or_else(|| refused("no recipe names its role"))?;
    let name = rotation.recipe.users.names().first().copied().unwrap_or_default();
    Ok((rotation, Role::of(name)?))
}

/// Checks a role's name.
///
/// # Errors
/// `Refused`: it names no single role.
pub fn check_role(name: &str) -> Result<(), Failure> {
    Role::of(name).map(drop)
}

impl AppRoles {
    /// The connector, on a login.
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        for role in self.vault.settings.approles.iter().filter_map(|name| Role::of(name).ok()) {
            let mut need = |what: &str, rights| needs.push(Need { path: role.path(what), rights });
            need("role-id", &["read"]);
            need("secret-id/lookup", &["update"]);
            need("secret-id-accessor/lookup", &["update"]);
            if self.vault.enforce {
                need("custom-secret-id", &["update"]);
                need("secret-id-accessor/destroy", &["update"]);
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

    /// The role's id; `None`: there is no such role.
    async fn role_id(&self, role: &Role<'_>) -> Result<Option<String>, Failure> {
        match self.vault.ask(Call::RoleId, Raw::get(role.path("role-id"))).await {
            Meaning::Done { data, .. } => Ok(data["data"]["role_id"].as_str().map(str::to_owned)),
            Meaning::Gone => Ok(None),
            other => Err(self.failure(other).await),
        }
    }

    /// Which secret_id of the role a value is.
    async fn find(&self, subject: &Subject, role: &Role<'_>, value: &SecretString) -> Result<Option<Known>, Failure> {
        let raw = Raw::post(role.path("secret-id/lookup"), json!({ "secret_id": value.expose_secret() }));
        let data = match self.vault.ask(Call::SecretIdFind, raw).await {
            Meaning::Done { mut data, .. } => data["data"].take(),
            Meaning::Gone => return Ok(None),
            other => return Err(self.failure(other).await),
        };
        let text = |key: &str| data["metadata"][key].as_str();
        Ok(Some(Known {
            accessor: data["secret_id_accessor"].as_str().ok_or_else(odd)?.to_owned(),
            key: text(KEY).map(str::to_owned),
            is_ours: text(CREDENTIAL) == Some(subject.credential.as_str()),
            is_bounded: data["secret_id_num_uses"].as_i64().is_some_and(|uses| uses > 0),
        }))
    }

    async fn destroy(&self, role: &Role<'_>, accessor: &str) -> Result<(), Failure> {
        let raw = Raw::post(role.path("secret-id-accessor/destroy"), json!({ "secret_id_accessor": accessor }));
        match self.vault.ask(Call::SecretIdDestroy, raw).await {
            Meaning::Done { .. } | Meaning::Gone => Ok(()),
            other => Err(self.failure(other).await),
        }
    }

    /// A login of its own; its token is ended at once.
    async fn log_in(&self, role: &Role<'_>, role_id: &str, value: &SecretString) -> Login {
        let body = json!({ "role_id": role_id, "secret_id": value.expose_secret() });
        let data = match self.vault.ask(Call::Login, Raw::post(format!("auth/{}/login", role.mount), body)).await {
            Meaning::Done { data, .. } => Wiped(data),
            Meaning::Gone => return Login::Refused,
            _ => return Login::Unclear,
        };
        let token = data.0["auth"]["client_token"].as_str().unwrap_or_default();
        if let Ok(token) = client::header_safe("token", token) {
            let own = self.vault.wire.with_token(&token);
            for _ in 0..FAREWELLS {
                let ended = client::send(&own, Raw::post("auth/token/revoke-self", json!({}))).await;
                if ended.is_ok_and(|reply| reply.status == 204) {
                    break;
                }
            }
        }
        Login::In
    }

    /// Whether a fence of ours keeps everybody out. Who may not read the role's settings does not know of one.
    async fn is_shut(&self, role: &Role<'_>) -> bool {
        let raw = Raw::get(format!("auth/{}/role/{}", role.mount, role.name));
        match self.vault.ask(Call::Settings, raw).await {
            Meaning::Done { mut data, .. } => Settings::of(data["data"].take()).is_shut(),
            _ => false,
        }
    }

    /// The role by which we log in ourselves.
    fn is_own(&self, role: &Role<'_>) -> bool {
        let own = self.vault.session.load_full().and_then(|session| session.role.clone());
        own.is_some_and(|own| own.eq_ignore_ascii_case(&format!("{}/{}", role.mount, role.name)))
    }

    /// The role; and once the store was seen, which secret_id the old value is: `<accessor>` or `<accessor>,<key>`.
    async fn look(&self, subject: &Subject) -> Result<Observation, Failure> {
        let (rotation, role) = rotation(subject)?;
        let mut seen = self.vault.blank();
        seen.presence = if self.role_id(&role).await?.is_some() { Presence::Present } else { Presence::Gone };
        seen.protected = self.is_own(&role);
        if seen.presence == Presence::Present
            && let Some(old) = many::old(rotation).await?
            && let Some(known) = self.find(subject, &role, &old.value).await?
        {
            let key = known.key.filter(|_| known.is_ours).map(|key| format!(",{key}")).unwrap_or_default();
            seen.principal_id = Some(known.accessor + &key);
        }
        Ok(seen)
    }

    async fn set(&self, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, role) = rotation(subject)?;
        let recipe = &rotation.recipe;
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let current = many::read(rotation, Which::Current).await?;
        check(&candidate, current.as_ref(), role.name, &recipe.password)?;
        let key = candidate.key.map(|key| key.to_string()).unwrap_or_default();
        let done = |request_ids| Output { done_ms: Some(self.vault.clock.wall_ms()), request_ids, ..Output::default() };
        match self.find(subject, &role, &candidate.value).await? {
            Some(known) if known.is_ours && known.key.as_deref() == Some(&*key) => return Ok(done(Vec::new())),
            Some(_) => return Err(refused("the candidate is a secret_id already, and not by this step")),
            None => {}
        }
        let metadata = json!({ CREDENTIAL: subject.credential.as_str(), KEY: key }).to_string();
        let body = json!({ "secret_id": candidate.value.expose_secret(), "metadata": metadata });
        match self.vault.ask(Call::SecretIdSet, Raw::post(role.path("custom-secret-id"), body)).await {
            Meaning::Done { request_id, .. } => Ok(done(request_id.into_iter().collect())),
            other => Err(self.failure(other).await),
        }
    }

    /// Another value would fare no better: what is refused here is refused for the role's sake.
    async fn test(&self, subject: &Subject) -> Result<Gate, Failure> {
        let (rotation, role) = rotation(subject)?;
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let Some(role_id) = self.role_id(&role).await? else { return Err(refused("there is no such role")) };
        match self.find(subject, &role, &candidate.value).await? {
            Some(known) if known.is_bounded => {
                return Err(refused("the role bounds how often a secret_id is used: our tests would use it up"));
            }
            Some(_) => {}
            None => return Err(refused("the candidate is no secret_id any more")),
        }
        let login = self.log_in(&role, &role_id, &candidate.value).await;
        if login != Login::In && self.is_shut(&role).await {
            return Ok(Gate::Open);
        }
        match login {
            Login::In => Ok(Gate::Open),
            Login::Refused => Err(refused("the login with the candidate is refused")),
            Login::Unclear => {
                Err(Failure::new(FailureKind::Unavailable, "the login with the candidate says nothing of it"))
            }
        }
    }

    /// Destroys the old secret_id, and what this credential's cases made beside the one that stays.
    async fn cut(&self, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, role) = rotation(subject)?;
        if self.is_own(&role) {
            return Err(refused("by this role we log in ourselves"));
        }
        if let (None, Some(seen)) = (many::old(rotation).await?, accessor_of(subject)) {
            self.destroy(&role, seen.0).await?;
        }
        for Going { stored, why } in &many::going(rotation).await? {
            if let Some(known) = self.find(subject, &role, &stored.value).await?
                && (known.is_ours || *why == Why::Named)
            {
                self.destroy(&role, &known.accessor).await?;
            }
        }
        Ok(Output::default())
    }

    /// Ends the tokens that the old secret_id gave, as far as metadata tells.
    async fn derived(&self, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, role) = rotation(subject)?;
        let current = many::read(rotation, Which::Current).await?;
        let kept = match many::kept(rotation, current.as_ref()) {
            Some(kept) => self.find(subject, &role, &kept.value).await?.and_then(|known| known.key),
            None => None,
        };
        let (accessor, key) = accessor_of(subject).unzip();
        let key = key.flatten();
        let login = format!("auth/{}/login", role.mount);
        let all = subject.ends_all();
        let fits = |token: &Value| {
            let meta = &token["meta"];
            let is = |name: &str, wanted: Option<&str>| wanted.is_some() && meta[name].as_str() == wanted;
            let made = meta[CREDENTIAL].as_str() == Some(subject.credential.as_str());
            token["path"].as_str() == Some(login.as_str())
                && meta["role_name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(role.name))
                && (all
                    || is("secret_id_accessor", accessor)
                    || is(KEY, key)
                    || (made && meta[KEY].as_str() != kept.as_deref()))
        };
        let unknown = Output { residue: vec![Residue::DerivedUnknown], ..Output::default() };
        let are_listed = self.vault.gives_service_tokens(role.mount, role.name).await?;
        let Some(mut output) = self.vault.end_tokens(fits).await? else { return Ok(unknown) };
        // What a person made has no mark of ours. Of a role that ends all of its tokens go.
        if !are_listed || (key.is_none() && !all) {
            output.residue.push(Residue::DerivedUnknown);
        }
        Ok(output)
    }

    /// The candidate goes, unless consumers read it.
    async fn restore(&self, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, role) = rotation(subject)?;
        if let Some(candidate) = many::taken_back(rotation).await?
            && let Some(known) = self.find(subject, &role, &candidate.value).await?
            && known.is_ours
        {
            self.destroy(&role, &known.accessor).await?;
        }
        Ok(Output::default())
    }

    /// What was seen, and whether a control shows that it can be believed.
    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool, Level), Failure> {
        let (rotation, role) = rotation(subject)?;
        let unknown = (Answer::Unknown, false, Level::Target);
        let (new, tried) = many::tried(rotation).await?;
        let Some(role_id) = self.role_id(&role).await? else {
            // Without the role none of its secret_ids lets anybody in.
            return Ok((Answer::Refused, self.vault.is_living().await, Level::Issuer));
        };
        if !self.vault.is_living().await {
            return Ok(unknown);
        }
        let mut is_shut = subject.ends_all();
        if let Some(new) = &new {
            // A login that is let in takes back what failed ones counted towards a lock.
            let known = self.find(subject, &role, &new.value).await?;
            if known.is_none_or(|known| known.is_bounded) {
                return Ok(unknown);
            }
            if self.log_in(&role, &role_id, &new.value).await != Login::In {
                if !self.is_shut(&role).await {
                    return Ok(unknown);
                }
                is_shut = true;
            }
        }
        // Behind a fence a login is refused, whether the secret_id lives or not: that is no death, and nobody logs in there.
        let level = if is_shut { Level::Issuer } else { Level::Target };
        for stored in &tried {
            let login = match level {
                Level::Target => self.log_in(&role, &role_id, &stored.value).await,
                Level::Issuer => Login::Refused,
            };
            match login {
                Login::In => return Ok((Answer::Accepted, true, Level::Target)),
                // The role may let nobody in from here: what it knows works for others.
                Login::Refused if self.find(subject, &role, &stored.value).await?.is_some() => {
                    return Ok((Answer::Accepted, true, Level::Issuer));
                }
                Login::Refused => {}
                Login::Unclear => return Ok(unknown),
            }
        }
        if !tried.is_empty() {
            return Ok((Answer::Refused, true, level));
        }
        // Its value is not stored any more: the issuer says whether it knows it.
        let Some((accessor, _)) = accessor_of(subject) else { return Ok(unknown) };
        let raw = Raw::post(role.path("secret-id-accessor/lookup"), json!({ "secret_id_accessor": accessor }));
        Ok(match self.vault.ask(Call::SecretIdLookup, raw).await {
            Meaning::Gone => (Answer::Refused, true, Level::Issuer),
            Meaning::Done { .. } => (Answer::Accepted, true, Level::Issuer),
            _ => unknown,
        })
    }
}

/// The old secret_id, as it was recorded: accessor and, of ours, key.
fn accessor_of(subject: &Subject) -> Option<(&str, Option<&str>)> {
    let recorded =
        [&subject.seen, &subject.issuer].into_iter().flatten().find_map(|seen| seen.principal_id.as_deref())?;
    Some(recorded.split_once(',').map_or((recorded, None), |(accessor, key)| (accessor, Some(key))))
}

#[async_trait]
impl Connector for AppRoles {
    fn name(&self) -> &'static str {
        Kind::VaultApprole.as_str()
    }

    fn system(&self) -> &str {
        &self.vault.realm
    }

    fn call_timeout_ms(&self) -> i64 {
        let one = self.vault.call_timeout_ms();
        if self.vault.settings.derived_tokens { one.saturating_mul(WALK) } else { one }
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.vault.bounded(false, self.look(subject)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let call = async {
            match act {
                Act::Set => self.vault.bounded(true, self.set(subject)).await,
                Act::Revoke => self.vault.bounded(true, self.cut(subject)).await,
                Act::RevokeDerived => self.derived(subject).await,
                Act::Restore => self.vault.bounded(true, self.restore(subject)).await,
                _ => Err(unsupported()),
            }
        };
        let most = Duration::from_millis(u64::try_from(self.call_timeout_ms()).unwrap_or(u64::MAX));
        let late = |_| Err(Failure::new(FailureKind::Unknown, "no answer in time"));
        tokio::time::timeout(most, Box::pin(call)).await.unwrap_or_else(late)
    }

    async fn pass(&self, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        match act {
            Act::Test => self.vault.bounded(false, self.test(subject)).await,
            Act::Adopt => Ok(many::adopted(rotation(subject)?.0, self.vault.clock.wall_ms())),
            _ => Err(unsupported()),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        self.vault.sighted(Box::pin(self.sight(subject))).await
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.vault.bounded(false, self.vault.check_needs(&self.needs())).await
    }
}
