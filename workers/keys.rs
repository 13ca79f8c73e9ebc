//! The keys of fingerprints: read from their file, and unwrapped by Vault where it wrapped them.

use std::path::Path;
use std::time::Duration;

use curfew::clock;
use curfew::config::{self, Config, Realm};
use curfew::connector::vault::transit::Transit;
use curfew::fingerprint::{BadKeys, Give, KeyFile, Keyring, Keys};

use crate::args::TransitKey;
use crate::enforce::{login, refused, vault_settings};
use crate::process::Process;
use crate::{Failed, caller};

/// How soon a Vault that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// And one that refuses.
const REFUSED: Duration = Duration::from_secs(60);
const WHAT: &str = "fingerprint keys";

/// Those of the configuration, for a process. As with realms: a Vault that does not answer now is no reason not to start;
/// the keys come later then.
pub async fn open(process: &Process) -> Result<Option<Keyring>, Failed> {
    let config = &process.config;
    let Some(settings) = &config.fingerprint else { return Ok(None) };
    let file = KeyFile::read(&settings.key_file).map_err(unusable)?;
    let Some(transit) = settings.transit.as_ref().filter(|_| file.is_wrapped()) else {
        return file.plain().map(|keys| Some(keys.into())).map_err(unusable);
    };
    let transit = of_configuration(config, transit, &process.clock).await?;
    match file.unwrapped(&transit).await {
        Ok(keys) => Ok(Some(keys.into())),
        Err(error) if error.may_pass() => {
            tracing::warn!(%error, "without its keys nothing is fingerprinted; Vault is asked again");
            let (give, keyring) = Keyring::later();
            let cancel = process.tasks.cancel.clone();
            process.tasks.spawn("keys", async move {
                tokio::select! { () = again(&file, &transit, &give) => cancel.cancelled().await, () = cancel.cancelled() => {} }
            });
            Ok(Some(keyring))
        }
        Err(error) => Err(unusable(error)),
    }
}

/// Until they are there.
async fn again(file: &KeyFile, transit: &Transit, give: &Give) {
    loop {
        tokio::time::sleep(AGAIN).await;
        match file.unwrapped(transit).await {
            Ok(keys) => {
                tracing::info!("Vault has unwrapped the fingerprint keys");
                _ = give.send(Some(keys));
                return;
            }
            Err(error) if error.may_pass() => tracing::warn!(%error, "the fingerprint keys are not unwrapped yet"),
            // A person may mend it at Vault; asking each moment does not.
            Err(error) => {
                tracing::error!(%error, "the fingerprint keys cannot be unwrapped; nothing is fingerprinted");
                tokio::time::sleep(REFUSED).await;
            }
        }
    }
}

/// Those of a file, for a command.
pub async fn read(config: &Config, file: &Path, by: Option<&TransitKey>) -> Result<Keys, Failed> {
    let file = KeyFile::read(file).map_err(unusable)?;
    if !file.is_wrapped() {
        return file.plain().map_err(unusable);
    }
    match transit(config, by).await? {
        Some(transit) => file.unwrapped(&transit).await.map_err(unusable),
        None => file.plain().map_err(unusable),
    }
}

/// The transit key that a command is about, `by` flag or as configured: with the caller's own token where there is one,
/// else with the configured login.
pub async fn transit(config: &Config, by: Option<&TransitKey>) -> Result<Option<Transit>, Failed> {
    let configured = config.fingerprint.as_ref().and_then(|settings| settings.transit.as_ref());
    let (mount, key) = match (by, configured) {
        (Some(by), _) => (&by.mount, &by.key),
        (None, Some(configured)) => (&configured.mount, &configured.key),
        (None, None) => return Ok(None),
    };
    let realm = configured.and_then(|configured| realm(config, &configured.realm)).or_else(|| caller::at(config, None));
    let clock = clock::System::shared();
    let opened = match (caller::own(realm).await?, configured) {
        (Some(own), _) => Transit::open("caller", &own, mount, key, clock).await,
        (None, Some(configured)) if by.is_none() => {
            return of_configuration(config, configured, &clock).await.map(Some);
        }
        (None, _) => {
            let help = "no token for Vault: set VAULT_ADDR and VAULT_TOKEN, or log in by `vault login`";
            return Err(Failed::Usage(help.to_owned()));
        }
    };
    opened.map(Some).map_err(|error| refused(WHAT, &error))
}

async fn of_configuration(
    config: &Config,
    transit: &config::Transit,
    clock: &clock::Shared,
) -> Result<Transit, Failed> {
    let realm = realm(config, &transit.realm);
    let realm = realm.ok_or_else(|| Failed::Data(format!("{WHAT}: there is no realm {}", transit.realm)))?;
    let settings = vault_settings(realm, login(&transit.login));
    let opened = Transit::open(&transit.realm, &settings, &transit.mount, &transit.key, clock.clone()).await;
    opened.map_err(|error| refused(WHAT, &error))
}

fn realm<'a>(config: &'a Config, name: &str) -> Option<&'a Realm> {
    config.realms.iter().find(|realm| realm.rules.name == name)
}

/// What keys that cannot be used end with.
pub fn unusable(error: BadKeys) -> Failed {
    match error {
        BadKeys::Content { .. } => Failed::Data(error.to_string()),
        BadKeys::File { .. } | BadKeys::Open { .. } | BadKeys::Changed { .. } | BadKeys::Wrapped { .. } => {
            Failed::Unavailable(error.to_string())
        }
    }
}
