//! `postgres-scope`: what a role of PostgreSQL was granted is taken from it, and given back exactly.
//!
//! What is taken is what the role was granted itself, by the owner of the object; what it has in other ways (by a group, as
//! owner, through `PUBLIC`) is another permission, and where one of those still lets it, the reduction is given back. REVOKE
//! takes the grants on single columns with that on the whole relation: they are recorded, and come back with it. Where we
//! lack the right, PostgreSQL only warns: so each statement is looked at before its transaction is committed. From 16 on a
//! membership may have been granted by several roles, each for itself: all of it is taken, or nothing (`scope/member.rs`).
//!
//! Whether a permission is gone is asked (`has_table_privilege` and its like), never tried. Privileges are looked up at each
//! statement, so there is no time to wait for; but a session that has gone over to a group by `SET ROLE` stays in it.

mod form;
mod member;
mod provision;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _, Error};

use super::{PostgresSettings, SELF, SESSIONS, bounded, quoted};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Residue, Sighting};
use crate::clock;
use crate::connector::vault::ConnectError;
use crate::connector::{Connector, Failure, Gate, Rescope, Subject, within};
use crate::probe::Settle;
use crate::scope::{Held, MAX_HOW_BYTES, Permission, Scope};
use form::{Form, Named};

/// A role: OID, name, whether it is protected.
const ROLE: &str = "SELECT oid::bigint, rolname::text, rolsuper OR rolcreaterole OR oid::bigint < 16384 \
     OR rolname IN (current_user, session_user) FROM pg_catalog.pg_roles WHERE rolname = $1::text";
/// The grants of a privilege on a relation: kind, schema, name, owner; column, grantor, whether it may be passed on.
const RELATION: &str = "SELECT it.oid::bigint, it.relkind::text, n.nspname::text, it.relname::text, it.relowner::bigint, \
     a.name, a.grantor, a.further \
     FROM pg_catalog.pg_class it JOIN pg_catalog.pg_namespace n ON n.oid = it.relnamespace \
     LEFT JOIN LATERAL (SELECT NULL::text AS name, e.grantor::bigint AS grantor, e.is_grantable AS further \
         FROM pg_catalog.aclexplode(it.relacl) e WHERE e.grantee = $1::bigint::oid AND e.privilege_type = $3::text \
         UNION ALL SELECT t.attname::text, e.grantor::bigint, e.is_grantable \
         FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) e \
         WHERE t.attrelid = it.oid AND e.grantee = $1::bigint::oid AND e.privilege_type = $3::text) a ON true \
     WHERE it.oid = pg_catalog.to_regclass($2::text) ORDER BY a.name NULLS FIRST";
/// The same of a schema.
const SCHEMA: &str = "SELECT it.oid::bigint, 'n', it.nspname::text, '', it.nspowner::bigint, NULL::text, \
     a.grantor::bigint, a.is_grantable FROM pg_catalog.pg_namespace it \
     LEFT JOIN LATERAL (SELECT * FROM pg_catalog.aclexplode(it.nspacl) e \
         WHERE e.grantee = $1::bigint::oid AND e.privilege_type = $3::text) a ON true WHERE it.nspname = $2::text";
/// All that was granted to a role itself, in lines, but for those that begin with one of `$2`. What has no column up to 15 is
/// left out of its line there.
const REST: &str = "SELECT count(*), encode(sha256(convert_to(coalesce(string_agg(line, E'\\n' ORDER BY line), ''), \
     'UTF8')), 'hex') FROM ( \
     SELECT concat_ws(':', 'relation', c.oid, e.privilege_type, '', e.grantor, e.is_grantable) AS line \
         FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) e WHERE c.relacl IS NOT NULL AND e.grantee = $1::bigint::oid \
     UNION ALL SELECT concat_ws(':', 'relation', t.attrelid, e.privilege_type, t.attname, e.grantor, e.is_grantable) \
         FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) e WHERE t.attacl IS NOT NULL AND e.grantee = $1::bigint::oid \
     UNION ALL SELECT concat_ws(':', 'schema', n.oid, e.privilege_type, e.grantor, e.is_grantable) \
         FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) e WHERE n.nspacl IS NOT NULL AND e.grantee = $1::bigint::oid \
     UNION ALL SELECT concat_ws(':', 'database', d.oid, e.privilege_type, e.grantor, e.is_grantable) \
         FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) e WHERE d.datacl IS NOT NULL AND e.grantee = $1::bigint::oid \
     UNION ALL SELECT concat_ws(':', 'routine', p.oid, e.privilege_type, e.grantor, e.is_grantable) \
         FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) e WHERE p.proacl IS NOT NULL AND e.grantee = $1::bigint::oid \
     UNION ALL SELECT concat_ws(':', 'member', m.roleid, m.admin_option, to_jsonb(m) ->> 'inherit_option', \
         to_jsonb(m) ->> 'set_option', CASE WHEN current_setting('server_version_num')::int >= 160000 THEN m.grantor END) \
         FROM pg_catalog.pg_auth_members m WHERE m.member = $1::bigint::oid \
     UNION ALL SELECT concat_ws(':', 'role', rolinherit, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls) \
         FROM pg_catalog.pg_roles WHERE oid = $1::bigint::oid) all_of_it \
     WHERE NOT EXISTS (SELECT 1 FROM unnest($2::text[]) taken WHERE starts_with(line, taken))";
