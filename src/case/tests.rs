use proptest::prelude::*;

use super::{Phase, State, Todo};
use crate::case::derived::{Derived, Others, Role, Says};
use crate::case::plan::{Act, Agent, Plan, ROLES, Step};
use crate::case::record::{
    Answer, FailureKind, Generation, KilledBy, Level, Observation, Output, Presence, Record, Residue, Sighting, Verdict,
};
use crate::case::{Action, Directive, HoldReason, Trigger, Urgency};
use crate::credential::{CredentialId, Kind};
use crate::scope::{Held, Permission, Scope};

fn directive(held: Option<HoldReason>) -> Directive {
    Directive {
        credential: CredentialId::new(Kind::VaultLease, "prod", "database/creds/ro/x").unwrap(),
        action: Action::Revoke,
        trigger: Trigger::TaskEnd,
        urgency: Urgency::Prompt,
        held,
        run: None,
        end_ms: None,
        broker_ms: 0,
        topic: "t".into(),
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: None,
    }
}

fn step(act: Act, system: &str) -> Step {
    Step { act, connector: system.into(), system: system.into(), optional: false, place: None, agent: None }
}

/// A revoke with looks for each system (0) or without the one at the database (1), a containment (2), a rollover (3), one
/// that the provider makes (4), one that it is asked for twice (5), a split among two (6); or what undoes these.
fn plan(shape: u8, undoes: bool) -> Plan {
    let at = |(act, system): &(Act, &str)| step(*act, system);
    if undoes {
        let back = [(Act::Revert, "kv"), (Act::Copy, "kv")];
        let steps = [&back[usize::from(shape.is_multiple_of(2)) * 2..], &[(Act::Restore, "pg"), (Act::Discard, "kv")]];
        let steps = steps.concat().iter().map(at).collect();
        return Plan { steps, pivot: 0, undoes: true };
    }
    let looks = [(Act::Observe, "pg"), (Act::Observe, "kv")];
    let cuts = [(Act::Disable, "pg"), (Act::EndSessions, "pg")];
    let makes = [(Act::Create, "kv"), (Act::Set, "pg"), (Act::Test, "pg"), (Act::Promote, "kv")];
    let ends = [(Act::Prove, "pg"), (Act::Destroy, "kv")];
    if shape == 4 {
        let makes = [(Act::Mint, "kv"), (Act::Test, "pg"), (Act::Adopt, "pg"), (Act::EndSessions, "pg")];
        let steps = [&looks[..], &makes, &ends].concat().iter().map(at).collect();
        return Plan { pivot: 2, steps, undoes: false };
    }
    if shape == 5 {
        let asks = [(Act::Begin, "kv"), (Act::Test, "kv"), (Act::Mint, "kv"), (Act::Test, "pg")];
        let steps = [&looks[..], &asks, &[(Act::Adopt, "pg")], &asks, &[(Act::EndSessions, "pg")], &ends].concat();
        return Plan { pivot: 2, steps: steps.iter().map(at).collect(), undoes: false };
    }
    if shape == 6 {
        let moves = [
            &looks[1..],
            &[(Act::Provision, "scope")],
            &looks[..1],
            &makes,
            &[(Act::Adopt, "pg"), (Act::Destroy, "kv")],
        ];
        let moves = moves.concat();
        let of = |user: &str| {
            let agent = Some(Agent { name: "billing".into(), user: user.into() });
            moves.iter().map(|one| Step { agent: agent.clone(), ..at(one) }).collect::<Vec<_>>()
        };
        let rest = [&[(Act::Adopt, "pg")], &cuts[..], &looks[1..], &ends].concat();
        let steps = [vec![at(&looks[0])], of("a"), of("b"), rest.iter().map(at).collect()].concat();
        return Plan { pivot: steps.len() - 6, steps, undoes: false };
    }
    if shape >= 2 {
        let spread = [(Act::Copy, "kv"), (Act::Notify, "hook"), (Act::Adopt, "pg")];
        let middle = if shape == 2 { [&cuts[..], &makes] } else { [&makes[..], &spread] };
        let steps = [&looks[..], middle[0], middle[1], &ends].concat().iter().map(at).collect::<Vec<_>>();
        return Plan { pivot: steps.len() - 1, steps, undoes: false };
    }
    let mut steps = vec![step(Act::Observe, "vault")];
    if shape == 0 {
        steps.push(step(Act::Observe, "pg"));
    }
    steps.extend([step(Act::Disable, "pg"), step(Act::Revoke, "vault"), step(Act::EndSessions, "pg")]);
    steps.push(step(Act::Prove, "pg"));
    let pivot = steps.len() - 3;
    Plan { steps, pivot, undoes: false }
}

fn seen(presence: Presence) -> Observation {
    Observation { presence, ..Observation::default() }
}

fn sighted(answer: Answer, at_ms: i64) -> Sighting {
    Sighting { level: Level::Issuer, answer, at_ms, control: true, residue: Vec::new(), request_id: None }
}

fn answered(failed: bool) -> Record {
    Record::Answered { consumer: "billing".into(), version: 2, failed, by: "t".into() }
}

fn dead() -> Verdict {
    Verdict::Dead { level: Level::Issuer, at_ms: 0, sightings: 1, by: KilledBy::Curfew, residue: Vec::new() }
}

/// What the executor may append for `todo`: `pick` chooses among it.
fn answer(state: &State, todo: Todo, pick: u8, shape: u8) -> Record {
    let failures = [
        FailureKind::Unavailable,
        FailureKind::Throttled { after_ms: None },
        FailureKind::Unknown,
        FailureKind::Denied,
        FailureKind::Refused,
        FailureKind::Gone,
        FailureKind::Rejected,
    ];
    let failed =
        |step| Record::Failed { step, failure: failures[usize::from(pick) % 7], note: String::new(), untouched: false };
    let presence = [Presence::Present, Presence::Gone, Presence::Unclear][usize::from(pick) % 3];
    match todo {
        Todo::Plan => Record::Planned { no: state.plan_no + 1, plan: plan(shape, state.is_spent()) },
        Todo::Observe(step) if pick.is_multiple_of(4) => failed(step),
        Todo::Observe(step) => Record::Observed { step, seen: seen(presence) },
        Todo::Perform(step) => Record::Started { step, key: uuid::Uuid::nil(), attempt: state.attempts + 1 },
        Todo::Skip(step) => Record::Skipped { step, residue: None },
        Todo::Pass(step) if pick.is_multiple_of(3) => failed(step),
        Todo::Pass(step) => Record::Passed { step, cut_ms: None },
        Todo::Close if state.withdrawn => Record::Closed { verdict: Verdict::Obsolete },
        Todo::Close => Record::Closed { verdict: state.proven.clone().unwrap() },
        Todo::Park => Record::Held { reason: HoldReason::CandidateRejected },
        Todo::Prove(step) if state.series.refused > 0 && state.phase == Phase::Open && !state.proof_is_last() => {
            Record::Proven { step, verdict: dead() }
        }
        Todo::Prove(step) if pick.is_multiple_of(5) => failed(step),
        Todo::Prove(step) => {
            let answer = [Answer::Refused, Answer::Accepted, Answer::Unknown][usize::from(pick) % 3];
            Record::Sighted { step, sighting: sighted(answer, i64::from(pick)) }
        }
        Todo::Recheck(_) if pick.is_multiple_of(2) => Record::Held { reason: HoldReason::Authority },
        Todo::Recheck(_) => Record::Resumed { by: "guard".into() },
        Todo::Rest if matches!(state.phase, Phase::Held { .. }) => Record::Resumed { by: "ann".into() },
        Todo::Rest => Record::Joined { directive: directive(None) },
    }
}

