//! Lists of cases. PURE.

use maud::{Markup, html};

use super::facts::Listed;
use super::{frame, words};
use crate::case::state::Todo;
use crate::journal::CaseLine;
use crate::journal::shown::{Group, Place, Watched};

/// Open cases.
pub fn table(open: &[Watched], now_ms: i64) -> Markup {
    if open.is_empty() {
        return frame::empty("No case is open.");
    }
    let row = |one: &Watched| {
        let case = &one.line.case;
        let to = words::case_path(case.id);
        let directive = &case.directive;
        vec![
            html! { a.row href=(to) { (words::credential(&directive.credential)) } },
            html! { (words::state(case.state.name())) " " (words::verdict(&one.line.verdict)) },
            html! { (directive.action.as_str()) small { (directive.trigger.as_str().replace('_', " ")) } },
            words::moment(case.opened_ms, now_ms),
            next(&one.line, now_ms),
        ]
    };
    let head = ["Credential", "Stands", "What, why", "Opened", "Next try"];
    frame::table(&head, open.iter().map(row).collect())
}

/// When it goes on, as far as that is known.
fn next(line: &CaseLine, now_ms: i64) -> Markup {
    match line.case.state.todo() {
        Todo::Rest => html! { span.none { "a person" } },
        _ if line.due_ms <= now_ms => html! { "now" },
        _ => words::moment(line.due_ms, now_ms),
    }
}

/// Closed cases, in short.
pub fn closed(lines: &[CaseLine], now_ms: i64) -> Markup {
    if lines.is_empty() {
        return frame::empty("No case has closed yet.");
    }
    html! {
        ol.closed {
            @for line in lines {
                li {
                    a.row href=(words::case_path(line.case.id)) { (words::credential(&line.case.directive.credential)) }
                    span.end {
                        (words::verdict(&line.verdict))
                        @if let Some(closed_ms) = line.closed_ms { small { (words::moment(closed_ms, now_ms)) } }
                    }
                }
            }
        }
    }
}

/// A place as a link carries it.
pub fn cursor(at: &Place) -> String {
    format!("{}.{}.{}.{}", at.group.rank(), at.behind, at.opened_ms, at.id)
}

/// Reads the place that a link carries.
pub fn place(text: &str) -> Option<Place> {
    let mut parts = text.splitn(4, '.');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (rank, behind, opened_ms) = (number()?, number()?, number()?);
    let group = Group::ALL.into_iter().find(|group| group.rank() == rank)?;
    let id = parts.next()?.parse().ok()?;
    (0..=3).contains(&behind).then_some(Place { group, behind, opened_ms, id })
}

/// The page of open cases.
pub fn body(listed: &Listed, now_ms: i64) -> Markup {
    let count = |group: Option<Group>| -> i64 {
        let of = listed.states.iter().filter(|(state, _)| group.is_none_or(|group| Group::of_state(state) == group));
        of.map(|(_, n)| n).sum()
    };
    let all = [None, Some(Group::MayBeAlive), Some(Group::AtWork), Some(Group::Held)];
    let path = |group: Option<Group>| match group {
        Some(group) => format!("/status/cases?of={}", group.as_str()),
        None => "/status/cases".to_owned(),
    };
    let word = |group: Option<Group>| group.map_or("all".to_owned(), |group| group.as_str().replace('-', " "));
    html! {
        div.headline { h1 { "Open cases" } p { "Those that may be alive first, then the most urgent, then the oldest." } }
        nav.filter aria-label="Which cases" {
            @for group in all {
                a href=(path(group)) aria-current=[(group == listed.only).then_some("true")] { (word(group)) " " b { (words::number(count(group))) } }
            }
        }
        section.card { (table(&listed.open, now_ms)) }
        nav.pages aria-label="More cases" {
            @if !listed.first { a href=(path(listed.only)) { "First page" } }
            @if let Some(at) = &listed.next {
                a href={ (path(listed.only)) (if listed.only.is_some() { "&" } else { "?" }) "after=" (cursor(at)) } { "Next page" }
            }
        }
    }
}
