//! Tasks for people, with what they hold, in every store.

use curfew::journal::{LivedAt, TaskFilter, TaskLine};
use curfew::scope::permissions;
use curfew::task::{Actions, Boundary, GrantPhase, Phase, Task};

use super::*;

over_both! {
    tasks_are_listed_with_what_they_hold,
    what_ended_with_nothing_known_is_listed_until_something_is,
    what_stands_is_told_with_the_runs_that_held_it,
    what_a_task_is_for_is_kept,
    tasks_are_read_part_by_part_for_how_long_they_live,
}

const LIVE: TaskFilter = TaskFilter { ended: false, unbound: false, source: None, identity: None, limit: 10 };

async fn what_ended_with_nothing_known_is_listed_until_something_is(store: Store) {
    let journal = store.open().await;
    let unbound = TaskFilter { unbound: true, ..LIVE };
    let listed = async |filter: TaskFilter| {
        let lines = journal.tasks(filter).await.unwrap();
        lines.iter().map(|line| line.task.run.clone()).collect::<Vec<_>>()
    };
    let counted = async |now_ms: i64| journal.stats(now_ms).await.unwrap().unbound;
    put(&journal, vec![started("0", 0, &[0]), started("1", 1, &[]), started("2", 2, &[])]).await;
    assert!(listed(unbound.clone()).await.is_empty());
    let mut later = ended("3", 2);
    if let Data::TaskEnded(data) = &mut later.data {
        data.ended_ms = Some(T0 + 5);
    }
    put(&journal, vec![ended("4", 0), ended("5", 1), later]).await;
    assert_eq!(listed(unbound.clone()).await, [run(2), run(1)], "the last one first");
    assert_eq!(listed(TaskFilter { source: Some("nobody".into()), ..unbound.clone() }).await, []);
    assert_eq!((counted(T0 + 50).await, counted(T0 + 86_400_002).await, counted(T0 + 90_000_000).await), (2, 1, 0));
    // A grant that comes late takes it back; after a kill as before it.
    let journal = store.reopen(journal).await;
    let late = GrantRegistered { run: run(1), attempt: None, identity: None, grant: spec(3) };
    put(&journal, vec![event("6", Type::GrantRegistered, Data::GrantRegistered(late))]).await;
    let lines = journal.tasks(unbound).await.unwrap();
    assert_eq!(lines.iter().map(|line| &line.task.run).collect::<Vec<_>>(), [&run(2)]);
    assert!(lines[0].task.unbound && lines[0].holds.is_empty());
    assert_eq!(journal.stats(T0 + 50).await.unwrap().unbound, 1);
}

async fn what_stands_is_told_with_the_runs_that_held_it(store: Store) {
    let journal = store.open().await;
    assert_eq!(journal.standing(10).await.unwrap(), []);
    let user = CredentialId::new(Kind::PostgresRole, "appdb", "orders").unwrap();
    let token = |name: &str| CredentialId::new(Kind::VaultToken, "a", name).unwrap();
    let held = |id: &str, r: u32, credential: &CredentialId, tenure: Tenure| {
        let mut event = started(id, r, &[]);
        if let Data::TaskStarted(data) = &mut event.data {
            data.grants.push(GrantSpec { credential: credential.clone(), tenure, principal: None, expires_ms: None });
        }
        event
    };
    let (standing, minted) = (Tenure::Standing, Tenure::Minted);
    put(
        &journal,
        vec![
            held("0", 0, &user, standing),
            held("1", 1, &user, standing),
            held("2", 2, &token("stands"), standing),
            held("3", 3, &token("ends"), standing),
            held("4", 4, &token("of-a-task"), minted),
            held("5", 5, &token("unseen"), standing),
            ended("6", 0),
        ],
    )
    .await;
    for (id, expires_ms) in [("stands", None), ("ends", Some(T0 + 9)), ("of-a-task", None)] {
        let seen = Observation { presence: Presence::Present, expires_ms, at_ms: T0, ..Observation::default() };
        journal.saw(&"t".into(), &token(id), seen, None).await.unwrap();
    }
    let told = journal.standing(10).await.unwrap();
    let told: Vec<_> = told.iter().map(|one| (one.credential.id.clone(), one.runs, one.live, one.last_ms)).collect();
    assert_eq!(told, [(user, 2, 1, Some(T0)), (token("stands"), 1, 1, Some(T0))]);
    assert_eq!(journal.standing(1).await.unwrap().len(), 1);
}

