//! How findings and the inventory meet.

use super::*;
use crate::case::record::{Generation, Record};
use crate::case::state::State;
use crate::case::turn::Turn;
use crate::event::{ACCESS_KEY_ID, CredentialAdopted, FindingClosed, Identifier, PartFingerprint, access_key_mark};
use crate::finding::{Phase as Stand, Validity};
use crate::fingerprint::Fingerprint;
use crate::policy::rules::{FindingRule, Response, When};

fn role() -> CredentialId {
    CredentialId::new(Kind::PostgresRole, "appdb", "app").unwrap()
}

fn part(n: u8) -> PartFingerprint {
    let fingerprint = Fingerprint::of_parts("k1", &format!("{n:02x}").repeat(32)).unwrap();
    PartFingerprint { fingerprint, part: None }
}

fn registered(credential: CredentialId, n: u8, version: i64, current: bool) -> Data {
    Data::CredentialRegistered(CredentialRegistered {
        credential,
        fingerprints: vec![part(n)],
        version: Some(version),
        current,
        issued_ms: None,
        owner: None,
        environment: Some("prod".into()),
    })
}

fn seen(key: &str, n: u8, validity: &str, public: bool) -> FindingObserved {
    FindingObserved {
        finding_key: key.into(),
        detector: "generic".into(),
        validity: validity.into(),
        public,
        fingerprints: vec![part(n)],
        ..FindingObserved::default()
    }
}

fn observed(key: &str, n: u8, validity: &str, public: bool) -> Data {
    Data::FindingObserved(Box::new(seen(key, n, validity, public)))
}

fn closed(key: &str) -> Data {
    Data::FindingClosed(FindingClosed { finding_key: key.into(), reason: "false_positive".into() })
}

fn asked(decision: &Decision) -> Vec<(Action, Option<i64>)> {
    decision.directives.iter().map(|d| (d.action, d.generation)).collect()
}

#[test]
fn what_leaked_and_works_or_is_public_is_contained_and_the_rest_rolled_over() {
    for (validity, public, expected) in [
        ("active", false, Action::Contain),
        ("unknown", true, Action::Contain),
        ("unknown", false, Action::Rollover),
        ("inactive", false, Action::Verify),
    ] {
        let mut world = World::new();
        world.tell(registered(role(), 1, 3, true));
        let decision = world.tell(observed("f", 1, validity, public));
        assert_eq!(asked(&decision), [(expected, Some(3))], "{validity} {public}");
        assert_eq!(decision.reason, Reason::FindingMatched);
        assert_eq!(decision.directives[0].finding.as_deref(), Some("curfew.tasks:f"));
        assert!(decision.facts["rule"].as_u64().is_some(), "which rule it was can be read later");
    }
}

#[test]
fn a_finding_waits_for_the_inventory_and_is_matched_when_that_learns_of_it() {
    let mut world = World::new();
    let first = world.tell(observed("f", 7, "active", false));
    assert_eq!((first.verb, first.reason), (Verb::Track, Reason::FindingUnmatched));
    assert_eq!(world.view.findings["curfew.tasks:f"].phase, Stand::Unmatched);
    assert!(world.tell(registered(role(), 8, 1, true)).directives.is_empty(), "another value");
    let matched = world.tell(registered(role(), 7, 2, true));
    assert_eq!(asked(&matched), [(Action::Contain, Some(2))]);
    assert_eq!(
        matched.directives[0].grantors,
        ["curfew.tasks"],
        "on the word of who observed it, not on the inventory's"
    );
    assert_eq!(world.view.findings["curfew.tasks:f"].phase, Stand::Matched);
    assert!(world.tell(registered(role(), 7, 2, true)).directives.is_empty(), "once");
}

