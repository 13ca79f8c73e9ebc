//! Who leaves: a state, what of it is found, what is fenced first, and the end of that.

use super::findings::opened;
use super::*;
use crate::case::HoldReason;
use crate::case::record::Record;
use crate::case::state::State;
use crate::event::{FindingClosed, IdentityOffboarded, Leaves};
use crate::offboard::LONGEST_FENCE_MS;
use crate::policy::rules::{FindingRule, Response, When};
use crate::reach::Node;
use crate::reach::notice::TOPIC;
use crate::scope::{Cut, Held, Permission};

fn id(kind: Kind, id: &str) -> CredentialId {
    CredentialId::new(kind, "prod", id).unwrap()
}

fn secret_id() -> CredentialId {
    id(Kind::VaultSecretId, "approle/etl/a")
}

/// What reach says of a credential of somebody who leaves.
fn found(world: &mut World, credential: &CredentialId, leaves: Leaves) -> Decision {
    world.now_ms += 1_000;
    let mut event = event(
        world.now_ms,
        Data::FindingObserved(Box::new(FindingObserved {
            finding_key: credential.to_string(),
            credential: Some(credential.clone()),
            detector: "curfew:offboarded".into(),
            validity: "unknown".into(),
            reopened: true,
            leaves: Some(leaves),
            ..FindingObserved::default()
        })),
    );
    event.at.topic = TOPIC.into();
    world.take(&event)
}

fn leaves(fence_until_ms: Option<i64>) -> Leaves {
    Leaves { topics: vec!["hr".to_owned()], fence_until_ms, shared: false }
}

fn world(credential: &CredentialId) -> World {
    let mut world = World::new();
    world.tell(Data::CredentialRegistered(CredentialRegistered {
        credential: credential.clone(),
        fingerprints: Vec::new(),
        version: Some(1),
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    }));
    world
}

fn node() -> Node {
    Node::parse("identity:prod/approle/etl").unwrap()
}

#[test]
fn that_somebody_leaves_is_kept_with_the_topic_and_an_end_and_asks_nothing_by_itself() {
    let mut world = World::new();
    world.rules.fence_for_ms = 9 * HOUR;
    let said = |until_ms| {
        Data::IdentityOffboarded(IdentityOffboarded { node: node(), since_ms: Some(7), until_ms, reason: "r".into() })
    };
    let mut kept = |data| {
        let decision = world.tell(data);
        assert_eq!((decision.verb, decision.directives.len(), decision.words.len()), (Verb::Track, 0, 0));
        let [Change::Offboarded(one)] = decision.changes.as_slice() else { panic!("{:?}", decision.changes) };
        (one.clone(), world.now_ms)
    };
    let (one, now_ms) = kept(said(None));
    assert_eq!((one.since_ms, one.until_ms, &*one.topic), (7, now_ms + 9 * HOUR, "curfew.tasks"));
    assert_eq!(kept(said(Some(NOW + 9))).0.until_ms, NOW + 9);
    let (one, now_ms) = kept(said(Some(i64::MAX)));
    assert_eq!(one.until_ms, now_ms + LONGEST_FENCE_MS);
    let order =
        |back| Data::OperatorOffboard { node: node(), back, until_ms: None, by: "ann".into(), reason: "r".into() };
    let (one, _) = kept(order(false));
    assert_eq!((one.by.as_deref(), one.node), (Some("ann"), node()));
    let back = world.tell(order(true));
    assert_eq!(back.reason, Reason::Onboarded);
    assert!(matches!(back.changes.as_slice(), [Change::Onboarded(_, one)] if *one == node()), "{:?}", back.changes);
}

#[test]
fn what_belongs_to_it_is_retired_without_a_rule_on_the_word_of_who_said_so() {
    let mut world = world(&secret_id());
    let until_ms = NOW + 30 * 24 * HOUR;
    let decision = found(&mut world, &secret_id(), leaves(Some(until_ms)));
    let directive = &decision.directives[0];
    assert_eq!((decision.verb, directive.action, directive.held), (Verb::Revoke, Action::Revoke, None));
    assert_eq!((directive.urgency, directive.not_before_ms), (Urgency::Urgent, None));
    assert_eq!(directive.asked_by().collect::<Vec<_>>(), ["hr"], "reach's own authority says nothing of it");
    assert_eq!(directive.cut.as_deref(), Cut::fence(Kind::VaultSecretId, until_ms).as_ref());
}

