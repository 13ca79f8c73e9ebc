//! The journal, in each of its stores: conservation under random events and kills, and what must hold for each operation.

use std::sync::Arc;

use curfew::case::plan::{Act, Plan, Step};
use curfew::case::record::{Answer, KilledBy, Level, Observation, Output, Presence, Record, Sighting, Verdict};
use curfew::case::state::Todo;
use curfew::case::{Case, plan};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{
    Coordinates, Data, Event, FindingObserved, GrantRegistered, GrantReleased, GrantSpec, Reject, RejectReason,
    TaskEnded, TaskHeartbeat, TaskStarted, Type, digest16,
};
use curfew::guard::Freeze;
use curfew::journal::{
    Append, Arrival, Batch, Claim, Error, Fate, Filter, Journal, Move, Position, Recorded, Want, Worker,
};
use curfew::outcome;
use curfew::policy::Rules;
use curfew::task::{RunKey, Tenure};
use proptest::prelude::*;

use self::count::recount;
use crate::store::Store;

mod alike;
mod breaks;
mod count;
mod file;
mod leaving;
mod lost;
mod ops;
mod shared;
mod shown;
mod tasks;

const T0: i64 = 1_800_000_000_000;

fn cred(n: u32) -> CredentialId {
    CredentialId::new(Kind::VaultLease, if n.is_multiple_of(2) { "a" } else { "b" }, &format!("db/creds/x/{n}"))
        .unwrap()
}

fn run(n: u32) -> RunKey {
    RunKey::new("sched", &format!("r{n}"))
}

fn event(id: &str, kind: Type, data: Data) -> Event {
    let digest = digest16(&[format!("{data:?}").as_bytes()]);
    Event {
        at: Coordinates { cluster: "k".into(), topic: "curfew.tasks".into(), partition: 0, offset: 0 },
        tenant: "t".into(),
        source: "sched".into(),
        id: id.into(),
        kind,
        broker_ms: T0,
        digest,
        traceparent: None,
        data,
    }
}

fn spec(n: u32) -> GrantSpec {
    GrantSpec { credential: cred(n), tenure: Tenure::Minted, principal: None, expires_ms: None }
}

fn started(id: &str, r: u32, grants: &[u32]) -> Event {
    let data = TaskStarted {
        boundary: None,
        run: run(r),
        within: None,
        attempt: 1,
        task: None,
        identity: None,
        started_ms: Some(T0),
        deadline_ms: None,
        heartbeat_every_ms: Some(60_000),
        grants: grants.iter().map(|n| spec(*n)).collect(),
    };
    event(id, Type::TaskStarted, Data::TaskStarted(data))
}

fn ended(id: &str, r: u32) -> Event {
    let data = TaskEnded {
        run: run(r),
        attempt: 1,
        task: None,
        identity: None,
        ended_ms: Some(T0),
        outcome: None,
        grants: vec![],
        continued_as: None,
    };
    event(id, Type::TaskEnded, Data::TaskEnded(data))
}

fn finding(id: &str, c: u32) -> Event {
    let data = FindingObserved {
        finding_key: id.into(),
        credential: Some(cred(c)),
        detector: "d".into(),
        validity: "unknown".into(),
        ..FindingObserved::default()
    };
    event(id, Type::FindingObserved, Data::FindingObserved(Box::new(data)))
}

fn operator(id: &str, c: u32) -> Event {
    let data = Data::OperatorRevoke { credential: cred(c), by: "me".into(), reason: "x".into() };
    event(id, Type::OperatorRevoke, data)
}

fn reject() -> Arrival {
    Arrival::Reject(Reject {
        at: Coordinates { cluster: "k".into(), topic: "curfew.tasks".into(), partition: 0, offset: 7 },
        tenant: "t".into(),
        reason: RejectReason::BadJson,
        pointer: None,
        size_bytes: 3,
        broker_ms: T0,
    })
}

fn batch(arrivals: Vec<Arrival>, moves: Vec<Move>) -> Batch {
    Batch { arrivals, moves, rules: Arc::new(Rules::default()), now_ms: T0 + 10 }
}

fn step_to(from: Option<i64>, next: i64) -> Move {
    let to = Position {
        cluster: "k".into(),
        topic: "curfew.tasks".into(),
        partition: 0,
        next_offset: next,
        last_ms: T0,
        last_digest: [1; 16],
    };
    Move { from, to }
}

