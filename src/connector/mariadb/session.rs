//! One connection of our own: what we are there, and what is open beside us. Which of it, and why, is not decided here.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection as _};

use super::account::Name;
use super::hosts::without_port;
use super::{answers, bounded};
use crate::case::record::FailureKind;
use crate::connector::Failure;

/// Asked first: another server may not understand the rest.
const VERSION: &str = "SELECT CAST(VERSION() AS CHAR)";
/// Who we are, and from where; whether it takes changes, the connection's number, the server's clock and
/// since when it runs (milliseconds, and seconds that may be one off), nodes of its cluster, whether TLS is used, which
/// server it is. That one is short and of no telling: it goes into the journal. Two may have one name, or number, but not
/// both and the port.
const OWN: &str = "SELECT CAST(CURRENT_USER() AS CHAR), CAST(USER() AS CHAR), \
     CAST(@@GLOBAL.read_only AS SIGNED), CAST(CONNECTION_ID() AS SIGNED), CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), \
     CAST(UNIX_TIMESTAMP() AS SIGNED) - (SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS \
     WHERE VARIABLE_NAME = 'UPTIME'), \
     COALESCE((SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS \
     WHERE VARIABLE_NAME = 'WSREP_CLUSTER_SIZE'), 0), \
     CAST(EXISTS (SELECT 1 FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'SSL_CIPHER' \
     AND VARIABLE_VALUE <> '') AS SIGNED), \
     CAST(LEFT(SHA2(CONCAT_WS(' ', @@GLOBAL.server_id, @@GLOBAL.hostname, @@GLOBAL.port), 256), 16) AS CHAR)";
/// What of the rights that are needed we have, on all databases.
const RIGHTS: &str = "SELECT CAST(PRIVILEGE_TYPE AS CHAR) FROM information_schema.USER_PRIVILEGES \
     WHERE PRIVILEGE_TYPE IN ('PROCESS', 'CREATE USER', 'CONNECTION ADMIN') AND GRANTEE = ";
/// What is open of a user name, whatever the account: also logins that have said their name and are not through.
const OPEN: &str = "SELECT CAST(ID AS SIGNED), CAST(USER AS CHAR), CAST(HOST AS CHAR) \
     FROM information_schema.PROCESSLIST WHERE USER = ?";
/// A replica that hangs on this server.
const REPLICAS: &str = "SELECT CAST(EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%') \
     AS SIGNED)";

/// Connected, and logged in as our own user.
pub(super) struct Session {
    pub(super) connection: MySqlConnection,
    pub(super) timeout: Duration,
    /// The account that we are let in by.
    pub(super) own: Name,
    /// Our own machine, as the server knows it.
    pub(super) machine: String,
    pub(super) is_tls: bool,
    /// It takes no changes: a replica, or somebody's decision.
    pub(super) is_read_only: bool,
    /// The number of this connection: those that began before have lower ones.
    pub(super) id: i64,
    /// The server's clock.
    pub(super) now_ms: i64,
    /// Since when it runs, by that clock.
    pub(super) since_s: i64,
    /// Which one it is: the same after a restart.
    pub(super) server: String,
    /// Nodes of its cluster; 0 without one.
    pub(super) nodes: i64,
}

/// A connection of some user.
pub(super) struct Seen {
    pub(super) id: i64,
    pub(super) machine: String,
}

type Row = (String, String, i64, i64, i64, i64, i64, i64, String);

