//! Tasks for people, with what they hold, in every store.

use curfew::journal::{TaskFilter, TaskLine};
use curfew::task::{GrantPhase, Phase, Task};

use super::*;

over_both! {
    tasks_are_listed_with_what_they_hold,
}

const LIVE: TaskFilter = TaskFilter { ended: false, source: None, identity: None, limit: 10 };

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
