//! The state of a case: a total fold over its records, and what comes next. PURE.

use serde::{Deserialize, Serialize};

use super::derived::Derived;
use super::plan::{Act, Plan, Step};
use super::record::{Answer, FailureKind, Observation, Presence, Record, Residue, Verdict};
use super::turn::Turn;
use super::{Action, Directive, HoldReason};
use crate::scope::Cutting;

pub use super::series::Series;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

/// Request ids that a case keeps for its outcome.
pub const MAX_REQUESTS: usize = 16;

/// Where a case stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    /// Works, or waits for its due time.
    Open,
    /// The guard said no.
    Held {
        /// Why.
        reason: HoldReason,
    },
    /// Acts no more, keeps probing.
    Abandoned,
    /// Over.
    Closed {
        /// The end.
        verdict: Verdict,
    },
}

/// The fold of a case's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// The number of the current plan; 0: none yet.
    pub plan_no: u32,
    /// The current plan.
    pub plan: Option<Plan>,
    /// Index of the next step.
    pub step: usize,
    /// Failed attempts at the current step.
    pub attempts: u32,
    /// An effect was started and its end is not known: look before repeating.
    pub in_doubt: bool,
    /// There was a look after the doubt arose.
    pub looked: bool,
    /// An effect of this case was started at least once.
    pub acted: bool,
    /// The revoke was carried out by this case, as far as is known.
    pub killed: bool,
    /// New uses of the old value were stopped by this case.
    #[serde(default)]
    pub fenced: bool,
    /// The last look of each `Observe` step of the current plan.
    pub observed: Vec<(usize, Observation)>,
    /// The proving series.
    pub series: Series,
    /// The user's immutable id at the target, kept over plans: after DROP ROLE no look finds it again, and its sessions
    /// are matched by it.
    #[serde(default)]
    pub principal_id: Option<String>,
    /// The provider's ids of the newest requests, at most [`MAX_REQUESTS`].
    #[serde(default)]
    pub requests: Vec<String>,
    /// What steps left behind.
    pub residue: Vec<Residue>,
    /// How the last call failed.
    pub last_failure: Option<FailureKind>,
    /// Of a rotation: which value goes, which one comes.
    #[serde(default, skip_serializing_if = "Turn::is_blank")]
    pub turn: Turn,
    /// Of a reduction or a restoration: what there was before.
    #[serde(default, skip_serializing_if = "Cutting::is_blank")]
    pub cutting: Cutting,
    /// An effect was begun for the directive that counts: it goes on, and nobody's no counts any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// Whoever answers for it wants it kept as it is until then (our clock).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until_ms: Option<i64>,
    /// What its holder may have become with it, kept over plans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Derived>,
    /// Of a split: whom it has moved, kept over plans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
    /// What was proven, while stored values remain to be destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<Verdict>,
    /// The reason for it is gone: it ends as obsolete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// What joined since the directive that counts, by topic: the authority of any of them will do. See
    /// [`crate::guard::authority_of`].
    #[serde(default)]
    pub joined: Vec<(Action, String)>,
}

/// One agent that reads a value of its own by this case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Its name.
    pub agent: String,
    /// How many of the shared user's grants its own has not.
    #[serde(default)]
    pub withheld: u32,
}

/// How many topics are remembered that joined a case.
const TOPICS: usize = 8;

/// A record that cannot follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a case that is {state} cannot take the record {record}")]
pub struct Illegal {
    /// The state's name.
    pub state: &'static str,
    /// The record's name.
    pub record: &'static str,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Todo {
    /// Compose a plan and record it.
    Plan,
    /// Look; no effect.
    Observe(usize),
    /// Ask the guard, record `Started`, act.
    Perform(usize),
    /// Record `Skipped`: there is nothing to do.
    Skip(usize),
    /// Ask whether the gate is open.
    Pass(usize),
    /// Look for a sighting.
    Prove(usize),
    /// Nothing is left to do: close with what was proven.
    Close,
    /// All is undone: hold it for a person.
    Park,
    /// Ask the guard again.
    Recheck(HoldReason),
    /// Nothing: only a person or another event moves it.
    Rest,
}

