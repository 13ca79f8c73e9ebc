//! Any record of a watch.
#![no_main]

mod scheduler;

use curfew::event::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| scheduler::read(Format::Kubernetes, input, &[("ce_source", "/kubernetes/prod")]));
