//! Role `serve`: operators' socket, status page and intake over HTTP. And what each process has, whatever its roles: `/metrics`,
//! `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use curfew::fingerprint::Keyring;
use curfew::http::findings::Findings;
use curfew::http::github::Webhooks;
use curfew::http::gitlab::Revocations;
use curfew::http::{self, Door};
use curfew::intake::Intake;
use curfew::journal::{self, Journal};
use curfew::ops::operator::Operator;
use curfew::ops::server::Server;
use curfew::ops::{self, freeze_file};
use curfew::status::facts::Source;
use curfew::status::shared::Shared;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::Failed;
use crate::process::Process;

/// How soon it is tried again to serve the status page.
const AGAIN: Duration = Duration::from_secs(10);

/// Operators are answered over the socket.
pub fn operators(process: &Process) -> Result<(), Failed> {
    let (config, tasks) = (&process.config, &process.tasks);
    let operator = Operator {
        intake: process.intake.clone(),
        reach: process.reach.clone(),
        freeze_file: freeze_file::path_of(&config.journal),
    };
    let server = Server::bind(&config.socket).map_err(|error| Failed::Unavailable(error.to_string()))?;
    tasks.spawn("operators", server.run(operator, tasks.cancel.clone()));
    Ok(())
}

/// The status page, where it is asked for.
pub async fn page(process: &Process) {
    let (config, intake) = (&process.config, &process.intake);
    let Some(settings) = config.status.clone() else { return };
    let freeze = freeze_file::path_of(&config.journal);
    let source = Source::new(intake.journal.clone(), process.clock.clone(), config.systems(), freeze);
    let page = http::status::Page { shared: Shared::new(source), hosts: settings.hosts.clone().into() };
    let cancel = process.tasks.cancel.clone();
    let mut first = listened(settings.listen).await;
    process.tasks.spawn("status", async move {
        // A page that only shows keeps nothing from working: where its place is taken, it waits for it.
        let listener = loop {
            if let Some(listener) = first.take() {
                break listener;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => first = listened(settings.listen).await,
            }
        };
        http::serve(listener, http::status::status(page), cancel).await;
    });
}

/// Where the status page is served, and says so.
async fn listened(wanted: SocketAddr) -> Option<TcpListener> {
    match http::listen_beyond(wanted).await {
        Ok(listener) => {
            let at = listener.local_addr().unwrap_or(wanted);
            tracing::info!(url = format!("http://{at}/status"), "status page");
            Some(listener)
        }
        Err(error) => {
            tracing::error!(%error, "the status page cannot be served now, and is tried again");
            None
        }
    }
}

fn wrong(error: http::Error) -> Failed {
    Failed::Unavailable(error.to_string())
}

/// The token that `whose` calls must carry, made where there is none.
fn token(file: &Path, whose: &str) -> Result<Arc<SecretString>, Failed> {
    if !file.exists() {
        http::create_token(file).map_err(wrong)?;
        tracing::info!(file = %file.display(), "made a token for {whose}");
    }
    Ok(Arc::new(http::read_token(file).map_err(wrong)?))
}

