//! Vault: leases, tokens and secret_ids of one realm, through one login.
//!
//! What is asked goes through [`Vault::ask`]; what the answer means is decided in [`answers`] alone. A 403 counts as
//! [`FailureKind::Denied`] only after our own login was seen to lack the right: else a credential outside our policy
//! would block the whole realm.

pub mod answers;
pub mod approle;
pub mod client;
pub mod kv;
pub mod lease;
pub mod login;
pub mod mint;
mod rights;
pub mod said;
pub mod scope;
pub mod secret_id;
mod sight;
pub mod static_role;
pub mod token;
mod token_type;
pub mod transit;

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::bind::rule::Rule;
use crate::case::record::{FailureKind, Observation};
use crate::clock;
use crate::connector::recipe::{Keeper, Place, Store};
use crate::connector::{Connector, Failure};
use crate::guard::Mode;
use crate::metrics::Metrics;
use answers::{Call, Meaning};
use client::{Raw, Wire};
use login::Session;

/// How long a control that showed the path working is good for.
const CONTROL_FOR: Duration = Duration::from_secs(5);

/// How Curfew logs in.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// A file that holds a token; read again when the token stops working.
    TokenFile(PathBuf),
    /// A token from the environment; never from a configuration file.
    #[serde(skip)]
    Token(SecretString),
    /// An AppRole.
    Approle {
        /// Where it is mounted.
        #[serde(default = "approle_mount")]
        mount: String,
        /// A file that holds the role_id.
        role_id_file: PathBuf,
        /// A file that holds the secret_id.
        secret_id_file: PathBuf,
    },
}

fn approle_mount() -> String {
    "approle".into()
}

fn timeout_ms() -> u64 {
    10_000
}

/// A Vault realm's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultSettings {
    /// Scheme, host and port. Plain http only on loopback.
    pub address: String,
    /// The namespace, where there are some.
    #[serde(default)]
    pub namespace: Option<String>,
    /// PEM certificates to trust instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The id of the cluster that must answer there.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// How to log in.
    pub auth: Auth,
    /// An upper bound of one call.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Prefixes of lease ids on which the realm may act, such as `database/creds/`.
    #[serde(default)]
    pub lease_prefixes: Vec<String>,
    /// Whether the realm serves tokens. Its policy cannot be narrowed: see `deploy/vault/tokens.hcl`.
    #[serde(default)]
    pub tokens: bool,
    /// The AppRoles whose secret_ids it serves: `<mount>/<role>`.
    #[serde(default)]
    pub secret_id_roles: Vec<String>,
    /// The AppRoles whose secret_ids are rotated: `<mount>/<role>`.
    #[serde(default)]
    pub approles: Vec<String>,
    /// The AppRoles whose policies may be taken: `<mount>/<role>`, whole or ending in `*`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Whether the login may list accessors and revoke by them, to end what a secret_id gave: both policies of
    /// `deploy/vault/tokens.hcl` and the list of `reconcile.hcl`.
    #[serde(default)]
    pub derived_tokens: bool,
    /// Which run a credential's metadata names, where not in a field of ours.
    #[serde(skip)]
    pub bindings: Vec<Rule>,
    /// Where it is shown when the login ends, and for which work it is.
    #[serde(skip)]
    pub shown: Option<(Arc<Metrics>, &'static str)>,
}

impl VaultSettings {
    /// Settings with the defaults.
    pub fn new(address: impl Into<String>, auth: Auth) -> Self {
        Self {
            address: address.into(),
            namespace: None,
            ca_file: None,
            cluster_id: None,
            auth,
            timeout_ms: timeout_ms(),
            lease_prefixes: Vec::new(),
            tokens: false,
            secret_id_roles: Vec::new(),
            approles: Vec::new(),
            scopes: Vec::new(),
            derived_tokens: false,
            bindings: Vec::new(),
            shown: None,
        }
    }

    /// What the guard allows: lease prefixes, and `<mount>/<role>/` of the secret_ids.
    pub fn allowed_prefixes(&self) -> Vec<String> {
        let roles = self.secret_id_roles.iter().map(|role| format!("{}/", role.trim_end_matches('/')));
        self.lease_prefixes.iter().cloned().chain(roles).collect()
    }
}

