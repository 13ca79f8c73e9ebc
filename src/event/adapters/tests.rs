//! Reports as the scanners write them, and as nobody does.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Coordinates, Data, Delivery, FindingObserved, Limits, decode};

const KEY_FILE: &[u8] = b"k2 c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7\n\
    k1 d4b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7\n";
const NOW_MS: i64 = 1_788_256_800_000;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzzzzKEY1";
const KEY_ID: &str = "AKIAEXAMPLE0000000A";

fn keys() -> Keys {
    Keys::parse(KEY_FILE).unwrap()
}

fn all(adapter: Adapter, report: &str, keys: Option<&Keys>, now_ms: i64) -> Vec<Result<Converted, BadItem>> {
    let given = Given { keys, repository: Some("https://u:p@git.test/o/r"), now_ms };
    read(adapter, report.as_bytes(), given).unwrap().collect()
}

/// A report of this one finding.
fn whole(adapter: Adapter, finding: &Value) -> Value {
    match adapter {
        Adapter::Gitleaks => json!([finding]),
        Adapter::TruffleHog => finding.clone(),
        Adapter::GitLab => {
            json!({"version": "15.2.1", "remediations": [{"diff": SECRET}], "vulnerabilities": [finding],
            "scan": {"type": "secret_detection", "status": "success", "options": [{"name": "x", "value": SECRET}]}})
        }
    }
}

#[track_caller]
fn one(adapter: Adapter, report: &Value) -> (Converted, FindingObserved) {
    let mut found = all(adapter, &whole(adapter, report).to_string(), Some(&keys()), NOW_MS);
    assert_eq!(found.len(), 1);
    let made = found.remove(0).unwrap();
    let data = decoded(&made);
    (made, data)
}

/// As intake reads it.
#[track_caller]
fn decoded(made: &Converted) -> FindingObserved {
    let delivery = Delivery {
        at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 0 },
        tenant: "default".into(),
        format: crate::event::Format::Curfew,
        broker_ms: NOW_MS,
        headers: vec![("content-type".to_owned(), Some("application/cloudevents+json".into()))],
        payload: Some(made.body.clone().into()),
    };
    let event = decode(&delivery, &Limits::default()).unwrap();
    let Data::FindingObserved(data) = event.data else { panic!() };
    assert_eq!(data.finding_key, made.key);
    assert_eq!(data.fingerprints.len(), made.fingerprints);
    *data
}

fn id(made: &Converted) -> String {
    serde_json::from_slice::<Value>(&made.body).unwrap()["id"].as_str().unwrap().to_owned()
}

fn gitleaks() -> Value {
    json!({"RuleID": "generic-api-key", "Description": "AWS", "StartLine": 2, "EndLine": 2, "StartColumn": 24,
        "EndColumn": 43, "Match": format!("key = \"{SECRET}\""), "Secret": SECRET, "File": "conf/aws.tf",
        "SymlinkFile": "", "Commit": "74d5c1", "Link": format!("https://git.test/o/r?{SECRET}"), "Entropy": 3.4,
        "Author": "A", "Email": "a@x.test", "Date": "2026-10-14T17:05:15Z", "Message": format!("add {SECRET}"),
        "Tags": [SECRET], "Fingerprint": "74d5c1:conf/aws.tf:generic-api-key:2"})
}

fn trufflehog() -> Value {
    json!({"SourceMetadata": {"Data": {"Git": {"commit": "0a1b", "file": "keys", "email": "a <a@x>",
        "repository": "https://token@github.com/o/r?x=1", "timestamp": "2026-06-16 10:17:40 -0700 PDT", "line": 4}}},
        "SourceID": 0, "SourceType": 16, "SourceName": "trufflehog - git", "DetectorType": 2, "DetectorName": "AWS",
        "DecoderName": "PLAIN", "Verified": true, "VerificationFromCache": false, "Raw": KEY_ID,
        "RawV2": format!("{KEY_ID}:{SECRET}"), "Redacted": KEY_ID,
        "ExtraData": {"account": "123456789012", "arn": "arn:aws:iam::123456789012:user/ci", "resource_type": "key",
            "answer": format!("<html>{SECRET}")},
        "StructuredData": {"x": SECRET}, "SecretParts": {"access_key_id": KEY_ID, "secret_access_key": SECRET}})
}

