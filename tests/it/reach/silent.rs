//! An AppRole of a real Vault that nobody uses for 90 days: found, told, retired, and seen dead; one that is used in time stays.
//!
//! No process' clock can be moved, so its parts are driven at one that the test moves, in the order in which the roles `reach` and
//! `enforce` drive them: what reads the log on and says what begins its watch anew, what concludes, the way in, the executor, and Vault's
//! connector. The lines are that Vault's own audit device's, with their times moved to the day that it is.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew::case::HoldReason;
use curfew::case::record::{Presence, Verdict};
use curfew::case::state::Phase;
use curfew::clock::{Clock as _, Simulated};
use curfew::connector::vault as vaults;
use curfew::connector::{Realm, Registry, Subject};
use curfew::event::{CredentialRegistered, Data, Event, Type};
use curfew::finding::{self, Finding};
use curfew::intake::Intake;
use curfew::journal::{CaseLine, Journal};
use curfew::policy::Rules;
use curfew::policy::rules::{FindingRule, Response, When};
use curfew::reach::known;
use curfew::reach::notice::{self, Silences, Sort};
use curfew::reach::unused::Asked;
use curfew::reach::uses::Watched;
use curfew::reach::uses::watch::Known;

use super::*;
use crate::stage::{Stage, TOPIC, case_of, event, now_ms, record};

over_both! {
    an_approle_that_is_silent_for_90_days_dies_after_its_notice_and_one_that_is_used_in_it_stays,
}

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
const SILENT_MS: i64 = 90 * DAY_MS;
const NOTICE_DAYS: i64 = 14;

/// An AppRole, one secret_id of it, and what the audit device wrote while it worked.
struct Worker {
    credential: CredentialId,
    secret: Value,
    lines: Vec<Value>,
}

struct Years {
    tower: Tower,
    registry: Registry,
    clock: Arc<Simulated>,
    log: PathBuf,
    /// One line that reach's own reading writes.
    reading: Value,
    _folder: tempfile::TempDir,
}

