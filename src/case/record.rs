//! Records: what happened to a case, in past tense. Append-only in the journal, no secret in them. PURE.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::derived::Derived;
use super::plan::Plan;
use super::{Directive, HoldReason};
use crate::scope::{Permission, Scope};

/// What a look at a credential showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Whether the system knows it.
    pub presence: Presence,
    /// When it was looked.
    pub at_ms: i64,
    /// When it was issued.
    pub issued_ms: Option<i64>,
    /// When it dies by itself.
    pub expires_ms: Option<i64>,
    /// The run that the issuer's metadata names: `curfew_run` (a whole run key) or `task_id`.
    pub run: Option<String>,
    /// Of a token: the AppRole by which it logged in, `<mount>/<role>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The issuer cannot revoke it, it only expires (Vault batch tokens).
    pub only_expires: bool,
    /// It is one of Curfew's own, or root: never touched.
    pub protected: bool,
    /// The user's immutable id at a target (PostgreSQL: its OID).
    pub principal_id: Option<String>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// Of a look into a store: the version that is current there, and whose value it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Generation>,
    /// Whether the provider itself has marked its user as compromised, where that was looked at. Evidence of exposure, and no
    /// containment: what it denies is a list of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<bool>,
    /// What this Curfew put beside it has nothing left to deny: it can be taken off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lifts: bool,
    /// Of a look at who has keys that the provider names: their public ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// Of a look at an identity's permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Of a look at what its holder may have become with it ([`ROLES`](super::plan::ROLES)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Derived>,
}

/// One value of a credential, by where it is stored. Says nothing of the value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// The store's version.
    pub version: i64,
    /// The user name that it is for, where two take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Whether a system knows a credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It does.
    Present,
    /// It clearly does not.
    Gone,
    /// The answer allows neither.
    #[default]
    Unclear,
}

/// The level at which something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The issuer does not know it any more, after a synchronous revoke.
    Issuer,
    /// The system behind refuses it and has no session left.
    Target,
}

/// One probe's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The old credential is refused.
    Refused,
    /// The old credential still works.
    Accepted,
    /// Neither can be said: never counted for or against.
    Unknown,
}

/// A probe's answer with what makes it believable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// At which level.
    pub level: Level,
    /// What it said.
    pub answer: Answer,
    /// When it was asked (our clock, before the call).
    pub at_ms: i64,
    /// Whether a control showed that the path works: the same path answered for something known to live.
    pub control: bool,
    /// What is left behind though the credential is dead, such as open sessions or tokens that cannot be listed.
    pub residue: Vec<Residue>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
}

/// What may outlive a dead credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residue {
    /// Sessions that were opened with it and that we may not end.
    Sessions,
    /// What was derived from it cannot be listed.
    DerivedUnknown,
    /// What was derived from it lives on, until the times that stand in the outcome.
    Derived,
    /// We were not allowed to disable the login before the revoke.
    NotFenced,
    /// The entity behind it was not closed with it: others log in as it as well, or we may not.
    EntityOpen,
    /// It cannot be used any more, but what it owns keeps it from being removed.
    CleanupPending,
    /// The old value, dead as it is, is still stored.
    OldValueStored,
    /// Not all consumers were seen to take the new value before the old one was cut.
    NotAdopted,
    /// Another place where consumers read does not have the new value.
    CopyNotUpdated,
    /// Who was to be called about the new value was not reached.
    NotNotified,
    /// Tokens that were issued before keep what they were given until they expire.
    OlderTokens,
    /// It lives for others, and who was moved off it may still know it.
    StillShared,
    /// It is disabled, not destroyed: who administers its issuer can enable it again.
    Disabled,
}

