//! The password of a Redis user, on two nodes: every plan killed at every append, each call failed in each way, each effect
//! repeated, each reply cut; and what Redis does that others do not: it forgets on a restart what was not saved, and
//! replicates no users.

use std::sync::Arc;

use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Presence, Verdict};
use curfew::case::state::Phase;
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::{Adoption, Keeper, Late, PasswordRules, Place, Recipe, Users};
use curfew::connector::vault::{Auth, VaultSettings};
use curfew::connector::{Realm, Registry, Subject, redis, vault};
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::journal::{CaseLine, Journal};
use serde_json::json;

use super::adoption::{consumers, every_kill_of, is_held, is_promoted, killed_on_the_way_back, run_until, says};
use super::{Ground, Victim, assert_one_end, finding, finding_of, open_case, registered};
use crate::acl::{Node, settings};
use crate::endure::{self, Trial};
use crate::stage::{Stage, case_of, ended, new_run, record, started};
use crate::store::Store;
use crate::vault::about;
use crate::world::{unique, until};

/// Of another password of the same user, that is nobody's business.
const BYSTANDER: &str = "bystanders-password";

/// A user on nodes of the test's own, and what consumers read of it.
struct Cache<'a> {
    victim: Victim,
    nodes: &'a [Node],
    user: String,
}

impl Ground {
    async fn cache<'a>(&self, nodes: &'a [Node], adoption: Adoption) -> Cache<'a> {
        let user = unique("cache");
        let first = format!("first-{}", unique("pw"));
        for node in nodes {
            node.done(&format!("ACL SETUSER {user} on >{first} >{BYSTANDER} ~* +@read")).await;
            node.done("ACL SAVE").await;
        }
        self.cache_of(nodes, &user, &first, adoption).await
    }

    /// The recipe of a user that is there.
    async fn cache_of<'a>(&self, nodes: &'a [Node], user: &str, first: &str, adoption: Adoption) -> Cache<'a> {
        let path = format!("apps/{}", unique("secret"));
        let secret = json!({"data": {"username": user, "password": first, "host": "db.example"}});
        self.admin.done("POST", &format!("{}/data/{path}", self.mount), secret).await;
        let recipe = Recipe {
            name: user.to_owned(),
            credential: CredentialId::new(Kind::RedisUser, "cache", user).unwrap(),
            place: Place {
                keeper: Keeper::Kv,
                realm: "test".to_owned(),
                mount: self.mount.clone(),
                path,
                field: "password".to_owned(),
                user_field: None,
            },
            users: Users::Many(user.to_owned()),
            password: PasswordRules::default(),
            adoption,
            environment: Some("test".to_owned()),
            owner: None,
            max_age_ms: None,
            shares: Vec::new(),
            copies: Vec::new(),
            webhooks: Vec::new(),
        };
        let clock = curfew::clock::System::shared();
        let mut registry = Registry::default();
        for (name, allowed_prefixes) in [("cache", vec![user.to_owned()]), ("test", Vec::new())] {
            let (name, mode, targets) = (name.to_owned(), Mode::Enforce, Vec::new());
            registry.add_realm(Realm { name, mode, allowed_prefixes, reducible: Vec::new(), targets });
        }
        let vault = VaultSettings::new(&self.admin.address, Auth::Token(self.token.clone().into()));
        let places = [recipe.place.clone()];
        let stores = vault::connect_stores("test", &vault, Mode::Enforce, clock.clone(), &places, &[]).await.unwrap();
        stores.into_iter().for_each(|store| registry.add_store(store));
        let nodes_of: Vec<&Node> = nodes.iter().collect();
        registry.add(redis::connect("cache", &settings(&nodes_of), clock).await.unwrap());
        registry.add_recipe(recipe.clone());
        let old = (user.to_owned(), first.to_owned());
        let victim = Victim {
            recipe,
            registry,
            old,
            hook: None,
            first: 1,
            shelf: super::safe::Shelf::of(&self.admin),
            behind: super::Behind::Postgres,
            pg: self.pg.clone(),
        };
        Cache { victim, nodes, user: user.to_owned() }
    }
}

async fn two_nodes() -> [Node; 2] {
    [Node::start().await, Node::start().await]
}

