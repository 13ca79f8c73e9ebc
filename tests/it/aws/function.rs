//! A function by which AWS rotates a secret, as AWS publishes them for PostgreSQL: of one user, or of two in turn. It does the
//! four steps at AWS's API and at the real database; AWS's side of it is in `tests/servers/moto/server.py`.

use std::sync::{Arc, Mutex};

use aws_sdk_secretsmanager::Client;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::admin::Postgres;
use crate::world::unique;

/// Which of its calls fail.
#[derive(Debug, Clone, Copy, Default)]
pub enum Fails {
    #[default]
    Never,
    /// The next so many calls of a step, before anything is done.
    At(&'static str, usize),
    /// The next so many calls of a step, when it is done.
    After(&'static str, usize),
}

#[derive(Clone)]
struct Parts {
    safe: Client,
    pool: PgPool,
    pg: Postgres,
    /// Two users that take turns; else the one of the secret.
    pair: Option<(String, String)>,
    told: Arc<Mutex<(Fails, Vec<String>)>>,
}

/// See the top.
pub struct Function {
    port: u16,
    told: Arc<Mutex<(Fails, Vec<String>)>>,
}

impl Function {
    pub async fn start(safe: Client, pg: &Postgres, pair: Option<(String, String)>) -> Self {
        let told: Arc<Mutex<(Fails, Vec<String>)>> = Arc::default();
        let parts = Parts { safe, pool: pg.pool().await, pg: pg.clone(), pair, told: told.clone() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(called).with_state(parts);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { port, told }
    }

    /// As AWS names it.
    pub fn arn(&self) -> String {
        format!("arn:aws:lambda:{}:{}:function:rotates-{}", super::REGION, super::ACCOUNT, self.port)
    }

    pub fn fails(&self, fails: Fails) {
        self.told.lock().unwrap().0 = fails;
    }

    /// The steps that were done, in order.
    pub fn done(&self) -> Vec<String> {
        self.told.lock().unwrap().1.clone()
    }
}

/// Whether this call fails, by what `told` says.
fn strikes(parts: &Parts, step: &str, after: bool) -> bool {
    let mut told = parts.told.lock().unwrap();
    match &mut told.0 {
        Fails::At(at, left) if !after && *at == step && *left > 0 => {
            *left -= 1;
            true
        }
        Fails::After(at, left) if after && *at == step && *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

async fn called(State(parts): State<Parts>, Json(said): Json<Value>) -> StatusCode {
    let text = |name: &str| said[name].as_str().unwrap().to_owned();
    let (step, secret, token) = (text("Step"), text("SecretId"), text("ClientRequestToken"));
    if strikes(&parts, &step, false) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let done = match step.as_str() {
        "createSecret" => create(&parts, &secret, &token).await,
        "setSecret" => set(&parts, &secret, &token).await,
        "testSecret" => test(&parts, &secret, &token).await,
        _ => finish(&parts, &secret, &token).await,
    };
    if done.is_none() || strikes(&parts, &step, true) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    parts.told.lock().unwrap().1.push(step);
    StatusCode::OK
}

/// A version's id and fields.
async fn version(parts: &Parts, secret: &str, by: Result<&str, &str>) -> Option<(String, Value)> {
    let call = parts.safe.get_secret_value().secret_id(secret);
    let call = match by {
        Ok(label) => call.version_stage(label),
        Err(id) => call.version_id(id),
    };
    let found = call.send().await.ok()?;
    Some((found.version_id()?.to_owned(), serde_json::from_str(found.secret_string()?).ok()?))
}

async fn lets_in(parts: &Parts, fields: &Value) -> bool {
    let text = |name: &str| fields[name].as_str().unwrap();
    parts.pg.login(text("username"), text("password")).await.is_ok()
}

async fn create(parts: &Parts, secret: &str, token: &str) -> Option<()> {
    if version(parts, secret, Err(token)).await.is_some() {
        return Some(());
    }
    let (_, mut fields) = version(parts, secret, Ok("AWSCURRENT")).await?;
    fields["password"] = json!(unique("made-by-aws"));
    if let Some((a, b)) = &parts.pair {
        fields["username"] = json!(if fields["username"] == json!(a) { b } else { a });
    }
    let put = parts.safe.put_secret_value().secret_id(secret).client_request_token(token);
    put.secret_string(fields.to_string()).version_stages("AWSPENDING").send().await.ok().map(drop)
}

async fn set(parts: &Parts, secret: &str, token: &str) -> Option<()> {
    let (_, pending) = version(parts, secret, Err(token)).await?;
    if lets_in(parts, &pending).await {
        return Some(());
    }
    let (_, current) = version(parts, secret, Ok("AWSCURRENT")).await?;
    if !lets_in(parts, &current).await {
        return None;
    }
    let text = |name: &str| pending[name].as_str().unwrap();
    // A user that takes its first turn is let in as well: as a clone is made.
    let sql = format!("ALTER ROLE \"{}\" LOGIN PASSWORD '{}'", text("username"), text("password"));
    sqlx::query(AssertSqlSafe(sql)).execute(&parts.pool).await.ok().map(drop)
}

async fn test(parts: &Parts, secret: &str, token: &str) -> Option<()> {
    let (_, pending) = version(parts, secret, Err(token)).await?;
    lets_in(parts, &pending).await.then_some(())
}

async fn finish(parts: &Parts, secret: &str, token: &str) -> Option<()> {
    let (current, _) = version(parts, secret, Ok("AWSCURRENT")).await?;
    if current == token {
        return Some(());
    }
    let call = parts.safe.update_secret_version_stage().secret_id(secret).version_stage("AWSCURRENT");
    call.move_to_version_id(token).remove_from_version_id(current).send().await.ok().map(drop)
}
