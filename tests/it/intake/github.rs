//! GitHub's webhooks: what is forged, old or said before has no effect; what is right is durable when it is answered.

use curfew::finding::{Finding, Phase};
use curfew::fingerprint::{Fingerprint, Keys, new_key};
use curfew::http::github::{Webhooks, webhooks};
use curfew::http::{self, Door};
use serde_json::Value;
use tokio_util::sync::DropGuard;

use super::*;
use crate::github::{GitHub, Says, api, signature, webhook};

const DAY_MS: i64 = 86_400_000;
const SECRET: &str = "c4nary-r8Ft2pXq9Lm4Zs7Vb3N";

struct Hook {
    station: Station,
    github: GitHub,
    url: String,
    secret: String,
    keys: Keys,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Hook {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let station = Station::open(dir.path(), &[]);
        new_key(&dir.path().join("keys"), false, None).unwrap();
        let keys = Keys::read(&dir.path().join("keys")).unwrap();
        let made = |name: &str| {
            http::create_token(&dir.path().join(name)).unwrap();
            std::fs::read_to_string(dir.path().join(name)).unwrap()
        };
        let (secret, token) = (made("secret"), made("token"));
        let github = GitHub::start(&token).await;
        let api = api(&github.url, dir.path().join("token"));
        let read = |name: &str| Arc::new(http::read_token(&dir.path().join(name)).unwrap());
        let router = webhooks(Webhooks {
            door: Door {
                intake: station.intake.clone(),
                token: read("token"),
                topic: "curfew.findings".into(),
                tenant: "default".into(),
            },
            keys: keys.clone().into(),
            secret: read("secret"),
            max_age_ms: 7 * DAY_MS,
            api: Some(Arc::new(curfew::github::connect(api).unwrap())),
        });
        let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}/webhooks/github", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(http::serve(listener, router, stop.clone()));
        let _stop = stop.drop_guard();
        Self { station, github, url, secret, keys, client: reqwest::Client::new(), _dir: dir, _stop }
    }

    fn now_ms(&self) -> i64 {
        self.station.intake.clock.wall_ms()
    }

    /// As GitHub sends it.
    fn request(&self, delivery: &str, body: &str) -> reqwest::RequestBuilder {
        self.signed_by(&self.secret, delivery, body)
    }

    fn signed_by(&self, secret: &str, delivery: &str, body: &str) -> reqwest::RequestBuilder {
        let request = self.client.post(&self.url).header("content-type", "application/json");
        let request = request.header("x-github-delivery", delivery).header("x-github-event", "secret_scanning_alert");
        request.header("x-hub-signature-256", signature(secret, body)).body(body.to_owned())
    }

    /// The status, and what it says became of it.
    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(!text.contains("c4nary"), "{text}");
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        (status, said["result"].as_str().unwrap_or_default().to_owned())
    }

    async fn findings(&self) -> Vec<Finding> {
        self.station.journal.findings(false, 100).await.unwrap()
    }

    /// `curfew_webhooks_total` of a result.
    fn counted(&self, result: &str) -> u64 {
        let page = self.station.intake.metrics.render();
        let line = format!("curfew_webhooks_total{{result=\"{result}\",source=\"github\"}} ");
        page.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }

    fn prints(&self) -> Vec<Fingerprint> {
        self.keys.of(SECRET)
    }
}

