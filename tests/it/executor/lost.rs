//! A database that lost commits: no effect, at no process, until it is released.

use super::*;
use crate::world::Proxy;

#[tokio::test(flavor = "multi_thread")]
async fn after_lost_commits_no_process_acts_until_one_release() {
    let (store, admin) = (Store::postgres(), Admin::shared());
    let registry = connectors(&admin, "", false).await;
    let proxy = Proxy::to(&crate::admin::Postgres::shared().host).await;
    let journal: Arc<dyn Journal> = store.open_through(&proxy.address).await;
    let other = store.open().await;
    let scene = Scene::upon(store, journal, admin, &registry, Arc::new(|_| ()));
    scene.stage.store.copy().await;
    let (run, (id, token)) = (new_run(), scene.token(json!({})).await);
    scene.ends(&run, &id).await;
    proxy.off();
    scene.stage.store.fall_back().await;
    proxy.on();
    for journal in [&scene.journal, &other] {
        until("the hold", async || journal.started_held().await.ok().flatten()).await;
    }
    // What was lost is said again, as Kafka does.
    until("intake", async || scene.journal.stats(0).await.ok()).await;
    scene.ends(&run, &id).await;
    scene.assert_held(&id, HoldReason::StartedHeld).await;
    scene.stage.executor(other.clone()).drain().await.unwrap();
    assert_eq!(scene.effects(), 0);
    assert!(scene.admin.token_works(&token).await);

    other.release("ana").await.unwrap();
    until("the release", async || scene.journal.started_held().await.ok()?.is_none().then_some(())).await;
    assert!(is_dead(&scene.closes(&id).await, KilledBy::Curfew));
    assert!(!scene.admin.token_works(&token).await);
}
