//! Any configuration file: what is wrong with it can be told, with its lines around, and shows no value.
#![no_main]

use std::path::Path;

use curfew::config::{Config, Environment, Overrides};
use libfuzzer_sys::fuzz_target;

/// Long enough to be a secret, and no name of anything.
const SECRET: &str = "hvs.CAESIKx3rQ9wLm2pTb7e";

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = |text: &str| {
        Config::parse("curfew.yaml", text, Path::new("/etc/curfew"), &Overrides::default(), &Environment::default())
    };
    if let Err(invalid) = read(text) {
        assert!(!invalid.problems.is_empty());
        invalid.report(false);
        invalid.report(true);
    }
    // The same, with a secret in the place of each `$`.
    if let Err(invalid) = read(&text.replace('$', SECRET)) {
        let said = format!("{invalid}\n{}", invalid.report(false));
        assert!(!said.contains(SECRET), "a value is quoted: {said}");
    }
});
