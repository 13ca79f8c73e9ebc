//! Who calls a command: the Vault and the token of `VAULT_*`, as Vault's own tools take them. Never Curfew's login.

use curfew::config::{Config, Environment, Realm, ways};
use curfew::connector::vault::client::secret_file;
use curfew::connector::vault::{Auth, VaultSettings};
use secrecy::SecretString;

use crate::Failed;

/// The configuration's realm that is meant: the one at the address that is asked, else the only one.
pub fn at<'a>(config: &'a Config, address: Option<&str>) -> Option<&'a Realm> {
    match (address, config.realms.as_slice()) {
        (Some(address), realms) => realms.iter().find(|realm| realm.vault.address == address.trim_end_matches('/')),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// The Vault, and the caller's own token for it.
pub async fn vault(config: &Config) -> Result<(VaultSettings, SecretString), Failed> {
    let env = Environment::read();
    let known = at(config, env.vault_addr.as_deref());
    let token = token(&env).await?;
    let token = token
        .ok_or_else(|| Failed::Usage("no token for Vault: set VAULT_TOKEN, or log in by `vault login`".to_owned()))?;
    Ok((settings(env, known, &token)?, token))
}

/// The Vault of `realm`, or of `VAULT_ADDR`, with the caller's own token; `None`: there is no such token.
pub async fn own(realm: Option<&Realm>) -> Result<Option<VaultSettings>, Failed> {
    let env = Environment::read();
    let token = token(&env).await?;
    token.map(|token| settings(env, realm, &token)).transpose()
}

async fn token(env: &Environment) -> Result<Option<SecretString>, Failed> {
    if let Some(token) = &env.vault_token {
        return Ok(Some(token.clone()));
    }
    let file = env.home.as_ref().map(|home| home.join(".vault-token")).filter(|file| file.is_file());
    let Some(file) = file else { return Ok(None) };
    secret_file("~/.vault-token", &file).await.map(Some).map_err(|error| Failed::Usage(error.to_string()))
}

fn settings(env: Environment, known: Option<&Realm>, token: &SecretString) -> Result<VaultSettings, Failed> {
    let address = env.vault_addr.or_else(|| known.map(|realm| realm.vault.address.clone()));
    let address = address.ok_or_else(|| Failed::Usage("which Vault? Set VAULT_ADDR".to_owned()))?;
    if !ways::is_safe_url(&address) {
        return Err(Failed::Usage("VAULT_ADDR is an https:// URL, or http:// on loopback".to_owned()));
    }
    let mut settings = VaultSettings::new(address.trim_end_matches('/'), Auth::Token(token.clone()));
    settings.namespace = env.vault_namespace.or_else(|| known.and_then(|realm| realm.vault.namespace.clone()));
    settings.ca_file = env.vault_cacert.or_else(|| known.and_then(|realm| realm.vault.ca_file.clone()));
    Ok(settings)
}
