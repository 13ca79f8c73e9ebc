//! Who else calls about leaked secrets: shape and checks.

use std::path::PathBuf;

use serde_saphyr::{Location, Spanned};

use super::Revocations;
use super::check::Checks;

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
