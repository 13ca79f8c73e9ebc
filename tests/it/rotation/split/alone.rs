//! One of those that share a user is moved off it, with no more than its task is for; the others work on with what they share. On a
//! real PostgreSQL and a real Vault, killed at each append and with each call failing.

use curfew::journal::{Arrival, Batch};
use curfew::policy::Rules;
use curfew::policy::rules::{FindingRule, Response, When};
use curfew::reach::notice::{Found, Sort};
use curfew::scope::Move;

use super::super::leaving::known;
use super::*;
use crate::stage::{TOPIC, now_ms};

over_both! {
    one_is_moved_with_no_more_than_its_task_is_for_and_nobody_else,
    an_operator_moves_one_and_then_all_while_the_first_is_on_its_way,
    who_cannot_work_with_less_goes_back_and_the_shared_user_was_never_touched,
    a_user_that_may_more_is_not_taken_and_nothing_at_all_is_no_user,
}

// As long as a split of one: each journal has its half.
over_each! {
    sqlite: a_move_survives_every_kill;
    postgres: a_move_survives_every_fault
}

/// What a task is for: one table to read, and something that no PostgreSQL has.
fn reads_orders(shared: &Shared) -> Vec<String> {
    let schema = &shared.schema;
    vec![format!("schema:{schema}:USAGE"), format!("relation:{schema}.orders:SELECT"), "policy:other".to_owned()]
}

/// Reach has found what is too much for the second agent, and a rule says what follows.
async fn found(shared: &Shared, journal: &dyn Journal, at_most: Vec<String>) {
    let credential = &shared.recipe.credential;
    record(journal, vec![known(credential)]).await;
    let found = Found {
        sort: Sort::Outside,
        credential: credential.clone(),
        place: "task:/ci:1 may more".to_owned(),
        owner: None,
        excess: Vec::new(),
        leaves: None,
        moves: vec![Move { agent: "agent-1".into(), at_most: Some(permissions(at_most).unwrap()) }],
    };
    let mut said = Event::found("default".into(), &found, now_ms());
    // On the authority that this stage has.
    said.at.topic = TOPIC.into();
    let when = When { detector: Some(vec![Sort::Outside.detector()]), ..When::default() };
    let rules = Rules { findings: vec![FindingRule::new(when, Response::Split)], ..Rules::default() };
    let arrivals = vec![Arrival::Event(Box::new(said))];
    let batch = Batch { arrivals, moves: Vec::new(), rules: Arc::new(rules), now_ms: now_ms() };
    journal.record_batch(batch).await.unwrap();
}

async fn orders_one(shared: &Shared, journal: &dyn Journal, agent: &str) {
    let (id, credential, agents) =
        (Uuid::now_v7().to_string(), shared.recipe.credential.clone(), vec![agent.to_owned()]);
    let (by, reason) = ("ann".to_owned(), "a drill".to_owned());
    record(journal, vec![Event::operator_move("default".into(), id, credential, agents, by, reason, now_ms())]).await;
}

