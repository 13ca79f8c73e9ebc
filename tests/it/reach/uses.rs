//! What an AppRole of a real Vault uses, by that Vault's own audit device: policies are taken or stay, and the log is rotated.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use super::story::Desk;
use super::*;
use crate::world::until;

const OFFICE: &str = "
zones: [{name: office}]
targets: [{name: wiki, zone: office, opened_by: [prod/kv/other/key]}]
";

/// A Vault with an audit device, an AppRole with policies, and a Curfew that reads both.
struct Office {
    tower: Tower,
    desk: RefCell<Desk>,
    log: PathBuf,
    secret: Value,
    tokens: RefCell<Vec<String>>,
    _folder: tempfile::TempDir,
}

/// The role's policies: what each lets read.
const PAGES: [(&str, &str); 3] = [("office", "other/key"), ("cards", "app/open"), ("books", "app/deep/key")];

impl Office {
    async fn open(notice: &str, then: &str, sort: &str) -> Self {
        let tower = Tower::new().await;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        let admin = &tower.admin;
        Self::device(admin, &log).await;
        for (policy, page) in PAGES {
            let text = format!("path \"kv/data/{page}\" {{ capabilities = [\"read\"] }}");
            admin.done("PUT", &format!("sys/policies/acl/{policy}"), json!({ "policy": text })).await;
            admin.done("POST", &format!("kv/data/{page}"), json!({"data": {"page": "c4nary-of-the-audit-log"}})).await;
        }
        let policies = json!({"token_policies": ["office", "cards", "books"]});
        admin.done("POST", "auth/approle/role/agent", policies).await;
        let (_, id) = admin.call("GET", "auth/approle/role/agent/role-id", Value::Null).await;
        let (_, made) = admin.call("POST", "auth/approle/role/agent/secret-id", json!({})).await;
        let secret = json!({"role_id": id["data"]["role_id"], "secret_id": made["data"]["secret_id"]});
        let reads = admin.token_of(&[&admin.policy("reach", &[]).await]).await;
        let policy = admin.policy("reduce", &[("role/etl", "role/agent")]).await;
        let reduce = admin.token(json!({"policies": [policy], "no_default_policy": true, "period": "1h"})).await.1;
        let desk = Desk::open_with(
            &tower,
            OFFICE,
            &reads,
            json!({
                "mode": "enforce",
                "reduce": reduce,
                "reductions": [{"system": "prod", "identities": ["approle/agent"], "token_file": "reduce.token"}],
                "policy": {"findings": [{"when": {"detector": [format!("curfew:{sort}")]}, "then": then, "notice": notice}]},
                "uses": [{"realm": "prod", "audit_log": &log, "stale_after": "5s"}],
                "finds": {"sorts": [sort], "unused_after": "8s", "youngest": "1s", "strongest": "revoke"},
                "rotations": [{"name": "agent", "approle": {"realm": "prod", "role": "agent"},
                    "store": {"realm": "prod", "mount": "kv", "path": "agents/agent", "field": "secret_id"}}],
            }),
        )
        .await;
        Self { tower, desk: RefCell::new(desk), log, secret, tokens: RefCell::default(), _folder: folder }
    }

    /// A new audit device on the same path opens the file anew, as a Vault does at SIGHUP.
    async fn device(admin: &Admin, log: &std::path::Path) {
        admin.call("DELETE", "sys/audit/file", Value::Null).await;
        admin.done("PUT", "sys/audit/file", json!({"type": "file", "options": {"file_path": log}})).await;
    }

    /// The agent works: it reads a page.
    async fn reads(&self, page: &str) -> bool {
        let (_, login) = self.tower.admin.call("POST", "auth/approle/login", self.secret.clone()).await;
        let token = login["auth"]["client_token"].as_str().unwrap().to_owned();
        let status = self.tower.admin.call_as(&token, "GET", &format!("kv/data/{page}"), Value::Null).await.0;
        self.tokens.borrow_mut().push(token);
        status == 200
    }

