use super::*;
use crate::event::kubernetes::{Kept, Sort, record_gone, record_seen};
use crate::task::RunKey;

const FORMAT: Format = Format::Kubernetes;
const UID: &str = "4ccb2b9e-4a0c-4bd5-9d5c-0f3a1d7e2f11";

fn of_cluster(body: &Value) -> Delivery {
    headed(FORMAT, &[("ce_source", "/kubernetes/prod")], body)
}

#[track_caller]
fn says(body: &Value) -> Option<Data> {
    let event = heard(&of_cluster(body))?;
    assert!(!format!("{event:?}").contains("c4nary"), "{body}");
    assert_eq!(event.source, "/kubernetes/prod/ml");
    Some(event.data)
}

#[track_caller]
fn ends(body: &Value) -> (&'static str, Option<i64>) {
    let Some(Data::TaskEnded(it)) = says(body) else { panic!("no end: {body}") };
    assert_eq!(it.run, RunKey::new("/kubernetes/prod/ml", UID));
    let outcome = it.outcome.unwrap();
    let known = ["success", "failure", "timeout", "cancelled", "unknown"];
    (known.into_iter().find(|known| **known == outcome).unwrap(), it.ended_ms)
}

#[track_caller]
fn starts(body: &Value) -> TaskStarted {
    let Some(Data::TaskStarted(it)) = says(body) else { panic!("no start: {body}") };
    it
}

/// As kubectl shows it, shortened, with a secret wherever users and controllers may write one.
fn job(status: Value) -> Value {
    json!({"type": "MODIFIED", "object": {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"uid": UID, "name": "train", "namespace": "ml", "resourceVersion": "156770",
            "annotations": {"note": "c4nary"}, "labels": {"l": "c4nary"}, "finalizers": ["c4nary"],
            "managedFields": [{"fieldsV1": {"f:c4nary": {}}}]},
        "spec": {"activeDeadlineSeconds": 3600, "template": {"metadata": {"annotations": {"a": "c4nary"}}, "spec": {
            "serviceAccountName": "trainer", "volumes": [{"secret": {"secretName": "c4nary"}}],
            "containers": [{"name": "c", "args": ["c4nary"], "env": [{"name": "TOKEN", "value": "c4nary"}]}]}}},
        "status": status,
    }})
}

fn pod(status: Value) -> Value {
    json!({"type": "MODIFIED", "object": {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"uid": UID, "name": "train-x7", "namespace": "ml", "resourceVersion": "2",
            "annotations": {"note": "c4nary"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "c4nary", "uid": "c4nary", "controller": true}]},
        "spec": {"serviceAccountName": "trainer", "nodeName": "c4nary", "activeDeadlineSeconds": 60,
            "containers": [{"name": "c", "command": ["c4nary"], "env": [{"name": "TOKEN", "value": "c4nary"}]}]},
        "status": status,
    }})
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "c4nary",
        "lastTransitionTime": "2026-09-01T09:59:00Z", "lastProbeTime": "2026-09-01T09:59:00Z"})
}

#[test]
fn a_job_begins_with_its_start_and_has_its_deadline() {
    assert!(says(&job(json!({}))).is_none(), "nobody has begun it");
    let running =
        job(json!({"startTime": "2026-09-01T09:00:00Z", "active": 1, "ready": 1, "uncountedTerminatedPods": {}}));
    let it = starts(&running);
    assert_eq!(it.run, RunKey::new("/kubernetes/prod/ml", UID));
    assert_eq!((it.task.as_deref(), it.attempt), (Some("job/train"), 1));
    assert_eq!(it.identity.as_deref(), Some("system:serviceaccount:ml:trainer"));
    assert_eq!(it.started_ms, Some(BROKER_MS - 60 * MINUTE));
    assert_eq!(it.deadline_ms, Some(BROKER_MS));
    for word in ["ADDED", "MODIFIED"] {
        assert_eq!(
            heard(&of_cluster(&with(&running, "/type", json!(word)))).unwrap().id,
            heard(&of_cluster(&running)).unwrap().id
        );
    }
    for none in [Value::Null, json!(0), json!(-1), json!("c4nary"), json!(u64::MAX)] {
        assert_eq!(starts(&with(&running, "/object/spec/activeDeadlineSeconds", none)).deadline_ms, None);
    }
    let longer = with(&running, "/object/spec/activeDeadlineSeconds", json!(7_200));
    assert_eq!(starts(&longer).deadline_ms, Some(BROKER_MS + 60 * MINUTE));
    assert_ne!(
        heard(&of_cluster(&longer)).unwrap().id,
        heard(&of_cluster(&running)).unwrap().id,
        "a later deadline is news"
    );
    let nobody = with(&running, "/object/spec/template/spec/serviceAccountName", Value::Null);
    assert_eq!(starts(&nobody).identity.as_deref(), Some("system:serviceaccount:ml:default"));
}

