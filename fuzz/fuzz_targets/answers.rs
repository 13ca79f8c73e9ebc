//! Any answer of Vault: the first byte chooses what was asked, two more the status, the others are the body.
#![no_main]

use curfew::connector::vault::answers::{Call, Meaning, Reply, health, read};
use libfuzzer_sys::fuzz_target;

const CALLS: [Call; 15] = [
    Call::LeaseLookup,
    Call::LeaseRevoke,
    Call::AccessorLookup,
    Call::AccessorRevoke,
    Call::SecretIdLookup,
    Call::SecretIdDestroy,
    Call::KvRead,
    Call::KvWrite,
    Call::KvVersions,
    Call::KvKeep,
    Call::KvDestroy,
    Call::KvForget,
    Call::Mount,
    Call::List,
    Call::Own,
];

fuzz_target!(|input: &[u8]| {
    let [call, high, low, body @ ..] = input else { return };
    // All may be printable, as in the samples: `624` is a `KvRead` that was answered by 204.
    let call = CALLS[usize::from(call.wrapping_sub(b'0')) % CALLS.len()];
    let digit = |byte: u8| u16::from(byte.wrapping_sub(b'0'));
    let status = 100 * (digit(*high) % 6) + digit(*low) % 100;
    let reply = || Reply { status, retry_after_ms: None, body: body.to_vec() };
    let meaning = read(call, Ok(reply()));
    // Only a success is done. A secret that was deleted is told of by 404, and an empty list.
    if matches!(meaning, Meaning::Done { .. }) {
        let told = matches!(call, Call::KvRead | Call::List) && status == 404;
        assert!((200..=208).contains(&status) || told, "{call:?} {status}");
    }
    // What it means is told without the provider's words.
    assert!(format!("{meaning:?}").len() < 300);
    health(Ok(reply())).ok();
});
