//! Outages on a simulated clock, through the real journal: nothing that lives is cut, and what died is still found.

use std::collections::BTreeSet;
use std::sync::Arc;

use curfew::clock::{Clock, Simulated};
use curfew::credential::{CredentialId, Kind};
use curfew::deadlines::{ClockTrust, Deadlines, Settings};
use curfew::event::{self, Coordinates, Data, Event, GrantSpec, TaskHeartbeat, TaskStarted, Type, digest16};
use curfew::intake::Intake;
use curfew::journal::{Arrival, Batch, Filter, Journal, Move, Position, Topics};
use curfew::policy::Rules;
use curfew::task::{RunKey, Tenure};

use crate::store::Store;

const T0: i64 = 1_800_000_000_000;
const EVERY: i64 = 60_000;
const HOUR: i64 = 3_600_000;

fn run(source: &str, n: usize) -> RunKey {
    RunKey::new(source.split_once('@').map_or(source, |(_, source)| source), &n.to_string())
}

fn lease(source: &str, n: usize) -> CredentialId {
    CredentialId::new(Kind::VaultLease, "prod", &format!("db/creds/ro{}/{n}", source.replace('@', "/"))).unwrap()
}

struct World {
    clock: Arc<Simulated>,
    journal: Arc<dyn Journal>,
    deadlines: Deadlines,
    rules: Arc<Rules>,
    offset: i64,
    unread: Vec<Event>,
}

impl World {
    async fn open(store: &Store) -> Self {
        Self::with(store, Settings::default()).await
    }

    async fn with(store: &Store, settings: Settings) -> Self {
        let clock = Simulated::at(T0);
        let journal = store.open().await;
        let rules = Arc::new(Rules::default());
        let intake = Intake {
            journal: journal.clone(),
            rules: rules.clone(),
            limits: event::Limits::default(),
            clock: clock.clone(),
            metrics: Arc::default(),
            stirred: Arc::default(),
            trust: None,
            types: None,
        };
        let trust = ClockTrust::new(clock.clone());
        let deadlines = Deadlines::new(intake, settings, trust);
        Self { clock, journal, deadlines, rules, offset: 0, unread: Vec::new() }
    }

    /// A producer appends to the topic; nobody has read it yet. `source` may begin with `<tenant>@`.
    fn produce(&mut self, source: &str, kind: Type, data: Data) {
        let (tenant, source) = source.split_once('@').unwrap_or(("t", source));
        let id = format!("{}", uuid::Uuid::new_v4());
        self.unread.push(Event {
            at: Coordinates { cluster: "k".into(), topic: "curfew.tasks".into(), partition: 0, offset: 0 },
            tenant: tenant.into(),
            source: source.into(),
            digest: digest16(&[id.as_bytes()]),
            id,
            kind,
            broker_ms: self.clock.wall_ms(),
            traceparent: None,
            data,
        });
    }

    fn start(&mut self, source: &str, n: usize, deadline_ms: i64) {
        let grant =
            GrantSpec { credential: lease(source, n), tenure: Tenure::Minted, principal: None, expires_ms: None };
        let data = TaskStarted {
            boundary: None,
            run: run(source, n),
            within: None,
            attempt: 1,
            task: None,
            identity: None,
            started_ms: None,
            deadline_ms: Some(deadline_ms),
            heartbeat_every_ms: Some(EVERY),
            grants: vec![grant],
        };
        self.produce(source, Type::TaskStarted, Data::TaskStarted(data));
    }

    fn beat(&mut self, source: &str, n: usize) {
        let data = Data::TaskHeartbeat(TaskHeartbeat { run: run(source, n) });
        self.produce(source, Type::TaskHeartbeat, data);
    }

    /// Intake reads at most `max` records of what is in the topic; at its end it is caught up.
    async fn read(&mut self, max: usize) {
        let take = self.unread.len().min(max);
        let events: Vec<Event> = self.unread.drain(..take).collect();
        if let Some(last) = events.last() {
            let from = (self.offset > 0).then_some(self.offset);
            self.offset += take as i64;
            let to = Position {
                cluster: "k".into(),
                topic: "curfew.tasks".into(),
                partition: 0,
                next_offset: self.offset,
                last_ms: last.broker_ms,
                last_digest: [0; 16],
            };
            let arrivals = events.into_iter().map(|event| Arrival::Event(Box::new(event))).collect();
            let batch = Batch {
                arrivals,
                moves: vec![Move { from, to }],
                rules: self.rules.clone(),
                now_ms: self.clock.wall_ms(),
            };
            self.journal.record_batch(batch).await.unwrap();
        }
        if self.unread.is_empty() && self.offset > 0 {
            self.journal.caught_up("k", "curfew.tasks", 0, self.clock.wall_ms()).await.unwrap();
        }
    }

