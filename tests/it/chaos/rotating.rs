//! Passwords that leak while all else happens: of a user alone, and of two in turn. Each is stored in Vault, learned by the
//! inventory, found by a scanner, replaced, found again when it is dead. One pair is only ever rolled over: whoever reads
//! its stored value must be let in at each instant.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use curfew::credential::{CredentialId, Kind};
use curfew::fingerprint::Keys;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::history::{Look, Rotated, Stood, When};
use super::load::{FINDINGS, Key, Load};
use super::now_ms;
use super::servers::Servers;
use crate::rotation::kv_mount;

/// As in the policies of `deploy/vault`.
pub const MOUNT: &str = "kv";

/// A stored password and its users.
pub struct Rota {
    pub name: &'static str,
    users: &'static [&'static str],
    /// It leaks where all can see it: contained. Else it is rolled over.
    public: bool,
}

pub const ROTAS: [Rota; 3] = [
    Rota { name: "solo", users: &["chaos_solo"], public: true },
    Rota { name: "pair", users: &["chaos_pair_a", "chaos_pair_b"], public: true },
    Rota { name: "calm", users: &["chaos_calm_a", "chaos_calm_b"], public: false },
];

/// What stood in the store.
#[derive(Clone)]
pub struct Password {
    pub rota: &'static str,
    pub version: i64,
    pub user: String,
    pub value: String,
}

impl Rota {
    pub fn credential(&self) -> CredentialId {
        CredentialId::new(Kind::PostgresRole, "appdb", &self.users.join(",")).unwrap()
    }

    /// Below the mount.
    fn path(&self) -> String {
        format!("app/{}", self.name)
    }

    fn recipe(&self) -> Value {
        let mut store = json!({"realm": "a", "mount": MOUNT, "path": self.path(), "field": "password"});
        if self.users.len() > 1 {
            store["user_field"] = "username".into();
        }
        json!({"name": self.name, "target": "appdb", "roles": self.users, "environment": "chaos", "store": store})
    }
}

/// The part of Curfew's configuration. `login` is the inventory's.
pub fn configure(config: &mut Value, login: Value, keys: &Path) {
    config["topics"][FINDINGS] =
        json!({"events": ["finding.observed"], "kinds": ["postgres-role"], "strongest": "contain"});
    config["rotations"] = ROTAS.iter().map(Rota::recipe).collect();
    config["inventory"] = json!([{"realm": "a", "approle": login, "mount": MOUNT, "paths": ["app/"], "fields": ["password"], "every": "1s"}]);
    config["fingerprint"] = json!({"key_file": keys});
}

impl Servers {
    /// Users, their first passwords, and policies for each of the secrets.
    pub async fn prepare_rotations(&self) {
        kv_mount(&self.vault, MOUNT).await;
        for rota in &ROTAS {
            let value = format!("first-{}", crate::world::unique("pw"));
            for (nth, user) in rota.users.iter().enumerate() {
                let login = if nth == 0 { format!("LOGIN PASSWORD '{value}'") } else { "NOLOGIN".to_owned() };
                self.side.execute(AssertSqlSafe(format!("CREATE ROLE {user} {login}"))).await.unwrap();
            }
            let secret = json!({"data": {"username": rota.users[0], "password": value}});
            self.vault.done("POST", &format!("{MOUNT}/data/{}", rota.path()), secret).await;
        }
        let whole = tokio::fs::read_to_string(crate::repository().join("deploy/vault/kv-store.hcl")).await.unwrap();
        let text: String = ROTAS.iter().map(|rota| whole.replace("app/database", &rota.path())).collect();
        self.vault.done("PUT", "sys/policies/acl/curfew-kv-store", json!({"policy": text})).await;
    }
}

/// Which credential a request of Curfew's to the store is about.
pub fn about(path: &str) -> Option<String> {
    let below = path.strip_prefix(MOUNT)?.strip_prefix('/')?.split_once('/')?.1;
    let path = below.strip_prefix("curfew-pending/").unwrap_or(below);
    ROTAS.iter().find(|rota| rota.path() == path).map(|rota| rota.credential().id())
}

impl Load {
    /// A password leaks, is replaced, leaks again, until `stop`.
    pub async fn rotate(self: Arc<Self>, rota: &'static Rota, mut dice: Dice, keys: Keys, stop: CancellationToken) {
        while !stop.is_cancelled() {
            sleep(dice.millis(300, 2_500)).await;
            let Some(leaked) = self.stored(rota).await else { continue };
            for _ in 0..=dice.below(2) {
                self.find(rota, &leaked, if rota.public { "active" } else { "unknown" }, &keys, &mut dice).await;
            }
            while !stop.is_cancelled() {
                sleep(Duration::from_millis(300)).await;
                let Some(now) = self.stored(rota).await else { continue };
                if now.version != leaked.version {
                    break;
                }
                self.use_stored(rota, &now).await;
            }
            if dice.below(2) == 0 {
                let validity = ["inactive", "unknown", "active"][dice.below(if rota.public { 3 } else { 2 })];
                self.find(rota, &leaked, validity, &keys, &mut dice).await;
            }
        }
    }

