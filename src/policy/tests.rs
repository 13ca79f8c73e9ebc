mod findings;
mod kubernetes;
mod leaving;
mod moving;
mod parts;
mod reductions;
mod schedulers;
mod unbound;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::case::{Action, Urgency};
use crate::credential::Kind;
use crate::event::{
    Coordinates, CredentialRegistered, FindingObserved, GrantRegistered, GrantReleased, TaskEnded, TaskExtended,
};
use crate::event::{TaskHeartbeat, TaskStarted, Type};
use crate::task::{GrantPhase, Phase as Life, Tenure};

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_800_000_000_000;

fn run(name: &str) -> RunKey {
    RunKey::new("/ci", name)
}

fn lease(name: &str) -> CredentialId {
    CredentialId::new(Kind::VaultLease, "prod", &format!("database/creds/ro/{name}")).unwrap()
}

fn spec(name: &str, tenure: Tenure) -> GrantSpec {
    GrantSpec { credential: lease(name), tenure, principal: Some("v-ro".into()), expires_ms: None }
}

fn minted(name: &str) -> GrantSpec {
    spec(name, Tenure::Minted)
}

fn event(broker_ms: i64, data: Data) -> Event {
    Event {
        at: Coordinates { cluster: "k".into(), topic: "curfew.tasks".into(), partition: 0, offset: 0 },
        tenant: Arc::from("acme"),
        source: "/ci".into(),
        id: "1".into(),
        kind: Type::TaskStarted,
        broker_ms,
        digest: [0; 16],
        traceparent: None,
        data,
    }
}

fn start(name: &str, attempt: u32, grants: Vec<GrantSpec>) -> Data {
    Data::TaskStarted(TaskStarted {
        boundary: None,
        run: run(name),
        within: None,
        attempt,
        task: None,
        identity: None,
        started_ms: None,
        deadline_ms: None,
        heartbeat_every_ms: None,
        grants,
    })
}

fn end(name: &str, attempt: u32) -> Data {
    ended(name, attempt, None, None)
}

fn ended(name: &str, attempt: u32, ended_ms: Option<i64>, continued_as: Option<&str>) -> Data {
    Data::TaskEnded(TaskEnded {
        run: run(name),
        attempt,
        task: None,
        identity: None,
        ended_ms,
        outcome: Some("success".into()),
        grants: Vec::new(),
        continued_as: continued_as.map(run),
    })
}

fn grant(name: &str, attempt: Option<u32>, grant: GrantSpec) -> Data {
    Data::GrantRegistered(GrantRegistered { run: run(name), attempt, identity: None, grant })
}

fn release(name: &str, credential: &str) -> Data {
    Data::GrantReleased(GrantReleased { run: run(name), credential: lease(credential) })
}

fn extend(name: &str, deadline_ms: i64) -> Data {
    Data::TaskExtended(TaskExtended { run: run(name), deadline_ms })
}

fn beat(name: &str) -> Data {
    Data::TaskHeartbeat(TaskHeartbeat { run: run(name) })
}

/// A journal in small: a view that lives on, and everything that was asked for.
#[derive(Default)]
struct World {
    view: View,
    rules: Rules,
    now_ms: i64,
    asked: Vec<Directive>,
}

impl World {
    fn new() -> Self {
        Self { now_ms: NOW, ..Self::default() }
    }

    fn tell(&mut self, data: Data) -> Decision {
        self.now_ms = self.now_ms.saturating_add(1_000);
        self.take(&event(self.now_ms, data))
    }

    fn take(&mut self, event: &Event) -> Decision {
        let decision = decide(event, &self.view, &self.rules);
        assert!(decision.facts.to_string().len() <= 2_048, "facts are bounded");
        let ids: BTreeSet<_> = decision.directives.iter().map(|d| &d.credential).collect();
        assert_eq!(ids.len(), decision.directives.len(), "one directive for each credential");
        self.view.apply(&decision.changes);
        self.asked.extend(decision.directives.clone());
        decision
    }

