//! Nobody registers anything: a workload logs in with what its platform signed, the scheduler tells of its runs as it always
//! did, and what the run held dies with it.

use super::lineage::says;
use super::*;
use crate::vault::bind::Signer;

const NAMESPACE: &str = "prod";

struct Bound {
    world: World,
    topic: String,
    jwt: String,
    signer: Signer,
}

/// A token that was got by a login, and a database lease that was got with it.
struct Login {
    run: String,
    accessor: CredentialId,
    token: String,
    lease: String,
    username: String,
    password: String,
}

impl Bound {
    async fn new() -> Self {
        let world = World::new("enforce").await;
        let (topic, jwt, signer) = (unique("story-bound"), unique("jwt"), Signer::new());
        create(&topic, PARTITIONS).await;
        let admin = &world.admin;
        admin.done("POST", &format!("sys/auth/{jwt}"), json!({"type": "jwt"})).await;
        let keys = json!({"jwt_validation_pubkeys": [signer.public_pem()], "jwt_supported_algs": ["ES256"]});
        admin.done("POST", &format!("auth/{jwt}/config"), keys).await;
        let policy = unique("etl");
        let reads = format!("path \"{}/creds/app\" {{ capabilities = [\"read\"] }}", world.mount);
        admin.done("PUT", &format!("sys/policies/acl/{policy}"), json!({"policy": reads})).await;
        // `task_id` is Airflow's name of what is run, and of no run: what Curfew reads itself must not mislead it.
        let role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": [policy],
            "claim_mappings": {"run_id": "run_id", "task": "task_id"}, "token_ttl": "1h",
        });
        admin.done("POST", &format!("auth/{jwt}/role/etl"), role).await;
        let own = admin.policy("bind", &[("auth/approle", "auth/nobodys-approle")]).await;
        fs::write(world.folder.path().join("bind.token"), admin.token_of(&[&own]).await).unwrap();

        let path = world.folder.path().join("curfew.yaml");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["topics"] = json!({
            &topic: {"format": "openlineage", "sources": ["/openlineage/*"], "strongest": "revoke"},
        });
        config["bindings"] = json!([{
            "realm": "test", "token_file": "bind.token", "every": "1s", "per_second": 1000, "strongest": "revoke",
            "rules": [{
                "tokens_of": format!("auth/{jwt}/login"), "run": format!("/openlineage/{NAMESPACE}:{{run_id}}"),
                "identity": "airflow/{task_id}",
            }],
        }]);
        config["policy"] = json!({"without_credentials": ["/openlineage/reports"]});
        fs::write(&path, config.to_string()).unwrap();
        Self { world, topic, jwt, signer }
    }

    async fn login(&self, run: &str) -> Login {
        let admin = &self.world.admin;
        let claims = json!({"iss": "https://airflow.example", "sub": "airflow", "run_id": run, "task": "load"});
        let body = json!({"role": "etl", "jwt": self.signer.sign(&claims)});
        let (status, answer) = admin.call("POST", &format!("auth/{}/login", self.jwt), body).await;
        assert_eq!(status, 200, "{answer}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let token = text(&answer["auth"]["client_token"]);
        let (status, lease) =
            admin.call_as(&token, "GET", &format!("{}/creds/app", self.world.mount), Value::Null).await;
        assert_eq!(status, 200, "{lease}");
        Login {
            run: run.to_owned(),
            accessor: CredentialId::new(Kind::VaultToken, "test", &text(&answer["auth"]["accessor"])).unwrap(),
            token,
            lease: text(&lease["lease_id"]),
            username: text(&lease["data"]["username"]),
            password: text(&lease["data"]["password"]),
        }
    }

    async fn says(&self, kind: &str, run: &str) {
        says(&self.world.pen, &self.topic, (NAMESPACE, run), kind).await;
    }

    async fn works(&self, login: &Login) -> bool {
        self.world.admin.token_works(&login.token).await
            && self.world.pg.login(&login.username, &login.password).await.is_ok()
    }

    /// Seen dead, by Curfew and by the witness; what was got with it goes with it, by Vault's own doing.
    async fn ended(&self, login: &Login) {
        let credential = login.accessor.as_str();
        until("the token to be seen dead", || async { self.world.told.closed().contains(credential).then_some(()) })
            .await;
        assert!(!self.world.admin.token_works(&login.token).await);
        until("what was got with it to be gone", || async {
            let gone = self.world.pg.login(&login.username, &login.password).await.is_err();
            (gone && !self.world.admin.lease_lives(&login.lease).await).then_some(())
        })
        .await;
        let case = &self.world.cases().await[credential][0];
        assert_eq!(case["verdict"]["state"], "dead", "{case}");
        assert_eq!(case["case"]["directive"]["run"], format!("/openlineage/{NAMESPACE}:{}", login.run), "{case}");
    }

    async fn unbound(&self) -> BTreeSet<String> {
        let lines = self.world.ask_json(&["tasks", "--unbound", "--json"]).await;
        let run = |line: &Value| line["task"]["run"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        lines.as_array().unwrap().iter().map(run).collect()
    }

    async fn figure(&self, name: &str) -> i64 {
        let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.world.metrics)).await.unwrap();
        let page = page.text().await.unwrap();
        page.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_nobody_registered_dies_with_the_run_that_its_metadata_names() {
    let bound = Bound::new().await;
    let world = &bound.world;
    let (first, second, late) = (bound.login("r1").await, bound.login("r2").await, bound.login("r3").await);
    // The same metadata, by hand: whoever can make tokens names no run.
    let meta = json!({"meta": {"run_id": "r1", "task_id": "load"}});
    let (forged, forged_token) = world.admin.token(meta).await;
    let running = world.start();
    running.runs().await;
    for run in ["r1", "r2", "r4"] {
        bound.says("START", run).await;
    }
    let held = until("what both hold", || async {
        let lines = world.ask_json(&["tasks", "--json"]).await;
        let lines = lines.as_array().unwrap().clone();
        let holds = |line: &&Value| line["holds"].as_array().is_some_and(|holds| holds.len() == 1);
        (lines.iter().filter(holds).count() == 3).then_some(lines)
    })
    .await;
    let of_first = held.iter().find(|line| line["holds"][0]["grant"]["credential"] == first.accessor.as_str()).unwrap();
    assert_eq!(of_first["task"]["identity"], "airflow/load", "{of_first}");
    assert_eq!(of_first["holds"][0]["grant"]["topics"], json!(["bind:test"]), "{of_first}");
    for login in [&first, &second, &late] {
        assert!(bound.works(login).await);
    }

    bound.says("COMPLETE", "r1").await;
    bound.ended(&first).await;
    assert!(bound.works(&second).await, "another run is none of its business");
    assert!(world.admin.token_works(&forged_token).await, "{forged}: nobody takes its word");

    // Killed meanwhile: the run ends while nobody looks.
    running.kill().await;
    bound.says("FAIL", "r2").await;
    bound.says("COMPLETE", "r3").await;
    let running = world.start();
    bound.ended(&second).await;
    bound.ended(&late).await;

    // Nothing is known of what these held. One is of a source that holds nothing; one logs in after it was over.
    bound.says("COMPLETE", "r4").await;
    bound.says("ABORT", "r5").await;
    says(&world.pen, &bound.topic, ("reports", "r6"), "COMPLETE").await;
    until("the two to be noticed", || async {
        (bound.unbound().await == BTreeSet::from(["r4".to_owned(), "r5".to_owned()])).then_some(())
    })
    .await;
    assert_eq!(bound.figure("curfew_unbound_tasks").await, 2);
    let hint = String::from_utf8(world.ask(&["findings"]).await.stdout).unwrap();
    assert!(hint.contains("2 runs ended in the last day and nobody said what they held"), "{hint}");
    let after = bound.login("r5").await;
    bound.ended(&after).await;
    assert_eq!(bound.unbound().await, BTreeSet::from(["r4".to_owned()]));
    assert_eq!(bound.figure("curfew_unbound_tasks").await, 1);
    assert!(world.admin.token_works(&forged_token).await);
    assert_eq!(world.told.closed().len(), 4);
    world.figures().await.assert_add_up();
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}
