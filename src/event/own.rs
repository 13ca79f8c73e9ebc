//! What Curfew itself notices. Deterministic ids: two that notice the same thing say the same event.

use std::sync::Arc;

use super::{
    Coordinates, CredentialRegistered, Data, Event, FindingClosed, FindingObserved, GrantRegistered, GrantSpec,
    Location, Type, digest16,
};
use crate::bind::rule::Bound;
use crate::case::{Action, CaseId};
use crate::credential::CredentialId;
use crate::finding::Finding;
use crate::reach::Node;
use crate::reach::notice::{Found, Leaving, TOPIC};
use crate::scope::{Cut, Fence};
use crate::task::{RunKey, Tenant, Tenure};

/// Cluster and topic of own events.
pub const OWN: &str = "curfew";

const DAY_MS: i64 = 86_400_000;

impl Event {
    /// The deadline `deadline_ms` of `run` passed. Once for each deadline.
    pub fn deadline_passed(tenant: Tenant, run: RunKey, deadline_ms: i64, now_ms: i64) -> Self {
        let id = format!("{run}:{deadline_ms}");
        own(tenant, "/curfew/deadlines", id, now_ms, Data::DeadlinePassed { run, deadline_ms }, &[])
    }

    /// `run` is silent since `last_beat_ms`. Once for each sign of life.
    pub fn heartbeat_missed(tenant: Tenant, run: RunKey, last_beat_ms: i64, now_ms: i64) -> Self {
        let id = format!("{run}:{last_beat_ms}");
        own(tenant, "/curfew/heartbeats", id, now_ms, Data::HeartbeatMissed { run, last_beat_ms }, &[])
    }

    /// The issuer holds `credential`, which the journal does not expect. Once a day (UTC), so that one that is still
    /// there tomorrow is noticed again.
    pub fn reconcile_found(
        tenant: Tenant,
        credential: CredentialId,
        run: Option<RunKey>,
        exclusive: bool,
        now_ms: i64,
    ) -> Self {
        let id = format!("{credential}:{}", now_ms.div_euclid(DAY_MS));
        let data = Data::ReconcileFound { credential, run, exclusive };
        own(tenant, "/curfew/reconcile", id, now_ms, data, &[])
    }

    /// The issuer's word on which run a credential is of, on the authority of `topic`. Once: the same again is a duplicate.
    pub fn bound(tenant: Tenant, topic: String, grant: GrantSpec, to: Bound, now_ms: i64) -> Self {
        let only_told = if grant.tenure == Tenure::Standing { ":told" } else { "" };
        let id = format!("{}:{}{only_told}", grant.credential, to.run);
        let data = GrantRegistered { run: to.run, attempt: None, identity: to.identity, grant };
        let mut event = own(tenant, "/curfew/bind", id, now_ms, Data::GrantRegistered(data), &[]);
        event.at.topic = topic.into();
        event
    }

    /// What leaked was seen dead in `case`, and whoever told of `finding` knows: it is closed, as by the topic that observed it.
    pub fn told_dead(finding: &Finding, case: CaseId, now_ms: i64) -> Self {
        let id = format!("{}:{case}", finding.id());
        let data = FindingClosed { finding_key: finding.key.clone(), reason: "revoked".to_owned() };
        let mut event = own(finding.tenant.clone(), "/curfew/feedback", id, now_ms, Data::FindingClosed(data), &[]);
        event.at.topic = finding.topic.as_str().into();
        event
    }

    /// Reach shows something about a credential, and did not before. `now_ms` tells this time from an earlier one.
    pub fn found(tenant: Tenant, found: &Found, now_ms: i64) -> Self {
        let key = found.key();
        let id = format!("{key}:{now_ms}");
        let data = FindingObserved {
            finding_key: key,
            credential: Some(found.credential.clone()),
            detector: found.sort.detector(),
            validity: "unknown".to_owned(),
            reopened: true,
            owner_hint: found.owner.clone(),
            location: Some(Location { path: Some(found.place.clone()), ..Location::default() }),
            detected_ms: Some(now_ms),
            excess: found.excess.clone(),
            leaves: found.leaves.as_ref().map(Leaving::said),
            moves: found.moves.clone(),
            ..FindingObserved::default()
        };
        let mut event = own(tenant, "/curfew/reach", id, now_ms, Data::FindingObserved(Box::new(data)), &[]);
        event.at.topic = TOPIC.into();
        event
    }

