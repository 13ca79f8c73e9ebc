//! An OpenLineage stream ends runs whose credentials somebody else registered: each dies with its run, and no other does.

use super::*;

const NAMESPACE: &str = "prod";

struct Lineage {
    world: World,
    topic: String,
}

impl Lineage {
    async fn new() -> Self {
        let world = World::new("enforce").await;
        let topic = unique("story-lineage");
        create(&topic, PARTITIONS).await;
        let path = world.folder.path().join("curfew.yaml");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let source = format!("/openlineage/{NAMESPACE}");
        config["topics"] = json!({
            &world.tasks: {"sources": ["/broker"], "speaks_for": [&source], "events": ["grant.registered"],
                           "strongest": "revoke"},
            &topic: {"format": "openlineage", "sources": [&source], "strongest": "revoke"},
        });
        fs::write(&path, config.to_string()).unwrap();
        Self { world, topic }
    }

    async fn says(&self, kind: &str, task: &Task) {
        self.says_as(NAMESPACE, kind, task).await;
    }

    async fn says_as(&self, namespace: &str, kind: &str, task: &Task) {
        says(&self.world.pen, &self.topic, (namespace, &task.run), kind).await;
    }
}

/// As OpenLineage's Kafka transport: no headers.
pub async fn says(pen: &Pen, topic: &str, (namespace, run): (&str, &str), kind: &str) {
    let event = json!({
        "eventType": kind, "eventTime": jiff::Timestamp::now().to_string(), "producer": "https://p", "schemaURL": "https://s",
        "run": {"runId": run, "facets": {"parent": {"run": {"runId": "p"}, "job": {"namespace": "x", "name": "y"}}}},
        "job": {"namespace": namespace, "name": "etl.load"}, "inputs": [], "outputs": [],
    });
    let partition = i32::try_from(any(PARTITIONS as usize)).unwrap();
    pen.raw(topic, partition, Some(event.to_string().as_bytes()), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_openlineage_ends_what_its_runs_held() {
    let lineage = Lineage::new().await;
    let world = &lineage.world;
    let [first_try, second_try, aborted, late, runs] =
        <[Task; 5]>::try_from(world.some_tasks(5).await).unwrap_or_else(|_| panic!("five"));
    let running = world.start();
    running.runs().await;
    for task in [&first_try, &second_try, &aborted, &late, &runs] {
        world.granted(&format!("/openlineage/{NAMESPACE}:{}", task.run), task).await;
    }
    // One try fails, the next one begins: a run of its own.
    lineage.says("START", &first_try).await;
    lineage.says("START", &runs).await;
    lineage.says("FAIL", &first_try).await;
    lineage.says("START", &second_try).await;
    lineage.says("RUNNING", &second_try).await;
    // Somebody else's namespace ends nothing here, and what says nothing ends nothing.
    lineage.says_as("dev", "COMPLETE", &second_try).await;
    lineage.says("OTHER", &second_try).await;
    let first = [first_try];
    world.all_closed(&first, &running).await;
    world.assert_all_dead(&first).await;
    let [first_try] = first;
    let living = [second_try, runs];
    world.assert_all_alive(&living).await;
    let [second_try, runs] = living;

    // Told twice, after its end as well; aborted without a start; ended before its start.
    lineage.says("COMPLETE", &second_try).await;
    lineage.says("COMPLETE", &second_try).await;
    lineage.says("OTHER", &second_try).await;
    lineage.says("ABORT", &aborted).await;
    lineage.says("COMPLETE", &late).await;
    lineage.says("START", &late).await;
    lineage.says("RUNNING", &runs).await;
    let over = [first_try, second_try, aborted, late];
    world.all_closed(&over, &running).await;
    world.assert_all_dead(&over).await;
    world.assert_one_end_each(&over).await;
    world.assert_all_alive(&[runs]).await;
    let figures = until("the foreign word to be rejected", || async {
        let figures = world.figures().await;
        (figures.rejected == 1 && figures.accepted == 21).then_some(figures)
    })
    .await;
    figures.assert_add_up();
    let tasks = world.ask_json(&["tasks", "--json"]).await;
    let left: Vec<&str> = tasks.as_array().unwrap().iter().filter_map(|line| line["task"]["phase"].as_str()).collect();
    assert_eq!(left, ["running"], "{tasks}");
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}
