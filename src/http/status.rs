//! The status page over HTTP: read-only, for people, without a login. On loopback, or where its configuration names the hosts
//! as which it may be called.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use percent_encoding::percent_decode_str;

use super::{is_loopback_host, refuse};
use crate::journal::shown::Group;
use crate::status::shared::Shared;
use crate::status::{CSS, ICON, SCRIPT, View, place};
use crate::task::RunKey;

/// The longest target of a request, in bytes: the longest name of a task, with each byte encoded, fits.
const MAX_TARGET: usize = 8 * 1024;
/// What a browser may do with a page: show it, with the style and the script that stand beside it, and read it again. Nothing
/// from elsewhere, nothing written into the page, and in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is served, and as whom.
#[derive(Clone)]
pub struct Page {
    /// The pages.
    pub shared: Shared,
    /// Names of hosts besides those of loopback, without ports.
    pub hosts: Arc<[String]>,
}

/// `GET /status`, `/status/cases`, `/status/cases/{id}`, `/status/tasks`, `/status/tasks/{tenant}/{run}`, and what they are made of.
pub fn status(page: Page) -> Router {
    let file =
        |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/status") }))
        .route("/status", get(|State(page): State<Page>| async move { show(&page, View::Start).await }))
        .route("/status/cases", get(cases))
        .route("/status/cases/{id}", get(case))
        .route("/status/tasks", get(|State(page): State<Page>| async move { show(&page, View::Tasks).await }))
        .route("/status/tasks/{tenant}/{*run}", get(task))
        .route("/status/page.css", file("text/css; charset=utf-8", CSS))
        .route("/status/page.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/status/icon.svg", file("image/svg+xml", ICON))
        .layer(middleware::from_fn_with_state(page.clone(), guarded))
        .with_state(page)
}

/// What holds for each request and each answer.
async fn guarded(State(page): State<Page>, request: Request, next: Next) -> Response {
    let mut response = match wrong(&page, &request) {
        Some((status, reason)) => refuse(status, reason),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request is not answered.
fn wrong(page: &Page, request: &Request) -> Option<(StatusCode, &'static str)> {
    if !may_be_called(&page.hosts, request.headers()) {
        // A page in a browser may be made to call this machine under a foreign name.
        return Some((StatusCode::FORBIDDEN, "host"));
    }
    let target = request.uri().path().len() + request.uri().query().map_or(0, str::len);
    if target > MAX_TARGET {
        return Some((StatusCode::URI_TOO_LONG, "target"));
    }
    let length = request.headers().get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if length || request.headers().contains_key(header::TRANSFER_ENCODING) {
        return Some((StatusCode::PAYLOAD_TOO_LARGE, "body"));
    }
    None
}

/// Whether the one Host header names this machine's loopback, or one of `hosts`.
fn may_be_called(hosts: &[String], headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (given.next().and_then(|host| host.to_str().ok()), given.next()) else { return false };
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    is_loopback_host(host) || hosts.iter().any(|known| known.eq_ignore_ascii_case(bare))
}

async fn show(page: &Page, view: View) -> Response {
    match page.shared.picture(view).await {
        Some(picture) => {
            let status = StatusCode::from_u16(picture.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], picture.html).into_response()
        }
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "busy"),
    }
}

async fn cases(State(page): State<Page>, RawQuery(query): RawQuery) -> Response {
    let (mut only, mut after) = (None, None);
    for pair in query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let known = match pair.split_once('=') {
            Some(("of", word)) => {
                only = Group::ALL.into_iter().find(|group| group.as_str() == word);
                only.is_some()
            }
            Some(("after", text)) => {
                after = place(text);
                after.is_some()
            }
            _ => false,
        };
        if !known {
            return refuse(StatusCode::BAD_REQUEST, "query");
        }
    }
    show(&page, View::Cases(only, after)).await
}

async fn case(State(page): State<Page>, Path(id): Path<String>) -> Response {
    match id.parse() {
        Ok(id) => show(&page, View::Case(id)).await,
        Err(_) => refuse(StatusCode::BAD_REQUEST, "id"),
    }
}

async fn task(State(page): State<Page>, request: Request) -> Response {
    // Not axum's own reading, which leaves no path that is no UTF-8.
    let path = request.uri().path().strip_prefix("/status/tasks/").unwrap_or_default();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).ok();
    let parts = path.split_once('/').and_then(|(tenant, run)| Some((decoded(tenant)?, decoded(run)?)));
    match parts {
        Some((tenant, run)) if !run.contains('\0') && !tenant.contains('\0') => {
            show(&page, View::Task(tenant.into(), RunKey(run.into()))).await
        }
        _ => refuse(StatusCode::BAD_REQUEST, "run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_name_is_not_answered_and_a_named_one_is() {
        let hosts = ["status.corp.example".to_owned()];
        let called = |all: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in all {
                headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            may_be_called(&hosts, &headers)
        };
        for host in ["127.0.0.1:8485", "localhost", "[::1]:1", "status.corp.example", "STATUS.corp.example:443"] {
            assert!(called(&[host]), "{host}");
        }
        for host in [
            "evil.example",
            "status.corp.example.evil",
            "x.status.corp.example",
            "10.0.0.1",
            "",
            "status.corp.example:x",
        ] {
            assert!(!called(&[host]), "{host}");
        }
        assert!(!called(&[]) && !called(&["localhost", "localhost"]) && !called(&["localhost", "evil.example"]));
    }
}
