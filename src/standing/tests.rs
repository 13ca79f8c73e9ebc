//! What is said of standing credentials.

use super::*;
use crate::connector::recipe::{Adoption, Keeper, Late, PasswordRules, Place, Users};
use crate::guard::Mode;
use crate::task::Credential;

fn id(kind: Kind, instance: &str, id: &str) -> CredentialId {
    CredentialId::new(kind, instance, id).unwrap()
}

fn standing(of: CredentialId, runs: i64, live: i64) -> Standing {
    let credential = Credential {
        blast: None,
        tenant: "default".into(),
        id: of,
        principal: None,
        registered_ms: 1,
        seen_ms: None,
        issued_ms: Some(1_000),
        expires_ms: None,
        dead_ms: None,
        version: Some(3),
        environment: Some("prod".into()),
        owner: None,
    };
    Standing { credential, runs, live, last_ms: (runs > 0).then_some(5_000) }
}

fn realm(targets: &[(&str, &str)]) -> Realm {
    let targets = targets.iter().map(|(prefix, target)| ((*prefix).to_owned(), (*target).to_owned())).collect();
    Realm { name: "prod".into(), mode: Mode::Enforce, allowed_prefixes: Vec::new(), reducible: Vec::new(), targets }
}

fn recipe(of: CredentialId, consumers: &[&str]) -> Recipe {
    Recipe {
        name: "orders-db".into(),
        credential: of,
        place: Place {
            keeper: Keeper::Kv,
            realm: "prod".into(),
            mount: "kv".into(),
            path: "app/db".into(),
            field: "password".into(),
            user_field: None,
        },
        copies: Vec::new(),
        webhooks: Vec::new(),
        users: Users::One("orders".into()),
        password: PasswordRules::default(),
        adoption: Adoption {
            consumers: consumers.iter().map(|one| (*one).to_owned()).collect(),
            within_ms: 1,
            late: Late::default(),
            by_word: false,
        },
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
    }
}

fn nobody(_: &CredentialId) -> BTreeSet<String> {
    BTreeSet::new()
}

#[test]
fn what_only_tasks_are_known_to_use_comes_first() {
    let user = |name: &str| id(Kind::PostgresRole, "appdb", name);
    let all = vec![
        standing(user("nobody"), 0, 0),
        standing(user("orders"), 3, 1),
        standing(user("etl"), 40, 2),
        standing(user("web"), 0, 0),
        standing(user("report"), 7, 0),
    ];
    let answered = |of: &CredentialId| match of.id().as_str() {
        "web" => BTreeSet::from(["web-1".to_owned()]),
        _ => BTreeSet::new(),
    };
    let lines = report(all, &[recipe(user("orders"), &["billing"])], &[realm(&[])], answered);
    let said: Vec<(String, Used)> = lines.iter().map(|line| (line.credential.id(), line.used)).collect();
    let said: Vec<(&str, Used)> = said.iter().map(|(name, used)| (name.as_str(), *used)).collect();
    assert_eq!(
        said,
        [
            ("etl", Used::Tasks),
            ("report", Used::Tasks),
            ("orders", Used::Both),
            ("web", Used::Consumers),
            ("nobody", Used::Unknown)
        ]
    );
}

#[test]
fn what_would_take_its_place_is_what_the_configuration_knows() {
    let user = id(Kind::PostgresRole, "appdb", "orders");
    let of = |targets: &[(&str, &str)], recipes: &[Recipe], one: &CredentialId| {
        let mut lines = report(vec![standing(one.clone(), 1, 0)], recipes, &[realm(targets)], nobody);
        let line = lines.remove(0);
        (line.command, line.needs)
    };
    let command = |text: &str| Some(format!("curfew exec --role {text} -- COMMAND"));
    // One role, one engine, several of them, none; of another target none of them.
    let (exec, needs) = of(&[("database/creds/ro/", "appdb"), ("database/creds/rw/", "other")], &[], &user);
    assert_eq!(exec, command("ORDERS=database/creds/ro"));
    assert!(needs.unwrap().contains("that database/creds/ro may what orders may"));
    let named = [recipe(user.clone(), &[])];
    assert_eq!(of(&[("database/creds/", "appdb")], &named, &user).0, command("ORDERS_DB=database/creds/ROLE"));
    let (exec, needs) = of(&[("a/creds/x/", "appdb"), ("b/creds/", "appdb")], &[], &user);
    assert_eq!(exec, command("ORDERS=PATH"));
    assert!(needs.unwrap().contains("one of a/creds/x, b/creds/"));
    let (exec, needs) = of(&[], &[], &user);
    assert_eq!(exec, None);
    assert!(needs.unwrap().contains("a database engine at a Vault for appdb"));
    let two = id(Kind::PostgresRole, "appdb", "1a,1b");
    let (exec, needs) = of(&[("database/creds/", "appdb")], &[], &two);
    assert_eq!(exec, command("DB_1A=database/creds/ROLE"));
    assert!(needs.unwrap().contains("1a or 1b"));

    for (kind, own) in [(Kind::VaultApprole, "approle/ci"), (Kind::VaultSecretId, "approle/ci/x")] {
        let (exec, needs) = of(&[], &[], &id(kind, "prod", own));
        assert!(exec.is_none() && needs.unwrap().contains("bindings"));
    }
    assert!(of(&[], &[], &id(Kind::VaultToken, "prod", "x")).0.unwrap().contains("--policy"));
    assert_eq!(of(&[], &[], &id(Kind::VaultLease, "prod", "database/creds/ro/x")).0, command("RO=database/creds/ro"));
    let (exec, needs) = of(&[], &[], &id(Kind::VaultKv, "prod", "kv/app#token"));
    assert!(exec.is_none() && needs.unwrap().contains("name it in a rotation"));
}
