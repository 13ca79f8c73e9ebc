//! Whether a rotation may go on: the candidate works and is worth as much, consumers have left the old value.

use super::answers::Login;
use super::open::Scope;
use super::{Accounts, MariadbUsers, refused, rights};
use crate::case::record::FailureKind;
use crate::connector::recipe::of_store;
use crate::connector::{Failure, Gate};

/// How often it is looked whether consumers have left the old value.
const ADOPTION_MS: i64 = 5_000;

impl MariadbUsers {
    pub(super) async fn test(&self, accounts: &Accounts<'_>) -> Result<Gate, Failure> {
        let rotation = accounts.rotation;
        let Some(user) = rotation.new_user() else { return refused("it is not known whose turn it is") };
        let name = accounts.named(user)?;
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let mut session = self.open().await?;
        let Some(account) = session.account(name).await? else { return refused("there is no such account") };
        if !session.reaches(&account).await? {
            return refused("logins from here do not reach this account: another host, or TLS");
        }
        if let Some(old) = rotation.old_user().filter(|_| rotation.recipe.users.overlap()) {
            let old = accounts.named(old)?;
            let lacking = rights::lacking(&mut session, old, name).await?;
            if !lacking.is_empty() {
                return refused(&rights::told(&lacking));
            }
        }
        session.close().await;
        match self.log_in(name, &candidate.value).await {
            Login::In => Ok(Gate::Open),
            Login::Refused => Err(Failure::new(FailureKind::Rejected, "the login with the candidate is refused")),
            Login::Locked => Err(Failure::new(FailureKind::Rejected, "the account of the candidate is locked")),
            Login::Expired => refused("the account's passwords have expired as soon as they are set"),
            Login::Blocked | Login::Unclear => {
                Err(Failure::new(FailureKind::Unavailable, "the login with the candidate says nothing of it"))
            }
        }
    }

    /// What MariaDB shows of adoption: consumers that took the new value have no session of the old one.
    pub(super) async fn adopted(&self, accounts: &Accounts<'_>) -> Result<Gate, Failure> {
        let rotation = accounts.rotation;
        let Some(user) = rotation.old_user() else { return refused("it is not known who has the old value") };
        let name = accounts.named(user)?;
        let mut session = self.open().await?;
        let account = session.account(name).await?;
        let scope = Scope::of(rotation, user, account.as_ref(), &session);
        let open = session.open_of(name, scope).await?;
        let (now_ms, there_ms) = (self.clock.wall_ms(), session.now_ms);
        session.close().await;
        if open.ids.is_empty() && open.unclear == 0 {
            return Ok(Gate::Open);
        }
        let left_ms = rotation.recipe.adoption.within_ms.saturating_sub(rotation.turn.had_ms(now_ms, there_ms));
        if left_ms <= 0 {
            return Ok(Gate::Late);
        }
        Ok(Gate::Shut { again_ms: now_ms.saturating_add(left_ms.min(ADOPTION_MS)) })
    }
}
