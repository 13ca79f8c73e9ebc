//! No secret appears anywhere that Curfew writes: journal, logs at trace, topics, metrics, answers and errors of commands.
//!
//! The real binary, on real servers, with credentials that are real. Where secrets must be found (in what the test itself
//! wrote), the same reading and the same scanner find them: a scanner that sees nothing would prove nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_encode};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::admin::{Admin, Postgres};
use crate::intake::{Pen, create};
use crate::world::{env, unique, until};

mod bound;
mod cached;
mod kept;
mod keyed;
mod kubernetes;
mod leak;
mod maria;
mod minted;
mod panics;
mod reduced;
pub mod scans;
mod schedulers;
mod spread;
mod webhooks;
mod wrapped;

const STRUCTURED: &str = "application/cloudevents+json; charset=UTF-8";
/// So much of a secret is a leak, in whatever spelling.
const PIECE: usize = 12;

/// Finds pieces of secrets: raw, base64 (any alignment, both alphabets), hex; each also behind escapes of JSON, of Rust's
/// `{:?}` and of URLs, and in lists of bytes.
pub struct Scanner {
    secrets: BTreeMap<String, String>,
    pieces: HashMap<[u8; PIECE], (String, &'static str)>,
    /// First two bytes of any piece: most places are none.
    starts: Vec<bool>,
}

impl Scanner {
    pub fn new(secrets: &BTreeMap<String, String>) -> Self {
        let mut scanner =
            Self { secrets: secrets.clone(), pieces: HashMap::new(), starts: vec![false; usize::from(u16::MAX) + 1] };
        for (name, secret) in secrets {
            assert!(secret.len() >= PIECE, "{name} is too short to be looked for");
            let bytes = secret.as_bytes();
            scanner.add(name, "raw", bytes);
            scanner.add(name, "hex", hex::encode(bytes).as_bytes());
            scanner.add(name, "hex", hex::encode_upper(bytes).as_bytes());
            for before in 0..3 {
                let moved = [&vec![0; before], bytes].concat();
                // What depends on the neighbours on either side is left out.
                let whole = (before * 8).div_ceil(6)..moved.len() * 8 / 6;
                scanner.add(name, "base64", &STANDARD_NO_PAD.encode(&moved).as_bytes()[whole.clone()]);
                scanner.add(name, "base64", &URL_SAFE_NO_PAD.encode(&moved).as_bytes()[whole]);
            }
        }
        scanner
    }

    fn add(&mut self, name: &str, spelling: &'static str, text: &[u8]) {
        for piece in text.windows(PIECE) {
            self.starts[usize::from(u16::from_le_bytes([piece[0], piece[1]]))] = true;
            let piece = piece.try_into().unwrap();
            self.pieces.entry(piece).or_insert_with(|| (name.to_owned(), spelling));
        }
    }

    /// Which secrets stand in `text`, and how they are spelt.
    fn find(&self, text: &[u8]) -> BTreeSet<(String, String)> {
        let once = unescaped(text);
        let twice = unescaped(&once);
        let url: Vec<u8> = percent_decode(text).collect();
        let both: Vec<u8> = percent_decode(&once).collect();
        let layers = [
            ("", text.to_vec()),
            ("escaped ", once),
            ("escaped twice ", twice),
            ("in a URL ", url),
            ("escaped in a URL ", both),
            ("list of bytes ", listed(text)),
        ];
        let mut found = BTreeSet::new();
        for (layer, text) in &layers {
            for piece in text.windows(PIECE) {
                if self.starts[usize::from(u16::from_le_bytes([piece[0], piece[1]]))]
                    && let Some((name, spelling)) = self.pieces.get(piece)
                {
                    found.insert((name.clone(), format!("{layer}{spelling}")));
                }
            }
        }
        found
    }

    /// The names of those found in `text`.
    pub fn names(&self, text: &[u8]) -> BTreeSet<String> {
        self.find(text).into_iter().map(|(name, _)| name).collect()
    }
}

/// Without the escapes of JSON and of Rust: `\"`, `\/`, `\u0041`, `\u{41}`, `\x41`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let digits = |from: usize, count: usize| {
            let digits = std::str::from_utf8(after.get(from..from + count)?).ok()?;
            Some((u8::try_from(u32::from_str_radix(digits, 16).ok()?).ok()?, from + count))
        };
        let decoded = match after {
            [b'x', ..] => digits(1, 2),
            [b'u', b'{', ..] => after
                .iter()
                .position(|byte| *byte == b'}')
                .filter(|end| (3..=8).contains(end))
                .and_then(|end| digits(2, end - 2))
                .map(|(byte, used)| (byte, used + 1)),
            [b'u', ..] => digits(1, 4),
            [b'n', ..] => Some((b'\n', 1)),
            [other, ..] => Some((*other, 1)),
            [] => None,
        };
        match decoded {
            Some((byte, used)) => {
                out.push(byte);
                rest = &after[used..];
            }
            None => out.push(b'\\'),
        }
    }
    out
}

/// The bytes of lists such as `[104, 118, 115]`, decimal or hexadecimal.
fn listed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in text.split(|b| !(b.is_ascii_alphanumeric() || matches!(b, b',' | b' ' | b'\n'))) {
        for item in run.split(|b| *b == b',') {
            let item = std::str::from_utf8(item.trim_ascii()).unwrap_or_default();
            let byte = item.strip_prefix("0x").map_or_else(|| item.parse(), |digits| u8::from_str_radix(digits, 16));
            if let Ok(byte) = byte {
                out.push(byte);
            }
        }
        out.push(0);
    }
    out
}

