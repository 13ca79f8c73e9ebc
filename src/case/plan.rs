//! Plans: ordered steps, composed by the connectors, recorded before the first one is taken. PURE.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::CaseId;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Looks: what is there now? No effect.
    Observe,
    /// Stops new uses reversibly, such as NOLOGIN. Skipped where we may not.
    Disable,
    /// Kills the credential at its issuer. Cannot be reversed.
    Revoke,
    /// Kills what was derived from it: the tokens of a secret_id.
    RevokeDerived,
    /// Ends what is still open with it: sessions at the target.
    EndSessions,
    /// Looks for sightings of it being refused until they prove it dead.
    Prove,
}

impl Act {
    /// The name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Disable => "disable",
            Self::Revoke => "revoke",
            Self::RevokeDerived => "revoke_derived",
            Self::EndSessions => "end_sessions",
            Self::Prove => "prove",
        }
    }

    /// Whether it changes anything outside: then it stands behind the guard and a durable `Started`.
    pub fn has_effect(self) -> bool {
        !matches!(self, Self::Observe | Self::Prove)
    }
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
    /// A clear no (`Denied`, `Refused`) skips the step and is reported as residue instead of stopping the case.
    pub optional: bool,
}

/// Ordered steps. Before `pivot` failure undoes, from it on only forward.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Index of the first step that cannot be reversed with certainty.
    pub pivot: usize,
}

/// Idempotency token of a step: UUIDv5(case, plan, step).
pub fn step_key(case: CaseId, plan: u32, step: usize) -> Uuid {
    Uuid::new_v5(&case, format!("{plan}/{step}").as_bytes())
}
