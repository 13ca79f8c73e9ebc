//! The decoder against what no schema can express: bytes, headers, depths, sizes, times.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::credential::CredentialId;
use crate::task::{RunKey, Tenure};

const BROKER_MS: i64 = 1_788_256_800_000;
const LEASE: &str = "urn:curfew:cred:vault-lease:prod:database/creds/ro/x";

fn delivery(headers: Vec<(String, Option<Bytes>)>, payload: Option<Bytes>) -> Delivery {
    let at = Coordinates { cluster: "c".into(), topic: "curfew.tasks".into(), partition: 0, offset: 7 };
    Delivery { at, tenant: "acme".into(), format: Format::Curfew, broker_ms: BROKER_MS, headers, payload }
}

fn header(name: &str, value: &str) -> (String, Option<Bytes>) {
    (name.to_owned(), Some(value.to_owned().into()))
}

fn headers(kind: &str) -> Vec<(String, Option<Bytes>)> {
    vec![
        header("ce_specversion", "1.0"),
        header("ce_type", &format!("dev.curfew.{kind}.v1")),
        header("ce_source", "/schedulers/ci"),
        header("ce_id", "1"),
        header("content-type", "application/json"),
    ]
}

fn binary(kind: &str, data: &str) -> Delivery {
    delivery(headers(kind), Some(data.to_owned().into()))
}

fn structured(body: impl Into<Bytes>) -> Delivery {
    delivery(vec![header("content-type", "application/cloudevents+json")], Some(body.into()))
}

fn started(data: &Value) -> Value {
    json!({"specversion": "1.0", "type": "dev.curfew.task.started.v1", "source": "/s", "id": "1", "data": data})
}

#[track_caller]
fn read(delivery: &Delivery) -> Event {
    decode(delivery, &Limits::default()).unwrap()
}

#[track_caller]
fn refused(delivery: &Delivery) -> (RejectReason, Option<String>) {
    let reject = decode(delivery, &Limits::default()).unwrap_err();
    assert_eq!((&reject.at, reject.broker_ms), (&delivery.at, BROKER_MS));
    (reject.reason, reject.pointer)
}

#[track_caller]
fn refused_at(delivery: &Delivery, reason: RejectReason, pointer: &str) {
    assert_eq!(refused(delivery), (reason, Some(pointer.to_owned())));
}

#[test]
fn a_start_is_read_whole() {
    let data = json!({"run_id": "r", "attempt": 2.0, "task": "t", "agent": {"id": "a"},
        "started_at": "2026-09-01T10:00:00.5Z", "deadline": "9999-12-31T23:59:59Z", "heartbeat_interval_ms": 15000,
        "grants": [{"cred_id": LEASE, "principal": "p"}, {"cred_id": LEASE}]});
    let Data::TaskStarted(start) = read(&binary("task.started", &data.to_string())).data else { panic!() };
    assert_eq!(start.run.as_str(), "/schedulers/ci:r");
    assert_eq!((start.attempt, start.task.as_deref(), start.identity.as_deref()), (2, Some("t"), Some("a")));
    assert_eq!((start.started_ms, start.heartbeat_every_ms), (Some(BROKER_MS + 500), Some(15_000)));
    assert_eq!(start.deadline_ms, Some(253_402_300_799_000));
    assert_eq!(start.grants.len(), 1);
    assert_eq!((start.grants[0].tenure, start.grants[0].principal.as_deref()), (Tenure::Minted, Some("p")));
}

#[test]
fn runs_are_named_by_key_or_by_source_and_id() {
    let run = |data: Value| match read(&binary("task.ended", &data.to_string())).data {
        Data::TaskEnded(end) => (end.run.0.to_string(), end.continued_as.map(|k| k.0.to_string())),
        _ => panic!(),
    };
    let other = |text: &str| Some(text.to_owned());
    assert_eq!(
        run(json!({"run_id": "a", "continued_as": "b"})),
        ("/schedulers/ci:a".into(), other("/schedulers/ci:b"))
    );
    assert_eq!(run(json!({"run_key": "k:a", "run_id": "x", "continued_as": "k:b"})), ("k:a".into(), other("k:b")));
    let long = json!({"run_id": "r".repeat(1020)}).to_string();
    refused_at(&binary("task.ended", &long), RejectReason::WrongSchema, "/data/run_id");
}

