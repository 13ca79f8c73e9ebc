//! Every plan of a rotation, on real servers: killed at every append (before and after it is durable), each call failed in
//! each way, each effect repeated, each reply cut after execution. Each run must end with the stored value working, the old
//! one refused, one terminal outcome, and nothing left behind.

mod adoption;
mod approles;
mod ends;
mod redis;
pub mod spread;
mod static_roles;
mod stories;
mod verdicts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use curfew::case::Action;
use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, KilledBy, Level, Output, Record, Verdict};
use curfew::case::state::State;
use curfew::connector::postgres::{PostgresSettings, role};
use curfew::connector::recipe::{Adoption, Keeper, PasswordRules, Place, Recipe, Users};
use curfew::connector::vault::{self, Auth, VaultSettings};
use curfew::connector::{Connector, Failure, Realm, Registry, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{CredentialRegistered, Data, Event, FindingObserved, PartFingerprint, Type, digest16};
use curfew::fingerprint::Fingerprint;
use curfew::guard::Mode;
use curfew::journal::{CaseLine, Journal};
use curfew::outcome;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::admin::{Admin, Postgres};
use crate::endure::{self, Trial};
use crate::stage::{Between, Stage, case_of, event, record};
use crate::store::Store;
use crate::world::{unique, until};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One user.
    One,
    /// Two in turn.
    Two,
    /// Two in turn, read at two more places, of which one is another realm's, and with a webhook.
    Spread,
}

/// The servers, with a KV mount of its own.
pub struct Ground {
    pub admin: Admin,
    pub pg: Postgres,
    pub mount: String,
    token: String,
}

/// A stored credential and how it is rotated.
pub struct Victim {
    pub recipe: Recipe,
    pub registry: Registry,
    /// The user and the value that were current at first.
    pub old: (String, String),
    /// Who is called.
    pub hook: Option<spread::Hook>,
    admin: Admin,
    pg: Postgres,
}

/// A KV engine, version 2, at `mount`.
pub async fn kv_mount(admin: &Admin, mount: &str) {
    admin.done("POST", &format!("sys/mounts/{mount}"), json!({"type": "kv", "options": {"version": "2"}})).await;
    // The engine upgrades itself in the background.
    until("the KV engine", || async {
        let (status, _) = admin.call("GET", &format!("{mount}/config"), Value::Null).await;
        (status == 200).then_some(())
    })
    .await;
}

impl Ground {
    pub async fn new() -> Self {
        let admin = Admin::shared();
        let mount = unique("kv");
        kv_mount(&admin, &mount).await;
        let token = admin.curfew_token().await;
        Self { admin, pg: Postgres::shared(), mount, token }
    }

    /// A fresh one. `adoption` as the recipe says.
    pub async fn victim(&self, shape: Shape, adoption: Adoption) -> Victim {
        let base = unique("app").replace('-', "_");
        let users = match shape {
            Shape::One => Users::One(base.clone()),
            Shape::Two | Shape::Spread => Users::Two(format!("{base}_a"), format!("{base}_b")),
        };
        let first = users.names()[0].to_owned();
        let password = format!("first-{}", unique("pw"));
        let pool = self.pg.pool().await;
        for user in users.names() {
            let login = if user == first { format!("LOGIN PASSWORD '{password}'") } else { "NOLOGIN".to_owned() };
            sqlx::query(AssertSqlSafe(format!("CREATE ROLE \"{user}\" {login}"))).execute(&pool).await.unwrap();
        }
        let path = format!("apps/{base}");
        let secret = json!({"data": {"username": first, "password": password, "host": "db.example"}});
        self.admin.done("POST", &format!("{}/data/{path}", self.mount), secret.clone()).await;
        let spread = shape == Shape::Spread;
        let hook = if spread { Some(spread::Hook::start().await) } else { None };
        let copies = if spread { self.copies(&base, &secret).await } else { Vec::new() };
        let id = users.names().join(",");
        let recipe = Recipe {
            name: base,
            credential: CredentialId::new(Kind::PostgresRole, "appdb", &id).unwrap(),
            place: Place {
                keeper: Keeper::Kv,
                realm: "test".to_owned(),
                mount: self.mount.clone(),
                path,
                field: "password".to_owned(),
                user_field: (shape != Shape::One).then(|| "username".to_owned()),
            },
            copies,
            webhooks: hook.iter().map(|_| "deploy".to_owned()).collect(),
            users,
            password: PasswordRules::default(),
            adoption,
            environment: Some("test".to_owned()),
            owner: None,
            max_age_ms: None,
        };
        let mut registry = self.registry(&recipe).await;
        if let Some(hook) = &hook {
            registry.add(Arc::new(hook.caller()));
        }
        Victim { recipe, registry, old: (first, password), hook, admin: self.admin.clone(), pg: self.pg.clone() }
    }

