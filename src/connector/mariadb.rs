//! `mariadb-user`: users of a MariaDB whose password is stored and rotated. A value is dead when a login with it is refused,
//! and no session is left that was opened with it.
//!
//! A user has one password: two take turns, or one switches. MariaDB gets the hash that it keeps (`mysql_native_password`),
//! never a value, so none is in its logs. A new hash and the lock of the account are one statement, so there is no instant
//! at which an old value works again. Sessions live on when a password changes or an account is locked, and MariaDB does not
//! say when one began. But it counts connections: what began before the new value was set has a lower number than one of
//! ours that was opened after it. A login that has said its name before, and goes on after, is shown with that number and
//! name, and let in by what was set before (measured): so it counts as a session, and is ended like one.
//!
//! Accounts are a name and a host; the same name from elsewhere is another account, and is left alone (`hosts`). Served
//! are accounts with a password that MariaDB keeps, and no other way in. Administrators, who could change accounts, and our
//! own are protected. What our user needs: `deploy/mariadb/`.
//!
//! Accounts are replicated to replicas and to nodes of a Galera cluster; sessions are not. Only the server that the URL
//! names is looked at: where there are others, the verdict says `sessions`.

mod account;
pub mod answers;
mod effects;
mod gates;
mod hosts;
mod open;
mod proof;
mod rights;
mod session;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Error};

pub use account::Name;

use super::vault::ConnectError;
use super::{Connector, Failure, Gate, Subject, within};
use crate::case::plan::Act;
use crate::case::record::{FailureKind, Level, Observation, Output, Presence, Sighting};
use crate::clock;
use crate::connector::recipe::Rotation;
use crate::credential::Kind;
use crate::probe::Settle;
use answers::Login;
use session::Session;

/// How often, and how many times, it is looked whether sessions have ended.
const LOOKS: (Duration, u32) = (Duration::from_millis(50), 40);

/// How a MariaDB is reached.
#[derive(Debug, Clone)]
pub struct MariadbSettings {
    /// `mariadb://user:password@host:port/?ssl-mode=VERIFY_IDENTITY&ssl-ca=…`.
    pub url: Url,
    /// An upper bound of one exchange.
    pub timeout_ms: u64,
}

/// Where the URL is.
#[derive(Debug, Clone)]
pub enum Url {
    /// In a file.
    File(PathBuf),
    /// Here.
    Given(SecretString),
}

/// The users of one MariaDB.
struct MariadbUsers {
    target: String,
    timeout: Duration,
    /// As our own user. Where others log in as well.
    options: MySqlConnectOptions,
    clock: clock::Shared,
}

/// Makes a target's connector. Connections are opened when they are needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &MariadbSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    let bad = |what: String| ConnectError::Settings(what);
    let url = match &settings.url {
        Url::Given(url) => url.clone(),
        Url::File(path) => {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|e| bad(format!("`url_file` {} cannot be read: {}", path.display(), e.kind())))?;
            SecretString::from(text.trim().to_owned())
        }
    };
    let options = options(&url).map_err(|what| bad(what.to_owned()))?;
    let timeout = Duration::from_millis(settings.timeout_ms);
    Ok(Arc::new(MariadbUsers { target: target.to_owned(), timeout, options, clock }))
}

/// sqlx's own words can quote the URL.
fn options(url: &SecretString) -> Result<MySqlConnectOptions, &'static str> {
    let unreadable = "the URL cannot be read: mariadb://user:password@host:port/?ssl-mode=VERIFY_IDENTITY";
    let read = reqwest::Url::parse(url.expose_secret()).map_err(|_| unreadable)?;
    if !matches!(read.scheme(), "mariadb" | "mysql") {
        return Err(unreadable);
    }
    if read.username().is_empty() || read.password().is_none_or(str::is_empty) {
        return Err("the URL needs the user and the password of Curfew's own login");
    }
    let options = MySqlConnectOptions::from_str(url.expose_secret()).map_err(|_| unreadable)?;
    let host = options.get_host().trim_matches(['[', ']']);
    let is_near = options.get_socket().is_some()
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !is_near && !matches!(options.get_ssl_mode(), MySqlSslMode::VerifyIdentity) {
        return Err("MariaDB beyond loopback needs ssl-mode=VERIFY_IDENTITY (and ssl-ca) in its URL");
    }
    // Nothing is said after a login but what we say: what comes of it has to be told apart.
    let silent = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None).set_names(false);
    Ok(silent.disable_statement_logging())
}

