//! A leaked password of a static role, from the scanner's report to its death, by the real binary: learned by the
//! inventory, matched, rotated by Vault, seen refused. And nothing of it, or of the one that came, is written anywhere.

use super::leak::Leak;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_static_password_ends_dead_and_is_written_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let (user, mount) = (unique("still").replace('-', "_"), admin.database().await);
    let pool = pg.pool().await;
    pool.execute(AssertSqlSafe(format!("CREATE ROLE {user} LOGIN PASSWORD 'by-hand'"))).await.unwrap();
    let role = json!({"db_name": "pg", "username": user, "rotation_period": "24h"});
    admin.done("POST", &format!("{mount}/static-roles/service"), role).await;
    let handed_out = async || {
        let (_, body) = admin.call("GET", &format!("{mount}/static-creds/service"), Value::Null).await;
        body["data"]["password"].as_str().unwrap().to_owned()
    };
    let old = handed_out().await;
    let login = admin.curfew_token().await;
    private(home.join("curfew.token"), &login);
    private(home.join("pg.url"), &format!("{}\n", pg.url));
    let config = format!(
        r#"
realms:
  - {{name: test, mode: enforce, vault: {{address: "{vault}", token_file: curfew.token}}, allowed_prefixes: [none/]}}
targets:
  - {{name: appdb, mode: enforce, postgres: {{url_file: pg.url}}}}
rotations:
  - {{name: still, target: appdb, roles: [{user}], store: {{realm: test, mount: {mount}, static_role: service}}}}
inventory:
  - {{realm: test, token_file: curfew.token, mount: {mount}, static_roles: [service], every: 1s}}
"#,
        vault = admin.address,
    );
    let says = format!("{mount}/static-creds/service in test");
    let leak =
        Leak { kind: "postgres-role", says: &says, config, secret: &old, rule: "generic-api-key", level: "target" };
    let died = leak.dies(home).await;
    let new = handed_out().await;
    assert!(pg.login(&user, &new).await.is_ok() && pg.login(&user, &old).await.is_err());
    let written = died.written(home).await;
    let report = leak.report();
    let secrets = BTreeMap::from([
        ("the old password".to_owned(), old.clone()),
        ("the new password".to_owned(), new),
        ("the login".to_owned(), login),
    ]);
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(report.as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
