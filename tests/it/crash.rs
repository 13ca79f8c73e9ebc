//! Every plan of the Vault connector, on real servers: killed at every append (before and after it is durable), each call
//! failed in each way, each effect repeated, each reply cut after execution. Each run must end with the credential dead,
//! one terminal outcome, one lasting effect, and no orphan.

use std::sync::Arc;

use curfew::case::record::{FailureKind, Record, Verdict};
use curfew::case::state::State;
use curfew::connector::Registry;
use curfew::credential::{CredentialId, Kind};
use curfew::journal::{CaseLine, Journal};
use curfew::outcome;
use curfew::task::RunKey;
use serde_json::json;

use crate::admin::{Admin, Postgres, connectors};
use crate::stage::{Broken, Death, Dying, Fault, Stage, case_of, new_run};
use crate::store::Store;
use crate::world::until;

/// The kinds of plan that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    LeaseAtIssuer,
    LeaseAtTarget,
    Token,
    SecretId,
}

/// A fresh credential and how to see from outside that it is dead.
struct Victim {
    run: RunKey,
    credential: CredentialId,
    principal: Option<String>,
    alive: Alive,
}

enum Alive {
    Login { username: String, password: String },
    Tokens(Vec<String>),
}

/// One plan's servers.
struct Ground {
    plan: Plan,
    admin: Admin,
    mount: String,
    registry: Registry,
}

impl Ground {
    async fn new(plan: Plan) -> Self {
        let admin = Admin::shared();
        let mount = match plan {
            Plan::LeaseAtIssuer | Plan::LeaseAtTarget => admin.database().await,
            Plan::SecretId => admin.approle().await,
            Plan::Token => String::new(),
        };
        let registry = connectors(&admin, &mount, plan == Plan::LeaseAtTarget).await;
        Self { plan, admin, mount, registry }
    }

    async fn victim(&self) -> Victim {
        let run = new_run();
        let id = |kind, id: &str| CredentialId::new(kind, "test", id).unwrap();
        match self.plan {
            Plan::LeaseAtIssuer | Plan::LeaseAtTarget => {
                let made = self.admin.database_credential(&self.mount).await;
                let principal = (self.plan == Plan::LeaseAtTarget).then(|| made.username.clone());
                let alive = Alive::Login { username: made.username, password: made.password };
                Victim { run, credential: id(Kind::VaultLease, &made.lease), principal, alive }
            }
            Plan::Token => {
                let (accessor, token) = self.admin.token(json!({})).await;
                Victim {
                    run,
                    credential: id(Kind::VaultToken, &accessor),
                    principal: None,
                    alive: Alive::Tokens(vec![token]),
                }
            }
            Plan::SecretId => {
                let metadata = json!({"curfew_run": run.as_str()});
                let (accessor, secret_id) = self.admin.secret_id(&self.mount, metadata).await;
                let (token, _) = self.admin.approle_login(&self.mount, &secret_id).await;
                let credential = id(Kind::VaultSecretId, &format!("{}/ci/{accessor}", self.mount));
                Victim { run, credential, principal: None, alive: Alive::Tokens(vec![token]) }
            }
        }
    }

    /// As the witness sees it, not as Curfew says.
    async fn assert_dead(&self, victim: &Victim, what: &str) {
        match &victim.alive {
            Alive::Login { username, password } => {
                let pg = Postgres::shared();
                assert!(pg.login(username, password).await.is_err(), "{what}: the login still works");
                assert_eq!(pg.drops(username), 1, "{what}: the role was dropped exactly once");
            }
            Alive::Tokens(tokens) => {
                for token in tokens {
                    assert!(!self.admin.token_works(token).await, "{what}: the token still works");
                }
            }
        }
    }
}

/// What must hold of a closed case, whatever happened on the way.
async fn assert_one_end(journal: &Arc<dyn Journal>, line: &CaseLine, what: &str) {
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{what}: {:?}", line.verdict);
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    let records: Vec<Record> = timeline.records.iter().flat_map(|(_, _, records)| records.clone()).collect();
    assert_eq!(State::fold(&records).unwrap(), line.case.state, "{what}: the row is the fold of its records");
    let closes = records.iter().filter(|r| matches!(r, Record::Closed { .. })).count();
    assert_eq!(closes, 1, "{what}: one end");
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let outcomes = rows.iter().filter(|row| row.kind == outcome::Kind::Outcome).count();
    assert_eq!(outcomes, 1, "{what}: one outcome");
    let stats = journal.stats(crate::stage::now_ms()).await.unwrap();
    assert_eq!((stats.accepted, stats.closed), (2, 2), "{what}: every accepted event is closed");
}

