//! What must hold between the parts of a configuration, and what follows from it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_saphyr::{Location, Spanned};

use super::problem::said;
use super::ways::{http, is_safe_url, kafka, patterns, publish, status, topics};
use super::webhooks::webhooks;
use super::{
    Config, Database, Environment, Fingerprint, Limits, Log, Login, Overrides, Problem, Realm, Reconcile, Retention,
    System, TOKENS, Target, Topic, Transit, Vault, aws, bindings, canary, file, kubernetes, reductions, rotations,
    splits,
};
use crate::connector;
use crate::credential::CredentialId;
use crate::executor;
use crate::guard::Mode;
use crate::journal::postgres::is_plain;
use crate::limit::Budget;
use crate::offboard;
use crate::policy::Rules;
use crate::retry::Schedule;
use crate::task::Tenant;

/// What is collected on the way.
pub(super) struct Checks<'a> {
    folder: &'a Path,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Checks<'_> {
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    pub(super) fn wrong(&mut self, at: Location, message: impl Into<String>) {
        self.problems.push(Problem::new(at, message));
    }

    pub(super) fn login(
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
    let http = http(&mut c, raw.http, kafka.is_none(), &topics, (raw.fingerprint.is_some(), raw.retention.value.seen));
    let status = status(&mut c, raw.status, over.status);
    let most = raw.limits.calls_per_system.value;
    let targets = targets(&mut c, &raw.targets, &topics, most);
    let mut realms = realms(&mut c, &raw.realms, &targets, &topics, most);
    if raw.realms.is_empty()
        && let Some(realm) = default_realm(&mut c, env, most)
    {
        realms.push(realm);
    }
    let webhooks = webhooks(&mut c, &raw.webhooks, &realms, &targets);
    let mut recipes = rotations::recipes(&mut c, &raw.rotations, &realms, &targets, &webhooks);
    let inventories = rotations::inventories(&mut c, &raw.inventory, &realms);
    rotations::warn_of_unknown_ages(&mut c, &recipes, &inventories, &targets);
    let bindings = bindings::bindings(&mut c, &raw.bindings, &realms, &recipes);
    let canary = canary::canary(&mut c, raw.canary.as_ref(), &realms, &topics, (kafka.as_ref(), http.as_ref()));
    let reductions = reductions::reductions(&mut c, &raw.reductions, &realms, &targets);
    splits::shares(&mut c, &raw.rotations, &mut recipes, &reductions);
    let clusters = kubernetes::clusters(&mut c, &raw.kubernetes, &topics, http.as_ref());
    let kept_ms = raw.retention.value.closed.0;
    let reach = raw.reach.as_ref().map(|raw| super::reach::reach(&mut c, raw, &realms, &targets, kept_ms));
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
    if retention.events.0 < 86_400_000 {
        c.wrong(raw.retention.referenced, "`retention.events` must be at least 1d");
    }
    let protected = protected(&mut c, &raw.protected);
    if raw.log.level.parse::<tracing_subscriber::filter::Targets>().is_err() {
        c.wrong(Location::UNKNOWN, "`log.level` is no level and no filter, such as `info` or `info,curfew=debug`");
    }
    if realms.is_empty() && !targets.iter().any(|target| matches!(target.system, System::Aws(_))) {
        c.warnings.push("no realm: cases are opened and held, nothing can be revoked (set VAULT_ADDR)".to_owned());
    }
    let journal = over.journal.clone().unwrap_or_else(|| c.path(&raw.journal.path));
    let fingerprint = raw.fingerprint.as_ref().map(|raw| fingerprint(&mut c, raw, &realms));
    let database = database(&mut c, raw.journal.postgres.as_ref());
    let socket = raw.socket.as_ref().map_or_else(|| journal.with_extension("sock"), |socket| c.path(socket));
    let socket = over.socket.clone().unwrap_or(socket);
    if !c.problems.is_empty() {
        return Err(c.problems);
    }
    Ok(Config {
        journal,
        database,
        socket,
        kafka,
        topics,
        publish,
        http,
        fingerprint,
        metrics: over.metrics.unwrap_or(raw.metrics.listen),
        status,
        realms,
        targets,
        webhooks,
        recipes,
        inventories,
        bindings,
        canary,
        reductions,
        clusters,
        reach,
        rules: Arc::new(rules),
        grace_ms,
        limits,
        retry: Schedule {
            first_ms: unsigned(raw.retry.first.value.0),
            ceiling_ms: unsigned(raw.retry.ceiling.0),
            ..Schedule::default()
        },
        protected,
        retention: Retention {
            seen_ms: retention.seen.0,
            events_ms: retention.events.min(retention.closed).0,
            closed_ms: retention.closed.0,
        },
        log: Log { json: over.log_json || raw.log.json, level: raw.log.level },
        warnings: c.warnings,
    })
}

fn database(c: &mut Checks<'_>, raw: Option<&file::Database>) -> Option<Database> {
    let raw = raw?;
    if !is_plain(&raw.schema.value) {
        c.wrong(raw.schema.referenced, "`journal.postgres.schema` is of lower-case letters, digits and `_`");
    }
    if raw.connections.value < 2 {
        c.wrong(raw.connections.referenced, "`journal.postgres.connections` must be at least 2");
    }
    Some(Database {
        url_file: c.path(&raw.url_file),
        schema: raw.schema.value.clone(),
        connections: raw.connections.value,
    })
}

fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

fn bears(raw: &file::Bears, most: usize) -> Budget {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    Budget { calls: raw.calls.map_or(most, u32::from), per_second: raw.per_second.map(u32::from) }
}

fn targets(
    c: &mut Checks<'_>,
    raw: &[Spanned<file::Target>],
    topics: &BTreeMap<String, Topic>,
    most: usize,
) -> Vec<Target> {
    let mut names = HashSet::new();
    let mut targets = Vec::new();
    for Spanned { value: target, .. } in raw {
        if !names.insert(&target.name.value) {
            c.wrong(target.name.referenced, format!("there are two targets {}", said(&target.name.value)));
        }
        let (system, timeout) = match (&target.postgres, &target.mariadb, &target.redis, &target.aws) {
            (Some(postgres), None, None, None) => {
                let lease_users = lease_users(c, &postgres.lease_users);
                (System::Postgres { url_file: c.path(&postgres.url_file), lease_users }, &postgres.timeout)
            }
            (None, Some(mariadb), None, None) => {
                (System::Mariadb { url_file: c.path(&mariadb.url_file) }, &mariadb.timeout)
            }
            (None, None, Some(redis), None) => {
                let ca_file = redis.ca_file.as_ref().map(|path| c.path(path));
                (System::Redis { url_file: c.path(&redis.url_file), ca_file }, &redis.timeout)
            }
            (None, None, None, Some(raw)) => (System::Aws(aws::account(c, &target.name, raw, topics)), &raw.timeout),
            _ => {
                let message = "a target is one system: it has one of `postgres`, `mariadb`, `redis` and `aws`";
                c.wrong(target.name.referenced, message);
                continue;
            }
        };
        targets.push(Target {
            name: target.name.value.clone(),
            system,
            timeout_ms: timeout.value.0,
            bears: bears(&target.bears, most),
            mode: target.mode,
        });
    }
    targets
}

/// Whom a producer may name as the user of a lease.
fn lease_users(c: &mut Checks<'_>, raw: &[Spanned<String>]) -> Vec<String> {
    for one in raw {
        let start = one.value.strip_suffix('*').unwrap_or(&one.value);
        if start.is_empty() || start.contains('*') {
            let message = "`lease_users` has names, or beginnings and `*`: who may name anybody can shut out anybody";
            c.wrong(one.referenced, message);
        }
    }
    raw.iter().map(|one| one.value.clone()).collect()
}

fn realms(
    c: &mut Checks<'_>,
    raw: &[Spanned<file::Realm>],
    targets: &[Target],
    topics: &BTreeMap<String, Topic>,
    most: usize,
) -> Vec<Realm> {
    let mut names = HashSet::new();
    let mut realms = Vec::new();
    for Spanned { value: realm, referenced: at, .. } in raw {
        let name = &realm.name.value;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            let at = if name.is_empty() { *at } else { realm.name.referenced };
            c.wrong(at, "a realm's `name` stands in credential ids: letters, digits, `-`, `_` and `.`");
        }
        if !names.insert(name) || targets.iter().any(|target| target.name == *name) {
            c.wrong(
                realm.name.referenced,
                format!("{} names two systems: realms and targets share their names", said(name)),
            );
        }
        for opens in &realm.targets {
            if !targets.iter().any(|target| target.name == opens.target.value) {
                let message = format!("there is no target {}", said(&opens.target.value));
                let known = targets.iter().map(|target| target.name.as_str());
                c.problems.push(Problem::new(opens.target.referenced, message).nearest(&opens.target.value, known));
            }
            let opened = targets.iter().find(|target| target.name == opens.target.value);
            if opened.is_some_and(|target| !matches!(target.system, System::Postgres { .. })) {
                c.wrong(opens.target.referenced, "what a lease opens is looked at on PostgreSQL only");
            }
            if !realm.allowed_prefixes.iter().any(|allowed| opens.prefix.value.starts_with(allowed.as_str())) {
                let message = format!("{} is not below any of `allowed_prefixes`", said(&opens.prefix.value));
                c.wrong(opens.prefix.referenced, message);
            }
        }
        if realm.mode == Mode::Enforce && realm.allowed_prefixes.is_empty() {
            let name = said(name);
            c.warnings.push(format!("realm {name} enforces, but its `allowed_prefixes` are empty: nothing is revoked"));
        }
        let vault = vault(c, *at, name, &realm.vault);
        let tenant = tenant(c, *at, realm, topics);
        let reconcile = realm.reconcile.as_ref().and_then(|raw| reconcile(c, *at, name, tenant.clone()?, raw));
        let Some(vault) = vault else { continue };
        let approle = realm.allowed_prefixes.iter().filter(|prefix| prefix.starts_with("approle/"));
        let roles = approle.chain(&realm.secret_id_roles).map(|role| role.trim_end_matches('/').to_owned());
        let secret_id_roles: BTreeSet<String> = roles.collect();
        let named = realm.allowed_prefixes.iter().filter(|p| !p.starts_with("approle/")).cloned();
        let allowed_prefixes = named.chain(secret_id_roles.iter().map(|role| format!("{role}/"))).collect();
        realms.push(Realm {
            tenant,
            secret_id_roles: secret_id_roles.into_iter().collect(),
            derived_tokens: realm.derived_tokens,
            tokens: realm.allowed_prefixes.iter().any(|prefix| prefix == TOKENS),
            rules: connector::Realm {
                name: name.clone(),
                mode: realm.mode,
                allowed_prefixes,
                reducible: Vec::new(),
                targets: realm.targets.iter().map(|o| (o.prefix.value.clone(), o.target.value.clone())).collect(),
            },
            vault,
            reconcile,
            bears: bears(&realm.bears, most),
        });
    }
    realms
}

