//! The plan that ends a stored credential for good: killed, failed, repeated and cut like the others. Each run must end with
//! nobody who can log in, and no value stored.

use super::*;
use crate::stage::{ended, new_run, started};

over_both! {
    one_user_that_ends_survives_every_kill,
    two_users_that_end_survive_every_kill,
    one_user_that_ends_survives_every_fault,
    two_users_that_end_survive_every_fault,
}

/// Its only task ends.
pub(super) async fn open_case(journal: &dyn Journal, victim: &Victim) {
    let run = new_run();
    let credential = victim.credential().clone();
    let tenure = curfew::task::Tenure::Minted;
    let grant = curfew::event::GrantSpec { credential, tenure, principal: None, expires_ms: None };
    record(journal, vec![started(&run, vec![grant]), ended(&run)]).await;
}

impl Victim {
    async fn open_users(&self) -> i64 {
        if self.behind == Behind::Mariadb {
            return super::mariadb::open(&self.recipe.users).await;
        }
        let open = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname = ANY ($1)";
        let pool = self.pg.pool().await;
        sqlx::query_scalar(open).bind(self.recipe.users.names()).fetch_one(&pool).await.unwrap()
    }

    pub(super) async fn assert_ended(&self, what: &str) {
        assert!(!self.works(&self.old).await, "{what}: the value works");
        assert_eq!(self.open_users().await, 0, "{what}: a user can log in");
        let Place { mount, path, .. } = &self.recipe.place;
        for path in [path.clone(), format!("curfew-pending/{path}")] {
            let (_, body) = self.shelf.admin.call("GET", &format!("{mount}/data/{path}"), Value::Null).await;
            assert!(body["data"]["data"]["password"].is_null(), "{what}: a value is stored");
        }
        self.assert_copies_lost_it(what).await;
    }
}

async fn one_user_that_ends_survives_every_kill(store: Store) {
    every_kill(store, Shape::One, Action::Revoke).await;
}

async fn two_users_that_end_survive_every_kill(store: Store) {
    every_kill(store, Shape::Two, Action::Revoke).await;
}

async fn one_user_that_ends_survives_every_fault(store: Store) {
    every_fault(store, Shape::One, Action::Revoke).await;
}

async fn two_users_that_end_survive_every_fault(store: Store) {
    every_fault(store, Shape::Two, Action::Revoke).await;
}
