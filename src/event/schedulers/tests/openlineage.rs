use proptest::prelude::*;

use super::*;
use crate::task::RunKey;

const FORMAT: Format = Format::OpenLineage;
const RUN: &str = "ea041791-68bc-3ae1-bd89-4c8106a157e4";

/// As Airflow's provider writes it, shortened, with a secret in each place that may hold one.
fn event(kind: &str, at: &str) -> Value {
    json!({
        "eventType": kind,
        "eventTime": at,
        "producer": "https://github.com/apache/airflow/tree/providers-openlineage/2.9.0",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": RUN, "facets": {
            "parent": {"run": {"runId": "3f5e83fa-3480-44ff-99c5-ff943904e5e8"}, "job": {"namespace": "prod", "name": "etl"}},
            "environmentVariables": {"environmentVariables": [{"name": "TOKEN", "value": "c4nary"}]},
            "errorMessage": {"message": "c4nary", "stackTrace": "c4nary", "programmingLanguage": "python"},
            "airflow": {"dagRun": {"conf": {"password": "c4nary"}}, "taskInstance": {"try_number": 2}},
            "unknown": {"c4nary": ["c4nary"]},
        }},
        "job": {"namespace": "prod", "name": "etl.load", "facets": {
            "sourceCode": {"sourceCode": "c4nary"}, "sql": {"query": "ALTER USER x PASSWORD 'c4nary'"},
            "jobType": {"processingType": "BATCH", "integration": "AIRFLOW", "jobType": "TASK"},
        }},
        "inputs": [{"namespace": "postgres://c4nary@db", "name": "t"}],
        "outputs": [],
    })
}

fn complete() -> Value {
    event("COMPLETE", "2026-09-01T09:59:00.641Z")
}

fn key() -> RunKey {
    RunKey::new("/openlineage/prod", RUN)
}

#[test]
fn a_run_starts_lives_and_ends() {
    let start = said(FORMAT, &event("START", "2026-09-01T12:00:00+02:00")).unwrap();
    assert_eq!((start.kind, start.source.as_str()), (Type::TaskStarted, "/openlineage/prod"));
    let Data::TaskStarted(it) = start.data else { panic!() };
    assert_eq!((it.run, it.attempt, it.task.as_deref()), (key(), 1, Some("etl.load")));
    assert_eq!((it.started_ms, it.deadline_ms, it.heartbeat_every_ms), (Some(BROKER_MS), None, None));
    let beat = said(FORMAT, &event("RUNNING", "2026-09-01T10:00:00Z")).unwrap();
    assert!(matches!(beat.data, Data::TaskHeartbeat(it) if it.run == key()));
    for (kind, outcome) in [("COMPLETE", "success"), ("FAIL", "failure"), ("ABORT", "cancelled")] {
        let end = said(FORMAT, &event(kind, "2026-09-01T09:59:00Z")).unwrap();
        let Data::TaskEnded(it) = end.data else { panic!() };
        assert_eq!((it.run, it.attempt, it.outcome.as_deref()), (key(), 1, Some(outcome)));
        assert_eq!((it.ended_ms, it.continued_as), (Some(BROKER_MS - MINUTE), None));
    }
}

#[test]
fn a_task_of_airflow_s_is_a_part_of_the_run_of_its_dag() {
    let within = |body: &Value| match said(FORMAT, body).unwrap().data {
        Data::TaskStarted(it) => it.within,
        _ => None,
    };
    let start = event("START", "2026-09-01T10:00:00Z");
    let dag_run = RunKey::new("/openlineage/prod", "3f5e83fa-3480-44ff-99c5-ff943904e5e8");
    assert_eq!(within(&start), Some(dag_run));
    for (pointer, value) in [
        // A Spark application's parent may end before it does.
        ("/job/facets/jobType/integration", json!("SPARK")),
        ("/job/facets/jobType/jobType", json!("DAG")),
        ("/job/facets/jobType", Value::Null),
        ("/job/facets", json!(["c4nary"])),
        // Of another namespace this one's producers may not speak.
        ("/run/facets/parent/job/namespace", json!("dev")),
        ("/run/facets/parent/run/runId", json!(7)),
        ("/run/facets/parent/run/runId", json!("x".repeat(1_020))),
        ("/run/facets/parent", json!("c4nary")),
        ("/run/facets", json!({"parent": {"run": {}}})),
    ] {
        assert_eq!(within(&with(&start, pointer, value)), None, "{pointer}");
    }
}

