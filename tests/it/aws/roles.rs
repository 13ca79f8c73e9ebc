//! What a user became by assuming roles outlives its key: it is named, with its end and with who else may become it; and denied
//! where a rule names the role, and nowhere else.

use std::num::NonZeroU32;

use curfew::case::derived::{Derived, Others, Says};
use curfew::case::plan::{Act, ROLES};
use curfew::case::record::{FailureKind, KilledBy, Level, Record, Residue, Verdict};
use curfew::case::{HoldReason, Trigger};
use curfew::clock::Simulated;
use curfew::connector::Subject;
use curfew::connector::aws::Account;
use curfew::event::Event;
use curfew::inventory::aws::scan;
use curfew::journal::{CaseLine, Filter, Journal};
use curfew::outcome;
use serde_json::Value;

use super::dead::leaked;
use super::proxy::Fault;
use super::*;
use crate::endure::{self, Trial};
use crate::stage::{Stage, case_of, now_ms, record};
use crate::store::Store;
use crate::vault::about;

const HOUR_MS: i64 = 3_600_000;

over_each! {
    sqlite: a_key_whose_role_is_cut_survives_every_kill;
    postgres: a_key_whose_role_is_cut_survives_every_fault
}

over_both! {
    a_role_s_policy_that_is_over_is_taken_off_by_whoever_looks_then,
    what_only_observes_says_whom_it_would_cut,
    roles_that_cannot_be_read_are_not_none,
}

fn trust(who: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":"{who}"}},"Action":"sts:AssumeRole"}}]}}"#
    )
}

fn assumes(arns: &[String]) -> String {
    let resources = serde_json::to_string(arns).unwrap();
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"sts:AssumeRole","Resource":{resources}}}]}}"#
    )
}

/// A user that may assume two roles, of which a rule names one.
struct Reach<'a> {
    moto: &'a Moto,
    victim: Victim,
    credential: CredentialId,
    settings: AwsSettings,
    registry: Registry,
    cut: String,
    spared: String,
}

impl<'a> Reach<'a> {
    async fn new(moto: &'a Moto) -> Self {
        let victim = moto.victim().await;
        let account = format!("arn:aws:iam::{ACCOUNT}:root");
        let cut = role(moto, &unique("deploy"), &account, 7_200).await;
        let spared = role(moto, &unique("report"), &account, 3_600).await;
        may(moto, victim.name(), &assumes(&[cut.clone(), spared.clone()])).await;
        let settings = AwsSettings { cut_roles: vec![cut.clone()], ..moto.settings() };
        let registry = moto.registry_of(&settings).await;
        Self { moto, credential: victim.credential(), victim, settings, registry, cut, spared }
    }

    fn at(&self, place: &str) -> Subject {
        Subject {
            credential: self.credential.clone(),
            place: Some(place.to_owned()),
            ..about(Kind::AwsAccessKey, "x/y")
        }
    }

    async fn policy_name(&self) -> String {
        format!("curfew-sessions-{}", self.victim.key.id)
    }

    /// As the administrator sees it: the one role has one policy of ours, no other has any.
    async fn assert_cut(&self, what: &str) {
        assert_eq!(self.moto.lets_in(&self.victim, &self.victim.key.id).await, Some(false), "{what}");
        assert!(self.moto.denied(&self.victim).await.is_some(), "{what}: its own sessions");
        assert_eq!(on(self.moto, &self.cut).await, [self.policy_name().await], "{what}");
        assert_eq!(on(self.moto, &self.spared).await, Vec::<String>::new(), "{what}: a role that no rule names");
        let denied = document(self.moto, &self.cut, &self.policy_name().await).await;
        let one = &denied["Statement"][0];
        assert_eq!((&one["Effect"], &one["Action"], &one["Resource"]), (&"Deny".into(), &"*".into(), &"*".into()));
        let cut: jiff::Timestamp =
            one["Condition"]["DateLessThan"]["aws:TokenIssueTime"].as_str().and_then(|at| at.parse().ok()).unwrap();
        assert!((now_ms() - 120_000..now_ms() + 5_000).contains(&cut.as_millisecond()), "{what}: {denied}");
    }
}