    fn cut(&self) -> BTreeSet<CredentialId> {
        self.asked
            .iter()
            .filter(|d| d.action == Action::Revoke && d.held.is_none())
            .map(|d| d.credential.clone())
            .collect()
    }

    fn task(&self, name: &str) -> &Task {
        &self.view.tasks[&run(name)]
    }

    fn phase(&self, name: &str, credential: &str) -> GrantPhase {
        self.view.grants[&(run(name), lease(credential))].phase
    }
}

#[test]
fn an_end_cuts_what_was_minted_and_releases_what_stands() {
    let mut world = World::new();
    let exclusive = spec("c", Tenure::Exclusive);
    world.tell(start("a", 1, vec![minted("a"), spec("b", Tenure::Standing), exclusive]));
    let decision = world.tell(ended("a", 1, Some(NOW + 1_500), None));
    assert_eq!((decision.verb, decision.reason), (Verb::Revoke, Reason::TaskEnded));
    assert_eq!(world.cut(), BTreeSet::from([lease("a"), lease("c")]));
    assert_eq!(world.phase("a", "b"), GrantPhase::Released);
    let directive = &decision.directives[0];
    assert_eq!((directive.trigger, directive.urgency), (Trigger::TaskEnd, Urgency::Prompt));
    assert_eq!((directive.end_ms, directive.broker_ms), (Some(NOW + 1_500), NOW + 2_000));
    assert_eq!(directive.topic, "curfew.tasks");
    let again = world.tell(end("a", 1));
    assert_eq!((again.verb, again.reason, again.directives.len()), (Verb::Ignore, Reason::AlreadyEnded, 0));
}

#[test]
fn an_end_with_an_absurd_time_counts_from_broker_time() {
    for absurd in [i64::MIN, 0, NOW + 400 * HOUR, i64::MAX] {
        let mut world = World::new();
        world.tell(start("a", 1, vec![minted("a")]));
        assert_eq!(world.tell(ended("a", 1, Some(absurd), None)).directives[0].end_ms, Some(world.now_ms));
    }
}

#[test]
fn an_end_before_its_start_makes_the_late_start_revoke_at_once() {
    let mut world = World::new();
    assert_eq!(world.tell(end("a", 1)).reason, Reason::NothingHeld);
    let late = world.tell(start("a", 1, vec![minted("a")]));
    assert_eq!((late.verb, late.reason), (Verb::Revoke, Reason::EndedBefore));
    assert_eq!(late.directives[0].trigger, Trigger::LateStart);
    assert_eq!(world.task("a").phase, Life::Ended);
    assert_eq!(world.tell(grant("a", None, minted("b"))).directives.len(), 1);
    // A duplicate under another id cuts nothing again.
    assert_eq!(world.tell(start("a", 1, vec![minted("a")])).directives.len(), 0);
}

#[test]
fn a_shared_credential_dies_with_its_last_holder() {
    let mut world = World::new();
    world.tell(start("a", 1, vec![minted("x")]));
    world.tell(start("b", 1, vec![spec("x", Tenure::Standing)]));
    let first = world.tell(end("a", 1));
    assert_eq!((first.verb, first.reason), (Verb::Track, Reason::SharedByLiveTask));
    assert!(first.facts["shared"]["by"][0].as_str().unwrap().ends_with(":b"));
    let last = world.tell(end("b", 1));
    assert_eq!(last.directives.len(), 1, "someone who ended had minted it");
}

