//! Role `enforce`: due cases are worked on, with this process's realms and actions only.

use std::collections::BTreeSet;
use std::sync::Arc;

use curfew::case::Action;
use curfew::config::reductions::{By, Reduction};
use curfew::config::{Config, Login, Realm, System, Target};
use curfew::connector::recipe::{Keeper, Place, Recipe};
use curfew::connector::{self, Connector, Registry, mariadb, postgres, redis, vault, webhook};
use curfew::credential::Kind;
use curfew::executor::{Executor, Parts, Settings};
use curfew::journal::Served;
use curfew::ops::freeze_file;
use curfew::reconcile::Registrar;
use curfew::{clock, guard};

use crate::process::Process;
use crate::{Failed, accounts};

/// Look-ups of newly registered credentials per second.
const LOOKUPS_PER_SECOND: u32 = 50;

/// Which part of the cases this process works on.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Of these realms; empty: of all.
    pub realms: Vec<String>,
    /// With these actions; empty: with any.
    pub actions: Vec<Action>,
}

impl Part {
    /// All realms that it names are configured.
    pub fn check(&self, config: &Config) -> Result<(), Failed> {
        let known: Vec<&str> = config.realms.iter().map(|realm| realm.rules.name.as_str()).collect();
        let accounts = config.accounts().map(|(target, _)| target.name.as_str());
        let known: Vec<&str> = known.into_iter().chain(accounts).collect();
        if let Some(name) = self.realms.iter().find(|name| !known.contains(&name.as_str())) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Failed::Usage(format!(
                "--realm {name}: there is no such realm in the configuration (it has: {known})"
            )));
        }
        let is_there = |realm: &str| self.realms.is_empty() || self.realms.iter().any(|one| one == realm);
        // A key of IAM is made and stored in one step: by who has both logins.
        for recipe in config.recipes.iter().filter(|recipe| recipe.credential.kind() == Kind::AwsUser) {
            let (store, account) = (&recipe.place.realm, recipe.credential.instance());
            if is_there(store) != is_there(account) {
                let name = &recipe.name;
                return Err(Failed::Usage(format!(
                    "rotation {name} makes keys at {account} and stores them in {store}: it needs `--realm {account}` and \
                     `--realm {store}`"
                )));
            }
        }
        for recipe in config.recipes.iter().filter(|recipe| !recipe.shares.is_empty()) {
            let agents = recipe.shares.iter().map(|share| &share.recipe.place.realm);
            let (here, away): (Vec<&String>, Vec<&String>) =
                agents.chain([&recipe.place.realm]).partition(|realm| is_there(realm));
            if let (false, Some(realm)) = (here.is_empty(), away.first()) {
                let name = &recipe.name;
                return Err(Failed::Usage(format!(
                    "rotation {name} is split, and its values are in realm {realm} too: who serves it needs `--realm {realm}` as well"
                )));
            }
        }
        for recipe in config.recipes.iter().filter(|recipe| is_there(&recipe.place.realm)) {
            if let Some(Place { realm, .. }) = recipe.copies.iter().find(|copy| !is_there(&copy.realm)) {
                let name = &recipe.name;
                return Err(Failed::Usage(format!(
                    "rotation {name} has a copy in realm {realm}: who serves it needs `--realm {realm}` as well"
                )));
            }
        }
        Ok(())
    }
}

/// Logs in, claims, works.
pub async fn start(process: &Process, part: &Part, apart: bool) -> Result<(), Failed> {
    let config = &process.config;
    let registry = Arc::new(connectors(process, &part.realms).await?);
    let executor = executor(process, registry.clone(), served(config, part, apart));
    process.tasks.spawn("executor", executor.run(process.tasks.cancel.clone()));
    // Each realm's look-ups are led by a process that serves it.
    let realms = part.realms.iter().map(|realm| Some(realm.as_str()));
    let all = part.realms.is_empty().then_some(None);
    for realm in realms.chain(all) {
        let mut registrar = Registrar::new(process.intake.clone(), registry.clone(), LOOKUPS_PER_SECOND);
        if let Some(realm) = realm {
            registrar = registrar.of_realm(realm);
        }
        let registrar = Arc::new(registrar);
        process.lead_one("registrar", realm.unwrap_or_default(), move |cancel| {
            let registrar = registrar.clone();
            async move { registrar.run(cancel).await }
        });
    }
    Ok(())
}