impl Cache<'_> {
    /// On each node.
    async fn lets_in(&self, password: &str) -> Vec<bool> {
        futures::future::join_all(self.nodes.iter().map(|node| node.lets_in(&self.user, password))).await
    }

    async fn assert_everywhere(&self, password: &str, lets_in: bool, what: &str) {
        assert!(self.lets_in(password).await.iter().all(|one| *one == lets_in), "{what}: wanted {lets_in}");
    }

    /// How many passwords the user has on each node.
    async fn passwords(&self) -> Vec<usize> {
        let mut all = Vec::new();
        for node in self.nodes {
            let shown: std::collections::HashMap<String, ::redis::Value> =
                ::redis::cmd("ACL").arg("GETUSER").arg(&self.user).query_async(&mut node.root().await).await.unwrap();
            let hashes: Vec<String> = ::redis::from_redis_value(shown["passwords"].clone()).unwrap();
            all.push(hashes.len());
        }
        all
    }

    /// As the witness sees it.
    async fn assert_rotated(&self, what: &str) {
        let (version, _, value) = self.victim.stored().await;
        assert!(version >= 2 && value != self.victim.old.1, "{what}");
        self.assert_everywhere(&value, true, &format!("{what}: what consumers read")).await;
        self.assert_everywhere(&self.victim.old.1, false, &format!("{what}: the old one")).await;
        self.assert_everywhere(BYSTANDER, true, &format!("{what}: another password of the user")).await;
        assert!(self.passwords().await.iter().all(|count| *count == 2), "{what}: a password is left behind");
        assert_eq!(self.victim.candidate().await, None, "{what}: a candidate is left behind");
    }

    async fn assert_given_back(&self, what: &str) {
        let (version, _, value) = self.victim.stored().await;
        assert_eq!((version, &value), (3, &self.victim.old.1), "{what}: stored anew");
        self.assert_everywhere(&value, true, &format!("{what}: the old one")).await;
        let new = self.victim.version(2).await.1;
        self.assert_everywhere(&new, false, &format!("{what}: the new one")).await;
        assert!(self.passwords().await.iter().all(|count| *count == 2), "{what}: a password is left behind");
    }
}

/// One that is rotated.
struct Rotated<'a> {
    cache: Cache<'a>,
    action: Action,
}

impl Trial for Rotated<'_> {
    fn credential(&self) -> &CredentialId {
        self.cache.victim.credential()
    }

    fn registry(&self) -> Registry {
        self.cache.victim.registry.clone()
    }

    async fn open_case(&self, journal: &dyn Journal) {
        open_case(journal, &self.cache.victim, self.action).await;
    }

    async fn died(&self, what: &str) -> Registry {
        if self.action == Action::Rollover {
            let (_, _, now) = self.cache.victim.stored().await;
            self.cache
                .assert_everywhere(&now, true, &format!("{what}: what consumers read works at every instant"))
                .await;
        }
        self.registry()
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        assert_one_end(journal, line, what).await;
        self.cache.assert_rotated(what).await;
    }
}

async fn every_kill(store: Store, action: Action) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let fresh = async || Rotated { cache: ground.cache(&nodes, Adoption::default()).await, action };
    endure::every_kill(&store, 5, fresh).await;
}

async fn every_fault(store: Store, action: Action) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let fresh = async || Rotated { cache: ground.cache(&nodes, Adoption::default()).await, action };
    endure::every_fault(&store, 9, fresh).await;
}

over_both! {
    a_redis_user_contained_survives_every_kill,
    a_redis_user_rolled_over_survives_every_kill,
    a_redis_user_contained_survives_every_fault,
    a_redis_user_rolled_over_survives_every_fault,
    a_restart_brings_no_old_password_back,
    what_cannot_be_saved_is_not_begun,
    a_node_that_is_down_keeps_the_others_from_nothing,
    nodes_that_nobody_names_leave_it_unproven,
    nodes_of_a_cluster_count_as_well,
    connections_that_were_open_end,
    a_redis_user_that_is_revoked_loses_its_one_password,
    a_new_password_that_leaks_before_the_old_one_is_cut_takes_both_with_it,
    what_others_wrote_after_the_new_password_stays,
    administrators_are_never_touched,
    who_is_let_in_anyway_is_parked,
    a_consumer_that_cannot_log_in_gets_the_old_password_back,
    giving_the_old_password_back_survives_every_kill,
    a_password_that_is_destroyed_is_dead_by_what_is_left,
}

async fn a_redis_user_contained_survives_every_kill(store: Store) {
    every_kill(store, Action::Contain).await;
}

async fn a_redis_user_rolled_over_survives_every_kill(store: Store) {
    every_kill(store, Action::Rollover).await;
}

