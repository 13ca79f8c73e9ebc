//! The policy that denies sessions is taken off when it has nothing left to deny, by whoever looks then; and never another
//! one. And what AWS itself says of a user whose key it found.

use std::num::NonZeroU32;
use std::sync::Arc;

use curfew::case::HoldReason;
use curfew::case::plan::Act;
use curfew::case::record::{Record, Verdict};
use curfew::case::{Action, Trigger};
use curfew::clock::Simulated;
use curfew::connector::aws::{self, Account};
use curfew::connector::{Connector, Subject};
use curfew::credential::Kind;
use curfew::event::Event;
use curfew::guard::Mode;
use curfew::inventory::aws::{Held, scan};
use curfew::journal::{CaseLine, Filter, Journal};
use curfew::outcome;

use super::{Moto, Victim, policy};
use crate::stage::{Stage, now_ms, record};
use crate::store::Store;
use crate::vault::about;
use crate::world::{unique, until};

const HOUR_MS: i64 = 3_600_000;

over_both! {
    a_policy_that_is_over_is_taken_off_by_whoever_looks_then,
    a_quarantine_is_said_and_contains_nothing,
}

fn subject(victim: &Victim) -> Subject {
    Subject { credential: victim.credential(), ..about(Kind::AwsAccessKey, "x/y") }
}

/// At this time.
async fn connector_at(moto: &Moto, at_ms: i64) -> Arc<dyn Connector> {
    aws::connect("aws", &moto.settings(), Simulated::at(at_ms)).await.unwrap()
}

/// What the inventory sees at this time, by a login of its own.
async fn listed_at(moto: &Moto, at_ms: i64) -> Vec<Held> {
    let reader = moto.user(&format!("curfew/{}", unique("reader"))).await;
    let may = moto.root.put_user_policy().user_name(reader.name()).policy_name("own");
    may.policy_document(policy("inventory.json")).send().await.unwrap();
    let account = Account::open("aws", &moto.settings_of(&reader.key), Simulated::at(at_ms)).await.unwrap();
    let (sender, mut listed) = tokio::sync::mpsc::channel(100);
    scan(&account, NonZeroU32::new(1_000).unwrap(), &sender).await;
    drop(sender);
    let mut all = Vec::new();
    while let Some(held) = listed.recv().await {
        all.push(held);
    }
    all
}

/// The keys of which no session can be left then.
async fn over_at(moto: &Moto, at_ms: i64) -> Vec<String> {
    Box::pin(listed_at(moto, at_ms)).await.iter().flat_map(|held| &held.over).map(|key| key.id()).collect()
}

