use std::sync::Arc;

use maud::Markup;

use super::facts::{Board, Found, Listed, Overruns, System};
use super::{Seen, View, next, page, words};
use crate::case::plan::{Act, Plan, Step};
use crate::case::record::{
    Answer, FailureKind, KilledBy, Level, Observation, Output, Presence, Record, Residue, Sighting, Verdict,
};
use crate::case::state::State;
use crate::case::{Action, Case, CaseId, Directive, HoldReason, Trigger, Urgency};
use crate::credential::{CredentialId, Kind};
use crate::guard::{Freeze, Mode};
use crate::journal::shown::{Death, Deaths, Excerpt, Group, Held, Holder, Place, Watched};
use crate::journal::{CaseLine, EventLine, Holding, Stats};
use crate::ops::freeze_file::Note;
use crate::probe;
use crate::task::{Grant, GrantPhase, Phase, RunKey, Task, Tenure};

const NOW: i64 = 1_800_000_000_000;

fn credential(name: &str) -> CredentialId {
    CredentialId::new(Kind::VaultLease, "prod", name).unwrap()
}

fn directive(name: &str) -> Directive {
    Directive {
        credential: credential(name),
        action: Action::Revoke,
        trigger: Trigger::TaskEnd,
        urgency: Urgency::Prompt,
        held: None,
        run: Some(RunKey::new("/ci", "7")),
        end_ms: Some(NOW - 5_000),
        broker_ms: NOW - 4_990,
        topic: "curfew.tasks".into(),
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: None,
    }
}

fn case(n: u128, name: &str, more: Vec<Record>) -> (Case, Vec<Record>) {
    let directive = directive(name);
    let mut records = vec![Record::Opened { directive: directive.clone() }];
    records.extend(more);
    let case = Case {
        id: CaseId::from_u128(n),
        tenant: "default".into(),
        directive,
        system: "prod".into(),
        lane: name.into(),
        principal: Some("v-app-1".into()),
        seen_ms: Some(NOW - 4_900),
        opened_ms: NOW - 4_950,
        traceparent: None,
        seq: 3,
        blast: None,
        charged: true,
        state: State::fold(&records).unwrap(),
    };
    (case, records)
}

fn line(case: Case, closed_ms: Option<i64>) -> CaseLine {
    CaseLine { verdict: probe::standing(&case), case, closed_ms, due_ms: NOW + 2_500 }
}

fn step(act: Act, connector: &str, system: &str) -> Step {
    Step { act, connector: connector.into(), system: system.into(), optional: false, place: None, agent: None }
}

fn begun() -> Vec<Record> {
    let steps = vec![
        step(Act::Observe, "vault-lease", "prod"),
        step(Act::Disable, "postgres", "appdb"),
        step(Act::Revoke, "vault-lease", "prod"),
        step(Act::Prove, "vault-lease", "prod"),
    ];
    let seen = Observation { presence: Presence::Present, at_ms: NOW - 4_900, ..Observation::default() };
    vec![
        Record::Planned { no: 1, plan: Plan { steps, pivot: 2, undoes: false } },
        Record::Observed { step: 0, seen },
        Record::Started { step: 1, key: CaseId::nil(), attempt: 1 },
        Record::Succeeded { step: 1, output: Output::default() },
        Record::Started { step: 2, key: CaseId::nil(), attempt: 1 },
    ]
}

fn doubted() -> (Case, Vec<Record>) {
    let cut =
        Record::Failed { step: 2, failure: FailureKind::Unknown, note: "no answer in time".into(), untouched: false };
    case(1, "database/creds/app/a", begun().into_iter().chain([cut]).collect())
}

fn dead() -> (Case, Vec<Record>) {
    let residue = vec![Residue::CleanupPending];
    let sighting = Sighting {
        level: Level::Target,
        answer: Answer::Refused,
        at_ms: NOW - 3_000,
        control: true,
        residue: residue.clone(),
        request_id: None,
    };
    let verdict =
        Verdict::Dead { level: Level::Target, at_ms: NOW - 3_000, sightings: 1, by: KilledBy::Curfew, residue };
    let rest = [
        Record::Succeeded { step: 2, output: Output::default() },
        Record::Sighted { step: 3, sighting },
        Record::Closed { verdict },
    ];
    case(2, "database/creds/app/b", begun().into_iter().chain(rest).collect())
}

fn watched(case: Case) -> Watched {
    let group = Group::of_state(case.state.name());
    let at = Place { group, behind: 1, opened_ms: case.opened_ms, id: case.id };
    Watched { at, line: line(case, None) }
}