#[test]
fn an_older_attempt_does_not_end_a_newer_one() {
    let mut world = World::new();
    world.tell(start("a", 1, vec![minted("one")]));
    world.tell(start("a", 2, vec![minted("two")]));
    let decision = world.tell(end("a", 1));
    assert_eq!(decision.reason, Reason::OlderAttempt);
    assert_eq!(world.cut(), BTreeSet::from([lease("one")]));
    assert_eq!((world.task("a").phase, world.task("a").attempt), (Life::Running, 2));
    world.tell(end("a", 2));
    assert_eq!(world.cut().len(), 2);
    // A retry runs again.
    world.tell(start("a", 3, vec![minted("three")]));
    assert_eq!(world.task("a").phase, Life::Running);
    assert_eq!(world.cut().len(), 2);
}

#[test]
fn a_grant_for_an_attempt_to_come_waits_and_still_has_a_deadline() {
    for early in [false, true] {
        let mut world = World::new();
        world.tell(start("a", 1, vec![]));
        let next = || grant("a", Some(2), minted("two"));
        if early {
            world.tell(next());
        }
        world.tell(end("a", 1));
        if !early {
            world.tell(next());
        }
        assert!(world.cut().is_empty());
        assert_eq!((world.task("a").phase, world.task("a").attempt), (Life::Expected, 2));
        let deadline_ms = world.task("a").deadline_ms;
        world.now_ms = deadline_ms;
        world.tell(Data::DeadlinePassed { run: run("a"), deadline_ms });
        assert_eq!(world.cut().len(), 1);
    }
}

#[test]
fn a_run_that_continues_hands_over_and_cuts_nothing() {
    for known in [false, true] {
        let mut world = World::new();
        world.tell(start("a", 1, vec![minted("x")]));
        if known {
            world.tell(start("b", 1, vec![]));
        }
        let decision = world.tell(ended("a", 1, None, Some("b")));
        assert_eq!((decision.reason, decision.directives.len()), (Reason::Continued, 0));
        assert_eq!(world.task("b").phase, if known { Life::Running } else { Life::Expected });
        // What comes late for the old key belongs to the new one.
        assert!(world.tell(grant("a", Some(1), minted("y"))).directives.is_empty());
        world.tell(end("b", 1));
        assert_eq!(world.cut(), BTreeSet::from([lease("x"), lease("y")]));
    }
}

#[test]
fn deadlines_are_clamped_and_the_clamp_is_recorded() {
    let mut world = World::new();
    let mut far = start("a", 1, vec![]);
    if let Data::TaskStarted(it) = &mut far {
        it.deadline_ms = Some(i64::MAX);
    }
    let decision = world.tell(far);
    assert_eq!(world.task("a").deadline_ms, NOW + 1_000 + 24 * HOUR);
    assert_eq!(world.task("a").clamped_from_ms, Some(i64::MAX));
    assert_eq!(decision.facts["clamped_from_ms"], i64::MAX);
    // A deadline before the start is a wrong clock, no wish to die at once.
    let mut past = start("b", 1, vec![]);
    if let Data::TaskStarted(it) = &mut past {
        it.deadline_ms = Some(0);
    }
    world.tell(past);
    assert_eq!(world.task("b").deadline_ms, NOW + 2_000 + 24 * HOUR);
}

#[test]
fn an_extension_counts_also_when_it_overtakes_the_start() {
    for early in [false, true] {
        let mut world = World::new();
        let mut begin = start("a", 1, vec![]);
        if let Data::TaskStarted(it) = &mut begin {
            it.deadline_ms = Some(NOW + HOUR);
        }
        let mut order = vec![begin, extend("a", NOW + 3 * HOUR), extend("a", NOW + 2 * HOUR)];
        if early {
            order.rotate_left(1);
        }
        order.into_iter().for_each(|data| drop(world.tell(data)));
        assert_eq!(world.task("a").deadline_ms, NOW + 3 * HOUR, "early: {early}");
    }
}

