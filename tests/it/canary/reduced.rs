//! Permissions are taken from a user of IAM and given back, by the real binary. A policy is no secret, and still none of it is in a
//! log, a figure or an event; and no login is anywhere.

use super::*;
use crate::aws::{ACCOUNT, Moto, REGION};

/// Stands in the policy that goes, and nowhere else.
const MARK: &str = "CanaryInThePolicy";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_of_iam_had_is_taken_and_given_back_and_written_in_its_case_alone() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let moto = Moto::start().await;
    let victim = moto.victim().await;
    let reducer = moto.login("curfew/reducer", "reduce.json").await;
    let document = format!(
        "{{\n \"Version\": \"2012-10-17\",\n \"Statement\": [{{\"Sid\": \"{MARK}\", \"Effect\": \"Allow\", \"Action\": \"s3:*\", \
         \"Resource\": \"*\"}}]\n}}"
    );
    let put = moto.root.put_user_policy().user_name(victim.name()).policy_name("extra").policy_document(&document);
    put.send().await.unwrap();
    private(home.join("own.aws"), &moto.own().file());
    private(home.join("reduce.aws"), &reducer.file());
    let (http, metrics) = (port(), port());
    let config = format!(
        r#"
journal: {{path: curfew.db}}
topics:
  curfew.findings: {{events: [finding.observed], kinds: [aws-user], strongest: reduce}}
http: {{listen: "127.0.0.1:{http}", topic: curfew.findings}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
targets:
  - name: cloud
    mode: enforce
    aws: {{account: "{ACCOUNT}", region: {REGION}, credentials_file: own.aws, endpoint: "{endpoint}", users: []}}
reductions:
  - {{system: cloud, identities: ["ci/*"], credentials_file: reduce.aws}}
retry: {{first: 100ms, ceiling: 500ms}}
log: {{level: trace}}
"#,
        endpoint = moto.proxy.url(),
    );
    fs::write(home.join("curfew.yaml"), config).unwrap();
    let mut written = Written::default();
    let (code, said) = written.command(home, &["check"]);
    assert!(code == Some(0) && said.contains("reduces   cloud: ci/*"), "{said}");
    let mut command = curfew(home);
    command.arg("run");
    let mut running = Running::start(command, home.join("log"));
    running.says("curfew runs").await;
    let id = format!("urn:curfew:cred:aws-user:cloud:{}", victim.full);
    let takes = ["--take", "inline:extra", "--take", "action:s3:DeleteObject"];
    let order = ["reduce", &id, takes[0], takes[1], takes[2], takes[3], "--reason", "not its work"];
    let (code, said) = written.command(home, &order);
    assert_eq!(code, Some(0), "{said}");
    // The cases with their documents are shown to whoever asks for them: that is no leak.
    let mut shown = Written::default();
    let mut closed = async |state: &'static str| {
        until(state, || {
            let closed = shown.command(home, &["cases", "--closed", "--json"]).1;
            let closed: Value = serde_json::from_str(&closed).unwrap_or_default();
            let of =
                closed.as_array().and_then(|all| all.iter().find(|line| line["verdict"]["state"] == state)).cloned();
            async move { of }
        })
        .await
    };
    let case = closed("reduced").await;
    assert_eq!(case["verdict"]["taken"], 2, "{case}");
    assert_eq!(moto.policies(&victim).await, ["curfew-reduced"]);
    let number = case["case"]["id"].as_str().unwrap().to_owned();
    assert_eq!(written.command(home, &["case", &number]).0, Some(0));
    assert_eq!(written.command(home, &["rollback", &number, "--reason", "the nightly job"]).0, Some(0));
    closed("rolled_back").await;
    assert_eq!(moto.policies(&victim).await, ["extra"]);
    let found = moto.root.get_user_policy().user_name(victim.name()).policy_name("extra").send().await.unwrap();
    let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().unwrap();
    assert_eq!(text, document, "to the letter");
    let page = reqwest::get(format!("http://127.0.0.1:{metrics}/metrics")).await.unwrap();
    written.put("metrics", &page.bytes().await.unwrap());
    assert_eq!(running.end(), Some(0));
    written.put("log", running.log().as_bytes());
    let mut secrets = BTreeMap::from([
        ("the login".to_owned(), moto.own().secret.clone()),
        ("the login of reductions".to_owned(), reducer.secret.clone()),
        ("the key of the user".to_owned(), victim.key.secret.clone()),
    ]);
    let rows = rows(&home.join("curfew.db"));
    assert!(rows.windows(MARK.len()).any(|bytes| bytes == MARK.as_bytes()), "the case has it: that gives it back");
    shown.put("rows of curfew.db", &rows);
    shown.assert_clean(&Scanner::new(&secrets));
    secrets.insert("a policy's document".to_owned(), MARK.to_owned());
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(document.as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
