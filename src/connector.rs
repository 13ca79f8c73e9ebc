//! Connectors: each knows one kind of system. Plans are composed here, from static facts only.
//!
//! # Contract
//! Any call may come again after a crash or a timeout with the same step key: look first, then act, treat "already so"
//! as success. No secret material is returned. One file per connector maps the provider's answers to
//! [`Failure`]; nowhere else is their text read.

#[cfg(feature = "aws")]
pub mod aws;
pub mod candidate;
mod copies;
mod many;
pub mod mariadb;
pub mod plan;
pub mod postgres;
pub mod recipe;
pub mod redis;
mod turns;
pub mod vault;
pub mod webhook;
mod wiped;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use recipe::{Recipe, Rotation, Store};

use crate::case::plan::{Act, Agent, Plan, Step};
use crate::case::record::{Answer, FailureKind, Observation, Output, Sighting};
use crate::case::{Action, Case};
use crate::credential::{CredentialId, Kind};
use crate::guard::{self, Mode};
use crate::outcome::Message;
use crate::pace::Quota;
use crate::probe::Settle;
use crate::scope::{self, Cut, Cutting, Held};
use crate::task::RunKey;

/// A call that failed. `note` is our own text: never the provider's words, never an id that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {note}", kind.as_str())]
pub struct Failure {
    /// All that the executor reads.
    pub kind: FailureKind,
    /// For people.
    pub note: String,
    /// It says something of the whole system: that our own access is refused there (`Denied`), or that it cannot be reached
    /// (`Unavailable`). Without it no other case waits.
    pub blocks_system: bool,
    /// Of an effect of several calls: none of them changed anything. There is nothing to undo.
    pub is_untouched: bool,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, note: impl Into<String>) -> Self {
        let blocks_system = matches!(kind, FailureKind::Denied | FailureKind::Unavailable);
        Self { kind, note: note.into(), blocks_system, is_untouched: false }
    }

    /// The same, before anything was changed.
    pub(crate) fn untouched(self) -> Self {
        Self { is_untouched: self.kind != FailureKind::Unknown, ..self }
    }

    /// It is not this case's turn, and nothing happened: the system answers, so nobody else need wait.
    pub fn wait(note: impl Into<String>) -> Self {
        Self { blocks_system: false, ..Self::new(FailureKind::Unavailable, note) }
    }
}

/// A call within `limit`; `kind` when it strikes.
pub(crate) async fn within<T>(
    limit: Duration,
    kind: FailureKind,
    call: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    let late = |_| Err(Failure::new(kind, "no answer in time"));
    tokio::time::timeout(limit, call).await.unwrap_or_else(late)
}

/// What a call is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The credential.
    pub credential: CredentialId,
    /// The user name at the system behind, where a producer named it.
    pub principal: Option<String>,
    /// What the observe step of this same connector and system saw, where there was one.
    pub seen: Option<Observation>,
    /// What the look at the issuer saw.
    pub issuer: Option<Observation>,
    /// The run that held it.
    pub run: Option<RunKey>,
    /// Step key of an effect.
    pub key: Option<Uuid>,
    /// Of a credential with a recipe: what is rotated, and where its values are.
    pub rotation: Option<Rotation>,
    /// Of a reduction or a restoration: what is taken or given back. Of a revocation: the fence of its identity, all of which ends.
    pub rescope: Option<Rescope>,
    /// Of a [`Act::Notify`]: what is to be told.
    pub message: Option<Message>,
    /// Of what was derived from the credential: [`ROLES`](crate::case::plan::ROLES), or a role.
    pub place: Option<String>,
}

impl Subject {
    /// Whether whoever it lets in as ends with all that it has, and not this credential alone.
    pub(crate) fn ends_all(&self) -> bool {
        self.rescope.as_ref().is_some_and(|rescope| !rescope.gives && rescope.cut.is_fence())
    }

    /// Which permissions it is about.
    ///
    /// # Errors
    /// `Refused`: nobody said so.
    pub(crate) fn asked(&self) -> Result<&Rescope, Failure> {
        let unsaid = || Failure::new(FailureKind::Refused, "it is not said which permissions are meant");
        self.rescope.as_ref().ok_or_else(unsaid)
    }
}

/// What is taken from an identity, or given back to it.
#[derive(Debug, Clone)]
pub struct Rescope {
    /// Which permissions.
    pub cut: Cut,
    /// What the case knows of what there was.
    pub cutting: Cutting,
    /// They are given back.
    pub gives: bool,
}

