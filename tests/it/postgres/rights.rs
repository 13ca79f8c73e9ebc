//! A user that lacks what the other one has is not promoted.

use curfew::case::plan::Act;
use curfew::case::record::FailureKind;
use curfew::connector::Gate;

use super::shelf::Life;
use super::{quoted, run};
use crate::world::unique;

/// A pair of which the second user has a candidate.
async fn pair() -> Life {
    let mut life = Life::of(true).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open));
    life
}

#[tokio::test]
async fn what_only_the_old_user_has_is_named_by_kind() {
    let mut life = pair().await;
    let thing = quoted(&unique("thing"));
    let group = quoted(&unique("group"));
    for sql in ["CREATE SCHEMA x", "CREATE TABLE x.t (a int, b int)", "CREATE ROLE g", "CREATE TYPE x.e AS ENUM ()"] {
        run(&mut life.admin, sql.replace(" x", &format!(" {thing}")).replace(" g", &format!(" {group}"))).await;
    }
    run(&mut life.admin, format!("CREATE FUNCTION {thing}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")).await;
    // Each: what only the old user gets, what it is called, and what makes it even again.
    for (only, what, even) in [
        ("GRANT SELECT, INSERT ON x.t TO {}", "(grants on tables: 2)", "GRANT SELECT, INSERT, DELETE ON x.t TO {}"),
        ("GRANT UPDATE (a) ON x.t TO {}", "(grants on columns: 1)", "GRANT UPDATE ON x.t TO {}"),
        (
            "GRANT UPDATE (b) ON x.t TO {} WITH GRANT OPTION",
            "(grants on columns: 1)",
            "GRANT UPDATE ON x.t TO {} WITH GRANT OPTION",
        ),
        ("GRANT USAGE ON SCHEMA x TO {}", "(grants on schemas: 1)", "GRANT USAGE ON SCHEMA x TO public"),
        (
            "GRANT TEMP ON DATABASE postgres TO {} WITH GRANT OPTION",
            "(grants on databases: 1)",
            "GRANT TEMP ON DATABASE postgres TO {} WITH GRANT OPTION",
        ),
        (
            "GRANT ALL ON TYPE x.e TO {} WITH GRANT OPTION",
            "(grants on types: 1)",
            "GRANT ALL ON TYPE x.e TO {} WITH GRANT OPTION",
        ),
        (
            "GRANT ALL ON FUNCTION x.f() TO {} WITH GRANT OPTION",
            "(grants on functions: 1)",
            "GRANT ALL ON FUNCTION x.f() TO {} WITH GRANT OPTION",
        ),
        (
            "GRANT SET ON PARAMETER log_min_duration_statement TO {}",
            "(grants on server settings: 1)",
            "GRANT SET ON PARAMETER log_min_duration_statement TO {}",
        ),
        (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA x GRANT SELECT ON TABLES TO {}",
            "(grants on default privileges: 1)",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA x GRANT SELECT ON TABLES TO {}",
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT SELECT ON TABLES TO g",
            "(default privileges: 1)",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT SELECT ON TABLES TO g",
        ),
        ("CREATE POLICY p ON x.t TO {} USING (true)", "(row policies: 1)", "ALTER POLICY p ON x.t TO public"),
        ("GRANT g TO {}", "(memberships: 1)", "GRANT g TO {}"),
        ("GRANT g TO {} WITH ADMIN OPTION", "(memberships: 1)", "GRANT g TO {} WITH ADMIN OPTION"),
        ("ALTER ROLE {} CREATEDB CONNECTION LIMIT 5", "(attributes: 1)", "ALTER ROLE {} CREATEDB CONNECTION LIMIT 5"),
        ("ALTER ROLE {} CONNECTION LIMIT 6", "(attributes: 1)", "ALTER ROLE {} CONNECTION LIMIT -1"),
        ("ALTER ROLE {} BYPASSRLS REPLICATION", "(attributes: 2)", "ALTER ROLE {} BYPASSRLS REPLICATION"),
        ("ALTER ROLE {} SET statement_timeout = '5s'", "(settings: 1)", "ALTER ROLE {} SET statement_timeout = '5s'"),
        (
            "ALTER ROLE {} IN DATABASE postgres SET role = g",
            "(settings: 1)",
            "ALTER ROLE {} IN DATABASE postgres SET role = g",
        ),
    ] {
        let filled = |sql: &str| {
            sql.replace("x.", &format!("{thing}."))
                .replace(" x ", &format!(" {thing} "))
                .replace(" g", &format!(" {group}"))
        };
        life.sql(0, &filled(only)).await;
        let (kind, note) = life.rejects(Act::Test).await;
        assert_eq!(kind, FailureKind::Refused, "{only}");
        assert!(note.ends_with(what) && !note.contains(&thing) && !note.contains(&life.user(0)), "{only}: {note}");
        life.sql(1, &filled(even)).await;
        assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open), "{even}");
    }
    // A setting that only the new user has changes what it does as well; an earlier end of its validity, too.
    life.sql(1, "ALTER ROLE {} SET work_mem = '64kB'").await;
    assert!(life.rejects(Act::Test).await.1.ends_with("(settings: 1)"));
    life.sql(1, "ALTER ROLE {} RESET work_mem").await;
    life.sql(1, "ALTER ROLE {} VALID UNTIL '2100-01-01'").await;
    assert!(life.rejects(Act::Test).await.1.ends_with("(attributes: 1)"));
}

#[tokio::test]
async fn what_the_old_user_made_is_reached_by_its_members_only() {
    let mut life = pair().await;
    let old = life.user(0);
    let schema = quoted(&unique("own"));
    run(&mut life.admin, format!("CREATE SCHEMA {schema} AUTHORIZATION {}", quoted(&old))).await;
    // Of no session's own: temporary tables go with it.
    let mut session = life.login(0, &life.old).await.unwrap();
    run(&mut session, "CREATE TEMP TABLE mine (a int)".to_owned()).await;
    run(&mut session, format!("CREATE TABLE {schema}.t (a int)")).await;
    let (kind, note) = life.rejects(Act::Test).await;
    assert_eq!(kind, FailureKind::Refused);
    assert!(note.ends_with("(owned objects: 2)"), "{note}");
    life.sql(1, &format!("GRANT {} TO {{}}", quoted(&old))).await;
    assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open));
    // A member that must SET ROLE first is not let in as it is.
    life.sql(1, "ALTER ROLE {} NOINHERIT").await;
    assert!(life.rejects(Act::Test).await.1.ends_with("(attributes: 1, owned objects: 2)"));
}
