//! A leaked password of a MariaDB user, from the scanner's report to its death, by the real binary with the rights that
//! `deploy/mariadb` gives it. And nothing of it, or of the one that came, is written anywhere, MariaDB's own logs among it.

use super::leak::Leak;
use super::*;
use crate::mariadb::own::Own;
use crate::mariadb::{changes, hashed, least, make, run};
use crate::rotation::kv_mount;

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_mariadb_password_ends_dead_and_is_written_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let admin = Admin::shared();
    let own = Own::start().await;
    let (mount, old) = (unique("kv"), made_up("old-"));
    kv_mount(&admin, &mount).await;
    let mut root = own.admin().await;
    make(&mut root, "'shop_a'@'%'", &old).await;
    run(&mut root, "CREATE USER 'shop_b'@'%' ACCOUNT LOCK".to_owned()).await;
    let secret = json!({"data": {"username": "shop_a", "password": old}});
    admin.done("POST", &format!("{mount}/data/apps/shop"), secret).await;
    let stored = async || {
        let (_, body) = admin.call("GET", &format!("{mount}/data/apps/shop"), Value::Null).await;
        let text = |field: &str| body["data"]["data"][field].as_str().unwrap().to_owned();
        (text("username"), text("password"))
    };
    let login = admin.curfew_token().await;
    private(home.join("curfew.token"), &login);
    let (url, _) = least(&own.url).await;
    private(home.join("shop.url"), &url);
    let config = format!(
        r#"
realms:
  - {{name: test, mode: enforce, vault: {{address: "{vault}", token_file: curfew.token}}, allowed_prefixes: [none/]}}
targets:
  - {{name: shop, mode: enforce, mariadb: {{url_file: shop.url}}}}
rotations:
  - name: shop
    target: shop
    users: [shop_a@%, shop_b@%]
    store: {{realm: test, mount: {mount}, path: apps/shop, user_field: username}}
inventory:
  - {{realm: test, token_file: curfew.token, mount: {mount}, paths: [apps/], fields: [password], every: 1s}}
"#,
        vault = admin.address,
    );
    let leak = Leak {
        kind: "mariadb-user",
        says: "shop: mariadb",
        config,
        secret: &old,
        rule: "generic-api-key",
        level: "target",
    };
    let died = leak.dies(home).await;
    let (user, new) = stored().await;
    assert_eq!(user, "shop_b");
    assert!(own.lets_in("shop_b", &new).await && !own.lets_in("shop_a", &old).await);
    let mut written = died.written(home).await;
    let general = std::fs::read(own.data().join("general.log")).unwrap();
    assert!(String::from_utf8_lossy(&general).contains(&hashed(&new)), "MariaDB logs what it is told");
    written.put("MariaDB's general log", &general);
    written.put("MariaDB's binary log", changes(&own.data()).as_bytes());
    written.put("MariaDB's own log", &std::fs::read(own.data().with_extension("log")).unwrap());
    let report = leak.report();
    let secrets = BTreeMap::from([
        ("the old password".to_owned(), old.clone()),
        ("the new password".to_owned(), new),
        ("the login at Vault".to_owned(), login),
        ("the login at MariaDB".to_owned(), url.split([':', '@']).nth(2).unwrap().to_owned()),
    ]);
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(report.as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
