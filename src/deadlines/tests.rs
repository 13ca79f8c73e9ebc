use std::collections::BTreeMap;

use super::silence::*;
use super::trust::ClockTrust;
use crate::clock::{Clock, Simulated};
use crate::task::RunKey;

const EVERY: i64 = 10_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn speaker(source: &str) -> Speaker {
    ("t".into(), source.to_owned())
}

/// Runs tasks of several sources for four hours; `beats(source, task, at)` says whether a heartbeat gets through.
/// Returns whom the judgement would cut, with the time.
fn simulate(sources: &[(&str, usize)], beats: impl Fn(&str, usize, i64) -> bool) -> Vec<(String, usize, i64)> {
    simulate_every(EVERY, sources, beats)
}

fn simulate_every(
    every: i64,
    sources: &[(&str, usize)],
    beats: impl Fn(&str, usize, i64) -> bool,
) -> Vec<(String, usize, i64)> {
    let limits = Limits::default();
    let mut tasks: Vec<(String, usize, i64, bool)> = Vec::new();
    for (source, count) in sources {
        tasks.extend((0..*count).map(|n| ((*source).to_owned(), n, 0, true)));
    }
    let mut voices: BTreeMap<Speaker, Voice> = BTreeMap::new();
    let mut cut = Vec::new();
    for at in (0..4 * HOUR).step_by(1_000) {
        let mut live: BTreeMap<Speaker, u64> = BTreeMap::new();
        let mut newest: BTreeMap<Speaker, i64> = BTreeMap::new();
        for (source, n, last, alive) in &mut tasks {
            // Spread over the interval, as schedulers do.
            if (at + *n as i64 * 1_000) % every == 0 && beats(source, *n, at) {
                *last = at;
            }
            if *alive {
                *live.entry(speaker(source)).or_default() += 1;
                let newest = newest.entry(speaker(source)).or_default();
                *newest = (*newest).max(*last);
            }
        }
        for (source, newest) in newest {
            voices.entry(source).or_insert_with(|| Voice::first(newest)).hear(newest);
        }
        let before = at - 2_000;
        let due = |t: &(String, usize, i64, bool)| t.3 && t.2 + every * 3 < before;
        let indexes: Vec<usize> = (0..tasks.len()).filter(|i| due(&tasks[*i])).collect();
        let silent: Vec<Silent> = indexes
            .iter()
            .map(|i| Silent {
                run: RunKey::new(&tasks[*i].0, &tasks[*i].1.to_string()),
                speaker: speaker(&tasks[*i].0),
                last_ms: tasks[*i].2,
                every_ms: every,
            })
            .collect();
        let judged = judge_silence(&silent, &live, &mut voices, before, &limits).act;
        acted(judged.iter().map(|act| &silent[*act]), &mut voices, before);
        for act in judged {
            let task = &mut tasks[indexes[act]];
            task.3 = false;
            cut.push((task.0.clone(), task.1, at));
        }
    }
    cut
}

fn outage(at: i64) -> bool {
    (HOUR..2 * HOUR).contains(&at)
}

#[test]
fn one_task_that_dies_among_others_is_noticed_within_a_minute() {
    let cut = simulate(&[("a", 20), ("b", 20)], |source, n, at| source != "a" || n != 3 || at < HOUR);
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert_eq!((cut[0].0.as_str(), cut[0].1), ("a", 3));
    assert!((HOUR..HOUR + MINUTE).contains(&cut[0].2), "{cut:?}");
}

#[test]
fn an_outage_of_an_hour_cuts_nobody_however_few_they_are() {
    for count in [1, 2, 3, 5, 6, 40] {
        let cut = simulate(&[("a", count), ("b", count)], |_, _, at| !outage(at));
        assert!(cut.is_empty(), "{count}: {cut:?}");
    }
}

#[test]
fn a_scheduler_that_stops_for_a_thousand_tasks_cuts_nobody() {
    let whole = simulate(&[("a", 1_000), ("b", 100)], |source, _, at| source != "a" || !outage(at));
    assert!(whole.is_empty(), "{} were cut", whole.len());
    let half = simulate(&[("a", 2_000)], |_, n, at| n % 2 == 0 || !outage(at));
    assert!(half.is_empty(), "{} were cut", half.len());
}

/// One by one they fall due and one by one they come back, while the rest of the source goes on: neither the first few
/// nor the last few of them are few.
#[test]
fn those_that_stop_together_are_counted_together() {
    let cut = simulate_every(100_000, &[("a", 400)], |_, n, at| n % 400 >= 100 || !outage(at));
    assert!(cut.is_empty(), "{} were cut: {:?}", cut.len(), cut.first());
}

#[test]
fn who_comes_back_one_by_one_gets_time_to() {
    // After the outage only every tenth task beats at once, the others an interval or two later.
    let slow = |n: usize, at| !n.is_multiple_of(10) && (2 * HOUR..2 * HOUR + 2 * EVERY).contains(&at);
    let cut = simulate(&[("a", 30)], |_, n, at| !outage(at) && !slow(n, at));
    assert!(cut.is_empty(), "{cut:?}");
}

#[test]
fn a_dead_task_is_still_found_after_an_outage() {
    let cut = simulate(&[("a", 20)], |_, n, at| !outage(at) && (n != 7 || at < HOUR));
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert!(cut[0].2 > 2 * HOUR && cut[0].2 < 2 * HOUR + 5 * MINUTE, "{cut:?}");
}

/// Five of twenty are few. They are still five when the journal did not take it the first time.
#[test]
fn what_could_not_be_recorded_does_not_count_twice() {
    let limits = Limits { max_percent: 30, ..Limits::default() };
    let last_ms = 10 * MINUTE;
    let before_ms = last_ms + 5 * EVERY;
    let mut voice = Voice::first(0);
    (0..=before_ms).step_by(1_000).for_each(|at| voice.hear(at));
    let mut voices = BTreeMap::from([(speaker("a"), voice)]);
    let live = BTreeMap::from([(speaker("a"), 20)]);
    let silent: Vec<Silent> = (0..5)
        .map(|n| Silent { run: RunKey::new("a", &n.to_string()), speaker: speaker("a"), last_ms, every_ms: EVERY })
        .collect();
    for time in 0..3 {
        let judged = judge_silence(&silent, &live, &mut voices, before_ms + time, &limits);
        assert_eq!((judged.act.len(), judged.mass), (5, false), "{time}");
    }
    acted(silent.iter(), &mut voices, before_ms + 2);
    let judged = judge_silence(&silent, &live, &mut voices, before_ms + 3, &limits);
    assert!(judged.mass && judged.act.is_empty(), "five more are ten");
}

#[test]
fn a_wall_clock_that_steps_is_doubted_until_a_broker_agrees() {
    let clock = Simulated::at(1_800_000_000_000);
    let trust = ClockTrust::new(clock.clone());
    clock.advance_ms(HOUR);
    assert!(trust.check());
    clock.step_wall_ms(5_000);
    assert!(trust.check(), "within the tolerance");
    clock.step_wall_ms(1);
    assert!(!trust.check());
    trust.agree(clock.wall_ms() - MINUTE);
    assert!(!trust.check(), "a backlog's time says nothing");
    trust.agree(clock.wall_ms() - 200);
    assert!(trust.check());
    clock.step_wall_ms(-HOUR);
    assert!(!trust.check());
    clock.step_wall_ms(HOUR);
    assert!(trust.check(), "set back to where it was");
}
