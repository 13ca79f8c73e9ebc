//! The inventory's reader on a real Vault: what it learns, what it leaves out, and that no value comes out.

use std::collections::HashMap;
use std::num::NonZeroU32;

use curfew::fingerprint::Keys;
use curfew::inventory::vault::Reader;
use curfew::inventory::{Changed, Learned, Scan, Watch};
use tokio::sync::mpsc;

use super::*;

const FAST: NonZeroU32 = NonZeroU32::new(5000).unwrap();

fn keys() -> Keys {
    let line = |kid: &str, byte: &str| format!("{kid} {}\n", byte.repeat(32));
    Keys::parse((line("k2", "ab") + &line("k1", "cd")).as_bytes()).unwrap()
}

fn watch(mount: &str, paths: &[&str]) -> Watch {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Watch {
        mount: mount.to_owned(),
        paths,
        static_roles: Vec::new(),
        fields: None,
        user_field: Some("username".to_owned()),
        user_fields: Default::default(),
    }
}

async fn reader(settings: &VaultSettings, watches: Vec<Watch>) -> Reader {
    Reader::open(REALM, settings, System::shared(), watches, keys(), FAST).await.unwrap()
}

async fn scan(reader: &Reader, since: &HashMap<String, i64>) -> (Scan, Vec<Changed>) {
    let (out, mut inbox) = mpsc::channel(1);
    let collect = async {
        let mut all = Vec::new();
        while let Some(changed) = inbox.recv().await {
            all.push(changed);
        }
        all
    };
    let scanned = async {
        let scanned = reader.scan(since, &out).await;
        drop(out);
        scanned
    };
    let (scan, mut all) = tokio::join!(scanned, collect);
    all.sort_by(|a, b| a.secret.cmp(&b.secret));
    (scan, all)
}

fn of<'a>(all: &'a [Changed], place: &str, current: bool) -> Option<&'a Learned> {
    let mut learned = all.iter().flat_map(|changed| &changed.values);
    learned.find(|learned| learned.current == current && learned.place == place)
}

