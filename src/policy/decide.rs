//! The decision itself. A [`Draft`] lays what an event changes over the view; what differs at the end are the changes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Change, Decision, Reason, Rules, Verb, View};
use crate::case::{Action, Directive, HoldReason, Trigger, Urgency};
use crate::credential::CredentialId;
use crate::event::{Data, Event, GrantRegistered, GrantReleased, GrantSpec, TaskEnded, TaskExtended, TaskStarted};
use crate::task::{Credential, Grant, GrantPhase, Phase, RunKey, Task, Tenure};

/// How many ids the facts name at most.
const FACT_IDS: usize = 8;
/// How many bytes of an id the facts quote at most.
const FACT_ID_BYTES: usize = 120;
/// A reconcile list may be this much older than the death that it does not know of yet.
const LIST_AGE_MS: i64 = 60_000;
/// How the outcome of a run begins that goes on under another key: what comes late for it belongs to that key.
const CONTINUED: &str = "continued_as ";

/// What to do about `event`.
pub fn decide(event: &Event, view: &View, rules: &Rules) -> Decision {
    let draft = Draft::new(event, view, rules);
    match &event.data {
        Data::TaskStarted(it) => draft.started(it),
        Data::TaskExtended(it) => draft.extended(it),
        Data::TaskHeartbeat(it) => draft.heartbeat(&it.run),
        Data::TaskEnded(it) => draft.ended(it),
        Data::GrantRegistered(it) => draft.registered(it),
        Data::GrantReleased(it) => draft.released(it),
        Data::FindingObserved(it) => draft.finding(it.honeytoken, it.credential.as_ref()),
        Data::FindingClosed(_) => draft.say(Verb::Track, Reason::FindingClosed),
        Data::DeadlinePassed { run, deadline_ms } => draft.deadline(run, *deadline_ms),
        Data::HeartbeatMissed { run, last_beat_ms } => draft.silent(run, *last_beat_ms),
        Data::ReconcileFound { credential, run, exclusive } => draft.found(credential, run.as_ref(), *exclusive),
        Data::OperatorRevoke { credential, .. } => draft.operator(credential),
    }
}

/// Why credentials are being cut.
#[derive(Clone, Copy)]
struct Blade {
    trigger: Trigger,
    urgency: Urgency,
    end_ms: Option<i64>,
}

struct Draft<'a> {
    event: &'a Event,
    view: &'a View,
    rules: &'a Rules,
    tasks: BTreeMap<RunKey, Task>,
    grants: BTreeMap<(RunKey, CredentialId), Grant>,
    credentials: BTreeMap<CredentialId, Credential>,
    directives: Vec<Directive>,
    cut: Vec<CredentialId>,
    released: Vec<CredentialId>,
    shared: BTreeMap<CredentialId, RunKey>,
    facts: Map<String, Value>,
}

impl<'a> Draft<'a> {
    fn new(event: &'a Event, view: &'a View, rules: &'a Rules) -> Self {
        Self {
            event,
            view,
            rules,
            tasks: BTreeMap::new(),
            grants: BTreeMap::new(),
            credentials: BTreeMap::new(),
            directives: Vec::new(),
            cut: Vec::new(),
            released: Vec::new(),
            shared: BTreeMap::new(),
            facts: Map::new(),
        }
    }

    // ---- what is known, with the draft laid over it ----

    fn task(&self, run: &RunKey) -> Option<&Task> {
        self.tasks.get(run).or_else(|| self.view.tasks.get(run))
    }

    fn grant(&self, run: &RunKey, credential: &CredentialId) -> Option<&Grant> {
        let key = (run.clone(), credential.clone());
        self.grants.get(&key).or_else(|| self.view.grants.get(&key))
    }

    fn put(&mut self, grant: Grant) {
        self.grants.insert((grant.run.clone(), grant.credential.clone()), grant);
    }

    fn held_by(&self, run: &RunKey) -> BTreeSet<CredentialId> {
        let drafted = self.grants.keys().filter(|(r, _)| r == run).map(|(_, c)| c);
        self.view.held.get(run).into_iter().flatten().chain(drafted).cloned().collect()
    }

    fn holders_of(&self, credential: &CredentialId) -> BTreeSet<RunKey> {
        let drafted = self.grants.keys().filter(|(_, c)| c == credential).map(|(r, _)| r);
        self.view.holders.get(credential).into_iter().flatten().chain(drafted).cloned().collect()
    }

