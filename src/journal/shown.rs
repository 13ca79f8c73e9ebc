//! What people watch: excerpts of the journal, each bounded, so that a page costs the same whatever the journal holds.

use serde::Deserialize;

use super::{CaseLine, EventLine, Holding};
use crate::case::CaseId;
use crate::case::rank::Rank;
use crate::case::record::{Record, Verdict};
use crate::case::state::Phase;
use crate::credential::CredentialId;
use crate::finding::Finding;
use crate::task::{Credential, RunKey, Task, Tenant};

/// How open cases are told apart by who watches. The order is that of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Nobody can say whether it is dead: in doubt, retrying, abandoned.
    MayBeAlive,
    /// Ready, or being proven.
    AtWork,
    /// Waits for a person, for a mode, for a freeze to end.
    Held,
}

impl Group {
    /// All of them, in the order of looking.
    pub const ALL: [Self; 3] = [Self::MayBeAlive, Self::AtWork, Self::Held];

    /// The number in the journal's index.
    pub fn rank(self) -> i64 {
        self as i64
    }

    /// The name in links.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MayBeAlive => "may-be-alive",
            Self::AtWork => "at-work",
            Self::Held => "held",
        }
    }

    /// Of a state's name, as in `cases{state}`.
    pub fn of_state(state: &str) -> Self {
        match state {
            "in_doubt" | "retrying" | "abandoned" => Self::MayBeAlive,
            "held" => Self::Held,
            _ => Self::AtWork,
        }
    }
}

/// A place in the order of open cases; a page goes on behind the last one of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The group.
    pub group: Group,
    /// How much others come first: [`Rank::behind`].
    pub behind: i64,
    /// When it was opened (our clock).
    pub opened_ms: i64,
    /// The case.
    pub id: CaseId,
}

/// Which open cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only of this group; `None`: of each.
    pub only: Option<Group>,
    /// Behind this place.
    pub after: Option<Place>,
    /// At most.
    pub max: u32,
}

impl Page {
    /// The pieces of the order that are still ahead: each is read by a key, and the first one goes on behind `after`.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Group, Rank, Option<Place>)> {
        let groups = Group::ALL.into_iter().filter(move |group| self.only.is_none_or(|only| only == *group));
        let all = groups.flat_map(|group| Rank::DESCENDING.into_iter().map(move |rank| (group, rank)));
        all.filter_map(move |(group, rank)| {
            let Some(after) = self.after else { return Some((group, rank, None)) };
            match (group, rank.behind()).cmp(&(after.group, after.behind)) {
                std::cmp::Ordering::Less => None,
                std::cmp::Ordering::Equal => Some((group, rank, Some(after))),
                std::cmp::Ordering::Greater => Some((group, rank, None)),
            }
        })
    }
}

/// An open case, and where it stands among them.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its place.
    pub at: Place,
    /// The case.
    pub line: CaseLine,
}

/// A credential that died, and how long after the end of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The case.
    pub case: CaseId,
    /// The credential.
    pub credential: CredentialId,
    /// Death minus the task's end, in milliseconds; negative where it died first.
    pub overrun_ms: i64,
}

/// Deaths among the newest closed cases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deaths {
    /// How many cases were looked at.
    pub looked: usize,
    /// Those in which a credential died whose task had an end.
    pub all: Vec<Death>,
}

impl Deaths {
    /// Of the bodies of closed cases.
    pub(super) fn of_bodies(bodies: &[String]) -> Result<Self, serde_json::Error> {
        let all = bodies.iter().filter_map(|body| Death::of_body(body).transpose()).collect::<Result<_, _>>()?;
        Ok(Self { looked: bodies.len(), all })
    }
}

/// Of a closed case's body what its overrun is made from.
#[derive(Deserialize)]
struct Body {
    id: CaseId,
    directive: Asked,
    state: Ended,
}

#[derive(Deserialize)]
struct Asked {
    credential: CredentialId,
    end_ms: Option<i64>,
}

