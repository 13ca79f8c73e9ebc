//! Each metric as the catalogue has it, in the registry where it belongs.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::Metrics;
use super::catalogue::{self, By, Figure, Kind};
use crate::journal::Stats;

/// Makes what the catalogue says.
struct Maker<'a> {
    own: &'a Registry,
    shared: &'a Registry,
}

impl Maker<'_> {
    fn figure(name: &str) -> (&'static Figure, Vec<&'static str>) {
        let figure = catalogue::find(name).expect("each metric is in the catalogue");
        (figure, figure.labels.iter().map(|label| label.name).collect())
    }

    fn add(&self, figure: &Figure, made: impl prometheus::core::Collector + 'static) {
        let registry = if figure.by == By::Journal { self.shared } else { self.own };
        registry.register(Box::new(made)).expect("each metric is registered once");
    }

    fn counters(&self, name: &str) -> IntCounterVec {
        let (figure, labels) = Self::figure(name);
        let made = IntCounterVec::new(Opts::new(name, figure.help), &labels).expect("names and labels are fixed");
        self.add(figure, made.clone());
        figure.at_zero().iter().for_each(|values| drop(made.with_label_values(values)));
        made
    }

    fn gauges(&self, name: &str) -> IntGaugeVec {
        let (figure, labels) = Self::figure(name);
        let made = IntGaugeVec::new(Opts::new(name, figure.help), &labels).expect("names and labels are fixed");
        self.add(figure, made.clone());
        made
    }

    fn histograms(&self, name: &str) -> HistogramVec {
        let (figure, labels) = Self::figure(name);
        let Kind::Histogram(buckets) = figure.kind else { unreachable!("the catalogue says that {name} is one") };
        let opts = HistogramOpts::new(name, figure.help).buckets(buckets.to_vec());
        let made = HistogramVec::new(opts, &labels).expect("names, labels and buckets are fixed");
        self.add(figure, made.clone());
        figure.at_zero().iter().for_each(|values| drop(made.with_label_values(values)));
        made
    }

    fn counter(&self, name: &str) -> IntCounter {
        self.counters(name).with_label_values::<&str>(&[])
    }

    fn gauge(&self, name: &str) -> IntGauge {
        self.gauges(name).with_label_values::<&str>(&[])
    }

    fn histogram(&self, name: &str) -> Histogram {
        self.histograms(name).with_label_values::<&str>(&[])
    }
}

impl Metrics {
    /// All at zero, with registries of their own.
    pub fn new() -> Self {
        let registry = || Registry::new_custom(Some("curfew".to_owned()), None).expect("the prefix is a metric name");
        let (own, shared) = (registry(), registry());
        let make = Maker { own: &own, shared: &shared };
        let made = Self {
            leads: AtomicBool::new(false),
            setting: Mutex::default(),
            events: make.counters("events_total"),
            rejected: make.counters("events_rejected_total"),
            webhooks: make.counters("webhooks_total"),
            feedback: make.counters("feedback_total"),
            journal_commit: make.histogram("journal_commit_duration_seconds"),
            journal_writable: make.gauge("journal_writable"),
            login_expiry: make.gauges("login_expiry_timestamp_seconds"),
            login_lifetime: make.gauges("login_lifetime_seconds"),
            step: make.histograms("step_duration_seconds"),
            step_failures: make.counters("step_failures_total"),
            cases_closed: make.counters("cases_closed_total"),
            task_end_to_dead: make.histogram("task_end_to_dead_seconds"),
            task_end_to_dead_negative: make.counter("task_end_to_dead_negative_total"),
            finding_to_dead: make.histograms("finding_to_dead_seconds"),
            overrun: make.histograms("overrun_seconds"),
            overrun_negative: make.counters("overrun_negative_total"),
            consumer_lag: make.gauges("consumer_lag_records"),
            halted: make.gauges("halted_partitions"),
            alarms: make.counters("alarms_total"),
            silence_held: make.gauge("silence_held_tasks"),
            unread_topic: make.gauges("unread_topic"),
            kubernetes_listed: make.gauges("kubernetes_listed_timestamp_seconds"),
            inventory_read: make.gauges("inventory_read_timestamp_seconds"),
            reach_read: make.gauges("reach_read_timestamp_seconds"),
            canary_configured: make.gauge("canary_configured"),
            canary_success: make.gauges("canary_success_timestamp_seconds"),
            canary_duration: make.histogram("canary_duration_seconds"),
            canary_failures: make.counters("canary_failures_total"),
            accepted_events: make.gauges("accepted_events"),
            deliveries: make.counters("journal_deliveries_total"),
            cases: make.gauges("cases"),
            oldest_case: make.gauges("oldest_case_age_seconds"),
            held_cases: make.gauges("held_cases"),
            deadlines: make.gauges("deadlines"),
            deadline_lag: make.gauge("deadline_lag_seconds"),
            unserved: make.gauge("unserved_cases"),
            unmatched: make.gauge("unmatched_findings"),
            oldest_unmatched: make.gauge("oldest_unmatched_finding_age_seconds"),
            unbound: make.gauge("unbound_tasks"),
            blocked: make.gauges("system_blocked"),
            overdue: make.gauge("overdue_rotations"),
            worst_overdue: make.gauge("worst_overdue_rotation_seconds"),
            unknown_age: make.gauge("rotations_of_unknown_age"),
            undeclared_copies: make.gauge("undeclared_copies"),
            outbox: make.gauge("outbox_rows"),
            frozen: make.gauge("frozen"),
            started_held: make.gauge("started_held"),
            own: own.clone(),
            shared: shared.clone(),
        };
        made.journal_writable.set(1);
        made.set_stats(&Stats::default(), false, false);
        made
    }
}
