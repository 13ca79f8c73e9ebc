//! Reads the secrets of KV version 2 mounts, and what static roles hand out: metadata first, values only where the version
//! is another one than before.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;

use super::{Changed, Fault, Learned, Scan, Watch, values};
use crate::case::record::FailureKind;
use crate::clock;
use crate::connector::Failure;
use crate::connector::vault::kv::PENDING;
use crate::connector::vault::kv::engine::{Kv, Secret, Version};
use crate::connector::vault::static_role::{CREDS, FIELD};
use crate::connector::vault::{ConnectError, Vault, VaultSettings};
use crate::fingerprint::{Keyring, Keys};
use crate::guard::Mode;

/// Reads per second, where nothing else is said.
pub const PER_SECOND: u32 = 50;
/// Folders below a prefix that are gone into.
const DEPTH: usize = 8;
/// Secrets of one scan.
const SECRETS: usize = 10_000;
/// Faults that are told of one by one.
const FAULTS: usize = 100;

/// Reads what one Vault holds. It needs a login of its own, with the policy of `deploy/vault/kv-inventory.hcl`.
pub struct Reader {
    realm: String,
    kv: Kv,
    watches: Vec<Watch>,
    keys: Keyring,
    limit: DefaultDirectRateLimiter,
}

/// Nothing more can be asked now.
struct Stop;

/// One scan under way.
struct Round<'a> {
    keys: Keys,
    since: &'a HashMap<String, i64>,
    out: &'a mpsc::Sender<Changed>,
    scan: Scan,
}

impl Round<'_> {
    /// One secret was looked at.
    async fn note(&mut self, name: &str, read: Result<Option<Changed>, Failure>) -> Result<(), Stop> {
        self.scan.secrets += 1;
        match read {
            Ok(None) => Ok(()),
            Ok(Some(changed)) => {
                self.scan.changed += 1;
                self.out.send(changed).await.map_err(|_| Stop)
            }
            Err(failure) => self.fault(name.to_owned(), &failure),
        }
    }

    /// Something is left out.
    fn fault(&mut self, path: String, failure: &Failure) -> Result<(), Stop> {
        self.scan.partial = true;
        if self.scan.faults.len() < FAULTS {
            self.scan.faults.push(Fault { path, note: failure.note.clone() });
        }
        // A path that is refused is one path; what is denied, down or throttled is so for all of them.
        if failure.kind == FailureKind::Refused { Ok(()) } else { Err(Stop) }
    }
}

impl Reader {
    /// Logs in. A Vault that does not answer now is tried again in the background.
    ///
    /// # Errors
    /// As [`crate::connector::vault::connect`]; `Settings` for a watch that names nothing.
    pub async fn open(
        realm: &str,
        settings: &VaultSettings,
        clock: clock::Shared,
        watches: Vec<Watch>,
        keys: impl Into<Keyring>,
        per_second: NonZeroU32,
    ) -> Result<Self, ConnectError> {
        for watch in &watches {
            if watch.mount.is_empty() || watch.paths.iter().chain(&watch.static_roles).any(String::is_empty) {
                return Err(ConnectError::Settings("a watch names a mount and paths; `/` is the whole mount".into()));
            }
        }
        let vault: Arc<Vault> = Vault::open(realm, settings, Mode::Observe, clock).await?;
        let limit = RateLimiter::direct(Quota::per_second(per_second));
        Ok(Self { realm: realm.to_owned(), kv: Kv::new(vault, Vec::new()), watches, keys: keys.into(), limit })
    }

    /// Looks at all that is watched, and sends what has another version than `since` says (`<mount>/<path>` → version).
    /// A secret that was deleted with its metadata and written again up to the same number looks unchanged. Waits for the
    /// keys, where they are not here yet.
    pub async fn scan(&self, since: &HashMap<String, i64>, out: &mpsc::Sender<Changed>) -> Scan {
        let Some(keys) = self.keys.wait().await else { return Scan { partial: true, ..Scan::default() } };
        let mut round = Round { keys, since, out, scan: Scan::default() };
        for watch in &self.watches {
            for path in &watch.paths {
                let walked = match path.strip_suffix('/') {
                    Some(prefix) => self.walk(watch, prefix, &mut round).await,
                    None => self.secret(watch, path, &mut round).await,
                };
                if walked.is_err() {
                    round.scan.partial = true;
                    return round.scan;
                }
            }
            for role in &watch.static_roles {
                let name = format!("{}/{CREDS}{role}", watch.mount);
                let read = self.handed_out(&watch.mount, role, &name, &round).await;
                if round.note(&name, read).await.is_err() {
                    round.scan.partial = true;
                    return round.scan;
                }
            }
        }
        round.scan
    }

