//! What must hold for each operation, in every store.

use std::collections::BTreeSet;

use curfew::journal::shown::Page;
use curfew::journal::{Old, Topics};

use super::*;

over_both! {
    old_findings_go_and_what_waits_or_an_inventory_knows_stays,
    a_moved_position_leaves_nothing,
    a_batch_that_says_nothing_moves_its_position,
    duplicates_do_nothing_and_conflicts_are_rejected,
    after_a_kill_another_process_goes_on_with_every_record,
    an_expired_claim_is_void_once_another_has_the_case,
    a_join_disturbs_nobody_and_a_stronger_event_voids_the_claim,
    claims_go_round_systems_and_respect_lanes_and_blocks,
    a_run_that_goes_on_under_another_key_takes_its_credentials_along,
    tenants_share_nothing,
    the_cap_holds_and_leaves_nothing,
    what_opens_more_comes_first_and_costs_more,
    an_illegal_record_leaves_nothing,
    freeze_and_held_start_survive_a_restart,
    the_outbox_is_a_chain,
    the_watermark_is_the_slowest_partition,
    a_case_is_found_by_the_beginning_of_its_id,
    what_is_due_comes_page_by_page_and_each_once,
    what_a_case_looks_at_by_itself_is_not_looked_up,
    due_tasks_lookups_and_pruning,
    what_led_to_no_case_goes_sooner_and_stays_counted,
    values_that_an_earlier_version_knew_are_matched,
}

/// By the schema before marks became short.
async fn values_that_an_earlier_version_knew_are_matched(store: Store) {
    let of = |digits: &str| curfew::fingerprint::Fingerprint::of_parts("k1", &digits.repeat(32)).unwrap();
    let sql: String = [("t", "ab", 1), ("t", "ab", 2), ("u", "cd", 1)]
        .map(|(tenant, digits, version)| {
            let (credential, fingerprint) = (cred(9), of(digits));
            format!("INSERT INTO marks VALUES ('{tenant}', '{fingerprint}', '{credential}', {version});")
        })
        .concat();
    store.older(if matches!(store, Store::Sqlite(_)) { 5 } else { 4 }, &sql).await;
    let journal = store.open().await;
    for digits in ["ab", "cd"] {
        let mut found = finding(digits, 9);
        let Data::FindingObserved(data) = &mut found.data else { unreachable!() };
        data.credential = None;
        data.fingerprints = vec![curfew::event::PartFingerprint { fingerprint: of(digits), part: None }];
        put(&journal, vec![found]).await;
    }
    let mut all = journal.findings(false, 9).await.unwrap();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    let seen: Vec<_> = all.iter().map(|one| (&*one.key, one.credentials.clone())).collect();
    assert_eq!(seen, [("ab", vec![cred(9)]), ("cd", vec![])], "a value of another tenant's is nothing to this one");
}

async fn a_moved_position_leaves_nothing(store: Store) {
    let journal = store.open().await;
    let first = batch(vec![Arrival::Event(Box::new(started("1", 0, &[0])))], vec![step_to(None, 5)]);
    journal.record_batch(first).await.unwrap();
    let zombie = batch(vec![Arrival::Event(Box::new(ended("2", 0))), reject()], vec![step_to(Some(4), 9)]);
    let error = journal.record_batch(zombie).await.unwrap_err();
    assert!(matches!(error, Error::PositionMoved { partition: 0, .. }), "{error:?}");
    assert_eq!(journal.position("k", "curfew.tasks", 0).await.unwrap().unwrap().next_offset, 5);
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!((stats.consumed, stats.accepted, stats.outbox), (1, 1, 0));
    assert!(journal.healthy());
    recount(&store).await;
}

/// Of a scheduler's topic, where most records may say nothing.
async fn a_batch_that_says_nothing_moves_its_position(store: Store) {
    let journal = store.open().await;
    let first = journal.record_batch(batch(Vec::new(), vec![step_to(None, 5)])).await.unwrap();
    assert_eq!((first.fates, first.stirred), (Vec::new(), 0));
    journal.record_batch(batch(Vec::new(), vec![step_to(Some(5), 9)])).await.unwrap();
    assert!(journal.record_batch(batch(Vec::new(), vec![step_to(Some(5), 7)])).await.is_err(), "a zombie's");
    assert_eq!(journal.position("k", "curfew.tasks", 0).await.unwrap().unwrap().next_offset, 9);
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!((stats.consumed, stats.accepted), (0, 0));
    recount(&store).await;
}

