//! What must hold for each operation.

use super::*;

#[tokio::test]
async fn a_moved_position_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let first = batch(vec![Arrival::Event(Box::new(started("1", 0, &[0])))], vec![step_to(None, 5)]);
    journal.record_batch(first).await.unwrap();
    let zombie = batch(vec![Arrival::Event(Box::new(ended("2", 0))), reject()], vec![step_to(Some(4), 9)]);
    let error = journal.record_batch(zombie).await.unwrap_err();
    assert!(matches!(error, Error::PositionMoved { partition: 0, .. }), "{error:?}");
    assert_eq!(journal.position("k", "curfew.tasks", 0).await.unwrap().unwrap().next_offset, 5);
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!((stats.consumed, stats.accepted, stats.outbox), (1, 1, 0));
    assert!(journal.healthy());
    drop(journal);
    recount(&dir.path().join("journal.db"));
}

#[tokio::test]
async fn duplicates_do_nothing_and_conflicts_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let got = put(&journal, vec![started("1", 0, &[0]), started("1", 0, &[0]), started("1", 0, &[1])]).await;
    assert_eq!(got.fates, [Fate::Accepted, Fate::Duplicate, Fate::Rejected(RejectReason::Conflict)]);
    let outbox = journal.outbox(0, 10).await.unwrap();
    assert_eq!(outbox.len(), 1);
    assert_eq!(outbox[0].kind, outcome::Kind::Rejected);
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!((stats.consumed, stats.accepted, stats.duplicates, stats.rejected), (3, 1, 1, 1));
}

#[tokio::test]
async fn a_case_takes_six_row_writes_and_its_end_closes_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let n = 100;
    for i in 0..n {
        put(&journal, vec![started(&format!("s{i}"), i, &[i]), ended(&format!("e{i}"), i)]).await;
    }
    let claims = journal
        .claim(Want { max: 100, max_per_system: 100, now_ms: T0 + 20, lease_ms: 60_000, only: None })
        .await
        .unwrap();
    assert_eq!(claims.len(), n as usize);
    // Two appends' records, the case, its event, its credential and the outcome: six. Besides, once for each commit
    // however many cases share it: the minute's charges, and two counters.
    let before = journal.row_writes().await.unwrap();
    finish(&journal, &claims[0]).await;
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
    drop(journal);
    recount(&dir.path().join("journal.db"));
}

#[tokio::test]
async fn a_restart_voids_claims_and_loses_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![started("1", 0, &[0]), ended("2", 0)]).await;
    let old = claim(&journal, 1).await.remove(0);
    let case = journal.append(append(&old, &old.case, begun(&old.case), true)).await.unwrap();
    assert_eq!(
        journal.cases(Filter::default()).await.unwrap()[0].case.state,
        case.state,
        "people see the newest record"
    );
    drop(journal);
    let journal = open(dir.path());
    let error = journal.append(append(&old, &case, done(), false)).await.unwrap_err();
    assert!(matches!(error, Error::ClaimVoid), "{error:?}");
    let new = claim(&journal, 1).await.remove(0);
    assert_eq!(new.case.state, case.state);
    assert!(new.case.state.in_doubt && new.case.charged && new.epoch > old.epoch);
    assert_eq!(new.case.seen_ms, Some(T0 + 25));
    assert!(matches!(journal.append(append(&old, &case, done(), false)).await, Err(Error::ClaimVoid)));
    journal.append(append(&new, &new.case, done(), false)).await.unwrap();
    let timeline = journal.timeline(case.id).await.unwrap().unwrap();
    assert_eq!((timeline.records.len(), timeline.events.len()), (3, 1));
    assert_eq!(journal.overrun(T0).await.unwrap()[0].overrun_ms, Some(29));
}

#[tokio::test]
async fn an_expired_claim_is_void_once_another_has_the_case() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![operator("1", 0)]).await;
    let old = claim(&journal, 1).await.remove(0);
    assert!(claim(&journal, 1).await.is_empty());
    let later = Want { max: 1, max_per_system: 1, now_ms: old.until_ms, lease_ms: 1, only: None };
    assert_eq!(journal.claim(later).await.unwrap().len(), 1);
    assert!(matches!(journal.append(append(&old, &old.case, begun(&old.case), true)).await, Err(Error::ClaimVoid)));
}

