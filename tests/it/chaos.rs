//! Four processes in two realms on their own Kafka, Vault and PostgreSQL. Tasks run and end while everything breaks that
//! can: kill -9, SIGSTOP past the lease, restarts of each part, a sealed Vault, answers that are lost. In the end the
//! history is held against each promise of the design, P1 to P8.
//!
//! `make chaos` runs it for ten minutes; without `CURFEW_CHAOS_SECONDS` each fault happens once. docs/chaos.md tells more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::check::check;
use self::dice::Dice;
use self::faults::Faults;
use self::history::{History, Sent, What};
use self::load::{Ledger, Load};
use self::process::Curfew;
use self::proxy::Proxies;
use self::report::Report;
use self::servers::Servers;

mod broken;
mod check;
mod collect;
mod dice;
mod faults;
mod history;
mod load;
mod process;
mod proxy;
mod report;
mod rotating;
mod servers;
mod stood;

/// Effects per minute: seldom reached, so that the cap shows and the run ends.
const CAP: u32 = 120;
/// A task begins so often, on average.
const EVERY: Duration = Duration::from_millis(700);
/// Reconcile leaves alone what is younger than a minute: a shorter run cannot wait for it.
const RECONCILED: Duration = Duration::from_secs(90);
/// How long after the last fault all cases must have closed. The cap alone may hold them for minutes.
const SETTLE: Duration = Duration::from_secs(180);

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn say(began: Instant, what: &str) {
    println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Below /tmp: PostgreSQL's user must be able to enter it.
fn folder() -> PathBuf {
    let folder = PathBuf::from(format!("/tmp/{}", crate::world::unique("curfew-chaos")));
    std::fs::create_dir(&folder).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_no_promise_does() {
    let length = number("CURFEW_CHAOS_SECONDS").map(Duration::from_secs);
    let seed = number("CURFEW_CHAOS_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 32);
    let folder = folder();
    println!("chaos: CURFEW_CHAOS_SEED={seed}, in {}", folder.display());
    let history = Box::pin(run(&folder, seed, length)).await;
    let report = check(&history);
    keep(&folder, &history, &report);
    println!("\n{report}\nthe history is in {}", folder.join("history").display());
    assert_eq!(report.broken(), 0, "CURFEW_CHAOS_SEED={seed}, {}\n{report}", folder.display());
    if length.is_none() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// Writes the history; the servers' data has done its duty.
fn keep(folder: &Path, history: &History, report: &Report) {
    let kept = folder.join("history");
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join("report.txt"), format!("{report}\n")).unwrap();
    std::fs::write(kept.join("history.json"), serde_json::to_vec_pretty(history).unwrap()).unwrap();
    let published: Vec<u8> = history.published.iter().flat_map(|body| [body, b"\n".as_slice()].concat()).collect();
    std::fs::write(kept.join("published.jsonl"), published).unwrap();
}

async fn run(folder: &Path, seed: u64, length: Option<Duration>) -> History {
    let dice = Dice::new(seed);
    let servers = Arc::new(Servers::start(folder).await);
    servers.prepare().await;
    let keys = rotating::make_keys(&servers.keys()).await;
    load::create_topics(servers.brokers()).await;
    let proxies = Proxies::to(&servers.vault.address, dice.part(1));
    let fleet = process::fleet(&servers, &proxies, CAP).await;
    // The first one makes the journal's schema; then claims are noted before anything is claimed.
    for curfew in &fleet {
        curfew.start().await;
    }
    for curfew in &fleet {
        curfew.ready().await;
    }
    servers.note_claims().await;
    let keepers: Vec<_> =
        fleet.iter().cloned().map(|curfew| tokio::spawn(async move { curfew.keep().await })).collect();
    let began = Instant::now();
    let load = Load::new(servers.clone());
    load.bystanders().await;
    load.forge().await;
    if length.is_some_and(|length| length >= RECONCILED) {
        load.leak().await;
    }
    let pages = Arc::new(Mutex::new(Vec::new()));
    let watching = tokio::spawn(watch(began, servers.side.clone(), fleet.clone(), load.clone(), pages.clone()));

    let faults = Arc::new(Faults {
        began,
        servers: servers.clone(),
        fleet: fleet.clone(),
        proxies: proxies.clone(),
        load: load.clone(),
        freezes: Mutex::default(),
        database_stops_ms: Mutex::default(),
        count: Mutex::default(),
    });
    let stop = CancellationToken::new();
    let tasks = tokio::spawn(load.clone().run(dice.part(2), EVERY, stop.clone()));
    let rotations = (4..)
        .zip(&rotating::ROTAS)
        .map(|(part, rota)| tokio::spawn(load.clone().rotate(rota, dice.part(part), keys.clone(), stop.clone())));
    let rotations: Vec<_> = rotations.collect();
    faults.clone().run(dice.part(3), length).await;
    stop.cancel();
    tasks.await.unwrap();
    futures::future::join_all(rotations).await.into_iter().for_each(Result::unwrap);
    say(began, "-- faults are over; what is open must close");
    settled(&servers.side, &load).await;
    let proxied = proxies.done();
    say(
        began,
        &format!(
            "{} faults; requests to Vault: {} passed, {} done and their answers cut, {} answered 503",
            faults.count.lock().unwrap(),
            proxied.passed,
            proxied.cut,
            proxied.refused
        ),
    );
    load.look_at_all().await;
    let rotated = load.rotated().await;
    watching.abort();
    for curfew in &fleet {
        let page = curfew.page().await;
        pages.lock().unwrap().extend(page);
    }
    keepers.iter().for_each(tokio::task::JoinHandle::abort);
    futures::future::join_all(fleet.iter().map(|curfew| curfew.terminate())).await;

    let history = gather(&servers, &fleet, &faults, &load, rotated, &pages).await;
    drop((faults, load));
    Arc::into_inner(servers).expect("nobody uses the servers any more").end().await;
    history
}

/// Says how it goes, and reads the pages for Prometheus.
async fn watch(began: Instant, side: PgPool, fleet: Vec<Arc<Curfew>>, load: Arc<Load>, pages: Arc<Mutex<Vec<String>>>) {
    loop {
        sleep(Duration::from_secs(5)).await;
        let counts: Result<(i64, i64, i64), _> = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE closed_ms IS NOT NULL), \
             count(*) FILTER (WHERE closed_ms IS NULL AND hold IS NOT NULL) FROM cases",
        )
        .fetch_one(&side)
        .await;
        let tasks = load.ledger.lock().unwrap().tasks;
        match counts {
            Ok((all, closed, held)) => {
                say(began, &format!("{tasks} tasks over; cases: {closed} closed, {} open, {held} held", all - closed));
            }
            Err(_) => say(began, &format!("{tasks} tasks over; the journal's database is away")),
        }
        for curfew in &fleet {
            let page = curfew.page().await;
            pages.lock().unwrap().extend(page);
        }
    }
}

/// Until all that was sent is recorded, all tasks have ended, all cases are closed and told; or the time is over, which the
/// check will name.
async fn settled(side: &PgPool, load: &Load) {
    let (events, rejects, credentials, forged) = {
        let ledger = load.ledger.lock().unwrap();
        let number = |count: usize| i64::try_from(count).unwrap();
        let of = |what| number(ledger.sent.iter().filter(|sent| sent.what == what).count());
        let credentials = ledger.credentials.iter().filter(|known| known.registered).count();
        (of(history::What::Event), of(history::What::Poison), number(credentials), number(ledger.forged))
    };
    let until = Instant::now() + SETTLE;
    while Instant::now() < until {
        let done: Result<bool, _> = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM events WHERE topic IN ($1, $6)) >= $2 AND (SELECT sum(rejected) FROM writers) >= $3 \
             AND NOT EXISTS (SELECT 1 FROM tasks WHERE phase < 2) \
             AND (SELECT count(DISTINCT credential) FROM cases WHERE closed_ms IS NOT NULL \
                  AND credential NOT LIKE '%:postgres-role:%') >= $4 \
             AND (SELECT count(*) FROM cases WHERE closed_ms IS NULL) <= $5 \
             AND NOT EXISTS (SELECT 1 FROM findings WHERE phase = 0) \
             AND (SELECT seq = sent FROM outbox_tail)",
        )
        .bind(load::TASKS)
        .bind(events)
        .bind(rejects)
        .bind(credentials)
        .bind(forged)
        .bind(load::FINDINGS)
        .fetch_one(side)
        .await;
        if done.is_ok_and(|done| done) {
            return;
        }
        sleep(Duration::from_millis(300)).await;
    }
    println!("the time to settle is over");
}