#[derive(Deserialize)]
struct Ended {
    phase: Phase,
}

impl Death {
    /// Of the body of a case; `None` where no task had ended, or nothing died.
    fn of_body(body: &str) -> Result<Option<Self>, serde_json::Error> {
        let Body { id, directive, state } = serde_json::from_str(body)?;
        let (Some(end_ms), Phase::Closed { verdict: Verdict::Dead { at_ms, .. } }) = (directive.end_ms, state.phase)
        else {
            return Ok(None);
        };
        let overrun_ms = at_ms.saturating_sub(end_ms);
        Ok(Some(Self { case: id, credential: directive.credential, overrun_ms }))
    }
}

/// One case, as far as a page shows it.
#[derive(Debug, Clone)]
pub struct Excerpt {
    /// The row.
    pub line: CaseLine,
    /// The first events that link to it.
    pub events: Vec<EventLine>,
    /// There are more events.
    pub more_events: bool,
    /// The first appends: `(seq, at_ms, records)`.
    pub first: Vec<(i64, i64, Vec<Record>)>,
    /// How many are left out behind them.
    pub left_out: i64,
    /// The last appends, in order.
    pub last: Vec<(i64, i64, Vec<Record>)>,
    /// The finding that asked for it.
    pub finding: Option<Finding>,
    /// The credential.
    pub credential: Option<Credential>,
}

/// Which tasks are shown with what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those that live, the next that is due first, at most so many.
    Next(u32),
    /// This one.
    Run(Tenant, RunKey),
}

/// A task with what it holds.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The task.
    pub task: Task,
    /// When it needs a look: its deadline, or when its silence becomes suspicious. Of one that ended: its deadline.
    pub due_ms: i64,
    /// What it holds, or held, in the order of the names.
    pub holds: Vec<Held>,
    /// It holds more.
    pub more: bool,
}

/// What a task holds, and the open case about it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The grant.
    pub holding: Holding,
    /// The case that is open.
    pub case: Option<CaseId>,
}

/// A row's group, as the index of both stores has it.
pub(super) const RANK: &str =
    "CASE WHEN hold IS NOT NULL THEN 2 WHEN state IN ('in_doubt', 'retrying', 'abandoned') THEN 0 ELSE 1 END";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Urgency;

    #[test]
    fn a_page_goes_on_in_the_piece_where_the_last_one_stopped() {
        let pieces =
            |page: Page| page.pieces().map(|(group, rank, after)| (group, rank, after.is_some())).collect::<Vec<_>>();
        assert_eq!(pieces(Page { only: None, after: None, max: 1 }).len(), 48);
        let of = |urgency, blast| Rank::of(urgency, Some(blast));
        let behind = of(Urgency::Routine, 0).behind();
        let at = Place { group: Group::AtWork, behind, opened_ms: 5, id: CaseId::nil() };
        let rest = pieces(Page { only: None, after: Some(at), max: 1 });
        assert_eq!(
            rest[..2],
            [(Group::AtWork, of(Urgency::Routine, 0), true), (Group::AtWork, of(Urgency::Background, 5_000), false)]
        );
        assert_eq!(rest.len(), 21);
        let held = Page { only: Some(Group::Held), after: Some(at), max: 1 };
        assert!(pieces(held).iter().all(|(group, _, after)| *group == Group::Held && !after));
    }

    #[test]
    fn the_index_says_the_same_as_the_states() {
        for sql in [
            include_str!("../../schemas/journal/sqlite/0008_watched.sql"),
            include_str!("../../schemas/journal/postgres/0007_watched.sql"),
        ] {
            assert!(sql.contains(RANK), "{sql}");
        }
        for state in ["in_doubt", "retrying", "abandoned"] {
            assert!(RANK.contains(&format!("'{state}'")) && Group::of_state(state) == Group::MayBeAlive);
        }
    }
}