#[test]
fn the_scanner_finds_each_spelling() {
    let odd = "A1a-/x+y \"q\\z&%{}0Zu7".to_owned();
    let plain = "hvs.CAESIKx3rQ9wLm2pTb7e".to_owned();
    let secrets = BTreeMap::from([("odd".to_owned(), odd.clone()), ("plain".to_owned(), plain.clone())]);
    let scanner = Scanner::new(&secrets);
    let noise = "2026-11-24T02:35:34Z TRACE curfew::x: 0192f1c4-aaaa [1, 2, 3] \\u0041 %41 A1a- hvs.CAESI ".repeat(50);
    assert_eq!(scanner.find(noise.as_bytes()), BTreeSet::new());
    for (name, secret) in &secrets {
        let bytes = secret.as_bytes();
        let json = |text: &str| serde_json::to_string(text).unwrap();
        let every = |show: &dyn Fn(u8) -> String| bytes.iter().map(|byte| show(*byte)).collect::<String>();
        let mut spellings = vec![
            ("raw", secret.clone()),
            ("hex", hex::encode(bytes)),
            ("hex", hex::encode_upper(bytes)),
            ("json", json(secret)),
            ("json twice", json(&json(secret))),
            ("debug", format!("{secret:?}")),
            ("url", percent_encode(bytes, NON_ALPHANUMERIC).to_string()),
            ("url, all", every(&|byte| format!("%{byte:02x}"))),
            ("unicode", every(&|byte| format!("\\u{byte:04x}"))),
            ("rust unicode", every(&|byte| format!("\\u{{{byte:x}}}"))),
            ("rust bytes", every(&|byte| format!("\\x{byte:02x}"))),
            ("list", format!("{bytes:?}")),
            ("list, many lines", format!("{bytes:#?}")),
            ("list, hex", format!("{bytes:#04x?}")),
            ("list, tight", format!("{bytes:?}").replace(' ', "")),
            ("a piece", secret[secret.len() - PIECE..].to_owned()),
            ("base64 in a URL", percent_encode(STANDARD_NO_PAD.encode(bytes).as_bytes(), NON_ALPHANUMERIC).to_string()),
        ];
        for before in 0..3 {
            for after in 0..3 {
                let moved = [&b"user:"[..5 - before], bytes, &b"@xy"[..after]].concat();
                spellings.push(("base64", STANDARD_NO_PAD.encode(&moved)));
                spellings.push(("base64", URL_SAFE_NO_PAD.encode(&moved)));
            }
        }
        for (spelling, text) in spellings {
            for text in [format!("{noise}{text}{noise}"), format!("{noise}{text}"), format!("{text}{noise}")] {
                let found = scanner.names(text.as_bytes());
                assert_eq!(found, BTreeSet::from([name.clone()]), "{name} as {spelling}");
            }
        }
        // What is shorter than a piece is no find.
        let short = &secret[secret.len() - PIECE + 1..];
        assert_eq!(scanner.names(format!("{noise}{short}{noise}").as_bytes()), BTreeSet::new());
    }
}

#[test]
fn the_scanner_finds_a_secret_in_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let secret = hex::encode([7; 20]);
    let scanner = Scanner::new(&BTreeMap::from([("it".to_owned(), secret.clone())]));
    let path = dir.path().join("some.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    // Longer than a page: in the file it is torn.
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER, b BLOB)").unwrap();
    let long = format!("{}{secret}", "x".repeat(4070));
    db.execute("INSERT INTO t VALUES (1, ?1)", [long.as_bytes()]).unwrap();
    assert_eq!(scanner.names(&rows(&path)).len(), 1);
    db.execute("INSERT INTO t VALUES (1, ?1)", [secret.as_bytes()]).unwrap();
    assert_eq!(scanner.names(&fs::read(dir.path().join("some.db-wal")).unwrap()).len(), 1);
}

/// Every value of every table: in the file itself, long ones are torn by the borders of pages.
pub fn rows(path: &Path) -> Vec<u8> {
    let db = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut all = Vec::new();
    for table in tables {
        let mut select = db.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = select.column_count();
        let mut found = select.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            for column in 0..columns {
                use rusqlite::types::ValueRef::{Blob, Text};
                if let Text(bytes) | Blob(bytes) = row.get_ref(column).unwrap() {
                    all.extend_from_slice(bytes);
                }
                all.push(b'\n');
            }
        }
    }
    all
}

/// Everything of one topic: keys, values, headers. Answers the number of records, and all bytes.
pub fn records(topic: &str) -> (i64, Vec<u8>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", env("CURFEW_TEST_KAFKA")).set("group.id", "canary");
    let reader: BaseConsumer = config.create().unwrap();
    let (_, end) = reader.fetch_watermarks(topic, 0, Duration::from_secs(10)).unwrap();
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    reader.assign(&place).unwrap();
    let (mut next, mut all) = (0, Vec::new());
    while next < end {
        let record = reader.poll(Duration::from_secs(20)).expect("the records before the watermark").unwrap();
        next = record.offset() + 1;
        for part in [record.key(), record.payload()].into_iter().flatten() {
            all.extend_from_slice(part);
            all.push(b'\n');
        }
        for header in record.headers().into_iter().flat_map(|headers| headers.iter()) {
            all.extend_from_slice(header.key.as_bytes());
            all.push(b':');
            all.extend_from_slice(header.value.unwrap_or_default());
            all.push(b'\n');
        }
    }
    (end, all)
}

