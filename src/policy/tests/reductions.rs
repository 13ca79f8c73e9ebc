//! What an identity may do less, after a notice: what is asked, and how it meets what is asked besides.

use super::findings::opened;
use super::*;
use crate::case::HoldReason;
use crate::case::record::Record;
use crate::case::state::State;
use crate::event::FindingClosed;
use crate::finding;
use crate::policy::rules::{FindingRule, Response, When};
use crate::reach::notice::TOPIC;
use crate::scope::{Cut, permissions};

fn role() -> CredentialId {
    CredentialId::new(Kind::PostgresRole, "appdb", "etl").unwrap()
}

fn known() -> Data {
    Data::CredentialRegistered(CredentialRegistered {
        credential: role(),
        fingerprints: Vec::new(),
        version: Some(1),
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    })
}

fn found(detector: &str, excess: &[&str]) -> Data {
    let excess = if excess.is_empty() { Vec::new() } else { permissions(excess).unwrap() };
    Data::FindingObserved(Box::new(FindingObserved {
        finding_key: "f".into(),
        credential: Some(role()),
        detector: detector.into(),
        validity: "unknown".into(),
        reopened: true,
        excess,
        ..FindingObserved::default()
    }))
}

fn rule(detector: &str, then: Response, notice_ms: i64) -> FindingRule {
    let when = When { detector: Some(vec![detector.to_owned()]), ..When::default() };
    FindingRule { notice_ms, ..FindingRule::new(when, then) }
}

fn world() -> World {
    let mut world = World::new();
    world.rules.findings =
        vec![rule("curfew:beyond", Response::Reduce, 7 * HOUR), rule("curfew:dormant", Response::Retire, 9 * HOUR)];
    world.tell(known());
    world
}

/// The case of the last directive, as it stands after `records`.
fn open(world: &mut World, records: &[Record]) {
    let directive = world.asked.last().unwrap().clone();
    let state = records.iter().try_fold(State::opened(&directive), State::next).unwrap();
    world.view.cases.insert(role(), Arc::new(opened(&directive, state)));
}

fn meeting(world: &World, directive: &Directive) -> Meeting {
    meet(&world.view.cases[&role()], directive)
}

#[test]
fn what_is_too_much_is_frozen_and_told_before_it_is_taken() {
    let mut world = world();
    let decision = world.tell(found("curfew:beyond", &["member:admins", "member:writers"]));
    assert_eq!((decision.verb, decision.reason), (Verb::Reduce, Reason::FindingMatched));
    let directive = &decision.directives[0];
    assert_eq!((directive.action, directive.held), (Action::Reduce, None));
    assert_eq!(directive.not_before_ms, Some(directive.broker_ms + 7 * HOUR));
    assert_eq!(directive.cut.as_ref().unwrap().permissions, permissions(["member:admins", "member:writers"]).unwrap());
}

#[test]
fn what_cannot_be_named_is_a_person_s() {
    let mut world = world();
    let decision = world.tell(found("curfew:beyond", &[]));
    assert_eq!(decision.directives[0].held, Some(HoldReason::Finding));
    assert_eq!((decision.directives[0].action, decision.directives[0].cut.as_ref()), (Action::Track, None));
}

#[test]
fn who_is_used_again_before_the_notice_is_over_is_not_retired() {
    let mut world = world();
    let decision = world.tell(found("curfew:dormant", &[]));
    let directive = &decision.directives[0];
    assert_eq!((directive.action, directive.cut.as_ref()), (Action::Revoke, None));
    assert_eq!(directive.not_before_ms, Some(directive.broker_ms + 9 * HOUR));
    open(&mut world, &[Record::Held { reason: HoldReason::Notice }]);
    let over = Data::FindingClosed(FindingClosed { finding_key: "f".into(), reason: "resolved".into() });
    assert_eq!(world.tell(over).words, [(role(), Word::Withdrawn)]);
}

