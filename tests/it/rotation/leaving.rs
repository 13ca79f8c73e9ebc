//! Who leaves, at a real Vault: its AppRole is closed before the first value dies, by a login with no more rights than `deploy/vault`
//! says; while it is, nothing new lets in; in the end it is as before, to the letter.

use curfew::case::HoldReason;
use curfew::case::plan::Act;
use curfew::case::record::Residue;
use curfew::case::state::Phase;
use curfew::clock::{Simulated, System};
use curfew::connector::Rescope;
use curfew::connector::vault::Vault;
use curfew::connector::vault::scope::VaultScope;
use curfew::deadlines::ClockTrust;
use curfew::fences;
use curfew::intake::Intake;
use curfew::journal::Filter;
use curfew::ops::operator::Operator;
use curfew::ops::{Reply, Request};
use curfew::reach::notice::{Found, Leaving, Sort, Word};
use curfew::scope::{Cut, Cutting, Fence, identity_of};

use super::approles::Ours;
use super::*;
use crate::stage::{TOPIC, now_ms};
use crate::vault::about;

const DAY_MS: i64 = 86_400_000;
const NOWHERE: &str = "192.0.2.237";

over_both! {
    what_of_an_approle_is_retired_behind_a_fence_survives_every_kill,
    what_of_an_approle_is_retired_behind_a_fence_survives_every_fault,
    a_fence_that_is_over_survives_every_kill,
    a_fence_that_is_over_survives_every_fault,
    nothing_new_lets_in_while_two_secret_ids_die_and_then_the_role_is_as_before,
    a_fence_that_somebody_changed_is_left_alone_and_said,
    an_operator_takes_a_fence_off_by_the_case_of_whichever_value,
    where_nobody_can_fence_the_values_die_all_the_same,
    an_entity_that_is_not_closed_keeps_nobody_alive_and_is_said,
    an_entity_that_was_disabled_before_stays_so,
    a_value_of_a_fenced_role_that_leaked_is_replaced_and_the_new_one_lets_in_afterwards,
}

/// A role with two secret_ids, a token of each, and who may close it.
struct Leaver {
    ours: Ours,
    registry: Registry,
    before: Value,
    tokens: [String; 2],
    /// The second secret_id.
    other: CredentialId,
}

pub fn found(credential: &CredentialId, fence_until_ms: Option<i64>) -> Event {
    let word = Word { topic: TOPIC.to_owned(), fence_until_ms, shared: false };
    let found = Found {
        sort: Sort::Offboarded,
        credential: credential.clone(),
        place: "belongs to identity:test/ci, who leaves".to_owned(),
        owner: None,
        excess: Vec::new(),
        leaves: Some(Leaving { tenant: "default".to_owned(), words: [word].into(), ..Leaving::default() }),
        moves: Vec::new(),
    };
    Event::found("default".into(), &found, now_ms())
}

pub fn known(credential: &CredentialId) -> Event {
    let data = CredentialRegistered {
        credential: credential.clone(),
        fingerprints: Vec::new(),
        version: None,
        current: true,
        issued_ms: None,
        owner: None,
        environment: Some("test".to_owned()),
    };
    event(Type::CredentialRegistered, Data::CredentialRegistered(data))
}

