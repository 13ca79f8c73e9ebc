//! How a command reaches the truth: over the socket of the running process, or by opening the journal where none runs.

use std::sync::Arc;

use curfew::config::Config;
use curfew::journal::postgres::{self, Postgres};
use curfew::journal::sqlite::{self, Sqlite};
use curfew::journal::{self, Journal};
use curfew::metrics::Metrics;
use curfew::ops::operator::Operator;
use curfew::ops::{Refused, RefusedKind, Reply, Request, client, freeze_file};
use curfew::{clock, event, intake};
use serde_json::Value;

use crate::{Failed, reach};

/// Asks, and returns the answer.
pub async fn ask(config: &Config, request: Request) -> Result<Value, Failed> {
    match client::ask(&config.socket, &request).await {
        Ok(value) => Ok(value),
        Err(client::Error::NotRunning) => alone(config, request).await,
        Err(client::Error::Refused(why)) => Err(refused(why)),
        Err(error) => Err(Failed::Unavailable(format!("{error} ({})", config.socket.display()))),
    }
}

/// Asks, and reads the answer.
pub async fn ask_for<T: serde::de::DeserializeOwned>(config: &Config, request: Request) -> Result<T, Failed> {
    let value = ask(config, request).await?;
    Ok(serde_json::from_value(value).map_err(|_| anyhow::anyhow!("the running process is of another version"))?)
}

fn refused(why: Refused) -> Failed {
    match why.kind {
        RefusedKind::Unavailable => Failed::Unavailable(why.message),
        RefusedKind::NotFound | RefusedKind::Invalid => Failed::Other(anyhow::anyhow!(why.message)),
    }
}

async fn alone(config: &Config, request: Request) -> Result<Value, Failed> {
    if config.database.is_none() && !config.journal.is_file() {
        let (journal, socket) = (config.journal.display(), config.socket.display());
        let message = format!("no process listens on {socket} and there is no journal {journal}; is --config right?");
        return Err(Failed::Unavailable(message));
    }
    let journal = open(config).await?;
    let operator = operator(config, journal);
    match operator.answer(request).await {
        Reply::Ok(value) => Ok(value),
        Reply::Refused(why) => Err(refused(why)),
    }
}

/// Opens the journal: the file for this process alone, the database beside other processes.
pub async fn open(config: &Config) -> Result<Arc<dyn Journal>, Failed> {
    let failed = |error: journal::Error| match error {
        journal::Error::Corrupt { .. } => Failed::Other(error.into()),
        _ => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            Failed::Unavailable(format!("{error}{why} ({})", config.journal_name()))
        }
    };
    let Some(database) = &config.database else {
        let opened: Arc<dyn Journal> = Sqlite::open(&config.journal, sqlite::Settings::default()).map_err(failed)?;
        return Ok(opened);
    };
    let file = database.url_file.display();
    let url = tokio::fs::read_to_string(&database.url_file)
        .await
        .map_err(|error| Failed::Unavailable(format!("`journal.postgres.url_file` {file}: {}", error.kind())))?;
    let mut settings = postgres::Settings::new(url.trim(), &database.schema);
    settings.connections = database.connections;
    let opened: Arc<dyn Journal> = Postgres::open(settings).await.map_err(failed)?;
    Ok(opened)
}

/// Whether several processes may share the journal.
pub fn is_shared(config: &Config) -> bool {
    config.database.is_some()
}

/// Refuses what one process cannot have alone.
pub fn shared(config: &Config) -> Result<(), Failed> {
    if is_shared(config) {
        return Ok(());
    }
    Err(Failed::Usage(format!(
        "roles and realms apart need several processes on one journal, and a SQLite file has room for one process: \
         leave out --role, --realm and --action, or put the journal into PostgreSQL (now: {})",
        config.journal_name()
    )))
}

/// What answers operators on `journal`.
fn operator(config: &Config, journal: Arc<dyn Journal>) -> Operator {
    Operator {
        reach: reach::kept(config, &journal),
        intake: intake::Intake {
            journal,
            rules: config.rules.clone(),
            limits: event::Limits::default(),
            clock: clock::System::shared(),
            metrics: Arc::new(Metrics::default()),
            stirred: Arc::default(),
            trust: None,
            types: None,
        },
        freeze_file: freeze_file::path_of(&config.journal),
    }
}
