//! What a scanner says of a value is looked at, not believed: dead already, called dead and alive, unverified, ended before.

use curfew::case::plan::Act;
use curfew::case::record::{KilledBy, Record, UnknownWhy, Verdict};
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::{Adoption, Late};
use curfew::event::{Data, Event, FindingObserved, GrantSpec, Type};
use curfew::journal::{CaseLine, Filter, Journal};
use curfew::task::Tenure;
use sqlx::AssertSqlSafe;

use super::{Ground, Shape, Victim, assert_one_end, finding, open_case, registered};
use crate::stage::{Stage, case_of, ended, event, new_run, record, started};
use crate::store::Store;
use crate::world::until;

over_both! {
    a_value_that_is_dead_already_is_seen_dead_and_nothing_is_rotated,
    a_value_that_is_called_inactive_and_works_is_contained,
    a_value_that_nobody_verified_is_rolled_over,
    a_finding_of_what_has_ended_is_looked_at_again,
    a_nightly_scan_updates_and_does_not_fire_again,
    a_containment_goes_on_when_its_finding_is_closed,
    a_finding_comes_while_a_late_consumer_holds_the_rollover,
}

async fn alter(ground: &Ground, user: &str, what: &str) {
    let pool = ground.pg.pool().await;
    sqlx::query(AssertSqlSafe(format!("ALTER ROLE \"{user}\" {what}"))).execute(&pool).await.unwrap();
}

/// All cases about it, the oldest first.
async fn cases(journal: &dyn Journal, victim: &Victim) -> Vec<CaseLine> {
    let filter = Filter { credential: Some(victim.credential().clone()), closed: true, ..Filter::default() };
    let mut lines = journal.cases(filter).await.unwrap();
    lines.sort_by_key(|line| line.case.id);
    lines
}

async fn a_value_that_is_dead_already_is_seen_dead_and_nothing_is_rotated(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    // Somebody was faster, by hand.
    alter(&ground, &victim.old.0, "PASSWORD 'set-by-a-person'").await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    record(journal.as_ref(), vec![registered(&victim, 1), finding(&victim, "inactive")]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Verify);
    assert!(matches!(line.verdict, Verdict::Dead { by: KilledBy::Others, .. }), "{:?}", line.verdict);
    assert_eq!(victim.stored().await.0, 1, "nothing was rotated");
    assert!(victim.works(&(victim.old.0.clone(), "set-by-a-person".to_owned())).await, "nothing was touched");
}

async fn a_value_that_is_called_inactive_and_works_is_contained(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    record(journal.as_ref(), vec![registered(&victim, 1), finding(&victim, "inactive")]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Contain, "a login came through");
    assert!(!stage.metrics.render().contains("curfew_alarms_total{alarm=\"still_alive\"} 0\n"));
    assert_one_end(&journal, &line, "called inactive").await;
    victim.assert_rotated("called inactive").await;
}

/// "Not verified" is not "inactive": it may work, so it is replaced; nobody saw it work, so nobody is cut off first.
async fn a_value_that_nobody_verified_is_rolled_over(store: Store) {
    let ground = Ground::new().await;
    for validity in ["unknown", "a word of a later version"] {
        let victim = ground.victim(Shape::Two, Adoption::default()).await;
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        record(journal.as_ref(), vec![registered(&victim, 1), finding(&victim, validity)]).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert_eq!(line.case.directive.action, Action::Rollover, "{validity}");
        assert_one_end(&journal, &line, validity).await;
        victim.assert_rotated(validity).await;
        let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
        let records: Vec<Record> = timeline.records.into_iter().flat_map(|(_, _, records)| records).collect();
        let plan = records.iter().find_map(|record| match record {
            Record::Planned { plan, .. } => Some(plan),
            _ => None,
        });
        let plan = plan.expect("a plan");
        assert!(plan.find(Act::Promote) < plan.find(Act::Disable), "the new one first");
    }
}

