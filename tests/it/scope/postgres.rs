//! Roles of a real PostgreSQL.

use std::sync::Arc;

use curfew::clock::System;
use curfew::connector::Connector;
use curfew::connector::postgres::{PostgresSettings, scope};
use curfew::credential::{CredentialId, Kind};
use curfew::scope::{Permission, permissions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::{Identity, Way, every_fault, every_kill};
use crate::admin::Postgres;
use crate::store::Store;
use crate::world::unique;

/// A role with a table, a schema, a group; another one with the same.
pub struct Etl {
    credential: CredentialId,
    pub role: String,
    schema: String,
    group: String,
    connector: Arc<dyn Connector>,
}

/// The grants of a role, to the letter.
const STATE: &str = "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM ( \
    SELECT format('%s.%s: %s%s', n.nspname, c.relname, e.privilege_type, CASE WHEN e.is_grantable THEN '*' ELSE '' END) \
        || ' by ' || e.grantor::regrole AS line \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) e WHERE e.grantee = $1::regrole \
    UNION ALL SELECT format('%s(%s): %s%s', t.attrelid::regclass, t.attname, e.privilege_type, \
        CASE WHEN e.is_grantable THEN '*' ELSE '' END) || ' by ' || e.grantor::regrole \
        FROM pg_attribute t, aclexplode(t.attacl) e WHERE e.grantee = $1::regrole \
    UNION ALL SELECT format('schema %s: %s', n.nspname, e.privilege_type) \
        FROM pg_namespace n, aclexplode(n.nspacl) e WHERE e.grantee = $1::regrole \
    UNION ALL SELECT format('member %s%s', m.roleid::regrole, CASE WHEN m.admin_option THEN '*' ELSE '' END) \
        FROM pg_auth_members m WHERE m.member = $1::regrole) all_of_it";

/// A connection for one errand, given back at once: many identities are there side by side, and the server has room for few.
async fn admin() -> PgConnection {
    PgConnection::connect(&Postgres::shared().url).await.unwrap()
}

impl Etl {
    pub async fn new() -> Self {
        let name = |what: &str| unique(what).replace('-', "_");
        let (role, schema) = (name("etl"), name("shop"));
        let (owner, group, other, cutter) = (name("owner"), name("group"), name("other"), name("cutter"));
        let mut admin = admin().await;
        let mut statements = vec![
            format!("CREATE ROLE {owner}"),
            format!("CREATE ROLE {group}"),
            format!("CREATE ROLE {role} LOGIN PASSWORD 'w1tness'"),
            format!("CREATE ROLE {other}"),
            format!("CREATE SCHEMA {schema} AUTHORIZATION {owner}"),
            format!("CREATE TABLE {schema}.\"or:ders\" (id int, note text)"),
            format!("CREATE SEQUENCE {schema}.numbers"),
            format!("ALTER TABLE {schema}.\"or:ders\" OWNER TO {owner}"),
            format!("ALTER SEQUENCE {schema}.numbers OWNER TO {owner}"),
            // As `deploy/postgres/reduce.sql` says.
            format!("CREATE ROLE {cutter} LOGIN PASSWORD 'w1tness'"),
            format!("GRANT {owner} TO {cutter}"),
            format!("GRANT {group} TO {cutter} WITH ADMIN OPTION"),
            format!("GRANT pg_read_all_stats TO {cutter}"),
        ];
        for who in [&role, &other] {
            statements.extend([
                format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {who}"),
                format!("GRANT SELECT, INSERT ON {schema}.\"or:ders\" TO {who}"),
                format!("GRANT DELETE, UPDATE ON {schema}.\"or:ders\" TO {who} WITH GRANT OPTION"),
                format!("GRANT UPDATE (note) ON {schema}.\"or:ders\" TO {who}"),
                format!("GRANT REFERENCES (id, note) ON {schema}.\"or:ders\" TO {who} WITH GRANT OPTION"),
                format!("GRANT USAGE ON SEQUENCE {schema}.numbers TO {who}"),
                format!("GRANT {group} TO {who} WITH ADMIN OPTION"),
            ]);
        }
        for statement in statements {
            admin.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        admin.close().await.unwrap();
        let url = format!("postgresql://{cutter}:w1tness@{}/postgres", Postgres::shared().host);
        let settings = PostgresSettings::new(url.into());
        let connector = scope::connect("appdb", &settings, System::shared()).await.unwrap();
        let credential = CredentialId::new(Kind::PostgresRole, "appdb", &role).unwrap();
        Self { credential, role, schema, group, connector }
    }

    async fn of(&self, role: &str) -> String {
        let mut admin = admin().await;
        let state = sqlx::query_scalar(STATE).bind(role).fetch_one(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        state
    }

    pub async fn sql(&self, statement: &str) {
        let statement =
            statement.replace("{role}", &self.role).replace("{schema}", &self.schema).replace("{group}", &self.group);
        let mut admin = admin().await;
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
        admin.close().await.unwrap();
    }

    /// The permissions of this role, by their names with `{schema}` and `{group}` in them.
    pub fn named(&self, names: &[&str]) -> Vec<Permission> {
        let fill = |name: &&str| name.replace("{schema}", &self.schema).replace("{group}", &self.group);
        permissions(names.iter().map(fill)).unwrap()
    }
}

const TAKEN: [&str; 6] = [
    "relation:{schema}.\"or:ders\":DELETE",
    "relation:{schema}.\"or:ders\":UPDATE",
    "relation:{schema}.\"or:ders\":REFERENCES",
    "relation:{schema}.numbers:USAGE",
    "schema:{schema}:CREATE",
    "member:{group}",
];

impl Identity for Etl {
    fn credential(&self) -> &CredentialId {
        &self.credential
    }

    fn connector(&self) -> Arc<dyn Connector> {
        self.connector.clone()
    }

    fn takes(&self) -> Vec<Permission> {
        self.named(&TAKEN)
    }

    async fn state(&self) -> String {
        self.of(&self.role).await
    }

    fn without(&self, before: &str) -> String {
        let goes = |line: &&str| {
            ["DELETE", "UPDATE", "REFERENCES", "numbers", ": CREATE", "member"].iter().any(|w| line.contains(w))
        };
        before.lines().filter(|line| !goes(line)).collect::<Vec<_>>().join("\n")
    }

    async fn bystander(&self) -> String {
        let mut admin = admin().await;
        let other: String = sqlx::query_scalar(
            "SELECT e.grantee::regrole::text FROM pg_namespace n, aclexplode(n.nspacl) e \
             WHERE n.nspname = $1 AND e.grantee::regrole::text LIKE 'other%' LIMIT 1",
        )
        .bind(&self.schema)
        .fetch_one(&mut admin)
        .await
        .unwrap();
        admin.close().await.unwrap();
        self.of(&other).await
    }

    async fn assert_works(&self, what: &str) {
        let mut session = Postgres::shared().login(&self.role, "w1tness").await.unwrap();
        for sql in ["SELECT * FROM {}.\"or:ders\"", "INSERT INTO {}.\"or:ders\" VALUES (1, '')"] {
            let sql = sql.replace("{}", &self.schema);
            session.execute(AssertSqlSafe(sql)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        session.close().await.unwrap();
    }

    async fn also_otherwise(&self) {
        self.sql("GRANT DELETE ON {schema}.\"or:ders\" TO PUBLIC").await;
    }
}

over_both! {
    what_is_taken_from_a_role_survives_every_kill,
    what_is_taken_from_a_role_survives_every_fault,
    giving_a_role_back_what_it_still_has_otherwise_survives_every_kill,
    giving_a_role_back_what_was_taken_survives_every_kill,
    giving_a_role_back_what_was_taken_survives_every_fault,
}

async fn what_is_taken_from_a_role_survives_every_kill(store: Store) {
    every_kill(store, Way::Taken, Etl::new).await;
}

async fn what_is_taken_from_a_role_survives_every_fault(store: Store) {
    every_fault(store, Way::Taken, Etl::new).await;
}

async fn giving_a_role_back_what_it_still_has_otherwise_survives_every_kill(store: Store) {
    every_kill(store, Way::Undone, Etl::new).await;
}

async fn giving_a_role_back_what_was_taken_survives_every_kill(store: Store) {
    every_kill(store, Way::GivenBack, Etl::new).await;
}

async fn giving_a_role_back_what_was_taken_survives_every_fault(store: Store) {
    every_fault(store, Way::GivenBack, Etl::new).await;
}
