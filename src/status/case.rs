//! The page of one case. PURE.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::tasks::facts_list;
use super::{frame, next, words};
use crate::case::plan::Plan;
use crate::case::record::{Answer, Record, Verdict};
use crate::case::state::Todo;
use crate::case::{Case, said};
use crate::credential::CredentialId;
use crate::journal::shown::Excerpt;

/// Lines of a timeline; what is beyond is left out of its middle.
const LINES: usize = 400;
/// Sightings that are shown, the newest.
const SIGHTINGS: usize = 20;
/// The longest text of what a decision saw, in characters.
const FACTS: usize = 600;

/// What the tab of the browser says.
pub fn title(excerpt: &Excerpt) -> String {
    let case = &excerpt.line.case;
    format!("{} {}", case.state.name().replace('_', " "), case.directive.credential.id())
}

/// The page.
pub fn body(excerpt: &Excerpt, now_ms: i64) -> Markup {
    let case = &excerpt.line.case;
    let done = done(excerpt);
    html! {
        div.headline {
            h1 { span.mono { (words::whole(&case.directive.credential.id())) } }
            p { (words::state(case.state.name())) " " (words::verdict(&excerpt.line.verdict)) }
        }
        (what_next(case))
        div.columns.even {
            div {
                (frame::card("The case", html! {}, facts(excerpt, now_ms)))
                @if let Some(finding) = about_finding(excerpt, now_ms) { (finding) }
            }
            div {
                (frame::card("Plan", plan_no(case), plan(case, &done)))
                (frame::card("Proof", html! {}, proof(excerpt, now_ms)))
            }
        }
        (frame::card("Timeline", html! {}, timeline(excerpt)))
    }
}

fn what_next(case: &Case) -> Markup {
    let next = next::of(case);
    html! {
        section.banner.amber[next.waits].quiet[!next.waits] {
            h2 { @if next.waits { "Waits for a person" } @else if case.state.is_closed() { "Over" } @else { "Goes on by itself" } }
            p { (next.say) }
            @for (to, run) in &next.run { p { (to) ": " (words::command(run)) } }
            p { "in a terminal: " (words::command(&format!("curfew case {}", case.id))) }
        }
    }
}

fn facts(excerpt: &Excerpt, now_ms: i64) -> Markup {
    let line = &excerpt.line;
    let case = &line.case;
    let (directive, state) = (&case.directive, &case.state);
    let known = excerpt.credential.as_ref();
    let text = |text: Option<&str>| text.map(words::whole);
    let at = |ms: Option<i64>| ms.map(|ms| words::full(ms, now_ms));
    let many =
        |all: &[String]| (!all.is_empty()).then(|| html! { @for one in all { span.mono { (words::whole(one)) } " " } });
    let residue: Vec<String> = residue(excerpt).iter().map(|one| one.replace('_', " ")).collect();
    let waits = state.todo() != Todo::Rest;
    facts_list(&[
        ("Case", Some(html! { span.mono { (case.id) } })),
        ("Credential", Some(html! { span.mono { (words::whole(directive.credential.as_str())) } })),
        ("Kind", Some(kind(&directive.credential))),
        ("User", text(case.principal.as_deref())),
        ("Owner", text(known.and_then(|known| known.owner.as_deref()))),
        ("Environment", text(known.and_then(|known| known.environment.as_deref()))),
        ("Tenant", Some(words::whole(&case.tenant))),
        ("Task", directive.run.as_ref().map(|_| words::run(case))),
        (
            "Action",
            Some(
                html! { (directive.action.as_str()) ", by " (directive.trigger.as_str().replace('_', " ")) ", " (said::word(&directive.urgency)) },
            ),
        ),
        ("Blast radius", case.blast.map(|blast| html! { (blast) })),
        ("Asked for on", Some(words::whole(&directive.topic))),
        ("System", Some(words::whole(&case.system))),
        ("Whose turn", text(said::turn(state).as_deref())),
        ("Task ended", at(directive.end_ms)),
        ("Not before", at(directive.not_before_ms)),
        ("Opened", at(Some(case.opened_ms))),
        ("Closed", at(line.closed_ms)),
        ("Next try", waits.then(|| words::full(line.due_ms, now_ms))),
        ("Issuer knew it", at(case.seen_ms)),
        ("Expires", at(known.and_then(|known| known.expires_ms))),
        ("Attempts at this step", (state.attempts > 0).then(|| html! { (state.attempts) })),
        ("Last failure", state.last_failure.map(|failure| html! { (failure.as_str()) })),
        ("Left behind", (!residue.is_empty()).then(|| html! { (residue.join(", ")) })),
        ("Provider's requests", many(&state.requests)),
    ])
}

