//! The access key of a user, replaced: whatever dies, fails or is lost, the user has one key in the end, the one that
//! consumers read, and it lets in.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Generation, KilledBy, Level, Observation, Output, Record, Sighting, Verdict};
use curfew::case::state::Phase;
use curfew::case::turn::Turn;
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::{self, Adoption, Keeper, PasswordRules, Place, Recipe, Rotation, Stored, Users, Which};
use curfew::connector::vault::{self, Auth, VaultSettings};
use curfew::connector::{Failure, Subject};
use curfew::event::{
    ACCESS_KEY_ID, CredentialAdopted, CredentialRegistered, Data, Event, FindingObserved, Identifier, PartFingerprint,
    Type, access_key_mark,
};
use curfew::journal::{CaseLine, Journal};
use futures::StreamExt as _;
use serde_json::json;

use super::proxy::Fault;
use super::*;
use crate::admin::Admin;
use crate::endure::{self, Trial};
use crate::rotation::safe::Shelf;
use crate::rotation::{Down, kv_mount};
use crate::stage::{Between as _, Stage, case_of, event, record};
use crate::store::Store;
use crate::vault::about;

over_each! {
    sqlite: a_key_rolled_over_survives_every_kill, a_key_contained_survives_every_kill;
    postgres: a_key_rolled_over_survives_every_fault, a_key_contained_survives_every_fault
}

over_both! {
    a_key_that_somebody_else_made_holds,
    a_third_key_is_not_asked_for,
    a_deleted_key_that_iam_still_counts_is_waited_for,
    two_keys_that_the_list_showed_too_late_hold,
    a_finding_of_its_id_replaces_it,
    the_role_of_a_contained_user_is_cut_before_it_has_another_key,
    who_cannot_work_with_the_new_key_gets_the_old_one_back,
    what_ends_amid_its_rotation_leaves_no_key,
    a_key_made_by_hand_before_the_first_try_is_left_alone,
    a_new_key_that_leaks_before_the_old_one_is_cut_takes_both_with_it,
}

/// moto, and a KV mount.
struct Field {
    moto: Moto,
    admin: Admin,
    mount: String,
    token: String,
}

/// A user whose key consumers read.
struct Course {
    recipe: Recipe,
    registry: Registry,
    victim: Victim,
    shelf: Shelf,
    action: Action,
    root: Client,
}

impl Field {
    async fn new() -> Self {
        let admin = Admin::shared();
        let mount = unique("kv");
        kv_mount(&admin, &mount).await;
        let token = admin.curfew_token().await;
        Self { moto: Moto::start().await, admin, mount, token }
    }

    async fn course(&self, action: Action, adoption: Adoption) -> Course {
        self.course_at(Keeper::Kv, action, adoption).await
    }

    async fn course_at(&self, keeper: Keeper, action: Action, adoption: Adoption) -> Course {
        let victim = self.moto.victim().await;
        let path = format!("apps/{}", victim.name());
        let shelf = Shelf { admin: self.admin.clone(), safe: Some(self.moto.secrets.clone()) };
        let mut place = place(&self.mount, &path);
        if keeper == Keeper::AwsSecret {
            (place.keeper, place.realm, place.mount) = (keeper, "aws".to_owned(), recipe::SECRETS_MANAGER.to_owned());
        }
        shelf.write(&place, &json!({"id": victim.key.id, "secret": victim.key.secret, "region": REGION})).await;
        let recipe = recipe_of(&victim, place, adoption);
        let clock = clock::System::shared();
        let mut registry = self.moto.registry().await;
        registry.add(aws::connect_users("aws", &self.moto.settings(), clock.clone()).await.unwrap());
        let settings = VaultSettings::new(&self.admin.address, Auth::Token(self.token.clone().into()));
        let places = [recipe.place.clone()];
        if keeper == Keeper::AwsSecret {
            let made = aws::secrets::connect("aws", &self.moto.settings(), clock.clone(), &places).await;
            registry.add_store(made.unwrap());
        } else {
            let stores = vault::connect_stores("test", &settings, Mode::Enforce, clock, &places, &[]).await.unwrap();
            stores.into_iter().for_each(|store| registry.add_store(store));
        }
        let name = "test".to_owned();
        registry.add_realm(Realm {
            name,
            mode: Mode::Enforce,
            allowed_prefixes: Vec::new(),
            reducible: Vec::new(),
            targets: Vec::new(),
        });
        registry.add_recipe(recipe.clone());
        Course { recipe, registry, victim, shelf, action, root: self.moto.root.clone() }
    }
}

