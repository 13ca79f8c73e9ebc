use std::sync::Arc;

use super::*;
use crate::journal::{Lived, Login};
use crate::reach::notice::{self, Silences, Sort};
use crate::reach::unused;
use crate::reach::uses::{Use, Watched};
use crate::reach::{Fact, Lifetimes};
use crate::scope::permissions;
use crate::task::{Phase, RunKey, Task, Tenure};

const NOW: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;
const ETL: &str = "urn:curfew:cred:vault-approle:prod:approle/etl";
const IDENTITY: &str = "identity:prod/approle/etl";

fn node(text: &str) -> Node {
    Node::parse(text).unwrap()
}

/// Tokens of a day, secret_ids for ever; the mount allows 32 days.
fn day() -> Lifetimes {
    Lifetimes { token_ttl: 7_200, token_max_ttl: 86_400, mount: Some((2_764_800, 2_764_800)), ..Lifetimes::default() }
}

/// The AppRole, and what else is stated.
fn graph(of: Lifetimes, more: &[(&str, Via, &str)]) -> Graph {
    let mut graph = Graph::default();
    let source: Arc<str> = "vault:prod".into();
    let mut role = Fact::of(node(IDENTITY));
    (role.about.first_ms, role.about.lifetimes) = (Some(NOW - 100 * DAY_MS), Some(Box::new(of)));
    graph.add(&source, role, 0);
    let made_at = "path:prod/auth/approle/role/etl/secret-id";
    for (from, via, to) in [(made_at, Via::Assumes, IDENTITY), (ETL, Via::LogsIn, IDENTITY)].iter().chain(more) {
        let mut fact = Fact::of(node(from));
        fact.edge_to(Some(&node(to)), *via);
        graph.add(&source, fact, 0);
    }
    graph.settle();
    graph
}

fn task(no: usize, seconds: i64) -> Task {
    Task {
        tenant: "default".into(),
        run: RunKey::new("sched", &no.to_string()),
        source: "sched".to_owned(),
        within: None,
        name: None,
        identity: Some("loader".to_owned()),
        attempt: 1,
        phase: Phase::Ended,
        first_seen_ms: NOW - DAY_MS,
        started_ms: Some(NOW - DAY_MS),
        deadline_ms: NOW,
        clamped_from_ms: None,
        heartbeat_every_ms: None,
        last_beat_ms: None,
        ended_ms: Some(NOW - DAY_MS + seconds * 1_000),
        outcome: None,
        unbound: false,
        boundary: None,
    }
}

/// A grant of the AppRole itself, or of a secret_id of the task's own.
fn login(own: bool) -> Login {
    let (kind, id) = if own { (Kind::VaultSecretId, "approle/etl/acc") } else { (Kind::VaultApprole, "approle/etl") };
    Login {
        credential: CredentialId::new(kind, "prod", id).unwrap(),
        tenure: if own { Tenure::Minted } else { Tenure::Standing },
        principal: None,
        issued_ms: Some(NOW - DAY_MS),
    }
}

fn asked(tasks: impl IntoIterator<Item = Task>, own: bool) -> Asked {
    let terms = Terms { realms: [("prod".to_owned(), "default".into())].into(), ..Terms::default() };
    let mut tally = Tally::default();
    for task in tasks {
        tally.add(&Lived { task, logins: vec![login(own)] }, &terms, NOW);
    }
    Asked { tally: Arc::new(tally), terms, youngest_ms: 30 * DAY_MS, now_ms: NOW }
}

/// So many tasks of a minute.
fn minutes(count: usize) -> Asked {
    asked((0..count).map(|no| task(no, 60)), false)
}

fn line(graph: &Graph, asked: &Asked) -> LongLived {
    line_by(graph, &Uses::default(), asked)
}

fn line_by(graph: &Graph, uses: &Uses, asked: &Asked) -> LongLived {
    judge(graph, uses, asked).into_iter().find(|line| line.node == node(IDENTITY)).unwrap()
}

fn names(all: &[Permission]) -> Vec<&str> {
    all.iter().map(Permission::as_str).collect()
}

