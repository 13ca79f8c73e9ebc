//! All before the command: Curfew has the task, Vault mints, Curfew has the grants.

use std::time::Duration;

use futures::future::join_all;
use secrecy::SecretString;
use tokio::sync::Notify;

use super::events::{self, Held};
use super::hand::{Folder, Variables};
use super::times::Times;
use super::{Exec, Have, Stop, Way, millis, names, say};
use crate::connector::Failure;
use crate::connector::vault::mint::{Minted, TaskToken};
use crate::credential::{CredentialId, Kind};
use crate::tell;

impl Exec<'_> {
    /// All before the command: in this order, each step durable before the next.
    /// Says so by `begun` once Curfew has the start.
    pub(super) async fn prepare(&self, times: &Times, have: &mut Have, begun: &Notify) -> Result<Variables, Stop> {
        let plan = self.plan;
        self.look_within().await?;
        self.look_at_own(times).await?;
        self.tell_start(times, have).await?;
        if have.registered {
            begun.notify_one();
        }
        let left = || times.left(self.clock.wall_ms());
        let key = plan.run.key();
        let token = self.issuer.task_token(&plan.policies, key.as_str(), left()).await;
        let token = have.token.insert(token.map_err(|failure| Stop::vault("a token for the task", &failure))?);
        let dies_ms = self.clock.wall_ms() + millis(token.ttl);
        have.dies_ms = Some(dies_ms);
        if token.ttl < left() {
            let at = events::text_of(dies_ms);
            (self.say)(&format!(
                "Vault bounds the task's token to {at}: the credentials end then, before the deadline"
            ));
        }
        if plan.give_token {
            let credential = self.named(Kind::VaultToken, &token.accessor)?;
            have.held.push(Held { credential, principal: None, expires_ms: dies_ms });
        }
        let minted = self.mint(token, times, &mut have.held).await?;
        let variables = self.hand_over(token, &minted, times, &mut have.folder).await?;
        drop(minted);
        have.variables = variables.names().into_iter().map(str::to_owned).collect();
        self.tell_grants(have).await?;
        Ok(variables)
    }

    /// Whether the caller's token is good, and lives long enough: what is minted by a token dies with it.
    async fn look_at_own(&self, times: &Times) -> Result<(), Stop> {
        let own = self.issuer.own().await.map_err(|failure| Stop::vault("Vault", &failure))?;
        let left = times.left(self.clock.wall_ms());
        let mut ttl = own.ttl;
        if own.renewable
            && ttl.is_some_and(|ttl| ttl < left)
            && let Ok(longer) = self.issuer.renew_own(left + Duration::from_secs(1)).await
        {
            ttl = Some(longer);
        }
        if let Some(ttl) = ttl.filter(|ttl| *ttl < left) {
            let at = events::text_of(self.clock.wall_ms() + millis(ttl));
            (self.say)(&format!(
                "your own Vault token ends at {at}, and all that is minted with it, before the deadline"
            ));
        }
        Ok(())
    }

    async fn tell_start(&self, times: &Times, have: &mut Have) -> Result<(), Stop> {
        let told = match &self.teller {
            Ok(teller) => {
                have.told = true;
                teller.tell(&[self.plan.run.started(times, self.plan.heartbeat.map(millis))]).await
            }
            Err(error) => Err(error.clone()),
        };
        match told {
            Ok(()) => {
                have.registered = true;
                Ok(())
            }
            Err(error) => {
                // Refused as it stands, or nobody there: then there is nothing to end either.
                have.told = matches!(&error, tell::Error::Unavailable(_)) && self.teller.is_ok();
                self.unless_unregistered(&error)
            }
        }
    }

    /// Curfew was not told: only with the user's own word it goes on.
    fn unless_unregistered(&self, error: &tell::Error) -> Result<(), Stop> {
        if self.plan.unregistered {
            (self.say)(&say::unregistered(&error.to_string()));
            return Ok(());
        }
        let text = say::not_registered(error);
        Err(match error {
            tell::Error::Unavailable(_) => Stop::Unavailable(text),
            tell::Error::Refused(_) => Stop::Refused(text),
        })
    }

    /// All roles at once: all of them, or none.
    async fn mint(&self, token: &TaskToken, times: &Times, held: &mut Vec<Held>) -> Result<Vec<Minted>, Stop> {
        let all = join_all(self.plan.roles.iter().map(async |role| {
            let mut minted = self.issuer.mint(token, &role.path).await?;
            let left = times.left(self.clock.wall_ms());
            if minted.renewable && minted.ttl != left {
                // What fails here leaves it as it was: the token bounds it anyway.
                if let Ok(ttl) = self.issuer.bound(token, &minted.lease, left).await {
                    minted.ttl = ttl;
                }
            }
            Ok::<Minted, Failure>(minted)
        }))
        .await;
        let mut minted = Vec::new();
        let mut failed = None;
        for (role, one) in self.plan.roles.iter().zip(all) {
            match one {
                Ok(one) => {
                    let expires_ms = self.clock.wall_ms() + millis(one.ttl.min(token.ttl));
                    let principal = one.principal().map(str::to_owned);
                    held.push(Held { credential: self.named(Kind::VaultLease, &one.lease)?, principal, expires_ms });
                    if one.ttl + Duration::from_secs(2) < times.left(self.clock.wall_ms()) {
                        let at = events::text_of(expires_ms);
                        (self.say)(&format!("Vault bounds {} to {at}: it ends then, before the deadline", role.path));
                    }
                    minted.push(one);
                }
                Err(failure) => failed = failed.or(Some(Stop::vault(&role.path, &failure))),
            }
        }
        match failed {
            None => Ok(minted),
            Some(stop) => Err(stop),
        }
    }

    fn named(&self, kind: Kind, id: &str) -> Result<CredentialId, Stop> {
        CredentialId::new(kind, &self.plan.realm, id)
            .map_err(|error| Stop::Refused(format!("what Vault made cannot be named ({error}): is --realm right?")))
    }

    async fn hand_over(
        &self,
        token: &TaskToken,
        minted: &[Minted],
        times: &Times,
        folder: &mut Option<Folder>,
    ) -> Result<Variables, Stop> {
        let plan = self.plan;
        let mut variables = Variables::default();
        variables.set("CURFEW_RUN", plan.run.key().to_string());
        variables.set("CURFEW_DEADLINE", events::text_of(times.deadline_ms));
        if plan.give_token {
            variables.0.insert("VAULT_TOKEN".to_owned(), token.token.clone());
        }
        let fields: Vec<Vec<String>> = minted.iter().map(|one| one.fields.keys().cloned().collect()).collect();
        let suffix = if matches!(plan.way, Way::Files(_)) { "_FILE" } else { "" };
        let places = names::places(&plan.roles, &plan.mappings, &fields, suffix).map_err(Stop::Refused)?;
        let files = match &plan.way {
            Way::Files(base) if !places.is_empty() => {
                let made = Folder::new(base).map_err(|error| unusable(base, &error))?;
                variables.set("CURFEW_CREDENTIALS", made.path().display().to_string());
                Some(&*folder.insert(made))
            }
            _ => None,
        };
        if plan.way == Way::Wrapped {
            let left = times.left(self.clock.wall_ms());
            for (role, one) in plan.roles.iter().zip(minted) {
                let wrapped = self.issuer.wrap(token, &one.fields, left).await;
                let wrapped = wrapped.map_err(|failure| Stop::vault("response wrapping", &failure))?;
                variables.0.insert(format!("{}_WRAPPED_TOKEN", role.prefix()), wrapped);
            }
            return Ok(variables);
        }
        let empty = SecretString::default();
        for place in places {
            let value = minted.get(place.role).and_then(|one| one.fields.get(&place.field)).unwrap_or(&empty);
            match files {
                None => {
                    variables.0.insert(place.variable, value.clone());
                }
                Some(files) => {
                    let name = place.variable.strip_suffix("_FILE").unwrap_or(&place.variable);
                    let path = files.put(name, value).map_err(|error| unusable(files.path(), &error))?;
                    variables.set(&place.variable, path.display().to_string());
                }
            }
        }
        match variables.unfit() {
            None => Ok(variables),
            Some(name) => Err(Stop::Refused(format!("{name} cannot be in an environment: hand it over by --file"))),
        }
    }

    /// Durable before the command sees them.
    async fn tell_grants(&self, have: &Have) -> Result<(), Stop> {
        let Ok(teller) = &self.teller else { return Ok(()) };
        if !have.registered {
            return Ok(());
        }
        let grants: Vec<_> = have.held.iter().enumerate().map(|(nth, held)| self.plan.run.granted(nth, held)).collect();
        // Over HTTP side by side: what waits together becomes durable together.
        let told = join_all(grants.chunks(teller.together()).map(|chunk| teller.tell(chunk))).await;
        match told.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(error) => self.unless_unregistered(&error),
        }
    }
}

fn unusable(folder: &std::path::Path, error: &std::io::Error) -> Stop {
    Stop::Refused(format!("{} cannot be used for files: {error}", folder.display()))
}
