//! The canary: a harmless credential that is minted every few minutes, whose task ends, and whose death is measured through
//! the whole pipeline. It knows no more than any producer does: it tells of a task as schedulers tell, and asks the issuer.
//!
//! What it minted hangs from a token of its own, which is ended whatever came of it: a canary leaves nothing behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::case::record::Verdict;
use crate::connector::Failure;
use crate::connector::vault::client;
use crate::connector::vault::mint::{Issuer, TaskToken};
use crate::connector::vault::{ConnectError, VaultSettings};
use crate::credential::{CredentialId, Kind};
use crate::exec::events::{Held, Run};
use crate::exec::times::Times;
use crate::intake::Intake;
use crate::journal::{self, Filter};
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

/// One canary after another.
pub struct Canary {
    settings: Settings,
    intake: Intake,
    teller: Arc<Teller>,
}

impl Canary {
    /// Through `teller`, seen in `intake`'s journal.
    pub fn new(settings: Settings, intake: Intake, teller: Arc<Teller>) -> Self {
        Self { settings, intake, teller }
    }

    /// One after another until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let metrics = &self.intake.metrics;
        metrics.canary_led(true);
        let rounds = async {
            loop {
                match self.round().await {
                    Ok(took_ms) => {
                        metrics.canary(took_ms, self.intake.clock.wall_ms());
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
    pub async fn round(&self) -> Result<i64, (Stage, Error)> {
        let issuer = self.issuer().await.map_err(|error| (Stage::Mint, error))?;
        let run = Run {
            source: self.settings.source.clone(),
            id: Uuid::now_v7().to_string(),
            attempt: 1,
            task: "canary".to_owned(),
            identity: None,
        };
        let life = self.settings.within * 2 + SPARE;
        let token = issuer.task_token(&[], run.key().as_str(), life).await;
        let token = token.map_err(|failure| (Stage::Mint, failure.into()))?;
        let lived = self.live(&issuer, &token, &run, life).await;
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

    async fn live(&self, issuer: &Issuer, token: &TaskToken, run: &Run, life: Duration) -> Result<i64, (Stage, Error)> {
        let (clock, within) = (&self.intake.clock, self.settings.within);
        let times = Times::new(clock.wall_ms(), life, Duration::ZERO);
        self.teller.tell(&[run.started(&times, None)]).await.map_err(|error| (Stage::Tell, error.into()))?;
        let minted = issuer.mint(token, &self.settings.role).await.map_err(|failure| (Stage::Mint, failure.into()))?;
        let credential = CredentialId::new(Kind::VaultLease, &self.settings.realm, &minted.lease);
        let credential = credential.map_err(|_| (Stage::Mint, Error::Name))?;
        let principal = minted.principal().map(str::to_owned);
        let held = Held { credential: credential.clone(), principal, expires_ms: times.deadline_ms };
        drop(minted);
        self.teller.tell(&[run.granted(0, &held)]).await.map_err(|error| (Stage::Tell, error.into()))?;
        // Of what was never seen alive nobody can say that it died.
        let seen = tokio::time::timeout(within, self.seen(&credential)).await;
        seen.map_err(|_| (Stage::Seen, Error::Late))?.map_err(|error| (Stage::Seen, error))?;
        let began_ms = clock.monotonic_ms();
        let ended = run.ended(clock.wall_ms(), "success", &[held]);
        self.teller.tell(&[ended]).await.map_err(|error| (Stage::Tell, error.into()))?;
        let dead = tokio::time::timeout(within, self.dead(&credential)).await;
        dead.map_err(|_| (Stage::Dead, Error::Late))?.map_err(|error| (Stage::Dead, error))?;
        let took_ms = clock.monotonic_ms() - began_ms;
        match issuer.knows(credential.id().as_str()).await {
            Ok(false) => Ok(took_ms),
            Ok(true) => Err((Stage::Refused, Error::Alive)),
            Err(failure) => Err((Stage::Refused, failure.into())),
        }
    }

    async fn seen(&self, credential: &CredentialId) -> Result<(), Error> {
        loop {
            let known = self.intake.journal.known(&self.settings.tenant, vec![credential.clone()]).await?;
            if known.iter().any(|known| known.credential.seen_ms.is_some()) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn dead(&self, credential: &CredentialId) -> Result<(), Error> {
        loop {
            let filter = Filter { credential: Some(credential.clone()), closed: true, ..Filter::default() };
            let cases = self.intake.journal.cases(filter).await?;
            match cases.iter().find(|line| line.closed_ms.is_some()).map(|line| &line.verdict) {
                Some(Verdict::Dead { .. }) => return Ok(()),
                Some(other) => return Err(Error::Verdict(other.as_str())),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
