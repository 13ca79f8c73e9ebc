//! Every plan of a rotation, on real servers: killed at every append (before and after it is durable), each call failed in
//! each way, each effect repeated, each reply cut after execution. Each run must end with the stored value working, the old
//! one refused, one terminal outcome, and nothing left behind.

mod adoption;
mod approles;
mod ends;
pub mod leaving;
mod mariadb;
mod redis;
mod rotated;
pub mod safe;
mod split;
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
use curfew::connector::recipe::{Adoption, Keeper, PasswordRules, Place, Recipe, SECRETS_MANAGER, Users};
use curfew::connector::vault::{self, Auth, VaultSettings};
use curfew::connector::{Connector, Failure, Realm, Registry, Subject, aws};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{CredentialRegistered, Data, Event, FindingObserved, PartFingerprint, Type, digest16};
use curfew::fingerprint::Fingerprint;
use curfew::guard::Mode;
use curfew::journal::{CaseLine, Journal};
use curfew::outcome;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::admin::{Admin, Postgres};
use crate::aws::Moto;
use crate::endure::{self, Trial};
use crate::stage::{Between, Stage, case_of, event, record};
use crate::store::Store;
use crate::world::{unique, until};
use safe::Shelf;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One user.
    One,
    /// Two in turn.
    Two,
    /// Two in turn, read at two more places, of which one is another realm's, and with a webhook.
    Spread,
    /// One user, whose value AWS keeps.
    AwsOne,
    /// Two in turn, whose value AWS keeps.
    AwsTwo,
    /// The same, read at AWS and in a Vault as well, with a webhook.
    AwsSpread,
    /// Two in turn in a Vault, read at AWS as well, with a webhook.
    Mixed,
    /// One user of a MariaDB.
    MariaOne,
    /// Two in turn of a MariaDB.
    MariaTwo,
    /// The same, whose value AWS keeps.
    MariaAws,
}

impl Shape {
    fn is_one(self) -> bool {
        matches!(self, Self::One | Self::AwsOne | Self::MariaOne)
    }

    fn behind(self) -> Behind {
        match self {
            Self::MariaOne | Self::MariaTwo | Self::MariaAws => Behind::Mariadb,
            _ => Behind::Postgres,
        }
    }

    fn is_spread(self) -> bool {
        matches!(self, Self::Spread | Self::AwsSpread | Self::Mixed)
    }

    fn keeper(self) -> Keeper {
        match self {
            Self::AwsOne | Self::AwsTwo | Self::AwsSpread | Self::MariaAws => Keeper::AwsSecret,
            _ => Keeper::Kv,
        }
    }

    /// Where it is read as well: which keeper, in which realm.
    fn copies(self) -> &'static [(Keeper, &'static str)] {
        match self {
            Self::Spread => &[(Keeper::Kv, "test"), (Keeper::Kv, "other")],
            Self::AwsSpread => &[(Keeper::AwsSecret, safe::ACCOUNT), (Keeper::Kv, "other")],
            Self::Mixed => &[(Keeper::AwsSecret, safe::ACCOUNT)],
            Self::One | Self::Two | Self::AwsOne | Self::AwsTwo | Self::MariaOne | Self::MariaTwo | Self::MariaAws => {
                &[]
            }
        }
    }
}

/// Where the users log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    Postgres,
    Mariadb,
}

/// The servers, with a KV mount of its own.
pub struct Ground {
    pub admin: Admin,
    pub pg: Postgres,
    /// How Curfew logs in there: as the administrator, or by its own name.
    login: (Option<String>, String),
    pub mount: String,
    token: String,
    safe: tokio::sync::OnceCell<Moto>,
}

/// A stored credential and how it is rotated.
pub struct Victim {
    pub recipe: Recipe,
    pub registry: Registry,
    /// The user and the value that were current at first.
    pub old: (String, String),
    /// Who is called.
    pub hook: Option<spread::Hook>,
    /// The version that was current at first.
    pub first: i64,
    shelf: Shelf,
    behind: Behind,
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

impl Behind {
    fn credential(self, users: &Users) -> CredentialId {
        let (kind, host) = match self {
            Self::Postgres => (Kind::PostgresRole, ""),
            Self::Mariadb => (Kind::MariadbUser, "@%"),
        };
        let id: Vec<String> = users.names().iter().map(|user| format!("{user}{host}")).collect();
        CredentialId::new(kind, "appdb", &id.join(",")).unwrap()
    }
}

impl Ground {
    pub async fn new() -> Self {
        let pg = Postgres::shared();
        let login = (None, pg.url.clone());
        Self::with(pg, login).await
    }

