//! What so many credentials ask for: measured rates and stated assumptions in, one line of a table out. Pure.

use clap::Args;
use comfy_table::{Table, presets};
use curfew::config::file::Millis;
use serde::Deserialize;

/// One row of `target/bench.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Row {
    name: String,
    ours: f64,
    baseline: f64,
}

/// A rate that was measured, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// For people.
    pub what: &'static str,
    /// Per second.
    pub per_second: f64,
    /// The file.
    pub from: String,
}

/// What the benches measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Events made durable, with 1 M tasks pending.
    pub intake: Rate,
    /// Revocations with proof.
    pub revocations: Rate,
    /// The same calls bare: what Vault bears.
    pub vault: Rate,
}

impl Measured {
    /// Takes each rate from the first file that has its row; `Err`: which one none has.
    pub fn from(files: &[(String, Vec<Row>)]) -> Result<Self, &'static str> {
        let rate = |what, words: &[&str], side: fn(&Row) -> f64| {
            let has = |row: &&Row| words.iter().all(|word| row.name.contains(word));
            let found = files.iter().find_map(|(from, rows)| Some((from.clone(), side(rows.iter().find(has)?))));
            found.map(|(from, per_second)| Rate { what, per_second, from }).ok_or(what)
        };
        let revocations = ["revocations with proof"];
        Ok(Self {
            intake: rate("events made durable, 1 M pending", &["made durable", "1 M"], |row| row.ours)?,
            revocations: rate("revocations with proof", &revocations, |row| row.ours)?,
            vault: rate("the same calls bare", &revocations, |row| row.baseline)?,
        })
    }

    /// All, for people.
    pub fn all(&self) -> [&Rate; 3] {
        [&self.intake, &self.revocations, &self.vault]
    }
}

/// What nobody can measure for you.
#[derive(Debug, Clone, Args)]
pub struct Assumed {
    /// Mean life of a task; its credentials die with it
    #[arg(long, default_value = "1h", value_parser = Millis::parse)]
    pub task_life: Millis,
    /// Credentials that one task holds
    #[arg(long, default_value_t = 1.0)]
    pub credentials_per_task: f64,
    /// Events of one task, heartbeats apart: its start and its end
    #[arg(long, default_value_t = 2.0)]
    pub events_per_task: f64,
    /// Part of the tasks that send heartbeats, 0 to 1
    #[arg(long, default_value_t = 0.1)]
    pub beating: f64,
    /// Interval of heartbeats
    #[arg(long, default_value = "60s", value_parser = Millis::parse)]
    pub heartbeat_every: Millis,
    /// Part of a measured rate that is planned for: the rest is for peaks and for what has to be caught up
    #[arg(long, default_value_t = 0.5)]
    pub busy: f64,
    /// As `retention.seen`
    #[arg(long, default_value = "14d", value_parser = Millis::parse)]
    pub seen: Millis,
    /// As `retention.events`
    #[arg(long, default_value = "30d", value_parser = Millis::parse)]
    pub events: Millis,
    /// As `retention.closed`
    #[arg(long, default_value = "400d", value_parser = Millis::parse)]
    pub closed: Millis,
    /// Bytes of a live credential: its row, its task's and its grant's, with their indexes
    #[arg(long, default_value_t = 1_100.0)]
    pub bytes_live: f64,
    /// Bytes of an accepted event: the end of a task is kept as long as closed cases, all else as `--events`
    #[arg(long, default_value_t = 250.0)]
    pub bytes_event: f64,
    /// Bytes of an event's key, by which a repeat is known
    #[arg(long, default_value_t = 90.0)]
    pub bytes_seen: f64,
    /// Bytes of a closed case with its records; the rows of its task stay as long
    #[arg(long, default_value_t = 3_700.0)]
    pub bytes_case: f64,
    /// Memory of one process, in MB; pending tasks and cases are in the journal
    #[arg(long, default_value_t = 200.0)]
    pub process_mb: f64,
    /// Partitions for each process: what one loses is spread evenly, and there is room to grow
    #[arg(long, default_value_t = 4)]
    pub partitions_per_process: u32,
    /// Calls per second that an issuer allows for one account
    #[arg(long, default_value_t = 50.0)]
    pub quota: f64,
    /// Calls of one rotation that count against it
    #[arg(long, default_value_t = 2.0)]
    pub calls_per_rotation: f64,
}