impl Session {
    /// Logs in as our own user.
    ///
    /// # Errors
    /// `Denied` where that is refused; `Refused` where it is no MariaDB that is served.
    pub(super) async fn open(options: &MySqlConnectOptions, timeout: Duration) -> Result<Self, Failure> {
        use sqlx::ConnectOptions as _;
        let mut connection = bounded(timeout, false, options.connect()).await?;
        let version = sqlx::query_scalar::<_, String>(VERSION).fetch_one(&mut connection);
        answers::is_served(&bounded(timeout, false, version).await?)?;
        // Nothing of ours waits longer at the server than we do: what was given up here must not happen there later.
        let settings = format!("SET SESSION sql_mode = '', max_statement_time = {}", timeout.as_secs_f64());
        bounded(timeout, false, sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut connection)).await?;
        let row: Row = bounded(timeout, false, sqlx::query_as(OWN).fetch_one(&mut connection)).await?;
        let (own, user, read_only, id, now_ms, since_s, nodes, tls, server) = row;
        let unreadable = || Failure::new(FailureKind::Unavailable, "MariaDB's answer cannot be read");
        let (own_user, own_host) = own.rsplit_once('@').ok_or_else(unreadable)?;
        let (_, machine) = user.rsplit_once('@').ok_or_else(unreadable)?;
        Ok(Self {
            connection,
            timeout,
            own: Name { user: own_user.to_owned(), host: own_host.to_owned() },
            machine: machine.to_owned(),
            is_tls: tls != 0,
            is_read_only: read_only != 0,
            id,
            now_ms,
            since_s,
            server,
            nodes,
        })
    }

    /// No failure on the way out: what it was for is done.
    pub(super) async fn close(self) {
        tokio::time::timeout(self.timeout, self.connection.close()).await.ok();
    }

    /// What of the rights that are needed on all databases we lack.
    pub(super) async fn lacks(&mut self) -> Result<Vec<&'static str>, Failure> {
        let grantee = self.own.quoted().replace('\'', "''");
        let sql = AssertSqlSafe(format!("{RIGHTS}'{grantee}'"));
        let rights = sqlx::query_scalar(sql).fetch_all(&mut self.connection);
        let rights: Vec<String> = bounded(self.timeout, false, rights).await?;
        let needs = ["PROCESS", "CREATE USER", "CONNECTION ADMIN"];
        Ok(needs.into_iter().filter(|need| !rights.iter().any(|right| right == need)).collect())
    }

    /// All connections of a user name, whatever their account.
    pub(super) async fn seen(&mut self, user: &str) -> Result<Vec<Seen>, Failure> {
        let rows = sqlx::query_as(OPEN).bind(user).fetch_all(&mut self.connection);
        let rows: Vec<(i64, String, String)> = bounded(self.timeout, false, rows).await?;
        // Here upper and lower case are alike; of names they are not.
        let exactly = rows.into_iter().filter(|(_, its, _)| its == user);
        let seen = |(id, _, shown): (i64, String, String)| Seen { id, machine: without_port(&shown).to_owned() };
        Ok(exactly.map(seen).collect())
    }

    /// Whether there are other servers with the same accounts: what is open there is not seen here.
    pub(super) async fn has_others(&mut self) -> Result<bool, Failure> {
        let replicas = sqlx::query_scalar::<_, i64>(REPLICAS).fetch_one(&mut self.connection);
        Ok(self.nodes > 1 || bounded(self.timeout, false, replicas).await? != 0)
    }

    /// Ends one connection; `false`: it has ended by itself.
    pub(super) async fn end(&mut self, id: i64) -> Result<bool, Failure> {
        let sql = sqlx::raw_sql(AssertSqlSafe(format!("KILL HARD CONNECTION {id}")));
        match tokio::time::timeout(self.timeout, sql.execute(&mut self.connection)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if answers::is_no_session(&error) => Ok(false),
            Ok(Err(error)) => Err(answers::failure(&error, true)),
            Err(_) => Err(Failure::new(FailureKind::Unknown, "no answer in time")),
        }
    }

    /// One statement, so that nothing is half done. No prepared statement keeps it.
    pub(super) async fn alter(&mut self, name: &Name, what: &str) -> Result<(), Failure> {
        let sql = sqlx::raw_sql(AssertSqlSafe(format!("ALTER USER {} {what}", name.quoted())));
        let altered = bounded(self.timeout, true, sql.execute(&mut self.connection)).await;
        match altered {
            Ok(_) => Ok(()),
            // The same error says that it is gone.
            Err(refused) if refused.kind == FailureKind::Refused && self.account(name).await?.is_none() => {
                Err(Failure::new(FailureKind::Gone, "the account is gone"))
            }
            Err(failure) => Err(failure),
        }
    }
}
