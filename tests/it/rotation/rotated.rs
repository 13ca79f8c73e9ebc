//! Secrets that AWS rotates itself: every plan killed at every append, each call failed in each way, each effect repeated,
//! each reply cut; what its function does when it fails; and that of two users in turn the leaked pair is dead in the end.

use std::sync::Arc;

use aws_sdk_secretsmanager::Client;
use curfew::case::HoldReason;
use curfew::case::record::{Residue, UnknownWhy};
use curfew::case::state::Phase;
use curfew::connector::aws::rotated::{self, Patience};

use super::safe::{ACCOUNT, Shelf};
use super::*;
use crate::aws::function::{Fails, Function};

over_each! {
    sqlite: one_user_contained_survives_every_kill,
        one_user_rolled_over_survives_every_kill,
        two_users_contained_survive_every_kill,
        two_users_rolled_over_survive_every_kill;
    postgres: one_user_contained_survives_every_fault,
        two_users_contained_survive_every_fault,
        two_users_rolled_over_survive_every_fault
}

over_both! {
    a_step_of_the_function_that_fails_is_tried_again_by_aws,
    a_function_that_makes_nothing_parks_the_case_and_leaves_nothing_behind,
    a_function_that_stops_half_way_is_said,
    what_an_earlier_rotation_left_empty_is_taken_off,
    what_an_earlier_rotation_left_half_made_holds,
    a_rotation_of_aws_s_own_is_as_good,
    of_two_users_the_leaked_pair_is_dead,
    a_pair_that_leaked_before_aws_rotated_is_found_alive_and_ended,
    two_users_where_one_is_named_hold,
    a_containment_after_the_first_of_two_rotations_makes_the_second,
    what_ends_cannot_log_in_whatever_aws_makes,
}

/// What is not there by then has failed.
const SHORT: Patience = Patience { within_ms: 1_500, every_ms: 50 };
/// A machine that is busy is not taken for a failure.
const LONG: Patience = Patience { within_ms: 60_000, every_ms: 50 };

struct Managed {
    victim: Victim,
    function: Function,
    safe: Client,
}

impl Ground {
    async fn managed(&self, is_pair: bool, adoption: Adoption, patience: Patience) -> Managed {
        let moto = self.safe.get_or_init(Moto::start).await;
        let base = unique("managed").replace('-', "_");
        let (first, second, password) = (format!("{base}_a"), format!("{base}_b"), unique("first"));
        let pool = self.pg.pool().await;
        for (user, login) in [(&first, format!("LOGIN PASSWORD '{password}'")), (&second, "NOLOGIN".to_owned())] {
            sqlx::query(AssertSqlSafe(format!("CREATE ROLE \"{user}\" {login}"))).execute(&pool).await.unwrap();
        }
        let users = if is_pair { Users::Two(first.clone(), second.clone()) } else { Users::One(first.clone()) };
        let place = Place {
            keeper: Keeper::AwsRotated,
            realm: ACCOUNT.to_owned(),
            mount: SECRETS_MANAGER.to_owned(),
            path: format!("apps/{base}"),
            field: "password".to_owned(),
            user_field: Some("username".to_owned()),
        };
        let shelf = Shelf { admin: self.admin.clone(), safe: Some(moto.secrets.clone()) };
        let secret = json!({"engine": "postgres", "username": first, "password": password, "host": "db.example"});
        let first_version = shelf.write(&place, &secret).await;
        let pair = is_pair.then(|| (first.clone(), second));
        let function = Function::start(moto.secrets.clone(), &self.pg, pair).await;
        let sets = moto.secrets.rotate_secret().secret_id(&place.path).rotation_lambda_arn(function.arn());
        sets.rotate_immediately(false).send().await.unwrap();
        let recipe = Recipe {
            name: base,
            credential: CredentialId::new(Kind::PostgresRole, "appdb", &users.names().join(",")).unwrap(),
            place,
            copies: Vec::new(),
            webhooks: Vec::new(),
            users,
            password: PasswordRules::default(),
            adoption,
            environment: Some("test".to_owned()),
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
        };
        let registry = self.managed_registry(&recipe, patience).await;
        let (old, safe) = ((first, password), moto.secrets.clone());
        let victim = Victim {
            recipe,
            registry,
            old,
            hook: None,
            first: first_version,
            shelf,
            behind: super::Behind::Postgres,
            pg: self.pg.clone(),
        };
        Managed { victim, function, safe }
    }

