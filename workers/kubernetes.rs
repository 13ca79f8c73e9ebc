//! Role `kubernetes`: Jobs and Pods of clusters as tasks. One process at a time watches each cluster.

use crate::process::Process;

/// Watches the configured clusters.
#[cfg(feature = "k8s")]
pub fn start(process: &Process) {
    use std::sync::Arc;

    use curfew::kubernetes::watch::Watch;

    for watched in &process.config.clusters {
        let watch = Arc::new(Watch::new(watched.clone(), process.intake.clone()));
        process.lead_one("kubernetes", &watched.cluster, move |cancel| {
            let watch = watch.clone();
            async move { watch.run(cancel).await }
        });
    }
}

/// The configuration has refused clusters already.
#[cfg(not(feature = "k8s"))]
pub fn start(_: &Process) {}
