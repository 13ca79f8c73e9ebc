//! What metadata binds, on a real Vault: tokens that others made, by login and by hand, and secret_ids.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use curfew::bind::rule::{Origin, Rule, RunTemplate, Template};
use curfew::bind::{BindSettings, Binder, Looked, topic};
use curfew::connector::vault::Vault;
use curfew::event::Limits;
use curfew::intake::Intake;
use curfew::journal::{Filter, Journal, TaskFilter, TaskLine};
use curfew::task::Tenure;

use super::*;
use crate::store::Store;

over_both! {
    metadata_binds_what_others_made,
    a_list_that_fails_or_is_too_long_says_nothing_of_the_rest,
    what_is_new_goes_before_what_waits,
    what_is_only_told_ends_with_no_run,
}

/// Who signs the tokens of workloads: a cluster, a CI server.
pub struct Signer {
    key: EcdsaKeyPair,
}

impl Signer {
    pub fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { key }
    }

    /// For a JWT mount that believes it.
    pub fn public_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    /// A JWT for Vault, good for some minutes.
    pub fn sign(&self, claims: &Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = claims.clone();
        for (name, value) in [("aud", json!(["vault"])), ("iat", json!(now)), ("exp", json!(now + 600))] {
            claims[name] = value;
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({ "alg": "ES256", "typ": "JWT" })), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// A workload's claims, as its platform writes them, and what they name.
struct Shape {
    role: &'static str,
    claims: Value,
    mappings: Value,
    run: &'static str,
    identity: Option<&'static str>,
    bound: (&'static str, Option<&'static str>),
}

fn shapes() -> [Shape; 4] {
    [
        // A projected token of a pod.
        Shape {
            role: "k8s",
            claims: json!({
                "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:etl:load",
                "kubernetes.io": {
                    "namespace": "etl", "node": { "name": "n1", "uid": "n-1" },
                    "pod": { "name": "load-x7", "uid": "3f0c-pod" },
                    "serviceaccount": { "name": "load", "uid": "5a-sa" },
                },
            }),
            mappings: json!({
                "/kubernetes.io/namespace": "service_account_namespace", "/kubernetes.io/pod/uid": "pod_uid",
                "/kubernetes.io/serviceaccount/name": "service_account_name",
            }),
            run: "/kubernetes/prod/{service_account_namespace}:{pod_uid}",
            identity: Some("{service_account_namespace}/{service_account_name}"),
            bound: ("/kubernetes/prod/etl:3f0c-pod", Some("etl/load")),
        },
        Shape {
            role: "gitlab",
            claims: json!({
                "iss": "https://gitlab.example", "sub": "project_path:g/p:ref_type:branch:ref:main", "project_path": "g/p",
                "job_id": "4316132595", "pipeline_id": "1212", "ref": "main", "user_login": "ana",
            }),
            mappings: json!({ "job_id": "job_id", "project_path": "project_path" }),
            run: "/gitlab:{job_id}",
            identity: Some("gitlab/{project_path}"),
            bound: ("/gitlab:4316132595", Some("gitlab/g/p")),
        },
        Shape {
            role: "github",
            claims: json!({
                "iss": "https://token.actions.githubusercontent.com", "sub": "repo:o/r:ref:refs/heads/main",
                "repository": "o/r", "run_id": "171717", "run_attempt": "2", "actor": "ana",
            }),
            mappings: json!({ "run_id": "run_id", "run_attempt": "run_attempt", "repository": "repository" }),
            run: "/github:{run_id}.{run_attempt}",
            identity: None,
            bound: ("/github:171717.2", None),
        },
        Shape {
            role: "nomad",
            claims: json!({
                "sub": "global:default:etl:load:main:vault_default", "nomad_namespace": "default", "nomad_job_id": "etl",
                "nomad_allocation_id": "a1b2-alloc", "nomad_task": "main",
            }),
            mappings: json!({ "nomad_allocation_id": "nomad_allocation_id", "nomad_task": "nomad_task" }),
            run: "/nomad:{nomad_allocation_id}.{nomad_task}",
            identity: None,
            bound: ("/nomad:a1b2-alloc.main", None),
        },
    ]
}

impl Root {
    /// A JWT mount that believes `signer`.
    async fn jwt(&self, signer: &Signer) -> String {
        let mount = unique("jwt");
        self.put(&format!("sys/auth/{mount}"), json!({ "type": "jwt" })).await;
        let config = json!({ "jwt_validation_pubkeys": [signer.public_pem()], "jwt_supported_algs": ["ES256"] });
        self.put(&format!("auth/{mount}/config"), config).await;
        mount
    }

    async fn jwt_role(&self, mount: &str, role: &str, mappings: &Value, more: Value) {
        let mut body = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "claim_mappings": mappings,
            "token_ttl": "10m",
        });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.put(&format!("auth/{mount}/role/{role}"), body).await;
    }

    /// A login; token and accessor.
    async fn login(&self, path: &str, body: Value) -> (String, String) {
        let auth = self.put(path, body).await["auth"].take();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&auth["client_token"]), text(&auth["accessor"]))
    }
}