/// Why a realm or target cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// A setting at fault.
    #[error("{0}")]
    Settings(String),
    /// Another cluster answers at the address.
    #[error("the Vault at this address is cluster {found}, not {wanted} as `cluster_id` says")]
    WrongCluster {
        /// As configured.
        wanted: String,
        /// As it says.
        found: String,
    },
    /// Enforcing needs a login that does not die with another token.
    #[error(
        "the token of this login is no orphan: it dies with its parent in the middle of the work; log in by AppRole, or create it by `vault token create -orphan`"
    )]
    NotOrphan,
    /// The login was refused.
    #[error("Vault refuses the login: {0}")]
    Login(String),
    /// It does not answer now.
    #[error("{0}")]
    Unreachable(Failure),
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable(failure) => failure,
            other => Self::new(FailureKind::Denied, other.to_string()),
        }
    }
}

/// One Vault, through one login.
pub struct Vault {
    realm: String,
    settings: VaultSettings,
    enforce: bool,
    wire: Wire,
    clock: clock::Shared,
    session: ArcSwapOption<Session>,
    logging_in: tokio::sync::Mutex<()>,
    own: Mutex<HashSet<String>>,
    cluster: OnceLock<String>,
    active: Mutex<Option<Instant>>,
    living: Mutex<Option<Instant>>,
}

/// Logs in at a realm's Vault and makes its connectors: `vault-lease`, and what else the settings name.
///
/// A Vault that does not answer now is no error: it is tried again in the background and before each call.
///
/// # Errors
/// [`ConnectError`], never `Unreachable`.
pub async fn connect(
    realm: &str,
    settings: &VaultSettings,
    mode: Mode,
    clock: clock::Shared,
) -> Result<Vec<Arc<dyn Connector>>, ConnectError> {
    Ok(connectors(Vault::open(realm, settings, mode, clock).await?))
}

/// The connectors on a login that there is already.
pub fn connectors(vault: Arc<Vault>) -> Vec<Arc<dyn Connector>> {
    let mut all: Vec<Arc<dyn Connector>> = vec![Arc::new(lease::Leases::new(vault.clone()))];
    if vault.settings.tokens {
        all.push(Arc::new(token::Tokens::new(vault.clone())));
    }
    if !vault.settings.secret_id_roles.is_empty() {
        all.push(Arc::new(secret_id::SecretIds::new(vault.clone())));
    }
    if !vault.settings.approles.is_empty() {
        all.push(Arc::new(approle::AppRoles::new(vault)));
    }
    all
}

/// Logs in at a realm's Vault and makes its stores, for the recipes whose values are at `places` or copied to `copies`: a
/// login of its own, with the policies of `deploy/vault/kv-store.hcl` and `static-roles.hcl`. One login for all is [`Vault::open`],
/// [`connectors`] and [`stores`].
///
/// # Errors
/// As [`connect`]; `Settings` for places that are none.
pub async fn connect_stores(
    realm: &str,
    settings: &VaultSettings,
    mode: Mode,
    clock: clock::Shared,
    places: &[Place],
    copies: &[Place],
) -> Result<Vec<Arc<dyn Store>>, ConnectError> {
    stores(Vault::open(realm, settings, mode, clock).await?, places, copies)
}

/// The stores on a login that there is already: one for each keeper that a place names.
///
/// # Errors
/// `Settings` for places that are none.
pub fn stores(vault: Arc<Vault>, places: &[Place], copies: &[Place]) -> Result<Vec<Arc<dyn Store>>, ConnectError> {
    let of = |keeper: Keeper| -> Vec<Place> { places.iter().filter(|place| place.keeper == keeper).cloned().collect() };
    let (kv, minted) = (of(Keeper::Kv), of(Keeper::StaticRole));
    let wrong = |failure: Failure| ConnectError::Settings(failure.note);
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    if !kv.is_empty() || !copies.is_empty() {
        stores.push(Arc::new(kv::Secrets::new(vault.clone(), &kv, copies).map_err(wrong)?));
    }
    if !minted.is_empty() {
        stores.push(Arc::new(static_role::StaticRoles::new(vault, &minted).map_err(wrong)?));
    }
    Ok(stores)
}

