//! `curfew publish`: checks everything first, then sends in order. What is wrong is named, never quoted.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use curfew::config::{Config, ways};
use curfew::event::{self, Coordinates, Data, Delivery, Event};
use curfew::kafka::producer;
use curfew::kafka::settings::Connection;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use secrecy::ExposeSecret as _;
use serde_json::value::RawValue;

use crate::args::{Publish, intake_url};
use crate::{Failed, show};

/// How many wrong events are named.
const NAMED: usize = 20;
/// From so many on there is a progress bar.
const LONG: usize = 200;
/// Records that go to Kafka together.
const CHUNK: usize = 1_000;
/// How often an intake that is not ready is asked again.
const TRIES: u32 = 5;

struct Checked {
    key: String,
    body: Vec<u8>,
}

/// `curfew publish`
pub async fn publish(config: &Config, what: Publish, json: bool) -> Result<(), Failed> {
    let mut events = Vec::new();
    let mut wrong = Vec::new();
    let stdin = [std::path::PathBuf::from("-")];
    for file in if what.files.is_empty() { &stdin[..] } else { &what.files } {
        let (name, bytes) = read(file)?;
        take(&name, &bytes, &mut events, &mut wrong);
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(NAMED);
        wrong.truncate(NAMED);
        let mut text = format!("nothing was sent:\n  {}", wrong.join("\n  "));
        if more > 0 {
            text.push_str(&format!("\n  and {more} more"));
        }
        return Err(Failed::Data(text));
    }
    if events.is_empty() {
        return Err(Failed::Data("there is no event in it".to_owned()));
    }
    let to = if what.dry_run {
        "nowhere: they are right".to_owned()
    } else if let Some(brokers) = &what.kafka {
        kafka(config, brokers, &what.topic, &events).await?
    } else {
        http(config, &what, &events).await?
    };
    if json {
        println!("{}", serde_json::json!({ "events": events.len(), "to": to }));
    } else {
        println!("{} events to {to}", events.len());
    }
    Ok(())
}

fn read(file: &Path) -> Result<(String, Vec<u8>), Failed> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(anyhow::Error::from)?;
        return Ok(("stdin".to_owned(), bytes));
    }
    let name = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| Failed::Data(format!("{name}: {error}")))?;
    Ok((name, bytes))
}

/// Splits one object, an array or a row of objects, and checks each as the intake will.
fn take(name: &str, bytes: &[u8], events: &mut Vec<Checked>, wrong: &mut Vec<String>) {
    let line_of = |at: usize| bytes[..at.min(bytes.len())].iter().filter(|b| **b == b'\n').count() + 1;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            return wrong.push(format!("{name}:{}: not UTF-8", line_of(error.valid_up_to())));
        }
    };
    let mut found: Vec<&RawValue> = Vec::new();
    let parsed = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map(|all| found = all)
    } else {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        stream.try_for_each(|one| one.map(|one| found.push(one)))
    };
    for raw in found {
        let at = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        match decode(raw) {
            Ok(event) => events.push(Checked { key: key(&event), body: raw.get().as_bytes().to_vec() }),
            Err(reject) => {
                let place = reject.pointer.map(|pointer| format!(" at {pointer}")).unwrap_or_default();
                wrong.push(format!("{name}:{}: {}{place}", line_of(at), reject.reason.as_str()));
            }
        }
    }
    if let Err(error) = parsed {
        // The parser's own words can quote the text.
        wrong.push(format!("{name}:{}: not JSON (column {})", error.line(), error.column()));
    }
}

fn decode(raw: &RawValue) -> Result<Event, event::Reject> {
    let content_type = Bytes::from_static(b"application/cloudevents+json");
    let delivery = Delivery {
        at: Coordinates { cluster: "publish".into(), topic: "publish".into(), partition: -1, offset: -1 },
        tenant: "default".into(),
        broker_ms: curfew::clock::System::shared().wall_ms(),
        headers: vec![("content-type".to_owned(), Some(content_type))],
        payload: Some(Bytes::copy_from_slice(raw.get().as_bytes())),
    };
    event::decode(&delivery, &event::Limits::default())
}

/// All of one run in one partition: in order.
fn key(event: &Event) -> String {
    match &event.data {
        Data::TaskStarted(data) => data.run.to_string(),
        Data::TaskExtended(data) => data.run.to_string(),
        Data::TaskHeartbeat(data) => data.run.to_string(),
        Data::TaskEnded(data) => data.run.to_string(),
        Data::GrantRegistered(data) => data.run.to_string(),
        Data::GrantReleased(data) => data.run.to_string(),
        Data::CredentialRegistered(data) => data.credential.to_string(),
        Data::FindingObserved(data) => data.finding_key.clone(),
        Data::FindingClosed(data) => data.finding_key.clone(),
        _ => event.source.clone(),
    }
}