    async fn registry(&self, recipe: &Recipe) -> Registry {
        let clock = curfew::clock::System::shared();
        let settings = VaultSettings::new(&self.admin.address, Auth::Token(self.token.clone().into()));
        let mut registry = Registry::default();
        let realm = |name: &str, allowed_prefixes: Vec<String>| Realm {
            name: name.to_owned(),
            mode: Mode::Enforce,
            allowed_prefixes,
            targets: Vec::new(),
        };
        registry.add_realm(realm("appdb", vec![recipe.credential.id()]));
        for name in std::iter::once("test").chain(recipe.realms_of_copies()) {
            let places: Vec<Place> =
                Some(&recipe.place).filter(|place| place.realm == name).into_iter().cloned().collect();
            let copies: Vec<Place> = recipe.copies_in(name).cloned().collect();
            let made = vault::connect_stores(name, &settings, Mode::Enforce, clock.clone(), &places, &copies).await;
            made.unwrap().into_iter().for_each(|store| registry.add_store(store));
            registry.add_realm(realm(name, Vec::new()));
        }
        let target = PostgresSettings::new(self.pg.url.clone().into());
        registry.add(role::connect("appdb", &target, clock).await.unwrap());
        registry.add_recipe(recipe.clone());
        registry
    }
}

impl Victim {
    pub fn credential(&self) -> &CredentialId {
        &self.recipe.credential
    }

    /// What consumers read now: version, user, value.
    pub async fn stored(&self) -> (i64, String, String) {
        let Place { mount, path, .. } = &self.recipe.place;
        let (status, body) = self.admin.call("GET", &format!("{mount}/data/{path}"), Value::Null).await;
        assert_eq!(status, 200, "{body}");
        let text = |name: &str| body["data"]["data"][name].as_str().unwrap().to_owned();
        assert_eq!(text("host"), "db.example", "other fields stay");
        (body["data"]["metadata"]["version"].as_i64().unwrap(), text("username"), text("password"))
    }

    /// The user and the value of a stored version.
    pub async fn version(&self, version: i64) -> (String, String) {
        let Place { mount, path, .. } = &self.recipe.place;
        let (_, body) = self.admin.call("GET", &format!("{mount}/data/{path}?version={version}"), Value::Null).await;
        let text = |name: &str| body["data"]["data"][name].as_str().unwrap().to_owned();
        (text("username"), text("password"))
    }

    /// The versions that are not destroyed.
    pub async fn kept(&self) -> Vec<i64> {
        let Place { mount, path, .. } = &self.recipe.place;
        let (_, meta) = self.admin.call("GET", &format!("{mount}/metadata/{path}"), Value::Null).await;
        let versions = meta["data"]["versions"].as_object().unwrap().iter();
        let kept = versions.filter(|(_, version)| version["destroyed"] == false);
        let mut kept: Vec<i64> = kept.map(|(version, _)| version.parse().unwrap()).collect();
        kept.sort_unstable();
        kept
    }

    /// The candidate at the side path, if there is one.
    pub async fn candidate(&self) -> Option<(String, String)> {
        let Place { mount, path, .. } = &self.recipe.place;
        let (_, body) = self.admin.call("GET", &format!("{mount}/data/curfew-pending/{path}"), Value::Null).await;
        let text = |name: &str| body["data"]["data"][name].as_str().map(str::to_owned);
        Some((text("username").unwrap_or_else(|| self.old.0.clone()), text("password")?))
    }