fn holder() -> Holder {
    let task = Task {
        tenant: "default".into(),
        run: RunKey::new("/ci", "8"),
        source: "/ci".into(),
        within: None,
        name: Some("etl.load".into()),
        identity: Some("spiffe://corp/etl".into()),
        attempt: 1,
        phase: Phase::Running,
        first_seen_ms: NOW - 60_000,
        started_ms: Some(NOW - 60_000),
        deadline_ms: NOW + 250_000,
        clamped_from_ms: None,
        heartbeat_every_ms: Some(10_000),
        last_beat_ms: Some(NOW - 31_000),
        ended_ms: None,
        outcome: None,
        unbound: false,
        boundary: None,
    };
    let grant = Grant {
        tenant: "default".into(),
        run: task.run.clone(),
        credential: credential("database/creds/app/c"),
        attempt: 1,
        tenure: Tenure::Minted,
        phase: GrantPhase::Held,
        registered_ms: NOW - 59_000,
        topics: vec!["curfew.tasks".into()],
    };
    let holding =
        Holding { grant, principal: Some("v-app-2".into()), expires_ms: Some(NOW + 3_600_000), dead_ms: None };
    let held = Held { holding, case: Some(CaseId::from_u128(9)) };
    Holder { task, due_ms: NOW - 1_000, holds: vec![held], more: true }
}

fn board() -> Board {
    let stats = Stats {
        accepted: 1_234_567,
        closed: 1_234_560,
        cases: vec![("in_doubt".into(), 1), ("held".into(), 3)],
        oldest_ms: vec![("in_doubt".into(), 4_950), ("held".into(), 90_000_000)],
        held: vec![("no_recipe".into(), 3)],
        deadlines_pending: 11,
        deadlines_passed: 1,
        deadline_lag_ms: 1_000,
        blocked: vec![("appdb".into(), "denied".into(), true), ("prod".into(), "throttled".into(), false)],
        unmatched: 2,
        ..Stats::default()
    };
    let note = Note { how: Freeze::Soft, by: "ana".into(), reason: "wrong deadlines".into(), at_ms: NOW - 120_000 };
    let death = Death { case: CaseId::from_u128(2), credential: credential("database/creds/app/b"), overrun_ms: 2_000 };
    let systems = [("prod", "vault", Mode::Enforce), ("appdb", "postgres", Mode::Observe)];
    let systems = systems.map(|(name, kind, mode)| System { name: name.into(), kind, mode });
    Board {
        systems: Arc::new(systems),
        freeze: Some((Freeze::Soft, Some(note))),
        started_held: None,
        healthy: true,
        stats,
        open: vec![watched(doubted().0)],
        tasks: vec![holder()],
        closed: vec![line(dead().0, Some(NOW - 2_900))],
        overrun: Overruns::of(Deaths { looked: 1, all: vec![death] }),
    }
}

fn excerpt((case, records): (Case, Vec<Record>)) -> Excerpt {
    let event = EventLine {
        source: "/ci".into(),
        id: "e".into(),
        kind: "dev.curfew.task.ended.v1".into(),
        verb: "revoke".into(),
        reason: "task_ended".into(),
        facts: serde_json::json!({"holders": 0}),
        rules: "r".into(),
        broker_ms: NOW - 4_990,
    };
    let (first, rest) = records.split_at(2);
    let closed_ms = case.state.is_closed().then_some(NOW - 2_900);
    Excerpt {
        line: line(case, closed_ms),
        events: vec![event],
        more_events: false,
        first: vec![(1, NOW - 4_950, first.to_vec())],
        left_out: 0,
        last: vec![(2, NOW - 3_000, rest.to_vec())],
        finding: None,
        credential: None,
    }
}

/// One tag a line: what changes is seen.
fn lines(page: (u16, Markup)) -> String {
    assert_eq!(page.0, 200);
    page.1.into_string().replace("><", ">\n<")
}

#[test]
fn a_busy_start_page() {
    let seen = Found::Seen(Seen::Start(Box::new(board())));
    insta::assert_snapshot!(lines(page(&View::Start, &seen, NOW)));
}

#[test]
fn a_case_in_doubt() {
    let (case, records) = doubted();
    let view = View::Case(case.id);
    insta::assert_snapshot!(lines(page(&view, &Found::Seen(Seen::Case(Box::new(excerpt((case, records))))), NOW)));
}

#[test]
fn a_case_that_was_seen_dead() {
    let (case, records) = dead();
    let view = View::Case(case.id);
    insta::assert_snapshot!(lines(page(&view, &Found::Seen(Seen::Case(Box::new(excerpt((case, records))))), NOW)));
}

#[test]
fn a_task_with_what_it_holds() {
    let holder = holder();
    let view = View::Task("default".into(), holder.task.run.clone());
    insta::assert_snapshot!(lines(page(&view, &Found::Seen(Seen::Task(Box::new(holder))), NOW)));
}