fn place(mount: &str, path: &str) -> Place {
    Place {
        keeper: Keeper::Kv,
        realm: "test".to_owned(),
        mount: mount.to_owned(),
        path: path.to_owned(),
        field: "secret".to_owned(),
        user_field: Some("id".to_owned()),
    }
}

fn recipe_of(victim: &Victim, place: Place, adoption: Adoption) -> Recipe {
    Recipe {
        name: victim.name().to_owned(),
        credential: CredentialId::new(Kind::AwsUser, "aws", &victim.full).unwrap(),
        place,
        copies: Vec::new(),
        webhooks: Vec::new(),
        users: Users::Keys(victim.full.clone()),
        password: PasswordRules::default(),
        adoption,
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
    }
}

fn registered(credential: CredentialId, id: &str, version: Option<i64>) -> Event {
    let mark = PartFingerprint { fingerprint: access_key_mark(id).unwrap(), part: None };
    let data = CredentialRegistered {
        credential,
        fingerprints: vec![mark],
        version,
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    };
    event(Type::CredentialRegistered, Data::CredentialRegistered(data))
}

/// As a scanner that knows no fingerprints says it.
fn found(id: &str, validity: &str) -> Event {
    let data = FindingObserved {
        finding_key: unique("finding"),
        identifiers: vec![Identifier { kind: ACCESS_KEY_ID.to_owned(), value: id.to_owned() }],
        detector: "aws-access-token".to_owned(),
        validity: validity.to_owned(),
        ..FindingObserved::default()
    };
    event(Type::FindingObserved, Data::FindingObserved(Box::new(data)))
}

impl Course {
    /// What consumers read: version, id, secret.
    async fn stored(&self) -> (i64, String, String) {
        let (version, fields) = self.shelf.current(&self.recipe.place).await;
        let text = |name: &str| fields[name].as_str().unwrap().to_owned();
        assert_eq!(text("region"), REGION, "other fields stay");
        (version, text("id"), text("secret"))
    }

    /// The user's keys, and whether each lets in.
    async fn keys(&self) -> Vec<(String, bool)> {
        let list = self.root.list_access_keys().user_name(self.victim.name()).send().await.unwrap();
        let of = |key: &aws_sdk_iam::types::AccessKeyMetadata| {
            (key.access_key_id().unwrap().to_owned(), key.status() == Some(&StatusType::Active))
        };
        list.access_key_metadata().iter().map(of).collect()
    }

    async fn assert_replaced(&self, what: &str) {
        let (version, id, secret) = self.stored().await;
        assert!(version > 1 && id != self.victim.key.id && secret != self.victim.key.secret, "{what}");
        assert_eq!(self.keys().await, [(id, true)], "{what}: the one key that consumers read");
        self.shelf.assert_clean(&self.recipe.place, what).await;
    }
}

fn assert_dead(line: &CaseLine, what: &str) {
    let Verdict::Dead { level, by, sightings, .. } = &line.verdict else { panic!("{what}: {:?}", line.verdict) };
    assert_eq!((*level, *by), (Level::Issuer, KilledBy::Curfew), "{what}");
    assert!(*sightings >= 4, "{what}: {sightings}");
}

impl Trial for Course {
    fn credential(&self) -> &CredentialId {
        &self.recipe.credential
    }