async fn gather(
    servers: &Servers,
    fleet: &[Arc<Curfew>],
    faults: &Faults,
    load: &Load,
    rotated: Vec<history::Rotated>,
    pages: &Mutex<Vec<String>>,
) -> History {
    let (published, taken) = collect::published(servers.brokers()).await;
    let text = taken.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned() + "\n").collect();
    let mut left: Vec<String> =
        sqlx::query_scalar("SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname LIKE 'v-%'")
            .fetch_all(&servers.side)
            .await
            .unwrap();
    let (_, leases) = servers.vault.call("LIST", "sys/leases/lookup/database/creds/app", Value::Null).await;
    let keys = leases["data"]["keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
    left.extend(keys.map(|key| format!("database/creds/app/{key}")));
    let mut places =
        vec![("the journal".to_owned(), collect::rows(&servers.side).await), ("what was sent".into(), text)];
    for curfew in fleet {
        let log = std::fs::read(curfew.log()).unwrap();
        places.push((format!("the log of {}", curfew.name), String::from_utf8_lossy(&log).into_owned()));
    }
    places.push(("the metrics".into(), pages.lock().unwrap().concat()));
    let told: Vec<String> = published.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
    places.push(("what was published".into(), told.join("\n")));
    let mut secrets: Vec<String> = load.ledger.lock().unwrap().secrets().into_iter().collect();
    for curfew in fleet {
        secrets.extend(curfew.secrets());
    }
    let Ledger { mut sent, credentials, looks, forged, .. } = std::mem::take(&mut *load.ledger.lock().unwrap());
    // What the broker has though it did not say where, and was then sent again: the later one is the one we know.
    let placed: BTreeSet<(&str, i32, i64)> = sent.iter().map(|one| (one.topic, one.partition, one.offset)).collect();
    for more in taken.iter().filter(|record| !placed.contains(&(record.topic, record.partition, record.offset))) {
        let what = if more.body == load::POISON { What::Poison } else { What::Repeat };
        sent.push(Sent { topic: more.topic, id: String::new(), what, partition: more.partition, offset: more.offset });
    }
    let exits = fleet.iter().flat_map(|curfew| {
        let exits = curfew.exits.lock().unwrap().clone();
        exits.into_iter().map(|exit| (curfew.name.to_owned(), exit))
    });
    History {
        sent,
        credentials,
        looks,
        journal: collect::journal(&servers.side).await,
        published,
        asked: collect::audit(&servers.audit_log()),
        roles: collect::roles(Path::new(servers.env("CURFEW_TEST_PG_LOG"))),
        left,
        rotated,
        waiting: rotating::waiting(&servers.side).await.unwrap(),
        pauses: fleet.iter().flat_map(|curfew| curfew.pauses.lock().unwrap().clone()).collect(),
        exits: exits.collect(),
        freezes: faults.freezes.lock().unwrap().clone(),
        database_stops_ms: faults.database_stops_ms.lock().unwrap().clone(),
        forged,
        cap: i64::from(CAP),
        places,
        secrets,
    }
}
