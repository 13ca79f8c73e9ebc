//! AppRoles whose tokens, or secret_ids, live longer than the tasks that work by them, and why others are not called so; and
//! whether a case may still go on. PURE: from the graph, the tasks that were seen, and what logs say of use.

use std::sync::Arc;

use petgraph::Direction::Incoming;
use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::lives::{Lives, Tally, Terms};
use super::notice::{Again, Found};
use super::unused::{approle, credentials, first_ms};
use super::uses::Uses;
use super::uses::apply::Apply;
use super::{About, Lifetimes, Node, NodeKind, Via};
use crate::case::Case;
use crate::credential::{CredentialId, Kind};
use crate::scope::Permission;

/// A use so much later than the last task is somebody else's, in milliseconds.
const LATE_MS: i64 = 300_000;

/// By what it is judged.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The tasks that were seen.
    pub tally: Arc<Tally>,
    /// How they are measured.
    pub terms: Terms,
    /// AppRoles that have been known for less are left alone, in milliseconds.
    pub youngest_ms: i64,
    /// Ours.
    pub now_ms: i64,
}

/// Why what an AppRole gives is not called long-lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It lives no longer than its tasks need.
    Fits,
    /// No task is known to work by it.
    Untracked,
    /// Too few tasks were seen from start to end.
    Few,
    /// The AppRole is too young.
    Young,
    /// Somebody uses it who is no task.
    Beside,
    /// How long what it gives lives is not known: its mount's own limits were not read.
    Unread,
}

impl Why {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fits => "no longer than its tasks need",
            Self::Untracked => "no task is known to work by it",
            Self::Few => "too few tasks were seen from start to end",
            Self::Young => "the identity is too young",
            Self::Beside => "not only tasks use it",
            Self::Unread => "the limits of its mount were not read",
        }
    }
}

/// An AppRole, what it gives, and its tasks. Spans are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongLived {
    /// Which.
    pub node: Node,
    /// How long a token of it can live: renewed, where it can be. `None`: not known, or for ever.
    pub tokens_s: Option<u64>,
    /// Its tokens are periodic: renewed, they live for ever.
    pub periodic: bool,
    /// How long a secret_id of it lives; 0: for ever.
    pub secret_ids_s: u64,
    /// How many tasks were seen from start to end.
    pub tasks: u64,
    /// How long 99 in 100 of them took at the most.
    pub p99_s: Option<u64>,
    /// The longest of those that go on, or of which a part was not seen: at least so long.
    pub open_s: Option<u64>,
    /// How long its tokens must live for that, with the margin.
    pub needed_s: Option<u64>,
    /// What of it is too much, in the words in which it is taken.
    pub excess: Vec<Permission>,
    /// Why it is not called long-lived. `None`: it is.
    pub why: Option<Why>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongLiveds {
    /// What is long-lived first; at most as many as were asked for.
    pub lines: Vec<LongLived>,
    /// How many are long-lived.
    pub long_lived: usize,
    /// How many AppRoles there are.
    pub total: usize,
    /// Tasks that ended within so many milliseconds count.
    pub over_ms: i64,
    /// Of fewer tasks nothing is concluded.
    pub at_least: u32,
}

impl Lifetimes {
    /// How long a token of it can live, in seconds: renewed where it can be, and a batch token as it was made. Vault takes the
    /// mount's limit where the role sets none, or a greater one.
    fn tokens_s(&self) -> Option<u64> {
        let (usual_s, most_s) = self.mount?;
        let set = [self.token_max_ttl, self.token_explicit_max_ttl].into_iter().filter(|seconds| *seconds > 0);
        let most_s = set.fold(most_s, u64::min);
        let once_s = if self.token_ttl > 0 { self.token_ttl } else { usual_s };
        Some(if self.batch { once_s.min(most_s) } else { most_s })
    }
}

/// Whether it is worth its notice: what is only a little longer than needed comes and goes with each day's tasks.
fn is_longer(seconds: u64, needed_s: u64) -> bool {
    seconds > needed_s.saturating_add(needed_s / 4)
}

fn lifetime(setting: &str, seconds: u64) -> Option<Permission> {
    Permission::parse(&format!("lifetime:{setting}={seconds}")).ok()
}

/// What lowers how long what it gives can live, and nothing that lowers nothing.
fn excess(of: &Lifetimes, needed_s: u64, secret_ids_s: Option<u64>) -> Vec<Permission> {
    let mut all = Vec::new();
    // Renewed, a periodic token lives for ever, whatever these say.
    if of.token_period == 0 && of.tokens_s().is_some_and(|seconds| is_longer(seconds, needed_s)) {
        if of.token_max_ttl == 0 || of.token_max_ttl > needed_s {
            all.extend(lifetime("token_max_ttl", needed_s));
        }
        // Vault takes no token_ttl above token_max_ttl; none is the mount's, and that is cut by itself.
        if of.token_ttl > needed_s {
            all.extend(lifetime("token_ttl", needed_s));
        }
    }
    let longer = |needed_s: &u64| of.secret_id_ttl == 0 || is_longer(of.secret_id_ttl, *needed_s);
    all.extend(secret_ids_s.filter(longer).and_then(|seconds| lifetime("secret_id_ttl", seconds)));
    all.sort_unstable();
    all
}