    /// What reach found before is not so any more.
    pub fn found_no_more(finding: &Finding, now_ms: i64) -> Self {
        let id = format!("{}:over:{now_ms}", finding.key);
        let data = FindingClosed { finding_key: finding.key.clone(), reason: "resolved".to_owned() };
        let mut event = own(finding.tenant.clone(), "/curfew/reach", id, now_ms, Data::FindingClosed(data), &[]);
        event.at.topic = TOPIC.into();
        event
    }

    /// The inventory, or a recipe in the configuration, says that a credential exists and how its value is known. The same
    /// word again is a duplicate.
    pub fn registered(tenant: Tenant, it: CredentialRegistered, now_ms: i64) -> Self {
        let marks: Vec<String> = it.fingerprints.iter().map(|part| part.fingerprint.to_string()).collect();
        let (environment, owner) = (it.environment.clone().unwrap_or_default(), it.owner.clone().unwrap_or_default());
        let mut said = vec![environment.as_bytes(), owner.as_bytes(), if it.current { b"current" } else { b"older" }];
        said.extend(marks.iter().map(String::as_bytes));
        let issued = it.issued_ms.map(|ms| ms.to_string());
        said.extend(issued.iter().map(String::as_bytes));
        let word = hex::encode(digest16(&said));
        let id = format!("{}:{}:{word}", it.credential, it.version.unwrap_or(0));
        own(tenant, "/curfew/inventory", id, now_ms, Data::CredentialRegistered(it), &[])
    }

    /// The value of `credential` that is `version` of its store is due for its rotation by age. Once for each `turn`: one
    /// that came to nothing is tried again in the next.
    pub fn rotation_due(
        tenant: Tenant,
        credential: CredentialId,
        version: i64,
        age_ms: i64,
        turn: i64,
        now_ms: i64,
    ) -> Self {
        let id = format!("{credential}:{version}:{turn}");
        let data = Data::RotationDue { credential, version, age_ms };
        own(tenant, "/curfew/ages", id, now_ms, data, &[])
    }

    /// The issuer still has what denied the sessions of `credential`, and there can be none any more. Once a day (UTC), as long
    /// as it is there.
    pub fn sessions_over(tenant: Tenant, credential: CredentialId, now_ms: i64) -> Self {
        let id = format!("{credential}:sessions:{}", now_ms.div_euclid(DAY_MS));
        own(tenant, "/curfew/inventory", id, now_ms, Data::SessionsOver { credential }, &[])
    }

    /// A fence has stood as long as it was to. `now_ms` tells this try from an earlier one, that came to nothing.
    pub fn fence_over(fence: &Fence, now_ms: i64) -> Option<Self> {
        let id = format!("{}:{now_ms}", fence.case);
        let cut = Cut::back(fence.held.clone(), fence.case).ok()?;
        let data = Data::FenceOver { credential: fence.identity.clone(), cut };
        Some(own(fence.tenant.as_str().into(), "/curfew/fences", id, now_ms, data, &[]))
    }

    /// An operator says that somebody leaves, or (`back`) stays after all. `id` as in [`Self::operator_revoke`].
    pub fn operator_offboard(
        tenant: Tenant,
        id: String,
        (node, back): (Node, bool),
        until_ms: Option<i64>,
        by: String,
        reason: String,
        now_ms: i64,
    ) -> Self {
        let until = until_ms.map(|ms| ms.to_string()).unwrap_or_default();
        let wish = [node.to_string(), by.clone(), reason.clone(), if back { "back".to_owned() } else { until }];
        let data = Data::OperatorOffboard { node, back, until_ms, by, reason };
        own(tenant, "/curfew/operator", id, now_ms, data, &wish)
    }

    /// An operator wants `credential` rotated: rolled over, contained or split. `id` as in [`Self::operator_revoke`].
    pub fn operator_rotate(
        tenant: Tenant,
        id: String,
        credential: CredentialId,
        how: Action,
        by: String,
        reason: String,
        now_ms: i64,
    ) -> Self {
        let wish = [credential.as_str(), &by, &reason, how.as_str()].map(str::to_owned);
        let data = Data::OperatorRotate { credential, how, agents: Vec::new(), by, reason };
        own(tenant, "/curfew/operator", id, now_ms, data, &wish)
    }

    /// An operator wants only `agents` of those that share `credential` moved off it. `id` as in [`Self::operator_revoke`].
    pub fn operator_move(
        tenant: Tenant,
        id: String,
        credential: CredentialId,
        agents: Vec<String>,
        by: String,
        reason: String,
        now_ms: i64,
    ) -> Self {
        let how = Action::Split;
        let mut wish = [credential.as_str(), &by, &reason, how.as_str()].map(str::to_owned).to_vec();
        wish.extend(agents.iter().cloned());
        let data = Data::OperatorRotate { credential, how, agents, by, reason };
        own(tenant, "/curfew/operator", id, now_ms, data, &wish)
    }

