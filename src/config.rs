//! Configuration: a YAML file, `VAULT_*` for a Vault without one, and the flags of `curfew run`.
//!
//! [`mod@file`] is how it is written, [`mod@check`] what must hold between the parts, [`Config`] what the process
//! works with. Relative paths in a file are relative to the file's folder; secrets stand in files of their own.

mod aws;
pub mod bindings;
pub mod canary;
pub mod check;
pub mod file;
pub mod kubernetes;
mod mariadb;
pub mod problem;
pub mod reach;
pub mod reductions;
pub mod rotations;
pub mod scanners;
mod splits;
pub mod ways;
pub mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use problem::said;
pub use problem::{Invalid, Problem};

use crate::bind;
use crate::bind::rule::Rule;
use crate::case::Action;
use crate::connector;
use crate::connector::recipe::Recipe;
use crate::connector::webhook::Webhook;
use crate::credential::Kind;
use crate::event::{self, Format, Says};
use crate::github::Api;
use crate::guard::{Authority, Mode};
use crate::journal;
use crate::kubernetes::Watched;
use crate::limit::Budget;
use crate::policy::Rules;
use crate::reach::notice;
use crate::retry::Schedule;
use crate::status::facts;
use crate::task::Tenant;

/// The kinds of credential that this build serves.
pub const KINDS: [&str; 11] = [
    "vault-lease",
    "vault-token",
    "vault-secret-id",
    "postgres-role",
    "mariadb-user",
    "redis-user",
    "aws-access-key",
    "aws-user",
    "vault-approle",
    "vault-kv",
    "aws-secret",
];
/// How much of AWS's quotas is used to enforce where nobody says, in percent: the rest is for the inventory, and for others.
pub const QUOTA_PERCENT: u32 = 96;
/// Calls of one step at an account of AWS, one after another.
pub const AWS_CALLS: i64 = 6;
/// The same of PostgreSQL, MariaDB and Redis: looks, and the effect.
pub const DATABASE_CALLS: i64 = 3;
/// In `allowed_prefixes`: the realm may revoke token accessors, which have no path.
pub const TOKENS: &str = "token:";
/// Where the container image finds an AppRole's `role-id` and `secret-id`.
pub const LOGIN_FOLDER: &str = "/run/curfew/login";

/// What the process works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The SQLite file; with a [`Database`], where the freeze file and the socket stand.
    pub journal: PathBuf,
    /// The journal in PostgreSQL.
    pub database: Option<Database>,
    /// The operators' socket.
    pub socket: PathBuf,
    /// Absent: HTTP intake only.
    pub kafka: Option<Kafka>,
    /// By name.
    pub topics: BTreeMap<String, Topic>,
    /// Topics to publish to.
    pub publish: Publish,
    /// Intake over HTTP.
    pub http: Option<Http>,
    /// Where the keys of fingerprints are.
    pub fingerprint: Option<Fingerprint>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics: SocketAddr,
    /// The status page, where it is served.
    pub status: Option<Status>,
    /// Vaults.
    pub realms: Vec<Realm>,
    /// Systems behind.
    pub targets: Vec<Target>,
    /// Who is called when there is another value.
    pub webhooks: Vec<Webhook>,
    /// How credentials are rotated.
    pub recipes: Vec<Recipe>,
    /// Where secrets are read to know them by their fingerprints.
    pub inventories: Vec<Inventory>,
    /// Which runs credentials are bound to by their metadata.
    pub bindings: Vec<Binding>,
    /// What measures the whole way.
    pub canary: Option<Canary>,
    /// Whose permissions may be taken.
    pub reductions: Vec<reductions::Reduction>,
    /// Clusters whose Jobs and Pods are tasks.
    pub clusters: Vec<Watched>,
    /// From where it is read who reaches what.
    pub reach: Option<reach::Reach>,
    /// What policy decides by.
    pub rules: Arc<Rules>,
    /// How far behind the watermark own events act.
    pub grace_ms: i64,
    /// Bounds.
    pub limits: Limits,
    /// Backoff.
    pub retry: Schedule,
    /// Canonical URNs that are never touched.
    pub protected: BTreeSet<String>,
    /// How long what is kept.
    pub retention: Retention,
    /// Logs.
    pub log: Log,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// The journal in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Holds the URL of Curfew's own login.
    pub url_file: PathBuf,
    /// The journal's own schema.
    pub schema: String,
    /// Connections of each process at most.
    pub connections: u32,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The consumer group.
    pub group: String,
    /// librdkafka properties as given; may hold passwords: never logged.
    pub properties: Properties,
}

