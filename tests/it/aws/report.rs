//! From a repository with an access key in it to its death, by the real scanner and the real binary; and what of it the
//! binary wrote on the way, asked to log all that it can.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::{Moto, policy};
use crate::canary::{Running, Scanner, Written, curfew, port, private, rows};
use crate::scanners::{git, gitleaks};
use crate::world::until_within;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_gitleaks_finds_is_dead_and_no_secret_was_written() {
    let moto = Moto::start().await;
    let victim = moto.victim().await;
    let second = moto.second_key(&victim).await;
    let reader = moto.user("curfew/reader").await;
    let may =
        moto.root.put_user_policy().user_name("reader").policy_name("own").policy_document(policy("inventory.json"));
    may.send().await.unwrap();

    // What the user may become, of which a rule names one: who else may, says a policy with a shared secret in it.
    let external = uuid::Uuid::new_v4().simple().to_string();
    let account = format!("arn:aws:iam::{}:root", super::ACCOUNT);
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": account}, "Condition": {"StringEquals": {"sts:ExternalId": external}}}]});
    let made = moto.root.create_role().role_name("deploy").assume_role_policy_document(trust.to_string());
    let role = made.send().await.unwrap().role().unwrap().arn().to_owned();
    let assumes = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Resource": role, "Condition": {"StringEquals": {"sts:ExternalId": external}}}]});
    let put = moto.root.put_user_policy().user_name(victim.name()).policy_name("assumes");
    put.policy_document(assumes.to_string()).send().await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    private(home.join("own.aws"), &moto.own().file());
    private(home.join("reader.aws"), &reader.key.file());
    let [http, metrics] = [port(), port()];
    let config = json!({
        "journal": {"path": "curfew.db"},
        "topics": {"curfew.findings": {
            "events": ["finding.observed", "finding.closed"], "kinds": ["aws-access-key"], "strongest": "revoke",
        }},
        "http": {"listen": format!("127.0.0.1:{http}"), "topic": "curfew.findings"},
        "fingerprint": {"key_file": "fingerprint.keys"},
        "metrics": {"listen": format!("127.0.0.1:{metrics}")},
        "targets": [{"name": "aws-prod", "mode": "enforce", "aws": {
            "account": super::ACCOUNT, "region": super::REGION, "credentials_file": "own.aws",
            "endpoint": moto.proxy.url(), "users": ["ci/"], "cut_roles": [role],
            "inventory": {"credentials_file": "reader.aws", "every": "1s"},
        }}],
        "policy": {"findings": [{"when": {"detector": ["aws-access-token"]}, "then": "contain"}]},
        "log": {"level": "trace"},
    });
    fs::write(home.join("curfew.yaml"), config.to_string()).unwrap();

    let repository = home.join("repository");
    fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "-q"]);
    let text = format!(
        "[default]\naws_access_key_id = \"{}\"\naws_secret_access_key = \"{}\"\n",
        victim.key.id, victim.key.secret
    );
    fs::write(repository.join("credentials.ini"), text).unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-q", "-m", "deploys by itself now"]);
    let report = home.join("report.json");
    let mut scan = std::process::Command::new(gitleaks());
    scan.args(["git", "--report-format", "json", "--exit-code", "0", "--no-banner", "--report-path"]);
    let output = scan.arg(&report).arg(&repository).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut written = Written::default();
    assert_eq!(written.command(home, &["fingerprint-key"]).0, Some(0));
    assert_eq!(written.command(home, &["check"]).0, Some(0));
    let mut command = curfew(home);
    command.arg("run");
    let mut running = Running::start(command, home.join("log"));
    running.says("curfew runs").await;
    let token = fs::read_to_string(home.join("intake.token")).unwrap();
    let url = format!("http://127.0.0.1:{http}/findings/gitleaks?repository=https://git.test/o/r");
    let sent = reqwest::Client::new().post(url).bearer_auth(token.trim()).header("content-type", "application/json");
    let answer = sent.body(fs::read(&report).unwrap()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    written.put("answer of the intake", &answer.bytes().await.unwrap());

    let credential = format!("urn:curfew:cred:aws-access-key:aws-prod:{}/{}", victim.full, victim.key.id);
    let closed = until_within(std::time::Duration::from_secs(90), "the key to be seen dead", || {
        let (code, said) = written.command(home, &["cases", "--closed", "--json"]);
        assert_eq!(code, Some(0));
        let cases: Vec<Value> = serde_json::from_str(&said).unwrap();
        let found = cases.into_iter().find(|line| line["case"]["directive"]["credential"] == json!(credential));
        async move { found.filter(|line| !line["closed_ms"].is_null()) }
    })
    .await;
    let verdict = &closed["verdict"];
    assert_eq!(
        (&verdict["state"], &verdict["level"], &verdict["by"]),
        (&json!("dead"), &json!("issuer"), &json!("curfew"))
    );
    assert!(verdict["sightings"].as_u64() >= Some(4), "{verdict}");
    assert!(verdict["residue"].as_array().unwrap().contains(&json!("disabled")), "{verdict}");
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(false));
    assert_eq!(moto.lets_in(&victim, &second.id).await, Some(true), "the user's other key");
    assert!(moto.denied(&victim).await.is_some());
    let on = moto.root.list_role_policies().role_name("deploy").send().await.unwrap();
    assert_eq!(on.policy_names(), [format!("curfew-sessions-{}", victim.key.id)]);
    assert_eq!(verdict["residue"], json!(["disabled"]), "all that it opened is denied");
    let (code, shown) = written.command(home, &["case", closed["case"]["id"].as_str().unwrap()]);
    assert_eq!(code, Some(0));
    let line = shown.lines().find(|line| line.starts_with("derived ")).unwrap_or_else(|| panic!("{shown}"));
    for said in
        [&*role, "its last session is over at", "others that may assume it: at least 1", "denied what was opened"]
    {
        assert!(line.contains(said), "{line}");
    }
    let of_victim = |(act, of): &(String, String)| act == "PutRolePolicy" || of.starts_with(victim.name());
    assert!(moto.proxy.changes().iter().all(of_victim), "{:?}", moto.proxy.changes());

    let page = reqwest::get(format!("http://127.0.0.1:{metrics}/metrics")).await.unwrap();
    written.put("metrics", &page.bytes().await.unwrap());
    assert_eq!(running.end(), Some(0));
    written.put("rows of curfew.db", &rows(&home.join("curfew.db")));
    let log = running.log();
    let cut = log.lines().find(|line| line.contains("a role's sessions are denied")).expect("it is said");
    assert!(cut.contains(&role) && cut.contains("at least 1"), "{cut}");
    written.put("log", log.as_bytes());
    let secrets = [
        ("the leaked secret", &victim.key.secret),
        ("the other key's secret", &second.secret),
        ("Curfew's own secret", &moto.own().secret),
        ("the inventory's secret", &reader.key.secret),
        ("what a trust policy shares", &external),
    ];
    let secrets: BTreeMap<String, String> = secrets.map(|(name, secret)| (name.to_owned(), secret.clone())).into();
    // The control: the scanner of secrets finds what the repository holds.
    let kept = fs::read(repository.join("credentials.ini")).unwrap();
    assert_eq!(Scanner::new(&secrets).names(&kept).len(), 1);
    written.assert_clean(&Scanner::new(&secrets));
}
