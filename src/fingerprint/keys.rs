//! The live keys, and what can be wrong with them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac;

use super::file::{self, KeyFile, Line, Text};
use super::{Fingerprint, usable};
use crate::connector::vault::transit::TransitError;

/// Bytes of a key at least.
pub const MIN_KEY_BYTES: usize = 32;
/// Keys at once: the newest, and the one before.
pub const MAX_LIVE: usize = 2;
/// A file that is larger holds something else.
pub(super) const MAX_FILE_BYTES: usize = 16 * 1024;
/// What stands before each value, so that the same key used for something else says nothing here.
const DOMAIN: &[u8] = b"curfew.fingerprint.v1\0";

/// Why there are no keys. Never quotes the file.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// The file cannot be read or written.
    #[error("the file of fingerprint keys {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: std::io::Error,
    },
    /// Others could read it.
    #[error("the file of fingerprint keys {path}: others may read it: `chmod 600` it")]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// What it holds.
    #[error("the file of fingerprint keys {path}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, without the content.
        why: BadContent,
    },
    /// Somebody else wrote it meanwhile: nothing was changed, since what that one wrote would be lost.
    #[error("the file of fingerprint keys {path}: it was changed meanwhile, so it was left as it is: try again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Vault does not unwrap a key of it, or not now.
    #[error("the file of fingerprint keys {path}: line {line}: {why}")]
    Wrapped {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What Vault says.
        why: TransitError,
    },
}

impl BadKeys {
    /// Whether the same may go well in a while.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Wrapped { why: TransitError::Away(_), .. })
    }
}

/// What is wrong with the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadContent {
    /// Not text, or far too much of it.
    #[error("it is no text, or larger than {MAX_FILE_BYTES} bytes")]
    NoText,
    /// No line with a key.
    #[error("it holds no key: `curfew fingerprint-key FILE` makes one")]
    Empty,
    /// Not two words.
    #[error("line {line}: a line is `<key id> <key in hex or base64, or as Vault wrapped it>`")]
    Shape {
        /// From 1.
        line: usize,
    },
    /// The key's id.
    #[error("line {line}: {}", super::Malformed::Kid)]
    Kid {
        /// From 1.
        line: usize,
    },
    /// The key.
    #[error("line {line}: the key is neither hexadecimal nor base64")]
    Encoding {
        /// From 1.
        line: usize,
    },
    /// It begins like a wrapped key, and is none.
    #[error("line {line}: a key that Vault wrapped is `vault:v<number>:<base64>`")]
    NotWrapped {
        /// From 1.
        line: usize,
    },
    /// A wrapped key, where nobody can unwrap it.
    #[error(
        "line {line}: Vault wrapped this key: say by which of its transit keys, as `fingerprint.transit` in the configuration or by `--transit MOUNT/KEY`"
    )]
    Locked {
        /// From 1.
        line: usize,
    },
    /// Nothing to wrap anew.
    #[error("it holds no key that Vault wrapped")]
    NoneWrapped,
    /// Too short.
    #[error("line {line}: a key has at least {MIN_KEY_BYTES} bytes")]
    Short {
        /// From 1.
        line: usize,
    },
    /// An id twice.
    #[error("line {line}: this key id stands twice: two keys need two ids")]
    Twice {
        /// From 1.
        line: usize,
    },
    /// More than [`MAX_LIVE`].
    #[error("line {line}: at most {MAX_LIVE} keys are live at once: remove the oldest, which stands last")]
    TooMany {
        /// From 1.
        line: usize,
    },
}

/// The live keys. Nothing prints them: aws-lc keeps only what HMAC needs of a key, and wipes it when it is dropped.
#[derive(Clone)]
pub struct Keys(Vec<(Arc<str>, Arc<hmac::Key>)>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.kids().collect::<Vec<_>>()).finish()
    }
}

impl Keys {
    /// Reads them from a file that only its owner can read, and that holds none which Vault wrapped.
    ///
    /// # Errors
    /// [`BadKeys`], without a word of the file.
    pub fn read(path: &Path) -> Result<Self, BadKeys> {
        KeyFile::read(path)?.plain()
    }

    /// Reads what stands in such a file.
    ///
    /// # Errors
    /// `BadContent`, without a word of it.
    pub fn parse(content: &[u8]) -> Result<Self, BadContent> {
        Self::of_lines(&file::lines(content)?)
    }

    /// The keys of lines, none of which is wrapped any more.
    pub(super) fn of_lines(lines: &[Line]) -> Result<Self, BadContent> {
        let plain = |line: &Line| match &line.key {
            Text::Plain(key) => Ok((line.kid.clone(), key.clone())),
            Text::Wrapped(_) => Err(BadContent::Locked { line: line.at }),
        };
        lines.iter().map(plain).collect::<Result<_, _>>().map(Self)
    }

    /// The fingerprints of a secret by each live key, by the newest first. None of what [`usable()`] refuses.
    pub fn of(&self, value: &str) -> Vec<Fingerprint> {
        let Ok(value) = usable(value) else { return Vec::new() };
        self.0.iter().map(|(kid, key)| fingerprint(kid, key, value)).collect()
    }

    /// The ids of the live keys, the newest first.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(kid, _)| &**kid)
    }
}

fn fingerprint(kid: &Arc<str>, key: &hmac::Key, value: &str) -> Fingerprint {
    let mut context = hmac::Context::with_key(key);
    context.update(DOMAIN);
    context.update(value.as_bytes());
    let mut mac = [0; super::MAC_BYTES];
    mac.copy_from_slice(context.sign().as_ref());
    Fingerprint { kid: kid.clone(), mac }
}
