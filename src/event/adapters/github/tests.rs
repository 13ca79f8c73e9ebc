//! Webhooks as GitHub documents them, and as nobody sends them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Coordinates, Data, Delivery, Event, Format, Limits, decode, digest16};

const NOW_MS: i64 = 1_788_256_800_000;
const SECRET: &str = "r8Ft2-pXq9Lm4Zs7Vb3N";

fn keys() -> Keys {
    Keys::parse(format!("k2 {}\nk1 {}", "2".repeat(64), "1".repeat(64)).as_bytes()).unwrap()
}

fn webhook(action: &str) -> Value {
    json!({"action": action, "alert": {
        "number": 42, "created_at": "2026-08-30T18:48:51Z", "updated_at": null,
        "url": "https://api.github.com/repos/octo/hello/secret-scanning/alerts/42",
        "html_url": "https://github.com/octo/hello/security/secret-scanning/42",
        "locations_url": "https://api.github.com/repos/octo/hello/secret-scanning/alerts/42/locations",
        "resolution": null, "resolved_at": null, "resolved_by": null, "resolution_comment": SECRET,
        "secret_type": "adafruit_io_key", "secret_type_display_name": "Adafruit IO Key", "validity": "active",
        "push_protection_bypassed": true, "push_protection_bypassed_by": {"login": "mona"}, "publicly_leaked": false,
        "multi_repo": false},
        "repository": {"id": 1, "full_name": "octo/hello", "private": true, "visibility": "private"},
        "sender": {"login": "mona"}})
}

fn location() -> Value {
    let mut event = webhook("created");
    event["location"] = json!({"type": "commit", "details": {"path": "conf/a.yaml", "start_line": 7, "end_line": 7,
        "start_column": 1, "end_column": 20, "blob_sha": "af5626b4", "commit_sha": "0a1b",
        "blob_url": SECRET, "commit_url": SECRET}});
    event
}

fn heard(event: &Value) -> Heard {
    let body = event.to_string();
    read(body.as_bytes(), &hex::encode(digest16(&[body.as_bytes()]))).unwrap()
}

fn answer(secret: &str) -> Shown {
    let text = json!({"number": 42, "secret": secret, "state": "open"}).to_string();
    shown(text.as_bytes(), &heard(&webhook("created")).alert).unwrap()
}

fn made(event: &Value, secret: Option<&str>) -> Option<(Converted, Event)> {
    let made = heard(event).event(secret.map(answer), Some(&keys()))?;
    let delivery = Delivery {
        at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 0 },
        tenant: "default".into(),
        format: Format::Curfew,
        broker_ms: NOW_MS,
        headers: vec![("content-type".to_owned(), Some("application/cloudevents+json".into()))],
        payload: Some(made.body.clone().into()),
    };
    let event = decode(&delivery, &Limits::default()).unwrap();
    Some((made, event))
}