/// What so many credentials ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Live at once.
    pub credentials: f64,
    /// Per second.
    pub events: f64,
    /// Per second.
    pub cases: f64,
    /// What `limits.effects_per_minute` must let pass, with the same room as all else.
    pub effects_per_minute: f64,
    /// Seconds to rotate all of them at one account's quota.
    pub rotate_all_s: f64,
    /// Bytes: processes, and live rows in the system's cache.
    pub memory: f64,
    /// Bytes by which the journal grows each day, until its retention is full.
    pub disk_a_day: f64,
    /// Bytes of the journal then.
    pub disk: f64,
    /// Of the topics of tasks together.
    pub partitions: u32,
    /// With all roles.
    pub processes: u32,
    /// Each as the one that was measured.
    pub vaults: u32,
}

const DAY: f64 = 86_400.0;
/// Bytes of the index by which events without a case are found when they are old.
const BARE: f64 = 40.0;
const COUNTS: &[&str] = &["", " k", " M"];
const BYTES: &[&str] = &[" B", " kB", " MB", " GB", " TB", " PB"];

fn seconds(span: Millis) -> f64 {
    span.0 as f64 / 1_000.0
}

fn whole(parts: f64) -> u32 {
    parts.ceil().max(1.0) as u32
}

/// Sizes one line.
pub fn size(credentials: f64, measured: &Measured, assumed: &Assumed) -> Line {
    let a = assumed;
    let tasks = credentials / a.credentials_per_task;
    let beats = if a.heartbeat_every.0 > 0 { tasks * a.beating / seconds(a.heartbeat_every) } else { 0.0 };
    let ends = tasks / seconds(a.task_life);
    let events = ends * a.events_per_task + beats;
    let cases = credentials / seconds(a.task_life);
    // One process does both in turn: what each takes of its time adds up.
    let load = events / measured.intake.per_second + cases / measured.revocations.per_second;
    let processes = whole(load / a.busy);
    let live = credentials * a.bytes_live;
    // What is kept of each second: as long as closed cases, to which one event of each task leads; as long as the other
    // events; and as long as keys.
    let led = ends.min(events);
    let closed = led * a.bytes_event + cases * (a.bytes_case + a.bytes_live);
    let (bare, seen) = ((events - led) * (a.bytes_event + BARE), events * a.bytes_seen);
    let bare_s = seconds(a.events.min(a.closed));
    Line {
        credentials,
        events,
        cases,
        effects_per_minute: cases * 60.0 / a.busy,
        rotate_all_s: credentials * a.calls_per_rotation / a.quota,
        memory: f64::from(processes) * a.process_mb * 1e6 + live,
        disk_a_day: (closed + bare + seen) * DAY,
        disk: live + closed * seconds(a.closed) + bare * bare_s + seen * seconds(a.seen),
        partitions: processes * a.partitions_per_process,
        processes,
        vaults: whole(cases / (measured.vault.per_second * a.busy)),
    }
}

/// The table for people.
pub fn table(lines: &[Line]) -> Table {
    let mut grid = Table::new();
    grid.load_style(presets::UTF8_FULL_CONDENSED);
    grid.set_header([
        "credentials",
        "events/s",
        "cases/s",
        "effects/min",
        "rotate all",
        "memory",
        "disk a day",
        "disk in all",
        "partitions",
        "processes",
        "Vaults",
    ]);
    for line in lines {
        grid.add_row([
            scaled(line.credentials, COUNTS),
            scaled(line.events, COUNTS),
            scaled(line.cases, COUNTS),
            scaled(line.effects_per_minute, COUNTS),
            span(line.rotate_all_s),
            scaled(line.memory, BYTES),
            scaled(line.disk_a_day, BYTES),
            scaled(line.disk, BYTES),
            line.partitions.to_string(),
            line.processes.to_string(),
            line.vaults.to_string(),
        ]);
    }
    grid
}

/// Two figures are all that such a reckoning is good for.
fn scaled(value: f64, units: &[&str]) -> String {
    let mut scale = (value, 0);
    while scale.0 >= 999.5 && scale.1 + 1 < units.len() {
        scale = (scale.0 / 1_000.0, scale.1 + 1);
    }
    format!("{}{}", two_figures(scale.0), units[scale.1])
}

fn two_figures(value: f64) -> String {
    if value >= 9.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn span(seconds: f64) -> String {
    let units = [(DAY, "d"), (3_600.0, "h"), (60.0, "min")];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= *unit).unwrap_or((1.0, "s"));
    format!("{} {name}", two_figures(seconds / unit))
}