/// How a call failed: all that the executor reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FailureKind {
    /// Nothing happened; the same again later.
    Unavailable,
    /// Nothing happened; not before `after_ms` from now.
    Throttled {
        /// The provider's wish, where it names one.
        after_ms: Option<i64>,
    },
    /// May have happened: look before repeating.
    Unknown,
    /// Our own access: block the system, burn no attempts.
    Denied,
    /// Never will.
    Refused,
    /// Nothing there any more.
    Gone,
    /// The target will not take this candidate; another one it may.
    Rejected,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unavailable,
        Self::Throttled { after_ms: None },
        Self::Unknown,
        Self::Denied,
        Self::Refused,
        Self::Gone,
        Self::Rejected,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Throttled { .. } => "throttled",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Rejected => "rejected",
        }
    }
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A step's result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The provider's ids of the requests.
    pub request_ids: Vec<String>,
    /// What is known to remain.
    pub residue: Vec<Residue>,
    /// How many derived things were killed.
    pub derived: u32,
    /// Of [`Act::Provision`](super::plan::Act::Provision): how many of the shared user's grants its agent's own has not.
    #[serde(default, skip_serializing_if = "is_none")]
    pub withheld: u32,
    /// Of [`Act::Promote`](super::plan::Act::Promote) and [`Act::Mint`](super::plan::Act::Mint): what consumers read now. Of
    /// [`Act::Copy`](super::plan::Act::Copy): the same at that place, whose versions are its own. Of an
    /// [`Act::Create`](super::plan::Act::Create) at a target: what it called the key that it made; no store has a version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Generation>,
    /// When the system did it, by its own clock. Of an [`Act::RevokeDerived`](super::plan::Act::RevokeDerived) at a role: what
    /// was opened before is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_ms: Option<i64>,
    /// The same, where a system does not say when its sessions began: what it tells the older ones from the younger ones by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// P8: exactly one of these is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Verdict {
    /// Seen dead.
    Dead {
        /// At which level.
        level: Level,
        /// When it was first refused in the unbroken proving series.
        at_ms: i64,
        /// The sightings that count.
        sightings: u32,
        /// Whether this case killed it, or it was found dead.
        by: KilledBy,
        /// What may remain.
        residue: Vec<Residue>,
    },
    /// Its identity was seen not to have the named permissions any more, and to have all others.
    Reduced {
        /// When it was first seen so in the unbroken proving series.
        at_ms: i64,
        /// The sightings that count.
        sightings: u32,
        /// How many of the named permissions this case took; the others it did not have. Of a split that moves some: how many grants
        /// of the shared user their own have not.
        taken: u32,
        /// What may remain.
        residue: Vec<Residue>,
    },
    /// Its identity was seen to have again what a reduction took.
    RolledBack {
        /// When.
        at_ms: i64,
    },
    /// Cannot be killed; dies by itself.
    DiesAt {
        /// When.
        at_ms: i64,
    },
    /// Lives because somebody decided so.
    Alive {
        /// Why nothing is done.
        by: HoldReason,
    },
    /// Cannot be said.
    Unknown {
        /// Why.
        why: UnknownWhy,
    },
    /// The issuer never was seen to know it: a typo, or gone before we looked.
    NotFound,
    /// The reason for the case is gone (finding closed, grant released).
    Obsolete,
}

impl Verdict {
    /// The name in events and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Dead { .. } => "dead",
            Self::Reduced { .. } => "reduced",
            Self::RolledBack { .. } => "rolled_back",
            Self::DiesAt { .. } => "dies_at",
            Self::Alive { .. } => "alive",
            Self::Unknown { .. } => "unknown",
            Self::NotFound => "not_found",
            Self::Obsolete => "obsolete",
        }
    }

    /// Whether it closes a case (P8).
    pub fn closes(&self) -> bool {
        use Verdict as V;
        matches!(self, V::Dead { .. } | V::Reduced { .. } | V::RolledBack { .. } | V::NotFound | V::Obsolete)
    }
}

/// Who killed a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KilledBy {
    /// This case.
    Curfew,
    /// It had expired, or somebody else had killed it.
    Others,
}

/// Why nothing can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownWhy {
    /// Not worked on yet.
    Pending,
    /// An effect was started and its answer is missing.
    InDoubt,
    /// The system does not answer.
    Unreachable,
    /// Sightings do not prove it yet.
    Proving,
    /// An operator gave up on acting; probing goes on.
    Abandoned,
    /// It was held when something had been done that may have ended it, and nothing proves that yet.
    Held(HoldReason),
}

