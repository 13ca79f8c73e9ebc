//! The decision itself. A [`Draft`] lays what an event changes over the view; what differs at the end are the changes.

mod findings;
mod grants;
mod leaving;
mod own;
mod rotations;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Change, Decision, Reason, Rules, Verb, View, Word};
use crate::case::{Action, Directive, Trigger, Urgency};
use crate::credential::CredentialId;
use crate::event::{Data, Event};
use crate::finding::{Finding, Mark};
use crate::task::{Credential, Grant, GrantPhase, Phase, RunKey, Task, Tenure};

/// How many ids the facts name at most.
const FACT_IDS: usize = 8;
/// How many bytes of an id the facts quote at most.
const FACT_ID_BYTES: usize = 120;
/// A reconcile list may be this much older than the death that it does not know of yet.
const LIST_AGE_MS: i64 = 60_000;
/// How the outcome of a run begins that goes on under another key: what comes late for it belongs to that key.
const CONTINUED: &str = "continued_as ";
/// The outcome of a run whose end Curfew noticed and nobody told.
const LOST: &str = "lost";

/// Whether whoever ran a task said that it is over, and over for good: by the outcome that is recorded of it.
pub fn is_told(outcome: Option<&str>) -> bool {
    outcome.is_none_or(|outcome| outcome != LOST && !outcome.starts_with(CONTINUED))
}

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
        Data::CredentialRegistered(it) => draft.inventoried(it),
        Data::CredentialAdopted(it) => draft.adopted(it),
        Data::FindingObserved(it) => draft.finding(it),
        Data::FindingClosed(it) => draft.finding_closed(it),
        Data::DeadlinePassed { run, deadline_ms } => draft.deadline(run, *deadline_ms),
        Data::HeartbeatMissed { run, last_beat_ms } => draft.silent(run, *last_beat_ms),
        Data::ReconcileFound { credential, run, exclusive } => draft.found(credential, run.as_ref(), *exclusive),
        Data::RotationDue { credential, version, age_ms } => draft.due(credential, *version, *age_ms),
        Data::SessionsOver { credential } => draft.sessions_over(credential),
        Data::IdentityOffboarded(it) => draft.offboarded(it),
        Data::FenceOver { credential, cut } => draft.fence_over(credential, cut),
        Data::OperatorOffboard { node, back: true, .. } => draft.onboarded(node),
        Data::OperatorOffboard { node, until_ms, by, reason, .. } => {
            draft.leaves(node, None, *until_ms, Some(by), reason)
        }
        Data::OperatorRotate { credential, how, agents, .. } => draft.rotate(credential, *how, agents),
        Data::OperatorReduce { credential, cut, not_before_ms, .. } => {
            draft.rescope(credential, (cut, *not_before_ms), Action::Reduce)
        }
        Data::OperatorRestore { credential, cut, .. } => draft.rescope(credential, (cut, None), Action::Restore),
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
    findings: Vec<Finding>,
    marks: Vec<Mark>,
    leaving: Vec<Change>,
    directives: Vec<Directive>,
    words: Vec<(CredentialId, Word)>,
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
            findings: Vec::new(),
            marks: Vec::new(),
            leaving: Vec::new(),
            directives: Vec::new(),
            words: Vec::new(),
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
            .chain(self.findings.into_iter().map(Change::Finding))
            .chain(self.marks.into_iter().map(Change::Mark))
            .chain(self.leaving)
            .collect();
        Decision {
            verb,
            reason,
            facts: Value::Object(self.facts),
            changes,
            directives: self.directives,
            words: self.words,
        }
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
