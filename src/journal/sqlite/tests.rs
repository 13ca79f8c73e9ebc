use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::intake;
use super::schema;
use super::shown;
use super::writer::Writer;
use crate::case::CaseId;
use crate::event::{Coordinates, Delivery, Event, Format, Limits, decode};
use crate::journal::shown::{Page, Which};
use crate::journal::{Arrival, Batch};
use crate::policy::Rules;

const NOW_MS: i64 = 1_800_000_000_000;

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.push(path);
        }
    }
}

/// Each example that comes in, by the name of its file.
fn examples() -> Vec<(String, Event)> {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/events/examples"), &mut all);
    all.sort();
    let read = |path: &PathBuf| {
        let delivery = Delivery {
            at: Coordinates { cluster: "k".into(), topic: "curfew.tasks".into(), partition: 0, offset: 0 },
            tenant: "default".into(),
            format: Format::Curfew,
            broker_ms: NOW_MS,
            headers: vec![("content-type".to_owned(), Some("application/cloudevents+json".into()))],
            payload: Some(std::fs::read(path).unwrap().into()),
        };
        Some((path.display().to_string(), decode(&delivery, &Limits::default()).ok()?))
    };
    all.iter().filter_map(read).collect()
}

/// A journal that knows so many tasks, each with a credential, and a finding that waits.
fn journal(folder: &Path, count: i64) -> Writer {
    let db = schema::open(&folder.join(format!("{count}.db"))).unwrap();
    let numbers = format!(
        "FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n)"
    );
    db.execute_batch(&format!(
        "INSERT INTO tasks (tenant, run, source, within, attempt, phase, first_seen_ms, deadline_ms, alive_ms, due_ms) \
         SELECT 'default', '/s:' || i, '/s', '/s:' || (i / 4), 1, i % 3, {NOW_MS}, {NOW_MS} + i, {NOW_MS}, {NOW_MS} + i {numbers}; \
         INSERT INTO credentials (tenant, id, registered_ms, version) \
         SELECT 'default', 'urn:curfew:cred:vault-lease:prod:database/creds/app/' || i, {NOW_MS}, 1 {numbers}; \
         INSERT INTO grants (tenant, run, credential, attempt, tenure, phase, registered_ms, topics) \
         SELECT 'default', '/s:' || i, 'urn:curfew:cred:vault-lease:prod:database/creds/app/' || i, 1, 0, i % 2, {NOW_MS}, \
         '[]' {numbers}; \
         INSERT INTO marks SELECT randomblob(16), 'urn:curfew:cred:vault-lease:prod:database/creds/app/' || i, 1 {numbers}; \
         INSERT INTO findings (name, tenant, key, phase, first_ms, last_ms, body) \
         SELECT randomblob(16), 'default', 'f' || i, i % 4, {NOW_MS}, {NOW_MS}, '{{}}' {numbers}; \
         INSERT INTO waiting SELECT name, id FROM findings; \
         INSERT INTO cases (tenant, id, credential, system, urgency, due_ms, state, opened_ms, closed_ms, seq, body) \
         SELECT 'default', randomblob(16), 'urn:curfew:cred:vault-lease:prod:database/creds/app/' || i, 'prod', 1, {NOW_MS}, \
         'planned', {NOW_MS}, iif(i % 2, {NOW_MS}, NULL), 1, '{{}}' {numbers};"
    ))
    .unwrap();
    Writer::begin(db).unwrap()
}

/// What is looked up is looked up by a key: not one statement of the intake looks through what is known. Counted in steps
/// of SQLite's machine, which the depth of a tree does not change.
#[test]
fn an_event_costs_the_same_whatever_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let steps = Arc::new(AtomicUsize::new(0));
    let mut cost = [20, 5_000].map(|count| {
        let mut writer = journal(folder.path(), count);
        let counted = steps.clone();
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        writer.db.progress_handler(1, Some(count)).unwrap();
        let all = examples().into_iter().map(|(name, event)| {
            let batch = Batch {
                arrivals: vec![Arrival::Event(Box::new(event))],
                moves: Vec::new(),
                rules: Arc::new(Rules::default()),
                now_ms: NOW_MS,
            };
            steps.store(0, Ordering::Relaxed);
            intake::record(&mut writer, &batch).unwrap();
            (name, steps.load(Ordering::Relaxed))
        });
        all.collect::<Vec<_>>()
    });
    let (many, few) = (std::mem::take(&mut cost[1]), std::mem::take(&mut cost[0]));
    assert!(few.len() > 20, "too few examples come in: {}", few.len());
    for ((name, few), (_, many)) in few.into_iter().zip(many) {
        assert!(few > 0 && many <= few + 50, "{name}: {few} steps beside 20 known, {many} beside 5 000");
    }
}

/// What people watch is read by keys: a million closed cases cost a page nothing.
#[test]
fn a_page_costs_the_same_whatever_has_closed() {
    let folder = tempfile::tempdir().unwrap();
    let steps = Arc::new(AtomicUsize::new(0));
    let cost = [20, 5_000].map(|count| {
        let db = schema::open(&folder.path().join(format!("{count}.db"))).unwrap();
        let mut writer = Writer::begin(db).unwrap();
        let events = examples().into_iter().filter(|(name, _)| name.contains("/task."));
        let arrivals = events.map(|(_, event)| Arrival::Event(Box::new(event))).collect();
        let batch = Batch { arrivals, moves: Vec::new(), rules: Arc::new(Rules::default()), now_ms: NOW_MS };
        intake::record(&mut writer, &batch).unwrap();
        let db = &writer.db;
        let id: [u8; 16] = db.query_row("SELECT id FROM cases LIMIT 1", [], |row| row.get(0)).unwrap();
        db.execute_batch(&format!(
            "INSERT INTO cases (tenant, id, credential, system, urgency, due_ms, state, opened_ms, closed_ms, seq, body) \
             SELECT tenant, randomblob(16), credential, system, urgency, due_ms, 'closed', opened_ms, {NOW_MS} + i, seq, body \
             FROM (SELECT * FROM cases LIMIT 1), (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
             WHERE i < {count}) SELECT i FROM n)"
        ))
        .unwrap();
        let counted = steps.clone();
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        db.progress_handler(1, Some(count)).unwrap();
        let cost = |what: &'static str, read: &dyn Fn()| {
            steps.store(0, Ordering::Relaxed);
            read();
            (what, steps.load(Ordering::Relaxed))
        };
        let page = Page { only: None, after: None, max: 10 };
        [
            cost("watched", &|| assert!(!shown::watched(db, &page).unwrap().is_empty())),
            cost("last_closed", &|| assert_eq!(shown::last_closed(db, 10).unwrap().len(), 10)),
            cost("deaths", &|| assert_eq!(shown::deaths(db, 0, 10).unwrap().looked, 10)),
            cost("excerpt", &|| assert!(shown::excerpt(db, CaseId::from_bytes(id), 10).unwrap().is_some())),
            cost("holders", &|| assert!(!shown::holders(db, &Which::Next(5), 5).unwrap().is_empty())),
            cost("stats", &|| assert!(!super::read::stats(db, NOW_MS).unwrap().cases.is_empty())),
        ]
    });
    let (few, many) = (cost[0], cost[1]);
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        assert!(few > 0 && many <= few + 50, "{what}: {few} steps beside 20 closed, {many} beside 5 000");
    }
}