#[test]
fn what_lives_longer_than_its_tasks_is_named_and_nothing_that_lowers_nothing() {
    let seconds = |token_ttl, token_max_ttl| Lifetimes { token_ttl, token_max_ttl, ..day() };
    for (of, excess) in [
        (day(), &["lifetime:token_max_ttl=360", "lifetime:token_ttl=360"][..]),
        // The mount's day, however the role is set, and what is short enough by itself.
        (seconds(0, 0), &["lifetime:token_max_ttl=360"]),
        (seconds(300, 0), &["lifetime:token_max_ttl=360"]),
        (seconds(300, 86_400), &["lifetime:token_max_ttl=360"]),
        (seconds(0, 360), &[]),
        (seconds(360, 450), &[]),
        (seconds(0, 451), &["lifetime:token_max_ttl=360"]),
        (Lifetimes { mount: Some((300, 400)), ..seconds(0, 0) }, &[]),
        (Lifetimes { token_explicit_max_ttl: 400, ..seconds(0, 0) }, &[]),
        // A batch token is not renewed.
        (Lifetimes { batch: true, ..seconds(300, 86_400) }, &[]),
        (Lifetimes { batch: true, ..seconds(0, 0) }, &["lifetime:token_max_ttl=360"]),
    ] {
        let line = line(&graph(of.clone(), &[]), &minutes(20));
        assert_eq!(names(&line.excess), excess, "{of:?}");
        assert_eq!(line.why, excess.is_empty().then_some(Why::Fits), "{of:?}");
        assert_eq!((line.p99_s, line.needed_s), (Some(60), Some(360)));
    }
}

#[test]
fn periodic_tokens_are_told_and_left_to_a_person() {
    let of = Lifetimes { token_period: 3_600, ..day() };
    let line = line(&graph(of, &[]), &minutes(20));
    assert_eq!((line.why, line.excess.as_slice(), line.tokens_s, line.periodic), (None, &[][..], None, true));
    assert!(line.place().contains("periodic"), "{}", line.place());
}

#[test]
fn of_whom_too_little_is_known_nothing_is_said() {
    let all = graph(day(), &[]);
    assert_eq!(line(&all, &minutes(0)).why, Some(Why::Untracked));
    assert_eq!(line(&all, &minutes(19)).why, Some(Why::Few));
    assert_eq!(line(&all, &minutes(20)).why, None);
    let young = Asked { youngest_ms: 101 * DAY_MS, ..minutes(20) };
    assert_eq!(line(&all, &young).why, Some(Why::Young));
    let unread = Lifetimes { mount: None, ..day() };
    assert_eq!(line(&graph(unread, &[]), &minutes(20)).why, Some(Why::Unread));
    let running = Task { phase: Phase::Running, ended_ms: None, ..task(0, 0) };
    assert_eq!(line(&all, &asked([running], false)).why, Some(Why::Few));
    for why in [Why::Untracked, Why::Few, Why::Young, Why::Unread] {
        assert!(!why.as_str().is_empty());
    }
}

#[test]
fn who_uses_it_beside_its_tasks_keeps_it_as_it_is() {
    let stored = "path:prod/kv/app/etl";
    let token = "urn:curfew:cred:vault-secret-id:prod:approle/etl/other";
    for (more, why) in [
        (&[(stored, Via::Stores, ETL)][..], None),
        (&[(stored, Via::Stores, ETL), ("consumer:billing", Via::Reads, stored)], Some(Why::Beside)),
        (&[("agent:loader", Via::Runs, IDENTITY)], None),
        (&[("agent:other", Via::Runs, IDENTITY)], Some(Why::Beside)),
        (&[("agent:other", Via::Holds, ETL)], Some(Why::Beside)),
        (&[(token, Via::LogsIn, IDENTITY), ("consumer:x", Via::Holds, token)], Some(Why::Beside)),
        // A new agent: its task is in the next tally.
        (&[("task:sched:7", Via::Holds, ETL), ("agent:other", Via::Runs, "task:sched:7")], None),
    ] {
        assert_eq!(line(&graph(day(), more), &minutes(20)).why, why, "{more:?}");
    }
    // By its log it works while no task does.
    let used = |last_ms: i64| {
        let watched = Watched {
            tenant: "default".to_owned(),
            source: "audit:prod".to_owned(),
            realm: "prod".to_owned(),
            since_ms: Some(0),
            until_ms: NOW,
            stale_ms: 1,
            unread: 0,
            position: None,
        };
        Uses::of([(watched, vec![Use { who: "role:approle/etl".to_owned(), what: String::new(), last_ms }])])
    };
    let last_ms = NOW - DAY_MS + 60_000;
    assert_eq!(line_by(&graph(day(), &[]), &used(last_ms + LATE_MS), &minutes(20)).why, None);
    assert_eq!(line_by(&graph(day(), &[]), &used(last_ms + LATE_MS + 1), &minutes(20)).why, Some(Why::Beside));
}

