//! The real binary on real Kafka, Vault and PostgreSQL: killed at arbitrary moments, frozen, only observing, told to end.
//! What is true in the end is what an independent witness sees: old logins, old tokens, PostgreSQL's log, the topics.

mod airflow;
mod bound;
mod documents;
mod findings;
mod github;
mod kubernetes;
mod lineage;
mod owner;
mod page;
mod rotations;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use curfew::credential::{CredentialId, Kind};
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{Admin, Postgres};
use crate::intake::{Pen, brokers, create};
use crate::world::{unique, until};

const JSON: [(&str, Option<&[u8]>); 1] = [("content-type", Some(b"application/cloudevents+json"))];
const PARTITIONS: i32 = 3;

/// Servers, topics and a folder that are this test's alone.
struct World {
    folder: TempDir,
    admin: Admin,
    pg: Postgres,
    mount: String,
    tasks: String,
    metrics: u16,
    /// Where the status page is.
    status: u16,
    pen: Pen,
    sent: Mutex<usize>,
    told: Told,
}

/// A task with a database lease and a token, and what a witness needs to try them.
struct Task {
    run: String,
    lease: CredentialId,
    username: String,
    password: String,
    accessor: CredentialId,
    token: String,
}

impl World {
    async fn new(mode: &str) -> Self {
        let admin = Admin::shared();
        let pg = Postgres::shared();
        let mount = admin.database().await;
        let [tasks, outcomes, rejected] = ["story-tasks", "story-outcomes", "story-rejected"].map(unique);
        create(&tasks, PARTITIONS).await;
        create(&outcomes, 1).await;
        create(&rejected, 1).await;
        let folder = tempfile::tempdir().unwrap();
        let [metrics, status] = [(), ()].map(|()| crate::canary::port());
        fs::write(folder.path().join("token"), admin.curfew_token().await).unwrap();
        fs::write(folder.path().join("pg.url"), &pg.url).unwrap();
        let config = json!({
            "journal": {"path": "curfew.db"},
            // A static member: a killed process has not left, and the next start must not wait for its session to end.
            "kafka": {
                "brokers": brokers(),
                "group": unique("story"),
                "properties": {"group.instance.id": "story", "session.timeout.ms": "6000"},
            },
            "topics": {&tasks: {"strongest": "revoke"}},
            "publish": {"outcomes": &outcomes, "states": &outcomes, "rejected": &rejected},
            "metrics": {"listen": format!("127.0.0.1:{metrics}")},
            "status": {"listen": format!("127.0.0.1:{status}")},
            "realms": [{
                "name": "test",
                "mode": mode,
                "vault": {"address": &admin.address, "token_file": "token"},
                "allowed_prefixes": [format!("{mount}/creds/"), "token:"],
                "targets": [{"prefix": format!("{mount}/creds/"), "target": "appdb"}],
            }],
            "targets": [{"name": "appdb", "postgres": {"url_file": "pg.url"}}],
            "retry": {"first": "50ms", "ceiling": "500ms"},
            "limits": {"effects_per_minute": null},
            "log": {"level": "info,curfew=debug"},
        });
        // JSON is YAML.
        fs::write(folder.path().join("curfew.yaml"), config.to_string()).unwrap();
        let (told, sent) = (Told::listen(&outcomes), Mutex::new(0));
        Self { folder, admin, pg, mount, tasks, metrics, status, pen: Pen::new(), sent, told }
    }

    async fn task(&self) -> Task {
        let lease = self.admin.database_credential(&self.mount).await;
        let (accessor, token) = self.admin.token(json!({})).await;
        // A witness that finds everything dead proves nothing.
        assert!(self.admin.token_works(&token).await);
        Task {
            run: uuid::Uuid::new_v4().simple().to_string(),
            lease: CredentialId::new(Kind::VaultLease, "test", &lease.lease).unwrap(),
            username: lease.username,
            password: lease.password,
            accessor: CredentialId::new(Kind::VaultToken, "test", &accessor).unwrap(),
            token,
        }
    }

