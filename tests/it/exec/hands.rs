//! How the command gets what it needs: files, wrapping, a boundary, Kafka instead of HTTP.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn by_files_in_memory_that_go() {
    let world = World::new().await;
    let role = world.role();
    let script = format!(
        "cp \"$DB_USERNAME_FILE\" user; cp -p \"$DB_PASSWORD_FILE\" password; env > seen; \
         echo \"$CURFEW_CREDENTIALS\" > where.tmp; mv where.tmp where; {WAITS}"
    );
    let child = world.exec(&["--role", &role, "--file"], &script).spawn().unwrap();
    let folder = until("the folder", || async { fs::read_to_string(world.file("where")).ok() }).await;
    let folder = PathBuf::from(folder.trim());
    let read = |name: &str| fs::read_to_string(world.file(name)).unwrap();
    let got = Got { username: read("user"), password: read("password") };
    assert!(world.pg.login(&got.username, &got.password).await.is_ok());
    assert!(!read("seen").contains(&got.password), "nothing of it in the environment");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("DB_PASSWORD"))), (0o700, 0o600));
    assert!(folder.starts_with("/dev/shm"));
    fs::write(world.file("go"), "").unwrap();
    assert_eq!(ends(child).await.0, Some(0));
    assert!(!folder.exists());
    world.refused(&got).await;
    world.seen_gone(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_names_that_a_client_knows() {
    let world = World::new().await;
    let role = world.role();
    let host = world.pg.host.clone();
    let (host, port) = host.split_once(':').unwrap();
    let flags = ["--role", &role, "--env", "PGUSER=DB.username", "--env", "PGPASSWORD=DB.password"];
    let script = format!("psql -h {host} -p {port} -d postgres -Atc 'SELECT current_user' && ! env | grep ^DB_");
    let (code, out, err) = said(&world.exec(&flags, &script).output().await.unwrap());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("v-"), "{out}");
    world.seen_gone(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_token_that_opens_once() {
    let world = World::new().await;
    let role = world.role();
    let script = format!("printf %s \"$DB_WRAPPED_TOKEN\" > wrapped.tmp; mv wrapped.tmp wrapped; env > seen; {WAITS}");
    let child = world.exec(&["--role", &role, "--wrap"], &script).spawn().unwrap();
    let wrapped = until("the token", || async { fs::read_to_string(world.file("wrapped")).ok() }).await;
    let unwrap = async || world.admin.call_as(&wrapped, "POST", "sys/wrapping/unwrap", json!({})).await;
    let (status, answer) = unwrap().await;
    assert_eq!(status, 200, "{answer}");
    let text = |name: &str| answer["data"][name].as_str().unwrap().to_owned();
    let got = Got { username: text("username"), password: text("password") };
    assert!(world.pg.login(&got.username, &got.password).await.is_ok());
    assert_eq!(unwrap().await.0, 400, "once");
    let seen = fs::read_to_string(world.file("seen")).unwrap();
    assert!(!seen.contains(&got.password));
    fs::write(world.file("go"), "").unwrap();
    assert_eq!(ends(child).await.0, Some(0));
    world.refused(&got).await;
    world.seen_gone(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_boundary() {
    let mut world = World::new().await;
    // The caller may read two things, the task one of them.
    let policies = [unique("one"), unique("other")];
    for (policy, path) in policies.iter().zip(["auth/token/accessors", "sys/policies/acl"]) {
        let text = format!("path \"{path}\" {{ capabilities = [\"list\", \"sudo\"] }}");
        world.admin.done("PUT", &format!("sys/policies/acl/{policy}"), json!({"policy": text})).await;
    }
    let create = unique("create");
    let text = r#"path "auth/token/create" { capabilities = ["update"] }"#;
    world.admin.done("PUT", &format!("sys/policies/acl/{create}"), json!({"policy": text})).await;
    let all = json!({"policies": [&create, &policies[0], &policies[1]]});
    world.token = world.admin.token(all).await.1;
    let script = format!("printf %s \"$VAULT_TOKEN\" > token.tmp; mv token.tmp its-token; {WAITS}");
    let child = world.exec(&["--policy", &policies[1], "--ttl", "10m"], &script).spawn().unwrap();
    let token = until("the token", || async { fs::read_to_string(world.file("its-token")).ok() }).await;
    assert_ne!(token, world.token);
    let as_it = async |method: &str, path: &str| world.admin.call_as(&token, method, path, Value::Null).await;
    assert_eq!(as_it("LIST", "sys/policies/acl").await.0, 200);
    assert_eq!(as_it("LIST", "auth/token/accessors").await.0, 403);
    assert_eq!(as_it("POST", "auth/token/create").await.0, 403, "it has no children");
    let about = as_it("GET", "auth/token/lookup-self").await.1;
    let about = &about["data"];
    assert_eq!((&about["renewable"], &about["type"]), (&json!(false), &json!("service")), "{about}");
    assert!(about["meta"]["curfew_run"].as_str().unwrap().starts_with("/exec:"), "{about}");
    assert!((500..=600).contains(&about["ttl"].as_i64().unwrap()), "{about}");
    assert_eq!(about["explicit_max_ttl"].as_i64().unwrap() / 10, 59, "{about}");
    fs::write(world.file("go"), "").unwrap();
    let (code, _, err) = ends(child).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(!world.admin.token_works(&token).await);
    world.seen_gone(1).await;
    // More than the caller has is not to be had.
    let (code, _, err) = said(&world.exec(&["--policy", "root"], "true").output().await.unwrap());
    assert!(code == Some(125), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn told_through_kafka() {
    let world = World::alone().await;
    let topic = unique("exec");
    crate::intake::create(&topic, 1).await;
    let brokers = crate::intake::brokers();
    let role = world.role();
    let flags = ["--role", &role, "--kafka", &brokers, "--topic", &topic, "--run", "r1"];
    let (code, _, err) = said(&world.exec(&flags, WRITES).output().await.unwrap());
    assert_eq!(code, Some(0), "{err}");
    let got = world.got().unwrap();
    world.refused(&got).await;
    let (count, all) = canary::records(&topic);
    let all = String::from_utf8(all).unwrap();
    let at = |what: &str| all.find(&format!("\"id\":\"r1:1:{what}\"")).unwrap_or_else(|| panic!("{what}: {all}"));
    assert!(count == 3 && at("started") < at("grant:0") && at("grant:0") < at("ended"), "{all}");
    assert!(!all.contains(&got.password) && !all.contains(&world.token));
}
