//! Which sessions of an account were opened with the old value, and whether they are left.

use super::account::{Account, Name};
use super::hosts::{Stand, stand};
use super::session::Session;
use crate::connector::Failure;
use crate::connector::recipe::Rotation;
use crate::connector::turns::has_new;

/// By how much two readings of a server's start may differ: it says for how many whole seconds it runs.
const START_S: i64 = 1;

/// What parts older connections from younger ones, at one server while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The first connection that is younger.
    id: i64,
    /// Since when the server ran that counts them.
    since_s: i64,
}

impl Mark {
    /// All that began before this connection of ours.
    pub(super) fn at(session: &Session) -> Self {
        Self { id: session.id, since_s: session.since_s }
    }

    /// As it is recorded.
    pub(super) fn written(self) -> String {
        format!("{}@{}", self.id, self.since_s)
    }

    fn read(text: &str) -> Option<Self> {
        let (id, since_s) = text.split_once('@')?;
        Some(Self { id: id.parse().ok()?, since_s: since_s.parse().ok()? })
    }

    /// What it says at a server that runs since `since_s`; `set_ms` is when it was made.
    fn of(self, since_s: i64, set_ms: i64) -> Scope {
        if self.since_s.abs_diff(since_s) <= START_S.unsigned_abs() {
            Scope::Before(self.id)
        } else if since_s.saturating_sub(START_S).saturating_mul(1000) > set_ms {
            // It was started since: what was open then has ended.
            Scope::Nothing
        } else {
            // It is another server by now.
            Scope::Unclear
        }
    }
}

/// Which sessions of an account were opened with the old value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Those with a lower number.
    Before(i64),
    Nothing,
    /// Some of them, and it cannot be told which.
    Unclear,
}

impl Scope {
    /// Of `user`, whose account this is, if there is one.
    pub(super) fn of(rotation: &Rotation, user: &str, account: Option<&Account>, session: &Session) -> Self {
        let turn = &rotation.turn;
        if account.is_none_or(|account| account.is_locked) || !has_new(rotation, user) {
            return Self::All;
        }
        match (turn.mark.as_deref().and_then(Mark::read), turn.set_ms) {
            (Some(mark), Some(set_ms)) => mark.of(session.since_s, set_ms),
            _ if rotation.contains => Self::All,
            _ => Self::Nothing,
        }
    }
}

/// What is open of a scope.
#[derive(Default)]
pub(super) struct Open {
    /// The numbers of its connections.
    pub(super) ids: Vec<i64>,
    /// So many more may be of it, and it cannot be told.
    pub(super) unclear: usize,
    /// So many are of another account of the same name by now. They are left alone and wait for nothing; but of one that
    /// is older than that account nobody can say so.
    pub(super) anothers: usize,
}

impl Session {
    /// Looks what is open.
    pub(super) async fn open_of(&mut self, name: &Name, scope: Scope) -> Result<Open, Failure> {
        let mut open = Open::default();
        if scope == Scope::Nothing {
            return Ok(open);
        }
        let all = self.namesakes(name).await?;
        for seen in self.seen(&name.user).await? {
            match (stand(&all, name, &seen.machine), scope) {
                (Stand::No, _) => {}
                (_, Scope::Before(first)) if seen.id >= first => {}
                (Stand::Anothers, _) => open.anothers += 1,
                (Stand::Its, Scope::All | Scope::Before(_)) => open.ids.push(seen.id),
                _ => open.unclear += 1,
            }
        }
        Ok(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_at_the_server_that_made_it_while_it_runs() {
        let mark = Mark { id: 70, since_s: 1_000 };
        assert_eq!(Mark::read(&mark.written()), Some(mark));
        for (since_s, scope) in [
            (999, Scope::Before(70)),
            (1_001, Scope::Before(70)),
            (5_000, Scope::Nothing),
            (2_000, Scope::Unclear),
            (500, Scope::Unclear),
        ] {
            assert_eq!(mark.of(since_s, 2_500_000), scope, "{since_s}");
        }
        for bad in ["", "70", "70@", "x@1", "70@1@2"] {
            assert_eq!(Mark::read(bad), None, "{bad}");
        }
    }
}
