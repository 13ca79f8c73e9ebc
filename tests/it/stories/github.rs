//! From GitHub's webhook to GitHub's alert, through the real binary: a password that leaked is matched, contained and seen
//! dead; GitHub, which was away meanwhile, is told by the next process.

use super::findings::Post;
use super::*;
use crate::canary::port;
use crate::github::{GitHub, Says, signature, webhook};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_that_github_tells_of_dies_and_github_is_told() {
    let post = Post::new().await;
    let victim = &post.first;
    let folder = post.folder.path();
    let token = folder.join("github.token");
    curfew::http::create_token(&token).unwrap();
    let github = GitHub::start(&fs::read_to_string(&token).unwrap()).await;
    let http = port();
    let mut config = post.config("enforce");
    config["http"] = json!({"listen": format!("127.0.0.1:{http}"), "topic": post.findings, "findings": post.findings,
        "github": {"api": {"url": github.url, "token_file": "github.token", "resolve": true}}});
    fs::write(folder.join("curfew.yaml"), config.to_string()).unwrap();
    let mut running = Running::start(folder);
    running.runs().await;

    github.says(42, Says::Secret(victim.old.1.clone()));
    let mut event = webhook("created", 42, curfew::clock::System::shared().wall_ms());
    event["alert"]["validity"] = "active".into();
    let body = event.to_string();
    let hook = fs::read_to_string(folder.join("github.secret")).unwrap();
    let request = reqwest::Client::new().post(format!("http://127.0.0.1:{http}/webhooks/github"));
    let request = request.header("content-type", "application/json").header("x-github-event", "secret_scanning_alert");
    let request = request.header("x-github-delivery", "0a1b").header("x-hub-signature-256", signature(&hook, &body));
    assert_eq!(request.body(body).send().await.unwrap().status().as_u16(), 200);
    github.says(42, Says::Status(503));

    let outcome = post.outcome(victim).await;
    let (action, verdict) = (&outcome["data"]["action"], &outcome["data"]["verdict"]["state"]);
    assert_eq!((action, verdict), (&json!("contain"), &json!("dead")), "{outcome}");
    victim.assert_rotated("GitHub told of it").await;
    post.stand(&["matched"]).await;
    let asked = github.calls();
    until("GitHub to be told, in vain", || async { (github.calls() > asked).then_some(()) }).await;
    assert_eq!(github.resolution(42), None);
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(victim.old.1.as_str()), "a value is in the log");

    github.says(42, Says::Secret("it is not shown".to_owned()));
    running = Running::start(folder);
    running.runs().await;
    post.stand(&["closed"]).await;
    let told = github.resolution(42).unwrap();
    assert_eq!((&told["state"], &told["resolution"]), (&json!("resolved"), &json!("revoked")));
    assert!(told["resolution_comment"].as_str().unwrap().ends_with(outcome["data"]["case_id"].as_str().unwrap()));
    let (code, log) = running.terminate().await;
    assert_eq!(code, Some(0), "{log}");
}
