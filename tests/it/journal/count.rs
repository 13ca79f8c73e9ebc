//! P1: what the tables say is what the counters say.

use curfew::case::record::Record;
use curfew::case::state::State;

use crate::store::Store;

/// While nothing has been pruned or sent.
pub async fn recount(store: &Store) {
    let number = async |sql: &str| store.number(sql).await;
    let count = async |name: &str| store.counter(name).await;
    let events = number("SELECT count(*) FROM events").await;
    let open = number("SELECT count(*) FROM events WHERE open_cases > 0").await;
    let (accepted, rejected) = (count("accepted").await, count("rejected").await);
    assert_eq!(count("consumed").await, accepted + rejected + count("duplicates").await);
    assert_eq!(accepted, events);
    assert_eq!(accepted, number("SELECT count(*) FROM seen").await, "one decision for each key");
    assert_eq!(count("closed").await, events - open);
    assert_eq!(count("tasks_live").await, number("SELECT count(*) FROM tasks WHERE phase < 2").await);
    assert_eq!(count("cases_opened").await, number("SELECT count(*) FROM cases").await);
    let closed = number("SELECT count(*) FROM cases WHERE closed_ms IS NOT NULL").await;
    assert_eq!(count("cases_closed").await, closed);
    let wrong = "SELECT count(*) FROM events e WHERE open_cases <> (SELECT count(*) FROM links l JOIN cases c \
                 ON c.id = l.case_id WHERE l.event_id = e.id AND c.closed_ms IS NULL)";
    assert_eq!(number(wrong).await, 0, "an event is open for as many cases as it says");
    let doubled = "SELECT count(*) FROM (SELECT 1 FROM cases WHERE closed_ms IS NULL GROUP BY tenant, credential \
                   HAVING count(*) > 1) AS doubled";
    assert_eq!(number(doubled).await, 0, "one open case for each credential");
    // Each directive left one record (opened, joined, superseded) and one link.
    let asks = |r: &&Record| matches!(r, Record::Opened { .. } | Record::Joined { .. } | Record::Superseded { .. });
    let mut asked = 0;
    for (case, closed) in store.cases().await {
        let appends = store.records(case.id).await;
        assert!(appends.iter().map(|(seq, _)| *seq).eq(0..appends.len() as i64), "appends without gaps");
        if matches!(store, Store::Postgres(_)) {
            assert_eq!(appends.last().unwrap().0, case.seq, "the row is as new as its newest record");
        }
        let records = |until: i64| -> Vec<Record> {
            appends.iter().filter(|(seq, _)| *seq <= until).flat_map(|(_, records)| records.clone()).collect()
        };
        assert_eq!(State::fold(&records(case.seq)).unwrap(), case.state, "the row is the fold up to its seq");
        let all = records(i64::MAX);
        assert_eq!(State::fold(&all).unwrap().is_closed(), closed.is_some());
        assert!(all.iter().filter(|r| matches!(r, Record::Closed { .. })).count() <= 1);
        asked += all.iter().filter(asks).count() as i64;
    }
    assert_eq!(asked, number("SELECT count(*) FROM links").await, "each directive links to one case");
    let sent = number("SELECT count(*) FROM outbox").await;
    assert_eq!(sent, number("SELECT max(seq) FROM outbox").await, "no gaps");
    assert_eq!(sent, rejected + closed, "each reject and each end left one message");
}
