//! A user that owns objects cannot be dropped: its credential ends as dead, by what is left (`cleanup_pending`), not in a
//! loop. Dead, since it was seen that nobody gets in with it and nobody is in; what is left is named in the verdict, and
//! alarmed. While the lease is still listed, reconcile asks again, once a day.

use std::sync::Arc;

use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Level, Record, Residue, Verdict};
use curfew::case::state::Phase;
use curfew::case::{Action, HoldReason};
use curfew::connector::recipe::Adoption;
use curfew::connector::{Connector, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::event::{Data, Event, GrantSpec, Type};
use curfew::journal::{CaseLine, Filter, Journal};
use curfew::outcome;
use curfew::task::Tenure;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::admin::{Admin, DatabaseCredential, Postgres, connectors};
use crate::rotation::{Ground, Shape, open_case};
use crate::stage::{Stage, case_of, ended, event, new_run, record, started};
use crate::store::Store;
use crate::world::{unique, until};

/// A database engine whose users are removed by `revocation`; by Vault's own statements where there are none.
async fn engine(admin: &Admin, revocation: &[&str]) -> String {
    let mount = admin.database().await;
    let (_, role) = admin.call("GET", &format!("{mount}/roles/app"), Value::Null).await;
    let mut role = role["data"].clone();
    role["revocation_statements"] = json!(revocation);
    admin.done("POST", &format!("{mount}/roles/app"), role).await;
    mount
}

async fn run(pool: &PgPool, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

/// A table of its own.
async fn owns(pool: &PgPool, user: &str) {
    let table = unique("owned").replace('-', "_");
    run(pool, format!("CREATE TABLE {table} (); ALTER TABLE {table} OWNER TO \"{user}\"")).await;
}

async fn owns_nothing(pool: &PgPool, user: &str) {
    run(pool, format!("REASSIGN OWNED BY \"{user}\" TO CURRENT_USER")).await;
}

fn id_of(lease: &DatabaseCredential) -> CredentialId {
    CredentialId::new(Kind::VaultLease, "test", &lease.lease).unwrap()
}

/// What Vault answers, by its own statements and by those of people; on the real one.
#[tokio::test(flavor = "multi_thread")]
async fn vault_says_why_it_did_not_drop_a_user() {
    let admin = Admin::shared();
    let pg = Postgres::shared();
    let pool = pg.pool().await;
    let own: &[&str] = &["REVOKE ALL ON SCHEMA public FROM \"{{name}}\"; DROP ROLE \"{{name}}\";"];
    for (revocation, owner, kind) in [
        (&[][..], true, FailureKind::Refused),
        (own, true, FailureKind::Refused),
        // A statement that fails for another reason may be mended, or be the moment's.
        (&["SELECT 1/0;"], false, FailureKind::Unknown),
        (&["DROP OWNED BY nobody_of_this_name;"], true, FailureKind::Unknown),
    ] {
        let mount = engine(&admin, revocation).await;
        let registry = connectors(&admin, &mount, false).await;
        let vault: &Arc<dyn Connector> = registry.by_name("vault-lease", "test").unwrap();
        let lease = admin.database_credential(&mount).await;
        if owner {
            owns(&pool, &lease.username).await;
        }
        let subject = Subject {
            credential: id_of(&lease),
            principal: Some(lease.username.clone()),
            seen: None,
            issuer: None,
            run: None,
            key: None,
            rotation: None,
            rescope: None,
            message: None,
            place: None,
        };
        let failure = vault.perform(Act::Revoke, &subject).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{revocation:?}: {failure}");
        assert!(!failure.note.contains(&lease.username), "no word of the provider's: {failure}");
        assert!(admin.lease_lives(&lease.lease).await, "the lease lives on");
        if kind == FailureKind::Refused {
            // What a session has for itself is in the way as well.
            let other = admin.database_credential(&mount).await;
            let mut session = pg.login(&other.username, &other.password).await.unwrap();
            sqlx::query("CREATE TEMPORARY TABLE rows_of_mine ()").execute(&mut session).await.unwrap();
            let its = Subject { credential: id_of(&other), ..subject.clone() };
            assert_eq!(vault.perform(Act::Revoke, &its).await.unwrap_err().kind, FailureKind::Refused);
            // Once somebody has taken what it owned, the same call removes it.
            owns_nothing(&pool, &lease.username).await;
            vault.perform(Act::Revoke, &subject).await.unwrap();
            assert!(!admin.lease_lives(&lease.lease).await);
        }
    }
}

over_both! {
    a_lease_whose_user_owns_objects_ends_with_cleanup_pending,
    a_lease_whose_user_cannot_be_fenced_waits_for_a_person,
    a_lease_whose_session_has_a_temporary_table_leaves_nothing,
    a_stored_credential_that_ends_and_whose_user_owns_objects_says_so,
    a_pair_whose_old_user_owns_objects_is_contained_and_waits_for_a_person,
}

async fn records(journal: &Arc<dyn Journal>, line: &CaseLine) -> Vec<Record> {
    let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
    timeline.records.into_iter().flat_map(|(_, _, records)| records).collect()
}

/// How often it was told that it cannot be removed. (A call that got no answer is made again, and is not meant.)
fn refusals(records: &[Record]) -> usize {
    let mut acts = Vec::new();
    let mut count = 0;
    for record in records {
        match record {
            Record::Planned { plan, .. } => acts = plan.steps.iter().map(|step| step.act).collect(),
            Record::Failed { step, failure: FailureKind::Refused, .. } if acts[*step] == Act::Revoke => count += 1,
            _ => {}
        }
    }
    count
}

fn alarms(stage: &Stage, alarm: &str) -> bool {
    !stage.metrics.render().contains(&format!("curfew_alarms_total{{alarm=\"{alarm}\"}} 0\n"))
}

/// The lease is still listed, a day later.
fn listed(id: &CredentialId) -> Event {
    let data = Data::ReconcileFound { credential: id.clone(), run: None, exclusive: false };
    let mut found = event(Type::ReconcileFound, data);
    found.at.topic = "curfew".into();
    found.source = "/curfew/reconcile".to_owned();
    found.broker_ms += 86_400_000;
    found
}

async fn a_lease_whose_user_owns_objects_ends_with_cleanup_pending(store: Store) {
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let pool = pg.pool().await;
    let mount = engine(&admin, &[]).await;
    let stage = Stage::new(store, connectors(&admin, &mount, true).await);
    let journal = stage.open().await;
    let lease = admin.database_credential(&mount).await;
    let id = id_of(&lease);
    owns(&pool, &lease.username).await;
    let mut session = pg.login(&lease.username, &lease.password).await.unwrap();

    stage.task_ends(journal.as_ref(), &new_run(), &id, Some(&lease.username)).await;
    let line = stage.run_until_closed(&journal, &id).await;
    let Verdict::Dead { level, residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
    assert_eq!((*level, residue.as_slice()), (Level::Target, &[Residue::CleanupPending][..]));
    assert_eq!(refusals(&records(&journal, &line).await), 1, "it is not tried again and again");
    assert!(alarms(&stage, "cleanup_pending"));
    assert!(pg.login(&lease.username, &lease.password).await.is_err(), "nobody gets in");
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "nobody is in");
    let rows = journal.outbox(0, 1_000).await.unwrap();
    let told = rows.iter().rfind(|row| row.kind == outcome::Kind::Outcome).expect("an outcome");
    let told: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(told["data"]["verdict"]["residue"], json!(["cleanup_pending"]), "{told}");

    // The lease is still there, and so is its user: found again, it is asked once more, and stays shut.
    assert!(admin.lease_lives(&lease.lease).await);
    let executor = stage.executor(journal.clone());
    let again = async |nth: usize| {
        record(journal.as_ref(), vec![listed(&id)]).await;
        until("another case about it to close", || async {
            executor.drain().await.unwrap();
            let filter = Filter { credential: Some(id.clone()), closed: true, ..Filter::default() };
            let lines = journal.cases(filter).await.unwrap();
            let all = lines.len() == nth && lines.iter().all(|line| line.closed_ms.is_some());
            all.then(|| lines.into_iter().max_by_key(|line| line.case.opened_ms).expect("a case"))
        })
        .await
    };
    let second = again(2).await;
    let Verdict::Dead { residue, .. } = &second.verdict else { panic!("{:?}", second.verdict) };
    assert_eq!(residue.as_slice(), [Residue::CleanupPending]);
    assert_eq!(refusals(&records(&journal, &second).await), 1);
    // Somebody takes what it owned: the next time it goes, and nothing is left.
    owns_nothing(&pool, &lease.username).await;
    let third = again(3).await;
    let Verdict::Dead { residue, .. } = &third.verdict else { panic!("{:?}", third.verdict) };
    assert_eq!(residue.as_slice(), []);
    assert!(!admin.lease_lives(&lease.lease).await);
}

/// What a session owns goes with it: it ends before the revoke.
async fn a_lease_whose_session_has_a_temporary_table_leaves_nothing(store: Store) {
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let mount = engine(&admin, &[]).await;
    let stage = Stage::new(store, connectors(&admin, &mount, true).await);
    let journal = stage.open().await;
    let lease = admin.database_credential(&mount).await;
    let id = id_of(&lease);
    let mut session = pg.login(&lease.username, &lease.password).await.unwrap();
    sqlx::query("CREATE TEMPORARY TABLE rows_of_mine ()").execute(&mut session).await.unwrap();
    stage.task_ends(journal.as_ref(), &new_run(), &id, Some(&lease.username)).await;
    let line = stage.run_until_closed(&journal, &id).await;
    assert!(matches!(&line.verdict, Verdict::Dead { residue, .. } if residue.is_empty()), "{:?}", line.verdict);
    assert_eq!(refusals(&records(&journal, &line).await), 0, "what the session had is not in the way");
    assert!(!admin.lease_lives(&lease.lease).await && pg.drops(&lease.username) >= 1);
}

/// Nothing shuts its login: that is no containment, so a person must come, and is called.
async fn a_lease_whose_user_cannot_be_fenced_waits_for_a_person(store: Store) {
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let pool = pg.pool().await;
    let mount = engine(&admin, &[]).await;
    let stage = Stage::new(store, connectors(&admin, &mount, false).await);
    let journal = stage.open().await;
    let lease = admin.database_credential(&mount).await;
    let id = id_of(&lease);
    owns(&pool, &lease.username).await;
    stage.task_ends(journal.as_ref(), &new_run(), &id, Some(&lease.username)).await;
    let executor = stage.executor(journal.clone());
    let line = until("the case to be held", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), &id).await?;
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::Refused }).then_some(line)
    })
    .await;
    assert_eq!(line.verdict, Verdict::Alive { by: HoldReason::Refused }, "never called dead");
    assert!(alarms(&stage, "refused"));
    owns_nothing(&pool, &lease.username).await;
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, &id).await;
    assert!(matches!(&line.verdict, Verdict::Dead { residue, .. } if residue.is_empty()), "{:?}", line.verdict);
    assert!(pg.login(&lease.username, &lease.password).await.is_err());
}

