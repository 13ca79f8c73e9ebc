//! One claimed case: what comes next, until it waits or ends.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::breaker::Breakers;
use super::calls::Calls;
use super::{MARGIN_MS, Parts};
use crate::case::plan::{self, Act, Step};
use crate::case::record::{Answer, FailureKind, Observation, Presence, Record, Residue, Sighting, Verdict};
use crate::case::state::{Illegal, Phase, State, Todo};
use crate::case::{Action, Case, Directive, HoldReason, Trigger};
use crate::connector::recipe::Late;
use crate::connector::{self, Connector, Failure, Gate, NoPlan, Rescope, Subject};
use crate::guard::{self, Authority, Facts, Mode};
use crate::journal::{Append, Claim, Error};
use crate::metrics::Alarm;
use crate::probe::{self, Judgement};
use crate::reach::kept::{self, TaskLives};
use crate::reach::long_lived;
use crate::reach::notice::{Sort, TOPIC};
use crate::reach::uses::apply::{self, Apply};
use crate::{event, outcome, retry};

/// Late successes in one series after which the plan is made again.
const REFUTED: u32 = 3;
/// How long the guard's word holds while an effect waits for its place: a freeze stops within a second.
const WORD_MS: i64 = 200;
/// When a case comes back that found no place among the calls at its system.
const FULL_MS: i64 = 500;
const MINUTE_MS: i64 = 60_000;
/// How many times rarer than the guard a credential is looked at that is only observed.
const LOOK_AGAIN: i64 = 5;
/// How often all tasks are read again for how long they live, where that did not say enough.
const LIVES_MS: i64 = 60_000;
/// So old may it be what was read of them for another case: less than any margin.
const LIVES_OLD_MS: i64 = 10_000;
/// How many times rarer than the guard a log of use is asked that does not say yet: each asking goes through all of it.
const LOG_AGAIN: i64 = 30;
/// How often a webhook is called in vain before the rotation goes on without it.
const CALLS: u32 = 3;
/// How often what a credential's holder may have become is looked at in vain before the case goes on without it.
const LOOKS: u32 = 3;
/// How long our own access is left alone after it was denied.
const DENIED_MS: i64 = 5_000;
/// Where cases rest that only a person or an event moves.
const REST_MS: i64 = 24 * 3_600_000;

/// Works on `claim` until it waits, ends, or `cancel` finds it at a record boundary. Returns whether the journal took it.
pub(super) async fn work(
    parts: &Parts,
    breakers: &Breakers,
    calls: &Calls,
    lives: &TaskLives,
    claim: Claim,
    cancel: &CancellationToken,
) -> bool {
    let span = info_span!(
        "case",
        case.id = %claim.case.id,
        credential.id = %claim.case.directive.credential,
        trigger = claim.case.directive.trigger.as_str(),
        traceparent = claim.case.traceparent.as_deref(),
    );
    let (pending, messages) = (Vec::new(), Vec::new());
    let mut work = Work { parts, breakers, calls, lives, claim, pending, learned: None, messages, held: None };
    async {
        match work.walk(cancel).await {
            Ok(()) => {}
            Err(Stop::Journal(Error::ClaimVoid)) => debug!("the case went on without this claim"),
            Err(Stop::Journal(error)) => {
                warn!(%error, "the case waits for the journal; nothing more happens to it");
                return false;
            }
            Err(Stop::Illegal(illegal)) => error!(%illegal, "a bug: this record cannot follow; the case rests"),
        }
        true
    }
    .instrument(span)
    .await
}

/// Why a walk ended early.
enum Stop {
    Journal(Error),
    Illegal(Illegal),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Journal(error)
    }
}

impl From<Illegal> for Stop {
    fn from(illegal: Illegal) -> Self {
        Self::Illegal(illegal)
    }
}

/// Whether the walk goes on.
enum Next {
    Go,
    Wait,
}

struct Work<'a> {
    parts: &'a Parts,
    breakers: &'a Breakers,
    calls: &'a Calls,
    lives: &'a TaskLives,
    claim: Claim,
    /// Records that are not durable yet; the claim's case already holds their fold.
    pending: Vec<Record>,
    learned: Option<Observation>,
    messages: Vec<outcome::Message>,
    /// The hold that this walk tries to leave, and the state in it; nothing has become durable since.
    held: Option<(HoldReason, State)>,
}

