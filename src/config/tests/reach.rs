//! How the lives of tasks are measured, and what is wrong about it.

use super::*;
use crate::reach::lives::Terms;
use crate::reach::notice::Sort;

fn finds(sorts: &str, lives: &str) -> Result<Config, Invalid> {
    parse(&format!(
        "realms:\n  - {{name: prod, vault: {{address: \"http://127.0.0.1:8200\", token_file: t}}}}\n\
         reach:\n  vaults: [{{realm: prod, token_file: r}}]\n  finds: {{sorts: [{sorts}]{lives}}}\n\
         retention: {{seen: 14d, closed: 60d}}\n"
    ))
}

#[test]
fn lives_of_tasks_are_measured_as_is_said_or_as_is_usual() {
    let read = |lives: &str| finds("long_lived", lives).unwrap().reach.unwrap().finds.unwrap();
    let usual = read("");
    assert_eq!((usual.sorts, usual.lives), (vec![Sort::LongLived], Terms::default()));
    let said = read(", lives: {over: 7d, tasks: 50, margin_percent: 100, margin_at_least: 10m}").lives;
    let expected =
        Terms { over_ms: 7 * 86_400_000, tasks: 50, margin_percent: 100, margin_ms: 600_000, ..Terms::default() };
    assert_eq!(said, expected);
    assert_eq!(read(", lives: {over: 60d}").lives, Terms { over_ms: 60 * 86_400_000, ..Terms::default() });
}

#[test]
fn what_would_lower_lifetimes_to_nothing_is_refused() {
    for (lives, why) in [
        ("over: 59m", "at least 1h"),
        ("over: 61d", "at most `retention.closed`"),
        ("tasks: 9", "at least 10"),
        ("margin_percent: 9", "between 10 and 1000"),
        ("margin_percent: 1001", "between 10 and 1000"),
        ("margin_at_least: 59s", "between 1m and 1d"),
        ("margin_at_least: 2d", "between 1m and 1d"),
        ("margin: 5m", "margin_percent"),
    ] {
        let said = finds("long_lived", &format!(", lives: {{{lives}}}")).unwrap_err().to_string();
        assert!(said.contains(why), "{lives}: {said}");
    }
    let nowhere = parse("reach: {finds: {sorts: [long_lived]}}\n").unwrap_err().to_string();
    assert!(nowhere.contains("write `reach.vaults`"), "{nowhere}");
}
