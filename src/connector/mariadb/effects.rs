//! What is changed of an account: its password, whether it is locked, and its sessions.

use super::account::{Account, NATIVE, Name};
use super::open::{Mark, Scope};
use super::session::Session;
use super::{Accounts, LOOKS, MariadbUsers, hash, refused};
use crate::case::record::{FailureKind, Output};
use crate::connector::Failure;
use crate::connector::candidate::{candidate, check};
use crate::connector::recipe::{PasswordRules, Which, of_store};
use crate::connector::turns::{going, reads_of, with_left};

impl MariadbUsers {
    /// From here on the account lets in with the value that has this hash, and with no other.
    async fn give(&self, session: &mut Session, name: &Name, hash: &str) -> Result<Output, Failure> {
        session.alter(name, &format!("IDENTIFIED VIA {NATIVE} USING '{hash}' ACCOUNT UNLOCK")).await?;
        // Our next connection has a higher number than all that began before. It is done, so no failure from here on may say
        // that nothing happened.
        let next = self.open().await.map_err(|failure| Failure::new(FailureKind::Unknown, failure.note))?;
        let output = Output { done_ms: Some(next.now_ms), mark: Some(Mark::at(&next).written()), ..Output::default() };
        next.close().await;
        Ok(output)
    }

    pub(super) async fn set(&self, accounts: &Accounts<'_>) -> Result<Output, Failure> {
        let rotation = accounts.rotation;
        let Some(user) = rotation.new_user() else { return refused("it is not known whose turn it is") };
        let (recipe, name) = (&rotation.recipe, accounts.named(user)?);
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let current = rotation.store.read(&recipe.place, Which::Current).await.map_err(of_store)?;
        check(&candidate, current.as_ref(), user, &recipe.password)?;
        if reads_of(rotation, current.as_ref(), user) {
            return refused("consumers read a value of the user whose turn it is: somebody else wrote it");
        }
        let mut session = self.open_to_change().await?;
        match session.ours(name).await {
            Err(gone) if gone.kind == FailureKind::Gone => return refused("there is no such account"),
            other => other?,
        };
        self.is_idle(&mut session, name, accounts).await?;
        let output = self.give(&mut session, name, &hash(&candidate.value)).await?;
        session.close().await;
        Ok(output)
    }

