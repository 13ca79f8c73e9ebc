//! Fingerprint keys that Vault wrapped, by the real binary: made, used, replaced, waited for; and in no place but memory.

use base64::engine::general_purpose::STANDARD;
use curfew::fingerprint::Keys;

use super::*;
use crate::world::Proxy;

/// A Curfew's folder whose keys Vault wraps; its Vault can be cut off.
struct Home {
    folder: tempfile::TempDir,
    admin: Admin,
    vault: Proxy,
    mount: String,
    /// Who may unwrap, and who may make keys.
    logins: (String, String),
    http: u16,
    written: Written,
}

impl Home {
    async fn new() -> Self {
        let admin = Admin::shared();
        let mount = admin.transit().await;
        let logins = admin.transit_logins(&mount).await;
        let vault = Proxy::to(admin.address.trim_start_matches("http://")).await;
        let (folder, http, written) = (tempfile::tempdir().unwrap(), port(), Written::default());
        let home = Self { folder, admin, vault, mount, logins, http, written };
        home.configure("curfew-fingerprint");
        private(home.file("unwrap.token"), &home.logins.0);
        private(home.file("curfew.token"), &home.admin.curfew_token().await);
        let leak = json!([{"RuleID": "generic-api-key", "StartLine": 3, "Secret": "a secret value", "File": "a"}]);
        fs::write(home.file("report.json"), leak.to_string()).unwrap();
        home
    }

