//! A cluster's objects with a secret wherever their owners may write one: it is seen, and does not go on.

use super::scans::Lab;
use super::*;
use crate::cluster::{Cluster, condition, now};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_job_or_pod_goes_on() {
    let cluster = Cluster::new().await;
    let folder = tempfile::tempdir().unwrap();
    let token = cluster.kubeconfig(&folder.path().join("kubeconfig"), None).await;
    let topics = "  cluster.prod: {format: kubernetes, strongest: track}\n";
    let more = format!(
        "kubernetes:\n  - {{cluster: prod, uid: {}, topic: cluster.prod, kubeconfig: kubeconfig, namespaces: [{}],\n     \
         jobs: {{}}, pods: {{}}, resync: 1s}}\n",
        cluster.uid().await,
        cluster.namespace
    );
    let secret = made_up("c4nary/+");
    let container = json!({
        "name": "c", "image": format!("registry.test/{}", secret.to_lowercase().replace(['/', '+'], "-")),
        "args": ["--password", &secret], "command": [&secret],
        "env": [{"name": "TOKEN", "value": &secret}, {"name": "OTHER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    });
    let marked = json!({"annotations": {"note": &secret, "last-applied": format!("{{\"password\": \"{secret}\"}}")}});
    let template = json!({"metadata": marked.clone(), "spec": {"containers": [container.clone()]}});
    // Before Curfew is there, for its list; and what follows, for its watch.
    cluster.job("listed", json!({"template": template.clone()})).await;
    cluster.patch("jobs", "listed", json!({"metadata": marked.clone()})).await;
    let mut lab = Lab::start_in(folder, topics, &more).await;
    cluster.job("watched", json!({"template": template})).await;
    cluster.patch("jobs", "watched", json!({"metadata": marked.clone()})).await;
    for job in ["listed", "watched"] {
        cluster.starts(job).await;
    }
    let pod = json!({"metadata": marked, "spec": {"containers": [container]}});
    cluster.pod("try", pod).await;
    let message = json!({"waiting": {"reason": "ImagePullBackOff", "message": &secret}});
    let statuses =
        json!([{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": message}]);
    let running = json!({"phase": "Running", "startTime": now(), "message": &secret, "containerStatuses": statuses});
    cluster.status("pods", "try", running).await;
    lab.holds("task.started", 3).await;
    let mut failed = condition("Failed", "BackoffLimitExceeded");
    failed["message"] = json!(&secret);
    let conditions = [condition("FailureTarget", "BackoffLimitExceeded"), failed];
    cluster.status("jobs", "watched", json!({"active": 0, "conditions": conditions})).await;
    cluster.status("pods", "try", json!({"phase": "Failed", "reason": "Evicted", "message": &secret})).await;
    cluster.delete("jobs", "listed", 0).await;
    lab.holds("task.ended", 3).await;
    // The control: the cluster did tell it.
    let (_, seen) = cluster
        .call(reqwest::Method::GET, &format!("/api/v1/namespaces/{}/pods", cluster.namespace), &Value::Null)
        .await;
    let secrets = BTreeMap::from([("what a user wrote".to_owned(), secret), ("Curfew's own login".to_owned(), token)]);
    assert!(!Scanner::new(&secrets).names(seen.to_string().as_bytes()).is_empty());
    let home = lab.home().to_owned();
    assert_eq!(lab.written.command(&home, &["tasks", "--ended", "--json"]).0, Some(0));
    lab.ends_clean(&secrets).await;
}
