//! Memberships: what a role was granted of a group.
//!
//! Up to PostgreSQL 15 a role is a member or not, whoever made it one. From 16 on each grantor has a grant of his own, with
//! options of its own: ADMIN (it may pass the group on), INHERIT (it has what the group has), SET (it may become the group).
//! REVOKE takes one grantor's grant, and only who has that one's privileges may say it; what a superuser granted nobody else
//! takes. GRANT in somebody's name needs the same, and that he has ADMIN himself. Who passed a group on cannot lose it
//! without those to whom he did. Facts: PostgreSQL 16 to 18, "GRANT", "REVOKE", "Role Membership", and their source
//! (`check_role_grantor`, `plan_recursive_revoke`); measured on 18.

use sqlx::postgres::PgConnection;

use super::form::{Form, Granted, Options};
use super::{PostgresScope, quoted, refused};
use crate::connector::Failure;

/// A group, how a role has it in whatever way, and each grant by which it has it itself: admin, grantor, inherit, set; whether
/// we may take it and give it again; whether the role passed the group on. `10` is the superuser that a server begins with:
/// who grants as that one needs no ADMIN. The options have no column up to 15.
const MEMBER: &str = "SELECT it.oid::bigint, it.rolname::text, v.later, \
     pg_has_role($1::bigint::oid, it.oid, 'MEMBER'), pg_has_role($1::bigint::oid, it.oid, 'MEMBER WITH ADMIN OPTION'), \
     pg_has_role($1::bigint::oid, it.oid, 'USAGE'), \
     CASE WHEN v.later THEN pg_has_role($1::bigint::oid, it.oid, 'SET') ELSE false END, \
     m.admin_option, m.grantor::bigint, g.rolname::text, \
     (to_jsonb(m) ->> 'inherit_option')::boolean, (to_jsonb(m) ->> 'set_option')::boolean, \
     pg_has_role(it.oid, 'MEMBER WITH ADMIN OPTION') AND pg_has_role(m.grantor, 'USAGE') AND (m.grantor = 10 OR EXISTS \
         (SELECT FROM pg_catalog.pg_auth_members a WHERE a.roleid = it.oid AND a.member = m.grantor AND a.admin_option)), \
     EXISTS (SELECT FROM pg_catalog.pg_auth_members p \
         WHERE p.roleid = it.oid AND p.grantor = m.member AND p.member <> m.member) \
     FROM pg_catalog.pg_roles it \
     CROSS JOIN (SELECT current_setting('server_version_num')::int >= 160000 AS later) v \
     LEFT JOIN pg_catalog.pg_auth_members m ON m.roleid = it.oid AND m.member = $1::bigint::oid \
     LEFT JOIN pg_catalog.pg_roles g ON g.oid = m.grantor \
     WHERE it.rolname = $2::text ORDER BY m.grantor = m.member, m.grantor";

type Row = (
    i64,
    String,
    bool,
    bool,
    bool,
    bool,
    bool,
    Option<bool>,
    Option<i64>,
    Option<String>,
    Option<bool>,
    Option<bool>,
    Option<bool>,
    bool,
);

/// What a role has of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    /// The group's OID and name.
    pub(super) group: (i64, String),
    /// From PostgreSQL 16 on.
    pub(super) is_later: bool,
    /// It is a member in whatever way, with whatever options.
    pub(super) is_member: bool,
    /// What it may in whatever way.
    pub(super) ways: Options,
    /// Up to 15: it is a member itself; whether it may pass that on.
    pub(super) plain: Option<bool>,
    /// From 16 on: the grants by which it is one itself, those first that are no grantor's own.
    pub(super) grants: Vec<Granted>,
    /// From 16 on: our login could not take one of them, or not give it again.
    is_foreign: bool,
    /// From 16 on: others have the group from this role.
    is_passed_on: bool,
}

