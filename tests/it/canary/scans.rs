//! Scanners' reports, with a secret in each field that may hold one: it comes in, and does not go on.

use base64::engine::general_purpose::STANDARD;
use curfew::event::{Coordinates, Data, Delivery, FindingObserved, Format, Limits, decode};
use curfew::fingerprint::Keys;

use super::*;
use crate::github::GitHub;

/// The type of tokens that GitLab may send.
pub const TOKENS: &str = "gitleaks_rule_id_our_token";
/// What callers and Curfew know each other by: none of it is to be seen either.
const TOKEN_FILES: [&str; 4] = ["intake.token", "gitlab.token", "github.secret", "api.token"];

/// A running Curfew that takes findings over Kafka and HTTP, and logs all that it can.
pub struct Lab {
    folder: tempfile::TempDir,
    running: Running,
    /// The topic of findings.
    pub topic: String,
    /// Of each scheduler's own events: its format, its topic.
    pub schedulers: Vec<(Format, String)>,
    /// What the alerts' secrets are asked from.
    pub github: GitHub,
    http: u16,
    metrics: u16,
    /// All that was written by commands and answers.
    pub written: Written,
}

impl Lab {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "", "").await
    }

    /// With more `topics`, and `more` at the end of the configuration.
    pub async fn start_in(folder: tempfile::TempDir, topics: &str, more: &str) -> Self {
        let home = folder.path();
        let [topic, tasks, outcomes, rejected] =
            ["findings", "tasks", "outcomes", "rejected"].map(|name| unique(&format!("scan-{name}")));
        for topic in [&topic, &tasks, &outcomes, &rejected] {
            create(topic, 1).await;
        }
        let schedulers =
            Format::SCHEDULERS.map(|format| (format, unique(&format!("scan-{}", format.as_str())))).to_vec();
        let mut theirs = topics.to_owned();
        for (format, topic) in &schedulers {
            create(topic, 1).await;
            theirs += &format!("  {topic}: {{format: {}, strongest: track}}\n", format.as_str());
        }
        let (http, metrics) = (port(), port());
        let token = made_up("");
        private(home.join("api.token"), &token);
        let github = GitHub::start(&token).await;
        let config = format!(
            r#"
kafka: {{brokers: "{brokers}", group: {group}}}
topics:
  {topic}: {{events: [finding.observed, finding.closed], strongest: track}}
  {tasks}: {{strongest: track}}
{theirs}publish: {{outcomes: {outcomes}, states: {outcomes}, rejected: {rejected}}}
http:
  listen: "127.0.0.1:{http}"
  topic: {tasks}
  findings: {topic}
  gitlab: {{types: [{TOKENS}]}}
  github: {{api: {{url: "{github}", token_file: api.token}}}}
fingerprint: {{key_file: fingerprint.keys}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
log: {{level: trace}}
{more}"#,
            brokers = env("CURFEW_TEST_KAFKA"),
            group = unique("scan"),
            github = github.url,
        );
        fs::write(home.join("curfew.yaml"), config).unwrap();
        let mut written = Written::default();
        assert_eq!(written.command(home, &["fingerprint-key"]).0, Some(0));
        assert_eq!(written.command(home, &["fingerprint-key", "--json"]).0, Some(0));
        let mut command = curfew(home);
        command.arg("run");
        let mut running = Running::start(command, home.join("log"));
        running.says("curfew runs").await;
        Self { folder, running, topic, schedulers, github, http, metrics, written }
    }

    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    pub fn keys(&self) -> Keys {
        Keys::read(&self.home().join("fingerprint.keys")).unwrap()
    }

    /// A report as it is, over HTTP; the status and the answer.
    pub async fn post(&mut self, path: &str, kind: &str, report: Vec<u8>) -> (u16, Value) {
        self.post_as(path, kind, &[], report).await
    }

    /// The same with these headers.
    pub async fn post_as(
        &mut self,
        path: &str,
        kind: &str,
        headers: &[(String, &str)],
        report: Vec<u8>,
    ) -> (u16, Value) {
        let bearer = ("authorization".to_owned(), format!("Bearer {}", self.known_by("intake.token")));
        let kind = ("content-type".to_owned(), kind.to_owned());
        let theirs = headers.iter().map(|(name, value)| (name.clone(), (*value).to_owned()));
        self.send(path, [bearer, kind].into_iter().chain(theirs), report).await
    }

    /// With these headers alone.
    pub async fn send(
        &mut self,
        path: &str,
        headers: impl IntoIterator<Item = (String, String)>,
        body: Vec<u8>,
    ) -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("http://127.0.0.1:{}{path}", self.http)).body(body);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        self.written.put("answers of the intake", text.as_bytes());
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// What one of the token files holds.
    pub fn known_by(&self, file: &str) -> String {
        fs::read_to_string(self.home().join(file)).unwrap().trim().to_owned()
    }

    /// The findings of the topic, as intake reads them.
    pub fn findings(&self) -> Vec<FindingObserved> {
        let events = records(&self.topic).1;
        let lines = events.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
        let found = lines.map(|line| {
            let delivery = Delivery {
                at: Coordinates { cluster: "c".into(), topic: "t".into(), partition: 0, offset: 0 },
                tenant: "default".into(),
                format: Format::Curfew,
                broker_ms: 1_788_256_800_000,
                headers: vec![("content-type".into(), Some("application/cloudevents+json".into()))],
                payload: Some(line.to_vec().into()),
            };
            match decode(&delivery, &Limits::default()).unwrap().data {
                Data::FindingObserved(finding) => *finding,
                other => panic!("{other:?}"),
            }
        });
        found.collect()
    }

    /// Waits until the journal has so many events of a kind.
    pub async fn holds(&self, kind: &str, events: i64) {
        let path = self.home().join("curfew.db");
        until(&format!("{events} × {kind} to be recorded"), || {
            let db = rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            let count = "SELECT COUNT(*) FROM events WHERE kind = ?";
            let found: i64 = db.query_row(count, [kind], |row| row.get(0)).unwrap();
            async move { (found == events).then_some(()) }
        })
        .await;
    }

    /// Ends it, and looks for the secrets in all that it wrote.
    pub async fn ends_clean(mut self, secrets: &BTreeMap<String, String>) {
        let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.metrics)).await.unwrap();
        self.written.put("metrics", &page.bytes().await.unwrap());
        for suffix in ["", "-wal", "-shm"] {
            let file = format!("curfew.db{suffix}");
            self.written.put(&file, &fs::read(self.home().join(&file)).unwrap());
        }
        assert_eq!(self.running.end(), Some(0));
        let path = self.home().join("curfew.db");
        self.written.put("curfew.db after the end", &fs::read(&path).unwrap());
        self.written.put("rows of curfew.db", &rows(&path));
        self.written.put("log", self.running.log().as_bytes());
        let told = records(&self.topic).1;
        if !told.is_empty() {
            self.written.put("topic", &told);
        }
        let key = fs::read_to_string(self.home().join("fingerprint.keys")).unwrap();
        let mut all = secrets.clone();
        for (kid, key) in key.lines().map(|line| line.split_once(' ').unwrap()) {
            all.insert(format!("the fingerprint key {kid}"), key.to_owned());
        }
        for file in TOKEN_FILES {
            all.insert(format!("what is in {file}"), self.known_by(file));
        }
        self.written.assert_clean(&Scanner::new(&all));
    }
}