fn vault(c: &mut Checks<'_>, at: Location, name: &str, raw: &file::Vault) -> Option<Vault> {
    if !is_safe_url(&raw.address.value) {
        let at = if raw.address.value.is_empty() { at } else { raw.address.referenced };
        c.wrong(at, format!("realm {}: `vault.address` is an https:// URL, or http:// on loopback", said(name)));
    }
    Some(Vault {
        address: raw.address.value.trim_end_matches('/').to_owned(),
        namespace: raw.namespace.clone(),
        ca_file: raw.ca_file.as_ref().map(|path| c.path(path)),
        cluster_id: raw.cluster_id.clone(),
        timeout_ms: positive(c, &raw.timeout, "timeout"),
        login: c.login(at, raw.token_file.as_ref(), raw.approle.as_ref(), &format!("realm {}", said(name)))?,
    })
}

/// Whose credentials a realm holds. One that reconciles must know: what is found is looked up in one tenant's journal.
fn tenant(c: &mut Checks<'_>, at: Location, realm: &file::Realm, topics: &BTreeMap<String, Topic>) -> Option<Tenant> {
    let tenants: BTreeSet<&Tenant> = topics.values().map(|topic| &topic.tenant).collect();
    let known = || tenants.iter().map(|tenant| &***tenant);
    match &realm.tenant {
        Some(named) if known().any(|tenant| tenant == named.value) => Some(named.value.as_str().into()),
        Some(named) => {
            let message = format!("no topic is of the tenant {}", said(&named.value));
            c.problems.push(Problem::new(named.referenced, message).nearest(&named.value, known()));
            None
        }
        None if tenants.len() > 1 && realm.reconcile.is_some() => {
            let name = said(&realm.name.value);
            let message = format!("realm {name}: the topics are of several tenants, and `reconcile` is for one");
            let known: Vec<String> = known().map(said).collect();
            let help = format!("write `tenant: NAME` in the realm, with one of {}", known.join(", "));
            c.problems.push(Problem::new(at, message).help(help));
            None
        }
        None if tenants.len() > 1 => None,
        None => Some(tenants.first().map_or_else(|| "default".into(), |tenant| (*tenant).clone())),
    }
}

