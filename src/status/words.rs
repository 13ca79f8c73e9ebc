//! Names, times and states, as pages show them. PURE.

use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::case::record::Verdict;
use crate::case::said;
use crate::case::{Case, CaseId};
use crate::credential::CredentialId;
use crate::journal::shown::Group;
use crate::task::{RunKey, Task};

/// The longest name in a table, in characters; the rest is on the page about it.
const SHORT: usize = 72;
/// The longest text anywhere, in characters.
const LONG: usize = 2_000;
/// What stands in a path as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// Whether a character turns, hides or joins what is around it: a name with such ones looks like another name.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text of foreign origin: what cannot be seen is written out, and it has an end.
pub fn plain(text: &str) -> String {
    cut(text, LONG)
}

fn cut(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most * 4));
    for (n, c) in text.chars().enumerate() {
        if n == most {
            out.push('…');
            break;
        }
        if is_hidden(c) {
            out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A name in a table: short, and with all of it where somebody points.
pub fn name(text: &str) -> Markup {
    let short = cut(text, SHORT);
    let whole = (text.chars().count() > SHORT).then(|| plain(text));
    html! { bdi title=[whole] { (short) } }
}

/// A name, all of it.
pub fn whole(text: &str) -> Markup {
    html! { bdi { (plain(text)) } }
}

/// A moment as RFC 3339 in UTC, to the second.
fn clock(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"))
}

/// How far away it is: `12s ago`, `in 4m10s`. The script says it anew each second, in the same words.
pub fn relative(ms: i64, now_ms: i64) -> String {
    let away = ms.saturating_sub(now_ms);
    let whole = |ms: i64| if ms < 60_000 { format!("{}s", ms / 1_000) } else { said::span(ms) };
    if away > 0 { format!("in {}", whole(away)) } else { format!("{} ago", whole(-away)) }
}

/// A moment: how far away, and when.
pub fn moment(ms: i64, now_ms: i64) -> Markup {
    let at = clock(ms);
    html! { time datetime=(at) data-ms=(ms) title=(at) { (relative(ms, now_ms)) } }
}

/// A moment that comes: red when it has passed.
pub fn due(ms: i64, now_ms: i64) -> Markup {
    let at = clock(ms);
    html! { time.due.late[ms <= now_ms] datetime=(at) data-ms=(ms) title=(at) { (relative(ms, now_ms)) } }
}

/// A moment in full, and how far away.
pub fn full(ms: i64, now_ms: i64) -> Markup {
    let at = clock(ms);
    html! { span.mono { (at) } " " small { time datetime=(at) data-ms=(ms) { (relative(ms, now_ms)) } } }
}

/// A word with a colour.
pub fn chip(colour: &str, word: &str) -> Markup {
    html! { span class={ "chip " (colour) } { (word) } }
}

/// The colour of a group.
pub fn colour(group: Group) -> &'static str {
    match group {
        Group::MayBeAlive => "red",
        Group::AtWork => "blue",
        Group::Held => "amber",
    }
}

/// A state's word, as everywhere else, with its colour.
pub fn state(name: &str) -> Markup {
    let word = name.replace('_', " ");
    chip(if name == "closed" { "plain" } else { colour(Group::of_state(name)) }, &word)
}

/// P8's sentence: green is only what was seen dead.
pub fn verdict(of: &Verdict) -> Markup {
    let colour = match of {
        Verdict::Dead { residue, .. } | Verdict::Reduced { residue, .. } if residue.is_empty() => "green",
        Verdict::NotFound | Verdict::Obsolete => "plain",
        Verdict::Dead { .. }
        | Verdict::Reduced { .. }
        | Verdict::RolledBack { .. }
        | Verdict::DiesAt { .. }
        | Verdict::Alive { .. }
        | Verdict::Unknown { .. } => "amber",
    };
    let word = match of {
        Verdict::NotFound => "never found".to_owned(),
        other => said::verdict(other).replace('_', " "),
    };
    html! { span class={ "said " (colour) } { (word) } }
}

/// A credential in a table: what the issuer calls it, its kind and where.
pub fn credential(id: &CredentialId) -> Markup {
    html! {
        span.mono { (name(&id.id())) }
        small { (name(id.kind_name())) " at " (name(id.instance())) }
    }
}

/// The path of a case's page.
pub fn case_path(id: CaseId) -> String {
    format!("/status/cases/{id}")
}

/// The path of a task's page.
pub fn task_path(tenant: &str, run: &RunKey) -> String {
    format!("/status/tasks/{}/{}", utf8_percent_encode(tenant, KEPT), utf8_percent_encode(run.as_str(), KEPT))
}

/// The run of a case, as a link.
pub fn run(case: &Case) -> Markup {
    match &case.directive.run {
        Some(run) => html! { a href=(task_path(&case.tenant, run)) { (name(run.as_str())) } },
        None => html! { span.none { "no task" } },
    }
}

/// A task: its name, or its run where it has none.
pub fn task(task: &Task) -> Markup {
    let label = task.name.as_deref().unwrap_or(task.run.as_str());
    html! {
        a href=(task_path(&task.tenant, &task.run)) { (name(label)) }
        @if task.name.is_some() { small { (name(task.run.as_str())) } }
    }
}

/// A command to be copied: one click marks all of it.
pub fn command(text: &str) -> Markup {
    html! { code.run tabindex="0" { (text) } }
}

/// A number with thin gaps between thousands.
pub fn number(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::from(if n < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}
