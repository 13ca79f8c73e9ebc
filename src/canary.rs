//! The canary: a harmless credential that is minted every few minutes, whose task ends, and whose death is measured through
//! the whole pipeline. It knows no more than any producer does: it tells of a task as schedulers tell, and asks the issuer.
//!
//! What it minted hangs from a token of its own, which is ended whatever came of it: a canary leaves nothing behind.
//!
//! What becomes of it is looked at through a [`Sight`]: the journal of the process, or a running one that is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::case::record::Verdict;
use crate::clock;
use crate::connector::Failure;
use crate::connector::vault::client;
use crate::connector::vault::mint::{Issuer, TaskToken};
use crate::connector::vault::{ConnectError, VaultSettings};
use crate::credential::{CredentialId, Kind};
use crate::exec::events::{Held, Run};
use crate::exec::times::Times;
use crate::journal::{self, Filter, Journal};
use crate::metrics::Metrics;
use crate::task::Tenant;
use crate::tell::{self, Teller};

/// How often it is looked while it waits.
const LOOK: Duration = Duration::from_millis(200);
/// How much longer than it may take what was minted lives by itself.
const SPARE: Duration = Duration::from_secs(60);

/// How far a canary came that did not die in time: the values of `curfew_canary_failures_total{stage}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was minted.
    Mint,
    /// The intake did not take its task.
    Tell,
    /// Curfew did not look at it at its issuer.
    Seen,
    /// Its case did not close as dead.
    Dead,
    /// Curfew called it dead, and its issuer knows it.
    Refused,
}