/// A role of a test, by its ARN.
async fn role(moto: &Moto, name: &str, who: &str, lasts_s: i32) -> String {
    let made = moto.root.create_role().role_name(name).path("/ci/").max_session_duration(lasts_s);
    let made = made.assume_role_policy_document(trust(who)).send().await.unwrap();
    made.role().unwrap().arn().to_owned()
}

async fn may(moto: &Moto, user: &str, policy: &str) {
    let put = moto.root.put_user_policy().user_name(user).policy_name("assumes").policy_document(policy);
    put.send().await.unwrap();
}

/// The policies on a role.
async fn on(moto: &Moto, arn: &str) -> Vec<String> {
    let name = arn.rsplit('/').next().unwrap();
    moto.root.list_role_policies().role_name(name).send().await.unwrap().policy_names().to_vec()
}

async fn document(moto: &Moto, arn: &str, policy: &str) -> Value {
    let name = arn.rsplit('/').next().unwrap();
    let found = moto.root.get_role_policy().role_name(name).policy_name(policy).send().await.unwrap();
    let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What is told of a case.
async fn told(journal: &Arc<dyn Journal>, kind: outcome::Kind) -> Value {
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let row = rows.iter().rfind(|row| row.kind == kind).unwrap();
    serde_json::from_slice::<Value>(&row.body).unwrap()["data"].clone()
}

async fn records(journal: &Arc<dyn Journal>, line: &CaseLine) -> Vec<Record> {
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    timeline.records.into_iter().flat_map(|(_, _, records)| records).collect()
}

impl Trial for Reach<'_> {
    fn credential(&self) -> &CredentialId {
        &self.credential
    }

    fn registry(&self) -> Registry {
        self.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        leaked(journal, &self.victim).await;
    }

    async fn died(&self, _what: &str) -> Registry {
        self.moto.registry_of(&self.settings).await
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        let Verdict::Dead { level, by, residue, .. } = &line.verdict else { panic!("{what}: {:?}", line.verdict) };
        assert_eq!((*level, *by), (Level::Issuer, KilledBy::Curfew), "{what}");
        assert!(residue.contains(&Residue::Derived), "{what}: a role that no rule names lives on: {residue:?}");
        assert!(!residue.contains(&Residue::DerivedUnknown), "{what}: all could be read: {residue:?}");
        self.assert_cut(what).await;
        let told = told(journal, outcome::Kind::Outcome).await;
        assert_eq!((&told["derived"]["whole"], &told["derived"]["more"]), (&true.into(), &0.into()), "{what}");
        let roles = told["derived"]["roles"].as_array().unwrap();
        let named: Vec<_> = roles.iter().map(|role| role["role"].as_str().unwrap()).collect();
        assert_eq!(named, [&self.cut, &self.spared], "{what}: the one that is cut first");
        assert_eq!((&roles[0]["lasts_ms"], &roles[1]["lasts_ms"]), (&7_200_000.into(), &3_600_000.into()), "{what}");
        assert!(roles.iter().all(|role| role["lasts_by"] == "role"), "{what}: {roles:?}");
        assert!(roles[0]["denied_before"].is_string() && roles[1]["denied_before"].is_null(), "{what}: {roles:?}");
        // Curfew's administrator may assume all of them.
        assert!(roles.iter().all(|role| role["others"] == 1 && role["others_at_least"] == true), "{what}: {roles:?}");
        let last_ms = line.case.state.series.last_ms.unwrap();
        for role in roles {
            let over: jiff::Timestamp = role["over_at"].as_str().unwrap().parse().unwrap();
            assert_eq!(over.as_millisecond(), last_ms + role["lasts_ms"].as_i64().unwrap(), "{what}");
        }
    }
}

