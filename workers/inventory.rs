//! Role `inventory`: which credentials there are, and by which fingerprints their values are known. Recipes are registered
//! at the start; stores are read with a login of their own, one process at a time for each realm.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use curfew::config::{Config, Inventory};
use curfew::connector::recipe::{Place, Recipe};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{CredentialRegistered, Event, PartFingerprint, access_key_mark};
use curfew::fingerprint::Keyring;
use curfew::intake::Intake;
use curfew::inventory::alike::Alike;
use curfew::inventory::vault::{PER_SECOND, Reader};
use curfew::inventory::{Changed, Learned, Scan, Watch};
use curfew::task::Tenant;
use tokio_util::sync::CancellationToken;

use crate::Failed;
#[cfg(feature = "aws")]
use crate::accounts;
use crate::enforce::{login, refused, vault_settings};
use crate::process::Process;

/// Secrets whose values are recorded together.
const CHUNK: usize = 100;

/// Registers the recipes of `realms` (empty: of all), and starts the readers of their stores.
pub async fn start(process: &Process, realms: &[String], keys: Option<&Keyring>) -> Result<(), Failed> {
    let config = &process.config;
    let chosen = |realm: &String| realms.is_empty() || realms.contains(realm);
    let now_ms = process.clock.wall_ms();
    let recipes = config.recipes.iter().filter(|recipe| chosen(&recipe.place.realm));
    let events: Vec<Event> = recipes
        .filter_map(|recipe| {
            let data = CredentialRegistered {
                credential: recipe.credential.clone(),
                fingerprints: Vec::new(),
                version: None,
                current: true,
                issued_ms: None,
                owner: recipe.owner.clone(),
                environment: recipe.environment.clone(),
            };
            Some(Event::registered(config.tenant_of(&recipe.place.realm)?.clone(), data, now_ms))
        })
        .collect();
    if !events.is_empty() {
        let recorded = process.intake.notice(events).await;
        recorded.map_err(|error| Failed::Unavailable(format!("the recipes cannot be recorded: {error}")))?;
    }
    let alike = Arc::new(Mutex::new(Alike::new(declared(config))));
    for (at, inventory) in config.inventories.iter().enumerate().filter(|(_, one)| chosen(&one.realm)) {
        read(process, inventory, at, keys, alike.clone()).await?;
    }
    #[cfg(feature = "aws")]
    read_accounts(process, realms, keys, &alike).await?;
    Ok(())
}

async fn read(
    process: &Process,
    inventory: &Inventory,
    at: usize,
    keys: Option<&Keyring>,
    alike: Arc<Mutex<Alike>>,
) -> Result<(), Failed> {
    let config = &process.config;
    let what = format!("inventory of realm {}", inventory.realm);
    let (Some(realm), Some(tenant), Some(keys)) = (
        config.realms.iter().find(|realm| realm.rules.name == inventory.realm),
        config.tenant_of(&inventory.realm),
        keys.cloned(),
    ) else {
        return Err(Failed::Data(format!("{what}: the configuration names no `fingerprint.key_file`")));
    };
    let mut settings = vault_settings(realm, login(&inventory.login));
    settings.shown = Some((process.intake.metrics.clone(), "inventory"));
    let watch = Watch {
        mount: inventory.mount.clone(),
        paths: inventory.paths.clone(),
        static_roles: inventory.static_roles.clone(),
        fields: inventory.fields.clone(),
        user_field: None,
        user_fields: key_names(config, &inventory.realm),
    };
    let pace = NonZeroU32::new(PER_SECOND).unwrap_or(NonZeroU32::MIN);
    let reader = Reader::open(&inventory.realm, &settings, process.clock.clone(), vec![watch], keys, pace).await;
    let reader = reader.map_err(|error| refused(&what, &error))?;
    begin(
        process,
        Source::Vault(Box::new(reader)),
        (&inventory.realm, &at.to_string()),
        tenant,
        inventory.every_ms,
        alike,
    );
    Ok(())
}