#[tokio::test]
async fn a_join_disturbs_nobody_and_a_stronger_event_voids_the_claim() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![operator("1", 0), started("s", 1, &[1])]).await;
    let held = put(&journal, vec![finding("2", 1)]).await;
    assert_eq!(held.stirred, 1);
    let claims = claim(&journal, 5).await;
    let (running, finding) = (
        &claims.iter().find(|c| c.case.directive.credential == cred(0)).unwrap(),
        &claims.iter().find(|c| c.case.directive.credential == cred(1)).unwrap(),
    );
    let case = journal.append(append(running, &running.case, begun(&running.case), true)).await.unwrap();
    // A join while the effect runs: the executor's next append still fits.
    assert_eq!(put(&journal, vec![operator("3", 0)]).await.stirred, 0);
    let case = journal.append(append(running, &case, done(), false)).await.unwrap();
    assert_eq!(case.seq, 3);
    // The end of the task takes the held finding over.
    assert_eq!(put(&journal, vec![ended("4", 1)]).await.stirred, 1);
    let give_back = journal.append(append(finding, &finding.case, planned(&finding.case), false)).await;
    assert!(matches!(give_back, Err(Error::ClaimVoid)), "{give_back:?}");
    let taken = claim(&journal, 5).await.remove(0);
    assert_eq!((taken.case.id, taken.case.state.todo()), (finding.case.id, Todo::Plan));
    finish(&journal, &taken).await;
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!(stats.accepted, stats.closed);
    // Its slot is free: the next event opens a new case, though it was proven dead.
    assert_eq!(put(&journal, vec![operator("5", 0)]).await.stirred, 1);
    assert_ne!(claim(&journal, 5).await[0].case.id, case.id);
}

#[tokio::test]
async fn claims_go_round_systems_and_respect_lanes_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, (0..12).map(|n| operator(&n.to_string(), if n < 9 { n * 2 } else { n })).collect()).await;
    let systems: Vec<String> = claim(&journal, 4).await.into_iter().map(|c| c.case.system).collect();
    assert_eq!(systems, ["a", "b", "a", "b"]);
    journal.block("a", T0 + 1000, "denied").await.unwrap();
    assert!(claim(&journal, 100).await.iter().all(|c| c.case.system == "b"));
    // Secret ids of one role share a lane.
    let secret = |n: &str| {
        let id = CredentialId::new(Kind::VaultSecretId, "c", &format!("approle/ci/{n}")).unwrap();
        let data = Data::OperatorRevoke { credential: id, by: "me".into(), reason: "x".into() };
        event(n, Type::OperatorRevoke, data)
    };
    put(&journal, vec![secret("x1"), secret("x2")]).await;
    let only = claim(&journal, 100).await;
    assert_eq!(only.len(), 1);
    finish(&journal, &only[0]).await;
    assert_eq!(claim(&journal, 100).await.len(), 1);
}

#[tokio::test]
async fn a_run_that_goes_on_under_another_key_takes_its_credentials_along() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![started("1", 0, &[0])]).await;
    let mut end = ended("2", 0);
    if let Data::TaskEnded(it) = &mut end.data {
        it.continued_as = Some(run(1));
    }
    // Each in a batch of its own: what decides is loaded from the file.
    assert_eq!(put(&journal, vec![end]).await.stirred, 0);
    let late = GrantRegistered { run: run(0), attempt: Some(1), grant: spec(2) };
    put(&journal, vec![event("3", Type::GrantRegistered, Data::GrantRegistered(late))]).await;
    assert_eq!(put(&journal, vec![started("4", 1, &[])]).await.stirred, 0);
    assert_eq!(put(&journal, vec![ended("5", 1)]).await.stirred, 2);
}

#[tokio::test]
async fn tenants_share_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let theirs = |mut event: Event| {
        event.tenant = "other".into();
        event
    };
    let got = put(&journal, vec![started("1", 0, &[0]), theirs(started("1", 0, &[0])), ended("2", 0)]).await;
    assert_eq!((got.fates, got.stirred), (vec![Fate::Accepted; 3], 1), "the other's task neither shares nor ends");
    assert_eq!(journal.due(i64::MAX, 3, None, 9).await.unwrap().len(), 1);
    assert_eq!(put(&journal, vec![theirs(ended("2", 0))]).await.stirred, 1);
    assert_eq!(journal.known(&"nobody".into(), vec![cred(0)]).await.unwrap(), vec![]);
    drop(journal);
    recount(&dir.path().join("journal.db"));
}

