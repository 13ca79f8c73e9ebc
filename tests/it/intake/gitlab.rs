//! GitLab's token revocation service, as GitLab calls it.

use curfew::event::{Says, Type};
use curfew::finding::Phase;
use curfew::fingerprint::{Keyring, Keys, new_key};
use curfew::http::gitlab::{Revocations, revocations};
use curfew::http::{self, Door};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::DropGuard;

use super::*;

const TOKEN: &str = "c4nary-r8Ft2pXq9Lm4Zs7Vb3N";
const KIND: &str = "gitleaks_rule_id_our_token";

struct Service {
    station: Station,
    url: String,
    token: String,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Service {
    async fn open(says: Option<Says>, keys: impl FnOnce(Keys) -> Keyring) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut station = Station::open(dir.path(), &[]);
        station.intake.types = says.map(|says| Arc::new([("curfew.findings".to_owned(), says)].into()));
        new_key(&dir.path().join("keys"), false, None).unwrap();
        let path = dir.path().join("token");
        http::create_token(&path).unwrap();
        let token = Arc::new(http::read_token(&path).unwrap());
        let router = revocations(Revocations {
            door: Door {
                intake: station.intake.clone(),
                token: token.clone(),
                topic: "curfew.findings".into(),
                tenant: "default".into(),
            },
            keys: keys(Keys::read(&dir.path().join("keys")).unwrap()),
            token,
            types: [KIND.to_owned()].into(),
        });
        let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(http::serve(listener, router, stop.clone()));
        let token = std::fs::read_to_string(path).unwrap();
        Self { station, url, token, client: reqwest::Client::new(), _dir: dir, _stop: stop.drop_guard() }
    }

    fn revoke(&self, body: &Value) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}/v1/revoke_tokens", self.url));
        // GitLab sends its token bare.
        request.header("authorization", &self.token).header("content-type", "application/json").body(body.to_string())
    }

    async fn status(&self, request: reqwest::RequestBuilder) -> u16 {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(!text.contains("c4nary"), "{text}");
        status
    }

    fn counted(&self, result: &str) -> u64 {
        let page = self.station.intake.metrics.render();
        let line = format!("curfew_webhooks_total{{result=\"{result}\",source=\"gitlab\"}} ");
        page.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }
}

fn leaked(commit: &str) -> Value {
    let location = format!("https://git.test/g/p/-/blob/{commit}/conf/a.yaml#L5");
    json!([{"type": KIND, "token": TOKEN, "location": location, "vulnerability": {"title": TOKEN}},
        {"type": KIND, "token": null, "location": "https://git.test/g/p/-/blob/0a/b#L1"}])
}