/// What may outlive the credential, as its verdict says, else as far as it is known.
fn residue(excerpt: &Excerpt) -> Vec<String> {
    match &excerpt.line.verdict {
        Verdict::Dead { residue, .. } | Verdict::Reduced { residue, .. } => residue.iter().map(said::word).collect(),
        _ => excerpt.line.case.state.residue.iter().map(said::word).collect(),
    }
}

fn kind(id: &CredentialId) -> Markup {
    html! { (words::whole(id.kind_name())) " at " (words::whole(id.instance())) }
}

fn about_finding(excerpt: &Excerpt, now_ms: i64) -> Option<Markup> {
    let key = excerpt.line.case.directive.finding.as_deref()?;
    let body = match &excerpt.finding {
        None => html! { p { span.mono { (words::whole(key)) } } p.none { "The journal has forgotten the rest." } },
        Some(found) => facts_list(&[
            ("Finding", Some(html! { span.mono { (words::whole(&found.id())) } })),
            ("Detector", Some(words::whole(&found.detector))),
            ("Where", found.place.as_deref().map(words::whole)),
            ("Stands", Some(html! { (found.phase.as_str()) })),
            ("Works", Some(html! { (said::word(&found.validity)) })),
            ("Public", Some(html! { @if found.public { (words::chip("red", "yes")) } @else { "no" } })),
            ("Severity", found.severity.as_deref().map(words::whole)),
            ("Owner, perhaps", found.owner_hint.as_deref().map(words::whole)),
            ("First seen", Some(words::full(found.first_ms, now_ms))),
            ("Last seen", Some(words::full(found.last_ms, now_ms))),
        ]),
    };
    Some(html! { section.card #finding { div.head { h2 { "Finding" } } (body) } })
}

fn appends(excerpt: &Excerpt) -> impl Iterator<Item = &(i64, i64, Vec<Record>)> {
    excerpt.first.iter().chain(&excerpt.last)
}

/// How each step of the current plan ended.
fn done(excerpt: &Excerpt) -> BTreeMap<usize, &'static str> {
    let mut done = BTreeMap::new();
    for record in appends(excerpt).flat_map(|(.., records)| records) {
        match record {
            Record::Planned { .. } => done.clear(),
            Record::Observed { step, .. } => _ = done.insert(*step, "looked"),
            Record::Started { step, .. } => _ = done.insert(*step, "begun"),
            Record::Succeeded { step, .. } => _ = done.insert(*step, "done"),
            Record::Failed { step, .. } => _ = done.insert(*step, "failed"),
            Record::Passed { step, .. } => _ = done.insert(*step, "passed"),
            Record::Skipped { step, .. } => _ = done.insert(*step, "not needed"),
            Record::Proven { step, .. } => _ = done.insert(*step, "proven"),
            _ => {}
        }
    }
    done
}

fn plan_no(case: &Case) -> Markup {
    html! { @if case.state.plan_no > 1 { small { "plan " (case.state.plan_no) } } }
}

/// The steps, those that are over, the one it is at, and from where on nothing is undone.
fn plan(case: &Case, done: &BTreeMap<usize, &'static str>) -> Markup {
    let state = &case.state;
    let Some(plan) = &state.plan else { return frame::empty("No plan yet.") };
    let is_dead = state.is_closed() && state.series.refused > 0;
    html! {
        @if plan.undoes { p.none { "It takes back what an earlier plan did." } }
        ol.plan {
            @for (at, step) in plan.steps.iter().enumerate() {
                @let over = at < state.step || (is_dead && at == state.step);
                @let here = at == state.step && !state.is_closed();
                li.over[over].here[here] aria-current=[here.then_some("step")] {
                    span { (step.act.as_str().replace('_', " ")) " " small { (words::name(&step.connector)) " at " (words::name(&step.system)) @if let Some(place) = &step.place { " " (words::name(place)) } } }
                    span.end {
                        @if at == plan.pivot && !plan.undoes { small title="From here on it only goes forward" { "pivot" } " " }
                        @match done.get(&at) {
                            _ if is_dead && at == state.step => { "proven" }
                            Some(word) => { (word) }
                            None if over => { "over" }
                            None if here => { "next" }
                            None => {}
                        }
                    }
                }
            }
        }
    }
}

fn proof(excerpt: &Excerpt, now_ms: i64) -> Markup {
    let state = &excerpt.line.case.state;
    let series = &state.series;
    let sightings = appends(excerpt).flat_map(|(.., records)| records).filter_map(|record| match record {
        Record::Sighted { sighting, .. } => Some(sighting),
        _ => None,
    });
    let sightings: Vec<_> = sightings.collect();
    let newest = &sightings[sightings.len().saturating_sub(SIGHTINGS)..];
    let answer = |answer: Answer| match answer {
        Answer::Refused => words::chip("green", "refused"),
        Answer::Accepted => words::chip("red", "still accepted"),
        Answer::Unknown => words::chip("plain", "says nothing"),
    };
    html! {
        p {
            @match &excerpt.line.verdict {
                Verdict::Dead { level, sightings, at_ms, by, .. } => {
                    "Seen dead " (words::full(*at_ms, now_ms)) ", by " (sightings) " of its sightings, at the "
                    (said::word(level)) "; ended by " (said::word(by)) "."
                }
                Verdict::Reduced { at_ms, sightings, .. } => { "Seen reduced " (words::full(*at_ms, now_ms)) ", by " (sightings) " of its sightings." }
                _ if series.refused > 0 => { (series.refused) " refused in a row" @if let Some(first_ms) = series.first_ms { ", since " (words::full(first_ms, now_ms)) } "." }
                _ => { "Nothing proves it dead yet." }
            }
            @if series.broken > 0 { " A late success began the series anew " (series.broken) "×." }
        }
        @if !newest.is_empty() {
            ol.sightings {
                @for one in newest {
                    li { (answer(one.answer)) " " (words::full(one.at_ms, now_ms)) " " small { "at the " (said::word(&one.level)) @if one.control { ", and the path works" } @else { ", without a control" } } }
                }
            }
        }
    }
}

/// A line of the timeline.
struct Moment {
    at_ms: i64,
    what: &'static str,
    colour: &'static str,
    detail: Markup,
}

fn timeline(excerpt: &Excerpt) -> Markup {
    let mut all: Vec<Moment> = Vec::new();
    for event in &excerpt.events {
        let facts = event.facts.as_object().filter(|facts| !facts.is_empty()).map(|_| event.facts.to_string());
        let facts = facts.map(|facts| facts.chars().take(FACTS).collect::<String>());
        let detail = html! {
            (words::whole(&event.kind)) " from " (words::whole(&event.source)) " → " (event.verb) " (" (event.reason.replace('_', " ")) ")"
            @if let Some(facts) = facts { details { summary { "what was seen" } code { (words::plain(&facts)) } } }
        };
        all.push(Moment { at_ms: event.broker_ms, what: "event", colour: "plain", detail });
    }
    let mut plan: Option<&Plan> = None;
    let gap = excerpt.first.last().map(|(seq, ..)| *seq).filter(|_| excerpt.left_out > 0);
    for (seq, at_ms, records) in appends(excerpt) {
        for record in records {
            // Steps are numbered by the plan that was followed then, which later ones may have replaced.
            if let Record::Planned { plan: made, .. } = record {
                plan = Some(made);
            }
            let detail = html! { (words::whole(&said::record(record, plan))) };
            all.push(Moment { at_ms: *at_ms, what: record.name(), colour: colour(record), detail });
        }
        if gap == Some(*seq) {
            plan = None;
            let detail = html! { (words::number(excerpt.left_out)) " appends are left out" };
            all.push(Moment { at_ms: *at_ms, what: "…", colour: "plain", detail });
        }
    }
    // Stable: records of one append stay in order.
    all.sort_by_key(|moment| moment.at_ms);
    let skipped = all.len().saturating_sub(LINES);
    if skipped > 0 {
        all.drain(LINES / 2..LINES / 2 + skipped);
    }
    let mut before = all.first().map_or(0, |first| first.at_ms);
    let rows = all.iter().map(|moment| {
        let gap_ms = moment.at_ms - std::mem::replace(&mut before, moment.at_ms);
        vec![
            html! { time.mono datetime=(said::time(moment.at_ms)) { (said::time(moment.at_ms).replace('T', " ")) } },
            html! { span.gap.long[gap_ms >= 60_000] { @if gap_ms > 0 { "+" (said::span(gap_ms)) } } },
            html! { (words::chip(moment.colour, moment.what)) },
            html! { (moment.detail) },
        ]
    });
    let table = frame::table(&["When", "After", "What", "Detail"], rows.collect());
    html! {
        div.timeline { (table) }
        @if skipped > 0 { p.none { (skipped) " lines are left out of the middle." } }
        @if excerpt.more_events { p.none { "More events link to it." } }
    }
}

fn colour(record: &Record) -> &'static str {
    match record {
        Record::Closed { verdict: Verdict::Dead { .. } | Verdict::Reduced { .. } } | Record::Proven { .. } => "green",
        Record::Failed { .. } => "red",
        Record::Held { .. } | Record::Kept { .. } | Record::Abandoned { .. } => "amber",
        Record::Sighted { sighting, .. } => match sighting.answer {
            Answer::Refused => "green",
            Answer::Accepted => "red",
            Answer::Unknown => "plain",
        },
        Record::Started { .. } | Record::Succeeded { .. } => "blue",
        _ => "plain",
    }
}
