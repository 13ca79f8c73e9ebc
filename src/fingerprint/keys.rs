//! The keys of fingerprints, from a file that only its owner can read.
//!
//! A line is `<kid> <key>`, the key in hexadecimal digits or base64, of at least [`MIN_KEY_BYTES`] bytes; empty lines and
//! those that begin with `#` say nothing. The first one is the newest. At most [`MAX_LIVE`] are live at once.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;

use super::{Fingerprint, is_kid, usable};

/// Bytes of a key at least.
pub const MIN_KEY_BYTES: usize = 32;
/// Keys at once: the newest, and the one before.
pub const MAX_LIVE: usize = 2;
/// A file that is larger holds something else.
const MAX_FILE_BYTES: usize = 16 * 1024;
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
    #[error("line {line}: a line is `<key id> <key in hex or base64>`")]
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
pub struct Keys(Vec<(Arc<str>, hmac::Key)>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.kids().collect::<Vec<_>>()).finish()
    }
}

impl Keys {
    /// Reads them from a file that only its owner can read.
    ///
    /// # Errors
    /// [`BadKeys`], without a word of the file.
    pub fn read(path: &Path) -> Result<Self, BadKeys> {
        let content = content(path)?;
        Self::parse(&content).map_err(|why| BadKeys::Content { path: path.to_owned(), why })
    }

    /// Reads what stands in such a file.
    ///
    /// # Errors
    /// `BadContent`, without a word of it.
    pub fn parse(content: &[u8]) -> Result<Self, BadContent> {
        let text = std::str::from_utf8(content).map_err(|_| BadContent::NoText)?;
        let mut keys: Vec<(Arc<str>, hmac::Key)> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut words = text.split_whitespace();
            let (Some(kid), Some(key), None) = (words.next(), words.next(), words.next()) else {
                return Err(BadContent::Shape { line });
            };
            if !is_kid(kid) {
                return Err(BadContent::Kid { line });
            }
            let key = decoded(key).ok_or(BadContent::Encoding { line })?;
            if key.len() < MIN_KEY_BYTES {
                return Err(BadContent::Short { line });
            }
            if keys.iter().any(|(known, _)| **known == *kid) {
                return Err(BadContent::Twice { line });
            }
            if keys.len() == MAX_LIVE {
                return Err(BadContent::TooMany { line });
            }
            keys.push((kid.into(), hmac::Key::new(hmac::HMAC_SHA256, &key)));
        }
        if keys.is_empty() { Err(BadContent::Empty) } else { Ok(Self(keys)) }
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

fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // Digits alone are digits, though base64 could be read from them as well.
    if let Ok(key) = hex::decode(text) {
        return Some(Zeroizing::new(key));
    }
    let engines: [&GeneralPurpose; 4] = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    engines.into_iter().find_map(|engine| engine.decode(text).ok()).map(Zeroizing::new)
}

fn content(path: &Path) -> Result<Zeroizing<Vec<u8>>, BadKeys> {
    let wrong = |why| BadKeys::File { path: path.to_owned(), why };
    let file = std::fs::File::open(path).map_err(wrong)?;
    let about = file.metadata().map_err(wrong)?;
    if !about.is_file() || about.mode() & 0o077 != 0 {
        return Err(BadKeys::Open { path: path.to_owned() });
    }
    // Of its full size from the start: one that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut content).map_err(wrong)?;
    if content.len() > MAX_FILE_BYTES {
        return Err(BadKeys::Content { path: path.to_owned(), why: BadContent::NoText });
    }
    Ok(content)
}

/// What [`new_key`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The id of the new key.
    pub kid: String,
    /// The id of the one before it, which stays live.
    pub kept: Option<String>,
    /// The id of the one that is live no more.
    pub dropped: Option<String>,
}

/// Puts a new random key before those of the file, or into a new file that only its owner can read. Where two are live
/// already, the oldest is dropped if `drop_oldest` says so: what only it has fingerprinted is matched no more.
///
/// # Errors
/// The file cannot be read or written, or two keys are live and none may be dropped.
pub fn new_key(path: &Path, drop_oldest: bool) -> Result<Made, BadKeys> {
    let wrong = |why| BadKeys::File { path: path.to_owned(), why };
    let before = if path.exists() { content(path)? } else { Zeroizing::default() };
    let known = match Keys::parse(&before) {
        Ok(keys) => keys.kids().map(str::to_owned).collect(),
        Err(BadContent::Empty) => Vec::new(),
        Err(why) => return Err(BadKeys::Content { path: path.to_owned(), why }),
    };
    let dropped = known.get(MAX_LIVE - 1).cloned();
    if dropped.is_some() && !drop_oldest {
        let why = BadContent::TooMany { line: MAX_LIVE + 1 };
        return Err(BadKeys::Content { path: path.to_owned(), why });
    }
    let (mut id, mut key) = ([0; 4], Zeroizing::new([0; MIN_KEY_BYTES]));
    let random = aws_lc_rs::rand::fill(&mut id).and_then(|()| aws_lc_rs::rand::fill(key.as_mut_slice()));
    random.map_err(|_| wrong(std::io::Error::other("no randomness")))?;
    // By chance, not counted: an id that was used once is not used again, whatever became of the file.
    let kid = format!("k{}", hex::encode(id));
    let mut text = Zeroizing::new(Vec::with_capacity(2 * MAX_FILE_BYTES));
    text.extend_from_slice(format!("{kid} ").as_bytes());
    text.extend_from_slice(Zeroizing::new(hex::encode(*key)).as_bytes());
    text.push(b'\n');
    let is_of = |line: &str, kid: &String| line.split_whitespace().next() == Some(kid);
    for line in std::str::from_utf8(&before).unwrap_or_default().lines() {
        if !dropped.as_ref().is_some_and(|dropped| is_of(line, dropped)) {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
    }
    replace(path, &text).map_err(wrong)?;
    Ok(Made { kid, kept: known.into_iter().next(), dropped })
}

/// All of it or nothing, also when the machine stops in the middle.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        std::fs::remove_file(&part).ok();
    }
    written
}