impl State {
    /// The state after the first record.
    pub fn opened(directive: &Directive) -> Self {
        Self {
            phase: directive.held.map_or(Phase::Open, |reason| Phase::Held { reason }),
            plan_no: 0,
            plan: None,
            step: 0,
            attempts: 0,
            in_doubt: false,
            looked: false,
            acted: false,
            killed: false,
            fenced: false,
            observed: Vec::new(),
            series: Series::default(),
            principal_id: None,
            requests: Vec::new(),
            residue: Vec::new(),
            last_failure: None,
            turn: Turn::default(),
            cutting: Cutting::default(),
            begun: false,
            kept_until_ms: None,
            derived: None,
            moved: Vec::new(),
            proven: None,
            withdrawn: false,
            joined: Vec::new(),
        }
    }

    /// The state's name, as in `cases{state}`.
    pub fn name(&self) -> &'static str {
        match &self.phase {
            Phase::Closed { .. } => "closed",
            Phase::Held { .. } => "held",
            Phase::Abandoned => "abandoned",
            Phase::Open if self.in_doubt => "in_doubt",
            Phase::Open => match self.current().map(|s| s.act) {
                Some(Act::Prove) => "proving",
                Some(_) if self.attempts > 0 => "retrying",
                _ => "ready",
            },
        }
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// The next step of the plan.
    pub fn current(&self) -> Option<&Step> {
        self.plan.as_ref()?.steps.get(self.step)
    }

    /// The last look by the connector and at the system of `step`. What was derived from a credential has looks of its own.
    pub fn observation_for(&self, step: &Step) -> Option<&Observation> {
        let plan = self.plan.as_ref()?;
        let place = step.place.as_ref().filter(|_| step.act != Act::Copy);
        self.observed.iter().find_map(|(i, seen)| {
            let looked = plan.steps.get(*i)?;
            let is_it =
                looked.connector == step.connector && looked.system == step.system && looked.agent == step.agent;
            (is_it && looked.place.as_ref() == place).then_some(seen)
        })
    }

    /// The look at the issuer: the plan's first `Observe`.
    pub fn issuer(&self) -> Option<&Observation> {
        let first = self.plan.as_ref()?.steps.iter().position(|s| s.act == Act::Observe)?;
        self.observed.iter().find(|(i, _)| *i == first).map(|(_, seen)| seen)
    }

    /// What comes next. The same answer before and after a crash.
    pub fn todo(&self) -> Todo {
        match &self.phase {
            Phase::Closed { .. } => return Todo::Rest,
            _ if self.withdrawn => return Todo::Close,
            Phase::Held { reason } if reason.rechecks() => return Todo::Recheck(*reason),
            Phase::Held { .. } => return Todo::Rest,
            Phase::Abandoned => {
                return self.plan.as_ref().and_then(|p| p.find(Act::Prove)).map_or(Todo::Rest, Todo::Prove);
            }
            Phase::Open => {}
        }
        if self.is_spent() {
            return Todo::Plan;
        }
        let Some(step) = self.current() else {
            return match &self.plan {
                None => Todo::Plan,
                Some(plan) if plan.undoes => Todo::Park,
                Some(_) => Todo::Close,
            };
        };
        if let Some(look) = self.due_look() {
            return Todo::Observe(look);
        }
        match step.act {
            Act::Observe => Todo::Observe(self.step),
            Act::Prove => Todo::Prove(self.step),
            _ if self.needless(step) => Todo::Skip(self.step),
            Act::Test | Act::Adopt => Todo::Pass(self.step),
            _ => Todo::Perform(self.step),
        }
    }

    /// Whether nothing is left to do after the proof.
    pub fn proof_is_last(&self) -> bool {
        let steps = self.plan.as_ref().map_or(0, |plan| plan.steps.len());
        self.phase == Phase::Abandoned || self.step + 1 >= steps
    }