proptest! {
    /// Whatever happens, what comes next can be recorded, and a crash between any two records changes nothing.
    #[test]
    fn what_comes_next_can_always_be_recorded(picks in prop::collection::vec((any::<u8>(), 0..24u8), 1..80), shape in 0..7u8) {
        let opened = directive(None);
        let mut state = State::opened(&opened);
        let mut records = vec![Record::Opened { directive: opened }];
        for (pick, event) in picks {
            if state.is_closed() {
                break;
            }
            let todo = state.todo();
            let mut now = vec![match event {
                0 => Record::Superseded { by: directive(pick.is_multiple_of(2).then_some(HoldReason::Finding)) },
                1 => Record::Joined { directive: directive(None) },
                2 if state.phase == Phase::Open => Record::Held { reason: HoldReason::Frozen },
                3 if state.phase != Phase::Abandoned => {
                    Record::Abandoned { by: "ann".into(), reason: String::new() }
                }
                4 => Record::Closed { verdict: Verdict::Obsolete },
                6 if state.may_go_back() => answered(pick.is_multiple_of(2)),
                5 if !state.acted => Record::Withdrawn { by: "t".into() },
                7 if !state.acted && !state.begun => Record::Spared {
                    permissions: crate::scope::permissions(["policy:a"]).unwrap(),
                    by: "t".into(),
                },
                _ => answer(&state, todo, pick, shape),
            }];
            if let Record::Started { step, .. } = &now[0] {
                // The reply, or a crash before it.
                match pick % 4 {
                    0 => {}
                    1 => now.push(Record::Failed { step: *step, failure: FailureKind::Unknown, note: String::new(), untouched: false }),
                    2 if pick > 128 => {
                        now.push(Record::Failed { step: *step, failure: FailureKind::Rejected, note: String::new(), untouched: false });
                    }
                    2 => now.push(Record::Failed { step: *step, failure: FailureKind::Unavailable, note: String::new(), untouched: false }),
                    _ => {
                        let current = Some(Generation { version: 2, user: None });
                        now.push(Record::Succeeded { step: *step, output: Output { current, ..Output::default() } });
                    }
                }
            }
            for record in now {
                let before = state.clone();
                state = state.next(&record)
                    .map_err(|illegal| TestCaseError::fail(format!("{illegal}: {before:?} / {record:?}")))?;
                records.push(record);
                prop_assert_eq!(&State::fold(&records).unwrap(), &state);
            }
        }
    }

    /// No order of records, however wild, reaches a state in which a closed case moves or an unseen death is recorded.
    #[test]
    fn no_order_of_records_reaches_an_illegal_state(picks in prop::collection::vec((any::<u8>(), 0..12usize, 0..19u8), 0..60), shape in 0..7u8) {
        let mut state = State::opened(&directive(None));
        for (pick, at, kind) in picks {
            let record = match kind {
                0 => Record::Opened { directive: directive(None) },
                1 => Record::Superseded { by: directive(None) },
                2 => Record::Planned { no: state.plan_no + u32::from(pick % 2), plan: plan(shape, pick > 200) },
                3 => Record::Observed { step: at, seen: seen(Presence::Present) },
                4 => Record::Started { step: at, key: uuid::Uuid::nil(), attempt: u32::from(pick % 3) },
                5 => Record::Succeeded { step: at, output: Output::default() },
                6 => Record::Failed { step: at, failure: FailureKind::Unknown, note: String::new(), untouched: false },
                7 => Record::Skipped { step: at, residue: None },
                8 => Record::Sighted { step: at, sighting: sighted(Answer::Refused, 1) },
                9 => Record::Held { reason: HoldReason::Cap },
                10 => Record::Resumed { by: "a".into() },
                11 => Record::Abandoned { by: "a".into(), reason: String::new() },
                12 => Record::Closed { verdict: dead() },
                14 => Record::Passed { step: at, cut_ms: None },
                15 => Record::Proven { step: at, verdict: dead() },
                16 => Record::Withdrawn { by: "t".into() },
                18 => Record::Spared {
                    permissions: crate::scope::permissions(["policy:a"]).unwrap(),
                    by: "t".into(),
                },
                17 => Record::Failed { step: at, failure: FailureKind::Rejected, note: String::new(), untouched: false },
                _ => Record::Closed { verdict: Verdict::DiesAt { at_ms: 1 } },
            };
            let closed = state.is_closed();
            let unseen = state.series.refused == 0;
            if let Ok(next) = state.clone().next(&record) {
                prop_assert!(!closed, "a closed case took {record:?}");
                prop_assert!(!(matches!(kind, 12 | 15) && unseen), "dead without a sighting");
                prop_assert!(kind != 16 || !state.acted, "withdrawn from half-way");
                prop_assert!(kind != 13, "closed by a verdict that does not close");
                let steps = next.plan.as_ref().map_or(0, |p| p.steps.len());
                let is_over = next.proven.is_some() || next.plan.as_ref().is_some_and(|plan| plan.undoes);
                prop_assert!(steps == 0 || next.step < steps || (next.step == steps && is_over), "past its proof");
                prop_assert!(!next.in_doubt || next.current().is_some_and(|s| s.act.has_effect()));
                state = next;
            }
        }
    }
}

#[test]
fn an_abandoned_case_may_fail_to_probe() {
    let mut state = State::opened(&directive(None));
    for record in [
        Record::Planned { no: 1, plan: plan(0, false) },
        Record::Abandoned { by: "ann".into(), reason: "x".into() },
        Record::Failed { step: 5, failure: FailureKind::Unavailable, note: String::new(), untouched: false },
        Record::Sighted { step: 5, sighting: sighted(Answer::Refused, 1) },
    ] {
        state = state.next(&record).unwrap();
    }
    assert_eq!(state.todo(), Todo::Prove(5));
}

