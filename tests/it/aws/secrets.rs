//! What the inventory reads of Secrets Manager: each secret once for each of its changes.

use std::collections::HashMap;
use std::num::NonZeroU32;

use curfew::clock;
use curfew::connector::aws::secrets::Secrets;
use curfew::fingerprint::Keys;
use curfew::inventory::secrets::Reader;
use curfew::inventory::{Changed, Scan};
use serde_json::json;

use super::Moto;
use super::proxy::Fault;

const PACE: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

async fn reader(moto: &Moto, watched: &[&str]) -> Reader {
    let key = moto.user("curfew/reader").await.key;
    let may = moto.root.put_user_policy().user_name("reader").policy_name("own");
    may.policy_document(super::policy("inventory.json")).send().await.unwrap();
    let secrets = Secrets::open("aws", &moto.settings_of(&key), clock::System::shared(), &[]).await.unwrap();
    let watched = watched.iter().map(|name| (*name).to_owned()).collect();
    Reader::new(
        secrets,
        watched,
        Default::default(),
        Keys::parse(format!("k1 {}\n", "ab".repeat(32)).as_bytes()).unwrap(),
        PACE,
    )
}

async fn scan(reader: &Reader, since: &HashMap<String, i64>) -> (Scan, Vec<Changed>) {
    let (sender, mut changed) = tokio::sync::mpsc::channel(1_000);
    let scan = reader.scan(since, &sender).await;
    drop(sender);
    let mut all = Vec::new();
    while let Some(one) = changed.recv().await {
        all.push(one);
    }
    (scan, all)
}

async fn made(moto: &Moto, name: &str, value: &str) {
    let fields = json!({"username": "app", "password": value}).to_string();
    moto.secrets.create_secret().name(name).secret_string(fields).send().await.unwrap();
}

