//! What 10 k to 10 M credentials ask for, reckoned from the rates in `target/bench.json`: see `docs/capacity.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod model;

use std::path::PathBuf;

use clap::Parser;

use model::{Assumed, Measured, Row};

/// What so many credentials ask for: events, cases, memory, disk, partitions and processes
///
/// The rates come from `target/bench.json`, as `make bench` wrote it, and where that has no such row from
/// benches/coefficients.json. All else is assumed, and each assumption is a flag.
#[derive(Debug, Parser)]
#[command(override_usage = "make capacity ARGS=\"[OPTIONS]\"", max_term_width = 110)]
struct Asked {
    /// Live credentials, one line for each
    #[arg(long, value_delimiter = ',', default_values_t = [1e4, 1e5, 1e6, 1e7])]
    credentials: Vec<f64>,
    /// Measured rates, over target/bench.json
    #[arg(long, value_name = "FILE")]
    rates: Option<PathBuf>,
    #[command(flatten)]
    assumed: Assumed,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// The rows of a file; none where it is not there.
fn rows(path: &std::path::Path) -> Vec<Row> {
    let Ok(text) = std::fs::read(path) else { return Vec::new() };
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn main() {
    let asked = Asked::parse();
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let (measured, name) = match asked.rates {
        Some(path) => (rows(&path), path.display().to_string()),
        None => (rows(&PathBuf::from(target).join("bench.json")), "target/bench.json".to_owned()),
    };
    let kept: Vec<Row> = serde_json::from_str(include_str!("../coefficients.json")).unwrap();
    let files = [(name, measured), ("benches/coefficients.json".to_owned(), kept)];
    let measured = Measured::from(&files).unwrap();
    for rate in measured.all() {
        println!("{:>8.0}/s  {}  ({})", rate.per_second, rate.what, rate.from);
    }
    let lines: Vec<_> = asked.credentials.iter().map(|n| model::size(*n, &measured, &asked.assumed)).collect();
    println!("{}", model::table(&lines));
    println!("docs/capacity.md says how it is reckoned; the assumptions are flags: make capacity ARGS=--help");
}