/// Reads a store from here on, one process at a time for each `part` of it.
fn begin(
    process: &Process,
    source: Source,
    (realm, part): (&str, &str),
    tenant: &Tenant,
    every_ms: i64,
    alike: Arc<Mutex<Alike>>,
) {
    let config = &process.config;
    let rounds = Arc::new(Rounds {
        source,
        intake: process.intake.clone(),
        tenant: tenant.clone(),
        places: places(config),
        copies: config.recipes.iter().flat_map(|recipe| recipe.copies.iter().map(named)).collect(),
        alike,
        realm: realm.to_owned(),
        part: part.to_owned(),
        every: Duration::from_millis(u64::try_from(every_ms).unwrap_or(60_000)),
    });
    process.lead_one("inventory", &format!("{realm} {part}"), move |cancel| {
        let rounds = rounds.clone();
        async move { rounds.run(cancel).await }
    });
}

/// The secrets of the accounts of AWS.
#[cfg(feature = "aws")]
async fn read_accounts(
    process: &Process,
    realms: &[String],
    keys: Option<&Keyring>,
    alike: &Arc<Mutex<Alike>>,
) -> Result<(), Failed> {
    let chosen = |name: &String| realms.is_empty() || realms.contains(name);
    for (target, aws) in process.config.accounts().filter(|(target, _)| chosen(&target.name)) {
        let Some(list) = aws.inventory.as_ref().filter(|list| !list.secrets.is_empty()) else { continue };
        let what = format!("inventory of target {}", target.name);
        let Some(keys) = keys.cloned() else {
            return Err(Failed::Data(format!("{what}: the configuration names no `fingerprint.key_file`")));
        };
        let Some(tenant) = &aws.tenant else { continue };
        let secrets = accounts::secrets(process, target, aws, list).await?;
        let pace = NonZeroU32::new(PER_SECOND).unwrap_or(NonZeroU32::MIN);
        let reader = curfew::inventory::secrets::Reader::new(
            secrets,
            list.secrets.clone(),
            key_names(&process.config, &target.name),
            keys,
            pace,
        );
        begin(process, Source::Aws(Box::new(reader)), (&target.name, "secrets"), tenant, list.every_ms, alike.clone());
    }
    Ok(())
}

/// What is read.
enum Source {
    /// A Vault.
    Vault(Box<Reader>),
    /// Secrets of an account of AWS.
    #[cfg(feature = "aws")]
    Aws(Box<curfew::inventory::secrets::Reader>),
}

impl Source {
    async fn scan(&self, since: &HashMap<String, i64>, out: &tokio::sync::mpsc::Sender<Changed>) -> Scan {
        match self {
            Self::Vault(reader) => reader.scan(since, out).await,
            #[cfg(feature = "aws")]
            Self::Aws(reader) => reader.scan(since, out).await,
        }
    }

    /// What a value is called that no recipe names, by its place within the store.
    fn credential(&self, realm: &str, place: &str) -> Option<CredentialId> {
        match self {
            Self::Vault(_) => CredentialId::new(Kind::VaultKv, realm, place).ok(),
            #[cfg(feature = "aws")]
            Self::Aws(_) => {
                let id = place.strip_prefix(curfew::connector::recipe::SECRETS_MANAGER)?.strip_prefix('/')?;
                CredentialId::new(Kind::AwsSecret, realm, id).ok()
            }
        }
    }
}

/// Where access keys of IAM are stored in a realm, and in which field their ids.
fn key_names(config: &Config, realm: &str) -> BTreeMap<String, String> {
    let rotated = config.recipes.iter().filter(|recipe| recipe.credential.kind() == Kind::AwsUser);
    let places = rotated.map(|recipe| &recipe.place).filter(|place| place.realm == realm);
    places.filter_map(|place| Some((format!("{}/{}", place.mount, place.path), place.user_field.clone()?))).collect()
}

/// Which credential a stored value is, where a recipe says so.
fn places(config: &Config) -> BTreeMap<String, CredentialId> {
    config.recipes.iter().map(|recipe| (named(&recipe.place), recipe.credential.clone())).collect()
}

/// Where rotations write, and which.
fn declared(config: &Config) -> BTreeMap<String, String> {
    let of = |recipe: &Recipe| {
        let places = std::iter::once(&recipe.place).chain(&recipe.copies);
        places.map(|place| (named(place), recipe.name.clone())).collect::<Vec<_>>()
    };
    config.recipes.iter().flat_map(of).collect()
}

/// As [`Learned::place`].
fn named(place: &Place) -> String {
    format!("{}/{}", place.realm, place.name())
}

