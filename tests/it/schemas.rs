//! `schemas/events`, the examples, the decoder and what we emit all say the same.

mod reference;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use curfew::case::derived::{Derived, MOST_ROLES, Others, Role, Says};
use curfew::case::record::{KilledBy, Level, Observation, Residue, UnknownWhy, Verdict};
use curfew::case::state::{Phase, State};
use curfew::case::{Action, Case, Directive, HoldReason, Trigger, Urgency};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{Coordinates, Delivery, Limits, Reject, RejectReason, decode};
use curfew::outcome;
use curfew::task::RunKey;
use jsonschema::Validator;
use serde_json::Value;

const EMITTED: [&str; 4] = ["outcome", "credential.state", "credential.rotated", "rejected"];
const BROKER_MS: i64 = 1_788_256_800_000;

fn folder() -> PathBuf {
    crate::repository().join("schemas/events")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    files
}

/// (name, schema), such as (`task.started`, …).
fn schemas() -> Vec<(String, Value)> {
    let name = |p: &Path| p.file_name().unwrap().to_str().unwrap().strip_suffix(".v1.json").unwrap().to_owned();
    json_files(&folder()).iter().map(|path| (name(path), read(path))).collect()
}

fn validator(name: &str) -> Validator {
    jsonschema::draft202012::new(&read(&folder().join(format!("{name}.v1.json")))).unwrap()
}

fn delivery(headers: Vec<(String, Option<Bytes>)>, payload: Option<Bytes>) -> Delivery {
    let at = Coordinates { cluster: "c".into(), topic: "curfew.tasks".into(), partition: 0, offset: 7 };
    Delivery {
        at,
        tenant: "acme".into(),
        format: curfew::event::Format::Curfew,
        broker_ms: BROKER_MS,
        headers,
        payload,
    }
}

fn structured(event: &Value) -> Delivery {
    let content_type = Bytes::from_static(b"Application/CloudEvents+JSON; charset=UTF-8");
    delivery(vec![("content-type".into(), Some(content_type))], Some(event.to_string().into()))
}

/// `None` where an attribute is no text: then binary mode cannot carry it.
fn binary(event: &Value) -> Option<Delivery> {
    let mut headers = Vec::new();
    for (name, value) in event.as_object().unwrap() {
        match value {
            Value::Null => {}
            _ if name == "data" => {}
            Value::String(text) if name == "datacontenttype" => {
                headers.push(("content-type".to_owned(), Some(text.clone().into())));
            }
            Value::String(text) => headers.push((format!("ce_{name}"), Some(text.clone().into()))),
            _ => return None,
        }
    }
    Some(delivery(headers, event.get("data").map(|data| data.to_string().into())))
}

#[test]
fn each_example_is_what_it_is_filed_as() {
    for (name, schema) in schemas() {
        let validator = validator(&name);
        for (kind, wanted) in [("valid", true), ("invalid", false)] {
            let files = json_files(&folder().join(format!("examples/{name}.v1/{kind}")));
            assert!(files.len() >= 2, "{name} has too few {kind} examples");
            for path in files {
                let example = read(&path);
                let valid = validator.is_valid(&example);
                let why: Vec<String> = validator.iter_errors(&example).map(|e| e.to_string()).collect();
                assert_eq!(valid, wanted, "{} by its schema: {why:?}", path.display());
                if EMITTED.contains(&name.as_str()) {
                    continue;
                }
                let read = decode(&structured(&example), &Limits::default());
                assert_eq!(read.is_ok(), wanted, "{} structured: {read:?}", path.display());
                let Some(binary) = binary(&example) else { continue };
                if example.get("data_base64").is_some() {
                    continue;
                }
                match (read, decode(&binary, &Limits::default())) {
                    (Ok(one), Ok(other)) => {
                        assert_eq!(one.kind.as_str(), name, "{}", path.display());
                        assert_eq!(one.digest, other.digest, "{}: two modes, one event", path.display());
                        assert_eq!(one.natural_key(), other.natural_key(), "{}", path.display());
                        assert_eq!(format!("{:?}", one.data), format!("{:?}", other.data), "{}", path.display());
                    }
                    (Err(one), Err(other)) => pointer_is_of_the_schema(&schema, &one, &other),
                    (one, other) => panic!("{}: {one:?} but binary {other:?}", path.display()),
                }
            }
        }
    }
}

