//! Each way in which a task can end badly.

use super::*;
use crate::world::Proxy;

fn vault_address(admin: &Admin) -> String {
    admin.address.trim_start_matches("http://").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_it_ends_by_its_deadline() {
    let world = World::new().await;
    // The command is told, and may clean up.
    let script = "trap 'echo yes > termed; exit 0' TERM; while :; do sleep 0.05; done";
    let (mut child, got) = world.begin(&["--ttl", "12s"], script).await;
    signal(&child, "KILL");
    child.wait().await.unwrap();
    until("the command to hear of it", || async { world.file("termed").exists().then_some(()) }).await;
    let cases = world.seen_dead(1).await;
    assert_eq!(cases[0]["case"]["directive"]["trigger"], "deadline", "{}", cases[0]);
    world.refused(&got).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_it_ends_by_its_silence_beside_others_that_speak() {
    let world = World::new().await;
    let role = world.role();
    let mut other = world.exec(&["--role", &role, "--heartbeat", "1s"], WAITS).spawn().unwrap();
    let (mut child, got) = world.begin(&["--ttl", "1h", "--heartbeat", "1s"], "sleep 1000").await;
    signal(&child, "KILL");
    child.wait().await.unwrap();
    world.refused(&got).await;
    let cases = world.seen_dead(1).await;
    assert_eq!(cases[0]["case"]["directive"]["trigger"], "heartbeat", "{}", cases[0]);
    // The other one goes on meanwhile.
    assert!(other.try_wait().unwrap().is_none());
    assert_eq!(world.leases().await, 1);
    fs::write(world.file("go"), "").unwrap();
    assert_eq!(ends(other).await.0, Some(0));
    world.seen_dead(2).await;
}

/// A task that promised signs of life and gives none is taken for lost, also while Vault takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn it_gives_signs_of_life_while_vault_takes_its_time() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&vault_address(&world.admin)).await;
    proxy.delay();
    world.vault = format!("http://{}", proxy.address);
    let child = world.exec(&["--role", &world.role(), "--ttl", "10m", "--heartbeat", "1s"], WAITS).spawn().unwrap();
    let journal = rusqlite::Connection::open(world.file("curfew.db")).unwrap();
    let count = |sql: &str| journal.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    until("a sign of life", || async {
        (count("SELECT count(*) FROM events WHERE kind = 'task.heartbeat'") > 0).then_some(())
    })
    .await;
    assert_eq!(count("SELECT count(*) FROM credentials"), 0, "nothing is minted yet");
    proxy.on();
    fs::write(world.file("go"), "").unwrap();
    assert_eq!(ends(child).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_it_ends() {
    let world = World::new().await;
    let (child, got) = world.begin(&["--summary", "summary.json"], "exec sleep 1000").await;
    signal(&child, "TERM");
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(143), "{err}");
    world.refused(&got).await;
    world.seen_dead(1).await;
    let summary: Value = serde_json::from_slice(&fs::read(world.file("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["outcome"], &summary["signal"]), (&json!("cancelled"), &json!(15)), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ignores_signals_ends_with_its_time() {
    let world = World::new().await;
    let script = "trap '' TERM INT HUP QUIT; while :; do sleep 0.05; done";
    let (child, got) = world.begin(&["--ttl", "8s", "--grace", "1s"], script).await;
    signal(&child, "TERM");
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(124), "{err}");
    assert!(err.contains("its time is over"), "{err}");
    world.refused(&got).await;
    world.seen_dead(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_vault_away_at_the_end_curfew_revokes() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&vault_address(&world.admin)).await;
    world.vault = format!("http://{}", proxy.address);
    let (child, got) = world.begin(&["--end-within", "1s"], WAITS).await;
    proxy.off();
    fs::write(world.file("go"), "").unwrap();
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("Curfew was told, and revokes it") && err.contains("dies at 20"), "{err}");
    world.refused(&got).await;
    world.seen_dead(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_curfew_away_at_the_end_it_is_revoked_at_vault() {
    let mut world = World::new().await;
    let (child, got) = world.begin(&["--ttl", "15s", "--end-within", "1s"], WAITS).await;
    // Killed.
    world.curfew = None;
    fs::write(world.file("go"), "").unwrap();
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("revoked at Vault, but Curfew was not told that the task ended"), "{err}");
    world.refused(&got).await;
    // And when it is back, it looks for itself.
    world.start().await;
    let cases = world.seen_dead(1).await;
    assert_eq!(cases[0]["case"]["directive"]["trigger"], "deadline", "{}", cases[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_both_away_at_the_end_the_ttl_ends_it() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&vault_address(&world.admin)).await;
    world.vault = format!("http://{}", proxy.address);
    let (child, got) = world.begin(&["--ttl", "10s", "--end-within", "1s"], WAITS).await;
    proxy.off();
    world.curfew = None;
    fs::write(world.file("go"), "").unwrap();
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("NOT revoked") && err.contains("Curfew was not told") && err.contains("dies at 20"), "{err}");
    world.refused(&got).await;
    assert_eq!(world.leases().await, 0);
    world.start().await;
    world.seen_dead(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_curfew_away_at_the_start_it_does_not_run() {
    let world = World::alone().await;
    canary::private(world.file("intake.token"), &canary::made_up("intake-"));
    let role = world.role();
    let (code, _, err) = said(&world.exec(&["--role", &role], WRITES).output().await.unwrap());
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("Start `curfew run`") && err.contains("--unregistered"), "{err}");
    assert!(world.got().is_none(), "nothing ran");
    assert_eq!(world.leases().await, 0, "nothing was minted");
    // With the user's own word it runs, loudly, and is revoked all the same.
    let (child, got) = world.begin(&["--unregistered"], WAITS).await;
    fs::write(world.file("go"), "").unwrap();
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("UNREGISTERED"), "{err}");
    world.refused(&got).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_curfew_did_not_confirm_is_not_used() {
    let world = World::new().await;
    let config: Value = serde_json::from_slice(&fs::read(world.file("curfew.yaml")).unwrap()).unwrap();
    let proxy = Proxy::to(config["http"]["listen"].as_str().unwrap()).await;
    let (role, http) = (world.role(), format!("http://{}", proxy.address));
    proxy.cut_after(b"grant.registered");
    let flags = ["--role", &role, "--http", &http, "--token-file", "intake.token", "--end-within", "1s"];
    let (code, _, err) = said(&world.exec(&flags, WRITES).output().await.unwrap());
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("Curfew cannot be told of this task"), "{err}");
    assert!(world.got().is_none());
    until("it to be revoked", || async { (world.leases().await == 0).then_some(()) }).await;
    // Its answers were lost, its words were not.
    world.seen_gone(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_vault_mints_the_lease_dies_with_the_task_s_token() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&vault_address(&world.admin)).await;
    world.vault = format!("http://{}", proxy.address);
    let role = world.role();
    proxy.cut_after(format!("{}/creds/app", world.mount).as_bytes());
    let mut exec = world.exec(&["--role", &role, "--ttl", "8s", "--end-within", "1h"], WRITES).spawn().unwrap();
    // Nothing reaches Vault any more, so nothing but the TTL can end it.
    until("the lease that nobody knows", || async { (world.leases().await == 1).then_some(()) }).await;
    signal(&exec, "KILL");
    exec.wait().await.unwrap();
    until("it to be gone", || async { (world.leases().await == 0).then_some(()) }).await;
    assert!(world.got().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_may_not_speak_is_told_so() {
    let mut world = World::alone().await;
    let file = world.file("curfew.yaml");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["topics"] = json!({"curfew.tasks": {"sources": ["/ci"], "strongest": "revoke"}});
    fs::write(&file, config.to_string()).unwrap();
    world.start().await;
    let role = world.role();
    let (code, _, err) = said(&world.exec(&["--role", &role], WRITES).output().await.unwrap());
    assert!(code == Some(125) && err.contains("which sources may speak (--source)"), "{err}");
    assert!(world.got().is_none());
    let (code, _, err) = said(&world.exec(&["--role", &role, "--source", "/ci"], WRITES).output().await.unwrap());
    assert_eq!(code, Some(0), "{err}");
    world.seen_gone(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_roles_or_none() {
    let world = World::new().await;
    let (role, none) = (world.role(), format!("B={}/creds/none", world.mount));
    let flags = ["--role", &role, "--role", &none, "--summary", "summary.json"];
    let (code, _, err) = said(&world.exec(&flags, WRITES).output().await.unwrap());
    assert_eq!(code, Some(125), "{err}");
    assert!(err.contains("creds/none") && err.contains("the command was not started"), "{err}");
    assert!(world.got().is_none());
    world.seen_gone(1).await;
    assert_eq!(world.leases().await, 0);
    let summary: Value = serde_json::from_slice(&fs::read(world.file("summary.json")).unwrap()).unwrap();
    let user = summary["credentials"][0]["principal"].as_str().unwrap();
    assert_eq!(world.pg.drops(user), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_answer_was_lost_dies_with_the_task_s_token() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&vault_address(&world.admin)).await;
    world.vault = format!("http://{}", proxy.address);
    let role = world.role();
    proxy.cut_after(format!("{}/creds/app", world.mount).as_bytes());
    let mut exec = world.exec(&["--role", &role, "--end-within", "1s"], WRITES).spawn().unwrap();
    until("the lease that nobody knows", || async { (world.leases().await == 1).then_some(()) }).await;
    let status = exec.wait().await.unwrap();
    assert_eq!(status.code(), Some(69));
    assert!(world.got().is_none());
    until("it to be gone", || async { (world.leases().await == 0).then_some(()) }).await;
    assert!(
        world.curfew(&["cases", "--closed", "--json"]).await.as_array().unwrap().is_empty(),
        "Curfew never knew it"
    );
}