/// Reads again and again; what has changed is registered.
struct Rounds {
    source: Source,
    intake: Intake,
    tenant: Tenant,
    places: BTreeMap<String, CredentialId>,
    /// They hold what their rotation's place holds: known by its marks already.
    copies: BTreeSet<String>,
    alike: Arc<Mutex<Alike>>,
    realm: String,
    /// Which entry of the configuration for that realm.
    part: String,
    every: Duration,
}

impl Rounds {
    async fn run(&self, cancel: CancellationToken) {
        // A new term reads all of it: what was registered before is a duplicate.
        let mut since = HashMap::new();
        self.intake.metrics.inventory_read(&self.realm, &self.part, 0);
        let rounds = async {
            loop {
                self.round(&mut since).await;
                tokio::time::sleep(self.every).await;
            }
        };
        tokio::select! { () = rounds => {} () = cancel.cancelled() => {} }
        // Whoever reads from now on says it.
        self.intake.metrics.inventory_left(&self.realm, &self.part);
        let mut alike = self.alike.lock().unwrap_or_else(PoisonError::into_inner);
        since.keys().for_each(|secret| alike.forget(&format!("{}/{secret}", self.realm)));
        self.intake.metrics.undeclared_copies(alike.undeclared().len());
    }

    async fn round(&self, since: &mut HashMap<String, i64>) {
        let before = since.clone();
        let (sender, mut changed) = tokio::sync::mpsc::channel(CHUNK);
        let scanned = async {
            let scan = self.source.scan(&before, &sender).await;
            drop(sender);
            scan
        };
        let recorded = async {
            let mut some = Vec::with_capacity(CHUNK);
            while changed.recv_many(&mut some, CHUNK).await > 0 {
                self.register(std::mem::take(&mut some), since).await;
            }
        };
        let (scan, ()) = tokio::join!(scanned, recorded);
        for fault in &scan.faults {
            tracing::warn!(realm = self.realm, path = fault.path, note = fault.note, "the inventory cannot read this");
        }
        tracing::debug!(realm = self.realm, secrets = scan.secrets, changed = scan.changed, "the inventory was read");
        if !scan.partial {
            self.intake.metrics.inventory_read(&self.realm, &self.part, self.intake.clock.wall_ms());
        }
    }

    /// A secret counts as read when its values are durable.
    async fn register(&self, some: Vec<Changed>, since: &mut HashMap<String, i64>) {
        let now_ms = self.intake.clock.wall_ms();
        let values = some.iter().flat_map(|changed| &changed.values);
        let events = values.filter_map(|learned| self.event(learned, now_ms)).collect();
        self.compare(&some);
        match self.intake.notice(events).await {
            Ok(_) => since.extend(some.into_iter().map(|changed| (changed.secret, changed.version))),
            Err(error) => tracing::warn!(%error, "what the inventory read is not recorded; it is read again"),
        }
    }

    /// Who reads a rotated value at a place that its rotation does not name is left without it at the next rotation.
    fn compare(&self, some: &[Changed]) {
        let mut alike = self.alike.lock().unwrap_or_else(PoisonError::into_inner);
        let before = alike.undeclared();
        for changed in some {
            alike.forget(&format!("{}/{}", self.realm, changed.secret));
            changed.values.iter().for_each(|learned| alike.note(learned));
        }
        let now = alike.undeclared();
        for (rotation, place) in now.difference(&before) {
            tracing::warn!(rotation, place, "this place holds the rotated value as well: name it in `copies`");
        }
        self.intake.metrics.undeclared_copies(now.len());
    }

    fn event(&self, learned: &Learned, now_ms: i64) -> Option<Event> {
        if self.copies.contains(&learned.place) {
            return None;
        }
        let own = || {
            let place = learned.place.strip_prefix(&format!("{}/", self.realm))?;
            self.source.credential(&self.realm, place)
        };
        let credential = self.places.get(&learned.place).cloned().or_else(own)?;
        // Scanners know the id of an access key, and nothing more of it.
        let id = learned.user.as_deref().filter(|_| credential.kind() == Kind::AwsUser);
        let fingerprints = learned.fingerprints.iter().cloned().chain(id.and_then(access_key_mark));
        let data = CredentialRegistered {
            credential,
            fingerprints: fingerprints.map(|fingerprint| PartFingerprint { fingerprint, part: None }).collect(),
            version: Some(learned.version),
            current: learned.current,
            issued_ms: learned.issued_ms,
            owner: None,
            environment: None,
        };
        Some(Event::registered(self.tenant.clone(), data, now_ms))
    }
}