    /// A holder whose task goes on. A grant without a known task counts as alive: absence is no evidence.
    fn live_holder(&self, credential: &CredentialId) -> Option<RunKey> {
        self.holders_of(credential).into_iter().find(|run| {
            self.grant(run, credential).is_some_and(|grant| grant.phase == GrantPhase::Held)
                && self.task(run).is_none_or(|task| task.phase != Phase::Ended)
        })
    }

    /// A holder with whose end the credential was to die, and that is over or gave it back.
    fn mortal_holder(&self, credential: &CredentialId) -> Option<RunKey> {
        self.mortal_holders(credential).next()
    }

    fn mortal_holders(&self, credential: &CredentialId) -> impl Iterator<Item = RunKey> {
        self.holders_of(credential).into_iter().filter(|run| {
            self.grant(run, credential).is_some_and(|grant| {
                grant.tenure != Tenure::Standing
                    && (grant.phase != GrantPhase::Held
                        || self.task(run).is_some_and(|task| task.phase == Phase::Ended))
            })
        })
    }

    /// Whether an open case is already killing it.
    fn is_dying(&self, credential: &CredentialId) -> bool {
        self.view
            .cases
            .get(credential)
            .is_some_and(|case| case.directive.action == Action::Revoke && case.directive.held.is_none())
    }

    // ---- tasks ----

    /// A task that is known only by hearsay. It has a deadline too: a grant whose start never comes dies with it.
    fn expect(&mut self, run: &RunKey) -> Task {
        if let Some(task) = self.task(run) {
            return task.clone();
        }
        let now_ms = self.event.broker_ms;
        let task = Task {
            tenant: self.event.tenant.clone(),
            run: run.clone(),
            source: self.event.source.clone(),
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
        };
        self.tasks.insert(run.clone(), task.clone());
        task
    }

