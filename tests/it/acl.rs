//! Redis nodes of a test's own: their users are changed, they are killed and started again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};

use curfew::connector::redis::{RedisSettings, Urls};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use secrecy::SecretString;
use tempfile::TempDir;

use crate::world::{installed, repository, until};

/// Curfew's own user, with the rights of `deploy/redis`, and an administrator's.
const OWN: (&str, &str) = ("curfew", "curfew-own-password");
const ROOT: (&str, &str) = ("root", "root-password");

static BINARY: LazyLock<PathBuf> = LazyLock::new(|| installed("redis").join("redis-server"));

/// A process with its users in a file of its own.
pub struct Node {
    pub port: u16,
    /// Where nodes of a cluster speak to each other.
    pub bus: u16,
    folder: TempDir,
    more: Vec<String>,
    child: Mutex<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The rights as `deploy/redis/curfew.acl` gives them.
fn rights() -> String {
    let text = std::fs::read_to_string(repository().join("deploy/redis/curfew.acl")).unwrap();
    let line = text.lines().find(|line| line.starts_with("user curfew ")).expect("deploy/redis names the user");
    line.strip_prefix("user curfew on #SHA256_OF_ITS_PASSWORD ").expect("and its rights").to_owned()
}

impl Node {
    /// With its users in a file.
    pub async fn start() -> Self {
        Self::start_with(true, &[]).await
    }

    /// `more` arguments; `saves`: whether it has a file of its users.
    pub async fn start_with(saves: bool, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users = format!(
            "user default off\nuser {} on >{} ~* &* +@all\nuser {} on >{} {}\n",
            ROOT.0,
            ROOT.1,
            OWN.0,
            OWN.1,
            rights()
        );
        let mut more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        if saves {
            let file = folder.path().join("users.acl");
            std::fs::write(&file, users).unwrap();
            more.extend(["--aclfile".to_owned(), file.to_str().unwrap().to_owned()]);
        }
        let [port, bus] = [crate::canary::port(), crate::canary::port()];
        if more.iter().any(|word| word == "--cluster-enabled") {
            more.extend(["--cluster-port".to_owned(), bus.to_string()]);
        }
        let child = Mutex::new(spawn(port, &folder, &more));
        let node = Self { port, bus, folder, more, child };
        if !saves {
            node.ready_as("default", "").await;
            let mut open = node.connection().await.unwrap();
            for line in
                [format!("{} on >{} ~* &* +@all", ROOT.0, ROOT.1), format!("{} on >{} {}", OWN.0, OWN.1, rights())]
            {
                let words: Vec<&str> = line.split(' ').collect();
                cmd("ACL").arg("SETUSER").arg(words).exec_async(&mut open).await.unwrap();
            }
        }
        node.ready_as(ROOT.0, ROOT.1).await;
        node
    }

    async fn ready_as(&self, user: &str, password: &str) {
        until("the node to answer", || async {
            let mut connection = self.connection().await?;
            let open: redis::RedisResult<()> = match password {
                "" => cmd("PING").query_async(&mut connection).await,
                _ => cmd("AUTH").arg(user).arg(password).query_async(&mut connection).await,
            };
            let mine: bool = self.child.lock().unwrap().try_wait().unwrap().is_none();
            (open.is_ok() && mine).then_some(())
        })
        .await;
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        client.get_multiplexed_async_connection().await.ok()
    }

    /// As the administrator.
    pub async fn root(&self) -> MultiplexedConnection {
        self.log_in(ROOT.0, ROOT.1).await.expect("the administrator is let in")
    }

    /// As this user, if it is let in.
    pub async fn log_in(&self, user: &str, password: &str) -> Option<MultiplexedConnection> {
        let mut connection = self.connection().await.expect("the node answers");
        let answer: redis::RedisResult<()> = cmd("AUTH").arg(user).arg(password).query_async(&mut connection).await;
        match answer {
            Ok(()) => Some(connection),
            Err(error) if error.code() == Some("WRONGPASS") => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn lets_in(&self, user: &str, password: &str) -> bool {
        self.log_in(user, password).await.is_some()
    }

    /// One command of the administrator, its words parted by blanks.
    pub async fn done(&self, line: &str) {
        let mut words = line.split(' ');
        let mut command = cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.exec_async(&mut self.root().await).await.unwrap();
    }

    /// Curfew's own login.
    pub fn url(&self) -> SecretString {
        SecretString::from(format!("redis://{}:{}@127.0.0.1:{}", OWN.0, OWN.1, self.port))
    }

    /// What it is told from now on, as its administrator sees it.
    pub async fn told(&self) -> Told {
        let mut words = Command::new(BINARY.with_file_name("redis-cli"));
        words.args(["-p", &self.port.to_string(), "--user", ROOT.0, "monitor"]).env("REDISCLI_AUTH", ROOT.1);
        let file = self.folder.path().join("told");
        let out = std::fs::File::create(&file).unwrap();
        let child = words.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().unwrap();
        let told = Told { child, file };
        until("the monitor", || async { told.text().starts_with("OK").then_some(()) }).await;
        told
    }

    /// Its log, and the file of its users.
    pub fn written(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap();
        read("log") + &read("users.acl")
    }

    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().ok();
        child.wait().unwrap();
    }

    /// On the same port, with the users that were saved.
    pub async fn start_again(&self) {
        self.kill();
        *self.child.lock().unwrap() = spawn(self.port, &self.folder, &self.more);
        self.ready_as(ROOT.0, ROOT.1).await;
    }
}

/// A client that watches.
pub struct Told {
    child: Child,
    file: PathBuf,
}

impl Told {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }

    /// No more: what it was told.
    pub async fn stop(&mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.text()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(port: u16, folder: &TempDir, more: &[String]) -> Child {
    let mut command = Command::new(&*BINARY);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]).arg(port.to_string());
    command.arg("--dir").arg(folder.path()).arg("--logfile").arg(folder.path().join("log")).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// How Curfew reaches them.
pub fn settings(nodes: &[&Node]) -> RedisSettings {
    RedisSettings { urls: Urls::Given(nodes.iter().map(|node| node.url()).collect()), ca_file: None, timeout_ms: 5_000 }
}
