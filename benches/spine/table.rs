//! The table that a person reads, and the same as JSON.

use comfy_table::{Table as Grid, presets};
use serde::Serialize;

/// One row.
#[derive(Serialize)]
struct Row {
    name: String,
    unit: &'static str,
    ours: f64,
    baseline: f64,
    ratio: f64,
    /// Lowest and highest ratio of the pairs.
    spread: (f64, f64),
    goal: String,
    met: bool,
}

/// Which way is good.
#[derive(Clone, Copy)]
pub enum Goal {
    /// Ours / baseline is at least this.
    AtLeast(f64),
    /// Ours / baseline is at most this.
    AtMost(f64),
    /// Printed to be known; nothing is asked of it.
    Seen,
}

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Table {
    /// Adds a row of interleaved pairs (ours, baseline); the ratio is the median of the pairs' ratios.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, pairs: &[(f64, f64)], goal: Goal) {
        let ratios: Vec<f64> = pairs.iter().map(|(ours, bare)| ours / bare).collect();
        let ratio = median(ratios.clone());
        let spread = ratios.iter().fold((f64::MAX, f64::MIN), |(low, high), r| (low.min(*r), high.max(*r)));
        let (text, met) = match goal {
            Goal::AtLeast(limit) => (format!(">= {limit}"), ratio >= limit),
            Goal::AtMost(limit) => (format!("<= {limit}"), ratio <= limit),
            Goal::Seen => ("-".to_owned(), true),
        };
        let (ours, baseline) = pairs.iter().copied().unzip();
        let row = Row {
            name: name.into(),
            unit,
            ours: median(ours),
            baseline: median(baseline),
            ratio,
            spread,
            goal: text,
            met,
        };
        eprintln!("{}: ratio {:.2} ({:.2} to {:.2})", row.name, row.ratio, row.spread.0, row.spread.1);
        self.rows.push(row);
    }

    pub fn print_and_save(&self) {
        let mut grid = Grid::new();
        grid.load_style(presets::UTF8_FULL_CONDENSED);
        grid.set_header(["measure", "unit", "curfew", "bare", "ratio", "spread", "goal", "met"]);
        for row in &self.rows {
            grid.add_row([
                row.name.clone(),
                row.unit.to_owned(),
                format!("{:.1}", row.ours),
                format!("{:.1}", row.baseline),
                format!("{:.2}", row.ratio),
                format!("{:.2} - {:.2}", row.spread.0, row.spread.1),
                row.goal.clone(),
                match (row.goal.as_str(), row.met) {
                    ("-", _) => "-",
                    (_, true) => "yes",
                    (_, false) => "NO",
                }
                .to_owned(),
            ]);
        }
        println!("{grid}");
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
        let path = std::path::Path::new(&target).join("bench.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&self.rows).unwrap()).unwrap();
        println!("written to {}", path.display());
    }
}
