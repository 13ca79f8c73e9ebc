//! Plans: ordered steps, composed by the connectors, recorded before the first one is taken. PURE.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::CaseId;

/// The [`Step::place`] of a look at what the holder of a credential may have become with it. Other places of such a credential
/// are single roles.
pub const ROLES: &str = "roles";

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Looks: what is there now? No effect.
    Observe,
    /// Makes the user that one of several agents gets, with those permissions of the user they share that it needs. Nobody can
    /// log in as it yet.
    Provision,
    /// Makes a candidate and stores it, where nobody reads it yet: durable before anything else knows it.
    Create,
    /// Gives the target the stored candidate.
    Set,
    /// Logs in with the candidate. A gate: without it nothing is promoted.
    Test,
    /// Makes the candidate the value that consumers read.
    Promote,
    /// Writes what consumers read to one other place where it is read as well.
    Copy,
    /// Tells who is to be called that there is another value: its version and place, never the value.
    Notify,
    /// Asks the provider to make another value, to set it at the target and to store it where consumers read: it takes its
    /// time. Then [`Act::Test`] there waits for its end, and [`Act::Mint`] takes down what came of it.
    Begin,
    /// Has the provider make another value: in one call it is set at the target and stored where consumers read.
    Mint,
    /// Waits until the consumers have taken it. A gate.
    Adopt,
    /// Stops new uses reversibly, such as NOLOGIN. Skipped where we may not.
    Disable,
    /// Kills the credential at its issuer. Cannot be reversed.
    Revoke,
    /// Kills what was derived from it: the tokens of a secret_id, the sessions of a role.
    RevokeDerived,
    /// Ends what is still open with it: sessions at the target.
    EndSessions,
    /// Takes off what [`Act::EndSessions`] put, or [`Act::RevokeDerived`] at a role, when it has nothing left to deny.
    Lift,
    /// Closes an identity, so that nothing new can be had by it while its values die one after another. What there was before is
    /// in the look before it; reversible, and no death.
    Fence,
    /// Takes from an identity those of the named permissions that it still has as the case saw them.
    Narrow,
    /// Undoes [`Act::Narrow`] and [`Act::Fence`]: gives them back, exactly as they were.
    Widen,
    /// Looks for sightings of it being refused until they prove it dead.
    Prove,
    /// Destroys what is still stored of the old value, and of candidates.
    Destroy,
    /// Undoes [`Act::Promote`]: what consumers read is the old value again.
    Revert,
    /// Undoes [`Act::Set`]: a single user gets the value back that consumers read, unless it leaked; else the user that
    /// took candidates is disabled.
    Restore,
    /// Undoes [`Act::Create`]: destroys the candidate.
    Discard,
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Observe,
        Self::Provision,
        Self::Create,
        Self::Set,
        Self::Test,
        Self::Promote,
        Self::Copy,
        Self::Notify,
        Self::Begin,
        Self::Mint,
        Self::Adopt,
        Self::Disable,
        Self::Revoke,
        Self::RevokeDerived,
        Self::EndSessions,
        Self::Lift,
        Self::Fence,
        Self::Narrow,
        Self::Widen,
        Self::Prove,
        Self::Destroy,
        Self::Revert,
        Self::Restore,
        Self::Discard,
    ];

    /// The name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Provision => "provision",
            Self::Create => "create",
            Self::Set => "set",
            Self::Test => "test",
            Self::Promote => "promote",
            Self::Copy => "copy",
            Self::Notify => "notify",
            Self::Begin => "begin",
            Self::Mint => "mint",
            Self::Adopt => "adopt",
            Self::Disable => "disable",
            Self::Revoke => "revoke",
            Self::RevokeDerived => "revoke_derived",
            Self::EndSessions => "end_sessions",
            Self::Lift => "lift",
            Self::Fence => "fence",
            Self::Narrow => "narrow",
            Self::Widen => "widen",
            Self::Prove => "prove",
            Self::Destroy => "destroy",
            Self::Revert => "revert",
            Self::Restore => "restore",
            Self::Discard => "discard",
        }
    }

    /// Whether it changes anything outside: then it stands behind the guard and a durable `Started`.
    pub fn has_effect(self) -> bool {
        !matches!(self, Self::Observe | Self::Prove) && !self.is_gate()
    }

    /// Whether it only asks if the plan may go on.
    pub fn is_gate(self) -> bool {
        matches!(self, Self::Test | Self::Adopt)
    }

    /// Whether the target may have another value once it was begun.
    pub fn gives(self) -> bool {
        matches!(self, Self::Set | Self::Begin)
    }

    /// Whether it takes from an identity what the look before it showed, to be given back as it was.
    pub fn takes(self) -> bool {
        matches!(self, Self::Narrow | Self::Fence)
    }

    /// Whether consumers read another value once it is done.
    pub fn replaces(self) -> bool {
        matches!(self, Self::Promote | Self::Mint | Self::Revert)
    }

    /// Whether "nothing there any more" is what it was to bring about.
    pub fn wants_gone(self) -> bool {
        use Act as A;
        // Of an identity that is not there nothing is left to take, and nobody to give it to.
        matches!(
            self,
            A::Revoke
                | A::RevokeDerived
                | A::Disable
                | A::EndSessions
                | A::Lift
                | A::Fence
                | A::Narrow
                | A::Widen
                | A::Destroy
                | A::Discard
        )
    }
}

