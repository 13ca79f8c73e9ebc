//! Our own policies on a user: each denies what was taken as `action:`. PURE.
//!
//! Each is called after the credential that lost it, so that each case edits its own: what one gives back, another's policy
//! still denies. The names of inline policies are the same in large and small letters.

use serde_json::{Value, json};

use crate::connector::aws::name::KeyName;

/// What the policy of the user's own credential is called; with what the names of its keys' begin.
const NAME: &str = "curfew-reduced";
/// What its one statement is called.
const SID: &str = "CurfewReduced";

/// What the policy of a credential is called: of a key, or of the user itself.
pub fn name(key: Option<&KeyName>) -> String {
    key.map_or_else(|| NAME.to_owned(), |key| format!("{NAME}-{}", key.key()))
}

/// Whether a policy may be one of ours, by its name.
pub fn is_named(policy: &str) -> bool {
    let policy = policy.to_ascii_lowercase();
    policy.strip_prefix(NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The actions that a policy of ours denies, by its document. `None`: it is not as we write it.
pub fn denied(document: &str) -> Option<Vec<String>> {
    let said: Value = serde_json::from_str(document).ok()?;
    let words = said["Statement"][0]["Action"].as_array()?.iter().map(|word| word.as_str().map(str::to_owned));
    let actions: Vec<String> = words.collect::<Option<_>>()?;
    let own: Value = serde_json::from_str(&denying(&actions)).ok()?;
    (said == own && !actions.is_empty()).then_some(actions)
}

/// A policy of ours.
pub fn denying(actions: &[String]) -> String {
    let one = json!({"Sid": SID, "Effect": "Deny", "Action": actions, "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [one]}).to_string()
}
