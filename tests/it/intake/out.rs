//! The relay: what leaves.

use super::*;
use curfew::kafka::producer;
use curfew::relay::{NullRelay, Relay, Topics};

struct Read {
    partition: i32,
    key: String,
    content_type: String,
    body: serde_json::Value,
}

/// Everything in a topic, in order of the partitions.
fn read(topic: &str, at_least: usize) -> Vec<Read> {
    let client: BaseConsumer =
        config().set("group.id", unique("reads")).set("auto.offset.reset", "earliest").create().unwrap();
    client.subscribe(&[topic]).unwrap();
    let mut found = Vec::new();
    let mut quiet = 0;
    let started = std::time::Instant::now();
    while found.len() < at_least || quiet < 5 {
        assert!(started.elapsed() < Duration::from_secs(60), "{} of {at_least}", found.len());
        match client.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                quiet = 0;
                let headers = message.headers().unwrap();
                let find = |name: &str| {
                    let found = rdkafka::message::Headers::iter(headers).find(|header| header.key == name);
                    String::from_utf8(found.unwrap().value.unwrap().to_vec()).unwrap()
                };
                found.push(Read {
                    partition: message.partition(),
                    key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                    content_type: find("content-type"),
                    body: serde_json::from_slice(message.payload().unwrap()).unwrap(),
                });
            }
            Some(Err(error)) => panic!("{error}"),
            None => quiet += 1,
        }
    }
    found
}

/// Rejects are what fills an outbox without any case.
async fn reject(station: &Station, topic: &str, count: i64) {
    let deliveries: Vec<_> = (0..count)
        .map(|offset| curfew::event::Delivery {
            at: curfew::event::Coordinates {
                cluster: "test".into(),
                topic: format!("{topic}-{}", offset % 3).into(),
                partition: 0,
                offset,
            },
            tenant: "default".into(),
            format: curfew::event::Format::Curfew,
            broker_ms: 1_800_000_000_000,
            headers: Vec::new(),
            payload: None,
        })
        .collect();
    station.intake.record(&deliveries, Vec::new()).await.unwrap();
}

fn relay(station: &Station, rejected: &str, backlog: &Arc<Backlog>) -> Relay {
    let topics = Topics {
        outcomes: rejected.into(),
        states: rejected.into(),
        rotated: rejected.into(),
        rejected: rejected.into(),
    };
    Relay::new(station.journal.clone(), Connection::plain(brokers()), topics, Arc::default(), backlog.clone())
}