impl Ground {
    async fn leaver(&self) -> Leaver {
        let ours = self.approle(Adoption::default()).await;
        let (admin, mount) = (&self.admin, &ours.mount);
        let role = format!("auth/{mount}/role/ci");
        admin.done("POST", &role, json!({"secret_id_bound_cidrs": ["127.0.0.0/8", "10.0.0.0/8"]})).await;
        let mounted = format!("auth/{mount}\"");
        let policy = admin.policy("reduce", &[("auth/approle/role/etl", &role), ("auth/approle\"", &mounted)]).await;
        let token = admin.token(json!({"policies": [policy], "no_default_policy": true, "period": "1h"})).await.1;
        let mut settings = VaultSettings::new(&admin.address, Auth::Token(token.into()));
        settings.scopes = vec![format!("{mount}/ci")];
        let vault = Vault::open("test", &settings, Mode::Enforce, System::shared()).await.unwrap();
        let mut registry = ours.victim.registry.clone();
        let mut values = VaultSettings::new(&admin.address, Auth::Token(self.token.clone().into()));
        (values.secret_id_roles, values.derived_tokens) = (vec![format!("{mount}/ci")], true);
        // All tokens of the server are looked at, and other tests make many.
        values.timeout_ms = 20_000;
        for one in vault::connect("test", &values, Mode::Enforce, System::shared()).await.unwrap() {
            if one.name() == Kind::VaultSecretId.as_str() {
                registry.add(one);
            }
        }
        let prefixes = vec![format!("{}{mount}/ci", curfew::guard::APPROLES), format!("{mount}/ci/")];
        let realm = registry.realm_of("test").unwrap().clone();
        registry.add_realm(Realm { allowed_prefixes: prefixes, ..realm });
        registry.may_reduce("test", Mode::Enforce, &[format!("{mount}/ci")]);
        registry.add(Arc::new(VaultScope::new(vault)));
        let first = ours.log_in(&ours.victim.old.1).await.unwrap();
        let tokens = [first, ours.log_in(&ours.bystander).await.unwrap()];
        let body = json!({"secret_id": ours.bystander});
        let (_, told) = admin.call("POST", &format!("{role}/secret-id/lookup"), body).await;
        let accessor = told["data"]["secret_id_accessor"].as_str().unwrap();
        let other = CredentialId::new(Kind::VaultSecretId, "test", &format!("{mount}/ci/{accessor}")).unwrap();
        let mut leaver = Leaver { ours, registry, before: Value::Null, tokens, other };
        leaver.before = leaver.role().await;
        leaver
    }
}

impl Leaver {
    fn admin(&self) -> &Admin {
        &self.ours.victim.shelf.admin
    }

    fn credential(&self) -> &CredentialId {
        self.ours.victim.credential()
    }

    async fn role(&self) -> Value {
        let (status, told) = self.admin().call("GET", &format!("auth/{}/role/ci", self.ours.mount), Value::Null).await;
        assert_eq!(status, 200);
        told["data"].clone()
    }

    /// Whether both lists are the fence.
    async fn is_fenced(&self) -> bool {
        let role = self.role().await;
        role["secret_id_bound_cidrs"] == json!([format!("{NOWHERE}/32")])
            && role["token_bound_cidrs"] == json!([NOWHERE])
    }

    /// The entity that its logins have made, and the accessor of its mount.
    async fn entity(&self) -> (Value, Value) {
        let (_, auth) = self.admin().call("GET", "sys/auth", Value::Null).await;
        let accessor = auth["data"][format!("{}/", self.ours.mount)]["accessor"].clone();
        let (_, id) = self.admin().call("GET", &format!("auth/{}/role/ci/role-id", self.ours.mount), Value::Null).await;
        let alias = json!({"alias_name": id["data"]["role_id"], "alias_mount_accessor": accessor});
        let (status, told) = self.admin().call("POST", "identity/lookup/entity", alias).await;
        assert_eq!(status, 200);
        (told["data"].clone(), accessor)
    }

    async fn entity_is_disabled(&self) -> bool {
        self.entity().await.0["disabled"] == true
    }

    async fn disable_entity(&self) {
        let id = self.entity().await.0["id"].as_str().unwrap().to_owned();
        self.admin().done("POST", &format!("identity/entity/id/{id}"), json!({"disabled": true})).await;
    }

    async fn is_known(&self, secret_id: &str) -> bool {
        let path = format!("auth/{}/role/ci/secret-id/lookup", self.ours.mount);
        self.admin().call("POST", &path, json!({ "secret_id": secret_id })).await.0 == 200
    }