/// One thing that happened to a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "record")]
pub enum Record {
    /// Always the first: why the case exists.
    Opened {
        /// The directive.
        directive: Directive,
    },
    /// Another event asked for the same or less; the case stays as it is.
    Joined {
        /// The directive.
        directive: Directive,
    },
    /// A stronger event took over: the plan is made again from where it stands.
    Superseded {
        /// The directive that now counts.
        by: Directive,
    },
    /// The plan.
    Planned {
        /// Its number within the case, from 1.
        no: u32,
        /// The steps.
        plan: Plan,
    },
    /// A look.
    Observed {
        /// Index of the step.
        step: usize,
        /// What it showed.
        seen: Observation,
    },
    /// An effect is about to happen. Durable before it does.
    Started {
        /// Index of the step.
        step: usize,
        /// Its idempotency token.
        key: Uuid,
        /// From 1.
        attempt: u32,
    },
    /// The effect happened.
    Succeeded {
        /// Index of the step.
        step: usize,
        /// What came of it.
        output: Output,
    },
    /// The step failed.
    Failed {
        /// Index of the step.
        step: usize,
        /// How.
        failure: FailureKind,
        /// A short text of ours, without the provider's words.
        note: String,
        /// Of an effect of several calls: this attempt changed nothing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        untouched: bool,
    },
    /// A gate is open.
    Passed {
        /// Index of the step.
        step: usize,
        /// Of a value that its provider set: what was open at the target before is of the old one, by the target's clock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut_ms: Option<i64>,
    },
    /// The old value is proven dead; what is still stored of it remains to be destroyed.
    Proven {
        /// Index of the `Prove` step.
        step: usize,
        /// What was proven.
        verdict: Verdict,
    },
    /// A consumer's word on the new value.
    Answered {
        /// Who, as it calls itself.
        consumer: String,
        /// The version that it means.
        version: i64,
        /// It cannot work with it.
        failed: bool,
        /// The topic that says so.
        by: String,
    },
    /// The reason for the case is gone before anything was done.
    Withdrawn {
        /// The topic that says so.
        by: String,
    },
    /// Of what a reduction froze these stay: they were used since, and nothing was taken yet.
    Spared {
        /// Which.
        permissions: Vec<Permission>,
        /// The topic that says so.
        by: String,
    },
    /// An optional step was left out.
    Skipped {
        /// Index of the step.
        step: usize,
        /// What that leaves.
        residue: Option<Residue>,
    },
    /// A probe's answer.
    Sighted {
        /// Index of the `Prove` step.
        step: usize,
        /// The answer.
        sighting: Sighting,
    },
    /// The guard said no.
    Held {
        /// Why.
        reason: HoldReason,
    },
    /// The guard, or a person, said yes again.
    Resumed {
        /// `guard`, or who.
        by: String,
    },
    /// Whoever answers for an identity wants it kept as it is, for a time.
    Kept {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Until when (our clock).
        until_ms: i64,
    },
    /// A person decided that no more effects are tried; probing goes on.
    Abandoned {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The end.
    Closed {
        /// One that closes.
        verdict: Verdict,
    },
}

impl Record {
    /// The record's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Joined { .. } => "joined",
            Self::Superseded { .. } => "superseded",
            Self::Planned { .. } => "planned",
            Self::Observed { .. } => "observed",
            Self::Started { .. } => "started",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Passed { .. } => "passed",
            Self::Proven { .. } => "proven",
            Self::Answered { .. } => "answered",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Spared { .. } => "spared",
            Self::Skipped { .. } => "skipped",
            Self::Sighted { .. } => "sighted",
            Self::Held { .. } => "held",
            Self::Resumed { .. } => "resumed",
            Self::Kept { .. } => "kept",
            Self::Abandoned { .. } => "abandoned",
            Self::Closed { .. } => "closed",
        }
    }
}