/// Properties of librdkafka; `{:?}` shows only their names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, String>);

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A topic that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Whose events these are.
    pub tenant: Tenant,
    /// What its records are.
    pub format: Format,
    /// What its producers may say: all else is rejected as forbidden.
    pub says: Says,
    /// What its producers may cause: beyond it a case is held.
    pub authority: Authority,
}

/// Topics to publish to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// For outcomes.
    pub outcomes: String,
    /// For states of credentials.
    pub states: String,
    /// For new values that consumers must read.
    pub rotated: String,
    /// For rejects.
    pub rejected: String,
}

/// Intake over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// A loopback address.
    pub listen: SocketAddr,
    /// Holds the token of the producers.
    pub token_file: PathBuf,
    /// The topic whose tenant and authority count.
    pub topic: String,
    /// The same for findings.
    pub findings: String,
    /// GitLab's token revocation service, where it is served.
    pub gitlab: Option<Revocations>,
    /// GitHub's webhooks, where they are heard.
    pub github: Option<Webhooks>,
    /// Where questions about reach are answered: holds the token of who may ask.
    pub reach: Option<PathBuf>,
}

/// The status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// A loopback address, unless `hosts` says as whom it may be called.
    pub listen: SocketAddr,
    /// Names of hosts besides those of loopback.
    pub hosts: Vec<String>,
}

/// GitHub's webhooks about alerts of secret scanning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// Holds what they are signed with.
    pub secret_file: PathBuf,
    /// How old an event may be.
    pub max_age_ms: i64,
    /// Where the secrets of alerts are asked for.
    pub api: Option<Api>,
    /// Whether alerts are resolved there once their secret was seen dead.
    pub resolves: bool,
}

/// GitLab's token revocation service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// Holds the token that GitLab sends.
    pub token_file: PathBuf,
    /// The types of tokens that it may send.
    pub types: Vec<String>,
}

/// Where the keys of fingerprints are.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    /// Holds them.
    pub key_file: PathBuf,
    /// What unwraps those that Vault wrapped.
    pub transit: Option<Transit>,
}

/// A key of Vault's transit engine.
#[derive(Debug, Clone)]
pub struct Transit {
    /// The realm.
    pub realm: String,
    /// Its own login, which can only unwrap.
    pub login: Login,
    /// The mount of the engine.
    pub mount: String,
    /// The key.
    pub key: String,
}

/// A Vault and what may be done there.
#[derive(Debug, Clone)]
pub struct Realm {
    /// Whose credentials it holds; `None`: of several tenants, and nobody says which.
    pub tenant: Option<Tenant>,
    /// Mode, prefixes, targets.
    pub rules: connector::Realm,
    /// How it is reached.
    pub vault: Vault,
    /// Whether token accessors may be revoked.
    pub tokens: bool,
    /// AppRoles whose secret_ids may be revoked: `<mount>/<role>`.
    pub secret_id_roles: Vec<String>,
    /// Whether its login may end the tokens that a secret_id gave.
    pub derived_tokens: bool,
    /// Comparing what it holds with what the journal expects.
    pub reconcile: Option<Reconcile>,
    /// What it bears.
    pub bears: Budget,
}

/// How a Vault is reached.
#[derive(Debug, Clone)]
pub struct Vault {
    /// Its URL.
    pub address: String,
    /// Vault Enterprise namespace.
    pub namespace: Option<String>,
    /// PEM file with the authority of its certificate.
    pub ca_file: Option<PathBuf>,
    /// The id that it must name as its own.
    pub cluster_id: Option<String>,
    /// How Curfew logs in.
    pub login: Login,
    /// Of one call.
    pub timeout_ms: i64,
}

/// How Curfew logs in to a Vault.
#[derive(Debug, Clone)]
pub enum Login {
    /// A token from the environment.
    Token(SecretString),
    /// A file that holds a token.
    TokenFile(PathBuf),
    /// AppRole.
    AppRole {
        /// The mount of the auth method.
        mount: String,
        /// Holds the role_id.
        role_id_file: PathBuf,
        /// Holds the secret_id.
        secret_id_file: PathBuf,
    },
}

/// Comparing what a Vault holds with what the journal expects.
#[derive(Debug, Clone)]
pub struct Reconcile {
    /// Whose the findings are.
    pub tenant: Tenant,
    /// An own login, that can only list.
    pub login: Login,
    /// Prefixes of leases, and whether each is Curfew's tasks' alone.
    pub prefixes: Vec<(String, bool)>,
    /// Whether to list token accessors as well.
    pub tokens: bool,
    /// How often.
    pub every_ms: i64,
}

