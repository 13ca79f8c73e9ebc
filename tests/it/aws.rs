//! Access keys of IAM, on moto with its authorization on, and a proxy of ours for what moto lacks. Never on AWS itself.

mod dead;
pub mod function;
mod keys;
mod leaving;
pub mod proxy;
mod quota;
mod reach;
mod report;
mod roles;
mod secrets;
mod sessions;
mod users;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_iam::Client;
use aws_sdk_iam::types::StatusType;
use curfew::clock;
use curfew::connector::aws::{AwsSettings, Login};
use curfew::connector::{Connector, Realm, Registry, aws};
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::probe::Settle;
use tempfile::TempDir;

use crate::world::{installed, repository, unique, until};
use proxy::Proxy;

/// The account that moto's keys are of, where nobody says otherwise.
pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-west-1";
/// As the default, in less time.
const SOON: Settle = Settle { window_ms: 300, sightings: 4 };

static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| installed("moto").join("bin/python"));

/// A key as its user has it.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

impl Key {
    /// As AWS's tools write it.
    pub fn file(&self) -> String {
        format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", self.id, self.secret)
    }
}

/// IAM and STS of a test's own, with an administrator, Curfew's login, and a proxy before them.
pub struct Moto {
    child: Child,
    _folder: TempDir,
    pub root: Client,
    /// Secrets Manager, as the administrator sees it.
    pub secrets: aws_sdk_secretsmanager::Client,
    own: Key,
    /// Where it listens itself, and who administers it.
    port: u16,
    admin: Key,
    pub proxy: Proxy,
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What stands in a file of `deploy/aws`, for all users: moto asks of IAM's calls whether they may be made at all, not of
/// whom.
pub fn policy(name: &str) -> String {
    let text = std::fs::read_to_string(repository().join("deploy/aws").join(name)).unwrap();
    let mut policy: serde_json::Value = serde_json::from_str(&text).unwrap();
    for one in policy["Statement"].as_array_mut().unwrap() {
        one["Resource"] = "*".into();
        // moto knows no keys of conditions, and refuses what has one.
        one.as_object_mut().unwrap().remove("Condition");
    }
    policy.to_string()
}

fn client(port: u16, key: &Key) -> Client {
    Client::new(&config(port, key))
}

fn config(port: u16, key: &Key) -> SdkConfig {
    let login = Credentials::new(&key.id, &key.secret, None, None, "tests");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(login));
    config.build()
}

