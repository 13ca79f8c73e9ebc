//! A database that goes away, and connections that break.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::world::{Proxy, until};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_nothing_is_acknowledged_and_readiness_returns_by_itself() {
    let store = Store::postgres();
    let proxy = Proxy::to(&crate::admin::Postgres::shared().host).await;
    let journal = store.open_through(&proxy.address).await;
    put(&journal, vec![operator("0", 0)]).await;
    let held = claim(&journal, 1).await.remove(0);
    proxy.off();
    let first = append(&held, &held.case, begun(&held.case), true);
    let refused = journal.append(first).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(!journal.healthy());
    until("the guard to be told nothing", async || journal.frozen().await.is_err().then_some(())).await;
    proxy.on();
    until("readiness", async || journal.healthy().then_some(())).await;
    assert_eq!(journal.frozen().await.unwrap(), None);
    // The claim was given up with the append, and is there for the next one: nothing of it was written.
    let again = until("the case", async || claim(&journal, 1).await.pop()).await;
    assert_eq!((again.case.id, again.case.seq), (held.case.id, held.case.seq));
    finish(&journal, &again).await.unwrap();
    recount(&store).await;
}

/// What happens to the journal, while its connections break again and again: reads on as intake does.
async fn takes_in(journal: &Arc<dyn Journal>, done: &AtomicUsize, count: i64) {
    let mut from = None;
    while from.unwrap_or(0) < count {
        let next = from.unwrap_or(0) + 1;
        let n = next as u32;
        let events =
            [started(&format!("s{n}"), n, &[n]), ended(&format!("e{n}"), n), operator(&format!("o{n}"), n + 1)];
        let arrivals = events.map(|event| Arrival::Event(Box::new(event))).into_iter().chain([reject()]).collect();
        if journal.record_batch(batch(arrivals, vec![step_to(from, next)])).await.is_ok() {
            from = Some(next);
        } else {
            // Recorded or not: the position tells.
            let position = until("an answer", async || journal.position("k", "curfew.tasks", 0).await.ok()).await;
            from = position.map(|position| position.next_offset);
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// And works on what is due, until nothing is open any more.
async fn works(store: &Store, journal: &Arc<dyn Journal>, done: &AtomicUsize, events: i64) {
    loop {
        match journal
            .claim(Want {
                max: 5,
                max_per_system: 100,
                now_ms: T0 + 20,
                steady_ms: T0 + 20,
                lease_ms: 60_000,
                only: None,
            })
            .await
        {
            Ok(claims) if claims.is_empty() => {
                let all = journal.stats(T0).await.ok();
                if all.is_some_and(|stats| stats.accepted == events && stats.closed == events) {
                    return;
                }
                // What was claimed by a claim whose answer was lost.
                store.leases_end().await;
            }
            Ok(claims) => {
                for claim in claims {
                    match step(journal, &claim, 3).await {
                        Ok(()) | Err(Error::ClaimVoid | Error::Unavailable(_)) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_at_any_moment_lose_and_double_nothing() {
    const BATCHES: i64 = 60;
    let store = Store::postgres();
    let proxy = Proxy::to(&crate::admin::Postgres::shared().host).await;
    let journal: Arc<dyn Journal> = store.open_through(&proxy.address).await;
    let (taken, worked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let breaks = async {
        for n in 0.. {
            // Right behind one's success another one is on its way.
            let (one, other) = (taken.load(Ordering::SeqCst), worked.load(Ordering::SeqCst));
            until("something to be done", async || {
                let moved = taken.load(Ordering::SeqCst) > one + n % 3 || worked.load(Ordering::SeqCst) > other + n % 7;
                moved.then_some(())
            })
            .await;
            if n % 2 == 0 {
                proxy.off()
            } else {
                proxy.cut_replies()
            }
            tokio::task::yield_now().await;
            proxy.on();
        }
    };
    let all = async {
        tokio::join!(takes_in(&journal, &taken, BATCHES), works(&store, &journal, &worked, 3 * BATCHES));
    };
    tokio::select! { () = all => {} () = breaks => {} }
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!((stats.accepted, stats.closed, stats.rejected, stats.duplicates), (180, 180, BATCHES, 0));
    assert_eq!(journal.started_held().await.unwrap(), None, "no acknowledged commit was missing");
    recount(&store).await;
}