/// A privilege that the server does not know yet nobody has.
const ON_RELATION: &str = "SELECT CASE \
     WHEN $3 = 'MAINTAIN' AND current_setting('server_version_num')::int < 170000 THEN false \
     WHEN $4 THEN has_any_column_privilege($1::bigint::oid, to_regclass($2::text), $3) \
     WHEN $5 THEN has_sequence_privilege($1::bigint::oid, to_regclass($2::text), $3) \
     ELSE has_table_privilege($1::bigint::oid, to_regclass($2::text), $3) END";
const ON_SCHEMA: &str = "SELECT has_schema_privilege($1::bigint::oid, oid, $3::text) FROM pg_catalog.pg_namespace \
     WHERE nspname = $2::text";
const IN_ROLE: &str =
    "SELECT pg_has_role($1::bigint::oid, oid, 'MEMBER') FROM pg_catalog.pg_roles WHERE rolname = $2::text";

/// So many statements, and looks at what they did, may one effect take.
const EXCHANGES: u32 = 4;

/// The roles of one PostgreSQL, and what they were granted.
pub struct PostgresScope {
    target: String,
    timeout: Duration,
    pool: PgPool,
    clock: clock::Shared,
}

/// Makes the connector. Connections are opened when they are needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &PostgresSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    let (pool, timeout) = super::pool_for(settings).await?;
    Ok(Arc::new(PostgresScope { target: target.to_owned(), timeout, pool, clock }))
}

/// A role that a credential logs in as.
struct Role {
    oid: i64,
    name: String,
    protected: bool,
}

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

/// Whether PostgreSQL has such a permission.
pub fn is_permission(permission: &Permission) -> bool {
    Named::of(permission).is_some()
}

fn named(permission: &Permission) -> Result<Named<'_>, Failure> {
    Named::of(permission).ok_or_else(|| refused("a permission that PostgreSQL does not have"))
}

/// An object, as statements name it.
fn on(kind: &str, schema: &str, object: &str) -> String {
    match kind {
        "n" => format!("SCHEMA {}", quoted(schema)),
        "S" => format!("SEQUENCE {}.{}", quoted(schema), quoted(object)),
        _ => format!("TABLE {}.{}", quoted(schema), quoted(object)),
    }
}

/// A look at one permission of one role: how it was given, if it was; and the beginning of its lines among all.
struct Look {
    form: Option<Form>,
    line: String,
}

impl PostgresScope {
    /// Whom the credential logs in as. A role that was made anew under the name is another one.
    async fn roles(&self, subject: &Subject) -> Result<Vec<Role>, Failure> {
        let id = subject.credential.id();
        let mut roles = Vec::new();
        for name in id.split(',') {
            let row = sqlx::query_as(ROLE).bind(name).fetch_optional(&self.pool);
            let row: Option<(i64, String, bool)> = bounded(self.timeout, false, row).await?;
            let Some((oid, name, protected)) = row else { continue };
            roles.push(Role { oid, name, protected });
        }
        Ok(roles)
    }

