//! A leaked password of a Redis user, from the scanner's report to its death, by the real binary. And nothing of it, or of
//! the one that came, is written anywhere, nor shown to who watches what Redis is told.

use secrecy::ExposeSecret as _;

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
    let (http, metrics) = (port(), port());
    let config = format!(
        r#"
journal: {{path: curfew.db}}
topics:
  curfew.findings: {{events: [finding.observed], kinds: [redis-user], strongest: contain}}
http: {{listen: "127.0.0.1:{http}", topic: curfew.findings}}
fingerprint: {{key_file: fingerprint.keys}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
realms:
  - {{name: test, mode: enforce, vault: {{address: "{vault}", token_file: curfew.token}}, allowed_prefixes: [none/]}}
targets:
  - {{name: cache, mode: enforce, redis: {{url_file: cache.urls}}}}
rotations:
  - {{name: sessions, target: cache, users: [{user}], store: {{realm: test, mount: {mount}, path: apps/sessions}}}}
inventory:
  - {{realm: test, token_file: curfew.token, mount: {mount}, paths: [apps/], every: 1s}}
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
    assert!(code == Some(0) && said.contains("cache: redis"), "{said}");
    let mut told = nodes[0].told().await;
    let mut command = curfew(home);
    command.arg("run");
    let mut running = Running::start(command, home.join("log"));
    running.says("curfew runs").await;
    let report =
        json!([{"RuleID": "generic-api-key", "StartLine": 3, "Secret": old, "File": "cache.env", "Commit": "74d5"}]);
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
    let new = stored().await;
    // What it was told ends before the test itself says a password.
    let told = told.stop().await;
    assert!(told.contains("AUTH") && told.contains("INFO"), "{told}");
    written.put("what Redis was told", told.as_bytes());
    for node in &nodes {
        assert!(node.lets_in(&user, &new).await && !node.lets_in(&user, &old).await);
        written.put("Redis's log and file of users", node.written().as_bytes());
    }
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
    let own = urls[0].split([':', '@']).nth(2).unwrap().to_owned();
    let secrets = BTreeMap::from([
        ("the old password".to_owned(), old),
        ("the new password".to_owned(), new),
        ("the login at Vault".to_owned(), login),
        ("the login at Redis".to_owned(), own),
    ]);
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(report.to_string().as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
