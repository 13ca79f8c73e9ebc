//! What must hold between the parts of a configuration, and what follows from it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_saphyr::{Location, Spanned};

use super::{
    CLAIM_MARGIN_MS, Config, EVENTS, Environment, Http, KINDS, Kafka, Limits, Log, Login, OWN_TOPIC, Overrides,
    Problem, Properties, Publish, Realm, Reconcile, Retention, TOKENS, Target, Topic, Vault, file,
};
use crate::case::Action;
use crate::connector;
use crate::credential::CredentialId;
use crate::event::Type;
use crate::guard::{Authority, Mode};
use crate::policy::Rules;
use crate::retry::Schedule;

/// Properties of librdkafka on which the journal's promises rest.
const OURS: [&str; 8] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "enable.idempotence",
    "acks",
];

struct Checks<'a> {
    folder: &'a Path,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Checks<'_> {
    fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    fn wrong(&mut self, at: Location, message: impl Into<String>) {
        self.problems.push(Problem::new(at, message));
    }

    fn login(
        &mut self,
        at: Location,
        token: Option<&PathBuf>,
        approle: Option<&file::AppRole>,
        whose: &str,
    ) -> Option<Login> {
        match (token, approle) {
            (Some(token), None) => Some(Login::TokenFile(self.path(token))),
            (None, Some(role)) => Some(Login::AppRole {
                mount: role.mount.clone(),
                role_id_file: self.path(&role.role_id_file),
                secret_id_file: self.path(&role.secret_id_file),
            }),
            _ => {
                let message = format!("{whose} needs a login: exactly one of `token_file` and `approle`");
                self.wrong(at, message);
                None
            }
        }
    }
}

/// Turns what is written into what is worked with.
///
/// # Errors
/// Everything that is wrong.
pub fn resolve(raw: file::File, folder: &Path, over: &Overrides, env: &Environment) -> Result<Config, Vec<Problem>> {
    let mut c = Checks { folder, problems: Vec::new(), warnings: Vec::new() };
    let kafka = kafka(&mut c, raw.kafka.as_ref(), over);
    let topics = topics(&mut c, raw.topics);
    let publish = publish(&mut c, &raw.publish, &topics);
    let http = http(&mut c, raw.http, kafka.is_none(), &topics);
    let targets = targets(&mut c, &raw.targets);
    let mut realms = realms(&mut c, &raw.realms, &targets);
    if raw.realms.is_empty()
        && let Some(realm) = default_realm(&mut c, env)
    {
        realms.push(realm);
    }
    let limits = limits(&mut c, &raw.limits, &realms, &targets);
    let (rules, grace_ms) = policy(&mut c, &raw.policy);
    if raw.retry.first.value > raw.retry.ceiling || raw.retry.first.value.0 < 1 {
        c.wrong(raw.retry.first.referenced, "`retry.first` must be at least 1ms and at most `retry.ceiling`");
    }
    let retention = &raw.retention.value;
    if retention.seen.0 < 8 * 86_400_000 || retention.closed < retention.seen {
        let why = "`retention.seen` must be at least 8d (the topic's retention plus 7d), `closed` at least `seen`";
        c.wrong(raw.retention.referenced, why);
    }
    let protected = protected(&mut c, &raw.protected);
    if let Err(error) = raw.log.level.parse::<tracing_subscriber::filter::Targets>() {
        c.wrong(Location::UNKNOWN, format!("`log.level` is no level and no filter: {error}"));
    }
    if realms.is_empty() {
        c.warnings.push("no realm: cases are opened and held, nothing can be revoked (set VAULT_ADDR)".to_owned());
    }
    let journal = over.journal.clone().unwrap_or_else(|| c.path(&raw.journal.path));
    let socket = raw.socket.as_ref().map_or_else(|| journal.with_extension("sock"), |socket| c.path(socket));
    if !c.problems.is_empty() {
        return Err(c.problems);
    }
    Ok(Config {
        journal,
        socket,
        kafka,
        topics,
        publish,
        http,
        metrics: raw.metrics.listen,
        realms,
        targets,
        rules: Arc::new(rules),
        grace_ms,
        limits,
        retry: Schedule {
            first_ms: unsigned(raw.retry.first.value.0),
            ceiling_ms: unsigned(raw.retry.ceiling.0),
            ..Schedule::default()
        },
        protected,
        retention: Retention { seen_ms: retention.seen.0, closed_ms: retention.closed.0 },
        log: Log { json: over.log_json || raw.log.json, level: raw.log.level },
        warnings: c.warnings,
    })
}

fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

/// Whether `host` (without port, IPv6 with or without brackets) is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether all of comma-separated `host:port` are this machine.
pub fn brokers_are_loopback(brokers: &str) -> bool {
    brokers.split(',').all(|broker| {
        let broker = broker.trim().rsplit_once("://").map_or(broker.trim(), |(_, rest)| rest);
        is_loopback(broker.rsplit_once(':').map_or(broker, |(host, _)| host))
    })
}

/// Whether a URL is `https`, or `http` to this machine.
pub fn is_safe_url(url: &str) -> bool {
    if let Some(rest) = url.strip_prefix("https://") {
        return !rest.is_empty();
    }
    url.strip_prefix("http://").is_some_and(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        !authority.contains('@') && is_loopback(host.map_or(authority, |(host, _)| host))
    })
}

fn kafka(c: &mut Checks<'_>, raw: Option<&Spanned<file::Kafka>>, over: &Overrides) -> Option<Kafka> {
    let (raw, at) = match (raw, &over.kafka) {
        (Some(raw), _) => (raw.value.clone(), raw.referenced),
        (None, Some(_)) => (file::Kafka::default(), Location::UNKNOWN),
        (None, None) => return None,
    };
    let brokers = over.kafka.clone().unwrap_or(raw.brokers.value);
    if brokers.trim().is_empty() {
        c.wrong(at, "`kafka.brokers` is missing, such as \"127.0.0.1:9092\"");
    }
    for (name, value) in &raw.properties {
        if OURS.contains(&name.as_str()) {
            let problem = Problem::new(value.referenced, format!("`{name}` is set by Curfew"));
            c.problems.push(problem.help("nothing lost and nothing twice rest on it: remove it"));
        }
    }
    let tls = raw.properties.get("security.protocol").is_some_and(|p| p.value.to_ascii_lowercase().ends_with("ssl"));
    if !tls && !brokers_are_loopback(&brokers) {
        let problem = Problem::new(raw.brokers.referenced, "plain text to Kafka is allowed on loopback only");
        c.problems.push(problem.help("set `security.protocol: SASL_SSL` (or SSL) in `kafka.properties`"));
    }
    let properties = raw.properties.into_iter().map(|(name, value)| (name, value.value)).collect();
    Some(Kafka { brokers, group: raw.group, properties: Properties(properties) })
}

fn all_kinds() -> BTreeSet<String> {
    KINDS.map(str::to_owned).into()
}

fn topics(c: &mut Checks<'_>, raw: Option<BTreeMap<String, Spanned<file::Topic>>>) -> BTreeMap<String, Topic> {
    let Some(raw) = raw else {
        let topic = |finding: bool, strongest| Topic {
            tenant: "default".into(),
            events: EVENTS.into_iter().filter(|kind| kind.as_str().starts_with("finding.") == finding).collect(),
            authority: Authority { kinds: all_kinds(), strongest },
        };
        return BTreeMap::from([
            ("curfew.tasks".to_owned(), topic(false, Action::Revoke)),
            ("curfew.findings".to_owned(), topic(true, Action::Track)),
        ]);
    };
    let mut topics = BTreeMap::new();
    for (name, Spanned { value: topic, referenced: at, .. }) in raw {
        if name == OWN_TOPIC {
            c.wrong(at, "`curfew` is the name of Curfew's own events: no topic can be called so");
        }
        if topic.tenant.is_empty() {
            c.wrong(at, "`tenant` is empty");
        }
        let events = match topic.events {
            None => EVENTS.into_iter().filter(|kind| !kind.as_str().starts_with("finding.")).collect(),
            Some(names) => names.iter().filter_map(|name| event(c, name)).collect::<HashSet<Type>>(),
        };
        for kind in topic.kinds.iter().flatten().filter(|kind| !KINDS.contains(&kind.value.as_str())) {
            let problem = Problem::new(kind.referenced, format!("`{}` is not a kind of credential", kind.value));
            c.problems.push(problem.nearest(&kind.value, KINDS));
        }
        let kinds = topic.kinds.map_or_else(all_kinds, |kinds| kinds.into_iter().map(|kind| kind.value).collect());
        let authority = Authority { kinds, strongest: topic.strongest };
        topics.insert(name, Topic { tenant: topic.tenant.into(), events, authority });
    }
    topics
}

