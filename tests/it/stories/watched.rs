//! A real Prometheus watches a real healthy run, by the files that operators are given: no alert but the watchdog, data in
//! each panel, and no series whose labels are not bounded.

use std::process::Stdio;

use curfew::metrics::catalogue::{self, Kind, Values};

use super::findings::Post;
use super::*;
use crate::watch::{WATCHDOG, deployed, panels, prometheus, promtool};
use crate::world::repository;

/// Panels that have data only when there is something to see.
const ONLY_IN_TROUBLE: [&str; 5] = [
    "Curfew: objective: Held by reason",
    "Curfew: connectors and systems: Failures a minute",
    "Curfew: connectors and systems: Blocked systems",
    "Curfew: connectors and systems: Age of the last full list of a cluster",
    "Curfew: producers and owners: Topics that were never read",
];
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Debian's Prometheus with the files of `deploy/prometheus`, asked and asking each second.
struct Prometheus {
    _child: Child,
    _folder: TempDir,
    api: String,
}

impl Prometheus {
    async fn start(targets: &[u16]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(deployed("prometheus/prometheus.yml")).unwrap();
        let mut config: Value = serde_saphyr::from_str(&text).unwrap();
        config["global"] = json!({"scrape_interval": "1s", "evaluation_interval": "1s"});
        for file in config["rule_files"].as_array_mut().unwrap() {
            *file = json!(deployed("prometheus").join(file.as_str().unwrap()));
        }
        let targets: Vec<String> = targets.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        config["scrape_configs"][0]["static_configs"][0]["targets"] = json!(targets);
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let port = crate::canary::port();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(prometheus("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let started = Self { _child: child, _folder: folder, api: format!("http://127.0.0.1:{port}") };
        until("Prometheus", || async {
            let ready = reqwest::get(format!("{}/-/ready", started.api)).await.ok()?;
            ready.status().is_success().then_some(())
        })
        .await;
        started
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.api), query).unwrap();
        let answer: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        answer["data"].clone()
    }

    /// The values of a query; those that are no numbers are none.
    async fn values(&self, query: &str) -> Vec<f64> {
        let data = self.ask("query", &[("query", query)]).await;
        let values = data["result"].as_array().unwrap().iter().map(|one| one["value"][1].as_str().unwrap());
        values.filter_map(|value| value.parse::<f64>().ok()).filter(|value| !value.is_nan()).collect()
    }

    /// Names of alerts that fire or will, after each rule was looked at without an error.
    async fn alerts(&self) -> Option<BTreeSet<String>> {
        let rules = self.ask("rules", &[]).await;
        let rules = rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
        for rule in rules {
            match rule["health"].as_str().unwrap() {
                "ok" => {}
                "unknown" => return None,
                _ => panic!("{rule}"),
            }
        }
        let alerts = self.ask("alerts", &[]).await;
        let alerts = alerts["alerts"].as_array().unwrap().iter();
        Some(alerts.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect())
    }
}

/// Minted by a login of the least policy, in the world's own names.
async fn canary(world: &World) -> Value {
    let role = format!("{}/creds/app", world.mount);
    let policy = world.admin.policy("canary", &[("database/creds/canary", &role)]).await;
    let token = world.admin.token_of(&[&policy]).await;
    crate::canary::private(world.folder.path().join("canary.token"), &token);
    json!({"realm": "test", "token_file": "canary.token", "role": role, "topic": world.tasks, "every": "1s", "within": "10s"})
}

async fn page(port: u16) -> String {
    reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.unwrap().text().await.unwrap()
}

