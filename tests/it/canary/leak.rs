//! A stored password that leaks, by the real binary: learned by the inventory, told of by a scanner's report, contained,
//! seen dead. And all that was written meanwhile.

use super::*;

/// What leaked, and how Curfew knows of it.
pub struct Leak<'a> {
    /// The kind of credential.
    pub kind: &'a str,
    /// What `curfew check` must say.
    pub says: &'a str,
    /// `realms`, `targets`, `rotations` and `inventory`.
    pub config: String,
    /// What the scanner found, and by which of its rules.
    pub secret: &'a str,
    pub rule: &'a str,
    /// How it is seen dead.
    pub level: &'a str,
}

/// It was seen dead, and Curfew runs on.
pub struct Died {
    running: Running,
    metrics: u16,
    written: Written,
    /// The case.
    pub case: Value,
}

impl Leak<'_> {
    pub fn report(&self) -> String {
        let found =
            json!({"RuleID": self.rule, "StartLine": 3, "Secret": self.secret, "File": "app.env", "Commit": "74d5"});
        json!([found]).to_string()
    }

    pub async fn dies(&self, home: &Path) -> Died {
        let (http, metrics) = (port(), port());
        let config = format!(
            r#"
journal: {{path: curfew.db}}
topics:
  curfew.findings: {{events: [finding.observed], kinds: [{kind}], strongest: contain}}
http: {{listen: "127.0.0.1:{http}", topic: curfew.findings}}
fingerprint: {{key_file: fingerprint.keys}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
policy: {{findings: [{{then: contain}}]}}
retry: {{first: 100ms, ceiling: 500ms}}
log: {{level: trace}}
{more}"#,
            kind = self.kind,
            more = self.config,
        );
        fs::write(home.join("curfew.yaml"), config).unwrap();
        let mut written = Written::default();
        assert_eq!(written.command(home, &["fingerprint-key"]).0, Some(0));
        let (code, said) = written.command(home, &["check"]);
        assert!(code == Some(0) && said.contains(self.says), "{said}");
        let mut command = curfew(home);
        command.arg("run");
        let mut running = Running::start(command, home.join("log"));
        running.says("curfew runs").await;
        // The report may come before the inventory has read: then it waits for it.
        fs::write(home.join("report.json"), self.report()).unwrap();
        let publish =
            ["publish", "finding", "--from", "gitleaks", "--repository", "https://git.test/o/r", "report.json"];
        assert_eq!(written.command(home, &publish).0, Some(0));
        let case = until("the old one to be seen dead", || {
            let closed = written.command(home, &["cases", "--closed", "--json"]).1;
            let closed: Value = serde_json::from_str(&closed).unwrap_or_default();
            let line = closed[0].clone();
            async move { (line["verdict"]["state"] == "dead").then_some(line) }
        })
        .await;
        assert_eq!(case["verdict"]["level"], self.level, "{case}");
        Died { running, metrics, written, case }
    }
}

impl Died {
    /// All that was written, once it has ended.
    pub async fn written(mut self, home: &Path) -> Written {
        let id = self.case["case"]["id"].as_str().unwrap();
        for args in [&["case", id][..], &["case", id, "--json"], &["cases", "--closed"], &["findings", "--json"]] {
            assert_eq!(self.written.command(home, args).0, Some(0), "{args:?}");
        }
        let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.metrics)).await.unwrap();
        self.written.put("metrics", &page.bytes().await.unwrap());
        for suffix in ["", "-wal", "-shm"] {
            let file = format!("curfew.db{suffix}");
            self.written.put(&file, &fs::read(home.join(&file)).unwrap());
        }
        assert_eq!(self.running.end(), Some(0));
        self.written.put("rows of curfew.db", &rows(&home.join("curfew.db")));
        self.written.put("log", self.running.log().as_bytes());
        self.written
    }
}
