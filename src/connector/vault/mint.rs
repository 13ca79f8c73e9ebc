//! The other side of revoking: credentials for one task, minted with a token of that task alone.
//!
//! The task's token is a child of the caller's, lives as long as the task may, cannot be renewed, and names the run in its
//! metadata. What is minted with it dies with it: also a lease whose answer was lost, which nobody knows by name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use vaultrs::client::VaultClient;

use super::answers::{self, Call, Meaning};
use super::client::{self, Raw, Wire};
use super::{ConnectError, VaultSettings, exact, odd};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::wiped::Wiped;

/// Whoever asks for credentials: the token of the caller.
pub struct Issuer {
    wire: Wire,
    own: VaultClient,
}

/// The caller's own token, as Vault sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// How long it lives from now; `None`: for ever.
    pub ttl: Option<Duration>,
    /// Whether it can be made to live longer.
    pub renewable: bool,
}

/// A token of one task.
pub struct TaskToken {
    /// The token.
    pub token: SecretString,
    /// What it is called.
    pub accessor: String,
    /// How long it lives from now.
    pub ttl: Duration,
    client: VaultClient,
}

impl fmt::Debug for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskToken").field("accessor", &self.accessor).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// A credential that was made. `{:?}` shows no field of it.
pub struct Minted {
    /// The lease.
    pub lease: String,
    /// How long it lives from now.
    pub ttl: Duration,
    /// Whether that can be changed.
    pub renewable: bool,
    /// What it consists of.
    pub fields: BTreeMap<String, SecretString>,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.fields.keys().collect();
        f.debug_struct("Minted").field("lease", &self.lease).field("ttl", &self.ttl).field("fields", &names).finish()
    }
}

impl Minted {
    /// The user name at the system behind, where there is one: no secret.
    pub fn principal(&self) -> Option<&str> {
        self.fields.get("username").map(|name| name.expose_secret()).filter(|name| !name.is_empty())
    }
}

impl Issuer {
    /// At the Vault of `settings`, with `token`; nothing is sent.
    ///
    /// # Errors
    /// [`ConnectError::Settings`].
    pub fn new(settings: &VaultSettings, token: &SecretString) -> Result<Self, ConnectError> {
        let wire = Wire::new(settings)?;
        let token = client::header_safe("the token", token.expose_secret())?;
        Ok(Self { own: wire.with_token(&token), wire })
    }

    /// Whether Vault answers, and the caller's token is good.
    ///
    /// # Errors
    /// `Refused`: it is not.
    pub async fn own(&self) -> Result<Own, Failure> {
        let data = ask(&self.own, Call::Own, Raw::get("auth/token/lookup-self")).await;
        let data = or_refused(data, || "the token is not (or no longer) good: log in again".to_owned())?;
        let ttl = data.0["data"]["ttl"].as_u64().filter(|ttl| *ttl > 0).map(Duration::from_secs);
        Ok(Own { ttl, renewable: data.0["data"]["renewable"] == Value::Bool(true) })
    }

    /// Makes the caller's token live `ttl` from now, or as long as it can.
    ///
    /// # Errors
    /// It was not renewed.
    pub async fn renew_own(&self, ttl: Duration) -> Result<Duration, Failure> {
        let raw = Raw::post("auth/token/renew-self", json!({ "increment": ttl.as_secs() }));
        let data = ask(&self.own, Call::Own, raw).await;
        let data = or_refused(data, || "the token may not renew itself".to_owned())?;
        data.0["auth"]["lease_duration"].as_u64().map(Duration::from_secs).ok_or_else(odd)
    }

    /// A child of the caller's token: with `policies`, where there are some, else with the caller's; it lives `ttl` at the
    /// most, and names `run`.
    ///
    /// # Errors
    /// `Unknown`: there may be one, which nobody holds; it dies by its TTL.
    pub async fn task_token(&self, policies: &[String], run: &str, ttl: Duration) -> Result<TaskToken, Failure> {
        let seconds = ttl.as_secs().max(1);
        let mut body = json!({
            "ttl": seconds, "explicit_max_ttl": seconds, "renewable": false, "type": "service",
            "display_name": "curfew-exec", "meta": { "curfew_run": run },
        });
        if !policies.is_empty() {
            body["policies"] = json!(policies);
        }
        let mut data =
            or_refused(ask(&self.own, Call::TokenCreate, Raw::post("auth/token/create", body)).await, || {
                let who = if policies.is_empty() { "" } else { " with these policies (each must be its own, too)" };
                format!("the token may not create a child token{who}: its policy needs update on auth/token/create")
            })?;
        let accessor = data.0["auth"]["accessor"].as_str().unwrap_or_default().to_owned();
        let ttl = data.0["auth"]["lease_duration"].as_u64().map(Duration::from_secs).ok_or_else(odd)?;
        let Value::String(token) = data.0["auth"]["client_token"].take() else { return Err(odd()) };
        let token = SecretString::from(token);
        Ok(TaskToken { client: self.wire.with_token(&token), token, accessor, ttl })
    }