/// A scanner that has no key names what it found in public.
#[test]
fn an_access_key_is_matched_by_its_id_alone() {
    let key = |id: &str| CredentialId::new(Kind::AwsAccessKey, "aws", &format!("ci/bot/{id}")).unwrap();
    let [first, second] = ["AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLF"];
    let listed = |id: &str| {
        Data::CredentialRegistered(CredentialRegistered {
            credential: key(id),
            fingerprints: Vec::new(),
            version: None,
            current: true,
            issued_ms: None,
            owner: None,
            environment: None,
        })
    };
    let found = |name: &str, kind: &str, id: &str| {
        let identifiers = vec![Identifier { kind: kind.into(), value: id.into() }];
        let seen = FindingObserved { fingerprints: Vec::new(), identifiers, ..seen(name, 0, "active", false) };
        Data::FindingObserved(Box::new(seen))
    };
    let mut world = World::new();
    world.tell(listed(second));
    // Before the list has it, it waits; a name of another kind names nothing.
    assert_eq!(world.tell(found("f", ACCESS_KEY_ID, first)).reason, Reason::FindingUnmatched);
    assert_eq!(world.tell(found("g", "user_name", second)).reason, Reason::FindingUnmatched);
    let matched = world.tell(listed(first));
    assert_eq!(asked(&matched), [(Action::Revoke, None)], "nothing replaces it");
    assert_eq!(matched.directives[0].credential, key(first), "and not the user's other key");
    let second = world.tell(found("h", ACCESS_KEY_ID, second));
    assert_eq!(second.directives.len(), 1);
    // A key that a rotation stores is the rotation's: by itself it would only be disabled.
    let third = "AKIAIOSFODNN7EXAMPLG";
    let user = CredentialId::new(Kind::AwsUser, "aws", "ci/bot").unwrap();
    let stored = |id: &str, version| {
        Data::CredentialRegistered(CredentialRegistered {
            credential: user.clone(),
            fingerprints: vec![PartFingerprint { fingerprint: access_key_mark(id).unwrap(), part: None }],
            version: Some(version),
            current: true,
            issued_ms: None,
            owner: None,
            environment: None,
        })
    };
    world.tell(listed(third));
    world.tell(stored(third, 1));
    let contained = world.tell(found("i", ACCESS_KEY_ID, third));
    assert_eq!(asked(&contained), [(Action::Contain, Some(1))]);
    assert_eq!(contained.directives[0].credential, user);
    // One that it has replaced is ended by itself, if it still lets in: the one that consumers read is not meant.
    let mut world = World::new();
    world.tell(listed(third));
    world.tell(stored(third, 1));
    world.tell(stored("AKIAIOSFODNN7EXAMPLH", 2));
    let replaced = world.tell(found("j", ACCESS_KEY_ID, third));
    assert_eq!(asked(&replaced), [(Action::Revoke, None)]);
    assert_eq!(replaced.directives[0].credential, key(third));
    // What is no id of a long-lived key is no mark.
    for id in ["ASIAIOSFODNN7EXAMPLE", "AKIA", "akiaiosfodnn7example", ""] {
        assert_eq!(access_key_mark(id), None, "{id}");
    }
}

#[test]
fn the_same_finding_again_fires_again_only_when_it_is_worse() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    assert_eq!(asked(&world.tell(observed("f", 1, "unknown", false))), [(Action::Rollover, Some(1))]);
    let again = world.tell(observed("f", 1, "unknown", false));
    assert_eq!((again.verb, again.reason, again.directives.len()), (Verb::Track, Reason::FindingKnown, 0));
    assert_eq!(asked(&world.tell(observed("f", 1, "active", false))), [(Action::Contain, Some(1))]);
    let told = world.tell(observed("f", 1, "unknown", false));
    assert!(told.directives.is_empty());
    assert_eq!(
        world.view.findings["curfew.tasks:f"].validity,
        Validity::Active,
        "a check that said nothing takes back none"
    );
}

#[test]
fn a_value_that_was_replaced_is_only_looked_at() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    world.tell(registered(role(), 2, 2, true));
    let old = world.tell(observed("f", 1, "active", true));
    assert_eq!((old.verb, old.reason), (Verb::Verify, Reason::FindingOfDead));
    assert_eq!(asked(&old), [(Action::Verify, Some(1))]);
    // Out of order: an older version that is said to be current is not.
    world.tell(registered(role(), 3, 1, true));
    assert_eq!(world.view.credentials[&role()].version, Some(2));
}

