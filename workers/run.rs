//! `curfew run`: the chosen roles in one process. A checklist: each line is one thing that must stand before the next.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use curfew::config::Config;
use curfew::deadlines::ClockTrust;
use curfew::fingerprint::Keyring;
use curfew::intake::Intake;
use curfew::metrics::Metrics;
use curfew::relay::Backlog;
use curfew::{clock, event, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::args::Role;
use crate::process::{Process, Tasks};
use crate::{
    Failed, accounts, bind, canary, deadlines, enforce, feedback, intake, inventory, keys, kubernetes, link, reach,
    reconcile, relay, serve,
};

/// Which part of the work is this process's.
#[derive(Debug, Clone)]
pub struct Share {
    /// Never empty.
    pub roles: BTreeSet<Role>,
    /// Of `enforce` and `reconcile`.
    pub part: enforce::Part,
}

impl Share {
    /// Whether other processes must do what this one does not.
    fn is_apart(&self) -> bool {
        self.roles.len() < Role::ALL.len() || !self.part.realms.is_empty() || !self.part.actions.is_empty()
    }

    fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Runs until it is told to end.
pub async fn run(config: Config, share: Share) -> Result<(), Failed> {
    telemetry::start(&config.log, std::env::var("RUST_LOG").ok().as_deref()).map_err(anyhow::Error::from)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if share.is_apart() {
        link::shared(&config)?;
    }
    let mut told = Signals::listen()?;
    let journal = tokio::select! {
        journal = link::open(&config) => journal?,
        signal = told.next() => {
            tracing::info!(signal, "curfew ended before it began");
            return Ok(());
        }
    };
    let clock = clock::System::shared();
    let trust = ClockTrust::new(clock.clone());
    let process = Process {
        worker: Uuid::new_v4(),
        intake: Intake {
            journal: journal.clone(),
            rules: config.rules.clone(),
            limits: event::Limits::default(),
            clock: clock.clone(),
            metrics: Arc::new(Metrics::new()),
            stirred: Arc::new(Notify::new()),
            trust: Some(trust.clone()),
            types: Some(Arc::new(config.says())),
        },
        reach: reach::kept(&config, &journal),
        config: Arc::new(config),
        clock,
        trust,
        backlog: Arc::new(Backlog::default()),
        outbox: Arc::new(Notify::new()),
        started: Arc::new(AtomicBool::new(false)),
        tasks: Tasks::default(),
    };
    let (config, tasks) = (&process.config, &process.tasks);
    process.intake.metrics.canary_configured(config.canary.is_some());

    // What operators and Prometheus need comes first: it must answer while the rest waits for Kafka or Vault.
    if share.has(Role::Serve) {
        serve::operators(&process)?;
        serve::page(&process).await;
    }
    serve::observe(&process, &journal, share.has(Role::Serve)).await?;
    let ended = told.end(tasks);

    let outcome = tokio::select! {
        () = tasks.cancel.cancelled() => Ok(()),
        outcome = start(&process, &share) => outcome,
    };
    match outcome {
        Ok(()) if !tasks.cancel.is_cancelled() => {
            process.started.store(true, Ordering::Release);
            let roles: Vec<&str> = share.roles.iter().map(|role| role.as_str()).collect();
            let journal = config.journal_name();
            tracing::info!(journal, enforces = config.enforces(), roles = roles.join(","), "curfew runs");
            tasks.cancel.cancelled().await;
        }
        Ok(()) => {}
        Err(failed) => {
            tasks.end(config.limits.shutdown_ms).await;
            return Err(failed);
        }
    }
    process.started.store(false, Ordering::Release);
    tasks.end(config.limits.shutdown_ms).await;
    if let Err(error) = process.intake.journal.leave(process.worker).await {
        tracing::warn!(%error, "others take over when this process's leases end");
    }
    match tasks.failed() {
        Some(why) => Err(Failed::Other(anyhow::anyhow!(why))),
        None => {
            tracing::info!(signal = ended.lock().unwrap_or_else(PoisonError::into_inner).as_str(), "curfew ended");
            Ok(())
        }
    }
}

/// The way out, the ways in, what acts, and what notices what nobody said.
async fn start(process: &Process, share: &Share) -> Result<(), Failed> {
    relay::hold_if_older(process).await?;
    if share.has(Role::Relay) {
        relay::start(process)?;
        feedback::start(process)?;
    }
    if share.has(Role::Intake) {
        intake::start(process, share.has(Role::Relay))?;
    }
    let fingerprints = keys_for(process, share).await?;
    if share.has(Role::Serve) {
        serve::events(process, fingerprints.clone()).await?;
    }
    if share.has(Role::Enforce) {
        enforce::start(process, &share.part, link::is_shared(&process.config)).await?;
    }
    if share.has(Role::Deadlines) {
        deadlines::start(process);
    }
    if share.has(Role::Reconcile) {
        reconcile::start(process, &share.part.realms).await?;
    }
    if share.has(Role::Inventory) {
        inventory::start(process, &share.part.realms, fingerprints.as_ref()).await?;
        accounts::start(process, &share.part.realms).await?;
    }
    if share.has(Role::Bind) {
        bind::start(process, &share.part.realms).await?;
    }
    if share.has(Role::Kubernetes) {
        kubernetes::start(process);
    }
    if share.has(Role::Canary) {
        canary::start(process)?;
    }
    if share.has(Role::Reach) {
        reach::start(process, &share.part.realms).await?;
    }
    Ok(())
}

/// Only what fingerprints gets the keys.
async fn keys_for(process: &Process, share: &Share) -> Result<Option<Keyring>, Failed> {
    let config = &process.config;
    let reports = share.has(Role::Serve) && config.http.is_some();
    let reads = share.has(Role::Inventory) && config.reads_values();
    if reports || reads { keys::open(process).await } else { Ok(None) }
}

/// SIGTERM and SIGINT end the process in good order, also while it starts.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failed> {
        let of = |kind| signal(kind).map_err(|e| Failed::from(anyhow::Error::from(e)));
        Ok(Self { term: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// The name of the signal, once it came: by then `tasks` were told to end.
    fn end(mut self, tasks: &Tasks) -> Arc<Mutex<String>> {
        let ended = Arc::new(Mutex::new(String::new()));
        let (cancel, by) = (tasks.cancel.clone(), ended.clone());
        tasks.spawn("signals", async move {
            let name = tokio::select! {
                name = self.next() => name,
                () = cancel.cancelled() => return,
            };
            tracing::info!(signal = name, "ending");
            name.clone_into(&mut by.lock().unwrap_or_else(PoisonError::into_inner));
            cancel.cancel();
        });
        ended
    }
}