impl Membership {
    /// PURE. `None`: there is no such group.
    fn of(rows: Vec<Row>) -> Option<Self> {
        let (oid, name, is_later, is_member, admin, inherit, set, ..) = rows.first()?;
        let mut membership = Self {
            group: (*oid, name.clone()),
            is_later: *is_later,
            is_member: *is_member,
            ways: Options { admin: *admin, inherit: *inherit, set: *set },
            plain: None,
            grants: Vec::new(),
            is_foreign: false,
            is_passed_on: false,
        };
        for (.., admin, grantor, by, inherit, set, is_ours, is_passed_on) in rows {
            let Some(admin) = admin else { continue };
            if !membership.is_later {
                membership.plain = Some(admin);
                continue;
            }
            let by = (grantor.unwrap_or_default(), by.unwrap_or_default());
            let with = Options { admin, inherit: inherit.unwrap_or(false), set: set.unwrap_or(false) };
            membership.grants.push(Granted { by, with });
            membership.is_foreign |= is_ours != Some(true);
            membership.is_passed_on |= is_passed_on;
        }
        Some(membership)
    }

    /// What it may by its own grants.
    pub(super) fn own(&self) -> Options {
        self.grants.iter().fold(Options::default(), |all, one| all.or(one.with))
    }

    /// How `role` has it, if it is ours to take. `None`: it has it not, or only in another way.
    pub(super) fn form(&self, role: (i64, String)) -> Result<Option<Form>, Failure> {
        if self.is_foreign {
            return Err(refused("it was granted by a role that our login does not act for: not ours to take"));
        }
        if self.is_passed_on {
            return Err(refused("the role has passed it on: whoever has it from this role would lose it as well"));
        }
        let is_held = self.plain.is_some() || !self.grants.is_empty();
        let (on, columns) = ((self.group.0, quoted(&self.group.1)), Vec::new());
        Ok(is_held.then(|| Form { role, on, whole: self.plain, columns, grants: self.grants.clone() }))
    }
}

impl PostgresScope {
    /// What `role` has of the group of that name. `None`: there is no such group.
    pub(super) async fn membership(
        &self,
        connection: &mut PgConnection,
        role: i64,
        group: &str,
    ) -> Result<Option<Membership>, Failure> {
        let rows = sqlx::query_as(MEMBER).bind(role).bind(group).fetch_all(connection);
        Ok(Membership::of(self.one(rows).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(admin: bool, grantor: i64, is_ours: bool, is_passed_on: bool) -> Row {
        let (name, by) = ("readers".to_owned(), Some(format!("g{grantor}")));
        let later = (Some(admin), Some(grantor), by, Some(!admin), Some(!admin), Some(is_ours), is_passed_on);
        let (admin, grantor, by, inherit, set, is_ours, passed) = later;
        (7, name, true, true, true, true, true, admin, grantor, by, inherit, set, is_ours, passed)
    }

    #[test]
    fn only_what_all_of_its_grantors_let_us_take_is_ours() {
        let role = || (9, "etl".to_owned());
        assert_eq!(Membership::of(Vec::new()), None);
        let two = Membership::of(vec![row(true, 3, true, false), row(false, 4, true, false)]).unwrap();
        let form = two.form(role()).unwrap().unwrap();
        assert_eq!((form.whole, form.grants.len(), form.on.1.as_str()), (None, 2, "\"readers\""));
        assert_eq!(two.own(), Options { admin: true, inherit: true, set: true });
        for rows in [
            vec![row(true, 3, true, false), row(false, 10, false, false)],
            vec![row(true, 3, true, true), row(false, 4, true, true)],
        ] {
            assert!(Membership::of(rows).unwrap().form(role()).is_err());
        }
        let none = (7, "readers".to_owned(), true, true, false, true, true, None, None, None, None, None, None, false);
        assert_eq!(Membership::of(vec![none]).unwrap().form(role()), Ok(None), "it has it by another group");
    }

    #[test]
    fn up_to_15_it_is_a_member_or_not() {
        let (grantor, by) = (Some(10), Some("postgres".to_owned()));
        let row = (7, "r".to_owned(), false, true, true, true, false, Some(true), grantor, by, None, None, None, true);
        let form = Membership::of(vec![row]).unwrap().form((9, "etl".to_owned())).unwrap().unwrap();
        assert_eq!((form.whole, form.grants.len()), (Some(true), 0));
    }
}