/// A system behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// What it is.
    pub system: System,
    /// Of one call.
    pub timeout_ms: i64,
    /// What it bears.
    pub bears: Budget,
    /// Whether its users may be rotated.
    pub mode: Mode,
}

/// What a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// PostgreSQL.
    Postgres {
        /// Holds the URL of Curfew's own login there.
        url_file: PathBuf,
        /// Users that leases may be of: whole names, or beginnings and `*`.
        lease_users: Vec<String>,
    },
    /// MariaDB.
    Mariadb {
        /// Holds the URL of Curfew's own login there.
        url_file: PathBuf,
    },
    /// Redis, of one or several nodes.
    Redis {
        /// Holds the URLs of Curfew's own login, one for each node.
        url_file: PathBuf,
        /// PEM file with the authority of its certificates.
        ca_file: Option<PathBuf>,
    },
    /// An account of AWS. It is a realm as well: systems with one authority.
    Aws(Aws),
}

/// An account of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws {
    /// Its twelve digits.
    pub account: String,
    /// Whose endpoints are called.
    pub region: String,
    /// Whose keys are known to the inventory; `None`: of several tenants, and nobody says which.
    pub tenant: Option<Tenant>,
    /// Holds Curfew's own login; `None`: what the machine has.
    pub credentials_file: Option<PathBuf>,
    /// Instead of AWS's own endpoints.
    pub endpoint: Option<String>,
    /// How much of what AWS allows is used by all processes together, in percent.
    pub quota_percent: u32,
    /// Users whose keys may be touched.
    pub users: Vec<String>,
    /// Roles whose sessions are denied along with a key of a user that may assume them: ARNs.
    pub cut_roles: Vec<String>,
    /// Lists their keys.
    pub inventory: Option<KeyList>,
}

/// How the keys of an account are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyList {
    /// Holds a login of its own; `None`: the account's.
    pub credentials_file: Option<PathBuf>,
    /// How often.
    pub every_ms: i64,
    /// Secrets of Secrets Manager that are read; one that ends in `/` stands for all below it.
    pub secrets: Vec<String>,
}

impl System {
    /// Its key in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "postgres",
            Self::Mariadb { .. } => "mariadb",
            Self::Redis { .. } => "redis",
            Self::Aws(_) => "aws",
        }
    }

    /// So many calls one step makes at the most, each within the time-out.
    fn calls(&self) -> i64 {
        if matches!(self, Self::Aws(_)) { AWS_CALLS } else { DATABASE_CALLS }
    }
}

/// Secrets of one Vault that are read to know them by their fingerprints.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The realm.
    pub realm: String,
    /// Its own login, which can only read.
    pub login: Login,
    /// The mount of the secrets engine.
    pub mount: String,
    /// Paths; one that ends in `/` stands for all below it.
    pub paths: Vec<String>,
    /// Static roles of a database engine.
    pub static_roles: Vec<String>,
    /// The fields that hold secrets; `None`: all.
    pub fields: Option<Vec<String>>,
    /// How often.
    pub every_ms: i64,
}

/// Which runs one Vault's credentials are bound to by their metadata.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The realm.
    pub realm: String,
    /// Whose its credentials are.
    pub tenant: Tenant,
    /// Its own login, which can only list and look.
    pub login: Login,
    /// How often.
    pub every_ms: i64,
    /// Look-ups per second.
    pub per_second: u32,
    /// The strongest action that may rest on it.
    pub strongest: Action,
    /// What is taken for what.
    pub rules: Vec<Rule>,
}

/// A credential that is minted to die.
#[derive(Debug, Clone)]
pub struct Canary {
    /// The realm in which it is minted.
    pub realm: String,
    /// Holds the token by which.
    pub token_file: PathBuf,
    /// The path that gives it.
    pub role: String,
    /// Whose task it is.
    pub tenant: Tenant,
    /// The topic whose authority the task has.
    pub topic: String,
    /// In whose name it is told.
    pub source: String,
    /// How often.
    pub every_ms: i64,
    /// How long it may take.
    pub within_ms: i64,
}

