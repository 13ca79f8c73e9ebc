//! What people do about a reduction, at real systems: notice, a no for a time, another way, a role made anew.

use std::sync::Arc;

use curfew::case::record::{Record, Residue, Verdict};
use curfew::case::{Action, HoldReason};
use curfew::clock;
use curfew::event::Event;
use curfew::guard::Mode;
use curfew::journal::{CaseLine, Filter, Journal};

use super::postgres::Etl;
use super::vault::Role;
use super::{Identity, is_held, reduce, registry, restore, run_until};
use crate::admin::Postgres;
use crate::stage::{Stage, case_of, now_ms, record};
use crate::store::Store;
use crate::world::until;

over_both! {
    nothing_is_taken_before_the_notice_is_over_and_then_only_what_is_still_there,
    who_answers_for_it_keeps_it_for_a_time,
    where_it_only_observes_it_says_what_it_would_take,
    one_command_gives_back_what_was_taken,
    an_operator_s_other_word_counts_at_once,
}

async fn run_at(
    stage: &Stage,
    journal: &Arc<dyn Journal>,
    clock: &Arc<clock::Simulated>,
    identity: &impl Identity,
    is_there: impl Fn(&CaseLine) -> bool,
) -> CaseLine {
    let executor = stage.executor_at(journal.clone(), clock);
    until("the case", || async {
        executor.drain().await.unwrap();
        case_of(journal.as_ref(), identity.credential()).await.filter(&is_there)
    })
    .await
}

const DAY_MS: i64 = 86_400_000;

async fn nothing_is_taken_before_the_notice_is_over_and_then_only_what_is_still_there(store: Store) {
    let etl = Etl::new().await;
    let stage = Stage::new(store, registry(&etl, Mode::Enforce));
    let journal = stage.open().await;
    let before = etl.state().await;
    let clock = clock::Simulated::at(now_ms() + 5_000);
    record(journal.as_ref(), vec![reduce(etl.credential(), etl.takes(), Some(now_ms() + 7 * DAY_MS))]).await;
    let line = run_at(&stage, &journal, &clock, &etl, |line| is_held(line, HoldReason::Notice)).await;
    assert_eq!(etl.state().await, before, "nothing is taken yet");
    assert_eq!(line.case.state.cutting.before.as_ref().unwrap().held.len(), 6, "what would be is told");
    // In the meantime a person took one of them, and granted another anew in another form; and something that is not named.
    etl.sql("REVOKE CREATE ON SCHEMA {schema} FROM {role}").await;
    etl.sql("REVOKE GRANT OPTION FOR DELETE ON {schema}.\"or:ders\" FROM {role}").await;
    etl.sql("GRANT TRUNCATE ON {schema}.\"or:ders\" TO {role}").await;
    let now = etl.state().await;
    clock.advance_ms(7 * DAY_MS + 1);
    let line = run_at(&stage, &journal, &clock, &etl, |line| line.closed_ms.is_some()).await;
    let Verdict::Reduced { taken, .. } = line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(taken, 5, "what had gone already was not taken");
    assert_eq!(etl.state().await, etl.without(&now), "what was granted since stays");
    etl.assert_works("after the notice").await;
}

async fn who_answers_for_it_keeps_it_for_a_time(store: Store) {
    let role = Role::new().await;
    let stage = Stage::new(store, registry(&role, Mode::Enforce));
    let journal = stage.open().await;
    let before = role.state().await;
    let clock = clock::Simulated::at(now_ms() + 5_000);
    record(journal.as_ref(), vec![reduce(role.credential(), role.takes(), Some(now_ms() + DAY_MS))]).await;
    let line = run_at(&stage, &journal, &clock, &role, |line| is_held(line, HoldReason::Notice)).await;
    let until_ms = now_ms() + 30 * DAY_MS;
    let kept = Record::Kept { by: "bob".into(), reason: "the end of the quarter".into(), until_ms };
    journal.command(line.case.id, Some(kept), now_ms()).await.unwrap();
    clock.advance_ms(2 * DAY_MS);
    let line = run_at(&stage, &journal, &clock, &role, |line| is_held(line, HoldReason::Kept)).await;
    assert_eq!((role.state().await, line.case.state.cutting.begun), (before, false), "it is kept as it is");
    clock.advance_ms(29 * DAY_MS);
    let line = run_at(&stage, &journal, &clock, &role, |line| line.closed_ms.is_some()).await;
    let Verdict::Reduced { taken: 5, residue, .. } = line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(residue, [Residue::OlderTokens], "what was issued before keeps what it has: that is said");
}

