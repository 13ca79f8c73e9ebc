//! Curfew's own login: opened, checked, renewed at two thirds of its life, opened again when it died.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use vaultrs::client::VaultClient;

use super::answers::{self, Call, Health, Meaning};
use super::client::{self, Raw};
use super::{Auth, ConnectError, Vault, odd};
use crate::case::record::FailureKind;
use crate::connector::Failure;

/// How soon a failed login or renewal is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How many of its own accessors a process remembers.
const OWN: usize = 4096;

/// A login that was seen to work.
pub struct Session {
    /// Speaks with the login's token. Never printed: vaultrs would print the token.
    pub client: VaultClient,
    /// The token's accessor; empty for batch tokens.
    pub accessor: String,
    /// The entity behind it, where there is one.
    pub entity: Option<String>,
    /// `<mount>/<role>` of an AppRole login.
    pub role: Option<String>,
    /// How long the token lives from now; `None`: for ever.
    ttl: Option<Duration>,
    renewable: bool,
}

impl Vault {
    /// The login, opened now where there is none.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn session(&self) -> Result<Arc<Session>, Failure> {
        match self.session.load_full() {
            Some(session) => Ok(session),
            None => Ok(self.log_in(None).await?),
        }
    }

    /// Logs in, unless somebody else did since `dead` stopped working.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn log_in(&self, dead: Option<&Arc<Session>>) -> Result<Arc<Session>, ConnectError> {
        let _one = self.logging_in.lock().await;
        if let Some(session) = self.session.load_full()
            && !dead.is_some_and(|dead| Arc::ptr_eq(dead, &session))
        {
            return Ok(session);
        }
        self.health().await?;
        let token = self.token().await?;
        let session = Arc::new(self.check(&token).await?);
        if !session.accessor.is_empty() {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            if own.len() < OWN {
                own.insert(session.accessor.clone());
            }
        }
        self.session.store(Some(session.clone()));
        self.show(session.ttl, session.ttl);
        tracing::info!(realm = self.realm, "logged in at Vault");
        Ok(session)
    }

    async fn token(&self) -> Result<SecretString, ConnectError> {
        let (mount, role_id_file, secret_id_file) = match &self.settings.auth {
            Auth::Token(token) => return client::header_safe("token", token.expose_secret()),
            Auth::TokenFile(path) => return client::secret_file("token_file", path).await,
            Auth::Approle { mount, role_id_file, secret_id_file } => (mount, role_id_file, secret_id_file),
        };
        let role_id = client::secret_file("role_id_file", role_id_file).await?;
        let secret_id = client::secret_file("secret_id_file", secret_id_file).await?;
        let nobody = self.wire.with_token(&SecretString::default());
        let body = json!({ "role_id": role_id.expose_secret(), "secret_id": secret_id.expose_secret() });
        let path = format!("auth/{}/login", mount.trim_matches('/'));
        let mut data = match answers::read(Call::Own, client::send(&nobody, Raw::post(path, body)).await) {
            Meaning::Done { data, .. } => data,
            Meaning::Failed(failure) if failure.kind == FailureKind::Refused => {
                return Err(ConnectError::Login("role_id and secret_id are not (or no longer) good".into()));
            }
            other => return Err(refused(other, "this AppRole may not log in from here")),
        };
        match data["auth"]["client_token"].take() {
            Value::String(token) => client::header_safe("token", &token),
            _ => Err(ConnectError::Unreachable(odd())),
        }
    }

    /// Who a token is: an orphan where it must be, and of which role.
    async fn check(&self, token: &SecretString) -> Result<Session, ConnectError> {
        let client = self.wire.with_token(token);
        let reply = client::send(&client, Raw::get("auth/token/lookup-self")).await;
        let data = match answers::read(Call::Own, reply) {
            Meaning::Done { mut data, .. } => data["data"].take(),
            other => {
                return Err(refused(
                    other,
                    "the token is not (or no longer) good, or its policy lacks auth/token/lookup-self",
                ));
            }
        };
        let (Some(accessor), Some(path)) = (data["accessor"].as_str(), data["path"].as_str()) else {
            return Err(ConnectError::Unreachable(odd()));
        };
        if self.enforce && data["orphan"] != Value::Bool(true) {
            return Err(ConnectError::NotOrphan);
        }
        let mount = path.strip_prefix("auth/").and_then(|rest| rest.strip_suffix("/login"));
        let role = mount.zip(data["meta"]["role_name"].as_str()).map(|(mount, role)| format!("{mount}/{role}"));
        let entity = data["entity_id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
        Ok(Session {
            accessor: accessor.to_owned(),
            entity,
            role,
            ttl: data["ttl"].as_u64().filter(|ttl| *ttl > 0).map(Duration::from_secs),
            renewable: data["renewable"] == Value::Bool(true),
            client,
        })
    }

    /// Asks for the node's state, and holds the cluster's id against what is expected, else against what it was.
    ///
    /// # Errors
    /// `WrongCluster`, `Unreachable`.
    pub async fn health(&self) -> Result<Health, ConnectError> {
        let nobody = self.wire.with_token(&SecretString::default());
        let health =
            answers::health(client::send(&nobody, Raw::get("sys/health")).await).map_err(ConnectError::Unreachable)?;
        if let Some(found) = &health.cluster_id {
            let wanted =
                self.settings.cluster_id.as_ref().unwrap_or_else(|| self.cluster.get_or_init(|| found.clone()));
            if wanted != found {
                return Err(ConnectError::WrongCluster { wanted: wanted.clone(), found: found.clone() });
            }
        }
        if health.sealed {
            return Err(ConnectError::Unreachable(Failure::new(FailureKind::Unavailable, "Vault is sealed")));
        }
        Ok(health)
    }

    /// One turn of upkeep; returns when to come again.
    async fn tend(&self) -> Duration {
        let Some(session) = self.session.load_full() else {
            return match self.log_in(None).await {
                Ok(session) => session.rest(),
                Err(error) => self.complain(&error),
            };
        };
        let Some(ttl) = session.ttl else { return session.rest() };
        if session.renewable {
            let reply = client::send(&session.client, Raw::post("auth/token/renew-self", json!({}))).await;
            match answers::read(Call::Own, reply) {
                Meaning::Done { data, .. } => {
                    let left = Duration::from_secs(data["auth"]["lease_duration"].as_u64().unwrap_or(0));
                    self.show(Some(left), Some(ttl));
                    // Near its longest life a renewal gives less and less: a new login before it ends.
                    if left * 2 >= ttl || !self.can_log_in_again() {
                        return left * 2 / 3;
                    }
                }
                Meaning::Failed(failure) => {
                    tracing::warn!(realm = self.realm, %failure, "the login was not renewed");
                    return AGAIN;
                }
                _ => {}
            }
        }
        match self.log_in(Some(&session)).await {
            Ok(session) => session.rest(),
            Err(error) => self.complain(&error),
        }
    }

    /// When the login ends, unless it is renewed.
    fn show(&self, left: Option<Duration>, lifetime: Option<Duration>) {
        let Some((metrics, role)) = &self.settings.shown else { return };
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let ends = left.zip(lifetime).map(|(left, whole)| (self.clock.wall_ms().saturating_add(ms(left)), ms(whole)));
        metrics.login(&self.realm, role, ends);
    }

    fn can_log_in_again(&self) -> bool {
        !matches!(self.settings.auth, Auth::Token(_))
    }

    fn complain(&self, error: &ConnectError) -> Duration {
        tracing::warn!(realm = self.realm, %error, "no login at Vault");
        AGAIN
    }
}

impl Session {
    fn rest(&self) -> Duration {
        self.ttl.map_or(Duration::from_secs(600), |ttl| ttl * 2 / 3)
    }
}

/// Keeps the login alive while the value lives.
pub fn keep(vault: &Arc<Vault>) {
    let first = vault.session.load().as_ref().map_or(AGAIN, |session| session.rest());
    let weak: Weak<Vault> = Arc::downgrade(vault);
    tokio::spawn(async move {
        let mut rest = first;
        loop {
            tokio::time::sleep(rest.max(Duration::from_secs(1))).await;
            let Some(vault) = weak.upgrade() else { return };
            rest = vault.tend().await;
        }
    });
}

fn refused(meaning: Meaning, note: &str) -> ConnectError {
    match meaning {
        Meaning::Failed(failure) if failure.kind == FailureKind::Refused => ConnectError::Login(note.into()),
        Meaning::Failed(failure) => ConnectError::Unreachable(failure),
        Meaning::Forbidden => ConnectError::Login(note.into()),
        _ => ConnectError::Unreachable(odd()),
    }
}
