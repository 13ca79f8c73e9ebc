//! AWS Secrets Manager as the place of a value, or of a copy of it: on moto, with what AWS does and moto does not.

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata as _;
use curfew::case::HoldReason;
use curfew::case::record::Residue;
use curfew::case::state::Phase;
use curfew::event::CredentialAdopted;

use super::*;
use crate::aws::proxy::Fault;

/// The account's name in the configuration.
pub const ACCOUNT: &str = "aws";

over_both! {
    who_reads_aws_gets_the_old_value_back,
    a_candidate_of_somebody_else_s_holds_until_it_is_stale,
    a_secret_that_is_not_ours_to_change_is_left_alone,
    a_reply_that_is_lost_makes_no_second_version,
    what_ends_stays_stored_at_aws_and_that_is_said,
    what_others_wrote_meanwhile_stays,
    a_secret_that_is_plain_text_is_rotated_as_a_whole,
}

// The plans are those of KV, of which both journals see all: here each has its half.
over_each! {
    sqlite: one_user_contained_survives_every_kill,
        one_user_rolled_over_survives_every_kill,
        two_users_contained_survive_every_kill,
        two_users_rolled_over_survive_every_kill,
        a_value_in_aws_and_a_vault_contained_survives_every_kill,
        a_value_in_aws_and_a_vault_rolled_over_survives_every_kill,
        a_value_in_a_vault_and_aws_rolled_over_survives_every_kill;
    postgres: one_user_contained_survives_every_fault,
        one_user_rolled_over_survives_every_fault,
        two_users_contained_survive_every_fault,
        two_users_rolled_over_survive_every_fault,
        a_value_in_aws_and_a_vault_rolled_over_survives_every_fault
}

fn is_at_aws(place: &Place) -> bool {
    matches!(place.keeper, Keeper::AwsSecret | Keeper::AwsRotated)
}

/// Where values are, as who administers the stores sees it.
pub struct Shelf {
    pub admin: Admin,
    pub safe: Option<Client>,
}

impl Shelf {
    /// Without AWS.
    pub fn of(admin: &Admin) -> Self {
        Self { admin: admin.clone(), safe: None }
    }

    fn safe(&self) -> &Client {
        self.safe.as_ref().expect("this shape has a secret at AWS")
    }

    /// A first version: its number.
    pub async fn write(&self, place: &Place, fields: &Value) -> i64 {
        if is_at_aws(place) {
            self.safe().create_secret().name(&place.path).secret_string(fields.to_string()).send().await.unwrap();
            return self.current(place).await.0;
        }
        self.admin.done("POST", &format!("{}/data/{}", place.mount, place.path), json!({"data": fields})).await;
        1
    }

    /// The version that consumers read, and its fields.
    pub async fn current(&self, place: &Place) -> (i64, Value) {
        if is_at_aws(place) {
            return self.labelled(place, "AWSCURRENT").await.expect("consumers read something");
        }
        let (status, body) = self.admin.call("GET", &format!("{}/data/{}", place.mount, place.path), Value::Null).await;
        assert_eq!(status, 200, "{body}");
        (body["data"]["metadata"]["version"].as_i64().unwrap(), body["data"]["data"].clone())
    }

    /// The version at AWS that has a label.
    async fn labelled(&self, place: &Place, label: &str) -> Option<(i64, Value)> {
        let call = self.safe().get_secret_value().secret_id(&place.path).version_stage(label);
        let found = match call.send().await {
            Ok(found) => found,
            Err(error) if error.code() == Some("ResourceNotFoundException") => return None,
            Err(error) => panic!("{error:?}"),
        };
        let number = found.created_date().unwrap().to_millis().unwrap();
        Some((number, serde_json::from_str(found.secret_string().unwrap()).unwrap()))
    }

    /// What was made and is not read.
    pub async fn candidate(&self, place: &Place) -> Option<Value> {
        if is_at_aws(place) {
            return self.labelled(place, "AWSPENDING").await.map(|(_, fields)| fields);
        }
        let path = format!("{}/data/curfew-pending/{}", place.mount, place.path);
        let (_, body) = self.admin.call("GET", &path, Value::Null).await;
        Some(body["data"]["data"].clone()).filter(Value::is_object)
    }

