//! Accounts of MariaDB: what they are called, and what the server says of one.

use std::fmt;

use sqlx::AssertSqlSafe;

use super::hosts::{Whose, whose};
use super::session::Session;
use crate::case::record::FailureKind;
use crate::connector::Failure;

/// An account: a user name, and the machines that it comes from. The same name from elsewhere is another account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The user name, as it is given when logging in.
    pub user: String,
    /// A machine, an address, a network, or a pattern with `%` and `_`.
    pub host: String,
}

impl Name {
    /// Reads `<user>@<host>`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let (user, host) = text.rsplit_once('@').ok_or("an account is `<user>@<host>`, such as `app@%`")?;
        // MariaDB 10.11 spells others otherwise in `mysql.procs_priv` than in its other tables.
        let is_plain = |b: u8| b.is_ascii_graphic() && !b",\\'\"`".contains(&b);
        if !(1..=80).contains(&user.len()) || !user.bytes().all(is_plain) {
            return Err("a user's name has 1 to 80 ASCII characters, and no blank, comma, quote and backslash");
        }
        let is_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"%_.:/-".contains(&b);
        if !(1..=255).contains(&host.len()) || !host.bytes().all(is_host) {
            return Err(
                "an account's host is a name in small letters, an address, a network or a pattern, such as `%`",
            );
        }
        Ok(Self { user: user.to_owned(), host: host.to_owned() })
    }

    /// The accounts in a credential's id, in the recipe's order.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn all(id: &str) -> Result<Vec<Self>, &'static str> {
        id.split(',').map(Self::read).collect()
    }

    /// As SQL. No name has a backslash, so it is the same in all modes.
    pub(super) fn quoted(&self) -> String {
        format!("{}@{}", literal(&self.user), literal(&self.host))
    }

    /// The condition that a row of the table `of` is this account's.
    pub(super) fn owns(&self, of: &str) -> String {
        format!("{of}.User = {} AND {of}.Host = {}", literal(&self.user), literal(&self.host))
    }
}

/// `<user>@<host>`, as in credential ids.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What a password of ours is kept as.
pub(super) const NATIVE: &str = "mysql_native_password";
/// They administer the server: never touched, whatever rights they have.
const ADMINISTRATORS: [&str; 5] = ["root", "mariadb.sys", "mysql", "mysql.sys", "mysql.session"];

/// An account, as `mysql.global_priv` shows it. Its password's hash stays where it is.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: Name,
    pub(super) is_locked: bool,
    /// Ours, an administrator's, or of one who could change accounts.
    pub(super) is_protected: bool,
    /// Lets in by something else than a password that MariaDB keeps, or by that and something else.
    other_way: bool,
    /// 0: TLS or not; 1: TLS; 2, 3: a certificate of the client.
    needs_tls: i64,
}

impl Account {
    /// Whether it is ours to change.
    ///
    /// # Errors
    /// `Refused`, and why.
    pub(super) fn is_ours(&self) -> Result<(), Failure> {
        let refused = |note: &str| Err(Failure::new(FailureKind::Refused, note));
        if self.is_protected {
            return refused("our own account, or an administrator: never touched");
        }
        if self.other_way {
            return refused("the account lets in by another plugin than mysql_native_password, or by several");
        }
        Ok(())
    }
}

/// The account itself, what everybody has, and the roles that it may take, one by another.
fn held(name: &Name) -> String {
    format!(
        "held (Host, User) AS (SELECT CAST({host} AS CHAR(255)), CAST({user} AS CHAR(128)) UNION SELECT '', 'PUBLIC' \
         UNION SELECT '', CAST(r.Role AS CHAR(128)) FROM mysql.roles_mapping r JOIN held h \
         ON r.Host = h.Host AND r.User = h.User)",
        host = literal(&name.host),
        user = literal(&name.user)
    )
}

/// Rights of `sql/privilege.h`: INSERT, UPDATE, DELETE, GRANT OPTION, SUPER, CREATE USER. Who may write everywhere may write
/// the tables that keep accounts: it is the same right as on `mysql`, in a wider place.
const CHANGES_ACCOUNTS: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 10 | 1 << 15 | 1 << 25;

