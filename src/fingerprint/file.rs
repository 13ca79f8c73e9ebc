//! The file of the keys: read by its owner alone, and written as a whole.
//!
//! A line is `<kid> <key>`, the key in hexadecimal digits or base64, of at least [`MIN_KEY_BYTES`] bytes, or as Vault's
//! transit engine wrapped it (`vault:v1:…`); empty lines and those that begin with `#` say nothing. The first one is the
//! newest. At most [`MAX_LIVE`] are live at once.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;

use super::is_kid;
use super::keys::{BadContent, BadKeys, Keys, MAX_FILE_BYTES, MAX_LIVE, MIN_KEY_BYTES};
use crate::connector::vault::transit::{Transit, TransitError};

/// One key, as its line has it.
pub(super) struct Line {
    /// From 1.
    pub at: usize,
    pub kid: Arc<str>,
    pub key: Text,
}

pub(super) enum Text {
    Plain(Arc<hmac::Key>),
    Wrapped(String),
}

/// What a file of keys holds, before Vault has unwrapped what it wrapped. Never printed.
pub struct KeyFile {
    path: PathBuf,
    lines: Vec<Line>,
}

impl KeyFile {
    /// Reads one that only its owner can read.
    ///
    /// # Errors
    /// [`BadKeys`], without a word of the file.
    pub fn read(path: &Path) -> Result<Self, BadKeys> {
        let lines = lines(&content(path)?).map_err(|why| BadKeys::Content { path: path.to_owned(), why })?;
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Whether Vault is needed.
    pub fn is_wrapped(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.key, Text::Wrapped(_)))
    }

    /// Its keys, without Vault.
    ///
    /// # Errors
    /// One is wrapped.
    pub fn plain(&self) -> Result<Keys, BadKeys> {
        Keys::of_lines(&self.lines).map_err(|why| self.wrong(why))
    }

    /// Its keys; Vault is asked for those that it wrapped.
    ///
    /// # Errors
    /// Vault does not unwrap one, or not now: [`BadKeys::may_pass`].
    pub async fn unwrapped(&self, by: &Transit) -> Result<Keys, BadKeys> {
        let mut lines = Vec::with_capacity(self.lines.len());
        for Line { at, kid, key } in &self.lines {
            let key = match key {
                Text::Plain(key) => key.clone(),
                Text::Wrapped(text) => {
                    let key = by.unwrap(text).await.map_err(|why| self.refused(*at, why))?;
                    hmac_key(&key).ok_or_else(|| self.wrong(BadContent::Short { line: *at }))?
                }
            };
            lines.push(Line { at: *at, kid: kid.clone(), key: Text::Plain(key) });
        }
        Keys::of_lines(&lines).map_err(|why| self.wrong(why))
    }

    fn wrong(&self, why: BadContent) -> BadKeys {
        BadKeys::Content { path: self.path.clone(), why }
    }

    fn refused(&self, line: usize, why: TransitError) -> BadKeys {
        BadKeys::Wrapped { path: self.path.clone(), line, why }
    }
}

/// The lines that hold keys.
pub(super) fn lines(content: &[u8]) -> Result<Vec<Line>, BadContent> {
    let text = std::str::from_utf8(content).map_err(|_| BadContent::NoText)?;
    let mut lines: Vec<Line> = Vec::new();
    for (at, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let mut words = text.split_whitespace();
        let (Some(kid), Some(key), None) = (words.next(), words.next(), words.next()) else {
            return Err(BadContent::Shape { line: at });
        };
        if !is_kid(kid) {
            return Err(BadContent::Kid { line: at });
        }
        let key = if key.starts_with(WRAPPED) {
            Text::Wrapped(wrapped(key).ok_or(BadContent::NotWrapped { line: at })?.to_owned())
        } else {
            let key = decoded(key).ok_or(BadContent::Encoding { line: at })?;
            Text::Plain(hmac_key(&key).ok_or(BadContent::Short { line: at })?)
        };
        if lines.iter().any(|known| *known.kid == *kid) {
            return Err(BadContent::Twice { line: at });
        }
        if lines.len() == MAX_LIVE {
            return Err(BadContent::TooMany { line: at });
        }
        lines.push(Line { at, kid: kid.into(), key });
    }
    if lines.is_empty() { Err(BadContent::Empty) } else { Ok(lines) }
}

