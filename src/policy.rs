//! What to do about an event. PURE: [`decide()`] sees the event and a [`View`] of what the journal knows, and returns a
//! [`Decision`] made of data. The journal applies it, in the transaction in which it loaded the view.

pub(crate) mod decide;
pub mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::decide::{decide, is_told};
pub use self::rules::Rules;
use crate::case::state::Phase;
use crate::case::{Action, Case, Directive, HoldReason, Trigger};
use crate::credential::CredentialId;
use crate::event::{Data, Event, GrantSpec};
use crate::finding::{self, Finding, Mark};
use crate::fingerprint::Fingerprint;
use crate::offboard::Offboarding;
use crate::reach::Node;
use crate::reach::notice::TOPIC;
use crate::reach::uses::apply;
use crate::scope::Permission;
use crate::task::{Credential, Grant, RunKey, Task, Tenant};

/// What a decision says, strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Nothing follows.
    Ignore,
    /// State is recorded.
    Track,
    /// A case is opened held.
    Hold,
    /// It is looked whether something is as dead as recorded.
    Verify,
    /// Permissions are taken from an identity.
    Reduce,
    /// What was taken is given back.
    Restore,
    /// Something is rotated, the new value first.
    Rollover,
    /// Those that share something get one of their own each.
    Split,
    /// Something is rotated, the old value first.
    Contain,
    /// Something must die.
    Revoke,
}

impl Verb {
    /// The name in the journal and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Track => "track",
            Self::Hold => "hold",
            Self::Verify => "verify",
            Self::Reduce => "reduce",
            Self::Restore => "restore",
            Self::Rollover => "rollover",
            Self::Split => "split",
            Self::Contain => "contain",
            Self::Revoke => "revoke",
        }
    }
}

/// Why it was decided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A start, extension, heartbeat, grant or release was noted.
    Noted,
    /// The task ended.
    TaskEnded,
    /// The task ended with nothing to cut.
    NothingHeld,
    /// Every credential is shared with a task that still runs.
    SharedByLiveTask,
    /// The end came before: what is registered now is cut at once.
    EndedBefore,
    /// A second end; the first terminal state wins.
    AlreadyEnded,
    /// About an older attempt than the one that runs.
    OlderAttempt,
    /// The run goes on under another key.
    Continued,
    /// The deadline passed.
    DeadlinePassed,
    /// The task fell silent.
    Silent,
    /// The deadline or heartbeat that fired is no longer the newest.
    Outdated,
    /// The issuer holds what should be gone.
    Unexpected,
    /// Nobody registered it.
    Unregistered,
    /// Known and as expected.
    Expected,
    /// A finding that the rules leave to a person.
    FindingHeld,
    /// A finding without a credential that is known here.
    FindingUnmatched,
    /// A finding of a credential that is known here: the rules said what to do.
    FindingMatched,
    /// A finding of a value that is recorded as dead.
    FindingOfDead,
    /// A finding that the rules ignore.
    FindingIgnored,
    /// Seen before, and nothing about it is worse now.
    FindingKnown,
    /// Closed by a topic that never observed it.
    FindingForeign,
    /// A honeytoken is never touched.
    Honeytoken,
    /// A finding was closed by its producer.
    FindingClosed,
    /// A value is about to be older than its recipe allows.
    RotationDue,
    /// What denied the sessions of a dead credential has nothing left to deny.
    SessionsOver,
    /// Somebody leaves: what it holds is found from now on.
    Offboarded,
    /// Somebody stays after all.
    Onboarded,
    /// A fence has stood as long as it was to.
    FenceOver,
    /// A consumer took the new value.
    Adopted,
    /// A consumer cannot work with the new value: the old one comes back.
    AdoptionFailed,
    /// A consumer's word on a value of which nobody waits to hear, or on which nothing can be done any more.
    NotAwaited,
    /// An operator said so.
    Operator,
}

/// One change to what the journal knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Insert or replace a task.
    Task(Task),
    /// Insert or replace a grant.
    Grant(Grant),
    /// Insert or replace a credential.
    Credential(Credential),
    /// Insert or replace a finding.
    Finding(Finding),
    /// Insert a mark.
    Mark(Mark),
    /// Somebody leaves.
    Offboarded(Offboarding),
    /// Whoever said that somebody leaves, it is not so any more.
    Onboarded(Tenant, Node),
}

