//! `make capacity`: the reckoning itself, with rates that no machine changes.

#[path = "../../benches/capacity/model.rs"]
mod model;

use clap::{Args as _, Command, FromArgMatches as _};
use curfew::config::file::Millis;
use model::{Assumed, Measured, Row, size, table};

fn assumed(words: &[&str]) -> Assumed {
    let command = Assumed::augment_args(Command::new("capacity").no_binary_name(true));
    Assumed::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
}

fn rows(text: &str) -> Vec<Row> {
    serde_json::from_str(text).unwrap()
}

/// As `target/bench.json` has them, with other rows between.
fn measured() -> Measured {
    let all = rows(
        r#"[{"name": "task events made durable, 10 k pending", "unit": "1/s", "ours": 90000, "baseline": 90000},
            {"name": "task events made durable, 1 M pending", "unit": "1/s", "ours": 20000, "baseline": 25000},
            {"name": "revocations with proof (tokens)", "unit": "1/s", "ours": 800, "baseline": 1000, "met": true}]"#,
    );
    Measured::from(&[("target/bench.json".to_owned(), all)]).unwrap()
}

#[test]
fn the_table_of_the_defaults() {
    let lines: Vec<_> = [1e4, 1e5, 1e6, 1e7].map(|n| size(n, &measured(), &assumed(&[]))).into();
    insta::assert_snapshot!(table(&lines), @"
    ┌─────────────┬──────────┬─────────┬─────────────┬────────────┬────────┬────────────┬─────────────┬────────────┬───────────┬────────┐
    │ credentials ┆ events/s ┆ cases/s ┆ effects/min ┆ rotate all ┆ memory ┆ disk a day ┆ disk in all ┆ partitions ┆ processes ┆ Vaults │
    ╞═════════════╪══════════╪═════════╪═════════════╪════════════╪════════╪════════════╪═════════════╪════════════╪═══════════╪════════╡
    │ 10 k        ┆ 22       ┆ 2.8     ┆ 333         ┆ 6.7 min    ┆ 211 MB ┆ 1.9 GB     ┆ 502 GB      ┆ 4          ┆ 1         ┆ 1      │
    │ 100 k       ┆ 222      ┆ 28      ┆ 3.3 k       ┆ 1.1 h      ┆ 310 MB ┆ 19 GB      ┆ 5.0 TB      ┆ 4          ┆ 1         ┆ 1      │
    │ 1.0 M       ┆ 2.2 k    ┆ 278     ┆ 33 k        ┆ 11 h       ┆ 1.3 GB ┆ 187 GB     ┆ 50 TB       ┆ 4          ┆ 1         ┆ 1      │
    │ 10 M        ┆ 22 k     ┆ 2.8 k   ┆ 333 k       ┆ 4.6 d      ┆ 13 GB  ┆ 1.9 TB     ┆ 502 TB      ┆ 40         ┆ 10        ┆ 6      │
    └─────────────┴──────────┴─────────┴─────────────┴────────────┴────────┴────────────┴─────────────┴────────────┴───────────┴────────┘
    ");
}

#[test]
fn heartbeats_are_events_and_no_cases() {
    let silent = size(1e6, &measured(), &assumed(&["--beating", "0"]));
    assert!((silent.events - 2e6 / 3_600.0).abs() < 1e-6);
    let all = size(1e6, &measured(), &assumed(&["--beating", "1", "--heartbeat-every", "30s"]));
    assert!((all.events - silent.events - 1e6 / 30.0).abs() < 1e-6);
    assert!((all.cases - silent.cases).abs() < 1e-9);
    assert!(all.disk > silent.disk && all.processes > silent.processes);
    let never = size(1e6, &measured(), &assumed(&["--beating", "1", "--heartbeat-every", "0s"]));
    assert!((never.events - silent.events).abs() < 1e-9);
}

#[test]
fn a_process_does_both_and_keeps_room() {
    let mut measured = measured();
    (measured.intake.per_second, measured.revocations.per_second) = (1_000.0, 100.0);
    let of = |n: f64, more: &[&str]| {
        let words = [&["--beating", "0", "--task-life", "1000s"], more].concat();
        size(n, &measured, &assumed(&words))
    };
    // 200 events and 100 cases a second are 0.2 and 1.0 of a process.
    assert_eq!(of(1e5, &["--busy", "1"]).processes, 2);
    let half = of(1e5, &[]);
    assert_eq!((half.processes, half.partitions), (3, 12));
    assert_eq!(half.effects_per_minute.round(), 12_000.0);
    assert_eq!(of(1.0, &[]).processes, 1, "none is less than one");
}

#[test]
fn rotation_is_bound_by_the_quota_alone() {
    // 50 calls a second, two for each: 25.
    let line = size(1e6, &measured(), &assumed(&["--task-life", "7d"]));
    assert_eq!(line.rotate_all_s, 40_000.0);
    assert_eq!(size(1e6, &measured(), &assumed(&["--quota", "100"])).rotate_all_s, 20_000.0);
}

#[test]
fn what_is_kept_longer_takes_more_disk() {
    let disk = |words: &[&str]| size(1e5, &measured(), &assumed(words)).disk;
    assert!(disk(&["--closed", "30d"]) < disk(&[]) / 9.0);
    assert!(disk(&["--events", "400d"]) > 1.2 * disk(&[]));
    assert_eq!(
        disk(&["--events", "400d", "--closed", "20d"]),
        disk(&["--closed", "20d"]),
        "no longer than closed cases"
    );
    assert_eq!(assumed(&[]).events, Millis(30 * 86_400_000), "as the configuration's default");
    let line = size(1e5, &measured(), &assumed(&["--closed", "10d", "--seen", "10d"]));
    assert!((line.disk - line.disk_a_day * 10.0 - 1e5 * assumed(&[]).bytes_live).abs() < 1e3);
    assert_eq!(disk(&["--closed", "0s", "--seen", "0s"]), 1e5 * assumed(&[]).bytes_live);
    assert_eq!(assumed(&[]).closed, Millis(400 * 86_400_000), "as the configuration's default");
}

#[test]
fn a_rate_that_was_not_measured_comes_from_the_next_file_and_says_so() {
    let new = rows(r#"[{"name": "revocations with proof (tokens)", "ours": 7, "baseline": 9}]"#);
    let kept = rows(include_str!("../../benches/coefficients.json"));
    let both = [("new".to_owned(), new.clone()), ("kept".to_owned(), kept)];
    let measured = Measured::from(&both).unwrap();
    let from = measured.all().map(|rate| rate.from.as_str());
    assert_eq!(from, ["kept", "new", "new"]);
    assert_eq!((measured.revocations.per_second, measured.vault.per_second), (7.0, 9.0));
    assert_eq!(Measured::from(&[("new".to_owned(), new)]), Err("events made durable, 1 M pending"));
}