#[test]
fn a_deadline_fires_only_for_the_newest_one() {
    let mut world = World::new();
    world.tell(start("a", 1, vec![minted("x")]));
    world.tell(extend("a", NOW + HOUR));
    world.tell(extend("a", NOW + 2 * HOUR));
    world.now_ms = NOW + 3 * HOUR;
    let old = world.tell(Data::DeadlinePassed { run: run("a"), deadline_ms: NOW + HOUR });
    assert_eq!((old.verb, old.reason), (Verb::Ignore, Reason::Outdated));
    let decision = world.tell(Data::DeadlinePassed { run: run("a"), deadline_ms: NOW + 2 * HOUR });
    assert_eq!(decision.directives[0].end_ms, Some(NOW + 2 * HOUR));
    assert_eq!(decision.directives[0].trigger, Trigger::Deadline);
    assert_eq!(world.task("a").outcome.as_deref(), Some("lost"));
}

#[test]
fn a_heartbeat_in_time_makes_the_silence_void() {
    let mut world = World::new();
    let mut begin = start("a", 1, vec![minted("x")]);
    if let Data::TaskStarted(it) = &mut begin {
        it.heartbeat_every_ms = Some(10_000);
    }
    world.tell(begin);
    let since = world.now_ms;
    world.now_ms += 60_000;
    world.tell(beat("a"));
    let silence = |last_beat_ms| Data::HeartbeatMissed { run: run("a"), last_beat_ms };
    assert_eq!(world.tell(silence(since)).reason, Reason::Outdated);
    let since = world.task("a").last_beat_ms.unwrap();
    assert_eq!(world.tell(silence(since)).reason, Reason::Outdated, "not silent for long enough");
    world.now_ms += 60_000;
    assert_eq!(world.tell(silence(since)).directives[0].end_ms, Some(since));
}

#[test]
fn what_its_only_holder_gives_back_dies() {
    let mut world = World::new();
    world.tell(start("a", 1, vec![minted("x"), minted("y"), spec("z", Tenure::Standing)]));
    world.tell(start("b", 1, vec![minted("y")]));
    assert_eq!(world.tell(release("a", "x")).verb, Verb::Revoke);
    assert_eq!(world.tell(release("a", "y")).reason, Reason::SharedByLiveTask);
    assert_eq!(world.tell(release("a", "z")).directives.len(), 0);
    assert_eq!(world.tell(release("a", "unknown")).verb, Verb::Ignore);
}

#[test]
fn an_inventory_s_word_makes_a_credential_known_and_asks_nothing() {
    let mut world = World::new();
    let registered = Data::CredentialRegistered(CredentialRegistered {
        credential: lease("x"),
        fingerprints: Vec::new(),
        version: None,
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    });
    let noted = world.tell(registered);
    assert_eq!((noted.verb, noted.reason, noted.directives.len()), (Verb::Track, Reason::Noted, 0));
    assert!(matches!(&noted.changes[..], [Change::Credential(known)] if known.id == lease("x")));
}

#[test]
fn reconcile_cuts_only_what_is_over_or_exclusive() {
    let found = |name: &str, run, exclusive| Data::ReconcileFound { credential: lease(name), run, exclusive };
    let mut world = World::new();
    world.tell(start("a", 1, vec![minted("x")]));
    assert_eq!(world.tell(found("x", None, true)).reason, Reason::Expected, "a live task holds it");
    let held = world.tell(found("u", None, false));
    assert_eq!(held.directives[0].held, Some(HoldReason::Unregistered));
    assert_eq!(world.tell(found("v", None, true)).verb, Verb::Revoke);
    assert_eq!(world.tell(found("w", Some(run("a")), false)).directives.len(), 0);
    world.tell(end("a", 1));
    assert!(world.cut().contains(&lease("w")), "registered by the issuer's own word");
    assert_eq!(world.tell(found("n", Some(run("a")), false)).verb, Verb::Revoke);
    assert_eq!(world.tell(found("x", None, false)).directives[0].trigger, Trigger::Reconcile);
}

