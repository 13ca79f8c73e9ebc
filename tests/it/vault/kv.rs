//! KV version 2 as a store: what it answers, and what a rotation makes of it.

mod answers;

use curfew::case::record::Generation;
use curfew::case::turn::Turn;
use curfew::connector::recipe::{
    Adoption, Keeper, PasswordRules, Place, Recipe, Rotation, Store, Stored, Users, Which,
};
use curfew::connector::vault::connect_stores;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use super::*;

const PATH: &str = "app/database";
const SIDE: &str = "curfew-pending/app/database";

/// A KV version 2 mount with one secret, and the store on a login with the least policy.
struct Bench {
    root: Root,
    mount: String,
    place: Place,
    store: Arc<dyn Store>,
}

impl Root {
    pub(super) async fn kv(&self) -> String {
        let mount = unique("kv");
        self.put(&format!("sys/mounts/{mount}"), json!({ "type": "kv", "options": { "version": "2" } })).await;
        // A mount may say for a moment that it is upgrading.
        until("the mount", async || {
            let (status, _) = self.ask("POST", &format!("{mount}/data/first"), json!({ "data": {} })).await;
            (status == 200).then_some(())
        })
        .await;
        mount
    }

    /// A policy of `deploy/vault` for our own mount.
    pub(super) async fn kv_policy(&self, file: &str, mount: &str) -> String {
        let text = std::fs::read_to_string(crate::repository().join(format!("deploy/vault/{file}.hcl"))).unwrap();
        let name = unique(file);
        let text = text.replace("\"kv/", &format!("\"{mount}/"));
        self.put(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await;
        name
    }

    /// Writes as somebody else would; the new version.
    pub(super) async fn secret(&self, mount: &str, path: &str, fields: Value) -> i64 {
        self.put(&format!("{mount}/data/{path}"), json!({ "data": fields })).await["data"]["version"].as_i64().unwrap()
    }

    /// The fields of a version, or of the newest one.
    async fn fields(&self, mount: &str, path: &str, version: Option<i64>) -> Option<Value> {
        let query = version.map_or(String::new(), |version| format!("?version={version}"));
        let (status, mut answer) = self.ask("GET", &format!("{mount}/data/{path}{query}"), Value::Null).await;
        (status == 200).then(|| answer["data"]["data"].take())
    }
}

fn place(mount: &str) -> Place {
    Place {
        keeper: Keeper::Kv,
        realm: REALM.to_owned(),
        mount: mount.to_owned(),
        path: PATH.to_owned(),
        field: "password".to_owned(),
        user_field: Some("username".to_owned()),
    }
}

async fn store(settings: &VaultSettings, places: &[Place]) -> Arc<dyn Store> {
    connect_stores(REALM, settings, Mode::Enforce, System::shared(), places, &[]).await.unwrap().remove(0)
}

impl Bench {
    async fn new() -> Self {
        let root = Root::shared();
        let mount = root.kv().await;
        let policy = root.kv_policy("kv-store", &mount).await;
        let (token, _) = root.token_of(&[&policy]).await;
        let place = place(&mount);
        let store = store(&settings(&root.address, &token), std::slice::from_ref(&place)).await;
        root.secret(&mount, PATH, json!({ "username": "app_a", "password": "first", "url": "db:5432" })).await;
        Self { root, mount, place, store }
    }

    fn subject(&self, turn: Turn, candidate: Option<Uuid>) -> Subject {
        subject(&self.store, &self.place, turn, candidate)
    }

    /// What a case that has looked knows.
    async fn looked(&self) -> Turn {
        let seen = self.store.observe(&self.subject(Turn::default(), None)).await.unwrap();
        Turn { old: seen.current, ..Turn::default() }
    }

    async fn main(&self) -> Value {
        self.root.fields(&self.mount, PATH, None).await.unwrap()
    }