    /// Works at the office until a case is as it is waited for.
    async fn case(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || async {
            assert!(self.reads("other/key").await, "its work goes on");
            let all = self.desk.borrow_mut().json(&["cases", "--closed"]);
            all.as_array().unwrap().iter().find(|line| is_it(line)).cloned()
        })
        .await
    }

    fn unused(&self) -> Value {
        self.desk.borrow_mut().json(&["reach", "--unused", "8s"])["told"]["unused"].clone()
    }

    /// Why a policy of the role is not called unused; null: it is.
    fn why(&self, policy: &str) -> Value {
        let all = self.unused();
        let line = all["lines"].as_array().unwrap().iter().find(|line| {
            line["node"] == "identity:prod/approle/agent" && line["policy"] == format!("policy:prod/{policy}")
        });
        line.map_or(json!("not there"), |line| line["why"].clone())
    }

    async fn policies(&self) -> Value {
        let (_, role) = self.tower.admin.call("GET", "auth/approle/role/agent", Value::Null).await;
        let mut all: Vec<String> = serde_json::from_value(role["data"]["token_policies"].clone()).unwrap();
        all.sort_unstable();
        json!(all)
    }

    /// Nothing of the log is anywhere but names and times.
    fn nothing_leaked(&self) {
        let mut desk = self.desk.borrow_mut();
        desk.running.take().unwrap().end();
        let folder = desk.folder.path();
        let written = ["log", "curfew.db", "curfew.db-wal"].map(|name| fs::read(folder.join(name)).unwrap_or_default());
        let audit = fs::read_to_string(&self.log).unwrap();
        let hmacs: Vec<&str> = audit.split("hmac-sha256:").skip(1).filter_map(|rest| rest.get(..24)).collect();
        assert!(hmacs.len() > 100);
        let mut secrets: Vec<String> = hmacs.into_iter().map(str::to_owned).collect();
        secrets.extend(self.tokens.borrow().iter().cloned());
        secrets.push(self.secret["secret_id"].as_str().unwrap().to_owned());
        secrets.push(self.secret["role_id"].as_str().unwrap().to_owned());
        secrets.push("c4nary-of-the-audit-log".to_owned());
        secrets.sort_unstable();
        secrets.dedup();
        let finder = aho_corasick::AhoCorasick::new(&secrets).unwrap();
        for bytes in written {
            let found = finder.find(&bytes);
            assert!(found.is_none(), "something of the audit log was written: {found:?}");
        }
        assert!(finder.find(&audit).is_some(), "what is looked for is found where it stands");
    }
}

fn is_held(line: &Value) -> bool {
    line["case"]["directive"]["action"] == "reduce" && line["case"]["state"].to_string().contains("notice")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_grants_nothing_goes_after_notice_and_one_that_is_used_meanwhile_stays() {
    let office = Office::open("12s", "reduce", "unused").await;
    assert!(office.reads("other/key").await);
    let line = office.case("the notice", is_held).await;
    let frozen = json!(["policy:books", "policy:cards"]);
    assert_eq!(line["case"]["directive"]["cut"]["permissions"], frozen, "what it works with is not among them");
    assert_eq!((office.why("office"), office.why("default")), (json!("used"), json!("default")));
    assert!(office.reads("app/open").await, "used between notice and end");
    let line = office.case("the end", |line| !line["closed_ms"].is_null()).await;
    assert_eq!((&line["verdict"]["state"], &line["verdict"]["taken"]), (&json!("reduced"), &json!(1)), "{line}");
    assert_eq!(line["case"]["directive"]["cut"]["permissions"], frozen, "what was frozen can still be read");
    assert_eq!(office.policies().await, json!(["cards", "office"]));
    assert!(office.reads("app/open").await && !office.reads("app/deep/key").await);
    let (_, said) = office.desk.borrow_mut().ask(&["case", line["case"]["id"].as_str().unwrap()]);
    assert!(said.contains("spared") && said.contains("policy:cards"), "{said}");
    office.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn use_between_notice_and_end_keeps_all_of_it_and_what_was_missed_is_not_silence() {
    let mut office = Office::open("1h", "reduce", "unused").await;
    office.case("the notice", is_held).await;
    let since = office.unused()["logs"][0]["since_ms"].clone();
    assert!(since.is_i64());

    // Renamed, and opened anew, while nobody reads: nothing is missed.
    office.desk.borrow_mut().running.take().unwrap().end();
    assert!(office.reads("app/open").await, "in the old file");
    fs::rename(&office.log, office.log.with_extension("log.1")).unwrap();
    Office::device(&office.tower.admin, &office.log).await;
    assert!(office.reads("app/deep/key").await, "in the new one");
    office.desk.get_mut().run().await;
    let line = office.case("its end", |line| !line["closed_ms"].is_null()).await;
    assert_eq!(line["verdict"]["state"], "obsolete", "{line}");
    assert_eq!(office.policies().await, json!(["books", "cards", "office"]), "nothing was taken");
    assert_eq!(office.unused()["logs"][0]["since_ms"], since, "it was read without a gap");

    // Cut short: what stood there may not have been read.
    fs::File::options().write(true).open(&office.log).unwrap().set_len(0).unwrap();
    until("the gap", || async {
        office.reads("other/key").await;
        let now = office.unused()["logs"][0]["since_ms"].clone();
        (now.as_i64() > since.as_i64()).then_some(())
    })
    .await;
    assert_eq!(office.why("cards"), "unwatched");
    office.nothing_leaked();
}
