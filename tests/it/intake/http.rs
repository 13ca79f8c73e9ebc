//! The way in over HTTP.

use super::*;
use curfew::http::{self, Door};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) async fn door(station: &Station, dir: &Path) -> (String, String, CancellationToken) {
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
    let fresh: http::Fresh = Arc::new(|| Box::pin(async { true }));
    let router = http::events(door).merge(http::observability(station.intake.metrics.clone(), ready, fresh, true));
    let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(http::serve(listener, router, stop.clone()));
    (url, token, stop)
}

/// Of two answers of the journal one fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_what_the_journal_told_and_a_foreign_name_asks_it_nothing() {
    let (metrics, asked) = (Arc::new(Metrics::default()), Arc::new(AtomicUsize::new(0)));
    metrics.lead(true);
    let count = asked.clone();
    let fresh: http::Fresh = Arc::new(move || {
        let told = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        Box::pin(async move { told })
    });
    let router = http::observability(metrics, Arc::new(|| Ok(())), fresh, true);
    let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(http::serve(listener, router, stop.clone()));
    let client = reqwest::Client::new();
    let foreign = client.get(&url).header("host", "evil.example").send().await.unwrap();
    assert_eq!((foreign.status().as_u16(), asked.load(Ordering::Relaxed)), (403, 0));
    for told in [true, false] {
        let page = client.get(&url).send().await.unwrap().text().await.unwrap();
        assert_eq!(page.contains("\ncurfew_cases{"), told, "{page}");
        assert!(page.contains("\ncurfew_journal_writable "), "the process's own figures stand in each: {page}");
    }
    stop.cancel();
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

