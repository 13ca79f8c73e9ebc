//! What is wrong with a configuration, where, and what would be right.

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
        let names: Vec<&str> = names.into_iter().collect();
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

/// Librdkafka's properties may hold passwords, and a URL may hold one: lines are shown without them. Every character
/// keeps its place.
fn mask(source: &str) -> String {
    const SECRET: [&str; 5] = ["password", "secret", "token", "key.pem", "://"];
    source
        .split_inclusive('\n')
        .map(|line| {
            let lower = line.to_ascii_lowercase();
            let Some(word) = SECRET.iter().find_map(|word| lower.find(word)) else { return line.to_owned() };
            let harmless = lower.contains("_file") || (lower.contains("://") && !line.contains('@'));
            let Some(colon) = line[word..].find(": ").map(|n| word + n + 2) else { return line.to_owned() };
            if harmless {
                return line.to_owned();
            }
            let (kept, hidden) = line.split_at(colon);
            let stars: String = hidden
                .chars()
                .map(|c| if c.is_whitespace() { c.to_string() } else { "*".repeat(c.len_utf8()) })
                .collect();
            format!("{kept}{stars}")
        })
        .collect()
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
    fn passwords_are_not_shown() {
        let text = "kafka:\n  properties:\n    sasl.password: hunter2ü\n    token_file: /x\n";
        let masked = mask(text);
        assert_eq!(masked.len(), text.len());
        assert!(!masked.contains("hunter2"));
        assert!(masked.contains("token_file: /x"));
    }
}