fn rule(origin: Origin, run: &str) -> Rule {
    let run = RunTemplate::parse(run, &[]).unwrap();
    Rule { origin, alias: false, when: BTreeMap::new(), run, identity: None }
}

fn intake(journal: &Arc<dyn Journal>) -> Intake {
    Intake {
        journal: journal.clone(),
        rules: Arc::default(),
        limits: Limits::default(),
        clock: System::shared(),
        metrics: Arc::default(),
        stirred: Arc::default(),
        trust: None,
        types: None,
    }
}

/// Binds on this login.
async fn binder(
    journal: &Arc<dyn Journal>,
    settings: VaultSettings,
    (most, at_once): (usize, usize),
    rules: Vec<Rule>,
) -> Binder {
    let vault = Vault::open(REALM, &settings, Mode::Observe, System::shared()).await.unwrap();
    let intake = intake(journal);
    let settings = BindSettings {
        tenant: "default".into(),
        every_ms: 1_000,
        per_second: 5_000,
        most,
        at_once,
        tenure: Tenure::Minted,
        rules,
    };
    Binder::new(intake, settings, REALM, vault)
}

/// A login with the policy of `deploy/vault/bind.hcl`, for one AppRole mount.
async fn least(root: &Root, approle: &str) -> VaultSettings {
    let policy = root.policy("bind", approle).await;
    settings(&root.address, &root.token_of(&[&policy]).await.0)
}

async fn live(journal: &Arc<dyn Journal>) -> Vec<TaskLine> {
    let filter = TaskFilter { ended: false, unbound: false, source: None, identity: None, limit: 1_000 };
    journal.tasks(filter).await.unwrap()
}

/// What is bound to a run.
fn held(lines: &[TaskLine], run: &str) -> Vec<String> {
    let of = lines.iter().filter(|line| line.task.run.as_str() == run);
    of.flat_map(|line| line.holds.iter().map(|one| one.grant.credential.id())).collect()
}