async fn a_redis_user_contained_survives_every_fault(store: Store) {
    every_fault(store, Action::Contain).await;
}

async fn a_redis_user_rolled_over_survives_every_fault(store: Store) {
    every_fault(store, Action::Rollover).await;
}

/// Runs one to its end.
async fn rotated(store: Store, cache: &Cache<'_>, action: Action) -> CaseLine {
    let stage = Stage::new(store, cache.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &cache.victim, action).await;
    let line = stage.run_until_closed(&journal, cache.victim.credential()).await;
    let timeline = format!("{:?}", journal.timeline(line.case.id).await.unwrap());
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let told: String = rows.iter().map(|row| String::from_utf8_lossy(&row.body).into_owned()).collect();
    for value in [&cache.victim.old.1, &cache.victim.stored().await.2, BYSTANDER] {
        assert!(!timeline.contains(value) && !told.contains(value), "P5");
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.as_bytes());
        let hash = hex::encode(hash);
        assert!(!timeline.contains(&hash) && !told.contains(&hash), "a bare hash can be guessed at");
    }
    line
}

async fn a_restart_brings_no_old_password_back(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, Adoption::default()).await;
    let line = rotated(store, &cache, Action::Contain).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    for node in &nodes {
        node.start_again().await;
    }
    cache.assert_rotated("after a restart").await;
    // The danger is real: what is taken away and not saved comes back.
    let now = cache.victim.stored().await.2;
    nodes[0].done(&format!("ACL SETUSER {} <{now}", cache.user)).await;
    assert_eq!(cache.lets_in(&now).await, [false, true]);
    nodes[0].start_again().await;
    assert_eq!(cache.lets_in(&now).await, [true, true]);
}

async fn what_cannot_be_saved_is_not_begun(store: Store) {
    let ground = Ground::new().await;
    let nodes = [Node::start().await, Node::start_with(false, &[]).await];
    let user = unique("cache");
    for node in &nodes {
        node.done(&format!("ACL SETUSER {user} on >first-password >{BYSTANDER} ~* +@read")).await;
    }
    let cache = ground.cache_of(&nodes, &user, "first-password", Adoption::default()).await;
    let stage = Stage::new(store, cache.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &cache.victim, Action::Rollover).await;
    let parked = |line: &CaseLine| matches!(line.case.state.phase, Phase::Held { .. });
    let line = run_until(&stage, &journal, &cache.victim, "the case to be parked", parked).await;
    assert!(is_held(&line, HoldReason::CandidateRejected), "{:?}", line.case.state.phase);
    cache.assert_everywhere("first-password", true, "what worked before works").await;
    assert_eq!(cache.passwords().await, [2, 2], "nothing was added");
    assert_eq!((cache.victim.stored().await.0, cache.victim.candidate().await), (1, None));
}

async fn a_node_that_is_down_keeps_the_others_from_nothing(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, Adoption::default()).await;
    let old = cache.victim.old.1.clone();
    nodes[1].kill();
    let stage = Stage::new(store, cache.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &cache.victim, Action::Contain).await;
    let executor = stage.executor(journal.clone());
    until("the node that is up to refuse it", || async {
        executor.drain().await.unwrap();
        (!nodes[0].lets_in(&cache.user, &old).await).then_some(())
    })
    .await;
    assert!(case_of(journal.as_ref(), cache.victim.credential()).await.unwrap().closed_ms.is_none());
    // It comes back with the password that its file has.
    nodes[1].start_again().await;
    assert!(nodes[1].lets_in(&cache.user, &old).await);
    let line = stage.run_until_closed(&journal, cache.victim.credential()).await;
    assert_one_end(&journal, &line, "one node was down").await;
    cache.assert_rotated("one node was down").await;
}

