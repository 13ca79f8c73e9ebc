use std::sync::Arc;

use super::super::notice::{Found, Sort, found};
use super::super::{Fact, Node, ask};
use super::*;
use crate::scope::permissions;

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
