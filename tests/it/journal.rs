//! The SQLite journal: conservation under random events and kills, and what must hold for each operation.

use std::path::Path;
use std::sync::Arc;

use curfew::case::plan::{Act, Plan, Step};
use curfew::case::record::{Answer, KilledBy, Level, Observation, Output, Presence, Record, Sighting, Verdict};
use curfew::case::state::{State, Todo};
use curfew::case::{Case, plan};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{
    Coordinates, Data, Event, FindingObserved, GrantRegistered, GrantReleased, GrantSpec, Reject, RejectReason,
    TaskEnded, TaskHeartbeat, TaskStarted, Type, digest16,
};
use curfew::guard::Freeze;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::journal::{Append, Arrival, Batch, Claim, Error, Fate, Filter, Journal, Move, Position, Recorded, Want};
use curfew::outcome;
use curfew::policy::Rules;
use curfew::task::{RunKey, Tenure};
use proptest::prelude::*;
use rusqlite::Connection;

const T0: i64 = 1_800_000_000_000;

fn open(dir: &Path) -> Arc<Sqlite> {
    Sqlite::open(&dir.join("journal.db"), Settings::default()).unwrap()
}

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
        run: run(r),
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
        validity: "active".into(),
        public: false,
        honeytoken: false,
    };
    event(id, Type::FindingObserved, Data::FindingObserved(data))
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

async fn put(journal: &Sqlite, events: Vec<Event>) -> Recorded {
    let arrivals = events.into_iter().map(|e| Arrival::Event(Box::new(e))).collect();
    journal.record_batch(batch(arrivals, vec![])).await.unwrap()
}

async fn claim(journal: &Sqlite, max: usize) -> Vec<Claim> {
    journal.claim(Want { max, max_per_system: 100, now_ms: T0 + 20, lease_ms: 60_000, only: None }).await.unwrap()
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
    let step = |act| Step { act, connector: "vault-lease".into(), system: case.system.clone(), optional: false };
    let plan = Plan { steps: vec![step(Act::Observe), step(Act::Revoke), step(Act::Prove)], pivot: 1 };
    vec![Record::Planned { no: case.state.plan_no + 1, plan }]
}

fn look() -> Observation {
    Observation { presence: Presence::Present, at_ms: T0 + 25, issued_ms: Some(T0), ..Observation::default() }
}

fn begun(case: &Case) -> Vec<Record> {
    let mut records = planned(case);
    records.push(Record::Observed { step: 0, seen: look() });
    let key = plan::step_key(case.id, case.state.plan_no + 1, 1);
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
async fn finish(journal: &Sqlite, claim: &Claim) -> Case {
    let mut first = append(claim, &claim.case, begun(&claim.case), true);
    first.charge = Some(1_000_000);
    first.learned = Some(look());
    let case = journal.append(first).await.unwrap();
    let mut last = append(claim, &case, done(), false);
    last.messages = vec![outcome::closed(&case, &dead(), T0 + 30)];
    journal.append(last).await.unwrap()
}

fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).unwrap().unwrap_or(0)
}

/// P1: what the tables say is what the counters say.
fn recount(path: &Path) {
    let db = Connection::open(path).unwrap();
    let count = |name: &str| number(&db, &format!("SELECT sum(value) FROM counters WHERE name = '{name}'"));
    let events = number(&db, "SELECT count(*) FROM events");
    let open = number(&db, "SELECT count(*) FROM events WHERE open_cases > 0");
    assert_eq!(count("consumed"), count("accepted") + count("rejected") + count("duplicates"));
    assert_eq!(count("accepted"), events);
    assert_eq!(count("accepted"), number(&db, "SELECT count(*) FROM seen"), "one decision for each key");
    assert_eq!(count("closed"), events - open);
    assert_eq!(count("tasks_live"), number(&db, "SELECT count(*) FROM tasks WHERE phase < 2"));
    assert_eq!(count("cases_opened"), number(&db, "SELECT count(*) FROM cases"));
    assert_eq!(count("cases_closed"), number(&db, "SELECT count(*) FROM cases WHERE closed_ms IS NOT NULL"));
    let wrong = "SELECT count(*) FROM events e WHERE open_cases <> (SELECT count(*) FROM links l JOIN cases c \
                 ON c.id = l.case_id WHERE l.event_id = e.id AND c.closed_ms IS NULL)";
    assert_eq!(number(&db, wrong), 0, "an event is open for as many cases as it says");
    let doubled = "SELECT count(*) FROM (SELECT 1 FROM cases WHERE closed_ms IS NULL GROUP BY tenant, credential \
                   HAVING count(*) > 1)";
    assert_eq!(number(&db, doubled), 0, "one open case for each credential");
    // Each directive left one record (opened, joined, superseded) and one link.
    let mut asked = 0;
    let mut cases = db.prepare("SELECT id, seq, body, closed_ms FROM cases").unwrap();
    let rows = cases.query_map([], |r| {
        Ok((r.get::<_, Vec<u8>>(0)?, r.get::<_, i64>(1)?, r.get::<_, String>(2)?, r.get::<_, Option<i64>>(3)?))
    });
    for (id, seq, body, closed) in rows.unwrap().map(Result::unwrap) {
        let case: Case = serde_json::from_str(&body).unwrap();
        let mut lists = db.prepare("SELECT seq, records FROM records WHERE case_id = ? ORDER BY seq").unwrap();
        let lists = lists.query_map([id], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?))).unwrap();
        let mut until = vec![];
        let mut all = vec![];
        for (n, (at, records)) in lists.map(Result::unwrap).enumerate() {
            assert_eq!(n as i64, at, "appends without gaps");
            let records: Vec<Record> = serde_json::from_str(&records).unwrap();
            if at <= seq {
                until.extend(records.clone());
            }
            all.extend(records);
        }
        assert_eq!(State::fold(&until).unwrap(), case.state, "the row is the fold up to its seq");
        let state = State::fold(&all).unwrap();
        assert_eq!(state.is_closed(), closed.is_some());
        assert!(all.iter().filter(|r| matches!(r, Record::Closed { .. })).count() <= 1);
        asked += all
            .iter()
            .filter(|r| matches!(r, Record::Opened { .. } | Record::Joined { .. } | Record::Superseded { .. }))
            .count() as i64;
    }
    assert_eq!(asked, number(&db, "SELECT count(*) FROM links"), "each directive links to one case");
    assert_eq!(number(&db, "SELECT count(*) FROM outbox"), number(&db, "SELECT max(seq) FROM outbox"), "no gaps");
    assert_eq!(
        number(&db, "SELECT count(*) FROM outbox"),
        count("rejected") + count("cases_closed"),
        "each reject and each end left one message"
    );
}

