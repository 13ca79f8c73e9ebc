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
    assert_eq!(status(post(beat("3")).header("host", "example.org")).await, 403);
    assert_eq!(station.stats().await.accepted, 1);

    let get = |path: &str| client.get(format!("{url}{path}"));
    assert_eq!(status(get("/healthz")).await, 200);
    assert_eq!(status(get("/readyz")).await, 503);
    assert_eq!(status(get("/metrics")).await, 200);
    assert_eq!(status(get("/metrics").header("host", "evil.example")).await, 403);
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
