//! Role `bind`: which run a credential is of, by the metadata that its issuer knows. One process at a time for each realm.

use std::sync::Arc;

use curfew::bind::{BindSettings, Binder};
use curfew::case::Action;
use curfew::config::Binding;
use curfew::connector::vault;
use curfew::guard::Mode;
use curfew::task::Tenure;

use crate::Failed;
use crate::enforce::{login, refused, vault_settings};
use crate::process::Process;

/// So many tokens, or secret_ids of one AppRole, are known at the most.
const MOST: usize = 200_000;
/// How long one list is looked at before it is listed again.
const SECONDS: usize = 10;

/// Starts it for each realm that has bindings; `realms` empty: for all.
pub async fn start(process: &Process, realms: &[String]) -> Result<(), Failed> {
    let chosen = |realm: &String| realms.is_empty() || realms.contains(realm);
    for binding in process.config.bindings.iter().filter(|one| chosen(&one.realm)) {
        bind(process, binding).await?;
    }
    Ok(())
}

/// With a login of its own, which can only list and look.
async fn bind(process: &Process, binding: &Binding) -> Result<(), Failed> {
    let name = &binding.realm;
    let what = format!("bindings of realm {name}");
    let Some(realm) = process.config.realms.iter().find(|realm| realm.rules.name == *name) else {
        return Err(Failed::Data(format!("{what}: there is no such realm")));
    };
    let mut own = vault_settings(realm, login(&binding.login));
    own.shown = Some((process.intake.metrics.clone(), "bind"));
    let opened = vault::Vault::open(name, &own, Mode::Observe, process.clock.clone()).await;
    let opened = opened.map_err(|error| refused(&what, &error))?;
    let settings = BindSettings {
        tenant: binding.tenant.clone(),
        every_ms: u64::try_from(binding.every_ms).unwrap_or(0),
        per_second: binding.per_second,
        most: MOST,
        at_once: usize::try_from(binding.per_second).unwrap_or(1).saturating_mul(SECONDS),
        // With less authority than to revoke, an end must not cut by the scheduler's authority what is only looked at.
        tenure: if binding.strongest < Action::Revoke { Tenure::Standing } else { Tenure::Minted },
        rules: binding.rules.clone(),
    };
    let binder = Arc::new(Binder::new(process.intake.clone(), settings, name, opened));
    process.lead_one("bind", name, move |cancel| {
        let binder = binder.clone();
        async move { binder.run(cancel).await }
    });
    Ok(())
}
