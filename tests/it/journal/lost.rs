//! A database that lost commits which it had acknowledged: all are held until one person's word, in every order.

use curfew::journal::{Old, Stats};

use super::*;
use crate::world::{Proxy, until};

/// A process, and what stands between it and the database.
struct Process {
    proxy: Proxy,
    journal: Arc<dyn Journal>,
}

impl Process {
    async fn of(store: &Store) -> Self {
        let proxy = Proxy::to(&crate::admin::Postgres::shared().host).await;
        let journal = store.open_through(&proxy.address).await;
        Self { proxy, journal }
    }

    async fn is_held(&self) {
        until("the hold", async || self.journal.started_held().await.ok().flatten()).await;
    }

    async fn is_free(&self) {
        until("the release", async || self.journal.started_held().await.ok()?.is_none().then_some(())).await;
    }

    async fn takes(&self, event: Event) {
        let arrivals = vec![Arrival::Event(Box::new(event))];
        until("intake", async || self.journal.record_batch(batch(arrivals.clone(), vec![])).await.ok()).await;
    }
}

/// The database goes away, and the copy of it takes over.
async fn fail_over(store: &Store, all: &[&Process]) {
    all.iter().for_each(|one| one.proxy.off());
    store.fall_back().await;
    all.iter().for_each(|one| one.proxy.on());
}

async fn held_rows(store: &Store) -> i64 {
    store.number("SELECT count(*) FROM meta WHERE name = 'started_held'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_commits_holds_all_and_one_release_of_any_lets_all_go_on() {
    for by in 0..3 {
        let store = Store::postgres();
        let (one, other) = (Process::of(&store).await, Process::of(&store).await);
        one.takes(operator("1", 1)).await;
        other.takes(operator("2", 2)).await;
        let claimed = claim(&one.journal, 1).await.remove(0);
        store.copy().await;
        one.takes(operator("3", 3)).await;
        finish(&one.journal, &claimed).await.unwrap();
        fail_over(&store, &[&one, &other]).await;
        let fresh = Process::of(&store).await;
        let all = [&one, &other, &fresh];
        for process in all {
            process.is_held().await;
        }
        // A hold stops what is done, not what comes in.
        for (n, process) in all.into_iter().enumerate() {
            process.takes(operator(&format!("held-{n}"), 10 + n as u32)).await;
        }
        one.takes(operator("3", 3)).await;
        // The copy knows the claim, and its lease has not ended: what was done with it, the copy does not know.
        let late = one.journal.append(append(&claimed, &claimed.case, begun(&claimed.case), true)).await;
        assert!(matches!(late, Err(Error::ClaimVoid)), "{late:?}");

        all[by].journal.release("ana").await.unwrap();
        for process in all {
            process.is_free().await;
        }
        store.leases_end().await;
        for (n, process) in all.into_iter().enumerate() {
            process.takes(operator(&format!("free-{n}"), 20 + n as u32)).await;
            let claimed = claim(&process.journal, 1).await.remove(0);
            assert!(claimed.epoch > 1 << 32, "no epoch is given twice");
            finish(&process.journal, &claimed).await.unwrap();
        }
        assert_eq!(held_rows(&store).await, 0);
        recount(&store).await;
    }
}

/// Rows that vanish under a process that stays connected: no transaction commits before the hold is durable.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_not_known_any_more_holds_all_before_it_writes() {
    let store = Store::postgres();
    let (one, other) = (Process::of(&store).await, Process::of(&store).await);
    for round in 0..3 {
        one.takes(operator(&format!("a{round}"), round)).await;
        store.side("DELETE FROM writers").await;
        let next = batch(vec![Arrival::Event(Box::new(operator(&format!("b{round}"), 50 + round)))], vec![]);
        let written = until("a write", async || one.journal.record_batch(next.clone()).await.ok()).await;
        assert_eq!((written.fates, held_rows(&store).await), (vec![Fate::Accepted], 1));
        one.is_held().await;
        other.is_held().await;
        other.journal.release("ana").await.unwrap();
        one.is_free().await;
    }
}

/// A release that finds the loss itself says so, and what to do: nobody was shown what it would let go.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_finds_the_loss_lets_nothing_go() {
    let store = Store::postgres();
    let one = Process::of(&store).await;
    let mut round = 0;
    let refused = loop {
        one.takes(operator(&format!("{round}"), round)).await;
        store.side("DELETE FROM writers").await;
        // It looks by itself now and then, and may have been first.
        match one.journal.release("ana").await {
            Ok(()) => round += 1,
            Err(error) => break error,
        }
        assert!(round < 20);
    };
    assert!(matches!(refused, Error::LostCommits), "{refused:?}");
    assert!(refused.to_string().contains("`curfew release` once more"), "{refused}");
    one.is_held().await;
    one.journal.release("ana").await.unwrap();
    one.is_free().await;
}