#[test]
fn while_a_rotation_runs_the_value_before_the_newest_is_not_called_dead() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    let rollover = world.tell(observed("f", 1, "unknown", false)).directives[0].clone();
    world.view.cases.insert(role(), Arc::new(opened(&rollover, State::opened(&rollover))));
    world.tell(registered(role(), 2, 2, true));
    let leaked = world.tell(observed("g", 1, "active", false));
    assert_eq!(asked(&leaked), [(Action::Contain, Some(1))]);
    assert_eq!(meet(&world.view.cases[&role()], &leaked.directives[0]), Meeting::Supersede);
}

#[test]
fn honeytokens_and_closed_findings_are_left_alone() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    let bait = FindingObserved { honeytoken: true, ..seen("h", 1, "active", true) };
    assert_eq!(world.tell(Data::FindingObserved(Box::new(bait))).reason, Reason::Honeytoken);
    assert!(world.tell(observed("h", 1, "active", true)).directives.is_empty(), "bait stays bait");
    assert_eq!(world.tell(closed("nobody")).reason, Reason::FindingForeign);
    world.tell(observed("f", 9, "active", true));
    assert_eq!(world.tell(closed("f")).reason, Reason::FindingClosed);
    assert!(world.tell(observed("f", 9, "active", true)).directives.is_empty());
    assert!(world.tell(registered(role(), 9, 1, true)).directives.is_empty(), "closed ones do not wait");
    let again = |key: &str| FindingObserved { reopened: true, ..seen(key, 9, "active", true) };
    let reopened = world.tell(Data::FindingObserved(Box::new(again("f"))));
    assert_eq!((reopened.reason, asked(&reopened)), (Reason::FindingMatched, vec![(Action::Contain, Some(1))]));
    let bait = FindingObserved { honeytoken: false, ..again("h") };
    assert!(world.tell(Data::FindingObserved(Box::new(bait))).directives.is_empty(), "bait is not reopened");
}

#[test]
fn a_lease_that_leaked_dies_and_one_that_may_have_is_left_to_its_task() {
    let mut world = World::new();
    world.tell(start("a", 1, vec![minted("x")]));
    let named = |key: &str, validity: &str| {
        let finding = FindingObserved { credential: Some(lease("x")), ..seen(key, 5, validity, false) };
        Data::FindingObserved(Box::new(finding))
    };
    let held = world.tell(named("f", "unknown"));
    assert_eq!((held.verb, held.directives[0].held), (Verb::Hold, Some(HoldReason::Finding)));
    let revoked = world.tell(named("g", "active"));
    assert_eq!((revoked.verb, asked(&revoked)), (Verb::Revoke, vec![(Action::Revoke, None)]));
}

#[test]
fn rules_of_ones_own_choose_by_environment_and_the_first_that_fits_wins() {
    let mut world = World::new();
    let prod = When { environment: Some(vec!["prod".into()]), ..When::default() };
    world.rules.findings = vec![
        FindingRule::new(When { severity: Some(vec!["low".into()]), ..When::default() }, Response::Ignore),
        FindingRule::new(prod, Response::Contain),
    ];
    world.tell(registered(role(), 1, 1, true));
    assert_eq!(asked(&world.tell(observed("f", 1, "unknown", false))), [(Action::Contain, Some(1))]);
    let low = FindingObserved { severity: Some("low".into()), ..seen("g", 1, "active", true) };
    let ignored = world.tell(Data::FindingObserved(Box::new(low)));
    assert_eq!((ignored.verb, ignored.reason), (Verb::Ignore, Reason::FindingIgnored));
    // Nothing fits: a person.
    let dev = CredentialId::new(Kind::PostgresRole, "appdb", "dev").unwrap();
    world.tell(Data::CredentialRegistered(CredentialRegistered {
        credential: dev,
        fingerprints: vec![part(2)],
        version: None,
        current: true,
        issued_ms: None,
        owner: None,
        environment: Some("dev".into()),
    }));
    assert_eq!(world.tell(observed("h", 2, "active", true)).verb, Verb::Hold);
}

/// A case that `directive` opened.
pub(super) fn opened(directive: &Directive, state: State) -> Case {
    Case {
        id: uuid::Uuid::nil(),
        tenant: "acme".into(),
        directive: directive.clone(),
        system: "appdb".into(),
        lane: "l".into(),
        principal: None,
        seen_ms: None,
        opened_ms: 0,
        traceparent: None,
        seq: 1,
        blast: None,
        charged: false,
        state,
    }
}