/// Each line is of a figure that is written down, with labels that are; open ones say only what is `configured`.
fn assert_bounded(page: &str, configured: &BTreeMap<&str, BTreeSet<String>>) {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.starts_with("process_"));
    let mut series = 0;
    for line in lines {
        series += 1;
        let (named, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) =
            named.split_once('{').map_or((named, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        let name = name.strip_prefix("curfew_").unwrap_or_else(|| panic!("{line}"));
        let parts = ["_bucket", "_count", "_sum"].iter().find_map(|part| catalogue::find(name.strip_suffix(part)?));
        let figure = catalogue::find(name).or(parts).unwrap_or_else(|| panic!("not in the catalogue: {line}"));
        let mut labels: BTreeMap<&str, &str> =
            labels.split(',').filter_map(|one| one.split_once('=')).map(|(k, v)| (k, v.trim_matches('"'))).collect();
        let le = labels.remove("le");
        assert_eq!(le.is_some(), matches!(figure.kind, Kind::Histogram(_)) && name.ends_with("_bucket"), "{line}");
        for label in figure.labels {
            let value = labels.remove(label.name).unwrap_or_else(|| panic!("{} is not there: {line}", label.name));
            let known = match label.values {
                Values::Closed(values) => values().contains(&value),
                Values::Named(_) => configured[label.name].contains(value),
            };
            assert!(known, "{}={value} is not a value of that label: {line}", label.name);
        }
        assert!(labels.is_empty(), "labels that nobody wrote down: {line}");
    }
    assert!((100..2_000).contains(&series), "{series} series");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_run_alarms_nobody_and_fills_each_panel() {
    let world = World::new("enforce").await;
    let path = world.folder.path().join("curfew.yaml");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["log"] = json!({"level": "info,curfew=debug", "json": true});
    config["canary"] = canary(&world).await;
    fs::write(&path, config.to_string()).unwrap();
    let post = Post::new().await;
    fs::write(post.folder.path().join("curfew.yaml"), post.config("enforce").to_string()).unwrap();
    let (running, finding) = (world.start(), Running::start(post.folder.path()));
    running.runs().await;
    finding.runs().await;
    let watching = Prometheus::start(&[world.metrics, post.metrics]).await;
    until("both to be seen", || async { (watching.values("sum(up{job=\"curfew\"})").await == [2.0]).then_some(()) })
        .await;

    // What is counted by labels that are not all known beforehand is there with the first; the second time it grows.
    let mut all = Vec::new();
    for _ in 0..2 {
        let tasks = world.some_tasks(3).await;
        for task in &tasks {
            let mut started: Value = serde_json::from_str(&World::started(task)).unwrap();
            started["traceparent"] = json!(TRACE);
            world.send(&started.to_string()).await;
            let mut ended: Value = serde_json::from_str(&World::ended(task)).unwrap();
            ended["traceparent"] = json!(TRACE);
            world.send(&ended.to_string()).await;
        }
        all.extend(tasks);
        world.all_closed(&all, &running).await;
        let closed = (all.len() * 2) as f64;
        until("Prometheus to see it", || async {
            let seen = watching.values("sum(curfew_cases_closed_total{trigger=\"task_end\"})").await;
            seen.first().is_some_and(|seen| *seen >= closed).then_some(())
        })
        .await;
    }
    post.scanned(&[&post.first.old.1]).await;
    post.outcome(&post.first).await;
    until("the finding's death to be seen", || async {
        (watching.values("sum(curfew_finding_to_dead_seconds_count)").await == [1.0]).then_some(())
    })
    .await;

    for (title, queries) in panels() {
        for query in queries {
            let query = query.replace("$__rate_interval", "1m");
            let trouble = ONLY_IN_TROUBLE.contains(&title.as_str());
            if trouble {
                watching.values(&query).await;
                continue;
            }
            until(&format!("data for {title}: {query}"), || async {
                (!watching.values(&query).await.is_empty()).then_some(())
            })
            .await;
        }
    }
    if let Some(out) = std::env::var_os("CURFEW_PICTURES") {
        pictures(&world, &running, &watching, &out).await;
    }
    for title in ONLY_IN_TROUBLE {
        assert!(panels().iter().any(|(one, _)| one == title), "there is no panel {title}");
    }
    until("no alert but the watchdog", || async {
        let alerts = watching.alerts().await?;
        (alerts == BTreeSet::from([WATCHDOG.to_owned()])).then_some(())
    })
    .await;

    let of = |values: &[&str]| values.iter().map(|one| (*one).to_owned()).collect::<BTreeSet<_>>();
    let configured = BTreeMap::from([
        ("topic", of(&[&world.tasks, &post.findings, &post.others, "curfew"])),
        ("partition", (0..PARTITIONS).map(|one| one.to_string()).collect()),
        ("connector", of(&["vault-lease", "vault-token", "vault-kv", "kv", "postgres", "postgres-role"])),
        ("realm", of(&["test"])),
        ("part", of(&["0"])),
        ("system", of(&["test", "appdb"])),
    ]);
    for port in [world.metrics, post.metrics] {
        let page = page(port).await;
        assert_bounded(&page, &configured);
        // Names, types, units and texts as Prometheus wants them.
        assert_eq!(promtool(&["check", "metrics"], page.as_bytes()), "");
    }

    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    let closed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = credentials(&all);
    let closed: Vec<Value> = closed
        .filter(|line| line["message"] == "closed" && ours.contains(line["span"]["credential.id"].as_str().unwrap()))
        .collect();
    assert_eq!(closed.len(), all.len() * 2, "{log}");
    for line in closed {
        let span = &line["span"];
        assert!(span["case.id"].is_string() && span["credential.id"].is_string(), "{line}");
        assert_eq!(span["traceparent"], TRACE, "{line}");
    }
    let (code, log) = finding.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}

/// `make pictures`: goes on for a while, so that there is something to see, and has each dashboard drawn as it would look.
async fn pictures(world: &World, running: &Running, watching: &Prometheus, out: &std::ffi::OsStr) {
    const ROUNDS: u64 = 24;
    const EVERY: std::time::Duration = std::time::Duration::from_secs(3);
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let tasks = world.some_tasks(1 + any(4)).await;
        for task in &tasks {
            world.send(&World::started(task)).await;
        }
        world.send("{ this is no event").await;
        tokio::time::sleep(EVERY).await;
        for task in &tasks {
            world.send(&World::ended(task)).await;
        }
        all.extend(tasks);
    }
    world.all_closed(&all, running).await;
    let mut draw = Command::new(repository().join("tests/pictures/draw.py"));
    draw.args(["--prometheus", &watching.api, "--seconds", &(ROUNDS * EVERY.as_secs() + 20).to_string(), "--out"])
        .arg(out);
    assert!(draw.status().await.unwrap().success());
}

/// What the page says of one series.
async fn figure(port: u16, name: &str) -> Option<f64> {
    let page = page(port).await;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_canary_is_asked_for_and_shows_each_stage() {
    let world = World::new("enforce").await;
    let path = world.folder.path().join("curfew.yaml");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut wanted = canary(&world).await;
    // The role's own rounds are rare: this is about the one that is asked for.
    (wanted["every"], wanted["within"]) = (json!("10m"), json!("20s"));
    config["canary"] = wanted;
    fs::write(&path, config.to_string()).unwrap();
    let running = world.start();
    running.runs().await;
    let secrets = [fs::read_to_string(world.folder.path().join("canary.token")).unwrap()];
    let asked = |args: &'static [&'static str]| {
        let (world, secrets) = (&world, &secrets);
        async move {
            let output = world.ask(args).await;
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(!secrets.iter().any(|secret| said.contains(secret.as_str())), "its login is shown");
            (output.status.code(), said.into_owned())
        }
    };

    let (code, said) = asked(&["canary"]).await;
    assert_eq!(code, Some(0), "{said}\n{}", running.log());
    let stages: Vec<&str> = said.lines().filter_map(|line| line.split_whitespace().nth(2)).take(5).collect();
    assert_eq!(stages, ["mint", "tell", "seen", "dead", "refused"], "{said}");
    assert!(said.contains(" s after the end of its task"), "{said}");
    let (code, said) = asked(&["canary", "--json"]).await;
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["died"]), (Some(0), &json!(true)), "{said}");
    let times: Vec<i64> = told["stages"].as_array().unwrap().iter().map(|one| one["at_ms"].as_i64().unwrap()).collect();
    assert!(times.len() == 5 && times.is_sorted(), "{said}");
    // It is a case like any other.
    assert!(world.told.outcomes().len() >= 2);
    assert!(figure(world.metrics, "curfew_canary_configured").await.unwrap() > 0.5);

    // While nothing may die it says how far it came, and what it minted goes all the same.
    assert!(world.ask(&["freeze", "--reason", "story"]).await.status.success());
    let (code, said) = asked(&["canary", "--within", "3s", "--json"]).await;
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, told["failed"].as_str(), told["why"].as_str()),
        (Some(1), Some("dead"), Some("not in time")),
        "{said}"
    );
    assert!(world.ask(&["release"]).await.status.success());
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");

    // Nobody is there to say what became of it.
    let (code, said) = asked(&["canary", "--within", "3s"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("failed at `seen`: Curfew does not say what became of it"), "{said}");
    until("no lease of theirs to be left", || async {
        let list = format!("sys/leases/lookup/{}/creds/app", world.mount);
        let (status, _) = world.admin.call("LIST", &list, Value::Null).await;
        (status == 404).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_dies_each_time_and_one_that_does_not_is_counted_and_leaves_nothing() {
    let world = World::new("enforce").await;
    let path = world.folder.path().join("curfew.yaml");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["canary"] = canary(&world).await;
    // Far above what a busy machine needs for one, far below what `until` waits for the one that may not die.
    config["canary"]["within"] = json!("20s");
    fs::write(&path, config.to_string()).unwrap();
    let running = world.start();
    running.runs().await;
    let died = || async { figure(world.metrics, "curfew_canary_duration_seconds_count").await.unwrap_or(0.0) };
    let failed =
        || async { figure(world.metrics, "curfew_canary_failures_total{stage=\"dead\"}").await.unwrap_or(0.0) };
    until("two canaries to die", || async { (died().await >= 2.0).then_some(()) }).await;
    assert!(figure(world.metrics, "curfew_canary_success_timestamp_seconds").await.unwrap() > 0.0);
    assert!((failed().await).abs() < 0.5, "{}", running.log());
    // Outcomes tell of them as of any other credential.
    assert!(world.told.outcomes().len() >= 2);

    // While nothing may die, they do not; what was minted for them is gone all the same.
    assert!(world.ask(&["freeze", "--reason", "story"]).await.status.success());
    until("one that does not die", || async { (failed().await >= 1.0).then_some(()) }).await;
    let before = died().await;
    assert!(world.ask(&["release"]).await.status.success());
    until("the next one to die", || async { (died().await > before).then_some(()) }).await;
    let shown = page(world.metrics).await;
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the canary did not die as it should"), "{log}");
    let token = fs::read_to_string(world.folder.path().join("canary.token")).unwrap();
    let journal = fs::read(world.folder.path().join("curfew.db")).unwrap();
    assert!(!log.contains(&token) && !shown.contains(&token), "its login is in the log or on the page");
    assert!(!journal.windows(token.len()).any(|bytes| bytes == token.as_bytes()), "its login is in the journal");
    until("no lease of theirs to be left", || async {
        let list = format!("sys/leases/lookup/{}/creds/app", world.mount);
        let (status, _) = world.admin.call("LIST", &list, Value::Null).await;
        (status == 404).then_some(())
    })
    .await;
}