    /// What anybody could make just now does not let in.
    async fn assert_shut(&self, what: &str) {
        let (_, fresh) = self.admin().secret_id(&self.ours.mount, json!({})).await;
        assert!(self.ours.log_in(&fresh).await.is_none(), "{what}: a fresh secret_id lets in");
        assert!(self.ours.log_in(&self.ours.bystander).await.is_none(), "{what}: the other secret_id lets in");
    }

    /// All else of the role is as it was.
    async fn assert_only_fenced(&self, what: &str) {
        assert!(self.is_fenced().await, "{what}: the fence does not stand: {}", self.role().await);
        assert!(self.entity_is_disabled().await, "{what}: its entity is open");
        let without = |mut role: Value| {
            for name in ["secret_id_bound_cidrs", "token_bound_cidrs"] {
                role.as_object_mut().unwrap().remove(name);
            }
            role
        };
        assert_eq!(without(self.role().await), without(self.before.clone()), "{what}: something else was changed");
    }

    /// What there was before; of the entity that was enabled its id.
    async fn held(&self) -> Vec<(String, Vec<String>)> {
        let list = |name: &str| serde_json::from_value(self.before[name].clone()).unwrap_or_default();
        let of = |name: &str| (format!("fence:{name}"), list(name));
        let id = self.entity().await.0["id"].as_str().unwrap().to_owned();
        vec![("fence:entity".to_owned(), vec![id]), of("secret_id_bound_cidrs"), of("token_bound_cidrs")]
    }
}

/// What a row of a fence says that there was.
fn recorded(fence: &Fence) -> Vec<(String, Vec<String>)> {
    let of = |held: &curfew::scope::Held| {
        let how: Value = serde_json::from_str(&held.how).unwrap();
        let what = if how["cidrs"].is_array() { how["cidrs"].clone() } else { json!([how["entity"]]) };
        (held.permission.to_string(), serde_json::from_value(what).unwrap())
    };
    fence.held.iter().map(of).collect()
}

/// One that is retired.
struct Retired(Leaver);

impl Trial for Retired {
    fn credential(&self) -> &CredentialId {
        self.0.credential()
    }

    fn registry(&self) -> Registry {
        self.0.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        let found = found(self.0.credential(), Some(now_ms() + 30 * DAY_MS));
        record(journal, vec![registered(&self.0.ours.victim, 1), found]).await;
    }

    async fn died(&self, what: &str) -> Registry {
        let leaver = &self.0;
        let is_fenced = leaver.is_fenced().await;
        assert!(is_fenced || leaver.is_known(&leaver.ours.victim.old.1).await, "{what}: a value died before the fence");
        if is_fenced {
            leaver.assert_shut(what).await;
        }
        self.registry()
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        let leaver = &self.0;
        assert_eq!(one_end(journal, line, what).await, Level::Issuer, "{what}: a login behind a fence proves nothing");
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{what}") };
        let none = [Residue::NotFenced, Residue::EntityOpen, Residue::DerivedUnknown];
        assert!(!none.iter().any(|one| residue.contains(one)), "{what}: {residue:?}");
        leaver.assert_only_fenced(what).await;
        leaver.assert_shut(what).await;
        assert!(!leaver.is_known(&leaver.ours.victim.old.1).await, "{what}: its value lives");
        assert!(leaver.is_known(&leaver.ours.bystander).await, "{what}: the other value is another case's");
        for token in &leaver.tokens {
            assert!(!leaver.admin().token_works(token).await, "{what}: a token of the role lives");
        }
        let fences = journal.fences(i64::MAX, 9).await.unwrap();
        let [fence] = fences.as_slice() else { panic!("{what}: {fences:?}") };
        assert_eq!((&fence.identity, fence.case), (leaver.credential(), line.case.id), "{what}");
        assert_eq!(recorded(fence), leaver.held().await, "{what}: what there was before is not what is given back");
        assert!(journal.fences(now_ms(), 9).await.unwrap().is_empty(), "{what}: it is not over");
    }
}

