//! Prometheus metrics: one struct, one prefix (`curfew_`), label values from closed sets only.
//!
//! Counters and histograms are fed where things happen and begin again with the process. Gauges show the journal: they
//! are set from its [`Stats`] at each scrape, so they survive restarts and cannot drift.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::ages::Judged;
use crate::case::HoldReason;
use crate::journal::Stats;

/// The states of cases that are open.
const STATES: [&str; 6] = ["ready", "in_doubt", "retrying", "proving", "held", "abandoned"];
/// One transaction: from a fast disk to one that hangs.
const COMMIT: [f64; 14] = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0, 30.0];
/// One call: up to the time-outs that are usual.
const STEP: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// From an end to a death: milliseconds when all is well, hours when a system is down.
const TO_DEAD: [f64; 18] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0,
];
/// What a credential lived too long: milliseconds to the days of what nobody noticed.
const OVERRUN: [f64; 18] = [
    0.001,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14_400.0,
    43_200.0,
    86_400.0,
    259_200.0,
    604_800.0,
    2_592_000.0,
];

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    events: IntCounterVec,
    rejected: IntCounterVec,
    webhooks: IntCounterVec,
    feedback: IntCounterVec,
    journal_commit: Histogram,
    step: HistogramVec,
    step_failures: IntCounterVec,
    cases_closed: IntCounterVec,
    task_end_to_dead: Histogram,
    task_end_to_dead_negative: IntCounter,
    overrun: HistogramVec,
    overrun_negative: IntCounterVec,
    consumer_lag: IntGaugeVec,
    alarms: IntCounterVec,
    silence_held: IntGauge,
    unread_topic: IntGaugeVec,
    kubernetes_listed: IntGaugeVec,
    accepted_events: IntGaugeVec,
    deliveries: IntGaugeVec,
    cases: IntGaugeVec,
    oldest_case: IntGaugeVec,
    held_cases: IntGaugeVec,
    deadlines: IntGaugeVec,
    unserved: IntGauge,
    unmatched: IntGauge,
    oldest_unmatched: IntGauge,
    unbound: IntGauge,
    overdue: IntGauge,
    worst_overdue: IntGauge,
    unknown_age: IntGauge,
    undeclared_copies: IntGauge,
    outbox: IntGauge,
    frozen: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

