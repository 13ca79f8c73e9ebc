//! What is kept of an object in memory: the few fields that are read, and never the rest.

use std::cell::Cell;

use bytes::Bytes;
use serde::de::{Deserialize, DeserializeSeed as _, Deserializer, Error as _};
use serde_json::json;

use super::super::super::tree::{self, Entries, Node, Seed};
use super::{GONE, OBJECT};

/// The deepest of what is read lies six levels down.
const DEPTH: usize = 16;

/// Which sort of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sort {
    /// `batch/v1`
    Job,
    /// `v1`
    Pod,
}

impl Sort {
    /// As it stands in the name of a task: `job/train`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Pod => "pod",
        }
    }

    /// As Kubernetes writes it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::Pod => "Pod",
        }
    }

    pub(super) fn of(kind: &str) -> Option<Self> {
        [Self::Job, Self::Pod].into_iter().find(|one| one.kind() == kind)
    }

    /// The object that the task of this name is.
    pub fn of_task(task: &str) -> Option<(Self, &str)> {
        let (sort, name) = task.split_once('/')?;
        let sort = [Self::Job, Self::Pod].into_iter().find(|one| one.as_str() == sort)?;
        (!name.is_empty()).then_some((sort, name))
    }
}

/// An object of which only what is read was kept. All else was passed over as it came, and was never a value.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Of its namespace.
    pub name: String,
    /// Where it is.
    pub namespace: String,
    /// Its own, and never another's.
    pub uid: String,
    /// Its place in the watch.
    pub version: String,
    json: String,
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let too_deep = Cell::new(false);
        let seed = Seed { room: DEPTH, too_deep: &too_deep, only: Some(&OBJECT) };
        // What the parser says quotes what it read.
        let mut node = seed.deserialize(deserializer).map_err(|_| D::Error::custom("not an object of Kubernetes"))?;
        let Node::Object(object) = &mut node else { return Err(D::Error::custom("not an object")) };
        let about = object.iter_mut().find(|(name, _)| name == "metadata");
        let Some((_, Node::Object(about))) = about else { return Err(D::Error::custom("an object without metadata")) };
        let text = |about: &Entries<'de>, field| match tree::get(about, field) {
            Some(Node::Text(text)) => text.clone().into_owned(),
            _ => String::new(),
        };
        let (name, namespace, uid) = (text(about, "name"), text(about, "namespace"), text(about, "uid"));
        let version = text(about, "resourceVersion");
        // Each change has another one: without it, what says the same is the same.
        about.retain(|(name, _)| name != "resourceVersion");
        let mut json = Vec::with_capacity(512);
        node.canonical(&mut json);
        let json = String::from_utf8(json).map_err(|_| D::Error::custom("not UTF-8"))?;
        Ok(Self { name, namespace, uid, version, json })
    }
}

/// The record of an object as it was seen; `deleted`: as it was at its deletion.
pub fn record_seen(sort: Sort, it: &Kept, deleted: bool) -> Bytes {
    let word = if deleted { "DELETED" } else { "MODIFIED" };
    format!(r#"{{"type":"{word}","kind":"{}","object":{}}}"#, sort.kind(), it.json).into()
}

/// The record of one that is not there any more: `attempt` is the last one that was known.
pub fn record_gone(sort: Sort, namespace: &str, name: &str, uid: &str, attempt: u32) -> Bytes {
    let metadata = json!({"namespace": namespace, "name": name, "uid": uid});
    json!({"type": GONE, "kind": sort.kind(), "attempt": attempt, "object": {"metadata": metadata}}).to_string().into()
}