    /// Whether what died died by this case: it revoked it, replaced it, or shut out who had it where nothing revokes.
    pub fn is_ours(&self) -> bool {
        let revokes = self.plan.as_ref().is_some_and(|plan| plan.find(Act::Revoke).is_some());
        self.killed || self.turn.new.is_some() || (self.fenced && !revokes)
    }

    /// Whether the target took none of the candidates, or a consumer cannot work with the one that was promoted: what was
    /// done is undone next.
    pub fn is_spent(&self) -> bool {
        let spent = self.turn.rejected >= Turn::CANDIDATES || self.turn.unhealthy;
        spent && self.plan.as_ref().is_some_and(|plan| !plan.undoes)
    }

    /// Whether the issuer does not know it, and nothing was done: another plan may take the place of this one.
    pub fn is_baseless(&self) -> bool {
        !self.acted && self.issuer().is_some_and(|seen| seen.presence == Presence::Gone)
    }

    /// Whether what was done, or may have been, can have ended it: of a value that another one replaces at its target, from
    /// the moment on at which the target has that one, unless the two overlap.
    pub fn may_be_dead(&self) -> bool {
        let doubt = self.in_doubt
            && self
                .current()
                .is_some_and(|step| matches!(step.act, Act::Disable | Act::Revoke | Act::Begin | Act::Mint));
        let cuts = |step: &Step| matches!(step.act, Act::Disable | Act::Revoke);
        let overlaps =
            self.plan.as_ref().is_some_and(|plan| plan.steps.get(self.step..).unwrap_or_default().iter().any(cuts));
        // What an agent gets replaces nothing: what it shared works on.
        let turn = self.own_turn();
        let replaced = (turn.is_set || turn.new.is_some()) && !overlaps;
        self.killed || self.fenced || doubt || replaced
    }

    /// Whether the old value can still be given back after the promotion: it works until its consumers were waited for. Those
    /// that hear of the new value may answer before the last of its places has it.
    pub fn may_go_back(&self) -> bool {
        // What a provider replaced is kept nowhere: it has no promotion.
        let step_of = |act| self.plan.as_ref()?.find_beside(act, self.current()?);
        let waits = step_of(Act::Promote).is_some_and(|promote| promote < self.step)
            && step_of(Act::Adopt).is_some_and(|adopt| self.step <= adopt);
        waits && self.turn.new.is_some() && !matches!(self.phase, Phase::Abandoned | Phase::Closed { .. })
    }

    /// Whether a consumer's word on a version counts: that it has it, or that it cannot work with it.
    pub fn awaits(&self, consumer: &str, version: i64, failed: bool) -> bool {
        // Versions at the places of two agents may be called alike.
        let agent = self.current().and_then(|step| step.agent.as_ref());
        let is_its = agent.is_none_or(|agent| agent.name == consumer);
        let is_meant = self.turn.new.as_ref().is_some_and(|new| new.version == version);
        !self.is_closed() && is_its && is_meant && (!failed || self.may_go_back())
    }

    /// The two values of the credential itself: while it is an agent's turn, none.
    pub fn own_turn(&self) -> &Turn {
        static NONE: std::sync::LazyLock<Turn> = std::sync::LazyLock::new(Turn::default);
        if self.current().is_some_and(|step| step.agent.is_some()) { &NONE } else { &self.turn }
    }

    /// Whether a split stands between two of its parts: nobody is half moved, and the shared user is as it was.
    pub fn is_between_agents(&self) -> bool {
        self.current().is_some_and(|step| match step.act {
            Act::Provision => !self.in_doubt,
            Act::Disable => {
                !self.in_doubt && self.plan.as_ref().is_some_and(|plan| plan.find(Act::Provision).is_some())
            }
            _ => false,
        })
    }

