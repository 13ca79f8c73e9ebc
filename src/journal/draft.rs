//! What a batch of arrivals comes to: each row that a store then writes, decided in memory. PURE, the same for every store.
//!
//! A store loads the [`View`]s of the batch's tenants, hands over each arrival in order, and writes what [`Draft`] holds
//! at the end, all in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::{ContextV7, Timestamp, Uuid};

use super::{Batch, Error, Fate, Recorded};
use crate::case::plan::Act;
use crate::case::record::{Record, Verdict};
use crate::case::state::{self, Illegal, State};
use crate::case::{Action, Case, CaseId, Directive};
use crate::credential::{CredentialId, Kind};
use crate::event::{Event, Reject, RejectReason};
use crate::finding::{Finding, Mark};
use crate::outcome::{self, Message};
use crate::policy::{self, Change, Decision, Meeting, View, Word};
use crate::scope::{self, Fence};
use crate::task::{Credential, Grant, Phase, RunKey, Task, Tenant};

/// Time-ordered ids.
#[derive(Debug, Default)]
pub(super) struct Ids(Mutex<ContextV7>);

impl Ids {
    /// A new id of this time.
    pub(super) fn at(&self, now_ms: i64) -> Uuid {
        let seconds = u64::try_from(now_ms.div_euclid(1000)).unwrap_or(0);
        let nanos = u32::try_from(now_ms.rem_euclid(1000) * 1_000_000).unwrap_or(0);
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Uuid::new_v7(Timestamp::from_unix(&*context, seconds, nanos))
    }
}

/// What an event was, when it was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Never.
    New,
    /// With this digest of its content.
    Seen([u8; 16]),
}

/// An accepted event with its one decision.
#[derive(Debug)]
pub(super) struct EventRow<'a> {
    pub(super) id: Uuid,
    pub(super) event: &'a Event,
    pub(super) decision: Decision,
    pub(super) open_cases: i64,
}

/// What a batch does to a case, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touch {
    /// An event joined it: whoever has it claimed goes on.
    Joined,
    /// A stronger directive took it over: it is due now, and a claim on it is void.
    Superseded,
    /// Opened.
    Opened,
}

/// A case as it is after the batch.
#[derive(Debug)]
pub(super) struct CaseRow {
    pub(super) case: Case,
    pub(super) touch: Touch,
}

/// One append of a batch to a case: always one record.
#[derive(Debug)]
pub(super) struct RecordRow {
    pub(super) tenant: Tenant,
    pub(super) case: CaseId,
    pub(super) seq: i64,
    pub(super) record: Record,
}

/// The rows of a batch.
pub(super) struct Draft<'a> {
    batch: &'a Batch,
    ids: &'a Ids,
    views: HashMap<Tenant, View>,
    /// Tasks that were live when they were loaded.
    live: HashSet<(Tenant, RunKey)>,
    fates: Vec<Fate>,
    stirred: u32,
    pub(super) events: Vec<EventRow<'a>>,
    pub(super) cases: HashMap<CaseId, CaseRow>,
    pub(super) records: Vec<RecordRow>,
    /// `(tenant, case, event)`.
    pub(super) links: Vec<(Tenant, CaseId, Uuid)>,
    pub(super) messages: Vec<Message>,
    pub(super) counts: BTreeMap<&'static str, i64>,
}

