//! Connections, migrations, and what is checked whenever a connection is new.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use uuid::Uuid;

use super::{Error, Settings, State, trust};

/// In order; `meta.schema` is how many of them the database has.
const MIGRATIONS: [&str; 11] = [
    include_str!("../../../schemas/journal/postgres/0001_spine.sql"),
    include_str!("../../../schemas/journal/postgres/0002_findings.sql"),
    include_str!("../../../schemas/journal/postgres/0003_parts.sql"),
    include_str!("../../../schemas/journal/postgres/0004_unbound.sql"),
    include_str!("../../../schemas/journal/postgres/0005_compact_marks.sql"),
    include_str!("../../../schemas/journal/postgres/0006_reach.sql"),
    include_str!("../../../schemas/journal/postgres/0007_watched.sql"),
    include_str!("../../../schemas/journal/postgres/0008_boundary.sql"),
    include_str!("../../../schemas/journal/postgres/0009_offboarded.sql"),
    include_str!("../../../schemas/journal/postgres/0010_uses.sql"),
    include_str!("../../../schemas/journal/postgres/0011_blast.sql"),
];
/// How long one statement may take.
const STATEMENT_MS: u32 = 30_000;
/// A process that stands still in the middle of a transaction loses it, and with it the rows that others wait for.
const STILL_MS: u32 = 5_000;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match error {
            E::ColumnDecode { .. } | E::ColumnNotFound(_) | E::Decode(_) | E::TypeNotFound { .. } => {
                Self::Corrupt { what: "column" }
            }
            // Its words may quote the URL.
            E::Configuration(_) => Self::Unavailable("the URL of the journal's PostgreSQL cannot be read".into()),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

/// Whether PostgreSQL ended the transaction for the sake of another one: it may simply be done again.
pub(super) fn is_victim(error: &Error) -> bool {
    let Error::Unavailable(source) = error else { return false };
    let code = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error).and_then(|e| e.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// Whether a name can stand in SQL as it is.
pub fn is_plain(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    first && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// How to connect. Plain text only on loopback.
pub(super) fn options(settings: &Settings) -> Result<PgConnectOptions, Error> {
    let wrong = |why: &str| Error::Unavailable(why.into());
    let options = PgConnectOptions::from_str(settings.url.expose_secret())
        .map_err(|_| wrong("the URL of the journal's PostgreSQL cannot be read"))?;
    if !crate::connector::postgres::is_near(&options) && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
        return Err(wrong("PostgreSQL beyond loopback needs sslmode=verify-full (and sslrootcert) in its URL"));
    }
    if !is_plain(&settings.schema) {
        return Err(wrong("the journal's `schema` is of lower-case letters, digits and `_`"));
    }
    Ok(options
        .application_name("curfew")
        .options([
            ("search_path", settings.schema.clone()),
            ("statement_timeout", STATEMENT_MS.to_string()),
            ("idle_in_transaction_session_timeout", STILL_MS.to_string()),
            // Plans are kept, and the first ones are made while the tables are small: what is found by key is never to be
            // found by reading a whole table that has grown since.
            ("enable_seqscan", "off".into()),
            // Where a table has no other way in, that makes a plan look dear enough to be compiled: 0.1 s for one row.
            ("jit", "off".into()),
            ("tcp_keepalives_idle", "10".into()),
            ("tcp_keepalives_interval", "5".into()),
            ("tcp_keepalives_count", "3".into()),
        ])
        .disable_statement_logging())
}

/// Brings the database to this version's schema; processes that start together do it once.
pub(super) async fn migrate(options: &PgConnectOptions, schema: &str) -> Result<Uuid, Error> {
    let mut db = PgConnection::connect_with(options).await?;
    let mut tx = db.begin().await?;
    // An index over a large journal takes its time, and so does waiting for the process that makes it.
    tx.execute("SET LOCAL statement_timeout = 0").await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('curfew journal ' || $1, 0))")
        .bind(schema)
        .execute(&mut *tx)
        .await?;
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(&mut *tx)
        .await?;
    if !there {
        tx.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await?;
    }
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass($1 || '.meta') IS NOT NULL").bind(schema).fetch_one(&mut *tx).await?;
    let has: i64 = if there {
        let has: Option<String> =
            sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'").fetch_optional(&mut *tx).await?;
        has.and_then(|n| n.parse().ok()).ok_or(Error::Corrupt { what: "meta" })?
    } else {
        0
    };
    let knows = MIGRATIONS.len();
    let Some(missing) = usize::try_from(has).ok().and_then(|has| MIGRATIONS.get(has..)) else {
        let text = format!("schema {schema} was written by a newer curfew (version {has}, this one knows {knows})");
        return Err(Error::Unavailable(text.into()));
    };
    for sql in missing {
        tx.execute(*sql).await?;
    }
    let put = "INSERT INTO meta VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    if !missing.is_empty() {
        sqlx::query(put).bind("schema").bind(knows.to_string()).execute(&mut *tx).await?;
    }
    let fresh = "INSERT INTO meta VALUES ('journal', $1) ON CONFLICT (name) DO NOTHING";
    sqlx::query(fresh).bind(Uuid::new_v4().to_string()).execute(&mut *tx).await?;
    let journal: String =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'journal'").fetch_one(&mut *tx).await?;
    tx.commit().await?;
    db.close().await?;
    journal.parse().map_err(|_| Error::Corrupt { what: "meta" })
}

/// The pool. Each new connection is looked at: after a failover it may lead to a database that lost what it promised.
pub(super) fn pool(settings: &Settings, options: PgConnectOptions, state: &Arc<State>) -> PgPool {
    let state = state.clone();
    PgPoolOptions::new()
        .max_connections(settings.connections.max(2))
        .acquire_timeout(Duration::from_secs(10))
        .idle_timeout(Duration::from_secs(300))
        .after_connect(move |db, _| {
            let state = state.clone();
            Box::pin(async move { begin(db, &state).await })
        })
        .connect_lazy_with(options)
}

/// What holds for each connection before it is used.
async fn begin(db: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    // A standby knows less, and that is no loss.
    if sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut *db).await? {
        return Err(sqlx::Error::Protocol("the journal's PostgreSQL is a standby".into()));
    }
    // Commits are durable at the standby too where there is one: `on` waits for synchronous ones, and a stronger setting
    // of the server stays.
    sqlx::query(
        "SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
    )
    .execute(&mut *db)
    .await?;
    trust::look(db, state).await.map(drop)
}