#[test]
fn closing_takes_back_what_nobody_began_and_never_a_containment() {
    for (validity, acted, expected) in [("unknown", false, true), ("unknown", true, false), ("active", false, false)] {
        let mut world = World::new();
        world.tell(registered(role(), 1, 1, true));
        let directive = world.tell(observed("f", 1, validity, false)).directives[0].clone();
        let state = State { acted, ..State::opened(&directive) };
        world.view.cases.insert(role(), Arc::new(opened(&directive, state)));
        assert_eq!(world.tell(closed("f")).words == [(role(), Word::Withdrawn)], expected, "{validity} {acted}");
    }
}

#[test]
fn a_topic_that_never_saw_a_finding_cannot_close_it() {
    let mut world = World::new();
    world.tell(observed("f", 1, "active", true));
    let mut foreign = event(world.now_ms, closed("f"));
    foreign.at.topic = "other".into();
    let decision = decide(&foreign, &world.view, &world.rules);
    assert_eq!((decision.verb, decision.reason), (Verb::Ignore, Reason::FindingForeign));
}

#[test]
fn a_finding_of_the_value_that_came_takes_the_case_over() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    let directive = world.tell(observed("f", 1, "active", false)).directives[0].clone();
    let mut state = State::opened(&directive);
    state.turn = Turn {
        old: Some(Generation { version: 1, user: None }),
        new: Some(Generation { version: 2, user: None }),
        ..Turn::default()
    };
    let case = opened(&directive, state);
    let again = |generation| Directive { generation, ..directive.clone() };
    assert_eq!(meet(&case, &again(Some(1))), Meeting::Join, "the value that goes anyway");
    assert_eq!(meet(&case, &again(Some(2))), Meeting::Supersede);
    let state = case.state.next(&Record::Superseded { by: again(Some(2)) }).unwrap();
    let left = vec![Generation { version: 1, user: None }];
    assert_eq!(state.turn, Turn { left, ..Turn::default() }, "a turn of its own, which ends the value before as well");
}

#[test]
fn what_comes_to_a_case_that_is_about_to_end_as_obsolete_takes_it_over() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    let directive = world.tell(observed("f", 1, "unknown", false)).directives[0].clone();
    let withdrawn = State::opened(&directive).next(&Record::Withdrawn { by: "t".into() }).unwrap();
    let case = opened(&directive, withdrawn);
    let later = world.tell(observed("g", 1, "unknown", false)).directives[0].clone();
    assert_eq!(meet(&case, &later), Meeting::Supersede, "joined, it would end with it");
    let state = case.state.next(&Record::Superseded { by: later }).unwrap();
    assert!(!state.withdrawn);
}

#[test]
fn whose_end_a_case_is() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    let contain = world.tell(observed("f", 1, "active", false)).directives[0].clone();
    let rotated = Turn { new: Some(Generation { version: 2, user: None }), ..Turn::default() };
    for (action, generation, turn, expected) in [
        (Action::Contain, Some(1), rotated.clone(), false),
        (Action::Contain, Some(1), Turn::default(), true),
        (Action::Verify, Some(1), Turn::default(), false),
        (Action::Verify, None, Turn::default(), true),
        (Action::Revoke, None, rotated, true),
    ] {
        let directive = Directive { action, generation, ..contain.clone() };
        let case = opened(&directive, State { turn, ..State::opened(&directive) });
        assert_eq!(case.ends_credential(), expected, "{action:?} {generation:?}");
    }
    let looked = Directive { action: Action::Verify, ..contain };
    let next = looked.refuted(true);
    assert_eq!((next.action, next.generation, next.urgency), (Action::Contain, None, Urgency::Urgent));
    assert_eq!(looked.refuted(false).action, Action::Revoke);
    assert_eq!(next.held, None, "a finding asked for the look");
    assert_eq!(next.refuted(true), next, "the same again");
}