    /// No candidate is left behind.
    pub async fn assert_clean(&self, place: &Place, what: &str) {
        if is_at_aws(place) {
            let pending = self.labelled(place, "AWSPENDING").await;
            assert!(pending.is_none(), "{what}: a candidate is left behind");
            return;
        }
        let path = format!("{}/metadata/curfew-pending/{}", place.mount, place.path);
        let (status, _) = self.admin.call("GET", &path, Value::Null).await;
        assert_eq!(status, 404, "{what}: a candidate is left behind");
    }

    /// The old value is destroyed; at AWS, which cannot do that, it has no label.
    pub async fn assert_lost(&self, place: &Place, old: &str, what: &str) {
        if is_at_aws(place) {
            for label in ["AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"] {
                let found = self.labelled(place, label).await;
                assert!(found.is_none_or(|(_, fields)| fields["password"] != old), "{what}: {label} is the old value");
            }
            return;
        }
        let (_, meta) = self.admin.call("GET", &format!("{}/metadata/{}", place.mount, place.path), Value::Null).await;
        assert_eq!(meta["data"]["versions"]["1"]["destroyed"], true, "{what}: the old value is still stored");
    }
}

async fn one_user_contained_survives_every_kill(store: Store) {
    every_kill(store, Shape::AwsOne, Action::Contain).await;
}

async fn one_user_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Shape::AwsOne, Action::Rollover).await;
}

async fn two_users_contained_survive_every_kill(store: Store) {
    every_kill(store, Shape::AwsTwo, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_kill(store: Store) {
    every_kill(store, Shape::AwsTwo, Action::Rollover).await;
}

async fn one_user_contained_survives_every_fault(store: Store) {
    every_fault(store, Shape::AwsOne, Action::Contain).await;
}

async fn one_user_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Shape::AwsOne, Action::Rollover).await;
}

async fn two_users_contained_survive_every_fault(store: Store) {
    every_fault(store, Shape::AwsTwo, Action::Contain).await;
}

async fn two_users_rolled_over_survive_every_fault(store: Store) {
    every_fault(store, Shape::AwsTwo, Action::Rollover).await;
}

async fn a_value_in_aws_and_a_vault_contained_survives_every_kill(store: Store) {
    every_kill(store, Shape::AwsSpread, Action::Contain).await;
}

async fn a_value_in_aws_and_a_vault_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Shape::AwsSpread, Action::Rollover).await;
}

async fn a_value_in_aws_and_a_vault_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Shape::AwsSpread, Action::Rollover).await;
}

async fn a_value_in_a_vault_and_aws_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Shape::Mixed, Action::Rollover).await;
}

/// AWS destroys no single version, and the last one keeps its label.
async fn what_ends_stays_stored_at_aws_and_that_is_said(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::AwsTwo, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Revoke).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "ends").await;
    assert!(!victim.works(&victim.old).await);
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(residue.contains(&Residue::OldValueStored), "{residue:?}");
    assert_eq!(victim.stored().await.2, victim.old.1, "what stands there is not taken from who may need to look");
}

/// Somebody writes another value between the candidate and its promotion.
async fn what_others_wrote_meanwhile_stays(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::AwsTwo, Adoption::default()).await;
    let down = Down::of("aws-secret", Act::Promote);
    let stage = Stage::new(store, down.before(&victim.registry));
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let line = async || case_of(journal.as_ref(), victim.credential()).await.unwrap();
    until("the candidate", || async {
        executor.drain().await.unwrap();
        line().await.case.state.turn.is_set.then_some(())
    })
    .await;
    let others = json!({"username": victim.old.0, "password": "what-others-wrote", "host": "db.example"});
    let safe = victim.shelf.safe();
    safe.put_secret_value()
        .secret_id(&victim.recipe.place.path)
        .secret_string(others.to_string())
        .send()
        .await
        .unwrap();
    down.ends();
    until("the hold", || async {
        executor.drain().await.unwrap();
        matches!(line().await.case.state.phase, Phase::Held { reason: HoldReason::CandidateRejected }).then_some(())
    })
    .await;
    assert_eq!(victim.stored().await.2, "what-others-wrote");
    assert!(victim.works(&victim.old).await, "who reads there is not cut off");
}

