//! One batch of arrivals: offsets, events, decisions, cases and rejects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::params;

use super::Error;
use super::rows::{self, CREDENTIAL, GRANT, TASK, all, exec, one};
use super::writer::Writer;
use crate::case::record::{Observation, Record};
use crate::case::state::State;
use crate::case::{Case, CaseId, Directive};
use crate::credential::{CredentialId, Kind};
use crate::event::{Event, Reject, RejectReason};
use crate::journal::{Arrival, Batch, Fate, Recorded};
use crate::outcome;
use crate::policy::{self, Change, Meeting, View};
use crate::task::{Phase, RunKey, Tenant};

/// Holders of one credential that a decision sees, those that hold it first.
const HOLDERS: i64 = 256;

/// What a tenant's part of the batch sees.
#[derive(Default)]
struct Loaded {
    view: View,
    runs: HashSet<RunKey>,
    held: HashSet<RunKey>,
    credentials: HashSet<CredentialId>,
    /// Tasks that were live when they were loaded.
    live: HashSet<RunKey>,
}

/// A case whose row is written at the end of the batch.
struct Pending {
    case: Case,
    new: bool,
}

#[derive(Default)]
struct Run {
    views: HashMap<Tenant, Loaded>,
    cases: HashMap<CaseId, Pending>,
    stirred: u32,
    /// What voided claims knew of their credentials.
    learned: Vec<(Case, Observation)>,
}

/// See [`crate::journal::Journal::record_batch`].
pub(super) fn record(w: &mut Writer, batch: &Batch) -> Result<Recorded, Error> {
    for step in &batch.moves {
        let p = &step.to;
        let stands = rows::position(&w.db, &p.cluster, &p.topic, p.partition)?.map(|p| p.next_offset);
        if stands != step.from {
            return Err(Error::PositionMoved { topic: p.topic.to_string(), partition: p.partition });
        }
    }
    let mut run = Run::default();
    for arrival in &batch.arrivals {
        if let Arrival::Event(event) = arrival {
            run.load(w, event)?;
        }
    }
    // From here on rows are written: whatever fails takes the transaction with it.
    write(w, batch, run).map_err(|e| match e {
        Error::Illegal(bug) => Error::Unavailable(Box::new(bug)),
        e => e,
    })
}

fn write(w: &mut Writer, batch: &Batch, mut run: Run) -> Result<Recorded, Error> {
    w.allow_missed(batch.rules.heartbeats_missed)?;
    let rules = batch.rules.digest();
    let mut fates = Vec::with_capacity(batch.arrivals.len());
    for arrival in &batch.arrivals {
        w.count("consumed", 1);
        let fate = match arrival {
            Arrival::Reject(reject) => refuse(w, reject, batch.now_ms)?,
            Arrival::Event(event) => run.take(w, batch, &rules, event)?,
        };
        fates.push(fate);
    }
    let stirred = run.stirred;
    run.flush(w, batch)?;
    for step in &batch.moves {
        rows::put_position(&w.db, &step.to)?;
    }
    Ok(Recorded { fates, stirred })
}

fn refuse(w: &mut Writer, reject: &Reject, now_ms: i64) -> Result<Fate, Error> {
    w.count("rejected", 1);
    w.send(&outcome::rejected(reject), now_ms)?;
    Ok(Fate::Rejected(reject.reason))
}

impl Run {
    /// Everything that a decision on `event` may look at.
    fn load(&mut self, w: &Writer, event: &Event) -> Result<(), Error> {
        let loaded = self.views.entry(event.tenant.clone()).or_default();
        let (run, mut credentials) = policy::keys(event);
        // What comes late for a run that went on under another key is handed to that one.
        let mut runs: Vec<RunKey> = run.into_iter().chain(policy::also_run(event)).collect();
        for named in runs.clone() {
            loaded.task(w, &event.tenant, &named)?;
            let outcome = loaded.view.tasks.get(&named).and_then(|task| task.outcome.as_deref());
            runs.extend(outcome.and_then(|o| o.strip_prefix("continued_as ")).map(|next| RunKey(next.into())));
        }
        for run in runs {
            loaded.task(w, &event.tenant, &run)?;
            if loaded.held.insert(run.clone()) {
                let sql = format!("SELECT {GRANT} FROM grants WHERE tenant=? AND run=?");
                for grant in all(&w.db, &sql, params![event.tenant, run.as_str()], rows::grant)? {
                    credentials.push(grant.credential.clone());
                    loaded.view.put_grant(grant);
                }
            }
        }
        for id in credentials {
            loaded.credential(w, &event.tenant, id)?;
        }
        Ok(())
    }

