//! One user of a PostgreSQL that several agents share: each gets a user of its own with what it needs, one after another, and then
//! the shared one dies. On a real PostgreSQL and a real Vault, killed at each append and with each call failing.

mod alone;

use std::collections::BTreeMap;

use curfew::case::HoldReason;
use curfew::case::record::Residue;
use curfew::case::state::Phase;
use curfew::connector::postgres::scope;
use curfew::connector::recipe::{Late, Share};
use curfew::event::CredentialAdopted;
use curfew::journal::Filter;
use curfew::scope::permissions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use super::adoption::is_held;
use super::*;

over_both! {
    each_agent_is_moved_by_itself_and_then_the_shared_user_dies,
    an_agent_that_cannot_work_with_its_own_user_goes_back_alone,
    while_somebody_uses_it_the_shared_user_lives,
    a_leak_takes_a_split_over_and_what_was_moved_stays,
    what_a_narrower_user_lacks_is_known_and_what_another_lacks_is_said,
    what_is_wrong_with_an_agent_s_place_or_needs_is_mended_and_goes_on,
    who_was_moved_and_not_finished_loses_the_shared_value_as_well,
}

// A split is long: each journal has its half.
over_each! {
    sqlite: two_agents_survive_every_kill;
    postgres: two_agents_survive_every_fault
}

/// What those that share the user may do, and what each needs of it.
pub struct Shared {
    pub recipe: Recipe,
    registry: Registry,
    shelf: Shelf,
    pg: Postgres,
    pub user: String,
    pub password: String,
    pub schema: String,
}

impl Shared {
    /// One for so many agents, of which the first needs one table to read, and of the others nothing is known.
    pub async fn new(ground: &Ground, agents: usize, adoption: &Adoption) -> Self {
        Self::with(ground, agents, adoption, true).await
    }

    /// The same; whether Curfew may make users.
    async fn with(ground: &Ground, agents: usize, adoption: &Adoption, makes: bool) -> Self {
        let base = unique("shared").replace('-', "_");
        let (schema, owner, group, maker) =
            (format!("{base}_s"), format!("{base}_o"), format!("{base}_g"), format!("{base}_m"));
        let password = format!("first-{}", unique("pw"));
        let access = format!("{base}_a");
        let names =
            [("curfew_reduce", maker.as_str()), ("app_owner", &owner), ("readers", &group), ("app_access", &access)];
        let names: Vec<(&str, &str)> = names.into_iter().chain([("etl", base.as_str())]).collect();
        let mut statements = vec![
            format!("CREATE ROLE {owner}"),
            format!("CREATE ROLE {group}"),
            format!("CREATE ROLE {base} LOGIN PASSWORD '{password}'"),
            format!("GRANT {group} TO {base}"),
        ];
        statements.extend(ground.pg.deployed("reduce.sql", &names));
        statements.push(format!("ALTER ROLE {maker} PASSWORD 'w1tness'"));
        statements.extend(ground.pg.shown("reduce.sql", &names));
        if makes {
            statements.extend(ground.pg.deployed("split.sql", &names));
        }
        statements.extend([
            format!("CREATE SCHEMA {schema} AUTHORIZATION {owner}"),
            format!("SET ROLE {owner}"),
            format!("CREATE TABLE {schema}.orders (id int, note text)"),
            format!("CREATE TABLE {schema}.people (id int, name text)"),
            format!("GRANT USAGE ON SCHEMA {schema} TO {base}"),
            format!("GRANT SELECT, INSERT ON {schema}.orders TO {base}"),
            format!("GRANT UPDATE (note) ON {schema}.orders TO {base}"),
            format!("GRANT SELECT ON {schema}.people TO {group}"),
        ]);
        if ground.pg.is_later() {
            // There is such a privilege from 17 on: who gets all gets that.
            statements.push(format!("GRANT MAINTAIN ON {schema}.orders TO {base}"));
        }
        ground.pg.run(statements).await;
        ground.lets_alter(&[&base]).await;
        let shelf = Shelf::of(&ground.admin);
        let secret = json!({"username": base, "password": password, "host": "db.example"});
        let one = |name: &str, path: String, users: Users| Recipe {
            name: name.to_owned(),
            credential: CredentialId::new(Kind::PostgresRole, "appdb", &users.names().join(",")).unwrap(),
            place: ground.place(Keeper::Kv, "test", &path),
            copies: Vec::new(),
            webhooks: Vec::new(),
            users,
            password: PasswordRules::default(),
            adoption: adoption.clone(),
            environment: None,
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
        };
        let mut recipe = one("shared", format!("apps/{base}"), Users::One(base.clone()));
        shelf.write(&recipe.place, &secret).await;
        for at in 0..agents {
            let user = format!("{base}_{at}");
            let mut own = one(&user, format!("agents/{user}"), Users::One(user.clone()));
            if !own.adoption.consumers.is_empty() {
                own.adoption.consumers = vec![format!("agent-{at}")];
            }
            shelf.write(&own.place, &secret).await;
            let needs = [format!("schema:{schema}:USAGE"), format!("relation:{schema}.orders:SELECT")];
            let needs = (at == 0).then(|| permissions(needs).unwrap());
            recipe.shares.push(Arc::new(Share::new(&format!("agent-{at}"), &base, &own, needs).unwrap()));
        }
        let registry = registry(ground, &recipe, &maker).await;
        Self { recipe, registry, shelf, pg: ground.pg.clone(), user: base, password, schema }
    }

