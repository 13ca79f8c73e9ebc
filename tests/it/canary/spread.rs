//! A password that is read at two places, and at a third that nobody named: found by the inventory, rotated by hand, told
//! to a webhook, by the real binary. And neither value is written anywhere but at the two places.

use super::*;
use crate::rotation::spread::Hook;

#[tokio::test(flavor = "multi_thread")]
async fn a_password_at_several_places_is_rotated_and_written_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let (admin, pg, hook) = (Admin::shared(), Postgres::shared(), Hook::start().await);
    let (user, mount, old) = (unique("many").replace('-', "_"), unique("kv"), made_up("old-"));
    let pool = pg.pool().await;
    pool.execute(AssertSqlSafe(format!("CREATE ROLE {user} LOGIN PASSWORD '{old}'"))).await.unwrap();
    crate::rotation::kv_mount(&admin, &mount).await;
    for place in ["first", "second", "unnamed"] {
        let secret = json!({"data": {"password": old, "note": place}});
        admin.done("POST", &format!("{mount}/data/apps/{place}"), secret).await;
    }
    let stored = async |place: &str| {
        let (_, body) = admin.call("GET", &format!("{mount}/data/apps/{place}"), Value::Null).await;
        assert_eq!(body["data"]["data"]["note"], place, "other fields stay");
        body["data"]["data"]["password"].as_str().unwrap().to_owned()
    };
    let login = admin.curfew_token().await;
    private(home.join("curfew.token"), &login);
    private(home.join("pg.url"), &format!("{}\n", pg.url));
    let (http, metrics) = (port(), port());
    let in_url = made_up("in-url-");
    let url = format!("{}?key={in_url}", hook.url());
    let config = format!(
        r#"
journal: {{path: curfew.db}}
http: {{listen: "127.0.0.1:{http}", topic: curfew.tasks}}
fingerprint: {{key_file: fingerprint.keys}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
realms:
  - {{name: test, mode: enforce, vault: {{address: "{vault}", token_file: curfew.token}}, allowed_prefixes: [none/]}}
targets:
  - {{name: appdb, mode: enforce, postgres: {{url_file: pg.url}}}}
webhooks:
  - {{name: deploy, url: "{url}", token_file: {token}}}
rotations:
  - name: many
    target: appdb
    roles: [{user}]
    store: {{realm: test, mount: {mount}, path: apps/first}}
    copies: [{{realm: test, mount: {mount}, path: apps/second}}]
    webhooks: [deploy]
inventory:
  - {{realm: test, token_file: curfew.token, mount: {mount}, paths: [apps/], fields: [password], every: 1s}}
retry: {{first: 100ms, ceiling: 500ms}}
log: {{level: trace}}
"#,
        vault = admin.address,
        url = url,
        token = hook.token_file().display(),
    );
    fs::write(home.join("curfew.yaml"), config).unwrap();
    let mut written = Written::default();
    assert_eq!(written.command(home, &["fingerprint-key"]).0, Some(0));
    let (code, said) = written.command(home, &["check"]);
    assert!(code == Some(0), "{said}");
    assert!(
        said.contains(&format!("stored at {mount}/apps/first in test, copied to {mount}/apps/second in test")),
        "{said}"
    );
    assert!(said.contains("tells deploy") && !said.contains(hook.url()), "a URL may be a secret: {said}");
    let mut command = curfew(home);
    command.arg("run");
    let mut running = Running::start(command, home.join("log"));
    running.says("curfew runs").await;
    let page = async || {
        let page = reqwest::get(format!("http://127.0.0.1:{metrics}/metrics")).await.unwrap();
        String::from_utf8(page.bytes().await.unwrap().to_vec()).unwrap()
    };
    until("the inventory to find the third place", || async {
        page().await.contains("curfew_undeclared_copies 1").then_some(())
    })
    .await;
    assert!(running.log().contains(&format!("test/{mount}/apps/unnamed#password")), "the log names it");
    let (code, said) = written.command(home, &["rotate", "many", "--reason", "the yearly exercise"]);
    assert_eq!(code, Some(0), "{said}");
    let case = until("the old one to be seen dead", || {
        let closed = written.command(home, &["cases", "--closed", "--json"]).1;
        let closed: Value = serde_json::from_str(&closed).unwrap_or_default();
        let line = closed[0].clone();
        async move { (line["verdict"]["state"] == "dead").then_some(line) }
    })
    .await;
    assert_eq!((&case["verdict"]["level"], &case["verdict"]["residue"]), (&"target".into(), &json!([])), "{case}");
    let new = stored("first").await;
    assert_eq!(stored("second").await, new);
    assert_eq!(stored("unnamed").await, old, "nobody named it");
    assert!(pg.login(&user, &new).await.is_ok() && pg.login(&user, &old).await.is_err());
    let [(_, told)] = &hook.calls()[..] else { panic!("{:?}", hook.calls()) };
    assert_eq!(told["data"]["new"]["version"], 2, "{told}");
    let id = case["case"]["id"].as_str().unwrap();
    let (code, shown) = written.command(home, &["case", id]);
    assert!(
        code == Some(0)
            && shown.contains(&format!("copy vault-kv@test {mount}/apps/second#password"))
            && shown.contains("notify webhook@deploy"),
        "{shown}"
    );
    written.put("what the webhook heard", told.to_string().as_bytes());
    written.put("metrics", page().await.as_bytes());
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("curfew.db{suffix}");
        written.put(&file, &fs::read(home.join(&file)).unwrap());
    }
    assert_eq!(running.end(), Some(0));
    written.put("rows of curfew.db", &rows(&home.join("curfew.db")));
    written.put("log", running.log().as_bytes());
    let token = fs::read_to_string(hook.token_file()).unwrap();
    let secrets = BTreeMap::from([
        ("the old password".to_owned(), old),
        ("the new password".to_owned(), new),
        ("the login".to_owned(), login),
        ("the webhook's token".to_owned(), token),
        ("what only the webhook's URL has".to_owned(), in_url),
    ]);
    written.assert_clean(&Scanner::new(&secrets));
}
