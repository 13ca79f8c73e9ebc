use std::path::Path;

use super::catalogue::{FIGURES, Kind, Values};
use super::*;

/// Each figure once.
fn fed() -> Metrics {
    let metrics = Metrics::default();
    metrics.lead(true);
    metrics.event("curfew.tasks", "accepted");
    metrics.rejected("bad_json");
    metrics.journal_commit(2);
    metrics.login("prod", "enforce", Some((90_000, 60_000)));
    metrics.step("vault-lease", "revoke", "ok", 12);
    metrics.step_failed("vault-lease", "unknown");
    metrics.case_closed("revoke", "task_end", "dead");
    metrics.task_end_to_dead(40);
    metrics.finding_to_dead(Action::Contain, 40);
    metrics.overrun("deadline", 90_000);
    metrics.overrun("deadline", -5);
    metrics.consumer_lag("curfew.tasks", 0, 3);
    metrics.halted("curfew.tasks", 1);
    metrics.alarm(Alarm::Typo);
    metrics.unread_topic(Some("curfew.taks"));
    metrics.kubernetes_listed("prod", "job", "ml", 1_000);
    metrics.inventory_read("prod", "0", 1_000);
    metrics.reach_read("vault:prod", None);
    metrics.canary_led(true);
    let blocked = vec![("prod".to_owned(), "denied".to_owned(), true)];
    metrics.set_stats(&Stats { blocked, ..Stats::default() }, false, false);
    metrics
}

fn has(metrics: &Metrics, line: &str) -> bool {
    metrics.render().lines().any(|one| one == line)
}

/// The names are an interface: dashboards and alerts read them. `CURFEW_UPDATE_DOCS=1 cargo test` writes the page anew.
#[test]
fn the_reference_says_what_is_exported() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = reference::page();
    if std::env::var_os("CURFEW_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/metrics.md is not what the code exports: CURFEW_UPDATE_DOCS=1 writes it");
}

#[test]
fn the_page_has_each_figure_of_the_catalogue_and_no_other() {
    let page = fed().render();
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE curfew_"));
    let shown: BTreeSet<(&str, &str)> = names.filter_map(|line| line.split_once(' ')).collect();
    let kind = |kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let known: BTreeSet<(&str, &str)> = FIGURES.iter().map(|figure| (figure.name, kind(figure.kind))).collect();
    assert_eq!(shown, known);
    assert_eq!(known.len(), FIGURES.len(), "one name twice");
    assert!(page.contains("\nprocess_open_fds "));
}

#[test]
fn what_is_counted_by_closed_labels_begins_at_zero() {
    let metrics = Metrics::default();
    for alarm in Alarm::ALL {
        assert!(has(&metrics, &format!("curfew_alarms_total{{alarm=\"{}\"}} 0", alarm.as_str())));
    }
    assert!(has(&metrics, "curfew_overrun_seconds_count{trigger=\"deadline\"} 0"));
    assert!(!metrics.render().contains("curfew_cases_closed_total{"), "too many of them");
    for figure in FIGURES {
        for label in figure.labels {
            let Values::Closed(values) = label.values else { continue };
            let all = values();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{} {}", figure.name, label.name);
        }
    }
}

#[test]
fn only_who_leads_says_what_the_journal_says() {
    let metrics = Metrics::default();
    assert!(!metrics.render().contains("curfew_cases{"));
    assert!(!metrics.render().contains("curfew_frozen"));
    metrics.lead(true);
    assert!(has(&metrics, "curfew_cases{state=\"held\"} 0"));
    assert!(!metrics.page(false).contains("curfew_cases{"), "the journal did not answer: missing, not wrong");
    metrics.lead(false);
    assert!(!metrics.render().contains("curfew_cases{"));
}

#[test]
fn a_topic_that_is_read_after_all_is_not_shown() {
    let metrics = Metrics::default();
    metrics.unread_topic(Some("one"));
    metrics.unread_topic(Some("other"));
    assert!(metrics.render().contains("curfew_unread_topic{topic=\"other\"} 1"));
    assert!(!metrics.render().contains("topic=\"one\""));
    metrics.unread_topic(None);
    assert!(!metrics.render().contains("curfew_unread_topic{"));
}

#[test]
fn what_a_process_has_left_it_does_not_show() {
    let metrics = fed();
    metrics.partition_left("curfew.tasks", 0);
    metrics.inventory_left("prod", "0");
    metrics.login("prod", "enforce", None);
    let page = metrics.render();
    for name in ["consumer_lag_records", "inventory_read_timestamp", "login_expiry", "login_lifetime"] {
        assert!(!page.contains(&format!("\ncurfew_{name}")), "{name}");
    }
}

#[test]
fn gauges_follow_the_journal() {
    let metrics = Metrics::default();
    metrics.lead(true);
    let held = vec![("observe".to_owned(), 2)];
    let oldest_ms = vec![("held".to_owned(), 5_500)];
    let blocked = vec![("prod".to_owned(), "denied".to_owned(), true)];
    let stats = Stats {
        accepted: 7,
        closed: 4,
        held,
        oldest_ms,
        unserved: 3,
        deadline_lag_ms: 61_000,
        blocked,
        ..Stats::default()
    };
    metrics.set_stats(&stats, true, true);
    for line in [
        "curfew_accepted_events{state=\"open\"} 3",
        "curfew_journal_deliveries_total{result=\"accepted\"} 7",
        "curfew_held_cases{reason=\"observe\"} 2",
        "curfew_oldest_case_age_seconds{state=\"held\"} 5",
        "curfew_unserved_cases 3",
        "curfew_deadline_lag_seconds 61",
        "curfew_system_blocked{reason=\"denied\",system=\"prod\"} 1",
        "curfew_frozen 1",
        "curfew_started_held 1",
    ] {
        assert!(has(&metrics, line), "{line}");
    }
    metrics.set_stats(&stats, true, true);
    assert!(has(&metrics, "curfew_journal_deliveries_total{result=\"accepted\"} 7"), "it is not added again");
    metrics.set_stats(&Stats { accepted: 2, ..Stats::default() }, false, false);
    assert!(has(&metrics, "curfew_journal_deliveries_total{result=\"accepted\"} 2"), "an older journal was put back");
    assert!(has(&metrics, "curfew_held_cases{reason=\"observe\"} 0"));
    assert!(!metrics.render().contains("curfew_system_blocked"));
}
