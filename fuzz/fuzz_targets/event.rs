//! Any record: the first byte chooses mode and type, the others are its value.
#![no_main]

use curfew::event::{Coordinates, Delivery, Format, Limits, decode};
use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 9] = [
    "task.started",
    "task.extended",
    "task.heartbeat",
    "task.ended",
    "grant.registered",
    "grant.released",
    "credential.registered",
    "finding.observed",
    "finding.closed",
];

fuzz_target!(|input: &[u8]| {
    let Some((first, payload)) = input.split_first() else { return };
    // Seeds are JSON, and begin with `{`: structured.
    let headers: Vec<(&str, String)> = match KINDS.get(usize::from(*first)) {
        Some(kind) => vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_type", format!("dev.curfew.{kind}.v1")),
            ("ce_source", "/fuzz".to_owned()),
            ("ce_id", "1".to_owned()),
        ],
        None => vec![("content-type", "application/cloudevents+json".to_owned())],
    };
    let payload = if *first == b'{' { input } else { payload };
    let delivery = Delivery {
        at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 0 },
        tenant: "default".into(),
        format: Format::Curfew,
        broker_ms: 1_788_256_800_000,
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), Some(value.into()))).collect(),
        payload: Some(payload.to_vec().into()),
    };
    let limits = Limits::default();
    match (decode(&delivery, &limits), decode(&delivery, &limits)) {
        (Ok(one), Ok(other)) => assert_eq!(one.digest, other.digest),
        (Err(one), Err(other)) => assert_eq!(one, other),
        _ => panic!("one delivery is read in two ways"),
    }
});
