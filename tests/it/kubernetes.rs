//! The watch of a cluster, on the real kube-apiserver: cut, refused, pointed elsewhere, asked for what a list does not show.

use std::collections::BTreeMap;
use std::sync::Arc;

use curfew::connector::Registry;
use curfew::event::kubernetes::Sort;
use curfew::event::{Format, Says};
use curfew::intake::Intake;
use curfew::journal::{Journal, TaskFilter};
use curfew::kubernetes::Watched;
use curfew::kubernetes::watch::Watch;
use curfew::metrics::Metrics;
use curfew::task::{Phase, RunKey, Task};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, now};
use crate::stage::Stage;
use crate::store::Store;
use crate::world::{Proxy, until};

const JOBS: Sort = Sort::Job;

/// A journal, and a watch that fills it.
struct Lookout {
    cluster: Cluster,
    folder: tempfile::TempDir,
    watched: Watched,
    journal: Arc<dyn Journal>,
    intake: Intake,
    watch: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Lookout {
    async fn new(store: Store, cluster: Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        cluster.kubeconfig(&kubeconfig, None).await;
        let watched = Watched {
            cluster: "prod".into(),
            uid: cluster.uid().await,
            topic: "cluster.prod".into(),
            tenant: "default".into(),
            kubeconfig: Some(kubeconfig),
            context: None,
            namespaces: vec![cluster.namespace.clone()],
            sorts: vec![(JOBS, Some("team=ml".into()))],
            resync_ms: 1_000,
        };
        let stage = Stage::new(store, Registry::default());
        let journal = stage.open().await;
        let says = Says {
            types: Format::Kubernetes.says().iter().copied().collect(),
            sources: Some(vec!["/kubernetes/prod/*".into()]),
            ..Says::default()
        };
        let types = Some(Arc::new(BTreeMap::from([("cluster.prod".to_owned(), says)])));
        let intake = Intake { types, metrics: Arc::new(Metrics::new()), ..stage.intake(journal.clone()) };
        Self { cluster, folder, watched, journal, intake, watch: None }
    }

    fn start(&mut self) {
        let (watch, cancel) = (Watch::new(self.watched.clone(), self.intake.clone()), CancellationToken::new());
        let until = cancel.clone();
        self.watch = Some((cancel, tokio::spawn(async move { watch.run(until).await })));
    }

    async fn stop(&mut self) {
        let (cancel, watch) = self.watch.take().unwrap();
        cancel.cancel();
        watch.await.unwrap();
    }

    async fn task(&self, uid: &str) -> Option<Task> {
        let run = RunKey::new(&format!("/kubernetes/prod/{}", self.cluster.namespace), uid);
        for ended in [false, true] {
            let filter = TaskFilter { ended, unbound: false, source: None, identity: None, limit: 1_000 };
            let lines = self.journal.tasks(filter).await.unwrap();
            if let Some(line) = lines.into_iter().find(|line| line.task.run == run) {
                return Some(line.task);
            }
        }
        None
    }

    async fn is(&self, uid: &str, phase: Phase) -> Task {
        until(&format!("{uid} to be {phase:?}"), || async { self.task(uid).await.filter(|task| task.phase == phase) })
            .await
    }

    /// A Job that has begun, seen by whoever looks.
    async fn job(&self, name: &str) -> String {
        let uid = self.cluster.job(name, json!({})).await;
        self.cluster.starts(name).await;
        uid
    }

    /// The figure of one line of the page.
    fn figure(&self, line: &str) -> Option<i64> {
        let page = self.intake.metrics.render();
        page.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok())
    }

    fn listed_s(&self) -> Option<i64> {
        let (namespace, name) = (&self.cluster.namespace, "curfew_kubernetes_listed_timestamp_seconds");
        self.figure(&format!("{name}{{cluster=\"prod\",kind=\"job\",namespace=\"{namespace}\"}}"))
    }

    fn alarms(&self, alarm: &str) -> i64 {
        self.figure(&format!("curfew_alarms_total{{alarm=\"{alarm}\"}}")).unwrap_or(0)
    }

    /// Waits for two full lists: the second one began after now.
    async fn lists_anew(&self) {
        for _ in 0..2 {
            let before = self.listed_s();
            until("a full list", || async { (self.listed_s() > before).then_some(()) }).await;
        }
    }
}

over_both![
    what_happens_while_the_watch_is_cut_is_heard_of_later,
    what_a_list_does_not_show_is_asked_for_by_its_name,
    what_may_not_be_read_ends_nothing,
    what_may_not_be_asked_for_ends_nothing,
    another_cluster_ends_nothing
];