    fn registry(&self) -> Registry {
        self.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        let validity = if self.action == Action::Contain { "active" } else { "unknown" };
        let (credential, id) = (self.recipe.credential.clone(), &self.victim.key.id);
        let (version, ..) = self.stored().await;
        record(journal, vec![registered(credential, id, Some(version)), found(id, validity)]).await;
    }

    async fn died(&self, what: &str) -> Registry {
        if self.action == Action::Rollover {
            let (_, id, _) = self.stored().await;
            assert!(self.keys().await.contains(&(id, true)), "{what}: what consumers read does not let in");
        }
        self.registry.clone()
    }

    async fn assert_over(&self, _: &Arc<dyn Journal>, line: &CaseLine, _: bool, what: &str) {
        let what = format!("{:?} {what}", self.action);
        assert_dead(line, &what);
        self.assert_replaced(&what).await;
    }
}

async fn every_kill(store: Store, action: Action) {
    let field = Field::new().await;
    endure::every_kill(&store, 3, async || field.course(action, Adoption::default()).await).await;
}

async fn every_fault(store: Store, action: Action) {
    let field = Field::new().await;
    endure::every_fault(&store, 4, async || field.course(action, Adoption::default()).await).await;
}

async fn a_key_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Action::Rollover).await;
}

async fn a_key_contained_survives_every_kill(store: Store) {
    every_kill(store, Action::Contain).await;
}

async fn a_key_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Action::Rollover).await;
}

async fn a_key_contained_survives_every_fault(store: Store) {
    every_fault(store, Action::Contain).await;
}

/// The case, once it is held for this reason.
async fn held(stage: &Stage, journal: &Arc<dyn Journal>, course: &Course, why: HoldReason) -> CaseLine {
    let executor = stage.executor(journal.clone());
    until("the hold", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), &course.recipe.credential).await.unwrap();
        matches!(line.case.state.phase, Phase::Held { reason } if reason == why).then_some(line)
    })
    .await
}

const LAST_USED: &str = "<GetAccessKeyLastUsedResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
    <GetAccessKeyLastUsedResult><UserName>x</UserName><AccessKeyLastUsed><Region>eu-west-1</Region>\
    <ServiceName>s3</ServiceName><LastUsedDate>2026-11-26T10:00:00Z</LastUsedDate></AccessKeyLastUsed>\
    </GetAccessKeyLastUsedResult><ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata>\
    </GetAccessKeyLastUsedResponse>";

/// While the answer to ours is lost somebody makes one as well, and uses it.
async fn a_key_that_somebody_else_made_holds(store: Store) {
    let field = Field::new().await;
    let course = field.course(Action::Rollover, Adoption::default()).await;
    field.moto.proxy.is(Fault::Says("CreateAccessKey", axum::http::StatusCode::SERVICE_UNAVAILABLE, ""));
    let stage = Stage::new(store, course.registry.clone());
    let journal = stage.open().await;
    course.open_case(journal.as_ref()).await;
    let executor = stage.executor(journal.clone());
    until("the try", || async {
        executor.drain().await.unwrap();
        field.moto.proxy.calls().iter().any(|(call, _)| call == "CreateAccessKey").then_some(())
    })
    .await;
    let theirs = field.moto.second_key(&course.victim).await;
    field.moto.proxy.is(Fault::Answers("GetAccessKeyLastUsed", LAST_USED.to_owned()));
    let line = held(&stage, &journal, &course, HoldReason::Refused).await;
    assert!(line.closed_ms.is_none());
    let keys = course.keys().await;
    assert!(keys.contains(&(theirs.id, true)) && keys.contains(&(course.victim.key.id.clone(), true)), "{keys:?}");
}

