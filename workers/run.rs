//! `curfew run`: every role in one process. A checklist: each line is one thing that must stand before the next.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use curfew::config::{Config, Kafka, Login, Realm, Reconcile as ReconcileConfig};
use curfew::connector::{Registry, postgres, vault};
use curfew::deadlines::ClockTrust;
use curfew::guard::{self, Mode};
use curfew::http::{self, Door};
use curfew::intake::Intake;
use curfew::journal::sqlite::Sqlite;
use curfew::kafka::consumer;
use curfew::kafka::settings::{Connection, Settings, Topic};
use curfew::metrics::Metrics;
use curfew::ops::operator::Operator;
use curfew::ops::server::Server;
use curfew::ops::{self, freeze_file};
use curfew::reconcile::{Reconcile, ReconcileSettings, Registrar};
use curfew::relay::{Backlog, NullRelay, Relay, Topics};
use curfew::{clock, event, telemetry};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Failed, link, wire};

/// Look-ups of newly registered credentials per second.
const LOOKUPS_PER_SECOND: u32 = 50;
/// Runs until it is told to end.
pub async fn run(config: Config) -> Result<(), Failed> {
    telemetry::start(&config.log, std::env::var("RUST_LOG").ok().as_deref()).map_err(anyhow::Error::from)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let config = Arc::new(config);
    let clock = clock::System::shared();
    let metrics = Arc::new(Metrics::new());
    let journal = link::open(&config)?;
    let trust = ClockTrust::new(clock.clone());
    let intake = Intake {
        journal: journal.clone(),
        rules: config.rules.clone(),
        limits: event::Limits::default(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        stirred: Arc::new(Notify::new()),
        trust: Some(trust.clone()),
        types: Some(Arc::new(config.says())),
    };
    let tasks = Tasks::default();
    let started = Arc::new(AtomicBool::new(false));

    // What operators and Prometheus need comes first: it must answer while the rest waits for Kafka or Vault.
    let operator = Operator { intake: intake.clone(), freeze_file: freeze_file::path_of(&config.journal) };
    let server = Server::bind(&config.socket).map_err(|error| Failed::Unavailable(error.to_string()))?;
    tasks.spawn("operators", server.run(operator, tasks.cancel.clone()));
    observe(&config, &intake, &journal, &started, &tasks).await?;
    let ended = listen_for_signals(&tasks)?;

    let outcome = tokio::select! {
        () = tasks.cancel.cancelled() => Ok(()),
        outcome = start(&config, &intake, &clock, &trust, &tasks) => outcome,
    };
    match outcome {
        Ok(()) if !tasks.cancel.is_cancelled() => {
            started.store(true, Ordering::Release);
            tracing::info!(journal = %config.journal.display(), enforces = config.enforces(), "curfew runs");
            tasks.cancel.cancelled().await;
        }
        Ok(()) => {}
        Err(failed) => {
            tasks.end(config.limits.shutdown_ms).await;
            return Err(failed);
        }
    }
    started.store(false, Ordering::Release);
    tasks.end(config.limits.shutdown_ms).await;
    match tasks.failed() {
        Some(why) => Err(Failed::Other(anyhow::anyhow!(why))),
        None => {
            tracing::info!(signal = ended.lock().unwrap_or_else(PoisonError::into_inner).as_str(), "curfew ended");
            Ok(())
        }
    }
}

/// Connectors, the way out, the ways in, and what notices what nobody said.
async fn start(
    config: &Arc<Config>,
    intake: &Intake,
    clock: &clock::Shared,
    trust: &Arc<ClockTrust>,
    tasks: &Tasks,
) -> Result<(), Failed> {
    let registry = Arc::new(connectors(config, clock).await?);
    let backlog = Arc::new(Backlog::default());
    let wake = Arc::new(Notify::new());
    match &config.kafka {
        Some(kafka) => with_kafka(config, kafka, intake, &backlog, &wake, tasks).await?,
        None => {
            let relay = NullRelay::new(intake.journal.clone(), wake.clone(), backlog.clone());
            let cancel = tasks.cancel.clone();
            tasks.spawn("relay", async move { relay.run(cancel).await });
        }
    }
    over_http(config, intake, tasks).await?;
    let executor = wire::executor(config, intake, uuid::Uuid::new_v4(), registry.clone(), trust.clone(), wake.clone());
    tasks.spawn("executor", executor.run(tasks.cancel.clone()));
    tasks.spawn("deadlines", wire::deadlines(config, intake, trust.clone()).run(tasks.cancel.clone()));
    let registrar = Registrar::new(intake.clone(), registry.clone(), LOOKUPS_PER_SECOND);
    let cancel = tasks.cancel.clone();
    tasks.spawn("registrar", async move { registrar.run(cancel).await });
    for realm in &config.realms {
        if let Some(settings) = &realm.reconcile {
            reconcile(config, realm, settings, intake, clock, tasks).await?;
        }
    }
    tasks.spawn("prune", wire::prune(config.clone(), intake.clone(), tasks.cancel.clone()));
    Ok(())
}

fn login(login: &Login) -> vault::Auth {
    match login {
        Login::Token(token) => vault::Auth::Token(token.clone()),
        Login::TokenFile(path) => vault::Auth::TokenFile(path.clone()),
        Login::AppRole { mount, role_id_file, secret_id_file } => vault::Auth::Approle {
            mount: mount.clone(),
            role_id_file: role_id_file.clone(),
            secret_id_file: secret_id_file.clone(),
        },
    }
}

fn vault_settings(realm: &Realm, auth: vault::Auth) -> vault::VaultSettings {
    let roles: BTreeSet<String> = realm.secret_id_roles.iter().map(|role| format!("{role}/")).collect();
    vault::VaultSettings {
        namespace: realm.vault.namespace.clone(),
        ca_file: realm.vault.ca_file.clone(),
        cluster_id: realm.vault.cluster_id.clone(),
        timeout_ms: u64::try_from(realm.vault.timeout_ms).unwrap_or(0),
        lease_prefixes: realm
            .rules
            .allowed_prefixes
            .iter()
            .filter(|prefix| !roles.contains(*prefix) && *prefix != guard::TOKENS)
            .cloned()
            .collect(),
        tokens: realm.tokens,
        secret_id_roles: realm.secret_id_roles.clone(),
        derived_tokens: realm.derived_tokens,
        ..vault::VaultSettings::new(&realm.vault.address, auth)
    }
}

fn refused(what: &str, error: &vault::ConnectError) -> Failed {
    match error {
        vault::ConnectError::Unreachable(_) | vault::ConnectError::Login(_) => {
            Failed::Unavailable(format!("{what}: {error}"))
        }
        _ => Failed::Other(anyhow::anyhow!("{what}: {error}")),
    }
}

/// A realm that does not answer now is no reason not to start; one that is wrong is.
async fn connectors(config: &Config, clock: &clock::Shared) -> Result<Registry, Failed> {
    let mut registry = Registry::default();
    for realm in &config.realms {
        let settings = vault_settings(realm, login(&realm.vault.login));
        let name = &realm.rules.name;
        let made = vault::connect(name, &settings, realm.rules.mode, clock.clone()).await;
        made.map_err(|error| refused(&format!("realm {name}"), &error))?.into_iter().for_each(|one| registry.add(one));
        registry.add_realm(realm.rules.clone());
    }
    for target in &config.targets {
        let settings = postgres::PostgresSettings {
            url: None,
            url_file: Some(target.url_file.clone()),
            timeout_ms: u64::try_from(target.timeout_ms).unwrap_or(0),
        };
        let made = postgres::connect(&target.name, &settings, clock.clone()).await;
        let made = made.map_err(|error| refused(&format!("target {}", target.name), &error))?;
        made.into_iter().for_each(|one| registry.add(one));
    }
    Ok(registry)
}

/// The relay looks first whether this journal is older than what was published from it; only then anything comes in.
async fn with_kafka(
    config: &Config,
    kafka: &Kafka,
    intake: &Intake,
    backlog: &Arc<Backlog>,
    wake: &Arc<Notify>,
    tasks: &Tasks,
) -> Result<(), Failed> {
    let connection = Connection { brokers: kafka.brokers.clone(), properties: kafka.properties.0.clone() };
    connection.check().map_err(anyhow::Error::from)?;
    let topics = Topics {
        outcomes: config.publish.outcomes.clone(),
        states: config.publish.states.clone(),
        rejected: config.publish.rejected.clone(),
    };
    let relay = Relay::new(intake.journal.clone(), connection.clone(), topics, wake.clone(), backlog.clone());
    while let Err(error) = relay.hold_if_older().await {
        tracing::warn!(%error, "the start waits until it is known whether this journal is the newest");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let cancel = tasks.cancel.clone();
    tasks.spawn_fallible("relay", async move { relay.run(cancel).await });
    let topics = config.topics.iter();
    let topics = topics.map(|(name, topic)| Topic { name: name.as_str().into(), tenant: topic.tenant.clone() });
    let mut settings = Settings::new(connection, &kafka.group, topics.collect());
    settings.backlog = config.limits.outbox;
    tasks.spawn_fallible("kafka", consumer::run(intake.clone(), settings, backlog.clone(), tasks.cancel.clone()));
    Ok(())
}

async fn over_http(config: &Config, intake: &Intake, tasks: &Tasks) -> Result<(), Failed> {
    let Some(settings) = &config.http else { return Ok(()) };
    let wrong = |error: http::Error| Failed::Unavailable(error.to_string());
    if !settings.token_file.exists() {
        http::create_token(&settings.token_file).map_err(wrong)?;
        tracing::info!(file = %settings.token_file.display(), "made a token for the intake");
    }
    let token: SecretString = http::read_token(&settings.token_file).map_err(wrong)?;
    let tenant = config.topics.get(&settings.topic).map_or_else(|| "default".into(), |topic| topic.tenant.clone());
    let topic = settings.topic.as_str().into();
    let door = Door { intake: intake.clone(), token: Arc::new(token), topic, tenant };
    let listener = http::listen(settings.listen).await.map_err(wrong)?;
    tracing::info!(at = %settings.listen, topic = settings.topic, "intake over HTTP");
    tasks.spawn_fallible("http", http::serve(listener, http::events(door), tasks.cancel.clone()));
    Ok(())
}

/// `/metrics`, `/healthz`, `/readyz`. The gauges are set from the journal at each scrape.
async fn observe(
    config: &Config,
    intake: &Intake,
    journal: &Arc<Sqlite>,
    started: &Arc<AtomicBool>,
    tasks: &Tasks,
) -> Result<(), Failed> {
    let (started, sqlite) = (started.clone(), journal.clone());
    let ready: http::Ready = Arc::new(move || match (started.load(Ordering::Acquire), sqlite.healthy()) {
        (_, false) => Err("the journal cannot be written".to_owned()),
        (false, true) => Err("starting or ending".to_owned()),
        (true, true) => Ok(()),
    });
    let state = (intake.clone(), freeze_file::path_of(&config.journal));
    let router = http::observability(intake.metrics.clone(), ready);
    let router = router.layer(middleware::from_fn_with_state(state, fresh_gauges));
    let listener = http::listen(config.metrics).await.map_err(|error| Failed::Unavailable(error.to_string()))?;
    // It answers to the end: it is stopped last, with the process.
    tasks.spawn_fallible("metrics", http::serve(listener, router, tasks.cancel.clone()));
    Ok(())
}

async fn fresh_gauges(
    State((intake, freeze)): State<(Intake, std::path::PathBuf)>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path() == "/metrics" {
        let now_ms = intake.clock.wall_ms();
        match (intake.journal.stats(now_ms).await, intake.journal.frozen().await) {
            (Ok(stats), Ok(frozen)) => intake.metrics.set_stats(&stats, ops::in_force(frozen, &freeze).is_some()),
            (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "the gauges are old"),
        }
    }
    next.run(request).await
}

async fn reconcile(
    config: &Config,
    realm: &Realm,
    settings: &ReconcileConfig,
    intake: &Intake,
    clock: &clock::Shared,
    tasks: &Tasks,
) -> Result<(), Failed> {
    let name = &realm.rules.name;
    let own = vault_settings(realm, login(&settings.login));
    let opened = vault::Vault::open(name, &own, Mode::Observe, clock.clone()).await;
    let opened = opened.map_err(|error| refused(&format!("reconcile of realm {name}"), &error))?;
    let exclusive = settings.prefixes.iter().filter(|(_, exclusive)| *exclusive);
    let rounds = ReconcileSettings {
        tenant: settings.tenant.to_string(),
        every_ms: u64::try_from(settings.every_ms).unwrap_or(0),
        prefixes: settings.prefixes.iter().map(|(prefix, _)| prefix.clone()).collect(),
        exclusive: exclusive.map(|(prefix, _)| prefix.clone()).collect(),
        tokens: settings.tokens,
        without_watermark: config.kafka.is_none(),
        ..ReconcileSettings::default()
    };
    let reconcile = Reconcile::new(intake.clone(), rounds, name, opened);
    let cancel = tasks.cancel.clone();
    tasks.spawn("reconcile", async move { reconcile.run(cancel).await });
    Ok(())
}

/// SIGTERM and SIGINT end the process in good order.
fn listen_for_signals(tasks: &Tasks) -> Result<Arc<Mutex<String>>, Failed> {
    let mut term = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let ended = Arc::new(Mutex::new(String::new()));
    let (cancel, by) = (tasks.cancel.clone(), ended.clone());
    tasks.spawn("signals", async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = cancel.cancelled() => return,
        };
        tracing::info!(signal = name, "ending");
        name.clone_into(&mut by.lock().unwrap_or_else(PoisonError::into_inner));
        cancel.cancel();
    });
    Ok(ended)
}

/// What runs, by name. One that fails ends all: a half-working process is worse than one that is started again.
#[derive(Clone, Default)]
struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    running: Arc<Mutex<BTreeSet<&'static str>>>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Tasks {
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    fn spawn_fallible<E: std::fmt::Display + Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        let (all, task) = (self.clone(), tokio::spawn(task));
        self.tracker.spawn(async move {
            let why = match task.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{name}: {error}")),
                Err(_) => Some(format!("{name} died of a bug")),
            };
            all.running.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            let early = !all.cancel.is_cancelled();
            if let Some(why) = why.or_else(|| early.then(|| format!("{name} ended by itself"))) {
                tracing::error!(why, "a part failed: ending");
                all.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            }
            all.cancel.cancel();
        });
    }

    /// Cancels, and waits for at most `grace_ms`: what is left is recovered at the next start.
    async fn end(&self, grace_ms: i64) {
        self.cancel.cancel();
        self.tracker.close();
        let grace = Duration::from_millis(u64::try_from(grace_ms).unwrap_or(0));
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            let left: Vec<&str> = self.running.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
            tracing::warn!(left = left.join(", "), "the grace is over; the journal knows where to go on");
        }
    }

    fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