    /// What an agent reads: version, user, value.
    async fn reads(&self, at: usize) -> (i64, String, String) {
        let (version, fields) = self.shelf.current(&self.recipe.shares[at].recipe.place).await;
        let text = |name: &str| fields[name].as_str().unwrap().to_owned();
        assert_eq!(text("host"), "db.example", "other fields stay");
        (version, text("username"), text("password"))
    }

    async fn log_in(&self, at: usize) -> PgConnection {
        let (_, user, password) = self.reads(at).await;
        self.pg.login(&user, &password).await.unwrap()
    }

    async fn shared_works(&self) -> bool {
        self.pg.login(&self.user, &self.password).await.is_ok()
    }

    async fn order(&self, journal: &dyn Journal, action: Action) {
        let (credential, by) = (self.recipe.credential.clone(), "ann".to_owned());
        let now_ms = crate::stage::now_ms();
        let id = Uuid::now_v7().to_string();
        let event = Event::operator_rotate("default".into(), id, credential, action, by, "a drill".into(), now_ms);
        record(journal, vec![event]).await;
    }

    fn says(&self, at: usize, version: i64, failed: bool) -> Event {
        let (credential, consumer) = (self.recipe.credential.clone(), format!("agent-{at}"));
        let data = CredentialAdopted { credential, version, consumer, failed };
        event(Type::CredentialAdopted, Data::CredentialAdopted(data))
    }

    /// Works on it until `seen` shows what is waited for.
    async fn until(
        &self,
        stage: &Stage,
        journal: &Arc<dyn Journal>,
        what: &str,
        seen: impl Fn(&CaseLine) -> bool,
    ) -> CaseLine {
        let executor = stage.executor(journal.clone());
        until(what, || async {
            executor.drain().await.unwrap();
            case_of(journal.as_ref(), &self.recipe.credential).await.filter(&seen)
        })
        .await
    }

    /// Works until the newest case about it is closed, where there have been so many.
    async fn closed(&self, stage: &Stage, journal: &Arc<dyn Journal>, nth: usize) -> CaseLine {
        let executor = stage.executor(journal.clone());
        until("another case to close", || async {
            executor.drain().await.unwrap();
            let filter = Filter { credential: Some(self.recipe.credential.clone()), closed: true, ..Filter::default() };
            let lines = journal.cases(filter).await.unwrap();
            let all = lines.len() == nth && lines.iter().all(|line| line.closed_ms.is_some());
            all.then(|| lines.into_iter().max_by_key(|line| line.case.opened_ms).expect("a case"))
        })
        .await
    }

