//! `postgres`: the system behind a database lease. A user is dead when it cannot log in and has no session left.
//!
//! Who a lease's user is, its producer says, and Vault does not. So P6: none is touched but those whose names Vault makes for
//! leases ([`PostgresSettings::lease_users`]), and never who administers, or what PostgreSQL brings.
//!
//! Facts: the database engine's default `username_template` for PostgreSQL begins with `v-`
//! (`plugins/database/postgresql/postgresql.go` of Vault); a role may have another.
//!
//! Sessions outlive their role: after DROP ROLE an open one shows `usename` NULL, but keeps `usesysid`. So the role's
//! OID is recorded before the revoke, and everything is matched by it.

pub mod answers;
pub mod role;
pub mod scope;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Error};

use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue, Sighting};
use crate::clock;
use crate::connector::vault::ConnectError;
use crate::connector::{Connector, Failure, Subject};
use crate::event::is_like;
use crate::probe::Settle;

/// How often, and how many times, it is looked whether terminated sessions have ended.
const LOOKS: (Duration, u32) = (Duration::from_millis(50), 40);

/// The users of leases, as Vault's default template names them.
pub const LEASE_USERS: &str = "v-*";

/// A role: OID, name, whether it can log in, whether it is protected.
const BY_OID: &str = "SELECT oid::bigint, rolname::text, rolcanlogin, rolsuper OR rolcreaterole OR oid::bigint < 16384 \
     OR rolname IN (current_user, session_user) \
     FROM pg_catalog.pg_roles WHERE oid = $1::bigint::oid";
const BY_NAME: &str = "SELECT oid::bigint, rolname::text, rolcanlogin, rolsuper OR rolcreaterole OR oid::bigint < 16384 \
     OR rolname IN (current_user, session_user) \
     FROM pg_catalog.pg_roles WHERE rolname = $1::text";
const SESSIONS: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1::bigint::oid";
/// Where the OID was never seen: sessions whose role does not exist any more.
const ORPHANS: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE usesysid IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles r WHERE r.oid = a.usesysid)";
const TERMINATE: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
     WHERE usesysid = $1::bigint::oid AND pid <> pg_catalog.pg_backend_pid()";
/// Whether our own role exists (the path works), whether this is the primary, whether we may end others' sessions.
const SELF: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = current_user), \
     NOT pg_catalog.pg_is_in_recovery(), \
     pg_catalog.pg_has_role(current_user, 'pg_signal_backend', 'USAGE')";
const VERSION: &str = "SELECT pg_catalog.current_setting('server_version_num')::int";

fn timeout_ms() -> u64 {
    10_000
}

fn lease_users() -> Vec<String> {
    vec![LEASE_USERS.to_owned()]
}

/// A PostgreSQL target's settings: `url` from the environment or `url_file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    /// `postgres://user:password@host/database?sslmode=verify-full&sslrootcert=…`; never from a configuration file.
    #[serde(skip)]
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// An upper bound of one call.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Users that leases may be of: whole names, or beginnings and `*`. No other is shut out on a producer's word.
    #[serde(default = "lease_users")]
    pub lease_users: Vec<String>,
}

impl PostgresSettings {
    /// Settings with the defaults.
    pub fn new(url: SecretString) -> Self {
        Self { url: Some(url), url_file: None, timeout_ms: timeout_ms(), lease_users: lease_users() }
    }

    /// The same, with the URL in a file.
    pub fn by_file(url_file: PathBuf, timeout_ms: u64) -> Self {
        Self { url: None, url_file: Some(url_file), timeout_ms, lease_users: lease_users() }
    }
}

/// One PostgreSQL.
pub struct Postgres {
    target: String,
    timeout: Duration,
    pool: PgPool,
    lease_users: Vec<String>,
    clock: clock::Shared,
}

/// Makes a target's connector. Connections are opened when they are needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &PostgresSettings,
    clock: clock::Shared,
) -> Result<Vec<Arc<dyn Connector>>, ConnectError> {
    let timeout = Duration::from_millis(settings.timeout_ms);
    let pool = pool(options(settings).await?, timeout);
    let lease_users = settings.lease_users.clone();
    Ok(vec![Arc::new(Postgres { target: target.to_owned(), timeout, pool, lease_users, clock })])
}

