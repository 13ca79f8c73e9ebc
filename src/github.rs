//! GitHub's REST API, as far as alerts of secret scanning need it: one alert is asked for, or resolved, by names that were
//! checked.
//!
//! The address is the configuration's, never a webhook's. What an answer says is read by [`crate::event::adapters::github`].

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde_json::json;

use crate::case::CaseId;
use crate::event::adapters::github::{Alert, Shown, is_resolved, shown};
use crate::http;

/// Bytes of an answer at most: an alert has some thousands.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
/// GitHub asks for the version by its date.
const VERSION: &str = "2022-11-28";

/// Where it is, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// `https://api.github.com`, or `https://HOST/api/v3` of GitHub Enterprise Server; without a slash at the end.
    pub url: String,
    /// Holds the token, which reads alerts of secret scanning, and writes them where they are to be resolved.
    pub token_file: PathBuf,
    /// PEM file with the authority of its certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Of one call.
    pub timeout_ms: i64,
}

impl Api {
    fn timeout(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or(4_000))
    }
}

/// Why GitHub did not say it. Never quotes an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Silent {
    /// Our token cannot be read.
    #[error("{0}")]
    Token(String),
    /// Nobody answers in time, or it is at fault itself.
    #[error("GitHub does not answer, or not now")]
    Away,
    /// It does not show us this alert.
    #[error("GitHub does not show this alert to our token (status {0})")]
    Denied(u16),
    /// An answer without what was asked of this alert.
    #[error("GitHub's answer is not this alert with what was asked for")]
    Unclear,
}

/// Calls it.
pub struct Client {
    api: Api,
    client: reqwest::Client,
}

/// Makes a client. Nothing is called.
///
/// # Errors
/// Its certificates cannot be read.
pub fn connect(api: Api) -> Result<Client, String> {
    let timeout = api.timeout();
    // It is called where it is configured to be, and nowhere else: a redirect would take the token along.
    let mut client = reqwest::Client::builder()
        .timeout(timeout)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("curfew/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &api.ca_file {
        let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&text);
        let certificates = certificates.map_err(|_| format!("{}: it holds no PEM certificates", file.display()))?;
        client = client.tls_certs_only(certificates);
    } else if api.url.starts_with("http://") {
        client = client.tls_certs_only(Vec::new());
    }
    let client = client.build().map_err(|_| "the TLS settings cannot be used".to_owned())?;
    Ok(Client { api, client })
}

impl Client {
    /// How long one call may take.
    pub fn timeout(&self) -> Duration {
        self.api.timeout()
    }

    /// The secret of an alert.
    ///
    /// # Errors
    /// [`Silent`].
    pub async fn secret_of(&self, alert: &Alert) -> Result<Shown, Silent> {
        let answer = whole(self.asked(Method::GET, &alert.path())?).await?;
        shown(&answer, alert).ok_or(Silent::Unclear)
    }

    /// Resolves an alert as revoked. One that is resolved already stays as whoever resolved it left it.
    ///
    /// # Errors
    /// [`Silent`]: whether it is resolved is not known. It can be asked for again.
    pub async fn resolve(&self, alert: &Alert, case: CaseId) -> Result<(), Silent> {
        let now = whole(self.asked(Method::GET, &format!("{}?hide_secret=true", alert.path()))?).await?;
        if is_resolved(&now, alert).ok_or(Silent::Unclear)? {
            return Ok(());
        }
        let said = json!({"state": "resolved", "resolution": "revoked",
            "resolution_comment": format!("Seen refused by Curfew, case {case}")});
        let answer = whole(self.asked(Method::PATCH, &alert.path())?.json(&said)).await?;
        if is_resolved(&answer, alert) == Some(true) { Ok(()) } else { Err(Silent::Unclear) }
    }

    fn asked(&self, method: Method, path: &str) -> Result<RequestBuilder, Silent> {
        // Read each time: it may be rotated as well.
        let token = http::read_token(&self.api.token_file).map_err(|error| Silent::Token(error.to_string()))?;
        let request = self.client.request(method, format!("{}{path}", self.api.url));
        let request = request.bearer_auth(token.expose_secret()).header("accept", "application/vnd.github+json");
        Ok(request.header("x-github-api-version", VERSION))
    }
}

/// The body of a 200.
async fn whole(request: RequestBuilder) -> Result<Zeroizing<Vec<u8>>, Silent> {
    let mut answer = request.send().await.map_err(|_| Silent::Away)?;
    if answer.status() != StatusCode::OK {
        return Err(meaning(answer.status().as_u16()));
    }
    let mut whole = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
    while let Some(piece) = answer.chunk().await.map_err(|_| Silent::Away)? {
        if whole.len() + piece.len() > MAX_ANSWER_BYTES {
            return Err(Silent::Unclear);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

/// What a status other than 200 means. 403 is also what GitHub says to who asks too often.
fn meaning(status: u16) -> Silent {
    match status {
        408 | 429 | 500..=599 => Silent::Away,
        _ => Silent::Denied(status),
    }
}