    async fn side(&self) -> Option<Value> {
        self.root.fields(&self.mount, SIDE, None).await
    }
}

fn subject(store: &Arc<dyn Store>, place: &Place, turn: Turn, candidate: Option<Uuid>) -> Subject {
    let mut subject = about(Kind::PostgresRole, "app_a,app_b");
    let recipe = Recipe {
        name: "app".to_owned(),
        credential: subject.credential.clone(),
        place: place.clone(),
        users: Users::Two("app_a".to_owned(), "app_b".to_owned()),
        password: PasswordRules::default(),
        adoption: Adoption::default(),
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
        copies: Vec::new(),
        webhooks: Vec::new(),
    };
    let recipe = Arc::new(recipe);
    subject.rotation = Some(Rotation {
        recipe,
        store: store.clone(),
        turn,
        candidate,
        contains: false,
        ends: false,
        copy: None,
        since_ms: 0,
        splits: false,
        share: None,
        moved: None,
    });
    subject
}

/// The case retires or contains the credential.
fn contains(mut subject: Subject) -> Subject {
    subject.rotation.as_mut().unwrap().contains = true;
    subject
}

fn generation(version: i64, user: &str) -> Generation {
    Generation { version, user: Some(user.to_owned()) }
}

fn value(stored: &Stored) -> &str {
    stored.value.expose_secret()
}

#[tokio::test]
async fn a_value_is_made_promoted_and_the_old_one_destroyed() {
    let bench = Bench::new().await;
    let (store, place) = (&bench.store, &bench.place);
    assert_eq!((store.name(), store.system()), ("vault-kv", REALM));
    store.self_check().await.unwrap();
    let seen = store.observe(&bench.subject(Turn::default(), None)).await.unwrap();
    assert_eq!((seen.presence, &seen.current), (Presence::Present, &Some(generation(1, "app_a"))));
    assert!(seen.issued_ms.is_some() && seen.request_id.is_some());
    assert!(store.read(place, Which::Candidate).await.unwrap().is_none());
    let current = store.read(place, Which::Current).await.unwrap().unwrap();
    assert_eq!((value(&current), current.version, current.key), ("first", 1, None));

    let key = Uuid::new_v4();
    let mut turn = bench.looked().await;
    let subject = bench.subject(turn.clone(), Some(key));
    store.perform(Act::Create, &subject).await.unwrap();
    let made = store.read(place, Which::Candidate).await.unwrap().unwrap();
    assert_eq!((made.key, made.user.as_deref(), value(&made).len()), (Some(key), Some("app_b"), 40));
    assert_eq!(bench.main().await["password"], "first", "nobody reads it yet");
    // Again: it is there already, and stays as it is.
    store.perform(Act::Create, &subject).await.unwrap();
    let again = store.read(place, Which::Candidate).await.unwrap().unwrap();
    assert_eq!((again.version, value(&again)), (made.version, value(&made)));
    // Another candidate of the case: the older one is kept.
    let second = Uuid::new_v4();
    let subject = bench.subject(turn.clone(), Some(second));
    store.perform(Act::Create, &subject).await.unwrap();
    let other = store.read(place, Which::Candidate).await.unwrap().unwrap();
    assert!(other.key == Some(second) && value(&other) != value(&made));
    assert!(bench.root.fields(&bench.mount, SIDE, Some(1)).await.is_some());
    // Only its own candidate is promoted.
    let failure = store.perform(Act::Promote, &bench.subject(turn.clone(), Some(key))).await.unwrap_err();
    assert_eq!((failure.kind, failure.note.as_str()), (FailureKind::Refused, "the stored candidate is another case's"));

    let promoted = store.perform(Act::Promote, &subject).await.unwrap();
    assert_eq!(promoted.current, Some(generation(2, "app_b")));
    let now = bench.main().await;
    assert_eq!(now, json!({ "username": "app_b", "password": value(&other), "url": "db:5432" }));
    let again = store.perform(Act::Promote, &subject).await.unwrap();
    assert_eq!(again.current, Some(generation(2, "app_b")), "already so, in no new version");
    let old = store.read(place, Which::Version(1)).await.unwrap().unwrap();
    assert_eq!((value(&old), old.user.as_deref()), ("first", Some("app_a")));

    turn.new = promoted.current;
    let subject = bench.subject(turn, Some(second));
    for _ in 0..2 {
        assert_eq!(store.perform(Act::Destroy, &subject).await.unwrap(), Output::default());
        assert!(store.read(place, Which::Version(1)).await.unwrap().is_none());
        assert_eq!(bench.main().await, now);
        assert_eq!(bench.side().await, None);
        let (status, _) = bench.root.ask("GET", &format!("{}/metadata/{SIDE}", bench.mount), Value::Null).await;
        assert_eq!(status, 404, "no version of any candidate is left");
    }
    // It uses no value, so it says nothing of whether one works.
    assert_eq!(store.probe(&subject).await.answer, Answer::Unknown);
    assert_eq!(kind(store.perform(Act::Set, &subject).await), FailureKind::Refused);
    assert_eq!(kind(store.pass(Act::Test, &subject).await), FailureKind::Refused);
}

#[tokio::test]
async fn what_somebody_else_wrote_is_never_lost() {
    let bench = Bench::new().await;
    let (store, root, mount) = (&bench.store, &bench.root, &bench.mount);
    let (key, mut turn) = (Uuid::new_v4(), bench.looked().await);
    let subject = bench.subject(turn.clone(), Some(key));
    store.perform(Act::Create, &subject).await.unwrap();
    // Another field of the same secret, for the same value: that is no other rotation.
    root.secret(mount, PATH, json!({ "username": "app_a", "password": "first", "url": "db2:5432" })).await;
    let promoted = store.perform(Act::Promote, &subject).await.unwrap();
    assert_eq!(promoted.current, Some(generation(3, "app_b")));
    assert_eq!(bench.main().await["url"], "db2:5432");
    // The case lost that answer and made a new plan: what is current is its own older candidate.
    let other = bench.subject(turn.clone(), Some(Uuid::new_v4()));
    store.perform(Act::Create, &other).await.unwrap();
    let promoted = store.perform(Act::Promote, &other).await.unwrap();
    assert_eq!(promoted.current, Some(generation(4, "app_b")));
    turn.new = promoted.current;
    // All that was stored of the old value, and of the older candidate.
    assert_eq!(store.perform(Act::Destroy, &bench.subject(turn, None)).await.unwrap(), Output::default());
    for version in 1..=3 {
        assert_eq!(root.fields(mount, PATH, Some(version)).await, None, "{version}");
    }

    // A person sets another value while a case is under way: it stays, and the case stops.
    let turn = bench.looked().await;
    let subject = bench.subject(turn.clone(), Some(Uuid::new_v4()));
    store.perform(Act::Create, &subject).await.unwrap();
    root.secret(mount, PATH, json!({ "username": "app_b", "password": "by hand" })).await;
    let failure = store.perform(Act::Promote, &subject).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.note.as_str()),
        (FailureKind::Refused, "somebody else wrote the secret meanwhile")
    );
    assert_eq!(bench.main().await["password"], "by hand");
    assert!(bench.side().await.is_some());
    store.perform(Act::Discard, &subject).await.unwrap();
    store.perform(Act::Discard, &subject).await.unwrap();
    assert_eq!(bench.side().await, None);
    assert_eq!(kind(store.perform(Act::Promote, &subject).await), FailureKind::Refused);
    // Nothing came in its place: the old value is what consumers may still take back, and stays.
    let output = store.perform(Act::Destroy, &subject).await.unwrap();
    assert_eq!(output.residue, [Residue::OldValueStored]);
    assert_eq!(root.fields(mount, PATH, Some(4)).await.unwrap()["username"], "app_b");
    // Somebody wrote the old value back after a promotion: what consumers read is never destroyed.
    for (user, password) in [("app_a", "promoted"), ("app_b", "by hand")] {
        root.secret(mount, PATH, json!({ "username": user, "password": password })).await;
    }
    let turn = Turn { old: Some(generation(5, "app_b")), new: Some(generation(6, "app_a")), ..Turn::default() };
    store.perform(Act::Destroy, &contains(bench.subject(turn, None))).await.unwrap();
    assert_eq!(root.fields(mount, PATH, Some(5)).await, None);
    assert_eq!(bench.main().await["password"], "by hand");
}

