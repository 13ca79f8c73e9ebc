//! Gitleaks v8: an array of findings, without a repository and without verification.
//!
//! Not read: `Match`, `Message`, `Link`, `Fragment` and `Description`, which quote what was found or say nothing of it; the
//! columns' ends, which tell the secret's length.

use super::Why;
use super::finding::{Found, Secret};
use super::object::Object;

/// The finding in one item of a report about `repository`.
pub(super) fn found<'t>(item: Object<'t, '_>, repository: &'t str) -> Result<Found<'t>, Why> {
    let mut found = Found {
        detector: item.text("RuleID").ok_or(Why::NoDetector)?.to_owned(),
        kind: if item.text("Commit").is_some() { "git" } else { "file" },
        repo: Some(repository),
        path: item.text("File"),
        commit: item.text("Commit"),
        line: item.integer("StartLine"),
        column: item.integer("StartColumn"),
        native_id: item.text("Fingerprint"),
        owner: item.text("Email").or(item.text("Author")),
        ..Found::default()
    };
    // Masked by `--redact` it is no secret; then the finding is known by its place.
    if let Some(secret) = item.text("Secret")
        && !found.is_public(secret.trim())
    {
        found.secrets.push(Secret::new("secret", secret));
    }
    Ok(found)
}
