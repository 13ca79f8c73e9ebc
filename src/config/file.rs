//! The configuration as it is written: shapes and defaults only. What it means is in [`super`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_saphyr::Spanned;

use super::{bindings, canary, kubernetes, reach, reductions, rotations, scanners, webhooks};
use crate::case::Action;
use crate::connector::postgres::LEASE_USERS;
use crate::event::Format;
use crate::guard::Mode;
use crate::offboard;

/// A span of time in milliseconds, written for people: `500ms`, `30s`, `10m`, `24h`, `14d`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub i64);

impl Millis {
    /// Reads a span of time.
    ///
    /// # Errors
    /// A sentence on what is wanted.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "a span of time is written like 500ms, 30s, 10m, 24h, 14d or 1h30m";
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(WANTED);
        }
        let mut total = 0_i64;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: i64 = rest[..digits].parse().map_err(|_| WANTED)?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = match &rest[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(WANTED),
            };
            rest = &rest[letters..];
            total =
                number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or("longer than time itself")?;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if self.0 != 0 && self.0 % unit == 0 {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl Visitor<'_> for Reads {
            type Value = Millis;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span of time such as 500ms, 30s, 10m, 24h or 14d")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Millis, E> {
                Millis::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Reads)
    }
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

pub(super) use section;

/// A value whose place in the file is not known: a default.
pub fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned { value, referenced: serde_saphyr::Location::UNKNOWN, defined: serde_saphyr::Location::UNKNOWN }
}

section! {
    /// The whole file.
    File {
        /// Where the truth is kept.
        journal: Journal = Journal::default(),
        /// Absent: HTTP intake only.
        kafka: Option<Spanned<Kafka>> = None,
        /// By name; absent: `curfew.tasks` and `curfew.findings`.
        topics: Option<BTreeMap<String, Spanned<Topic>>> = None,
        /// Topics to publish to.
        publish: Publish = Publish::default(),
        /// Intake over HTTP; absent: on where there is no Kafka.
        http: Option<Http> = None,
        /// Fingerprints of secrets; absent: findings cannot be read from scanners' own reports.
        fingerprint: Option<Fingerprint> = None,
        /// The page for Prometheus.
        metrics: Metrics = Metrics::default(),
        /// The status page; absent: not served.
        status: Option<Status> = None,
        /// The operators' socket; absent: beside the journal.
        socket: Option<PathBuf> = None,
        /// Vaults.
        realms: Vec<Spanned<Realm>> = Vec::new(),
        /// Systems behind.
        targets: Vec<Spanned<Target>> = Vec::new(),
        /// Who is called when there is another value.
        webhooks: Vec<Spanned<webhooks::Called>> = Vec::new(),
        /// What is rotated, and how.
        rotations: Vec<Spanned<rotations::Rotation>> = Vec::new(),
        /// Where secrets are read to know them by their fingerprints.
        inventory: Vec<Spanned<rotations::Watch>> = Vec::new(),
        /// Which runs credentials are bound to by their metadata.
        bindings: Vec<Spanned<bindings::Bind>> = Vec::new(),
        /// A credential that is minted to die; absent: none.
        canary: Option<Spanned<canary::Canaries>> = None,
        /// Clusters whose Jobs and Pods are tasks.
        kubernetes: Vec<Spanned<kubernetes::Cluster>> = Vec::new(),
        /// Whose permissions may be taken, and by which login.
        reductions: Vec<Spanned<reductions::Raw>> = Vec::new(),
        /// From where it is read who reaches what; absent: nobody asks.
        reach: Option<reach::Raw> = None,
        /// Rules.
        policy: Policy = Policy::default(),
        /// Bounds.
        limits: Limits = Limits::default(),
        /// Backoff.
        retry: Retry = Retry::default(),
        /// URNs that are never touched.
        protected: Vec<Spanned<String>> = Vec::new(),
        /// How long what is kept.
        retention: Spanned<Retention> = unplaced(Retention::default()),
        /// Logs.
        log: Log = Log::default(),
    }
}

section! {
    /// `journal`
    Journal {
        /// The SQLite file. With `postgres`: only where this process's freeze file and socket stand.
        path: PathBuf = "curfew.db".into(),
        /// The journal is in PostgreSQL, for many processes.
        postgres: Option<Database> = None,
    }
}

/// `journal.postgres`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Holds the URL of Curfew's own login.
    pub url_file: PathBuf,
    /// The journal's own schema.
    #[serde(default = "database_schema")]
    pub schema: Spanned<String>,
    /// Connections of each process at most.
    #[serde(default = "database_connections")]
    pub connections: Spanned<u32>,
}

fn database_schema() -> Spanned<String> {
    unplaced("curfew".to_owned())
}

fn database_connections() -> Spanned<u32> {
    unplaced(8)
}