/// P7: what Curfew notices later is no more than the word of those who registered the grant.
#[test]
fn an_own_event_names_the_topics_that_registered_what_it_cuts() {
    let mut world = World::new();
    let from = |world: &mut World, topic: &str, data: Data| {
        world.now_ms += 1_000;
        let kind = data.kind();
        let at = Coordinates { topic: topic.into(), ..event(0, beat("x")).at };
        let decision = decide(&Event { at, kind, ..event(world.now_ms, data) }, &world.view, &world.rules);
        world.view.apply(&decision.changes);
        decision
    };
    from(&mut world, "weak", start("a", 1, vec![minted("x"), minted("y")]));
    from(&mut world, "strong", grant("a", None, minted("y")));
    from(&mut world, "other", grant("b", None, spec("x", Tenure::Standing)));
    from(&mut world, "other", end("b", 1));
    // It goes on under another key: who registered it stays the same.
    from(&mut world, "other", ended("a", 1, None, Some("c")));
    let deadline_ms = world.task("c").deadline_ms;
    world.now_ms = deadline_ms;
    let passed = Data::DeadlinePassed { run: run("c"), deadline_ms };
    let asked = from(&mut world, "curfew", passed).directives;
    let grantors = |name: &str| {
        let directive = asked.iter().find(|d| d.credential == lease(name)).expect("it is cut");
        directive.asked_by().collect::<BTreeSet<_>>()
    };
    assert_eq!(grantors("x"), BTreeSet::from(["weak"]), "not the one who said that it stands");
    assert_eq!(grantors("y"), BTreeSet::from(["weak", "strong"]));
    let found = Data::ReconcileFound { credential: lease("x"), run: None, exclusive: true };
    assert_eq!(from(&mut world, "curfew", found).directives[0].grantors, ["weak"]);
    // Nobody's word: the prefix was declared exclusive, or an operator says so.
    let stray = Data::ReconcileFound { credential: lease("s"), run: None, exclusive: true };
    assert_eq!(from(&mut world, "curfew", stray).directives[0].asked_by().collect::<Vec<_>>(), ["curfew"]);
    let operator = Data::OperatorRevoke { credential: lease("x"), by: "me".into(), reason: "r".into() };
    assert_eq!(from(&mut world, "curfew", operator).directives[0].asked_by().collect::<Vec<_>>(), ["curfew"]);
}

mod meetings {
    use super::*;
    use crate::case::state::State;

    fn directive(action: Action, trigger: Trigger, held: Option<HoldReason>, topic: &str) -> Directive {
        Directive {
            credential: lease("x"),
            action,
            trigger,
            urgency: Urgency::Prompt,
            held,
            run: Some(run("a")),
            end_ms: None,
            broker_ms: NOW,
            topic: topic.into(),
            grantors: Vec::new(),
            finding: None,
            generation: None,
            not_before_ms: None,
            cut: None,
        }
    }

    fn case(directive: Directive, phase: Phase) -> Case {
        let mut state = State::opened(&directive);
        state.phase = phase;
        Case {
            id: uuid::Uuid::nil(),
            tenant: "t".into(),
            directive,
            system: "s".into(),
            lane: "l".into(),
            principal: None,
            seen_ms: None,
            opened_ms: 0,
            traceparent: None,
            seq: 1,
            blast: None,
            charged: false,
            state,
        }
    }

