//! Webhooks: shape and checks.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_saphyr::Spanned;

use super::check::Checks;
use super::file::{Millis, unplaced};
use super::problem::said;
use super::ways::is_safe_url;
use super::{Realm, Target, Webhook};

/// One of `webhooks`
#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Called {
    /// Its name.
    pub name: Spanned<String>,
    /// Where it is called.
    pub url: Spanned<String>,
    /// Holds the token that is sent as bearer, readable by its owner only.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// PEM file with the authority of its certificate.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Of one call.
    #[serde(default = "timeout")]
    pub timeout: Spanned<Millis>,
}

/// A URL may hold what only the two should know.
impl std::fmt::Debug for Called {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Called").field("name", &self.name.value).finish_non_exhaustive()
    }
}

fn timeout() -> Spanned<Millis> {
    unplaced(Millis(5_000))
}

/// Who is called.
pub(super) fn webhooks(
    c: &mut Checks<'_>,
    raw: &[Spanned<Called>],
    realms: &[Realm],
    targets: &[Target],
) -> Vec<Webhook> {
    let systems = realms.iter().map(|realm| &realm.rules.name).chain(targets.iter().map(|target| &target.name));
    let mut names: BTreeSet<&String> = systems.collect();
    let mut all = Vec::new();
    for Spanned { value: one, .. } in raw {
        if one.name.value.is_empty() || !names.insert(&one.name.value) {
            let why = "a webhook has a `name` that no other webhook, realm or target has";
            c.wrong(one.name.referenced, format!("{}: {why}", said(&one.name.value)));
        }
        if !is_safe_url(&one.url.value) {
            c.wrong(one.url.referenced, "`url` is an https:// URL, or http:// on loopback");
        }
        if !(100..=60_000).contains(&one.timeout.value.0) {
            c.wrong(one.timeout.referenced, "`timeout` is 100ms to 60s");
        }
        all.push(Webhook {
            name: one.name.value.clone(),
            url: one.url.value.clone(),
            token_file: one.token_file.as_ref().map(|file| c.path(file)),
            ca_file: one.ca_file.as_ref().map(|file| c.path(file)),
            timeout_ms: one.timeout.value.0,
        });
    }
    all
}