    /// A grant for an attempt that has not started waits for it. After an end it gets a deadline of its own.
    fn await_attempt(&mut self, task: &Task, attempt: u32) {
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
                ..task.clone()
            }
        } else {
            Task { attempt, ..task.clone() }
        };
        self.tasks.insert(task.run.clone(), waiting);
    }

    /// After an end: grants for an attempt that has not started yet must not lie unwatched.
    fn watch_over_rest(&mut self, run: &RunKey) {
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

    fn longest_ms(&self) -> i64 {
        self.rules.longest_life_ms.max(0)
    }

    fn skew_ms(&self) -> i64 {
        self.rules.future_skew_ms.max(0)
    }

    /// The latest moment at which `task` may still live.
    fn limit_ms(&self, task: &Task) -> i64 {
        task.started_ms.unwrap_or(task.first_seen_ms).saturating_add(self.longest_ms())
    }

    /// Sets a deadline that somebody named, at most the limit.
    fn name_deadline(&mut self, task: &mut Task, named_ms: i64) {
        let limit_ms = self.limit_ms(task);
        task.deadline_ms = named_ms.min(limit_ms);
        task.clamped_from_ms = (named_ms > limit_ms).then_some(named_ms);
        if let Some(from_ms) = task.clamped_from_ms {
            self.facts.insert("clamped_from_ms".into(), from_ms.into());
        }
    }

    /// Whether somebody named the deadline; else it is the limit by default.
    fn is_named(&self, task: &Task) -> bool {
        task.clamped_from_ms.is_some() || task.deadline_ms != self.limit_ms(task)
    }

    /// What was named, before it was clamped.
    fn named_ms(&self, task: &Task) -> Option<i64> {
        self.is_named(task).then(|| task.clamped_from_ms.unwrap_or(task.deadline_ms))
    }

    /// When it started: what it says, where that lies between (broker time - longest life) and (broker time + skew). A
    /// start before that would be over as it arrives: a wrong clock must not become a revocation.
    fn start_ms(&mut self, named_ms: Option<i64>) -> i64 {
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
    fn end_ms(&mut self, task: &Task, named_ms: Option<i64>) -> i64 {
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

    // ---- grants ----

    /// Notes that `run` holds a credential. Returns whether that is news: a grant that was already cut is not.
    fn register(&mut self, run: &RunKey, attempt: u32, spec: &GrantSpec) -> bool {
        self.register_for(run, attempt, spec, &[self.event.at.topic.to_string()])
    }

    /// As [`Self::register`], on the word of `topics`.
    fn register_for(&mut self, run: &RunKey, attempt: u32, spec: &GrantSpec, topics: &[String]) -> bool {
        self.know(&spec.credential, spec.principal.as_deref(), spec.expires_ms);
        let known = self.grant(run, &spec.credential).cloned();
        let now_ms = self.event.broker_ms;
        let grant = match known {
            None => Grant {
                tenant: self.event.tenant.clone(),
                run: run.clone(),
                credential: spec.credential.clone(),
                attempt,
                tenure: spec.tenure,
                phase: GrantPhase::Held,
                registered_ms: now_ms,
                topics: topics.to_vec(),
            },
            Some(known) if known.phase == GrantPhase::Cut && attempt <= known.attempt => return false,
            Some(known) => Grant {
                attempt: attempt.max(known.attempt),
                // Once somebody said that it outlives the task, no other word of the same run makes it die with it.
                tenure: if known.tenure == Tenure::Standing { Tenure::Standing } else { spec.tenure },
                registered_ms: known.registered_ms.min(now_ms),
                phase: GrantPhase::Held,
                topics: union(&known.topics, topics),
                ..known
            },
        };
        self.put(grant);
        true
    }

    /// Notes a credential; what was known of it stays.
    fn know(&mut self, id: &CredentialId, principal: Option<&str>, expires_ms: Option<i64>) {
        let now_ms = self.event.broker_ms;
        let known = self.credentials.get(id).or_else(|| self.view.credentials.get(id)).cloned();
        let mut credential = known.unwrap_or_else(|| Credential {
            tenant: self.event.tenant.clone(),
            id: id.clone(),
            principal: None,
            registered_ms: now_ms,
            seen_ms: None,
            issued_ms: None,
            expires_ms: None,
            dead_ms: None,
        });
        credential.registered_ms = credential.registered_ms.min(now_ms);
        if credential.principal.is_none() {
            credential.principal = principal.map(str::to_owned);
        }
        if credential.expires_ms.is_none() {
            credential.expires_ms = expires_ms;
        }
        self.credentials.insert(id.clone(), credential);
    }

    /// Settles a grant that is over: cuts the credential, unless it stands by itself or a live task shares it.
    fn settle(&mut self, run: &RunKey, id: &CredentialId, blade: Blade) {
        let Some(mut grant) = self.grant(run, id).cloned() else { return };
        if grant.phase == GrantPhase::Cut {
            return;
        }
        grant.phase = GrantPhase::Released;
        self.put(grant.clone());
        if let Some(sharer) = self.live_holder(id) {
            self.shared.insert(id.clone(), sharer);
            return;
        }
        // Its own tenure, or that of somebody who ended before while this run shared it.
        if self.mortal_holder(id).is_none() {
            self.released.push(id.clone());
            return;
        }
        if grant.tenure != Tenure::Standing {
            grant.phase = GrantPhase::Cut;
            self.put(grant);
        }
        self.direct(id, Some(run), blade, Action::Revoke, None);
        self.cut.push(id.clone());
    }

    /// Settles every grant of `run` up to `attempt` that is still held.
    fn settle_all(&mut self, run: &RunKey, attempt: u32, blade: Blade) {
        for id in self.held_by(run) {
            let over = |grant: &Grant| grant.phase == GrantPhase::Held && grant.attempt <= attempt;
            if self.grant(run, &id).is_some_and(over) {
                self.settle(run, &id, blade);
            }
        }
    }

    /// What is registered for a run that may be over already. Returns whether it is.
    fn settle_late(&mut self, run: &RunKey, attempt: u32, ids: &[CredentialId]) -> bool {
        let Some(task) = self.task(run) else { return false };
        let newest_over = if task.phase == Phase::Ended { task.attempt } else { task.attempt.saturating_sub(1) };
        let over = attempt <= newest_over;
        let blade = Blade { trigger: Trigger::LateStart, urgency: Urgency::Prompt, end_ms: task.ended_ms };
        if over {
            for id in ids {
                // The same credential may have been granted to a newer attempt: then it is not over.
                if self.grant(run, id).is_some_and(|g| g.attempt <= newest_over && g.phase == GrantPhase::Held) {
                    self.settle(run, id, blade);
                }
            }
        }
        over
    }

    /// Where grants for `run` go that come after it went on under another key.
    fn successor(&self, run: &RunKey, attempt: u32) -> Option<RunKey> {
        let task = self.task(run)?;
        let next = task.outcome.as_deref()?.strip_prefix(CONTINUED)?;
        (task.phase == Phase::Ended && attempt <= task.attempt).then(|| RunKey(next.into()))
    }

    /// Gives `spec` to a successor; it is cut at once if that one is known to be over.
    fn hand_over(&mut self, next: &RunKey, spec: &GrantSpec, topics: &[String]) {
        let attempt = self.task(next).map_or(1, |task| task.attempt);
        if self.register_for(next, attempt, spec, topics) {
            self.settle_late(next, attempt, std::slice::from_ref(&spec.credential));
        }
    }

    fn direct(
        &mut self,
        id: &CredentialId,
        run: Option<&RunKey>,
        blade: Blade,
        action: Action,
        held: Option<HoldReason>,
    ) {
        if self.directives.iter().any(|directive| directive.credential == *id) {
            return;
        }
        self.know(id, None, None);
        let noticed = self.event.kind.is_own() && blade.trigger != Trigger::Operator;
        let grantors = if noticed { self.grantors_of(id) } else { Vec::new() };
        self.directives.push(Directive {
            credential: id.clone(),
            action,
            trigger: blade.trigger,
            urgency: blade.urgency,
            held,
            run: run.cloned(),
            end_ms: blade.end_ms,
            broker_ms: self.event.broker_ms,
            topic: self.event.at.topic.to_string(),
            grantors,
        });
    }

    /// Who said that it was to die with a task that is over: what Curfew notices is no more than their word.
    fn grantors_of(&self, credential: &CredentialId) -> Vec<String> {
        let over = self.mortal_holders(credential);
        over.fold(Vec::new(), |topics, run| match self.grant(&run, credential) {
            Some(grant) => union(&topics, &grant.topics),
            None => topics,
        })
    }

    // ---- the events ----

    fn started(mut self, it: &TaskStarted) -> Decision {
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
        task.identity = it.identity.clone().or(task.identity);
        if late {
            if attempt == task.attempt && task.started_ms.is_none() {
                task.started_ms = Some(self.start_ms(it.started_ms));
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

    fn extended(mut self, it: &TaskExtended) -> Decision {
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

    fn heartbeat(mut self, run: &RunKey) -> Decision {
        let mut task = self.expect(run);
        if task.phase == Phase::Ended {
            return self.say(Verb::Ignore, Reason::AlreadyEnded);
        }
        let now_ms = self.event.broker_ms;
        task.last_beat_ms = Some(task.last_beat_ms.map_or(now_ms, |last| last.max(now_ms)));
        self.tasks.insert(run.clone(), task);
        self.say(Verb::Track, Reason::Noted)
    }

    fn ended(mut self, it: &TaskEnded) -> Decision {
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
        let blade = Blade { trigger: Trigger::TaskEnd, urgency: Urgency::Prompt, end_ms: Some(end_ms) };
        self.settle_all(&it.run, attempt, blade);
        self.watch_over_rest(&it.run);
        if older {
            return self.say_cut(Verb::Track, Reason::OlderAttempt);
        }
        if again {
            return self.say_cut(Verb::Ignore, Reason::AlreadyEnded);
        }
        self.say_ended(Reason::TaskEnded)
    }

    /// Moves what `run` holds to `next`. Nothing is cut, unless `next` is over already.
    fn continue_as(&mut self, run: &RunKey, attempt: u32, next: &RunKey) {
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

    fn registered(mut self, it: &GrantRegistered) -> Decision {
        let task = self.expect(&it.run);
        let attempt = it.attempt.map_or(task.attempt, |attempt| attempt.max(1));
        if let Some(next) = self.successor(&it.run, attempt) {
            self.hand_over(&next, &it.grant, &[self.event.at.topic.to_string()]);
            return self.say_cut(Verb::Track, Reason::Continued);
        }
        if attempt > task.attempt && task.phase != Phase::Running {
            self.await_attempt(&task, attempt);
        }
        if !self.register(&it.run, attempt, &it.grant) {
            return self.say(Verb::Ignore, Reason::AlreadyEnded);
        }
        if self.settle_late(&it.run, attempt, std::slice::from_ref(&it.grant.credential)) {
            let ended = self.task(&it.run).is_some_and(|task| task.phase == Phase::Ended);
            return self.say_cut(Verb::Track, if ended { Reason::EndedBefore } else { Reason::OlderAttempt });
        }
        self.say(Verb::Track, Reason::Noted)
    }

    /// What its only holder gave back has no use any more: it dies now, if it was to die with the task. A release of
    /// what was never registered is only noted: should the registration come later, it dies with the task.
    fn released(mut self, it: &GrantReleased) -> Decision {
        let held = self.grant(&it.run, &it.credential).is_some_and(|grant| grant.phase == GrantPhase::Held);
        if !held {
            return self.say(Verb::Ignore, Reason::Noted);
        }
        let blade = Blade { trigger: Trigger::TaskEnd, urgency: Urgency::Prompt, end_ms: Some(self.event.broker_ms) };
        self.settle(&it.run, &it.credential, blade);
        let reason = if self.shared.is_empty() { Reason::Noted } else { Reason::SharedByLiveTask };
        self.say_cut(Verb::Track, reason)
    }

    fn finding(mut self, honeytoken: bool, credential: Option<&CredentialId>) -> Decision {
        if honeytoken {
            return self.say(Verb::Ignore, Reason::Honeytoken);
        }
        let Some(id) = credential.filter(|id| self.view.credentials.contains_key(*id)) else {
            return self.say(Verb::Track, Reason::FindingUnmatched);
        };
        let blade = Blade { trigger: Trigger::Finding, urgency: Urgency::Routine, end_ms: None };
        self.direct(id, None, blade, Action::Track, Some(HoldReason::Finding));
        self.say(Verb::Hold, Reason::FindingHeld)
    }

    fn deadline(self, run: &RunKey, deadline_ms: i64) -> Decision {
        let current = self.task(run).is_some_and(|task| {
            task.phase != Phase::Ended && task.deadline_ms == deadline_ms && deadline_ms <= self.event.broker_ms
        });
        if !current {
            return self.say(Verb::Ignore, Reason::Outdated);
        }
        self.lose(run, deadline_ms, Trigger::Deadline, Reason::DeadlinePassed)
    }

    fn silent(self, run: &RunKey, last_beat_ms: i64) -> Decision {
        let missed = self.rules.heartbeats_missed;
        let current = self.task(run).is_some_and(|task| {
            task.phase != Phase::Ended
                && last_sign_ms(task) == last_beat_ms
                && task.silent_at_ms(missed).is_some_and(|at| at <= self.event.broker_ms)
        });
        if !current {
            return self.say(Verb::Ignore, Reason::Outdated);
        }
        self.lose(run, last_beat_ms, Trigger::Heartbeat, Reason::Silent)
    }

    /// Ends a task whose end was lost.
    fn lose(mut self, run: &RunKey, end_ms: i64, trigger: Trigger, reason: Reason) -> Decision {
        let mut task = self.expect(run);
        task.phase = Phase::Ended;
        task.ended_ms = Some(end_ms);
        task.outcome = Some("lost".into());
        self.tasks.insert(run.clone(), task);
        self.facts.insert("ended_ms".into(), end_ms.into());
        // All of its attempts: what was granted for one that never started is over with the run.
        self.settle_all(run, u32::MAX, Blade { trigger, urgency: Urgency::Routine, end_ms: Some(end_ms) });
        self.say_ended(reason)
    }

    fn found(mut self, id: &CredentialId, run: Option<&RunKey>, exclusive: bool) -> Decision {
        let blade = |end_ms| Blade { trigger: Trigger::Reconcile, urgency: Urgency::Routine, end_ms };
        if self.is_dying(id) {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        if let Some(dead_ms) = self.view.credentials.get(id).and_then(|credential| credential.dead_ms) {
            if self.event.broker_ms.saturating_sub(dead_ms) <= LIST_AGE_MS {
                return self.say(Verb::Ignore, Reason::Expected);
            }
            self.facts.insert("alive_again".into(), true.into());
        }
        if self.live_holder(id).is_some() {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        if let Some(holder) = self.mortal_holder(id) {
            let end_ms = self.task(&holder).and_then(|task| task.ended_ms);
            if let Some(grant) = self.grant(&holder, id).cloned() {
                self.put(Grant { phase: GrantPhase::Cut, ..grant });
            }
            self.direct(id, Some(&holder), blade(end_ms), Action::Revoke, None);
            self.cut.push(id.clone());
            return self.say_cut(Verb::Revoke, Reason::Unexpected);
        }
        if !self.holders_of(id).is_empty() {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        if let Some(task) = run.and_then(|run| self.task(run)).cloned() {
            // The issuer's own metadata names the run: as good as a registration.
            let spec = GrantSpec { credential: id.clone(), tenure: Tenure::Minted, principal: None, expires_ms: None };
            self.register(&task.run, task.attempt, &spec);
            if task.phase == Phase::Ended {
                self.settle(&task.run, id, blade(task.ended_ms));
                return self.say_cut(Verb::Track, Reason::Unexpected);
            }
            return self.say(Verb::Track, Reason::Noted);
        }
        if exclusive {
            self.direct(id, run, blade(None), Action::Revoke, None);
            self.cut.push(id.clone());
            return self.say_cut(Verb::Revoke, Reason::Unregistered);
        }
        if self.view.cases.contains_key(id) {
            return self.say(Verb::Ignore, Reason::Unregistered);
        }
        self.direct(id, run, blade(None), Action::Revoke, Some(HoldReason::Unregistered));
        self.say(Verb::Hold, Reason::Unregistered)
    }

    fn operator(mut self, id: &CredentialId) -> Decision {
        let blade = Blade { trigger: Trigger::Operator, urgency: Urgency::Urgent, end_ms: None };
        if let Some(sharer) = self.live_holder(id) {
            self.shared.insert(id.clone(), sharer);
        }
        self.direct(id, None, blade, Action::Revoke, None);
        self.cut.push(id.clone());
        self.say(Verb::Revoke, Reason::Operator)
    }

    // ---- the answer ----

    /// `otherwise`, or `Revoke` where something was cut.
    fn say_cut(self, otherwise: Verb, reason: Reason) -> Decision {
        let verb = if self.cut.is_empty() { otherwise } else { Verb::Revoke };
        self.say(verb, reason)
    }

    /// An end: what it did decides the reason.
    fn say_ended(self, reason: Reason) -> Decision {
        if !self.cut.is_empty() {
            return self.say(Verb::Revoke, reason);
        }
        let reason = match (self.shared.is_empty(), reason) {
            (false, _) => Reason::SharedByLiveTask,
            (true, Reason::TaskEnded) => Reason::NothingHeld,
            (true, reason) => reason,
        };
        self.say(Verb::Track, reason)
    }

    fn say(mut self, verb: Verb, reason: Reason) -> Decision {
        let names = |ids: &[CredentialId]| -> Value {
            ids.iter().take(FACT_IDS).map(|id| Value::from(shorten(id.as_str()))).collect()
        };
        for (name, ids) in [("cut", &self.cut), ("released", &self.released)] {
            if !ids.is_empty() {
                // Two lists of ids at most have room in 2 KB: the shared ones name the runs, the released only count.
                let named = if name == "cut" { names(ids) } else { Value::Array(Vec::new()) };
                let entry = if name == "cut" { json!({"count": ids.len(), "first": named}) } else { ids.len().into() };
                self.facts.insert(name.into(), entry);
            }
        }
        if !self.shared.is_empty() {
            let by: BTreeSet<&RunKey> = self.shared.values().collect();
            let first: Vec<&str> = by.iter().take(FACT_IDS / 2).map(|run| shorten(run.as_str())).collect();
            self.facts.insert("shared".into(), json!({"count": self.shared.len(), "by": first}));
        }
        let view = self.view;
        let tasks = self.tasks.into_values().filter(|task| view.tasks.get(&task.run) != Some(task));
        let credentials = self.credentials.into_values().filter(|c| view.credentials.get(&c.id) != Some(c));
        let grants = self.grants.into_iter().filter(|(key, grant)| view.grants.get(key) != Some(grant));
        let changes = tasks
            .map(Change::Task)
            .chain(credentials.map(Change::Credential))
            .chain(grants.map(|(_, grant)| Change::Grant(grant)))
            .collect();
        Decision { verb, reason, facts: Value::Object(self.facts), changes, directives: self.directives }
    }
}

/// The last sign of life by which [`Task::silent_at_ms`] counts.
pub(crate) fn last_sign_ms(task: &Task) -> i64 {
    task.last_beat_ms.or(task.started_ms).unwrap_or(task.first_seen_ms)
}

/// All of `a`, and of `b` what is new.
fn union(a: &[String], b: &[String]) -> Vec<String> {
    let mut all = a.to_vec();
    all.extend(b.iter().filter(|one| !a.contains(one)).cloned());
    all
}

/// The beginning of a text, cut at a character.
fn shorten(text: &str) -> &str {
    let end = (0..=FACT_ID_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}
