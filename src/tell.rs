//! A producer's side: how events reach an intake, over HTTP or through Kafka. Told means durable there.

use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{Config, ways};
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;

/// How often an intake that is not ready is asked again.
const TRIES: u32 = 5;
/// Records that go to Kafka together.
const CHUNK: usize = 1_000;

/// An event that the intake will take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The Kafka key.
    pub key: String,
    /// Structured JSON.
    pub body: Vec<u8>,
}

/// Where to.
#[derive(Debug, Clone, Copy)]
pub struct To<'a> {
    /// Kafka's brokers; else HTTP.
    pub kafka: Option<&'a str>,
    /// The intake's URL; without it, the configured one.
    pub http: Option<&'a str>,
    /// Holds the intake's token; without it, the configured one.
    pub token_file: Option<&'a Path>,
    /// The Kafka topic.
    pub topic: &'a str,
    /// Of the intake.
    pub path: &'a str,
    /// How long one of them is tried.
    pub timeout: Duration,
}

/// Why it was not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody is there to tell it to; or nobody answered: told again, it is at worst a repeat.
    #[error("{0}")]
    Unavailable(String),
    /// It never will be taken like this.
    #[error("{0}")]
    Refused(String),
}

/// One way to an intake.
pub enum Teller {
    /// `POST`, one by one.
    Http {
        /// The pool.
        client: reqwest::Client,
        /// The intake.
        url: String,
        /// What it wants to hear.
        token: SecretString,
    },
    /// A topic.
    Kafka {
        /// The client.
        producer: Producer,
        /// The topic.
        topic: String,
        /// For people.
        brokers: String,
    },
}

impl Teller {
    /// Checks where to; nothing is sent.
    ///
    /// # Errors
    /// It cannot be told there.
    pub fn open(config: &Config, to: &To<'_>) -> Result<Self, Error> {
        match to.kafka {
            Some(brokers) => kafka(config, brokers, to),
            None => http(config, to),
        }
    }

    /// For people.
    pub fn place(&self) -> String {
        match self {
            Self::Http { url, .. } => url.clone(),
            Self::Kafka { topic, brokers, .. } => format!("{topic} at {brokers}"),
        }
    }

    /// How many go together.
    pub fn together(&self) -> usize {
        match self {
            Self::Http { .. } => 1,
            Self::Kafka { .. } => CHUNK,
        }
    }

    /// Sends them, in order, until they are durable.
    ///
    /// # Errors
    /// The first that was not taken; of Kafka, what follows may have been.
    pub async fn tell(&self, messages: &[Message]) -> Result<(), Error> {
        match self {
            Self::Http { client, url, token } => {
                for message in messages {
                    post(client, url, token, message).await?;
                }
                Ok(())
            }
            Self::Kafka { producer, topic, .. } => {
                // A list, not an iterator with a closure: whoever awaits this in a task of its own could not be `Send`.
                let records: Vec<(&str, &[u8])> =
                    messages.iter().map(|one| (one.key.as_str(), one.body.as_slice())).collect();
                producer.publish(topic, records).await.map_err(|error| Error::Unavailable(error.to_string()))
            }
        }
    }

    /// Lets go of the connections.
    pub async fn close(self) {
        if let Self::Kafka { producer, .. } = self {
            producer.close().await;
        }
    }
}

fn kafka(config: &Config, brokers: &str, to: &To<'_>) -> Result<Teller, Error> {
    let properties = config.kafka.as_ref().map(|kafka| kafka.properties.0.clone()).unwrap_or_default();
    let tls = properties.get("security.protocol").is_some_and(|p| p.to_ascii_lowercase().ends_with("ssl"));
    if !tls && !ways::brokers_are_loopback(brokers) {
        return Err(Error::Refused("plain text to Kafka is allowed on loopback only: configure TLS".to_owned()));
    }
    let connection = Connection { brokers: brokers.to_owned(), properties };
    let producer = Producer::new(&connection, Some(to.timeout));
    let producer = producer.map_err(|error| Error::Unavailable(error.to_string()))?;
    Ok(Teller::Kafka { producer, topic: to.topic.to_owned(), brokers: brokers.to_owned() })
}

/// A page of a Curfew that is read over HTTP, where its intake is.
pub struct Page {
    client: reqwest::Client,
    url: String,
    token: SecretString,
}

impl Page {
    /// The most bytes that are read of an answer.
    pub const MOST: usize = 4 << 20;

    /// Checks where it is; nothing is sent. `to.token_file` holds the page's own token.
    ///
    /// # Errors
    /// It cannot be asked there.
    pub fn open(config: &Config, to: &To<'_>) -> Result<Self, Error> {
        let (client, url, token) = over_http(config, to)?;
        Ok(Self { client, url, token })
    }