async fn a_third_key_is_not_asked_for(store: Store) {
    let field = Field::new().await;
    let course = field.course(Action::Rollover, Adoption::default()).await;
    let second = field.moto.second_key(&course.victim).await;
    let stage = Stage::new(store, course.registry.clone());
    let journal = stage.open().await;
    course.open_case(journal.as_ref()).await;
    let line = held(&stage, &journal, &course, HoldReason::Refused).await;
    assert_eq!(course.keys().await.len(), 2, "nothing was touched");
    assert!(!field.moto.proxy.calls().iter().any(|(call, _)| call == "CreateAccessKey"));
    // Its administrator makes room.
    let gone = course.root.delete_access_key().user_name(course.victim.name()).access_key_id(&second.id);
    gone.send().await.unwrap();
    journal.command(line.case.id, Some(Record::Resumed { by: "ann".into() }), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, &course.recipe.credential).await;
    assert_dead(&line, "room");
    course.assert_replaced("room").await;
}

/// IAM is late: the list shows one key, and there is no room for another.
async fn a_deleted_key_that_iam_still_counts_is_waited_for(store: Store) {
    let field = Field::new().await;
    let course = field.course(Action::Rollover, Adoption::default()).await;
    field.moto.proxy.is(Fault::SaysFor(3, "CreateAccessKey", axum::http::StatusCode::CONFLICT, "LimitExceeded"));
    let stage = Stage::new(store, course.registry.clone());
    let journal = stage.open().await;
    course.open_case(journal.as_ref()).await;
    let line = stage.run_until_closed(&journal, &course.recipe.credential).await;
    assert_dead(&line, "late");
    course.assert_replaced("late").await;
    let asked = field.moto.proxy.calls().iter().filter(|(call, _)| call == "CreateAccessKey").count();
    assert_eq!(asked, 4, "until there was room");
}

/// Somebody makes a key between our look and our call.
async fn two_keys_that_the_list_showed_too_late_hold(store: Store) {
    let field = Field::new().await;
    let course = field.course(Action::Rollover, Adoption::default()).await;
    let down = Down::of("aws-user", Act::Create);
    let stage = Stage::new(store, down.before(&course.registry));
    let journal = stage.open().await;
    course.open_case(journal.as_ref()).await;
    let executor = stage.executor(journal.clone());
    until("the try", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), &course.recipe.credential).await.unwrap();
        (line.case.state.attempts > 0).then_some(())
    })
    .await;
    field.moto.second_key(&course.victim).await;
    down.ends();
    held(&stage, &journal, &course, HoldReason::Refused).await;
    assert_eq!(course.keys().await.len(), 2, "nothing was touched");
}

/// The inventory lists the key as well: its rotation has it, and it is not only disabled.
async fn a_finding_of_its_id_replaces_it(store: Store) {
    let field = Field::new().await;
    let course = field.course(Action::Contain, Adoption::default()).await;
    let listed = registered(course.victim.credential(), &course.victim.key.id, None);
    let stage = Stage::new(store, course.registry.clone());
    let journal = stage.open().await;
    record(journal.as_ref(), vec![listed]).await;
    course.open_case(journal.as_ref()).await;
    let line = stage.run_until_closed(&journal, &course.recipe.credential).await;
    assert_dead(&line, "found");
    course.assert_replaced("found").await;
    assert!(field.moto.denied(&course.victim).await.is_some(), "its sessions");
    let turn = &line.case.state.turn;
    let kept_ms = turn.promoted_ms.zip(turn.set_ms).map(|(promoted_ms, set_ms)| promoted_ms - set_ms);
    assert!(kept_ms >= Some(super::SOON.window_ms), "what is opened with the new key may be denied: {turn:?}");
    assert!(case_of(journal.as_ref(), &course.victim.credential()).await.is_none(), "one case");
}

