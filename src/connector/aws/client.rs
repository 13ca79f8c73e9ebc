//! The SDK as it is used here: signs and sends once, with our timeouts; and who we are.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_iam::config::http::HttpResponse;
use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use secrecy::SecretString;

use super::answers::{Meaning, full, meaning, odd};
use super::login::{Login, Own};
use super::quota::Quotas;
use super::{AwsSettings, name};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::vault::ConnectError;

/// How long it is believed who we are.
const IDENTITY_FOR: Duration = Duration::from_secs(60);

/// The right that a look at who we are would need, if it needed one.
const IDENTITY: &str = "sts:GetCallerIdentity";

/// Who signs our calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `<path><name>` of our own user; `None`: a role's session.
    pub user: Option<String>,
    /// The name of the role, where it is one's session.
    pub role: Option<String>,
}

/// IAM, Secrets Manager and STS, by one login.
pub struct Client {
    /// IAM's calls.
    pub(super) iam: aws_sdk_iam::Client,
    /// Secrets Manager's calls.
    pub(super) secrets: aws_sdk_secretsmanager::Client,
    sts: aws_sdk_sts::Client,
    config: SdkConfig,
    account: String,
    pub(super) quotas: Arc<Quotas>,
    known: Mutex<Option<(Instant, Identity)>>,
}

