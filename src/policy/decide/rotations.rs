//! Rotations that no finding asks for, and what consumers say of the new value.

use super::{Blade, Draft};
use crate::case::turn::Turn;
use crate::case::{Action, Case, Trigger, Urgency};
use crate::credential::CredentialId;
use crate::event::CredentialAdopted;
use crate::policy::{Decision, Reason, Verb, Word};
use crate::scope::{Cut, Move};

impl Draft<'_> {
    /// A value is old. Only where it is still the one in use, and nothing is being done about it.
    pub(super) fn due(mut self, id: &CredentialId, version: i64, age_ms: i64) -> Decision {
        let current =
            self.credential(id).is_some_and(|known| known.version == Some(version) && known.dead_ms.is_none());
        if !current || self.view.cases.contains_key(id) {
            return self.say(Verb::Ignore, Reason::Outdated);
        }
        self.facts.insert("age_ms".into(), age_ms.into());
        self.direct(id, None, blade(Trigger::Age, Urgency::Background), Action::Rollover, None);
        if let Some(directive) = self.directives.first_mut() {
            directive.generation = Some(version);
        }
        self.say(Verb::Rollover, Reason::RotationDue)
    }

    /// An operator's word: no rule is asked.
    pub(super) fn rotate(mut self, id: &CredentialId, action: Action, agents: &[String]) -> Decision {
        let verb = match action {
            Action::Contain => Verb::Contain,
            Action::Split => Verb::Split,
            _ => Verb::Rollover,
        };
        self.direct(id, None, blade(Trigger::Operator, Urgency::Urgent), action, None);
        let moves = agents.iter().map(|agent| Move { agent: agent.clone(), at_most: None });
        // Whoever is half moved is brought to an end; whom nobody has begun with the order does not name.
        let cut = self.moving(id, moves, |open| open.state.acted).map(Box::new);
        if let Some(directive) = self.directives.first_mut() {
            directive.cut = cut;
        }
        self.say(verb, Reason::Operator)
    }

    /// Who is to be moved, beside those whom an open case moves, where it `goes_on` with them.
    pub(super) fn moving(
        &self,
        id: &CredentialId,
        new: impl Iterator<Item = Move>,
        goes_on: impl Fn(&Case) -> bool,
    ) -> Option<Cut> {
        let mut new = new.peekable();
        new.peek()?;
        let open = self.view.cases.get(id).filter(|case| !case.state.is_closed() && goes_on(case));
        let open = open.and_then(|case| case.directive.moves()).unwrap_or_default();
        Cut::moving(open.iter().cloned().chain(new))
    }

    /// An operator's word on what an identity may do.
    pub(super) fn rescope(
        mut self,
        id: &CredentialId,
        (cut, not_before_ms): (&Cut, Option<i64>),
        action: Action,
    ) -> Decision {
        let verb = if action == Action::Reduce { Verb::Reduce } else { Verb::Restore };
        self.direct(id, None, blade(Trigger::Operator, Urgency::Urgent), action, None);
        if let Some(directive) = self.directives.first_mut() {
            directive.cut = Some(Box::new(cut.clone()));
            directive.not_before_ms = not_before_ms;
        }
        self.facts.insert("permissions".into(), cut.permissions.len().into());
        self.say(verb, Reason::Operator)
    }

    /// A consumer's answer to `credential.rotated`.
    pub(super) fn adopted(mut self, it: &CredentialAdopted) -> Decision {
        let case = self.view.cases.get(&it.credential).filter(|case| {
            let turn = &case.state.turn;
            // No more names than a recipe can have: whoever makes them up fills no journal.
            let is_full = !it.failed && turn.adopted.len() >= Turn::CONSUMERS;
            let is_meant = case.state.awaits(&it.consumer, it.version, it.failed);
            is_meant && !turn.unhealthy && !is_full && !turn.adopted.contains(&it.consumer)
        });
        let Some(case) = case else {
            return self.say(Verb::Ignore, Reason::NotAwaited);
        };
        self.facts.insert("case".into(), case.id.to_string().into());
        let answered = Word::Answered { consumer: it.consumer.clone(), version: it.version, failed: it.failed };
        self.words.push((it.credential.clone(), answered));
        self.say(Verb::Track, if it.failed { Reason::AdoptionFailed } else { Reason::Adopted })
    }
}

fn blade(trigger: Trigger, urgency: Urgency) -> Blade {
    Blade { trigger, urgency, end_ms: None }
}