/// AWS makes another value in its own time, and says nothing of one that it does not make.
#[test]
fn what_a_provider_was_asked_for_may_be_at_the_target_until_it_is_known() {
    let begun = |state: State| {
        let (step, attempt) = (state.step, state.attempts + 1);
        state.next(&Record::Started { step, key: uuid::Uuid::nil(), attempt }).unwrap()
    };
    let opened = State::opened(&directive(None)).next(&Record::Planned { no: 1, plan: plan(5, false) }).unwrap();
    let mut state = State { step: 2, ..opened };
    assert!(!state.may_be_dead());
    state = begun(state);
    assert!(state.may_be_dead(), "perhaps");
    let output = Output { done_ms: Some(7), ..Output::default() };
    state = state.next(&Record::Succeeded { step: 2, output }).unwrap();
    assert_eq!((state.turn.is_set, state.turn.begun_ms, state.todo()), (true, Some(7), Todo::Pass(3)));
    // It came to nothing: another one is asked for.
    let rejected = Record::Failed { step: 3, failure: FailureKind::Rejected, note: String::new(), untouched: false };
    let again = state.clone().next(&rejected).unwrap();
    assert_eq!((again.step, again.turn.rejected, again.may_be_dead()), (2, 1, true));
    // It is half-made: nothing else is tried, and nobody calls the old one alive.
    let refused = Record::Failed { step: 3, failure: FailureKind::Refused, note: String::new(), untouched: false };
    let spent = state.next(&refused).unwrap();
    assert!(spent.is_spent() && spent.may_be_dead());
}

#[test]
fn a_refusal_that_changed_nothing_undoes_nothing_unless_an_attempt_before_it_may_have() {
    let acts = [Act::Observe, Act::Narrow, Act::Test, Act::Prove];
    let steps = acts.iter().map(|act| step(*act, "aws")).collect();
    let plan = Plan { steps, pivot: 1, undoes: false };
    let held = Held { permission: Permission::parse("group:ops").unwrap(), how: "{}".into() };
    let scope = Some(Scope { held: vec![held], ..Scope::default() });
    let look = Record::Observed { step: 0, seen: Observation { scope, ..seen(Presence::Present) } };
    let mut ready = State::opened(&directive(None));
    for record in [Record::Planned { no: 1, plan }, look] {
        ready = ready.next(&record).unwrap();
    }
    let attempt = |state: State, failure: FailureKind, untouched: bool| {
        let started = Record::Started { step: 1, key: uuid::Uuid::nil(), attempt: state.attempts + 1 };
        let failed = Record::Failed { step: 1, failure, note: String::new(), untouched };
        state.next(&started).unwrap().next(&failed).unwrap()
    };
    let refused = attempt(ready.clone(), FailureKind::Refused, true);
    assert!(!refused.is_spent() && !refused.begun && refused.cutting.missing().is_empty());
    let held = refused.next(&Record::Held { reason: HoldReason::Refused }).unwrap();
    let resumed = held.next(&Record::Resumed { by: "ann".into() }).unwrap();
    assert_eq!(resumed.todo(), Todo::Observe(0), "what is taken is what is there by then");
    let later = attempt(attempt(ready.clone(), FailureKind::Unavailable, true), FailureKind::Refused, true);
    assert!(!later.is_spent() && later.cutting.missing().is_empty());
    // Half of it may be gone.
    let half = attempt(attempt(ready.clone(), FailureKind::Unavailable, false), FailureKind::Refused, true);
    assert!(half.is_spent() && half.begun);
    assert_eq!((half.cutting.missing().len(), half.todo()), (1, Todo::Plan));
    let now = attempt(ready, FailureKind::Refused, false);
    assert!(now.is_spent() && now.cutting.missing().len() == 1);
}

mod turned {
    use super::*;

    fn at(shape: u8, act: Act) -> State {
        let plan = plan(shape, false);
        let step = plan.find(act).unwrap();
        let opened = State::opened(&directive(None));
        let mut state = opened.next(&Record::Planned { no: 1, plan }).unwrap();
        state.step = step;
        state
    }

    fn started(state: State) -> State {
        let (step, attempt) = (state.step, state.attempts + 1);
        state.next(&Record::Started { step, key: uuid::Uuid::nil(), attempt }).unwrap()
    }

    fn failed(state: State, failure: FailureKind) -> State {
        let step = state.step;
        state.next(&Record::Failed { step, failure, note: String::new(), untouched: false }).unwrap()
    }

    fn undone(state: State) -> Todo {
        assert_eq!(state.todo(), Todo::Plan, "all that was made is undone");
        state.next(&Record::Planned { no: 2, plan: plan(2, true) }).unwrap().todo()
    }

    #[test]
    fn who_was_never_given_a_candidate_has_nothing_taken_back() {
        let refused = failed(started(at(3, Act::Set)), FailureKind::Refused);
        assert_eq!(undone(refused), Todo::Skip(0), "it may be somebody else's user");
        // It may have happened: no answer, a crash before one, or another plan in between.
        let cut = failed(failed(started(at(3, Act::Set)), FailureKind::Unknown), FailureKind::Refused);
        assert_eq!(undone(cut), Todo::Perform(0));
        let mut killed = started(at(3, Act::Set));
        killed.looked = true;
        assert_eq!(undone(failed(started(killed), FailureKind::Refused)), Todo::Perform(0));
        let taken_over = started(at(3, Act::Set)).next(&Record::Superseded { by: directive(None) }).unwrap();
        assert!(taken_over.turn.is_set);
    }

    #[test]
    fn what_nobody_ever_saw_alive_is_not_proven_dead_and_nothing_of_it_destroyed() {
        let proving = at(2, Act::Prove);
        let step = proving.step;
        let refused = proving.next(&Record::Sighted { step, sighting: sighted(Answer::Refused, 1) }).unwrap();
        assert!(refused.clone().next(&Record::Proven { step, verdict: Verdict::NotFound }).is_err());
        assert!(refused.next(&Record::Proven { step, verdict: dead() }).is_ok());
    }

    fn promoted(act: Act) -> State {
        let mut state = at(3, act);
        state.turn.new = Some(Generation { version: 2, user: None });
        state
    }

    #[test]
    fn a_consumer_that_cannot_work_with_the_new_value_gets_the_old_one_back_while_that_works() {
        let waiting = promoted(Act::Adopt);
        let told = waiting.clone().next(&answered(false)).unwrap();
        assert_eq!((told.turn.adopted.len(), told.todo()), (1, Todo::Pass(told.step)));
        let soon = started(promoted(Act::Copy)).next(&answered(true)).unwrap();
        assert_eq!(soon.todo(), Todo::Plan, "who heard of it need not wait until all places have it");
        let failed = waiting.next(&answered(true)).unwrap();
        assert_eq!(failed.todo(), Todo::Plan, "all is undone");
        let mut undoing = failed.next(&Record::Planned { no: 2, plan: plan(3, true) }).unwrap();
        undoing.turn.old = Some(Generation { version: 1, user: None });
        let output = Output { current: Some(Generation { version: 3, user: None }), ..Output::default() };
        let back = started(undoing).next(&Record::Succeeded { step: 0, output }).unwrap();
        assert_eq!((back.turn.old.unwrap().version, back.turn.new), (3, None), "the old value, stored anew");
        // The old one is about to be cut, or is already.
        assert!(promoted(Act::Prove).next(&answered(true)).is_err());
        assert!(promoted(Act::Prove).next(&answered(false)).is_ok());
        // About another value.
        assert!(at(3, Act::Adopt).next(&answered(false)).is_err());
    }