async fn nodes_that_nobody_names_leave_it_unproven(store: Store) {
    let ground = Ground::new().await;
    let main = [Node::start().await];
    let port = main[0].port.to_string();
    let replica = Node::start_with(
        true,
        &["--replicaof", "127.0.0.1", &port, "--masteruser", "root", "--masterauth", "root-password"],
    )
    .await;
    until("the replica", || async {
        let info: ::redis::InfoDict =
            ::redis::cmd("INFO").arg("replication").query_async(&mut main[0].root().await).await.unwrap();
        (info.get::<usize>("connected_slaves") == Some(1)).then_some(())
    })
    .await;
    let cache = ground.cache(&main, Adoption::default()).await;
    // On the replica it works for as long as nobody takes it away there.
    replica.done(&format!("ACL SETUSER {} on >{} ~* +@read", cache.user, cache.victim.old.1)).await;
    let connector = cache.victim.registry.by_name("redis-user", "cache").unwrap();
    let rotation = {
        let case = rollover_of(store.fresh(), &cache).await;
        cache.victim.registry.rotation(&case.case)
    };
    let subject = Subject { rotation, ..about(Kind::RedisUser, &cache.user) };
    assert_eq!(connector.observe(&subject).await.unwrap_err().kind, FailureKind::Refused);
    // A leak is contained all the same, and not called dead.
    let stage = Stage::new(store, cache.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &cache.victim, Action::Contain).await;
    let is_proving = |line: &CaseLine| line.case.state.current().is_some_and(|step| step.act == Act::Prove);
    let line = run_until(&stage, &journal, &cache.victim, "the proof to begin", is_proving).await;
    cache.assert_everywhere(&cache.victim.old.1, false, "on the node that is named").await;
    assert!(replica.lets_in(&cache.user, &cache.victim.old.1).await);
    assert!(line.closed_ms.is_none() && !matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
}

async fn nodes_of_a_cluster_count_as_well(store: Store) {
    let ground = Ground::new().await;
    let cluster = ["--cluster-enabled", "yes"];
    let nodes = [Node::start_with(true, &cluster).await, Node::start_with(true, &cluster).await];
    for node in &nodes {
        node.done("ACL SETUSER curfew +cluster|info").await;
        node.done("ACL SAVE").await;
    }
    nodes[0].done(&format!("CLUSTER MEET 127.0.0.1 {} {}", nodes[1].port, nodes[1].bus)).await;
    until("the nodes to know each other", || async {
        let info: ::redis::InfoDict =
            ::redis::cmd("CLUSTER").arg("INFO").query_async(&mut nodes[1].root().await).await.unwrap();
        (info.get::<usize>("cluster_known_nodes") == Some(2)).then_some(())
    })
    .await;
    // Of one of them alone nothing is begun; of both it is as of any two.
    let half = ground.cache(&nodes[..1], Adoption::default()).await;
    let rotation = half.victim.registry.rotation(&rollover_of(store.fresh(), &half).await.case);
    let subject = Subject { rotation, ..about(Kind::RedisUser, &half.user) };
    let connector = half.victim.registry.by_name("redis-user", "cache").unwrap();
    assert_eq!(connector.observe(&subject).await.unwrap_err().kind, FailureKind::Refused);
    let whole = ground.cache(&nodes, Adoption::default()).await;
    rotated(store, &whole, Action::Rollover).await;
    whole.assert_rotated("both nodes of a cluster").await;
}

/// A case that has been opened and nothing more.
async fn rollover_of(store: Store, cache: &Cache<'_>) -> CaseLine {
    let stage = Stage::new(store, cache.victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &cache.victim, Action::Rollover).await;
    case_of(journal.as_ref(), cache.victim.credential()).await.unwrap()
}

async fn connections_that_were_open_end(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, Adoption::default()).await;
    let mut open = Vec::new();
    for node in &nodes {
        open.push(node.log_in(&cache.user, &cache.victim.old.1).await.unwrap());
    }
    let mut bystanders = nodes[0].root().await;
    let line = rotated(store, &cache, Action::Contain).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    for connection in &mut open {
        let answer: ::redis::RedisResult<String> = ::redis::cmd("GET").arg("x").query_async(connection).await;
        assert!(answer.is_err_and(|error| error.is_io_error()), "a connection of the old password lives");
    }
    ::redis::cmd("PING").exec_async(&mut bystanders).await.unwrap();
}

async fn a_redis_user_that_is_revoked_loses_its_one_password(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, Adoption::default()).await;
    let stage = Stage::new(store, cache.victim.registry.clone());
    let journal = stage.open().await;
    let run = new_run();
    let grant = curfew::event::GrantSpec {
        credential: cache.victim.credential().clone(),
        tenure: curfew::task::Tenure::Minted,
        principal: None,
        expires_ms: None,
    };
    record(journal.as_ref(), vec![started(&run, vec![grant]), ended(&run)]).await;
    let line = stage.run_until_closed(&journal, cache.victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    cache.assert_everywhere(&cache.victim.old.1, false, "its own").await;
    cache.assert_everywhere(BYSTANDER, true, "P6: never all of the user").await;
    assert_eq!(cache.passwords().await, [1, 1]);
}