/// One exchange with MariaDB within `timeout`. When it strikes, an effect may have happened.
async fn bounded<T>(
    timeout: Duration,
    has_effect: bool,
    call: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, call).await {
        Ok(result) => result.map_err(|error| answers::failure(&error, has_effect)),
        Err(_) if has_effect => Err(Failure::new(FailureKind::Unknown, "no answer in time")),
        Err(_) => Err(Failure::new(FailureKind::Unavailable, "no answer in time")),
    }
}

fn refused<T>(note: &str) -> Result<T, Failure> {
    Err(Failure::new(FailureKind::Refused, note))
}

/// What MariaDB keeps of a password: `*` and SHA-1 of its SHA-1. Its general and binary logs have statements, so the value
/// itself is in none.
fn hash(value: &SecretString) -> String {
    let sha1 = |bytes: &[u8]| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    format!("*{}", hex::encode_upper(sha1(sha1(value.expose_secret().as_bytes()).as_ref())))
}

/// What is rotated, and the accounts of its users: in a credential's id they have their hosts.
struct Accounts<'a> {
    rotation: &'a Rotation,
    all: Vec<Name>,
}

impl<'a> Accounts<'a> {
    fn of(subject: &'a Subject) -> Result<Self, Failure> {
        let Some(rotation) = &subject.rotation else { return refused("no recipe names its users") };
        let named = Name::all(&rotation.recipe.credential.id());
        let all = named.map_err(|_| Failure::new(FailureKind::Refused, "the credential's id names no accounts"))?;
        if all.iter().map(|name| name.user.as_str()).ne(rotation.recipe.users.names()) {
            return refused("the credential's id and its recipe name different users");
        }
        Ok(Self { rotation, all })
    }

    /// The account of one of the recipe's users.
    fn named(&self, user: &str) -> Result<&Name, Failure> {
        let name = self.all.iter().find(|name| name.user == user);
        name.ok_or_else(|| Failure::new(FailureKind::Refused, "the stored user is none of the recipe's"))
    }
}

impl MariadbUsers {
    /// The longest that a call takes: looks, the effect, and looks until sessions ended.
    fn whole(&self) -> Duration {
        self.timeout * 3 + LOOKS.0.saturating_mul(LOOKS.1)
    }

    async fn open(&self) -> Result<Session, Failure> {
        Session::open(&self.options, self.timeout).await
    }

    /// A connection for something that changes accounts.
    async fn open_to_change(&self) -> Result<Session, Failure> {
        let session = self.open().await?;
        if session.is_read_only {
            return Err(Failure::new(FailureKind::Unavailable, "this MariaDB is read-only: a replica?"));
        }
        Ok(session)
    }

    /// A login of its own with another password, at once closed again. `In` only where it is this account that lets in.
    async fn log_in(&self, name: &Name, value: &SecretString) -> Login {
        let options = self.options.clone().username(&name.user).password(value.expose_secret());
        let tried = async {
            let mut connection = options.connect().await?;
            let own = sqlx::query_scalar::<_, String>("SELECT CAST(CURRENT_USER() AS CHAR)");
            let own = own.fetch_one(&mut connection).await;
            // In it was, however the farewell goes.
            connection.close().await.ok();
            own
        };
        match tokio::time::timeout(self.timeout, tried).await {
            Ok(Ok(own)) if own == name.to_string() => Login::In,
            Ok(Err(error)) => answers::login(&error),
            Ok(Ok(_)) | Err(_) => Login::Unclear,
        }
    }