#[test]
fn a_secret_id_s_life_is_lowered_only_where_nobody_keeps_one() {
    let own = asked((0..20).map(|no| task(no, 60)), true);
    let all = ["lifetime:secret_id_ttl=360", "lifetime:token_max_ttl=360", "lifetime:token_ttl=360"];
    assert_eq!(names(&line(&graph(day(), &[]), &own).excess), all);
    let (secret_id, held) = ("urn:curfew:cred:vault-secret-id:prod:approle/etl/kept", "task:sched:7");
    for (more, goes) in [
        (&[("path:prod/kv/app/etl", Via::Stores, ETL)][..], false),
        (&[(secret_id, Via::LogsIn, IDENTITY)], false),
        (&[(secret_id, Via::LogsIn, IDENTITY), (held, Via::Holds, secret_id)], true),
        (&[(held, Via::Holds, ETL)], false),
    ] {
        let line = line(&graph(day(), more), &own);
        assert_eq!(names(&line.excess), if goes { &all[..] } else { &all[1..] }, "{more:?}");
    }
    let short = Lifetimes { secret_id_ttl: 400, ..day() };
    assert_eq!(names(&line(&graph(short, &[]), &own).excess), all[1..], "it lives short enough");
}

fn found(graph: &Graph, lives: Asked) -> Vec<Found> {
    let nothing = unused::Asked { for_ms: 0, youngest_ms: 0, now_ms: NOW };
    let by = Silences { uses: Uses::default(), dormant: nothing, unused: nothing, lives };
    notice::found_by(graph, &[Sort::LongLived], &by).remove(&Sort::LongLived).unwrap()
}

#[test]
fn it_is_found_at_the_approle_itself_with_what_it_rests_on() {
    let token = "urn:curfew:cred:vault-secret-id:prod:approle/etl/other";
    let all = graph(day(), &[(token, Via::LogsIn, IDENTITY), ("task:sched:7", Via::Holds, token)]);
    let mut tasks: Vec<Task> = (0..120).map(|no| task(no, 41 * 60)).collect();
    tasks.push(Task { phase: Phase::Running, ended_ms: None, started_ms: Some(NOW - 3_000_000), ..task(200, 0) });
    let [one] = &found(&all, asked(tasks, false))[..] else { panic!() };
    assert_eq!((one.credential.as_str(), one.key()), (ETL, format!("long_lived:{ETL}")));
    assert_eq!(
        one.place,
        "tokens of identity:prod/approle/etl live up to 24 h, secret_ids for ever; 99 of 100 of its 120 tasks took at most \
         42 min, and one at least 50 min"
    );
    assert_eq!(
        names(&one.excess),
        ["lifetime:token_max_ttl=4500", "lifetime:token_ttl=4500"],
        "50 min, and half of it"
    );
    assert!(found(&all, minutes(19)).is_empty());
}

