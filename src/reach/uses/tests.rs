use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::apply::{Apply, apply};
use super::follow::{Turn, turn};
use super::line::{MAX_LINE, read};
use super::*;
use crate::case::state::State;
use crate::case::{Action, Case, Directive};
use crate::credential::{CredentialId, Kind};
use crate::scope::{Cut, permissions};

/// As a Vault 1.18 wrote them: two AppRoles that log in (one has batch tokens), read, are refused, and ask of themselves.
const REAL: &str = include_str!("../../../fuzz/samples/audit.jsonl");

fn told() -> Tally {
    let mut tally = Tally::default();
    for line in REAL.lines() {
        let said = read(line.as_bytes()).unwrap();
        if let Some(deed) = said.deed {
            tally.add(deed, said.at_ms);
        }
    }
    tally
}

fn watched(since_ms: Option<i64>, until_ms: i64) -> Watched {
    Watched {
        tenant: "default".to_owned(),
        source: "audit:prod".to_owned(),
        realm: "prod".to_owned(),
        since_ms,
        until_ms,
        stale_ms: 10,
        unread: 0,
        position: None,
    }
}

fn uses(tally: &mut Tally) -> Uses {
    Uses::of([(watched(Some(0), 1_000), tally.take_new())])
}

fn used(role: Option<&str>, entity: Option<&str>, policy: &str) -> Deed {
    Deed::Used {
        role: role.map(str::to_owned),
        entity: entity.map(str::to_owned),
        policies: vec![policy.to_owned()],
        counts: true,
    }
}

fn login(mount: &str, role: Option<&str>, entity: &str) -> Deed {
    Deed::Login { mount: mount.to_owned(), role: role.map(str::to_owned), entity: entity.to_owned() }
}

#[test]
fn real_lines_say_which_policy_granted_what_and_nothing_else_is_kept() {
    let mut tally = told();
    let all: Vec<String> = tally.take_new().iter().map(|one| format!("{} {}", one.who, one.what)).collect();
    let roles: Vec<&str> = all.iter().map(String::as_str).filter(|line| line.starts_with("role:")).collect();
    assert_eq!(
        roles,
        [
            "role:approle/bat ",
            "role:approle/bat policy:a",
            "role:approle/etl ",
            "role:approle/etl policy:a",
            "role:approle/etl policy:b",
            "role:approle/etl policy:default",
        ]
    );
    let kept = all.join("\n");
    assert!(!kept.contains("hmac") && !kept.contains("kv/") && !kept.contains("127.0.0.1"), "{kept}");
    assert!(tally.take_new().is_empty(), "told once");
}

#[test]
fn a_login_alone_and_what_a_token_asks_of_itself_is_no_use() {
    let lines = REAL.lines().filter(|line| line.contains("/login\"") || line.contains("token/lookup-self"));
    let mut tally = Tally::default();
    for line in lines {
        let said = read(line.as_bytes()).unwrap();
        said.deed.into_iter().for_each(|deed| tally.add(deed, said.at_ms));
    }
    let all = tally.take_new();
    assert!(all.iter().any(|one| one.what == "as:approle/etl"));
    // Clients send the token that they had before along.
    let login = REAL.lines().find(|line| line.contains("/login\"") && line.contains("\"type\":\"response\"")).unwrap();
    let with_token = login.replacen("\"request\":{", "\"request\":{\"client_token\":\"hmac-sha256:00\",", 1);
    assert_ne!(login, with_token);
    assert_eq!(read(with_token.as_bytes()), read(login.as_bytes()));
    assert!(matches!(read(login.as_bytes()).unwrap().deed, Some(Deed::Login { .. })));
    assert!(!all.iter().any(|one| one.what.is_empty()), "{all:?}");
}

