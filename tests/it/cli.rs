//! The command line as a user meets it: help, exit codes, what is said and what is never said.

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

/// The binary, in `folder`, with no environment but what it needs.
fn curfew(folder: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
    command.current_dir(folder).env_clear().env("HOME", folder).env("COLUMNS", "110").env("USER", "ana");
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    curfew(folder).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        "",
        "run",
        "exec",
        "publish",
        "publish finding",
        "fingerprint-key",
        "canary",
        "reach",
        "tasks",
        "cases",
        "case",
        "freeze",
        "release",
        "resume",
        "abandon",
        "retry-now",
        "rotate",
        "revoke",
        "audit overrun",
        "audit standing",
        "check",
        "position set",
        "position drop",
        "completions",
    ] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = run(folder.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{command}");
        insta::assert_snapshot!(format!("help_{}", command.replace(' ', "_")), text(&output.stdout));
    }
}

#[test]
fn exit_codes_are_what_the_help_says() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("wrong.yaml"), "jurnal: {path: x}\n").unwrap();
    for (args, code) in [
        (&["check"][..], 0),
        (&["completions", "bash"], 0),
        (&["nonsense"], 2),
        (&["abandon", "0192f1c4"], 2),
        (&["--config", "wrong.yaml", "check"], 64),
        (&["--config", "missing.yaml", "cases"], 64),
        (&["--config", "wrong.yaml", "run"], 64),
        (&["revoke", "not-a-urn", "--reason", "x"], 65),
        (&["rotate", "-pasted", "--reason", "x"], 65),
        (&["rotate", "urn:curfew:cred:vault-lease:prod:database/creds/app/x1", "--reason", "x"], 65),
        (&["canary"], 64),
        (&["cases"], 69),
        (&["case", "0192f1c4"], 69),
    ] {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn check_names_the_line_and_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = "journal: {path: x.db}\nlimits:\n  concurency: 4\nkafka:\n  properties: {sasl.password: hunter2}\n";
    fs::write(folder.path().join("curfew.yaml"), file).unwrap();
    let output = run(folder.path(), &["check"]);
    insta::assert_snapshot!("check_typo", text(&output.stderr));
    let output = run(folder.path(), &["check", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["problems"][0]["line"], 3);
    assert_eq!(said["problems"][0]["help"], "did you mean `concurrency`?");
    assert_eq!(output.status.code(), Some(64));
    assert!(!text(&output.stderr).contains("hunter2"));
}

#[test]
fn a_freeze_holds_without_process_and_without_journal() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["freeze", "--hard", "--reason", "test"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let note = curfew::ops::freeze_file::read(&folder.path().join("curfew.db.freeze")).unwrap();
    assert_eq!((note.how, note.by.as_str(), note.reason.as_str()), (curfew::guard::Freeze::Hard, "ana", "test"));
    let output = run(folder.path(), &["release"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(curfew::ops::freeze_file::read(&folder.path().join("curfew.db.freeze")), None);
}

#[test]
fn a_freeze_is_in_the_journal_too_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("curfew.db");
    drop(curfew::journal::sqlite::Sqlite::open(&journal, curfew::journal::sqlite::Settings::default()).unwrap());
    let output = run(folder.path(), &["freeze", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["frozen"], "soft", "{said}");
    assert_eq!(said["by_file_only"], Value::Null, "{said}");
    let output = run(folder.path(), &["freeze", "--hard"]);
    assert_eq!(text(&output.stdout), "frozen; nothing is half-made: there is nothing to mend\n");
    assert_eq!(run(folder.path(), &["release"]).status.code(), Some(0));
    let output = run(folder.path(), &["cases"]);
    assert_eq!(text(&output.stdout), "no cases are open\n");
    let output = run(folder.path(), &["case", "0192f1c4"]);
    assert_eq!(
        (output.status.code(), text(&output.stderr).as_str()),
        (Some(1), "curfew: no case begins with 0192f1c4\n")
    );
}

#[tokio::test]
async fn a_cluster_is_forgotten_that_is_read_no_more() {
    use curfew::journal::Journal as _;
    use curfew::journal::sqlite::{Settings, Sqlite};
    let folder = tempfile::tempdir().unwrap();
    let open = || Sqlite::open(&folder.path().join("curfew.db"), Settings::default()).unwrap();
    let journal = open();
    journal.caught_up("old", "curfew.tasks", 0, 7).await.unwrap();
    journal.caught_up("now", "curfew.tasks", 0, crate::stage::now_ms()).await.unwrap();
    drop(journal);
    let drop_of = |cluster: &str| run(folder.path(), &["position", "drop", "--cluster", cluster]);
    for (cluster, why) in [("odl", "known: \"now\", \"old\""), ("now", "was read up to ")] {
        let output = drop_of(cluster);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let output = drop_of("old");
    assert_eq!(text(&output.stdout), "old holds nothing back any more\n", "{}", text(&output.stderr));
    let known: Vec<String> = open().clusters().await.unwrap().into_iter().map(|cluster| cluster.id).collect();
    assert_eq!(known, ["now"]);
}

#[test]
fn publish_refuses_what_is_wrong_without_quoting_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = "{\"specversion\":\"1.0\",\"hunter2\":1}\n{\"a\": hunter2}\n";
    fs::write(folder.path().join("events.jsonl"), file).unwrap();
    let output = run(folder.path(), &["publish", "events.jsonl"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{said}");
    assert!(said.contains("events.jsonl:1: ") && said.contains("events.jsonl:2: not JSON"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let output = curfew(folder.path()).args(["publish", "-"]).write_stdin("").output().unwrap();
    assert_eq!(output.status.code(), Some(65));
}

const LEAK: &str = r#"[{"RuleID":"generic-api-key","StartLine":1,"Secret":"hunter2-hunter2","File":"a","Match":"hunter2-"},
  {"Secret": "hunter2-hunter2"}]"#;

#[test]
fn findings_need_a_repository_and_a_key_and_are_never_quoted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("report.json"), LEAK).unwrap();
    let finding = |more: &[&str]| {
        let output = run(folder.path(), &[&["publish", "finding", "--from", "gitleaks", "report.json"], more].concat());
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("hunter2"), "{said}");
        (output.status.code(), said)
    };
    let (code, said) = finding(&["--repository", "o/r"]);
    assert!(code == Some(2) && said.contains("`curfew fingerprint-key FILE` makes one"), "{said}");
    let (code, said) = finding(&["--dry-run"]);
    assert!(code == Some(2) && said.contains("--repository"), "{said}");
    let (code, said) = finding(&["--dry-run", "--repository", "o/r"]);
    assert!(code == Some(65) && said.contains("1 findings, 1 of them without a fingerprint"), "{said}");
    assert!(said.contains("report.json:2: not a finding of Gitleaks v8"), "{said}");

    let made = run(folder.path(), &["fingerprint-key", "keys", "--json"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let keys = ["--repository", "o/r", "--fingerprint-key", "keys", "--dry-run", "--json"];
    let (code, said) = finding(&keys);
    let said: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((code, &said["events"], &said["without_fingerprint"]), (Some(65), &1.into(), &0.into()), "{said}");
    fs::write(folder.path().join("open"), "k1 hunter2").unwrap();
    let (code, said) = finding(&["--repository", "o/r", "--fingerprint-key", "open", "--dry-run"]);
    assert!(code == Some(69) && said.contains("chmod 600"), "{said}");

    let newer = text(&run(folder.path(), &["fingerprint-key", "keys"]).stdout);
    let first = made["key"].as_str().unwrap();
    assert!(newer.contains(&format!("{first} stays live")), "{newer}");
    assert_eq!(run(folder.path(), &["fingerprint-key", "keys"]).status.code(), Some(65), "two are live");
    let newest = text(&run(folder.path(), &["fingerprint-key", "keys", "--drop-oldest"]).stdout);
    assert!(newest.contains(&format!("{first} is gone")), "{newest}");
    assert_eq!(run(folder.path(), &["fingerprint-key"]).status.code(), Some(2), "which file?");

    let task =
        r#"{"specversion":"1.0","type":"dev.curfew.task.heartbeat.v1","source":"/s","id":"1","data":{"run_id":"r"}}"#;
    let finding = ["publish", "finding", "--from", "canonical", "--dry-run"];
    let output = curfew(folder.path()).args(finding).write_stdin(task).output().unwrap();
    assert!(text(&output.stderr).contains("not one of the types that belong here"), "{}", text(&output.stderr));
    let observed =
        task.replace("task.heartbeat", "finding.observed").replace("\"run_id\"", "\"finding_key\":\"k\",\"detector\"");
    let output = curfew(folder.path()).args(finding).write_stdin(observed).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// A running `curfew run` over HTTP only; killed with the test.
struct Running {
    child: std::process::Child,
}

impl Running {
    fn start(folder: &Path) -> Self {
        let (http, metrics) = (crate::canary::port(), crate::canary::port());
        let file = format!("http: {{listen: \"127.0.0.1:{http}\"}}\nmetrics: {{listen: \"127.0.0.1:{metrics}\"}}\n");
        fs::write(folder.join("curfew.yaml"), file).unwrap();
        let child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("curfew"))
            .current_dir(folder)
            .env_clear()
            .args(["run", "--log-json"])
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn a_process_is_fed_asked_frozen_hung_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut running = Running::start(folder);
    crate::world::until("intake over HTTP", || async {
        fs::read_to_string(folder.join("log")).is_ok_and(|log| log.contains("curfew runs")).then_some(())
    })
    .await;

    // A held revocation: nothing serves the realm.
    let urn = "urn:curfew:cred:vault-lease:prod:database/creds/app/x1";
    let started = serde_json::json!({
        "specversion": "1.0", "id": "1", "source": "/ci", "type": "dev.curfew.operator.revoke.v1", "data": {}
    });
    let output = curfew(folder).args(["publish"]).write_stdin(started.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(65), "only Curfew says this: {}", text(&output.stderr));
    let output = run(folder, &["revoke", urn, "--reason", "seen in a log", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let case = said["cases"][0].as_str().unwrap().to_owned();
    let cases: Value = serde_json::from_slice(&run(folder, &["cases", "--json"]).stdout).unwrap();
    assert_eq!(cases[0]["case"]["directive"]["trigger"], "operator", "{cases}");
    let shown = text(&run(folder, &["case", &case[..8]]).stdout);
    assert!(shown.contains(urn) && shown.contains("operator.revoke"), "{shown}");
    let output = run(folder, &["abandon", &case[..13], "--reason", "test"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&run(folder, &["cases", "--state", "abandoned"]).stdout).contains(urn));

    // A second process is refused, and a hung one is frozen by the file.
    assert_eq!(run(folder, &["run"]).status.code(), Some(69));
    running.signal("STOP");
    let said: Value = serde_json::from_slice(&run(folder, &["freeze", "--json"]).stdout).unwrap();
    assert_eq!(said["by_file_only"], true, "{said}");
    running.signal("CONT");
    assert_eq!(run(folder, &["release"]).status.code(), Some(0));

    running.signal("TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(0), "{}", fs::read_to_string(folder.join("log")).unwrap());
    assert!(!folder.join("curfew.sock").exists());
    let log = fs::metadata(folder.join("curfew.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "the journal is whole in its file");
}

#[tokio::test]
async fn what_stands_is_told_with_what_would_take_its_place() {
    use curfew::credential::{CredentialId, Kind};
    use curfew::event::GrantSpec;
    use curfew::journal::sqlite::{Settings, Sqlite};
    use curfew::task::Tenure;

    use crate::stage::{new_run, record, started};
    let folder = tempfile::tempdir().unwrap();
    let config = r#"
realms:
  - name: prod
    vault: {address: "http://127.0.0.1:1", token_file: t}
    allowed_prefixes: [database/creds/]
    targets: [{prefix: database/creds/app/, target: appdb}]
targets: [{name: appdb, postgres: {url_file: u}}]
"#;
    fs::write(folder.path().join("curfew.yaml"), config).unwrap();
    let journal = Sqlite::open(&folder.path().join("curfew.db"), Settings::default()).unwrap();
    let standing = |name: &str| GrantSpec {
        credential: CredentialId::new(Kind::PostgresRole, "appdb", name).unwrap(),
        tenure: Tenure::Standing,
        principal: None,
        expires_ms: None,
    };
    let runs = [new_run(), new_run()];
    let events = runs.iter().map(|run| started(run, vec![standing("orders")])).collect();
    record(journal.as_ref(), events).await;
    drop(journal);
    let output = run(folder.path(), &["audit", "standing", "--json"]);
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = &lines[0];
    assert_eq!(lines.as_array().unwrap().len(), 1, "{lines}");
    let said = (line["used"].as_str(), line["runs"].as_i64(), line["live"].as_i64());
    assert_eq!(said, (Some("tasks"), Some(2), Some(2)), "{line}");
    assert_eq!(line["command"], "curfew exec --role ORDERS=database/creds/app -- COMMAND", "{line}");
    let said = text(&run(folder.path(), &["audit", "standing"]).stdout);
    assert!(said.contains("needs that database/creds/app may what orders may"), "{said}");
    assert!(said.contains("1 standing credentials: 1 used by tasks"), "{said}");
}

/// As in a pod: others ask there, by whatever name they know it.
#[tokio::test]
async fn figures_are_served_at_the_address_that_the_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let port = crate::canary::port();
    let http = crate::canary::port();
    fs::write(folder.path().join("curfew.yaml"), format!("http: {{listen: \"127.0.0.1:{http}\"}}\n")).unwrap();
    let mut command = tokio::process::Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
    command.current_dir(folder.path()).env_clear().args(["run", "--metrics", &format!("0.0.0.0:{port}")]);
    let _running = command.stderr(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap();
    crate::world::until("an answer under another name", || async {
        let ask = reqwest::Client::new().get(format!("http://127.0.0.1:{port}/healthz")).header("host", "curfew.svc");
        ask.send().await.ok()?.status().is_success().then_some(())
    })
    .await;
}
