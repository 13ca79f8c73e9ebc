//! Any file of fingerprint keys.
#![no_main]

use curfew::fingerprint::Keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(keys) = Keys::parse(input) {
        assert!((1..=2).contains(&keys.of("a secret value").len()));
    }
});