#[test]
fn tasks_that_take_longer_meanwhile_are_left_their_time() {
    let id = CredentialId::parse(ETL).unwrap();
    let frozen = permissions(["lifetime:token_max_ttl=360", "lifetime:token_ttl=360"]).unwrap();
    let longer = |seconds: i64| {
        let running =
            Task { phase: Phase::Running, ended_ms: None, started_ms: Some(NOW - seconds * 1_000), ..task(99, 0) };
        asked((0..20).map(|no| task(no, 60)).chain([running]), false)
    };
    let outgrown = |asked: &Asked| outgrown(&id, &frozen, &asked.tally, &asked.terms);
    assert_eq!(outgrown(&longer(1)), Some(Vec::new()));
    assert_eq!(outgrown(&longer(210)), Some(Vec::new()), "half of the margin is left");
    assert_eq!(outgrown(&longer(211)), Some(frozen.clone()));
    assert_eq!(outgrown(&minutes(19)), None, "what is not known any more is not taken");
    let own = permissions(["lifetime:secret_id_ttl=360", "lifetime:token_ttl=360"]).unwrap();
    let mixed = minutes(20);
    let left = super::outgrown(&id, &own, &mixed.tally, &mixed.terms).unwrap();
    assert_eq!(names(&left), ["lifetime:secret_id_ttl=360"], "somebody shares one by now");
}

#[test]
fn what_was_found_is_said_again_with_less_and_anew_where_that_was_all_of_it() {
    let one = |excess: &[&str]| Found {
        sort: Sort::LongLived,
        credential: CredentialId::parse(ETL).unwrap(),
        place: String::new(),
        owner: None,
        excess: permissions(excess).unwrap(),
        leaves: None,
        moves: Vec::new(),
    };
    let both = permissions(["lifetime:secret_id_ttl=360", "lifetime:token_ttl=360"]).unwrap();
    let said = |now: &[&str], stands, asked: &Asked| again(&one(now), &both, stands, asked);
    let own = asked((0..20).map(|no| task(no, 60)), true);
    let same = (Again::Same, Vec::new());
    assert_eq!(said(&["lifetime:token_ttl=300"], Stands::Waits, &own), same, "shorter tasks take no more");
    let less = said(&["lifetime:token_ttl=360"], Stands::Waits, &minutes(20));
    assert_eq!(less, (Again::Less, permissions(["lifetime:token_ttl=360"]).unwrap()));
    let long = asked((0..20).map(|no| task(no, 600)), true);
    let now = ["lifetime:secret_id_ttl=960", "lifetime:token_ttl=960"];
    assert_eq!(said(&now, Stands::Waits, &long), (Again::Less, permissions(now).unwrap()), "nothing of it is left");
    assert_eq!(said(&now, Stands::Begun, &long), same);
    assert_eq!(said(&now, Stands::Withdrawn, &long), (Again::Anew, permissions(now).unwrap()));
    assert_eq!(said(&["lifetime:token_ttl=360"], Stands::Withdrawn, &long), same);
    assert_eq!(said(&["lifetime:token_ttl=300"], Stands::Over, &long), same, "it was lowered, or given back");
    assert_eq!(said(&["lifetime:token_max_ttl=300"], Stands::Over, &long).0, Again::Anew);
}

#[test]
fn a_case_goes_on_where_its_tasks_still_fit() {
    let case = |frozen: &[&str]| crate::reach::uses::tests::case("long_lived", frozen);
    let both = ["lifetime:secret_id_ttl=360", "lifetime:token_ttl=360"];
    let own = asked((0..20).map(|no| task(no, 60)), true);
    let apply = |frozen: &[&str], asked: &Asked| apply(&case(frozen), &asked.tally, &asked.terms);
    assert_eq!(apply(&both, &own), Apply::Go);
    assert_eq!(apply(&both, &minutes(20)), Apply::Spare(permissions([both[0]]).unwrap()));
    assert_eq!(apply(&both[..1], &minutes(20)), Apply::Withdraw);
    assert_eq!(apply(&both, &minutes(3)), Apply::Wait);
    assert_eq!(apply(&both, &asked([], true)), Apply::Wait);
}

#[test]
fn spans_are_told_in_one_unit() {
    let told = [0, 119, 120, 2_460, 7_199, 7_200, 86_400, 172_800, 2_764_800].map(span);
    assert_eq!(told, ["0 s", "119 s", "2 min", "41 min", "120 min", "2 h", "24 h", "2 d", "32 d"]);
}