async fn a_new_password_that_leaks_before_the_old_one_is_cut_takes_both_with_it(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, consumers(3_600_000, Late::Hold)).await;
    let victim = &cache.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), victim, Action::Rollover).await;
    run_until(&stage, &journal, victim, "the promotion", is_promoted).await;
    let second = victim.stored().await.2;
    record(journal.as_ref(), vec![registered(victim, 2), finding_of(victim, 2, "active")]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert_one_end(&journal, &line, "both leaked").await;
    cache.assert_rotated("both leaked").await;
    cache.assert_everywhere(&second, false, "the second one").await;
    assert_eq!(victim.kept().await, [3]);
}

/// P6: while consumers move, somebody stores passwords of his own, twice. They are nobody's business.
async fn what_others_wrote_after_the_new_password_stays(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, consumers(3_600_000, Late::Hold)).await;
    let victim = &cache.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), victim, Action::Rollover).await;
    run_until(&stage, &journal, victim, "the promotion", is_promoted).await;
    let ours = victim.stored().await.2;
    for theirs in ["somebodys-first-password", "somebodys-second-password"] {
        for node in &nodes {
            node.done(&format!("ACL SETUSER {} >{theirs}", cache.user)).await;
        }
        let secret = json!({"data": {"username": cache.user, "password": theirs, "host": "db.example"}});
        ground.admin.done("POST", &format!("{}/data/{}", ground.mount, victim.recipe.place.path), secret).await;
    }
    record(journal.as_ref(), vec![says(victim, 2, "billing", false), says(victim, 2, "web", false)]).await;
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    for (password, lets_in) in [
        (victim.old.1.as_str(), false),
        (ours.as_str(), false),
        ("somebodys-first-password", true),
        ("somebodys-second-password", true),
        (BYSTANDER, true),
    ] {
        cache.assert_everywhere(password, lets_in, password).await;
    }
}

async fn administrators_are_never_touched(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    for node in &nodes {
        node.done("ACL SETUSER breakglass on >first-password ~* +@all").await;
        node.done("ACL SETUSER default on >first-password").await;
        node.done("ACL SETUSER curfew >first-password").await;
        node.done("ACL SETUSER requirer on >first-password +config|set").await;
    }
    for user in ["root", "breakglass", "default", "curfew", "requirer"] {
        let cache = ground.cache_of(&nodes, user, "first-password", Adoption::default()).await;
        let before = cache.passwords().await;
        let stage = Stage::new(store.fresh(), cache.victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &cache.victim, Action::Contain).await;
        let protected = |line: &CaseLine| is_held(line, HoldReason::Protected);
        run_until(&stage, &journal, &cache.victim, user, protected).await;
        assert_eq!(cache.passwords().await, before, "{user}");
    }
}

async fn who_is_let_in_anyway_is_parked(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    for how in ["nopass", "off"] {
        let cache = ground.cache(&nodes, Adoption::default()).await;
        nodes[1].done(&format!("ACL SETUSER {} {how}", cache.user)).await;
        let stage = Stage::new(store.fresh(), cache.victim.registry.clone());
        let journal = stage.open().await;
        open_case(journal.as_ref(), &cache.victim, Action::Rollover).await;
        let parked = |line: &CaseLine| is_held(line, HoldReason::CandidateRejected);
        run_until(&stage, &journal, &cache.victim, how, parked).await;
        assert!(nodes[0].lets_in(&cache.user, &cache.victim.old.1).await, "{how}: what worked before works");
        assert_eq!(cache.passwords().await[0], 2, "{how}: nothing was added");
    }
}

async fn a_consumer_that_cannot_log_in_gets_the_old_password_back(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, consumers(3_600_000, Late::Hold)).await;
    let victim = &cache.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), victim, Action::Rollover).await;
    run_until(&stage, &journal, victim, "the promotion", is_promoted).await;
    assert_eq!(cache.passwords().await, [3, 3], "old, new and a bystander");
    record(journal.as_ref(), vec![says(victim, 2, "billing", false), says(victim, 2, "web", true)]).await;
    let unhealthy = |line: &CaseLine| is_held(line, HoldReason::Unhealthy);
    run_until(&stage, &journal, victim, "the way back", unhealthy).await;
    cache.assert_given_back("unhealthy").await;
}

