//! Jobs and Pods of a cluster as tasks: watched, listed anew again and again, and compared with what the journal holds.
//!
//! [`watch`] does the talking, by `kube`; `answers` maps what it hears. What an object says is decided where every other
//! scheduler's word is ([`crate::event::kubernetes`]): it goes in as a record of its topic, with that topic's authority.
//! `gone` (PURE) says which live runs a list does not show. That alone ends nothing: each is asked for by its name, and only
//! a clear "there is no such object" of the cluster that the configuration means is an end.

#[cfg(feature = "k8s")]
mod answers;
#[cfg(any(feature = "k8s", test))]
mod gone;
#[cfg(feature = "k8s")]
mod object;
#[cfg(feature = "k8s")]
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use crate::event::kubernetes::{SOURCE, Sort};
use crate::task::Tenant;

/// A cluster, and what is watched there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Its name, as it stands in the keys of runs.
    pub cluster: String,
    /// The uid of its namespace `kube-system`, by which it is known.
    pub uid: String,
    /// The topic as which it speaks.
    pub topic: Arc<str>,
    /// Of that topic.
    pub tenant: Tenant,
    /// How it is reached; `None`: as the Pod that Curfew runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; `None`: the current one.
    pub context: Option<String>,
    /// Empty: all.
    pub namespaces: Vec<String>,
    /// Which sorts of objects, and of these which, by label selector.
    pub sorts: Vec<(Sort, Option<String>)>,
    /// How often all are listed anew.
    pub resync_ms: i64,
}

impl Watched {
    /// Below it are the sources of its runs: `/kubernetes/<cluster>`.
    pub fn source(&self) -> String {
        format!("{SOURCE}/{}", self.cluster)
    }

    /// What is watched, one list each.
    pub fn parts(&self) -> Vec<Part> {
        let namespaces: Vec<Option<&String>> = match self.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(Some).collect(),
        };
        let of = |(sort, selector): &(Sort, Option<String>)| {
            let part = |namespace: &Option<&String>| Part {
                sort: *sort,
                selector: selector.clone(),
                namespace: namespace.cloned(),
            };
            namespaces.iter().map(part).collect::<Vec<_>>()
        };
        self.sorts.iter().flat_map(of).collect()
    }
}

/// One list, and the watch that goes on from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What is listed.
    pub sort: Sort,
    /// Which of them.
    pub selector: Option<String>,
    /// Where; `None`: everywhere.
    pub namespace: Option<String>,
}

impl Part {
    /// The namespace, in figures and logs; `*`: all.
    pub fn place(&self) -> &str {
        self.namespace.as_deref().unwrap_or("*")
    }
}
