//! Any body of a webhook of GitHub, and any answer of its API: what comes out is an event that intake takes.
#![no_main]

use std::sync::LazyLock;

use curfew::event::adapters::github::{read, shown};
use curfew::event::{Coordinates, Delivery, Format, Limits, decode};
use curfew::fingerprint::Keys;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let line = |kid| format!("{kid} {}\n", "c3b1f0a7".repeat(8));
    Keys::parse((line("k2") + &line("k1")).as_bytes()).expect("two keys")
});

// The body; behind a zero byte, the answer.
fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let Ok(heard) = read(parts.next().unwrap_or_default(), "m") else { return };
    let secret = shown(parts.next().unwrap_or_default(), &heard.alert);
    let Some(made) = heard.event(secret, Some(&KEYS)) else { return };
    let delivery = Delivery {
        at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 0 },
        tenant: "default".into(),
        format: Format::Curfew,
        broker_ms: 1_788_256_800_000,
        headers: vec![("content-type".to_owned(), Some("application/cloudevents+json".into()))],
        payload: Some(made.body.into()),
    };
    decode(&delivery, &Limits::default()).expect("intake takes what an adapter makes");
});
