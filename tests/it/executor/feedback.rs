//! What died is told to GitHub: once it was seen dead and not before, until GitHub knows, and then no more.

use curfew::event::{CredentialRegistered, PartFingerprint};
use curfew::feedback::Feedback;
use curfew::finding::{Finding, Phase as Stands};
use curfew::fingerprint::Fingerprint;
use curfew::guard::Freeze;
use curfew::http;

use super::*;
use crate::github::{GitHub, Says, api};

over_both! {
    an_alert_is_resolved_once_its_secret_was_seen_dead_and_not_before,
    who_does_not_answer_is_asked_again_and_who_refuses_after_an_hour,
    one_alert_without_an_answer_keeps_no_other_waiting,
    matched_findings_are_paged_by_when_they_were_seen,
}

const HOUR_MS: i64 = 3_600_000;
const AWAY_MS: i64 = 300_000;

fn part(n: u8) -> PartFingerprint {
    let fingerprint = Fingerprint::parse(&format!("k1:{}", hex::encode([n; 32]))).unwrap();
    PartFingerprint { fingerprint, part: None }
}

fn registered(credential: &CredentialId, n: u8) -> Event {
    let data = CredentialRegistered {
        credential: credential.clone(),
        fingerprints: vec![part(n)],
        version: None,
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    };
    crate::stage::event(Type::CredentialRegistered, Data::CredentialRegistered(data))
}

fn observed(key: &str, n: u8) -> Event {
    let data = FindingObserved {
        finding_key: key.to_owned(),
        detector: "d".to_owned(),
        validity: "active".to_owned(),
        fingerprints: vec![part(n)],
        ..FindingObserved::default()
    };
    crate::stage::event(Type::FindingObserved, Data::FindingObserved(Box::new(data)))
}

struct Desk {
    scene: Scene,
    lives: Arc<AtomicBool>,
    clock: Arc<Simulated>,
    github: GitHub,
    feedback: Feedback,
    dir: tempfile::TempDir,
}

impl Desk {
    async fn new(store: Store) -> Self {
        let (scene, lives, clock) = scripted(store).await;
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        http::create_token(&token).unwrap();
        let github = GitHub::start(&std::fs::read_to_string(&token).unwrap()).await;
        let client = Arc::new(curfew::github::connect(api(&github.url, token)).unwrap());
        let mut intake = scene.stage.intake(scene.journal.clone());
        intake.clock = clock.clone();
        let feedback = Feedback::new(intake, client, TOPIC, dir.path().join("freeze"));
        Self { scene, lives, clock, github, feedback, dir }
    }

    async fn leaks(&self, key: &str, credential: &CredentialId, n: u8) {
        self.github.says(42, Says::Secret("r8Ft2-pXq9Lm4Zs7Vb3N".to_owned()));
        record(self.scene.journal.as_ref(), vec![registered(credential, n), observed(key, n)]).await;
    }

    async fn dies(&self, credential: &CredentialId) {
        self.lives.store(false, Ordering::SeqCst);
        self.scene.rounds(&self.clock, 2).await;
        assert!(matches!(self.scene.line(credential).await.verdict, Verdict::Dead { .. }));
    }

    async fn finding(&self, key: &str) -> Finding {
        let all = self.scene.journal.findings(false, 100).await.unwrap();
        all.into_iter().find(|one| one.key == key).unwrap()
    }
}

async fn an_alert_is_resolved_once_its_secret_was_seen_dead_and_not_before(store: Store) {
    let mut desk = Desk::new(store).await;
    let (id, other) = (token_id("c1"), token_id("c2"));
    desk.leaks("github/octo/hello/42", &id, 1).await;
    desk.leaks("fe741f0a", &other, 2).await;
    assert_eq!(desk.finding("github/octo/hello/42").await.phase, Stands::Matched);
    assert_eq!(desk.feedback.tick().await.unwrap(), 0, "nothing was done yet");
    desk.scene.rounds(&desk.clock, 1).await;
    assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, 0), "it was revoked, and it works");
    desk.dies(&id).await;

    desk.scene.journal.freeze(Freeze::Hard, "ana", "test").await.unwrap();
    assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, 0), "frozen");
    desk.scene.journal.release("ana").await.unwrap();
    std::fs::write(desk.dir.path().join("freeze"), "").unwrap();
    assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, 0), "frozen by the file");
    std::fs::remove_file(desk.dir.path().join("freeze")).unwrap();

    assert_eq!(desk.feedback.tick().await.unwrap(), 1);
    let said = desk.github.resolution(42).unwrap();
    let case = desk.scene.line(&id).await.case.id;
    let comment = format!("Seen refused by Curfew, case {case}");
    assert_eq!(said, json!({"state": "resolved", "resolution": "revoked", "resolution_comment": comment}));
    assert_eq!(desk.finding("github/octo/hello/42").await.phase, Stands::Closed);
    assert_eq!(desk.finding("fe741f0a").await.phase, Stands::Matched, "nobody is told of another scanner's");
    let calls = desk.github.calls();
    assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, calls), "told once");
}

