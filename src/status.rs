//! The status page: what Curfew does now, for people who watch. It reads, and changes nothing.
//!
//! - [`facts`]: what a page is made of, gathered from the journal, the freeze file and the configuration
//! - `frame`, `start`, `cases`, `case`, `tasks`, `next`, `words`: pages from facts, PURE
//! - [`shared`]: one picture of each page for all who watch it
//!
//! Names come from events: they are hostile. All text is escaped by the templates, and what would turn or hide text
//! ([`words::plain`]) is written out.

mod case;
mod cases;
pub mod facts;
mod frame;
mod next;
pub mod shared;
mod start;
mod tasks;
#[cfg(test)]
mod tests;
pub mod words;

use maud::Markup;

pub use self::cases::place;
use self::facts::{Board, Found, Listed};
use crate::case::CaseId;
use crate::journal::shown::{Excerpt, Group, Holder, Place};
use crate::task::{RunKey, Tenant};

/// The style of all pages.
pub const CSS: &str = include_str!("status/web/page.css");
/// The script that keeps a page up to date.
pub const SCRIPT: &str = include_str!("status/web/page.js");
/// The icon.
pub const ICON: &str = include_str!("status/web/icon.svg");

/// What can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum View {
    /// The start page.
    Start,
    /// Open cases, page by page.
    Cases(Option<Group>, Option<Place>),
    /// One case.
    Case(CaseId),
    /// The tasks that are over next.
    Tasks,
    /// One task.
    Task(Tenant, RunKey),
}

/// What a view showed.
#[derive(Debug, Clone)]
pub enum Seen {
    /// The start page.
    Start(Box<Board>),
    /// Open cases.
    Cases(Listed),
    /// One case.
    Case(Box<Excerpt>),
    /// Tasks.
    Tasks(Vec<Holder>),
    /// One task.
    Task(Box<Holder>),
}

/// A page from what was found at `now_ms` (our clock); with it the status of HTTP.
pub fn page(view: &View, found: &Found, now_ms: i64) -> (u16, Markup) {
    let seen = match found {
        Found::Seen(seen) => seen,
        Found::Nothing => return (404, frame::page("Not found", frame::Tab::None, frame::nothing(view), now_ms)),
        Found::NoAnswer => return (503, frame::page("No answer", frame::Tab::None, frame::no_answer(), now_ms)),
    };
    let (title, tab, body) = match seen {
        Seen::Start(board) => (start::title(board), frame::Tab::Start, start::body(board, now_ms)),
        Seen::Cases(listed) => ("Open cases".to_owned(), frame::Tab::Cases, cases::body(listed, now_ms)),
        Seen::Case(excerpt) => (case::title(excerpt), frame::Tab::None, case::body(excerpt, now_ms)),
        Seen::Tasks(holders) => ("Tasks".to_owned(), frame::Tab::Tasks, tasks::list(holders, now_ms)),
        Seen::Task(holder) => (tasks::title(holder), frame::Tab::None, tasks::one(holder, now_ms)),
    };
    (200, frame::page(&title, tab, body, now_ms))
}
