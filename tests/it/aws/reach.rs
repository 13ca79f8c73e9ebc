//! What IAM says of who may what, on moto; never on AWS itself.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use axum::http::StatusCode;
use curfew::connector::aws::Account;
use curfew::reach::ask;
use curfew::reach::aws::Reader;
use curfew::reach::graph::Graph;
use curfew::reach::{Node, Reading};

use super::proxy::Fault;
use super::*;

const FAST: NonZeroU32 = NonZeroU32::new(5_000).unwrap();

async fn read(moto: &Moto) -> Reading {
    let looks = made_user(&moto.root, "curfew/reach", Some(&policy("reach.json"))).await;
    let settings = moto.settings_of(&looks);
    let account = Account::open("cloud", &settings, clock::System::shared()).await.unwrap();
    let secrets = ["app/db", "other/db"].map(str::to_owned).into();
    Reader::new("cloud", account, FAST).read(&secrets).await
}

fn who(graph: &Graph, to: &str) -> BTreeSet<String> {
    let at = graph.find(&Node::parse(to).unwrap()).unwrap_or_else(|| panic!("{to}"));
    let identities = |line: &ask::Line| line.node.to_string().starts_with("identity:");
    ask::who(graph, at, 1_000)
        .lines
        .iter()
        .filter(|line| identities(line))
        .map(|line| line.node.name.to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_groups_and_roles_are_told_with_who_may_become_whom() {
    let moto = Moto::start().await;
    let allow = |action: &str, resource: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"{action}","Resource":"{resource}"}}]}}"#
        )
    };
    let key = made_user(&moto.root, "ci/build", None).await;
    made_user(&moto.root, "ci/idle", None).await;
    let root = &moto.root;
    let reads = allow("secretsmanager:Get*", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/*");
    let made = root.create_policy().policy_name("reads").policy_document(&reads).send().await.unwrap();
    let arn = made.policy().unwrap().arn().unwrap().to_owned();
    let trust = |who: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":"{who}"}},"Action":"sts:AssumeRole"}}]}}"#
        )
    };
    let account = format!("arn:aws:iam::{ACCOUNT}:root");
    for (role, who) in [("deploy", account.as_str()), ("named", &format!("arn:aws:iam::{ACCOUNT}:user/ci/idle"))] {
        root.create_role().role_name(role).assume_role_policy_document(trust(who)).send().await.unwrap();
        root.attach_role_policy().role_name(role).policy_arn(&arn).send().await.unwrap();
    }
    root.create_group().group_name("makers").send().await.unwrap();
    let assume = allow("sts:AssumeRole", &format!("arn:aws:iam::{ACCOUNT}:role/dep*"));
    root.put_group_policy().group_name("makers").policy_name("assume").policy_document(&assume).send().await.unwrap();
    root.add_user_to_group().group_name("makers").user_name("build").send().await.unwrap();

    let reading = Box::pin(read(&moto)).await;
    assert_eq!(reading.faults, Vec::<String>::new());
    let mut graph = Graph::default();
    for fact in reading.facts {
        graph.add(&"aws:cloud".into(), fact, 0);
    }
    graph.settle();
    // By its group into a role that trusts the account, and as who a role names.
    let readers = who(&graph, "path:cloud/secretsmanager/app/db");
    // Who may everything, and Curfew's own login, read all of them.
    let all = ["cloud/user/admin/root", "cloud/user/curfew/curfew"];
    let some = ["cloud/role/deploy", "cloud/role/named", "cloud/user/ci/build", "cloud/user/ci/idle"];
    assert_eq!(readers, all.iter().chain(&some).map(|name| (*name).to_owned()).collect());
    let others = who(&graph, "path:cloud/secretsmanager/other/db");
    assert_eq!(others, all.iter().map(|name| (*name).to_owned()).collect());
    let id = CredentialId::new(Kind::AwsAccessKey, "cloud", &format!("ci/build/{}", key.id)).unwrap();
    let key = graph.find(&Node::parse(id.as_str()).unwrap()).unwrap();
    let reach = ask::reach(&graph, key);
    assert!(reach.opened.iter().any(|one| &*one.target.name == "cloud"), "{reach:?}");
    assert!(reach.about.issued_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_throttled_says_nothing() {
    let moto = Moto::start().await;
    moto.proxy.is(Fault::Says("GetAccountAuthorizationDetails", StatusCode::BAD_REQUEST, "Throttling"));
    let reading = Box::pin(read(&moto)).await;
    assert!(reading.facts.is_empty() && reading.faults.len() == 1, "{:?}", reading.faults);
}
