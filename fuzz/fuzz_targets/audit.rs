//! Any line of Vault's audit log.
#![no_main]

use curfew::reach::uses::Tally;
use curfew::reach::uses::line::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut tally = Tally::default();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(said) = read(line)
            && let Some(deed) = said.deed
        {
            tally.add(deed, said.at_ms);
        }
    }
    for one in tally.take_new() {
        assert!(!one.who.chars().chain(one.what.chars()).any(char::is_control));
    }
});