async fn duplicates_do_nothing_and_conflicts_are_rejected(store: Store) {
    let journal = store.open().await;
    let got = put(&journal, vec![started("1", 0, &[0]), started("1", 0, &[0]), started("1", 0, &[1])]).await;
    assert_eq!(got.fates, [Fate::Accepted, Fate::Duplicate, Fate::Rejected(RejectReason::Conflict)]);
    let outbox = journal.outbox(0, 10).await.unwrap();
    assert_eq!(outbox.len(), 1);
    assert_eq!(outbox[0].kind, outcome::Kind::Rejected);
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!((stats.consumed, stats.accepted, stats.duplicates, stats.rejected), (3, 1, 1, 1));
}

async fn after_a_kill_another_process_goes_on_with_every_record(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![started("1", 0, &[0]), ended("2", 0)]).await;
    let old = claim(&journal, 1).await.remove(0);
    let mut first = append(&old, &old.case, begun(&old.case), true);
    (first.charge, first.learned) = (Some(1), Some(look()));
    let case = journal.append(first).await.unwrap();
    assert_eq!(
        journal.cases(Filter::default()).await.unwrap()[0].case.state,
        case.state,
        "people see the newest record"
    );
    let journal = store.reopen(journal).await;
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

async fn an_expired_claim_is_void_once_another_has_the_case(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![operator("1", 0)]).await;
    let old = claim(&journal, 1).await.remove(0);
    assert!(claim(&journal, 1).await.is_empty());
    store.leases_end().await;
    let later =
        Want { max: 1, max_per_system: 1, now_ms: old.until_ms, steady_ms: old.until_ms, lease_ms: 1, only: None };
    assert_eq!(journal.claim(later).await.unwrap().len(), 1);
    assert!(matches!(journal.append(append(&old, &old.case, begun(&old.case), true)).await, Err(Error::ClaimVoid)));
}

async fn a_join_disturbs_nobody_and_a_stronger_event_voids_the_claim(store: Store) {
    let journal = store.open().await;
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
    finish(&journal, &taken).await.unwrap();
    let stats = journal.stats(T0).await.unwrap();
    assert_eq!(stats.accepted, stats.closed);
    // Its slot is free: the next event opens a new case, though it was proven dead.
    assert_eq!(put(&journal, vec![operator("5", 0)]).await.stirred, 1);
    assert_ne!(claim(&journal, 5).await[0].case.id, case.id);
}

async fn claims_go_round_systems_and_respect_lanes_and_blocks(store: Store) {
    let journal = store.open().await;
    put(&journal, (0..12).map(|n| operator(&n.to_string(), if n < 9 { n * 2 } else { n })).collect()).await;
    let systems: Vec<String> = claim(&journal, 4).await.into_iter().map(|c| c.case.system).collect();
    assert_eq!(systems, ["a", "b", "a", "b"]);
    journal.block("a", T0 + 1000, "denied").await.unwrap();
    for (at_ms, blocked) in [(T0, true), (T0 + 1000, false)] {
        let stats = journal.stats(at_ms).await.unwrap();
        assert_eq!(stats.blocked, [("a".to_owned(), "denied".to_owned(), blocked)]);
    }
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
    finish(&journal, &only[0]).await.unwrap();
    assert_eq!(claim(&journal, 100).await.len(), 1);
}

async fn a_run_that_goes_on_under_another_key_takes_its_credentials_along(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![started("1", 0, &[0])]).await;
    let mut end = ended("2", 0);
    if let Data::TaskEnded(it) = &mut end.data {
        it.continued_as = Some(run(1));
    }
    // Each in a batch of its own: what decides is loaded from the file.
    assert_eq!(put(&journal, vec![end]).await.stirred, 0);
    let late = GrantRegistered { run: run(0), attempt: Some(1), identity: None, grant: spec(2) };
    put(&journal, vec![event("3", Type::GrantRegistered, Data::GrantRegistered(late))]).await;
    assert_eq!(put(&journal, vec![started("4", 1, &[])]).await.stirred, 0);
    assert_eq!(put(&journal, vec![ended("5", 1)]).await.stirred, 2);
}

