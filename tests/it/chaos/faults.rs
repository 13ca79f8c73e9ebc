//! What goes wrong, one after the other, and a pause beside all else: drawn from the seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::dice::Dice;
use super::history::Freeze;
use super::load::Load;
use super::process::Curfew;
use super::proxy::Proxies;
use super::servers::Servers;
use super::{now_ms, say};
use crate::world::until;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Rolling,
    Broker,
    Database,
    Seal,
    Freeze,
}

/// What the faults act on, and what of them belongs into the history.
pub struct Faults {
    pub began: Instant,
    pub servers: Arc<Servers>,
    pub fleet: Vec<Arc<Curfew>>,
    pub proxies: Proxies,
    pub load: Arc<Load>,
    pub freezes: Mutex<Vec<Freeze>>,
    pub database_stops_ms: Mutex<Vec<i64>>,
    pub count: Mutex<usize>,
}

impl Faults {
    /// Each fault once, in some order; then any of them, until `length` is over.
    pub async fn run(self: Arc<Self>, mut dice: Dice, length: Option<Duration>) {
        use Fault::{Broker, Database, Freeze, Kill, Rolling, Seal};
        let mut first = [Kill, Broker, Database, Seal, Freeze, Kill];
        dice.shuffle(&mut first);
        let rest = [Kill, Kill, Kill, Broker, Database, Database, Seal, Freeze, Rolling];
        let pauses = tokio::spawn(self.clone().pauses(dice.part(1), length));
        for fault in first.into_iter().chain([Rolling]) {
            sleep(dice.millis(300, 1_200)).await;
            self.inject(fault, &mut dice).await;
        }
        while length.is_some_and(|length| self.began.elapsed() < length) {
            sleep(dice.millis(2_000, 8_000)).await;
            let fault = rest[dice.below(rest.len())];
            self.inject(fault, &mut dice).await;
        }
        pauses.await.unwrap();
    }

    /// SIGSTOP in the middle of an effect: its answer comes when the process's claim is somebody else's.
    async fn pauses(self: Arc<Self>, mut dice: Dice, length: Option<Duration>) {
        loop {
            sleep(dice.millis(300, 1_500)).await;
            let curfew = &self.fleet[dice.below(self.fleet.len())];
            {
                let _mine = curfew.busy.lock().await;
                let effect = self.proxies.effect_by(curfew.name);
                let when = match tokio::time::timeout(Duration::from_secs(8), effect).await {
                    Ok(()) => "in the middle of an effect",
                    Err(_) => "while it waits",
                };
                self.say(&format!("SIGSTOP {} {when}, for longer than its claims last", curfew.name));
                curfew.pause().await;
            }
            if length.is_none_or(|length| self.began.elapsed() + Duration::from_secs(20) >= length) {
                return;
            }
            sleep(dice.millis(4_000, 15_000)).await;
        }
    }

    fn say(&self, what: &str) {
        *self.count.lock().unwrap() += 1;
        say(self.began, &format!("-- {what}"));
    }

    /// One that is not paused.
    async fn some(&self, dice: &mut Dice) -> (Arc<Curfew>, tokio::sync::OwnedMutexGuard<()>) {
        loop {
            let curfew = self.fleet[dice.below(self.fleet.len())].clone();
            if let Ok(mine) = curfew.busy.clone().try_lock_owned() {
                return (curfew, mine);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn inject(&self, fault: Fault, dice: &mut Dice) {
        match fault {
            Fault::Kill => {
                let (curfew, _mine) = self.some(dice).await;
                self.say(&format!("kill -9 {}", curfew.name));
                curfew.kill().await;
                sleep(dice.millis(0, 1_500)).await;
                curfew.start().await;
            }
            Fault::Rolling => {
                self.say("rolling restart");
                for curfew in &self.fleet {
                    let _mine = curfew.busy.lock().await;
                    curfew.terminate().await;
                    curfew.start().await;
                    curfew.ready().await;
                }
            }
            Fault::Broker => {
                self.say("the broker restarts");
                self.servers.stop("kafka").await;
                sleep(dice.millis(0, 2_000)).await;
                self.servers.go_on("kafka").await;
            }
            Fault::Database => {
                let _nothing_is_minted = self.load.outage.write().await;
                let at_once = dice.below(2) == 0;
                self.say(if at_once { "PostgreSQL ends at once, and recovers" } else { "PostgreSQL restarts" });
                self.database_stops_ms.lock().unwrap().push(now_ms());
                if at_once {
                    self.servers.crash("postgres", "QUIT").await;
                } else {
                    self.servers.stop("postgres").await;
                }
                self.servers.go_on("postgres").await;
            }
            Fault::Seal => {
                let _nothing_is_minted = self.load.outage.write().await;
                self.say("Vault is sealed");
                self.servers.seal().await;
                sleep(dice.millis(1_500, 4_000)).await;
                self.servers.unseal().await;
            }
            Fault::Freeze => self.freeze(dice).await,
        }
    }

    /// All is frozen, a process is killed meanwhile and comes back frozen, and all is released.
    async fn freeze(&self, dice: &mut Dice) {
        let operator = self.fleet[0].clone();
        let answer = until("the freeze", || async {
            let output = operator.ask(&["freeze", "--reason", "chaos", "--json"]).await;
            let said: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            // By the file alone it holds for one process.
            (output.status.success() && said["by_file_only"].is_null()).then(now_ms)
        });
        let from_ms = answer.await;
        self.say("curfew freeze");
        let (curfew, mine) = self.some(dice).await;
        if curfew.name != operator.name {
            curfew.kill().await;
            curfew.start().await;
        }
        drop(mine);
        sleep(dice.millis(2_000, 3_000)).await;
        self.freezes.lock().unwrap().push(Freeze { from_ms, to_ms: now_ms() });
        until("the release", || async { operator.ask(&["release"]).await.status.success().then_some(()) }).await;
    }
}
