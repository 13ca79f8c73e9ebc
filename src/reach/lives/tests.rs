use proptest::prelude::*;

use super::*;
use crate::credential::CredentialId;
use crate::task::RunKey;

const NOW: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;

fn terms() -> Terms {
    Terms { realms: [("prod".to_owned(), "default".into())].into(), ..Terms::default() }
}

/// A task that ran from `from` to `to`, in minutes before now.
fn task(from: i64, to: i64) -> Task {
    Task {
        tenant: "default".into(),
        run: RunKey::new("sched", "1"),
        source: "sched".to_owned(),
        within: None,
        name: None,
        identity: Some("agent".to_owned()),
        attempt: 1,
        phase: Phase::Ended,
        first_seen_ms: NOW - from * MINUTE,
        started_ms: Some(NOW - from * MINUTE),
        deadline_ms: NOW,
        clamped_from_ms: None,
        heartbeat_every_ms: None,
        last_beat_ms: None,
        ended_ms: Some(NOW - to * MINUTE),
        outcome: Some("success".to_owned()),
        unbound: false,
        boundary: None,
    }
}

fn login(kind: Kind, id: &str, tenure: Tenure) -> Login {
    Login { credential: CredentialId::new(kind, "prod", id).unwrap(), tenure, principal: None, issued_ms: None }
}

fn role_itself() -> Login {
    login(Kind::VaultApprole, "approle/etl", Tenure::Standing)
}

/// Issued so many minutes before now.
fn own(issued: i64) -> Login {
    let issued_ms = Some(NOW - issued * MINUTE);
    Login { issued_ms, ..login(Kind::VaultSecretId, "approle/etl/acc", Tenure::Minted) }
}

fn token(issued: i64, principal: &str) -> Login {
    let (principal, issued_ms) = (Some(principal.to_owned()), Some(NOW - issued * MINUTE));
    Login { principal, issued_ms, ..login(Kind::VaultToken, "acc", Tenure::Minted) }
}

fn lives(all: impl IntoIterator<Item = (Task, Login)>) -> Lives {
    let mut tally = Tally::default();
    for (task, login) in all {
        tally.add(&Lived { task, logins: vec![login] }, &terms(), NOW);
    }
    tally.of("prod/approle/etl").cloned().unwrap_or_default()
}

#[test]
fn a_task_counts_that_was_seen_to_start_and_to_end() {
    let one = lives([(task(90, 60), role_itself()), (task(50, 40), role_itself())]);
    assert_eq!(
        (one.tasks.total(), one.tasks.p99(), one.open_s),
        (2, Some(1_807), None),
        "rounded up by less than a 64th"
    );
    assert_eq!((one.last_ms, one.longest_login_s()), (NOW - 40 * MINUTE, None), "of nobody's own secret_id is known");
    assert_eq!(one.agents.into_iter().collect::<Vec<_>>(), ["agent"]);
}

#[test]
fn one_that_goes_on_or_of_which_a_part_was_not_seen_has_lasted_for_as_long_as_is_known() {
    let ended = || (task(90, 80), role_itself());
    let running = Task { phase: Phase::Running, ended_ms: None, outcome: None, ..task(50, 0) };
    let expected = Task { phase: Phase::Expected, started_ms: None, ended_ms: None, ..task(40, 0) };
    let lost = Task { outcome: Some("lost".to_owned()), last_beat_ms: Some(NOW - 30 * MINUTE), ..task(100, 0) };
    let silent = Task { last_beat_ms: None, ..lost.clone() };
    let handed_on = Task { outcome: Some("continued_as sched:2".to_owned()), ..task(60, 0) };
    let unseen = Task { started_ms: None, ..task(20, 0) };
    for (task, open_s) in
        [(running, 3_000), (expected, 2_400), (lost, 4_200), (silent, 0), (handed_on, 0), (unseen, 1_200)]
    {
        let all = lives([ended(), (task.clone(), role_itself())]);
        assert_eq!((all.tasks.total(), all.open_s), (1, Some(open_s)), "{task:?}");
        assert_eq!(all.longest_s(), Some(607.max(open_s)), "shorter ones lower nothing");
    }
    assert_eq!(
        lives([(Task { phase: Phase::Running, ended_ms: None, ..task(50, 0) }, role_itself())]).longest_s(),
        None
    );
}

#[test]
fn what_an_earlier_attempt_or_an_older_token_has_is_counted_from_there() {
    let again = Task { attempt: 2, started_ms: Some(NOW - 11 * MINUTE), ..task(90, 10) };
    assert_eq!(lives([(again, role_itself())]).tasks.p99(), Some(4_863), "80 minutes");
    let early = token(70, "approle/etl");
    assert_eq!(lives([(task(20, 10), early)]).tasks.p99(), Some(3_615), "an hour");
    let late = token(15, "approle/etl");
    assert_eq!(lives([(task(20, 10), late)]).tasks.p99(), Some(607), "ten minutes");
}

