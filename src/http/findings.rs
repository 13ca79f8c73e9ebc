//! Scanners' own reports over HTTP: converted, fingerprinted and made durable as events; then they are forgotten.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt as _;
use secrecy::zeroize::Zeroizing;
use serde_json::{Value, json};

use super::{Door, event, explain, is_authorised, loopback_only, media, refuse, unavailable};
use crate::event::adapters::{self, Adapter, BadItem, Converted, Given, NoRepository};
use crate::event::{Coordinates, Delivery, Format, RejectReason};
use crate::fingerprint::{Keyring, Keys};
use crate::journal::{self, Fate};
use crate::telemetry::died;

/// Bytes of one report at most: a longer one is cut by its sender, or goes through `curfew publish finding`.
pub const MAX_REPORT_BYTES: usize = 16 * 1024 * 1024;
/// How many times as much is read of one that is too large.
const FORGOTTEN: usize = 4;
/// Findings that become durable together: their keys are hashes, so few of them would touch nearly as many pages as many.
pub const TOGETHER: usize = 2_000;
/// How many lines that cannot be read are named.
const NAMED: usize = 100;

/// What the way in for findings needs.
#[derive(Clone)]
pub struct Findings {
    /// As for other events, with the topic of findings.
    pub door: Door,
    /// By which secrets are fingerprinted.
    pub keys: Option<Keyring>,
}

/// `POST /findings`: one structured CloudEvent. `POST /findings/gitleaks?repository=…`, `POST /findings/gitlab?repository=…`
/// and `POST /findings/trufflehog`: a report as the scanner wrote it.
pub fn findings(findings: Findings) -> Router {
    let events = Router::new().route("/findings", post(event)).with_state(findings.door.clone());
    let reports = Router::new().route("/findings/{scanner}", post(report)).with_state(findings);
    events.merge(reports).layer(middleware::from_fn(loopback_only))
}

#[derive(serde::Deserialize)]
struct Asked {
    repository: Option<String>,
}

async fn report(
    State(state): State<Findings>,
    Path(scanner): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_authorised(&headers, &state.door.token) {
        return refuse(StatusCode::UNAUTHORIZED, "token");
    }
    let Some(adapter) = Adapter::of_name(&scanner) else {
        let known = Adapter::ALL.map(|one| format!("/findings/{}", one.as_str())).join(", ");
        return explain(StatusCode::NOT_FOUND, "scanner", &format!("there are {known}"));
    };
    let Some(keyring) = &state.keys else {
        let say = "without a fingerprint key no finding could be matched with a credential: make one by \
            `curfew fingerprint-key FILE`, and name it in the configuration as `fingerprint.key_file`";
        return explain(StatusCode::NOT_IMPLEMENTED, "fingerprint_key", say);
    };
    let Some(keys) = keyring.now() else {
        let say = "Vault has not unwrapped the fingerprint keys yet: try again";
        return explain(StatusCode::SERVICE_UNAVAILABLE, "fingerprint_key", say);
    };
    if !["application/json", "application/x-ndjson", "application/jsonl"].contains(&media(&headers).as_str()) {
        let say = "a report is application/json or application/x-ndjson";
        return explain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", say);
    }
    let Ok(Query(Asked { repository })) = asked else { return refuse(StatusCode::BAD_REQUEST, "repository") };
    let report = match whole(body, &headers, MAX_REPORT_BYTES).await {
        Ok(report) => report,
        Err(NotWhole::Broken) => return refuse(StatusCode::BAD_REQUEST, "body"),
        Err(NotWhole::TooLarge) => {
            let say = "a report over HTTP has at most 16 MiB: send it in parts, or by `curfew publish finding`";
            return explain(StatusCode::PAYLOAD_TOO_LARGE, "too_large", say);
        }
    };
    // A caller that hangs up must not undo half a step: the record goes on without it.
    let recorded = tokio::spawn(async move {
        let now_ms = state.door.intake.clock.wall_ms();
        let read = tokio::task::spawn_blocking(move || read(adapter, &report, &keys, repository.as_deref(), now_ms));
        match read.await.map_err(|error| Failed::Died(died(&error)))? {
            Ok(Read { made, bad }) => {
                let counts = record(&state.door, made).await?;
                Ok(Counts { unreadable: bad.iter().map(|bad| bad.line).collect(), ..counts })
            }
            Err(failed) => Err(failed),
        }
    });
    match recorded.await.unwrap_or_else(|error| Err(Failed::Died(died(&error)))) {
        Ok(counts) => counts.answer(),
        Err(Failed::NoRepository) => {
            let say = format!("a report of {} does not name its repository: say ?repository=…", adapter.as_str());
            explain(StatusCode::BAD_REQUEST, "repository", &say)
        }
        Err(Failed::TooMany) => {
            let say =
                "a report over HTTP has at most 20 000 findings: send it in parts, or by `curfew publish finding`";
            explain(StatusCode::PAYLOAD_TOO_LARGE, "too_many", say)
        }
        Err(failed @ (Failed::Journal(_) | Failed::Died(_))) => {
            failed.log("findings over HTTP");
            unavailable()
        }
    }
}

