//! `curfew publish`: checks everything first, then sends in order. What is wrong is named, never quoted.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use curfew::config::Config;
use curfew::event::{self, Coordinates, Data, Delivery, Event, Type};
use curfew::tell::{self, Message, Teller};
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::value::RawValue;

use crate::args::{Publish, Published, Target};
use crate::{Failed, findings, show};

/// How many wrong events are named.
const NAMED: usize = 20;
/// From so many on there is a progress bar.
const LONG: usize = 200;
/// How long one event is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// `curfew publish`
pub async fn publish(config: &Config, what: Publish, json: bool) -> Result<(), Failed> {
    if let Some(Published::Finding(what)) = what.what {
        return findings::publish(config, what, json).await;
    }
    let events = checked(&what.files, |_| true)?;
    let to = send(config, &what.to, Way { topic: &what.topic, path: "/events", at_once: 1 }, &events).await?;
    if json {
        println!("{}", serde_json::json!({ "events": events.len(), "to": to }));
    } else {
        println!("{} events to {to}", events.len());
    }
    Ok(())
}

/// The events in `files`, each of a type that is `wanted`; all are right, and there is one.
pub fn checked(files: &[PathBuf], wanted: impl Fn(Type) -> bool) -> Result<Vec<Message>, Failed> {
    let mut events = Vec::new();
    let mut wrong = Vec::new();
    for file in or_stdin(files) {
        let (name, bytes) = read(file)?;
        take(&name, &bytes, &wanted, &mut events, &mut wrong);
    }
    if !wrong.is_empty() {
        return Err(Failed::Data(format!("nothing was sent:{}", listed(&wrong))));
    }
    if events.is_empty() {
        return Err(Failed::Data("there is no event in it".to_owned()));
    }
    Ok(events)
}

/// The first of what is wrong, a line each, and how many more there are.
pub fn listed(wrong: &[String]) -> String {
    let mut text = String::new();
    for one in wrong.iter().take(NAMED) {
        text.push_str(&format!("\n  {one}"));
    }
    match wrong.len().saturating_sub(NAMED) {
        0 => text,
        more => text + &format!("\n  and {more} more"),
    }
}

/// The files, or stdin where there is none.
pub fn or_stdin(files: &[PathBuf]) -> Vec<&Path> {
    if files.is_empty() { vec![Path::new("-")] } else { files.iter().map(PathBuf::as_path).collect() }
}

/// How events go.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The Kafka topic.
    pub topic: &'a str,
    /// Of the intake.
    pub path: &'a str,
    /// Over HTTP; more than one where their order means nothing.
    pub at_once: usize,
}

/// Sends them; says where to.
pub async fn send(config: &Config, target: &Target, way: Way<'_>, events: &[Message]) -> Result<String, Failed> {
    if target.dry_run {
        return Ok("nowhere: they are right".to_owned());
    }
    let teller = Teller::open(config, &target.to.way(way.topic, way.path, PATIENCE))?;
    let bar = bar(Some(events.len()));
    let (teller, shown) = (&teller, &bar);
    let sent = futures::stream::iter(events.chunks(teller.together())).map(async |chunk| {
        let after = |why| format!("after {} events: {why}", shown.position());
        teller.tell(chunk).await.map_err(|error| match error {
            tell::Error::Unavailable(why) => Failed::Unavailable(after(why)),
            tell::Error::Refused(why) => Failed::Data(after(why)),
        })?;
        shown.inc(u64::try_from(chunk.len()).unwrap_or(0));
        Ok::<(), Failed>(())
    });
    sent.buffered(way.at_once).try_collect::<()>().await?;
    bar.finish_and_clear();
    Ok(teller.place())
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
fn take(name: &str, bytes: &[u8], wanted: &impl Fn(Type) -> bool, events: &mut Vec<Message>, wrong: &mut Vec<String>) {
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
            Ok(event) if !wanted(event.kind) => {
                wrong.push(format!("{name}:{}: not one of the types that belong here", line_of(at)));
            }
            Ok(event) => events.push(Message { key: key(&event), body: raw.get().as_bytes().to_vec() }),
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
        format: curfew::event::Format::Curfew,
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
        Data::CredentialAdopted(data) => data.credential.to_string(),
        Data::FindingObserved(data) => data.finding_key.clone(),
        Data::FindingClosed(data) => data.finding_key.clone(),
        _ => event.source.clone(),
    }
}

/// A progress bar on a terminal, if there is enough to wait for, or nobody knows how much.
pub fn bar(events: Option<usize>) -> ProgressBar {
    let long = events.is_none_or(|events| events >= LONG);
    let shown = long && std::io::stderr().is_terminal() && show::colour_on_stderr();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(events.and_then(|events| u64::try_from(events).ok()), target);
    let template = if events.is_some() { "{bar:40} {pos}/{len} {per_sec} {eta}" } else { "{pos} read, {per_sec}" };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_line_and_not_quoted() {
        let mut events = Vec::new();
        let mut wrong = Vec::new();
        take("f", b"{\"hunter2\":1}\n\n{\"specversion\":\"1.0\"}\nhunter2\n", &|_| true, &mut events, &mut wrong);
        assert!(events.is_empty());
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("f:1: ") && wrong[1].starts_with("f:3: "), "{wrong:?}");
        assert_eq!(wrong[2], "f:4: not JSON (column 1)");
        assert!(!wrong.concat().contains("hunter2"));
        wrong.clear();
        take("f", b"[\n  {},\n  {}\n]", &|_| true, &mut events, &mut wrong);
        assert!(wrong[1].starts_with("f:3: "), "{wrong:?}");
        wrong.clear();
        take("f", b"\n\xff", &|_| true, &mut events, &mut wrong);
        assert_eq!(wrong, ["f:2: not UTF-8"]);
    }
}
