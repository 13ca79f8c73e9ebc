//! Questions about reach, for deployment pipelines and consoles: `GET /reach?ask=gate&id=…`, with a token of their own.

use std::sync::Arc;

use axum::extract::{Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use secrecy::SecretString;
use serde::Deserialize;

use super::{explain, is_authorised, loopback_only, refuse, unavailable};
use crate::clock;
use crate::reach::ask::{Question, Told};
use crate::reach::draw;
use crate::reach::kept::{Kept, NoAnswer};

/// The longest query, in bytes.
const MAX_QUERY: usize = 4_096;
/// Lines of a list, where no `max` is given.
const LINES: usize = 100;

/// What the answers are made from.
#[derive(Clone)]
pub struct Page {
    /// The graph.
    pub reach: Arc<Kept>,
    /// What a caller must know: it is no producer.
    pub token: Arc<SecretString>,
    /// Ours.
    pub clock: clock::Shared,
}

/// As it is written in a query: all of it is text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    ask: String,
    id: Option<String>,
    max: Option<usize>,
    /// A span of time, such as `30d`.
    #[serde(rename = "for")]
    span: Option<String>,
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    /// Of `ask=of`.
    Svg,
}

impl Asked {
    fn question(self) -> Result<Question, &'static str> {
        let max = self.max.unwrap_or(LINES);
        let id = self.id.ok_or("`id` says about whom");
        Ok(match self.ask.as_str() {
            "of" => Question::Of { id: id? },
            "who" => Question::Who { id: id?, max },
            "gate" => Question::Gate { id: id? },
            "crossing" => Question::Crossing { max },
            "shared" => Question::Shared { max },
            "unowned" => Question::Unowned { max },
            "long_lived" => Question::LongLived { max },
            "sources" => Question::Sources {},
            "unused" => {
                let span = self.span.ok_or("`for` says how long, such as 30d")?;
                Question::Unused { for_ms: crate::config::file::Millis::parse(&span)?.0, max }
            }
            "dormant" => {
                let span = self.span.ok_or("`for` says how long, such as 30d")?;
                Question::Dormant { for_ms: crate::config::file::Millis::parse(&span)?.0, max }
            }
            _ => {
                return Err(
                    "`ask` is one of of, who, gate, crossing, shared, dormant, unused, long_lived, unowned, sources",
                );
            }
        })
    }
}

/// `GET /reach`
pub fn reach(page: Page) -> Router {
    Router::new().route("/reach", get(answer)).with_state(page).layer(middleware::from_fn(loopback_only))
}

async fn answer(State(page): State<Page>, headers: HeaderMap, RawQuery(raw): RawQuery) -> Response {
    if !is_authorised(&headers, &page.token) {
        return refuse(StatusCode::UNAUTHORIZED, "token");
    }
    let raw = raw.unwrap_or_default();
    if raw.len() > MAX_QUERY {
        return refuse(StatusCode::URI_TOO_LONG, "query");
    }
    let asked =
        format!("http://localhost/reach?{raw}").parse().ok().and_then(|uri| Query::<Asked>::try_from_uri(&uri).ok());
    let Some(Query(asked)) = asked else {
        return explain(StatusCode::BAD_REQUEST, "query", "GET /reach?ask=of&id=identity:prod/approle/etl");
    };
    let format = asked.format;
    let question = match asked.question() {
        Ok(question) => question,
        Err(why) => return explain(StatusCode::BAD_REQUEST, "query", why),
    };
    match page.reach.answer(question, page.clock.wall_ms()).await {
        Ok(answer) => match (&answer.told, format) {
            (Told::Reach(reach), Format::Svg) => {
                ([(header::CONTENT_TYPE, "image/svg+xml")], draw::svg(reach)).into_response()
            }
            (_, Format::Svg) => explain(StatusCode::BAD_REQUEST, "format", "a picture is of `ask=of`"),
            _ => Json(answer).into_response(),
        },
        Err(NoAnswer::Unknown(why)) => explain(StatusCode::NOT_FOUND, "id", &why.to_string()),
        Err(NoAnswer::Journal(_) | NoAnswer::Died) => unavailable(),
    }
}
