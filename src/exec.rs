//! `curfew exec`: one command as one task, with credentials of its own that end with it.
//!
//! The order is the promise. Curfew has the task before Vault is asked, and each grant before the command sees it; so
//! whatever is killed in between, somebody knows of it: Curfew by the deadline and the heartbeats, Vault by the TTL of the
//! task's token, from which all the rest hangs. At the end the token is revoked here and Curfew is told, each without the
//! other: either alone is enough.

pub mod child;
pub mod events;
pub mod hand;
pub mod names;
pub mod say;
pub mod times;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use rustix::process::Signal;
use secrecy::SecretString;
use tokio::time::{Instant, sleep, sleep_until};

use crate::case::record::FailureKind;
use crate::clock;
use crate::connector::Failure;
use crate::connector::vault::mint::{Issuer, Minted, TaskToken};
use crate::credential::{CredentialId, Kind};
use crate::tell::{self, Teller};
use child::{Child, Signals, Told};
use events::{Held, Run};
use hand::{Folder, Variables};
use names::{Mapping, Role};
use say::{Left, Summary};
use times::{End, Times};

/// Between two tries at the end: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

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
        let prepared = tokio::select! {
            biased;
            (signal, name) = signals.ending() => Err(Stop::Told(signal, name)),
            prepared = self.prepare(&times, &mut have) => prepared,
        };
        let started = match prepared {
            Ok(variables) => self.start(&variables),
            Err(stop) => Err(stop),
        };
        let (code, outcome, end) = match started {
            Ok(child) => {
                let (end, was_late, was_stopped) = self.watch(&child, &times, &have, &mut signals).await;
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

    /// All before the command: in this order, each step durable before the next.
    async fn prepare(&self, times: &Times, have: &mut Have) -> Result<Variables, Stop> {
        let plan = self.plan;
        self.look_at_own(times).await?;
        self.tell_start(times, have).await?;
        let left = || times.left(self.clock.wall_ms());
        let key = plan.run.key();
        let token = self.issuer.task_token(&plan.policies, key.as_str(), left()).await;
        let token = have.token.insert(token.map_err(|failure| Stop::vault("a token for the task", &failure))?);
        if token.ttl < left() {
            let at = events::text_of(self.clock.wall_ms() + millis(token.ttl));
            (self.say)(&format!(
                "Vault bounds the task's token to {at}: the credentials end then, before the deadline"
            ));
        }
        if plan.give_token {
            let credential = self.named(Kind::VaultToken, &token.accessor)?;
            have.held.push(Held { credential, principal: None, expires_ms: self.clock.wall_ms() + millis(token.ttl) });
        }
        let minted = self.mint(token, times, &mut have.held).await?;
        let variables = self.hand_over(token, &minted, times, &mut have.folder).await?;
        drop(minted);
        have.variables = variables.names().into_iter().map(str::to_owned).collect();
        self.tell_grants(have).await?;
        Ok(variables)
    }

    /// Whether the caller's token is good, and lives long enough: what is minted by a token dies with it.
    async fn look_at_own(&self, times: &Times) -> Result<(), Stop> {
        let own = self.issuer.own().await.map_err(|failure| Stop::vault("Vault", &failure))?;
        let left = times.left(self.clock.wall_ms());
        let mut ttl = own.ttl;
        if own.renewable
            && ttl.is_some_and(|ttl| ttl < left)
            && let Ok(longer) = self.issuer.renew_own(left + Duration::from_secs(1)).await
        {
            ttl = Some(longer);
        }
        if let Some(ttl) = ttl.filter(|ttl| *ttl < left) {
            let at = events::text_of(self.clock.wall_ms() + millis(ttl));
            (self.say)(&format!(
                "your own Vault token ends at {at}, and all that is minted with it, before the deadline"
            ));
        }
        Ok(())
    }

    async fn tell_start(&self, times: &Times, have: &mut Have) -> Result<(), Stop> {
        let told = match &self.teller {
            Ok(teller) => {
                have.told = true;
                teller.tell(&[self.plan.run.started(times, self.plan.heartbeat.map(millis))]).await
            }
            Err(error) => Err(error.clone()),
        };
        match told {
            Ok(()) => {
                have.registered = true;
                Ok(())
            }
            Err(error) => {
                // Refused as it stands, or nobody there: then there is nothing to end either.
                have.told = matches!(&error, tell::Error::Unavailable(_)) && self.teller.is_ok();
                self.unless_unregistered(&error)
            }
        }
    }

    /// Curfew was not told: only with the user's own word it goes on.
    fn unless_unregistered(&self, error: &tell::Error) -> Result<(), Stop> {
        if self.plan.unregistered {
            (self.say)(&say::unregistered(&error.to_string()));
            return Ok(());
        }
        let text = say::not_registered(error);
        Err(match error {
            tell::Error::Unavailable(_) => Stop::Unavailable(text),
            tell::Error::Refused(_) => Stop::Refused(text),
        })
    }

    /// All roles at once: all of them, or none.
    async fn mint(&self, token: &TaskToken, times: &Times, held: &mut Vec<Held>) -> Result<Vec<Minted>, Stop> {
        let all = join_all(self.plan.roles.iter().map(async |role| {
            let mut minted = self.issuer.mint(token, &role.path).await?;
            let left = times.left(self.clock.wall_ms());
            if minted.renewable && minted.ttl != left {
                // What fails here leaves it as it was: the token bounds it anyway.
                if let Ok(ttl) = self.issuer.bound(token, &minted.lease, left).await {
                    minted.ttl = ttl;
                }
            }
            Ok::<Minted, Failure>(minted)
        }))
        .await;
        let mut minted = Vec::new();
        let mut failed = None;
        for (role, one) in self.plan.roles.iter().zip(all) {
            match one {
                Ok(one) => {
                    let expires_ms = self.clock.wall_ms() + millis(one.ttl.min(token.ttl));
                    let principal = one.principal().map(str::to_owned);
                    held.push(Held { credential: self.named(Kind::VaultLease, &one.lease)?, principal, expires_ms });
                    if one.ttl + Duration::from_secs(2) < times.left(self.clock.wall_ms()) {
                        let at = events::text_of(expires_ms);
                        (self.say)(&format!("Vault bounds {} to {at}: it ends then, before the deadline", role.path));
                    }
                    minted.push(one);
                }
                Err(failure) => failed = failed.or(Some(Stop::vault(&role.path, &failure))),
            }
        }
        match failed {
            None => Ok(minted),
            Some(stop) => Err(stop),
        }
    }

    fn named(&self, kind: Kind, id: &str) -> Result<CredentialId, Stop> {
        CredentialId::new(kind, &self.plan.realm, id)
            .map_err(|error| Stop::Refused(format!("what Vault made cannot be named ({error}): is --realm right?")))
    }

    async fn hand_over(
        &self,
        token: &TaskToken,
        minted: &[Minted],
        times: &Times,
        folder: &mut Option<Folder>,
    ) -> Result<Variables, Stop> {
        let plan = self.plan;
        let mut variables = Variables::default();
        variables.set("CURFEW_RUN", plan.run.key().to_string());
        variables.set("CURFEW_DEADLINE", events::text_of(times.deadline_ms));
        if plan.give_token {
            variables.0.insert("VAULT_TOKEN".to_owned(), token.token.clone());
        }
        let fields: Vec<Vec<String>> = minted.iter().map(|one| one.fields.keys().cloned().collect()).collect();
        let suffix = if matches!(plan.way, Way::Files(_)) { "_FILE" } else { "" };
        let places = names::places(&plan.roles, &plan.mappings, &fields, suffix).map_err(Stop::Refused)?;
        let files = match &plan.way {
            Way::Files(base) if !places.is_empty() => {
                let made = Folder::new(base).map_err(|error| unusable(base, &error))?;
                variables.set("CURFEW_CREDENTIALS", made.path().display().to_string());
                Some(&*folder.insert(made))
            }
            _ => None,
        };
        if plan.way == Way::Wrapped {
            let left = times.left(self.clock.wall_ms());
            for (role, one) in plan.roles.iter().zip(minted) {
                let wrapped = self.issuer.wrap(token, &one.fields, left).await;
                let wrapped = wrapped.map_err(|failure| Stop::vault("response wrapping", &failure))?;
                variables.0.insert(format!("{}_WRAPPED_TOKEN", role.prefix()), wrapped);
            }
            return Ok(variables);
        }
        let empty = SecretString::default();
        for place in places {
            let value = minted.get(place.role).and_then(|one| one.fields.get(&place.field)).unwrap_or(&empty);
            match files {
                None => {
                    variables.0.insert(place.variable, value.clone());
                }
                Some(files) => {
                    let name = place.variable.strip_suffix("_FILE").unwrap_or(&place.variable);
                    let path = files.put(name, value).map_err(|error| unusable(files.path(), &error))?;
                    variables.set(&place.variable, path.display().to_string());
                }
            }
        }
        match variables.unfit() {
            None => Ok(variables),
            Some(name) => Err(Stop::Refused(format!("{name} cannot be in an environment: hand it over by --file"))),
        }
    }

    /// Durable before the command sees them.
    async fn tell_grants(&self, have: &Have) -> Result<(), Stop> {
        let Ok(teller) = &self.teller else { return Ok(()) };
        if !have.registered {
            return Ok(());
        }
        let grants: Vec<_> = have.held.iter().enumerate().map(|(nth, held)| self.plan.run.granted(nth, held)).collect();
        // Over HTTP side by side: what waits together becomes durable together.
        let told = join_all(grants.chunks(teller.together()).map(|chunk| teller.tell(chunk))).await;
        match told.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(error) => self.unless_unregistered(&error),
        }
    }

    fn start(&self, variables: &Variables) -> Result<Child, Stop> {
        let without = if self.plan.keep_vault_token { &[][..] } else { &["VAULT_TOKEN"][..] };
        let child = Child::spawn(&self.plan.file, &self.plan.args, without, variables);
        child.map_err(|error| Stop::Refused(format!("{}: {error}", self.plan.file.display())))
    }

    /// Until it ends: how, whether its time was over, and whether we were told to end.
    async fn watch(&self, child: &Child, times: &Times, have: &Have, signals: &mut Signals) -> (End, bool, bool) {
        let now_ms = self.clock.wall_ms();
        let at = |ms: i64| Instant::now() + Duration::from_millis(u64::try_from(ms - now_ms).unwrap_or(0));
        let (told_at, over_at) = (at(times.told_ms), at(times.deadline_ms));
        let (mut was_late, mut was_killed, mut was_stopped) = (false, false, false);
        let beats = self.beat(have);
        tokio::pin!(beats);
        if let Some(end) = child.ended() {
            return (end, false, false);
        }
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Child => {
                        if let Some(end) = child.ended() {
                            return (end, was_late, was_stopped);
                        }
                    }
                    Told::Signal(signal, _) => {
                        was_stopped |= !matches!(signal, Signal::USR1 | Signal::USR2);
                        child.pass(signal);
                    }
                },
                () = sleep_until(told_at), if !was_late => {
                    was_late = true;
                    (self.say)(&say::late(times));
                    child.tell(Signal::TERM);
                }
                () = sleep_until(over_at), if !was_killed => {
                    was_killed = true;
                    child.tell(Signal::KILL);
                }
                () = &mut beats => {}
            }
        }
    }

    /// Signs of life, for as long as somebody asks for the future.
    async fn beat(&self, have: &Have) {
        let (Ok(teller), Some(every), true) = (&self.teller, self.plan.heartbeat, have.registered) else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unheard = false;
        for nth in 1.. {
            ticks.tick().await;
            match teller.tell(&[self.plan.run.heartbeat(nth)]).await {
                Ok(()) => {
                    if unheard {
                        (self.say)("Curfew hears the heartbeats again");
                    }
                    unheard = false;
                }
                Err(error) => {
                    if !unheard {
                        (self.say)(&format!("Curfew does not hear the heartbeats ({error}); they go on"));
                    }
                    unheard = true;
                }
            }
        }
    }

    /// Revokes, and tells Curfew; each is tried for itself, for a bounded time. Answers what is left.
    async fn end(&self, outcome: &str, have: &mut Have, signals: &mut Signals) -> Left {
        // Files first: what is in them is about to be worth nothing.
        have.folder = None;
        let ended_ms = self.clock.wall_ms();
        let message = self.plan.run.ended(ended_ms, outcome, &have.held);
        let patient = self.plan.end_within;
        let hurry = tokio_util::sync::CancellationToken::new();
        let revoke = async {
            let Some(token) = &have.token else { return Ok(()) };
            let again = |failure: &Failure| !matches!(failure.kind, FailureKind::Denied | FailureKind::Refused);
            tries(patient, &hurry, again, || self.issuer.end(token)).await.map_err(|failure| failure.note)
        };
        let tell = async {
            let Ok(teller) = &self.teller else { return Err("it was never told of the task".to_owned()) };
            if !have.told {
                return Err("it was never told of the task".to_owned());
            }
            // Where not even the start came through, one more try is enough.
            let patient = if have.registered { patient } else { Duration::ZERO };
            let again = |error: &tell::Error| matches!(error, tell::Error::Unavailable(_));
            let told = tries(patient, &hurry, again, || teller.tell(std::slice::from_ref(&message))).await;
            told.map_err(|error| error.to_string())
        };
        let both = async { tokio::join!(revoke, tell) };
        tokio::pin!(both);
        let (revoked, told) = loop {
            tokio::select! {
                done = &mut both => break done,
                (_, name) = signals.ending(), if !hurry.is_cancelled() => {
                    (self.say)(&format!("{name}: the end is tried no longer"));
                    hurry.cancel();
                }
            }
        };
        Left {
            credentials: have.held.clone(),
            has_token: have.token.is_some(),
            revoked: revoked.err(),
            told: told.err(),
            registered: have.registered,
            dies_ms: have.held.iter().map(|held| held.expires_ms).max(),
        }
    }
}

/// Tries for `patient`, or until somebody is in a hurry; at least once.
async fn tries<E>(
    patient: Duration,
    hurry: &tokio_util::sync::CancellationToken,
    again: impl Fn(&E) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<(), E>,
) -> Result<(), E> {
    let until = Instant::now() + patient;
    let mut pause = AGAIN.0;
    loop {
        let error = match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !again(&error) || hurry.is_cancelled() || Instant::now() + pause > until {
            return Err(error);
        }
        tokio::select! { () = sleep(pause) => {}, () = hurry.cancelled() => {} }
        pause = (pause * 2).min(AGAIN.1);
    }
}

fn unusable(folder: &std::path::Path, error: &std::io::Error) -> Stop {
    Stop::Refused(format!("{} cannot be used for files: {error}", folder.display()))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