#[test]
fn of_findings_that_wait_together_the_worst_counts() {
    let mut world = World::new();
    world.tell(observed("aa", 1, "unknown", false));
    let mut strong = event(world.now_ms, observed("bb", 1, "active", true));
    strong.at.topic = "strong".into();
    let decision = decide(&strong, &world.view, &world.rules);
    world.view.apply(&decision.changes);
    world.tell(observed("cc", 1, "unknown", false));
    let matched = world.tell(registered(role(), 1, 1, true));
    assert_eq!(asked(&matched), [(Action::Contain, Some(1))]);
    assert_eq!(matched.directives[0].grantors, ["strong"], "a rollover's topic does not lend itself to a containment");
    assert!(
        ["curfew.tasks:aa", "strong:bb", "curfew.tasks:cc"]
            .iter()
            .all(|id| { world.view.findings[*id].phase == Stand::Matched })
    );
}

#[test]
fn of_two_that_ask_for_the_same_the_one_that_is_not_put_off_counts() {
    let rule = |detector: &str, notice_ms| {
        let when = When { detector: Some(vec![detector.into()]), ..When::default() };
        FindingRule { notice_ms, ..FindingRule::new(when, Response::Contain) }
    };
    let rules = vec![rule("now", 0), rule("later", 9 * HOUR), rule("soon", 2 * HOUR)];
    let found = |key: &str, detector: &str| {
        Data::FindingObserved(Box::new(FindingObserved { detector: detector.into(), ..seen(key, 1, "active", false) }))
    };
    for (keys, put_off) in [
        (&[("a", "now"), ("b", "later")][..], None),
        (&[("a", "later"), ("b", "now")], None),
        (&[("a", "later"), ("b", "soon")], Some(2 * HOUR)),
        (&[("a", "soon"), ("b", "later")], Some(2 * HOUR)),
    ] {
        let mut world = World::new();
        world.rules.findings.clone_from(&rules);
        keys.iter().for_each(|(key, detector)| drop(world.tell(found(key, detector))));
        let matched = world.tell(registered(role(), 1, 1, true));
        let [directive] = matched.directives.as_slice() else { panic!("{matched:?}") };
        assert_eq!(directive.not_before_ms.map(|ms| ms - directive.broker_ms), put_off, "{keys:?}");
    }
}

#[test]
fn what_one_topic_says_of_a_key_is_nothing_to_another_topic() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    for (n, data) in [
        observed("f", 9, "active", true),
        Data::FindingObserved(Box::new(FindingObserved { honeytoken: true, ..seen("h", 9, "unknown", false) })),
        closed("f"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut weak = event(world.now_ms + n as i64, data);
        weak.at.topic = "weak".into();
        let decision = decide(&weak, &world.view, &world.rules);
        world.view.apply(&decision.changes);
    }
    assert_eq!(asked(&world.tell(observed("f", 1, "unknown", false))), [(Action::Rollover, Some(1))]);
    assert_eq!(asked(&world.tell(observed("h", 1, "unknown", false))), [(Action::Rollover, Some(1))]);
}

#[test]
fn a_value_that_was_seen_to_work_again_is_looked_at_again() {
    let mut world = World::new();
    world.tell(registered(role(), 1, 1, true));
    let first = world.tell(observed("f", 1, "active", false)).directives[0].clone();
    world.view.cases.insert(role(), Arc::new(opened(&first, State::opened(&first))));
    assert!(world.tell(observed("f", 1, "active", false)).directives.is_empty(), "it is being contained");
    world.view.cases.clear();
    world.view.credentials.get_mut(&role()).unwrap().version = Some(2);
    assert_eq!(asked(&world.tell(observed("f", 1, "active", false))), [(Action::Verify, Some(1))]);
    assert!(world.tell(observed("f", 1, "unknown", false)).directives.is_empty(), "nobody tried it");
}

#[test]
fn one_secret_in_many_places_is_matched_with_the_same_ones_each_time() {
    let mut world = World::new();
    for n in 0..40 {
        let id = CredentialId::new(Kind::PostgresRole, "appdb", &format!("app{n}")).unwrap();
        world.tell(registered(id, 1, 1, true));
    }
    let first = world.tell(observed("f", 1, "unknown", false));
    assert_eq!(first.directives.len(), crate::finding::MOST_MATCHES);
    for _ in 0..3 {
        assert!(world.tell(observed("f", 1, "unknown", false)).directives.is_empty());
    }
}