/// As the schema has it, with the SHA-256 that GitLab's analyzer writes into `cve`.
fn gitlab() -> Value {
    json!({"id": "5f2fe26d5029737fcd2d131b5f881ddb32edf7ebc003dfab8b5bcd4f05640f98", "category": "secret_detection",
        "name": "Generic API Key", "message": format!("{SECRET} detected"), "description": SECRET,
        "cve": format!("conf/aws.tf:1a5d44a2dca19669d72edf4c4f1c27c4c1ca4b4408fbb17f6ce4ad452d78ddb3:{SECRET}"),
        "severity": "Critical", "confidence": "Unknown", "raw_source_code_extract": SECRET,
        "scanner": {"id": "gitleaks", "name": "Gitleaks"},
        "location": {"file": "conf/aws.tf", "commit": {"author": "a@x.test", "date": "2026-06-02T09:13:09Z",
            "message": format!("add {SECRET}"), "sha": "74d5c1"}, "start_line": 2, "end_line": 2},
        "identifiers": [{"type": "gitleaks_rule_id", "name": SECRET, "value": "Generic API Key"},
            {"type": "other", "name": "x", "value": SECRET}], "details": {"x": {"type": "text", "value": SECRET}}})
}

fn prints(data: &FindingObserved) -> Vec<(String, String)> {
    let one = |one: &crate::event::PartFingerprint| (one.part.clone().unwrap(), one.fingerprint.to_string());
    data.fingerprints.iter().map(one).collect()
}

fn of(part: &str, value: &str) -> Vec<(String, String)> {
    keys().of(value).into_iter().map(|one| (part.to_owned(), one.to_string())).collect()
}

fn identifiers(data: &FindingObserved) -> Vec<(&str, &str)> {
    data.identifiers.iter().map(|one| (one.kind.as_str(), one.value.as_str())).collect()
}

#[test]
fn samples_become_events() {
    for (name, adapter, sample) in [
        ("gitleaks", Adapter::Gitleaks, gitleaks()),
        ("trufflehog", Adapter::TruffleHog, trufflehog()),
        ("gitlab", Adapter::GitLab, gitlab()),
    ] {
        let (made, _) = one(adapter, &sample);
        let event: Value = serde_json::from_slice(&made.body).unwrap();
        insta::assert_json_snapshot!(name, event);
    }
}

#[test]
fn gitleaks_says_no_repository_and_may_mask() {
    let given = Given { keys: None, repository: Some(" "), now_ms: NOW_MS };
    assert_eq!(read(Adapter::Gitleaks, io::empty(), given).err(), Some(NoRepository("gitleaks")));
    let (plain, data) = one(Adapter::Gitleaks, &gitleaks());
    assert_eq!(prints(&data), of("secret", SECRET));
    assert_eq!((data.validity.as_str(), data.owner_hint.as_deref()), ("unknown", Some("a@x.test")));
    let mut masked = gitleaks();
    for redacted in ["REDACTED", "wJalrX..."] {
        masked["Secret"] = redacted.into();
        let (made, data) = one(Adapter::Gitleaks, &masked);
        assert!(data.fingerprints.is_empty());
        assert_ne!(made.key, plain.key, "known by its place now");
        masked["StartColumn"] = 1.into();
        let (other, _) = one(Adapter::Gitleaks, &masked);
        assert_ne!(made.key, other.key, "two on one line");
        masked["StartColumn"] = 24.into();
    }
    let mut public = gitleaks();
    public["Secret"] = KEY_ID.into();
    let (_, data) = one(Adapter::Gitleaks, &public);
    assert_eq!((identifiers(&data), data.fingerprints.len()), (vec![("aws_access_key_id", KEY_ID)], 0));
}

