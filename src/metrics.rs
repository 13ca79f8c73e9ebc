//! Prometheus metrics: one struct, one prefix (`curfew_`), label values from closed sets or from the configuration only.
//! What each means stands in the [`catalogue`], from which `docs/metrics.md` is made.
//!
//! Counters and histograms are fed where things happen and begin again with the process. Gauges of the journal are set
//! from its [`Stats`] at each scrape, so they survive restarts and cannot drift; of several processes one exports them.

pub mod alarm;
pub mod catalogue;
mod make;
pub mod reference;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

pub use self::alarm::Alarm;
use self::catalogue::STATES;
use crate::ages::Judged;
use crate::canary::Stage;
use crate::case::{Action, HoldReason};
use crate::journal::Stats;

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    /// What this process does.
    own: Registry,
    /// What the journal says.
    shared: Registry,
    /// Whether this process is the one that says it.
    leads: AtomicBool,
    /// One scrape at a time sets what the journal says: (system, reason) of those that were blocked before.
    setting: Mutex<BTreeSet<(String, String)>>,
    events: IntCounterVec,
    rejected: IntCounterVec,
    webhooks: IntCounterVec,
    feedback: IntCounterVec,
    journal_commit: Histogram,
    journal_writable: IntGauge,
    login_expiry: IntGaugeVec,
    login_lifetime: IntGaugeVec,
    step: HistogramVec,
    step_failures: IntCounterVec,
    cases_closed: IntCounterVec,
    task_end_to_dead: Histogram,
    task_end_to_dead_negative: IntCounter,
    finding_to_dead: HistogramVec,
    overrun: HistogramVec,
    overrun_negative: IntCounterVec,
    consumer_lag: IntGaugeVec,
    halted: IntGaugeVec,
    alarms: IntCounterVec,
    silence_held: IntGauge,
    unread_topic: IntGaugeVec,
    kubernetes_listed: IntGaugeVec,
    inventory_read: IntGaugeVec,
    reach_read: IntGaugeVec,
    canary_configured: IntGauge,
    canary_success: IntGaugeVec,
    canary_duration: Histogram,
    canary_failures: IntCounterVec,
    accepted_events: IntGaugeVec,
    deliveries: IntCounterVec,
    cases: IntGaugeVec,
    oldest_case: IntGaugeVec,
    held_cases: IntGaugeVec,
    deadlines: IntGaugeVec,
    deadline_lag: IntGauge,
    unserved: IntGauge,
    unmatched: IntGauge,
    oldest_unmatched: IntGauge,
    unbound: IntGauge,
    blocked: IntGaugeVec,
    overdue: IntGauge,
    worst_overdue: IntGauge,
    unknown_age: IntGauge,
    undeclared_copies: IntGauge,
    outbox: IntGauge,
    frozen: IntGauge,
    started_held: IntGauge,
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
    /// `events_total{topic,result}`: accepted, duplicate, rejected, ignored.
    pub fn event(&self, topic: &str, result: &'static str) {
        self.events.with_label_values(&[topic, result]).inc();
    }

    /// `events_rejected_total{reason}`.
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

    /// `journal_commit_duration_seconds`.
    pub fn journal_commit(&self, took_ms: i64) {
        self.journal_commit.observe(seconds(took_ms));
    }

    /// `journal_writable`.
    pub fn journal_writable(&self, writable: bool) {
        self.journal_writable.set(i64::from(writable));
    }

    /// `login_expiry_timestamp_seconds{realm,role}`, `login_lifetime_seconds{realm,role}`: `None` where it never ends.
    pub fn login(&self, realm: &str, role: &'static str, ends: Option<(i64, i64)>) {
        let labels = [realm, role];
        match ends {
            Some((at_ms, lifetime_ms)) => {
                self.login_expiry.with_label_values(&labels).set(at_ms / 1000);
                self.login_lifetime.with_label_values(&labels).set(lifetime_ms / 1000);
            }
            None => {
                left(&self.login_expiry, &labels);
                left(&self.login_lifetime, &labels);
            }
        }
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

    /// `finding_to_dead_seconds{action}`: from the finding's append time to the first refusal. What was dead before it was
    /// found took no time.
    pub fn finding_to_dead(&self, action: Action, ms: i64) {
        self.finding_to_dead.with_label_values(&[action.as_str()]).observe(seconds(ms.max(0)));
    }

    /// `overrun_seconds{trigger}`: from the task's end to the first refusal; negative ones are counted apart.
    pub fn overrun(&self, trigger: &'static str, ms: i64) {
        if ms < 0 {
            self.overrun_negative.with_label_values(&[trigger]).inc();
        } else {
            self.overrun.with_label_values(&[trigger]).observe(seconds(ms));
        }
    }

    /// `consumer_lag_records{topic,partition}`.
    pub fn consumer_lag(&self, topic: &str, partition: i32, lag: i64) {
        self.consumer_lag.with_label_values(&[topic, &partition.to_string()]).set(lag);
    }

    /// This process does not read that partition any more: who does says how far it is.
    pub fn partition_left(&self, topic: &str, partition: i32) {
        left(&self.consumer_lag, &[topic, &partition.to_string()]);
    }

    /// `halted_partitions{topic}`.
    pub fn halted(&self, topic: &str, partitions: usize) {
        self.halted.with_label_values(&[topic]).set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// `inventory_read_timestamp_seconds{realm,part}`.
    pub fn inventory_read(&self, realm: &str, part: &str, at_ms: i64) {
        self.inventory_read.with_label_values(&[realm, part]).set(at_ms / 1000);
    }

    /// This process does not read that source any more.
    pub fn reach_left(&self, source: &str) {
        left(&self.reach_read, &[source]);
    }

    /// This process does not read that store any more.
    pub fn inventory_left(&self, realm: &str, part: &str) {
        left(&self.inventory_read, &[realm, part]);
    }

    /// Whether somebody is to send canaries.
    pub fn canary_configured(&self, is: bool) {
        self.canary_configured.set(is.into());
    }

    /// Whether this process sends canaries: then it says when the last one died.
    pub fn canary_led(&self, leads: bool) {
        if leads {
            self.canary_success.with_label_values::<&str>(&[]).set(0);
        } else {
            left(&self.canary_success, &[]);
        }
    }

    /// `canary_success_timestamp_seconds`, `canary_duration_seconds`.
    pub fn canary(&self, took_ms: i64, now_ms: i64) {
        self.canary_success.with_label_values::<&str>(&[]).set(now_ms / 1000);
        self.canary_duration.observe(seconds(took_ms));
    }

    /// `canary_failures_total{stage}`.
    pub fn canary_failed(&self, stage: Stage) {
        self.canary_failures.with_label_values(&[stage.as_str()]).inc();
    }

    /// `undeclared_copies`: who reads there is left without its value at the next rotation.
    pub fn undeclared_copies(&self, places: usize) {
        self.undeclared_copies.set(i64::try_from(places).unwrap_or(i64::MAX));
    }

    /// `alarms_total{alarm}`.
    pub fn alarm(&self, alarm: Alarm) {
        self.alarms.with_label_values(&[alarm.as_str()]).inc();
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

    /// `reach_read_timestamp_seconds{source}`: sources are the configuration's. `None`: only a part was read.
    pub fn reach_read(&self, source: &str, whole_ms: Option<i64>) {
        let gauge = self.reach_read.with_label_values(&[source]);
        if let Some(at_ms) = whole_ms {
            gauge.set(at_ms / 1000);
        }
    }

    /// This process does not list that any more: who does says how old the list is.
    pub fn kubernetes_left(&self, cluster: &str, kind: &str, namespace: &str) {
        left(&self.kubernetes_listed, &[cluster, kind, namespace]);
    }

    /// How old the values are of recipes that have a maximum age: by the process that looks, 0 in all others.
    pub fn ages(&self, judged: &Judged) {
        self.overdue.set(judged.overdue);
        self.worst_overdue.set(judged.worst_ms / 1000);
        self.unknown_age.set(judged.unknown);
    }

    /// Whether this process is the one that says what the journal says; the others show nothing of it.
    pub fn lead(&self, leads: bool) {
        self.leads.store(leads, Ordering::Release);
    }

    /// Whether it is.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Sets the gauges to what the journal says: before each scrape. A state that it does not name is at 0.
    pub fn set_stats(&self, stats: &Stats, frozen: bool, started_held: bool) {
        let mut blocked = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
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
            grow(&self.deliveries.with_label_values(&[result]), value);
        }
        self.deadlines.with_label_values(&["pending"]).set(stats.deadlines_pending);
        self.deadlines.with_label_values(&["passed"]).set(stats.deadlines_passed);
        self.deadline_lag.set(stats.deadline_lag_ms / 1000);
        self.unserved.set(stats.unserved);
        self.unmatched.set(stats.unmatched);
        self.oldest_unmatched.set(stats.oldest_unmatched_ms / 1000);
        self.unbound.set(stats.unbound);
        self.outbox.set(stats.outbox);
        self.frozen.set(i64::from(frozen));
        self.started_held.set(i64::from(started_held));
        let now: BTreeSet<(String, String)> =
            stats.blocked.iter().map(|(system, reason, _)| (system.clone(), reason.clone())).collect();
        for (system, reason) in blocked.difference(&now) {
            left(&self.blocked, &[system.as_str(), reason.as_str()]);
        }
        for (system, reason, is_now) in &stats.blocked {
            self.blocked.with_label_values(&[system, reason]).set(i64::from(*is_now));
        }
        *blocked = now;
    }

    /// The page, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.page(true)
    }

    /// The page; without what the journal says, where that could not be asked: missing, not wrong.
    pub fn page(&self, journal_told: bool) -> String {
        // The process's own figures (the crate collects them by itself) keep the names that dashboards know.
        let mut families = self.own.gather();
        if journal_told && self.leads() {
            families.extend(self.shared.gather());
            families.sort_by(|one, other| one.name().cmp(other.name()));
        }
        families.extend(prometheus::gather().into_iter().filter(|family| family.name().starts_with("process_")));
        let mut page = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut page) {
            tracing::error!(%error, "the metrics cannot be rendered");
        }
        page
    }
}

/// Takes a series away, where there is one.
fn left(gauges: &IntGaugeVec, labels: &[&str]) {
    if let Err(error) = gauges.remove_label_values(labels) {
        tracing::debug!(%error, ?labels, "there was no such series");
    }
}

/// A counter that somebody else counts. It only shrinks with a journal that was put back.
fn grow(counter: &IntCounter, to: i64) {
    let (to, now) = (u64::try_from(to).unwrap_or(0), counter.get());
    if to < now {
        counter.reset();
    }
    counter.inc_by(to.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests;
