//! The one thread that writes. What callers queue while it commits becomes its next transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Error;
use super::queue::{Job, Waiting, full, job};
use super::rows::{all, exec, json, one, text};
use crate::case::record::Observation;
use crate::case::{Case, CaseId};
use crate::guard::Freeze;
use crate::journal::draft::{Ids, hash};
use crate::outcome::{self, Message};

const IDLE: Duration = Duration::from_secs(3600);
/// A group of this many operations is followed by more: they are given [`GATHER`] to come together, so that a commit is
/// paid for many. Under light load nobody waits.
const BUSY: usize = 8;
/// How far apart a busy writer's groups begin. A commit costs about a quarter of a millisecond of processor, whatever is
/// in it: that is what the revocations of a busy system feel (benches/README.md). Long enough that from 300 operations a
/// second on such a group is [`BUSY`] again, else it would wait every other time; one that takes longer waits for nobody.
const GATHER: Duration = Duration::from_millis(30);
/// How soon a file that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A claim of this process. It lives in memory only: a start voids all older ones.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) epoch: i64,
    pub(super) until_ms: i64,
    /// The `seq` that the next append must name: joins meanwhile do not disturb it.
    pub(super) expect: i64,
    /// The case as of its newest record; its row may be behind.
    pub(super) case: Case,
    /// Learned of the credential and not yet written.
    pub(super) learned: Option<Observation>,
}

/// What readers and the writer share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) healthy: AtomicBool,
    pub(super) switches: RwLock<Switches>,
}

/// Freeze and held start, in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Switches {
    pub(super) freeze: Option<Freeze>,
    pub(super) held: Option<String>,
}

/// What the writer knows without asking the file. Read again after a rollback.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) switches: Switches,
    /// The journal's own id.
    pub(super) journal: Uuid,
    /// The last row of the outbox and the hash of its body.
    pub(super) tail: (i64, Option<String>),
    pub(super) sent: i64,
    /// The minute of the cap, and what its effects cost so far.
    pub(super) charges: (i64, u32),
    /// Systems that have, or had, cases.
    pub(super) systems: BTreeSet<String>,
    pub(super) blocked: HashMap<String, i64>,
    /// The heartbeat allowance that `tasks.due_ms` was computed with.
    pub(super) missed: u32,
}

/// The write connection with what belongs to it.
pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) mem: Memory,
    pub(super) claims: HashMap<CaseId, Held>,
    /// Claims that the running transaction made or moved: void if it fails.
    pub(super) touched: HashSet<CaseId>,
    /// What the running transaction adds to counters.
    pub(super) counts: BTreeMap<&'static str, i64>,
    pub(super) charged: bool,
    pub(super) start: i64,
    pub(super) claimed: i64,
    /// Where the round over systems begins next.
    pub(super) turn: String,
    pub(super) ids: Arc<Ids>,
    stale: bool,
}

impl Writer {
    /// Reads what is needed in memory, and begins a new epoch.
    pub(super) fn begin(db: Connection) -> Result<Self, Error> {
        let mut writer = Self {
            db,
            mem: Memory::default(),
            claims: HashMap::new(),
            touched: HashSet::new(),
            counts: BTreeMap::new(),
            charged: false,
            start: 0,
            claimed: 0,
            turn: String::new(),
            ids: Arc::default(),
            stale: false,
        };
        let tx = writer.db.unchecked_transaction()?;
        exec(
            &writer.db,
            "INSERT INTO meta VALUES ('journal', ?) ON CONFLICT DO NOTHING",
            params![Uuid::new_v4().to_string()],
        )?;
        let last: i64 = writer.meta("epoch")?.and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        writer.start = last + 1;
        writer.set_meta("epoch", &writer.start.to_string())?;
        tx.commit()?;
        writer.load()?;
        Ok(writer)
    }

