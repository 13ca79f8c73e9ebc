//! Keyed fingerprints: how a finding and a credential are known to be one, without the secret being written anywhere.
//!
//! A [`Fingerprint`] is HMAC-SHA-256 over `curfew.fingerprint.v1`, a zero byte and the secret as [`usable()`] returns it,
//! under a key that only Curfew's processes hold. Without the key nobody can try guesses against it, and what leaked
//! from a journal or a topic says nothing about a secret. The key's id stands in it, so that keys can be replaced: two
//! live at once, every secret has a fingerprint by each, and what was matched by the older one is still matched.
//!
//! What names a credential in public, as the id of an access key does, has a fingerprint without a key, of the same shape.
//!
//! In its file a key may be wrapped by Vault's transit engine: then a process unwraps it at its start, by its own login,
//! and the file alone opens nothing. Fingerprints are made here in either case: no secret travels to be fingerprinted.

mod file;
mod keyring;
mod keys;
#[cfg(test)]
mod tests;
mod usable;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use file::{KeyFile, Made, new_key, rewrap};
pub use keyring::{Give, Keyring};
pub use keys::{BadContent, BadKeys, Keys, MAX_LIVE, MIN_KEY_BYTES};
pub(crate) use usable::normalised;
pub use usable::{MIN_BYTES, Unusable, usable};

/// The algorithm's name in events.
pub const ALGORITHM: &str = "hmac-sha256";
/// What stands before a public name.
const PUBLIC_DOMAIN: &[u8] = b"curfew.public.v1\0";
/// Bytes of a fingerprint.
const MAC_BYTES: usize = 32;
/// The longest id of a key.
const MAX_KID_BYTES: usize = 32;

/// `<kid>:<64 hex>`: which key, and the HMAC-SHA-256 under it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint {
    kid: Arc<str>,
    mac: [u8; MAC_BYTES],
}

/// Why a text is no fingerprint. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No colon.
    #[error("a fingerprint is <key id>:<64 hexadecimal digits>")]
    Shape,
    /// The key's id.
    #[error("a key's id has 1 to 32 of the characters a-z, 0-9, `.`, `_` and `-`")]
    Kid,
    /// The digits.
    #[error("a fingerprint has 64 hexadecimal digits in lower case")]
    Digits,
}

/// Whether `text` can be the id of a key.
pub fn is_kid(text: &str) -> bool {
    let is_of_it = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    (1..=MAX_KID_BYTES).contains(&text.len()) && text.bytes().all(is_of_it)
}

impl Fingerprint {
    /// Reads `<kid>:<64 hex>`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (kid, digits) = text.split_once(':').ok_or(Malformed::Shape)?;
        Self::of_parts(kid, digits)
    }

    /// Of the key's id and the 64 digits, as they stand in events.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn of_parts(kid: &str, digits: &str) -> Result<Self, Malformed> {
        if !is_kid(kid) {
            return Err(Malformed::Kid);
        }
        // One spelling: what is equal is the same text.
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Malformed::Digits);
        }
        let mut mac = [0; MAC_BYTES];
        hex::decode_to_slice(digits, &mut mac).map_err(|_| Malformed::Digits)?;
        Ok(Self { kid: kid.into(), mac })
    }

    /// What a public name of a credential is known by, such as the id of an access key. It is no secret, and producers
    /// that hold no key name it: so it is under none. In the place of a key's id stands the kind of name.
    pub(crate) fn of_public(kind: &str, name: &str) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in [PUBLIC_DOMAIN, kind.as_bytes(), b"\0", name.as_bytes()] {
            context.update(part);
        }
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(context.finish().as_ref());
        Self { kid: kind.into(), mac }
    }

    /// The id of its key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its 64 digits.
    pub fn digits(&self) -> String {
        hex::encode(self.mac)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kid, self.digits())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::parse(&text)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}