async fn where_it_only_observes_it_says_what_it_would_take(store: Store) {
    let etl = Etl::new().await;
    let stage = Stage::new(store, registry(&etl, Mode::Observe));
    let journal = stage.open().await;
    let before = etl.state().await;
    record(journal.as_ref(), vec![reduce(etl.credential(), etl.takes(), None)]).await;
    let line = run_until(&stage, &journal, etl.credential(), |line| is_held(line, HoldReason::Observe)).await;
    assert_eq!(line.case.state.cutting.before.as_ref().unwrap().held.len(), 6);
    assert_eq!(etl.state().await, before);
}

async fn one_command_gives_back_what_was_taken(store: Store) {
    let etl = Etl::new().await;
    let stage = Stage::new(store, registry(&etl, Mode::Enforce));
    let journal = stage.open().await;
    let before = etl.state().await;
    // A session that has gone over to the group stays in it: that is said.
    let mut session = Postgres::shared().login(&etl.role, "w1tness").await.unwrap();
    record(journal.as_ref(), vec![reduce(etl.credential(), etl.takes(), None)]).await;
    let line = run_until(&stage, &journal, etl.credential(), |line| line.closed_ms.is_some()).await;
    let Verdict::Reduced { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(*residue, [Residue::Sessions]);
    sqlx::Executor::execute(&mut session, "SELECT 1").await.unwrap();
    // Its password lives, and is not taken for dead.
    let known = journal.known(&"default".into(), vec![etl.credential().clone()]).await.unwrap();
    assert!(known.iter().all(|known| known.credential.dead_ms.is_none()), "{known:?}");
    let operator = curfew::ops::operator::Operator {
        intake: stage.intake(journal.clone()),
        reach: curfew::reach::kept::Kept::new(journal.clone(), Vec::new()),
        freeze_file: std::env::temp_dir().join(crate::world::unique("freeze")),
    };
    let request = curfew::ops::Request::Rollback {
        id: line.case.id.to_string(),
        by: "ann".into(),
        reason: "the nightly job".into(),
    };
    let reply = operator.answer(request.clone()).await;
    assert!(matches!(reply, curfew::ops::Reply::Ok(_)), "{reply:?}");
    let executor = stage.executor(journal.clone());
    until("it to be given back", || async {
        executor.drain().await.unwrap();
        let filter = Filter { credential: Some(etl.credential().clone()), closed: true, ..Filter::default() };
        let lines = journal.cases(filter).await.unwrap();
        lines.iter().any(|line| matches!(line.verdict, Verdict::RolledBack { .. })).then_some(())
    })
    .await;
    assert_eq!(etl.state().await, before);
    etl.assert_works("rolled back").await;
    let nothing =
        curfew::ops::Request::Rollback { id: uuid::Uuid::nil().to_string(), by: "a".into(), reason: "b".into() };
    assert!(matches!(operator.answer(nothing).await, curfew::ops::Reply::Refused(_)));
}

async fn an_operator_s_other_word_counts_at_once(store: Store) {
    let role = Role::new().await;
    let stage = Stage::new(store, registry(&role, Mode::Enforce));
    let journal = stage.open().await;
    let later = reduce(role.credential(), role.takes(), Some(now_ms() + DAY_MS));
    record(journal.as_ref(), vec![later]).await;
    run_until(&stage, &journal, role.credential(), |line| is_held(line, HoldReason::Notice)).await;
    // Less, and now.
    record(journal.as_ref(), vec![reduce(role.credential(), role.named(&[1]), None)]).await;
    let line = run_until(&stage, &journal, role.credential(), |line| line.closed_ms.is_some()).await;
    let Verdict::Reduced { taken: 1, .. } = line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(line.case.directive.action, Action::Reduce);
}

#[tokio::test]
async fn what_is_not_ours_to_take_is_refused_and_nothing_happens() {
    let etl = Etl::new().await;
    let stage = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce));
    let journal = stage.open().await;
    // Granted by somebody else than the owner; of what it owns itself; of another system.
    etl.sql("CREATE TABLE {schema}.own (id int)").await;
    etl.sql("ALTER TABLE {schema}.own OWNER TO {role}").await;
    etl.sql("GRANT SELECT ON {schema}.own TO {role}").await;
    let before = etl.state().await;
    for names in [&["relation:{schema}.own:SELECT"][..], &["policy:{group}"], &["relation:{schema}.own:DROP"]] {
        let event: Event = reduce(etl.credential(), etl.named(names), None);
        record(journal.as_ref(), vec![event]).await;
        run_until(&stage, &journal, etl.credential(), |line| is_held(line, HoldReason::Refused)).await;
        assert_eq!(etl.state().await, before, "{names:?}");
    }
    // The role was made anew under its name: what is given back is not for that one.
    let seen = etl.connector().observe(&super::subject(&etl, Default::default())).await.unwrap();
    let held = seen.scope.unwrap().held;
    etl.sql("DROP OWNED BY {role}").await;
    etl.sql("DROP ROLE {role}").await;
    etl.sql("CREATE ROLE {role} LOGIN PASSWORD 'w1tness'").await;
    record(journal.as_ref(), vec![restore(etl.credential(), held)]).await;
    run_until(&stage, &journal, etl.credential(), |line| is_held(line, HoldReason::Refused)).await;
    assert_eq!(etl.state().await, "", "nothing is given to a stranger");
}

