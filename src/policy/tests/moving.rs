//! Of those that share a credential only some are moved: whom a finding names, and whom an operator does.

use super::findings::opened;
use super::*;
use crate::case::record::Record;
use crate::case::state::State;
use crate::policy::rules::{FindingRule, Response, When};
use crate::reach::notice::TOPIC;
use crate::scope::{MOVES, Move, permissions};

fn role() -> CredentialId {
    CredentialId::new(Kind::PostgresRole, "appdb", "agents").unwrap()
}

fn to(agent: &str) -> Move {
    let at_most = permissions([format!("relation:shop.{agent}:SELECT")]).unwrap();
    Move { agent: agent.into(), at_most: Some(at_most) }
}

fn world() -> World {
    let mut world = World::new();
    let when = When { detector: Some(vec!["curfew:outside".into(), "curfew:shared".into()]), ..When::default() };
    world.rules.findings.insert(0, FindingRule::new(when, Response::Split));
    world.tell(Data::CredentialRegistered(CredentialRegistered {
        credential: role(),
        fingerprints: Vec::new(),
        version: Some(1),
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    }));
    world
}

/// What reach says of the shared user.
fn found(world: &mut World, sort: &str, moves: &[Move]) -> Decision {
    world.now_ms += 1_000;
    let said = FindingObserved {
        finding_key: format!("{sort}:{}", role()),
        credential: Some(role()),
        detector: format!("curfew:{sort}"),
        validity: "unknown".into(),
        reopened: true,
        moves: moves.to_vec(),
        ..FindingObserved::default()
    };
    let mut event = event(world.now_ms, Data::FindingObserved(Box::new(said)));
    event.at.topic = TOPIC.into();
    event.kind = Type::FindingObserved;
    world.take(&event)
}

fn order(world: &mut World, agents: &[&str]) -> Directive {
    let agents = agents.iter().map(|name| (*name).to_owned()).collect();
    let how = Action::Split;
    let data = Data::OperatorRotate { credential: role(), how, agents, by: "ann".into(), reason: String::new() };
    world.tell(data).directives[0].clone()
}

fn names(directive: &Directive) -> Vec<&str> {
    directive.moves().unwrap_or_default().iter().map(|one| one.agent.as_str()).collect()
}

/// The case that a directive opened.
fn opens(world: &mut World, directive: &Directive, acted: bool) -> Case {
    let case = opened(directive, State { acted, ..State::opened(directive) });
    world.view.cases.insert(role(), Arc::new(case.clone()));
    case
}

#[test]
fn what_is_too_much_for_one_agent_moves_that_one_and_where_none_is_named_nobody() {
    let mut world = world();
    let decision = found(&mut world, "outside", &[to("clerk")]);
    let directive = &decision.directives[0];
    assert_eq!((decision.verb, directive.action, directive.held), (Verb::Split, Action::Split, None));
    assert_eq!(directive.moves(), Some(&[to("clerk")][..]));
    let mut world = self::world();
    let decision = found(&mut world, "outside", &[]);
    let directive = &decision.directives[0];
    assert_eq!((directive.action, directive.held), (Action::Track, Some(HoldReason::Finding)), "a person decides");
    // What is shared is split among all.
    let decision = found(&mut world, "shared", &[]);
    assert_eq!((decision.directives[0].action, decision.directives[0].moves()), (Action::Split, None));
}

#[test]
fn others_that_are_found_later_are_moved_beside_where_nobody_has_begun() {
    let mut world = world();
    let first = found(&mut world, "outside", &[to("clerk")]).directives[0].clone();
    let case = opens(&mut world, &first, false);
    assert_eq!(found(&mut world, "outside", &[to("clerk")]).reason, Reason::FindingKnown);
    let decision = found(&mut world, "outside", &[to("scout")]);
    assert_eq!(names(&decision.directives[0]), ["clerk", "scout"]);
    assert_eq!(meet(&case, &decision.directives[0]), Meeting::Supersede);
    let begun = opens(&mut world, &first, true);
    assert_eq!(
        found(&mut world, "outside", &[to("scout")]).reason,
        Reason::FindingKnown,
        "it is said again when that is over"
    );
    assert_eq!(meet(&begun, &decision.directives[0]), Meeting::Join);
    // An operator's word is taken up at once, and loses nobody.
    let both = order(&mut world, &["scout"]);
    assert_eq!((names(&both), meet(&begun, &both)), (vec!["clerk", "scout"], Meeting::Supersede));
    assert_eq!(both.moves().unwrap()[0], to("clerk"), "with no more than it may");
    let same = order(&mut world, &["clerk"]);
    assert_eq!(meet(&begun, &same), Meeting::Join);
    let many: Vec<String> = (0..MOVES + 3).map(|no| no.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(names(&order(&mut world, &many)).len(), MOVES);
}

/// A task of an agent that holds the shared user, as a topic tells of it.
fn holds(world: &mut World, topic: &str, agent: &str) {
    let spec = GrantSpec { credential: role(), tenure: Tenure::Standing, principal: None, expires_ms: None };
    let Data::TaskStarted(mut it) = start(agent, 1, vec![spec]) else { unreachable!() };
    it.identity = Some(agent.to_owned());
    world.now_ms += 1_000;
    let mut event = event(world.now_ms, Data::TaskStarted(it));
    event.at.topic = topic.into();
    world.take(&event);
}

#[test]
fn whoever_says_what_an_agent_holds_answers_for_its_move() {
    let mut world = world();
    for (topic, agent) in [("ci", "clerk"), ("ci", "coder"), ("forged", "scout"), ("forged", "coder")] {
        holds(&mut world, topic, agent);
    }
    let decision = found(&mut world, "outside", &[to("clerk"), to("coder"), to("scout")]);
    let directive = &decision.directives[0];
    assert_eq!((names(directive), directive.asked_by().collect::<Vec<_>>()), (vec!["clerk", "coder"], vec!["ci"]));
    // Of whom another topic told is not moved on the word of these, nor along with them by an operator who did not name it.
    let case = opens(&mut world, directive, false);
    assert_eq!(found(&mut world, "outside", &[to("scout")]).reason, Reason::FindingKnown);
    let order = order(&mut world, &["scout"]);
    assert_eq!((names(&order), meet(&case, &order)), (vec!["scout"], Meeting::Supersede));
}

#[test]
fn who_moves_all_takes_over_who_moves_some_and_never_the_other_way_round() {
    let mut world = world();
    let (some, all) = (order(&mut world, &["clerk"]), order(&mut world, &[]));
    assert_eq!((names(&some), all.moves()), (vec!["clerk"], None));
    let of = |directive: &Directive, acted| opened(directive, State { acted, ..State::opened(directive) });
    assert_eq!(meet(&of(&some, true), &all), Meeting::Supersede);
    assert_eq!(meet(&of(&all, false), &some), Meeting::Join);
    // Nor does it lend its authority to what it did not ask for.
    let state = State::opened(&all).next(&Record::Joined { directive: some.clone() }).unwrap();
    assert_eq!(state.joined, []);
    let held = Directive { held: Some(HoldReason::Authority), ..all.clone() };
    assert_eq!(meet(&of(&held, false), &some), Meeting::Join);
    assert!(!of(&some, true).ends_credential(), "the others have it still");
}