    /// One event: duplicate, conflict, or decided.
    fn take(&mut self, w: &mut Writer, batch: &Batch, rules: &str, event: &Event) -> Result<Fate, Error> {
        let hash = event.natural_key();
        let sql = "INSERT INTO seen (hash, digest, at_ms) VALUES (?,?,?) ON CONFLICT DO NOTHING";
        if exec(&w.db, sql, params![hash, event.digest, batch.now_ms])? == 0 {
            let before: Option<[u8; 16]> =
                one(&w.db, "SELECT digest FROM seen WHERE hash=?", params![hash], |row| row.get(0))?;
            if before == Some(event.digest) {
                w.count("duplicates", 1);
                return Ok(Fate::Duplicate);
            }
            let reject = Reject {
                at: event.at.clone(),
                tenant: event.tenant.clone(),
                reason: RejectReason::Conflict,
                pointer: None,
                size_bytes: 0,
                broker_ms: event.broker_ms,
            };
            return refuse(w, &reject, batch.now_ms);
        }
        let loaded = self.views.entry(event.tenant.clone()).or_default();
        let decision = policy::decide(event, &loaded.view, &batch.rules);
        loaded.view.apply(&decision.changes);
        let id = w.id(batch.now_ms);
        let mut open_cases = 0;
        for directive in decision.directives {
            let case = self.direct(w, batch, event, directive)?;
            let sql = "INSERT INTO links (tenant, case_id, event_id) VALUES (?,?,?) ON CONFLICT DO NOTHING";
            open_cases += exec(&w.db, sql, params![event.tenant, case.as_bytes(), id.as_bytes()])?;
        }
        let facts = rows::text("events", &decision.facts)?;
        exec(
            &w.db,
            "INSERT INTO events (tenant, id, source, event_id, kind, topic, partition, offset, broker_ms, at_ms, verb, \
             reason, facts, rules, open_cases, traceparent) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            params![
                event.tenant,
                id.as_bytes(),
                event.source,
                event.id,
                event.kind.as_str(),
                event.at.topic,
                event.at.partition,
                event.at.offset,
                event.broker_ms,
                batch.now_ms,
                decision.verb.as_str(),
                super::read::name(&decision.reason)?,
                facts,
                rules,
                i64::try_from(open_cases).unwrap_or(i64::MAX),
                event.traceparent,
            ],
        )?;
        w.count("accepted", 1);
        w.count("closed", i64::from(open_cases == 0));
        Ok(Fate::Accepted)
    }

    /// Opens a case for the directive, or lets it meet the open one.
    fn direct(&mut self, w: &mut Writer, batch: &Batch, event: &Event, d: Directive) -> Result<CaseId, Error> {
        let loaded = self.views.entry(event.tenant.clone()).or_default();
        let Some(open) = loaded.view.cases.get(&d.credential).cloned() else {
            let known = loaded.view.credentials.get(&d.credential);
            let case = Case {
                id: w.id(batch.now_ms),
                tenant: event.tenant.clone(),
                system: d.credential.instance().to_owned(),
                lane: lane(&d.credential),
                principal: known.and_then(|c| c.principal.clone()),
                seen_ms: known.and_then(|c| c.seen_ms),
                opened_ms: batch.now_ms,
                traceparent: event.traceparent.clone(),
                seq: 0,
                charged: false,
                state: State::opened(&d),
                directive: d.clone(),
            };
            let record = Record::Opened { directive: d.clone() };
            rows::put_records(&w.db, (&case.tenant, case.id), 0, batch.now_ms, &[record])?;
            w.count("cases_opened", 1);
            w.mem.systems.insert(case.system.clone());
            self.stirred += 1;
            let id = case.id;
            loaded.view.cases.insert(d.credential, Arc::new(case.clone()));
            self.cases.insert(id, Pending { case, new: true });
            return Ok(id);
        };
        let mut case = (*open).clone();
        let supersede = policy::meet(&case, &d) == Meeting::Supersede;
        let record =
            if supersede { Record::Superseded { by: d.clone() } } else { Record::Joined { directive: d.clone() } };
        case.state = case.state.next(&record)?;
        case.seq += 1;
        rows::put_records(&w.db, (&case.tenant, case.id), case.seq, batch.now_ms, &[record])?;
        w.touched.insert(case.id);
        if supersede {
            case.directive = d.clone();
            self.stirred += 1;
            // What the running executor appends next finds its claim void, and nothing else happens.
            let learned = w.claims.remove(&case.id).and_then(|held| held.learned);
            self.learned.extend(learned.map(|seen| (case.clone(), seen)));
            let new = self.cases.get(&case.id).is_some_and(|p| p.new);
            self.cases.insert(case.id, Pending { case: case.clone(), new });
        } else if let Some(pending) = self.cases.get_mut(&case.id) {
            pending.case = case.clone();
        } else if let Some(held) = w.claims.get_mut(&case.id) {
            held.case = case.clone();
        }
        let id = case.id;
        loaded.view.cases.insert(d.credential, Arc::new(case));
        Ok(id)
    }

    /// Writes each changed row once.
    fn flush(self, w: &mut Writer, batch: &Batch) -> Result<(), Error> {
        for pending in self.cases.values() {
            rows::put_case(&w.db, pending.new, &pending.case, batch.now_ms, None)?;
        }
        for loaded in self.views.into_values() {
            let mut written = HashSet::<(Option<RunKey>, Option<CredentialId>)>::new();
            for change in loaded.view.dirty.iter().rev() {
                let key = match change {
                    Change::Task(t) => (Some(t.run.clone()), None),
                    Change::Grant(g) => (Some(g.run.clone()), Some(g.credential.clone())),
                    Change::Credential(c) => (None, Some(c.id.clone())),
                };
                if !written.insert(key) {
                    continue;
                }
                match change {
                    Change::Task(task) => {
                        let before = i64::from(loaded.live.contains(&task.run));
                        w.count("tasks_live", i64::from(task.phase != Phase::Ended) - before);
                        rows::put_task(&w.db, task, batch.rules.heartbeats_missed)?;
                    }
                    Change::Grant(grant) => rows::put_grant(&w.db, grant)?,
                    Change::Credential(credential) => rows::put_credential(&w.db, credential, batch.now_ms)?,
                }
            }
        }
        for (case, seen) in &self.learned {
            super::cases::learn(w, case, Some(seen), None)?;
        }
        Ok(())
    }
}