    /// Of two users, the one that takes values is nobody's yet: a pair that is not one would cut others off. A containment
    /// does not wait for anybody.
    async fn is_idle(&self, session: &mut Session, name: &Name, accounts: &Accounts<'_>) -> Result<(), Failure> {
        if !accounts.rotation.recipe.users.overlap() || accounts.rotation.contains {
            return Ok(());
        }
        // One that has gone, such as a test of ours, is still shown for an instant.
        for _ in 0..LOOKS.1 {
            let open = session.open_of(name, Scope::All).await?;
            if open.ids.is_empty() && open.unclear == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        refused("the user whose turn it is has sessions: somebody uses it")
    }

    /// From here on the account lets nobody in. With `scramble` its password is nobody's as well.
    async fn shut(&self, session: &mut Session, account: &Account, scramble: bool) -> Result<(), Failure> {
        if scramble {
            let nobodys = hash(&candidate(&PasswordRules::default()));
            let what = format!("IDENTIFIED VIA {NATIVE} USING '{nobodys}' ACCOUNT LOCK");
            match session.alter(&account.name, &what).await {
                // A plugin that wants to see passwords takes no hash. Locked, it lets nobody in.
                Err(failure) if failure.kind == FailureKind::Refused => {}
                other => return other,
            }
        }
        if account.is_locked { Ok(()) } else { session.alter(&account.name, "ACCOUNT LOCK").await }
    }

    pub(super) async fn disable(&self, accounts: &Accounts<'_>) -> Result<Output, Failure> {
        let rotation = accounts.rotation;
        let (users, new) = (&rotation.recipe.users, rotation.turn.new.as_ref());
        // Somebody may have written it back meanwhile. What leaked goes all the same, and waits for no store.
        let current = if users.overlap() && !rotation.contains {
            rotation.store.read(&rotation.recipe.place, Which::Current).await.map_err(of_store)?
        } else {
            None
        };
        let mut session = self.open_to_change().await?;
        let mut known = Vec::new();
        for user in going(rotation)? {
            let has_new = users.overlap() && !rotation.ends && new.is_some_and(|new| new.user.as_deref() == Some(user));
            if has_new || reads_of(rotation, current.as_ref(), user) {
                return refused("consumers read a value of this user");
            }
            match session.ours(accounts.named(user)?).await {
                Ok(account) => known.push(account),
                Err(failure) if failure.kind == FailureKind::Gone => {}
                Err(failure) => return Err(failure),
            }
        }
        if known.is_empty() {
            return Err(Failure::new(FailureKind::Gone, "the account is gone"));
        }
        for account in known {
            self.shut(&mut session, &account, users.overlap() || rotation.contains).await?;
        }
        session.close().await;
        Ok(Output::default())
    }

    pub(super) async fn restore(&self, accounts: &Accounts<'_>) -> Result<Output, Failure> {
        let rotation = accounts.rotation;
        let Some(user) = rotation.new_user() else { return refused("it is not known who took candidates") };
        let (users, name) = (&rotation.recipe.users, accounts.named(user)?);
        let mut session = self.open_to_change().await?;
        let account = match session.ours(name).await {
            // Who is gone keeps nothing of what was made.
            Err(gone) if gone.kind == FailureKind::Gone => return Ok(Output::default()),
            other => other?,
        };
        let current = rotation.store.read(&rotation.recipe.place, Which::Current).await.map_err(of_store)?;
        if !users.overlap() && !rotation.contains {
            let Some(current) = current.filter(|stored| stored.user.as_deref().is_none_or(|own| own == user)) else {
                // Without a value to go back to, what running services use stays as it is.
                return refused("consumers have no value that could be given back");
            };
            return self.give(&mut session, name, &hash(&current.value)).await;
        }
        if reads_of(rotation, current.as_ref(), user) {
            return refused("consumers read a value of the user that took candidates: somebody else wrote it");
        }
        self.is_idle(&mut session, name, accounts).await?;
        self.shut(&mut session, &account, true).await?;
        session.close().await;
        Ok(Output::default())
    }

    pub(super) async fn end_sessions(&self, accounts: &Accounts<'_>) -> Result<Output, Failure> {
        let rotation = accounts.rotation;
        let mut output = Output::default();
        // Before a containment's new value is set, nobody has a right to a session: the leaked value may be of either.
        let all = rotation.contains && (rotation.turn.new.is_none() || rotation.turn.refuted);
        let users = if all { rotation.recipe.users.names() } else { with_left(going(rotation)?, rotation) };
        let mut session = self.open().await?;
        for user in users {
            output.derived += self.end_sessions_of(&mut session, accounts, accounts.named(user)?).await?;
        }
        session.close().await;
        Ok(output)
    }

    /// How many were ended.
    async fn end_sessions_of(
        &self,
        session: &mut Session,
        accounts: &Accounts<'_>,
        name: &Name,
    ) -> Result<u32, Failure> {
        let account = session.account(name).await?;
        if let Some(account) = &account {
            account.is_ours()?;
        }
        let scope = Scope::of(accounts.rotation, &name.user, account.as_ref(), session);
        let mut ended = 0;
        for look in 0..=LOOKS.1 {
            let open = session.open_of(name, scope).await?;
            if open.ids.is_empty() && open.unclear > 0 {
                return refused("it cannot be told of which account its sessions are, or by which value");
            }
            if open.ids.is_empty() {
                return Ok(ended);
            }
            if look > 0 {
                tokio::time::sleep(LOOKS.0).await;
            }
            // One that comes late, by a login that began before, is ended as well.
            for id in open.ids {
                ended += u32::from(session.end(id).await? && look == 0);
            }
        }
        Err(Failure::new(FailureKind::Unknown, "ended sessions have not gone yet"))
    }
}