fn adopted(version: i64, consumer: &str, failed: bool) -> Data {
    Data::CredentialAdopted(CredentialAdopted { credential: role(), version, consumer: consumer.into(), failed })
}

#[test]
fn an_old_value_is_rolled_over_once_and_only_while_it_is_the_one_in_use() {
    let due = |version| Data::RotationDue { credential: role(), version, age_ms: 90 };
    let mut world = World::new();
    assert_eq!(world.tell(due(3)).reason, Reason::Outdated, "nobody knows of it");
    world.tell(registered(role(), 1, 3, true));
    let decision = world.tell(due(3));
    assert_eq!(asked(&decision), [(Action::Rollover, Some(3))]);
    assert_eq!((decision.verb, decision.reason), (Verb::Rollover, Reason::RotationDue));
    assert_eq!(decision.directives[0].trigger, Trigger::Age);
    assert_eq!(world.tell(due(2)).reason, Reason::Outdated, "it was replaced");
    let directive = decision.directives[0].clone();
    let state = State::opened(&directive);
    world.view.cases.insert(role(), Arc::new(opened(&directive, state)));
    assert_eq!(world.tell(due(3)).reason, Reason::Outdated, "it is being done, or is held");
}

/// The day after tomorrow its sessions are over, and the key may live again.
#[test]
fn what_has_nothing_left_to_deny_is_taken_off_with_a_look_unless_something_is_being_done() {
    let id = CredentialId::new(Kind::AwsAccessKey, "aws", "ci/bot/AKIAIOSFODNN7EXAMPLE").unwrap();
    let over = || Data::SessionsOver { credential: id.clone() };
    let mut world = World::new();
    let decision = world.tell(over());
    assert_eq!(asked(&decision), [(Action::Verify, None)]);
    assert_eq!((decision.verb, decision.reason), (Verb::Verify, Reason::SessionsOver));
    let directive = decision.directives[0].clone();
    assert_eq!((directive.trigger, directive.held), (Trigger::Reconcile, None));
    // An administrator may have given the key back: nobody asked to end it, so a person does, or another finding.
    let alive = directive.refuted(false);
    assert_eq!((alive.action, alive.held), (Action::Revoke, Some(HoldReason::Finding)));
    let waits = opened(&alive, State::opened(&alive));
    let asked_for = Directive { trigger: Trigger::Finding, held: None, ..alive.clone() };
    assert_eq!(meet(&waits, &asked_for), Meeting::Supersede);
    assert_eq!(alive.refuted(false).held, None, "a person let it go");
    let state = State::opened(&directive);
    world.view.cases.insert(id.clone(), Arc::new(opened(&directive, state)));
    assert_eq!(world.tell(over()).reason, Reason::Expected);
}

#[test]
fn an_inventory_says_how_old_the_value_in_use_is() {
    let mut world = World::new();
    let issued = |world: &World| world.view.credentials[&role()].issued_ms;
    let mut tell = |version, current, issued_ms| {
        let Data::CredentialRegistered(mut it) = registered(role(), 1, version, current) else { unreachable!() };
        it.issued_ms = issued_ms;
        world.tell(Data::CredentialRegistered(it));
        issued(&world)
    };
    assert_eq!(tell(2, true, Some(500)), Some(500));
    assert_eq!(tell(1, false, Some(100)), Some(500), "the one before");
    assert_eq!(tell(1, true, Some(100)), Some(500), "out of order");
    assert_eq!(tell(2, true, None), Some(500), "nothing new is said of it");
    assert_eq!(tell(3, true, None), None, "of the new one nobody knows");
    let ahead = tell(4, true, Some(i64::MAX)).unwrap();
    assert!(ahead < i64::MAX, "a time that lies ahead would never be old");
}

#[test]
fn an_operator_rotates_what_nobody_found() {
    let mut world = World::new();
    let rotate = |how| Data::OperatorRotate {
        credential: role(),
        how,
        agents: Vec::new(),
        by: "ann".into(),
        reason: String::new(),
    };
    assert_eq!(asked(&world.tell(rotate(Action::Rollover))), [(Action::Rollover, None)]);
    assert_eq!(asked(&world.tell(rotate(Action::Contain))), [(Action::Contain, None)]);
    assert_eq!(asked(&world.tell(rotate(Action::Split))), [(Action::Split, None)]);
}

