//! What Vault answers about secrets, and what of it stops a case.

use super::super::outage::Private;
use super::*;

/// The real answers that `src/connector/vault/answers.rs` reads.
#[tokio::test]
async fn what_kv_version_2_answers() {
    let root = Root::shared();
    let mount = root.kv().await;
    let ask = async |method: &str, path: &str, body: Value| root.ask(method, &format!("{mount}/{path}"), body).await;
    let text = |answer: &Value| answer["errors"][0].as_str().unwrap_or_default().to_owned();
    let write = |cas: i64| json!({ "data": { "x": "1" }, "options": { "cas": cas } });
    // Never written: without a word. The same for a version that there is not.
    assert_eq!(ask("GET", "data/a", Value::Null).await, (404, json!({ "errors": [] })));
    assert_eq!(ask("GET", "metadata/a", Value::Null).await, (404, json!({ "errors": [] })));
    assert_eq!(ask("POST", "data/a", write(0)).await.0, 200);
    assert_eq!(ask("GET", "data/a?version=9", Value::Null).await, (404, json!({ "errors": [] })));
    for cas in [0, 9] {
        let (status, answer) = ask("POST", "data/a", write(cas)).await;
        assert_eq!((status, &*text(&answer)), (400, "check-and-set parameter did not match the current version"));
    }
    // Deleted: 404, and yet it is told of. Check-and-set goes by its number.
    assert_eq!(ask("DELETE", "data/a", Value::Null).await.0, 204);
    let (status, answer) = ask("GET", "data/a", Value::Null).await;
    let meta = &answer["data"]["metadata"];
    assert_eq!((status, &answer["data"]["data"], &meta["version"]), (404, &Value::Null, &json!(1)));
    assert!(answer.get("errors").is_none() && meta["deletion_time"] != "" && meta["destroyed"] == false);
    assert_eq!(ask("POST", "data/a", write(0)).await.0, 400);
    assert_eq!(ask("POST", "data/a", write(1)).await.0, 200);
    // Destroyed: the same, and again; also what never was is destroyed without a word.
    for (path, version) in [("a", 2), ("a", 2), ("a", 77), ("never", 1)] {
        assert_eq!(ask("POST", &format!("destroy/{path}"), json!({ "versions": [version] })).await.0, 204);
    }
    let (status, answer) = ask("GET", "data/a", Value::Null).await;
    assert_eq!((status, &answer["data"]["metadata"]["destroyed"]), (404, &json!(true)));
    let (_, answer) = ask("GET", "metadata/a", Value::Null).await;
    assert_eq!(answer["data"]["current_version"], 2);
    assert_eq!(answer["data"]["versions"]["2"]["destroyed"], true);
    // Forgotten with its metadata: numbers begin again.
    for _ in 0..2 {
        assert_eq!(ask("DELETE", "metadata/a", Value::Null).await.0, 204);
    }
    let (_, answer) = ask("POST", "data/a", write(0)).await;
    assert_eq!(answer["data"]["version"], 1);
    // Metadata without a version: still nothing is there.
    assert_eq!(ask("POST", "metadata/b", json!({ "max_versions": 3 })).await.0, 204);
    assert_eq!(ask("GET", "data/b", Value::Null).await, (404, json!({ "errors": [] })));
    assert_eq!(ask("POST", "data/b", write(0)).await.0, 200);
    // Where check-and-set is required.
    assert_eq!(ask("POST", "config", json!({ "cas_required": true })).await.0, 204);
    let (status, answer) = ask("POST", "data/a", json!({ "data": {} })).await;
    assert_eq!((status, &*text(&answer)), (400, "check-and-set parameter required for this call"));
}