fn reads(moto: &Moto) -> usize {
    moto.proxy.calls().iter().filter(|(call, _)| call == "GetSecretValue").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_once_for_each_of_its_changes() {
    let moto = Moto::start().await;
    for n in 0..150 {
        made(&moto, &format!("prod/app-{n:03}"), &format!("a-value-of-app-{n:03}")).await;
    }
    for other in ["dev/app", "prod", "PROD/app", "one"] {
        made(&moto, other, "a-value-of-another").await;
    }
    let reader = reader(&moto, &["prod/", "one"]).await;
    let (first, learned) = scan(&reader, &HashMap::new()).await;
    assert_eq!((first.secrets, first.changed, first.partial), (151, 151, false), "{:?}", first.faults);
    assert_eq!(reads(&moto), 151);
    let one = learned.iter().find(|changed| changed.secret == "secretsmanager/one").unwrap();
    let places: Vec<&str> = one.values.iter().map(|value| value.place.as_str()).collect();
    assert_eq!(places, ["aws/secretsmanager/one#password"], "a user's name is too short to be a secret");
    assert!(one.values[0].current && one.values[0].version > 1_700_000_000_000);

    let mut since: HashMap<String, i64> = learned.into_iter().map(|one| (one.secret, one.version)).collect();
    let (second, learned) = scan(&reader, &since).await;
    assert_eq!((second.secrets, second.changed, learned.len()), (151, 0, 0));
    assert_eq!(reads(&moto), 151, "what has not changed is not read again");

    // Another value, and another label, are each a change.
    let fields = json!({"username": "app", "password": "a-newer-value"}).to_string();
    let put = moto.secrets.put_secret_value().secret_id("prod/app-007").secret_string(fields);
    put.send().await.unwrap();
    let (third, learned) = scan(&reader, &since).await;
    assert_eq!((third.changed, reads(&moto)), (1, 153));
    let [old, new] = [false, true].map(|current| learned[0].values.iter().find(|one| one.current == current).unwrap());
    assert!(old.version < new.version && old.fingerprints != new.fingerprints);
    since.insert(learned[0].secret.clone(), learned[0].version);
    let known = moto.secrets.describe_secret().secret_id("prod/app-007").send().await.unwrap();
    let labels = known.version_ids_to_stages().unwrap();
    let before = labels.iter().find(|(_, labels)| labels.contains(&"AWSPREVIOUS".to_owned())).unwrap().0;
    let strip = moto.secrets.update_secret_version_stage().secret_id("prod/app-007").version_stage("AWSPREVIOUS");
    strip.remove_from_version_id(before).send().await.unwrap();
    let (fourth, learned) = scan(&reader, &since).await;
    assert_eq!((fourth.changed, learned[0].values.len(), reads(&moto)), (1, 1, 154));
}

/// As many as one account's inventory takes. Each is read once, and what has not changed is not read again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "ten thousand secrets at moto: minutes"]
async fn ten_thousand_secrets_are_read_once() {
    const MANY: usize = 10_000;
    let moto = Moto::start().await;
    // One after the other: moto's dictionary is not made for more.
    for n in 0..MANY {
        made(&moto, &format!("prod/app-{n:05}"), &format!("a-value-of-app-{n:05}")).await;
    }
    let reader = reader(&moto, &["prod/"]).await;
    let lists = || moto.proxy.calls().iter().filter(|(call, _)| call == "ListSecrets").count();
    let scanned = async |since: &HashMap<String, i64>| {
        let (began, before) = (std::time::Instant::now(), (lists(), reads(&moto)));
        let (sender, mut changed) = tokio::sync::mpsc::channel(1_000);
        let (scan, all) = tokio::join!(
            async {
                let scan = reader.scan(since, &sender).await;
                drop(sender);
                scan
            },
            async {
                let mut all = Vec::new();
                while let Some(one) = changed.recv().await {
                    all.push(one);
                }
                all
            }
        );
        let calls = (lists() - before.0, reads(&moto) - before.1);
        println!("{} secrets, {} changed: {calls:?} calls in {:?}", scan.secrets, scan.changed, began.elapsed());
        assert_eq!((scan.secrets, scan.partial), (MANY, false), "{:?}", scan.faults);
        (all, calls)
    };
    let (learned, calls) = scanned(&HashMap::new()).await;
    assert_eq!((learned.len(), calls), (MANY, (MANY / 100, MANY)));
    let since: HashMap<String, i64> = learned.into_iter().map(|one| (one.secret, one.version)).collect();
    let (learned, calls) = scanned(&since).await;
    assert_eq!((learned.len(), calls), (0, (MANY / 100, 0)));
    let fields = json!({"username": "app", "password": "a-newer-value"}).to_string();
    moto.secrets.put_secret_value().secret_id("prod/app-00007").secret_string(fields).send().await.unwrap();
    let (learned, calls) = scanned(&since).await;
    assert_eq!((learned.len(), calls), (1, (MANY / 100, 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said_and_the_rest_is_read() {
    let moto = Moto::start().await;
    made(&moto, "prod/a", "a-value-of-a").await;
    let binary = aws_sdk_secretsmanager::primitives::Blob::new(b"\x00\x01");
    moto.secrets.create_secret().name("prod/b").secret_binary(binary).send().await.unwrap();
    moto.secrets.create_secret().name("prod/c").secret_string("a-value-that-is-plain-text").send().await.unwrap();
    made(&moto, "prod/d", "a-value-of-d").await;
    let reader = reader(&moto, &["prod/"]).await;
    let (told, learned) = scan(&reader, &HashMap::new()).await;
    assert_eq!((told.secrets, told.changed, told.partial), (4, 3, true));
    let faults: Vec<&str> = told.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(faults, ["secretsmanager/prod/b"]);
    let places = learned.iter().flat_map(|one| &one.values).map(|value| value.place.as_str());
    assert!(places.clone().any(|place| place == "aws/secretsmanager/prod/c#"), "{:?}", places.collect::<Vec<_>>());
    // Throttled half-way: nothing is concluded from what was not seen.
    moto.proxy.is(Fault::Throttled(1));
    let (told, learned) = scan(&reader, &HashMap::new()).await;
    assert!(told.partial && learned.is_empty(), "{told:?}");
    assert!(told.faults[0].note.contains("throttles"));
}
