//! What a body of tests does not think of: whatever happens, both stores say the same of it.

use std::fmt::Debug;

use curfew::journal::Old;
use uuid::Uuid;

use super::*;

/// Ids are random, and keys are made of them.
fn without_ids(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let is_id = |word: &str| word.len() > 36 && word.is_char_boundary(36) && Uuid::try_parse(&word[..36]).is_ok();
    words.map(|word| if is_id(word) { &word[36..] } else { word }).collect()
}

/// Everything that roles and people read, without ids that are random.
async fn said(journal: &Arc<dyn Journal>) -> Vec<String> {
    fn text(all: impl IntoIterator<Item: Debug>) -> Vec<String> {
        let mut all: Vec<String> = all.into_iter().map(|one| format!("{one:?}")).collect();
        all.sort();
        all
    }
    let mut stats = journal.stats(T0 + 50).await.unwrap();
    // A file has no processes that could serve.
    stats.unserved = 0;
    stats.held.sort();
    let mut said = vec![format!("{stats:?}"), format!("{:?}", journal.watermark().await.unwrap())];
    for missed in [1, 3] {
        said.push(format!("{:?}", journal.due(T0 + 150_000, missed, None, 100).await.unwrap()));
    }
    said.extend(text(journal.sources().await.unwrap()));
    said.extend(text(journal.unseen(None, 100, T0 + 20).await.unwrap()));
    said.extend(text(journal.known(&"t".into(), (0..7).map(cred).collect()).await.unwrap()));
    said.extend(text(journal.overrun(T0 + 50).await.unwrap()));
    said.extend(text(journal.standing(100).await.unwrap()));
    for (ended, unbound) in [(true, false), (false, true)] {
        let filter = curfew::journal::TaskFilter { ended, unbound, source: None, identity: None, limit: 100 };
        said.extend(text(journal.tasks(filter).await.unwrap()));
    }
    let mut shown_cases = Vec::new();
    for (state, credential, of) in [(None, None, None), (Some("held"), None, None), (None, Some(1), Some(1))] {
        let filter = Filter {
            state: state.map(str::to_owned),
            credential: credential.map(cred),
            run: of.map(run),
            closed: state.is_none(),
            limit: Some(100),
        };
        for line in journal.cases(filter).await.unwrap() {
            let shown = journal.timeline(line.case.id).await.unwrap().unwrap();
            let events = shown.events.iter().map(|e| (e.id.clone(), e.verb.clone(), e.reason.clone(), e.facts.clone()));
            shown_cases.push(without_ids(&format!("{:?} {:?} {:?}", shown.line, text(events), text(shown.records))));
        }
    }
    shown_cases.sort();
    said.extend(shown_cases);
    let rows = journal.outbox(0, 1_000).await.unwrap();
    said.extend(rows.iter().map(|row| format!("{} {:?} {}", row.seq, row.kind, row.key)));
    said
}

/// All that is due is claimed, and each goes so far: which ones come first among equals is no promise.
async fn all_work(journal: &Arc<dyn Journal>, how: &[u8]) {
    let mut claims = claim(journal, 100).await;
    claims.sort_by(|a, b| a.case.directive.credential.cmp(&b.case.directive.credential));
    for (claim, how) in claims.iter().zip(how.iter().chain(std::iter::repeat(&2))) {
        match (claim.case.state.todo(), how) {
            (Todo::Plan, 1) => {
                // As an executor that is told to stop.
                let mut first = append(claim, &claim.case, begun(&claim.case), true);
                (first.charge, first.learned) = (Some(1_000_000), Some(look()));
                journal.append(first).await.unwrap();
                journal.unclaim(claim.case.id, claim.epoch, T0 + 15).await.unwrap();
            }
            // Nothing stays claimed: which ones would be is no promise either.
            (_, 0) => journal.unclaim(claim.case.id, claim.epoch, T0 + 15).await.unwrap(),
            _ => step(journal, claim, *how).await.unwrap(),
        }
    }
}

async fn assert_alike(journals: &[Arc<dyn Journal>; 2], after: &str) {
    let (file, database) = (said(&journals[0]).await, said(&journals[1]).await);
    let differ = file.iter().zip(&database).find(|(a, b)| a != b);
    assert!(differ.is_none(), "after {after}: {differ:#?}");
    assert_eq!(file.len(), database.len(), "after {after}");
}

async fn both(ops: Vec<Op>) {
    let stores = [Store::sqlite(), Store::postgres()];
    let mut journals = [stores[0].open().await, stores[1].open().await];
    for (n, op) in ops.into_iter().enumerate() {
        match &op {
            Op::Batch(list) | Op::Beside(list) => {
                let arrivals: Vec<Arrival> = list.iter().copied().map(arrival).collect();
                let [a, b] = journals.each_ref().map(|journal| journal.record_batch(batch(arrivals.clone(), vec![])));
                assert_eq!(a.await.unwrap(), b.await.unwrap());
            }
            Op::Work(how) => {
                for journal in &journals {
                    all_work(journal, how).await;
                }
            }
            Op::Kill => {
                let [a, b] = journals;
                journals = [stores[0].reopen(a).await, stores[1].reopen(b).await];
                for journal in &journals {
                    journal.saw(&"t".into(), &cred(n as u32 % 5), look(), Some(T0 + 10)).await.unwrap();
                }
            }
        }
        assert_alike(&journals, &format!("{op:?}")).await;
    }
    for (events_ms, before) in [(T0 + 1_000, 0), (0, T0 + 5), (T0 + 1_000, T0 + 1_000)] {
        let old = Old { seen_ms: before, events_ms, closed_ms: before };
        for journal in &journals {
            while journal.prune(old, 3).await.unwrap() > 0 {}
        }
        assert_alike(&journals, "pruning").await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]
    #[test]
    fn both_stores_say_the_same(ops in ops()) {
        on_a_runtime(both(ops));
    }
}

/// What joins a case that has looked, and was asked to look once more: its end is no look.
#[test]
fn a_case_that_was_joined_has_not_looked_again() {
    on_a_runtime(both(vec![
        Op::Batch(vec![(1, 3, 1)]),
        Op::Batch(vec![(0, 6, 1)]),
        Op::Work(vec![1]),
        // Of the sixth step a kill has credential 1 looked at.
        Op::Batch(vec![(7, 0, 0)]),
        Op::Batch(vec![(7, 1, 0)]),
        Op::Batch(vec![(7, 2, 0)]),
        Op::Kill,
        Op::Batch(vec![(4, 6, 1)]),
        Op::Work(vec![3]),
    ]));
}
