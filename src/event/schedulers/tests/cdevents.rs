use super::*;
use crate::task::RunKey;

const FORMAT: Format = Format::CdEvents;

fn event(of: &str, what: &str) -> Value {
    json!({
        "context": {"specversion": "0.5.1", "id": "2710", "source": "/tekton/prod", "type": format!("dev.cdevents.{of}.{what}"),
            "timestamp": "2026-09-01T10:00:00Z", "chainId": "c4nary"},
        "subject": {"id": "ns/taskrun-123", "source": "/tekton/prod", "type": "c4nary", "content": {
            "taskName": "deploy", "uri": "https://c4nary", "pipelineRun": {"id": "pr-9"}, "outcome": "failure",
            "errors": "c4nary"}},
        "customData": {"token": "c4nary"}, "customDataContentType": "application/json",
    })
}

fn finished() -> Value {
    event("taskrun", "finished.0.3.0")
}

fn key() -> RunKey {
    RunKey::new("/cdevents/tekton/prod", "ns/taskrun-123")
}

#[test]
fn a_run_starts_and_ends() {
    let start = said(FORMAT, &event("taskrun", "started.0.3.0")).unwrap();
    assert_eq!(start.source, "/cdevents/tekton/prod");
    assert!(!format!("{start:?}").contains("c4nary"));
    let Data::TaskStarted(it) = start.data else { panic!() };
    assert_eq!((it.run, it.task.as_deref(), it.started_ms), (key(), Some("deploy"), Some(BROKER_MS)));
    let outcomes = [
        ("success", "success"),
        ("failure", "failure"),
        ("error", "failure"),
        ("cancel", "cancelled"),
        ("timeout", "timeout"),
        ("c'est fini", "unknown"),
    ];
    for (theirs, ours) in outcomes {
        let end = said(FORMAT, &with(&finished(), "/subject/content/outcome", json!(theirs))).unwrap();
        assert!(!format!("{end:?}").contains("c4nary"));
        let Data::TaskEnded(it) = end.data else { panic!() };
        assert_eq!((it.run, it.outcome.as_deref(), it.ended_ms), (key(), Some(ours), Some(BROKER_MS)));
    }
    let bare = with(&finished(), "/subject/content", Value::Null);
    assert!(
        matches!(said(FORMAT, &bare).unwrap().data, Data::TaskEnded(it) if it.outcome.as_deref() == Some("unknown"))
    );
    let pipeline = event("pipelinerun", "finished.0.3.0");
    let pipeline = with(&pipeline, "/subject/content", json!({"pipelineName": "release", "outcome": "success"}));
    assert!(
        matches!(said(FORMAT, &pipeline).unwrap().data, Data::TaskEnded(it) if it.task.as_deref() == Some("release"))
    );
}

#[test]
fn as_the_data_of_a_cloudevent_it_is_the_same_event() {
    let inside = json!({"specversion": "1.0", "id": "2710", "type": "dev.cdevents.taskrun.finished.0.3.0", "source": "/tekton/prod",
        "datacontenttype": "application/cdevents+json", "data": finished()});
    let structured = headed(FORMAT, &[("content-type", "application/cloudevents+json")], &inside);
    let headers = [("content-type", "application/cdevents+json"), ("ce_type", "dev.cdevents.taskrun.finished.0.3.0")];
    let binary = headed(FORMAT, &headers, &finished());
    let [one, other] = [structured, binary].map(|delivery| heard(&delivery).unwrap());
    assert_eq!((&one.id, one.source, one.digest), (&other.id, other.source, other.digest));
    assert_eq!(said(FORMAT, &with(&finished(), "/customData", json!(1))).unwrap().id, one.id, "what is not read");
    assert_ne!(said(FORMAT, &with(&finished(), "/subject/id", json!("2"))).unwrap().id, one.id);
    assert_ne!(said(FORMAT, &with(&finished(), "/subject/content/outcome", json!("x"))).unwrap().id, one.id);
}

#[test]
fn its_own_source_counts_or_else_that_of_the_event() {
    let of = |source: Value| said(FORMAT, &with(&finished(), "/subject/source", source)).unwrap().source;
    assert_eq!(of(Value::Null), "/cdevents/tekton/prod");
    assert_eq!(of(json!("https://ci.example")), "/cdevents/https://ci.example");
}

#[test]
fn other_subjects_and_moments_say_nothing_and_what_is_none_of_them_is_rejected() {
    for (of, what) in [("build", "finished.0.2.0"), ("pipelinerun", "queued.0.3.0"), ("taskrun", "paused.9"), ("x", "")]
    {
        assert!(said(FORMAT, &event(of, what)).is_none(), "{of} {what}");
    }
    let cases = [
        ("/context/type", json!("dev.tekton.event.taskrun.failed.v1"), RejectReason::UnknownType),
        ("/context/type", Value::Null, RejectReason::WrongSchema),
        ("/context", Value::Null, RejectReason::WrongSchema),
        ("/subject", Value::Null, RejectReason::WrongSchema),
        ("/subject/id", json!(7), RejectReason::WrongSchema),
    ];
    for (pointer, value, reason) in cases {
        let body = with(&finished(), pointer, value).to_string();
        assert_eq!(refused(FORMAT, body), (reason, Some(pointer.to_owned())));
    }
    let start = with(&event("taskrun", "started.0.3.0"), "/context/timestamp", json!("yesterday"));
    assert_eq!(refused(FORMAT, start.to_string()).0, RejectReason::WrongSchema);
    assert!(said(FORMAT, &with(&finished(), "/context/timestamp", json!("yesterday"))).is_some(), "an end");
}
