//! What people watch, in every store: bounded, in its order, page by page.

use std::collections::BTreeSet;

use curfew::case::state::Phase;
use curfew::journal::shown::{Group, Page, Which};

use super::*;

over_both! {
    open_cases_come_page_by_page_in_the_order_of_looking,
    what_closed_last_comes_first_and_how_long_it_outlived_its_task,
    of_a_long_case_both_ends_are_shown,
    tasks_show_a_part_of_what_they_hold_and_the_case_about_it,
}

async fn pages(journal: &Arc<dyn Journal>, only: Option<Group>, max: u32) -> Vec<(Group, String)> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = journal.watched(Page { only, after, max }).await.unwrap();
        assert!(page.len() <= max as usize);
        assert!(
            page.windows(2).all(|pair| pair[0].at < pair[1].at)
                && page.first().is_none_or(|first| after < Some(first.at))
        );
        after = page.last().map(|last| last.at);
        all.extend(page.iter().map(|one| (one.at.group, one.line.case.directive.credential.id())));
        if page.len() < max as usize {
            return all;
        }
    }
}

async fn open_cases_come_page_by_page_in_the_order_of_looking(store: Store) {
    let journal = store.open().await;
    assert!(pages(&journal, None, 3).await.is_empty());
    // Prompt ones, then an urgent one, then one that only a person lets go on.
    put(&journal, (0..5).flat_map(|n| [started(&format!("s{n}"), n, &[n]), ended(&format!("e{n}"), n)]).collect())
        .await;
    put(&journal, vec![operator("o", 5), started("s6", 6, &[6]), finding("f", 6)]).await;
    // One was begun, and its answer is missing.
    let claimed = claim(&journal, 1).await.remove(0);
    let doubted = claimed.case.directive.credential.id();
    let case = journal.append(append(&claimed, &claimed.case, begun(&claimed.case), true)).await.unwrap();
    journal
        .append(append(
            &claimed,
            &case,
            vec![Record::Failed {
                step: 1,
                failure: curfew::case::record::FailureKind::Unknown,
                note: "cut".into(),
                untouched: false,
            }],
            false,
        ))
        .await
        .unwrap();
    let all = pages(&journal, None, 100).await;
    assert_eq!(all.len(), 7);
    assert_eq!(all[0], (Group::MayBeAlive, doubted.clone()));
    // What a claim takes first is the urgent one: it is the one in doubt, or the next that is shown.
    assert!(all[..2].iter().any(|(_, id)| *id == cred(5).id()), "{all:?}");
    assert_eq!(all[6], (Group::Held, cred(6).id()));
    for max in [1, 2, 3] {
        assert_eq!(pages(&journal, None, max).await, all, "{max} at a time");
    }
    let at_work = pages(&journal, Some(Group::AtWork), 2).await;
    assert_eq!(at_work, all[1..6]);
    assert_eq!(pages(&journal, Some(Group::Held), 2).await, all[6..]);
    // Closed ones are not among them.
    for claim in claim(&journal, 100).await {
        finish(&journal, &claim).await.ok();
    }
    let open: BTreeSet<String> = pages(&journal, None, 2).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(open, [doubted, cred(6).id()].into());
}

async fn what_closed_last_comes_first_and_how_long_it_outlived_its_task(store: Store) {
    let journal = store.open().await;
    assert!(journal.last_closed(5).await.unwrap().is_empty());
    put(&journal, (0..3).flat_map(|n| [started(&format!("s{n}"), n, &[n]), ended(&format!("e{n}"), n)]).collect())
        .await;
    put(&journal, vec![operator("o", 4)]).await;
    let mut closed = Vec::new();
    for (n, claim) in claim(&journal, 10).await.into_iter().enumerate() {
        let case = journal.append(append(&claim, &claim.case, begun(&claim.case), true)).await.unwrap();
        let mut last = append(&claim, &case, done(), false);
        last.now_ms = T0 + 100 + n as i64;
        journal.append(last).await.unwrap();
        closed.push(case.id);
    }
    closed.reverse();
    let ids = |lines: Vec<curfew::journal::CaseLine>| lines.iter().map(|line| line.case.id).collect::<Vec<_>>();
    assert_eq!(ids(journal.last_closed(10).await.unwrap()), closed);
    assert_eq!(ids(journal.last_closed(2).await.unwrap()), closed[..2]);
    // All died 29 ms after T0, when the tasks ended; who was revoked by a person had no task.
    let deaths = journal.deaths(T0, 100).await.unwrap();
    assert_eq!((deaths.looked, deaths.all.len()), (4, 3));
    assert!(deaths.all.iter().all(|death| death.overrun_ms == 29), "{deaths:?}");
    assert_eq!(journal.deaths(T0, 2).await.unwrap().looked, 2);
    assert_eq!(journal.deaths(T0 + 101, 100).await.unwrap().looked, 2, "those that closed later");
}