/// It is stamped by the clock that is doubted: else each event would make that clock agree with itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_over_http_says_nothing_about_the_clock() {
    use curfew::clock::Simulated;
    use curfew::deadlines::ClockTrust;
    let dir = tempfile::tempdir().unwrap();
    let mut station = Station::open(dir.path(), &[]);
    let clock = Simulated::at(station.intake.clock.wall_ms());
    let trust = ClockTrust::new(clock.clone());
    station.intake.clock = clock.clone();
    station.intake.trust = Some(trust.clone());
    let (url, token, stop) = door(&station, dir.path()).await;
    clock.step_wall_ms(3_600_000);
    assert!(!trust.check());
    let request = reqwest::Client::new().post(format!("{url}/events")).bearer_auth(&token);
    let answer = request.header("content-type", "application/cloudevents+json").body(beat("1")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(!trust.check());
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

/// A Gitleaks report with `secrets`, one finding each.
fn leaks(secrets: &[&str]) -> String {
    let leak = |(line, secret): (usize, &&str)| {
        json!({"RuleID": "generic-api-key", "StartLine": line, "StartColumn": 1, "Secret": secret, "File": "a",
            "Match": secret, "Fingerprint": format!("a:generic-api-key:{line}")})
    };
    secrets.iter().enumerate().map(leak).collect::<serde_json::Value>().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_a_scanner_is_durable_when_it_is_answered() {
    use curfew::event::{Says, Type};
    use curfew::fingerprint::{Keyring, Keys, new_key};
    use curfew::http::findings::{Findings, MAX_REPORT_BYTES};
    let dir = tempfile::tempdir().unwrap();
    let mut station = Station::open(dir.path(), &[]);
    let says = |kind| Says { types: [kind].into(), ..Says::default() };
    let topics = [("curfew.findings", Type::FindingObserved), ("curfew.tasks", Type::TaskEnded)];
    let topics = topics.map(|(topic, kind)| (topic.to_owned(), says(kind)));
    station.intake.types = Some(Arc::new(topics.into()));
    let path = dir.path().join("token");
    http::create_token(&path).unwrap();
    let token = std::fs::read_to_string(&path).unwrap();
    new_key(&dir.path().join("keys"), false, None).unwrap();
    let keys = Keys::read(&dir.path().join("keys")).unwrap();
    let serve = async |topic: &str, keys: Option<Keyring>| {
        let door = Door {
            intake: station.intake.clone(),
            token: Arc::new(http::read_token(&path).unwrap()),
            topic: topic.into(),
            tenant: "default".into(),
        };
        let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}/findings", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(http::serve(listener, http::findings::findings(Findings { door, keys }), stop.clone()));
        (url, stop.drop_guard())
    };
    let (give, later) = Keyring::later();
    let (url, _stop) = serve("curfew.findings", Some(later)).await;
    let client = reqwest::Client::new();
    let post = |url: &str, body: String| {
        client.post(url).bearer_auth(&token).header("content-type", "application/json").body(body)
    };
    let answer = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(!text.contains("c4nary"), "{text}");
        (status, serde_json::from_str(&text).unwrap_or(serde_json::Value::Null))
    };
    let gitleaks = format!("{url}/gitleaks?repository=o/r");

    let three = leaks(&["c4nary-one", "c4nary-two", "REDACTED"]);
    // Vault has not unwrapped the keys: the sender tries again, and nothing is recorded without a fingerprint.
    let (status, said) = answer(post(&gitleaks, three.clone())).await;
    assert!(status == 503 && said["say"].as_str().unwrap().contains("not unwrapped"), "{said}");
    assert_eq!(station.stats().await.accepted, 0);
    give.send(Some(keys.clone())).unwrap();
    let (status, said) = answer(post(&gitleaks, three.clone())).await;
    let whole = json!({"result": "accepted", "accepted": 3, "duplicates": 0, "rejected": 0, "without_fingerprint": 1,
        "unreadable": []});
    assert_eq!((status, &said), (200, &whole));
    assert_eq!(station.stats().await.accepted, 3, "durable when answered");
    let (status, said) = answer(post(&gitleaks, three)).await;
    assert_eq!((status, &said["accepted"], &said["duplicates"]), (200, &json!(0), &json!(3)));
    // One that cannot be read does not keep the others out, and is named.
    let torn = leaks(&["c4nary-four"]).replace("[{", "[{\"c4nary\": 1},\n{");
    let (status, said) = answer(post(&gitleaks, torn)).await;
    assert_eq!((status, &said["result"], &said["unreadable"]), (422, &json!("partly"), &json!([1])));
    assert_eq!(station.stats().await.accepted, 4);
    let many: Vec<String> = (0..1_200).map(|n| format!("c4nary-many-{n}")).collect();
    let (status, said) = answer(post(&gitleaks, leaks(&many.iter().map(String::as_str).collect::<Vec<_>>()))).await;
    assert_eq!((status, &said["accepted"]), (200, &json!(1_200)), "{said}");

    let one = leaks(&["c4nary-five"]);
    assert_eq!(answer(post(&format!("{url}/gitleaks"), one.clone())).await.0, 400, "whose repository?");
    assert_eq!(answer(post(&format!("{url}/c4nary"), one.clone())).await.0, 404);
    let plain = client.post(&gitleaks).bearer_auth(&token).header("content-type", "text/plain").body(one.clone());
    assert_eq!(answer(plain).await.0, 415);
    assert_eq!(answer(post(&gitleaks, one.clone()).header("host", "example.org")).await.0, 403);
    assert_eq!(answer(client.post(&gitleaks).body(one.clone())).await.0, 401);
    let (status, said) = answer(post(&gitleaks, " ".repeat(MAX_REPORT_BYTES + 1))).await;
    assert_eq!((status, &said["reason"]), (413, &json!("too_large")));
    let (without, _stop) = serve("curfew.findings", None).await;
    let (status, said) = answer(post(&format!("{without}/gitleaks?repository=o/r"), one.clone())).await;
    assert!(status == 501 && said["say"].as_str().unwrap().contains("fingerprint-key"), "{said}");
    let (tasks, _stop) = serve("curfew.tasks", Some(keys.into())).await;
    let (status, said) = answer(post(&format!("{tasks}/gitleaks?repository=o/r"), one)).await;
    assert_eq!((status, &said["rejected"]), (403, &json!(1)));
    assert_eq!(station.stats().await.accepted, 1_204);

    // One event, as at /events.
    let event = json!({"specversion": "1.0", "type": "dev.curfew.finding.observed.v1", "source": "/s", "id": "1",
        "data": {"finding_key": "k", "detector": "d"}});
    let event = client
        .post(&url)
        .bearer_auth(&token)
        .header("content-type", "application/cloudevents+json")
        .body(event.to_string());
    assert_eq!(answer(event).await.0, 200);
}
