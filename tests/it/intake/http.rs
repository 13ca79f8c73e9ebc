//! The way in over HTTP.

use super::*;
use curfew::http::{self, Door};
use std::os::unix::fs::PermissionsExt;

async fn door(station: &Station, dir: &Path) -> (String, String, CancellationToken) {
    let path = dir.join("token");
    http::create_token(&path).unwrap();
    let token = std::fs::read_to_string(&path).unwrap();
    let door = Door {
        intake: station.intake.clone(),
        token: Arc::new(http::read_token(&path).unwrap()),
        topic: "curfew.tasks".into(),
        tenant: "default".into(),
    };
    let ready: http::Ready = Arc::new(|| Err("sealed".to_owned()));
    let router = http::events(door).merge(http::observability(station.intake.metrics.clone(), ready));
    let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(http::serve(listener, router, stop.clone()));
    (url, token, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_knows_the_token_and_2xx_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let station = Station::open(dir.path(), &[]);
    let (url, token, stop) = door(&station, dir.path()).await;
    let client = reqwest::Client::new();
    let post = |body: String| {
        let request = client.post(format!("{url}/events")).header("content-type", "application/cloudevents+json");
        request.bearer_auth(&token).body(body)
    };
    let status = |request: reqwest::RequestBuilder| async { request.send().await.unwrap().status().as_u16() };

    assert_eq!(status(post(beat("1"))).await, 200);
    assert_eq!(station.stats().await.accepted, 1, "durable when answered");
    let again: serde_json::Value = post(beat("1")).send().await.unwrap().json().await.unwrap();
    assert_eq!(again["result"], "duplicate");
    assert_eq!(status(post(beat("1").replace("run-1", "run-2"))).await, 409);
    let answer = post("{\"canary\": ".into()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    let text = answer.text().await.unwrap();
    assert!(text.contains("bad_json") && !text.contains("canary"), "{text}");
    assert_eq!(status(post(beat("2").replace("task.heartbeat", "operator.revoke"))).await, 403);
    assert_eq!(status(post(" ".repeat(300_000))).await, 413);

    let bare = || client.post(format!("{url}/events")).body(beat("3"));
    let kind = "application/cloudevents+json";
    assert_eq!(status(bare().header("content-type", kind)).await, 401);
    assert_eq!(status(bare().header("content-type", kind).bearer_auth("wrong")).await, 401);
    assert_eq!(status(bare().header("content-type", kind).bearer_auth(&token[1..])).await, 401);
    assert_eq!(status(bare().header("content-type", "application/json").bearer_auth(&token)).await, 415);
    assert_eq!(status(bare().header("content-type", "application/cloudevents").bearer_auth(&token)).await, 415);
    assert_eq!(status(post(beat("3")).header("host", "example.org")).await, 403);
    assert_eq!(station.stats().await.accepted, 1);

    let get = |path: &str| client.get(format!("{url}{path}"));
    assert_eq!(status(get("/healthz")).await, 200);
    assert_eq!(status(get("/readyz")).await, 503);
    assert_eq!(status(get("/metrics")).await, 200);
    assert_eq!(status(get("/metrics").header("host", "evil.example")).await, 403);
    stop.cancel();
}

/// What is answered to a body of chunks; without its `end` the caller hangs up in the middle.
async fn in_pieces(url: &str, token: &str, body: &str, end: bool) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let host = url.strip_prefix("http://").unwrap();
    let mut line = tokio::net::TcpStream::connect(host).await.unwrap();
    let head = "content-type: application/cloudevents+json\r\ntransfer-encoding: chunked\r\nconnection: close";
    let head = format!("POST /events HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n{head}\r\n\r\n");
    let chunks = body.as_bytes().chunks(10_000);
    let chunks = chunks.map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
    let sent = format!("{head}{}{}", chunks.collect::<String>(), if end { "0\r\n\r\n" } else { "" });
    // The answer may come, and the connection end, before all was sent.
    line.write_all(sent.as_bytes()).await.ok();
    if !end {
        line.shutdown().await.ok();
    }
    let mut answer = Vec::new();
    line.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_becomes_a_reject_without_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let station = Station::open(dir.path(), &[]);
    let (url, token, stop) = door(&station, dir.path()).await;
    let client = reqwest::Client::new();
    let most = station.intake.limits.max_bytes;
    let canary = "c4nary-".repeat(most / 7 + 1);
    let event = beat("1");
    let padded = |size: usize| format!("{event}{}", " ".repeat(size - event.len()));
    let kind = "application/cloudevents+json";
    let posts: Vec<(&str, reqwest::Body, u16, &str, usize)> = vec![
        ("text/plain", event.clone().into(), 415, "bad_envelope", event.len()),
        ("application/cloudevents-batch+json", event.clone().into(), 415, "bad_envelope", event.len()),
        (kind, canary.clone().into(), 413, "too_large", most + 1),
        (kind, padded(most + 1).into(), 413, "too_large", most + 1),
        ("text/plain", padded(most + 1).into(), 413, "too_large", most + 1),
        (kind, "{\"c4nary-\": ".into(), 400, "bad_json", 12),
        (kind, "".into(), 400, "bad_json", 0),
    ];
    let rejects = i64::try_from(posts.len()).unwrap();
    let mut expected = Vec::new();
    for (kind, body, status, reason, size) in posts {
        expected.push((reason.to_owned(), size as u64));
        let request = client.post(format!("{url}/events")).header("content-type", kind).header("ce-id", "c4nary-");
        let answer = request.bearer_auth(&token).body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{reason}");
        assert!(!answer.text().await.unwrap().contains("c4nary-"));
    }
    let stats = station.stats().await;
    assert_eq!((stats.consumed, stats.rejected, stats.accepted), (rejects, rejects, 0));
    let rows = station.journal.outbox(0, 100).await.unwrap();
    assert!(rows.iter().all(|row| !String::from_utf8_lossy(&row.body).contains("c4nary-")));
    let told = rows.iter().map(|row| serde_json::from_slice::<serde_json::Value>(&row.body).unwrap()["data"].take());
    let told: Vec<_> = told
        .map(|data| {
            assert_eq!((&data["cluster"], &data["topic"]), (&json!("http"), &json!("curfew.tasks")));
            (data["reason"].as_str().unwrap().to_owned(), data["size_bytes"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(told, expected);
    // As large as may be, and not one byte more.
    let request = client.post(format!("{url}/events")).header("content-type", kind).bearer_auth(&token);
    assert_eq!(request.body(padded(most)).send().await.unwrap().status().as_u16(), 200);
    assert_eq!(station.stats().await.accepted, 1);

    // Pieces without a length before them: only reading tells how large it is. Who breaks off has sent nothing.
    assert!(in_pieces(&url, &token, &canary, true).await.starts_with("HTTP/1.1 413"));
    assert!(!in_pieces(&url, &token, &event, false).await.starts_with("HTTP/1.1 2"));
    assert!(in_pieces(&url, &token, &event, true).await.starts_with("HTTP/1.1 200"));
    let stats = station.stats().await;
    assert_eq!((stats.consumed, stats.rejected, stats.duplicates), (rejects + 3, rejects + 1, 1));
    stop.cancel();
}

#[tokio::test]
async fn a_token_that_others_can_read_is_refused_and_so_is_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    http::create_token(&path).unwrap();
    assert!(http::create_token(&path).is_err(), "an existing one is not overwritten");
    assert!(http::read_token(&path).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(http::read_token(&path).is_err());
    assert!(http::listen("0.0.0.0:0".parse().unwrap()).await.is_err());
}
