//! What identities use, as their issuer's own log says: since when it is watched, and when each policy last granted something.
//! PURE but for [`follow`] and [`watch`].
//!
//! Whoever cannot be told apart counts as having used it: use is told from above, so that "unused" never rests on a guess. A
//! request counts for each AppRole that it may be of: by the role's name in its token and the mount of that entity's logins; by
//! the entity alone, as its child tokens have it, for each role that logged in as it. An entity of which no login was seen may be
//! anybody.
//!
//! What Curfew itself does is its own identity's. Where it tries an AppRole's new secret_id it logs in, asks and ends that
//! token: a login alone, `lookup-self` and `revoke-self` are therefore no use of an identity. (`renew-self` is: somebody holds on.)

pub mod apply;
pub mod follow;
pub mod line;
pub mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use line::Deed;

/// So many rows are kept of one log. Beyond, nothing is concluded from it.
pub const MOST: usize = 200_000;

const MINUTE_MS: i64 = 60_000;

/// Whose the uses are of a token without role and entity.
const NOBODY: &str = "entity:";

/// Where a log was read up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file's device.
    pub device: u64,
    /// The file's inode.
    pub inode: u64,
    /// The byte behind the last line that was read.
    pub offset: u64,
    /// The digest of what stands just before it: another file, or one that was cut and has grown again, has another.
    pub tail: String,
}

/// A log, and how far its silence says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Whose.
    pub tenant: String,
    /// `audit:<realm>`.
    pub source: String,
    /// Of which realm.
    pub realm: String,
    /// Since when nothing can have been missed; `None`: too much stands in it.
    pub since_ms: Option<i64>,
    /// The time of the newest line, when all of it was read.
    pub until_ms: i64,
    /// Beyond this age of the newest line nothing is concluded.
    pub stale_ms: i64,
    /// Lines that could not be read, and were passed over.
    pub unread: u64,
    /// Where it was read up to.
    pub position: Option<Position>,
}

/// The last time that somebody used something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// `role:<mount>/<name>` (`role:*/<name>`: at which mount is not known), or `entity:<id>`.
    pub who: String,
    /// Empty: anything; `policy:<name>`; or how it logged in: `as:<mount>/<role>` (an AppRole), `login:<mount>`.
    pub what: String,
    /// When.
    pub last_ms: i64,
}

/// What one log has said, as it is known.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    all: HashMap<String, BTreeMap<String, i64>>,
    count: usize,
    new: HashSet<(String, String)>,
    every_ms: i64,
}

impl Tally {
    /// What was durable.
    pub fn of(uses: Vec<Use>) -> Self {
        let mut tally = Self::default();
        for one in uses {
            tally.put(one.who, one.what, one.last_ms);
        }
        tally.new.clear();
        tally
    }

    /// A use that comes so soon after the last one that was counted is not counted again: who uses something all the time would be
    /// written all the time. At most half of what a log may be late.
    pub fn every(mut self, stale_ms: i64) -> Self {
        self.every_ms = (stale_ms / 2).min(MINUTE_MS);
        self
    }

    fn put(&mut self, who: String, what: String, at_ms: i64) {
        let known = self.all.get(&who).and_then(|all| all.get(&what)).copied();
        if known.is_some_and(|known| known.saturating_add(self.every_ms) >= at_ms)
            || (known.is_none() && self.count >= MOST)
        {
            self.count += usize::from(known.is_none());
            return;
        }
        self.count += usize::from(known.is_none());
        self.new.insert((who.clone(), what.clone()));
        self.all.entry(who).or_default().insert(what, at_ms);
    }

    /// Who did nothing since then is forgotten: so the watch is no older than that. Who that was; rows of whoever did something stay
    /// together, since how it logged in may be long ago.
    pub fn forget(&mut self, before_ms: i64) -> Vec<String> {
        let is_old = |all: &BTreeMap<String, i64>| all.values().all(|last_ms| *last_ms < before_ms);
        let gone: Vec<String> = self.all.iter().filter(|(_, all)| is_old(all)).map(|(who, _)| who.clone()).collect();
        if gone.is_empty() {
            return gone;
        }
        gone.iter().for_each(|who| drop(self.all.remove(who)));
        // Also what did not fit is counted no more.
        self.count = self.all.values().map(BTreeMap::len).sum();
        self.new.retain(|(who, _)| self.all.contains_key(who));
        gone
    }

