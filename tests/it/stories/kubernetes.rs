//! A cluster's Jobs and Pods end, and what somebody registered for them dies, also where nobody watched. The kube-apiserver
//! is real; the tests write the statuses that its controllers and the kubelet would.

use super::*;
use crate::cluster::{Cluster, condition, now};

const HOUR_MS: i64 = 3_600_000;

struct Story {
    world: World,
    cluster: Cluster,
}

impl Story {
    async fn new() -> Self {
        let (world, cluster) = (World::new("enforce").await, Cluster::new().await);
        let path = world.folder.path().join("curfew.yaml");
        cluster.kubeconfig(&world.folder.path().join("kubeconfig"), None).await;
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["topics"] = json!({
            &world.tasks: {"sources": ["/broker"], "speaks_for": ["/kubernetes/prod/*"], "events": ["grant.registered"],
                           "strongest": "revoke"},
            "cluster.prod": {"format": "kubernetes", "sources": ["/kubernetes/prod/*"], "strongest": "revoke"},
        });
        config["kubernetes"] = json!([{
            "cluster": "prod", "uid": cluster.uid().await, "topic": "cluster.prod", "kubeconfig": "kubeconfig",
            "namespaces": [&cluster.namespace], "jobs": {"selector": "team=ml"}, "pods": {"selector": "team=ml"},
            "resync": "2s",
        }]);
        fs::write(&path, config.to_string()).unwrap();
        Self { world, cluster }
    }

    /// A credential for the run that is the object of this uid, as a broker registers it.
    async fn granted(&self, uid: String) -> Task {
        let task = Task { run: uid, ..self.world.task().await };
        let key = format!("/kubernetes/prod/{}:{}", self.cluster.namespace, task.run);
        self.world.granted(&key, &task).await;
        task
    }

    /// A Job that has begun, with a credential.
    async fn job(&self, name: &str, spec: Value) -> Task {
        let uid = self.cluster.job(name, spec).await;
        let task = self.granted(uid).await;
        self.cluster.starts(name).await;
        task
    }

    /// Waits until Curfew knows that the run is so far.
    async fn stands(&self, task: &Task, what: impl Fn(&Value) -> bool) {
        until(&format!("run {} to be so far", task.run), || async {
            let tasks = self.world.ask_json(&["tasks", "--json"]).await;
            let lines = tasks.as_array().unwrap();
            let mut runs = lines.iter().map(|line| &line["task"]);
            runs.any(|it| it["run"].as_str().unwrap().ends_with(&task.run) && what(it)).then_some(())
        })
        .await;
    }

    async fn runs(&self, task: &Task) {
        self.stands(task, |it| it["phase"] == "running").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cluster_s_jobs_and_pods_held_dies_with_them() {
    let story = Story::new().await;
    let (world, cluster) = (&story.world, &story.cluster);
    let running = world.start();
    running.runs().await;
    let done = story.job("done", json!({})).await;
    let failing = story.job("failing", json!({"activeDeadlineSeconds": 3600})).await;
    let away = story.job("away", json!({})).await;
    let done_away = story.job("done-away", json!({"ttlSecondsAfterFinished": 0})).await;
    let rests = story.job("rests", json!({"activeDeadlineSeconds": 3600})).await;
    let lives = story.job("lives", json!({})).await;
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "lives", "uid": lives.run, "controller": true});
    let try_one = story.granted(cluster.pod("try-1", json!({"metadata": {"ownerReferences": [owner]}})).await).await;
    cluster.status("pods", "try-1", json!({"phase": "Running", "startTime": now()})).await;
    for task in [&done, &failing, &away, &done_away, &rests, &lives, &try_one] {
        story.runs(task).await;
    }
    let tasks = world
        .ask_json(&["tasks", "--identity", &format!("system:serviceaccount:{}:trainer", cluster.namespace), "--json"])
        .await;
    assert_eq!(tasks.as_array().unwrap().len(), 7, "{tasks}");