    async fn some_tasks(&self, count: usize) -> Vec<Task> {
        let mut tasks = Vec::new();
        for _ in 0..count {
            tasks.push(self.task().await);
        }
        tasks
    }

    /// To the next partition in turn: events of one run may arrive in any order.
    async fn send(&self, body: &str) {
        let nth = {
            let mut sent = self.sent.lock().unwrap();
            *sent += 1;
            *sent
        };
        let partition = i32::try_from(nth).unwrap() % PARTITIONS;
        self.pen.raw(&self.tasks, partition, Some(body.as_bytes()), &JSON).await;
    }

    /// What `task` holds is of the run `key`, as a broker of credentials says it.
    async fn granted(&self, key: &str, task: &Task) {
        for (credential, principal) in [(&task.lease, Some(&task.username)), (&task.accessor, None)] {
            let mut data = json!({"run_key": key, "cred_id": credential.as_str()});
            if let Some(principal) = principal {
                data["principal"] = json!(principal);
            }
            let event = json!({
                "specversion": "1.0", "type": "dev.curfew.grant.registered.v1", "source": "/broker",
                "id": credential.as_str(), "datacontenttype": "application/json", "data": data,
            });
            self.send(&event.to_string()).await;
        }
    }

    fn started(task: &Task) -> String {
        let grants = json!([
            {"cred_id": task.lease.as_str(), "principal": task.username},
            {"cred_id": task.accessor.as_str()},
        ]);
        event("started", &task.run, json!({"run_id": task.run, "grants": grants}))
    }

    fn ended(task: &Task) -> String {
        event("ended", &task.run, json!({"run_id": task.run, "outcome": "success"}))
    }

    /// What the witness finds: whether the login works, and whether the token does.
    async fn try_again(&self, task: &Task) -> (bool, bool) {
        (self.pg.login(&task.username, &task.password).await.is_ok(), self.admin.token_works(&task.token).await)
    }

    async fn assert_all_dead(&self, tasks: &[Task]) {
        for task in tasks {
            assert_eq!(self.try_again(task).await, (false, false), "{}", task.run);
            assert_eq!(self.pg.drops(&task.username), 1, "{}: dropped exactly once", task.username);
        }
    }

    async fn assert_all_alive(&self, tasks: &[Task]) {
        for task in tasks {
            assert_eq!(self.try_again(task).await, (true, true), "{}", task.run);
            assert_eq!(self.pg.drops(&task.username), 0, "{}", task.username);
        }
    }

    fn start(&self) -> Running {
        Running::start(self.folder.path())
    }

    async fn ask(&self, args: &[&str]) -> Output {
        ask(self.folder.path(), args).await
    }

    async fn ask_json(&self, args: &[&str]) -> Value {
        let output = self.ask(args).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    }

    /// Cases by credential, open and closed.
    async fn cases(&self) -> BTreeMap<String, Vec<Value>> {
        let lines = self.ask_json(&["cases", "--closed", "--limit", "100000", "--json"]).await;
        let mut cases: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in lines.as_array().unwrap() {
            let credential = line["case"]["directive"]["credential"].as_str().unwrap().to_owned();
            cases.entry(credential).or_default().push(line.clone());
        }
        cases
    }

    /// Until all cases of `tasks` have been published as closed.
    async fn all_closed(&self, tasks: &[Task], running: &Running) {
        let wanted = credentials(tasks);
        let closed = async {
            until("the outcomes", || async { wanted.is_subset(&self.told.closed()).then_some(()) }).await;
        };
        tokio::select! {
            biased;
            () = closed => {}
            () = running.wait_lines(usize::MAX) => {
                panic!("the process ended with {} of {}:\n{}", self.told.closed().len(), wanted.len(), running.log())
            }
        }
    }

