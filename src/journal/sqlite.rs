//! The journal in one SQLite file.
//!
//! One thread writes; what callers queue while it commits becomes its next transaction, so a commit's fsync is shared.
//! A refused operation is refused before it writes; an error of the file rolls the whole transaction back, and every
//! caller in it is told so. Readers have connections of their own and see what is committed.
//!
//! - `schema`: the file, its migrations, the lock against a second process
//! - `writer`: the thread, its transactions, counters, the outbox's chain · `queue`: who comes first
//! - `intake`: batches of arrivals · `cases`: claims and appends · `read`: what people and roles read
//! - `shown`: what people watch
//! - `rows`: rows to values and back

mod cases;
mod findings;
mod intake;
mod leaving;
mod queue;
mod reach;
mod read;
mod rows;
mod schema;
mod shown;
mod tasks;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use uuid::Uuid;

use self::queue::Job;
use self::writer::{Shared, Writer};
use super::shown::{Deaths, Excerpt, Holder, Page, Watched, Which};
use super::{
    Append, Batch, CaseLine, Claim, Cluster, Due, DueAt, Error, Filter, Journal, Known, LivedAt, LivedPage, Old,
    Outgoing, Overrun, Position, Recorded, Source, Standing, Stats, Tail, TaskFilter, TaskLine, Timeline, Want,
    Watermark, Worker,
};
use crate::case::record::{Observation, Record};
use crate::case::{Case, CaseId};
use crate::credential::CredentialId;
use crate::finding::Finding;
use crate::guard::Freeze;
use crate::limit::Part;
use crate::offboard::{Minded, Offboarding};
use crate::scope::Fence;
use crate::task::{Credential, Tenant};

/// How the file is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Operations that share one transaction, at most.
    pub group: usize,
    /// The largest size of the file, in pages of 4 KiB; beyond it the journal is not ready, as with a full disk.
    pub max_pages: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { group: 256, max_pages: None }
    }
}

/// The journal in one SQLite file, for one process.
#[derive(Debug)]
pub struct Sqlite {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// Short reads of roles.
    work: Arc<Mutex<Connection>>,
    /// Long reads of people and metrics.
    people: Arc<Mutex<Connection>>,
    /// The heartbeat allowance that was asked for last; -1: none yet.
    missed: AtomicI64,
    path: PathBuf,
}