impl Rescope {
    /// What a case is about, where it is about permissions, or fences an identity first.
    pub fn of(case: &Case) -> Option<Self> {
        let directive = &case.directive;
        let is_meant = |cut: &&Cut| directive.action.rescopes() || cut.is_fence();
        let mut cut = directive.cut.as_deref().filter(is_meant)?.clone();
        cut.permissions.retain(|one| !case.state.cutting.spared.contains(one));
        Some(Self { cut, cutting: case.state.cutting.clone(), gives: directive.action == Action::Restore })
    }

    /// What it says that `there` of `of` permissions count: refused where none does; given back only where all do.
    pub(crate) fn answer(&self, there: usize, of: usize) -> Answer {
        match there {
            0 => Answer::Refused,
            _ if self.gives && there < of => Answer::Unknown,
            _ => Answer::Accepted,
        }
    }

    /// What is to be there again: what a restoration was told, or what there was before this case began.
    pub fn owed(&self) -> &[Held] {
        match &self.cutting.before {
            _ if self.gives => &self.cut.held,
            Some(before) => &before.held,
            None => &[],
        }
    }
}

/// Whether a gate is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It is.
    Open,
    /// It is, and what was open at the system before `ms`, by its own clock, is of the old value.
    Cut {
        /// When.
        ms: i64,
    },
    /// Not yet: ask again then.
    Shut {
        /// When (our clock).
        again_ms: i64,
    },
    /// Not in time: the recipe says what becomes of those who are late.
    Late,
}

/// One kind of system. All calls have a time-out of their own (`unknown` when it strikes after sending).
#[async_trait]
pub trait Connector: Send + Sync {
    /// The name in plans, metrics and logs, such as `vault-lease`.
    fn name(&self) -> &'static str;
    /// The system that it calls: a realm's or target's name in the configuration.
    fn system(&self) -> &str;
    /// An upper bound of one call, in milliseconds: an effect starts only while the claim lasts longer.
    fn call_timeout_ms(&self) -> i64;
    /// How long the provider may accept what it said is gone.
    fn settle(&self) -> Settle;
    /// What the provider counts of its calls by itself, beside what the configuration says that the system bears. The
    /// connector takes a turn at them for each call; how much of each is this process's, the executor says.
    fn quotas(&self) -> Vec<Arc<Quota>> {
        Vec::new()
    }
    /// Roles whose sessions it ends along with a credential whose holder may become them, by a rule of the configuration that
    /// names each. `None`: it does not know what its credentials' holders may become.
    fn cut_roles(&self) -> Option<&[String]> {
        None
    }
    /// Whether a credential's user there may be the one that a producer calls so. Whom it may not touch, it is no proof of.
    fn serves(&self, _principal: &str) -> bool {
        true
    }
    /// Looks; no effect. `Gone` is an observation, not a failure.
    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure>;
    /// Carries out one effect.
    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure>;
    /// Asks whether the plan may go on: `Test` and `Adopt`. `Rejected` asks for another candidate.
    async fn pass(&self, _act: Act, _subject: &Subject) -> Result<Gate, Failure> {
        Err(Failure::new(FailureKind::Refused, "this connector has no such gate"))
    }
    /// Looks whether the old credential still works. What cannot be said is `unknown`.
    async fn probe(&self, subject: &Subject) -> Sighting;
    /// Confirms that our own access works: asked after a `Denied`, and before a blocked system is tried again.
    async fn self_check(&self) -> Result<(), Failure>;
}

/// A realm's or target's rules, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// Its name: the instance in credential ids, and the system of its calls.
    pub name: String,
    /// Whether it acts.
    pub mode: Mode,
    /// Prefixes of issuer ids on which it may act.
    pub allowed_prefixes: Vec<String>,
    /// Whose permissions may be taken: issuer ids, whole or ending in `*`.
    pub reducible: Vec<String>,
    /// Prefix of lease ids → the target that they open.
    pub targets: Vec<(String, String)>,
}

/// All connectors of this process.
#[derive(Clone, Default)]
pub struct Registry {
    realms: BTreeMap<String, Realm>,
    connectors: BTreeMap<(String, String), Arc<dyn Connector>>,
    stores: BTreeMap<(String, String), Arc<dyn Store>>,
    recipes: BTreeMap<CredentialId, Arc<Recipe>>,
}

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlan {
    /// No connector here serves the credential.
    #[error("no connector of this process serves this credential")]
    Unserved,
    /// Nobody said how it is rotated.
    #[error("no recipe of this process says how this credential is rotated")]
    NoRecipe,
}

