//! The status page in a real Chromium, on a real run: it follows what happens without being loaded anew, and the browser has
//! nothing to complain about.

use super::*;
use crate::page::browser::Browser;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_follows_what_happens() {
    let world = World::new("enforce").await;
    let tasks = world.some_tasks(3).await;
    let mut browser = Browser::start().await;
    let running = world.start();
    running.runs().await;
    assert!(running.log().contains(&format!("http://127.0.0.1:{}/status", world.status)), "{}", running.log());
    let url = format!("http://127.0.0.1:{}", world.status);
    browser.look(1600, "light").await;
    browser.open(&format!("{url}/status")).await;
    browser.until("a page that is up to date", "document.getElementById('live')?.dataset.state === 'live'").await;
    // What stays as long as nothing is loaded anew.
    browser.eval("window.same = true; document.querySelector('main .head a').focus()").await;
    for (n, task) in tasks.iter().enumerate() {
        let mut event: Value = serde_json::from_str(&World::started(task)).unwrap();
        event["data"]["task"] = json!(format!("<img src=x onerror=alert({n})>\u{202e}"));
        event["data"]["agent"] = json!({"id": "\"><script>alert(1)</script>"});
        event["data"]["deadline"] = json!("2099-01-01T00:00:00Z");
        world.send(&event.to_string()).await;
    }
    let held =
        "document.body.innerText.includes('onerror=alert(0)>') && document.querySelectorAll('.holds li').length >= 6";
    browser.until("what the tasks hold", held).await;
    // A freeze is said at once, with who and why, and as text.
    let output = world.ask(&["freeze", "--reason", "<b>a look</b>"]).await;
    assert!(output.status.success(), "{output:?}");
    browser.until("the freeze", "document.querySelector('.banner.amber')?.innerText.includes('<b>a look</b>')").await;
    for task in &tasks {
        world.send(&World::ended(task)).await;
    }
    let six = "document.querySelectorAll('.tiles a')[2].innerText.startsWith('6')";
    browser.until("six held cases", six).await;
    assert!(world.ask(&["release"]).await.status.success());
    world.all_closed(&tasks, &running).await;
    let dead = "[...document.querySelectorAll('.closed .said')].filter((one) => one.innerText.startsWith('dead')).length === 6";
    browser.until("six deaths", dead).await;
    browser.until("nothing in doubt", "document.querySelector('h1').innerText === 'Nothing is in doubt'").await;
    let kept = "window.same === true && document.activeElement === document.querySelector('main .head a')";
    assert_eq!(browser.eval(kept).await, true, "it was not loaded anew, and the focus stayed");
    assert_eq!(browser.eval("document.querySelectorAll('img').length").await, 0);

    // One case: what was done, what was seen, and what to say in a terminal.
    let case = browser.eval("document.querySelector('.closed a').getAttribute('href')").await;
    browser.open(&format!("{url}{}", case.as_str().unwrap())).await;
    browser.until("a timeline", "document.querySelectorAll('.timeline tbody tr').length > 5").await;
    let command = browser.eval("document.querySelector('.run').innerText").await;
    assert_eq!(command, format!("curfew case {}", case.as_str().unwrap().rsplit_once('/').unwrap().1), "{command}");
    let marked = "(() => { const run = document.querySelector('.run'); const range = document.createRange(); \
        range.selectNodeContents(run); getSelection().addRange(range); return getComputedStyle(run).userSelect; })()";
    assert_eq!(browser.eval(marked).await, "all");
    assert_eq!(browser.eval("document.querySelectorAll('.plan .over').length > 2").await, true);
    let proof = browser
        .eval("[...document.querySelectorAll('.card')].find((one) => one.innerText.startsWith('Proof')).innerText")
        .await;
    assert!(proof.as_str().unwrap().contains("Seen dead"), "{proof}");

    // Narrow and wide, light and dark: nothing is cut off, and the ground follows.
    for (width, scheme) in [(400, "light"), (400, "dark"), (1600, "light"), (1600, "dark")] {
        browser.look(width, scheme).await;
        for path in ["/status", "/status/cases", "/status/tasks", case.as_str().unwrap()] {
            browser.open(&format!("{url}{path}")).await;
            browser.until("a page", "document.getElementById('live')?.dataset.state === 'live'").await;
            let over =
                browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
            assert_eq!(over, 0, "{path} is wider than {width}");
            let ground = browser.eval("getComputedStyle(document.body).backgroundColor").await;
            let light = ground.as_str().unwrap().contains("245");
            assert_eq!(light, scheme == "light", "{ground}");
        }
    }
    assert_eq!(browser.complaints(), Vec::<Value>::new(), "errors, exceptions, or what the policy forbids");

    // Without scripts it is whole.
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    browser.open(&format!("{url}/status")).await;
    let whole = "document.querySelectorAll('.closed li').length === 6 && document.getElementById('live').dataset.state === undefined \
        && document.querySelector('meta[http-equiv=refresh]') !== null";
    browser.until("a page that is read anew by itself", whole).await;
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": false})).await;

    // The process ends: what was shown stays, and says that it is old.
    browser.open(&format!("{url}/status")).await;
    browser.until("a page", "document.getElementById('live')?.dataset.state === 'live'").await;
    running.kill().await;
    let stale = "document.getElementById('live').dataset.state === 'stale' && document.querySelectorAll('.closed li').length === 6";
    browser.until("that it is old", stale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_keeps_nothing_from_starting_and_is_waited_for() {
    let world = World::new("observe").await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", world.status)).unwrap();
    let running = world.start();
    running.runs().await;
    assert!(running.log().contains("the status page cannot be served now"), "{}", running.log());
    drop(taken);
    let url = format!("http://127.0.0.1:{}/status", world.status);
    until("the page", || async { reqwest::get(&url).await.is_ok_and(|page| page.status() == 200).then_some(()) }).await;
}
