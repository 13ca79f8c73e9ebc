//! What README and docs show to be typed is typed, as it stands there, beside a running Curfew: names and places of the
//! documents are those of this test. What has a story of its own is named; what is run by nobody is marked in the document.

use std::path::PathBuf;

use curfew::journal::Journal as _;
use curfew::journal::sqlite::{Settings, Sqlite};

use super::*;
use crate::canary::{port, private};
use crate::scanners::{git, gitleaks, random};
use crate::world::repository;

#[path = "../../../workers/docs/fences.rs"]
mod fences;

/// Commands of Curfew's that another test runs, or what they ask of a running process: where, and which.
const ELSEWHERE: [(&str, &str, &str); 7] = [
    ("run", "compose.rs", "its_processes_share_the_work_and_one_of_them_says_what_the_journal_says"),
    ("exec", "exec.rs", "a_command_has_a_credential_of_its_own_that_ends_with_it"),
    ("reduce", "scope/story.rs", "nothing_is_taken_before_the_notice_is_over_and_then_only_what_is_still_there"),
    ("keep", "scope/story.rs", "who_answers_for_it_keeps_it_for_a_time"),
    ("rollback", "reach/story.rs", "an_agent_that_reaches_two_zones_ends_with_one_and_its_task_goes_on"),
    ("offboard", "reach/story.rs", "who_leaves_is_fenced_and_what_is_minted_for_it_later_is_found_as_well"),
    ("canary", "stories/watched.rs", "one_canary_is_asked_for_and_shows_each_stage"),
];
/// Programs whose lines are run here.
const RUN: [&str; 6] = ["curfew", "curl", "gitleaks", "pg_dump", "sqlite3", "umask"];

const LEASE: &str = "urn:curfew:cred:vault-lease:prod:database/creds/app/x1";
const CLUSTER: &str = "5L6g3nShT-eMCtK--X86sw";
const DECLARED: &str = "\
zones: [{name: office}]
targets: [{name: appdb, zone: office, owner: team-data}]
identities: [{id: 'identity:prod/approle/etl', owner: team-data, may: {zones: [office], targets: [appdb]}}]
agents: [{name: triage, owner: team-ai, as: ['identity:prod/approle/etl'], may: {zones: [office]}}]
";

/// A folder as documents speak of it, with all that their lines name.
struct Desk {
    folder: TempDir,
    http: u16,
    /// The schema of a journal in PostgreSQL.
    schema: String,
}