/// Whether the account could change accounts: by a right of the server, or on the tables that keep them.
fn administers(name: &Name) -> String {
    format!(
        "WITH RECURSIVE {held} SELECT CAST(EXISTS (SELECT 1 FROM mysql.global_priv g JOIN held h ON g.Host = h.Host \
         AND g.User = h.User WHERE CAST(JSON_VALUE(g.Priv, '$.access') AS UNSIGNED) & {CHANGES_ACCOUNTS}) \
         OR EXISTS (SELECT 1 FROM mysql.db d JOIN held h ON d.Host = h.Host AND d.User = h.User WHERE 'mysql' LIKE d.Db \
         AND 'Y' IN (d.Insert_priv, d.Update_priv, d.Delete_priv, d.Grant_priv)) \
         OR EXISTS (SELECT 1 FROM mysql.tables_priv t JOIN held h ON t.Host = h.Host AND t.User = h.User \
         WHERE t.Db = 'mysql' AND (FIND_IN_SET('Insert', t.Table_priv) OR FIND_IN_SET('Update', t.Table_priv) \
         OR FIND_IN_SET('Delete', t.Table_priv) OR FIND_IN_SET('Grant', t.Table_priv))) AS SIGNED)",
        held = held(name)
    )
}

type Row = (i64, i64, i64);

impl Session {
    /// The account. `None`: there is none of this name and host.
    pub(super) async fn account(&mut self, name: &Name) -> Result<Option<Account>, Failure> {
        let sql = format!(
            "SELECT CAST(COALESCE(JSON_VALUE(g.Priv, '$.account_locked'), 0) AS SIGNED), \
             CAST(COALESCE(JSON_VALUE(g.Priv, '$.plugin'), '{NATIVE}') <> '{NATIVE}' \
             OR COALESCE(JSON_LENGTH(g.Priv, '$.auth_or'), 0) > 1 AS SIGNED), \
             CAST(COALESCE(JSON_VALUE(g.Priv, '$.ssl_type'), 0) AS SIGNED) \
             FROM mysql.global_priv g WHERE {} AND COALESCE(JSON_VALUE(g.Priv, '$.is_role'), 0) = 0",
            name.owns("g")
        );
        let row = sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(&mut self.connection);
        let row: Option<Row> = super::bounded(self.timeout, false, row).await?;
        let Some((locked, other_way, needs_tls)) = row else { return Ok(None) };
        let sql = AssertSqlSafe(administers(name));
        let administers = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut self.connection);
        let administers = super::bounded(self.timeout, false, administers).await? != 0;
        Ok(Some(Account {
            is_locked: locked != 0,
            is_protected: administers || ADMINISTRATORS.contains(&name.user.as_str()) || *name == self.own,
            other_way: other_way != 0,
            needs_tls,
            name: name.clone(),
        }))
    }

    /// The account, where it is ours to change.
    pub(super) async fn ours(&mut self, name: &Name) -> Result<Account, Failure> {
        match self.account(name).await? {
            Some(account) => account.is_ours().map(|()| account),
            None => Err(Failure::new(FailureKind::Gone, "the account is gone")),
        }
    }

    /// Whether a login of ours says something of the account's password.
    pub(super) async fn reaches(&mut self, account: &Account) -> Result<bool, Failure> {
        let all = self.namesakes(&account.name).await?;
        let is_alike = account.needs_tls == 0 || (account.needs_tls == 1 && self.is_tls);
        Ok(is_alike && whose(&all, &account.name.user, &self.machine) == Whose::Of(&account.name))
    }

    /// All accounts that a login or a session of this user name may be of now.
    pub(super) async fn namesakes(&mut self, name: &Name) -> Result<Vec<Name>, Failure> {
        let sql = format!(
            "SELECT CAST(g.User AS CHAR), CAST(g.Host AS CHAR) FROM mysql.global_priv g \
             WHERE g.User IN ({}, '') AND COALESCE(JSON_VALUE(g.Priv, '$.is_role'), 0) = 0",
            literal(&name.user)
        );
        let rows = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut self.connection);
        let rows: Vec<(String, String)> = super::bounded(self.timeout, false, rows).await?;
        Ok(rows.into_iter().map(|(user, host)| Name { user, host }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_user_and_a_host() {
        let name = Name::read("app@svc@10.0.0.0/255.0.0.0").unwrap();
        assert_eq!((name.user.as_str(), name.host.as_str()), ("app@svc", "10.0.0.0/255.0.0.0"));
        assert_eq!(name.to_string(), "app@svc@10.0.0.0/255.0.0.0");
        assert_eq!(Name::read("a-B_1@%").unwrap().quoted(), "'a-B_1'@'%'");
        let all = Name::all("app_a@%,app_b@10.%").unwrap();
        assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["app_a@%", "app_b@10.%"]);
        for bad in [
            "app",
            "@%",
            "app@",
            "a\\@%",
            "a'@%",
            "a,b@%",
            "a b@%",
            "über@%",
            "app@Host",
            "app@'%'",
            "a\0@%",
            &"x".repeat(100),
        ] {
            assert!(Name::read(bad).is_err(), "{bad:?}");
        }
        assert!(Name::read(&format!("{}@%", "x".repeat(81))).is_err());
    }
}