/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Over it, cases are held.
    pub effects_per_minute: Option<u32>,
    /// Cases that are worked on at once; most of them wait for the journal or for a place to call.
    pub concurrency: usize,
    /// Of them, at one system.
    pub per_system: usize,
    /// Calls under way at one system.
    pub calls_per_system: usize,
    /// How long a claim lasts.
    pub claim_lease_ms: i64,
    /// Rows in the outbox at which intake pauses.
    pub outbox: i64,
    /// How long a shutdown waits.
    pub shutdown_ms: i64,
}

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Keys of events.
    pub seen_ms: i64,
    /// Events that led to no case.
    pub events_ms: i64,
    /// Closed cases.
    pub closed_ms: i64,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line.
    pub json: bool,
    /// A level, or a filter as of `RUST_LOG`.
    pub level: String,
}

/// The environment, as values: nothing below `main` reads or sets variables.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `VAULT_ADDR`
    pub vault_addr: Option<String>,
    /// `VAULT_TOKEN`
    pub vault_token: Option<SecretString>,
    /// `VAULT_NAMESPACE`
    pub vault_namespace: Option<String>,
    /// `VAULT_CACERT`
    pub vault_cacert: Option<PathBuf>,
    /// `HOME`, for `.vault-token`
    pub home: Option<PathBuf>,
}

impl Environment {
    /// The process's.
    pub fn read() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self {
            vault_addr: text("VAULT_ADDR"),
            vault_token: text("VAULT_TOKEN").map(SecretString::from),
            vault_namespace: text("VAULT_NAMESPACE"),
            vault_cacert: text("VAULT_CACERT").map(PathBuf::from),
            home: text("HOME").map(PathBuf::from),
        }
    }

    fn login(&self) -> Option<Login> {
        if let Some(token) = &self.vault_token {
            return Some(Login::Token(token.clone()));
        }
        let file = self.home.as_ref().map(|home| home.join(".vault-token")).filter(|file| file.is_file());
        let folder = Path::new(LOGIN_FOLDER);
        file.map(Login::TokenFile).or_else(|| {
            folder.join("role-id").is_file().then(|| Login::AppRole {
                mount: "approle".to_owned(),
                role_id_file: folder.join("role-id"),
                secret_id_file: folder.join("secret-id"),
            })
        })
    }
}

/// Flags that go over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--journal`
    pub journal: Option<PathBuf>,
    /// `--kafka`
    pub kafka: Option<String>,
    /// `--log-json`
    pub log_json: bool,
    /// `--metrics`
    pub metrics: Option<SocketAddr>,
    /// `--socket`
    pub socket: Option<PathBuf>,
    /// `--status`
    pub status: Option<SocketAddr>,
}

