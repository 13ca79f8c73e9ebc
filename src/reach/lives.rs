//! How long the tasks live that work as an AppRole, by what the journal has of them. PURE.
//!
//! One pass over the tasks of a time: of each AppRole counts are kept and no task ([`Spans`]), so all of them are in, whatever
//! their number. A task counts when it was seen to start and to end. One that goes on, or of which a part was not seen, has lasted
//! for as long as it is known at least: it makes no number, and nothing shorter is enough.
//!
//! What joins a task to its AppRole is a grant: of the AppRole itself, of a secret_id of it, or of a token of which the issuer
//! said at its look-up by which role it logged in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::credential::Kind;
use crate::journal::{Lived, Login};
use crate::policy::is_told;
use crate::task::{Phase, Task, Tenant, Tenure};

/// So many AppRoles are told apart; of others nothing is known.
pub const MOST: usize = 100_000;
/// So many agents of one AppRole are known by name; others count as somebody beside its tasks.
const MOST_AGENTS: usize = 64;

/// By what lives are measured, and how much is left beyond them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Tasks that ended within so many milliseconds, up to now.
    pub over_ms: i64,
    /// Of fewer tasks nothing is concluded.
    pub tasks: u32,
    /// What is left beyond the longest of 99 in 100 tasks, as a part of that in percent.
    pub margin_percent: u32,
    /// The same, at least, in milliseconds. No lifetime is ever less.
    pub margin_ms: i64,
    /// Whose each realm is: what others say of tasks decides nothing there.
    pub realms: BTreeMap<String, Tenant>,
}

impl Default for Terms {
    fn default() -> Self {
        let (over_ms, margin_ms) = (30 * 86_400_000, 300_000);
        Self { over_ms, tasks: 20, margin_percent: 50, margin_ms, realms: BTreeMap::new() }
    }
}

impl Terms {
    fn margin_s(&self, longest_s: u64) -> u64 {
        let part = longest_s.saturating_mul(u64::from(self.margin_percent)).div_ceil(100);
        part.max(seconds(self.margin_ms))
    }

    /// How long a lifetime must be for tasks of `longest_s` seconds, in seconds: whole minutes.
    pub fn room_s(&self, longest_s: u64) -> u64 {
        longest_s.saturating_add(self.margin_s(longest_s)).div_ceil(60).saturating_mul(60)
    }

    /// Whether a lifetime that was found before still leaves half of the margin. Not all of it: what is measured anew each day
    /// moves a little, and that takes nothing back.
    pub fn fits(&self, lifetime_s: u64, longest_s: u64) -> bool {
        lifetime_s >= longest_s.saturating_add(self.margin_s(longest_s) / 2)
    }
}

/// Whole seconds, rounded up: nothing is told shorter than it was.
fn seconds(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).div_ceil(1_000)
}

/// Up to here each second is a bucket of its own; beyond, each power of two is parted into half as many.
const EXACT: u64 = 128;

/// How many spans of time of each length there were: exact up to two minutes, above rounded up by less than a 64th. At most
/// some thousand numbers, however many spans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans {
    /// By the last second of each bucket.
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Spans {
    /// The last second of the bucket in which a span lies.
    fn bucket(span_s: u64) -> u64 {
        let exponent = (span_s / EXACT).checked_ilog2().map_or(0, |power| power + 1);
        span_s | ((1_u64 << exponent) - 1)
    }

    /// One more.
    pub fn add(&mut self, span_s: u64) {
        *self.counts.entry(Self::bucket(span_s)).or_default() += 1;
        self.total += 1;
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The span that 99 in 100 did not exceed: the nearest rank, so of fewer than 100 the longest. `None`: there was none.
    pub fn p99(&self) -> Option<u64> {
        let rank = self.total.saturating_mul(99).div_ceil(100);
        let mut seen = 0;
        self.counts.iter().find_map(|(span_s, count)| {
            seen += count;
            (seen >= rank).then_some(*span_s)
        })
    }
}

/// The tasks of one AppRole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives {
    /// Of those that count: from the start, or since its token was issued, to the end.
    pub tasks: Spans,
    /// The longest of those that cannot count.
    pub open_s: Option<u64>,
    /// Of those that count and logged in by a secret_id of their own: since that was issued, to the end.
    pub logins: Spans,
    /// The longest of those that cannot count.
    pub open_login_s: Option<u64>,
    /// Some task logged in by what others use as well, or nobody said by what.
    pub shares: bool,
    /// Some task holds a token that outlives it: more than tasks live by it.
    pub stands: bool,
    /// Who runs them.
    pub agents: BTreeSet<String>,
    /// Up to when a task was at work.
    pub last_ms: i64,
}