async fn what_of_an_approle_is_retired_behind_a_fence_survives_every_kill(store: Store) {
    let ground = Ground::new().await;
    endure::every_kill(&store, 5, async || Retired(ground.leaver().await)).await;
}

async fn what_of_an_approle_is_retired_behind_a_fence_survives_every_fault(store: Store) {
    let ground = Ground::new().await;
    endure::every_fault(&store, 8, async || Retired(ground.leaver().await)).await;
}

/// One that was fenced, and is not to be any more.
struct Over {
    leaver: Leaver,
    fence: Fence,
}

impl Over {
    async fn new(leaver: Leaver) -> Self {
        let cut = Cut::fence(Kind::VaultApprole, now_ms() - 1).unwrap();
        let connector = leaver.registry.by_name("vault-scope", "test").unwrap().clone();
        let subject = |cutting| Subject {
            credential: leaver.credential().clone(),
            rescope: Some(Rescope { cut: cut.clone(), cutting, gives: false }),
            ..about(Kind::VaultApprole, "x/y")
        };
        let seen = connector.observe(&subject(Cutting::default())).await.unwrap();
        let cutting = Cutting { before: seen.scope.clone(), ..Cutting::default() };
        connector.perform(Act::Fence, &subject(cutting.clone())).await.unwrap();
        // Again: it stands already.
        connector.perform(Act::Fence, &subject(cutting)).await.unwrap();
        let again = connector.observe(&subject(Cutting::default())).await.unwrap().scope.unwrap();
        assert_eq!(again.held, [], "our own fence is not what there was before");
        let fence = Fence {
            tenant: "default".to_owned(),
            case: uuid::Uuid::new_v4(),
            identity: leaver.credential().clone(),
            until_ms: now_ms() - 1,
            held: seen.scope.unwrap().held,
        };
        assert!(leaver.is_fenced().await && leaver.entity_is_disabled().await);
        for token in &leaver.tokens {
            assert!(!leaver.admin().token_works(token).await, "a token of a disabled entity works");
        }
        Self { leaver, fence }
    }
}

impl Trial for Over {
    fn credential(&self) -> &CredentialId {
        self.leaver.credential()
    }

    fn registry(&self) -> Registry {
        self.leaver.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        record(journal, vec![Event::fence_over(&self.fence, now_ms()).unwrap()]).await;
    }

    async fn died(&self, _what: &str) -> Registry {
        self.registry()
    }

    async fn assert_over(&self, _journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        assert!(matches!(line.verdict, Verdict::RolledBack { .. }), "{what}: {:?}", line.verdict);
        assert_eq!(self.leaver.role().await, self.leaver.before, "{what}: the role is not as before");
        assert!(self.leaver.ours.log_in(&self.leaver.ours.bystander).await.is_some(), "{what}: it lets nobody in");
        assert!(!self.leaver.entity_is_disabled().await, "{what}: its entity is still closed");
        for token in &self.leaver.tokens {
            assert!(self.leaver.admin().token_works(token).await, "{what}: a token that nobody revoked is dead");
        }
    }
}

async fn a_fence_that_is_over_survives_every_kill(store: Store) {
    let ground = Ground::new().await;
    endure::every_kill(&store, 2, async || Over::new(ground.leaver().await).await).await;
}

async fn a_fence_that_is_over_survives_every_fault(store: Store) {
    let ground = Ground::new().await;
    endure::every_fault(&store, 3, async || Over::new(ground.leaver().await).await).await;
}

/// Tries to get in before each effect that ends a value.
#[derive(Clone)]
struct Tries(Arc<Leaver>);

#[async_trait]
impl Between for Tries {
    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        if matches!(act, Act::Revoke | Act::RevokeDerived | Act::Destroy) {
            assert!(self.0.is_fenced().await, "{act:?} before the fence");
            self.0.assert_shut(act.as_str()).await;
        }
        inner.perform(act, subject).await
    }
}

