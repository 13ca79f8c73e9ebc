//! What outsiders and operators write is read without a panic, whatever it is: arbitrary bytes, and valid examples with
//! a few bytes changed, which get further in. What is read says the same again; what is refused is not repeated.

use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use curfew::config::{Config, Environment, Overrides};
use curfew::credential::CredentialId;
use curfew::event::adapters::{self, Adapter, Given};
use curfew::event::{Coordinates, Delivery, Format, Limits, decode, understand};
use curfew::fingerprint::Keys;
use proptest::prelude::*;
use proptest::sample::Index;

/// Every example in `schemas/events`, valid and invalid ones.
static EVENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut found = Vec::new();
    let mut folders = vec![crate::repository().join("schemas/events/examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(std::fs::read(path).unwrap()) }
        }
    }
    assert!(found.len() > 20, "{}", found.len());
    found
});

const URNS: [&str; 4] = [
    "urn:curfew:cred:vault-lease:prod:database/creds/ro/x",
    "urn:curfew:cred:vault-token:prod:GkxP4bJxY1nQeXoUq7dZ0aTw",
    "urn:curfew:cred:aws-key:acc_1.eu:AKIA%2F%C3%A9",
    "urn:curfew:cred:vault-secret-id:p:approle/ci/8c6e",
];

const FILES: [&str; 3] = [
    "journal: {path: curfew.db}\nkafka: {brokers: \"127.0.0.1:9092\", group: curfew, properties: {client.id: x}}\n",
    "topics:\n  curfew.tasks: {tenant: default, events: [task.started], kinds: [vault-lease], strongest: revoke}\n\
     http: {listen: \"127.0.0.1:8484\", token_file: intake.token, topic: curfew.tasks}\n",
    "realms:\n  - name: prod\n    mode: enforce\n    vault: {address: \"https://v\", token_file: /run/x, timeout: 10s}\n    \
     allowed_prefixes: [database/creds/, \"token:\"]\nlimits: {effects_per_minute: 600, claim_lease: 60s}\n",
];

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Put(Index, Vec<u8>),
    Cut(Index, usize),
    Twice(Index, usize),
}

impl Change {
    fn on(&self, bytes: &mut Vec<u8>) {
        let part = |at: &Index, length: usize| {
            let from = at.index(bytes.len() + 1);
            from..(from + length).min(bytes.len())
        };
        match self {
            Self::Put(at, new) => drop(bytes.splice(part(at, new.len()), new.iter().copied())),
            Self::Cut(at, length) => drop(bytes.drain(part(at, *length))),
            Self::Twice(at, length) => {
                let range = part(at, *length);
                let again = bytes[range.clone()].to_vec();
                drop(bytes.splice(range.end..range.end, again));
            }
        }
    }
}

/// Bytes that mean something to JSON, YAML or URNs, and any others.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(b"{}[]\":,\\%&*!|>#-?'\n\t 019eE.null".as_slice()), 1..5),
        prop::collection::vec(any::<u8>(), 1..5),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (any::<Index>(), piece()).prop_map(|(at, new)| Change::Put(at, new)),
        (any::<Index>(), 1..30usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (any::<Index>(), 1..60usize).prop_map(|(at, length)| Change::Twice(at, length)),
    ];
    prop::collection::vec(change, 0..4)
}

fn changed(original: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    changes.iter().for_each(|change| change.on(&mut bytes));
    bytes
}

fn delivery(payload: Vec<u8>, content_type: &str, attributes: &[(&str, Vec<u8>)]) -> Delivery {
    let mut headers = vec![("content-type".to_owned(), Some(Bytes::copy_from_slice(content_type.as_bytes())))];
    headers.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), Some(value.clone().into()))));
    Delivery {
        at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 7 },
        tenant: "default".into(),
        format: Format::Curfew,
        broker_ms: 1_788_256_800_000,
        headers,
        payload: Some(payload.into()),
    }
}

/// Of each scanner.
static REPORTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = crate::repository().join("fuzz/samples");
    ["gitleaks.json", "trufflehog.jsonl", "gitlab.json"].map(|name| std::fs::read(folder.join(name)).unwrap()).into()
});

