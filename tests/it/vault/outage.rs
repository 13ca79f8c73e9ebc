//! Down, sealed, slow, cut: what that says of an effect.

use super::*;

#[tokio::test]
async fn with_the_database_down_a_revoke_is_in_doubt_and_the_lease_lives_on() {
    let root = Root::shared();
    let proxy = Proxy::to(&postgres_address()).await;
    let mount = root.database(&proxy.address).await;
    let lease = connected(&settings(&root.address, &root.token)).await.remove(0);
    let (id, _) = root.lease(&mount).await;
    let mut subject = about(Kind::VaultLease, &id);
    let before = look(&lease, &mut subject).await;
    proxy.off();
    assert_eq!(kind(lease.perform(Act::Revoke, &subject).await), FailureKind::Unknown);
    let after = look(&lease, &mut subject).await;
    assert_eq!((after.presence, after.expires_ms), (Presence::Present, before.expires_ms));
    assert_eq!(lease.probe(&subject).await.answer, Answer::Accepted);
    proxy.on();
    lease.perform(Act::Revoke, &subject).await.unwrap();
    assert_eq!(lease.probe(&subject).await.answer, Answer::Refused);
}

#[tokio::test]
async fn a_cut_or_late_answer_is_in_doubt_and_no_connection_is_not() {
    let root = Root::shared();
    let proxy = Proxy::to(root.address.trim_start_matches("http://")).await;
    let mut settings = settings(&format!("http://{}", proxy.address), &root.token);
    settings.tokens = true;
    settings.timeout_ms = 2000;
    let connectors = connected(&settings).await;
    let tokens = &connectors[1];
    let (_, accessor) = root.token(json!({ "ttl": "10m" })).await;
    let subject = about(Kind::VaultToken, &accessor);
    proxy.cut_replies();
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unknown);
    assert_eq!(tokens.probe(&subject).await.answer, Answer::Unknown);
    proxy.on();
    // It was carried out.
    assert_eq!(tokens.observe(&subject).await.unwrap().presence, Presence::Gone);
    proxy.delay();
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unknown);
    assert_eq!(kind(tokens.observe(&subject).await), FailureKind::Unavailable);
    drop(proxy);
    // A port where nobody listens: nothing can have happened.
    settings.address = "http://127.0.0.1:1".into();
    let nobody = connected(&settings).await;
    assert_eq!(kind(nobody[1].perform(Act::Revoke, &subject).await), FailureKind::Unavailable);
    assert_eq!(nobody[1].probe(&subject).await.answer, Answer::Unknown);
}

/// A Vault of one's own: to seal and to kill.
pub(super) struct Private {
    child: tokio::process::Child,
    pub(super) root: Root,
    key: String,
}

impl Private {
    pub(super) async fn start() -> Self {
        let port = crate::canary::port();
        let child = tokio::process::Command::new(env("CURFEW_TEST_VAULT_BIN"))
            .args(["-listen", &format!("127.0.0.1:{port}"), "-data", ""])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut root = Root::of(&format!("http://127.0.0.1:{port}"), "");
        let url = format!("{}/v1/sys/init", root.address);
        let made: Value = until("Vault's start", || async {
            let body = json!({ "secret_shares": 1, "secret_threshold": 1 });
            let answer = root.http.put(&url).json(&body).send().await.ok()?;
            if answer.status() != 200 { None } else { answer.json().await.ok() }
        })
        .await;
        root.token = made["root_token"].as_str().unwrap().to_owned();
        let private = Self { child, root, key: made["keys_base64"][0].as_str().unwrap().to_owned() };
        private.unseal().await;
        private
    }

    pub(super) async fn unseal(&self) {
        self.root.put("sys/unseal", json!({ "key": self.key })).await;
        until("the active node", || async {
            (self.root.ask("GET", "sys/health", Value::Null).await.0 == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn sealed_killed_and_throttling_mean_nothing_happened() {
    let mut vault = Private::start().await;
    let root = vault.root.clone();
    let mut settings = settings(&root.address, &root.token);
    settings.tokens = true;
    let tokens = connected(&settings).await.remove(1);
    let (_, accessor) = root.token(json!({ "ttl": "10m" })).await;
    let subject = about(Kind::VaultToken, &accessor);
    root.put("sys/quotas/rate-limit/tight", json!({ "path": "auth/token/", "rate": 1, "interval": "60s" })).await;
    let mut throttled = None;
    for _ in 0..4 {
        throttled = tokens.observe(&subject).await.err().or(throttled);
    }
    // Vault tells when to come again only where its operator has switched that on.
    assert_eq!(throttled.unwrap().kind, FailureKind::Throttled { after_ms: None });
    root.put("sys/quotas/config", json!({ "enable_rate_limit_response_headers": true })).await;
    let throttled = tokens.observe(&subject).await.unwrap_err();
    assert!(matches!(throttled.kind, FailureKind::Throttled { after_ms: Some(1..=60_000) }), "{throttled:?}");
    let (status, _) = root.ask("DELETE", "sys/quotas/rate-limit/tight", Value::Null).await;
    assert_eq!(status, 204);
    root.put("sys/seal", json!({})).await;
    assert_eq!(kind(tokens.observe(&subject).await), FailureKind::Unavailable);
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unavailable);
    let sighting = tokens.probe(&subject).await;
    assert_eq!((sighting.answer, sighting.control), (Answer::Unknown, false));
    // A start against a sealed Vault waits for it.
    let late = connected(&settings).await.remove(1);
    assert_eq!(kind(late.self_check().await), FailureKind::Unavailable);
    vault.unseal().await;
    late.self_check().await.unwrap();
    assert_eq!(tokens.observe(&subject).await.unwrap().presence, Presence::Present);
    vault.child.kill().await.unwrap();
    assert_eq!(kind(tokens.perform(Act::Revoke, &subject).await), FailureKind::Unavailable);
}