fn reconcile(c: &mut Checks<'_>, at: Location, name: &str, tenant: Tenant, raw: &file::Reconcile) -> Option<Reconcile> {
    if raw.prefixes.is_empty() && !raw.tokens {
        let name = said(name);
        c.warnings.push(format!("realm {name}: `reconcile` names no prefixes and no tokens: it compares nothing"));
    }
    let whose = format!("`reconcile` of realm {}", said(name));
    Some(Reconcile {
        tenant,
        prefixes: raw.prefixes.iter().map(|w| (w.prefix.clone(), w.exclusive)).collect(),
        tokens: raw.tokens,
        every_ms: positive(c, &raw.every, "every"),
        login: c.login(at, raw.token_file.as_ref(), raw.approle.as_ref(), &whose)?,
    })
}

fn fingerprint(c: &mut Checks<'_>, raw: &file::Fingerprint, realms: &[Realm]) -> Fingerprint {
    let transit = raw.transit.as_ref().and_then(|Spanned { value: raw, referenced: at, .. }| {
        rotations::known_realm(c, &raw.realm, realms);
        Some(Transit {
            realm: raw.realm.value.clone(),
            login: c.login(*at, raw.token_file.as_ref(), raw.approle.as_ref(), "`fingerprint.transit`")?,
            mount: raw.mount.clone(),
            key: raw.key.clone(),
        })
    });
    Fingerprint { key_file: c.path(&raw.key_file), transit }
}

