//! What consumers say of a new value, and values that grow old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use curfew::ages::{Ages, Aging};
use curfew::case::record::{Residue, Verdict};
use curfew::case::state::Phase;
use curfew::case::{Action, HoldReason, Trigger};
use curfew::connector::recipe::{Adoption, Late};
use curfew::deadlines::ClockTrust;
use curfew::event::{CredentialAdopted, CredentialRegistered, Data, Event, Type};
use curfew::journal::{CaseLine, Journal};
use curfew::outcome;
use serde_json::Value;

use super::{Ground, Shape, Victim, assert_one_end, open_case, registered};
use crate::stage::{Death, Dying, Stage, case_of, event, now_ms, record};
use crate::store::Store;
use crate::world::until;

over_both! {
    the_old_value_lives_until_all_consumers_have_answered,
    who_does_not_answer_is_waited_for_and_then_cut_where_the_rule_says_so,
    one_that_answers_late_lets_a_held_rotation_go_on,
    a_consumer_that_cannot_work_with_the_new_value_gets_the_old_one_back,
    giving_the_old_value_back_survives_every_kill_with_one_user,
    giving_the_old_value_back_survives_every_kill_with_two_users,
    a_value_that_grows_too_old_is_rolled_over,
}

pub(super) fn consumers(within_ms: i64, late: Late) -> Adoption {
    Adoption { consumers: vec!["billing".into(), "web".into()], within_ms, late, by_word: true }
}

pub(super) fn says(victim: &Victim, version: i64, consumer: &str, failed: bool) -> Event {
    let credential = victim.credential().clone();
    let data = CredentialAdopted { credential, version, consumer: consumer.to_owned(), failed };
    event(Type::CredentialAdopted, Data::CredentialAdopted(data))
}

/// Runs until `seen` shows what is waited for.
pub(super) async fn run_until(
    stage: &Stage,
    journal: &Arc<dyn Journal>,
    victim: &Victim,
    what: &str,
    seen: impl Fn(&CaseLine) -> bool,
) -> CaseLine {
    let executor = stage.executor(journal.clone());
    until(what, || async {
        executor.drain().await.unwrap();
        case_of(journal.as_ref(), victim.credential()).await.filter(&seen)
    })
    .await
}

pub(super) fn is_promoted(line: &CaseLine) -> bool {
    line.case.state.turn.new.is_some()
}

pub(super) fn is_held(line: &CaseLine, wanted: HoldReason) -> bool {
    matches!(line.case.state.phase, Phase::Held { reason } if reason == wanted)
}

async fn the_old_value_lives_until_all_consumers_have_answered(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::Two, consumers(3_600_000, Late::Hold)).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    run_until(&stage, &journal, &victim, "the promotion", is_promoted).await;
    // What they answer to names the version.
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let told = rows.iter().find(|row| row.kind == outcome::Kind::Rotated).unwrap();
    let told: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(told["data"]["new"]["version"], 2, "{told}");
    record(journal.as_ref(), vec![says(&victim, 2, "billing", false), says(&victim, 1, "web", false)]).await;
    let line = run_until(&stage, &journal, &victim, "the first answer", |line| {
        line.case.state.turn.adopted.contains("billing")
    })
    .await;
    assert!(!line.case.state.turn.adopted.contains("web"), "what it said is about the value before");
    // No session of the old user is left, and still it works: only their word counts.
    assert!(victim.works(&victim.old).await);
    record(journal.as_ref(), vec![says(&victim, 2, "web", false)]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "all answered").await;
    victim.assert_rotated("all answered").await;
}

async fn who_does_not_answer_is_waited_for_and_then_cut_where_the_rule_says_so(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::Two, consumers(0, Late::Cut)).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    victim.assert_rotated("cut").await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(residue.contains(&Residue::NotAdopted), "{residue:?}");
}

async fn one_that_answers_late_lets_a_held_rotation_go_on(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, consumers(0, Late::Hold)).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    run_until(&stage, &journal, &victim, "the hold", |line| is_held(line, HoldReason::NotAdopted)).await;
    record(journal.as_ref(), vec![says(&victim, 2, "web", false), says(&victim, 2, "billing", false)]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "late").await;
    victim.assert_rotated("late").await;
}

/// What consumers read is the old value again, and it is the only one that works.
async fn assert_given_back(victim: &Victim, what: &str) {
    let (version, user, value) = victim.stored().await;
    assert_eq!((version, &(user, value)), (3, &victim.old), "{what}: stored anew");
    assert!(victim.works(&victim.old).await, "{what}: the old value works");
    assert_eq!(victim.candidate().await, None, "{what}: no candidate is left");
    assert!(!victim.works(&victim.version(2).await).await, "{what}: the new value does not work any more");
}

async fn a_consumer_that_cannot_work_with_the_new_value_gets_the_old_one_back(store: Store) {
    let ground = Ground::new().await;
    for shape in [Shape::One, Shape::Two, Shape::MariaOne, Shape::MariaTwo] {
        let victim = ground.victim(shape, consumers(3_600_000, Late::Hold)).await;
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, Action::Rollover).await;
        run_until(&stage, &journal, &victim, "the promotion", is_promoted).await;
        record(journal.as_ref(), vec![says(&victim, 2, "billing", false), says(&victim, 2, "web", true)]).await;
        let unhealthy = |line: &CaseLine| is_held(line, HoldReason::Unhealthy);
        let line = run_until(&stage, &journal, &victim, "the way back", unhealthy).await;
        assert_given_back(&victim, &format!("{shape:?}")).await;
        let rows = journal.outbox(0, 1_000).await.unwrap();
        let told = rows.iter().rfind(|row| row.kind == outcome::Kind::Rotated).unwrap();
        let told: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!((&told["data"]["old"]["version"], &told["data"]["new"]["version"]), (&2.into(), &3.into()));
        // A person has it tried again.
        let resumed = curfew::case::record::Record::Resumed { by: "ann".into() };
        journal.command(line.case.id, Some(resumed), now_ms()).await.unwrap();
        let again = |line: &CaseLine| line.case.state.turn.new.as_ref().is_some_and(|new| new.version == 4);
        run_until(&stage, &journal, &victim, "another new value", again).await;
        record(journal.as_ref(), vec![says(&victim, 4, "billing", false), says(&victim, 4, "web", false)]).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
        assert!(!victim.works(&victim.old).await);
    }
}