async fn a_key_whose_role_is_cut_survives_every_kill(store: Store) {
    let moto = Moto::start().await;
    endure::every_kill(&store, 5, async || Reach::new(&moto).await).await;
}

async fn a_key_whose_role_is_cut_survives_every_fault(store: Store) {
    let moto = Moto::start().await;
    endure::every_fault(&store, 5, async || Reach::new(&moto).await).await;
}

/// As the connector sees it.
async fn derived(reach: &Reach<'_>) -> Derived {
    let connector = reach.moto.connector(&reach.settings).await;
    connector.observe(&reach.at(ROLES)).await.unwrap().derived.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_told_with_its_end_and_with_who_else_may_become_it() {
    let moto = Moto::start().await;
    let mut reach = Reach::new(&moto).await;
    let admin = Others { count: 1, at_least: true };
    let seen = derived(&reach).await;
    assert_eq!((seen.roles.len(), seen.more, seen.whole), (2, 0, true), "{seen:?}");
    let cut = seen.role(&reach.cut).unwrap();
    assert_eq!((cut.lasts_ms, cut.by, cut.others, cut.denied_ms), (2 * HOUR_MS, Says::Role, admin, None));

    // One more user, a group's member, and a role that goes on to another.
    let other = moto.victim().await;
    may(&moto, other.name(), &assumes(std::slice::from_ref(&reach.cut))).await;
    let next = role(&moto, &unique("next"), &reach.cut, 3_600).await;
    let seen = derived(&reach).await;
    assert_eq!(seen.role(&reach.cut).unwrap().others, Others { count: 2, at_least: true });
    assert!(!seen.whole && seen.role(&next).is_none(), "whose sessions are renewed from the first one's: {seen:?}");

    // Named by the role itself, without a policy.
    let arn = format!("arn:aws:iam::{ACCOUNT}:user/{}", reach.victim.full);
    let named = role(&moto, &unique("named"), &arn, 43_200).await;
    let seen = derived(&reach).await;
    let by_name = seen.role(&named).unwrap();
    assert_eq!((by_name.lasts_ms, by_name.others), (12 * HOUR_MS, Others::default()), "nobody else");

    // More than are named one by one: what a rule names comes first.
    for _ in 0..18 {
        role(&moto, &unique("alot"), &arn, 3_600).await;
    }
    let last = role(&moto, "zzz", &arn, 3_600).await;
    reach.settings.cut_roles = vec![last.clone()];
    let seen = derived(&reach).await;
    assert_eq!((seen.roles.len(), seen.more, &seen.roles[0].name), (16, 6, &last));

    // Without the right to ask for its limit it is AWS's.
    let gone = moto.root.delete_user_policy().user_name("curfew").policy_name("cuts").send();
    gone.await.unwrap();
    let looks = policy("reach.json");
    moto.root.put_user_policy().user_name("curfew").policy_name("roles").policy_document(looks).send().await.unwrap();
    let seen = derived(&reach).await;
    assert!(seen.roles.iter().all(|role| (role.lasts_ms, role.by) == (12 * HOUR_MS, Says::Limit)), "{seen:?}");
    assert_eq!(moto.proxy.changes(), [], "it only looked");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_role_that_a_rule_names_is_touched_and_never_our_own() {
    let moto = Moto::start().await;
    let reach = Reach::new(&moto).await;
    let connector = moto.connector(&reach.settings).await;
    let refused = async |connector: &Arc<dyn Connector>, subject: &Subject, act: Act| {
        let failure = connector.perform(act, subject).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{}", failure.note);
    };
    for act in [Act::RevokeDerived, Act::Lift] {
        refused(&connector, &reach.at(&reach.spared), act).await;
        refused(&connector, &reach.at(&reach.cut.replace("/ci/", "/other/")), act).await;
        refused(&connector, &reach.at("*"), act).await;
    }
    // A rule whose role was made anew elsewhere since.
    let moved = reach.cut.replace("/ci/", "/other/");
    let settings = AwsSettings { cut_roles: vec![moved.clone()], ..reach.settings.clone() };
    refused(&moto.connector(&settings).await, &reach.at(&moved), Act::RevokeDerived).await;
    // A user that is not ours.
    let other = moto.user("prod/payments").await;
    let subject = Subject { credential: other.credential(), ..reach.at(&reach.cut) };
    refused(&connector, &subject, Act::RevokeDerived).await;

    // Our own login is a session of a role that the rule names.
    let own = role(&moto, "curfew-login", "*", 3_600).await;
    for file in ["curfew.json", "roles.json", "cuts-roles.json"] {
        let put = moto.root.put_role_policy().role_name("curfew-login").policy_name(file);
        put.policy_document(policy(file)).send().await.unwrap();
    }
    let sts = aws_sdk_sts::Client::new(&config(moto.port, &moto.admin));
    let session = sts.assume_role().role_arn(&own).role_session_name("s").send().await.unwrap();
    let session = session.credentials().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
        session.access_key_id(),
        session.secret_access_key(),
        session.session_token()
    );
    std::fs::write(&file, text).unwrap();
    let cut_roles = vec![own.clone(), reach.cut.clone()];
    let settings = AwsSettings { login: Login::File(file), cut_roles, ..reach.settings.clone() };
    let as_role = moto.connector(&settings).await;
    as_role.self_check().await.unwrap();
    refused(&as_role, &reach.at(&own), Act::RevokeDerived).await;
    let of_policies = |(action, _): &(String, String)| action.ends_with("RolePolicy");
    assert!(!moto.proxy.changes().iter().any(of_policies), "nothing was even asked");
    // The control: another one it may.
    as_role.perform(Act::RevokeDerived, &reach.at(&reach.cut)).await.unwrap();
    assert_eq!(on(&moto, &reach.cut).await.len(), 1);
    assert_eq!(on(&moto, &own).await.len(), 3, "as before");

    // There is no such role any more: nor is any session of it.
    moto.root
        .delete_role_policy()
        .role_name(reach.cut.rsplit('/').next().unwrap())
        .policy_name(reach.policy_name().await)
        .send()
        .await
        .unwrap();
    moto.root.delete_role().role_name(reach.cut.rsplit('/').next().unwrap()).send().await.unwrap();
    let failure = connector.perform(Act::RevokeDerived, &reach.at(&reach.cut)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Gone);
}

/// Whoever may not assume it has opened no session of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_the_user_may_not_assume_is_not_cut_though_a_rule_names_it() {
    let moto = Moto::start().await;
    let reach = Reach::new(&moto).await;
    may(&moto, reach.victim.name(), &assumes(std::slice::from_ref(&reach.spared))).await;
    let stage = Stage::new(Store::sqlite(), reach.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &reach.victim).await;
    let line = stage.run_until_closed(&journal, &reach.credential).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    assert_eq!(on(&moto, &reach.cut).await, Vec::<String>::new());
    let skipped = |record: &Record| matches!(record, Record::Skipped { residue: None, .. });
    assert!(records(&journal, &line).await.iter().any(skipped));
}