    #[test]
    fn who_was_waited_for_answers_late_and_the_case_goes_on() {
        let held = promoted(Act::Adopt).next(&Record::Held { reason: HoldReason::NotAdopted }).unwrap();
        assert_eq!(held.clone().next(&answered(false)).unwrap().phase, Phase::Open);
        assert_eq!(held.next(&answered(true)).unwrap().todo(), Todo::Plan);
        let frozen = promoted(Act::Adopt).next(&Record::Held { reason: HoldReason::Frozen }).unwrap();
        assert!(matches!(frozen.next(&answered(true)).unwrap().phase, Phase::Held { .. }), "a freeze stands");
    }

    /// P8: `alive` is a decision. Of what was cut and not seen dead, nobody decided that.
    #[test]
    fn what_is_held_in_the_middle_of_it_is_not_called_alive() {
        let held = |state: State| state.next(&Record::Held { reason: HoldReason::Frozen }).unwrap().may_be_dead();
        let done = |state: State| {
            let step = state.step;
            started(state).next(&Record::Succeeded { step, output: Output::default() }).unwrap()
        };
        for shape in [0, 2] {
            assert!(!held(at(shape, Act::Disable)), "{shape}: nothing was done");
            assert!(held(done(at(shape, Act::Disable))), "{shape}: it is shut out");
            assert!(held(started(at(shape, Act::Disable))), "{shape}: perhaps");
        }
        assert!(held(started(at(1, Act::Revoke))) && held(done(at(1, Act::Revoke))), "revoked, and not seen dead");
        // A switch: what is set at the target takes the old one's place. Of a pair the old one is cut later.
        assert!(!held(at(3, Act::Set)) && held(done(at(3, Act::Set))));
        let mut pair = done(at(3, Act::Set));
        pair.plan.as_mut().unwrap().steps.push(step(Act::Disable, "pg"));
        assert!(!held(pair));
        // Undone, nothing is left of it.
        let mut undone = done(at(3, Act::Set));
        undone.turn.did(Act::Restore, &Output::default());
        assert!(!held(undone));
    }

    #[test]
    fn what_was_to_go_before_is_not_forgotten_when_what_came_goes_too() {
        let version = |version| Generation { version, user: None };
        use crate::case::turn::Turn;
        let holds = |n| Observation { current: Some(version(n)), ..Observation::default() };
        let mut turn = Turn { old: Some(version(3)), new: Some(version(4)), is_set: true, ..Turn::default() };
        turn.go_on(Some(3));
        assert_eq!(
            (turn.new.clone(), turn.left.len(), turn.first()),
            (Some(version(4)), 0, Some(3)),
            "about the old one"
        );
        turn.go_on(Some(4));
        assert_eq!(turn, Turn { left: vec![version(3)], ..Turn::default() });
        turn.saw(&holds(4));
        assert_eq!((turn.old.clone(), turn.first()), (Some(version(4)), Some(3)));
        // However often: the newest are remembered.
        for n in 5..100 {
            turn.new = Some(version(n));
            turn.go_on(Some(n));
            turn.saw(&holds(n));
        }
        assert_eq!((turn.left.len(), turn.first()), (Turn::LEFT, Some(99 - 32)));
    }

    #[test]
    fn after_a_refuted_containment_all_of_it_is_done_again() {
        let mut proving = at(2, Act::Prove);
        let step = proving.step;
        proving.turn.new = Some(Generation { version: 2, user: None });
        let alive = proving.next(&Record::Sighted { step, sighting: sighted(Answer::Accepted, 1) }).unwrap();
        let again = alive.next(&Record::Superseded { by: directive(None) }).unwrap();
        assert!(again.turn.refuted);
    }
}

mod judged {
    use super::*;
    use crate::case::Case;
    use crate::probe::{Judgement, Settle, judge};

    pub(super) fn case(sightings: &[Sighting], issuer: Presence, seen_ms: Option<i64>) -> Case {
        let mut state = State::opened(&directive(None));
        let proof =
            Plan { steps: vec![step(Act::Observe, "vault"), step(Act::Prove, "vault")], pivot: 1, undoes: false };
        state = state.next(&Record::Planned { no: 1, plan: proof }).unwrap();
        state = state.next(&Record::Observed { step: 0, seen: seen(issuer) }).unwrap();
        for sighting in sightings {
            state = state.next(&Record::Sighted { step: 1, sighting: sighting.clone() }).unwrap();
        }
        Case {
            id: uuid::Uuid::nil(),
            tenant: "t".into(),
            directive: directive(None),
            system: "s".into(),
            lane: "l".into(),
            principal: None,
            seen_ms,
            opened_ms: 0,
            traceparent: None,
            seq: 1,
            blast: None,
            charged: false,
            state,
        }
    }

    const AT_ONCE: Settle = Settle { window_ms: 0, sightings: 1 };
    const SLOW: Settle = Settle { window_ms: 1_000, sightings: 3 };

    #[test]
    fn death_is_the_first_refusal_of_the_unbroken_series() {
        let r = |at| sighted(Answer::Refused, at);
        let broken = [r(1), sighted(Answer::Accepted, 2), r(700), sighted(Answer::Unknown, 900), r(1_200), r(1_700)];
        let case = case(&broken, Presence::Present, None);
        let Judgement::Close(Verdict::Dead { at_ms, sightings, by, .. }) = judge(&case, SLOW, 2_000) else {
            panic!("not dead");
        };
        assert_eq!((at_ms, sightings, by), (700, 3, KilledBy::Others));
    }

    #[test]
    fn too_few_too_soon_or_without_a_control_prove_nothing() {
        let r = |at| sighted(Answer::Refused, at);
        let soon = case(&[r(0), r(10), r(20)], Presence::Present, None);
        assert_eq!(judge(&soon, SLOW, 20), Judgement::Again { at_ms: 520 });
        let few = case(&[r(0), r(5_000)], Presence::Present, None);
        assert!(matches!(judge(&few, SLOW, 5_000), Judgement::Again { .. }));
        let blind = case(&[Sighting { control: false, ..r(0) }], Presence::Present, None);
        assert_eq!(judge(&blind, AT_ONCE, 0), Judgement::Retry);
        let late = case(&[r(0), sighted(Answer::Accepted, 1)], Presence::Present, None);
        assert_eq!(judge(&late, AT_ONCE, 1), Judgement::Retry, "a refuting sighting wins");
    }