    /// Memory from the file.
    fn load(&mut self) -> Result<(), Error> {
        let db = &self.db;
        let tail = one(db, "SELECT seq, body FROM outbox ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })?;
        let number = |name| Ok::<_, Error>(self.meta(name)?.and_then(|n| n.parse::<i64>().ok()));
        let freeze = self.meta("freeze")?.map(|f| json::<(Freeze, String, String)>("meta", &f)).transpose()?;
        let mut mem = Memory {
            journal: self.meta("journal")?.and_then(|id| id.parse().ok()).ok_or(Error::Corrupt { what: "meta" })?,
            switches: Switches { freeze: freeze.map(|f| f.0), held: self.meta("started_held")? },
            tail: tail.map_or((0, None), |(seq, body)| (seq, Some(hash(&body)))),
            sent: number("sent")?.unwrap_or(0),
            missed: number("missed")?.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            ..Memory::default()
        };
        mem.charges = one(db, "SELECT minute, count FROM charges ORDER BY minute DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .unwrap_or((i64::MIN, 0));
        for (system, until) in all(db, "SELECT system, blocked_until_ms FROM systems", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })? {
            mem.blocked.insert(system, until);
        }
        let mut after = String::new();
        let next = "SELECT system FROM cases WHERE closed_ms IS NULL AND system > ? ORDER BY system LIMIT 1";
        while let Some(system) = one(db, next, [&after], |row| row.get::<_, String>(0))? {
            mem.systems.insert(system.clone());
            after = system;
        }
        self.mem = mem;
        Ok(())
    }

    /// A value of `meta`.
    pub(super) fn meta(&self, name: &str) -> Result<Option<String>, Error> {
        one(&self.db, "SELECT value FROM meta WHERE name=?", [name], |row| row.get(0))
    }

    /// Writes a value of `meta`.
    pub(super) fn set_meta(&self, name: &str, value: &str) -> Result<(), Error> {
        let sql = "INSERT INTO meta VALUES (?,?) ON CONFLICT DO UPDATE SET value=excluded.value";
        exec(&self.db, sql, [name, value]).map(drop)
    }

    /// Adds to a counter, in this transaction.
    pub(super) fn count(&mut self, name: &'static str, by: i64) {
        if by != 0 {
            *self.counts.entry(name).or_default() += by;
        }
    }

    /// What the effects of the minute of `now_ms` cost so far.
    pub(super) fn charges(&mut self, now_ms: i64) -> Result<u32, Error> {
        let minute = now_ms.div_euclid(60_000);
        if self.mem.charges.0 != minute {
            self.flush_charges()?;
            let stands = one(&self.db, "SELECT count FROM charges WHERE minute=?", [minute], |row| row.get(0))?;
            self.mem.charges = (minute, stands.unwrap_or(0));
        }
        Ok(self.mem.charges.1)
    }

    fn flush_charges(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.charged) {
            let (minute, count) = self.mem.charges;
            let sql = "INSERT INTO charges VALUES (?,?) ON CONFLICT DO UPDATE SET count=excluded.count";
            exec(&self.db, sql, params![minute, count])?;
        }
        Ok(())
    }

    /// Puts a message into the outbox, chained to the one before.
    pub(super) fn send(&mut self, message: &Message, now_ms: i64) -> Result<(), Error> {
        let seq = self.mem.tail.0 + 1;
        let body = outcome::envelope(
            message,
            outcome::Place { journal: self.mem.journal, seq, prev: self.mem.tail.1.as_deref() },
            now_ms,
        );
        let kind = text("outbox", &message.kind)?;
        exec(
            &self.db,
            "INSERT INTO outbox (seq, kind, key, body, traceparent, at_ms) VALUES (?,?,?,?,?,?)",
            params![seq, kind, message.key, body, message.traceparent, now_ms],
        )?;
        self.mem.tail = (seq, Some(hash(&body)));
        Ok(())
    }

