//! Reads the secrets of AWS Secrets Manager that are opted in: lists first, values only where a secret has other versions or
//! labels than before.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;

use super::{Changed, Fault, Learned, Scan, values};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::aws::secrets::{CURRENT, Listed, PREVIOUS, Secrets};
use crate::connector::recipe::SECRETS_MANAGER;
use crate::fingerprint::{Keyring, Keys};

/// Secrets of one scan.
const SECRETS: usize = 10_000;
/// Faults that are told of one by one.
const FAULTS: usize = 100;

/// Reads what one account holds in one Region. It needs a login of its own, with the policy of `deploy/aws/inventory.json`.
pub struct Reader {
    secrets: Secrets,
    watched: Vec<String>,
    user_fields: BTreeMap<String, String>,
    keys: Keyring,
    limit: DefaultDirectRateLimiter,
}

impl Reader {
    /// `watched`: names of secrets, and prefixes that end in `/`. `user_fields` as in [`super::Watch`].
    pub fn new(
        secrets: Secrets,
        watched: Vec<String>,
        user_fields: BTreeMap<String, String>,
        keys: impl Into<Keyring>,
        per_second: NonZeroU32,
    ) -> Self {
        let limit = RateLimiter::direct(Quota::per_second(per_second));
        Self { secrets, watched, user_fields, keys: keys.into(), limit }
    }

    /// Looks at all that is watched, and sends what is not as `since` says (`secretsmanager/<name>` → a digest of its
    /// versions and labels). Waits for the keys, where they are not here yet.
    pub async fn scan(&self, since: &HashMap<String, i64>, out: &mpsc::Sender<Changed>) -> Scan {
        let mut scan = Scan::default();
        let Some(keys) = self.keys.wait().await else { return Scan { partial: true, ..scan } };
        for watched in &self.watched {
            let mut page = None;
            loop {
                self.limit.until_ready().await;
                let (listed, next) = match self.secrets.listed(watched, page.take()).await {
                    Ok(answer) => answer,
                    Err(failure) => {
                        fault(&mut scan, format!("{SECRETS_MANAGER}/{watched}"), &failure);
                        return scan;
                    }
                };
                for secret in listed {
                    if self.secret(&secret, &keys, since, out, &mut scan).await.is_err() {
                        scan.partial = true;
                        return scan;
                    }
                }
                match next {
                    Some(next) => page = Some(next),
                    None => break,
                }
            }
        }
        scan
    }

    /// One secret. An error: nothing more can be asked now.
    async fn secret(
        &self,
        secret: &Listed,
        keys: &Keys,
        since: &HashMap<String, i64>,
        out: &mpsc::Sender<Changed>,
        scan: &mut Scan,
    ) -> Result<(), ()> {
        let name = format!("{SECRETS_MANAGER}/{}", secret.name);
        if scan.secrets >= SECRETS {
            let most = Failure::new(FailureKind::Unavailable, format!("more than {SECRETS} secrets: watch fewer"));
            fault(scan, name, &most);
            return Err(());
        }
        scan.secrets += 1;
        if since.get(&name) == Some(&secret.digest) {
            return Ok(());
        }
        match self.values(secret, &name, keys).await {
            Ok(values) => {
                scan.changed += 1;
                let changed = Changed { secret: name, version: secret.digest, values };
                out.send(changed).await.map_err(|_| ())
            }
            Err(failure) => {
                fault(scan, name, &failure);
                // A secret that is refused is one secret; what is denied, down or throttled is so for all of them.
                if failure.kind == FailureKind::Refused { Ok(()) } else { Err(()) }
            }
        }
    }

    /// The values that consumers read, and those before them.
    async fn values(&self, secret: &Listed, name: &str, keys: &Keys) -> Result<Vec<Learned>, Failure> {
        let mut all = Vec::new();
        for label in [CURRENT, PREVIOUS].into_iter().filter(|label| secret.labels.contains(*label)) {
            self.limit.until_ready().await;
            let Some(found) = self.secrets.labelled(&secret.name, label).await? else { continue };
            let Some(fields) = found.content.fields() else { continue };
            let version = values::Version {
                secret: format!("{}/{name}", self.secrets.target()),
                version: found.number,
                current: label == CURRENT,
                issued_ms: Some(found.number),
                fields,
            };
            all.extend(version.learned(None, self.user_fields.get(name).map(String::as_str), keys));
        }
        Ok(all)
    }
}

fn fault(scan: &mut Scan, path: String, failure: &Failure) {
    scan.partial = true;
    if scan.faults.len() < FAULTS {
        scan.faults.push(Fault { path, note: failure.note.clone() });
    }
}
