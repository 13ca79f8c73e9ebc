//! `docker-compose.yml`: nothing in it drifts from the servers that the tests run on, no password is in it, and the processes
//! that it starts do what they are for. There is no Docker engine here: the processes, their configuration and their health
//! checks are run as they stand, on the servers of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::{Admin, Postgres};
use crate::intake::{Pen, brokers, create};
use crate::watch::deployed;
use crate::world::{installed, repository, unique, until};

fn compose() -> Value {
    serde_saphyr::from_str(&fs::read_to_string(repository().join("docker-compose.yml")).unwrap()).unwrap()
}

fn services(compose: &Value) -> BTreeMap<&str, &Value> {
    compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service)).collect()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// Ours, by their name.
fn processes(compose: &Value) -> BTreeMap<String, Value> {
    let ours = services(compose).into_iter().filter(|(_, service)| service["build"].is_object());
    ours.map(|(name, service)| (name.to_owned(), service.clone())).collect()
}

#[test]
fn images_are_pinned_ports_are_of_this_machine_and_secrets_are_asked_for() {
    let compose = compose();
    let volumes: BTreeSet<&String> = compose["volumes"].as_object().unwrap().keys().collect();
    for (name, service) in services(&compose) {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} has no version"));
        assert!(tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()), "{name}: {image}");
        let ends = service["restart"] == "no" || name == "net";
        assert!(ends || service["healthcheck"]["test"].is_array(), "{name} has no health check");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        for (key, value) in service["environment"].as_object().into_iter().flatten() {
            let secret = ["PASSWORD", "TOKEN", "SECRET", "KEY"].iter().any(|word| key.contains(word));
            let value = value.as_str().unwrap();
            assert!(!secret || (value.starts_with("${") && value.contains(":?")), "{name}: {key} has a default");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let there = source
                .strip_prefix("./")
                .map_or_else(|| volumes.iter().any(|known| *known == source), |path| repository().join(path).exists());
            assert!(there, "{name}: there is no {source}");
        }
        let keeps_keys = service["volumes"].to_string().contains("vault-dev-keys");
        assert_eq!(
            keeps_keys,
            service["profiles"] == json!(["dev"]),
            "{name}: what keeps keys is for development only"
        );
    }
    let dev = fs::read_to_string(deployed("compose/dev.env")).unwrap();
    assert!(dev.starts_with("# DEVELOPMENT ONLY"), "{dev}");
}

