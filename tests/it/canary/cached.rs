//! A leaked password of a Redis user, from the scanner's report to its death, by the real binary. And nothing of it, or of
//! the one that came, is written anywhere, nor shown to who watches what Redis is told.

use secrecy::ExposeSecret as _;

use super::leak::Leak;
use super::*;
use crate::acl::Node;
use crate::rotation::kv_mount;

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_redis_password_ends_dead_and_is_written_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let admin = Admin::shared();
    let nodes = [Node::start().await, Node::start().await];
    let (user, mount, old) = (unique("sessions"), unique("kv"), made_up("old-"));
    kv_mount(&admin, &mount).await;
    for node in &nodes {
        node.done(&format!("ACL SETUSER {user} on >{old} ~* +@read")).await;
        node.done("ACL SAVE").await;
    }
    admin.done("POST", &format!("{mount}/data/apps/sessions"), json!({"data": {"password": old}})).await;
    let stored = async || {
        let (_, body) = admin.call("GET", &format!("{mount}/data/apps/sessions"), Value::Null).await;
        body["data"]["data"]["password"].as_str().unwrap().to_owned()
    };
    let login = admin.curfew_token().await;
    private(home.join("curfew.token"), &login);
    let urls: Vec<String> = nodes.iter().map(|node| node.url().expose_secret().to_owned()).collect();
    private(home.join("cache.urls"), &urls.join("\n"));
    let config = format!(
        r#"
realms:
  - {{name: test, mode: enforce, vault: {{address: "{vault}", token_file: curfew.token}}, allowed_prefixes: [none/]}}
targets:
  - {{name: cache, mode: enforce, redis: {{url_file: cache.urls}}}}
rotations:
  - {{name: sessions, target: cache, users: [{user}], store: {{realm: test, mount: {mount}, path: apps/sessions}}}}
inventory:
  - {{realm: test, token_file: curfew.token, mount: {mount}, paths: [apps/], every: 1s}}
"#,
        vault = admin.address,
    );
    let leak = Leak {
        kind: "redis-user",
        says: "cache: redis",
        config,
        secret: &old,
        rule: "generic-api-key",
        level: "target",
    };
    let mut told = nodes[0].told().await;
    let died = leak.dies(home).await;
    let new = stored().await;
    // What it was told ends before the test itself says a password.
    let told = told.stop().await;
    assert!(told.contains("AUTH") && told.contains("INFO"), "{told}");
    let mut written = died.written(home).await;
    written.put("what Redis was told", told.as_bytes());
    for node in &nodes {
        assert!(node.lets_in(&user, &new).await && !node.lets_in(&user, &old).await);
        written.put("Redis's log and file of users", node.written().as_bytes());
    }
    let report = leak.report();
    let own = urls[0].split([':', '@']).nth(2).unwrap().to_owned();
    let secrets = BTreeMap::from([
        ("the old password".to_owned(), old.clone()),
        ("the new password".to_owned(), new),
        ("the login at Vault".to_owned(), login),
        ("the login at Redis".to_owned(), own),
    ]);
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(report.as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