    /// Whether all that a reduction took was given back: nothing of it is left.
    pub fn is_undone(&self) -> bool {
        let undid = |plan: &Plan| plan.undoes && plan.find(Act::Widen).is_some() && self.step >= plan.steps.len();
        self.plan.as_ref().is_some_and(undid) && self.cutting.taken.is_empty()
    }

    /// The look that may have grown old while the case was held: nothing is taken by what stood there long ago.
    fn stale_look(&self) -> Option<usize> {
        let (plan, step) = (self.plan.as_ref()?, self.current()?);
        let looks = |s: &Step| s.act == Act::Observe && s.connector == step.connector && s.system == step.system;
        plan.steps.iter().position(looks).filter(|_| step.act.takes() && !self.cutting.begun)
    }

    /// The look that must come before an effect in doubt is repeated. Where the plan has none for this step's system,
    /// the effect is repeated as it is: connectors only have effects that may be.
    fn due_look(&self) -> Option<usize> {
        if !self.in_doubt || self.looked {
            return None;
        }
        let (plan, step) = (self.plan.as_ref()?, self.current()?);
        let is_look = |s: &Step| s.act == Act::Observe && s.place.is_none() && s.agent == step.agent;
        plan.steps.iter().position(|s| is_look(s) && s.connector == step.connector && s.system == step.system)
    }

    /// Whether an effect has nothing left to act on.
    fn needless(&self, step: &Step) -> bool {
        // Who was never given a candidate has nothing to be taken back, and may be somebody else's.
        if step.act == Act::Restore && !self.turn.is_set {
            return true;
        }
        // Only what the holder is known to have become: a list that was not read names nobody.
        if let (Act::RevokeDerived, Some(role)) = (step.act, &step.place) {
            return self.derived.as_ref().is_none_or(|derived| derived.role(role).is_none());
        }
        // It reads a value of its own user already.
        let reads = self.turn.old.as_ref().and_then(|old| old.user.as_ref());
        if step.act != Act::Destroy && step.agent.as_ref().is_some_and(|agent| reads == Some(&agent.user)) {
            return true;
        }
        let rotates = self.plan.as_ref().is_some_and(Plan::makes);
        // A user that its system does not know any more gets no new value.
        if rotates && step.act != Act::Destroy && self.issuer().is_some_and(|seen| seen.presence == Presence::Gone) {
            return true;
        }
        if step.act == Act::EndSessions && self.sessions_ended(step) {
            return true;
        }
        let Some(seen) = self.observation_for(step) else { return step.act == Act::Lift };
        // Who is not there has nothing that could be taken, given or compared.
        let rescopes =
            self.plan.as_ref().is_some_and(|plan| plan.find(Act::Narrow).or(plan.find(Act::Widen)).is_some());
        if step.act == Act::Fence && seen.presence == Presence::Gone {
            return true;
        }
        if rescopes && seen.presence == Presence::Gone {
            return matches!(step.act, Act::Narrow | Act::Widen | Act::Test);
        }
        match step.act {
            Act::Revoke => seen.presence == Presence::Gone || seen.only_expires,
            Act::Disable => seen.presence == Presence::Gone,
            Act::Lift => !seen.lifts,
            // Our own fence that stands already is not what there was before.
            Act::Narrow | Act::Fence => seen.scope.as_ref().is_some_and(|scope| scope.held.is_empty()),
            Act::EndSessions => seen.presence == Presence::Gone && self.principal_id.is_none(),
            // A destroyed secret_id kills none of its tokens: they are always looked for.
            _ => false,
        }
    }

    /// Whether the plan has ended the sessions there before `step`, when nobody could log in any more. Whoever was given a value
    /// since then can.
    pub(crate) fn sessions_ended(&self, step: &Step) -> bool {
        let before = self.plan.as_ref().and_then(|plan| plan.steps.get(..self.step)).unwrap_or_default();
        let given = before.iter().rposition(|one| one.act.gives()).unwrap_or(0);
        let before = before.get(given..).unwrap_or_default();
        let is_open = self.residue.iter().any(|left| matches!(left, Residue::Sessions | Residue::NotFenced));
        self.fenced && !is_open && before.contains(step)
    }