#[tokio::test]
async fn a_retired_credential_keeps_no_version_and_what_came_later_stays() {
    let bench = Bench::new().await;
    let (store, root, mount) = (&bench.store, &bench.root, &bench.mount);
    root.secret(mount, PATH, json!({ "username": "app_b", "password": "second" })).await;
    let subject = contains(bench.subject(bench.looked().await, None));
    for _ in 0..2 {
        assert_eq!(store.perform(Act::Destroy, &subject).await.unwrap(), Output::default());
        for version in [1, 2] {
            assert_eq!(root.fields(mount, PATH, Some(version)).await, None, "{version}");
        }
    }
    let seen = store.observe(&subject).await.unwrap();
    assert_eq!((seen.presence, seen.current), (Presence::Gone, None));
    // What was written since is another's.
    root.secret(mount, PATH, json!({ "username": "app_a", "password": "third" })).await;
    let output = store.perform(Act::Destroy, &subject).await.unwrap();
    assert_eq!(output.residue, [Residue::OldValueStored]);
    assert_eq!(bench.main().await["password"], "third");
    // A secret that is gone as a whole, and one that was written again since: its numbers mean other values.
    root.ask("DELETE", &format!("{mount}/metadata/{PATH}"), Value::Null).await;
    assert_eq!(store.perform(Act::Destroy, &subject).await.unwrap(), Output::default());
    root.secret(mount, PATH, json!({ "username": "app_a", "password": "again" })).await;
    assert_eq!(store.perform(Act::Destroy, &subject).await.unwrap(), Output::default());
    let turn = Turn { old: Some(generation(3, "app_b")), new: Some(generation(4, "app_a")), ..Turn::default() };
    assert_eq!(store.perform(Act::Destroy, &bench.subject(turn, None)).await.unwrap(), Output::default());
    assert_eq!(bench.main().await["password"], "again");
    root.ask("DELETE", &format!("{mount}/metadata/{PATH}"), Value::Null).await;
    // One that was deleted before the case looked: its versions could be taken back.
    root.secret(mount, PATH, json!({ "username": "app_a", "password": "fourth" })).await;
    root.ask("DELETE", &format!("{mount}/data/{PATH}"), Value::Null).await;
    let subject = contains(bench.subject(bench.looked().await, None));
    assert_eq!(store.perform(Act::Destroy, &subject).await.unwrap(), Output::default());
    root.ask("POST", &format!("{mount}/undelete/{PATH}"), json!({ "versions": [1] })).await;
    assert_eq!(root.fields(mount, PATH, None).await, None);
}

