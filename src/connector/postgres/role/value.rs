//! Which values are set, and what of them PostgreSQL gets to see. PURE, but for random bytes.

use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq as _;

use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::recipe::{PasswordRules, Stored};

/// No rules let a shorter one pass.
const SHORTEST: usize = 8;
/// What is masked has hardly any different characters.
const DIFFERENT: usize = 5;

/// Whether `candidate` may be set for `user`, where consumers read `current` now.
///
/// # Errors
/// `Refused` where it is another user's; `Rejected` where another value may be better.
pub(super) fn check(
    candidate: &Stored,
    current: Option<&Stored>,
    user: &str,
    rules: &PasswordRules,
) -> Result<(), Failure> {
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

/// What PostgreSQL keeps of a password. It logs statements: the value itself is in none.
pub(super) fn verifier(value: &SecretString) -> String {
    scram_sha_256(value.expose_secret().as_bytes())
}

/// A value that nobody knows and nobody keeps.
///
/// # Errors
/// `Unavailable` when the system gives no random bytes.
pub(super) fn nobodys() -> Result<SecretString, Failure> {
    let mut bytes = [0; 32];
    let none = |_| Failure::new(FailureKind::Unavailable, "the system gives no random bytes");
    aws_lc_rs::rand::fill(&mut bytes).map_err(none)?;
    Ok(SecretString::from(hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_verifier_says_nothing_of_the_value() {
        let value = nobodys().unwrap();
        assert_ne!(value.expose_secret(), nobodys().unwrap().expose_secret());
        let verifier = verifier(&value);
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:") && !verifier.contains(value.expose_secret()));
        assert!(!verifier.contains('\''));
    }
}
