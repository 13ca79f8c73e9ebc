//! Tasks: when they live, and what their events change.

use super::{Blade, CONTINUED, Draft, LOST};
use crate::case::{Trigger, Urgency};
use crate::credential::CredentialId;
use crate::event::{GrantSpec, TaskEnded, TaskExtended, TaskStarted};
use crate::policy::{Decision, Reason, Verb};
use crate::task::{Grant, GrantPhase, Phase, RunKey, Task};

impl Draft<'_> {
    /// A task that is known only by hearsay. It has a deadline too: a grant whose start never comes dies with it.
    pub(super) fn expect(&mut self, run: &RunKey) -> Task {
        if let Some(task) = self.task(run) {
            return task.clone();
        }
        let now_ms = self.event.broker_ms;
        let task = Task {
            tenant: self.event.tenant.clone(),
            run: run.clone(),
            source: self.event.source.clone(),
            within: None,
            name: None,
            identity: None,
            attempt: 1,
            phase: Phase::Expected,
            first_seen_ms: now_ms,
            started_ms: None,
            deadline_ms: now_ms.saturating_add(self.longest_ms()),
            clamped_from_ms: None,
            heartbeat_every_ms: None,
            last_beat_ms: None,
            ended_ms: None,
            outcome: None,
            unbound: false,
            boundary: None,
        };
        self.tasks.insert(run.clone(), task.clone());
        task
    }

    /// A grant for an attempt that has not started waits for it. After an end it gets a deadline of its own.
    pub(super) fn await_attempt(&mut self, task: &Task, attempt: u32) {
        let now_ms = self.event.broker_ms;
        let waiting = if task.phase == Phase::Ended {
            Task {
                attempt,
                phase: Phase::Expected,
                first_seen_ms: now_ms,
                started_ms: None,
                deadline_ms: now_ms.saturating_add(self.longest_ms()),
                clamped_from_ms: None,
                heartbeat_every_ms: None,
                last_beat_ms: None,
                ended_ms: None,
                outcome: None,
                unbound: false,
                boundary: None,
                ..task.clone()
            }
        } else {
            Task { attempt, ..task.clone() }
        };
        self.tasks.insert(task.run.clone(), waiting);
    }

    /// After an end: grants for an attempt that has not started yet must not lie unwatched.
    pub(super) fn watch_over_rest(&mut self, run: &RunKey) {
        let held = self.held_by(run);
        let grants = held.iter().filter_map(|id| self.grant(run, id));
        let next_attempt = grants.filter(|grant| grant.phase == GrantPhase::Held).map(|grant| grant.attempt).max();
        if let (Some(next), Some(task)) = (next_attempt, self.task(run).cloned())
            && task.phase == Phase::Ended
            && next > task.attempt
        {
            self.await_attempt(&task, next);
        }
    }

    pub(super) fn longest_ms(&self) -> i64 {
        self.rules.longest_life_ms.max(0)
    }

    pub(super) fn skew_ms(&self) -> i64 {
        self.rules.future_skew_ms.max(0)
    }

    /// The latest moment at which `task` may still live.
    pub(super) fn limit_ms(&self, task: &Task) -> i64 {
        task.started_ms.unwrap_or(task.first_seen_ms).saturating_add(self.longest_ms())
    }

    /// Sets a deadline that somebody named, at most the limit.
    pub(super) fn name_deadline(&mut self, task: &mut Task, named_ms: i64) {
        let limit_ms = self.limit_ms(task);
        task.deadline_ms = named_ms.min(limit_ms);
        task.clamped_from_ms = (named_ms > limit_ms).then_some(named_ms);
        if let Some(from_ms) = task.clamped_from_ms {
            self.facts.insert("clamped_from_ms".into(), from_ms.into());
        }
    }

    /// Whether somebody named the deadline; else it is the limit by default.
    pub(super) fn is_named(&self, task: &Task) -> bool {
        task.clamped_from_ms.is_some() || task.deadline_ms != self.limit_ms(task)
    }

    /// What was named, before it was clamped.
    pub(super) fn named_ms(&self, task: &Task) -> Option<i64> {
        self.is_named(task).then(|| task.clamped_from_ms.unwrap_or(task.deadline_ms))
    }

    /// When it started: what it says, where that lies between (broker time - longest life) and (broker time + skew). A
    /// start before that would be over as it arrives: a wrong clock must not become a revocation.
    pub(super) fn start_ms(&mut self, named_ms: Option<i64>) -> i64 {
        let now_ms = self.event.broker_ms;
        let Some(named_ms) = named_ms else { return now_ms };
        let sane = now_ms.saturating_sub(self.longest_ms())..=now_ms.saturating_add(self.skew_ms());
        if sane.contains(&named_ms) {
            return named_ms;
        }
        self.facts.insert("started_ms_ignored".into(), named_ms.into());
        now_ms
    }

    /// When it ended: what it says, where that is neither after now nor before its start, each give or take the skew.
    pub(super) fn end_ms(&mut self, task: &Task, named_ms: Option<i64>) -> i64 {
        let now_ms = self.event.broker_ms;
        let Some(named_ms) = named_ms else { return now_ms };
        let from_ms = task.started_ms.unwrap_or(now_ms.saturating_sub(self.longest_ms()));
        let sane = from_ms.saturating_sub(self.skew_ms())..=now_ms.saturating_add(self.skew_ms());
        if sane.contains(&named_ms) {
            return named_ms;
        }
        self.facts.insert("ended_ms_ignored".into(), named_ms.into());
        now_ms
    }

    pub(super) fn started(mut self, it: &TaskStarted) -> Decision {
        let attempt = it.attempt.max(1);
        let known = self.task(&it.run).cloned();
        let ids: Vec<CredentialId> = it.grants.iter().map(|grant| grant.credential.clone()).collect();
        if let Some(next) = self.successor(&it.run, attempt) {
            let topic = [self.event.at.topic.to_string()];
            for spec in &it.grants {
                self.hand_over(&next, spec, &topic);
            }
            return self.say_cut(Verb::Track, Reason::Continued);
        }
        // Over already: the end came before, or a newer attempt runs, which begins only after the older one.
        let late = known.as_ref().is_some_and(|task| match task.phase {
            Phase::Ended => attempt <= task.attempt,
            Phase::Running | Phase::Expected => attempt < task.attempt,
        });
        let mut task = self.expect(&it.run);
        task.name = it.task.clone().or(task.name);
        task.within = it.within.clone().filter(|whole| *whole != it.run).or(task.within);
        self.has_part(task.within.as_ref());
        task.identity = it.identity.clone().or(task.identity);
        if late {
            if attempt == task.attempt && task.started_ms.is_none() {
                task.started_ms = Some(self.start_ms(it.started_ms));
                task.deadline_ms = task.deadline_ms.min(self.limit_ms(&task));
            }
            let reason = if task.phase == Phase::Ended { Reason::EndedBefore } else { Reason::OlderAttempt };
            self.tasks.insert(it.run.clone(), task);
            for spec in &it.grants {
                self.register(&it.run, attempt, spec);
            }
            self.settle_late(&it.run, attempt, &ids);
            return self.say_cut(Verb::Track, reason);
        }
        let again = task.phase == Phase::Running && task.attempt == attempt;
        // An extension may have come before the start; one of an older attempt says nothing of this one.
        let says_nothing = task.phase == Phase::Ended || (task.phase == Phase::Running && task.attempt != attempt);
        let extended_ms = if says_nothing { None } else { self.named_ms(&task) };
        if !again {
            let fresh = task.phase == Phase::Ended || (task.phase == Phase::Running && attempt > task.attempt);
            if fresh {
                task.last_beat_ms = None;
                task.heartbeat_every_ms = None;
            }
            task.phase = Phase::Running;
            task.attempt = attempt;
            task.source = self.event.source.clone();
            task.started_ms = Some(self.start_ms(it.started_ms));
            task.ended_ms = None;
            task.outcome = None;
            task.unbound = false;
            task.boundary.clone_from(&it.boundary);
        }
        let base_ms = task.started_ms.unwrap_or(task.first_seen_ms);
        let named_ms = it.deadline_ms.filter(|named| *named > base_ms);
        if named_ms != it.deadline_ms {
            self.facts.insert("deadline_ms_ignored".into(), it.deadline_ms.into());
        }
        match (named_ms, extended_ms) {
            (None, None) => {
                task.deadline_ms = self.limit_ms(&task);
                task.clamped_from_ms = None;
            }
            (named, extended) => {
                let latest_ms = named.unwrap_or(i64::MIN).max(extended.unwrap_or(i64::MIN));
                self.name_deadline(&mut task, latest_ms);
            }
        }
        self.end_with_whole(&mut task);
        task.heartbeat_every_ms = it.heartbeat_every_ms.filter(|every| *every > 0).or(task.heartbeat_every_ms);
        task.last_beat_ms = Some(task.last_beat_ms.map_or(self.event.broker_ms, |l| l.max(self.event.broker_ms)));
        self.facts.insert("deadline_ms".into(), task.deadline_ms.into());
        self.tasks.insert(it.run.clone(), task);
        for spec in &it.grants {
            self.register(&it.run, attempt, spec);
        }
        self.facts.insert("grants".into(), it.grants.len().into());
        self.say(Verb::Track, Reason::Noted)
    }

    pub(super) fn extended(mut self, it: &TaskExtended) -> Decision {
        let mut task = self.expect(&it.run);
        if task.phase == Phase::Ended {
            return self.say(Verb::Ignore, Reason::AlreadyEnded);
        }
        // Never shorter than what was named before: extensions may overtake each other.
        let base_ms = task.started_ms.unwrap_or(i64::MIN);
        if it.deadline_ms > base_ms {
            let latest_ms = self.named_ms(&task).map_or(it.deadline_ms, |named| named.max(it.deadline_ms));
            self.name_deadline(&mut task, latest_ms);
        } else {
            self.facts.insert("deadline_ms_ignored".into(), it.deadline_ms.into());
        }
        self.facts.insert("deadline_ms".into(), task.deadline_ms.into());
        self.tasks.insert(it.run.clone(), task);
        self.say(Verb::Track, Reason::Noted)
    }

    pub(super) fn heartbeat(mut self, run: &RunKey) -> Decision {
        let mut task = self.expect(run);
        if task.phase == Phase::Ended {
            return self.say(Verb::Ignore, Reason::AlreadyEnded);
        }
        let now_ms = self.event.broker_ms;
        task.last_beat_ms = Some(task.last_beat_ms.map_or(now_ms, |last| last.max(now_ms)));
        self.tasks.insert(run.clone(), task);
        self.say(Verb::Track, Reason::Noted)
    }

    pub(super) fn ended(mut self, it: &TaskEnded) -> Decision {
        let attempt = it.attempt.max(1);
        let known = self.task(&it.run).cloned();
        let mut task = self.expect(&it.run);
        task.name = task.name.or_else(|| it.task.clone());
        task.identity = task.identity.or_else(|| it.identity.clone());
        let was_ended = task.phase == Phase::Ended;
        let older = !was_ended && attempt < task.attempt;
        let again = was_ended && attempt <= task.attempt;
        let late_successor = if again { self.successor(&it.run, attempt) } else { None };
        if !older && !again {
            if attempt > task.attempt && known.is_some() {
                // The start of this attempt never came: the older one's says nothing of it.
                task.started_ms = None;
                task.deadline_ms = task.deadline_ms.min(self.limit_ms(&task));
            }
            task.attempt = attempt;
            task.phase = Phase::Ended;
            task.ended_ms = Some(self.end_ms(&task, it.ended_ms));
            task.outcome = it.outcome.clone();
        }
        let next = it.continued_as.as_ref().filter(|next| **next != it.run && !again);
        if let (Some(next), false) = (next, older) {
            task.outcome = Some(format!("{CONTINUED}{next}"));
        }
        let end_ms =
            if older { self.end_ms(&task, it.ended_ms) } else { task.ended_ms.unwrap_or(self.event.broker_ms) };
        self.facts.insert("ended_ms".into(), end_ms.into());
        self.tasks.insert(it.run.clone(), task);
        if let Some(next) = late_successor {
            let topic = [self.event.at.topic.to_string()];
            for spec in &it.grants {
                self.hand_over(&next, spec, &topic);
            }
            return self.say_cut(Verb::Ignore, Reason::AlreadyEnded);
        }
        for spec in &it.grants {
            self.register(&it.run, attempt, spec);
        }
        if let Some(next) = next {
            self.continue_as(&it.run, attempt, next);
            self.watch_over_rest(&it.run);
            return self.say_cut(Verb::Track, Reason::Continued);
        }
        if !older && !again {
            self.end_parts(&it.run, end_ms);
        }
        let blade = Blade { trigger: Trigger::TaskEnd, urgency: Urgency::Prompt, end_ms: Some(end_ms) };
        self.settle_all(&it.run, attempt, blade);
        self.watch_over_rest(&it.run);
        if older {
            return self.say_cut(Verb::Track, Reason::OlderAttempt);
        }
        if again {
            return self.say_cut(Verb::Ignore, Reason::AlreadyEnded);
        }
        self.note_unbound(&it.run);
        self.say_ended(Reason::TaskEnded)
    }

    /// What is a part of `run` must be over by now: its own end may still come, and is lost where it does not.
    fn end_parts(&mut self, run: &RunKey, end_ms: i64) {
        let parts = self.view.parts.get(run).into_iter().flatten();
        let parts: Vec<Task> = parts.filter_map(|part| self.task(part)).cloned().collect();
        let mut over = 0;
        for mut part in parts {
            let before = part.deadline_ms;
            part.end_with(end_ms);
            if part.deadline_ms < before {
                over += 1;
                self.tasks.insert(part.run.clone(), part);
            }
        }
        if over > 0 {
            self.facts.insert("parts".into(), over.into());
        }
    }

    /// The whole may have ended before the start of its part is read. One that was lost, or goes on under another key,
    /// says nothing of its parts: they may live.
    fn end_with_whole(&self, task: &mut Task) {
        let whole = task.within.as_ref().and_then(|whole| self.task(whole));
        let says = |whole: &&Task| {
            let outcome = whole.outcome.as_deref().unwrap_or_default();
            whole.phase == Phase::Ended && outcome != LOST && !outcome.starts_with(CONTINUED)
        };
        if let Some(end_ms) = whole.filter(says).and_then(|whole| whole.ended_ms) {
            task.end_with(end_ms);
        }
    }

    /// What has parts holds nothing by itself: that nobody said what is no news of it.
    fn has_part(&mut self, whole: Option<&RunKey>) {
        if let Some(whole) = whole.and_then(|whole| self.task(whole)).filter(|whole| whole.unbound).cloned() {
            self.tasks.insert(whole.run.clone(), Task { unbound: false, ..whole });
        }
    }

    /// A run that is over, and of which nobody ever said what it held: not known is not nothing.
    pub(super) fn note_unbound(&mut self, run: &RunKey) {
        // As the run of a DAG: see `has_part`.
        let has_parts = self.view.parts.contains_key(run);
        if has_parts || !self.held_by(run).is_empty() || self.rules.holds_nothing(run) {
            return;
        }
        if let Some(task) = self.task(run).filter(|task| task.phase == Phase::Ended).cloned() {
            self.facts.insert("unbound".into(), true.into());
            self.tasks.insert(run.clone(), Task { unbound: true, ..task });
        }
    }

    /// Moves what `run` holds to `next`. Nothing is cut, unless `next` is over already.
    pub(super) fn continue_as(&mut self, run: &RunKey, attempt: u32, next: &RunKey) {
        self.expect(next);
        let mut moved = 0;
        for id in self.held_by(run) {
            let Some(grant) = self.grant(run, &id).cloned() else { continue };
            if grant.phase != GrantPhase::Held || grant.attempt > attempt {
                continue;
            }
            let spec = GrantSpec { credential: id, tenure: grant.tenure, principal: None, expires_ms: None };
            let topics = grant.topics.clone();
            self.put(Grant { phase: GrantPhase::Released, ..grant });
            self.hand_over(next, &spec, &topics);
            moved += 1;
        }
        self.facts.insert("moved".into(), moved.into());
    }
}