async fn what_happens_while_the_watch_is_cut_is_heard_of_later(store: Store) {
    let cluster = Cluster::new().await;
    let proxy = Proxy::to(cluster.upstream()).await;
    let mut lookout = Lookout::new(store, cluster).await;
    let kubeconfig = lookout.folder.path().join("kubeconfig");
    lookout.cluster.kubeconfig(&kubeconfig, Some(&proxy.address)).await;
    // One list, and then only the watch: what is heard of is heard of by it.
    lookout.watched.resync_ms = 3_600_000;
    let before = lookout.job("before").await;
    lookout.start();
    let began = lookout.is(&before, Phase::Running).await;
    assert_eq!(began.name.as_deref(), Some("job/before"));
    // It is heard of before the list counts as compared.
    until("a full list", || async { (lookout.listed_s() > Some(0)).then_some(()) }).await;
    let (live, over, kept) = (lookout.job("live").await, lookout.job("over").await, lookout.job("kept").await);
    for uid in [&live, &over, &kept] {
        lookout.is(uid, Phase::Running).await;
    }
    lookout.cluster.completes("over").await;
    let ended = lookout.is(&over, Phase::Ended).await;
    assert_eq!(ended.outcome.as_deref(), Some("success"));

    for round in 0..3 {
        proxy.off();
        let name = format!("unseen-{round}");
        let unseen = lookout.job(&name).await;
        lookout.cluster.delete("jobs", if round == 0 { "before" } else { "live" }, 0).await;
        proxy.on();
        lookout.is(&unseen, Phase::Running).await;
        let gone = if round == 0 { &before } else { &live };
        // Whether its deletion is in the watch's memory yet, or only missed in a list.
        let ended = lookout.is(gone, Phase::Ended).await;
        assert!(["cancelled", "unknown"].contains(&ended.outcome.as_deref().unwrap()), "{ended:?}");
        if round > 0 {
            break;
        }
    }
    lookout.is(&kept, Phase::Running).await;
    lookout.stop().await;
    assert_eq!(lookout.listed_s(), None, "who leads says how old the lists are");

    // Nobody watches; a later leader asks for what its list does not show. What it has heard of it hears of again.
    lookout.cluster.delete("jobs", "kept", 0).await;
    let heard = lookout.journal.stats(0).await.unwrap().accepted;
    lookout.start();
    let ended = lookout.is(&kept, Phase::Ended).await;
    assert_eq!((ended.outcome.as_deref(), ended.attempt), (Some("unknown"), 1));
    assert!(ended.started_ms.is_some());
    lookout.stop().await;
    let stats = lookout.journal.stats(0).await.unwrap();
    assert_eq!(stats.accepted, heard + 1, "all else was a duplicate");
    assert!(stats.duplicates > 0);
    assert_eq!(stats.consumed, stats.accepted + stats.duplicates + stats.rejected);
    assert_eq!(stats.rejected, 0);
}

async fn what_a_list_does_not_show_is_asked_for_by_its_name(store: Store) {
    let mut lookout = Lookout::new(store, Cluster::new().await).await;
    let (moved, replaced) = (lookout.job("moved").await, lookout.job("replaced").await);
    lookout.start();
    lookout.is(&moved, Phase::Running).await;
    lookout.is(&replaced, Phase::Running).await;
    let watched = lookout.job("watched").await;
    lookout.is(&watched, Phase::Running).await;
    // The selector does not choose it any more. For the watch that is a deletion, and it is none.
    let elsewhere = json!({"metadata": {"labels": {"team": "other"}}});
    lookout.cluster.patch("jobs", "watched", elsewhere.clone()).await;
    let after = lookout.job("after").await;
    lookout.is(&after, Phase::Running).await;
    lookout.cluster.delete("jobs", "after", 0).await;
    let ended = lookout.is(&after, Phase::Ended).await;
    assert_eq!(ended.outcome.as_deref(), Some("cancelled"));
    assert_eq!(lookout.task(&watched).await.unwrap().phase, Phase::Running);
    lookout.stop().await;
    lookout.cluster.patch("jobs", "moved", elsewhere).await;
    lookout.cluster.delete("jobs", "replaced", 0).await;
    let namesake = lookout.job("replaced").await;
    lookout.start();
    lookout.is(&replaced, Phase::Ended).await;
    lookout.is(&namesake, Phase::Running).await;
    lookout.lists_anew().await;
    assert_eq!(lookout.task(&moved).await.unwrap().phase, Phase::Running);
    // It is over all the same when it says so.
    lookout.cluster.completes("moved").await;
    let ended = lookout.is(&moved, Phase::Ended).await;
    assert_eq!(ended.outcome.as_deref(), Some("success"));
    lookout.stop().await;
}