/// One process alone serves everything, and holds what it has no realm for; among several each serves what it has.
fn served(config: &Config, part: &Part, apart: bool) -> Option<Served> {
    let chosen = |name: &String| part.realms.is_empty() || part.realms.contains(name);
    let realms = config.realms.iter().map(|realm| realm.rules.name.clone()).filter(chosen);
    let realms = realms.chain(config.accounts().map(|(target, _)| target.name.clone()).filter(chosen));
    let rotated = config.recipes.iter().filter(|recipe| chosen(&recipe.place.realm));
    let reduced = reductions(config, &part.realms).map(|reduction| reduction.system.clone());
    let systems = realms.chain(rotated.map(|recipe| recipe.credential.instance().to_owned())).chain(reduced).collect();
    let actions = (!part.actions.is_empty()).then(|| part.actions.iter().copied().collect());
    apart.then_some(Served { systems, actions })
}

fn executor(process: &Process, registry: Arc<Registry>, served: Option<Served>) -> Executor {
    let (config, trust) = (&process.config, process.trust.clone());
    let freeze = freeze_file::path_of(&config.journal);
    let settings = Settings {
        concurrency: config.limits.concurrency,
        per_system: config.limits.per_system,
        calls_per_system: config.limits.calls_per_system,
        budgets: config.budgets(),
        served,
        claim_lease_ms: config.limits.claim_lease_ms,
        effects_per_minute: config.limits.effects_per_minute,
        retry: config.retry,
        authority: config.authorities(),
        protected: config.protected.clone(),
        terms: crate::reach::terms(config),
        ..Settings::default()
    };
    Executor::new(Parts {
        worker: process.worker,
        journal: process.intake.journal.clone(),
        registry,
        settings: Arc::new(settings),
        clock: process.clock.clone(),
        clock_trusted: Arc::new(move || trust.check()),
        freeze_file: Arc::new(move || freeze_file::read(&freeze).map(|note| note.how)),
        metrics: process.intake.metrics.clone(),
        stirred: process.intake.stirred.clone(),
        outbox: process.outbox.clone(),
    })
}

/// Only the logins of `realms` are read (empty: of all). A realm that does not answer now is no reason not to start; one
/// that is wrong is.
async fn connectors(process: &Process, realms: &[String]) -> Result<Registry, Failed> {
    let (config, clock) = (process.config.as_ref(), &process.clock);
    let mut registry = Registry::default();
    let chosen = |name: &String| realms.is_empty() || realms.contains(name);
    let mut opened = BTreeSet::new();
    for realm in config.realms.iter().filter(|realm| chosen(&realm.rules.name)) {
        let mut settings = vault_settings(realm, login(&realm.vault.login));
        settings.shown = Some((process.intake.metrics.clone(), "enforce"));
        let name = &realm.rules.name;
        let rotated: Vec<&Recipe> = rotated_at(config, name);
        settings.approles = rotated.iter().map(|recipe| recipe.credential.id()).collect();
        let bindings = config.bindings.iter().filter(|one| one.realm == *name);
        settings.bindings = bindings.flat_map(|one| one.rules.iter().cloned()).collect();
        let made = vault::connect(name, &settings, realm.rules.mode, clock.clone()).await;
        made.map_err(|error| refused(&format!("realm {name}"), &error))?.into_iter().for_each(|one| registry.add(one));
        let own = rotated.iter().map(|recipe| format!("{}{}", guard::APPROLES, recipe.credential.id()));
        let mut rules = realm.rules.clone();
        rules.allowed_prefixes.extend(own);
        registry.add_realm(rules);
        rotated.into_iter().cloned().for_each(|recipe| registry.add_recipe(recipe));
        opened.extend(realm.rules.targets.iter().map(|(_, target)| target.clone()));
        let places: Vec<Place> = recipes(config, name).map(|recipe| recipe.place.clone()).collect();
        let copies = config.recipes.iter().flat_map(|recipe| recipe.copies_at((Keeper::Kv, name)));
        let copies: Vec<Place> = copies.cloned().collect();
        if !places.is_empty() || !copies.is_empty() {
            let mode = realm.rules.mode;
            settings.shown = Some((process.intake.metrics.clone(), "stores"));
            let stores = vault::connect_stores(name, &settings, mode, clock.clone(), &places, &copies).await;
            let stores = stores.map_err(|error| refused(&format!("stores of realm {name}"), &error))?;
            stores.into_iter().for_each(|store| registry.add_store(store));
            opened.extend(recipes(config, name).map(|recipe| recipe.credential.instance().to_owned()));
        }
    }
    for webhook in &config.webhooks {
        let caller = webhook::connect(webhook.clone(), clock.clone());
        let caller = caller.map_err(|why| Failed::Data(format!("webhook {}: {why}", webhook.name)))?;
        registry.add(Arc::new(caller));
    }
    for (target, aws) in config.accounts().filter(|(target, _)| chosen(&target.name)) {
        let all = config.recipes.iter().flat_map(|recipe| std::iter::once(&recipe.place).chain(&recipe.copies));
        let places: Vec<Place> = all.filter(|place| place.realm == target.name).cloned().collect();
        accounts::connect(&mut registry, target, aws, &rotated_at(config, &target.name), &places, clock).await?;
        opened.extend(recipes(config, &target.name).map(|recipe| recipe.credential.instance().to_owned()));
    }
    // An account is a realm of its own, and connected as such.
    let behind_others = config.targets.iter().filter(|target| !matches!(target.system, System::Aws(_)));
    for target in behind_others.filter(|target| realms.is_empty() || opened.contains(&target.name)) {
        let rotated = rotated_at(config, &target.name);
        let made = behind(target, !rotated.is_empty(), clock).await;
        let made = made.map_err(|error| refused(&format!("target {}", target.name), &error))?;
        made.into_iter().for_each(|one| registry.add(one));
        if rotated.is_empty() {
            continue;
        }
        registry.add_realm(connector::Realm {
            name: target.name.clone(),
            mode: target.mode,
            allowed_prefixes: rotated.iter().map(|recipe| recipe.credential.id()).collect(),
            reducible: Vec::new(),
            targets: Vec::new(),
        });
        rotated.into_iter().cloned().for_each(|recipe| registry.add_recipe(recipe));
    }
    for reduction in reductions(config, realms) {
        scoper(process, &mut registry, reduction).await?;
    }
    Ok(registry)
}

