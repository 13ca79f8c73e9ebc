use super::*;
use crate::task::RunKey;

const FORMAT: Format = Format::A2a;

fn update(state: &str) -> Value {
    json!({"statusUpdate": {"taskId": "task-1", "contextId": "c4nary", "metadata": {"x": "c4nary"},
        "status": {"state": state, "timestamp": "2026-09-01T10:00:00Z", "message": {"parts": [{"text": "c4nary"}]}}}})
}

fn of_agent(body: &Value) -> Delivery {
    headed(FORMAT, &[("ce_source", "/a2a/triage"), ("content-type", "application/a2a+json")], body)
}

#[test]
fn both_versions_say_what_a_task_is_at() {
    let key = RunKey::new("/a2a/triage", "task-1");
    let ends = [("COMPLETED", "success"), ("FAILED", "failure"), ("CANCELED", "cancelled"), ("REJECTED", "rejected")];
    for (state, outcome) in ends {
        let old = state.to_ascii_lowercase();
        let bodies = [
            update(&format!("TASK_STATE_{state}")),
            update(&old),
            json!({"task": {"id": "task-1", "status": {"state": format!("TASK_STATE_{state}")}, "history": ["c4nary"]}}),
            json!({"kind": "task", "id": "task-1", "contextId": "c4nary", "status": {"state": old}, "artifacts": ["c4nary"]}),
            json!({"kind": "status-update", "taskId": "task-1", "final": true, "status": {"state": old}}),
        ];
        for body in bodies {
            let end = heard(&of_agent(&body)).unwrap();
            assert!(!format!("{end:?}").contains("c4nary"), "{body}");
            let Data::TaskEnded(it) = end.data else { panic!("{body}") };
            assert_eq!((it.run, it.outcome.as_deref()), (key.clone(), Some(outcome)), "{body}");
            assert_eq!(it.identity.as_deref(), Some("triage"));
        }
    }
    for state in ["TASK_STATE_SUBMITTED", "submitted", "TASK_STATE_WORKING", "working"] {
        let Data::TaskStarted(it) = heard(&of_agent(&update(state))).unwrap().data else { panic!("{state}") };
        assert_eq!((it.run, it.identity.as_deref(), it.started_ms), (key.clone(), Some("triage"), Some(BROKER_MS)));
    }
}

#[test]
fn one_that_waits_for_somebody_has_not_ended() {
    for state in ["TASK_STATE_INPUT_REQUIRED", "input-required", "TASK_STATE_AUTH_REQUIRED", "auth-required"] {
        assert!(matches!(heard(&of_agent(&update(state))).unwrap().data, Data::TaskHeartbeat(_)), "{state}");
    }
    for state in ["TASK_STATE_UNSPECIFIED", "unknown"] {
        assert!(heard(&of_agent(&update(state))).is_none(), "{state}");
    }
}

#[test]
fn messages_and_artifacts_say_nothing() {
    let bodies = [
        json!({"message": {"messageId": "1", "parts": [{"text": "c4nary"}]}}),
        json!({"artifactUpdate": {"taskId": "task-1", "artifact": {"parts": []}}}),
        json!({"kind": "message", "messageId": "1"}),
        json!({"kind": "artifact-update", "taskId": "task-1"}),
    ];
    for body in bodies {
        assert!(heard(&of_agent(&body)).is_none(), "{body}");
    }
}

#[test]
fn the_agent_comes_from_the_address_and_nowhere_else() {
    let nobody = said(FORMAT, &update("completed")).unwrap();
    assert_eq!(nobody.source, "/a2a");
    for source in ["/a2a/", "/a2a", "/curfew", "/a2ax/y", "/ci"] {
        let reject = understand(&headed(FORMAT, &[("ce_source", source)], &update("completed")), &Limits::default());
        assert_eq!(reject.unwrap_err().reason, RejectReason::BadHeader, "{source}");
    }
}

#[test]
fn once_however_often_it_is_sent() {
    let [one, again] = [update("working"), with(&update("working"), "/statusUpdate/metadata", json!({"attempt": 2}))]
        .map(|body| heard(&of_agent(&body)).unwrap().id);
    assert_eq!(one, again);
    let later = with(&update("working"), "/statusUpdate/status/timestamp", json!("2026-09-01T10:00:01Z"));
    assert_ne!(heard(&of_agent(&later)).unwrap().id, one);
}

#[test]
fn what_is_missing_is_named() {
    let cases = [
        (json!({}), RejectReason::WrongSchema, "/kind"),
        (json!({"kind": "c4nary"}), RejectReason::UnknownType, "/kind"),
        (json!({"task": {"id": "1"}}), RejectReason::WrongSchema, "/task/status"),
        (json!({"task": {"status": {"state": "completed"}}}), RejectReason::WrongSchema, "/task/id"),
        (json!({"task": {"id": "1", "status": {}}}), RejectReason::WrongSchema, "/status/state"),
        (update("TASK_STATE_EXPLODED"), RejectReason::UnknownType, "/status/state"),
        (json!({"task": {}, "statusUpdate": {}}), RejectReason::WrongSchema, "/statusUpdate"),
    ];
    for (body, reason, pointer) in cases {
        assert_eq!(refused(FORMAT, body.to_string()), (reason, Some(pointer.to_owned())), "{body}");
    }
}
