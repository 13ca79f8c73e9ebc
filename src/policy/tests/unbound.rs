//! Runs of which nobody said what they held, and who runs them.

use super::*;

#[test]
fn a_run_that_ended_and_of_which_nothing_is_known_is_marked_until_something_is() {
    // However it ends.
    let ends: [fn(&mut World) -> Decision; 3] = [
        |world| world.tell(end("a", 1)),
        |world| {
            let deadline_ms = world.task("a").deadline_ms;
            world.now_ms = deadline_ms;
            world.tell(Data::DeadlinePassed { run: run("a"), deadline_ms })
        },
        |world| {
            let last_beat_ms = decide::last_sign_ms(world.task("a"));
            world.now_ms += HOUR;
            world.tell(Data::HeartbeatMissed { run: run("a"), last_beat_ms })
        },
    ];
    for ends in ends {
        let started = || {
            let mut world = World::new();
            let mut begin = start("a", 1, vec![]);
            if let Data::TaskStarted(it) = &mut begin {
                it.heartbeat_every_ms = Some(60_000);
            }
            world.tell(begin);
            world
        };
        let mut world = started();
        let decision = ends(&mut world);
        assert!(world.task("a").unbound, "{decision:?}");
        assert_eq!(decision.facts["unbound"], true);
        // A grant that comes late takes it back, whatever its tenure.
        let late = world.tell(grant("a", None, spec("x", Tenure::Standing)));
        assert!(!world.task("a").unbound && late.directives.is_empty());

        let mut world = started();
        world.tell(grant("a", None, minted("x")));
        ends(&mut world);
        assert!(!world.task("a").unbound, "something is known");

        let mut world = started();
        world.rules.without_credentials = vec!["/c*".into()];
        ends(&mut world);
        assert!(!world.task("a").unbound, "its source holds nothing");
    }
}

#[test]
fn what_goes_on_or_runs_again_is_not_marked() {
    let mut world = World::new();
    world.tell(start("a", 1, vec![]));
    world.tell(ended("a", 1, None, Some("b")));
    assert!(!world.task("a").unbound && !world.task("b").unbound);
    world.tell(end("c", 1));
    assert!(world.task("c").unbound, "its start is not known either");
    world.tell(start("c", 2, vec![]));
    assert!(!world.task("c").unbound);
    world.tell(end("c", 1));
    assert!(!world.task("c").unbound, "an older attempt ended");
    world.tell(end("c", 2));
    assert!(world.task("c").unbound);
    // The end itself names what it held.
    let mut named = end("d", 1);
    if let Data::TaskEnded(it) = &mut named {
        it.grants = vec![minted("d")];
    }
    world.tell(named);
    assert!(!world.task("d").unbound);
    // The issuer holds something of it after all.
    world.tell(Data::ReconcileFound { credential: lease("late"), run: Some(run("c")), exclusive: false });
    assert!(!world.task("c").unbound);
}

#[test]
fn a_grant_may_say_who_runs_its_task_where_nobody_else_does() {
    let by = |who: &str, name: &str, credential: &str| {
        let mut said = grant(name, None, minted(credential));
        if let Data::GrantRegistered(it) = &mut said {
            it.identity = Some(who.into());
        }
        said
    };
    let mut world = World::new();
    world.tell(by("etl/load", "a", "x"));
    world.tell(by("other", "a", "y"));
    assert_eq!(world.task("a").identity.as_deref(), Some("etl/load"));
    let mut begin = start("a", 1, vec![]);
    if let Data::TaskStarted(it) = &mut begin {
        it.identity = Some("spiffe://etl".into());
    }
    world.tell(begin);
    assert_eq!(world.task("a").identity.as_deref(), Some("spiffe://etl"), "the scheduler knows better");
}