impl Config {
    /// Reads `file`, or the defaults where there is none.
    ///
    /// # Errors
    /// [`Invalid`], with everything that is wrong.
    pub fn load(path: Option<&Path>, over: &Overrides, env: &Environment) -> Result<Self, Invalid> {
        let Some(path) = path else { return Self::parse("environment and defaults", "", Path::new(""), over, env) };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let why = format!("the configuration cannot be read: {error}");
            Invalid::new(&name, "", vec![Problem::new(serde_saphyr::Location::UNKNOWN, why)])
        })?;
        Self::parse(&name, &text, path.parent().unwrap_or(Path::new("")), over, env)
    }

    /// Reads `text`; relative paths in it are below `folder`.
    ///
    /// # Errors
    /// [`Invalid`], with everything that is wrong.
    pub fn parse(name: &str, text: &str, folder: &Path, over: &Overrides, env: &Environment) -> Result<Self, Invalid> {
        let file = read(text).map_err(|problem| Invalid::new(name, text, vec![problem]))?;
        check::resolve(file, folder, over, env).map_err(|problems| Invalid::new(name, text, problems))
    }

    /// What each topic's producers may cause, with Curfew's own events: for the guard.
    pub fn authorities(&self) -> BTreeMap<String, Authority> {
        let own = Authority { kinds: KINDS.map(str::to_owned).into(), strongest: Action::Revoke };
        let topics = self.topics.iter().map(|(name, topic)| (name.clone(), topic.authority.clone()));
        let kinds = [Kind::VaultToken, Kind::VaultSecretId].map(|kind| kind.as_str().to_owned());
        let bindings = self
            .bindings
            .iter()
            .map(|one| (bind::topic(&one.realm), Authority { kinds: kinds.clone().into(), strongest: one.strongest }));
        let finds = self.reach.as_ref().and_then(|reach| reach.finds.as_ref());
        let finds =
            finds.map(|finds| (notice::TOPIC.to_owned(), Authority { strongest: finds.strongest, ..own.clone() }));
        topics.chain(bindings).chain(finds).chain([(event::OWN.to_owned(), own)]).collect()
    }

    /// What each system bears, from all processes together.
    pub fn budgets(&self) -> BTreeMap<String, Budget> {
        let realms = self.realms.iter().map(|realm| (realm.rules.name.clone(), realm.bears));
        let targets = self.targets.iter().map(|target| (target.name.clone(), target.bears));
        realms.chain(targets).collect()
    }

    /// What each topic's producers may say: for intake.
    pub fn says(&self) -> BTreeMap<String, Says> {
        self.topics.iter().map(|(name, topic)| (name.clone(), topic.says.clone())).collect()
    }

    /// The topics that hold own events back.
    pub fn read(&self) -> journal::Topics {
        let http = self.http.as_ref().map(|http| http.topic.clone());
        let read = self.published().map(|(name, _)| name).filter(|name| http.as_ref() != Some(*name));
        journal::Topics { read: read.filter(|_| self.kafka.is_some()).cloned().collect(), http }
    }

    /// The topics that are read at the broker, where there is one: the word of a cluster is not published there.
    pub fn published(&self) -> impl Iterator<Item = (&String, &Topic)> {
        self.topics.iter().filter(|(_, topic)| topic.format != Format::Kubernetes)
    }

    /// Whose secrets a realm holds, or an account of AWS.
    pub fn tenant_of(&self, realm: &str) -> Option<&Tenant> {
        let of_realm = self.realms.iter().find(|known| known.rules.name == realm).map(|known| &known.tenant);
        let account = || self.accounts().find(|(target, _)| target.name == realm).map(|(_, aws)| &aws.tenant);
        of_realm.or_else(account)?.as_ref()
    }

    /// The accounts of AWS, each with its target.
    pub fn accounts(&self) -> impl Iterator<Item = (&Target, &Aws)> {
        self.targets.iter().filter_map(|target| match &target.system {
            System::Aws(aws) => Some((target, aws)),
            System::Postgres { .. } | System::Mariadb { .. } | System::Redis { .. } => None,
        })
    }

    /// Whether an inventory reads values, and so needs the keys of fingerprints.
    pub fn reads_values(&self) -> bool {
        let mut lists = self.accounts().filter_map(|(_, aws)| aws.inventory.as_ref());
        !self.inventories.is_empty() || lists.any(|list| !list.secrets.is_empty())
    }

    /// Realms and targets, and whether each acts: for the status page.
    pub fn systems(&self) -> Vec<facts::System> {
        let realms = self.realms.iter().map(|realm| (&realm.rules.name, "vault", realm.rules.mode));
        let targets = self.targets.iter().map(|target| (&target.name, target.system.as_str(), target.mode));
        realms.chain(targets).map(|(name, kind, mode)| facts::System { name: name.clone(), kind, mode }).collect()
    }

    /// Where the truth is kept, for people.
    pub fn journal_name(&self) -> String {
        match &self.database {
            Some(database) => format!("PostgreSQL, schema {}", database.schema),
            None => self.journal.display().to_string(),
        }
    }

    /// Whether anything acts.
    pub fn enforces(&self) -> bool {
        self.realms.iter().any(|realm| realm.rules.mode == Mode::Enforce)
            || self.accounts().any(|(target, _)| target.mode == Mode::Enforce)
    }
}

/// Reads the shape of the file.
fn read(text: &str) -> Result<file::File, Problem> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(file::File::default());
    }
    yaml(text)
}

/// Reads YAML. What is wrong is said without the values that stand there: one may be a password in the wrong place.
pub(crate) fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        use serde_saphyr::Error;
        let at = error.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
        match error.without_snippet() {
            Error::SerdeUnknownField { field, expected, .. } => {
                Problem::new(at, format!("{} is not a key here", said(field))).nearest(field, expected.iter().copied())
            }
            Error::SerdeUnknownVariant { variant, expected, .. } => {
                let message = format!("{} is not a value here", said(variant));
                Problem::new(at, message).nearest(variant, expected.iter().copied())
            }
            Error::SerdeMissingField { field, .. } => Problem::new(at, format!("the key `{field}` is missing here")),
            // Its words may quote the value: with it, a password that was put into the wrong place.
            Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
                Problem::new(at, format!("{expected} is wanted here"))
            }
            other => {
                let words = other.to_string();
                let first = words.lines().next().unwrap_or("not valid YAML");
                Problem::new(at, problem::careful(first.rsplit_once(" at line ").map_or(first, |(said, _)| said)))
            }
        }
    })
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