#[test]
fn gitlab_says_where_and_quotes_what_it_saw() {
    let given = Given { keys: None, repository: None, now_ms: NOW_MS };
    assert_eq!(read(Adapter::GitLab, io::empty(), given).err(), Some(NoRepository("gitlab")));
    let with = |pointer: &str, value: Value| {
        let mut sample = gitlab();
        *sample.pointer_mut(pointer).unwrap() = value;
        one(Adapter::GitLab, &sample)
    };
    let (plain, data) = one(Adapter::GitLab, &gitlab());
    assert_eq!(prints(&data), of("secret", SECRET));
    assert_eq!((data.severity.as_deref(), data.validity.as_str()), (Some("critical"), "unknown"));
    assert!(data.source.unwrap().native_id.is_none(), "it may be a hash of the secret");
    assert_eq!(with("/severity", json!("Unknown")).1.severity, None);
    // Without a history there is no commit.
    let (_, data) = with("/location/commit/sha", json!("0000000"));
    let place = data.location.unwrap();
    assert_eq!((place.kind.as_deref(), place.commit), (Some("file"), None));
    // The samples of GitLab's own analyzer: a heading, a key's id, a URL.
    let (headed, data) = with("/raw_source_code_extract", json!("-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert!(data.fingerprints.is_empty());
    assert_ne!(headed.key, plain.key);
    let (_, data) = with("/raw_source_code_extract", json!(KEY_ID));
    assert_eq!((identifiers(&data), data.fingerprints.len()), (vec![("aws_access_key_id", KEY_ID)], 0));
    let url = "https://random:pass%40word@endpoint.test/path";
    let (_, data) = with("/raw_source_code_extract", json!(url));
    let parts = [of("password", "pass@word"), of("password", "pass%40word"), of("secret", url)].concat();
    assert_eq!(prints(&data), parts);
    let mut bare = gitlab();
    bare.as_object_mut().unwrap().remove("raw_source_code_extract");
    assert!(one(Adapter::GitLab, &bare).1.fingerprints.is_empty());
    // Another scanner's extract is code.
    for pointer in ["/location/commit", "/location", "/identifiers"] {
        let mut other = gitlab();
        *other.pointer_mut(pointer).unwrap() = Value::Null;
        let report = whole(Adapter::GitLab, &other).to_string();
        let found = all(Adapter::GitLab, &report, None, NOW_MS);
        assert_eq!(found, [Err(BadItem { line: 1, why: Why::NoDetector })], "{pointer}");
    }
}

#[test]
fn a_list_in_an_object_is_found_wherever_it_stands() {
    let of = |text: &str| -> Vec<Option<Why>> {
        all(Adapter::GitLab, text, None, NOW_MS).into_iter().map(|one| one.err().map(|bad| bad.why)).collect()
    };
    let one = gitlab().to_string();
    for text in [
        format!("{{\"vulnerabilities\": [{one}]}}"),
        format!(" {{\"a\": {{\"vulnerabilities\": [1]}}, \"b\": \"}}],\\\"\", \"vulnerabilities\":[{one}] }}\n"),
        format!("{{\"a\":1,\"vulnerabilities\" : [ {one} ] , \"z\": [[], \"]\"], \"y\": null}}"),
    ] {
        assert_eq!(of(&text), [None], "{text}");
    }
    assert_eq!(of("{\"vulnerabilities\": []}"), []);
    for text in [
        "",
        "[]",
        "{}",
        "{\"vulnerabilities\": null}",
        "{\"vulnerabilities\": {}}",
        "{\"a\": [{}]}",
        "{\"vulnerabilities\": [], \"vulnerabilities\": []}",
        "{\"vulnerabilities\": []} x",
        "{\"vulnerabilities\": [] 1}",
        "{\"vulnerabilitie\\u0073\": []}",
        "{\"vulnerabilities2\": []}",
        "{1: []}",
        "{\"a\" []}",
        "x",
    ] {
        assert_eq!(of(text), [Some(Why::NoReport)], "{text}");
    }
    for text in [
        "{",
        "{\"vul",
        "{\"vulnerabilities\"",
        "{\"vulnerabilities\": ",
        "{\"vulnerabilities\": [",
        "{\"a\": \"",
        "{\"vulnerabilities\": []",
        "{\"vulnerabilities\": [], \"a\": 1",
    ] {
        assert_eq!(of(text), [Some(Why::Cut)], "{text}");
    }
}

#[test]
fn trufflehog_splits_what_is_public_from_what_is_not() {
    let (_, data) = one(Adapter::TruffleHog, &trufflehog());
    assert_eq!(prints(&data), of("secret_access_key", SECRET));
    let known = [
        ("aws_account", "123456789012"),
        ("aws_arn", "arn:aws:iam::123456789012:user/ci"),
        ("aws_access_key_id", KEY_ID),
    ];
    assert_eq!(identifiers(&data), known);
    let place = data.location.unwrap();
    assert_eq!((place.kind.as_deref(), place.repo.as_deref()), (Some("git"), Some("https://github.com/o/r")));
    // Before the parts were split, and when bytes were base64.
    let mut whole = trufflehog();
    whole.as_object_mut().unwrap().remove("SecretParts");
    let (_, data) = one(Adapter::TruffleHog, &whole);
    assert_eq!(prints(&data), of("secret_access_key", SECRET));
    whole.as_object_mut().unwrap().remove("DecoderName");
    whole.as_object_mut().unwrap().remove("RawV2");
    whole["Raw"] = STANDARD.encode(KEY_ID).into();
    let (_, data) = one(Adapter::TruffleHog, &whole);
    assert_eq!((prints(&data).len(), identifiers(&data)), (0, known.to_vec()));
}

#[test]
fn not_verified_is_not_inactive_and_bait_is_bait() {
    let with = |name: &str, value: Value| {
        let mut sample = trufflehog();
        sample[name] = value;
        one(Adapter::TruffleHog, &sample).1
    };
    assert_eq!(with("Verified", json!(true)).validity, "active");
    assert_eq!(with("Verified", json!(false)).validity, "unknown");
    let mut failed = trufflehog();
    (failed["Verified"], failed["VerificationError"]) = (json!(false), json!("timeout"));
    assert_eq!(one(Adapter::TruffleHog, &failed).1.validity, "unknown");
    assert!(!with("ExtraData", json!({"is_canary": "false"})).honeytoken);
    assert!(with("ExtraData", json!({"is_canary": "true"})).honeytoken);
    let arn = "arn:aws:iam::123456789012:user/canarytokens.com@@mirux23ppyky6hx3l6vclmhnj";
    assert!(with("ExtraData", json!({ "arn": arn })).honeytoken);
    let mut custom = trufflehog();
    (custom["DetectorName"], custom["ExtraData"]) =
        (json!("CustomRegex"), json!({"name": "our token", "response": "x"}));
    assert_eq!(one(Adapter::TruffleHog, &custom).1.detector, "CustomRegex/our token");
    assert_eq!(with("ExtraData", json!({"name": "Ann"})).detector, "AWS");
}

#[test]
fn a_scan_that_sees_the_same_says_the_same() {
    let keys = keys();
    let at = |adapter, sample: &Value, now_ms| {
        let text = whole(adapter, sample).to_string();
        let made = all(adapter, &text, Some(&keys), now_ms).remove(0).unwrap();
        (made.key.clone(), id(&made), made.body)
    };
    let (today, tomorrow) = (NOW_MS, NOW_MS + DAY_MS);
    let leaked = gitleaks();
    assert_eq!(at(Adapter::Gitleaks, &leaked, today), at(Adapter::Gitleaks, &leaked, tomorrow));
    let active = trufflehog();
    assert_eq!(at(Adapter::TruffleHog, &active, today), at(Adapter::TruffleHog, &active, today + 1000));
    let (key, id, body) = at(Adapter::TruffleHog, &active, tomorrow);
    let (key_today, id_today, body_today) = at(Adapter::TruffleHog, &active, today);
    assert_eq!(key, key_today, "one finding");
    assert_ne!(id, id_today, "what was verified is looked at again");
    assert_eq!(body.len(), body_today.len());
    let mut unverified = active.clone();
    unverified["Verified"] = false.into();
    let (key, id, _) = at(Adapter::TruffleHog, &unverified, today);
    assert_eq!(key, key_today);
    assert_ne!(id, id_today, "other content, another id: never a conflict");
    for (name, value) in [("line", json!(5)), ("file", json!("other"))] {
        let mut moved = active.clone();
        moved["SourceMetadata"]["Data"]["Git"][name] = value;
        assert_ne!(at(Adapter::TruffleHog, &moved, today).0, key_today, "{name}");
    }
}

#[test]
fn what_cannot_be_read_is_named_by_its_line() {
    let lines =
        format!("{}\n\nhunter2\n{{\"level\":\"info-0\",\"msg\":\"hunter2\"}}\n{{}}\n{}", trufflehog(), trufflehog());
    let found = all(Adapter::TruffleHog, &lines, None, NOW_MS);
    let of = |found: &[Result<Converted, BadItem>]| -> Vec<(u64, Option<Why>)> {
        found
            .iter()
            .map(|one| one.as_ref().map_or_else(|bad| (bad.line, Some(bad.why)), |made| (made.line, None)))
            .collect()
    };
    assert_eq!(of(&found), [(1, None), (3, Some(Why::NoJson)), (5, Some(Why::NoDetector)), (6, None)]);
    let list = |text: &str| of(&all(Adapter::Gitleaks, text, None, NOW_MS));
    let leak = serde_json::to_string_pretty(&gitleaks()).unwrap();
    let height = leak.lines().count() as u64;
    assert_eq!(list(&format!("[\n{leak},\n{leak}\n]\n")), [(2, None), (2 + height, None)]);
    assert_eq!(list("[]"), []);
    assert_eq!(list(""), []);
    assert_eq!(list(&format!("[{leak}")), [(1, None), (height, Some(Why::Cut))]);
    assert_eq!(list("[{\"RuleID\": \"x"), [(1, Some(Why::Cut))]);
    assert_eq!(list(&format!("[{leak} {leak}]")), [(1, None), (height, Some(Why::NoReport))]);
    assert_eq!(list("[] x"), [(1, Some(Why::NoReport))]);
    assert_eq!(list("null"), [(1, Some(Why::NoReport))]);
    assert_eq!(list("[1, \"]\", [], {}]"), [(1, Some(Why::NoDetector)); 4]);
    assert_eq!(list("[{\"RuleID\": \"a\", \"RuleID\": \"b\"}]"), [(1, Some(Why::NoJson))]);
    assert_eq!(list(&format!("[{{\"a\": {}1{}}}]", "[".repeat(40), "]".repeat(40))), [(1, Some(Why::TooDeep))]);
    let huge = "x".repeat(MAX_ITEM_BYTES);
    assert_eq!(list(&format!("[{{\"Secret\": \"{huge}\"}}, {leak}]")), [(1, Some(Why::TooLarge)), (1, None)]);
    let bytes =
        read(Adapter::TruffleHog, &b"{\"a\": \"\xff\"}\n"[..], Given { keys: None, repository: None, now_ms: 0 });
    assert_eq!(of(&bytes.unwrap().collect::<Vec<_>>()), [(1, Some(Why::NoJson))]);
}

/// One byte at a time, then an error.
struct Broken<'a>(&'a [u8]);

impl io::Read for Broken<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let (first, rest) = self.0.split_first().ok_or(io::ErrorKind::ConnectionReset)?;
        (to[0], self.0) = (*first, rest);
        Ok(1)
    }
}