#[test]
fn a_leak_does_not_wait_out_somebody_else_s_notice() {
    let mut world = world();
    world.tell(found("curfew:dormant", &[]));
    open(&mut world, &[Record::Held { reason: HoldReason::Notice }]);
    let directive = world.asked.last().unwrap().clone();
    let now = |action| Directive { action, not_before_ms: None, ..directive.clone() };
    assert_eq!(meeting(&world, &now(Action::Contain)), Meeting::Supersede);
    assert_eq!(meeting(&world, &now(Action::Revoke)), Meeting::Supersede);
    assert_eq!(meeting(&world, &now(Action::Rollover)), Meeting::Supersede, "it may have leaked");
    let hygiene = Directive { trigger: Trigger::Age, ..now(Action::Rollover) };
    assert_eq!(meeting(&world, &hygiene), Meeting::Join, "hygiene waits");
    assert_eq!(meeting(&world, &directive), Meeting::Join, "the same again has the notice of the first");
    let held = Directive { held: Some(HoldReason::Finding), ..now(Action::Contain) };
    assert_eq!(meeting(&world, &held), Meeting::Join);
}

#[test]
fn nothing_waits_for_what_a_log_of_use_says_but_what_rests_on_it() {
    let mut world = world();
    world.tell(found("curfew:dormant", &[]));
    let directive = world.asked.last().unwrap().clone();
    let silent = finding::id(TOPIC, &format!("dormant:{}", role()));
    let retire = Directive { not_before_ms: None, finding: Some(silent), topic: TOPIC.into(), ..directive };
    world.view.cases.insert(role(), Arc::new(opened(&retire, State::opened(&retire))));
    let other = |action, trigger| Directive { action, trigger, finding: None, topic: "t".into(), ..retire.clone() };
    assert_eq!(meeting(&world, &other(Action::Contain, Trigger::Finding)), Meeting::Supersede);
    assert_eq!(meeting(&world, &other(Action::Revoke, Trigger::Operator)), Meeting::Supersede);
    assert_eq!(meeting(&world, &other(Action::Revoke, Trigger::TaskEnd)), Meeting::Supersede);
    assert_eq!(meeting(&world, &other(Action::Rollover, Trigger::Finding)), Meeting::Supersede);
    assert_eq!(meeting(&world, &other(Action::Rollover, Trigger::Age)), Meeting::Join);
    assert_eq!(meeting(&world, &retire), Meeting::Join);
}

#[test]
fn an_operator_s_order_counts_and_is_not_lost_in_what_goes_on() {
    let mut world = world();
    world.tell(found("curfew:beyond", &["member:admins"]));
    open(&mut world, &[Record::Held { reason: HoldReason::Notice }]);
    let cut = |names: &[&str]| Cut::of(permissions(names).unwrap());
    let order = |cut| Data::OperatorReduce {
        credential: role(),
        cut,
        not_before_ms: None,
        by: "ann".into(),
        reason: "r".into(),
    };
    for names in [&["member:admins"][..], &["member:writers"]] {
        let decision = world.tell(order(cut(names)));
        assert_eq!((decision.verb, decision.reason), (Verb::Reduce, Reason::Operator));
        assert_eq!(meeting(&world, &decision.directives[0]), Meeting::Supersede, "{names:?}: now, without notice");
    }
    // With a notice as well, also where what is open has none.
    let open_now = Directive { not_before_ms: None, ..world.asked.last().unwrap().clone() };
    let state = State::opened(&open_now).next(&Record::Held { reason: HoldReason::Refused }).unwrap();
    world.view.cases.insert(role(), Arc::new(opened(&open_now, state)));
    let later = Directive { not_before_ms: Some(NOW + 9 * HOUR), ..open_now.clone() };
    let other = Directive { cut: Some(Box::new(cut(&["member:readers"]))), ..later };
    assert_eq!(meeting(&world, &other), Meeting::Supersede);
    let given = Data::OperatorRestore {
        credential: role(),
        cut: cut(&["member:admins"]),
        case: uuid::Uuid::nil(),
        by: "ann".into(),
        reason: "r".into(),
    };
    let decision = world.tell(given);
    assert_eq!((decision.verb, decision.directives[0].action), (Verb::Restore, Action::Restore));
    assert_eq!(meeting(&world, &decision.directives[0]), Meeting::Supersede);
    let leak = Directive { action: Action::Contain, cut: None, ..decision.directives[0].clone() };
    assert_eq!(meeting(&world, &leak), Meeting::Supersede);
}

