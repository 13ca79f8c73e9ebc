//! Lists the access keys of an account's users, one user after another, at a pace that leaves IAM to others. What was listed
//! is said at once: that a key was not listed says nothing. What denied sessions and has nothing left to deny is said as well:
//! IAM is the memory of it, on users and on the roles that a rule names, so that no process needs one.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;

use super::{Fault, Scan};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::aws::name::KeyName;
use crate::connector::aws::{Account, Listed};

/// Users per second: IAM serves a whole account's tools from one budget.
pub const PER_SECOND: u32 = 10;
/// How long a throttled list waits, where AWS does not say.
const PAUSE_MS: i64 = 5_000;
/// The longest that it waits.
const LONGEST_PAUSE_MS: i64 = 60_000;
/// How often one user is asked for again.
const TRIES: u32 = 3;
/// Faults that are told of one by one.
const FAULTS: usize = 100;

/// What a user has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Its keys.
    pub keys: Vec<Listed>,
    /// Keys, there or not, whose sessions were denied, and of which no session can be left.
    pub over: Vec<KeyName>,
}

/// Lists what the account's `users` have. `secrets` of the scan are its users.
pub async fn scan(account: &Account, per_second: NonZeroU32, out: &mpsc::Sender<Held>) -> Scan {
    let mut scan = Scan::default();
    let users = match account.users().await {
        Ok(users) => users,
        Err(failure) => {
            fault(&mut scan, "users", &failure);
            return scan;
        }
    };
    let limit: DefaultDirectRateLimiter = RateLimiter::direct(Quota::per_second(per_second));
    for user in users {
        limit.until_ready().await;
        scan.secrets += 1;
        match patiently(account, &user).await {
            Ok(held) if held == Held::default() => {}
            Ok(held) => {
                scan.changed += 1;
                if out.send(held).await.is_err() {
                    scan.partial = true;
                    return scan;
                }
            }
            Err(failure) => {
                fault(&mut scan, &user, &failure);
                // A user that is refused is one user; what is denied, down or throttled is so for all of them.
                if failure.kind != FailureKind::Refused {
                    return scan;
                }
            }
        }
    }
    for role in account.cut_roles() {
        limit.until_ready().await;
        match account.over_at(role).await {
            Ok(over) if over.is_empty() => {}
            Ok(over) => {
                if out.send(Held { over, ..Held::default() }).await.is_err() {
                    scan.partial = true;
                    return scan;
                }
            }
            Err(failure) => fault(&mut scan, role, &failure),
        }
    }
    scan
}

/// What one user has.
async fn held(account: &Account, user: &str) -> Result<Held, Failure> {
    let keys = account.keys(user).await?.unwrap_or_default();
    Ok(Held { keys, over: account.over(user).await? })
}

/// The same, also where AWS throttles for a while.
async fn patiently(account: &Account, user: &str) -> Result<Held, Failure> {
    let mut tried = 1;
    loop {
        match held(account, user).await {
            Err(Failure { kind: FailureKind::Throttled { after_ms }, .. }) if tried < TRIES => {
                tried += 1;
                let pause_ms = after_ms.unwrap_or(PAUSE_MS).clamp(0, LONGEST_PAUSE_MS);
                tokio::time::sleep(Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0))).await;
            }
            answer => return answer,
        }
    }
}

fn fault(scan: &mut Scan, path: &str, failure: &Failure) {
    scan.partial = true;
    if scan.faults.len() < FAULTS {
        scan.faults.push(Fault { path: path.to_owned(), note: failure.note.clone() });
    }
}
