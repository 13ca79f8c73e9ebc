//! What only a file promises: one process, room that ends, claims that a restart voids.

use curfew::journal::sqlite::{Settings, Sqlite};

use super::*;

#[tokio::test]
async fn a_case_takes_six_row_writes_and_its_end_closes_its_events() {
    let store = Store::sqlite();
    let journal = store.open_file();
    let n = 100;
    for i in 0..n {
        put(&journal, vec![started(&format!("s{i}"), i, &[i]), ended(&format!("e{i}"), i)]).await;
    }
    let claims = journal
        .claim(Want {
            max: 100,
            max_per_system: 100,
            now_ms: T0 + 20,
            steady_ms: T0 + 20,
            lease_ms: 60_000,
            only: None,
        })
        .await
        .unwrap();
    assert_eq!(claims.len(), n as usize);
    // Two appends' records, the case, its event, its credential and the outcome: six. Besides, once for each commit
    // however many cases share it: the minute's charges, and two counters.
    let before = journal.row_writes().await.unwrap();
    finish(&journal, &claims[0]).await.unwrap();
    assert_eq!(journal.row_writes().await.unwrap() - before, 6 + 1 + 2);
    let before = journal.row_writes().await.unwrap();
    let rest = &claims[1..];
    let firsts = rest.iter().map(|c| {
        let mut first = append(c, &c.case, begun(&c.case), true);
        (first.charge, first.learned) = (Some(1000), Some(look()));
        journal.append(first)
    });
    let cases: Vec<Case> = futures::future::try_join_all(firsts).await.unwrap();
    let lasts = rest.iter().zip(&cases).map(|(c, case)| {
        let mut last = append(c, case, done(), false);
        last.messages = vec![outcome::closed(case, &dead(), T0 + 30)];
        journal.append(last)
    });
    futures::future::try_join_all(lasts).await.unwrap();
    let writes = journal.row_writes().await.unwrap() - before;
    assert!((6 * 99..7 * 99).contains(&writes), "{writes} row writes for 99 cases that share commits");
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!((stats.accepted, stats.closed), (200, 200));
    let known = journal.known(&"t".into(), vec![cred(0)]).await.unwrap();
    let one = &known[0].credential;
    assert_eq!((one.dead_ms, one.issued_ms, one.seen_ms), (Some(T0 + 29), Some(T0), Some(T0 + 25)));
    assert_eq!((known[0].live, known[0].open, known[0].over_ms), (false, false, Some(T0)));
    recount(&store).await;
}

#[tokio::test]
async fn a_restart_voids_claims() {
    let store = Store::sqlite();
    let journal = store.open_file();
    put(&journal, vec![operator("1", 0)]).await;
    let old = claim(&journal, 1).await.remove(0);
    let case = journal.append(append(&old, &old.case, begun(&old.case), true)).await.unwrap();
    drop(journal);
    let journal = store.open_file();
    let error = journal.append(append(&old, &case, done(), false)).await.unwrap_err();
    assert!(matches!(error, Error::ClaimVoid), "{error:?}");
    let again = claim(&journal, 1).await.remove(0);
    journal.append(append(&again, &again.case, done(), false)).await.unwrap();
}

#[tokio::test]
async fn what_was_closed_in_good_order_is_whole_without_its_log() {
    let store = Store::sqlite();
    let journal = store.open_file();
    put(&journal, (0..50).map(|n| operator(&n.to_string(), n)).collect()).await;
    finish(&journal, &claim(&journal, 1).await[0]).await.unwrap();
    // The readers have read, and stay open for as long as the value lives.
    assert_eq!(journal.stats(T0).await.unwrap().accepted, 50);
    journal.sources().await.unwrap();
    let log = store.file().with_extension("db-wal");
    assert!(std::fs::metadata(&log).unwrap().len() > 0, "else this shows nothing");
    drop(journal);
    assert_eq!(std::fs::metadata(&log).map_or(0, |log| log.len()), 0);
    let copy = Store::sqlite();
    std::fs::copy(store.file(), copy.file()).unwrap();
    assert_eq!(copy.open().await.stats(T0).await.unwrap().accepted, 50);
    recount(&copy).await;
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let store = Store::sqlite();
    let journal = store.open_file();
    let error = Sqlite::open(&store.file(), Settings::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("pid {}", std::process::id())) && text.contains("journal.db"), "{text}");
    drop(journal);
    drop(store.open_file());
    store.connect().pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open(&store.file(), Settings::default()).unwrap_err();
    assert!(format!("{error:?}").contains("newer curfew"), "{error:?}");
}

