//! `data`, by type. Mirrors `schemas/events`: what is not named there is not read, and goes nowhere.
//!
//! Read from the tree field by field instead of derived, so that the place at fault can be named from the schema's own
//! names, and nothing that a parser says about the bytes exists.

mod findings;

use std::borrow::Cow;

use super::envelope::{Envelope, MAX_TEXT_BYTES, is_text};
use super::tree::{self, Node};
use super::{
    CredentialAdopted, CredentialRegistered, Data, Fault, FindingClosed, GrantRegistered, GrantReleased, GrantSpec,
    IdentityOffboarded, Limits, RejectReason, TaskEnded, TaskExtended, TaskHeartbeat, TaskStarted, Type, time,
};
use crate::credential::CredentialId;
use crate::offboard;
use crate::scope;
use crate::task::{Actions, Boundary, RunKey, Tenure};

/// A promise to send heartbeats more often than this is a mistake, and would end the task by its own jitter.
const MIN_HEARTBEAT_MS: i64 = 1_000;
/// 2^53: what every JSON writer can write exactly.
pub(super) const MAX_EXACT: i64 = 9_007_199_254_740_991;

const OUTCOMES: [&str; 7] = ["success", "failure", "cancelled", "timeout", "rejected", "lost", "unknown"];
const CLOSING: [&str; 5] = ["false_positive", "wont_fix", "revoked", "used_in_tests", "inactive"];

/// Reads the data of `envelope`.
pub(super) fn data(envelope: &Envelope<'_>, broker_ms: i64, limits: &Limits) -> Result<Data, Fault> {
    let Node::Object(entries) = &envelope.data else {
        return Err(Fault::at(RejectReason::WrongSchema, "/data"));
    };
    let forgiven = matches!(envelope.kind, Type::TaskEnded | Type::FindingObserved);
    let times = if forgiven { Times::Forgiven } else { Times::Checked };
    let f = Fields { entries, base: "/data", index: None, broker_ms, times };
    let source = envelope.source.as_ref();
    Ok(match envelope.kind {
        Type::TaskStarted => Data::TaskStarted(TaskStarted {
            run: f.run(source)?,
            within: f.other_run(source, "within")?,
            attempt: f.attempt()?.unwrap_or(1),
            task: f.text("task")?,
            identity: f.identity()?,
            started_ms: f.time("started_at")?,
            deadline_ms: f.deadline()?,
            heartbeat_every_ms: f.integer("heartbeat_interval_ms", MIN_HEARTBEAT_MS, MAX_EXACT)?,
            grants: f.grants(limits.max_grants)?,
            boundary: f.boundary()?,
        }),
        Type::TaskExtended => Data::TaskExtended(TaskExtended {
            run: f.run(source)?,
            deadline_ms: f.deadline()?.ok_or_else(|| f.wrong("deadline"))?,
        }),
        Type::TaskHeartbeat => Data::TaskHeartbeat(TaskHeartbeat { run: f.run(source)? }),
        Type::TaskEnded => Data::TaskEnded(TaskEnded {
            run: f.run(source)?,
            attempt: f.attempt()?.unwrap_or(1),
            task: f.text("task")?,
            identity: f.identity()?,
            ended_ms: f.time("ended_at")?,
            outcome: f.word("outcome", &OUTCOMES)?,
            grants: f.grants(limits.max_grants)?,
            continued_as: f.other_run(source, "continued_as")?,
        }),
        Type::GrantRegistered => Data::GrantRegistered(GrantRegistered {
            run: f.run(source)?,
            attempt: f.attempt()?,
            identity: f.identity()?,
            grant: f.grant()?,
        }),
        Type::GrantReleased => Data::GrantReleased(GrantReleased {
            run: f.run(source)?,
            credential: f.credential()?.ok_or_else(|| f.wrong("cred_id"))?,
        }),
        Type::CredentialRegistered => Data::CredentialRegistered(CredentialRegistered {
            credential: f.credential()?.ok_or_else(|| f.wrong("cred_id"))?,
            fingerprints: f.fingerprints()?,
            version: f.integer("version", 0, MAX_EXACT)?,
            current: f.flag("current", true)?,
            issued_ms: f.time("issued_at")?,
            owner: f.text("owner")?,
            environment: f.text("environment")?,
        }),
        Type::CredentialAdopted => Data::CredentialAdopted(CredentialAdopted {
            credential: f.credential()?.ok_or_else(|| f.wrong("cred_id"))?,
            version: f.integer("version", 1, MAX_EXACT)?.ok_or_else(|| f.wrong("version"))?,
            consumer: f.required("consumer")?,
            failed: match f.str("outcome")? {
                None | Some("adopted") => false,
                Some("failed") => true,
                Some(_) => return Err(f.wrong("outcome")),
            },
        }),
        Type::FindingObserved => Data::FindingObserved(Box::new(f.finding()?)),
        Type::FindingClosed => {
            let reason = f.required("reason")?;
            if !CLOSING.contains(&reason.as_str()) {
                return Err(f.wrong("reason"));
            }
            Data::FindingClosed(FindingClosed { finding_key: f.required("finding_key")?, reason })
        }
        Type::IdentityOffboarded => Data::IdentityOffboarded(IdentityOffboarded {
            node: offboard::leaver(&f.required("identity")?).ok_or_else(|| f.wrong("identity"))?,
            since_ms: f.time("since")?,
            until_ms: f.wish("until")?,
            reason: f.required("reason")?,
        }),
        Type::DeadlinePassed
        | Type::HeartbeatMissed
        | Type::ReconcileFound
        | Type::RotationDue
        | Type::SessionsOver
        | Type::FenceOver
        | Type::OperatorOffboard
        | Type::OperatorRotate
        | Type::OperatorReduce
        | Type::OperatorRestore
        | Type::OperatorRevoke => {
            return Err(Fault::at(RejectReason::Forbidden, "/type"));
        }
    })
}

