//! What may be fingerprinted: a secret, and not what a scanner put in its place. PURE.

/// A shorter secret is guessed more easily than matched by chance: it is not fingerprinted.
pub const MIN_BYTES: usize = 8;
/// So many in a row are a mask. A random text of 40 characters has them once in a million times.
const MASK_RUN: usize = 4;
/// The same for `x`, which keys have more often.
const LETTER_RUN: usize = 8;
/// What tools write in the place of a secret, without what stands around it.
const PLACEHOLDERS: [&str; 8] =
    ["redacted", "masked", "removed", "hidden", "filtered", "censored", "sanitized", "scrubbed"];

/// Why a value has no fingerprint. Says nothing of the value itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nothing is there.
    #[error("the value is empty")]
    Empty,
    /// Shorter than [`MIN_BYTES`].
    #[error("the value is shorter than {MIN_BYTES} bytes")]
    Short,
    /// Not the secret, but what a tool put in its place. Every masked finding would have the same fingerprint.
    #[error("the value is masked: the secret itself is not there")]
    Masked,
}

/// The normalised value: without white space and pairs of quotes around it, however many. Tools differ in what of these
/// they cut, and the same secret must come to the same fingerprint.
///
/// # Errors
/// What must never be fingerprinted.
pub fn usable(value: &str) -> Result<&str, Unusable> {
    let value = normalised(value);
    if value.is_empty() {
        return Err(Unusable::Empty);
    }
    if is_masked(value) {
        return Err(Unusable::Masked);
    }
    if value.len() < MIN_BYTES { Err(Unusable::Short) } else { Ok(value) }
}

/// Without white space and pairs of quotes around it: a secret as it is fingerprinted, and hidden.
pub fn normalised(value: &str) -> &str {
    let mut value = value.trim();
    while let Some(inner) =
        ['"', '\'', '`'].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote)).map(str::trim)
    {
        value = inner;
    }
    value
}

fn is_masked(value: &str) -> bool {
    // Gitleaks' `--redact=<percent>` leaves the beginning.
    if value.ends_with("...") || value.ends_with('…') {
        return true;
    }
    let bare = value.trim_matches(|c: char| !c.is_alphanumeric());
    if PLACEHOLDERS.iter().any(|word| bare.eq_ignore_ascii_case(word)) {
        return true;
    }
    let mut chars = value.chars();
    let first = chars.next();
    chars.all(|c| Some(c) == first)
        || value.chars().all(|c| matches!(c, '*' | 'x' | 'X' | '.' | '-' | '_' | '#' | '•' | ' '))
        || longest_run(value, &['*', '•']) >= MASK_RUN
        || longest_run(value, &['x', 'X']) >= LETTER_RUN
}

fn longest_run(value: &str, of: &[char]) -> usize {
    value.split(|c| !of.contains(&c)).map(|run| run.chars().count()).max().unwrap_or(0)
}