async fn put(journal: &Arc<impl Journal + ?Sized>, events: Vec<Event>) -> Recorded {
    let arrivals = events.into_iter().map(|e| Arrival::Event(Box::new(e))).collect();
    journal.record_batch(batch(arrivals, vec![])).await.unwrap()
}

async fn claim(journal: &Arc<impl Journal + ?Sized>, max: usize) -> Vec<Claim> {
    journal
        .claim(Want { max, max_per_system: 100, now_ms: T0 + 20, steady_ms: T0 + 20, lease_ms: 60_000, only: None })
        .await
        .unwrap()
}

fn append(claim: &Claim, case: &Case, records: Vec<Record>, keep: bool) -> Append {
    Append {
        case: case.id,
        epoch: claim.epoch,
        seq: case.seq,
        records,
        due_ms: T0 + 20,
        keep,
        charge: None,
        learned: None,
        messages: vec![],
        now_ms: T0 + 30,
    }
}

fn planned(case: &Case) -> Vec<Record> {
    let step = |act| Step {
        act,
        connector: "vault-lease".into(),
        system: case.system.clone(),
        optional: false,
        place: None,
        agent: None,
    };
    let plan = Plan { steps: vec![step(Act::Observe), step(Act::Revoke), step(Act::Prove)], pivot: 1, undoes: false };
    vec![Record::Planned { no: case.state.plan_no + 1, plan }]
}

fn look() -> Observation {
    Observation { presence: Presence::Present, at_ms: T0 + 25, issued_ms: Some(T0), ..Observation::default() }
}

fn begun(case: &Case) -> Vec<Record> {
    let mut records = planned(case);
    records.push(Record::Observed { step: 0, seen: look() });
    let key = plan::step_key(case.id, case.state.plan_no + 1, 1, 1);
    records.push(Record::Started { step: 1, key, attempt: 1 });
    records
}

fn dead() -> Verdict {
    Verdict::Dead { level: Level::Issuer, at_ms: T0 + 29, sightings: 1, by: KilledBy::Curfew, residue: vec![] }
}

fn done() -> Vec<Record> {
    let sighting = Sighting {
        level: Level::Issuer,
        answer: Answer::Refused,
        at_ms: T0 + 29,
        control: true,
        residue: vec![],
        request_id: None,
    };
    vec![
        Record::Succeeded { step: 1, output: Output::default() },
        Record::Sighted { step: 2, sighting },
        Record::Closed { verdict: dead() },
    ]
}

/// Starts the effect and closes the case: two appends.
async fn finish(journal: &Arc<impl Journal + ?Sized>, claim: &Claim) -> Result<Case, Error> {
    let mut first = append(claim, &claim.case, begun(&claim.case), true);
    first.charge = Some(1_000_000);
    first.learned = Some(look());
    let case = journal.append(first).await?;
    let mut last = append(claim, &case, done(), false);
    last.messages = vec![outcome::closed(&case, &dead(), T0 + 30)];
    journal.append(last).await
}

#[derive(Debug, Clone)]
enum Op {
    Batch(Vec<(u8, u32, u32)>),
    /// Claims, and how far each goes: 0 stays claimed, 1 started, 2 given back, 3 closed, 4 given back by a person.
    Work(Vec<u8>),
    Kill,
    /// Recorded while something else happens to the same journal.
    Beside(Vec<(u8, u32, u32)>),
}

fn arrival((kind, a, b): (u8, u32, u32)) -> Arrival {
    let id = format!("{kind}-{a}");
    let (r, c) = (a % 4, b % 5);
    let released = GrantReleased { run: run(r), credential: cred(c) };
    let registered = GrantRegistered { run: run(r), attempt: None, identity: None, grant: spec(c) };
    Arrival::Event(Box::new(match kind {
        0 => started(&id, r, &[c, (c + 1) % 5]),
        1 => ended(&id, r),
        2 => event(&id, Type::GrantRegistered, Data::GrantRegistered(registered)),
        3 => event(&id, Type::GrantReleased, Data::GrantReleased(released)),
        4 => operator(&id, c),
        5 => finding(&id, c),
        6 => event(&id, Type::TaskHeartbeat, Data::TaskHeartbeat(TaskHeartbeat { run: run(r) })),
        _ => return reject(),
    }))
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let arrivals = || prop::collection::vec((0u8..8, 0u32..12, 0u32..5), 1..8);
    let op = prop_oneof![
        5 => arrivals().prop_map(Op::Batch),
        4 => prop::collection::vec(0u8..5, 1..5).prop_map(Op::Work),
        1 => Just(Op::Kill),
        1 => arrivals().prop_map(Op::Beside),
    ];
    prop::collection::vec(op, 1..20)
}