section! {
    /// `kafka`
    Kafka {
        /// `host:port`, comma-separated.
        brokers: Spanned<String> = unplaced(String::new()),
        /// The consumer group.
        group: String = "curfew".to_owned(),
        /// Any property of librdkafka.
        properties: BTreeMap<String, Spanned<String>> = BTreeMap::new(),
    }
}

section! {
    /// One of `topics`
    Topic {
        /// Whose events these are.
        tenant: String = "default".to_owned(),
        /// What its records are; absent: Curfew's own events.
        format: Format = Format::Curfew,
        /// Event types that its producers may send; absent: all of tasks and grants.
        events: Option<Vec<Spanned<String>>> = None,
        /// Credential kinds that its producers may name; absent: all.
        kinds: Option<Vec<Spanned<String>>> = None,
        /// CloudEvents sources as which its producers may speak, whole or ending in `*`; absent: any.
        sources: Option<Vec<Spanned<String>>> = None,
        /// Sources of whose runs its producers may speak by `run_key`, besides the event's own; whole or ending in `*`.
        speaks_for: Vec<Spanned<String>> = Vec::new(),
        /// The strongest action that its producers may cause.
        strongest: Action = Action::Track,
    }
}

section! {
    /// `publish`
    Publish {
        /// For outcomes.
        outcomes: Spanned<String> = unplaced("curfew.outcomes".to_owned()),
        /// For states of credentials.
        states: Spanned<String> = unplaced("curfew.outcomes".to_owned()),
        /// For new values that consumers must read.
        rotated: Spanned<String> = unplaced("curfew.rotated".to_owned()),
        /// For rejects.
        rejected: Spanned<String> = unplaced("curfew.rejected".to_owned()),
    }
}

section! {
    /// `http`
    Http {
        /// A loopback address.
        listen: Spanned<SocketAddr> = unplaced(SocketAddr::from(([127, 0, 0, 1], 8484))),
        /// Holds the token that producers must send, readable by its owner only.
        token_file: PathBuf = "intake.token".into(),
        /// The topic whose tenant and authority count.
        topic: Spanned<String> = unplaced("curfew.tasks".to_owned()),
        /// The same for findings; absent: `curfew.findings` where there is such a topic, else `topic`.
        findings: Option<Spanned<String>> = None,
        /// GitLab's token revocation service; absent: not served.
        gitlab: Option<Spanned<scanners::GitLab>> = None,
        /// GitHub's webhooks; absent: not heard.
        github: Option<Spanned<scanners::GitHub>> = None,
        /// Questions about reach; absent: only the operators' socket answers them.
        reach: Option<reach::Page> = None,
    }
}

section! {
    /// `fingerprint`
    Fingerprint {
        /// Holds the keys, readable by its owner only: `curfew fingerprint-key` makes it.
        key_file: PathBuf = "fingerprint.keys".into(),
        /// Which key of Vault's transit engine wraps them; absent: they stand in the file as they are.
        transit: Option<Spanned<Transit>> = None,
    }
}

/// `transit`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transit {
    /// The realm.
    pub realm: Spanned<String>,
    /// Holds the token of its own login, which can only unwrap.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The AppRole of its own login.
    #[serde(default)]
    pub approle: Option<AppRole>,
    /// The mount of the transit engine.
    #[serde(default = "transit_mount")]
    pub mount: String,
    /// The transit key.
    #[serde(default = "transit_key")]
    pub key: String,
}

fn transit_mount() -> String {
    "transit".to_owned()
}

fn transit_key() -> String {
    "curfew-fingerprint".to_owned()
}

section! {
    /// `metrics`
    Metrics {
        /// Where `/metrics`, `/healthz` and `/readyz` are served.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9464)),
    }
}

section! {
    /// `status`
    Status {
        /// Where the page is served; beyond loopback only with `hosts`.
        listen: Spanned<SocketAddr> = unplaced(SocketAddr::from(([127, 0, 0, 1], 8485))),
        /// Names of hosts as which it may be called, besides those of loopback.
        hosts: Vec<Spanned<String>> = Vec::new(),
    }
}

section! {
    /// One of `realms`
    Realm {
        /// The instance in credential ids.
        name: Spanned<String> = unplaced(String::new()),
        /// Whose credentials it holds: for what reconcile finds there; absent: of the only tenant of the topics.
        tenant: Option<Spanned<String>> = None,
        /// Whether it acts.
        mode: Mode = Mode::Observe,
        /// The Vault.
        vault: Vault = Vault::default(),
        /// Prefixes of issuer ids on which it may act; `token:` allows token accessors.
        allowed_prefixes: Vec<String> = Vec::new(),
        /// AppRoles whose secret_ids it may revoke: `<mount>/<role>`; prefixes that begin with `approle/` count too.
        secret_id_roles: Vec<String> = Vec::new(),
        /// Whether its login may end the tokens that a secret_id gave.
        derived_tokens: bool = false,
        /// Which target a lease opens.
        targets: Vec<Opens> = Vec::new(),
        /// Compares what the issuer holds with what the journal expects.
        reconcile: Option<Reconcile> = None,
        /// What it bears, from all processes together.
        bears: Bears = Bears::default(),
    }
}

