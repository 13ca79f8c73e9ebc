//! From where it is read who reaches what: shapes, and what must hold between the parts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_saphyr::Spanned;

use super::check::Checks;
use super::file::{AppRole, Millis, unplaced};
use super::problem::{Problem, said};
use super::{Login, Realm, System, Target, rotations};
use crate::case::Action;
use crate::reach::Source;
use crate::reach::lives::Terms;
use crate::reach::notice::Sort;

/// `reach`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// How often each source is read.
    #[serde(default = "often")]
    pub every: Spanned<Millis>,
    /// What people say: zones, targets, owners.
    #[serde(default)]
    pub declared: Option<PathBuf>,
    /// Vaults whose policies are read.
    #[serde(default)]
    pub vaults: Vec<Spanned<OfVault>>,
    /// PostgreSQLs whose roles are read.
    #[serde(default)]
    pub databases: Vec<OfDatabase>,
    /// Accounts of AWS whose IAM is read.
    #[serde(default)]
    pub accounts: Vec<OfAccount>,
    /// Logs that say when identities used their grants.
    #[serde(default)]
    pub uses: Vec<Spanned<OfLog>>,
    /// What is a finding; absent: nothing.
    #[serde(default)]
    pub finds: Option<Spanned<OfFinds>>,
}

/// `reach.finds`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfFinds {
    /// What is looked for.
    pub sorts: Vec<Sort>,
    /// How long nobody must have used what is `dormant`.
    #[serde(default = "dormant")]
    pub dormant_after: Spanned<Millis>,
    /// Over which time a policy must have granted nothing that is `unused`.
    #[serde(default = "dormant")]
    pub unused_after: Spanned<Millis>,
    /// Of identities that are known for less nothing is called unused, or long-lived.
    #[serde(default = "young")]
    pub youngest: Spanned<Millis>,
    /// How the lives of tasks are measured, for what is `long_lived`.
    #[serde(default)]
    pub lives: OfLives,
    /// The strongest action that may rest on it.
    #[serde(default = "track")]
    pub strongest: Action,
}

/// `reach.finds.lives`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfLives {
    /// Tasks that ended within this time count.
    pub over: Spanned<Millis>,
    /// Of fewer tasks nothing is concluded.
    pub tasks: Spanned<u32>,
    /// What is left beyond 99 in 100 tasks, in percent of their longest.
    pub margin_percent: Spanned<u32>,
    /// The same, at least; no lifetime is ever less.
    pub margin_at_least: Spanned<Millis>,
}

impl Default for OfLives {
    fn default() -> Self {
        let usual = Terms::default();
        Self {
            over: unplaced(Millis(usual.over_ms)),
            tasks: unplaced(usual.tasks),
            margin_percent: unplaced(usual.margin_percent),
            margin_at_least: unplaced(Millis(usual.margin_ms)),
        }
    }
}

impl OfLives {
    fn checked(&self, c: &mut Checks<'_>, kept_ms: i64) -> Terms {
        let Self { over, tasks, margin_percent: percent, margin_at_least: least } = self;
        if over.value.0 < 3_600_000 || over.value.0 > kept_ms {
            c.wrong(over.referenced, "`over` is at least 1h, and at most `retention.closed`: older tasks are not kept");
        }
        if tasks.value < 10 {
            c.wrong(tasks.referenced, "`tasks` is at least 10: fewer say nothing of how long the next one takes");
        }
        if !(10..=1_000).contains(&percent.value) {
            c.wrong(percent.referenced, "`margin_percent` is between 10 and 1000");
        }
        if !(60_000..=86_400_000).contains(&least.value.0) {
            c.wrong(least.referenced, "`margin_at_least` is between 1m and 1d");
        }
        let (over_ms, margin_ms) = (over.value.0, least.value.0);
        Terms { over_ms, tasks: tasks.value, margin_percent: percent.value, margin_ms, ..Terms::default() }
    }
}

fn dormant() -> Spanned<Millis> {
    unplaced(Millis(90 * 86_400_000))
}

fn young() -> Spanned<Millis> {
    unplaced(Millis(YOUNG_MS))
}

fn stale() -> Spanned<Millis> {
    unplaced(Millis(3_600_000))
}

fn track() -> Action {
    Action::Track
}

/// `http.reach`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Holds the token that callers must send, readable by its owner only. Made where there is none.
    pub token_file: PathBuf,
}

/// One of `reach.vaults`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfVault {
    /// The realm.
    pub realm: Spanned<String>,
    /// Holds the token of a login of its own, which can only list and read settings.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The AppRole of its own login.
    #[serde(default)]
    pub approle: Option<AppRole>,
}

