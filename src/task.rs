//! Tasks, and the grants by which they hold credentials. Plain facts: [`crate::policy`] decides on them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::credential::CredentialId;
use crate::scope::Permission;

/// Who the data belongs to; every key in the journal begins with it.
pub type Tenant = Arc<str>;

/// `<source>:<run id>`: one run of a task, over all its attempts. A colon in the run id is written `%3A`, so that the last
/// one parts the two: no source's runs can be taken for another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunKey(pub Arc<str>);

impl RunKey {
    /// The key of run `run_id` of the scheduler that calls itself `source`.
    pub fn new(source: &str, run_id: &str) -> Self {
        Self(format!("{source}:{}", run_id.replace(':', "%3A")).into())
    }

    /// The source and the run id.
    pub fn parts(&self) -> Option<(&str, &str)> {
        self.0.rsplit_once(':').filter(|(source, id)| !source.is_empty() && !id.is_empty())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Known only from a grant, a heartbeat or an extension: its start has not been seen yet.
    Expected,
    /// Started, not ended.
    Running,
    /// Ended: by its end event, or because Curfew noticed that it must have.
    Ended,
}

/// One run of a task, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Whose.
    pub tenant: Tenant,
    /// Its key.
    pub run: RunKey,
    /// The CloudEvents source that speaks for it: the unit of "a scheduler fell silent".
    pub source: String,
    /// The run that it is a part of: once that one has ended it is over as well, whatever became of its own end.
    pub within: Option<RunKey>,
    /// The logical task, such as `etl.load`.
    pub name: Option<String>,
    /// The workload identity or agent that runs it.
    pub identity: Option<String>,
    /// The newest attempt that was seen, from 1.
    pub attempt: u32,
    /// Where it stands.
    pub phase: Phase,
    /// When Curfew first heard of it (broker time).
    pub first_seen_ms: i64,
    /// When it says it started; broker time where it does not say.
    pub started_ms: Option<i64>,
    /// When it must be over: the named deadline, at most start + longest life.
    pub deadline_ms: i64,
    /// The deadline that was asked for, where it was clamped.
    pub clamped_from_ms: Option<i64>,
    /// The interval at which it promised to send heartbeats.
    pub heartbeat_every_ms: Option<i64>,
    /// The last sign of life (broker time).
    pub last_beat_ms: Option<i64>,
    /// When it ended: as it says, else broker time, else the deadline or the last heartbeat.
    pub ended_ms: Option<i64>,
    /// How it ended, in the producer's words.
    pub outcome: Option<String>,
    /// It ended, and nobody has said what it held. What is said of it later takes that back.
    #[serde(default)]
    pub unbound: bool,
    /// What it said at its start that its credentials are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<Boundary>,
}

/// Targets and zones that a task's credentials are for: what they open beyond is too much. Names as reach has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundary {
    /// Targets.
    pub targets: Vec<String>,
    /// Trust zones, with all that is in them.
    pub zones: Vec<String>,
    /// At these targets not all that there is, but what is named alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Actions>,
}

impl Boundary {
    /// So many targets and zones are named.
    pub const MOST: usize = 64;
    /// At so many targets it is said what is to be done there.
    pub const ACTIONS: usize = 8;
}

/// What is to be done at one target, and no more. The target is opened by that; named twice, both count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions {
    /// The target; of a Vault its realm.
    pub target: String,
    /// In the target's own words: at most [`crate::scope::MOST`].
    pub permissions: Vec<Permission>,
}

impl Task {
    /// The run that it is a part of ended at `end_ms`: that is its deadline, unless it began later. Then it belongs to
    /// what was started again under the same key.
    pub fn end_with(&mut self, end_ms: i64) {
        if self.phase != Phase::Ended && self.started_ms.unwrap_or(self.first_seen_ms) <= end_ms {
            self.deadline_ms = self.deadline_ms.min(end_ms);
        }
    }

    /// When silence becomes suspicious: `missed` whole intervals after the last sign of life.
    pub fn silent_at_ms(&self, missed: u32) -> Option<i64> {
        let every = self.heartbeat_every_ms?;
        let last = self.last_beat_ms.or(self.started_ms).unwrap_or(self.first_seen_ms);
        Some(last.saturating_add(every.saturating_mul(i64::from(missed.max(1)))))
    }

    /// The next time at which this task needs a look, or `None` when it has ended.
    pub fn due_ms(&self, missed: u32) -> Option<i64> {
        (self.phase != Phase::Ended)
            .then(|| self.silent_at_ms(missed).map_or(self.deadline_ms, |s| s.min(self.deadline_ms)))
    }
}

/// Why a task holds a credential: decides whether its end kills it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tenure {
    /// Minted for this task: dies with it.
    #[default]
    Minted,
    /// Registered as this task's alone, by a producer with the authority to say so: dies with it.
    Exclusive,
    /// Outlives the task: the end only releases it.
    Standing,
}

/// What has become of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantPhase {
    /// The task holds it.
    Held,
    /// The task gave it back, or ended while another live task shares it; nothing was cut for this grant.
    Released,
    /// A case was opened to cut it.
    Cut,
}

/// This task holds this credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose.
    pub tenant: Tenant,
    /// The run that holds it.
    pub run: RunKey,
    /// What it holds.
    pub credential: CredentialId,
    /// The attempt for which it was granted.
    pub attempt: u32,
    /// Why.
    pub tenure: Tenure,
    /// What became of it.
    pub phase: GrantPhase,
    /// When it was registered (broker time).
    pub registered_ms: i64,
    /// The topics that registered it: what Curfew itself notices about it later goes no further than they may.
    pub topics: Vec<String>,
}

/// A credential, as the journal knows it. Filled by grants, by the look-up after registration, and by cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Whose.
    pub tenant: Tenant,
    /// Its id.
    pub id: CredentialId,
    /// The user name at the system behind, where the producer named it; of a token the AppRole by which it logged in,
    /// `<mount>/<role>`, as its issuer says.
    pub principal: Option<String>,
    /// When it was first registered here (broker time).
    pub registered_ms: i64,
    /// When the issuer was first seen to know it; `None`: never seen.
    pub seen_ms: Option<i64>,
    /// When the issuer says it was issued.
    pub issued_ms: Option<i64>,
    /// When it dies by itself, as the issuer says, else as the producer says.
    pub expires_ms: Option<i64>,
    /// When it was proven dead.
    pub dead_ms: Option<i64>,
    /// Which of its values is in use: the store's version. `None`: not known, or its issuer has no versions.
    pub version: Option<i64>,
    /// Where it is used, such as `prod`.
    pub environment: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Its blast radius, as reach measured it last. Only reach writes it. `None`: not known.
    pub blast: Option<u64>,
}

impl Credential {
    /// Whether its issuer is to be asked if it knows it. What stands in a recipe is known by its store.
    pub fn needs_lookup(&self) -> bool {
        self.seen_ms.is_none() && self.dead_ms.is_none() && !self.id.kind().rotates()
    }
}
