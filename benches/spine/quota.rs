//! Rotations of PostgreSQL pairs whose passwords are in AWS Secrets Manager, at five places each, against a bucket of 50
//! calls a second, which a small server plays in AWS's place: what writes a secret (sixteen calls for each rotation) is counted
//! there as AWS counts it, and refused beyond. Whether the limit that Curfew sets itself (48) is used, never passed, and AWS
//! has nothing to refuse.
//!
//! The server has the calls of Secrets Manager that a rotation makes, in memory: moto is slower than the limit here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use curfew::case::record::Verdict;
use curfew::clock::System;
use curfew::connector::aws::{self, AwsSettings, Login};
use curfew::connector::postgres::{PostgresSettings, role};
use curfew::connector::recipe::{Keeper, Place, Recipe, SECRETS_MANAGER};
use curfew::connector::{Realm, Registry};
use curfew::guard::Mode;
use curfew::journal::Filter;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};

use crate::admin::Postgres;
use crate::revoke::closed;
use crate::table::{Goal, Table};
use crate::{rotate, stage};

const PAIRS: usize = 60;
/// Other places of each value: so that AWS's quota is the limit here, and not this machine's processors.
const COPIES: usize = 4;
const RUNS: usize = 3;
const CALLS: usize = 16;
/// What AWS allows, and what Curfew takes of it.
const QUOTA: f64 = 50.0;
const LIMIT: f64 = 48.0;
const ACCOUNT: &str = "123456789012";

struct Version {
    id: String,
    made_s: f64,
    text: String,
    labels: Vec<String>,
}

/// Secrets Manager, as far as it is asked here.
struct Safe {
    secrets: HashMap<String, Vec<Version>>,
    /// The bucket, and when it was looked at last.
    bucket: (f64, Instant),
    /// When each write came, and whether it was refused.
    writes: Vec<(Instant, bool)>,
    last_s: f64,
}

type Shared = Arc<Mutex<Safe>>;

impl Safe {
    /// Whether the bucket has one more.
    fn takes(&mut self) -> bool {
        let now = Instant::now();
        let full = (self.bucket.0 + now.duration_since(self.bucket.1).as_secs_f64() * QUOTA).min(QUOTA);
        let taken = full >= 1.0;
        self.bucket = (if taken { full - 1.0 } else { full }, now);
        self.writes.push((now, !taken));
        taken
    }

    /// No two versions are of one millisecond.
    fn now_s(&mut self) -> f64 {
        self.last_s = (stage::now_ms() as f64 / 1_000.0).max(self.last_s + 0.001);
        self.last_s
    }

