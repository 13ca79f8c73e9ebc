//! Who leaves, as both stores keep it: a word of each topic, in the order in which it was said.

use curfew::event::{Data, Event, IdentityOffboarded, Type};
use curfew::offboard::{self, Offboarding, leaver};

use crate::stage::{event, now_ms, record};
use crate::store::Store;

over_both! {
    who_leaves_is_kept_by_topic_and_forgotten_at_one_word,
    a_word_ends_only_where_it_still_stands_as_it_was,
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

async fn a_word_ends_only_where_it_still_stands_as_it_was(store: Store) {
    const KEEP_MS: i64 = 400 * 86_400_000;
    let journal = store.open().await;
    let gone = ["agent:a", "agent:b", "agent:c"].map(|name| leaves(name, "hr", "left"));
    record(journal.as_ref(), gone.into_iter().chain([leaves("agent:d", "hr", "left")]).collect()).await;
    let all = journal.offboardings(99).await.unwrap();
    // Nothing is known of three of them.
    let unknown = |node: &curfew::reach::Node| &*node.name == "d";
    let idle_ms = now_ms() + 40 * 86_400_000;
    let minded = offboard::minded(&all, unknown, idle_ms, KEEP_MS);
    assert_eq!(journal.mind_offboardings(minded.clone()).await.unwrap(), 3);
    assert_eq!(journal.mind_offboardings(minded).await.unwrap(), 0, "they do not stand as they did");
    let all = journal.offboardings(99).await.unwrap();
    let idle = |all: &[Offboarding]| -> Vec<(String, Option<i64>)> {
        let mut idle: Vec<_> = all.iter().map(|one| (one.node.name.to_string(), one.idle_since_ms)).collect();
        idle.sort();
        idle
    };
    let since = |name: &str| (name.to_owned(), (name != "d").then_some(idle_ms));
    assert_eq!(idle(&all), ["a", "b", "c", "d"].map(since));
    assert!(offboard::minded(&all, unknown, idle_ms + KEEP_MS - 1, KEEP_MS).is_empty());
    // One is said anew, one turns up again: only the third has ended.
    let turned_up = |node: &curfew::reach::Node| matches!(&*node.name, "b" | "d");
    let minded = offboard::minded(&all, turned_up, idle_ms + KEEP_MS, KEEP_MS);
    record(journal.as_ref(), vec![leaves("agent:a", "hr", "again")]).await;
    assert_eq!(journal.mind_offboardings(minded).await.unwrap(), 2);
    drop(journal);
    let all = store.open().await.offboardings(99).await.unwrap();
    assert_eq!(idle(&all), ["a", "b", "d"].map(|name| (name.to_owned(), None)));
    assert!(said(&all).contains(&("agent:a".to_owned(), "hr", "again")));
}
