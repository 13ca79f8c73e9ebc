//! GitHub's API for alerts of secret scanning, as its documentation describes it, and its webhooks' signature. A fake: no
//! GitHub runs here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What it says of an alert.
#[derive(Clone)]
pub enum Says {
    /// The alert, with this secret.
    Secret(String),
    /// No more than that.
    Status(u16),
    /// Whatever this is, as 200.
    Text(String),
    /// Look at alert 1.
    Elsewhere,
    /// Never.
    Nothing,
}

struct Inner {
    token: String,
    alerts: Mutex<BTreeMap<i64, Says>>,
    /// How alerts were resolved.
    resolved: Mutex<BTreeMap<i64, Value>>,
    calls: AtomicUsize,
}

pub struct GitHub {
    pub url: String,
    inner: Arc<Inner>,
    _stop: DropGuard,
}

impl GitHub {
    /// It answers to who has `token`.
    pub async fn start(token: &str) -> Self {
        let inner = Arc::new(Inner {
            token: token.to_owned(),
            alerts: Mutex::default(),
            resolved: Mutex::default(),
            calls: AtomicUsize::new(0),
        });
        let path = "/repos/{owner}/{repo}/secret-scanning/alerts/{number}";
        let router = Router::new().route(path, get(alert).patch(alert)).with_state(inner.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let told = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(told).await });
        Self { url, inner, _stop: stop.drop_guard() }
    }

    pub fn says(&self, number: i64, what: Says) {
        self.inner.alerts.lock().unwrap().insert(number, what);
    }

    /// Somebody else resolves it.
    pub fn resolve(&self, number: i64, how: Value) {
        self.inner.resolved.lock().unwrap().insert(number, how);
    }

    /// How it was resolved.
    pub fn resolution(&self, number: i64) -> Option<Value> {
        self.inner.resolved.lock().unwrap().get(&number).cloned()
    }

    /// How often it was asked.
    pub fn calls(&self) -> usize {
        self.inner.calls.load(Ordering::SeqCst)
    }
}

async fn alert(
    State(inner): State<Arc<Inner>>,
    Path((owner, repo, number)): Path<(String, String, i64)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: String,
) -> Response {
    inner.calls.fetch_add(1, Ordering::SeqCst);
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    // GitHub refuses who does not say what it is.
    if header("authorization") != format!("Bearer {}", inner.token) || header("user-agent").is_empty() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    assert_eq!(header("x-github-api-version"), "2022-11-28");
    let says = inner.alerts.lock().unwrap().get(&number).cloned();
    match says.unwrap_or(Says::Status(404)) {
        Says::Secret(secret) => {
            let mut resolved = inner.resolved.lock().unwrap();
            if !body.is_empty() {
                resolved.insert(number, serde_json::from_str(&body).unwrap());
            }
            let mut shown = shown(&owner, &repo, number, &secret);
            if query.as_deref() == Some("hide_secret=true") {
                shown["secret"] = "*****".into();
            }
            if let Some(how) = resolved.get(&number) {
                shown["state"] = "resolved".into();
                shown["resolution"] = how["resolution"].clone();
            }
            axum::Json(shown).into_response()
        }
        Says::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Says::Text(text) => text.into_response(),
        Says::Elsewhere => {
            Redirect::temporary(&format!("/repos/{owner}/{repo}/secret-scanning/alerts/1")).into_response()
        }
        Says::Nothing => std::future::pending().await,
    }
}

fn shown(owner: &str, repo: &str, number: i64, secret: &str) -> Value {
    json!({"number": number, "created_at": "2026-11-06T18:48:51Z", "state": "open", "resolution": null,
        "url": format!("https://api.github.com/repos/{owner}/{repo}/secret-scanning/alerts/{number}"),
        "secret_type": "adafruit_io_key", "secret": secret, "validity": "unknown", "is_base64_encoded": false,
        "first_location_detected": {"path": format!("conf/{secret}"), "start_line": 1}})
}

/// The way to it, with the token in `token_file`.
pub fn api(url: &str, token_file: PathBuf) -> curfew::github::Api {
    curfew::github::Api { url: url.to_owned(), token_file, ca_file: None, timeout_ms: 1_000 }
}

/// An alert as a webhook tells it, at `at_ms`.
pub fn webhook(action: &str, number: i64, at_ms: i64) -> Value {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
    json!({"action": action,
        "alert": {"number": number, "created_at": "2026-01-01T00:00:00Z", "updated_at": at,
            "url": "http://127.0.0.1:1/elsewhere", "html_url": "https://github.com/octo/hello/security/secret-scanning/42",
            "locations_url": "http://127.0.0.1:1/elsewhere", "resolution": null, "resolved_at": null,
            "secret_type": "adafruit_io_key", "secret_type_display_name": "Adafruit IO Key", "validity": "unknown",
            "publicly_leaked": false, "multi_repo": false},
        "repository": {"id": 1, "full_name": "octo/hello", "private": true, "url": "http://127.0.0.1:1/elsewhere"},
        "sender": {"login": "mona"}})
}

/// `X-Hub-Signature-256`.
pub fn signature(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())))
}