async fn all_closed(journal: &Arc<dyn Journal>, credential: &CredentialId, many: usize) -> Option<Vec<CaseLine>> {
    let filter = Filter { credential: Some(credential.clone()), closed: true, ..Filter::default() };
    let lines = journal.cases(filter).await.unwrap();
    (lines.len() == many && lines.iter().all(|line| line.closed_ms.is_some())).then_some(lines)
}

/// At this time: the fences that are over then are said to be, and given back.
async fn lifted(stage: &Stage, journal: &Arc<dyn Journal>, at_ms: i64) {
    let clock = Simulated::at(at_ms);
    let intake = Intake { clock: clock.clone(), ..stage.intake(journal.clone()) };
    let (executor, cancel) = (stage.executor_at(journal.clone(), &clock), tokio_util::sync::CancellationToken::new());
    let rounds = tokio::spawn(fences::run(intake, cancel.clone()));
    until("no fence to stand", || async {
        executor.drain().await.unwrap();
        journal.fences(i64::MAX, 9).await.unwrap().is_empty().then_some(())
    })
    .await;
    cancel.cancel();
    rounds.await.unwrap();
}

async fn nothing_new_lets_in_while_two_secret_ids_die_and_then_the_role_is_as_before(store: Store) {
    let leaver = Arc::new(Ground::new().await.leaver().await);
    let stage = Stage::new(store, Tries(leaver.clone()).before(&leaver.registry));
    let journal = stage.open().await;
    let until_ms = now_ms() + 30 * DAY_MS;
    let both = [leaver.credential(), &leaver.other];
    record(journal.as_ref(), vec![registered(&leaver.ours.victim, 1), known(&leaver.other)]).await;
    record(journal.as_ref(), both.iter().map(|one| found(one, Some(until_ms))).collect()).await;
    let executor = stage.executor(journal.clone());
    for credential in both {
        let lines = until("both to die", || async {
            executor.drain().await.unwrap();
            all_closed(&journal, credential, 1).await
        })
        .await;
        let Verdict::Dead { residue, .. } = &lines[0].verdict else { panic!("{:?}", lines[0].verdict) };
        assert!(!residue.contains(&Residue::NotFenced), "{residue:?}");
    }
    for value in [&leaver.ours.victim.old.1, &leaver.ours.bystander] {
        assert!(!leaver.is_known(value).await);
    }
    for token in &leaver.tokens {
        assert!(!leaver.admin().token_works(token).await);
    }
    leaver.assert_only_fenced("while it stands").await;
    // Of the two only the first found anything there.
    assert_eq!(journal.fences(i64::MAX, 9).await.unwrap().len(), 1);
    let intake = stage.intake(journal.clone());
    assert_eq!(fences::tick(&intake).await.unwrap(), 0, "it is not over");
    let clock = Simulated::at(now_ms());
    let intake = Intake { clock: clock.clone(), trust: Some(ClockTrust::new(clock.clone())), ..intake };
    clock.step_wall_ms(31 * DAY_MS);
    assert_eq!(fences::tick(&intake).await.unwrap(), 0, "by a clock that is not believed it is not over");
    lifted(&stage, &journal, until_ms).await;
    assert_eq!(leaver.role().await, leaver.before);
    let (_, fresh) = leaver.admin().secret_id(&leaver.ours.mount, json!({})).await;
    assert!(leaver.ours.log_in(&fresh).await.is_some(), "the role lets in again");
    assert!(!leaver.entity_is_disabled().await);
    // No secret of any of it is in the journal or told.
    let lines = journal.cases(Filter { closed: true, ..Filter::default() }).await.unwrap();
    let mut rows = format!("{:?}", journal.outbox(0, 1_000).await.unwrap());
    for line in lines {
        rows.push_str(&format!("{:?}", journal.timeline(line.case.id).await.unwrap()));
    }
    let told: String = journal
        .outbox(0, 1_000)
        .await
        .unwrap()
        .iter()
        .map(|row| String::from_utf8_lossy(&row.body).into_owned())
        .collect();
    for secret in leaver.tokens.iter().chain([&leaver.ours.victim.old.1, &leaver.ours.bystander]) {
        assert!(!rows.contains(secret.as_str()) && !told.contains(secret.as_str()));
    }
}