/// Intake over HTTP, where it is configured.
pub async fn events(process: &Process, keys: Option<Keyring>) -> Result<(), Failed> {
    let config = &process.config;
    let Some(settings) = &config.http else { return Ok(()) };
    let token = self::token(&settings.token_file, "the intake")?;
    let door = |topic: &String| Door {
        intake: process.intake.clone(),
        token: token.clone(),
        topic: topic.as_str().into(),
        tenant: config.topics.get(topic).map_or_else(|| "default".into(), |topic| topic.tenant.clone()),
    };
    let findings = Findings { door: door(&settings.findings), keys: keys.clone() };
    let mut router = http::events(door(&settings.topic)).merge(http::findings::findings(findings));
    if let (Some(gitlab), Some(keys)) = (&settings.gitlab, &keys) {
        router = router.merge(http::gitlab::revocations(Revocations {
            door: door(&settings.findings),
            keys: keys.clone(),
            token: self::token(&gitlab.token_file, "GitLab")?,
            types: gitlab.types.clone().into(),
        }));
    }
    if let (Some(github), Some(keys)) = (&settings.github, &keys) {
        let api = github.api.clone().map(curfew::github::connect).transpose().map_err(Failed::Unavailable)?;
        router = router.merge(http::github::webhooks(Webhooks {
            door: door(&settings.findings),
            keys: keys.clone(),
            secret: self::token(&github.secret_file, "GitHub's webhooks")?,
            max_age_ms: github.max_age_ms,
            api: api.map(Arc::new),
        }));
    }
    if let Some(token_file) = &settings.reach {
        router = router.merge(http::reach::reach(http::reach::Page {
            reach: process.reach.clone(),
            token: self::token(token_file, "who asks about reach")?,
            clock: process.clock.clone(),
        }));
    }
    let listener = http::listen(settings.listen).await.map_err(wrong)?;
    tracing::info!(at = %settings.listen, topic = settings.topic, findings = settings.findings, "intake over HTTP");
    let tasks = &process.tasks;
    tasks.spawn("http", http::serve(listener, router, tasks.cancel.clone()));
    Ok(())
}

/// Who exports what the journal says: one process, or several on one journal would sum to a multiple of it.
const FIGURES: &str = "figures";
/// How long a start waits for the term that it was promised.
const FIRST_TERM: Duration = Duration::from_secs(2);

/// `/metrics`, `/healthz`, `/readyz`. With `gauges` this process is one of those that may export what the journal says.
pub async fn observe(process: &Process, journal: &Arc<dyn Journal>, gauges: bool) -> Result<(), Failed> {
    let (config, intake) = (&process.config, &process.intake);
    let (started, journal) = (process.started.clone(), journal.clone());
    let ready: http::Ready = Arc::new(move || match (started.load(Ordering::Acquire), journal.healthy()) {
        (_, false) => Err("the journal cannot be written".to_owned()),
        (false, true) => Err("starting or ending".to_owned()),
        (true, true) => Ok(()),
    });
    if gauges {
        // Only within a term: what is said outside of one nobody takes back, and two would say it.
        let (metrics, begun) = (intake.metrics.clone(), Arc::new(Notify::new()));
        let begins = begun.clone();
        let leads = process.leads(FIGURES).await;
        process.lead(FIGURES, move |term| {
            let (metrics, begins) = (metrics.clone(), begins.clone());
            async move {
                metrics.lead(true);
                begins.notify_one();
                term.cancelled().await;
                metrics.lead(false);
            }
        });
        // Before the first scrape: a page without the journal must not be taken for a journal without cases.
        if leads && tokio::time::timeout(FIRST_TERM, begun.notified()).await.is_err() {
            tracing::warn!("the first pages are without what the journal says");
        }
    }
    let (gauges, freeze) = (intake.clone(), freeze_file::path_of(&config.journal));
    let fresh: http::Fresh = Arc::new(move || Box::pin(fresh_gauges(gauges.clone(), freeze.clone())));
    let router = http::observability(intake.metrics.clone(), ready, fresh, config.metrics.ip().is_loopback());
    let listener = http::listen_beyond(config.metrics).await.map_err(|error| Failed::Unavailable(error.to_string()))?;
    // It answers to the end: it is stopped last, with the process.
    process.tasks.spawn("metrics", http::serve(listener, router, process.tasks.cancel.clone()));
    Ok(())
}

/// Sets what a page shows; whether the journal told its part of it.
async fn fresh_gauges(intake: Intake, freeze: PathBuf) -> bool {
    intake.metrics.journal_writable(intake.journal.healthy());
    if !intake.metrics.leads() {
        return false;
    }
    match set_gauges(&intake, &freeze).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "this page is without what the journal says");
            false
        }
    }
}

async fn set_gauges(intake: &Intake, freeze: &Path) -> Result<(), journal::Error> {
    let stats = intake.journal.stats(intake.clock.wall_ms()).await?;
    let frozen = ops::in_force(intake.journal.frozen().await?, freeze).is_some();
    let held = intake.journal.started_held().await?.is_some();
    intake.metrics.set_stats(&stats, frozen, held);
    Ok(())
}