#[test]
fn a_job_is_over_when_kubernetes_says_complete_or_failed() {
    let with_conditions = |conditions: &[Value]| {
        job(
            json!({"startTime": "2026-09-01T09:00:00Z", "completionTime": "2026-09-01T09:58:00Z", "conditions": conditions}),
        )
    };
    let at = Some(BROKER_MS - MINUTE);
    let cases = [
        ("Complete", "CompletionsReached", "success"),
        ("Failed", "BackoffLimitExceeded", "failure"),
        ("Failed", "PodFailurePolicy", "failure"),
        ("Failed", "DeadlineExceeded", "timeout"),
    ];
    for (kind, reason, outcome) in cases {
        let over = with_conditions(&[condition("Suspended", "False", "JobResumed"), condition(kind, "True", reason)]);
        assert_eq!(ends(&over), (outcome, at), "{kind} {reason}");
        // Its deletion later on says the same thing once more.
        let deleted = with(&over, "/type", json!("DELETED"));
        assert_eq!(heard(&of_cluster(&deleted)).unwrap().id, heard(&of_cluster(&over)).unwrap().id);
    }
    // Its Pods may still run.
    let interim = [
        condition("FailureTarget", "True", "DeadlineExceeded"),
        condition("SuccessCriteriaMet", "True", "CompletionsReached"),
        condition("Failed", "False", ""),
        condition("Complete", "Unknown", ""),
    ];
    starts(&with_conditions(&interim));
    // In the foreground it stays until its Pods are gone.
    let leaving = with(&with_conditions(&[]), "/object/metadata/deletionTimestamp", json!("2026-09-01T09:58:00Z"));
    starts(&leaving);
    assert_eq!(ends(&with(&leaving, "/type", json!("DELETED"))), ("cancelled", None));
    assert_eq!(ends(&with(&job(json!({})), "/type", json!("DELETED"))), ("cancelled", None), "it never began");
}

#[test]
fn a_suspended_job_waits_without_a_deadline_and_begins_anew() {
    let suspended = job(json!({"conditions": [condition("Suspended", "True", "JobSuspended")]}));
    let it = starts(&suspended);
    assert_eq!((it.started_ms, it.deadline_ms), (Some(BROKER_MS - MINUTE), None));
    assert_eq!(i64::from(it.attempt) * 1_000, BROKER_MS - MINUTE);
    let mut resumed = job(json!({"conditions": [condition("Suspended", "False", "JobResumed")]}));
    assert!(says(&resumed).is_none(), "it has no start yet");
    resumed = with(&resumed, "/object/status/startTime", json!("2026-09-01T09:59:30Z"));
    let it = starts(&resumed);
    assert_eq!(i64::from(it.attempt) * 1_000, BROKER_MS - MINUTE / 2);
    assert_eq!(it.deadline_ms, Some(BROKER_MS - MINUTE / 2 + 60 * MINUTE));
    for (last, attempt_ms) in [(&resumed, BROKER_MS - MINUTE / 2), (&suspended, BROKER_MS - MINUTE)] {
        let Some(Data::TaskEnded(it)) = says(&with(last, "/type", json!("DELETED"))) else { panic!("an end") };
        assert_eq!(i64::from(it.attempt) * 1_000, attempt_ms);
    }
}