/// Reads it as each scanner's; what comes out, intake takes. How many findings.
fn read_report(report: &[u8]) -> usize {
    static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::parse(format!("k1 {}", "1".repeat(64)).as_bytes()).unwrap());
    let given = Given { keys: Some(&KEYS), repository: Some("o/r"), now_ms: 1_788_256_800_000 };
    let of = |adapter| adapters::read(adapter, report, given).unwrap().flatten();
    let all = Adapter::ALL.into_iter().flat_map(of);
    all.map(|made| assert!(read_event(&delivery(made.body, "application/cloudevents+json", &[])))).count()
}

/// Reads it, twice alike; a reject says its size and where it came from.
fn read_event(delivery: &Delivery) -> bool {
    let limits = Limits::default();
    let size = delivery.payload.as_ref().unwrap().len() as u64;
    match (decode(delivery, &limits), decode(delivery, &limits)) {
        (Ok(one), Ok(other)) => {
            assert_eq!((one.digest, &one.id, &one.source), (other.digest, &other.id, &other.source));
            true
        }
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            assert_eq!((&one.at, one.size_bytes), (&delivery.at, size));
            false
        }
        (one, other) => panic!("{one:?} {other:?}"),
    }
}

/// An event of each scheduler.
static SCHEDULERS: LazyLock<Vec<(Format, Vec<u8>)>> = LazyLock::new(|| {
    let folder = crate::repository().join("fuzz/samples");
    let sample = |format: Format| std::fs::read(folder.join(format!("{}.json", format.as_str()))).unwrap();
    Format::SCHEDULERS.into_iter().chain([Format::Kubernetes]).map(|format| (format, sample(format))).collect()
});

/// Reads it as a scheduler's, twice alike. Whether it says something.
fn read_scheduled(format: Format, event: Vec<u8>) -> bool {
    let mut attributes = vec![("ce_type", b"dev.tekton.event.taskrun.failed.v1".to_vec())];
    if format == Format::Kubernetes {
        attributes.push(("ce_source", b"/kubernetes/prod".to_vec()));
    }
    let delivery = Delivery { format, ..delivery(event, "application/json", &attributes) };
    let limits = Limits::default();
    match (understand(&delivery, &limits), understand(&delivery, &limits)) {
        (Ok(Some(one)), Ok(Some(other))) => {
            assert_eq!((one.digest, &one.id, &one.source), (other.digest, &other.id, &other.source));
            true
        }
        (Ok(None), Ok(None)) => false,
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            false
        }
        (one, other) => panic!("{one:?} {other:?}"),
    }
}

/// Reads it; what it is, is one spelling that is read again as the same, of the same parts.
fn read_urn(text: &str) -> bool {
    let Ok(id) = CredentialId::parse(text) else { return false };
    assert_eq!(CredentialId::parse(id.as_str()).as_ref(), Ok(&id));
    let json = serde_json::to_string(&id).unwrap();
    assert_eq!(serde_json::from_str::<CredentialId>(&json).unwrap(), id);
    assert!(!id.id().chars().any(char::is_control) && id.as_str().len() <= curfew::credential::MAX_ID_BYTES);
    true
}

/// Reads it; what is wrong can be said in each way.
fn read_file(text: &str) -> bool {
    match Config::parse("f.yaml", text, Path::new("/etc"), &Overrides::default(), &Environment::default()) {
        Ok(_) => true,
        Err(invalid) => {
            assert!(!invalid.problems.is_empty());
            assert!(!invalid.to_string().is_empty() && !invalid.report(false).is_empty());
            false
        }
    }
}