impl Moto {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = crate::canary::port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        // The administrator is made by the first three calls; from then on all are asked who they are.
        let mut child = Command::new(&*PYTHON)
            .arg(repository().join("tests/servers/moto/server.py"))
            .args(["-H", "127.0.0.1", "-p"])
            .arg(port.to_string())
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "3")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        until("moto to listen", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
        assert!(child.try_wait().unwrap().is_none(), "moto ended: another process has its port");
        let nobody = Key { id: "AKIANOBODYNOBODYNOBO".to_owned(), secret: "nobody".to_owned() };
        let all = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
        let admin = made_user(&client(port, &nobody), "admin/root", Some(all)).await;
        let root = client(port, &admin);
        let own = made_user(&root, "curfew/curfew", Some(&policy("curfew.json"))).await;
        let may = root.put_user_policy().user_name("curfew").policy_name("secrets");
        may.policy_document(policy("secrets.json")).send().await.unwrap();
        for (name, file) in [
            ("keys", "rotates-keys.json"),
            ("lifts", "lifts.json"),
            ("rotations", "rotates-itself.json"),
            ("roles", "roles.json"),
            ("cuts", "cuts-roles.json"),
        ] {
            let may = root.put_user_policy().user_name("curfew").policy_name(name).policy_document(policy(file));
            may.send().await.unwrap();
        }
        let secrets = aws_sdk_secretsmanager::Client::new(&config(port, &admin));
        let proxy = Proxy::to(port).await;
        Self { child, _folder: folder, root, secrets, own, port, admin, proxy }
    }

    /// How Curfew logs in, through the proxy.
    pub fn settings(&self) -> AwsSettings {
        self.settings_of(&self.own)
    }

    pub fn settings_of(&self, key: &Key) -> AwsSettings {
        let login = Login::Given { id: key.id.clone(), secret: key.secret.clone().into() };
        AwsSettings {
            endpoint: Some(self.proxy.url()),
            timeout_ms: 2_000,
            settle: SOON,
            ..AwsSettings::new(ACCOUNT, REGION, login, vec!["ci/".to_owned(), "curfew/".to_owned()])
        }
    }

    /// A login with what stands in one file of `deploy/aws`, and nothing else.
    pub async fn login(&self, full: &str, file: &str) -> Key {
        made_user(&self.root, full, Some(&policy(file))).await
    }

    /// IAM, as who has this key sees it.
    pub fn client(&self, key: &Key) -> Client {
        client(self.port, key)
    }

    pub fn own(&self) -> &Key {
        &self.own
    }

    pub async fn connector(&self, settings: &AwsSettings) -> Arc<dyn Connector> {
        aws::connect("aws", settings, clock::System::shared()).await.unwrap()
    }

    pub async fn registry(&self) -> Registry {
        self.registry_of(&self.settings()).await
    }

    pub async fn registry_of(&self, settings: &AwsSettings) -> Registry {
        let mut registry = Registry::default();
        registry.add_realm(Realm {
            name: "aws".to_owned(),
            mode: Mode::Enforce,
            allowed_prefixes: settings.users.clone(),
            reducible: Vec::new(),
            targets: Vec::new(),
        });
        registry.add(self.connector(settings).await);
        registry
    }

    /// A user of the pipeline with a key.
    pub async fn victim(&self) -> Victim {
        self.user(&format!("ci/{}", unique("bot"))).await
    }

    /// A user at this path, with a key.
    pub async fn user(&self, full: &str) -> Victim {
        let key = made_user(&self.root, full, None).await;
        Victim { full: full.to_owned(), key }
    }

    /// Another key of the user.
    pub async fn second_key(&self, victim: &Victim) -> Key {
        made_key(&self.root, victim.name()).await
    }

    /// The ids of the user's keys, as the administrator sees them.
    pub async fn keys(&self, victim: &Victim) -> Vec<String> {
        let list = self.root.list_access_keys().user_name(victim.name()).send().await.unwrap();
        list.access_key_metadata().iter().map(|key| key.access_key_id().unwrap().to_owned()).collect()
    }

    /// As the administrator sees it: `None`: there is no such key.
    pub async fn lets_in(&self, victim: &Victim, id: &str) -> Option<bool> {
        let list = self.root.list_access_keys().user_name(victim.name()).send().await.unwrap();
        let key = list.access_key_metadata().iter().find(|key| key.access_key_id() == Some(id))?;
        Some(key.status() == Some(&StatusType::Active))
    }

    /// The policy of ours on the user.
    pub async fn denied(&self, victim: &Victim) -> Option<serde_json::Value> {
        let name = format!("curfew-sessions-{}", victim.key.id);
        let call = self.root.get_user_policy().user_name(victim.name()).policy_name(name);
        let found = call.send().await.ok()?;
        let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().unwrap();
        Some(serde_json::from_str(&text).unwrap())
    }

    /// All policies on the user.
    pub async fn policies(&self, victim: &Victim) -> Vec<String> {
        let list = self.root.list_user_policies().user_name(victim.name()).send().await.unwrap();
        list.policy_names().to_vec()
    }
}

async fn made_user(root: &Client, full: &str, policy: Option<&str>) -> Key {
    let (path, name) = full.rsplit_once('/').map_or((String::new(), full), |(path, name)| (format!("{path}/"), name));
    root.create_user().user_name(name).path(format!("/{path}")).send().await.unwrap();
    let key = made_key(root, name).await;
    if let Some(policy) = policy {
        root.put_user_policy().user_name(name).policy_name("own").policy_document(policy).send().await.unwrap();
    }
    key
}

async fn made_key(root: &Client, name: &str) -> Key {
    let made = root.create_access_key().user_name(name).send().await.unwrap();
    let key = made.access_key().unwrap();
    Key { id: key.access_key_id().to_owned(), secret: key.secret_access_key().to_owned() }
}

/// A user whose key leaked.
#[derive(Clone)]
pub struct Victim {
    pub full: String,
    pub key: Key,
}

impl Victim {
    pub fn name(&self) -> &str {
        self.full.rsplit('/').next().unwrap()
    }

    pub fn credential(&self) -> CredentialId {
        CredentialId::new(Kind::AwsAccessKey, "aws", &format!("{}/{}", self.full, self.key.id)).unwrap()
    }
}