/// No pointer names what the schema does not.
fn pointer_is_of_the_schema(schema: &Value, one: &Reject, other: &Reject) {
    let text = schema.to_string();
    for pointer in [one, other].iter().filter_map(|reject| reject.pointer.as_deref()) {
        for part in pointer.split('/').filter(|part| !part.is_empty() && part.parse::<usize>().is_err()) {
            assert!(text.contains(&format!("\"{part}\":")), "{pointer}");
        }
    }
}

/// The scanners' samples, and reports that hold a secret in each field.
#[test]
fn what_adapters_make_of_reports_is_as_the_schema_says() {
    use curfew::event::adapters::{Adapter, Given, read as adapt};
    let validator = validator("finding.observed");
    let keys = format!("k2 {}\nk1 {}\n", "2".repeat(64), "1".repeat(64));
    let keys = curfew::fingerprint::Keys::parse(keys.as_bytes()).unwrap();
    let sample = |name: &str| std::fs::read(crate::repository().join("fuzz/samples").join(name)).unwrap();
    let samples = [("gitleaks", "gitleaks.json"), ("trufflehog", "trufflehog.jsonl"), ("gitlab", "gitlab.json")];
    let mut reports = samples.map(|(name, file)| (name, sample(file))).to_vec();
    reports.extend(crate::canary::scans::reports("c4nary/+0123456789").map(|(name, _, report)| (name, report)));
    let mut seen = 0;
    for (name, report) in reports {
        for keys in [Some(&keys), None] {
            let given = Given { keys, repository: Some("https://git.test/o/r"), now_ms: BROKER_MS };
            for made in adapt(Adapter::of_name(name).unwrap(), &report[..], given).unwrap() {
                holds(&validator, &serde_json::from_slice(&made.unwrap().body).unwrap());
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 16);
}

#[test]
fn what_we_emit_is_refused_when_it_comes_in() {
    for name in EMITTED {
        for path in json_files(&folder().join(format!("examples/{name}.v1/valid"))) {
            let reject = decode(&structured(&read(&path)), &Limits::default()).unwrap_err();
            assert_eq!(reject.reason, RejectReason::Forbidden, "{}", path.display());
        }
    }
}

#[test]
fn schemas_agree_with_each_other() {
    let all = schemas();
    assert_eq!(all.len(), 15);
    let mut defs = std::collections::BTreeMap::new();
    for (name, schema) in &all {
        assert_eq!(schema["$id"], format!("urn:curfew:schema:{name}.v1"));
        assert_eq!(schema["properties"]["type"]["const"], format!("dev.curfew.{name}.v1"));
        assert!(schema["title"].is_string() && schema["description"].is_string(), "{name}");
        assert_eq!(schema["unevaluatedProperties"] == false, EMITTED.contains(&name.as_str()), "{name}");
        for (def, text) in schema["$defs"].as_object().unwrap() {
            assert_eq!(defs.entry(def.clone()).or_insert_with(|| text.clone()), text, "{def} in {name}");
        }
        jsonschema::meta::validate(schema).unwrap();
    }
    let folders = std::fs::read_dir(folder().join("examples")).unwrap();
    let folders: BTreeSet<String> = folders.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, all.iter().map(|(name, _)| format!("{name}.v1")).collect());
}

fn place(seq: i64, prev: Option<&str>) -> outcome::Place<'_> {
    outcome::Place { journal: uuid::Uuid::from_u128(7), seq, prev }
}