async fn who_reads_aws_gets_the_old_value_back(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["web".into()], within_ms: 3_600_000, by_word: true, ..Adoption::default() };
    let victim = ground.victim(Shape::AwsSpread, adoption).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let line = async || case_of(journal.as_ref(), victim.credential()).await.unwrap();
    until("the promotion at all places", || async {
        executor.drain().await.unwrap();
        line().await.case.state.may_go_back().then_some(())
    })
    .await;
    let (version, user, value) = victim.stored().await;
    assert!(version > victim.first && victim.works(&(user, value)).await);
    let (credential, consumer) = (victim.credential().clone(), "web".to_owned());
    let data = CredentialAdopted { credential, version, consumer, failed: true };
    record(journal.as_ref(), vec![event(Type::CredentialAdopted, Data::CredentialAdopted(data))]).await;
    until("the way back", || async {
        executor.drain().await.unwrap();
        matches!(line().await.case.state.phase, Phase::Held { reason: HoldReason::Unhealthy }).then_some(())
    })
    .await;
    let (back, user, value) = victim.stored().await;
    assert_eq!((&user, &value), (&victim.old.0, &victim.old.1));
    assert!(back > version, "numbers only grow");
    for copy in &victim.recipe.copies {
        let (_, fields) = victim.shelf.current(copy).await;
        assert_eq!(fields["password"], *victim.old.1, "{}", copy.name());
    }
    victim.shelf.assert_clean(&victim.recipe.place, "back").await;
    assert!(victim.works(&victim.old).await);
}

/// As many are: a token or a password, and nothing beside it.
async fn a_secret_that_is_plain_text_is_rotated_as_a_whole(store: Store) {
    let ground = Ground::new().await;
    for action in [Action::Contain, Action::Rollover] {
        let moto = ground.safe.get_or_init(Moto::start).await;
        let (user, password) = (unique("plain").replace('-', "_"), unique("first"));
        let sql = format!("CREATE ROLE \"{user}\" LOGIN PASSWORD '{password}'");
        sqlx::query(AssertSqlSafe(sql)).execute(&ground.pg.pool().await).await.unwrap();
        let path = format!("apps/{user}");
        moto.secrets.create_secret().name(&path).secret_string(&password).send().await.unwrap();
        let current = async || {
            // moto takes another version where no label is named.
            let call = moto.secrets.get_secret_value().secret_id(&path).version_stage("AWSCURRENT");
            call.send().await.unwrap()
        };
        let first = current().await.created_date().unwrap().to_millis().unwrap();
        let place = Place {
            keeper: Keeper::AwsSecret,
            realm: ACCOUNT.to_owned(),
            mount: SECRETS_MANAGER.to_owned(),
            path: path.clone(),
            field: curfew::connector::recipe::WHOLE.to_owned(),
            user_field: None,
        };
        let recipe = Recipe {
            name: user.clone(),
            credential: CredentialId::new(Kind::PostgresRole, "appdb", &user).unwrap(),
            place,
            copies: Vec::new(),
            webhooks: Vec::new(),
            users: Users::One(user.clone()),
            password: PasswordRules::default(),
            adoption: Adoption::default(),
            environment: None,
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
        };
        let (registry, shelf) = (ground.registry(&recipe).await, Shelf::of(&ground.admin));
        let old = (user.clone(), password.clone());
        let victim = Victim {
            recipe,
            registry,
            old,
            hook: None,
            first,
            shelf,
            behind: super::Behind::Postgres,
            pg: ground.pg.clone(),
        };
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, action).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert_one_end(&journal, &line, "plain").await;
        let now = current().await.secret_string().unwrap().to_owned();
        assert!(now != password && !now.contains(['"', '{']), "it stays plain text");
        assert!(victim.works(&(user, now)).await && !victim.works(&victim.old).await);
    }
}

