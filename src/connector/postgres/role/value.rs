//! What of values PostgreSQL gets to see, and values that nobody knows. PURE, but for random bytes.

use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};

use crate::case::record::FailureKind;
use crate::connector::Failure;

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

    #[test]
    fn a_verifier_says_nothing_of_the_value() {
        let value = nobodys().unwrap();
        assert_ne!(value.expose_secret(), nobodys().unwrap().expose_secret());
        let verifier = verifier(&value);
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:") && !verifier.contains(value.expose_secret()));
        assert!(!verifier.contains('\''));
    }
}