    /// What it answers to a query; `None`: it does not know whom that asks about.
    ///
    /// # Errors
    /// It answers otherwise, or nobody does.
    pub async fn get(&self, query: &[(&str, &str)]) -> Result<Option<Vec<u8>>, Error> {
        let escaped = |text: &str| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let request = self.client.get(format!("{}?{}", self.url, query.join("&")));
        let answer = request.bearer_auth(self.token.expose_secret()).send().await;
        let mut answer = match answer {
            Ok(answer) if answer.status().is_success() => answer,
            Ok(answer) if answer.status().as_u16() == 404 => return Ok(None),
            Ok(answer) => return Err(Error::Unavailable(format!("{} answers {}", self.url, answer.status()))),
            Err(error) if error.is_connect() => {
                return Err(Error::Unavailable(format!("nobody answers at {}", self.url)));
            }
            Err(error) => return Err(Error::Unavailable(error.without_url().to_string())),
        };
        let mut body = Vec::new();
        while let Some(part) =
            answer.chunk().await.map_err(|error| Error::Unavailable(error.without_url().to_string()))?
        {
            if body.len() + part.len() > Self::MOST {
                return Err(Error::Unavailable(format!("{} answers more than {} bytes", self.url, Self::MOST)));
            }
            body.extend_from_slice(&part);
        }
        Ok(Some(body))
    }
}

fn http(config: &Config, to: &To<'_>) -> Result<Teller, Error> {
    let (client, url, token) = over_http(config, to)?;
    Ok(Teller::Http { client, url, token })
}

fn over_http(config: &Config, to: &To<'_>) -> Result<(reqwest::Client, String, SecretString), Error> {
    let url = match (to.http, &config.http) {
        (Some(url), _) if !ways::is_safe_url(url) => {
            return Err(Error::Refused("--http is an https:// URL, or http:// on loopback".to_owned()));
        }
        (Some(url), _) => {
            let url = url.trim_end_matches('/');
            let base = [to.path, "/events"].iter().find_map(|path| url.strip_suffix(*path)).unwrap_or(url);
            format!("{base}{}", to.path)
        }
        (None, Some(http)) => format!("http://{}{}", http.listen, to.path),
        (None, None) => {
            let help = "this configuration has no HTTP intake: write `http: {}` into it (beside `kafka` it is off where nobody \
                 does), or name --kafka and --topic, or --http and --token-file";
            return Err(Error::Refused(help.to_owned()));
        }
    };
    let file = to.token_file.or(config.http.as_ref().map(|http| http.token_file.as_path()));
    let file = file.ok_or_else(|| Error::Refused("--http needs --token-file".to_owned()))?;
    let token = crate::http::read_token(file).map_err(|error| Error::Unavailable(error.to_string()))?;
    let client = client(&url, to.timeout)?;
    Ok((client, url, token))
}

/// Follows nobody elsewhere: what a page there answers is no intake's word, and a redirected POST has no body.
fn client(url: &str, timeout: Duration) -> Result<reqwest::Client, Error> {
    let mut client = reqwest::Client::builder().timeout(timeout).no_proxy().redirect(Policy::none());
    if url.starts_with("http://") {
        // Reading all of the system's certificates takes longer than what is told.
        client = client.tls_certs_only(Vec::new());
    }
    client.build().map_err(|_| Error::Unavailable("the TLS settings cannot be used".to_owned()))
}

/// Sends one until it is durable.
async fn post(client: &reqwest::Client, url: &str, token: &SecretString, message: &Message) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let request = client.post(url).header("content-type", "application/cloudevents+json");
        let answer = request.bearer_auth(token.expose_secret()).body(message.body.clone()).send().await;
        match answer.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(status) if status.as_u16() == 503 && tries < TRIES => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(status) if status.is_server_error() => {
                return Err(Error::Unavailable(format!("the intake answers {status}")));
            }
            Ok(status) => return Err(Error::Refused(format!("the intake answers {status}"))),
            Err(error) if error.is_connect() => {
                return Err(Error::Unavailable(format!("nobody answers at {url}")));
            }
            Err(error) => {
                let why = error.without_url();
                return Err(Error::Unavailable(format!("{why}; send them again")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{StatusCode, header};
    use axum::routing::{get, post};

    use super::{Duration, Error, Message, SecretString};

    #[tokio::test]
    async fn who_is_sent_elsewhere_has_told_nobody() {
        for status in [StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT] {
            let elsewhere = move || async move { (status, [(header::LOCATION, "/login")]) };
            let page = get(|| async { "welcome" }).post(|| async { "welcome" });
            let router = Router::new().route("/events", post(elsewhere)).route("/login", page);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/events", listener.local_addr().unwrap());
            let server = tokio::spawn(async move { axum::serve(listener, router).await });
            let client = super::client(&url, Duration::from_secs(10)).unwrap();
            let message = Message { key: "k".to_owned(), body: b"{}".to_vec() };
            let told = super::post(&client, &url, &SecretString::from("t".to_owned()), &message).await;
            assert!(matches!(told, Err(Error::Refused(why)) if why.contains(status.as_str())), "{status}");
            server.abort();
        }
    }
}
