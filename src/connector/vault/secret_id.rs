//! `vault-secret-id`: secret_ids of AppRoles, by `<mount>/<role>/<accessor>`.
//!
//! Destroying a secret_id is the fence: nothing new comes from it. What it gave before lives, renews and mints on, so
//! the tokens whose metadata names it die next, each looked up afterwards. What no metadata names stays unknown, and so do
//! batch tokens, which nobody can list.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::said::said_of_secret_id;
use super::{Vault, exact, odd, run_of, time_ms, unsupported};
use crate::case::plan::Act;
use crate::case::record::{FailureKind, Observation, Output, Presence, Residue, Sighting};
use crate::connector::{Connector, Failure, Subject};
use crate::credential::Kind;
use crate::guard::same_run;
use crate::probe::Settle;
use crate::task::RunKey;

/// More tokens than these are not walked through: what the secret_id gave then stays unknown.
const MOST_TOKENS: usize = 10_000;
/// Look-ups at a time.
const AT_ONCE: usize = 8;
/// Walking through the tokens may take this many ordinary calls' time.
pub(super) const WALK: i64 = 6;

/// The secret_ids of one realm.
pub struct SecretIds {
    vault: Arc<Vault>,
}

/// `<mount>/<role>/<accessor>`, apart.
struct Name<'a> {
    mount: &'a str,
    role: &'a str,
    accessor: &'a str,
}

impl<'a> Name<'a> {
    fn of(id: &'a str) -> Result<Self, Failure> {
        exact(id)?;
        let (rest, accessor) = id.rsplit_once('/').ok_or_else(no_name)?;
        let (mount, role) = rest.rsplit_once('/').ok_or_else(no_name)?;
        Ok(Self { mount, role, accessor })
    }

    fn path(&self, verb: &str) -> String {
        path(self.mount, self.role, verb)
    }
}

fn path(mount: &str, role: &str, verb: &str) -> String {
    format!("auth/{mount}/role/{role}/secret-id-accessor/{verb}")
}

fn no_name() -> Failure {
    Failure::new(FailureKind::Refused, "a secret_id is named <mount>/<role>/<accessor>")
}

/// What marks a token as given by a secret_id.
struct Marks {
    accessor: String,
    login: String,
    role: String,
    /// As its metadata says, word for word.
    named: Option<String>,
    /// As the case says.
    run: Option<RunKey>,
    /// The role ends with all that it gave.
    all: bool,
}

impl Marks {
    fn fit(&self, token: &Value) -> bool {
        let meta = &token["meta"];
        let of_role = token["path"].as_str() == Some(self.login.as_str())
            && meta["role_name"].as_str().is_some_and(|role| role.eq_ignore_ascii_case(&self.role));
        if !of_role || self.all {
            return of_role;
        }
        if let Some(accessor) = meta["secret_id_accessor"].as_str() {
            return accessor == self.accessor;
        }
        run_of(meta).is_some_and(|run| match (&self.named, &self.run) {
            (Some(named), _) => *named == run,
            (None, Some(key)) => same_run(key, &run),
            (None, None) => false,
        })
    }
}

impl SecretIds {
    /// The connector, on a login.
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    fn needs(&self) -> Vec<String> {
        let roles = self.vault.settings.secret_id_roles.iter();
        let names = roles.filter_map(|role| role.trim_matches('/').rsplit_once('/'));
        let verbs: &[&str] = if self.vault.enforce { &["lookup", "destroy"] } else { &["lookup"] };
        names.flat_map(|(mount, role)| verbs.iter().map(move |verb| path(mount, role, verb))).collect()
    }

    async fn look(&self, id: &str) -> Result<Observation, Failure> {
        Ok(self.vault.look_at_secret_id(id, &self.needs()).await?.0)
    }

    async fn destroy(&self, id: &str) -> Result<Output, Failure> {
        let name = Name::of(id)?;
        let raw = Raw::post(name.path("destroy"), json!({ "secret_id_accessor": name.accessor }));
        match self.vault.ask(Call::SecretIdDestroy, raw).await {
            Meaning::Done { .. } | Meaning::Gone => Ok(Output::default()),
            Meaning::Outdated | Meaning::Unclear(_) => Err(odd()),
            Meaning::Forbidden => Err(self.vault.forbidden(&self.needs()).await),
            Meaning::Failed(failure) => Err(failure),
        }
    }

    /// Ends the tokens that the secret_id gave, as far as metadata tells.
    async fn derived(&self, subject: &Subject) -> Result<Output, Failure> {
        let unknown = Output { residue: vec![Residue::DerivedUnknown], ..Output::default() };
        let id = subject.credential.id();
        let name = Name::of(&id)?;
        let named = [&subject.seen, &subject.issuer].into_iter().flatten().find_map(|seen| seen.run.clone());
        let marks = Marks {
            accessor: name.accessor.to_owned(),
            login: format!("auth/{}/login", name.mount),
            role: name.role.to_owned(),
            run: subject.run.clone(),
            named,
            all: subject.ends_all(),
        };
        let are_listed = self.vault.gives_service_tokens(name.mount, name.role).await?;
        let Some(mut output) = self.vault.end_tokens(|token| marks.fit(token)).await? else { return Ok(unknown) };
        // Only what carries the id that we or the issuer put on it can be told from other tokens of the role.
        if !are_listed || (marks.named.is_none() && !marks.all) {
            output.residue.push(Residue::DerivedUnknown);
        }
        Ok(output)
    }

