//! Which live runs a complete list does not show. PURE.

use std::collections::HashSet;

use super::{Part, Watched};
use crate::event::kubernetes::Sort;
use crate::task::{Phase, Task};

/// A live run whose object was not in the list: nothing is known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) sort: Sort,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) attempt: u32,
}

/// Of `tasks` those whose object belongs into the list of `part`, and was not in it. A run of which no start was seen has no
/// name to ask by: its deadline is what remains.
pub(super) fn missing<'t>(
    tasks: impl IntoIterator<Item = &'t Task>,
    watched: &Watched,
    part: &Part,
    listed: &HashSet<String>,
) -> Vec<Missing> {
    let source = format!("{}/", watched.source());
    let of = |task: &Task| {
        if task.tenant != watched.tenant || task.phase == Phase::Ended {
            return None;
        }
        let (of, uid) = task.run.parts()?;
        let namespace =
            of.strip_prefix(&source).filter(|namespace| !namespace.is_empty() && !namespace.contains('/'))?;
        let (sort, name) = Sort::of_task(task.name.as_deref()?)?;
        let belongs = sort == part.sort && part.namespace.as_deref().is_none_or(|only| only == namespace);
        (belongs && !listed.contains(uid)).then(|| Missing {
            sort,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            attempt: task.attempt,
        })
    };
    tasks.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::RunKey;

    fn watched() -> Watched {
        Watched {
            cluster: "prod".into(),
            uid: "0".into(),
            topic: "k8s".into(),
            tenant: "acme".into(),
            kubeconfig: None,
            context: None,
            namespaces: vec!["ml".into()],
            sorts: vec![(Sort::Job, None)],
            resync_ms: 1_000,
        }
    }

    fn task(source: &str, uid: &str, name: Option<&str>) -> Task {
        Task {
            tenant: "acme".into(),
            run: RunKey::new(source, uid),
            source: source.into(),
            name: name.map(str::to_owned),
            identity: None,
            attempt: 3,
            phase: Phase::Running,
            first_seen_ms: 1,
            started_ms: Some(1),
            deadline_ms: 2,
            clamped_from_ms: None,
            heartbeat_every_ms: None,
            last_beat_ms: None,
            ended_ms: None,
            outcome: None,
            unbound: false,
            boundary: None,
            within: None,
        }
    }

    #[test]
    fn only_what_belongs_into_the_list_is_missed_in_it() {
        let watched = watched();
        let part = &watched.parts()[0];
        let listed = HashSet::from(["here".to_owned()]);
        let ml = "/kubernetes/prod/ml";
        let job = || task(ml, "away", Some("job/train"));
        let of = |task: Task| missing([&task], &watched, part, &listed);
        let found = of(job());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].namespace.as_str(), found[0].attempt), ("train", "ml", 3));
        let others = [
            task(ml, "here", Some("job/train")),
            task(ml, "away", Some("pod/train")),
            task(ml, "away", Some("train")),
            task(ml, "away", Some("job/")),
            task(ml, "away", None),
            // Another namespace, cluster, scheduler, tenant; over already.
            task("/kubernetes/prod/ci", "away", Some("job/train")),
            task("/kubernetes/prod", "away", Some("job/train")),
            task("/kubernetes/prod/", "away", Some("job/train")),
            task("/kubernetes/prod2/ml", "away", Some("job/train")),
            task("/kubernetes/pro/ml", "away", Some("job/train")),
            task("/tekton/ml", "away", Some("job/train")),
            Task { tenant: "other".into(), ..job() },
            Task { phase: Phase::Ended, ..job() },
        ];
        for other in others {
            assert_eq!(of(other.clone()), [], "{other:?}");
        }
        let everywhere = Part { namespace: None, ..part.clone() };
        let elsewhere = task("/kubernetes/prod/ci", "away", Some("job/train"));
        assert_eq!(missing([&elsewhere], &watched, &everywhere, &listed).len(), 1);
        let expected = Task { phase: Phase::Expected, ..job() };
        assert_eq!(of(expected).len(), 1, "an extension was seen, and with it no name: but here there is one");
    }

    #[test]
    fn each_sort_has_a_list_in_each_namespace() {
        let mut watched = watched();
        watched.sorts.push((Sort::Pod, Some("team=ml".into())));
        watched.namespaces.push("ci".into());
        assert_eq!(watched.parts().len(), 4);
        watched.namespaces.clear();
        let parts = watched.parts();
        assert_eq!(parts.len(), 2);
        assert!(parts.iter().all(|part| part.namespace.is_none()));
        assert_eq!(parts[1].selector.as_deref(), Some("team=ml"));
    }
}