    async fn managed_registry(&self, recipe: &Recipe, patience: Patience) -> Registry {
        let clock = curfew::clock::System::shared();
        let mut registry = Registry::default();
        for (name, allowed_prefixes) in [("appdb", vec![recipe.credential.id()]), (ACCOUNT, Vec::new())] {
            let (name, targets) = (name.to_owned(), Vec::new());
            registry.add_realm(Realm { name, mode: Mode::Enforce, allowed_prefixes, reducible: Vec::new(), targets });
        }
        let settings = aws::AwsSettings { patience, ..self.safe.get().unwrap().settings() };
        let places = [recipe.place.clone()];
        registry.add_store(rotated::connect(ACCOUNT, &settings, clock.clone(), &places).await.unwrap());
        let target = PostgresSettings::new(self.pg.url.clone().into());
        registry.add(role::connect("appdb", &target, clock).await.unwrap());
        registry.add_recipe(recipe.clone());
        registry
    }
}

impl Managed {
    /// The version that has a label: its id.
    async fn holder(&self, label: &str) -> Option<String> {
        let said = self.safe.describe_secret().secret_id(&self.victim.recipe.place.path).send().await.unwrap();
        let all = said.version_ids_to_stages()?.iter();
        all.filter(|(_, labels)| labels.iter().any(|one| one == label)).map(|(id, _)| id.clone()).next()
    }

    /// AWS rotates because somebody, or its schedule, says so.
    async fn by_others(&self) -> String {
        let token = uuid::Uuid::new_v4().to_string();
        let call = self.safe.rotate_secret().secret_id(&self.victim.recipe.place.path);
        call.client_request_token(&token).send().await.unwrap();
        token
    }

    /// As the witness sees it.
    async fn assert_rotated(&self, what: &str) {
        let (version, user, value) = self.victim.stored().await;
        assert!(version > self.victim.first, "{what}");
        assert!(self.victim.works(&(user, value.clone())).await, "{what}: what consumers read does not work");
        assert!(!self.victim.works(&self.victim.old).await, "{what}: the old value still works");
        let (pending, current) = (self.holder("AWSPENDING").await, self.holder("AWSCURRENT").await);
        assert!(pending.is_none() || pending == current, "{what}: AWS would take no further rotation");
    }
}

struct Course<'a> {
    ground: &'a Ground,
    managed: Managed,
    action: Action,
}

impl Trial for Course<'_> {
    fn credential(&self) -> &CredentialId {
        self.managed.victim.credential()
    }

    fn registry(&self) -> Registry {
        self.managed.victim.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        open_case(journal, &self.managed.victim, self.action).await;
    }

    async fn died(&self, what: &str) -> Registry {
        // The function sets it before it is stored: of one user that is AWS's gap, of two there is none.
        if self.managed.victim.recipe.users.overlap() {
            let (_, user, value) = self.managed.victim.stored().await;
            assert!(self.managed.victim.works(&(user, value)).await, "{what}: what consumers read works");
        }
        self.ground.managed_registry(&self.managed.victim.recipe, LONG).await
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        assert_one_end(journal, line, what).await;
        self.managed.assert_rotated(what).await;
    }
}

async fn every_kill(store: Store, is_pair: bool, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || {
        let managed = ground.managed(is_pair, Adoption::default(), LONG).await;
        Course { ground: &ground, managed, action }
    };
    endure::every_kill(&store, 3, fresh).await;
}