    pub async fn works(&self, login: &(String, String)) -> bool {
        self.pg.login(&login.0, &login.1).await.is_ok()
    }

    /// As the witness sees it, not as Curfew says.
    pub async fn assert_rotated(&self, what: &str) {
        let (version, user, value) = self.stored().await;
        assert!(self.works(&(user.clone(), value.clone())).await, "{what}: what consumers read does not work");
        assert!(!self.works(&self.old).await, "{what}: the old value still works");
        assert_ne!(value, self.old.1, "{what}");
        for other in self.recipe.users.names().into_iter().filter(|name| *name != user) {
            assert!(!self.works(&(other.to_owned(), value.clone())).await, "{what}: both users know it");
        }
        let Place { mount, path, .. } = &self.recipe.place;
        let (status, _) = self.admin.call("GET", &format!("{mount}/metadata/curfew-pending/{path}"), Value::Null).await;
        assert_eq!(status, 404, "{what}: a candidate is left behind");
        let (_, meta) = self.admin.call("GET", &format!("{mount}/metadata/{path}"), Value::Null).await;
        assert_eq!(meta["data"]["versions"]["1"]["destroyed"], true, "{what}: the old value is still stored");
        assert!(version >= 2, "{what}");
        self.assert_spread(what).await;
    }

    async fn assert_over(&self, action: Action, what: &str) {
        match action {
            Action::Revoke => self.assert_ended(what).await,
            _ => self.assert_rotated(what).await,
        }
    }

    /// In a rollover something works at every instant, whatever died.
    async fn assert_something_works(&self, what: &str) {
        let (_, user, value) = self.stored().await;
        let mut known = vec![self.old.clone(), (user, value)];
        known.extend(self.candidate().await);
        for login in &known {
            if self.works(login).await {
                return;
            }
        }
        panic!("{what}: nothing works");
    }
}

/// By which the value of a version is known.
pub fn mark(victim: &Victim, version: i64) -> PartFingerprint {
    let digest = digest16(&[victim.recipe.name.as_bytes(), &version.to_be_bytes()]);
    let fingerprint = Fingerprint::of_parts("k1", &hex::encode([digest, digest].concat())).unwrap();
    PartFingerprint { fingerprint, part: None }
}

/// The inventory knows it.
pub fn registered(victim: &Victim, version: i64) -> Event {
    let data = CredentialRegistered {
        credential: victim.credential().clone(),
        fingerprints: vec![mark(victim, version)],
        version: Some(version),
        current: true,
        issued_ms: None,
        owner: None,
        environment: Some("test".to_owned()),
    };
    event(Type::CredentialRegistered, Data::CredentialRegistered(data))
}

/// A finding of its first value, each time in another place.
pub fn finding(victim: &Victim, validity: &str) -> Event {
    finding_of(victim, 1, validity)
}

/// A finding of a version of its value.
pub fn finding_of(victim: &Victim, version: i64, validity: &str) -> Event {
    let data = FindingObserved {
        finding_key: unique("finding"),
        fingerprints: vec![mark(victim, version)],
        detector: "tests".to_owned(),
        validity: validity.to_owned(),
        ..FindingObserved::default()
    };
    event(Type::FindingObserved, Data::FindingObserved(Box::new(data)))
}

/// One effect of one connector is not to be had until it ends.
#[derive(Clone)]
pub struct Down {
    connector: &'static str,
    act: Act,
    over: Arc<AtomicBool>,
}

impl Down {
    pub fn of(connector: &'static str, act: Act) -> Self {
        Self { connector, act, over: Arc::default() }
    }

    pub fn ends(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Between for Down {
    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        if act == self.act && inner.name() == self.connector && !self.over.load(Ordering::SeqCst) {
            return Err(Failure::new(FailureKind::Unavailable, "injected: down"));
        }
        inner.perform(act, subject).await
    }
}

fn validity_of(action: Action) -> &'static str {
    if action == Action::Contain { "active" } else { "unknown" }
}

