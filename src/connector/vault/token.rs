//! `vault-token`: tokens, by their accessor.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::said::{role_of_token, said_of_token};
use super::{Vault, odd, time_ms, unsupported};
use crate::case::plan::Act;
use crate::case::record::{FailureKind, Observation, Output, Presence, Sighting};
use crate::connector::{Connector, Failure, Subject};
use crate::credential::Kind;
use crate::probe::Settle;

pub(super) const LOOKUP: &str = "auth/token/lookup-accessor";
pub(super) const REVOKE: &str = "auth/token/revoke-accessor";

/// The tokens of one realm.
pub struct Tokens {
    vault: Arc<Vault>,
}

impl Tokens {
    /// The connector, on a login.
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

impl Vault {
    /// What our policy must allow for tokens.
    pub(super) fn token_needs(&self) -> Vec<String> {
        let mut needs = vec![LOOKUP.to_owned()];
        if self.enforce {
            needs.push(REVOKE.to_owned());
        }
        needs
    }

    /// Looks a token up; the second is Vault's description of it, without the token.
    pub(crate) async fn look_at_token(&self, accessor: &str) -> Result<(Observation, Value), Failure> {
        let mut seen = self.blank();
        match self.ask(Call::AccessorLookup, Raw::post(LOOKUP, json!({ "accessor": accessor }))).await {
            Meaning::Done { mut data, request_id } => {
                let data = data["data"].take();
                if data["accessor"].as_str() != Some(accessor) {
                    return Err(odd());
                }
                seen.presence = Presence::Present;
                seen.issued_ms = time_ms(&data["issue_time"]).or_else(|| time_ms(&data["creation_time"]));
                seen.expires_ms = time_ms(&data["expire_time"]);
                seen.only_expires = data["type"].as_str() == Some("batch");
                seen.run = said_of_token(&data).and_then(|said| self.named(&said, &data["meta"]));
                seen.role = role_of_token(&data);
                seen.protected = self.protects(accessor, &data);
                seen.request_id = request_id;
                return Ok((seen, data));
            }
            Meaning::Gone => seen.presence = Presence::Gone,
            Meaning::Outdated | Meaning::Unclear(_) => {}
            // The path takes any accessor: where we have the right, the 403 is about a token that is half-revoked.
            Meaning::Forbidden => self.self_check(&self.token_needs()).await?,
            Meaning::Failed(failure) => return Err(failure),
        }
        Ok((seen, Value::Null))
    }

    /// P6: root, our own logins, and those of other processes with our identity.
    fn protects(&self, accessor: &str, data: &Value) -> bool {
        let root = data["policies"].as_array().into_iter().flatten().any(|policy| policy.as_str() == Some("root"));
        let session = self.session.load_full();
        let own_entity =
            session.and_then(|s| s.entity.clone()).is_some_and(|id| data["entity_id"] == Value::String(id));
        root || own_entity || self.is_own(accessor)
    }

    /// Revokes a token, unless it is one that must never be touched.
    pub(super) async fn revoke_token(&self, accessor: &str) -> Result<Output, Failure> {
        if self.is_own(accessor) {
            return Err(Failure::new(FailureKind::Refused, "this is our own token"));
        }
        match self.ask(Call::AccessorRevoke, Raw::post(REVOKE, json!({ "accessor": accessor }))).await {
            Meaning::Done { request_id, .. } => {
                Ok(Output { request_ids: request_id.into_iter().collect(), ..Output::default() })
            }
            Meaning::Gone => Ok(Output::default()),
            Meaning::Unclear(note) => Err(Failure::new(FailureKind::Unknown, note)),
            Meaning::Outdated => Err(odd()),
            Meaning::Forbidden => {
                self.self_check(&self.token_needs()).await?;
                Err(Failure::new(FailureKind::Unknown, "the token is half-revoked"))
            }
            Meaning::Failed(failure) => Err(failure),
        }
    }

    /// Whether look-ups of accessors find what lives: ours.
    async fn finds_itself(&self) -> bool {
        let Ok(session) = self.session().await else { return false };
        self.is_active().await
            && !session.accessor.is_empty()
            && matches!(self.look_at_token(&session.accessor).await, Ok((seen, _)) if seen.presence == Presence::Present)
    }
}

#[async_trait]
impl Connector for Tokens {
    fn name(&self) -> &'static str {
        Kind::VaultToken.as_str()
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
        let accessor = subject.credential.id();
        Ok(self.vault.bounded(false, self.vault.look_at_token(&accessor)).await?.0)
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let accessor = subject.credential.id();
        match act {
            Act::Revoke => self.vault.bounded(true, self.vault.revoke_token(&accessor)).await,
            _ => Err(unsupported()),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let accessor = subject.credential.id();
        let look = async { Ok(self.vault.look_at_token(&accessor).await?.0) };
        self.vault.sight(subject, look, self.vault.finds_itself()).await
    }

    async fn self_check(&self) -> Result<(), Failure> {
        self.vault.bounded(false, self.vault.self_check(&self.vault.token_needs())).await
    }
}