/// Version 1 answers 404 and 204 alike: only the mount tells them apart.
#[tokio::test]
async fn only_kv_version_2_is_a_store() {
    let root = Root::shared();
    let (one, database) = (unique("kv"), unique("db"));
    root.put(&format!("sys/mounts/{one}"), json!({ "type": "kv" })).await;
    root.put(&format!("sys/mounts/{database}"), json!({ "type": "database" })).await;
    let two = root.kv().await;
    let ask = async |method: &str, path: &str, body: Value| root.ask(method, &format!("{one}/{path}"), body).await;
    assert_eq!(ask("GET", &format!("data/{PATH}"), Value::Null).await, (404, json!({ "errors": [] })));
    let write = json!({ "data": { "x": "1" }, "options": { "cas": 7 } });
    assert_eq!(ask("POST", "data/a", write).await.0, 204, "check-and-set means nothing to it");
    assert_eq!(ask("POST", "destroy/a", json!({ "versions": [1] })).await.0, 204);
    assert_eq!(ask("DELETE", "metadata/a", Value::Null).await.0, 204);

    let token = settings(&root.address, &root.token);
    let mut token = token;
    token.auth = Auth::Token(SecretString::from(root.token_of(&["root"]).await.0));
    for (mount, note) in [
        (&one, "this mount is KV version 1, which keeps no versions: upgrade it to version 2"),
        (&database, "another engine than KV version 2 is at this mount"),
        (&format!("{two}/app"), "this is a path below a mount, and not a mount"),
        (&unique("none"), "Vault has no such mount, or our policy reaches nothing there"),
    ] {
        let place = place(mount);
        let store = store(&token, std::slice::from_ref(&place)).await;
        let turn = Turn { old: Some(generation(1, "app_a")), ..Turn::default() };
        let subject = subject(&store, &place, turn, Some(Uuid::new_v4()));
        for failure in [
            store.observe(&subject).await.unwrap_err(),
            store.perform(Act::Create, &subject).await.unwrap_err(),
            store.perform(Act::Destroy, &subject).await.unwrap_err(),
            store.perform(Act::Discard, &subject).await.unwrap_err(),
        ] {
            assert_eq!((failure.kind, failure.note.as_str()), (FailureKind::Refused, note), "{mount}");
        }
    }
    // A mount that was exchanged while we ran: what it does not know is not "gone".
    let place = place(&two);
    let store = store(&token, std::slice::from_ref(&place)).await;
    let subject = subject(&store, &place, Turn::default(), None);
    assert_eq!(store.observe(&subject).await.unwrap().presence, Presence::Gone);
    root.ask("DELETE", &format!("sys/mounts/{two}"), Value::Null).await;
    root.put(&format!("sys/mounts/{two}"), json!({ "type": "kv" })).await;
    assert_eq!(kind(store.observe(&subject).await), FailureKind::Refused);
}

