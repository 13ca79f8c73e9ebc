//! The closing table: what was checked of each promise, and what is broken.

use std::fmt;

/// What is said of one promise.
pub struct Line {
    pub promise: &'static str,
    pub checked: Vec<String>,
    pub broken: Vec<String>,
}

/// All promises.
pub struct Report(pub Vec<Line>);

impl Line {
    pub fn of(promise: &'static str) -> Self {
        Self { promise, checked: Vec::new(), broken: Vec::new() }
    }

    pub fn counted(&mut self, count: usize, what: &str) {
        self.checked.push(format!("{count} {what}"));
    }

    pub fn must(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(broken());
        }
    }
}

impl Report {
    pub fn broken(&self) -> usize {
        self.0.iter().map(|line| line.broken.len()).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(f, "{:<18} broken: {:<3} {}", line.promise, line.broken.len(), line.checked.join(", "))?;
            for broken in line.broken.iter().take(20) {
                writeln!(f, "    BROKEN {broken}")?;
            }
        }
        write!(f, "broken: {}", self.broken())
    }
}