    /// Keeps `tasks.due_ms` in step with the configured heartbeat allowance.
    pub(super) fn allow_missed(&mut self, missed: u32) -> Result<(), Error> {
        if self.mem.missed != missed {
            exec(
                &self.db,
                "UPDATE tasks SET due_ms = min(deadline_ms, alive_ms + heartbeat_every_ms * max(?, 1)) \
                 WHERE phase < 2 AND heartbeat_every_ms IS NOT NULL",
                [missed],
            )?;
            self.set_meta("missed", &missed.to_string())?;
            self.mem.missed = missed;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.flush_charges()?;
        for (name, by) in std::mem::take(&mut self.counts) {
            let sql = "INSERT INTO counters VALUES (?,?) ON CONFLICT DO UPDATE SET value=value+excluded.value";
            exec(&self.db, sql, params![name, by])?;
        }
        Ok(())
    }

    /// Runs jobs in one transaction until one breaks it; gives back those that did not run.
    fn group(&mut self, jobs: Vec<Job>, shared: &Shared) -> Vec<Job> {
        let mut jobs = jobs.into_iter();
        let mut replies = Vec::new();
        let before = self.db.total_changes();
        let mut broken = self.open_transaction().err().map(|e| full(&e));
        if broken.is_some() {
            // Nothing may run: a dropped job tells its caller so.
            jobs.by_ref().for_each(drop);
        }
        for job in jobs.by_ref() {
            match catch_unwind(AssertUnwindSafe(|| (job.run)(self))) {
                Ok((fault, reply)) => {
                    replies.push(reply);
                    broken = fault;
                }
                Err(_) => broken = Some("an operation on the journal panicked".to_owned()),
            }
            if broken.is_some() {
                break;
            }
        }
        let result = match broken {
            Some(why) => Err(why),
            None => self.flush().and_then(|()| Ok(self.db.execute_batch("COMMIT")?)).map_err(|e| full(&e)),
        };
        if result.is_err() {
            self.roll_back();
        }
        self.touched.clear();
        // A commit of nothing proves nothing.
        if result.is_err() || self.db.total_changes() != before {
            shared.healthy.store(result.is_ok(), Ordering::SeqCst);
        }
        if let Ok(mut switches) = shared.switches.write()
            && result.is_ok()
            && *switches != self.mem.switches
        {
            switches.clone_from(&self.mem.switches);
        }
        if let Err(why) = &result {
            tracing::error!(why, "the journal was not written");
        }
        for reply in replies {
            reply(result.as_ref().copied().map_err(String::as_str));
        }
        jobs.collect()
    }

    fn open_transaction(&mut self) -> Result<(), Error> {
        if self.stale {
            self.load()?;
            self.stale = false;
        }
        Ok(self.db.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn roll_back(&mut self) {
        if !self.db.is_autocommit()
            && let Err(e) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(why = %e, "the journal did not roll back");
        }
        for id in self.touched.drain() {
            self.claims.remove(&id);
        }
        self.counts.clear();
        self.charged = false;
        self.stale = true;
        if self.load().is_ok() {
            self.stale = false;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the journal's own thread: no runtime waits for it")]
fn gather(since: Instant) {
    std::thread::sleep(GATHER.saturating_sub(since.elapsed()));
}

/// Brings the log into the file, which is then whole by itself. The readers that outlive this connection cannot: they may
/// not write. Where it fails nothing is lost: the next start reads the log.
fn fold_log(db: &Connection) {
    let busy = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    match busy {
        Ok(false) => {}
        Ok(true) => tracing::warn!("somebody still reads the journal: its newest rows stay in its -wal file"),
        Err(error) => tracing::warn!(%error, "the journal's newest rows stay in its -wal file"),
    }
}

/// The writer thread. Ends when nobody can queue any more; the lock goes last.
pub(super) fn run(mut writer: Writer, queue: &Receiver<Job>, most: usize, shared: &Shared, lock: File) {
    let mut waiting = Waiting::default();
    let (mut last, mut began, mut many) = (0, Instant::now(), None);
    loop {
        if waiting.is_empty() {
            // While not healthy it tries by itself, so that readiness returns without traffic.
            let healthy = shared.healthy.load(Ordering::SeqCst);
            match queue.recv_timeout(if healthy { IDLE } else { AGAIN }) {
                Ok(job) => waiting.put(job),
                Err(RecvTimeoutError::Timeout) if healthy => continue,
                Err(RecvTimeoutError::Timeout) => waiting.put(job(|w| w.set_meta("probe", "")).0),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Beside batches of arrivals nobody needs to wait: while one is written, enough comes together.
        if last >= BUSY && many.is_none_or(|at: Instant| at.elapsed() > GATHER) {
            gather(began);
        }
        while waiting.len() < most
            && let Ok(job) = queue.try_recv()
        {
            waiting.put(job);
        }
        let (group, heavy) = waiting.group(most);
        (last, began) = (group.len(), Instant::now());
        waiting.put_back(writer.group(group, shared));
        if heavy {
            many = Some(Instant::now());
        }
    }
    fold_log(&writer.db);
    drop(writer);
    drop(lock);
}

/// The last known state of the switches.
pub(super) fn switches(shared: &Shared) -> Switches {
    shared.switches.read().map(|s| s.clone()).unwrap_or_default()
}

/// A shared state that begins with what the writer loaded.
pub(super) fn share(writer: &Writer) -> Arc<Shared> {
    Arc::new(Shared { healthy: AtomicBool::new(true), switches: RwLock::new(writer.mem.switches.clone()) })
}