    fn answer(&mut self, call: &str, asked: &Value) -> Result<Value, (StatusCode, &'static str)> {
        const GONE: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "ResourceNotFoundException");
        let text = |name: &str| asked[name].as_str().map(str::to_owned);
        let name = text("SecretId").unwrap();
        if matches!(call, "PutSecretValue" | "UpdateSecretVersionStage") && !self.takes() {
            return Err((StatusCode::BAD_REQUEST, "ThrottlingException"));
        }
        let now_s = self.now_s();
        let versions = self.secrets.get_mut(&name).ok_or(GONE)?;
        match call {
            "DescribeSecret" => {
                let labels: HashMap<&String, &Vec<String>> = versions
                    .iter()
                    .filter(|version| !version.labels.is_empty())
                    .map(|version| (&version.id, &version.labels))
                    .collect();
                Ok(json!({"Name": name, "VersionIdsToStages": labels}))
            }
            "GetSecretValue" => {
                let (id, label) = (text("VersionId"), text("VersionStage"));
                let is_it = |version: &&Version| match (&id, &label) {
                    (Some(id), _) => version.id == *id,
                    (None, Some(label)) => version.labels.contains(label),
                    (None, None) => version.labels.iter().any(|label| label == "AWSCURRENT"),
                };
                let found = versions.iter().find(is_it).ok_or(GONE)?;
                Ok(json!({"Name": name, "VersionId": found.id, "SecretString": found.text,
                    "VersionStages": found.labels, "CreatedDate": found.made_s}))
            }
            "ListSecretVersionIds" => {
                let all = versions.iter();
                let all =
                    all.map(|one| json!({"VersionId": one.id, "CreatedDate": one.made_s, "VersionStages": one.labels}));
                Ok(json!({"Name": name, "Versions": all.collect::<Vec<_>>()}))
            }
            "PutSecretValue" => {
                let labels: Vec<String> = serde_json::from_value(asked["VersionStages"].clone()).unwrap();
                versions.iter_mut().for_each(|one| one.labels.retain(|label| !labels.contains(label)));
                let (id, text) = (text("ClientRequestToken").unwrap(), text("SecretString").unwrap());
                versions.push(Version { id: id.clone(), made_s: now_s, text, labels });
                Ok(json!({"Name": name, "VersionId": id}))
            }
            "UpdateSecretVersionStage" => {
                let label = text("VersionStage").unwrap();
                let (from, to) = (text("RemoveFromVersionId"), text("MoveToVersionId"));
                for one in versions.iter_mut() {
                    if Some(&one.id) == from.as_ref() {
                        one.labels.retain(|own| *own != label);
                        if label == "AWSCURRENT" {
                            one.labels.push("AWSPREVIOUS".to_owned());
                        }
                    } else if label == "AWSCURRENT" {
                        one.labels.retain(|own| own != "AWSPREVIOUS");
                    }
                }
                if let Some(one) = versions.iter_mut().find(|one| Some(&one.id) == to.as_ref()) {
                    one.labels.push(label);
                }
                Ok(json!({"Name": name}))
            }
            other => panic!("{other} is asked of nobody here"),
        }
    }

    /// Writes in a second while there was work, the most in any second, and the share that was refused.
    fn figures(&self) -> (f64, f64, f64) {
        let at: Vec<f64> =
            self.writes.iter().map(|(at, _)| at.duration_since(self.writes[0].0).as_secs_f64()).collect();
        // Its begin and its end, where few cases are at work, are no measure.
        let (first, last) = (at.len() / 10, at.len() * 9 / 10);
        let rate = (last - first) as f64 / (at[last] - at[first]);
        let most = (0..at.len()).map(|first| at.partition_point(|one| *one < at[first] + 1.0) - first).max().unwrap();
        let refused = self.writes.iter().filter(|(_, refused)| *refused).count();
        (rate, most as f64, refused as f64 / at.len() as f64)
    }
}

async fn answer(State(safe): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let call = headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let said = safe.lock().unwrap().answer(&call, &asked);
    // As far as AWS is away.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let kind = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
    match said {
        Ok(said) => (kind, said.to_string()).into_response(),
        Err((status, code)) => (status, kind, json!({"__type": code, "message": "bench"}).to_string()).into_response(),
    }
}

fn recipe() -> Recipe {
    let made = rotate::recipe(SECRETS_MANAGER);
    let place = Place { keeper: Keeper::AwsSecret, realm: "aws".to_owned(), ..made.place };
    let copy = |n| Place { path: format!("copies{n}/{}", place.path), ..place.clone() };
    Recipe { copies: (0..COPIES).map(copy).collect(), place, ..made }
}

fn places(recipe: &Recipe) -> impl Iterator<Item = &Place> {
    std::iter::once(&recipe.place).chain(&recipe.copies)
}

