//! Who leaves: that it does, what of it is found, and the end of its fences.

use super::{Blade, Draft};
use crate::case::{Action, Trigger, Urgency};
use crate::credential::CredentialId;
use crate::event::{Data, IdentityOffboarded, Leaves};
use crate::offboard::{self, Offboarding};
use crate::policy::{Change, Decision, Reason, Verb};
use crate::reach::Node;
use crate::scope::Cut;

impl Draft<'_> {
    /// A producer's word.
    pub(super) fn offboarded(self, it: &IdentityOffboarded) -> Decision {
        self.leaves(&it.node, it.since_ms, it.until_ms, None, &it.reason)
    }

    /// It is a state: what follows is found in reach, as long as it stands.
    pub(super) fn leaves(
        mut self,
        node: &Node,
        since_ms: Option<i64>,
        until_ms: Option<i64>,
        by: Option<&str>,
        reason: &str,
    ) -> Decision {
        let now_ms = self.event.broker_ms;
        self.leaving.push(Change::Offboarded(Offboarding {
            tenant: self.event.tenant.clone(),
            node: node.clone(),
            topic: self.event.at.topic.to_string(),
            since_ms: since_ms.unwrap_or(now_ms),
            until_ms: offboard::until_ms(now_ms, until_ms, self.rules.fence_for_ms),
            by: by.map(str::to_owned),
            reason: reason.to_owned(),
            idle_since_ms: None,
        }));
        self.say(Verb::Track, Reason::Offboarded)
    }

    /// Only an operator says so: what was begun goes on, and fences stand until their end or a rollback.
    pub(super) fn onboarded(mut self, node: &Node) -> Decision {
        self.leaving.push(Change::Onboarded(self.event.tenant.clone(), node.clone()));
        self.say(Verb::Track, Reason::Onboarded)
    }

    /// What there was before a fence comes back. It rests on the case that set it, and on no other word. While anything is at work
    /// on the identity it is waited for: the event is said again.
    pub(super) fn fence_over(mut self, id: &CredentialId, cut: &Cut) -> Decision {
        if self.view.cases.contains_key(id) {
            return self.say(Verb::Ignore, Reason::Expected);
        }
        let blade = Blade { trigger: Trigger::Reconcile, urgency: Urgency::Background, end_ms: None };
        self.direct(id, None, blade, Action::Restore, None);
        if let Some(directive) = self.directives.first_mut() {
            directive.cut = Some(Box::new(cut.clone()));
            directive.grantors.clear();
        }
        self.say(Verb::Restore, Reason::FenceOver)
    }

    /// Of a finding about somebody who leaves.
    pub(super) fn leaving(&self) -> Option<&Leaves> {
        match &self.event.data {
            Data::FindingObserved(it) => it.leaves.as_ref(),
            _ => None,
        }
    }

    /// What it rests on is the word of who said that somebody leaves, and not reach's own; and who leaves is fenced first.
    pub(super) fn fence_first(&mut self, id: &CredentialId) {
        let Some(leaves) = self.leaving().cloned() else { return };
        let until_ms = leaves.fence_until_ms.filter(|until_ms| *until_ms > self.event.broker_ms);
        if let Some(directive) = self.directives.iter_mut().find(|one| one.credential == *id) {
            directive.grantors = leaves.topics;
            if directive.action == Action::Revoke {
                directive.cut = until_ms.and_then(|until_ms| Cut::fence(id.kind(), until_ms)).map(Box::new);
            }
        }
    }
}
