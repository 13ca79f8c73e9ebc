//! Roles of a real PostgreSQL, before and after memberships had grantors and options: 15 and 18.

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
    /// Who takes and gives.
    cutter: String,
    /// From 16 on: who grants the group, as whom our login acts; and another one.
    grantors: [String; 2],
    connector: Arc<dyn Connector>,
    pub pg: Postgres,
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
        || CASE WHEN to_jsonb(m) ? 'set_option' THEN format(' inherit %s set %s by %s', to_jsonb(m) ->> 'inherit_option', \
            to_jsonb(m) ->> 'set_option', m.grantor::regrole) ELSE '' END \
        FROM pg_auth_members m WHERE m.member = $1::regrole) all_of_it";

/// Who else was granted something on a schema.
const OTHER: &str = "SELECT e.grantee::regrole::text FROM pg_namespace n, aclexplode(n.nspacl) e \
    WHERE n.nspname = $1 AND e.grantee::regrole::text LIKE 'other%' LIMIT 1";

impl Etl {
    pub async fn new() -> Self {
        Self::at(Postgres::shared()).await
    }

    /// At a server of that version, by a login as `deploy/postgres/reduce.sql` says.
    pub async fn at(pg: Postgres) -> Self {
        let name = |what: &str| unique(what).replace('-', "_");
        let (role, schema) = (name("etl"), name("shop"));
        let (owner, group, other, cutter) = (name("owner"), name("group"), name("other"), name("cutter"));
        let grantors = [name("access"), name("second")];
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
        let say = |who: &str, access: &str, shown: bool| {
            let names =
                [("curfew_reduce", cutter.as_str()), ("app_owner", owner.as_str()), ("readers", group.as_str())];
            let names: Vec<(&str, &str)> = names.into_iter().chain([("etl", who), ("app_access", access)]).collect();
            if shown { pg.shown("reduce.sql", &names) } else { pg.deployed("reduce.sql", &names) }
        };
        statements.extend(say(&role, &grantors[0], false));
        statements.push(format!("ALTER ROLE {cutter} PASSWORD 'w1tness'"));
        statements.extend(say(&role, &grantors[0], true));
        if pg.is_later() {
            // The other one has it as well, and a second grantor gave both a part of it with other options.
            let of_members = |one: &String| one.contains(" GRANTED BY ");
            statements.extend(say(&other, &grantors[0], true).into_iter().filter(of_members));
            let of_second = |one: &String| one.contains(&grantors[1]) && !of_members(one);
            statements.extend(say(&role, &grantors[1], true).into_iter().filter(of_second));
            for who in [&role, &other] {
                let part = "WITH ADMIN TRUE, INHERIT FALSE, SET FALSE";
                statements.push(format!("GRANT {group} TO {who} {part} GRANTED BY {}", grantors[1]));
            }
        }
        pg.run(statements).await;
        let url = format!("postgresql://{cutter}:w1tness@{}/postgres", pg.host);
        let settings = PostgresSettings::new(url.into());
        let connector = scope::connect("appdb", &settings, System::shared()).await.unwrap();
        let credential = CredentialId::new(Kind::PostgresRole, "appdb", &role).unwrap();
        Self { credential, role, schema, group, cutter, grantors, connector, pg }
    }

    /// A connection for one errand, given back at once: many identities are there side by side, and the server has room for few.
    async fn ask(&self, sql: &'static str, about: &str) -> String {
        let mut admin = PgConnection::connect(&self.pg.url).await.unwrap();
        let answer = sqlx::query_scalar(sql).bind(about).fetch_one(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        answer
    }

    async fn of(&self, role: &str) -> String {
        self.ask(STATE, role).await
    }

    pub async fn sql(&self, statement: &str) {
        let filled = statement.replace("{role}", &self.role).replace("{schema}", &self.schema);
        let filled = filled.replace("{group}", &self.group).replace("{access}", &self.grantors[0]);
        let filled = filled.replace("{cutter}", &self.cutter);
        self.pg.run([filled]).await;
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
        let other = self.ask(OTHER, &self.schema).await;
        self.of(&other).await
    }

    async fn assert_works(&self, what: &str) {
        let mut session = self.pg.login(&self.role, "w1tness").await.unwrap();
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

// Half of it on 18 as well, each over one store.
over_each! {
    sqlite: on_18_what_is_taken_survives_every_kill, on_18_giving_back_what_was_taken_survives_every_kill;
    postgres: on_18_what_is_taken_survives_every_fault, on_18_giving_back_what_was_taken_survives_every_fault,
}

async fn later() -> Etl {
    Etl::at(Postgres::later()).await
}

async fn on_18_what_is_taken_survives_every_kill(store: Store) {
    every_kill(store, Way::Taken, later).await;
}

async fn on_18_giving_back_what_was_taken_survives_every_kill(store: Store) {
    every_kill(store, Way::GivenBack, later).await;
}

async fn on_18_what_is_taken_survives_every_fault(store: Store) {
    every_fault(store, Way::Taken, later).await;
}

async fn on_18_giving_back_what_was_taken_survives_every_fault(store: Store) {
    every_fault(store, Way::GivenBack, later).await;
}