    /// Exactly one closed case and one distinct outcome per credential, and nothing else.
    async fn assert_one_end_each(&self, tasks: &[Task]) {
        let (wanted, cases) = (credentials(tasks), self.cases().await);
        assert_eq!(cases.keys().cloned().collect::<BTreeSet<_>>(), wanted);
        let mut ids = BTreeSet::new();
        for (credential, lines) in &cases {
            assert_eq!(lines.len(), 1, "{credential}: {lines:?}");
            assert_eq!(lines[0]["verdict"]["state"], "dead", "{credential}: {}", lines[0]);
            assert!(lines[0]["closed_ms"].is_i64(), "{credential}: {}", lines[0]);
            ids.insert((credential.clone(), lines[0]["case"]["id"].as_str().unwrap().to_owned()));
        }
        assert_eq!(self.told.outcomes(), ids, "one distinct outcome per case, under the case's id");
    }

    async fn figures(&self) -> Figures {
        let page = reqwest::get(format!("http://127.0.0.1:{}/metrics", self.metrics)).await.unwrap();
        let page = page.text().await.unwrap();
        let figure = |name: &str| -> i64 {
            let line =
                page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {page}"));
            line.trim().parse().unwrap()
        };
        let delivered = |result: &str| figure(&format!("curfew_journal_deliveries_total{{result=\"{result}\"}}"));
        let accepted_now = |state: &str| figure(&format!("curfew_accepted_events{{state=\"{state}\"}}"));
        Figures {
            consumed: delivered("consumed"),
            accepted: delivered("accepted"),
            rejected: delivered("rejected"),
            duplicates: delivered("duplicate"),
            open: accepted_now("open"),
            closed: accepted_now("closed"),
        }
    }

    /// Waits until the open cases are as many as `count` and all are held for `reason`.
    async fn all_held(&self, reason: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} cases held: {reason}"), || async {
            let held = self.ask_json(&["cases", "--state", "held", "--limit", "100000", "--json"]).await;
            let held = held.as_array().unwrap().clone();
            (held.len() == count && held.iter().all(|line| line["verdict"]["by"] == reason)).then_some(held)
        })
        .await
    }
}

/// One command in the folder of a process.
async fn ask(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
    command.current_dir(folder).env_clear().env("USER", "ana").args(args);
    command.output().await.unwrap()
}

#[derive(Debug)]
struct Figures {
    consumed: i64,
    accepted: i64,
    rejected: i64,
    duplicates: i64,
    open: i64,
    closed: i64,
}

impl Figures {
    fn assert_add_up(&self) {
        assert_eq!(self.consumed, self.accepted + self.rejected + self.duplicates, "{self:?}");
        assert_eq!(self.accepted, self.closed + self.open, "{self:?}");
    }
}

fn event(what: &str, run: &str, data: Value) -> String {
    json!({
        "specversion": "1.0", "type": format!("dev.curfew.task.{what}.v1"), "source": "/stories",
        "id": format!("{run}:{what}"), "datacontenttype": "application/json", "data": data,
    })
    .to_string()
}

fn credentials(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().flat_map(|task| [&task.lease, &task.accessor]).map(|id| id.as_str().to_owned()).collect()
}

/// Everything that was published to the topic of outcomes and states, read by a consumer of no group.
struct Told {
    events: Arc<Mutex<Vec<Value>>>,
    reading: JoinHandle<()>,
}