/// The recorded answer to one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub verb: Verb,
    /// Why.
    pub reason: Reason,
    /// The facts that it saw: bounded, no secrets.
    pub facts: serde_json::Value,
    /// What becomes of the journal's knowledge.
    pub changes: Vec<Change>,
    /// What is asked of credentials: each links to one case.
    pub directives: Vec<Directive>,
    /// What the open cases of these credentials are told.
    pub words: Vec<(CredentialId, Word)>,
}

/// What an open case is told that goes on with what it is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It has lost its reason.
    Withdrawn,
    /// These of what a reduction froze were used since.
    Spared(Vec<Permission>),
    /// A consumer has the new value, or cannot work with it.
    Answered {
        /// Who.
        consumer: String,
        /// Which version.
        version: i64,
        /// It cannot work with it.
        failed: bool,
    },
}

/// What the journal knows of everything that a batch of events touches.
///
/// Of one tenant. Loaded by [`keys`], [`also_run`] and [`whole_run`]: the tasks and grants of the events' runs, their
/// credentials, all other grants of these credentials with their tasks, and their open cases.
#[derive(Debug, Default)]
pub struct View {
    /// Tasks by run.
    pub tasks: HashMap<RunKey, Task>,
    /// Grants by run and credential.
    pub grants: HashMap<(RunKey, CredentialId), Grant>,
    /// Credentials.
    pub credentials: HashMap<CredentialId, Credential>,
    /// Open cases by credential.
    pub cases: HashMap<CredentialId, Arc<Case>>,
    /// Runs whose grants are indexed by credential: who else holds it.
    pub holders: HashMap<CredentialId, HashSet<RunKey>>,
    /// Credentials of a run.
    pub held: HashMap<RunKey, HashSet<CredentialId>>,
    /// The parts of a run.
    pub parts: HashMap<RunKey, BTreeSet<RunKey>>,
    /// Findings by [`finding::id`].
    pub findings: HashMap<String, Finding>,
    /// Whose values have these fingerprints.
    pub marks: HashMap<Fingerprint, HashSet<Mark>>,
    /// Ids of unmatched findings by fingerprint; the findings themselves are loaded as well.
    pub waiting: HashMap<Fingerprint, BTreeSet<String>>,
    /// What was changed since it was loaded.
    pub dirty: Vec<Change>,
}

impl View {
    /// Puts a loaded or changed task into all indexes.
    pub fn put_task(&mut self, task: Task) {
        if let Some(whole) = &task.within {
            self.parts.entry(whole.clone()).or_default().insert(task.run.clone());
        }
        self.tasks.insert(task.run.clone(), task);
    }

    /// Puts a loaded or changed grant into all indexes.
    pub fn put_grant(&mut self, grant: Grant) {
        self.holders.entry(grant.credential.clone()).or_default().insert(grant.run.clone());
        self.held.entry(grant.run.clone()).or_default().insert(grant.credential.clone());
        self.grants.insert((grant.run.clone(), grant.credential.clone()), grant);
    }

    /// Puts a loaded or changed finding into all indexes.
    pub fn put_finding(&mut self, finding: Finding) {
        let id = finding.id();
        for fingerprint in &finding.fingerprints {
            let waiting = self.waiting.entry(fingerprint.clone()).or_default();
            if finding.phase == finding::Phase::Unmatched {
                waiting.insert(id.clone());
            } else {
                waiting.remove(&id);
            }
        }
        self.findings.insert(id, finding);
    }

    /// Puts a loaded or changed mark into all indexes.
    pub fn put_mark(&mut self, mark: Mark) {
        self.marks.entry(mark.fingerprint.clone()).or_default().insert(mark);
    }

