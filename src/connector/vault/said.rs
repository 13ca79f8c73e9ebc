//! What Vault says of a credential, for the rules that bind it to a run. PURE, but for who is behind a token.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::{Vault, odd, run_of};
use crate::bind::rule::{self, Origin, Said};
use crate::connector::Failure;

/// Who is behind a token.
pub(super) const ENTITY: &str = "identity/lookup/entity";

/// Of a token, as its look-up describes it; `None`: it does not say how it was made.
pub(crate) fn said_of_token(token: &Value) -> Option<Said> {
    let path = token["path"].as_str()?;
    Some(Said { origin: Origin::Token(path.to_owned()), meta: fields(&token["meta"]), alias: None })
}

/// By which AppRole a token logged in, `<mount>/<role>`. Vault writes the role's name over whatever a secret_id's metadata says.
pub(super) fn role_of_token(token: &Value) -> Option<String> {
    let mount = token["path"].as_str()?.strip_prefix("auth/")?.strip_suffix("/login")?;
    Some(format!("{mount}/{}", token["meta"]["role_name"].as_str().filter(|name| !name.is_empty())?))
}

/// Of a secret_id of `<mount>/<role>`.
pub(crate) fn said_of_secret_id(role: &str, meta: &Value) -> Said {
    Said { origin: Origin::SecretId(role.to_owned()), meta: fields(meta), alias: None }
}

/// Only texts: what else there is names nothing.
fn fields(meta: &Value) -> BTreeMap<String, String> {
    let all = meta.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// What an entity's alias at the mount of `token`'s login was given as custom metadata, by the administrator's word. What
/// logins write beside it is of the last login, and that may be another one's: it is not taken. Nor is what was changed
/// since the token was made.
fn of_alias(entity: &Value, token: &Value) -> Option<BTreeMap<String, String>> {
    let (path, issued) = (token["path"].as_str()?, moment(&token["issue_time"])?);
    let here = |alias: &&Value| {
        alias["mount_path"].as_str().is_some_and(|mount| mount.starts_with("auth/") && path.starts_with(mount))
    };
    let mut aliases = entity["aliases"].as_array()?.iter().filter(here);
    let (alias, None) = (aliases.next()?, aliases.next()) else { return None };
    (moment(&alias["last_update_time"])? <= issued).then(|| fields(&alias["custom_metadata"]))
}

fn moment(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

impl Vault {
    /// The run that a credential's metadata names: by the rules, else in a field of ours.
    pub(super) fn named(&self, said: &Said, meta: &Value) -> Option<String> {
        let bound = rule::bind(&self.settings.bindings, said);
        bound.map(|bound| bound.run.as_str().to_owned()).or_else(|| run_of(meta))
    }

    /// What `said` lacks: the metadata of the alias behind a token.
    pub(crate) async fn with_alias(&self, said: Said, token: &Value) -> Result<Said, Failure> {
        let Some(entity) = token["entity_id"].as_str().filter(|id| !id.is_empty()) else { return Ok(said) };
        match self.ask(Call::EntityLookup, Raw::post(ENTITY, json!({ "id": entity }))).await {
            Meaning::Done { data, .. } => Ok(Said { alias: of_alias(&data["data"], token), ..said }),
            Meaning::Gone => Ok(said),
            Meaning::Forbidden => Err(self.forbidden(&[ENTITY.to_owned()]).await),
            Meaning::Failed(failure) => Err(failure),
            Meaning::Outdated | Meaning::Unclear(_) => Err(odd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUED: &str = "2026-09-01T10:00:00.5Z";

    fn token() -> Value {
        json!({ "path": "auth/userpass/login/ana", "issue_time": ISSUED, "meta": null, "entity_id": "e" })
    }

    fn entity(mounts: &[(&str, &str)]) -> Value {
        let alias = |(mount, at): &(&str, &str)| {
            json!({ "mount_path": mount, "last_update_time": at, "metadata": { "run": "of-a-login" },
                    "custom_metadata": { "run": "1", "n": 7 } })
        };
        json!({ "id": "e", "aliases": mounts.iter().map(alias).collect::<Vec<_>>() })
    }

    #[test]
    fn an_alias_speaks_for_what_was_made_after_it_was_written_and_by_its_mount() {
        let given = BTreeMap::from([("run".to_owned(), "1".to_owned())]);
        let of = |mounts: &[(&str, &str)]| of_alias(&entity(mounts), &token());
        assert_eq!(of(&[("auth/userpass/", ISSUED)]), Some(given.clone()));
        assert_eq!(of(&[("auth/ldap/", ISSUED), ("auth/userpass/", "2026-09-01T09:00:00Z")]), Some(given));
        // Changed since: it may be the next run's.
        assert_eq!(of(&[("auth/userpass/", "2026-09-01T10:00:00.500000001Z")]), None);
        assert_eq!(of(&[("auth/userpass/", "never")]), None);
        assert_eq!(of(&[("auth/ldap/", ISSUED)]), None);
        assert_eq!(of(&[("auth/userpass/", ISSUED), ("auth/userpass/", ISSUED)]), None);
        assert_eq!(of_alias(&json!({}), &token()), None);
    }

    #[test]
    fn a_token_says_by_which_approle_it_logged_in() {
        let of = |path: &str, meta: Value| role_of_token(&json!({ "path": path, "meta": meta }));
        assert_eq!(of("auth/team/approle/login", json!({ "role_name": "etl" })).as_deref(), Some("team/approle/etl"));
        for (path, meta) in [
            ("auth/token/create", json!({ "role_name": "etl" })),
            ("auth/approle/login", json!({ "role": "etl" })),
            ("auth/approle/login", json!({ "role_name": "" })),
            ("auth/approle/login", Value::Null),
        ] {
            assert_eq!(of(path, meta), None, "{path}");
        }
    }

    #[test]
    fn only_texts_are_fields() {
        let said = said_of_token(&json!({ "path": "p", "meta": { "a": "b", "c": 1, "d": null } })).unwrap();
        assert_eq!(said.meta, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert!(said_of_token(&json!({ "path": "p", "meta": null })).unwrap().meta.is_empty());
        assert_eq!(said_of_token(&json!({ "meta": {} })), None);
    }
}
