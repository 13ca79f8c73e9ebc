//! What stands around each page. PURE.

use maud::{DOCTYPE, Markup, html};

use super::{View, words};

/// Which part of the page one is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    /// None of those in the bar.
    None,
    /// The start page.
    Start,
    /// Open cases.
    Cases,
    /// Tasks.
    Tasks,
}

/// How often a page without its script is read anew, in seconds.
const EVERY_SECS: u32 = 10;

/// A whole page.
pub fn page(title: &str, tab: Tab, body: Markup, now_ms: i64) -> Markup {
    let link =
        |to: &str, of: Tab, word: &str| html! { a href=(to) aria-current=[(of == tab).then_some("page")] { (word) } };
    html! {
        (DOCTYPE)
        html lang="en" data-now=(now_ms) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (words::plain(title)) " · Curfew" }
                link rel="icon" href="/status/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/status/page.css";
                script src="/status/page.js" defer {}
                noscript { meta http-equiv="refresh" content=(EVERY_SECS); }
            }
            body {
                a.skip href="#page" { "To the content" }
                header {
                    a.home href="/status" { "Curfew" }
                    nav aria-label="Pages" {
                        (link("/status", Tab::Start, "Now"))
                        (link("/status/cases", Tab::Cases, "Open cases"))
                        (link("/status/tasks", Tab::Tasks, "Tasks"))
                    }
                    p.live #live {
                        span.dot aria-hidden="true" {}
                        span.word role="status" { noscript { "every " (EVERY_SECS) " s" } }
                        " " small { "as of " time datetime=(stamp(now_ms)) { (stamp(now_ms)) } }
                        " " a href="" { "Reload" }
                    }
                }
                main #page { (body) }
                footer { "It reads the journal and changes nothing. Times are UTC. Commands are for the machine on which this Curfew runs." }
            }
        }
    }
}

fn stamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"))
}

/// There is no such thing.
pub fn nothing(view: &View) -> Markup {
    let what = match view {
        View::Case(_) => {
            "There is no case with this id: it was never opened here, or it is older than the journal keeps."
        }
        View::Task(..) => {
            "No task with this run is known here: nobody told of it, or it is older than the journal keeps."
        }
        View::Start | View::Cases(..) | View::Tasks => "There is no such page.",
    };
    html! { section.card { h1 { "Not found" } p { (what) } p { a href="/status" { "To what happens now" } } } }
}

/// The journal does not answer.
pub fn no_answer() -> Markup {
    html! {
        section.banner.red {
            h1 { "The journal does not answer" }
            p { "Nothing can be said of what lives and what is dead. No effect starts without the journal. What is wrong stands in the log of this process." }
        }
    }
}

/// A card with a title, and perhaps a link beside it.
pub fn card(title: &str, beside: Markup, body: Markup) -> Markup {
    html! { section.card { div.head { h2 { (title) } (beside) } (body) } }
}

/// A table whose rows fold into blocks where there is little room: each cell then says of what it is.
pub fn table(head: &[&str], rows: Vec<Vec<Markup>>) -> Markup {
    html! {
        table {
            thead { tr { @for name in head { th scope="col" { (name) } } } }
            tbody { @for row in rows { tr { @for (cell, name) in row.into_iter().zip(head) { td data-l=(name) { (cell) } } } } }
        }
    }
}

/// Where a list is empty.
pub fn empty(text: &str) -> Markup {
    html! { p.none { (text) } }
}
