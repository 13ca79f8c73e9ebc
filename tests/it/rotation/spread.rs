//! One value at several places, and a webhook: whatever dies or fails, all places end with the value that works, none keeps
//! the old one, and who is to be called is called.

use std::sync::Mutex;
use std::sync::atomic::AtomicU16;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use curfew::case::HoldReason;
use curfew::case::record::Residue;
use curfew::case::state::Phase;
use curfew::connector::webhook::{self, Caller, Webhook};
use curfew::event::CredentialAdopted;

use super::*;

over_both! {
    a_spread_value_contained_survives_every_kill,
    a_spread_value_rolled_over_survives_every_kill,
    a_spread_value_that_ends_survives_every_kill,
    a_spread_value_contained_survives_every_fault,
    a_spread_value_rolled_over_survives_every_fault,
    a_spread_value_that_ends_survives_every_fault,
    all_places_and_the_webhook_hear_of_it,
    a_copy_with_another_value_keeps_it_and_holds_a_rollover,
    a_copy_with_another_value_does_not_keep_a_leaked_one_alive,
    who_does_not_listen_holds_up_nothing,
    the_old_value_comes_back_at_all_places,
    who_hears_of_it_early_may_refuse_it,
    one_copy_s_refusal_is_not_another_s,
}

const TOKEN: &str = "the-token-of-the-webhook";

/// Somebody who is called.
pub struct Hook {
    url: String,
    folder: tempfile::TempDir,
    heard: Heard,
}

#[derive(Clone, Default)]
struct Heard {
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    /// What it answers; 0: 204.
    status: Arc<AtomicU16>,
}

async fn hear(Shared(heard): Shared<Heard>, headers: HeaderMap, body: axum::body::Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    if text("authorization") != format!("Bearer {TOKEN}") || text("content-type") != "application/cloudevents+json" {
        return StatusCode::UNAUTHORIZED;
    }
    heard.calls.lock().unwrap().push((text("idempotency-key"), serde_json::from_slice(&body).unwrap()));
    match heard.status.load(Ordering::SeqCst) {
        0 => StatusCode::NO_CONTENT,
        status => StatusCode::from_u16(status).unwrap(),
    }
}

impl Hook {
    pub async fn start() -> Self {
        let heard = Heard::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/rotated", listener.local_addr().unwrap());
        let router = Router::new().route("/rotated", post(hear)).with_state(heard.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().unwrap();
        crate::canary::private(folder.path().join("token"), TOKEN);
        Self { url, folder, heard }
    }

    pub fn caller(&self) -> Caller {
        let webhook = Webhook {
            name: "deploy".to_owned(),
            url: self.url.clone(),
            token_file: Some(self.token_file()),
            ca_file: None,
            timeout_ms: 5_000,
        };
        webhook::connect(webhook, curfew::clock::System::shared()).unwrap()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn token_file(&self) -> std::path::PathBuf {
        self.folder.path().join("token")
    }

    pub fn calls(&self) -> Vec<(String, Value)> {
        self.heard.calls.lock().unwrap().clone()
    }

    fn answers(&self, status: u16) {
        self.heard.status.store(status, Ordering::SeqCst);
    }
}

impl Victim {
    /// Version, user and value at a copy.
    async fn copied(&self, copy: &Place) -> (i64, String, String) {
        let (version, fields) = self.shelf.current(copy).await;
        let text = |name: &str| fields[name].as_str().unwrap().to_owned();
        assert_eq!(text("host"), "db.example", "other fields stay");
        (version, text("username"), text("password"))
    }

    /// No version of a copy holds the old value.
    pub(super) async fn assert_copies_lost_it(&self, what: &str) {
        for copy in &self.recipe.copies {
            self.shelf.assert_lost(copy, &self.old.1, &format!("{what}: a copy")).await;
        }
    }

    /// All places hold what works, none the old value, and the webhook was told.
    pub(super) async fn assert_spread(&self, what: &str) {
        if self.recipe.copies.is_empty() {
            return;
        }
        let (version, user, value) = self.stored().await;
        for copy in &self.recipe.copies {
            let (_, its_user, its_value) = self.copied(copy).await;
            assert_eq!((&its_user, &its_value), (&user, &value), "{what}: a copy holds another value");
        }
        self.assert_copies_lost_it(what).await;
        let calls = self.hook.as_ref().unwrap().calls();
        assert!(calls.iter().any(|(_, told)| told["data"]["new"]["version"] == version), "{what}: {calls:?}");
        assert!(calls.iter().all(|(_, told)| !told.to_string().contains(&value)), "{what}: the webhook saw a value");
    }
}

async fn a_spread_value_contained_survives_every_kill(store: Store) {
    every_kill(store, Shape::Spread, Action::Contain).await;
}

async fn a_spread_value_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Shape::Spread, Action::Rollover).await;
}