    fn configure(&self, key: &str) {
        let config = json!({
            "http": {"listen": format!("127.0.0.1:{}", self.http)},
            "metrics": {"listen": format!("127.0.0.1:{}", port())},
            "realms": [{"name": "test", "vault": {"address": format!("http://{}", self.vault.address), "token_file": "curfew.token"}}],
            "fingerprint": {
                "key_file": "fingerprint.keys",
                "transit": {"realm": "test", "token_file": "unwrap.token", "mount": self.mount, "key": key},
            },
            "log": {"level": "trace"},
        });
        fs::write(self.file("curfew.yaml"), config.to_string()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, log: &str) -> Running {
        let mut command = curfew(self.folder.path());
        command.arg("run");
        Running::start(command, self.file(log))
    }

    /// A command as the one who makes keys; its exit code and what it said.
    fn maker(&mut self, args: &[&str]) -> (Option<i32>, String) {
        let token = self.logins.1.clone();
        self.written.command_with(self.folder.path(), &[("VAULT_TOKEN", &token)], args)
    }

    /// What a command says that fails.
    fn fails(&mut self, env: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
        let output = curfew(self.folder.path()).envs(env.iter().copied()).args(args).output().unwrap();
        self.written.put("failures", &output.stderr);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    async fn report(&mut self) -> (u16, Value) {
        let token = fs::read_to_string(self.file("intake.token")).unwrap();
        let url = format!("http://127.0.0.1:{}/findings/gitleaks?repository=o/r", self.http);
        let request = reqwest::Client::new().post(url).bearer_auth(token.trim());
        let report = fs::read(self.file("report.json")).unwrap();
        let answer = request.header("content-type", "application/json").body(report).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        self.written.put("answers of the intake", text.as_bytes());
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The keys of the file as Vault unwraps them, by their ids.
    async fn keys(&self) -> BTreeMap<String, Vec<u8>> {
        let file = fs::read_to_string(self.file("fingerprint.keys")).unwrap();
        let mut keys = BTreeMap::new();
        for (kid, text) in file.lines().map(|line| line.split_once(' ').unwrap()) {
            let path = format!("{}/decrypt/curfew-fingerprint", self.mount);
            let (_, answer) = self.admin.call("POST", &path, json!({"ciphertext": text})).await;
            let key = answer["data"]["plaintext"].as_str().map(|key| STANDARD.decode(key).unwrap());
            keys.insert(kid.to_owned(), key.unwrap_or_else(|| hex::decode(text).unwrap()));
        }
        keys
    }

    /// The finding's fingerprints, as the journal has them while it is matched by nothing.
    fn found(&self) -> Vec<String> {
        let db = rusqlite::Connection::open(self.file("curfew.db")).unwrap();
        let each =
            "SELECT one.value FROM findings, json_each(body, '$.fingerprints') AS one WHERE phase = 0 ORDER BY 1";
        let mut select = db.prepare(each).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_is_made_waited_for_and_used_and_is_written_nowhere() {
    let mut home = Home::new().await;
    // Two keys of Vault's making.
    let (code, said) = home.maker(&["fingerprint-key"]);
    assert!(code == Some(0) && said.contains("wrapped by Vault"), "{said}");
    let (code, said) = home.maker(&["fingerprint-key", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["wrapped"]), (Some(0), &json!(true)), "{said}");
    let text = fs::read_to_string(home.file("fingerprint.keys")).unwrap();
    assert!(text.lines().all(|line| line.contains(" vault:v1:")), "{text}");
    let (code, said) = home.maker(&["check"]);
    assert!(
        code == Some(0) && said.contains(&format!("wrapped by {}/curfew-fingerprint in test", home.mount)),
        "{said}"
    );

    // Vault is away at the start: the process runs, and reports wait at their senders.
    home.vault.off();
    let mut running = home.start("log");
    running.says("curfew runs").await;
    running.says("without its keys nothing is fingerprinted").await;
    let (status, said) = home.report().await;
    assert_eq!((status, &said["reason"]), (503, &json!("fingerprint_key")), "{said}");
    let publish = ["publish", "finding", "--from", "gitleaks", "--repository", "o/r", "report.json"];
    let (code, said) = home.fails(&[], &publish);
    assert!(code == Some(69) && said.contains("Vault does not unwrap keys now"), "{said}");
    home.vault.on();
    running.says("Vault has unwrapped the fingerprint keys").await;
    let (status, said) = home.report().await;
    assert_eq!((status, &said["accepted"]), (200, &json!(1)), "{said}");
    // The command comes to the same fingerprints, by the configured login or by the caller's.
    let unwrap = home.logins.0.clone();
    for env in [&[][..], &[("VAULT_TOKEN", unwrap.as_str())]] {
        let (code, said) = home.written.command_with(home.folder.path(), env, &publish);
        assert!(code == Some(0) && said.starts_with("1 findings to "), "{said}");
    }
    let keys = home.keys().await;
    let lines: String = keys.iter().map(|(kid, key)| format!("{kid} {}\n", hex::encode(key))).collect();
    let mut expected = Keys::parse(lines.as_bytes()).unwrap().of("a secret value");
    expected.sort();
    assert_eq!(home.found(), expected.iter().map(ToString::to_string).collect::<Vec<_>>());

    // Wrapped anew, they are the same keys.
    home.admin.done("POST", &format!("{}/keys/curfew-fingerprint/rotate", home.mount), Value::Null).await;
    let (code, said) = home.maker(&["fingerprint-key", "--rewrap"]);
    assert!(code == Some(0) && said.contains("the keys are the same"), "{said}");
    assert_eq!(home.keys().await, keys);
    let (status, said) = home.report().await;
    assert_eq!((status, &said["duplicates"]), (200, &json!(1)), "{said}");
    assert_eq!(running.end(), Some(0));

    for file in ["curfew.db", "log", "fingerprint.keys", "curfew.yaml"] {
        home.written.put(file, &fs::read(home.file(file)).unwrap());
    }
    home.written.put("rows of curfew.db", &rows(&home.file("curfew.db")));
    let mut secrets = BTreeMap::from([
        ("the login that unwraps".to_owned(), home.logins.0.clone()),
        ("the login that makes".to_owned(), home.logins.1.clone()),
    ]);
    for (kid, key) in &keys {
        // The scanner looks for base64 and hex of a text; of a key those two are the texts.
        secrets.insert(format!("{kid} in hex"), hex::encode(key));
        secrets.insert(format!("{kid} in base64"), STANDARD.encode(key));
    }
    let scanner = Scanner::new(&secrets);
    let control: Vec<String> = keys.values().map(|key| STANDARD.encode(key)).collect();
    assert_eq!(scanner.names(control.join(" ").as_bytes()).len(), 2, "the control");
    home.written.assert_clean(&scanner);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_will_not_be_unwrapped_end_the_start() {
    let mut home = Home::new().await;
    let publish = ["publish", "finding", "--from", "gitleaks", "--repository", "o/r", "report.json", "--dry-run"];
    let ends = async |home: &Home, words: &str| {
        let mut running = home.start("log");
        until(words, || {
            let log = running.log();
            async move { log.contains(words).then_some(()) }
        })
        .await;
        assert_eq!(running.child.wait().unwrap().code(), Some(69), "{}", running.log());
    };
    assert_eq!(home.maker(&["fingerprint-key"]).0, Some(0));
    // A key that did not wrap them; no such key; a login without the right; none at all.
    home.admin.done("POST", &format!("{}/keys/other", home.mount), json!({})).await;
    home.configure("other");
    ends(&home, "has no right to `update`").await;
    let root = env("CURFEW_TEST_VAULT_TOKEN");
    let (code, said) = home.fails(&[("VAULT_TOKEN", &root)], &publish);
    assert!(code == Some(69) && said.contains("this transit key did not wrap it"), "{said}");
    home.configure("absent");
    let (code, said) = home.fails(&[("VAULT_TOKEN", &root)], &publish);
    assert!(code == Some(69) && said.contains("Vault has no transit key absent"), "{said}");
    home.configure("curfew-fingerprint");
    private(home.file("unwrap.token"), "hvs.nobody");
    ends(&home, "Vault refuses the login").await;
    private(home.file("unwrap.token"), &home.logins.0.clone());
    // Who uses keys makes none.
    let (code, said) = home.fails(&[], &["fingerprint-key"]);
    assert!(code == Some(69) && said.contains("datakey/wrapped"), "{said}");
    // Without a configuration: the flag, VAULT_ADDR and VAULT_TOKEN.
    let (address, uses, makes) = (home.admin.address.clone(), home.logins.0.clone(), home.logins.1.clone());
    fs::remove_file(home.file("curfew.yaml")).unwrap();
    let key = format!("{}/curfew-fingerprint", home.mount);
    let with = [&publish[..], &["--fingerprint-key", "fingerprint.keys"]].concat();
    let env = [("VAULT_ADDR", address.as_str()), ("VAULT_TOKEN", uses.as_str())];
    let (code, said) = home.fails(&env, &with);
    assert!(code == Some(65) && said.contains("--transit MOUNT/KEY"), "{said}");
    let with = [&with[..], &["--transit", &key]].concat();
    let (code, said) = home.fails(&[], &with);
    assert!(code == Some(2) && said.contains("VAULT_TOKEN"), "{said}");
    let (code, said) = home.fails(&[("VAULT_TOKEN", &uses)], &with);
    assert!(code == Some(2) && said.contains("VAULT_ADDR"), "{said}");
    assert_eq!(home.written.command_with(home.folder.path(), &env, &with).0, Some(0));
    let env = [("VAULT_ADDR", address.as_str()), ("VAULT_TOKEN", makes.as_str())];
    let new = ["fingerprint-key", "new.keys", "--transit", &key];
    assert_eq!(home.written.command_with(home.folder.path(), &env, &new).0, Some(0));
    assert!(fs::read_to_string(home.file("new.keys")).unwrap().contains(" vault:v1:"));
    let (code, _) = home.fails(&env, &["fingerprint-key", "new.keys", "--transit", "transit"]);
    assert_eq!(code, Some(2), "a mount and a key");
}
