//! Schedulers' own events over HTTP, each as its scheduler sends it: the path says what it is.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;

use super::{Door, answer, explain, is_authorised, is_token, media, read, record, refuse};
use crate::event::{Format, MAX_SCHEDULER_BYTES};

/// Where A2A's agents put a token that they were given for their notifications alone.
const A2A_TOKEN: &str = "x-a2a-notification-token";

/// `POST /tasks/<scheduler>`, `/tasks/a2a/<agent>`, and where OpenLineage's HTTP transport sends to when it is told no other
/// path.
pub(super) fn tasks(door: Door) -> Router {
    Router::new()
        .route("/tasks/{scheduler}", post(named))
        .route("/tasks/a2a/{*agent}", post(agent))
        .route("/api/v1/lineage", post(lineage))
        .with_state(door)
}

async fn named(door: State<Door>, Path(scheduler): Path<String>, headers: HeaderMap, body: Body) -> Response {
    match Format::of_scheduler(&scheduler) {
        Some(format) => take(&door, format, None, &headers, body).await,
        None if !is_authorised(&headers, &door.token) => refuse(StatusCode::UNAUTHORIZED, "token"),
        None => {
            let known = Format::SCHEDULERS.map(|one| format!("/tasks/{}", one.as_str())).join(", ");
            explain(StatusCode::NOT_FOUND, "scheduler", &format!("there are {known}"))
        }
    }
}

async fn agent(door: State<Door>, Path(agent): Path<String>, headers: HeaderMap, body: Body) -> Response {
    take(&door, Format::A2a, Some(agent), &headers, body).await
}

async fn lineage(door: State<Door>, headers: HeaderMap, body: Body) -> Response {
    take(&door, Format::OpenLineage, None, &headers, body).await
}

async fn take(door: &Door, format: Format, agent: Option<String>, headers: &HeaderMap, body: Body) -> Response {
    let given = headers.get(A2A_TOKEN).filter(|_| format == Format::A2a);
    if !is_authorised(headers, &door.token) && !given.is_some_and(|given| is_token(given.as_bytes(), &door.token)) {
        return refuse(StatusCode::UNAUTHORIZED, "token");
    }
    let media = media(headers);
    if media != "application/json" && !media.ends_with("+json") {
        return explain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", "an event of a scheduler is JSON");
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return explain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", "send it uncompressed");
    }
    let Some(payload) = read(body, MAX_SCHEDULER_BYTES).await else {
        return refuse(StatusCode::BAD_REQUEST, "body");
    };
    answer(record(door, format, carried(headers, agent), payload).await)
}

/// The headers of CloudEvents' binary mode, as Kafka names them. What the path says of the source counts more.
fn carried(headers: &HeaderMap, agent: Option<String>) -> Vec<(String, Option<Bytes>)> {
    let attributes = headers.iter().filter_map(|(name, value)| {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        match name.as_str().strip_prefix("ce-") {
            Some("source") if agent.is_some() => None,
            Some(attribute) => Some((format!("ce_{attribute}"), value)),
            None => (name == header::CONTENT_TYPE).then(|| (name.as_str().to_owned(), value)),
        }
    });
    let source = agent.as_ref().map(|agent| ("ce_source".to_owned(), Some(Bytes::from(format!("/a2a/{agent}")))));
    attributes.chain(source).collect()
}