/// One of `reach.uses`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfLog {
    /// The realm; `reach.vaults` names it as well.
    pub realm: Spanned<String>,
    /// The file of its audit device, where all its requests stand.
    pub audit_log: PathBuf,
    /// Where its newest line is older, nothing is concluded.
    #[serde(default = "stale")]
    pub stale_after: Spanned<Millis>,
}

/// One of `reach.databases`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfDatabase {
    /// The target.
    pub target: Spanned<String>,
    /// Holds the URL of a login of its own; absent: the target's.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
}

/// One of `reach.accounts`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfAccount {
    /// The target.
    pub target: Spanned<String>,
    /// Holds a login of its own; absent: the account's.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
}

fn often() -> Spanned<Millis> {
    unplaced(Millis(600_000))
}

/// From where it is read who reaches what.
#[derive(Debug, Clone)]
pub struct Reach {
    /// How often each source is read.
    pub every_ms: i64,
    /// What people say.
    pub declared: Option<PathBuf>,
    /// Realm, and a login that can only list and read settings.
    pub vaults: Vec<(String, Login)>,
    /// Target, and the file with the URL.
    pub databases: Vec<(String, PathBuf)>,
    /// Target, and the file with a login; `None`: the machine's.
    pub accounts: Vec<(String, Option<PathBuf>)>,
    /// Logs of use.
    pub uses: Vec<Log>,
    /// What is a finding.
    pub finds: Option<Finds>,
}

/// A log that says when identities used their grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Of which realm.
    pub realm: String,
    /// The file of the audit device.
    pub path: PathBuf,
    /// Beyond this age of its newest line nothing is concluded.
    pub stale_ms: i64,
}

/// Of identities that are known for less nothing is called unused, where nothing else is said.
pub const YOUNG_MS: i64 = 30 * 86_400_000;

/// What is a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finds {
    /// What is looked for; each once.
    pub sorts: Vec<Sort>,
    /// How long nobody must have used what is dormant.
    pub dormant_after_ms: i64,
    /// Over which time a policy must have granted nothing that is unused.
    pub unused_after_ms: i64,
    /// Of identities that are known for less nothing is called unused, or long-lived.
    pub youngest_ms: i64,
    /// How the lives of tasks are measured; whose the realms are is not in it.
    pub lives: Terms,
    /// The strongest action that may rest on it.
    pub strongest: Action,
}

/// `kept_ms`: how long tasks that ended are kept.
pub(super) fn reach(c: &mut Checks<'_>, raw: &Raw, realms: &[Realm], targets: &[Target], kept_ms: i64) -> Reach {
    if raw.every.value.0 < 1_000 {
        c.wrong(raw.every.referenced, "`every` is at least 1s");
    }
    let mut vaults: Vec<(String, Login)> = Vec::new();
    for Spanned { value: one, referenced: at, .. } in &raw.vaults {
        rotations::known_realm(c, &one.realm, realms);
        once(c, &one.realm, vaults.iter().map(|(name, _)| name));
        if let Some(login) = c.login(*at, one.token_file.as_ref(), one.approle.as_ref(), "`reach.vaults`") {
            vaults.push((one.realm.value.clone(), login));
        }
    }
    let mut databases: Vec<(String, PathBuf)> = Vec::new();
    for one in &raw.databases {
        once(c, &one.target, databases.iter().map(|(name, _)| name));
        match target(c, &one.target, targets).map(|target| &target.system) {
            Some(System::Postgres { url_file, .. }) => {
                let own = one.url_file.as_ref().map(|path| c.path(path));
                databases.push((one.target.value.clone(), own.unwrap_or_else(|| url_file.clone())));
            }
            Some(_) => c.wrong(one.target.referenced, "`reach.databases` are targets with `postgres`"),
            None => {}
        }
    }
    let mut accounts: Vec<(String, Option<PathBuf>)> = Vec::new();
    for one in &raw.accounts {
        once(c, &one.target, accounts.iter().map(|(name, _)| name));
        match target(c, &one.target, targets).map(|target| &target.system) {
            Some(System::Aws(aws)) => {
                let own = one.credentials_file.as_ref().map(|path| c.path(path));
                accounts.push((one.target.value.clone(), own.or_else(|| aws.credentials_file.clone())));
            }
            Some(_) => c.wrong(one.target.referenced, "`reach.accounts` are targets with `aws`"),
            None => {}
        }
    }
    let mut uses: Vec<Log> = Vec::new();
    for Spanned { value: one, .. } in &raw.uses {
        rotations::known_realm(c, &one.realm, realms);
        once(c, &one.realm, uses.iter().map(|log| &log.realm));
        if !vaults.iter().any(|(name, _)| *name == one.realm.value) {
            c.wrong(
                one.realm.referenced,
                "whose grants these are is read by `reach.vaults`: name the realm there, too",
            );
        }
        if one.stale_after.value.0 < 1_000 {
            c.wrong(one.stale_after.referenced, "`stale_after` is at least 1s");
        }
        let path = c.path(&one.audit_log);
        uses.push(Log { realm: one.realm.value.clone(), path, stale_ms: one.stale_after.value.0 });
    }
    let finds = raw.finds.as_ref().map(|raw| {
        let Spanned { value: raw, referenced: at, .. } = raw;
        if raw.sorts.is_empty() {
            c.wrong(
                *at,
                "`sorts` says what is a finding: crosses_zones, shared, unowned, dormant, beyond, outside, unused, long_lived",
            );
        }
        if raw.sorts.contains(&Sort::Offboarded) {
            c.wrong(*at, "`offboarded` is always looked for, and rests on who says that somebody leaves: leave it out");
        }
        if raw.dormant_after.value.0 < 86_400_000 {
            c.wrong(raw.dormant_after.referenced, "`dormant_after` is at least 1d");
        }
        if let Some(log) = uses.iter().find(|log| log.stale_ms > raw.unused_after.value.0) {
            let message = format!("`unused_after` is shorter than `stale_after` of {}", said(&log.realm));
            c.wrong(raw.unused_after.referenced, message);
        }
        if raw.sorts.contains(&Sort::Unused) && uses.is_empty() {
            c.wrong(*at, "`unused` is read from an audit log: write `reach.uses`");
        }
        if raw.sorts.contains(&Sort::LongLived) && vaults.is_empty() {
            c.wrong(*at, "`long_lived` is about AppRoles: write `reach.vaults`");
        }
        let sorts: BTreeSet<Sort> = raw.sorts.iter().copied().collect();
        Finds {
            sorts: sorts.into_iter().collect(),
            dormant_after_ms: raw.dormant_after.value.0,
            unused_after_ms: raw.unused_after.value.0,
            youngest_ms: raw.youngest.value.0,
            lives: raw.lives.checked(c, kept_ms),
            strongest: raw.strongest,
        }
    });
    Reach {
        uses,
        finds,
        every_ms: raw.every.value.0,
        declared: raw.declared.as_ref().map(|path| c.path(path)),
        vaults,
        databases,
        accounts,
    }
}

