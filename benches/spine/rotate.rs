//! Rotations per second, all steps and the probe: pairs of PostgreSQL users whose password is in KV version 2, rolled over
//! because of a finding. Against a bare loop that makes the same calls, through the same connectors, as many at once, and
//! keeps nothing: no journal, no claims, no guard.

use std::time::{Duration, Instant};

use curfew::case::record::{Observation, Record, Verdict};
use curfew::case::state::{State, Todo};
use curfew::case::{Action, Case, Directive, Trigger, Urgency};
use curfew::clock::System;
use curfew::connector::postgres::{PostgresSettings, role};
use curfew::connector::recipe::{Adoption, Keeper, PasswordRules, Place, Recipe, Users};
use curfew::connector::vault::{self, Auth, VaultSettings};
use curfew::connector::{Gate, Realm, Registry, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{CredentialRegistered, Data, Event, FindingObserved, Type};
use curfew::guard::Mode;
use curfew::journal::Filter;
use curfew::probe::{self, Judgement};
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};

use crate::admin::Postgres;
use crate::revoke::{Memory, Used, closed};
use crate::stage;
use crate::table::{Goal, Table};
use crate::world::{unique, until};

const PAIRS: usize = 100;
/// Many short ones: the machine's own pace changes from second to second.
const RUNS: usize = 7;
const CALLS: usize = 16;
pub const PASSWORD: &str = "first-password-of-a-bench";

/// Stored passwords of a run, their users, and what rotates them.
struct Fleet {
    recipes: Vec<Recipe>,
    registry: Registry,
}

impl Fleet {
    async fn new(vault: &Memory, pool: &PgPool, mount: &str) -> Self {
        let recipes: Vec<Recipe> = (0..PAIRS).map(|_| recipe(mount)).collect();
        for recipe in &recipes {
            let Users::Two(a, b) = &recipe.users else { unreachable!("pairs") };
            let sql = format!("CREATE ROLE {a} LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE {b} NOLOGIN");
            pool.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        futures::stream::iter(&recipes)
            .for_each_concurrent(CALLS, |recipe| async move {
                let secret = json!({"data": {"username": recipe.users.names()[0], "password": PASSWORD}});
                vault.admin.done("POST", &format!("{mount}/data/{}", recipe.place.path), secret).await;
            })
            .await;
        let registry = registry(vault, &recipes).await;
        Self { recipes, registry }
    }

    /// All are rotated, as a witness sees it; then their users go, so that each run begins with as many as the first.
    async fn ends(self, vault: &Memory, pool: &PgPool) {
        let pg = Postgres::shared();
        for recipe in &self.recipes {
            let (_, stored) = vault.admin.call("GET", &path(recipe), Value::Null).await;
            let (user, value) = (&stored["data"]["data"]["username"], &stored["data"]["data"]["password"]);
            pg.login(user.as_str().unwrap(), value.as_str().unwrap()).await.expect("what consumers read works");
            assert!(pg.login(recipe.users.names()[0], PASSWORD).await.is_err(), "an old one still works");
        }
        let users: Vec<&str> = self.recipes.iter().flat_map(|recipe| recipe.users.names()).collect();
        until("their last sessions to be gone", || async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY ($1)";
            let open: i64 = sqlx::query_scalar(sql).bind(&users).fetch_one(pool).await.unwrap();
            (open == 0).then_some(())
        })
        .await;
        pool.execute(AssertSqlSafe(format!("DROP ROLE {}", users.join(", ")))).await.unwrap();
    }
}

fn path(recipe: &Recipe) -> String {
    format!("{}/data/{}", recipe.place.mount, recipe.place.path)
}

/// A pair of users.
pub fn recipe(mount: &str) -> Recipe {
    let base = unique("bench").replace('-', "_");
    let users = Users::Two(format!("{base}_a"), format!("{base}_b"));
    Recipe {
        credential: CredentialId::new(Kind::PostgresRole, "appdb", &users.names().join(",")).unwrap(),
        place: Place {
            keeper: Keeper::Kv,
            realm: "test".to_owned(),
            mount: mount.to_owned(),
            path: format!("apps/{base}"),
            field: "password".to_owned(),
            user_field: Some("username".to_owned()),
        },
        name: base,
        users,
        password: PasswordRules::default(),
        adoption: Adoption::default(),
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
        copies: Vec::new(),
        webhooks: Vec::new(),
    }
}

