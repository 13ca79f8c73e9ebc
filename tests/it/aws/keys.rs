//! The connector: what it sees, does and leaves alone, and what it makes of AWS's answers.

use axum::http::StatusCode;
use std::num::NonZeroU32;

use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Presence, Residue};
use curfew::clock;
use curfew::connector::Subject;
use curfew::connector::aws::{Account, AwsSettings, Login};
use curfew::inventory::aws::scan;
use serde_json::json;

use super::proxy::Fault;
use super::{Moto, Victim, policy};
use crate::vault::about;
use curfew::credential::Kind;

fn subject(victim: &Victim) -> Subject {
    Subject { credential: victim.credential(), ..about(Kind::AwsAccessKey, "x/y") }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_disabled_its_users_sessions_are_denied_and_nothing_else_is_touched() {
    let moto = Moto::start().await;
    let (victim, bystander) = (moto.victim().await, moto.victim().await);
    let second = moto.second_key(&victim).await;
    let connector = moto.connector(&moto.settings()).await;
    let subject = subject(&victim);
    let seen = connector.observe(&subject).await.unwrap();
    assert_eq!((seen.presence, seen.protected), (Presence::Present, false));
    assert!(seen.issued_ms.is_some() && seen.principal_id.is_some());
    assert_eq!(connector.probe(&subject).await.answer, Answer::Accepted);
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(true), "to look changes nothing");

    connector.perform(Act::Disable, &subject).await.unwrap();
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(false));
    let sight = connector.probe(&subject).await;
    assert_eq!((sight.answer, sight.control, sight.residue), (Answer::Refused, true, vec![Residue::Disabled]));
    let before_ms = clock::System::shared().wall_ms();
    let done = connector.perform(Act::EndSessions, &subject).await.unwrap();
    assert_eq!(done.residue, [], "what it became is looked at next");
    let denied = moto.denied(&victim).await.unwrap();
    let cut: jiff::Timestamp = denied["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"]
        .as_str()
        .and_then(|at| at.parse().ok())
        .unwrap();
    assert!((before_ms..before_ms + 60_000).contains(&cut.as_millisecond()), "{denied}");
    // Again: the same.
    connector.perform(Act::Disable, &subject).await.unwrap();
    connector.perform(Act::EndSessions, &subject).await.unwrap();
    assert_eq!(moto.policies(&victim).await, [format!("curfew-sessions-{}", victim.key.id)]);

    assert_eq!(moto.lets_in(&victim, &second.id).await, Some(true), "the user's other key");
    assert_eq!(moto.lets_in(&bystander, &bystander.key.id).await, Some(true));
    assert!(moto.policies(&bystander).await.is_empty());
    let of_victim = |(_, of): &(String, String)| of.starts_with(victim.name());
    assert!(moto.proxy.changes().iter().all(of_victim), "{:?}", moto.proxy.changes());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_user_and_those_that_nobody_named_are_never_touched() {
    let moto = Moto::start().await;
    let connector = moto.connector(&moto.settings()).await;
    let own = Victim { full: "curfew/curfew".to_owned(), key: moto.own().clone() };
    let others = [moto.user("prod/payments").await, moto.user("cix").await, own];
    for victim in &others {
        let subject = subject(victim);
        assert!(connector.observe(&subject).await.unwrap().protected, "{}", victim.full);
        for act in [Act::Disable, Act::EndSessions] {
            assert_eq!(connector.perform(act, &subject).await.unwrap_err().kind, FailureKind::Refused);
        }
        assert_eq!(moto.lets_in(victim, &victim.key.id).await, Some(true), "{}", victim.full);
    }
    // The name of a user below another path than the id says: it is not the one that was matched.
    let moved = Victim { full: format!("ci/{}", others[0].name()), key: others[0].key.clone() };
    for act in [Act::Disable, Act::EndSessions] {
        assert_eq!(connector.perform(act, &subject(&moved)).await.unwrap_err().kind, FailureKind::Refused);
    }
    assert_eq!(moto.proxy.changes(), [], "nothing was even asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_another_account_does_nothing() {
    let moto = Moto::start().await;
    let victim = moto.victim().await;
    let settings = AwsSettings { account: "999999999999".to_owned(), ..moto.settings() };
    let connector = moto.connector(&settings).await;
    let subject = subject(&victim);
    for failure in [
        connector.observe(&subject).await.unwrap_err(),
        connector.perform(Act::Disable, &subject).await.unwrap_err(),
        connector.self_check().await.unwrap_err(),
    ] {
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true), "{failure}");
    }
    assert_eq!(connector.probe(&subject).await.answer, Answer::Unknown);
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_answers_is_taken_for_what_it_is() {
    let moto = Moto::start().await;
    let victim = moto.victim().await;
    let connector = moto.connector(&moto.settings()).await;
    let subject = subject(&victim);
    let looks = async || connector.observe(&subject).await.map(|seen| seen.presence).map_err(|failure| failure.kind);
    let acts = async || connector.perform(Act::Disable, &subject).await.map(|_| ()).map_err(|failure| failure.kind);
    assert_eq!(looks().await, Ok(Presence::Present));

    moto.proxy.is(Fault::Throttled(1));
    assert_eq!(looks().await, Err(FailureKind::Throttled { after_ms: None }));
    assert_eq!(looks().await, Ok(Presence::Present), "each call was made once");
    for (status, code, look, act) in [
        (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", FailureKind::Unavailable, FailureKind::Unknown),
        (StatusCode::INTERNAL_SERVER_ERROR, "ServiceFailure", FailureKind::Unavailable, FailureKind::Unknown),
        (StatusCode::BAD_GATEWAY, "", FailureKind::Unavailable, FailureKind::Unknown),
        (StatusCode::NOT_FOUND, "", FailureKind::Unavailable, FailureKind::Unknown),
        (StatusCode::FORBIDDEN, "ExpiredToken", FailureKind::Denied, FailureKind::Denied),
        (StatusCode::FORBIDDEN, "AccessDenied", FailureKind::Refused, FailureKind::Refused),
        (StatusCode::CONFLICT, "EntityTemporarilyUnmodifiable", FailureKind::Unavailable, FailureKind::Unavailable),
        (StatusCode::BAD_REQUEST, "ValidationError", FailureKind::Refused, FailureKind::Refused),
    ] {
        moto.proxy.is(Fault::Says("ListAccessKeys", status, code));
        assert_eq!(looks().await, Err(look), "{status} {code}");
        assert_eq!(connector.probe(&subject).await.answer, Answer::Unknown, "{status} {code}");
        moto.proxy.is(Fault::Says("UpdateAccessKey", status, code));
        assert_eq!(acts().await, Err(act), "{status} {code}");
    }
    moto.proxy.is(Fault::Cut("ListAccessKeys"));
    assert_eq!(looks().await, Err(FailureKind::Unavailable));
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(true));
    moto.proxy.is(Fault::Cut("UpdateAccessKey"));
    assert_eq!(acts().await, Err(FailureKind::Unknown));
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(false), "it has happened all the same");
    moto.proxy.is(Fault::None);

    let name = victim.name();
    moto.root.delete_access_key().user_name(name).access_key_id(&victim.key.id).send().await.unwrap();
    assert_eq!(looks().await, Ok(Presence::Gone));
    assert_eq!(acts().await, Err(FailureKind::Gone));
    let sight = connector.probe(&subject).await;
    assert_eq!((sight.answer, sight.control, sight.residue), (Answer::Refused, true, Vec::new()));
    moto.root.delete_user().user_name(name).send().await.unwrap();
    assert_eq!(looks().await, Ok(Presence::Gone));
    assert_eq!(connector.perform(Act::EndSessions, &subject).await.unwrap_err().kind, FailureKind::Gone);
    assert_eq!(connector.probe(&subject).await.answer, Answer::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_is_told_from_one_that_lacks_a_right() {
    let moto = Moto::start().await;
    let victim = moto.victim().await;
    let subject = subject(&victim);
    let reader = moto.user("curfew/reader").await;
    let put =
        moto.root.put_user_policy().user_name("reader").policy_name("own").policy_document(policy("inventory.json"));
    put.send().await.unwrap();
    let connector = moto.connector(&moto.settings_of(&reader.key)).await;
    assert_eq!(connector.observe(&subject).await.unwrap().presence, Presence::Present);
    let failure = connector.perform(Act::Disable, &subject).await.unwrap_err();
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Refused, false));
    assert!(failure.note.contains("iam:UpdateAccessKey"), "{}", failure.note);
    assert_eq!(connector.self_check().await, Ok(()));

    let mut wrong = moto.own().clone();
    wrong.secret.push('x');
    for settings in [
        moto.settings_of(&wrong),
        moto.settings_of(&super::Key { id: "AKIANOBODYNOBODYNOBO".to_owned(), ..wrong.clone() }),
    ] {
        let connector = moto.connector(&settings).await;
        let failure = connector.observe(&subject).await.unwrap_err();
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true));
        assert_eq!(connector.self_check().await.unwrap_err().kind, FailureKind::Denied);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let connector = moto.connector(&AwsSettings { login: Login::File(file.clone()), ..moto.settings() }).await;
    assert_eq!(connector.self_check().await.unwrap_err().kind, FailureKind::Unavailable, "there is no file yet");
    let own = moto.own();
    let text = format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", own.id, own.secret);
    std::fs::write(&file, text).unwrap();
    assert_eq!(connector.self_check().await, Ok(()));
    assert_eq!(moto.lets_in(&victim, &victim.key.id).await, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_lists_the_keys_of_the_users_that_are_named() {
    let moto = Moto::start().await;
    let (first, alone) = (moto.victim().await, moto.user("team/alone").await);
    let second = moto.second_key(&first).await;
    let others = [moto.user("prod/payments").await, moto.user("team/other").await];
    let reader = moto.user("curfew/reader").await;
    let put =
        moto.root.put_user_policy().user_name("reader").policy_name("own").policy_document(policy("inventory.json"));
    put.send().await.unwrap();
    let users = vec!["ci/".to_owned(), "team/alone".to_owned(), "team/nobody".to_owned()];
    let settings = AwsSettings { users, ..moto.settings_of(&reader.key) };
    let account = Account::open("aws", &settings, clock::System::shared()).await.unwrap();
    let scanned = async || {
        let (sender, mut listed) = tokio::sync::mpsc::channel(100);
        let scan = scan(&account, NonZeroU32::new(1_000).unwrap(), &sender).await;
        drop(sender);
        let mut named: Vec<(String, bool)> = Vec::new();
        while let Some(held) = listed.recv().await {
            named.extend(held.keys.iter().map(|key| (key.name.id(), key.active)));
        }
        named.sort();
        (named, scan)
    };
    let (named, scan) = scanned().await;
    assert_eq!((scan.secrets, scan.partial), (2, false));
    let id = |user: &str, key: &str| format!("{user}/{key}");
    let mut wanted = vec![
        (id(&first.full, &first.key.id), true),
        (id(&first.full, &second.id), true),
        (id("team/alone", &alone.key.id), true),
    ];
    wanted.sort();
    assert_eq!(named, wanted, "without {:?}", others.map(|other| other.full));
    assert_eq!(moto.proxy.changes(), [], "it only reads");
    // One user that may not be looked at is left out, and said; what is so for all of them ends the list.
    moto.proxy.is(Fault::Says("ListAccessKeys", StatusCode::FORBIDDEN, "AccessDenied"));
    let (named, scan) = scanned().await;
    assert_eq!((named.len(), scan.secrets, scan.partial, scan.faults.len()), (0, 2, true, 2));
    moto.proxy.is(Fault::Says("ListUsers", StatusCode::FORBIDDEN, "ExpiredToken"));
    let (named, scan) = scanned().await;
    assert_eq!((named.len(), scan.secrets, scan.partial, scan.faults.len()), (0, 0, true, 1));
    moto.proxy.is(Fault::Throttled(1));
    let (_, scan) = scanned().await;
    assert!(scan.partial, "the list of users is asked for again in the next round");
}

#[test]
fn the_settle_window_is_as_long_as_iam_may_be_late() {
    let settle = AwsSettings::new("123456789012", "eu-west-1", Login::Machine, Vec::new()).settle;
    assert!(settle.window_ms >= 15_000 && settle.sightings >= 4, "{settle:?}");
}

#[test]
fn the_rights_in_deploy_are_those_that_are_used() {
    let of = |name: &str| {
        let policy: serde_json::Value = serde_json::from_str(&policy(name)).unwrap();
        let all = policy["Statement"].as_array().unwrap().clone();
        all.iter().flat_map(|one| one["Action"].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    let reads = ["ListUsers", "GetUser", "ListAccessKeys", "ListUserPolicies", "GetUserPolicy"];
    let reads = [&reads[..], &["ListRolePolicies", "GetRolePolicy"]].concat();
    let reads: Vec<String> = reads.iter().map(|one| format!("iam:{one}")).collect();
    let secrets = ["secretsmanager:ListSecrets", "secretsmanager:GetSecretValue"].map(str::to_owned);
    assert_eq!(json!(of("inventory.json")), json!([&reads[..], &secrets].concat()), "nothing that changes anything");
    let looks = ["iam:ListAttachedUserPolicies", "iam:GetUserPolicy"];
    let acts = ["iam:GetUser", "iam:ListAccessKeys", "iam:UpdateAccessKey", "iam:PutUserPolicy"];
    let rights = json!([&acts[..], &looks].concat());
    assert_eq!(json!(of("curfew.json")), rights, "neither creates nor deletes");
    assert_eq!(json!(of("lifts.json")), json!(["iam:DeleteUserPolicy"]), "in a file of its own");
    let looks = json!(["iam:GetAccountAuthorizationDetails", "iam:GetRole"]);
    assert_eq!(json!(of("roles.json")), looks, "nothing that changes anything");
    let cuts = json!(["iam:GetRole", "iam:GetRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy"]);
    assert_eq!(json!(of("cuts-roles.json")), cuts, "in a file of its own");
    let replaces = json!(["iam:CreateAccessKey", "iam:DeleteAccessKey", "iam:GetAccessKeyLastUsed"]);
    assert_eq!(json!(of("rotates-keys.json")), replaces, "in a file of its own");
    let rights =
        ["DescribeSecret", "GetSecretValue", "ListSecretVersionIds", "PutSecretValue", "UpdateSecretVersionStage"];
    let rights = rights.map(|right| format!("secretsmanager:{right}"));
    assert_eq!(json!(of("secrets.json")), json!(rights), "none that deletes");
    let rights =
        ["DescribeSecret", "GetSecretValue", "ListSecretVersionIds", "RotateSecret", "UpdateSecretVersionStage"];
    let rights = rights.map(|right| format!("secretsmanager:{right}")).into_iter();
    let rights: Vec<String> = rights.chain(["lambda:InvokeFunction".to_owned()]).collect();
    assert_eq!(json!(of("rotates-itself.json")), json!(rights), "no value of ours is put there");
}
