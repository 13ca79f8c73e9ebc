//! Schedulers' own events over HTTP, each as its scheduler sends it: the path says what it is.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;

use super::{Door, answer, explain, is_authorised, media, read, record, refuse};
use crate::event::{Format, MAX_SCHEDULER_BYTES};

/// `POST /tasks/openlineage`, and where OpenLineage's HTTP transport sends to when it is told no other path.
pub(super) fn tasks(door: Door) -> Router {
    Router::new().route("/tasks/{scheduler}", post(named)).route("/api/v1/lineage", post(lineage)).with_state(door)
}

async fn named(door: State<Door>, Path(scheduler): Path<String>, headers: HeaderMap, body: Body) -> Response {
    if !is_authorised(&headers, &door.token) {
        return refuse(StatusCode::UNAUTHORIZED, "token");
    }
    let Some(format) = Format::of_scheduler(&scheduler) else {
        let known = Format::SCHEDULERS.map(|one| format!("/tasks/{}", one.as_str())).join(", ");
        return explain(StatusCode::NOT_FOUND, "scheduler", &format!("there are {known}"));
    };
    take(&door, format, &headers, body).await
}

async fn lineage(door: State<Door>, headers: HeaderMap, body: Body) -> Response {
    if !is_authorised(&headers, &door.token) {
        return refuse(StatusCode::UNAUTHORIZED, "token");
    }
    take(&door, Format::OpenLineage, &headers, body).await
}

async fn take(door: &Door, format: Format, headers: &HeaderMap, body: Body) -> Response {
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
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| Bytes::copy_from_slice(kind.as_bytes()));
    answer(record(door, format, vec![("content-type".to_owned(), kind)], payload).await)
}