#[test]
fn a_secret_id_is_measured_only_where_each_task_has_its_own() {
    let all = lives([(task(20, 10), own(30)), (task(15, 10), own(15))]);
    assert_eq!((all.tasks.p99(), all.longest_login_s()), (Some(607), Some(1_215)), "from when it was issued");
    let unknown = Login { issued_ms: None, ..own(30) };
    let kept = Login { tenure: Tenure::Standing, ..own(30) };
    for other in [unknown, kept, role_itself(), token(30, "approle/etl")] {
        let all = lives([(task(20, 10), own(30)), (task(20, 10), other.clone())]);
        assert_eq!((all.tasks.total(), all.longest_login_s()), (2, None), "{other:?}");
    }
    let running = Task { phase: Phase::Running, ended_ms: None, ..task(60, 0) };
    assert_eq!(lives([(task(20, 10), own(30)), (running, own(90))]).longest_login_s(), Some(5_400));
}

#[test]
fn a_token_that_outlives_its_task_says_that_more_than_tasks_live_by_the_role() {
    let standing = Login { tenure: Tenure::Standing, ..token(30, "approle/etl") };
    assert!(lives([(task(20, 10), standing)]).stands);
    assert!(!lives([(task(20, 10), token(30, "approle/etl")), (task(20, 10), role_itself())]).stands);
}

#[test]
fn who_is_no_one_s_approle_and_another_tenant_count_for_nothing() {
    let elsewhere =
        Login { credential: CredentialId::new(Kind::VaultApprole, "test", "approle/etl").unwrap(), ..role_itself() };
    let another = Task { tenant: "other".into(), ..task(20, 10) };
    let all = lives([
        (task(20, 10), elsewhere),
        (another, role_itself()),
        (task(20, 10), token(20, "approle/other")),
        (task(20, 10), token(20, "etl")),
        (task(20, 10), Login { principal: None, ..token(20, "x") }),
    ]);
    assert_eq!(all, Lives::default());
}

#[test]
fn of_one_task_each_role_is_counted_once() {
    let mut tally = Tally::default();
    let second = login(Kind::VaultSecretId, "approle/report/acc", Tenure::Minted);
    let logins = vec![own(20), token(20, "approle/etl"), second];
    tally.add(&Lived { task: task(20, 10), logins }, &terms(), NOW);
    assert_eq!(tally.of("prod/approle/etl").unwrap().tasks.total(), 1);
    assert_eq!(tally.of("prod/approle/report").unwrap().tasks.total(), 1);
}

#[test]
fn there_is_room_for_the_longest_and_a_margin() {
    let terms = Terms { margin_percent: 50, margin_ms: 300_000, ..Terms::default() };
    for (longest_s, room_s) in [(0, 300), (1, 360), (600, 900), (601, 960), (3_600, 5_400), (u64::MAX, u64::MAX)] {
        assert_eq!(terms.room_s(longest_s), room_s, "{longest_s}");
    }
    assert!(
        terms.fits(5_400, 3_600) && terms.fits(5_400, 4_320) && !terms.fits(5_400, 4_321),
        "half of the margin is left"
    );
}

/// The nearest rank, by sorting all of them.
fn exactly(all: &[u64]) -> Option<u64> {
    let mut all = all.to_vec();
    all.sort_unstable();
    all.get((all.len() * 99).div_ceil(100).max(1) - 1).copied()
}

proptest! {
    #[test]
    fn of_many_spans_no_fewer_than_99_in_100_are_within_what_is_told(
        all in proptest::collection::vec(prop_oneof![0_u64..200, 0_u64..100_000, 0_u64..40_000_000], 0..400),
    ) {
        let mut spans = Spans::default();
        for span_s in &all {
            spans.add(*span_s);
        }
        prop_assert_eq!(spans.total(), all.len() as u64);
        match (exactly(&all), spans.p99()) {
            (None, None) => {}
            (Some(exact), Some(told)) => {
                prop_assert!(exact <= told && told <= exact + exact / 64, "{} is told as {}", exact, told);
                let within = all.iter().filter(|span_s| **span_s <= told).count();
                prop_assert!(within * 100 >= all.len() * 99);
            }
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert!(spans.counts.len() <= 128 + 64 * 20, "bounded, however many");
    }

    #[test]
    fn more_of_what_is_longer_never_lowers_it(
        all in proptest::collection::vec(0_u64..100_000, 1..200), more in 0_u64..200_000,
    ) {
        let mut spans = Spans::default();
        all.iter().for_each(|span_s| spans.add(*span_s));
        let before = spans.p99().unwrap();
        spans.add(before + more);
        prop_assert!(spans.p99().unwrap() >= before);
    }

    #[test]
    fn what_was_found_fits_as_long_as_the_longest_is_the_same(longest_s in 0_u64..40_000_000, percent in 10_u32..1_000) {
        let terms = Terms { margin_percent: percent, ..Terms::default() };
        let room_s = terms.room_s(longest_s);
        prop_assert!(room_s >= longest_s + 300 && terms.fits(room_s, longest_s));
        prop_assert!(!terms.fits(longest_s, longest_s));
        prop_assert!(terms.room_s(longest_s + 1) >= room_s);
    }

    #[test]
    fn the_order_of_tasks_means_nothing(minutes in proptest::collection::vec((1_i64..5_000, any::<bool>()), 1..60)) {
        let all: Vec<(Task, Login)> = minutes.iter().map(|(from, ended)| {
            let ended_task = task(*from, 0);
            let running = Task { phase: Phase::Running, ended_ms: None, ..ended_task.clone() };
            (if *ended { ended_task } else { running }, own(*from + 1))
        }).collect();
        let back: Vec<(Task, Login)> = all.iter().rev().cloned().collect();
        prop_assert_eq!(lives(all), lives(back));
    }
}