#[test]
fn a_pod_is_over_when_all_its_containers_are() {
    let pod_in = |phase: &str, more: Value| {
        let mut status = json!({"phase": phase, "startTime": "2026-09-01T09:59:30Z", "message": "c4nary"});
        for (name, value) in more.as_object().unwrap() {
            status[name] = value.clone();
        }
        pod(status)
    };
    assert!(says(&pod(json!({"phase": "Pending"}))).is_none(), "no node has it");
    // Containers that begin anew, a node that is silent, a disruption and a deletion that are announced.
    for phase in ["Pending", "Running", "Unknown"] {
        let restarted = json!({"containerStatuses": [{"restartCount": 7,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "c4nary"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-09-01T09:59:40Z"}}}],
            "conditions": [condition("DisruptionTarget", "True", "EvictionByEvictionAPI")]});
        let leaving =
            with(&pod_in(phase, restarted), "/object/metadata/deletionTimestamp", json!("2026-09-01T09:59:50Z"));
        let it = starts(&leaving);
        assert_eq!((it.task.as_deref(), it.attempt), (Some("pod/train-x7"), 1));
        assert_eq!(it.identity.as_deref(), Some("system:serviceaccount:ml:trainer"));
        assert_eq!(it.deadline_ms, Some(BROKER_MS + MINUTE / 2));
        assert_eq!(ends(&with(&leaving, "/type", json!("DELETED"))), ("cancelled", None));
    }
    let finished = |at: &str| json!({"state": {"terminated": {"exitCode": 0, "message": "c4nary", "finishedAt": at}}});
    let both = json!({"containerStatuses": [finished("2026-09-01T09:59:00Z"), finished("2026-09-01T09:59:45Z"), {"state": {}}]});
    let at = Some(BROKER_MS - MINUTE / 4);
    assert_eq!(ends(&pod_in("Succeeded", both.clone())), ("success", at));
    assert_eq!(ends(&pod_in("Failed", both)), ("failure", at));
    assert_eq!(ends(&pod_in("Failed", json!({"reason": "DeadlineExceeded"}))), ("timeout", None));
    let evicted =
        json!({"reason": "Evicted", "conditions": [condition("DisruptionTarget", "True", "TerminationByKubelet")]});
    assert_eq!(ends(&pod_in("Failed", evicted)), ("cancelled", None));
    assert_eq!(
        ends(&pod_in("Failed", json!({"reason": "NodeShutdown", "containerStatuses": "c4nary"}))),
        ("failure", None)
    );
}

#[test]
fn services_and_mirrors_are_no_tasks() {
    let running = pod(json!({"phase": "Running", "startTime": "2026-09-01T09:59:30Z"}));
    let owned = |owners: Value| with(&running, "/object/metadata/ownerReferences", owners);
    for kind in ["ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Node"] {
        for word in ["ADDED", "MODIFIED", "DELETED"] {
            let body = with(&owned(json!([{"kind": kind, "controller": true}])), "/type", json!(word));
            assert!(says(&body).is_none(), "{kind} {word}");
        }
    }
    for owners in [
        Value::Null,
        json!([]),
        json!([{"kind": "Workflow", "controller": true}]),
        json!([{"kind": "ReplicaSet"}]),
        json!([{"kind": "Node", "controller": false}, {"kind": "Job", "controller": true}]),
    ] {
        starts(&owned(owners));
    }
}

#[test]
fn what_is_gone_ended_in_a_way_that_nobody_saw() {
    let body: Value = serde_json::from_slice(&record_gone(Sort::Job, "ml", "train", UID, 7)).unwrap();
    assert_eq!(ends(&body), ("unknown", None));
    let Some(Data::TaskEnded(it)) = says(&body) else { panic!("an end") };
    assert_eq!((it.attempt, it.task.as_deref()), (7, Some("job/train")));
}

#[test]
fn of_an_object_only_what_is_read_is_kept() {
    let whole = pod(json!({"phase": "Running", "startTime": "2026-09-01T09:59:30Z", "message": "c4nary"}));
    let kept: Kept = serde_json::from_value(whole["object"].clone()).unwrap();
    assert!(!format!("{kept:?}").contains("c4nary"), "{kept:?}");
    assert_eq!(
        (kept.name.as_str(), kept.namespace.as_str(), kept.uid.as_str(), kept.version.as_str()),
        ("train-x7", "ml", UID, "2")
    );
    let record = record_seen(Sort::Pod, &kept, false);
    let event = heard(&of_cluster(&serde_json::from_slice(&record).unwrap())).unwrap();
    assert_eq!(event.id, heard(&of_cluster(&whole)).unwrap().id, "as the whole object says it");
    // Another version of the same says nothing new.
    let later: Kept =
        serde_json::from_value(with(&whole, "/object/metadata/resourceVersion", json!("3"))["object"].clone()).unwrap();
    assert_eq!(record_seen(Sort::Pod, &later, false), record);
    for broken in [json!([]), json!("c4nary"), json!({"metadata": "c4nary"}), json!({})] {
        let error = serde_json::from_value::<Kept>(broken).unwrap_err();
        assert!(!error.to_string().contains("c4nary"), "{error}");
    }
}

#[test]
fn what_no_cluster_says_is_refused() {
    let fine = job(json!({"startTime": "2026-09-01T09:00:00Z"}));
    for word in ["BOOKMARK", "ERROR"] {
        assert!(says(&json!({"type": word, "object": {"kind": "Status", "message": "c4nary"}})).is_none());
    }
    let body = |body: &Value| {
        let reject = understand(&of_cluster(body), &Limits::default()).unwrap_err();
        (reject.reason, reject.pointer.unwrap_or_default())
    };
    assert_eq!(body(&with(&fine, "/type", json!("c4nary"))), (RejectReason::UnknownType, "/type".into()));
    assert_eq!(body(&with(&fine, "/object/kind", json!("CronJob"))), (RejectReason::UnknownType, "/kind".into()));
    for field in ["uid", "name", "namespace"] {
        let pointer = format!("/object/metadata/{field}");
        assert_eq!(body(&with(&fine, &pointer, Value::Null)), (RejectReason::WrongSchema, pointer.clone()));
        assert_eq!(body(&with(&fine, &pointer, json!(7))).0, RejectReason::WrongSchema);
    }
    // Which cluster it is only the reader knows.
    for source in ["", "/kubernetes", "/kubernetes/", "/kubernetes/a/b", "/tekton/prod"] {
        let headers = [("ce_source", source)];
        let reject = understand(&headed(FORMAT, &headers, &fine), &Limits::default()).unwrap_err();
        assert_eq!(reject.reason, RejectReason::BadHeader, "{source}");
    }
    assert_eq!(refused(FORMAT, fine.to_string()).0, RejectReason::BadHeader);
}
