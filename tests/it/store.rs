//! Where a test's journal is. Whatever the trait promises is tested by one body over each of these.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use curfew::case::Case;
use curfew::case::record::Record;
use curfew::journal::Journal;
use curfew::journal::sqlite::{self, Sqlite};
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

/// A place for a journal that nobody else has.
pub enum Store {
    /// A file: of one process.
    Sqlite(TempDir),
}

impl Store {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// Another place of the same kind.
    pub async fn fresh(&self) -> Self {
        match self {
            Self::Sqlite(_) => Self::sqlite(),
        }
    }

    /// The journal as a process opens it at its start.
    pub async fn open(&self) -> Arc<dyn Journal> {
        match self {
            Self::Sqlite(_) => self.open_file(),
        }
    }

    /// The journal of one more process. A file has one process, and this is that one's.
    pub async fn open_beside(&self, first: &Arc<dyn Journal>) -> Arc<dyn Journal> {
        match self {
            Self::Sqlite(_) => first.clone(),
        }
    }

    /// The process of `journal` is killed, and the next one begins. Nothing else may hold `journal`.
    pub async fn reopen(&self, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        drop(journal);
        self.leases_end().await;
        self.open().await
    }

    /// As if the leases of all claims had run out. Those in a file do by the time that the test passes in.
    pub async fn leases_end(&self) {
        match self {
            Self::Sqlite(_) => {}
        }
    }

    /// A number from the tables, as they are.
    pub async fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite(_) => {
                let number = self.connect().query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
                number.unwrap().unwrap_or(0)
            }
        }
    }

    /// What a counter says.
    pub async fn counter(&self, name: &str) -> i64 {
        match self {
            Self::Sqlite(_) => self.number(&format!("SELECT sum(value) FROM counters WHERE name = '{name}'")).await,
        }
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
        };
        rows.into_iter().map(|(seq, records)| (seq, serde_json::from_str(&records).unwrap())).collect()
    }

    /// From now on the store refuses every record of a case, and nothing else.
    pub async fn refuse_records(&self) {
        match self {
            Self::Sqlite(_) => {
                self.execute(
                    "CREATE TRIGGER refuses BEFORE INSERT ON records BEGIN SELECT RAISE(FAIL, 'no room'); END",
                );
            }
        }
    }

    /// And now it takes them again.
    pub async fn accept_records(&self) {
        match self {
            Self::Sqlite(_) => self.execute("DROP TRIGGER refuses"),
        }
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
        let Self::Sqlite(folder) = self;
        folder.path().join("journal.db")
    }

    /// Another connection to the file, past the journal.
    pub fn connect(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }
}