    /// At 18, by no more than `deploy/postgres` gives.
    pub async fn later() -> Self {
        let pg = Postgres::later();
        let (name, url) = pg.curfew().await;
        Self::with(pg, (Some(name), url)).await
    }

    async fn with(pg: Postgres, login: (Option<String>, String)) -> Self {
        let admin = Admin::shared();
        let mount = unique("kv");
        kv_mount(&admin, &mount).await;
        let token = admin.curfew_token().await;
        Self { admin, pg, login, mount, token, safe: tokio::sync::OnceCell::new() }
    }

    /// A fresh one. `adoption` as the recipe says.
    pub async fn victim(&self, shape: Shape, adoption: Adoption) -> Victim {
        let base = unique("app").replace('-', "_");
        let users = if shape.is_one() {
            Users::One(base.clone())
        } else {
            Users::Two(format!("{base}_a"), format!("{base}_b"))
        };
        let first = users.names()[0].to_owned();
        let password = format!("first-{}", unique("pw"));
        let behind = shape.behind();
        match behind {
            Behind::Mariadb => mariadb::make(&users, &password).await,
            Behind::Postgres => {
                let pool = self.pg.pool().await;
                for user in users.names() {
                    let login =
                        if user == first { format!("LOGIN PASSWORD '{password}'") } else { "NOLOGIN".to_owned() };
                    sqlx::query(AssertSqlSafe(format!("CREATE ROLE \"{user}\" {login}"))).execute(&pool).await.unwrap();
                }
                self.lets_alter(&users.names()).await;
            }
        }
        let secret = json!({"username": first, "password": password, "host": "db.example"});
        let shelf = self.shelf(shape).await;
        let mut place = self.place(shape.keeper(), "test", &format!("apps/{base}"));
        place.user_field = (!shape.is_one()).then(|| "username".to_owned());
        let first_version = shelf.write(&place, &secret).await;
        let hook = if shape.is_spread() { Some(spread::Hook::start().await) } else { None };
        let mut copies = Vec::new();
        for (at, (keeper, realm)) in shape.copies().iter().enumerate() {
            let copy = self.place(*keeper, realm, &format!("copies{at}/{base}"));
            shelf.write(&copy, &secret).await;
            copies.push(copy);
        }
        let recipe = Recipe {
            name: base,
            credential: behind.credential(&users),
            place,
            copies,
            webhooks: hook.iter().map(|_| "deploy".to_owned()).collect(),
            users,
            password: PasswordRules::default(),
            adoption,
            environment: Some("test".to_owned()),
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
        };
        let mut registry = self.registry(&recipe).await;
        if let Some(hook) = &hook {
            registry.add(Arc::new(hook.caller()));
        }
        let pg = self.pg.clone();
        Victim { recipe, registry, old: (first, password), hook, first: first_version, shelf, behind, pg }
    }

    /// Who logs in by its own name is given these users.
    async fn lets_alter(&self, users: &[&str]) {
        if let Some(name) = &self.login.0 {
            self.pg.lets_alter(name, users).await;
        }
    }

    /// A place where two users' values may be.
    fn place(&self, keeper: Keeper, realm: &str, path: &str) -> Place {
        let (realm, mount) = match keeper {
            Keeper::AwsSecret | Keeper::AwsRotated => (safe::ACCOUNT, SECRETS_MANAGER.to_owned()),
            Keeper::Kv | Keeper::StaticRole => (realm, self.mount.clone()),
        };
        let user_field = Some("username".to_owned());
        Place {
            keeper,
            realm: realm.to_owned(),
            mount,
            path: path.to_owned(),
            field: "password".to_owned(),
            user_field,
        }
    }

    async fn shelf(&self, shape: Shape) -> Shelf {
        let mut keepers = shape.copies().iter().map(|(keeper, _)| *keeper).chain([shape.keeper()]);
        let safe = if keepers.any(|keeper| keeper == Keeper::AwsSecret) {
            Some(self.safe.get_or_init(Moto::start).await.secrets.clone())
        } else {
            None
        };
        Shelf { admin: self.admin.clone(), safe }
    }

