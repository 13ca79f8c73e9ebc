//! The journal in PostgreSQL, for many processes.
//!
//! What several callers queue while one transaction commits becomes the next one, written set by set. A claim is in the
//! case's row: by lease of the database's clock, with an epoch that each append must name. Intake of one tenant is one
//! batch at a time over all processes, so that no two decisions miss each other's facts.
//!
//! Rows are locked in one order, by all: positions, the tenant's intake, cases by id, the minute's charges, credentials
//! by id, events by id, the outbox's tail, the counters. Where PostgreSQL finds a deadlock all the same, the transaction is done again.
//!
//! - `schema`: connections, migrations, what is checked when a connection is new
//! - `intake`: batches of arrivals · `writer`: appends, in groups · `claims`: claims, a person's word on a case
//! - `share`: what processes say to each other: parts of budgets, leaders, freeze
//! - `trust`: what a process counts, and whether the database still has it
//! - `read`: what people and roles read · `prune`: what is old enough · `rows`: rows to values and back

mod claims;
mod findings;
mod intake;
mod leaving;
mod prune;
mod reach;
mod read;
mod rows;
mod schema;
mod share;
mod shown;
mod tasks;
mod trust;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub use self::schema::is_plain;
use self::share::Switches;
use self::writer::Job;
use super::draft::Ids;
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
use crate::outcome::{self, Message};
use crate::scope::Fence;
use crate::task::{Credential, Tenant};

/// How often a transaction is done again that PostgreSQL ended for the sake of another.
const TRIES: usize = 8;

/// How the database is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `postgres://user:password@host/database?sslmode=verify-full&sslrootcert=…`
    pub url: SecretString,
    /// The journal's own schema; made if it is missing and the login may.
    pub schema: String,
    /// Connections of this process at most.
    pub connections: u32,
    /// Appends that share one transaction, at most.
    pub group: usize,
}

impl Settings {
    /// With the defaults.
    pub fn new(url: &str, schema: &str) -> Self {
        Self { url: SecretString::from(url.to_owned()), schema: schema.to_owned(), connections: 8, group: 256 }
    }
}

/// A process's ways to write, each with counters of its own: none waits for another's commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Intake,
    Appends,
    Other,
}

/// What connections and callers share.
#[derive(Debug)]
struct State {
    /// This start of this process.
    me: Uuid,
    journal: Uuid,
    healthy: AtomicBool,
    /// For each [`Way`], the commits that were acknowledged.
    acknowledged: [AtomicI64; 3],
    /// Some of them are not there, and the hold is not yet durable.
    lost: AtomicBool,
    /// Claims up to this epoch are from before the last loss.
    fence: AtomicI64,
    /// Held while that is made durable.
    holding: tokio::sync::Mutex<()>,
    /// The heartbeat allowance that was asked for last; -1: none yet.
    missed: AtomicI64,
    /// As of when they were read.
    switches: RwLock<(Switches, Option<Instant>)>,
}

/// A claim of this process.
#[derive(Debug, Clone)]
struct Held {
    system: String,
    until_ms: i64,
}

/// What the journal's own tasks share with its callers.
#[derive(Debug)]
struct Inner {
    pool: PgPool,
    state: Arc<State>,
    ids: Ids,
    /// How much of each system is claimed here: a bound, not the truth.
    held: Mutex<HashMap<CaseId, Held>>,
    /// Claims whose work ended with an error of the journal: given back with the next claim.
    orphans: Mutex<Vec<(CaseId, i64)>>,
}

/// The journal in one PostgreSQL database, as one process has it open.
#[derive(Debug)]
pub struct Postgres {
    inner: Arc<Inner>,
    queue: mpsc::UnboundedSender<Job>,
    _ends: DropGuard,
}