/// Small ones grow when they are converted: what one request may hold is bounded by their number as well.
const MAX_FINDINGS: usize = 20_000;

pub(super) enum Failed {
    NoRepository,
    TooMany,
    Journal(journal::Error),
    Died(&'static str),
}

impl Failed {
    /// Says that `what` was not all recorded; what its sender did wrong is not said here.
    pub(super) fn log(&self, what: &str) {
        match self {
            Self::Journal(error) => tracing::error!(%error, "{what}: not all was recorded"),
            Self::Died(why) => tracing::error!(why, "{what}: recording died"),
            Self::NoRepository | Self::TooMany => {}
        }
    }
}

/// Why a body is not there.
pub(super) enum NotWhole {
    /// Its sender broke off.
    Broken,
    /// Larger than it may be.
    TooLarge,
}

/// A body that may hold secrets, in one buffer of its full size from the start: one that grows leaves copies behind. Of one
/// that has more than `most` bytes the rest is read and forgotten, so that the caller hears the answer, unless it has no
/// end.
pub(super) async fn whole(body: Body, headers: &HeaderMap, most: usize) -> Result<Zeroizing<Vec<u8>>, NotWhole> {
    let says = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let room = says.unwrap_or(most).min(most);
    let mut whole = Zeroizing::new(Vec::with_capacity(room));
    let (mut pieces, mut size) = (body.into_data_stream(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| NotWhole::Broken)?;
        size += piece.len();
        if size <= room {
            whole.extend_from_slice(&piece);
        } else if size > FORGOTTEN * most {
            break;
        }
    }
    if size > room { Err(NotWhole::TooLarge) } else { Ok(whole) }
}

#[derive(Default)]
struct Read {
    made: Vec<Converted>,
    bad: Vec<BadItem>,
}

fn read(adapter: Adapter, report: &[u8], keys: &Keys, repository: Option<&str>, now_ms: i64) -> Result<Read, Failed> {
    let mut read = Read::default();
    let items = adapters::read(adapter, report, Given { keys: Some(keys), repository, now_ms });
    for item in items.map_err(|NoRepository(_)| Failed::NoRepository)? {
        if read.made.len() + read.bad.len() >= MAX_FINDINGS {
            return Err(Failed::TooMany);
        }
        match item {
            Ok(made) => read.made.push(made),
            Err(bad) => read.bad.push(bad),
        }
    }
    Ok(read)
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) accepted: usize,
    pub(super) duplicates: usize,
    pub(super) rejected: usize,
    forbidden: usize,
    without_fingerprint: usize,
    unreadable: Vec<u64>,
}

/// Makes findings durable.
pub(super) async fn record(door: &Door, made: Vec<Converted>) -> Result<Counts, Failed> {
    let mut counts =
        Counts { without_fingerprint: made.iter().filter(|made| made.fingerprints == 0).count(), ..Counts::default() };
    let at = Coordinates { cluster: "http".into(), topic: door.topic.clone(), partition: -1, offset: -1 };
    let kind = Bytes::from_static(b"application/cloudevents+json");
    let mut made = made.into_iter().peekable();
    while made.peek().is_some() {
        let delivery = |made: Converted| Delivery {
            at: at.clone(),
            tenant: door.tenant.clone(),
            format: Format::Curfew,
            broker_ms: door.intake.clock.wall_ms(),
            headers: vec![("content-type".to_owned(), Some(kind.clone()))],
            payload: Some(made.body.into()),
        };
        let deliveries: Vec<Delivery> = made.by_ref().take(TOGETHER).map(delivery).collect();
        let recorded = door.intake.record(&deliveries, Vec::new()).await.map_err(Failed::Journal)?;
        for fate in recorded.fates {
            match fate {
                Fate::Accepted => counts.accepted += 1,
                Fate::Duplicate => counts.duplicates += 1,
                // What an adapter of scanners makes always says something.
                Fate::Ignored => {}
                Fate::Rejected(reason) => {
                    counts.rejected += 1;
                    counts.forbidden += usize::from(reason == RejectReason::Forbidden);
                }
            }
        }
    }
    Ok(counts)
}

impl Counts {
    /// 200 only where all of the report is durable. What is not named as unreadable or rejected is durable in any case.
    fn answer(self) -> Response {
        let durable = self.accepted + self.duplicates;
        let (status, result) = if self.rejected == 0 && self.unreadable.is_empty() {
            (StatusCode::OK, "accepted")
        } else if self.forbidden > 0 && durable == 0 {
            (StatusCode::FORBIDDEN, "rejected")
        } else {
            (StatusCode::UNPROCESSABLE_ENTITY, if durable > 0 { "partly" } else { "rejected" })
        };
        let more = self.unreadable.len().saturating_sub(NAMED);
        let mut said = json!({
            "result": result,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "without_fingerprint": self.without_fingerprint,
            "unreadable": self.unreadable.iter().take(NAMED).collect::<Vec<_>>(),
        });
        if more > 0 {
            said["more_unreadable"] = more.into();
        }
        if self.forbidden > 0 {
            said["say"] = Value::from("the topic of findings does not take `finding.observed` from this source");
        }
        (status, Json(said)).into_response()
    }
}