    #[test]
    fn what_nobody_ever_saw_is_not_called_dead() {
        let refused = [sighted(Answer::Refused, 1)];
        for presence in [Presence::Gone, Presence::Unclear] {
            assert_eq!(judge(&case(&refused, presence, None), AT_ONCE, 1), Judgement::Close(Verdict::NotFound));
        }
        let known = judge(&case(&refused, Presence::Gone, Some(1)), AT_ONCE, 1);
        assert!(matches!(known, Judgement::Close(Verdict::Dead { .. })));
    }
}

mod guarded {
    use std::collections::BTreeSet;

    use super::*;
    use crate::guard::{APPROLES, TOKENS, is_allowed, same_run};

    #[test]
    fn a_prefix_reaches_its_own_role_and_no_name_that_looks_alike() {
        let id = |kind, id: &str| CredentialId::new(kind, "prod", id).unwrap();
        let allowed = ["database/creds/ro/".to_owned(), "approle/ci".to_owned()];
        for (kind, text, expected) in [
            (Kind::VaultLease, "database/creds/ro/x", true),
            (Kind::VaultLease, "database/creds/ro-admin/x", false),
            (Kind::VaultLease, "database/creds/ro/../rw/x", false),
            (Kind::VaultLease, "database/creds/ro//x", false),
            (Kind::VaultSecretId, "approle/ci/acc", true),
            (Kind::VaultSecretId, "approle/ci2/acc", false),
            (Kind::VaultToken, "database/creds/ro/x", false),
            (Kind::VaultToken, "acc", false),
            (Kind::Unserved, "approle/ci/acc", false),
        ] {
            assert_eq!(is_allowed(&id(kind, text), &allowed), expected, "{text}");
        }
        assert!(is_allowed(&id(Kind::VaultToken, "acc"), &[TOKENS.to_owned()]));
        assert!(!is_allowed(&id(Kind::VaultLease, "token:x"), &[TOKENS.to_owned(), String::new()]));
        let users = ["ci/".to_owned(), "alone".to_owned(), "team/bot".to_owned(), "/".to_owned()];
        for (text, expected) in [
            ("ci/deployer/AKIAIOSFODNN7EXAMPLE", true),
            ("ci/build/deployer/AKIAIOSFODNN7EXAMPLE", true),
            ("alone/AKIAIOSFODNN7EXAMPLE", true),
            ("team/bot/AKIAIOSFODNN7EXAMPLE", true),
            ("cix/AKIAIOSFODNN7EXAMPLE", false),
            ("ci/AKIAIOSFODNN7EXAMPLE", false),
            ("ci/../root/AKIAIOSFODNN7EXAMPLE", false),
            ("alone/payments/AKIAIOSFODNN7EXAMPLE", false),
            ("bot/AKIAIOSFODNN7EXAMPLE", false),
            ("AKIAIOSFODNN7EXAMPLE", false),
        ] {
            assert_eq!(is_allowed(&id(Kind::AwsAccessKey, text), &users), expected, "{text}");
        }
        // The rotation of a role's secret_id, and not the revocation of each that it has.
        let rotated = [format!("{APPROLES}approle/ci")];
        assert!(is_allowed(&id(Kind::VaultApprole, "approle/ci"), &rotated));
        assert!(!is_allowed(&id(Kind::VaultApprole, "approle/ci2"), &rotated));
        assert!(!is_allowed(&id(Kind::VaultSecretId, "approle/ci/acc"), &rotated));
        assert!(!is_allowed(&id(Kind::VaultApprole, "approle/ci"), &["approle/ci".to_owned(), "approle/".to_owned()]));
    }

    #[test]
    fn the_gate_asks_in_order() {
        use crate::guard::{Authority, Facts, Freeze, Mode, check};
        let mut case = crate::case::Case {
            id: uuid::Uuid::nil(),
            tenant: "t".into(),
            directive: Directive { run: Some(crate::task::RunKey::new("/ci", "1")), ..directive(None) },
            system: "s".into(),
            lane: "l".into(),
            principal: None,
            seen_ms: None,
            opened_ms: 0,
            traceparent: None,
            seq: 1,
            blast: None,
            charged: false,
            state: State::opened(&directive(None)),
        };
        let authority = Authority { kinds: BTreeSet::from(["vault-lease".into()]), strongest: Action::Revoke };
        let tracks = Authority { strongest: Action::Track, ..authority.clone() };
        let prefixes = ["database/creds/ro/".to_owned()];
        let none = BTreeSet::new();
        let own = BTreeSet::from([case.directive.credential.as_str().to_owned()]);
        let other = Observation { run: Some("/ci:2".into()), ..seen(Presence::Present) };
        let check = |case: &crate::case::Case, change: &dyn Fn(&mut Facts<'_>)| {
            let mut facts = Facts {
                case,
                seen: None,
                freeze: None,
                started_held: false,
                mode: Some(Mode::Enforce),
                authority: Some(&authority),
                reducible: &[],
                now_ms: 0,
                allowed_prefixes: &prefixes,
                protected: &none,
                clock_trusted: true,
                cap_left: Some(1),
            };
            // The lifetimes of what a change may refer to are those of this test.
            change(&mut facts);
            check(&facts)
        };
        assert_eq!(check(&case, &|_| ()), Ok(()));
        assert_eq!(check(&case, &|f| f.freeze = Some(Freeze::Soft)), Err(HoldReason::Frozen));
        assert_eq!(check(&case, &|f| f.started_held = true), Err(HoldReason::StartedHeld));
        assert_eq!(check(&case, &|f| f.mode = None), Err(HoldReason::Unserved));
        assert_eq!(check(&case, &|f| f.mode = Some(Mode::Observe)), Err(HoldReason::Observe));
        assert_eq!(check(&case, &|f| f.authority = None), Err(HoldReason::Authority));
        assert_eq!(check(&case, &|f| f.allowed_prefixes = &[]), Err(HoldReason::Prefix));
        assert_eq!(check(&case, &|f| f.cap_left = Some(0)), Err(HoldReason::Cap));
        assert_eq!(check(&case, &|f| f.clock_trusted = false), Ok(()), "an event-triggered case goes on");
        let borrowed =
            [(Some(&tracks), &none, None), (Some(&authority), &own, None), (Some(&authority), &none, Some(&other))];
        let expected = [HoldReason::Authority, HoldReason::Protected, HoldReason::OtherTask];
        for ((authority, protected, seen), expected) in borrowed.into_iter().zip(expected) {
            let facts = Facts {
                case: &case,
                seen,
                freeze: None,
                started_held: false,
                mode: Some(Mode::Enforce),
                authority,
                reducible: &[],
                now_ms: 0,
                allowed_prefixes: &prefixes,
                protected,
                clock_trusted: true,
                cap_left: None,
            };
            assert_eq!(crate::guard::check(&facts), Err(expected));
        }
        let mut found = case.clone();
        found.directive.action = Action::Track;
        assert_eq!(check(&found, &|_| ()), Err(HoldReason::Finding), "what is only recorded enforces nothing");
        case.state.acted = true;
        case.charged = true;
        assert_eq!(check(&case, &|f| f.freeze = Some(Freeze::Soft)), Ok(()), "on to its safe point");
        assert_eq!(check(&case, &|f| f.freeze = Some(Freeze::Hard)), Err(HoldReason::Frozen));
        assert_eq!(check(&case, &|f| f.cap_left = Some(0)), Ok(()), "charged once");
        case.directive.trigger = Trigger::Deadline;
        assert_eq!(check(&case, &|f| f.clock_trusted = false), Err(HoldReason::Clock));
    }

