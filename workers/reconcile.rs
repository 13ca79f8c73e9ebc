//! Role `reconcile`: compares what the issuers hold with what the journal expects. One process at a time for each realm.

use std::sync::Arc;

use curfew::config::{Realm, Reconcile as Config};
use curfew::connector::vault;
use curfew::guard::Mode;
use curfew::reconcile::{Reconcile, ReconcileSettings};

use crate::Failed;
use crate::enforce::{login, refused, vault_settings};
use crate::process::Process;

/// Starts it for each realm that asks for it; `realms` empty: for all.
pub async fn start(process: &Process, realms: &[String]) -> Result<(), Failed> {
    for realm in &process.config.realms {
        let chosen = realms.is_empty() || realms.contains(&realm.rules.name);
        if let Some(settings) = realm.reconcile.as_ref().filter(|_| chosen) {
            compare(process, realm, settings).await?;
        }
    }
    Ok(())
}

/// With a login of its own, which can only list.
async fn compare(process: &Process, realm: &Realm, settings: &Config) -> Result<(), Failed> {
    let name = &realm.rules.name;
    let mut own = vault_settings(realm, login(&settings.login));
    own.shown = Some((process.intake.metrics.clone(), "reconcile"));
    let opened = vault::Vault::open(name, &own, Mode::Observe, process.clock.clone()).await;
    let opened = opened.map_err(|error| refused(&format!("reconcile of realm {name}"), &error))?;
    let exclusive = settings.prefixes.iter().filter(|(_, exclusive)| *exclusive);
    let rounds = ReconcileSettings {
        tenant: settings.tenant.to_string(),
        every_ms: u64::try_from(settings.every_ms).unwrap_or(0),
        prefixes: settings.prefixes.iter().map(|(prefix, _)| prefix.clone()).collect(),
        exclusive: exclusive.map(|(prefix, _)| prefix.clone()).collect(),
        tokens: settings.tokens,
        without_watermark: process.config.kafka.is_none(),
        topics: Some(process.config.read()),
        ..ReconcileSettings::default()
    };
    let reconcile = Arc::new(Reconcile::new(process.intake.clone(), rounds, name, opened));
    process.lead_one("reconcile", name, move |cancel| {
        let reconcile = reconcile.clone();
        async move { reconcile.run(cancel).await }
    });
    Ok(())
}
