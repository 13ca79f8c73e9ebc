//! What the account of the old value may do and that of the new one may not: seen before anything is promoted.
//!
//! Two users that take turns drift apart: a grant to one of them alone. Compared is what the server's tables of grants say,
//! as it was granted: a right counts as had where the new account has the same one, at the same place, or everybody has it
//! (PUBLIC). A wider grant at another level is not taken for a narrower one. Roles are compared by name. Nothing is owned in
//! MariaDB; what is defined by the old account goes on working when that is locked.

use sqlx::AssertSqlSafe;

use super::account::Name;
use super::bounded;
use super::session::Session;
use crate::connector::Failure;

/// The columns that are rights on a database: each version has some more.
const ON_DATABASES: &str = "SELECT CAST(COLUMN_NAME AS CHAR) FROM information_schema.COLUMNS \
     WHERE TABLE_SCHEMA = 'mysql' AND TABLE_NAME = 'db' AND COLUMN_NAME LIKE '%\\_priv' ORDER BY ORDINAL_POSITION";

/// A table of grants: what is the same place in it, and what is granted there as a set.
struct Grants {
    what: &'static str,
    table: &'static str,
    place: &'static [&'static str],
    set: &'static str,
}

const GRANTS: [Grants; 5] = [
    Grants { what: "grants on tables", table: "tables_priv", place: &["Db", "Table_name"], set: "Table_priv" },
    Grants {
        what: "grants on columns",
        table: "columns_priv",
        place: &["Db", "Table_name", "Column_name"],
        set: "Column_priv",
    },
    Grants {
        what: "grants on routines",
        table: "procs_priv",
        place: &["Db", "Routine_name", "Routine_type"],
        set: "Proc_priv",
    },
    Grants { what: "roles", table: "roles_mapping", place: &["Role"], set: "Admin_option" },
    Grants { what: "proxies", table: "proxies_priv", place: &["Proxied_host", "Proxied_user"], set: "With_grant" },
];

/// What everybody may do.
const PUBLIC: &str = "p.User = 'PUBLIC' AND p.Host = ''";
/// Limits, with 0 for none.
const LIMITS: [&str; 5] =
    ["max_questions", "max_updates", "max_connections", "max_user_connections", "max_statement_time"];

/// What else must be alike: the demand for TLS, when passwords expire, the role that is taken at a login.
const ATTRIBUTES: [&str; 6] =
    ["ssl_type", "ssl_cipher", "x509_issuer", "x509_subject", "password_lifetime", "default_role"];

/// A value in an account's row, as a number.
fn number(of: &str, field: &str, sort: &str) -> String {
    format!("CAST(COALESCE(JSON_VALUE({of}.Priv, '$.{field}'), 0) AS {sort})")
}

impl Grants {
    /// How many of its rights are lacking. Roles and proxies lack as a whole, or the right to hand them on.
    fn lacks(&self, old: &Name, new: &Name) -> String {
        let same = |of: &str| {
            let each: Vec<String> = self.place.iter().map(|column| format!("{of}.{column} = o.{column}")).collect();
            each.join(" AND ")
        };
        let Self { what, table, set, .. } = self;
        let lacks = match *table {
            "roles_mapping" | "proxies_priv" => format!("n.User IS NULL OR n.{set} < o.{set}"),
            _ => format!("BIT_COUNT((o.{set} + 0) & ~(COALESCE(n.{set} + 0, 0) | COALESCE(p.{set} + 0, 0)))"),
        };
        format!(
            "SELECT '{what}', COALESCE(SUM({lacks}), 0) FROM mysql.{table} o \
             LEFT JOIN mysql.{table} n ON {} AND {} LEFT JOIN mysql.{table} p ON {PUBLIC} AND {} WHERE {}",
            new.owns("n"),
            same("n"),
            same("p"),
            old.owns("o")
        )
    }
}

fn on_databases(columns: &[String], old: &Name, new: &Name) -> String {
    let lacks = |column: &String| {
        format!("(o.{column} = 'Y' AND COALESCE(n.{column}, 'N') = 'N' AND COALESCE(p.{column}, 'N') = 'N')")
    };
    let all: Vec<String> = columns.iter().map(lacks).collect();
    format!(
        "SELECT 'grants on databases', COALESCE(SUM({}), 0) FROM mysql.db o LEFT JOIN mysql.db n ON {} AND n.Db = o.Db \
         LEFT JOIN mysql.db p ON {PUBLIC} AND p.Db = o.Db WHERE {}",
        all.join(" + "),
        new.owns("n"),
        old.owns("o")
    )
}

/// Of the accounts' own rows: rights on all databases, limits, and what must be alike.
fn of_accounts(old: &Name, new: &Name) -> String {
    let limits: Vec<String> = LIMITS
        .iter()
        .map(|limit| {
            let [o, n] = ["o", "n"].map(|of| number(of, limit, "DECIMAL(30, 6)"));
            format!("({n} > 0 AND ({o} = 0 OR {n} < {o}))")
        })
        .collect();
    let differs = |field: &&str| {
        format!("(COALESCE(JSON_VALUE(o.Priv, '$.{field}'), '') <> COALESCE(JSON_VALUE(n.Priv, '$.{field}'), ''))")
    };
    let attributes: Vec<String> = limits.into_iter().chain(ATTRIBUTES.iter().map(differs)).collect();
    let access = |of: &str| number(of, "access", "UNSIGNED");
    format!(
        "SELECT 'rights on all databases', COALESCE(SUM(BIT_COUNT({} & ~({} | {}))), 0) FROM mysql.global_priv o \
         JOIN mysql.global_priv n ON {new} LEFT JOIN mysql.global_priv p ON {PUBLIC} WHERE {old} \
         UNION ALL SELECT 'attributes', COALESCE(SUM({}), 0) FROM mysql.global_priv o \
         JOIN mysql.global_priv n ON {new} WHERE {old}",
        access("o"),
        access("n"),
        access("p"),
        attributes.join(" + "),
        new = new.owns("n"),
        old = old.owns("o"),
    )
}

/// How much of each kind the account `new` lacks of what `old` has; empty: nothing.
///
/// # Errors
/// Of the database.
pub(super) async fn lacking(session: &mut Session, old: &Name, new: &Name) -> Result<Vec<(String, i64)>, Failure> {
    let columns = sqlx::query_scalar(ON_DATABASES).fetch_all(&mut session.connection);
    let columns: Vec<String> = bounded(session.timeout, false, columns).await?;
    let mut parts = vec![of_accounts(old, new), on_databases(&columns, old, new)];
    parts.extend(GRANTS.iter().map(|grants| grants.lacks(old, new)));
    let sql = format!(
        "WITH lacks_all (what, lacks) AS ({}) SELECT CAST(what AS CHAR), CAST(lacks AS SIGNED) FROM lacks_all \
         WHERE lacks > 0 ORDER BY what",
        parts.join(" UNION ALL ")
    );
    bounded(session.timeout, false, sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut session.connection)).await
}

/// What is lacking, for people: kinds and counts, no names.
pub(super) fn told(lacking: &[(String, i64)]) -> String {
    let each: Vec<String> = lacking.iter().map(|(what, lacks)| format!("{what}: {lacks}")).collect();
    format!("the new user lacks what the old one has ({})", each.join(", "))
}
