//! What is changed of a user: its password, whether it can log in, and its sessions.

use sqlx::AssertSqlSafe;

use super::sessions::{IN_USE, Scope, TERMINATE, before};
use super::{PostgresRole, Role, VERSION, going, of_store, recorded, refused, value, with_left};
use crate::case::record::{FailureKind, Output};
use crate::connector::candidate::check;
use crate::connector::postgres::{LOOKS, quoted};
use crate::connector::recipe::{Rotation, Which};
use crate::connector::turns::reads_of;
use crate::connector::{Failure, Subject};

/// Older ones take a verifier for a password.
const OLDEST: i32 = 100_000;

/// Rounded up: what began within the same millisecond began before.
const CLOCK: &str = "SELECT ceil(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint";

impl PostgresRole {
    /// The server's clock.
    pub(super) async fn server_ms(&self) -> Result<i64, Failure> {
        self.bounded(false, sqlx::query_scalar(CLOCK).fetch_one(&self.pool)).await
    }

    /// One statement, so that nothing is half done. No prepared statement keeps it.
    async fn alter(&self, role: &Role, what: &str) -> Result<i64, Failure> {
        let sql = AssertSqlSafe(format!("ALTER ROLE {} {what}", quoted(&role.name)));
        let mut connection = self.bounded(false, self.pool.acquire()).await?;
        self.bounded(true, sqlx::raw_sql(sql).execute(&mut *connection)).await?;
        let clock = self.bounded(true, sqlx::query_scalar(CLOCK).fetch_one(&mut *connection)).await;
        // It is done, so no failure from here on may say that nothing happened.
        clock.map_err(|failure| Failure::new(FailureKind::Unknown, failure.note))
    }

    pub(super) async fn set(&self, subject: &Subject, rotation: &Rotation) -> Result<Output, Failure> {
        let Some(user) = rotation.new_user() else { return refused("it is not known whose turn it is") };
        let recipe = &rotation.recipe;
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let current = rotation.store.read(&recipe.place, Which::Current).await.map_err(of_store)?;
        check(&candidate, current.as_ref(), user, &recipe.password)?;
        if reads_of(rotation, current.as_ref(), user) {
            return refused("consumers read a value of the user whose turn it is: somebody else wrote it");
        }
        let role = match self.ours(subject, &recipe.users, user).await {
            Err(gone) if gone.kind == FailureKind::Gone => return refused("there is no such role"),
            other => other?,
        };
        if role.name != user {
            return refused("the role has another name now");
        }
        let version: i32 = self.bounded(false, sqlx::query_scalar(VERSION).fetch_one(&self.pool)).await?;
        if version < OLDEST {
            return refused("this PostgreSQL is older than 10: it knows no SCRAM");
        }
        self.is_idle(&role, rotation).await?;
        let done_ms = self.alter(&role, &format!("LOGIN PASSWORD '{}'", value::verifier(&candidate.value))).await?;
        Ok(Output { done_ms: Some(done_ms), ..Output::default() })
    }