fn a_case() -> Case {
    let directive = Directive {
        credential: CredentialId::new(Kind::VaultLease, "prod", "database/creds/ro/u1Xq").unwrap(),
        action: Action::Revoke,
        trigger: Trigger::TaskEnd,
        urgency: Urgency::Prompt,
        held: None,
        run: Some(RunKey::new("/schedulers/ci", "build-4711")),
        end_ms: Some(BROKER_MS - 100),
        broker_ms: BROKER_MS,
        topic: "curfew.tasks".into(),
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: None,
    };
    let mut state = State::opened(&directive);
    let seen = Observation { request_id: Some("6f1c2d3e".into()), ..Observation::default() };
    state.observed.push((0, seen));
    Case {
        id: uuid::Uuid::now_v7(),
        tenant: "acme".into(),
        directive,
        system: "prod".into(),
        lane: "prod/lease".into(),
        principal: Some("v-approle-ro-u1Xq".into()),
        seen_ms: Some(BROKER_MS - 200),
        opened_ms: BROKER_MS + 50,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        seq: 7,
        blast: Some(140),
        charged: true,
        state,
    }
}

fn sent(message: &outcome::Message) -> Value {
    let prev = "9f".repeat(32);
    let body = outcome::envelope(message, place(42, Some(&prev)), BROKER_MS + 900);
    assert!(body.len() <= outcome::MAX_BODY_BYTES);
    let event: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(event["id"], message.id);
    assert_eq!(event["prev"], prev);
    assert_eq!(event["sequence"], "00000000000000000042");
    event
}

#[track_caller]
fn holds(validator: &Validator, event: &Value) {
    let why: Vec<String> = validator.iter_errors(event).map(|e| e.to_string()).collect();
    assert!(why.is_empty(), "{event:#}: {why:?}");
}

const ALL_HOLDS: [HoldReason; 20] = [
    HoldReason::Frozen,
    HoldReason::StartedHeld,
    HoldReason::Observe,
    HoldReason::Cap,
    HoldReason::Authority,
    HoldReason::Prefix,
    HoldReason::Protected,
    HoldReason::OtherTask,
    HoldReason::Unregistered,
    HoldReason::Unserved,
    HoldReason::Finding,
    HoldReason::NoRecipe,
    HoldReason::CandidateRejected,
    HoldReason::NotAdopted,
    HoldReason::Unhealthy,
    HoldReason::Notice,
    HoldReason::Kept,
    HoldReason::Differs,
    HoldReason::Clock,
    HoldReason::Refused,
];

