//! Members of one journal that come and go under load, with a stranger in the group.

use super::*;

/// A stranger of the same group: takes partitions, reads and keeps what it gets, commits nothing, and goes.
async fn stranger(group: &str, topic: &str, hold: Duration) {
    let (group, topic) = (group.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = config()
            .set("group.id", &group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        client.subscribe(&[&topic]).unwrap();
        let started = std::time::Instant::now();
        let mut held = None;
        while held.is_none_or(|since: std::time::Instant| since.elapsed() < hold) {
            assert!(started.elapsed() < Duration::from_secs(60), "the stranger got nothing");
            drop(client.poll(Duration::from_millis(50)));
            if held.is_none() && client.assignment().unwrap().count() > 0 {
                held = Some(std::time::Instant::now());
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_and_every_event_is_recorded_once() {
    const PARTITIONS: i32 = 6;
    const EACH: i32 = 400;
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(PARTITIONS).await;
    let station = Arc::new(Station::open(dir.path(), &[&topic]));
    let load = tokio::spawn({
        let topic = topic.clone();
        async move {
            let pen = Pen::new();
            for id in 0..EACH {
                for partition in 0..PARTITIONS {
                    pen.beat(&topic, partition, &format!("{partition}-{id}")).await;
                }
            }
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
    let pause = || tokio::time::sleep(Duration::from_millis(700));
    let first = station.join_with(|settings| settings.batch = 50);
    pause().await;
    let second = station.join();
    pause().await;
    let third = station.join();
    let held = tokio::spawn({
        let (group, topic) = (station.group.clone(), topic.clone());
        async move { stranger(&group, &topic, Duration::from_secs(2)).await }
    });
    pause().await;
    first.leave().await;
    pause().await;
    let fourth = station.join();
    held.await.unwrap();
    third.leave().await;
    second.leave().await;
    load.await.unwrap();

    let all = i64::from(PARTITIONS * EACH);
    let stats = station.consumed(all).await;
    watch.cancel();
    watcher.await.unwrap();
    assert_eq!((stats.consumed, stats.accepted, stats.duplicates, stats.rejected), (all, all, 0, 0));
    for partition in 0..PARTITIONS {
        assert_eq!(station.position(&topic, partition).await.unwrap().next_offset, i64::from(EACH));
    }
    assert_eq!(station.journal.started_held().await.unwrap(), None);
    fourth.leave().await;
}
