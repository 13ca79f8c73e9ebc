//! Where a test's journal is. Whatever the trait promises is tested by one body over each of these.
#![allow(dead_code)]

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use curfew::case::Case;
use curfew::case::record::Record;
use curfew::event::digest16;
use curfew::journal::sqlite::{self, Sqlite};
use curfew::journal::{Journal, postgres};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _};
use tempfile::TempDir;
use uuid::Uuid;

use crate::admin;
use crate::world::{repository, unique};

/// A place for a journal that nobody else has.
pub enum Store {
    /// A file: of one process.
    Sqlite(TempDir),
    /// A schema of the servers' database: of many processes.
    Postgres(Schema),
}

/// A schema, and a connection to it past the journal.
pub struct Schema {
    name: String,
    side: PgPool,
}

impl Schema {
    fn new() -> Self {
        let name = unique("journal").replace('-', "_");
        let options = PgConnectOptions::from_str(&admin::Postgres::shared().url).unwrap();
        let options = options.options([("search_path", &name)]);
        Self { side: PgPoolOptions::new().max_connections(1).connect_lazy_with(options), name }
    }

    async fn execute(&self, sql: &'static str) {
        self.side.execute(sql).await.unwrap();
    }
}

/// All tables of the schema, in another one beside it.
const COPY: &str = "DO $$ DECLARE one text; copy text := current_schema() || '_copy'; BEGIN \
    EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', copy); \
    EXECUTE format('CREATE SCHEMA %I', copy); \
    FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP \
      EXECUTE format('CREATE TABLE %I.%I AS TABLE %I', copy, one, one); \
    END LOOP; \
    EXECUTE format('CREATE TABLE %I.epochs AS SELECT last_value FROM epochs', copy); END $$";

/// And back: in one step, as a copy takes over.
const FALL_BACK: &str = "DO $$ DECLARE one text; every text; epoch bigint; copy text := current_schema() || '_copy'; BEGIN \
    SELECT string_agg(quote_ident(tablename), ',') INTO every FROM pg_tables WHERE schemaname = current_schema(); \
    EXECUTE 'TRUNCATE ' || every; \
    FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() \
      ORDER BY tablename = 'budgets', tablename LOOP \
      EXECUTE format('INSERT INTO %I OVERRIDING SYSTEM VALUE TABLE %I.%I', one, copy, one); \
    END LOOP; \
    EXECUTE format('SELECT last_value FROM %I.epochs', copy) INTO epoch; \
    PERFORM setval('epochs', epoch); END $$";

/// The function that Curfew gives to SQLite.
pub fn give_digest16(db: &Connection) {
    let digest = |row: &Context<'_>| {
        let parts: Vec<&[u8]> = (0..row.len()).map(|i| row.get_raw(i).as_bytes()).collect::<Result<_, _>>()?;
        Ok(digest16(&parts).to_vec())
    };
    db.create_scalar_function("digest16", -1, FunctionFlags::SQLITE_DETERMINISTIC, digest).unwrap();
}

impl Store {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// Within a runtime.
    pub fn postgres() -> Self {
        Self::Postgres(Schema::new())
    }

    /// Another place of the same kind.
    pub fn fresh(&self) -> Self {
        match self {
            Self::Sqlite(_) => Self::sqlite(),
            Self::Postgres(_) => Self::postgres(),
        }
    }

    /// As an earlier version left it, whose schema had `count` parts, and then `sql`.
    pub async fn older(&self, count: usize, sql: &str) {
        let kind = if matches!(self, Self::Sqlite(_)) { "sqlite" } else { "postgres" };
        let folder = repository().join("schemas/journal").join(kind);
        let mut parts: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        parts.sort();
        let parts: String = parts[..count].iter().map(|part| std::fs::read_to_string(part).unwrap()).collect();
        match self {
            Self::Sqlite(_) => {
                let db = self.connect();
                give_digest16(&db);
                db.execute_batch(&format!("{parts} PRAGMA user_version = {count}; {sql}")).unwrap();
            }
            Self::Postgres(schema) => {
                let name = &schema.name;
                let version = format!("INSERT INTO meta VALUES ('schema', '{count}')");
                let all = format!("CREATE SCHEMA {name}; {parts}; {version}; {sql}");
                schema.side.execute(AssertSqlSafe(all)).await.unwrap();
            }
        }
    }

    /// The journal as a process opens it at its start.
    pub async fn open(&self) -> Arc<dyn Journal> {
        match self {
            Self::Sqlite(_) => self.open_file(),
            Self::Postgres(_) => self.open_through(&admin::Postgres::shared().host).await,
        }
    }

    /// The journal of one more process. A file has one process, and this is that one's.
    pub async fn open_beside(&self, first: &Arc<dyn Journal>) -> Arc<dyn Journal> {
        match self {
            Self::Sqlite(_) => first.clone(),
            Self::Postgres(_) => self.open().await,
        }
    }

    /// The process of `journal` is killed, and the next one begins. Nothing else may hold `journal`.
    pub async fn reopen(&self, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        drop(journal);
        self.leases_end().await;
        self.open().await
    }