impl Desk {
    async fn new() -> Self {
        let (admin, pg, folder) = (Admin::shared(), Postgres::shared(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        for name in ["etc", "backup", "bin"] {
            fs::create_dir(at(name)).unwrap();
        }
        std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin!("curfew"), at("bin/curfew")).unwrap();
        std::os::unix::fs::symlink(gitleaks(), at("bin/gitleaks")).unwrap();
        private(at("token"), &admin.curfew_token().await);
        private(at("pg.url"), &pg.url);
        fs::write(at("inventory.yaml"), DECLARED).unwrap();
        let http = port();
        // Nobody serves the realm `prod` of the documents: what is to be done there is held.
        let stored = |path: &str| json!({"realm": "own", "mount": "kv", "path": path, "user_field": "username"});
        let config = json!({
            "http": {"listen": format!("127.0.0.1:{http}"), "reach": {"token_file": "reach-page.token"}},
            "metrics": {"listen": format!("127.0.0.1:{}", port())},
            "fingerprint": {"key_file": "keys"},
            "topics": {
                "curfew.tasks": {"strongest": "revoke"},
                "curfew.findings": {"events": ["finding.observed", "finding.closed"], "strongest": "track"},
            },
            "realms": [{"name": "own", "vault": {"address": &admin.address, "token_file": "token"}}],
            "targets": [{"name": "appdb", "postgres": {"url_file": "pg.url"}}],
            "rotations": [
                {"name": "orders-db", "target": "appdb", "roles": ["orders_a", "orders_b"], "store": stored("apps/orders")},
                {"name": "agents-db", "target": "appdb", "roles": ["agents"], "store": stored("apps/agents"),
                    "split": [{"agent": "planner", "rotation": "planner-db"}]},
                {"name": "planner-db", "target": "appdb", "roles": ["agent_planner"], "store": stored("agents/planner")},
            ],
            "reductions": [{"system": "appdb", "identities": ["agent_*"], "url_file": "pg.url"}],
            "reach": {"every": "1s", "declared": "inventory.yaml"},
        });
        fs::write(at("curfew.yaml"), config.to_string()).unwrap();
        assert!(ask(folder.path(), &["fingerprint-key", "keys"]).await.status.success());

        let sample = |name: &str| repository().join("fuzz/samples").join(name);
        fs::copy(sample("gitleaks.json"), at("report.json")).unwrap();
        fs::copy(sample("openlineage.json"), at("event.json")).unwrap();
        let report = json!({"version": "15.2.1", "vulnerabilities": [{
            "id": "1", "severity": "High", "raw_source_code_extract": "kept-in-a-repository-4711",
            "scanner": {"id": "gitleaks", "name": "Gitleaks"}, "location": {"file": "a.env", "start_line": 1,
            "commit": {"author": "a@x", "date": "2026-06-02T09:13:09Z", "message": "m", "sha": "74d5"}},
            "identifiers": [{"type": "gitleaks_rule_id", "name": "generic", "value": "generic-api-key"}],
        }]});
        fs::write(at("gl-secret-detection-report.json"), report.to_string()).unwrap();
        fs::write(at("mended.jsonl"), event("heartbeat", "mended", json!({"run_id": "mended"}))).unwrap();
        git(folder.path(), &["init", "-q"]);
        let token = random(36, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789");
        fs::write(at("deploy.env"), format!("GITHUB_TOKEN=ghp_{token}\n")).unwrap();
        git(folder.path(), &["add", "deploy.env"]);
        git(folder.path(), &["commit", "-q", "-m", "a key"]);

        let schema = unique("documents").replace('-', "_");
        let sql = format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.meta (name TEXT)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pg.pool().await).await.unwrap();
        let journal = Sqlite::open(&at("curfew.db"), Settings::default()).unwrap();
        journal.caught_up(CLUSTER, "curfew.tasks", 0, 7).await.unwrap();
        Self { folder, http, schema }
    }

    /// The text of a block, with the places and names of here.
    fn here(&self, text: &str, case: &str) -> String {
        let folder = self.folder.path().display().to_string();
        [
            ("/etc/curfew", format!("{folder}/etc")),
            ("/var/lib/curfew", folder.clone()),
            ("/backup", format!("{folder}/backup")),
            ("127.0.0.1:8484", format!("127.0.0.1:{}", self.http)),
            ("--schema=curfew ", format!("--schema={} ", self.schema)),
            ("0192f1c4", case.to_owned()),
        ]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// An open case that is held, as a block may speak of: the beginning of its id.
    async fn held_case(&self) -> String {
        let asked = ask(self.folder.path(), &["revoke", LEASE, "--reason", "story", "--json"]).await;
        assert!(asked.status.success(), "{asked:?}");
        until("the case to be held", || async {
            let cases = ask(self.folder.path(), &["cases", "--state", "held", "--json"]).await;
            let cases: Value = serde_json::from_slice(&cases.stdout).unwrap();
            let mut of = cases.as_array().unwrap().iter().map(|line| &line["case"]);
            let case = of.find(|case| case["directive"]["credential"] == LEASE)?;
            Some(case["id"].as_str().unwrap()[..13].to_owned())
        })
        .await
    }
}

/// Each block of a shell's, of all documents.
fn blocks() -> Vec<fences::Fence> {
    let mut paths: Vec<PathBuf> = vec![repository().join("README.md"), repository().join("CONTRIBUTING.md")];
    for folder in ["docs", "docs/runbooks", "schemas/events"] {
        paths.extend(fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    paths.sort();
    let of = |path: &PathBuf| {
        let name = path.strip_prefix(repository()).unwrap().display().to_string();
        fences::fences(&name, &fs::read_to_string(path).unwrap())
    };
    paths.iter().flat_map(of).filter(|fence| fence.language == "sh" && fence.mark.is_none()).collect()
}

/// Whether a line is for this test to run; the others have a test, or a target of make that the gate knows.
fn is_ours(at: &str, line: &str) -> bool {
    let commands = fences::commands(line);
    for words in &commands {
        let [program, rest @ ..] = &words[..] else { continue };
        if program == "make" {
            return false;
        }
        assert!(RUN.contains(&program.as_str()), "{at}: nobody runs `{program}`: {line}");
        if let Some((_, file, test)) =
            ELSEWHERE.iter().find(|(name, ..)| program == "curfew" && rest.first().is_some_and(|one| one == name))
        {
            let text = fs::read_to_string(repository().join("tests/it").join(file)).unwrap();
            assert!(text.contains(&format!("fn {test}(")), "tests/it/{file} has no {test}");
            return false;
        }
    }
    !commands.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_documents_show_is_done_as_it_stands_there() {
    let desk = Desk::new().await;
    let folder = desk.folder.path();
    let running = Running::start(folder);
    running.runs().await;
    until("who reaches what to be read", || async {
        ask(folder, &["reach", "--gate", "agent:triage"]).await.status.success().then_some(())
    })
    .await;
    let mut done = 0;
    for block in blocks() {
        let lines: Vec<String> =
            fences::lines(&block.text).into_iter().filter(|line| is_ours(&block.at, line)).collect();
        if lines.is_empty() {
            continue;
        }
        fs::remove_file(folder.join("etc/fingerprint.keys")).ok();
        fs::copy(folder.join("curfew.yaml"), folder.join("etc/curfew.yaml")).unwrap();
        let script = desk.here(&lines.join("\n"), &desk.held_case().await);
        let path = format!("{}:/usr/bin:/bin", folder.join("bin").display());
        let mut shell = Command::new("bash");
        shell.current_dir(folder).env_clear().envs([
            ("PATH", path.as_str()),
            ("USER", "ana"),
            ("URL", &Postgres::shared().url),
        ]);
        shell.envs([("CI_PROJECT_URL", "https://git.test/o/r"), ("HOME", folder.to_str().unwrap())]);
        let output = shell.args(["-exc", &script]).stdin(Stdio::null()).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {:?}\n{said}", block.at, output.status.code());
        assert!(ask(folder, &["release"]).await.status.success());
        done += lines.len();
    }
    assert!(done > 50, "{done} lines: are they found?");
    // That something came of it.
    assert_eq!(fs::read_dir(folder.join("backup")).unwrap().count(), 2, "copies of both journals");
    let found: Value = serde_json::from_slice(&ask(folder, &["findings", "--all", "--json"]).await.stdout).unwrap();
    assert!(found.as_array().unwrap().len() >= 3, "{found}");
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}
