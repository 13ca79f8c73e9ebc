//! Who leaves, as both stores keep it: a word of each topic, in the order in which it was said.

use curfew::event::{Data, Event, IdentityOffboarded, Type};
use curfew::offboard::{Offboarding, leaver};

use crate::stage::{event, now_ms, record};
use crate::store::Store;

over_both! {
    who_leaves_is_kept_by_topic_and_forgotten_at_one_word,
}

fn leaves(name: &str, topic: &str, reason: &str) -> Event {
    let (node, reason) = (leaver(name).unwrap(), reason.to_owned());
    let data = IdentityOffboarded { node, since_ms: None, until_ms: None, reason };
    let mut event = event(Type::IdentityOffboarded, Data::IdentityOffboarded(data));
    event.at.topic = topic.into();
    event
}

fn stays(name: &str) -> Event {
    let (id, node) = (uuid::Uuid::new_v4().to_string(), leaver(name).unwrap());
    Event::operator_offboard("default".into(), id, (node, true), None, "ann".into(), "r".into(), now_ms())
}

fn said(all: &[Offboarding]) -> Vec<(String, &str, &str)> {
    let mut all: Vec<_> =
        all.iter().map(|one| (one.node.to_string(), one.topic.as_str(), one.reason.as_str())).collect();
    all.sort();
    all
}

async fn who_leaves_is_kept_by_topic_and_forgotten_at_one_word(store: Store) {
    let journal = store.open().await;
    let first = leaves("agent:a", "hr", "first");
    record(journal.as_ref(), vec![first.clone(), leaves("agent:a", "iam", "other"), leaves("owner:bob", "hr", "left")])
        .await;
    // The same again is a duplicate; another word of the same topic counts instead of the one before.
    record(journal.as_ref(), vec![first, leaves("agent:a", "hr", "second")]).await;
    let all = journal.offboardings(99).await.unwrap();
    let (a, bob) = ("agent:a".to_owned(), "owner:bob".to_owned());
    assert_eq!(said(&all), [(a.clone(), "hr", "second"), (a.clone(), "iam", "other"), (bob.clone(), "hr", "left")]);
    assert_eq!(journal.offboardings(1).await.unwrap().len(), 1);
    // Within one batch the last word counts.
    let batch =
        vec![stays("agent:a"), leaves("agent:b", "hr", "r"), stays("agent:b"), leaves("agent:a", "hr", "third")];
    record(journal.as_ref(), batch).await;
    let all = journal.offboardings(99).await.unwrap();
    assert_eq!(said(&all), [(a, "hr", "third"), (bob, "hr", "left")]);
    drop(journal);
    let again = store.open().await;
    assert_eq!(again.offboardings(99).await.unwrap(), all, "it survives a restart");
    assert!(again.fences(i64::MAX, 9).await.unwrap().is_empty());
}
