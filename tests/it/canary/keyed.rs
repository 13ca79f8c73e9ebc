//! An access key of AWS that consumers read from a Vault: a scanner finds its id, and it is replaced, by the real binary. And
//! no secret of the old key, or of the one that came, is written anywhere.

use super::leak::Leak;
use super::*;
use crate::aws::{ACCOUNT, Moto, REGION, policy};
use crate::rotation::kv_mount;

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_key_of_aws_is_replaced_and_is_written_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let (moto, admin) = (Moto::start().await, Admin::shared());
    let reader = moto.user("curfew/reader").await;
    let may = moto.root.put_user_policy().user_name("reader").policy_name("own");
    may.policy_document(policy("inventory.json")).send().await.unwrap();
    let victim = moto.victim().await;
    let mount = unique("kv");
    kv_mount(&admin, &mount).await;
    let fields = json!({"access_key_id": victim.key.id, "secret_access_key": victim.key.secret, "region": REGION});
    admin.done("POST", &format!("{mount}/data/apps/reports"), json!({"data": fields})).await;
    let login = admin.curfew_token().await;
    private(home.join("curfew.token"), &login);
    private(home.join("own.aws"), &moto.own().file());
    private(home.join("reader.aws"), &reader.key.file());
    let config = format!(
        r#"
realms:
  - {{name: test, mode: enforce, vault: {{address: "{vault}", token_file: curfew.token}}, allowed_prefixes: [none/]}}
targets:
  - name: aws-prod
    mode: enforce
    aws:
      account: "{ACCOUNT}"
      region: {REGION}
      credentials_file: own.aws
      endpoint: "{endpoint}"
      users: [ci/]
      inventory: {{credentials_file: reader.aws, every: 1s}}
rotations:
  - name: reports
    target: aws-prod
    users: [{user}]
    store: {{realm: test, mount: {mount}, path: apps/reports, field: secret_access_key, user_field: access_key_id}}
inventory:
  - {{realm: test, token_file: curfew.token, mount: {mount}, paths: [apps/], every: 1s}}
"#,
        vault = admin.address,
        endpoint = moto.proxy.url(),
        user = victim.full,
    );
    let id = victim.key.id.clone();
    let leak =
        Leak { kind: "aws-user", says: "aws-prod", config, secret: &id, rule: "aws-access-token", level: "issuer" };
    let died = leak.dies(home).await;
    let (_, body) = admin.call("GET", &format!("{mount}/data/apps/reports"), Value::Null).await;
    let now = &body["data"]["data"];
    let new = now["secret_access_key"].as_str().unwrap().to_owned();
    assert_eq!(now["region"], REGION);
    assert_eq!(moto.keys(&victim).await, [now["access_key_id"].as_str().unwrap()], "the new one alone");
    assert!(moto.denied(&victim).await.is_some(), "its sessions");
    let written = died.written(home).await;
    let secrets = BTreeMap::from([
        ("the old secret".to_owned(), victim.key.secret.clone()),
        ("the new secret".to_owned(), new),
        ("the login at AWS".to_owned(), moto.own().secret.clone()),
        ("the login of the inventory".to_owned(), reader.key.secret.clone()),
        ("the login at Vault".to_owned(), login),
    ]);
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(victim.key.file().as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
