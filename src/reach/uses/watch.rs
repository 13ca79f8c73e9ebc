//! A log that is watched: what is known of it, and what reading on comes to.
//!
//! What begins the watch anew is decided here, whoever reads: a gap, a line that cannot be read, a time without lines, and more than is
//! kept. Of nothing before that is it said that it was unused.

use std::io;
use std::path::Path;

use super::{Tally, Use, Watched, follow, line};

/// What is known of a log.
#[derive(Debug, Clone)]
pub struct Known {
    /// How far its silence says something.
    pub watched: Watched,
    /// What it has said.
    pub tally: Tally,
    /// The time of the newest line that was read, also where more stands behind it.
    last_ms: i64,
}

/// What one turn came to.
#[derive(Debug)]
pub struct Turn {
    /// What is to become durable with how far it is watched. `None`: nothing has changed.
    pub new: Option<Vec<Use>>,
    /// Nothing more stands there now.
    pub caught_up: bool,
    /// Lines that could not be read.
    pub unread: u64,
    /// Why the watch begins anew, where it does.
    pub anew: Option<&'static str>,
}

impl Known {
    /// As it is durable.
    pub fn of(watched: Watched, uses: Vec<Use>) -> Self {
        let (last_ms, tally) = (watched.until_ms, Tally::of(uses).every(watched.stale_ms));
        Self { watched, tally, last_ms }
    }

    /// Forgets who did nothing for longer than `keeps_ms`, and watches since then at the most. Who that was.
    pub fn forget(&mut self, keeps_ms: i64, now_ms: i64) -> Vec<String> {
        let before_ms = self.watched.until_ms.min(now_ms).saturating_sub(keeps_ms);
        let gone = self.tally.forget(before_ms);
        if !gone.is_empty() {
            self.watched.since_ms = self.watched.since_ms.map(|since_ms| since_ms.max(before_ms));
        }
        gone
    }

    /// Reads on at `now_ms` (our clock), and blocks meanwhile. What comes of it and where it ended belong together.
    ///
    /// # Errors
    /// The file cannot be read: nothing is lost, and it is read from the same place again.
    pub fn read_on(&mut self, path: &Path, now_ms: i64) -> io::Result<Turn> {
        let stale_ms = self.watched.stale_ms;
        let (mut newest_ms, mut unread, mut hole) = (self.last_ms, 0_u64, None);
        let tally = &mut self.tally;
        let turn = follow::turn(path, self.watched.position.as_ref(), |line| match line::read(line) {
            // Nobody uses anything in the future.
            Ok(said) => {
                let at_ms = said.at_ms.min(now_ms);
                // Our own reading alone writes lines: where none stands for so long, they stand elsewhere.
                if newest_ms > 0 && at_ms.saturating_sub(newest_ms) > stale_ms {
                    hole = Some(at_ms);
                }
                newest_ms = newest_ms.max(at_ms);
                if let Some(deed) = said.deed {
                    tally.add(deed, at_ms);
                }
            }
            Err(line::Unreadable) => unread += 1,
        })?;
        let (watched, unread) = (&mut self.watched, turn.broken + unread);
        let mut anew = None;
        if turn.gap {
            anew = Some("what came before may not be all");
            watched.since_ms = Some(now_ms);
        }
        if let Some(at_ms) = hole {
            anew = Some("it has a hole: it is watched from behind it");
            watched.since_ms = watched.since_ms.max(Some(at_ms));
        }
        if unread > 0 {
            // Any of them may have been a use.
            anew = Some("lines cannot be read");
            watched.since_ms = Some(now_ms);
        }
        watched.unread = watched.unread.saturating_add(unread);
        if self.tally.is_full() {
            anew = Some("too many identities use too many policies: nothing is concluded of it");
            watched.since_ms = None;
        } else if watched.since_ms.is_none() {
            // There is room again; what did not fit is not known.
            watched.since_ms = Some(now_ms);
        }
        if turn.caught_up {
            watched.until_ms = watched.until_ms.max(newest_ms);
        }
        let is_other = watched.position.as_ref() != Some(&turn.position) || turn.gap;
        watched.position = Some(turn.position);
        let new = is_other.then(|| self.tally.take_new());
        self.last_ms = newest_ms;
        Ok(Turn { new, caught_up: turn.caught_up, unread, anew })
    }
}