/// The reductions that a process with these realms serves (empty: all): at the realms, and at what their leases and values open.
fn reductions<'a>(config: &'a Config, realms: &'a [String]) -> impl Iterator<Item = &'a Reduction> {
    let is_ours = move |system: &String| realms.is_empty() || realms.contains(system);
    let opens = move |system: &String| {
        let leases = config.realms.iter().filter(move |realm| is_ours(&realm.rules.name));
        let mut leases = leases.flat_map(|realm| &realm.rules.targets);
        let mut values = config.recipes.iter().filter(move |recipe| is_ours(&recipe.place.realm));
        leases.any(|(_, target)| target == system) || values.any(|recipe| recipe.credential.instance() == *system)
    };
    config.reductions.iter().filter(move |reduction| is_ours(&reduction.system) || opens(&reduction.system))
}

/// Who takes permissions at one system, by a login of its own.
async fn scoper(process: &Process, registry: &mut Registry, reduction: &Reduction) -> Result<(), Failed> {
    let (config, clock, name) = (&process.config, &process.clock, &reduction.system);
    let what = format!("reductions at {name}");
    let target = config.targets.iter().find(|target| target.name == *name);
    let mode = match &reduction.by {
        By::Vault(auth) => {
            let Some(realm) = config.realms.iter().find(|realm| realm.rules.name == *name) else { return Ok(()) };
            let mut settings = vault_settings(realm, login(auth));
            settings.shown = Some((process.intake.metrics.clone(), "reductions"));
            settings.scopes.clone_from(&reduction.identities);
            let vault = vault::Vault::open(name, &settings, realm.rules.mode, clock.clone()).await;
            registry.add(Arc::new(vault::scope::VaultScope::new(vault.map_err(|error| refused(&what, &error))?)));
            realm.rules.mode
        }
        By::Postgres(url_file) => {
            let Some(target) = target else { return Ok(()) };
            let timeout_ms = u64::try_from(target.timeout_ms).unwrap_or(0);
            let settings = postgres::PostgresSettings::by_file(url_file.clone(), timeout_ms);
            let made = postgres::scope::connect(name, &settings, clock.clone()).await;
            registry.add(made.map_err(|error| refused(&what, &error))?);
            target.mode
        }
        By::Aws(credentials_file) => {
            let Some((target, aws)) = config.accounts().find(|(target, _)| target.name == *name) else { return Ok(()) };
            accounts::reduces(registry, target, aws, credentials_file, clock).await?;
            target.mode
        }
    };
    registry.may_reduce(name, mode, &reduction.identities);
    Ok(())
}

