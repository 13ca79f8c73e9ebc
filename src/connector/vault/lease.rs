//! `vault-lease`: dynamic leases, by their id.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::{Vault, exact, odd, time_ms, unsupported};
use crate::case::plan::Act;
use crate::case::record::{Observation, Output, Presence, Sighting};
use crate::connector::{Connector, Failure, Subject};
use crate::credential::Kind;
use crate::probe::Settle;

const LOOKUP: &str = "sys/leases/lookup";

/// The leases of one realm.
pub struct Leases {
    vault: Arc<Vault>,
}

impl Leases {
    /// The connector, on a login.
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }

    async fn revoke(&self, id: &str) -> Result<Output, Failure> {
        exact(id)?;
        let raw = Raw::post(format!("sys/leases/revoke/{id}"), json!({ "sync": true }));
        match self.vault.ask(Call::LeaseRevoke, raw).await {
            Meaning::Done { request_id, .. } => {
                Ok(Output { request_ids: request_id.into_iter().collect(), ..Output::default() })
            }
            Meaning::Gone => Ok(Output::default()),
            Meaning::Outdated | Meaning::Unclear(_) => Err(odd()),
            Meaning::Forbidden => Err(self.vault.forbidden(&self.vault.lease_needs()).await),
            Meaning::Failed(failure) => Err(failure),
        }
    }
}

impl Vault {
    /// What our policy must allow.
    fn lease_needs(&self) -> Vec<String> {
        let prefixes = self.settings.lease_prefixes.iter().filter(|_| self.enforce);
        // The rights on a prefix show on anything below it.
        let revokes = prefixes.map(|prefix| format!("sys/leases/revoke/{}/curfew", prefix.trim_end_matches('/')));
        std::iter::once(LOOKUP.to_owned()).chain(revokes).collect()
    }

    /// Looks a lease up.
    pub(crate) async fn look_at_lease(&self, id: &str) -> Result<Observation, Failure> {
        exact(id)?;
        let mut seen = self.blank();
        match self.ask(Call::LeaseLookup, Raw::post(LOOKUP, json!({ "lease_id": id }))).await {
            Meaning::Done { data, request_id } => {
                if data["data"]["id"].as_str() != Some(id) {
                    return Err(odd());
                }
                seen.presence = Presence::Present;
                seen.issued_ms = time_ms(&data["data"]["issue_time"]);
                seen.expires_ms = time_ms(&data["data"]["expire_time"]);
                seen.request_id = request_id;
            }
            Meaning::Gone => seen.presence = Presence::Gone,
            Meaning::Outdated | Meaning::Unclear(_) => {}
            Meaning::Forbidden => return Err(self.forbidden(&self.lease_needs()).await),
            Meaning::Failed(failure) => return Err(failure),
        }
        Ok(seen)
    }
}

#[async_trait]
impl Connector for Leases {
    fn name(&self) -> &'static str {
        Kind::VaultLease.as_str()
    }

    fn system(&self) -> &str {
        &self.vault.realm
    }

    fn call_timeout_ms(&self) -> i64 {
        self.vault.call_timeout_ms()
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        let id = subject.credential.id();
        self.vault.bounded(false, self.vault.look_at_lease(&id)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let id = subject.credential.id();
        match act {
            Act::Revoke => self.vault.bounded(true, self.revoke(&id)).await,
            _ => Err(unsupported()),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let id = subject.credential.id();
        self.vault.sight(subject, self.vault.look_at_lease(&id), self.vault.is_living()).await
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.vault.bounded(false, self.vault.self_check(&self.vault.lease_needs())).await
    }
}
