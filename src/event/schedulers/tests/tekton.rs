use super::*;
use crate::task::RunKey;

const FORMAT: Format = Format::Tekton;
const UID: &str = "4ccb4f01-3ecc-4eb4-87e1-76f04efeee5c";

/// As the controller sends it, shortened, with a secret wherever a user may have put one.
fn task_run() -> Value {
    json!({"taskRun": {
        "metadata": {"annotations": {"a": "c4nary"}, "labels": {"l": "c4nary"}, "name": "curl-run-6gplk", "namespace": "ci", "uid": UID},
        "spec": {"params": [{"name": "password", "value": "c4nary"}], "serviceAccountName": "deployer",
            "taskRef": {"kind": "Task", "name": "curl"}, "timeout": "1h0m0s"},
        "status": {
            "conditions": [
                {"type": "Other", "reason": "c4nary", "status": "True"},
                {"type": "Succeeded", "status": "Unknown", "reason": "Running", "message": "c4nary"},
            ],
            "podName": "c4nary", "startTime": "2026-09-01T09:59:00Z", "completionTime": "2026-09-01T10:00:00Z",
            "steps": [{"terminated": {"message": "c4nary"}}], "taskSpec": {"steps": [{"script": "c4nary"}]},
            "results": [{"value": "c4nary"}], "retriesStatus": [{"podName": "c4nary"}],
        },
    }})
}

fn binary(kind: &str, body: &Value) -> Delivery {
    let kind = format!("dev.tekton.event.{kind}.v1");
    let headers = [
        ("ce_id", "77f78ae7"),
        ("ce_source", "/apis/tekton.dev/v1/namespaces/ci/taskruns/curl-run-6gplk"),
        ("ce_specversion", "1.0"),
        ("ce_type", kind.as_str()),
        ("content-type", "application/json"),
    ];
    headed(FORMAT, &headers, body)
}

fn key() -> RunKey {
    RunKey::new("/tekton/ci", UID)
}

#[test]
fn a_task_run_starts_and_ends() {
    for kind in ["started", "running", "unknown"] {
        let start = heard(&binary(&format!("taskrun.{kind}"), &task_run())).unwrap();
        assert!(!format!("{start:?}").contains("c4nary"));
        assert_eq!(start.source, "/tekton/ci");
        let Data::TaskStarted(it) = start.data else { panic!() };
        assert_eq!((it.run, it.task.as_deref(), it.attempt), (key(), Some("curl"), 1));
        assert_eq!(it.identity.as_deref(), Some("system:serviceaccount:ci:deployer"));
        assert_eq!((it.started_ms, it.deadline_ms), (Some(BROKER_MS - MINUTE), Some(BROKER_MS + 59 * MINUTE)));
    }
    let ends = [
        ("successful", "Succeeded", "success"),
        ("failed", "Failed", "failure"),
        ("failed", "TaskRunTimeout", "timeout"),
        ("failed", "TaskRunCancelled", "cancelled"),
        ("failed", "SomethingNew", "failure"),
    ];
    for (kind, reason, outcome) in ends {
        let body = with(&task_run(), "/taskRun/status/conditions", json!([{"type": "Succeeded", "reason": reason}]));
        let end = heard(&binary(&format!("taskrun.{kind}"), &body)).unwrap();
        let Data::TaskEnded(it) = end.data else { panic!() };
        assert_eq!((it.run, it.outcome.as_deref(), it.ended_ms), (key(), Some(outcome), Some(BROKER_MS)));
    }
    assert!(heard(&binary("taskrun.queued", &task_run())).is_none());
}

#[test]
fn pipelines_and_custom_runs_have_their_own_fields() {
    let run = |spec: Value| {
        json!({"pipelineRun": {"metadata": {"uid": UID, "name": "release-x", "namespace": "ci"}, "spec": spec,
            "status": {"startTime": "2026-09-01T10:00:00Z"}}})
    };
    let start = |spec: Value| match heard(&binary("pipelinerun.started", &run(spec))).unwrap().data {
        Data::TaskStarted(it) => it,
        other => panic!("{other:?}"),
    };
    let v1 = start(json!({"taskRunTemplate": {"serviceAccountName": "bot"}, "timeouts": {"pipeline": "30m0s"},
        "pipelineRef": {"name": "release"}}));
    assert_eq!(v1.deadline_ms, Some(BROKER_MS + 30 * MINUTE));
    assert_eq!(v1.identity.as_deref(), Some("system:serviceaccount:ci:bot"));
    assert_eq!(v1.task.as_deref(), Some("release"));
    let bare = start(json!({}));
    assert_eq!((bare.deadline_ms, bare.identity, bare.task.as_deref()), (None, None, Some("release-x")));
    let custom = json!({"customRun": {"metadata": {"uid": UID, "namespace": "ci"}}});
    assert!(
        matches!(heard(&binary("customrun.failed", &custom)).unwrap().data, Data::TaskEnded(it) if it.run == key())
    );
}

