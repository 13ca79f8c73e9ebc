use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;

use super::ask::{self, Question, Told, Unknown};
use super::changes::{changes, digest};
use super::declared::{Declared, Wrong};
use super::graph::Graph;
use super::*;

fn node(text: &str) -> Node {
    Node::parse(text).unwrap()
}

fn fact(of: &str, edges: &[(&str, Via)]) -> Fact {
    let mut fact = Fact::of(node(of));
    for (to, via) in edges {
        fact.edge(node(to), *via, ["word"]);
    }
    fact
}

fn graph(facts: impl IntoIterator<Item = Fact>) -> Graph {
    let mut graph = Graph::default();
    let source: Arc<str> = "test".into();
    for fact in facts {
        graph.add(&source, fact, 1_000);
    }
    graph.settle();
    graph
}

/// Two agents on one password; an AppRole whose policy reads a key of the payment zone, and only writes a place of another.
fn small() -> Graph {
    let declared = Declared::parse(
        "zones: [{name: pci, weight: 10}, {name: office}]\n\
         targets: [{name: payments, zone: pci, opened_by: [prod/kv/pay/key]}, {name: appdb, zone: office, owner: dba}]\n\
         places: [{path: 'prod/kv/pay/*', zone: pci, owner: pay}]\n\
         identities: [{id: 'identity:prod/approle/etl', owner: data, may: {zones: [office]}}]\n\
         agents: [{name: triage, as: ['urn:curfew:cred:postgres-role:appdb:orders']}, {name: report, as: \
         ['urn:curfew:cred:postgres-role:appdb:orders'], owner: bi}]\n",
    )
    .unwrap();
    let stored = "urn:curfew:cred:vault-kv:prod:kv/pay/key%23value";
    graph(declared.facts().facts.into_iter().chain([
        fact("identity:prod/approle/etl", &[("policy:prod/etl", Via::Has)]),
        fact("policy:prod/etl", &[("path:prod/kv/pay/key", Via::Reads), ("path:prod/kv/drop", Via::Touches)]),
        fact("path:prod/kv/pay/key", &[(stored, Via::Stores)]),
        fact("path:prod/kv/drop", &[("target:secretplace", Via::Opens)]),
        fact("path:prod/database/creds/ro", &[("target:appdb", Via::Opens)]),
        fact("identity:prod/entity/ana", &[("policy:prod/both", Via::Has)]),
        fact(
            "policy:prod/both",
            &[("path:prod/database/creds/ro", Via::Reads), ("path:prod/kv/pay/other", Via::Touches)],
        ),
        fact("urn:curfew:cred:postgres-role:appdb:orders", &[("identity:appdb/orders", Via::LogsIn)]),
        fact("identity:appdb/orders", &[("target:appdb", Via::Opens)]),
    ]))
}

fn told(question: Question) -> Told {
    ask::answer(&small(), &question, 0).unwrap()
}

fn names(lines: &ask::Lines) -> Vec<String> {
    let name = |line: &ask::Line| {
        let why: Vec<String> = line.why.iter().map(Node::to_string).collect();
        format!("{} [{}]", line.node, why.join(" "))
    };
    lines.lines.iter().map(name).collect()
}

#[test]
fn reach_goes_through_stores_and_stops_where_a_place_is_only_written() {
    let Told::Reach(reach) = told(Question::Of { id: "approle/etl".to_owned() }) else { panic!() };
    insta::assert_json_snapshot!(reach);
}