/// What the device has written since it had `from` bytes.
fn written(log: &Path, from: u64) -> Vec<Value> {
    let bytes = fs::read(log).unwrap();
    let new = &bytes[usize::try_from(from).unwrap()..];
    new.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

impl Years {
    async fn new() -> Self {
        let (tower, folder) = (Tower::new().await, tempfile::tempdir().unwrap());
        let device = folder.path().join("device.log");
        let body = json!({"type": "file", "options": {"file_path": device}});
        tower.admin.done("PUT", "sys/audit/file", body).await;
        tower.admin.done("POST", "kv/data/app/open", json!({"data": {"page": "1"}})).await;
        let before = fs::metadata(&device).unwrap().len();
        tower.reader.read(&BTreeSet::new(), &[]).await;
        let reading = written(&device, before).pop().unwrap();
        // All of it lies in the past: no line is of the future, however long the test takes.
        let clock = Simulated::at(now_ms() - 200 * DAY_MS);
        let token = tower.admin.curfew_token().await;
        let mut settings = VaultSettings::new(&tower.admin.address, Auth::Token(token.into()));
        settings.secret_id_roles = ["busy", "silent"].map(|role| format!("approle/{role}")).to_vec();
        settings.derived_tokens = true;
        let mut registry = Registry::default();
        registry.add_realm(Realm {
            name: "prod".to_owned(),
            mode: Mode::Enforce,
            allowed_prefixes: ["busy", "silent"].map(|role| format!("approle/{role}/")).to_vec(),
            reducible: Vec::new(),
            targets: Vec::new(),
        });
        for connector in vaults::connect("prod", &settings, Mode::Enforce, clock.clone()).await.unwrap() {
            registry.add(connector);
        }
        let log = folder.path().join("audit.log");
        fs::write(&log, "").unwrap();
        Self { tower, registry, clock, log, reading, _folder: folder }
    }

    /// It logs in, and reads a page.
    async fn worker(&self, role: &str) -> Worker {
        let (admin, device) = (&self.tower.admin, self.log.with_file_name("device.log"));
        admin.done("POST", &format!("auth/approle/role/{role}"), json!({"token_policies": ["etl"]})).await;
        let (_, id) = admin.call("GET", &format!("auth/approle/role/{role}/role-id"), Value::Null).await;
        let (_, made) = admin.call("POST", &format!("auth/approle/role/{role}/secret-id"), json!({})).await;
        let secret = json!({"role_id": id["data"]["role_id"], "secret_id": made["data"]["secret_id"]});
        let accessor = made["data"]["secret_id_accessor"].as_str().unwrap();
        let credential = CredentialId::new(Kind::VaultSecretId, "prod", &format!("approle/{role}/{accessor}")).unwrap();
        let before = fs::metadata(&device).unwrap().len();
        let (status, login) = admin.call("POST", "auth/approle/login", secret.clone()).await;
        assert_eq!(status, 200);
        admin.call_as(login["auth"]["client_token"].as_str().unwrap(), "GET", "kv/data/app/open", Value::Null).await;
        let lines = written(&device, before);
        assert!(lines.len() >= 3, "requests and responses: {lines:?}");
        Worker { credential, secret, lines }
    }

    /// Vault writes these lines now.
    fn writes(&self, lines: &[Value]) {
        let now = jiff::Timestamp::from_millisecond(self.clock.wall_ms()).unwrap().to_string();
        let mut file = fs::File::options().append(true).open(&self.log).unwrap();
        for line in lines {
            let mut line = line.clone();
            line["time"] = json!(now);
            writeln!(file, "{line}").unwrap();
        }
    }

    async fn lets_in(&self, worker: &Worker) -> bool {
        self.tower.admin.call("POST", "auth/approle/login", worker.secret.clone()).await.0 == 200
    }
}

/// What the role `reach` does in one round: reads the log on, states what is known, and says what is found and what is not any more.
async fn round(years: &Years, journal: &Arc<dyn Journal>, intake: &Intake, log: &mut Known, read: &Reading) -> usize {
    let now_ms = years.clock.wall_ms();
    let turn = log.read_on(&years.log, now_ms).unwrap();
    assert!(turn.caught_up && turn.unread == 0);
    if let Some(uses) = turn.new {
        journal.reach().used(log.watched.clone(), uses).await.unwrap();
    }
    let standing = journal.standing(99).await.unwrap();
    let own =
        known::Known { recipes: &[], realms: &[], targets: &[], tasks: &[], standing: &standing, offboardings: &[] };
    kept::record(journal.reach(), source("journal"), known::facts(&own), now_ms).await.unwrap();
    kept::record(journal.reach(), source("vault:prod"), read.clone(), now_ms).await.unwrap();
    let reach = Kept::new(journal.clone(), Vec::new());
    assert!(reach.sources(now_ms).await.unwrap().iter().all(|line| line.standing == Standing::Whole));
    let asked = Asked { for_ms: SILENT_MS, youngest_ms: 30 * DAY_MS, now_ms };
    let lives = Default::default();
    let by = Silences { uses: reach.uses().await.unwrap(), dormant: asked, unused: asked, lives };
    let found = notice::found_by(&reach.graph().await.unwrap().0, &[Sort::Dormant], &by);
    let open: Vec<Finding> =
        journal.matched(finding::id(notice::TOPIC, ""), (i64::MIN, String::new()), 99).await.unwrap();
    let said = notice::news(&found, &open);
    let new = said.new.iter().map(|found| Event::found("default".into(), found, now_ms));
    let over = said.over.iter().map(|finding| Event::found_no_more(finding, now_ms));
    let events: Vec<Event> = new.chain(over).collect();
    let many = events.len();
    if many > 0 {
        intake.notice(events).await.unwrap();
    }
    many
}

fn is_told(line: &CaseLine) -> bool {
    matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Notice })
}

