//! Schedulers' own events: over HTTP, and from a topic of their own beside one of Curfew's.

use super::*;
use curfew::event::{Format, Says, Type};
use serde_json::Value;

fn lineage(kind: &str, run: &str) -> Value {
    json!({
        "eventType": kind, "eventTime": "2026-09-01T10:00:00Z", "producer": "https://p", "schemaURL": "https://s",
        "run": {"runId": run, "facets": {"environmentVariables": {"environmentVariables": [{"name": "X", "value": "c4nary"}]}}},
        "job": {"namespace": "prod", "name": "etl.load"}, "inputs": [], "outputs": [],
    })
}

/// The `ce-type` header, where there is one, and the body.
type Told = (&'static str, Value);

/// A way in, something that ends a run, something that says nothing.
fn ways() -> Vec<(&'static str, Told, Told)> {
    let cdevent = |what: &str| {
        json!({"context": {"type": format!("dev.cdevents.taskrun.{what}.0.3.0"), "source": "/ci", "timestamp": "2026-09-01T10:00:00Z"},
            "subject": {"id": "1", "content": {"outcome": "success", "errors": "c4nary"}}, "customData": "c4nary"})
    };
    let tekton = json!({"taskRun": {"metadata": {"uid": "1", "namespace": "ci"}, "spec": {"params": ["c4nary"]}}});
    let a2a = |state: &str| json!({"statusUpdate": {"taskId": "1", "status": {"state": state, "message": "c4nary"}}});
    let (failed, queued) = ("dev.tekton.event.taskrun.failed.v1", "dev.tekton.event.taskrun.queued.v1");
    vec![
        ("/tasks/openlineage", ("", lineage("COMPLETE", "1")), ("", lineage("OTHER", "1"))),
        // Where OpenLineage's HTTP transport sends to by itself.
        ("/api/v1/lineage", ("", lineage("COMPLETE", "2")), ("", lineage("OTHER", "2"))),
        ("/tasks/cdevents", ("", cdevent("finished")), ("", cdevent("queued"))),
        ("/tasks/tekton", (failed, tekton.clone()), (queued, tekton)),
        ("/tasks/a2a", ("", a2a("completed")), ("", json!({"message": {"parts": ["c4nary"]}}))),
        ("/tasks/a2a/team/triage", ("", a2a("TASK_STATE_FAILED")), ("", a2a("unknown"))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scheduler_posts_is_durable_when_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut station = Station::open(dir.path(), &[]);
    let mut says = Says { types: Type::INPUTS.into(), ..Says::default() };
    let sources = ["/openlineage/prod", "/cdevents/ci", "/tekton/ci", "/a2a", "/a2a/team/triage"];
    says.sources = Some(sources.map(str::to_owned).to_vec());
    station.intake.types = Some(Arc::new([("curfew.tasks".to_owned(), says)].into()));
    let (url, token, stop) = http::door(&station, dir.path()).await;
    let client = reqwest::Client::new();
    let post = |path: &str, body: String| {
        let request = client.post(format!("{url}{path}")).header("content-type", "application/json");
        request.bearer_auth(&token).body(body)
    };
    let answer = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(!text.contains("c4nary"), "{text}");
        let said: Value = serde_json::from_str(&text).unwrap();
        (status, said["result"].as_str().unwrap().to_owned(), said["reason"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |status: u16, result: &str, reason: &str| (status, result.to_owned(), reason.to_owned());
    let fine = |result: &str| refused(200, result, "");

    let (mut accepted, mut rejected) = (0, 0);
    let tell = |path: &str, (kind, body): &Told| {
        let request = post(path, body.to_string());
        if kind.is_empty() { request } else { request.header("ce-type", *kind) }
    };
    for (path, end, nothing) in ways() {
        assert_eq!(answer(tell(path, &end)).await, fine("accepted"), "{path}");
        accepted += 1;
        assert_eq!(station.stats().await.accepted, accepted, "durable when answered");
        assert_eq!(answer(tell(path, &end)).await, fine("duplicate"), "{path}");
        assert_eq!(answer(tell(path, &nothing)).await, fine("ignored"), "{path}");
        assert_eq!(answer(post(path, "{\"c4nary\": ".into())).await, refused(400, "rejected", "bad_json"));
        assert_eq!(answer(post(path, beat("c4nary"))).await.0, 400, "{path}");
        assert_eq!(answer(post(path, " ".repeat(2 << 20))).await, refused(413, "rejected", "too_large"));
        rejected += 3;
        let kind = "content-type";
        let bare = || client.post(format!("{url}{path}")).body(end.1.to_string());
        assert_eq!(answer(bare().header(kind, "application/json")).await, refused(401, "refused", "token"));
        let plain = bare().bearer_auth(&token).header(kind, "text/plain");
        assert_eq!(answer(plain).await, refused(415, "refused", "content_type"));
        let small = tell(path, &end).header("content-encoding", "gzip");
        assert_eq!(answer(small).await, refused(415, "refused", "content_encoding"));
        let answer = tell(path, &end).header("host", "example.org").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 403);
    }
    assert_eq!(answer(post("/tasks/c4nary", "{}".into())).await, refused(404, "refused", "scheduler"));
    let foreign = lineage("COMPLETE", "3").to_string().replace("prod", "dev");
    assert_eq!(answer(post("/api/v1/lineage", foreign)).await, refused(403, "rejected", "forbidden"));
    // An agent's own token for its notifications, and nobody else's way in.
    let with_token = |path: &str, token: &str, (_, body): &Told| {
        let request = client.post(format!("{url}{path}")).header("content-type", "application/a2a+json");
        request.header("x-a2a-notification-token", token).body(body.to_string())
    };
    for (path, end, _) in ways() {
        let expected = if path.contains("a2a") { fine("duplicate") } else { refused(401, "refused", "token") };
        assert_eq!(answer(with_token(path, &token, &end)).await, expected, "{path}");
        assert_eq!(answer(with_token(path, &token[1..], &end)).await.0, 401, "{path}");
    }
    // A large one: of what is not read there may be much.
    let mut large = lineage("FAIL", "4");
    large["outputs"] = json!("x".repeat(900_000));
    assert_eq!(answer(post("/api/v1/lineage", large.to_string())).await, fine("accepted"));
    let stats = station.stats().await;
    let counts = (stats.accepted, stats.rejected, stats.duplicates, stats.consumed);
    let duplicates = i64::try_from(ways().len()).unwrap() + 2;
    let (accepted, rejected) = (accepted + 1, rejected + 1);
    assert_eq!(counts, (accepted, rejected, duplicates, accepted + rejected + duplicates));
    let page = station.intake.metrics.render();
    let ignored = format!("curfew_events_total{{result=\"ignored\",topic=\"curfew.tasks\"}} {}", ways().len());
    assert!(page.contains(&ignored), "{page}");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_topic_is_read_in_its_format_and_what_says_nothing_moves_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    let own = topic(1).await;
    let mut formats = std::collections::BTreeMap::new();
    for format in Format::SCHEDULERS {
        formats.insert(topic(1).await, format);
    }
    let all: Vec<&str> = formats.keys().chain([&own]).map(String::as_str).collect();
    let station = Station::open(dir.path(), &all);
    let member = || {
        station.join_with(|settings| {
            for topic in &mut settings.topics {
                topic.format = formats.get(&*topic.name).copied().unwrap_or_default();
            }
        })
    };
    let theirs = formats.iter().find(|(_, format)| **format == Format::OpenLineage).unwrap().0;
    let others: Vec<_> = formats.iter().filter(|(topic, _)| *topic != theirs).collect();
    let pen = Pen::new();
    pen.beat(&own, 0, "1").await;
    // As OpenLineage's Kafka transport sends them: no headers.
    for kind in ["START", "RUNNING", "OTHER", "COMPLETE", "COMPLETE", "OTHER"] {
        pen.raw(theirs, 0, Some(lineage(kind, "1").to_string().as_bytes()), &[]).await;
    }
    for (topic, format) in &others {
        let path = format!("/tasks/{}", format.as_str());
        let (_, end, nothing) = ways().into_iter().find(|(way, ..)| *way == path).unwrap();
        for (kind, body) in [end, nothing] {
            let headers = [("ce_type", Some(kind.as_bytes())), ("content-type", Some(&b"application/json"[..]))];
            let headers = if kind.is_empty() { &headers[1..] } else { &headers };
            pen.raw(topic, 0, Some(body.to_string().as_bytes()), headers).await;
        }
    }
    pen.raw(theirs, 0, Some(beat("2").as_bytes()), &[("content-type", Some(STRUCTURED.as_bytes()))]).await;
    pen.raw(theirs, 0, Some(lineage("OTHER", "1").to_string().as_bytes()), &[]).await;
    let running = member();
    let at = async |topic: &str| -> i64 {
        let clusters = station.journal.clusters().await.unwrap();
        let Some(cluster) = clusters.first() else { return 0 };
        let position = station.journal.position(&cluster.id, topic, 0).await.unwrap();
        position.map_or(0, |position| position.next_offset)
    };
    until("all to be read", || async {
        for (topic, _) in &others {
            if at(topic).await != 2 {
                return None;
            }
        }
        ((at(&own).await, at(theirs).await) == (1, 8)).then_some(())
    })
    .await;
    let stats = station.stats().await;
    assert_eq!((stats.accepted, stats.duplicates, stats.rejected), (7, 1, 1));
    assert_eq!(stats.consumed, 9, "what says nothing is only counted");
    let page = station.intake.metrics.render();
    let counted = |topic: &str, result: &str, count: usize| {
        let line = format!("curfew_events_total{{result=\"{result}\",topic=\"{topic}\"}} {count}\n");
        assert!(page.contains(&line), "{line} {page}");
    };
    counted(theirs, "ignored", 3);
    for (topic, _) in &others {
        counted(topic, "accepted", 1);
        counted(topic, "ignored", 1);
    }
    running.leave().await;
}
