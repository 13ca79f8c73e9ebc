//! Servers of a test's own: restarted, replicated, blocked.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind};
use curfew::connector::Gate;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;

use super::life::Rotating;
use super::{as_user, make, run};
use crate::postgres::shelf::{DEAD, value};
use crate::world::until;

/// A MariaDB in a folder of its own.
pub struct Own {
    pub url: String,
    /// Keeps the server while its stdin is open: it ends with this process, however it ends.
    keeper: Child,
    folder: TempDir,
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

fn servers() -> Command {
    Command::new(crate::repository().join("tests/servers/servers"))
}

impl Own {
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("curfew-own-").tempdir_in("/tmp").unwrap();
        let place = folder.path().join("servers");
        let mut command = servers();
        command.arg("run").arg(&place).args(["mariadb", "--", "cat"]);
        // Databases run as another user where the tests run as root: it must get to its folder.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let keeper = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let written = place.join("env");
        let text = until("the test's own server", || async { tokio::fs::read_to_string(&written).await.ok() }).await;
        let line = text.lines().find_map(|line| line.strip_prefix("CURFEW_TEST_MARIADB=")).unwrap();
        Self { url: line.trim_matches('\'').to_owned(), keeper, folder }
    }

    pub async fn admin(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.url).await.unwrap()
    }

    pub async fn lets_in(&self, user: &str, password: &str) -> bool {
        MySqlConnection::connect_with(&as_user(&self.url, user, password)).await.is_ok()
    }

    /// Its data, with its general and its binary log.
    pub fn data(&self) -> PathBuf {
        self.place().join("mariadb")
    }

    fn place(&self) -> PathBuf {
        self.folder.path().join("servers")
    }

    /// Stopped, and started again with its data.
    async fn restart(&self) {
        fn done(verb: &str, place: &Path) {
            let status = servers().arg(verb).arg(place).arg("mariadb").stderr(Stdio::null()).status().unwrap();
            assert!(status.success(), "{verb}");
        }
        let place = self.place();
        let both = move || {
            done("stop", &place);
            done("start", &place);
        };
        tokio::task::spawn_blocking(both).await.unwrap();
    }
}

/// Connections are counted from the beginning again.
#[tokio::test]
async fn after_a_restart_what_is_open_is_of_the_new_value() {
    let own = Own::start().await;
    let mut life = Rotating::of_server(&own.url, false).await;
    life.look().await;
    life.renew().await;
    let marked = life.turn.mark.clone().unwrap();
    // When it was started is known to the second.
    until("some seconds", || async {
        let seconds = "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS \
             WHERE VARIABLE_NAME = 'UPTIME'";
        (sqlx::query_scalar::<_, i64>(seconds).fetch_one(&mut own.admin().await).await.unwrap() > 4).then_some(())
    })
    .await;
    own.restart().await;
    let new = life.new.clone();
    let mut session = MySqlConnection::connect_with(&as_user(&own.url, &life.user(0), &new)).await.unwrap();
    let number: i64 =
        sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)").fetch_one(&mut session).await.unwrap();
    let first: i64 = marked.split('@').next().unwrap().parse().unwrap();
    assert!(number < first, "its number, {number}, is below the mark, {first}");
    assert_eq!(life.gate(Act::Adopt).await, Ok(Gate::Open));
    assert_eq!(life.act(Act::EndSessions).await.derived, 0);
    session.execute("SELECT 1").await.unwrap();
    assert_eq!(life.probe().await, DEAD);
    // Behind the same name there may be another server, whenever it was started: what is open here may be of either value.
    let (mark, _) = marked.rsplit_once('@').unwrap();
    life.turn.mark = Some(format!("{mark}@another"));
    assert_eq!(life.probe().await, (Answer::Refused, true, true));
    assert_eq!(life.refusal(Act::EndSessions).await.kind, FailureKind::Refused);
    session.execute("SELECT 1").await.unwrap();
    // And what is open at the one that made the mark is not seen.
    session.close().await.unwrap();
    assert_eq!(life.probe().await, (Answer::Refused, true, true));
}

/// Accounts reach a replica, sessions there are not seen: the verdict says so.
#[tokio::test]
async fn a_replica_has_sessions_of_its_own() {
    let (main, replica) = (Own::start().await, Own::start().await);
    let (user, password) = ("replicates", value());
    let mut admin = main.admin().await;
    make(&mut admin, "'replicates'@'%'", &password).await;
    run(&mut admin, "GRANT REPLICATION SLAVE ON *.* TO 'replicates'@'%'".to_owned()).await;
    let mut life = Rotating::of_server(&main.url, false).await;
    life.look().await;
    life.renew().await;
    assert_eq!(life.probe().await, DEAD);
    let port = main.url.trim_end_matches('/').rsplit_once(':').unwrap().1;
    let mut other = replica.admin().await;
    run(&mut other, "SET GLOBAL server_id = 2".to_owned()).await;
    let follow = format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = '{user}', \
         MASTER_PASSWORD = '{password}', MASTER_LOG_FILE = 'changes.000001', MASTER_LOG_POS = 4"
    );
    run(&mut other, follow).await;
    run(&mut other, "START SLAVE".to_owned()).await;
    let user = life.user(0);
    until("the replica", || async { replica.lets_in(&user, &life.new).await.then_some(()) }).await;
    assert!(!replica.lets_in(&user, &life.old).await, "the old value is refused there as well");
    let at_replica = MySqlConnection::connect_with(&as_user(&replica.url, &user, &life.new)).await.unwrap();
    assert_eq!(life.probe().await, (Answer::Refused, true, true), "what is open there is not seen");
    // The lock comes there too; what was open there lives on.
    life.contains = true;
    life.act(Act::Disable).await;
    until("the lock", || async { (!replica.lets_in(&user, &life.new).await).then_some(()) }).await;
    let mut at_replica = at_replica;
    at_replica.execute("SELECT 1").await.unwrap();
}
