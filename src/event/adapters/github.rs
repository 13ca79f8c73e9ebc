//! GitHub's webhooks about alerts of secret scanning become `finding.observed` and `finding.closed`.
//!
//! A webhook says which alert it is about, not what was found: the secret is asked for at GitHub's API, or the finding has no
//! fingerprint. Only the body is signed: which kind of event it is, and that it is the same again, is read from the body,
//! not from the headers beside it. One alert is one finding, named `github/<owner>/<repository>/<number>`.
//!
//! Not read: URLs (what is asked for is built of names), comments, the sender.
//! Source: <https://docs.github.com/webhooks/webhook-events-and-payloads>, REST schema `secret-scanning-alert`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use serde_json::json;

use super::finding::{By, Found, Secret, said};
use super::object::Object;
use super::{Converted, Why, parsed};
use crate::event::Type;
use crate::event::time;
use crate::finding::Validity;
use crate::fingerprint::Keys;

/// What the keys of its findings begin with.
pub const KEY: &str = "github/";
const BY: By = By { tool: "github", source: "/scanners/github" };
/// The two kinds of events that are read, as `X-GitHub-Event` names them.
pub const EVENTS: [&str; 2] = ["secret_scanning_alert", "secret_scanning_alert_location"];
/// How far GitHub's clock may be ahead.
const AHEAD_MS: i64 = 10 * 60_000;

/// What an event says of its alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is open: news of it, or of where it was found.
    Open,
    /// It was closed, and is open again.
    Reopened,
    /// It is closed, for this reason.
    Closed(&'static str),
    /// Nothing that matters here.
    Nothing,
}

/// An event about an alert. It may hold the secret: older servers send it along.
pub struct Heard {
    /// What it says.
    pub word: Word,
    /// Which alert.
    pub alert: Alert,
    /// When that happened; `None`: the event has no time of its own.
    at_ms: Option<i64>,
    detector: String,
    validity: Validity,
    public: bool,
    leaked: bool,
    owner: Option<String>,
    place: Option<Place>,
    secret: Option<Zeroizing<String>>,
    /// Only this body has it.
    mark: String,
}

/// An alert, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// `owner/repository`, of the characters that GitHub allows.
    pub repository: String,
    /// Its number in the repository.
    pub number: i64,
}

struct Place {
    kind: String,
    path: Option<String>,
    commit: Option<String>,
    line: Option<i64>,
}

/// The secret of an alert, as GitHub shows it.
pub struct Shown(Vec<Zeroizing<String>>);

impl Alert {
    /// The finding's key.
    pub fn key(&self) -> String {
        format!("{KEY}{}/{}", self.repository, self.number)
    }

    /// The alert that a finding's key names.
    pub fn of_key(key: &str) -> Option<Self> {
        let (repository, number) = key.strip_prefix(KEY)?.rsplit_once('/')?;
        Self::of(repository, number.parse().ok()?)
    }

    /// Below the API's address.
    pub fn path(&self) -> String {
        format!("/repos/{}/secret-scanning/alerts/{}", self.repository, self.number)
    }

    fn of(repository: &str, number: i64) -> Option<Self> {
        let is_name = |name: &str| {
            let is_of_it = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            (1..=100).contains(&name.len()) && name.bytes().all(is_of_it) && !matches!(name, "." | "..")
        };
        let (owner, name) = repository.split_once('/')?;
        let is_right = is_name(owner) && is_name(name) && number > 0;
        is_right.then(|| Self { repository: repository.to_owned(), number })
    }
}

/// Reads the body of an event, whose signature was right. By `mark`, which only that body has, the same event is known
/// when it comes again. No plain hash: older servers send the secret along, and guesses could be tried against it.
///
/// # Errors
/// It is no event about an alert.
pub fn read(body: &[u8], mark: &str) -> Result<Heard, Why> {
    let node = parsed(body)?;
    let event = Object::of(&node.0).ok_or(Why::NoDetector)?;
    let alert = event.object("alert").ok_or(Why::NoDetector)?;
    let repository = event.object("repository").ok_or(Why::NoDetector)?;
    let (action, kind) = (event.text("action"), alert.text("secret_type"));
    let named = repository.text("full_name").zip(alert.integer("number")).and_then(|(name, n)| Alert::of(name, n));
    // Other alerts of GitHub have no type of secret.
    let (Some(action), Some(kind), Some(named)) = (action, kind, named) else { return Err(Why::NoDetector) };
    let location = event.object("location");
    let word = match (action, location) {
        ("created" | "publicly_leaked" | "validated", None) | ("created", Some(_)) => Word::Open,
        ("reopened", None) => Word::Reopened,
        ("resolved" | "revoked", None) => Word::Closed(reason(alert.text("resolution"))),
        _ => Word::Nothing,
    };
    let times = ["updated_at", "created_at", "resolved_at"].map(|name| alert.text(name).and_then(time::parse));
    let newest = times.into_iter().flatten().max();
    // A place that was found today is of an alert that may be old.
    let at_ms = if location.is_some() { None } else { Some(newest.ok_or(Why::NoDetector)?) };
    let leaked = action == "publicly_leaked" || alert.is_true("publicly_leaked");
    let person = |name| Some(alert.object(name)?.text("login")?.to_owned());
    Ok(Heard {
        word,
        alert: named,
        at_ms,
        detector: kind.to_owned(),
        // A place is no check, and known by its body alone: it must not make an old check look like a new one.
        validity: match location {
            Some(_) => Validity::Unknown,
            None => Validity::of(alert.text("validity").unwrap_or_default()),
        },
        public: leaked || repository.is_false("private"),
        leaked,
        owner: person("assigned_to").or_else(|| person("push_protection_bypassed_by")),
        place: location.map(place),
        secret: alert.text("secret").map(|secret| Zeroizing::new(secret.to_owned())),
        mark: mark.to_owned(),
    })
}

