//! Members of one journal that come and go under load, with a stranger in the group.

use super::*;
use crate::store::Store;

const STRANGER: &str = "CURFEW_TEST_STRANGER";

/// Not a test: the main function of the stranger's process. Of the same group, it takes partitions, reads and keeps
/// what it gets, commits nothing, and says when it has some.
#[test]
#[ignore = "the stranger's process, started by the tests below"]
fn stranger() {
    let Ok(who) = std::env::var(STRANGER) else { return };
    let (group, topic) = who.split_once(' ').unwrap();
    let client: BaseConsumer = config()
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    client.subscribe(&[topic]).unwrap();
    let mut said = false;
    loop {
        drop(client.poll(Duration::from_millis(50)));
        if !said && client.assignment().unwrap().count() > 0 {
            println!("STRANGER HOLDS");
            said = true;
        }
    }
}

/// Starts the stranger, waits until it has partitions and `held` is over, kills it: it leaves no word to the group.
async fn stranger_holds_and_dies(group: &str, topic: &str, held: impl Future<Output = ()>) {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut process = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "intake::rebalance::stranger", "--ignored", "--nocapture"])
        .env(STRANGER, format!("{group} {topic}"))
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let said = async { while !lines.next_line().await.unwrap().unwrap().contains("STRANGER HOLDS") {} };
    tokio::time::timeout(Duration::from_secs(60), said).await.expect("the stranger got nothing");
    held.await;
    process.kill().await.unwrap();
}

/// Waits until the group of `station` has `members`, all placed, and then until 300 more records are durable.
async fn settles(station: &Station, members: usize) {
    let client: BaseConsumer = config().create().unwrap();
    until(&format!("a group of {members}"), || async {
        let (client, group) = (&client, Some(station.group.as_str()));
        let list = tokio::task::block_in_place(|| client.fetch_group_list(group, Duration::from_secs(5))).ok()?;
        let found = list.groups().first()?;
        (found.state() == "Stable" && found.members().len() == members).then_some(())
    })
    .await;
    more(station).await;
}

/// Waits until 300 more records are durable.
async fn more(station: &Station) {
    let before = station.stats().await.consumed;
    station.consumed(before + 300).await;
}

over_both! {
    members_come_and_go_and_every_event_is_recorded_once,
}

async fn members_come_and_go_and_every_event_is_recorded_once(store: Store) {
    const PARTITIONS: i32 = 6;
    let topic = topic(PARTITIONS).await;
    let group = unique("group");
    let station = Arc::new(Station::of(store.open().await, &[&topic], &group));
    // Each member is a process of its own, where the store has several.
    let process = async || Station::of(store.open_beside(&station.journal).await, &[&topic], &group);
    // As long as members come and go; answers how many it wrote to each partition.
    let enough = CancellationToken::new();
    let load = tokio::spawn({
        let (topic, enough) = (topic.clone(), enough.clone());
        async move {
            let pen = Pen::new();
            let mut each = 0;
            while !enough.is_cancelled() {
                for partition in 0..PARTITIONS {
                    pen.beat(&topic, partition, &format!("{partition}-{each}")).await;
                }
                each += 1;
            }
            each
        }
    });
    // At all times: what positions say is recorded. Positions are read first, and what is recorded only grows.
    let watch = CancellationToken::new();
    let watcher = tokio::spawn({
        let (station, topic, watch, cluster) = (station.clone(), topic.clone(), watch.clone(), cluster());
        async move {
            while !watch.is_cancelled() {
                let mut sum = 0;
                for partition in 0..PARTITIONS {
                    let position = station.journal.position(&cluster, &topic, partition).await.unwrap();
                    sum += position.map_or(0, |position| position.next_offset);
                }
                let consumed = station.stats().await.consumed;
                assert!(sum <= consumed, "positions say {sum}, recorded are {consumed}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let first = station.join_with(|settings| settings.batch = 50);
    settles(&station, 1).await;
    let second = process().await.join();
    settles(&station, 2).await;
    let third = process().await.join();
    let others_went_on = CancellationToken::new();
    let stranger = tokio::spawn({
        let (station, topic, over) = (station.clone(), topic.clone(), others_went_on.clone());
        async move { stranger_holds_and_dies(&station.group, &topic, over.cancelled_owned()).await }
    });
    settles(&station, 4).await;
    first.leave().await;
    settles(&station, 3).await;
    let fourth = process().await.join();
    more(&station).await;
    others_went_on.cancel();
    stranger.await.unwrap();
    third.leave().await;
    second.leave().await;
    more(&station).await;
    enough.cancel();
    let each = load.await.unwrap();

    let all = i64::from(PARTITIONS * each);
    let stats = station.consumed(all).await;
    watch.cancel();
    watcher.await.unwrap();
    assert_eq!((stats.consumed, stats.accepted, stats.duplicates, stats.rejected), (all, all, 0, 0));
    for partition in 0..PARTITIONS {
        assert_eq!(station.position(&topic, partition).await.unwrap().next_offset, i64::from(each));
    }
    assert_eq!(station.journal.started_held().await.unwrap(), None);
    fourth.leave().await;
}