#[test]
fn only_who_leaves_as_a_whole_is_fenced_and_only_till_the_end() {
    for (credential, until_ms) in
        [(secret_id(), None), (secret_id(), Some(NOW)), (id(Kind::VaultLease, "database/creds/ro/a"), Some(NOW + HOUR))]
    {
        let mut world = world(&credential);
        let decision = found(&mut world, &credential, leaves(until_ms));
        assert_eq!((decision.directives[0].action, &decision.directives[0].cut), (Action::Revoke, &None));
    }
}

#[test]
fn a_person_decides_where_somebody_stays_who_uses_it_or_a_rule_says_so() {
    let mut world = world(&secret_id());
    let shared = Leaves { shared: true, ..leaves(Some(NOW + HOUR)) };
    let decision = found(&mut world, &secret_id(), shared);
    assert_eq!(
        (decision.directives[0].action, decision.directives[0].held),
        (Action::Track, Some(HoldReason::Finding))
    );
    assert_eq!(decision.directives[0].cut, None);
    let when = When { detector: Some(vec!["curfew:offboarded".into()]), ..When::default() };
    let mut world = self::world(&secret_id());
    world.rules.findings.insert(0, FindingRule { notice_ms: HOUR, ..FindingRule::new(when.clone(), Response::Retire) });
    let decision = found(&mut world, &secret_id(), leaves(Some(NOW + 9 * HOUR)));
    let directive = &decision.directives[0];
    assert_eq!(directive.not_before_ms, Some(directive.broker_ms + HOUR), "a notice, where the rule has one");
    assert!(directive.cut.is_some());
    let mut world = self::world(&secret_id());
    world.rules.findings.insert(0, FindingRule::new(when, Response::Hold));
    assert_eq!(found(&mut world, &secret_id(), leaves(None)).directives[0].held, Some(HoldReason::Finding));
    // Nobody from outside says that of a credential.
    let mut world = self::world(&secret_id());
    let other = Data::FindingObserved(Box::new(FindingObserved {
        finding_key: "f".into(),
        credential: Some(secret_id()),
        detector: "curfew:offboarded".into(),
        validity: "unknown".into(),
        ..FindingObserved::default()
    }));
    assert_eq!(world.tell(other).directives[0].action, Action::Track);
}

#[test]
fn who_stays_after_all_keeps_what_was_not_begun() {
    let mut world = world(&secret_id());
    found(&mut world, &secret_id(), leaves(Some(NOW + HOUR)));
    let directive = world.asked.last().unwrap().clone();
    let over = |world: &mut World| {
        world.now_ms += 1_000;
        let data = FindingClosed { finding_key: secret_id().to_string(), reason: "resolved".into() };
        let mut event = event(world.now_ms, Data::FindingClosed(data));
        event.at.topic = TOPIC.into();
        world.take(&event).words
    };
    let mut state = State::opened(&directive).next(&Record::Held { reason: HoldReason::Authority }).unwrap();
    world.view.cases.insert(secret_id(), Arc::new(opened(&directive, state.clone())));
    assert_eq!(over(&mut world), [(secret_id(), Word::Withdrawn)]);
    state.acted = true;
    world.view.cases.insert(secret_id(), Arc::new(opened(&directive, state)));
    assert_eq!(over(&mut world), [], "what has begun goes on");
}

