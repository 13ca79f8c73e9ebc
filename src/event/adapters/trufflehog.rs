//! TruffleHog v3: one finding a line, perhaps verified.
//!
//! Not read: `StructuredData`, links, and of `ExtraData` all but what is named here: detectors put whole answers of
//! providers there. `Verified: false` also means that nobody tried, so it is `unknown`, as is a check that failed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;

use super::Why;
use super::finding::{Found, Secret};
use super::object::Object;
use crate::finding::Validity;

/// What sources call a repository, and what else is one.
const REPOSITORIES: [&str; 9] =
    ["repository", "bucket", "image", "project_name", "project", "package", "space", "channel_name", "index"];
/// What they call a file.
const PATHS: [&str; 6] = ["file", "filename", "path", "page", "issue", "document_id"];
/// The detector of rules that its user wrote.
const CUSTOM: &str = "CustomRegex";
/// Parts of one secret: a scanner names a handful, and each is looked for in each text.
const MAX_PARTS: usize = 64;
/// Parts of secrets whose name says that they are one; others follow.
const SECRET_WORDS: [&str; 6] = ["secret", "token", "password", "private", "key", "credential"];

/// The finding on one line; `repository` where it names none. `None`: a line of TruffleHog's log.
pub(super) fn found<'t>(item: Object<'t, '_>, repository: Option<&'t str>) -> Result<Option<Found<'t>>, Why> {
    let Some(detector) = item.text("DetectorName") else {
        let is_log = item.text("level").is_some() && item.text("msg").is_some();
        return if is_log { Ok(None) } else { Err(Why::NoDetector) };
    };
    let extra = item.object("ExtraData");
    let source = item.object("SourceMetadata").and_then(|meta| meta.object("Data"));
    let (kind, place) = source.and_then(Object::first_object).unzip();
    let of = |names: &[&str]| names.iter().find_map(|name| place?.text(name));
    let mut found = Found {
        detector: match extra.and_then(|extra| extra.text("name")) {
            Some(name) if detector == CUSTOM => format!("{CUSTOM}/{name}"),
            _ => detector.to_owned(),
        },
        kind: kind.filter(|kind| is_word(kind)).unwrap_or("unknown"),
        repo: of(&REPOSITORIES).or(repository),
        path: of(&PATHS),
        commit: of(&["commit", "layer"]),
        line: place.and_then(|place| place.integer("line")),
        owner: of(&["email"]),
        validity: if item.is_true("Verified") { Validity::Active } else { Validity::Unknown },
        ..Found::default()
    };
    if let Some(extra) = extra {
        identify(&mut found, extra);
    }
    if item.object("SecretParts").is_some_and(|parts| parts.texts().count() > MAX_PARTS) {
        return Err(Why::TooMany);
    }
    secrets(&mut found, item);
    Ok(Some(found))
}

/// The name of a kind of source, and nothing else that could stand there.
fn is_word(text: &str) -> bool {
    text.len() <= 20 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What `ExtraData` names, each only where it looks like what it is called.
fn identify(found: &mut Found<'_>, extra: Object<'_, '_>) {
    let is_account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    let is_user = |text: &str| {
        (16..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    let arn = extra.text("arn").filter(|arn| is_arn(arn));
    // Thinkst's honeytokens; older versions did not say so.
    found.honeytoken = extra.is_true("is_canary") || arn.is_some_and(|arn| arn.contains("canarytokens.com"));
    if let Some(account) = extra.text("account").filter(|text| is_account(text)) {
        found.identify("aws_account", account);
    }
    if let Some(arn) = arn {
        found.identify("aws_arn", arn);
    }
    if let Some(user) = extra.text("user_id").filter(|text| is_user(text)) {
        found.identify("aws_user_id", user);
    }
}

fn is_arn(text: &str) -> bool {
    let is_of_it = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@/:-".contains(&b);
    text.len() <= 512 && text.starts_with("arn:aws") && text.split(':').count() >= 6 && text.bytes().all(is_of_it)
}

/// The parts where they are split, else the whole; public parts of them become identifiers.
fn secrets(found: &mut Found<'_>, item: Object<'_, '_>) {
    if let Some(redacted) = item.text("Redacted") {
        found.is_public(redacted);
    }
    let parts: Vec<(&str, &str)> = item.object("SecretParts").into_iter().flat_map(Object::texts).collect();
    let is_named_so = |name: &str| SECRET_WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word));
    let (named, others): (Vec<_>, Vec<_>) = parts.iter().partition(|(name, _)| is_named_so(name));
    for (name, value) in named.into_iter().chain(others) {
        if !found.is_public(value) {
            found.secrets.push(Secret::new(name, value));
        }
    }
    let is_split = found.secrets.iter().any(|secret| crate::fingerprint::usable(&secret.value).is_ok());
    // They are to be hidden in any case.
    let mut whole: Vec<Secret> = Vec::new();
    for (part, value) in [("raw_v2", item.text("RawV2")), ("raw", item.text("Raw"))] {
        let Some(value) = value else { continue };
        // The first versions of v3 wrote the bytes in base64. They did not name a decoder; whether one that does not is so
        // old is not known, so both readings count.
        let old = item.text("DecoderName").is_none().then(|| decoded(value)).flatten();
        for value in old.as_deref().map(String::as_str).into_iter().chain([value]) {
            match value.split_once(':') {
                Some((id, secret)) if !secret.is_empty() && found.is_public(id) => {
                    whole.push(Secret::new("secret_access_key", secret));
                }
                // Then its base64 is public as well.
                _ if found.is_public(value) => break,
                _ => whole.push(Secret::new(part, value)),
            }
        }
    }
    if is_split {
        // After the parts: where there is room, the whole is fingerprinted as well.
        found.secrets.append(&mut whole);
    } else {
        whole.append(&mut found.secrets);
        found.secrets = whole;
    }
}

fn decoded(value: &str) -> Option<Zeroizing<String>> {
    let bytes = Zeroizing::new(STANDARD.decode(value).ok()?);
    let text = std::str::from_utf8(&bytes).ok()?;
    let is_text = text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    (is_text && !text.is_empty()).then(|| Zeroizing::new(text.to_owned()))
}