#[tokio::test]
async fn who_is_not_there_any_more_ends_its_case() {
    let (etl, role) = (Etl::new().await, Role::new().await);
    let stage = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce));
    let journal = stage.open().await;
    let seen = etl.connector().observe(&super::subject(&etl, Default::default())).await.unwrap();
    let held = seen.scope.unwrap().held;
    etl.sql("DROP OWNED BY {role}").await;
    etl.sql("DROP ROLE {role}").await;
    record(journal.as_ref(), vec![reduce(etl.credential(), etl.takes(), None)]).await;
    let line = run_until(&stage, &journal, etl.credential(), |line| line.closed_ms.is_some()).await;
    assert_eq!(line.verdict, Verdict::NotFound);
    let journal = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce)).open().await;
    record(journal.as_ref(), vec![restore(etl.credential(), held)]).await;
    let line = run_until(&stage, &journal, etl.credential(), |line| line.closed_ms.is_some()).await;
    assert_eq!(line.verdict, Verdict::NotFound, "nobody is there to be given anything");

    let stage = Stage::new(Store::sqlite(), registry(&role, Mode::Enforce));
    let journal = stage.open().await;
    role.forget().await;
    record(journal.as_ref(), vec![reduce(role.credential(), role.takes(), None)]).await;
    let line = run_until(&stage, &journal, role.credential(), |line| line.closed_ms.is_some()).await;
    assert_eq!(line.verdict, Verdict::NotFound);
}

#[tokio::test]
async fn what_can_be_given_back_is_though_an_object_is_gone() {
    let etl = Etl::new().await;
    let stage = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce));
    let journal = stage.open().await;
    let before = etl.state().await;
    record(journal.as_ref(), vec![reduce(etl.credential(), etl.takes(), None)]).await;
    let line = run_until(&stage, &journal, etl.credential(), |line| line.closed_ms.is_some()).await;
    etl.sql("DROP SEQUENCE {schema}.numbers").await;
    let journal = Stage::new(Store::sqlite(), registry(&etl, Mode::Enforce)).open().await;
    record(journal.as_ref(), vec![restore(etl.credential(), line.case.state.cutting.taken.clone())]).await;
    run_until(&stage, &journal, etl.credential(), |line| is_held(line, HoldReason::Refused)).await;
    let without: Vec<&str> = before.lines().filter(|line| !line.contains("numbers")).collect();
    assert_eq!(etl.state().await, without.join("\n"), "all else is as it was");
}