#[test]
fn consumers_are_heard_about_the_value_that_they_were_told_of() {
    let mut world = World::new();
    assert_eq!(world.tell(adopted(2, "billing", false)).reason, Reason::NotAwaited, "no rotation runs");
    world.tell(registered(role(), 1, 1, true));
    let decision = world.tell(observed("f", 1, "unknown", false));
    let directive = decision.directives[0].clone();
    let mut state = State::opened(&directive);
    state.turn.new = Some(Generation { version: 2, user: None });
    world.view.cases.insert(role(), Arc::new(opened(&directive, state.clone())));
    let heard = world.tell(adopted(2, "billing", false));
    assert_eq!((heard.verb, heard.reason), (Verb::Track, Reason::Adopted));
    let word = Word::Answered { consumer: "billing".into(), version: 2, failed: false };
    assert_eq!(heard.words, [(role(), word)]);
    assert_eq!(world.tell(adopted(1, "billing", false)).reason, Reason::NotAwaited, "about another value");
    let failed = world.tell(adopted(2, "web", true));
    assert_eq!((failed.reason, failed.words.len()), (Reason::NotAwaited, 0), "nobody waits: the old one is being cut");
    state.turn.adopted.insert("billing".into());
    world.view.cases.insert(role(), Arc::new(opened(&directive, state)));
    assert_eq!(world.tell(adopted(2, "billing", false)).words, [], "once");
    let mut full = State::opened(&directive);
    full.turn.new = Some(Generation { version: 2, user: None });
    full.turn.adopted = (0..Turn::CONSUMERS).map(|n| n.to_string()).collect();
    world.view.cases.insert(role(), Arc::new(opened(&directive, full)));
    assert_eq!(world.tell(adopted(2, "another", false)).words, [], "made-up names fill no journal");
}

#[test]
fn what_reach_shows_follows_only_rules_that_name_it() {
    let finding = |detector: &str| Finding {
        tenant: "t".into(),
        topic: "reach:".into(),
        key: "k".into(),
        detector: detector.to_owned(),
        phase: Stand::Matched,
        validity: Validity::Unknown,
        public: false,
        severity: None,
        fingerprints: Vec::new(),
        credentials: Vec::new(),
        owner_hint: None,
        place: None,
        leaves: None,
        first_ms: 0,
        last_ms: 0,
    };
    let rules = Rules::default();
    assert_eq!(rules.response(&finding("curfew:shared"), None, 0), (Response::Hold, 0));
    assert_ne!(rules.response(&finding("aws-key"), None, 0).0, Response::Hold);
    let named = FindingRule::new(
        When { detector: Some(vec!["curfew:dormant".to_owned()]), ..When::default() },
        Response::Contain,
    );
    let rules = Rules { findings: [vec![named], FindingRule::defaults()].concat(), ..Rules::default() };
    assert_eq!(rules.response(&finding("curfew:dormant"), None, 0), (Response::Contain, 1));
    assert_eq!(rules.response(&finding("curfew:shared"), None, 0), (Response::Hold, 0));
}

#[test]
fn a_split_waits_for_what_stands_between_two_values() {
    let mut world = World::new();
    let order = |how| Data::OperatorRotate {
        credential: role(),
        how,
        agents: Vec::new(),
        by: "ann".into(),
        reason: String::new(),
    };
    let rollover = world.tell(order(Action::Rollover)).directives[0].clone();
    let split = world.tell(order(Action::Split)).directives[0].clone();
    let case = opened(&rollover, State::opened(&rollover));
    assert_eq!(meet(&case, &split), Meeting::Supersede, "nothing was begun");
    let acted = opened(&rollover, State { acted: true, ..State::opened(&rollover) });
    assert_eq!(meet(&acted, &split), Meeting::Join, "the shared value may be another one by now");
    let contain = world.tell(order(Action::Contain)).directives[0].clone();
    let splits = opened(&split, State { acted: true, ..State::opened(&split) });
    assert_eq!(meet(&splits, &contain), Meeting::Supersede, "a leak waits for nobody");
    assert_eq!(meet(&splits, &rollover), Meeting::Join);
}