async fn giving_the_old_password_back_survives_every_kill(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    every_kill_of(async |death| {
        let what = format!("redis killed {death:?} on the way back");
        let cache = ground.cache(&nodes, consumers(3_600_000, Late::Hold)).await;
        let works = async || {
            let (_, _, now) = cache.victim.stored().await;
            cache.assert_everywhere(&now, true, &format!("{what}: what consumers read")).await;
        };
        let died = killed_on_the_way_back(store.fresh(), &cache.victim, death, works).await;
        cache.assert_given_back(&what).await;
        died
    })
    .await;
}

/// A finding of a value that is not stored any more: nothing is tried, the user's other passwords say it.
async fn a_password_that_is_destroyed_is_dead_by_what_is_left(store: Store) {
    let (ground, nodes) = (Ground::new().await, two_nodes().await);
    let cache = ground.cache(&nodes, Adoption::default()).await;
    let victim = &cache.victim;
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), victim, Action::Contain).await;
    let first = stage.run_until_closed(&journal, victim.credential()).await;
    // A password that nobody registered may be the one that was found: it is not called dead.
    record(journal.as_ref(), vec![registered(victim, 2), finding(victim, "active")]).await;
    let executor = stage.executor(journal.clone());
    let again = async || {
        executor.drain().await.unwrap();
        let credential = Some(victim.credential().clone());
        let filter = curfew::journal::Filter { credential, closed: true, ..Default::default() };
        let lines = journal.cases(filter).await.unwrap();
        lines.into_iter().find(|line| line.case.id != first.case.id)
    };
    let looked = |line: &CaseLine| line.case.state.current().is_some_and(|step| step.act == Act::Prove);
    let line = until("the look", || async { again().await.filter(looked) }).await;
    assert_eq!(line.case.directive.action, Action::Verify);
    assert!(line.closed_ms.is_none(), "{:?}", line.verdict);
    for node in &nodes {
        node.done(&format!("ACL SETUSER {} <{BYSTANDER}", cache.user)).await;
    }
    let line =
        until("the second case to close", || async { again().await.filter(|line| line.closed_ms.is_some()) }).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
}

#[tokio::test]
async fn what_redis_answers_is_taken_for_what_it_is() {
    let ground = Ground::new().await;
    let nodes = [Node::start().await];
    let cache = ground.cache(&nodes, Adoption::default()).await;
    let case = rollover_of(Store::sqlite(), &cache).await.case;
    let rotation = cache.victim.registry.rotation(&case);
    let subject = Subject { rotation, ..about(Kind::RedisUser, &cache.user) };
    let connector = cache.victim.registry.by_name("redis-user", "cache").unwrap();
    let kind = async || connector.observe(&subject).await.map(|seen| seen.presence).map_err(|failure| failure.kind);
    assert_eq!(kind().await, Ok(Presence::Present));
    assert_eq!(connector.self_check().await, Ok(()));
    // Our own user lacks a right: that is about our access, and the self-check says which.
    nodes[0].done("ACL SETUSER curfew -acl|save").await;
    let lacks = connector.self_check().await.unwrap_err();
    assert_eq!((lacks.kind, lacks.blocks_system), (FailureKind::Denied, true));
    assert!(lacks.note.contains("ACL SAVE"), "{}", lacks.note);
    nodes[0].done("ACL SETUSER curfew +acl|save -acl|getuser").await;
    assert_eq!(kind().await, Err(FailureKind::Denied));
    nodes[0].done("ACL SETUSER curfew +acl|getuser off").await;
    assert_eq!(kind().await, Err(FailureKind::Denied));
    assert_eq!(connector.self_check().await.unwrap_err().kind, FailureKind::Denied);
    nodes[0].done("ACL SETUSER curfew on").await;
    assert_eq!(kind().await, Ok(Presence::Present));
    nodes[0].done(&format!("ACL DELUSER {}", cache.user)).await;
    assert_eq!(kind().await, Ok(Presence::Gone));
    // Full of others, by one that stays: told before anything else.
    let mut other = nodes[0].root().await;
    ::redis::cmd("CONFIG").arg(&["SET", "maxclients", "1"]).exec_async(&mut other).await.unwrap();
    assert_eq!(kind().await, Err(FailureKind::Unavailable));
    drop(other);
    nodes[0].kill();
    assert_eq!(kind().await, Err(FailureKind::Unavailable));
    assert_eq!(connector.probe(&subject).await.answer, curfew::case::record::Answer::Unknown);
}