#[test]
fn what_is_no_line_of_it_is_counted_and_says_nothing_of_itself() {
    let secret = "hvs.CAESIJ9kTz3mQ7vX2bLw8RrYp4Nn0Ud6";
    for line in [
        String::new(),
        "null".to_owned(),
        secret.to_owned(),
        format!("{{\"time\": \"{secret}\"}}"),
        "{\"time\": 5}".to_owned(),
        "{\"time\": \"2026-11-27T10:57:56Z\", \"auth\": \"x\"}".to_owned(),
        "{\"time\": \"2026-11-27T10:57:56Z\", \"auth\": {\"metadata\": {\"role_name\": \"a\\nb\"}}, \"request\": {}}"
            .to_owned(),
        format!(
            "{{\"time\": \"2026-11-27T10:57:56Z\", \"auth\": {{\"entity_id\": \"{}\"}}, \"request\": {{}}}}",
            "e".repeat(600)
        ),
        "[".repeat(100_000),
    ] {
        let why = read(line.as_bytes()).unwrap_err();
        assert!(!why.to_string().contains("CAES"), "{why}");
    }
    // A line without anybody says when, and no more.
    let idle = read(b"{\"time\": \"1970-01-01T00:00:01Z\", \"type\": \"request\"}").unwrap();
    assert_eq!((idle.at_ms, idle.deed), (1_000, None));
    // Before Vault 1.11 nobody says which: each may have been.
    let old = b"{\"time\":\"1970-01-01T00:00:01Z\",\"auth\":{\"entity_id\":\"e\",\"policies\":[\"a\",\"b\"],\"metadata\":{\"role_name\":\"ETL\"}},\"request\":{\"client_token\":\"x\",\"path\":\"p\"}}";
    let Some(Deed::Used { role, policies, .. }) = read(old).unwrap().deed else { panic!() };
    assert_eq!((role.as_deref(), policies.len()), (Some("etl"), 2));
}

#[test]
fn who_cannot_be_told_apart_counts_as_having_used_it() {
    let last = |deeds: &[Deed], role: &str, policy: &str| {
        let mut tally = Tally::default();
        deeds.iter().for_each(|deed| tally.add(deed.clone(), 500));
        uses(&mut tally).policy("prod", role, policy, 0, 1_000)
    };
    let yes = Told::Last(Some(500));
    // The mount is known by the login, or it is each of that name.
    assert_eq!(last(&[login("one", Some("etl"), "e"), used(Some("etl"), Some("e"), "p")], "one/etl", "p"), yes);
    assert_eq!(
        last(&[login("one", Some("etl"), "e"), used(Some("etl"), Some("e"), "p")], "two/etl", "p"),
        Told::Last(None)
    );
    assert_eq!(last(&[used(Some("etl"), Some("e"), "p")], "two/etl", "p"), yes);
    // A child token has the entity alone, also where the login is seen later.
    assert_eq!(last(&[used(None, Some("e"), "p"), login("one", Some("etl"), "e")], "one/etl", "p"), yes);
    // An entity of which no login was seen may be anybody; one that logs in elsewhere is somebody else.
    assert_eq!(last(&[used(None, Some("e"), "p")], "one/etl", "p"), yes);
    assert_eq!(last(&[used(None, Some("e"), "p"), login("oidc", None, "e")], "one/etl", "p"), Told::Last(None));
}

#[test]
fn what_is_not_known_is_not_called_silent() {
    let of = |log: Watched| Uses::of([(log, Vec::new())]);
    let ask = |uses: &Uses, realm: &str| uses.policy(realm, "approle/etl", "p", 500, 1_000);
    assert_eq!(ask(&of(watched(Some(500), 995)), "prod"), Told::Last(None));
    assert_eq!(ask(&of(watched(Some(500), 995)), "other"), Told::Untracked);
    assert_eq!(ask(&of(watched(Some(501), 995)), "prod"), Told::TooShort);
    assert_eq!(ask(&of(watched(None, 995)), "prod"), Told::TooShort);
    assert_eq!(ask(&of(watched(Some(0), 989)), "prod"), Told::Stale);
}