    /// As if the leases of all claims had run out. Those in a file do by the time that the test passes in, those in a
    /// database by its own clock.
    pub async fn leases_end(&self) {
        match self {
            Self::Sqlite(_) => {}
            Self::Postgres(schema) => {
                schema.execute("UPDATE cases SET claim_until_ms = 0 WHERE claim_until_ms > 0").await;
                schema.execute("UPDATE lanes SET until_ms = 0").await;
            }
        }
    }

    /// As if a crash of the database had taken each claim away, and another process had got the case with the same epoch.
    pub async fn claims_pass_on(&self) {
        let Self::Postgres(schema) = self else { panic!("a file has one process") };
        schema.execute("UPDATE cases SET claimed_by = gen_random_uuid() WHERE claim_epoch IS NOT NULL").await;
    }

    /// A number from the tables, as they are.
    pub async fn number(&self, sql: &str) -> i64 {
        let number: Option<i64> = match self {
            Self::Sqlite(_) => self.connect().query_row(sql, [], |row| row.get(0)).unwrap(),
            Self::Postgres(schema) => {
                // Its sums are of another type.
                let sql = AssertSqlSafe(format!("SELECT ({sql})::bigint"));
                sqlx::query_scalar(sql).fetch_one(&schema.side).await.unwrap()
            }
        };
        number.unwrap_or(0)
    }

    /// What a counter says.
    pub async fn counter(&self, name: &str) -> i64 {
        let sql = match self {
            Self::Sqlite(_) => format!("SELECT sum(value) FROM counters WHERE name = '{name}'"),
            Self::Postgres(_) => format!("SELECT sum({name}) FROM writers"),
        };
        self.number(&sql).await
    }

    /// Each case as its row says, and when it closed.
    pub async fn cases(&self) -> Vec<(Case, Option<i64>)> {
        const ALL: &str = "SELECT body, closed_ms FROM cases";
        let rows: Vec<(String, Option<i64>)> = match self {
            Self::Sqlite(_) => {
                let db = self.connect();
                let mut rows = db.prepare(ALL).unwrap();
                rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres(schema) => sqlx::query_as(ALL).fetch_all(&schema.side).await.unwrap(),
        };
        rows.into_iter().map(|(body, closed_ms)| (serde_json::from_str(&body).unwrap(), closed_ms)).collect()
    }

    /// The records of each append to a case, in order.
    pub async fn records(&self, case: Uuid) -> Vec<(i64, Vec<Record>)> {
        let rows: Vec<(i64, String)> = match self {
            Self::Sqlite(_) => {
                let db = self.connect();
                let mut rows = db.prepare("SELECT seq, records FROM records WHERE case_id = ? ORDER BY seq").unwrap();
                let rows = rows.query_map([case.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Self::Postgres(schema) => {
                let rows = sqlx::query_as("SELECT seq, records FROM records WHERE case_id = $1 ORDER BY seq");
                rows.bind(case).fetch_all(&schema.side).await.unwrap()
            }
        };
        rows.into_iter().map(|(seq, records)| (seq, serde_json::from_str(&records).unwrap())).collect()
    }

    /// From now on the store refuses every record of a case, and nothing else.
    pub async fn refuse_records(&self) {
        match self {
            Self::Sqlite(_) => {
                self.execute("CREATE TRIGGER refuses BEFORE INSERT ON records BEGIN SELECT RAISE(FAIL, 'full'); END");
            }
            Self::Postgres(schema) => {
                let refuses = "CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql \
                               AS $$ BEGIN RAISE 'full' USING ERRCODE = 'disk_full'; END $$";
                schema.execute(refuses).await;
                schema.execute("CREATE TRIGGER refuses BEFORE INSERT ON records EXECUTE FUNCTION refuses()").await;
            }
        }
    }

    /// And now it takes them again.
    pub async fn accept_records(&self) {
        match self {
            Self::Sqlite(_) => self.execute("DROP TRIGGER refuses"),
            Self::Postgres(schema) => schema.execute("DROP TRIGGER refuses ON records").await,
        }
    }

    /// For tests of what only a database has: from now on there is a copy that follows no further.
    pub async fn copy(&self) {
        self.side(COPY).await;
    }

    /// The copy takes over: what was committed since is lost. Whoever is connected stays so.
    pub async fn fall_back(&self) {
        self.side(FALL_BACK).await;
    }

    /// Past the journal, in a database.
    pub async fn side(&self, sql: &'static str) {
        let Self::Postgres(schema) = self else { panic!("a file is no database") };
        schema.execute(sql).await;
    }

    fn execute(&self, sql: &str) {
        let side = self.connect();
        side.busy_timeout(Duration::from_secs(10)).unwrap();
        side.execute_batch(sql).unwrap();
    }

    /// For tests of what only a file has.
    pub fn open_file(&self) -> Arc<Sqlite> {
        Sqlite::open(&self.file(), sqlite::Settings::default()).unwrap()
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        let Self::Sqlite(folder) = self else { panic!("a database is no file") };
        folder.path().join("journal.db")
    }

    /// Another connection to the file, past the journal.
    pub fn connect(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }

    /// For tests of what only a database has: with what stands before the server at `host`.
    pub async fn open_through(&self, host: &str) -> Arc<postgres::Postgres> {
        let Self::Postgres(schema) = self else { panic!("a file is no database") };
        let server = admin::Postgres::shared();
        let settings = postgres::Settings::new(&server.url.replace(&server.host, host), &schema.name);
        postgres::Postgres::open(settings).await.unwrap()
    }
}
