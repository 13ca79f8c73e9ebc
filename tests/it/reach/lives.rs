//! An AppRole whose tokens live for hours and whose tasks for seconds, by the real binary at a real Vault: found, lowered after its
//! notice, given back; and left alone where tasks take longer, or are too few.

use std::cell::RefCell;
use std::fs;

use super::story::{Desk, minted};
use super::*;
use crate::stage::now_ms;
use crate::world::until;

const AGENT: &str = "urn:curfew:cred:vault-approle:prod:approle/agent";
const OFFICE: &str = "
zones: [{name: office}]
targets: [{name: wiki, zone: office, opened_by: [prod/kv/other/key]}]
";

/// A Vault with the AppRole, and a Curfew that hears of its tasks.
struct Yard {
    tower: Tower,
    desk: RefCell<Desk>,
    secret: Value,
    /// The role's settings as they were.
    before: Value,
    /// Logins of Curfew's own.
    own: [String; 2],
}

impl Yard {
    async fn open(notice: &str) -> Self {
        let rotations = json!([{"name": "agent", "approle": {"realm": "prod", "role": "agent"},
            "store": {"realm": "prod", "mount": "kv", "path": "agents/agent", "field": "secret_id"}}]);
        Self::open_with(notice, rotations).await
    }

    async fn open_with(notice: &str, rotations: Value) -> Self {
        let tower = Tower::new().await;
        let admin = &tower.admin;
        let settings = json!({"token_policies": ["etl"], "token_ttl": "2h", "token_max_ttl": "24h"});
        admin.done("POST", "auth/approle/role/agent", settings).await;
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
                "reduce": &reduce,
                "reductions": [{"system": "prod", "identities": ["approle/agent"], "token_file": "reduce.token"}],
                "policy": {"findings": [{"when": {"detector": ["curfew:long_lived"]}, "then": "reduce", "notice": notice}]},
                "finds": {"sorts": ["long_lived"], "youngest": "1s", "strongest": "reduce", "lives": {"over": "12h"}},
                "rotations": rotations,
                "realms": [{"name": "prod", "mode": "enforce", "secret_id_roles": ["approle/agent"],
                    "vault": {"address": &admin.address, "token_file": "token"},
                    "allowed_prefixes": ["db/creds/"], "targets": [{"prefix": "db/creds/", "target": "appdb"}]}],
                "topics": {"curfew.tasks": {"strongest": "track", "events": ["task.started", "task.ended", "credential.registered"]}},
            }),
        )
        .await;
        let mut yard = Self { tower, desk: RefCell::new(desk), secret, before: Value::Null, own: [reads, reduce] };
        yard.before = yard.role().await;
        yard
    }

    async fn role(&self) -> Value {
        self.tower.admin.call("GET", "auth/approle/role/agent", Value::Null).await.1["data"].clone()
    }

    /// Tasks with these numbers that began `ago` seconds ago and took `took`; `None`: they go on. Until its end is told as well, one
    /// that ended long ago goes on for as long as that.
    fn tasks(&self, numbers: std::ops::Range<usize>, ago: i64, took: Option<i64>) {
        for no in numbers {
            self.task(no, ago, took, json!({"cred_id": AGENT, "tenure": "standing"}));
        }
    }

    /// One that holds this.
    fn task(&self, no: usize, ago: i64, took: Option<i64>, grant: Value) {
        let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
        let event = |kind: &str, mut data: Value| {
            data["run_id"] = json!(format!("load-{no}"));
            data["agent"] = json!({"id": "loader"});
            json!({"specversion": "1.0", "type": format!("dev.curfew.task.{kind}.v1"), "source": "/scheduler",
                "id": format!("{kind}-{no}"), "data": data})
        };
        let from_ms = now_ms() - ago * 1_000;
        let mut events = vec![event("started", json!({"started_at": time(from_ms), "grants": [grant]}))];
        if let Some(took) = took {
            events.push(event("ended", json!({"ended_at": time(from_ms + took * 1_000), "outcome": "success"})));
        }
        self.tell(&json!(events));
    }

    fn tell(&self, events: &Value) {
        let mut desk = self.desk.borrow_mut();
        fs::write(desk.folder.path().join("events.json"), events.to_string()).unwrap();
        let (code, said) = desk.ask(&["publish", "events.json"]);
        assert_eq!(code, Some(0), "{said}");
    }

    /// What is said of the role.
    fn line(&self) -> Value {
        let answer = self.desk.borrow_mut().json(&["reach", "--long-lived"]);
        let lines = answer["told"]["long_lived"]["lines"].as_array().unwrap().clone();
        lines.into_iter().find(|line| line["node"] == "identity:prod/approle/agent").unwrap_or_default()
    }

    async fn says(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || async { Some(self.line()).filter(|line| is_it(line)) }).await
    }

    async fn case(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(what, || async {
            let all = self.desk.borrow_mut().json(&["cases", "--closed"]);
            all.as_array().unwrap().iter().find(|line| is_it(line)).cloned()
        })
        .await
    }

    fn findings(&self) -> Vec<Value> {
        let all = self.desk.borrow_mut().json(&["findings", "--all"]);
        all.as_array().unwrap().iter().filter(|one| one["detector"] == "curfew:long_lived").cloned().collect()
    }

    /// Ends, and nothing that lets in was written.
    fn nothing_leaked(&self) {
        let mut desk = self.desk.borrow_mut();
        desk.running.take().unwrap().end();
        let secrets = [self.secret["secret_id"].as_str().unwrap(), self.secret["role_id"].as_str().unwrap()];
        let secrets: Vec<&str> = secrets.into_iter().chain(self.own.iter().map(String::as_str)).collect();
        let finder = aho_corasick::AhoCorasick::new(&secrets).unwrap();
        for name in ["log", "curfew.db", "curfew.db-wal"] {
            let bytes = fs::read(desk.folder.path().join(name)).unwrap_or_default();
            assert!(finder.find(&bytes).is_none(), "a secret is in {name}");
        }
        assert!(
            finder.find(self.secret.to_string().as_bytes()).is_some(),
            "what is looked for is found where it stands"
        );
    }
}

