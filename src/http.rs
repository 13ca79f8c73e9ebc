//! HTTP on loopback: events in (2xx means durable), and what is seen from outside, which others may be let see.

mod connections;
pub mod findings;
pub mod github;
pub mod gitlab;
pub mod reach;
mod schedulers;
pub mod status;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::event::{Coordinates, Delivery, Format, RejectReason};
use crate::intake::Intake;
use crate::journal::Fate;
use crate::metrics::Metrics;
use crate::task::Tenant;
use crate::telemetry::died;

/// How many times the largest event is read of a body that is too large.
const FORGOTTEN: usize = 16;

/// Why HTTP could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Plain text stays on the machine.
    #[error("{0} is not a loopback address: HTTP is plain text, and stays on loopback")]
    NotLoopback(SocketAddr),
    /// The token's file is not good for a secret.
    #[error("the token file {path}: {why}")]
    Token {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The address cannot be used.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

/// Reads the intake's bearer token from a file that only its owner can read.
///
/// # Errors
/// The file is missing, empty, or open to others.
pub fn read_token(path: &Path) -> Result<SecretString, Error> {
    let wrong = |why: String| Error::Token { path: path.display().to_string(), why };
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let about = file.metadata().map_err(|error| wrong(error.to_string()))?;
    if !about.is_file() || about.mode() & 0o077 != 0 {
        return Err(wrong("others may read it: `chmod 600` it".into()));
    }
    let text = std::io::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    if token.len() < 16 {
        return Err(wrong("a token of at least 16 characters is needed".into()));
    }
    Ok(SecretString::from(token.to_owned()))
}

/// Writes a new random token to a new file that only its owner can read.
///
/// # Errors
/// The file exists already, or cannot be written.
pub fn create_token(path: &Path) -> Result<(), Error> {
    let wrong = |why: String| Error::Token { path: path.display().to_string(), why };
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| wrong("no randomness".into()))?;
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(hex::encode(random).as_bytes())).map_err(|error| wrong(error.to_string()))
}

/// Listens, on loopback only.
///
/// # Errors
/// Not a loopback address, or not free.
pub async fn listen(at: SocketAddr) -> Result<TcpListener, Error> {
    if !at.ip().is_loopback() {
        return Err(Error::NotLoopback(at));
    }
    listen_beyond(at).await
}

/// Listens at any address: for what is meant to be read by others, and is said so in the configuration.
///
/// # Errors
/// Not free.
pub async fn listen_beyond(at: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(at).await.map_err(|error| Error::Listen(at, error))
}

/// Serves until `stop`; requests that are under way are answered. A connection that keeps us waiting ends, and there is a limit of
/// how many there are at once.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    connections::serve(listener, router, stop, connections::Limits::default()).await;
}

/// What the way in over HTTP needs.
#[derive(Clone)]
pub struct Door {
    /// Where events go.
    pub intake: Intake,
    /// What a caller must know.
    pub token: Arc<SecretString>,
    /// The topic whose authority its events have.
    pub topic: Arc<str>,
    /// Whose events.
    pub tenant: Tenant,
}

/// `POST /events`: one structured CloudEvent. `POST /tasks/…`: one event of a scheduler, as it publishes it.
pub fn events(door: Door) -> Router {
    let router = Router::new().route("/events", post(event)).with_state(door.clone());
    router.merge(schedulers::tasks(door)).layer(middleware::from_fn(loopback_only))
}

/// Whether the process can do its work; the reason where it cannot.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Asks for what the page shows, before it is made: whether the journal told its part.
pub type Fresh = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// `/metrics`, `/healthz` (the process answers) and `/readyz` (it can work; independent of the backlog). With `here_only`, as
/// on a loopback address, only who names this machine is answered, before anything is asked of the journal; at another address
/// others are meant to ask.
pub fn observability(metrics: Arc<Metrics>, ready: Ready, fresh: Fresh, here_only: bool) -> Router {
    let page = move || {
        let (metrics, fresh) = (metrics.clone(), fresh());
        async move {
            let text = metrics.page(fresh.await);
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
        }
    };
    let readiness = move || {
        let ready = ready();
        async move {
            match ready {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }
        }
    };
    let router = Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness));
    if here_only { router.layer(middleware::from_fn(loopback_only)) } else { router }
}

/// A page in a browser may be made to call loopback under a foreign name: such a Host is refused.
async fn loopback_only(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if host.is_some_and(is_loopback_host) && hosts.next().is_none() {
        next.run(request).await
    } else {
        refuse(StatusCode::FORBIDDEN, "host")
    }
}