/// The connectors of a target: for what leases open there, and where its users are rotated also for those.
async fn behind(
    target: &Target,
    rotates: bool,
    clock: &clock::Shared,
) -> Result<Vec<Arc<dyn Connector>>, vault::ConnectError> {
    let timeout_ms = u64::try_from(target.timeout_ms).unwrap_or(0);
    let name = &target.name;
    match &target.system {
        System::Postgres { url_file, lease_users } => {
            let by_file = postgres::PostgresSettings::by_file(url_file.clone(), timeout_ms);
            let settings = postgres::PostgresSettings { lease_users: lease_users.clone(), ..by_file };
            let mut made = postgres::connect(name, &settings, clock.clone()).await?;
            if rotates {
                made.push(postgres::role::connect(name, &settings, clock.clone()).await?);
            }
            Ok(made)
        }
        System::Mariadb { url_file } => {
            let settings = mariadb::MariadbSettings { url: mariadb::Url::File(url_file.clone()), timeout_ms };
            Ok(vec![mariadb::connect(name, &settings, clock.clone()).await?])
        }
        System::Redis { url_file, ca_file } => {
            let urls = redis::Urls::File(url_file.clone());
            let settings = redis::RedisSettings { urls, ca_file: ca_file.clone(), timeout_ms };
            Ok(vec![redis::connect(name, &settings, clock.clone()).await?])
        }
        // A realm of its own: connected as such.
        System::Aws(_) => Ok(Vec::new()),
    }
}

/// The recipes whose values open a system.
fn rotated_at<'a>(config: &'a Config, system: &str) -> Vec<&'a Recipe> {
    config.recipes.iter().filter(|recipe| recipe.credential.instance() == system).collect()
}

/// The recipes whose values a realm stores.
fn recipes<'a>(config: &'a Config, realm: &'a str) -> impl Iterator<Item = &'a Recipe> {
    config.recipes.iter().filter(move |recipe| recipe.place.realm == realm)
}

/// A login as the connector wants it.
pub fn login(login: &Login) -> vault::Auth {
    match login {
        Login::Token(token) => vault::Auth::Token(token.clone()),
        Login::TokenFile(path) => vault::Auth::TokenFile(path.clone()),
        Login::AppRole { mount, role_id_file, secret_id_file } => vault::Auth::Approle {
            mount: mount.clone(),
            role_id_file: role_id_file.clone(),
            secret_id_file: secret_id_file.clone(),
        },
    }
}

/// How a realm's Vault is spoken to, as `auth`.
pub fn vault_settings(realm: &Realm, auth: vault::Auth) -> vault::VaultSettings {
    let roles: BTreeSet<String> = realm.secret_id_roles.iter().map(|role| format!("{role}/")).collect();
    let is_lease = |prefix: &&String| !roles.contains(*prefix) && *prefix != guard::TOKENS;
    vault::VaultSettings {
        namespace: realm.vault.namespace.clone(),
        ca_file: realm.vault.ca_file.clone(),
        cluster_id: realm.vault.cluster_id.clone(),
        timeout_ms: u64::try_from(realm.vault.timeout_ms).unwrap_or(0),
        lease_prefixes: realm.rules.allowed_prefixes.iter().filter(is_lease).cloned().collect(),
        tokens: realm.tokens,
        secret_id_roles: realm.secret_id_roles.clone(),
        derived_tokens: realm.derived_tokens,
        ..vault::VaultSettings::new(&realm.vault.address, auth)
    }
}

/// What a login that does not work ends with.
pub fn refused(what: &str, error: &vault::ConnectError) -> Failed {
    match error {
        vault::ConnectError::Unreachable(_) | vault::ConnectError::Login(_) => {
            Failed::Unavailable(format!("{what}: {error}"))
        }
        _ => Failed::Other(anyhow::anyhow!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use curfew::config::{Environment, Overrides};

    use super::*;

    const TEXT: &str = "
realms:
  - {name: prod, allowed_prefixes: [database/creds/], targets: [{prefix: database/creds/, target: appdb}],
     vault: {address: 'http://127.0.0.1:8200', token_file: t}}
  - {name: other, vault: {address: 'http://127.0.0.1:8300', token_file: t}}
targets: [{name: appdb, postgres: {url_file: u}}, {name: hrdb, postgres: {url_file: u}}]
reductions:
  - {system: prod, identities: [approle/etl], token_file: r}
  - {system: appdb, identities: [etl], url_file: r}
  - {system: hrdb, identities: [etl], url_file: r}
";

    #[test]
    fn a_process_claims_the_reductions_that_it_can_carry_out() {
        let config = Config::parse("c", TEXT, Path::new(""), &Overrides::default(), &Environment::default()).unwrap();
        let of = |realms: &[&str]| {
            let realms: Vec<String> = realms.iter().map(|one| (*one).to_owned()).collect();
            let part = Part { realms: realms.clone(), actions: Vec::new() };
            let names: Vec<String> = reductions(&config, &realms).map(|one| one.system.clone()).collect();
            let claims = served(&config, &part, true).unwrap().systems;
            assert!(names.iter().all(|name| claims.contains(name)), "{names:?}");
            names
        };
        assert_eq!(of(&[]), ["prod", "appdb", "hrdb"]);
        assert_eq!(of(&["prod"]), ["prod", "appdb"], "what its leases open");
        assert_eq!(of(&["other"]), Vec::<String>::new());
    }
}