    /// Present: at least one account is. A leak is contained whether or not our logins can try it.
    async fn look(&self, subject: &Subject) -> Result<Observation, Failure> {
        let mut seen = Observation { at_ms: self.clock.wall_ms(), ..Observation::default() };
        let accounts = Accounts::of(subject)?;
        let mut session = self.open().await?;
        let mut there = Vec::new();
        for name in &accounts.all {
            let Some(account) = session.account(name).await? else { continue };
            there.push(name.user.as_str());
            if account.is_protected {
                seen.protected = true;
                continue;
            }
            account.is_ours()?;
            if !accounts.rotation.contains && !session.reaches(&account).await? {
                return refused("logins from here do not reach this account: another host, or TLS");
            }
        }
        session.close().await;
        let known = match accounts.rotation.old_user() {
            Some(old) => there.contains(&old),
            None => there.len() == accounts.all.len(),
        };
        seen.presence = if there.is_empty() { Presence::Gone } else { Presence::Present };
        // MariaDB gives an account no other id than its name.
        seen.principal_id = known.then(|| accounts.rotation.recipe.credential.id());
        Ok(seen)
    }

    /// Our own user is let in, and may do all that it needs to.
    async fn check(&self) -> Result<(), Failure> {
        let mut session = self.open().await?;
        if let Some(lacked) = session.lacks().await?.first() {
            let note = format!("our own user lacks `{lacked}`: see deploy/mariadb");
            return Err(Failure::new(FailureKind::Denied, note));
        }
        let nobody = Name { user: String::new(), host: "%".to_owned() };
        session.account(&nobody).await?;
        rights::lacking(&mut session, &nobody, &nobody).await?;
        session.close().await;
        Ok(())
    }
}

#[async_trait]
impl Connector for MariadbUsers {
    fn name(&self) -> &'static str {
        Kind::MariadbUser.as_str()
    }

    fn system(&self) -> &str {
        &self.target
    }

    fn call_timeout_ms(&self) -> i64 {
        i64::try_from(self.whole().as_millis()).unwrap_or(i64::MAX)
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        within(self.whole(), FailureKind::Unavailable, Box::pin(self.look(subject))).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let call = async {
            let accounts = Accounts::of(subject)?;
            match act {
                Act::Set => self.set(&accounts).await,
                Act::Disable => self.disable(&accounts).await,
                Act::Restore => self.restore(&accounts).await,
                Act::EndSessions => self.end_sessions(&accounts).await,
                _ => refused("this connector has no such step"),
            }
        };
        within(self.whole(), FailureKind::Unknown, Box::pin(call)).await
    }

    async fn pass(&self, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        let call = async {
            let accounts = Accounts::of(subject)?;
            match act {
                Act::Test => self.test(&accounts).await,
                Act::Adopt => self.adopted(&accounts).await,
                _ => refused("this connector has no such gate"),
            }
        };
        within(self.whole(), FailureKind::Unavailable, Box::pin(call)).await
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let sight = within(self.whole(), FailureKind::Unavailable, Box::pin(self.sight(subject))).await;
        let proof::Sight { answer, control, residue } = sight.unwrap_or_default();
        Sighting { level: Level::Target, answer, at_ms, control, residue, request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        within(self.whole(), FailureKind::Unavailable, Box::pin(self.check())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_password_gives() {
        // SELECT PASSWORD('password') of MariaDB.
        let value = SecretString::from("password".to_owned());
        assert_eq!(hash(&value), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }

    #[test]
    fn plain_text_stays_on_loopback() {
        for (url, is_good) in [
            ("mariadb://u:p@db.example", false),
            ("mariadb://u:p@db.example/?ssl-mode=REQUIRED", false),
            ("mariadb://u:p@db.example/?ssl-mode=VERIFY_CA", false),
            ("mariadb://u:p@db.example/?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem", true),
            ("mysql://u:p@127.0.0.1:3306", true),
            ("mariadb://u:p@[::1]:3306", true),
            ("mariadb://u:p@db.example/?socket=/run/mysqld/mysqld.sock", true),
            ("mariadb://u@127.0.0.1", false),
            ("mariadb://:p@127.0.0.1", false),
            ("postgres://u:p@127.0.0.1", false),
            ("not a url", false),
        ] {
            assert_eq!(options(&SecretString::from(url.to_owned())).is_ok(), is_good, "{url}");
        }
    }
}