fn once<'a>(c: &mut Checks<'_>, name: &Spanned<String>, mut known: impl Iterator<Item = &'a String>) {
    if known.any(|known| *known == name.value) {
        c.wrong(name.referenced, format!("{} is read twice: write it once", said(&name.value)));
    }
}

fn target<'a>(c: &mut Checks<'_>, name: &Spanned<String>, targets: &'a [Target]) -> Option<&'a Target> {
    let found = targets.iter().find(|target| target.name == name.value);
    if found.is_none() {
        let message = format!("there is no target {}", said(&name.value));
        let problem = Problem::new(name.referenced, message);
        c.problems.push(problem.nearest(&name.value, targets.iter().map(|target| target.name.as_str())));
    }
    found
}

/// What Curfew itself knows is read so often at the most: it is at hand.
const OWN_EVERY_MS: i64 = 15_000;

impl Reach {
    /// What is looked for: what the configuration names, and always what belongs to somebody who leaves.
    pub fn looked_for(&self) -> Finds {
        let nothing = Finds {
            sorts: Vec::new(),
            dormant_after_ms: 0,
            unused_after_ms: 0,
            youngest_ms: 0,
            lives: Terms::default(),
            strongest: Action::Track,
        };
        let mut finds = self.finds.clone().unwrap_or(nothing);
        finds.sorts.push(Sort::Offboarded);
        finds
    }

    /// Of identities that are known for less nothing is called unused, or long-lived.
    pub fn youngest_ms(&self) -> i64 {
        self.finds.as_ref().map_or(YOUNG_MS, |finds| finds.youngest_ms)
    }

    /// The sources that are named, as they stand before they were ever read. `tenant`: whose a realm or account is.
    pub fn sources(&self, tenant: impl Fn(&str) -> Option<String>) -> Vec<Source> {
        let source = |name: String, of: Option<&str>| Source {
            tenant: of.and_then(&tenant).unwrap_or_else(|| "default".to_owned()),
            name,
            every_ms: self.every_ms,
            read_ms: 0,
            whole_ms: None,
            faults: Vec::new(),
        };
        let own = Source { every_ms: self.every_ms.min(OWN_EVERY_MS), ..source("journal".to_owned(), None) };
        let declared = self.declared.iter().map(|_| source("declared".to_owned(), None));
        let vaults = self.vaults.iter().map(|(realm, _)| source(format!("vault:{realm}"), Some(realm)));
        let databases = self.databases.iter().map(|(target, _)| source(format!("postgres:{target}"), None));
        let accounts = self.accounts.iter().map(|(target, _)| source(format!("aws:{target}"), Some(target)));
        std::iter::once(own).chain(declared).chain(vaults).chain(databases).chain(accounts).collect()
    }
}
