//! Role `reach`: who reaches what, read from Vaults, PostgreSQLs, accounts of AWS, the journal, and what people declared. One
//! process at a time for each source.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew::config::Config;
use curfew::config::reach::Finds;
use curfew::connector::postgres::PostgresSettings;
use curfew::connector::recipe::SECRETS_MANAGER;
use curfew::connector::vault;
use curfew::credential::CredentialId;
use curfew::event::Event;
use curfew::finding::{self, Finding};
use curfew::guard::Mode;
use curfew::journal::{self, CaseLine, Filter, Journal, TaskFilter};
use curfew::offboard::{self, Offboarding};
use curfew::reach::declared::{Declared, MAX_BYTES};
use curfew::reach::graph::Graph;
use curfew::reach::known::{self, Known};
use curfew::reach::lives::Terms;
use curfew::reach::long_lived::{self, Stands};
use curfew::reach::notice::{self, Again, Found, Sort};
use curfew::reach::{CHUNK, Node, NodeKind, Reading, Source, Standing, kept, postgres, vault as policies};
use curfew::scope::Permission;
use curfew::task::Tenant;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "aws")]
use crate::accounts;
use crate::enforce::{login, refused, vault_settings};
use crate::process::Process;
use crate::weights::{self, Weights};
use crate::{Failed, uses};

/// Before a reading that was a part is tried again.
const SOON: Duration = Duration::from_secs(30);
/// Findings that are read together.
const PAGE: u32 = 500;

/// The sources that the configuration names.
pub fn sources(config: &Config) -> Vec<Source> {
    let tenant = |realm: &str| config.tenant_of(realm).map(|tenant| tenant.to_string());
    config.reach.as_ref().map(|reach| reach.sources(tenant)).unwrap_or_default()
}

/// Reads each source from here on; `realms` (empty: all) are the Vaults and accounts whose logins this process has.
pub async fn start(process: &Process, realms: &[String]) -> Result<(), Failed> {
    let Some(reach) = &process.config.reach else { return Ok(()) };
    let chosen = |name: &String| realms.is_empty() || realms.contains(name);
    let pace = |per_second| NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    begin(process, "journal", Reads::Own);
    let every = Duration::from_millis(u64::try_from(reach.every_ms).unwrap_or(600_000));
    let weights = Weights::new(every);
    let finder = Arc::new(Finder { process: process.clone(), finds: reach.looked_for(), weights });
    process.lead_one("reach", "finds", move |cancel| {
        let finder = finder.clone();
        async move { finder.run(cancel).await }
    });
    if let Some(path) = &reach.declared {
        begin(process, "declared", Reads::Declared(path.clone()));
    }
    for (name, own) in reach.vaults.iter().filter(|(name, _)| chosen(name)) {
        let what = format!("reach of realm {name}");
        let Some(realm) = process.config.realms.iter().find(|realm| realm.rules.name == *name) else { continue };
        let settings = vault_settings(realm, login(own));
        let opened = vault::Vault::open(name, &settings, Mode::Observe, process.clock.clone()).await;
        let opened = opened.map_err(|error| refused(&what, &error))?;
        let reader = policies::Reader::new(name, opened, realm.rules.targets.clone(), pace(policies::PER_SECOND));
        begin(process, &format!("vault:{name}"), Reads::Vault(name.clone(), Box::new(reader)));
    }
    for (name, url_file) in &reach.databases {
        let timeout = process.config.targets.iter().find(|target| target.name == *name).map(|target| target.timeout_ms);
        let timeout_ms = timeout.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(10_000);
        let settings = PostgresSettings::by_file(url_file.clone(), timeout_ms);
        let reader = postgres::Reader::open(name, &settings).await;
        let reader = reader.map_err(|error| refused(&format!("reach of target {name}"), &error))?;
        begin(process, &format!("postgres:{name}"), Reads::Database(Box::new(reader)));
    }
    #[cfg(feature = "aws")]
    for (name, file) in reach.accounts.iter().filter(|(name, _)| chosen(name)) {
        let Some((target, aws)) = process.config.accounts().find(|(target, _)| target.name == *name) else { continue };
        let account = accounts::account(process, target, aws, file.as_ref()).await?;
        let reader = curfew::reach::aws::Reader::new(name, account, pace(curfew::reach::aws::PER_SECOND));
        begin(process, &format!("aws:{name}"), Reads::Account(name.clone(), Box::new(reader)));
    }
    crate::uses::start(process, reach, realms);
    Ok(())
}