impl Loaded {
    fn task(&mut self, w: &Writer, tenant: &Tenant, run: &RunKey) -> Result<(), Error> {
        if !self.runs.insert(run.clone()) {
            return Ok(());
        }
        let sql = format!("SELECT {TASK} FROM tasks WHERE tenant=? AND run=?");
        if let Some(task) = one(&w.db, &sql, params![tenant, run.as_str()], rows::task)? {
            if task.phase != Phase::Ended {
                self.live.insert(run.clone());
            }
            self.view.tasks.insert(run.clone(), task);
        }
        Ok(())
    }

    fn credential(&mut self, w: &Writer, tenant: &Tenant, id: CredentialId) -> Result<(), Error> {
        if !self.credentials.insert(id.clone()) {
            return Ok(());
        }
        let sql = format!("SELECT {CREDENTIAL} FROM credentials WHERE tenant=? AND id=?");
        if let Some(known) = one(&w.db, &sql, params![tenant, id.as_str()], rows::credential)? {
            self.view.credentials.insert(id.clone(), known);
        }
        let sql = format!("SELECT {GRANT} FROM grants WHERE tenant=? AND credential=? ORDER BY phase LIMIT {HOLDERS}");
        for grant in all(&w.db, &sql, params![tenant, id.as_str()], rows::grant)? {
            self.task(w, tenant, &grant.run.clone())?;
            self.view.put_grant(grant);
        }
        if let Some(stored) = rows::open_case(&w.db, tenant, &id)? {
            let newest = w.claims.get(&stored.case.id).map_or(stored.case, |held| held.case.clone());
            self.view.cases.insert(id, Arc::new(newest));
        }
        Ok(())
    }
}

/// The lane of a credential: alone, but secret_ids of one role share theirs.
pub(super) fn lane(id: &CredentialId) -> String {
    if id.kind() == Kind::VaultSecretId
        && let Some((role, _)) = id.id().rsplit_once('/')
    {
        return format!("{}:{role}", id.instance());
    }
    id.as_str().to_owned()
}
