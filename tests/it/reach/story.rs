//! The real binary: what it reads, what it says, and how a deployment pipeline asks it.

mod courier;

use std::fs;

use super::*;
use crate::canary::{Running, Written, curfew, port, private};
use crate::world::until;

/// A folder with a configuration, and a Curfew that reads.
pub(super) struct Desk {
    pub(super) folder: tempfile::TempDir,
    pub(super) http: u16,
    pub(super) running: Option<Running>,
    said: Written,
}

impl Desk {
    async fn open(tower: &Tower, declared: &str, token: &str) -> Self {
        Self::open_with(tower, declared, token, json!({})).await
    }

    pub(super) async fn open_with(tower: &Tower, declared: &str, token: &str, more: Value) -> Self {
        let (folder, http) = (tempfile::tempdir().unwrap(), port());
        let at = |name: &str| folder.path().join(name);
        private(at("token"), &tower.admin.curfew_token().await);
        private(at("reach.token"), token);
        private(at("pg.url"), &Postgres::shared().url);
        private(at("page.token"), "page-token-of-this-test");
        fs::write(at("inventory.yaml"), declared).unwrap();
        let mut config = json!({
            "topics": {"curfew.tasks": {"strongest": "track"}},
            "http": {"listen": format!("127.0.0.1:{http}"), "reach": {"token_file": "page.token"}},
            "metrics": {"listen": format!("127.0.0.1:{}", port())},
            "realms": [{"name": "prod", "vault": {"address": &tower.admin.address, "token_file": "token"},
                "allowed_prefixes": ["db/creds/"], "targets": [{"prefix": "db/creds/", "target": "appdb"}]}],
            "targets": [{"name": "appdb", "postgres": {"url_file": "pg.url"}}],
            "reach": {"every": "1s", "declared": "inventory.yaml",
                "vaults": [{"realm": "prod", "token_file": "reach.token"}], "databases": [{"target": "appdb"}]},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            match name.as_str() {
                "finds" | "uses" => config["reach"][name] = value.clone(),
                "mode" => config["realms"][0]["mode"] = value.clone(),
                "reduce" => drop(private(at("reduce.token"), value.as_str().unwrap())),
                name => config[name] = value.clone(),
            }
        }
        fs::write(at("curfew.yaml"), config.to_string()).unwrap();
        let mut desk = Self { folder, http, running: None, said: Written::default() };
        desk.run().await;
        desk
    }

    /// Starts it, once more where it has ended.
    pub(super) async fn run(&mut self) {
        let mut command = curfew(self.folder.path());
        command.env("RUST_LOG", "info").arg("run");
        let mut running = Running::start(command, self.folder.path().join("log"));
        running.says("curfew runs").await;
        self.running = Some(running);
    }

    pub(super) fn ask(&mut self, args: &[&str]) -> (Option<i32>, String) {
        self.said.command(self.folder.path(), args)
    }

    pub(super) fn json(&mut self, args: &[&str]) -> Value {
        let (_, said) = self.ask(&[args, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{args:?}: {said}"))
    }

    /// Until each source was read whole, and Vault's once more since it heard of what others name.
    async fn whole(&mut self) {
        let mut first = None;
        let desk = std::cell::RefCell::new(self);
        until("all sources to be whole", || {
            let answer = desk.borrow_mut().json(&["reach", "--sources"]);
            let read = answer["sources"]
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["name"] == "vault:prod")
                .map(|one| one["whole_ms"].clone());
            let whole = answer["whole"] == true;
            let again = whole && *first.get_or_insert(read.clone()) != read;
            async move { again.then_some(()) }
        })
        .await;
    }
}

const DECLARED: &str = "
zones: [{name: pci, weight: 10}, {name: office}]
targets: [{name: payments, zone: pci, opened_by: [prod/kv/app/open]}, {name: appdb, zone: office, owner: dba}]
places: [{path: 'prod/kv/other/key'}, {path: 'prod/kv/app/secret', zone: pci}]
identities:
  - {id: 'identity:prod/approle/etl', owner: data, may: {zones: [pci]}}
  - {id: 'identity:prod/entity/ana', owner: people, may: {zones: [office]}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_asks_before_it_lets_an_identity_in() {
    let tower = Tower::new().await;
    let login = tower.admin.token_of(&[&tower.admin.policy("reach", &[]).await]).await;
    let mut desk = Desk::open(&tower, DECLARED, &login).await;
    desk.whole().await;

    let (code, said) = desk.ask(&["reach", "approle/etl"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("target:payments") && said.contains("owner         data"), "{said}");
    assert!(!said.contains("kv/app/secret"), "its policy denies that: {said}");
    let crossing = desk.json(&["reach", "--crosses-zones"]);
    let all: Vec<&str> = crossing["told"]["lines"]["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line["node"].as_str())
        .collect();
    assert_eq!(
        all,
        ["identity:prod/entity/ana", "identity:prod/userpass/ana"],
        "by its group it mints at the office, and makes secret_ids of who reads cards"
    );

    // Within what was declared, beyond it, and nothing declared.
    assert_eq!(desk.ask(&["reach", "--gate", "identity:prod/approle/etl"]).0, Some(0));
    let (code, said) = desk.ask(&["reach", "--gate", "identity:prod/entity/ana"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("in zones pci") && said.contains("target:payments"), "{said}");
    let (code, said) = desk.ask(&["reach", "--gate", "policy:prod/etl"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing is declared"), "{said}");
    assert_eq!(desk.ask(&["reach", "nobody-at-all"]).0, Some(1));

    let picture = desk.folder.path().join("reach.svg");
    desk.ask(&["reach", "identity:prod/entity/ana", "--svg", picture.to_str().unwrap()]);
    assert!(fs::read_to_string(&picture).unwrap().contains("payments"));

    over_http(&desk).await;

    // Without a running process the journal answers.
    desk.running.take().unwrap().end();
    let (code, said) = desk.ask(&["reach", "--who", "target:payments"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("identity:prod/approle/etl"), "{said}");
}

async fn over_http(desk: &Desk) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |query: &str, token: &str| {
        http.get(format!("http://127.0.0.1:{}/reach?{query}", desk.http)).bearer_auth(token).send()
    };
    let token = "page-token-of-this-test";
    let answer: Value = get("ask=gate&id=identity:prod/entity/ana", token).await.unwrap().json().await.unwrap();
    assert_eq!(answer["told"]["gate"]["zones"], json!(["zone:pci"]));
    let picture = get("ask=of&id=identity:prod/entity/ana&format=svg", token).await.unwrap();
    assert_eq!(picture.headers()["content-type"], "image/svg+xml");
    let intake = fs::read_to_string(desk.folder.path().join("intake.token")).unwrap();
    for (query, token, status) in [
        ("ask=sources", "wrong-token-of-nobody", 401),
        // Who may produce may not look.
        ("ask=sources", intake.trim(), 401),
        ("ask=of", token, 400),
        ("ask=dormant&for=tomorrow", token, 400),
        ("ask=sources&format=svg", token, 400),
        ("ask=sources&more=1", token, 400),
        ("ask=of&id=identity:prod/nobody", token, 404),
    ] {
        assert_eq!(get(query, token).await.unwrap().status(), status, "{query}");
    }
    let long = format!("ask=of&id={}", "a".repeat(5_000));
    assert_eq!(get(&long, token).await.unwrap().status(), 414);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_does_not_open_on_half_the_truth() {
    let tower = Tower::new().await;
    // A login that may list no policies.
    let own =
        ["sys/mounts", "auth/token/lookup-self"].map(|path| format!("path \"{path}\" {{ capabilities = [\"read\"] }}"));
    tower.admin.done("PUT", "sys/policies/acl/blind", json!({"policy": own.join("\n")})).await;
    let login = tower.admin.token_of(&["blind"]).await;
    let mut desk = Desk::open(&tower, DECLARED, &login).await;
    let desk_ref = std::cell::RefCell::new(&mut desk);
    until("the Vault to be read in part", || {
        let answer = desk_ref.borrow_mut().json(&["reach", "--sources"]);
        let part = answer["sources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "vault:prod" && one["standing"] == "partial");
        async move { part.then_some(()) }
    })
    .await;
    // It opens nothing that is known, and that says nothing.
    assert_eq!(desk.ask(&["reach", "--gate", "identity:prod/approle/etl"]).0, Some(69));
    // A mistake in what people say keeps what they said before.
    fs::write(desk.folder.path().join("inventory.yaml"), "targets: [{name: payments, zone: nowhere}]").unwrap();
    let desk_ref = std::cell::RefCell::new(&mut desk);
    until("the mistake to be noticed", || {
        let answer = desk_ref.borrow_mut().json(&["reach", "--who", "zone:pci"]);
        let lines = answer["told"]["lines"]["total"].clone();
        let said = answer["sources"].to_string().contains("nowhere");
        assert!(lines.is_u64());
        async move { said.then_some(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_credential_is_a_finding_until_it_is_not_shared() {
    let tower = Tower::new().await;
    let login = tower.admin.token_of(&[&tower.admin.policy("reach", &[]).await]).await;
    let shared = "urn:curfew:cred:postgres-role:appdb:orders";
    let agents = |names: &[&str]| {
        let one = |name: &&str| format!("{{name: {name}, as: ['{shared}']}}");
        format!("agents: [{}]", names.iter().map(one).collect::<Vec<_>>().join(", "))
    };
    let mut desk = Desk::open_with(
        &tower,
        &agents(&["triage", "report"]),
        &login,
        json!({
            "rotations": [{"name": "orders", "target": "appdb", "roles": ["orders"],
                "store": {"realm": "prod", "mount": "kv", "path": "app/orders", "field": "password"}}],
            "finds": {"sorts": ["shared"]},
        }),
    )
    .await;
    let found = |desk: &mut Desk, phase: &'static str| {
        let said = desk.json(&["findings", "--all"]);
        said.as_array().unwrap().iter().find(|one| one["detector"] == "curfew:shared" && one["phase"] == phase).cloned()
    };
    let cell = std::cell::RefCell::new(&mut desk);
    let finding = until("the finding", || {
        let found = found(&mut cell.borrow_mut(), "matched");
        async move { found }
    })
    .await;
    assert_eq!(finding["place"], "used by report, triage");
    assert_eq!(finding["credentials"], json!([shared]));
    let cases = desk.json(&["cases", "--state", "held"]);
    assert_eq!(cases.as_array().unwrap().len(), 1, "{cases}");
    assert_eq!(cases[0]["case"]["directive"]["credential"], shared);
    assert_eq!(cases[0]["case"]["directive"]["held"], "finding", "a person decides: no rule names it");

    fs::write(desk.folder.path().join("inventory.yaml"), agents(&["triage"])).unwrap();
    let cell = std::cell::RefCell::new(&mut desk);
    until("its end", || {
        let found = found(&mut cell.borrow_mut(), "closed");
        async move { found }
    })
    .await;
    let cell = std::cell::RefCell::new(&mut desk);
    until("its case to close", || {
        let open = cell.borrow_mut().json(&["cases"]);
        async move { open.as_array().unwrap().is_empty().then_some(()) }
    })
    .await;
}

/// An AppRole of two policies: one for the office, and one by which it reads cards.
const AGENT: &str = "
zones: [{name: pci, weight: 10}, {name: office}]
targets: [{name: payments, zone: pci, opened_by: [prod/kv/app/open]}, {name: wiki, zone: office, opened_by: [prod/kv/other/key]}]
identities: [{id: 'identity:prod/approle/agent', owner: team-ai, may: {zones: [office]}}]
";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reaches_two_zones_ends_with_one_and_its_task_goes_on() {
    let tower = Tower::new().await;
    let login = tower.admin.token_of(&[&tower.admin.policy("reach", &[]).await]).await;
    let office = "path \"kv/data/other/key\" { capabilities = [\"read\"] }";
    tower.admin.done("PUT", "sys/policies/acl/office", json!({ "policy": office })).await;
    tower.admin.done("POST", "kv/data/other/key", json!({"data": {"page": "1"}})).await;
    tower.admin.done("POST", "auth/approle/role/agent", json!({"token_policies": ["etl", "office"]})).await;
    let (_, id) = tower.admin.call("GET", "auth/approle/role/agent/role-id", Value::Null).await;
    let (_, made) = tower.admin.call("POST", "auth/approle/role/agent/secret-id", json!({})).await;
    let secret = json!({"role_id": id["data"]["role_id"], "secret_id": made["data"]["secret_id"]});
    let policy = tower.admin.policy("reduce", &[("role/etl", "role/agent")]).await;
    let reduce = tower.admin.token(json!({"policies": [policy], "no_default_policy": true, "period": "1h"})).await.1;
    let mut desk = Desk::open_with(
        &tower,
        AGENT,
        &login,
        json!({
            "mode": "enforce",
            "reduce": &reduce,
            "reductions": [{"system": "prod", "identities": ["approle/agent"], "token_file": "reduce.token"}],
            "policy": {"findings": [{"when": {"detector": ["curfew:beyond"]}, "then": "reduce", "notice": "3s"}]},
            "finds": {"sorts": ["beyond"], "strongest": "reduce"},
            "rotations": [{"name": "agent", "approle": {"realm": "prod", "role": "agent"},
                "store": {"realm": "prod", "mount": "kv", "path": "agents/agent", "field": "secret_id"}}],
        }),
    )
    .await;
    let cell = std::cell::RefCell::new(&mut desk);
    let case = |verdict: &'static str| {
        let cell = &cell;
        async move {
            until(verdict, || {
                let all = cell.borrow_mut().json(&["cases", "--closed"]);
                let found = all.as_array().unwrap().iter().find(|line| line["verdict"]["state"] == verdict).cloned();
                async move { found }
            })
            .await
        }
    };
    let reads = async |place: &str| {
        let (_, login) = tower.admin.call("POST", "auth/approle/login", secret.clone()).await;
        let token = login["auth"]["client_token"].as_str().unwrap().to_owned();
        tower.admin.call_as(&token, "GET", place, Value::Null).await.0 == 200
    };
    let line = case("reduced").await;
    assert_eq!(line["case"]["directive"]["cut"]["permissions"], json!(["policy:etl"]), "what it needs stays");
    assert_eq!(line["verdict"]["taken"], 1);
    assert_eq!(line["case"]["blast"], 11, "the payments and the wiki, as they weigh");
    assert!(!reads("kv/data/app/open").await, "cards");
    assert!(reads("kv/data/other/key").await, "its work goes on");
    let id = line["case"]["id"].as_str().unwrap().to_owned();
    let (code, said) = cell.borrow_mut().ask(&["case", &id]);
    assert_eq!(code, Some(0));
    assert!(said.contains("policy:etl") && said.contains("not before") && said.contains("it has policy:etl"), "{said}");
    assert!(said.contains("opens       11 (blast radius)"), "{said}");
    let (code, said) = cell.borrow_mut().ask(&["rollback", &id, "--reason", "the audit needs it"]);
    assert_eq!(code, Some(0), "{said}");
    let back = case("rolled_back").await;
    assert_eq!(back["case"]["directive"]["action"], "restore");
    let (_, role) = tower.admin.call("GET", "auth/approle/role/agent", Value::Null).await;
    let role = role["data"]["token_policies"].clone();
    assert!(
        role == json!(["etl", "office"]) || role == json!(["office"]),
        "given back; or found again, and taken: {role}"
    );
    desk.running.take().unwrap().end();
    let log = fs::read_to_string(desk.folder.path().join("log")).unwrap();
    assert!(log.contains("curfew runs"), "{log}");
    let journal = fs::read(desk.folder.path().join("curfew.db")).unwrap();
    for secret in [reduce.as_str(), &login, secret["secret_id"].as_str().unwrap(), secret["role_id"].as_str().unwrap()]
    {
        assert!(!log.contains(secret), "a secret is in the log");
        assert!(!journal.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "a secret is in the journal");
    }
}

/// An agent that works as two AppRoles; another one, for which somebody answers.
const LEAVER: &str = "
agents: [{name: triage, owner: team-ai, as: ['identity:prod/approle/agent', 'identity:prod/approle/second']}]
identities: [{id: 'identity:prod/approle/etl', owner: bob}]
";

/// A role, and a secret_id of it; how to log in by that.
pub(super) async fn minted(tower: &Tower, role: &str) -> (String, Value) {
    let (_, id) = tower.admin.call("GET", &format!("auth/approle/role/{role}/role-id"), Value::Null).await;
    let (_, made) = tower.admin.call("POST", &format!("auth/approle/role/{role}/secret-id"), json!({})).await;
    let accessor = made["data"]["secret_id_accessor"].as_str().unwrap();
    let login = json!({"role_id": id["data"]["role_id"], "secret_id": made["data"]["secret_id"]});
    (format!("urn:curfew:cred:vault-secret-id:prod:approle/{role}/{accessor}"), login)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_fenced_and_what_is_minted_for_it_later_is_found_as_well() {
    let tower = Tower::new().await;
    let login = tower.admin.token_of(&[&tower.admin.policy("reach", &[]).await]).await;
    for role in ["agent", "second"] {
        let settings = json!({"token_policies": ["etl"], "token_bound_cidrs": ["127.0.0.0/8"]});
        tower.admin.done("POST", &format!("auth/approle/role/{role}"), settings).await;
    }
    let mut policies = Vec::new();
    for role in ["role/agent", "role/second"] {
        policies.push(tower.admin.policy("reduce", &[("role/etl", role)]).await);
    }
    let login_of = json!({"policies": policies, "no_default_policy": true, "period": "1h"});
    let reduce = tower.admin.token(login_of).await.1;
    let events = ["credential.registered", "identity.offboarded"];
    let mut desk = Desk::open_with(
        &tower,
        LEAVER,
        &login,
        json!({
            "topics": {"curfew.tasks": {"strongest": "revoke", "events": events}},
            "realms": [{"name": "prod", "mode": "enforce", "derived_tokens": true,
                "vault": {"address": &tower.admin.address, "token_file": "token"},
                "allowed_prefixes": ["approle/agent", "approle/second", "approle/etl", "db/creds/"]}],
            "reduce": &reduce,
            "reductions": [{"system": "prod", "identities": ["approle/agent", "approle/second"], "token_file": "reduce.token"}],
            "finds": {"sorts": ["unowned"]},
        }),
    )
    .await;
    let folder = desk.folder.path().to_owned();
    let cell = std::cell::RefCell::new(&mut desk);
    let mut no = 0;
    let mut tell = |kind: &str, data: Value| {
        no += 1;
        let event = json!({"specversion": "1.0", "type": format!("dev.curfew.{kind}.v1"), "source": "/hr",
            "id": format!("{kind}-{no}"), "data": data});
        fs::write(folder.join("event.json"), event.to_string()).unwrap();
        let (code, said) = cell.borrow_mut().ask(&["publish", "event.json"]);
        assert_eq!(code, Some(0), "{said}");
    };
    let role = async |name: &str| {
        tower.admin.call("GET", &format!("auth/approle/role/{name}"), Value::Null).await.1["data"].clone()
    };
    let lets_in = async |login: &Value| tower.admin.call("POST", "auth/approle/login", login.clone()).await.0 == 200;
    let closed = |credential: String, verdict: &'static str| {
        let cell = &cell;
        async move {
            until(verdict, || {
                let all = cell.borrow_mut().json(&["cases", "--closed"]);
                let is_it = |line: &&Value| {
                    line["case"]["directive"]["credential"] == *credential && line["verdict"]["state"] == verdict
                };
                let found = all.as_array().unwrap().iter().find(is_it).cloned();
                async move { found }
            })
            .await
        }
    };
    let (before, (first, by_first)) = (role("agent").await, minted(&tower, "agent").await);
    assert!(lets_in(&by_first).await);
    tell("credential.registered", json!({"cred_id": first}));
    tell("identity.offboarded", json!({"identity": "agent:triage", "reason": "replaced"}));
    let line = closed(first.clone(), "dead").await;
    assert_eq!(line["verdict"]["residue"], json!([]), "closed first, and its tokens ended: {line}");
    assert_eq!(role("agent").await["secret_id_bound_cidrs"], json!(["192.0.2.237/32"]));
    let (later, by_later) = minted(&tower, "agent").await;
    assert!(!lets_in(&by_later).await, "what is minted anew does not let in");

    // The other role of the same agent had nothing that is known until now.
    let (second, by_second) = minted(&tower, "second").await;
    assert!(lets_in(&by_second).await);
    tell("credential.registered", json!({"cred_id": second}));
    closed(second, "dead").await;
    assert!(!lets_in(&by_second).await);
    assert_eq!(role("second").await["token_bound_cidrs"], json!(["192.0.2.237"]));

    // It is a state, and people see it.
    let (code, said) = cell.borrow_mut().ask(&["offboard", "--list"]);
    assert_eq!(code, Some(0));
    for word in ["agent:triage", "replaced", "approle/agent", "approle/second"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (_, said) = cell.borrow_mut().ask(&["reach", "agent:triage"]);
    assert!(said.contains("offboarded    since"), "{said}");
    tell("credential.registered", json!({"cred_id": later}));
    closed(later, "dead").await;

    // It stays after all: what was closed is opened by the case that closed it.
    let id = line["case"]["id"].as_str().unwrap().to_owned();
    let (code, said) = cell.borrow_mut().ask(&["offboard", "agent:triage", "--back", "--reason", "the wrong one"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = cell.borrow_mut().ask(&["rollback", &id, "--reason", "the wrong one"]);
    assert_eq!(code, Some(0), "{said}");
    closed("urn:curfew:cred:vault-approle:prod:approle/agent".to_owned(), "rolled_back").await;
    assert_eq!(role("agent").await, before);

    // An owner leaves: nothing dies, and nobody answers any more for what it answered for.
    let (kept, by_kept) = minted(&tower, "etl").await;
    tell("credential.registered", json!({"cred_id": kept}));
    let (code, said) = cell.borrow_mut().ask(&["offboard", "owner:bob", "--reason", "left"]);
    assert_eq!(code, Some(0), "{said}");
    until("what nobody answers for", || {
        let all = cell.borrow_mut().json(&["findings", "--all"]);
        let is_it = |one: &Value| one["detector"] == "curfew:unowned" && one["credentials"] == json!([kept]);
        let found = all.as_array().unwrap().iter().any(is_it);
        async move { found.then_some(()) }
    })
    .await;
    assert!(lets_in(&by_kept).await);
    // The end of a name says whose it is, and does nothing by itself; nor does one that several have.
    tell("identity.offboarded", json!({"identity": "agent:bob", "reason": "nobody"}));
    let refused = |args: &[&str]| {
        let output = curfew(&folder).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = refused(&["offboard", "approle/etl", "--reason", "r"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("identity:prod/approle/etl") && said.contains("--yes"), "{said}");
    assert_eq!(cell.borrow_mut().ask(&["offboard", "bob", "--back", "--reason", "r"]).0, Some(1), "owner, or agent?");
    let listed = |who: &str| {
        let all = cell.borrow_mut().json(&["offboard", "--list"]);
        all["offboarded"].as_array().unwrap().iter().find(|one| one["node"] == who).cloned()
    };
    assert!(listed("identity:prod/approle/etl").is_none());
    // Of whom nothing is known the word ends some day; of whom something is, it stands.
    let idle = || async { listed("agent:bob").filter(|one| one["ends_ms"].is_i64()) };
    let word = until("nothing to be known", idle).await;
    let at = |name: &str| word[name].as_i64().unwrap();
    assert_eq!(at("ends_ms") - at("idle_since_ms").max(at("until_ms")), 400 * 86_400_000, "{word}");
    assert!(listed("owner:bob").unwrap()["ends_ms"].is_null());
    // Reach is read each second, and whole in between.
    until("the only one whose name ends so", || async {
        let (code, said) = refused(&["offboard", "approle/etl", "--yes", "--reason", "r"]);
        assert!(code == Some(0) || said.contains("not whole"), "{said}");
        (code == Some(0)).then_some(())
    })
    .await;
    assert!(listed("identity:prod/approle/etl").is_some());
    // A mistaken name is nobody.
    assert_eq!(cell.borrow_mut().ask(&["offboard", "agent:triags", "--reason", "r"]).0, Some(1));
    assert_eq!(cell.borrow_mut().ask(&["offboard", "policy:prod/etl", "--reason", "r"]).0, Some(1));

    desk.running.take().unwrap().end();
    let log = fs::read_to_string(desk.folder.path().join("log")).unwrap();
    let journal = fs::read(desk.folder.path().join("curfew.db")).unwrap();
    let secrets = [&by_first, &by_later, &by_second, &by_kept];
    let secrets = secrets.iter().flat_map(|login| [&login["secret_id"], &login["role_id"]]);
    for secret in secrets.map(|one| one.as_str().unwrap()).chain([reduce.as_str(), &login]) {
        assert!(!log.contains(secret), "a secret is in the log");
        assert!(!journal.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "a secret is in the journal");
    }
}
