//! Reach, read from real systems, and held against what these themselves say that somebody may.

mod lives;
mod silent;
mod story;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use curfew::clock::System;
use curfew::connector::postgres::PostgresSettings;
use curfew::connector::vault::{Auth, Vault, VaultSettings};
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::reach::graph::Graph;
use curfew::reach::kept::{self, Kept};
use curfew::reach::notice::{self, Sort};
use curfew::reach::{
    Departure, Fact, Node, Offboarded, Reading, Source, Standing, Via, ask, postgres as roles, uses as uses_of, vault,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::admin::{Admin, Postgres};
use crate::store::Store;
use crate::world::unique;

over_both! {
    facts_are_kept_and_read_back_page_by_page,
    a_reading_in_part_keeps_what_was_known,
    what_was_used_last_is_kept_with_where_its_log_was_read_up_to,
}

const FAST: NonZeroU32 = NonZeroU32::new(5_000).unwrap();

fn node(text: &str) -> Node {
    Node::parse(text).unwrap()
}

fn source(name: &str) -> Source {
    Source {
        tenant: "default".to_owned(),
        name: name.to_owned(),
        every_ms: 60_000,
        read_ms: 0,
        whole_ms: None,
        faults: Vec::new(),
    }
}

fn opens(identity: &str, target: &str) -> Fact {
    let mut fact = Fact::of(node(identity));
    fact.edge(node(target), Via::Opens, ["SELECT"]);
    fact
}

fn whole(facts: Vec<Fact>) -> Reading {
    Reading { facts, faults: Vec::new() }
}

async fn facts_are_kept_and_read_back_page_by_page(store: Store) {
    let journal = store.open().await;
    let many: Vec<Fact> =
        (0..4_500).map(|no| opens(&format!("identity:a/{no}"), &format!("target:t{}", no % 7))).collect();
    let changed = kept::record(journal.reach(), source("s"), whole(many.clone()), 1_000).await.unwrap();
    assert_eq!(changed, 4_500);
    assert_eq!(kept::record(journal.reach(), source("s"), whole(many.clone()), 2_000).await.unwrap(), 0, "nothing new");
    let other = kept::record(journal.reach(), source("other"), whole(vec![opens("identity:a/1", "target:own")]), 2_000);
    assert_eq!(other.await.unwrap(), 1);
    // What was written by one process is read by the next.
    let journal = store.reopen(journal).await;
    let reach = Kept::new(journal.clone(), vec![source("named-and-never-read")]);
    let (graph, is_one) = reach.graph().await.unwrap();
    assert!(is_one);
    assert_eq!(graph.size(), (4_500 + 7 + 1, 4_501));
    let one = ask::reach(&graph, graph.find(&node("identity:a/1")).unwrap());
    let opened: BTreeSet<String> = one.opened.iter().map(|one| one.target.to_string()).collect();
    assert_eq!(opened, BTreeSet::from(["target:own".to_owned(), "target:t1".to_owned()]));
    assert_eq!(one.opened[0].way[0].since_ms, 2_000, "since when a source says so");
    let stands: BTreeMap<String, Standing> =
        reach.sources(2_000).await.unwrap().into_iter().map(|line| (line.source.name, line.standing)).collect();
    assert_eq!(stands["s"], Standing::Whole);
    assert_eq!(stands["named-and-never-read"], Standing::Unread);
    // A whole reading without most of it: they are gone, and the next question knows.
    let few = whole(many[..10].to_vec());
    assert_eq!(kept::record(journal.reach(), source("s"), few, 3_000).await.unwrap(), 4_490);
    assert_eq!(reach.graph().await.unwrap().0.size().1, 11);
    // What is named no more is forgotten with all that it said.
    journal.reach().forget("default", "s").await.unwrap();
    assert_eq!(reach.graph().await.unwrap().0.size().1, 1);
    assert!(!reach.sources(3_000).await.unwrap().iter().any(|line| line.source.name == "s"));
}

async fn a_reading_in_part_keeps_what_was_known(store: Store) {
    let journal = store.open().await;
    let both = vec![opens("identity:a/1", "target:x"), opens("identity:a/2", "target:x")];
    kept::record(journal.reach(), source("s"), whole(both), 1_000).await.unwrap();
    let part = Reading { facts: vec![opens("identity:a/1", "target:y")], faults: vec!["refused half-way".to_owned()] };
    kept::record(journal.reach(), source("s"), part, 2_000).await.unwrap();
    let reach = Kept::new(journal, Vec::new());
    let who = ask::Question::Who { id: "target:x".to_owned(), max: 9 };
    let answer = reach.answer(who, 2_000).await.unwrap();
    let ask::Told::Lines(lines) = &answer.told else { panic!() };
    let all: BTreeSet<Node> = lines.lines.iter().map(|line| line.node.clone()).collect();
    // Neither of who was not shown, nor of what was shown with less.
    assert_eq!(all, BTreeSet::from([node("identity:a/1"), node("identity:a/2")]), "it is not taken for no access");
    assert!(!answer.whole);
    assert_eq!((answer.sources[0].standing, answer.sources[0].source.whole_ms), (Standing::Partial, Some(1_000)));
}

async fn what_was_used_last_is_kept_with_where_its_log_was_read_up_to(store: Store) {
    let journal = store.open().await;
    let watched = |until_ms: i64| uses_of::Watched {
        tenant: "default".to_owned(),
        source: "audit:prod".to_owned(),
        realm: "prod".to_owned(),
        since_ms: Some(5),
        until_ms,
        stale_ms: 1_000,
        unread: 3,
        position: Some(uses_of::Position { device: 1, inode: u64::MAX, offset: 7, tail: "ab".to_owned() }),
    };
    let one = |no: usize, last_ms: i64| uses_of::Use {
        who: format!("role:approle/{no}"),
        what: "policy:p".to_owned(),
        last_ms,
    };
    journal.reach().used(watched(10), (0..2_500).map(|no| one(no, 10)).collect()).await.unwrap();
    // Read twice, in whatever order: the last time counts.
    journal.reach().used(watched(30), vec![one(1, 30), one(2, 4)]).await.unwrap();
    kept::record(journal.reach(), source("s"), whole(vec![opens("identity:a/1", "target:x")]), 1_000).await.unwrap();
    kept::record(journal.reach(), source("s"), whole(vec![opens("identity:a/1", "target:y")]), 2_000).await.unwrap();
    let journal = store.reopen(journal).await;
    assert_eq!(journal.reach().watched().await.unwrap(), [watched(30)]);
    let all = journal.reach().uses("default", "audit:prod").await.unwrap();
    let last = |no: usize| all.iter().find(|row| row.who == format!("role:approle/{no}")).unwrap().last_ms;
    assert_eq!((all.len(), last(0), last(1), last(2)), (2_500, 10, 30, 10));
    let told = Kept::new(journal.clone(), Vec::new()).uses().await.unwrap();
    assert_eq!(told.policy("prod", "approle/1", "p", 5, 100), uses_of::Told::Last(Some(30)));
    // A node is as old as the first word of it, in whatever form it is stated since.
    let (graph, _) = Kept::new(journal.clone(), Vec::new()).graph().await.unwrap();
    let at = graph.find(&node("identity:a/1")).unwrap();
    assert_eq!(graph.about(at).unwrap().first_ms, Some(1_000));
    // Who did nothing for long goes, and the watch is younger then.
    let younger = uses_of::Watched { since_ms: Some(8), ..watched(30) };
    let gone = (3..2_500).map(|no| format!("role:approle/{no}")).collect();
    journal.reach().forget_uses(younger.clone(), gone).await.unwrap();
    assert_eq!(journal.reach().watched().await.unwrap(), [younger]);
    assert_eq!(journal.reach().uses("default", "audit:prod").await.unwrap().len(), 3);
    journal.reach().forget("default", "audit:prod").await.unwrap();
    assert!(journal.reach().watched().await.unwrap().is_empty());
    assert!(journal.reach().uses("default", "audit:prod").await.unwrap().is_empty());
}

/// A Vault with AppRoles, an entity in a group, and policies that overlap.
struct Tower {
    admin: Admin,
    reader: vault::Reader,
    /// Tokens of each policy.
    tokens: Vec<(String, String, String)>,
    _vault: Box<dyn std::any::Any + Send>,
}

/// Policies with priorities, denials, globs, templates and both ways to write them.
const POLICIES: [(&str, &str); 5] = [
    (
        "etl",
        "path \"kv/data/app/*\" { capabilities = [\"read\"] }\npath \"kv/data/app/secret\" { capabilities = [\"deny\"] }",
    ),
    (
        "writer",
        "path \"kv/data/app/+\" { capabilities = [\"create\", \"update\"] }\npath \"kv/*\" { capabilities = [\"list\"] }",
    ),
    (
        "minter",
        "path \"db/creds/ro\" { policy = \"read\" }\npath \"auth/approle/role/etl/secret-id\" { capabilities = [\"update\"] }",
    ),
    ("json", "{\"path\": {\"kv/data/+/key\": {\"capabilities\": [\"read\", \"patch\"]}}}"),
    (
        "broad",
        "path \"*\" { capabilities = [\"read\"] }\npath \"kv/data/app/*\" { capabilities = [\"deny\"] }\npath \"kv/data/app/open\" { capabilities = [\"read\"] }",
    ),
];
const PLACES: [&str; 5] = ["kv/app/open", "kv/app/secret", "kv/app/deep/key", "kv/other/key", "kv/app/key"];

impl Tower {
    async fn new() -> Self {
        let (vault, admin) = crate::vault::private().await;
        for (path, body) in [
            ("sys/mounts/kv", json!({"type": "kv", "options": {"version": "2"}})),
            ("sys/mounts/db", json!({"type": "database"})),
            ("sys/auth/approle", json!({"type": "approle"})),
        ] {
            admin.done("POST", path, body).await;
        }
        let pg = Postgres::shared();
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{}/postgres?sslmode=disable", pg.host);
        let config = json!({"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url,
            "username": pg.user, "password": pg.password});
        admin.done("POST", "db/config/pg", config).await;
        let role = json!({"db_name": "pg", "creation_statements": ["SELECT 1"]});
        admin.done("POST", "db/roles/ro", role).await;
        let mut tokens = Vec::new();
        for (name, text) in POLICIES {
            admin.done("PUT", &format!("sys/policies/acl/{name}"), json!({"policy": text})).await;
            let (accessor, token) = admin.token(json!({"policies": [name], "no_default_policy": true})).await;
            tokens.push((name.to_owned(), accessor, token));
        }
        let role = json!({"token_policies": ["etl"], "token_ttl": "20m", "token_max_ttl": "1h"});
        admin.done("POST", "auth/approle/role/etl", role).await;
        admin.done("POST", "identity/entity", json!({"name": "ana", "policies": ["json"]})).await;
        let (_, entity) = admin.call("GET", "identity/entity/name/ana", Value::Null).await;
        // A user whose login is that entity.
        admin.done("POST", "sys/auth/userpass", json!({"type": "userpass"})).await;
        admin
            .done(
                "POST",
                "auth/userpass/users/ana",
                json!({"password": crate::canary::made_up("pw-"), "token_policies": ["etl"]}),
            )
            .await;
        let (_, methods) = admin.call("GET", "sys/auth", Value::Null).await;
        let accessor = &methods["data"]["userpass/"]["accessor"];
        let alias = json!({"name": "ana", "mount_accessor": accessor, "canonical_id": entity["data"]["id"]});
        admin.done("POST", "identity/entity-alias", alias).await;
        let group = json!({"name": "makers", "policies": ["minter"], "member_entity_ids": [entity["data"]["id"]]});
        admin.done("POST", "identity/group", group).await;
        let login = admin.token_of(&[&admin.policy("reach", &[]).await]).await;
        let settings = VaultSettings::new(&admin.address, Auth::Token(login.into()));
        let opened = Vault::open("prod", &settings, Mode::Observe, System::shared()).await.unwrap();
        let reader = vault::Reader::new("prod", opened, vec![("db/creds/".to_owned(), "appdb".to_owned())], FAST);
        Self { admin, reader, tokens, _vault: vault }
    }

    fn credential(&self, policy: &str) -> CredentialId {
        let (_, accessor, _) = self.tokens.iter().find(|(name, ..)| name == policy).unwrap();
        CredentialId::new(Kind::VaultToken, "prod", accessor).unwrap()
    }

    async fn read(&self) -> Reading {
        let known = PLACES.iter().map(|place| (*place).to_owned()).collect();
        let tokens: Vec<CredentialId> = POLICIES.iter().map(|(name, _)| self.credential(name)).collect();
        self.reader.read(&known, &tokens).await
    }
}

fn graph(reading: Reading) -> Graph {
    let mut graph = Graph::default();
    for fact in reading.facts {
        graph.add(&"vault:prod".into(), fact, 0);
    }
    graph.settle();
    graph
}

/// Whether a walk from `from` comes by `to`, and goes on from there.
fn comes_by(graph: &Graph, from: &str, to: &str) -> bool {
    let who = ask::who(graph, graph.find(&node(to)).unwrap(), 1_000);
    who.lines.iter().any(|line| line.node == node(from))
}

#[tokio::test]
async fn what_vaults_policies_reach_is_what_vault_says_itself() {
    let tower = Tower::new().await;
    let reading = tower.read().await;
    assert_eq!(reading.faults, Vec::<String>::new(), "the policy of deploy/vault/reach.hcl is enough");
    let edges: BTreeMap<(String, String), Vec<String>> = reading
        .facts
        .iter()
        .flat_map(|fact| {
            fact.edges.iter().map(|edge| ((fact.node.to_string(), edge.to.to_string()), edge.scope.clone()))
        })
        .collect();
    // Vault is asked what each token may do where: each capability, at each place.
    for (name, _, token) in &tower.tokens {
        for (place, api) in PLACES
            .iter()
            .map(|place| ((*place).to_owned(), place.replacen("kv/", "kv/data/", 1)))
            .chain([("db/creds/ro".to_owned(), "db/creds/ro".to_owned())])
        {
            let body = json!({"token": token, "path": &api});
            let (status, said) = tower.admin.call("POST", "sys/capabilities", body).await;
            assert_eq!(status, 200, "{said}");
            let said: BTreeSet<&str> =
                said["capabilities"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let told = edges.get(&(format!("policy:prod/{name}"), format!("path:prod/{place}")));
            let told: BTreeSet<&str> =
                told.map_or_else(|| BTreeSet::from(["deny"]), |scope| scope.iter().map(String::as_str).collect());
            assert_eq!(told, said, "{name} on {api}");
        }
    }
    // What a role says of how long what it gives lives, and what its mount does, is what Vault itself resolves.
    let (_, role) = tower.admin.call("GET", "auth/approle/role/etl", Value::Null).await;
    let (_, tune) = tower.admin.call("GET", "sys/auth/approle/tune", Value::Null).await;
    let of = |name: &str| {
        reading.facts.iter().find_map(|fact| {
            fact.about.lifetimes.as_ref().filter(|_| fact.node == node(&format!("identity:prod/{name}")))
        })
    };
    let lifetimes = of("approle/etl").unwrap();
    let leases = ["default_lease_ttl", "max_lease_ttl"].map(|name| tune["data"][name].as_u64().unwrap());
    assert_eq!(lifetimes.mount, Some(leases.into()));
    assert!(leases[0] > 0 && leases[1] >= leases[0], "{tune}");
    assert_eq!(
        json!([lifetimes.token_ttl, lifetimes.token_max_ttl]),
        json!([role["data"]["token_ttl"], role["data"]["token_max_ttl"]])
    );
    assert!(of("userpass/ana").is_none(), "it is no AppRole");
    let graph = graph(reading);
    // A token by its accessor, a role, an entity by its group, and who may make a secret_id of a role.
    assert!(comes_by(&graph, tower.credential("minter").as_str(), "target:appdb"));
    assert!(comes_by(&graph, "identity:prod/approle/etl", "path:prod/kv/app/open"));
    assert!(!comes_by(&graph, "identity:prod/approle/etl", "path:prod/kv/app/secret"));
    assert!(comes_by(&graph, "identity:prod/entity/ana", "target:appdb"));
    assert!(comes_by(&graph, "identity:prod/entity/ana", "identity:prod/approle/etl"));
    assert!(comes_by(&graph, "identity:prod/userpass/ana", "target:appdb"), "by who its login is");
    assert!(comes_by(&graph, tower.credential("minter").as_str(), "path:prod/kv/app/open"), "through the AppRole");
    assert!(!comes_by(&graph, tower.credential("etl").as_str(), "target:appdb"));
}

#[tokio::test]
async fn what_vault_refuses_to_show_makes_a_part() {
    let tower = Tower::new().await;
    let text = std::fs::read_to_string(crate::repository().join("deploy/vault/reach.hcl")).unwrap();
    let text = text.replace("path \"identity/entity/id\" { capabilities = [\"list\"] }", "");
    tower.admin.done("PUT", "sys/policies/acl/less", json!({"policy": text})).await;
    let login = tower.admin.token_of(&["less"]).await;
    let settings = VaultSettings::new(&tower.admin.address, Auth::Token(login.into()));
    let opened = Vault::open("prod", &settings, Mode::Observe, System::shared()).await.unwrap();
    let reading = vault::Reader::new("prod", opened, Vec::new(), FAST).read(&BTreeSet::new(), &[]).await;
    assert!(reading.faults.iter().any(|fault| fault.starts_with("identity/entity/id")), "{:?}", reading.faults);
    assert!(reading.facts.iter().any(|fact| fact.node == node("identity:prod/approle/etl")), "the rest is read");
}

#[tokio::test]
async fn what_roles_of_postgresql_reach_is_what_postgresql_says_itself() {
    as_postgresql_says(Postgres::shared()).await;
}

#[tokio::test]
async fn what_roles_of_postgresql_18_reach_is_what_postgresql_says_itself() {
    as_postgresql_says(Postgres::later()).await;
}

async fn as_postgresql_says(pg: Postgres) {
    let name = unique("reach").replace('-', "_");
    let pool = pg.pool().await;
    // A database of its own: others come and go in the shared one.
    pool.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let url = {
        let mut url: reqwest::Url = pg.url.parse().unwrap();
        url.set_path(&name);
        url.to_string()
    };
    let own = sqlx::PgPool::connect(&url).await.unwrap();
    let sql = "CREATE ROLE {n}_etl LOGIN; CREATE ROLE {n}_readers; CREATE ROLE {n}_old LOGIN VALID UNTIL '2001-01-01'; \
        CREATE ROLE {n}_none LOGIN; CREATE ROLE {n}_owner; GRANT {n}_readers TO {n}_etl; CREATE TABLE orders (a int); \
        CREATE TABLE lines (a int); CREATE SCHEMA audit; CREATE TABLE audit.log (a int); CREATE SEQUENCE audit.ids; \
        ALTER TABLE lines OWNER TO {n}_owner; GRANT SELECT ON orders, lines TO {n}_readers; \
        GRANT INSERT, UPDATE ON orders TO {n}_etl; GRANT INSERT ON audit.log TO PUBLIC; GRANT USAGE ON SEQUENCE audit.ids TO {n}_old";
    // By each option alone, by all of them off, and by what two grantors gave.
    let options = "CREATE ROLE {n}_sets LOGIN; GRANT {n}_readers TO {n}_sets WITH INHERIT FALSE, SET TRUE; \
        CREATE ROLE {n}_inherits LOGIN; GRANT {n}_readers TO {n}_inherits WITH INHERIT TRUE, SET FALSE; \
        CREATE ROLE {n}_admin LOGIN; GRANT {n}_readers TO {n}_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE; \
        CREATE ROLE {n}_off LOGIN; GRANT {n}_readers TO {n}_off WITH INHERIT FALSE, SET FALSE; \
        CREATE ROLE {n}_twice LOGIN; GRANT {n}_readers TO {n}_twice WITH INHERIT FALSE, SET FALSE; \
        GRANT {n}_readers TO {n}_twice WITH INHERIT FALSE, SET TRUE GRANTED BY {n}_admin; \
        CREATE ROLE {n}_far LOGIN; GRANT {n}_sets TO {n}_far WITH INHERIT FALSE, SET TRUE; \
        CREATE ROLE {n}_mixed LOGIN; GRANT {n}_sets TO {n}_mixed WITH INHERIT TRUE, SET FALSE";
    let mut names = vec!["etl", "readers", "old", "none", "owner"];
    let mut statements: Vec<&str> = sql.split("; ").collect();
    if pg.is_later() {
        names.extend(["sets", "inherits", "admin", "off", "twice", "far", "mixed"]);
        statements.extend(options.split("; ").map(str::trim));
    }
    // All that it is, may become, or may make itself.
    let is = if pg.is_later() { ["USAGE", "SET", "MEMBER WITH ADMIN OPTION"].as_slice() } else { &["MEMBER"] };
    for statement in statements.into_iter().map(|one| one.replace("{n}", &name)) {
        own.execute(AssertSqlSafe(statement.to_owned())).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let reader = roles::Reader::open("appdb", &PostgresSettings::new(url.into())).await.unwrap();
    let reading = reader.read(System::shared().wall_ms()).await;
    assert_eq!(reading.faults, Vec::<String>::new());
    let off: BTreeSet<String> =
        reading.facts.iter().filter(|fact| fact.about.off).map(|fact| fact.node.name.to_string()).collect();
    assert!(off.contains(&format!("appdb/{name}_old")) && off.contains(&format!("appdb/{name}_readers")));
    let graph = graph(reading);
    for role in &names {
        let start = graph.find(&node(&format!("identity:appdb/{name}_{role}"))).unwrap();
        let reach = ask::reach(&graph, start);
        let words: String = reach.opened.iter().flat_map(|one| one.scope.clone()).collect::<Vec<_>>().join("\n");
        for (schema, table) in [("public", "orders"), ("public", "lines"), ("audit", "log")] {
            for privilege in ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"] {
                let asked = "SELECT bool_or(has_table_privilege(g.oid, $2::regclass, $3)) FROM pg_roles r, pg_roles g \
                    WHERE r.rolname = $1 AND (g.oid = r.oid OR EXISTS (SELECT FROM unnest($4::text[]) way \
                        WHERE pg_has_role(r.oid, g.oid, way)))";
                let (may,): (bool,) = sqlx::query_as(asked)
                    .bind(format!("{name}_{role}"))
                    .bind(format!("{schema}.{table}"))
                    .bind(privilege)
                    .bind(is)
                    .fetch_one(&own)
                    .await
                    .unwrap();
                let told = words.lines().any(|line| {
                    let Some((on, what)) = line.split_once(": ") else { return false };
                    (on == format!("{schema}.{table}") || on == format!("{schema}.*"))
                        && what.split(", ").any(|one| one == privilege)
                });
                // A role that cannot log in has nothing as everybody: nobody is it. Who becomes it is somebody else.
                let is_shut = ["readers", "old", "owner"].contains(role);
                let by_all = schema == "audit" && table == "log" && privilege == "INSERT" && is_shut;
                // Who inherits from somebody who may become a role becomes nobody: it is told from above.
                let from_above = *role == "mixed" && told;
                assert!(
                    told == may || by_all || from_above,
                    "{role}: {privilege} on {schema}.{table}: told {told}, may {may}\n{words}"
                );
            }
        }
    }
    own.close().await;
    pool.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
    let each: Vec<String> = names.iter().map(|role| format!("{name}_{role}")).collect();
    pool.execute(AssertSqlSafe(format!("DROP ROLE {}", each.join(", ")))).await.unwrap();
}

#[tokio::test]
async fn an_entity_leaves_with_just_the_role_that_logs_in_as_it_where_role_ids_may_be_read() {
    let tower = Tower::new().await;
    let admin = &tower.admin;
    admin.done("POST", "auth/approle/role/other", json!({"token_policies": ["etl"]})).await;
    let log_in = async || {
        let (_, id) = admin.call("GET", "auth/approle/role/etl/role-id", Value::Null).await;
        let (_, made) = admin.call("POST", "auth/approle/role/etl/secret-id", json!({})).await;
        let login = json!({"role_id": id["data"]["role_id"], "secret_id": made["data"]["secret_id"]});
        let (_, login) = admin.call("POST", "auth/approle/login", login).await;
        let of = format!("identity/entity/id/{}", login["auth"]["entity_id"].as_str().unwrap());
        let (_, entity) = admin.call("GET", &of, Value::Null).await;
        (format!("identity:prod/entity/{}", entity["data"]["name"].as_str().unwrap()), id["data"]["role_id"].clone())
    };
    let (entity, role_id) = log_in().await;
    let text = std::fs::read_to_string(crate::repository().join("deploy/vault/reach.hcl")).unwrap();
    let line = "path \"auth/+/role/+/role-id\"";
    let more = text.replace(&format!("# {line}"), line);
    assert_ne!(more, text);
    admin.done("PUT", "sys/policies/acl/more", json!({"policy": more})).await;
    let settings = VaultSettings::new(&admin.address, Auth::Token(admin.token_of(&["more"]).await.into()));
    let opened = Vault::open("prod", &settings, Mode::Observe, System::shared()).await.unwrap();
    let knows = vault::Reader::new("prod", opened, Vec::new(), FAST);
    // Who goes where the entity of this name leaves.
    let goes = |reading: Reading, entity: &str| -> Vec<String> {
        assert_eq!(reading.faults, Vec::<String>::new());
        let mut graph = graph(reading);
        let word = Departure { tenant: "default".to_owned(), topic: "hr".to_owned(), since_ms: 1, until_ms: 9 };
        let mut leaver = Fact::of(node(entity));
        leaver.about.offboarded = Some(Box::new(Offboarded { words: [word].into() }));
        graph.add(&"journal".into(), leaver, 0);
        for role in ["etl", "other"] {
            let mut fact = Fact::of(node(&format!("urn:curfew:cred:vault-approle:prod:approle/{role}")));
            fact.edge_to(Some(&node(&format!("identity:prod/approle/{role}"))), Via::LogsIn);
            graph.add(&"journal".into(), fact, 0);
        }
        let found = notice::found(&graph, &[Sort::Offboarded], 0);
        found[&Sort::Offboarded].iter().map(|one| one.credential.id()).collect()
    };
    let none = BTreeSet::new();
    let reading = knows.read(&none, &[]).await;
    assert!(!format!("{reading:?}").contains(role_id.as_str().unwrap()), "it is compared, and kept nowhere");
    assert_eq!(goes(reading, &entity), ["approle/etl"]);
    assert_eq!(goes(tower.reader.read(&none, &[]).await, &entity), Vec::<String>::new(), "not told apart: nobody");
    // Another role has its name by now: the entity was the earlier one's.
    admin.done("DELETE", "auth/approle/role/etl", Value::Null).await;
    admin.done("POST", "auth/approle/role/etl", json!({"token_policies": ["etl"]})).await;
    let (another, _) = log_in().await;
    assert_ne!(another, entity);
    let reading = knows.read(&none, &[]).await;
    assert_eq!(goes(reading.clone(), &entity), Vec::<String>::new());
    assert_eq!(goes(reading, &another), ["approle/etl"]);
}
