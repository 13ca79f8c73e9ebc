//! The user that one of several agents gets: made without a password and without a login, with those permissions of the shared
//! user that it needs. What it is not known to need less of, it gets all of.
//!
//! A user of that name that is there already is taken where nobody can log in as it, or where it was made here before: prepared
//! by a person it may have settings of its own, which are not copied (a `search_path` is a statement, not a value). What of other
//! kinds the shared user was granted (functions, databases) is not given either; the test of the new value says so by kind.
//!
//! From PostgreSQL 16 on a role belongs to who made it, and the login that rotates could not alter it. So whoever administers the
//! shared user (has ADMIN of it: that login does) is given the same of the new one, and no more: the new one can do nothing that
//! the shared one cannot.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::form::{self, Form, Named, Options};
use super::{ON_RELATION, ON_SCHEMA, PostgresScope, RELATION, ROLE, Role, SCHEMA, bounded, named, on, quoted, refused};
use crate::case::record::{FailureKind, Output};
use crate::connector::{Failure, Subject};
use crate::scope::Permission;

/// So many permissions are copied where it is not said which are needed.
const MOST: usize = 128;
/// What is written beside a user that was made here.
const MARK: &str = "made by curfew for one agent";

/// So many roles may administer a user that is shared.
const MOST_ADMINS: usize = 32;

/// Whether our login may make roles, whether the server is 16 or later, whether the shared user inherits.
const MAKES: &str = "SELECT rolsuper OR rolcreaterole, current_setting('server_version_num')::int >= 160000, \
     (SELECT rolinherit FROM pg_catalog.pg_roles WHERE oid = $1::bigint::oid) \
     FROM pg_catalog.pg_roles WHERE rolname = current_user";
/// Who administers a role, but for us and for the superuser that a server begins with: who makes a role administers it.
const ADMINS: &str = "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_auth_members m \
     JOIN pg_catalog.pg_roles r ON r.oid = m.member WHERE m.roleid = $1::bigint::oid AND m.admin_option \
     AND r.rolname <> current_user AND r.oid <> 10 ORDER BY 1 LIMIT $2";
/// A role that is there: whether it can log in, and what is written beside it.
const THERE: &str = "SELECT rolcanlogin, coalesce(pg_catalog.shobj_description(oid, 'pg_authid'), '') \
     FROM pg_catalog.pg_roles WHERE oid = $1::bigint::oid";
/// What a role was granted itself, named as permissions are.
const GRANTED: &str = "SELECT DISTINCT * FROM ( \
     SELECT concat('relation:', quote_ident(n.nspname), '.', quote_ident(c.relname), ':', e.privilege_type) AS what \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.aclexplode(c.relacl) e \
         WHERE c.relacl IS NOT NULL AND e.grantee = $1::bigint::oid AND c.relowner <> $1::bigint::oid \
     UNION ALL SELECT concat('relation:', quote_ident(n.nspname), '.', quote_ident(c.relname), ':', e.privilege_type) \
         FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.aclexplode(t.attacl) e \
         WHERE t.attacl IS NOT NULL AND e.grantee = $1::bigint::oid AND c.relowner <> $1::bigint::oid \
     UNION ALL SELECT concat('schema:', n.nspname, ':', e.privilege_type) \
         FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) e \
         WHERE n.nspacl IS NOT NULL AND e.grantee = $1::bigint::oid AND n.nspowner <> $1::bigint::oid \
     UNION ALL SELECT concat('member:', g.rolname) FROM pg_catalog.pg_auth_members m \
         JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = $1::bigint::oid) all_of_it \
     ORDER BY what LIMIT $2";

impl PostgresScope {
    /// Makes the agent's user, and gives it what it needs, in one transaction.
    pub(super) async fn provision(&self, subject: &Subject) -> Result<Output, Failure> {
        let rotation = subject.rotation.as_ref().filter(|rotation| rotation.share.is_some());
        let (Some(rotation), Some(issuer)) = (rotation, &subject.issuer) else {
            return Err(refused("it is not said who shares it"));
        };
        let (Some(shared), Some(user)) = (rotation.old_user(), rotation.new_user()) else {
            return Err(refused("what its agent reads is no value of the shared user"));
        };
        let needs = rotation.share.as_ref().and_then(|share| share.needs.as_deref());
        let mut transaction = self.one(self.pool.begin()).await?;
        let shared = self.known(&mut transaction, shared).await?.ok_or_else(|| refused("the shared user is gone"))?;
        if issuer.principal_id.as_ref().is_some_and(|seen| *seen != shared.oid.to_string()) {
            return Err(refused("another role has its name by now"));
        }
        let (own, was_there) = self.made(&mut transaction, &shared, user).await?;
        if shared.protected || own.protected || shared.oid == own.oid {
            return Err(refused("our own role, or an administrator: never touched"));
        }
        let all;
        let (needs, is_whole) = match needs {
            Some(needs) => (needs, false),
            None => {
                all = self.granted(&mut transaction, &shared).await?;
                (&all[..], true)
            }
        };
        let mut given = 0;
        for permission in needs {
            let has = match self.pass_group(&mut transaction, (&shared, is_whole), &own, permission).await? {
                Some(has) => has,
                // What a person has given it in whatever way.
                None if was_there && !is_whole && self.may(&own, permission).await? => continue,
                None => self.pass_on(&mut transaction, (&shared, is_whole), &own, permission).await?,
            };
            if !has {
                return Err(refused("the shared user has not what this agent is said to need"));
            }
            given += 1;
        }
        bounded(self.timeout, true, transaction.commit()).await?;
        Ok(Output { derived: given, ..Output::default() })
    }

