//! Role `inventory`: which credentials there are, and by which fingerprints their values are known. Recipes are registered
//! at the start; stores are read with a login of their own, one process at a time for each realm.

use curfew::event::{CredentialRegistered, Event};

use crate::Failed;
use crate::process::Process;

/// Registers the recipes of `realms` (empty: of all).
pub async fn start(process: &Process, realms: &[String]) -> Result<(), Failed> {
    let config = &process.config;
    let chosen = |realm: &String| realms.is_empty() || realms.contains(realm);
    let now_ms = process.clock.wall_ms();
    let mut events = Vec::new();
    for recipe in config.recipes.iter().filter(|recipe| chosen(&recipe.place.realm)) {
        let Some(tenant) = config.tenant_of(&recipe.place.realm) else { continue };
        let data = CredentialRegistered {
            credential: recipe.credential.clone(),
            fingerprints: Vec::new(),
            version: None,
            current: true,
            owner: recipe.owner.clone(),
            environment: recipe.environment.clone(),
        };
        events.push(Event::registered(tenant.clone(), data, now_ms));
    }
    if !events.is_empty() {
        let recorded = process.intake.notice(events).await;
        recorded.map_err(|error| Failed::Unavailable(format!("the recipes cannot be recorded: {error}")))?;
    }
    Ok(())
}
