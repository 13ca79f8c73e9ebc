//! The file: pragmas, migrations, and the lock that keeps a second process out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, OpenFlags};

use super::Error;
use crate::event::digest16;

/// So much of the file is looked at where the kernel has it, in bytes.
const MAPPED: i64 = 4 << 30;

/// In order; the file's `user_version` is how many of them it has.
const MIGRATIONS: [&str; 12] = [
    include_str!("../../../schemas/journal/sqlite/0001_spine.sql"),
    include_str!("../../../schemas/journal/sqlite/0002_findings.sql"),
    include_str!("../../../schemas/journal/sqlite/0003_compact_findings.sql"),
    include_str!("../../../schemas/journal/sqlite/0004_parts.sql"),
    include_str!("../../../schemas/journal/sqlite/0005_unbound.sql"),
    include_str!("../../../schemas/journal/sqlite/0006_compact_marks.sql"),
    include_str!("../../../schemas/journal/sqlite/0007_reach.sql"),
    include_str!("../../../schemas/journal/sqlite/0008_watched.sql"),
    include_str!("../../../schemas/journal/sqlite/0009_boundary.sql"),
    include_str!("../../../schemas/journal/sqlite/0010_offboarded.sql"),
    include_str!("../../../schemas/journal/sqlite/0011_uses.sql"),
    include_str!("../../../schemas/journal/sqlite/0012_blast.sql"),
];

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match error {
            E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) => {
                Self::Corrupt { what: "column" }
            }
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

/// The lock file beside `path`, held as long as the value lives.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let unavailable = |e: std::io::Error| Error::Unavailable(Box::new(e));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&beside)
        .map_err(unavailable)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(unavailable)?;
            file.rewind().map_err(unavailable)?;
            write!(file, "{}", std::process::id()).map_err(unavailable)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known { format!("pid {}", holder.trim()) } else { "unknown pid".to_owned() };
            Err(Error::InUse { path: path.display().to_string(), holder })
        }
        Err(TryLockError::Error(e)) => Err(unavailable(e)),
    }
}

/// The write connection, migrated.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    // For its owner only, and so are the files that SQLite puts beside it.
    let make = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    drop(make.map_err(|e| Error::Unavailable(Box::new(e)))?);
    let mut db = Connection::open(path)?;
    prepare(&db, 65_536)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // 64 MB: pages that each batch touches (indexes of hashes) go into the file once for many batches.
    db.pragma_update(None, "wal_autocheckpoint", 16_000)?;
    let has: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let knows = MIGRATIONS.len();
    let Some(missing) = usize::try_from(has).ok().and_then(|has| MIGRATIONS.get(has..)) else {
        let text = format!("{} was written by a newer curfew (schema {has}, this one knows {knows})", path.display());
        return Err(Error::Unavailable(text.into()));
    };
    if !missing.is_empty() {
        let digest =
            |row: &Context<'_>| Ok(digest16(&[row.get_raw(0).as_bytes()?, row.get_raw(1).as_bytes()?]).to_vec());
        db.create_scalar_function("digest16", 2, FunctionFlags::SQLITE_DETERMINISTIC, digest)?;
        let tx = db.transaction()?;
        for sql in missing {
            tx.execute_batch(sql)?;
        }
        tx.pragma_update(None, "user_version", i64::try_from(knows).unwrap_or(i64::MAX))?;
        tx.commit()?;
    }
    Ok(db)
}

/// A read connection.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(path, flags)?;
    prepare(&db, 16_384)?;
    Ok(db)
}

fn prepare(db: &Connection, cache_kib: i64) -> Result<(), Error> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.set_prepared_statement_cache_capacity(128);
    // Else a bound value may change the plan, and each binding prepares the statement again.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "foreign_keys", "OFF")?;
    db.pragma_update(None, "cache_size", -cache_kib)?;
    // What is looked up by hashes lies anywhere in the file: pages beyond our own cache are read where the kernel has them,
    // without a call and a copy for each. Read only: SQLite writes by calls all the same.
    db.pragma_update(None, "mmap_size", MAPPED)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}
