//! `curfew exec`: one command as one task, with credentials of its own that end with it.
//!
//! The order is the promise. Curfew has the task before Vault is asked, and each grant before the command sees it; so
//! whatever is killed in between, somebody knows of it: Curfew by the deadline and the heartbeats, Vault by the TTL of the
//! task's token, from which all the rest hangs. At the end the token is revoked here and Curfew is told, each without the
//! other: either alone is enough.

pub mod child;
mod end;
pub mod events;
pub mod hand;
pub mod names;
mod prepare;
pub mod say;
pub mod times;
mod watch;
pub mod within;

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Notify;

use crate::case::record::FailureKind;
use crate::clock;
use crate::connector::Failure;
use crate::connector::vault::mint::{Issuer, TaskToken};
use crate::tell::{self, Teller};
use child::{Child, Signals};
use events::{Held, Run};
use hand::{Folder, Variables};
use names::{Mapping, Role};
use say::Summary;
use times::{End, Times};
use within::Reach;

/// How the command gets its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// In variables.
    Environment,
    /// In files below this folder, which variables name.
    Files(PathBuf),
    /// Behind Vault's wrapping tokens, which variables hold.
    Wrapped,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What Curfew calls it.
    pub run: Run,
    /// What Curfew calls the Vault.
    pub realm: String,
    /// What is minted.
    pub roles: Vec<Role>,
    /// Variables of other names.
    pub mappings: Vec<Mapping>,
    /// The boundary: the only policies of the task's token; none: the caller's.
    pub policies: Vec<String>,
    /// Whether the command gets the task's token.
    pub give_token: bool,
    /// How the command gets the rest.
    pub way: Way,
    /// The longest life.
    pub ttl: Duration,
    /// Between the word to end and the end.
    pub grace: Duration,
    /// Between two signs of life.
    pub heartbeat: Option<Duration>,
    /// Whether it may run where Curfew does not know of it.
    pub unregistered: bool,
    /// Whether the command keeps the caller's token.
    pub keep_vault_token: bool,
    /// How long the end is tried.
    pub end_within: Duration,
    /// What is run.
    pub file: PathBuf,
    /// What it is called with, its own name first.
    pub args: Vec<OsString>,
}

/// Why the command was not started.
#[derive(Debug)]
enum Stop {
    /// 69: what it needs does not answer.
    Unavailable(String),
    /// 125: it cannot be had like this.
    Refused(String),
    /// 128 + n: we were told to end first.
    Told(Signal, &'static str),
}

impl Stop {
    fn vault(what: &str, failure: &Failure) -> Self {
        let text = format!("{what}: {}", failure.note);
        match failure.kind {
            FailureKind::Unavailable | FailureKind::Throttled { .. } | FailureKind::Unknown => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Unavailable(_) => 69,
            Self::Refused(_) => 125,
            Self::Told(signal, _) => times::exit_code(End::Signal(signal.as_raw()), false),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Unavailable(why) | Self::Refused(why) => format!("{why}; the command was not started"),
            Self::Told(_, name) => format!("{name} came before the command was started"),
        }
    }
}

/// What there is by now: what has to be ended, however far it came.
#[derive(Default)]
struct Have {
    /// Curfew was told of the start, or may have been.
    told: bool,
    /// Curfew has the start.
    registered: bool,
    token: Option<TaskToken>,
    /// When the token dies by itself, and all that hangs from it.
    dies_ms: Option<i64>,
    held: Vec<Held>,
    folder: Option<Folder>,
    variables: Vec<String>,
}

/// What runs one command.
pub struct Exec<'a> {
    /// What is asked for.
    pub plan: &'a Plan,
    /// Vault.
    pub issuer: &'a Issuer,
    /// Curfew; `Err`: why it cannot be told.
    pub teller: Result<&'a Teller, tell::Error>,
    /// Whose reach is asked what the plan's roles and policies open; `None`: nobody's.
    pub reach: Option<&'a Reach>,
    /// The clock.
    pub clock: clock::Shared,
    /// What the user is told, a line each.
    pub say: &'a dyn Fn(&str),
}

impl Exec<'_> {
    /// Runs it: exit code and summary.
    pub async fn run(&self, mut signals: Signals) -> (u8, Summary) {
        let times = Times::new(self.clock.wall_ms(), self.plan.ttl, self.plan.grace);
        let mut have = Have::default();
        // What a start promised holds from then on, however long Vault takes.
        let begun = Notify::new();
        let mut beats = pin!(self.beat(&begun));
        let prepared = tokio::select! {
            biased;
            (signal, name) = signals.ending() => Err(Stop::Told(signal, name)),
            prepared = self.prepare(&times, &mut have, &begun) => prepared,
            never = beats.as_mut() => match never {},
        };
        let started = match prepared {
            Ok(variables) => self.start(&variables),
            Err(stop) => Err(stop),
        };
        let (code, outcome, end) = match started {
            Ok(child) => {
                let (end, was_late, was_stopped) = self.watch(&child, &times, beats, &mut signals).await;
                let word = times::outcome(end, was_late, was_stopped);
                (times::exit_code(end, was_late), word, Some(end))
            }
            Err(stop) => {
                (self.say)(&stop.text());
                (stop.exit_code(), "rejected", None)
            }
        };
        let left = self.end(outcome, &mut have, &mut signals).await;
        for line in say::left(&left) {
            (self.say)(&line);
        }
        let summary = Summary {
            run: self.plan.run.key().to_string(),
            attempt: self.plan.run.attempt,
            outcome: outcome.to_owned(),
            exit_code: code,
            signal: end.and_then(|end| if let End::Signal(number) = end { Some(number) } else { None }),
            times,
            ended_ms: self.clock.wall_ms(),
            registered: have.registered,
            variables: have.variables,
            left,
        };
        (code, summary)
    }

    fn start(&self, variables: &Variables) -> Result<Child, Stop> {
        let without = if self.plan.keep_vault_token { &[][..] } else { &["VAULT_TOKEN"][..] };
        let child = Child::spawn(&self.plan.file, &self.plan.args, without, variables);
        child.map_err(|error| Stop::Refused(format!("{}: {error}", self.plan.file.display())))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
