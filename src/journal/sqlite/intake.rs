//! One batch of arrivals: offsets, events, decisions, cases and rejects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::params;

use super::rows::{self, CREDENTIAL, GRANT, TASK, all, exec, one};
use super::writer::Writer;
use super::{Error, findings, leaving};
use crate::credential::CredentialId;
use crate::event::Event;
use crate::fingerprint::Fingerprint;
use crate::journal::draft::{Before, Draft, EventRow, Touch};
use crate::journal::{Arrival, Batch, Recorded};
use crate::policy::{self, View};
use crate::task::{RunKey, Tenant};

/// Holders of one credential that a decision sees, those that hold it first.
const HOLDERS: i64 = 256;

/// What a tenant's part of the batch sees.
#[derive(Default)]
struct Loaded {
    view: View,
    runs: HashSet<RunKey>,
    held: HashSet<RunKey>,
    credentials: HashSet<CredentialId>,
    marks: HashSet<Fingerprint>,
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
    let mut views: HashMap<Tenant, Loaded> = HashMap::new();
    for arrival in &batch.arrivals {
        if let Arrival::Event(event) = arrival {
            views.entry(event.tenant.clone()).or_default().load(w, event)?;
        }
    }
    let views = views.into_iter().map(|(tenant, loaded)| (tenant, loaded.view)).collect();
    // From here on rows are written: whatever fails takes the transaction with it.
    write(w, batch, views).map_err(|e| match e {
        Error::Illegal(bug) => Error::Unavailable(Box::new(bug)),
        e => e,
    })
}

fn write(w: &mut Writer, batch: &Batch, views: HashMap<Tenant, View>) -> Result<Recorded, Error> {
    w.allow_missed(batch.rules.heartbeats_missed)?;
    let ids = w.ids.clone();
    let mut draft = Draft::new(batch, &ids, views);
    for arrival in &batch.arrivals {
        match arrival {
            Arrival::Reject(reject) => draft.reject(reject),
            Arrival::Event(event) => draft.take(event, before(w, event, batch.now_ms)?)?,
        }
    }
    let rules = batch.rules.digest();
    for row in &draft.events {
        put_event(w, row, &rules, batch.now_ms)?;
    }
    for row in &draft.records {
        let record = std::slice::from_ref(&row.record);
        rows::put_records(&w.db, (&row.tenant, row.case), row.seq, batch.now_ms, record)?;
    }
    for (tenant, case, event) in &draft.links {
        let sql = "INSERT INTO links (tenant, case_id, event_id) VALUES (?,?,?)";
        exec(&w.db, sql, params![tenant, case.as_bytes(), event.as_bytes()])?;
    }
    put_cases(w, &draft, batch.now_ms)?;
    let changes = draft.changes();
    for task in &changes.tasks {
        rows::put_task(&w.db, task, batch.rules.heartbeats_missed)?;
    }
    for grant in &changes.grants {
        rows::put_grant(&w.db, grant)?;
    }
    for credential in &changes.credentials {
        rows::put_credential(&w.db, credential, batch.now_ms)?;
    }
    findings::put(w, &changes.findings, &changes.marks)?;
    leaving::put(&w.db, &changes.leaving)?;
    for message in &draft.messages {
        w.send(message, batch.now_ms)?;
    }
    for (name, by) in &draft.counts {
        w.count(name, *by);
    }
    for step in &batch.moves {
        rows::put_position(&w.db, &step.to)?;
    }
    Ok(draft.recorded())
}

/// Notes that the event was seen, and says whether it was before.
fn before(w: &Writer, event: &Event, now_ms: i64) -> Result<Before, Error> {
    let hash = event.natural_key();
    let sql = "INSERT INTO seen (hash, digest, at_ms) VALUES (?,?,?) ON CONFLICT DO NOTHING";
    if exec(&w.db, sql, params![hash, event.digest, now_ms])? > 0 {
        return Ok(Before::New);
    }
    let digest = one(&w.db, "SELECT digest FROM seen WHERE hash=?", params![hash], |row| row.get(0))?;
    digest.map(Before::Seen).ok_or(Error::Corrupt { what: "seen" })
}

fn put_event(w: &Writer, row: &EventRow<'_>, rules: &str, now_ms: i64) -> Result<(), Error> {
    let (event, decision) = (row.event, &row.decision);
    exec(
        &w.db,
        "INSERT INTO events (tenant, id, source, event_id, kind, topic, partition, offset, broker_ms, at_ms, verb, \
         reason, facts, rules, linked, open_cases, traceparent) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        params![
            event.tenant,
            row.id.as_bytes(),
            event.source,
            event.id,
            event.kind.as_str(),
            event.at.topic,
            event.at.partition,
            event.at.offset,
            event.broker_ms,
            now_ms,
            decision.verb.as_str(),
            super::read::name(&decision.reason)?,
            rows::text("events", &decision.facts)?,
            rules,
            row.open_cases,
            row.open_cases,
            event.traceparent,
        ],
    )
    .map(drop)
}

