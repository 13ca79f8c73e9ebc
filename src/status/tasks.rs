//! Tasks, and what they hold. PURE.

use maud::{Markup, html};

use super::{frame, words};
use crate::journal::shown::{Held, Holder};
use crate::task::{GrantPhase, Phase, Tenure};

/// Tasks in a table.
pub fn table(holders: &[Holder], now_ms: i64) -> Markup {
    if holders.is_empty() {
        return frame::empty("No task is live.");
    }
    let row = |one: &Holder| {
        let task = &one.task;
        vec![
            words::task(task),
            html! { (over(one, now_ms)) },
            html! { (task.identity.as_deref().map_or_else(|| html! { span.none { "nobody named" } }, words::name)) },
            html! {
                @if one.holds.is_empty() { span.none { "nothing known" } }
                ul.holds {
                    @for held in &one.holds { li { (words::credential(&held.holding.grant.credential)) " " (stands(held, now_ms)) } }
                    @if one.more { li { a href=(words::task_path(&task.tenant, &task.run)) { "and more" } } }
                }
            },
        ]
    };
    frame::table(&["Task", "Over", "Who", "Holds"], holders.iter().map(row).collect())
}

/// When it is over, and by what.
fn over(one: &Holder, now_ms: i64) -> Markup {
    let task = &one.task;
    html! {
        @if task.phase == Phase::Ended {
            @match task.ended_ms { Some(ended_ms) => (words::moment(ended_ms, now_ms)), None => { "ended" } }
        } @else {
            (words::due(task.deadline_ms, now_ms))
            @if one.due_ms < task.deadline_ms { small { "silent " (words::due(one.due_ms, now_ms)) } }
        }
    }
}

/// What became of what it holds.
fn stands(held: &Held, now_ms: i64) -> Markup {
    let (holding, grant) = (&held.holding, &held.holding.grant);
    let said = match (holding.dead_ms, grant.phase) {
        (Some(dead_ms), _) => html! { span.said.green { "seen dead" } " " small { (words::moment(dead_ms, now_ms)) } },
        // What became of that, its case says: it may be held, or its issuer may not know it any more.
        (None, GrantPhase::Cut) if held.case.is_some() => html! { span.said.amber { "to be ended" } },
        (None, GrantPhase::Cut) => html! { span.said.plain { "was to be ended, not seen dead" } },
        (None, GrantPhase::Released) => html! { span.said.plain { "released" } },
        (None, GrantPhase::Held) => match holding.expires_ms {
            Some(at) => html! { small { "expires " (words::moment(at, now_ms)) } },
            None => html! { small { "no end of its own" } },
        },
    };
    html! {
        @if grant.tenure == Tenure::Standing { (words::chip("plain", "standing")) " " }
        (said)
        @if let Some(case) = held.case { " " a href=(words::case_path(case)) { "case" } }
    }
}

/// The page of tasks.
pub fn list(holders: &[Holder], now_ms: i64) -> Markup {
    html! {
        div.headline { h1 { "Tasks" } p { "Those that live, the next that is over first: at its deadline, or when it has been silent for too long." } }
        section.card { (table(holders, now_ms)) }
    }
}

/// What the tab of the browser says.
pub fn title(holder: &Holder) -> String {
    holder.task.name.clone().unwrap_or_else(|| holder.task.run.to_string())
}

/// The page of one task.
pub fn one(holder: &Holder, now_ms: i64) -> Markup {
    let task = &holder.task;
    let state = match task.phase {
        Phase::Expected => words::chip("blue", "expected"),
        Phase::Running => words::chip("blue", "running"),
        Phase::Ended => words::chip("plain", "ended"),
    };
    let text = |text: &Option<String>| text.as_deref().map(words::whole);
    let at = |ms: Option<i64>| ms.map(|ms| words::full(ms, now_ms));
    let facts = [
        ("Run", Some(words::whole(task.run.as_str()))),
        (
            "Part of",
            task.within
                .as_ref()
                .map(|run| html! { a href=(words::task_path(&task.tenant, run)) { (words::whole(run.as_str())) } }),
        ),
        ("Source", Some(words::whole(&task.source))),
        ("Who", text(&task.identity)),
        ("Tenant", Some(words::whole(&task.tenant))),
        ("Attempt", (task.attempt > 1).then(|| html! { (task.attempt) })),
        ("Started", at(task.started_ms)),
        ("Deadline", Some(words::full(task.deadline_ms, now_ms))),
        ("Deadline asked for", at(task.clamped_from_ms)),
        ("Last sign of life", at(task.last_beat_ms)),
        ("Heartbeats", task.heartbeat_every_ms.map(|ms| html! { "every " (crate::case::said::span(ms)) })),
        ("Ended", at(task.ended_ms)),
        ("Outcome", text(&task.outcome)),
    ];
    let row = |held: &Held| {
        let grant = &held.holding.grant;
        vec![
            words::credential(&grant.credential),
            stands(held, now_ms),
            html! { (held.holding.principal.as_deref().map_or_else(|| html! { span.none { "–" } }, words::name)) },
            words::moment(grant.registered_ms, now_ms),
            html! { @for topic in &grant.topics { (words::name(topic)) " " } },
        ]
    };
    let head = ["Credential", "Stands", "User", "Granted", "Said by"];
    html! {
        div.headline { h1 { (words::whole(&title(holder))) } p { (state) } }
        (frame::card("The run", html! {}, facts_list(&facts)))
        (frame::card("What it holds", html! {}, html! {
            @if holder.holds.is_empty() { (frame::empty("Nobody has said that it holds anything.")) }
            @else { (frame::table(&head, holder.holds.iter().map(row).collect())) }
            @if holder.more { p.none { "And more: " (words::command("curfew tasks --json")) } }
        }))
    }
}

/// Names and what they are; what is not known is left out.
pub fn facts_list(facts: &[(&str, Option<Markup>)]) -> Markup {
    html! {
        dl { @for (name, fact) in facts { @if let Some(fact) = fact { div { dt { (name) } dd { (fact) } } } } }
    }
}