impl Client {
    /// Nothing is called yet. Of the environment only the machine's login is read: no endpoint.
    pub(super) async fn new(settings: &AwsSettings) -> Result<Self, ConnectError> {
        let is_account = settings.account.len() == 12 && settings.account.bytes().all(|b| b.is_ascii_digit());
        if !is_account {
            return Err(ConnectError::Settings("an account of AWS has 12 digits".to_owned()));
        }
        let region = Region::new(settings.region.clone());
        let login = match &settings.login {
            Login::Machine => {
                let chain = DefaultCredentialsChain::builder().region(region.clone()).build().await;
                SharedCredentialsProvider::new(chain)
            }
            own => SharedCredentialsProvider::new(Own(own.clone())),
        };
        let timeout = Duration::from_millis(settings.timeout_ms);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(timeout)
            .operation_attempt_timeout(timeout)
            .operation_timeout(timeout)
            .build();
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region)
            .credentials_provider(login)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        config.set_endpoint_url(settings.endpoint.clone());
        let config = config.build();
        Ok(Self {
            iam: aws_sdk_iam::Client::new(&config),
            secrets: aws_sdk_secretsmanager::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
            config,
            account: settings.account.clone(),
            quotas: settings.quotas.clone(),
            known: Mutex::new(None),
        })
    }

    /// Who we are: asked once a minute.
    ///
    /// # Errors
    /// As [`Self::ask_identity`].
    pub async fn identity(&self) -> Result<Identity, Failure> {
        let known = self.lock().clone();
        match known {
            Some((at, identity)) if at.elapsed() < IDENTITY_FOR => Ok(identity),
            _ => self.ask_identity().await,
        }
    }

    /// Who we are, asked now.
    ///
    /// # Errors
    /// `Denied` where the login is of another account, or the account's root.
    pub async fn ask_identity(&self) -> Result<Identity, Failure> {
        *self.lock() = None;
        Box::pin(self.turn(IDENTITY)).await?;
        let denied = |note: &str| Err(Failure::new(FailureKind::Denied, note));
        let said = match Box::pin(self.sts.get_caller_identity().send()).await {
            Ok(said) => said,
            Err(error) => {
                return match meaning(&error, false) {
                    Meaning::Failed(failure) => Err(failure),
                    Meaning::Forbidden | Meaning::Gone | Meaning::Full => denied("AWS refuses our own login"),
                };
            }
        };
        let (Some(account), Some(arn)) = (said.account(), said.arn()) else { return Err(odd()) };
        if account != self.account {
            return denied("our login is of another account than `account` says");
        }
        if name::is_root(arn) {
            return denied("our login is the account's root: Curfew never works as root");
        }
        let (user, role) = (name::user_of(arn).map(str::to_owned), name::role_of(arn).map(str::to_owned));
        let identity = Identity { user, role };
        *self.lock() = Some((Instant::now(), identity.clone()));
        Ok(identity)
    }

    /// Whether STS lets a key in, whatever it may do there.
    ///
    /// # Errors
    /// Where the answer says nothing of the key.
    pub(super) async fn lets_in(&self, id: &str, secret: &SecretString) -> Result<bool, Failure> {
        Box::pin(self.turn(IDENTITY)).await?;
        let login = Login::Given { id: id.to_owned(), secret: secret.clone() };
        let config = self.config.to_builder().credentials_provider(SharedCredentialsProvider::new(Own(login))).build();
        match Box::pin(aws_sdk_sts::Client::new(&config).get_caller_identity().send()).await {
            Ok(_) => Ok(true),
            Err(error) => match meaning(&error, false) {
                Meaning::Forbidden => Ok(true),
                Meaning::Failed(failure) if failure.kind == FailureKind::Denied => Ok(false),
                Meaning::Failed(failure) => Err(failure),
                Meaning::Gone | Meaning::Full => Err(odd()),
            },
        }
    }

    /// Waits until the call that needs `right` may start, by AWS's quota of such calls.
    ///
    /// # Errors
    /// `Unavailable` where others have their turn for too long: nothing was sent.
    async fn turn(&self, right: &str) -> Result<(), Failure> {
        match self.quotas.of(right) {
            Some(quota) if !quota.turn().await => {
                let note =
                    "our part of one of AWS's quotas is used up by other calls: `quota_percent`, or fewer processes";
                Err(Failure::wait(note))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Identity)>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A call that only looks; `right`: what it needs. `None`: there is nothing of the kind.
    pub(super) async fn look<T, E: ProvideErrorMetadata>(
        &self,
        right: &str,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Option<T>, Failure> {
        match self.ask(right, false, call).await {
            Err(failure) if failure.kind == FailureKind::Gone => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// A call that only looks, and that our login may lack the right to. `None`: it lacks it.
    pub(super) async fn look_where_allowed<T, E: ProvideErrorMetadata>(
        &self,
        right: &str,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Option<T>, Failure> {
        match Box::pin(self.sent(right, false, call)).await? {
            Ok(answer) => Ok(Some(answer)),
            // Or it is refused as such: the identity tells.
            Err(Meaning::Forbidden) => Box::pin(self.ask_identity()).await.map(|_| None),
            Err(other) => Err(self.failure(right, other).await),
        }
    }

    /// A call, sent once, when its turn has come: its answer, or what AWS means.
    async fn sent<T, E: ProvideErrorMetadata>(
        &self,
        right: &str,
        has_effect: bool,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Result<T, Meaning>, Failure> {
        let call = Box::pin(call);
        Box::pin(self.turn(right)).await?;
        Ok(call.await.map_err(|error| meaning(&error, has_effect)))
    }

    /// A call, sent once.
    pub(super) async fn ask<T, E: ProvideErrorMetadata>(
        &self,
        right: &str,
        has_effect: bool,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failure> {
        match Box::pin(self.sent(right, has_effect, call)).await? {
            Ok(answer) => Ok(answer),
            Err(meaning) => Err(self.failure(right, meaning).await),
        }
    }

    /// A call that makes one more of what AWS counts. `None`: there is no room for it, and nothing was made.
    pub(super) async fn ask_for_room<T, E: ProvideErrorMetadata>(
        &self,
        right: &str,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Option<T>, Failure> {
        match Box::pin(self.sent(right, true, call)).await? {
            Ok(answer) => Ok(Some(answer)),
            Err(Meaning::Full) => Ok(None),
            Err(other) => Err(self.failure(right, other).await),
        }
    }

    /// What it means for a call that needs `right`.
    async fn failure(&self, right: &str, meaning: Meaning) -> Failure {
        match meaning {
            Meaning::Failed(failure) => failure,
            Meaning::Gone => Failure::new(FailureKind::Gone, "AWS has nothing of this name"),
            Meaning::Full => full(),
            // Nothing was done. Our login may be refused as such, or it lacks this one right.
            Meaning::Forbidden => match Box::pin(self.ask_identity()).await {
                Ok(_) => {
                    let note = format!("our own login lacks `{right}` here: see deploy/aws");
                    Failure::new(FailureKind::Refused, note)
                }
                Err(failure) => failure,
            },
        }
    }
}