#[test]
fn a_producer_speaks_of_its_own_sources_runs_unless_its_topic_says_more() {
    let says = |sources: Option<&[&str]>, speaks_for: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Says { types: [Type::TaskEnded].into(), sources: sources.map(names), speaks_for: names(speaks_for) }
    };
    let hear = |says: &Says, data: Value| {
        let mut event = read(&binary("task.ended", &data.to_string()));
        says.hear(&mut event).map_err(|unheard| unheard.pointer)?;
        let Data::TaskEnded(end) = event.data else { panic!() };
        Ok(end.continued_as.unwrap_or(end.run).0.to_string())
    };
    let key = |key: &str| json!({ "run_key": key });
    let alone = says(None, &[]);
    assert_eq!(hear(&alone, json!({"run_id": "a:b"})), Ok("/schedulers/ci:a%3Ab".into()));
    assert_eq!(hear(&alone, key("/schedulers/ci:a:b")), Ok("/schedulers/ci:a%3Ab".into()), "one run, one key");
    assert_eq!(hear(&alone, key("/schedulers/ci:a%3Ab")), Ok("/schedulers/ci:a%3Ab".into()));
    for other in ["/schedulers/cd:a", "/schedulers/ci", "/schedulers/ci:", "/schedulers/ci2:a", "a", ":a"] {
        assert_eq!(hear(&alone, key(other)), Err("/data/run_key"), "{other}");
    }
    let part = |whole: &str| {
        let data = json!({"run_key": "/schedulers/ci:a", "within": whole}).to_string();
        let mut event = read(&binary("task.started", &data));
        let heard = Says { types: [Type::TaskStarted].into(), ..alone.clone() }.hear(&mut event);
        let Data::TaskStarted(start) = event.data else { panic!() };
        heard.map(|()| start.within.unwrap().0.to_string()).map_err(|unheard| unheard.pointer)
    };
    assert_eq!(part("/schedulers/ci:b:c"), Ok("/schedulers/ci:b%3Ac".into()));
    assert_eq!(part("/schedulers/cd:b"), Err("/data/within"));
    let onward = json!({"run_key": "/schedulers/ci:a", "continued_as": "/agents/x:b"});
    assert_eq!(hear(&alone, onward.clone()), Err("/data/continued_as"));
    // The source that merely begins the same way is another one's, with or without the wildcard.
    let some = says(None, &["/schedulers/ci:x", "/agents/*"]);
    assert_eq!(hear(&some, onward), Ok("/agents/x:b".into()));
    assert_eq!(hear(&some, key("/schedulers/ci:x:1")), Ok("/schedulers/ci:x:1".into()));
    assert_eq!(hear(&some, key("/agents:1")), Err("/data/run_key"));
    assert_eq!(hear(&says(None, &["*"]), key("/schedulers/cd:a")), Ok("/schedulers/cd:a".into()));
    assert_eq!(hear(&says(Some(&["/schedulers/*"]), &[]), json!({"run_id": "a"})), Ok("/schedulers/ci:a".into()));
    assert_eq!(hear(&says(Some(&["/schedulers"]), &[]), json!({"run_id": "a"})), Err("/source"));
    assert_eq!(hear(&Says { types: [].into(), ..alone }, json!({"run_id": "a"})), Err("/type"));
}