#[test]
fn a_report_that_breaks_off_says_so() {
    let text = format!("{}\n", trufflehog());
    let given = Given { keys: None, repository: None, now_ms: NOW_MS };
    let found: Vec<_> = read(Adapter::TruffleHog, Broken(text.as_bytes()), given).unwrap().collect();
    assert!(found[0].is_ok());
    assert_eq!(found[1..], [Err(BadItem { line: 2, why: Why::Read })]);
}

#[test]
fn a_long_report_takes_no_more_memory_than_a_short_one() {
    /// So many findings, made as they are read.
    struct Many(u32, Vec<u8>, usize);
    impl io::Read for Many {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.2 == self.1.len() {
                let Some(left) = self.0.checked_sub(1) else { return Ok(0) };
                (self.0, self.2) = (left, 0);
            }
            let n = to.len().min(self.1.len() - self.2);
            to[..n].copy_from_slice(&self.1[self.2..self.2 + n]);
            self.2 += n;
            Ok(n)
        }
    }
    let line = format!("{}\n", trufflehog()).into_bytes();
    let many = Many(2_000, line.clone(), line.len());
    let given = Given { keys: None, repository: None, now_ms: NOW_MS };
    let mut report = read(Adapter::TruffleHog, many, given).unwrap();
    assert_eq!(report.by_ref().filter(Result::is_ok).count(), 2_000);
    assert_eq!(report.items.capacity(), MAX_ITEM_BYTES, "it never grew");
}