    /// Each agent has a user of its own that works, and nobody gets in with what they shared.
    async fn assert_split(&self, what: &str) {
        for at in 0..self.recipe.shares.len() {
            let share = &self.recipe.shares[at];
            let (version, user, password) = self.reads(at).await;
            assert_eq!((version, &user), (2, &share.agent.user), "{what}");
            let mut session = self.pg.login(&user, &password).await.unwrap();
            let orders = format!("SELECT count(*) FROM {}.orders", self.schema);
            session.execute(AssertSqlSafe(orders)).await.unwrap();
            let people = format!("SELECT count(*) FROM {}.people", self.schema);
            let may = session.execute(AssertSqlSafe(people)).await.is_ok();
            assert_eq!(may, share.needs.is_none(), "{what}: what it does not need it has not");
            let note = format!("UPDATE {}.orders SET note = 'x'", self.schema);
            assert_eq!(session.execute(AssertSqlSafe(note)).await.is_ok(), share.needs.is_none(), "{what}: columns");
            assert!(self.pg.login(&self.user, &password).await.is_err(), "{what}: both users know it");
            self.shelf.assert_clean(&share.recipe.place, what).await;
            self.shelf.assert_lost(&share.recipe.place, &self.password, what).await;
        }
        assert!(!self.shared_works().await, "{what}: the shared user lives");
        self.shelf.assert_lost(&self.recipe.place, &self.password, what).await;
    }
}

async fn registry(ground: &Ground, recipe: &Recipe, maker: &str) -> Registry {
    let clock = curfew::clock::System::shared();
    let settings = VaultSettings::new(&ground.admin.address, Auth::Token(ground.token.clone().into()));
    let mut registry = Registry::default();
    let all = std::iter::once(recipe).chain(recipe.shares.iter().map(|share| &*share.recipe));
    let places: Vec<Place> = all.clone().map(|one| one.place.clone()).collect();
    let realm = |name: &str, allowed_prefixes: Vec<String>| Realm {
        name: name.to_owned(),
        mode: Mode::Enforce,
        allowed_prefixes,
        reducible: Vec::new(),
        targets: Vec::new(),
    };
    registry.add_realm(realm("appdb", all.map(|one| one.credential.id()).collect()));
    registry.add_realm(realm("test", Vec::new()));
    let stores = vault::connect_stores("test", &settings, Mode::Enforce, clock.clone(), &places, &[]).await;
    stores.unwrap().into_iter().for_each(|store| registry.add_store(store));
    let target = PostgresSettings::new(ground.login.1.clone().into());
    registry.add(role::connect("appdb", &target, clock.clone()).await.unwrap());
    let url = format!("postgresql://{maker}:w1tness@{}/postgres", ground.pg.host);
    registry.add(scope::connect("appdb", &PostgresSettings::new(url.into()), clock).await.unwrap());
    registry.add_recipe(recipe.clone());
    registry
}

/// Nobody is waited for.
fn at_once() -> Adoption {
    Adoption { consumers: Vec::new(), within_ms: 0, late: Late::Cut, by_word: false }
}

/// Each says so itself.
fn by_word() -> Adoption {
    Adoption { consumers: vec!["agent".into()], within_ms: 3_600_000, late: Late::Hold, by_word: true }
}

/// As of one that is ended for good, and each agent was told of its own.
async fn assert_end(journal: &Arc<dyn Journal>, line: &CaseLine, agents: usize, what: &str) {
    let Verdict::Dead { level, by, .. } = &line.verdict else { panic!("{what}: {:?}", line.verdict) };
    assert_eq!((*level, *by), (Level::Target, KilledBy::Curfew), "{what}");
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let records: Vec<Record> = timeline.records.iter().flat_map(|(_, _, records)| records.clone()).collect();
    assert_eq!(State::fold(&records).unwrap(), line.case.state, "{what}: the row is the fold of its records");
    let rows = journal.outbox(0, 1_000).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.kind == outcome::Kind::Outcome).count(), 1, "{what}: one outcome");
    let told = rows.iter().filter(|row| row.kind == outcome::Kind::Rotated);
    let told = told.map(|row| serde_json::from_slice::<Value>(&row.body).unwrap());
    let told: BTreeMap<String, String> =
        told.map(|one| (one["id"].to_string(), one["data"]["agent"].as_str().unwrap().to_owned())).collect();
    let mut names: Vec<&String> = told.values().collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), agents, "{what}: each hears of its own value: {told:?}");
}

/// Nothing of any value is in what was recorded or published.
async fn assert_silent(journal: &Arc<dyn Journal>, line: &CaseLine, shared: &Shared) {
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let mut said = format!("{timeline:?}{}", serde_json::to_string(&timeline).unwrap());
    rows.iter().for_each(|row| said.push_str(&String::from_utf8_lossy(&row.body)));
    assert!(said.contains("agent-") && said.len() > 1_000, "it says something");
    let mut values = vec![shared.password.clone()];
    for at in 0..shared.recipe.shares.len() {
        values.push(shared.reads(at).await.2);
    }
    assert!(values.iter().all(|value| !said.contains(value)));
}

