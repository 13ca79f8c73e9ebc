//! Any report of GitLab's secret detection: what comes out is an event that intake takes.
#![no_main]

mod report;

use curfew::event::adapters::Adapter;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| report::read(Adapter::GitLab, input));
