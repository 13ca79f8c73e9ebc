//! `webhook`: somebody is called when consumers must read another value.
//!
//! The body is the `credential.rotated` event: version and place, never a value. Calls may come twice: the event's id and
//! `Idempotency-Key` are the same then. What is not heard here is in the topic as well.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret as _;

use super::{Connector, Failure, Subject};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Sighting};
use crate::probe::Settle;
use crate::{clock, http, outcome};

/// Its name in plans.
pub const NAME: &str = "webhook";

/// Whom to call, from the configuration. The URL may hold what only the two should know: it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its name in the configuration.
    pub name: String,
    /// `https://`, or `http://` on loopback.
    pub url: String,
    /// Holds the token that is sent as bearer.
    pub token_file: Option<PathBuf>,
    /// PEM file with the authority of its certificate, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Of one call.
    pub timeout_ms: i64,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Calls one webhook.
pub struct Caller {
    webhook: Webhook,
    client: reqwest::Client,
    clock: clock::Shared,
}

/// Makes its connector. Nothing is called.
///
/// # Errors
/// Its certificates cannot be read.
pub fn connect(webhook: Webhook, clock: clock::Shared) -> Result<Caller, String> {
    let timeout = Duration::from_millis(u64::try_from(webhook.timeout_ms).unwrap_or(10_000));
    // It is called where it is configured to be, and nowhere else: a redirect would take the token along.
    let mut client = reqwest::Client::builder().timeout(timeout).no_proxy().redirect(reqwest::redirect::Policy::none());
    if let Some(file) = &webhook.ca_file {
        let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&text);
        let certificates = certificates.map_err(|_| format!("{}: it holds no PEM certificates", file.display()))?;
        client = client.tls_certs_only(certificates);
    } else if webhook.url.starts_with("http://") {
        client = client.tls_certs_only(Vec::new());
    }
    let client = client.build().map_err(|_| "the TLS settings cannot be used".to_owned())?;
    Ok(Caller { webhook, client, clock })
}

impl Caller {
    async fn call(&self, subject: &Subject) -> Result<Output, Failure> {
        let message = subject.message.as_ref().ok_or_else(nothing)?;
        let body = outcome::unchained(message, self.clock.wall_ms());
        let mut request = self.client.post(&self.webhook.url).header("content-type", "application/cloudevents+json");
        if let Some(key) = subject.key {
            request = request.header("idempotency-key", key.to_string());
        }
        if let Some(file) = &self.webhook.token_file {
            // Read each time: it may be rotated as well.
            let token = http::read_token(file);
            let token = token.map_err(|error| Failure::new(FailureKind::Denied, error.to_string()))?;
            request = request.bearer_auth(token.expose_secret());
        }
        match request.body(body).send().await {
            Ok(answer) => meaning(answer.status().as_u16()),
            Err(error) if error.is_connect() => Err(Failure::new(FailureKind::Unavailable, "nobody answers there")),
            Err(_) => Err(Failure::new(FailureKind::Unknown, "no answer in time")),
        }
    }
}

/// What a status means. The words of the answer are not read.
fn meaning(status: u16) -> Result<Output, Failure> {
    let (kind, note) = match status {
        200..=299 => return Ok(Output::default()),
        401 | 403 => (FailureKind::Denied, "it does not take our token"),
        // How long it wishes to be left alone is not asked: the old value would live as long.
        408 | 425 | 429 => (FailureKind::Unavailable, "it asks for another try"),
        500..=599 => (FailureKind::Unavailable, "it is at fault itself"),
        _ => (FailureKind::Refused, "it does not take the call"),
    };
    Err(Failure { kind, note: format!("{note} (status {status})"), blocks_system: false, is_untouched: false })
}

fn nothing() -> Failure {
    Failure::new(FailureKind::Refused, "a webhook is only called about another value")
}

#[async_trait]
impl Connector for Caller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn system(&self) -> &str {
        &self.webhook.name
    }

    fn call_timeout_ms(&self) -> i64 {
        self.webhook.timeout_ms
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, _subject: &Subject) -> Result<Observation, Failure> {
        Err(nothing())
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        match act {
            Act::Notify => self.call(subject).await,
            _ => Err(nothing()),
        }
    }

    /// It knows of no credential.
    async fn probe(&self, _subject: &Subject) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let (level, answer) = (Level::Issuer, Answer::Unknown);
        Sighting { level, answer, at_ms, control: false, residue: Vec::new(), request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_whether_it_is_worth_another_try() {
        let kind = |status| meaning(status).map_err(|failure| failure.kind).err();
        assert_eq!(kind(204), None);
        assert_eq!(kind(401), Some(FailureKind::Denied));
        assert_eq!([429, 503].map(kind), [Some(FailureKind::Unavailable); 2]);
        // Also a redirect: it is followed by nobody.
        assert_eq!([302, 400, 404, 410].map(kind), [Some(FailureKind::Refused); 4]);
    }
}