/// The graph of what the journal holds.
pub fn kept(config: &Config, journal: &Arc<dyn Journal>) -> Arc<kept::Kept> {
    let youngest_ms = config.reach.as_ref().map_or(0, curfew::config::reach::Reach::youngest_ms);
    kept::Kept::with(journal.clone(), sources(config), youngest_ms, terms(config))
}

/// How the lives of tasks are measured.
pub fn terms(config: &Config) -> Terms {
    let tenant = |realm: &str| config.tenant_of(realm).cloned().unwrap_or_else(|| "default".into());
    let realms = config.realms.iter().map(|realm| (realm.rules.name.clone(), tenant(&realm.rules.name))).collect();
    let finds = config.reach.as_ref().and_then(|reach| reach.finds.as_ref());
    Terms { realms, ..finds.map(|finds| finds.lives.clone()).unwrap_or_default() }
}

/// Where facts come from.
enum Reads {
    /// The journal and the configuration.
    Own,
    /// A file.
    Declared(PathBuf),
    /// A Vault, by its realm.
    Vault(String, Box<policies::Reader>),
    /// A PostgreSQL.
    Database(Box<postgres::Reader>),
    /// An account of AWS, by its target.
    #[cfg(feature = "aws")]
    Account(String, Box<curfew::reach::aws::Reader>),
}

fn begin(process: &Process, name: &str, reads: Reads) {
    let Some(source) = sources(&process.config).into_iter().find(|source| source.name == name) else { return };
    let rounds = Arc::new(Rounds { process: process.clone(), source, reads });
    process.lead_one("reach", name, move |cancel| {
        let rounds = rounds.clone();
        async move { rounds.run(cancel).await }
    });
}

/// Reads one source again and again.
struct Rounds {
    process: Process,
    source: Source,
    reads: Reads,
}

impl Rounds {
    /// One term. The figure goes with it: who reads next says how old the reading is.
    async fn run(&self, cancel: CancellationToken) {
        self.rounds(cancel).await;
        self.process.intake.metrics.reach_left(&self.source.name);
    }