impl Vault {
    /// Logs in, and keeps the login alive in the background while the value lives.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn open(
        realm: &str,
        settings: &VaultSettings,
        mode: Mode,
        clock: clock::Shared,
    ) -> Result<Arc<Self>, ConnectError> {
        if settings.timeout_ms == 0 {
            return Err(ConnectError::Settings("`timeout_ms` is at least 1".into()));
        }
        let vault = Arc::new(Self {
            realm: realm.to_owned(),
            wire: Wire::new(settings)?,
            settings: settings.clone(),
            enforce: mode == Mode::Enforce,
            clock,
            session: ArcSwapOption::empty(),
            logging_in: tokio::sync::Mutex::default(),
            own: Mutex::default(),
            cluster: OnceLock::new(),
            active: Mutex::default(),
            living: Mutex::default(),
        });
        match vault.log_in(None).await {
            Ok(_) => {}
            Err(ConnectError::Unreachable(failure)) => {
                tracing::warn!(realm, %failure, "Vault does not answer yet; the login is tried again");
            }
            Err(error) => return Err(error),
        }
        login::keep(&vault);
        Ok(vault)
    }

    /// Asks, as whoever we are logged in as. A 403 is asked again after a new login where the old one has died.
    pub async fn ask(&self, call: Call, raw: Raw) -> Meaning {
        let session = match self.session().await {
            Ok(session) => session,
            Err(failure) => return Meaning::Failed(failure),
        };
        let meaning = answers::read(call, client::send(&session.client, raw.clone()).await);
        if !matches!(meaning, Meaning::Forbidden) {
            return meaning;
        }
        // A 403 was not carried out. Is it our login?
        match answers::read(Call::Own, client::send(&session.client, Raw::get("auth/token/lookup-self")).await) {
            Meaning::Done { .. } => Meaning::Forbidden,
            Meaning::Forbidden => match self.log_in(Some(&session)).await {
                Ok(fresh) => answers::read(call, client::send(&fresh.client, raw).await),
                Err(error) => Meaning::Failed(error.into()),
            },
            Meaning::Failed(failure) => Meaning::Failed(failure),
            Meaning::Gone | Meaning::Outdated | Meaning::Unclear(_) => Meaning::Failed(odd()),
        }
    }

    /// Whether the active node of the expected cluster answers, now or a moment ago.
    pub async fn is_active(&self) -> bool {
        if recent(&self.active) {
            return true;
        }
        let active = matches!(self.health().await, Ok(health) if health.active);
        note(&self.active, active);
        active
    }

    /// Whether also our login works, now or a moment ago.
    pub async fn is_living(&self) -> bool {
        if recent(&self.living) {
            return true;
        }
        let living = self.is_active().await && self.self_check(&[]).await.is_ok();
        note(&self.living, living);
        living
    }

    /// An observation that nothing is said in yet.
    fn blank(&self) -> Observation {
        Observation { at_ms: self.clock.wall_ms(), ..Observation::default() }
    }

    fn is_own(&self, accessor: &str) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).contains(accessor)
    }

    /// Runs `call` within the realm's time-out; when it strikes, an effect may have happened.
    async fn bounded<T>(
        &self,
        has_effect: bool,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        let kind = if has_effect { FailureKind::Unknown } else { FailureKind::Unavailable };
        tokio::time::timeout(Duration::from_millis(self.settings.timeout_ms), call)
            .await
            .unwrap_or_else(|_| Err(Failure::new(kind, "no answer in time")))
    }

    fn call_timeout_ms(&self) -> i64 {
        i64::try_from(self.settings.timeout_ms).unwrap_or(i64::MAX)
    }
}

fn odd() -> Failure {
    Failure::new(FailureKind::Unavailable, "an answer that is not as documented")
}

fn recent(at: &Mutex<Option<Instant>>) -> bool {
    at.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < CONTROL_FOR)
}

fn note(at: &Mutex<Option<Instant>>, ok: bool) {
    *at.lock().unwrap_or_else(PoisonError::into_inner) = ok.then(Instant::now);
}

/// The run that an issuer's metadata names.
fn run_of(meta: &Value) -> Option<String> {
    ["curfew_run", "task_id"].iter().find_map(|key| Some(meta[*key].as_str()?.to_owned())).filter(|run| !run.is_empty())
}

/// RFC 3339 or Unix seconds, as milliseconds; Vault writes `null`, `0` or year 1 for "never".
fn time_ms(value: &Value) -> Option<i64> {
    let ms = match value {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
        Value::Number(seconds) => seconds.as_i64()?.checked_mul(1000)?,
        _ => return None,
    };
    (ms > 0).then_some(ms)
}

/// An id that goes into a URL must name exactly one thing there (P6).
fn exact(id: &str) -> Result<(), Failure> {
    let plain = id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'\\' | b'*'));
    if plain && id.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        Ok(())
    } else {
        Err(Failure::new(FailureKind::Refused, "this cannot be an id of Vault's"))
    }
}

fn unsupported() -> Failure {
    Failure::new(FailureKind::Refused, "this connector has no such step")
}
