//! GitHub's webhooks about alerts of secret scanning: signed over the body, and only the body is believed.
//!
//! In this order: the signature, over the bytes as they came; what the body is about; its time; then the secret is asked
//! for at GitHub's API, within a time-out; then it is durable, and only then answered. The delivery's id and its kind stand
//! in headers that nobody signs: a body that comes again under another id is the same event, and a duplicate.

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router, middleware};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tokio::sync::Semaphore;

use super::findings::{self, NotWhole};
use super::{Door, explain, loopback_only, media, refuse, unavailable};
use crate::event::adapters::github::{EVENTS, Heard, read};
use crate::event::adapters::{Converted, MAX_ITEM_BYTES};
use crate::fingerprint::Keyring;
use crate::github::{Client, Silent};
use crate::telemetry::died;

const SOURCE: &str = "github";
const SIGNATURE: &str = "x-hub-signature-256";
const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";
/// Calls of GitHub's API at once; others wait within their own time-outs.
const AT_ONCE: usize = 8;

/// What GitHub's webhooks need.
#[derive(Clone)]
pub struct Webhooks {
    /// As for findings.
    pub door: Door,
    /// By which secrets are fingerprinted.
    pub keys: Keyring,
    /// What the bodies are signed with.
    pub secret: Arc<SecretString>,
    /// How old an event may be. Older than what the journal remembers, a repeat would be news.
    pub max_age_ms: i64,
    /// Where secrets are asked for; `None`: findings have no fingerprint.
    pub api: Option<Arc<Client>>,
}

#[derive(Clone)]
struct Served(Webhooks, Arc<Semaphore>);

/// `POST /webhooks/github`.
pub fn webhooks(state: Webhooks) -> Router {
    Router::new()
        .route("/webhooks/github", post(webhook))
        .with_state(Served(state, Arc::new(Semaphore::new(AT_ONCE))))
        .layer(middleware::from_fn(loopback_only))
}

async fn webhook(State(served): State<Served>, headers: HeaderMap, body: Body) -> Response {
    let metrics = served.0.door.intake.metrics.clone();
    let (result, response) = taken(served, &headers, body).await;
    metrics.webhook(SOURCE, result);
    if !matches!(result, "accepted" | "replayed" | "ignored") {
        // The id is GitHub's, or anything: it is shown as what it may be only.
        let delivery = headers.get(DELIVERY).and_then(|id| id.to_str().ok()).filter(|id| is_delivery(id));
        tracing::warn!(result, delivery, "a webhook of GitHub was not taken, or not as a whole");
    }
    response
}

fn is_delivery(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// What it counts as, and the answer.
async fn taken(served: Served, headers: &HeaderMap, body: Body) -> (&'static str, Response) {
    let it = &served.0;
    let unreadable = |reason| ("unreadable", refuse(StatusCode::BAD_REQUEST, reason));
    let body = match findings::whole(body, headers, MAX_ITEM_BYTES).await {
        Ok(body) => body,
        Err(NotWhole::Broken) => return unreadable("body"),
        Err(NotWhole::TooLarge) => return ("unreadable", refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large")),
    };
    let Some(mac) = signature(headers, &body, &it.secret) else {
        return ("forged", refuse(StatusCode::UNAUTHORIZED, "signature"));
    };
    let kind = headers.get(EVENT).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !EVENTS.contains(&kind) {
        return ("ignored", Json(json!({"result": "ignored"})).into_response());
    }
    if media(headers) != "application/json" {
        let say = "set the webhook's content type to application/json";
        return ("unreadable", explain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", say));
    }
    // The signature is a mark that nobody has a guess at without the webhook's secret.
    let Ok(heard) = read(&body, &hex::encode(mac)) else { return unreadable("event") };
    drop(body);
    if !heard.is_timely(it.door.intake.clock.wall_ms(), it.max_age_ms) {
        return ("stale", refuse(StatusCode::FORBIDDEN, "time"));
    }
    // A caller that hangs up must not undo half a step: it goes on without it.
    let recorded = tokio::spawn(record(served, heard));
    recorded.await.unwrap_or_else(|error| {
        tracing::error!(why = died(&error), "recording a webhook of GitHub died");
        ("unavailable", unavailable())
    })
}

/// The one signature, where it is the body's. Compared in constant time.
fn signature(headers: &HeaderMap, body: &[u8], secret: &SecretString) -> Option<Vec<u8>> {
    let mut given = headers.get_all(SIGNATURE).iter();
    let (Some(one), None) = (given.next(), given.next()) else { return None };
    let mac = hex::decode(one.as_bytes().strip_prefix(b"sha256=")?).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    hmac::verify(&key, body, &mac).ok().map(|()| mac)
}

/// Asks for the secret, where it is needed, and makes it durable.
async fn record(Served(it, room): Served, heard: Heard) -> (&'static str, Response) {
    // Without them nothing is recorded: delivered again, it is matched.
    let Some(keys) = it.keys.now() else { return ("unavailable", unavailable()) };
    let (mut shown, mut is_whole) = (None, true);
    if heard.lacks_secret()
        && let Some(api) = &it.api
    {
        let asked = async {
            // The semaphore is never closed.
            let _seat = room.acquire().await.ok();
            api.secret_of(&heard.alert).await
        };
        match tokio::time::timeout(api.timeout(), asked).await.unwrap_or(Err(Silent::Away)) {
            Ok(secret) => shown = Some(secret),
            Err(why) => {
                is_whole = false;
                tracing::warn!(%why, alert = heard.alert.key(), "a finding of GitHub has no fingerprint");
            }
        }
    }
    let made: Vec<Converted> = heard.event(shown, Some(&keys)).into_iter().collect();
    if made.is_empty() {
        return ("ignored", Json(json!({"result": "ignored"})).into_response());
    }
    let counts = match findings::record(&it.door, made).await {
        Ok(counts) => counts,
        Err(failed) => {
            failed.log("a webhook of GitHub");
            return ("unavailable", unavailable());
        }
    };
    if counts.rejected > 0 {
        let say = "the topic of findings does not take this from /scanners/github";
        return ("refused", explain(StatusCode::FORBIDDEN, "topic", say));
    }
    if !is_whole {
        // It is durable, and not an answer that GitHub counts as a success: delivered again, it brings the fingerprint.
        let said = json!({"result": "accepted", "without_fingerprint": 1, "reason": "github_api"});
        return ("without_fingerprint", (StatusCode::BAD_GATEWAY, Json(said)).into_response());
    }
    let (counted, said) = if counts.accepted > 0 { ("accepted", "accepted") } else { ("replayed", "duplicate") };
    (counted, Json(json!({"result": said})).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_signature_is_githubs_own_example() {
        let secret = SecretString::from("It's a Secret to Everybody".to_owned());
        let right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let is = |values: &[&str], body: &[u8]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SIGNATURE, HeaderValue::from_str(value).unwrap());
            }
            signature(&headers, body, &secret).is_some()
        };
        assert!(is(&[right], b"Hello, World!"));
        assert!(!is(&[right], b"Hello, World."));
        let digits = &right["sha256=".len()..];
        let of_sha1 = format!("sha1={digits}");
        for wrong in ["", "sha256=", digits, &of_sha1, &right[..right.len() - 2], &right.replace('7', "8")] {
            assert!(!is(&[wrong], b"Hello, World!"), "{wrong}");
        }
        assert!(!is(&[right, right], b"Hello, World!"));
        assert!(!is(&[], b"Hello, World!"));
    }
}
