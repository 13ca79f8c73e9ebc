//! Any notification of A2A.
#![no_main]

mod scheduler;

use curfew::event::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| scheduler::read(Format::A2a, input, &[("ce_source", "/a2a/triage")]));