async fn tasks_are_listed_with_what_they_hold(store: Store) {
    let journal = store.open().await;
    assert!(journal.tasks(LIVE).await.unwrap().is_empty());
    let mut by_agent = started("1", 1, &[1, 3]);
    if let Data::TaskStarted(data) = &mut by_agent.data {
        data.identity = Some("agent-7".into());
        data.deadline_ms = Some(T0 + 60_000);
        for grant in &mut data.grants {
            grant.principal = Some("v-app-1".into());
            grant.expires_ms = Some(T0 + 90_000);
        }
    }
    let mut elsewhere = started("1", 2, &[]);
    elsewhere.source = "other".into();
    put(&journal, vec![started("0", 0, &[0]), by_agent, elsewhere]).await;
    let listed = async |filter: TaskFilter| journal.tasks(filter).await.unwrap();
    let runs = |lines: &[TaskLine]| lines.iter().map(|line| line.task.run.clone()).collect::<Vec<_>>();

    // What is due first comes first.
    let all = listed(LIVE).await;
    assert_eq!(all[0].task.run, run(1), "{all:#?}");
    assert_eq!(all.len(), 3);
    assert_eq!(runs(&listed(TaskFilter { limit: 1, ..LIVE }).await), [run(1)]);
    let held: Vec<_> = all[0].holds.iter().map(|one| &one.grant.credential).collect();
    assert_eq!(held, [&cred(1), &cred(3)]);
    let one = &all[0].holds[0];
    assert_eq!((one.principal.as_deref(), one.expires_ms, one.dead_ms), (Some("v-app-1"), Some(T0 + 90_000), None));
    assert_eq!((one.grant.phase, one.grant.topics.as_slice()), (GrantPhase::Held, &["curfew.tasks".to_owned()][..]));
    assert!(matches!(&all[0].task, Task { phase: Phase::Running, deadline_ms, .. } if *deadline_ms == T0 + 60_000));
    let stats = journal.stats(T0 + 61_500).await.unwrap();
    assert_eq!((stats.deadlines_passed, stats.deadline_lag_ms), (1, 1_500));
    assert_eq!(journal.stats(T0).await.unwrap().deadline_lag_ms, 0);

    // Of one agent, of one source.
    assert_eq!(runs(&listed(TaskFilter { identity: Some("agent-7".into()), ..LIVE }).await), [run(1)]);
    assert_eq!(runs(&listed(TaskFilter { source: Some("other".into()), ..LIVE }).await), [run(2)]);
    assert!(listed(TaskFilter { source: Some("nobody".into()), ..LIVE }).await.is_empty());

    // Ended, and then dead.
    put(&journal, vec![ended("9", 0)]).await;
    assert!(!runs(&listed(LIVE).await).contains(&run(0)));
    let mine = async || {
        let all = listed(TaskFilter { ended: true, ..LIVE }).await;
        all.into_iter().find(|line| line.task.run == run(0)).unwrap()
    };
    let line = mine().await;
    assert_eq!((line.task.phase, line.holds[0].grant.phase), (Phase::Ended, GrantPhase::Cut));
    let claimed = claim(&journal, 1).await.remove(0);
    finish(&journal, &claimed).await.unwrap();
    assert!(mine().await.holds[0].dead_ms.is_some());
}

