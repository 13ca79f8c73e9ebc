//! What people do about a reduction, at real systems: notice, a no for a time, another way, a role made anew.

use std::sync::Arc;

use curfew::case::record::{Record, Residue, Verdict};
use curfew::case::{Action, HoldReason};
use curfew::clock;
use curfew::event::{Data, Event, GrantSpec};
use curfew::guard::Mode;
use curfew::journal::{Arrival, Batch, CaseLine, Filter, Journal};
use curfew::policy::Rules;
use curfew::policy::rules::{FindingRule, Response, When};
use curfew::reach::notice::{self, Found, Sort};
use curfew::scope::permissions;
use curfew::task::{RunKey, Tenure};

use super::postgres::Etl;
use super::vault::Role;
use super::{Identity, is_held, reduce, registry, restore, run_until};
use crate::admin::Postgres;
use crate::stage::{Stage, TOPIC, case_of, ended, now_ms, record, started};
use crate::store::Store;
use crate::world::until;

over_both! {
    nothing_is_taken_before_the_notice_is_over_and_then_only_what_is_still_there,
    who_answers_for_it_keeps_it_for_a_time,
    where_it_only_observes_it_says_what_it_would_take,
    one_command_gives_back_what_was_taken,
    an_operator_s_other_word_counts_at_once,
    what_tasks_have_outgrown_by_the_end_of_the_notice_is_not_lowered,
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

/// What reach says of the role's lifetimes, on the authority behind that; its rule gives a day's notice.
async fn found(journal: &dyn Journal, role: &Role) {
    let excess = permissions(["lifetime:token_max_ttl=360", "lifetime:token_ttl=360"]).unwrap();
    let (credential, place) = (role.credential().clone(), "its tasks took at most 40 s".to_owned());
    let found =
        Found { sort: Sort::LongLived, credential, place, owner: None, excess, leaves: None, moves: Vec::new() };
    let when = When { detector: Some(vec![Sort::LongLived.detector()]), ..When::default() };
    let rule = FindingRule { notice_ms: DAY_MS, ..FindingRule::new(when, Response::Reduce) };
    let mut events = vec![Event::found("default".into(), &found, now_ms())];
    for finding in journal.findings(false, 10).await.unwrap() {
        events.insert(0, Event::found_no_more(&finding, now_ms()));
    }
    let arrivals = events.into_iter().map(|event| Arrival::Event(Box::new(event))).collect();
    let rules = Arc::new(Rules { findings: vec![rule], ..Rules::default() });
    journal.record_batch(Batch { arrivals, moves: Vec::new(), rules, now_ms: now_ms() }).await.unwrap();
}

/// A task that works by the role; it began `ago_ms` ago and took 40 seconds, or goes on.
fn works(role: &Role, no: usize, ago_ms: i64, ends: bool) -> Vec<Event> {
    let run = RunKey::new("/loader", &no.to_string());
    let credential = role.credential().clone();
    let grant = GrantSpec { credential, tenure: Tenure::Standing, principal: None, expires_ms: None };
    let (mut start, mut end) = (started(&run, vec![grant]), ended(&run));
    let from_ms = now_ms() - ago_ms;
    if let (Data::TaskStarted(start), Data::TaskEnded(end)) = (&mut start.data, &mut end.data) {
        (start.started_ms, end.ended_ms) = (Some(from_ms), Some(from_ms + 40_000));
    }
    if ends { vec![start, end] } else { vec![start] }
}

/// Nobody but the executor looks here: what was found is not found anew.
async fn what_tasks_have_outgrown_by_the_end_of_the_notice_is_not_lowered(store: Store) {
    let role = Role::new().await;
    let mut stage = Stage::new(store, registry(&role, Mode::Enforce));
    let authority = stage.settings.authority[TOPIC].clone();
    stage.settings.authority.insert(notice::TOPIC.to_owned(), authority);
    stage.settings.terms.realms.insert("test".to_owned(), "default".into());
    let journal = stage.open().await;
    let before = role.state().await;
    let clock = clock::Simulated::at(now_ms() + 5_000);
    let (short, long) = (|no| works(&role, no, 3_600_000, true), works(&role, 20, 3_000_000, false));
    record(journal.as_ref(), (0..20).flat_map(short).collect()).await;
    found(journal.as_ref(), &role).await;
    run_at(&stage, &journal, &clock, &role, |line| is_held(line, HoldReason::Notice)).await;
    record(journal.as_ref(), long).await;
    clock.advance_ms(DAY_MS + 1);
    let line = run_at(&stage, &journal, &clock, &role, |line| line.closed_ms.is_some()).await;
    assert_eq!((line.verdict, role.state().await), (Verdict::Obsolete, before), "it has gone on for a day");

    // It was no longer than the others: that was only known late.
    record(journal.as_ref(), works(&role, 20, 3_000_000, true)).await;
    found(journal.as_ref(), &role).await;
    clock.advance_ms(DAY_MS + 1);
    let executor = stage.executor_at(journal.clone(), &clock);
    let lowered = until("the second case", || async {
        executor.drain().await.unwrap();
        let filter = Filter { credential: Some(role.credential().clone()), closed: true, ..Filter::default() };
        let lines = journal.cases(filter).await.unwrap();
        lines.into_iter().find_map(|line| match line.verdict {
            Verdict::Reduced { taken, .. } => Some(taken),
            _ => None,
        })
    });
    assert_eq!(lowered.await, 2);
    let now: serde_json::Value = serde_json::from_str(&role.state().await).unwrap();
    assert_eq!((&now["token_ttl"], &now["token_max_ttl"]), (&360.into(), &360.into()));
}