/// The word for a resolution. A pattern that was taken back found nothing.
fn reason(resolution: Option<&str>) -> &'static str {
    match resolution {
        Some("false_positive" | "pattern_deleted" | "pattern_edited") => "false_positive",
        Some("used_in_tests") => "used_in_tests",
        Some("revoked") => "revoked",
        _ => "wont_fix",
    }
}

fn place(location: Object<'_, '_>) -> Place {
    let kind = location.text("type").unwrap_or("unknown");
    let details = location.object("details");
    let text = |name| Some(details?.text(name)?.to_owned());
    Place {
        kind: if kind == "commit" { "git".to_owned() } else { kind.to_owned() },
        path: text("path"),
        commit: text("commit_sha"),
        line: details.and_then(|details| details.integer("start_line")),
    }
}

impl Heard {
    /// Whether it happened within `max_age_ms` before `now_ms`. What has no time is timely.
    pub fn is_timely(&self, now_ms: i64, max_age_ms: i64) -> bool {
        let of = now_ms.saturating_sub(max_age_ms)..=now_ms.saturating_add(AHEAD_MS);
        self.at_ms.is_none_or(|at_ms| of.contains(&at_ms))
    }

    /// Whether GitHub is to be asked for the secret.
    pub fn lacks_secret(&self) -> bool {
        self.secret.is_none() && matches!(self.word, Word::Open | Word::Reopened)
    }

    /// The event. `None`: it says nothing. The same body with the same secret is the same event.
    pub fn event(self, shown: Option<Shown>, keys: Option<&Keys>) -> Option<Converted> {
        match self.word {
            Word::Nothing => None,
            Word::Closed(reason) => {
                let key = self.alert.key();
                let data = json!({"finding_key": key, "reason": reason});
                Some(said(BY, Type::FindingClosed, key, data, &self.mark, 0))
            }
            Word::Open | Word::Reopened => Some(self.observed(shown, keys)),
        }
    }

    fn observed(self, shown: Option<Shown>, keys: Option<&Keys>) -> Converted {
        let place = self.place.as_ref();
        let native = format!("{}#{}", self.alert.repository, self.alert.number);
        let mut found = Found {
            detector: self.detector,
            kind: place.map_or("github", |place| &place.kind),
            repo: Some(&self.alert.repository),
            path: place.and_then(|place| place.path.as_deref()),
            commit: place.and_then(|place| place.commit.as_deref()),
            line: place.and_then(|place| place.line),
            native_id: Some(&native),
            owner: self.owner.as_deref(),
            severity: self.leaked.then_some("critical"),
            validity: self.validity,
            public: self.public,
            key: Some(self.alert.key()),
            reopened: self.word == Word::Reopened,
            ..Found::default()
        };
        let shown = shown.map(|shown| shown.0).unwrap_or_default();
        for value in shown.iter().chain(&self.secret) {
            if !found.is_public(value.trim()) {
                found.secrets.push(Secret::new("secret", value));
            }
        }
        found.event(BY, keys, &self.mark)
    }
}

/// What GitHub's API says of `alert`. `None`: not that, or without the secret.
pub fn shown(answer: &[u8], alert: &Alert) -> Option<Shown> {
    let node = parsed(answer).ok()?;
    let it = Object::of(&node.0).filter(|it| it.integer("number") == Some(alert.number))?;
    let secret = it.text("secret")?;
    let mut values = Vec::new();
    // It does not say whether it shows what was found or what that means: both count.
    if it.is_true("is_base64_encoded")
        && let Ok(bytes) = STANDARD.decode(secret).map(Zeroizing::new)
        && let Ok(text) = std::str::from_utf8(&bytes)
    {
        values.push(Zeroizing::new(text.to_owned()));
    }
    values.push(Zeroizing::new(secret.to_owned()));
    Some(Shown(values))
}

/// Whether GitHub's API says that `alert` is resolved, whatever as. `None`: it says neither.
pub fn is_resolved(answer: &[u8], alert: &Alert) -> Option<bool> {
    let node = parsed(answer).ok()?;
    let it = Object::of(&node.0).filter(|it| it.integer("number") == Some(alert.number))?;
    match it.text("state")? {
        "resolved" => Some(true),
        "open" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[path = "github/tests.rs"]
mod tests;