/// One report of each scanner, with `secret` in each field: as it is, and in other spellings.
pub fn reports(secret: &str) -> [(&'static str, &'static str, Vec<u8>); 3] {
    let url = percent_encode(secret.as_bytes(), NON_ALPHANUMERIC).to_string();
    let (base64, hex) = (STANDARD.encode(format!("user:{secret}")), hex::encode(secret));
    let leak = json!([{
        "RuleID": "generic-api-key", "Description": secret, "StartLine": 2, "EndLine": 2, "StartColumn": 24, "EndColumn": 43,
        "Match": format!("key = \"{secret}\""), "Secret": secret, "File": format!("conf/{secret}.tf"), "SymlinkFile": base64,
        "Commit": "74d5", "Link": format!("https://user:{secret}@git.test/?{url}"), "Entropy": 3.4, "Author": secret,
        "Email": format!("{hex}@x.test"), "Date": "2026-10-14T17:05:15Z", "Message": format!("add {secret}"),
        "Tags": [secret, base64], "Fingerprint": format!("74d5:conf/{url}.tf:generic-api-key:2"), "Fragment": {"Raw": secret},
    }]);
    let hog = json!({
        "SourceMetadata": {"Data": {"Github": {"link": format!("https://git.test/{secret}"), "commit": "0a1b",
            "repository": format!("https://user:{secret}@git.test/o/r?token={url}"), "file": format!("{base64}/{secret}"),
            "email": format!("{secret} <a@x>"), "line": 4, "timestamp": "2026-06-16 10:17:40 -0700 PDT", "username": secret}}},
        "SourceID": 0, "SourceType": 7, "SourceName": secret, "DetectorType": 904, "DetectorName": "CustomRegex",
        "DetectorDescription": secret, "DecoderName": "PLAIN", "Verified": true, "VerificationError": secret,
        "Raw": secret, "RawV2": format!("id{secret}"), "Redacted": secret,
        "ExtraData": {"name": format!("rule {hex}"), "response": format!("<html>{secret}"), "arn": format!("arn:aws:iam::1:user/{secret}"),
            "account": secret, "user_id": secret},
        "StructuredData": {"x": [{"y": secret}]}, "SecretParts": {"token": secret, secret: url},
    });
    let lab = json!({
        "version": "15.2.1", "schema": format!("https://x/{secret}"), "remediations": [{"summary": secret, "diff": base64}],
        "vulnerabilities": [{
            "id": hex, "category": "secret_detection", "name": secret, "message": secret, "description": format!("{url} {base64}"),
            "cve": format!("conf/{secret}:{hex}:rule"), "severity": "Critical", "solution": secret,
            "raw_source_code_extract": secret, "scanner": {"id": secret, "name": secret},
            "identifiers": [{"type": secret, "name": secret, "value": format!("rule {hex}"), "url": format!("https://x/?{url}")}],
            "links": [{"url": format!("https://x/{secret}")}], "details": {secret: {"type": "text", "value": secret}},
            "tracking": {"type": "source", "items": [{"file": secret, "signatures": [{"algorithm": "x", "value": base64}]}]},
            "location": {"file": format!("conf/{secret}/{url}.tf"), "start_line": 2, "end_line": 2, "class": secret,
                "commit": {"author": format!("{secret} <{hex}@x>"), "date": secret, "message": format!("add {secret}"),
                    "sha": format!("74d5{base64}")}},
        }],
        "scan": {"type": "secret_detection", "status": "success", "messages": [{"level": "info", "value": secret}],
            "options": [{"name": "x", "value": secret}]},
    });
    [
        ("gitleaks", "application/json", serde_json::to_vec_pretty(&leak).unwrap()),
        ("trufflehog", "application/x-ndjson", format!("{hog}\n").into_bytes()),
        ("gitlab", "application/json", serde_json::to_vec_pretty(&lab).unwrap()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_report_goes_on() {
    let mut lab = Lab::start().await;
    let home = lab.home().to_owned();
    let secret = made_up("c4nary/+");
    let secrets = BTreeMap::from([("what was found".to_owned(), secret.clone())]);
    let kafka = env("CURFEW_TEST_KAFKA");
    let topic = lab.topic.clone();
    let mut controls = Vec::new();
    for (name, kind, report) in reports(&secret) {
        let file = format!("{name}.report");
        fs::write(home.join(&file), &report).unwrap();
        controls.push(report.clone());
        let to_kafka = ["--kafka", &kafka, "--topic", &topic];
        let args = ["publish", "finding", "--from", name, "--repository", "https://git.test/o/r"];
        for more in [&["--dry-run", "--json"][..], &to_kafka, &[]] {
            let all = [&args[..], more, &[&file]].concat();
            assert_eq!(lab.written.command(&home, &all).0, Some(0), "{name} {more:?}");
        }
        // As it is, and again: the same finding.
        let path = format!("/findings/{name}?repository=https://git.test/o/r");
        let (status, said) = lab.post(&path, kind, report.clone()).await;
        assert_eq!((status, &said["accepted"], &said["duplicates"]), (200, &json!(0), &json!(1)), "{said}");
        // Cut, torn and doubled: what cannot be read is not repeated.
        let half = report[..report.len() / 2].to_vec();
        let torn = [&b"{\"a\": "[..], secret.as_bytes(), b"}\n", &report].concat();
        for (wrong, body) in [("cut", half), ("torn", torn), ("no report", secret.clone().into_bytes())] {
            let (status, said) = lab.post(&path, kind, body.clone()).await;
            assert_eq!(status, 422, "{name} {wrong}: {said}");
            fs::write(home.join("wrong.report"), body).unwrap();
            let all = [&args[..], &["wrong.report"]].concat();
            assert_eq!(lab.written.command(&home, &all).0, Some(65), "{name} {wrong}");
        }
        assert_eq!(lab.post(&path, "text/plain", report.clone()).await.0, 415);
        let url = percent_encode(secret.as_bytes(), NON_ALPHANUMERIC).to_string();
        assert_eq!(lab.post(&format!("/findings/{url}"), kind, report.clone()).await.0, 404);
        let (status, _) = lab.post(&format!("/findings/{name}?repository={url}&repository=x"), kind, report).await;
        assert_eq!(status, 400);
    }
    lab.holds("finding.observed", 3).await;
    let found = lab.findings();
    let expected = lab.keys().of(&secret);
    assert_eq!((found.len(), expected.len()), (3, 2));
    for finding in &found {
        let has =
            |one: &curfew::fingerprint::Fingerprint| finding.fingerprints.iter().any(|known| known.fingerprint == *one);
        assert!(expected.iter().all(has), "{finding:?}");
    }
    let scanner = Scanner::new(&secrets);
    assert!(controls.iter().all(|report| !scanner.names(report).is_empty()), "the control");
    lab.ends_clean(&secrets).await;
}
