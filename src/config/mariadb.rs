//! Users of a MariaDB: accounts, which have a host as well.

use serde_saphyr::Spanned;

use super::check::Checks;
use crate::connector::mariadb::Name;
use crate::connector::recipe::{Place, Users};

/// Who logs in with the values of a rotation: by the names that consumers log in with, without the hosts.
pub(super) fn users(c: &mut Checks<'_>, users: &Spanned<Vec<String>>, place: &Place) -> Option<Users> {
    let at = users.referenced;
    if place.keeper.mints() {
        c.wrong(at, "a static role is of a PostgreSQL user");
    }
    let mut names = Vec::new();
    for user in &users.value {
        match Name::read(user) {
            Ok(name) => names.push(name.user),
            Err(why) => {
                c.wrong(at, why);
                return None;
            }
        }
    }
    match names.as_slice() {
        [user] => Some(Users::One(user.clone())),
        [a, b] if a == b => {
            c.wrong(at, "two users that take turns have different names: consumers log in by them");
            None
        }
        [a, b] => {
            if place.user_field.is_none() {
                c.wrong(at, "two users take turns only where `store.user_field` says whose turn it is");
            }
            Some(Users::Two(a.clone(), b.clone()))
        }
        _ => {
            c.wrong(at, "`users` are one account, or two that take turns");
            None
        }
    }
}
