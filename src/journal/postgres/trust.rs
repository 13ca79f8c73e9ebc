//! What this process counts in the database, and what that proves: whether all that was acknowledged to it is there.
//!
//! A failover to a copy that followed asynchronously, or an older copy that was restored, lost commits. A process knows
//! by its own rows of `writers`: whenever a connection is new, whenever it looks, and in each transaction that counts.
//! It then holds the journal for all processes, durably, and only then goes on writing there: one `release` lifts the
//! hold, since it is nowhere else. Who notices a loss later than that holds again: what it lost nobody could look at.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Error, Inner, State, Way};

/// Why the journal is held.
pub(super) const LOST: &str = "PostgreSQL lost commits that it had acknowledged (a failover to an older copy?)";
/// How often a process that writes nothing says that it is there.
pub(super) const ALIVE: Duration = Duration::from_secs(3_600);
/// How long nothing is heard of a process before its rows are folded, by the database's clock.
const GONE_MS: i64 = 7 * 86_400_000;
/// More than the number of claims that a loss could take away: no epoch is given twice.
const LEAP: i64 = 1 << 32;

/// Counts one commit. `writers` is the last table that a transaction touches.
const COUNT: &str = "INSERT INTO writers AS w (id, way, at_ms, commits, consumed, accepted, closed, rejected, duplicates, \
    cases_opened, cases_closed, tasks_live) VALUES ($1, $2, now_ms(), 1, $3, $4, $5, $6, $7, $8, $9, $10) \
    ON CONFLICT (id, way) DO UPDATE SET at_ms = excluded.at_ms, commits = w.commits + 1, \
    consumed = w.consumed + excluded.consumed, accepted = w.accepted + excluded.accepted, \
    closed = w.closed + excluded.closed, rejected = w.rejected + excluded.rejected, \
    duplicates = w.duplicates + excluded.duplicates, cases_opened = w.cases_opened + excluded.cases_opened, \
    cases_closed = w.cases_closed + excluded.cases_closed, tasks_live = w.tasks_live + excluded.tasks_live \
    RETURNING commits";

async fn put(db: &mut PgConnection, me: Uuid, way: Way, counts: &BTreeMap<&str, i64>) -> Result<i64, sqlx::Error> {
    let of = |name| counts.get(name).copied().unwrap_or(0);
    sqlx::query_scalar(COUNT)
        .bind(me)
        .bind(way as i16)
        .bind(of("consumed"))
        .bind(of("accepted"))
        .bind(of("closed"))
        .bind(of("rejected"))
        .bind(of("duplicates"))
        .bind(of("cases_opened"))
        .bind(of("cases_closed"))
        .bind(of("tasks_live"))
        .fetch_one(db)
        .await
}

impl Inner {
    /// The last statement of a transaction: what it counts. What it returns is acknowledged after the commit.
    ///
    /// # Errors
    /// Also where the database lacks what was acknowledged before: nothing is written there before it is held.
    pub(super) async fn count(
        &self,
        db: &mut PgConnection,
        way: Way,
        counts: &BTreeMap<&'static str, i64>,
    ) -> Result<i64, Error> {
        let commits = put(db, self.state.me, way, counts).await?;
        // The row is locked until our commit, so nobody can have had a later one acknowledged.
        if commits <= self.state.acknowledged(way) {
            self.state.lose();
            return Err(Error::Unavailable(LOST.into()));
        }
        Ok(commits)
    }

    pub(super) fn acknowledge(&self, way: Way, commits: i64) {
        self.state.acknowledged[way as usize].fetch_max(commits, Ordering::SeqCst);
    }

    /// Looks whether all is there, and holds the journal where it is not. Returns whether it had to.
    pub(super) async fn look(&self) -> Result<bool, Error> {
        let mut db = self.pool.acquire().await?;
        Ok(look(&mut db, &self.state).await?)
    }

