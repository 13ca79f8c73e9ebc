//! `aws-access-key`: a long-lived access key of an IAM user, disabled and not deleted. It is dead when IAM shows it as
//! disabled over the whole settle window: IAM answers from copies, and one that is late shows a key that still works.
//!
//! P6: exactly the key that was matched, by its id and its user; only of users that the configuration names, never of our
//! own, and never with the authority of its victim: each call is signed by our own login. Sessions that the user opened
//! ask for no key any more: a policy of ours on the user denies them ([`sessions`]). What it opened by assuming roles is named, and
//! denied where a rule names the role ([`roles`]).
//!
//! Each call is made once: the journal owns the retries, so those of the SDK are off. Its timeouts are ours. Before each
//! call a turn is taken at what AWS counts it in ([`quota`]).
//!
//! Facts: AWS's IAM API reference and user guide (2010-05-08 API), and moto for what it has of them. Never run against AWS
//! itself.

pub mod access_key;
pub mod answers;
pub mod assume;
pub mod authorizations;
mod client;
pub mod document;
pub mod fence;
pub mod login;
pub mod name;
pub mod quota;
pub mod roles;
pub mod rotated;
pub mod scope;
pub mod secrets;
pub mod sessions;
pub mod user_key;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_iam::types::StatusType;

use super::vault::ConnectError;
use super::{Connector, Failure};
use crate::case::record::FailureKind;
use crate::clock;
use crate::probe::Settle;
pub use client::Client;
pub use login::Login;
use name::KeyName;
use quota::Quotas;
use rotated::Patience;

/// How long IAM may go on showing what it was told to end: deleted keys were reported to work for about four seconds.
pub const SETTLE: Settle = Settle { window_ms: 15_000, sightings: 4 };
/// Calls of one step, one after another.
const CALLS: i64 = crate::config::AWS_CALLS;
/// Keys that IAM lets one user have.
pub const MOST_KEYS: usize = 2;

/// Policies that AWS attaches to a user whose key it found in public: by their beginning, since each has another version.
const QUARANTINE: &str = "AWSCompromisedKeyQuarantine";

/// How an account is reached.
#[derive(Debug, Clone)]
pub struct AwsSettings {
    /// The twelve digits that it must say of itself.
    pub account: String,
    /// Whose endpoints are called; IAM has one for each partition.
    pub region: String,
    /// Instead of AWS's own: for tests, on loopback.
    pub endpoint: Option<String>,
    /// How Curfew logs in.
    pub login: Login,
    /// An upper bound of one call.
    pub timeout_ms: u64,
    /// Users whose keys may be touched: `<path><name>` without the first slash; what ends in `/` stands for all below it.
    pub users: Vec<String>,
    /// Roles whose sessions are denied along with keys of users that may assume them: ARNs.
    pub cut_roles: Vec<String>,
    /// When a key counts as dead.
    pub settle: Settle,
    /// What AWS counts of the calls: one for all that call the same account and Region.
    pub quotas: Arc<Quotas>,
    /// How rotations by AWS itself are waited for.
    pub patience: Patience,
}

impl AwsSettings {
    /// With the usual bounds.
    pub fn new(account: &str, region: &str, login: Login, users: Vec<String>) -> Self {
        let quotas = Quotas::new(account, region, crate::config::QUOTA_PERCENT);
        let (account, region) = (account.to_owned(), region.to_owned());
        Self {
            account,
            region,
            endpoint: None,
            login,
            timeout_ms: 5_000,
            users,
            cut_roles: Vec::new(),
            settle: SETTLE,
            quotas,
            patience: Patience::default(),
        }
    }
}

/// One account, through one login.
pub struct Account {
    target: String,
    users: Vec<String>,
    cut_roles: Vec<String>,
    settle: Settle,
    timeout: Duration,
    client: Client,
    clock: clock::Shared,
}

/// A user's key, as IAM lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// `<path><name>/<key id>`
    pub name: KeyName,
    /// Whether it lets in.
    pub active: bool,
    /// When it was made.
    pub created_ms: Option<i64>,
}

/// A user, as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    /// `<path><name>` without the first slash.
    full: String,
    /// IAM's immutable id.
    id: String,
}

/// Makes an account's connector. Nothing is called before it is needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &AwsSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    Ok(Arc::new(Account::open(target, settings, clock).await?))
}

/// Makes the connector of an account's users whose keys are rotated. Nothing is called before it is needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect_users(
    target: &str,
    settings: &AwsSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    Ok(Arc::new(user_key::UserKeys(Account::open(target, settings, clock).await?)))
}

/// Makes what fences an account's users while their keys die. Nothing is called before it is needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect_fences(
    target: &str,
    settings: &AwsSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    Ok(Arc::new(fence::Fences(Account::open(target, settings, clock).await?)))
}

/// A look that is no part of what must be: without the right to it nothing is known.
fn may_lack<T>(looked: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    match looked {
        Err(failure) if failure.kind == FailureKind::Refused => Ok(None),
        looked => looked,
    }
}