#[test]
fn each_outcome_is_as_its_schema_says() {
    let validator = validator("outcome");
    let residue = vec![
        Residue::Sessions,
        Residue::DerivedUnknown,
        Residue::Derived,
        Residue::NotFenced,
        Residue::EntityOpen,
        Residue::CleanupPending,
        Residue::OldValueStored,
        Residue::NotAdopted,
        Residue::CopyNotUpdated,
        Residue::NotNotified,
        Residue::OlderTokens,
        Residue::StillShared,
    ];
    let at_ms = BROKER_MS + 500;
    let mut verdicts = vec![Verdict::NotFound, Verdict::Obsolete, Verdict::RolledBack { at_ms }];
    verdicts.push(Verdict::Reduced { at_ms, sightings: 1, taken: 2, residue: residue.clone() });
    for (level, by) in [(Level::Issuer, KilledBy::Others), (Level::Target, KilledBy::Curfew)] {
        let at_ms = BROKER_MS + 500;
        verdicts.push(Verdict::Dead { level, at_ms, sightings: 3, by, residue: residue.clone() });
    }
    for verdict in verdicts {
        for trigger in [
            Trigger::TaskEnd,
            Trigger::LateStart,
            Trigger::Deadline,
            Trigger::Heartbeat,
            Trigger::Reconcile,
            Trigger::Finding,
            Trigger::Operator,
        ] {
            let mut case = a_case();
            case.directive.trigger = trigger;
            if matches!(verdict, Verdict::Reduced { .. } | Verdict::RolledBack { .. }) {
                let permissions = curfew::scope::permissions(["member:readers", "schema:public:CREATE"]).unwrap();
                case.directive.action = Action::Reduce;
                case.directive.cut = Some(Box::new(curfew::scope::Cut::of(permissions)));
                case.directive.not_before_ms = Some(BROKER_MS);
            }
            let message = outcome::closed(&case, &verdict, BROKER_MS + 800);
            assert_eq!(message.id, case.id.to_string());
            let event = sent(&message);
            holds(&validator, &event);
            if let Verdict::Dead { .. } = verdict {
                assert_eq!(event["data"]["ended_to_dead_ms"], 500);
                assert_eq!(event["data"]["overrun_ms"], 600);
            }
        }
    }
    let mut moved = a_case();
    moved.directive.action = Action::Split;
    let to = |no: usize| curfew::scope::Move { agent: format!("agent-{no}"), at_most: None };
    moved.directive.cut = curfew::scope::Cut::moving((0..99).map(to)).map(Box::new);
    let reduced = Verdict::Reduced { at_ms, sightings: 1, taken: 0, residue: vec![Residue::StillShared] };
    let event = sent(&outcome::closed(&moved, &reduced, BROKER_MS + 800));
    holds(&validator, &event);
    assert_eq!(event["data"]["agents"].as_array().unwrap().len(), curfew::scope::MOVES);
    holds(&self::validator("credential.state"), &sent(&outcome::standing(&moved, BROKER_MS)));
    let mut bare = a_case();
    bare.directive.run = None;
    bare.directive.end_ms = None;
    bare.principal = None;
    bare.traceparent = None;
    bare.state.observed.clear();
    holds(&validator, &sent(&outcome::closed(&bare, &Verdict::NotFound, BROKER_MS)));
}

/// As long as it may be.
fn derived(name: &str) -> Derived {
    let role = |n: usize| Role {
        name: name.to_owned(),
        lasts_ms: 3_600_000,
        by: if n == 0 { Says::Role } else { Says::Limit },
        others: Others { count: u32::MAX, at_least: n > 0 },
        denied_ms: (n == 0).then_some(BROKER_MS),
    };
    Derived { roles: (0..MOST_ROLES).map(role).collect(), more: u32::MAX, whole: false }
}

#[test]
fn what_outlives_a_credential_is_told_with_its_end() {
    let mut case = a_case();
    case.state.series.last_ms = Some(BROKER_MS);
    let dead =
        Verdict::Dead { level: Level::Issuer, at_ms: BROKER_MS, sightings: 1, by: KilledBy::Curfew, residue: vec![] };
    case.state.derived = Some(derived("arn:aws:iam::123456789012:role/ci/deploy"));
    let event = sent(&outcome::closed(&case, &dead, BROKER_MS));
    holds(&validator("outcome"), &event);
    let role = &event["data"]["derived"]["roles"][0];
    assert_eq!(role["over_at"], "2026-09-01T11:00:00.000Z", "an hour after it was last seen refused: {role}");
    assert_eq!((&role["denied_before"], &role["lasts_by"]), (&"2026-09-01T10:00:00.000Z".into(), &"role".into()));
    assert!(event["data"]["derived"]["roles"][1]["denied_before"].is_null());
    let event = sent(&outcome::closed(&case, &Verdict::NotFound, BROKER_MS));
    holds(&validator("outcome"), &event);
    assert!(event["data"]["derived"]["roles"][0]["over_at"].is_null(), "nobody knows when its last session was opened");
    holds(&validator("credential.state"), &sent(&outcome::standing(&case, BROKER_MS)));
    // None is another answer than none that is known.
    case.state.derived = Some(Derived { whole: true, ..Derived::default() });
    let event = sent(&outcome::closed(&case, &dead, BROKER_MS));
    assert_eq!(event["data"]["derived"], serde_json::json!({"roles": [], "more": 0, "whole": true}));
    case.state.derived = None;
    assert!(sent(&outcome::closed(&case, &dead, BROKER_MS))["data"].get("derived").is_none());
}

