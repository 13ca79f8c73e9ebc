//! Any event of Tekton: the first byte chooses its type, or that it is structured; seeds begin with `{`.
#![no_main]

mod scheduler;

use curfew::event::Format;
use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 4] = ["taskrun.started", "taskrun.failed", "pipelinerun.running", "customrun.successful"];

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let kind = KINDS.get(usize::from(*first)).copied();
    let input = if *first == b'{' || kind.is_none() { input } else { rest };
    let kind = format!("dev.tekton.event.{}.v1", kind.unwrap_or(KINDS[1]));
    let structured = ("content-type", "application/cloudevents+json");
    let binary = ("ce_type", kind.as_str());
    scheduler::read(Format::Tekton, input, &[if *first == 255 { structured } else { binary }]);
});