#[test]
fn lists_are_told_with_why() {
    let mut said = String::new();
    for question in [
        Question::Crossing { max: 9 },
        Question::Shared { max: 9 },
        Question::Unowned { max: 9 },
        Question::Who { id: "target:appdb".to_owned(), max: 9 },
        Question::Who { id: "zone:pci".to_owned(), max: 9 },
    ] {
        let Told::Lines(lines) = told(question.clone()) else { panic!() };
        said.push_str(&format!("{question:?}: {}\n  {}\n", lines.total, names(&lines).join("\n  ")));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_gate_opens_for_what_was_declared_and_for_nothing_else() {
    let Told::Gate(gate) = told(Question::Gate { id: "identity:prod/approle/etl".to_owned() }) else { panic!() };
    let beyond: Vec<String> = gate.beyond.iter().map(|one| one.target.to_string()).collect();
    assert_eq!(beyond, ["path:prod/kv/pay/key", "target:payments"]);
    assert_eq!(gate.zones, BTreeSet::from([node("zone:pci")]));
    let Told::Gate(gate) = told(Question::Gate { id: "agent:triage".to_owned() }) else { panic!() };
    assert_eq!((gate.may, gate.beyond.len()), (None, 1), "nothing was declared");
}

#[test]
fn what_was_said_of_all_below_a_place_is_true_of_each() {
    let declared = Declared::parse(
        "zones: [{name: pci}]\ntargets: [{name: payments, opened_by: ['prod/kv/pay/*']}]\n\
         places: [{path: 'prod/kv/pay/*', zone: pci, owner: pay, read_by: [billing]}]",
    )
    .unwrap();
    let graph = graph(declared.facts().facts.into_iter().chain([
        fact("path:prod/kv/pay/key", &[("target:bank", Via::Opens)]),
        fact("identity:a/x", &[("policy:a/p", Via::Has)]),
        fact("policy:a/p", &[("path:prod/kv/pay/*", Via::Reads), ("path:prod/kv/other", Via::Reads)]),
    ]));
    let opens = |of: &str| -> Vec<String> {
        let reach = ask::reach(&graph, graph.find(&node(of)).unwrap());
        let mut all: Vec<String> = reach.opened.iter().map(|one| one.target.to_string()).collect();
        all.sort();
        all
    };
    let all = ["path:prod/kv/pay/*", "path:prod/kv/pay/key", "target:bank", "target:payments"];
    assert_eq!(opens("consumer:billing"), all);
    // A policy is asked for each place by itself.
    assert_eq!(opens("identity:a/x"), ["path:prod/kv/pay/*", "target:payments"]);
}

#[test]
fn who_is_not_known_and_who_could_be_several_is_said() {
    let unknown = |id: &str| ask::answer(&small(), &Question::Of { id: id.to_owned() }, 0).unwrap_err();
    assert!(matches!(unknown("identity:prod/nobody"), Unknown::Nobody(_)));
    // An identity and its policy end so.
    let Unknown::Several(_, all) = unknown("etl") else { panic!() };
    assert_eq!(all, "identity:prod/approle/etl, policy:prod/etl");
}

#[test]
fn dormant_is_only_who_is_known_not_to_be_used() {
    let about = |used_ms, never_used, issued_ms| About { used_ms, never_used, issued_ms, ..About::default() };
    let of = |name: &str, about| Fact { about, ..Fact::of(node(&format!("identity:a/{name}"))) };
    let graph = graph([
        of("old", about(Some(10), false, Some(1))),
        of("young", about(Some(900), false, Some(1))),
        of("never", about(None, true, Some(5))),
        of("never-young", about(None, true, Some(800))),
        of("untold", about(None, false, Some(1))),
    ]);
    let lines = ask::dormant(&graph, 500, 9);
    assert_eq!(names(&lines), ["identity:a/never []", "identity:a/old []"]);
    assert_eq!((lines.total, lines.unknown), (2, 1));
}

#[test]
fn a_declaration_with_a_mistake_says_nothing() {
    for (text, wrong) in [
        ("targets: [{name: a, zone: b}]", Wrong::NoZone("b".to_owned())),
        ("agents: [{name: a, may: {zones: [b]}}]", Wrong::NoZone("b".to_owned())),
        ("identities: [{id: 'target:a'}]", Wrong::NoIdentity("target:a".to_owned())),
    ] {
        assert_eq!(Declared::parse(text), Err(wrong), "{text}");
    }
    assert!(matches!(Declared::parse("zonen: []"), Err(Wrong::Text(_))));
    // The wrong file, and a secret in the wrong place: what is wrong is kept and shown, the secret is not.
    let secret = "hvs.CAESIJ9kTz3mQ7vX2bLw8RrYp4Nn0Ud6";
    for text in [
        secret.to_owned(),
        format!("zones: {secret}"),
        format!("zones: [{{name: a, weight: {secret}}}]"),
        format!("targets: [{{name: a, zone: {secret}}}]"),
        format!("identities: [{{id: {secret}}}]"),
        format!("identities: [{{id: 'path:{secret}'}}]"),
        format!("{secret}: 1"),
    ] {
        let wrong = Declared::parse(&text).unwrap_err().to_string();
        assert!(!wrong.contains("CAESIJ9k"), "{wrong}");
    }
    let zones: Vec<String> = (0..65).map(|no| format!("{{name: z{no}}}")).collect();
    assert_eq!(Declared::parse(&format!("zones: [{}]", zones.join(", "))), Err(Wrong::Zones));
}

#[test]
fn a_picture_is_text_whatever_the_names_are() {
    let bad = "identity:a/<script>alert(\"1\")</script>&'";
    let graph = graph([fact(bad, &[("target:x<y", Via::Opens)]), fact("target:x<y", &[("zone:\u{e9}<", Via::In)])]);
    let svg = draw::svg(&ask::reach(&graph, graph.find(&node(bad)).unwrap()));
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert!(!svg.contains("<script") && !svg.contains("x<y") && svg.contains("&lt;script&gt;"));
    let Told::Reach(reach) = told(Question::Of { id: "identity:prod/approle/etl".to_owned() }) else { panic!() };
    insta::assert_snapshot!(draw::svg(&reach));
}

fn source(name: &str) -> Source {
    Source {
        tenant: "default".to_owned(),
        name: name.to_owned(),
        every_ms: 1_000,
        read_ms: 0,
        whole_ms: None,
        faults: Vec::new(),
    }
}

#[test]
fn only_a_whole_reading_takes_away_what_it_does_not_show() {
    let old = fact("identity:a/gone", &[]);
    let kept = fact("identity:a/kept", &[("target:x", Via::Opens)]);
    let before = HashMap::from([(old.node.clone(), digest(&old)), (kept.node.clone(), digest(&kept))]);
    let read = |faults: &[&str]| Reading {
        facts: vec![kept.clone(), fact("identity:a/new", &[])],
        faults: faults.iter().map(|one| (*one).to_owned()).collect(),
    };
    let last = Source { whole_ms: Some(7), ..source("s") };
    let [new, whole] = &changes(&before, read(&[]), Some(&last), source("s"), 9)[..] else { panic!() };
    assert_eq!((new.put.len(), &whole.gone), (1, &vec![node("identity:a/gone")]), "what is new comes first");
    assert_eq!((whole.source.read_ms, whole.source.whole_ms), (9, Some(9)));
    let [part] = &changes(&before, read(&["refused"]), Some(&last), source("s"), 9)[..] else { panic!() };
    assert_eq!((part.put.len(), part.gone.len()), (1, 0));
    assert_eq!((part.source.read_ms, part.source.whole_ms), (9, Some(7)));
    assert_eq!(part.source.standing(9), Standing::Partial);
    assert_eq!(whole.source.standing(9), Standing::Whole);
    assert_eq!(whole.source.standing(3_010), Standing::Stale);
    assert_eq!(source("s").standing(9), Standing::Unread);
}

#[test]
fn a_source_stands_as_before_until_the_last_step_is_written() {
    let facts: Vec<Fact> = (0..CHUNK * 2 + 1).map(|no| fact(&format!("identity:a/{no}"), &[])).collect();
    let gone = fact("identity:a/gone", &[]);
    let before = HashMap::from([(gone.node.clone(), digest(&gone))]);
    let last = Source { whole_ms: Some(7), ..source("s") };
    let steps = changes(&before, Reading { facts, faults: Vec::new() }, Some(&last), source("s"), 9);
    let stands: Vec<Standing> = steps.iter().map(|step| step.source.standing(9)).collect();
    assert_eq!(stands, [Standing::Partial, Standing::Partial, Standing::Partial, Standing::Whole]);
    assert_eq!(steps.iter().map(|step| step.gone.len()).collect::<Vec<_>>(), [0, 0, 0, 1], "what is new comes first");
    let nothing = changes(&HashMap::new(), Reading::default(), None, source("s"), 9);
    assert_eq!(nothing.len(), 1, "that nothing changed is said as well");
}

/// The reach of each node as a plain closure over a small graph, to compare with.
fn closure(edges: &[(u8, u8)], from: u8) -> BTreeSet<u8> {
    let mut seen = BTreeSet::from([from]);
    loop {
        let more: Vec<u8> =
            edges.iter().filter(|(a, b)| seen.contains(a) && !seen.contains(b)).map(|(_, b)| *b).collect();
        if more.is_empty() {
            return seen;
        }
        seen.extend(more);
    }
}

/// What a graph says of all its credentials at once is what it says of each.
fn assert_blasts(graph: &Graph) {
    for (at, blast) in blast::blasts(graph) {
        assert_eq!(blast, ask::reach(graph, at).blast, "{}", graph.node(at));
    }
}

#[test]
fn beyond_what_is_told_apart_a_blast_radius_is_from_above() {
    let cred = |no: usize| format!("urn:curfew:cred:vault-token:a:{no}");
    let targets: Vec<String> = (0..=blast::MOST).map(|no| format!("target:t{no}")).collect();
    fn opens(to: &[String]) -> Vec<(&str, Via)> {
        to.iter().map(|to| (to.as_str(), Via::Opens)).collect()
    }
    let graph = graph(vec![
        fact(&cred(0), &opens(&targets)),
        fact(&cred(1), &[("identity:a/x", Via::LogsIn), ("identity:a/y", Via::LogsIn)]),
        fact("identity:a/x", &opens(&targets)),
        fact("identity:a/y", &opens(&targets[..9])),
        fact(&cred(2), &[("identity:a/y", Via::LogsIn)]),
    ]);
    let most = blast::MOST as u64 + 1;
    let of = |no: usize| {
        let at = graph.find(&node(&cred(no))).unwrap();
        blast::blasts(&graph).into_iter().find(|(one, _)| *one == at).unwrap().1
    };
    assert_eq!((of(0), of(1), of(2)), (most, most, 9), "never more than there is");
}

proptest! {
    /// In circles, over places that are only touched, with zones of their own.
    #[test]
    fn all_blast_radii_at_once_are_those_of_each(
        edges in prop::collection::vec((0_usize..14, 0_usize..14, any::<bool>()), 0..60),
        zones in prop::collection::vec(0_usize..4, 6),
    ) {
        let name = |no: usize| match no {
            0..4 => format!("urn:curfew:cred:vault-token:a:{no}"),
            4..8 => format!("identity:a/i{no}"),
            8..11 => format!("path:a/kv/p{no}"),
            _ => format!("target:t{no}"),
        };
        let mut facts: Vec<Fact> = (0..14).map(|no| fact(&name(no), &[])).collect();
        for (from, to, touches) in edges {
            let via = if touches && (8..11).contains(&to) { Via::Touches } else { Via::Opens };
            facts.push(fact(&name(from), &[(name(to).as_str(), via)]));
        }
        for (no, zone) in zones.iter().enumerate().filter(|(_, zone)| **zone < 3) {
            facts.push(fact(&name(no + 8), &[(format!("zone:z{zone}").as_str(), Via::In)]));
        }
        for zone in 0..3_u32 {
            facts.push(Fact { about: About { weight: Some(zone * 10), ..About::default() }, ..fact(&format!("zone:z{zone}"), &[]) });
        }
        assert_blasts(&graph(facts));
    }

    /// Forward and backward agree with each other and with a plain closure, for targets and for zones.
    #[test]
    fn reach_is_the_closure_both_ways(edges in prop::collection::vec((0_u8..12, 0_u8..12), 0..40), zones in prop::collection::vec(0_usize..3, 4)) {
        let of = |no: u8| if no >= 8 { format!("target:t{no}") } else { format!("identity:a/i{no}") };
        let mut facts: Vec<Fact> = edges
            .iter()
            // Targets lead nowhere.
            .filter(|(a, _)| *a < 8)
            .map(|(a, b)| fact(&of(*a), &[(of(*b).as_str(), if *b >= 8 { Via::Opens } else { Via::Assumes })]))
            .collect();
        let plain: Vec<(u8, u8)> = edges.iter().copied().filter(|(a, _)| *a < 8).collect();
        for no in 0..12 {
            facts.push(fact(&of(no), &[]));
        }
        for (at, zone) in zones.iter().enumerate() {
            facts.push(fact(&format!("target:t{}", at + 8), &[(format!("zone:z{zone}").as_str(), Via::In)]));
        }
        let graph = graph(facts);
        let (bits_of, bits) = ask::zone_bits(&graph);
        for no in 0..8_u8 {
            let start = graph.find(&node(&of(no))).unwrap();
            let reached: BTreeSet<u8> = closure(&plain, no).into_iter().filter(|no| *no >= 8).collect();
            let told: BTreeSet<String> = ask::reach(&graph, start).opened.iter().map(|one| one.target.to_string()).collect();
            prop_assert_eq!(&told, &reached.iter().map(|no| of(*no)).collect::<BTreeSet<_>>());
            let in_zones: BTreeSet<usize> = reached.iter().map(|no| zones[usize::from(*no) - 8]).collect();
            let by_bits: BTreeSet<String> = bits_of.iter().enumerate()
                .filter(|(bit, _)| bits[start.index()] & (1 << bit) != 0)
                .map(|(_, zone)| graph.node(*zone).to_string()).collect();
            prop_assert_eq!(by_bits, in_zones.iter().map(|zone| format!("zone:z{zone}")).collect::<BTreeSet<_>>());
        }
        for target in 8..12_u8 {
            let lines = ask::who(&graph, graph.find(&node(&of(target))).unwrap(), 99);
            let told: BTreeSet<String> = lines.lines.iter().map(|line| line.node.to_string()).collect();
            let who: BTreeSet<String> = (0..8).filter(|no| closure(&plain, *no).contains(&target)).map(of).collect();
            prop_assert_eq!(told, who);
        }
    }

    /// Whatever was known and is read in steps, what stands afterwards is what was read.
    #[test]
    fn readings_replace_each_other(first in prop::collection::btree_map(0_u8..20, 0_u8..3, 0..20), second in prop::collection::btree_map(0_u8..20, 0_u8..3, 0..20)) {
        let facts = |all: &BTreeMap<u8, u8>| -> Vec<Fact> {
            all.iter().map(|(no, to)| fact(&format!("identity:a/{no}"), &[(format!("target:t{to}").as_str(), Via::Opens)])).collect()
        };
        let mut store: HashMap<Node, [u8; 16]> = HashMap::new();
        for all in [&first, &second] {
            for step in changes(&store.clone(), Reading { facts: facts(all), faults: Vec::new() }, None, source("s"), 1) {
                store.extend(step.put.iter().map(|stated| (stated.fact.node.clone(), stated.digest)));
                step.gone.iter().for_each(|gone| { store.remove(gone); });
            }
        }
        let expected: HashMap<Node, [u8; 16]> = facts(&second).iter().map(|fact| (fact.node.clone(), digest(&normal(fact)))).collect();
        prop_assert_eq!(store, expected);
    }
}

/// As a reading has it: its edges in order.
fn normal(fact: &Fact) -> Fact {
    let mut fact = fact.clone();
    fact.edges.sort_by(|a, b| a.to.cmp(&b.to));
    fact
}

mod findings {
    use super::super::notice::{Found, Leaving, MOST, Sort, Word, found, news};
    use super::*;
    use crate::finding::{Finding, Phase, Validity};

    fn said(graph: &Graph) -> String {
        let line =
            |one: &notice::Found| format!("{}: {} ({})", one.key(), one.place, one.owner.as_deref().unwrap_or("-"));
        found(graph, &Sort::ALL, 500).values().flatten().map(line).collect::<Vec<_>>().join("\n")
    }

    /// A password that two agents share, and that opens both zones; an old key; one that a task holds.
    fn some() -> Graph {
        let shared = "urn:curfew:cred:postgres-role:appdb:orders";
        let declared = Declared::parse(&format!(
            "zones: [{{name: pci, weight: 10}}, {{name: office}}]\n\
             targets: [{{name: appdb, zone: office}}, {{name: payments, zone: pci}}]\n\
             agents: [{{name: triage, as: ['{shared}'], may: {{zones: [office]}}}}, {{name: report, as: ['{shared}']}}]\n",
        ))
        .unwrap();
        let old = "urn:curfew:cred:aws-access-key:cloud:ci/bot/AKIAIOSFODNN7EXAMPLE";
        let lease = "urn:curfew:cred:vault-lease:prod:database/creds/ro/x";
        let mut key = fact(old, &[("identity:cloud/user/ci/bot", Via::LogsIn), ("owner:ci", Via::OwnedBy)]);
        key.about.used_ms = Some(10);
        // It said that it works on payments; of what it holds one opens something else as well.
        let paid = "urn:curfew:cred:vault-lease:prod:database/creds/pay/x";
        let mut task = fact("task:sched:1", &[(lease, Via::Holds), (paid, Via::Holds)]);
        task.about.may = Some(vec![node("zone:pci")]);
        graph(declared.facts().facts.into_iter().chain([
            key,
            fact(shared, &[("identity:appdb/orders", Via::LogsIn)]),
            fact("identity:appdb/orders", &[("target:appdb", Via::Opens), ("target:payments", Via::Opens)]),
            task,
            fact(paid, &[("target:payments", Via::Opens)]),
            fact(lease, &[("target:appdb", Via::Opens)]),
        ]))
    }

    #[test]
    fn what_reach_shows_of_credentials_is_found_with_what_it_rests_on() {
        insta::assert_snapshot!(said(&some()));
    }

    #[test]
    fn grants_of_a_user_of_iam_that_open_only_what_is_beyond_are_named_as_they_are_taken() {
        let declared = Declared::parse(
            "zones: [{name: pci, weight: 10}, {name: office}]\n\
             targets: [{name: payments, zone: pci, opened_by: [cloud/secretsmanager/pay]}, \
             {name: wiki, zone: office, opened_by: [cloud/secretsmanager/wiki]}]\n\
             identities: [{id: 'identity:cloud/user/ci/bot', owner: ci, may: {zones: [office]}}]\n",
        )
        .unwrap();
        let key = "urn:curfew:cred:aws-access-key:cloud:ci/bot/AKIAIOSFODNN7EXAMPLE";
        let own_key = "urn:curfew:cred:aws-access-key:cloud:ci/bot/AKIAZZZZZZZZZZEXAMPLE";
        let (user, pay) = ("identity:cloud/user/ci/bot", "path:cloud/secretsmanager/pay");
        let reads = |policy: &str, paths: &[&str]| {
            fact(policy, &paths.iter().map(|path| (*path, Via::Reads)).collect::<Vec<_>>())
        };
        let own = "policy:cloud/user/ci/bot/inline/pays";
        let facts = declared.facts().facts.into_iter().chain([
            fact(key, &[(user, Via::LogsIn)]),
            fact(own_key, &[(user, Via::LogsIn)]),
            fact(
                user,
                &[
                    ("policy:cloud/policy/ci/pay", Via::Has),
                    ("policy:cloud/policy/aws/Pay", Via::Has),
                    ("policy:cloud/group/payers", Via::Has),
                    ("policy:cloud/policy/both", Via::Has),
                    (own, Via::Has),
                ],
            ),
            reads("policy:cloud/policy/ci/pay", &[pay]),
            reads("policy:cloud/policy/aws/Pay", &[pay]),
            fact("policy:cloud/group/payers", &[("policy:cloud/policy/ci/pay", Via::Has)]),
            reads("policy:cloud/policy/both", &[pay, "path:cloud/secretsmanager/wiki"]),
            reads(own, &[pay]),
        ]);
        let facts: Vec<Fact> = facts.collect();
        let all = graph(facts.iter().cloned());
        let excess = ["group:payers", "inline:pays", "managed:policy/aws/Pay", "managed:policy/ci/pay"];
        let said = |graph: &Graph| {
            let of = |one: &notice::Found| {
                (one.credential.to_string(), one.excess.iter().map(ToString::to_string).collect())
            };
            found(graph, &[Sort::Beyond], 0)[&Sort::Beyond].iter().map(of).collect::<Vec<(String, Vec<String>)>>()
        };
        let (all_of_it, nothing) = (excess.map(str::to_owned).to_vec(), Vec::new());
        let keys = [(key.to_owned(), all_of_it.clone()), (own_key.to_owned(), nothing.clone())];
        assert_eq!(said(&all), keys, "one of its credentials carries it");
        let itself = "urn:curfew:cred:aws-user:cloud:ci/bot";
        let with = graph(facts.into_iter().chain([fact(itself, &[(user, Via::LogsIn)])]));
        let carries = said(&with).into_iter().filter(|(_, excess)| !excess.is_empty());
        assert_eq!(carries.collect::<Vec<_>>(), [(itself.to_owned(), all_of_it)], "the user itself, where it is known");
    }

    fn open(key: String) -> Finding {
        Finding {
            tenant: "default".into(),
            topic: notice::TOPIC.to_owned(),
            key,
            detector: Sort::Shared.detector(),
            phase: Phase::Matched,
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
        }
    }

    #[test]
    fn what_is_there_is_said_once_and_closed_when_it_is_over() {
        let found = found(&some(), &[Sort::Shared, Sort::CrossesZones], 0);
        let first = news(&found, &[]);
        assert_eq!((first.new.len(), first.over.len(), first.left), (2, 0, 0));
        let known: Vec<Finding> = first.new.iter().map(|one| open(one.key())).collect();
        assert_eq!(news(&found, &known), notice::News::default());
        let gone = open("shared:urn:curfew:cred:postgres-role:appdb:gone".to_owned());
        assert_eq!(news(&found, std::slice::from_ref(&gone)).over, [&gone]);
    }

    #[test]
    fn a_log_that_is_behind_ends_nothing_and_keeps_nothing_else_waiting() {
        let of = |sort: Sort| Finding { detector: sort.detector(), ..open(format!("{}:x", sort.as_str())) };
        let mut known = vec![of(Sort::Dormant), of(Sort::Unused), of(Sort::Offboarded)];
        let nothing = BTreeMap::new();
        assert_eq!(news(&nothing, &known).over.len(), 3);
        notice::leave_silences(&mut known);
        let news = news(&nothing, &known);
        assert_eq!(news.over.iter().map(|one| one.detector.as_str()).collect::<Vec<_>>(), ["curfew:offboarded"]);
    }

    /// A leak that was contained meanwhile ends neither the word on who leaves nor what follows from it.
    #[test]
    fn what_was_taken_over_by_something_else_is_said_again_when_that_is_over() {
        let line = |finding: &str, opened_ms, closed_ms| {
            let mut case = crate::reach::uses::tests::case("offboarded", &["policy:a"]);
            (case.directive.finding, case.opened_ms) = (Some(finding.to_owned()), opened_ms);
            let verdict = crate::probe::standing(&case);
            crate::journal::CaseLine { case, verdict, closed_ms, due_ms: 0 }
        };
        let finding = Finding { last_ms: 100, ..open("offboarded:x".to_owned()) };
        let its = finding.id();
        let is = |lines: &[_]| notice::is_taken_over(&finding, lines);
        assert!(is(&[line("scan:leak", 100, Some(900))]));
        assert!(!is(&[line("scan:leak", 100, None)]), "it goes on");
        assert!(!is(&[line("scan:leak", 50, Some(90))]), "that was before, and a rule says to do nothing");
        assert!(!is(&[line("scan:leak", 100, Some(900)), line(&its, 950, Some(990))]), "it was done");
        assert!(!is(&[]));
    }

    #[test]
    fn a_flood_is_cut_and_said() {
        let facts = (0..MOST + 7).flat_map(|no| {
            let id = format!("urn:curfew:cred:postgres-role:appdb:u{no}");
            ["a", "b"].map(|agent| fact(&format!("agent:{agent}"), &[(id.as_str(), Via::Holds)]))
        });
        let graph = graph(facts);
        let found = found(&graph, &[Sort::Shared], 0);
        let first = news(&found, &[]);
        assert_eq!((first.new.len(), first.left), (MOST, 7));
        let known: Vec<Finding> = first.new.iter().map(|one| open(one.key())).collect();
        assert_eq!((news(&found, &known).new.len(), news(&found, &known).left), (0, 7));
    }

    #[test]
    fn what_a_person_decides_takes_no_place_of_what_goes_by_itself() {
        let one = |no: usize, shared, powerless| {
            let credential = format!("urn:curfew:cred:vault-secret-id:prod:approle/etl/{no:04}").try_into().unwrap();
            let words = [Word { topic: "hr".to_owned(), fence_until_ms: None, shared }].into();
            let leaves = Some(Leaving { tenant: "default".to_owned(), words, powerless });
            let (place, owner, excess) = (String::new(), None, Vec::new());
            Found { sort: Sort::Offboarded, credential, place, owner, excess, leaves, moves: Vec::new() }
        };
        let held = (0..MOST + 20).map(|no| one(no, no % 2 == 0, no % 2 == 1));
        let all: Vec<Found> = held.chain((1_000..1_000 + MOST + 3).map(|no| one(no, false, false))).collect();
        let found = BTreeMap::from([(Sort::Offboarded, all)]);
        let first = news(&found, &[]);
        let waits = |found: &&&Found| found.leaves.as_ref().is_some_and(|one| one.said().shared || one.powerless);
        assert_eq!((first.new.len(), first.left), (2 * MOST, 23));
        assert_eq!(first.new.iter().filter(waits).count(), MOST);
        // A place that is free again is taken by what goes by itself, as many as there are that wait.
        let known: Vec<Finding> = first.new.iter().skip(2).map(|one| open(one.key())).collect();
        let then = news(&found, &known);
        assert_eq!((then.new.len(), then.left), (2, 23));
        assert!(!then.new.iter().any(|found| waits(&found)), "{:?}", then.new);
    }
}

mod leaving {
    use super::super::notice::{Found, Leaving, Sort, Word, found};
    use super::*;

    const LEASE: &str = "urn:curfew:cred:vault-lease:prod:database/creds/ro/x";
    const STORED: &str = "urn:curfew:cred:vault-approle:prod:approle/etl";
    const FIRST: &str = "urn:curfew:cred:vault-secret-id:prod:approle/etl/a";
    const OTHER: &str = "urn:curfew:cred:vault-secret-id:prod:approle/report/b";

    fn word(tenant: &str, topic: &str, until_ms: i64) -> Departure {
        Departure { tenant: tenant.to_owned(), topic: topic.to_owned(), since_ms: 1, until_ms }
    }

    /// An agent that works as two roles, one of them with another agent; its task holds a lease.
    fn some(leavers: &[&str]) -> Graph {
        let off = |one: &&str| {
            let mut fact = Fact::of(node(one));
            fact.about.offboarded = Some(Box::new(Offboarded { words: [word("default", "hr", 9)].into() }));
            fact
        };
        let declared = "agents: [{name: triage, as: ['identity:prod/approle/etl', 'identity:prod/approle/report']}, \
                        {name: report, as: ['identity:prod/approle/report']}]\n\
                        identities: [{id: 'identity:prod/approle/etl', owner: bob}]\n";
        let declared = Declared::parse(declared).unwrap();
        let login = |of, role: &str| fact(of, &[(format!("identity:prod/approle/{role}").as_str(), Via::LogsIn)]);
        graph(declared.facts().facts.into_iter().chain(leavers.iter().map(off)).chain([
            login(STORED, "etl"),
            login(FIRST, "etl"),
            login(OTHER, "report"),
            fact("agent:triage", &[("task:/ci:1", Via::Runs)]),
            fact("task:/ci:1", &[(LEASE, Via::Holds)]),
            fact(LEASE, &[]),
        ]))
    }

    /// Each as `<fenced until> <shared> <credential>`.
    fn said(graph: &Graph) -> Vec<String> {
        let line = |one: &Found| {
            let leaves = one.leaves.as_ref().unwrap().said();
            assert_eq!(leaves.topics, ["hr"]);
            let fence = leaves.fence_until_ms.map_or("-".to_owned(), |ms| ms.to_string());
            format!("{fence} {} {}", if leaves.shared { "shared" } else { "own" }, one.credential)
        };
        found(graph, &[Sort::Offboarded], 0)[&Sort::Offboarded].iter().map(line).collect()
    }

    #[test]
    fn all_that_lets_in_as_an_identity_goes_and_the_identity_is_fenced() {
        assert_eq!(said(&some(&["identity:prod/approle/etl"])), [format!("9 own {STORED}"), format!("9 own {FIRST}")]);
        assert_eq!(said(&some(&[])), Vec::<String>::new());
    }

    #[test]
    fn of_an_agent_its_own_identities_go_and_what_its_tasks_hold_and_what_others_use_is_a_person_s() {
        let all = said(&some(&["agent:triage"]));
        assert_eq!(
            all,
            [
                format!("9 own {STORED}"),
                format!("9 own {FIRST}"),
                format!("- own {LEASE}"),
                format!("- shared {OTHER}"),
            ]
        );
        let both = said(&some(&["agent:triage", "agent:report"]));
        assert!(both.contains(&format!("9 own {OTHER}")), "both leave: {both:?}");
        // The identity itself leaves: whoever uses it.
        let role = said(&some(&["agent:triage", "identity:prod/approle/report"]));
        assert!(role.contains(&format!("9 own {OTHER}")), "{role:?}");
    }

    #[test]
    fn one_credential_goes_alone_and_nobody_is_fenced_for_it() {
        assert_eq!(said(&some(&[FIRST])), [format!("- own {FIRST}")]);
    }

    #[test]
    fn an_owner_leaves_nothing_behind_but_what_nobody_answers_for() {
        let unowned = |graph: &Graph| -> Vec<String> {
            ask::unowned(graph, 99).lines.iter().map(|line| line.node.to_string()).collect()
        };
        let (before, after) = (unowned(&some(&[])), unowned(&some(&["owner:bob"])));
        assert!(!before.contains(&STORED.to_owned()) && !before.contains(&"identity:prod/approle/etl".to_owned()));
        for one in ["identity:prod/approle/etl", &format!("credential:{STORED}"), &format!("credential:{FIRST}")] {
            assert!(after.contains(&one.to_owned()), "{one}: {after:?}");
        }
        assert_eq!(said(&some(&["owner:bob"])), Vec::<String>::new(), "they work on");
    }

    #[test]
    fn the_words_of_several_are_kept_apart_and_those_of_another_tenant_count_for_nothing() {
        let of = |one: Departure| About {
            offboarded: Some(Box::new(Offboarded { words: [one].into() })),
            ..About::default()
        };
        let (hr, iam) = (word("default", "hr", 3), word("default", "iam", 7));
        let both = graph::both(of(hr.clone()), of(iam.clone())).offboarded.unwrap();
        assert_eq!(both.words, [hr.clone(), iam.clone()].into());
        let asks = |topic: &str, fence_until_ms, shared| Word { topic: topic.to_owned(), fence_until_ms, shared };
        let words = [asks("hr", Some(3), false), asks("iam", Some(7), false), asks("ops", None, true)];
        let leaves = Leaving { tenant: "default".to_owned(), words: words.into(), ..Leaving::default() };
        // The longest fence stands on the word of who asked for it, and of nobody else.
        let said = leaves.said();
        assert_eq!((said.topics, said.fence_until_ms, said.shared), (vec!["iam".to_owned()], Some(7), false));
        let kept = |tenant: &str, mighty: &[&str]| {
            let mut leaves = leaves.clone();
            leaves.keep(tenant, |topic| mighty.contains(&topic)).then(|| leaves.said())
        };
        let said = kept("default", &["hr"]).unwrap();
        assert_eq!(
            (said.topics, said.fence_until_ms),
            (vec!["hr".to_owned()], Some(3)),
            "who may not, lengthens nothing"
        );
        assert!(kept("default", &["ops"]).unwrap().shared);
        assert_eq!(kept("default", &[]).unwrap().topics, ["iam"], "it waits for somebody's authority");
        assert_eq!(kept("other", &["hr"]), None);
    }

    #[test]
    fn another_tenant_s_word_makes_no_agent_leave_and_lends_no_fence() {
        let mut graph = some(&["agent:triage"]);
        let mut fact = Fact::of(node("agent:report"));
        fact.about.offboarded = Some(Box::new(Offboarded { words: [word("other", "theirs", 99)].into() }));
        graph.add(&"theirs".into(), fact, 0);
        let all = &found(&graph, &[Sort::Offboarded], 0)[&Sort::Offboarded];
        let of = |tenant: &str| -> Vec<(String, Option<i64>, bool)> {
            let its = all.iter().filter(|one| one.leaves.as_ref().unwrap().tenant == tenant);
            let said = |one: &Found| one.leaves.as_ref().unwrap().said();
            its.filter(|one| one.credential.as_str() == OTHER)
                .map(|one| (one.place.clone(), said(one).fence_until_ms, said(one).shared))
                .collect()
        };
        let ours = ("belongs to agent:triage, who leaves, and is used by report".to_owned(), None, true);
        assert_eq!(of("default"), [ours], "who works as the same stays");
        let theirs = ("belongs to agent:report, who leaves, and is used by triage".to_owned(), None, true);
        assert_eq!(of("other"), [theirs]);
    }

    #[test]
    fn nobody_is_fenced_as_whom_somebody_who_stays_lets_himself_in() {
        let fences = |more: &str, leavers: &[&str]| {
            let mut graph = some(leavers);
            let place = node("path:prod/secret/etl");
            let held = [
                fact("path:prod/secret/etl", &[(STORED, Via::Stores)]),
                fact(more, &[(place.to_string().as_str(), Via::Reads)]),
            ];
            for one in held {
                graph.add(&"more".into(), one, 0);
            }
            said(&graph)
        };
        // It reads one of the values: that one waits for a person, the other dies, and nobody is closed out.
        let all = fences("agent:watch", &["agent:triage"]);
        assert!(all.contains(&format!("- shared {STORED}")) && all.contains(&format!("- own {FIRST}")), "{all:?}");
        let all = fences("consumer:cron", &["agent:triage"]);
        assert!(all.contains(&format!("- own {STORED}")) && all.contains(&format!("- own {FIRST}")), "{all:?}");
        let all = fences("agent:watch", &["agent:triage", "agent:watch"]);
        assert!(all.contains(&format!("9 own {FIRST}")), "{all:?}");
        // Said of the identity itself it ends for everybody.
        let all = fences("agent:watch", &["identity:prod/approle/etl"]);
        assert!(all.contains(&format!("9 own {STORED}")), "{all:?}");
    }
}

mod unused {
    use super::super::notice::{self, Again, Silences, Sort};
    use super::super::unused::{Asked, Why, granted};
    use super::super::uses::{Use, Uses, Watched};
    use super::*;
    use crate::scope::permissions;

    const DAY_MS: i64 = 86_400_000;
    const ASKED: Asked = Asked { for_ms: 90 * DAY_MS, youngest_ms: 30 * DAY_MS, now_ms: 1_000 * DAY_MS };
    const ETL: &str = "urn:curfew:cred:vault-approle:prod:approle/etl";

    /// An AppRole with policies; `since` is since when its grants are stated so, `first` when it was first seen (days).
    fn tower(since: i64, first: i64) -> Graph {
        let mut graph = Graph::default();
        let source: Arc<str> = "vault:prod".into();
        let mut role = Fact::of(node("identity:prod/approle/etl"));
        role.about.first_ms = Some(first * DAY_MS);
        for (policy, scope) in
            [("read", &[][..]), ("write", &[]), ("default", &[]), ("keeper", &["narrows"]), ("team", &[])]
        {
            role.edge(node(&format!("policy:prod/{policy}")), Via::Has, scope.iter().copied());
        }
        role.edge_to(Some(&node("identity:prod/entity/etl")), Via::Assumes);
        let facts = [
            role,
            fact("identity:prod/entity/etl", &[("policy:prod/group/data", Via::Has)]),
            fact("policy:prod/group/data", &[("policy:prod/team", Via::Has)]),
            fact("path:prod/auth/approle/role/etl/secret-id", &[("identity:prod/approle/etl", Via::Assumes)]),
            fact(ETL, &[("identity:prod/approle/etl", Via::LogsIn)]),
            // Somebody else's policies are not looked at: it is no AppRole.
            fact("identity:prod/userpass/ana", &[("policy:prod/write", Via::Has)]),
        ];
        for fact in facts {
            graph.add(&source, fact, since * DAY_MS);
        }
        graph.settle();
        graph
    }

    fn log(since: i64, until: i64) -> Watched {
        Watched {
            tenant: "default".to_owned(),
            source: "audit:prod".to_owned(),
            realm: "prod".to_owned(),
            since_ms: Some(since * DAY_MS),
            until_ms: until * DAY_MS,
            stale_ms: DAY_MS,
            unread: 0,
            position: None,
        }
    }

    fn uses(log: Watched, all: &[(&str, i64)]) -> Uses {
        let row = |(what, day): &(&str, i64)| Use {
            who: "role:approle/etl".to_owned(),
            what: (*what).to_owned(),
            last_ms: day * DAY_MS,
        };
        Uses::of([(log, all.iter().map(row).collect())])
    }

    fn whys(graph: &Graph, uses: &Uses) -> Vec<(String, Option<Why>)> {
        let all = granted(graph, uses, &ASKED);
        all.into_iter().map(|line| (line.policy.name.trim_start_matches("prod/").to_owned(), line.why)).collect()
    }

    fn why_not(graph: &Graph, uses: &Uses) -> Option<Why> {
        whys(graph, uses).into_iter().find(|(policy, _)| policy == "write").unwrap().1
    }

    const READS: &[(&str, i64)] = &[("", 999), ("policy:read", 999), ("policy:write", 800)];

    #[test]
    fn a_policy_that_granted_nothing_is_unused_and_each_other_one_has_its_reason() {
        let mut all = whys(&tower(100, 100), &uses(log(900, 1_000), READS));
        all.sort();
        let expected = [
            ("default", Some(Why::Default)),
            ("keeper", Some(Why::Narrows)),
            ("read", Some(Why::Used)),
            ("team", Some(Why::Otherwise)),
            ("write", None),
        ];
        assert_eq!(all, expected.map(|(policy, why)| (policy.to_owned(), why)));
        // What nobody knows is not called unused.
        assert_eq!(why_not(&tower(100, 100), &Uses::default()), Some(Why::Untracked));
        assert_eq!(why_not(&tower(100, 100), &uses(log(911, 1_000), READS)), Some(Why::Unwatched));
        assert_eq!(why_not(&tower(100, 100), &uses(log(900, 998), READS)), Some(Why::Stale));
        assert_eq!(why_not(&tower(100, 971), &uses(log(900, 1_000), READS)), Some(Why::Young));
        assert_eq!(why_not(&tower(911, 100), &uses(log(900, 1_000), READS)), Some(Why::Fresh));
        assert_eq!(why_not(&tower(100, 100), &uses(log(900, 1_000), &[("", 800)])), Some(Why::Silent));
        assert_eq!(why_not(&tower(100, 100), &uses(log(900, 1_000), &[("policy:write", 990)])), Some(Why::Used));
    }

    #[test]
    fn it_is_found_with_what_is_too_much_and_a_silent_one_is_dormant() {
        let found = |uses: Uses| {
            let by = Silences { uses, dormant: ASKED, unused: ASKED, lives: Default::default() };
            notice::found_by(&tower(100, 100), &[Sort::Unused, Sort::Dormant], &by)
        };
        let busy = found(uses(log(900, 1_000), READS));
        let [one] = &busy[&Sort::Unused][..] else { panic!("{busy:?}") };
        assert_eq!((one.credential.as_str(), &one.excess), (ETL, &permissions(["policy:write"]).unwrap()));
        assert!(busy[&Sort::Dormant].is_empty());
        let silent = found(uses(log(900, 1_000), &[("", 800)]));
        assert!(silent[&Sort::Unused].is_empty());
        assert_eq!(silent[&Sort::Dormant].len(), 1, "{silent:?}");
        assert!(found(uses(log(950, 1_000), &[("", 800)]))[&Sort::Dormant].is_empty(), "a gap since");
        assert!(found(Uses::default())[&Sort::Dormant].is_empty());

        let of = |names: &[&str]| permissions(names).unwrap();
        assert_eq!(notice::again(one, &of(&["policy:write"]), false), Again::Same);
        assert_eq!(notice::again(one, &of(&["policy:write", "policy:read"]), false), Again::Less);
        assert_eq!(notice::again(one, &of(&["policy:read"]), true), Again::Anew);
        assert_eq!(
            notice::again(one, &of(&["policy:write"]), true),
            Again::Same,
            "what was given back is not taken again"
        );
    }
}