async fn the_role_of_a_contained_user_is_cut_before_it_has_another_key(store: Store) {
    let field = Field::new().await;
    let mut course = field.course(Action::Contain, Adoption::default()).await;
    let arn = format!("arn:aws:iam::{ACCOUNT}:user/{}", course.victim.full);
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": arn}, "Action": "sts:AssumeRole"}]});
    let name = unique("deploy");
    let made = course.root.create_role().role_name(&name).assume_role_policy_document(trust.to_string()).send().await;
    let role = made.unwrap().role().unwrap().arn().to_owned();
    let settings = AwsSettings { cut_roles: vec![role.clone()], ..field.moto.settings() };
    course.registry.add(aws::connect_users("aws", &settings, clock::System::shared()).await.unwrap());
    let stage = Stage::new(store, course.registry.clone());
    let journal = stage.open().await;
    course.open_case(journal.as_ref()).await;
    let line = stage.run_until_closed(&journal, &course.recipe.credential).await;
    assert_dead(&line, "contained");
    course.assert_replaced("contained").await;
    let on = course.root.list_role_policies().role_name(&name).send().await.unwrap();
    assert_eq!(on.policy_names(), [format!("curfew-sessions-{}", course.victim.key.id)]);
    let derived = line.case.state.derived.unwrap();
    assert!(derived.role(&role).unwrap().denied_ms.is_some() && derived.whole, "{derived:?}");
    let at = |wanted: &str| field.moto.proxy.calls().iter().position(|(call, _)| call == wanted);
    assert!(at("PutRolePolicy") < at("CreateAccessKey"), "in this order");
}

async fn who_cannot_work_with_the_new_key_gets_the_old_one_back(store: Store) {
    let field = Field::new().await;
    let adoption =
        Adoption { consumers: vec!["web".into()], within_ms: 3_600_000, by_word: true, ..Adoption::default() };
    for keeper in [Keeper::Kv, Keeper::AwsSecret] {
        let course = field.course_at(keeper, Action::Rollover, adoption.clone()).await;
        let stage = Stage::new(store.fresh(), course.registry.clone());
        let journal = stage.open().await;
        course.open_case(journal.as_ref()).await;
        let executor = stage.executor(journal.clone());
        until("the promotion", || async {
            executor.drain().await.unwrap();
            let line = case_of(journal.as_ref(), &course.recipe.credential).await.unwrap();
            line.case.state.may_go_back().then_some(())
        })
        .await;
        assert_eq!(course.keys().await.len(), 2, "both let in");
        // They used it: so it is known to be ours by our own word alone.
        field.moto.proxy.is(Fault::Answers("GetAccessKeyLastUsed", LAST_USED.to_owned()));
        let (version, ..) = course.stored().await;
        let (credential, consumer) = (course.recipe.credential.clone(), "web".to_owned());
        let data = CredentialAdopted { credential, version, consumer, failed: true };
        record(journal.as_ref(), vec![event(Type::CredentialAdopted, Data::CredentialAdopted(data))]).await;
        held(&stage, &journal, &course, HoldReason::Unhealthy).await;
        let (back, id, secret) = course.stored().await;
        assert_eq!((&id, &secret), (&course.victim.key.id, &course.victim.key.secret));
        assert!(back > version, "numbers only grow");
        assert_eq!(course.keys().await, [(id, true)], "{keeper:?}: the new one is gone");
        field.moto.proxy.is(Fault::None);
    }
}