impl Work<'_> {
    async fn walk(&mut self, cancel: &CancellationToken) -> Result<(), Stop> {
        loop {
            if cancel.is_cancelled() {
                return self.wait(self.now()).await;
            }
            let next = match self.case().state.todo() {
                Todo::Rest => {
                    self.wait(self.now() + REST_MS).await?;
                    Next::Wait
                }
                Todo::Plan => self.plan().await?,
                Todo::Observe(step) => self.observe(step).await?,
                Todo::Skip(step) => {
                    self.push(Record::Skipped { step, residue: None })?;
                    Next::Go
                }
                Todo::Perform(step) => self.perform(step).await?,
                Todo::Pass(step) => self.pass(step).await?,
                Todo::Prove(step) => self.prove(step).await?,
                Todo::Close => self.end().await?,
                Todo::Park => {
                    let case = self.case();
                    let (reason, alarm) = if case.directive.action == Action::Reduce {
                        (HoldReason::Differs, Alarm::Differs)
                    } else if case.state.turn.unhealthy {
                        (HoldReason::Unhealthy, Alarm::Unhealthy)
                    } else {
                        (HoldReason::CandidateRejected, Alarm::CandidateRejected)
                    };
                    self.parts.metrics.alarm(alarm);
                    self.hold(reason).await?
                }
                Todo::Recheck(reason) => self.recheck(reason).await?,
            };
            if matches!(next, Next::Wait) {
                return Ok(());
            }
        }
    }

    async fn plan(&mut self) -> Result<Next, Stop> {
        let case = self.case();
        match self.parts.registry.plan(case) {
            Ok(plan) => {
                if self.parts.registry.disowns(case) {
                    warn!("the user that a producer named is none of `lease_users`: only the issuer is asked");
                }
                let no = case.state.plan_no + 1;
                self.push(Record::Planned { no, plan })?;
                Ok(Next::Go)
            }
            Err(NoPlan::Unserved) => self.hold(HoldReason::Unserved).await,
            Err(NoPlan::NoRecipe) => self.hold(HoldReason::NoRecipe).await,
        }
    }

    async fn observe(&mut self, index: usize) -> Result<Next, Stop> {
        let Some((step, connector)) = self.connector(index) else { return self.hold(HoldReason::Unserved).await };
        let subject = self.subject(&step, None);
        let Some(place) = self.place(&step).await else { return self.later().await };
        let started = self.parts.clock.monotonic_ms();
        let answer = within(connector.as_ref(), connector.observe(&subject)).await;
        drop(place);
        self.measured(&step, answer.as_ref().err(), started);
        match answer {
            Ok(seen) => {
                self.breakers.answered(&step.system);
                if index == 0 {
                    self.learned = Some(seen.clone());
                }
                self.push(Record::Observed { step: index, seen })?;
                self.mind_generation()?;
                Ok(Next::Go)
            }
            Err(failure) => self.failed(index, &step, connector.as_ref(), failure).await,
        }
    }

    /// P6: a directive about a value that is not current any more rotates nothing. What became of that value is looked at.
    fn mind_generation(&mut self) -> Result<(), Illegal> {
        let case = self.case();
        let (turn, directive) = (&case.state.turn, &case.directive);
        if let (Some(meant), Some(current)) = (directive.generation, &turn.old)
            && directive.action.rotates()
            && turn.new.is_none()
            // What was begun is brought to its end: until then the target's value is not the one that consumers read.
            && !turn.is_set
            && current.version > meant
        {
            let by = Directive { action: Action::Verify, ..directive.clone() };
            self.push(Record::Superseded { by: by.clone() })?;
            self.claim.case.directive = by;
        }
        Ok(())
    }

    /// Asks at a gate.
    async fn pass(&mut self, index: usize) -> Result<Next, Stop> {
        let Some((step, connector)) = self.connector(index) else { return self.hold(HoldReason::Unserved).await };
        let subject = self.subject(&step, None);
        let told = subject.rotation.as_ref().filter(|_| step.act == Act::Adopt);
        let answer = match told.and_then(|rotation| rotation.told(self.now())) {
            Some(gate) => Ok(gate),
            None => {
                let Some(place) = self.place(&step).await else { return self.later().await };
                let started = self.parts.clock.monotonic_ms();
                let answer = within(connector.as_ref(), connector.pass(step.act, &subject)).await;
                drop(place);
                self.measured(&step, answer.as_ref().err(), started);
                if answer.is_ok() {
                    self.breakers.answered(&step.system);
                }
                answer
            }
        };
        match answer {
            Ok(gate @ (Gate::Open | Gate::Cut { .. })) => {
                let cut_ms = if let Gate::Cut { ms } = gate { Some(ms) } else { None };
                self.push(Record::Passed { step: index, cut_ms })?;
                Ok(Next::Go)
            }
            Ok(Gate::Shut { again_ms }) => self.wait_then(again_ms.max(self.now() + 1)).await,
            Ok(Gate::Late) => {
                self.parts.metrics.alarm(Alarm::NotAdopted);
                if subject.rotation.is_none_or(|rotation| rotation.recipe.adoption.late == Late::Hold) {
                    return self.hold(HoldReason::NotAdopted).await;
                }
                self.push(Record::Skipped { step: index, residue: Some(Residue::NotAdopted) })?;
                Ok(Next::Go)
            }
            Err(failure) => self.failed(index, &step, connector.as_ref(), failure).await,
        }
    }

    async fn perform(&mut self, index: usize) -> Result<Next, Stop> {
        if self.is_baseless(index) {
            return self.plan().await;
        }
        if let Err(reason) = self.guard().await? {
            if reason == HoldReason::Observe {
                self.look_ahead(index).await?;
            }
            return self.hold(reason).await;
        }
        if let Some(next) = self.mind_use().await? {
            return Ok(next);
        }
        let Some((step, connector)) = self.connector(index) else { return self.hold(HoldReason::Unserved).await };
        if !self.calls.turn(&step.system).await {
            return self.later().await;
        }
        if !self.outlasts(connector.as_ref()) {
            // Too little left of the claim: another claim takes it from here.
            return self.wait_then(self.now()).await;
        }
        let case = self.case();
        let attempt = case.state.attempts + 1;
        let key = plan::step_key(case.id, case.state.plan_no, index, case.state.turn.rejected + 1);
        let charge = if case.charged { None } else { self.parts.settings.effects_per_minute };
        let before = (case.state.clone(), self.pending.len());
        self.push(Record::Started { step: index, key, attempt })?;
        match self.flush(self.now(), true, charge).await {
            Err(Stop::Journal(Error::CapReached)) => {
                self.claim.case.state = before.0;
                self.pending.truncate(before.1);
                return self.hold(HoldReason::Cap).await;
            }
            other => other?,
        }
        let waits = self.parts.clock.monotonic_ms();
        let place = self.calls.place(&step.system).await;
        let started = self.parts.clock.monotonic_ms();
        // The commit and the place took their time. What was recorded as started and is not is in doubt: the next claim
        // looks first.
        if place.is_none() || !self.outlasts(connector.as_ref()) {
            return self.later().await;
        }
        if started - waits > WORD_MS
            && let Err(reason) = self.guard().await?
        {
            return self.hold(reason).await;
        }
        let subject = self.subject(&step, Some(key));
        let answer = within(connector.as_ref(), connector.perform(step.act, &subject)).await;
        drop(place);
        self.measured(&step, answer.as_ref().err(), started);
        match answer {
            Ok(mut output) => {
                self.breakers.answered(&step.system);
                if step.act.replaces() {
                    output.done_ms = Some(self.now());
                    let case = self.case();
                    let rotation = subject.rotation.as_ref();
                    let what = (step.act, step.agent.as_ref());
                    let message = outcome::rotated(case, what, &output, rotation.map(|one| &*one.recipe), self.now());
                    self.messages.push(message);
                }
                if let Some(copy) = subject.rotation.as_ref().and_then(|rotation| rotation.copy.as_ref()) {
                    self.messages.push(outcome::copied(self.case(), &output, copy, self.now()));
                }
                if step.act == Act::Destroy && step.agent.is_some() {
                    output.done_ms = Some(self.now());
                }
                self.push(Record::Succeeded { step: index, output })?;
                self.say_derived(&step);
                Ok(Next::Go)
            }
            Err(failure) if failure.kind == FailureKind::Gone && step.act.wants_gone() => {
                self.push(Record::Succeeded { step: index, output: Default::default() })?;
                Ok(Next::Go)
            }
            Err(failure) => self.failed(index, &step, connector.as_ref(), failure).await,
        }
    }

    /// Whether a step is at what a lease opens, which its issuer does not know and never did: anybody could have been named.
    fn is_baseless(&self, index: usize) -> bool {
        let case = self.case();
        let target = self.parts.registry.target(&case.directive.credential, case.principal.as_deref());
        let step = case.state.plan.as_ref().and_then(|plan| plan.steps.get(index));
        let there =
            target.zip(step).is_some_and(|(at, step)| at.name() == step.connector && at.system() == step.system);
        there && case.is_invented()
    }

    /// What rests on "nobody used it", or on how long tasks live, is asked of once more before anything is done: from the journal
    /// alone.
    async fn mind_use(&mut self) -> Result<Option<Next>, Stop> {
        let (case, now, settings) = (self.case(), self.now(), &self.parts.settings);
        if case.state.begun || case.state.acted {
            return Ok(None);
        }
        let (apply, again_ms) = match apply::rests_on(&case.directive) {
            None => return Ok(None),
            Some(Sort::LongLived) => {
                let journal = self.parts.journal.as_ref();
                let tally = self.lives.read(journal, &settings.terms, now, LIVES_OLD_MS).await?;
                (long_lived::apply(case, &tally, &settings.terms), LIVES_MS.max(settings.recheck_ms))
            }
            Some(_) => {
                let uses = kept::uses(self.parts.journal.reach()).await?;
                (apply::apply(case, &uses, now), LOG_AGAIN * settings.recheck_ms)
            }
        };
        let by = TOPIC.to_owned();
        match apply {
            Apply::Go => return Ok(None),
            Apply::Spare(permissions) => {
                info!(count = permissions.len(), "used, or outgrown, since it was found: these stay");
                self.push(Record::Spared { permissions, by })?;
            }
            Apply::Withdraw => self.push(Record::Withdrawn { by })?,
            Apply::Wait => {
                info!("what it rests on is not known now: nothing is done until it is");
                return Ok(Some(self.wait_then(now + again_ms).await?));
            }
        }
        Ok(Some(Next::Go))
    }

    /// Where nothing may be done: what it would have reached is looked at all the same, once for each plan. What cannot be
    /// looked at is not known.
    async fn look_ahead(&mut self, from: usize) -> Result<(), Stop> {
        let steps = self.case().state.plan.as_ref().map_or(0, |plan| plan.steps.len());
        for index in from..steps {
            let Some((step, connector)) = self.connector(index) else { continue };
            let known = self.case().state.observed.iter().any(|(looked, _)| *looked == index);
            if step.act != Act::Observe || !step.optional || known {
                continue;
            }
            let Some(place) = self.place(&step).await else { return Ok(()) };
            let started = self.parts.clock.monotonic_ms();
            let answer = within(connector.as_ref(), connector.observe(&self.subject(&step, None))).await;
            drop(place);
            self.measured(&step, answer.as_ref().err(), started);
            match answer {
                Ok(seen) => self.push(Record::Observed { step: index, seen })?,
                Err(failure) => {
                    info!(step = step.act.as_str(), system = step.system, note = failure.note, "not looked at")
                }
            }
        }
        Ok(())
    }

    /// A role's sessions are denied: those of others as well, and that is said.
    fn say_derived(&self, step: &Step) {
        let role = step.place.as_deref().filter(|_| step.act == Act::RevokeDerived);
        let known = self.case().state.derived.as_ref().zip(role).and_then(|(derived, role)| derived.role(role));
        if let Some(role) = known {
            warn!(role = role.name, others = %role.others, "a role's sessions are denied, those that others opened as well");
        }
    }

    async fn prove(&mut self, index: usize) -> Result<Next, Stop> {
        let Some((step, connector)) = self.connector(index) else {
            return self.wait_then(self.now() + self.parts.settings.recheck_ms).await;
        };
        if let Some(expires_ms) = self.only_expires_at() {
            self.tell_standing();
            return self.wait_then(expires_ms).await;
        }
        let Some(place) = self.place(&step).await else { return self.later().await };
        let sighting = self.sight(&step, connector.as_ref()).await;
        drop(place);
        let answer = sighting.answer;
        self.push(Record::Sighted { step: index, sighting })?;
        let case = self.case();
        match probe::judge(case, connector.settle(), self.now()) {
            // What was not seen to live has no old value that could be destroyed: the recipe may be wrong.
            Judgement::Close(verdict) if case.state.proof_is_last() || !matches!(verdict, Verdict::Dead { .. }) => {
                self.close(verdict).await
            }
            Judgement::Close(verdict) => {
                self.push(Record::Proven { step: index, verdict })?;
                Ok(Next::Go)
            }
            Judgement::Again { at_ms } => self.wait_then(at_ms).await,
            Judgement::Retry => {
                let due_ms = self.now() + self.backoff_ms(FailureKind::Unknown);
                if answer == Answer::Accepted {
                    warn!(plan = case.state.plan_no, "the credential still works after its plan was carried out");
                    self.parts.metrics.alarm(Alarm::StillAlive);
                    // An abandoned case acts no more (P8): it goes on looking, and alarming.
                    if case.state.phase == Phase::Open && case.state.series.broken >= REFUTED {
                        let rotates = self.parts.registry.recipe(&case.directive.credential).is_some();
                        let by = case.directive.refuted(rotates);
                        self.push(Record::Superseded { by: by.clone() })?;
                        self.claim.case.directive = by;
                        self.tell_standing();
                    }
                }
                self.wait_then(due_ms).await
            }
        }
    }

    /// A held case whose reason may have gone away.
    async fn recheck(&mut self, reason: HoldReason) -> Result<Next, Stop> {
        let again_ms = self.now() + self.parts.settings.recheck_ms;
        match self.guard().await? {
            Ok(()) => {
                self.held = self.pending.is_empty().then(|| (reason, self.case().state.clone()));
                self.push(Record::Resumed { by: "guard".to_owned() })?;
                Ok(Next::Go)
            }
            // Who may be rotated is said by the same recipe that is missing.
            Err(HoldReason::Prefix) if reason == HoldReason::NoRecipe => self.wait_then(again_ms).await,
            // What we only observe may die by itself: looking is no effect.
            Err(HoldReason::Observe) if reason == HoldReason::Observe => {
                if self.look_again().await? {
                    return Ok(Next::Go);
                }
                self.wait_then(self.now() + LOOK_AGAIN * self.parts.settings.recheck_ms).await
            }
            Err(same) if same == reason => self.wait_then(again_ms.max(self.until_ms(same))).await,
            Err(other) => self.hold(other).await,
        }
    }

    /// Looks at a held case's credential. If its issuer does not know it any more, the case goes on to its proof.
    async fn look_again(&mut self) -> Result<bool, Stop> {
        let looks: Vec<usize> = match &self.case().state.plan {
            Some(plan) => {
                let is_look = |s: &Step| s.act == Act::Observe && !s.optional;
                plan.steps.iter().enumerate().filter(|(_, s)| is_look(s)).map(|(i, _)| i).collect()
            }
            None => return Ok(false),
        };
        let mut seen_now = Vec::new();
        for index in looks.into_iter().filter(|index| *index < self.case().state.step) {
            let Some((step, connector)) = self.connector(index) else { return Ok(false) };
            let Some(_place) = self.place(&step).await else { return Ok(false) };
            match within(connector.as_ref(), connector.observe(&self.subject(&step, None))).await {
                Ok(seen) if index > 0 || seen.presence == Presence::Gone => seen_now.push((index, seen)),
                _ => return Ok(false),
            }
        }
        if seen_now.is_empty() {
            return Ok(false);
        }
        self.push(Record::Resumed { by: "probe".to_owned() })?;
        for (step, seen) in seen_now {
            self.push(Record::Observed { step, seen })?;
        }
        Ok(true)
    }

    async fn failed(
        &mut self,
        index: usize,
        step: &Step,
        connector: &dyn Connector,
        failure: Failure,
    ) -> Result<Next, Stop> {
        let kind = failure.kind;
        self.parts.metrics.step_failed(&step.connector, kind.as_str());
        info!(step = step.act.as_str(), system = step.system, kind = kind.as_str(), note = failure.note, "step failed");
        self.push(Record::Failed { step: index, failure: kind, note: failure.note, untouched: failure.is_untouched })?;
        let calls = step.act == Act::Notify;
        // Who is to be told keeps nothing alive by not listening.
        let attempts = self.case().state.attempts;
        // Who may not fence is no reason for a value to live, nor for others to wait: the values die without.
        let of_fence = step.optional && connector::plan::residue_of(step) == Some(Residue::NotFenced);
        let final_no = if of_fence && matches!(kind, FailureKind::Denied | FailureKind::Gone) {
            true
        } else if step.act == Act::Observe {
            // While our own access is denied nothing else goes on either.
            kind == FailureKind::Refused || attempts >= LOOKS
        } else {
            matches!(kind, FailureKind::Denied | FailureKind::Refused) || (calls && attempts >= CALLS)
        };
        if step.optional && final_no {
            // The look that a doubt asked for: what it was to clear up is left as it may be.
            let current = self.case().state.step;
            let left = self.case().state.current().cloned().filter(|_| step.act == Act::Observe && index != current);
            let (index, step) = left.as_ref().map_or((index, step), |left| (current, left));
            match step.act {
                Act::Copy => self.parts.metrics.alarm(Alarm::CopyNotUpdated),
                Act::Notify => self.parts.metrics.alarm(Alarm::NotNotified),
                _ => {}
            }
            self.push(Record::Skipped { step: index, residue: connector::plan::residue_of(step) })?;
            return Ok(Next::Go);
        }
        // It cannot be used any more; what it owns must be taken over by a person before it can be removed.
        if step.act == Act::Revoke && kind == FailureKind::Refused && self.case().state.fenced {
            self.push(Record::Skipped { step: index, residue: Some(Residue::CleanupPending) })?;
            return Ok(Next::Go);
        }
        let now = self.now();
        let mut due_ms = now + self.backoff_ms(kind);
        match kind {
            // Nobody else is kept from calling it.
            _ if calls => {}
            FailureKind::Refused if self.case().state.is_spent() => return Ok(Next::Go),
            FailureKind::Refused => {
                self.parts.metrics.alarm(Alarm::Refused);
                return self.hold(HoldReason::Refused).await;
            }
            FailureKind::Denied => {
                // It burns no attempt, so the schedule does not grow: a pause of its own.
                due_ms = due_ms.max(now + DENIED_MS);
                if failure.blocks_system && connector.self_check().await.is_err() {
                    warn!(system = step.system, "our own access is denied: the system is blocked");
                    self.parts.metrics.alarm(Alarm::Denied);
                    self.parts.journal.block(&step.system, due_ms, "denied").await?;
                }
            }
            FailureKind::Throttled { .. } => self.parts.journal.block(&step.system, due_ms, "throttled").await?,
            // It waits by itself: the system is not at fault.
            FailureKind::Unavailable if !failure.blocks_system => {}
            FailureKind::Unavailable | FailureKind::Unknown => {
                if let Some(pause_ms) = self.breakers.unavailable(&step.system) {
                    self.parts.journal.block(&step.system, now + pause_ms, "unavailable").await?;
                    // The pause is the wait: the case itself is due as soon as its system is.
                    due_ms = due_ms.min(now + pause_ms);
                }
            }
            FailureKind::Rejected => {
                self.parts.metrics.alarm(Alarm::CandidateRejected);
                return Ok(Next::Go);
            }
            FailureKind::Gone => {}
        }
        if self.case().state.attempts <= 1 {
            self.tell_standing();
        }
        self.wait_then(due_ms).await
    }

    async fn hold(&mut self, reason: HoldReason) -> Result<Next, Stop> {
        let after_ms = if reason.rechecks() { self.parts.settings.recheck_ms } else { REST_MS };
        let due_ms = (self.now() + after_ms).max(self.until_ms(reason));
        // It is held as it was before: nothing has happened that were worth a record, each time that it is tried.
        if let Some((same, state)) = self.held.take()
            && same == reason
        {
            self.claim.case.state = state;
            self.pending.clear();
            self.messages.clear();
            return self.wait_then(due_ms).await;
        }
        info!(reason = reason.as_str(), "held");
        self.push(Record::Held { reason })?;
        self.tell_standing();
        self.wait_then(due_ms).await
    }

    /// Until when a hold lasts that says so itself; others may end at any time.
    fn until_ms(&self, reason: HoldReason) -> i64 {
        let case = self.case();
        let until_ms = match reason {
            HoldReason::Notice => case.directive.not_before_ms,
            HoldReason::Kept => case.state.kept_until_ms,
            // The cap is by the minute.
            HoldReason::Cap => Some((self.now().div_euclid(MINUTE_MS) + 1) * MINUTE_MS),
            _ => None,
        };
        // A freeze, or another word, is not waited out: it comes back in time for both.
        until_ms.map_or(0, |until_ms| until_ms.min(self.now() + REST_MS))
    }

    /// All steps are done, or the reason is gone.
    async fn end(&mut self) -> Result<Next, Stop> {
        let state = &self.case().state;
        let verdict = match (&state.proven, state.withdrawn) {
            (Some(Verdict::Dead { level, at_ms, sightings, by, residue }), false) => {
                let mut residue = residue.clone();
                residue.extend(state.residue.iter().filter(|one| !residue.contains(one)).copied().collect::<Vec<_>>());
                Verdict::Dead { level: *level, at_ms: *at_ms, sightings: *sightings, by: *by, residue }
            }
            (Some(verdict), false) => verdict.clone(),
            _ => Verdict::Obsolete,
        };
        self.close(verdict).await
    }

    async fn close(&mut self, verdict: Verdict) -> Result<Next, Stop> {
        let now = self.now();
        let message = outcome::closed(self.case(), &verdict, now);
        self.push(Record::Closed { verdict: verdict.clone() })?;
        self.messages.push(message);
        self.flush(now, false, None).await?;
        let directive = &self.claim.case.directive;
        let metrics = &self.parts.metrics;
        metrics.case_closed(directive.action.as_str(), directive.trigger.as_str(), verdict.as_str());
        if let Verdict::Dead { at_ms, residue, .. } = &verdict {
            // Nobody can use it, and it is still there: that is a person's to mend.
            if residue.contains(&Residue::CleanupPending) {
                metrics.alarm(Alarm::CleanupPending);
            }
            if directive.trigger == Trigger::Finding {
                metrics.finding_to_dead(directive.action, at_ms - directive.broker_ms);
            }
            if directive.trigger == Trigger::TaskEnd {
                metrics.task_end_to_dead(at_ms - directive.broker_ms);
            }
            if let Some(end_ms) = directive.end_ms {
                metrics.overrun(directive.trigger.as_str(), at_ms - end_ms);
            }
        }
        info!(result = verdict.as_str(), "closed");
        Ok(Next::Wait)
    }

    /// The mode of the next step's system: of a rotation, the stores and the target must all let it act. What a lease
    /// opens at a target follows the lease's realm alone.
    fn mode_there(&self) -> Mode {
        let case = self.case();
        let rotated = self.parts.registry.recipe(&case.directive.credential);
        let step = rotated.and_then(|_| case.state.current()).map(|step| step.system.as_str());
        // Copies are not left behind: where one may not be written, nothing is begun.
        let copies = rotated.into_iter().flat_map(|recipe| &recipe.copies).map(|copy| copy.realm.as_str());
        let realms = step.into_iter().chain(copies).filter_map(|system| self.parts.registry.realm_of(system));
        realms.map(|realm| realm.mode).min().unwrap_or(Mode::Enforce)
    }

    async fn guard(&self) -> Result<Result<(), HoldReason>, Stop> {
        let (journal, settings, case) = (&self.parts.journal, &self.parts.settings, self.case());
        let freeze = journal.frozen().await?.max((self.parts.freeze_file)());
        let started_held = journal.started_held().await?.is_some();
        let realm = self.parts.registry.realm(&case.directive.credential);
        let own =
            Authority { kinds: [case.directive.credential.kind_name().to_owned()].into(), strongest: Action::Revoke };
        let authority = guard::authority_of(case, |topic| match topic {
            event::OWN => Some(&own),
            topic => settings.authority.get(topic),
        });
        Ok(guard::check(&Facts {
            case,
            seen: case.state.issuer(),
            freeze,
            started_held,
            mode: realm.map(|r| r.mode.min(self.mode_there())),
            authority,
            allowed_prefixes: realm.map_or(&[], |r| &r.allowed_prefixes),
            reducible: realm.map_or(&[], |r| &r.reducible),
            now_ms: self.now(),
            protected: &settings.protected,
            clock_trusted: (self.parts.clock_trusted)(),
            // The journal charges the cap in the same transaction as `Started`.
            cap_left: None,
        }))
    }

    /// A look's place among the calls at its system.
    async fn place(&self, step: &Step) -> Option<OwnedSemaphorePermit> {
        if !self.calls.turn(&step.system).await {
            return None;
        }
        self.calls.place(&step.system).await
    }

    /// The system is full: others may be more urgent.
    async fn later(&mut self) -> Result<Next, Stop> {
        self.wait_then(self.now() + FULL_MS).await
    }

    /// Whether the claim lasts longer than a call that starts now.
    fn outlasts(&self, connector: &dyn Connector) -> bool {
        self.claim.until_ms - self.parts.clock.monotonic_ms() >= connector.call_timeout_ms() + MARGIN_MS
    }

    async fn sight(&self, step: &Step, connector: &dyn Connector) -> Sighting {
        let started = self.parts.clock.monotonic_ms();
        let sighting = connector.probe(&self.subject(step, None)).await;
        let result = match sighting.answer {
            Answer::Refused => "refused",
            Answer::Accepted => "accepted",
            Answer::Unknown => "unknown",
        };
        let took_ms = self.parts.clock.monotonic_ms() - started;
        self.parts.metrics.step(&step.connector, step.act.as_str(), result, took_ms);
        sighting
    }

    fn only_expires_at(&self) -> Option<i64> {
        let seen = self.case().state.issuer().filter(|seen| seen.only_expires)?;
        seen.expires_ms.filter(|at| *at > self.now())
    }

    fn connector(&self, index: usize) -> Option<(Step, std::sync::Arc<dyn Connector>)> {
        let step = self.case().state.plan.as_ref()?.steps.get(index)?.clone();
        let connector = self.parts.registry.connector(&step)?.clone();
        Some((step, connector))
    }

    fn subject(&self, step: &Step, key: Option<uuid::Uuid>) -> Subject {
        let case = self.case();
        let rotation = self.parts.registry.rotation_of(case, step.agent.as_ref());
        Subject {
            credential: case.directive.credential.clone(),
            principal: case.principal.clone(),
            seen: case.state.observation_for(step).cloned().map(|seen| Observation {
                principal_id: seen.principal_id.or(case.state.principal_id.clone().filter(|_| step.agent.is_none())),
                ..seen
            }),
            // A plan that undoes has no look of its own: it goes by the immutable id of those before, since a name may be
            // somebody else's by now.
            issuer: case.state.issuer().cloned().or_else(|| {
                let undoes = case.state.plan.as_ref().is_some_and(|plan| plan.undoes);
                let principal_id = case.state.principal_id.clone().filter(|_| undoes)?;
                Some(Observation { principal_id: Some(principal_id), ..Observation::default() })
            }),
            run: case.directive.run.clone(),
            key,
            rescope: Rescope::of(case),
            place: step.place.clone(),
            message: rotation
                .as_ref()
                .filter(|_| step.act == Act::Notify)
                .map(|rotation| outcome::called(case, &rotation.recipe, self.now())),
            rotation,
        }
    }

    fn measured(&self, step: &Step, failure: Option<&Failure>, started_ms: i64) {
        let took_ms = self.parts.clock.monotonic_ms() - started_ms;
        let result = failure.map_or("ok", |f| f.kind.as_str());
        self.parts.metrics.step(&step.connector, step.act.as_str(), result, took_ms);
    }

    fn backoff_ms(&self, kind: FailureKind) -> i64 {
        let case = self.case();
        let spread = retry::spread_of(case.id);
        self.parts.settings.retry.after_ms(case.state.attempts.max(case.state.plan_no), kind, spread)
    }

    /// Publishes where the case stands, when a record changes that.
    fn tell_standing(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut case = self.case().clone();
        case.seq += 1;
        self.messages.push(outcome::standing(&case, self.now()));
    }

    fn case(&self) -> &Case {
        &self.claim.case
    }

    fn now(&self) -> i64 {
        self.parts.clock.wall_ms()
    }

    fn push(&mut self, record: Record) -> Result<(), Illegal> {
        self.claim.case.state = self.claim.case.state.clone().next(&record)?;
        self.pending.push(record);
        Ok(())
    }

    /// Gives the claim back; the case is due at `due_ms`.
    async fn wait(&mut self, due_ms: i64) -> Result<(), Stop> {
        if self.pending.is_empty() {
            let claim = &self.claim;
            return Ok(self.parts.journal.unclaim(claim.case.id, claim.epoch, due_ms).await?);
        }
        self.flush(due_ms, false, None).await
    }

    async fn wait_then(&mut self, due_ms: i64) -> Result<Next, Stop> {
        self.wait(due_ms).await?;
        Ok(Next::Wait)
    }

    /// Makes what is pending durable.
    async fn flush(&mut self, due_ms: i64, keep: bool, charge: Option<u32>) -> Result<(), Stop> {
        let append = Append {
            case: self.claim.case.id,
            epoch: self.claim.epoch,
            seq: self.claim.case.seq,
            records: self.pending.clone(),
            due_ms,
            keep,
            charge,
            learned: self.learned.clone(),
            messages: self.messages.clone(),
            now_ms: self.now(),
        };
        let started = self.parts.clock.monotonic_ms();
        self.claim.case = self.parts.journal.append(append).await?;
        self.parts.metrics.journal_commit(self.parts.clock.monotonic_ms() - started);
        if !self.messages.is_empty() {
            self.parts.outbox.notify_one();
        }
        self.pending.clear();
        self.messages.clear();
        (self.learned, self.held) = (None, None);
        Ok(())
    }
}

/// A call within its time-out. When it strikes, the call may have happened.
async fn within<T>(connector: &dyn Connector, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let limit = Duration::from_millis(u64::try_from(connector.call_timeout_ms()).unwrap_or(10_000));
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new(FailureKind::Unknown, "no answer in time")),
    }
}