impl Lives {
    /// The span for which there must be room: of 99 in 100 tasks, and of each that goes on. `None`: none counts.
    pub fn longest_s(&self) -> Option<u64> {
        Some(self.tasks.p99()?.max(self.open_s.unwrap_or(0)))
    }

    /// The same, since a secret_id was issued. `None`: none counts, or not all of them have one of their own.
    pub fn longest_login_s(&self) -> Option<u64> {
        Some(self.logins.p99().filter(|_| !self.shares)?.max(self.open_login_s.unwrap_or(0)))
    }

    fn add(&mut self, task: &Task, logins: &[&Login], now_ms: i64) {
        let seen = Seen::of(task, now_ms);
        self.last_ms = self.last_ms.max(seen.until_ms);
        if let Some(agent) = task.identity.as_ref().filter(|_| self.agents.len() < MOST_AGENTS) {
            self.agents.insert(agent.clone());
        }
        let of = |kind: Kind| logins.iter().filter(move |login| login.credential.kind() == kind);
        let is_own = |login: &&&Login| login.tenure != Tenure::Standing;
        self.stands |= !of(Kind::VaultToken).all(|token| is_own(&token));
        let tokens = of(Kind::VaultToken).filter_map(|token| token.issued_ms);
        let span_s = seconds(seen.until_ms.saturating_sub(tokens.fold(seen.from_ms, i64::min)));
        count(&mut self.tasks, &mut self.open_s, span_s, seen.counts);
        // How long its secret_id must live: it may log in once more up to its end.
        let shared = of(Kind::VaultApprole).next().is_some() || !of(Kind::VaultSecretId).all(|one| is_own(&one));
        let issued: Option<i64> = of(Kind::VaultSecretId).map(|one| one.issued_ms).min().flatten();
        match issued.filter(|_| !shared) {
            Some(issued_ms) => {
                let span_s = seconds(seen.until_ms.saturating_sub(issued_ms.min(seen.from_ms)));
                count(&mut self.logins, &mut self.open_login_s, span_s, seen.counts);
            }
            None => self.shares = true,
        }
    }
}

fn count(spans: &mut Spans, open_s: &mut Option<u64>, span_s: u64, counts: bool) {
    if counts {
        spans.add(span_s);
    } else {
        *open_s = (*open_s).max(Some(span_s));
    }
}

/// What was seen of a task.
struct Seen {
    from_ms: i64,
    until_ms: i64,
    /// From its start to its end.
    counts: bool,
}

impl Seen {
    fn of(task: &Task, now_ms: i64) -> Self {
        let first_ms = task.started_ms.unwrap_or(task.first_seen_ms);
        // What an earlier attempt was given is used on.
        let from_ms = if task.attempt > 1 { first_ms.min(task.first_seen_ms) } else { first_ms };
        let (until_ms, counts) = match (task.phase, task.ended_ms) {
            (Phase::Ended, Some(ended_ms)) if is_told(task.outcome.as_deref()) => (ended_ms, task.started_ms.is_some()),
            (Phase::Ended, _) => (task.last_beat_ms.unwrap_or(first_ms), false),
            (Phase::Expected | Phase::Running, _) => (now_ms, false),
        };
        Self { from_ms, until_ms, counts }
    }
}

/// `<realm>/<mount>/<role>`: as which AppRole it lets in, or let in.
fn role(login: &Login) -> Option<String> {
    let (realm, name) = (login.credential.instance(), login.credential.id());
    let role = match login.credential.kind() {
        Kind::VaultApprole => &*name,
        Kind::VaultSecretId => name.rsplit_once('/')?.0,
        Kind::VaultToken => login.principal.as_deref()?,
        _ => return None,
    };
    let (mount, own) = role.rsplit_once('/')?;
    (!mount.is_empty() && !own.is_empty()).then(|| format!("{realm}/{role}"))
}

/// The tasks of all AppRoles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    all: HashMap<String, Lives>,
}

impl Tally {
    /// One task more.
    pub fn add(&mut self, line: &Lived, terms: &Terms, now_ms: i64) {
        let mut roles: BTreeMap<String, Vec<&Login>> = BTreeMap::new();
        let known = |login: &&Login| terms.realms.get(login.credential.instance()) == Some(&line.task.tenant);
        for login in line.logins.iter().filter(known) {
            if let Some(role) = role(login) {
                roles.entry(role).or_default().push(login);
            }
        }
        for (role, logins) in roles {
            if self.all.len() < MOST || self.all.contains_key(&role) {
                self.all.entry(role).or_default().add(&line.task, &logins, now_ms);
            }
        }
    }

    /// The tasks of `<realm>/<mount>/<role>`. `None`: there was none.
    pub fn of(&self, role: &str) -> Option<&Lives> {
        self.all.get(role)
    }
}

#[cfg(test)]
mod tests;