async fn what_only_observes_says_whom_it_would_cut(store: Store) {
    let moto = Moto::start().await;
    let mut reach = Reach::new(&moto).await;
    let realm = reach.registry.realm_of("aws").unwrap().clone();
    reach.registry.add_realm(Realm { mode: Mode::Observe, ..realm });
    let stage = Stage::new(store, reach.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &reach.victim).await;
    let clock = curfew::clock::Simulated::at(crate::stage::now_ms() + 5_000);
    let executor = stage.executor_at(journal.clone(), &clock);
    let line = until("the hold", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), &reach.credential).await?;
        matches!(line.verdict, Verdict::Alive { by: HoldReason::Observe }).then_some(line)
    })
    .await;
    let plan = line.case.state.plan.as_ref().unwrap();
    assert!(plan.steps.iter().any(|step| step.act == Act::RevokeDerived && step.place.as_ref() == Some(&reach.cut)));
    let told = told(&journal, outcome::Kind::CredentialState).await;
    let role = &told["derived"]["roles"][0];
    assert_eq!((&role["role"], &role["others"]), (&reach.cut.as_str().into(), &1.into()), "{told}");
    assert!(role["over_at"].is_null() && role["denied_before"].is_null() && told["residue"].is_null(), "{told}");
    // Looked at again and again, the list is read once.
    for _ in 0..5 {
        executor.drain().await.unwrap();
        clock.advance_ms(1_000);
    }
    let lists = moto.proxy.calls().iter().filter(|(call, _)| call == "GetAccountAuthorizationDetails").count();
    assert_eq!((lists, moto.proxy.changes()), (1, Vec::new()));
    assert_eq!((on(&moto, &reach.cut).await, moto.policies(&reach.victim).await.len()), (Vec::new(), 1));
}