/// Connections by other settings than a connector's, and how long one exchange may take: for who only looks.
///
/// # Errors
/// [`ConnectError::Settings`].
pub(crate) async fn pool_for(settings: &PostgresSettings) -> Result<(PgPool, Duration), ConnectError> {
    let timeout = Duration::from_millis(settings.timeout_ms);
    Ok((pool(options(settings).await?, timeout), timeout))
}

/// One exchange that only looks.
pub(crate) async fn bounded_look<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Failure> {
    bounded(timeout, false, call).await
}

/// How a target is reached as our own user.
async fn options(settings: &PostgresSettings) -> Result<PgConnectOptions, ConnectError> {
    let bad = |what: String| ConnectError::Settings(what);
    let url = match (&settings.url, &settings.url_file) {
        (Some(url), None) => url.clone(),
        (None, Some(path)) => {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|e| bad(format!("`url_file` {} cannot be read: {}", path.display(), e.kind())))?;
            SecretString::from(text.trim().to_owned())
        }
        _ => return Err(bad("a PostgreSQL target has a `url_file`, or its URL in the environment".into())),
    };
    // sqlx's own words can quote the URL.
    let options = PgConnectOptions::from_str(url.expose_secret()).map_err(|_| bad("the URL cannot be read".into()))?;
    if !is_near(&options) && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
        return Err(bad("PostgreSQL beyond loopback needs sslmode=verify-full (and sslrootcert) in its URL".into()));
    }
    Ok(options
        .application_name("curfew")
        .options([("statement_timeout", settings.timeout_ms.to_string()), ("search_path", "pg_catalog".into())])
        .disable_statement_logging())
}

fn pool(options: PgConnectOptions, timeout: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(timeout)
        .idle_timeout(Duration::from_secs(300))
        .connect_lazy_with(options)
}

/// One exchange with PostgreSQL within `timeout`. When it strikes, an effect may have happened.
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

/// The longest that a call with an effect takes: looks, the effect, and looks until sessions ended.
fn whole(timeout: Duration) -> Duration {
    timeout * 3 + LOOKS.0.saturating_mul(LOOKS.1)
}