    async fn walk(&self, subject: &Subject) -> Result<Output, Failure> {
        let most = u64::try_from(self.call_timeout_ms()).unwrap_or(u64::MAX);
        tokio::time::timeout(std::time::Duration::from_millis(most), self.derived(subject))
            .await
            .unwrap_or_else(|_| Err(Failure::new(FailureKind::Unknown, "the tokens were not all looked at in time")))
    }
}

impl Vault {
    /// Looks a secret_id up; the second is what it was given as metadata. `needs`: the paths that our policy must
    /// allow besides this look-up.
    pub(crate) async fn look_at_secret_id(&self, id: &str, needs: &[String]) -> Result<(Observation, Value), Failure> {
        let name = Name::of(id)?;
        let looks = [name.path("lookup")];
        let needs = if needs.is_empty() { looks.as_slice() } else { needs };
        let mut seen = self.blank();
        let mut meta = Value::Null;
        let raw = Raw::post(name.path("lookup"), json!({ "secret_id_accessor": name.accessor }));
        match self.ask(Call::SecretIdLookup, raw).await {
            Meaning::Done { mut data, request_id } => {
                let data = &mut data["data"];
                if data["secret_id_accessor"].as_str() != Some(name.accessor) {
                    return Err(odd());
                }
                meta = data["metadata"].take();
                seen.presence = Presence::Present;
                seen.issued_ms = time_ms(&data["creation_time"]);
                seen.expires_ms = time_ms(&data["expiration_time"]);
                seen.run = self.named(&said_of_secret_id(&format!("{}/{}", name.mount, name.role), &meta), &meta);
                seen.request_id = request_id;
            }
            Meaning::Gone => seen.presence = Presence::Gone,
            Meaning::Outdated | Meaning::Unclear(_) => {}
            Meaning::Forbidden => return Err(self.forbidden(needs).await),
            Meaning::Failed(failure) => return Err(failure),
        }
        // P6: another secret_id of the role by which we log in may be the one that we need tomorrow.
        let own_role = self.session.load_full().and_then(|session| session.role.clone());
        seen.protected = own_role.is_some_and(|own| own.eq_ignore_ascii_case(&format!("{}/{}", name.mount, name.role)));
        Ok((seen, meta))
    }

    /// The accessors of the secret_ids of `<mount>/<role>`.
    pub(crate) async fn secret_ids(&self, role: &str) -> Result<Vec<String>, Failure> {
        let (mount, role) = role.rsplit_once('/').ok_or_else(no_name)?;
        self.list(&format!("auth/{mount}/role/{role}/secret-id")).await
    }

    /// Ends the tokens that `fits` says. `None`: this login may not, or there are too many to look at.
    pub(super) async fn end_tokens(
        &self,
        fits: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<Option<Output>, Failure> {
        if !self.settings.derived_tokens {
            return Ok(None);
        }
        let accessors = self.accessors().await?;
        if accessors.len() > MOST_TOKENS {
            return Ok(None);
        }
        let mut found = futures::stream::iter(accessors)
            .map(|accessor| async {
                let looked = self.look_at_token(&accessor).await;
                (accessor, looked)
            })
            .buffer_unordered(AT_ONCE);
        let mut output = Output::default();
        while let Some((accessor, looked)) = found.next().await {
            let (seen, token) = looked?;
            if seen.presence != Presence::Present || seen.protected || !fits(&token) {
                continue;
            }
            let done = self.revoke_token(&accessor).await?;
            let (after, _) = self.look_at_token(&accessor).await?;
            if after.presence != Presence::Gone {
                return Err(Failure::new(FailureKind::Unknown, "a token of this secret_id is not gone yet"));
            }
            output.derived += 1;
            output.request_ids.extend(done.request_ids);
        }
        Ok(Some(output))
    }

    /// The accessors of all tokens.
    pub(crate) async fn accessors(&self) -> Result<Vec<String>, Failure> {
        self.list("auth/token/accessors/").await
    }

    /// The keys of a list; none is an empty list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<String>, Failure> {
        match self.ask(Call::List, Raw::list(path)).await {
            Meaning::Done { data, .. } => {
                let keys = data["data"]["keys"].as_array().into_iter().flatten();
                Ok(keys.filter_map(|key| Some(key.as_str()?.to_owned())).collect())
            }
            // Lists are extras: without the right to them the rest of the realm still works, so nothing is blocked.
            Meaning::Forbidden => Err(match self.self_check(&[]).await {
                Ok(()) => Failure::new(FailureKind::Refused, format!("our policy gives no list on {path}")),
                Err(failure) => failure,
            }),
            Meaning::Failed(failure) => Err(failure),
            Meaning::Gone | Meaning::Outdated | Meaning::Unclear(_) => Err(odd()),
        }
    }
}

#[async_trait]
impl Connector for SecretIds {
    fn name(&self) -> &'static str {
        Kind::VaultSecretId.as_str()
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
        let id = subject.credential.id();
        self.vault.bounded(false, self.look(&id)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let id = subject.credential.id();
        match act {
            Act::Revoke => self.vault.bounded(true, self.destroy(&id)).await,
            Act::RevokeDerived => self.walk(subject).await,
            _ => Err(unsupported()),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let id = subject.credential.id();
        self.vault.sight(subject, self.look(&id), self.vault.is_living()).await
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.vault.bounded(false, self.vault.self_check(&self.needs())).await
    }
}
