//! GitLab's report of secret detection, schemas 14 and 15: without a repository and without verification.
//!
//! Not read: `cve`, which holds the plain SHA-256 of the secret, so that guesses could be tried against it; `id`, of which
//! nobody says what it is a hash of; names, messages, descriptions, `details`, `tracking`, `links`, the commit's message.

use percent_encoding::percent_decode_str;

use super::Why;
use super::finding::{Found, Secret};
use super::object::Object;
use crate::fingerprint::normalised;

/// The list of findings in a report.
pub(super) const LIST: &str = "vulnerabilities";

/// The finding in one item of a report about `repository`.
pub(super) fn found<'t>(item: Object<'t, '_>, repository: &'t str) -> Result<Found<'t>, Why> {
    let rule = item.first_of("identifiers").and_then(|primary| primary.text("value"));
    let place = item.object("location");
    // Of GitLab's scanners only that of secrets names a commit: an extract of another one is code, and no secret.
    let commit = place.and_then(|place| place.object("commit"));
    let sha = commit.and_then(|commit| commit.text("sha"));
    let (Some(rule), Some(place), Some(commit), Some(sha)) = (rule, place, commit, sha) else {
        return Err(Why::NoDetector);
    };
    // Of files without a history it is `0000000`.
    let sha = Some(sha).filter(|sha| sha.bytes().any(|b| b != b'0'));
    let mut found = Found {
        detector: rule.to_owned(),
        kind: if sha.is_some() { "git" } else { "file" },
        repo: Some(repository),
        path: place.text("file"),
        commit: sha,
        line: place.integer("start_line"),
        owner: commit.text("author"),
        severity: item.text("severity").and_then(severity),
        ..Found::default()
    };
    if let Some(extract) = item.text("raw_source_code_extract") {
        secrets(&mut found, extract);
    }
    Ok(found)
}

fn severity(word: &str) -> Option<&'static str> {
    ["critical", "high", "medium", "low", "info"].into_iter().find(|known| known.eq_ignore_ascii_case(word))
}

/// What stands in an extract: a secret, its public name, a URL with a password in it, or no more than how a key begins.
pub(super) fn secrets(found: &mut Found<'_>, extract: &str) {
    let bare = normalised(extract);
    if is_heading(bare) || found.is_public(bare) {
        return;
    }
    if let Some(password) = password(bare) {
        // As stores hold it, then as it is written.
        let decoded = percent_decode_str(password).decode_utf8().ok().filter(|decoded| decoded != password);
        found.secrets.extend(decoded.map(|decoded| Secret::new("password", &decoded)));
        found.secrets.push(Secret::new("password", password));
    }
    found.secrets.push(Secret::new("secret", extract));
}

/// `-----BEGIN RSA PRIVATE KEY-----`, and nothing of the key: all keys would have one fingerprint.
fn is_heading(text: &str) -> bool {
    let label = text.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
    label.is_some_and(|label| !label.contains("--"))
}

/// Of `scheme://user:password@host`.
fn password(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(|c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace()).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password).filter(|password| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_and_headings_of_keys() {
        for (text, wanted) in [
            ("https://random:password@endpoint.test/path", Some("password")),
            ("postgres://u:p%40ss:w@db:5432/x?a=b@c", Some("p%40ss:w")),
            ("https://token@host/x", None),
            ("https://u:@host", None),
            ("https://host:80/u:p@x", None),
            ("u:p@host", None),
        ] {
            assert_eq!(password(text), wanted, "{text}");
        }
        assert!(is_heading("-----BEGIN OPENSSH PRIVATE KEY-----"));
        for text in ["-----BEGIN X-----MIIE-----END X-----", "-----BEGIN X-----\nMIIE", "----- x", ""] {
            assert!(!is_heading(text), "{text}");
        }
    }
}