#[test]
fn a_task_run_is_a_part_of_the_pipeline_run_that_owns_it() {
    let within = |owners: Value| {
        let body = with(&task_run(), "/taskRun/metadata/ownerReferences", owners);
        let Data::TaskStarted(it) = heard(&binary("taskrun.started", &body)).unwrap().data else { panic!() };
        it.within
    };
    let owner = |kind: &str, uid: Value| json!([{"kind": "Other", "uid": "o"}, {"kind": kind, "uid": uid}]);
    assert_eq!(within(owner("PipelineRun", json!("p-1"))), Some(RunKey::new("/tekton/ci", "p-1")));
    for none in
        [Value::Null, json!([]), json!("x"), owner("CustomRun", json!("p-1")), owner("PipelineRun", Value::Null)]
    {
        assert_eq!(within(none.clone()), None, "{none}");
    }
}

#[test]
fn a_deadline_is_what_all_tries_may_take() {
    let deadline = |timeout: Value, retries: Value| {
        let body = with(&task_run(), "/taskRun/spec/timeout", timeout);
        let body = with(&body, "/taskRun/spec/retries", retries);
        match heard(&binary("taskrun.started", &body)).unwrap().data {
            Data::TaskStarted(it) => it.deadline_ms.map(|ms| ms - (BROKER_MS - MINUTE)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(deadline(json!("10m0s"), json!(2)), Some(30 * MINUTE));
    assert_eq!(deadline(json!("1m30.5s"), Value::Null), Some(90_500));
    // No limit, and what cannot be read: the longest life counts.
    for none in ["0s", "0h0m0s", "", "soon", "1", "m", "9999999999999h", "1h-5m", "5µs"] {
        assert_eq!(deadline(json!(none), Value::Null), None, "{none}");
    }
    assert_eq!(deadline(json!("10m0s"), json!(-1)), None);
}

#[test]
fn both_modes_say_the_same_and_once() {
    let structured = json!({"specversion": "1.0", "id": "1", "source": "/x", "type": "dev.tekton.event.taskrun.failed.v1",
        "data": task_run()});
    let structured = headed(FORMAT, &[("content-type", "application/cloudevents+json")], &structured);
    // Sent again by a controller that was started anew: another id.
    let mut again = binary("taskrun.failed", &task_run());
    again.headers[0].1 = Some("another".into());
    let [one, other, third] = [structured, binary("taskrun.failed", &task_run()), again].map(|d| heard(&d).unwrap());
    assert_eq!((&one.id, one.digest), (&other.id, other.digest));
    assert_eq!(one.id, third.id);
}

#[test]
fn what_is_missing_is_named() {
    let wrong = |delivery: &Delivery| {
        let reject = understand(delivery, &Limits::default()).unwrap_err();
        (reject.reason, reject.pointer)
    };
    let at = |reason, pointer: &str| (reason, Some(pointer.to_owned()));
    assert_eq!(wrong(&headed(FORMAT, &[], &task_run())), at(RejectReason::BadEnvelope, "/type"));
    for kind in ["taskrun.exploded", "podrun.started", "taskrun"] {
        assert_eq!(wrong(&binary(kind, &task_run())), at(RejectReason::UnknownType, "/type"));
    }
    assert_eq!(wrong(&binary("pipelinerun.started", &task_run())), at(RejectReason::WrongSchema, "/pipelineRun"));
    for field in ["uid", "namespace"] {
        let body = with(&task_run(), &format!("/taskRun/metadata/{field}"), Value::Null);
        let pointer = format!("/metadata/{field}");
        assert_eq!(wrong(&binary("taskrun.failed", &body)), at(RejectReason::WrongSchema, &pointer));
    }
    let doubled = headed(FORMAT, &[("ce_type", "a"), ("ce_type", "b")], &task_run());
    assert_eq!(wrong(&doubled).0, RejectReason::BadHeader);
}