/// Whether somebody uses it beside the tasks that were seen: a consumer, an agent of whom no task is known, or a token that
/// outlives them; or it was used when none of them was at work.
fn is_used_beside(graph: &Graph, uses: &Uses, at: NodeIndex, role: (&str, &str), lives: &Lives) -> bool {
    let kind = |at: NodeIndex| graph.node(at).kind;
    let stored = credentials(graph, at).flat_map(|credential| graph.links(credential, Incoming));
    let stored = stored.filter(|(_, link)| link.via == Via::Stores).map(|(place, _)| place);
    // Who works as it, holds one of its credentials, or reads it where it is stored. What a task holds is in its life.
    let mut users = std::iter::once(at).chain(credentials(graph, at)).chain(stored).flat_map(|one| {
        let all =
            graph.links(one, Incoming).filter(|(_, link)| matches!(link.via, Via::Runs | Via::Holds | Via::Reads));
        all.map(|(user, _)| user)
    });
    let is_other = |user: NodeIndex| match kind(user) {
        NodeKind::Consumer => true,
        NodeKind::Agent => !lives.agents.contains(&*graph.node(user).name),
        _ => false,
    };
    let late = uses.last(role.0, role.1).is_some_and(|last_ms| last_ms > lives.last_ms.saturating_add(LATE_MS));
    lives.stands || late || users.any(is_other)
}

/// Whether a secret_id of it is kept that is no task's: stored somewhere, or held by nobody who is a task.
fn is_kept(graph: &Graph, at: NodeIndex) -> bool {
    credentials(graph, at).any(|credential| {
        let mut from = graph.links(credential, Incoming);
        match CredentialId::parse(&graph.node(credential).name).map(|id| id.kind()) {
            Ok(Kind::VaultSecretId) => !from.any(|(one, _)| graph.node(one).kind == NodeKind::Task),
            Ok(Kind::VaultApprole) => from.any(|(_, link)| matches!(link.via, Via::Stores | Via::Holds)),
            _ => false,
        }
    })
}

/// How long its secret_ids must live, where it is safe to say: each task that counts logged in by one of its own, and no other
/// one is known.
fn secret_ids_s(lives: &Lives, terms: &Terms) -> Option<u64> {
    let longest_s = lives.longest_login_s().filter(|_| lives.logins.total() >= u64::from(terms.tasks))?;
    Some(terms.room_s(longest_s))
}

fn judged(graph: &Graph, uses: &Uses, at: NodeIndex, asked: &Asked) -> Option<LongLived> {
    let (realm, role) = approle(graph, at)?;
    let About { lifetimes: Some(of), .. } = graph.about(at)? else { return None };
    let (terms, blank) = (&asked.terms, Lives::default());
    let lives = asked.tally.of(&graph.node(at).name).unwrap_or(&blank);
    let (tasks, longest_s) = (lives.tasks.total(), lives.longest_s());
    let needed_s = longest_s.filter(|_| tasks >= u64::from(terms.tasks)).map(|longest_s| terms.room_s(longest_s));
    let secret_ids_s = secret_ids_s(lives, terms).filter(|_| !is_kept(graph, at));
    let excess = needed_s.map(|needed_s| excess(of, needed_s, secret_ids_s)).unwrap_or_default();
    let why = match needed_s {
        _ if tasks == 0 && lives.open_s.is_none() => Some(Why::Untracked),
        None => Some(Why::Few),
        _ if first_ms(graph, at) > asked.now_ms.saturating_sub(asked.youngest_ms) => Some(Why::Young),
        _ if is_used_beside(graph, uses, at, (realm, role), lives) => Some(Why::Beside),
        _ if of.mount.is_none() => Some(Why::Unread),
        _ if excess.is_empty() && of.token_period == 0 => Some(Why::Fits),
        _ => None,
    };
    Some(LongLived {
        node: graph.node(at).clone(),
        tokens_s: of.tokens_s().filter(|_| of.token_period == 0),
        periodic: of.token_period > 0,
        secret_ids_s: of.secret_id_ttl,
        tasks,
        p99_s: lives.tasks.p99(),
        open_s: lives.open_s,
        needed_s,
        excess: if why.is_none() { excess } else { Vec::new() },
        why,
    })
}

/// All AppRoles, what is long-lived first.
pub fn judge(graph: &Graph, uses: &Uses, asked: &Asked) -> Vec<LongLived> {
    let identities = graph.of_kind(NodeKind::Identity);
    let mut all: Vec<LongLived> = identities.filter_map(|at| judged(graph, uses, at, asked)).collect();
    all.sort_by(|a, b| (a.why, &a.node).cmp(&(b.why, &b.node)));
    all
}