async fn metadata_binds_what_others_made(store: Store) {
    let root = Root::shared();
    let journal = store.open().await;
    let (approle, users) = (unique("approle"), unique("users"));
    root.put(&format!("sys/auth/{approle}"), json!({ "type": "approle" })).await;
    root.put(&format!("sys/auth/{users}"), json!({ "type": "userpass" })).await;
    let role = format!("auth/{approle}/role/ci-runner");
    root.put(&role, json!({ "token_ttl": "10m", "secret_id_ttl": "10m" })).await;
    let token_role = unique("broker");
    root.put(&format!("auth/token/roles/{token_role}"), json!({ "orphan": true })).await;
    let signer = Signer::new();
    let jwt = root.jwt(&signer).await;

    let login = |mount: &str| Origin::Token(format!("auth/{mount}/login"));
    // Of this test's tokens only: others make tokens here as well.
    let suite = unique("suite");
    let ours = |rule: Rule| Rule { when: BTreeMap::from([("suite".to_owned(), suite.clone())]), ..rule };
    let mut rules = vec![
        ours(rule(Origin::Token(format!("auth/token/create/{token_role}")), "/broker:{run_id}")),
        ours(rule(Origin::Token("auth/token/create".to_owned()), "/free:{run_id}")),
        rule(Origin::SecretId(format!("{approle}/ci-runner")), "/ci:{job}-{n}"),
        rule(login(&approle), "/ci:{job}-{n}"),
        Rule { alias: true, ..rule(login(&users), "/agents:{session}") },
    ];

    // By hand, through a token role; periodic and orphan as it may be. Root makes them: what names no policies is root.
    let policy = unique("creates");
    let creates = r#"path "auth/token/create" { capabilities = ["update"] }"#;
    root.put(&format!("sys/policies/acl/{policy}"), json!({ "policy": creates })).await;
    let policies = [&policy];
    let meta = |run: &str| json!({ "run_id": run, "suite": suite, "task_id": "load" });
    let by_role = format!("auth/token/create/{token_role}");
    let (_, minted) = root.login(&by_role, json!({ "meta": meta("1"), "policies": policies, "ttl": "10m" })).await;
    let (_, periodic) = root.login(&by_role, json!({ "meta": meta("2"), "policies": policies, "period": "10m" })).await;
    // By hand, anyhow: where a rule believes whoever may.
    let body = json!({ "meta": meta("1"), "policies": policies, "ttl": "10m" });
    let (parent, free) = root.login("auth/token/create", body.clone()).await;
    let (status, answer) = root.ask_as(&parent, "POST", "auth/token/create", json!({ "ttl": "5m" })).await;
    assert_eq!(status, 200, "{answer}");
    let child = answer["auth"]["accessor"].as_str().unwrap().to_owned();
    // What must never be touched, and what no rule is about: forged, as it were.
    root.login("auth/token/create", json!({ "meta": meta("root"), "policies": ["root"], "ttl": "10m" })).await;
    let (_, forged) = root.login("auth/token/create-orphan", body).await;

    // A secret_id that carries metadata, and the token that it gives.
    let secret = json!({ "metadata": json!({ "job": "job", "n": "7" }).to_string() });
    let secret = root.put(&format!("{role}/secret-id"), secret).await["data"].take();
    let secret_id = format!("{approle}/ci-runner/{}", secret["secret_id_accessor"].as_str().unwrap());
    let (_, role_id) = root.ask("GET", &format!("{role}/role-id"), Value::Null).await;
    let body = json!({ "role_id": role_id["data"]["role_id"], "secret_id": secret["secret_id"] });
    let (_, by_secret_id) = root.login(&format!("auth/{approle}/login"), body).await;

    // Workloads that log in with what their platform signed.
    let mut workloads = Vec::new();
    for shape in shapes() {
        root.jwt_role(&jwt, shape.role, &shape.mappings, Value::Null).await;
        let body = json!({ "role": shape.role, "jwt": signer.sign(&shape.claims) });
        let (_, accessor) = root.login(&format!("auth/{jwt}/login"), body).await;
        rules.push(Rule {
            when: BTreeMap::from([("role".to_owned(), shape.role.to_owned())]),
            identity: shape.identity.map(|text| Template::parse(text).unwrap()),
            ..rule(login(&jwt), shape.run)
        });
        workloads.push((shape.bound, accessor));
    }
    // A batch token has no accessor: there is nothing to bind, and nothing could end it.
    let shape = &shapes()[1];
    root.jwt_role(&jwt, "batch", &shape.mappings, json!({ "token_type": "batch" })).await;
    rules.push(rule(login(&jwt), "/batch:{job_id}"));
    let body = json!({ "role": "batch", "jwt": signer.sign(&shape.claims) });
    assert_eq!(root.login(&format!("auth/{jwt}/login"), body).await.1, "");

    // An agent whose alias was given the run, by an administrator.
    let (_, mounts) = root.ask("GET", "sys/auth", Value::Null).await;
    let mount_accessor = mounts["data"][format!("{users}/")]["accessor"].clone();
    let alias = async |name: &str, session: &str| {
        root.put(&format!("auth/{users}/users/{name}"), json!({ "password": "pw-of-an-agent" })).await;
        let entity = root.put("identity/entity", json!({ "name": unique(name) })).await["data"]["id"].clone();
        let body = json!({ "name": name, "canonical_id": entity, "mount_accessor": mount_accessor,
                           "custom_metadata": { "session": session } });
        root.put("identity/entity-alias", body.clone()).await;
        body
    };
    alias("triage", "s-1").await;
    let mut moved = alias("writer", "s-2").await;
    let password = json!({ "password": "pw-of-an-agent" });
    let (_, agent) = root.login(&format!("auth/{users}/login/triage"), password.clone()).await;
    let (_, stale) = root.login(&format!("auth/{users}/login/writer"), password.clone()).await;
    moved["custom_metadata"]["session"] = json!("s-3");
    root.put("identity/entity-alias", moved).await;
    let (_, fresh) = root.login(&format!("auth/{users}/login/writer"), password).await;

    let own = least(&root, &approle).await;
    let binder = binder(&journal, own, (100_000, 100_000), rules).await;
    let mut looked = Looked::default();
    let round = binder.tick(&mut looked).await.unwrap();
    assert!(!round.partial, "{round:?}");
    let lines = live(&journal).await;
    assert_eq!(held(&lines, "/broker:1"), [minted]);
    assert_eq!(held(&lines, "/broker:2"), [periodic]);
    assert_eq!(held(&lines, "/free:1"), [free]);
    let mut of_job = held(&lines, "/ci:job-7");
    of_job.sort();
    let mut both = [secret_id, by_secret_id];
    both.sort();
    assert_eq!(of_job, both);
    for ((run, identity), accessor) in workloads {
        assert_eq!(held(&lines, run), [accessor], "{run}");
        let task = &lines.iter().find(|line| line.task.run.as_str() == run).unwrap().task;
        assert_eq!(task.identity.as_deref(), identity, "{run}");
    }
    assert_eq!(held(&lines, "/agents:s-1"), [agent]);
    // Its alias has moved on since: which run it was of, nobody can say.
    assert_eq!(held(&lines, "/agents:s-3"), [fresh]);
    assert_eq!(held(&lines, "/agents:s-2"), Vec::<String>::new());
    let all: Vec<String> =
        lines.iter().flat_map(|line| line.holds.iter().map(|one| one.grant.credential.id())).collect();
    for unbound in [&child, &forged, &stale] {
        assert!(!all.contains(unbound));
    }
    assert_eq!(held(&lines, "/free:root"), Vec::<String>::new());
    assert_eq!(round.bound, all.len());
    let grant = &lines.iter().find(|line| line.task.run.as_str() == "/broker:1").unwrap().holds[0];
    assert_eq!(grant.grant.topics, [topic(REALM)]);
    assert!(grant.expires_ms.is_some());

    // Each is looked at once.
    assert_eq!(binder.tick(&mut looked).await.unwrap().bound, 0);
    // A new term looks at all of it, and says what is known already.
    let again = binder.tick(&mut Looked::default()).await.unwrap();
    assert_eq!(again.bound, round.bound);
    let stats = journal.stats(crate::stage::now_ms()).await.unwrap();
    assert_eq!((stats.accepted, stats.duplicates), (round.bound as i64, round.bound as i64));
}