async fn tenants_share_nothing(store: Store) {
    let journal = store.open().await;
    let theirs = |mut event: Event| {
        event.tenant = "other".into();
        event
    };
    let got = put(&journal, vec![started("1", 0, &[0]), theirs(started("1", 0, &[0])), ended("2", 0)]).await;
    assert_eq!((got.fates, got.stirred), (vec![Fate::Accepted; 3], 1), "the other's task neither shares nor ends");
    assert_eq!(journal.due(i64::MAX, 3, None, 9).await.unwrap().len(), 1);
    assert_eq!(put(&journal, vec![theirs(ended("2", 0))]).await.stirred, 1);
    assert_eq!(journal.known(&"nobody".into(), vec![cred(0)]).await.unwrap(), vec![]);
    recount(&store).await;
}

async fn the_cap_holds_and_leaves_nothing(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![operator("1", 0), operator("2", 2), operator("3", 4)]).await;
    let claims = claim(&journal, 3).await;
    let charged = |c: &Claim| Append { charge: Some(2), ..append(c, &c.case, begun(&c.case), true) };
    journal.append(charged(&claims[0])).await.unwrap();
    assert!(journal.append(charged(&claims[1])).await.unwrap().charged);
    assert!(matches!(journal.append(charged(&claims[2])).await, Err(Error::CapReached)));
    assert_eq!(journal.timeline(claims[2].case.id).await.unwrap().unwrap().records.len(), 1);
    let journal = store.reopen(journal).await;
    let claims = claim(&journal, 3).await;
    let fresh = claims.iter().find(|c| !c.case.charged).unwrap();
    assert!(matches!(journal.append(charged(fresh)).await, Err(Error::CapReached)), "the cap survives a restart");
    let next = Append { now_ms: T0 + 60_030, ..charged(fresh) };
    journal.append(next).await.unwrap();
}

/// What a minute's cap lets pass of credentials that open much.
async fn what_opens_more_comes_first_and_costs_more(store: Store) {
    let journal = store.open().await;
    put(&journal, (0..4).map(|n| started(&format!("s{n}"), n, &[n])).collect()).await;
    let tenant = "t";
    let weigh = async |weights: &[(u32, u64)], only_more: bool| {
        let weights = weights.iter().map(|(n, blast)| (cred(*n), *blast)).collect();
        journal.reach().weigh(tenant, weights, only_more).await.unwrap()
    };
    assert_eq!(weigh(&[(1, 12), (2, 1_400), (3, 9), (9, 7)], false).await, 3, "nobody knows the last one");
    assert_eq!(weigh(&[(1, 11), (2, 1_400), (3, 10)], true).await, 1, "half the truth makes nothing smaller");
    assert_eq!(weigh(&[(1, 11), (3, 9)], false).await, 2);
    assert_eq!(journal.reach().weigh("another", vec![(cred(1), 5_000)], false).await.unwrap(), 0);
    // What a producer says later leaves it as it is.
    put(&journal, vec![started("s5", 1, &[1])]).await;
    put(&journal, (0..4).map(|n| ended(&format!("e{n}"), n)).collect()).await;
    put(&journal, vec![operator("o", 4)]).await;
    let blasts = |cases: &[Case]| cases.iter().map(|case| case.blast).collect::<Vec<_>>();
    let watched = journal.watched(Page { only: None, after: None, max: 9 }).await.unwrap();
    let shown: Vec<Case> = watched.into_iter().map(|one| one.line.case).collect();
    assert_eq!(blasts(&shown[..3]), [None, Some(1_400), Some(11)], "{shown:?}");
    assert_eq!(shown[0].directive.credential, cred(4), "the urgent one before all others");
    assert_eq!(shown.len(), 5);
    let claims = claim(&journal, 3).await;
    let claimed: BTreeSet<CredentialId> = claims.iter().map(|claim| claim.case.directive.credential.clone()).collect();
    assert_eq!(claimed, [cred(4), cred(2), cred(1)].into());
    let of = |n: u32| claims.iter().find(|claim| claim.case.directive.credential == cred(n)).unwrap();
    let charged = |c: &Claim, cap| Append { charge: Some(cap), ..append(c, &c.case, begun(&c.case), true) };
    // 8 of 10, then 1, then 2 are too much.
    journal.append(charged(of(2), 10)).await.unwrap();
    journal.append(charged(of(4), 10)).await.unwrap();
    assert!(matches!(journal.append(charged(of(1), 10)).await, Err(Error::CapReached)));
    journal.append(charged(of(1), 11)).await.unwrap();
    // The figure stays with the case, whatever is measured later.
    weigh(&[(2, 1)], false).await;
    assert_eq!(journal.timeline(of(2).case.id).await.unwrap().unwrap().line.case.blast, Some(1_400));
}