/// A case that froze these, found at 500 and not before 600.
pub(in crate::reach) fn case(sort: &str, names: &[&str]) -> Case {
    let credential = CredentialId::new(Kind::VaultApprole, "prod", "approle/etl").unwrap();
    let cut = (!names.is_empty()).then(|| Box::new(Cut::of(permissions(names).unwrap())));
    let directive = Directive {
        credential: credential.clone(),
        run: None,
        action: if names.is_empty() { Action::Revoke } else { Action::Reduce },
        trigger: crate::case::Trigger::Finding,
        urgency: crate::case::Urgency::Routine,
        held: None,
        topic: crate::reach::notice::TOPIC.to_owned(),
        grantors: Vec::new(),
        broker_ms: 500,
        end_ms: None,
        finding: Some(format!("reach::{sort}:{credential}")),
        generation: None,
        cut,
        not_before_ms: Some(600),
    };
    Case {
        id: uuid::Uuid::nil(),
        tenant: "default".into(),
        system: "prod".to_owned(),
        lane: String::new(),
        principal: None,
        seen_ms: None,
        opened_ms: 500,
        traceparent: None,
        seq: 0,
        blast: None,
        charged: false,
        state: State::opened(&directive),
        directive,
    }
}

#[test]
fn what_was_used_since_is_not_taken_and_what_is_not_known_waits() {
    let known = |until_ms, uses: &[(&str, i64)]| {
        let row = |(what, last_ms): &(&str, i64)| Use {
            who: "role:approle/etl".to_owned(),
            what: (*what).to_owned(),
            last_ms: *last_ms,
        };
        Uses::of([(watched(Some(0), until_ms), uses.iter().map(row).collect())])
    };
    let two = case("unused", &["policy:a", "policy:b"]);
    let b = permissions(["policy:b"]).unwrap();
    assert_eq!(apply(&two, &known(601, &[]), 605), Apply::Go);
    assert_eq!(apply(&two, &known(601, &[("policy:a", 400)]), 605), Apply::Go, "long before");
    assert_eq!(apply(&two, &known(601, &[("policy:b", 560)]), 605), Apply::Spare(b.clone()));
    assert_eq!(apply(&two, &known(601, &[("policy:b", 560), ("policy:a", 601)]), 605), Apply::Withdraw);
    // The notice was not read to its end; the log says nothing new; there is none.
    assert_eq!(apply(&two, &known(599, &[]), 605), Apply::Wait);
    assert_eq!(apply(&two, &known(601, &[]), 700), Apply::Wait);
    assert_eq!(apply(&two, &Uses::default(), 605), Apply::Wait);
    assert_eq!(apply(&two, &Uses::of([(watched(Some(550), 601), Vec::new())]), 605), Apply::Wait, "a gap since");
    // What stays already is not asked of again.
    let mut spared = two.clone();
    spared.state = spared.state.next(&crate::case::record::Record::Spared { permissions: b, by: "t".into() }).unwrap();
    assert_eq!(apply(&spared, &known(601, &[("policy:b", 560)]), 605), Apply::Go);
    assert_eq!(apply(&case("dormant", &[]), &known(601, &[("", 560)]), 605), Apply::Withdraw);
    assert_eq!(apply(&case("dormant", &[]), &known(601, &[]), 605), Apply::Go);
    assert_eq!(apply(&case("beyond", &["policy:a"]), &Uses::default(), 605), Apply::Go, "it rests on no silence");
}

/// A log in a folder of its own, and who follows it.
struct Desk {
    _folder: tempfile::TempDir,
    path: PathBuf,
    position: Option<Position>,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, "").unwrap();
        Self { _folder: folder, path, position: None }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    fn write(path: &Path, text: &str) {
        fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What it shows now, until nothing more stands there; whether a gap was among it. Each turn begins as after a restart.
    fn read(&mut self) -> (Vec<String>, bool, u64) {
        let (mut lines, mut gap, mut broken) = (Vec::new(), false, 0);
        loop {
            let show = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
            let one: Turn = turn(&self.path, self.position.as_ref(), show).unwrap();
            self.position = Some(one.position);
            gap |= one.gap;
            broken += one.broken;
            if one.caught_up {
                return (lines, gap, broken);
            }
        }
    }

    fn reads(&mut self, lines: &[&str], gap: bool) {
        assert_eq!(self.read(), (lines.iter().map(|line| (*line).to_owned()).collect(), gap, 0));
    }
}

