use super::super::authorizations::Document;
use super::*;

const OWN: &str = "111111111111";

fn user(name: &str, policies: &[&str]) -> Holder {
    holder(&format!("arn:aws:iam::{OWN}:user/{name}"), name, policies)
}

fn holder(arn: &str, full: &str, policies: &[&str]) -> Holder {
    let inline = policies.iter().map(|text| Document { name: "p".to_owned(), encoded: (*text).to_owned() }).collect();
    Holder { full: full.to_owned(), arn: arn.to_owned(), inline, ..Holder::default() }
}

fn role(name: &str, trust: &str, policies: &[&str]) -> Holder {
    let trust = Some(trust.to_owned());
    Holder { trust, ..holder(&format!("arn:aws:iam::{OWN}:role/{name}"), name, policies) }
}

fn assumes(role: &str) -> String {
    let arn = if role.contains('*') { role.to_owned() } else { format!("arn:aws:iam::{OWN}:role/{role}") };
    format!(r#"{{"Statement":{{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"{arn}"}}}}"#)
}

fn trusts(principal: &str) -> String {
    format!(r#"{{"Statement":{{"Effect":"Allow","Principal":{principal},"Action":"sts:AssumeRole"}}}}"#)
}

fn account() -> String {
    trusts(&format!(r#"{{"AWS":"arn:aws:iam::{OWN}:root"}}"#))
}

fn of(all: &Authorizations, user: &str) -> (Vec<String>, bool) {
    let roles = Roles::new(all);
    let found = roles.of_user(user).unwrap();
    (found.roles.iter().map(|role| role.full.clone()).collect(), found.whole)
}

fn others(all: &Authorizations, role: &str, user: &str) -> (u32, bool) {
    let roles = Roles::new(all);
    let role = all.roles.iter().find(|one| one.full == role).unwrap();
    let others = roles.others(role, user);
    (others.count, others.at_least)
}

#[test]
fn a_user_assumes_by_its_policies_its_groups_and_by_name() {
    let (by_policy, by_group) = (assumes("deploy"), assumes("report"));
    let mut bot = user("bot", &[&by_policy]);
    bot.groups = vec!["makers".to_owned()];
    bot.attached = vec!["arn:managed".to_owned()];
    let named = trusts(&format!(r#"{{"AWS":["arn:aws:iam::{OWN}:user/bot"]}}"#));
    let elsewhere = trusts(r#"{"AWS":"arn:aws:iam::222222222222:root"}"#);
    let all = Authorizations {
        users: vec![bot, user("idle", &[])],
        groups: vec![holder("g", "makers", &[&by_group])],
        roles: vec![
            role("deploy", &account(), &[]),
            role("report", &account(), &[]),
            role("managed", &account(), &[]),
            role("named", &named, &[]),
            role("other", &account(), &[]),
            role("foreign", &elsewhere, &[]),
        ],
        policies: vec![("arn:managed".to_owned(), Document { name: "m".to_owned(), encoded: assumes("managed") })],
        ..Authorizations::default()
    };
    let wanted = ["deploy", "managed", "named", "report"].map(str::to_owned).to_vec();
    assert_eq!(of(&all, "bot"), (wanted, true));
    assert_eq!(of(&all, "idle"), (Vec::new(), true));
    assert!(Roles::new(&all).of_user("nobody").is_none());
}

#[test]
fn what_cannot_be_read_and_what_goes_on_elsewhere_is_not_whole() {
    let one = |policies: &[&str], roles: Vec<Holder>| Authorizations {
        users: vec![user("bot", policies)],
        roles,
        ..Authorizations::default()
    };
    let deploy = assumes("deploy");
    let whole = |all: &Authorizations| of(all, "bot").1;
    assert!(whole(&one(&[&deploy], vec![role("deploy", &account(), &[])])));
    assert!(!whole(&one(&[&deploy], vec![role("deploy", "no document", &[])])), "a trust policy");
    assert!(!whole(&one(&[&deploy, "no document"], Vec::new())), "one of its policies");
    assert!(!whole(&one(&[&assumes("*")], Vec::new())), "roles of other accounts, whatever they trust");
    let foreign = r#"{"Statement":{"Effect":"Allow","Action":"sts:*","Resource":"arn:aws:iam::222222222222:role/x"}}"#;
    assert!(!whole(&one(&[foreign], Vec::new())));
    let chain = assumes("next");
    let roles = vec![role("deploy", &account(), &[&chain]), role("next", &account(), &[])];
    assert!(!whole(&one(&[&deploy], roles)), "a session of one role becomes another's, and that one's again");
    let mut all = one(&[&deploy], vec![role("deploy", &account(), &[])]);
    all.users[0].attached = vec!["arn:unsaid".to_owned()];
    assert!(!whole(&all), "a managed policy whose text is not there");
    (all.users[0].attached, all.users[0].groups) = (Vec::new(), vec!["unsaid".to_owned()]);
    assert!(!whole(&all), "a group that is not there");
    all.users[0].groups.clear();
    all.cut = true;
    assert!(!whole(&all), "a list in part");
}

#[test]
fn others_are_counted_by_the_trust_and_by_their_own_policies() {
    let (deploy, all_roles) = (assumes("deploy"), assumes("*"));
    let users = || vec![user("bot", &[&deploy]), user("ann", &[&deploy]), user("bob", &[])];
    let with = |trust: &str| Authorizations {
        users: users(),
        roles: vec![
            role("deploy", trust, &[]),
            role("admin", &trusts(r#"{"Service":"ec2.amazonaws.com"}"#), &[&all_roles]),
        ],
        ..Authorizations::default()
    };
    let arn = |name: &str| format!("arn:aws:iam::{OWN}:user/{name}");
    let by_name = trusts(&format!(
        r#"{{"AWS":["{}","{}","arn:aws:iam::222222222222:role/x"],"Service":["ecs-tasks.amazonaws.com"]}}"#,
        arn("bot"),
        arn("bob"),
    ));
    assert_eq!(others(&with(&by_name), "deploy", "bot"), (3, false), "bob, a role elsewhere, and a service");
    assert_eq!(others(&with(&account()), "deploy", "bot"), (2, true), "ann and the role `admin`, by their policies");
    assert_eq!(others(&with(&trusts(r#"{"AWS":"222222222222"}"#)), "deploy", "bot"), (1, true), "an account is one");
    assert_eq!(others(&with(&trusts("\"*\"")), "deploy", "bot"), (3, true), "everybody");
    let web = trusts(r#"{"Federated":"arn:aws:iam::111111111111:oidc-provider/ci.test"}"#);
    assert_eq!(others(&with(&web), "deploy", "bot"), (1, true), "a provider knows more than one");
    assert_eq!(others(&with("no document"), "deploy", "bot"), (0, true));
    assert_eq!(others(&with(&trusts(&format!(r#"{{"AWS":"{}"}}"#, arn("bot")))), "deploy", "bot"), (0, false));
}