impl Postgres {
    /// Opens the journal, and brings its schema to this version.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database does not answer or refuses.
    pub async fn open(settings: Settings) -> Result<Arc<Self>, Error> {
        let options = schema::options(&settings)?;
        let journal = schema::migrate(&options, &settings.schema).await?;
        let state = Arc::new(State {
            me: Uuid::new_v4(),
            journal,
            healthy: AtomicBool::new(true),
            acknowledged: Default::default(),
            lost: AtomicBool::new(false),
            fence: AtomicI64::new(0),
            holding: tokio::sync::Mutex::default(),
            missed: AtomicI64::new(-1),
            switches: RwLock::default(),
        });
        let pool = schema::pool(&settings, options, &state);
        let inner =
            Arc::new(Inner { pool, state, ids: Ids::default(), held: Mutex::default(), orphans: Mutex::default() });
        share::refresh(&inner).await?;
        let ends = CancellationToken::new();
        let (queue, jobs) = mpsc::unbounded_channel();
        tokio::spawn(writer::run(inner.clone(), jobs, settings.group.max(1)));
        tokio::spawn(share::watch(inner.clone(), settings.schema, ends.clone()));
        Ok(Arc::new(Self { inner, queue, _ends: ends.drop_guard() }))
    }

    async fn queued<T>(
        &self,
        job: impl FnOnce(tokio::sync::oneshot::Sender<Result<T, Error>>) -> Job,
    ) -> Result<T, Error> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let gone = || Error::Unavailable("the journal's writer did not answer".into());
        self.queue.send(job(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Inner {
    /// Notes how a write ended: readiness follows.
    fn wrote<T>(&self, done: Result<T, Error>) -> Result<T, Error> {
        match &done {
            Err(error @ (Error::Unavailable(_) | Error::Corrupt { .. })) => {
                let source = std::error::Error::source(error).map(ToString::to_string);
                tracing::error!(
                    why = source.as_deref().unwrap_or("a row cannot be read"),
                    "the journal was not written"
                );
                self.state.healthy.store(false, Ordering::SeqCst);
            }
            Ok(_) => self.state.healthy.store(true, Ordering::SeqCst),
            Err(_) => {}
        }
        done
    }

    /// Does `once` again while PostgreSQL ends it for the sake of another transaction.
    async fn write<T, F: Future<Output = Result<T, Error>>>(&self, mut once: impl FnMut() -> F) -> Result<T, Error> {
        let mut tries = 0;
        // Nothing is done on a database that lost something before all are told to stand still.
        if self.state.has_lost()
            && let Err(error) = self.look().await
        {
            return self.wrote(Err(error));
        }
        loop {
            match once().await {
                Err(error) if schema::is_victim(&error) && tries < TRIES => tries += 1,
                done => return self.wrote(done),
            }
        }
    }

    /// Puts messages into the outbox, each chained to the one before. The tail's row stays locked until the commit.
    async fn send(&self, db: &mut PgConnection, messages: &[(&Message, i64)]) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let (mut seq, mut prev): (i64, Option<String>) =
            sqlx::query_as("SELECT seq, hash FROM outbox_tail FOR UPDATE").fetch_one(&mut *db).await?;
        let (mut seqs, mut kinds, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for (message, now_ms) in messages {
            seq += 1;
            let place = outcome::Place { journal: self.state.journal, seq, prev: prev.as_deref() };
            let body = outcome::envelope(message, place, *now_ms);
            prev = Some(super::draft::hash(&body));
            seqs.push(seq);
            kinds.push(rows::text("outbox", &message.kind)?);
            bodies.push(body);
        }
        sqlx::query(
            "INSERT INTO outbox (seq, kind, key, body, traceparent, at_ms) SELECT * FROM unnest($1::bigint[], \
             $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bigint[])",
        )
        .bind(seqs)
        .bind(kinds)
        .bind(rows::texts(messages, |(m, _)| &m.key))
        .bind(bodies)
        .bind(messages.iter().map(|(m, _)| m.traceparent.as_deref()).collect::<Vec<_>>())
        .bind(rows::column(messages, |(_, at)| *at))
        .execute(&mut *db)
        .await?;
        sqlx::query("UPDATE outbox_tail SET seq = $1, hash = $2").bind(seq).bind(prev).execute(db).await?;
        Ok(())
    }

    /// The work on this claim is over, here.
    fn let_go(&self, case: CaseId) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&case);
    }

    /// The work on this claim ended with an error of the journal: what the row says of it is not known.
    fn orphan(&self, case: CaseId, epoch: i64) {
        self.let_go(case);
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push((case, epoch));
    }

    /// Keeps `tasks.due_ms` in step with the configured heartbeat allowance. Once for each start: another process, with
    /// another allowance, may have written tasks after the last one that changed it.
    async fn allow_missed(&self, missed: u32) -> Result<(), Error> {
        if self.state.missed.load(Ordering::SeqCst) == i64::from(missed) {
            return Ok(());
        }
        let mut tx = self.pool.begin().await?;
        // Of processes that start together one does it, and the next ones find nothing left.
        sqlx::query("INSERT INTO meta VALUES ('missed', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(missed.to_string())
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "UPDATE tasks SET due_ms = least(deadline_ms, alive_ms + heartbeat_every_ms * greatest($1, 1)) \
             WHERE phase < 2 AND heartbeat_every_ms IS NOT NULL \
             AND due_ms <> least(deadline_ms, alive_ms + heartbeat_every_ms * greatest($1, 1))",
        )
        .bind(i64::from(missed))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.state.missed.store(i64::from(missed), Ordering::SeqCst);
        Ok(())
    }

    /// One statement that is a whole write.
    async fn put_position(&self, to: &Position) -> Result<(), Error> {
        let mut db = self.pool.acquire().await?;
        intake::put_positions(&mut db, std::slice::from_ref(to)).await
    }

    async fn caught_up(&self, cluster: &str, topic: &str, partition: i32, at_ms: i64) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO positions (cluster, topic, partition, last_ms, last_digest, caught_up_ms) \
             VALUES ($1, $2, $3, 0, '', $4) ON CONFLICT (cluster, topic, partition) DO UPDATE \
             SET caught_up_ms = greatest(positions.caught_up_ms, excluded.caught_up_ms)",
        )
        .bind(cluster)
        .bind(topic)
        .bind(partition)
        .bind(at_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn forget_cluster(&self, cluster: &str) -> Result<u64, Error> {
        let gone = sqlx::query("DELETE FROM positions WHERE cluster = $1").bind(cluster).execute(&self.pool).await?;
        Ok(gone.rows_affected())
    }

    async fn position(&self, cluster: &str, topic: &str, partition: i32) -> Result<Option<Position>, Error> {
        let found: Option<rows::Of<Position>> = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT {POSITION} FROM positions WHERE cluster = $1 AND topic = $2 AND partition = $3 \
             AND next_offset IS NOT NULL",
        )))
        .bind(cluster)
        .bind(topic)
        .bind(partition)
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.map(|row| row.0))
    }

    async fn sent(&self, seq: i64) -> Result<(), Error> {
        let mut tx = self.pool.begin().await?;
        // The last row stays where the chain's hash was not kept: here the tail keeps it.
        let sent: Option<i64> = sqlx::query_scalar(
            "UPDATE outbox_tail SET sent = least($1, seq) WHERE sent < least($1, seq) RETURNING sent",
        )
        .bind(seq)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(sent) = sent {
            sqlx::query("DELETE FROM outbox WHERE seq <= $1").bind(sent).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}

const POSITION: &str = "cluster, topic, partition, next_offset, last_ms, last_digest";

#[async_trait]
impl Journal for Postgres {
    fn healthy(&self) -> bool {
        self.inner.state.healthy.load(Ordering::SeqCst)
    }

    fn reach(&self) -> &dyn crate::reach::Facts {
        self
    }

    async fn record_batch(&self, batch: Batch) -> Result<Recorded, Error> {
        self.inner.write(|| intake::record(&self.inner, &batch)).await
    }

    async fn position(&self, cluster: &str, topic: &str, partition: i32) -> Result<Option<Position>, Error> {
        self.inner.position(cluster, topic, partition).await
    }

    async fn caught_up(&self, cluster: &str, topic: &str, partition: i32, at_ms: i64) -> Result<(), Error> {
        self.inner.write(|| self.inner.caught_up(cluster, topic, partition, at_ms)).await
    }

    async fn watermark(&self) -> Result<Watermark, Error> {
        read::watermark(&self.inner.pool).await
    }

    async fn set_position(&self, to: Position) -> Result<(), Error> {
        self.inner.write(|| self.inner.put_position(&to)).await
    }

    async fn clusters(&self) -> Result<Vec<Cluster>, Error> {
        read::clusters(&self.inner.pool).await
    }

    async fn forget_cluster(&self, cluster: &str) -> Result<u64, Error> {
        self.inner.write(|| self.inner.forget_cluster(cluster)).await
    }

    async fn claim(&self, want: Want) -> Result<Vec<Claim>, Error> {
        self.inner.write(|| claims::claim(&self.inner, &want)).await
    }

    async fn append(&self, append: Append) -> Result<Case, Error> {
        self.queued(|answer| Job::Append(Box::new(append), answer)).await
    }

    async fn unclaim(&self, case: CaseId, epoch: i64, due_ms: i64) -> Result<(), Error> {
        self.queued(|answer| Job::Unclaim { case, epoch, due_ms, answer }).await
    }

    async fn block(&self, system: &str, until_ms: i64, reason: &str) -> Result<(), Error> {
        self.inner.write(|| claims::block(&self.inner, system, until_ms, reason)).await
    }

    async fn announce(&self, worker: Worker, lease_ms: i64) -> Result<Vec<Part>, Error> {
        self.inner.write(|| share::announce(&self.inner, &worker, lease_ms)).await
    }

    async fn leave(&self, worker: Uuid) -> Result<(), Error> {
        self.inner.write(|| share::leave(&self.inner, worker)).await
    }

    async fn lead(&self, what: &str, worker: Uuid, lease_ms: i64) -> Result<bool, Error> {
        self.inner.write(|| share::lead(&self.inner, what, worker, lease_ms)).await
    }

    async fn due(&self, before_ms: i64, missed: u32, after: Option<DueAt>, max: usize) -> Result<Vec<Due>, Error> {
        self.inner.write(|| self.inner.allow_missed(missed)).await?;
        read::due(&self.inner.pool, before_ms, after.as_ref(), max).await
    }

    async fn sources(&self) -> Result<Vec<Source>, Error> {
        read::sources(&self.inner.pool).await
    }

    async fn unseen(&self, realm: Option<&str>, max: usize, now_ms: i64) -> Result<Vec<Credential>, Error> {
        read::unseen(&self.inner.pool, realm, max, now_ms).await
    }

    async fn saw(
        &self,
        tenant: &Tenant,
        id: &CredentialId,
        seen: Observation,
        again_ms: Option<i64>,
    ) -> Result<(), Error> {
        self.inner.write(|| claims::saw(&self.inner, tenant, id, &seen, again_ms)).await
    }

    async fn known(&self, tenant: &Tenant, ids: Vec<CredentialId>) -> Result<Vec<Known>, Error> {
        read::known(&self.inner.pool, tenant, &ids).await
    }

    async fn freeze(&self, how: Freeze, by: &str, reason: &str) -> Result<(), Error> {
        self.inner.write(|| share::freeze(&self.inner, how, by, reason)).await
    }

    async fn release(&self, by: &str) -> Result<(), Error> {
        self.inner.write(|| share::release(&self.inner, by)).await
    }

    async fn frozen(&self) -> Result<Option<Freeze>, Error> {
        Ok(share::switches(&self.inner).await?.freeze)
    }

    async fn hold_start(&self, reason: &str) -> Result<(), Error> {
        self.inner.write(|| share::hold_start(&self.inner, reason)).await
    }

    async fn started_held(&self) -> Result<Option<String>, Error> {
        Ok(share::switches(&self.inner).await?.held)
    }

    async fn command(&self, case: CaseId, record: Option<Record>, now_ms: i64) -> Result<Case, Error> {
        self.inner.write(|| claims::command(&self.inner, case, record.as_ref(), now_ms)).await
    }

    async fn outbox(&self, after: i64, max: usize) -> Result<Vec<Outgoing>, Error> {
        read::outbox(&self.inner.pool, after, max).await
    }

    async fn sent(&self, seq: i64) -> Result<(), Error> {
        self.inner.write(|| self.inner.sent(seq)).await
    }

    async fn tail(&self) -> Result<Tail, Error> {
        let seq = sqlx::query_scalar("SELECT seq FROM outbox_tail").fetch_one(&self.inner.pool).await?;
        Ok(Tail { journal: self.inner.state.journal, seq })
    }

    async fn cases(&self, filter: Filter) -> Result<Vec<CaseLine>, Error> {
        read::cases(&self.inner.pool, &filter).await
    }

    async fn cases_between(&self, from: CaseId, to: CaseId, max: u32) -> Result<Vec<CaseId>, Error> {
        read::cases_between(&self.inner.pool, from, to, max).await
    }

    async fn timeline(&self, case: CaseId) -> Result<Option<Timeline>, Error> {
        read::timeline(&self.inner.pool, case).await
    }

    async fn tasks(&self, filter: TaskFilter) -> Result<Vec<TaskLine>, Error> {
        tasks::list(&self.inner.pool, &filter).await
    }

    async fn watched(&self, page: Page) -> Result<Vec<Watched>, Error> {
        shown::watched(&self.inner.pool, &page).await
    }

    async fn last_closed(&self, max: u32) -> Result<Vec<CaseLine>, Error> {
        shown::last_closed(&self.inner.pool, max).await
    }

    async fn deaths(&self, since_ms: i64, max: u32) -> Result<Deaths, Error> {
        shown::deaths(&self.inner.pool, since_ms, max).await
    }

    async fn excerpt(&self, case: CaseId, max: u32) -> Result<Option<Excerpt>, Error> {
        shown::excerpt(&self.inner.pool, case, max).await
    }

    async fn holders(&self, which: Which, max: u32) -> Result<Vec<Holder>, Error> {
        shown::holders(&self.inner.pool, &which, max).await
    }

    async fn findings(&self, unmatched: bool, max: u32) -> Result<Vec<Finding>, Error> {
        findings::list(&self.inner.pool, unmatched, max).await
    }

    async fn matched(&self, prefix: String, after: (i64, String), max: u32) -> Result<Vec<Finding>, Error> {
        findings::matched(&self.inner.pool, &prefix, &after, max).await
    }

    async fn lived(&self, since_ms: Option<i64>, after: Option<LivedAt>, max: u32) -> Result<LivedPage, Error> {
        tasks::lived(&self.inner.pool, since_ms, after.as_ref(), max).await
    }

    async fn standing(&self, max: u32) -> Result<Vec<Standing>, Error> {
        read::standing(&self.inner.pool, max).await
    }

    async fn overrun(&self, now_ms: i64) -> Result<Vec<Overrun>, Error> {
        read::overrun(&self.inner.pool, now_ms).await
    }

    async fn offboardings(&self, max: u32) -> Result<Vec<Offboarding>, Error> {
        leaving::offboardings(&self.inner.pool, max).await
    }

    async fn mind_offboardings(&self, minded: Vec<Minded>) -> Result<u64, Error> {
        self.inner.write(|| leaving::mind(&self.inner.pool, &minded)).await
    }

    async fn fences(&self, before_ms: i64, max: u32) -> Result<Vec<Fence>, Error> {
        leaving::fences(&self.inner.pool, before_ms, max).await
    }

    async fn stats(&self, now_ms: i64) -> Result<Stats, Error> {
        read::stats(&self.inner.pool, now_ms).await
    }

    async fn prune(&self, old: Old, max: usize) -> Result<u64, Error> {
        self.inner.write(|| prune::prune(&self.inner, old, max)).await
    }
}