impl Registry {
    /// Adds a realm.
    pub fn add_realm(&mut self, realm: Realm) {
        self.realms.insert(realm.name.clone(), realm);
    }

    /// At `system` the permissions of these identities may be taken.
    pub fn may_reduce(&mut self, system: &str, mode: Mode, identities: &[String]) {
        let realm = self.realms.entry(system.to_owned()).or_insert_with(|| Realm {
            name: system.to_owned(),
            mode,
            allowed_prefixes: Vec::new(),
            reducible: Vec::new(),
            targets: Vec::new(),
        });
        realm.reducible = identities.to_vec();
    }

    /// Adds a connector under its name and system.
    pub fn add(&mut self, connector: Arc<dyn Connector>) {
        self.connectors.insert((connector.name().to_owned(), connector.system().to_owned()), connector);
    }

    /// Adds a store, under its name and system. It is a connector as well.
    pub fn add_store(&mut self, store: Arc<dyn Store>) {
        self.stores.insert((store.name().to_owned(), store.system().to_owned()), store.clone());
        self.add(store);
    }

    /// Adds a recipe.
    pub fn add_recipe(&mut self, recipe: Recipe) {
        self.recipes.insert(recipe.credential.clone(), Arc::new(recipe));
    }

    /// How a credential is rotated.
    pub fn recipe(&self, id: &CredentialId) -> Option<&Arc<Recipe>> {
        self.recipes.get(id)
    }

    /// All recipes.
    pub fn recipes(&self) -> impl Iterator<Item = &Arc<Recipe>> {
        self.recipes.values()
    }

    /// What a rotation of the case works on, where its credential has a recipe.
    pub fn rotation(&self, case: &Case) -> Option<Rotation> {
        self.rotation_of(case, None)
    }

    /// The same of a split, where it is the `agent`'s turn.
    pub fn rotation_of(&self, case: &Case, agent: Option<&Agent>) -> Option<Rotation> {
        let recipe = self.recipe(&case.directive.credential)?.clone();
        let Some(agent) = agent else {
            let store = self.store(&recipe)?.clone();
            return Some(Rotation::of(case, recipe, None, store));
        };
        let share = recipe.shares_of(case.directive.moves()).into_iter().find(|share| share.agent == *agent)?;
        let store = self.store(&share.recipe)?.clone();
        Some(Rotation::of(case, share.recipe.clone(), Some(share), store))
    }

    /// What keeps the values of a recipe.
    fn store(&self, recipe: &Recipe) -> Option<&Arc<dyn Store>> {
        let place = &recipe.place;
        self.stores.get(&(place.keeper.as_str().to_owned(), place.realm.clone()))
    }

    /// The realm of this name.
    pub fn realm_of(&self, system: &str) -> Option<&Realm> {
        self.realms.get(system)
    }

    /// The realm that a credential belongs to.
    pub fn realm(&self, id: &CredentialId) -> Option<&Realm> {
        self.realms.get(id.instance())
    }

    /// The connector of a step.
    pub fn connector(&self, step: &Step) -> Option<&Arc<dyn Connector>> {
        self.by_name(&step.connector, &step.system)
    }

    /// The connector called `name` at `system`.
    pub fn by_name(&self, name: &str, system: &str) -> Option<&Arc<dyn Connector>> {
        self.connectors.get(&(name.to_owned(), system.to_owned()))
    }

