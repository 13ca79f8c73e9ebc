//! Clusters: what is watched, and what is wrong about it.

use super::*;
use crate::event::kubernetes::Sort;

const TOPIC: &str = "topics: {k8s: {format: kubernetes, sources: [\"/kubernetes/prod/*\"], strongest: revoke}, \
    the.grants: {events: [grant.registered], sources: [/broker], strongest: revoke}}\n";
const UID: &str = "6f0d4f3e-8a41-4d0c-9c55-1f3f6f0a7f0b";

fn cluster(more: &str) -> String {
    format!("{TOPIC}kubernetes: [{{cluster: prod, uid: {UID}, topic: k8s, namespaces: [ml], {more}}}]\n")
}

#[test]
fn a_cluster_speaks_as_a_topic_that_nobody_publishes_to() {
    let text = cluster("jobs: {selector: team=ml}, pods: {}, kubeconfig: k");
    let config = parse(&format!("kafka: {{brokers: \"127.0.0.1:9092\"}}\n{text}")).unwrap();
    let [watched] = config.clusters.as_slice() else { panic!("one") };
    assert_eq!(watched.sorts, [(Sort::Job, Some("team=ml".to_owned())), (Sort::Pod, None)]);
    assert_eq!(watched.kubeconfig.as_deref(), Some(Path::new("/etc/curfew/k")));
    assert_eq!((&*watched.topic, &*watched.tenant, watched.resync_ms), ("k8s", "default", 600_000));
    assert_eq!(config.published().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["the.grants"]);
    assert!(config.read().read.contains("the.grants"));
    assert!(!config.read().read.contains("k8s"), "it would never be read, and hold all deadlines back");
    assert_eq!(config.authorities()["k8s"].strongest, Action::Revoke);
    let says = [Type::TaskStarted, Type::TaskEnded];
    assert_eq!(config.says()["k8s"].types, says.into());
    let all = parse(&cluster("pods: {}").replace("[ml]", "[\"*\"]")).unwrap();
    assert!(all.clusters[0].namespaces.is_empty());
    assert_eq!(all.clusters[0].kubeconfig, None);
    assert_eq!(all.http.unwrap().topic, "the.grants", "the way in that is on by default is not the cluster's");
}

#[test]
fn what_is_wrong_about_a_cluster_is_said() {
    let fine = cluster("jobs: {}");
    parse(&fine).map(|_| ()).unwrap();
    let said = |text: &str| parse(text).unwrap_err().to_string();
    for (was, is, why) in [
        ("cluster: prod", "cluster: \"pro/d\"", "letters, digits"),
        (UID, "prod", "kubectl get namespace kube-system"),
        ("topic: k8s", "topic: k9s", "there is no topic"),
        ("format: kubernetes", "format: tekton", "is not of `format: kubernetes`"),
        ("/kubernetes/prod/*", "/kubernetes/dev/*", "may not speak as /kubernetes/prod/*"),
        ("[ml]", "[]", "opt-in"),
        ("[ml]", "[\"*\", ml]", "all namespaces"),
        ("[ml]", "[ml, Ml]", "is not the name of a namespace"),
        ("jobs: {}", "resync: 1m", "neither `jobs` nor `pods`"),
        ("jobs: {}", "jobs: {}, resync: 10ms", "at least 1s"),
        ("jobs: {}", "jobs: {}, secrets: {}", "is not a key here"),
        ("kubernetes: [{", "http: {topic: k8s}\nkubernetes: [{", "it is not HTTP's"),
    ] {
        let wrong = fine.replace(was, is);
        assert_ne!(wrong, fine);
        let message = said(&wrong);
        assert!(message.contains(why), "{is}: {message}");
    }
    let twice = fine
        .replace("}]\n", &format!("}}, {{cluster: prod, uid: {UID}, topic: k8s, namespaces: [ci], jobs: {{}}}}]\n"));
    assert!(said(&twice).contains("each name once"));
    assert!(said(TOPIC).contains("no cluster under `kubernetes` speaks as it"));
}