async fn of_a_long_case_both_ends_are_shown(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![started("s", 0, &[0]), ended("e", 0)]).await;
    let joins = 30;
    put(&journal, (0..joins).map(|n| finding(&format!("f{n}"), 0)).collect()).await;
    let id = journal.cases(Filter::default()).await.unwrap()[0].case.id;
    assert!(journal.excerpt(uuid::Uuid::new_v4(), 5).await.unwrap().is_none());
    let whole = journal.timeline(id).await.unwrap().unwrap();
    let all = journal.excerpt(id, 1_000).await.unwrap().unwrap();
    assert_eq!((all.first.len(), all.last.len(), all.left_out, all.more_events), (whole.records.len(), 0, 0, false));
    assert_eq!(all.first, whole.records);
    assert_eq!(all.events.len(), whole.events.len());
    let part = journal.excerpt(id, 5).await.unwrap().unwrap();
    assert_eq!((part.events.len(), part.more_events), (5, true));
    assert_eq!(part.first, whole.records[..5]);
    assert_eq!(part.last, whole.records[whole.records.len() - 5..]);
    assert_eq!(part.left_out, whole.records.len() as i64 - 10);
    assert!(matches!(part.line.case.state.phase, Phase::Open));
    assert_eq!(part.credential.map(|credential| credential.id), Some(cred(0)));
    // A case that a finding asked for brings it along.
    put(&journal, vec![started("s3", 3, &[3]), finding("asks", 3)]).await;
    let asked = journal.cases(Filter { credential: Some(cred(3)), ..Filter::default() }).await.unwrap();
    let asked = journal.excerpt(asked[0].case.id, 5).await.unwrap().unwrap();
    assert_eq!(asked.finding.map(|finding| finding.key), Some("asks".to_owned()));
}

async fn tasks_show_a_part_of_what_they_hold_and_the_case_about_it(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![started("s1", 1, &[1, 3, 5, 7]), started("s2", 2, &[2])]).await;
    let mut sooner = started("s3", 3, &[]);
    if let Data::TaskStarted(data) = &mut sooner.data {
        data.heartbeat_every_ms = None;
        data.deadline_ms = Some(T0 + 1_000);
    }
    put(&journal, vec![sooner, operator("o", 2)]).await;
    let next = journal.holders(Which::Next(10), 2).await.unwrap();
    assert_eq!((next.len(), &next[0].task.run, next[0].due_ms), (3, &run(3), T0 + 1_000));
    let of = |r: u32| next.iter().find(|one| one.task.run == run(r)).unwrap();
    assert_eq!((of(1).holds.len(), of(1).more, of(2).more, of(3).holds.len()), (2, true, false, 0));
    assert!(of(1).holds.iter().all(|held| held.case.is_none()));
    let open = journal.cases(Filter::default()).await.unwrap()[0].case.id;
    assert_eq!(of(2).holds[0].case, Some(open));
    assert_eq!(journal.holders(Which::Next(1), 2).await.unwrap().len(), 1);
    let one = journal.holders(Which::Run("t".into(), run(1)), 100).await.unwrap();
    assert_eq!((one.len(), one[0].holds.len(), one[0].more), (1, 4, false));
    assert!(journal.holders(Which::Run("other".into(), run(1)), 100).await.unwrap().is_empty());
    assert!(journal.holders(Which::Run("t".into(), run(9)), 100).await.unwrap().is_empty());
    // One that ended is found by its name, and is not among the next.
    put(&journal, vec![ended("e", 3)]).await;
    assert_eq!(journal.holders(Which::Next(10), 2).await.unwrap().len(), 2);
    assert_eq!(journal.holders(Which::Run("t".into(), run(3)), 2).await.unwrap().len(), 1);
}