impl<'a> Draft<'a> {
    /// `views` hold everything that the batch's events may look at.
    pub(super) fn new(batch: &'a Batch, ids: &'a Ids, views: HashMap<Tenant, View>) -> Self {
        let running = |task: &&Task| task.phase != Phase::Ended;
        let live = views.iter().flat_map(|(tenant, view)| {
            view.tasks.values().filter(running).map(|task| (tenant.clone(), task.run.clone()))
        });
        Self {
            batch,
            ids,
            live: live.collect(),
            views,
            fates: Vec::with_capacity(batch.arrivals.len()),
            stirred: 0,
            events: Vec::new(),
            cases: HashMap::new(),
            records: Vec::new(),
            links: Vec::new(),
            messages: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, name: &'static str, by: i64) {
        *self.counts.entry(name).or_default() += by;
    }

    fn fate(&mut self, fate: Fate, counter: &'static str) {
        self.count("consumed", 1);
        self.count(counter, 1);
        self.fates.push(fate);
    }

    /// The next arrival is a reject.
    pub(super) fn reject(&mut self, reject: &Reject) {
        self.messages.push(outcome::rejected(reject));
        self.fate(Fate::Rejected(reject.reason), "rejected");
    }

    /// The next arrival is an event: duplicate, conflict, or decided.
    ///
    /// # Errors
    /// [`Error::Illegal`]: a bug.
    pub(super) fn take(&mut self, event: &'a Event, before: Before) -> Result<(), Error> {
        match before {
            Before::Seen(digest) if digest == event.digest => {
                self.fate(Fate::Duplicate, "duplicates");
                return Ok(());
            }
            Before::Seen(_) => {
                self.reject(&Reject {
                    at: event.at.clone(),
                    tenant: event.tenant.clone(),
                    reason: RejectReason::Conflict,
                    pointer: None,
                    size_bytes: 0,
                    broker_ms: event.broker_ms,
                });
                return Ok(());
            }
            Before::New => {}
        }
        let view = self.views.entry(event.tenant.clone()).or_default();
        let mut decision = policy::decide(event, view, &self.batch.rules);
        view.apply(&decision.changes);
        let id = self.ids.at(self.batch.now_ms);
        let mut linked = HashSet::new();
        for directive in std::mem::take(&mut decision.directives) {
            let case = self.direct(event, directive)?;
            if linked.insert(case) {
                self.links.push((event.tenant.clone(), case, id));
            }
        }
        for (credential, word) in std::mem::take(&mut decision.words) {
            if let Some(case) = self.tell(event, &credential, word)?
                && linked.insert(case)
            {
                self.links.push((event.tenant.clone(), case, id));
            }
        }
        let open_cases = i64::try_from(linked.len()).unwrap_or(i64::MAX);
        self.events.push(EventRow { id, event, decision, open_cases });
        self.count("closed", i64::from(open_cases == 0));
        self.fate(Fate::Accepted, "accepted");
        Ok(())
    }

    /// Opens a case for the directive, or lets it meet the open one.
    fn direct(&mut self, event: &Event, directive: Directive) -> Result<CaseId, Error> {
        let now_ms = self.batch.now_ms;
        let view = self.views.entry(event.tenant.clone()).or_default();
        let (case, record, touch) = match view.cases.get(&directive.credential) {
            None => {
                let known = view.credentials.get(&directive.credential);
                let case = Case {
                    id: self.ids.at(now_ms),
                    tenant: event.tenant.clone(),
                    system: directive.credential.instance().to_owned(),
                    lane: lane(&directive.credential),
                    principal: known.and_then(|c| c.principal.clone()),
                    seen_ms: known.and_then(|c| c.seen_ms),
                    opened_ms: now_ms,
                    traceparent: event.traceparent.clone(),
                    seq: 0,
                    blast: known.and_then(|c| c.blast),
                    charged: false,
                    state: State::opened(&directive),
                    directive: directive.clone(),
                };
                (case, Record::Opened { directive }, Touch::Opened)
            }
            Some(open) => {
                let mut case = (**open).clone();
                let (record, touch) = match policy::meet(&case, &directive) {
                    Meeting::Supersede => {
                        let known = view.credentials.get(&directive.credential).and_then(|known| known.blast);
                        case.blast = known.or(case.blast);
                        case.directive = directive.clone();
                        (Record::Superseded { by: directive }, Touch::Superseded)
                    }
                    Meeting::Join => (Record::Joined { directive }, Touch::Joined),
                };
                case.state = case.state.next(&record)?;
                case.seq += 1;
                (case, record, touch)
            }
        };
        self.stirred += u32::from(touch > Touch::Joined);
        let (id, tenant) = (case.id, case.tenant.clone());
        view.cases.insert(case.directive.credential.clone(), Arc::new(case.clone()));
        if touch == Touch::Opened {
            self.count("cases_opened", 1);
        }
        self.records.push(RecordRow { tenant, case: id, seq: case.seq, record });
        let before = self.cases.get(&id).map_or(touch, |row| row.touch);
        self.cases.insert(id, CaseRow { case, touch: touch.max(before) });
        Ok(id)
    }

    /// The open case of this credential hears something: it is due at once.
    fn tell(&mut self, event: &Event, credential: &CredentialId, word: Word) -> Result<Option<CaseId>, Error> {
        let view = self.views.entry(event.tenant.clone()).or_default();
        let Some(open) = view.cases.get(credential) else { return Ok(None) };
        let mut case = (**open).clone();
        let by = event.at.topic.to_string();
        let record = match word {
            Word::Withdrawn => Record::Withdrawn { by },
            Word::Spared(permissions) => Record::Spared { permissions, by },
            Word::Answered { consumer, version, failed } => Record::Answered { consumer, version, failed, by },
        };
        case.state = case.state.next(&record)?;
        case.seq += 1;
        view.cases.insert(credential.clone(), Arc::new(case.clone()));
        self.stirred += 1;
        let (id, tenant) = (case.id, case.tenant.clone());
        self.records.push(RecordRow { tenant, case: id, seq: case.seq, record });
        let before = self.cases.get(&id).map_or(Touch::Superseded, |row| row.touch);
        self.cases.insert(id, CaseRow { case, touch: Touch::Superseded.max(before) });
        Ok(Some(id))
    }

    /// What becomes known, each thing once, as it is after the batch. In the order of arrival: keys that grow with time
    /// are then put at the end of an index, and its pages are filled instead of split in halves.
    pub(super) fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for (tenant, view) in &mut self.views {
            let mut written = HashSet::<(Option<RunKey>, Option<CredentialId>)>::new();
            let mut findings = HashSet::<String>::new();
            for change in std::mem::take(&mut view.dirty).into_iter().rev() {
                let key = match &change {
                    Change::Task(t) => (Some(t.run.clone()), None),
                    Change::Grant(g) => (Some(g.run.clone()), Some(g.credential.clone())),
                    Change::Credential(c) => (None, Some(c.id.clone())),
                    Change::Finding(finding) => {
                        if findings.insert(finding.id()) {
                            changes.findings.push(finding.clone());
                        }
                        continue;
                    }
                    Change::Mark(mark) => {
                        changes.marks.push(mark.clone());
                        continue;
                    }
                    Change::Offboarded(_) | Change::Onboarded(..) => {
                        changes.leaving.push(change);
                        continue;
                    }
                };
                if !written.insert(key) {
                    continue;
                }
                match change {
                    Change::Task(task) => {
                        let before = i64::from(self.live.contains(&(tenant.clone(), task.run.clone())));
                        let by = i64::from(task.phase != Phase::Ended) - before;
                        *self.counts.entry("tasks_live").or_default() += by;
                        changes.tasks.push(task);
                    }
                    Change::Grant(grant) => changes.grants.push(grant),
                    Change::Credential(credential) => changes.credentials.push(credential),
                    Change::Finding(_) | Change::Mark(_) | Change::Offboarded(_) | Change::Onboarded(..) => {}
                }
            }
        }
        changes.tasks.reverse();
        changes.grants.reverse();
        changes.credentials.reverse();
        changes.findings.reverse();
        changes.marks.reverse();
        changes.leaving.reverse();
        changes
    }