    #[test]
    fn what_waits_for_a_directive_is_taken_over_and_the_rest_is_joined() {
        use HoldReason as H;
        let revoke = |trigger, topic| directive(Action::Revoke, trigger, None, topic);
        let end = revoke(Trigger::TaskEnd, "t");
        let held = |reason, trigger| case(revoke(trigger, "t"), Phase::Held { reason });
        let noticed = |by: &[&str]| Directive {
            grantors: by.iter().map(|topic| (*topic).to_owned()).collect(),
            ..revoke(Trigger::Deadline, "curfew")
        };
        let table = [
            (held(H::Unregistered, Trigger::Reconcile), end.clone(), Meeting::Supersede),
            (held(H::Finding, Trigger::Finding), end.clone(), Meeting::Supersede),
            (held(H::Authority, Trigger::TaskEnd), end.clone(), Meeting::Join),
            (held(H::Authority, Trigger::TaskEnd), revoke(Trigger::TaskEnd, "u"), Meeting::Supersede),
            (held(H::Authority, Trigger::TaskEnd), noticed(&["t"]), Meeting::Join),
            (held(H::Authority, Trigger::TaskEnd), noticed(&["t", "u"]), Meeting::Supersede),
            (held(H::OtherTask, Trigger::TaskEnd), end.clone(), Meeting::Join),
            (held(H::Clock, Trigger::Deadline), end.clone(), Meeting::Supersede),
            (held(H::Clock, Trigger::Deadline), revoke(Trigger::Heartbeat, "t"), Meeting::Join),
            (held(H::Frozen, Trigger::TaskEnd), revoke(Trigger::Operator, "u"), Meeting::Join),
            (held(H::Observe, Trigger::TaskEnd), revoke(Trigger::Operator, "u"), Meeting::Join),
            (held(H::Cap, Trigger::TaskEnd), end.clone(), Meeting::Join),
            (case(end.clone(), Phase::Open), revoke(Trigger::TaskEnd, "u"), Meeting::Join),
            (case(end.clone(), Phase::Abandoned), end.clone(), Meeting::Join),
            (case(end.clone(), Phase::Abandoned), revoke(Trigger::Operator, "u"), Meeting::Supersede),
        ];
        for (open, directive, expected) in table {
            assert_eq!(meet(&open, &directive), expected, "{:?} meets {directive:?}", open.state.phase);
        }
        let track = directive(Action::Track, Trigger::Finding, Some(H::Finding), "f");
        assert_eq!(meet(&case(end.clone(), Phase::Open), &track), Meeting::Join, "never a downgrade");
        assert_eq!(meet(&case(track, Phase::Held { reason: H::Finding }), &end), Meeting::Supersede);
    }
}

// ---- any order, any time ----

fn permuted<T: Clone + std::fmt::Debug>(items: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    Just(items).prop_shuffle()
}

/// Two runs of one attempt each and one of two attempts, with their grants, some said twice.
fn life() -> Vec<Data> {
    vec![
        start("a", 1, vec![minted("a1"), spec("a2", Tenure::Standing)]),
        grant("a", Some(1), minted("a3")),
        end("a", 1),
        end("a", 1),
        start("b", 1, vec![minted("b1")]),
        beat("b"),
        start("c", 1, vec![minted("c1")]),
        end("c", 1),
        start("c", 2, vec![minted("c2")]),
        grant("c", Some(2), minted("c3")),
    ]
}

fn any_data() -> impl Strategy<Value = Data> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let id = prop::sample::select(vec!["p", "q", "r", "s"]);
    let tenure = prop::sample::select(vec![Tenure::Minted, Tenure::Exclusive, Tenure::Standing]);
    let time = prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), NOW - 100 * HOUR..NOW + 100 * HOUR, any::<i64>(),];
    (0..11u8, name.clone(), name, id, tenure, time, 0..4u32, any::<bool>()).prop_map(
        |(kind, name, other, id, tenure, time, attempt, flag)| {
            let spec = spec(id, tenure);
            match kind {
                0 | 1 => Data::TaskStarted(TaskStarted {
                    boundary: None,
                    run: run(name),
                    within: (attempt == 2).then(|| run(other)),
                    attempt,
                    task: None,
                    identity: None,
                    started_ms: flag.then_some(time),
                    deadline_ms: Some(time),
                    heartbeat_every_ms: Some(time),
                    grants: vec![spec],
                }),
                2 => ended(name, attempt, Some(time), flag.then_some(other)),
                3 => ended(name, attempt, Some(time), None),
                4 => grant(name, flag.then_some(attempt), spec),
                5 => release(name, id),
                6 => extend(name, time),
                7 => beat(name),
                8 => Data::DeadlinePassed { run: run(name), deadline_ms: time },
                9 => Data::HeartbeatMissed { run: run(name), last_beat_ms: time },
                _ => Data::ReconcileFound { credential: lease(id), run: flag.then(|| run(other)), exclusive: false },
            }
        },
    )
}