    async fn registry(&self, recipe: &Recipe) -> Registry {
        let clock = curfew::clock::System::shared();
        let settings = VaultSettings::new(&self.admin.address, Auth::Token(self.token.clone().into()));
        let mut registry = Registry::default();
        let realm = |name: &str, allowed_prefixes: Vec<String>| Realm {
            name: name.to_owned(),
            mode: Mode::Enforce,
            allowed_prefixes,
            reducible: Vec::new(),
            targets: Vec::new(),
        };
        registry.add_realm(realm("appdb", vec![recipe.credential.id()]));
        let stores = recipe.stores_of_copies().into_iter().chain([recipe.place.store()]);
        for (keeper, name) in stores.collect::<std::collections::BTreeSet<_>>() {
            let places: Vec<Place> =
                Some(&recipe.place).filter(|place| place.store() == (keeper, name)).into_iter().cloned().collect();
            if keeper == Keeper::AwsSecret {
                let all: Vec<Place> = places.iter().chain(recipe.copies_at((keeper, name))).cloned().collect();
                let moto = self.safe.get().expect("the shelf started it");
                let made = aws::secrets::connect(name, &moto.settings(), clock.clone(), &all).await;
                registry.add_store(made.unwrap());
                registry.add_realm(realm(name, Vec::new()));
                continue;
            }
            let copies: Vec<Place> = recipe.copies_at((Keeper::Kv, name)).cloned().collect();
            let made = vault::connect_stores(name, &settings, Mode::Enforce, clock.clone(), &places, &copies).await;
            made.unwrap().into_iter().for_each(|store| registry.add_store(store));
            registry.add_realm(realm(name, Vec::new()));
        }
        if recipe.credential.kind() == Kind::MariadbUser {
            registry.add(crate::mariadb::target_by(&crate::mariadb::shared()).await);
        } else {
            let target = PostgresSettings::new(self.login.1.clone().into());
            registry.add(role::connect("appdb", &target, clock).await.unwrap());
        }
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
        let (version, fields) = self.shelf.current(&self.recipe.place).await;
        let text = |name: &str| fields[name].as_str().unwrap().to_owned();
        assert_eq!(text("host"), "db.example", "other fields stay");
        (version, text("username"), text("password"))
    }

    /// The user and the value of a stored version.
    pub async fn version(&self, version: i64) -> (String, String) {
        let Place { mount, path, .. } = &self.recipe.place;
        let (_, body) =
            self.shelf.admin.call("GET", &format!("{mount}/data/{path}?version={version}"), Value::Null).await;
        let text = |name: &str| body["data"]["data"][name].as_str().unwrap().to_owned();
        (text("username"), text("password"))
    }

    /// The versions that are not destroyed.
    pub async fn kept(&self) -> Vec<i64> {
        let Place { mount, path, .. } = &self.recipe.place;
        let (_, meta) = self.shelf.admin.call("GET", &format!("{mount}/metadata/{path}"), Value::Null).await;
        let versions = meta["data"]["versions"].as_object().unwrap().iter();
        let kept = versions.filter(|(_, version)| version["destroyed"] == false);
        let mut kept: Vec<i64> = kept.map(|(version, _)| version.parse().unwrap()).collect();
        kept.sort_unstable();
        kept
    }

    /// The candidate, if there is one that nobody reads yet.
    pub async fn candidate(&self) -> Option<(String, String)> {
        let fields = self.shelf.candidate(&self.recipe.place).await?;
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        Some((text("username").unwrap_or_else(|| self.old.0.clone()), text("password")?))
    }

    pub async fn works(&self, login: &(String, String)) -> bool {
        match self.behind {
            Behind::Postgres => self.pg.login(&login.0, &login.1).await.is_ok(),
            Behind::Mariadb => crate::mariadb::login(&login.0, &login.1).await.is_ok(),
        }
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
        self.shelf.assert_clean(&self.recipe.place, what).await;
        self.shelf.assert_lost(&self.recipe.place, &self.old.1, what).await;
        assert!(version > self.first, "{what}");
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
    finding_of(victim, victim.first, validity)
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
    record(journal, vec![registered(victim, victim.first), finding(victim, validity_of(action))]).await;
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

    fn registry(&self) -> Registry {
        self.victim.registry.clone()
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
    every_kill_on(Ground::new().await, store, shape, action).await;
}

async fn every_kill_on(ground: Ground, store: Store, shape: Shape, action: Action) {
    let fresh = async || Course { victim: ground.victim(shape, Adoption::default()).await, action };
    endure::every_kill(&store, 3, fresh).await;
}

async fn every_fault(store: Store, shape: Shape, action: Action) {
    every_fault_on(Ground::new().await, store, shape, action).await;
}

async fn every_fault_on(ground: Ground, store: Store, shape: Shape, action: Action) {
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

// On 18 as well, by a login as `deploy/postgres` says.
over_each! {
    sqlite: on_18_two_users_rolled_over_survive_every_kill;
    postgres: on_18_one_user_contained_survives_every_fault
}

async fn on_18_two_users_rolled_over_survive_every_kill(store: Store) {
    every_kill_on(Ground::later().await, store, Shape::Two, Action::Rollover).await;
}

async fn on_18_one_user_contained_survives_every_fault(store: Store) {
    every_fault_on(Ground::later().await, store, Shape::One, Action::Contain).await;
}