/// As `docker compose config` reads it, where there is one; else by the schema that it reads it by.
#[test]
fn it_is_a_compose_file() {
    let version = Command::new("docker").args(["compose", "version"]).stdin(Stdio::null()).output();
    if version.is_ok_and(|version| version.status.success()) {
        let mut config = Command::new("docker");
        config.args(["compose", "--env-file", "deploy/compose/dev.env", "config", "--quiet"]);
        let output = config.current_dir(repository()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let schema = fs::read(installed("compose").join("compose-spec.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let mut compose = compose();
    let wrong: Vec<String> = schema.iter_errors(&compose).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert_eq!(wrong, Vec::<String>::new());
    compose["services"]["intake"]["comand"] = json!("x");
    assert!(!schema.is_valid(&compose), "that it looks at all");
}

/// What the tests run on is what compose starts: versions, and each setting of the broker that both name.
#[test]
fn the_servers_are_those_of_the_tests() {
    let compose = compose();
    let services = services(&compose);
    let tag = |name: &str| services[name]["image"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    for name in ["kafka", "vault"] {
        let folder = installed(name);
        let folder = folder.file_name().unwrap().to_str().unwrap();
        assert!(folder.starts_with(&format!("{name}-{}-", tag(name))), "{folder}, and compose has {}", tag(name));
    }
    assert_eq!(services["topics"]["image"], services["kafka"]["image"]);
    assert_eq!(services["vault-dev-setup"]["image"], services["vault"]["image"]);

    let settings = fs::read_to_string(repository().join("tests/servers/kafka/server.properties")).unwrap();
    let settings = settings.lines().filter(|line| !line.starts_with('#') && !line.contains('@'));
    let environment = services["kafka"]["environment"].as_object().unwrap();
    let mut shared = 0;
    for (key, value) in settings.filter_map(|line| line.split_once('=')) {
        // A test must not wait for members that will not come.
        if key == "group.initial.rebalance.delay.ms" {
            continue;
        }
        let name = format!("KAFKA_{}", key.to_uppercase().replace('.', "_"));
        assert_eq!(environment.get(&name), Some(&json!(value)), "{name}");
        shared += 1;
    }
    assert!(shared >= 7, "{shared} settings are shared");
}

#[test]
fn prometheus_asks_each_process_and_knows_the_same_rules() {
    let compose = compose();
    let read = |path: &str| -> Value { serde_saphyr::from_str(&fs::read_to_string(deployed(path)).unwrap()).unwrap() };
    let (there, here) = (read("prometheus/prometheus.yml"), read("compose/prometheus.yml"));
    assert_eq!(there["rule_files"], here["rule_files"]);
    assert_eq!(there["scrape_configs"][0]["job_name"], here["scrape_configs"][0]["job_name"]);
    let asked: BTreeSet<String> =
        texts(&here["scrape_configs"][0]["static_configs"][0]["targets"]).into_iter().collect();
    let served: BTreeSet<String> = processes(&compose).values().map(address).collect();
    assert_eq!(asked, served);
    for file in texts(&here["rule_files"]) {
        let mounted = format!("./deploy/prometheus/{file}:/etc/prometheus/{file}:ro");
        assert!(texts(&compose["services"]["prometheus"]["volumes"]).contains(&mounted), "{mounted}");
    }
    // All that a process may do alone is done by exactly one of them.
    let mut roles: Vec<String> = processes(&compose).values().flat_map(roles_of).collect();
    roles.sort_unstable();
    let mut all = [
        "intake",
        "enforce",
        "deadlines",
        "reconcile",
        "inventory",
        "bind",
        "kubernetes",
        "canary",
        "reach",
        "relay",
        "serve",
    ];
    all.sort_unstable();
    assert_eq!(roles, all);
}

fn after(service: &Value, flag: &str) -> String {
    let command = texts(&service["command"]);
    let at = command.iter().position(|word| word == flag).unwrap();
    command[at + 1].clone()
}

fn address(service: &Value) -> String {
    after(service, "--metrics")
}

fn roles_of(service: &Value) -> Vec<String> {
    after(service, "--role").split(',').map(str::to_owned).collect()
}

/// The compose file's processes, on the servers of the tests.
struct Fleet {
    folder: TempDir,
    config: PathBuf,
    mount: String,
    tasks: String,
    compose: Value,
    running: BTreeMap<String, (Child, u16)>,
}

impl Fleet {
    async fn new() -> Self {
        let (admin, compose) = (Admin::shared(), compose());
        let (mount, auth, folder) = (admin.database().await, unique("approle"), tempfile::tempdir().unwrap());
        let login = folder.path().join("login");
        fs::create_dir(&login).unwrap();
        let policy = admin.policy("enforce", &[("database/creds", &format!("{mount}/creds"))]).await;
        admin.done("POST", &format!("sys/auth/{auth}"), json!({"type": "approle"})).await;
        let role = json!({"token_policies": [policy], "token_ttl": "1h", "token_max_ttl": "24h"});
        admin.done("POST", &format!("auth/{auth}/role/curfew"), role).await;
        for (file, method, path, field) in
            [("role-id", "GET", "role-id", "role_id"), ("secret-id", "POST", "secret-id", "secret_id")]
        {
            let (status, answer) = admin.call(method, &format!("auth/{auth}/role/curfew/{path}"), json!({})).await;
            assert_eq!(status, 200, "{answer}");
            write_private(&login.join(file), answer["data"][field].as_str().unwrap());
        }
        write_private(&login.join("journal.url"), &Postgres::shared().url);

        // The configuration as it stands, with the addresses and names of here.
        let mut text = fs::read_to_string(deployed("compose/curfew.yaml")).unwrap();
        let made = compose["services"]["topics"]["command"][0].as_str().unwrap();
        let mut tasks = String::new();
        for topic in ["curfew.tasks", "curfew.findings", "curfew.outcomes", "curfew.rotated", "curfew.rejected"] {
            assert!(made.contains(topic) && text.contains(topic), "{topic} is in both");
            let name = unique("composed");
            create(&name, 1).await;
            text = text.replace(topic, &name);
            if topic == "curfew.tasks" {
                tasks = name;
            }
        }
        let schema = unique("composed").replace('-', "_");
        for (from, to) in [
            ("127.0.0.1:9092", brokers()),
            ("http://127.0.0.1:8200", admin.address.clone()),
            ("/run/curfew/login", login.display().to_string()),
            ("/var/lib/curfew", folder.path().display().to_string()),
            ("group: curfew}", format!("group: {}}}", unique("composed"))),
            ("mount: approle,", format!("mount: {auth},")),
            ("database/creds/", format!("{mount}/creds/")),
            ("journal.url}", format!("journal.url, schema: {schema}}}")),
            // Two of them run beside each other here.
            ("0.0.0.0:8485", "127.0.0.1:0".to_owned()),
        ] {
            assert!(text.contains(from), "the configuration says nothing of {from}");
            text = text.replace(from, &to);
        }
        let config = folder.path().join("curfew.yaml");
        fs::write(&config, text).unwrap();
        Self { folder, config, mount, tasks, compose, running: BTreeMap::new() }
    }

    /// Starts the process `service` as `name`.
    fn start(&mut self, service: &str, name: &str) {
        let port = crate::canary::port();
        let command = texts(&processes(&self.compose)[service]["command"]);
        let at = command.iter().position(|word| word == "--metrics").unwrap();
        let mut words = command;
        words[at + 1] = format!("127.0.0.1:{port}");
        let log = fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        let mut process = Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
        process.env_clear().env("CURFEW_CONFIG", &self.config).current_dir(self.folder.path());
        if service != name {
            words.extend(["--socket".to_owned(), self.folder.path().join(name).display().to_string()]);
        }
        let child = process.args(words).stdin(Stdio::null()).stderr(log).spawn().unwrap();
        self.running.insert(name.to_owned(), (child, port));
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    async fn get(&self, name: &str, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/{path}", self.running[name].1)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    async fn ready(&self, name: &str) {
        until(&format!("{name} to be ready"), || async {
            let log = self.log(name);
            assert!(!log.contains("ending") && !log.contains("curfew: "), "{name}: {log}");
            (self.get(name, "readyz").await?.0 == 200).then_some(())
        })
        .await;
    }

    fn ask(&self, args: &[&str]) -> Value {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
        command.env_clear().env("CURFEW_CONFIG", &self.config).current_dir(self.folder.path());
        let output = command.args(args).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    }

    /// Who exports what the journal says.
    async fn leaders(&self) -> Vec<&str> {
        let mut leaders = Vec::new();
        for name in self.running.keys() {
            let Some((_, page)) = self.get(name, "metrics").await else { continue };
            if page.contains("\ncurfew_frozen ") {
                assert!(page.contains("\ncurfew_cases{"), "all of it, or nothing: {page}");
                leaders.push(name.as_str());
            }
        }
        leaders
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (child, _) in self.running.values_mut() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_processes_share_the_work_and_one_of_them_says_what_the_journal_says() {
    let mut fleet = Fleet::new().await;
    let names: Vec<String> = processes(&fleet.compose).into_keys().collect();
    for name in &names {
        fleet.start(name, name);
        // The first one makes the tables.
        fleet.ready(name).await;
    }
    for name in &names {
        let words = texts(&processes(&fleet.compose)[name]["healthcheck"]["test"]);
        let port = address(&processes(&fleet.compose)[name]).rsplit_once(':').unwrap().1.to_owned();
        let here = fleet.running[name].1.to_string();
        let words: Vec<String> = words[1..].iter().map(|word| word.replace(&port, &here)).collect();
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    }

    // Through all of them: read, decided, held since it only observes, and told.
    let lease = Admin::shared().database_credential(&fleet.mount).await;
    let urn = format!("urn:curfew:cred:vault-lease:dev:{}", lease.lease);
    let pen = Pen::new();
    for (what, data) in [
        ("started", json!({"run_id": "r1", "grants": [{"cred_id": urn, "principal": lease.username}]})),
        ("ended", json!({"run_id": "r1", "outcome": "success"})),
    ] {
        let event = json!({
            "specversion": "1.0", "type": format!("dev.curfew.task.{what}.v1"), "source": "/compose",
            "id": format!("r1:{what}"), "datacontenttype": "application/json", "data": data,
        });
        let headers: [(&str, Option<&[u8]>); 1] = [("content-type", Some(b"application/cloudevents+json"))];
        pen.raw(&fleet.tasks, 0, Some(event.to_string().as_bytes()), &headers).await;
    }
    until("the case to be held", || async {
        let cases = fleet.ask(&["cases", "--state", "held", "--json"]);
        (cases[0]["verdict"]["by"] == "observe").then_some(())
    })
    .await;
    until("what was told to be published", || async {
        (fleet.get("serve", "metrics").await?.1.contains("\ncurfew_outbox_rows 0\n")).then_some(())
    })
    .await;
    assert!(Postgres::shared().login(&lease.username, &lease.password).await.is_ok(), "it only observes");

    // One process says what the journal says, also where several may; another one when that is gone.
    assert_eq!(fleet.leaders().await, ["serve"]);
    let page = fleet.get("serve", "metrics").await.unwrap().1;
    assert!(page.contains("\ncurfew_held_cases{reason=\"observe\"} 1\n"), "{page}");
    fleet.start("serve", "serve-2");
    fleet.ready("serve-2").await;
    assert_eq!(fleet.leaders().await, ["serve"]);
    let (mut first, _) = fleet.running.remove("serve").unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    until("the other to lead", || async { (fleet.leaders().await == ["serve-2"]).then_some(()) }).await;
    let page = fleet.get("serve-2", "metrics").await.unwrap().1;
    assert!(page.contains("\ncurfew_held_cases{reason=\"observe\"} 1\n"), "{page}");
}