    /// A credential of `path`.
    ///
    /// # Errors
    /// `Unknown`: there may be one; it dies with the task's token.
    pub async fn mint(&self, by: &TaskToken, path: &str) -> Result<Minted, Failure> {
        exact(path)?;
        let mut data = or_refused(ask(&by.client, Call::Mint, Raw::get(path)).await, || {
            format!("the token's policy gives no read on {path}")
        })?;
        let lease = data.0["lease_id"].as_str().unwrap_or_default().to_owned();
        if lease.is_empty() {
            let note = "what this path gives has no lease: it is a standing secret, which no task's end can end";
            return Err(Failure::new(FailureKind::Refused, note));
        }
        exact(&lease)?;
        let Value::Object(all) = data.0["data"].take() else { return Err(odd()) };
        let mut fields = BTreeMap::new();
        for (name, value) in all {
            match value {
                Value::String(text) => fields.insert(name, SecretString::from(text)),
                Value::Null => None,
                other => {
                    let wiped = Wiped(other);
                    fields.insert(name, SecretString::from(wiped.0.to_string()))
                }
            };
        }
        let ttl = Duration::from_secs(data.0["lease_duration"].as_u64().unwrap_or(0));
        Ok(Minted { lease, ttl, renewable: data.0["renewable"] == Value::Bool(true), fields })
    }

    /// Makes a lease end `ttl` from now, sooner or later than its role says: a database also writes that into the user.
    ///
    /// # Errors
    /// Its life stays as it was, or that is not known.
    pub async fn bound(&self, by: &TaskToken, lease: &str, ttl: Duration) -> Result<Duration, Failure> {
        let body = json!({ "lease_id": lease, "increment": ttl.as_secs().max(1) });
        let data = or_refused(ask(&by.client, Call::LeaseRenew, Raw::post("sys/leases/renew", body)).await, || {
            "the token's policy gives no update on sys/leases/renew (`default` does)".to_owned()
        })?;
        data.0["lease_duration"].as_u64().map(Duration::from_secs).ok_or_else(odd)
    }

    /// Puts fields away at Vault, behind a token that opens them once.
    ///
    /// # Errors
    /// They are not.
    pub async fn wrap(
        &self,
        by: &TaskToken,
        fields: &BTreeMap<String, SecretString>,
        ttl: Duration,
    ) -> Result<SecretString, Failure> {
        let body: serde_json::Map<String, Value> =
            fields.iter().map(|(name, value)| (name.clone(), value.expose_secret().into())).collect();
        let raw = Raw::post("sys/wrapping/wrap", Value::Object(body));
        let mut client = self.wire.with_token(&by.token);
        client.middle.wrap = Some(format!("{}s", ttl.as_secs().max(1)));
        let mut data = or_refused(ask(&client, Call::Wrap, raw).await, || {
            "the token's policy gives no update on sys/wrapping/wrap (`default` does)".to_owned()
        })?;
        match data.0["wrap_info"]["token"].take() {
            Value::String(token) => Ok(SecretString::from(token)),
            _ => Err(odd()),
        }
    }

    /// Whether Vault still knows a lease. The caller's policy needs `sys/leases/lookup`.
    ///
    /// # Errors
    /// It did not say.
    pub async fn knows(&self, lease: &str) -> Result<bool, Failure> {
        exact(lease)?;
        let raw = Raw::post("sys/leases/lookup", json!({ "lease_id": lease }));
        match answers::read(Call::LeaseLookup, client::send(&self.own, raw).await) {
            Meaning::Done { .. } => Ok(true),
            Meaning::Gone => Ok(false),
            Meaning::Forbidden => {
                Err(Failure::new(FailureKind::Denied, "the token's policy gives no update on sys/leases/lookup"))
            }
            Meaning::Failed(failure) => Err(failure),
            Meaning::Outdated | Meaning::Unclear(_) => Err(odd()),
        }
    }

    /// Ends the task's token, and with it all that was minted with it. Vault answers first and ends the leases then.
    ///
    /// # Errors
    /// It may live.
    pub async fn end(&self, token: &TaskToken) -> Result<(), Failure> {
        match answers::read(
            Call::RevokeSelf,
            client::send(&token.client, Raw::post("auth/token/revoke-self", json!({}))).await,
        ) {
            Meaning::Done { .. } | Meaning::Gone => Ok(()),
            Meaning::Forbidden => {
                let note = "the task's token may not revoke itself (`default` gives the right)";
                Err(Failure::new(FailureKind::Denied, note))
            }
            Meaning::Failed(failure) => Err(failure),
            Meaning::Outdated | Meaning::Unclear(_) => Err(odd()),
        }
    }
}

/// What Vault did not let through.
enum No {
    Forbidden,
    Failed(Failure),
}

async fn ask(client: &VaultClient, call: Call, raw: Raw) -> Result<Wiped, No> {
    done(answers::read(call, client::send(client, raw).await))
}

fn done(meaning: Meaning) -> Result<Wiped, No> {
    match meaning {
        Meaning::Done { data, .. } => Ok(Wiped(data)),
        Meaning::Forbidden => Err(No::Forbidden),
        Meaning::Failed(failure) => Err(No::Failed(failure)),
        Meaning::Gone | Meaning::Outdated | Meaning::Unclear(_) => Err(No::Failed(odd())),
    }
}

fn or_refused(answer: Result<Wiped, No>, why: impl FnOnce() -> String) -> Result<Wiped, Failure> {
    answer.map_err(|no| match no {
        No::Forbidden => Failure::new(FailureKind::Refused, why()),
        No::Failed(failure) => failure,
    })
}
