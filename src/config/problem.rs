//! What is wrong with a configuration, where, and what would be right.

use std::borrow::Cow;
use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde_saphyr::Location;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Line, from 1; `None`: no place in the file.
    pub line: Option<usize>,
    /// Column, from 1.
    pub column: Option<usize>,
    span: Option<(usize, usize)>,
}

impl Problem {
    /// Something wrong at `at`.
    pub fn new(at: Location, message: impl Into<String>) -> Self {
        let place = |n: u64| usize::try_from(n).ok().filter(|n| *n > 0);
        let line = place(at.line());
        let start = at.span().byte_offset().and_then(|n| usize::try_from(n).ok());
        let length = at.span().byte_len().and_then(|n| usize::try_from(n).ok());
        Self {
            message: message.into(),
            help: None,
            line,
            column: line.and_then(|_| place(at.column())),
            span: line.and(start).map(|start| (start, length.unwrap_or(1).max(1))),
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With the nearest of `names` to what was written, where one is near.
    #[must_use]
    pub fn nearest<'a>(mut self, written: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        // Some are names that the file itself gives.
        let names: Vec<&str> = names.into_iter().filter(|name| is_name(name)).collect();
        self.help = match nearest(written, names.iter().copied()) {
            Some(name) => Some(format!("did you mean `{name}`?")),
            None if names.is_empty() => None,
            None => Some(format!("it is one of: {}", names.join(", "))),
        };
        self
    }
}

/// The name of `names` that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), strsim::jaro_winkler(written, name), name))
        .filter(|(edits, alike, name)| *edits <= 1 + name.chars().count() / 4 || *alike > 0.87)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, name)| name)
}

/// The longest word of a file that is said again.
const MAX_SAID: usize = 32;

/// A word of the file in a message. People put secrets where a key or a name belongs: what does not look like a name is
/// not said again; its line is.
pub fn said(word: &str) -> String {
    if is_name(word) { format!("`{word}`") } else { "this (it may be a secret)".to_owned() }
}

/// A parser's words, which may quote the file: without what looks like no word.
pub fn careful(words: &str) -> String {
    let is_mark = |c: char| !c.is_alphanumeric() && !"_-./+=~@%$&!*#".contains(c);
    let mut out = String::with_capacity(words.len());
    for piece in words.split_inclusive(is_mark) {
        let word = piece.trim_end_matches(is_mark);
        // As short as `500ms`: no token.
        let is_short = word.len() <= 5 && word.bytes().all(|b| b.is_ascii_alphanumeric());
        out.push_str(if is_short || is_name(word) { word } else { "…" });
        out.push_str(&piece[word.len()..]);
    }
    out
}

/// Words of letters, joined by `_`, `-`, `.` or `/`, of at most [`MAX_SAID`] bytes: each in lower case with perhaps a
/// capital before, at most two digits in all. A key made by chance has more digits and capitals than that.
fn is_name(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let in_case = |part: &str| {
        let upper = part.bytes().all(|b| !b.is_ascii_lowercase());
        upper || part.bytes().skip(1).all(|b| !b.is_ascii_uppercase())
    };
    (1..=MAX_SAID).contains(&word.len())
        && digits <= 2
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && word.split(['_', '-', '.', '/']).all(in_case)
}

/// A configuration that cannot be used: everything that is wrong with it, as far as it could be read.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// The file, as it was named.
    pub file: String,
    /// At least one.
    pub problems: Vec<Problem>,
    source: String,
}

impl Invalid {
    /// Something wrong with `file`, which holds `source`.
    pub fn new(file: &str, source: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.to_owned(), problems, source: mask(source) }
    }

    /// For people: each problem with the lines around it.
    pub fn report(&self, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_context_lines(1).with_width(110).with_links(false);
        let mut text = String::new();
        for problem in &self.problems {
            let view = View { problem, source: NamedSource::new(&self.file, self.source.clone()) };
            if handler.render_report(&mut text, &view).is_err() {
                text.push_str(&problem.message);
            }
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&self.file)?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": {}", problem.message)?;
            if let Some(help) = &problem.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Values that say nothing; so do small numbers and spans of time.
const SHOWN: [&str; 10] =
    ["true", "false", "null", "observe", "enforce", "track", "hold", "revoke", "vault-lease", "vault-token"];

/// Shows names, hides values: a password may stand in a property, in a URL, or where it does not belong, and no list of
/// suspicious words knows all such places. Every character keeps its place.
fn mask(source: &str) -> String {
    source.split_inclusive('\n').map(mask_line).collect()
}