    /// The roles, where they are ours to change, and are those that the case saw.
    async fn ours(&self, subject: &Subject) -> Result<Vec<Role>, Failure> {
        let roles = self.roles(subject).await?;
        if roles.is_empty() {
            return Err(Failure::new(FailureKind::Gone, "the role is gone"));
        }
        if roles.iter().any(|role| role.protected) {
            return Err(refused("our own role, or an administrator: never touched"));
        }
        let seen = [&subject.seen, &subject.issuer].into_iter().flatten().find_map(|seen| seen.principal_id.as_deref());
        if seen.is_some_and(|seen| seen != ids(&roles)) {
            return Err(refused("another role has its name by now"));
        }
        Ok(roles)
    }

    async fn look(&self, connection: &mut PgConnection, role: &Role, permission: &Permission) -> Result<Look, Failure> {
        let named = named(permission)?;
        let none = |oid: i64, line: String| Look { form: None, line: format!("{line}{oid}:") };
        let (sql, name, privilege) = match named {
            Named::Member(group) => {
                let Some(membership) = self.membership(connection, role.oid, group).await? else {
                    return Ok(none(0, "member:".into()));
                };
                let form = membership.form((role.oid, role.name.clone()))?;
                return Ok(Look { form, line: format!("member:{}:", membership.group.0) });
            }
            Named::Relation(name, privilege) => (RELATION, name, privilege),
            Named::Schema(name, privilege) => (SCHEMA, name, privilege),
        };
        type Row = (i64, String, String, String, i64, Option<String>, Option<i64>, Option<bool>);
        let rows = sqlx::query_as(sql).bind(role.oid).bind(name).bind(privilege).fetch_all(connection);
        let rows: Vec<Row> = self.one(rows).await?;
        let sort = if matches!(named, Named::Schema(..)) { "schema:" } else { "relation:" };
        let Some((oid, kind, schema, object, owner, ..)) = rows.first().cloned() else {
            return Ok(none(0, sort.into()));
        };
        let on = (oid, on(&kind, &schema, &object));
        let mut form = Form::blank((role.oid, role.name.clone()), on);
        for (.., column, grantor, further) in rows {
            let (Some(grantor), Some(further)) = (grantor, further) else { continue };
            if owner == role.oid {
                return Err(refused("the role owns it: whatever is taken it can give itself again"));
            }
            if grantor != owner {
                return Err(refused("it was granted by somebody else than the owner: not ours to take"));
            }
            match column {
                None => form.whole = Some(further),
                Some(column) => form.columns.push((column, further)),
            }
        }
        let is_held = form.whole.is_some() || !form.columns.is_empty();
        Ok(Look { form: is_held.then_some(form), line: format!("{sort}{oid}:{privilege}:") })
    }

    async fn one<T>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Failure> {
        bounded(self.timeout, false, call).await
    }

    /// What of the named permissions the roles have, and the digest of all else.
    async fn scope(&self, rescope: &Rescope, roles: &[Role]) -> Result<Scope, Failure> {
        let mut connection = self.one(self.pool.acquire()).await?;
        let mut scope = Scope::default();
        let mut digests = Vec::new();
        for role in roles {
            let mut lines = Vec::new();
            for permission in &rescope.cut.permissions {
                let look = self.look(&mut connection, role, permission).await?;
                lines.push(look.line);
                scope.held.extend(look.form.map(|form| held(permission, &form)).transpose()?);
            }
            let rest = sqlx::query_as(REST).bind(role.oid).bind(&lines).fetch_one(&mut *connection);
            let (count, digest): (i64, String) = self.one(rest).await?;
            scope.rest_count += u32::try_from(count).unwrap_or(u32::MAX);
            digests.push(digest);
        }
        scope.rest = digests.join(",");
        Ok(scope)
    }