    #[test]
    fn who_came_first_without_authority_stops_nobody_with_it() {
        use crate::guard::{Authority, authority_of};
        let able = Authority { kinds: BTreeSet::from(["vault-lease".into()]), strongest: Action::Revoke };
        let of = |topic: &str| (topic == "able").then_some(&able);
        let join = |topic: &str, action, held| Record::Joined {
            directive: Directive { topic: topic.into(), action, held, ..directive(None) },
        };
        let opened = State::opened(&directive(None));
        let weaker = opened.next(&join("able", Action::Track, None)).unwrap();
        let held = weaker.next(&join("able", Action::Revoke, Some(HoldReason::Unregistered))).unwrap();
        let mut case = super::judged::case(&[], Presence::Present, None);
        case.state.joined.clone_from(&held.joined);
        assert_eq!(authority_of(&case, of), None, "it asked for less");
        case.state = held.next(&join("able", Action::Revoke, None)).unwrap();
        assert_eq!(authority_of(&case, of), Some(&able));
    }

    #[test]
    fn curfews_own_authority_is_not_lent_to_what_a_producer_registered() {
        use crate::guard::{Authority, authority_of};
        let kinds = BTreeSet::from(["vault-lease".into()]);
        let (able, weak) = (
            Authority { kinds: kinds.clone(), strongest: Action::Revoke },
            Authority { kinds, strongest: Action::Track },
        );
        let of = |topic: &str| match topic {
            "curfew" | "able" => Some(&able),
            "weak" => Some(&weak),
            _ => None,
        };
        let noticed = |by: &[&str]| Directive {
            topic: "curfew".into(),
            grantors: by.iter().map(|topic| (*topic).to_owned()).collect(),
            ..directive(None)
        };
        let mut case = super::judged::case(&[], Presence::Present, None);
        for (by, covered) in [(&["weak"][..], false), (&["gone"], false), (&["weak", "able"], true), (&[], true)] {
            case.directive = noticed(by);
            assert_eq!(authority_of(&case, of).is_some_and(|a| a.covers(&case)), covered, "{by:?}");
        }
        // Nor by joining what waits for authority.
        case.directive = Directive { topic: "weak".into(), ..directive(None) };
        case.state = State::opened(&case.directive).next(&Record::Joined { directive: noticed(&["weak"]) }).unwrap();
        assert!(!authority_of(&case, of).unwrap().covers(&case));
        case.state = case.state.next(&Record::Joined { directive: noticed(&["able"]) }).unwrap();
        assert!(authority_of(&case, of).unwrap().covers(&case));
    }

    #[test]
    fn a_run_is_named_whole_or_by_its_id() {
        let same = |source, id, named| same_run(&crate::task::RunKey::new(source, id), named);
        assert!(same("/ci", "42", "/ci:42") && same("/ci", "42", "42"));
        assert!(!same("/ci", "42", "2") && !same("/ci", "42", "43"));
        // A colon in an id is not the one behind the source.
        assert!(!same("/ci", "a:42", "42") && !same("/ci", "a:42", "/ci:a:42") && !same("/ci", "a:42", "a:42"));
        assert!(same("/ci", "a:42", "/ci:a%3A42") && same("/ci", "a:42", "a%3A42"));
        assert!(same("/ci:a", "42", "/ci:a:42") && !same("/ci:a", "42", "a:42"));
    }
}

mod retried {
    use super::*;
    use crate::retry::Schedule;

    proptest! {
        #[test]
        fn waits_grow_to_the_ceiling_and_stay(
            first_ms in 0..1u64 << 40, ceiling_ms in 0..1u64 << 40, attempt in 0..u32::MAX, spread in -1.0..2.0f64,
        ) {
            let schedule = Schedule { first_ms, ceiling_ms, ..Schedule::default() };
            let wait = |n, spread| schedule.after_ms(n, FailureKind::Unavailable, spread);
            let now = wait(attempt, spread);
            let top = ceiling_ms.max(1) as i64;
            prop_assert!(now >= 1 && now <= top + top / 4 + 1, "{now}");
            prop_assert!(wait(attempt.saturating_add(1), 0.0) >= wait(attempt, 0.0));
            prop_assert!(wait(attempt, 0.0) <= now);
        }

        #[test]
        fn a_provider_is_believed_up_to_its_ceiling(after_ms: i64, spread in 0.0..1.0f64) {
            let schedule = Schedule::default();
            let now = schedule.after_ms(1, FailureKind::Throttled { after_ms: Some(after_ms) }, spread);
            prop_assert!(now >= after_ms.min(300_000) && now <= 375_000);
        }
    }
}

/// A key whose user may have become roles, of which the plan ends one.
fn with_roles(named: &[&str], whole: bool) -> (State, Observation) {
    let at = |act, place: Option<&str>| Step {
        optional: place.is_some(),
        place: place.map(str::to_owned),
        ..step(act, "aws")
    };
    let steps = vec![
        at(Act::Observe, None),
        at(Act::Disable, None),
        at(Act::Observe, Some(ROLES)),
        at(Act::RevokeDerived, Some("a")),
        at(Act::Prove, None),
    ];
    let records = [
        Record::Opened { directive: directive(None) },
        Record::Planned { no: 1, plan: Plan { steps, pivot: 4, undoes: false } },
        Record::Observed { step: 0, seen: seen(Presence::Present) },
    ];
    let role = |name: &&str| {
        let others = Others { count: 1, at_least: false };
        Role { name: (*name).to_owned(), lasts_ms: 1, by: Says::Role, others, denied_ms: None }
    };
    let derived = Derived { roles: named.iter().map(role).collect(), more: 0, whole };
    let looked = Observation { derived: Some(derived), ..seen(Presence::Present) };
    (State::fold(&records).unwrap(), looked)
}