/// What a time that no clock can have shown means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// A reject.
    Checked,
    /// As if it were left out: an end must get through, and so must a finding.
    Forgiven,
}

/// One object and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Fields<'t> {
    entries: &'t [(Cow<'t, str>, Node<'t>)],
    base: &'static str,
    /// In a list.
    index: Option<usize>,
    broker_ms: i64,
    times: Times,
}

impl<'t> Fields<'t> {
    /// Those of a whole record.
    pub(super) fn of_record(entries: &'t [(Cow<'t, str>, Node<'t>)], broker_ms: i64, times: Times) -> Self {
        Self { entries, base: "", index: None, broker_ms, times }
    }

    /// The same, with another word on times.
    pub(super) fn forgiving(self, times: Times) -> Self {
        Self { times, ..self }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'t Node<'t>> {
        tree::get(self.entries, name)
    }

    pub(super) fn fault(&self, reason: RejectReason, name: &'static str) -> Fault {
        let base = self.base;
        let pointer = match self.index {
            Some(index) => format!("{base}/{index}/{name}"),
            None => format!("{base}/{name}"),
        };
        Fault { reason, pointer: Some(pointer.into()) }
    }

    pub(super) fn wrong(&self, name: &'static str) -> Fault {
        self.fault(RejectReason::WrongSchema, name)
    }

    pub(super) fn str(&self, name: &'static str) -> Result<Option<&'t str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Node::Text(text)) if is_text(text) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name)),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, Fault> {
        Ok(self.str(name)?.map(str::to_owned))
    }

    fn required(&self, name: &'static str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| self.wrong(name))
    }

    /// One of `known`; another word, such as one that a later producer knows, is `unknown`.
    fn word(&self, name: &'static str, known: &[&'static str]) -> Result<Option<String>, Fault> {
        let word = self.str(name)?;
        Ok(word.map(|word| known.iter().find(|k| **k == word).unwrap_or(&"unknown").to_string()))
    }

    pub(super) fn flag(&self, name: &'static str, otherwise: bool) -> Result<bool, Fault> {
        match self.get(name) {
            None => Ok(otherwise),
            Some(Node::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name)),
        }
    }

    /// JSON has one kind of number: `2` and `2.0` are the same integer.
    pub(super) fn integer(&self, name: &'static str, least: i64, most: i64) -> Result<Option<i64>, Fault> {
        let value = match self.get(name) {
            None => return Ok(None),
            Some(Node::Int(value)) => *value,
            #[expect(clippy::cast_possible_truncation, reason = "whole, and the cast saturates")]
            Some(Node::Float(value)) if value.fract() == 0.0 => *value as i64,
            Some(_) => return Err(self.wrong(name)),
        };
        if (least..=most).contains(&value) { Ok(Some(value)) } else { Err(self.wrong(name)) }
    }

    fn attempt(&self) -> Result<Option<u32>, Fault> {
        Ok(self.integer("attempt", 1, i64::from(u32::MAX))?.and_then(|n| u32::try_from(n).ok()))
    }

    pub(super) fn object(&self, name: &'static str, base: &'static str) -> Result<Option<Self>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Node::Object(entries)) => Ok(Some(Self { entries, base, index: None, ..*self })),
            Some(_) => Err(self.wrong(name)),
        }
    }

    /// A time that a clock showed.
    fn time(&self, name: &'static str) -> Result<Option<i64>, Fault> {
        let ms = match self.get(name) {
            None => return Ok(None),
            Some(Node::Text(text)) => time::parse(text),
            Some(_) => None,
        };
        match (ms, self.times) {
            (Some(ms), _) if time::is_plausible(ms, self.broker_ms) => Ok(Some(ms)),
            (_, Times::Forgiven) => Ok(None),
            (None, Times::Checked) => Err(self.wrong(name)),
            (Some(_), Times::Checked) => Err(self.fault(RejectReason::AbsurdTime, name)),
        }
    }

    /// The same; one without a zone is as if it were left out: which instant it means is a guess, and a wrong one would
    /// move a task's last limit.
    pub(super) fn zoned_time(&self, name: &'static str) -> Result<Option<i64>, Fault> {
        match self.get(name) {
            Some(Node::Text(text)) if time::lacks_zone(text) => Ok(None),
            _ => self.time(name),
        }
    }

    /// A time that somebody wishes for, however far: policy clamps it.
    fn deadline(&self) -> Result<Option<i64>, Fault> {
        self.wish("deadline")
    }

    fn wish(&self, name: &'static str) -> Result<Option<i64>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Node::Text(text)) => Ok(Some(time::parse(text).ok_or_else(|| self.wrong(name))?)),
            Some(_) => Err(self.wrong(name)),
        }
    }

    /// When a credential dies by itself. `9999-12-31` is how some issuers write never.
    fn expires(&self) -> Result<Option<i64>, Fault> {
        if let Some(Node::Text(text)) = self.get("expires_at")
            && let Some(ms) = time::parse(text).filter(|ms| time::is_recent(*ms))
        {
            return Ok(Some(ms));
        }
        self.time("expires_at")
    }

    /// `run_key` as it is, else `<source>:<run_id>`.
    fn run(&self, source: &str) -> Result<RunKey, Fault> {
        if let Some(key) = self.str("run_key")? {
            return Ok(RunKey(key.into()));
        }
        let id = self.str("run_id")?.ok_or_else(|| self.wrong("run_id"))?;
        self.key(source, id, "run_id")
    }

    /// Named the same way as the run itself: a key where that has a `run_key`, else an id of the same source.
    fn other_run(&self, source: &str, name: &'static str) -> Result<Option<RunKey>, Fault> {
        let Some(other) = self.str(name)? else { return Ok(None) };
        if self.get("run_key").is_some() {
            return Ok(Some(RunKey(other.into())));
        }
        self.key(source, other, name).map(Some)
    }

    pub(super) fn key(&self, source: &str, id: &str, name: &'static str) -> Result<RunKey, Fault> {
        let key = RunKey::new(source, id);
        if key.as_str().len() <= MAX_TEXT_BYTES { Ok(key) } else { Err(self.wrong(name)) }
    }

    fn identity(&self) -> Result<Option<String>, Fault> {
        let workload = self.text("workload_id")?;
        let agent = match self.object("agent", "/data/agent")? {
            Some(agent) => Some(agent.required("id")?),
            None => None,
        };
        Ok(workload.or(agent))
    }

    fn credential(&self) -> Result<Option<CredentialId>, Fault> {
        let Some(urn) = self.str("cred_id")? else { return Ok(None) };
        CredentialId::parse(urn).map(Some).map_err(|_| self.wrong("cred_id"))
    }

    fn grant(&self) -> Result<GrantSpec, Fault> {
        let tenure = match self.str("tenure")? {
            None | Some("minted") => Tenure::Minted,
            Some("exclusive") => Tenure::Exclusive,
            Some("standing") => Tenure::Standing,
            // Not forgiven: it decides whether the end of the task kills the credential.
            Some(_) => return Err(self.wrong("tenure")),
        };
        Ok(GrantSpec {
            credential: self.credential()?.ok_or_else(|| self.wrong("cred_id"))?,
            tenure,
            principal: self.text("principal")?,
            expires_ms: self.expires()?,
        })
    }

    /// A list of at most `max` objects, `base` being where it stands.
    pub(super) fn list<T>(
        &self,
        name: &'static str,
        base: &'static str,
        max: usize,
        read: impl Fn(&Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let items = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Node::List(items)) if items.len() <= max => items,
            Some(_) => return Err(self.wrong(name)),
        };
        let object = |(index, item): (usize, &'t Node<'t>)| match item {
            Node::Object(entries) => read(&Self { entries, base, index: Some(index), ..*self }),
            _ => Err(self.wrong(name)),
        };
        items.iter().enumerate().map(object).collect()
    }

    fn boundary(&self) -> Result<Option<Boundary>, Fault> {
        let Some(f) = self.object("boundary", "/data/boundary")? else { return Ok(None) };
        Ok(Some(Boundary {
            targets: f.names("targets", Boundary::MOST)?,
            zones: f.names("zones", Boundary::MOST)?,
            actions: f.list("actions", "/data/boundary/actions", Boundary::ACTIONS, Self::actions)?,
        }))
    }

    /// What is to be done at one target.
    fn actions(&self) -> Result<Actions, Fault> {
        let texts = self.names("permissions", scope::MOST)?;
        let permissions = scope::permissions(&texts).map_err(|_| self.wrong("permissions"))?;
        Ok(Actions { target: self.required("target")?, permissions })
    }

    /// Texts, at most `max`, each once.
    fn names(&self, name: &'static str, max: usize) -> Result<Vec<String>, Fault> {
        let items = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Node::List(items)) if items.len() <= max => items,
            Some(_) => return Err(self.wrong(name)),
        };
        let mut names = Vec::with_capacity(items.len());
        for item in items {
            let text = match item {
                Node::Text(text) if is_text(text) => text.to_string(),
                _ => return Err(self.wrong(name)),
            };
            if !names.contains(&text) {
                names.push(text);
            }
        }
        Ok(names)
    }

    fn grants(&self, max: usize) -> Result<Vec<GrantSpec>, Fault> {
        let items = match self.get("grants") {
            None => return Ok(Vec::new()),
            Some(Node::List(items)) => items,
            Some(_) => return Err(self.wrong("grants")),
        };
        if items.len() > max {
            return Err(self.fault(RejectReason::TooLarge, "grants"));
        }
        let mut grants: Vec<GrantSpec> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let Node::Object(entries) = item else { return Err(self.wrong("grants")) };
            let fields = Self { entries, base: "/data/grants", index: Some(index), ..*self };
            let grant = fields.grant()?;
            match grants.iter().find(|known| known.credential == grant.credential) {
                None => grants.push(grant),
                // Twice the same is once; two meanings are none.
                Some(known) if known.tenure == grant.tenure => {}
                Some(_) => return Err(fields.wrong("tenure")),
            }
        }
        Ok(grants)
    }
}