impl Metrics {
    /// All at zero, with a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some("curfew".to_owned()), None).expect("the prefix is a metric name");
        let add = |made: Box<dyn prometheus::core::Collector>| {
            registry.register(made).expect("each metric is registered once");
        };
        let counters = |name, help, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are fixed");
            add(Box::new(made.clone()));
            made
        };
        let gauges = |name, help, labels: &[&str]| {
            let made = IntGaugeVec::new(Opts::new(name, help), labels).expect("names and labels are fixed");
            add(Box::new(made.clone()));
            made
        };
        let histograms = |name, help, labels: &[&str], buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let made = HistogramVec::new(opts, labels).expect("names, labels and buckets are fixed");
            add(Box::new(made.clone()));
            made
        };
        let gauge = |name, help| gauges(name, help, &[]).with_label_values::<&str>(&[]);
        let histogram =
            |name, help, buckets: &[f64]| histograms(name, help, &[], buckets).with_label_values::<&str>(&[]);
        let made = Self {
            events: counters("events_total", "Deliveries by topic and what became of them.", &["topic", "result"]),
            rejected: counters("rejected_total", "Deliveries that were not accepted, by reason.", &["reason"]),
            webhooks: counters(
                "webhooks_total",
                "Calls of GitHub and GitLab about leaked secrets, and what became of them.",
                &["source", "result"],
            ),
            feedback: counters(
                "feedback_total",
                "Alerts of GitHub whose secret was seen dead, and whether GitHub was told.",
                &["result"],
            ),
            journal_commit: histogram("journal_commit_seconds", "One durable intake transaction.", &COMMIT),
            step: histograms(
                "step_duration_seconds",
                "One call of a connector.",
                &["connector", "step", "result"],
                &STEP,
            ),
            step_failures: counters("step_failures_total", "Failed calls of a connector.", &["connector", "kind"]),
            cases_closed: counters("cases_closed_total", "Closed cases.", &["action", "trigger", "verdict"]),
            task_end_to_dead: histogram(
                "task_end_to_dead_seconds",
                "From the end event's append time at the broker to the first refusal of the credential.",
                &TO_DEAD,
            ),
            task_end_to_dead_negative: counters(
                "task_end_to_dead_negative_total",
                "Credentials that were dead before the broker had the end event.",
                &[],
            )
            .with_label_values::<&str>(&[]),
            overrun: histograms("overrun_seconds", "How long a credential outlived its task.", &["trigger"], &OVERRUN),
            overrun_negative: counters(
                "overrun_negative_total",
                "Credentials that were dead before their task ended, or whose clocks disagree.",
                &["trigger"],
            ),
            consumer_lag: gauges("consumer_lag", "Records behind the end of the partition.", &["topic", "partition"]),
            alarms: counters("alarms_total", "What a person should look at.", &["alarm"]),
            silence_held: gauge("silence_held_tasks", "Tasks held because many fell silent at once."),
            unread_topic: gauges(
                "unread_topic",
                "1: never read, so no deadline but the longest life counts.",
                &["topic"],
            ),
            kubernetes_listed: gauges(
                "kubernetes_listed_timestamp_seconds",
                "When a watched cluster was last listed in full, by the process that watches it; 0: not yet.",
                &["cluster", "kind", "namespace"],
            ),
            accepted_events: gauges(
                "accepted_events",
                "Accepted events by whether all their cases closed.",
                &["state"],
            ),
            deliveries: gauges("journal_deliveries", "Deliveries that the journal ever counted.", &["result"]),
            cases: gauges("cases", "Open cases by state.", &["state"]),
            oldest_case: gauges("oldest_case_age_seconds", "Age of the oldest open case by state.", &["state"]),
            held_cases: gauges("held_cases", "Held cases by reason.", &["reason"]),
            deadlines: gauges("deadlines", "Tasks by whether their deadline is ahead or passed.", &["state"]),
            unserved: gauge("unserved_cases", "Open cases that no running process serves."),
            unmatched: gauge("unmatched_findings", "Findings of which no credential is known."),
            oldest_unmatched: gauge("oldest_unmatched_finding_age_seconds", "Age of the oldest unmatched finding."),
            unbound: gauge(
                "unbound_tasks",
                "Runs that ended in the last day, and of which nobody has said what they held.",
            ),
            overdue: gauge("overdue_rotations", "Values that are older than their recipe allows."),
            worst_overdue: gauge("worst_overdue_rotation_seconds", "By how much the worst of them is too old."),
            unknown_age: gauge("rotations_of_unknown_age", "Values whose age no inventory has seen."),
            undeclared_copies: gauge(
                "undeclared_copies",
                "Places that hold a rotated value, and that its rotation does not name.",
            ),
            outbox: gauge("outbox_rows", "Rows that were not published yet."),
            frozen: gauge("frozen", "1 while a freeze is in force."),
            registry: registry.clone(),
        };
        made.set_stats(&Stats::default(), false);
        made
    }

    /// `events_total{topic,result}`: accepted, duplicate, rejected, ignored.
    pub fn event(&self, topic: &str, result: &'static str) {
        self.events.with_label_values(&[topic, result]).inc();
    }

    /// `rejected_total{reason}`.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    /// `webhooks_total{source,result}`: accepted, without_fingerprint, replayed, ignored, forged (signature or token), stale,
    /// unreadable, refused (by the topic), busy, unavailable.
    pub fn webhook(&self, source: &'static str, result: &'static str) {
        self.webhooks.with_label_values(&[source, result]).inc();
    }

    /// `feedback_total{result}`: resolved, unavailable (tried again soon), refused (tried again in an hour).
    pub fn feedback(&self, result: &'static str) {
        self.feedback.with_label_values(&[result]).inc();
    }

    /// `journal_commit_seconds`.
    pub fn journal_commit(&self, took_ms: i64) {
        self.journal_commit.observe(seconds(took_ms));
    }

    /// `step_duration_seconds{connector,step,result}`.
    pub fn step(&self, connector: &str, step: &'static str, result: &'static str, took_ms: i64) {
        self.step.with_label_values(&[connector, step, result]).observe(seconds(took_ms));
    }

    /// `step_failures_total{connector,kind}`.
    pub fn step_failed(&self, connector: &str, kind: &'static str) {
        self.step_failures.with_label_values(&[connector, kind]).inc();
    }

    /// `cases_closed_total{action,trigger,verdict}`.
    pub fn case_closed(&self, action: &'static str, trigger: &'static str, verdict: &'static str) {
        self.cases_closed.with_label_values(&[action, trigger, verdict]).inc();
    }

    /// `task_end_to_dead_seconds`: from the end event's append time to the first refusal.
    pub fn task_end_to_dead(&self, ms: i64) {
        if ms < 0 {
            self.task_end_to_dead_negative.inc();
        } else {
            self.task_end_to_dead.observe(seconds(ms));
        }
    }

    /// `overrun_seconds{trigger}`: from the task's end to the first refusal; negative ones are counted apart.
    pub fn overrun(&self, trigger: &'static str, ms: i64) {
        if ms < 0 {
            self.overrun_negative.with_label_values(&[trigger]).inc();
        } else {
            self.overrun.with_label_values(&[trigger]).observe(seconds(ms));
        }
    }

    /// `consumer_lag{topic,partition}`.
    pub fn consumer_lag(&self, topic: &str, partition: i32, lag: i64) {
        self.consumer_lag.with_label_values(&[topic, &partition.to_string()]).set(lag);
    }

    /// `undeclared_copies`: who reads there is left without its value at the next rotation.
    pub fn undeclared_copies(&self, places: usize) {
        self.undeclared_copies.set(i64::try_from(places).unwrap_or(i64::MAX));
    }

    /// `alarms_total{alarm}`: conflict, typo (registered but never seen), alive_again, mass_silence, clock, halted_partition,
    /// cleanup_pending (dead, and not removed: it owns objects), copy_not_updated, not_notified, kubernetes_refused,
    /// kubernetes_other_cluster, binding_blind (what an issuer holds is seen in part only).
    pub fn alarm(&self, alarm: &'static str) {
        self.alarms.with_label_values(&[alarm]).inc();
    }

    /// Tasks that are held because too many of a source fell silent at once.
    pub fn silence_held(&self, tasks: i64) {
        self.silence_held.set(tasks);
    }

    /// `unread_topic{topic}`: a configured topic that was never read, which holds all deadlines but the longest life.
    pub fn unread_topic(&self, topic: Option<&str>) {
        self.unread_topic.reset();
        if let Some(topic) = topic {
            self.unread_topic.with_label_values(&[topic]).set(1);
        }
    }

    /// `kubernetes_listed_timestamp_seconds{cluster,kind,namespace}`: the names are the configuration's.
    pub fn kubernetes_listed(&self, cluster: &str, kind: &str, namespace: &str, at_ms: i64) {
        self.kubernetes_listed.with_label_values(&[cluster, kind, namespace]).set(at_ms / 1000);
    }

    /// This process does not list that any more: who does says how old the list is.
    pub fn kubernetes_left(&self, cluster: &str, kind: &str, namespace: &str) {
        if let Err(error) = self.kubernetes_listed.remove_label_values(&[cluster, kind, namespace]) {
            tracing::debug!(%error, cluster, "this list had no figure");
        }
    }

    /// How old the values are of recipes that have a maximum age: by the process that looks, 0 in all others.
    pub fn ages(&self, judged: &Judged) {
        self.overdue.set(judged.overdue);
        self.worst_overdue.set(judged.worst_ms / 1000);
        self.unknown_age.set(judged.unknown);
    }

    /// Sets the gauges to what the journal says: before each scrape. A state that it does not name is at 0.
    pub fn set_stats(&self, stats: &Stats, frozen: bool) {
        let of = |list: &[(String, i64)], name: &str| list.iter().find(|(n, _)| n == name).map_or(0, |(_, v)| *v);
        for state in STATES {
            self.cases.with_label_values(&[state]).set(of(&stats.cases, state));
            self.oldest_case.with_label_values(&[state]).set(of(&stats.oldest_ms, state) / 1000);
        }
        for reason in HoldReason::ALL.map(HoldReason::as_str) {
            self.held_cases.with_label_values(&[reason]).set(of(&stats.held, reason));
        }
        self.accepted_events.with_label_values(&["open"]).set(stats.accepted - stats.closed);
        self.accepted_events.with_label_values(&["closed"]).set(stats.closed);
        for (result, value) in [
            ("consumed", stats.consumed),
            ("accepted", stats.accepted),
            ("rejected", stats.rejected),
            ("duplicate", stats.duplicates),
        ] {
            self.deliveries.with_label_values(&[result]).set(value);
        }
        self.deadlines.with_label_values(&["pending"]).set(stats.deadlines_pending);
        self.deadlines.with_label_values(&["passed"]).set(stats.deadlines_passed);
        self.unserved.set(stats.unserved);
        self.unmatched.set(stats.unmatched);
        self.oldest_unmatched.set(stats.oldest_unmatched_ms / 1000);
        self.unbound.set(stats.unbound);
        self.outbox.set(stats.outbox);
        self.frozen.set(i64::from(frozen));
    }

    /// The page, in Prometheus' text format.
    pub fn render(&self) -> String {
        // The process's own figures (the crate collects them by itself) keep the names that dashboards know.
        let mut families = self.registry.gather();
        families.extend(prometheus::gather().into_iter().filter(|family| family.name().starts_with("process_")));
        let mut page = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut page) {
            tracing::error!(%error, "the metrics cannot be rendered");
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are an interface: dashboards and alerts read them.
    #[test]
    fn the_page_keeps_its_names() {
        let metrics = Metrics::default();
        metrics.event("curfew.tasks", "accepted");
        metrics.rejected("bad_json");
        metrics.journal_commit(2);
        metrics.step("vault-lease", "revoke", "ok", 12);
        metrics.step_failed("vault-lease", "unknown");
        metrics.case_closed("revoke", "task_end", "dead");
        metrics.task_end_to_dead(40);
        metrics.overrun("deadline", 90_000);
        metrics.overrun("deadline", -5);
        metrics.consumer_lag("curfew.tasks", 0, 3);
        metrics.alarm("conflict");
        metrics.unread_topic(Some("curfew.taks"));
        metrics.kubernetes_listed("prod", "job", "ml", 1_000);
        let page = metrics.render();
        let names: Vec<&str> = page
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket{") && !line.starts_with("process_"))
            .filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name))
            .collect();
        insta::assert_snapshot!(names.join("\n"));
        assert!(page.contains("\nprocess_open_fds "));
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
    fn gauges_follow_the_journal() {
        let metrics = Metrics::default();
        let held = vec![("observe".to_owned(), 2)];
        let oldest_ms = vec![("held".to_owned(), 5_500)];
        let stats = Stats { accepted: 7, closed: 4, held, oldest_ms, unserved: 3, ..Stats::default() };
        metrics.set_stats(&stats, true);
        let page = metrics.render();
        for line in [
            "curfew_accepted_events{state=\"open\"} 3",
            "curfew_held_cases{reason=\"observe\"} 2",
            "curfew_oldest_case_age_seconds{state=\"held\"} 5",
            "curfew_unserved_cases 3",
            "curfew_frozen 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}");
        }
        metrics.set_stats(&Stats::default(), false);
        assert!(metrics.render().contains("curfew_held_cases{reason=\"observe\"} 0"));
    }
}