/// Writes each changed case once. One that was only joined is written by whoever has it claimed, or folded when it is
/// loaded.
fn put_cases(w: &mut Writer, draft: &Draft<'_>, now_ms: i64) -> Result<(), Error> {
    for (id, row) in &draft.cases {
        w.touched.insert(*id);
        match row.touch {
            Touch::Joined => {
                if let Some(held) = w.claims.get_mut(id) {
                    held.case = row.case.clone();
                }
            }
            Touch::Superseded => {
                // What the running executor appends next finds its claim void, and nothing else happens.
                let learned = w.claims.remove(id).and_then(|held| held.learned);
                rows::put_case(&w.db, false, &row.case, now_ms, None)?;
                if learned.is_some() {
                    super::cases::learn(w, &row.case, learned.as_ref(), None)?;
                }
            }
            Touch::Opened => {
                rows::put_case(&w.db, true, &row.case, now_ms, None)?;
                w.mem.systems.insert(row.case.system.clone());
            }
        }
    }
    Ok(())
}

impl Loaded {
    /// Everything that a decision on `event` may look at.
    fn load(&mut self, w: &Writer, event: &Event) -> Result<(), Error> {
        let (run, mut credentials) = policy::keys(event);
        // What comes late for a run that went on under another key is handed to that one.
        let mut runs: Vec<RunKey> = run.into_iter().chain(policy::also_run(event)).collect();
        for named in runs.clone() {
            self.task(w, &event.tenant, &named)?;
            let outcome = self.view.tasks.get(&named).and_then(|task| task.outcome.as_deref());
            runs.extend(outcome.and_then(|o| o.strip_prefix("continued_as ")).map(|next| RunKey(next.into())));
        }
        for run in runs {
            self.task(w, &event.tenant, &run)?;
            if self.held.insert(run.clone()) {
                let sql = format!("SELECT {GRANT} FROM grants WHERE tenant=? AND run=?");
                for grant in all(&w.db, &sql, params![event.tenant, run.as_str()], rows::grant)? {
                    credentials.push(grant.credential.clone());
                    self.view.put_grant(grant);
                }
            }
        }
        if let Some(whole) = policy::whole_run(event) {
            self.parts(w, &event.tenant, whole)?;
        }
        let (key, fingerprints) = policy::finding_keys(event);
        if let Some(id) = key {
            findings::load(w, &mut self.view, &event.tenant, &id)?;
            let about = self.view.findings.get(&id).into_iter().flat_map(|finding| finding.credentials.iter().cloned());
            credentials.extend(about);
        }
        for fingerprint in fingerprints {
            if self.marks.insert(fingerprint.clone()) {
                credentials.extend(findings::load_marks(w, &mut self.view, &event.tenant, &fingerprint)?);
            }
        }
        for id in credentials {
            self.credential(w, &event.tenant, id)?;
        }
        Ok(())
    }

    fn task(&mut self, w: &Writer, tenant: &Tenant, run: &RunKey) -> Result<(), Error> {
        if !self.runs.insert(run.clone()) {
            return Ok(());
        }
        let sql = format!("SELECT {TASK} FROM tasks WHERE tenant=? AND run=?");
        if let Some(task) = one(&w.db, &sql, params![tenant, run.as_str()], rows::task)? {
            self.view.put_task(task);
        }
        Ok(())
    }

    /// What is a part of `run` and lives; of those that are over, one tells that it has parts. The index is named: where so
    /// few rows are wanted SQLite would rather look through all tasks of the tenant.
    fn parts(&mut self, w: &Writer, tenant: &Tenant, run: &RunKey) -> Result<(), Error> {
        let of = |phase: &str, max: i64| {
            format!(
                "SELECT * FROM (SELECT {TASK} FROM tasks INDEXED BY tasks_parts WHERE tenant=?1 AND within=?2 AND phase \
                 {phase} LIMIT {max})"
            )
        };
        let sql = [of("< 2", policy::PARTS), of("= 2", 1)].join(" UNION ALL ");
        for part in all(&w.db, &sql, params![tenant, run.as_str()], rows::task)? {
            if self.runs.insert(part.run.clone()) {
                self.view.put_task(part);
            }
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