/// A first run under `break_it`, then a fresh process that finishes. Returns whether the break took place.
async fn killed_and_resumed(store: Store, ground: &Ground, death: Death) -> bool {
    let what = format!("{:?} killed {death:?}", ground.plan);
    let stage = Stage::new(store, ground.registry.clone());
    let victim = ground.victim().await;
    let died = {
        let journal = stage.open().await;
        stage.task_ends(journal.as_ref(), &victim.run, &victim.credential, victim.principal.as_deref()).await;
        let dying = Dying::new(journal.clone(), death);
        let executor = stage.executor(dying.clone());
        until("the death or the end", || async {
            let drained = executor.drain().await;
            let closed = case_of(journal.as_ref(), &victim.credential).await.is_some_and(|c| c.closed_ms.is_some());
            (dying.died() || drained.is_err() || closed).then_some(())
        })
        .await;
        dying.died()
    };
    stage.store.leases_end().await;
    let journal = stage.open().await;
    let line = stage.run_until_closed(&journal, &victim.credential).await;
    assert_one_end(&journal, &line, &what).await;
    ground.assert_dead(&victim, &what).await;
    died
}

async fn broken_and_finished(store: Store, ground: &Ground, fault: Fault) -> usize {
    let what = format!("{:?} with {fault:?}", ground.plan);
    let (registry, calls) = Broken::all(&ground.registry, fault);
    let stage = Stage::new(store, registry);
    let victim = ground.victim().await;
    let journal = stage.open().await;
    stage.task_ends(journal.as_ref(), &victim.run, &victim.credential, victim.principal.as_deref()).await;
    let line = stage.run_until_closed(&journal, &victim.credential).await;
    assert_one_end(&journal, &line, &what).await;
    ground.assert_dead(&victim, &what).await;
    calls.load(std::sync::atomic::Ordering::SeqCst)
}

async fn every_kill(store: Store, plan: Plan) {
    let ground = Ground::new(plan).await;
    for make in [Death::Before as fn(usize) -> Death, Death::After] {
        let mut at = 0;
        while killed_and_resumed(store.fresh(), &ground, make(at)).await {
            at += 1;
        }
        assert!(at >= 2, "{plan:?}: a plan has at least two appends, killed at {at}");
    }
}

async fn every_fault(store: Store, plan: Plan) {
    let ground = Ground::new(plan).await;
    let calls = broken_and_finished(store.fresh(), &ground, Fault::Twice).await;
    assert!(calls >= 2, "{plan:?}: looks and acts");
    for nth in 0..calls {
        for kind in [FailureKind::Unavailable, FailureKind::Unknown, FailureKind::Throttled { after_ms: Some(50) }] {
            broken_and_finished(store.fresh(), &ground, Fault::Fails(nth, kind)).await;
        }
        broken_and_finished(store.fresh(), &ground, Fault::ReplyCut(nth)).await;
    }
}

over_both! {
    a_lease_proven_at_the_issuer_survives_every_kill,
    a_lease_proven_at_the_target_survives_every_kill,
    a_token_survives_every_kill,
    a_secret_id_survives_every_kill,
    a_lease_proven_at_the_issuer_survives_every_fault,
    a_lease_proven_at_the_target_survives_every_fault,
    a_token_survives_every_fault,
    a_secret_id_survives_every_fault,
}

async fn a_lease_proven_at_the_issuer_survives_every_kill(store: Store) {
    every_kill(store, Plan::LeaseAtIssuer).await;
}

async fn a_lease_proven_at_the_target_survives_every_kill(store: Store) {
    every_kill(store, Plan::LeaseAtTarget).await;
}

async fn a_token_survives_every_kill(store: Store) {
    every_kill(store, Plan::Token).await;
}

async fn a_secret_id_survives_every_kill(store: Store) {
    every_kill(store, Plan::SecretId).await;
}

async fn a_lease_proven_at_the_issuer_survives_every_fault(store: Store) {
    every_fault(store, Plan::LeaseAtIssuer).await;
}

async fn a_lease_proven_at_the_target_survives_every_fault(store: Store) {
    every_fault(store, Plan::LeaseAtTarget).await;
}

async fn a_token_survives_every_fault(store: Store) {
    every_fault(store, Plan::Token).await;
}

async fn a_secret_id_survives_every_fault(store: Store) {
    every_fault(store, Plan::SecretId).await;
}
