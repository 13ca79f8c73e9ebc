//! The transit engine: it wraps keys that it made, and unwraps them for whoever may; its own keys it never gives away.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::{ConnectError, Vault, VaultSettings, exact, odd};
use crate::case::record::FailureKind;
use crate::clock;
use crate::connector::Failure;
use crate::connector::wiped::Wiped;
use crate::guard::Mode;

/// One key of a transit engine, through one login: the policy of `deploy/vault/fingerprint-transit.hcl`, and for who makes
/// keys that of `fingerprint-transit-make.hcl`.
pub struct Transit {
    vault: Arc<Vault>,
    mount: String,
    key: String,
}

/// Why nothing was wrapped or unwrapped. Holds no word of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitError {
    /// It does not answer, is sealed, or too busy.
    #[error("Vault does not unwrap keys now ({}): start or unseal it", .0.note)]
    Away(Failure),
    /// It refuses the login, or is the wrong one.
    #[error("{0}")]
    Login(String),
    /// The login lacks the right.
    #[error(
        "the login has no right to `update` {path}: look at deploy/vault/fingerprint-transit.hcl (-make.hcl for new keys)"
    )]
    NoRight {
        /// What was asked.
        path: String,
    },
    /// No such key there.
    #[error("Vault has no transit key {key} at {mount}: name the one that wrapped it")]
    NoKey {
        /// The engine's mount.
        mount: String,
        /// The key.
        key: String,
    },
    /// The version of the transit key that wrapped it opens nothing any more.
    #[error(
        "it was wrapped by a version of the transit key that opens nothing any more: lower its `min_decryption_version`, run `curfew fingerprint-key FILE --rewrap`, and raise it again"
    )]
    Retired,
    /// It never will: another key wrapped it, it is damaged, or the transit key is of the wrong kind.
    #[error("{}", .0.note)]
    Refused(Failure),
}

impl Transit {
    /// Logs in. A Vault that does not answer now is asked again by each call.
    ///
    /// # Errors
    /// As [`super::connect`]; `Settings` for names that no key has.
    pub async fn open(
        realm: &str,
        settings: &VaultSettings,
        mount: &str,
        key: &str,
        clock: clock::Shared,
    ) -> Result<Self, ConnectError> {
        let mount = mount.trim_matches('/').to_owned();
        if key.contains('/') || exact(&format!("{mount}/{key}")).is_err() {
            return Err(ConnectError::Settings("a transit key is named by its engine's mount and its own name".into()));
        }
        Ok(Self { vault: Vault::open(realm, settings, Mode::Observe, clock).await?, mount, key: key.to_owned() })
    }

    /// What stands behind `wrapped`.
    ///
    /// # Errors
    /// [`TransitError`].
    pub async fn unwrap(&self, wrapped: &str) -> Result<Zeroizing<Vec<u8>>, TransitError> {
        let body = json!({ "ciphertext": wrapped });
        let mut data = self.ask(Call::TransitDecrypt, "decrypt", body).await?;
        let Value::String(text) = data.0["data"]["plaintext"].take() else { return Err(TransitError::Away(odd())) };
        let text = Zeroizing::new(text);
        STANDARD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| TransitError::Away(odd()))
    }

    /// A new random key of 256 bits, wrapped: nobody sees it before it is unwrapped.
    ///
    /// # Errors
    /// [`TransitError`].
    pub async fn new_wrapped(&self) -> Result<String, TransitError> {
        self.wrapped("datakey/wrapped", json!({ "bits": 256 })).await
    }

    /// The same, wrapped by the newest version of the transit key. Vault does not show it.
    ///
    /// # Errors
    /// [`TransitError`].
    pub async fn rewrap(&self, wrapped: &str) -> Result<String, TransitError> {
        self.wrapped("rewrap", json!({ "ciphertext": wrapped })).await
    }

    async fn wrapped(&self, what: &str, body: Value) -> Result<String, TransitError> {
        let data = self.ask(Call::TransitWrap, what, body).await?;
        // One word of a line, whatever answered.
        let text = data.0["data"]["ciphertext"].as_str().filter(|text| text.bytes().all(|b| b.is_ascii_graphic()));
        text.map(str::to_owned).ok_or_else(|| TransitError::Away(odd()))
    }

    async fn ask(&self, call: Call, what: &str, body: Value) -> Result<Wiped, TransitError> {
        let path = format!("{}/{what}/{}", self.mount, self.key);
        match self.vault.ask(call, Raw::post(path.as_str(), body)).await {
            Meaning::Done { data, .. } => Ok(Wiped(data)),
            Meaning::Forbidden => Err(TransitError::NoRight { path }),
            Meaning::Gone => Err(TransitError::NoKey { mount: self.mount.clone(), key: self.key.clone() }),
            Meaning::Outdated => Err(TransitError::Retired),
            Meaning::Unclear(_) => Err(TransitError::Away(odd())),
            Meaning::Failed(failure) => Err(match failure.kind {
                FailureKind::Unavailable | FailureKind::Throttled { .. } | FailureKind::Unknown => {
                    TransitError::Away(failure)
                }
                FailureKind::Denied => TransitError::Login(failure.note),
                FailureKind::Refused | FailureKind::Gone | FailureKind::Rejected => TransitError::Refused(failure),
            }),
        }
    }
}
