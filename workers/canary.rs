//! Role `canary`: a harmless credential is minted and must die, again and again, one process at a time. And `curfew canary`: one of
//! them now, beside a running Curfew that is asked what became of it.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use curfew::canary::{Canary, Error, Settings, Sight, Stage, cases_of, closed_as};
use curfew::case::record::Verdict;
use curfew::clock;
use curfew::config::Config;
use curfew::config::problem::{Invalid, Problem};
use curfew::connector::vault;
use curfew::credential::CredentialId;
use curfew::journal::CaseLine;
use curfew::ops::{Request, client};
use curfew::task::Tenant;
use curfew::tell::{Teller, To};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Failed;
use crate::args;
use crate::enforce::vault_settings;
use crate::process::Process;

/// How long one event may take to be told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the role, where the configuration asks for it.
pub fn start(process: &Process) -> Result<(), Failed> {
    let Some((settings, teller)) = configured(&process.config)? else { return Ok(()) };
    let (clock, metrics) = (process.clock.clone(), process.intake.metrics.clone());
    let canary = Arc::new(Canary::new(settings, clock, Box::new(process.intake.journal.clone()), teller));
    process.lead("canary", move |cancel| {
        let (canary, metrics) = (canary.clone(), metrics.clone());
        async move { canary.run(&metrics, cancel).await }
    });
    Ok(())
}

/// What the configuration says of it; `None`: nothing.
fn configured(config: &Config) -> Result<Option<(Settings, Arc<Teller>)>, Failed> {
    let Some(canary) = &config.canary else { return Ok(None) };
    let Some(realm) = config.realms.iter().find(|realm| realm.rules.name == canary.realm) else { return Ok(None) };
    let to = To {
        kafka: config.kafka.as_ref().map(|kafka| kafka.brokers.as_str()),
        http: None,
        token_file: None,
        topic: &canary.topic,
        path: "/events",
        timeout: PATIENCE,
    };
    let teller = Arc::new(Teller::open(config, &to)?);
    let span = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let settings = Settings {
        realm: canary.realm.clone(),
        token_file: canary.token_file.clone(),
        role: canary.role.clone(),
        tenant: canary.tenant.clone(),
        source: canary.source.clone(),
        every: span(canary.every_ms),
        within: span(canary.within_ms),
        // The login is its own, and read anew each time.
        vault: vault_settings(realm, vault::Auth::TokenFile(canary.token_file.clone())),
    };
    Ok(Some((settings, teller)))
}

/// A running Curfew, over the operators' socket.
struct Asked {
    config: Config,
}

impl Asked {
    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        let silent = |why: String| Error::Silent(format!("{why} ({})", self.config.socket.display()));
        let answer = client::ask(&self.config.socket, &request).await.map_err(|error| silent(error.to_string()))?;
        serde_json::from_value(answer).map_err(|_| silent("the running process is of another version".to_owned()))
    }
}

#[async_trait]
impl Sight for Asked {
    async fn seen(&self, tenant: &Tenant, credential: &CredentialId) -> Result<bool, Error> {
        let request = Request::Seen { credential: credential.clone(), tenant: tenant.to_string() };
        let answer: Value = self.ask(request).await?;
        Ok(answer["seen_ms"].is_i64())
    }

    async fn closed(&self, credential: &CredentialId) -> Result<Option<Verdict>, Error> {
        let cases: Vec<CaseLine> = self.ask(Request::Cases { filter: cases_of(credential) }).await?;
        Ok(closed_as(&cases))
    }
}

/// `curfew canary`: exit code 0 where it died in time, else 1.
pub async fn once(config: Config, what: args::Canary, json_wanted: bool) -> Result<ExitCode, Failed> {
    let Some((mut settings, teller)) = configured(&config)? else {
        let why = "there is no `canary` in it: its realm, its token, its role";
        let problem = Problem::new(serde_saphyr::Location::UNKNOWN, why);
        return Err(Failed::Configuration(Invalid::new("the configuration", "", vec![problem])));
    };
    if let Some(within) = what.within {
        settings.within = Duration::from_millis(u64::try_from(within.0).unwrap_or(0)).max(Duration::from_secs(1));
    }
    let (place, role) = (teller.place(), format!("{} at {}", settings.role, settings.realm));
    let canary = Canary::new(settings, clock::System::shared(), Box::new(Asked { config }), teller);
    let stages: Mutex<Vec<Value>> = Mutex::default();
    let passed = |stage: Stage, at_ms: i64| {
        if !json_wanted {
            let what = match stage {
                Stage::Mint => format!("minted: {role}"),
                Stage::Tell => format!("told to {place}"),
                Stage::Seen => "looked at by Curfew; its task ends".to_owned(),
                Stage::Dead => "called dead by Curfew".to_owned(),
                Stage::Refused => "its issuer does not know it".to_owned(),
            };
            println!("{:>9.3} s  {:<8} {what}", at_ms as f64 / 1e3, stage.as_str());
        }
        let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.push(json!({ "stage": stage.as_str(), "at_ms": at_ms }));
    };
    let ended = canary.round(&passed).await;
    let stages = stages.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (code, said) = match &ended {
        Ok(took_ms) => (ExitCode::SUCCESS, json!({ "died": true, "took_ms": took_ms, "stages": stages })),
        Err((stage, error)) => {
            let why = error.to_string();
            (ExitCode::FAILURE, json!({ "died": false, "failed": stage.as_str(), "why": why, "stages": stages }))
        }
    };
    match (&ended, json_wanted) {
        (_, true) => println!("{said}"),
        (Ok(took_ms), false) => println!("dead {:.3} s after the end of its task", *took_ms as f64 / 1e3),
        (Err((stage, error)), false) => eprintln!("curfew: it failed at `{}`: {error}", stage.as_str()),
    }
    Ok(code)
}