impl Told {
    fn listen(topic: &str) -> Self {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers())
            .set("group.id", unique("witness"))
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut from = rdkafka::TopicPartitionList::new();
        from.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let events: Arc<Mutex<Vec<Value>>> = Arc::default();
        let all = events.clone();
        let reading = tokio::spawn(async move {
            loop {
                if let Ok(record) = consumer.recv().await {
                    let event = serde_json::from_slice(record.payload().unwrap()).unwrap();
                    all.lock().unwrap().push(event);
                }
            }
        });
        Self { events, reading }
    }

    fn of(&self, kind: &str) -> Vec<Value> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| event["type"] == kind).cloned().collect()
    }

    /// `(credential, id)` of each distinct outcome.
    fn outcomes(&self) -> BTreeSet<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let outcomes = self.of("dev.curfew.outcome.v1");
        outcomes.iter().map(|event| (text(&event["data"]["cred_id"]), text(&event["id"]))).collect()
    }

    fn closed(&self) -> BTreeSet<String> {
        self.outcomes().into_iter().map(|(credential, _)| credential).collect()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// `curfew run`, whose log is read line by line; killed with the test.
struct Running {
    child: Child,
    log: Arc<Mutex<String>>,
    lines: watch::Receiver<usize>,
}

impl Running {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("curfew"))
            .current_dir(folder)
            .env_clear()
            .arg("run")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let log: Arc<Mutex<String>> = Arc::default();
        let (count, lines) = watch::channel(0);
        let all = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                writeln!(all.lock().unwrap(), "{line}").unwrap();
                count.send_modify(|count| *count += 1);
            }
        });
        Self { child, log, lines }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Until it has logged so many lines, or ended.
    async fn wait_lines(&self, count: usize) {
        self.lines.clone().wait_for(|lines| *lines >= count).await.ok();
    }

    async fn runs(&self) {
        until("the process to run", || async {
            let log = self.log();
            assert!(self.lines.has_changed().is_ok() || log.contains("curfew runs"), "it ended:\n{log}");
            log.contains("curfew runs").then_some(())
        })
        .await;
    }

    /// SIGKILL.
    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; the exit code and the whole log.
    async fn terminate(mut self) -> (Option<i32>, String) {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        let code = self.child.wait().await.unwrap().code();
        // The log's end: its writer is gone.
        while self.lines.changed().await.is_ok() {}
        (code, self.log())
    }
}

