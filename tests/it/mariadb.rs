//! What a MariaDB user's death looks like, on a real server.

pub mod life;
mod logins;
mod odd;
pub mod own;
mod rights;
mod user;

use std::sync::Arc;

use curfew::clock::System;
use curfew::connector::Connector;
use curfew::connector::mariadb::{MariadbSettings, Url, connect};
use secrecy::SecretString;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::world::env;

/// The server that all tests share.
pub fn shared() -> String {
    env("CURFEW_TEST_MARIADB")
}

/// As the administrator.
pub async fn admin() -> MySqlConnection {
    MySqlConnection::connect(&shared()).await.unwrap()
}

pub async fn run(connection: &mut MySqlConnection, sql: String) {
    if let Err(error) = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await {
        panic!("{sql}: {error}");
    }
}

/// As a user of the server at `url`.
pub fn as_user(url: &str, user: &str, password: &str) -> MySqlConnectOptions {
    let options: MySqlConnectOptions = url.parse().unwrap();
    options.username(user).password(password)
}

pub async fn login(user: &str, password: &str) -> Result<MySqlConnection, sqlx::Error> {
    MySqlConnection::connect_with(&as_user(&shared(), user, password)).await
}

/// What MariaDB keeps of a password. The test says no value to the server either: its logs are searched for them.
pub fn hashed(password: &str) -> String {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    format!("*{}", hex::encode_upper(digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref())))
}

/// A user with this password.
pub async fn make(admin: &mut MySqlConnection, account: &str, password: &str) {
    let hash = hashed(password);
    run(admin, format!("CREATE USER {account} IDENTIFIED VIA mysql_native_password USING '{hash}'")).await;
}

pub async fn target_by(url: &str) -> Arc<dyn Connector> {
    let url = Url::Given(SecretString::from(url.to_owned()));
    connect("appdb", &MariadbSettings { url, timeout_ms: 3_000 }, System::shared()).await.unwrap()
}

/// Curfew's own user with the rights that `deploy/mariadb` gives it, at the server of `url`: its URL and its name.
pub async fn least(url: &str) -> (String, String) {
    let (name, password) = (crate::world::unique("curfew"), crate::postgres::shelf::value());
    let mut admin = MySqlConnection::connect(url).await.unwrap();
    let text = std::fs::read_to_string(crate::repository().join("deploy/mariadb/curfew.sql")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("--") && !line.is_empty());
    for statement in lines {
        run(&mut admin, statement.replace("curfew@", &format!("'{name}'@"))).await;
    }
    run(&mut admin, format!("SET PASSWORD FOR '{name}'@'%' = '{}'", hashed(&password))).await;
    let (_, place) = url.split_once('@').unwrap();
    (format!("mariadb://{name}:{password}@{place}"), name)
}

/// The binary log of a server, all its files.
pub fn changes(folder: &std::path::Path) -> String {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("changes.0"));
    logs.map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()).collect()
}