    /// An operator wants permissions taken from the identity of `credential`. `id` as in [`Self::operator_revoke`].
    pub fn operator_reduce(
        tenant: Tenant,
        id: String,
        credential: CredentialId,
        (cut, not_before_ms): (Cut, Option<i64>),
        by: String,
        reason: String,
        now_ms: i64,
    ) -> Self {
        let mut wish = [credential.as_str(), &by, &reason].map(str::to_owned).to_vec();
        wish.extend(cut.permissions.iter().map(ToString::to_string));
        let data = Data::OperatorReduce { credential, cut, not_before_ms, by, reason };
        own(tenant, "/curfew/operator", id, now_ms, data, &wish)
    }

    /// An operator wants given back what `case` took. `id` as in [`Self::operator_revoke`].
    pub fn operator_restore(
        tenant: Tenant,
        id: String,
        credential: CredentialId,
        (case, cut): (CaseId, Cut),
        by: String,
        reason: String,
        now_ms: i64,
    ) -> Self {
        let wish = [credential.as_str(), &case.to_string(), &by, &reason].map(str::to_owned);
        let data = Data::OperatorRestore { credential, cut, case, by, reason };
        own(tenant, "/curfew/operator", id, now_ms, data, &wish)
    }

    /// An operator wants `credential` dead. `id` is the command's: the same id with another wish is a conflict.
    pub fn operator_revoke(
        tenant: Tenant,
        id: String,
        credential: CredentialId,
        by: String,
        reason: String,
        now_ms: i64,
    ) -> Self {
        let wish = [credential.as_str(), &by, &reason].map(str::to_owned);
        let data = Data::OperatorRevoke { credential, by, reason };
        own(tenant, "/curfew/operator", id, now_ms, data, &wish)
    }
}

impl Data {
    /// The type that says this.
    pub fn kind(&self) -> Type {
        match self {
            Self::TaskStarted(_) => Type::TaskStarted,
            Self::TaskExtended(_) => Type::TaskExtended,
            Self::TaskHeartbeat(_) => Type::TaskHeartbeat,
            Self::TaskEnded(_) => Type::TaskEnded,
            Self::GrantRegistered(_) => Type::GrantRegistered,
            Self::GrantReleased(_) => Type::GrantReleased,
            Self::CredentialRegistered(_) => Type::CredentialRegistered,
            Self::CredentialAdopted(_) => Type::CredentialAdopted,
            Self::FindingObserved(_) => Type::FindingObserved,
            Self::FindingClosed(_) => Type::FindingClosed,
            Self::IdentityOffboarded(_) => Type::IdentityOffboarded,
            Self::DeadlinePassed { .. } => Type::DeadlinePassed,
            Self::HeartbeatMissed { .. } => Type::HeartbeatMissed,
            Self::ReconcileFound { .. } => Type::ReconcileFound,
            Self::RotationDue { .. } => Type::RotationDue,
            Self::SessionsOver { .. } => Type::SessionsOver,
            Self::FenceOver { .. } => Type::FenceOver,
            Self::OperatorOffboard { .. } => Type::OperatorOffboard,
            Self::OperatorRotate { .. } => Type::OperatorRotate,
            Self::OperatorReduce { .. } => Type::OperatorReduce,
            Self::OperatorRestore { .. } => Type::OperatorRestore,
            Self::OperatorRevoke { .. } => Type::OperatorRevoke,
        }
    }
}

/// The digest covers what the id stands for, not what may differ between two that notice the same thing (such as what
/// the configuration says about a prefix just then): noticing twice is a duplicate, never a conflict.
fn own(tenant: Tenant, source: &str, id: String, now_ms: i64, data: Data, more: &[String]) -> Event {
    let kind = data.kind();
    let mut parts = vec![kind.as_str().as_bytes(), id.as_bytes()];
    parts.extend(more.iter().map(String::as_bytes));
    let digest = digest16(&parts);
    let name: Arc<str> = OWN.into();
    Event {
        at: Coordinates { cluster: name.clone(), topic: name, partition: -1, offset: -1 },
        tenant,
        source: source.to_owned(),
        id,
        kind,
        broker_ms: now_ms,
        digest,
        traceparent: None,
        data,
    }
}
