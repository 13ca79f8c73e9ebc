//! From a finding that knows only the key's id to a key that is proven dead: killed at every append, each call failed in
//! each way, each effect repeated, each reply cut; and what IAM shows late.

use std::sync::Arc;
use std::time::Duration;

use curfew::case::record::{KilledBy, Level, Record, Residue, Verdict};
use curfew::case::state::State;
use curfew::case::{Action, HoldReason};
use curfew::connector::Registry;
use curfew::credential::CredentialId;
use curfew::event::{
    ACCESS_KEY_ID, CredentialRegistered, Data, Event, FindingObserved, Identifier, PartFingerprint, Type,
    access_key_mark,
};
use curfew::journal::{CaseLine, Journal};
use curfew::outcome;

use super::proxy::Fault;
use super::{Key, Moto, Victim};
use crate::endure::{self, Trial};
use crate::stage::{Stage, case_of, event, record};
use crate::store::Store;
use crate::world::{unique, until};

/// As the inventory says it.
fn registered(victim: &Victim) -> Event {
    let mark = PartFingerprint { fingerprint: access_key_mark(&victim.key.id).unwrap(), part: None };
    let data = CredentialRegistered {
        credential: victim.credential(),
        fingerprints: vec![mark],
        version: None,
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    };
    event(Type::CredentialRegistered, Data::CredentialRegistered(data))
}

/// As a scanner that knows no fingerprints says it.
fn finding(id: &str, validity: &str) -> Event {
    let data = FindingObserved {
        finding_key: unique("finding"),
        identifiers: vec![Identifier { kind: ACCESS_KEY_ID.to_owned(), value: id.to_owned() }],
        detector: "aws-access-token".to_owned(),
        validity: validity.to_owned(),
        ..FindingObserved::default()
    };
    event(Type::FindingObserved, Data::FindingObserved(Box::new(data)))
}

pub async fn leaked(journal: &dyn Journal, victim: &Victim) {
    record(journal, vec![registered(victim), finding(&victim.key.id, "active")]).await;
}

/// A key that leaked, and its user's other one.
struct Leak<'a> {
    moto: &'a Moto,
    registry: Registry,
    victim: Victim,
    credential: CredentialId,
    second: Key,
}

impl<'a> Leak<'a> {
    async fn new(moto: &'a Moto) -> Self {
        let victim = moto.victim().await;
        let (registry, second) = (moto.registry().await, moto.second_key(&victim).await);
        Self { moto, registry, credential: victim.credential(), victim, second }
    }

    /// As the administrator sees it.
    async fn assert_contained(&self, what: &str) {
        assert_eq!(self.moto.lets_in(&self.victim, &self.victim.key.id).await, Some(false), "{what}");
        assert_eq!(self.moto.lets_in(&self.victim, &self.second.id).await, Some(true), "{what}: the other key");
        assert!(self.moto.denied(&self.victim).await.is_some(), "{what}: its sessions");
        assert_eq!(self.moto.policies(&self.victim).await.len(), 1, "{what}");
    }
}

/// What must hold of a closed case, whatever happened on the way.
async fn assert_dead(journal: &Arc<dyn Journal>, line: &CaseLine, what: &str) {
    let Verdict::Dead { level, by, sightings, residue, .. } = &line.verdict else {
        panic!("{what}: {:?}", line.verdict)
    };
    assert_eq!((*level, *by), (Level::Issuer, KilledBy::Curfew), "{what}");
    assert!(*sightings >= 4, "{what}: {sightings}");
    assert_eq!(residue.iter().filter(|one| **one == Residue::Disabled).count(), 1, "{what}: {residue:?}");
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let records: Vec<Record> = timeline.records.iter().flat_map(|(_, _, records)| records.clone()).collect();
    assert_eq!(State::fold(&records).unwrap(), line.case.state, "{what}: the row is the fold of its records");
    let rows = journal.outbox(0, 1_000).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.kind == outcome::Kind::Outcome).count(), 1, "{what}: one outcome");
    let stats = journal.stats(crate::stage::now_ms()).await.unwrap();
    assert_eq!(stats.accepted, stats.closed, "{what}: every accepted event is closed");
}

impl Trial for Leak<'_> {
    fn credential(&self) -> &CredentialId {
        &self.credential
    }

    fn registry(&self) -> Registry {
        self.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        leaked(journal, &self.victim).await;
    }

    async fn died(&self, _what: &str) -> Registry {
        self.moto.registry().await
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        assert_dead(journal, line, what).await;
        self.assert_contained(what).await;
    }
}