    async fn known(&self, connection: &mut PgConnection, name: &str) -> Result<Option<Role>, Failure> {
        let row: Option<(i64, String, bool)> =
            self.one(sqlx::query_as(ROLE).bind(name).fetch_optional(&mut *connection)).await?;
        Ok(row.map(|(oid, name, protected)| Role { oid, name, protected }))
    }

    /// One statement of the transaction: nothing of it is there before the commit.
    async fn run(&self, connection: &mut PgConnection, statement: String) -> Result<(), Failure> {
        let run = sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection);
        bounded(self.timeout, true, run).await.map(drop).map_err(|failure| match failure.kind {
            FailureKind::Unknown => Failure::new(FailureKind::Unavailable, failure.note),
            FailureKind::Gone => refused("what it was granted on is gone"),
            _ => failure,
        })
    }

    /// The user of that name, where it is nobody's; else a new one. Whether it was there.
    async fn made(&self, connection: &mut PgConnection, shared: &Role, user: &str) -> Result<(Role, bool), Failure> {
        if let Some(role) = self.known(connection, user).await? {
            let there = sqlx::query_as(THERE).bind(role.oid).fetch_one(&mut *connection);
            let (can_log_in, mark): (bool, String) = self.one(there).await?;
            if can_log_in && mark != MARK {
                return Err(refused("there is a user of that name who can log in: somebody else's"));
            }
            return Ok((role, true));
        }
        let makes = sqlx::query_as(MAKES).bind(shared.oid).fetch_one(&mut *connection);
        let (may, is_later, inherits): (bool, bool, bool) = self.one(makes).await?;
        if !may {
            return Err(refused("our login may not make users: give it CREATEROLE, or make this one, without a login"));
        }
        let inherits = if inherits { "INHERIT" } else { "NOINHERIT" };
        self.run(connection, format!("CREATE ROLE {} NOLOGIN {inherits}", quoted(user))).await?;
        self.run(connection, format!("COMMENT ON ROLE {} IS '{MARK}'", quoted(user))).await?;
        if is_later {
            self.hand_over(connection, shared, user).await?;
        }
        let made = self.known(connection, user).await?.ok_or_else(|| refused("the role that was made is not there"))?;
        Ok((made, false))
    }

    /// Who administers the shared user administers the new one: neither has its rights by that, nor becomes it.
    async fn hand_over(&self, connection: &mut PgConnection, shared: &Role, user: &str) -> Result<(), Failure> {
        let most = i64::try_from(MOST_ADMINS + 1).unwrap_or(i64::MAX);
        let admins = sqlx::query_scalar(ADMINS).bind(shared.oid).bind(most).fetch_all(&mut *connection);
        let admins: Vec<String> = self.one(admins).await?;
        if admins.len() > MOST_ADMINS {
            return Err(refused("more roles administer the shared user than are given the new one: make it by hand"));
        }
        let with = Options { admin: true, ..Options::default() };
        for admin in admins {
            self.run(connection, form::join(&quoted(user), &admin, with)).await?;
        }
        Ok(())
    }

    async fn granted(&self, connection: &mut PgConnection, shared: &Role) -> Result<Vec<Permission>, Failure> {
        let most = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
        let names = sqlx::query_scalar(GRANTED).bind(shared.oid).bind(most).fetch_all(&mut *connection);
        let names: Vec<String> = self.one(names).await?;
        if names.len() > MOST {
            return Err(refused("the shared user was granted more than is copied: say what each agent needs"));
        }
        let parsed = names.iter().map(|name| Permission::parse(name));
        // What has no name as a permission (a privilege of a later version) is found lacking by the test.
        Ok(parsed.flatten().filter(|one| Named::of(one).is_some()).collect())
    }

    /// Gives `own` what `shared` has of a permission, in whatever way it has it. Whether it has it at all.
    async fn pass_on(
        &self,
        connection: &mut PgConnection,
        (shared, is_whole): (&Role, bool),
        own: &Role,
        permission: &Permission,
    ) -> Result<bool, Failure> {
        let named = named(permission)?;
        let Some(mut form) = self.form_for(connection, shared, own, named).await? else { return Ok(false) };
        // Who needs to read need not pass that on.
        if !is_whole {
            form.whole = form.whole.map(|_| false);
            form.columns.iter_mut().for_each(|(_, further)| *further = false);
        }
        for statement in form::grants(named, &form) {
            self.run(connection, statement).await?;
        }
        // Where we lack the right, PostgreSQL only warns.
        if self.look(connection, own, permission).await?.form.is_none() {
            return Err(refused("our login may not: it must be a member of the role that owns it"));
        }
        Ok(true)
    }

    /// The same of a membership from PostgreSQL 16 on: what the shared user's own grants let do where it gets all, else what
    /// that one may in whatever way. `None`: it is another permission, or the server is older.
    async fn pass_group(
        &self,
        connection: &mut PgConnection,
        (shared, is_whole): (&Role, bool),
        own: &Role,
        permission: &Permission,
    ) -> Result<Option<bool>, Failure> {
        let Named::Member(group) = named(permission)? else { return Ok(None) };
        let Some(theirs) = self.membership(connection, shared.oid, group).await? else { return Ok(None) };
        if !theirs.is_later {
            return Ok(None);
        }
        if group == shared.name {
            return Err(refused("the shared user itself is no group of its own"));
        }
        let with = if is_whole { theirs.own() } else { Options { admin: false, ..theirs.ways } };
        // Only to pass it on, and that nobody needs.
        if !is_whole && with == Options::default() {
            return Ok(Some(false));
        }
        for is_tried in [false, true] {
            let ours = self.membership(connection, own.oid, group).await?;
            if ours.is_some_and(|ours| ours.is_member && ours.ways.covers(with)) {
                return Ok(Some(true));
            }
            if !is_tried {
                self.run(connection, form::join(&quoted(group), &own.name, with)).await?;
            }
        }
        Err(refused("our login may not: it must be allowed to pass the group on"))
    }

    /// How `own` gets it: as the shared user was given it, or plainly, where that one has it by a group or as the owner.
    async fn form_for(
        &self,
        connection: &mut PgConnection,
        shared: &Role,
        own: &Role,
        named: Named<'_>,
    ) -> Result<Option<Form>, Failure> {
        let role = (own.oid, own.name.clone());
        let (sql, name, privilege) = match named {
            Named::Member(group) if group == shared.name => {
                return Err(refused("the shared user itself is no group of its own"));
            }
            Named::Member(group) => {
                let Some(theirs) = self.membership(connection, shared.oid, group).await? else { return Ok(None) };
                let whole = theirs.plain.or_else(|| theirs.is_member.then_some(false));
                let on = (theirs.group.0, quoted(&theirs.group.1));
                return Ok(whole.is_some().then(|| Form { whole, ..Form::blank(role, on) }));
            }
            Named::Relation(name, privilege) => (RELATION, name, privilege),
            Named::Schema(name, privilege) => (SCHEMA, name, privilege),
        };
        type Row = (i64, String, String, String, i64, Option<String>, Option<i64>, Option<bool>);
        let rows = sqlx::query_as(sql).bind(shared.oid).bind(name).bind(privilege).fetch_all(&mut *connection);
        let rows: Vec<Row> = self.one(rows).await?;
        let Some((oid, kind, schema, object, ..)) = rows.first() else { return Ok(None) };
        let mut form = Form::blank(role, (*oid, on(kind, schema, object)));
        for (.., column, grantor, further) in &rows {
            let (Some(_), Some(further)) = (grantor, further) else { continue };
            match column {
                None => form.whole = Some(*further),
                Some(column) => form.columns.push((column.clone(), *further)),
            }
        }
        if form.whole.is_none() && form.columns.is_empty() {
            let ask = if matches!(named, Named::Schema(..)) { ON_SCHEMA } else { ON_RELATION };
            let ask = sqlx::query_scalar(ask).bind(shared.oid).bind(name).bind(privilege);
            let ask = if matches!(named, Named::Schema(..)) { ask } else { ask.bind(false).bind(privilege == "USAGE") };
            let may: Option<Option<bool>> = self.one(ask.fetch_optional(&mut *connection)).await?;
            if may.flatten() != Some(true) {
                return Ok(None);
            }
            form.whole = Some(false);
        }
        Ok(Some(form))
    }
}