#[tokio::test]
async fn values_are_learned_as_fingerprints_and_only_those_that_changed() {
    let root = Root::shared();
    let mount = root.kv().await;
    let token = root.token_of(&[&root.kv_policy("kv-inventory", &mount).await]).await.0;
    let (old, new) = ("first-value-of-db", "second-value-of-db");
    root.secret(&mount, "app/db", json!({ "username": "app_a", "password": "zeroth-value-of-db" })).await;
    root.secret(&mount, "app/db", json!({ "username": "app_a", "password": old })).await;
    root.secret(&mount, "app/db", json!({ "username": "app_b", "password": new, "port": 5432, "short": "x" })).await;
    let nested = json!({ "tls": { "key": "nested-key-value" }, "list": ["first-of-list", { "deep": "deep-in-list" }] });
    root.secret(&mount, "app/team/one", nested).await;
    root.secret(&mount, "app/gone", json!({ "password": "deleted-later" })).await;
    root.secret(&mount, "app/gone", json!({ "password": "deleted-now" })).await;
    root.ask("DELETE", &format!("{mount}/data/app/gone"), Value::Null).await;
    root.secret(&mount, "curfew-pending/app/db", json!({ "password": "a-candidate-value" })).await;
    root.secret(&mount, "other/db", json!({ "password": "out-of-our-reach" })).await;

    let reader = reader(&settings(&root.address, &token), vec![watch(&mount, &["app/"])]).await;
    let (scanned, all) = scan(&reader, &HashMap::new()).await;
    assert_eq!(scanned, Scan { secrets: 3, changed: 3, partial: false, faults: Vec::new() });
    let at = |rest: &str| format!("{REALM}/{mount}/{rest}");
    let current = of(&all, &at("app/db#password"), true).unwrap();
    assert_eq!((current.version, current.user.as_deref()), (3, Some("app_b")));
    assert_eq!(current.fingerprints, keys().of(new));
    assert_eq!(current.fingerprints.len(), 2, "by each live key");
    let before = of(&all, &at("app/db#password"), false).unwrap();
    assert_eq!((before.version, before.user.as_deref()), (2, Some("app_a")));
    assert_eq!(before.fingerprints, keys().of(old));
    for (place, value) in [
        ("app/team/one#tls/key", "nested-key-value"),
        ("app/team/one#list/0", "first-of-list"),
        ("app/team/one#list/1/deep", "deep-in-list"),
    ] {
        assert_eq!(of(&all, &at(place), true).unwrap().fingerprints, keys().of(value), "{place}");
    }
    // A deleted version is not read; the one before it still is.
    assert!(of(&all, &at("app/gone#password"), true).is_none());
    assert_eq!(of(&all, &at("app/gone#password"), false).unwrap().fingerprints, keys().of("deleted-later"));
    let places: Vec<&str> = all.iter().flat_map(|changed| &changed.values).map(|one| one.place.as_str()).collect();
    assert_eq!(places.len(), 6, "no user name, no number, nothing too short: {places:?}");
    let text = format!("{all:?} {scanned:?}");
    for value in [old, new, "zeroth-value", "nested-key", "first-of-list", "deep-in-list", "deleted", "candidate"] {
        assert!(!text.contains(value), "{value}");
    }

    // Nothing changed: nothing is read. Then one secret.
    let mut since: HashMap<String, i64> = all.iter().map(|changed| (changed.secret.clone(), changed.version)).collect();
    assert_eq!(since[&format!("{mount}/app/gone")], 2);
    let (scanned, all) = scan(&reader, &since).await;
    assert_eq!((scanned.secrets, scanned.changed, all.len()), (3, 0, 0));
    root.secret(&mount, "app/db", json!({ "username": "app_a", "password": "third-value-of-db" })).await;
    let (scanned, all) = scan(&reader, &since).await;
    assert_eq!((scanned.changed, all[0].version), (1, 4));
    assert_eq!(of(&all, &at("app/db#password"), false).unwrap().fingerprints, keys().of(new));
    since.insert(all[0].secret.clone(), all[0].version);
    assert_eq!(scan(&reader, &since).await.1, []);
    // Only some fields, of one secret by its name.
    let mut few = watch(&mount, &["app/team/one"]);
    few.fields = Some(vec!["tls".to_owned()]);
    let few = self::reader(&settings(&root.address, &token), vec![few]).await;
    let (_, all) = scan(&few, &HashMap::new()).await;
    assert_eq!(all[0].values.iter().map(|one| &one.place).collect::<Vec<_>>(), [&at("app/team/one#tls/key")]);
    // The policy lets nothing be written.
    for (method, path) in
        [("POST", "data/app/db"), ("DELETE", "data/app/db"), ("POST", "destroy/app/db"), ("DELETE", "metadata/app/db")]
    {
        let body = if method == "POST" { json!({ "data": {}, "versions": [1] }) } else { Value::Null };
        assert_eq!(root.ask_as(&token, method, &format!("{mount}/{path}"), body).await.0, 403, "{method} {path}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_ends_nothing_else() {
    let root = Root::shared();
    let (mount, one) = (root.kv().await, unique("kv"));
    root.put(&format!("sys/mounts/{one}"), json!({ "type": "kv" })).await;
    let policy = root.kv_policy("kv-inventory", &mount).await;
    let extra = unique("extra");
    let text = format!(
        "path \"{mount}/metadata/seen/*\" {{ capabilities = [\"list\", \"read\"] }}\npath \"{one}/*\" {{ capabilities = [\"list\", \"read\"] }}"
    );
    root.put(&format!("sys/policies/acl/{extra}"), json!({ "policy": text })).await;
    let token = root.token_of(&[&policy, &extra]).await.0;
    for path in ["app/a", "app/b", "seen/c", "hidden/d", "app/odd name", "app/1/2/3/4/5/6/7/8/e"] {
        root.secret(&mount, path, json!({ "password": format!("the-value-of-{path}") })).await;
    }
    let watches =
        vec![watch(&one, &["app/"]), watch(&mount, &["hidden/", "hidden/d", "seen/c", "app/", "app/none", "none/"])];
    let reader = reader(&settings(&root.address, &token), watches).await;
    let (scanned, all) = scan(&reader, &HashMap::new()).await;
    let secrets: Vec<&str> = all.iter().map(|changed| changed.secret.as_str()).collect();
    assert_eq!(secrets, [format!("{mount}/app/a"), format!("{mount}/app/b")]);
    assert!(scanned.partial);
    let reach = "our policy does not reach this credential";
    let faults: Vec<(&str, &str)> = scanned.faults.iter().map(|one| (one.path.as_str(), one.note.as_str())).collect();
    let fault = |path: &str| {
        let path = if path.starts_with(&one) { path.to_owned() } else { format!("{mount}/{path}") };
        faults.iter().find(|(at, _)| *at == path).map(|(_, note)| *note)
    };
    assert!(fault(&format!("{one}/app/")).unwrap().starts_with("this mount is KV version 1"), "{faults:?}");
    for path in ["hidden/", "hidden/d", "seen/c", "none/"] {
        assert_eq!(fault(path), Some(reach), "{path}: {faults:?}");
    }
    assert!(fault("app/odd name").is_some() && fault("app/1/2/3/4/5/6/7/8/").is_some(), "{faults:?}");
    assert_eq!(faults.len(), 7, "what is not there is no fault: {faults:?}");

    // Nobody takes what is found, and a Vault that answers nothing: the rest is left out, and the scan says so.
    let (out, inbox) = mpsc::channel(1);
    drop(inbox);
    assert!(reader.scan(&HashMap::new(), &out).await.partial);
    let proxy = Proxy::to(root.address.trim_start_matches("http://")).await;
    let far = settings(&format!("http://{}", proxy.address), &token);
    let far = self::reader(&far, vec![watch(&mount, &["app/"])]).await;
    proxy.off();
    let (scanned, all) = scan(&far, &HashMap::new()).await;
    assert!(scanned.partial && scanned.faults.len() == 1 && all.is_empty(), "{scanned:?}");
    // A watch that names nothing.
    let near = settings(&root.address, &token);
    let nothing = Reader::open(REALM, &near, System::shared(), vec![watch(&mount, &[""])], keys(), FAST);
    assert!(matches!(nothing.await.err(), Some(ConnectError::Settings(_))));
}

#[tokio::test]
async fn what_a_static_role_hands_out_is_learned_when_it_was_rotated() {
    let root = Root::shared();
    let mount = root.database(&postgres_address()).await;
    let user = unique("static").replace('-', "_");
    let admin = crate::admin::Postgres::shared().pool().await;
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE ROLE {user} LOGIN"))).execute(&admin).await.unwrap();
    let role = json!({ "db_name": "pg", "username": user, "rotation_period": "24h" });
    root.put(&format!("{mount}/static-roles/app"), role).await;
    let text = std::fs::read_to_string(crate::repository().join("deploy/vault/kv-inventory.hcl")).unwrap();
    let name = unique("inventory");
    let policy = json!({ "policy": text.replace("path \"database/", &format!("path \"{mount}/")) });
    root.put(&format!("sys/policies/acl/{name}"), policy).await;
    let (token, _) = root.token_of(&[&name]).await;
    let roles = ["app", "none"].map(str::to_owned).to_vec();
    let watch = Watch { static_roles: roles, user_field: None, ..watch(&mount, &[]) };
    let reader = reader(&settings(&root.address, &token), vec![watch]).await;
    let handed_out = async || {
        let (_, answer) = root.ask("GET", &format!("{mount}/static-creds/app"), Value::Null).await;
        let at: jiff::Timestamp = answer["data"]["last_vault_rotation"].as_str().unwrap().parse().unwrap();
        (at.as_millisecond(), answer["data"]["password"].as_str().unwrap().to_owned())
    };
    let mut since = HashMap::new();
    for round in 0..2 {
        let (version, password) = handed_out().await;
        let (read, all) = scan(&reader, &since).await;
        assert_eq!(
            (read.changed, read.secrets),
            (1, 2),
            "{round}: the other one is out of the policy's reach: {read:?}"
        );
        assert!(read.partial && read.faults[0].path.ends_with("static-creds/none"));
        let learned = of(&all, &format!("{REALM}/{mount}/static-creds/app#password"), true).unwrap();
        assert_eq!((learned.version, learned.user.as_deref()), (version, Some(&*user)));
        assert_eq!(learned.fingerprints, keys().of(&password));
        assert!(!format!("{all:?}").contains(&password));
        since = all.iter().map(|changed| (changed.secret.clone(), changed.version)).collect();
        assert_eq!(scan(&reader, &since).await.0.changed, 0);
        root.put(&format!("{mount}/rotate-role/app"), json!({})).await;
    }
}
