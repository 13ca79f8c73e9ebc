//! What the adapters have in common: a finding as its scanner says it becomes an event.

use serde_json::{Map, Value, json};

use secrecy::zeroize::Zeroizing;

use super::Converted;
use super::hide::Hide;
use crate::event::read::MAX_EXACT;
use crate::event::{ACCESS_KEY_ID, Identifier, Type, digest16};
use crate::finding::Validity;
use crate::fingerprint::{ALGORITHM, Fingerprint, Keys};

/// Fingerprints in one event.
const MAX_FINGERPRINTS: usize = 16;
/// Identifiers in one event.
const MAX_IDENTIFIERS: usize = 16;
/// What stands for a text of which nothing may be said.
const NOTHING: &str = "***";

/// Who found it.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    /// The tool.
    pub(super) tool: &'static str,
    /// The CloudEvents source.
    pub(super) source: &'static str,
}

/// A part of a secret, to be fingerprinted and forgotten.
pub(super) struct Secret {
    /// Which part.
    pub(super) part: String,
    /// The value itself.
    pub(super) value: Zeroizing<String>,
}

impl Secret {
    pub(super) fn new(part: &str, value: &str) -> Self {
        Self { part: part.to_owned(), value: Zeroizing::new(value.to_owned()) }
    }
}

/// A finding as its scanner says it: what the named fields hold, not yet without secrets.
#[derive(Default)]
pub(super) struct Found<'t> {
    pub(super) detector: String,
    /// What kind of place.
    pub(super) kind: &'t str,
    pub(super) repo: Option<&'t str>,
    pub(super) path: Option<&'t str>,
    pub(super) commit: Option<&'t str>,
    pub(super) line: Option<i64>,
    /// Tells two on one line apart, where nothing else does.
    pub(super) column: Option<i64>,
    pub(super) native_id: Option<&'t str>,
    pub(super) owner: Option<&'t str>,
    /// Where the scanner says so.
    pub(super) severity: Option<&'static str>,
    /// Whether somebody tried it, and what came of it.
    pub(super) validity: Validity,
    /// The public can see it.
    pub(super) public: bool,
    pub(super) honeytoken: bool,
    /// The finding's key, where its scanner has a name for it that stays; else it is made of what is known.
    pub(super) key: Option<String>,
    /// It was closed, and counts again.
    pub(super) reopened: bool,
    /// Checked to be what they are called.
    pub(super) identifiers: Vec<Identifier>,
    /// Also those that are too short or masked: they are hidden, and not fingerprinted.
    pub(super) secrets: Vec<Secret>,
}

