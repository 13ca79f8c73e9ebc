//! What Curfew itself noticed, or an operator said.

use super::{Blade, Draft, LIST_AGE_MS, LOST, last_sign_ms};
use crate::case::{Action, HoldReason, Trigger, Urgency};
use crate::credential::CredentialId;
use crate::event::GrantSpec;
use crate::policy::{Decision, Reason, Verb};
use crate::task::{Grant, GrantPhase, Phase, RunKey, Tenure};

impl Draft<'_> {
    pub(super) fn deadline(self, run: &RunKey, deadline_ms: i64) -> Decision {
        let current = self.task(run).is_some_and(|task| {
            task.phase != Phase::Ended && task.deadline_ms == deadline_ms && deadline_ms <= self.event.broker_ms
        });
        if !current {
            return self.say(Verb::Ignore, Reason::Outdated);
        }
        self.lose(run, deadline_ms, Trigger::Deadline, Reason::DeadlinePassed)
    }

    pub(super) fn silent(self, run: &RunKey, last_beat_ms: i64) -> Decision {
        let missed = self.rules.heartbeats_missed;
        let current = self.task(run).is_some_and(|task| {
            task.phase != Phase::Ended
                && last_sign_ms(task) == last_beat_ms
                && task.silent_at_ms(missed).is_some_and(|at| at <= self.event.broker_ms)
        });
        if !current {
            return self.say(Verb::Ignore, Reason::Outdated);
        }
        self.lose(run, last_beat_ms, Trigger::Heartbeat, Reason::Silent)
    }

    /// Ends a task whose end was lost.
    pub(super) fn lose(mut self, run: &RunKey, end_ms: i64, trigger: Trigger, reason: Reason) -> Decision {
        let mut task = self.expect(run);
        task.phase = Phase::Ended;
        task.ended_ms = Some(end_ms);
        task.outcome = Some(LOST.into());
        self.tasks.insert(run.clone(), task);
        self.facts.insert("ended_ms".into(), end_ms.into());
        // All of its attempts: what was granted for one that never started is over with the run.
        self.settle_all(run, u32::MAX, Blade { trigger, urgency: Urgency::Routine, end_ms: Some(end_ms) });
        self.note_unbound(run);
        self.say_ended(reason)
    }

    pub(super) fn found(mut self, id: &CredentialId, run: Option<&RunKey>, exclusive: bool) -> Decision {
        let blade = |end_ms| Blade { trigger: Trigger::Reconcile, urgency: Urgency::Routine, end_ms };
        if self.is_dying(id) {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        if let Some(dead_ms) = self.view.credentials.get(id).and_then(|credential| credential.dead_ms) {
            if self.event.broker_ms.saturating_sub(dead_ms) <= LIST_AGE_MS {
                return self.say(Verb::Ignore, Reason::Expected);
            }
            self.facts.insert("alive_again".into(), true.into());
        }
        if self.live_holder(id).is_some() {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        if let Some(holder) = self.mortal_holder(id) {
            let end_ms = self.task(&holder).and_then(|task| task.ended_ms);
            if let Some(grant) = self.grant(&holder, id).cloned() {
                self.put(Grant { phase: GrantPhase::Cut, ..grant });
            }
            self.direct(id, Some(&holder), blade(end_ms), Action::Revoke, None);
            self.cut.push(id.clone());
            return self.say_cut(Verb::Revoke, Reason::Unexpected);
        }
        if !self.holders_of(id).is_empty() {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        if let Some(task) = run.and_then(|run| self.task(run)).cloned() {
            // The issuer's own metadata names the run: as good as a registration.
            let spec = GrantSpec { credential: id.clone(), tenure: Tenure::Minted, principal: None, expires_ms: None };
            self.register(&task.run, task.attempt, &spec);
            if task.phase == Phase::Ended {
                self.settle(&task.run, id, blade(task.ended_ms));
                return self.say_cut(Verb::Track, Reason::Unexpected);
            }
            return self.say(Verb::Track, Reason::Noted);
        }
        if exclusive {
            self.direct(id, run, blade(None), Action::Revoke, None);
            self.cut.push(id.clone());
            return self.say_cut(Verb::Revoke, Reason::Unregistered);
        }
        if self.view.cases.contains_key(id) {
            return self.say(Verb::Ignore, Reason::Unregistered);
        }
        self.direct(id, run, blade(None), Action::Revoke, Some(HoldReason::Unregistered));
        self.say(Verb::Hold, Reason::Unregistered)
    }

    /// What denied its sessions is to be taken off. The credential is looked at as well: recorded death is no evidence for ever.
    /// But nobody asks to end it: one that lives waits for a person ([`crate::case::Directive::refuted`]). Nor need its death be recorded:
    /// the journal may be younger than the policy, and a rotation's policy is of a key that had no case of its own.
    pub(super) fn sessions_over(mut self, id: &CredentialId) -> Decision {
        if self.view.cases.contains_key(id) {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        let blade = Blade { trigger: Trigger::Reconcile, urgency: Urgency::Background, end_ms: None };
        self.direct(id, None, blade, Action::Verify, None);
        self.say(Verb::Verify, Reason::SessionsOver)
    }

    pub(super) fn operator(mut self, id: &CredentialId) -> Decision {
        let blade = Blade { trigger: Trigger::Operator, urgency: Urgency::Urgent, end_ms: None };
        if let Some(sharer) = self.live_holder(id) {
            self.shared.insert(id.clone(), sharer);
        }
        self.direct(id, None, blade, Action::Revoke, None);
        self.cut.push(id.clone());
        self.say(Verb::Revoke, Reason::Operator)
    }
}