    /// All connectors.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.connectors.values()
    }

    /// The issuer's connector of a credential: named as its kind.
    pub fn issuer(&self, id: &CredentialId) -> Option<&Arc<dyn Connector>> {
        self.by_name(id.kind().as_str(), id.instance())
    }

    /// The target that a credential opens, where one is configured and a principal is known. Only a producer says who that is:
    /// where it names anybody who is no user of leases there, or whose password a recipe rotates, nobody is touched or looked
    /// at, and the issuer alone proves the death.
    pub fn target(&self, id: &CredentialId, principal: Option<&str>) -> Option<&Arc<dyn Connector>> {
        let principal = principal.filter(|name| !self.rotates(name))?;
        self.behind(id).filter(|target| target.serves(principal))
    }

    /// Whether a producer named a user at the target of a case's credential who is none of the users of leases there.
    pub fn disowns(&self, case: &Case) -> bool {
        let (id, principal) = (&case.directive.credential, case.principal.as_deref());
        principal.is_some() && self.behind(id).is_some() && self.target(id, principal).is_none()
    }

    /// What a credential opens, by the configuration.
    fn behind(&self, id: &CredentialId) -> Option<&Arc<dyn Connector>> {
        let own_id = id.id();
        let (_, target) = self
            .realm(id)?
            .targets
            .iter()
            .filter(|(prefix, _)| own_id.starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len())?;
        self.connectors.values().find(|c| c.system() == target && c.name() == "postgres")
    }

    /// Whether a recipe is of a user of this name, at whichever PostgreSQL: one server may be two targets.
    fn rotates(&self, name: &str) -> bool {
        let of_roles = self.recipes.values().filter(|recipe| recipe.credential.kind() == Kind::PostgresRole);
        let shares = of_roles.clone().flat_map(|recipe| recipe.shares.iter().map(|share| &share.recipe));
        of_roles.chain(shares).any(|recipe| recipe.users.names().contains(&name))
    }

    /// Whether the identity of a credential may be closed here.
    fn may_fence(&self, id: &CredentialId) -> bool {
        let identity = scope::identity_of(id);
        self.realm(id).is_some_and(|realm| guard::is_fenceable(&identity, &realm.reducible, &realm.allowed_prefixes))
    }

    /// Composes the next plan of a case. Pure: no call goes out.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub fn plan(&self, case: &Case) -> Result<Plan, NoPlan> {
        let id = &case.directive.credential;
        let at = |connector: &'_ Arc<dyn Connector>| (connector.name().to_owned(), connector.system().to_owned());
        let by = |name| self.by_name(name, id.instance()).map(at);
        let cut = case.directive.cut.as_deref().filter(|cut| cut.is_fence());
        let fencer = || plan::fence_connector(id.kind()).and_then(by).filter(|_| self.may_fence(id));
        let fence = cut.and_then(|_| fencer());
        let scope = if cut.is_some() { fence.clone() } else { plan::scope_connector(id.kind()).and_then(by) };
        let issuer = match (self.issuer(id), &scope) {
            (Some(issuer), _) => at(issuer),
            // Whoever cannot end it may still be let take from its identity.
            (None, Some(scope)) if case.directive.action.rescopes() => scope.clone(),
            (None, _) => return Err(NoPlan::Unserved),
        };
        let target = self.target(id, case.principal.as_deref()).filter(|_| !case.is_invented()).map(at);
        let recipe = match self.recipe(id) {
            Some(recipe) => {
                let store = self.store(recipe).ok_or(NoPlan::Unserved)?;
                let copies = recipe.stores_of_copies().into_iter().map(|(keeper, realm)| (keeper.as_str(), realm));
                let called = recipe.webhooks.iter().map(|name| (webhook::NAME, name.as_str()));
                let shares = recipe.shares_of(case.directive.moves());
                let shares = shares.iter().map(|share| share.recipe.place.store());
                let shares = shares.map(|(keeper, realm)| (keeper.as_str(), realm));
                let shares = shares.filter(|_| case.directive.action == Action::Split);
                if copies.chain(called).chain(shares).any(|(name, system)| self.by_name(name, system).is_none()) {
                    return Err(NoPlan::Unserved);
                }
                Some((recipe.as_ref(), (store.name(), store.system())))
            }
            None => None,
        };
        let parts = plan::Parts {
            kind: id.kind(),
            issuer: (&issuer.0, &issuer.1),
            target: target.as_ref().map(|(name, system)| (name.as_str(), system.as_str())),
            recipe,
            scope: scope.as_ref().map(|(name, system)| (name.as_str(), system.as_str())),
            moves: case.directive.moves(),
            fence: cut.map(|_| match &fence {
                Some((name, system)) => ((name.as_str(), system.as_str()), true),
                None => ((issuer.0.as_str(), issuer.1.as_str()), false),
            }),
            cut_roles: self.issuer(id).and_then(|connector| connector.cut_roles()),
        };
        let needs_scope = case.directive.action.rescopes()
            || (case.directive.action == Action::Split && recipe.is_some_and(|(one, _)| !one.shares.is_empty()));
        let none = if needs_scope && scope.is_none() { NoPlan::Unserved } else { NoPlan::NoRecipe };
        plan::compose(case.directive.action, parts, &case.state).ok_or(none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_waiting_says_nothing_of_the_system() {
        assert!(Failure::new(FailureKind::Unavailable, "").blocks_system);
        assert!(Failure::new(FailureKind::Denied, "").blocks_system);
        let waits = Failure::wait("");
        assert_eq!((waits.kind, waits.blocks_system), (FailureKind::Unavailable, false));
    }
}