section! {
    /// `vault`
    Vault {
        /// `https://…`, or `http://` on loopback.
        address: Spanned<String> = unplaced(String::new()),
        /// Vault Enterprise namespace.
        namespace: Option<String> = None,
        /// PEM file with the authority of its certificate.
        ca_file: Option<PathBuf> = None,
        /// The id that the Vault must name as its own.
        cluster_id: Option<String> = None,
        /// Holds Curfew's token.
        token_file: Option<PathBuf> = None,
        /// Curfew's AppRole.
        approle: Option<AppRole> = None,
        /// Of one call.
        timeout: Spanned<Millis> = unplaced(Millis(10_000)),
    }
}

/// `approle`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRole {
    /// The mount of the auth method.
    #[serde(default = "approle_mount")]
    pub mount: String,
    /// Holds the role_id.
    pub role_id_file: PathBuf,
    /// Holds the secret_id.
    pub secret_id_file: PathBuf,
}

fn approle_mount() -> String {
    "approle".to_owned()
}

/// One of a realm's `targets`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opens {
    /// Prefix of lease ids.
    pub prefix: Spanned<String>,
    /// The target that they open.
    pub target: Spanned<String>,
}

section! {
    /// `reconcile`
    Reconcile {
        /// Holds the token of its own login.
        token_file: Option<PathBuf> = None,
        /// The AppRole of its own login.
        approle: Option<AppRole> = None,
        /// Prefixes of leases to list.
        prefixes: Vec<Watched> = Vec::new(),
        /// Whether to list token accessors as well.
        tokens: bool = false,
        /// How often.
        every: Spanned<Millis> = unplaced(Millis(60_000)),
    }
}

/// One of `prefixes`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Prefix of lease ids.
    pub prefix: String,
    /// Whether Curfew's tasks alone use it: an unknown lease below it is revoked, not held.
    #[serde(default)]
    pub exclusive: bool,
}

section! {
    /// `bears`
    Bears {
        /// Calls under way at once; absent: `limits.calls_per_system`.
        calls: Option<std::num::NonZeroU32> = None,
        /// Calls started per second; absent: no limit.
        per_second: Option<std::num::NonZeroU32> = None,
    }
}

/// One of `targets`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name.
    pub name: Spanned<String>,
    /// A PostgreSQL server.
    #[serde(default)]
    pub postgres: Option<Postgres>,
    /// A MariaDB server.
    #[serde(default)]
    pub mariadb: Option<Mariadb>,
    /// A Redis.
    #[serde(default)]
    pub redis: Option<Redis>,
    /// An account of AWS.
    #[serde(default)]
    pub aws: Option<Aws>,
    /// Whether its users may be rotated. What a lease opens there follows the lease's realm.
    #[serde(default)]
    pub mode: Mode,
    /// What it bears, from all processes together.
    #[serde(default)]
    pub bears: Bears,
}

/// `postgres`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Holds the URL of Curfew's own login.
    pub url_file: PathBuf,
    /// Of one call.
    #[serde(default = "target_timeout")]
    pub timeout: Spanned<Millis>,
    /// Users that leases may be of: whole names, or beginnings and `*`.
    #[serde(default = "lease_users")]
    pub lease_users: Vec<Spanned<String>>,
}

fn lease_users() -> Vec<Spanned<String>> {
    vec![unplaced(LEASE_USERS.to_owned())]
}

/// `mariadb`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mariadb {
    /// Holds the URL of Curfew's own login.
    pub url_file: PathBuf,
    /// Of one exchange.
    #[serde(default = "target_timeout")]
    pub timeout: Spanned<Millis>,
}

/// `redis`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Holds the URL of Curfew's own login at each node, one a line.
    pub url_file: PathBuf,
    /// PEM file with the authority of their certificates; absent: those that the system trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Of one exchange.
    #[serde(default = "target_timeout")]
    pub timeout: Spanned<Millis>,
}