async fn a_list_that_fails_or_is_too_long_says_nothing_of_the_rest(store: Store) {
    let root = Root::shared();
    let journal = store.open().await;
    let approle = unique("approle");
    root.put(&format!("sys/auth/{approle}"), json!({ "type": "approle" })).await;
    for role in ["ci-runner", "other"] {
        root.put(&format!("auth/{approle}/role/{role}"), json!({ "secret_id_ttl": "10m" })).await;
    }
    let secret_id = async |role: &str, n: u32| {
        let body = json!({ "metadata": json!({ "run": n.to_string() }).to_string() });
        root.put(&format!("auth/{approle}/role/{role}/secret-id"), body).await;
    };
    for n in 0..5 {
        secret_id("ci-runner", n).await;
    }
    secret_id("other", 9).await;
    let of = |role: &str| rule(Origin::SecretId(format!("{approle}/{role}")), "/ci:{run}");
    let proxy = Proxy::to(root.address.strip_prefix("http://").unwrap()).await;
    let mut own = least(&root, &approle).await;
    // Only what our policy names: not the other role.
    let only = binder(&journal, own.clone(), (100, 100), vec![of("ci-runner"), of("other")]).await;
    let round = only.tick(&mut Looked::default()).await.unwrap();
    assert_eq!((round.bound, round.looked, round.partial), (5, 5, true), "the other role is not ours to list");
    // More than are known at a time.
    let few = binder(&journal, own.clone(), (3, 100), vec![of("ci-runner")]).await;
    let round = few.tick(&mut Looked::default()).await.unwrap();
    assert_eq!((round.bound, round.partial), (3, true));

    own.address = format!("http://{}", proxy.address);
    own.timeout_ms = 2_000;
    let through = binder(&journal, own, (100, 100), vec![of("ci-runner")]).await;
    let mut looked = Looked::default();
    assert_eq!(through.tick(&mut looked).await.unwrap().bound, 5);
    proxy.off();
    let round = through.tick(&mut looked).await.unwrap();
    assert_eq!((round.looked, round.bound, round.partial), (0, 0, true));
    proxy.on();
    // What was looked at before stays looked at: a list that failed is not an empty one.
    secret_id("ci-runner", 6).await;
    let round = through.tick(&mut looked).await.unwrap();
    assert_eq!((round.looked, round.bound, round.partial), (1, 1, false), "{round:?}");
    let lines = live(&journal).await;
    assert_eq!(lines.len(), 6);
}

