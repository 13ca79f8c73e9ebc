//! Notices what no producer said: deadlines that passed, tasks that fell silent. Makes own events of them.
//!
//! Only what lies before the intake watermark counts: what is still in the topic may say otherwise. The limit of start +
//! longest life alone needs no watermark, since no event can move it.

pub mod round;
pub mod silence;
#[cfg(test)]
mod tests;
pub mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use self::round::Round;
pub use self::silence::{Judged, Limits, Silent, Speaker, Voice, judge_silence};
pub use self::trust::ClockTrust;
use crate::event::{Coordinates, Data, Event, Type, digest16};
use crate::intake::Intake;
use crate::journal::{self, DueAt, Error, Fate, Topics};
use crate::metrics::Alarm;
use crate::policy::Rules;
use crate::policy::decide::last_sign_ms;
use crate::task::{Task, Tenant};

/// When deadlines and silence are looked for, and how much of them is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How often to look.
    pub every_ms: u64,
    /// How far behind the watermark.
    pub grace_ms: i64,
    /// Own events in one transaction. Each opens a case, and the effects of those before wait for it: few.
    pub batch: usize,
    /// At most this many due tasks are looked at in one tick; the next one goes on behind them.
    pub scan: usize,
    /// How often the sources' newest signs of life are read.
    pub sample_ms: i64,
    /// More silent tasks of one source at once are held.
    pub silent_max: u64,
    /// A larger share of a source's tasks, in percent, is held.
    pub silent_percent: u64,
    /// Up to this many, the share does not count.
    pub silent_min: u64,
    /// Events come through Kafka: nothing fires before a watermark is known.
    pub kafka: bool,
    /// The topics that they come through; `None`: all that were ever read.
    pub topics: Option<Topics>,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            every_ms: 250,
            grace_ms: 2_000,
            batch: 100,
            scan: 10_000,
            sample_ms: 1_000,
            silent_max: limits.max_count,
            silent_percent: limits.max_percent,
            silent_min: limits.min_count,
            kafka: true,
            topics: None,
        }
    }
}

/// What a tick did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Deadlines that were noticed.
    pub deadlines: u64,
    /// Tasks that count as lost for their silence.
    pub silent: u64,
    /// Silent tasks that are held, as last judged.
    pub held: u64,
    /// Due tasks that were looked at.
    pub looked: u64,
    /// The wall clock is not believed: nothing was looked for.
    pub clock_doubted: bool,
}

/// The one that looks.
pub struct Deadlines {
    intake: Intake,
    settings: Settings,
    trust: Arc<ClockTrust>,
    voices: BTreeMap<Speaker, Voice>,
    live: BTreeMap<Speaker, u64>,
    sampled_ms: Option<i64>,
    round: Round,
    /// The furthest that was ever looked at.
    front: Option<DueAt>,
    /// How many the last judgement held.
    held: u64,
    mass: bool,
    clock_doubted: bool,
    /// The topic that was last said to be unread.
    unread: Option<String>,
}

impl Deadlines {
    /// Looks through `intake`'s journal; `trust` is shared with the guard.
    pub fn new(intake: Intake, settings: Settings, trust: Arc<ClockTrust>) -> Self {
        Self {
            intake,
            settings,
            trust,
            voices: BTreeMap::new(),
            live: BTreeMap::new(),
            sampled_ms: None,
            round: Round::default(),
            front: None,
            held: 0,
            mass: false,
            clock_doubted: false,
            unread: None,
        }
    }