    async fn cut(&self) -> BTreeSet<CredentialId> {
        let cases = self.journal.cases(Filter { closed: true, ..Filter::default() }).await.unwrap();
        cases.into_iter().map(|line| line.case.directive.credential).collect()
    }

    /// Lets time pass in steps of ten seconds. `beats(source, n, minute)` says who sends; `reads` how much intake takes.
    async fn pass(
        &mut self,
        ms: i64,
        tasks: &[(&str, usize)],
        beats: impl Fn(&str, usize) -> bool,
        reads: usize,
    ) -> u64 {
        let mut held = 0;
        for _ in 0..ms / 10_000 {
            self.clock.advance_ms(10_000);
            let slot = (self.clock.wall_ms() - T0) / 10_000 % 6;
            for (source, count) in tasks {
                for n in (0..*count).filter(|n| *n as i64 % 6 == slot) {
                    if beats(source, n) {
                        self.beat(source, n);
                    }
                }
            }
            self.read(reads).await;
            held = held.max(self.deadlines.tick().await.unwrap().held);
        }
        held
    }
}

const ALL: usize = usize::MAX;

over_both! {
    an_outage_of_an_hour_with_lagging_intake_cuts_nothing_that_lives,
    a_scheduler_that_stops_heartbeating_for_a_thousand_tasks_cuts_none_of_them,
    a_clock_that_steps_ends_nobody,
    what_is_held_in_a_mass_silence_hides_no_deadline_and_is_not_read_over_and_over,
    one_tenants_heartbeats_say_nothing_of_anothers_scheduler,
    a_topic_that_is_configured_no_more_holds_no_deadline_back_and_an_unread_one_does,
}

async fn an_outage_of_an_hour_with_lagging_intake_cuts_nothing_that_lives(store: Store) {
    let mut world = World::open(&store).await;
    let tasks = [("/a", 12), ("/b", 2)];
    for (source, count) in tasks {
        for n in 0..count {
            // Two of them must be over within the outage: an extension says that they need not be.
            let soon = source == "/a" && n < 2;
            world.start(source, n, T0 + if soon { HOUR / 2 } else { 20 * HOUR });
        }
    }
    world.read(ALL).await;
    world.pass(HOUR / 6, &tasks, |_, _| true, ALL).await;
    assert!(world.cut().await.is_empty());

    // Intake stands for an hour while tasks go on; one is extended, the other is not.
    let extended = Data::TaskExtended(event::TaskExtended { run: run("/a", 0), deadline_ms: T0 + 20 * HOUR });
    world.produce("/a", Type::TaskExtended, extended);
    world.pass(HOUR, &tasks, |_, _| true, 0).await;
    assert!(world.cut().await.is_empty(), "nothing may fire while the topic may say otherwise");

    // It catches up slowly: the one that was not extended is over, nobody else.
    world.pass(HOUR, &tasks, |_, _| true, 9).await;
    world.read(ALL).await;
    world.pass(HOUR / 6, &tasks, |_, _| true, ALL).await;
    assert_eq!(world.cut().await, BTreeSet::from([lease("/a", 1)]));

    // The brokers stand for an hour: no heartbeat arrives at all, then all come back.
    world.pass(HOUR, &tasks, |_, _| false, ALL).await;
    world.pass(HOUR / 2, &tasks, |_, _| true, ALL).await;
    assert_eq!(world.cut().await, BTreeSet::from([lease("/a", 1)]));

    // And one task that really dies is still found.
    world.pass(HOUR / 6, &tasks, |source, n| source != "/a" || n != 7, ALL).await;
    assert_eq!(world.cut().await, BTreeSet::from([lease("/a", 1), lease("/a", 7)]));
}

async fn a_scheduler_that_stops_heartbeating_for_a_thousand_tasks_cuts_none_of_them(store: Store) {
    let mut world = World::open(&store).await;
    let tasks = [("/big", 1_000), ("/other", 30)];
    for (source, count) in tasks {
        for n in 0..count {
            world.start(source, n, T0 + 20 * HOUR);
        }
    }
    world.read(ALL).await;
    world.pass(HOUR / 6, &tasks, |_, _| true, ALL).await;
    let other_dies = |source: &str, n: usize| source == "/other" && n != 4;
    let held = world.pass(HOUR / 6, &tasks, other_dies, ALL).await;
    assert!(held >= 1_000, "held {held}");
    assert_eq!(world.cut().await, BTreeSet::from([lease("/other", 4)]), "the others' own silence counts");
    world.pass(HOUR / 6, &tasks, |source, n| source == "/big" || n != 4, ALL).await;
    assert_eq!(world.cut().await, BTreeSet::from([lease("/other", 4)]));
}