#[tokio::test]
async fn the_cap_holds_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![operator("1", 0), operator("2", 2), operator("3", 4)]).await;
    let claims = claim(&journal, 3).await;
    let charged = |c: &Claim| Append { charge: Some(2), ..append(c, &c.case, begun(&c.case), true) };
    journal.append(charged(&claims[0])).await.unwrap();
    assert!(journal.append(charged(&claims[1])).await.unwrap().charged);
    assert!(matches!(journal.append(charged(&claims[2])).await, Err(Error::CapReached)));
    assert_eq!(journal.timeline(claims[2].case.id).await.unwrap().unwrap().records.len(), 1);
    drop(journal);
    let journal = open(dir.path());
    let claims = claim(&journal, 3).await;
    let fresh = claims.iter().find(|c| !c.case.charged).unwrap();
    assert!(matches!(journal.append(charged(fresh)).await, Err(Error::CapReached)), "the cap survives a restart");
    let next = Append { now_ms: T0 + 60_030, ..charged(fresh) };
    journal.append(next).await.unwrap();
}

#[tokio::test]
async fn an_illegal_record_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![operator("1", 0)]).await;
    let claim = claim(&journal, 1).await.remove(0);
    let mut records = planned(&claim.case);
    records.extend(done());
    let error = journal.append(append(&claim, &claim.case, records, false)).await.unwrap_err();
    assert!(matches!(error, Error::Illegal(_)), "{error:?}");
    finish(&journal, &claim).await;
}

#[tokio::test]
async fn freeze_and_held_start_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.freeze(Freeze::Hard, "me", "fire").await.unwrap();
    journal.hold_start("older than published").await.unwrap();
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.frozen().await.unwrap(), Some(Freeze::Hard));
    assert_eq!(journal.started_held().await.unwrap().as_deref(), Some("older than published"));
    journal.release("me").await.unwrap();
    assert_eq!((journal.frozen().await.unwrap(), journal.started_held().await.unwrap()), (None, None));
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let error = Sqlite::open(&dir.path().join("journal.db"), Settings::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("pid {}", std::process::id())) && text.contains("journal.db"), "{text}");
    drop(journal);
    drop(open(dir.path()));
    Connection::open(dir.path().join("journal.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open(&dir.path().join("journal.db"), Settings::default()).unwrap_err();
    assert!(format!("{error:?}").contains("newer curfew"), "{error:?}");
}

#[tokio::test]
async fn a_full_disk_is_not_ready_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
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
    finish(&journal, &claimed).await;
    drop(journal);
    recount(&dir.path().join("journal.db"));
}

/// More than one page holds.
fn too_much() -> Batch {
    let many = (0..200).map(|n| Arrival::Event(Box::new(started(&format!("f{n}"), n, &[n])))).collect();
    batch(many, vec![])
}

#[tokio::test]
async fn readiness_returns_by_itself_and_a_claim_does_not_fake_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
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
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
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
            finish(&journal, &claim(&journal, 1).await[0]).await;
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_outbox_is_a_chain() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.record_batch(batch(vec![reject(), reject()], vec![])).await.unwrap();
    journal.sent(2).await.unwrap();
    assert!(journal.outbox(0, 9).await.unwrap().is_empty());
    drop(journal);
    let journal = open(dir.path());
    let db = Connection::open(dir.path().join("journal.db")).unwrap();
    let last: Vec<u8> = db.query_row("SELECT body FROM outbox", [], |row| row.get(0)).unwrap();
    journal.record_batch(batch(vec![reject(), reject()], vec![])).await.unwrap();
    let rows = journal.outbox(0, 9).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.seq).collect::<Vec<_>>(), [3, 4]);
    let mut before = last;
    for row in rows {
        let body: serde_json::Value = serde_json::from_slice(&row.body).unwrap();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &before);
        assert_eq!(body["prev"], hex::encode(hash));
        assert_eq!(body["journal"], journal.tail().await.unwrap().journal.to_string());
        before = row.body;
    }
    assert_eq!(journal.tail().await.unwrap().seq, 4);
    assert_eq!(journal.stats(T0).await.unwrap().outbox, 2);
}

