//! A case: one enforcement on one credential, from the decision to its verdict. PURE.
//!
//! A case is a row ([`Case`]) and a list of [`record::Record`]s; the row's [`state::State`] is always the fold of its
//! records. The executor asks [`state::State::todo`] what comes next and appends what happened: that is also the
//! recovery path, since nothing else is remembered.

pub mod derived;
pub mod plan;
pub mod rank;
pub mod record;
pub mod said;
mod series;
pub mod state;
pub mod turn;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::rank::Rank;
use self::record::{Observation, Presence};
use crate::credential::CredentialId;
use crate::scope::{Cut, Move};
use crate::task::{RunKey, Tenant};

/// A case's id (UUIDv7), also the id of its outcome.
pub type CaseId = Uuid;

/// What a case enforces, weakest first: the order is the one of superseding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// State is recorded, nothing is enforced.
    Track,
    /// Looks whether it is dead, as was recorded. If it is alive, the case goes on with more, or a person decides.
    Verify,
    /// Its identity may do less: named permissions are taken from it.
    Reduce,
    /// What a reduction took is given back. Only an operator asks for it.
    Restore,
    /// Rotated for hygiene: the new value works before the old one dies, where the system allows that.
    Rollover,
    /// Those that share it get a user of their own each, one after another; then it dies.
    Split,
    /// Rotated because it leaked: the old value dies first, and nobody waits for its users.
    Contain,
    /// The credential dies, and nothing takes its place.
    Revoke,
}

impl Action {
    /// All of them, weakest first.
    pub const ALL: [Self; 8] = [
        Self::Track,
        Self::Verify,
        Self::Reduce,
        Self::Restore,
        Self::Rollover,
        Self::Split,
        Self::Contain,
        Self::Revoke,
    ];

    /// The name in events, metrics and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Verify => "verify",
            Self::Reduce => "reduce",
            Self::Restore => "restore",
            Self::Rollover => "rollover",
            Self::Split => "split",
            Self::Contain => "contain",
            Self::Revoke => "revoke",
        }
    }

    /// Whether it puts a new value in the place of the old one.
    pub fn rotates(self) -> bool {
        matches!(self, Self::Rollover | Self::Contain)
    }

    /// Whether it is about what the identity may do, and not about its value.
    pub fn rescopes(self) -> bool {
        matches!(self, Self::Reduce | Self::Restore)
    }
}

/// What set a case off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The task's end event.
    TaskEnd,
    /// A grant that was registered, or a start that arrived, after the end.
    LateStart,
    /// The deadline passed without an end event.
    Deadline,
    /// Heartbeats stopped.
    Heartbeat,
    /// The issuer still holds what should be gone.
    Reconcile,
    /// A scanner's finding.
    Finding,
    /// It is older than its rule allows.
    Age,
    /// An operator.
    Operator,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::TaskEnd,
        Self::LateStart,
        Self::Deadline,
        Self::Heartbeat,
        Self::Reconcile,
        Self::Finding,
        Self::Age,
        Self::Operator,
    ];

    /// The name in events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskEnd => "task_end",
            Self::LateStart => "late_start",
            Self::Deadline => "deadline",
            Self::Heartbeat => "heartbeat",
            Self::Reconcile => "reconcile",
            Self::Finding => "finding",
            Self::Age => "age",
            Self::Operator => "operator",
        }
    }
}

/// How soon a case must be worked on; claims go through it from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Slow re-checks.
    Background,
    /// Own events: deadlines, reconcile.
    Routine,
    /// A task ended.
    Prompt,
    /// Containment, operators.
    Urgent,
}

impl Urgency {
    /// All, most urgent first.
    pub const DESCENDING: [Self; 4] = [Self::Urgent, Self::Prompt, Self::Routine, Self::Background];

    /// Its place from the least urgent.
    pub fn rank(self) -> i64 {
        self as i64
    }
}

