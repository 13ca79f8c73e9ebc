//! Of the role `relay`: GitHub is told whose secret died. One process at a time.

use std::sync::Arc;

use curfew::feedback::Feedback;
use curfew::github;
use curfew::ops::freeze_file;

use crate::Failed;
use crate::process::Process;

/// Starts it, where the configuration asks for it.
pub fn start(process: &Process) -> Result<(), Failed> {
    let config = &process.config;
    let Some(http) = &config.http else { return Ok(()) };
    let Some(api) = http.github.as_ref().filter(|github| github.resolves).and_then(|github| github.api.clone()) else {
        return Ok(());
    };
    let client = Arc::new(github::connect(api).map_err(Failed::Unavailable)?);
    let (intake, topic) = (process.intake.clone(), http.findings.clone());
    let freeze = freeze_file::path_of(&config.journal);
    process.lead("feedback", move |cancel| {
        let told = Feedback::new(intake.clone(), client.clone(), &topic, freeze.clone());
        async move { told.run(cancel).await }
    });
    Ok(())
}