#[test]
fn a_verdict_that_does_not_close_is_no_outcome() {
    let validator = validator("outcome");
    for verdict in [
        Verdict::DiesAt { at_ms: BROKER_MS },
        Verdict::Alive { by: HoldReason::Cap },
        Verdict::Unknown { why: UnknownWhy::Proving },
    ] {
        assert!(!verdict.closes());
        assert!(!validator.is_valid(&sent(&outcome::closed(&a_case(), &verdict, BROKER_MS))));
    }
}

#[test]
fn each_rotation_is_as_its_schema_says() {
    use curfew::case::plan::Act;
    use curfew::case::record::{Generation, Output};
    use curfew::connector::recipe::{Adoption, Keeper, PasswordRules, Place, Recipe, Users};
    let validator = validator("credential.rotated");
    let mut case = a_case();
    case.directive.action = Action::Contain;
    let generation = |version| Some(Generation { version, user: Some(long()) });
    (case.state.turn.old, case.state.turn.new) = (generation(7), generation(8));
    let output = |version| Output { current: generation(version), ..Output::default() };
    let place = Place {
        keeper: Keeper::Kv,
        realm: long(),
        mount: long(),
        path: long(),
        field: "password".into(),
        user_field: Some("user".into()),
    };
    let recipe = Recipe {
        name: long(),
        credential: case.directive.credential.clone(),
        copies: vec![place.clone()],
        place,
        users: Users::One("app".into()),
        password: PasswordRules::default(),
        adoption: Adoption::default(),
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
        webhooks: Vec::new(),
    };
    let message = outcome::rotated(&case, (Act::Promote, None), &output(8), Some(&recipe), BROKER_MS);
    assert_eq!(message.id, format!("{}:8", case.id));
    holds(&validator, &sent(&message));
    let back = outcome::rotated(&case, (Act::Revert, None), &output(9), Some(&recipe), BROKER_MS);
    assert_eq!((&back.data["old"]["version"], &back.data["new"]["version"]), (&8.into(), &9.into()));
    holds(&validator, &sent(&back));
    let copied = outcome::copied(&case, &output(3), &recipe.copies[0], BROKER_MS);
    assert!(copied.id.starts_with(&format!("{}:8:", case.id)), "another message than the first: {}", copied.id);
    assert_eq!((&copied.data["new"]["version"], &copied.data["store"]["version"]), (&8.into(), &3.into()));
    holds(&validator, &sent(&copied));
    let called = outcome::called(&case, &recipe, BROKER_MS);
    assert_eq!((&called.id, &called.data["new"]["version"]), (&message.id, &8.into()));
    case.state.turn.old = None;
    holds(&validator, &sent(&outcome::rotated(&case, (Act::Promote, None), &output(8), None, BROKER_MS)));
}

/// Longer than any text in a body.
fn long() -> String {
    "x".repeat(5_000)
}

