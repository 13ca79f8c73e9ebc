//! A real Chromium, driven over its pipe: what it shows after scripts ran, and what it complains about.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::world::installed;

/// How long one answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page open; ended with the test.
pub struct Browser {
    _child: Child,
    _profile: TempDir,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    asked: u64,
    complaints: Vec<Value>,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It reads from 3 and writes to 4.
        let run = r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#;
        let mut command = Command::new("sh");
        command.args(["-c", run, "sh"]).arg(installed("browser").join("chromium"));
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut browser = Self {
            _child: child,
            _profile: profile,
            commands,
            answers,
            session: None,
            asked: 0,
            complaints: Vec::new(),
        };
        let made = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let open = json!({"targetId": made["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", open).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for part in ["Page.enable", "Log.enable", "Runtime.enable"] {
            browser.call(part, json!({})).await;
        }
        browser
    }

    /// One command of the DevTools protocol, and its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        self.commands.write_all(&bytes).await.unwrap();
        loop {
            let mut line = Vec::new();
            let read = tokio::time::timeout(PATIENCE, self.answers.read_until(0, &mut line)).await;
            assert!(read.unwrap_or_else(|_| panic!("no answer to {method}")).unwrap() > 0, "the browser ended");
            let message: Value = serde_json::from_slice(line.strip_suffix(b"\0").unwrap()).unwrap();
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            let name = message["method"].as_str().unwrap_or_default();
            if ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"].contains(&name) {
                self.complaints.push(message);
            }
        }
    }

    /// Goes to a page.
    pub async fn open(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({"url": url})).await;
        assert!(went["errorText"].is_null(), "{went}");
    }

    /// What a piece of script gives.
    pub async fn eval(&mut self, script: &str) -> Value {
        let params = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{script}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until it gives true.
    pub async fn until(&mut self, what: &str, script: &str) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.eval(script).await != true {
            assert!(
                tokio::time::Instant::now() < end,
                "waited for: {what}; it shows {}",
                self.eval("document.body.innerText").await
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As wide as that, and as light or dark.
    pub async fn look(&mut self, width: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// What the browser has complained about since it was last asked: errors, exceptions, what its policy forbade.
    pub fn complaints(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.complaints)
    }
}