fn event(c: &mut Checks<'_>, name: &Spanned<String>) -> Option<Type> {
    let found = EVENTS.into_iter().find(|kind| kind.as_str() == name.value);
    if found.is_none() {
        let own = ["deadline.passed", "heartbeat.missed", "reconcile.found", "operator.revoke"];
        let problem = Problem::new(name.referenced, format!("`{}` is not an event type", name.value));
        c.problems.push(if own.contains(&name.value.as_str()) {
            problem.help("only Curfew itself may say this")
        } else {
            problem.nearest(&name.value, EVENTS.map(Type::as_str))
        });
    }
    found
}

fn publish(c: &mut Checks<'_>, raw: &file::Publish, topics: &BTreeMap<String, Topic>) -> Publish {
    for topic in [&raw.outcomes, &raw.states, &raw.rejected] {
        if topics.contains_key(&topic.value) {
            c.wrong(topic.referenced, format!("`{}` is read from as well: Curfew would hear itself", topic.value));
        }
    }
    Publish {
        outcomes: raw.outcomes.value.clone(),
        states: raw.states.value.clone(),
        rejected: raw.rejected.value.clone(),
    }
}

fn http(
    c: &mut Checks<'_>,
    raw: Option<file::Http>,
    only_way_in: bool,
    topics: &BTreeMap<String, Topic>,
) -> Option<Http> {
    let given = raw.is_some();
    let mut raw = raw.or_else(|| only_way_in.then(file::Http::default))?;
    if !raw.listen.value.ip().is_loopback() {
        c.wrong(raw.listen.referenced, "intake over HTTP listens on loopback only");
    }
    if !topics.contains_key(&raw.topic.value) {
        // Only a default can be mended: the one topic that there is.
        if let (false, Some(first)) = (given, topics.keys().next()) {
            raw.topic.value.clone_from(first);
        } else {
            let problem = Problem::new(raw.topic.referenced, format!("there is no topic `{}`", raw.topic.value));
            c.problems.push(problem.nearest(&raw.topic.value, topics.keys().map(String::as_str)));
        }
    }
    Some(Http { listen: raw.listen.value, token_file: c.path(&raw.token_file), topic: raw.topic.value })
}

fn targets(c: &mut Checks<'_>, raw: &[Spanned<file::Target>]) -> Vec<Target> {
    let mut names = HashSet::new();
    let mut targets = Vec::new();
    for Spanned { value: target, .. } in raw {
        if !names.insert(&target.name.value) {
            c.wrong(target.name.referenced, format!("there are two targets `{}`", target.name.value));
        }
        targets.push(Target {
            name: target.name.value.clone(),
            url_file: c.path(&target.postgres.url_file),
            timeout_ms: target.postgres.timeout.value.0,
        });
    }
    targets
}

