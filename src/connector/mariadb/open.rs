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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// The first connection that is younger.
    id: i64,
    /// Since when the server ran that counts them.
    since_s: i64,
    /// Which server that is. Others count by themselves, and a name in a URL may lead to another one by now.
    server: String,
}

impl Mark {
    /// All that began before this connection of ours.
    pub(super) fn at(session: &Session) -> Self {
        Self { id: session.id, since_s: session.since_s, server: session.server.clone() }
    }

    /// As it is recorded.
    pub(super) fn written(&self) -> String {
        format!("{}@{}@{}", self.id, self.since_s, self.server)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('@');
        let (id, since_s, server) = (parts.next()?, parts.next()?, parts.next()?);
        let is_whole = !server.is_empty() && parts.next().is_none();
        is_whole.then_some(Self { id: id.parse().ok()?, since_s: since_s.parse().ok()?, server: server.to_owned() })
    }

    /// Whether what was open when `rotation` set its value may be open at another server than that of `session`.
    pub(super) fn is_elsewhere(rotation: &Rotation, session: &Session) -> bool {
        let mark = rotation.turn.mark.as_deref();
        mark.is_some_and(|mark| Self::read(mark).is_none_or(|mark| mark.server != session.server))
    }

    /// What it says where a connection of ours has the mark `now`; `set_ms` is when this one was made.
    fn of(&self, now: &Self, set_ms: i64) -> Scope {
        if self.server != now.server {
            return Scope::Unclear;
        }
        if self.since_s.abs_diff(now.since_s) <= START_S.unsigned_abs() {
            // Numbers are promised to differ among those that are open, not to grow for ever: if ours is a lower one, they
            // began again, and say nothing of age.
            if now.id < self.id { Scope::Unclear } else { Scope::Before(self.id) }
        } else if now.since_s.saturating_sub(START_S).saturating_mul(1000) > set_ms {
            // It was started since: what was open then has ended.
            Scope::Nothing
        } else {
            // It ran then, but it did not count this.
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
        match (turn.mark.as_deref(), turn.set_ms) {
            // One that cannot be read names no server.
            (Some(mark), Some(set_ms)) => {
                Mark::read(mark).map_or(Self::Unclear, |mark| mark.of(&Mark::at(session), set_ms))
            }
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
        let mark = |id, since_s, server: &str| Mark { id, since_s, server: server.to_owned() };
        let made = mark(70, 1_000, "a1");
        assert_eq!(Mark::read(&made.written()).as_ref(), Some(&made));
        for (now, scope) in [
            (mark(71, 999, "a1"), Scope::Before(70)),
            (mark(70, 1_001, "a1"), Scope::Before(70)),
            // The numbers began again, and nothing else did.
            (mark(69, 1_000, "a1"), Scope::Unclear),
            (mark(5, 5_000, "a1"), Scope::Nothing),
            (mark(71, 2_000, "a1"), Scope::Unclear),
            (mark(71, 500, "a1"), Scope::Unclear),
            // Another server says nothing, whenever it was started.
            (mark(71, 1_000, "b2"), Scope::Unclear),
            (mark(5, 5_000, "b2"), Scope::Unclear),
        ] {
            assert_eq!(made.of(&now, 2_500_000), scope, "{now:?}");
        }
        for bad in ["", "70", "70@", "70@1", "70@1@", "x@1@a1", "70@1@a1@"] {
            assert_eq!(Mark::read(bad), None, "{bad}");
        }
    }
}
