//! The start page: what is wrong first, then what comes, then what was. PURE.

use maud::{Markup, html};

use super::facts::{Board, DEATHS, System};
use super::{cases, frame, tasks, words};
use crate::case::said;
use crate::guard::{Freeze, Mode};
use crate::journal::Stats;
use crate::journal::shown::Group;

/// How many open cases of a group there are, and the age of the oldest.
fn of_group(stats: &Stats, group: Group) -> (i64, Option<i64>) {
    let count = stats.cases.iter().filter(|(state, _)| Group::of_state(state) == group).map(|(_, n)| n).sum();
    let oldest = stats.oldest_ms.iter().filter(|(state, _)| Group::of_state(state) == group).map(|(_, ms)| *ms).max();
    (count, oldest)
}

/// What the tab of the browser says.
pub fn title(board: &Board) -> String {
    match of_group(&board.stats, Group::MayBeAlive).0 {
        _ if !board.healthy => "Journal not writable".to_owned(),
        0 if board.freeze.is_some() => "Frozen".to_owned(),
        0 => "Now".to_owned(),
        n => format!("{n} may be alive"),
    }
}

/// The page.
pub fn body(board: &Board, now_ms: i64) -> Markup {
    let open: i64 = board.stats.cases.iter().map(|(_, n)| n).sum();
    let more = html! { a href="/status/cases" { "All " (words::number(open)) } };
    html! {
        div.banners { (banners(board, now_ms)) }
        (headline(&board.stats))
        (tiles(board))
        div.columns {
            div {
                (frame::card("Open cases, those that may be alive first", more, cases::table(&board.open, now_ms)))
                (frame::card("Tasks that are over next", html! { a href="/status/tasks" { "More" } }, tasks::table(&board.tasks, now_ms)))
            }
            div {
                (frame::card("Systems", html! {}, systems(&board.systems, &board.stats)))
                (frame::card("Closed last", html! {}, cases::closed(&board.closed, now_ms)))
            }
        }
    }
}

fn banners(board: &Board, now_ms: i64) -> Markup {
    html! {
        @if !board.healthy {
            section.banner.red { h2 { "The journal cannot be written" } p { "No effect starts until it can." } }
        }
        @if let Some((how, note)) = &board.freeze {
            section.banner.amber {
                h2 { @if *how == Freeze::Hard { "Frozen hard: nothing acts" } @else { "Frozen: no new case acts" } }
                p {
                    @match note {
                        Some(note) => {
                            "By " (words::whole(&note.by)) @if note.at_ms > 0 { ", " (words::moment(note.at_ms, now_ms)) }
                            @if !note.reason.is_empty() { ": " (words::whole(&note.reason)) }
                        }
                        None => { "By an operator of another process." }
                    }
                }
                p { "When the reason is gone: " (words::command("curfew release")) }
            }
        }
        @if let Some(why) = &board.started_held {
            section.banner.red {
                h2 { "The start is held: this journal may be older than what was published" }
                p { (words::whole(why)) }
                p { "When it was looked at: " (words::command("curfew release")) }
            }
        }
    }
}

fn headline(stats: &Stats) -> Markup {
    let (count, oldest) = of_group(stats, Group::MayBeAlive);
    let (held, _) = of_group(stats, Group::Held);
    let open: i64 = stats.cases.iter().map(|(_, n)| n).sum();
    html! {
        div.headline {
            h1.red[count > 0] {
                @match count {
                    0 if held > 0 => { "Nothing is in doubt, " (words::number(held)) " held" }
                    0 => { "Nothing is in doubt" }
                    1 => { "1 credential may be alive" }
                    n => { (words::number(n)) " credentials may be alive" }
                }
            }
            p {
                @if let Some(oldest) = oldest { "The oldest case of them is " (said::span(oldest)) " old. " }
                @else if open == 0 { "No case is open. " }
                @else { (words::number(open)) " open, and each says what it waits for. " }
                (words::number(stats.closed)) " of " (words::number(stats.accepted)) " events are settled."
            }
        }
    }
}