    /// The state after `record`.
    ///
    /// # Errors
    /// [`Illegal`] when the record cannot follow: then nothing must be appended.
    pub fn next(mut self, record: &Record) -> Result<Self, Illegal> {
        let illegal = Illegal { state: self.name(), record: record.name() };
        let is_open = self.phase == Phase::Open;
        match record {
            Record::Joined { directive } if !self.is_closed() => {
                // Who wants some of those moved who share it lends nobody the authority to move all.
                let lends = directive.held.is_none() && directive.moves().is_none();
                for topic in directive.asked_by().filter(|_| lends) {
                    let asked = (directive.action, topic.to_owned());
                    if self.joined.len() < TOPICS && !self.joined.contains(&asked) {
                        self.joined.push(asked);
                    }
                }
            }
            Record::Superseded { by } if !self.is_closed() => {
                let doubt = self.in_doubt;
                let doubtful = self.current().map(|step| step.act).filter(|_| doubt);
                self.turn.is_set |= doubtful.is_some_and(Act::gives);
                self.turn.asked |= doubtful == Some(Act::Create);
                self.cutting.taken = self.cutting.missing();
                self.cutting.spared.clear();
                self.cutting.again();
                (self.begun, self.kept_until_ms) = (false, None);
                self.turn.refuted |= self.series.broken > 0;
                self.phase = by.held.map_or(Phase::Open, |reason| Phase::Held { reason });
                // What was an agent's turn says nothing of the value that it shared.
                if self.plan.as_ref().is_some_and(|plan| plan.steps.iter().any(|step| step.agent.is_some())) {
                    self.turn = Turn::default();
                }
                self.plan = None;
                self.step = 0;
                self.attempts = 0;
                // An effect in doubt stays acted; the new plan begins with a look.
                self.in_doubt = false;
                self.looked = false;
                self.acted |= doubt;
                self.observed.clear();
                self.series = Series::default();
                self.proven = None;
                self.withdrawn = false;
                self.turn.go_on(by.generation);
                self.joined.clear();
            }
            Record::Planned { no, plan }
                if is_open
                    && *no == self.plan_no + 1
                    && (self.plan.is_none() || self.is_spent() || self.is_baseless()) =>
            {
                if !plan.is_sound() || plan.undoes != self.is_spent() {
                    return Err(illegal);
                }
                self.observed.clear();
                self.in_doubt = false;
                self.looked = false;
                self.plan_no = *no;
                self.plan = Some(plan.clone());
                self.step = 0;
                self.attempts = 0;
            }
            Record::Observed { step, seen }
                if is_open
                    && self.act(*step) == Some(Act::Observe)
                    && (*step <= self.step || self.is_optional(*step)) =>
            {
                let was_due = self.due_look() == Some(*step);
                // That of an agent's user stands in its own look. And what is fenced is known by another name than the value that goes.
                let plan = self.plan.as_ref();
                let of_fence = seen.scope.is_some() && plan.is_some_and(|plan| plan.find(Act::Fence).is_some());
                if plan.and_then(|plan| plan.steps.get(*step)).is_none_or(|step| step.agent.is_none()) && !of_fence {
                    self.principal_id = seen.principal_id.clone().or(self.principal_id.take());
                }
                self.note_requests(&seen.request_id);
                self.turn.saw(seen);
                // What a look shows after the first effect may lack what that one took.
                if !self.cutting.begun && seen.scope.is_some() {
                    self.cutting.before.clone_from(&seen.scope);
                }
                if let Some(derived) = &seen.derived {
                    let is_turn = *step == self.step;
                    self.saw_derived(derived, is_turn);
                }
                self.observed.retain(|(i, _)| i != step);
                self.observed.push((*step, Observation { derived: None, ..seen.clone() }));
                if *step == self.step {
                    self.advance();
                } else if was_due {
                    self.looked = true;
                }
            }
            Record::Started { step, attempt, .. }
                if is_open
                    && self.is_effect(*step)
                    && self.due_look().is_none()
                    && *attempt == self.attempts.saturating_add(1) =>
            {
                // Twice: the first one may have happened.
                self.turn.is_set |= self.in_doubt && self.act(*step).is_some_and(Act::gives);
                self.turn.asked |= self.in_doubt && self.act(*step) == Some(Act::Create);
                if self.act(*step).is_some_and(Act::takes) {
                    self.cutting.begin();
                }
                self.in_doubt = true;
                self.looked = false;
                self.acted = true;
                self.begun = true;
            }
            Record::Succeeded { step, output } if self.is_effect(*step) && self.in_doubt && !self.is_closed() => {
                if matches!(self.act(*step), Some(Act::Narrow | Act::Widen)) {
                    self.cutting.done_ms = output.done_ms;
                }
                match self.act(*step) {
                    Some(Act::Revoke) => self.killed = true,
                    Some(Act::Disable) => self.fenced = true,
                    Some(act) if act.takes() => self.cutting.took(),
                    // A restoration gives back what another case took.
                    Some(Act::Widen) if self.plan.as_ref().is_some_and(|plan| plan.undoes) => self.cutting.gave_back(),
                    Some(Act::RevokeDerived) => self.denied(output.done_ms),
                    // Of a split: whoever is left has time from here on.
                    Some(Act::Destroy) if output.done_ms.is_some() => self.turn.promoted_ms = output.done_ms,
                    Some(act) => {
                        self.turn.did(act, output);
                        self.moves(act);
                    }
                    None => {}
                }
                self.leave(&output.residue);
                self.note_requests(&output.request_ids);
                self.advance();
            }
            Record::Failed { step, failure, untouched, .. }
                // The step itself, the look that a doubt asks for, or an abandoned case's probe.
                if !self.is_closed()
                    && self.act(*step).is_some()
                    && (*step == self.step
                        || self.due_look() == Some(*step)
                        || (self.phase == Phase::Abandoned && self.act(*step) == Some(Act::Prove))) =>
            {
                if self.is_effect(*step) && *failure != FailureKind::Unknown {
                    self.in_doubt = false;
                }
                // Refused before anything of it was written: there is no fence.
                if self.act(*step) == Some(Act::Fence) && *untouched {
                    self.cutting.left_untouched();
                }
                let in_doubt = *failure == FailureKind::Unknown;
                self.turn.is_set |= in_doubt && self.act(*step).is_some_and(Act::gives);
                self.turn.asked |= in_doubt && self.act(*step) == Some(Act::Create);
                // Our own access failed: that is no attempt at the credential.
                if *failure != FailureKind::Denied {
                    self.attempts = self.attempts.saturating_add(1);
                }
                self.looked = false;
                self.last_failure = Some(*failure);
                if *failure == FailureKind::Rejected && *step == self.step {
                    self.turn.rejected = self.turn.rejected.saturating_add(1);
                    // Another one is made, unless the last was the last.
                    if let Some(making) = self.plan.as_ref().zip(self.current()).and_then(|(plan, at)| plan.making(at))
                        && making <= self.step
                        && !self.is_spent()
                    {
                        self.step = making;
                        self.attempts = 0;
                    }
                }
                // No other candidate helps: what was half made is undone.
                let making = matches!(self.act(*step), Some(Act::Set | Act::Test | Act::Promote))
                    || (matches!(self.act(*step), Some(Act::Provision | Act::Create))
                        && self.current().is_some_and(|s| s.agent.is_some()));
                let making = making || self.act(*step) == Some(Act::Narrow);
                let making = making && self.plan.as_ref().is_some_and(|plan| plan.find(Act::Widen).is_none());
                let is_narrow = *step == self.step && self.act(*step) == Some(Act::Narrow);
                // Nothing was taken, so nothing is given back: a person is asked.
                let is_untouched = is_narrow && *untouched && self.cutting.left_untouched();
                self.begun &= !is_untouched;
                if *failure == FailureKind::Refused && *step == self.step && making && !is_untouched {
                    self.turn.rejected = Turn::CANDIDATES;
                }
            }
            Record::Passed { step, cut_ms }
                if is_open && *step == self.step && self.act(*step).is_some_and(Act::is_gate) =>
            {
                self.turn.set_ms = cut_ms.or(self.turn.set_ms);
                self.advance();
            }
            Record::Proven { step, verdict }
                if is_open
                    && *step == self.step
                    && self.act(*step) == Some(Act::Prove)
                    && self.series.refused > 0
                    && matches!(verdict, Verdict::Dead { .. }) =>
            {
                self.proven = Some(verdict.clone());
                self.advance();
            }
            // What has begun goes on: a half-made change is not left alone.
            Record::Withdrawn { .. } if (!self.acted || self.is_undone()) && !self.is_closed() => self.withdrawn = true,
            // What is left is looked at anew: what was seen of the others does not fit it.
            Record::Spared { permissions, .. } if !self.begun && !self.acted && !self.is_closed() => {
                self.cutting.spare(permissions);
                if let Some(look) = self.stale_look() {
                    self.step = look;
                }
            }
            Record::Answered { consumer, version, failed, .. } if self.awaits(consumer, *version, *failed) => {
                self.turn.hear(consumer, *failed);
                // Who was waited for has answered.
                if matches!(self.phase, Phase::Held { reason: HoldReason::NotAdopted }) {
                    self.phase = Phase::Open;
                }
            }
            Record::Skipped { step, residue }
                if is_open
                    && (self.is_effect(*step)
                        || (*step == self.step && self.act(*step).is_some_and(Act::is_gate))
                        || (*step == self.step && self.act(*step) == Some(Act::Observe) && self.is_optional(*step))) =>
            {
                let gone = self.current().and_then(|s| self.observation_for(s)).is_some_and(|o| o.presence == Presence::Gone);
                if self.act(*step).is_some_and(Act::takes) && self.in_doubt {
                    self.cutting.took();
                }
                let contained = self.fenced && *residue == Some(Residue::CleanupPending);
                if self.act(*step) == Some(Act::Revoke) && ((self.in_doubt && gone) || contained) {
                    self.killed = true;
                }
                self.leave(residue.as_slice());
                self.advance();
            }
            Record::Sighted { step, sighting }
                if (self.phase == Phase::Abandoned || (is_open && *step == self.step))
                    && self.act(*step) == Some(Act::Prove) =>
            {
                self.series.add(sighting);
                self.note_requests(&sighting.request_id);
                self.attempts = if sighting.answer == Answer::Refused { 0 } else { self.attempts.saturating_add(1) };
            }
            // Also from one reason to another.
            Record::Held { reason } if is_open || matches!(self.phase, Phase::Held { .. }) => {
                self.phase = Phase::Held { reason: *reason };
            }
            Record::Resumed { .. } if matches!(self.phase, Phase::Held { .. }) => {
                self.phase = Phase::Open;
                // After all was undone a person wants it tried again from the start.
                if self.plan.as_ref().is_some_and(|plan| plan.undoes && self.step >= plan.steps.len()) {
                    self.plan = None;
                    self.step = 0;
                    // Somebody may have mended it by hand: which value goes is looked at anew.
                    self.turn = Turn::default();
                    self.cutting.again();
                    self.begun = false;
                } else if let Some(look) = self.stale_look() {
                    // What is taken is what is there now, however long the notice was.
                    self.step = look;
                }
            }
            // What only a person or an event moves does not go on by itself when the time is over.
            Record::Kept { until_ms, .. }
                if !self.begun
                    && (is_open || matches!(self.phase, Phase::Held { reason } if reason.rechecks())) =>
            {
                self.kept_until_ms = Some(*until_ms);
                self.phase = Phase::Held { reason: HoldReason::Kept };
            }
            Record::Abandoned { .. } if matches!(self.phase, Phase::Open | Phase::Held { .. }) => {
                self.phase = Phase::Abandoned;
            }
            // Nothing is called dead until it was seen dead.
            Record::Closed { verdict: Verdict::Dead { .. } | Verdict::Reduced { .. } } if self.series.refused == 0 => {
                return Err(illegal);
            }
            Record::Closed { verdict } if !self.is_closed() && verdict.closes() => {
                self.phase = Phase::Closed { verdict: verdict.clone() };
            }
            _ => return Err(illegal),
        }
        Ok(self)
    }