/// What PostgreSQL says that a user may.
async fn may(shared: &Shared, user: &str, table: &str, privilege: &str) -> bool {
    let mut admin = PgConnection::connect(&shared.pg.url).await.unwrap();
    let ask = sqlx::query_scalar("SELECT has_table_privilege($1::name, $2, $3)");
    let ask = ask.bind(user).bind(format!("{}.{table}", shared.schema)).bind(privilege);
    let may: bool = ask.fetch_one(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    may
}

/// The second agent has its own user for its task alone, and works with it; the first one reads what it read.
async fn assert_moved(shared: &Shared, journal: &Arc<dyn Journal>, line: &CaseLine, what: &str) {
    let Verdict::Reduced { taken, residue, .. } = &line.verdict else { panic!("{what}: {:?}", line.verdict) };
    assert_eq!(*taken, 3, "{what}: INSERT, UPDATE of a column, a group");
    assert!(residue.contains(&Residue::StillShared), "{what}: {residue:?}");
    let (version, user, password) = shared.reads(1).await;
    assert_eq!((version, &user), (2, &shared.recipe.shares[1].agent.user), "{what}");
    let mut session = shared.pg.login(&user, &password).await.unwrap();
    let orders = format!("SELECT count(*) FROM {}.orders", shared.schema);
    session.execute(AssertSqlSafe(orders)).await.unwrap();
    for (table, privilege, expected) in
        [("orders", "SELECT", true), ("orders", "INSERT", false), ("people", "SELECT", false)]
    {
        assert_eq!(may(shared, &user, table, privilege).await, expected, "{what}: {table} {privilege}");
    }
    shared.shelf.assert_clean(&shared.recipe.shares[1].recipe.place, what).await;
    shared.shelf.assert_lost(&shared.recipe.shares[1].recipe.place, &shared.password, what).await;
    let first = (1, shared.user.clone(), shared.password.clone());
    assert_eq!(shared.reads(0).await, first, "{what}: nobody else is moved");
    assert!(shared.shared_works().await && may(shared, &shared.user, "people", "SELECT").await, "{what}");
    let known = journal.known(&"default".into(), vec![shared.recipe.credential.clone()]).await.unwrap();
    assert_eq!(known[0].credential.dead_ms, None, "{what}: what is shared lives");
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let outcomes: Vec<_> = rows.iter().filter(|row| row.kind == outcome::Kind::Outcome).collect();
    assert_eq!(outcomes.len(), 1, "{what}: one outcome");
    let said: Value = serde_json::from_slice(&outcomes[0].body).unwrap();
    assert_eq!((&said["data"]["agents"], &said["data"]["permissions"]), (&json!(["agent-1"]), &Value::Null), "{what}");
}

struct Alone {
    shared: Shared,
}

impl Trial for Alone {
    fn credential(&self) -> &CredentialId {
        &self.shared.recipe.credential
    }

    fn registry(&self) -> Registry {
        self.shared.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        found(&self.shared, journal, reads_orders(&self.shared)).await;
    }

    async fn died(&self, what: &str) -> Registry {
        assert!(self.shared.shared_works().await, "{what}: the others are cut off");
        for at in 0..2 {
            let (_, user, password) = self.shared.reads(at).await;
            assert!(self.shared.pg.login(&user, &password).await.is_ok(), "{what}: agent {at} is cut off");
        }
        self.shared.registry.clone()
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
        let records: Vec<Record> = timeline.records.iter().flat_map(|(_, _, records)| records.clone()).collect();
        assert_eq!(State::fold(&records).unwrap(), line.case.state, "{what}: the row is the fold of its records");
        assert_silent(journal, line, &self.shared).await;
        assert_moved(&self.shared, journal, line, what).await;
    }
}

async fn a_move_survives_every_kill(store: Store) {
    let ground = Ground::new().await;
    let fresh = async || Alone { shared: Shared::new(&ground, 2, &at_once()).await };
    endure::every_kill(&store, 6, fresh).await;
}

async fn a_move_survives_every_fault(store: Store) {
    let ground = Ground::new().await;
    let fresh = async || Alone { shared: Shared::new(&ground, 2, &at_once()).await };
    endure::every_fault(&store, 10, fresh).await;
}

async fn one_is_moved_with_no_more_than_its_task_is_for_and_nobody_else(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 2, &by_word()).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    found(&shared, journal.as_ref(), reads_orders(&shared)).await;
    let line = shared.until(&stage, &journal, "its promotion", |line| line.case.state.turn.new.is_some()).await;
    assert!(!line.case.state.may_be_dead());
    record(journal.as_ref(), vec![shared.says(1, 2, false)]).await;
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert_moved(&shared, &journal, &line, "moved").await;
    let Verdict::Reduced { residue, .. } = &line.verdict else { unreachable!() };
    assert_eq!(residue.as_slice(), [Residue::StillShared], "it had the value that the others have");
    // Once more: it reads its own, so there is nobody to be moved, and nothing that could be proven.
    orders_one(&shared, journal.as_ref(), "agent-1").await;
    let again = shared.closed(&stage, &journal, 2).await;
    assert_eq!(again.verdict, Verdict::Obsolete);
    assert_eq!(shared.reads(1).await.0, 2);
    // The others, at last: then it dies.
    shared.order(journal.as_ref(), Action::Split).await;
    let executor = stage.executor(journal.clone());
    until("the first one's promotion", || async {
        executor.drain().await.unwrap();
        (shared.reads(0).await.0 == 2).then_some(())
    })
    .await;
    record(journal.as_ref(), vec![shared.says(0, 2, false)]).await;
    let line = shared.closed(&stage, &journal, 3).await;
    assert!(matches!(line.verdict, Verdict::Dead { level: Level::Target, .. }), "{:?}", line.verdict);
    assert!(!shared.shared_works().await);
    shared.log_in(1).await;
}