    /// The rows of a process that writes nothing are not taken for those of one that is gone.
    pub(super) async fn stay(&self) -> Result<(), Error> {
        sqlx::query("UPDATE writers SET at_ms = now_ms() WHERE id = $1")
            .bind(self.state.me)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

impl State {
    fn acknowledged(&self, way: Way) -> i64 {
        self.acknowledged[way as usize].load(Ordering::SeqCst)
    }

    fn lose(&self) {
        if !self.lost.swap(true, Ordering::SeqCst) {
            tracing::error!(why = LOST, "held until `curfew release`");
        }
    }

    /// Whether commits are missing, and that is not yet durable.
    pub(super) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Whether a claim was made before commits were lost: it is void, whatever an older copy says of it.
    pub(super) fn is_fenced(&self, epoch: i64) -> bool {
        epoch <= self.fence.load(Ordering::SeqCst)
    }
}

/// As [`Inner::look`], by a connection that is used for nothing else before.
pub(super) async fn look(db: &mut PgConnection, state: &State) -> Result<bool, sqlx::Error> {
    if missing(db, state).await?.is_none() {
        return Ok(false);
    }
    // One at a time: who comes second finds the hold, and counts that begin anew.
    let _one = state.holding.lock().await;
    if let Some((known, stands)) = missing(db, state).await? {
        state.lose();
        hold(db, state, known, stands).await?;
    }
    Ok(true)
}

/// What was acknowledged and what there is, by way, where they do not agree.
async fn missing(db: &mut PgConnection, state: &State) -> Result<Option<([i64; 3], [i64; 3])>, sqlx::Error> {
    let known = [Way::Intake, Way::Appends, Way::Other].map(|way| state.acknowledged(way));
    if known == [0; 3] {
        return Ok(None);
    }
    // Read after what is known: what was acknowledged by then is there, or lost.
    let mut stands = [0; 3];
    let rows: Vec<(i16, i64)> =
        sqlx::query_as("SELECT way, commits FROM writers WHERE id = $1").bind(state.me).fetch_all(db).await?;
    for (way, commits) in rows {
        if let Some(place) = usize::try_from(way).ok().and_then(|way| stands.get_mut(way)) {
            *place = commits;
        }
    }
    let all = stands.iter().zip(&known).all(|(stands, known)| stands >= known);
    Ok((!all || state.has_lost()).then_some((known, stands)))
}

/// Makes the hold durable, and begins to count anew from what is there: should this be lost too, it is noticed again.
async fn hold(db: &mut PgConnection, state: &State, known: [i64; 3], stands: [i64; 3]) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query("INSERT INTO meta VALUES ('started_held', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(LOST)
        .execute(&mut *tx)
        .await?;
    let fence: i64 =
        sqlx::query_scalar("SELECT setval('epochs', nextval('epochs') + $1)").bind(LEAP).fetch_one(&mut *tx).await?;
    sqlx::query("SELECT pg_notify('curfew_' || current_schema(), '')").execute(&mut *tx).await?;
    let commits = put(&mut tx, state.me, Way::Other, &BTreeMap::new()).await?;
    tx.commit().await?;
    state.fence.fetch_max(fence, Ordering::SeqCst);
    // Known to us at once, and newer than whatever was asked for before.
    state.learn(|switches| switches.held = Some(LOST.to_owned()), Instant::now());
    for ((place, known), stands) in state.acknowledged.iter().zip(known).zip(stands) {
        // Where it moved meanwhile, a connection to what was lost still lives: that is noticed as another loss.
        place.compare_exchange(known, stands, Ordering::SeqCst, Ordering::SeqCst).ok();
    }
    state.acknowledged[Way::Other as usize].fetch_max(commits, Ordering::SeqCst);
    // Nor is it known by which allowance the copy's tasks are due.
    state.missed.store(-1, Ordering::SeqCst);
    state.lost.store(false, Ordering::SeqCst);
    Ok(())
}

/// Rows of processes that are gone become one, so that what they counted stays. One of them that comes back after all
/// finds that it is not known, and holds the journal: it cannot say what became of its commits.
pub(super) async fn fold(db: &mut PgConnection) -> Result<(), Error> {
    sqlx::query(
        "WITH gone AS (DELETE FROM writers g WHERE id <> $1 AND at_ms < now_ms() - $2 AND NOT EXISTS \
          (SELECT 1 FROM writers o WHERE o.id = g.id AND o.at_ms >= now_ms() - $2) RETURNING *) \
         INSERT INTO writers AS w (id, way, at_ms, consumed, accepted, closed, rejected, duplicates, cases_opened, \
         cases_closed, tasks_live) SELECT $1, 0, now_ms(), sum(consumed), sum(accepted), sum(closed), sum(rejected), \
         sum(duplicates), sum(cases_opened), sum(cases_closed), sum(tasks_live) FROM gone HAVING count(*) > 0 \
         ON CONFLICT (id, way) DO UPDATE SET at_ms = excluded.at_ms, consumed = w.consumed + excluded.consumed, \
         accepted = w.accepted + excluded.accepted, closed = w.closed + excluded.closed, \
         rejected = w.rejected + excluded.rejected, duplicates = w.duplicates + excluded.duplicates, \
         cases_opened = w.cases_opened + excluded.cases_opened, cases_closed = w.cases_closed + excluded.cases_closed, \
         tasks_live = w.tasks_live + excluded.tasks_live",
    )
    .bind(Uuid::nil())
    .bind(GONE_MS)
    .execute(db)
    .await?;
    Ok(())
}
