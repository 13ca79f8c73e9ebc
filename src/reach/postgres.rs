//! What the roles of one PostgreSQL may do in the connected database: memberships, ownership, grants.
//!
//! Any login may read these catalogs. Privileges are told for each schema: where a role has the same on all of its relations they
//! are one word. Columns, routines, row security and other databases are not looked at.
//!
//! Facts: PostgreSQL 15 to 18, "Privileges", "Role Membership" and "Predefined Roles"; a member of a role has what the role has,
//! also where it must say SET ROLE first. From 16 on a membership has options: by INHERIT or SET it has that, by ADMIN alone it
//! may give itself either, so it may become the role. By none of them it has nothing, but who may alter roles (CREATEROLE) alters
//! those also that a role administers in which it is by such a membership. What is inherited from somebody who may become a role is
//! told, though nobody becomes it that way: from above (measured on 18).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::PgPool;

use super::{Fact, Node, NodeKind, Reading, Via};
use crate::connector::Failure;
use crate::connector::postgres::{PostgresSettings, bounded_look, pool_for};
use crate::connector::vault::ConnectError;
use crate::scope::{self, Permission};

/// So many roles, memberships and grants are read at the most.
const MOST: i64 = 200_000;

const ROLES: &str = "SELECT rolname::text, rolcanlogin, CASE WHEN pg_catalog.isfinite(rolvaliduntil) \
     THEN (extract(epoch FROM rolvaliduntil) * 1000)::bigint END, \
     concat_ws(',', CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END, \
     CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolreplication THEN 'REPLICATION' END, \
     CASE WHEN rolbypassrls THEN 'BYPASSRLS' END), \
     pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CONNECT') FROM pg_catalog.pg_roles LIMIT $1";
/// A row of [`MEMBERS`].
type Membership = (String, String, bool, Option<bool>, Option<bool>);

/// One for each grantor. The options have no column up to 15.
const MEMBERS: &str = "SELECT m.rolname::text, g.rolname::text, a.admin_option, \
     (pg_catalog.to_jsonb(a) ->> 'inherit_option')::boolean, (pg_catalog.to_jsonb(a) ->> 'set_option')::boolean \
     FROM pg_catalog.pg_auth_members a \
     JOIN pg_catalog.pg_roles m ON m.oid = a.member JOIN pg_catalog.pg_roles g ON g.oid = a.roleid LIMIT $1";
/// Grants on relations, each owner's own among them. Grantee NULL: everybody. Names are quoted where they must be, as permissions
/// name them.
const GRANTS: &str = "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(c.relname), r.rolname::text, \
     a.privilege_type::text \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(c.relacl, \
     pg_catalog.acldefault(CASE WHEN c.relkind = 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END, c.relowner))) a \
     LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
     WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
     AND (a.grantee = 0 OR r.oid IS NOT NULL) LIMIT $1";
/// Relations of each schema.
const RELATIONS: &str = "SELECT pg_catalog.quote_ident(n.nspname), count(*) FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S') \
     AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' GROUP BY 1 LIMIT $1";
/// What may be made in schemas and in the database.
const MAKES: &str = "SELECT 'schema ' || n.nspname::text, r.rolname::text, a.privilege_type::text FROM pg_catalog.pg_namespace n \
     CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a \
     LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
     AND a.privilege_type = 'CREATE' AND (a.grantee = 0 OR r.oid IS NOT NULL) \
     UNION ALL SELECT 'database', r.rolname::text, a.privilege_type::text FROM pg_catalog.pg_database d \
     CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
     LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE d.datname = pg_catalog.current_database() \
     AND a.privilege_type = 'CREATE' AND (a.grantee = 0 OR r.oid IS NOT NULL) LIMIT $1";

/// What PostgreSQL calls everybody.
const PUBLIC: &str = "PUBLIC";
/// Whoever may log in may connect to the database.
const CONNECT: &str = "CONNECT";

/// A role, as its catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Role {
    name: String,
    can_log_in: bool,
    until_ms: Option<i64>,
    /// `SUPERUSER`, `CREATEROLE`, …
    attributes: Vec<String>,
    connects: bool,
}