async fn an_operator_moves_one_and_then_all_while_the_first_is_on_its_way(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 2, &by_word()).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    orders_one(&shared, journal.as_ref(), "agent-1").await;
    let line = shared.until(&stage, &journal, "its promotion", |line| line.case.state.turn.new.is_some()).await;
    let all = line.case.state.plan.iter().flat_map(|plan| &plan.steps).filter_map(|step| step.agent.as_ref());
    assert!(all.clone().count() > 0 && all.into_iter().all(|agent| agent.name == "agent-1"));
    shared.order(journal.as_ref(), Action::Split).await;
    let first = |line: &CaseLine| {
        let agent = line.case.state.current().and_then(|step| step.agent.as_ref());
        line.case.state.turn.new.is_some() && agent.is_some_and(|agent| agent.name == "agent-0")
    };
    shared.until(&stage, &journal, "the first one's turn", first).await;
    record(journal.as_ref(), vec![shared.says(0, 2, false)]).await;
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert!(matches!(line.verdict, Verdict::Dead { level: Level::Target, .. }), "{:?}", line.verdict);
    shared.assert_split("all").await;
}

async fn who_cannot_work_with_less_goes_back_and_the_shared_user_was_never_touched(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 2, &by_word()).await;
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    found(&shared, journal.as_ref(), reads_orders(&shared)).await;
    shared.until(&stage, &journal, "its promotion", |line| line.case.state.turn.new.is_some()).await;
    let (_, user, password) = shared.reads(1).await;
    record(journal.as_ref(), vec![shared.says(1, 2, true)]).await;
    let unhealthy = |line: &CaseLine| is_held(line, HoldReason::Unhealthy);
    let line = shared.until(&stage, &journal, "its way back", unhealthy).await;
    assert!(matches!(line.verdict, Verdict::Alive { by: HoldReason::Unhealthy }), "{:?}", line.verdict);
    assert_eq!(shared.reads(1).await, (3, shared.user.clone(), shared.password.clone()));
    assert!(shared.pg.login(&user, &password).await.is_err(), "its own user is shut again");
    assert!(shared.shared_works().await);
    assert_eq!(line.case.state.moved, []);
}

async fn a_user_that_may_more_is_not_taken_and_nothing_at_all_is_no_user(store: Store) {
    let ground = Ground::new().await;
    let shared = Shared::new(&ground, 2, &at_once()).await;
    let own = &shared.recipe.shares[1].agent.user;
    let mut admin = PgConnection::connect(&ground.pg.url).await.unwrap();
    let (people, group) = (format!("SELECT ON {}.people", shared.schema), shared.user.clone() + "_g");
    // A person has prepared it, with more than the task is for.
    for statement in [format!("CREATE ROLE \"{own}\""), format!("GRANT {group} TO \"{own}\"")] {
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let stage = Stage::new(store, shared.registry.clone());
    let journal = stage.open().await;
    found(&shared, journal.as_ref(), reads_orders(&shared)).await;
    let (line, note) = rejected(&shared, &stage, &journal, 2).await;
    assert!(note.contains("may more than the agent is to"), "{note}");
    assert_eq!(shared.reads(1).await.1, shared.user);
    assert!(!may(&shared, own, "orders", "SELECT").await, "nothing is half done");
    // What everybody may is in nobody's hand: no user would have less.
    for statement in [format!("REVOKE {group} FROM \"{own}\""), format!("GRANT {people} TO PUBLIC")] {
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let grant = format!("GRANT {people} TO {}", shared.user);
    admin.execute(AssertSqlSafe(grant)).await.unwrap();
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, &shared.recipe.credential).await;
    assert!(matches!(line.verdict, Verdict::Reduced { taken: 3, .. }), "{:?}", line.verdict);
    admin.close().await.unwrap();

    let shared = Shared::new(&ground, 2, &at_once()).await;
    let stage = Stage::new(stage.store.fresh(), shared.registry.clone());
    let journal = stage.open().await;
    found(&shared, journal.as_ref(), vec![format!("relation:{}.orders:TRUNCATE", shared.schema)]).await;
    let (_, note) = rejected(&shared, &stage, &journal, 2).await;
    assert!(note.contains("has nothing of what the agent's task is for"), "{note}");
    assert!(shared.shared_works().await && shared.reads(1).await.1 == shared.user);
}
