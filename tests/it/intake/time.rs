//! Whose time counts, and up to when a topic is known.

use super::*;
use curfew::clock::{Clock as _, Simulated};
use curfew::deadlines::ClockTrust;

const HOUR_MS: i64 = 3_600_000;

/// A topic whose records have this kind of time.
async fn timed(kind: &str) -> String {
    let name = unique("timed");
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("message.timestamp.type", kind);
    for result in admin().create_topics([&new], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
    name
}

/// Writes a heartbeat of a producer whose clock shows `at_ms`.
async fn told_at(topic: &str, id: &str, at_ms: i64) {
    let producer: FutureProducer = config().create().unwrap();
    let body = beat(id);
    let headers = OwnedHeaders::new().insert(Header { key: "content-type", value: Some(STRUCTURED) });
    let record: FutureRecord<'_, str, str> =
        FutureRecord::to(topic).payload(body.as_str()).headers(headers).timestamp(at_ms);
    producer.send(record, Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_brokers_own_time_agrees_with_a_clock_that_stepped() {
    let dir = tempfile::tempdir().unwrap();
    let (created, appended) = (timed("CreateTime").await, timed("LogAppendTime").await);
    let mut station = Station::open(dir.path(), &[&created, &appended]);
    let now_ms = station.intake.clock.wall_ms();
    let clock = Simulated::at(now_ms - HOUR_MS);
    let trust = ClockTrust::new(clock.clone());
    clock.step_wall_ms(HOUR_MS);
    station.intake.clock = clock.clone();
    station.intake.trust = Some(trust.clone());
    let member = station.join();
    for (id, at_ms) in [("same", now_ms), ("ahead", now_ms + HOUR_MS / 2)] {
        told_at(&created, id, at_ms).await;
    }
    station.consumed(2).await;
    assert!(!trust.check(), "a producer's time, also one that is taken for now, proves nothing");
    assert_eq!(station.position(&created, 0).await.unwrap().last_ms, clock.wall_ms());
    // The broker's is the real one, which goes on, and the clock of this test does not.
    let mut id = 0;
    until("the broker's time to agree", || {
        id += 1;
        clock.step_wall_ms(System::shared().wall_ms() - clock.wall_ms());
        let (appended, trust, id) = (&appended, &trust, format!("appended-{id}"));
        async move {
            told_at(appended, &id, now_ms - 2 * HOUR_MS).await;
            trust.check().then_some(())
        }
    })
    .await;
    member.leave().await;
}

/// What it once said would stay, and run ahead of what is read for as long as the clock was ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_doubted_moves_no_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let topic = timed("CreateTime").await;
    let mut station = Station::open(dir.path(), &[&topic]);
    let clock = Simulated::at(station.intake.clock.wall_ms());
    station.intake.clock = clock.clone();
    station.intake.trust = Some(ClockTrust::new(clock.clone()));
    clock.step_wall_ms(HOUR_MS);
    let member = station.join();
    told_at(&topic, "1", clock.wall_ms() - HOUR_MS).await;
    station.consumed(1).await;
    // Another one of the same topic, whose clock is right, is through with several looks.
    let beside = tempfile::tempdir().unwrap();
    let control = Station::open(beside.path(), &[&topic]);
    let reader = control.join();
    for _ in 0..3 {
        control.seen_to_the_end().await;
    }
    let mark = |station: &Station| {
        let journal = station.journal.clone();
        async move { journal.watermark().await.unwrap().of(None).unwrap() }
    };
    assert!(mark(&station).await < clock.wall_ms() - HOUR_MS / 2);
    clock.step_wall_ms(-HOUR_MS);
    clock.advance_ms(1_000);
    until("it to move again", || async { (mark(&station).await == clock.wall_ms()).then_some(()) }).await;
    reader.leave().await;
    member.leave().await;
}

/// What it holds back may be an extension: until it ends, the partition is not read up.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_moves_no_watermark() {
    use rdkafka::producer::Producer;
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    Pen::new().beats(&topic, 0, 0..1).await;
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(1).await;
    station.seen_to_the_end().await;
    let limit = Duration::from_secs(30);
    let producer: FutureProducer = config().set("transactional.id", unique("tx")).create().unwrap();
    producer.init_transactions(limit).unwrap();
    producer.begin_transaction().unwrap();
    let body = beat("open");
    let headers = OwnedHeaders::new().insert(Header { key: "content-type", value: Some(STRUCTURED) });
    let record: FutureRecord<'_, str, str> = FutureRecord::to(&topic).payload(body.as_str()).headers(headers);
    producer.send(record, limit).await.unwrap();
    let written_ms = station.intake.clock.wall_ms();
    let lag = format!("curfew_consumer_lag_records{{partition=\"0\",topic=\"{topic}\"}} 1");
    until("it to show as lag", || async { station.intake.metrics.render().contains(&lag).then_some(()) }).await;
    // A look is a second: of several, none may take it for read.
    let beside = tempfile::tempdir().unwrap();
    let other = self::topic(1).await;
    let control = Station::open(beside.path(), &[&other]);
    let reader = control.join();
    Pen::new().beats(&other, 0, 0..1).await;
    control.consumed(1).await;
    for _ in 0..3 {
        control.seen_to_the_end().await;
    }
    let mark = station.journal.watermark().await.unwrap().of(None).unwrap();
    assert!(mark <= written_ms, "{mark} {written_ms}");
    producer.commit_transaction(limit).unwrap();
    station.consumed(2).await;
    station.seen_to_the_end().await;
    reader.leave().await;
    member.leave().await;
}

/// Whatever it holds was not read by anybody: nothing is known up to any time.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_never_read_holds_the_watermark() {
    use curfew::journal::Topics;
    use rdkafka::admin::NewPartitions;
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    Pen::new().beats(&topic, 0, 0..1).await;
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    station.consumed(1).await;
    station.seen_to_the_end().await;
    // Nothing is fetched any more, and then the topic grows.
    station.backlog.set(station.intake.clock.wall_ms());
    for grown in admin().create_partitions([&NewPartitions::new(&topic, 2)], &AdminOptions::new()).await.unwrap() {
        grown.unwrap();
    }
    Pen::new().beats(&topic, 1, 0..1).await;
    let topics = Topics { read: [topic.clone()].into(), http: None };
    until("it to count", || async {
        let mark = station.journal.watermark().await.unwrap();
        (mark.of(Some(&topics)) == Some(0) && mark.unread(Some(&topics)) == Some(&topic)).then_some(())
    })
    .await;
    station.backlog.set(0);
    station.consumed(2).await;
    station.seen_to_the_end().await;
    assert_eq!(station.journal.watermark().await.unwrap().unread(Some(&topics)), None);
    member.leave().await;
}