async fn giving_the_old_value_back_survives_every_kill_with_one_user(store: Store) {
    every_kill_on_the_way_back(store, Shape::One).await;
}

async fn giving_the_old_value_back_survives_every_kill_with_two_users(store: Store) {
    every_kill_on_the_way_back(store, Shape::Two).await;
}

pub(super) async fn every_kill_on_the_way_back(store: Store, shape: Shape) {
    let ground = Ground::new().await;
    every_kill_of(async |death| {
        let what = format!("{shape:?} killed {death:?} on the way back");
        let victim = ground.victim(shape, consumers(3_600_000, Late::Hold)).await;
        let works = async || victim.assert_something_works(&what).await;
        let died = killed_on_the_way_back(store.fresh(), &victim, death, works).await;
        assert_given_back(&victim, &what).await;
        died
    })
    .await;
}

/// Runs that die at each append, before and after it is durable, until one ends before its death.
pub(super) async fn every_kill_of(run: impl AsyncFn(Death) -> bool) {
    let both = [Death::Before as fn(usize) -> Death, Death::After].map(async |make| {
        let mut at = 0;
        while run(make(at)).await {
            at += 1;
        }
        assert!(at >= 5, "there and back are several appends, killed at {at}");
    });
    futures::future::join_all(both).await;
}

/// A run in which a consumer fails, and that dies; `between` that and the next process somebody looks. Returns whether the
/// death took place.
pub(super) async fn killed_on_the_way_back(
    store: Store,
    victim: &Victim,
    death: Death,
    between: impl AsyncFn(),
) -> bool {
    let stage = Stage::new(store, victim.registry.clone());
    let told = AtomicBool::new(false);
    // The consumer's word comes as soon as it can know of the new value, whoever runs then.
    let tell = async |journal: &dyn Journal| {
        let line = case_of(journal, victim.credential()).await?;
        if is_promoted(&line) && !told.swap(true, Ordering::SeqCst) {
            record(journal, vec![says(victim, 2, "web", true)]).await;
        }
        is_held(&line, HoldReason::Unhealthy).then_some(())
    };
    let died = {
        let journal = stage.open().await;
        open_case(journal.as_ref(), victim, Action::Rollover).await;
        let dying = Dying::new(journal.clone(), death);
        let executor = stage.executor(dying.clone());
        until("the death or the way back", || async {
            let drained = executor.drain().await;
            let back = tell(journal.as_ref()).await.is_some();
            (dying.died() || drained.is_err() || back).then_some(())
        })
        .await;
        dying.died()
    };
    between().await;
    stage.store.leases_end().await;
    let journal = stage.open().await;
    let executor = stage.executor(journal.clone());
    until("the way back", || async {
        executor.drain().await.unwrap();
        tell(journal.as_ref()).await
    })
    .await;
    died
}

async fn a_value_that_grows_too_old_is_rolled_over(store: Store) {
    const DAY_MS: i64 = 86_400_000;
    let ground = Ground::new().await;
    let mut victim = ground.victim(Shape::One, Adoption::default()).await;
    victim.recipe.max_age_ms = Some(90 * DAY_MS);
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let intake = stage.intake(journal.clone());
    let recipe = Arc::new(victim.recipe.clone());
    let aging = vec![Aging { tenant: "default".into(), max_age_ms: 90 * DAY_MS, recipe }];
    let trust = ClockTrust::new(curfew::clock::System::shared());
    let ages = Ages::new(intake.clone(), aging, trust);
    assert_eq!(ages.tick().await.unwrap().unknown, 1, "no inventory has seen it");
    assert!(case_of(journal.as_ref(), victim.credential()).await.is_none());
    let made = |version, issued_ms| {
        let Data::CredentialRegistered(it) = registered(&victim, version).data else { unreachable!() };
        let it = CredentialRegistered { issued_ms: Some(issued_ms), ..it };
        event(Type::CredentialRegistered, Data::CredentialRegistered(it))
    };
    record(journal.as_ref(), vec![made(1, now_ms() - 91 * DAY_MS)]).await;
    let judged = ages.tick().await.unwrap();
    assert_eq!((judged.due.len(), judged.overdue, judged.unknown), (1, 1, 0));
    assert!(intake.metrics.render().contains("\ncurfew_overdue_rotations 1\n"));
    assert!(ages.tick().await.unwrap().due.is_empty(), "once");
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!((line.case.directive.action, line.case.directive.trigger), (Action::Rollover, Trigger::Age));
    assert_one_end(&journal, &line, "age").await;
    victim.assert_rotated("age").await;
    // The new value is young: that is known before the inventory has read it.
    let judged = ages.tick().await.unwrap();
    assert_eq!((judged.due.len(), judged.overdue, judged.unknown), (0, 0, 0));
    assert!(intake.metrics.render().contains("\ncurfew_overdue_rotations 0\n"));
}