fn said(status: u16, result: &str) -> (u16, String) {
    (status, result.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_old_or_said_before_has_no_effect_and_is_counted() {
    let hook = Hook::open().await;
    hook.github.says(42, Says::Secret(SECRET.to_owned()));
    let body = webhook("created", 42, hook.now_ms()).to_string();
    assert_eq!(hook.send(hook.request("0a1b-1", &body)).await, said(200, "accepted"));
    assert_eq!(hook.station.stats().await.accepted, 1, "durable when answered");
    let known = hook.findings().await;
    assert_eq!((known.len(), &*known[0].key), (1, "github/octo/hello/42"));
    assert_eq!((known[0].fingerprints.clone(), known[0].phase), (hook.prints(), Phase::Unmatched));

    // Again, as GitHub delivers again; and by somebody who gave it another id, which nobody signed.
    for delivery in ["0a1b-1", "0a1b-2", ""] {
        assert_eq!(hook.send(hook.request(delivery, &body)).await, said(200, "duplicate"), "{delivery}");
    }
    assert_eq!(hook.counted("replayed"), 3);

    let edited = body.replace("octo/hello", "octo/other");
    let of = |signed: &str, sent: &str| {
        let request = hook.client.post(&hook.url).header("content-type", "application/json").body(sent.to_owned());
        let request = request.header("x-github-delivery", "0a1b-3").header("x-github-event", "secret_scanning_alert");
        request.header("x-hub-signature-256", signature(&hook.secret, signed))
    };
    let bare = hook.client.post(&hook.url).header("content-type", "application/json").body(edited.clone());
    let forgeries = [
        of(&body, &edited),
        of(&body, &format!("{body} ")),
        of(&body, ""),
        hook.signed_by("It's a Secret to Everybody", "0a1b-4", &edited),
        bare.try_clone().unwrap(),
        bare.try_clone().unwrap().header("x-hub-signature-256", "sha256="),
        // The older one, of SHA-1, is not asked.
        bare.header("x-hub-signature", signature(&hook.secret, &edited).replace("sha256", "sha1")),
    ];
    let count = forgeries.len() as u64;
    for forgery in forgeries {
        assert_eq!(hook.send(forgery).await.0, 401);
    }
    assert_eq!(hook.counted("forged"), count);

    // Signed, and of another time than now.
    for at_ms in [hook.now_ms() - 8 * DAY_MS, hook.now_ms() + DAY_MS] {
        let body = webhook("created", 43, at_ms).to_string();
        assert_eq!(hook.send(hook.request("0a1b-5", &body)).await.0, 403);
    }
    assert_eq!(hook.counted("stale"), 2);

    // Signed, and no alert.
    let large = format!("\"{}\"", "x".repeat(1024 * 1024));
    let mut other = webhook("created", 44, hook.now_ms());
    other["alert"]["secret_type"] = Value::Null;
    for (body, status) in [("c4nary", 400), ("{}", 400), (&*other.to_string(), 400), (&*large, 413)] {
        assert_eq!(hook.send(hook.request("0a1b-6", body)).await.0, status);
    }
    let mut form = hook.request("0a1b-7", &body).build().unwrap();
    form.headers_mut().insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    assert_eq!(hook.send(reqwest::RequestBuilder::from_parts(hook.client.clone(), form)).await.0, 415);
    assert_eq!(hook.counted("unreadable"), 5);
    assert_eq!(hook.send(hook.request("0a1b-8", &body).header("host", "example.org")).await.0, 403);

    // Signed, and nothing that matters.
    let assigned = webhook("assigned", 45, hook.now_ms()).to_string();
    assert_eq!(hook.send(hook.request("0a1b-9", &assigned)).await, said(200, "ignored"));
    let ping = json!({"zen": "c4nary", "hook_id": 1}).to_string();
    let ping = hook.client.post(&hook.url).header("x-hub-signature-256", signature(&hook.secret, &ping)).body(ping);
    assert_eq!(hook.send(ping.header("x-github-event", "ping")).await, said(200, "ignored"));
    assert_eq!(hook.counted("ignored"), 2);

    let stats = hook.station.stats().await;
    assert_eq!((stats.accepted, stats.duplicates, stats.rejected), (1, 3, 0));
    assert_eq!(hook.findings().await, known, "nothing of it had an effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_one_finding_that_is_placed_closed_and_opened_again() {
    let hook = Hook::open().await;
    hook.github.says(42, Says::Secret(SECRET.to_owned()));
    let said_of = async |event: Value| hook.send(hook.request("0a1b-1", &event.to_string())).await;
    let one = async || {
        let mut found = hook.findings().await;
        assert_eq!(found.len(), 1);
        found.remove(0)
    };
    assert_eq!(said_of(webhook("created", 42, hook.now_ms())).await, said(200, "accepted"));
    // A place has no time of its own, and its alert may be old.
    let mut placed = webhook("created", 42, hook.now_ms() - 100 * DAY_MS);
    placed["location"] = json!({"type": "commit", "details": {"path": format!("conf/{SECRET}"), "start_line": 7,
        "commit_sha": "0a1b", "blob_url": "http://127.0.0.1:1/elsewhere"}});
    assert_eq!(said_of(placed).await, said(200, "accepted"));
    assert_eq!(one().await.place.as_deref(), Some("octo/hello conf/***:7"));
    assert_eq!(said_of(webhook("publicly_leaked", 42, hook.now_ms())).await, said(200, "accepted"));
    assert!(one().await.public);
    let calls = hook.github.calls();
    let mut resolved = webhook("resolved", 42, hook.now_ms());
    resolved["alert"]["resolution"] = json!("false_positive");
    assert_eq!(said_of(resolved).await, said(200, "accepted"));
    assert_eq!((one().await.phase, hook.github.calls()), (Phase::Closed, calls), "what is closed needs no secret");
    assert_eq!(said_of(webhook("validated", 42, hook.now_ms() + 1)).await, said(200, "accepted"));
    assert_eq!(one().await.phase, Phase::Closed, "closed is closed");
    assert_eq!(said_of(webhook("reopened", 42, hook.now_ms() + 2)).await, said(200, "accepted"));
    assert_eq!(one().await.phase, Phase::Unmatched);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_of_the_api_a_finding_is_durable_and_a_second_delivery_brings_the_fingerprint() {
    let hook = Hook::open().await;
    let answers = [
        Says::Status(404),
        Says::Status(429),
        Says::Status(500),
        Says::Status(204),
        Says::Elsewhere,
        Says::Text("c4nary".to_owned()),
        Says::Text(json!({"number": 1, "secret": SECRET}).to_string()),
        Says::Text(format!("\"{}\"", "c4nary".repeat(100_000))),
        Says::Nothing,
    ];
    // Whoever follows is led here.
    hook.github.says(1, Says::Secret(SECRET.to_owned()));
    for (number, says) in (10..).zip(answers) {
        hook.github.says(number, says);
        let body = webhook("created", number, hook.now_ms()).to_string();
        assert_eq!(hook.send(hook.request("0a1b-1", &body)).await, said(502, "accepted"), "alert {number}");
        let key = format!("github/octo/hello/{number}");
        let find = async || hook.findings().await.into_iter().find(|one| one.key == key).unwrap();
        let found = find().await;
        assert_eq!((found.phase, found.fingerprints.len()), (Phase::Unmatched, 0), "alert {number}");
        hook.github.says(number, Says::Secret(SECRET.to_owned()));
        assert_eq!(hook.send(hook.request("0a1b-1", &body)).await, said(200, "accepted"), "alert {number}");
        assert_eq!(find().await.fingerprints, hook.prints(), "alert {number}");
    }
    assert_eq!((hook.counted("without_fingerprint"), hook.counted("accepted")), (9, 9));
    // A token that GitHub does not take is no reason to lose it either.
    std::fs::write(hook._dir.path().join("token"), "of somebody else altogether").unwrap();
    let body = webhook("created", 99, hook.now_ms()).to_string();
    assert_eq!(hook.send(hook.request("0a1b-1", &body)).await, said(502, "accepted"));
}