async fn registry(endpoint: String, recipes: &[Recipe]) -> Registry {
    let (mut registry, clock) = (Registry::default(), System::shared());
    let users = recipes.iter().map(|recipe| recipe.credential.id()).collect();
    for (name, allowed_prefixes) in [("aws", Vec::new()), ("appdb", users)] {
        let (name, targets) = (name.to_owned(), Vec::new());
        registry.add_realm(Realm { name, mode: Mode::Enforce, allowed_prefixes, reducible: Vec::new(), targets });
    }
    let login = Login::Given { id: "AKIABENCHBENCHBENCH0".to_owned(), secret: "bench".to_owned().into() };
    let settings =
        AwsSettings { endpoint: Some(endpoint), ..AwsSettings::new(ACCOUNT, "eu-west-1", login, Vec::new()) };
    let places: Vec<Place> = recipes.iter().flat_map(places).cloned().collect();
    registry.add_store(aws::secrets::connect("aws", &settings, clock.clone(), &places).await.unwrap());
    let target = PostgresSettings::new(Postgres::shared().url.into());
    registry.add(role::connect("appdb", &target, clock).await.unwrap());
    recipes.iter().for_each(|recipe| registry.add_recipe(recipe.clone()));
    registry
}

async fn run(pool: &PgPool) -> (f64, f64, f64) {
    let recipes: Vec<Recipe> = (0..PAIRS).map(|_| recipe()).collect();
    let mut secrets = HashMap::new();
    for recipe in &recipes {
        let [a, b] = recipe.users.names()[..] else { unreachable!("pairs") };
        let sql = format!("CREATE ROLE {a} LOGIN PASSWORD '{}'; CREATE ROLE {b} NOLOGIN", rotate::PASSWORD);
        pool.execute(AssertSqlSafe(sql)).await.unwrap();
        let text = json!({"username": a, "password": rotate::PASSWORD}).to_string();
        for place in places(recipe) {
            let (id, labels) = (uuid::Uuid::new_v4().to_string(), vec!["AWSCURRENT".to_owned()]);
            let first = Version { id, made_s: 1_700_000_000.0, text: text.clone(), labels };
            secrets.insert(place.path.clone(), vec![first]);
        }
    }
    let bucket = (QUOTA, Instant::now());
    let safe: Shared = Arc::new(Mutex::new(Safe { secrets, bucket, writes: Vec::new(), last_s: 0.0 }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(safe.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let mut stage = stage::Stage::new(crate::store::Store::sqlite(), registry(endpoint, &recipes).await);
    stage.settings.calls_per_system = CALLS;
    let journal = stage.open().await;
    let found = recipes.iter().flat_map(|recipe| rotate::found(recipe, 1_700_000_000_000));
    stage::record(journal.as_ref(), found.collect()).await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(stage.executor(journal.clone()).run(cancel.clone()));
    closed(&stage.store, PAIRS).await;
    cancel.cancel();
    running.await.unwrap();
    serving.abort();
    let lines = journal.cases(Filter { closed: true, ..Filter::default() }).await.unwrap();
    assert!(lines.iter().all(|line| matches!(line.verdict, Verdict::Dead { .. })));
    let users: Vec<&str> = recipes.iter().flat_map(|recipe| recipe.users.names()).collect();
    pool.execute(AssertSqlSafe(format!("DROP ROLE {}", users.join(", ")))).await.unwrap();
    safe.lock().unwrap().figures()
}

pub async fn measure(table: &mut Table) {
    eprintln!("quota: {PAIRS} pairs of users, {QUOTA} writes a second allowed, {RUNS} runs");
    let pool = Postgres::shared().pool().await;
    let mut all = Vec::new();
    for _ in 0..RUNS {
        all.push(run(&pool).await);
    }
    let pairs = |of: fn(&(f64, f64, f64)) -> f64, against: f64| -> Vec<(f64, f64)> {
        all.iter().map(|one| (of(one), against)).collect()
    };
    let name = |what: &str| format!("writes of AWS secrets, 50/s allowed: {what}");
    table.add(name("against the limit set, 48/s"), "1/s", &pairs(|one| one.0, LIMIT), Goal::AtLeast(0.95));
    table.add(name("most in any second, against that limit"), "1/s", &pairs(|one| one.1, LIMIT), Goal::AtMost(1.0));
    table.add(name("share that AWS refuses, against 1 %"), "", &pairs(|one| one.2, 0.01), Goal::AtMost(1.0));
}