struct Course {
    shared: Shared,
}

impl Trial for Course {
    fn credential(&self) -> &CredentialId {
        &self.shared.recipe.credential
    }

    fn registry(&self) -> Registry {
        self.shared.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        self.shared.order(journal, Action::Split).await;
    }

    async fn died(&self, what: &str) -> Registry {
        for at in 0..self.shared.recipe.shares.len() {
            let (_, user, password) = self.shared.reads(at).await;
            let shared_is_over = user == self.shared.user && !self.shared.shared_works().await;
            assert!(!shared_is_over, "{what}: an agent reads what does not work any more");
            assert!(self.shared.pg.login(&user, &password).await.is_ok(), "{what}: agent {at} is cut off");
        }
        self.shared.registry.clone()
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        assert_end(journal, line, self.shared.recipe.shares.len(), what).await;
        assert_silent(journal, line, &self.shared).await;
        self.shared.assert_split(what).await;
    }
}

async fn two_agents_survive_every_kill(store: Store) {
    let ground = Ground::new().await;
    let fresh = async || Course { shared: Shared::new(&ground, 2, &at_once()).await };
    endure::every_kill(&store, 12, fresh).await;
}

async fn two_agents_survive_every_fault(store: Store) {
    let ground = Ground::new().await;
    let fresh = async || Course { shared: Shared::new(&ground, 2, &at_once()).await };
    endure::every_fault(&store, 20, fresh).await;
}