/// A new file that only its owner can read.
pub fn private(path: PathBuf, text: &str) -> PathBuf {
    use std::io::Write as _;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a new file");
    file.write_all(text.as_bytes()).unwrap();
    path
}

pub fn port() -> u16 {
    // Below those that the kernel gives to outgoing connections: one of them would have it before its server has.
    let tries = std::iter::repeat_with(|| {
        12_000 + u16::from_le_bytes(uuid::Uuid::new_v4().into_bytes()[..2].try_into().unwrap()) % 20_000
    });
    tries.into_iter().find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A secret that no server made.
pub fn made_up(prefix: &str) -> String {
    format!("{prefix}{}", hex::encode(uuid::Uuid::new_v4().into_bytes()))
}

/// As loud as it can be asked to be, past the caps too.
const LOUD: &str = "trace,curfew=trace,vaultrs=trace,rustify=trace,rustify::clients=trace,hyper=trace,hyper_util=trace,\
    reqwest=trace,rustls=trace,sqlx=trace,sqlx::query=trace,h2=trace,axum=trace,tower_http=trace,rdkafka=trace,\
    librdkafka=trace,aws_smithy_runtime=trace,aws_smithy_http_client=trace,aws_sigv4=trace,aws_runtime=trace,\
    aws_config=trace";

pub fn curfew(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command.current_dir(folder).env_clear().env("HOME", folder).env("USER", "ana").env("RUST_LOG", LOUD);
    command.env("RUST_BACKTRACE", "full").stdin(Stdio::null());
    command
}

/// A process that writes into a file; killed with the test.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = fs::File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    pub async fn says(&mut self, words: &str) {
        until(words, || {
            let ended = self.child.try_wait().unwrap();
            let log = self.log();
            assert!(ended.is_none() || log.contains(words), "it ended ({ended:?}) before it said: {words}");
            async move { log.contains(words).then_some(()) }
        })
        .await;
    }

    pub fn end(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-s", "TERM", &id]).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// All that Curfew wrote, by place.
#[derive(Default)]
pub struct Written(pub BTreeMap<String, Vec<u8>>);

impl Written {
    pub fn put(&mut self, place: &str, bytes: &[u8]) {
        self.0.entry(place.to_owned()).or_default().extend_from_slice(bytes);
    }

    /// Runs one command; keeps and answers what it said.
    pub fn command(&mut self, folder: &Path, args: &[&str]) -> (Option<i32>, String) {
        self.command_with(folder, &[], args)
    }

    fn command_with(&mut self, folder: &Path, env: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
        let output = curfew(folder).envs(env.iter().copied()).args(args).output().unwrap();
        let all = [output.stdout.as_slice(), &output.stderr].concat();
        // The place is printed where something is found: it must not hold what was found.
        self.put(&format!("command {} {}", args[0], folder.file_name().unwrap().display()), &all);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn assert_clean(&self, scanner: &Scanner) {
        let mut leaks = Vec::new();
        for (place, bytes) in &self.0 {
            assert!(!bytes.is_empty(), "nothing was written to {place}");
            leaks.extend(scanner.find(bytes).into_iter().map(|(name, how)| format!("{name}, {how}: in {place}")));
        }
        assert!(leaks.is_empty(), "secrets were written:\n{}", leaks.join("\n"));
    }
}

fn event(kind: &str, id: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/canary", "type": format!("dev.curfew.task.{kind}.v1"),
        "datacontenttype": "application/json", "data": data})
}