#[test]
fn poison_is_told_apart() {
    let ok = started(&json!({"run_id": "r"})).to_string();
    assert_eq!(refused(&delivery(headers("task.started"), None)).0, RejectReason::Tombstone);
    assert_eq!(refused(&structured(vec![b' '; 256 * 1024 + 1])).0, RejectReason::TooLarge);
    assert_eq!(refused(&structured(ok.replace("\"r\"", "\"\u{1}\""))).0, RejectReason::BadJson);
    let mut bytes = ok.clone().into_bytes();
    let at = ok.find("\"r\"").unwrap() + 1;
    bytes[at] = 0xff;
    assert_eq!(refused(&structured(bytes)).0, RejectReason::BadUtf8);
    for bad in ["", "{", "nul", "{} {}", "\u{feff}{}", "{\"a\":1,}", "NaN", "{\"a\":1e999}", "\"\\ud800\""] {
        assert_eq!(refused(&structured(bad.to_owned())).0, RejectReason::BadJson, "{bad}");
    }
    for bad in ["[]", "1", "null", "{}"] {
        assert_eq!(refused(&structured(bad.to_owned())).0, RejectReason::BadEnvelope, "{bad}");
    }
    for bad in ["[]", "1", "null", "\"x\""] {
        refused_at(&binary("task.started", bad), RejectReason::WrongSchema, "/data");
    }
    assert_eq!(refused(&delivery(vec![], Some(ok.into()))).1.as_deref(), Some("/specversion"));
}

#[test]
fn a_name_that_stands_twice_is_refused_at_any_depth() {
    let ok = started(&json!({"run_id": "r", "x": {"a": 1}})).to_string();
    assert_eq!(refused(&structured(ok.replace("\"a\":1", "\"a\":1,\"\\u0061\":2"))).0, RejectReason::BadJson);
    assert_eq!(refused(&structured(ok.replace("\"id\":\"1\"", "\"id\":\"1\",\"id\":\"2\""))).0, RejectReason::BadJson);
    read(&structured(ok));
}

