//! Notices values that are about to be older than their recipe allows, and says how many are. What is known of their age
//! comes from the inventory, and from Curfew's own rotations.
//!
//! A value is due somewhat before its time, each at a time of its own: what was all made on one day is not all rotated on
//! one. The oldest goes first, only a few are on their way at one target at once, and of those that share a stored secret
//! never two within the time that consumers have for taking a new value.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::connector::recipe::Recipe;
use crate::credential::CredentialId;
use crate::deadlines::ClockTrust;
use crate::event::{Event, digest16};
use crate::intake::Intake;
use crate::journal::{Error, Known};
use crate::task::Tenant;

/// The least that a recipe may allow.
pub const LEAST_MS: i64 = 3_600_000;
/// So many rotations of one target are open at once: when they get stuck, the rest is left alone.
pub const AT_ONCE: usize = 10;
/// How often it is looked.
const EVERY: Duration = Duration::from_secs(60);
/// Values are due within the last tenth of their time.
const SPREAD: i64 = 10;
/// One that came to nothing is tried again so much later.
const AGAIN_MS: i64 = 3_600_000;

/// A recipe that says how old its value may become, and whose it is.
#[derive(Debug, Clone)]
pub struct Aging {
    /// Whose.
    pub tenant: Tenant,
    /// How.
    pub recipe: Arc<Recipe>,
    /// How old.
    pub max_age_ms: i64,
}

/// A value whose rotation is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub credential: CredentialId,
    /// The store's version that is in use.
    pub version: i64,
    /// How old it is.
    pub age_ms: i64,
    /// How often it could have been tried before.
    pub turn: i64,
}

/// How old the values are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// To be rotated now, the longest due first.
    pub due: Vec<Due>,
    /// Older than allowed.
    pub overdue: i64,
    /// By how much the worst of them is.
    pub worst_ms: i64,
    /// Of unknown age: no inventory has seen them.
    pub unknown: i64,
}

/// What to do about each value's age. PURE.
pub fn judge(aging: &[Aging], known: &HashMap<(Tenant, CredentialId), Known>, now_ms: i64) -> Judged {
    let mut judged = Judged::default();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let mut moving = BTreeSet::new();
    let mut due = Vec::new();
    for one in aging {
        let id = &one.recipe.credential;
        let it = known.get(&(one.tenant.clone(), id.clone()));
        if it.is_some_and(|it| it.open) {
            *open.entry(id.instance()).or_default() += 1;
            moving.insert(one.secret());
        }
        let value = it.map(|it| (it.credential.version, it.credential.issued_ms, it.credential.dead_ms));
        let (version, issued_ms) = match value {
            Some((_, _, Some(_))) => continue,
            Some((Some(version), Some(issued_ms), None)) => (version, issued_ms),
            _ => {
                judged.unknown += 1;
                continue;
            }
        };
        let age_ms = now_ms.saturating_sub(issued_ms);
        if age_ms < one.recipe.adoption.within_ms {
            moving.insert(one.secret());
        }
        if age_ms > one.max_age_ms {
            judged.overdue += 1;
            judged.worst_ms = judged.worst_ms.max(age_ms - one.max_age_ms);
        }
        let since_ms = age_ms.saturating_sub(one.due_at_age_ms(version));
        if since_ms >= 0 && it.is_some_and(|it| !it.open) {
            due.push((since_ms, one, version, age_ms));
        }
    }
    due.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.recipe.credential.cmp(&b.1.recipe.credential)));
    for (since_ms, one, version, age_ms) in due {
        let credential = &one.recipe.credential;
        let at_target = open.entry(credential.instance()).or_default();
        if *at_target < AT_ONCE && moving.insert(one.secret()) {
            *at_target += 1;
            let (tenant, credential) = (one.tenant.clone(), credential.clone());
            judged.due.push(Due { tenant, credential, version, age_ms, turn: since_ms / AGAIN_MS });
        }
    }
    judged
}

impl Aging {
    /// The stored secret: consumers read all of it at once.
    fn secret(&self) -> (&Tenant, &str, &str, &str) {
        let place = &self.recipe.place;
        (&self.tenant, &place.realm, &place.mount, &place.path)
    }

    /// At which age this version is due: always the same, and another one for each credential and version.
    fn due_at_age_ms(&self, version: i64) -> i64 {
        let digest = digest16(&[self.recipe.credential.as_str().as_bytes(), &version.to_be_bytes()]);
        let dice = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let early_ms = i128::from(self.max_age_ms / SPREAD) * i128::from(dice) / i128::from(u32::MAX);
        self.max_age_ms.saturating_sub(i64::try_from(early_ms).unwrap_or(0))
    }
}

/// Looks again and again.
pub struct Ages {
    intake: Intake,
    aging: Vec<Aging>,
    trust: Arc<ClockTrust>,
}

impl Ages {
    /// Looks through `intake`'s journal for the values of these recipes.
    pub fn new(intake: Intake, aging: Vec<Aging>, trust: Arc<ClockTrust>) -> Self {
        Self { intake, aging, trust }
    }

    /// Looks until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            if let Err(error) = self.tick().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the age of values could not be looked at");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        // Whoever looks from now on says it.
        self.intake.metrics.ages(&Judged::default());
    }

    /// Looks once. Returns what was noticed.
    ///
    /// # Errors
    /// As the journal's: what is due is noticed again.
    pub async fn tick(&self) -> Result<Judged, Error> {
        if !self.trust.check() {
            return Ok(Judged::default());
        }
        let mut ids: BTreeMap<Tenant, Vec<CredentialId>> = BTreeMap::new();
        for one in &self.aging {
            ids.entry(one.tenant.clone()).or_default().push(one.recipe.credential.clone());
        }
        let mut known = HashMap::new();
        for (tenant, ids) in ids {
            for it in self.intake.journal.known(&tenant, ids).await? {
                known.insert((tenant.clone(), it.credential.id.clone()), it);
            }
        }
        let now_ms = self.intake.clock.wall_ms();
        let judged = judge(&self.aging, &known, now_ms);
        self.intake.metrics.ages(&judged);
        let events: Vec<Event> = judged.due.iter().cloned().map(|due| due.event(now_ms)).collect();
        if !events.is_empty() {
            self.intake.notice(events).await?;
        }
        Ok(judged)
    }
}

impl Due {
    fn event(self, now_ms: i64) -> Event {
        let Self { tenant, credential, version, age_ms, turn } = self;
        Event::rotation_due(tenant, credential, version, age_ms, turn, now_ms)
    }
}
