use std::sync::Arc;

use super::super::notice::{Found, Sort, found, unmoved};
use super::super::{Fact, Node, ask};
use super::*;
use crate::case::state::State;
use crate::case::{Action, Case, Directive, Trigger, Urgency};
use crate::scope::{Cut, permissions};

const SHARED: &str = "urn:curfew:cred:postgres-role:appdb:agents";
const TOKEN: &str = "urn:curfew:cred:vault-token:prod:accessor";

fn node(text: &str) -> Node {
    Node::parse(text).unwrap()
}

fn fact(of: &str, edges: &[(&str, Via, &[&str])]) -> Fact {
    let mut fact = Fact::of(node(of));
    for (to, via, scope) in edges {
        fact.edge(node(to), *via, scope.iter().copied());
    }
    fact
}

/// A task of an agent, that holds the shared user and does there what is named.
fn task(agent: &str, run: &str, actions: &[(&str, &[&str])]) -> [Fact; 2] {
    let mut task = fact(run, &[(SHARED, Via::Holds, &[]), (TOKEN, Via::Holds, &[])]);
    let may = actions.iter().map(|(target, _)| node(&format!("target:{target}")));
    task.about.may = (!actions.is_empty()).then(|| may.collect());
    for (target, named) in actions {
        task.about
            .actions
            .get_or_insert_default()
            .insert((*target).to_owned(), permissions(*named).unwrap().into_iter().collect());
    }
    [task, fact(agent, &[(run, Via::Runs, &[])])]
}

/// The shared user has more by itself, by a group and by PUBLIC; a token has two policies, one of them by a group.
fn graph(tasks: impl IntoIterator<Item = [Fact; 2]>) -> Graph {
    let user = "identity:appdb/agents";
    let of_database = [
        fact(
            user,
            &[
                ("target:appdb", Via::Opens, &["CONNECT", "shop.orders: INSERT, SELECT"]),
                ("identity:appdb/readers", Via::Has, &[]),
                ("policy:appdb/PUBLIC", Via::Has, &[]),
            ],
        ),
        fact("identity:appdb/readers", &[("target:appdb", Via::Opens, &["shop.people: SELECT"])]),
        fact("policy:appdb/PUBLIC", &[("target:appdb", Via::Opens, &["shop.open: SELECT"])]),
    ];
    let of_vault = [
        fact(TOKEN, &[("policy:prod/default", Via::Has, &[]), ("policy:prod/group/ops", Via::Has, &[])]),
        fact("policy:prod/group/ops", &[("policy:prod/kv-write", Via::Has, &[])]),
        fact("policy:prod/kv-write", &[("path:prod/kv/app", Via::Touches, &["update"])]),
    ];
    let own = [fact(SHARED, &[(user, Via::LogsIn, &[])]), fact(user, &[("target:appdb", Via::Opens, &[])])];
    let mut graph = Graph::default();
    let own = own.into_iter().chain(tasks.into_iter().flatten());
    for (source, facts) in [
        ("postgres:appdb", of_database.to_vec()),
        ("vault:prod", of_vault.to_vec()),
        ("journal", own.collect::<Vec<_>>()),
    ] {
        let source: Arc<str> = source.into();
        facts.into_iter().for_each(|fact| graph.add(&source, fact, 1_000));
    }
    graph.settle();
    graph
}

fn outside(graph: &Graph) -> Vec<Found> {
    found(graph, &[Sort::Outside], 0).remove(&Sort::Outside).unwrap()
}

const READS: &[&str] = &["schema:shop:USAGE", "relation:shop.orders:SELECT"];

#[test]
fn what_a_task_holds_is_compared_with_what_it_does() {
    let all = outside(&graph([task("agent:clerk", "task:/ci:1", &[("appdb", READS), ("prod", &["policy:kv-read"])])]));
    let said: Vec<(&str, &str)> = all.iter().map(|one| (one.credential.as_str(), one.place.as_str())).collect();
    assert_eq!(
        said,
        [
            (
                SHARED,
                "task:/ci:1 may at appdb relation:shop.orders:INSERT, relation:shop.people:SELECT beyond what was declared"
            ),
            (TOKEN, "task:/ci:1 may at prod policy:kv-write beyond what was declared"),
        ],
        "neither PUBLIC nor the policy of each token is in it"
    );
}

#[test]
fn a_gate_counts_what_a_task_does() {
    let graph = graph([task("agent:clerk", "task:/ci:1", &[("appdb", READS)])]);
    let ask = |id: &str| match ask::answer(&graph, &ask::Question::Gate { id: id.to_owned() }, 0).unwrap() {
        ask::Told::Gate(gate) => (gate.beyond.len(), told(&gate.excess)),
        other => panic!("{other:?}"),
    };
    assert_eq!(ask("task:/ci:1"), (0, "at appdb relation:shop.orders:INSERT, relation:shop.people:SELECT".to_owned()));
    assert_eq!(ask("agent:clerk").1, "", "it said nothing itself");
}

