//! Prometheus metrics: one struct, one prefix (`curfew_`), label values from closed sets only.

/// All metrics of a process.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// `events_total{topic,result}`: accepted, duplicate, rejected.
    pub fn event(&self, _topic: &str, _result: &'static str) {}
    /// `rejected_total{reason}`.
    pub fn rejected(&self, _reason: &'static str) {}
    /// `journal_commit_seconds`.
    pub fn journal_commit(&self, _took_ms: i64) {}
    /// `step_duration_seconds{connector,step,result}`.
    pub fn step(&self, _connector: &str, _step: &'static str, _result: &'static str, _took_ms: i64) {}
    /// `step_failures_total{connector,kind}`.
    pub fn step_failed(&self, _connector: &str, _kind: &'static str) {}
    /// `cases_closed_total{action,trigger,verdict}`.
    pub fn case_closed(&self, _action: &'static str, _trigger: &'static str, _verdict: &'static str) {}
    /// `task_end_to_dead_seconds`: from the end event's append time to the first refusal.
    pub fn task_end_to_dead(&self, _ms: i64) {}
    /// `overrun_seconds{trigger}`: from the task's end to the first refusal; negative ones are counted apart.
    pub fn overrun(&self, _trigger: &'static str, _ms: i64) {}
    /// `consumer_lag{topic,partition}`.
    pub fn consumer_lag(&self, _topic: &str, _partition: i32, _lag: i64) {}
    /// `alarms_total{alarm}`: conflict, typo (registered but never seen), alive_again, mass_silence, clock, halted_partition.
    pub fn alarm(&self, _alarm: &'static str) {}
    /// Tasks that are held because too many of a source fell silent at once.
    pub fn silence_held(&self, _tasks: i64) {}
}