    /// More stood there than is kept.
    pub fn is_full(&self) -> bool {
        self.count > MOST
    }

    /// As which AppRoles an entity was seen.
    fn seen_as(&self, entity: &str) -> impl Iterator<Item = &str> {
        let all = self.all.get(entity);
        all.into_iter().flat_map(BTreeMap::keys).filter_map(|what| what.strip_prefix("as:"))
    }

    /// Counts what a line said.
    pub fn add(&mut self, deed: Deed, at_ms: i64) {
        match deed {
            Deed::Login { mount, role, entity } => {
                let login = role.map_or_else(|| format!("login:{mount}"), |role| format!("as:{mount}/{role}"));
                self.put(format!("entity:{entity}"), login, at_ms);
            }
            Deed::Used { role, entity, policies, counts } => {
                let entity = entity.map(|entity| format!("entity:{entity}"));
                let mut who: Vec<String> = entity.iter().cloned().collect();
                if let Some(role) = role {
                    let known = entity.iter().flat_map(|entity| self.seen_as(entity));
                    let fits = known.filter(|seen| seen.rsplit_once('/').is_some_and(|(_, name)| name == role));
                    let mut roles: Vec<String> = fits.map(|seen| format!("role:{seen}")).collect();
                    if roles.is_empty() {
                        // Its child tokens, which have the entity alone, are of it as well.
                        if let Some(entity) = &entity {
                            self.put(entity.clone(), format!("as:*/{role}"), at_ms);
                        }
                        roles.push(format!("role:*/{role}"));
                    }
                    who.extend(roles);
                }
                // Of nobody: it may be anybody's.
                if who.is_empty() {
                    who.push(NOBODY.to_owned());
                }
                for who in who {
                    for policy in &policies {
                        self.put(who.clone(), format!("policy:{policy}"), at_ms);
                    }
                    if counts && who != NOBODY {
                        self.put(who, String::new(), at_ms);
                    }
                }
            }
        }
    }

    /// What is to become durable.
    pub fn take_new(&mut self) -> Vec<Use> {
        let new = std::mem::take(&mut self.new);
        let of = |(who, what): (String, String)| {
            let last_ms = *self.all.get(&who)?.get(&what)?;
            Some(Use { who, what, last_ms })
        };
        let mut all: Vec<Use> = new.into_iter().filter_map(of).collect();
        // Always in one order: two that write wait for each other, and do not lock each other out.
        all.sort_unstable_by(|a, b| (&a.who, &a.what).cmp(&(&b.who, &b.what)));
        all
    }
}

/// The same by AppRole, for questions.
#[derive(Debug, Clone, Default)]
struct Index {
    /// By `<mount>/<name>`, or `*/<name>`.
    roles: HashMap<String, BTreeMap<String, i64>>,
    /// Of entities of which no login was seen.
    anybody: BTreeMap<String, i64>,
    /// Of tokens that are of nobody: orphans, Curfew's own among them.
    nobody: BTreeMap<String, i64>,
}

fn join(into: &mut BTreeMap<String, i64>, all: &BTreeMap<String, i64>) {
    for (what, at_ms) in all {
        let known = into.entry(what.clone()).or_insert(*at_ms);
        *known = (*known).max(*at_ms);
    }
}

impl Index {
    fn of(tally: &Tally) -> Self {
        let mut index = Self::default();
        for (who, all) in &tally.all {
            if who == NOBODY {
                join(&mut index.nobody, all);
            } else if let Some(role) = who.strip_prefix("role:") {
                join(index.roles.entry(role.to_owned()).or_default(), all);
            } else if all.keys().any(|what| what.starts_with("as:")) {
                for role in tally.seen_as(who) {
                    join(index.roles.entry(role.to_owned()).or_default(), all);
                }
            } else if !all.keys().any(|what| what.starts_with("login:")) {
                join(&mut index.anybody, all);
            }
        }
        index
    }