async fn a_spread_value_that_ends_survives_every_kill(store: Store) {
    every_kill(store, Shape::Spread, Action::Revoke).await;
}

async fn a_spread_value_contained_survives_every_fault(store: Store) {
    every_fault(store, Shape::Spread, Action::Contain).await;
}

async fn a_spread_value_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Shape::Spread, Action::Rollover).await;
}

async fn a_spread_value_that_ends_survives_every_fault(store: Store) {
    every_fault(store, Shape::Spread, Action::Revoke).await;
}

/// What left for consumers, in order.
async fn told(journal: &Arc<dyn Journal>) -> Vec<Value> {
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let rotated = rows.iter().filter(|row| row.kind == outcome::Kind::Rotated);
    rotated.map(|row| serde_json::from_slice(&row.body).unwrap()).collect()
}

async fn all_places_and_the_webhook_hear_of_it(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::Spread, Adoption::default()).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "spread").await;
    victim.assert_rotated("spread").await;
    // A copy has versions of its own; what consumers answer to is the one of the credential.
    let told = told(&journal).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|one| one["data"]["new"]["version"] == 2), "{told:?}");
    assert!(told[0]["data"]["store"]["version"].is_null(), "{told:?}");
    let places = |one: &Value| (one["data"]["store"]["realm"].clone(), one["data"]["store"]["version"].clone());
    let copies: Vec<_> = told[1..].iter().map(places).collect();
    assert!(copies.contains(&("test".into(), 2.into())) && copies.contains(&("other".into(), 2.into())), "{told:?}");
    let calls = victim.hook.as_ref().unwrap().calls();
    let [(key, call)] = calls.as_slice() else { panic!("{calls:?}") };
    assert!(!key.is_empty() && call["id"] == told[0]["id"] && call["type"] == told[0]["type"], "{call}");
    assert_eq!(call["data"]["store"]["path"], victim.recipe.place.path.as_str());
}

/// Writes another value to the second copy.
async fn goes_its_own_way(victim: &Victim, ground: &Ground) -> Place {
    let copy = victim.recipe.copies[1].clone();
    let own = json!({"data": {"username": "somebody", "password": "quite-another-value", "host": "db.example"}});
    ground.admin.done("POST", &format!("{}/data/{}", copy.mount, copy.path), own).await;
    copy
}

async fn a_copy_with_another_value_keeps_it_and_holds_a_rollover(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::Spread, Adoption::default()).await;
    let copy = goes_its_own_way(&victim, &ground).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let line = until("the hold", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await.unwrap();
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Refused }).then_some(line)
    })
    .await;
    assert_eq!(victim.copied(&copy).await.2, "quite-another-value");
    assert!(victim.works(&victim.old).await, "who reads there is not cut off");
    // A person mends it.
    let old = json!({"data": {"username": victim.old.0, "password": victim.old.1, "host": "db.example"}});
    ground.admin.done("POST", &format!("{}/data/{}", copy.mount, copy.path), old).await;
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "mended").await;
    let (_, user, value) = victim.stored().await;
    assert_eq!(victim.copied(&copy).await, (4, user, value));
    let (_, meta) = ground.admin.call("GET", &format!("{}/metadata/{}", copy.mount, copy.path), Value::Null).await;
    let versions = &meta["data"]["versions"];
    let destroyed = ["1", "2", "3"].map(|version| versions[version]["destroyed"].as_bool().unwrap());
    assert_eq!(destroyed, [true, false, true], "only the old value goes: {versions}");
}

async fn a_copy_with_another_value_does_not_keep_a_leaked_one_alive(store: Store) {
    let ground = Ground::new().await;
    let victim = ground.victim(Shape::Spread, Adoption::default()).await;
    let copy = goes_its_own_way(&victim, &ground).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "contained").await;
    assert!(!victim.works(&victim.old).await);
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(residue.contains(&Residue::CopyNotUpdated), "{residue:?}");
    assert_eq!(victim.copied(&copy).await.2, "quite-another-value");
    let (_, user, value) = victim.stored().await;
    assert_eq!(victim.copied(&victim.recipe.copies[0]).await, (2, user, value), "the other copy is not left behind");
}

