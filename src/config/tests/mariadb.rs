//! Users of a MariaDB.

use super::*;
use crate::config::System;

fn with(target: &str, rotation: &str) -> Result<Config, Invalid> {
    let appdb = "  - {name: appdb, postgres: {url_file: /path/with/url}}\n";
    let targets = format!("{appdb}  - {{name: shop, {target}}}\n");
    parse(&format!("{}rotations:\n  - {{name: app, target: shop, {rotation}}}\n", WHOLE.replace(appdb, &targets)))
}

const MARIADB: &str = "mode: enforce, mariadb: {url_file: shop.url}";
const ONE: &str = "store: {realm: prod, path: apps/app}";
const TWO: &str = "store: {realm: prod, path: apps/app, user_field: user}";

#[test]
fn users_are_accounts_with_a_host() {
    let config = with(MARIADB, &format!("users: [app@10.0.%], {ONE}")).unwrap();
    let shop = config.targets.iter().find(|target| target.name == "shop").unwrap();
    assert_eq!(shop.system, System::Mariadb { url_file: "/etc/curfew/shop.url".into() });
    let recipe = &config.recipes[0];
    assert_eq!(recipe.credential.as_str(), "urn:curfew:cred:mariadb-user:shop:app%4010.0.%25");
    assert_eq!(recipe.credential.id(), "app@10.0.%");
    assert_eq!(recipe.users, Users::One("app".into()), "consumers log in by the name alone");
    let config = with(MARIADB, &format!("users: [app_a@%, app_b@%], {TWO}")).unwrap();
    assert_eq!(config.recipes[0].credential.id(), "app_a@%,app_b@%");
    assert_eq!(config.recipes[0].users, Users::Two("app_a".into(), "app_b".into()));
}

#[test]
fn what_is_wrong_with_users_of_a_mariadb_is_said() {
    for (target, rotation, why) in [
        (MARIADB, format!("users: [app], {ONE}"), "`<user>@<host>`"),
        (MARIADB, format!("users: [\"@%\"], {ONE}"), "1 to 80 ASCII"),
        (MARIADB, format!("users: [app@Host], {ONE}"), "small letters"),
        (MARIADB, format!("users: [\"a'b@%\"], {ONE}"), "comma, quote"),
        (MARIADB, format!("users: [a@%, b@%, c@%], {TWO}"), "two that take turns"),
        (MARIADB, format!("users: [a@%, a@localhost], {TWO}"), "different names"),
        (MARIADB, format!("users: [a@%, b@%], {ONE}"), "whose turn it is"),
        (MARIADB, "users: [a@%], store: {realm: prod, static_role: a}".to_owned(), "of a PostgreSQL user"),
        ("mariadb: {url_file: u}, postgres: {url_file: u}", format!("users: [a@%], {ONE}"), "a target is one system"),
        ("mariadb: {url_fiel: u}", format!("users: [a@%], {ONE}"), "url_file"),
        (
            MARIADB,
            format!(
                "users: [a@%], {ONE}}}\n  - {{name: other, target: shop, users: [a@%], store: {{realm: prod, path: b}}"
            ),
            "rotated twice",
        ),
    ] {
        let said = with(target, &rotation).unwrap_err().to_string();
        assert!(said.contains(why), "{rotation}: {said}");
    }
    // The same name from elsewhere is another account.
    let more = format!(
        "users: [a@%], {ONE}}}\n  - {{name: other, target: shop, users: [a@localhost], store: {{realm: prod, path: b}}"
    );
    assert_eq!(with(MARIADB, &more).unwrap().recipes.len(), 2);
    let opens = WHOLE.replace("target: appdb}", "target: shop}");
    let appdb = "  - {name: appdb, postgres: {url_file: /path/with/url}}\n";
    let opens = opens.replace(appdb, &format!("{appdb}  - {{name: shop, mariadb: {{url_file: u}}}}\n"));
    assert!(parse(&opens).unwrap_err().to_string().contains("on PostgreSQL only"));
}