pub(super) fn positive(c: &mut Checks<'_>, ms: &Spanned<file::Millis>, what: &str) -> i64 {
    if ms.value.0 < 1 {
        c.wrong(ms.referenced, format!("`{what}` must be longer than 0"));
    }
    ms.value.0
}

/// Without any realm in a file: the Vault of `VAULT_ADDR`. It only observes, so all prefixes are of interest.
fn default_realm(c: &mut Checks<'_>, env: &Environment, most: usize) -> Option<Realm> {
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
        tenant: None,
        rules: connector::Realm {
            name: "default".to_owned(),
            mode: Mode::Observe,
            allowed_prefixes: vec![String::new()],
            reducible: Vec::new(),
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
        bears: bears(&file::Bears::default(), most),
    })
}

fn limits(c: &mut Checks<'_>, raw: &file::Limits, realms: &[Realm], targets: &[Target]) -> Limits {
    let slowest = realms
        .iter()
        .map(|r| r.vault.timeout_ms)
        .chain(targets.iter().map(|t| t.timeout_ms.saturating_mul(t.system.calls())));
    let slowest = slowest.max();
    let least = file::Millis(executor::least_claim_ms(slowest.unwrap_or(0)));
    if raw.claim_lease.value < least {
        let at = raw.claim_lease.referenced;
        let message = "`limits.claim_lease` must be longer than the slowest `timeout`, by a margin";
        let problem = Problem::new(at, format!("{message}: at least {least}"));
        c.problems.push(problem.help("an effect starts only while its claim outlasts the call"));
    }
    let counts = [
        (&raw.concurrency, "concurrency"),
        (&raw.per_system, "per_system"),
        (&raw.calls_per_system, "calls_per_system"),
    ];
    for (value, name) in counts {
        if value.value == 0 {
            c.wrong(value.referenced, format!("`limits.{name}` must be at least 1"));
        }
    }
    Limits {
        effects_per_minute: raw.effects_per_minute,
        concurrency: raw.concurrency.value,
        per_system: raw.per_system.value,
        calls_per_system: raw.calls_per_system.value,
        claim_lease_ms: raw.claim_lease.value.0,
        outbox: raw.outbox,
        shutdown_ms: raw.shutdown.0,
    }
}

fn policy(c: &mut Checks<'_>, raw: &file::Policy) -> (Rules, i64) {
    if raw.heartbeats_missed.value == 0 {
        c.wrong(raw.heartbeats_missed.referenced, "`policy.heartbeats_missed` must be at least 1");
    }
    if raw.fence_for.value.0 > offboard::LONGEST_FENCE_MS {
        c.wrong(raw.fence_for.referenced, "`policy.fence_for` is at most 366d");
    }
    let rules = Rules {
        fence_for_ms: positive(c, &raw.fence_for, "policy.fence_for"),
        longest_life_ms: positive(c, &raw.longest_life, "policy.longest_life"),
        heartbeats_missed: raw.heartbeats_missed.value,
        future_skew_ms: raw.future_skew.0,
        findings: rotations::rules(raw.findings.as_deref()),
        without_credentials: patterns(c, raw.without_credentials.clone()),
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