    /// The answer to the batch's caller.
    pub(super) fn recorded(self) -> Recorded {
        Recorded { fates: self.fates, stirred: self.stirred }
    }
}

/// What a batch makes known.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) tasks: Vec<Task>,
    pub(super) grants: Vec<Grant>,
    pub(super) credentials: Vec<Credential>,
    pub(super) findings: Vec<Finding>,
    pub(super) marks: Vec<Mark>,
    /// Who leaves and who stays after all, in the order in which it was said.
    pub(super) leaving: Vec<Change>,
}

/// What is added where only Curfew's own findings are asked for: by their index.
pub(super) fn only_own(prefix: &str) -> &'static str {
    if prefix.starts_with("reach:") { " AND substr(key, 1, 6) = 'reach:'" } else { "" }
}

/// The lane of a credential: alone, but a role and its secret_ids share theirs, and so do a user of IAM and its access keys: both
/// write from where that role lets in, or the policies of that user.
pub(super) fn lane(id: &CredentialId) -> String {
    let (kind, name) = (id.kind(), id.id());
    match kind {
        Kind::VaultSecretId | Kind::AwsAccessKey => {
            if let Some((owner, _)) = name.rsplit_once('/') {
                return shared(id, owner);
            }
        }
        Kind::AwsUser | Kind::VaultApprole => return shared(id, &name),
        _ => {}
    }
    id.as_str().to_owned()
}

