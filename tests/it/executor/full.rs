//! A file that is full.

use super::*;

#[tokio::test]
async fn on_a_full_disk_no_effect_happens_that_was_not_recorded() {
    let (store, admin) = (Store::sqlite(), Admin::shared());
    let file = store.open_file();
    let registry = connectors(&admin, "", false).await;
    let scene = Scene::upon(store, file.clone(), admin, &registry, Arc::new(|_| ()));
    let mut tokens = Vec::new();
    for _ in 0..20 {
        let made = scene.token(json!({})).await;
        scene.ends(&new_run(), &made.0).await;
        tokens.push(made);
    }
    // No smaller than it is: pages with room in them are still written.
    file.set_max_pages(1).await.unwrap();
    let executor = scene.stage.executor(scene.journal.clone());
    // What is refused stays due, so a drain would go on for as long as the disk is full.
    let refused = until("the journal to refuse", || async { (!file.healthy()).then_some(()) });
    tokio::select! { _ = executor.drain() => {} () = refused => {} }
    let acted = scene.ledger.effects.lock().unwrap().clone();
    assert!(acted.len() < tokens.len(), "the disk is full, and all were cut");
    for (id, token) in &tokens {
        let recorded = scene.records(id).await.iter().any(|record| matches!(record, Record::Started { .. }));
        let done = acted.iter().any(|(_, of)| of == id);
        assert!(recorded || !done, "{id}: an effect without a durable record");
        assert!(done || scene.admin.token_works(token).await, "{id}");
    }
    drop(executor);

    // There is room again; what was claimed meanwhile is claimed anew by a fresh start.
    file.set_max_pages(1_000_000).await.unwrap();
    let Scene { admin, stage, journal, ledger: _ } = scene;
    drop((file, journal));
    let journal = stage.open().await;
    for (id, token) in &tokens {
        assert!(is_dead(&stage.run_until_closed(&journal, id).await.verdict, KilledBy::Curfew));
        assert!(!admin.token_works(token).await);
    }
}