async fn a_fence_that_somebody_changed_is_left_alone_and_said(store: Store) {
    let over = Over::new(Ground::new().await.leaver().await).await;
    let stage = Stage::new(store, over.registry());
    let journal = stage.open().await;
    let theirs = json!({"token_bound_cidrs": ["127.0.0.0/8"]});
    let role = format!("auth/{}/role/ci", over.leaver.ours.mount);
    over.leaver.admin().done("POST", &format!("{role}/token-bound-cidrs"), theirs).await;
    let now = over.leaver.role().await;
    over.open_case(journal.as_ref()).await;
    let held = |line: &CaseLine| matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Refused });
    let line = stage.run_until(&journal, over.credential(), held).await;
    assert_eq!(over.leaver.role().await, now, "not even the half of it that is ours");
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    assert!(format!("{timeline:?}").contains("somebody has changed the fence"));
}

async fn an_operator_takes_a_fence_off_by_the_case_of_whichever_value(store: Store) {
    let leaver = Ground::new().await.leaver().await;
    let stage = Stage::new(store, leaver.registry.clone());
    let journal = stage.open().await;
    record(journal.as_ref(), vec![known(&leaver.other), found(&leaver.other, Some(now_ms() + DAY_MS))]).await;
    let line = stage.run_until_closed(&journal, &leaver.other).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    leaver.assert_only_fenced("of a secret_id alone").await;
    assert_eq!(identity_of(&leaver.other), *leaver.credential());
    let operator = Operator {
        intake: stage.intake(journal.clone()),
        reach: curfew::reach::kept::Kept::new(journal.clone(), Vec::new()),
        freeze_file: std::env::temp_dir().join(unique("freeze")),
    };
    let request = Request::Rollback { id: line.case.id.to_string(), by: "ann".into(), reason: "it stays".into() };
    let reply = operator.answer(request).await;
    assert!(matches!(reply, Reply::Ok(_)), "{reply:?}");
    let back = stage.run_until_closed(&journal, leaver.credential()).await;
    assert!(matches!(back.verdict, Verdict::RolledBack { .. }), "{:?}", back.verdict);
    assert_eq!(leaver.role().await, leaver.before);
    assert!(journal.fences(i64::MAX, 9).await.unwrap().is_empty(), "and nothing is left to end");
    // Nobody fences by hand what nothing would end.
    let named = curfew::scope::permissions(["fence:token_bound_cidrs"]).unwrap();
    let request = Request::Reduce {
        credential: leaver.credential().clone(),
        permissions: named,
        notice_ms: 0,
        tenant: "default".into(),
        by: "ann".into(),
        reason: "r".into(),
    };
    assert!(matches!(operator.answer(request).await, Reply::Refused(_)));
}