/// Some number below `below`.
fn any(below: usize) -> usize {
    usize::from(u16::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..2].try_into().unwrap())) % below
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_and_does_nothing_twice() {
    const ROUNDS: usize = 12;
    let world = World::new("enforce").await;
    let mut all: Vec<Task> = Vec::new();
    let mut running = world.start();
    for round in 0..ROUNDS {
        let fresh = world.some_tasks(if round + 1 < ROUNDS { 3 } else { 0 }).await;
        for (n, task) in fresh.iter().enumerate() {
            // One of three ends before its start was read.
            if n == 0 {
                world.send(&World::ended(task)).await;
            }
            world.send(&World::started(task)).await;
        }
        // Those of the round before end, one of them twice.
        let last = all.len().saturating_sub(3);
        for (n, task) in all[last..].iter().enumerate() {
            if n > 0 {
                world.send(&World::ended(task)).await;
            }
            if n == 1 {
                world.send(&World::ended(task)).await;
            }
        }
        world.send("{ this is no event").await;
        let over = all.len();
        all.extend(fresh);
        // An arbitrary moment: after so many lines of its log, which begin with its start.
        let lines = 5 + any(120);
        let done = world.all_closed(&all[..over], &running);
        tokio::select! { () = running.wait_lines(lines) => {} () = done => {} }
        running.kill().await;
        running = world.start();
    }
    world.all_closed(&all, &running).await;
    running.runs().await;
    assert_eq!(all.len(), 33);

    world.assert_all_dead(&all).await;
    world.assert_one_end_each(&all).await;
    let figures = until("what was rejected", || async {
        let figures = world.figures().await;
        (figures.rejected == i64::try_from(ROUNDS).unwrap()).then_some(figures)
    })
    .await;
    figures.assert_add_up();
    assert_eq!(figures.open, 0, "{figures:?}");
    assert_eq!(figures.duplicates, 11, "what a kill repeats is not read twice: {figures:?}");
    assert_eq!(figures.accepted, 66, "{figures:?}");
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observing_it_touches_nothing_and_says_what_it_would_do() {
    let world = World::new("observe").await;
    let tasks = world.some_tasks(5).await;
    let running = world.start();
    running.runs().await;
    for task in &tasks {
        world.send(&World::started(task)).await;
        world.send(&World::ended(task)).await;
    }
    let held = world.all_held("observe", 10).await;
    running.kill().await;
    let running = world.start();
    running.runs().await;
    let again = world.all_held("observe", 10).await;
    let ids = |lines: &[Value]| lines.iter().map(|line| line["case"]["id"].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&held), ids(&again));
    assert!(again.iter().all(|line| line["case"]["state"]["acted"] == false), "{again:?}");

    let wanted = credentials(&tasks);
    until("the standing of each", || async {
        let states = world.told.of("dev.curfew.credential.state.v1");
        let held = states.iter().filter(|event| {
            let data = &event["data"];
            data["phase"] == "held" && data["action"] == "revoke" && data["verdict"]["by"] == "observe"
        });
        let said: BTreeSet<String> = held.map(|event| event["data"]["cred_id"].as_str().unwrap().to_owned()).collect();
        (said == wanted).then_some(())
    })
    .await;
    assert_eq!(world.told.outcomes(), BTreeSet::new());
    world.assert_all_alive(&tasks).await;
    let figures = world.figures().await;
    figures.assert_add_up();
    assert_eq!((figures.accepted, figures.rejected, figures.duplicates), (10, 0, 0), "{figures:?}");
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    world.assert_all_alive(&tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_holds_over_restarts_until_it_is_released() {
    let world = World::new("enforce").await;
    let tasks = world.some_tasks(3).await;
    let running = world.start();
    running.runs().await;
    for task in &tasks {
        world.send(&World::started(task)).await;
    }
    let said = world.ask_json(&["freeze", "--reason", "story", "--json"]).await;
    assert_eq!(said["frozen"], "soft", "{said}");
    for task in &tasks {
        world.send(&World::ended(task)).await;
    }
    world.all_held("frozen", 6).await;
    world.assert_all_alive(&tasks).await;

    running.kill().await;
    let running = world.start();
    running.runs().await;
    world.all_held("frozen", 6).await;
    // One that ends only after the restart.
    let late = world.some_tasks(1).await;
    world.send(&World::started(&late[0])).await;
    world.send(&World::ended(&late[0])).await;
    world.all_held("frozen", 8).await;
    world.assert_all_alive(&tasks).await;
    world.assert_all_alive(&late).await;
    assert_eq!(world.told.outcomes(), BTreeSet::new());

    let output = world.ask(&["release"]).await;
    assert!(output.status.success(), "{output:?}");
    let all: Vec<Task> = tasks.into_iter().chain(late).collect();
    world.all_closed(&all, &running).await;
    world.assert_all_dead(&all).await;
    world.assert_one_end_each(&all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_it_ends_in_good_order_and_loses_nothing() {
    let world = World::new("enforce").await;
    let tasks = world.some_tasks(15).await;
    let mut running = world.start();
    running.runs().await;
    for task in &tasks {
        world.send(&World::started(task)).await;
        world.send(&World::ended(task)).await;
    }
    // Under way: something is over, and not all.
    until("the first outcome", || async { (!world.told.closed().is_empty()).then_some(()) }).await;
    for _ in 0..3 {
        let (code, log) = running.terminate().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("curfew ended") && !log.contains("the grace is over"), "{log}");
        running = world.start();
        running.runs().await;
    }
    world.all_closed(&tasks, &running).await;
    world.assert_all_dead(&tasks).await;
    world.assert_one_end_each(&tasks).await;
    let figures = world.figures().await;
    figures.assert_add_up();
    assert_eq!((figures.accepted, figures.open, figures.duplicates), (30, 0, 0), "{figures:?}");
}