    /// Makes the changes of a decision visible to the next event of the batch, and notes them as dirty.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Task(task) => self.put_task(task.clone()),
                Change::Grant(grant) => self.put_grant(grant.clone()),
                Change::Credential(credential) => {
                    self.credentials.insert(credential.id.clone(), credential.clone());
                }
                Change::Finding(finding) => self.put_finding(finding.clone()),
                Change::Mark(mark) => self.put_mark(mark.clone()),
                // No decision looks at it: what follows is found in reach.
                Change::Offboarded(_) | Change::Onboarded(..) => {}
            }
            self.dirty.push(change.clone());
        }
    }
}

/// What an event names directly: what a view is loaded by. See [`also_run`] for the one event that names two runs.
pub fn keys(event: &Event) -> (Option<RunKey>, Vec<CredentialId>) {
    let specs = |grants: &[GrantSpec]| grants.iter().map(|grant| grant.credential.clone()).collect();
    match &event.data {
        Data::TaskStarted(it) => (Some(it.run.clone()), specs(&it.grants)),
        Data::TaskExtended(it) => (Some(it.run.clone()), Vec::new()),
        Data::TaskHeartbeat(it) => (Some(it.run.clone()), Vec::new()),
        Data::TaskEnded(it) => (Some(it.run.clone()), specs(&it.grants)),
        Data::GrantRegistered(it) => (Some(it.run.clone()), vec![it.grant.credential.clone()]),
        Data::GrantReleased(it) => (Some(it.run.clone()), vec![it.credential.clone()]),
        Data::CredentialRegistered(it) => (None, vec![it.credential.clone()]),
        Data::CredentialAdopted(it) => (None, vec![it.credential.clone()]),
        Data::FindingObserved(it) => (None, it.credential.iter().cloned().collect()),
        Data::FindingClosed(_) | Data::IdentityOffboarded(_) | Data::OperatorOffboard { .. } => (None, Vec::new()),
        Data::DeadlinePassed { run, .. } | Data::HeartbeatMissed { run, .. } => (Some(run.clone()), Vec::new()),
        Data::ReconcileFound { credential, run, .. } => (run.clone(), vec![credential.clone()]),
        Data::RotationDue { credential, .. }
        | Data::SessionsOver { credential }
        | Data::FenceOver { credential, .. }
        | Data::OperatorRotate { credential, .. }
        | Data::OperatorReduce { credential, .. }
        | Data::OperatorRestore { credential, .. }
        | Data::OperatorRevoke { credential, .. } => (None, vec![credential.clone()]),
    }
}

/// The findings and fingerprints by which a view is loaded as well.
pub fn finding_keys(event: &Event) -> (Option<String>, Vec<Fingerprint>) {
    let id = |key: &str| Some(finding::id(&event.at.topic, key));
    match &event.data {
        Data::FindingObserved(it) => (id(&it.finding_key), it.marks().collect()),
        Data::FindingClosed(it) => (id(&it.finding_key), Vec::new()),
        Data::CredentialRegistered(it) => (None, it.marks().collect()),
        _ => (None, Vec::new()),
    }
}

/// The second run that an event names: one that goes on under another key, or of which this one is a part. A view must
/// hold its task as well, else a running task would be taken for an unknown one.
pub fn also_run(event: &Event) -> Option<RunKey> {
    match &event.data {
        Data::TaskEnded(it) => it.continued_as.clone(),
        Data::TaskStarted(it) => it.within.clone(),
        _ => None,
    }
}

/// How many parts of one run its end reaches: those beyond keep their own deadlines.
pub const PARTS: i64 = 1_000;

/// The run whose parts that still live a view must hold: with its end they are over.
pub fn whole_run(event: &Event) -> Option<&RunKey> {
    match &event.data {
        Data::TaskEnded(it) => Some(&it.run),
        _ => None,
    }
}

/// How a directive meets an open case of the same credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// The open case already does as much: the event only links to it.
    Join,
    /// The directive is stronger, or lifts a hold: it takes the case over.
    Supersede,
}

