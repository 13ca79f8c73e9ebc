//! What stores hold, as keyed fingerprints: so that a found value is known to be the one of a place.
//!
//! A [`vault::Reader`] has a login of its own that can only read, and reads only what is opted in. A value is hashed in
//! memory and dropped; what comes out says where it is stored, in which version, and which fingerprints it has.

pub mod alike;
#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "aws")]
pub mod secrets;
mod values;
pub mod vault;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fingerprint::Fingerprint;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The mount of a KV version 2 engine, or of a database engine.
    pub mount: String,
    /// Secrets, and prefixes that end in `/`: all below them. `/` is the whole mount.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Static roles of a database engine. Their version is the time of their last rotation.
    #[serde(default)]
    pub static_roles: Vec<String>,
    /// Only these fields; `None`: each that holds a text.
    #[serde(default)]
    pub fields: Option<Vec<String>>,
    /// The field that holds a user name, or the public id of a key: it is said as it is, and not hashed.
    #[serde(default)]
    pub user_field: Option<String>,
    /// The same, of single secrets: `<mount>/<path>` → the field.
    #[serde(default)]
    pub user_fields: BTreeMap<String, String>,
}

/// One value that a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// `<realm>/<mount>/<path>#<field>`; a field within a field is `#<field>/<field>`.
    pub place: String,
    /// The store's version.
    pub version: i64,
    /// Whether it is what consumers read, and not the value before.
    pub current: bool,
    /// When it was written.
    pub issued_ms: Option<i64>,
    /// Whose value it is, where the secret says.
    pub user: Option<String>,
    /// By each live key, the newest first.
    pub fingerprints: Vec<Fingerprint>,
}

/// A secret that was read because it has another version than the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// `<mount>/<path>`
    pub secret: String,
    /// Its newest version, readable or not: for the `since` of the next scan, when `values` are kept.
    pub version: i64,
    /// Its values, and those of the last readable version before.
    pub values: Vec<Learned>,
}

/// What a scan came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Secrets that were looked at.
    pub secrets: usize,
    /// Of these, the ones that were read.
    pub changed: usize,
    /// Whether something was left out: then what was not seen may still be there.
    pub partial: bool,
    /// What was left out, and why.
    pub faults: Vec<Fault>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `<mount>/<path>`
    pub path: String,
    /// Why, in our own words.
    pub note: String,
}