async fn an_approle_that_is_silent_for_90_days_dies_after_its_notice_and_one_that_is_used_in_it_stays(store: Store) {
    let years = Years::new().await;
    let (busy, silent) = (years.worker("busy").await, years.worker("silent").await);
    let read = years.tower.reader.read(&BTreeSet::new(), &[]).await;
    assert_eq!(read.faults, Vec::<String>::new());
    let mut stage = Stage::new(store, years.registry.clone());
    let authority = stage.settings.authority[TOPIC].clone();
    stage.settings.authority.insert(notice::TOPIC.to_owned(), authority);
    let journal = stage.open().await;
    let when = When { detector: Some(vec![Sort::Dormant.detector()]), ..When::default() };
    let rule = FindingRule { notice_ms: NOTICE_DAYS * DAY_MS, ..FindingRule::new(when, Response::Retire) };
    let rules = Arc::new(Rules { findings: vec![rule], ..Rules::default() });
    let intake = Intake { clock: years.clock.clone(), rules, ..stage.intake(journal.clone()) };
    let executor = stage.executor_at(journal.clone(), &years.clock);

    let begins_ms = years.clock.wall_ms();
    for worker in [&busy, &silent] {
        let data = CredentialRegistered {
            credential: worker.credential.clone(),
            fingerprints: Vec::new(),
            version: None,
            current: true,
            issued_ms: Some(begins_ms),
            owner: Some("team-ai".to_owned()),
            environment: Some("test".to_owned()),
        };
        let known = event(Type::CredentialRegistered, Data::CredentialRegistered(data));
        record(journal.as_ref(), vec![Event { broker_ms: begins_ms, ..known }]).await;
        // Its issuer knows it, and gave it no end.
        let about =
            Subject { credential: worker.credential.clone(), ..crate::vault::about(Kind::VaultSecretId, "x/y") };
        let seen = years.registry.issuer(&worker.credential).unwrap().observe(&about).await.unwrap();
        assert_eq!(seen.presence, Presence::Present);
        journal.saw(&"default".into(), &worker.credential, seen, None).await.unwrap();
    }
    let watched = Watched {
        tenant: "default".to_owned(),
        source: "audit:prod".to_owned(),
        realm: "prod".to_owned(),
        since_ms: None,
        until_ms: 0,
        stale_ms: 2 * DAY_MS,
        unread: 0,
        position: None,
    };
    let mut log = Known::of(watched, Vec::new());
    let case = async |worker: &Worker| case_of(journal.as_ref(), &worker.credential).await;

    // Day 0: its log is watched from now on, and both work an hour later.
    years.writes(std::slice::from_ref(&years.reading));
    assert_eq!(round(&years, &journal, &intake, &mut log, &read).await, 0);
    years.clock.advance_ms(HOUR_MS);
    years.writes(&busy.lines);
    years.writes(&silent.lines);
    let mut found = None;
    for day in 1..=110 {
        years.clock.advance_ms(DAY_MS);
        // Reach reads Vault, which writes that down.
        years.writes(std::slice::from_ref(&years.reading));
        if day == 95 {
            years.writes(&busy.lines);
        }
        let said = round(&years, &journal, &intake, &mut log, &read).await;
        executor.drain().await.unwrap();
        let (first, second) = (case(&busy).await, case(&silent).await);
        if said > 0 && found.is_none() {
            found = Some((day, years.clock.wall_ms()));
        }
        let Some((from, told_ms)) = found else {
            assert!(first.is_none() && second.is_none(), "day {day}");
            continue;
        };
        let (first, second) = (first.unwrap(), second.unwrap());
        let until_ms = told_ms + NOTICE_DAYS * DAY_MS;
        assert_eq!(second.case.directive.not_before_ms, Some(until_ms), "day {day}");
        assert_eq!(is_told(&first), day < 95, "day {day}: {:?}", first.case.state.phase);
        assert_eq!(second.closed_ms.is_some(), day >= from + NOTICE_DAYS, "day {day}: {:?}", second.case.state.phase);
        if second.closed_ms.is_none() {
            assert!(is_told(&second) && years.lets_in(&silent).await, "day {day}: nothing is done before");
        }
    }
    let (from, told_ms) = found.expect("it was found");
    assert_eq!(from, 91, "silent for more than 90 days, and not a day sooner");
    let (first, second) = (case(&busy).await.unwrap(), case(&silent).await.unwrap());
    assert_eq!(first.verdict, Verdict::Obsolete, "it was used in time");
    assert!(years.lets_in(&busy).await);
    let Verdict::Dead { at_ms, .. } = second.verdict else { panic!("{:?}", second.verdict) };
    assert_eq!(at_ms, told_ms + NOTICE_DAYS * DAY_MS, "not before the notice was over, and then at once");
    assert!(!years.lets_in(&silent).await, "dead at Vault itself");
    // Who is told of it heard of the end of the notice when it began.
    let told = journal.outbox(0, 99).await.unwrap();
    let says = |row: &curfew::journal::Outgoing| {
        let said: Value = serde_json::from_slice(&row.body).unwrap();
        (said["data"]["cred_id"].clone(), said["data"]["not_before"].clone())
    };
    let end = jiff::Timestamp::from_millisecond(told_ms + NOTICE_DAYS * DAY_MS).unwrap();
    let end = format!("{end:.3}");
    for worker in [&busy, &silent] {
        let said = (json!(worker.credential.as_str()), json!(end));
        assert!(told.iter().map(says).any(|one| one == said), "{said:?}");
    }
}