over_both! {
    a_leaked_key_survives_every_kill,
    a_leaked_key_survives_every_fault,
    a_key_that_iam_shows_late_is_dead_only_after_the_full_series,
    a_key_that_is_shown_once_more_starts_the_series_again,
    what_a_scanner_finds_waits_for_the_inventory,
    a_throttled_account_is_left_alone_and_then_served,
    users_that_nobody_named_are_held,
    a_key_that_is_not_there_any_more_is_dead_by_others,
    sessions_that_may_not_be_denied_are_said,
    a_key_that_was_enabled_again_dies_again,
}

async fn a_leaked_key_survives_every_kill(store: Store) {
    let moto = Moto::start().await;
    endure::every_kill(&store, 4, async || Leak::new(&moto).await).await;
}

async fn a_leaked_key_survives_every_fault(store: Store) {
    let moto = Moto::start().await;
    endure::every_fault(&store, 3, async || Leak::new(&moto).await).await;
}

async fn a_key_that_iam_shows_late_is_dead_only_after_the_full_series(store: Store) {
    let moto = Moto::start().await;
    let leak = Leak::new(&moto).await;
    moto.proxy.is(Fault::Late(Duration::from_secs(4)));
    let stage = Stage::new(store, leak.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &leak.victim).await;
    let line = stage.run_until_closed(&journal, &leak.credential).await;
    assert_dead(&journal, &line, "late").await;
    leak.assert_contained("late").await;
    // Refused only from when IAM showed it, and a whole window long.
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let records: Vec<Record> = timeline.records.into_iter().flat_map(|(_, _, records)| records).collect();
    let sights: Vec<(i64, bool)> = records
        .iter()
        .filter_map(|record| match record {
            Record::Sighted { sighting, .. } => {
                Some((sighting.at_ms, sighting.answer == curfew::case::record::Answer::Refused))
            }
            _ => None,
        })
        .collect();
    let accepted = sights.iter().rposition(|(_, refused)| !refused).expect("it was seen to be let in");
    let series = &sights[accepted + 1..];
    assert!(series.len() >= 4, "{sights:?}");
    assert!(series[series.len() - 1].0 - series[0].0 >= super::SOON.window_ms, "{sights:?}");
    let Verdict::Dead { at_ms, .. } = line.verdict else { unreachable!() };
    assert_eq!(at_ms, series[0].0, "dead from the first of the unbroken series");
}

async fn a_key_that_is_shown_once_more_starts_the_series_again(store: Store) {
    let moto = Moto::start().await;
    let leak = Leak::new(&moto).await;
    // Three lists show it disabled, and the one that would have proven it does not.
    moto.proxy.is(Fault::LateOnce(3));
    let stage = Stage::new(store, leak.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &leak.victim).await;
    let line = stage.run_until_closed(&journal, &leak.credential).await;
    assert_dead(&journal, &line, "once").await;
    assert_eq!(line.case.state.series.broken, 1);
    let lists = moto.proxy.calls().iter().filter(|(action, _)| action == "ListAccessKeys").count();
    assert!(lists >= 1 + 3 + 1 + 4, "a look, three refusals, one success, and all four again: {lists}");
}

async fn what_a_scanner_finds_waits_for_the_inventory(store: Store) {
    let moto = Moto::start().await;
    let leak = Leak::new(&moto).await;
    let stage = Stage::new(store, leak.registry.clone());
    let journal = stage.open().await;
    let others = Victim { key: leak.second.clone(), ..leak.victim.clone() };
    record(journal.as_ref(), vec![finding(&leak.victim.key.id, "active"), registered(&others)]).await;
    assert!(case_of(journal.as_ref(), &others.credential()).await.is_none(), "another key of the user");
    assert_eq!(journal.findings(true, 10).await.unwrap().len(), 1);
    record(journal.as_ref(), vec![registered(&leak.victim)]).await;
    let line = stage.run_until_closed(&journal, &leak.credential).await;
    assert_dead(&journal, &line, "waited").await;
    leak.assert_contained("waited").await;
    assert!(journal.findings(true, 10).await.unwrap().is_empty());
}

