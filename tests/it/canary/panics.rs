//! A panic's message may quote what was being worked on: neither the hook nor who waits for the task says it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use curfew::clock::{Clock, System};
use curfew::config::Log;
use curfew::http::{self, Door};
use curfew::intake::Intake;
use curfew::journal::sqlite::{Settings, Sqlite};
use curfew::telemetry;

use super::*;

const SECRET: &str = "CURFEW_TEST_SECRET";

/// A clock that panics with a secret, at its second and later readings: within the task that records.
struct Panics(String, AtomicUsize);

impl Clock for Panics {
    fn wall_ms(&self) -> i64 {
        assert!(self.1.fetch_add(1, Ordering::SeqCst) == 0, "{} {:?}", self.0, self.0.as_bytes());
        System::shared().wall_ms()
    }

    fn monotonic_ms(&self) -> i64 {
        System::shared().monotonic_ms()
    }
}

/// Not a test: the main function of a process that panics in a task, in a thread and in the journal's reader.
#[tokio::test]
#[ignore = "the process that panics, started by the test below"]
async fn panicking() {
    let Ok(secret) = std::env::var(SECRET) else { return };
    telemetry::start(&Log { json: false, level: "trace".to_owned() }, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    http::create_token(&token).unwrap();
    let intake = Intake {
        journal: Sqlite::open(&dir.path().join("journal.db"), Settings::default()).unwrap(),
        rules: Arc::default(),
        limits: curfew::event::Limits::default(),
        clock: Arc::new(Panics(secret.clone(), AtomicUsize::new(0))),
        metrics: Arc::default(),
        stirred: Arc::default(),
        trust: None,
        types: None,
    };
    let token = Arc::new(http::read_token(&token).unwrap());
    let bearer = secrecy::ExposeSecret::expose_secret(token.as_ref()).to_owned();
    let door = Door { intake, token, topic: "curfew.tasks".into(), tenant: "default".into() };
    let listener = http::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    tokio::spawn(http::serve(listener, http::events(door), tokio_util::sync::CancellationToken::new()));
    let request = reqwest::Client::new().post(url).bearer_auth(bearer).header("content-type", STRUCTURED);
    let answer = request.body(event("heartbeat", "1", &json!({"run_id": "r"})).to_string()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    println!("ANSWER {}", answer.text().await.unwrap());
    let (one, other) = (secret.clone(), secret);
    std::thread::spawn(move || panic!("{one}")).join().unwrap_err();
    let error = tokio::task::spawn_blocking(move || panic!("{other}")).await.unwrap_err();
    println!("SAID {}", telemetry::died(&error));
}

#[test]
fn a_panic_says_its_place_and_nothing_of_its_message() {
    let secret = made_up("hvs.CAESI");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "canary::panics::panicking", "--ignored", "--nocapture"]);
    let output = command.env(SECRET, &secret).env("RUST_BACKTRACE", "full").stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("a bug in Curfew: panicked").count(), 3, "{text}");
    assert!(text.contains("recording an event over HTTP died") && text.contains("SAID a task"), "{text}");
    let scanner = Scanner::new(&BTreeMap::from([("the panic's".to_owned(), secret)]));
    assert_eq!(scanner.find(&said), BTreeSet::new());
}
