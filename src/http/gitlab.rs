//! GitLab's token revocation service, served by Curfew: leaked tokens come in, and are findings.
//!
//! The contract is GitLab's: 204 when all of it is durable, 400 when the same would be refused again, 429 and 503 when it
//! is to be sent once more. It may be sent as often as GitLab likes: the same tokens are duplicates.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::Semaphore;

use super::findings::{self, Failed, NotWhole};
use super::{Door, explain, is_authorised, is_token, loopback_only, media, refuse, unavailable};
use crate::event::adapters::Given;
use crate::event::adapters::revocations::{self, Refused};
use crate::fingerprint::Keyring;
use crate::telemetry::died;

/// Requests that are read at once: each may hold as much as a report.
const AT_ONCE: usize = 4;
const SOURCE: &str = "gitlab";

/// What GitLab's calls need.
#[derive(Clone)]
pub struct Revocations {
    /// As for findings.
    pub door: Door,
    /// By which tokens are fingerprinted.
    pub keys: Keyring,
    /// What GitLab must send.
    pub token: Arc<SecretString>,
    /// The types of tokens that it may send.
    pub types: Arc<[String]>,
}

#[derive(Clone)]
struct Served(Revocations, Arc<Semaphore>);

/// `GET /v1/revocable_token_types` and `POST /v1/revoke_tokens`.
pub fn revocations(state: Revocations) -> Router {
    Router::new()
        .route("/v1/revocable_token_types", get(types))
        .route("/v1/revoke_tokens", post(revoke))
        .with_state(Served(state, Arc::new(Semaphore::new(AT_ONCE))))
        .layer(middleware::from_fn(loopback_only))
}

/// GitLab sends its token bare; others would send it as bearer.
fn is_known(headers: &HeaderMap, token: &SecretString) -> bool {
    let bare = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    is_token(bare, token) || is_authorised(headers, token)
}

async fn types(State(Served(it, _)): State<Served>, headers: HeaderMap) -> Response {
    if !is_known(&headers, &it.token) {
        it.door.intake.metrics.webhook(SOURCE, "forged");
        return refuse(StatusCode::UNAUTHORIZED, "token");
    }
    Json(json!({"types": &*it.types})).into_response()
}

async fn revoke(State(Served(it, room)): State<Served>, headers: HeaderMap, body: Body) -> Response {
    let metrics = it.door.intake.metrics.clone();
    let (result, response) = taken(it, room, headers, body).await;
    metrics.webhook(SOURCE, result);
    response
}

/// What it counts as, and the answer.
async fn taken(it: Revocations, room: Arc<Semaphore>, headers: HeaderMap, body: Body) -> (&'static str, Response) {
    if !is_known(&headers, &it.token) {
        return ("forged", refuse(StatusCode::UNAUTHORIZED, "token"));
    }
    if media(&headers) != "application/json" {
        let say = "tokens come as application/json";
        return ("unreadable", explain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", say));
    }
    let Ok(seat) = room.try_acquire_owned() else { return ("busy", later(StatusCode::TOO_MANY_REQUESTS, "busy")) };
    let Some(keys) = it.keys.now() else {
        return ("unavailable", later(StatusCode::SERVICE_UNAVAILABLE, "fingerprint_key"));
    };
    let body = match findings::whole(body, &headers, findings::MAX_REPORT_BYTES).await {
        Ok(body) => body,
        Err(NotWhole::Broken) => return ("unreadable", refuse(StatusCode::BAD_REQUEST, "body")),
        Err(NotWhole::TooLarge) => return ("unreadable", refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large")),
    };
    // A caller that hangs up must not undo half a step: the record goes on without it.
    let recorded = tokio::spawn(async move {
        let _seat = seat;
        let now_ms = it.door.intake.clock.wall_ms();
        let types = it.types;
        let read = tokio::task::spawn_blocking(move || {
            revocations::read(&body, &types, Given { keys: Some(&keys), repository: None, now_ms })
        });
        match read.await.map_err(|error| Failed::Died(died(&error)))? {
            Ok(made) => Ok(Ok(findings::record(&it.door, made).await?)),
            Err(refused) => Ok(Err(refused)),
        }
    });
    match recorded.await.unwrap_or_else(|error| Err(Failed::Died(died(&error)))) {
        Ok(Ok(counts)) if counts.rejected > 0 => {
            let say = "the topic of findings does not take `finding.observed` from /scanners/gitlab";
            tracing::error!("tokens from GitLab were not taken: {say}");
            ("refused", explain(StatusCode::INTERNAL_SERVER_ERROR, "topic", say))
        }
        Ok(Ok(counts)) => {
            let result = if counts.accepted == 0 && counts.duplicates > 0 { "replayed" } else { "accepted" };
            (result, StatusCode::NO_CONTENT.into_response())
        }
        Ok(Err(refused)) => {
            let reason = if matches!(refused, Refused::Type(_)) { "type" } else { "body" };
            ("unreadable", explain(StatusCode::BAD_REQUEST, reason, &refused.to_string()))
        }
        Err(failed) => {
            failed.log("tokens from GitLab");
            ("unavailable", unavailable())
        }
    }
}

/// The same may be taken in a while.
fn later(status: StatusCode, reason: &str) -> Response {
    let mut response = refuse(status, reason);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}