async fn where_nobody_can_fence_the_values_die_all_the_same(store: Store) {
    let ground = Ground::new().await;
    // No login for it; one that names others; one whose policy does not reach so far; one that may not even look.
    for case in 0..4 {
        let leaver = ground.leaver().await;
        let mut registry = leaver.registry.clone();
        match case {
            0 => {
                registry = leaver.ours.victim.registry.clone();
                registry.may_reduce("test", Mode::Enforce, &[format!("{}/ci", leaver.ours.mount)]);
            }
            1 => registry.may_reduce("test", Mode::Enforce, &["approle/others".to_owned()]),
            _ => {
                let (from, to) = ("auth/approle/role/etl", format!("auth/{}/role/ci", leaver.ours.mount));
                let policy = std::fs::read_to_string(crate::repository().join("deploy/vault/reduce.hcl")).unwrap();
                let lines = policy.lines().filter(|line| !line.contains("bound-cidrs")).collect::<Vec<_>>().join("\n");
                let name = unique("reduce");
                let lines = if case == 2 { lines.replace(from, &to) } else { lines };
                let body = json!({ "policy": lines });
                leaver.admin().done("PUT", &format!("sys/policies/acl/{name}"), body).await;
                let token = leaver.admin().token_of(&[&name]).await;
                let mut settings = VaultSettings::new(&leaver.admin().address, Auth::Token(token.into()));
                settings.scopes = vec![format!("{}/ci", leaver.ours.mount)];
                let vault = Vault::open("test", &settings, Mode::Enforce, System::shared()).await.unwrap();
                registry.add(Arc::new(VaultScope::new(vault)));
            }
        }
        let stage = Stage::new(store.fresh(), registry);
        let journal = stage.open().await;
        let until_ms = Some(now_ms() + DAY_MS);
        record(journal.as_ref(), vec![registered(&leaver.ours.victim, 1), found(leaver.credential(), until_ms)]).await;
        let line = stage.run_until_closed(&journal, leaver.credential()).await;
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{case}: {:?}", line.verdict) };
        assert!(residue.contains(&Residue::NotFenced), "{case}: that is said: {residue:?}");
        assert_eq!(leaver.role().await, leaver.before, "{case}");
        assert!(!leaver.entity_is_disabled().await, "{case}");
        assert!(!leaver.is_known(&leaver.ours.victim.old.1).await, "{case}");
        let fences = journal.fences(i64::MAX, 9).await.unwrap();
        assert!(fences.is_empty(), "{case}: what was refused before anything was written has no end: {fences:?}");
    }
}