fn shared(id: &CredentialId, owner: &str) -> String {
    format!("{}:{owner}", id.instance())
}

/// The case with an append of these records.
///
/// # Errors
/// [`Illegal`]: one of them cannot follow, or there are none.
pub(super) fn appended(mut case: Case, records: &[Record]) -> Result<Case, Illegal> {
    if records.is_empty() {
        return Err(Illegal { state: case.state.name(), record: "none" });
    }
    for record in records {
        case.state = case.state.next(record)?;
        if let Record::Superseded { by } = record {
            case.directive = by.clone();
        }
    }
    case.seq += 1;
    Ok(case)
}

/// The fence that these records begin to set: known before the effect, so that nothing keeps it from ending. What an earlier
/// record of the same case showed is in it already.
pub(super) fn fence(case: &Case, records: &[Record]) -> Option<Fence> {
    let until_ms = case.directive.cut.as_ref()?.until_ms?;
    let plan = case.state.plan.as_ref()?;
    let begins = |record: &Record| match record {
        Record::Started { step, .. } => plan.steps.get(*step).is_some_and(|step| step.act == Act::Fence),
        _ => false,
    };
    let held = records.iter().any(begins).then(|| case.state.cutting.fenced())?;
    let identity = scope::identity_of(&case.directive.credential);
    let (tenant, case) = (case.tenant.to_string(), case.id);
    (!held.is_empty()).then_some(Fence { tenant, case, identity, until_ms, held })
}

/// The case whose fence is no more, with the end of this one; or this one's, which was refused before anything was written.
pub(super) fn lifted(case: &Case, records: &[Record]) -> Option<CaseId> {
    let plan = case.state.plan.as_ref();
    let is_refused = |record: &Record| match record {
        Record::Failed { step, .. } => {
            plan.and_then(|plan| plan.steps.get(*step)).is_some_and(|step| step.act == Act::Fence)
        }
        _ => false,
    };
    if !case.state.cutting.begun && case.state.cutting.taken.is_empty() && records.iter().any(is_refused) {
        return Some(case.id);
    }
    let is_back = |verdict: &Verdict| matches!(verdict, Verdict::RolledBack { .. } | Verdict::NotFound);
    match &case.state.phase {
        state::Phase::Closed { verdict } if case.directive.action == Action::Restore && is_back(verdict) => {
            case.directive.cut.as_ref()?.case
        }
        _ => None,
    }
}

/// SHA-256 in hex: what the outbox is chained by.
pub(super) fn hash(body: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_the_same_shares_a_lane() {
        let lane_of = |kind, id| lane(&CredentialId::new(kind, "aws", id).unwrap());
        let key = lane_of(Kind::AwsAccessKey, "ci/bot/AKIAIOSFODNN7EXAMPLE");
        assert_eq!(key, lane_of(Kind::AwsAccessKey, "ci/bot/AKIAI44QH8DHBEXAMPLE"));
        assert_eq!(key, lane_of(Kind::AwsUser, "ci/bot"));
        assert_ne!(key, lane_of(Kind::AwsUser, "ci/bob"));
        assert_eq!(lane_of(Kind::VaultSecretId, "approle/ci/a"), lane_of(Kind::VaultApprole, "approle/ci"));
    }
}