/// Revoke > track; of two alike the one that is not held wins; never downgrades, but by what reach found itself and says again.
///
/// A directive that is not held takes over a case that waits for just such a directive: a finding or an unregistered
/// lease for the task's end, a topic without authority for another topic, the wrong run for the right one, a deadline
/// under a doubtful clock for an event, what a provider refused or a person abandoned for an operator. What holds by
/// itself and lets go by itself (freeze, cap, observe) is joined.
pub fn meet(open: &Case, directive: &Directive) -> Meeting {
    // It is about to end as obsolete: what joined it now would end with it, and be forgotten.
    if open.state.withdrawn {
        return Meeting::Supersede;
    }
    let now = &open.directive;
    // What waits for somebody's no, or for what a log of use says, is no containment: what is to die now does not wait with it, and
    // does not end with it either where that says no. Nor does a value that may have leaked.
    let silent = apply::rests_on(now).is_some() && apply::rests_on(directive).is_none() && !open.state.acted;
    let waits = (now.not_before_ms.is_some() || silent) && directive.not_before_ms.is_none() && !open.state.begun;
    let leaked = directive.trigger == Trigger::Finding && directive.topic != TOPIC && directive.action.rotates();
    if waits && directive.held.is_none() && (directive.action >= Action::Contain || leaked) {
        return Meeting::Supersede;
    }
    // Nor is what goes on without a notice put off by one.
    let by_operator = directive.trigger == Trigger::Operator;
    let puts_off = directive.not_before_ms.is_some() && now.not_before_ms.is_none();
    if puts_off && !by_operator && now.action > Action::Verify {
        return Meeting::Join;
    }
    // An operator means what the order names, and not what the open case is about.
    let both = directive.action.rescopes() && now.action.rescopes();
    if by_operator && both && (directive.action, &directive.cut) != (now.action, &now.cut) {
        return Meeting::Supersede;
    }
    // What is between two values is brought to its end: a split knows only of those of its agents.
    if directive.action == Action::Split && now.action.rotates() && open.state.acted {
        return Meeting::Join;
    }
    // Who moves all that share it moves those as well of whom the open case is, and never the other way round. Of others than those
    // an operator's word is taken up at once, any other one's where nobody is half moved.
    if directive.action == Action::Split && now.action == Action::Split && directive.held.is_none() {
        match (directive.moves(), now.moves()) {
            (None, Some(_)) => return Meeting::Supersede,
            (Some(_), None) => return Meeting::Join,
            (Some(new), Some(known)) if new.iter().any(|one| known.iter().all(|other| other.agent != one.agent)) => {
                return if by_operator || !open.state.acted { Meeting::Supersede } else { Meeting::Join };
            }
            _ => {}
        }
    }
    // What reach itself found, and says again: who stays after all, and how long somebody is fenced, is as it says now, as long as
    // nobody has begun and nobody else asked for it.
    let same = directive.finding.is_some() && directive.finding == now.finding && directive.topic == TOPIC;
    if same && now.action == Action::Revoke && !(open.state.begun || open.state.acted) {
        let stays = directive.held == Some(HoldReason::Finding) && open.state.joined.is_empty();
        if stays || (directive.action == now.action && directive.cut != now.cut) {
            return Meeting::Supersede;
        }
    }
    if directive.action != now.action {
        return if directive.action > now.action { Meeting::Supersede } else { Meeting::Join };
    }
    if directive.held.is_some() {
        return Meeting::Join;
    }
    // It is about the value that the open case put in the place of another.
    if directive.generation.is_some()
        && directive.generation == open.state.own_turn().new.as_ref().map(|new| new.version)
    {
        return Meeting::Supersede;
    }
    let fired = |trigger| matches!(trigger, Trigger::Deadline | Trigger::Heartbeat);
    let lifts = match &open.state.phase {
        Phase::Held { reason } => match reason {
            HoldReason::Finding | HoldReason::Unregistered => true,
            HoldReason::Authority => directive.asked_by().any(|topic| now.asked_by().all(|before| before != topic)),
            HoldReason::OtherTask => directive.run != now.run,
            HoldReason::Clock => fired(now.trigger) && !fired(directive.trigger),
            HoldReason::Refused => by_operator && now.trigger != Trigger::Operator,
            HoldReason::Notice | HoldReason::Kept | HoldReason::Differs => by_operator,
            _ => false,
        },
        Phase::Abandoned => by_operator,
        Phase::Open | Phase::Closed { .. } => false,
    };
    if lifts { Meeting::Supersede } else { Meeting::Join }
}