async fn who_does_not_answer_is_asked_again_and_who_refuses_after_an_hour(store: Store) {
    let mut desk = Desk::new(store).await;
    let (id, key) = (token_id("c3"), "github/octo/hello/42");
    desk.leaks(key, &id, 3).await;
    desk.scene.rounds(&desk.clock, 1).await;
    desk.dies(&id).await;
    for away in [Says::Status(500), Says::Nothing] {
        desk.github.says(42, away);
        let calls = desk.github.calls();
        assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, calls + 1));
        assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, calls + 1), "it rests");
        desk.clock.advance_ms(AWAY_MS + 1);
    }
    for refusal in [Says::Status(403), Says::Status(422), Says::Text("<html>".to_owned())] {
        desk.github.says(42, refusal);
        let calls = desk.github.calls();
        assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, calls + 1));
        assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, calls + 1), "it rests");
        desk.clock.advance_ms(HOUR_MS + 1);
    }
    assert_eq!(desk.finding(key).await.phase, Stands::Matched, "not lost");
    // Somebody has resolved it, or the process ended before it wrote that it had: it stays as it is.
    desk.github.says(42, Says::Secret("x".to_owned()));
    desk.github.resolve(42, json!({"resolution": "wont_fix"}));
    assert_eq!(desk.feedback.tick().await.unwrap(), 1);
    assert_eq!(desk.github.resolution(42), Some(json!({"resolution": "wont_fix"})));
    assert_eq!(desk.finding(key).await.phase, Stands::Closed);
}

async fn one_alert_without_an_answer_keeps_no_other_waiting(store: Store) {
    let mut desk = Desk::new(store).await;
    let ids = ["d1", "d2", "d3", "d4", "d5"].map(token_id);
    let key = |number: usize| format!("github/octo/hello/{}", 40 + number);
    for (number, id) in ids.iter().enumerate() {
        desk.leaks(&key(number), id, 10 + u8::try_from(number).unwrap()).await;
    }
    desk.scene.rounds(&desk.clock, 1).await;
    for id in &ids {
        desk.dies(id).await;
    }
    let secret = || Says::Secret("r8Ft2-pXq9Lm4Zs7Vb3N".to_owned());
    for (number, says) in
        [(40, Says::Status(500)), (41, secret()), (42, Says::Status(502)), (43, Says::Status(503)), (44, secret())]
    {
        desk.github.says(number, says);
    }
    assert_eq!(
        (desk.feedback.tick().await.unwrap(), desk.github.calls()),
        (2, 7),
        "all were asked for, and two were told"
    );
    let told = [1, 4];
    for number in 0..5 {
        let phase = if told.contains(&number) { Stands::Closed } else { Stands::Matched };
        assert_eq!(desk.finding(&key(number)).await.phase, phase, "{number}");
    }
    // When it is GitHub that is away, it is not asked for each of them.
    desk.clock.advance_ms(AWAY_MS + 1);
    let more = ["d6", "d7"].map(token_id);
    for (number, id) in (5..).zip(&more) {
        desk.lives.store(true, Ordering::SeqCst);
        desk.leaks(&key(number), id, 10 + u8::try_from(number).unwrap()).await;
        desk.scene.rounds(&desk.clock, 1).await;
        desk.dies(id).await;
        desk.github.says(40 + i64::try_from(number).unwrap(), Says::Status(500));
    }
    desk.github.says(42, Says::Status(500));
    let calls = desk.github.calls();
    assert_eq!((desk.feedback.tick().await.unwrap(), desk.github.calls()), (0, calls + 3));
    for number in [40, 42, 43, 45, 46] {
        desk.github.says(number, secret());
    }
    assert_eq!(desk.feedback.tick().await.unwrap(), 2, "those that were asked for rest");
    desk.clock.advance_ms(AWAY_MS + 1);
    assert_eq!(desk.feedback.tick().await.unwrap(), 3);
}

async fn matched_findings_are_paged_by_when_they_were_seen(store: Store) {
    let journal = store.open().await;
    let credential = token_id("c4");
    let at = now_ms();
    let mut events = vec![registered(&credential, 4)];
    for (key, after_ms, n) in [
        ("github/a/b/1", 5, 4),
        ("github/a/b/2", 5, 4),
        ("github/A/b/3", 0, 4),
        ("other", 0, 4),
        ("github/a/b/4", 0, 9),
    ] {
        let mut event = observed(key, n);
        event.broker_ms = at + after_ms;
        events.push(event);
    }
    record(journal.as_ref(), events).await;
    let page = async |after: (i64, String)| {
        let found = journal.matched(format!("{TOPIC}:github/"), after, 2).await.unwrap();
        found.into_iter().map(|one| (one.last_ms - at, one.key)).collect::<Vec<_>>()
    };
    let of = |ms: i64, key: &str| (ms, key.to_owned());
    assert_eq!(page((0, String::new())).await, [of(0, "github/A/b/3"), of(5, "github/a/b/1")]);
    assert_eq!(page((at + 5, format!("{TOPIC}:github/a/b/1"))).await, [of(5, "github/a/b/2")]);
    assert_eq!(page((at + 5, format!("{TOPIC}:github/a/b/2"))).await, []);
}
