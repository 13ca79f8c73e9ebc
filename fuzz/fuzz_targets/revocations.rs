//! Any request to revoke tokens: what comes out are events that intake takes.
#![no_main]

use std::sync::LazyLock;

use curfew::event::adapters::{Given, revocations};
use curfew::event::{Coordinates, Delivery, Format, Limits, decode};
use curfew::fingerprint::Keys;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<Keys> =
    LazyLock::new(|| Keys::parse(format!("k1 {}\n", "c3b1f0a7".repeat(8)).as_bytes()).expect("a key"));

fuzz_target!(|input: &[u8]| {
    let given = Given { keys: Some(&KEYS), repository: None, now_ms: 1_788_256_800_000 };
    for made in revocations::read(input, &["gitleaks_rule_id_aws".to_owned()], given).into_iter().flatten() {
        let delivery = Delivery {
            at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 0 },
            tenant: "default".into(),
            format: Format::Curfew,
            broker_ms: 1_788_256_800_000,
            headers: vec![("content-type".to_owned(), Some("application/cloudevents+json".into()))],
            payload: Some(made.body.into()),
        };
        decode(&delivery, &Limits::default()).expect("intake takes what an adapter makes");
    }
});