    /// Takes, or gives back, in one transaction; what it did is looked at before it is committed.
    async fn change(&self, subject: &Subject, gives: bool) -> Result<Output, Failure> {
        let rescope = subject.asked()?;
        let roles = self.ours(subject).await?;
        let mut transaction = self.one(self.pool.begin()).await?;
        let (mut derived, mut members) = (0, Vec::new());
        let mut no = None;
        for one in rescope.owed() {
            let mut part = self.one(transaction.begin()).await?;
            let took = match self.change_one(&mut part, &roles, one, gives).await {
                Ok(took) => took,
                // What can be given back is: an object that is gone keeps nothing else from it.
                Err(failure) if gives && failure.kind == FailureKind::Refused => {
                    self.one(part.rollback()).await?;
                    no = Some(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            self.one(part.commit()).await?;
            derived += u32::from(took.is_some());
            members.extend(took.filter(|_| !gives && matches!(named(&one.permission), Ok(Named::Member(_)))));
        }
        let mut residue = Vec::new();
        for oid in members {
            let open: i64 = self.one(sqlx::query_scalar(SESSIONS).bind(oid).fetch_one(&mut *transaction)).await?;
            if open > 0 && residue.is_empty() {
                residue.push(Residue::Sessions);
            }
        }
        bounded(self.timeout, true, transaction.commit()).await?;
        match no {
            Some(failure) => Err(failure),
            None => Ok(Output { derived, residue, ..Output::default() }),
        }
    }

    /// Takes or gives one of them, and looks at what that did. Whose it was; `None`: it was so already.
    async fn change_one(
        &self,
        connection: &mut PgConnection,
        roles: &[Role],
        one: &Held,
        gives: bool,
    ) -> Result<Option<i64>, Failure> {
        let (named, form) = (named(&one.permission)?, read(one)?);
        let Some(role) = roles.iter().find(|role| role.oid == form.role.0) else {
            return Err(refused("the role that had it is not there any more"));
        };
        let now = self.look(connection, role, &one.permission).await?.form;
        // Already so.
        if now.is_none() != gives {
            if gives && now.as_ref() != Some(&form) {
                return Err(refused("it was granted again since, in another form"));
            }
            return Ok(None);
        }
        if !gives && now.as_ref() != Some(&form) {
            return Err(refused("it was granted in another form since it was looked at"));
        }
        let statements = if gives { form::grants(named, &form) } else { form::revokes(named, &form) };
        for statement in statements {
            let run = sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection);
            bounded(self.timeout, true, run).await.map_err(|failure| match failure.kind {
                // Nothing is committed.
                FailureKind::Unknown => Failure::new(FailureKind::Unavailable, failure.note),
                // An object or a group, not the role.
                FailureKind::Gone => refused("what it was granted on is gone"),
                _ => failure,
            })?;
        }
        let after = self.look(connection, role, &one.permission).await?.form;
        if after != gives.then_some(form) {
            return Err(refused("our login may not: it must be a member of the role that owns it"));
        }
        Ok(Some(role.oid))
    }

    /// Whether the role may, in whatever way.
    async fn may(&self, role: &Role, permission: &Permission) -> Result<bool, Failure> {
        let may: Option<Option<bool>> = match named(permission)? {
            Named::Member(group) => {
                self.one(sqlx::query_scalar(IN_ROLE).bind(role.oid).bind(group).fetch_optional(&self.pool)).await?
            }
            Named::Schema(name, privilege) => {
                let ask = sqlx::query_scalar(ON_SCHEMA).bind(role.oid).bind(name).bind(privilege);
                self.one(ask.fetch_optional(&self.pool)).await?
            }
            one @ Named::Relation(name, privilege) => {
                let ask = sqlx::query_scalar(ON_RELATION).bind(role.oid).bind(name).bind(privilege);
                let ask = ask.bind(one.has_columns()).bind(privilege == "USAGE");
                self.one(ask.fetch_optional(&self.pool)).await?
            }
        };
        // What is not there opens nothing.
        Ok(may.flatten().unwrap_or(false))
    }

    /// How many of the named permissions are there, and of how many, for all roles.
    async fn count(&self, rescope: &Rescope, roles: &[Role]) -> Result<(usize, usize), Failure> {
        let (mut there, mut of) = (0, 0);
        for role in roles {
            for permission in &rescope.cut.permissions {
                let is_owed =
                    |one: &Held| one.permission == *permission && read(one).is_ok_and(|form| form.role.0 == role.oid);
                if rescope.gives && !rescope.owed().iter().any(is_owed) {
                    continue;
                }
                of += 1;
                there += usize::from(self.may(role, permission).await?);
            }
        }
        Ok((there, of))
    }

    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool), Failure> {
        let rotation = subject.rotation.as_ref();
        if let Some((rotation, moved)) = rotation.and_then(|rotation| Some((rotation, rotation.moved.as_ref()?))) {
            let (exists, primary, _): (bool, bool, bool) = self.one(sqlx::query_as(SELF).fetch_one(&self.pool)).await?;
            let Some(shared) = rotation.old_user().filter(|_| primary) else { return Ok((Answer::Unknown, false)) };
            let exceeds = self.exceeds(shared, moved).await?;
            return Ok((if exceeds { Answer::Accepted } else { Answer::Refused }, exists));
        }
        let rescope = subject.asked()?;
        let (exists, primary, _): (bool, bool, bool) = self.one(sqlx::query_as(SELF).fetch_one(&self.pool)).await?;
        if !primary {
            return Ok((Answer::Unknown, false));
        }
        let roles = self.roles(subject).await?;
        let (there, of) = self.count(rescope, &roles).await?;
        Ok((rescope.answer(there, of), exists))
    }

    async fn gate(&self, subject: &Subject) -> Result<Gate, Failure> {
        let rescope = subject.asked()?;
        let roles = match self.ours(subject).await {
            Ok(roles) => roles,
            Err(failure) if failure.kind == FailureKind::Gone => return Ok(Gate::Open),
            Err(failure) => return Err(failure),
        };
        let (there, of) = self.count(rescope, &roles).await?;
        if rescope.gives {
            let same = there == of;
            return if same { Ok(Gate::Open) } else { Err(refused("not all of it was given back")) };
        }
        if there > 0 {
            return Err(refused("it still may, by another grant, a group, or PUBLIC"));
        }
        let (now, before) = (self.scope(rescope, &roles).await?, rescope.cutting.before.as_ref());
        match before.is_some_and(|before| before.rest == now.rest) {
            true => Ok(Gate::Open),
            false => Err(refused("something else that it was granted has changed")),
        }
    }

    fn whole(&self) -> Duration {
        self.timeout * EXCHANGES
    }
}

fn ids(roles: &[Role]) -> String {
    roles.iter().map(|role| role.oid.to_string()).collect::<Vec<_>>().join(",")
}

fn held(permission: &Permission, form: &Form) -> Result<Held, Failure> {
    let how = serde_json::to_string(form).map_err(|_| refused("it cannot be written down"))?;
    if how.len() > MAX_HOW_BYTES {
        return Err(refused("it was granted on more columns than are recorded"));
    }
    Ok(Held { permission: permission.clone(), how })
}

fn read(held: &Held) -> Result<Form, Failure> {
    serde_json::from_str(&held.how).map_err(|_| refused("what was recorded of it cannot be read"))
}

#[async_trait]
impl Connector for PostgresScope {
    fn name(&self) -> &'static str {
        "postgres-scope"
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
        let at_ms = self.clock.wall_ms();
        let rescope = subject.asked()?;
        let call = async {
            let roles = self.roles(subject).await?;
            let scope = self.scope(rescope, &roles).await?;
            Ok((roles, scope))
        };
        let (roles, scope) = Box::pin(within(self.whole(), FailureKind::Unavailable, call)).await?;
        Ok(Observation {
            presence: if roles.is_empty() { Presence::Gone } else { Presence::Present },
            at_ms,
            protected: roles.iter().any(|role| role.protected),
            principal_id: (!roles.is_empty()).then(|| ids(&roles)),
            scope: Some(scope),
            ..Observation::default()
        })
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let gives = match act {
            Act::Provision => {
                return Box::pin(within(self.whole(), FailureKind::Unknown, self.provision(subject))).await;
            }
            Act::Narrow => false,
            Act::Widen => true,
            _ => return Err(refused("this connector has no such step")),
        };
        Box::pin(within(self.whole(), FailureKind::Unknown, self.change(subject, gives))).await
    }

    async fn pass(&self, _act: Act, subject: &Subject) -> Result<Gate, Failure> {
        Box::pin(within(self.whole(), FailureKind::Unavailable, self.gate(subject))).await
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let sight = Box::pin(within(self.whole(), FailureKind::Unavailable, self.sight(subject))).await;
        let (answer, control) = sight.unwrap_or((Answer::Unknown, false));
        Sighting { level: Level::Target, answer, at_ms, control, residue: Vec::new(), request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        match self.one(sqlx::query_as::<_, (bool, bool, bool)>(SELF).fetch_one(&self.pool)).await? {
            (true, ..) => Ok(()),
            _ => Err(Failure::new(FailureKind::Denied, "our own role does not exist any more")),
        }
    }
}
