//! A real Airflow with its OpenLineage provider: tasks take credentials from Vault, and each ends with the last word on its
//! try. A task whose process is killed has no such word: Airflow says nothing of it. It is over with the run of its DAG.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::world::{installed, until_within};

const NAMESPACE: &str = "airflow";
/// Airflow is started by four processes of Python, beside other tests.
const SLOW: Duration = Duration::from_secs(300);

/// What a task got, and wrote down before it went on.
struct Taken {
    name: &'static str,
    username: String,
    password: String,
    /// Of those that the task registered itself.
    lease: Option<CredentialId>,
}

/// An Airflow of its own: its database is SQLite, its executor local.
struct Airflow {
    home: PathBuf,
    api: u16,
    env: Vec<(&'static str, String)>,
    running: Vec<Child>,
}

impl Airflow {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(installed("airflow").join("bin/python"));
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env("PATH", path).current_dir(&self.home).args(["-m", "airflow"]).args(args);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn done(&self, args: &[&str]) {
        let output = self.command(args).output().await.unwrap();
        assert!(output.status.success(), "airflow {args:?}: {output:?}");
    }

    fn start(&mut self, what: &str) {
        let log = fs::File::create(self.home.join(format!("{what}.log"))).unwrap();
        let mut command = self.command(&[what]);
        // A group of its own: its workers end with it.
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.running.push(command.spawn().unwrap());
    }

    /// What all of it wrote, for whoever has to find out.
    fn logs(&self) -> String {
        let logs = ["api-server", "scheduler", "dag-processor"];
        logs.map(|what| fs::read_to_string(self.home.join(format!("{what}.log"))).unwrap_or_default()).join("\n")
    }
}

impl Drop for Airflow {
    fn drop(&mut self) {
        for child in &self.running {
            if let Some(pid) = child.id() {
                std::process::Command::new("kill").args(["-s", "KILL", "--", &format!("-{pid}")]).status().ok();
            }
        }
    }
}

struct Story {
    world: World,
    airflow: Airflow,
}

impl Story {
    async fn new() -> Self {
        let world = World::new("enforce").await;
        let lineage = unique("story-airflow");
        create(&lineage, PARTITIONS).await;
        let path = world.folder.path().join("curfew.yaml");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let source = format!("/openlineage/{NAMESPACE}");
        config["topics"] = json!({
            &world.tasks: {"sources": ["/airflow", &source], "speaks_for": [&source], "strongest": "revoke"},
            &lineage: {"format": "openlineage", "sources": [&source], "strongest": "revoke"},
        });
        fs::write(&path, config.to_string()).unwrap();
        let home = world.folder.path().join("airflow");
        fs::create_dir_all(home.join("dags")).unwrap();
        let dag = crate::repository().join("tests/servers/airflow/story.py");
        fs::copy(dag, home.join("dags/story.py")).unwrap();
        crate::canary::private(home.join("task.token"), &world.admin.curfew_token().await);
        let [api, logs] = [crate::canary::port(), crate::canary::port()];
        let transport =
            json!({"type": "kafka", "topic": lineage, "config": {"bootstrap.servers": brokers()}, "flush": true});
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let env = vec![
            ("AIRFLOW_HOME", text(&home)),
            ("HOME", text(&home)),
            ("AIRFLOW__CORE__LOAD_EXAMPLES", "False".into()),
            ("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False".into()),
            ("AIRFLOW__CORE__PARALLELISM", "5".into()),
            ("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", format!("http://127.0.0.1:{api}/execution/")),
            ("AIRFLOW__API__HOST", "127.0.0.1".into()),
            ("AIRFLOW__API__PORT", api.to_string()),
            ("AIRFLOW__API__WORKERS", "1".into()),
            ("AIRFLOW__API__SECRET_KEY", unique("key")),
            ("AIRFLOW__API_AUTH__JWT_SECRET", unique("a-secret-that-is-long-enough-for-a-signature")),
            ("AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT", logs.to_string()),
            ("AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL", "2".into()),
            ("AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME", "0.5".into()),
            // The lines of docs/tasks.md.
            ("AIRFLOW__OPENLINEAGE__NAMESPACE", NAMESPACE.into()),
            ("AIRFLOW__OPENLINEAGE__TRANSPORT", transport.to_string()),
            ("STORY", text(&home)),
            ("STORY_VAULT", world.admin.address.clone()),
            ("STORY_ROLE", format!("{}/creds/app", world.mount)),
            ("STORY_KAFKA", brokers()),
            ("STORY_GRANTS", world.tasks.clone()),
            ("STORY_CURFEW", text(assert_cmd::cargo::cargo_bin!("curfew"))),
        ];
        Self { world, airflow: Airflow { home, api, env, running: Vec::new() } }
    }