    /// When `role` (`<mount>/<name>`) last did `what`.
    fn role(&self, role: &str, what: &str) -> Option<i64> {
        let anywhere = role.rsplit_once('/').map(|(_, name)| format!("*/{name}"));
        let all = [self.roles.get(role), anywhere.and_then(|role| self.roles.get(&role))];
        all.into_iter().flatten().filter_map(|all| all.get(what).copied()).max()
    }

    /// When somebody of whom no login was seen last used a policy, other than those that everybody has and root's.
    fn anybody_at_all(&self) -> Option<i64> {
        let own = |what: &&String| what.strip_prefix("policy:").is_some_and(|name| !matches!(name, "default" | "root"));
        self.anybody.iter().filter(|(what, _)| own(what)).map(|(_, at_ms)| *at_ms).max()
    }

    /// When somebody of whom no login was seen last did `what`.
    fn anybody(&self, what: &str) -> Option<i64> {
        self.anybody.get(what).max(self.nobody.get(what)).copied()
    }
}

/// What an issuer's log says of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// No log is read of it.
    Untracked,
    /// The log's newest line is too old: it may say nothing more, or be another's.
    Stale,
    /// It is not watched for long enough without a gap.
    TooShort,
    /// It was used at that time, or never as far as is watched.
    Last(Option<i64>),
}

/// What all logs say, at one time.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    /// By realm.
    all: BTreeMap<String, (Watched, Index)>,
}

impl Uses {
    /// Of these logs.
    pub fn of(all: impl IntoIterator<Item = (Watched, Vec<Use>)>) -> Self {
        let of = |(watched, uses): (Watched, Vec<Use>)| (watched.realm.clone(), (watched, Index::of(&Tally::of(uses))));
        Self { all: all.into_iter().map(of).collect() }
    }

    /// The logs.
    pub fn watched(&self) -> impl Iterator<Item = &Watched> {
        self.all.values().map(|(watched, _)| watched)
    }

    /// When an AppRole, `<mount>/<name>`, was last seen to do anything, as far as its realm's log was read.
    pub fn last(&self, realm: &str, role: &str) -> Option<i64> {
        self.all.get(realm)?.1.role(role, "")
    }

    /// The log of a realm.
    pub fn log(&self, realm: &str) -> Option<&Watched> {
        self.all.get(realm).map(|(watched, _)| watched)
    }

    fn told(&self, realm: &str, from_ms: i64, now_ms: i64, last: impl Fn(&Index) -> Option<i64>) -> Told {
        let Some((watched, index)) = self.all.get(realm) else { return Told::Untracked };
        if now_ms.saturating_sub(watched.until_ms) > watched.stale_ms {
            return Told::Stale;
        }
        match watched.since_ms {
            Some(since_ms) if since_ms <= from_ms => Told::Last(last(index)),
            _ => Told::TooShort,
        }
    }

    /// When `policy` last granted something to the AppRole `<mount>/<name>`, where all since `from_ms` was watched.
    pub fn policy(&self, realm: &str, role: &str, policy: &str, from_ms: i64, now_ms: i64) -> Told {
        let what = format!("policy:{policy}");
        self.told(realm, from_ms, now_ms, |index| index.role(role, &what).max(index.anybody(&what)))
    }

    /// When the AppRole last did anything, or whoever may be it: its policies are not known here.
    pub fn anything(&self, realm: &str, role: &str, from_ms: i64, now_ms: i64) -> Told {
        self.told(realm, from_ms, now_ms, |index| index.role(role, "").max(index.anybody_at_all()))
    }

    /// When the AppRole last did anything; `policies` are its own: who cannot be told apart and used one of them may be it.
    pub fn role<'a>(
        &self,
        realm: &str,
        role: &str,
        policies: impl Iterator<Item = &'a str> + Clone,
        from_ms: i64,
        now_ms: i64,
    ) -> Told {
        self.told(realm, from_ms, now_ms, |index| {
            let shared = policies.clone().filter(|policy| *policy != "default");
            let anybody = shared.filter_map(|policy| index.anybody(&format!("policy:{policy}"))).max();
            index.role(role, "").max(anybody)
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