impl Stage {
    /// All, in their order.
    pub const ALL: [Self; 5] = [Self::Mint, Self::Tell, Self::Seen, Self::Dead, Self::Refused];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Tell => "tell",
            Self::Seen => "seen",
            Self::Dead => "dead",
            Self::Refused => "refused",
        }
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The login cannot be used.
    #[error(transparent)]
    Login(#[from] ConnectError),
    /// The issuer.
    #[error("the issuer: {0}")]
    Issuer(#[from] Failure),
    /// The intake.
    #[error("the intake: {0}")]
    Tell(#[from] tell::Error),
    /// The journal.
    #[error("the journal cannot be read")]
    Journal(#[from] journal::Error),
    /// Who was to say what became of it.
    #[error("Curfew does not say what became of it: {0}")]
    Silent(String),
    /// What was minted has no id that Curfew can take.
    #[error("what was minted has no name for Curfew")]
    Name,
    /// It was called something else than dead.
    #[error("its case closed as `{0}`")]
    Verdict(&'static str),
    /// It took too long.
    #[error("not in time")]
    Late,
    /// It is called dead, and is there.
    #[error("it was called dead, and its issuer still knows it")]
    Alive,
}

/// What it does, and by whose word.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The realm in which it mints.
    pub realm: String,
    /// Holds the token by which it mints; read anew each time.
    pub token_file: PathBuf,
    /// The path that gives its credential.
    pub role: String,
    /// Whose task it is.
    pub tenant: Tenant,
    /// In whose name it speaks.
    pub source: String,
    /// How often.
    pub every: Duration,
    /// How long it may take from its end to its death, and before that until Curfew has looked at it.
    pub within: Duration,
    /// How the Vault is reached.
    pub vault: VaultSettings,
}

/// Where it is seen what becomes of a canary.
#[async_trait]
pub trait Sight: Send + Sync {
    /// Whether Curfew has looked at it at its issuer.
    ///
    /// # Errors
    /// It cannot be told.
    async fn seen(&self, tenant: &Tenant, credential: &CredentialId) -> Result<bool, Error>;

    /// How its case closed, once it did.
    ///
    /// # Errors
    /// It cannot be told.
    async fn closed(&self, credential: &CredentialId) -> Result<Option<Verdict>, Error>;
}

/// Of the cases about one credential, how the one closed that did.
pub fn closed_as(cases: &[journal::CaseLine]) -> Option<Verdict> {
    cases.iter().find(|line| line.closed_ms.is_some()).map(|line| line.verdict.clone())
}

/// Which cases tell it.
pub fn cases_of(credential: &CredentialId) -> Filter {
    Filter { credential: Some(credential.clone()), closed: true, ..Filter::default() }
}

#[async_trait]
impl Sight for Arc<dyn Journal> {
    async fn seen(&self, tenant: &Tenant, credential: &CredentialId) -> Result<bool, Error> {
        let known = self.known(tenant, vec![credential.clone()]).await?;
        Ok(known.iter().any(|known| known.credential.seen_ms.is_some()))
    }

    async fn closed(&self, credential: &CredentialId) -> Result<Option<Verdict>, Error> {
        Ok(closed_as(&self.cases(cases_of(credential)).await?))
    }
}

/// What is told of each stage that a canary has passed: milliseconds since it began.
pub type Passed<'a> = &'a (dyn Fn(Stage, i64) + Send + Sync);

/// Canaries, one or more.
pub struct Canary {
    settings: Settings,
    clock: clock::Shared,
    sight: Box<dyn Sight>,
    teller: Arc<Teller>,
}

impl Canary {
    /// Through `teller`, seen by `sight`.
    pub fn new(settings: Settings, clock: clock::Shared, sight: Box<dyn Sight>, teller: Arc<Teller>) -> Self {
        Self { settings, clock, sight, teller }
    }

    /// One after another until cancelled.
    pub async fn run(&self, metrics: &Metrics, cancel: CancellationToken) {
        metrics.canary_led(true);
        let rounds = async {
            loop {
                match self.round(&|_, _| {}).await {
                    Ok(took_ms) => {
                        metrics.canary(took_ms, self.clock.wall_ms());
                        tracing::debug!(took_ms, "the canary died as it should");
                    }
                    Err((stage, error)) => {
                        metrics.canary_failed(stage);
                        tracing::warn!(stage = stage.as_str(), %error, "the canary did not die as it should");
                    }
                }
                tokio::time::sleep(self.settings.every).await;
            }
        };
        // One that is cut off here is over by its deadline, and by its token's life.
        tokio::select! { () = rounds => {} () = cancel.cancelled() => {} }
        metrics.canary_led(false);
    }

    /// One of them, from its birth to its death: milliseconds from the end of its task.
    ///
    /// # Errors
    /// How far it came, and why not further.
    pub async fn round(&self, passed: Passed<'_>) -> Result<i64, (Stage, Error)> {
        let began_ms = self.clock.monotonic_ms();
        let passed = |stage| passed(stage, self.clock.monotonic_ms() - began_ms);
        let issuer = self.issuer().await.map_err(|error| (Stage::Mint, error))?;
        let run = Run {
            source: self.settings.source.clone(),
            id: Uuid::now_v7().to_string(),
            attempt: 1,
            task: "canary".to_owned(),
            identity: None,
            boundary: None,
        };
        let life = self.settings.within * 2 + SPARE;
        let token = issuer.task_token(&[], run.key().as_str(), life).await;
        let token = token.map_err(|failure| (Stage::Mint, failure.into()))?;
        let lived = self.live(&issuer, &token, &run, life, &passed).await;
        if let Err(failure) = issuer.end(&token).await {
            tracing::warn!(%failure, "the canary's token lives on until its time is over");
        }
        lived
    }

    async fn issuer(&self) -> Result<Issuer, Error> {
        let token = client::secret_file("canary.token_file", &self.settings.token_file).await?;
        let issuer = Issuer::new(&self.settings.vault, &token)?;
        let own = issuer.own().await?;
        let life = self.settings.every * 2 + self.settings.within * 3 + SPARE;
        if own.renewable && own.ttl.is_some_and(|ttl| ttl < life) {
            issuer.renew_own(life).await?;
        }
        Ok(issuer)
    }

    async fn live(
        &self,
        issuer: &Issuer,
        token: &TaskToken,
        run: &Run,
        life: Duration,
        passed: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<i64, (Stage, Error)> {
        let (clock, within) = (&self.clock, self.settings.within);
        let times = Times::new(clock.wall_ms(), life, Duration::ZERO);
        self.teller.tell(&[run.started(&times, None)]).await.map_err(|error| (Stage::Tell, error.into()))?;
        let minted = issuer.mint(token, &self.settings.role).await.map_err(|failure| (Stage::Mint, failure.into()))?;
        let credential = CredentialId::new(Kind::VaultLease, &self.settings.realm, &minted.lease);
        let credential = credential.map_err(|_| (Stage::Mint, Error::Name))?;
        let principal = minted.principal().map(str::to_owned);
        let held = Held { credential: credential.clone(), principal, expires_ms: times.deadline_ms };
        drop(minted);
        passed(Stage::Mint);
        self.teller.tell(&[run.granted(0, &held)]).await.map_err(|error| (Stage::Tell, error.into()))?;
        passed(Stage::Tell);
        // Of what was never seen alive nobody can say that it died.
        let seen = tokio::time::timeout(within, self.seen(&credential)).await;
        seen.map_err(|_| (Stage::Seen, Error::Late))?.map_err(|error| (Stage::Seen, error))?;
        passed(Stage::Seen);
        let began_ms = clock.monotonic_ms();
        let ended = run.ended(clock.wall_ms(), "success", &[held]);
        self.teller.tell(&[ended]).await.map_err(|error| (Stage::Tell, error.into()))?;
        let dead = tokio::time::timeout(within, self.dead(&credential)).await;
        dead.map_err(|_| (Stage::Dead, Error::Late))?.map_err(|error| (Stage::Dead, error))?;
        let took_ms = clock.monotonic_ms() - began_ms;
        passed(Stage::Dead);
        match issuer.knows(credential.id().as_str()).await {
            Ok(false) => {
                passed(Stage::Refused);
                Ok(took_ms)
            }
            Ok(true) => Err((Stage::Refused, Error::Alive)),
            Err(failure) => Err((Stage::Refused, failure.into())),
        }
    }

    async fn seen(&self, credential: &CredentialId) -> Result<(), Error> {
        while !self.sight.seen(&self.settings.tenant, credential).await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn dead(&self, credential: &CredentialId) -> Result<(), Error> {
        loop {
            match self.sight.closed(credential).await? {
                Some(Verdict::Dead { .. }) => return Ok(()),
                Some(other) => return Err(Error::Verdict(other.as_str())),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
