//! Runs that are parts of another one: with its end they are over, even if their own ends are lost.

use serde_json::json;

use super::*;

fn part(name: &str, whole: &str, started_ms: i64) -> Data {
    let Data::TaskStarted(it) = start(name, 1, vec![minted(name)]) else { unreachable!() };
    Data::TaskStarted(TaskStarted { within: Some(run(whole)), started_ms: Some(started_ms), ..it })
}

/// What the deadlines then notice.
fn notice(world: &mut World, name: &str) -> Decision {
    let deadline_ms = world.task(name).deadline_ms;
    world.tell(Data::DeadlinePassed { run: run(name), deadline_ms })
}

#[test]
fn a_part_whose_end_is_lost_is_over_with_the_whole() {
    let mut world = World::new();
    world.tell(start("dag", 1, vec![]));
    world.tell(part("killed", "dag", NOW + 100));
    world.tell(part("done", "dag", NOW + 100));
    world.tell(end("done", 1));
    let ended = world.tell(ended("dag", 1, Some(NOW + 4_500), None));
    assert_eq!((ended.reason, &ended.facts["parts"]), (Reason::NothingHeld, &json!(1)));
    assert_eq!(world.cut(), BTreeSet::from([lease("done")]), "its own end may still come");
    assert_eq!(world.task("killed").deadline_ms, NOW + 4_500);
    let lost = notice(&mut world, "killed");
    assert_eq!((lost.verb, lost.reason), (Verb::Revoke, Reason::DeadlinePassed));
    assert!(world.cut().contains(&lease("killed")));
}

#[test]
fn the_whole_may_have_ended_before_its_part_is_read() {
    let mut world = World::new();
    world.tell(ended("dag", 1, Some(NOW + 900), None));
    world.tell(part("killed", "dag", NOW - 10_000));
    assert_eq!(world.task("killed").deadline_ms, NOW + 900);
    // The same again moves nothing.
    world.tell(part("killed", "dag", NOW - 10_000));
    assert_eq!(world.task("killed").deadline_ms, NOW + 900);
}

#[test]
fn what_begins_after_the_end_of_the_whole_belongs_to_what_was_started_again() {
    let mut world = World::new();
    world.tell(start("dag", 1, vec![]));
    world.tell(ended("dag", 1, Some(NOW + 1_500), None));
    // Cleared, and run again under the same key: the whole's second start is taken for a late one.
    world.tell(start("dag", 1, vec![]));
    world.tell(part("again", "dag", NOW + 2_000));
    assert_eq!(world.task("again").deadline_ms, NOW + 2_000 + world.rules.longest_life_ms);
    world.tell(ended("dag", 1, Some(NOW + 9_000), None));
    assert_eq!(world.task("again").deadline_ms, NOW + 2_000 + world.rules.longest_life_ms, "an end counts once");
}

#[test]
fn a_whole_that_was_lost_or_goes_on_says_nothing_of_its_parts() {
    for goes_on in [false, true] {
        let mut world = World::new();
        world.tell(start("dag", 1, vec![]));
        world.tell(part("a", "dag", NOW));
        if goes_on {
            world.tell(ended("dag", 1, None, Some("next")));
        } else {
            notice(&mut world, "dag");
        }
        assert_eq!(world.task("a").deadline_ms, NOW + world.rules.longest_life_ms);
        // Nor of those whose start is told again, or only now.
        world.tell(part("a", "dag", NOW));
        world.tell(part("b", "dag", NOW));
        for name in ["a", "b"] {
            assert_eq!(world.task(name).deadline_ms, NOW + world.rules.longest_life_ms, "{name}, {goes_on}");
        }
    }
}

#[test]
fn what_has_parts_holds_nothing_by_itself() {
    let mut world = World::new();
    world.tell(part("a", "dag", NOW));
    world.tell(end("dag", 1));
    world.tell(end("other", 1));
    assert!(!world.task("dag").unbound && world.task("other").unbound);
    // Its part may be read after its end.
    world.tell(part("b", "other", NOW));
    assert!(!world.task("other").unbound);
    // And after its own end.
    world.tell(end("third", 1));
    world.tell(end("c", 1));
    world.tell(part("c", "third", NOW));
    assert!(!world.task("third").unbound);
}

#[test]
fn nothing_is_a_part_of_itself() {
    let mut world = World::new();
    world.tell(part("a", "a", NOW));
    assert_eq!(world.task("a").within, None);
}

/// What is told of a whole and two of its parts; a part's end may be lost.
fn stream() -> impl Strategy<Value = (Vec<u8>, [bool; 2])> {
    let lost = any::<[bool; 2]>();
    lost.prop_flat_map(|lost| {
        let ends = (0..2_u8).filter(move |n| !lost[usize::from(*n)]).map(|n| 4 + n);
        let told: Vec<u8> = [0, 1, 2, 3].into_iter().chain(ends).collect();
        (Just([told.clone(), told].concat()).prop_shuffle(), Just(lost))
    })
}

proptest! {
    #[test]
    fn in_any_order_no_part_outlives_the_whole_and_none_is_cut_before_it(told in stream()) {
        let (told, lost) = told;
        let names = ["a", "b"];
        let over_ms = NOW + 50_000;
        let mut world = World::new();
        let mut ended_yet = [false; 2];
        for one in told {
            match one {
                0 => drop(world.tell(start("dag", 1, vec![]))),
                1 => drop(world.tell(ended("dag", 1, Some(over_ms), None))),
                2 | 3 => drop(world.tell(part(names[usize::from(one - 2)], "dag", NOW + 10_000))),
                _ => {
                    drop(world.tell(end(names[usize::from(one - 4)], 1)));
                    ended_yet[usize::from(one - 4)] = true;
                }
            }
            for (name, ended) in names.iter().zip(ended_yet) {
                let Some(task) = world.view.tasks.get(&run(name)) else { continue };
                prop_assert!(task.deadline_ms >= over_ms, "no deadline before the end of the whole");
                prop_assert!(ended || !world.cut().contains(&lease(name)));
            }
        }
        for (name, lost) in names.iter().zip(lost) {
            let task = world.task(name);
            prop_assert_eq!(task.phase == Life::Ended, !lost);
            prop_assert!(!lost || task.deadline_ms == over_ms);
        }
    }
}