/// One step of work on a claimed case.
async fn step(journal: &Arc<dyn Journal>, claim: &Claim, how: u8) -> Result<(), Error> {
    let case = &claim.case;
    match (case.state.todo(), how) {
        (Todo::Plan, 3) => finish(journal, claim).await.map(drop),
        (Todo::Plan, 1) => journal.append(append(claim, case, begun(case), true)).await.map(drop),
        (Todo::Plan, 2) => journal.append(append(claim, case, planned(case), false)).await.map(drop),
        (_, 2) => journal.unclaim(case.id, claim.epoch, T0 + 15).await,
        (_, 3) if !case.state.is_closed() => {
            let mut close = append(claim, case, vec![Record::Closed { verdict: Verdict::Obsolete }], false);
            close.messages = vec![outcome::closed(case, &Verdict::Obsolete, T0)];
            journal.append(close).await.map(drop)
        }
        (_, 4) => journal.command(case.id, None, T0).await.map(drop),
        _ => Ok(()),
    }
}

async fn work(journal: &Arc<dyn Journal>, how: Vec<u8>) {
    for (claim, how) in claim(journal, how.len()).await.into_iter().zip(how) {
        step(journal, &claim, how).await.unwrap();
    }
}

/// Another process records while this one works; what it records may void a claim.
async fn beside(store: &Store, journal: &Arc<dyn Journal>, arrivals: Vec<Arrival>) {
    let other = store.open_beside(journal).await;
    let working = async {
        for claim in claim(journal, 3).await {
            match step(journal, &claim, 3).await {
                Ok(()) | Err(Error::ClaimVoid) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let (recorded, ()) = tokio::join!(other.record_batch(batch(arrivals, vec![])), working);
    recorded.unwrap();
}

/// As a power cut would leave it: the file and its log are copied while they are being written.
async fn copied(store: &Store, journal: &Arc<dyn Journal>, arrivals: Vec<Arrival>, offset: Option<i64>) {
    let other = journal.clone();
    let writes = tokio::spawn(async move { other.record_batch(batch(arrivals, vec![])).await.unwrap() });
    tokio::task::yield_now().await;
    let copy = Store::sqlite();
    for end in ["", "-wal"] {
        let with_end = |store: &Store| format!("{}{end}", store.file().display());
        std::fs::copy(with_end(store), with_end(&copy)).unwrap();
    }
    writes.await.unwrap();
    let found = copy.open().await;
    let stands = found.position("k", "curfew.tasks", 0).await.unwrap().map(|p| p.next_offset);
    assert_eq!(stands, offset, "what was answered is durable");
    work(&found, vec![3, 3, 3]).await;
    recount(&copy).await;
}

async fn conserve(store: Store, ops: Vec<Op>) {
    let mut journal = store.open().await;
    let mut offset = None;
    for (n, op) in ops.into_iter().enumerate() {
        match op {
            Op::Batch(list) => {
                let next = n as i64;
                let b = batch(list.into_iter().map(arrival).collect(), vec![step_to(offset, next)]);
                journal.record_batch(b).await.unwrap();
                offset = Some(next);
            }
            Op::Work(how) => work(&journal, how).await,
            Op::Kill => journal = store.reopen(journal).await,
            Op::Beside(list) => {
                let arrivals = list.into_iter().map(arrival).collect();
                match &store {
                    Store::Sqlite(_) => copied(&store, &journal, arrivals, offset).await,
                    Store::Postgres(_) => beside(&store, &journal, arrivals).await,
                }
            }
        }
    }
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!(stats.consumed, stats.accepted + stats.duplicates + stats.rejected);
    drop(journal);
    recount(&store).await;
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(work);
}

mod sqlite {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn nothing_is_lost_or_counted_twice(ops in ops()) {
            on_a_runtime(async { conserve(Store::sqlite(), ops).await });
        }
    }
}

mod postgres {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
        #[test]
        fn nothing_is_lost_or_counted_twice(ops in ops()) {
            on_a_runtime(async { conserve(Store::postgres(), ops).await });
        }
    }
}
