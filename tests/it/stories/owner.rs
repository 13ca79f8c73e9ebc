//! A task made something of its own at the database: its user cannot be dropped. What the operators see of it.

use sqlx::AssertSqlSafe;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_owns_a_table_is_dead_and_says_what_is_left() {
    let world = World::new("enforce").await;
    let task = world.task().await;
    let table = unique("made").replace('-', "_");
    let sql = format!("CREATE TABLE {table} (); ALTER TABLE {table} OWNER TO \"{}\"", task.username);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&world.pg.pool().await).await.unwrap();
    let running = world.start();
    running.runs().await;
    world.send(&World::started(&task)).await;
    world.send(&World::ended(&task)).await;
    let tasks = [task];
    world.all_closed(&tasks, &running).await;
    world.assert_one_end_each(&tasks).await;
    assert_eq!(world.try_again(&tasks[0]).await, (false, false), "nobody gets in");
    assert_eq!(world.admin.call("PUT", "sys/leases/lookup", json!({"lease_id": tasks[0].lease.id()})).await.0, 200);

    // In the topic, in the list, in the timeline, and as an alarm.
    let outcomes = world.told.of("dev.curfew.outcome.v1");
    let told = outcomes.iter().find(|event| event["data"]["cred_id"] == tasks[0].lease.as_str()).unwrap();
    assert_eq!(told["data"]["verdict"]["residue"], json!(["cleanup_pending"]), "{told}");
    assert_eq!(told["data"]["verdict"]["proof"]["level"], "target", "{told}");
    let list = String::from_utf8(world.ask(&["cases", "--closed"]).await.stdout).unwrap();
    assert!(list.contains("dead (target; cleanup_pending)"), "{list}");
    let id = told["data"]["case_id"].as_str().unwrap();
    let shown = String::from_utf8(world.ask(&["case", id]).await.stdout).unwrap();
    assert!(shown.contains("verdict     dead (target; cleanup_pending)"), "{shown}");
    assert!(shown.contains("revoke vault-lease@test, leaves cleanup_pending"), "{shown}");
    let revokes = shown.lines().filter(|line| line.contains("started") && line.contains("revoke vault-lease")).count();
    assert_eq!(revokes, 1, "it is asked once: {shown}");
    let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", world.metrics)).await.unwrap().text().await.unwrap();
    assert!(page.contains("curfew_alarms_total{alarm=\"cleanup_pending\"} 1"), "{page}");
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}
