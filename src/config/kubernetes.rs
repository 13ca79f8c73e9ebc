//! Clusters of Kubernetes whose Jobs and Pods are tasks: shape and checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_saphyr::{Location, Spanned};

use super::check::Checks;
use super::file::{Millis, unplaced};
use super::problem::{Problem, said};
use super::{Http, Topic};
use crate::event::Format;
use crate::event::kubernetes::Sort;
use crate::kubernetes::Watched;

/// All namespaces.
const ALL: &str = "*";

/// One of `kubernetes`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name: it stands in the keys of runs.
    pub cluster: Spanned<String>,
    /// The uid of its namespace `kube-system`: what stands behind the kubeconfig is compared with it.
    pub uid: Spanned<String>,
    /// The topic whose tenant and authority count; of `format: kubernetes`.
    pub topic: Spanned<String>,
    /// How it is reached, and the login; absent: as the Pod that Curfew runs in.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; absent: its current one.
    #[serde(default)]
    pub context: Option<String>,
    /// Namespaces; `["*"]` is all of them.
    pub namespaces: Spanned<Vec<String>>,
    /// Which Jobs; absent: none.
    #[serde(default)]
    pub jobs: Option<Chosen>,
    /// Which Pods; absent: none.
    #[serde(default)]
    pub pods: Option<Chosen>,
    /// How often all are listed anew.
    #[serde(default = "resync")]
    pub resync: Spanned<Millis>,
}

/// `jobs`, `pods`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// A label selector; absent: all of them.
    #[serde(default)]
    pub selector: Option<Spanned<String>>,
}

fn resync() -> Spanned<Millis> {
    unplaced(Millis(600_000))
}

/// What is watched.
pub(super) fn clusters(
    c: &mut Checks<'_>,
    raw: &[Spanned<Cluster>],
    topics: &BTreeMap<String, Topic>,
    http: Option<&Http>,
) -> Vec<Watched> {
    if !raw.is_empty() && !cfg!(feature = "k8s") {
        c.wrong(raw[0].referenced, "this build is without the feature `k8s`: it watches no cluster");
    }
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    for Spanned { value: one, referenced: at, .. } in raw {
        let name = &one.cluster.value;
        if !is_name(name) || !names.insert(name) {
            let why = "`cluster` stands in the keys of runs: letters, digits, `-`, `_` and `.`, each name once";
            c.wrong(one.cluster.referenced, why);
        }
        if uuid::Uuid::try_parse(&one.uid.value).is_err() {
            let problem = Problem::new(one.uid.referenced, "`uid` is the one of the namespace `kube-system`");
            c.problems.push(problem.help("kubectl get namespace kube-system -o jsonpath='{.metadata.uid}'"));
        }
        let topic = topic(c, one, topics);
        namespaces(c, &one.namespaces);
        let sorts = [(Sort::Job, &one.jobs), (Sort::Pod, &one.pods)];
        if sorts.iter().all(|(_, chosen)| chosen.is_none()) {
            c.wrong(*at, format!("cluster {}: neither `jobs` nor `pods` are watched: `jobs: {{}}` is all", said(name)));
        }
        if one.resync.value.0 < 1_000 {
            c.wrong(one.resync.referenced, "`resync` is at least 1s");
        }
        let chosen = |(sort, chosen): (Sort, &Option<Chosen>)| {
            let selector = chosen.as_ref()?.selector.as_ref().map(|selector| selector.value.clone());
            Some((sort, selector))
        };
        let in_all = one.namespaces.value.iter().any(|one| one == ALL);
        all.push(Watched {
            cluster: name.clone(),
            uid: one.uid.value.to_ascii_lowercase(),
            topic: one.topic.value.as_str().into(),
            tenant: topic.map_or_else(|| "default".into(), |topic| topic.tenant.clone()),
            kubeconfig: one.kubeconfig.as_ref().map(|file| c.path(file)),
            context: one.context.clone(),
            namespaces: if in_all { Vec::new() } else { one.namespaces.value.clone() },
            sorts: sorts.into_iter().filter_map(chosen).collect(),
            resync_ms: one.resync.value.0,
        });
    }
    let watched: BTreeSet<&str> = raw.iter().map(|one| one.value.topic.value.as_str()).collect();
    for (name, _) in topics.iter().filter(|(_, topic)| topic.format == Format::Kubernetes) {
        if !watched.contains(name.as_str()) {
            let why = "is of `format: kubernetes`, and no cluster under `kubernetes` speaks as it";
            c.wrong(Location::UNKNOWN, format!("topic {} {why}", said(name)));
        }
        if http.is_some_and(|http| http.topic == *name || http.findings == *name) {
            c.wrong(Location::UNKNOWN, format!("topic {} is the word of a cluster: it is not HTTP's", said(name)));
        }
    }
    all
}

fn topic<'t>(c: &mut Checks<'_>, one: &Cluster, topics: &'t BTreeMap<String, Topic>) -> Option<&'t Topic> {
    let Some(topic) = topics.get(&one.topic.value) else {
        let problem = Problem::new(one.topic.referenced, format!("there is no topic {}", said(&one.topic.value)));
        c.problems.push(problem.nearest(&one.topic.value, topics.keys().map(String::as_str)));
        return None;
    };
    if topic.format != Format::Kubernetes {
        let message = format!("topic {} is not of `format: kubernetes`", said(&one.topic.value));
        let problem = Problem::new(one.topic.referenced, message);
        c.problems
            .push(problem.help("give the cluster a topic of its own: it is a name with a tenant and an authority"));
    }
    // With another pattern all that the cluster says would be refused.
    let own = format!("{}/{}/", crate::event::kubernetes::SOURCE, one.cluster.value);
    let may_speak = |pattern: &String| match pattern.strip_suffix('*') {
        Some(start) => own.starts_with(start) || start.starts_with(&own),
        None => pattern.starts_with(&own),
    };
    if topic.says.sources.as_ref().is_some_and(|sources| !sources.iter().any(may_speak)) {
        let message = format!("topic {} may not speak as {own}*", said(&one.topic.value));
        c.problems.push(Problem::new(one.topic.referenced, message).help(format!("add \"{own}*\" to its `sources`")));
    }
    Some(topic)
}

fn namespaces(c: &mut Checks<'_>, named: &Spanned<Vec<String>>) {
    let (at, names) = (named.referenced, &named.value);
    if names.is_empty() {
        c.wrong(at, "`namespaces` are opt-in: name each, or `\"*\"` for all of them");
    }
    if names.len() > 1 && names.iter().any(|one| one == ALL) {
        c.wrong(at, "`\"*\"` is all namespaces: name no other beside it");
    }
    let is_label = |name: &str| {
        let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !name.is_empty() && name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-')
    };
    if let Some(name) = names.iter().find(|name| *name != ALL && !is_label(name)) {
        c.wrong(at, format!("{} is not the name of a namespace", said(name)));
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