/// A membership, as one grant has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    member: String,
    role: String,
    /// From PostgreSQL 16 on.
    options: Option<Options>,
}

/// What a membership lets do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Options {
    admin: bool,
    inherit: bool,
    set: bool,
}

/// All that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Catalog {
    roles: Vec<Role>,
    members: Vec<Member>,
    /// Schema, relation, grantee, privilege.
    grants: Vec<(String, String, String, String)>,
    /// Relations of each schema.
    relations: BTreeMap<String, i64>,
    /// What, grantee, privilege.
    makes: Vec<(String, String, String)>,
}

/// Reads one PostgreSQL.
pub struct Reader {
    target: String,
    pool: PgPool,
    timeout: Duration,
}

impl Reader {
    /// For `target`. Connections are opened when they are needed.
    ///
    /// # Errors
    /// [`ConnectError::Settings`].
    pub async fn open(target: &str, settings: &PostgresSettings) -> Result<Self, ConnectError> {
        let (pool, timeout) = pool_for(settings).await?;
        Ok(Self { target: target.to_owned(), pool, timeout })
    }

    /// All that its roles may do.
    pub async fn read(&self, now_ms: i64) -> Reading {
        match self.catalog().await {
            Ok(catalog) => facts(&self.target, &catalog, now_ms),
            Err(failure) => Reading { facts: Vec::new(), faults: vec![failure.note] },
        }
    }

    async fn rows<T>(&self, sql: &'static str) -> Result<Vec<T>, Failure>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        bounded_look(self.timeout, sqlx::query_as(sql).bind(MOST).fetch_all(&self.pool)).await
    }

    async fn catalog(&self) -> Result<Catalog, Failure> {
        let roles: Vec<(String, bool, Option<i64>, String, bool)> = self.rows(ROLES).await?;
        let role =
            |(name, can_log_in, until_ms, attributes, connects): (String, bool, Option<i64>, String, bool)| Role {
                name,
                can_log_in,
                until_ms,
                attributes: attributes.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect(),
                connects,
            };
        let public = |name: Option<String>| name.unwrap_or_else(|| PUBLIC.to_owned());
        let grants: Vec<(String, String, Option<String>, String)> = self.rows(GRANTS).await?;
        let makes: Vec<(String, Option<String>, String)> = self.rows(MAKES).await?;
        let relations: Vec<(String, i64)> = self.rows(RELATIONS).await?;
        let members: Vec<Membership> = self.rows(MEMBERS).await?;
        let member = |(member, role, admin, inherit, set): (String, String, bool, Option<bool>, Option<bool>)| {
            let options = inherit.zip(set).map(|(inherit, set)| Options { admin, inherit, set });
            Member { member, role, options }
        };
        Ok(Catalog {
            roles: roles.into_iter().map(role).collect(),
            members: members.into_iter().map(member).collect(),
            grants: grants.into_iter().map(|(schema, name, whom, what)| (schema, name, public(whom), what)).collect(),
            relations: relations.into_iter().collect(),
            makes: makes.into_iter().map(|(place, whom, what)| (place, public(whom), what)).collect(),
        })
    }
}

/// What a role may do, in words: `public.orders: INSERT, SELECT`, or `public.*: SELECT` where all relations are alike and are more
/// than a boundary can name. See [`beyond`].
fn words(catalog: &Catalog) -> BTreeMap<&str, Vec<String>> {
    let mut by_schema: BTreeMap<(&str, &str), BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (schema, relation, whom, what) in &catalog.grants {
        by_schema.entry((whom, schema)).or_default().entry(relation).or_default().insert(what);
    }
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((whom, schema), relations) in by_schema {
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (relation, what) in relations {
            let what: Vec<&str> = what.into_iter().collect();
            alike.entry(what.join(", ")).or_default().push(relation);
        }
        let whole = catalog.relations.get(schema).copied().unwrap_or(0);
        for (what, relations) in alike {
            if relations.len() > scope::MOST && i64::try_from(relations.len()).is_ok_and(|count| count == whole) {
                all.entry(whom).or_default().push(format!("{schema}.*: {what}"));
            } else {
                all.entry(whom)
                    .or_default()
                    .extend(relations.iter().map(|relation| format!("{schema}.{relation}: {what}")));
            }
        }
    }
    for (place, whom, what) in &catalog.makes {
        all.entry(whom).or_default().push(format!("{place}: {what}"));
    }
    all
}