#[test]
fn what_it_rests_on_is_said_again_and_counts_until_somebody_has_begun() {
    let mut world = world(&secret_id());
    found(&mut world, &secret_id(), leaves(Some(NOW + HOUR)));
    let directive = world.asked.last().unwrap().clone();
    let waits = State::opened(&directive).next(&Record::Held { reason: HoldReason::Authority }).unwrap();
    let mut again = |state: State, leaves: Leaves| {
        world.view.cases.insert(secret_id(), Arc::new(opened(&directive, state)));
        let decision = found(&mut world, &secret_id(), leaves);
        let asked = decision.directives.first().cloned();
        (decision.reason, asked.map(|asked| (meet(&world.view.cases[&secret_id()], &asked), asked)))
    };
    let other = Leaves { topics: vec!["iam".to_owned()], ..leaves(Some(NOW + HOUR)) };
    let (_, asked) = again(waits.clone(), other.clone());
    let (meeting, asked) = asked.unwrap();
    assert_eq!(
        (meeting, asked.asked_by().collect::<Vec<_>>()),
        (Meeting::Supersede, vec!["iam"]),
        "it lacked authority"
    );
    assert_eq!(again(waits.clone(), other.clone()), (Reason::FindingKnown, None), "the same again says nothing");
    // It goes on already: another authority joins, and another end counts as long as nothing was begun.
    let open = State::opened(&directive);
    let meeting = |asked: Option<(Meeting, Directive)>| asked.map(|(meeting, _)| meeting);
    assert_eq!(meeting(again(open.clone(), leaves(Some(NOW + HOUR))).1), Some(Meeting::Join));
    assert_eq!(meeting(again(open.clone(), leaves(Some(NOW + 9 * HOUR))).1), Some(Meeting::Supersede));
    let begun = State { begun: true, ..open.clone() };
    assert_eq!(meeting(again(begun.clone(), leaves(None)).1), Some(Meeting::Join), "what has begun goes on");
    // Somebody turns out to stay.
    let shared = Leaves { shared: true, ..leaves(None) };
    let (_, asked) = again(open.clone(), shared.clone());
    let (met, asked) = asked.unwrap();
    assert_eq!((met, asked.held), (Meeting::Supersede, Some(HoldReason::Finding)), "a person sees to that first");
    again(open, other);
    assert_eq!(meeting(again(begun, shared).1), Some(Meeting::Join));
}

#[test]
fn only_what_reach_itself_found_is_taken_back_under_that_name() {
    let mut world = world(&secret_id());
    let told = |world: &mut World, data| {
        world.now_ms += 1_000;
        let event = event(world.now_ms, data);
        world.take(&event)
    };
    told(
        &mut world,
        Data::FindingObserved(Box::new(FindingObserved {
            finding_key: "f".into(),
            credential: Some(secret_id()),
            detector: "curfew:offboarded".into(),
            validity: "active".into(),
            ..FindingObserved::default()
        })),
    );
    let mut directive = world.asked.last().unwrap().clone();
    (directive.action, directive.held) = (Action::Revoke, None);
    world.view.cases.insert(secret_id(), Arc::new(opened(&directive, State::opened(&directive))));
    let over = FindingClosed { finding_key: "f".into(), reason: "resolved".into() };
    assert_eq!(told(&mut world, Data::FindingClosed(over)).words, [], "the value leaked, whatever they call it");
}

#[test]
fn the_end_of_a_fence_gives_back_what_its_case_recorded_and_waits_for_whatever_is_at_work() {
    let role = id(Kind::VaultApprole, "approle/etl");
    let held = vec![Held { permission: Permission::parse("fence:token_bound_cidrs").unwrap(), how: "{}".into() }];
    let case = uuid::Uuid::from_u128(7);
    let over = Data::FenceOver { credential: role.clone(), cut: Cut::back(held.clone(), case).unwrap() };
    let mut world = World::new();
    let decision = world.tell(over.clone());
    assert_eq!((decision.verb, decision.reason), (Verb::Restore, Reason::FenceOver));
    let directive = &decision.directives[0];
    assert_eq!((&directive.credential, directive.action, directive.held), (&role, Action::Restore, None));
    let cut = directive.cut.as_deref().unwrap();
    assert_eq!((&cut.held, cut.case, directive.grantors.len()), (&held, Some(case), 0));
    world.view.cases.insert(role, Arc::new(opened(directive, State::opened(directive))));
    assert_eq!(world.tell(over).reason, Reason::Expected);
}