#[tokio::test]
async fn a_secret_that_is_not_as_the_recipe_says_is_refused() {
    let bench = Bench::new().await;
    let (store, root, mount) = (&bench.store, &bench.root, &bench.mount);
    for fields in
        [json!({ "username": "app_a" }), json!({ "username": "app_a", "password": 1 }), json!({ "password": "x" })]
    {
        root.secret(mount, PATH, fields).await;
        assert_eq!(kind(store.observe(&bench.subject(Turn::default(), None)).await), FailureKind::Refused);
        assert_eq!(kind(store.read(&bench.place, Which::Current).await.map(drop)), FailureKind::Refused);
    }
    // Another user than those of the recipe, and nothing at all.
    root.secret(mount, PATH, json!({ "username": "somebody", "password": "x" })).await;
    let failure =
        store.perform(Act::Create, &bench.subject(bench.looked().await, Some(Uuid::new_v4()))).await.unwrap_err();
    assert_eq!((failure.kind, &*failure.note), (FailureKind::Refused, "the stored user is none of the recipe's"));
    root.ask("DELETE", &format!("{mount}/data/{PATH}"), Value::Null).await;
    let seen = store.observe(&bench.subject(Turn::default(), None)).await.unwrap();
    assert_eq!((seen.presence, seen.current), (Presence::Gone, None));
    assert!(store.read(&bench.place, Which::Current).await.unwrap().is_none());
    let failure = store.perform(Act::Create, &bench.subject(Turn::default(), Some(Uuid::new_v4()))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert_eq!(bench.side().await, None);
    // Without a recipe there is nothing to say.
    assert_eq!(kind(store.observe(&about(Kind::PostgresRole, "app_a,app_b")).await), FailureKind::Refused);
}

#[tokio::test]
async fn places_that_are_none_stop_the_start() {
    let root = Root::shared();
    let start = async |places: Vec<Place>| {
        connect_stores(REALM, &settings(&root.address, &root.token), Mode::Observe, System::shared(), &places, &[])
            .await
            .map(drop)
    };
    let good = place("kv");
    assert_eq!(start(vec![good.clone()]).await, Ok(()));
    for path in ["", "/app", "app/", "a//b", "a/../b", "app/*", "a b", "a?version=1", "curfew-pending/app", "%2e"] {
        let bad = Place { path: path.to_owned(), ..good.clone() };
        assert!(matches!(start(vec![bad]).await, Err(ConnectError::Settings(_))), "{path}");
    }
    for (field, user) in [("", "username"), ("curfew_key", "username"), ("password", "password"), ("password", "")] {
        let bad = Place { field: field.to_owned(), user_field: Some(user.to_owned()), ..good.clone() };
        assert!(matches!(start(vec![bad]).await, Err(ConnectError::Settings(_))), "{field} {user}");
    }
    let other = Place { field: "other".to_owned(), ..good.clone() };
    assert!(matches!(start(vec![good, other]).await, Err(ConnectError::Settings(_))), "two recipes, one secret");
}

#[tokio::test]
async fn our_policy_is_told_from_a_secret_out_of_reach() {
    let bench = Bench::new().await;
    let (root, mount) = (&bench.root, &bench.mount);
    let other = Place { path: "app/other".to_owned(), ..bench.place.clone() };
    root.secret(mount, "app/other", json!({ "username": "app_a", "password": "other's" })).await;
    // The recipe's paths are allowed, this one is not: nothing is blocked.
    let failure = bench.store.observe(&subject(&bench.store, &other, Turn::default(), None)).await.unwrap_err();
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Refused, false));
    // The policy lets do nothing beyond it.
    let (token, _) = root.token_of(&[&root.kv_policy("kv-store", mount).await]).await;
    for (method, path) in [
        ("DELETE", format!("data/{PATH}")),
        ("DELETE", format!("metadata/{PATH}")),
        ("LIST", "metadata/app".to_owned()),
        ("GET", "data/app/other".to_owned()),
        ("POST", "destroy/app/other".to_owned()),
        ("POST", format!("metadata/{PATH}")),
        ("GET", "data/curfew-pending/app/other".to_owned()),
    ] {
        let body = if method == "POST" { json!({ "versions": [1], "max_versions": 1 }) } else { Value::Null };
        let (status, _) = root.ask_as(&token, method, &format!("{mount}/{path}"), body).await;
        assert_eq!(status, 403, "{method} {path}");
    }
    // Each right that is missing is our own access: the system is blocked, and the note names it.
    let whole = std::fs::read_to_string(crate::repository().join("deploy/vault/kv-store.hcl")).unwrap();
    for (path, right) in [("data/app", "update"), ("metadata/app", "read"), ("destroy/app", "update")]
        .into_iter()
        .chain([("data/curfew-pending", "create"), ("metadata/curfew-pending", "delete")])
    {
        let mut lines: Vec<String> =
            whole.replace("\"kv/", &format!("\"{mount}/")).lines().map(str::to_owned).collect();
        let line = lines.iter_mut().find(|line| line.contains(&format!("{mount}/{path}"))).unwrap();
        *line = line.replace(&format!("\"{right}\""), "\"list\"");
        let name = unique("less");
        root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": lines.join("\n") })).await;
        let (token, _) = root.token_of(&[&name]).await;
        let less = store(&settings(&root.address, &token), std::slice::from_ref(&bench.place)).await;
        let failure = less.self_check().await.unwrap_err();
        assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true), "{path} {right}");
        assert!(failure.note.contains(right) && failure.note.contains(path), "{failure}");
    }
    // A login without any of it.
    let (token, _) = root.token(json!({ "policies": ["default"], "ttl": "10m" })).await;
    let blind = store(&settings(&root.address, &token), std::slice::from_ref(&bench.place)).await;
    let failure = blind.observe(&bench.subject(Turn::default(), None)).await.unwrap_err();
    assert_eq!((failure.kind, failure.blocks_system), (FailureKind::Denied, true));
    // One that only observes needs no more than to read.
    let text = format!("path \"{mount}/data/{PATH}\" {{ capabilities = [\"read\"] }}");
    let name = unique("observe");
    root.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
    let (token, _) = root.token(json!({ "policies": ["default", name], "ttl": "10m" })).await;
    let places = [bench.place.clone()];
    let settings = settings(&root.address, &token);
    let observes =
        connect_stores(REALM, &settings, Mode::Observe, System::shared(), &places, &[]).await.unwrap().remove(0);
    observes.self_check().await.unwrap();
    observes.observe(&bench.subject(Turn::default(), None)).await.unwrap();
}

#[tokio::test]
async fn a_sealed_vault_has_done_nothing() {
    let vault = Private::start().await;
    let root = vault.root.clone();
    let mount = root.kv().await;
    root.secret(&mount, PATH, json!({ "username": "app_a", "password": "first" })).await;
    let place = place(&mount);
    let store = store(&settings(&root.address, &root.token), std::slice::from_ref(&place)).await;
    let seen = store.observe(&subject(&store, &place, Turn::default(), None)).await.unwrap();
    let turn = Turn { old: seen.current, ..Turn::default() };
    let subject = subject(&store, &place, turn, Some(Uuid::new_v4()));
    root.put("sys/seal", json!({})).await;
    for act in [Act::Create, Act::Promote, Act::Destroy, Act::Discard] {
        assert_eq!(kind(store.perform(act, &subject).await), FailureKind::Unavailable, "{act:?}");
    }
    assert_eq!(kind(store.observe(&subject).await), FailureKind::Unavailable);
    vault.unseal().await;
    store.perform(Act::Create, &subject).await.unwrap();
    assert_eq!(store.perform(Act::Promote, &subject).await.unwrap().current, Some(generation(2, "app_b")));
}