#[test]
fn lists_go_on_where_the_last_page_stopped() {
    let open = vec![watched(doubted().0)];
    let next = open.last().map(|last| last.at);
    let states = vec![("in_doubt".to_owned(), 1)];
    let listed = Listed { only: Some(Group::MayBeAlive), first: false, open, next, states };
    let html = lines(page(&View::Cases(None, None), &Found::Seen(Seen::Cases(listed)), NOW));
    let cursor = html.split("after=").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(super::place(cursor), next, "{html}");
    for wrong in ["", "1", "9.0.0.x", "0.9.0.00000000-0000-0000-0000-000000000000", "a.b.c.d", "0.1.2."] {
        assert_eq!(super::place(wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_not_there_and_what_is_not_known_are_told_apart() {
    let view = View::Case(CaseId::nil());
    let (status, html) = page(&view, &Found::Nothing, NOW);
    assert!(status == 404 && html.into_string().contains("There is no case with this id"));
    let (status, html) = page(&view, &Found::NoAnswer, NOW);
    assert!(status == 503 && html.into_string().contains("Nothing can be said of what lives"));
}

/// Each reason says whether a person is waited for, and no command is there that does nothing.
#[test]
fn what_comes_next_is_said_for_each_state() {
    for reason in HoldReason::ALL {
        let (case, _) = case(1, "a", vec![Record::Held { reason }]);
        let next = next::of(&case);
        assert!(!next.say.is_empty());
        let commands: Vec<&str> = next.run.iter().map(|(_, run)| run.as_str()).collect();
        assert_eq!(
            commands.iter().any(|run| run.starts_with("curfew resume")),
            next.waits
                && !matches!(
                    reason,
                    HoldReason::Frozen | HoldReason::StartedHeld | HoldReason::Unserved | HoldReason::NoRecipe
                ),
            "{reason:?}: {commands:?}"
        );
        assert!(
            !reason.rechecks() || !commands.iter().any(|run| run.contains("abandon")),
            "{reason:?} goes on by itself"
        );
    }
    assert_eq!(next::of(&doubted().0).run[0].1, format!("curfew retry-now {}", CaseId::from_u128(1)));
    assert_eq!(next::of(&dead().0).run, []);
}

#[test]
fn overrun_is_the_middle_and_the_longest() {
    let death = |overrun_ms| Death { case: CaseId::nil(), credential: credential("a"), overrun_ms };
    let of = |all: &[i64]| {
        let told = Overruns::of(Deaths { looked: all.len(), all: all.iter().map(|ms| death(*ms)).collect() });
        (told.count, told.median_ms, told.longest.map(|longest| longest.overrun_ms), told.newest_only)
    };
    assert_eq!(of(&[]), (0, None, None, false));
    assert_eq!(of(&[5]), (1, Some(5), Some(5), false));
    assert_eq!(of(&[9, -1, 4]), (3, Some(4), Some(9), false));
    assert_eq!(of(&[9, 1, 4, 5]), (4, Some(4), Some(9), false));
}

#[test]
fn what_cannot_be_seen_is_written_out() {
    assert_eq!(words::plain("a\u{202e}b\u{200b}c\nd"), "a\\u{202e}b\\u{200b}c\\u{a}d");
    assert_eq!(words::plain("Größe ✓ 名前"), "Größe ✓ 名前");
    assert_eq!(words::plain(&"x".repeat(5_000)).chars().count(), 2_001);
    let shown = words::name(&format!("\"><script>{}", "y".repeat(500))).into_string();
    assert!(shown.starts_with("<bdi title=\"&quot;&gt;&lt;script&gt;yyy") && !shown.contains("<script"), "{shown}");
    let times = [-90_000, -1_500, 0, 999, 61_000, 90_000_000].map(|away| words::relative(NOW + away, NOW));
    assert_eq!(times, ["1m30s ago", "1s ago", "0s ago", "in 0s", "in 1m01s", "in 1d01h"]);
    assert_eq!(
        [0, 999, 1_000, -12_345_678].map(words::number),
        ["0", "999", "1\u{2009}000", "-12\u{2009}345\u{2009}678"]
    );
}

/// Nothing is fetched from elsewhere, and no part of a page is a script or a style of its own.
#[test]
fn a_page_needs_nothing_but_itself() {
    let html = lines(page(&View::Start, &Found::Seen(Seen::Start(Box::new(board()))), NOW));
    for (text, what) in [(html.as_str(), "page"), (super::CSS, "style"), (super::SCRIPT, "script")] {
        for foreign in ["http://", "https://", "//cdn", "@import", "url(", "style=", "onclick", "eval("] {
            assert!(!text.contains(foreign), "{foreign} in the {what}");
        }
    }
    assert!(!html.contains("<style") && html.matches("<script").count() == 1);
}