/// A key was made for it, and nobody reads that one yet.
async fn what_ends_amid_its_rotation_leaves_no_key(store: Store) {
    let field = Field::new().await;
    for keeper in [Keeper::Kv, Keeper::AwsSecret] {
        let course = field.course_at(keeper, Action::Rollover, Adoption::default()).await;
        let down = Down::of(keeper.as_str(), Act::Promote);
        let stage = Stage::new(store.fresh(), down.before(&course.registry));
        let journal = stage.open().await;
        course.open_case(journal.as_ref()).await;
        let executor = stage.executor(journal.clone());
        until("the new key", || async {
            executor.drain().await.unwrap();
            let line = case_of(journal.as_ref(), &course.recipe.credential).await.unwrap();
            line.case.state.turn.is_set.then_some(())
        })
        .await;
        assert_eq!(course.keys().await.len(), 2);
        let (credential, by, reason) = (course.recipe.credential.clone(), "ann".to_owned(), "it ends".to_owned());
        let data = Data::OperatorRevoke { credential, by, reason };
        record(journal.as_ref(), vec![event(Type::OperatorRevoke, data)]).await;
        let line = stage.run_until_closed(&journal, &course.recipe.credential).await;
        assert_dead(&line, "ends");
        assert_eq!(course.keys().await, [], "{keeper:?}: no key of it is left");
        course.shelf.assert_clean(&course.recipe.place, "ends").await;
    }
}

async fn a_key_made_by_hand_before_the_first_try_is_left_alone(store: Store) {
    let field = Field::new().await;
    let course = field.course(Action::Rollover, Adoption::default()).await;
    let down = Down::of("aws-user", Act::Create);
    let stage = Stage::new(store, down.before(&course.registry));
    let journal = stage.open().await;
    course.open_case(journal.as_ref()).await;
    let executor = stage.executor(journal.clone());
    until("the look", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), &course.recipe.credential).await.unwrap();
        line.case.state.turn.keys.is_some().then_some(())
    })
    .await;
    let theirs = field.moto.second_key(&course.victim).await;
    down.ends();
    held(&stage, &journal, &course, HoldReason::Refused).await;
    let keys = course.keys().await;
    assert!(keys.contains(&(theirs.id, true)) && keys.contains(&(course.victim.key.id.clone(), true)), "{keys:?}");
}

async fn a_new_key_that_leaks_before_the_old_one_is_cut_takes_both_with_it(store: Store) {
    let field = Field::new().await;
    let adoption =
        Adoption { consumers: vec!["web".into()], within_ms: 3_600_000, by_word: true, ..Adoption::default() };
    let course = field.course(Action::Rollover, adoption).await;
    let stage = Stage::new(store, course.registry.clone());
    let journal = stage.open().await;
    course.open_case(journal.as_ref()).await;
    let executor = stage.executor(journal.clone());
    until("the promotion", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), &course.recipe.credential).await.unwrap();
        line.case.state.may_go_back().then_some(())
    })
    .await;
    let (version, leaked, _) = course.stored().await;
    let known = registered(course.recipe.credential.clone(), &leaked, Some(version));
    record(journal.as_ref(), vec![known, found(&leaked, "active")]).await;
    let line = stage.run_until_closed(&journal, &course.recipe.credential).await;
    assert_dead(&line, "both");
    course.assert_replaced("both").await;
    assert_ne!(course.stored().await.1, leaked);
}

/// A store in memory, which fails as often as the network does.
#[derive(Default)]
struct Drawer {
    current: Mutex<Option<(String, String)>>,
    candidate: Mutex<Option<Stored>>,
}

fn copy_of(stored: &Stored) -> Stored {
    Stored { version: stored.version, user: stored.user.clone(), value: stored.value.clone(), key: stored.key }
}

