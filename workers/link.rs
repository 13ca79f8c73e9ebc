//! How a command reaches the truth: over the socket of the running process, or by opening the journal where none runs.

use std::sync::Arc;

use curfew::config::Config;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::journal::{self, Journal};
use curfew::metrics::Metrics;
use curfew::ops::operator::Operator;
use curfew::ops::{Refused, RefusedKind, Reply, Request, client, freeze_file};
use curfew::{clock, event, intake};
use serde_json::Value;

use crate::Failed;

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
    if !config.journal.is_file() {
        let (journal, socket) = (config.journal.display(), config.socket.display());
        let message = format!("no process listens on {socket} and there is no journal {journal}; is --config right?");
        return Err(Failed::Unavailable(message));
    }
    let journal = open(config)?;
    let operator = operator(config, journal);
    match operator.answer(request).await {
        Reply::Ok(value) => Ok(value),
        Reply::Refused(why) => Err(refused(why)),
    }
}

/// Opens the journal for this process alone.
pub fn open(config: &Config) -> Result<Arc<Sqlite>, Failed> {
    Sqlite::open(&config.journal, Settings::default()).map_err(|error| match error {
        journal::Error::Corrupt { .. } => Failed::Other(error.into()),
        _ => Failed::Unavailable(format!("{error}: {}", config.journal.display())),
    })
}

/// Whether several processes may share the journal.
pub fn is_shared(_: &Config) -> bool {
    false
}

/// Refuses what one process cannot have alone.
pub fn shared(config: &Config) -> Result<(), Failed> {
    if is_shared(config) {
        return Ok(());
    }
    Err(Failed::Usage(format!(
        "roles and realms apart need several processes on one journal, and a SQLite file has room for one process: \
         leave out --role, --realm and --action, or put the journal into PostgreSQL (now: {})",
        config.journal.display()
    )))
}

/// What answers operators on `journal`.
fn operator(config: &Config, journal: Arc<dyn Journal>) -> Operator {
    Operator {
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