/// Of many that were there before, however long they take: what a run has just been given is seen in the next round.
async fn what_is_new_goes_before_what_waits(store: Store) {
    let root = Root::shared();
    let journal = store.open().await;
    let approle = unique("approle");
    root.put(&format!("sys/auth/{approle}"), json!({ "type": "approle" })).await;
    root.put(&format!("auth/{approle}/role/ci-runner"), json!({ "secret_id_ttl": "10m" })).await;
    let secret_id = async |run: &str| {
        let body = json!({ "metadata": json!({ "run": run }).to_string() });
        root.put(&format!("auth/{approle}/role/ci-runner/secret-id"), body).await;
    };
    for n in 0..6 {
        secret_id(&format!("old-{n}")).await;
    }
    let rule = rule(Origin::SecretId(format!("{approle}/ci-runner")), "/ci:{run}");
    let own = least(&root, &approle).await;
    let slow = binder(&journal, own, (100, 2), vec![rule]).await;
    let mut looked = Looked::default();
    let round = slow.tick(&mut looked).await.unwrap();
    assert_eq!((round.bound, round.waits, round.partial), (2, 4, false));
    for run in ["new-1", "new-2"] {
        secret_id(run).await;
    }
    let round = slow.tick(&mut looked).await.unwrap();
    assert_eq!((round.bound, round.waits), (2, 4));
    let lines = live(&journal).await;
    assert_eq!((held(&lines, "/ci:new-1").len(), held(&lines, "/ci:new-2").len()), (1, 1));
    for waits in [2, 0, 0] {
        assert_eq!(slow.tick(&mut looked).await.unwrap().waits, waits);
    }
    assert_eq!(live(&journal).await.len(), 8);
}

async fn what_is_only_told_ends_with_no_run(store: Store) {
    let root = Root::shared();
    let journal = store.open().await;
    let approle = unique("approle");
    root.put(&format!("sys/auth/{approle}"), json!({ "type": "approle" })).await;
    root.put(&format!("auth/{approle}/role/ci-runner"), json!({ "secret_id_ttl": "10m" })).await;
    let body = json!({ "metadata": json!({ "run": "1" }).to_string() });
    root.put(&format!("auth/{approle}/role/ci-runner/secret-id"), body).await;
    let vault = Vault::open(REALM, &least(&root, &approle).await, Mode::Observe, System::shared()).await.unwrap();
    let settings = BindSettings {
        tenant: "default".into(),
        every_ms: 1_000,
        per_second: 5_000,
        most: 100,
        at_once: 100,
        tenure: Tenure::Standing,
        rules: vec![rule(Origin::SecretId(format!("{approle}/ci-runner")), "/ci:{run}")],
    };
    let tells = Binder::new(intake(&journal), settings, REALM, vault);
    assert_eq!(tells.tick(&mut Looked::default()).await.unwrap().bound, 1);
    let run = RunKey::new("/ci", "1");
    assert_eq!(held(&live(&journal).await, "/ci:1").len(), 1);
    crate::stage::record(journal.as_ref(), vec![crate::stage::ended(&run)]).await;
    let all = TaskFilter { ended: true, unbound: false, source: None, identity: None, limit: 10 };
    let over = journal.tasks(all).await.unwrap().remove(0);
    assert!(over.task.ended_ms.is_some() && !over.task.unbound, "something is known of it");
    assert_eq!(journal.cases(Filter { closed: true, ..Filter::default() }).await.unwrap().len(), 0);
}

#[tokio::test]
async fn the_policy_of_bindings_can_end_nothing() {
    let root = Root::shared();
    let approle = unique("approle");
    root.put(&format!("sys/auth/{approle}"), json!({ "type": "approle" })).await;
    root.put(&format!("auth/{approle}/role/ci-runner"), json!({})).await;
    let secret = root.put(&format!("auth/{approle}/role/ci-runner/secret-id"), json!({})).await;
    let policy = root.policy("bind", &approle).await;
    let (token, _) = root.token_of(&[&policy]).await;
    let (victim, accessor) = root.token(json!({ "policies": ["default"], "ttl": "10m" })).await;
    let of_role = format!("auth/{approle}/role/ci-runner");
    let named = json!({ "secret_id_accessor": secret["data"]["secret_id_accessor"] });
    for (method, path, body) in [
        ("POST", "auth/token/revoke-accessor".to_owned(), json!({ "accessor": accessor })),
        ("POST", "auth/token/create".to_owned(), json!({})),
        ("POST", format!("{of_role}/secret-id-accessor/destroy"), named),
        ("POST", format!("{of_role}/secret-id"), json!({})),
        ("GET", format!("{of_role}/role-id"), Value::Null),
        ("LIST", format!("auth/{approle}/role"), Value::Null),
        ("POST", "identity/entity".to_owned(), json!({})),
        ("LIST", "sys/leases/lookup/database/creds".to_owned(), Value::Null),
    ] {
        assert_eq!(root.ask_as(&token, method, &path, body).await.0, 403, "{path}");
    }
    assert_eq!(root.ask_as(&victim, "GET", "auth/token/lookup-self", Value::Null).await.0, 200);
}