pub async fn open_case(journal: &dyn Journal, victim: &Victim, action: Action) {
    if action == Action::Revoke {
        return ends::open_case(journal, victim).await;
    }
    record(journal, vec![registered(victim, 1), finding(victim, validity_of(action))]).await;
}

/// What must hold of a closed case, whatever happened on the way.
pub async fn assert_one_end(journal: &Arc<dyn Journal>, line: &CaseLine, what: &str) {
    assert_eq!(one_end(journal, line, what).await, Level::Target, "{what}");
}

/// The same, at any level: which one.
pub async fn one_end(journal: &Arc<dyn Journal>, line: &CaseLine, what: &str) -> Level {
    let Verdict::Dead { level, by, .. } = &line.verdict else { panic!("{what}: {:?}", line.verdict) };
    assert_eq!(*by, KilledBy::Curfew, "{what}");
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let records: Vec<Record> = timeline.records.iter().flat_map(|(_, _, records)| records.clone()).collect();
    assert_eq!(State::fold(&records).unwrap(), line.case.state, "{what}: the row is the fold of its records");
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let of = |kind| rows.iter().filter(move |row| row.kind == kind);
    assert_eq!(of(outcome::Kind::Outcome).count(), 1, "{what}: one outcome");
    let told = of(outcome::Kind::Rotated).count();
    assert_eq!(told > 0, line.case.directive.action.rotates(), "{what}: consumers were told {told} times");
    let stats = journal.stats(crate::stage::now_ms()).await.unwrap();
    assert_eq!(stats.accepted, stats.closed, "{what}: every accepted event is closed");
    *level
}

/// One victim and what becomes of it.
struct Course {
    victim: Victim,
    action: Action,
}

impl Trial for Course {
    fn credential(&self) -> &CredentialId {
        self.victim.credential()
    }

    fn registry(&self) -> &Registry {
        &self.victim.registry
    }

    async fn open_case(&self, journal: &dyn Journal) {
        open_case(journal, &self.victim, self.action).await;
    }

    async fn died(&self, what: &str) -> Registry {
        if self.action == Action::Rollover {
            self.victim.assert_something_works(what).await;
        }
        self.victim.registry.clone()
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        let what = format!("{:?} {what}", self.action);
        assert_one_end(journal, line, &what).await;
        self.victim.assert_over(self.action, &what).await;
    }
}

async fn every_kill(store: Store, shape: Shape, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || Course { victim: ground.victim(shape, Adoption::default()).await, action };
    endure::every_kill(&store, 3, fresh).await;
}

async fn every_fault(store: Store, shape: Shape, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || Course { victim: ground.victim(shape, Adoption::default()).await, action };
    endure::every_fault(&store, 4, fresh).await;
}

over_both! {
    one_user_contained_survives_every_kill,
    one_user_rolled_over_survives_every_kill,
    two_users_contained_survive_every_kill,
    two_users_rolled_over_survive_every_kill,
    one_user_contained_survives_every_fault,
    one_user_rolled_over_survives_every_fault,
    two_users_contained_survive_every_fault,
    two_users_rolled_over_survive_every_fault,
}

async fn one_user_contained_survives_every_kill(store: Store) {
    every_kill(store, Shape::One, Action::Contain).await;
}

async fn one_user_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Shape::One, Action::Rollover).await;
}

async fn two_users_contained_survive_every_kill(store: Store) {
    every_kill(store, Shape::Two, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_kill(store: Store) {
    every_kill(store, Shape::Two, Action::Rollover).await;
}

async fn one_user_contained_survives_every_fault(store: Store) {
    every_fault(store, Shape::One, Action::Contain).await;
}

async fn one_user_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Shape::One, Action::Rollover).await;
}

async fn two_users_contained_survive_every_fault(store: Store) {
    every_fault(store, Shape::Two, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_fault(store: Store) {
    every_fault(store, Shape::Two, Action::Rollover).await;
}