/// `aws`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Its twelve digits, in quotes.
    pub account: Spanned<String>,
    /// Such as `eu-west-1`: IAM has one endpoint for each partition, STS one for each region.
    pub region: Spanned<String>,
    /// Whose keys are known to the inventory; absent: of the only tenant of the topics.
    #[serde(default)]
    pub tenant: Option<Spanned<String>>,
    /// Holds Curfew's own login, as AWS's tools write it; absent: what the machine has.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// Instead of AWS's own endpoints: on loopback only.
    #[serde(default)]
    pub endpoint: Option<Spanned<String>>,
    /// Of one call.
    #[serde(default = "aws_timeout")]
    pub timeout: Spanned<Millis>,
    /// How much of what AWS allows the account in the Region all processes of this journal use to enforce, in percent.
    #[serde(default = "quota_percent")]
    pub quota_percent: Spanned<u32>,
    /// Users whose keys may be touched: `<path><name>` without the first slash; what ends in `/` stands for all below it.
    #[serde(default = "no_users")]
    pub users: Spanned<Vec<String>>,
    /// Roles whose sessions are denied along with a key of a user that may assume them, whoever opened them: ARNs, each whole.
    #[serde(default = "no_users")]
    pub cut_roles: Spanned<Vec<String>>,
    /// Lists their keys, so that findings are known to be of them.
    #[serde(default)]
    pub inventory: Option<KeyList>,
}

fn no_users() -> Spanned<Vec<String>> {
    unplaced(Vec::new())
}

fn quota_percent() -> Spanned<u32> {
    unplaced(super::QUOTA_PERCENT)
}

fn aws_timeout() -> Spanned<Millis> {
    unplaced(Millis(5_000))
}

section! {
    /// `inventory` of an account
    KeyList {
        /// Holds a login of its own, which can only list; absent: the account's.
        credentials_file: Option<PathBuf> = None,
        /// How often.
        every: Spanned<Millis> = unplaced(Millis(300_000)),
        /// Secrets of Secrets Manager that are read to know their values by fingerprints; one that ends in `/` stands for all
        /// below it.
        secrets: Spanned<Vec<String>> = unplaced(Vec::new()),
    }
}

fn target_timeout() -> Spanned<Millis> {
    unplaced(Millis(10_000))
}

section! {
    /// `policy`
    Policy {
        /// Of a task that names no deadline; also the limit of any deadline.
        longest_life: Spanned<Millis> = unplaced(Millis(86_400_000)),
        /// Whole intervals without a sign of life.
        heartbeats_missed: Spanned<u32> = unplaced(3),
        /// What to do about findings: the first rule that fits; absent: the defaults.
        findings: Option<Vec<rotations::Rule>> = None,
        /// Sources whose runs hold no credentials, whole or ending in `*`: that nobody names one is no news.
        without_credentials: Vec<Spanned<String>> = Vec::new(),
        /// How long the fence of an offboarding stands that names no end.
        fence_for: Spanned<Millis> = unplaced(Millis(offboard::FENCE_MS)),
        /// How far behind the watermark own events act.
        grace: Millis = Millis(2_000),
        /// How far in the future a producer's times may lie.
        future_skew: Millis = Millis(86_400_000),
    }
}

section! {
    /// `limits`
    Limits {
        /// Over it, cases are held; `null`: no cap.
        effects_per_minute: Option<u32> = Some(600),
        /// Cases that are worked on at once: more than `per_system` times the systems that may hang together.
        concurrency: Spanned<usize> = unplaced(1_024),
        /// Of them, at one system.
        per_system: Spanned<usize> = unplaced(64),
        /// Calls under way at one system.
        calls_per_system: Spanned<usize> = unplaced(16),
        /// How long a claim lasts.
        claim_lease: Spanned<Millis> = unplaced(Millis(60_000)),
        /// Rows in the outbox at which intake pauses.
        outbox: i64 = 100_000,
        /// How long a shutdown waits for what is running.
        shutdown: Millis = Millis(20_000),
    }
}

section! {
    /// `retry`
    Retry {
        /// After the first failure.
        first: Spanned<Millis> = unplaced(Millis(500)),
        /// Later attempts keep this interval for ever.
        ceiling: Millis = Millis(60_000),
    }
}

section! {
    /// `retention`
    Retention {
        /// Keys of events, by which repeats are known.
        seen: Millis = Millis(14 * 86_400_000),
        /// Events that led to no case, such as starts and heartbeats; at most as long as closed cases.
        events: Millis = Millis(30 * 86_400_000),
        /// Closed cases, with the events that led to them and the tasks that ended.
        closed: Millis = Millis(400 * 86_400_000),
    }
}

section! {
    /// `log`
    Log {
        /// JSON, one object a line.
        json: bool = false,
        /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as of `RUST_LOG`.
        level: String = "info".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_and_written() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("14d", 1_209_600_000)] {
            assert_eq!(Millis::parse(text), Ok(Millis(ms)));
        }
        for text in ["", "5", "5 min", "s", "-1s", "1y", "99999999999999999999d"] {
            assert!(Millis::parse(text).is_err(), "{text}");
        }
        assert_eq!(Millis(86_400_000).to_string(), "1d");
        assert_eq!(Millis(1_500).to_string(), "1500ms");
    }
}