fn bar(events: usize) -> ProgressBar {
    let shown = events >= LONG && std::io::stderr().is_terminal() && show::colour_on_stderr();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(u64::try_from(events).ok(), target);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn kafka(config: &Config, brokers: &str, topic: &str, events: &[Checked]) -> Result<String, Failed> {
    let properties = config.kafka.as_ref().map(|kafka| kafka.properties.0.clone()).unwrap_or_default();
    let tls = properties.get("security.protocol").is_some_and(|p| p.to_ascii_lowercase().ends_with("ssl"));
    if !tls && !ways::brokers_are_loopback(brokers) {
        return Err(Failed::Data("plain text to Kafka is allowed on loopback only: configure TLS".to_owned()));
    }
    let connection = Connection { brokers: brokers.to_owned(), properties };
    let bar = bar(events.len());
    for chunk in events.chunks(CHUNK) {
        let records: Vec<(String, Vec<u8>)> = chunk.iter().map(|one| (one.key.clone(), one.body.clone())).collect();
        let sent = producer::publish(&connection, topic, &records).await;
        sent.map_err(|error| Failed::Unavailable(format!("after {} events: {error}", bar.position())))?;
        bar.inc(u64::try_from(chunk.len()).unwrap_or(0));
    }
    bar.finish_and_clear();
    Ok(format!("{topic} at {brokers}"))
}

async fn http(config: &Config, what: &Publish, events: &[Checked]) -> Result<String, Failed> {
    let url = match (&what.http, &config.http) {
        (Some(url), _) if !ways::is_safe_url(url) => {
            return Err(Failed::Data("--http is an https:// URL, or http:// on loopback".to_owned()));
        }
        (Some(url), _) if url.trim_end_matches('/').ends_with("/events") => url.trim_end_matches('/').to_owned(),
        (Some(url), _) => format!("{}/events", url.trim_end_matches('/')),
        (None, Some(http)) => intake_url(http.listen),
        (None, None) => {
            let help = "this configuration has no HTTP intake: name --kafka and --topic, or --http";
            return Err(Failed::Data(help.to_owned()));
        }
    };
    let file = what.token_file.as_ref().or(config.http.as_ref().map(|http| &http.token_file));
    let file = file.ok_or_else(|| Failed::Data("--http needs --token-file".to_owned()))?;
    let token = curfew::http::read_token(file).map_err(|error| Failed::Unavailable(error.to_string()))?;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build();
    let client = client.map_err(anyhow::Error::from)?;
    let bar = bar(events.len());
    for event in events {
        let mut tries = 0;
        loop {
            tries += 1;
            let request = client.post(&url).header("content-type", "application/cloudevents+json");
            let answer = request.bearer_auth(token.expose_secret()).body(event.body.clone()).send().await;
            let done = bar.position();
            match answer.map(|answer| answer.status()) {
                Ok(status) if status.is_success() => break,
                Ok(status) if status.as_u16() == 503 && tries < TRIES => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(status) if status.is_server_error() => {
                    return Err(Failed::Unavailable(format!("after {done} events: the intake answers {status}")));
                }
                Ok(status) => return Err(Failed::Data(format!("after {done} events: the intake answers {status}"))),
                Err(error) if error.is_connect() => {
                    return Err(Failed::Unavailable(format!("after {done} events: nobody answers at {url}")));
                }
                Err(error) => {
                    let why = error.without_url();
                    return Err(Failed::Unavailable(format!("after {done} events: {why}; send them again")));
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_line_and_not_quoted() {
        let mut events = Vec::new();
        let mut wrong = Vec::new();
        take("f", b"{\"hunter2\":1}\n\n{\"specversion\":\"1.0\"}\nhunter2\n", &mut events, &mut wrong);
        assert!(events.is_empty());
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("f:1: ") && wrong[1].starts_with("f:3: "), "{wrong:?}");
        assert_eq!(wrong[2], "f:4: not JSON (column 1)");
        assert!(!wrong.concat().contains("hunter2"));
        wrong.clear();
        take("f", b"[\n  {},\n  {}\n]", &mut events, &mut wrong);
        assert!(wrong[1].starts_with("f:3: "), "{wrong:?}");
        wrong.clear();
        take("f", b"\n\xff", &mut events, &mut wrong);
        assert_eq!(wrong, ["f:2: not UTF-8"]);
    }
}