#[test]
fn each_state_is_as_its_schema_says() {
    let validator = validator("credential.state");
    let dead =
        Verdict::Dead { level: Level::Issuer, at_ms: BROKER_MS, sightings: 1, by: KilledBy::Curfew, residue: vec![] };
    let held = ALL_HOLDS.map(|reason| Phase::Held { reason });
    let others = [Phase::Open, Phase::Abandoned, Phase::Closed { verdict: dead }];
    for phase in held.into_iter().chain(others) {
        for in_doubt in [false, true] {
            let mut case = a_case();
            case.state.phase = phase.clone();
            case.state.in_doubt = in_doubt;
            case.state.residue = vec![Residue::NotFenced];
            for killed in [false, true] {
                case.state.killed = killed;
                let message = outcome::standing(&case, BROKER_MS);
                assert_eq!(message.id, format!("{}:7", case.id));
                let sent = sent(&message);
                holds(&validator, &sent);
                if let Phase::Held { reason } = &phase {
                    let verdict = &sent["data"]["verdict"];
                    let state = if killed { "unknown" } else { "alive" };
                    assert_eq!(
                        (verdict["state"].as_str(), verdict["by"].as_str()),
                        (Some(state), Some(reason.as_str()))
                    );
                }
            }
        }
    }
    let mut batch = a_case();
    let expires_ms = Some(BROKER_MS + 3_600_000);
    let seen = Observation { only_expires: true, expires_ms, ..Observation::default() };
    batch.state.observed = vec![(0, seen)];
    holds(&validator, &sent(&outcome::standing(&batch, BROKER_MS)));
}

#[test]
fn each_reject_is_as_its_schema_says() {
    let validator = validator("rejected");
    for reason in [
        RejectReason::Tombstone,
        RejectReason::BadHeader,
        RejectReason::BadEnvelope,
        RejectReason::TooLarge,
        RejectReason::TooDeep,
        RejectReason::BadUtf8,
        RejectReason::BadJson,
        RejectReason::WrongSchema,
        RejectReason::UnknownType,
        RejectReason::UnknownVersion,
        RejectReason::AbsurdTime,
        RejectReason::Forbidden,
        RejectReason::Conflict,
    ] {
        let at = Coordinates { cluster: "c".into(), topic: "curfew.tasks".into(), partition: 3, offset: 1042 };
        let tenant = Arc::from("acme");
        let pointer = Some("/data/grants/2/tenure".to_owned());
        let reject = Reject { at, tenant, reason, pointer, size_bytes: 512, broker_ms: BROKER_MS };
        let message = outcome::rejected(&reject);
        assert_eq!(message.id, "c/curfew.tasks/3/1042");
        holds(&validator, &sent(&message));
        let http = Coordinates { cluster: "http".into(), topic: "t".into(), partition: -1, offset: -1 };
        // -1: Kafka's "no timestamp".
        let reject = Reject { at: http, pointer: None, broker_ms: -1, ..reject };
        let (one, other) = (outcome::rejected(&reject), outcome::rejected(&reject));
        assert_ne!(one.id, other.id, "two rejects over HTTP are two");
        holds(&validator, &sent(&one));
    }
}

#[test]
fn no_body_outgrows_what_intermediaries_forward() {
    let long = "\u{1F512}\n".repeat(20_000);
    let mut case = a_case();
    case.directive.run = Some(RunKey(long.as_str().into()));
    case.principal = Some(long.clone());
    case.system.clone_from(&long);
    case.traceparent = Some(long.clone());
    case.state.derived = Some(derived(&long));
    case.state.observed =
        (0..100).map(|i| (i, Observation { request_id: Some(long.clone()), ..Observation::default() })).collect();
    let body = outcome::envelope(&outcome::standing(&case, i64::MAX), place(i64::MAX, None), i64::MAX);
    assert!(body.len() <= outcome::MAX_BODY_BYTES, "{}", body.len());
    let body = outcome::envelope(&outcome::closed(&case, &Verdict::Obsolete, i64::MIN), place(0, None), i64::MIN);
    assert!(body.len() <= outcome::MAX_BODY_BYTES, "{}", body.len());
}

#[test]
fn times_off_the_calendar_are_still_times() {
    let validator = validator("outcome");
    for ms in [i64::MIN, -70_000_000_000_000, 0, 253_402_300_799_999, i64::MAX] {
        let mut case = a_case();
        (case.opened_ms, case.directive.end_ms, case.directive.broker_ms) = (ms, Some(ms), ms);
        holds(&validator, &sent(&outcome::closed(&case, &Verdict::Obsolete, ms)));
    }
}