/// Secrets where none belong, in every part that is not kept, each with every secret. Records with their headers, and
/// how many of them are rejected.
async fn poison(pen: &Pen, topic: &str, secrets: &str) -> i64 {
    let kind: (&str, Option<&[u8]>) = ("content-type", Some(STRUCTURED.as_bytes()));
    let good = |id: &str| event("heartbeat", id, &json!({"run_id": "poison"}));
    let with = |id: &str, path: &str, value: Value| {
        let mut event = good(id);
        match path.strip_prefix("data.") {
            Some(name) => event["data"][name] = value,
            None => event[path] = value,
        }
        event.to_string().into_bytes()
    };
    let start = |name: &str, value: Value| {
        let mut event = event("started", name, &json!({"run_id": "poison-start"}));
        event["data"][name] = value;
        event.to_string().into_bytes()
    };
    let rejected: Vec<Vec<u8>> = vec![
        format!("{{\"password\": {secrets}}}").into_bytes(),
        secrets.as_bytes().to_vec(),
        [b"\xff\xfe ".as_slice(), secrets.as_bytes()].concat(),
        format!("{{\"id\": \"1\", \"{secrets}\": 1, \"{secrets}\": 2}}").into_bytes(),
        format!("{}{:?}{}", "[".repeat(100), secrets, "]".repeat(100)).into_bytes(),
        secrets.repeat(300_000 / secrets.len() + 1).into_bytes(),
        json!(secrets).to_string().into_bytes(),
        json!([good("in-a-list"), secrets]).to_string().into_bytes(),
        with("p1", "type", json!(format!("dev.curfew.task.{secrets}.v1"))),
        with("p2", "type", json!(secrets)),
        with("p3", "specversion", json!(secrets)),
        with("p4", "datacontenttype", json!(secrets)),
        with("p5", "time", json!(secrets)),
        with("p6", "data", json!(secrets)),
        with("p7", "data", json!({"password": secrets})),
        with("p8", "data_base64", json!(STANDARD_NO_PAD.encode(secrets))),
        start("grants", json!(secrets)),
        start("grants", json!([secrets])),
        start("grants", json!([{"cred_id": secrets}])),
        start("grants", json!([{"cred_id": format!("urn:curfew:cred:{secrets}")}])),
        start("grants", json!([{"cred_id": "urn:curfew:cred:vault-lease:test:x", "tenure": secrets}])),
        start("grants", json!([{"cred_id": "urn:curfew:cred:vault-lease:test:x", "expires_at": secrets}])),
        start("deadline", json!(secrets)),
        start("started_at", json!(secrets)),
        start("attempt", json!(secrets)),
        start("heartbeat_interval_ms", json!(secrets)),
        start("agent", json!({"password": secrets})),
        start("boundary", json!({"actions": [{"target": "appdb", "permissions": [secrets]}]})),
    ];
    // Never kept, though the rest of the event is good.
    let accepted: Vec<Vec<u8>> = vec![
        with("g1", "password", json!(secrets)),
        with("g2", "data.password", json!(secrets)),
        with("g3", "traceparent", json!(secrets)),
        with("g4", "dataschema", json!(secrets)),
        with("g5", "partitionkey", json!(secrets)),
        with("g6", "data.environment", json!({"VAULT_TOKEN": [secrets]})),
    ];
    for payload in rejected.iter().chain(&accepted) {
        pen.raw(topic, 0, Some(payload), &[kind]).await;
    }
    let secret = Some(secrets.as_bytes());
    let body = good("headers").to_string();
    pen.raw(topic, 0, Some(body.as_bytes()), &[kind, ("authorization", secret), ("traceparent", secret)]).await;
    pen.raw(topic, 0, Some(body.as_bytes()), &[("content-type", secret)]).await;
    pen.raw(topic, 0, None, &[kind, ("x-vault-token", secret)]).await;
    let binary: [(&str, Option<&[u8]>); 4] = [
        ("ce_specversion", Some(b"1.0")),
        ("ce_type", Some(b"dev.curfew.task.heartbeat.v1")),
        ("ce_source", Some(b"/canary")),
        ("ce_password", secret),
    ];
    pen.raw(topic, 0, Some(secrets.as_bytes()), &[&binary[..], &[("ce_id", Some(b"binary"))]].concat()).await;
    pen.raw(topic, 0, Some(b"{}"), &[&binary[..], &[("ce_id", Some(b"b2")), ("ce_time", secret)]].concat()).await;
    let doubled = [&binary[..], &[("ce_password", secret)]].concat();
    pen.raw(topic, 0, Some(br#"{"run_id": "poison"}"#), &doubled).await;
    i64::try_from(rejected.len()).unwrap() + 5
}

/// What the tasks hold: three credentials, each of its kind, and their secrets.
async fn credentials(
    admin: &Admin,
    mount: &str,
    approle: &str,
    name: &str,
    secrets: &mut BTreeMap<String, String>,
) -> Vec<Value> {
    let urn = |kind: &str, id: &str| format!("urn:curfew:cred:{kind}:test:{id}");
    let lease = admin.database_credential(mount).await;
    let (accessor, token) = admin.token(json!({"meta": {"curfew_run": format!("/canary:{name}")}})).await;
    let meta = json!({"curfew_run": format!("/canary:{name}")});
    let (secret_accessor, secret_id) = admin.secret_id(approle, meta).await;
    let (derived, _) = admin.approle_login(approle, &secret_id).await;
    let grants = vec![
        json!({"cred_id": urn("vault-lease", &lease.lease), "tenure": "minted", "principal": lease.username}),
        json!({"cred_id": urn("vault-token", &accessor), "tenure": "minted"}),
        json!({"cred_id": urn("vault-secret-id", &format!("{approle}/ci/{secret_accessor}")), "tenure": "minted"}),
    ];
    for (what, secret) in
        [("password", lease.password), ("token", token), ("secret_id", secret_id), ("derived token", derived)]
    {
        secrets.insert(format!("{what} of {name}"), secret);
    }
    grants
}

fn dead(cases: &str) -> usize {
    let cases: Value = serde_json::from_str(cases).unwrap_or_default();
    cases.as_array().into_iter().flatten().filter(|line| line["verdict"]["state"] == "dead").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let mut secrets = BTreeMap::from([
        ("the administrator's password at PostgreSQL".to_owned(), pg.password.clone()),
        ("Curfew's password at PostgreSQL".to_owned(), made_up("pg-")),
        ("Curfew's next password at PostgreSQL".to_owned(), made_up("pg-")),
        ("Vault's root token".to_owned(), env("CURFEW_TEST_VAULT_TOKEN")),
        ("Curfew's first login".to_owned(), admin.curfew_token().await),
        ("Curfew's second login".to_owned(), admin.curfew_token().await),
    ]);
    let (mount, approle) = (admin.database().await, admin.approle().await);
    let first = credentials(&admin, &mount, &approle, "first", &mut secrets).await;
    let second = credentials(&admin, &mount, &approle, "second", &mut secrets).await;
    let third = credentials(&admin, &mount, &approle, "third", &mut secrets).await;
    let role = unique("curfew").replace('-', "_");
    let at_postgres = async |sql: String| {
        pg.pool().await.execute(AssertSqlSafe(sql)).await.unwrap();
    };
    let password = |which: &str| secrets[&format!("Curfew's {which} at PostgreSQL")].clone();
    let (password, next_password) = (password("password"), password("next password"));
    at_postgres(format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'")).await;

    let [tasks, outcomes, rejected] = ["tasks", "outcomes", "rejected"].map(|name| unique(&format!("canary-{name}")));
    for topic in [&tasks, &outcomes, &rejected] {
        create(topic, 1).await;
    }
    let (metrics, http, shown) = (port(), port(), port());
    let token_file = private(home.join("curfew.token"), &format!("{}\n", secrets["Curfew's first login"]));
    private(home.join("pg.url"), &format!("postgres://{role}:{password}@{}/postgres\n", pg.host));
    let config = format!(
        r#"
journal: {{path: curfew.db}}
kafka: {{brokers: "{brokers}", group: {group}, properties: {{debug: all}}}}
topics:
  {tasks}: {{tenant: default, kinds: [vault-lease, vault-token, vault-secret-id], strongest: revoke}}
publish: {{outcomes: {outcomes}, states: {outcomes}, rejected: {rejected}}}
http: {{listen: "127.0.0.1:{http}", topic: {tasks}}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
status: {{listen: "127.0.0.1:{shown}"}}
realms:
  - name: test
    mode: enforce
    vault: {{address: "{vault}", token_file: curfew.token}}
    allowed_prefixes: ["{mount}/creds/", "token:"]
    secret_id_roles: ["{approle}/ci"]
    derived_tokens: true
    targets: [{{prefix: "{mount}/creds/", target: appdb}}]
    reconcile: {{token_file: curfew.token, prefixes: [{{prefix: "{mount}/creds/"}}], tokens: false, every: 1s}}
targets:
  - {{name: appdb, postgres: {{url_file: pg.url}}}}
retry: {{first: 100ms, ceiling: 500ms}}
log: {{level: trace}}
"#,
        brokers = env("CURFEW_TEST_KAFKA"),
        group = unique("canary"),
        vault = admin.address,
    );
    fs::write(home.join("curfew.yaml"), config).unwrap();
    let mut written = Written::default();
    let mut command = curfew(home);
    command.arg("run");
    let mut running = Running::start(command, home.join("log"));
    running.says("curfew runs").await;
    let intake_token = fs::read_to_string(home.join("intake.token")).unwrap().trim().to_owned();
    assert_eq!(fs::metadata(home.join("intake.token")).unwrap().permissions().mode() & 0o777, 0o600);
    secrets.insert("the intake's token".to_owned(), intake_token.clone());
    secrets.insert("a wrong intake token".to_owned(), made_up("wrong-"));

    // A task that ends, and poison around it.
    let all: String = secrets.values().map(String::as_str).collect::<Vec<_>>().join(" ");
    let pen = Pen::new();
    let kind: (&str, Option<&[u8]>) = ("content-type", Some(STRUCTURED.as_bytes()));
    let start = event("started", "first:started", &json!({"run_id": "first", "grants": first, "password": all}));
    pen.raw(&tasks, 0, Some(start.to_string().as_bytes()), &[kind]).await;
    let mut rejects = poison(&pen, &tasks, &all).await;
    // A conflict: the same id, with other content.
    let conflict = json!({"run_id": "first", "grants": first, "deadline": "2099-01-01T00:00:00Z", "password": all});
    let conflict = event("started", "first:started", &conflict).to_string();
    pen.raw(&tasks, 0, Some(conflict.as_bytes()), &[kind]).await;
    rejects += 1;
    // As much as the field takes.
    let outcome: Vec<&str> =
        secrets.iter().filter(|(name, _)| name.ends_with("first")).map(|(_, s)| s.as_str()).collect();
    let outcome = outcome.join(" ");
    let end = event("ended", "first:ended", &json!({"run_id": "first", "outcome": outcome, "password": all}));
    pen.raw(&tasks, 0, Some(end.to_string().as_bytes()), &[kind]).await;

    // Over HTTP: refused, rejected, accepted.
    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{http}/events");
    let post = |token: String, kind: &'static str, body: String| {
        let request = client.post(format!("{url}?token={intake_token}")).bearer_auth(token);
        let request = request.header("content-type", kind).header("x-secret", &all).header("traceparent", &all);
        async { request.body(body).send().await }
    };
    let start = |name: &str, grants: &[Value]| {
        event("started", &format!("{name}:started"), &json!({"run_id": name, "grants": grants, "secret": all}))
    };
    let (second_start, third_start) = (start("second", &second), start("third", &third));
    for (token, kind, body, status) in [
        (secrets["a wrong intake token"].clone(), STRUCTURED, all.clone(), 401),
        (intake_token.clone(), "text/plain", all.clone(), 415),
        (intake_token.clone(), STRUCTURED, all.clone(), 400),
        (intake_token.clone(), STRUCTURED, all.repeat(300_000 / all.len()), 413),
        (intake_token.clone(), STRUCTURED, second_start.to_string(), 200),
        (intake_token.clone(), STRUCTURED, third_start.to_string(), 200),
    ] {
        // What is refused before it was read may break in the caller's hands instead.
        let Ok(answer) = post(token, kind, body).await else {
            assert_eq!(status, 413);
            continue;
        };
        assert_eq!(answer.status().as_u16(), status);
        written.put("answers of the intake", &answer.bytes().await.unwrap());
    }
    // What carried no token left no trace; the other three that were no events are rejects.
    rejects += 3;
    until("the first task's credentials to be dead", || {
        let found = dead(&written.command(home, &["cases", "--closed", "--json"]).1);
        async move { (found == 3).then_some(()) }
    })
    .await;

    // PostgreSQL refuses Curfew's password in the middle of the run, until it is the right one again.
    at_postgres(format!("ALTER ROLE {role} PASSWORD '{next_password}'")).await;
    let ends = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    at_postgres(ends).await;
    let second_ended = event("ended", "second:ended", &json!({"run_id": "second"}));
    pen.raw(&tasks, 0, Some(second_ended.to_string().as_bytes()), &[kind]).await;
    let case = until("a case that PostgreSQL denies", || {
        let cases: Value = serde_json::from_str(&written.command(home, &["cases", "--json"]).1).unwrap_or_default();
        let denied = cases.as_array().and_then(|all| {
            all.iter().find(|line| line["case"]["state"]["last_failure"].to_string().contains("denied")).cloned()
        });
        async move { Some(denied?["case"]["id"].as_str()?.to_owned()) }
    })
    .await;
    for args in [&["cases"][..], &["case", &case], &["case", &case, "--json"], &["check"]] {
        assert!(written.command(home, args).0.is_some_and(|code| code < 64), "{args:?}");
    }
    at_postgres(format!("ALTER ROLE {role} PASSWORD '{password}'")).await;
    assert_eq!(written.command(home, &["retry-now", &case]).0, Some(0));
    until("the second task's credentials to be dead", || {
        let found = dead(&written.command(home, &["cases", "--closed", "--json"]).1);
        async move { (found == 6).then_some(()) }
    })
    .await;

    // Curfew's own login at Vault dies in the middle; then there is another one.
    let (status, _) = admin.call("POST", "auth/token/revoke", json!({"token": secrets["Curfew's first login"]})).await;
    assert_eq!(status, 204);
    fs::write(home.join("ended.json"), event("ended", "third:ended", &json!({"run_id": "third"})).to_string()).unwrap();
    assert_eq!(written.command(home, &["publish", "ended.json"]).0, Some(0));
    until("a case that does not get on", || {
        let cases = written.command(home, &["cases", "--json"]).1;
        // A login that is denied burns no attempt: the case stays ready, with its last failure.
        async move { (cases.contains("retrying") || cases.contains("\"denied\"")).then_some(()) }
    })
    .await;
    for args in [&["cases"][..], &["cases", "--json"], &["audit", "overrun"]] {
        assert_eq!(written.command(home, args).0, Some(0));
    }
    private(token_file, &secrets["Curfew's second login"]);
    let open: Value = serde_json::from_str(&written.command(home, &["cases", "--json"]).1).unwrap();
    for line in open.as_array().unwrap() {
        // One that closed meanwhile takes no word any more.
        written.command(home, &["retry-now", line["case"]["id"].as_str().unwrap()]);
    }
    until("all credentials to be dead", || {
        let found = dead(&written.command(home, &["cases", "--closed", "--json"]).1);
        async move { (found == 9).then_some(()) }
    })
    .await;
    let works =
        ["token of first", "derived token of first", "token of second", "token of third"].map(|name| &secrets[name]);
    for token in works {
        assert!(!admin.token_works(token).await);
    }

    // Commands, right and wrong ones.
    let cases: Value = serde_json::from_str(&written.command(home, &["cases", "--closed", "--json"]).1).unwrap();
    for case in cases.as_array().unwrap() {
        let id = case["case"]["id"].as_str().unwrap();
        assert_eq!(written.command(home, &["case", id]).0, Some(0));
        assert_eq!(written.command(home, &["case", id, "--json"]).0, Some(0));
    }
    for args in [
        &["cases", "--closed"][..],
        &["audit", "overrun", "--json"],
        &["audit", "overrun"],
        &["check"],
        &["check", "--json"],
        &["freeze", "--json"],
        &["release"],
    ] {
        assert_eq!(written.command(home, args).0, Some(0), "{args:?}");
    }
    fs::write(home.join("bad.jsonl"), format!("{{\"a\": {all}}}\n{all}\n{}\n", json!({ "specversion": all }))).unwrap();
    assert_eq!(written.command(home, &["publish", "bad.jsonl"]).0, Some(65));
    private(home.join("wrong.token"), &secrets["a wrong intake token"]);
    let refused = written.command(home, &["publish", "--http", &url, "--token-file", "wrong.token", "ended.json"]);
    assert_ne!(refused.0, Some(0));
    // A token where a credential's id belongs: it is what people paste.
    for secret in ["token of second", "password of second"] {
        assert_eq!(written.command(home, &["revoke", &secrets[secret], "--reason", "leaked"]).0, Some(65));
        assert_ne!(written.command(home, &["cases", "--credential", &secrets[secret]]).0, Some(0));
        assert_ne!(written.command(home, &["case", &secrets[secret]]).0, Some(0));
    }
    for page in ["metrics", "healthz", "readyz"] {
        let answer = client.get(format!("http://127.0.0.1:{metrics}/{page}")).bearer_auth(&intake_token).send().await;
        written.put(page, &answer.unwrap().bytes().await.unwrap());
    }
    until("everything to be published", || async {
        (records(&rejected).0 >= rejects && records(&outcomes).0 >= 9).then_some(())
    })
    .await;

    // The status page: what it links to, and what is asked of it with secrets in the question.
    let home_page = format!("http://127.0.0.1:{shown}");
    let mut pages = vec!["/status".to_owned(), "/status/cases".to_owned(), "/status/tasks".to_owned()];
    pages.extend(
        cases.as_array().unwrap().iter().map(|c| format!("/status/cases/{}", c["case"]["id"].as_str().unwrap())),
    );
    pages.extend(["first", "second", "third"].map(|run| format!("/status/tasks/default/%2Fcanary%3A{run}")));
    for page in pages {
        let answer = client.get(format!("{home_page}{page}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{page}");
        written.put("status pages", &answer.bytes().await.unwrap());
    }
    let token = percent_encode(secrets["token of second"].as_bytes(), NON_ALPHANUMERIC).to_string();
    for page in ["/status/cases/", "/status/tasks/default/", "/status/cases?after=", "/status/", "/"] {
        let answer = client.get(format!("{home_page}{page}{token}")).header("x-secret", &all).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{page}");
        written.put("refusals of the status page", format!("{:?}", answer.headers()).as_bytes());
        written.put("refusals of the status page", &answer.bytes().await.unwrap());
    }

    // The journal while it is open, with its write-ahead log, and after the end.
    for suffix in ["", "-wal", "-shm"] {
        written.put(&format!("curfew.db{suffix}"), &fs::read(home.join(format!("curfew.db{suffix}"))).unwrap());
    }
    assert_eq!(running.end(), Some(0));
    written.put("curfew.db after the end", &fs::read(home.join("curfew.db")).unwrap());
    written.put("rows of curfew.db", &rows(&home.join("curfew.db")));
    written.put("log", running.log().as_bytes());
    let (count, bytes) = records(&rejected);
    assert_eq!(count, rejects, "{}", String::from_utf8_lossy(&bytes));
    written.put("rejected", &bytes);
    written.put("outcomes", &records(&outcomes).1);
    let log = running.log();
    // It was loud: nobody who is not capped says anything at trace, so the loudest lines are ours at debug.
    assert!(log.contains("DEBUG curfew::executor: the executor starts nothing new"), "ours at debug is missing");
    assert!(log.contains("case{case.id="), "the spans of cases are missing");
    let denied = log.lines().filter(|line| line.contains("our own access is denied"));
    assert!(denied.clone().any(|line| line.contains("appdb")) && denied.clone().any(|line| line.contains("test")));
    at_postgres(format!("DROP ROLE {role}")).await;

    let scanner = Scanner::new(&secrets);
    // The control: what the test wrote is found by the same reading, every secret of it.
    let known: BTreeSet<String> = secrets.keys().cloned().collect();
    assert_eq!(scanner.names(&records(&tasks).1), known);
    assert_eq!(scanner.names(&fs::read(home.join("bad.jsonl")).unwrap()), known);
    written.assert_clean(&scanner);
}

/// Starts that fail, and configurations that are wrong: each with a secret in what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_stands_in_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = Written::default();
    let admin = Admin::shared();
    let vault = &admin.address;
    let password = made_up("Pw9-");
    let bad_token = made_up("hvs.CAESI");
    let (accessor, child) = admin.token(json!({"no_parent": false, "policies": ["curfew-tests"]})).await;
    assert!(!accessor.is_empty());
    let approle = admin.approle().await;
    let (_, spent) = admin.secret_id(&approle, json!({})).await;
    let (_, role) = admin.call("GET", &format!("auth/{approle}/role/ci/role-id"), Value::Null).await;
    let body = json!({ "secret_id": spent });
    assert_eq!(admin.call("POST", &format!("auth/{approle}/role/ci/secret-id/destroy"), body).await.0, 204);
    let secrets = BTreeMap::from([
        ("password".to_owned(), password.clone()),
        ("bad token".to_owned(), bad_token.clone()),
        ("token that is no orphan".to_owned(), child.clone()),
        ("spent secret_id".to_owned(), spent.clone()),
    ]);
    let scanner = Scanner::new(&secrets);
    let realm = |vault: &str| format!("realms:\n  - {{name: test, mode: enforce, vault: {{{vault}}}}}\n");
    let with_token = realm(&format!("address: \"{vault}\", token_file: bad.token"));
    let with_target = "targets: [{name: appdb, postgres: {url_file: pg.url}}]\n";
    let configs: Vec<(&str, i32, String)> = vec![
        ("a refused token", 69, with_token.clone()),
        ("a token that is no orphan", 1, realm(&format!("address: \"{vault}\", token_file: child.token"))),
        ("a token that no header takes", -1, realm(&format!("address: \"{vault}\", token_file: odd.token"))),
        (
            "a refused secret_id",
            69,
            realm(&format!(
                "address: \"{vault}\", approle: {{mount: {approle}, role_id_file: role, secret_id_file: spent}}"
            )),
        ),
        ("a database URL that cannot be read", 1, with_target.to_owned()),
        (
            "a password in Vault's URL",
            64,
            realm(&format!("address: \"http://curfew:{password}@127.0.0.1:1\", token_file: bad.token")),
        ),
        (
            "a password in Vault's URL on a line of its own",
            64,
            format!("realms:\n  - name: test\n    vault:\n      address: http://curfew:{password}@10.0.0.1:1\n"),
        ),
        (
            "a password in https, and no login",
            64,
            format!("realms:\n  - name: test\n    vault: {{address: \"https://curfew:{password}@vault.test\"}}\n"),
        ),
        ("a password in the brokers", 64, format!("kafka: {{brokers: \"user:{password}@kafka.test:9092\"}}\n")),
        ("a URL of brokers", 64, format!("kafka:\n  brokers: \"SASL_SSL://user:{password}@kafka.test:9092\"\n")),
        ("a password in the wrong place", 64, format!("kafka: {{sasl.password: {password}}}\n")),
        ("a password without space", 64, format!("kafka: {{\"sasl.password\":\"{password}\"}}\n")),
        ("a password on the next line", 64, format!("kafka:\n  sasl.password:\n    {password}\n  x: 1\n")),
        ("a password over some lines", 64, format!("kafka:\n  sasl.password: >-\n    {password}\n  x: 1\n")),
        (
            "a password beside what is wrong",
            64,
            format!("kafka:\n  properties:\n    sasl.password: {password}\n  typo: 1\n"),
        ),
        (
            "a URL in the place of its file",
            64,
            format!("targets: [{{name: a, postgres: \"postgres://u:{password}@h/d\"}}]\n"),
        ),
        (
            "a URL as a field",
            64,
            format!("targets:\n  - name: a\n    postgres:\n      url: postgres://u:{password}@h/d\n"),
        ),
        (
            "a token in the place of its file",
            64,
            format!("realms:\n  - name: a\n    vault:\n      token: {bad_token}\n      address: \"{vault}\"\n"),
        ),
        ("a secret_id in the file", 64, realm(&format!("address: \"{vault}\", approle: {{secret_id: {spent}}}"))),
        ("a list of secrets", 64, format!("kafka:\n  properties:\n    sasl.password: [{password}]\n")),
        ("a number wanted", 64, format!("limits:\n  concurrency: {password}\n")),
        ("a token as a key", 64, format!("kafka:\n  {bad_token}: 1\n")),
        ("a token as a key at the top", 64, format!("{bad_token}: {{}}\n")),
        ("a token as a key in quotes", 64, format!("kafka: {{\"{bad_token}\": {password}}}\n")),
        ("a token twice as a key", 64, format!("kafka:\n  properties:\n    {bad_token}: a\n    {bad_token}: b\n")),
        ("a token as a mode", 64, format!("realms:\n  - {{name: a, mode: {bad_token}, vault: {{address: x}}}}\n")),
        ("a token as a kind", 64, format!("topics:\n  t: {{kinds: [{bad_token}], strongest: {password}}}\n")),
        ("a token as an event type", 64, format!("topics:\n  t: {{events: [{bad_token}], kinds: [{password}]}}\n")),
        (
            "a token as a topic",
            64,
            format!("topics:\n  {bad_token}: {{kinds: [vault-lease]}}\nhttp: {{topic: {password}}}\n"),
        ),
        ("a token as a level", 64, format!("log:\n  level: \"curfew={bad_token}\"\n")),
        ("a token that is protected", 64, format!("protected: [{bad_token}, \"urn:curfew:cred:{password}\"]\n")),
        ("a token as an alias", 64, format!("kafka: *{bad_token}\n")),
        ("a token as a tag", 64, format!("kafka: !{bad_token} {{}}\n")),
        ("not YAML", 64, format!("kafka: {{properties: {{sasl.password: \"{password}\n")),
        ("twice", 64, format!("kafka:\n  properties:\n    sasl.password: {password}\n    sasl.password: {password}\n")),
    ];
    for (n, (what, code, text)) in configs.iter().enumerate() {
        let home = dir.path().join(format!("{n} {what}"));
        fs::create_dir(&home).unwrap();
        for (name, text) in [
            ("bad.token", bad_token.as_str()),
            ("child.token", &child),
            ("odd.token", &format!("{bad_token}\u{7f}\n{password}\u{e9}")),
            ("role", role["data"]["role_id"].as_str().unwrap()),
            ("spent", &spent),
            ("pg.url", &format!("postgres://user:{password}@[127.0.0.1:notaport/{password}")),
        ] {
            private(home.join(name), text);
        }
        let text = format!("metrics: {{listen: \"127.0.0.1:{}\"}}\n{text}", port());
        let text =
            if text.contains("kafka:") { text } else { format!("http: {{listen: \"127.0.0.1:{}\"}}\n{text}", port()) };
        fs::write(home.join("curfew.yaml"), text).unwrap();
        let got = written.command(&home, &["run"]).0;
        assert!(if *code < 0 { got != Some(0) } else { got == Some(*code) }, "{what}: {got:?}");
        for args in [&["check"][..], &["check", "--json"], &["cases"]] {
            let got = written.command(&home, args).0;
            assert!(*code != 64 || got == Some(64), "{what}, {args:?}: {got:?}");
        }
    }

    // From the environment.
    let home = dir.path().join("environment");
    fs::create_dir(&home).unwrap();
    let bad_url = format!("http://curfew:{password}@127.0.0.1:1");
    for (address, token) in [(vault, &bad_token), (&bad_url, &bad_token)] {
        let env = [("VAULT_ADDR", address.as_str()), ("VAULT_TOKEN", token)];
        assert_ne!(written.command_with(&home, &env, &["run", "--log-json"]).0, Some(0));
    }

    // A broker that lets nobody in.
    let home = dir.path().join("sasl");
    fs::create_dir(&home).unwrap();
    let text = format!(
        "metrics: {{listen: \"127.0.0.1:{}\"}}\nkafka:\n  brokers: \"{}\"\n  properties: {{debug: all, \
         security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: curfew, sasl.password: {password}}}\n",
        port(),
        env("CURFEW_TEST_KAFKA"),
    );
    fs::write(home.join("curfew.yaml"), text).unwrap();
    let mut command = curfew(&home);
    command.args(["run", "--log-json"]);
    let mut running = Running::start(command, home.join("log"));
    running.says("the start waits until").await;
    running.end();
    written.put("log of a refused member", running.log().as_bytes());
    written.assert_clean(&scanner);
    assert_eq!(
        scanner.secrets.len(),
        scanner.names(secrets.values().cloned().collect::<Vec<_>>().join("\n").as_bytes()).len()
    );
}