async fn a_finding_of_what_has_ended_is_looked_at_again(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let run = new_run();
    let credential = victim.credential().clone();
    let grant = GrantSpec { credential, tenure: Tenure::Minted, principal: None, expires_ms: None };
    record(journal.as_ref(), vec![registered(&victim, 1), started(&run, vec![grant]), ended(&run)]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Revoke);
    let executor = stage.executor(journal.clone());
    let after = async |count: usize| {
        until("the look to end", || async {
            executor.drain().await.unwrap();
            let lines = cases(journal.as_ref(), &victim).await;
            let all = lines.len() == count && lines.iter().all(|line| line.closed_ms.is_some());
            if all { lines.into_iter().next_back() } else { None }
        })
        .await
    };
    // It leaked, as it turns out later. It is dead, and that is looked at.
    record(journal.as_ref(), vec![finding(&victim, "active")]).await;
    let look = after(2).await;
    assert_eq!(look.case.directive.action, Action::Verify);
    assert!(matches!(look.verdict, Verdict::Dead { .. }), "{:?}", look.verdict);
    assert!(!victim.works(&victim.old).await);
    // Somebody lets the user in again. Its value is not stored any more, so nobody can try it: that is not called dead.
    alter(&ground, &victim.old.0, "LOGIN").await;
    record(journal.as_ref(), vec![finding(&victim, "active")]).await;
    let open = until("some looks", || async {
        executor.drain().await.unwrap();
        let line = cases(journal.as_ref(), &victim).await.pop()?;
        (line.case.state.attempts >= 3).then_some(line)
    })
    .await;
    assert_eq!((open.closed_ms, &open.verdict), (None, &Verdict::Unknown { why: UnknownWhy::Proving }));
    // Shut again, it is.
    alter(&ground, &victim.old.0, "NOLOGIN").await;
    assert!(matches!(after(3).await.verdict, Verdict::Dead { .. }));
}

/// The same finding, as the next night's scan says it.
fn again(first: &Event, validity: &str) -> Event {
    let Data::FindingObserved(it) = &first.data else { unreachable!() };
    let data = FindingObserved { validity: validity.to_owned(), ..it.as_ref().clone() };
    event(Type::FindingObserved, Data::FindingObserved(Box::new(data)))
}

async fn a_nightly_scan_updates_and_does_not_fire_again(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let first = finding(&victim, "unknown");
    record(journal.as_ref(), vec![registered(&victim, 1), first.clone()]).await;
    stage.run_until_closed(&journal, victim.credential()).await;
    for _ in 0..3 {
        let mut next = again(&first, "unknown");
        next.broker_ms += 86_400_000;
        record(journal.as_ref(), vec![next]).await;
        stage.executor(journal.clone()).drain().await.unwrap();
    }
    assert_eq!(cases(journal.as_ref(), &victim).await.len(), 1, "one rotation, however often it is seen");
    assert_eq!(victim.stored().await.0, 2);
    let found = journal.findings(false, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].last_ms - found[0].first_ms >= 86_000_000, "and it is known since when, and until when");
}

async fn a_containment_goes_on_when_its_finding_is_closed(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::One, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    let observed = finding(&victim, "active");
    let Data::FindingObserved(it) = &observed.data else { unreachable!() };
    let closed = curfew::event::FindingClosed { finding_key: it.finding_key.clone(), reason: "false_positive".into() };
    let closed = event(Type::FindingClosed, Data::FindingClosed(closed));
    record(journal.as_ref(), vec![registered(&victim, 1), observed]).await;
    record(journal.as_ref(), vec![closed]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "closed").await;
    victim.assert_rotated("closed").await;
}

/// It waits for its consumers beyond their time; then somebody sees the value work. Nobody is waited for any more.
async fn a_finding_comes_while_a_late_consumer_holds_the_rollover(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["billing".into()], within_ms: 0, late: Late::Hold, ..Adoption::default() };
    let victim = ground.victim(Shape::Two, adoption).await;
    let mut session = ground.pg.login(&victim.old.0, &victim.old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    until("the case to be held", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        (line.verdict == Verdict::Alive { by: HoldReason::NotAdopted }).then_some(())
    })
    .await;
    let promoted = victim.stored().await;
    record(journal.as_ref(), vec![finding(&victim, "active")]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_eq!(line.case.directive.action, Action::Contain);
    assert_one_end(&journal, &line, "late and leaked").await;
    victim.assert_rotated("late and leaked").await;
    assert_eq!(victim.stored().await, promoted, "what was promoted before stays: the other user's value did not leak");
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err());
}
