//! Findings over real Kafka, through the real binary: what a scanner reports, what `curfew findings` shows of it, what a
//! producer takes back, and what the topics tell in the end.

use super::*;
use crate::rotation::{Ground, Shape, Victim};

/// What a scanner's topics, two stored passwords and their database need.
pub(super) struct Post {
    pub(super) folder: TempDir,
    ground: Ground,
    pub(super) first: Victim,
    /// Its secret comes into the store later.
    second: Victim,
    pub(super) findings: String,
    pub(super) others: String,
    outcomes: String,
    rejected: String,
    pub(super) metrics: u16,
    pen: Pen,
    told: Told,
}

impl Post {
    pub(super) async fn new() -> Self {
        let ground = Ground::new().await;
        let first = ground.victim(Shape::One, Default::default()).await;
        let second = ground.victim(Shape::Two, Default::default()).await;
        let [findings, others, outcomes, rejected] =
            ["found", "found-elsewhere", "found-outcomes", "found-rejected"].map(unique);
        for topic in [&findings, &others, &outcomes, &rejected] {
            create(topic, 1).await;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), ground.admin.curfew_token().await).unwrap();
        fs::write(folder.path().join("pg.url"), &ground.pg.url).unwrap();
        let (told, metrics, pen) = (Told::listen(&outcomes), crate::canary::port(), Pen::new());
        let post = Self { folder, ground, first, second, findings, others, outcomes, rejected, metrics, pen, told };
        post.configure("observe");
        post.says(&["fingerprint-key"]).await;
        post
    }

    fn configure(&self, mode: &str) {
        fs::write(self.folder.path().join("curfew.yaml"), self.config(mode).to_string()).unwrap();
    }

    /// With the target in this mode.
    pub(super) fn config(&self, mode: &str) -> Value {
        let takes = json!({
            "events": ["finding.observed", "finding.closed"], "kinds": ["postgres-role"], "strongest": "contain",
        });
        let rotations = [&self.first, &self.second].map(|victim| {
            let place = &victim.recipe.place;
            json!({
                "name": victim.recipe.name, "target": "appdb", "roles": victim.recipe.users.names(),
                "environment": "test", "owner": "team-billing",
                "store": {"realm": "test", "mount": place.mount, "path": place.path, "field": place.field,
                          "user_field": place.user_field},
            })
        });
        json!({
            "journal": {"path": "curfew.db"},
            "kafka": {
                "brokers": brokers(),
                "group": self.findings,
                // A static member: the next start must not wait for the session of the one before to end.
                "properties": {"group.instance.id": "findings", "session.timeout.ms": "6000"},
            },
            "topics": {&self.findings: takes, &self.others: takes},
            "publish": {"outcomes": self.outcomes, "states": self.outcomes, "rotated": self.outcomes,
                        "rejected": self.rejected},
            "metrics": {"listen": format!("127.0.0.1:{}", self.metrics)},
            "realms": [{
                "name": "test", "mode": "enforce", "allowed_prefixes": ["database/creds/"],
                "vault": {"address": &self.ground.admin.address, "token_file": "token"},
            }],
            "targets": [{"name": "appdb", "mode": mode, "postgres": {"url_file": "pg.url"}}],
            "rotations": rotations,
            "inventory": [{
                "realm": "test", "token_file": "token", "mount": self.ground.mount, "paths": ["apps/"],
                "fields": ["password"], "every": "1s",
            }],
            "fingerprint": {"key_file": "fingerprint.keys"},
            "retry": {"first": "50ms", "ceiling": "500ms"},
            "limits": {"effects_per_minute": null},
            "log": {"level": "info,curfew=debug"},
        })
    }

    /// What a command says that succeeds.
    async fn says(&self, args: &[&str]) -> String {
        let output = ask(self.folder.path(), args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn says_json(&self, args: &[&str]) -> Vec<Value> {
        let said = self.says(args).await;
        serde_json::from_str::<Value>(&said).unwrap().as_array().unwrap().clone()
    }

    /// A scanner's report of these secrets, one a line of a file, published as it is.
    pub(super) async fn scanned(&self, secrets: &[&str]) {
        let leaks = secrets.iter().enumerate().map(|(at, secret)| {
            json!({
                "RuleID": "generic-api-key", "Description": "a key", "StartLine": at + 1, "EndLine": at + 1,
                "StartColumn": 1, "EndColumn": 9, "Match": secret, "Secret": secret, "File": "conf/app.env",
                "SymlinkFile": "", "Commit": "74d5", "Entropy": 3.4, "Author": "Ana", "Email": "ana@example.test",
                "Date": "2026-10-14T17:05:15Z", "Message": "configuration", "Tags": [],
                "Fingerprint": format!("74d5:conf/app.env:generic-api-key:{}", at + 1),
            })
        });
        let report = Value::Array(leaks.collect()).to_string();
        fs::write(self.folder.path().join("report.json"), report).unwrap();
        let args = ["publish", "finding", "--from", "gitleaks", "--repository", "o/r", "report.json", "--kafka"];
        self.says(&[&args[..], &[&brokers(), "--topic", &self.findings]].concat()).await;
    }

    /// Who found it takes it back, or somebody else tries to.
    async fn closes(&self, topic: &str, key: &str) {
        let id = uuid::Uuid::new_v4().to_string();
        let body = json!({
            "specversion": "1.0", "type": "dev.curfew.finding.closed.v1", "source": "/stories", "id": id,
            "datacontenttype": "application/json", "data": {"finding_key": key, "reason": "false_positive"},
        });
        self.pen.raw(topic, 0, Some(body.to_string().as_bytes()), &JSON).await;
    }

    /// Waits until all findings stand so, the newest first.
    pub(super) async fn stand(&self, phases: &[&str]) -> Vec<Value> {
        let mut wanted = phases.to_vec();
        wanted.sort_unstable();
        until(&format!("findings that stand {wanted:?}"), || async {
            let found = self.says_json(&["findings", "--all", "--json"]).await;
            let mut stand: Vec<&str> = found.iter().map(|one| one["phase"].as_str().unwrap()).collect();
            stand.sort_unstable();
            (stand == wanted).then_some(found)
        })
        .await
    }

    async fn cases_of(&self, victim: &Victim) -> Vec<Value> {
        self.says_json(&["cases", "--closed", "--json", "--credential", victim.credential().as_str()]).await
    }

    async fn held(&self, victim: &Victim) {
        until("a case that is held", || async {
            let cases = self.cases_of(victim).await;
            (cases.len() == 1 && cases[0]["verdict"]["by"] == "observe").then_some(())
        })
        .await;
    }

    /// The outcome of the credential's only case, as the topic has it.
    pub(super) async fn outcome(&self, victim: &Victim) -> Value {
        until("its outcome", || async {
            let outcomes = self.told.of("dev.curfew.outcome.v1");
            outcomes.into_iter().find(|event| event["data"]["cred_id"] == victim.credential().as_str())
        })
        .await
    }

    /// Lines of the decisions of a case, as a person sees them.
    async fn shown(&self, victim: &Victim) -> String {
        let cases = self.cases_of(victim).await;
        self.says(&["case", cases[0]["case"]["id"].as_str().unwrap()]).await
    }
}

fn key_of(found: &[Value], phase: &str) -> String {
    let one = found.iter().find(|one| one["phase"] == phase).unwrap();
    one["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_scanner_found_is_listed_matched_taken_back_and_rotated() {
    let post = Post::new().await;
    let (first, second) = (&post.first, &post.second);
    // The second secret is not in the store yet: nobody knows whose it is.
    let place = &second.recipe.place;
    let later = second.stored().await;
    post.ground.admin.done("DELETE", &format!("{}/metadata/{}", place.mount, place.path), Value::Null).await;
    let mut running = Running::start(post.folder.path());
    running.runs().await;

    post.scanned(&[&first.old.1, &second.old.1]).await;
    let found = post.stand(&["matched", "unmatched"]).await;
    let matched = found.iter().find(|one| one["phase"] == "matched").unwrap();
    assert_eq!(matched["credentials"], json!([first.credential().as_str()]));
    let table = post.says(&["findings"]).await;
    assert!(table.contains("unmatched") && table.contains("conf/app.env:2"), "its owner's queue: {table}");
    assert!(table.contains("ana@example.test") && !table.contains("conf/app.env:1"), "{table}");
    for secret in [&first.old.1, &second.old.1] {
        assert!(!table.contains(secret.as_str()) && !running.log().contains(secret.as_str()));
    }
    let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", post.metrics)).await.unwrap().text().await.unwrap();
    assert!(page.contains("curfew_unmatched_findings 1"), "{page}");

    // Who did not find it cannot take it back; who did can, since nobody has begun.
    post.held(first).await;
    let key = key_of(&found, "matched");
    post.closes(&post.others, &key).await;
    post.closes(&post.findings, &key).await;
    let closed = post.outcome(first).await;
    assert_eq!(closed["data"]["verdict"], json!({"state": "obsolete"}), "{closed}");
    post.stand(&["closed", "unmatched"]).await;
    let shown = post.shown(first).await;
    assert!(shown.contains("finding_closed") && shown.contains("withdrawn"), "{shown}");
    assert!(!shown.contains("finding_foreign"), "what has no part in it is not told of it: {shown}");
    assert!(first.works(&first.old).await && first.stored().await.0 == 1, "nothing was touched");
    // The next night's scan finds the same.
    post.scanned(&[&first.old.1, &second.old.1]).await;

    // The store gets to know the other: it is matched by itself.
    let secret = json!({"data": {"username": later.1, "password": later.2, "host": "db.example"}});
    post.ground.admin.done("POST", &format!("{}/data/{}", place.mount, place.path), secret).await;
    post.stand(&["closed", "matched"]).await;
    assert_eq!(post.says(&["findings"]).await, "no findings wait for a match\n");
    post.held(second).await;
    assert_eq!(post.cases_of(first).await.len(), 1, "a finding that was closed stays so");
    assert!(second.works(&second.old).await);

    // From now on it acts.
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    post.configure("enforce");
    running = Running::start(post.folder.path());
    running.runs().await;
    let outcome = post.outcome(second).await;
    assert_eq!(
        (&outcome["data"]["action"], &outcome["data"]["verdict"]["state"]),
        (&json!("rollover"), &json!("dead"))
    );
    second.assert_rotated("found by a scanner").await;
    let rotated = post.told.of("dev.curfew.credential.rotated.v1");
    assert_eq!(rotated.len(), 1, "{rotated:?}");
    assert_eq!(rotated[0]["data"]["new"]["version"], second.stored().await.0);
    assert!(first.works(&first.old).await, "what was taken back stays");
    // Closed now, it takes nothing back.
    let key = key_of(&post.stand(&["closed", "matched"]).await, "matched");
    post.closes(&post.findings, &key).await;
    post.stand(&["closed", "closed"]).await;
    second.assert_rotated("and stays so").await;
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    for secret in [&second.old.1, &second.stored().await.2] {
        assert!(!log.contains(secret.as_str()), "a value is in the log");
    }
}
