//! Which run a credential is of, learned from its issuer: nobody has to register it.
//!
//! [`Binder`] lists what one Vault holds, looks each new one up once, and says what [`rule`] makes of its metadata as
//! `grant.registered`, through the intake like anybody else: on the authority of a topic of its own ([`topic`]), and about
//! runs of the sources that its rules name. A list that fails says nothing, and a credential that could not be looked at is
//! looked at again.

pub mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use crate::case::record::{FailureKind, Observation, Presence};
use crate::connector::Failure;
use crate::connector::vault::Vault;
use crate::connector::vault::said::{said_of_secret_id, said_of_token};
use crate::credential::{CredentialId, Kind};
use crate::event::{Event, GrantSpec, digest16};
use crate::intake::Intake;
use crate::journal;
use crate::metrics::Alarm;
use crate::task::{Tenant, Tenure};
use rule::{Bound, Origin, Rule};

/// Look-ups that are under way at a time.
const AT_ONCE: usize = 8;
/// Grants that are recorded together.
const CHUNK: usize = 100;
/// So many rounds in turn may see only a part, before a person is told.
const PATIENCE: u32 = 3;
/// Before the next round, where something waits.
const SOON: Duration = Duration::from_secs(1);
/// What the topic of each realm's bindings begins with. No topic of a broker can be called so.
pub const TOPIC: &str = "bind:";

/// On whose authority a realm's bindings are.
pub fn topic(realm: &str) -> String {
    format!("{TOPIC}{realm}")
}

/// How one Vault's credentials are bound.
#[derive(Debug, Clone)]
pub struct BindSettings {
    /// Whose they are.
    pub tenant: Tenant,
    /// Between two rounds.
    pub every_ms: u64,
    /// Look-ups per second.
    pub per_second: u32,
    /// So many credentials of one list are known at the most; those behind them are not looked at.
    pub most: usize,
    /// So many of one list are looked at in one round, the newest first: then it is listed again.
    pub at_once: usize,
    /// Whether what is bound dies with its run: one that is `Standing` is only told.
    pub tenure: Tenure,
    /// What is taken for what.
    pub rules: Vec<Rule>,
}

/// What one round came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// What was looked at.
    pub looked: usize,
    /// What was bound to a run.
    pub bound: usize,
    /// What waits for the next round, because there is too much.
    pub waits: usize,
    /// Whether a list or a look-up failed, or was too long: the rest waits for the next round.
    pub partial: bool,
}

/// What was looked at, and need not be again. Of one term: the next one begins anew, and says what is a duplicate then.
#[derive(Debug, Default)]
pub struct Looked {
    done: HashSet<[u8; 16]>,
    /// Listed before, and not looked at yet: what was not is newer, and goes first.
    waiting: HashSet<[u8; 16]>,
}

fn name(id: &CredentialId) -> [u8; 16] {
    digest16(&[id.as_str().as_bytes()])
}

/// Binds what one Vault holds. It needs a login of its own, that only lists and looks: `deploy/vault/bind.hcl`.
pub struct Binder {
    intake: Intake,
    settings: BindSettings,
    realm: String,
    vault: Arc<Vault>,
    limit: DefaultDirectRateLimiter,
}

/// What is listed together.
enum List {
    Tokens,
    /// `<mount>/<role>`
    SecretIds(String),
}

impl Binder {
    /// For `realm`, on its own login ([`Vault::open`] with [`crate::guard::Mode::Observe`]).
    pub fn new(intake: Intake, settings: BindSettings, realm: &str, vault: Arc<Vault>) -> Self {
        let rate = std::num::NonZeroU32::new(settings.per_second).unwrap_or(std::num::NonZeroU32::MIN);
        let limit = RateLimiter::direct(Quota::per_second(rate));
        Self { intake, settings, realm: realm.to_owned(), vault, limit }
    }