async fn closed(stage: &Stage, journal: &Arc<dyn Journal>, victim: &Victim, action: Action) -> CaseLine {
    let executor = stage.executor(journal.clone());
    until("the case to close", || async {
        executor.drain().await.unwrap();
        let filter = Filter { credential: Some(victim.credential()), closed: true, ..Filter::default() };
        let lines = journal.cases(filter).await.unwrap();
        lines.into_iter().find(|line| line.case.directive.action == action && line.closed_ms.is_some())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_stays_while_a_session_may_live() {
    let moto = Moto::start().await;
    let (victim, start_ms) = (moto.victim().await, now_ms());
    let subject = subject(&victim);
    connector_at(&moto, start_ms).await.perform(Act::EndSessions, &subject).await.unwrap();
    let late = connector_at(&moto, start_ms + 36 * HOUR_MS).await;
    assert!(!late.observe(&subject).await.unwrap().lifts, "the clocks may differ");
    late.perform(Act::Lift, &subject).await.unwrap();
    assert!(moto.denied(&victim).await.is_some(), "36 hours, and some minutes");
    assert_eq!(Box::pin(over_at(&moto, start_ms + 36 * HOUR_MS)).await, Vec::<String>::new());
    let over = connector_at(&moto, start_ms + 37 * HOUR_MS).await;
    assert!(over.observe(&subject).await.unwrap().lifts);
    assert_eq!(Box::pin(over_at(&moto, start_ms + 37 * HOUR_MS)).await, [format!("{}/{}", victim.full, victim.key.id)]);
    over.perform(Act::Lift, &subject).await.unwrap();
    assert_eq!(moto.policies(&victim).await, Vec::<String>::new());
    // Again: nothing to do.
    over.perform(Act::Lift, &subject).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_policy_another_key_s_and_one_that_a_person_changed_stay() {
    let moto = Moto::start().await;
    let (victim, start_ms) = (moto.victim().await, now_ms());
    let other = Victim { key: moto.second_key(&victim).await, ..victim.clone() };
    connector_at(&moto, start_ms).await.perform(Act::EndSessions, &subject(&victim)).await.unwrap();
    let later = connector_at(&moto, start_ms + 37 * HOUR_MS).await;
    // The key was let in again, and leaked again.
    later.perform(Act::EndSessions, &subject(&victim)).await.unwrap();
    later.perform(Act::EndSessions, &subject(&other)).await.unwrap();
    later.perform(Act::Lift, &subject(&victim)).await.unwrap();
    assert_eq!(moto.policies(&victim).await.len(), 2);
    let over_ms = start_ms + 74 * HOUR_MS;
    let over = connector_at(&moto, over_ms).await;
    over.perform(Act::Lift, &subject(&other)).await.unwrap();
    assert_eq!(moto.policies(&victim).await, [format!("curfew-sessions-{}", victim.key.id)]);
    // Somebody makes it narrower, to keep it.
    let changed = moto.denied(&victim).await.unwrap().to_string().replace("\"Action\":\"*\"", "\"Action\":\"s3:*\"");
    let put = moto.root.put_user_policy().user_name(victim.name());
    let put = put.policy_name(format!("curfew-sessions-{}", victim.key.id)).policy_document(changed);
    put.send().await.unwrap();
    assert!(!over.observe(&subject(&victim)).await.unwrap().lifts);
    over.perform(Act::Lift, &subject(&victim)).await.unwrap();
    assert_eq!(moto.policies(&victim).await.len(), 1, "what a person changed is a person's");
    assert_eq!(Box::pin(over_at(&moto, over_ms)).await, Vec::<String>::new());
}

/// The one who put it is gone, and so is what it knew.
async fn a_policy_that_is_over_is_taken_off_by_whoever_looks_then(store: Store) {
    let moto = Moto::start().await;
    let (victim, start_ms) = (moto.victim().await, now_ms());
    connector_at(&moto, start_ms - 40 * HOUR_MS).await.perform(Act::EndSessions, &subject(&victim)).await.unwrap();
    connector_at(&moto, start_ms).await.perform(Act::Disable, &subject(&victim)).await.unwrap();
    let over = Box::pin(listed_at(&moto, start_ms)).await.into_iter().find(|held| !held.over.is_empty()).unwrap();
    assert_eq!(over.over[0].id(), victim.credential().id());

    let stage = Stage::new(store, moto.registry().await);
    let journal = stage.open().await;
    let noticed = || Event::sessions_over("default".into(), victim.credential(), now_ms());
    record(journal.as_ref(), vec![noticed()]).await;
    let line = closed(&stage, &journal, &victim, Action::Verify).await;
    assert_eq!(line.case.directive.trigger, Trigger::Reconcile);
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "it was looked at as well: {:?}", line.verdict);
    assert_eq!(moto.policies(&victim).await, Vec::<String>::new());
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(false));
    // Noticed again on the same day: nothing.
    record(journal.as_ref(), vec![noticed()]).await;
    let filter = Filter { credential: Some(victim.credential()), closed: true, ..Filter::default() };
    assert_eq!(journal.cases(filter).await.unwrap().len(), 1);
}

/// What only observes takes nothing off, and says that it would.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_observes_takes_nothing_off() {
    let moto = Moto::start().await;
    let (victim, start_ms) = (moto.victim().await, now_ms());
    connector_at(&moto, start_ms - 40 * HOUR_MS).await.perform(Act::EndSessions, &subject(&victim)).await.unwrap();
    let mut registry = moto.registry().await;
    let realm = registry.realm_of("aws").unwrap().clone();
    registry.add_realm(curfew::connector::Realm { mode: Mode::Observe, ..realm });
    let stage = Stage::new(Store::sqlite(), registry);
    let journal = stage.open().await;
    record(journal.as_ref(), vec![Event::sessions_over("default".into(), victim.credential(), now_ms())]).await;
    let executor = stage.executor(journal.clone());
    let verdict = until("the hold", || async {
        executor.drain().await.unwrap();
        let line = crate::stage::case_of(journal.as_ref(), &victim.credential()).await?;
        matches!(line.verdict, Verdict::Alive { .. }).then_some(line.verdict)
    })
    .await;
    assert_eq!(verdict, Verdict::Alive { by: HoldReason::Observe });
    assert_eq!(moto.policies(&victim).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_it_the_policy_stays_and_the_case_ends_all_the_same() {
    let moto = Moto::start().await;
    let (victim, start_ms) = (moto.victim().await, now_ms());
    connector_at(&moto, start_ms - 40 * HOUR_MS).await.perform(Act::EndSessions, &subject(&victim)).await.unwrap();
    connector_at(&moto, start_ms).await.perform(Act::Disable, &subject(&victim)).await.unwrap();
    moto.root.delete_user_policy().user_name("curfew").policy_name("lifts").send().await.unwrap();
    let stage = Stage::new(Store::sqlite(), moto.registry().await);
    let journal = stage.open().await;
    record(journal.as_ref(), vec![Event::sessions_over("default".into(), victim.credential(), now_ms())]).await;
    let line = closed(&stage, &journal, &victim, Action::Verify).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    assert_eq!(moto.policies(&victim).await.len(), 1);
}

async fn a_quarantine_is_said_and_contains_nothing(store: Store) {
    let moto = Moto::start().await;
    let victim = moto.victim().await;
    let document =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ec2:RunInstances","Resource":"*"}]}"#;
    // Whatever version AWS has by then.
    let made = moto.root.create_policy().policy_name("AWSCompromisedKeyQuarantineV99").policy_document(document);
    let arn = made.send().await.unwrap().policy().unwrap().arn().unwrap().to_owned();
    moto.root.attach_user_policy().user_name(victim.name()).policy_arn(arn).send().await.unwrap();
    let connector = moto.connector(&moto.settings()).await;
    assert_eq!(connector.observe(&subject(&victim)).await.unwrap().quarantined, Some(true));
    let bystander = moto.victim().await;
    assert_eq!(connector.observe(&subject(&bystander)).await.unwrap().quarantined, Some(false));

    let stage = Stage::new(store, moto.registry().await);
    let journal = stage.open().await;
    let (credential, by, reason) = (victim.credential(), "ann".to_owned(), "it leaked".to_owned());
    let data = curfew::event::Data::OperatorRevoke { credential, by, reason };
    record(journal.as_ref(), vec![crate::stage::event(curfew::event::Type::OperatorRevoke, data)]).await;
    let line = closed(&stage, &journal, &victim, Action::Revoke).await;
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(false), "disabled all the same");
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let seen = |record: &Record| matches!(record, Record::Observed { seen, .. } if seen.quarantined == Some(true));
    assert!(timeline.records.iter().any(|(_, _, records)| records.iter().any(seen)));
    let rows = journal.outbox(0, 100).await.unwrap();
    let row = rows.iter().find(|row| row.kind == outcome::Kind::Outcome).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&row.body).unwrap();
    assert_eq!(told["data"]["quarantined"], true);
}
