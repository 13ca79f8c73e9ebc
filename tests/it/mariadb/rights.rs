//! A user that lacks what the other one has is not promoted.

use curfew::case::plan::Act;
use curfew::case::record::FailureKind;
use curfew::connector::Gate;

use super::life::Rotating;
use super::run;
use crate::world::unique;

#[tokio::test]
async fn what_only_the_old_user_has_is_named_by_kind() {
    let mut life = Rotating::in_mariadb(true).await;
    life.look().await;
    life.offer();
    life.act(Act::Set).await;
    assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open));
    let (thing, group, third) = (unique("thing"), unique("group"), unique("third"));
    let filled = |sql: &str| {
        sql.replace("x.", &format!("`{thing}`."))
            .replace(" g", &format!(" '{group}'"))
            .replace("third", &format!("'{third}'@'%'"))
    };
    run(&mut life.admin, format!("CREATE DATABASE `{thing}`")).await;
    for sql in
        ["CREATE TABLE x.t (a int, b int)", "CREATE PROCEDURE x.p() SELECT 1", "CREATE ROLE g", "CREATE USER third"]
    {
        run(&mut life.admin, filled(sql)).await;
    }
    // Each: what only the old user gets, what it is called, and what makes it even again, where that is another thing.
    for (only, what, even) in [
        ("GRANT FILE, RELOAD ON *.* TO {}", "(rights on all databases: 2)", ""),
        ("GRANT SELECT, INSERT ON x.* TO {}", "(grants on databases: 2)", ""),
        ("GRANT SELECT ON x.* TO {} WITH GRANT OPTION", "(grants on databases: 1)", ""),
        ("GRANT SELECT, DELETE ON x.t TO {}", "(grants on tables: 2)", "GRANT SELECT, DELETE, INSERT ON x.t TO {}"),
        ("GRANT UPDATE (a, b), INSERT (a) ON x.t TO {}", "(grants on columns: 3)", ""),
        ("GRANT EXECUTE ON PROCEDURE x.p TO {}", "(grants on routines: 1)", ""),
        ("GRANT ALTER ROUTINE ON PROCEDURE x.p TO {} WITH GRANT OPTION", "(grants on routines: 2)", ""),
        ("GRANT g TO {}", "(roles: 1)", ""),
        ("GRANT g TO {} WITH ADMIN OPTION", "(roles: 1)", ""),
        ("SET DEFAULT ROLE g FOR {}", "(attributes: 1)", ""),
        ("GRANT PROXY ON third TO {}", "(proxies: 1)", ""),
        ("ALTER USER {} PASSWORD EXPIRE INTERVAL 90 DAY", "(attributes: 1)", ""),
    ] {
        life.sql(0, &filled(only)).await;
        let (kind, note) = life.rejects(Act::Test).await;
        assert_eq!(kind, FailureKind::Refused, "{only}");
        assert!(note.ends_with(what) && !note.contains(&thing) && !note.contains(&life.user(0)), "{only}: {note}");
        life.sql(1, &filled(if even.is_empty() { only } else { even })).await;
        assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open), "{only}");
    }
    // A limit that only the new user has, or a narrower one.
    life.sql(1, "ALTER USER {} WITH MAX_STATEMENT_TIME 0.5 MAX_USER_CONNECTIONS 5").await;
    assert!(life.rejects(Act::Test).await.1.ends_with("(attributes: 2)"));
    life.sql(0, "ALTER USER {} WITH MAX_STATEMENT_TIME 0.5 MAX_USER_CONNECTIONS 6").await;
    assert!(life.rejects(Act::Test).await.1.ends_with("(attributes: 1)"));
    life.sql(0, "ALTER USER {} WITH MAX_USER_CONNECTIONS 4").await;
    assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open));
    // What everybody may is as good.
    life.sql(0, &filled("GRANT CREATE VIEW ON x.* TO {}")).await;
    assert!(life.rejects(Act::Test).await.1.ends_with("(grants on databases: 1)"));
    run(&mut life.admin, filled("GRANT CREATE VIEW ON x.* TO PUBLIC")).await;
    assert_eq!(life.gate(Act::Test).await, Ok(Gate::Open));
    run(&mut life.admin, filled("REVOKE CREATE VIEW ON x.* FROM PUBLIC")).await;
}
