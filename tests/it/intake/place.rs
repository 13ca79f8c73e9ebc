//! Where reading goes on, and where it does not.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_partition_moves_the_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    Pen::new().beats(&topic, 0, 0..1).await;
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(1).await;
    let now = station.intake.clock.wall_ms();
    until("the watermark to pass now", || async {
        station.journal.watermark().await.unwrap().of(None).filter(|mark| *mark > now)
    })
    .await;
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_compare_and_set_drops_the_batch_and_reads_again() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    let pen = Pen::new();
    pen.beats(&topic, 0, 0..10).await;
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(10).await;
    // Somebody else moves the partition under the member.
    let mut moved = station.position(&topic, 0).await.unwrap();
    moved.next_offset = 7;
    moved.last_digest = [0; 16];
    station.journal.set_position(moved).await.unwrap();
    pen.beats(&topic, 0, 10..12).await;
    let stats = station.consumed(15).await;
    assert_eq!((stats.accepted, stats.duplicates), (12, 3));
    assert_eq!(station.position(&topic, 0).await.unwrap().next_offset, 12);
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_outside_the_log_halts_one_partition() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(2).await;
    let pen = Pen::new();
    for partition in 0..2 {
        pen.beats(&topic, partition, 0..5).await;
    }
    let station = Station::open(dir.path(), &[&topic]);
    let outside = |next_offset| Position {
        cluster: cluster().into(),
        topic: topic.as_str().into(),
        partition: 0,
        next_offset,
        last_ms: station.intake.clock.wall_ms(),
        last_digest: [0; 16],
    };
    station.journal.set_position(outside(50)).await.unwrap();
    let member = station.join();
    station.consumed(5).await;
    pen.beats(&topic, 1, 5..10).await;
    let stats = station.consumed(10).await;
    assert_eq!(stats.consumed, 10, "the halted partition is not read");
    let halted = |count: usize| format!("curfew_halted_partitions{{topic=\"{topic}\"}} {count}\n");
    let page = station.intake.metrics.render();
    assert!(
        page.contains(&halted(1)) && page.contains("curfew_alarms_total{alarm=\"halted_partition\"} 1\n"),
        "{page}"
    );
    // The operator's answer takes effect without a restart.
    station.journal.set_position(outside(2)).await.unwrap();
    let stats = station.consumed(13).await;
    assert_eq!((stats.consumed, stats.accepted), (13, 13));
    assert!(station.intake.metrics.render().contains(&halted(0)));
    member.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_read_from_its_start() {
    for records in [3, 30] {
        let dir = tempfile::tempdir().unwrap();
        let topic = topic(1).await;
        let pen = Pen::new();
        pen.beats(&topic, 0, 0..10).await;
        let station = Station::open(dir.path(), &[&topic]);
        let member = station.join();
        station.consumed(10).await;
        member.leave().await;
        delete(&topic).await;
        create(&topic, 1).await;
        let pen = Pen::new();
        pen.beats(&topic, 0, 100..100 + records).await;
        let member = station.join();
        let stats = station.consumed(10 + i64::from(records)).await;
        assert_eq!((stats.accepted, stats.duplicates), (10 + i64::from(records), 0));
        assert_eq!(station.position(&topic, 0).await.unwrap().next_offset, i64::from(records));
        member.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_ahead_of_the_journal_holds_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    Pen::new().beats(&topic, 0, 0..10).await;
    let station = Station::open(dir.path(), &[&topic]);
    commit(&station.group, &topic, 0, 6).await;
    let member = station.join();
    let stats = station.consumed(10).await;
    assert_eq!(stats.accepted, 10, "intake goes on from the first start");
    assert!(station.journal.started_held().await.unwrap().unwrap().contains("older"));
    member.leave().await;
    // An operator's release is the last word: the next start is not held again, though nothing came.
    station.journal.release("test").await.unwrap();
    let member = station.join();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(station.journal.started_held().await.unwrap(), None);
    member.leave().await;
}

/// librdkafka reads on at the old offset and says nothing, or has no such offset, or waits: all that is in the new log
/// is taken. What it handed over before the change was noticed comes twice, and is recognised.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_under_a_member_is_read_from_its_start() {
    let stories = [3, 10, 30].map(|records| async move {
        let dir = tempfile::tempdir().unwrap();
        let topic = topic(1).await;
        Pen::new().beats(&topic, 0, 0..10).await;
        let station = Station::open(dir.path(), &[&topic]);
        let member = station.join();
        station.consumed(10).await;
        delete(&topic).await;
        create(&topic, 1).await;
        Pen::new().beats(&topic, 0, 100..100 + records).await;
        let all = 10 + i64::from(records);
        until(&format!("all of {records} records of the new log"), || async {
            (station.stats().await.accepted == all).then_some(())
        })
        .await;
        let end = i64::from(records);
        until("the position to be the new log's", || async {
            station.position(&topic, 0).await.filter(|position| position.next_offset == end)
        })
        .await;
        // It goes on as before.
        Pen::new().beats(&topic, 0, 1000..1005).await;
        until("what comes after", || async { (station.stats().await.accepted == all + 5).then_some(()) }).await;
        assert_eq!(station.position(&topic, 0).await.unwrap().next_offset, end + 5);
        assert_eq!(station.journal.started_held().await.unwrap(), None);
        member.leave().await;
    });
    futures::future::join_all(stories).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_gone_for_a_while_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    Pen::new().beats(&topic, 0, 0..10).await;
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(10).await;
    delete(&topic).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    create(&topic, 1).await;
    Pen::new().beats(&topic, 0, 100..130).await;
    let stats = station.consumed(40).await;
    assert_eq!((stats.accepted, stats.duplicates), (40, 0));
    assert_eq!(station.position(&topic, 0).await.unwrap().next_offset, 30);
    member.leave().await;
}
