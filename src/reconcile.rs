//! What no producer said: what the issuer still holds, compared with what the journal knows.
//!
//! [`Registrar`] looks each registered credential up once, in the background: a typo alarms now, not at the task's end.
//! [`Reconcile`] lists what the issuer holds and notices what is unknown, or held by nobody who lives. Both only say
//! what they saw, as own events through the intake. An absence proves nothing: a list may be partial.

mod registrar;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

pub use self::registrar::Registrar;
use crate::case::record::Presence;
use crate::connector::Failure;
use crate::connector::vault::Vault;
use crate::credential::{CredentialId, Kind};
use crate::event::{Coordinates, Data, Event, Type, digest16};
use crate::intake::Intake;
use crate::journal::{self, Known, Topics};
use crate::task::{RunKey, Tenant};

/// Look-ups that are under way at a time.
const AT_ONCE: usize = 8;
/// Credentials that are compared with the journal at a time.
const BATCH: usize = 256;
/// How soon an unclear look-up is repeated.
const AGAIN_MS: i64 = 30_000;

/// How reconcile works.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconcileSettings {
    /// Whose the findings are.
    pub tenant: String,
    /// Between two rounds.
    pub every_ms: u64,
    /// Look-ups per second.
    pub per_second: u32,
    /// The most ids that one round takes from one list.
    pub most: usize,
    /// Prefixes of lease ids to list, such as `database/creds/`.
    pub prefixes: Vec<String>,
    /// Of these, or below them: prefixes that only tasks use, so that what nobody registered there is cut.
    pub exclusive: Vec<String>,
    /// Whether tokens are compared too, by their metadata.
    pub tokens: bool,
    /// How far before the intake watermark a credential must have been issued: its registration may be under way.
    pub grace_ms: i64,
    /// There is no source with a watermark (only HTTP intake): our own clock stands for it.
    pub without_watermark: bool,
    /// The topics that have one; `None`: all that were ever read.
    pub topics: Option<Topics>,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        Self {
            tenant: "default".into(),
            every_ms: 300_000,
            per_second: 50,
            most: 100_000,
            prefixes: Vec::new(),
            exclusive: Vec::new(),
            tokens: false,
            grace_ms: 60_000,
            without_watermark: false,
            topics: None,
        }
    }
}

/// What one round saw. None is made while the clock is not believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Leases and tokens that the issuer holds.
    pub held: usize,
    /// Those that were said to the intake.
    pub found: usize,
    /// Whether a list or a look-up was cut short: then the rest waits for the next round.
    pub partial: bool,
}

/// Compares what one Vault holds with the journal. It needs a login of its own, that only lists and looks.
pub struct Reconcile {
    intake: Intake,
    settings: ReconcileSettings,
    realm: String,
    vault: Arc<Vault>,
    limit: DefaultDirectRateLimiter,
}

impl Reconcile {
    /// For `realm`, on its own login ([`Vault::open`] with [`crate::guard::Mode::Observe`]).
    pub fn new(intake: Intake, settings: ReconcileSettings, realm: &str, vault: Arc<Vault>) -> Self {
        let limit = limiter(settings.per_second);
        Self { intake, settings, realm: realm.to_owned(), vault, limit }
    }

