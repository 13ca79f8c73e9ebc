//! What pages are made of, and where it comes from. Each read is bounded.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::{Seen, View};
use crate::clock;
use crate::guard::{Freeze, Mode};
use crate::journal::shown::{Death, Deaths, Group, Holder, Page, Place, Watched, Which};
use crate::journal::{CaseLine, Error, Journal, Stats};
use crate::ops::freeze_file;

/// Open cases on the start page.
pub const OPEN: u32 = 15;
/// Open cases on a page of them.
pub const LISTED: u32 = 100;
/// Tasks on the start page.
pub const NEXT: u32 = 8;
/// Tasks on a page of them.
pub const TASKS: u32 = 200;
/// Closed cases on the start page.
pub const CLOSED: u32 = 12;
/// What one task holds in a list.
pub const HOLDS: u32 = 5;
/// What one task holds on its own page.
pub const HOLDS_ALL: u32 = 200;
/// Events of one case, and appends from either end.
pub const PIECES: u32 = 100;
/// Deaths from which the overrun of a day is made: the newest.
pub const DEATHS: u32 = 10_000;
/// How far back overrun is looked at, in milliseconds.
pub const DAY_MS: i64 = 86_400_000;
/// The overrun of a day is looked up so seldom where there are many: it is the one read that grows with what happens.
const OVERRUN_EVERY_MS: i64 = 15_000;
/// So long as fewer closed cases than these are to be looked at, that is done with each page.
const FEW: usize = 1_000;

/// A realm or a target, as the configuration of this process has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Its name: the instance in credential ids.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// Whether it acts.
    pub mode: Mode,
}

/// The start page.
#[derive(Debug, Clone)]
pub struct Board {
    /// Realms and targets.
    pub systems: Arc<[System]>,
    /// The freeze in force, with what the file says of it where it stands there.
    pub freeze: Option<(Freeze, Option<freeze_file::Note>)>,
    /// Why the start is held.
    pub started_held: Option<String>,
    /// Whether the journal can be written.
    pub healthy: bool,
    /// Figures.
    pub stats: Stats,
    /// Open cases, in the order of looking.
    pub open: Vec<Watched>,
    /// Tasks, the next that is due first.
    pub tasks: Vec<Holder>,
    /// Cases, the last that closed first.
    pub closed: Vec<CaseLine>,
    /// Of the last day.
    pub overrun: Overruns,
}

/// How long credentials outlived their tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overruns {
    /// How many died.
    pub count: usize,
    /// There were more: these are of the newest [`DEATHS`] cases.
    pub newest_only: bool,
    /// How many closed cases were looked at for them.
    pub looked: usize,
    /// The middle one, in milliseconds.
    pub median_ms: Option<i64>,
    /// The longest.
    pub longest: Option<Death>,
}

impl Overruns {
    /// Of the deaths among the newest cases. Of an even number the lower one of the two in the middle counts.
    pub fn of(deaths: Deaths) -> Self {
        let (looked, mut all) = (deaths.looked, deaths.all);
        let newest_only = looked >= DEATHS as usize;
        all.sort_by_key(|death| death.overrun_ms);
        let median_ms = all.get(all.len().saturating_sub(1) / 2).map(|death| death.overrun_ms);
        Self { count: all.len(), newest_only, looked, median_ms, longest: all.pop() }
    }
}

/// A page of open cases.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Only of this group.
    pub only: Option<Group>,
    /// Whether it is the first page.
    pub first: bool,
    /// The cases.
    pub open: Vec<Watched>,
    /// Behind which the next page goes on.
    pub next: Option<Place>,
    /// How many there are, by state.
    pub states: Vec<(String, i64)>,
}

/// What came of looking.
#[derive(Debug, Clone)]
pub enum Found {
    /// It is there.
    Seen(Seen),
    /// There is no such case or task.
    Nothing,
    /// The journal did not answer.
    NoAnswer,
}

/// Where facts come from.
pub struct Source {
    /// The truth.
    pub journal: Arc<dyn Journal>,
    /// Ours.
    pub clock: clock::Shared,
    /// Realms and targets.
    pub systems: Arc<[System]>,
    /// The freeze file beside the journal.
    pub freeze_file: PathBuf,
    /// When the overrun was looked up, by the monotonic clock.
    overrun: Mutex<Option<(i64, Overruns)>>,
}

impl Source {
    /// Reads `journal`.
    pub fn new(journal: Arc<dyn Journal>, clock: clock::Shared, systems: Vec<System>, freeze_file: PathBuf) -> Self {
        Self { journal, clock, systems: systems.into(), freeze_file, overrun: Mutex::default() }
    }

    /// Looks.
    pub async fn look(&self, view: &View) -> Found {
        match self.read(view).await {
            Ok(Some(seen)) => Found::Seen(seen),
            Ok(None) => Found::Nothing,
            Err(error) => {
                tracing::warn!(%error, "a status page is without what the journal says");
                Found::NoAnswer
            }
        }
    }

    async fn read(&self, view: &View) -> Result<Option<Seen>, Error> {
        let journal = &self.journal;
        Ok(match view {
            View::Start => Some(Seen::Start(Box::new(self.board().await?))),
            View::Cases(only, after) => {
                let page = Page { only: *only, after: *after, max: LISTED };
                let open = journal.watched(page).await?;
                let next = open.last().filter(|_| open.len() >= LISTED as usize).map(|last| last.at);
                let states = journal.stats(self.clock.wall_ms()).await?.cases;
                Some(Seen::Cases(Listed { only: *only, first: after.is_none(), open, next, states }))
            }
            View::Case(id) => journal.excerpt(*id, PIECES).await?.map(|found| Seen::Case(Box::new(found))),
            View::Tasks => Some(Seen::Tasks(journal.holders(Which::Next(TASKS), HOLDS).await?)),
            View::Task(tenant, run) => {
                let which = Which::Run(tenant.clone(), run.clone());
                journal.holders(which, HOLDS_ALL).await?.pop().map(|holder| Seen::Task(Box::new(holder)))
            }
        })
    }

    async fn board(&self) -> Result<Board, Error> {
        let journal = &self.journal;
        let file = self.freeze_file.clone();
        let note = tokio::task::spawn_blocking(move || freeze_file::read(&file)).await.ok().flatten();
        let freeze = journal.frozen().await?.max(note.as_ref().map(|note| note.how));
        Ok(Board {
            systems: self.systems.clone(),
            // The file's note is of its own freeze, and not of a stronger one that another process was told of.
            freeze: freeze.map(|freeze| (freeze, note.filter(|note| note.how == freeze))),
            started_held: journal.started_held().await?,
            healthy: journal.healthy(),
            stats: journal.stats(self.clock.wall_ms()).await?,
            open: journal.watched(Page { only: None, after: None, max: OPEN }).await?,
            tasks: journal.holders(Which::Next(NEXT), HOLDS).await?,
            closed: journal.last_closed(CLOSED).await?,
            overrun: self.overrun().await?,
        })
    }

    async fn overrun(&self) -> Result<Overruns, Error> {
        let mut known = self.overrun.lock().await;
        let now_ms = self.clock.monotonic_ms();
        if let Some((at_ms, overrun)) = known.as_ref()
            && overrun.looked >= FEW
            && now_ms - at_ms < OVERRUN_EVERY_MS
        {
            return Ok(overrun.clone());
        }
        let deaths = self.journal.deaths(self.clock.wall_ms() - DAY_MS, DEATHS).await?;
        let overrun = Overruns::of(deaths);
        *known = Some((now_ms, overrun.clone()));
        Ok(overrun)
    }
}
