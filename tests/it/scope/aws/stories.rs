//! What happens amid a reduction at AWS: pages that fail, throttles, lists that are late, what is somebody else's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use curfew::case::HoldReason;
use curfew::case::record::{Residue, Verdict};
use curfew::clock::System;
use curfew::connector::aws::scope;
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::scope::{Permission, permissions};
use serde_json::json;

use super::super::{Identity as _, is_held, reduce, registry, restore, run_until};
use super::{Bot, allows};
use crate::aws::proxy::Fault;
use crate::aws::{Moto, policy};
use crate::stage::{Stage, record};
use crate::store::Store;
use crate::world::unique;

/// A stage and an order to take `names` from the bot.
async fn ordered(bot: &Bot, takes: Vec<Permission>) -> (Stage, Arc<dyn curfew::journal::Journal>) {
    let stage = Stage::new(Store::sqlite(), registry(bot, Mode::Enforce));
    let journal = stage.open().await;
    record(journal.as_ref(), vec![reduce(bot.credential(), takes, None)]).await;
    (stage, journal)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_may_is_tried_and_asked() {
    let (_moto, bot) = Bot::alone().await;
    assert!(bot.own.list_groups().send().await.is_ok());
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    let Verdict::Reduced { taken: 5, residue, sightings, .. } = line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!((residue, sightings), (Vec::new(), 4), "a series over the settle window");
    let before = line.case.state.cutting.before.unwrap();
    assert_eq!((before.held.len(), before.rest_count), (5, 3), "a policy, one of its own, a group");
    assert!(bot.own.list_groups().send().await.is_err(), "by the group that it left");
    let asked = async |action: &str| {
        let arn = format!("arn:aws:iam::123456789012:user/{}", bot.credential.id());
        let call = bot.root.simulate_principal_policy().policy_source_arn(arn).action_names(action);
        call.send().await.unwrap().evaluation_results()[0].eval_decision().as_str().to_owned()
    };
    assert_eq!(asked("s3:DeleteObject").await, "explicitDeny", "the policy that others hold still allows it");
    assert_eq!((asked("s3:GetObject").await, asked("iam:GetUser").await), ("allowed".into(), "allowed".into()));
    bot.assert_works("reduced").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_fails_ends_the_look_and_nothing_is_taken() {
    let (moto, bot) = Bot::alone().await;
    for _ in 0..100 {
        policy_of(&bot, "sqs:*").await;
    }
    let before = bot.state().await;
    moto.proxy.is(Fault::SaysAfter(1, "ListAttachedUserPolicies", StatusCode::BAD_REQUEST, "Throttling"));
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    run_until(&stage, &journal, bot.credential(), |line| line.case.state.attempts > 2).await;
    assert_eq!((bot.state().await, moto.proxy.changes().len()), (before.clone(), asked_who(&moto)), "nothing is taken");
    moto.proxy.is(Fault::None);
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert!(matches!(line.verdict, Verdict::Reduced { taken: 5, .. }), "{:?}", line.verdict);
    assert_eq!(line.case.state.cutting.before.unwrap().rest_count, 103, "both pages");
    assert_eq!(bot.state().await, bot.without(&before));
}

/// Calls that change nothing, and are neither lists nor looks by their names.
fn asked_who(moto: &Moto) -> usize {
    moto.proxy.changes().iter().filter(|(call, _)| call == "GetCallerIdentity").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_throttled_half_way_goes_on_to_its_end() {
    let (moto, bot) = Bot::alone().await;
    let before = bot.state().await;
    for throttled in ["DetachUserPolicy", "PutUserPolicy"] {
        moto.proxy.is(Fault::Says(throttled, StatusCode::BAD_REQUEST, "Throttling"));
        let (stage, journal) = ordered(&bot, bot.takes()).await;
        let line = run_until(&stage, &journal, bot.credential(), |line| line.case.state.attempts > 1).await;
        assert_ne!(bot.state().await, before, "{throttled}: some of it is taken");
        assert_eq!(line.case.state.cutting.missing().len(), 5, "{throttled}: all of it may be");
        moto.proxy.is(Fault::None);
        let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
        let Verdict::Reduced { taken: 5, .. } = line.verdict else { panic!("{throttled}: {:?}", line.verdict) };
        assert_eq!(bot.state().await, bot.without(&before), "{throttled}");
        // And the way back.
        let call = if throttled == "PutUserPolicy" { throttled } else { "AttachUserPolicy" };
        moto.proxy.is(Fault::Says(call, StatusCode::BAD_REQUEST, "Throttling"));
        let journal = stage.store.fresh().open().await;
        record(journal.as_ref(), vec![restore(bot.credential(), line.case.state.cutting.taken.clone())]).await;
        run_until(&stage, &journal, bot.credential(), |line| line.case.state.attempts > 1).await;
        assert_ne!(bot.state().await, bot.without(&before), "{call}: some of it is given back");
        moto.proxy.is(Fault::None);
        run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
        assert_eq!(bot.state().await, before, "{call}");
    }
    // And each right of the login is used, and no other.
    let rights: serde_json::Value = serde_json::from_str(&policy("reduce.json")).unwrap();
    let rights =
        rights["Statement"].as_array().unwrap().iter().flat_map(|one| one["Action"].as_array().unwrap().clone());
    let rights: BTreeSet<String> = rights.map(|right| right.as_str().unwrap().to_owned()).collect();
    let calls = moto.proxy.calls().into_iter().filter(|(call, _)| call != "GetCallerIdentity");
    assert_eq!(calls.map(|(call, _)| format!("iam:{call}")).collect::<BTreeSet<_>>(), rights);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_late_are_waited_for() {
    let (moto, bot) = Bot::alone().await;
    let before = bot.state().await;
    moto.proxy.is(Fault::Stale(Duration::from_millis(150)));
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert!(matches!(line.verdict, Verdict::Reduced { taken: 5, .. }), "{:?}", line.verdict);
    assert_eq!(bot.state().await, bot.without(&before));
    let journal = stage.store.fresh().open().await;
    record(journal.as_ref(), vec![restore(bot.credential(), line.case.state.cutting.taken.clone())]).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert!(matches!(line.verdict, Verdict::RolledBack { .. }), "{:?}", line.verdict);
    assert_eq!(bot.state().await, before);
    // What is undone right after it was taken looks as if it were still there.
    bot.also_otherwise().await;
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Differs)).await;
    assert_eq!(bot.state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_to_take_is_refused_and_nothing_is_changed() {
    let (moto, bot) = Bot::alone().await;
    let refused = async |takes: &[&str], what: &str| {
        let before = bot.state().await;
        let (stage, journal) = ordered(&bot, permissions(takes).unwrap()).await;
        run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Refused)).await;
        assert_eq!(bot.state().await, before, "{what}");
    };
    let long: Vec<String> =
        (0..32).map(|n| format!("action:s3:{}{n:02}", "SomeActionOfAVeryLongNameThatFillsTheRoom".repeat(2))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    refused(&long, "more than IAM has room for").await;
    let most: Vec<String> =
        (0..24).map(|n| format!("action:s3:{}{n:02}", "LongNameThatFillsTheRoom".repeat(2))).collect();
    let most: Vec<&str> = most.iter().map(String::as_str).chain(["inline:extra"]).collect();
    let (stage, journal) = ordered(&bot, permissions(&most).unwrap()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert!(matches!(line.verdict, Verdict::Reduced { taken: 25, .. }), "what goes makes room: {:?}", line.verdict);
    let journal = stage.store.fresh().open().await;
    record(journal.as_ref(), vec![restore(bot.credential(), line.case.state.cutting.taken.clone())]).await;
    run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert_eq!(bot.overlay().await, None, "the last one takes the policy along");
    refused(&["inline:curfew-reduced"], "a policy of our own").await;
    refused(&["member:x"], "of another system").await;
    refused(&["action:s3:Get", "action:S3:GET", "group:x"], "one action twice").await;
    let theirs = allows("s3:*").replace("Allow", "Deny");
    bot.put("curfew-reduced", &theirs).await;
    refused(&["action:s3:DeleteObject", "inline:extra"], "a policy of our name that is somebody else's").await;
    bot.root.delete_user_policy().user_name(&bot.name).policy_name("curfew-reduced").send().await.unwrap();
    // IAM counts no white space; a case has room for so much of it.
    bot.put("extra", &format!("{}{}", allows("s3:Put*"), " ".repeat(curfew::scope::MAX_HOW_BYTES))).await;
    refused(&["inline:extra"], "it could not be recorded").await;
    bot.put("extra", &theirs).await;
    refused(&["inline:extra"], "it would give what it denies").await;
    let policy = bot.root.put_group_policy().group_name(&bot.group).policy_name("more").policy_document(&theirs);
    policy.send().await.unwrap();
    refused(&[&format!("group:{}", bot.group)], "the same of a group").await;
    bot.root
        .create_policy_version()
        .policy_arn(&bot.goes)
        .policy_document(&theirs)
        .set_as_default(true)
        .send()
        .await
        .unwrap();
    refused(&[&format!("managed:{}", bot.goes)], "the same of a managed policy").await;
    // Where our login lacks one right what was taken by the others is given back.
    let before = bot.state().await;
    let free = policy_of(&bot, "sqs:*").await;
    let with = bot.state().await;
    assert_ne!(before, with);
    moto.proxy.is(Fault::Says("PutUserPolicy", StatusCode::FORBIDDEN, "AccessDenied"));
    let takes = permissions([format!("managed:{free}").as_str(), "action:s3:DeleteObject"]).unwrap();
    let (stage, journal) = ordered(&bot, takes).await;
    run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Differs)).await;
    assert!(moto.proxy.calls().iter().any(|(call, _)| call == "DetachUserPolicy"), "half of it was taken");
    assert_eq!(bot.state().await, with);
}

/// Another managed policy that the bot has.
async fn policy_of(bot: &Bot, action: &str) -> String {
    let made = bot.root.create_policy().policy_name(unique("p")).policy_document(allows(action)).send().await;
    let arn = made.unwrap().policy.unwrap().arn.unwrap();
    bot.root.attach_user_policy().user_name(&bot.name).policy_arn(&arn).send().await.unwrap();
    arn
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_another_or_nobody_is_not_touched() {
    let (moto, bot) = Bot::alone().await;
    let seen = bot.connector.observe(&super::super::subject(&bot, Default::default())).await.unwrap();
    let held = seen.scope.unwrap().held;
    // Somebody made another user under the name.
    let iam = &bot.root;
    let again = async |path: &str| {
        iam.delete_user().user_name(&bot.name).send().await.unwrap();
        iam.create_user().user_name(&bot.name).path(path).send().await.unwrap();
    };
    for policy in ["work", "extra"] {
        iam.delete_user_policy().user_name(&bot.name).policy_name(policy).send().await.unwrap();
    }
    for arn in [&bot.goes, &bot.stays] {
        iam.detach_user_policy().user_name(&bot.name).policy_arn(arn).send().await.unwrap();
    }
    for group in [&bot.group, &bot.kept_group] {
        iam.remove_user_from_group().user_name(&bot.name).group_name(group).send().await.unwrap();
    }
    iam.delete_access_key().user_name(&bot.name).access_key_id(&bot.login.id).send().await.unwrap();
    again("/ci/").await;
    let empty = bot.state().await;
    let stage = Stage::new(Store::sqlite(), registry(&bot, Mode::Enforce));
    let journal = stage.open().await;
    record(journal.as_ref(), vec![restore(bot.credential(), held.clone())]).await;
    run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Refused)).await;
    assert_eq!(bot.state().await, empty, "nothing is given to a stranger");
    again("/elsewhere/").await;
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Refused)).await;
    assert_eq!(bot.state().await, empty, "nor taken from one at another path");
    iam.delete_user().user_name(&bot.name).send().await.unwrap();
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert_eq!(line.verdict, Verdict::NotFound);
    // Our own, and who is not named.
    let settings = moto.settings_of(&moto.login("curfew/itself", "reduce.json").await);
    let own = scope::connect("aws", &settings, System::shared()).await.unwrap();
    for (user, why) in [("curfew/itself", HoldReason::Protected), ("ci/somebody", HoldReason::Prefix)] {
        let id = CredentialId::new(Kind::AwsUser, "aws", user).unwrap();
        if why == HoldReason::Prefix {
            iam.create_user().user_name("somebody").path("/ci/").send().await.unwrap();
        }
        let mut registry = curfew::connector::Registry::default();
        registry.add(own.clone());
        registry.may_reduce("aws", Mode::Enforce, &["ci/bots/*".into(), "curfew/*".into()]);
        let stage = Stage::new(Store::sqlite(), registry);
        let journal = stage.open().await;
        record(journal.as_ref(), vec![reduce(&id, permissions(["action:s3:DeleteObject"]).unwrap(), None)]).await;
        run_until(&stage, &journal, &id, |line| is_held(line, why)).await;
    }
    let changed = |(call, _): &(String, String)| ["PutUserPolicy", "DetachUserPolicy"].contains(&call.as_str());
    assert!(!moto.proxy.calls().iter().any(changed));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_cases_of_one_user_have_a_policy_each() {
    let (_moto, bot) = Bot::alone().await;
    let before = bot.state().await;
    let (user, key) = (bot.credential().clone(), bot.by_key());
    let of_its_key = format!("curfew-reduced-{}", bot.login.id);
    let mut registry = registry(&bot, Mode::Enforce);
    registry.may_reduce("aws", Mode::Enforce, &[user.id()]);
    let stage = Stage::new(Store::sqlite(), registry);
    let journal = stage.open().await;
    let takes = |actions: &[&str]| permissions(actions).unwrap();
    let orders = vec![
        // What the user's policy allows by name stays, as far as the key's case is concerned.
        reduce(&user, takes(&["action:s3:DeleteObject", "action:iam:GetUser"]), None),
        reduce(&key, takes(&["action:s3:DeleteObject", "action:sts:AssumeRole"]), None),
    ];
    record(journal.as_ref(), orders).await;
    let of_user = run_until(&stage, &journal, &user, |line| line.closed_ms.is_some()).await;
    let of_key = run_until(&stage, &journal, &key, |line| line.closed_ms.is_some()).await;
    assert!(matches!(of_user.verdict, Verdict::Reduced { taken: 2, .. }), "{:?}", of_user.verdict);
    let Verdict::Reduced { taken: 2, residue, .. } = &of_key.verdict else { panic!("{:?}", of_key.verdict) };
    assert_eq!(*residue, [Residue::DerivedUnknown], "sessions of roles that it assumed before");
    let of_both = json!(["s3:DeleteObject", "sts:AssumeRole"]);
    assert_eq!(bot.overlay().await, Some(json!(["iam:GetUser", "s3:DeleteObject"])));
    assert_eq!(bot.denied(&of_its_key).await, Some(of_both.clone()));
    for (id, line, left) in [(&user, &of_user, Some(of_both)), (&key, &of_key, None)] {
        let journal = stage.store.fresh().open().await;
        record(journal.as_ref(), vec![restore(id, line.case.state.cutting.taken.clone())]).await;
        run_until(&stage, &journal, id, |line| line.closed_ms.is_some()).await;
        assert_eq!((bot.overlay().await, bot.denied(&of_its_key).await), (None, left), "the other's denial stands");
    }
    assert_eq!(bot.state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_before_anything_was_taken_gives_nothing_back() {
    let (moto, bot) = Bot::alone().await;
    moto.proxy.is(Fault::Says("PutUserPolicy", StatusCode::FORBIDDEN, "AccessDenied"));
    let (stage, journal) = ordered(&bot, permissions(["action:s3:DeleteObject"]).unwrap()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Refused)).await;
    let state = line.case.state;
    assert_eq!((state.plan_no, state.begun, state.cutting.missing()), (1, false, Vec::new()));
    assert!(!moto.proxy.calls().iter().any(|(call, _)| call == "DeleteUserPolicy"), "nothing is undone");
    // The policy is written by somebody else between the look and the effect.
    moto.proxy.is(Fault::None);
    let before = bot.connector.observe(&super::super::subject(&bot, Default::default())).await.unwrap().scope;
    bot.put("extra", &allows("sqs:*")).await;
    let cutting = curfew::scope::Cutting { before, ..Default::default() };
    let act = curfew::case::plan::Act::Narrow;
    let failure = bot.connector.perform(act, &super::super::subject(&bot, cutting)).await.unwrap_err();
    assert!(failure.is_untouched, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_and_is_so_already_is_given_back() {
    let (moto, bot) = Bot::alone().await;
    let before = bot.state().await;
    let seen = bot.connector.observe(&super::super::subject(&bot, Default::default())).await.unwrap();
    moto.proxy.is(Fault::Says("AttachUserPolicy", StatusCode::FORBIDDEN, "AccessDenied"));
    let stage = Stage::new(Store::sqlite(), registry(&bot, Mode::Enforce));
    let journal = stage.open().await;
    record(journal.as_ref(), vec![restore(bot.credential(), seen.scope.unwrap().held)]).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert!(matches!(line.verdict, Verdict::RolledBack { .. }), "{:?}", line.verdict);
    assert!(moto.proxy.calls().iter().any(|(call, _)| call == "AttachUserPolicy"));
    assert_eq!(bot.state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_iam_takes_for_none_is_refused_at_the_look() {
    let (moto, bot) = Bot::alone().await;
    let before = bot.state().await;
    moto.proxy.is(Fault::Says("SimulatePrincipalPolicy", StatusCode::BAD_REQUEST, "InvalidInput"));
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Refused)).await;
    assert!(!line.case.state.acted);
    assert_eq!(bot.state().await, before);
    // What is not asked for by name does not depend on it.
    let (stage, journal) = ordered(&bot, permissions(["inline:extra"]).unwrap()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert!(matches!(line.verdict, Verdict::Reduced { taken: 1, .. }), "{:?}", line.verdict);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_iam_does_not_say_the_lists_are_the_proof() {
    let (moto, bot) = Bot::alone().await;
    let before = bot.state().await;
    moto.proxy.is(Fault::Says("SimulatePrincipalPolicy", StatusCode::FORBIDDEN, "AccessDenied"));
    let (stage, journal) = ordered(&bot, bot.takes()).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| line.closed_ms.is_some()).await;
    assert!(matches!(line.verdict, Verdict::Reduced { taken: 5, .. }), "{:?}", line.verdict);
    assert_eq!(bot.state().await, bot.without(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_is_denied_by_nothing_or_all_is_given_back() {
    let (moto, bot) = Bot::alone().await;
    let before = bot.state().await;
    // IAM says of an action that stays that it is not allowed any more: it is asked after the change.
    let says = |decision: &str| {
        format!(
            "<SimulatePrincipalPolicyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><SimulatePrincipalPolicyResult>\
             <IsTruncated>false</IsTruncated><EvaluationResults><member><EvalActionName>iam:getuser</EvalActionName>\
             <EvalDecision>{decision}</EvalDecision></member><member><EvalActionName>iam:listusers</EvalActionName>\
             <EvalDecision>allowed</EvalDecision></member></EvaluationResults></SimulatePrincipalPolicyResult>\
             </SimulatePrincipalPolicyResponse>"
        )
    };
    moto.proxy.is(Fault::Answers("SimulatePrincipalPolicy", says("allowed")));
    let takes = permissions(["group:none", "inline:extra"]).unwrap();
    let stage = Stage::new(Store::sqlite(), registry(&bot, Mode::Observe));
    let journal = stage.open().await;
    record(journal.as_ref(), vec![reduce(bot.credential(), takes.clone(), None)]).await;
    let line = run_until(&stage, &journal, bot.credential(), |line| is_held(line, HoldReason::Observe)).await;
    let cutting = line.case.state.cutting;
    let act = curfew::case::plan::Act::Narrow;
    let mut subject = super::super::subject(&bot, cutting);
    subject.rescope.as_mut().unwrap().cut.permissions = takes;
    let done = bot.connector.perform(act, &subject).await.unwrap();
    subject.rescope.as_mut().unwrap().cutting.done_ms = done.done_ms.map(|ms| ms - 3_600_000);
    let gate = curfew::case::plan::Act::Test;
    assert!(bot.connector.pass(gate, &subject).await.is_ok());
    moto.proxy.is(Fault::Answers("SimulatePrincipalPolicy", says("explicitDeny")));
    assert!(bot.connector.pass(gate, &subject).await.is_err(), "what stays is asked for as well");
    bot.connector.perform(curfew::case::plan::Act::Widen, &subject).await.unwrap();
    assert_eq!(bot.state().await, before);
}
