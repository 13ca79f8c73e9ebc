//! Keys of fingerprints, wrapped by the transit engine: what it answers, under the policies of `deploy/vault`.

use curfew::connector::vault::transit::{Transit, TransitError};
use curfew::fingerprint::{BadContent, BadKeys, KeyFile, Keys, new_key, rewrap};

use super::outage::Private;
use super::*;
use crate::admin::Admin;

const KEY: &str = "curfew-fingerprint";

async fn transit(admin: &Admin, token: &str, mount: &str, key: &str) -> Transit {
    Transit::open(REALM, &settings(&admin.address, token), mount, key, System::shared()).await.unwrap()
}

/// Why a text is not unwrapped, in words.
async fn no(transit: &Transit, wrapped: &str) -> TransitError {
    let why = transit.unwrap(wrapped).await.unwrap_err();
    assert!(!why.to_string().contains(wrapped) && !format!("{why:?}").contains(wrapped), "{why}");
    why
}

#[tokio::test]
async fn who_makes_keys_sees_none_and_who_uses_them_makes_none() {
    let admin = Admin::shared();
    let mount = admin.transit().await;
    let (uses, makes) = admin.transit_logins(&mount).await;
    let (user, maker) = (transit(&admin, &uses, &mount, KEY).await, transit(&admin, &makes, &mount, KEY).await);
    let (one, other) = (maker.new_wrapped().await.unwrap(), maker.new_wrapped().await.unwrap());
    assert!(one.starts_with("vault:v1:") && one != other);
    let key = user.unwrap(&one).await.unwrap();
    assert_eq!((key.len(), &*key), (32, &*user.unwrap(&one).await.unwrap()));
    assert_ne!(*key, *user.unwrap(&other).await.unwrap());
    let path = |what: &str| TransitError::NoRight { path: format!("{mount}/{what}/{KEY}") };
    assert_eq!(no(&maker, &one).await, path("decrypt"));
    assert_eq!(user.new_wrapped().await.unwrap_err(), path("datakey/wrapped"));
    assert_eq!(user.rewrap(&one).await.unwrap_err(), path("rewrap"));
    // Not even with another path than ours.
    for (token, what) in [(&makes, "datakey/plaintext"), (&makes, "decrypt"), (&uses, "encrypt"), (&uses, "export")] {
        let body = json!({ "ciphertext": one, "plaintext": "AAAA" });
        assert_eq!(admin.call_as(token, "POST", &format!("{mount}/{what}/{KEY}"), body).await.0, 403, "{what}");
    }
}

#[tokio::test]
async fn what_is_not_unwrapped_says_why() {
    let admin = Admin::shared();
    let mount = admin.transit().await;
    let (uses, makes) = admin.transit_logins(&mount).await;
    let root = env("CURFEW_TEST_VAULT_TOKEN");
    let wrapped = transit(&admin, &makes, &mount, KEY).await.new_wrapped().await.unwrap();
    let user = transit(&admin, &uses, &mount, KEY).await;
    for (name, kind) in
        [("other", json!({})), ("derived", json!({"derived": true})), ("signs", json!({"type": "ed25519"}))]
    {
        admin.done("POST", &format!("{mount}/keys/{name}"), kind).await;
    }
    let refused = async |transit: &Transit, wrapped: &str, words: &str| match no(transit, wrapped).await {
        TransitError::Refused(failure) => assert!(failure.note.contains(words), "{failure}"),
        why => panic!("{why:?}"),
    };
    let (version, content) = wrapped.rsplit_once(':').unwrap();
    let mut bytes: Vec<char> = content.chars().collect();
    bytes[20] = if bytes[20] == 'A' { 'B' } else { 'A' };
    let damaged: String = bytes.iter().collect();
    refused(&user, &format!("{version}:{damaged}"), "did not wrap it").await;
    refused(&user, &format!("vault:v7:{content}"), "did not wrap it").await;
    refused(&user, &format!("{version}:AAAA"), "did not wrap it").await;
    refused(&user, "c3b1f0a7", "did not wrap it").await;
    refused(&transit(&admin, &root, &mount, "other").await, &wrapped, "did not wrap it").await;
    refused(&transit(&admin, &root, &mount, "derived").await, &wrapped, "not `derived`").await;
    refused(&transit(&admin, &root, &mount, "signs").await, &wrapped, "aes256-gcm96").await;
    refused(&transit(&admin, &root, &unique("none"), KEY).await, &wrapped, "no such mount").await;
    let absent = transit(&admin, &root, &mount, "absent").await;
    assert!(matches!(no(&absent, &wrapped).await, TransitError::NoKey { key, .. } if key == "absent"));
    assert!(matches!(absent.new_wrapped().await, Err(TransitError::NoKey { .. })));
    // A login without the right is told so, whatever is there.
    let foreign = transit(&admin, &uses, &mount, "absent").await;
    assert!(matches!(no(&foreign, &wrapped).await, TransitError::NoRight { .. }));
    for (mount, key) in [("", "k"), ("m/../x", "k"), ("m", "a/b"), ("m", ""), ("m?x", "k")] {
        let opened = Transit::open(REALM, &settings(&admin.address, &uses), mount, key, System::shared()).await;
        assert!(matches!(opened.err(), Some(ConnectError::Settings(_))), "{mount} {key}");
    }
    let nobody = Transit::open(REALM, &settings(&admin.address, "hvs.nobody"), &mount, KEY, System::shared()).await;
    assert!(matches!(nobody.err(), Some(ConnectError::Login(_))));
}