#[tokio::test]
async fn the_watermark_is_the_slowest_partition() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    assert_eq!(journal.watermark().await.unwrap(), None);
    journal.caught_up("k", "curfew.tasks", 1, T0 + 100).await.unwrap();
    assert_eq!(journal.position("k", "curfew.tasks", 1).await.unwrap(), None);
    journal.record_batch(batch(vec![], vec![step_to(None, 1)])).await.unwrap();
    assert_eq!(journal.watermark().await.unwrap(), Some(T0));
    journal.caught_up("k", "curfew.tasks", 0, T0 + 50).await.unwrap();
    assert_eq!(journal.watermark().await.unwrap(), Some(T0 + 50));
}

#[tokio::test]
async fn what_is_due_comes_page_by_page_and_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, (0..20).map(|r| started(&r.to_string(), r, &[])).collect()).await;
    let (mut after, mut pages) = (None, vec![]);
    loop {
        let page = journal.due(i64::MAX, 1, after, 6).await.unwrap();
        assert!(page.len() <= 6);
        let Some(last) = page.last() else { break };
        after = Some(last.at.clone());
        pages.extend(page.into_iter().map(|due| due.at));
        assert!(pages.len() <= 20, "{pages:?}");
    }
    // All fall due at one time.
    assert_eq!((pages.len(), pages[0].due_ms), (20, pages[19].due_ms));
    assert!(pages.is_sorted_by(|a, b| a < b), "{pages:?}");
}

#[tokio::test]
async fn what_a_case_looks_at_by_itself_is_not_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![started("1", 0, &[0, 1]), finding("f", 0)]).await;
    let unseen = async || journal.unseen(9, T0 + 20).await.unwrap().len();
    let known = async || journal.known(&"t".into(), vec![cred(0)]).await.unwrap().remove(0);
    assert_eq!(unseen().await, 2, "a case that was opened held looks at nothing");
    assert!(known().await.open && known().await.live && !known().await.looks);
    put(&journal, vec![ended("2", 0)]).await;
    assert_eq!(unseen().await, 0);
    assert!(known().await.looks && !known().await.live);
}

#[tokio::test]
async fn due_tasks_lookups_and_pruning() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    put(&journal, vec![started("1", 0, &[0]), started("2", 1, &[1]), ended("3", 1)]).await;
    assert!(journal.due(T0 + 180_000, 3, None, 9).await.unwrap().is_empty());
    assert_eq!(journal.due(T0 + 180_001, 3, None, 9).await.unwrap().len(), 1);
    assert_eq!(journal.due(T0 + 60_001, 1, None, 9).await.unwrap().len(), 1, "the allowance changed");
    let sources = journal.sources().await.unwrap();
    assert_eq!((sources[0].live, sources[0].last_beat_ms), (1, T0));
    let unseen = journal.unseen(9, T0 + 20).await.unwrap();
    assert_eq!(unseen.iter().map(|c| &c.id).collect::<Vec<_>>(), [&cred(0)], "the other one's case looks by itself");
    journal.saw(&"t".into(), &cred(0), Observation::default(), Some(T0 + 99)).await.unwrap();
    journal.saw(&"t".into(), &cred(1), look(), None).await.unwrap();
    assert!(journal.unseen(9, T0 + 20).await.unwrap().is_empty());
    assert_eq!(journal.unseen(9, T0 + 99).await.unwrap()[0].id, cred(0));
    let claimed = claim(&journal, 1).await.remove(0);
    assert_eq!(claimed.case.seen_ms, Some(T0 + 25));
    assert_eq!(journal.prune(0, T0 + 1000, 100).await.unwrap(), 2, "the two starts; what an open case needs stays");
    finish(&journal, &claimed).await;
    let before = journal.stats(T0).await.unwrap();
    let mut pruned = 0;
    loop {
        let some = journal.prune(T0 + 1000, T0 + 1000, 2).await.unwrap();
        pruned += some;
        if some == 0 {
            break;
        }
    }
    assert!(pruned >= 6, "{pruned}");
    assert!(journal.cases(Filter { closed: true, ..Filter::default() }).await.unwrap().is_empty());
    let after = journal.stats(T0).await.unwrap();
    assert_eq!((before.consumed, before.accepted, before.closed), (after.consumed, after.accepted, after.closed));
}

#[tokio::test]
#[ignore = "prints figures; make bench compares them with a baseline"]
async fn speed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
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
    let journal = open(dir.path());
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
        futures::future::join_all(claims.iter().map(|c| finish(&journal, c))).await;
        closed += claims.len();
        claims = claim(&journal, 64).await;
    }
    println!("{closed} cases closed: {:?}", begun_at.elapsed());
}