async fn run_until_sent(relay: Relay, station: &Station) {
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { relay.run(stop).await }
    });
    until("the outbox to be empty", || async { station.journal.outbox(0, 1).await.unwrap().is_empty().then_some(()) })
        .await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().contains("lock") {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_leave_in_order_with_stable_ids_and_an_older_copy_is_held() {
    let (dir, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let topic = topic(2).await;
    let backlog = Arc::new(Backlog::default());
    {
        let station = Station::open(dir.path(), &[]);
        reject(&station, "one", 30).await;
        assert_eq!(relay(&station, &topic, &backlog).hold_if_older().await.unwrap(), None);
        run_until_sent(relay(&station, &topic, &backlog), &station).await;
    }
    copy(dir.path(), older.path());
    {
        // After a restart it goes on, and nothing is older.
        let station = Station::open(dir.path(), &[]);
        assert_eq!(relay(&station, &topic, &backlog).hold_if_older().await.unwrap(), None);
        reject(&station, "two", 20).await;
        run_until_sent(relay(&station, &topic, &backlog), &station).await;
    }
    let found = tokio::task::spawn_blocking({
        let topic = topic.clone();
        move || read(&topic, 50)
    })
    .await
    .unwrap();
    assert_eq!(found.len(), 50);
    let mut ids: Vec<_> = found.iter().map(|read| read.body["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    for partition in 0..2 {
        let order: Vec<_> = found
            .iter()
            .filter(|read| read.partition == partition)
            .map(|read| read.body["sequence"].as_str().unwrap().to_owned())
            .collect();
        assert!(order.is_sorted(), "{order:?}");
    }
    assert!(found.iter().all(|read| read.content_type == producer::CONTENT_TYPE && !read.key.is_empty()));

    let station = Station::open(older.path(), &[]);
    let held = relay(&station, &topic, &backlog).hold_if_older().await.unwrap();
    assert!(held.unwrap().contains("older"));
    assert!(station.journal.started_held().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_but_not_marked_leaves_again_with_the_same_bytes() {
    let (dir, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let topic = topic(1).await;
    let backlog = Arc::new(Backlog::default());
    {
        let station = Station::open(dir.path(), &[]);
        reject(&station, "one", 5).await;
    }
    // The state in which a kill between acknowledgement and mark leaves the journal.
    copy(dir.path(), before.path());
    {
        let station = Station::open(dir.path(), &[]);
        run_until_sent(relay(&station, &topic, &backlog), &station).await;
    }
    let station = Station::open(before.path(), &[]);
    assert_eq!(relay(&station, &topic, &backlog).hold_if_older().await.unwrap(), None);
    run_until_sent(relay(&station, &topic, &backlog), &station).await;
    let found = tokio::task::spawn_blocking(move || read(&topic, 10)).await.unwrap();
    let bodies: Vec<_> = found.iter().map(|read| &read.body).collect();
    assert_eq!(bodies.len(), 10);
    assert_eq!(bodies[..5], bodies[5..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_rows_are_marked_sent() {
    let dir = tempfile::tempdir().unwrap();
    let station = Station::open(dir.path(), &[]);
    reject(&station, "one", 5).await;
    let stop = CancellationToken::new();
    let null = NullRelay::new(station.journal.clone(), Arc::default(), Arc::default());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { null.run(stop).await }
    });
    until("the outbox to be empty", || async { station.journal.outbox(0, 1).await.unwrap().is_empty().then_some(()) })
        .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn published_events_are_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let topic = topic(1).await;
    let events: Vec<_> = (0..3).map(|id| ("run-1".to_owned(), beat(&id.to_string()).into_bytes())).collect();
    producer::publish(&Connection::plain(brokers()), &topic, &events).await.unwrap();
    let station = Station::open(dir.path(), &[&topic]);
    let member = station.join();
    assert_eq!(station.consumed(3).await.accepted, 3);
    member.leave().await;
}

/// The broker is librdkafka's own mock: the real one is shared by all tests.
#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_while_the_broker_is_away_and_leave_after() {
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("out", 1, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let station = Station::open(dir.path(), &[]);
    let backlog = Arc::new(Backlog::default());
    let topics = Topics { outcomes: "out".into(), states: "out".into(), rotated: "out".into(), rejected: "out".into() };
    let connection = Connection::plain(cluster.bootstrap_servers());
    let relay = Relay::new(station.journal.clone(), connection, topics, Arc::default(), backlog.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { relay.run(stop).await }
    });
    let empty = || async { station.journal.outbox(0, 1).await.unwrap().is_empty().then_some(()) };
    reject(&station, "one", 5).await;
    until("the outbox to be empty", empty).await;

    cluster.broker_down(1).unwrap();
    reject(&station, "two", 20).await;
    until("the backlog to be seen", || async { (backlog.unsent() == 20).then_some(()) }).await;
    // Another record, handed over after these, is given up meanwhile.
    let impatient =
        config().set("bootstrap.servers", cluster.bootstrap_servers()).set("message.timeout.ms", "1000").create();
    let impatient: FutureProducer = impatient.unwrap();
    let record: FutureRecord<'_, str, str> = FutureRecord::to("out").payload("marker");
    impatient.send(record, Duration::ZERO).await.expect_err("the broker is away");
    assert_eq!(station.journal.outbox(0, 100).await.unwrap().len(), 20, "nothing is marked sent that nobody has");

    cluster.broker_up(1).unwrap();
    until("the outbox to be empty again", empty).await;
    let reader: BaseConsumer = config().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    let (_, high) = reader.fetch_watermarks("out", 0, Duration::from_secs(10)).unwrap();
    assert!(high >= 25, "sent is what the broker has: {high}");
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// The last offset of such a topic is a mark that nobody is handed.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_ends_with_a_transaction_holds_no_start_up() {
    use rdkafka::producer::Producer;
    let dir = tempfile::tempdir().unwrap();
    let station = Station::open(dir.path(), &[]);
    let limit = Duration::from_secs(30);
    for commit in [true, false] {
        let topic = topic(1).await;
        let producer: FutureProducer = config().set("transactional.id", unique("tx")).create().unwrap();
        producer.init_transactions(limit).unwrap();
        producer.begin_transaction().unwrap();
        let record: FutureRecord<'_, str, str> = FutureRecord::to(&topic).payload("of somebody else");
        producer.send(record, limit).await.unwrap();
        if commit {
            producer.commit_transaction(limit).unwrap()
        } else {
            producer.abort_transaction(limit).unwrap()
        }
        assert_eq!(relay(&station, &topic, &Arc::default()).hold_if_older().await.unwrap(), None, "{commit}");
    }
}