fn mask_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut rest, mut may_be_name) = (line, true);
    while let Some(first) = rest.chars().next() {
        let name = if may_be_name { name_length(rest) } else { 0 };
        let plain = rest.find(|c: char| c.is_whitespace() || "{}[],\"'".contains(c)).unwrap_or(rest.len());
        if name > 0 {
            out.push_str(&shown(&rest[..name]));
            (rest, may_be_name) = (&rest[name..], false);
        } else if plain == 0 || (plain == 1 && matches!(first, '-' | '#')) {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            may_be_name = matches!(first, '{' | ',') || (may_be_name && (first.is_whitespace() || first == '-'));
        } else {
            let (value, after) = rest.split_at(plain);
            if is_harmless(value) {
                out.push_str(value);
            } else {
                value.chars().for_each(|c| out.push_str(&"*".repeat(c.len_utf8())));
            }
            (rest, may_be_name) = (after, false);
        }
    }
    out
}

/// How long the name is with which `text` begins, with its quotes and colon; 0: it begins with none.
fn name_length(text: &str) -> usize {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let bare = &text[quote.map_or(0, char::len_utf8)..];
    let length = bare.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b)).count();
    let after = &bare.as_bytes()[length..];
    let ends = |after: &[u8]| after.first().is_none_or(u8::is_ascii_whitespace);
    match (quote, after) {
        _ if length == 0 => 0,
        (Some(quote), [closes, b':', ..]) if char::from(*closes) == quote => length + 3,
        (None, [b':', after @ ..]) if ends(after) => length + 1,
        _ => 0,
    }
}

/// A name with its quotes and colon, as it stands where it looks like one.
fn shown(name: &str) -> Cow<'_, str> {
    let bare = name.trim_end_matches(':').trim_matches(['"', '\'']);
    if is_name(bare) { name.into() } else { name.replace(bare, &"*".repeat(bare.len())).into() }
}

fn is_harmless(value: &str) -> bool {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    SHOWN.contains(&value) || (1..=6).contains(&digits) && matches!(&value[digits..], "" | "ms" | "s" | "m" | "h" | "d")
}

#[derive(Debug)]
struct View<'a> {
    problem: &'a Problem,
    source: NamedSource<String>,
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for View<'_> {}

impl Diagnostic for View<'_> {
    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.problem.span.map(|_| &self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (start, length) = self.problem.span?;
        Some(Box::new(std::iter::once(LabeledSpan::new(Some("here".to_owned()), start, length))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["journal", "kafka", "topics", "allowed_prefixes"];
        assert_eq!(nearest("jurnal", names), Some("journal"));
        assert_eq!(nearest("allowed_prefix", names), Some("allowed_prefixes"));
        assert_eq!(nearest("banana", names), None);
    }

    #[test]
    fn names_are_said_again_and_what_looks_like_a_secret_is_not() {
        for name in ["jurnal", "kafka.properties", "client_id", "KAFKA", "Topics", "curfew.tasks-2", "database/creds"] {
            assert_eq!(said(name), format!("`{name}`"));
        }
        let random = [
            "hvs.CAESIKx3rQ9wLm2pTb7e",
            "AKIAIOSFODNN7EXAMPLE0X1",
            "c4f7a1b29e",
            "hünter",
            "",
            "correct-horse-battery-staple-and-more",
            "pw!",
            "dGhpc0lzTm90QU5hbWU",
        ];
        for secret in random {
            assert!(!said(secret).contains('`'), "{secret}");
            let words = careful(&format!("duplicate mapping key: {secret}, in `{secret}`"));
            assert!(words.starts_with("duplicate mapping key: "), "{words}");
            assert!(secret.is_empty() || !words.contains(secret), "{words}");
        }
        assert_eq!(careful("invalid type: map, expected a string"), "invalid type: map, expected a string");
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, masked) in [
            (
                "kafka:\n  properties:\n    sasl.password: hünter2\n",
                "kafka:\n  properties:\n    sasl.password: ********\n",
            ),
            ("  sasl.password:\n    hunter2\n", "  sasl.password:\n    *******\n"),
            ("kafka: {\"sasl.password\":\"hunter2\", x: 1}", "kafka: {\"sasl.password\":\"*******\", x: 1}"),
            ("- vault: {address: \"http://u:p@h\"}", "- vault: {address: \"************\"}"),
            ("a: [hunter2, 30s] # b: hunter2", "a: [*******, 30s] # ** *******"),
            ("brokers: user:hunter2@h:1", "brokers: ****************"),
            ("mode: enforce", "mode: enforce"),
            ("hvs.CAESIKx3rQ9wLm2p: x", "********************: *"),
            ("{\"c4f7a1b2\": 1, max_in_flight: 5}", "{\"********\": 1, max_in_flight: 5}"),
        ] {
            assert_eq!(mask(text), masked);
            assert_eq!(masked.len(), text.len());
        }
    }
}