    /// Rounds until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let every = Duration::from_millis(self.settings.every_ms.max(1000));
        let rounds = async {
            let (mut looked, mut blind) = (Looked::default(), 0);
            loop {
                let mut pause = every;
                match self.tick(&mut looked).await {
                    Ok(round) => {
                        if round.bound > 0 {
                            tracing::info!(realm = self.realm, ?round, "bound to runs");
                        }
                        blind = if round.partial { blind + 1 } else { 0 };
                        if blind == PATIENCE {
                            self.intake.metrics.alarm(Alarm::BindingBlind);
                        }
                        if round.waits > 0 {
                            pause = pause.min(SOON);
                        }
                    }
                    Err(error) => tracing::warn!(realm = self.realm, %error, "binding waits for the journal"),
                }
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! { () = cancel.cancelled() => {}, () = rounds => {} }
    }

    /// One round.
    ///
    /// # Errors
    /// The journal's: what was not recorded is looked at again.
    pub async fn tick(&self, looked: &mut Looked) -> Result<Round, journal::Error> {
        let mut round = Round::default();
        let mut held = HashSet::new();
        let mut whole = true;
        for list in self.lists() {
            match self.list(&list).await {
                Ok(mut all) => {
                    if all.len() > self.settings.most {
                        tracing::warn!(realm = self.realm, held = all.len(), "Vault holds more than is looked at");
                        round.partial = true;
                        all.truncate(self.settings.most);
                    }
                    held.extend(all.iter().map(name));
                    self.walk(all, looked, &mut round).await?;
                }
                Err(failure) => {
                    whole = false;
                    round.partial |= self.missed(&failure);
                }
            }
        }
        // What is gone is forgotten, unless a list is missing.
        if whole {
            looked.done.retain(|id| held.contains(id));
            looked.waiting.retain(|id| held.contains(id));
        }
        Ok(round)
    }

    fn lists(&self) -> Vec<List> {
        let mut lists = Vec::new();
        let mut roles = HashSet::new();
        for rule in &self.settings.rules {
            match &rule.origin {
                Origin::Token(_) if !lists.iter().any(|list| matches!(list, List::Tokens)) => lists.push(List::Tokens),
                Origin::SecretId(role) if roles.insert(role) => lists.push(List::SecretIds(role.clone())),
                _ => {}
            }
        }
        lists
    }

    /// What there is.
    async fn list(&self, list: &List) -> Result<Vec<CredentialId>, Failure> {
        self.limit.until_ready().await;
        let (kind, before, keys) = match list {
            List::Tokens => (Kind::VaultToken, String::new(), self.vault.accessors().await?),
            List::SecretIds(role) => (Kind::VaultSecretId, format!("{role}/"), self.vault.secret_ids(role).await?),
        };
        let ids = keys.iter().filter_map(|key| CredentialId::new(kind, &self.realm, &format!("{before}{key}")).ok());
        Ok(ids.collect())
    }

    /// Looks at what is new, and says what it is bound to. Stops where nothing more can be asked now.
    async fn walk(&self, all: Vec<CredentialId>, looked: &mut Looked, round: &mut Round) -> Result<(), journal::Error> {
        let mut new: Vec<CredentialId> = all.into_iter().filter(|id| !looked.done.contains(&name(id))).collect();
        new.sort_by_cached_key(|id| looked.waiting.contains(&name(id)));
        looked.waiting.extend(new.iter().skip(self.settings.at_once).map(name));
        round.waits += new.len().saturating_sub(self.settings.at_once);
        new.truncate(self.settings.at_once);
        let looks = futures::stream::iter(new).map(|id| async move {
            self.limit.until_ready().await;
            let found = self.look(&id).await;
            (id, found)
        });
        let mut looks = std::pin::pin!(looks.buffer_unordered(AT_ONCE).ready_chunks(CHUNK));
        while let Some(some) = looks.next().await {
            let (mut events, mut done, mut stop) = (Vec::new(), Vec::new(), false);
            for (id, found) in some {
                match found {
                    Ok(bound) => {
                        round.looked += 1;
                        events.extend(bound.map(|(seen, bound)| self.event(&id, &seen, bound)));
                        done.push(name(&id));
                    }
                    Err(failure) => {
                        round.partial |= self.missed(&failure);
                        // One that is refused is one; what is denied, down or throttled is so for all of them.
                        stop |= failure.kind != FailureKind::Refused;
                    }
                }
            }
            if !events.is_empty() {
                round.bound += events.len();
                self.intake.notice(events).await?;
            }
            for id in done {
                looked.waiting.remove(&id);
                looked.done.insert(id);
            }
            if stop {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What a credential is bound to. Nothing that must not be touched, and nothing that is not there, is.
    async fn look(&self, id: &CredentialId) -> Result<Option<(Observation, Bound)>, Failure> {
        let (name, rules) = (id.id(), &self.settings.rules);
        let (seen, said) = if id.kind() == Kind::VaultToken {
            let (seen, token) = self.vault.look_at_token(&name).await?;
            let Some(mut said) = said_of_token(&token).filter(|said| rule::concerns(rules, &said.origin)) else {
                return Ok(None);
            };
            if rule::wants_alias(rules, &said.origin) {
                self.limit.until_ready().await;
                said = self.vault.with_alias(said, &token).await?;
            }
            (seen, said)
        } else {
            let role = name.rsplit_once('/').map_or("", |(role, _)| role);
            let (seen, meta) = self.vault.look_at_secret_id(&name, &[]).await?;
            (seen, said_of_secret_id(role, &meta))
        };
        let usable = seen.presence == Presence::Present && !seen.protected;
        Ok(rule::bind(rules, &said).filter(|_| usable).map(|bound| (seen, bound)))
    }

    fn event(&self, id: &CredentialId, seen: &Observation, bound: Bound) -> Event {
        let now_ms = self.intake.clock.wall_ms();
        let (tenure, expires_ms) = (self.settings.tenure, seen.expires_ms);
        let grant = GrantSpec { credential: id.clone(), tenure, principal: None, expires_ms };
        Event::bound(self.settings.tenant.clone(), topic(&self.realm), grant, bound, now_ms)
    }

    fn missed(&self, failure: &Failure) -> bool {
        tracing::warn!(realm = self.realm, %failure, "binding sees only a part");
        true
    }
}