#[test]
fn depth_is_bounded_before_anything_is_built() {
    let nested = |depth: usize| format!("{{\"run_id\":\"r\",\"x\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    let whole = |data: String| structured(started(&Value::Null).to_string().replace("null", &data));
    read(&binary("task.started", &nested(15)));
    read(&whole(nested(15)));
    assert_eq!(refused(&whole(nested(16))).0, RejectReason::TooDeep);
    for depth in [16, 127, 128, 50_000] {
        assert_eq!(refused(&binary("task.started", &nested(depth))).0, RejectReason::TooDeep, "{depth}");
    }
    let open = "{\"a\":".repeat(40_000);
    assert_eq!(refused(&structured(open)).0, RejectReason::TooDeep);
    let limits = Limits { max_depth: usize::MAX, ..Limits::default() };
    assert_eq!(decode(&binary("task.started", &nested(50_000)), &limits).unwrap_err().reason, RejectReason::TooDeep);
}

#[test]
fn headers_are_null_doubled_or_no_text() {
    let with = |more: (String, Option<Bytes>)| {
        let mut all = headers("task.started");
        all.push(more);
        delivery(all, Some(Bytes::from_static(b"{\"run_id\":\"r\"}")))
    };
    for bad in [
        ("ce_subject".to_owned(), None),
        ("ce_extension".to_owned(), None),
        ("ce_subject".to_owned(), Some(Bytes::from_static(b"\xff"))),
        ("Content-Type".to_owned(), None),
        header("ce_id", "1"),
        header("content-type", "application/json"),
    ] {
        assert_eq!(refused(&with(bad.clone())).0, RejectReason::BadHeader, "{bad:?}");
    }
    for foreign in [("x".to_owned(), None), ("b".to_owned(), Some(Bytes::from_static(b"\xff"))), header("id", "9")] {
        read(&with(foreign));
    }
    let mut flood = headers("task.started");
    flood.extend((0..100).map(|i| header(&format!("ce_x{i}"), "1")));
    assert_eq!(refused(&delivery(flood, Some(Bytes::from_static(b"{}")))).0, RejectReason::BadHeader);
}

#[test]
fn modes_follow_the_content_type() {
    let body = Bytes::from(started(&json!({"run_id": "r"})).to_string());
    let typed = |content_type: &str| delivery(vec![header("Content-Type", content_type)], Some(body.clone()));
    for structured in
        ["application/cloudevents+json", "APPLICATION/CLOUDEVENTS", "application/cloudevents+JSON ; charset=UTF-8"]
    {
        read(&typed(structured));
    }
    for other in ["application/cloudevents-batch+json", "application/cloudevents+avro", "application/cloudevents+json5"]
    {
        assert_eq!(refused(&typed(other)).0, RejectReason::BadEnvelope, "{other}");
    }
    let mut avro = headers("task.started");
    avro[4] = header("content-type", "application/avro");
    refused_at(&delivery(avro, Some(body.clone())), RejectReason::BadEnvelope, "/datacontenttype");
    let mut untyped = headers("task.started");
    untyped.truncate(4);
    read(&delivery(untyped, Some(Bytes::from_static(b"{\"run_id\":\"r\"}"))));
}

#[test]
fn types_and_versions() {
    for (name, reason) in [
        ("dev.curfew.task.started.v2", RejectReason::UnknownVersion),
        ("dev.curfew.task.started.v99999999999999999999", RejectReason::UnknownVersion),
        ("dev.curfew.task.started.v0", RejectReason::UnknownType),
        ("dev.curfew.task.started.v01", RejectReason::UnknownType),
        ("dev.curfew.task.started.v", RejectReason::UnknownType),
        ("dev.curfew.task.started", RejectReason::UnknownType),
        ("dev.curfew.task.gone.v2", RejectReason::UnknownType),
        ("Dev.curfew.task.started.v1", RejectReason::UnknownType),
        ("dev.curfew.deadline.passed.v1", RejectReason::Forbidden),
        ("dev.curfew.heartbeat.missed.v1", RejectReason::Forbidden),
        ("dev.curfew.reconcile.found.v1", RejectReason::Forbidden),
        ("dev.curfew.operator.revoke.v2", RejectReason::Forbidden),
        ("dev.curfew.outcome.v1", RejectReason::Forbidden),
    ] {
        let mut all = headers("x");
        all[1] = header("ce_type", name);
        refused_at(&delivery(all, Some(Bytes::from_static(b"{}"))), reason, "/type");
    }
    for source in ["/curfew", "/curfew/deadlines"] {
        let mut all = headers("task.started");
        all[2] = header("ce_source", source);
        refused_at(&delivery(all, Some(Bytes::from_static(b"{}"))), RejectReason::Forbidden, "/source");
    }
    let mut near = headers("task.started");
    near[2] = header("ce_source", "/curfews");
    read(&delivery(near, Some(Bytes::from_static(b"{\"run_id\":\"r\"}"))));
}

#[test]
fn absurd_times_are_refused_but_wishes_and_ends_are_not() {
    let at = |kind: &str, field: &str, time: &str| {
        let data = json!({"run_id": "r", "deadline": "2026-01-01T00:00:00Z", "cred_id": LEASE, field: time});
        binary(kind, &data.to_string())
    };
    for time in ["1999-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "2200-01-01T00:00:00Z"] {
        refused_at(&at("task.started", "started_at", time), RejectReason::AbsurdTime, "/data/started_at");
        read(&at("task.started", "deadline", time));
        read(&at("task.extended", "deadline", time));
        let Data::TaskEnded(end) = read(&at("task.ended", "ended_at", time)).data else { panic!() };
        assert_eq!(end.ended_ms, None);
    }
    refused_at(
        &at("grant.registered", "expires_at", "1999-01-01T00:00:00Z"),
        RejectReason::AbsurdTime,
        "/data/expires_at",
    );
    read(&at("grant.registered", "expires_at", "9999-12-31T23:59:59Z"));
    read(&at("task.started", "started_at", "2100-01-01T00:00:00Z"));
    let Data::TaskEnded(end) = read(&at("task.ended", "ended_at", "2026-09-01T10:00:00Z")).data else { panic!() };
    assert_eq!(end.ended_ms, Some(BROKER_MS));
    let mut late = headers("task.ended");
    late.push(header("ce_time", "whenever"));
    read(&delivery(late, Some(Bytes::from_static(b"{\"run_id\":\"r\"}"))));
}

#[test]
fn grants_are_bounded_and_mean_one_thing() {
    let grants = |grants: Vec<Value>| binary("task.ended", &json!({"run_id": "r", "grants": grants}).to_string());
    let many = (0..257).map(|i| json!({"cred_id": format!("urn:curfew:cred:vault-lease:prod:{i}")})).collect();
    refused_at(&grants(many), RejectReason::TooLarge, "/data/grants");
    let torn = vec![json!({"cred_id": LEASE}), json!({"cred_id": LEASE, "tenure": "standing"})];
    refused_at(&grants(torn), RejectReason::WrongSchema, "/data/grants/1/tenure");
}

const DIGITS: &str = "5b0f1c9a7d3e4826b5a0c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f40516";

#[test]
fn a_finding_is_read_whole() {
    let data = json!({"finding_key": "f", "detector": "AWS", "severity": "critical", "owner_hint": "a <a@x>",
        "source": {"tool": "trufflehog", "version": "3.97.0", "native_id": "n", "url": "https://x/n"},
        "provider": "aws", "detected_at": "2026-09-01T10:00:00Z", "honeytoken": true,
        "identifiers": [{"kind": "aws_account", "value": "123456789012", "password": "x"}],
        "fingerprints": [{"kid": "k1", "alg": "hmac-sha256", "value": DIGITS, "part": "secret_access_key"},
            {"kid": "k2", "alg": "hmac-sha256", "value": DIGITS}],
        "location": {"kind": "git", "repo": "https://github.com/o/r", "path": "keys", "commit": "0a1b", "line": 4.0,
            "url": "https://x"},
        "validity": {"state": "active", "checked_at": "2026-09-01T10:00:00.5Z", "by": "trufflehog"},
        "exposure": {"public": true}, "reopened": true, "StructuredData": {"secret": "x"}});
    let Data::FindingObserved(found) = read(&binary("finding.observed", &data.to_string())).data else { panic!() };
    let some = |text: &str| Some(text.to_owned());
    let print = |kid: &str| crate::fingerprint::Fingerprint::parse(&format!("{kid}:{DIGITS}")).unwrap();
    let whole = FindingObserved {
        finding_key: "f".into(),
        credential: None,
        detector: "AWS".into(),
        validity: "active".into(),
        checked_ms: Some(BROKER_MS + 500),
        checked_by: some("trufflehog"),
        public: true,
        honeytoken: true,
        reopened: true,
        fingerprints: vec![
            PartFingerprint { fingerprint: print("k1"), part: some("secret_access_key") },
            PartFingerprint { fingerprint: print("k2"), part: None },
        ],
        identifiers: vec![Identifier { kind: "aws_account".into(), value: "123456789012".into() }],
        location: Some(Location {
            kind: some("git"),
            repo: some("https://github.com/o/r"),
            path: some("keys"),
            commit: some("0a1b"),
            line: Some(4),
            url: some("https://x"),
        }),
        severity: some("critical"),
        owner_hint: some("a <a@x>"),
        source: Some(Scanner {
            tool: some("trufflehog"),
            version: some("3.97.0"),
            native_id: some("n"),
            url: some("https://x/n"),
        }),
        provider: some("aws"),
        detected_ms: Some(BROKER_MS),
        excess: Vec::new(),
        leaves: None,
        moves: Vec::new(),
    };
    assert_eq!(*found, whole);
    let bare = json!({"finding_key": "f", "detector": "d", "severity": "dire", "detected_at": 7}).to_string();
    let Data::FindingObserved(found) = read(&binary("finding.observed", &bare)).data else { panic!() };
    let (finding_key, detector, unknown) = ("f".into(), "d".into(), "unknown".to_owned());
    let severity = Some(unknown.clone());
    assert_eq!(*found, FindingObserved { finding_key, detector, validity: unknown, severity, ..Default::default() });
}

#[test]
fn what_is_wrong_with_a_finding_is_named_by_its_place() {
    let print = |name: &str, value: Value| {
        let mut print = json!({"kid": "k1", "alg": "hmac-sha256", "value": DIGITS});
        print[name] = value;
        json!([{"kid": "k1", "alg": "hmac-sha256", "value": DIGITS}, print])
    };
    for (name, value, pointer) in [
        ("fingerprints", print("alg", json!("sha1")), "/data/fingerprints/1/alg"),
        ("fingerprints", print("kid", json!("K")), "/data/fingerprints/1/kid"),
        ("fingerprints", print("value", json!("5b0f")), "/data/fingerprints/1/value"),
        ("fingerprints", print("part", json!(1)), "/data/fingerprints/1/part"),
        ("fingerprints", json!(vec![json!({}); 17]), "/data/fingerprints"),
        ("fingerprints", json!(["x"]), "/data/fingerprints"),
        ("identifiers", json!([{"kind": "x"}]), "/data/identifiers/0/value"),
        ("location", json!({"path": "p".repeat(1025)}), "/data/location/path"),
        ("location", json!({"line": -1}), "/data/location/line"),
        ("source", json!({"url": "a\nb"}), "/data/source/url"),
    ] {
        let mut data = json!({"finding_key": "f", "detector": "d"});
        data[name] = value;
        refused_at(&binary("finding.observed", &data.to_string()), RejectReason::WrongSchema, pointer);
    }
}

#[test]
fn an_inventory_registers_a_credential() {
    let prints = json!([{"kid": "k1", "alg": "hmac-sha256", "value": DIGITS, "part": "password"}]);
    let data = json!({"cred_id": LEASE, "fingerprints": prints, "version": 7, "current": false, "owner": "payments",
        "environment": "prod"});
    let of = |data: &Value| match read(&binary("credential.registered", &data.to_string())).data {
        Data::CredentialRegistered(it) => it,
        _ => panic!(),
    };
    let whole = of(&data);
    assert_eq!((whole.credential.as_str(), whole.version, whole.current), (LEASE, Some(7), false));
    assert_eq!(whole.fingerprints[0].fingerprint.to_string(), format!("k1:{DIGITS}"));
    assert_eq!((whole.owner.as_deref(), whole.environment.as_deref()), (Some("payments"), Some("prod")));
    let bare = of(&json!({ "cred_id": LEASE }));
    assert!(bare.current && bare.fingerprints.is_empty() && bare.version.is_none());
    refused_at(&binary("credential.registered", "{}"), RejectReason::WrongSchema, "/data/cred_id");
}

#[test]
fn a_trace_is_carried_header_first_and_never_a_reason() {
    let (a, b) = (
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let with = |more: &[(&str, &str)]| {
        let mut all = headers("task.started");
        all.extend(more.iter().map(|(name, value)| header(name, value)));
        read(&delivery(all, Some(Bytes::from_static(b"{\"run_id\":\"r\"}")))).traceparent
    };
    assert_eq!(with(&[("ce_traceparent", b), ("traceparent", a)]).as_deref(), Some(a));
    assert_eq!(with(&[("ce_traceparent", b), ("traceparent", "x")]).as_deref(), Some(b));
    assert_eq!(with(&[("ce_traceparent", &a.replace('4', "é"))]), None);
    assert_eq!(with(&[("ce_traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01")]), None);
}

#[test]
fn the_digest_knows_content_not_spelling() {
    let digest = |body: &str| read(&structured(body.to_owned())).digest;
    let a = r#"{"specversion":"1.0","type":"dev.curfew.task.started.v1","source":"/s","id":"1","data":{"run_id":"é","attempt":1,"x":[1,2]}}"#;
    let b = r#"{"data" : {"x":[1.0,2],"attempt":1,"run_id":"\u00e9"}, "id":"1","source":"/s","type":"dev.curfew.task.started.v1","specversion":"1.0","time":"2026-01-01T00:00:00Z"}"#;
    assert_eq!(digest(a), digest(b));
    for other in [a.replace("[1,2]", "[2,1]"), a.replace("\"attempt\":1", "\"attempt\":2"), a.replace("é", "e")] {
        assert_ne!(digest(a), digest(&other));
    }
    assert_ne!(digest(a), digest(&a.replace("\"id\"", "\"subject\":\"s\",\"id\"")));
    assert_ne!(digest(a), digest(&a.replace("task.started", "task.ended")));
}

#[test]
fn noticing_twice_is_one_event() {
    let tenant: Tenant = "acme".into();
    let run = RunKey::new("/s", "r");
    let cred = CredentialId::parse(LEASE).unwrap();
    let same = |a: &Event, b: &Event| a.natural_key() == b.natural_key() && a.digest == b.digest;
    let passed = |deadline, now| Event::deadline_passed(tenant.clone(), run.clone(), deadline, now);
    assert!(same(&passed(5, 10), &passed(5, 20)));
    assert!(!same(&passed(5, 10), &passed(6, 10)));
    let missed = |beat, now| Event::heartbeat_missed(tenant.clone(), run.clone(), beat, now);
    assert!(same(&missed(5, 10), &missed(5, 20)));
    assert!(!same(&missed(5, 10), &passed(5, 10)));
    let found = |run, exclusive, now| Event::reconcile_found(tenant.clone(), cred.clone(), run, exclusive, now);
    assert!(same(&found(None, false, 10), &found(Some(run.clone()), true, 20)));
    assert!(!same(&found(None, false, 10), &found(None, false, 10 + 86_400_000)));
    let revoke =
        |why: &str| Event::operator_revoke(tenant.clone(), "1".into(), cred.clone(), "a".into(), why.into(), 1);
    assert!(same(&revoke("x"), &revoke("x")));
    assert!(revoke("x").digest != revoke("y").digest && revoke("x").natural_key() == revoke("y").natural_key());
    for own in [passed(1, 2), missed(1, 2), found(None, true, 3), revoke("x")] {
        assert!(own.kind.is_own() && own.source.starts_with("/curfew/") && own.kind == own.data.kind());
        assert_eq!((own.at.cluster.as_ref(), own.at.topic.as_ref()), (OWN, OWN));
    }
}

#[test]
fn times_are_read_to_the_edge_of_the_calendar() {
    for (text, ms) in [
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999999999Z", 253_402_300_799_999),
        ("0000-01-01T00:00:00+23:59", -62_167_219_200_000 - 86_340_000),
        ("2024-02-29t12:00:00.1z", 1_709_208_000_100),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
    ] {
        assert_eq!(time::parse(text), Some(ms), "{text}");
    }
    for bad in [
        "2023-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01 00:00:00Z",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+0100",
        "2024-01-01T00:00:00Zé",
        "+002024-01-01T00:00:00Z",
        "2024-01-01T00:00Z",
        "",
    ] {
        assert_eq!(time::parse(bad), None, "{bad}");
    }
}

/// JSON of any shape, with the schema's own names among others, so that it gets far.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "run_id",
        "run_key",
        "task",
        "grants",
        "cred_id",
        "tenure",
        "deadline",
        "ended_at",
        "agent",
        "id",
        "attempt",
        "validity",
        "state",
        "finding_key",
        "detector",
        "fingerprints",
        "identifiers",
        "location",
        "source",
        "kind",
        "value",
        "kid",
        "alg",
        "line",
        "version",
        "current",
        "reason",
        "data",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from(LEASE)),
        Just(Value::from("2026-09-01T10:00:00Z")),
    ];
    leaf.prop_recursive(4, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..8)
                .prop_map(|entries| entries.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<Value>()),
        ]
    })
}