fn disabled(state: State) -> State {
    let begun = Record::Started { step: 1, key: uuid::Uuid::nil(), attempt: 1 };
    state.next(&begun).unwrap().next(&Record::Succeeded { step: 1, output: Output::default() }).unwrap()
}

#[test]
fn only_a_role_that_the_user_may_have_become_is_cut_and_the_others_are_left() {
    let (state, looked) = with_roles(&["a", "b"], true);
    let state = disabled(state).next(&Record::Observed { step: 2, seen: looked }).unwrap();
    assert_eq!((state.todo(), &*state.residue), (Todo::Perform(3), &[Residue::Derived][..]), "`b` lives on");
    assert!(state.observed.iter().all(|(_, seen)| seen.derived.is_none()), "kept once");
    let begun = state.next(&Record::Started { step: 3, key: uuid::Uuid::nil(), attempt: 1 }).unwrap();
    assert_eq!(begun.todo(), Todo::Observe(0), "in doubt the key is looked at, not the whole list");
    let output = Output { done_ms: Some(7), ..Output::default() };
    let done = begun.next(&Record::Succeeded { step: 3, output }).unwrap();
    assert_eq!(done.derived.as_ref().unwrap().role("a").unwrap().denied_ms, Some(7));
    assert_eq!(done.todo(), Todo::Prove(4));
    // All that there is is cut.
    let (state, looked) = with_roles(&["a"], true);
    let state = disabled(state).next(&Record::Observed { step: 2, seen: looked }).unwrap();
    assert_eq!((state.todo(), &*state.residue), (Todo::Perform(3), &[][..]));
    // It may not become that one.
    let (state, looked) = with_roles(&["b"], false);
    let state = disabled(state).next(&Record::Observed { step: 2, seen: looked }).unwrap();
    assert_eq!((state.todo(), &*state.residue), (Todo::Skip(3), &[Residue::Derived, Residue::DerivedUnknown][..]));
}

#[test]
fn roles_that_could_not_be_looked_at_are_not_cut_and_keep_nothing_waiting() {
    let (state, _) = with_roles(&[], true);
    let skipped = Record::Skipped { step: 2, residue: Some(Residue::DerivedUnknown) };
    assert!(state.clone().next(&skipped).is_err(), "not before its turn");
    assert!(
        state.clone().next(&Record::Skipped { step: 0, residue: None }).is_err(),
        "the look at the key is none of these"
    );
    let state = disabled(state).next(&skipped).unwrap();
    assert_eq!((state.todo(), &*state.residue, &state.derived), (Todo::Skip(3), &[Residue::DerivedUnknown][..], &None));
}

#[test]
fn a_look_ahead_changes_nothing_but_what_is_known() {
    let (state, looked) = with_roles(&["a", "b"], false);
    let ahead = state.clone().next(&Record::Observed { step: 2, seen: looked }).unwrap();
    assert_eq!((ahead.todo(), ahead.step, &*ahead.residue), (state.todo(), state.step, &[][..]));
    assert_eq!(ahead.derived.as_ref().unwrap().roles.len(), 2);
    assert_eq!(disabled(ahead).todo(), Todo::Observe(2), "in its turn it is looked at again");
}

/// One agent's turn says nothing of the next one's, nor of what they share; and between two a freeze may stop it.
#[test]
fn each_agent_of_a_split_has_a_turn_of_its_own() {
    let mut state = State::opened(&directive(None));
    let seen_as = |user: &str, version| Observation {
        presence: Presence::Present,
        current: Some(Generation { version, user: Some(user.into()) }),
        ..Observation::default()
    };
    let done = |step, version| {
        let current = Some(Generation { version, user: None });
        Record::Succeeded { step, output: Output { current, done_ms: Some(7), ..Output::default() } }
    };
    let starts = |step| Record::Started { step, key: uuid::Uuid::nil(), attempt: 1 };
    let mut records = vec![
        Record::Planned { no: 1, plan: plan(6, false) },
        Record::Observed { step: 0, seen: seen(Presence::Present) },
        Record::Observed { step: 1, seen: seen_as("agents", 4) },
    ];
    for step in 2..10 {
        match step {
            3 => records.push(Record::Observed { step, seen: seen(Presence::Present) }),
            6 | 8 => records.push(Record::Passed { step, cut_ms: None }),
            _ => records.extend([starts(step), done(step, 5)]),
        }
    }
    for (at, record) in records.into_iter().enumerate() {
        state = state.next(&record).unwrap_or_else(|illegal| panic!("{at}: {illegal}"));
        if state.step == 8 {
            assert!(
                state.awaits("billing", 5, true) && !state.awaits("web", 5, true) && !state.awaits("web", 5, false)
            );
            assert_eq!(state.own_turn(), &crate::case::turn::Turn::default(), "nothing of it is the shared value's");
            assert!(!state.is_between_agents());
        }
        if state.step == 2 {
            assert_eq!(state.is_between_agents(), !state.in_doubt);
        }
    }
    assert_eq!((state.step, state.turn.new.as_ref(), state.turn.old.as_ref()), (10, None, None), "the next one's turn");
    assert_eq!(state.turn.promoted_ms, Some(7), "since then whoever is left has time");
    // Who reads its own user's value is not moved again.
    state = state.next(&Record::Observed { step: 10, seen: seen_as("b", 9) }).unwrap();
    assert_eq!(state.todo(), Todo::Skip(11));
}

/// Whom a split has moved is remembered over its plans, with what that one has not; who goes back is not one of them.
#[test]
fn whom_a_split_moved_is_remembered_and_what_it_shared_is_not_called_dead() {
    let starts = |step| Record::Started { step, key: uuid::Uuid::nil(), attempt: 1 };
    let done = |step, withheld| {
        let current = Some(Generation { version: 2, user: None });
        Record::Succeeded { step, output: Output { current, withheld, ..Output::default() } }
    };
    let reads = Observation {
        presence: Presence::Present,
        current: Some(Generation { version: 4, user: Some("agents".into()) }),
        ..Observation::default()
    };
    let mut moves = plan(6, false);
    moves.steps.truncate(10);
    moves.steps.push(step(Act::Prove, "scope"));
    moves.pivot = moves.steps.len() - 1;
    let mut state = State::opened(&directive(None));
    for record in [
        Record::Planned { no: 1, plan: moves },
        Record::Observed { step: 0, seen: seen(Presence::Present) },
        Record::Observed { step: 1, seen: reads },
        starts(2),
        done(2, 3),
        Record::Observed { step: 3, seen: seen(Presence::Present) },
        starts(4),
        done(4, 0),
        starts(5),
        done(5, 0),
        Record::Passed { step: 6, cut_ms: None },
        starts(7),
        done(7, 0),
    ] {
        state = state.next(&record).unwrap();
        assert!(!state.may_be_dead(), "the others work on with it: {record:?}");
    }
    let moved: Vec<(&str, u32)> = state.moved.iter().map(|one| (one.agent.as_str(), one.withheld)).collect();
    assert_eq!(moved, [("billing", 3)]);
    let again = state.clone().next(&Record::Superseded { by: directive(None) }).unwrap();
    assert_eq!(again.moved, state.moved);
    // It cannot work with it, and reads what it shared again.
    let mut back = state.next(&answered(true)).unwrap();
    assert!(back.is_spent());
    let agent = Some(Agent { name: "billing".into(), user: "a".into() });
    let undoes = [(Act::Revert, "kv"), (Act::Restore, "pg"), (Act::Discard, "kv")];
    let steps = undoes.map(|(act, system)| Step { agent: agent.clone(), ..step(act, system) }).to_vec();
    for record in [Record::Planned { no: 2, plan: Plan { steps, pivot: 0, undoes: true } }, starts(0), done(0, 0)] {
        back = back.next(&record).unwrap();
    }
    assert_eq!(back.moved, []);
}