/// Why a case does not act now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// `curfew freeze`.
    Frozen,
    /// The journal may be older than what was published; a person must release it.
    StartedHeld,
    /// The realm's mode is `observe`: this is what would be done.
    Observe,
    /// More than the cap allows this minute; goes on by itself.
    Cap,
    /// The topic's authority does not reach this far.
    Authority,
    /// Outside the realm's allowed prefixes.
    Prefix,
    /// One of Curfew's own credentials, or root.
    Protected,
    /// The issuer's metadata names another task.
    OtherTask,
    /// Nobody registered it and its prefix is not declared exclusive.
    Unregistered,
    /// No connector of this process serves its kind and instance.
    Unserved,
    /// A finding that the rules leave to a person; or what was called dead lives, and nobody asked to end it.
    Finding,
    /// Nobody said how it is rotated: no recipe of this process names it.
    NoRecipe,
    /// The target took none of the candidates, or a step of theirs never will succeed: what was made of them is undone.
    CandidateRejected,
    /// Not all consumers have taken the new value in time, and the rule says to wait for a person.
    NotAdopted,
    /// A consumer cannot work with the new value: the old one was given back.
    Unhealthy,
    /// Whoever answers for the identity was told what it will lose, and has time to say no.
    Notice,
    /// Whoever answers for it wants it kept as it is, for a time.
    Kept,
    /// After the reduction the identity had more, or less, than it was to have: what was taken was given back.
    Differs,
    /// The wall clock cannot be trusted for deadlines.
    Clock,
    /// The provider says it never will.
    Refused,
}

impl HoldReason {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Frozen,
        Self::StartedHeld,
        Self::Observe,
        Self::Cap,
        Self::Authority,
        Self::Prefix,
        Self::Protected,
        Self::OtherTask,
        Self::Unregistered,
        Self::Unserved,
        Self::Finding,
        Self::NoRecipe,
        Self::CandidateRejected,
        Self::NotAdopted,
        Self::Unhealthy,
        Self::Notice,
        Self::Kept,
        Self::Differs,
        Self::Clock,
        Self::Refused,
    ];

    /// The name in events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::StartedHeld => "started_held",
            Self::Observe => "observe",
            Self::Cap => "cap",
            Self::Authority => "authority",
            Self::Prefix => "prefix",
            Self::Protected => "protected",
            Self::OtherTask => "other_task",
            Self::Unregistered => "unregistered",
            Self::Unserved => "unserved",
            Self::Finding => "finding",
            Self::NoRecipe => "no_recipe",
            Self::CandidateRejected => "candidate_rejected",
            Self::NotAdopted => "not_adopted",
            Self::Unhealthy => "unhealthy",
            Self::Notice => "notice",
            Self::Kept => "kept",
            Self::Differs => "differs",
            Self::Clock => "clock",
            Self::Refused => "refused",
        }
    }

    /// Whether the guard is asked again by itself after a while, or only a person or an event moves the case.
    pub fn rechecks(self) -> bool {
        use HoldReason as H;
        matches!(
            self,
            H::Frozen
                | H::StartedHeld
                | H::Observe
                | H::Cap
                | H::Unserved
                | H::NoRecipe
                | H::Clock
                | H::Notice
                | H::Kept
        )
    }
}

/// What a policy decision asks of one credential: opens a case, joins it or supersedes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// What it is about.
    pub credential: CredentialId,
    /// What to do.
    pub action: Action,
    /// What set it off.
    pub trigger: Trigger,
    /// How soon.
    pub urgency: Urgency,
    /// Opens held, for this reason; a person or a stronger event lets it go on.
    pub held: Option<HoldReason>,
    /// Whose credential it was.
    pub run: Option<RunKey>,
    /// When the task was over: where overrun is counted from.
    pub end_ms: Option<i64>,
    /// Broker append time of the event: where `task_end_to_dead` is counted from.
    pub broker_ms: i64,
    /// `topic` of the event, for the guard's authority check; own events: `curfew`.
    pub topic: String,
    /// Of an own event (deadline, silence, reconcile): the topics that registered the grants on which it rests. The
    /// authority of any of them bounds it, and Curfew's own does not count. Empty: it rests on no producer's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grantors: Vec<String>,
    /// The key of the finding that asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// Which of the credential's values it is about: the version of the store that held it. `None`: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Whoever answers for it was told, and has until then (our clock) to say no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<i64>,
    /// Of a reduction or a restoration: which permissions. Of a split that does not move all: whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Box<Cut>>,
}

