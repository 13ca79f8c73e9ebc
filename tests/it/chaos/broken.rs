//! The check can fail: a sound history of two credentials, and for each promise some in which it is broken.

use curfew::case::plan::{Act, Plan, Step};
use curfew::case::record::{
    Answer as Sighted, KilledBy, Level, Observation, Output, Presence, Record, Sighting, Verdict,
};
use curfew::case::state::State;
use curfew::case::{Action, Case, Directive, Trigger, Urgency};
use curfew::credential::{CredentialId, Kind};
use curfew::outcome::{self, Place};
use serde_json::Value;
use uuid::Uuid;

use super::check::check;
use super::history::{
    Answer, Asked, CaseRow, Claim, Counters, Credential, Exit, Freeze, History, Journal, Look, Pause, RoleChange,
    Rotated, Sent, Stood, What, When,
};

/// The beginning of a minute.
const T: i64 = 60_000_000;
const LEASE: &str = "database/creds/app/x1";
const TOKEN: &str = "accessor-1";

fn step(act: Act, connector: &str, system: &str) -> Step {
    Step { act, connector: connector.into(), system: system.into(), optional: false, place: None, agent: None }
}

fn row(id: &CredentialId, level: Level) -> CaseRow {
    let directive = Directive {
        credential: id.clone(),
        action: Action::Revoke,
        trigger: Trigger::TaskEnd,
        urgency: Urgency::Prompt,
        held: None,
        run: None,
        end_ms: Some(T),
        broker_ms: T,
        topic: "chaos.tasks".into(),
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: None,
    };
    let (name, system) = (id.kind().as_str(), id.instance().to_owned());
    let steps = [Act::Observe, Act::Revoke, Act::Prove].map(|act| step(act, name, &system));
    let seen = Observation { presence: Presence::Present, at_ms: T + 10, ..Observation::default() };
    let sighting =
        Sighting { level, answer: Sighted::Refused, at_ms: T + 40, control: true, residue: vec![], request_id: None };
    let verdict = Verdict::Dead { level, at_ms: T + 40, sightings: 1, by: KilledBy::Curfew, residue: vec![] };
    let appends = vec![
        (1, T + 5, vec![Record::Opened { directive: directive.clone() }]),
        (
            2,
            T + 20,
            vec![
                Record::Planned { no: 1, plan: Plan { steps: steps.to_vec(), pivot: 1, undoes: false } },
                Record::Observed { step: 0, seen },
                Record::Started { step: 1, key: Uuid::nil(), attempt: 1 },
            ],
        ),
        (
            3,
            T + 50,
            vec![
                Record::Succeeded { step: 1, output: Output::default() },
                Record::Sighted { step: 2, sighting },
                Record::Closed { verdict },
            ],
        ),
    ];
    let records = appends.iter().flat_map(|(_, _, records)| records);
    let case = Case {
        id: Uuid::new_v4(),
        tenant: "default".into(),
        directive,
        system,
        lane: id.as_str().to_owned(),
        principal: None,
        seen_ms: Some(T),
        opened_ms: T + 5,
        traceparent: None,
        seq: 3,
        blast: None,
        charged: true,
        state: State::fold(records).unwrap(),
    };
    CaseRow { case, closed_ms: Some(T + 50), records: appends }
}

fn asked(at_ms: i64, by: &str, path: &str, about: &str, refused: Option<&str>) -> Asked {
    Asked { at_ms, by: by.into(), path: path.into(), about: Some(about.into()), refused: refused.map(str::to_owned) }
}

fn outbox(rows: &[CaseRow]) -> Vec<Vec<u8>> {
    let mut prev: Option<String> = None;
    let mut published = Vec::new();
    for (row, seq) in rows.iter().zip(1..) {
        let curfew::case::state::Phase::Closed { verdict } = &row.case.state.phase else { unreachable!() };
        let message = outcome::closed(&row.case, verdict, T + 50);
        let place = Place { journal: Uuid::nil(), seq, prev: prev.as_deref() };
        let body = outcome::envelope(&message, place, T + 50);
        prev = Some(hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body)));
        published.push(body);
    }
    published
}