#[test]
fn a_group_that_is_named_is_named_with_all_that_it_may() {
    let actions: &[(&str, &[&str])] =
        &[("appdb", &["member:readers", "relation:shop.orders:INSERT", "relation:shop.orders:SELECT"])];
    assert_eq!(outside(&graph([task("agent:clerk", "task:/ci:1", actions)])), []);
    let named: &[(&str, &[&str])] =
        &[("appdb", &["relation:shop.people:SELECT", READS[1], "relation:shop.orders:INSERT"])];
    assert_eq!(
        outside(&graph([task("agent:clerk", "task:/ci:1", named)])),
        [],
        "or with what it may, each by its name"
    );
    assert_eq!(
        outside(&graph([task("agent:clerk", "task:/ci:1", &[])])),
        [],
        "where nothing is said nothing is compared"
    );
}

#[test]
fn only_who_can_do_with_less_is_moved_and_with_all_that_its_tasks_do() {
    let of = |tasks: Vec<[Fact; 2]>| {
        let graph = graph(tasks);
        let found = outside(&graph).into_iter().find(|one| one.credential.as_str() == SHARED);
        found.map_or_else(Vec::new, |found| found.moves)
    };
    let at_most = |names: &[&str]| Some(permissions(names).unwrap());
    let clerk = task("agent:clerk", "task:/ci:1", &[("appdb", READS)]);
    let other = task("agent:clerk", "task:/ci:2", &[("appdb", &["relation:shop.people:SELECT"])]);
    let scout = task("agent:scout", "task:/ci:3", &[]);
    let moves = of(vec![clerk.clone(), other, scout]);
    let both = [READS, &["relation:shop.people:SELECT"]].concat();
    assert_eq!(moves, [Move { agent: "clerk".into(), at_most: at_most(&both) }]);
    // Another task of the same agent, of which nobody said what it does.
    assert_eq!(of(vec![clerk.clone(), task("agent:clerk", "task:/ci:2", &[])]), []);
    // Nobody is said to run it.
    let [alone, _] = task("agent:clerk", "task:/ci:1", &[("appdb", READS)]);
    assert_eq!(of(vec![[alone, fact("agent:clerk", &[])]]), []);
    let named: Vec<String> = (0..MOVES + 2).map(|no| format!("agent:a{no}")).collect();
    let many = named.iter().map(|name| task(name, &format!("task:/ci:{name}"), &[("appdb", READS)]));
    assert_eq!(of(many.collect()).len(), MOVES);
}

fn moved(found: &Found, agents: &[&str], acted: bool) -> Case {
    let moves = agents.iter().map(|name| Move { agent: (*name).to_owned(), at_most: None });
    let directive = Directive {
        credential: found.credential.clone(),
        action: Action::Split,
        trigger: Trigger::Finding,
        urgency: Urgency::Routine,
        held: None,
        run: None,
        end_ms: None,
        broker_ms: 0,
        topic: "reach:".into(),
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: Cut::moving(moves).map(Box::new),
    };
    Case {
        id: uuid::Uuid::nil(),
        tenant: "default".into(),
        system: "appdb".into(),
        lane: "l".into(),
        principal: None,
        seen_ms: None,
        opened_ms: 0,
        blast: None,
        traceparent: None,
        seq: 1,
        charged: false,
        state: State { acted, ..State::opened(&directive) },
        directive,
    }
}

#[test]
fn whom_no_case_has_moved_is_said_when_those_before_are_over_or_not_begun() {
    let both =
        ["clerk", "scout"].map(|name| task(&format!("agent:{name}"), &format!("task:/ci:{name}"), &[("appdb", READS)]));
    let graph = graph(both);
    let found = outside(&graph).into_iter().find(|one| one.credential.as_str() == SHARED).unwrap();
    let left = |cases: &[(Case, bool)]| {
        let left = unmoved(&found, cases.iter().map(|(case, over)| (case, *over)));
        left.map(|(left, over)| (left.moves.iter().map(|one| one.agent.clone()).collect::<Vec<_>>().join(" "), over))
    };
    assert_eq!(left(&[]), None, "no case rests on it: whoever left it so meant to");
    let clerk = moved(&found, &["clerk"], false);
    assert_eq!(left(&[(clerk.clone(), true)]), Some(("scout".to_owned(), true)), "anew");
    assert_eq!(left(&[(clerk.clone(), false)]), Some(("scout".to_owned(), false)), "beside the one that waits");
    assert_eq!(left(&[(moved(&found, &["clerk"], true), false)]), None, "what was begun comes first");
    let scout = moved(&found, &["scout"], false);
    assert_eq!(left(&[(clerk, true), (scout, true)]), None, "each was moved");
}