/// A figure with its name, and what it is made of.
fn tile(colour: &str, name: &str, figure: &str, parts: Markup, to: Option<String>) -> Markup {
    html! {
        li class=(colour) {
            @match to {
                Some(to) => { a href=(to) { b { (figure) } span { (name) } } }
                None => { div { b { (figure) } span { (name) } } }
            }
            small { (parts) }
        }
    }
}

fn tiles(board: &Board) -> Markup {
    let stats = &board.stats;
    let group = |group: Group, name: &str| {
        let (count, _) = of_group(stats, group);
        let states = stats.cases.iter().filter(|(state, n)| Group::of_state(state) == group && *n > 0);
        let parts: Vec<String> = if group == Group::Held {
            stats
                .held
                .iter()
                .filter(|(_, n)| *n > 0)
                .map(|(hold, n)| format!("{} {n}", hold.replace('_', " ")))
                .collect()
        } else {
            states.map(|(state, n)| format!("{} {n}", state.replace('_', " "))).collect()
        };
        let colour = if count > 0 { words::colour(group) } else { "quiet" };
        let to = format!("/status/cases?of={}", group.as_str());
        tile(colour, name, &words::number(count), html! { (parts.join(" · ")) }, Some(to))
    };
    let overrun = &board.overrun;
    let figure = overrun.median_ms.map_or_else(|| "–".to_owned(), said::span);
    let over = html! {
        (words::number(i64::try_from(overrun.count).unwrap_or(i64::MAX))) " died"
        @if let Some(longest) = &overrun.longest {
            " · longest " a href=(words::case_path(longest.case)) { (said::span(longest.overrun_ms)) }
        }
        @if overrun.newest_only { " · of the newest " (words::number(i64::from(DEATHS))) " cases" }
    };
    let passed = stats.deadlines_passed;
    let late = html! { @if passed > 0 { (words::number(passed)) " past the deadline, the oldest by " (said::span(stats.deadline_lag_ms)) } };
    let waits = |n: i64, colour: &'static str, name: &str, parts: &str| {
        (n > 0).then(|| tile(colour, name, &words::number(n), html! { (parts) }, None))
    };
    html! {
        ul.tiles {
            (group(Group::MayBeAlive, "may be alive"))
            (group(Group::AtWork, "at work"))
            (group(Group::Held, "held"))
            (tile(if passed > 0 { "amber" } else { "quiet" }, "tasks live", &words::number(stats.deadlines_pending + passed), late, Some("/status/tasks".into())))
            (tile("quiet", "median overrun, last day", &figure, over, None))
            @for one in [
                waits(stats.unserved, "red", "served by no process", "curfew run --role enforce"),
                waits(stats.unmatched, "amber", "findings without a match", "curfew findings"),
                waits(stats.unbound, "amber", "runs ended, grants unknown", "curfew tasks --unbound"),
                waits(stats.outbox, "quiet", "outcomes to publish", ""),
                waits(stats.rejected, "quiet", "events rejected", ""),
            ].into_iter().flatten() { (one) }
        }
    }
}

fn systems(systems: &[System], stats: &Stats) -> Markup {
    if systems.is_empty() {
        return frame::empty("No realm and no target is configured: nothing can be revoked.");
    }
    let blocked = |name: &str| stats.blocked.iter().find(|(system, _, now)| *now && system == name);
    html! {
        ul.systems {
            @for system in systems {
                li {
                    span { b { (words::name(&system.name)) } " " small { (system.kind) } }
                    span {
                        @if let Some((_, reason, _)) = blocked(&system.name) { (words::chip("red", &format!("blocked: {}", reason.replace('_', " ")))) " " }
                        @match system.mode {
                            Mode::Enforce => { (words::chip("green", "enforce")) }
                            Mode::Observe => { (words::chip("amber", "observe")) }
                        }
                    }
                }
            }
        }
    }
}
