//! JSON that may hold secrets.

use secrecy::SecretString;
use secrecy::zeroize::Zeroize as _;
use serde_json::{Map, Value};

use super::Failure;
use super::recipe::{Place, Stored};
use crate::case::record::FailureKind;

/// JSON that may hold secrets: its texts are zeroed when it goes. Never printed.
pub(crate) struct Wiped(pub(crate) Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(all) => all.iter_mut().for_each(wipe),
        Value::Object(all) => all.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The fields of a stored secret.
impl Wiped {
    /// Where it has any.
    pub(crate) fn fields(&self) -> Option<&Map<String, Value>> {
        self.0.as_object()
    }

    /// The text of a field.
    ///
    /// # Errors
    /// `Refused` when it has no such field, or one that is no text.
    pub(crate) fn text(&self, field: &str) -> Result<&str, Failure> {
        let refused = |note: &str| Err(Failure::new(FailureKind::Refused, note));
        match self.fields().and_then(|fields| fields.get(field)) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => refused("the field of the stored secret is no text"),
            None => refused("the stored secret lacks the field"),
        }
    }

    /// All its fields, with these instead of what they were.
    pub(crate) fn with(&self, changes: &[(&str, &str)]) -> Self {
        let mut fields = self.fields().cloned().unwrap_or_default();
        for (field, text) in changes {
            // What was there before is zeroed as well.
            drop(fields.insert((*field).to_owned(), Value::from(*text)).map(Self));
        }
        Self(Value::Object(fields))
    }

    /// What a place holds in a version of its secret.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub(super) fn stored(&self, place: &Place, version: i64) -> Result<Stored, Failure> {
        let value = SecretString::from(self.text(&place.field)?);
        let user = place.user_field.as_ref().map(|field| self.text(field).map(str::to_owned)).transpose()?;
        Ok(Stored { version, user, value, key: None })
    }

    /// All fields of a secret, with this value at the place.
    pub(super) fn holding(&self, place: &Place, value: &str, user: Option<&str>) -> Self {
        let mut changes = vec![(place.field.as_str(), value)];
        changes.extend(place.user_field.as_deref().zip(user));
        self.with(&changes)
    }
}
