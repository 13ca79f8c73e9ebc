//! Every figure that Curfew exports: what [`Metrics`](super::Metrics) registers, and what `docs/metrics.md` says. PURE.

use super::alarm::Alarm;
use crate::canary::Stage;
use crate::case::plan::Act;
use crate::case::record::FailureKind;
use crate::case::{Action, HoldReason, Trigger};
use crate::event::RejectReason;

/// One family of series.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Without the prefix `curfew_`.
    pub name: &'static str,
    /// What may be done with it.
    pub kind: Kind,
    /// What is counted or measured.
    pub unit: &'static str,
    /// In the order in which values are given.
    pub labels: &'static [Label],
    /// Whose figure it is.
    pub by: By,
    /// One sentence or two.
    pub help: &'static str,
}

/// As Prometheus has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// With these upper bounds.
    Histogram(&'static [f64]),
}

/// A label of a figure.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it may say.
    pub values: Values,
}

/// What bounds a label.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These, and no others.
    Closed(fn() -> Vec<&'static str>),
    /// As many as something that an operator writes down has.
    Named(&'static str),
}

/// Whose figure it is, where several processes share a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Each process counts what it does; sums over processes are right.
    Process,
    /// The journal's: one process of the role `serve` exports it, by a lease, and no other has the series.
    Journal,
    /// The one process that leads this work says it; others have 0 or no series.
    Leader(&'static str),
}

/// The states of cases that are open.
pub const STATES: [&str; 6] = ["ready", "in_doubt", "retrying", "proving", "held", "abandoned"];
/// Why a system is blocked.
pub const BLOCKS: [&str; 3] = ["denied", "throttled", "unavailable"];

/// One transaction: from a fast disk to one that hangs.
const COMMIT: &[f64] = &[0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0, 30.0];
/// One call: up to the time-outs that are usual.
const STEP: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// From an end to a death: milliseconds when all is well, days when a system is down.
const TO_DEAD: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0,
    86_400.0, 604_800.0,
];
/// What a credential lived too long: milliseconds to the days of what nobody noticed.
const OVERRUN: &[f64] = &[
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

const fn closed(name: &'static str, values: fn() -> Vec<&'static str>) -> Label {
    Label { name, values: Values::Closed(values) }
}

const fn named(name: &'static str, bound: &'static str) -> Label {
    Label { name, values: Values::Named(bound) }
}

const TRIGGER: Label = closed("trigger", || Trigger::ALL.map(Trigger::as_str).into());
const ACTION: Label = closed("action", || Action::ALL.map(Action::as_str).into());
const TOPIC: Label = named("topic", "topics of the configuration, and Curfew's own");
const CONNECTOR: Label = named("connector", "kinds of systems of this build");
const REALM: Label = named("realm", "realms, and targets that are one, of the configuration");
const SYSTEM: Label = named("system", "realms and targets that the journal ever knew");

const fn figure(name: &'static str, kind: Kind, unit: &'static str, by: By, help: &'static str) -> Figure {
    Figure { name, kind, unit, labels: &[], by, help }
}

impl Figure {
    const fn of(self, labels: &'static [Label]) -> Self {
        Self { labels, ..self }
    }
}

use By::{Journal, Leader, Process};
use Kind::{Counter, Gauge, Histogram};

/// All of them, in the order of the documentation.
pub const FIGURES: &[Figure] = &[
    // What comes in.
    figure("events_total", Counter, "deliveries", Process, "Deliveries by topic and what became of them.").of(&[
        TOPIC,
        closed("result", || vec!["accepted", "duplicate", "rejected", "ignored"]),
    ]),
    figure("events_rejected_total", Counter, "deliveries", Process, "Deliveries that were not accepted, by reason.")
        .of(&[closed("reason", || RejectReason::ALL.map(RejectReason::as_str).into())]),
    figure(
        "webhooks_total",
        Counter,
        "calls",
        Process,
        "Calls of GitHub and GitLab about leaked secrets, and what became of them.",
    )
    .of(&[
        closed("source", || vec!["github", "gitlab"]),
        closed("result", || {
            vec![
                "accepted",
                "without_fingerprint",
                "replayed",
                "ignored",
                "forged",
                "stale",
                "unreadable",
                "refused",
                "busy",
                "unavailable",
            ]
        }),
    ]),
    figure(
        "consumer_lag_records",
        Gauge,
        "records",
        Process,
        "Records behind the end of a partition, by the process that reads it.",
    )
    .of(&[TOPIC, named("partition", "partitions of the topic")]),
    figure(
        "halted_partitions",
        Gauge,
        "partitions",
        Process,
        "Partitions that cannot go on without an operator, by the process that reads them.",
    )
    .of(&[TOPIC]),
    figure(
        "unread_topic",
        Gauge,
        "1",
        Leader("deadlines"),
        "1: this topic was never read, so no deadline but the longest life counts.",
    )
    .of(&[TOPIC]),
    figure(
        "kubernetes_listed_timestamp_seconds",
        Gauge,
        "Unix time in seconds",
        Leader("kubernetes"),
        "When a watched cluster was last listed in full; 0: not yet.",
    )
    .of(&[
        named("cluster", "clusters of the configuration"),
        closed("kind", || vec!["job", "pod"]),
        named("namespace", "namespaces of the configuration; `*` is all"),
    ]),
    figure(
        "inventory_read_timestamp_seconds",
        Gauge,
        "Unix time in seconds",
        Leader("inventory"),
        "When a store was last read in full; 0: not yet.",
    )
    .of(&[REALM, named("part", "entries of `inventory` for this realm")]),
    figure(
        "reach_read_timestamp_seconds",
        Gauge,
        "Unix time in seconds",
        Leader("reach"),
        "When a source of reach was last read whole, or of a log of use (`audit:<realm>`) its newest line; 0: not yet.",
    )
    .of(&[named("source", "sources that `reach` of the configuration names")]),
    // What is done.
    figure(
        "step_duration_seconds",
        Histogram(STEP),
        "seconds",
        Process,
        "One call of a connector. Of probes `result` is what the old credential met: refused, accepted, unknown.",
    )
    .of(&[
        CONNECTOR,
        closed("step", || Act::ALL.map(Act::as_str).into()),
        closed("result", || {
            [&["ok", "accepted"][..], &FailureKind::ALL.map(FailureKind::as_str)].concat()
        }),
    ]),
    figure("step_failures_total", Counter, "calls", Process, "Failed calls of a connector, by what the failure means.")
        .of(&[CONNECTOR, closed("kind", || FailureKind::ALL.map(FailureKind::as_str).into())]),
    figure("cases_closed_total", Counter, "cases", Process, "Closed cases.").of(&[
        ACTION,
        TRIGGER,
        closed("verdict", || vec!["dead", "reduced", "rolled_back", "not_found", "obsolete"]),
    ]),
    figure(
        "task_end_to_dead_seconds",
        Histogram(TO_DEAD),
        "seconds",
        Process,
        "From the end event's append time at the broker to the first refusal of the credential.",
    ),
    figure(
        "task_end_to_dead_negative_total",
        Counter,
        "credentials",
        Process,
        "Credentials that were dead before the broker had the end event.",
    ),
    figure(
        "finding_to_dead_seconds",
        Histogram(TO_DEAD),
        "seconds",
        Process,
        "From the finding's append time at the broker to the first refusal of what was found.",
    )
    .of(&[ACTION]),
    figure(
        "overrun_seconds",
        Histogram(OVERRUN),
        "seconds",
        Process,
        "How long a credential outlived its task: from the end, the deadline or the last heartbeat to the first refusal.",
    )
    .of(&[TRIGGER]),
    figure(
        "overrun_negative_total",
        Counter,
        "credentials",
        Process,
        "Credentials that were dead before their task ended, or whose clocks disagree.",
    )
    .of(&[TRIGGER]),
    figure("alarms_total", Counter, "alarms", Process, "What a person should look at; the log says of what.")
        .of(&[closed("alarm", || Alarm::ALL.map(Alarm::as_str).into())]),
    figure(
        "feedback_total",
        Counter,
        "alerts",
        Process,
        "Alerts of GitHub whose secret was seen dead, and whether GitHub was told.",
    )
    .of(&[closed("result", || vec!["resolved", "unavailable", "refused"])]),
    // The process itself.
    figure(
        "journal_commit_duration_seconds",
        Histogram(COMMIT),
        "seconds",
        Process,
        "One durable transaction of a batch of events, or of a case's records.",
    ),
    figure("journal_writable", Gauge, "0 or 1", Process, "0: the last write failed, and no effect happens."),
    figure(
        "login_expiry_timestamp_seconds",
        Gauge,
        "Unix time in seconds",
        Process,
        "When a login of Curfew's own ends unless it is renewed; no series where it never does.",
    )
    .of(&[REALM, closed("role", || vec!["bind", "enforce", "inventory", "reconcile", "reductions", "stores"])]),
    figure("login_lifetime_seconds", Gauge, "seconds", Process, "How long that login lived from its start.")
        .of(&[REALM, closed("role", || vec!["bind", "enforce", "inventory", "reconcile", "reductions", "stores"])]),
    figure(
        "canary_configured",
        Gauge,
        "0 or 1",
        Process,
        "Whether this process's configuration asks for canaries, whoever is to send them: where one does and nobody says when one died, no process runs the role.",
    ),
    figure(
        "canary_success_timestamp_seconds",
        Gauge,
        "Unix time in seconds",
        Leader("canary"),
        "When a canary was last seen dead in time; 0: none yet. No series where there is no `canary`.",
    ),
    figure(
        "canary_duration_seconds",
        Histogram(TO_DEAD),
        "seconds",
        Process,
        "From the end of a canary's task to its death, through the whole pipeline and back.",
    ),
    figure("canary_failures_total", Counter, "canaries", Process, "Canaries that did not die in time, by how far they came.")
        .of(&[closed("stage", || Stage::ALL.map(Stage::as_str).into())]),
    // What the journal says.
    figure(
        "journal_deliveries_total",
        Counter,
        "deliveries",
        Journal,
        "Deliveries that the journal ever counted: consumed = accepted + rejected + duplicate.",
    )
    .of(&[closed("result", || vec!["consumed", "accepted", "rejected", "duplicate"])]),
    figure("accepted_events", Gauge, "events", Journal, "Accepted events by whether all their cases closed.")
        .of(&[closed("state", || vec!["open", "closed"])]),
    figure("cases", Gauge, "cases", Journal, "Open cases by state.").of(&[closed("state", || STATES.into())]),
    figure("oldest_case_age_seconds", Gauge, "seconds", Journal, "Age of the oldest open case by state.")
        .of(&[closed("state", || STATES.into())]),
    figure("held_cases", Gauge, "cases", Journal, "Held cases by reason.")
        .of(&[closed("reason", || HoldReason::ALL.map(HoldReason::as_str).into())]),
    figure("unserved_cases", Gauge, "cases", Journal, "Open cases that no running process serves."),
    figure("deadlines", Gauge, "tasks", Journal, "Tasks by whether their deadline is ahead or passed.")
        .of(&[closed("state", || vec!["pending", "passed"])]),
    figure(
        "deadline_lag_seconds",
        Gauge,
        "seconds",
        Journal,
        "For how long the oldest deadline has passed whose task is not ended yet.",
    ),
    figure("unmatched_findings", Gauge, "findings", Journal, "Findings of which no credential is known."),
    figure("oldest_unmatched_finding_age_seconds", Gauge, "seconds", Journal, "Age of the oldest unmatched finding."),
    figure(
        "unbound_tasks",
        Gauge,
        "tasks",
        Journal,
        "Runs that ended in the last day, and of which nobody has said what they held.",
    ),
    figure("system_blocked", Gauge, "0 or 1", Journal, "1 while no call goes to this system, by reason.")
        .of(&[SYSTEM, closed("reason", || BLOCKS.into())]),
    figure("outbox_rows", Gauge, "rows", Journal, "Rows that were not published yet."),
    figure("frozen", Gauge, "0 or 1", Journal, "1 while a freeze is in force."),
    figure(
        "started_held",
        Gauge,
        "0 or 1",
        Journal,
        "1 while nothing acts because the journal may be older than what was published.",
    ),
    // What a leader says.
    figure(
        "silence_held_tasks",
        Gauge,
        "tasks",
        Leader("deadlines"),
        "Tasks held because many of a source fell silent at once.",
    ),
    figure("overdue_rotations", Gauge, "values", Leader("ages"), "Values that are older than their recipe allows."),
    figure(
        "worst_overdue_rotation_seconds",
        Gauge,
        "seconds",
        Leader("ages"),
        "By how much the worst of them is too old.",
    ),
    figure("rotations_of_unknown_age", Gauge, "values", Leader("ages"), "Values whose age no inventory has seen."),
    figure(
        "undeclared_copies",
        Gauge,
        "places",
        Leader("inventory"),
        "Places that hold a rotated value, and that its rotation does not name.",
    ),
];

/// So many series of closed labels are there from the start, at 0: the first increase of one that appears only with it
/// is seen by no `increase()`.
const MOST_AT_ZERO: usize = 64;

impl Figure {
    /// The values of its labels that are there from the start; empty where not all are known, or too many.
    pub fn at_zero(&self) -> Vec<Vec<&'static str>> {
        let mut all: Vec<Vec<&'static str>> = vec![Vec::new()];
        for label in self.labels {
            let Values::Closed(values) = label.values else { return Vec::new() };
            let values = values();
            all = all.iter().flat_map(|so_far| values.iter().map(move |one| [&so_far[..], &[*one]].concat())).collect();
        }
        if all.len() > MOST_AT_ZERO { Vec::new() } else { all }
    }
}

/// The figure of this name, without the prefix.
pub fn find(name: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.name == name)
}
