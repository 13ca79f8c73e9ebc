//! New values: uniform among all that the rules allow, from the operating system's randomness; and which of them are set.

use std::ops::RangeInclusive;

use rand::RngExt as _;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::Failure;
use super::recipe::{PasswordRules, Stored};
use crate::case::record::FailureKind;

/// Shorter ones can be guessed; longer ones are cut by some targets.
pub const LENGTH: RangeInclusive<usize> = 16..=256;

const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &[u8] = b"0123456789";

/// A value by `rules`: it begins with a letter, and a small and a capital letter, a digit and (where some are allowed) a
/// symbol occur in it. A length outside of [`LENGTH`] becomes its nearest end; of the symbols only ASCII ones count.
pub fn candidate(rules: &PasswordRules) -> SecretString {
    let length = rules.length.clamp(*LENGTH.start(), *LENGTH.end());
    let symbols: Vec<u8> = rules.symbols.bytes().filter(u8::is_ascii_punctuation).collect();
    let letters = [LOWER, UPPER].concat();
    let all = [LOWER, UPPER, DIGITS, &symbols].concat();
    let has = |value: &[u8], class: &[u8]| value.iter().any(|byte| class.contains(byte));
    let mut rng = rand::rng();
    let mut value = Zeroizing::new(String::with_capacity(length));
    // One that lacks a class is thrown away as a whole: what is kept is uniform, which mending would not be.
    loop {
        value.clear();
        for at in 0..length {
            let from = if at == 0 { &letters } else { &all };
            value.push(char::from(from[rng.random_range(0..from.len())]));
        }
        let bytes = value.as_bytes();
        let whole = [LOWER, UPPER, DIGITS].iter().all(|class| has(bytes, class));
        if whole && (symbols.is_empty() || has(bytes, &symbols)) {
            return SecretString::from(value.as_str());
        }
    }
}

/// No rules let a shorter one pass.
const SHORTEST: usize = 8;
/// What is masked has hardly any different characters.
const DIFFERENT: usize = 5;

/// Whether `candidate` may be set for `user`, where consumers read `current` now.
///
/// # Errors
/// `Refused` where it is another user's; `Rejected` where another value may be better.
pub fn check(candidate: &Stored, current: Option<&Stored>, user: &str, rules: &PasswordRules) -> Result<(), Failure> {
    if candidate.user.as_deref().is_some_and(|own| own != user) {
        return Err(Failure::new(FailureKind::Refused, "the candidate is stored for another user"));
    }
    let rejected = |note: &str| Err(Failure::new(FailureKind::Rejected, note));
    let value = candidate.value.expose_secret();
    let bytes = value.as_bytes();
    if bytes.len() < rules.length.max(SHORTEST) {
        return rejected("the candidate is empty or too short");
    }
    // Beyond these, drivers differ in what they make of it.
    if !bytes.iter().all(u8::is_ascii_graphic) {
        return rejected("the candidate has characters that not every driver takes");
    }
    let mut seen = [false; 256];
    bytes.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    if seen.iter().filter(|one| **one).count() < DIFFERENT {
        return rejected("the candidate looks masked");
    }
    if current.is_some_and(|current| current.value.expose_secret().as_bytes().ct_eq(bytes).into()) {
        return rejected("the candidate is the value that is to go");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_candidate_is_as_the_rules_say(length in 0usize..400, symbols in "[ -~äß]{0,12}") {
            let rules = PasswordRules { length, symbols: symbols.clone() };
            let value = candidate(&rules);
            let value = value.expose_secret();
            let allowed: Vec<char> = symbols.chars().filter(char::is_ascii_punctuation).collect();
            prop_assert_eq!(value.len(), length.clamp(16, 256));
            prop_assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || allowed.contains(&c)));
            prop_assert!(value.starts_with(|c: char| c.is_ascii_alphabetic()));
            prop_assert!(value.contains(|c: char| c.is_ascii_lowercase()));
            prop_assert!(value.contains(|c: char| c.is_ascii_uppercase()));
            prop_assert!(value.contains(|c: char| c.is_ascii_digit()));
            prop_assert_eq!(value.contains(|c: char| c.is_ascii_punctuation()), !allowed.is_empty());
        }
    }

    #[test]
    fn each_is_another_and_all_characters_occur_evenly() {
        let rules = PasswordRules::default();
        let made: std::collections::HashSet<String> =
            (0..2000).map(|_| candidate(&rules).expose_secret().to_owned()).collect();
        assert_eq!(made.len(), 2000);
        let mut counts = std::collections::HashMap::<char, usize>::new();
        for c in made.iter().flat_map(|value| value.chars().skip(1)) {
            *counts.entry(c).or_default() += 1;
        }
        assert_eq!(counts.len(), 26 + 26 + 10 + 4);
        // 78 000 characters over 66: about 1182 of each, six standard deviations are 205. Throwing away what lacks a
        // symbol lifts the rare classes by some per cent.
        assert!(counts.values().all(|count| (900..1500).contains(count)), "{counts:?}");
    }

    fn stored(value: &str, user: Option<&str>) -> Stored {
        Stored { version: 1, user: user.map(str::to_owned), value: SecretString::from(value.to_owned()), key: None }
    }

    #[test]
    fn only_a_fresh_value_is_set() {
        let rules = PasswordRules { length: 12, symbols: String::new() };
        let kind = |value: &str, current: &str, user| {
            let current = stored(current, None);
            check(&stored(value, user), Some(&current), "app", &rules).err().map(|failure| failure.kind)
        };
        assert_eq!(kind("abcdefghijkl", "abcdefghijkm", Some("app")), None);
        assert_eq!(kind("abcdefghijkl", "abcdefghijkm", None), None);
        assert_eq!(kind("abcdefghijkl", "", Some("app_b")), Some(FailureKind::Refused));
        for bad in
            ["", "abcdefghijk", "************", "abababababab", "abcdefghijk\n", "abcdefghijké", "same-as-before"]
        {
            assert_eq!(kind(bad, "same-as-before", None), Some(FailureKind::Rejected), "{bad:?}");
        }
        assert!(check(&stored("abcdefgh", None), None, "app", &PasswordRules { length: 0, ..rules }).is_ok());
    }
}