/// The same, as it is told.
pub fn told(graph: &Graph, uses: &Uses, asked: &Asked, max: usize) -> LongLiveds {
    let mut lines = judge(graph, uses, asked);
    let (total, long_lived) = (lines.len(), lines.iter().filter(|line| line.why.is_none()).count());
    lines.truncate(max);
    LongLiveds { lines, long_lived, total, over_ms: asked.terms.over_ms, at_least: asked.terms.tasks }
}

/// A span of time for people.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        7_200..172_800 => format!("{} h", seconds.div_ceil(3_600)),
        _ => format!("{} d", seconds.div_ceil(86_400)),
    }
}

impl LongLived {
    /// What it rests on, in one sentence.
    pub fn place(&self) -> String {
        let tokens = match self.tokens_s {
            _ if self.periodic => {
                "are periodic, and renewed for ever: what they may live is not lowered here".to_owned()
            }
            Some(seconds) => format!("live up to {}", span(seconds)),
            None => "live for an unknown time".to_owned(),
        };
        let secret_ids = match self.secret_ids_s {
            0 => "for ever".to_owned(),
            seconds => span(seconds),
        };
        let took = self.p99_s.map(span).unwrap_or_default();
        let open = self.open_s.filter(|open_s| self.p99_s.is_some_and(|p99_s| *open_s > p99_s));
        let open = open.map(|open_s| format!(", and one at least {}", span(open_s))).unwrap_or_default();
        format!(
            "tokens of {} {tokens}, secret_ids {secret_ids}; 99 of 100 of its {} tasks took at most {took}{open}",
            self.node, self.tasks
        )
    }

    /// How many times as long as needed its tokens live: what is worst comes first.
    pub fn weight(&self) -> u64 {
        self.tokens_s.unwrap_or(u64::MAX) / self.needed_s.unwrap_or(1).max(1)
    }
}

/// Of lifetimes that were frozen, those that the tasks that were seen since do not fit into. `None`: what was seen does not say.
pub fn outgrown<'a>(
    credential: &CredentialId,
    frozen: impl IntoIterator<Item = &'a Permission>,
    tally: &Tally,
    terms: &Terms,
) -> Option<Vec<Permission>> {
    let lives = tally.of(&format!("{}/{}", credential.instance(), credential.id()))?;
    let longest_s = lives.longest_s().filter(|_| lives.tasks.total() >= u64::from(terms.tasks) && !lives.stands)?;
    let outgrown = |one: &&Permission| {
        let ("lifetime", setting) = one.parts() else { return false };
        let Some((setting, seconds)) = setting.split_once('=') else { return true };
        let longest_s = if setting == "secret_id_ttl" { lives.longest_login_s() } else { Some(longest_s) };
        let seconds: Option<u64> = seconds.parse().ok();
        !seconds.zip(longest_s).is_some_and(|(seconds, longest_s)| terms.fits(seconds, longest_s))
    };
    Some(frozen.into_iter().filter(outgrown).cloned().collect())
}

/// How the newest case stands that rests on a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// Nobody has begun.
    Waits,
    /// It is at work: nothing is said of it.
    Begun,
    /// It is over, and nothing was taken: tasks had outgrown it.
    Withdrawn,
    /// It is over.
    Over,
}

/// Compares a finding that was said with the newest case that rests on it: what that froze and did not spare, and how it stands.
/// Names what is too much still, where it is said again.
pub fn again(found: &Found, frozen: &[Permission], stands: Stands, asked: &Asked) -> (Again, Vec<Permission>) {
    let same = (Again::Same, Vec::new());
    let setting = |one: &Permission| one.as_str().split('=').next().map(str::to_owned);
    let is_new = |one: &Permission| match stands {
        Stands::Withdrawn => !frozen.contains(one),
        // What was lowered, or given back, is not lowered a little further.
        _ => !frozen.iter().any(|known| setting(known) == setting(one)),
    };
    match stands {
        Stands::Begun => same,
        Stands::Withdrawn | Stands::Over if found.excess.iter().any(is_new) => (Again::Anew, found.excess.clone()),
        Stands::Withdrawn | Stands::Over => same,
        Stands::Waits => {
            let outgrown = outgrown(&found.credential, frozen, &asked.tally, &asked.terms).unwrap_or_default();
            if outgrown.is_empty() || found.excess.is_empty() {
                return same;
            }
            let left: Vec<Permission> = frozen.iter().filter(|one| !outgrown.contains(one)).cloned().collect();
            (Again::Less, if left.is_empty() { found.excess.clone() } else { left })
        }
    }
}

/// Whether a case may still be begun: what was frozen, without what tasks have outgrown since.
pub fn apply(case: &Case, tally: &Tally, terms: &Terms) -> Apply {
    let frozen = case.directive.cut.iter().flat_map(|cut| &cut.permissions);
    let frozen: Vec<&Permission> = frozen.filter(|one| !case.state.cutting.spared.contains(one)).collect();
    match outgrown(&case.directive.credential, frozen.iter().copied(), tally, terms) {
        None => Apply::Wait,
        Some(spared) if spared.len() == frozen.len() => Apply::Withdraw,
        Some(spared) if spared.is_empty() => Apply::Go,
        Some(spared) => Apply::Spare(spared),
    }
}

#[cfg(test)]
mod tests;