    /// What consumers read now. `None`: Vault does not say.
    async fn stored(&self, rota: &'static Rota) -> Option<Password> {
        let _all_is_up = self.outage.read().await;
        let (status, body) = self.vault("GET", &format!("{MOUNT}/data/{}", rota.path())).await;
        let text = |name: &str| body["data"]["data"][name].as_str().map(str::to_owned);
        let (user, value) = (text("username")?, text("password")?);
        let version = body["data"]["metadata"]["version"].as_i64().filter(|_| status == 200)?;
        let now = Password { rota: rota.name, version, user, value };
        let mut ledger = self.ledger.lock().unwrap();
        if !ledger.passwords.iter().any(|known| known.rota == rota.name && known.version == version) {
            ledger.passwords.push(now.clone());
        }
        Some(now)
    }

    /// A consumer of the pair that is only rolled over logs in by what it has just read.
    async fn use_stored(&self, rota: &'static Rota, now: &Password) {
        if rota.public {
            return;
        }
        let answer = self.try_it(&now.key()).await;
        // It may have been replaced, and be dead, between the two.
        let same = self.stored(rota).await.is_some_and(|then| then.version == now.version);
        if same {
            let urn = rota.credential().as_str().to_owned();
            self.ledger.lock().unwrap().looks.push(Look { urn, at_ms: now_ms(), when: When::TaskLives, answer });
        }
    }

    /// A scanner tells of it.
    async fn find(&self, rota: &Rota, leaked: &Password, validity: &str, keys: &Keys, dice: &mut Dice) {
        let number = {
            let mut ledger = self.ledger.lock().unwrap();
            ledger.found += 1;
            ledger.found
        };
        let fingerprints = keys.of(&leaked.value).into_iter();
        let fingerprints: Vec<Value> = fingerprints
            .map(|print| json!({"kid": print.kid(), "alg": "hmac-sha256", "value": print.digits()}))
            .collect();
        let key = format!("{}-{}-{number}", rota.name, leaked.version);
        let event = json!({
            "specversion": "1.0", "type": "dev.curfew.finding.observed.v1", "source": "/chaos/scanner", "id": key,
            "datacontenttype": "application/json",
            "data": {"finding_key": key, "detector": "chaos", "fingerprints": fingerprints,
                     "validity": {"state": validity}},
        });
        let partition = i32::try_from(dice.below(2)).unwrap();
        self.send(FINDINGS, partition, &event, false).await;
        if dice.below(4) == 0 {
            self.send(FINDINGS, partition, &event, true).await;
        }
    }

    /// How the stores and the database stand in the end.
    pub async fn rotated(&self) -> Vec<Rotated> {
        let mut all = Vec::new();
        for rota in &ROTAS {
            let now = self.stored(rota).await.expect("all is up");
            let passwords = self.ledger.lock().unwrap().passwords.clone();
            let mut stood = Vec::new();
            for one in passwords.iter().filter(|one| one.rota == rota.name) {
                let answer = self.answer_of(&one.key()).await;
                stood.push(Stood { version: one.version, user: one.user.clone(), answer });
            }
            let (_, metadata) = self.vault("GET", &format!("{MOUNT}/metadata/{}", rota.path())).await;
            let versions: BTreeMap<String, Value> =
                serde_json::from_value(metadata["data"]["versions"].clone()).unwrap();
            let kept = versions.into_iter().filter(|(_, version)| version["destroyed"] != true);
            let pending = format!("{MOUNT}/metadata/curfew-pending/{}", rota.path());
            all.push(Rotated {
                urn: rota.credential().as_str().to_owned(),
                issuer_id: rota.credential().id(),
                users: rota.users.iter().map(|user| (*user).to_owned()).collect(),
                current: now.version,
                stood,
                kept: kept.map(|(version, _)| version.parse().unwrap()).collect(),
                pending: self.vault("GET", &pending).await.0 != 404,
            });
        }
        all
    }
}

impl Password {
    fn key(&self) -> Key {
        Key::Login { user: self.user.clone(), password: self.value.clone() }
    }
}

/// The keys by which the inventory and the scanner fingerprint, in a file.
pub async fn make_keys(path: &Path) -> Keys {
    let mut command = tokio::process::Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
    let made = command.env_clear().arg("fingerprint-key").arg(path).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    Keys::read(path).unwrap()
}

/// Sees that all that leaked is matched: how many findings wait.
pub async fn waiting(side: &sqlx::PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM findings WHERE phase = 0").fetch_one(side).await
}
