//! The status page without the rest of the process: who is answered, what is shared, what hostile names come to.

pub mod browser;

use std::sync::Arc;

use curfew::case::Action;
use curfew::clock::{self, Simulated};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{Data, GrantSpec};
use curfew::guard::Mode;
use curfew::http;
use curfew::journal::{Filter, Journal};
use curfew::status::facts::{Source, System};
use curfew::status::shared::Shared;
use curfew::status::{View, words};
use curfew::task::{RunKey, Tenure};
use tokio_util::sync::CancellationToken;

use crate::stage::{ended, now_ms, record, started};
use crate::store::Store;

fn source(journal: &Arc<dyn Journal>, clock: clock::Shared) -> Source {
    let systems = vec![System { name: "test".into(), kind: "vault", mode: Mode::Enforce }];
    Source::new(journal.clone(), clock, systems, "/nonexistent/curfew.freeze".into())
}

/// Where the pages of `journal` are; ended with the token.
async fn serve(journal: &Arc<dyn Journal>) -> (String, CancellationToken) {
    let shared = Shared::new(source(journal, clock::System::shared()));
    let page = http::status::Page { shared, hosts: ["status.corp.example".to_owned()].into() };
    let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(http::serve(listener, http::status::status(page), stop.clone()));
    (url, stop)
}

fn grant(credential: &CredentialId) -> GrantSpec {
    GrantSpec { credential: credential.clone(), tenure: Tenure::Minted, principal: None, expires_ms: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_by_another_name_or_asks_for_too_much_is_refused() {
    let store = Store::sqlite();
    let journal = store.open().await;
    let (url, stop) = serve(&journal).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let get = |path: &str| client.get(format!("{url}{path}"));
    let status = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        for name in ["content-security-policy", "x-content-type-options", "referrer-policy", "cache-control"] {
            assert!(answer.headers().contains_key(name), "{name}: {answer:?}");
        }
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        answer.status().as_u16()
    };
    for path in
        ["/status", "/status/cases", "/status/cases?of=held", "/status/tasks", "/status/page.css", "/status/page.js"]
    {
        assert_eq!(status(get(path)).await, 200, "{path}");
        assert_eq!(status(get(path).header("host", "evil.example")).await, 403, "{path}");
        assert_eq!(status(get(path).header("host", "status.corp.example")).await, 200, "{path}");
        assert_eq!(status(client.post(format!("{url}{path}"))).await, 405, "{path}");
    }
    assert_eq!(status(get("/")).await, 307);
    assert_eq!(status(get(&format!("/status/cases/{}", uuid::Uuid::new_v4()))).await, 404);
    assert_eq!(status(get("/status/tasks/default/%2Fnobody%3A1")).await, 404);
    for path in [
        "/status/cases/x",
        "/status/cases?of=x",
        "/status/cases?after=9.9.9.x",
        "/status/cases?x=1",
        "/status/tasks/a/%00",
    ] {
        assert_eq!(status(get(path)).await, 400, "{path}");
    }
    assert_eq!(status(get(&format!("/status/cases?after={}", "x".repeat(9_000)))).await, 414);
    assert_eq!(status(get("/status").body("x")).await, 413);
    stop.cancel();
}

/// However many watch, the journal is asked once a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_shared_for_a_second() {
    let store = Store::sqlite();
    let journal = store.open().await;
    let clock = Simulated::at(now_ms());
    let shared = Shared::new(source(&journal, clock.clone()));
    let page = async || String::from_utf8(shared.picture(View::Start).await.unwrap().html.to_vec()).unwrap();
    let first = page().await;
    assert!(first.contains("No case is open."), "{first}");
    let credential = CredentialId::new(Kind::VaultLease, "test", "database/creds/app/x").unwrap();
    let run = RunKey::new("/tests", "1");
    record(journal.as_ref(), vec![started(&run, vec![grant(&credential)]), ended(&run)]).await;
    clock.advance_ms(900);
    let all = futures::future::join_all((0..50).map(|_| page())).await;
    assert!(all.iter().all(|page| *page == first), "within a second it is the same picture");
    clock.advance_ms(100);
    let next = page().await;
    assert!(next.contains("database/creds/app/x") && next.contains("at work"), "{next}");
}

/// Names are what producers say: none of them is more than text, and none looks like another.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_shown_and_never_come_out_raw() {
    let hostile = [
        "<script>alert(1)</script>".to_owned(),
        "\"><img src=x onerror=alert(1)>".to_owned(),
        "' onmouseover='alert(1)".to_owned(),
        "gnp.exe\u{202e}\u{2066}\u{200b}x".to_owned(),
        "</bdi></td><b>&lt;".to_owned(),
        format!("long{}", "n".repeat(600)),
        "../../%2e%2e/status?x#y".to_owned(),
    ];
    let store = Store::sqlite();
    let journal = store.open().await;
    let mut events = Vec::new();
    let mut runs = Vec::new();
    for (n, name) in hostile.iter().enumerate() {
        let credential = CredentialId::new(Kind::VaultLease, "test", name).unwrap();
        for lives in [true, false] {
            let run = RunKey::new("/tests", &format!("{name}{n}{lives}"));
            let mut event = started(&run, vec![GrantSpec { principal: Some(name.clone()), ..grant(&credential) }]);
            if let Data::TaskStarted(data) = &mut event.data {
                (data.task, data.identity) = (Some(name.clone()), Some(name.clone()));
            }
            events.push(event);
            runs.push(run.clone());
            if !lives {
                let mut event = ended(&run);
                if let Data::TaskEnded(data) = &mut event.data {
                    data.outcome = Some(name.clone());
                }
                events.push(event);
            }
        }
    }
    // One credential is held by a run that lives: only those that are asked for by an operator have cases.
    for name in &hostile {
        let credential = CredentialId::new(Kind::VaultLease, "test", name).unwrap();
        let data = Data::OperatorRevoke { credential, by: name.clone(), reason: name.clone() };
        events.push(crate::stage::event(curfew::event::Type::OperatorRevoke, data));
    }
    record(journal.as_ref(), events).await;
    let lines = journal.cases(Filter::default()).await.unwrap();
    assert_eq!(lines.len(), hostile.len());
    assert!(lines.iter().all(|line| line.case.directive.action == Action::Revoke));
    let (url, stop) = serve(&journal).await;
    let mut pages = vec!["/status".to_owned(), "/status/cases".to_owned(), "/status/tasks".to_owned()];
    pages.extend(lines.iter().map(|line| words::case_path(line.case.id)));
    pages.extend(runs.iter().map(|run| words::task_path("default", run)));
    for path in pages {
        let answer = reqwest::get(format!("{url}{path}")).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        let page = answer.text().await.unwrap();
        assert_eq!(page.matches("<script").count(), 1, "{path}: {page}");
        for raw in
            ["<img", "<b>&lt;", "\u{202e}", "\u{2066}", "\u{200b}", "</bdi></td><b>", "alert(1)</script>", "\"><img"]
        {
            assert!(!page.contains(raw), "{raw:?} in {path}: {page}");
        }
        assert!(page.len() < 300_000, "{path} has {} bytes", page.len());
    }
    let page = reqwest::get(format!("{url}/status/tasks")).await.unwrap().text().await.unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("\\u{202e}"), "{page}");
    stop.cancel();
}