#[test]
fn the_examples_get_all_the_way() {
    let kind = "application/cloudevents+json";
    let good = EVENTS.iter().filter(|event| read_event(&delivery((*event).clone(), kind, &[]))).count();
    assert!(good >= 8, "{good} of {}", EVENTS.len());
    assert_eq!(REPORTS.iter().map(|report| read_report(report)).collect::<Vec<_>>(), [1, 2, 2]);
    assert!(SCHEDULERS.iter().all(|(format, event)| read_scheduled(*format, event.clone())));
    assert!(URNS.iter().all(|urn| read_urn(urn)) && FILES.iter().all(|file| read_file(file)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn events(example in any::<Index>(), changes in changes(), kind in "(application/)?(cloudevents)?([+]?json)?[;a-z ]{0,9}") {
        let bytes = changed(example.get::<Vec<u8>>(&EVENTS), &changes);
        read_event(&delivery(bytes.clone(), "application/cloudevents+json", &[]));
        read_event(&delivery(bytes, &kind, &[]));
    }

    #[test]
    fn bytes_and_attributes(body in prop::collection::vec(any::<u8>(), 0..200), one in piece(), other in piece()) {
        let attributes = [
            ("ce_specversion", b"1.0".to_vec()),
            ("ce_type", b"dev.curfew.task.started.v1".to_vec()),
            ("ce_source", one),
            ("ce_id", other.clone()),
            ("traceparent", other),
        ];
        read_event(&delivery(body.clone(), "application/json", &attributes));
        read_event(&delivery(body, "application/cloudevents+json", &attributes));
    }

    #[test]
    fn schedulers(example in any::<Index>(), changes in changes()) {
        let (format, event) = example.get::<(Format, Vec<u8>)>(&SCHEDULERS);
        read_scheduled(*format, changed(event, &changes));
    }

    #[test]
    fn urns(example in any::<Index>(), changes in changes(), any in "\\PC{0,60}") {
        let bytes = changed(example.get(&URNS).as_bytes(), &changes);
        read_urn(&String::from_utf8_lossy(&bytes));
        read_urn(&any);
        read_urn(&format!("urn:curfew:cred:vault-lease:prod:{any}"));
    }

    #[test]
    fn reports(example in any::<Index>(), changes in changes()) {
        read_report(&changed(example.get::<Vec<u8>>(&REPORTS), &changes));
    }

    #[test]
    fn key_files(changes in changes()) {
        let bytes = changed(format!("k2 {}\nk1 {}\n", "2".repeat(64), "1".repeat(64)).as_bytes(), &changes);
        match Keys::parse(&bytes) {
            Ok(keys) => prop_assert!((1..=2).contains(&keys.of("a secret value").len())),
            Err(why) => prop_assert!(!why.to_string().is_empty()),
        }
    }

    #[test]
    fn files(example in any::<Index>(), changes in changes(), any in "[\\PC\n\t]{0,80}") {
        let bytes = changed(example.get(&FILES).as_bytes(), &changes);
        read_file(&String::from_utf8_lossy(&bytes));
        read_file(&any);
    }
}

/// What was written into a wrong place, under whatever change of the file, is not said again.
#[test]
fn a_secret_is_not_said_again_however_the_file_is_broken() {
    const SECRET: &str = "hvs.CAESIKx3rQ9wLm2pTb7e0Q";
    let places = [
        format!("kafka:\n  properties:\n    sasl.password: {SECRET}\n  brokers: a:1\n"),
        format!("kafka: {{sasl.password: \"{SECRET}\", brokers: \"127.0.0.1:1\"}}\n"),
        format!("realms:\n  - name: a\n    vault: {{address: \"http://u:{SECRET}@h:1\", token_file: x}}\n"),
        format!("{SECRET}: {{a: 1}}\nlimits: {{concurrency: {SECRET}}}\n"),
        format!("targets:\n  - name: a\n    postgres: {{url: \"postgres://u:{SECRET}@h/d\"}}\n"),
    ];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3_000));
    let ran = runner.run(&(any::<Index>(), changes()), |(place, changes)| {
        let text = changed(place.get(&places).as_bytes(), &changes);
        let text = String::from_utf8_lossy(&text);
        let over = (Path::new(""), Overrides::default(), Environment::default());
        if let Err(invalid) = Config::parse("f.yaml", &text, over.0, &over.1, &over.2) {
            for said in [invalid.to_string(), invalid.report(false)] {
                // Twelve bytes are a leak: what a change left of it, too.
                let piece = SECRET.as_bytes().windows(12).map(|piece| std::str::from_utf8(piece).unwrap());
                prop_assert!(piece.clone().all(|piece| !said.contains(piece)), "{}", said);
            }
        }
        Ok(())
    });
    ran.unwrap();
}