async fn each_agent_is_moved_by_itself_and_then_the_shared_user_dies(store: Store) {
    each_is_moved(store, Ground::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_18_each_agent_is_moved_by_itself_and_then_the_shared_user_dies() {
    Box::pin(each_is_moved(Store::postgres(), Ground::later().await)).await;
}

async fn each_is_moved(store: Store, ground: Ground) {
    let shared = Shared::new(&ground, 3, &by_word()).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    shared.order(journal.as_ref(), Action::Split).await;
    for at in 0..3 {
        let turn = format!("agent-{at}");
        shared
            .until(&stage, &journal, "its promotion", |line| {
                let agent = line.case.state.current().and_then(|step| step.agent.as_ref());
                line.case.state.turn.new.is_some() && agent.is_some_and(|agent| agent.name == turn)
            })
            .await;
        assert!(shared.shared_works().await, "the others still need it");
        for later in at + 1..3 {
            assert_eq!(shared.reads(later).await.1, shared.user, "one at a time");
        }
        // What another one says of a version that is called alike counts for nothing.
        record(journal.as_ref(), vec![shared.says((at + 1) % 3, 2, true), shared.says((at + 1) % 3, 2, false)]).await;
        let mut session = shared.log_in(at).await;
        session.execute("SELECT 1").await.unwrap();
        record(journal.as_ref(), vec![shared.says(at, 2, false)]).await;
    }
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert_end(&journal, &line, 3, "three").await;
    let Verdict::Dead { residue, .. } = &line.verdict else { unreachable!() };
    assert_eq!(residue.as_slice(), [], "nothing is left");
    shared.assert_split("three").await;
    // Once more: there is nobody to be moved, and it is dead.
    shared.order(journal.as_ref(), Action::Split).await;
    let again = shared.closed(&stage, &journal, 2).await;
    assert!(matches!(again.verdict, Verdict::Dead { level: Level::Target, .. }), "{:?}", again.verdict);
    shared.assert_split("again").await;
}

async fn an_agent_that_cannot_work_with_its_own_user_goes_back_alone(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 2, &by_word()).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    shared.order(journal.as_ref(), Action::Split).await;
    let promoted = |at: usize| {
        let turn = format!("agent-{at}");
        move |line: &CaseLine| {
            let agent = line.case.state.current().and_then(|step| step.agent.as_ref());
            line.case.state.turn.new.is_some() && agent.is_some_and(|agent| agent.name == turn)
        }
    };
    shared.until(&stage, &journal, "the first", promoted(0)).await;
    record(journal.as_ref(), vec![shared.says(0, 2, false)]).await;
    shared.until(&stage, &journal, "the second", promoted(1)).await;
    let (_, user, password) = shared.reads(1).await;
    let mut tries = shared.log_in(1).await;
    record(journal.as_ref(), vec![shared.says(1, 2, true)]).await;
    let unhealthy = |line: &CaseLine| is_held(line, HoldReason::Unhealthy);
    let line = shared.until(&stage, &journal, "its way back", unhealthy).await;
    assert_eq!(shared.reads(1).await, (3, shared.user.clone(), shared.password.clone()), "it reads the shared one");
    assert!(shared.pg.login(&user, &password).await.is_err(), "its own user is shut again");
    assert!(tries.execute("SELECT 1").await.is_err(), "and what it had opened with it");
    assert!(shared.shared_works().await);
    assert_eq!(shared.reads(0).await.1, shared.recipe.shares[0].agent.user, "the first one stays where it is");
    // Somebody mends it and lets it go on: the first is not moved again.
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    shared.until(&stage, &journal, "the second again", promoted(1)).await;
    assert_eq!(shared.reads(0).await.0, 2);
    record(journal.as_ref(), vec![shared.says(1, 4, false)]).await;
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert!(matches!(line.verdict, Verdict::Dead { level: Level::Target, .. }), "{:?}", line.verdict);
    assert!(!shared.shared_works().await);
    for at in 0..2 {
        shared.log_in(at).await;
        shared.shelf.assert_lost(&shared.recipe.shares[at].recipe.place, &shared.password, "both").await;
    }
}

/// No agent says anything: what the target shows of its sessions counts. And somebody who is not named still uses it.
async fn while_somebody_uses_it_the_shared_user_lives(store: Store) {
    let ground = Ground::new().await;
    let seen = Adoption { consumers: Vec::new(), within_ms: 3_600_000, late: Late::Hold, by_word: false };
    let shared = Shared::new(&ground, 1, &seen).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    let stranger = shared.pg.login(&shared.user, &shared.password).await.unwrap();
    shared.order(journal.as_ref(), Action::Split).await;
    shared.until(&stage, &journal, "its promotion", |line| line.case.state.turn.new.is_some()).await;
    let session = shared.log_in(0).await;
    let waits = |line: &CaseLine| {
        let step = line.case.state.current();
        step.is_some_and(|step| step.act == Act::Adopt && step.agent.is_none())
    };
    shared.until(&stage, &journal, "nobody is left to move", waits).await;
    assert!(shared.shared_works().await, "who is not named is not cut off");
    stranger.close().await.unwrap();
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert_end(&journal, &line, 1, "alone").await;
    shared.assert_split("alone").await;
    session.close().await.unwrap();
}

async fn a_leak_takes_a_split_over_and_what_was_moved_stays(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 2, &by_word()).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    shared.order(journal.as_ref(), Action::Split).await;
    shared.until(&stage, &journal, "the first", |line| line.case.state.turn.new.is_some()).await;
    record(journal.as_ref(), vec![shared.says(0, 2, false)]).await;
    let second = |line: &CaseLine| {
        let agent = line.case.state.current().and_then(|step| step.agent.as_ref());
        line.case.state.turn.new.is_some() && agent.is_some_and(|agent| agent.name == "agent-1")
    };
    shared.until(&stage, &journal, "the second", second).await;
    shared.order(journal.as_ref(), Action::Contain).await;
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert_eq!(line.case.directive.action, Action::Contain);
    assert!(matches!(line.verdict, Verdict::Dead { level: Level::Target, .. }), "{:?}", line.verdict);
    assert!(!shared.shared_works().await, "what leaked is dead");
    for at in 0..2 {
        shared.log_in(at).await;
    }
    // The user itself has another value now, and a split takes that from it as well.
    let (_, fields) = shared.shelf.current(&shared.recipe.place).await;
    let value = fields["password"].as_str().unwrap().to_owned();
    shared.pg.login(&shared.user, &value).await.unwrap();
    shared.order(journal.as_ref(), Action::Split).await;
    let line = shared.closed(&stage, &journal, 2).await;
    assert_eq!(line.case.directive.action, Action::Split);
    assert!(shared.pg.login(&shared.user, &value).await.is_err());
    for at in 0..2 {
        shared.log_in(at).await;
    }
}