async fn roles_that_cannot_be_read_are_not_none(store: Store) {
    let moto = Moto::start().await;
    for (fault, denied) in [
        (Fault::None, true),
        (Fault::Says("GetAccountAuthorizationDetails", axum::http::StatusCode::SERVICE_UNAVAILABLE, ""), false),
    ] {
        let reach = Reach::new(&moto).await;
        if denied {
            let gone = moto.root.delete_user_policy().user_name("curfew").policy_name("roles");
            gone.send().await.unwrap();
        } else {
            let looks = moto.root.put_user_policy().user_name("curfew").policy_name("roles");
            looks.policy_document(policy("roles.json")).send().await.unwrap();
        }
        moto.proxy.is(fault);
        let stage = Stage::new(store.fresh(), reach.registry.clone());
        let journal = stage.open().await;
        leaked(journal.as_ref(), &reach.victim).await;
        let line = stage.run_until_closed(&journal, &reach.credential).await;
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
        assert!(residue.contains(&Residue::DerivedUnknown), "{residue:?}");
        assert_eq!(moto.lets_in(&reach.victim, &reach.victim.key.id).await, Some(false), "it was no reason to wait");
        assert!(told(&journal, outcome::Kind::Outcome).await.get("derived").is_none(), "never an empty list");
        assert_eq!(on(&moto, &reach.cut).await, Vec::<String>::new(), "nobody knows whether it was assumed");
        moto.proxy.is(Fault::None);
    }
}

/// The policy may not be put: that stands in the verdict.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_be_cut_lives_on_and_that_is_said() {
    let moto = Moto::start().await;
    let reach = Reach::new(&moto).await;
    may(&moto, reach.victim.name(), &assumes(std::slice::from_ref(&reach.cut))).await;
    moto.proxy.is(Fault::Says("PutRolePolicy", axum::http::StatusCode::CONFLICT, "LimitExceeded"));
    let stage = Stage::new(Store::sqlite(), reach.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &reach.victim).await;
    let line = stage.run_until_closed(&journal, &reach.credential).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(residue.contains(&Residue::Derived) && !residue.contains(&Residue::DerivedUnknown), "{residue:?}");
    let told = told(&journal, outcome::Kind::Outcome).await;
    assert!(told["derived"]["roles"][0]["denied_before"].is_null(), "{told}");
    // Where it can be put, nothing of it is left.
    let other = Reach::new(&moto).await;
    may(&moto, other.victim.name(), &assumes(std::slice::from_ref(&other.cut))).await;
    moto.proxy.is(Fault::None);
    let stage = Stage::new(Store::sqlite(), other.registry.clone());
    let journal = stage.open().await;
    leaked(journal.as_ref(), &other.victim).await;
    let line = stage.run_until_closed(&journal, &other.credential).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!(*residue, [Residue::Disabled]);
}

