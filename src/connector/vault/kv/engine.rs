//! What KV version 2 is asked: secrets, their versions, lists. Which of them, and why, is not decided here.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::super::answers::{Call, Meaning};
use super::super::client::Raw;
use super::super::rights::Need;
use super::super::{Vault, exact, odd, time_ms};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::wiped::Wiped;

/// KV version 2 engines of one Vault, through one login.
pub(crate) struct Kv {
    pub(crate) vault: Arc<Vault>,
    /// What our policy must allow; a 403 while it does is about the one secret.
    needs: Vec<Need>,
    /// Mounts that were seen to be KV version 2.
    mounts: Mutex<HashSet<String>>,
}

/// One version of a secret.
pub(crate) struct Secret {
    /// Its number.
    pub(crate) version: i64,
    /// When it was written.
    pub(crate) created_ms: Option<i64>,
    /// Its fields; `None`: it was deleted or destroyed. Zeroed when they go.
    fields: Option<Wiped>,
    /// Vault's id of the request.
    pub(crate) request_id: Option<String>,
}

/// The versions of a secret, without their values.
pub(crate) struct Versions {
    /// The newest, deleted or not.
    pub(crate) newest: i64,
    /// Each that Vault still knows.
    pub(crate) all: BTreeMap<i64, Version>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Can be read.
    Readable,
    /// Deleted, and can be taken back.
    Deleted,
    /// Nothing of it is stored any more.
    Destroyed,
}

/// What came of a write.
pub(crate) enum Written {
    /// It is the new newest version, of this number.
    Version(i64, Option<String>),
    /// Somebody else wrote before: nothing was written.
    Outdated,
}

impl Secret {
    /// Whether it has values.
    pub(crate) fn is_readable(&self) -> bool {
        self.fields.is_some()
    }

    /// Its fields, to look at.
    pub(crate) fn fields(&self) -> Option<&Map<String, Value>> {
        self.fields.as_ref()?.fields()
    }

    /// The text of a field.
    ///
    /// # Errors
    /// As [`Wiped::text`].
    pub(crate) fn text(&self, field: &str) -> Result<&str, Failure> {
        self.content()?.text(field)
    }

    /// What it holds.
    pub(super) fn content(&self) -> Result<&Wiped, Failure> {
        self.fields.as_ref().ok_or_else(|| refused("this version of the secret is deleted"))
    }
}

impl Kv {
    /// On a login, whose policy must allow `needs`.
    pub(crate) fn new(vault: Arc<Vault>, needs: Vec<Need>) -> Self {
        Self { vault, needs, mounts: Mutex::default() }
    }

    /// Whether our login may do all that it needs to.
    ///
    /// # Errors
    /// As [`Vault::check_needs`].
    pub(crate) async fn check_needs(&self) -> Result<(), Failure> {
        self.vault.check_needs(&self.needs).await
    }

    /// The newest version of a secret, or a given one. `None`: Vault knows of none.
    ///
    /// # Errors
    /// `Refused` where no KV version 2 is, or out of our policy's reach.
    pub(crate) async fn read(&self, mount: &str, path: &str, version: Option<i64>) -> Result<Option<Secret>, Failure> {
        let mut raw = Raw::get(self.path(mount, "data", path).await?);
        raw.query = version.map(|version| format!("version={version}"));
        match self.vault.ask(Call::KvRead, raw).await {
            Meaning::Done { mut data, request_id } => {
                let mut data = Wiped(data["data"].take());
                let meta = &data.0["metadata"];
                let number = meta["version"].as_i64().ok_or_else(odd)?;
                if version.is_some_and(|asked| asked != number) {
                    return Err(odd());
                }
                let created_ms = time_ms(&meta["created_time"]);
                let fields = Some(Wiped(data.0["data"].take())).filter(|fields| fields.0.is_object());
                Ok(Some(Secret { version: number, created_ms, fields, request_id }))
            }
            Meaning::Gone => {
                // An engine that was exchanged meanwhile says the same: absence has to mean something.
                self.see_mount(mount).await?;
                Ok(None)
            }
            other => Err(self.failure(other).await),
        }
    }

    /// Writes a new version, if `cas` is still the number of the newest one (0: there is none).
    ///
    /// # Errors
    /// As [`Self::read`]; `Unknown` when it may have happened.
    pub(crate) async fn write(&self, mount: &str, path: &str, fields: Wiped, cas: i64) -> Result<Written, Failure> {
        let mut fields = fields;
        let body = json!({ "options": { "cas": cas }, "data": fields.0.take() });
        let raw = Raw::post(self.path(mount, "data", path).await?, body);
        match self.vault.ask(Call::KvWrite, raw).await {
            Meaning::Done { data, request_id } => {
                Ok(Written::Version(data["data"]["version"].as_i64().ok_or_else(odd)?, request_id))
            }
            Meaning::Outdated => Ok(Written::Outdated),
            other => Err(self.failure(other).await),
        }
    }