fn sound() -> History {
    let lease = CredentialId::new(Kind::VaultLease, "a", LEASE).unwrap();
    let token = CredentialId::new(Kind::VaultToken, "b", TOKEN).unwrap();
    let other = CredentialId::new(Kind::VaultToken, "b", "bystander").unwrap();
    let known = |id: &CredentialId, user: Option<&str>, registered| Credential {
        urn: id.as_str().to_owned(),
        issuer_id: id.id(),
        user: user.map(str::to_owned),
        cut_from_ms: T,
        registered,
    };
    let look = |id: &CredentialId, when, answer| {
        let at_ms = if when == When::TaskLives { T - 1 } else { T + 99 };
        Look { urn: id.as_str().to_owned(), at_ms, when, answer }
    };
    let cases = vec![row(&lease, Level::Target), row(&token, Level::Issuer)];
    let claim = |row: &CaseRow, by: &str| Claim {
        case: row.case.id,
        epoch: Some(1),
        worker: Some(Uuid::nil()),
        by: by.into(),
        at_ms: T + 8,
        until_ms: T + 11_000,
    };
    let sent = |id: &str, what, offset| Sent { topic: super::load::TASKS, id: id.into(), what, partition: 0, offset };
    History {
        sent: vec![sent("start", What::Event, 0), sent("end", What::Event, 1), sent("end", What::Repeat, 2)],
        credentials: vec![known(&lease, Some("v-user"), true), known(&token, None, true), known(&other, None, false)],
        looks: vec![
            look(&lease, When::TaskLives, Answer::Works),
            look(&lease, When::AtTheEnd, Answer::Refused),
            look(&token, When::AtTheEnd, Answer::Refused),
            look(&other, When::AtTheEnd, Answer::Works),
        ],
        published: outbox(&cases),
        journal: Journal {
            events: vec!["start".into(), "end".into()],
            counters: Counters {
                consumed: 3,
                accepted: 2,
                closed: 2,
                rejected: 0,
                duplicates: 1,
                cases_opened: 2,
                cases_closed: 2,
            },
            claims: vec![claim(&cases[0], "a1"), claim(&cases[1], "b1")],
            charges: vec![(T / 60_000, 2)],
            outbox: (2, 2),
            cases,
            ..Journal::default()
        },
        asked: vec![
            asked(T + 10, "a1", "sys/leases/lookup", LEASE, None),
            asked(T + 25, "a1", &format!("sys/leases/revoke/{LEASE}"), LEASE, None),
            asked(T + 10, "b1", "auth/token/lookup-accessor", TOKEN, None),
            asked(T + 25, "b1", "auth/token/revoke-accessor", TOKEN, None),
            asked(T + 40, "b1", "auth/token/lookup-accessor", TOKEN, Some("invalid accessor")),
        ],
        roles: vec![
            RoleChange { at_ms: T + 22, user: "v-user".into(), by: "fence_a1".into(), dropped: false },
            RoleChange { at_ms: T + 30, user: "v-user".into(), by: "vault_admin".into(), dropped: true },
        ],
        rotated: vec![Rotated {
            urn: "urn:curfew:cred:postgres-role:appdb:billing".into(),
            issuer_id: "billing".into(),
            users: vec!["billing".into()],
            current: 2,
            stood: [(1, Answer::Refused), (2, Answer::Works)]
                .map(|(version, answer)| Stood { version, user: "billing".into(), answer })
                .to_vec(),
            kept: vec![2],
            pending: false,
        }],
        pauses: vec![Pause { who: "a2".into(), from_ms: T, to_ms: T + 13_000, rejoined: true }],
        exits: vec![("a1".into(), Exit { at_ms: T + 20_000, asked: true, code: Some(0) })],
        freezes: vec![Freeze { from_ms: T + 5_000, to_ms: T + 9_000 }],
        cap: 2,
        places: vec![("a log".into(), "nothing that hurts".into())],
        secrets: vec!["hvs.canary".into()],
        ..History::default()
    }
}

/// Changes a published message.
fn say(h: &mut History, nth: usize, change: impl FnOnce(&mut Value)) {
    let mut message: Value = serde_json::from_slice(&h.published[nth]).unwrap();
    change(&mut message);
    h.published[nth] = message.to_string().into_bytes();
}

#[test]
fn a_sound_history_breaks_nothing() {
    let report = check(&sound());
    assert_eq!(report.broken(), 0, "{report}");
    assert_eq!(report.0.len(), 8);
}