    /// The fold of a whole case.
    ///
    /// # Errors
    /// [`Illegal`] when the list does not begin with `Opened` or a record cannot follow.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self, Illegal> {
        let mut records = records.into_iter();
        let Some(Record::Opened { directive }) = records.next() else {
            return Err(Illegal { state: "nothing", record: "first" });
        };
        records.try_fold(Self::opened(directive), Self::next)
    }

    fn act(&self, step: usize) -> Option<Act> {
        Some(self.plan.as_ref()?.steps.get(step)?.act)
    }

    fn is_effect(&self, step: usize) -> bool {
        step == self.step && self.act(step).is_some_and(Act::has_effect)
    }

    fn is_optional(&self, step: usize) -> bool {
        self.plan.as_ref().and_then(|plan| plan.steps.get(step)).is_some_and(|step| step.optional)
    }

    /// What the holder may have become. `is_turn`: in the plan's order, where nothing is left to do about what no step ends.
    fn saw_derived(&mut self, seen: &Derived, is_turn: bool) {
        self.derived = Some(self.derived.take().unwrap_or_default().seen_again(seen));
        if !is_turn {
            return;
        }
        let steps = self.plan.as_ref().map_or(&[][..], |plan| plan.steps.as_slice());
        let ends = |name: &String| steps.iter().any(|s| s.act == Act::RevokeDerived && s.place.as_ref() == Some(name));
        let lives_on = seen.more > 0 || seen.roles.iter().any(|role| !ends(&role.name));
        let left = [(lives_on, Residue::Derived), (!seen.whole, Residue::DerivedUnknown)];
        let left: Vec<Residue> = left.into_iter().filter(|(is_so, _)| *is_so).map(|(_, one)| one).collect();
        self.leave(&left);
    }

    /// The sessions of the current step's role are denied.
    fn denied(&mut self, before_ms: Option<i64>) {
        let role = self.current().and_then(|step| step.place.clone());
        if let (Some(derived), Some(role)) = (&mut self.derived, role) {
            derived.deny(&role, before_ms);
        }
    }

    /// Whose value it is that its agent reads now.
    fn moves(&mut self, act: Act) {
        let Some(agent) = self.current().and_then(|step| step.agent.as_ref()).map(|agent| agent.name.clone()) else {
            return;
        };
        if matches!(act, Act::Promote | Act::Revert) {
            self.moved.retain(|one| one.agent != agent);
        }
        if act == Act::Promote {
            self.moved.push(Moved { agent, withheld: self.turn.withheld });
        }
    }

    fn advance(&mut self) {
        let agent = self.current().and_then(|step| step.agent.clone());
        self.step += 1;
        // Another one's turn: what is known of values was about the one before.
        if self.current().is_some_and(|next| next.agent != agent) {
            self.turn = Turn { promoted_ms: self.turn.promoted_ms, ..Turn::default() };
        }
        self.attempts = 0;
        self.in_doubt = false;
        self.looked = false;
        self.last_failure = None;
    }

    fn note_requests<'a>(&mut self, ids: impl IntoIterator<Item = &'a String>) {
        self.requests.extend(ids.into_iter().cloned());
        self.requests.drain(..self.requests.len().saturating_sub(MAX_REQUESTS));
    }

    fn leave(&mut self, residue: &[Residue]) {
        for one in residue {
            if !self.residue.contains(one) {
                self.residue.push(*one);
            }
        }
    }
}