#[test]
fn an_alert_is_one_finding_from_its_first_word_to_its_last() {
    let (first, event) = made(&webhook("created"), Some(SECRET)).unwrap();
    assert_eq!(first.key, "github/octo/hello/42");
    assert!(!String::from_utf8(first.body.clone()).unwrap().contains(SECRET));
    let Data::FindingObserved(data) = event.data else { panic!() };
    let prints: Vec<String> = data.fingerprints.iter().map(|one| one.fingerprint.to_string()).collect();
    assert_eq!(prints, keys().of(SECRET).iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!((data.validity.as_str(), data.public, data.reopened), ("active", false, false));
    assert_eq!((data.owner_hint.as_deref(), data.severity), (Some("mona"), None));
    insta::assert_json_snapshot!("github", serde_json::from_slice::<Value>(&first.body).unwrap());

    let (placed, event) = made(&location(), Some(SECRET)).unwrap();
    assert_eq!(placed.key, first.key);
    let Data::FindingObserved(data) = event.data else { panic!() };
    assert_eq!(data.validity, "unknown", "a place is no check");
    let place = data.location.unwrap();
    assert_eq!((place.kind.as_deref(), place.path.as_deref(), place.line), (Some("git"), Some("conf/a.yaml"), Some(7)));

    let (leaked, event) = made(&webhook("publicly_leaked"), Some(SECRET)).unwrap();
    let Data::FindingObserved(data) = event.data else { panic!() };
    assert_eq!((leaked.key, data.public, data.severity.as_deref()), (first.key.clone(), true, Some("critical")));

    for (resolution, wanted) in [
        (json!("revoked"), "revoked"),
        (json!("pattern_edited"), "false_positive"),
        (json!("used_in_tests"), "used_in_tests"),
        (json!("what comes next"), "wont_fix"),
        (Value::Null, "wont_fix"),
    ] {
        let mut closing = webhook("resolved");
        closing["alert"]["resolution"] = resolution;
        let (closed, event) = made(&closing, None).unwrap();
        let Data::FindingClosed(data) = event.data else { panic!() };
        assert_eq!((closed.key, data.finding_key, &*data.reason), (first.key.clone(), first.key.clone(), wanted));
    }
    let (_, event) = made(&webhook("reopened"), Some(SECRET)).unwrap();
    assert!(matches!(event.data, Data::FindingObserved(data) if data.reopened));
    for action in ["assigned", "unassigned", "dismissed"] {
        assert!(made(&webhook(action), None).is_none(), "{action}");
    }
}

#[test]
fn the_same_body_is_the_same_event_until_the_secret_is_known() {
    let id = |made: Option<(Converted, Event)>| made.unwrap().1.id.to_string();
    let event = webhook("created");
    assert_eq!(id(made(&event, Some(SECRET))), id(made(&event, Some(SECRET))));
    assert_ne!(id(made(&event, Some(SECRET))), id(made(&event, None)), "sent again, it brings the fingerprint");
    let mut later = event.clone();
    later["alert"]["updated_at"] = json!("2026-08-31T00:00:00Z");
    assert_ne!(id(made(&event, None)), id(made(&later, None)), "another time, another event");
}

#[test]
fn what_an_older_server_sends_along_is_fingerprinted_and_not_said() {
    let mut event = webhook("created");
    event["alert"]["secret"] = json!(SECRET);
    assert!(!heard(&event).lacks_secret());
    let (made, _) = made(&event, None).unwrap();
    assert_eq!(made.fingerprints, 2);
    assert!(!String::from_utf8(made.body).unwrap().contains(SECRET));
}

#[test]
fn times_are_those_of_alerts_and_not_of_places() {
    const DAY_MS: i64 = 86_400_000;
    let is = |event: &Value, now_ms| heard(event).is_timely(now_ms, 7 * DAY_MS);
    let created_ms = time::parse("2026-08-30T18:48:51Z").unwrap();
    let mut event = webhook("created");
    for (now_ms, wanted) in [
        (created_ms, true),
        (created_ms + 7 * DAY_MS, true),
        (created_ms + 7 * DAY_MS + 1, false),
        (created_ms - AHEAD_MS, true),
        (created_ms - AHEAD_MS - 1, false),
    ] {
        assert_eq!(is(&event, now_ms), wanted, "{}", now_ms - created_ms);
    }
    event["alert"]["updated_at"] = json!("2026-09-30T18:48:51Z");
    assert!(is(&event, created_ms + 31 * DAY_MS));
    assert!(is(&location(), created_ms + 365 * DAY_MS));
}

#[test]
fn what_is_about_no_alert_of_secrets_is_none() {
    let without = |pointer: &str, value: Value| {
        let mut event = webhook("created");
        *event.pointer_mut(pointer).unwrap() = value;
        read(event.to_string().as_bytes(), "m").err()
    };
    for (pointer, value) in [
        ("/alert", Value::Null),
        ("/alert/secret_type", Value::Null),
        ("/alert/created_at", Value::Null),
        ("/alert/created_at", json!("yesterday")),
        ("/alert/number", json!("42")),
        ("/alert/number", json!(0)),
        ("/repository", Value::Null),
        ("/repository/full_name", json!("octo")),
        ("/repository/full_name", json!("../hello")),
        ("/repository/full_name", json!("octo/..")),
        ("/repository/full_name", json!("octo/hello/../../x")),
        ("/repository/full_name", json!("octo/hello?x=1")),
        ("/action", Value::Null),
    ] {
        assert_eq!(without(pointer, value.clone()), Some(Why::NoDetector), "{pointer} {value}");
    }
    assert_eq!(read(b"x", "m").err(), Some(Why::NoJson));
}

#[test]
fn an_answer_is_about_the_alert_that_was_asked_for() {
    let alert = heard(&webhook("created")).alert;
    assert_eq!(alert.path(), "/repos/octo/hello/secret-scanning/alerts/42");
    let of = |answer: Value| shown(answer.to_string().as_bytes(), &alert).map(|shown| shown.0);
    let one = |text: &str| Zeroizing::new(text.to_owned());
    assert_eq!(of(json!({"number": 42, "secret": SECRET})), Some(vec![one(SECRET)]));
    let encoded = STANDARD.encode(SECRET);
    let both = of(json!({"number": 42, "secret": encoded, "is_base64_encoded": true}));
    assert_eq!(both, Some(vec![one(SECRET), one(&encoded)]));
    assert_eq!(of(json!({"number": 43, "secret": SECRET})), None);
    assert_eq!(of(json!({"number": 42, "secret": null})), None);
    assert!(shown(b"<html>", &alert).is_none());
    let state = |answer: Value| is_resolved(answer.to_string().as_bytes(), &alert);
    assert_eq!(state(json!({"number": 42, "state": "resolved", "resolution": "wont_fix"})), Some(true));
    assert_eq!(state(json!({"number": 42, "state": "open"})), Some(false));
    for odd in [json!({"number": 43, "state": "open"}), json!({"number": 42}), json!({"number": 42, "state": "x"})] {
        assert_eq!(state(odd.clone()), None, "{odd}");
    }
}

#[test]
fn a_key_names_its_alert_and_no_other_does() {
    let alert = heard(&webhook("created")).alert;
    assert_eq!(Alert::of_key(&alert.key()), Some(alert));
    for key in [
        "github/octo/hello",
        "github/octo/hello/x",
        "github/octo/hello/0",
        "github/o/../hello/1",
        "octo/hello/42",
        "fe74",
    ] {
        assert_eq!(Alert::of_key(key), None, "{key}");
    }
}

proptest! {
    #[test]
    fn no_secret_is_in_what_comes_out(secret in "[a-zA-Z0-9+/=_.$-]{12,60}", number in 1..i64::MAX) {
        let mut event = location();
        event["alert"]["number"] = number.into();
        event["alert"]["secret_type"] = json!(format!("type {secret}"));
        event["alert"]["assigned_to"] = json!({"login": secret});
        event["location"]["details"]["path"] = json!(format!("a/{secret}/b"));
        event["location"]["details"]["commit_sha"] = json!(hex::encode(&secret));
        event["location"]["type"] = json!(secret);
        let made = heard(&event).event(Some(answer(&secret)), Some(&keys())).unwrap();
        let body = String::from_utf8(made.body).unwrap();
        prop_assert!(!body.contains(&secret) && !body.contains(&hex::encode(&secret)), "{}", body);
    }

    #[test]
    fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(heard) = read(&bytes, "m") {
            heard.event(None, None);
        }
    }
}
