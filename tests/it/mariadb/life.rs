//! A rotation at a MariaDB that a test leads by hand.

use std::sync::Arc;

use curfew::connector::Connector;
use curfew::connector::recipe::Users;
use curfew::credential::Kind;
use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;

use super::{admin, hashed, login, make, run, shared, target_by};
use crate::postgres::shelf::{Life, value};
use crate::world::unique;

pub type Rotating = Life<MySqlConnection>;

impl Life<MySqlConnection> {
    /// Of an account or two, by Curfew as the server's administrator.
    pub async fn in_mariadb(two: bool) -> Self {
        Self::by(two, target_by(&shared()).await).await
    }

    pub async fn by(two: bool, target: Arc<dyn Connector>) -> Self {
        let name = unique("App@x");
        let users = if two { Users::Two(format!("{name}_a"), format!("{name}_b")) } else { Users::One(name) };
        Self::made_by(admin().await, users, target).await
    }

    /// At a server of the test's own.
    pub async fn of_server(url: &str, two: bool) -> Self {
        let name = unique("app");
        let users = if two { Users::Two(format!("{name}_a"), format!("{name}_b")) } else { Users::One(name) };
        Self::made_by(MySqlConnection::connect(url).await.unwrap(), users, target_by(url).await).await
    }

    async fn made_by(mut admin: MySqlConnection, users: Users, target: Arc<dyn Connector>) -> Self {
        let old = value();
        for user in users.names() {
            make(&mut admin, &format!("'{user}'@'%'"), &old).await;
        }
        if let Users::Two(_, idle) = &users {
            run(&mut admin, format!("ALTER USER '{idle}'@'%' IDENTIFIED VIA mysql_native_password ACCOUNT LOCK")).await;
        }
        let id: Vec<String> = users.names().iter().map(|user| format!("{user}@%")).collect();
        Self::begin(target, admin, users, (Kind::MariadbUser, &id.join(",")), old)
    }

    pub async fn login(&self, place: usize, value: &str) -> Result<MySqlConnection, sqlx::Error> {
        login(&self.user(place), value).await
    }

    pub async fn logs_in(&self, place: usize, value: &str) -> bool {
        self.login(place, value).await.is_ok()
    }

    /// `{}` in it is the account at this place.
    pub async fn sql(&mut self, place: usize, sql: &str) {
        let sql = sql.replace("{}", &format!("'{}'@'%'", self.user(place)));
        run(&mut self.admin, sql).await;
    }

    /// Somebody sets a password of his own.
    pub async fn set_by_hand(&mut self, place: usize, value: &str) {
        let what = format!("ALTER USER {{}} IDENTIFIED VIA mysql_native_password USING '{}'", hashed(value));
        self.sql(place, &what).await;
    }
}
