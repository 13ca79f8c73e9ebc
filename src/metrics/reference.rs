//! `docs/metrics.md`, made from the catalogue. PURE.

use std::fmt::Write as _;

use super::catalogue::{By, FIGURES, Figure, Kind, Values};

const HEAD: &str = "\
# Metrics

Each process serves them at `/metrics` (`metrics.listen`, loopback). This page is made from `src/metrics/catalogue.rs`; a test
compares. All names begin with `curfew_`; times are seconds. The alerts on them stand in `deploy/prometheus/`, what to do about
each in `docs/runbooks/`, the dashboards in `deploy/grafana/`.

*Whose*: `process` is what that process did since its start, and can be summed. `journal` is what the journal says: one process
of the role `serve` exports it, by a lease, so several processes on one journal do not sum it; when that one ends, another goes on
within 15 s. `leader` is said by the one process that does that work.

Labels have closed sets of values, or are bounded by what an operator wrote down: no label holds a name that came in an event.
Owners, tasks and credentials are no labels: `curfew cases --json` and the outcomes' topic have them. Counters and histograms
whose labels are all closed begin at 0, so that `increase()` sees the first one.

`process_*` are the process's own figures, as Prometheus' clients name them.
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for figure in FIGURES {
        // Writing to a string cannot fail.
        section(&mut page, figure).unwrap_or_default();
    }
    page
}

fn section(page: &mut String, figure: &Figure) -> std::fmt::Result {
    writeln!(page, "\n## curfew_{}\n", figure.name)?;
    let kind = match figure.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let by = match figure.by {
        By::Process => "process".to_owned(),
        By::Journal => "journal".to_owned(),
        By::Leader(what) => format!("leader of `{what}`"),
    };
    writeln!(page, "{}\n\n{kind} · {} · {by}", figure.help, figure.unit)?;
    if !figure.labels.is_empty() {
        writeln!(page)?;
    }
    for label in figure.labels {
        match label.values {
            Values::Closed(values) => {
                let values: Vec<String> = values().iter().map(|value| format!("`{value}`")).collect();
                writeln!(page, "- `{}`: {}", label.name, values.join(", "))?;
            }
            Values::Named(bound) => writeln!(page, "- `{}`: {bound}", label.name)?,
        }
    }
    if let Kind::Histogram(bounds) = figure.kind {
        let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
        writeln!(page, "\nBuckets up to {}.", bounds.join(", "))?;
    }
    Ok(())
}
