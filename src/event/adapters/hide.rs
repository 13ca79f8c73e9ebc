//! Texts of a finding without its secrets, whatever field a scanner put them into.
//!
//! A piece of a secret is hidden where it stands as it is, in base64 (any alignment, both alphabets) or in hexadecimal. A
//! text that holds one behind escapes of JSON or of URLs is hidden as a whole.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode;
use secrecy::zeroize::Zeroizing;

use crate::fingerprint::normalised;

/// So much of a secret is one.
const PIECE: usize = 12;
/// A shorter secret stands everywhere by chance.
const SHORTEST: usize = 4;
/// The longest text of an event, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// So much of a text is looked through: it is cut to far less in the end.
const MAX_READ_BYTES: usize = 8 * MAX_TEXT_BYTES;
/// What stands for what was hidden.
const HIDDEN: &str = "***";

/// What must not be said.
pub(super) struct Hide {
    /// Sorted.
    pieces: Zeroizing<Vec<[u8; PIECE]>>,
    /// Spellings of secrets that are shorter than a piece.
    short: Vec<Zeroizing<Vec<u8>>>,
}

impl Hide {
    pub(super) fn new<'s>(secrets: impl Iterator<Item = &'s str>) -> Self {
        let spellings: Vec<_> =
            secrets.map(normalised).filter(|one| one.len() >= SHORTEST).flat_map(spellings).collect();
        let (long, short): (Vec<_>, Vec<_>) = spellings.into_iter().partition(|one| one.len() >= PIECE);
        // Of its full size from the start: one that grows leaves copies behind.
        let mut pieces = Zeroizing::new(Vec::with_capacity(long.iter().map(|one| one.len()).sum()));
        for window in long.iter().flat_map(|one| one.windows(PIECE)) {
            pieces.extend(<[u8; PIECE]>::try_from(window));
        }
        pieces.sort_unstable();
        Self { pieces, short }
    }

    /// As it may be said: without secrets and control characters, of at most [`MAX_TEXT_BYTES`]. `None`: nothing is left.
    pub(super) fn text(&self, text: &str) -> Option<String> {
        let whole = &text.as_bytes()[..text.floor_char_boundary(MAX_READ_BYTES)];
        let once = unescaped(whole);
        let behind = [unescaped(&once), percent_decode(&once).collect(), percent_decode(whole).collect(), once];
        let said = if behind.iter().any(|layer| layer != whole && self.spots(layer).contains(&true)) {
            HIDDEN.to_owned()
        } else {
            masked(whole, &self.spots(whole))
        };
        tidy(&said)
    }

    /// A place, which may be a URL: as [`Self::text`], and without user, password, query and fragment.
    pub(super) fn place(&self, text: &str) -> Option<String> {
        self.text(&bare(text))
    }

    /// Which bytes belong to a secret.
    fn spots(&self, text: &[u8]) -> Vec<bool> {
        let mut spots = vec![false; text.len()];
        for (from, window) in text.windows(PIECE).enumerate() {
            if self.pieces.binary_search_by(|piece| piece.as_slice().cmp(window)).is_ok() {
                spots[from..from + PIECE].fill(true);
            }
        }
        for short in &self.short {
            for (from, window) in text.windows(short.len()).enumerate() {
                if window == short.as_slice() {
                    spots[from..from + short.len()].fill(true);
                }
            }
        }
        spots
    }
}

fn spellings(secret: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let bytes = secret.as_bytes();
    let mut all = vec![bytes.to_vec(), hex::encode(bytes).into_bytes(), hex::encode_upper(bytes).into_bytes()];
    for before in 0..3 {
        let moved = Zeroizing::new([&[0; 3][..before], bytes].concat());
        // What depends on the neighbours on either side is left out.
        let whole = (before * 8).div_ceil(6)..moved.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = Zeroizing::new(engine.encode(&*moved));
            all.push(text.as_bytes()[whole.clone()].to_vec());
        }
    }
    all.into_iter().map(Zeroizing::new).filter(|one| one.len() >= SHORTEST).collect()
}

