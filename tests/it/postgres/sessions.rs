//! Whose a session is, once it has become somebody else: `usesysid` names who logged in. Measured on the real server.

use curfew::case::plan::Act;
use curfew::case::record::{Answer, Residue};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};

use super::shelf::{DEAD, Life};
use super::{about, as_user, look, make, quoted, run, target, weak_target};
use crate::world::unique;

/// `(who logged in, as pg_stat_activity shows; who it is by itself)`
async fn who(admin: &mut PgConnection, session: &mut PgConnection) -> (Option<String>, String) {
    let (pid, user): (i32, String) =
        sqlx::query_as("SELECT pg_backend_pid(), current_user::text").fetch_one(session).await.unwrap();
    let shown = "SELECT r.rolname::text FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE pid = $1";
    (sqlx::query_scalar(shown).bind(pid).fetch_optional(admin).await.unwrap(), user)
}

async fn set(session: &mut PgConnection, what: &str, user: &str) {
    run(session, format!("SET {what} {}", quoted(user))).await;
}

#[tokio::test]
async fn a_session_is_of_who_logged_in_whoever_it_became() {
    let [task, other, passer] = ["v-task", "other", "passer"].map(unique);
    let mut admin = make(&task).await;
    make(&other).await;
    make(&passer).await;
    run(&mut admin, format!("GRANT {} TO {}", quoted(&other), quoted(&task))).await;
    run(&mut admin, format!("ALTER ROLE {} SUPERUSER", quoted(&task))).await;
    run(&mut admin, format!("ALTER ROLE {} SUPERUSER", quoted(&passer))).await;
    let [mut by_role, mut by_session] = [
        PgConnection::connect_with(&as_user(&task)).await.unwrap(),
        PgConnection::connect_with(&as_user(&task)).await.unwrap(),
    ];
    set(&mut by_role, "ROLE", &other).await;
    set(&mut by_session, "SESSION AUTHORIZATION", &other).await;
    // Somebody else who became the task's user.
    let mut foreign = PgConnection::connect_with(&as_user(&passer)).await.unwrap();
    set(&mut foreign, "SESSION AUTHORIZATION", &task).await;
    for user in [&task, &passer] {
        run(&mut admin, format!("ALTER ROLE {} NOSUPERUSER", quoted(user))).await;
    }
    assert_eq!(who(&mut admin, &mut by_role).await, (Some(task.clone()), other.clone()));
    assert_eq!(who(&mut admin, &mut by_session).await, (Some(task.clone()), other.clone()));
    assert_eq!(who(&mut admin, &mut foreign).await, (Some(passer.clone()), task.clone()));

    let (target, weak) = (target().await, weak_target().await);
    let mut subject = about(&task);
    look(&target, &mut subject).await;
    target.perform(Act::Disable, &subject).await.unwrap();
    // Who may not end them reports them.
    let reported = weak.probe(&subject).await;
    assert_eq!((reported.answer, reported.residue), (Answer::Refused, vec![Residue::Sessions]));
    assert_eq!(target.probe(&subject).await.answer, Answer::Accepted, "they are open");
    assert_eq!(target.perform(Act::EndSessions, &subject).await.unwrap().derived, 2);
    for session in [&mut by_role, &mut by_session] {
        assert!(session.execute("SELECT 1").await.is_err(), "it was opened with the task's password");
    }
    foreign.execute("SELECT 1").await.expect("it was opened with another's");
    let dead = target.probe(&subject).await;
    assert_eq!((dead.answer, dead.control, dead.residue), (Answer::Refused, true, vec![]));
}

#[tokio::test]
async fn a_stored_passwords_sessions_end_whoever_they_became() {
    for two in [false, true] {
        let mut life = Life::of(two).await;
        life.contains = true;
        life.look().await;
        let other = unique("other");
        let mut admin = make(&other).await;
        let mut session = life.login(0, &life.old).await.unwrap();
        run(&mut admin, format!("GRANT {} TO {}", quoted(&other), quoted(life.recipe.users.names()[0]))).await;
        set(&mut session, "ROLE", &other).await;
        life.act(Act::Disable).await;
        assert_eq!(life.probe().await.0, Answer::Accepted, "its session is open");
        assert_eq!(life.act(Act::EndSessions).await.derived, 1);
        assert!(session.execute("SELECT 1").await.is_err());
        assert_eq!(life.probe().await, DEAD);
    }
}