/// And one that neither writes nor connects.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_notices_too() {
    let store = Store::postgres();
    let (one, other) = (Process::of(&store).await, Process::of(&store).await);
    one.takes(operator("1", 1)).await;
    store.side("DELETE FROM writers").await;
    other.is_held().await;
    one.is_held().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_at_the_release_holds_again_for_what_it_lost_itself() {
    let store = Store::postgres();
    let (one, late) = (Process::of(&store).await, Process::of(&store).await);
    store.copy().await;
    one.takes(operator("1", 1)).await;
    late.takes(operator("2", 2)).await;
    one.proxy.off();
    late.proxy.off();
    store.fall_back().await;
    one.proxy.on();
    one.is_held().await;
    one.journal.release("ana").await.unwrap();
    one.is_free().await;
    late.proxy.on();
    late.is_held().await;
    one.is_held().await;
    one.journal.release("ana").await.unwrap();
    late.is_free().await;
    late.takes(operator("2", 2)).await;
    one.takes(operator("1", 1)).await;
    recount(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_lost_holds_again_and_so_does_a_lost_release() {
    let store = Store::postgres();
    let (one, other) = (Process::of(&store).await, Process::of(&store).await);
    store.copy().await;
    one.takes(operator("1", 1)).await;
    fail_over(&store, &[&one, &other]).await;
    other.is_held().await;
    // The copy of before the hold takes over once more.
    fail_over(&store, &[&one, &other]).await;
    until("the hold to be there again", async || (held_rows(&store).await == 1).then_some(())).await;
    one.is_held().await;
    store.copy().await;
    other.journal.release("ana").await.unwrap();
    one.is_free().await;
    fail_over(&store, &[&one, &other]).await;
    one.is_held().await;
    other.is_held().await;
    one.journal.release("ana").await.unwrap();
    other.is_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_that_is_lost_leaves_a_hold() {
    let store = Store::postgres();
    let (one, other) = (Process::of(&store).await, Process::of(&store).await);
    store.copy().await;
    one.journal.freeze(Freeze::Hard, "ana", "fire").await.unwrap();
    fail_over(&store, &[&one, &other]).await;
    one.is_held().await;
    other.is_held().await;
}

/// As if nothing had been heard of any process for eight days.
const AGE: &str = "UPDATE writers SET at_ms = at_ms - 8 * 86400000";

#[tokio::test(flavor = "multi_thread")]
async fn what_processes_counted_that_are_gone_is_kept_in_one_row() {
    let store = Store::postgres();
    let here = Process::of(&store).await;
    let writers = async || store.number("SELECT count(DISTINCT id) FROM writers").await;
    let old = Old { seen_ms: 0, events_ms: 0, closed_ms: 0 };
    for round in 0..2 {
        for n in 0..3 {
            let (gone, n) = (store.open().await, 3 * round + n);
            put(&gone, vec![started(&format!("s{n}"), n, &[n]), ended(&format!("e{n}"), n)]).await;
            gone.record_batch(batch(vec![reject()], vec![])).await.unwrap();
            finish(&gone, &claim(&gone, 1).await[0]).await.unwrap();
        }
        here.takes(operator(&format!("{round}"), 100 + round)).await;
        finish(&here.journal, &claim(&here.journal, 1).await[0]).await.unwrap();
        let before = here.journal.stats(T0).await.unwrap();
        here.journal.prune(old, 100).await.unwrap();
        assert_eq!(writers().await, 4 + i64::from(round), "those of today stay");
        store.side(AGE).await;
        // One word of a process is enough for all of its rows.
        here.takes(operator(&format!("still here {round}"), 200 + round)).await;
        here.journal.prune(old, 100).await.unwrap();
        assert_eq!(writers().await, 2);
        let after = here.journal.stats(T0).await.unwrap();
        let counts = |stats: &Stats| (stats.accepted - stats.closed, stats.rejected, stats.deadlines_pending);
        assert_eq!((after.accepted, after.consumed), (before.accepted + 1, before.consumed + 1));
        assert_eq!(counts(&after).1, counts(&before).1);
        recount(&store).await;
        finish(&here.journal, &claim(&here.journal, 1).await[0]).await.unwrap();
        assert_eq!(here.journal.started_held().await.unwrap(), None);
    }
    recount(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_its_rows_were_folded_holds_and_counts_on() {
    let store = Store::postgres();
    let (here, back) = (Process::of(&store).await, Process::of(&store).await);
    back.takes(operator("1", 1)).await;
    back.proxy.off();
    store.side(AGE).await;
    here.takes(operator("2", 2)).await;
    here.journal.prune(Old { seen_ms: 0, events_ms: 0, closed_ms: 0 }, 100).await.unwrap();
    back.proxy.on();
    here.is_held().await;
    here.journal.release("ana").await.unwrap();
    back.is_free().await;
    back.takes(operator("3", 3)).await;
    recount(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_breaks_meanwhile_what_is_lost_is_held() {
    let store = Store::postgres();
    let (one, other) = (Process::of(&store).await, Process::of(&store).await);
    for round in 0..6 {
        store.copy().await;
        one.takes(operator(&format!("{round}"), round)).await;
        one.proxy.off();
        store.fall_back().await;
        // The answer to the hold itself may be lost: it is held once more.
        one.proxy.cut_replies();
        tokio::task::yield_now().await;
        one.proxy.on();
        one.is_held().await;
        other.is_held().await;
        until("a release", async || other.journal.release("ana").await.ok()).await;
        until("the release", async || {
            // One of the answers that were lost may have been the hold's: then it is held again, and released again.
            if one.journal.started_held().await.ok()?.is_some() {
                other.journal.release("ana").await.ok()?;
            }
            one.journal.started_held().await.ok()?.is_none().then_some(())
        })
        .await;
    }
}