#[test]
fn what_tells_nothing_of_a_run_s_life_says_nothing() {
    assert!(said(FORMAT, &event("OTHER", "2026-09-01T10:00:00Z")).is_none());
    assert!(said(FORMAT, &with(&complete(), "/eventType", Value::Null)).is_none());
    let job = json!({"eventTime": "2026-09-01T10:00:00Z", "job": {"namespace": "prod", "name": "etl"}, "inputs": []});
    assert!(said(FORMAT, &job).is_none());
    let dataset = json!({"eventTime": "2026-09-01T10:00:00Z", "dataset": {"namespace": "s3://b", "name": "t"}});
    assert!(said(FORMAT, &dataset).is_none());
}

#[test]
fn no_secret_is_read() {
    for kind in ["START", "RUNNING", "COMPLETE", "FAIL", "ABORT"] {
        let body = event(kind, "2026-09-01T10:00:00Z");
        assert!(body.to_string().contains("c4nary"), "the control");
        assert!(!format!("{:?}", said(FORMAT, &body).unwrap()).contains("c4nary"));
    }
}

#[test]
fn the_same_again_is_the_same_event_whatever_its_facets_say() {
    let once = said(FORMAT, &complete()).unwrap();
    let again = said(FORMAT, &with(&complete(), "/run/facets", json!({"x": 1}))).unwrap();
    assert_eq!((&once.id, once.digest), (&again.id, again.digest));
    let changes = [
        ("/eventType", json!("FAIL")),
        ("/eventTime", json!("2026-09-01T09:59:00.642Z")),
        ("/run/runId", json!("another")),
        ("/job/namespace", json!("dev")),
        ("/job/name", json!("etl.other")),
    ];
    for (pointer, value) in changes {
        let other = said(FORMAT, &with(&complete(), pointer, value)).unwrap();
        assert!(other.id != once.id && other.digest != once.digest, "{pointer}");
    }
}

#[test]
fn a_time_without_a_zone_is_no_time_and_an_end_is_never_rejected_for_its_time() {
    let start = |at: Value| with(&event("START", ""), "/eventTime", at);
    let bare = said(FORMAT, &start(json!("2020-12-28T19:51:01.641"))).unwrap();
    assert!(matches!(bare.data, Data::TaskStarted(it) if it.started_ms.is_none()));
    let wrong = |body: Value| refused(FORMAT, body.to_string());
    let at_fault = |reason| (reason, Some("/eventTime".to_owned()));
    for at in [json!("yesterday"), json!(""), json!(1), Value::Null] {
        assert_eq!(wrong(start(at)), at_fault(RejectReason::WrongSchema));
    }
    assert_eq!(wrong(start(json!("1970-01-01T00:00:00Z"))), at_fault(RejectReason::AbsurdTime));
    for at in [json!("yesterday"), json!(1), Value::Null, json!("1970-01-01T00:00:00Z"), json!("2026-09-01T10:00:00")] {
        let end = said(FORMAT, &with(&complete(), "/eventTime", at)).unwrap();
        assert!(matches!(end.data, Data::TaskEnded(it) if it.ended_ms.is_none()));
    }
}

#[test]
fn what_is_missing_is_named() {
    let cases = [
        ("/eventType", json!("ENDED"), RejectReason::UnknownType),
        ("/eventType", json!(7), RejectReason::WrongSchema),
        ("/run", Value::Null, RejectReason::WrongSchema),
        ("/run", json!([]), RejectReason::WrongSchema),
        ("/run/runId", Value::Null, RejectReason::WrongSchema),
        ("/run/runId", json!("a\nb"), RejectReason::WrongSchema),
        ("/run/runId", json!("x".repeat(1_020)), RejectReason::WrongSchema),
        ("/job", Value::Null, RejectReason::WrongSchema),
        ("/job/namespace", json!(""), RejectReason::WrongSchema),
    ];
    for (pointer, value, reason) in cases {
        let body = with(&complete(), pointer, value).to_string();
        assert_eq!(refused(FORMAT, body), (reason, Some(pointer.to_owned())));
    }
    let mut twice = complete().to_string();
    twice.insert_str(1, "\"eventType\": \"START\", ");
    assert_eq!(refused(FORMAT, twice).0, RejectReason::BadJson, "two readers would believe two of them");
}

