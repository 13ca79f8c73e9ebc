//! A store in memory, and a rotation that a test leads by hand.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Generation, Level, Observation, Output, Sighting};
use curfew::case::turn::Turn;
use curfew::clock::System;
use curfew::connector::postgres::{PostgresSettings, role};
use curfew::connector::recipe::{
    Adoption, Keeper, Late, PasswordRules, Place, Recipe, Rotation, Store, Stored, Users, Which,
};
use curfew::connector::{Connector, Failure, Gate, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::probe::Settle;
use secrecy::SecretString;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{quoted, run};
use crate::admin::Postgres;
use crate::world::{env, unique, until};

/// What proves a death.
pub const DEAD: (Answer, bool, bool) = (Answer::Refused, true, false);

type Value = (Option<String>, String);

/// Values in memory, versions from 1.
#[derive(Default)]
pub struct Shelf {
    versions: Mutex<Vec<Option<Value>>>,
    candidate: Mutex<Option<(Value, Uuid)>>,
    fails: Mutex<Option<FailureKind>>,
}

impl Shelf {
    pub fn put(&self, user: Option<&str>, value: &str) -> Generation {
        let mut versions = self.versions.lock().unwrap();
        versions.push(Some((user.map(str::to_owned), value.to_owned())));
        Generation { version: i64::try_from(versions.len()).unwrap(), user: user.map(str::to_owned) }
    }

    pub fn offer(&self, user: Option<&str>, value: &str, key: Uuid) {
        *self.candidate.lock().unwrap() = Some(((user.map(str::to_owned), value.to_owned()), key));
    }

    pub fn promote(&self) -> Generation {
        let ((user, value), _) = self.candidate.lock().unwrap().take().unwrap();
        self.put(user.as_deref(), &value)
    }

    pub fn destroy(&self, version: i64) {
        self.versions.lock().unwrap()[usize::try_from(version).unwrap() - 1] = None;
    }

    pub fn fail(&self, kind: Option<FailureKind>) {
        *self.fails.lock().unwrap() = kind;
    }
}

#[async_trait]
impl Connector for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn system(&self) -> &str {
        "shelf"
    }

    fn call_timeout_ms(&self) -> i64 {
        1
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, _: &Subject) -> Result<Observation, Failure> {
        panic!("a target looks into no store")
    }

    async fn perform(&self, _: Act, _: &Subject) -> Result<Output, Failure> {
        panic!("a target changes no store")
    }

    async fn probe(&self, _: &Subject) -> Sighting {
        panic!("a target probes no store")
    }

    async fn self_check(&self) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl Store for Shelf {
    async fn read(&self, _: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        if let Some(kind) = *self.fails.lock().unwrap() {
            return Err(Failure::new(kind, "down"));
        }
        let stored = |version, (user, value): &Value, key| Stored {
            version,
            user: user.clone(),
            value: SecretString::from(value.clone()),
            key,
        };
        let versions = self.versions.lock().unwrap();
        let version = match which {
            Which::Candidate => {
                let candidate = self.candidate.lock().unwrap();
                return Ok(candidate.as_ref().map(|(value, key)| stored(0, value, Some(*key))));
            }
            Which::Current => i64::try_from(versions.len()).unwrap(),
            Which::Version(version) => version,
        };
        let index = usize::try_from(version).unwrap().checked_sub(1);
        let value = index.and_then(|index| versions.get(index)?.as_ref());
        Ok(value.map(|value| stored(version, value, None)))
    }

    async fn keep(&self, _: &Rotation, _: &Stored) -> Result<Output, Failure> {
        Err(Failure::new(FailureKind::Refused, "nobody asks"))
    }

    async fn earlier(&self, _: &Place, _: i64, _: usize) -> Result<Vec<Stored>, Failure> {
        Ok(Vec::new())
    }
}

/// A value as a store makes it.
pub fn value() -> String {
    format!("{}-{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// An administrator's connection, and to which server.
pub struct Side {
    connection: PgConnection,
    pub pg: Postgres,
}

impl Deref for Side {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Side {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// One rotation, step by step, at a target with an administrator's connection of its own kind.
pub struct Life<A = Side> {
    pub target: Arc<dyn Connector>,
    pub shelf: Arc<Shelf>,
    pub admin: A,
    pub recipe: Recipe,
    pub turn: Turn,
    pub contains: bool,
    pub ends: bool,
    pub seen: Option<Observation>,
    pub key: Uuid,
    /// The value that goes.
    pub old: String,
    /// The newest candidate.
    pub new: String,
}

impl Life {
    /// Of a user or two, by Curfew as the server's administrator.
    pub async fn of(two: bool) -> Self {
        Self::with(two, role_at(&env("CURFEW_TEST_POSTGRES")).await).await
    }

    pub async fn with(two: bool, target: Arc<dyn Connector>) -> Self {
        Self::at(Postgres::shared(), two, target).await
    }

    /// At this server.
    pub async fn at(pg: Postgres, two: bool, target: Arc<dyn Connector>) -> Self {
        let name = unique("App");
        let users = if two { Users::Two(format!("{name}_a"), format!("{name}_b")) } else { Users::One(name) };
        let (connection, old) = (PgConnection::connect(&pg.url).await.unwrap(), value());
        let mut admin = Side { connection, pg };
        for user in users.names() {
            run(&mut admin, format!("CREATE ROLE {} LOGIN PASSWORD '{old}'", quoted(user))).await;
        }
        if let Users::Two(_, idle) = &users {
            run(&mut admin, format!("ALTER ROLE {} PASSWORD NULL NOLOGIN", quoted(idle))).await;
        }
        Self::begin(target, admin, users, (Kind::PostgresRole, "app"), old)
    }
}

impl<A> Life<A> {
    /// The first of `users` has the value `old`.
    pub fn begin(target: Arc<dyn Connector>, admin: A, users: Users, (kind, id): (Kind, &str), old: String) -> Self {
        let (two, shelf) = (matches!(users, Users::Two(..)), Arc::new(Shelf::default()));
        let current = shelf.put(two.then(|| users.names()[0]), &old);
        let place = Place {
            keeper: Keeper::Kv,
            realm: "shelf".to_owned(),
            mount: "kv".to_owned(),
            path: "app".to_owned(),
            field: "password".to_owned(),
            user_field: two.then(|| "username".to_owned()),
        };
        let recipe = Recipe {
            name: "app".to_owned(),
            credential: CredentialId::new(kind, "appdb", id).unwrap(),
            place,
            users,
            password: PasswordRules::default(),
            adoption: Adoption {
                consumers: vec!["web".to_owned()],
                within_ms: 60_000,
                late: Late::Hold,
                ..Adoption::default()
            },
            environment: None,
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
            copies: Vec::new(),
            webhooks: Vec::new(),
        };
        let turn = Turn { old: Some(current), ..Turn::default() };
        let (key, new) = (Uuid::new_v4(), String::new());
        Self { target, shelf, admin, recipe, turn, contains: false, ends: false, seen: None, key, old, new }
    }

    pub fn rotation(&self) -> Rotation {
        Rotation {
            recipe: Arc::new(self.recipe.clone()),
            store: self.shelf.clone(),
            turn: self.turn.clone(),
            candidate: Some(self.key),
            contains: self.contains,
            ends: self.ends,
            copy: None,
            since_ms: 0,
            splits: false,
            share: None,
            moved: None,
        }
    }

    pub fn subject(&self) -> Subject {
        Subject {
            credential: self.recipe.credential.clone(),
            principal: None,
            seen: self.seen.clone(),
            issuer: self.seen.clone(),
            run: None,
            key: None,
            rotation: Some(self.rotation()),
            rescope: None,
            message: None,
            place: None,
        }
    }

    pub async fn look(&mut self) -> Observation {
        let seen = self.target.observe(&self.subject()).await.unwrap();
        self.seen = Some(seen.clone());
        seen
    }

    /// A candidate of this case, for the user whose turn it is.
    pub fn offer(&mut self) {
        self.new = value();
        let user = self.rotation().new_user().map(str::to_owned);
        let user = user.filter(|_| self.recipe.place.user_field.is_some());
        self.shelf.offer(user.as_deref(), &self.new, self.key);
    }

    pub async fn act(&mut self, act: Act) -> Output {
        let output = self.target.perform(act, &self.subject()).await.unwrap();
        if act == Act::Set {
            self.turn.is_set = true;
            self.turn.set_ms = output.done_ms.or(self.turn.set_ms);
            self.turn.mark = output.mark.clone().or(self.turn.mark.take());
        }
        output
    }

    pub async fn refusal(&self, act: Act) -> Failure {
        self.target.perform(act, &self.subject()).await.unwrap_err()
    }

    pub async fn gate(&self, act: Act) -> Result<Gate, Failure> {
        self.target.pass(act, &self.subject()).await
    }

    pub async fn rejects(&self, act: Act) -> (FailureKind, String) {
        let failure = self.gate(act).await.unwrap_err();
        (failure.kind, failure.note)
    }

    pub fn promote(&mut self) {
        self.turn.new = Some(self.shelf.promote());
    }

    /// Offers, sets, tests, promotes.
    pub async fn renew(&mut self) {
        self.offer();
        self.act(Act::Set).await;
        assert_eq!(self.gate(Act::Test).await, Ok(Gate::Open));
        self.promote();
    }

    /// Answer, control, and whether sessions are left.
    pub async fn probe(&self) -> (Answer, bool, bool) {
        let sighting = self.target.probe(&self.subject()).await;
        assert_eq!(sighting.level, Level::Target);
        (sighting.answer, sighting.control, !sighting.residue.is_empty())
    }

    /// Waits until it is proven dead: as long as a login may take, one with the old value may still come through.
    pub async fn dead(&self) {
        until("its death", || async {
            match self.probe().await {
                DEAD => return Some(()),
                (Answer::Unknown, true, false) => tokio::time::sleep(Duration::from_millis(500)).await,
                other => panic!("neither dead nor settling: {other:?}"),
            }
            None
        })
        .await;
    }

    /// The user at this place of the recipe.
    pub fn user(&self, place: usize) -> String {
        self.recipe.users.names()[place].to_owned()
    }
}

impl Life {
    pub async fn login(&self, place: usize, value: &str) -> Result<PgConnection, sqlx::Error> {
        self.admin.pg.login(&self.user(place), value).await
    }

    pub async fn logs_in(&self, place: usize, value: &str) -> bool {
        self.login(place, value).await.is_ok()
    }

    /// `{}` in it is the user at this place.
    pub async fn sql(&mut self, place: usize, sql: &str) {
        let sql = sql.replace("{}", &quoted(&self.user(place)));
        run(&mut self.admin, sql).await;
    }
}

pub async fn role_at(url: &str) -> Arc<dyn Connector> {
    let mut settings = PostgresSettings::new(SecretString::from(url.to_owned()));
    settings.timeout_ms = 3000;
    role::connect("appdb", &settings, System::shared()).await.unwrap()
}
