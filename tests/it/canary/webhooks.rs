//! What GitHub and GitLab send, and what GitHub's API answers, with a secret wherever there is room: it comes in, and does not
//! go on.

use base64::engine::general_purpose::STANDARD;

use super::scans::{Lab, TOKENS};
use super::*;
use crate::github::{Says, signature, webhook};

/// An event with the secret in each field that is free.
fn told(action: &str, number: i64, secret: &str) -> Value {
    let now_ms = curfew::clock::System::shared().wall_ms();
    let mut event = webhook(action, number, now_ms);
    let (base64, hex) = (STANDARD.encode(format!("user:{secret}")), hex::encode(secret));
    for (name, value) in [
        ("secret_type", format!("type {hex}")),
        ("secret_type_display_name", secret.to_owned()),
        ("resolution", secret.to_owned()),
        ("resolution_comment", format!("was {secret}")),
        ("validity", secret.to_owned()),
        ("html_url", format!("https://github.com/{secret}")),
        ("provider", secret.to_owned()),
        (secret, secret.to_owned()),
    ] {
        event["alert"][name] = value.into();
    }
    event["alert"]["assigned_to"] = json!({"login": secret, "url": base64});
    event["sender"] = json!({"login": secret});
    event[secret] = json!([{secret: secret}]);
    event
}

fn placed(number: i64, secret: &str) -> Value {
    let mut event = told("created", number, secret);
    let url = percent_encode(secret.as_bytes(), NON_ALPHANUMERIC).to_string();
    event["location"] = json!({"type": format!("commit {secret}"), "details": {"path": format!("conf/{secret}/{url}.tf"),
        "start_line": 7, "commit_sha": hex::encode(secret), "blob_url": secret, secret: secret}});
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_webhook_goes_on() {
    let mut lab = Lab::start().await;
    let secret = made_up("c4nary/+");
    let secrets = BTreeMap::from([("what leaked".to_owned(), secret.clone())]);
    let mut controls = Vec::new();

    let hook = lab.known_by("github.secret");
    let headers = |body: &str, more: &[(&str, &str)]| {
        let mut all = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("x-github-event".to_owned(), "secret_scanning_alert".to_owned()),
            ("x-github-delivery".to_owned(), "0a1b-2c3d".to_owned()),
            ("x-hub-signature-256".to_owned(), signature(&hook, body)),
        ];
        for (name, value) in more {
            all.retain(|(known, _)| known != name);
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
        all
    };
    let path = "/webhooks/github";
    lab.github.says(42, Says::Secret(secret.clone()));
    for event in [told("created", 42, &secret), placed(42, &secret), told("resolved", 42, &secret)] {
        let body = event.to_string();
        controls.push(body.clone().into_bytes());
        let (status, said) = lab.send(path, headers(&body, &[]), body.clone().into_bytes()).await;
        assert_eq!((status, &said["result"]), (200, &json!("accepted")), "{said}");
        for (name, value) in [
            ("x-github-event", &*secret),
            ("x-github-delivery", &*secret),
            ("x-hub-signature-256", &*secret),
            ("x-hub-signature-256", &*format!("sha256={}", hex::encode(&secret))),
            ("content-type", &*format!("text/{}", hex::encode(&secret))),
        ] {
            lab.send(path, headers(&body, &[(name, value)]), body.clone().into_bytes()).await;
        }
        let half = body[..body.len() / 2].to_owned();
        assert_eq!(lab.send(path, headers(&half, &[]), half.clone().into_bytes()).await.0, 400);
        assert_eq!(lab.send(path, headers(&half, &[]), body.into_bytes()).await.0, 401);
    }
    // Answers that are none, each with the secret in it.
    for (number, says) in [
        (50, Says::Text(format!("<html>{secret}"))),
        (51, Says::Text(json!({"number": secret, "secret": {"x": secret}}).to_string())),
        (52, Says::Text(json!({"number": 1, "secret": secret}).to_string())),
    ] {
        lab.github.says(number, says);
        let body = webhook("created", number, curfew::clock::System::shared().wall_ms()).to_string();
        assert_eq!(lab.send(path, headers(&body, &[]), body.into_bytes()).await.0, 502);
    }

    let token = lab.known_by("gitlab.token");
    let path = "/v1/revoke_tokens";
    let known = |token: &str| {
        [("authorization".to_owned(), token.to_owned()), ("content-type".to_owned(), "application/json".to_owned())]
    };
    let url = percent_encode(secret.as_bytes(), NON_ALPHANUMERIC).to_string();
    let leaked = json!([{"type": TOKENS, "token": secret, &*secret: secret, "vulnerability": {"title": secret},
        "location": format!("https://user:{secret}@git.test/g/p/-/blob/0a1b/conf/{url}?x={secret}#L7")}]);
    let body = leaked.to_string();
    controls.push(body.clone().into_bytes());
    assert_eq!(lab.send(path, known(&token), body.clone().into_bytes()).await.0, 204);
    assert_eq!(lab.send(path, known(&secret), body.clone().into_bytes()).await.0, 401);
    for wrong in [
        body.replace(TOKENS, &secret),
        body[..body.len() / 2].to_owned(),
        body.replace("[{", &format!("[{secret}, {{")),
        format!("\"{secret}\""),
        json!([{"token": secret, "location": secret}]).to_string(),
    ] {
        assert_eq!(lab.send(path, known(&token), wrong.clone().into_bytes()).await.0, 400, "{}", wrong.len());
    }

    // Two of alert 42, those of which GitHub said nothing, GitLab's.
    lab.holds("finding.observed", 6).await;
    lab.holds("finding.closed", 1).await;
    let scanner = Scanner::new(&secrets);
    assert!(controls.iter().all(|body| !scanner.names(body).is_empty()), "the control");
    lab.ends_clean(&secrets).await;
}