async fn a_clock_that_steps_ends_nobody(store: Store) {
    let mut world = World::open(&store).await;
    world.start("/a", 1, T0 + HOUR);
    world.read(ALL).await;
    world.clock.step_wall_ms(30 * HOUR);
    world.journal.caught_up("k", "curfew.tasks", 0, world.clock.wall_ms()).await.unwrap();
    assert!(world.deadlines.tick().await.unwrap().clock_doubted);
    world.clock.step_wall_ms(-30 * HOUR);
    assert!(!world.deadlines.tick().await.unwrap().clock_doubted);
    assert!(world.cut().await.is_empty());
}

async fn what_is_held_in_a_mass_silence_hides_no_deadline_and_is_not_read_over_and_over(store: Store) {
    let mut world = World::with(&store, Settings { batch: 10, scan: 20, ..Settings::default() }).await;
    for n in 0..300 {
        world.start("/big", n, T0 + 20 * HOUR);
    }
    world.start("/other", 0, T0 + HOUR);
    world.read(ALL).await;
    let other = |source: &str, _: usize| source == "/other";
    let mut held = world.pass(HOUR - EVERY, &[("/other", 1)], other, ALL).await;
    assert_eq!(held, 300, "a part of a mass is not taken for a few");
    assert!(world.cut().await.is_empty());
    world.clock.advance_ms(2 * EVERY);
    world.beat("/other", 0);
    world.read(ALL).await;
    let ticked = world.deadlines.tick().await.unwrap();
    assert_eq!(ticked.deadlines, 1, "the newest is seen in the first tick: {ticked:?}");
    assert!(ticked.looked <= 2 * 20, "{ticked:?}");
    assert_eq!(world.cut().await, BTreeSet::from([lease("/other", 0)]));
    // Those that come back are not held any more, one pass later.
    for n in 0..300 {
        world.beat("/big", n);
    }
    world.read(ALL).await;
    for _ in 0..2 * 300 / 20 {
        held = world.deadlines.tick().await.unwrap().held;
    }
    assert_eq!(held, 0);
    assert_eq!(world.cut().await.len(), 1);
}

async fn one_tenants_heartbeats_say_nothing_of_anothers_scheduler(store: Store) {
    let mut world = World::open(&store).await;
    // Both call their scheduler the same. One has three tasks, and its scheduler stops for all of them.
    let tasks = [("a@/ci", 40), ("b@/ci", 3)];
    for (source, count) in tasks {
        for n in 0..count {
            world.start(source, n, T0 + 20 * HOUR);
        }
    }
    world.read(ALL).await;
    world.pass(HOUR / 6, &tasks, |_, _| true, ALL).await;
    let held = world.pass(HOUR / 6, &tasks, |source, _| source == "a@/ci", ALL).await;
    assert!(world.cut().await.is_empty(), "{:?}", world.cut().await);
    assert_eq!(held, 3);
    // One of the other tenant's is still found, though all of the first one's are silent.
    world.pass(HOUR / 6, &tasks, |source, n| source == "a@/ci" && n != 7, ALL).await;
    assert_eq!(world.cut().await, BTreeSet::from([lease("a@/ci", 7)]));
}

async fn a_topic_that_is_configured_no_more_holds_no_deadline_back_and_an_unread_one_does(store: Store) {
    let with = |names: &[&str]| {
        let read = names.iter().map(|name| (*name).to_owned()).collect();
        Settings { topics: Some(Topics { read, http: None }), ..Settings::default() }
    };
    let mut world = World::with(&store, with(&["curfew.tasks", "new"])).await;
    world.journal.caught_up("k", "removed", 0, T0).await.unwrap();
    world.start("/ci", 0, T0 + HOUR);
    world.read(ALL).await;
    world.clock.advance_ms(2 * HOUR);
    world.read(ALL).await;
    assert_eq!(world.deadlines.tick().await.unwrap().deadlines, 0, "the new one may say that it was extended");
    world.journal.caught_up("k", "new", 0, world.clock.wall_ms()).await.unwrap();
    assert_eq!(world.deadlines.tick().await.unwrap().deadlines, 1);
}