#[tokio::test]
async fn a_cut_answer_leaves_one_candidate_and_one_promotion() {
    let bench = Bench::new().await;
    let (root, mount) = (&bench.root, &bench.mount);
    let proxy = Proxy::to(root.address.trim_start_matches("http://")).await;
    let (token, _) = root.token_of(&[&root.kv_policy("kv-store", mount).await]).await;
    let mut settings = settings(&format!("http://{}", proxy.address), &token);
    settings.timeout_ms = 2000;
    let far = store(&settings, std::slice::from_ref(&bench.place)).await;
    let (key, mut turn) = (Uuid::new_v4(), bench.looked().await);
    let subject = |turn: &Turn| subject(&far, &bench.place, turn.clone(), Some(key));
    // Looks get through, the answer of the first write does not.
    far.observe(&subject(&turn)).await.unwrap();
    proxy.cut_after(b"\"cas\"");
    assert_eq!(kind(far.perform(Act::Create, &subject(&turn)).await), FailureKind::Unknown);
    let made = bench.side().await.unwrap();
    proxy.on();
    far.perform(Act::Create, &subject(&turn)).await.unwrap();
    assert_eq!(bench.side().await.unwrap(), made, "it was carried out, and is not done again");
    assert_eq!(root.fields(mount, SIDE, Some(2)).await, None);
    proxy.cut_after(b"\"cas\"");
    assert_eq!(kind(far.perform(Act::Promote, &subject(&turn)).await), FailureKind::Unknown);
    proxy.on();
    let promoted = far.perform(Act::Promote, &subject(&turn)).await.unwrap();
    assert_eq!(promoted.current, Some(generation(2, "app_b")));
    assert_eq!(bench.main().await["password"], made["password"]);
    turn.new = promoted.current;
    proxy.cut_after(b"DELETE /");
    assert_eq!(kind(far.perform(Act::Destroy, &subject(&turn)).await), FailureKind::Unknown);
    proxy.on();
    assert_eq!(far.perform(Act::Destroy, &subject(&turn)).await.unwrap(), Output::default());
    assert_eq!((root.fields(mount, PATH, Some(1)).await, bench.side().await), (None, None));
}

#[tokio::test]
async fn values_are_in_no_text() {
    let bench = Bench::new().await;
    let (store, place) = (&bench.store, &bench.place);
    let subject = bench.subject(bench.looked().await, Some(Uuid::new_v4()));
    let made = store.perform(Act::Create, &subject).await.unwrap();
    let candidate = store.read(place, Which::Candidate).await.unwrap().unwrap();
    let promoted = store.perform(Act::Promote, &subject).await.unwrap();
    let seen = store.observe(&subject).await.unwrap();
    let texts = format!("{made:?} {candidate:?} {promoted:?} {seen:?} {subject:?}");
    for secret in ["first", value(&candidate)] {
        assert!(!texts.contains(secret));
    }
    assert!(texts.contains("app_b"), "the look sees what it should");
}