/// What one of these words says that `said` does not name, as permissions are called where it has such a name. Whoever may log in
/// connects: that is no permission of its own.
pub(super) fn beyond(word: &str, said: &BTreeSet<Permission>) -> Vec<String> {
    if word == CONNECT {
        return Vec::new();
    }
    // An attribute, or what had no room: nobody can name it.
    let Some((place, privileges)) = word.rsplit_once(": ") else { return vec![word.to_owned()] };
    let place = match place.strip_prefix("schema ") {
        Some(name) => format!("schema:{name}"),
        None if place == "database" => place.to_owned(),
        None => format!("relation:{place}"),
    };
    let named = privileges.split(", ").map(|privilege| format!("{place}:{privilege}"));
    named.filter(|one| !Permission::parse(one).is_ok_and(|one| said.contains(&one))).collect()
}

/// Whether it is what everybody may at this target.
pub(super) fn is_public(target: &str, node: &Node) -> bool {
    let is_it = |name: &str| name.strip_prefix(target).and_then(|rest| rest.strip_prefix('/')) == Some(PUBLIC);
    node.kind == NodeKind::Policy && is_it(&node.name)
}

/// Roles by which somebody who may alter roles alters those that they administer: such a one, and all in which it is by whatever
/// memberships.
fn altering(catalog: &Catalog) -> BTreeSet<&str> {
    let makes = |role: &&Role| role.attributes.iter().any(|one| one == "CREATEROLE");
    let mut all: BTreeSet<&str> = catalog.roles.iter().filter(makes).map(|role| role.name.as_str()).collect();
    let mut next: Vec<&str> = all.iter().copied().collect();
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Member { member, role, .. } in &catalog.members {
        groups.entry(member).or_default().push(role);
    }
    while let Some(at) = next.pop() {
        for group in groups.get(at).into_iter().flatten().copied() {
            if all.insert(group) {
                next.push(group);
            }
        }
    }
    all
}

/// How a membership leads to the role, and the words of its options; all grants of it together. `None`: it does not.
fn way(options: Option<Options>, alters: bool) -> Option<(Via, Vec<&'static str>)> {
    let Some(Options { admin, inherit, set }) = options else { return Some((Via::Has, Vec::new())) };
    let words = [(admin, "ADMIN"), (inherit, "INHERIT"), (set, "SET")];
    let words: Vec<&str> = words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    match (inherit || set, admin) {
        (true, _) => Some((Via::Has, words)),
        (false, true) => Some((Via::Assumes, words)),
        (false, false) => alters.then(|| (Via::Assumes, vec!["by CREATEROLE alone"])),
    }
}

