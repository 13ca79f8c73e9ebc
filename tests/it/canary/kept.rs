//! A leaked password that AWS Secrets Manager keeps, or rotates, from the scanner's report to its death, by the real binary. And
//! nothing of it, or of those that came, is written anywhere.

use super::leak::Leak;
use super::*;
use crate::admin::Postgres;
use crate::aws::function::Function;
use crate::aws::{ACCOUNT, Moto, REGION, policy};

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_password_that_aws_keeps_ends_dead_and_is_written_nowhere() {
    Box::pin(ends_dead(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_password_that_aws_rotates_itself_ends_dead_and_is_written_nowhere() {
    Box::pin(ends_dead(true)).await;
}

async fn ends_dead(by_aws: bool) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let (moto, pg) = (Moto::start().await, Postgres::shared());
    let reader = moto.user("curfew/reader").await;
    let may = moto.root.put_user_policy().user_name("reader").policy_name("own");
    may.policy_document(policy("inventory.json")).send().await.unwrap();
    let (base, old) = (unique("kept").replace('-', "_"), made_up("old-"));
    let (a, b) = (format!("{base}_a"), format!("{base}_b"));
    let pool = pg.pool().await;
    for sql in [format!("CREATE ROLE \"{a}\" LOGIN PASSWORD '{old}'"), format!("CREATE ROLE \"{b}\" NOLOGIN")] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    }
    let fields = json!({"username": a, "password": old, "host": "db.example"}).to_string();
    moto.secrets.create_secret().name("prod/billing").secret_string(fields).send().await.unwrap();
    let mut store = "secret: prod/billing, user_field: username";
    if by_aws {
        let function = Function::start(moto.secrets.clone(), &pg, Some((a.clone(), b.clone()))).await;
        let sets = moto.secrets.rotate_secret().secret_id("prod/billing").rotation_lambda_arn(function.arn());
        sets.rotate_immediately(false).send().await.unwrap();
        store = "rotated_secret: prod/billing";
    }
    let stored = async || {
        // moto takes another version than AWSCURRENT where none is named.
        let call = moto.secrets.get_secret_value().secret_id("prod/billing").version_stage("AWSCURRENT");
        let found = call.send().await.unwrap();
        serde_json::from_str::<Value>(found.secret_string().unwrap()).unwrap()
    };
    private(home.join("own.aws"), &moto.own().file());
    private(home.join("reader.aws"), &reader.key.file());
    private(home.join("appdb.url"), &pg.url);
    let config = format!(
        r#"
targets:
  - {{name: appdb, mode: enforce, postgres: {{url_file: appdb.url}}}}
  - name: aws-prod
    mode: enforce
    aws:
      account: "{ACCOUNT}"
      region: {REGION}
      credentials_file: own.aws
      endpoint: "{endpoint}"
      inventory: {{credentials_file: reader.aws, every: 1s, secrets: [prod/]}}
rotations:
  - {{name: billing, target: appdb, roles: [{a}, {b}], store: {{realm: aws-prod, {store}}}}}
"#,
        endpoint = moto.proxy.url(),
    );
    let leak = Leak {
        kind: "postgres-role",
        says: "secretsmanager/prod/billing",
        config,
        secret: &old,
        rule: "generic-api-key",
        level: "target",
    };
    let died = leak.dies(home).await;
    let now = stored().await;
    let (user, new) = (now["username"].as_str().unwrap(), now["password"].as_str().unwrap().to_owned());
    // AWS rotates twice: the leaked user's turn has come again.
    let whose = if by_aws { &a } else { &b };
    assert_eq!((user, &now["host"]), (&**whose, &json!("db.example")));
    assert!(pg.login(user, &new).await.is_ok() && pg.login(&a, &old).await.is_err());
    let written = died.written(home).await;
    let secrets = BTreeMap::from([
        ("the old password".to_owned(), old.clone()),
        ("the new password".to_owned(), new),
        ("the login at AWS".to_owned(), moto.own().secret.clone()),
        ("the login of the inventory".to_owned(), reader.key.secret.clone()),
    ]);
    let scanner = Scanner::new(&secrets);
    assert_eq!(scanner.names(leak.report().as_bytes()).len(), 1, "the control");
    written.assert_clean(&scanner);
}
