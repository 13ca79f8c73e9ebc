//! Who else calls about leaked secrets: shape and checks.

use std::path::PathBuf;

use serde_saphyr::{Location, Spanned};

use super::check::Checks;
use super::file::{Millis, section, unplaced};
use super::ways::is_safe_url;
use super::{Revocations, Webhooks};
use crate::github::Api;

/// `http.gitlab`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitLab {
    /// Holds the token that GitLab sends, readable by its owner only.
    #[serde(default = "token_file")]
    pub token_file: PathBuf,
    /// The types of tokens that it may send.
    pub types: Vec<Spanned<String>>,
}

section! {
    /// `http.github`
    GitHub {
        /// Holds the webhook's secret, readable by its owner only.
        secret_file: PathBuf = "github.secret".into(),
        /// How old an event may be.
        max_age: Spanned<Millis> = unplaced(Millis(7 * 86_400_000)),
        /// Where the secrets of alerts are asked for; absent: findings have no fingerprint.
        api: Option<GitHubApi> = None,
    }
}

/// `http.github.api`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitHubApi {
    /// Its address.
    #[serde(default = "url")]
    pub url: Spanned<String>,
    /// Holds a token that may read alerts of secret scanning, readable by its owner only.
    pub token_file: PathBuf,
    /// PEM file with the authority of its certificate.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Of one call.
    #[serde(default = "timeout")]
    pub timeout: Spanned<Millis>,
    /// Whether alerts are resolved as revoked once their secret was seen dead.
    #[serde(default)]
    pub resolve: bool,
}

fn url() -> Spanned<String> {
    unplaced("https://api.github.com".to_owned())
}

fn timeout() -> Spanned<Millis> {
    unplaced(Millis(4_000))
}

fn token_file() -> PathBuf {
    "gitlab.token".into()
}

/// Without keys nothing that they send could be matched.
pub(super) fn needs_keys(c: &mut Checks<'_>, at: Location, name: &str, has_keys: bool) {
    if !has_keys {
        let why = format!("`http.{name}` needs `fingerprint.key_file`: what it sends could not be matched otherwise");
        c.wrong(at, why);
    }
}

/// GitLab's token revocation service.
pub(super) fn gitlab(c: &mut Checks<'_>, raw: &Spanned<GitLab>) -> Revocations {
    let Spanned { value: raw, referenced: at, .. } = raw;
    if raw.types.is_empty() {
        c.wrong(*at, "`http.gitlab.types` is empty: name the types of tokens that GitLab may send");
    }
    for one in &raw.types {
        let text = &one.value;
        let is_of_it = |c: char| !c.is_whitespace() && !c.is_control() && !c.is_uppercase();
        if text.is_empty() || text.len() > 255 || !text.chars().all(is_of_it) {
            let why = "a type of token is written as GitLab does: `gitleaks_rule_id_` and the rule, in lower case, with `_` for \
                each space";
            c.wrong(one.referenced, why);
        }
    }
    let types = raw.types.iter().map(|one| one.value.clone()).collect();
    Revocations { token_file: c.path(&raw.token_file), types }
}

/// GitHub's webhooks. What the journal does not remember any more must be too old to be heard again.
pub(super) fn github(c: &mut Checks<'_>, raw: &GitHub, remembered: Millis) -> Webhooks {
    if raw.max_age.value.0 < 60_000 || raw.max_age.value > remembered {
        c.wrong(raw.max_age.referenced, "`http.github.max_age` is at least 1m, and at most `retention.seen`");
    }
    let api = raw.api.as_ref().map(|api| {
        if !is_safe_url(&api.url.value) {
            c.wrong(api.url.referenced, "`http.github.api.url` is an https:// URL, or http:// on loopback");
        }
        if !(100..=8_000).contains(&api.timeout.value.0) {
            c.wrong(api.timeout.referenced, "`timeout` is 100ms to 8s: GitHub waits 10s for the answer");
        }
        Api {
            url: api.url.value.trim_end_matches('/').to_owned(),
            token_file: c.path(&api.token_file),
            ca_file: api.ca_file.as_ref().map(|file| c.path(file)),
            timeout_ms: api.timeout.value.0,
        }
    });
    let resolves = raw.api.as_ref().is_some_and(|api| api.resolve);
    Webhooks { secret_file: c.path(&raw.secret_file), max_age_ms: raw.max_age.value.0, api, resolves }
}