async fn what_may_not_be_read_ends_nothing(store: Store) {
    let mut lookout = Lookout::new(store, Cluster::new().await).await;
    let uid = lookout.job("there").await;
    lookout.start();
    lookout.is(&uid, Phase::Running).await;
    lookout.stop().await;
    // A namespace in which it may do nothing: it is refused, not empty.
    let allowed = lookout.watched.namespaces.clone();
    lookout.watched.namespaces = vec![Cluster::bare().await.namespace];
    lookout.start();
    until("the refusal", || async { (lookout.alarms("kubernetes_refused") > 0).then_some(()) }).await;
    lookout.stop().await;
    // A login that the cluster does not know.
    lookout.watched.namespaces = allowed;
    let kubeconfig = lookout.folder.path().join("kubeconfig");
    let right = std::fs::read_to_string(&kubeconfig).unwrap();
    let token = lookout.cluster.curfew_token().await;
    let known: serde_json::Value = serde_json::from_str(&right).unwrap();
    let mut wrong = known.clone();
    wrong["users"][0]["user"]["token"] = json!(token.replace(&token[token.len() - 16..], "AAAAAAAAAAAAAAAA"));
    std::fs::write(&kubeconfig, wrong.to_string()).unwrap();
    let before = lookout.alarms("kubernetes_refused");
    lookout.start();
    until("the refusal", || async { (lookout.alarms("kubernetes_refused") > before).then_some(()) }).await;
    lookout.stop().await;
    // A cluster whose certificate nobody checks, and one by plain text.
    for (field, value) in [("insecure-skip-tls-verify", json!(true)), ("server", json!("http://192.0.2.1"))] {
        let mut wrong = known.clone();
        wrong["clusters"][0]["cluster"][field] = value;
        std::fs::write(&kubeconfig, wrong.to_string()).unwrap();
        let before = lookout.alarms("kubernetes_refused");
        lookout.start();
        until("the refusal", || async { (lookout.alarms("kubernetes_refused") > before).then_some(()) }).await;
        lookout.stop().await;
    }
    // A selector that is none.
    std::fs::write(&kubeconfig, right).unwrap();
    lookout.watched.sorts = vec![(JOBS, Some("team=(".into()))];
    let before = lookout.alarms("kubernetes_refused");
    lookout.start();
    until("the refusal", || async { (lookout.alarms("kubernetes_refused") > before).then_some(()) }).await;
    lookout.stop().await;
    assert_eq!(lookout.task(&uid).await.unwrap().phase, Phase::Running);
}

async fn what_may_not_be_asked_for_ends_nothing(store: Store) {
    let mut lookout = Lookout::new(store, Cluster::new().await).await;
    let (gone, leaves) = (lookout.job("gone").await, lookout.job("leaves").await);
    lookout.start();
    lookout.is(&gone, Phase::Running).await;
    lookout.is(&leaves, Phase::Running).await;
    lookout.stop().await;
    lookout.cluster.delete("jobs", "gone", 0).await;
    lookout.cluster.allow_lists_only().await;
    lookout.start();
    until("the refusal", || async { (lookout.alarms("kubernetes_refused") > 0).then_some(()) }).await;
    // What can be seen is seen; by its selector a deletion looks like any other change, so it is asked about as well.
    let after = lookout.job("after").await;
    lookout.is(&after, Phase::Running).await;
    let before = lookout.alarms("kubernetes_refused");
    lookout.cluster.delete("jobs", "leaves", 0).await;
    until("the refusal", || async { (lookout.alarms("kubernetes_refused") > before).then_some(()) }).await;
    assert_eq!(lookout.task(&gone).await.unwrap().phase, Phase::Running, "nobody said that it is gone");
    assert_eq!(lookout.task(&leaves).await.unwrap().phase, Phase::Running);
    assert_eq!(lookout.listed_s(), Some(0), "no list was compared");
    lookout.stop().await;
    lookout.cluster.allow().await;
    lookout.start();
    lookout.is(&gone, Phase::Ended).await;
    lookout.is(&leaves, Phase::Ended).await;
    lookout.stop().await;
}

async fn another_cluster_ends_nothing(store: Store) {
    let mut lookout = Lookout::new(store, Cluster::new().await).await;
    let uid = lookout.job("there").await;
    lookout.start();
    lookout.is(&uid, Phase::Running).await;
    lookout.stop().await;
    lookout.cluster.delete("jobs", "there", 0).await;
    let seen = lookout.job("seen").await;
    // The kubeconfig points to a cluster that is not the one that is meant, and where all of that is not.
    let meant = std::mem::replace(&mut lookout.watched.uid, uuid::Uuid::new_v4().to_string());
    lookout.start();
    until("the alarm", || async { (lookout.alarms("kubernetes_other_cluster") > 0).then_some(()) }).await;
    lookout.stop().await;
    assert_eq!(lookout.task(&uid).await.unwrap().phase, Phase::Running, "its absence there says nothing");
    assert_eq!(lookout.task(&seen).await, None, "nothing of it is read");
    lookout.watched.uid = meant;
    lookout.start();
    lookout.is(&uid, Phase::Ended).await;
    lookout.is(&seen, Phase::Running).await;
    lookout.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_in_pages() {
    let mut lookout = Lookout::new(Store::sqlite(), Cluster::new().await).await;
    lookout.watched.sorts = vec![(Sort::Pod, None)];
    // Of everywhere it may see nothing; here it sees each.
    let mut uids = Vec::new();
    for nth in 0..600 {
        uids.push(lookout.cluster.pod(&format!("p-{nth}"), json!({})).await);
        if nth % 100 == 0 {
            let status = json!({"phase": "Running", "startTime": now()});
            lookout.cluster.status("pods", &format!("p-{nth}"), status).await;
        }
    }
    lookout.start();
    for nth in (0..600).step_by(100) {
        lookout.is(&uids[nth], Phase::Running).await;
    }
    assert_eq!(lookout.task(&uids[1]).await, None, "no node has it yet");
    lookout.stop().await;
}