async fn what_a_task_is_for_is_kept(store: Store) {
    let journal = store.open().await;
    let permissions = permissions(["relation:shop.orders:SELECT", "schema:shop:USAGE"]).unwrap();
    let actions = vec![Actions { target: "shopdb".into(), permissions }];
    let boundary = Boundary { targets: vec!["appdb".into()], zones: vec!["office".into(), "lab".into()], actions };
    let mut event = started("1", 1, &[]);
    if let Data::TaskStarted(data) = &mut event.data {
        data.boundary = Some(boundary.clone());
    }
    put(&journal, vec![event, started("2", 2, &[])]).await;
    let journal = store.reopen(journal).await;
    let lines = journal.tasks(LIVE).await.unwrap();
    let of = |n: u32| lines.iter().find(|line| line.task.run == run(n)).unwrap().task.boundary.clone();
    assert_eq!((of(1), of(2)), (Some(boundary), None));
}

async fn tasks_are_read_part_by_part_for_how_long_they_live(store: Store) {
    let journal = store.open().await;
    let id = |kind, name: &str| CredentialId::new(kind, "a", name).unwrap();
    let held = |r: u32, all: &[(CredentialId, Tenure)]| {
        let mut event = started(&format!("s{r}"), r, &[r]);
        if let Data::TaskStarted(data) = &mut event.data {
            let spec = |(credential, tenure): &(CredentialId, Tenure)| GrantSpec {
                credential: credential.clone(),
                tenure: *tenure,
                principal: None,
                expires_ms: None,
            };
            data.grants.extend(all.iter().map(spec));
        }
        event
    };
    let over = |r: u32, ended_ms: i64| {
        let mut event = ended(&format!("e{r}"), r);
        if let Data::TaskEnded(data) = &mut event.data {
            data.ended_ms = Some(ended_ms);
        }
        event
    };
    let (role, token) = (id(Kind::VaultApprole, "approle/etl"), id(Kind::VaultToken, "acc"));
    let secret_id = |r: u32| id(Kind::VaultSecretId, &format!("approle/etl/{r}"));
    let mut events = vec![
        held(0, &[(role.clone(), Tenure::Standing), (token.clone(), Tenure::Minted)]),
        // Only a lease: that is no login.
        held(1, &[]),
    ];
    events.extend((2..7).map(|r| held(r, &[(secret_id(r), Tenure::Minted)])));
    // At one moment, so that more than the time must tell where a part ends.
    events.extend((1..6).map(|r| over(r, T0 + 20)));
    put(&journal, events).await;
    put(&journal, vec![over(6, T0 + 10)]).await;
    let seen = Observation {
        presence: Presence::Present,
        at_ms: T0 + 5,
        issued_ms: Some(T0 - 7),
        role: Some("approle/etl".to_owned()),
        ..Observation::default()
    };
    journal.saw(&"t".into(), &token, seen, None).await.unwrap();
    let journal = store.reopen(journal).await;
    let read = async |since_ms: Option<i64>, max: u32| {
        let (mut all, mut after, mut parts) = (Vec::new(), None::<LivedAt>, 0);
        loop {
            let page = journal.lived(since_ms, after.take(), max).await.unwrap();
            (all, parts) = ([all, page.lines].concat(), parts + 1);
            match page.next {
                Some(next) => after = Some(next),
                None => return (all, parts),
            }
        }
    };
    let runs = |lines: &[curfew::journal::Lived]| lines.iter().map(|line| line.task.run.clone()).collect::<Vec<_>>();
    let (live, parts) = read(None, 10).await;
    assert_eq!((runs(&live), parts), (vec![run(0)], 1));
    let logins: Vec<_> = live[0].logins.iter().map(|one| (&one.credential, one.tenure, one.issued_ms)).collect();
    assert_eq!(logins, [(&role, Tenure::Standing, None), (&token, Tenure::Minted, Some(T0 - 7))]);
    assert_eq!(live[0].logins[1].principal.as_deref(), Some("approle/etl"), "as its issuer said");
    for (max, parts) in [(10, 1), (2, 4), (1, 7)] {
        let (all, read_in) = read(Some(T0 + 10), max).await;
        assert_eq!((runs(&all), read_in), (vec![run(6), run(2), run(3), run(4), run(5)], parts), "{max} at a time");
    }
    assert_eq!(runs(&read(Some(T0 + 11), 2).await.0), [run(2), run(3), run(4), run(5)], "older ones do not count");
    assert_eq!(runs(&read(Some(T0 + 21), 2).await.0), []);
}