#[async_trait]
impl Connector for Drawer {
    fn name(&self) -> &'static str {
        Keeper::Kv.as_str()
    }

    fn system(&self) -> &str {
        "test"
    }

    fn call_timeout_ms(&self) -> i64 {
        1_000
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, _: &Subject) -> Result<Observation, Failure> {
        unreachable!("only read and kept")
    }

    async fn perform(&self, _: Act, _: &Subject) -> Result<Output, Failure> {
        unreachable!("only read and kept")
    }

    async fn probe(&self, _: &Subject) -> Sighting {
        unreachable!("only read and kept")
    }

    async fn self_check(&self) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl recipe::Store for Drawer {
    async fn read(&self, _: &Place, which: Which) -> Result<Option<Stored>, Failure> {
        if which == Which::Candidate {
            return Ok(self.candidate.lock().unwrap().as_ref().map(copy_of));
        }
        let current = self.current.lock().unwrap().clone();
        Ok(current.map(|(id, secret)| Stored { version: 1, user: Some(id), value: secret.into(), key: None }))
    }

    async fn keep(&self, _: &Rotation, minted: &Stored) -> Result<Output, Failure> {
        let fate = rand::random_range(0..8);
        if fate == 0 {
            return Err(Failure::new(FailureKind::Unavailable, "injected"));
        }
        // As stores do: what is there under this step's key stays.
        let mut candidate = self.candidate.lock().unwrap();
        if candidate.as_ref().is_none_or(|there| there.key != minted.key) {
            *candidate = Some(copy_of(minted));
        }
        drop(candidate);
        if fate == 1 {
            return Err(Failure::new(FailureKind::Unknown, "injected"));
        }
        Ok(Output::default())
    }

    async fn earlier(&self, _: &Place, _: i64, _: usize) -> Result<Vec<Stored>, Failure> {
        Ok(Vec::new())
    }
}

/// Cut before IAM heard of it, before its answer was back, or in the middle: in the end the user has the old key and the
/// one that is stored.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_orphaned_by_a_thousand_cuts() {
    let moto = Moto::start().await;
    let connector = aws::connect_users("aws", &moto.settings(), clock::System::shared()).await.unwrap();
    connector.self_check().await.unwrap();
    moto.proxy.is(Fault::Breaks(10));
    let one = async |_| {
        let victim = moto.victim().await;
        let drawer = Arc::new(Drawer::default());
        *drawer.current.lock().unwrap() = Some((victim.key.id.clone(), victim.key.secret.clone()));
        let old = Generation { version: 1, user: Some(victim.key.id.clone()) };
        let rotation = Rotation {
            recipe: Arc::new(recipe_of(&victim, place("kv", "x"), Adoption::default())),
            store: drawer.clone(),
            turn: Turn { old: Some(old), keys: Some(vec![victim.key.id.clone()]), asked: true, ..Turn::default() },
            candidate: Some(uuid::Uuid::new_v4()),
            contains: false,
            ends: false,
            copy: None,
            since_ms: crate::stage::now_ms(),
            splits: false,
            share: None,
            moved: None,
        };
        let mut subject = Subject { rotation: Some(rotation), ..about(Kind::AwsUser, &victim.full) };
        let mut cuts = 0;
        loop {
            // A process that dies in the middle.
            let life = Duration::from_millis(rand::random_range(1..200));
            match tokio::time::timeout(life, connector.perform(Act::Create, &subject)).await {
                Ok(Ok(_)) => break,
                Ok(Err(failure)) if failure.kind == FailureKind::Rejected => {
                    subject.rotation.as_mut().unwrap().candidate = Some(uuid::Uuid::new_v4());
                }
                Ok(Err(failure)) => assert_ne!(failure.kind, FailureKind::Refused, "{}", failure.note),
                Err(_) => {}
            }
            cuts += 1;
            // The next plan makes another candidate.
            if rand::random_range(0..4) == 0 {
                subject.rotation.as_mut().unwrap().candidate = Some(uuid::Uuid::new_v4());
            }
        }
        let stored = drawer.candidate.lock().unwrap().as_ref().unwrap().user.clone().unwrap();
        let mut expected = vec![victim.key.id.clone(), stored];
        let mut keys = moto.keys(&victim).await;
        expected.sort();
        keys.sort();
        assert_eq!(keys, expected, "after {cuts} cuts");
        cuts
    };
    let mut cuts = 0;
    while cuts < 1_000 {
        cuts += futures::stream::iter(0..16).map(one).buffer_unordered(4).fold(0, async |all, n| all + n).await;
    }
    let made = moto.proxy.calls().iter().filter(|(call, _)| call == "CreateAccessKey").count();
    println!("{cuts} cuts, {made} keys asked for");
}