#[test]
fn each_line_is_read_once_over_restarts_and_renaming() {
    let mut desk = Desk::new();
    Desk::write(&desk.path, "one\ntwo\nhal");
    desk.reads(&["one", "two"], true);
    Desk::write(&desk.path, "f\n");
    desk.reads(&["half"], false);
    desk.reads(&[], false);
    // Renamed, and written on until the new one is opened.
    fs::rename(&desk.path, desk.beside("audit.log.1")).unwrap();
    Desk::write(&desk.beside("audit.log.1"), "late\n");
    desk.reads(&["late"], false);
    fs::write(&desk.path, "").unwrap();
    Desk::write(&desk.beside("audit.log.1"), "later\n");
    desk.reads(&["later"], false);
    Desk::write(&desk.beside("audit.log.1"), "last\n");
    Desk::write(&desk.path, "new\n");
    desk.reads(&["last", "new"], false);
}

#[test]
fn what_may_have_been_missed_is_a_gap() {
    // Cut, and grown beyond where it was.
    let mut desk = Desk::new();
    Desk::write(&desk.path, "one\n");
    desk.reads(&["one"], true);
    fs::write(&desk.path, "").unwrap();
    desk.reads(&[], true);
    Desk::write(&desk.path, "two\n");
    desk.reads(&["two"], false);
    fs::write(&desk.path, "six\nand more\n").unwrap();
    desk.reads(&["six", "and more"], true);
    // Rotated twice while nobody looked.
    fs::rename(&desk.path, desk.beside("audit.log.2")).unwrap();
    let later =
        fs::metadata(desk.beside("audit.log.2")).unwrap().modified().unwrap() + std::time::Duration::from_secs(60);
    Desk::write(&desk.beside("audit.log.1"), "between\n");
    fs::File::open(desk.beside("audit.log.1")).unwrap().set_modified(later).unwrap();
    Desk::write(&desk.path, "new\n");
    desk.reads(&["new"], true);
    // Gone.
    fs::remove_file(&desk.path).unwrap();
    assert!(turn(&desk.path, desk.position.as_ref(), |_| {}).is_err(), "nothing is known, and nothing is said");
    Desk::write(&desk.path, "another\n");
    desk.reads(&["another"], true);
}

#[test]
fn a_line_without_an_end_is_not_kept_in_memory() {
    let mut desk = Desk::new();
    let long = "x".repeat(MAX_LINE * 2 + 3);
    Desk::write(&desk.path, &format!("one\n{long}\ntwo\n{long}"));
    let (lines, _, broken) = desk.read();
    assert_eq!((lines.as_slice(), broken), (&["one".to_owned(), "two".to_owned()][..], 1));
    Desk::write(&desk.path, "\nthree\n");
    let (lines, gap, broken) = desk.read();
    assert_eq!((lines.as_slice(), gap, broken), (&["three".to_owned()][..], false, 1));
}

#[test]
fn who_did_nothing_for_long_is_forgotten_and_makes_room() {
    let mut tally = Tally::default();
    let login = |entity: &str| login("approle", Some("etl"), entity);
    tally.add(login("old"), 10);
    tally.add(used(None, Some("old"), "a"), 20);
    // It logged in long ago, and goes on.
    tally.add(login("new"), 10);
    tally.add(used(None, Some("new"), "a"), 90);
    assert_eq!(tally.forget(20), Vec::<String>::new());
    assert_eq!(tally.forget(21), ["entity:old"]);
    let durable = tally.take_new();
    assert!(durable.iter().all(|one| one.who == "entity:new") && durable.len() == 3, "{durable:?}");
    let mut full = Tally::default();
    for no in 0..=MOST {
        full.add(used(None, Some(&no.to_string()), "a"), 10);
    }
    assert!(full.is_full());
    assert!(full.forget(11).len() <= MOST);
    full.add(used(None, Some("one more"), "a"), 12);
    assert!(!full.is_full() && full.take_new().len() == 2);
}
