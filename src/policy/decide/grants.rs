//! Grants: who holds what, and what becomes of it when they are over.

use super::{Blade, CONTINUED, Draft, union};
use crate::case::{Action, Directive, HoldReason, Trigger, Urgency};
use crate::credential::CredentialId;
use crate::event::{GrantRegistered, GrantReleased, GrantSpec};
use crate::policy::{Decision, Reason, Verb};
use crate::task::{Credential, Grant, GrantPhase, Phase, RunKey, Task, Tenure};

impl Draft<'_> {
    /// Notes that `run` holds a credential. Returns whether that is news: a grant that was already cut is not.
    pub(super) fn register(&mut self, run: &RunKey, attempt: u32, spec: &GrantSpec) -> bool {
        self.register_for(run, attempt, spec, &[self.event.at.topic.to_string()])
    }

    /// As [`Self::register`], on the word of `topics`.
    pub(super) fn register_for(&mut self, run: &RunKey, attempt: u32, spec: &GrantSpec, topics: &[String]) -> bool {
        self.know(&spec.credential, spec.principal.as_deref(), spec.expires_ms);
        let known = self.grant(run, &spec.credential).cloned();
        let now_ms = self.event.broker_ms;
        let grant = match known {
            None => Grant {
                tenant: self.event.tenant.clone(),
                run: run.clone(),
                credential: spec.credential.clone(),
                attempt,
                tenure: spec.tenure,
                phase: GrantPhase::Held,
                registered_ms: now_ms,
                topics: topics.to_vec(),
            },
            Some(known) if known.phase == GrantPhase::Cut && attempt <= known.attempt => return false,
            Some(known) => Grant {
                // One that was over begins anew, for the attempt that it is now granted for.
                attempt: if known.phase == GrantPhase::Held { attempt.max(known.attempt) } else { attempt },
                // Once somebody said that it outlives the task, no other word of the same run makes it die with it.
                tenure: if known.tenure == Tenure::Standing { Tenure::Standing } else { spec.tenure },
                registered_ms: known.registered_ms.min(now_ms),
                phase: GrantPhase::Held,
                topics: union(&known.topics, topics),
                ..known
            },
        };
        self.put(grant);
        if let Some(task) = self.task(run).filter(|task| task.unbound).cloned() {
            self.tasks.insert(run.clone(), Task { unbound: false, ..task });
        }
        true
    }

    /// Notes a credential; what was known of it stays.
    pub(super) fn know(&mut self, id: &CredentialId, principal: Option<&str>, expires_ms: Option<i64>) {
        let now_ms = self.event.broker_ms;
        let known = self.credentials.get(id).or_else(|| self.view.credentials.get(id)).cloned();
        let mut credential = known.unwrap_or_else(|| Credential {
            blast: None,
            tenant: self.event.tenant.clone(),
            id: id.clone(),
            principal: None,
            registered_ms: now_ms,
            seen_ms: None,
            issued_ms: None,
            expires_ms: None,
            dead_ms: None,
            version: None,
            environment: None,
            owner: None,
        });
        credential.registered_ms = credential.registered_ms.min(now_ms);
        if credential.principal.is_none() {
            credential.principal = principal.map(str::to_owned);
        }
        if credential.expires_ms.is_none() {
            credential.expires_ms = expires_ms;
        }
        self.credentials.insert(id.clone(), credential);
    }

    /// Settles a grant that is over: cuts the credential, unless it stands by itself or a live task shares it.
    pub(super) fn settle(&mut self, run: &RunKey, id: &CredentialId, blade: Blade) {
        let Some(mut grant) = self.grant(run, id).cloned() else { return };
        if grant.phase == GrantPhase::Cut {
            return;
        }
        grant.phase = GrantPhase::Released;
        self.put(grant.clone());
        if let Some(sharer) = self.live_holder(id) {
            self.shared.insert(id.clone(), sharer);
            return;
        }
        // Its own tenure, or that of somebody who ended before while this run shared it.
        if self.mortal_holder(id).is_none() {
            self.released.push(id.clone());
            return;
        }
        if grant.tenure != Tenure::Standing {
            grant.phase = GrantPhase::Cut;
            self.put(grant);
        }
        self.direct(id, Some(run), blade, Action::Revoke, None);
        self.cut.push(id.clone());
    }

    /// Settles every grant of `run` up to `attempt` that is still held.
    pub(super) fn settle_all(&mut self, run: &RunKey, attempt: u32, blade: Blade) {
        for id in self.held_by(run) {
            let over = |grant: &Grant| grant.phase == GrantPhase::Held && grant.attempt <= attempt;
            if self.grant(run, &id).is_some_and(over) {
                self.settle(run, &id, blade);
            }
        }
    }

    /// What is registered for a run that may be over already. Returns whether it is.
    pub(super) fn settle_late(&mut self, run: &RunKey, attempt: u32, ids: &[CredentialId]) -> bool {
        let Some(task) = self.task(run) else { return false };
        let newest_over = if task.phase == Phase::Ended { task.attempt } else { task.attempt.saturating_sub(1) };
        let over = attempt <= newest_over;
        let blade = Blade { trigger: Trigger::LateStart, urgency: Urgency::Prompt, end_ms: task.ended_ms };
        if over {
            for id in ids {
                // The same credential may have been granted to a newer attempt: then it is not over.
                if self.grant(run, id).is_some_and(|g| g.attempt <= newest_over && g.phase == GrantPhase::Held) {
                    self.settle(run, id, blade);
                }
            }
        }
        over
    }

    /// Where grants for `run` go that come after it went on under another key.
    pub(super) fn successor(&self, run: &RunKey, attempt: u32) -> Option<RunKey> {
        let task = self.task(run)?;
        let next = task.outcome.as_deref()?.strip_prefix(CONTINUED)?;
        (task.phase == Phase::Ended && attempt <= task.attempt).then(|| RunKey(next.into()))
    }

    /// Gives `spec` to a successor; it is cut at once if that one is known to be over.
    pub(super) fn hand_over(&mut self, next: &RunKey, spec: &GrantSpec, topics: &[String]) {
        let attempt = self.task(next).map_or(1, |task| task.attempt);
        if self.register_for(next, attempt, spec, topics) {
            self.settle_late(next, attempt, std::slice::from_ref(&spec.credential));
        }
    }

    pub(super) fn direct(
        &mut self,
        id: &CredentialId,
        run: Option<&RunKey>,
        blade: Blade,
        action: Action,
        held: Option<HoldReason>,
    ) {
        if self.directives.iter().any(|directive| directive.credential == *id) {
            return;
        }
        self.know(id, None, None);
        let noticed = self.event.kind.is_own() && blade.trigger != Trigger::Operator;
        let grantors = if noticed { self.grantors_of(id) } else { Vec::new() };
        self.directives.push(Directive {
            credential: id.clone(),
            action,
            trigger: blade.trigger,
            urgency: blade.urgency,
            held,
            run: run.cloned(),
            end_ms: blade.end_ms,
            broker_ms: self.event.broker_ms,
            topic: self.event.at.topic.to_string(),
            grantors,
            finding: None,
            generation: None,
            not_before_ms: None,
            cut: None,
        });
    }

    /// Who said that it was to die with a task that is over: what Curfew notices is no more than their word.
    pub(super) fn grantors_of(&self, credential: &CredentialId) -> Vec<String> {
        let over = self.mortal_holders(credential);
        over.fold(Vec::new(), |topics, run| match self.grant(&run, credential) {
            Some(grant) => union(&topics, &grant.topics),
            None => topics,
        })
    }

    pub(super) fn registered(mut self, it: &GrantRegistered) -> Decision {
        let mut task = self.expect(&it.run);
        if let Some(who) = it.identity.as_ref().filter(|_| task.identity.is_none()) {
            task.identity = Some(who.clone());
            self.tasks.insert(it.run.clone(), task.clone());
        }
        let attempt = it.attempt.map_or(task.attempt, |attempt| attempt.max(1));
        if let Some(next) = self.successor(&it.run, attempt) {
            self.hand_over(&next, &it.grant, &[self.event.at.topic.to_string()]);
            return self.say_cut(Verb::Track, Reason::Continued);
        }
        if attempt > task.attempt && task.phase != Phase::Running {
            self.await_attempt(&task, attempt);
        }
        if !self.register(&it.run, attempt, &it.grant) {
            return self.say(Verb::Ignore, Reason::AlreadyEnded);
        }
        if self.settle_late(&it.run, attempt, std::slice::from_ref(&it.grant.credential)) {
            let ended = self.task(&it.run).is_some_and(|task| task.phase == Phase::Ended);
            return self.say_cut(Verb::Track, if ended { Reason::EndedBefore } else { Reason::OlderAttempt });
        }
        self.say(Verb::Track, Reason::Noted)
    }

    /// What its only holder gave back has no use any more: it dies now, if it was to die with the task. A release of
    /// what was never registered is only noted: should the registration come later, it dies with the task.
    pub(super) fn released(mut self, it: &GrantReleased) -> Decision {
        let held = self.grant(&it.run, &it.credential).is_some_and(|grant| grant.phase == GrantPhase::Held);
        if !held {
            return self.say(Verb::Ignore, Reason::Noted);
        }
        let blade = Blade { trigger: Trigger::TaskEnd, urgency: Urgency::Prompt, end_ms: Some(self.event.broker_ms) };
        self.settle(&it.run, &it.credential, blade);
        let reason = if self.shared.is_empty() { Reason::Noted } else { Reason::SharedByLiveTask };
        self.say_cut(Verb::Track, reason)
    }
}