async fn registry(vault: &Memory, recipes: &[Recipe]) -> Registry {
    let clock = System::shared();
    let settings = VaultSettings::new(&vault.admin.address, Auth::Token(vault.admin.curfew_token().await.into()));
    let places: Vec<Place> = recipes.iter().map(|recipe| recipe.place.clone()).collect();
    let mut registry = Registry::default();
    let users = recipes.iter().map(|recipe| recipe.credential.id()).collect();
    for (name, allowed_prefixes) in [("test", Vec::new()), ("appdb", users)] {
        let (name, targets) = (name.to_owned(), Vec::new());
        registry.add_realm(Realm { name, mode: Mode::Enforce, allowed_prefixes, reducible: Vec::new(), targets });
    }
    let stores = vault::connect_stores("test", &settings, Mode::Enforce, clock.clone(), &places, &[]).await.unwrap();
    stores.into_iter().for_each(|store| registry.add_store(store));
    let target = PostgresSettings::new(Postgres::shared().url.into());
    registry.add(role::connect("appdb", &target, clock).await.unwrap());
    recipes.iter().for_each(|recipe| registry.add_recipe(recipe.clone()));
    registry
}

/// The inventory knows it, and a scanner found it.
pub fn found(recipe: &Recipe, version: i64) -> [Event; 2] {
    let credential = recipe.credential.clone();
    let known = CredentialRegistered {
        credential: credential.clone(),
        fingerprints: Vec::new(),
        version: Some(version),
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    };
    let finding = FindingObserved {
        finding_key: recipe.name.clone(),
        detector: "bench".to_owned(),
        validity: "unknown".to_owned(),
        credential: Some(credential),
        ..FindingObserved::default()
    };
    [
        stage::event(Type::CredentialRegistered, Data::CredentialRegistered(known)),
        stage::event(Type::FindingObserved, Data::FindingObserved(Box::new(finding))),
    ]
}

async fn ours(vault: &Memory, pool: &PgPool, mount: &str) -> f64 {
    let fleet = Fleet::new(vault, pool, mount).await;
    let mut stage = stage::Stage::new(crate::store::Store::sqlite(), fleet.registry.clone());
    stage.settings.calls_per_system = CALLS;
    let journal = stage.open().await;
    stage::record(journal.as_ref(), fleet.recipes.iter().flat_map(|recipe| found(recipe, 1)).collect()).await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let used = Used::start(vault, PAIRS);
    let started = Instant::now();
    let running = tokio::spawn(stage.executor(journal.clone()).run(cancel.clone()));
    closed(&stage.store, PAIRS).await;
    let rate = PAIRS as f64 / started.elapsed().as_secs_f64();
    used.print("curfew", vault);
    cancel.cancel();
    running.await.unwrap();
    let filter = Filter { closed: true, ..Filter::default() };
    let lines = journal.cases(filter).await.unwrap();
    assert!(lines.iter().all(|line| matches!(line.verdict, Verdict::Dead { .. })));
    fleet.ends(vault, pool).await;
    rate
}

async fn bare(vault: &Memory, pool: &PgPool, mount: &str) -> f64 {
    let fleet = Fleet::new(vault, pool, mount).await;
    let (registry, used) = (&fleet.registry, Used::start(vault, PAIRS));
    let started = Instant::now();
    futures::stream::iter(&fleet.recipes)
        .for_each_concurrent(CALLS, |recipe| by_hand(registry, &recipe.credential))
        .await;
    let rate = PAIRS as f64 / started.elapsed().as_secs_f64();
    used.print("bare", vault);
    fleet.ends(vault, pool).await;
    rate
}