async fn what_a_narrower_user_lacks_is_known_and_what_another_lacks_is_said(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 2, &at_once()).await;
    let mut admin = PgConnection::connect(&ground.pg.url).await.unwrap();
    // Of a kind that is not copied: the one of whom nothing is known would lack it.
    let function = format!("{}.secret()", shared.schema);
    for statement in [
        format!("CREATE FUNCTION {function} RETURNS int LANGUAGE sql AS 'SELECT 1'"),
        format!("REVOKE ALL ON FUNCTION {function} FROM PUBLIC"),
        format!("GRANT EXECUTE ON FUNCTION {function} TO {}", shared.user),
    ] {
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    shared.order(journal.as_ref(), Action::Split).await;
    let rejected =
        |line: &CaseLine| matches!(line.case.state.phase, Phase::Held { reason: HoldReason::CandidateRejected });
    let line = shared.until(&stage, &journal, "the second one's test", rejected).await;
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let notes = timeline.records.iter().flat_map(|(_, _, records)| records).filter_map(|record| match record {
        Record::Failed { note, .. } => Some(note.clone()),
        _ => None,
    });
    let notes: Vec<String> = notes.collect();
    assert_eq!(notes, ["the new user lacks what the old one has (grants on functions: 1)"]);
    assert_eq!(shared.reads(0).await.1, shared.recipe.shares[0].agent.user, "the first needs less, and is moved");
    assert_eq!(shared.reads(1).await.1, shared.user);
    // A person gives it, and it goes on.
    let grant = format!("GRANT EXECUTE ON FUNCTION {function} TO \"{}\"", shared.recipe.shares[1].agent.user);
    admin.execute(AssertSqlSafe(grant)).await.unwrap();
    admin.close().await.unwrap();
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(residue.as_slice(), [Residue::NotAdopted], "nobody was waited for");
    shared.assert_split("given").await;
}

/// What is held, and the notes of what failed.
async fn rejected(shared: &Shared, stage: &Stage, journal: &Arc<dyn Journal>, plans: u32) -> (CaseLine, String) {
    let is_held = |line: &CaseLine| is_held(line, HoldReason::CandidateRejected) && line.case.state.plan_no >= plans;
    let line = shared.until(stage, journal, "what was refused", is_held).await;
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let mut all = timeline.records.iter().rev().flat_map(|(_, _, records)| records.iter().rev());
    let note = all.find_map(|record| match record {
        Record::Failed { note, .. } => Some(note.clone()),
        _ => None,
    });
    (line, note.unwrap())
}

async fn what_is_wrong_with_an_agent_s_place_or_needs_is_mended_and_goes_on(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 1, &at_once()).await;
    let place = shared.recipe.shares[0].recipe.place.clone();
    let write = async |user: &str| {
        let secret = json!({"username": user, "password": shared.password, "host": "db.example"});
        ground.admin.done("POST", &format!("{}/data/{}", place.mount, place.path), json!({"data": secret})).await;
    };
    write("somebody_else").await;
    let mut admin = PgConnection::connect(&ground.pg.url).await.unwrap();
    let revoke = format!("REVOKE SELECT ON {}.orders FROM {}", shared.schema, shared.user);
    admin.execute(AssertSqlSafe(revoke)).await.unwrap();
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    shared.order(journal.as_ref(), Action::Split).await;
    let resume = async |line: &CaseLine| {
        let resumed = Record::Resumed { by: "ann".into() };
        journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    };
    let (line, note) = rejected(&shared, &stage, &journal, 2).await;
    assert!(note.contains("no value of the shared user"), "{note}");
    write(&shared.user).await;
    resume(&line).await;
    let (line, note) = rejected(&shared, &stage, &journal, 4).await;
    assert!(note.contains("has not what this agent is said to need"), "{note}");
    assert!(shared.shared_works().await);
    let grant = format!("GRANT SELECT ON {}.orders TO {}", shared.schema, shared.user);
    admin.execute(AssertSqlSafe(grant)).await.unwrap();
    admin.close().await.unwrap();
    resume(&line).await;
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert_end(&journal, &line, 1, "mended").await;
    assert!(!shared.shared_works().await);
    shared.log_in(0).await;
}