    /// Which versions there are. `None`: Vault does not know the secret.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn versions(&self, mount: &str, path: &str) -> Result<Option<Versions>, Failure> {
        let raw = Raw::get(self.path(mount, "metadata", path).await?);
        let data = match self.vault.ask(Call::KvVersions, raw).await {
            Meaning::Done { mut data, .. } => data["data"].take(),
            Meaning::Gone => {
                self.see_mount(mount).await?;
                return Ok(None);
            }
            other => return Err(self.failure(other).await),
        };
        let now_ms = self.vault.clock.wall_ms();
        let mut all = BTreeMap::new();
        for (number, version) in data["versions"].as_object().into_iter().flatten() {
            let destroyed = version["destroyed"].as_bool().ok_or_else(odd)?;
            // A mount may let versions go by themselves: then the time lies ahead.
            let deleted = time_ms(&version["deletion_time"]).is_some_and(|at_ms| at_ms <= now_ms);
            let state = match (destroyed, deleted) {
                (true, _) => Version::Destroyed,
                (false, true) => Version::Deleted,
                (false, false) => Version::Readable,
            };
            all.insert(number.parse().map_err(|_| odd())?, state);
        }
        Ok(Some(Versions { newest: data["current_version"].as_i64().ok_or_else(odd)?, all }))
    }

    /// Says how many versions of a secret are kept, whether it is there yet or not.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) async fn keep(&self, mount: &str, path: &str, versions: u32) -> Result<(), Failure> {
        let raw = Raw::post(self.path(mount, "metadata", path).await?, json!({ "max_versions": versions }));
        self.done(Call::KvKeep, raw).await.map(drop)
    }

    /// Destroys these versions, for ever. Also what never was counts as destroyed.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) async fn destroy(&self, mount: &str, path: &str, versions: &[i64]) -> Result<(), Failure> {
        let raw = Raw::post(self.path(mount, "destroy", path).await?, json!({ "versions": versions }));
        self.done(Call::KvDestroy, raw).await.map(drop)
    }

    /// Destroys a secret with all its versions. Also what never was counts as destroyed.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) async fn forget(&self, mount: &str, path: &str) -> Result<(), Failure> {
        let raw = Raw::delete(self.path(mount, "metadata", path).await?);
        self.done(Call::KvForget, raw).await.map(drop)
    }

    /// The names below a folder, or (`""`) of the whole mount; those of folders end in `/`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn list(&self, mount: &str, folder: &str) -> Result<Vec<String>, Failure> {
        let path = match folder {
            "" => self.at(mount).await.map(|mount| format!("{mount}/metadata/"))?,
            folder => self.path(mount, "metadata", folder).await? + "/",
        };
        let data = self.done(Call::List, Raw::list(path)).await?;
        let keys: Vec<String> = data["data"]["keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if keys.is_empty() {
            self.see_mount(mount).await?;
        }
        Ok(keys)
    }

    async fn done(&self, call: Call, raw: Raw) -> Result<Value, Failure> {
        match self.vault.ask(call, raw).await {
            Meaning::Done { data, .. } => Ok(data),
            other => Err(self.failure(other).await),
        }
    }

    /// The path of one thing at a mount that was seen to be KV version 2.
    async fn path(&self, mount: &str, what: &str, path: &str) -> Result<String, Failure> {
        exact(path)?;
        self.at(mount).await.map(|mount| format!("{mount}/{what}/{path}"))
    }

    /// A mount that was seen to be KV version 2.
    async fn at<'a>(&self, mount: &'a str) -> Result<&'a str, Failure> {
        exact(mount)?;
        let known = self.mounts.lock().unwrap_or_else(PoisonError::into_inner).contains(mount);
        if !known {
            self.see_mount(mount).await?;
        }
        Ok(mount)
    }

    /// Looks whether KV version 2 answers at `mount`. Version 1 would take a write as well, and lose what was there.
    async fn see_mount(&self, mount: &str) -> Result<(), Failure> {
        let forget = || self.mounts.lock().unwrap_or_else(PoisonError::into_inner).remove(mount);
        // Needs no policy of its own: who may reach anything at the mount may ask what it is.
        let data = match self.vault.ask(Call::Mount, Raw::get(format!("sys/internal/ui/mounts/{mount}"))).await {
            Meaning::Done { mut data, .. } => data["data"].take(),
            Meaning::Forbidden => {
                forget();
                return Err(match self.check_needs().await {
                    Ok(()) => refused("Vault has no such mount, or our policy reaches nothing there"),
                    Err(failure) => failure,
                });
            }
            other => return Err(self.failure(other).await),
        };
        let kind = data["type"].as_str().unwrap_or_default();
        let fault = match (kind, data["options"]["version"].as_str()) {
            _ if data["path"].as_str().map(|path| path.trim_end_matches('/')) != Some(mount) => {
                "this is a path below a mount, and not a mount"
            }
            ("kv", Some("2")) => {
                self.mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(mount.to_owned());
                return Ok(());
            }
            ("kv" | "generic", _) => "this mount is KV version 1, which keeps no versions: upgrade it to version 2",
            _ => "another engine than KV version 2 is at this mount",
        };
        forget();
        Err(refused(fault))
    }

    async fn failure(&self, meaning: Meaning) -> Failure {
        match meaning {
            Meaning::Forbidden => self.vault.out_of_reach(&self.needs).await,
            Meaning::Failed(failure) => failure,
            Meaning::Done { .. } | Meaning::Gone | Meaning::Outdated | Meaning::Unclear(_) => odd(),
        }
    }
}

pub(super) fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}
