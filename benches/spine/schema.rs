//! A schema of the servers' PostgreSQL for a journal, with a connection past it.

use std::str::FromStr as _;
use std::sync::Arc;

use curfew::journal::postgres::{Postgres, Settings};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::admin;
use crate::world::unique;

pub struct Schema {
    name: String,
    pub side: PgConnection,
}

impl Schema {
    /// With the journal's tables in it.
    pub async fn new() -> Self {
        let name = unique("bench").replace('-', "_");
        let options = PgConnectOptions::from_str(&admin::Postgres::shared().url).unwrap();
        let side = PgConnection::connect_with(&options.options([("search_path", &name)])).await.unwrap();
        let schema = Self { name, side };
        drop(schema.open().await);
        schema
    }

    /// The journal, as a process opens it.
    pub async fn open(&self) -> Arc<Postgres> {
        Postgres::open(Settings::new(&admin::Postgres::shared().url, &self.name)).await.unwrap()
    }

    pub async fn execute(&mut self, sql: String) {
        self.side.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// After many rows were put in: what the server does about them later is not to be measured.
    pub async fn settle(&mut self) {
        self.execute("VACUUM ANALYZE".to_owned()).await;
        self.execute("CHECKPOINT".to_owned()).await;
    }
}