async fn an_illegal_record_leaves_nothing(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![operator("1", 0)]).await;
    let claim = claim(&journal, 1).await.remove(0);
    let mut records = planned(&claim.case);
    records.extend(done());
    let error = journal.append(append(&claim, &claim.case, records, false)).await.unwrap_err();
    assert!(matches!(error, Error::Illegal(_)), "{error:?}");
    finish(&journal, &claim).await.unwrap();
}

async fn freeze_and_held_start_survive_a_restart(store: Store) {
    let journal = store.open().await;
    journal.freeze(Freeze::Hard, "me", "fire").await.unwrap();
    journal.hold_start("older than published").await.unwrap();
    let journal = store.reopen(journal).await;
    assert_eq!(journal.frozen().await.unwrap(), Some(Freeze::Hard));
    assert_eq!(journal.started_held().await.unwrap().as_deref(), Some("older than published"));
    journal.release("me").await.unwrap();
    assert_eq!((journal.frozen().await.unwrap(), journal.started_held().await.unwrap()), (None, None));
}

async fn the_outbox_is_a_chain(store: Store) {
    let journal = store.open().await;
    journal.record_batch(batch(vec![reject(), reject()], vec![])).await.unwrap();
    let last = journal.outbox(0, 9).await.unwrap().pop().unwrap().body;
    journal.sent(2).await.unwrap();
    assert!(journal.outbox(0, 9).await.unwrap().is_empty());
    let journal = store.reopen(journal).await;
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

async fn a_case_is_found_by_the_beginning_of_its_id(store: Store) {
    let journal = store.open().await;
    put(&journal, (0..5).map(|n| operator(&n.to_string(), n)).collect()).await;
    let mut ids: Vec<_> = journal.cases(Filter::default()).await.unwrap().iter().map(|line| line.case.id).collect();
    ids.sort();
    let between = async |from: usize, to: usize, max| journal.cases_between(ids[from], ids[to], max).await.unwrap();
    assert_eq!((ids.len(), between(0, 4, 9).await), (5, ids.clone()));
    assert_eq!((between(1, 3, 2).await, between(2, 2, 2).await), (ids[1..3].to_vec(), vec![ids[2]]));
    assert!(between(3, 1, 2).await.is_empty());
}

async fn the_watermark_is_the_slowest_partition(store: Store) {
    let journal = store.open().await;
    let topics =
        |names: &[&str]| Some(Topics { read: names.iter().map(|name| (*name).to_owned()).collect(), http: None });
    let tasks = topics(&["curfew.tasks"]);
    let of = async |topics: &Option<Topics>| journal.watermark().await.unwrap().of(topics.as_ref());
    assert_eq!((of(&None).await, of(&tasks).await), (None, None));
    journal.caught_up("k", "curfew.tasks", 1, T0 + 100).await.unwrap();
    assert_eq!(journal.position("k", "curfew.tasks", 1).await.unwrap(), None);
    journal.record_batch(batch(vec![], vec![step_to(None, 1)])).await.unwrap();
    assert_eq!(of(&tasks).await, Some(T0));
    journal.caught_up("k", "curfew.tasks", 0, T0 + 50).await.unwrap();
    assert_eq!(of(&tasks).await, Some(T0 + 50));
    // Another one that is read no more holds nobody back for whom it is not configured; one that never was, everybody.
    journal.caught_up("k", "old", 0, 7).await.unwrap();
    assert_eq!((of(&None).await, of(&tasks).await), (Some(7), Some(T0 + 50)));
    assert_eq!(of(&topics(&["curfew.tasks", "old"])).await, Some(7));
    assert_eq!(of(&topics(&["curfew.tasks", "new"])).await, None);
    assert_eq!(of(&topics(&[])).await, None);
    // What comes over HTTP need not be at the broker.
    for (http, at_ms) in [("nowhere", T0 + 50), ("old", 7)] {
        let with = tasks.clone().map(|tasks| Topics { http: Some(http.to_owned()), ..tasks });
        assert_eq!(of(&with).await, Some(at_ms));
    }
    // What was moved to another cluster holds back where it ended, until its old place is forgotten.
    journal.caught_up("gone", "curfew.tasks", 0, 3).await.unwrap();
    assert_eq!(of(&tasks).await, Some(3));
    let known: Vec<(String, i64, i64)> =
        journal.clusters().await.unwrap().into_iter().map(|it| (it.id, it.partitions, it.read_ms)).collect();
    assert_eq!(known, [("gone".to_owned(), 1, 3), ("k".to_owned(), 3, T0 + 100)]);
    assert_eq!(journal.forget_cluster("gone").await.unwrap(), 1);
    assert_eq!((of(&tasks).await, journal.forget_cluster("gone").await.unwrap()), (Some(T0 + 50), 0));
    let only = Topics { http: Some("curfew.tasks".to_owned()), ..Topics::default() };
    assert_eq!(of(&Some(only)).await, Some(T0 + 50), "the broker's only topic may be that of HTTP too");
}

async fn what_is_due_comes_page_by_page_and_each_once(store: Store) {
    let journal = store.open().await;
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

async fn what_a_case_looks_at_by_itself_is_not_looked_up(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![started("1", 0, &[0, 1]), finding("f", 0)]).await;
    let unseen = async || journal.unseen(None, 9, T0 + 20).await.unwrap().len();
    let known = async || journal.known(&"t".into(), vec![cred(0)]).await.unwrap().remove(0);
    assert_eq!(unseen().await, 2, "a case that was opened held looks at nothing");
    assert!(known().await.open && known().await.live && !known().await.looks);
    put(&journal, vec![ended("2", 0)]).await;
    assert_eq!(unseen().await, 0);
    assert!(known().await.looks && !known().await.live);
}

async fn due_tasks_lookups_and_pruning(store: Store) {
    let journal = store.open().await;
    put(&journal, vec![started("1", 0, &[0]), started("2", 1, &[1]), ended("3", 1)]).await;
    assert!(journal.due(T0 + 180_000, 3, None, 9).await.unwrap().is_empty());
    assert_eq!(journal.due(T0 + 180_001, 3, None, 9).await.unwrap().len(), 1);
    assert_eq!(journal.due(T0 + 60_001, 1, None, 9).await.unwrap().len(), 1, "the allowance changed");
    let sources = journal.sources().await.unwrap();
    assert_eq!((sources[0].live, sources[0].last_beat_ms), (1, T0));
    let unseen = journal.unseen(None, 9, T0 + 20).await.unwrap();
    assert_eq!(unseen.iter().map(|c| &c.id).collect::<Vec<_>>(), [&cred(0)], "the other one's case looks by itself");
    // Of another realm: who cannot look it up must not take it.
    let of = async |realm| journal.unseen(Some(realm), 9, T0 + 20).await.unwrap().len();
    let realm = cred(0).instance().to_owned();
    assert_eq!((of(&realm).await, of("elsewhere").await, of(&realm[1..]).await), (1, 0, 0));
    journal.saw(&"t".into(), &cred(0), Observation::default(), Some(T0 + 99)).await.unwrap();
    journal.saw(&"t".into(), &cred(1), look(), None).await.unwrap();
    assert!(journal.unseen(None, 9, T0 + 20).await.unwrap().is_empty());
    assert_eq!(journal.unseen(None, 9, T0 + 99).await.unwrap()[0].id, cred(0));
    let claimed = claim(&journal, 1).await.remove(0);
    assert_eq!(claimed.case.seen_ms, Some(T0 + 25));
    assert_eq!(
        journal.prune(Old { seen_ms: 0, events_ms: 0, closed_ms: T0 + 1000 }, 100).await.unwrap(),
        2,
        "the two starts; what an open case needs stays"
    );
    finish(&journal, &claimed).await.unwrap();
    let before = journal.stats(T0).await.unwrap();
    let mut pruned = 0;
    loop {
        let some = journal.prune(Old { seen_ms: T0 + 1000, events_ms: 0, closed_ms: T0 + 1000 }, 2).await.unwrap();
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

async fn old_findings_go_and_what_waits_or_an_inventory_knows_stays(store: Store) {
    use curfew::event::CredentialRegistered;
    let journal = store.open().await;
    let registered = CredentialRegistered {
        credential: cred(0),
        fingerprints: Vec::new(),
        version: Some(3),
        current: true,
        issued_ms: None,
        owner: None,
        environment: Some("prod".into()),
    };
    let registered = event("c", Type::CredentialRegistered, Data::CredentialRegistered(registered));
    put(&journal, vec![registered, started("1", 0, &[0, 2]), finding("m", 0), finding("w", 9)]).await;
    let keys = async |unmatched| -> Vec<String> {
        journal.findings(unmatched, 9).await.unwrap().into_iter().map(|finding| finding.key).collect()
    };
    assert_eq!((keys(true).await, keys(false).await.len()), (vec!["w".to_owned()], 2));
    let stats = journal.stats(T0 + 5_000).await.unwrap();
    assert_eq!((stats.unmatched, stats.oldest_unmatched_ms), (1, 5_000));
    put(&journal, vec![ended("2", 0)]).await;
    while let Some(claim) = claim(&journal, 1).await.pop() {
        finish(&journal, &claim).await.unwrap();
    }
    let old = Old { seen_ms: 0, events_ms: 0, closed_ms: T0 + 1_000_000 };
    while journal.prune(old, 100).await.unwrap() > 0 {}
    assert_eq!((keys(true).await, keys(false).await.len()), (vec!["w".to_owned()], 1), "what waits is not forgotten");
    let known = journal.known(&"t".into(), vec![cred(0), cred(2)]).await.unwrap();
    assert_eq!(known.iter().map(|one| &one.credential.id).collect::<Vec<_>>(), [&cred(0)]);
    assert_eq!(known[0].credential.environment.as_deref(), Some("prod"), "the inventory says it once");
}

async fn what_led_to_no_case_goes_sooner_and_stays_counted(store: Store) {
    let journal = store.open().await;
    let beat =
        |n: u32| event(&format!("b{n}"), Type::TaskHeartbeat, Data::TaskHeartbeat(TaskHeartbeat { run: run(0) }));
    put(&journal, vec![started("1", 0, &[0]), started("2", 1, &[1]), ended("3", 1), finding("4", 0)]).await;
    put(&journal, (0..20).map(beat).collect()).await;
    let work = claim(&journal, 9).await;
    let ended = work.iter().find(|claim| claim.case.directive.credential == cred(1)).unwrap();
    finish(&journal, ended).await.unwrap();
    recount(&store).await;
    let before = journal.stats(T0).await.unwrap();
    let prune = async |events_ms, max| journal.prune(Old { seen_ms: 0, events_ms, closed_ms: 0 }, max).await.unwrap();
    // All of them were recorded at one time.
    assert_eq!(prune(T0 + 10, 100).await, 0);
    assert_eq!(prune(T0 + 11, 7).await, 7, "no more at once than asked");
    assert_eq!((prune(T0 + 11, 100).await, prune(T0 + 11, 100).await), (22 - 7, 0));
    let left = store.number("SELECT count(*) FROM events").await;
    assert_eq!((left, store.number("SELECT count(*) FROM events WHERE open_cases = 0").await), (2, 1));
    for line in journal.cases(Filter { closed: true, ..Filter::default() }).await.unwrap() {
        assert_eq!(journal.timeline(line.case.id).await.unwrap().unwrap().events.len(), 1, "a case keeps its events");
    }
    assert_eq!(journal.stats(T0).await.unwrap(), before);
    // What is pruned is still known.
    assert_eq!(put(&journal, vec![beat(3), started("1", 0, &[0])]).await.fates, [Fate::Duplicate; 2]);
    let all = Old { seen_ms: 0, events_ms: 0, closed_ms: T0 + 1_000 };
    while journal.prune(all, 100).await.unwrap() > 0 {}
    assert_eq!(store.number("SELECT count(*) FROM events").await, 1, "of an open case");
    let last = journal.stats(T0).await.unwrap();
    assert_eq!((last.accepted, last.closed), (before.accepted, before.closed));
}