async fn a_throttled_account_is_left_alone_and_then_served(store: Store) {
    let moto = Moto::start().await;
    let leak = Leak::new(&moto).await;
    moto.proxy.is(Fault::Throttled(5));
    let stage = Stage::new(store, leak.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &leak.victim).await;
    let line = stage.run_until_closed(&journal, &leak.credential).await;
    assert_dead(&journal, &line, "throttled").await;
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let throttled =
        |record: &&Record| matches!(record, Record::Failed { failure, .. } if failure.as_str() == "throttled");
    let records: Vec<Record> = timeline.records.into_iter().flat_map(|(_, _, records)| records).collect();
    assert_eq!(records.iter().filter(throttled).count(), 5);
}

async fn users_that_nobody_named_are_held(store: Store) {
    let moto = Moto::start().await;
    let own = Victim { full: "curfew/curfew".to_owned(), key: moto.own().clone() };
    let stage = Stage::new(store, moto.registry().await);
    let journal = stage.open().await;
    for victim in [moto.user("prod/payments").await, own] {
        leaked(journal.as_ref(), &victim).await;
        let executor = stage.executor(journal.clone());
        let held = until("the case to be held", || async {
            executor.drain().await.unwrap();
            let line = case_of(journal.as_ref(), &victim.credential()).await?;
            matches!(line.verdict, Verdict::Alive { .. }).then_some(line.verdict)
        })
        .await;
        assert_eq!(held, Verdict::Alive { by: HoldReason::Protected }, "{}", victim.full);
        assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(true));
    }
    assert_eq!(moto.proxy.changes(), []);
}

async fn a_key_that_is_not_there_any_more_is_dead_by_others(store: Store) {
    let moto = Moto::start().await;
    let leak = Leak::new(&moto).await;
    let gone = moto.root.delete_access_key().user_name(leak.victim.name()).access_key_id(&leak.victim.key.id);
    let stage = Stage::new(store, leak.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &leak.victim).await;
    // Seen once, as the inventory's look would.
    let seen = leak.registry.issuer(&leak.credential).unwrap();
    let seen = seen.observe(&curfew::connector::Subject { credential: leak.credential.clone(), ..nobody() }).await;
    journal.saw(&"default".into(), &leak.credential, seen.unwrap(), None).await.unwrap();
    gone.send().await.unwrap();
    let line = stage.run_until_closed(&journal, &leak.credential).await;
    let Verdict::Dead { by, residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!((*by, residue.contains(&Residue::Disabled)), (KilledBy::Others, false));
    assert!(moto.denied(&leak.victim).await.is_some(), "what it opened may live");
}

fn nobody() -> curfew::connector::Subject {
    crate::vault::about(curfew::credential::Kind::AwsAccessKey, "x/y")
}

async fn sessions_that_may_not_be_denied_are_said(store: Store) {
    let moto = Moto::start().await;
    let leak = Leak::new(&moto).await;
    moto.proxy.is(Fault::Says("PutUserPolicy", axum::http::StatusCode::CONFLICT, "LimitExceeded"));
    let stage = Stage::new(store, leak.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &leak.victim).await;
    let line = stage.run_until_closed(&journal, &leak.credential).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(residue.contains(&Residue::Sessions), "{residue:?}");
    assert_eq!(line.case.directive.action, Action::Revoke);
    assert_eq!(moto.lets_in(&leak.victim, &leak.victim.key.id).await, Some(false));
}

/// Recorded death is no evidence for ever: a finding of a dead key looks, and what lives again is disabled again.
async fn a_key_that_was_enabled_again_dies_again(store: Store) {
    let moto = Moto::start().await;
    let leak = Leak::new(&moto).await;
    let stage = Stage::new(store, leak.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &leak.victim).await;
    let first = stage.run_until_closed(&journal, &leak.credential).await;
    let enables = moto.root.update_access_key().user_name(leak.victim.name()).access_key_id(&leak.victim.key.id);
    enables.status(aws_sdk_iam::types::StatusType::Active).send().await.unwrap();
    record(journal.as_ref(), vec![finding(&leak.victim.key.id, "active")]).await;
    let executor = stage.executor(journal.clone());
    let filter =
        || curfew::journal::Filter { credential: Some(leak.credential.clone()), closed: true, ..Default::default() };
    let again = until("the second case to close", || async {
        executor.drain().await.unwrap();
        let lines = journal.cases(filter()).await.unwrap();
        lines.into_iter().find(|line| line.case.id != first.case.id && line.closed_ms.is_some())
    })
    .await;
    assert!(matches!(again.verdict, Verdict::Dead { by: KilledBy::Curfew, .. }), "{:?}", again.verdict);
    leak.assert_contained("again").await;
}