    /// Looks again and again until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let every = Duration::from_millis(self.settings.every_ms.max(1));
        while !cancel.is_cancelled() {
            if let Err(error) = self.tick().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "deadlines could not be looked for");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
        // Whoever looks from now on says it.
        self.intake.metrics.unread_topic(None);
        self.intake.metrics.silence_held(0);
    }

    /// Looks once: goes on with the pass over what is due, and judges the silent ones when it has come to its end.
    ///
    /// # Errors
    /// As the journal's: what was noticed before stands, the rest is noticed again.
    pub async fn tick(&mut self) -> Result<Ticked, Error> {
        let mut ticked = Ticked::default();
        if !self.trust.check() {
            // A deadline by a wrong clock would end a task that lives: it is not even noticed.
            if !self.clock_doubted {
                self.intake.metrics.alarm(Alarm::Clock);
            }
            self.clock_doubted = true;
            ticked.clock_doubted = true;
            return Ok(ticked);
        }
        self.clock_doubted = false;
        let now_ms = self.intake.clock.wall_ms();
        let reach = self.reach(now_ms).await?;
        self.sample(now_ms, &reach).await?;

        let done = self.walk(&reach, now_ms, &mut ticked).await?;
        if done {
            let round = std::mem::take(&mut self.round);
            self.judge(round, &reach, now_ms, &mut ticked).await?;
        } else {
            self.walk_on_newest(&reach, now_ms, &mut ticked).await?;
        }
        ticked.held = self.held;
        Ok(ticked)
    }

    /// Goes on with the pass over what is due, by at most `scan` tasks. Returns whether it came to its end.
    async fn walk(&mut self, reach: &Reach, now_ms: i64, ticked: &mut Ticked) -> Result<bool, Error> {
        let mut left = self.settings.scan.max(1);
        while left > 0 {
            let max = left.min(self.settings.batch.max(1));
            let due = self.page(self.round.after.clone(), max, reach).await?;
            let (last, full) = (due.last().map(|due| due.at.clone()), due.len() >= max);
            left -= due.len().min(left);
            ticked.looked += due.len() as u64;
            self.fire(&due, reach, now_ms, ticked).await?;
            for task in due.into_iter().map(|due| due.task) {
                if reach.of(&task, &self.intake.rules) == Due::Silent {
                    self.round.note(silent(&task), self.settings.silent_max.saturating_add(1));
                }
            }
            if last.is_some() {
                self.front = self.front.take().max(last.clone());
                self.round.after = last;
            }
            if !full {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What fell due since it was last looked. However many are held before it, a deadline fires at once.
    async fn walk_on_newest(&mut self, reach: &Reach, now_ms: i64, ticked: &mut Ticked) -> Result<(), Error> {
        let mut left = self.settings.scan.max(1);
        while left > 0 {
            let max = left.min(self.settings.batch.max(1));
            let due = self.page(self.front.clone(), max, reach).await?;
            ticked.looked += due.len() as u64;
            self.fire(&due, reach, now_ms, ticked).await?;
            let Some(last) = due.last() else { break };
            self.front = Some(last.at.clone());
            left -= due.len().min(left);
        }
        Ok(())
    }

    async fn page(&self, after: Option<DueAt>, max: usize, reach: &Reach) -> Result<Vec<journal::Due>, Error> {
        let missed = self.intake.rules.heartbeats_missed;
        self.intake.journal.due(reach.limit_ms, missed, after, max).await
    }

    /// Notices the deadlines among `due` that have passed.
    async fn fire(&self, due: &[journal::Due], reach: &Reach, now_ms: i64, ticked: &mut Ticked) -> Result<(), Error> {
        let passed = due.iter().filter(|due| reach.of(&due.task, &self.intake.rules) == Due::Deadline);
        let events: Vec<Event> = passed.map(|due| deadline_passed(&due.task, now_ms)).collect();
        if !events.is_empty() {
            let recorded = self.intake.notice(events).await?;
            ticked.deadlines += recorded.fates.iter().filter(|fate| **fate == Fate::Accepted).count() as u64;
        }
        Ok(())
    }

    /// What is done about those whom a whole pass found silent.
    async fn judge(&mut self, round: Round, reach: &Reach, now_ms: i64, ticked: &mut Ticked) -> Result<(), Error> {
        let limits = Limits {
            missed: self.intake.rules.heartbeats_missed,
            max_count: self.settings.silent_max,
            max_percent: self.settings.silent_percent,
            min_count: self.settings.silent_min,
        };
        let judged = match reach.before_ms {
            Some(before_ms) => judge_silence(&round.silent, &self.live, &mut self.voices, before_ms, &limits),
            None => Judged::default(),
        };
        ticked.silent = judged.act.len() as u64;
        for chunk in judged.act.chunks(self.settings.batch.max(1)) {
            let lost = || chunk.iter().map(|i| &round.silent[*i]);
            self.intake.notice(lost().map(|task| heartbeat_missed(task, now_ms)).collect()).await?;
            if let Some(before_ms) = reach.before_ms {
                silence::acted(lost(), &mut self.voices, before_ms);
            }
        }
        self.held = judged.held.saturating_add(round.more);
        self.intake.metrics.silence_held(i64::try_from(self.held).unwrap_or(i64::MAX));
        if judged.mass && !self.mass {
            self.intake.metrics.alarm(Alarm::MassSilence);
        }
        self.mass = judged.mass;
        Ok(())
    }

    async fn reach(&mut self, now_ms: i64) -> Result<Reach, Error> {
        let seen_ms = if self.settings.kafka { self.seen_ms().await? } else { Some(now_ms) };
        let grace_ms = self.settings.grace_ms.max(0);
        Ok(Reach {
            before_ms: seen_ms.map(|seen| seen.min(now_ms).saturating_sub(grace_ms)),
            limit_ms: now_ms.saturating_sub(grace_ms),
        })
    }

    /// Up to when everything that was said is known.
    async fn seen_ms(&mut self) -> Result<Option<i64>, Error> {
        let topics = self.settings.topics.as_ref();
        let watermark = self.intake.journal.watermark().await?;
        let unread = watermark.unread(topics).map(str::to_owned);
        if let Some(topic) = unread.as_deref().filter(|topic| self.unread.as_deref() != Some(*topic)) {
            tracing::warn!(topic, "a topic was never read: until it is, no deadline but the longest life is noticed");
        }
        let seen_ms = watermark.of(topics);
        if self.unread != unread {
            self.intake.metrics.unread_topic(unread.as_deref());
            self.unread = unread;
        }
        Ok(seen_ms)
    }

    /// Listens to the sources: their quiet periods are what judges a silence.
    async fn sample(&mut self, now_ms: i64, reach: &Reach) -> Result<(), Error> {
        let due = self.sampled_ms.is_none_or(|at| now_ms.saturating_sub(at) >= self.settings.sample_ms);
        if !due {
            return Ok(());
        }
        self.sampled_ms = Some(now_ms);
        let sources = self.intake.journal.sources().await?;
        let speaker = |source: &journal::Source| (source.tenant.clone(), source.source.clone());
        self.live = sources.iter().map(|source| (speaker(source), source.live)).collect();
        self.voices.retain(|speaker, _| self.live.contains_key(speaker));
        let oldest_ms = reach.limit_ms.saturating_sub(self.intake.rules.longest_life_ms.max(0));
        for source in sources {
            match self.voices.get_mut(&speaker(&source)) {
                Some(voice) => {
                    voice.hear(source.last_beat_ms);
                    voice.forget(oldest_ms);
                }
                None => drop(self.voices.insert(speaker(&source), Voice::first(source.last_beat_ms))),
            }
        }
        Ok(())
    }
}

/// How far it may be looked.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// Before this everything that was said is known; `None`: nothing is.
    before_ms: Option<i64>,
    /// Before this the longest life is over, whatever was said.
    limit_ms: i64,
}

/// What is due of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Deadline,
    Silent,
    NotYet,
}

