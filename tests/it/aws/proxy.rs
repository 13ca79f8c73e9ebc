//! Before moto, what AWS does and moto does not: it shows late what was done, throttles, breaks, and is not itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// What is wrong.
#[derive(Debug, Clone, Default)]
pub enum Fault {
    #[default]
    None,
    /// For so long after a change of a key the list shows it as it was.
    Late(Duration),
    /// The n-th list after a change (from 0) shows it as it was.
    LateOnce(usize),
    /// The next `n` calls are throttled, by a 400 as AWS does it.
    Throttled(usize),
    /// What is called so reaches moto; the connection breaks instead of the answer.
    Cut(&'static str),
    /// Answers so to what is called so, without having asked moto.
    Says(&'static str, StatusCode, &'static str),
    /// The next `n` calls of what is called so are answered so, without having asked moto.
    SaysFor(usize, &'static str, StatusCode, &'static str),
    /// Of each so many calls one breaks before it reaches moto, and one before its answer is back.
    Breaks(u32),
    /// Lets `n` calls of what is called so through, and answers so to the others.
    SaysAfter(usize, &'static str, StatusCode, &'static str),
    /// For so long after a change each look is answered as it was last answered before the change.
    Stale(Duration),
    /// Answers so to what is called so, as JSON, without having asked moto.
    Answers(&'static str, String),
}

#[derive(Default)]
struct Told {
    fault: Fault,
    /// When a key was last changed, and how many lists there were since.
    changed: Option<(Instant, usize)>,
    /// The calls: what, and of which user and key.
    calls: Vec<(String, String)>,
    /// Under [`Fault::Stale`]: when something was last changed; and what was answered before, by what was asked.
    stale: Option<Instant>,
    answered: HashMap<Bytes, (StatusCode, Bytes)>,
}

#[derive(Clone)]
struct Shared {
    upstream: String,
    client: reqwest::Client,
    told: Arc<Mutex<Told>>,
}

/// See the top.
pub struct Proxy {
    port: u16,
    told: Arc<Mutex<Told>>,
}

impl Proxy {
    pub async fn to(upstream: u16) -> Self {
        let told: Arc<Mutex<Told>> = Arc::default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let shared = Shared { upstream: format!("http://127.0.0.1:{upstream}/"), client, told: told.clone() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(pass).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { port, told }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn is(&self, fault: Fault) {
        self.told.lock().unwrap().fault = fault;
    }

    /// What was called, in order, with its user and key.
    pub fn calls(&self) -> Vec<(String, String)> {
        self.told.lock().unwrap().calls.clone()
    }

    /// The calls that change something.
    pub fn changes(&self) -> Vec<(String, String)> {
        self.calls().into_iter().filter(|(action, _)| !looks(action)).collect()
    }
}

fn looks(action: &str) -> bool {
    ["Get", "List", "Simulate"].iter().any(|word| action.starts_with(word))
}

/// What is to become of an answer.
enum Then {
    Pass,
    /// The list is the one of before.
    AsBefore,
    Break,
}

async fn pass(State(shared): State<Shared>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let said: Vec<(String, String)> = reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(&body)))
        .unwrap()
        .query_pairs()
        .into_owned()
        .collect();
    let of = |name: &str| said.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default();
    // Secrets Manager speaks JSON, and names the call in a header.
    let target = headers.get("x-amz-target").and_then(|name| name.to_str().ok()?.rsplit('.').next().map(str::to_owned));
    let (is_json, action) = (target.is_some(), target.unwrap_or_else(|| of("Action")));
    let error = |status, code: &str| error(status, code, is_json);
    let then = {
        let mut told = shared.told.lock().unwrap();
        told.calls.push((action.clone(), format!("{} {}", of("UserName"), of("AccessKeyId")).trim().to_owned()));
        match told.fault.clone() {
            Fault::Throttled(0) | Fault::None => Then::Pass,
            Fault::Throttled(left) => {
                told.fault = Fault::Throttled(left - 1);
                return error(StatusCode::BAD_REQUEST, "Throttling");
            }
            Fault::Says(to, status, code) if to == action => return error(status, code),
            Fault::SaysFor(left, to, status, code) if left > 0 && to == action => {
                told.fault = Fault::SaysFor(left - 1, to, status, code);
                return error(status, code);
            }
            Fault::SaysAfter(left, to, status, code) if to == action => {
                if left == 0 {
                    return error(status, code);
                }
                told.fault = Fault::SaysAfter(left - 1, to, status, code);
                Then::Pass
            }
            Fault::Stale(span) if looks(&action) && told.stale.is_some_and(|at| at.elapsed() < span) => {
                if let Some((status, bytes)) = told.answered.get(&body).cloned() {
                    return (status, [(header::CONTENT_TYPE, "text/xml")], bytes).into_response();
                }
                Then::Pass
            }
            Fault::Answers(to, body) if to == action => {
                return ([(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body).into_response();
            }
            Fault::Breaks(each) => match rand::random_range(0..each) {
                0 => return broken(),
                1 => Then::Break,
                _ => Then::Pass,
            },
            Fault::Cut(to) if to == action => Then::Break,
            Fault::Late(span) if action == "ListAccessKeys" => {
                let late = told.changed.is_some_and(|(at, _)| at.elapsed() < span);
                if late { Then::AsBefore } else { Then::Pass }
            }
            Fault::LateOnce(nth) if action == "ListAccessKeys" => match &mut told.changed {
                Some((_, lists)) => {
                    *lists += 1;
                    if *lists == nth + 1 { Then::AsBefore } else { Then::Pass }
                }
                None => Then::Pass,
            },
            _ => Then::Pass,
        }
    };
    let mut request = shared.client.request(method, &shared.upstream).body(body.clone());
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        // The host as it was signed.
        request = request.header(name, value);
    }
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, kind) = (answer.status(), answer.headers().get(header::CONTENT_TYPE).cloned());
    let mut bytes = answer.bytes().await.unwrap_or_default();
    if action == "UpdateAccessKey" && status.is_success() {
        let mut told = shared.told.lock().unwrap();
        // What is repeated changes nothing.
        told.changed.get_or_insert((Instant::now(), 0));
    }
    // moto's refusals have one layer more than IAM's, and are unreadable for who expects those.
    if status.is_client_error() {
        let text = String::from_utf8_lossy(&bytes).replace("<Errors>", "").replace("</Errors>", "");
        bytes = text.into();
    }
    {
        let mut told = shared.told.lock().unwrap();
        if !looks(&action) {
            told.stale = Some(Instant::now());
        } else if matches!(told.fault, Fault::Stale(_)) {
            told.answered.insert(body, (status, bytes.clone()));
        }
    }
    match then {
        Then::Pass => {}
        Then::AsBefore => bytes = String::from_utf8_lossy(&bytes).replace("Inactive", "Active").into(),
        Then::Break => return broken(),
    }
    let mut response = (status, bytes).into_response();
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// The connection ends where an answer is to come.
fn broken() -> Response {
    let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
    Response::builder().header(header::CONTENT_LENGTH, 999).body(Body::from_stream(broken)).unwrap()
}

/// An error as AWS writes it; with an empty code, a page of something before it.
fn error(status: StatusCode, code: &str, is_json: bool) -> Response {
    if is_json && !code.is_empty() {
        let body = serde_json::json!({"__type": code, "message": "says the proxy"}).to_string();
        return (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body).into_response();
    }
    let page = if code.is_empty() {
        "<html><body>no upstream</body></html>".to_owned()
    } else {
        format!(
            "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>says the proxy</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        )
    };
    (status, [(header::CONTENT_TYPE, "text/xml")], page).into_response()
}