/// What Vault's transit engine wrapped begins so.
const WRAPPED: &str = "vault:";

/// A text as the transit engine gives it: `vault:v<version>:<base64>`.
fn wrapped(text: &str) -> Option<&str> {
    let (version, content) = text.strip_prefix(WRAPPED)?.strip_prefix('v')?.split_once(':')?;
    let is_number = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
    (is_number && !content.is_empty() && STANDARD.decode(content).is_ok()).then_some(text)
}

fn hmac_key(bytes: &[u8]) -> Option<Arc<hmac::Key>> {
    (bytes.len() >= MIN_KEY_BYTES).then(|| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
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

/// Puts a new key before those of the file, or into a new file that only its owner can read: a random one, or one that
/// Vault made and wrapped. Where two are live already, the oldest is dropped if `drop_oldest` says so: what only it has
/// fingerprinted is matched no more.
///
/// # Errors
/// The file cannot be read or written, or two keys are live and none may be dropped.
pub fn new_key(path: &Path, drop_oldest: bool, wrapped: Option<&str>) -> Result<Made, BadKeys> {
    let wrong = |why| BadKeys::File { path: path.to_owned(), why };
    let before = if path.exists() { content(path)? } else { Zeroizing::default() };
    let known = match lines(&before) {
        Ok(lines) => lines.iter().map(|line| line.kid.to_string()).collect(),
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
    match wrapped {
        Some(wrapped) => text.extend_from_slice(wrapped.as_bytes()),
        None => text.extend_from_slice(Zeroizing::new(hex::encode(*key)).as_bytes()),
    }
    text.push(b'\n');
    let is_of = |line: &str, kid: &String| line.split_whitespace().next() == Some(kid);
    for line in std::str::from_utf8(&before).unwrap_or_default().lines() {
        if !dropped.as_ref().is_some_and(|dropped| is_of(line, dropped)) {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
    }
    replace(path, &before, &text)?;
    Ok(Made { kid, kept: known.into_iter().next(), dropped })
}

/// Has what Vault wrapped wrapped anew, by the newest version of the transit key, and writes the file. The keys stay what
/// they are, and are not seen here. Returns their ids.
///
/// # Errors
/// None is wrapped; Vault refuses; the file cannot be read or written.
pub async fn rewrap(path: &Path, by: &Transit) -> Result<Vec<String>, BadKeys> {
    let before = content(path)?;
    let lines = lines(&before).map_err(|why| BadKeys::Content { path: path.to_owned(), why })?;
    let file = KeyFile { path: path.to_owned(), lines };
    let mut anew = BTreeMap::new();
    for Line { at, kid, key } in &file.lines {
        if let Text::Wrapped(old) = key {
            let new = by.rewrap(old).await.map_err(|why| file.refused(*at, why))?;
            anew.insert(*at, (kid.to_string(), new));
        }
    }
    if anew.is_empty() {
        return Err(file.wrong(BadContent::NoneWrapped));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(2 * MAX_FILE_BYTES));
    for (at, line) in (1..).zip(std::str::from_utf8(&before).unwrap_or_default().lines()) {
        match anew.get(&at) {
            Some((kid, new)) => text.extend_from_slice(format!("{kid} {new}").as_bytes()),
            None => text.extend_from_slice(line.as_bytes()),
        }
        text.push(b'\n');
    }
    replace(path, &before, &text)?;
    Ok(anew.into_values().map(|(kid, _)| kid).collect())
}

/// Puts `new` in the place of `before`, all of it or nothing, also when the machine stops in the middle. One at a time: what
/// somebody else wrote since `before` was read is not lost.
pub(super) fn replace(path: &Path, before: &[u8], new: &[u8]) -> Result<(), BadKeys> {
    let wrong = |why| BadKeys::File { path: path.to_owned(), why };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The folder's: the file is another one after each rename. It ends with this process at the latest.
    let folder = std::fs::File::open(folder).map_err(wrong)?;
    folder.lock().map_err(wrong)?;
    let now = if path.exists() { content(path)? } else { Zeroizing::default() };
    if *now != before {
        return Err(BadKeys::Changed { path: path.to_owned() });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(wrong)?;
    let written = file.write_all(new).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        std::fs::remove_file(&part).ok();
    }
    // Else the name may still be the older file's after a power cut.
    written.and_then(|()| folder.sync_all()).map_err(wrong)
}