    /// Until a task has got its credential; the witness logs in with it while the task waits.
    async fn taken(&self, name: &'static str) -> Taken {
        let home = &self.airflow.home;
        let what = format!("{name} to take a credential");
        let read = until_within(2 * SLOW, &what, || async {
            fs::read(home.join(format!("{name}.json"))).ok().and_then(|got| serde_json::from_slice::<Value>(&got).ok())
        });
        let got = tokio::time::timeout(SLOW, read).await;
        let got = got.unwrap_or_else(|_| panic!("{name} took nothing: {}", self.airflow.logs()));
        let text = |name: &str| got[name].as_str().map(str::to_owned);
        let lease = text("lease").map(|lease| CredentialId::new(Kind::VaultLease, "test", &lease).unwrap());
        Taken { name, username: text("username").unwrap(), password: text("password").unwrap(), lease }
    }

    async fn works(&self, taken: &Taken) -> bool {
        self.world.pg.login(&taken.username, &taken.password).await.is_ok()
    }

    fn let_go_on(&self, taken: &Taken) {
        fs::write(self.airflow.home.join(format!("{}.seen", taken.name)), "").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_airflow_s_tasks_end_with_what_they_took() {
    let mut story = Story::new().await;
    story.airflow.done(&["db", "migrate"]).await;
    for what in ["api-server", "scheduler", "dag-processor"] {
        story.airflow.start(what);
    }
    let running = story.world.start();
    running.runs().await;
    // What begins before its API answers fails, and is no story of ours.
    let health = format!("http://127.0.0.1:{}/api/v2/monitor/health", story.airflow.api);
    until_within(SLOW, "Airflow's API", || async { reqwest::get(&health).await.ok()?.error_for_status().ok() }).await;
    until_within(SLOW, "Airflow to know the DAG", || async {
        let output = story.airflow.command(&["dags", "trigger", "story"]).output().await.unwrap();
        output.status.success().then_some(())
    })
    .await;

    // While a task waits, what it took works.
    let waits = [story.taken("succeeds-1").await, story.taken("killed-1").await, story.taken("commanded-1").await];
    for taken in &waits {
        assert!(story.works(taken).await, "{}: a live task's", taken.name);
        story.let_go_on(taken);
    }
    let [succeeds, killed, commanded] = waits;
    let all = [succeeds, killed, commanded, story.taken("retries-1").await, story.taken("retries-2").await];
    let leases: BTreeSet<String> =
        all.iter().filter_map(|taken| taken.lease.as_ref()).map(|id| id.as_str().to_owned()).collect();
    until_within(SLOW, "all that was taken to be dead", || async {
        leases.is_subset(&story.world.told.closed()).then_some(())
    })
    .await;
    for taken in &all {
        assert!(!story.works(taken).await, "{}", taken.name);
        assert_eq!(story.world.pg.drops(&taken.username), 1, "{}: dropped exactly once", taken.name);
    }
    let cases = story.world.cases().await;
    for (taken, trigger) in all.iter().filter_map(|taken| {
        // Nobody said that the killed one ended.
        let trigger = if taken.name == "killed-1" { "deadline" } else { "task_end" };
        taken.lease.as_ref().map(|lease| (lease, trigger))
    }) {
        let [case] = cases[taken.as_str()].as_slice() else { panic!("{taken}: {cases:?}") };
        assert_eq!(
            (&case["verdict"]["state"], &case["verdict"]["level"]),
            (&json!("dead"), &json!("target")),
            "{case}"
        );
        assert_eq!(case["case"]["directive"]["trigger"], trigger, "{case}");
    }
    // Each try was a run of its own, and the killed one was a part of the run of its DAG.
    let tasks = story.world.ask_json(&["tasks", "--ended", "--json"]).await;
    let of = |name: &str| {
        let lines = tasks.as_array().unwrap().iter().filter(move |line| line["task"]["name"] == name);
        lines.map(|line| line["task"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("story.retries").len(), 2, "{tasks}");
    let (dag, killed) = (of("story"), of("story.killed"));
    assert_eq!((&killed[0]["outcome"], &killed[0]["within"]), (&json!("lost"), &dag[0]["run"]), "{tasks}");
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}