    /// Rounds until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let every = Duration::from_millis(self.settings.every_ms.max(1000));
        let rounds = async {
            loop {
                match self.tick().await {
                    Ok(round) => tracing::info!(realm = self.realm, ?round, "reconciled"),
                    Err(error) => tracing::warn!(realm = self.realm, %error, "reconcile waits for the journal"),
                }
                tokio::time::sleep(every).await;
            }
        };
        tokio::select! { () = cancel.cancelled() => {}, () = rounds => {} }
    }

    /// One round.
    ///
    /// # Errors
    /// The journal's.
    pub async fn tick(&self) -> Result<Round, journal::Error> {
        let mut round = Round::default();
        if !self.intake.believes_clock() {
            tracing::warn!(realm = self.realm, "reconcile waits until the clock is believed");
            return Ok(Round { partial: true, ..round });
        }
        for prefix in &self.settings.prefixes {
            let (leases, partial) = self.leases(prefix).await;
            round.partial |= partial;
            let ids = leases.iter().filter_map(|lease| CredentialId::new(Kind::VaultLease, &self.realm, lease).ok());
            let held: Vec<_> = ids.map(|id| Held { id, run: None, issued_ms: None }).collect();
            self.compare(held, &mut round).await?;
        }
        if self.settings.tokens {
            let tokens = self.tokens(&mut round.partial).await;
            self.compare(tokens, &mut round).await?;
        }
        Ok(round)
    }

    /// The leases below `prefix`, and whether that is all of them.
    async fn leases(&self, prefix: &str) -> (Vec<String>, bool) {
        let mut folders = vec![format!("{}/", prefix.trim_end_matches('/'))];
        let mut found = Vec::new();
        let mut partial = false;
        while let Some(folder) = folders.pop() {
            self.limit.until_ready().await;
            match self.vault.list(&format!("sys/leases/lookup/{folder}")).await {
                Ok(keys) => {
                    for key in keys {
                        if found.len() + folders.len() >= self.settings.most {
                            return (found, true);
                        }
                        let id = format!("{folder}{key}");
                        if key.ends_with('/') { folders.push(id) } else { found.push(id) }
                    }
                }
                Err(failure) => partial |= self.missed(&failure),
            }
        }
        (found, partial)
    }

    /// The tokens whose metadata names a run.
    async fn tokens(&self, partial: &mut bool) -> Vec<Held> {
        let mut accessors = match self.vault.accessors().await {
            Ok(accessors) => accessors,
            Err(failure) => {
                *partial |= self.missed(&failure);
                return Vec::new();
            }
        };
        *partial |= accessors.len() > self.settings.most;
        accessors.truncate(self.settings.most);
        let looks = futures::stream::iter(accessors).map(|accessor| async move {
            self.limit.until_ready().await;
            let looked = self.vault.look_at_token(&accessor).await;
            (accessor, looked)
        });
        let mut looks = looks.buffer_unordered(AT_ONCE);
        let mut found = Vec::new();
        while let Some((accessor, looked)) = looks.next().await {
            match looked {
                Ok((seen, _)) if seen.presence == Presence::Present && !seen.protected && seen.run.is_some() => {
                    if let Ok(id) = CredentialId::new(Kind::VaultToken, &self.realm, &accessor) {
                        found.push(Held { id, run: seen.run, issued_ms: seen.issued_ms });
                    }
                }
                Ok(_) => {}
                Err(failure) => *partial |= self.missed(&failure),
            }
        }
        found
    }

    fn missed(&self, failure: &Failure) -> bool {
        tracing::warn!(realm = self.realm, %failure, "reconcile sees only a part");
        true
    }

    /// Says what the journal does not expect to be held.
    async fn compare(&self, held: Vec<Held>, round: &mut Round) -> Result<(), journal::Error> {
        round.held += held.len();
        let tenant: Tenant = self.settings.tenant.as_str().into();
        for batch in held.chunks(BATCH) {
            // The watermark before the comparison: what was registered up to it is known by now.
            let Some(before_ms) = self.horizon().await? else {
                round.partial = true;
                return Ok(());
            };
            let ids: Vec<CredentialId> = batch.iter().map(|one| one.id.clone()).collect();
            let known = self.intake.journal.known(&tenant, ids).await?;
            let mut events = Vec::new();
            for one in
                batch.iter().filter(|one| !known.iter().any(|k| k.credential.id == one.id && is_expected(k, before_ms)))
            {
                match self.issued_ms(one).await {
                    Ok(Some(issued_ms)) if issued_ms < before_ms => {
                        let over_ms = known.iter().find(|k| k.credential.id == one.id).and_then(|k| k.over_ms);
                        events.push(self.event(&tenant, &one.id, one.run.as_deref(), over_ms));
                    }
                    // Too young, or gone since the list.
                    Ok(_) => {}
                    Err(failure) => round.partial |= self.missed(&failure),
                }
            }
            if !events.is_empty() {
                round.found += events.len();
                self.intake.notice(events).await?;
            }
        }
        Ok(())
    }

    /// What was issued before this must have been registered by now; `None`: nothing can be said.
    async fn horizon(&self) -> Result<Option<i64>, journal::Error> {
        let now_ms = self.intake.clock.wall_ms();
        let watermark = match self.intake.journal.watermark().await?.of(self.settings.topics.as_ref()) {
            None if self.settings.without_watermark => Some(now_ms),
            watermark => watermark,
        };
        // Read after the time: a round is long, and the clock may have stepped in it.
        let watermark = watermark.filter(|_| self.intake.believes_clock());
        Ok(watermark.map(|at_ms| at_ms.min(now_ms).saturating_sub(self.settings.grace_ms)))
    }

    async fn issued_ms(&self, held: &Held) -> Result<Option<i64>, Failure> {
        if held.issued_ms.is_some() || held.id.kind() != Kind::VaultLease {
            return Ok(held.issued_ms);
        }
        self.limit.until_ready().await;
        let seen = self.vault.look_at_lease(&held.id.id()).await?;
        Ok(seen.issued_ms.filter(|_| seen.presence == Presence::Present))
    }

    fn event(&self, tenant: &Tenant, credential: &CredentialId, run: Option<&str>, over_ms: Option<i64>) -> Event {
        let now_ms = self.intake.clock.wall_ms();
        let day = now_ms.div_euclid(86_400_000);
        // Once a day, and once for each end: an end that comes later the same day is another finding.
        let over = over_ms.map_or(String::new(), |over_ms| format!(":{over_ms}"));
        let id = format!("{credential}:{}{over}", utc_day(day));
        let own_id = credential.id();
        let exclusive = credential.kind() == Kind::VaultLease
            && self.settings.exclusive.iter().any(|prefix| own_id.starts_with(prefix.as_str()));
        Event {
            at: Coordinates { cluster: "curfew".into(), topic: "curfew".into(), partition: -1, offset: -1 },
            tenant: tenant.clone(),
            source: "/curfew/reconcile".into(),
            digest: digest16(&[id.as_bytes()]),
            id,
            kind: Type::ReconcileFound,
            broker_ms: now_ms,
            traceparent: None,
            data: Data::ReconcileFound {
                credential: credential.clone(),
                // Only a whole run key names one run: a bare task id may be any scheduler's.
                run: run.filter(|run| run.contains(':')).map(|run| RunKey(run.into())),
                exclusive,
            },
        }
    }
}

/// What the issuer holds.
struct Held {
    id: CredentialId,
    run: Option<String>,
    issued_ms: Option<i64>,
}

/// What the journal knows is expected to be held while a holder lives or a case is open, or where it outlives its tasks;
/// and for a while after its end, since the list may be older. Unless it was seen dead.
fn is_expected(known: &Known, before_ms: i64) -> bool {
    let over = known.over_ms.is_some_and(|over_ms| over_ms < before_ms);
    known.credential.dead_ms.is_none() && (known.live || known.open || !over)
}

fn utc_day(day: i64) -> String {
    Timestamp::from_second(day * 86_400).map_or_else(|_| day.to_string(), |at| at.strftime("%Y-%m-%d").to_string())
}

fn limiter(per_second: u32) -> DefaultDirectRateLimiter {
    let rate = std::num::NonZeroU32::new(per_second).unwrap_or(std::num::NonZeroU32::MIN);
    RateLimiter::direct(Quota::per_second(rate))
}