#[tokio::test]
async fn plain_and_wrapped_keys_stand_in_one_file_and_outlive_the_transit_key_s_versions() {
    let admin = Admin::shared();
    let mount = admin.transit().await;
    let (uses, makes) = admin.transit_logins(&mount).await;
    let (user, maker) = (transit(&admin, &uses, &mount, KEY).await, transit(&admin, &makes, &mount, KEY).await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let read = || KeyFile::read(&path).unwrap();
    let plain = new_key(&path, false, None).unwrap();
    let by_plain = Keys::read(&path).unwrap().of("a secret value");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("# ours\n{text}")).unwrap();
    let made = new_key(&path, false, Some(&maker.new_wrapped().await.unwrap())).unwrap();
    assert_eq!(made.kept, Some(plain.kid.clone()));
    // Without Vault it opens nothing; with it, the newest key is the wrapped one.
    assert!(read().is_wrapped());
    let locked = Keys::read(&path).unwrap_err();
    assert!(matches!(locked, BadKeys::Content { why: BadContent::Locked { line: 1 }, .. }), "{locked}");
    let keys = read().unwrapped(&user).await.unwrap();
    let both = keys.of("a secret value");
    assert_eq!(keys.kids().collect::<Vec<_>>(), [&made.kid, &plain.kid]);
    assert_eq!(both[1], by_plain[0]);
    // What Vault unwraps is the key itself.
    let wrapped = std::fs::read_to_string(&path).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let bare = hex::encode(&*user.unwrap(&wrapped).await.unwrap());
    assert_eq!(Keys::parse(format!("{} {bare}", made.kid).as_bytes()).unwrap().of("a secret value")[0], both[0]);

    // A newer transit key opens what the older one wrapped, and wraps it anew; the file's other lines stay.
    admin.done("POST", &format!("{mount}/keys/{KEY}/rotate"), Value::Null).await;
    assert_eq!(read().unwrapped(&user).await.unwrap().of("a secret value"), both);
    let before = std::fs::read_to_string(&path).unwrap();
    assert_eq!(rewrap(&path, &maker).await.unwrap(), std::slice::from_ref(&made.kid));
    let after = std::fs::read_to_string(&path).unwrap();
    assert!(after.contains(&format!("{} vault:v2:", made.kid)) && after.contains("# ours") && after != before);
    assert_eq!(after.lines().skip(1).collect::<Vec<_>>(), before.lines().skip(1).collect::<Vec<_>>());
    // The older version retires: what is wrapped anew works on, what is not says what to do.
    admin.done("POST", &format!("{mount}/keys/{KEY}/config"), json!({"min_decryption_version": 2})).await;
    assert_eq!(read().unwrapped(&user).await.unwrap().of("a secret value"), both);
    std::fs::write(&path, &before).unwrap();
    let retired = read().unwrapped(&user).await.unwrap_err();
    assert!(matches!(&retired, BadKeys::Wrapped { line: 1, why: TransitError::Retired, .. }), "{retired}");
    assert!(retired.to_string().contains("--rewrap") && !retired.may_pass());
    assert!(matches!(rewrap(&path, &maker).await, Err(BadKeys::Wrapped { why: TransitError::Retired, .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before, "what cannot be wrapped anew is left as it is");
    // Two are live, whoever wrapped them; a third one takes the oldest one's place.
    std::fs::write(&path, &after).unwrap();
    let wrapped = maker.new_wrapped().await.unwrap();
    assert!(new_key(&path, false, Some(&wrapped)).unwrap_err().to_string().contains("at most 2 keys"));
    assert_eq!(new_key(&path, true, Some(&wrapped)).unwrap().dropped, Some(plain.kid));
    assert_eq!(read().unwrapped(&user).await.unwrap().of("a secret value")[1], both[0]);

    // What was wrapped by hand and is no key; and a file with nothing to wrap anew.
    let short = admin.call("POST", &format!("{mount}/encrypt/{KEY}"), json!({"plaintext": "c2hvcnQ="})).await.1;
    std::fs::write(&path, format!("k1 {}\n", short["data"]["ciphertext"].as_str().unwrap())).unwrap();
    let short = read().unwrapped(&user).await.unwrap_err();
    assert!(matches!(short, BadKeys::Content { why: BadContent::Short { line: 1 }, .. }), "{short}");
    std::fs::write(&path, text).unwrap();
    let none = rewrap(&path, &maker).await.unwrap_err();
    assert!(matches!(none, BadKeys::Content { why: BadContent::NoneWrapped, .. }), "{none}");
}

#[tokio::test]
async fn a_vault_that_is_away_or_sealed_may_unwrap_later() {
    let vault = Private::start().await;
    let admin = Admin::at(&vault.root.address, &vault.root.token);
    let mount = admin.transit().await;
    let (uses, makes) = admin.transit_logins(&mount).await;
    let wrapped = transit(&admin, &makes, &mount, KEY).await.new_wrapped().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    new_key(&path, false, Some(&wrapped)).unwrap();
    let file = KeyFile::read(&path).unwrap();
    let user = transit(&admin, &uses, &mount, KEY).await;
    vault.root.put("sys/seal", json!({})).await;
    let late = transit(&admin, &uses, &mount, KEY).await;
    for transit in [&user, &late] {
        let away = file.unwrapped(transit).await.unwrap_err();
        assert!(away.may_pass() && away.to_string().contains("Vault is sealed"), "{away}");
    }
    vault.unseal().await;
    for transit in [&user, &late] {
        assert!(file.unwrapped(transit).await.is_ok());
    }
    let nowhere = Admin::at("http://127.0.0.1:1", "");
    let away = file.unwrapped(&transit(&nowhere, &uses, &mount, KEY).await).await.unwrap_err();
    assert!(away.may_pass() && away.to_string().contains("no connection to Vault"), "{away}");
}