/// JSON of any shape, with the scanners' own names among others.
fn any_json() -> impl Strategy<Value = Value> {
    let names = vec![
        "RuleID",
        "Secret",
        "File",
        "Commit",
        "StartLine",
        "Fingerprint",
        "DetectorName",
        "Raw",
        "RawV2",
        "SecretParts",
        "SourceMetadata",
        "Data",
        "Git",
        "file",
        "repository",
        "line",
        "ExtraData",
        "arn",
        "account",
        "name",
        "Verified",
        "vulnerabilities",
        "raw_source_code_extract",
        "identifiers",
        "value",
        "location",
        "commit",
        "sha",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,16}".prop_map(Value::from),
        Just(Value::from(format!("{KEY_ID}:{SECRET}"))),
        Just(Value::from("CustomRegex")),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        let named = (prop::sample::select(names.clone()), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            prop::collection::vec(named, 0..10)
                .prop_map(|entries| entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

/// Each way in which a scanner, or who wrote the file that it read, may spell a secret.
fn spelt(secret: &str, how: usize) -> String {
    let percent = |text: &[u8]| percent_encoding::percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let json = serde_json::to_string(secret).unwrap();
    match how % 9 {
        0 => secret.to_owned(),
        1 => hex::encode(secret),
        2 => hex::encode_upper(secret),
        3 => STANDARD.encode(secret),
        4 => STANDARD.encode(format!("u:{secret}")),
        5 => base64::engine::general_purpose::URL_SAFE.encode(format!("x{secret}@")),
        6 => percent(secret.as_bytes()),
        7 => json[1..json.len() - 1].to_owned(),
        _ => percent(STANDARD.encode(secret).as_bytes()),
    }
}

proptest! {
    #[test]
    fn no_report_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), value in any_json()) {
        for adapter in Adapter::ALL {
            let texts = [bytes.clone(), value.to_string().into_bytes(), whole(adapter, &value).to_string().into_bytes()];
            for text in texts {
                let given = Given { keys: Some(&keys()), repository: Some("r"), now_ms: NOW_MS };
                for made in read(adapter, &text[..], given).unwrap().flatten() {
                    decoded(&made);
                }
            }
        }
    }

    #[test]
    fn no_secret_is_in_what_comes_out(
        secret in "[a-zA-Z0-9+/=_.$\"\\\\é-]{12,60}",
        hows in prop::collection::vec(0..9usize, 12),
    ) {
        let at = |n: usize| format!("a/{}/b", spelt(&secret, hows[n]));
        let leak = json!({"RuleID": at(0), "Secret": secret, "Match": at(1), "File": at(2), "Commit": at(3), "Link": at(4),
            "Author": at(5), "Email": at(6), "Message": at(7), "Fingerprint": at(8), "StartLine": 1});
        let hog = json!({"DetectorName": "CustomRegex", "Raw": at(0), "RawV2": secret, "SourceMetadata": {"Data": {
            at(1): {"file": at(2), "repository": format!("https://x:{}@h/{}", spelt(&secret, hows[3]), at(4)),
                "commit": at(5), "email": at(6), "link": at(7)}}}, "Redacted": at(8),
            "SecretParts": {at(9): secret}, "ExtraData": {"name": at(10), "arn": format!("arn:aws:iam::1:user/{}", at(11)),
            "account": secret}, "DecoderName": "PLAIN"});
        let lab = json!({"id": at(0), "name": at(1), "cve": at(2), "severity": at(3), "description": at(4),
            "raw_source_code_extract": secret, "identifiers": [{"type": at(5), "name": at(6), "value": at(7)}],
            "location": {"file": at(8), "start_line": 1, "commit": {"sha": at(9), "author": at(10), "message": at(11)}}});
        for (adapter, item) in [(Adapter::Gitleaks, leak), (Adapter::TruffleHog, hog), (Adapter::GitLab, lab)] {
            for made in all(adapter, &whole(adapter, &item).to_string(), Some(&keys()), NOW_MS) {
                let body = String::from_utf8(made.unwrap().body).unwrap();
                let value: Value = serde_json::from_str(&body).unwrap();
                for how in 0..9 {
                    // What stands at the ends depends on the neighbours in base64, and may be padding.
                    let spelling = spelt(&secret, how);
                    let core = spelling.get(4..spelling.len() - 4).unwrap_or(&spelling);
                    prop_assert!(!body.contains(core), "{} as {} in {}", secret, how, value);
                }
            }
        }
    }
}
