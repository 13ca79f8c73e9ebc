//! Tasks, in an open loop: each gets its credentials, starts, lives a few seconds and ends, in one of the ways in which
//! tasks end. What was sent, and from when on each credential may be cut, is written down before Curfew can know it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use curfew::credential::{CredentialId, Kind};
use futures::StreamExt as _;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::history::{Answer, Credential, Look, Sent, What, When};
use super::now_ms;
use super::rotating::Password;
use super::servers::Servers;

pub const TASKS: &str = "chaos.tasks";
pub const OUTCOMES: &str = "chaos.outcomes";
pub const REJECTED: &str = "chaos.rejected";
/// Of the scanner.
pub const FINDINGS: &str = "chaos.findings";
const PARTITIONS: i32 = 6;
const SOURCE: &str = "/chaos";
pub const POISON: &[u8] = b"{ this is no event";

/// What was done, as far as it is over.
#[derive(Default)]
pub struct Ledger {
    pub sent: Vec<Sent>,
    pub credentials: Vec<Credential>,
    pub looks: Vec<Look>,
    pub tasks: usize,
    /// Cases that must be held for ever.
    pub forged: usize,
    /// Passwords that the stores held.
    pub passwords: Vec<Password>,
    /// Findings that were made.
    pub found: usize,
    /// What was handed out, to be tried again.
    held: Vec<Held>,
}

impl Ledger {
    /// Passwords and tokens: canaries.
    pub fn secrets(&self) -> BTreeSet<String> {
        let held = self.held.iter().map(|one| one.key.secret().to_owned());
        held.chain(self.passwords.iter().map(|one| one.value.clone())).collect()
    }
}

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Once,
    Twice,
    /// The end is read before the start.
    First,
    /// Nobody says so: the deadline must.
    Lost,
    /// Another task goes on with the lease.
    Shared,
}

pub struct Load {
    servers: Arc<Servers>,
    producer: Mutex<FutureProducer>,
    pub ledger: Mutex<Ledger>,
    /// Held by what takes Vault or PostgreSQL away: nothing is minted meanwhile, so that nothing is minted by halves.
    pub outage: tokio::sync::RwLock<()>,
}

/// What a witness needs to try a credential.
#[derive(Clone)]
pub enum Key {
    Login { user: String, password: String },
    Token(String),
}

#[derive(Clone)]
struct Held {
    id: CredentialId,
    user: Option<String>,
    key: Key,
}

