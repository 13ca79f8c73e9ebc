//! A leaked password of a static role, from the scanner's report to its death, by the real binary: learned by the
//! inventory, matched, rotated by Vault, seen refused. And nothing of it, or of the one that came, is written anywhere.

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
    let (http, metrics) = (port(), port());
    let config = format!(
        r#"
journal: {{path: curfew.db}}
topics:
  curfew.findings: {{events: [finding.observed], kinds: [postgres-role], strongest: contain}}
http: {{listen: "127.0.0.1:{http}", topic: curfew.findings}}
fingerprint: {{key_file: fingerprint.keys}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
realms:
  - {{name: test, mode: enforce, vault: {{address: "{vault}", token_file: curfew.token}}, allowed_prefixes: [none/]}}
targets:
  - {{name: appdb, mode: enforce, postgres: {{url_file: pg.url}}}}
rotations:
  - {{name: still, target: appdb, roles: [{user}], store: {{realm: test, mount: {mount}, static_role: service}}}}
inventory:
  - {{realm: test, token_file: curfew.token, mount: {mount}, static_roles: [service], every: 1s}}
policy: {{findings: [{{then: contain}}]}}
retry: {{first: 100ms, ceiling: 500ms}}
log: {{level: trace}}
"#,
        vault = admin.address,
    );
    fs::write(home.join("curfew.yaml"), config).unwrap();
    let mut written = Written::default();
    assert_eq!(written.command(home, &["fingerprint-key"]).0, Some(0));
    let (code, said) = written.command(home, &["check"]);
    assert!(code == Some(0) && said.contains(&format!("{mount}/static-creds/service in test")), "{said}");
    let mut command = curfew(home);
    command.arg("run");
    let mut running = Running::start(command, home.join("log"));
    running.says("curfew runs").await;
    // The report may come before the inventory has read: then it waits for it.
    let report = json!([{"RuleID": "generic-api-key", "StartLine": 3, "Secret": old, "File": "config/app.env", "Commit": "74d5"}]);
    fs::write(home.join("report.json"), report.to_string()).unwrap();
    let publish = ["publish", "finding", "--from", "gitleaks", "--repository", "https://git.test/o/r", "report.json"];
    assert_eq!(written.command(home, &publish).0, Some(0));
    let case = until("the old one to be seen dead", || {
        let closed = written.command(home, &["cases", "--closed", "--json"]).1;
        let closed: Value = serde_json::from_str(&closed).unwrap_or_default();
        let line = closed[0].clone();
        async move { (line["verdict"]["state"] == "dead").then_some(line) }
    })
    .await;
    assert_eq!(case["verdict"]["level"], "target", "{case}");
    let new = handed_out().await;
    assert!(pg.login(&user, &new).await.is_ok() && pg.login(&user, &old).await.is_err());
    let id = case["case"]["id"].as_str().unwrap();
    for args in [&["case", id][..], &["case", id, "--json"], &["cases", "--closed"], &["findings", "--json"]] {
        assert_eq!(written.command(home, args).0, Some(0), "{args:?}");
    }
    let page = reqwest::get(format!("http://127.0.0.1:{metrics}/metrics")).await.unwrap();
    written.put("metrics", &page.bytes().await.unwrap());
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("curfew.db{suffix}");
        written.put(&file, &fs::read(home.join(&file)).unwrap());
    }
    assert_eq!(running.end(), Some(0));
    written.put("rows of curfew.db", &rows(&home.join("curfew.db")));
    written.put("log", running.log().as_bytes());
    let secrets = BTreeMap::from([
        ("the old password".to_owned(), old),
        ("the new password".to_owned(), new),
        ("the login".to_owned(), login),
    ]);
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(report.to_string().as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