/// The case, once it is held as refused.
async fn refused(executor: &curfew::executor::Executor, journal: &Arc<dyn Journal>, victim: &Victim) -> CaseLine {
    until("the hold", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await.unwrap();
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Refused }).then_some(line)
    })
    .await
}

async fn resume(journal: &Arc<dyn Journal>, line: &CaseLine) {
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
}

async fn a_candidate_of_somebody_else_s_holds_until_it_is_stale(store: Store) {
    let ground = Ground::new().await;
    let mut victim = ground.victim(Shape::AwsTwo, Adoption::default()).await;
    let place = victim.recipe.place.clone();
    let others = json!({"username": "x", "password": "what-others-make", "host": "db.example"}).to_string();
    let put = victim.shelf.safe().put_secret_value().secret_id(&place.path).secret_string(others);
    put.version_stages("AWSPENDING").send().await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let line = refused(&stage.executor(journal.clone()), &journal, &victim).await;
    assert_eq!(victim.candidate().await.unwrap().1, "what-others-make");
    assert!(victim.works(&victim.old).await);
    // The day after nobody goes on with it.
    let clock = curfew::clock::Simulated::at(crate::stage::now_ms() + 90_000_000);
    let settings = ground.safe.get().unwrap().settings();
    let later = aws::secrets::connect(ACCOUNT, &settings, clock, std::slice::from_ref(&place)).await.unwrap();
    victim.registry.add_store(later);
    let stage = Stage { registry: Arc::new(victim.registry.clone()), ..stage };
    resume(&journal, &line).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "stale").await;
    victim.assert_rotated("stale").await;
}

async fn a_secret_that_is_not_ours_to_change_is_left_alone(store: Store) {
    let ground = Ground::new().await;
    let cases = [
        ("of a service", json!({"OwningService": "rds"})),
        ("rotated by AWS", json!({"RotationEnabled": true})),
        ("to be deleted", json!({"DeletedDate": 1_800_000_000.0})),
    ];
    for (what, mut said) in cases {
        let victim = ground.victim(Shape::AwsOne, Adoption::default()).await;
        said["Name"] = json!(victim.recipe.place.path);
        let proxy = &ground.safe.get().unwrap().proxy;
        proxy.is(Fault::Answers("DescribeSecret", said.to_string()));
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, Action::Rollover).await;
        let line = refused(&stage.executor(journal.clone()), &journal, &victim).await;
        assert!(victim.candidate().await.is_none(), "{what}: nothing was made");
        assert!(victim.works(&victim.old).await, "{what}");
        proxy.is(Fault::None);
        resume(&journal, &line).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert_one_end(&journal, &line, what).await;
    }
}

async fn a_reply_that_is_lost_makes_no_second_version(store: Store) {
    let ground = Ground::new().await;
    for (what, fault) in [
        ("made", Fault::Cut("PutSecretValue")),
        ("promoted", Fault::Cut("UpdateSecretVersionStage")),
        ("throttled", Fault::Throttled(3)),
    ] {
        let victim = ground.victim(Shape::AwsTwo, Adoption::default()).await;
        let proxy = &ground.safe.get().unwrap().proxy;
        let before = proxy.calls().len();
        proxy.is(fault.clone());
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, Action::Rollover).await;
        let executor = stage.executor(journal.clone());
        if let Fault::Cut(call) = fault {
            until("the cut", || async {
                executor.drain().await.unwrap();
                proxy.calls()[before..].iter().any(|(called, _)| called == call).then_some(())
            })
            .await;
            proxy.is(Fault::None);
        }
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert_one_end(&journal, &line, what).await;
        victim.assert_rotated(what).await;
        let list = victim.shelf.safe().list_secret_version_ids().secret_id(&victim.recipe.place.path);
        assert_eq!(list.send().await.unwrap().versions().len(), 2, "{what}");
    }
}