pub async fn create_topics(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topics = [(TASKS, PARTITIONS), (FINDINGS, 2), (OUTCOMES, 1), (REJECTED, 1)];
    let topics = topics.map(|(name, count)| NewTopic::new(name, count, TopicReplication::Fixed(1)));
    for result in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

impl Load {
    pub fn new(servers: Arc<Servers>) -> Arc<Self> {
        let producer = Mutex::new(producer(servers.brokers()));
        Arc::new(Self { servers, producer, ledger: Mutex::default(), outage: tokio::sync::RwLock::default() })
    }

    /// Starts tasks until `stop`, and waits until the last of them has ended, or was left to its deadline.
    pub async fn run(self: Arc<Self>, mut dice: Dice, every: Duration, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut number = 0_usize;
        while !stop.is_cancelled() {
            let (this, own) = (self.clone(), dice.part(number as u64));
            let end = match dice.below(12) {
                0 => End::Twice,
                1 | 2 => End::First,
                3 | 4 => End::Lost,
                5 | 6 => End::Shared,
                _ => End::Once,
            };
            tasks.spawn(async move { this.task(own, number, end).await });
            if number % 15 == 7 {
                let (this, mut own) = (self.clone(), dice.part(u64::MAX - number as u64));
                tasks.spawn(async move { this.poison(&mut own).await });
            }
            number += 1;
            tokio::time::sleep(every.mul_f64(0.5 + dice.below(100) as f64 / 100.0)).await;
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }

    async fn task(&self, mut dice: Dice, number: usize, end: End) {
        let run = format!("run-{number}");
        let (wants_lease, wants_token) = if end == End::Shared {
            (true, false)
        } else {
            [(true, true), (true, false), (false, true)][dice.below(3)]
        };
        let mut held = Vec::new();
        {
            let _all_is_up = self.outage.read().await;
            if wants_lease {
                held.push(self.lease("app").await);
            }
            if wants_token {
                // Some name the run in their metadata, and Curfew must find it there.
                let meta =
                    if dice.below(2) == 0 { json!({"curfew_run": format!("{SOURCE}:{run}")}) } else { json!({}) };
                held.push(self.token(meta).await);
            }
        }
        self.note(&held, true);
        let start = self.event("started", &run, grants(&held));
        let ended = self.event("ended", &run, json!({"outcome": "success"}));
        let mut life = dice.millis(1_000, 5_000);
        let (mut here, there) = (self.partition(&mut dice), self.partition(&mut dice));
        match end {
            End::Once | End::Twice => {
                self.send(TASKS, here, &start, false).await;
                self.lives(&held, life).await;
                self.may_be_cut(&held, now_ms());
                // Another partition: which of the two is read first, nobody knows.
                here = there;
                self.send(TASKS, here, &ended, false).await;
                if end == End::Twice {
                    self.send(TASKS, here, &ended, true).await;
                }
            }
            End::First => {
                self.may_be_cut(&held, now_ms());
                self.send(TASKS, here, &ended, false).await;
                tokio::time::sleep(life).await;
                self.send(TASKS, there, &start, false).await;
            }
            End::Lost => {
                life += Duration::from_secs(3);
                let deadline_ms = now_ms() + i64::try_from(life.as_millis()).unwrap();
                self.may_be_cut(&held, deadline_ms);
                let mut data = grants(&held);
                let deadline = jiff::Timestamp::from_millisecond(deadline_ms).unwrap();
                data["deadline"] = format!("{deadline:.3}").into();
                self.send(TASKS, here, &self.event("started", &run, data), false).await;
                self.lives(&held, life / 4).await;
            }
            End::Shared => {
                // One partition: that the second task holds it too is read before the first one ends.
                let other = format!("{run}-other");
                self.send(TASKS, here, &start, false).await;
                self.send(TASKS, here, &self.event("started", &other, grants(&held)), false).await;
                self.lives(&held, life / 2).await;
                self.send(TASKS, here, &ended, false).await;
                self.lives(&held, life).await;
                self.may_be_cut(&held, now_ms());
                self.send(TASKS, here, &self.event("ended", &other, json!({"outcome": "success"})), false).await;
                self.ledger.lock().unwrap().tasks += 1;
            }
        }
        self.ledger.lock().unwrap().tasks += 1;
    }

    fn partition(&self, dice: &mut Dice) -> i32 {
        i32::try_from(dice.below(usize::try_from(PARTITIONS).unwrap())).unwrap()
    }

    /// Half of the time, a look whether the credentials work, the other half.
    async fn lives(&self, held: &[Held], life: Duration) {
        tokio::time::sleep(life / 2).await;
        for one in held {
            self.look(one, When::TaskLives).await;
        }
        tokio::time::sleep(life / 2).await;
    }

    fn note(&self, held: &[Held], registered: bool) {
        let mut ledger = self.ledger.lock().unwrap();
        for one in held {
            let urn = one.id.as_str().to_owned();
            let (issuer_id, user) = (one.id.id().to_string(), one.user.clone());
            ledger.credentials.push(Credential { urn, issuer_id, user, cut_from_ms: i64::MAX, registered });
            ledger.held.push(one.clone());
        }
    }

    fn may_be_cut(&self, held: &[Held], from_ms: i64) {
        let mut ledger = self.ledger.lock().unwrap();
        for one in held {
            let known = ledger.credentials.iter_mut().rev().find(|known| known.urn == one.id.as_str());
            known.unwrap().cut_from_ms = from_ms;
        }
    }

    async fn lease(&self, role: &str) -> Held {
        let path = format!("database/creds/{role}");
        let (status, answer) = self.servers.vault.call("GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (user, password) = (text(&answer["data"]["username"]), text(&answer["data"]["password"]));
        let id = CredentialId::new(Kind::VaultLease, "a", &text(&answer["lease_id"])).unwrap();
        Held { id, user: Some(user.clone()), key: Key::Login { user, password } }
    }

    async fn token(&self, meta: Value) -> Held {
        let (accessor, token) = self.servers.vault.token(json!({"ttl": "2h", "meta": meta})).await;
        let id = CredentialId::new(Kind::VaultToken, "b", &accessor).unwrap();
        Held { id, user: None, key: Key::Token(token) }
    }

    /// Credentials that nobody registers, of a role beside the one that tasks use: they must outlive all this.
    pub async fn bystanders(&self) {
        for _ in 0..3 {
            let held = [self.lease("other").await, self.token(json!({})).await];
            self.note(&held, false);
        }
    }

    /// A lease that was minted for a task of which nobody ever hears: reconcile must find it, and may cut it.
    pub async fn leak(&self) {
        let held = [self.lease("app").await];
        self.note(&held, true);
        self.may_be_cut(&held, now_ms());
    }

    /// Ends of tasks that say they held what is not theirs to name: a bystander's lease, and Curfew's own login.
    pub async fn forge(&self) {
        let bystander = self.ledger.lock().unwrap().credentials[0].urn.clone();
        let own = CredentialId::new(Kind::VaultToken, "b", &self.servers.own_accessor("b").await).unwrap();
        for (n, urn) in [bystander.as_str(), own.as_str()].into_iter().enumerate() {
            let data = json!({"outcome": "success", "grants": [{"cred_id": urn}]});
            self.send(TASKS, 0, &self.event("ended", &format!("forged-{n}"), data), false).await;
        }
        self.ledger.lock().unwrap().forged = 2;
    }

    /// The witness tries all that was ever handed out, at the end.
    pub async fn look_at_all(&self) {
        let held = self.ledger.lock().unwrap().held.clone();
        let looks = held.iter().map(|one| self.look(one, When::AtTheEnd));
        futures::stream::iter(looks).buffer_unordered(8).collect::<Vec<()>>().await;
    }

    /// What is seen in the end: a system that does not answer is asked again.
    pub async fn answer_of(&self, key: &Key) -> Answer {
        for _ in 0..20 {
            match self.try_it(key).await {
                Answer::Unknown => tokio::time::sleep(Duration::from_millis(500)).await,
                answer => return answer,
            }
        }
        Answer::Unknown
    }

    async fn look(&self, one: &Held, when: When) {
        let answer = match when {
            When::TaskLives => self.try_it(&one.key).await,
            When::AtTheEnd => self.answer_of(&one.key).await,
        };
        // When it was answered: a broker that is away can keep a task beyond its deadline, and then it is over.
        let look = Look { urn: one.id.as_str().to_owned(), at_ms: now_ms(), when, answer };
        self.ledger.lock().unwrap().looks.push(look);
    }

    /// Asks Vault, as root.
    pub async fn vault(&self, method: &str, path: &str) -> (u16, Value) {
        self.servers.vault.call(method, path, Value::Null).await
    }

    /// What the systems themselves say, past Curfew.
    pub async fn try_it(&self, key: &Key) -> Answer {
        match key {
            Key::Login { user, password } => match self.servers.postgres.login(user, password).await {
                Ok(_) => Answer::Works,
                Err(error) => match error.as_database_error().and_then(|e| e.code()).as_deref() {
                    Some("28P01" | "28000") => Answer::Refused,
                    _ => Answer::Unknown,
                },
            },
            Key::Token(token) => {
                match self.servers.vault.call_as(token, "GET", "auth/token/lookup-self", Value::Null).await.0 {
                    200 => Answer::Works,
                    403 => Answer::Refused,
                    _ => Answer::Unknown,
                }
            }
        }
    }

    /// Sends it until the broker has it; twice where it is a repeat of one that was sent before.
    pub async fn send(&self, topic: &'static str, partition: i32, event: &Value, repeat: bool) {
        let body = event.to_string();
        let id = event["id"].as_str().unwrap().to_owned();
        let (partition, offset) = self.produce(topic, partition, body.as_bytes()).await;
        let what = if repeat { What::Repeat } else { What::Event };
        self.ledger.lock().unwrap().sent.push(Sent { topic, id, what, partition, offset });
    }

    async fn poison(&self, dice: &mut Dice) {
        let partition = self.partition(dice);
        let (partition, offset) = self.produce(TASKS, partition, POISON).await;
        self.ledger.lock().unwrap().sent.push(Sent {
            topic: TASKS,
            id: String::new(),
            what: What::Poison,
            partition,
            offset,
        });
    }

    async fn produce(&self, topic: &str, partition: i32, body: &[u8]) -> (i32, i64) {
        loop {
            let kind = Header { key: "content-type", value: Some("application/cloudevents+json") };
            let record = FutureRecord::<(), [u8]>::to(topic).partition(partition).payload(body);
            let record = record.headers(OwnedHeaders::new().insert(kind));
            let sender = self.producer.lock().unwrap().clone();
            let delivered = match sender.send(record, Timeout::Never).await {
                Ok(delivered) => delivered,
                // Some stop for good when the broker restarts, as Curfew's own may. If it was sent all the same, the log tells.
                Err(_) => {
                    *self.producer.lock().unwrap() = producer(self.servers.brokers());
                    continue;
                }
            };
            // Without a place it may be lost: a broker that starts can take it for a repeat. If it is not, the log tells.
            if delivered.offset >= 0 {
                return (delivered.partition, delivered.offset);
            }
        }
    }

    fn event(&self, what: &str, run: &str, mut data: Value) -> Value {
        data["run_id"] = run.into();
        json!({
            "specversion": "1.0", "type": format!("dev.curfew.task.{what}.v1"), "source": SOURCE,
            "id": format!("{run}:{what}"), "datacontenttype": "application/json", "data": data,
        })
    }
}

impl Key {
    fn secret(&self) -> &str {
        match self {
            Self::Login { password, .. } => password,
            Self::Token(token) => token,
        }
    }
}

/// What it sends arrives in order, also over a restart of the broker.
fn producer(brokers: &str) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "30000")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .unwrap()
}

fn grants(held: &[Held]) -> Value {
    let grant = |one: &Held| match &one.user {
        Some(user) => json!({"cred_id": one.id.as_str(), "principal": user}),
        None => json!({"cred_id": one.id.as_str()}),
    };
    json!({"grants": held.iter().map(grant).collect::<Vec<_>>()})
}