fn any_kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "task.started",
        "task.extended",
        "task.heartbeat",
        "task.ended",
        "grant.registered",
        "grant.released",
        "credential.registered",
        "finding.observed",
        "finding.closed",
    ])
}

/// What a reject shows anywhere.
fn shown(reject: &Reject) -> String {
    let message = crate::outcome::rejected(reject);
    format!("{reject:?} {} {message:?}", serde_json::to_string(reject).unwrap())
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), name in "[a-z_-]{0,12}") {
        for head in [vec![], headers("task.started"), vec![header("content-type", "application/cloudevents+json")]] {
            let mut head = head;
            head.push((name.clone(), Some(bytes.clone().into())));
            head.push((format!("ce_{name}"), Some(bytes.clone().into())));
            let _either = decode(&delivery(head, Some(bytes.clone().into())), &Limits::default());
        }
    }

    #[test]
    fn no_shape_panics_and_both_modes_agree(data in any_json(), kind in any_kind()) {
        let body = json!({"specversion": "1.0", "type": format!("dev.curfew.{kind}.v1"), "source": "/schedulers/ci",
            "id": "1", "data": data});
        let one = decode(&structured(body.to_string()), &Limits::default());
        let other = decode(&binary(kind, &data.to_string()), &Limits::default());
        match (one, other) {
            (Ok(one), Ok(other)) => {
                prop_assert_eq!(one.digest, other.digest);
                prop_assert_eq!(format!("{:?}", one.data), format!("{:?}", other.data));
            }
            (Err(one), Err(other)) => prop_assert_eq!((one.reason, one.pointer), (other.reason, other.pointer)),
            (one, other) => prop_assert!(false, "{:?} {:?}", one, other),
        }
    }

    #[test]
    fn a_reject_never_shows_what_was_sent(
        field in prop::sample::select(vec![
            "run_id", "cred_id", "deadline", "started_at", "grants", "agent", "attempt", "tenure", "CANARYfield",
        ]),
        shape in 0..5_usize,
        kind in any_kind(),
    ) {
        const CANARY: &str = "CANARYhvs.s3cr3t";
        let value = match shape {
            0 => json!(CANARY),
            1 => json!({CANARY: CANARY}),
            2 => json!([CANARY]),
            3 => json!([{CANARY: CANARY, "cred_id": CANARY, "tenure": CANARY}]),
            _ => json!(format!("{CANARY}\n")),
        };
        let data = json!({field: value, CANARY: CANARY}).to_string();
        let torn = data[..data.len() - 1].to_owned();
        let mut wrong = headers(CANARY);
        wrong[2] = header("ce_source", CANARY);
        let mut doubled = headers(kind);
        doubled.push(header("ce_id", CANARY));
        doubled.push(header(CANARY, CANARY));
        for delivery in [
            binary(kind, &data),
            binary(kind, &torn),
            delivery(wrong, Some(data.clone().into())),
            delivery(doubled, Some(data.clone().into())),
            structured(data.clone()),
            structured(started(&json!({"run_id": 1, CANARY: CANARY, "time": CANARY})).to_string()),
        ] {
            if let Err(reject) = decode(&delivery, &Limits::default()) {
                let text = shown(&reject);
                prop_assert!(!text.contains("CANARY"), "{}", text);
            }
            let shown = format!("{delivery:?}");
            prop_assert!(!shown.contains("CANARY"));
        }
    }

    #[test]
    fn times_are_what_jiff_reads(ms in -62_135_596_800_000_i64..253_370_764_800_000, offset in -1439_i32..1440) {
        let offset = jiff::tz::Offset::from_seconds(offset * 60).unwrap();
        let at = jiff::Timestamp::from_millisecond(ms).unwrap();
        let shown = at.display_with_offset(offset).to_string();
        if !shown.starts_with('-') {
            prop_assert_eq!(time::parse(&shown), Some(ms), "{}", shown);
        }
    }

    #[test]
    fn no_text_panics_as_a_time(text in "\\PC{0,40}", near in "[0-9Tt:.Zz+é-]{19,26}") {
        let _either = (time::parse(&text), time::parse(&near));
    }
}