fn frozen(line: &Value) -> Vec<String> {
    let cut = &line["case"]["directive"]["cut"]["permissions"];
    serde_json::from_value(cut.clone()).unwrap_or_default()
}

fn is_noticed(line: &Value) -> bool {
    line["closed_ms"].is_null() && line["case"]["state"].to_string().contains("notice")
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_outlive_their_tasks_by_hours_live_for_minutes_after_notice_and_one_command_gives_it_back() {
    let mut yard = Yard::open("3s").await;
    assert_eq!((&yard.before["token_ttl"], &yard.before["token_max_ttl"]), (&json!(7_200), &json!(86_400)));
    let admin = &yard.tower.admin;
    let login = async || {
        let (status, login) = admin.call("POST", "auth/approle/login", yard.secret.clone()).await;
        assert_eq!(status, 200, "its secret_id lets it in");
        (login["auth"]["lease_duration"].clone(), login["auth"]["client_token"].as_str().unwrap().to_owned())
    };
    let (given, older) = login().await;
    assert_eq!(given, 7_200);
    yard.tasks(0..25, 40, Some(40));
    let line = yard.case("the end", |line| line["verdict"]["state"] == "reduced").await;
    assert_eq!(frozen(&line), ["lifetime:token_max_ttl=360", "lifetime:token_ttl=360"]);
    assert_eq!(line["verdict"]["taken"], 2);

    // Vault is asked what a login gives now, and what can be had by renewing: of a token that was given before as well.
    let mut expected = yard.before.clone();
    (expected["token_ttl"], expected["token_max_ttl"]) = (json!(360), json!(360));
    assert_eq!(yard.role().await, expected, "these two, and nothing else");
    let (given, newer) = login().await;
    assert_eq!(given, 360);
    for token in [newer, older] {
        let (_, renewed) = admin.call_as(&token, "POST", "auth/token/renew-self", json!({"increment": "24h"})).await;
        let seconds = renewed["auth"]["lease_duration"].as_u64().unwrap();
        assert!((1..=360).contains(&seconds), "{renewed}");
    }
    let fits = yard.says("that it fits", |line| line["why"] == "fits").await;
    assert_eq!((&fits["tasks"], &fits["p99_s"], &fits["tokens_s"]), (&json!(25), &json!(40), &json!(360)));
    let closed = until("its finding to be closed", || async {
        Some(yard.findings()).filter(|all| all.iter().any(|one| one["phase"] == "closed"))
    })
    .await;
    let place = closed[0]["place"].as_str().unwrap();
    assert!(place.contains("live up to 24 h") && place.contains("its 25 tasks took at most 40 s"), "{place}");

    // Looked for no more, so that it is not found once more: what was there before is there again.
    let desk = yard.desk.get_mut();
    desk.running.take().unwrap().end();
    let file = desk.folder.path().join("curfew.yaml");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    config["reach"]["finds"]["sorts"] = json!(["shared"]);
    fs::write(&file, config.to_string()).unwrap();
    desk.run().await;
    let id = line["case"]["id"].as_str().unwrap().to_owned();
    let (code, said) = yard.desk.borrow_mut().ask(&["rollback", &id, "--reason", "the yearly load"]);
    assert_eq!(code, Some(0), "{said}");
    yard.case("it to be given back", |line| line["verdict"]["state"] == "rolled_back").await;
    assert_eq!(yard.role().await, yard.before);
    assert_eq!(login().await.0, 7_200);
    yard.says("that it is long-lived once more", |line| line["why"].is_null()).await;
    let (_, said) = yard.desk.borrow_mut().ask(&["reach", "--long-lived"]);
    assert!(said.contains("yes: lifetime:token_max_ttl=360, lifetime:token_ttl=360"), "{said}");
    over_http(yard.desk.get_mut()).await;
    yard.nothing_leaked();
}

async fn over_http(desk: &Desk) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{}/reach?ask=long_lived&max=1", desk.http);
    let answer: Value =
        http.get(url).bearer_auth("page-token-of-this-test").send().await.unwrap().json().await.unwrap();
    let told = &answer["told"]["long_lived"];
    assert_eq!((&told["long_lived"], told["lines"].as_array().unwrap().len()), (&json!(1), 1), "{answer}");
    assert_eq!(told["lines"][0]["why"], Value::Null, "what is long-lived comes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_takes_longer_during_the_notice_takes_the_notice_back() {
    let yard = Yard::open("1h").await;
    yard.tasks(0..25, 40, Some(40));
    let first = yard.case("the notice", is_noticed).await;
    assert_eq!(frozen(&first), ["lifetime:token_max_ttl=360", "lifetime:token_ttl=360"]);

    // It goes on for four hours by now: two hours suit it no more, a day does.
    yard.tasks(25..26, 4 * 3_600, None);
    let id = &first["case"]["id"];
    let closed = yard
        .case("the first notice to be over", |line| line["case"]["id"] == *id && !line["closed_ms"].is_null())
        .await;
    assert_eq!(closed["verdict"]["state"], "obsolete", "{closed}");
    let second = yard.case("another notice, with less", |line| is_noticed(line) && line["case"]["id"] != *id).await;
    let left = frozen(&second);
    let [only] = &left[..] else { panic!("{left:?}") };
    let seconds: u64 = only.strip_prefix("lifetime:token_max_ttl=").unwrap().parse().unwrap();
    assert!((21_600..=22_500).contains(&seconds), "four hours, and half of it: {seconds}");
    assert_eq!(yard.role().await, yard.before, "nothing was taken");
    let line = yard.line();
    assert!(line["open_s"].as_u64().unwrap() >= 14_400, "{line}");
    yard.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_few_tasks_nothing_is_concluded() {
    let yard = Yard::open("1h").await;
    yard.tasks(0..19, 40, Some(40));
    let line = yard.says("all of them to be counted", |line| line["tasks"] == 19).await;
    assert_eq!((&line["why"], &line["excess"], &line["tokens_s"]), (&json!("few"), &json!([]), &json!(86_400)));
    assert_eq!(yard.findings(), Vec::<Value>::new());
    // One that nobody said the end of makes no number.
    yard.tasks(19..20, 600, None);
    yard.says("the one that goes on", |line| line["open_s"].as_u64().is_some_and(|open_s| open_s >= 600)).await;
    assert_eq!(yard.line()["why"], "few");
    let (_, said) = yard.desk.borrow_mut().ask(&["reach", "--long-lived"]);
    assert!(said.contains("no: too few tasks were seen from start to end"), "{said}");
    // The control: with one more it is found.
    yard.tasks(20..21, 40, Some(40));
    let line = yard.case("the notice", is_noticed).await;
    let named = frozen(&line);
    let seconds = named[0].strip_prefix("lifetime:token_max_ttl=").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!((960..=1_500).contains(&seconds.unwrap()), "ten minutes and more, and the margin: {named:?}");
    assert_eq!(named[1], format!("lifetime:token_ttl={}", seconds.unwrap()));
    yard.nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_each_task_has_a_secret_id_of_its_own_those_live_no_longer_either() {
    let yard = Yard::open_with("3s", json!([])).await;
    assert_eq!(yard.before["secret_id_ttl"], 0, "for ever");
    for no in 0..20 {
        let (secret_id, _) = minted(&yard.tower, "agent").await;
        yard.task(no, 40, Some(40), json!({"cred_id": secret_id, "tenure": "minted"}));
    }
    // Known when Vault said of each when it was issued.
    let all = ["lifetime:secret_id_ttl=360", "lifetime:token_max_ttl=360", "lifetime:token_ttl=360"];
    yard.says("all that is too much", |line| line["excess"] == json!(all)).await;
    assert_eq!(yard.findings(), Vec::<Value>::new(), "the AppRole itself is not known to the journal");
    yard.tell(&json!({"specversion": "1.0", "type": "dev.curfew.credential.registered.v1", "source": "/scheduler",
        "id": "the-role", "data": {"cred_id": AGENT}}));
    let line = yard.case("the end", |line| line["verdict"]["state"] == "reduced").await;
    assert_eq!((frozen(&line), &line["verdict"]["taken"]), (all.map(str::to_owned).to_vec(), &json!(3)));
    let (_, made) = yard.tower.admin.call("POST", "auth/approle/role/agent/secret-id", json!({})).await;
    assert_eq!(made["data"]["secret_id_ttl"], 360, "Vault gives no more");
    let (status, _) = yard.tower.admin.call("POST", "auth/approle/login", yard.secret.clone()).await;
    assert_eq!(status, 200, "what was given before keeps its time");
    yard.nothing_leaked();
}