/// PURE.
fn facts(target: &str, catalog: &Catalog, now_ms: i64) -> Reading {
    let mut reading = Reading::default();
    let full = i64::try_from(catalog.grants.len().max(catalog.roles.len()).max(catalog.members.len())).unwrap_or(MOST);
    if full >= MOST {
        reading.fault(format!("more than {MOST} roles, memberships or grants: the rest was not read"));
    }
    let Some(opened) = reading.node(NodeKind::Target, target) else { return reading };
    let mut words = words(catalog);
    let everybody = reading.node(NodeKind::Policy, &format!("{target}/{PUBLIC}"));
    if let (Some(node), Some(public)) = (&everybody, words.remove(PUBLIC)) {
        let mut fact = Fact::of(node.clone());
        fact.edge(opened.clone(), Via::Opens, public);
        reading.facts.push(fact);
    }
    let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
    for role in &catalog.roles {
        let Some(node) = reading.node(NodeKind::Identity, &format!("{target}/{}", role.name)) else { continue };
        nodes.insert(&role.name, node);
    }
    let mut groups: BTreeMap<&str, BTreeMap<&str, Option<Options>>> = BTreeMap::new();
    for Member { member, role, options } in &catalog.members {
        let known = groups.entry(member).or_default().entry(role).or_insert(*options);
        *known = known.zip(*options).map(|(one, other)| Options {
            admin: one.admin || other.admin,
            inherit: one.inherit || other.inherit,
            set: one.set || other.set,
        });
    }
    let altering = altering(catalog);
    for role in &catalog.roles {
        let Some(node) = nodes.get(role.name.as_str()) else { continue };
        let mut fact = Fact::of(node.clone());
        let over = role.until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        fact.about.off = !role.can_log_in || over;
        let mut may = role.attributes.clone();
        may.extend(words.remove(role.name.as_str()).into_iter().flatten());
        let logs_in = role.can_log_in && !over && role.connects;
        if logs_in {
            may.push(CONNECT.to_owned());
        }
        if !may.is_empty() {
            fact.edge(opened.clone(), Via::Opens, may);
        }
        for (group, options) in groups.remove(role.name.as_str()).into_iter().flatten() {
            let way = way(options, altering.contains(role.name.as_str()));
            if let (Some(to), Some((via, words))) = (nodes.get(group), way) {
                fact.edge(to.clone(), via, words);
            }
        }
        if logs_in {
            fact.edge_to(everybody.as_ref(), Via::Has);
        }
        reading.facts.push(fact);
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(member: &str, role: &str, options: Option<[bool; 3]>) -> Member {
        let options = options.map(|[admin, inherit, set]| Options { admin, inherit, set });
        Member { member: member.to_owned(), role: role.to_owned(), options }
    }

    fn catalog() -> Catalog {
        let role = |name: &str, can_log_in, attributes: &[&str]| Role {
            name: name.to_owned(),
            can_log_in,
            until_ms: None,
            attributes: attributes.iter().map(|one| (*one).to_owned()).collect(),
            connects: true,
        };
        let grant = |schema: &str, name: &str, whom: &str, what: &str| {
            (schema.to_owned(), name.to_owned(), whom.to_owned(), what.to_owned())
        };
        Catalog {
            roles: vec![role("etl", true, &[]), role("readers", false, &[]), role("admin", true, &["SUPERUSER"])],
            members: vec![member("etl", "readers", None)],
            grants: vec![
                grant("public", "orders", "readers", "SELECT"),
                grant("public", "lines", "readers", "SELECT"),
                grant("public", "orders", "etl", "INSERT"),
                grant("public", "orders", "etl", "UPDATE"),
                grant("audit", "log", PUBLIC, "INSERT"),
            ],
            relations: BTreeMap::from([("public".to_owned(), 2), ("audit".to_owned(), 1)]),
            makes: vec![("schema public".to_owned(), "etl".to_owned(), "CREATE".to_owned())],
        }
    }

    #[test]
    fn roles_reach_what_they_and_their_groups_were_granted() {
        let reading = facts("appdb", &catalog(), 0);
        assert!(reading.faults.is_empty());
        let told: Vec<String> = reading
            .facts
            .iter()
            .map(|fact| {
                let edges: Vec<String> = fact
                    .edges
                    .iter()
                    .map(|edge| format!("{} {} [{}]", edge.via.as_str(), edge.to, edge.scope.join("; ")))
                    .collect();
                format!("{}{}: {}", fact.node, if fact.about.off { " (off)" } else { "" }, edges.join(" | "))
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn a_word_says_what_a_boundary_does_not_name() {
        let said =
            scope::permissions(["relation:shop.orders:SELECT", "schema:shop:CREATE", "relation:\"My: S\".t:INSERT"]);
        let said: BTreeSet<Permission> = said.unwrap().into_iter().collect();
        let of = |word: &str| beyond(word, &said).join(" ");
        assert_eq!(of("shop.orders: INSERT, SELECT"), "relation:shop.orders:INSERT");
        assert_eq!(of("shop.orders: SELECT"), "");
        assert_eq!(of("schema shop: CREATE"), "");
        assert_eq!(of("schema other: CREATE"), "schema:other:CREATE");
        assert_eq!(of("\"My: S\".t: INSERT, SELECT"), "relation:\"My: S\".t:SELECT");
        assert_eq!(of("shop.*: SELECT"), "relation:shop.*:SELECT", "more than can be named");
        assert_eq!(
            [of("CONNECT"), of("SUPERUSER"), of("database: CREATE"), of("(and 3 more)")],
            ["", "SUPERUSER", "database:CREATE", "(and 3 more)"]
        );
    }

    /// Each by its name as long as a boundary could name them all.
    #[test]
    fn relations_are_told_together_where_they_are_too_many_to_be_named() {
        for (count, expected) in [(scope::MOST, scope::MOST), (scope::MOST + 1, 1)] {
            let grant = |no| ("shop".to_owned(), format!("t{no}"), "etl".to_owned(), "SELECT".to_owned());
            let relations = BTreeMap::from([("shop".to_owned(), i64::try_from(count).unwrap())]);
            let many = Catalog { grants: (0..count).map(grant).collect(), relations, ..Catalog::default() };
            let words = words(&many);
            assert_eq!(words["etl"].len(), expected);
            assert_eq!(words["etl"][0] == "shop.*: SELECT", expected == 1);
        }
    }

    #[test]
    fn a_membership_leads_where_its_options_let() {
        const NONE: Option<[bool; 3]> = Some([false; 3]);
        let mut later = catalog();
        let makes = ["maker", "team", "middle"].map(|name| Role {
            name: name.to_owned(),
            can_log_in: false,
            until_ms: None,
            attributes: if name == "maker" { vec!["CREATEROLE".to_owned()] } else { Vec::new() },
            connects: false,
        });
        later.roles.extend(makes);
        let lead = |later: &Catalog, whose: &str| {
            let reading = facts("appdb", later, 0);
            let fact = reading.facts.iter().find(|fact| *fact.node.name == *format!("appdb/{whose}")).unwrap();
            let roles = fact.edges.iter().filter(|edge| edge.to.kind == NodeKind::Identity);
            let told = roles.map(|edge| format!("{} {} {}", edge.via.as_str(), edge.to.name, edge.scope.join(" ")));
            told.collect::<Vec<_>>().join("; ")
        };
        for (options, told) in [
            (vec![Some([false, true, false])], "has appdb/readers INHERIT"),
            (vec![Some([false, false, true])], "has appdb/readers SET"),
            (vec![Some([true, false, false])], "assumes appdb/readers ADMIN"),
            // Two grantors, of whom each gave a part.
            (vec![Some([true, false, false]), Some([false, true, true])], "has appdb/readers ADMIN INHERIT SET"),
            (vec![NONE], ""),
        ] {
            later.members = options.into_iter().map(|one| member("etl", "readers", one)).collect();
            assert_eq!(lead(&later, "etl"), told);
        }
        // By a membership that lets do nothing, who may alter roles alters what the group administers.
        let admin = Some([true, false, false]);
        later.members = vec![
            member("maker", "team", NONE),
            member("team", "middle", NONE),
            member("middle", "readers", admin),
            member("etl", "middle", NONE),
        ];
        assert_eq!(lead(&later, "maker"), "assumes appdb/team by CREATEROLE alone");
        assert_eq!(lead(&later, "team"), "assumes appdb/middle by CREATEROLE alone");
        assert_eq!(
            (lead(&later, "middle").as_str(), lead(&later, "etl").as_str()),
            ("assumes appdb/readers ADMIN", "")
        );
    }

    #[test]
    fn what_is_cut_off_makes_it_a_part() {
        let mut many = catalog();
        let one = many.members[0].clone();
        many.members = vec![one; usize::try_from(MOST).unwrap()];
        assert_eq!(facts("appdb", &many, 0).faults.len(), 1);
    }
}