fn realms(c: &mut Checks<'_>, raw: &[Spanned<file::Realm>], targets: &[Target]) -> Vec<Realm> {
    let mut names = HashSet::new();
    let mut realms = Vec::new();
    for Spanned { value: realm, referenced: at, .. } in raw {
        let name = &realm.name.value;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            let at = if name.is_empty() { *at } else { realm.name.referenced };
            c.wrong(at, "a realm's `name` stands in credential ids: letters, digits, `-`, `_` and `.`");
        }
        if !names.insert(name) || targets.iter().any(|target| target.name == *name) {
            c.wrong(realm.name.referenced, format!("`{name}` names two systems: realms and targets share their names"));
        }
        for opens in &realm.targets {
            if !targets.iter().any(|target| target.name == opens.target.value) {
                let message = format!("there is no target `{}`", opens.target.value);
                let known = targets.iter().map(|target| target.name.as_str());
                c.problems.push(Problem::new(opens.target.referenced, message).nearest(&opens.target.value, known));
            }
            if !realm.allowed_prefixes.iter().any(|allowed| opens.prefix.value.starts_with(allowed.as_str())) {
                let message = format!("`{}` is not below any of `allowed_prefixes`", opens.prefix.value);
                c.wrong(opens.prefix.referenced, message);
            }
        }
        if realm.mode == Mode::Enforce && realm.allowed_prefixes.is_empty() {
            c.warnings.push(format!("realm {name} enforces, but its `allowed_prefixes` are empty: nothing is revoked"));
        }
        let vault = vault(c, *at, name, &realm.vault);
        let reconcile = realm.reconcile.as_ref().and_then(|raw| reconcile(c, *at, name, raw));
        let Some(vault) = vault else { continue };
        let approle = realm.allowed_prefixes.iter().filter(|prefix| prefix.starts_with("approle/"));
        let roles = approle.chain(&realm.secret_id_roles).map(|role| role.trim_end_matches('/').to_owned());
        let secret_id_roles: BTreeSet<String> = roles.collect();
        let named = realm.allowed_prefixes.iter().filter(|p| *p != TOKENS && !p.starts_with("approle/")).cloned();
        let allowed_prefixes = named.chain(secret_id_roles.iter().map(|role| format!("{role}/"))).collect();
        realms.push(Realm {
            secret_id_roles: secret_id_roles.into_iter().collect(),
            derived_tokens: realm.derived_tokens,
            tokens: realm.allowed_prefixes.iter().any(|prefix| prefix == TOKENS),
            rules: connector::Realm {
                name: name.clone(),
                mode: realm.mode,
                allowed_prefixes,
                targets: realm.targets.iter().map(|o| (o.prefix.value.clone(), o.target.value.clone())).collect(),
            },
            vault,
            reconcile,
        });
    }
    realms
}

fn vault(c: &mut Checks<'_>, at: Location, name: &str, raw: &file::Vault) -> Option<Vault> {
    if !is_safe_url(&raw.address.value) {
        let at = if raw.address.value.is_empty() { at } else { raw.address.referenced };
        c.wrong(at, format!("realm {name}: `vault.address` is an https:// URL, or http:// on loopback"));
    }
    Some(Vault {
        address: raw.address.value.trim_end_matches('/').to_owned(),
        namespace: raw.namespace.clone(),
        ca_file: raw.ca_file.as_ref().map(|path| c.path(path)),
        cluster_id: raw.cluster_id.clone(),
        timeout_ms: positive(c, &raw.timeout, "timeout"),
        login: c.login(at, raw.token_file.as_ref(), raw.approle.as_ref(), &format!("realm {name}"))?,
    })
}

fn reconcile(c: &mut Checks<'_>, at: Location, name: &str, raw: &file::Reconcile) -> Option<Reconcile> {
    if raw.prefixes.is_empty() && !raw.tokens {
        c.warnings.push(format!("realm {name}: `reconcile` names no prefixes and no tokens: it compares nothing"));
    }
    let whose = format!("`reconcile` of realm {name}");
    Some(Reconcile {
        prefixes: raw.prefixes.iter().map(|w| (w.prefix.clone(), w.exclusive)).collect(),
        tokens: raw.tokens,
        every_ms: positive(c, &raw.every, "every"),
        login: c.login(at, raw.token_file.as_ref(), raw.approle.as_ref(), &whose)?,
    })
}