/// One of several that share a credential, and gets a user of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Agent {
    /// Its name, by which it also answers that it has the new value.
    pub name: String,
    /// The user that it gets.
    pub user: String,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub act: Act,
    /// By which connector: its name, such as `vault-lease`, `vault-token`, `postgres`.
    pub connector: String,
    /// At which system: the realm or target in the configuration.
    pub system: String,
    /// A clear no (`Denied`, `Refused`) skips the step and is reported as residue instead of stopping the case. So is a look that
    /// fails again and again; and where nothing may be done, such a look is taken all the same.
    pub optional: bool,
    /// Of [`Act::Copy`]: the place there. By its name: a configuration may name them in another order tomorrow. Of what was
    /// derived from the credential: [`ROLES`], or a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Of a split: who is moved by it. Such steps are about that one's user and the place where it reads, all others about the
    /// credential that is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
}

/// Ordered steps. Before `pivot` failure undoes, from it on only forward.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Index of the first step that cannot be reversed with certainty.
    pub pivot: usize,
    /// It only takes back what a plan before it did: it proves nothing, and after it the case waits for a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undoes: bool,
}

impl Plan {
    /// Index of the step that does `act`.
    pub fn find(&self, act: Act) -> Option<usize> {
        self.steps.iter().position(|step| step.act == act)
    }

    /// The same, of those that are about whom `step` is about: one agent of a split, or else the credential itself.
    pub fn find_beside(&self, act: Act, step: &Step) -> Option<usize> {
        self.steps.iter().position(|one| one.act == act && one.agent == step.agent)
    }

    /// Index of the step by which another value begins, for whom `step` is about: one of ours, or the provider's.
    pub fn making(&self, step: &Step) -> Option<usize> {
        let makes = |one: &Step| matches!(one.act, Act::Create | Act::Begin | Act::Mint);
        self.steps.iter().position(|one| makes(one) && one.agent == step.agent)
    }

    /// Whether any of its steps makes another value.
    pub fn makes(&self) -> bool {
        self.steps.iter().any(|one| matches!(one.act, Act::Create | Act::Begin | Act::Mint))
    }

    /// Whether a case may follow it. One that goes forward has one proof, and closes by nothing else; after that only
    /// stored values are destroyed. One that undoes has none.
    pub fn is_sound(&self) -> bool {
        let proofs = self.steps.iter().filter(|s| s.act == Act::Prove).count();
        if self.undoes {
            use Act as A;
            let undoing =
                |s: &Step| matches!(s.act, A::Revert | A::Copy | A::Notify | A::Restore | A::Discard | A::Widen);
            return !self.steps.is_empty() && self.steps.iter().all(undoing);
        }
        let after = self.find(Act::Prove).and_then(|proof| self.steps.get(proof + 1..));
        let ends = after.is_some_and(|after| after.iter().all(|s| s.act == Act::Destroy));
        proofs == 1 && ends && self.pivot < self.steps.len()
    }
}

/// Idempotency token of a step: UUIDv5(case, plan, step, candidate). The first candidate has no part in it.
pub fn step_key(case: CaseId, plan: u32, step: usize, candidate: u32) -> Uuid {
    let name = if candidate <= 1 { format!("{plan}/{step}") } else { format!("{plan}/{step}/{candidate}") };
    Uuid::new_v5(&case, name.as_bytes())
}