#[tokio::test]
async fn a_full_disk_is_not_ready_and_leaves_nothing_half_written() {
    let store = Store::sqlite();
    let journal = store.open_file();
    put(&journal, vec![operator("0", 0)]).await;
    let claimed = claim(&journal, 1).await.remove(0);
    let tail = journal.tail().await.unwrap();
    journal.set_max_pages(1).await.unwrap();
    let many = |from: u32| {
        let events = (from..from + 200).map(|n| Arrival::Event(Box::new(started(&format!("f{n}"), n, &[n]))));
        batch(events.chain([reject()]).collect(), vec![])
    };
    let error = journal.record_batch(many(0)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(!journal.healthy());
    assert_eq!(journal.tail().await.unwrap(), tail);
    journal.set_max_pages(1_000_000).await.unwrap();
    assert!(!journal.healthy(), "only a write shows that it can be written");
    journal.record_batch(many(0)).await.unwrap();
    assert!(journal.healthy());
    finish(&journal, &claimed).await.unwrap();
    recount(&store).await;
}

/// More than one page holds.
fn too_much() -> Batch {
    let many = (0..200).map(|n| Arrival::Event(Box::new(started(&format!("f{n}"), n, &[n])))).collect();
    batch(many, vec![])
}

#[tokio::test]
async fn readiness_returns_by_itself_and_a_claim_does_not_fake_it() {
    let store = Store::sqlite();
    let journal = store.open_file();
    put(&journal, vec![operator("0", 0)]).await;
    journal.set_max_pages(1).await.unwrap();
    journal.record_batch(too_much()).await.unwrap_err();
    assert_eq!(claim(&journal, 1).await.len(), 1);
    assert!(!journal.healthy());
    journal.set_max_pages(1_000_000).await.unwrap();
    crate::world::until("readiness", async || journal.healthy().then_some(())).await;
}

#[tokio::test]
async fn others_in_a_broken_group_are_told_and_their_claims_are_void() {
    let store = Store::sqlite();
    let journal = store.open_file();
    put(&journal, vec![operator("0", 0)]).await;
    let mine = claim(&journal, 1).await.remove(0);
    journal.set_max_pages(1).await.unwrap();
    // Queued together: whoever share a transaction share its fate, and no answer is Ok that is not durable.
    let (first, second) = tokio::join!(
        journal.append(append(&mine, &mine.case, begun(&mine.case), true)),
        journal.record_batch(too_much()),
    );
    assert!(matches!(second, Err(Error::Unavailable(_))));
    journal.set_max_pages(1_000_000).await.unwrap();
    let records = journal.timeline(mine.case.id).await.unwrap().unwrap().records.len();
    match first {
        Ok(case) => {
            assert_eq!(records, 2);
            journal.append(append(&mine, &case, done(), false)).await.unwrap();
        }
        Err(Error::Unavailable(_)) => {
            assert_eq!(records, 1);
            let void = journal.append(append(&mine, &mine.case, begun(&mine.case), true)).await;
            assert!(matches!(void, Err(Error::ClaimVoid)));
            finish(&journal, &claim(&journal, 1).await[0]).await.unwrap();
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "prints figures; make bench compares them with a baseline"]
async fn speed() {
    let store = Store::sqlite();
    let journal = store.open_file();
    let begun_at = std::time::Instant::now();
    for round in 0..20u32 {
        put(
            &journal,
            (0..1000).map(|i| started(&format!("{round}-{i}"), round * 1000 + i, &[round * 1000 + i])).collect(),
        )
        .await;
    }
    println!("starts: {:?} for 20000", begun_at.elapsed());
    let begun_at = std::time::Instant::now();
    for round in 0..20u32 {
        put(&journal, (0..1000).map(|i| ended(&format!("e{round}-{i}"), round * 1000 + i)).collect()).await;
    }
    println!("ends: {:?} for 20000", begun_at.elapsed());
    let begun_at = std::time::Instant::now();
    drop(journal);
    let journal = store.open_file();
    println!("reopen: {:?}", begun_at.elapsed());
    let begun_at = std::time::Instant::now();
    let claims = claim(&journal, 64).await;
    println!("claim of {}: {:?}", claims.len(), begun_at.elapsed());
    let begun_at = std::time::Instant::now();
    let stats = journal.stats(T0).await.unwrap();
    println!("stats: {:?} {stats:?}", begun_at.elapsed());
    let begun_at = std::time::Instant::now();
    let mut closed = 0;
    let mut claims = claims;
    while closed < 2000 {
        futures::future::try_join_all(claims.iter().map(|c| finish(&journal, c))).await.unwrap();
        closed += claims.len();
        claims = claim(&journal, 64).await;
    }
    println!("{closed} cases closed: {:?}", begun_at.elapsed());
}

/// What an earlier version wrote goes on: a finding that waits is matched by what the inventory learns after.
#[tokio::test]
async fn findings_of_an_older_file_are_found_by_their_names_again() {
    use curfew::event::{CredentialRegistered, PartFingerprint};
    use curfew::fingerprint::Fingerprint;
    let part = PartFingerprint { fingerprint: Fingerprint::of_parts("k1", &"ab".repeat(32)).unwrap(), part: None };
    let mut waits = finding("w", 9);
    let Data::FindingObserved(data) = &mut waits.data else { unreachable!() };
    data.credential = None;
    data.fingerprints = vec![part.clone()];
    let newer = Store::sqlite();
    put(&newer.open_file(), vec![waits.clone()]).await;
    let columns = "tenant, key, phase, first_ms, last_ms, body";
    let row = newer.connect().query_row(&format!("SELECT {columns} FROM findings"), [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(5)?))
    });
    let (tenant, key, phase, body) = row.unwrap();

    let older = Store::sqlite();
    older.older(2, "").await;
    let db = older.connect();
    let values = format!("INSERT INTO findings ({columns}) VALUES (?, ?, ?, 1, 2, ?)");
    db.execute(&values, rusqlite::params![tenant, key, phase, body]).unwrap();
    let named = "INSERT INTO waiting (tenant, fingerprint, key) VALUES (?, ?, ?)";
    db.execute(named, rusqlite::params![tenant, part.fingerprint.to_string(), key]).unwrap();
    drop(db);
    let journal = older.open_file();
    assert_eq!(journal.findings(true, 9).await.unwrap()[0].key, "w");
    let registered = CredentialRegistered {
        credential: cred(9),
        fingerprints: vec![part],
        version: Some(1),
        current: true,
        issued_ms: None,
        owner: None,
        environment: None,
    };
    put(&journal, vec![event("c", Type::CredentialRegistered, Data::CredentialRegistered(registered))]).await;
    assert!(journal.findings(true, 9).await.unwrap().is_empty(), "it is matched");
    let count = |table: &str| -> i64 {
        older.connect().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("findings"), count("waiting")), (1, 0));
    // And the same finding, seen again, is the same row.
    waits.id = "again".into();
    waits.digest = [9; 16];
    put(&journal, vec![waits]).await;
    assert_eq!((count("findings"), count("waiting")), (1, 0));
}