    async fn rounds(&self, cancel: CancellationToken) {
        let every = Duration::from_millis(u64::try_from(self.source.every_ms).unwrap_or(600_000));
        while !cancel.is_cancelled() {
            let pause = tokio::select! {
                whole = self.round() => if whole { every } else { every.min(SOON) },
                () = cancel.cancelled() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Whether all of it was read, and is durable.
    async fn round(&self) -> bool {
        let (name, journal) = (&self.source.name, &self.process.intake.journal);
        if matches!(self.reads, Reads::Own)
            && let Err(error) = self.forget_others().await
        {
            tracing::warn!(%error, "what is read no more of reach is not forgotten yet");
        }
        let reading = match self.read().await {
            Ok(reading) => reading,
            Err(error) => {
                tracing::warn!(source = name, %error, "reach waits for the journal");
                return false;
            }
        };
        let whole = reading.faults.is_empty();
        for fault in &reading.faults {
            tracing::warn!(source = name, fault, "reach is read in part");
        }
        let now_ms = self.process.clock.wall_ms();
        match kept::record(journal.reach(), self.source.clone(), reading, now_ms).await {
            Ok(changed) => {
                tracing::debug!(source = name, changed, whole, "reach was read");
                self.process.intake.metrics.reach_read(name, whole.then_some(now_ms));
                whole
            }
            Err(error) => {
                tracing::warn!(source = name, %error, "what was read of reach is not recorded; it is read again");
                false
            }
        }
    }

    /// What the configuration does not name any more says nothing, for ever: it would keep all answers from being whole.
    async fn forget_others(&self) -> Result<(), journal::Error> {
        let (named, journal) = (sources(&self.process.config), &self.process.intake.journal);
        let (known, _) = journal.reach().sources().await?;
        let is_named =
            |one: &Source| named.iter().any(|source| (&source.tenant, &source.name) == (&one.tenant, &one.name));
        for source in known.iter().filter(|source| !is_named(source)) {
            tracing::info!(source = source.name, "this source of reach is read no more, and forgotten");
            journal.reach().forget(&source.tenant, &source.name).await?;
        }
        let logs: Vec<String> =
            self.process.config.reach.iter().flat_map(|reach| &reach.uses).map(uses::source).collect();
        for watched in journal.reach().watched().await?.iter().filter(|one| !logs.contains(&one.source)) {
            tracing::info!(source = watched.source, "this log of use is read no more, and forgotten");
            journal.reach().forget(&watched.tenant, &watched.source).await?;
        }
        Ok(())
    }

    async fn read(&self) -> Result<Reading, journal::Error> {
        let journal = &self.process.intake.journal;
        Ok(match &self.reads {
            Reads::Own => own(&self.process.config, journal).await?,
            Reads::Declared(path) => declared(path).await,
            Reads::Vault(realm, reader) => {
                let places = places(journal, &self.source.name, realm).await?;
                let tokens = tokens(&self.process.config, journal, realm).await?;
                reader.read(&places, &tokens).await
            }
            Reads::Database(reader) => reader.read(self.process.clock.wall_ms()).await,
            #[cfg(feature = "aws")]
            Reads::Account(target, reader) => {
                let places = places(journal, &self.source.name, target).await?;
                let secret = |place: &String| Some(place.strip_prefix(SECRETS_MANAGER)?.strip_prefix('/')?.to_owned());
                reader.read(&places.iter().filter_map(secret).collect()).await
            }
        })
    }
}

/// Says what reach shows: how much each credential opens, and what is to be found in it.
struct Finder {
    process: Process,
    finds: Finds,
    weights: Weights,
}

impl Finder {
    async fn run(&self, cancel: CancellationToken) {
        let every = self.process.config.reach.as_ref().and_then(|reach| u64::try_from(reach.every_ms).ok());
        let pause = every.map_or(SOON, |ms| Duration::from_millis(ms).min(SOON));
        while !cancel.is_cancelled() {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "what reach shows waits for the journal");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn round(&self) -> Result<(), journal::Error> {
        let (process, now_ms) = (&self.process, self.process.clock.wall_ms());
        let sources = process.reach.sources(now_ms).await?;
        let part = sources.iter().find(|line| line.standing != Standing::Whole);
        if let Some(line) = part {
            tracing::debug!(source = line.source.name, "nothing is concluded of reach: this source is not whole");
        }
        if sources.iter().any(|line| line.standing == Standing::Unread) {
            return Ok(());
        }
        let (graph, is_one) = process.reach.graph().await?;
        let whole = is_one && part.is_none();
        self.weights.tell(process, &graph, whole).await?;
        if !whole {
            return Ok(());
        }
        self.mind(&graph, now_ms).await?;
        let (by, mut sorts) = (uses::silences(process, &self.finds, now_ms).await?, self.finds.sorts.clone());
        let is_mute = uses::is_mute(&by, &self.finds, now_ms);
        if is_mute {
            tracing::debug!("nothing is concluded of silence: an audit log is not read up to now");
            sorts.retain(|sort| !sort.is_silence());
        }
        let lives = by.lives.clone();
        let of = graph.clone();
        let made = tokio::task::spawn_blocking(move || notice::found_by(&of, &sorts, &by)).await;
        let Ok(mut found) = made else { return Ok(()) };
        let authorities = process.config.authorities();
        for all in found.values_mut() {
            // No tenant's word ends what is another's, and no topic's what it may not end, where another one says so as well.
            all.retain_mut(|found| {
                let (tenant, kind) = (self.tenant(&found.credential), found.credential.kind_name());
                let may = |topic: &str| authorities.get(topic).is_some_and(|one| one.ends(kind));
                found.leaves.as_mut().is_none_or(|leaves| leaves.keep(&tenant, may))
            });
            *all = self.known(std::mem::take(all)).await?;
        }
        let mut open = self.open().await?;
        if is_mute {
            notice::leave_silences(&mut open);
        }
        if let Some(all) = found.get_mut(&Sort::LongLived) {
            *all = self.unanswered(std::mem::take(all), &open).await?;
        }
        let said = notice::news(&found, &open);
        let tenant = |id: &CredentialId| self.tenant(id);
        let opened = said.new.iter().map(|found| Event::found(tenant(&found.credential), found, now_ms));
        let closed = said.over.iter().map(|finding| Event::found_no_more(finding, now_ms));
        let mut events: Vec<Event> = opened.chain(closed).collect();
        events.extend(self.again(&found, &open, &lives, now_ms).await?);
        if !events.is_empty() {
            let new = said.new.iter().map(|found| found.credential.clone()).collect();
            weights::tell_of(process, &graph, new).await?;
            tracing::info!(
                new = said.new.len(),
                over = said.over.len(),
                left = said.left,
                "reach shows something else"
            );
            process.intake.notice(events).await?;
        }
        Ok(())
    }

    /// Words on who leaves end when nothing is known any more that they could be about.
    async fn mind(&self, graph: &Graph, now_ms: i64) -> Result<(), journal::Error> {
        // A clock that stepped would have words end that nothing else remembers.
        if !self.process.intake.believes_clock() {
            return Ok(());
        }
        let journal = &self.process.intake.journal;
        let words = journal.offboardings(offboard::MOST).await?;
        let named = |word: &Offboarding| CredentialId::parse(&word.node.name).ok();
        let mut alive = BTreeSet::new();
        for word in words.iter().filter(|word| word.node.kind == NodeKind::Credential) {
            let known = journal.known(&word.tenant, named(word).into_iter().collect()).await?;
            if known.iter().any(|line| line.credential.dead_ms.is_none()) {
                alive.insert(word.node.clone());
            }
        }
        let is_known = |node: &Node| alive.contains(node) || offboard::is_known(graph, node);
        let minded = offboard::minded(&words, is_known, now_ms, self.process.config.retention.closed_ms);
        for some in minded.chunks(CHUNK) {
            let (ended, done) = (some.iter().filter(|(_, after)| after.is_none()).count(), some.to_vec());
            let changed = journal.mind_offboardings(done).await?;
            tracing::info!(changed, ended, "of who leaves something is known again, or nothing any more");
        }
        Ok(())
    }

    /// What was said before, and is said again: what is done about it takes too much, or is over and left something.
    async fn again(
        &self,
        found: &BTreeMap<Sort, Vec<Found>>,
        open: &[Finding],
        lives: &long_lived::Asked,
        now_ms: i64,
    ) -> Result<Vec<Event>, journal::Error> {
        let known: BTreeMap<&str, &Finding> = open.iter().map(|finding| (finding.key.as_str(), finding)).collect();
        let mut events = Vec::new();
        for one in found.get(&Sort::Offboarded).into_iter().flatten() {
            let Some(finding) = known.get(one.key().as_str()) else { continue };
            // Who says so, for how long, or who stays is another by now: what is done rests on that.
            if finding.leaves != one.leaves.as_ref().map(notice::Leaving::said) {
                events.push(Event::found(self.tenant(&one.credential), one, now_ms));
            }
        }
        let ended = [found.get(&Sort::Offboarded), found.get(&Sort::Dormant)];
        for one in ended.into_iter().flatten().flatten() {
            let Some(finding) = known.get(one.key().as_str()) else { continue };
            if notice::is_taken_over(finding, &self.cases(&one.credential).await?) {
                events.push(Event::found_no_more(finding, now_ms));
                events.push(Event::found(self.tenant(&one.credential), one, now_ms));
            }
        }
        for one in found.get(&Sort::Outside).into_iter().flatten().filter(|one| !one.moves.is_empty()) {
            let Some(finding) = known.get(one.key().as_str()) else { continue };
            let cases = self.cases(&one.credential).await?;
            let rests = cases.iter().filter(|line| line.case.directive.finding.as_ref() == Some(&finding.id()));
            let left = notice::unmoved(one, rests.map(|line| (&line.case, line.closed_ms.is_some())));
            if let Some((left, is_over)) = left {
                let said = Event::found(self.tenant(&one.credential), &left, now_ms);
                events.extend(is_over.then(|| Event::found_no_more(finding, now_ms)).into_iter().chain([said]));
            }
        }
        let both = [found.get(&Sort::Unused), found.get(&Sort::LongLived)];
        for one in both.into_iter().flatten().flatten() {
            let Some(finding) = known.get(one.key().as_str()) else { continue };
            let cases = self.cases(&one.credential).await?;
            if one.sort == Sort::LongLived && is_answered(&cases) {
                events.push(Event::found_no_more(finding, now_ms));
                continue;
            }
            let rests = |line: &&CaseLine| {
                line.case.directive.finding.as_ref() == Some(&finding.id()) && line.case.directive.cut.is_some()
            };
            let Some(line) = cases.iter().filter(rests).max_by_key(|line| line.case.opened_ms) else { continue };
            let (case, is_over) = (&line.case, line.closed_ms.is_some());
            let frozen = case.directive.cut.iter().flat_map(|cut| &cut.permissions);
            let spared = |one: &&Permission| case.state.cutting.spared.contains(one);
            let frozen: Vec<Permission> = frozen.filter(|one| is_over || !spared(one)).cloned().collect();
            let begun = case.state.begun || case.state.acted;
            let (again, excess) = if one.sort == Sort::LongLived {
                let stands = match is_over {
                    true if case.state.withdrawn => Stands::Withdrawn,
                    true => Stands::Over,
                    false if begun || case.state.withdrawn => Stands::Begun,
                    false => Stands::Waits,
                };
                long_lived::again(one, &frozen, stands, lives)
            } else {
                (notice::again(one, &frozen, is_over), one.excess.clone())
            };
            let said = Event::found(self.tenant(&one.credential), &Found { excess, ..one.clone() }, now_ms);
            match again {
                Again::Same => {}
                Again::Less if begun => {}
                Again::Less => events.push(said),
                Again::Anew => events.extend([Event::found_no_more(finding, now_ms), said]),
            }
        }
        Ok(events)
    }

    fn tenant(&self, id: &CredentialId) -> Tenant {
        weights::tenant(&self.process.config, id)
    }

    /// Those that were said before, and those of whose rotations no consumer has answered: who reads the value beside its tasks lives
    /// by it as well.
    async fn unanswered(&self, found: Vec<Found>, open: &[Finding]) -> Result<Vec<Found>, journal::Error> {
        let known: BTreeSet<&str> = open.iter().map(|finding| finding.key.as_str()).collect();
        let mut all = Vec::new();
        for one in found {
            let is_rotated = self.process.config.recipes.iter().any(|recipe| recipe.credential == one.credential);
            if known.contains(one.key().as_str()) || !is_rotated || !is_answered(&self.cases(&one.credential).await?) {
                all.push(one);
            }
        }
        Ok(all)
    }

    /// All cases of a credential.
    async fn cases(&self, credential: &CredentialId) -> Result<Vec<CaseLine>, journal::Error> {
        let filter = Filter { credential: Some(credential.clone()), closed: true, ..Filter::default() };
        self.process.intake.journal.cases(filter).await
    }

    /// Those that the journal knows: about others nothing could be done.
    async fn known(&self, found: Vec<Found>) -> Result<Vec<Found>, journal::Error> {
        let mut all = Vec::new();
        for some in found.chunks(CHUNK) {
            let mut ids: BTreeMap<Tenant, Vec<CredentialId>> = BTreeMap::new();
            for one in some {
                ids.entry(self.tenant(&one.credential)).or_default().push(one.credential.clone());
            }
            let mut known = BTreeSet::new();
            for (tenant, ids) in ids {
                let lines = self.process.intake.journal.known(&tenant, ids).await?;
                let alive = lines.into_iter().filter(|line| line.credential.dead_ms.is_none());
                known.extend(alive.map(|line| line.credential.id));
            }
            all.extend(some.iter().filter(|one| known.contains(&one.credential)).cloned());
        }
        Ok(all)
    }

    /// What was said and is not closed.
    async fn open(&self) -> Result<Vec<Finding>, journal::Error> {
        let (mut open, mut after) = (Vec::new(), (i64::MIN, String::new()));
        loop {
            let page = self.process.intake.journal.matched(finding::id(notice::TOPIC, ""), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(open) };
            after = (last.last_ms, last.id());
            open.extend(page);
        }
    }
}

/// Whether a consumer said that it reads the value.
fn is_answered(cases: &[CaseLine]) -> bool {
    cases.iter().any(|line| !line.case.state.turn.adopted.is_empty())
}

/// What Curfew knows by itself.
async fn own(config: &Config, journal: &Arc<dyn Journal>) -> Result<Reading, journal::Error> {
    let filter = TaskFilter { ended: false, unbound: false, source: None, identity: None, limit: known::MOST };
    let (tasks, standing) = (journal.tasks(filter).await?, journal.standing(known::MOST).await?);
    let realms: Vec<_> = config.realms.iter().map(|realm| realm.rules.clone()).collect();
    let targets: Vec<String> = config.targets.iter().map(|target| target.name.clone()).collect();
    let offboardings = journal.offboardings(offboard::MOST).await?;
    let known = Known {
        recipes: &config.recipes,
        realms: &realms,
        targets: &targets,
        tasks: &tasks,
        standing: &standing,
        offboardings: &offboardings,
    };
    Ok(known::facts(&known))
}

/// The live tokens of a realm that the journal knows.
async fn tokens(config: &Config, journal: &Arc<dyn Journal>, realm: &str) -> Result<Vec<CredentialId>, journal::Error> {
    let filter = TaskFilter { ended: false, unbound: false, source: None, identity: None, limit: known::MOST };
    let (tasks, standing) = (journal.tasks(filter).await?, journal.standing(known::MOST).await?);
    let known = Known {
        recipes: &config.recipes,
        realms: &[],
        targets: &[],
        tasks: &tasks,
        standing: &standing,
        offboardings: &[],
    };
    Ok(known::tokens(&known, realm).into_iter().cloned().collect())
}

/// Places of a store that other sources name, below its name. What only `own` says of them would keep itself alive.
async fn places(journal: &Arc<dyn Journal>, own: &str, store: &str) -> Result<BTreeSet<String>, journal::Error> {
    let (mut places, mut after) = (BTreeSet::new(), None);
    loop {
        let page = journal.reach().page(after.take(), CHUNK).await?;
        for (_, fact, _) in page.facts.iter().filter(|(source, ..)| **source != *own) {
            let nodes = std::iter::once(&fact.node).chain(fact.edges.iter().map(|edge| &edge.to));
            let named = nodes.filter(|node| node.kind == NodeKind::Path);
            places.extend(named.filter_map(|node| Some(node.name.strip_prefix(store)?.strip_prefix('/')?.to_owned())));
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(places),
        }
    }
}

/// What people say. A file with a mistake says nothing new.
async fn declared(path: &Path) -> Reading {
    let fault = |why: String| Reading { facts: Vec::new(), faults: vec![format!("{}: {why}", path.display())] };
    let read = async {
        let mut text = String::new();
        tokio::fs::File::open(path).await?.take(MAX_BYTES + 1).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    match read.await {
        Ok(text) if text.len() as u64 > MAX_BYTES => fault(format!("larger than {MAX_BYTES} bytes")),
        Ok(text) => match Declared::parse(&text) {
            Ok(declared) => declared.facts(),
            Err(wrong) => fault(wrong.to_string()),
        },
        Err(error) => fault(error.kind().to_string()),
    }
}