fn positive(c: &mut Checks<'_>, ms: &Spanned<file::Millis>, what: &str) -> i64 {
    if ms.value.0 < 1 {
        c.wrong(ms.referenced, format!("`{what}` must be longer than 0"));
    }
    ms.value.0
}

/// Without any realm in a file: the Vault of `VAULT_ADDR`. It only observes, so all prefixes are of interest.
fn default_realm(c: &mut Checks<'_>, env: &Environment) -> Option<Realm> {
    let address = env.vault_addr.clone()?;
    if !is_safe_url(&address) {
        c.wrong(Location::UNKNOWN, "VAULT_ADDR is an https:// URL, or http:// on loopback");
    }
    let Some(login) = env.login() else {
        let problem = Problem::new(Location::UNKNOWN, "VAULT_ADDR is set, but there is no login for it");
        c.problems.push(problem.help("set VAULT_TOKEN, log in by `vault login`, or write a configuration"));
        return None;
    };
    c.warnings.push("realm default (VAULT_ADDR) only observes: write a configuration to enforce".to_owned());
    Some(Realm {
        rules: connector::Realm {
            name: "default".to_owned(),
            mode: Mode::Observe,
            allowed_prefixes: vec![String::new()],
            targets: Vec::new(),
        },
        vault: Vault {
            address: address.trim_end_matches('/').to_owned(),
            namespace: env.vault_namespace.clone(),
            ca_file: env.vault_cacert.clone(),
            cluster_id: None,
            login,
            timeout_ms: 10_000,
        },
        tokens: true,
        secret_id_roles: Vec::new(),
        derived_tokens: false,
        reconcile: None,
    })
}

fn limits(c: &mut Checks<'_>, raw: &file::Limits, realms: &[Realm], targets: &[Target]) -> Limits {
    let slowest = realms.iter().map(|r| r.vault.timeout_ms).chain(targets.iter().map(|t| t.timeout_ms)).max();
    if slowest.unwrap_or(0).saturating_add(CLAIM_MARGIN_MS) >= raw.claim_lease.value.0 {
        let at = raw.claim_lease.referenced;
        let least = file::Millis(slowest.unwrap_or(0).saturating_add(CLAIM_MARGIN_MS));
        let message = format!("`limits.claim_lease` must be longer than the slowest `timeout` plus 5s: over {least}");
        let problem = Problem::new(at, message);
        c.problems.push(problem.help("an effect starts only while its claim outlasts the call"));
    }
    for (value, name) in [(&raw.concurrency, "concurrency"), (&raw.per_system, "per_system")] {
        if value.value == 0 {
            c.wrong(value.referenced, format!("`limits.{name}` must be at least 1"));
        }
    }
    Limits {
        effects_per_minute: raw.effects_per_minute,
        concurrency: raw.concurrency.value,
        per_system: raw.per_system.value,
        claim_lease_ms: raw.claim_lease.value.0,
        outbox: raw.outbox,
        shutdown_ms: raw.shutdown.0,
    }
}

fn policy(c: &mut Checks<'_>, raw: &file::Policy) -> (Rules, i64) {
    if raw.heartbeats_missed.value == 0 {
        c.wrong(raw.heartbeats_missed.referenced, "`policy.heartbeats_missed` must be at least 1");
    }
    let rules = Rules {
        longest_life_ms: positive(c, &raw.longest_life, "policy.longest_life"),
        heartbeats_missed: raw.heartbeats_missed.value,
        future_skew_ms: raw.future_skew.0,
    };
    (rules, raw.grace.0)
}

fn protected(c: &mut Checks<'_>, raw: &[Spanned<String>]) -> BTreeSet<String> {
    let mut protected = BTreeSet::new();
    for one in raw {
        match CredentialId::parse(&one.value) {
            Ok(id) => _ = protected.insert(id.as_str().to_owned()),
            Err(error) => c.wrong(one.referenced, error.to_string()),
        }
    }
    protected
}