impl Reach {
    fn of(&self, task: &Task, rules: &Rules) -> Due {
        let base_ms = task.started_ms.unwrap_or(task.first_seen_ms);
        let at_limit =
            task.started_ms.is_some() && task.deadline_ms >= base_ms.saturating_add(rules.longest_life_ms.max(0));
        let known = |at_ms: i64| self.before_ms.is_some_and(|before| at_ms < before);
        if known(task.deadline_ms) || (at_limit && task.deadline_ms < self.limit_ms) {
            return Due::Deadline;
        }
        if task.silent_at_ms(rules.heartbeats_missed).is_some_and(known) {
            return Due::Silent;
        }
        Due::NotYet
    }
}

fn silent(task: &Task) -> Silent {
    Silent {
        run: task.run.clone(),
        speaker: (task.tenant.clone(), task.source.clone()),
        last_ms: last_sign_ms(task),
        every_ms: task.heartbeat_every_ms.unwrap_or(i64::MAX),
    }
}

fn deadline_passed(task: &Task, now_ms: i64) -> Event {
    let data = Data::DeadlinePassed { run: task.run.clone(), deadline_ms: task.deadline_ms };
    own(&task.tenant, Type::DeadlinePassed, format!("{}:{}", task.run, task.deadline_ms), data, now_ms)
}

fn heartbeat_missed(silent: &Silent, now_ms: i64) -> Event {
    let id = format!("{}:silent:{}", silent.run, silent.last_ms);
    let data = Data::HeartbeatMissed { run: silent.run.clone(), last_beat_ms: silent.last_ms };
    own(&silent.speaker.0, Type::HeartbeatMissed, id, data, now_ms)
}

/// An event of Curfew's own. Its id is made of what fired, so that noticing it twice is a duplicate.
fn own(tenant: &Tenant, kind: Type, id: String, data: Data, now_ms: i64) -> Event {
    Event {
        at: Coordinates { cluster: "curfew".into(), topic: "curfew".into(), partition: -1, offset: -1 },
        tenant: tenant.clone(),
        source: "/curfew/deadlines".into(),
        digest: digest16(&[id.as_bytes()]),
        id,
        kind,
        broker_ms: now_ms,
        traceparent: None,
        data,
    }
}