/// Whether plain text stays on this machine.
pub fn is_near(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A role, as `pg_roles` shows it: OID, name, whether it can log in, whether it is protected.
type Role = (i64, String, bool, bool);

impl Postgres {
    async fn bounded<T>(
        &self,
        has_effect: bool,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Failure> {
        bounded(self.timeout, has_effect, call).await
    }

    /// The role by its recorded OID; by name only where none was ever recorded.
    async fn role(&self, subject: &Subject) -> Result<Option<Role>, Error> {
        if let Some(oid) = oid_of(subject) {
            return sqlx::query_as(BY_OID).bind(oid).fetch_optional(&self.pool).await;
        }
        let Some(name) = &subject.principal else { return Ok(None) };
        sqlx::query_as(BY_NAME).bind(name).fetch_optional(&self.pool).await
    }

    /// Whether the role, or who the producer says where there is none, may be touched.
    fn is_ours(&self, subject: &Subject, role: Option<&Role>) -> Result<(), Failure> {
        let refused = |note: &str| Err(Failure::new(FailureKind::Refused, note));
        if role.is_some_and(|(_, _, _, protected)| *protected) {
            return refused("our own role, or an administrator: never touched");
        }
        match role.map(|(_, name, ..)| name).or(subject.principal.as_ref()) {
            Some(name) if !self.serves(name) => refused("none of the target's `lease_users`: never touched"),
            _ => Ok(()),
        }
    }

    async fn sessions(&self, oid: i64) -> Result<i64, Error> {
        sqlx::query_scalar(SESSIONS).bind(oid).fetch_one(&self.pool).await
    }

    async fn disable(&self, subject: &Subject) -> Result<Output, Failure> {
        let Some(role) = self.bounded(false, self.role(subject)).await? else {
            return Err(Failure::new(FailureKind::Gone, "the role is gone"));
        };
        self.is_ours(subject, Some(&role))?;
        let (_, name, can_log_in, _) = role;
        if can_log_in {
            let sql = AssertSqlSafe(format!("ALTER ROLE {} NOLOGIN", quoted(&name)));
            self.bounded(true, sqlx::query(sql).execute(&self.pool)).await?;
        }
        Ok(Output::default())
    }

    async fn end_sessions(&self, subject: &Subject) -> Result<Output, Failure> {
        let role = self.bounded(false, self.role(subject)).await?;
        self.is_ours(subject, role.as_ref())?;
        let Some(oid) = oid_of(subject).or(role.map(|(oid, ..)| oid)) else {
            return Ok(Output { residue: vec![Residue::Sessions], ..Output::default() });
        };
        let ended: Vec<bool> =
            self.bounded(true, sqlx::query_scalar(TERMINATE).bind(oid).fetch_all(&self.pool)).await?;
        for _ in 0..LOOKS.1 {
            if self.bounded(false, self.sessions(oid)).await? == 0 {
                return Ok(Output { derived: u32::try_from(ended.len()).unwrap_or(u32::MAX), ..Output::default() });
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        Err(Failure::new(FailureKind::Unknown, "terminated sessions have not ended yet"))
    }

    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool, Vec<Residue>), Error> {
        let (exists, primary, may_end): (bool, bool, bool) = sqlx::query_as(SELF).fetch_one(&self.pool).await?;
        if !primary || (oid_of(subject).is_none() && subject.principal.is_none()) {
            return Ok((Answer::Unknown, false, Vec::new()));
        }
        let role = self.role(subject).await?;
        if role.as_ref().is_some_and(|(_, _, can_log_in, _)| *can_log_in) {
            return Ok((Answer::Accepted, exists, Vec::new()));
        }
        Ok(match oid_of(subject).or(role.map(|(oid, ..)| oid)) {
            Some(oid) => match self.sessions(oid).await? {
                0 => (Answer::Refused, exists, Vec::new()),
                _ if may_end => (Answer::Accepted, exists, vec![Residue::Sessions]),
                _ => (Answer::Refused, exists, vec![Residue::Sessions]),
            },
            // Gone before it was ever seen: a session of some dropped role may be its own.
            None => match sqlx::query_scalar::<_, i64>(ORPHANS).fetch_one(&self.pool).await? {
                0 => (Answer::Refused, exists, Vec::new()),
                _ => (Answer::Refused, exists, vec![Residue::Sessions]),
            },
        })
    }
}

#[async_trait]
impl Connector for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn system(&self) -> &str {
        &self.target
    }

    fn call_timeout_ms(&self) -> i64 {
        i64::try_from(whole(self.timeout).as_millis()).unwrap_or(i64::MAX)
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    fn serves(&self, principal: &str) -> bool {
        self.lease_users.iter().any(|pattern| is_like(principal, pattern))
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        let at_ms = self.clock.wall_ms();
        if oid_of(subject).is_none() && subject.principal.is_none() {
            return Err(Failure::new(FailureKind::Refused, "no user name is known"));
        }
        let role = self.bounded(false, self.role(subject)).await?;
        let principal_id = oid_of(subject).or(role.as_ref().map(|(oid, ..)| *oid)).map(|oid| oid.to_string());
        Ok(Observation {
            presence: if role.is_some() { Presence::Present } else { Presence::Gone },
            at_ms,
            protected: role.is_some_and(|(_, _, _, protected)| protected),
            principal_id,
            ..Observation::default()
        })
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let call = async {
            match act {
                Act::Disable => self.disable(subject).await,
                Act::EndSessions => self.end_sessions(subject).await,
                _ => Err(Failure::new(FailureKind::Refused, "this connector has no such step")),
            }
        };
        let late = || Failure::new(FailureKind::Unknown, "no answer in time");
        tokio::time::timeout(whole(self.timeout), call).await.unwrap_or_else(|_| Err(late()))
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let (answer, control, residue) =
            self.bounded(false, self.sight(subject)).await.unwrap_or((Answer::Unknown, false, Vec::new()));
        Sighting { level: Level::Target, answer, at_ms, control, residue, request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        let look = sqlx::query_as::<_, (bool, bool, bool)>(SELF).fetch_one(&self.pool);
        match self.bounded(false, look).await? {
            (true, ..) => Ok(()),
            _ => Err(Failure::new(FailureKind::Denied, "our own role does not exist any more")),
        }
    }
}

/// The OID that was recorded before the revoke.
fn oid_of(subject: &Subject) -> Option<i64> {
    [&subject.seen, &subject.issuer].into_iter().flatten().find_map(|seen| seen.principal_id.as_ref()?.parse().ok())
}

/// An SQL identifier. The name comes from `pg_roles`, so it has no NUL and is not too long.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