impl Found<'_> {
    /// Whether `value` is the public name of a secret, which is noted, and no secret.
    pub(super) fn is_public(&mut self, value: &str) -> bool {
        let is_public = is_access_key_id(value);
        if is_public {
            self.identify(ACCESS_KEY_ID, value);
        }
        is_public
    }

    pub(super) fn identify(&mut self, kind: &str, value: &str) {
        let one = Identifier { kind: kind.to_owned(), value: value.to_owned() };
        if self.identifiers.len() < MAX_IDENTIFIERS && !self.identifiers.contains(&one) {
            self.identifiers.push(one);
        }
    }

    /// The event, without any secret. On another `occasion` the same words are another event.
    pub(super) fn event(self, by: By, keys: Option<&Keys>, occasion: &str) -> Converted {
        let hide = Hide::new(self.secrets.iter().map(|secret| secret.value.as_str()));
        let fingerprints = self.fingerprints(keys);
        // What it is called is decided by what may be said only: else the names could be tried against guesses.
        let detector = hide.text(&self.detector).unwrap_or_else(|| NOTHING.to_owned());
        let location = [
            ("kind", hide.text(self.kind).map(|kind| kind.to_ascii_lowercase())),
            ("repo", self.repo.and_then(|text| hide.place(text))),
            ("path", self.path.and_then(|text| hide.place(text))),
            ("commit", self.commit.and_then(|text| hide.text(text))),
        ];
        let native_id = self.native_id.and_then(|text| hide.text(text));
        let key_id = self.identifiers.iter().find(|one| one.kind == ACCESS_KEY_ID);
        let known_by = match (key_id, fingerprints.first()) {
            (Some(one), _) => format!("pub:{}:{}", one.kind, one.value),
            (None, Some((_, fingerprint))) => format!("fp:{fingerprint}"),
            (None, None) => format!("src:{}:{}", native_id.as_deref().unwrap_or("-"), self.column.unwrap_or(0)),
        };
        let line = self.line.filter(|line| (0..=MAX_EXACT).contains(line));
        let line_text = line.map(|line| line.to_string()).unwrap_or_default();
        let mut named: Vec<&str> = vec!["finding.v1", by.tool, &detector, &known_by, &line_text];
        named.extend(location.iter().map(|(_, text)| text.as_deref().unwrap_or_default()));
        let made = || hex::encode(digest16(&named.iter().map(|text| text.as_bytes()).collect::<Vec<_>>()));
        let key = self.key.clone().unwrap_or_else(made);

        let mut place = object(location);
        if let Some(line) = line {
            place.insert("line".to_owned(), line.into());
        }
        let mut data = object([
            ("finding_key", Some(key.clone())),
            ("provider", provider(&detector).map(str::to_owned)),
            ("detector", Some(detector)),
            ("owner_hint", self.owner.and_then(|text| hide.text(text))),
            ("severity", self.severity.map(str::to_owned)),
        ]);
        let tool = Some(by.tool.to_owned());
        let prints = fingerprints.iter().map(|(part, one)| {
            let part = hide.text(part);
            json!({"kid": one.kid(), "alg": ALGORITHM, "value": one.digits(), "part": part})
        });
        let identifiers = self.identifiers.iter().filter(|one| {
            // What is a name by its shape may still be made of a secret.
            one.kind == ACCESS_KEY_ID || hide.text(&one.value).as_ref() == Some(&one.value)
        });
        let identifiers = identifiers.map(|one| json!({"kind": one.kind, "value": one.value}));
        let validity = match self.validity {
            Validity::Unknown => json!({"state": "unknown"}),
            Validity::Active => json!({"state": "active", "by": by.tool}),
            Validity::Inactive => json!({"state": "inactive", "by": by.tool}),
        };
        for (name, value) in [
            ("source", Value::Object(object([("tool", tool), ("native_id", native_id)]))),
            ("location", Value::Object(place)),
            ("fingerprints", prints.collect()),
            ("identifiers", identifiers.collect()),
            ("validity", validity),
            ("honeytoken", self.honeytoken.into()),
        ] {
            data.insert(name.to_owned(), value);
        }
        if self.public {
            data.insert("exposure".to_owned(), json!({"public": true}));
        }
        if self.reopened {
            data.insert("reopened".to_owned(), true.into());
        }
        said(by, Type::FindingObserved, key, Value::Object(data), occasion, fingerprints.len())
    }

    /// By the newest key first; of as many parts as there is room for, by all keys.
    fn fingerprints(&self, keys: Option<&Keys>) -> Vec<(&str, Fingerprint)> {
        let Some(keys) = keys else { return Vec::new() };
        let mut all: Vec<(&str, Fingerprint)> = Vec::new();
        for secret in &self.secrets {
            let of = keys.of(&secret.value);
            // Two parts with one value are one.
            let is_known = of.first().is_none_or(|one| all.iter().any(|(_, known)| known == one));
            if !is_known && all.len() + of.len() <= MAX_FINGERPRINTS {
                all.extend(of.into_iter().map(|one| (secret.part.as_str(), one)));
            }
        }
        all
    }
}

/// The event of this type that says `data` about the finding `key`.
pub(super) fn said(by: By, kind: Type, key: String, data: Value, occasion: &str, fingerprints: usize) -> Converted {
    let name = kind.as_str();
    let id = digest16(&[format!("{name}.v1").as_bytes(), data.to_string().as_bytes(), occasion.as_bytes()]);
    let event = json!({
        "specversion": "1.0",
        "type": format!("dev.curfew.{name}.v1"),
        "source": by.source,
        "id": hex::encode(id),
        "subject": key,
        "datacontenttype": "application/json",
        "dataschema": format!("urn:curfew:schema:{name}.v1"),
        "data": data,
    });
    Converted { line: 0, key, body: event.to_string().into_bytes(), fingerprints }
}

fn object<const N: usize>(texts: [(&str, Option<String>); N]) -> Map<String, Value> {
    texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))).collect()
}

/// The id of an access key of AWS, permanent or temporary.
fn is_access_key_id(text: &str) -> bool {
    (16..=32).contains(&text.len())
        && (text.starts_with("AKIA") || text.starts_with("ASIA"))
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// Who issued the secret, as far as the detector's name tells.
fn provider(detector: &str) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 12] = [
        ("aws", "aws"),
        ("gcp", "gcp"),
        ("azure", "azure"),
        ("github", "github"),
        ("gitlab", "gitlab"),
        ("slack", "slack"),
        ("stripe", "stripe"),
        ("npm", "npm"),
        ("pypi", "pypi"),
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("vault", "vault"),
    ];
    let detector = detector.to_ascii_lowercase();
    KNOWN.into_iter().find(|(start, _)| detector.starts_with(start)).map(|(_, provider)| provider)
}