#[test]
fn a_name_is_nothing_to_reject_an_end_for() {
    for value in [Value::Null, json!(7), json!("x".repeat(5_000)), json!("a\u{1}b")] {
        let end = said(FORMAT, &with(&complete(), "/job/name", value)).unwrap();
        assert!(matches!(end.data, Data::TaskEnded(it) if it.task.is_none()));
    }
}

#[test]
fn what_is_passed_over_may_be_deep_and_what_is_read_may_not() {
    assert!(said(FORMAT, &with(&complete(), "/run/facets/unknown", deep(100))).is_some());
    let levels = 50_000;
    let facets = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let body = complete().to_string().replacen("\"outputs\":[]", &format!("\"outputs\":{facets}"), 1);
    assert!(understand(&delivery(FORMAT, body), &Limits::default()).unwrap().is_some());
    assert_eq!(refused(FORMAT, with(&complete(), "/run/runId", deep(50)).to_string()).0, RejectReason::TooDeep);
}

#[test]
fn a_topic_bounds_whose_runs_are_spoken_of() {
    let says = |sources: &[&str]| Says {
        types: Type::INPUTS.into(),
        sources: Some(sources.iter().map(|one| (*one).to_owned()).collect()),
        speaks_for: Vec::new(),
    };
    let hear = |says: Says, body: &Value| says.hear(&mut said(FORMAT, body).unwrap());
    assert!(hear(says(&["/openlineage/prod"]), &complete()).is_ok());
    assert!(hear(says(&["/openlineage/*"]), &complete()).is_ok());
    assert_eq!(hear(says(&["/openlineage/dev"]), &complete()).unwrap_err().pointer, "/source");
    // A colon in a run id parts no source from its run.
    let odd = said(FORMAT, &with(&complete(), "/run/runId", json!("x:y"))).unwrap();
    assert!(matches!(odd.data, Data::TaskEnded(it) if it.run.parts() == Some(("/openlineage/prod", "x%3Ay"))));
    // Whoever hands out credentials says which run holds one: by its key, and only where the topic lets it.
    let broker = Says { speaks_for: vec!["/openlineage/prod".to_owned()], ..says(&["/broker"]) };
    let grant = |run: &str| {
        let body = json!({"specversion": "1.0", "type": "dev.curfew.grant.registered.v1", "source": "/broker", "id": "1",
            "data": {"run_key": run, "cred_id": "urn:curfew:cred:vault-lease:prod:database/creds/ro/x"}});
        let headers = vec![("content-type".to_owned(), Some("application/cloudevents+json".into()))];
        decode(&Delivery { headers, ..delivery(Format::Curfew, body.to_string()) }, &Limits::default()).unwrap()
    };
    let mut granted = grant(&format!("/openlineage/prod:{RUN}"));
    assert!(broker.hear(&mut granted).is_ok());
    assert!(matches!(granted.data, Data::GrantRegistered(it) if it.run == key()));
    assert!(broker.hear(&mut grant(&format!("/openlineage/dev:{RUN}"))).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _either = understand(&delivery(FORMAT, bytes), &Limits::default());
    }

    #[test]
    fn nothing_shows_what_was_not_asked_for(
        place in prop::sample::select(vec![
            "/run/facets", "/job/facets", "/inputs", "/outputs", "/producer", "/eventTime", "/eventType", "/run/runId",
            "/job/namespace", "/job", "/run", "/c4nary", "/run/c4nary", "/job/c4nary",
        ]),
        shape in 0..4_usize,
    ) {
        let secret = "c4nary-s3cr3t\u{1}";
        let value = [json!(secret), json!({secret: secret}), json!([secret]), json!([{"c4nary": 1}])][shape].clone();
        let body = with(&event("START", "2026-09-01T10:00:00Z"), place, value).to_string();
        // With the secrets that it has anyway, whole and torn.
        for body in [body.clone(), body[..body.len() - 2].to_owned()] {
            let shown = format!("{:?}", understand(&delivery(FORMAT, body), &Limits::default()));
            prop_assert!(!shown.contains("c4nary"), "{}", shown);
        }
    }
}