impl Account {
    /// As [`connect`], for who only reads.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn open(target: &str, settings: &AwsSettings, clock: clock::Shared) -> Result<Self, ConnectError> {
        let client = Client::new(settings).await?;
        let timeout = Duration::from_millis(settings.timeout_ms);
        let (target, users, cut_roles) = (target.to_owned(), settings.users.clone(), settings.cut_roles.clone());
        Ok(Self { target, users, cut_roles, settle: settings.settle, timeout, client, clock })
    }

    /// What the user is now. `None`: IAM has no such user.
    async fn user(&self, name: &str) -> Result<Option<User>, Failure> {
        let call = self.client.iam.get_user().user_name(name).send();
        let Some(found) = self.client.look("iam:GetUser", call).await? else { return Ok(None) };
        let user = found.user.ok_or_else(answers::odd)?;
        Ok(Some(User { full: name::full(user.path(), user.user_name()), id: user.user_id().to_owned() }))
    }

    /// The keys of a user. `None`: IAM has no such user.
    ///
    /// # Errors
    /// Also where the list is a part of one: what it does not show may be there.
    pub async fn keys(&self, user: &str) -> Result<Option<Vec<Listed>>, Failure> {
        let name = user.rsplit('/').next().unwrap_or(user);
        let call = self.client.iam.list_access_keys().user_name(name).send();
        let Some(list) = self.client.look("iam:ListAccessKeys", call).await? else { return Ok(None) };
        if list.is_truncated() {
            return Err(answers::odd());
        }
        let keys = list.access_key_metadata().iter().filter_map(|key| {
            Some(Listed {
                name: KeyName::new(user, key.access_key_id()?)?,
                active: !matches!(key.status(), Some(StatusType::Inactive | StatusType::Expired)),
                created_ms: key.create_date().and_then(|at| at.to_millis().ok()),
            })
        });
        let keys: Vec<Listed> = keys.collect();
        if keys.len() > MOST_KEYS {
            // More than IAM allows: somebody's quota was raised, or the answer is none of IAM's.
            tracing::warn!(
                target = self.target,
                user,
                keys = keys.len(),
                "a user has more access keys than IAM allows"
            );
        }
        Ok(Some(keys))
    }

    /// Whether AWS has put the user into quarantine. `None`: our login may not look.
    ///
    /// # Errors
    /// All but that.
    pub async fn is_quarantined(&self, user: &str) -> Result<Option<bool>, Failure> {
        let name = user.rsplit('/').next().unwrap_or(user);
        let call = self.client.iam.list_attached_user_policies().user_name(name).send();
        let found = may_lack(self.client.look("iam:ListAttachedUserPolicies", call).await)?;
        let is_it = |name: Option<&str>| name.is_some_and(|name| name.starts_with(QUARANTINE));
        Ok(found.map(|list| list.attached_policies().iter().any(|policy| is_it(policy.policy_name()))))
    }

    /// From when on the sessions' policy of a key denies nothing any more. `None`: there is none as we write it, or our
    /// login may not look.
    ///
    /// # Errors
    /// All but that.
    async fn fence_over_ms(&self, key: &KeyName) -> Result<Option<i64>, Failure> {
        let call = self.client.iam.get_user_policy().user_name(key.user_name()).policy_name(sessions::name(key)).send();
        let found = may_lack(self.client.look("iam:GetUserPolicy", call).await)?;
        Ok(found.and_then(|found| {
            // IAM hands documents out as parts of a URL.
            let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().ok()?;
            sessions::over_ms(&text)
        }))
    }

    /// The user's keys whose sessions' policy has nothing left to deny, whether they are still there or not.
    ///
    /// # Errors
    /// All but that our login may not look.
    pub async fn over(&self, user: &str) -> Result<Vec<KeyName>, Failure> {
        let name = user.rsplit('/').next().unwrap_or(user);
        let call = self.client.iam.list_user_policies().user_name(name).send();
        let Some(list) = may_lack(self.client.look("iam:ListUserPolicies", call).await)? else { return Ok(Vec::new()) };
        let (now_ms, mut over) = (self.clock.wall_ms(), Vec::new());
        for key in list.policy_names().iter().filter_map(|policy| sessions::key_of(user, policy)) {
            if self.fence_over_ms(&key).await?.is_some_and(|over_ms| over_ms <= now_ms) {
                over.push(key);
            }
        }
        Ok(over)
    }

    /// The users that the configuration names and that there are, as `<path><name>`.
    ///
    /// # Errors
    /// The first call that fails.
    pub async fn users(&self) -> Result<Vec<String>, Failure> {
        self.client.identity().await?;
        let mut users = Vec::new();
        for allowed in &self.users {
            match allowed.strip_suffix('/') {
                Some(_) => users.extend(self.below(allowed).await?),
                None => {
                    let name = allowed.rsplit('/').next().unwrap_or(allowed);
                    users.extend(self.user(name).await?.filter(|user| user.full == *allowed).map(|user| user.full));
                }
            }
        }
        users.sort();
        users.dedup();
        Ok(users)
    }

    /// The users below a path.
    async fn below(&self, path: &str) -> Result<Vec<String>, Failure> {
        let (mut users, mut marker) = (Vec::new(), None);
        loop {
            let call = self.client.iam.list_users().path_prefix(format!("/{path}")).set_marker(marker.take()).send();
            let page = self.client.look("iam:ListUsers", call).await?.ok_or_else(answers::odd)?;
            let named = page.users().iter().map(|user| name::full(user.path(), user.user_name()));
            // Not all that speak this API read the prefix.
            users.extend(named.filter(|user| user.starts_with(path)));
            match page.marker().filter(|_| page.is_truncated()) {
                Some(next) => marker = Some(next.to_owned()),
                None => return Ok(users),
            }
        }
    }
}
