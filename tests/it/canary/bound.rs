//! Metadata holds what somebody wrote into it. Of what no rule reads nothing goes on, nor does any token.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn of_metadata_only_what_a_rule_reads_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let admin = Admin::shared();
    let (approle, suite) = (admin.approle().await, unique("suite"));
    let note = made_up("c4nary/+");
    let meta = json!({"run_id": "1", "suite": suite, "note": note, "run": format!("/elsewhere:{note}")});
    let (secret_accessor, secret_id) = admin.secret_id(&approle, meta.clone()).await;
    let (by_login, login_accessor) = admin.approle_login(&approle, &secret_id).await;
    let (accessor, by_hand) = admin.token(json!({"meta": meta})).await;
    private(home.join("curfew.token"), &admin.curfew_token().await);
    let own = admin.policy("bind", &[("auth/approle/role/ci-runner", &format!("auth/{approle}/role/ci"))]).await;
    let own = admin.token_of(&[&own]).await;
    private(home.join("bind.token"), &own);
    let metrics = port();
    let config = format!(
        r#"
journal: {{path: curfew.db}}
topics: {{curfew.tasks: {{strongest: revoke}}}}
http: {{listen: "127.0.0.1:{http}"}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
realms:
  - name: test
    mode: enforce
    vault: {{address: "{vault}", token_file: curfew.token}}
    allowed_prefixes: ["token:"]
    secret_id_roles: ["{approle}/ci"]
bindings:
  - realm: test
    token_file: bind.token
    every: 1s
    per_second: 1000
    strongest: revoke
    rules:
      - {{tokens_of: auth/token/create, trust_creators: true, when: {{suite: {suite}}}, run: "/canary:{{run_id}}"}}
      - {{tokens_of: auth/{approle}/login, run: "/canary:{{run_id}}"}}
      - {{secret_ids_of: {approle}/ci, run: "/canary:{{run_id}}"}}
      - {{tokens_of: auth/{approle}/login, run: "{{run}}", sources: [/canary]}}
retry: {{first: 100ms, ceiling: 500ms}}
log: {{level: trace}}
"#,
        vault = admin.address,
        http = port(),
    );
    fs::write(home.join("curfew.yaml"), config).unwrap();
    let mut written = Written::default();
    let (code, said) = written.command(home, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    let mut command = curfew(home);
    command.arg("run");
    let mut running = Running::start(command, home.join("log"));
    running.says("curfew runs").await;
    until("all three to be bound", || {
        let lines: Value = serde_json::from_str(&written.command(home, &["tasks", "--json"]).1).unwrap_or_default();
        let held = lines[0]["holds"].as_array().map_or(0, Vec::len);
        async move { (held == 3).then_some(()) }
    })
    .await;
    let end = json!({"specversion": "1.0", "type": "dev.curfew.task.ended.v1", "source": "/canary", "id": "e",
        "datacontenttype": "application/json", "data": {"run_id": "1"}});
    fs::write(home.join("end.json"), end.to_string()).unwrap();
    assert_eq!(written.command(home, &["publish", "end.json"]).0, Some(0));
    until("all three to be seen dead", || {
        let closed = written.command(home, &["cases", "--closed", "--json"]).1;
        let closed: Value = serde_json::from_str(&closed).unwrap_or_default();
        let dead = closed.as_array().map_or(0, |all| all.iter().filter(|l| l["verdict"]["state"] == "dead").count());
        async move { (dead == 3).then_some(()) }
    })
    .await;
    for token in [&by_login, &by_hand] {
        assert!(!admin.token_works(token).await);
    }
    for args in [&["cases", "--closed"][..], &["tasks", "--ended"], &["tasks", "--unbound", "--json"]] {
        let (code, said) = written.command(home, args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    let page = reqwest::get(format!("http://127.0.0.1:{metrics}/metrics")).await.unwrap();
    written.put("metrics", &page.bytes().await.unwrap());
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("curfew.db{suffix}");
        written.put(&file, &fs::read(home.join(&file)).unwrap());
    }
    assert_eq!(running.end(), Some(0));
    let rows = rows(&home.join("curfew.db"));
    let seen = String::from_utf8_lossy(&rows);
    assert!([&secret_accessor, &login_accessor, &accessor].iter().all(|id| seen.contains(id.as_str())), "the control");
    written.put("rows of curfew.db", &rows);
    written.put("log", running.log().as_bytes());
    let secrets = BTreeMap::from([
        ("a note in metadata".to_owned(), note),
        ("a token by login".to_owned(), by_login),
        ("a token by hand".to_owned(), by_hand),
        ("a secret_id".to_owned(), secret_id),
        ("the login of bindings".to_owned(), own),
    ]);
    written.assert_clean(&Scanner::new(&secrets));
}