#[test]
fn what_goes_on_is_not_put_off_by_somebody_s_notice() {
    let mut world = world();
    world.tell(found("curfew:dormant", &[]));
    let retire = world.asked.last().unwrap().clone();
    let leak = Directive { action: Action::Contain, not_before_ms: None, ..retire.clone() };
    let state = [Record::Held { reason: HoldReason::Cap }].iter().try_fold(State::opened(&leak), State::next).unwrap();
    world.view.cases.insert(role(), Arc::new(opened(&leak, state)));
    assert_eq!(meeting(&world, &retire), Meeting::Join, "it would wait two weeks, and end with the other's reason");
}

#[test]
fn a_known_leak_that_is_seen_to_work_is_news_while_only_a_notice_runs() {
    let mut world = world();
    world.rules.findings.push(rule("aws-key", Response::Contain, 0));
    let leak = |validity: &str| {
        Data::FindingObserved(Box::new(FindingObserved {
            finding_key: "leak".into(),
            credential: Some(role()),
            detector: "aws-key".into(),
            validity: validity.into(),
            ..FindingObserved::default()
        }))
    };
    assert_eq!(world.tell(leak("active")).verb, Verb::Contain);
    world.tell(found("curfew:beyond", &["member:admins"]));
    open(&mut world, &[Record::Held { reason: HoldReason::Notice }]);
    let again = world.tell(leak("active"));
    assert_eq!((again.verb, again.reason), (Verb::Contain, Reason::FindingMatched));
}

#[test]
fn what_a_person_must_decide_is_not_decided_by_a_time_that_runs_out() {
    let mut world = world();
    world.tell(found("curfew:dormant", &[]));
    let directive = world.asked.last().unwrap().clone();
    let kept = Record::Kept { by: "bob".into(), reason: "r".into(), until_ms: NOW + HOUR };
    for (reason, allowed) in [
        (HoldReason::Notice, true),
        (HoldReason::Kept, true),
        (HoldReason::Observe, true),
        (HoldReason::Unregistered, false),
        (HoldReason::Finding, false),
        (HoldReason::Refused, false),
    ] {
        let state = State::opened(&directive).next(&Record::Held { reason }).unwrap();
        assert_eq!(state.next(&kept).is_ok(), allowed, "{reason:?}");
    }
}

#[test]
fn what_is_found_no_more_is_not_taken_with_the_rest() {
    let mut world = world();
    world.tell(found("curfew:beyond", &["member:admins", "member:writers"]));
    open(&mut world, &[Record::Held { reason: HoldReason::Notice }]);
    assert_eq!(world.tell(found("curfew:beyond", &["member:admins", "member:writers"])).words, [], "the same again");
    let more = world.tell(found("curfew:beyond", &["member:admins", "member:writers", "member:owners"]));
    assert_eq!((more.words.len(), more.directives.len()), (0, 0), "what was frozen does not grow");
    let less = world.tell(found("curfew:beyond", &["member:admins"]));
    let spared = permissions(["member:writers"]).unwrap();
    assert_eq!(less.words, [(role(), Word::Spared(spared.clone()))]);

    let case = world.view.cases[&role()].clone();
    let record = Record::Spared { permissions: spared.clone(), by: "reach:".into() };
    let state = case.state.clone().next(&record).unwrap();
    assert_eq!(state.cutting.spared, spared);
    let case = Case { state, ..(*case).clone() };
    let left = crate::connector::Rescope::of(&case).unwrap().cut.permissions;
    assert_eq!(left, permissions(["member:admins"]).unwrap());
    // An operator's word is about what it names.
    let by = world.asked.last().unwrap().clone();
    assert!(case.state.clone().next(&Record::Superseded { by }).unwrap().cutting.spared.is_empty());
    world.view.cases.insert(role(), Arc::new(case));
    assert_eq!(world.tell(found("curfew:beyond", &["member:admins"])).words, [], "said already");
    assert_eq!(world.tell(found("curfew:beyond", &["member:owners"])).words, [(role(), Word::Withdrawn)]);
    // What has begun goes on.
    let mut begun = (*world.view.cases[&role()]).clone();
    begun.state.begun = true;
    assert!(begun.state.clone().next(&record).is_err());
    world.view.cases.insert(role(), Arc::new(begun));
    assert_eq!(world.tell(found("curfew:beyond", &["member:owners"])).words, []);
}