    // What only looks like an end: it is to fail, it is to be deleted, it is suspended.
    cluster.targets("failing", &[("FailureTarget", "BackoffLimitExceeded")]).await;
    cluster
        .status("pods", "try-1", json!({"conditions": [condition("DisruptionTarget", "EvictionByEvictionAPI")]}))
        .await;
    cluster.delete("pods", "try-1", 60).await;
    cluster.patch("jobs", "rests", json!({"spec": {"suspend": true}})).await;
    let suspended = json!([condition("Suspended", "JobSuspended")]);
    cluster.status("jobs", "rests", json!({"startTime": null, "active": 0, "conditions": suspended})).await;
    let has =
        |it: &Value, life_ms: i64| it["deadline_ms"].as_i64().unwrap() - it["started_ms"].as_i64().unwrap() == life_ms;
    story.stands(&rests, |it| it["attempt"].as_u64().unwrap() > 1 && has(it, 24 * HOUR_MS)).await;
    cluster.completes("done").await;
    let first = [done];
    world.all_closed(&first, &running).await;
    world.assert_all_dead(&first).await;
    let [done] = first;
    let living = [failing, away, done_away, rests, lives, try_one];
    world.assert_all_alive(&living).await;
    let [failing, away, done_away, rests, lives, try_one] = living;

    // Ends: the Job failed, the Pod's containers ended, and the next try is a run of its own.
    cluster.fails("failing", "BackoffLimitExceeded").await;
    cluster.status("pods", "try-1", json!({"phase": "Failed", "reason": "Evicted"})).await;
    let try_two = story.granted(cluster.pod("try-2", json!({})).await).await;
    cluster.status("pods", "try-2", json!({"phase": "Running", "startTime": now()})).await;
    let second = [failing, try_one];
    world.all_closed(&second, &running).await;
    world.assert_all_dead(&second).await;
    let [failing, try_one] = second;

    // Nobody watches: one is deleted, one completes and is deleted as its TTL wants, one Pod is gone.
    story.runs(&try_two).await;
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    cluster.delete("jobs", "away", 0).await;
    cluster.completes("done-away").await;
    cluster.delete("jobs", "done-away", 0).await;
    cluster.delete("pods", "try-2", 0).await;
    // Its name is somebody else's now.
    let again = story.job("away", json!({})).await;
    let running = world.start();
    running.runs().await;
    let third = [away, done_away, try_two];
    world.all_closed(&third, &running).await;
    world.assert_all_dead(&third).await;
    let [away, done_away, try_two] = third;
    let living = [rests, lives, again];
    world.assert_all_alive(&living).await;
    let [rests, lives, again] = living;

    // Its time passes, and no end is heard of. The suspended one goes on: its time begins anew.
    let timed = story.job("timed", json!({"activeDeadlineSeconds": 1})).await;
    let resumed =
        json!([{"type": "Suspended", "status": "False", "reason": "JobResumed", "lastTransitionTime": now()}]);
    cluster.patch("jobs", "rests", json!({"spec": {"suspend": false}})).await;
    cluster.status("jobs", "rests", json!({"startTime": now(), "active": 1, "conditions": resumed})).await;
    story.stands(&rests, |it| it["attempt"].as_u64().unwrap() > 1 && has(it, HOUR_MS)).await;
    let fourth = [timed];
    world.all_closed(&fourth, &running).await;
    world.assert_all_dead(&fourth).await;
    let [timed] = fourth;
    let living = [rests, lives, again];
    world.assert_all_alive(&living).await;
    let [rests, lives, again] = living;
    cluster.delete("jobs", "rests", 0).await;
    let over = [done, failing, try_one, away, done_away, try_two, timed, rests];
    world.all_closed(&over, &running).await;
    world.assert_all_dead(&over).await;
    world.assert_one_end_each(&over).await;
    world.assert_all_alive(&[lives, again]).await;
    world.figures().await.assert_add_up();
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}