async fn who_does_not_listen_holds_up_nothing(store: Store) {
    let ground = Ground::new().await;
    for (status, calls) in [(500, 3), (302, 1), (404, 1)] {
        let victim = ground.victim(Shape::Spread, Adoption::default()).await;
        victim.hook.as_ref().unwrap().answers(status);
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &victim, Action::Contain).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        assert_one_end(&journal, &line, "not told").await;
        victim.assert_rotated("not told").await;
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
        assert!(residue.contains(&Residue::NotNotified), "{residue:?}");
        let heard = victim.hook.as_ref().unwrap().calls();
        assert_eq!(heard.len(), calls, "{status}");
        assert!(heard.iter().all(|call| call.0 == heard[0].0), "each try has the same key");
    }
}

async fn the_old_value_comes_back_at_all_places(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["web".into()], within_ms: 3_600_000, by_word: true, ..Adoption::default() };
    let victim = ground.victim(Shape::Spread, adoption).await;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let waits = || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await.unwrap();
        line.case.state.may_go_back().then_some(())
    };
    until("the promotion at all places", waits).await;
    assert_eq!(victim.copied(&victim.recipe.copies[1]).await.0, 2);
    let (credential, consumer) = (victim.credential().clone(), "web".to_owned());
    let data = CredentialAdopted { credential, version: 2, consumer, failed: true };
    record(journal.as_ref(), vec![event(Type::CredentialAdopted, Data::CredentialAdopted(data))]).await;
    until("the way back", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await.unwrap();
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Unhealthy }).then_some(())
    })
    .await;
    for copy in &victim.recipe.copies {
        let (version, user, value) = victim.copied(copy).await;
        assert_eq!((version, &(user, value)), (3, &victim.old));
    }
    assert!(victim.works(&victim.old).await);
    let calls = victim.hook.as_ref().unwrap().calls();
    let versions: Vec<i64> = calls.iter().map(|(_, told)| told["data"]["new"]["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, [2, 3], "the webhook hears of both");
}

/// A consumer of the first place hears of it, while another place cannot have it yet.
async fn who_hears_of_it_early_may_refuse_it(store: Store) {
    let ground = Ground::new().await;
    let adoption =
        Adoption { consumers: vec!["web".into()], within_ms: 3_600_000, by_word: true, ..Adoption::default() };
    let victim = ground.victim(Shape::Spread, adoption).await;
    let down = Down::of("vault-kv", Act::Copy);
    let stage = Stage::new(store, down.before(&victim.registry));
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Rollover).await;
    let executor = stage.executor(journal.clone());
    let line = async || case_of(journal.as_ref(), victim.credential()).await.unwrap();
    until("the promotion", || async {
        executor.drain().await.unwrap();
        line().await.case.state.turn.new.is_some().then_some(())
    })
    .await;
    let (credential, consumer) = (victim.credential().clone(), "web".to_owned());
    let data = CredentialAdopted { credential, version: 2, consumer, failed: true };
    record(journal.as_ref(), vec![event(Type::CredentialAdopted, Data::CredentialAdopted(data))]).await;
    down.ends();
    until("the way back", || async {
        executor.drain().await.unwrap();
        matches!(line().await.case.state.phase, Phase::Held { reason: HoldReason::Unhealthy }).then_some(())
    })
    .await;
    for copy in &victim.recipe.copies {
        let (version, user, value) = victim.copied(copy).await;
        assert_eq!((version, &(user, value)), (1, &victim.old), "it never had another");
    }
    assert!(victim.works(&victim.old).await);
}

/// Two copies in one realm, of which one has a value of its own: who reads the other one is told all the same.
async fn one_copy_s_refusal_is_not_another_s(store: Store) {
    let ground = Ground::new().await;
    let mut victim = ground.victim(Shape::Spread, Adoption::default()).await;
    let copy = goes_its_own_way(&victim, &ground).await;
    victim.recipe.copies[1].realm = "test".to_owned();
    victim.registry = ground.registry(&victim.recipe).await;
    victim.registry.add(Arc::new(victim.hook.as_ref().unwrap().caller()));
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert!(residue.contains(&Residue::CopyNotUpdated), "{residue:?}");
    let told = told(&journal).await;
    let paths: Vec<&str> = told.iter().map(|one| one["data"]["store"]["path"].as_str().unwrap()).collect();
    assert_eq!(paths, [&*victim.recipe.place.path, &*victim.recipe.copies[0].path], "and of the refused one nothing");
    assert_eq!(victim.copied(&copy).await.2, "quite-another-value");
}