    /// All secrets below a prefix, without the slash at its end.
    async fn walk(&self, watch: &Watch, prefix: &str, round: &mut Round<'_>) -> Result<(), Stop> {
        let mut folders = vec![(prefix.to_owned(), 1)];
        while let Some((folder, depth)) = folders.pop() {
            self.limit.until_ready().await;
            let keys = match self.kv.list(&watch.mount, &folder).await {
                Ok(keys) => keys,
                Err(failure) => {
                    round.fault(format!("{}/{folder}/", watch.mount), &failure)?;
                    continue;
                }
            };
            let mut below = Vec::new();
            for key in keys {
                let path = if folder.is_empty() { key } else { format!("{folder}/{key}") };
                match path.strip_suffix('/') {
                    // Values that nobody reads yet.
                    Some(PENDING) => {}
                    Some(path) if depth >= DEPTH => {
                        let deep = Failure::new(FailureKind::Refused, format!("deeper than {DEPTH} folders"));
                        round.fault(format!("{}/{path}/", watch.mount), &deep)?;
                    }
                    Some(path) => below.push((path.to_owned(), depth + 1)),
                    None => self.secret(watch, &path, round).await?,
                }
            }
            folders.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// One secret: its versions, and where there is a new one its values.
    async fn secret(&self, watch: &Watch, path: &str, round: &mut Round<'_>) -> Result<(), Stop> {
        let name = format!("{}/{path}", watch.mount);
        if round.scan.secrets >= SECRETS {
            let most = Failure::new(FailureKind::Unavailable, format!("more than {SECRETS} secrets: watch fewer"));
            return round.fault(name, &most);
        }
        let read = self.changed(watch, path, &name, round).await;
        round.note(&name, read).await
    }

    /// What a static role hands out, where it was rotated since. Vault keeps no password before it.
    async fn handed_out(
        &self,
        mount: &str,
        role: &str,
        name: &str,
        round: &Round<'_>,
    ) -> Result<Option<Changed>, Failure> {
        let vault = &self.kv.vault;
        self.limit.until_ready().await;
        let Some(known) = vault.static_role(mount, role, &[]).await? else { return Ok(None) };
        if round.since.get(name) == Some(&known.version) {
            return Ok(None);
        }
        self.limit.until_ready().await;
        let Some((known, value)) = vault.static_creds(mount, role, &[]).await? else { return Ok(None) };
        let learned = Learned {
            place: format!("{}/{name}#{FIELD}", self.realm),
            version: known.version,
            current: true,
            // Its versions are the times of its rotations.
            issued_ms: Some(known.version),
            user: Some(known.user),
            fingerprints: round.keys.of(value.expose_secret()),
        };
        let values = Some(learned).filter(|learned| !learned.fingerprints.is_empty()).into_iter().collect();
        Ok(Some(Changed { secret: name.to_owned(), version: known.version, values }))
    }

    async fn changed(
        &self,
        watch: &Watch,
        path: &str,
        name: &str,
        round: &Round<'_>,
    ) -> Result<Option<Changed>, Failure> {
        self.limit.until_ready().await;
        let Some(versions) = self.kv.versions(&watch.mount, path).await? else { return Ok(None) };
        let newest = versions.newest;
        if round.since.get(name) == Some(&newest) {
            return Ok(None);
        }
        let readable = |version: &i64| versions.all.get(version) == Some(&Version::Readable);
        let before = versions.all.range(..newest).rev().map(|(version, _)| *version).find(readable);
        let mut values = Vec::new();
        for version in [Some(newest).filter(readable), before].into_iter().flatten() {
            self.limit.until_ready().await;
            // It may be gone since its metadata was read.
            if let Some(secret) = self.kv.read(&watch.mount, path, Some(version)).await? {
                values.extend(self.values(watch, name, &secret, version == newest, &round.keys));
            }
        }
        Ok(Some(Changed { secret: name.to_owned(), version: newest, values }))
    }

    /// The values of one version.
    fn values(&self, watch: &Watch, name: &str, secret: &Secret, current: bool, keys: &Keys) -> Vec<Learned> {
        let Some(fields) = secret.fields() else { return Vec::new() };
        let version = values::Version {
            secret: format!("{}/{name}", self.realm),
            version: secret.version,
            current,
            issued_ms: secret.created_ms,
            fields,
        };
        let user_field = watch.user_fields.get(name).or(watch.user_field.as_ref());
        version.learned(watch.fields.as_deref(), user_field.map(String::as_str), keys)
    }
}
