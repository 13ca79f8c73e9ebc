//! Findings, and what the inventory says: how they meet.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{Blade, Draft, union};
use crate::case::{Action, HoldReason, Trigger, Urgency};
use crate::credential::{CredentialId, Kind};
use crate::event::{CredentialRegistered, Data, FindingClosed, FindingObserved, Location, Type};
use crate::finding::{self, Finding, MOST_FINGERPRINTS, MOST_MATCHES, Mark, Phase, Validity};
use crate::policy::rules::Response;
use crate::policy::{Decision, Reason, Verb, Word};
use crate::reach::notice::{Sort, TOPIC};
use crate::scope::{Cut, Move, Permission};
use crate::task::{Credential, GrantPhase};

/// Until when what was asked for before is put off.
struct Before(Option<i64>);

impl Draft<'_> {
    /// A scan's word. The same finding again only updates what is known of it, unless it has become worse.
    pub(super) fn finding(mut self, it: &FindingObserved) -> Decision {
        let id = finding::id(&self.event.at.topic, &it.finding_key);
        let before = self.view.findings.get(&id).cloned();
        let mut finding = self.told(it, before.as_ref());
        if it.honeytoken || before.as_ref().is_some_and(|before| before.phase == Phase::Ignored) {
            finding.phase = Phase::Ignored;
            self.findings.push(finding);
            return self.say(Verb::Ignore, Reason::Honeytoken);
        }
        // Closed is closed, unless who closed it says otherwise.
        if finding.phase == Phase::Closed && !it.reopened {
            self.findings.push(finding);
            return self.say(Verb::Track, Reason::FindingClosed);
        }
        let matches = self.matches(&finding, it.credential.as_ref());
        if matches.is_empty() {
            finding.phase = Phase::Unmatched;
            self.findings.push(finding);
            return self.say(Verb::Track, Reason::FindingUnmatched);
        }
        let news = match &before {
            Some(before) if before.phase == Phase::Matched => {
                finding.validity > before.validity
                    || (finding.public && !before.public)
                    || matches.keys().any(|id| !before.credentials.contains(id))
                    // Another word, another fence, or somebody who stays: what is done rests on that.
                    || finding.leaves != before.leaves
                    || matches.keys().any(|id| self.moves_more(&finding, id))
                    // Somebody logged in with it just now, and nothing is being done: what was called dead may live.
                    || (Validity::of(&it.validity) == Validity::Active
                        && matches.keys().any(|id| self.view.cases.get(id).is_none_or(|case| {
                            case.directive.action.rescopes() || case.directive.not_before_ms.is_some()
                        })))
            }
            _ => true,
        };
        if !news {
            self.spare(&finding, matches.keys());
            self.findings.push(finding);
            return self.say(Verb::Track, Reason::FindingKnown);
        }
        self.act_on(finding, matches)
    }

    /// What is known of a finding after this scan.
    fn told(&self, it: &FindingObserved, before: Option<&Finding>) -> Finding {
        let event = self.event;
        let mut finding = before.cloned().unwrap_or_else(|| Finding {
            tenant: event.tenant.clone(),
            topic: event.at.topic.to_string(),
            key: it.finding_key.clone(),
            detector: it.detector.clone(),
            phase: Phase::Unmatched,
            validity: Validity::Unknown,
            public: false,
            severity: None,
            fingerprints: Vec::new(),
            credentials: Vec::new(),
            owner_hint: None,
            place: None,
            leaves: None,
            first_ms: event.broker_ms,
            last_ms: event.broker_ms,
        });
        // A check that said nothing takes back none that did.
        let validity = Validity::of(&it.validity);
        if validity != Validity::Unknown {
            finding.validity = validity;
        }
        finding.public |= it.public;
        finding.leaves.clone_from(&it.leaves);
        finding.severity = it.severity.clone().or(finding.severity);
        finding.owner_hint = it.owner_hint.clone().or(finding.owner_hint);
        finding.place = it.location.as_ref().and_then(short).or(finding.place);
        finding.first_ms = finding.first_ms.min(event.broker_ms);
        finding.last_ms = finding.last_ms.max(event.broker_ms);
        for mark in it.marks() {
            if finding.fingerprints.len() < MOST_FINGERPRINTS && !finding.fingerprints.contains(&mark) {
                finding.fingerprints.push(mark);
            }
        }
        finding
    }

    /// The credentials that a finding is positively about, with the newest version that it saw.
    fn matches(&self, finding: &Finding, named: Option<&CredentialId>) -> BTreeMap<CredentialId, Option<i64>> {
        let mut found: BTreeMap<CredentialId, Option<i64>> = BTreeMap::new();
        if let Some(id) = named.filter(|id| self.credential(id).is_some()) {
            found.insert(id.clone(), None);
        }
        let drafted = |mark: &&Mark| finding.fingerprints.contains(&mark.fingerprint);
        let known = finding.fingerprints.iter().filter_map(|fingerprint| self.view.marks.get(fingerprint)).flatten();
        let all: Vec<&Mark> = known.chain(self.marks.iter().filter(drafted)).collect();
        for mark in all.iter().filter(|mark| !self.is_another_s(mark, &all)) {
            let version = found.entry(mark.credential.clone()).or_default();
            *version = (*version).max(Some(mark.version).filter(|version| *version > 0));
        }
        // Always the same ones: else each scan would find others, and call them news.
        found.into_iter().take(MOST_MATCHES).collect()
    }

    /// A key that a rotation stores is the rotation's: by itself it would only be disabled. One that the rotation has
    /// replaced is disabled by itself, if it still lets in.
    fn is_another_s(&self, mark: &Mark, all: &[&Mark]) -> bool {
        let is_replaced = |user: &Mark| {
            let now = self.credential(&user.credential).and_then(|known| known.version);
            now.is_some_and(|now| user.version < now) && !self.view.cases.contains_key(&user.credential)
        };
        let mut same = all.iter().filter(|other| {
            other.fingerprint == mark.fingerprint && other.credential.instance() == mark.credential.instance()
        });
        match mark.credential.kind() {
            Kind::AwsAccessKey => same.any(|other| other.credential.kind() == Kind::AwsUser && !is_replaced(other)),
            Kind::AwsUser => is_replaced(mark) && same.any(|other| other.credential.kind() == Kind::AwsAccessKey),
            _ => false,
        }
    }

    pub(super) fn credential(&self, id: &CredentialId) -> Option<&Credential> {
        self.credentials.get(id).or_else(|| self.view.credentials.get(id))
    }

    /// What the rules say, for each credential that the finding is about.
    fn act_on(mut self, finding: Finding, matches: BTreeMap<CredentialId, Option<i64>>) -> Decision {
        let (verb, reason) = self.respond(finding, matches);
        self.say(verb, reason)
    }

    /// As [`Self::act_on`], for one of several findings; returns what is to be said.
    fn respond(&mut self, mut finding: Finding, matches: BTreeMap<CredentialId, Option<i64>>) -> (Verb, Reason) {
        let mut said = (Verb::Ignore, Reason::FindingIgnored);
        finding.phase = Phase::Matched;
        for (id, version) in matches {
            let known = self.credential(&id);
            let is_older = |known: &Credential| matches!((version, known.version), (Some(v), Some(now)) if v < now);
            // While a case is open the value before the newest may live: of two users in turn it does.
            let settled = !self.view.cases.contains_key(&id);
            let is_dead = settled && known.is_some_and(|known| known.dead_ms.is_some() || is_older(known));
            let (response, rule) = self.rules.response(&finding, known, self.event.broker_ms);
            let response = if is_dead && response > Response::Hold { Response::Verify } else { response };
            let leaves = self.leaving().map(|leaves| leaves.shared);
            // Somebody works with it who stays: a person sees to that first.
            let response = if leaves == Some(true) && response > Response::Hold { Response::Hold } else { response };
            self.facts.insert("rule".into(), rule.into());
            self.facts.insert("finding".into(), json!({"validity": finding.validity, "public": finding.public}));
            let rotates = id.kind().rotates();
            let outside = finding.topic == TOPIC && finding.detector == Sort::Outside.detector();
            let (action, held, urgency, this) = match response {
                Response::Ignore => continue,
                Response::Verify => (Action::Verify, None, Urgency::Background, (Verb::Verify, Reason::FindingMatched)),
                Response::Reduce if self.excess().is_some() => {
                    (Action::Reduce, None, Urgency::Routine, (Verb::Reduce, Reason::FindingMatched))
                }
                Response::Contain if rotates => {
                    (Action::Contain, None, Urgency::Urgent, (Verb::Contain, Reason::FindingMatched))
                }
                // What nothing can replace, or is minted anew for each task, dies.
                Response::Contain => (Action::Revoke, None, Urgency::Urgent, (Verb::Revoke, Reason::FindingMatched)),
                Response::Retire => {
                    let urgency = if leaves.is_some() { Urgency::Urgent } else { Urgency::Routine };
                    (Action::Revoke, None, urgency, (Verb::Revoke, Reason::FindingMatched))
                }
                Response::Rollover if rotates => {
                    (Action::Rollover, None, Urgency::Routine, (Verb::Rollover, Reason::FindingMatched))
                }
                // What is too much for one agent is no reason to move the others: it is known who it is, or a person decides.
                Response::Split if id.kind() == Kind::PostgresRole && (!outside || !self.moves().is_empty()) => {
                    (Action::Split, None, Urgency::Routine, (Verb::Split, Reason::FindingMatched))
                }
                // For hygiene alone nothing is taken from a task that runs.
                Response::Rollover | Response::Split | Response::Reduce | Response::Hold => {
                    let held = Some(HoldReason::Finding);
                    (Action::Track, held, Urgency::Routine, (Verb::Hold, Reason::FindingHeld))
                }
            };
            let this = if is_dead && response == Response::Verify { (this.0, Reason::FindingOfDead) } else { this };
            let before = self.ask(&id, &finding, (action, held, urgency), version);
            self.give_notice(&id, action, rule, before);
            self.fence_first(&id);
            said = if this.0 > said.0 { this } else { said };
            if !finding.credentials.contains(&id) {
                finding.credentials.push(id);
            }
        }
        self.findings.push(finding);
        said
    }

    /// What the finding says is too much.
    fn excess(&self) -> Option<&[Permission]> {
        match &self.event.data {
            Data::FindingObserved(it) if !it.excess.is_empty() => Some(&it.excess),
            _ => None,
        }
    }

    /// The agents that can do with less.
    fn moves(&self) -> &[Move] {
        match &self.event.data {
            Data::FindingObserved(it) => &it.moves,
            _ => &[],
        }
    }

    /// Whether it names agents whom the case that nobody has begun does not move.
    fn moves_more(&self, finding: &Finding, id: &CredentialId) -> bool {
        self.view.cases.get(id).is_some_and(|case| {
            let open = case.directive.moves().unwrap_or_default();
            let is_its = !open.is_empty() && case.directive.finding.as_ref() == Some(&finding.id());
            let is_new = |one: &Move| open.iter().all(|known| known.agent != one.agent);
            let (moves, topics) = self.moved_by(id);
            is_its && !case.state.acted && case.directive.grantors == topics && moves.iter().any(is_new)
        })
    }

    /// Whom the finding moves, and on whose word: of the topics that registered what each of them holds. Reach's own says nothing of
    /// what a task is for. One of whom other topics told is said again when this is over.
    fn moved_by(&self, id: &CredentialId) -> (Vec<Move>, Vec<String>) {
        let mut moves: Vec<Move> = Vec::new();
        let mut all = BTreeSet::new();
        for one in self.moves() {
            let own = self.granted_by(id, &one.agent);
            let both = if moves.is_empty() { own.clone() } else { &all & &own };
            if moves.is_empty() || !both.is_empty() || (all.is_empty() && own.is_empty()) {
                moves.push(one.clone());
                all = both;
            }
        }
        (moves, all.into_iter().collect())
    }

    /// The topics that registered what tasks of an agent hold of a credential.
    fn granted_by(&self, id: &CredentialId, agent: &str) -> BTreeSet<String> {
        let runs = self.holders_of(id).into_iter();
        let its = runs.filter(|run| self.task(run).is_some_and(|task| task.identity.as_deref() == Some(agent)));
        let held = its.filter_map(|run| self.grant(&run, id)).filter(|grant| grant.phase == GrantPhase::Held);
        held.flat_map(|grant| grant.topics.iter().cloned()).collect()
    }

    /// The finding names less than it did when it was frozen: what was used since is not taken, as long as nobody has begun.
    fn spare<'a>(&mut self, finding: &Finding, credentials: impl Iterator<Item = &'a CredentialId>) {
        let Some(excess) = self.excess() else { return };
        let mut words = Vec::new();
        for id in credentials {
            let Some(case) = self.view.cases.get(id) else { continue };
            let (directive, state) = (&case.directive, &case.state);
            let is_its = directive.action == Action::Reduce && directive.finding.as_ref() == Some(&finding.id());
            if !is_its || state.acted || state.begun || state.is_closed() || state.withdrawn {
                continue;
            }
            let frozen = directive.cut.iter().flat_map(|cut| &cut.permissions);
            let frozen: Vec<&Permission> = frozen.filter(|one| !state.cutting.spared.contains(one)).collect();
            let spared: Vec<Permission> =
                frozen.iter().filter(|one| !excess.contains(one)).map(|one| (*one).clone()).collect();
            if spared.len() == frozen.len() {
                words.push((id.clone(), Word::Withdrawn));
            } else if !spared.is_empty() {
                words.push((id.clone(), Word::Spared(spared)));
            }
        }
        self.words.extend(words);
    }

    /// From when on it is done, and what a reduction takes: frozen, whatever is granted later.
    fn give_notice(&mut self, id: &CredentialId, action: Action, rule: usize, before: Option<Before>) {
        let notice_ms = self.rules.notice_ms(rule);
        let mut not_before_ms = (notice_ms > 0).then(|| self.event.broker_ms.saturating_add(notice_ms));
        // What asks for the same and is not put off so long counts.
        if let Some(Before(before_ms)) = before {
            not_before_ms = not_before_ms.zip(before_ms).map(|(one, other)| one.min(other));
        }
        let permissions = self.excess().unwrap_or_default().to_vec();
        let (moves, topics) = self.moved_by(id);
        let moves_some = action == Action::Split && !topics.is_empty();
        let cut = match action {
            Action::Reduce => Some(Cut::of(permissions)),
            Action::Split => self.moving(id, moves.into_iter(), |open| open.directive.grantors == topics),
            _ => None,
        };
        let asked = self.directives.iter_mut().find(|one| one.credential == *id && one.action == action);
        if let Some(directive) = asked {
            directive.not_before_ms = not_before_ms;
            directive.cut = cut.map(Box::new);
            if moves_some {
                directive.grantors = topics;
            }
        }
    }

    /// Asks it of the credential. Where several findings are matched at once, the strongest counts; of two alike the more urgent.
    /// Until when the one before was put off, where it asked for as much.
    fn ask(
        &mut self,
        id: &CredentialId,
        finding: &Finding,
        (action, held, urgency): (Action, Option<HoldReason>, Urgency),
        version: Option<i64>,
    ) -> Option<Before> {
        // Matched by what the inventory learned: still no more than the word of those who observed it.
        let late = self.event.kind != Type::FindingObserved;
        let topics = if late { vec![finding.topic.clone()] } else { Vec::new() };
        let strength = |action, held: Option<HoldReason>| (action, held.is_none());
        let asked = self.directives.iter().position(|directive| directive.credential == *id);
        let asked = asked.map(|at| self.directives.remove(at));
        let (same, before, urgency) = match asked {
            Some(asked) if strength(asked.action, asked.held) > strength(action, held) => {
                self.directives.push(asked);
                return None;
            }
            Some(asked) if strength(asked.action, asked.held) == strength(action, held) => {
                (asked.grantors, Some(Before(asked.not_before_ms)), urgency.max(asked.urgency))
            }
            _ => (Vec::new(), None, urgency),
        };
        let blade = Blade { trigger: Trigger::Finding, urgency, end_ms: None };
        self.direct(id, None, blade, action, held);
        if let Some(directive) = self.directives.iter_mut().find(|directive| directive.credential == *id) {
            directive.finding = Some(finding.id());
            directive.generation = version;
            directive.grantors = union(&same, &topics);
        }
        before
    }

    /// The inventory's word: the credential exists, and its value has these fingerprints. What waited for them is matched.
    pub(super) fn inventoried(mut self, it: &CredentialRegistered) -> Decision {
        self.know(&it.credential, None, None);
        if let Some(known) = self.credentials.get_mut(&it.credential) {
            if it.current && it.version >= known.version {
                // No time that lies ahead: it would never be old.
                let issued_ms = it.issued_ms.map(|ms| ms.min(self.event.broker_ms));
                known.issued_ms = issued_ms.or(known.issued_ms.filter(|_| it.version == known.version));
                known.version = it.version;
            }
            known.environment = it.environment.clone().or(known.environment.take());
            known.owner = it.owner.clone().or(known.owner.take());
        }
        let mut waiting: BTreeMap<String, ()> = BTreeMap::new();
        for fingerprint in it.marks() {
            waiting.extend(self.view.waiting.get(&fingerprint).into_iter().flatten().map(|key| (key.clone(), ())));
            let mark = Mark {
                tenant: self.event.tenant.clone(),
                fingerprint,
                credential: it.credential.clone(),
                version: it.version.unwrap_or(0).max(0),
            };
            let known = self.view.marks.get(&mark.fingerprint).is_some_and(|marks| marks.contains(&mark));
            if !known {
                self.marks.push(mark);
            }
        }
        let mut said = (Verb::Track, Reason::Noted);
        for key in waiting.into_keys() {
            let Some(finding) = self.view.findings.get(&key).filter(|f| f.phase == Phase::Unmatched).cloned() else {
                continue;
            };
            let matches = self.matches(&finding, None);
            let this = self.respond(finding, matches);
            said = if this.0 > said.0 { this } else { said };
        }
        self.say(said.0, said.1)
    }

    /// Closes a finding, and takes back what it asked for and nobody has begun. A containment is never taken back: the
    /// value leaked, whatever the list says.
    pub(super) fn finding_closed(mut self, it: &FindingClosed) -> Decision {
        // Who did not open it may not close it.
        let id = finding::id(&self.event.at.topic, &it.finding_key);
        let Some(mut finding) = self.view.findings.get(&id).cloned() else {
            return self.say(Verb::Ignore, Reason::FindingForeign);
        };
        for credential in &finding.credentials {
            let withdraws = self.view.cases.get(credential).is_some_and(|case| {
                case.directive.finding.as_ref() == Some(&id)
                    // What waits out its notice waits for just such a word.
                    && (case.directive.action < Action::Contain
                        || case.directive.not_before_ms.is_some()
                        // Nothing leaked: who stays after all keeps what was not begun.
                        || (finding.topic == TOPIC && finding.detector == Sort::Offboarded.detector()))
                    && (case.state.joined.is_empty() || case.directive.not_before_ms.is_some())
                    && (!case.state.acted || case.state.is_undone())
                    && !case.state.is_closed()
            });
            if withdraws {
                self.words.push((credential.clone(), Word::Withdrawn));
            }
        }
        finding.phase = Phase::Closed;
        self.findings.push(finding);
        self.say(Verb::Track, Reason::FindingClosed)
    }
}

/// Where it is, in one line for people.
fn short(location: &Location) -> Option<String> {
    let parts = [&location.repo, &location.path].into_iter().flatten();
    let text = parts.map(String::as_str).collect::<Vec<_>>().join(" ");
    let text = text.get(..text.floor_char_boundary(512)).unwrap_or_default();
    (!text.is_empty()).then(|| match location.line.filter(|line| *line > 0) {
        Some(line) => format!("{text}:{line}"),
        None => text.to_owned(),
    })
}