#[derive(Debug, Clone)]
enum Op {
    Batch(Vec<(u8, u32, u32)>),
    /// Claims, and how far each goes: 0 stays claimed, 1 started, 2 given back, 3 closed, 4 given back by a person.
    Work(Vec<u8>),
    Kill,
    Copy(Vec<(u8, u32, u32)>),
}

fn arrival((kind, a, b): (u8, u32, u32)) -> Arrival {
    let id = format!("{kind}-{a}");
    let (r, c) = (a % 4, b % 5);
    let released = GrantReleased { run: run(r), credential: cred(c) };
    let registered = GrantRegistered { run: run(r), attempt: None, grant: spec(c) };
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
        1 => arrivals().prop_map(Op::Copy),
    ];
    prop::collection::vec(op, 1..20)
}

async fn work(journal: &Sqlite, how: Vec<u8>) {
    for (claim, how) in claim(journal, how.len()).await.into_iter().zip(how) {
        let case = &claim.case;
        match (case.state.todo(), how) {
            (Todo::Plan, 3) => drop(finish(journal, &claim).await),
            (Todo::Plan, 1) => drop(journal.append(append(&claim, case, begun(case), true)).await.unwrap()),
            (Todo::Plan, 2) => drop(journal.append(append(&claim, case, planned(case), false)).await.unwrap()),
            (_, 2) => journal.unclaim(case.id, claim.epoch, T0 + 15).await.unwrap(),
            (Todo::Observe(1..), 3) | (_, 3) if !case.state.is_closed() => {
                let mut close = append(&claim, case, vec![Record::Closed { verdict: Verdict::Obsolete }], false);
                close.messages = vec![outcome::closed(case, &Verdict::Obsolete, T0)];
                journal.append(close).await.unwrap();
            }
            (_, 4) => drop(journal.command(case.id, None, T0).await.unwrap()),
            _ => {}
        }
    }
}

async fn conserve(ops: Vec<Op>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let mut journal = open(dir.path());
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
            Op::Kill => {
                drop(journal);
                journal = open(dir.path());
            }
            Op::Copy(list) => {
                // As a power cut would leave it: the log is copied while it is being written.
                let other = journal.clone();
                let b = batch(list.into_iter().map(arrival).collect(), vec![]);
                let writes = tokio::spawn(async move { other.record_batch(b).await.unwrap() });
                tokio::task::yield_now().await;
                let copy = tempfile::tempdir().unwrap();
                for end in ["", "-wal"] {
                    let name = format!("journal.db{end}");
                    std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
                }
                writes.await.unwrap();
                let copied = open(copy.path());
                let stands = copied.position("k", "curfew.tasks", 0).await.unwrap().map(|p| p.next_offset);
                assert_eq!(stands, offset, "what was answered is durable");
                work(&copied, vec![3, 3, 3]).await;
                drop(copied);
                recount(&copy.path().join("journal.db"));
            }
        }
    }
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!(stats.consumed, stats.accepted + stats.duplicates + stats.rejected);
    drop(journal);
    recount(&path);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_or_counted_twice(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(conserve(ops));
    }
}

mod ops;
