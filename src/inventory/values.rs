//! What the fields of a secret are known by. PURE.

use serde_json::{Map, Value};

use super::Learned;
use crate::fingerprint::Keys;

/// Fields within fields that are gone into, and the fields of one secret.
const NESTED: usize = 4;
const FIELDS: usize = 256;

/// A version of a secret.
pub(super) struct Version<'a> {
    /// `<realm>/<mount>/<path>`
    pub(super) secret: String,
    /// Its number.
    pub(super) version: i64,
    /// Whether consumers read it.
    pub(super) current: bool,
    /// When it was written.
    pub(super) issued_ms: Option<i64>,
    /// Its fields.
    pub(super) fields: &'a Map<String, Value>,
}

impl Version<'_> {
    /// Its values: of the fields in `only`, or of all. What is too short or masked has no fingerprint, and is left out.
    pub(super) fn learned(&self, only: Option<&[String]>, user_field: Option<&str>, keys: &Keys) -> Vec<Learned> {
        let user = user_field.and_then(|field| self.fields.get(field)?.as_str()).map(str::to_owned);
        let wanted =
            |field: &str| user_field != Some(field) && only.is_none_or(|fields| fields.iter().any(|one| one == field));
        let mut texts = Vec::new();
        for (field, value) in self.fields.iter().filter(|(field, _)| wanted(field)) {
            gather(field.clone(), value, NESTED, &mut texts);
        }
        let learned = texts.into_iter().map(|(field, text)| Learned {
            place: format!("{}#{field}", self.secret),
            version: self.version,
            current: self.current,
            issued_ms: self.issued_ms,
            user: user.clone(),
            fingerprints: keys.of(text),
        });
        learned.filter(|learned| !learned.fingerprints.is_empty()).collect()
    }
}

/// The texts in a field: itself, or what it is made of.
fn gather<'a>(field: String, value: &'a Value, depth: usize, texts: &mut Vec<(String, &'a str)>) {
    match value {
        Value::String(text) if texts.len() < FIELDS => texts.push((field, text)),
        Value::Object(all) if depth > 0 => {
            all.iter().for_each(|(name, value)| gather(format!("{field}/{name}"), value, depth - 1, texts));
        }
        Value::Array(all) if depth > 0 => {
            all.iter().enumerate().for_each(|(at, value)| gather(format!("{field}/{at}"), value, depth - 1, texts));
        }
        _ => {}
    }
}