async fn a_stored_credential_that_ends_and_whose_user_owns_objects_says_so(store: Store) {
    let ground = Ground::new().await;
    let pool = ground.pg.pool().await;
    for owner in [true, false] {
        let victim = ground.victim(Shape::One, Adoption::default()).await;
        if owner {
            owns(&pool, &victim.old.0).await;
        }
        let stage = Stage::new(store.fresh(), victim.registry.clone());
        let journal = stage.open().await;
        let run = new_run();
        let credential = victim.credential().clone();
        let grant = GrantSpec { credential, tenure: Tenure::Minted, principal: None, expires_ms: None };
        record(journal.as_ref(), vec![started(&run, vec![grant]), ended(&run)]).await;
        let line = stage.run_until_closed(&journal, victim.credential()).await;
        let Verdict::Dead { residue, .. } = &line.verdict else { panic!("{:?}", line.verdict) };
        assert_eq!(residue.contains(&Residue::CleanupPending), owner, "{residue:?}");
        assert_eq!(alarms(&stage, "cleanup_pending"), owner);
        assert!(!victim.works(&victim.old).await);
    }
}

/// Of two users, the new one would lack what the old one owns: it is not promoted. The leaked one is shut all the same.
async fn a_pair_whose_old_user_owns_objects_is_contained_and_waits_for_a_person(store: Store) {
    let ground = Ground::new().await;
    let pool = ground.pg.pool().await;
    let victim = ground.victim(Shape::Two, Adoption::default()).await;
    owns(&pool, &victim.old.0).await;
    let mut session = ground.pg.login(&victim.old.0, &victim.old.1).await.unwrap();
    let stage = Stage::new(store, victim.registry.clone());
    let journal = stage.open().await;
    open_case(journal.as_ref(), &victim, Action::Contain).await;
    let executor = stage.executor(journal.clone());
    let line = until("the case to be parked", || async {
        executor.drain().await.unwrap();
        let line = case_of(journal.as_ref(), victim.credential()).await?;
        matches!(line.case.state.phase, Phase::Held { reason: HoldReason::CandidateRejected }).then_some(line)
    })
    .await;
    assert!(!victim.works(&victim.old).await, "contained");
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err());
    assert_eq!((victim.stored().await.0, victim.candidate().await), (1, None), "all else is undone");
    assert!(alarms(&stage, "candidate_rejected"));
    let why = records(&journal, &line).await.into_iter().find_map(|record| match record {
        Record::Failed { failure: FailureKind::Refused, note, .. } => Some(note),
        _ => None,
    });
    assert!(why.as_ref().is_some_and(|note| note.contains("owned objects: 1")), "{why:?}");
    // A person lets the new one have it, and has it tried again.
    let [old, new] = victim.recipe.users.names()[..] else { unreachable!("two users") };
    run(&pool, format!("GRANT \"{old}\" TO \"{new}\"")).await;
    let resumed = Record::Resumed { by: "ann".into() };
    journal.command(line.case.id, Some(resumed), crate::stage::now_ms()).await.unwrap();
    let line = stage.run_until_closed(&journal, victim.credential()).await;
    assert!(matches!(line.verdict, Verdict::Dead { .. }), "{:?}", line.verdict);
    victim.assert_rotated("owned").await;
}
