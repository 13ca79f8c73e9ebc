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

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::form::{self, Form, Named, Options};
use super::{ON_RELATION, ON_SCHEMA, PostgresScope, RELATION, ROLE, Role, SCHEMA, bounded, named, on, quoted, refused};
use crate::case::record::{FailureKind, Output};
use crate::connector::recipe::Share;
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

/// What a role was granted itself and is not named (`$3`, `$4`: relations and their privileges; `$5`, `$6`: schemas; `$7`: groups):
/// how much of it there is that another role (`$2`) may not; and how much that it may, though nobody can: what PUBLIC may, or one of
/// the groups that are named, is in nobody's hand.
const BEYOND: &str = "WITH whom AS ( \
         SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY ($7::text[]) UNION ALL SELECT 'public'::name), \
     granted AS ( \
         SELECT 'relation' AS sort, c.oid, c.relkind = 'S' AS counts, e.privilege_type AS what \
             FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) e \
             WHERE c.relacl IS NOT NULL AND e.grantee = $1::bigint::oid AND c.relowner <> $1::bigint::oid \
         UNION SELECT 'relation', c.oid, false, e.privilege_type \
             FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid, pg_catalog.aclexplode(t.attacl) e \
             WHERE t.attacl IS NOT NULL AND e.grantee = $1::bigint::oid AND c.relowner <> $1::bigint::oid \
         UNION SELECT 'schema', n.oid, false, e.privilege_type \
             FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) e \
             WHERE n.nspacl IS NOT NULL AND e.grantee = $1::bigint::oid AND n.nspowner <> $1::bigint::oid \
         UNION SELECT 'member', m.roleid, false, 'MEMBER' \
             FROM pg_catalog.pg_auth_members m WHERE m.member = $1::bigint::oid), \
     unsaid AS ( \
         SELECT * FROM granted WHERE CASE sort \
             WHEN 'relation' THEN NOT EXISTS (SELECT 1 FROM unnest($3::text[], $4::text[]) AS said (name, what) \
                 WHERE pg_catalog.to_regclass(said.name) = granted.oid AND said.what = granted.what) \
             WHEN 'schema' THEN NOT EXISTS (SELECT 1 FROM unnest($5::text[], $6::text[]) AS said (name, what) \
                 JOIN pg_catalog.pg_namespace n ON n.nspname = said.name WHERE n.oid = granted.oid AND said.what = granted.what) \
             ELSE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles r WHERE r.oid = granted.oid AND r.rolname = ANY ($7::text[])) \
         END), \
     asked AS ( \
         SELECT CASE WHEN sort = 'schema' THEN pg_catalog.has_schema_privilege($2::bigint::oid, oid, what) \
             WHEN sort = 'member' THEN pg_catalog.pg_has_role($2::bigint::oid, oid, 'MEMBER') \
             WHEN counts THEN pg_catalog.has_sequence_privilege($2::bigint::oid, oid, what) \
             WHEN what IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') \
                 THEN pg_catalog.has_any_column_privilege($2::bigint::oid, oid, what) \
             ELSE pg_catalog.has_table_privilege($2::bigint::oid, oid, what) END AS may, \
         EXISTS (SELECT 1 FROM whom WHERE CASE \
             WHEN sort = 'schema' THEN pg_catalog.has_schema_privilege(whom.rolname, unsaid.oid, what) \
             WHEN sort = 'member' AND whom.rolname = 'public' THEN false \
             WHEN sort = 'member' THEN pg_catalog.pg_has_role(whom.rolname, unsaid.oid, 'MEMBER') \
             WHEN counts THEN pg_catalog.has_sequence_privilege(whom.rolname, unsaid.oid, what) \
             WHEN what IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') \
                 THEN pg_catalog.has_any_column_privilege(whom.rolname, unsaid.oid, what) \
             ELSE pg_catalog.has_table_privilege(whom.rolname, unsaid.oid, what) END) AS anybody FROM unsaid) \
     SELECT count(*) FILTER (WHERE NOT may), count(*) FILTER (WHERE may AND NOT anybody) FROM asked";

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
        let share = rotation.share.as_deref();
        let (needs, is_bound) = (share.and_then(|share| share.needs.as_deref()), share.is_some_and(|one| one.is_bound));
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
        let (mut given, mut had) = (0, 0);
        for permission in needs {
            // What its task is for may name more than a PostgreSQL has.
            if is_bound && Named::of(permission).is_none() {
                continue;
            }
            let has = match self.pass_group(&mut transaction, (&shared, is_whole), &own, permission).await? {
                Some(has) => has,
                // What a person has given it in whatever way.
                None if was_there && !is_whole && self.may(&own, permission).await? => {
                    had += 1;
                    continue;
                }
                None => self.pass_on(&mut transaction, (&shared, is_whole), &own, permission).await?,
            };
            if has {
                given += 1;
            } else if !is_bound {
                return Err(refused("the shared user has not what this agent is said to need"));
            }
        }
        if is_bound && given + had == 0 {
            return Err(refused("the shared user has nothing of what the agent's task is for"));
        }
        let mut withheld = 0;
        if rotation.moved.is_some() && !is_whole {
            let (less, more) = self.beyond(&mut transaction, (&shared, &own), needs).await?;
            if more > 0 {
                return Err(refused("the user that is there may more than the agent is to"));
            }
            withheld = less;
        }
        bounded(self.timeout, true, transaction.commit()).await?;
        Ok(Output { derived: given, withheld, ..Output::default() })
    }

    /// Of what the shared user was granted and is not named: how much the agent's own may not, and how much it may.
    async fn beyond(
        &self,
        connection: &mut PgConnection,
        (shared, own): (&Role, &Role),
        needs: &[Permission],
    ) -> Result<(u32, u32), Failure> {
        let (mut relations, mut schemas, mut groups) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()), Vec::new());
        for one in needs.iter().filter_map(Named::of) {
            match one {
                Named::Relation(name, privilege) => {
                    relations.0.push(name);
                    relations.1.push(privilege);
                }
                Named::Schema(name, privilege) => {
                    schemas.0.push(name);
                    schemas.1.push(privilege);
                }
                Named::Member(group) => groups.push(group),
            }
        }
        let asked = sqlx::query_as(BEYOND).bind(shared.oid).bind(own.oid).bind(relations.0).bind(relations.1);
        let asked = asked.bind(schemas.0).bind(schemas.1).bind(groups).fetch_one(&mut *connection);
        let (less, more): (i64, i64) = self.one(asked).await?;
        Ok((u32::try_from(less).unwrap_or(u32::MAX), u32::try_from(more).unwrap_or(u32::MAX)))
    }

    /// Whether one of those who were moved may more by its own user than it is to. Whose user is gone may nothing.
    pub(super) async fn exceeds(&self, shared: &str, moved: &[Arc<Share>]) -> Result<bool, Failure> {
        let mut connection = self.one(self.pool.acquire()).await?;
        let Some(shared) = self.known(&mut connection, shared).await? else { return Ok(false) };
        for share in moved {
            let Some(needs) = &share.needs else { continue };
            let Some(own) = self.known(&mut connection, &share.agent.user).await? else { continue };
            if own.oid == shared.oid || self.beyond(&mut connection, (&shared, &own), needs).await?.1 > 0 {
                return Ok(true);
            }
        }
        Ok(false)
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