/// What the inventory sees at this time, by a login of its own: the keys of which no session can be left.
async fn over_at(reach: &Reach<'_>, at_ms: i64) -> Vec<String> {
    let moto = reach.moto;
    let reader = moto.user(&format!("curfew/{}", unique("reader"))).await;
    let may = moto.root.put_user_policy().user_name(reader.name()).policy_name("own");
    may.policy_document(policy("inventory.json")).send().await.unwrap();
    let settings = AwsSettings { cut_roles: reach.settings.cut_roles.clone(), ..moto.settings_of(&reader.key) };
    let account = Account::open("aws", &settings, Simulated::at(at_ms)).await.unwrap();
    let (sender, mut listed) = tokio::sync::mpsc::channel(100);
    let scan = scan(&account, NonZeroU32::new(1_000).unwrap(), &sender).await;
    assert!(!scan.partial, "{:?}", scan.faults);
    drop(sender);
    let mut over = Vec::new();
    while let Some(held) = listed.recv().await {
        over.extend(held.over.iter().map(|key| key.id()));
    }
    over
}

async fn a_role_s_policy_that_is_over_is_taken_off_by_whoever_looks_then(store: Store) {
    let moto = Moto::start().await;
    let reach = Reach::new(&moto).await;
    let at = async |at_ms| aws::connect("aws", &reach.settings, Simulated::at(at_ms)).await.unwrap();
    let (now, subject) = (now_ms(), reach.at(&reach.cut));
    let begun = now - 13 * HOUR_MS;
    let put = at(begun).await.perform(Act::RevokeDerived, &subject).await.unwrap();
    assert_eq!(put.done_ms, Some(begun + super::SOON.window_ms));
    // A session lives 12 hours at the most, and clocks may differ.
    let late = at(begun + 12 * HOUR_MS).await;
    assert!(!late.observe(&subject).await.unwrap().lifts);
    late.perform(Act::Lift, &subject).await.unwrap();
    assert_eq!(on(&moto, &reach.cut).await.len(), 1);
    assert_eq!(Box::pin(over_at(&reach, begun + 12 * HOUR_MS)).await, Vec::<String>::new());
    // Whose it is stands in it: the user is there no more in any list.
    assert_eq!(Box::pin(over_at(&reach, now)).await, [reach.credential.id()]);

    // One that a person changed, and one of another key, stay.
    let name = reach.cut.rsplit('/').next().unwrap();
    let changed = document(&moto, &reach.cut, &reach.policy_name().await).await.to_string();
    let theirs = changed.replace("\"Action\":\"*\"", "\"Action\":\"s3:*\"");
    let other = moto.second_key(&reach.victim).await;
    for (policy, text) in [("their-own", &changed), (&*format!("curfew-sessions-{}", other.id), &theirs)] {
        let put = moto.root.put_role_policy().role_name(name).policy_name(policy).policy_document(text);
        put.send().await.unwrap();
    }
    assert_eq!(Box::pin(over_at(&reach, now)).await, [reach.credential.id()]);

    at(now).await.perform(Act::Disable, &Subject { place: None, ..subject.clone() }).await.unwrap();
    let stage = Stage::new(store, reach.registry.clone());
    let journal = stage.open().await;
    record(journal.as_ref(), vec![Event::sessions_over("default".into(), reach.credential.clone(), now)]).await;
    let line = stage.run_until_closed(&journal, &reach.credential).await;
    assert_eq!(line.case.directive.trigger, Trigger::Reconcile);
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    let mut left = on(&moto, &reach.cut).await;
    left.sort();
    let mut wanted = vec![format!("curfew-sessions-{}", other.id), "their-own".to_owned()];
    wanted.sort();
    assert_eq!(left, wanted);
    assert_eq!(Box::pin(over_at(&reach, now)).await, Vec::<String>::new());
    // Nothing to take off, nothing is begun.
    let filter = Filter { credential: Some(reach.credential.clone()), closed: true, ..Filter::default() };
    let begun = |record: &Record| matches!(record, Record::Started { .. });
    assert_eq!(records(&journal, &line).await.iter().filter(|record| begun(record)).count(), 1, "the one lift");
    assert_eq!(journal.cases(filter).await.unwrap().len(), 1);
}