/// The case is begun anew between an agent's promotion and what follows it.
async fn who_was_moved_and_not_finished_loses_the_shared_value_as_well(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 1, &by_word()).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    shared.order(journal.as_ref(), Action::Split).await;
    let line = shared.until(&stage, &journal, "its promotion", |line| line.case.state.turn.new.is_some()).await;
    let abandoned = Record::Abandoned { by: "ann".into(), reason: "a drill".into() };
    journal.command(line.case.id, Some(abandoned), crate::stage::now_ms()).await.unwrap();
    shared.order(journal.as_ref(), Action::Split).await;
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(residue.as_slice(), []);
    shared.assert_split("begun anew").await;
}

/// By a login that may make no users: it says so, and takes those that a person makes, by what the document shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_a_person_prepared_is_taken() {
    for ground in [Ground::new().await, Ground::later().await] {
        let shared = Shared::with(&ground, 1, &at_once(), false).await;
        let stage = Stage::new(Store::sqlite(), shared.registry.clone());
        let journal = stage.open().await;
        shared.order(journal.as_ref(), Action::Split).await;
        let (line, note) = rejected(&shared, &stage, &journal, 2).await;
        assert!(note.contains("may not make users"), "{note}");
        let user = shared.recipe.shares[0].agent.user.clone();
        let curfew = ground.login.0.clone().unwrap_or_default();
        let names = [("agent_planner", user.as_str()), ("curfew", curfew.as_str())];
        let prepared = match ground.pg.is_later() {
            true => ground.pg.shown("split.sql", &names),
            false => vec![format!("CREATE ROLE {user}")],
        };
        ground.pg.run(prepared).await;
        let resumed = Record::Resumed { by: "ann".into() };
        journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
        let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
        assert_end(&journal, &line, 1, "prepared").await;
        shared.assert_split("prepared").await;
    }
}

/// From 16 on a membership has options: what agents get of it is what the shared user may by it.
#[tokio::test(flavor = "multi_thread")]
async fn on_18_agents_get_of_a_group_what_the_shared_user_may_by_it() {
    let ground = Ground::later().await;
    let mut shared = Shared::new(&ground, 2, &at_once()).await;
    let group = format!("{}_g", shared.user);
    // By SET alone, and to pass it on: the first says that it needs the group, of the second nothing is known.
    let options = "WITH ADMIN TRUE, INHERIT FALSE, SET TRUE";
    let grant = format!("GRANT {group} TO {} {options} GRANTED BY {}_a", shared.user, shared.user);
    ground.pg.run([grant, format!("GRANT USAGE ON SCHEMA {} TO {group}", shared.schema)]).await;
    let needs = [format!("schema:{}:USAGE", shared.schema), format!("relation:{}.orders:SELECT", shared.schema)];
    let needs = permissions(needs.into_iter().chain([format!("member:{group}")])).unwrap();
    let first = Arc::make_mut(&mut shared.recipe.shares[0]);
    first.needs = Some(needs);
    shared.registry.add_recipe(shared.recipe.clone());
    let stage = Stage::new(Store::sqlite(), shared.registry.clone());
    let journal = stage.open().await;
    shared.order(journal.as_ref(), Action::Split).await;
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert_end(&journal, &line, 2, "by options").await;
    let mut admin = PgConnection::connect(&ground.pg.url).await.unwrap();
    for (at, known) in [(0, (false, false, true)), (1, (true, false, true))] {
        let user = &shared.recipe.shares[at].agent.user;
        let asked = "SELECT bool_or(admin_option), bool_or(inherit_option), bool_or(set_option) FROM pg_auth_members \
            WHERE member = $1::regrole AND roleid = $2::regrole";
        let found: (bool, bool, bool) =
            sqlx::query_as(asked).bind(user).bind(&group).fetch_one(&mut admin).await.unwrap();
        assert_eq!(found, known, "{user}: admin, inherit, set");
        let mut session = shared.log_in(at).await;
        let people = format!("SELECT count(*) FROM {}.people", shared.schema);
        assert!(session.execute(AssertSqlSafe(people.clone())).await.is_err(), "it does not inherit");
        session.execute(AssertSqlSafe(format!("SET ROLE {group}"))).await.unwrap();
        session.execute(AssertSqlSafe(people)).await.unwrap();
    }
}