/// A fence within a revocation: what there was is recorded once, survives a kill, and is known by another name than the value.
#[test]
fn what_a_fence_takes_is_what_there_was_before_it() {
    use crate::scope::{Held, Permission, Scope};
    let optional = |act, system| Step { optional: true, ..step(act, system) };
    let plan = Plan {
        steps: vec![
            step(Act::Observe, "role"),
            optional(Act::Observe, "fence"),
            optional(Act::Fence, "fence"),
            step(Act::Revoke, "role"),
            step(Act::Prove, "role"),
        ],
        pivot: 3,
        undoes: false,
    };
    let held = vec![Held { permission: Permission::parse("fence:token_bound_cidrs").unwrap(), how: "before".into() }];
    let look = |held: &[Held], id: &str| Observation {
        principal_id: Some(id.to_owned()),
        scope: Some(Scope { held: held.to_vec(), ..Scope::default() }),
        ..seen(Presence::Present)
    };
    let start = |step| Record::Started { step, key: uuid::Uuid::nil(), attempt: 1 };
    let next = |state: State, record: &Record| state.next(record).unwrap();
    let mut state = next(State::opened(&directive(None)), &Record::Planned { no: 1, plan });
    let value = Observation { principal_id: Some("accessor".into()), ..seen(Presence::Present) };
    state = next(state, &Record::Observed { step: 0, seen: value });
    state = next(state, &Record::Observed { step: 1, seen: look(&held, "digest") });
    assert_eq!(state.principal_id.as_deref(), Some("accessor"), "the value is still known by its own name");
    assert_eq!(state.todo(), Todo::Perform(2));
    let started = next(state.clone(), &start(2));
    assert_eq!(started.cutting.fenced(), held, "it may stand from now on");
    // Killed in the midst: it is looked at, and our own fence is not what there was.
    assert_eq!(started.todo(), Todo::Observe(1));
    let looked = next(started.clone(), &Record::Observed { step: 1, seen: look(&[], "digest") });
    assert_eq!((looked.todo(), looked.cutting.fenced()), (Todo::Skip(2), held.clone()));
    let skipped = next(looked, &Record::Skipped { step: 2, residue: None });
    assert_eq!((skipped.todo(), skipped.cutting.taken.clone()), (Todo::Perform(3), held.clone()));
    // A look that never comes leaves it as it may be.
    let left = next(started, &Record::Skipped { step: 2, residue: Some(Residue::NotFenced) });
    assert_eq!((left.todo(), left.cutting.missing()), (Todo::Perform(3), held.clone()));
    // A plan made again finds it standing, and forgets nothing.
    let by = Directive { urgency: Urgency::Urgent, ..directive(None) };
    let again = next(skipped, &Record::Superseded { by });
    assert_eq!((again.cutting.fenced(), again.cutting.before.clone()), (held, None));
    assert!(!again.may_be_dead(), "a fence is no death");
}

/// A containment of what a rollover had promoted: who had the value before it has another one now.
#[test]
fn sessions_are_ended_again_once_somebody_was_given_a_value() {
    let acts = [
        (Act::Observe, "pg"),
        (Act::Disable, "pg"),
        (Act::EndSessions, "pg"),
        (Act::EndSessions, "pg"),
        (Act::Create, "kv"),
        (Act::Set, "pg"),
        (Act::Test, "pg"),
        (Act::Promote, "kv"),
        (Act::EndSessions, "pg"),
        (Act::Prove, "pg"),
    ];
    let steps: Vec<Step> = acts.iter().map(|(act, system)| step(*act, system)).collect();
    let plan = Plan { pivot: steps.len() - 1, steps, undoes: false };
    let mut state = State::opened(&directive(None)).next(&Record::Planned { no: 1, plan }).unwrap();
    state = state.next(&Record::Observed { step: 0, seen: seen(Presence::Present) }).unwrap();
    for step in 1..8 {
        let records = match (step, state.todo()) {
            (3, Todo::Skip(3)) => vec![Record::Skipped { step, residue: None }],
            (6, _) => vec![Record::Passed { step, cut_ms: None }],
            (3, todo) => panic!("ended already, and nobody could come: {todo:?}"),
            _ => vec![
                Record::Started { step, key: uuid::Uuid::nil(), attempt: 1 },
                Record::Succeeded { step, output: Output::default() },
            ],
        };
        for record in records {
            state = state.next(&record).unwrap();
        }
    }
    assert_eq!(state.todo(), Todo::Perform(8));
}

#[test]
fn another_plan_takes_the_place_of_one_whose_credential_was_never_there_until_something_was_done() {
    let planned = |no, shape| Record::Planned { no, plan: plan(shape, false) };
    let next = |state: &State, record: &Record| state.clone().next(record);
    let first = next(&State::opened(&directive(None)), &planned(1, 0)).unwrap();
    assert!(next(&first, &planned(2, 1)).is_err(), "nobody has looked");
    let here = next(&first, &Record::Observed { step: 0, seen: seen(Presence::Present) }).unwrap();
    assert!(next(&here, &planned(2, 1)).is_err(), "it is there");
    let gone = next(&first, &Record::Observed { step: 0, seen: seen(Presence::Gone) }).unwrap();
    let again = next(&gone, &planned(2, 1)).unwrap();
    assert_eq!((again.plan_no, again.step, again.observed.len()), (2, 0, 0));
    let gone = next(&gone, &Record::Observed { step: 1, seen: seen(Presence::Present) }).unwrap();
    let begun = next(&gone, &Record::Started { step: 2, key: uuid::Uuid::nil(), attempt: 1 }).unwrap();
    assert!(next(&begun, &planned(2, 1)).is_err(), "something was done");
}