/// An entity that somebody else logs in as; and one that our login may not change.
async fn an_entity_that_is_not_closed_keeps_nobody_alive_and_is_said(store: Store) {
    let ground = Ground::new().await;
    for is_shared in [true, false] {
        let leaver = ground.leaver().await;
        let mut registry = leaver.registry.clone();
        let users = unique("userpass");
        if is_shared {
            leaver.admin().done("POST", &format!("sys/auth/{users}"), json!({"type": "userpass"})).await;
            leaver.admin().done("POST", &format!("auth/{users}/users/ana"), json!({"password": "of-ana"})).await;
            let (_, auth) = leaver.admin().call("GET", "sys/auth", Value::Null).await;
            let accessor = auth["data"][format!("{users}/")]["accessor"].clone();
            let alias =
                json!({"name": "ana", "canonical_id": leaver.entity().await.0["id"], "mount_accessor": accessor});
            leaver.admin().done("POST", "identity/entity-alias", alias).await;
        } else {
            let policy = std::fs::read_to_string(crate::repository().join("deploy/vault/reduce.hcl")).unwrap();
            let role = format!("auth/{}/role/ci", leaver.ours.mount);
            let mounted = format!("auth/{}\"", leaver.ours.mount);
            let policy = policy.replace("auth/approle/role/etl", &role).replace("auth/approle\"", &mounted);
            let line = "path \"identity/entity/id/+\"";
            assert!(policy.contains(line));
            let name = unique("reduce");
            let policy = policy.replace(line, "path \"identity/entity/id/another\"");
            leaver.admin().done("PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await;
            let token = leaver.admin().token_of(&[&name]).await;
            let mut settings = VaultSettings::new(&leaver.admin().address, Auth::Token(token.into()));
            settings.scopes = vec![format!("{}/ci", leaver.ours.mount)];
            let vault = Vault::open("test", &settings, Mode::Enforce, System::shared()).await.unwrap();
            registry.add(Arc::new(VaultScope::new(vault)));
        }
        let stage = Stage::new(store.fresh(), registry);
        let journal = stage.open().await;
        let until_ms = now_ms() + DAY_MS;
        let found = found(leaver.credential(), Some(until_ms));
        record(journal.as_ref(), vec![registered(&leaver.ours.victim, 1), found]).await;
        let line = stage.run_until_closed(&journal, leaver.credential()).await;
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{is_shared}: {:?}", line.verdict) };
        assert!(residue.contains(&Residue::EntityOpen), "{is_shared}: that is said: {residue:?}");
        assert!(!residue.contains(&Residue::NotFenced), "{is_shared}: the role is closed: {residue:?}");
        assert!(leaver.is_fenced().await && !leaver.entity_is_disabled().await, "{is_shared}");
        leaver.assert_shut("beside an open entity").await;
        for token in &leaver.tokens {
            assert!(!leaver.admin().token_works(token).await, "{is_shared}: a token of the role lives");
        }
        if is_shared {
            let path = format!("auth/{users}/login/ana");
            let (status, told) = leaver.admin().call("POST", &path, json!({"password": "of-ana"})).await;
            assert_eq!(status, 200, "who logs in as the same entity goes on: {told}");
            let token = told["auth"]["client_token"].as_str().unwrap();
            assert!(leaver.admin().token_works(token).await);
        }
        let fences = journal.fences(i64::MAX, 9).await.unwrap();
        let held: Vec<String> = recorded(&fences[0]).into_iter().map(|(what, _)| what).collect();
        assert_eq!(held, ["fence:secret_id_bound_cidrs", "fence:token_bound_cidrs"], "{is_shared}");
        lifted(&stage, &journal, until_ms).await;
        assert_eq!(leaver.role().await, leaver.before, "{is_shared}");
    }
}

async fn an_entity_that_was_disabled_before_stays_so(store: Store) {
    let leaver = Ground::new().await.leaver().await;
    leaver.disable_entity().await;
    let stage = Stage::new(store, leaver.registry.clone());
    let journal = stage.open().await;
    let until_ms = now_ms() + DAY_MS;
    let found = found(leaver.credential(), Some(until_ms));
    record(journal.as_ref(), vec![registered(&leaver.ours.victim, 1), found]).await;
    let line = stage.run_until_closed(&journal, leaver.credential()).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(!residue.contains(&Residue::EntityOpen) && !residue.contains(&Residue::NotFenced), "{residue:?}");
    leaver.assert_only_fenced("of one that was disabled").await;
    let fences = journal.fences(i64::MAX, 9).await.unwrap();
    assert!(recorded(&fences[0]).iter().all(|(what, _)| what != "fence:entity"), "{fences:?}");
    lifted(&stage, &journal, until_ms).await;
    assert_eq!(leaver.role().await, leaver.before);
    assert!(leaver.entity_is_disabled().await, "who disabled it was not us");
}

async fn a_value_of_a_fenced_role_that_leaked_is_replaced_and_the_new_one_lets_in_afterwards(store: Store) {
    let over = Over::new(Ground::new().await.leaver().await).await;
    let leaver = &over.leaver;
    let stage = Stage::new(store, leaver.registry.clone());
    let journal = stage.open().await;
    let victim = &leaver.ours.victim;
    open_case(journal.as_ref(), victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, leaver.credential()).await;
    let Verdict::Dead { level, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(*level, Level::Issuer, "no login proves anything there");
    assert!(!leaver.is_known(&victim.old.1).await, "the leaked value is dead");
    let (_, _, new) = victim.stored().await;
    assert_ne!(new, victim.old.1);
    assert!(leaver.is_known(&new).await && leaver.ours.log_in(&new).await.is_none(), "it waits behind the fence");
    leaver.assert_only_fenced("of one that was rotated meanwhile").await;
    over.open_case(journal.as_ref()).await;
    let executor = stage.executor(journal.clone());
    let lines = until("the end of the fence", || async {
        executor.drain().await.unwrap();
        all_closed(&journal, leaver.credential(), 2).await
    })
    .await;
    assert!(lines.iter().any(|line| matches!(line.verdict, Verdict::RolledBack { .. })), "{lines:?}");
    assert!(leaver.ours.log_in(&new).await.is_some(), "what consumers read lets in again");
}