/// Whether a Host header names this machine's loopback.
fn is_loopback_host(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost")
}

fn is_authorised(headers: &HeaderMap, token: &SecretString) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    let Some((scheme, given)) = given.split_at_checked(7) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && is_token(given, token)
}

fn is_token(given: &[u8], token: &SecretString) -> bool {
    bool::from(given.ct_eq(token.expose_secret().as_bytes()))
}

/// The content type in lower case, without what follows it.
fn media(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({"result": "refused", "reason": reason}))).into_response()
}

fn explain(status: StatusCode, reason: &str, say: &str) -> Response {
    (status, Json(json!({"result": "refused", "reason": reason, "say": say}))).into_response()
}

fn rejected(reason: RejectReason) -> Response {
    let status = match reason {
        RejectReason::Conflict => StatusCode::CONFLICT,
        RejectReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RejectReason::Forbidden => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    (status, Json(json!({"result": "rejected", "reason": reason.as_str()}))).into_response()
}

/// The body; of one that is over `most`, one byte more, which makes it a reject. The rest is read and forgotten, so that
/// the caller hears the answer, unless it has no end. `None`: the caller broke off.
async fn read(body: Body, most: usize) -> Option<Bytes> {
    let mut pieces = body.into_data_stream();
    let (mut whole, mut size) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.ok()?;
        let room = most.saturating_add(1) - whole.len();
        whole.extend_from_slice(&piece[..piece.len().min(room)]);
        size += piece.len();
        if size > most.saturating_mul(FORGOTTEN) {
            break;
        }
    }
    Some(whole.into())
}

async fn event(State(door): State<Door>, headers: HeaderMap, body: Body) -> Response {
    if !is_authorised(&headers, &door.token) {
        return refuse(StatusCode::UNAUTHORIZED, "token");
    }
    let Some(payload) = read(body, door.intake.limits.max_bytes).await else {
        return refuse(StatusCode::BAD_REQUEST, "body");
    };
    // Without the content type, and with no other attributes, it becomes a reject.
    let structured = media(&headers) == "application/cloudevents+json";
    let names = if structured { &["content-type", "traceparent"][..] } else { &[] };
    let carried = names.iter().filter_map(|&name| {
        let value = headers.get(name)?;
        Some((name.to_owned(), Some(Bytes::copy_from_slice(value.as_bytes()))))
    });
    match record(&door, Format::Curfew, carried.collect(), payload).await {
        Ok(Fate::Rejected(RejectReason::BadEnvelope)) if !structured => {
            refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type")
        }
        recorded => answer(recorded),
    }
}

/// Makes one delivery durable.
async fn record(
    door: &Door,
    format: Format,
    headers: Vec<(String, Option<Bytes>)>,
    payload: Bytes,
) -> Result<Fate, Response> {
    let delivery = Delivery {
        at: Coordinates { cluster: "http".into(), topic: door.topic.clone(), partition: -1, offset: -1 },
        tenant: door.tenant.clone(),
        format,
        broker_ms: door.intake.clock.wall_ms(),
        headers,
        payload: Some(payload),
    };
    // A caller that hangs up must not undo half a step: the record goes on without it.
    let intake = door.intake.clone();
    let recorded = tokio::spawn(async move { intake.record(&[delivery], Vec::new()).await }).await;
    match recorded {
        Ok(Ok(recorded)) => recorded.fates.first().copied().ok_or_else(unavailable),
        Ok(Err(error)) => {
            tracing::error!(%error, "an event over HTTP was not recorded");
            Err(unavailable())
        }
        Err(error) => {
            tracing::error!(why = died(&error), "recording an event over HTTP died");
            Err(unavailable())
        }
    }
}

/// 2xx: there is no need to send it again.
fn answer(recorded: Result<Fate, Response>) -> Response {
    let result = match recorded {
        Ok(Fate::Accepted) => "accepted",
        Ok(Fate::Duplicate) => "duplicate",
        Ok(Fate::Ignored) => "ignored",
        Ok(Fate::Rejected(reason)) => return rejected(reason),
        Err(response) => return response,
    };
    Json(json!({"result": result})).into_response()
}

fn unavailable() -> Response {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, "journal");
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::is_loopback_host;

    #[test]
    fn hosts() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:8080", "[::1]", "[::1]:80"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org", "10.0.0.1", "10.0.0.1:80", "localhost:x", "[::2]"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