proptest! {
    #[test]
    fn the_order_of_arrival_does_not_decide_what_is_cut(order in permuted(life())) {
        let mut world = World::new();
        for data in order {
            world.tell(data);
        }
        prop_assert_eq!(world.cut(), BTreeSet::from([lease("a1"), lease("a3"), lease("c1")]));
        prop_assert_eq!(world.task("a").phase, Life::Ended);
        prop_assert_eq!(world.task("b").phase, Life::Running);
        prop_assert_eq!((world.task("c").phase, world.task("c").attempt), (Life::Running, 2));
        for held in ["c2", "c3"] {
            prop_assert_eq!(world.phase("c", held), GrantPhase::Held);
        }
    }

    #[test]
    fn whatever_comes_the_promises_hold(
        events in prop::collection::vec((any_data(), prop_oneof![Just(0), 0..30 * HOUR, Just(i64::MAX / 2)]), 1..40),
        longest in prop_oneof![Just(24 * HOUR), Just(i64::MAX), Just(0), Just(i64::MIN)],
    ) {
        let mut world = World::new();
        world.rules.longest_life_ms = longest;
        for (data, wait_ms) in events {
            world.now_ms = world.now_ms.saturating_add(wait_ms);
            let before: Vec<Grant> = world.view.grants.values().cloned().collect();
            let live = |world: &World, grant: &Grant| world.view.tasks[&grant.run].phase != Life::Ended;
            let living: Vec<(Grant, u32)> = before
                .into_iter()
                .filter(|grant| grant.phase == GrantPhase::Held && live(&world, grant))
                .map(|grant| { let attempt = world.view.tasks[&grant.run].attempt; (grant, attempt) })
                .collect();
            let decision = world.tell(data.clone());
            for directive in decision.directives.iter().filter(|d| d.held.is_none()) {
                let holders = world.view.holders.get(&directive.credential).into_iter().flatten();
                let grants: Vec<&Grant> =
                    holders.map(|run| &world.view.grants[&(run.clone(), directive.credential.clone())]).collect();
                prop_assert!(grants.iter().any(|grant| grant.tenure != Tenure::Standing), "a standing one was cut");
                // Nobody alive holds what is cut.
                for grant in &grants {
                    prop_assert!(grant.phase != GrantPhase::Held || !live(&world, grant), "{data:?} cut {grant:?}");
                }
                // Who held it alive before is who the event was about.
                let (named, _) = keys(&decision_event(&data));
                for (grant, attempt) in living.iter().filter(|(g, _)| g.credential == directive.credential) {
                    let own = Some(&grant.run) == named.as_ref();
                    prop_assert!(own, "{data:?} cut {grant:?} of attempt {attempt}");
                }
            }
            for task in world.view.tasks.values() {
                let base = task.started_ms.unwrap_or(task.first_seen_ms);
                prop_assert!(task.deadline_ms <= base.saturating_add(longest.max(0)) , "{task:?}");
            }
            // What is held by a run that is over was settled: nothing lives on unwatched.
            for grant in world.view.grants.values().filter(|grant| grant.phase == GrantPhase::Held) {
                let watched = world.view.tasks.get(&grant.run).is_some_and(|task| task.phase != Life::Ended);
                prop_assert!(watched, "nobody watches over {grant:?}");
            }
        }
    }
}

fn decision_event(data: &Data) -> Event {
    event(NOW, data.clone())
}
