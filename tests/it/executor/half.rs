//! What a hard freeze leaves half-made is listed, and the commands of the list mend it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use curfew::case::record::FailureKind;
use curfew::intake::Intake;
use curfew::ops::operator::Operator;
use curfew::ops::{Reply, Request};
use sqlx::{AssertSqlSafe, Executor as _};

use super::*;
use crate::admin::Postgres;

/// Vault answers no revoke while this is set.
#[derive(Clone, Default)]
struct Away(Arc<AtomicBool>);

#[async_trait]
impl Between for Away {
    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        if act == Act::Revoke && self.0.load(Ordering::SeqCst) {
            return Err(Failure::new(FailureKind::Unavailable, "scripted: away"));
        }
        inner.perform(act, subject).await
    }
}

fn operator(scene: &Scene, freeze_file: PathBuf) -> Operator {
    let intake = Intake {
        journal: scene.journal.clone(),
        rules: Arc::default(),
        limits: curfew::event::Limits::default(),
        clock: curfew::clock::System::shared(),
        metrics: Arc::default(),
        stirred: Arc::default(),
        trust: None,
        types: None,
    };
    let reach = curfew::reach::kept::Kept::new(intake.journal.clone(), Vec::new());
    Operator { intake, reach, freeze_file }
}

async fn freezes(operator: &Operator) -> Vec<Value> {
    let request = Request::Freeze { hard: true, by: "ana".to_owned(), reason: "test".to_owned() };
    let Reply::Ok(value) = operator.answer(request).await else { panic!("not frozen") };
    assert_eq!(value, json!({"frozen": "hard"}), "answered without a look at any case");
    let Reply::Ok(value) = operator.answer(Request::HalfMade {}).await else { panic!("not listed") };
    value.as_array().unwrap().clone()
}

over_both! {
    a_hard_freeze_lists_what_is_half_made_with_what_mends_it,
}

async fn a_hard_freeze_lists_what_is_half_made_with_what_mends_it(store: Store) {
    let (admin, pg) = (Admin::shared(), Postgres::shared());
    let mount = admin.database().await;
    let away = Away(Arc::new(AtomicBool::new(true)));
    let registry = away.before(&connectors(&admin, &mount, true).await);
    let scene = Scene::with(store, admin, &registry, Arc::new(|_| ())).await;
    let folder = tempfile::tempdir().unwrap();
    let operator = operator(&scene, folder.path().join("freeze"));
    assert_eq!(freezes(&operator).await, Vec::<Value>::new());
    operator.answer(Request::Release { by: "ana".to_owned() }).await;

    let made = scene.admin.database_credential(&mount).await;
    let id = CredentialId::new(Kind::VaultLease, "test", &made.lease).unwrap();
    let (token, _) = scene.token(json!({})).await;
    scene.stage.task_ends(scene.journal.as_ref(), &new_run(), &id, Some(&made.username)).await;
    scene.ends(&new_run(), &token).await;
    until("a user that may not log in", || async {
        scene.drain().await;
        pg.login(&made.username, &made.password).await.is_err().then_some(())
    })
    .await;
    // The token is as half revoked as the lease: but with one effect alone there is no half.
    let half = freezes(&operator).await;
    assert_eq!(half.len(), 1, "{half:?}");
    assert_eq!((&half[0]["credential"], &half[0]["at"]), (&json!(id.as_str()), &json!("appdb")));
    let run = |n: usize| half[0]["by_hand"][n]["run"].as_str().unwrap().to_owned();
    away.0.store(false, Ordering::SeqCst);
    scene.drain().await;
    assert!(scene.admin.lease_lives(&made.lease).await, "it is frozen, whatever Vault would say");

    // To undo it: what is listed is what PostgreSQL takes.
    pg.pool().await.execute(AssertSqlSafe(run(1))).await.unwrap();
    pg.login(&made.username, &made.password).await.unwrap();
    // To end it: Vault's own command, by its path.
    assert_eq!(run(0), format!("vault lease revoke {}", made.lease));
    let (status, _) = scene.admin.call("PUT", "sys/leases/revoke", json!({"lease_id": made.lease, "sync": true})).await;
    assert_eq!(status, 204);
    pg.login(&made.username, &made.password).await.unwrap_err();

    operator.answer(Request::Release { by: "ana".to_owned() }).await;
    assert!(matches!(scene.closes(&id).await, Verdict::Dead { .. }));
    assert_eq!(freezes(&operator).await, Vec::<Value>::new());
}