/// The steps of a rollover, one after the other.
async fn by_hand(registry: &Registry, credential: &CredentialId) {
    let mut case = fresh(credential);
    loop {
        let records = match case.state.todo() {
            Todo::Plan => vec![Record::Planned { no: 1, plan: registry.plan(&case).unwrap() }],
            Todo::Observe(step) => {
                let seen = at(registry, &case, step).observe(&subject(registry, &case, step, None)).await.unwrap();
                vec![Record::Observed { step, seen }]
            }
            Todo::Skip(step) => vec![Record::Skipped { step, residue: None }],
            Todo::Perform(step) => {
                let key = curfew::case::plan::step_key(case.id, case.state.plan_no, step, 1);
                let about = subject(registry, &case, step, Some(key));
                let act = case.state.current().unwrap().act;
                let output = at(registry, &case, step).perform(act, &about).await.unwrap();
                vec![Record::Started { step, key, attempt: 1 }, Record::Succeeded { step, output }]
            }
            Todo::Pass(step) => {
                let act = case.state.current().unwrap().act;
                let gate = at(registry, &case, step).pass(act, &subject(registry, &case, step, None)).await;
                assert_eq!(gate, Ok(Gate::Open));
                vec![Record::Passed { step, cut_ms: None }]
            }
            Todo::Prove(step) => {
                let connector = at(registry, &case, step);
                let sighting = connector.probe(&subject(registry, &case, step, None)).await;
                case.state = case.state.clone().next(&Record::Sighted { step, sighting }).unwrap();
                match probe::judge(&case, connector.settle(), stage::now_ms()) {
                    Judgement::Close(verdict) => vec![Record::Proven { step, verdict }],
                    Judgement::Again { .. } | Judgement::Retry => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        Vec::new()
                    }
                }
            }
            Todo::Close => return,
            other => unreachable!("{other:?}"),
        };
        case.state = records.iter().try_fold(case.state, State::next).unwrap();
    }
}

fn at<'a>(registry: &'a Registry, case: &Case, step: usize) -> &'a dyn curfew::connector::Connector {
    let step = &case.state.plan.as_ref().unwrap().steps[step];
    registry.connector(step).unwrap().as_ref()
}

fn subject(registry: &Registry, case: &Case, step: usize, key: Option<uuid::Uuid>) -> Subject {
    let step = &case.state.plan.as_ref().unwrap().steps[step];
    let whole =
        |seen: Observation| Observation { principal_id: seen.principal_id.or(case.state.principal_id.clone()), ..seen };
    Subject {
        credential: case.directive.credential.clone(),
        principal: None,
        seen: case.state.observation_for(step).cloned().map(whole),
        issuer: case.state.issuer().cloned(),
        run: None,
        key,
        rotation: registry.rotation(case),
        rescope: None,
        message: None,
        place: None,
    }
}

fn fresh(credential: &CredentialId) -> Case {
    let directive = Directive {
        credential: credential.clone(),
        action: Action::Rollover,
        trigger: Trigger::Finding,
        urgency: Urgency::Routine,
        held: None,
        run: None,
        end_ms: None,
        broker_ms: 0,
        topic: stage::TOPIC.to_owned(),
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: None,
    };
    Case {
        id: uuid::Uuid::now_v7(),
        tenant: "default".into(),
        system: credential.instance().to_owned(),
        lane: credential.as_str().to_owned(),
        principal: None,
        seen_ms: None,
        opened_ms: 0,
        traceparent: None,
        seq: 0,
        blast: None,
        charged: false,
        state: State::opened(&directive),
        directive,
    }
}

pub async fn measure(table: &mut Table) {
    eprintln!("rotate: {PAIRS} pairs of users, {CALLS} at once, {RUNS} runs");
    let (vault, pool) = (Memory::start().await, Postgres::shared().pool().await);
    let mount = "kv";
    vault.admin.done("POST", &format!("sys/mounts/{mount}"), json!({"type": "kv", "options": {"version": "2"}})).await;
    until("the KV engine", || async {
        let (status, _) = vault.admin.call("GET", &format!("{mount}/config"), Value::Null).await;
        (status == 200).then_some(())
    })
    .await;
    let mut pairs = Vec::new();
    for run in 0..RUNS {
        pairs.push(if run % 2 == 0 {
            let ours = ours(&vault, &pool, mount).await;
            (ours, bare(&vault, &pool, mount).await)
        } else {
            let bare = bare(&vault, &pool, mount).await;
            (ours(&vault, &pool, mount).await, bare)
        });
    }
    table.add("rotations with proof (PostgreSQL pairs, KV v2)", "1/s", &pairs, Goal::AtLeast(0.75));
}
