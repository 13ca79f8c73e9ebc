//! What schedulers publish, in the shapes that they publish it in, and what nobody should.

mod a2a;
mod cdevents;
mod kubernetes;
mod openlineage;
mod tekton;

use serde_json::{Value, json};

use super::super::*;

/// 2026-09-01T10:00:00Z
const BROKER_MS: i64 = 1_788_256_800_000;
const MINUTE: i64 = 60_000;

fn delivery(format: Format, body: impl Into<Bytes>) -> Delivery {
    Delivery {
        at: Coordinates { cluster: "c".into(), topic: "schedulers".into(), partition: 0, offset: 7 },
        tenant: "acme".into(),
        format,
        broker_ms: BROKER_MS,
        headers: Vec::new(),
        payload: Some(body.into()),
    }
}

/// The same with these headers.
fn headed(format: Format, headers: &[(&str, &str)], body: &Value) -> Delivery {
    let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Some(Bytes::copy_from_slice(value.as_bytes())));
    Delivery { headers: headers.iter().map(header).collect(), ..delivery(format, body.to_string()) }
}

#[track_caller]
fn heard(delivery: &Delivery) -> Option<Event> {
    understand(delivery, &Limits::default()).unwrap()
}

#[track_caller]
fn said(format: Format, body: &Value) -> Option<Event> {
    understand(&delivery(format, body.to_string()), &Limits::default()).unwrap()
}

#[track_caller]
fn refused(format: Format, body: impl Into<Bytes>) -> (RejectReason, Option<String>) {
    let delivery = delivery(format, body);
    let reject = understand(&delivery, &Limits::default()).unwrap_err();
    assert_eq!((&reject.at, reject.broker_ms), (&delivery.at, BROKER_MS));
    (reject.reason, reject.pointer)
}

/// `body` with `value` at `pointer`; `null` takes it away.
fn with(body: &Value, pointer: &str, value: Value) -> Value {
    let mut body = body.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[name] = value;
    body
}

/// `value` below so many lists.
fn deep(levels: usize) -> Value {
    (0..levels).fold(json!("x"), |inner, _| json!([inner]))
}

#[test]
fn what_is_no_event_at_all_is_rejected_in_each_format() {
    for format in Format::SCHEDULERS {
        assert_eq!(refused(format, "{\"canary\": ").0, RejectReason::BadJson);
        assert_eq!(refused(format, "[]").0, RejectReason::WrongSchema);
        assert_eq!(refused(format, vec![b'"', 0xff, b'"']).0, RejectReason::BadUtf8);
        assert_eq!(refused(format, " ".repeat(MAX_SCHEDULER_BYTES + 1)).0, RejectReason::TooLarge);
        let gone = Delivery { payload: None, ..delivery(format, "") };
        assert_eq!(understand(&gone, &Limits::default()).unwrap_err().reason, RejectReason::Tombstone);
        // Curfew's own event on a scheduler's topic: not silently passed over.
        let own = json!({"specversion": "1.0", "type": "dev.curfew.task.ended.v1", "source": "/s", "id": "1",
            "data": {"run_id": "1"}});
        refused(format, own.to_string());
    }
}

#[test]
fn names() {
    assert_eq!(Format::default(), Format::Curfew);
    for format in Format::SCHEDULERS {
        assert_eq!(Format::of_scheduler(format.as_str()), Some(format));
        assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
    }
    assert_eq!(Format::of_scheduler("curfew"), None);
}