#[tokio::test(flavor = "multi_thread")]
async fn leaked_tokens_are_durable_when_they_are_taken_and_once() {
    let service = Service::open(None, Keyring::from).await;
    let types = |token: &str| {
        service.client.get(format!("{}/v1/revocable_token_types", service.url)).header("authorization", token)
    };
    let answer = types(&service.token).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"types": [KIND]}));
    assert_eq!(service.status(types(&format!("Bearer {}", service.token))).await, 200);
    assert_eq!(service.status(types("c4nary")).await, 401);

    assert_eq!(service.status(service.revoke(&leaked("0a1b"))).await, 204);
    assert_eq!(service.station.stats().await.accepted, 2, "durable when answered");
    let found = service.station.journal.findings(false, 10).await.unwrap();
    let one = found.iter().find(|one| !one.fingerprints.is_empty()).unwrap();
    assert_eq!((one.public, one.phase), (true, Phase::Unmatched));
    assert_eq!(one.place.as_deref(), Some("https://git.test/g/p conf/a.yaml:5"));
    // The next pipeline sends all of it again.
    assert_eq!(service.status(service.revoke(&leaked("2c3d"))).await, 204);
    assert_eq!((service.counted("accepted"), service.counted("replayed")), (1, 1));

    // All or nothing: the right ones wait for a request that is right.
    let other = |change: Value| json!([leaked("4e5f")[0], change]);
    for body in [
        other(json!({"type": "gitleaks_rule_id_other", "token": "c4nary-of-another"})),
        other(json!({"token": "c4nary-of-another"})),
        other(json!("c4nary")),
        leaked("4e5f")[0].clone(),
    ] {
        assert_eq!(service.status(service.revoke(&body)).await, 400);
    }
    let unreadable = service.revoke(&Value::Null).body("[{\"type\": \"c4nary");
    assert_eq!(service.status(unreadable).await, 400);
    let mut plain = service.revoke(&leaked("0")).build().unwrap();
    plain.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(service.status(reqwest::RequestBuilder::from_parts(service.client.clone(), plain)).await, 415);
    let huge = " ".repeat(curfew::http::findings::MAX_REPORT_BYTES + 1);
    assert_eq!(service.status(service.revoke(&Value::Null).body(huge)).await, 413);
    assert_eq!(service.counted("unreadable"), 7);
    let forged = service.client.post(format!("{}/v1/revoke_tokens", service.url)).header("authorization", "c4nary");
    assert_eq!(service.status(forged.body(leaked("0").to_string())).await, 401);
    assert_eq!(service.counted("forged"), 2);
    let wrong = service.client.get(format!("{}/v1/revoke_tokens", service.url)).header("authorization", &service.token);
    assert_eq!(service.status(wrong).await, 405);
    assert_eq!(service.status(service.revoke(&leaked("0")).header("host", "example.org")).await, 403);
    let stats = service.station.stats().await;
    assert_eq!((stats.accepted, stats.duplicates, stats.rejected), (2, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_now_is_sent_again() {
    let (give, later) = Keyring::later();
    let mut kept = None;
    let service = Service::open(None, |keys| {
        kept = Some(keys);
        later
    })
    .await;
    assert_eq!(service.status(service.revoke(&leaked("0a1b"))).await, 503, "Vault has not unwrapped the keys");
    assert_eq!(service.station.stats().await.consumed, 0);
    give.send(kept).unwrap();
    // Callers that hang in the middle of their bodies take all the seats there are.
    let host = service.url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /v1/revoke_tokens HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\ncontent-type: application/json\r\n\
         content-length: 2\r\nconnection: close\r\n\r\n[",
        service.token
    );
    let slow = tokio::sync::Mutex::new(Vec::new());
    until("all seats to be taken", || async {
        let mut line = tokio::net::TcpStream::connect(host).await.unwrap();
        line.write_all(head.as_bytes()).await.unwrap();
        slow.lock().await.push(line);
        let answer = service.revoke(&leaked("0a1b")).send().await.unwrap();
        if answer.status().as_u16() != 429 {
            assert_eq!(answer.status().as_u16(), 204);
            return None;
        }
        assert!(answer.headers().contains_key("retry-after"));
        Some(())
    })
    .await;
    assert!(service.counted("busy") > 0);
    let mut seated = 0;
    for mut line in slow.into_inner() {
        // One that came while the seats were taken was refused, and may be gone.
        line.write_all(b"]").await.ok();
        let mut answer = Vec::new();
        line.read_to_end(&mut answer).await.ok();
        seated += usize::from(answer.starts_with(b"HTTP/1.1 204"));
    }
    assert_eq!(seated, 4);
    assert_eq!(service.status(service.revoke(&leaked("0a1b"))).await, 204, "the seats are free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_take_findings_is_no_reason_to_lose_them_quietly() {
    let says = Says { types: [Type::FindingClosed].into(), ..Says::default() };
    let service = Service::open(Some(says), Keyring::from).await;
    assert_eq!(service.status(service.revoke(&leaked("0a1b"))).await, 500);
    assert_eq!(service.counted("refused"), 1);
}
