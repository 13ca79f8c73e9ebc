//! Role `canary`: a harmless credential is minted and must die, again and again. One process at a time.

use std::sync::Arc;
use std::time::Duration;

use curfew::canary::{Canary, Settings};
use curfew::connector::vault;
use curfew::tell::{Teller, To};

use crate::Failed;
use crate::enforce::vault_settings;
use crate::process::Process;

/// How long one event may take to be told.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts it, where the configuration asks for it.
pub fn start(process: &Process) -> Result<(), Failed> {
    let config = &process.config;
    let Some(canary) = &config.canary else { return Ok(()) };
    let Some(realm) = config.realms.iter().find(|realm| realm.rules.name == canary.realm) else { return Ok(()) };
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
    let canary = Arc::new(Canary::new(settings, process.intake.clone(), teller));
    process.lead("canary", move |cancel| {
        let canary = canary.clone();
        async move { canary.run(cancel).await }
    });
    Ok(())
}