impl Sqlite {
    /// Opens or creates the file. All older claims are void from now on.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it; [`Error::Unavailable`] when it cannot be read or written.
    pub fn open(path: &Path, settings: Settings) -> Result<Arc<Self>, Error> {
        let lock = schema::lock(path)?;
        let db = schema::open(path)?;
        if let Some(pages) = settings.max_pages {
            db.pragma_update(None, "max_page_count", pages)?;
        }
        let writer = Writer::begin(db)?;
        let shared = writer::share(&writer);
        let work = Arc::new(Mutex::new(schema::open_to_read(path)?));
        let people = Arc::new(Mutex::new(schema::open_to_read(path)?));
        let (queue, jobs) = channel();
        let seen = shared.clone();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer::run(writer, &jobs, settings.group.max(1), &seen, lock))
            .map_err(|e| Error::Unavailable(Box::new(e)))?;
        let path = path.to_owned();
        Ok(Arc::new(Self {
            queue: Some(queue),
            thread: Some(thread),
            shared,
            work,
            people,
            missed: AtomicI64::new(-1),
            path,
        }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the largest size of the file, in pages.
    ///
    /// # Errors
    /// As any write.
    pub async fn set_max_pages(&self, pages: u32) -> Result<(), Error> {
        self.write(move |w| Ok(w.db.pragma_update(None, "max_page_count", pages)?)).await
    }

    /// Rows that the write connection has inserted, changed or deleted since it was opened: what a bench counts.
    ///
    /// # Errors
    /// As any write.
    pub async fn row_writes(&self) -> Result<u64, Error> {
        self.write(|w| Ok(w.db.total_changes())).await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.enqueue(0, work).await
    }

    /// Writes what records so many arrivals: cases go before it.
    async fn enqueue<T: Send + 'static>(
        &self,
        arrivals: usize,
        work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answered) = queue::job(work);
        let job = Job { arrivals, ..job };
        let gone = || Error::Unavailable("the journal's writer did not answer".into());
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(job).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn read<T: Send + 'static>(
        db: &Arc<Mutex<Connection>>,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let db = db.clone();
        let read = move || work(&db.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(read).await.map_err(|e| Error::Unavailable(crate::telemetry::died(&e).into()))?
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // What is queued is still written; then the file is closed and its lock free.
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
    }
}

#[async_trait]
impl Journal for Sqlite {
    fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::SeqCst)
    }

    fn reach(&self) -> &dyn crate::reach::Facts {
        self
    }

    async fn record_batch(&self, batch: Batch) -> Result<Recorded, Error> {
        self.enqueue(batch.arrivals.len(), move |w| intake::record(w, &batch)).await
    }

    async fn position(&self, cluster: &str, topic: &str, partition: i32) -> Result<Option<Position>, Error> {
        let (cluster, topic) = (cluster.to_owned(), topic.to_owned());
        Self::read(&self.work, move |db| rows::position(db, &cluster, &topic, partition)).await
    }

    async fn caught_up(&self, cluster: &str, topic: &str, partition: i32, at_ms: i64) -> Result<(), Error> {
        let (cluster, topic) = (cluster.to_owned(), topic.to_owned());
        self.write(move |w| {
            rows::exec(
                &w.db,
                "INSERT INTO positions (cluster, topic, partition, last_ms, last_digest, caught_up_ms) \
                 VALUES (?,?,?,0,x'',?) ON CONFLICT DO UPDATE SET caught_up_ms=max(caught_up_ms,excluded.caught_up_ms)",
                params![cluster, topic, partition, at_ms],
            )
            .map(drop)
        })
        .await
    }

    async fn watermark(&self) -> Result<Watermark, Error> {
        Self::read(&self.work, read::watermark).await
    }

    async fn set_position(&self, to: Position) -> Result<(), Error> {
        self.write(move |w| rows::put_position(&w.db, &to)).await
    }

    async fn clusters(&self) -> Result<Vec<Cluster>, Error> {
        Self::read(&self.people, read::clusters).await
    }

    async fn forget_cluster(&self, cluster: &str) -> Result<u64, Error> {
        let cluster = cluster.to_owned();
        self.write(move |w| Ok(rows::exec(&w.db, "DELETE FROM positions WHERE cluster=?", [&cluster])? as u64)).await
    }

    async fn claim(&self, want: Want) -> Result<Vec<Claim>, Error> {
        self.write(move |w| cases::claim(w, &want)).await
    }

    async fn append(&self, append: Append) -> Result<Case, Error> {
        self.write(move |w| cases::append(w, append)).await
    }

    async fn unclaim(&self, case: CaseId, epoch: i64, due_ms: i64) -> Result<(), Error> {
        self.write(move |w| cases::unclaim(w, case, epoch, due_ms)).await
    }

    async fn block(&self, system: &str, until_ms: i64, reason: &str) -> Result<(), Error> {
        let (system, reason) = (system.to_owned(), reason.to_owned());
        self.write(move |w| cases::block(w, &system, until_ms, &reason)).await
    }

    /// The file has one process: it has the whole of everything.
    async fn announce(&self, worker: Worker, _: i64) -> Result<Vec<Part>, Error> {
        Ok(worker.calls.iter().map(|(_, whole, _)| Part { granted: *whole, fair: *whole }).collect())
    }

    async fn leave(&self, _: Uuid) -> Result<(), Error> {
        Ok(())
    }

    async fn lead(&self, _: &str, _: Uuid, _: i64) -> Result<bool, Error> {
        Ok(true)
    }

    async fn due(&self, before_ms: i64, missed: u32, after: Option<DueAt>, max: usize) -> Result<Vec<Due>, Error> {
        // Not on the writer's thread: what many pages read must not keep intake waiting.
        if self.missed.load(Ordering::SeqCst) != i64::from(missed) {
            self.write(move |w| w.allow_missed(missed)).await?;
            self.missed.store(i64::from(missed), Ordering::SeqCst);
        }
        Self::read(&self.work, move |db| read::due(db, before_ms, after.as_ref(), max)).await
    }

    async fn sources(&self) -> Result<Vec<Source>, Error> {
        Self::read(&self.work, read::sources).await
    }

    async fn unseen(&self, realm: Option<&str>, max: usize, now_ms: i64) -> Result<Vec<Credential>, Error> {
        let realm = realm.map(str::to_owned);
        Self::read(&self.work, move |db| read::unseen(db, realm.as_deref(), max, now_ms)).await
    }

    async fn saw(
        &self,
        tenant: &Tenant,
        id: &CredentialId,
        seen: Observation,
        again_ms: Option<i64>,
    ) -> Result<(), Error> {
        let (tenant, id) = (tenant.clone(), id.clone());
        self.write(move |w| cases::saw(w, &tenant, &id, &seen, again_ms)).await
    }

    async fn known(&self, tenant: &Tenant, ids: Vec<CredentialId>) -> Result<Vec<Known>, Error> {
        let tenant = tenant.clone();
        Self::read(&self.work, move |db| read::known(db, &tenant, &ids)).await
    }

    async fn freeze(&self, how: Freeze, by: &str, reason: &str) -> Result<(), Error> {
        let (by, reason) = (by.to_owned(), reason.to_owned());
        self.write(move |w| {
            w.set_meta("freeze", &rows::text("meta", &(how, by, reason))?)?;
            w.mem.switches.freeze = Some(how);
            Ok(())
        })
        .await
    }

    async fn release(&self, by: &str) -> Result<(), Error> {
        let by = by.to_owned();
        self.write(move |w| {
            rows::exec(&w.db, "DELETE FROM meta WHERE name IN ('freeze', 'started_held')", [])?;
            w.set_meta("released_by", &by)?;
            w.mem.switches = writer::Switches::default();
            Ok(())
        })
        .await
    }

    async fn frozen(&self) -> Result<Option<Freeze>, Error> {
        Ok(writer::switches(&self.shared).freeze)
    }

    async fn hold_start(&self, reason: &str) -> Result<(), Error> {
        let reason = reason.to_owned();
        self.write(move |w| {
            w.set_meta("started_held", &reason)?;
            w.mem.switches.held = Some(reason);
            Ok(())
        })
        .await
    }

    async fn started_held(&self) -> Result<Option<String>, Error> {
        Ok(writer::switches(&self.shared).held)
    }

    async fn command(&self, case: CaseId, record: Option<Record>, now_ms: i64) -> Result<Case, Error> {
        self.write(move |w| cases::command(w, case, record.as_ref(), now_ms)).await
    }

    async fn outbox(&self, after: i64, max: usize) -> Result<Vec<Outgoing>, Error> {
        Self::read(&self.work, move |db| read::outbox(db, after, max)).await
    }

    async fn sent(&self, seq: i64) -> Result<(), Error> {
        self.write(move |w| {
            let seq = seq.min(w.mem.tail.0);
            if seq > w.mem.sent {
                w.set_meta("sent", &seq.to_string())?;
                // The last row stays: the next one's `prev` is its hash.
                rows::exec(&w.db, "DELETE FROM outbox WHERE seq <= ? AND seq < ?", [seq, w.mem.tail.0])?;
                w.mem.sent = seq;
            }
            Ok(())
        })
        .await
    }

    async fn tail(&self) -> Result<Tail, Error> {
        Self::read(&self.work, read::tail).await
    }

    async fn cases(&self, filter: Filter) -> Result<Vec<CaseLine>, Error> {
        Self::read(&self.people, move |db| read::cases(db, &filter)).await
    }

    async fn cases_between(&self, from: CaseId, to: CaseId, max: u32) -> Result<Vec<CaseId>, Error> {
        Self::read(&self.people, move |db| read::cases_between(db, from, to, max)).await
    }

    async fn timeline(&self, case: CaseId) -> Result<Option<Timeline>, Error> {
        Self::read(&self.people, move |db| read::timeline(db, case)).await
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<Vec<TaskLine>, Error> {
        Self::read(&self.people, move |db| tasks::list(db, &filter)).await
    }

    async fn watched(&self, page: Page) -> Result<Vec<Watched>, Error> {
        Self::read(&self.people, move |db| shown::watched(db, &page)).await
    }

    async fn last_closed(&self, max: u32) -> Result<Vec<CaseLine>, Error> {
        Self::read(&self.people, move |db| shown::last_closed(db, max)).await
    }

    async fn deaths(&self, since_ms: i64, max: u32) -> Result<Deaths, Error> {
        Self::read(&self.people, move |db| shown::deaths(db, since_ms, max)).await
    }

    async fn excerpt(&self, case: CaseId, max: u32) -> Result<Option<Excerpt>, Error> {
        Self::read(&self.people, move |db| shown::excerpt(db, case, max)).await
    }

    async fn holders(&self, which: Which, max: u32) -> Result<Vec<Holder>, Error> {
        Self::read(&self.people, move |db| shown::holders(db, &which, max)).await
    }

    async fn findings(&self, unmatched: bool, max: u32) -> Result<Vec<Finding>, Error> {
        Self::read(&self.people, move |db| findings::list(db, unmatched, max)).await
    }

    async fn matched(&self, prefix: String, after: (i64, String), max: u32) -> Result<Vec<Finding>, Error> {
        Self::read(&self.people, move |db| findings::matched(db, &prefix, &after, max)).await
    }

    async fn lived(&self, since_ms: Option<i64>, after: Option<LivedAt>, max: u32) -> Result<LivedPage, Error> {
        Self::read(&self.people, move |db| tasks::lived(db, since_ms, after.as_ref(), max)).await
    }

    async fn standing(&self, max: u32) -> Result<Vec<Standing>, Error> {
        Self::read(&self.people, move |db| read::standing(db, max)).await
    }

    async fn overrun(&self, now_ms: i64) -> Result<Vec<Overrun>, Error> {
        Self::read(&self.people, move |db| read::overrun(db, now_ms)).await
    }

    async fn offboardings(&self, max: u32) -> Result<Vec<Offboarding>, Error> {
        Self::read(&self.people, move |db| leaving::offboardings(db, max)).await
    }

    async fn mind_offboardings(&self, minded: Vec<Minded>) -> Result<u64, Error> {
        self.write(move |w| leaving::mind(&w.db, &minded)).await
    }

    async fn fences(&self, before_ms: i64, max: u32) -> Result<Vec<Fence>, Error> {
        Self::read(&self.people, move |db| leaving::fences(db, before_ms, max)).await
    }

    async fn stats(&self, now_ms: i64) -> Result<Stats, Error> {
        Self::read(&self.people, move |db| read::stats(db, now_ms)).await
    }

    async fn prune(&self, old: Old, max: usize) -> Result<u64, Error> {
        self.write(move |w| cases::prune(w, old, max)).await
    }
}