async fn every_fault(store: Store, is_pair: bool, action: Action) {
    let ground = Ground::new().await;
    let fresh = async || {
        let managed = ground.managed(is_pair, Adoption::default(), LONG).await;
        Course { ground: &ground, managed, action }
    };
    endure::every_fault(&store, 4, fresh).await;
}

async fn one_user_contained_survives_every_kill(store: Store) {
    every_kill(store, false, Action::Contain).await;
}

async fn one_user_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, false, Action::Rollover).await;
}

async fn two_users_contained_survive_every_kill(store: Store) {
    every_kill(store, true, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_kill(store: Store) {
    every_kill(store, true, Action::Rollover).await;
}

async fn one_user_contained_survives_every_fault(store: Store) {
    every_fault(store, false, Action::Contain).await;
}

async fn two_users_contained_survive_every_fault(store: Store) {
    every_fault(store, true, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_fault(store: Store) {
    every_fault(store, true, Action::Rollover).await;
}

async fn line_of(journal: &Arc<dyn Journal>, managed: &Managed) -> CaseLine {
    case_of(journal.as_ref(), managed.victim.credential()).await.unwrap()
}

/// The case, once it is held for this reason.
async fn held(stage: &Stage, journal: &Arc<dyn Journal>, managed: &Managed, why: HoldReason) -> CaseLine {
    let executor = stage.executor(journal.clone());
    until("the hold", || async {
        executor.drain().await.unwrap();
        let line = line_of(journal, managed).await;
        matches!(line.case.state.phase, Phase::Held { reason } if reason == why).then_some(line)
    })
    .await
}

async fn a_step_of_the_function_that_fails_is_tried_again_by_aws(store: Store) {
    let ground = Ground::new().await;
    let steps = ["createSecret", "setSecret", "testSecret", "finishSecret"];
    for fails in steps.into_iter().flat_map(|step| [Fails::At(step, 1), Fails::After(step, 2)]) {
        let managed = ground.managed(false, Adoption::default(), LONG).await;
        managed.function.fails(fails);
        let stage = Stage::new(store.fresh(), managed.victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
        let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
        let what = format!("{fails:?}");
        assert_one_end(&journal, &line, &what).await;
        managed.assert_rotated(&what).await;
        let Verdict::Dead { residue, .. } = &line.verdict else { unreachable!() };
        assert!(residue.contains(&Residue::OldValueStored), "AWS keeps versions: {residue:?}");
        assert_eq!(line.case.state.turn.rejected, 0, "{what}: one rotation");
        assert_eq!(managed.function.done().last().map(String::as_str), Some("finishSecret"), "{what}");
    }
}

async fn a_function_that_makes_nothing_parks_the_case_and_leaves_nothing_behind(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(false, Adoption::default(), SHORT).await;
    managed.function.fails(Fails::At("createSecret", usize::MAX));
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
    let line = held(&stage, &journal, &managed, HoldReason::CandidateRejected).await;
    assert_eq!(line.case.state.turn.rejected, 3, "three rotations were tried");
    assert_eq!(managed.holder("AWSPENDING").await, None, "the next rotation is not refused");
    assert!(managed.victim.works(&managed.victim.old).await);
    // P8: what AWS was asked for may have happened.
    assert_eq!(line.verdict, Verdict::Unknown { why: UnknownWhy::Held(HoldReason::CandidateRejected) });
    // A person mends the function, and has it tried again.
    managed.function.fails(Fails::Never);
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
    assert_one_end(&journal, &line, "mended").await;
    managed.assert_rotated("mended").await;
}

/// The database has the new value, and consumers read the old one: AWS's own rotation is stuck as well.
async fn a_function_that_stops_half_way_is_said(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(false, Adoption::default(), SHORT).await;
    managed.function.fails(Fails::At("finishSecret", usize::MAX));
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
    let line = held(&stage, &journal, &managed, HoldReason::CandidateRejected).await;
    let pending = managed.holder("AWSPENDING").await;
    assert!(pending.is_some() && pending != managed.holder("AWSCURRENT").await, "what may work keeps its label");
    assert!(!managed.victim.works(&managed.victim.old).await);
    assert_eq!(line.verdict, Verdict::Unknown { why: UnknownWhy::Held(HoldReason::CandidateRejected) });
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let records: Vec<Record> = timeline.records.into_iter().flat_map(|(_, _, records)| records).collect();
    let said = |record: &Record| matches!(record, Record::Failed { note, .. } if note.contains("AWSPENDING"));
    assert!(records.iter().any(said), "{records:?}");
    // A person brings it to its end, as AWS's document says, and has it gone on with.
    let call = managed.safe.update_secret_version_stage().secret_id(&managed.victim.recipe.place.path);
    let call = call.version_stage("AWSCURRENT").move_to_version_id(pending.unwrap());
    call.remove_from_version_id(managed.holder("AWSCURRENT").await.unwrap()).send().await.unwrap();
    managed.function.fails(Fails::Never);
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    managed.assert_rotated("by hand").await;
}

async fn what_an_earlier_rotation_left_empty_is_taken_off(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(false, Adoption::default(), SHORT).await;
    managed.function.fails(Fails::At("createSecret", 3));
    managed.by_others().await;
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
    // Until it is old enough nothing is asked: it may still be under way.
    let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
    assert_one_end(&journal, &line, "empty").await;
    managed.assert_rotated("empty").await;
}

async fn what_an_earlier_rotation_left_half_made_holds(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(false, Adoption::default(), SHORT).await;
    managed.function.fails(Fails::At("setSecret", usize::MAX));
    let token = managed.by_others().await;
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
    let line = held(&stage, &journal, &managed, HoldReason::Refused).await;
    assert_eq!(managed.holder("AWSPENDING").await, Some(token), "it is left to who knows which value works");
    assert_eq!(line.verdict, Verdict::Alive { by: HoldReason::Refused }, "nothing was begun");
    assert!(managed.victim.works(&managed.victim.old).await);
}

async fn a_rotation_of_aws_s_own_is_as_good(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(false, Adoption::default(), LONG).await;
    let down = Down::of("aws-rotated-secret", Act::Begin);
    let stage = Stage::new(store, down.before(&managed.victim.registry));
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
    let executor = stage.executor(journal.clone());
    until("the try", || async {
        executor.drain().await.unwrap();
        (line_of(&journal, &managed).await.case.state.attempts > 0).then_some(())
    })
    .await;
    let theirs = managed.by_others().await;
    until("its end", || async { (managed.holder("AWSCURRENT").await.as_ref() == Some(&theirs)).then_some(()) }).await;
    down.ends();
    let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
    assert_one_end(&journal, &line, "its own").await;
    managed.assert_rotated("its own").await;
    assert_eq!(managed.holder("AWSCURRENT").await, Some(theirs), "not rotated again");
}

async fn of_two_users_the_leaked_pair_is_dead(store: Store) {
    let ground = Ground::new().await;
    for action in [Action::Contain, Action::Rollover] {
        let adoption = Adoption { consumers: vec!["web".into()], within_ms: 3_600_000, ..Adoption::default() };
        let managed = ground.managed(true, adoption, LONG).await;
        let (old, other) = (managed.victim.old.clone(), managed.victim.recipe.users.names()[1].to_owned());
        let mut session = ground.pg.login(&old.0, &old.1).await.unwrap();
        let stage = Stage::new(store.fresh(), managed.victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &managed.victim, action).await;
        if action == Action::Rollover {
            let executor = stage.executor(journal.clone());
            until("the gate", || async {
                executor.drain().await.unwrap();
                let state = line_of(&journal, &managed).await.case.state;
                (state.current()?.act == Act::Adopt).then_some(())
            })
            .await;
            assert!(managed.victim.works(&old).await, "both work while consumers move");
            assert_eq!(managed.victim.stored().await.1, other);
            drop(session);
        } else {
            let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
            assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "its session outlived it: {line:?}");
        }
        let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
        assert_one_end(&journal, &line, "pair").await;
        managed.assert_rotated("pair").await;
        assert_eq!(managed.victim.stored().await.1, old.0, "its turn came again");
        let rows = journal.outbox(0, 100).await.unwrap();
        assert_eq!(rows.iter().filter(|row| row.kind == outcome::Kind::Rotated).count(), 2, "consumers hear of both");
        // AWS goes on with it.
        managed.by_others().await;
        until("the next turn", || async { (managed.victim.stored().await.1 == other).then_some(()) }).await;
    }
}

/// What anybody else would call rotated: consumers read the other user's value by now, and the leaked one works.
async fn a_pair_that_leaked_before_aws_rotated_is_found_alive_and_ended(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(true, Adoption::default(), LONG).await;
    let token = managed.by_others().await;
    until("its end", || async { (managed.holder("AWSCURRENT").await.as_ref() == Some(&token)).then_some(()) }).await;
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { level: Level::Target, .. }), "{:?}", line.verdict);
    assert!(line.case.state.plan_no >= 3, "looked at, found alive, and rotated");
    managed.assert_rotated("before").await;
}

/// P6: the other user is none that the recipe names.
async fn two_users_where_one_is_named_hold(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(true, Adoption::default(), LONG).await;
    let one = Recipe {
        users: Users::One(managed.victim.old.0.clone()),
        credential: CredentialId::new(Kind::PostgresRole, "appdb", &managed.victim.old.0).unwrap(),
        ..managed.victim.recipe.clone()
    };
    let registry = ground.managed_registry(&one, LONG).await;
    let managed = Managed { victim: Victim { recipe: one, registry, ..managed.victim }, ..managed };
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Contain).await;
    let line = held(&stage, &journal, &managed, HoldReason::CandidateRejected).await;
    assert_eq!(line.verdict, Verdict::Unknown { why: UnknownWhy::Held(HoldReason::CandidateRejected) });
    assert!(managed.victim.works(&managed.victim.old).await, "and nobody calls it dead");
}

async fn a_containment_after_the_first_of_two_rotations_makes_the_second(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["web".into()], within_ms: 3_600_000, by_word: true, ..Adoption::default() };
    let managed = ground.managed(true, adoption, LONG).await;
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    until("the gate", || async {
        executor.drain().await.unwrap();
        (line_of(&journal, &managed).await.case.state.current()?.act == Act::Adopt).then_some(())
    })
    .await;
    let between = managed.victim.stored().await;
    record(journal.as_ref(), vec![finding(&managed.victim, "active")]).await;
    let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
    assert_one_end(&journal, &line, "overtaken").await;
    managed.assert_rotated("overtaken").await;
    assert!(managed.victim.works(&(between.1, between.2)).await, "one more rotation, and not two");
}

async fn what_ends_cannot_log_in_whatever_aws_makes(store: Store) {
    let ground = Ground::new().await;
    let managed = ground.managed(true, Adoption::default(), LONG).await;
    let stage = Stage::new(store, managed.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &managed.victim, Action::Revoke).await;
    let line = stage.run_until_closed(&journal, managed.victim.credential()).await;
    let Verdict::Dead { level, residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(*level, Level::Target);
    assert!(residue.contains(&Residue::OldValueStored), "{residue:?}");
    assert!(!managed.victim.works(&managed.victim.old).await);
    managed.by_others().await;
    let (_, user, value) = managed.victim.stored().await;
    assert!(
        !managed.victim.works(&(user, value)).await,
        "its function logs in with what consumers read, and is refused"
    );
}