impl Directive {
    /// What follows when it was carried out and what it was to end still works: the same again. Something that was called
    /// dead and lives is contained, where it `rotates`, else revoked. That is about the credential as a whole: whichever
    /// value it was that lives, after a new one it does not.
    ///
    /// A look that nobody asked for only proposes it, and a person decides: who gave the credential back may have meant
    /// to. What was opened held was let go by a person before it came to a proof, and so is what follows.
    pub fn refuted(&self, rotates: bool) -> Self {
        match self.action {
            Action::Verify => {
                let action = if rotates { Action::Contain } else { Action::Revoke };
                let held = (self.trigger == Trigger::Reconcile).then_some(HoldReason::Finding);
                Self { action, urgency: Urgency::Urgent, generation: None, held, ..self.clone() }
            }
            _ => Self { held: None, ..self.clone() },
        }
    }

    /// Of a split that moves only those who are named: whom.
    pub fn moves(&self) -> Option<&[Move]> {
        let moves = self.cut.as_deref().map_or(&[][..], |cut| cut.moves.as_slice());
        (self.action == Action::Split && !moves.is_empty()).then_some(moves)
    }

    /// The topics on whose authority it rests: any of them will do.
    pub fn asked_by(&self) -> impl Iterator<Item = &str> {
        let itself = self.grantors.is_empty().then_some(self.topic.as_str());
        self.grantors.iter().map(String::as_str).chain(itself)
    }
}

/// The row of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Its id.
    pub id: CaseId,
    /// Whose.
    pub tenant: Tenant,
    /// The newest directive that it carries out.
    pub directive: Directive,
    /// What calls go to: the unit of fairness, limits and breakers.
    pub system: String,
    /// At most one claimed case per lane.
    pub lane: String,
    /// The user name at the system behind, where a producer named it.
    pub principal: Option<String>,
    /// Whether the issuer was ever seen to know the credential.
    pub seen_ms: Option<i64>,
    /// When it was opened (our clock).
    pub opened_ms: i64,
    /// The producer's trace context, carried through.
    pub traceparent: Option<String>,
    /// The number of appends so far: the next append is conditional on it.
    pub seq: i64,
    /// The credential's blast radius, as reach knew it when this was opened: each target that it opens, with its zone's weight. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blast: Option<u64>,
    /// Whether it was charged to the cap.
    pub charged: bool,
    /// The fold of its records.
    pub state: state::State,
}

impl Case {
    /// Its place in the order of claims.
    pub fn rank(&self) -> Rank {
        Rank::of(self.directive.urgency, self.blast)
    }

    /// Whether its end is the credential's. After a rotation only an older value is dead, and so it is where an older
    /// value was looked at. A revoke ends all of it, also where it took over in the midst of a rotation.
    pub fn ends_credential(&self) -> bool {
        let looks_at_older = self.directive.action == Action::Verify && self.directive.generation.is_some();
        // Who is moved off it leaves it to the others.
        let of_value = !self.directive.action.rescopes() && self.directive.moves().is_none();
        self.directive.action == Action::Revoke || (self.state.own_turn().new.is_none() && !looks_at_older && of_value)
    }

    /// Whether nobody but who named it ever knew it: its issuer does not, and did not before. Then nobody is shut out elsewhere
    /// because of it.
    pub fn is_invented(&self) -> bool {
        self.seen_ms.is_none() && self.state.is_baseless()
    }

    /// Whether it lives, whatever was recorded before: a new value took its place, or its issuer showed it. The user of a
    /// stored credential is there also when no value of it lets anybody in.
    pub fn lives(&self, seen: Option<&Observation>) -> bool {
        let is_shown = seen.is_some_and(|seen| seen.presence == Presence::Present);
        self.settled().is_some() || (is_shown && !self.directive.credential.kind().rotates())
    }

    /// The version that is in use from now on, once the one before it is dead, and since when. Until then that one counts.
    pub fn settled(&self) -> Option<(i64, Option<i64>)> {
        let turn = self.state.own_turn();
        turn.new.as_ref().filter(|_| self.state.is_closed()).map(|new| (new.version, turn.promoted_ms))
    }
}