    /// Of two users, the one that takes values is nobody's yet: a pair that is not one would cut others off. A containment
    /// does not wait for anybody.
    async fn is_idle(&self, role: &Role, rotation: &Rotation) -> Result<(), Failure> {
        if !rotation.recipe.users.overlap() || rotation.contains {
            return Ok(());
        }
        // One that has gone is still shown for an instant.
        for _ in 0..LOOKS.1 {
            let in_use = sqlx::query_scalar::<_, i64>(IN_USE).bind(role.oid).fetch_one(&self.pool);
            if self.bounded(false, in_use).await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        refused("the user whose turn it is has sessions: somebody uses it")
    }

    /// From here on the user cannot log in. With `scramble` its password is nobody's as well.
    async fn shut(&self, role: &Role, scramble: bool) -> Result<Output, Failure> {
        if scramble {
            let verifier = value::verifier(&value::nobodys()?);
            self.alter(role, &format!("NOLOGIN PASSWORD '{verifier}'")).await?;
        } else if role.can_log_in {
            self.alter(role, "NOLOGIN").await?;
        }
        Ok(Output::default())
    }

    pub(super) async fn disable(&self, subject: &Subject, rotation: &Rotation) -> Result<Output, Failure> {
        let (users, new) = (&rotation.recipe.users, rotation.turn.new.as_ref());
        // Somebody may have written it back meanwhile. What leaked goes all the same, and waits for no store.
        let current = if users.overlap() && !rotation.contains {
            rotation.store.read(&rotation.recipe.place, Which::Current).await.map_err(of_store)?
        } else {
            None
        };
        let mut known = Vec::new();
        for user in going(rotation)? {
            let has_new = users.overlap() && !rotation.ends && new.is_some_and(|new| new.user.as_deref() == Some(user));
            if has_new || reads_of(rotation, current.as_ref(), user) {
                return refused("consumers read a value of this user");
            }
            match self.ours(subject, users, user).await {
                Ok(role) => known.push(role),
                Err(failure) if failure.kind == FailureKind::Gone => {}
                Err(failure) => return Err(failure),
            }
        }
        if known.is_empty() {
            return Err(Failure::new(FailureKind::Gone, "the role is gone"));
        }
        for role in known {
            self.shut(&role, users.overlap() || rotation.contains).await?;
        }
        Ok(Output::default())
    }

    pub(super) async fn restore(&self, subject: &Subject, rotation: &Rotation) -> Result<Output, Failure> {
        let Some(user) = rotation.new_user() else { return refused("it is not known who took candidates") };
        let users = &rotation.recipe.users;
        let role = match self.ours(subject, users, user).await {
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
            let what = format!("LOGIN PASSWORD '{}'", value::verifier(&current.value));
            let done_ms = self.alter(&role, &what).await?;
            return Ok(Output { done_ms: Some(done_ms), ..Output::default() });
        }
        if reads_of(rotation, current.as_ref(), user) {
            return refused("consumers read a value of the user that took candidates: somebody else wrote it");
        }
        if rotation.share.is_some() {
            // Nobody but the agent that goes back was ever told of it.
            let output = self.shut(&role, true).await?;
            self.end_sessions_of(subject, rotation, user).await?;
            return Ok(output);
        }
        self.is_idle(&role, rotation).await?;
        self.shut(&role, true).await
    }

    pub(super) async fn end_sessions(&self, subject: &Subject, rotation: &Rotation) -> Result<Output, Failure> {
        let mut output = Output::default();
        // Before a containment's new value is set, nobody has a right to a session: the leaked value may be of either.
        let all = rotation.contains && (rotation.turn.new.is_none() || rotation.turn.refuted);
        let users = if all { rotation.recipe.users.names() } else { with_left(going(rotation)?, rotation) };
        for user in users {
            output.derived += self.end_sessions_of(subject, rotation, user).await?;
        }
        Ok(output)
    }

    /// How many were ended.
    async fn end_sessions_of(&self, subject: &Subject, rotation: &Rotation, user: &str) -> Result<u32, Failure> {
        let users = &rotation.recipe.users;
        let role = self.role(subject, users, user).await?;
        if role.as_ref().is_some_and(|role| role.protected) {
            return refused("our own role, or an administrator: never touched");
        }
        let scope = Scope::of(rotation, user, role.as_ref());
        let oid = recorded(subject, users, user).or(role.map(|role| role.oid));
        let (Some(oid), Some(before)) = (oid, before(scope)) else { return Ok(0) };
        let ended = sqlx::query_scalar(TERMINATE).bind(oid).bind(before).fetch_all(&self.pool);
        let ended: Vec<bool> = self.bounded(true, ended).await?;
        for _ in 0..LOOKS.1 {
            let open = self.open(oid, scope).await?;
            if open.sessions == 0 && open.unseen > 0 {
                return refused("we may not see when its sessions began");
            }
            if open.sessions == 0 {
                return Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX));
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        Err(Failure::new(FailureKind::Unknown, "terminated sessions have not ended yet"))
    }
}