fn masked(text: &[u8], spots: &[bool]) -> String {
    let mut out = Vec::with_capacity(text.len());
    for (at, (byte, hidden)) in text.iter().zip(spots).enumerate() {
        if !hidden {
            out.push(*byte);
        } else if at == 0 || !spots[at - 1] {
            out.extend_from_slice(HIDDEN.as_bytes());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn tidy(text: &str) -> Option<String> {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.trim();
    let end = (0..=MAX_TEXT_BYTES.min(plain.len())).rev().find(|end| plain.is_char_boundary(*end)).unwrap_or(0);
    Some(plain[..end].trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// Without the escapes of JSON: `\"`, `\n`, `\u0041`; and `\x41`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let code = |from: usize, count: usize| {
            let digits = std::str::from_utf8(after.get(from..from + count)?).ok()?;
            Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, from + count))
        };
        let (char, used) = match after {
            [b'u', ..] => code(1, 4).unwrap_or(('u', 1)),
            [b'x', ..] => code(1, 2).unwrap_or(('x', 1)),
            [b'n', ..] => ('\n', 1),
            [b'r', ..] => ('\r', 1),
            [b't', ..] => ('\t', 1),
            [other, ..] if other.is_ascii() => (char::from(*other), 1),
            _ => ('\\', 0),
        };
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &after[used..];
    }
    out
}

/// Without user, password, query and fragment. What is no URL and has no user before a host stays as it is.
fn bare(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + 3),
        None => ("", text),
    };
    let ends_host = |c: char| matches!(c, '/' | '?' | '#' | '\\');
    let host = &rest[..rest.find(ends_host).unwrap_or(rest.len())];
    // A password with a slash in it looks like a port that is no number.
    let is_torn = host.rsplit_once(':').is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()));
    let rest = match (host.rfind('@'), rest.rfind('@')) {
        (Some(at), _) => &rest[at + 1..],
        (None, Some(at)) if is_torn && !scheme.is_empty() => &rest[at + 1..],
        _ => rest,
    };
    let rest = if scheme.is_empty() { rest } else { &rest[..rest.find(['?', '#']).unwrap_or(rest.len())] };
    format!("{scheme}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_user_password_and_query() {
        for (text, wanted) in [
            ("https://github.com/o/r", "https://github.com/o/r"),
            ("https://user:pass@github.com/o/r?token=t#f", "https://github.com/o/r"),
            ("https://token@host:8443/o/r.git", "https://host:8443/o/r.git"),
            ("https://user:pa/ss@host/o", "https://host/o"),
            ("https://user:pa?ss@host/o", "https://host/o"),
            ("https://user:pa@ss@host/o", "https://host/o"),
            ("https://host/@scope/x", "https://host/@scope/x"),
            ("https://host:80/@scope/x", "https://host:80/@scope/x"),
            ("git@github.com:o/r.git", "github.com:o/r.git"),
            ("secret@github.com:o/r", "github.com:o/r"),
            ("ssh://git@host/o/r", "ssh://host/o/r"),
            ("/srv/git/o/r", "/srv/git/o/r"),
            ("node_modules/@scope/x.js", "node_modules/@scope/x.js"),
            ("dir/a?b#c", "dir/a?b#c"),
        ] {
            assert_eq!(bare(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_secret_is_hidden_in_each_spelling_and_nothing_else_is() {
        let secret = "A1a-/x+y \"q\\z&%{}0Zu7";
        let hide = Hide::new([secret, "pa5sw0rd"].into_iter());
        for (text, wanted) in [
            ("src/main.rs", Some("src/main.rs")),
            ("conf/pa5sw0rd.txt", Some("conf/***.txt")),
            ("", None),
            (" \n", None),
            ("a\nb\u{7f}", Some("a b")),
        ] {
            assert_eq!(hide.text(text).as_deref(), wanted, "{text:?}");
        }
        assert_eq!(hide.text(&format!("a/{secret}/b")).as_deref(), Some("a/***/b"));
        let url = percent_encoding::percent_encode(secret.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string();
        let json = serde_json::to_string(secret).unwrap();
        for text in [&url, &json, &serde_json::to_string(&json).unwrap()] {
            assert_eq!(hide.text(&format!("a/{text}/b")).as_deref(), Some("***"), "{text}");
        }
        assert_eq!(hide.text(&"é".repeat(1000)).map(|text| text.len()), Some(1024));
        assert_eq!(hide.text(&format!("{}x", "é".repeat(511) + "zé")).map(|text| text.len()), Some(1023));
    }
}
