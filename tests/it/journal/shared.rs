//! What only a database promises: several processes have it open at once.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use curfew::case::CaseId;
use curfew::limit::{Budget, Part};
use uuid::Uuid;

use super::*;
use crate::world::until;

const DAY_MS: i64 = 86_400_000;

async fn two() -> (Store, Arc<dyn Journal>, Arc<dyn Journal>) {
    let store = Store::postgres();
    let (one, other) = tokio::join!(store.open(), store.open());
    (store, one, other)
}

fn secret_id(n: u32) -> Event {
    let credential = CredentialId::new(Kind::VaultSecretId, "c", &format!("approle/ci/{n}")).unwrap();
    let data = Data::OperatorRevoke { credential, by: "me".into(), reason: "x".into() };
    event(&format!("secret-{n}"), Type::OperatorRevoke, data)
}

/// What one process does until every case is closed. Each lane is in `busy` from its claim until its last append begins.
async fn close_all(journal: &Arc<dyn Journal>, busy: &Mutex<HashSet<String>>) -> Vec<CaseId> {
    let mut done = Vec::new();
    loop {
        let claims = claim(journal, 5).await;
        for claim in &claims {
            assert!(busy.lock().unwrap().insert(claim.case.lane.clone()), "{} is claimed twice", claim.case.lane);
        }
        if claims.is_empty() {
            let stats = journal.stats(T0).await.unwrap();
            if stats.closed == stats.accepted {
                return done;
            }
            tokio::task::yield_now().await;
        }
        for claim in claims {
            let case = journal.append(append(&claim, &claim.case, begun(&claim.case), true)).await.unwrap();
            busy.lock().unwrap().remove(&case.lane);
            let mut last = append(&claim, &case, super::done(), false);
            last.messages = vec![outcome::closed(&case, &dead(), T0 + 30)];
            journal.append(last).await.unwrap();
            done.push(case.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_claim_at_once_never_have_the_same_case_or_lane() {
    let (store, one, other) = two().await;
    put(&one, (0..60).map(|n| operator(&n.to_string(), n)).chain((0..20).map(secret_id)).collect()).await;
    let busy = Mutex::default();
    let (mut done, others) = tokio::join!(close_all(&one, &busy), close_all(&other, &busy));
    done.extend(others);
    assert_eq!(done.len(), 80);
    assert_eq!(done.iter().collect::<HashSet<_>>().len(), 80, "each was worked on once");
    recount(&store).await;
}

/// Claims are not synced, and neither is the number of the newest: after a crash of the database it is given out again.
#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_another_process_has_is_not_ours() {
    let (store, one, other) = two().await;
    put(&one, vec![operator("1", 0)]).await;
    let claim = claim(&one, 1).await.remove(0);
    store.claims_pass_on().await;
    let late = one.append(append(&claim, &claim.case, begun(&claim.case), true)).await;
    assert!(matches!(late, Err(Error::ClaimVoid)), "{late:?}");
    let back = one.unclaim(claim.case.id, claim.epoch, T0).await;
    assert!(matches!(back, Err(Error::ClaimVoid)), "{back:?}");
    let stands = "SELECT count(*) FROM cases WHERE claim_epoch IS NOT NULL AND claim_until_ms > now_ms()";
    assert_eq!(store.number(stands).await, 1, "the other one's claim stands");
    assert!(super::claim(&other, 1).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stood_still_until_its_claim_ended_leaves_nothing_and_goes_on_with_other_work() {
    let (store, one, other) = two().await;
    put(&one, vec![operator("1", 0), secret_id(1), secret_id(2)]).await;
    let want = |lease_ms| Want { max: 9, max_per_system: 9, now_ms: T0 + 20, steady_ms: T0 + 20, lease_ms, only: None };
    let old = one.claim(want(200)).await.unwrap();
    assert_eq!(old.len(), 2, "the two secret ids share a lane");
    let new = Mutex::new(Vec::new());
    until("the claims to end", async || {
        let more = other.claim(want(DAY_MS)).await.unwrap();
        new.lock().unwrap().extend(more);
        (new.lock().unwrap().len() == 2).then_some(())
    })
    .await;
    for old in &old {
        let late = one.append(append(old, &old.case, begun(&old.case), true)).await;
        assert!(matches!(late, Err(Error::ClaimVoid)), "{late:?}");
        let back = one.unclaim(old.case.id, old.epoch, T0).await;
        assert!(matches!(back, Err(Error::ClaimVoid)), "{back:?}");
        assert_eq!(one.timeline(old.case.id).await.unwrap().unwrap().records.len(), 1);
    }
    assert!(one.claim(want(DAY_MS)).await.unwrap().is_empty(), "the lane is not free either");
    for new in &new.into_inner().unwrap() {
        finish(&other, new).await.unwrap();
    }
    put(&other, vec![operator("2", 2)]).await;
    let more = one.claim(want(DAY_MS)).await.unwrap();
    assert_eq!(more.len(), 2, "another one, and the lane's next");
    for claim in &more {
        finish(&one, claim).await.unwrap();
    }
    recount(&store).await;
}

/// Both runs start and end at once, each at another process; a late grant of one comes while it ends.
#[tokio::test(flavor = "multi_thread")]
async fn ends_that_race_at_two_processes_open_the_shared_credentials_case_once_and_always() {
    let (store, one, other) = two().await;
    for round in 0..40 {
        let (r, shared, late) = (2 * round, 3 * round, 3 * round + 1);
        let id = |what: &str| format!("{what}-{round}");
        let first = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        tokio::join!(
            put(first.0, vec![started(&id("start"), r, &[shared])]),
            put(first.1, vec![started(&id("start of the other"), r + 1, &[shared])]),
        );
        let grant = GrantRegistered { run: run(r), attempt: Some(1), identity: None, grant: spec(late) };
        let grant = event(&id("grant"), Type::GrantRegistered, Data::GrantRegistered(grant));
        let (a, b, c) = tokio::join!(
            put(first.0, vec![ended(&id("end"), r)]),
            put(first.1, vec![ended(&id("end of the other"), r + 1)]),
            put(first.1, vec![grant]),
        );
        assert_eq!(a.stirred + b.stirred + c.stirred, 2, "round {round}: {a:?} {b:?} {c:?}");
        for credential in [shared, late] {
            let filter = Filter { credential: Some(cred(credential)), ..Filter::default() };
            assert_eq!(one.cases(filter).await.unwrap().len(), 1, "round {round}");
        }
    }
    recount(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_two_processes_at_once_is_accepted_once() {
    let (store, one, other) = two().await;
    for n in 0..30 {
        let same = || vec![operator(&n.to_string(), n), started(&format!("s{n}"), n, &[n])];
        let (a, b) = tokio::join!(put(&one, same()), put(&other, same()));
        let mut fates = [a.fates, b.fates];
        fates.sort_by_key(|fates| fates[0] == Fate::Accepted);
        assert_eq!(fates, [[Fate::Duplicate; 2], [Fate::Accepted; 2]]);
    }
    recount(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_move_a_partition_on_one_leaves_nothing() {
    let (store, one, other) = two().await;
    let mut from = None;
    for n in 1..30 {
        let part = |id: &str| batch(vec![Arrival::Event(Box::new(operator(id, n)))], vec![step_to(from, i64::from(n))]);
        let (a, b) =
            tokio::join!(one.record_batch(part(&format!("one-{n}"))), other.record_batch(part(&format!("other-{n}"))),);
        let won = [a, b].into_iter().filter(|done| match done {
            Ok(_) => true,
            Err(Error::PositionMoved { .. }) => false,
            Err(error) => panic!("{error:?}"),
        });
        assert_eq!(won.count(), 1);
        from = Some(i64::from(n));
        assert_eq!(one.stats(T0).await.unwrap().accepted, i64::from(n));
    }
    recount(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_is_one_for_all_processes() {
    const CAP: u32 = 7;
    let (store, one, other) = two().await;
    put(&one, (0..20).map(|n| operator(&n.to_string(), n)).collect()).await;
    let (mine, theirs) = (claim(&one, 10).await, claim(&other, 10).await);
    assert_eq!((mine.len(), theirs.len()), (10, 10));
    let charged = async |now_ms| {
        let begin = |journal: Arc<dyn Journal>, claim: Claim| async move {
            let first = Append { charge: Some(CAP), now_ms, ..append(&claim, &claim.case, begun(&claim.case), true) };
            match journal.append(first).await {
                Ok(case) => case.charged,
                // It is begun already.
                Err(Error::ClaimVoid | Error::CapReached) => false,
                Err(error) => panic!("{error:?}"),
            }
        };
        let all = mine.iter().map(|claim| begin(one.clone(), claim.clone()));
        let all = all.chain(theirs.iter().map(|claim| begin(other.clone(), claim.clone())));
        futures::future::join_all(all).await.into_iter().filter(|charged| *charged).count()
    };
    assert_eq!(charged(T0).await, CAP as usize);
    assert_eq!(charged(T0 + 1).await, 0);
    assert_eq!(charged(T0 + 60_000).await, CAP as usize);
    assert_eq!(charged(T0 + 120_000).await, 20 - 2 * CAP as usize);
    recount(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_is_felt_by_all_and_so_is_its_release() {
    let (_store, one, other) = two().await;
    for (by, at) in [(&one, &other), (&other, &one)] {
        by.freeze(Freeze::Hard, "ana", "fire").await.unwrap();
        assert_eq!(by.frozen().await.unwrap(), Some(Freeze::Hard));
        until("the freeze", async || at.frozen().await.unwrap().filter(|how| *how == Freeze::Hard)).await;
        by.hold_start("older").await.unwrap();
        until("the hold", async || at.started_held().await.unwrap()).await;
        at.release("ana").await.unwrap();
        assert_eq!((at.frozen().await.unwrap(), at.started_held().await.unwrap()), (None, None));
        until("the release", async || by.frozen().await.unwrap().is_none().then_some(())).await;
        until("the start", async || by.started_held().await.unwrap().is_none().then_some(())).await;
    }
}

const WHOLE: Budget = Budget { calls: 16, per_second: Some(500) };

async fn part(journal: &Arc<dyn Journal>, id: Uuid, uses: Budget, lease_ms: i64) -> Part {
    let worker = Worker { id, serves: None, calls: vec![("a".into(), WHOLE, uses)] };
    journal.announce(worker, lease_ms).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_all_processes_are_never_more_than_the_whole() {
    let (_store, one, other) = two().await;
    for _ in 0..8 {
        // All come at once, and each says again what it uses until each has its part.
        let mut workers: Vec<(Uuid, Budget)> = (0..5).map(|_| (Uuid::new_v4(), Budget::NONE)).collect();
        for _ in 0..6 {
            let all = workers.iter().enumerate().map(|(n, (id, uses))| part([&one, &other][n % 2], *id, *uses, DAY_MS));
            let parts = futures::future::join_all(all).await;
            let calls: u32 = parts.iter().map(|part| part.granted.calls).sum();
            let rate: u32 = parts.iter().map(|part| part.granted.per_second.unwrap()).sum();
            assert!(calls <= WHOLE.calls && rate <= WHOLE.per_second.unwrap(), "{parts:?}");
            for ((_, uses), part) in workers.iter_mut().zip(&parts) {
                let rate = part.granted.per_second.min(part.fair.per_second);
                *uses = Budget { calls: part.granted.calls.min(part.fair.calls), per_second: rate };
            }
        }
        assert!(workers.iter().all(|(_, uses)| (3..=4).contains(&uses.calls)), "{workers:?}");
        assert!(workers.iter().all(|(_, uses)| uses.per_second == Some(100)), "{workers:?}");
        assert_eq!(workers.iter().map(|(_, uses)| uses.calls).sum::<u32>(), WHOLE.calls, "none is left unused");
        let (last, uses) = workers.pop().unwrap();
        for (id, _) in &workers {
            one.leave(*id).await.unwrap();
        }
        assert_eq!(part(&other, last, uses, DAY_MS).await.granted, WHOLE, "what is left is free at once");
        other.leave(last).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_part_of_a_process_that_vanished_is_free_when_its_word_ends() {
    let (_store, one, other) = two().await;
    let (gone, here) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(part(&one, gone, Budget::NONE, 200).await.granted, WHOLE);
    until("the whole", async || (part(&other, here, Budget::NONE, DAY_MS).await.granted == WHOLE).then_some(())).await;
    assert_eq!(part(&one, gone, Budget::NONE, DAY_MS).await.granted, Budget::NONE, "and is not its any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_when_its_word_ends_another_does() {
    let (_store, one, other) = two().await;
    let workers: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let asks = workers.iter().enumerate().map(|(n, id)| [&one, &other][n % 2].lead("relay", *id, DAY_MS));
    let led = futures::future::try_join_all(asks).await.unwrap();
    assert_eq!(led.iter().filter(|leads| **leads).count(), 1);
    let leader = workers[led.iter().position(|leads| *leads).unwrap()];
    assert!(other.lead("relay", leader, DAY_MS).await.unwrap(), "it goes on");
    one.leave(leader).await.unwrap();
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    assert!(other.lead("relay", second, DAY_MS).await.unwrap(), "who leaves is followed at once");

    assert!(one.lead("deadlines", first, 200).await.unwrap(), "each is led for itself");
    until("the word to end", async || other.lead("deadlines", second, DAY_MS).await.unwrap().then_some(())).await;
    assert!(!one.lead("deadlines", first, DAY_MS).await.unwrap());
}

/// Reads as the relay does, while others write, and finds each row behind the one before.
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_of_two_processes_is_one_chain_for_who_reads_meanwhile() {
    const EACH: i64 = 40;
    let (store, one, other) = two().await;
    let writes = async |journal: &Arc<dyn Journal>| {
        for n in 0..EACH {
            let many = (0..=n % 3).map(|_| reject()).collect();
            journal.record_batch(batch(many, vec![])).await.unwrap();
        }
    };
    let reads = async {
        let (mut rows, mut all) = (Vec::new(), 0);
        while all == 0 || rows.len() < all {
            let after = rows.len() as i64;
            let more = one.outbox(after, 10).await.unwrap();
            assert!(more.iter().map(|row| row.seq).eq(after + 1..=after + more.len() as i64), "{more:?}");
            rows.extend(more);
            all = one.stats(T0).await.unwrap().rejected as usize;
        }
        rows
    };
    tokio::join!(writes(&one), writes(&other), reads);
    let rows = one.outbox(0, 10_000).await.unwrap();
    let journal = one.tail().await.unwrap().journal.to_string();
    let mut before: Option<String> = None;
    for row in &rows {
        let body: serde_json::Value = serde_json::from_slice(&row.body).unwrap();
        assert_eq!(body["prev"].as_str(), before.as_deref());
        assert_eq!(body["journal"], journal);
        before = Some(hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &row.body)));
    }
    assert_eq!(one.tail().await.unwrap(), other.tail().await.unwrap());
    recount(&store).await;

    // What was sent is sent for both, and the chain goes on.
    one.sent(rows.len() as i64).await.unwrap();
    assert!(other.outbox(0, 9).await.unwrap().is_empty());
    other.record_batch(batch(vec![reject()], vec![])).await.unwrap();
    let next = one.outbox(0, 9).await.unwrap().remove(0);
    let body: serde_json::Value = serde_json::from_slice(&next.body).unwrap();
    assert_eq!((next.seq, body["prev"].as_str()), (rows.len() as i64 + 1, before.as_deref()));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_make_one_schema() {
    let store = Store::postgres();
    let all = futures::future::join_all((0..6).map(|_| store.open())).await;
    let mut ids = BTreeSet::new();
    for journal in &all {
        put(journal, vec![operator(&ids.len().to_string(), 0)]).await;
        ids.insert(journal.tail().await.unwrap().journal);
    }
    assert_eq!(ids.len(), 1);
}

/// Processes are restarted one after the other with a smaller allowance of missed heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_with_an_older_configuration_wrote_is_due_by_the_newer_one_in_the_end() {
    let (store, old, new) = two().await;
    put(&old, vec![started("1", 1, &[])]).await;
    let due = async |journal: &Arc<dyn Journal>| journal.due(T0 + 60_001, 1, None, 9).await.unwrap().len();
    assert_eq!(due(&new).await, 1);
    put(&old, vec![started("2", 2, &[])]).await;
    let old = store.reopen(old).await;
    assert_eq!(due(&old).await, 2);
}