#[test]
fn each_promise_can_be_seen_broken() {
    type Breaks = fn(&mut History);
    let broken: [(&str, &str, Breaks); 38] = [
        ("P1", "recorded 2 times", |h| h.journal.events.push("end".into())),
        ("P1", "recorded 0 times", |h| drop(h.journal.events.pop())),
        ("P1", "never produced", |h| h.journal.events.push("forged".into())),
        ("P1", "poison was sent", |h| h.sent[2].what = What::Poison),
        ("P1", "does not add up", |h| h.journal.counters.consumed += 1),
        ("P1", "closed 2 times", |h| {
            let again = h.journal.cases[0].records[2].2.last().unwrap().clone();
            h.journal.cases[0].records.push((4, T + 60, vec![again]));
        }),
        ("P1", "and its outcome", |h| say(h, 1, |m| m["id"] = "another".into())),
        ("P1", "two contents", |h| {
            h.published.push(h.published[0].clone());
            say(h, 2, |m| m["time"] = "2026-01-01T00:00:00.000Z".into());
        }),
        ("P1", "chain breaks at number 2", |h| say(h, 0, |m| m["time"] = "2026-01-01T00:00:00.000Z".into())),
        ("P1", "number 1 was never published", |h| drop(h.published.remove(0))),
        ("P1", "sent", |h| h.journal.outbox = (2, 1)),
        ("P2", "the witness says Some(Works)", |h| h.looks[1].answer = Answer::Works),
        ("P2", "while its task lived", |h| h.looks[0].answer = Answer::Refused),
        ("P2", "before its task was over", |h| h.credentials[1].cut_from_ms = T + 26),
        ("P2", "version 1, of billing, says Works", |h| h.rotated[0].stood[0].answer = Answer::Works),
        ("P2", "version 2, of billing, says Refused", |h| h.rotated[0].stood[1].answer = Answer::Refused),
        ("P2", "matched with nothing", |h| h.waiting = 1),
        ("P4", "are stored, 2 is current", |h| h.rotated[0].kept = vec![1, 2]),
        ("P4", "a candidate is left", |h| h.rotated[0].pending = true),
        ("P6", "changed the role other", |h| h.roles[0].user = "other".into()),
        ("P2", "no case", |h| drop(h.journal.cases.pop())),
        ("P3", "without a sighting", |h| drop(h.journal.cases[1].records[2].2.remove(1))),
        ("P3", "knows no refused look-up", |h| h.asked[4].refused = None),
        ("P3", "knows no revoke", |h| drop(h.asked.remove(3))),
        ("P3", "knows no end of its role", |h| h.roles.clear()),
        ("P4", "ended 2 times", |h| h.roles.push(h.roles[1].clone())),
        ("P4", "left over", |h| h.left.push("v-user".into())),
        ("P4", "which had been paused, asked", |h| {
            h.asked.push(asked(T + 13_001, "a2", &format!("sys/leases/revoke/{LEASE}"), LEASE, Some("invalid lease")));
        }),
        ("P4", "without a claim", |h| h.asked[1].at_ms = T + 11_001),
        ("P4", "did not rejoin", |h| h.pauses[0].rejoined = false),
        ("P4", "told to end", |h| h.exits[0].1.code = Some(1)),
        ("P5", "holds a secret", |h| h.places[0].1.push_str("token=hvs.canary")),
        ("P6", "nobody's to cut", |h| h.looks[3].answer = Answer::Refused),
        ("P6", "were forged", |h| h.forged = 1),
        ("P6", "is not held", |h| h.credentials[1].registered = false),
        ("P6", "ended bystander", |h| h.asked[3].about = Some("bystander".into())),
        ("P7", "the cap is 1", |h| h.cap = 1),
        ("P8", "says", |h| say(h, 0, |m| m["data"]["verdict"] = serde_json::json!({"state": "accepted"}))),
    ];
    for (promise, why, breaks) in broken {
        let mut history = sound();
        breaks(&mut history);
        let report = check(&history);
        let line = report.0.iter().find(|line| line.promise.starts_with(promise)).unwrap();
        assert!(line.broken.iter().any(|broken| broken.contains(why)), "{promise} {why}:\n{report}");
    }
    // What begins half a second after a freeze may; after two it may not.
    for (after_ms, broken) in [(500, 0), (2_000, 1)] {
        let mut history = sound();
        history.freezes = vec![Freeze { from_ms: T + 20 - after_ms, to_ms: T + 9_000 }];
        history.journal.cases.pop();
        history.journal.charges = vec![(T / 60_000, 1)];
        let report = check(&history);
        assert_eq!(report.0[6].broken.len(), broken, "{report}");
    }
}
