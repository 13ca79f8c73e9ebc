//! Recipes: how one credential is rotated. From the configuration; no secret in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{Connector, Failure, Gate};
use crate::case::plan::{Act, Agent, Step, step_key};
use crate::case::record::{Generation, Output};
use crate::case::turn::Turn;
use crate::case::{Action, Case};
use crate::credential::CredentialId;
use crate::scope::{Move, Permission};

/// How one credential is rotated: where its value is stored, and which users take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Its name in the configuration.
    pub name: String,
    /// What it rotates.
    pub credential: CredentialId,
    /// Where consumers read it.
    pub place: Place,
    /// Where others read the same value: kept alike.
    pub copies: Vec<Place>,
    /// Webhooks that are called when there is another value, by their names in the configuration.
    pub webhooks: Vec<String>,
    /// Who logs in with it.
    pub users: Users,
    /// What the target takes as a password.
    pub password: PasswordRules,
    /// Who reads it, and what becomes of the old value while they do.
    pub adoption: Adoption,
    /// The rules may tell `prod` from `dev` by it.
    pub environment: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// How old its value may become.
    pub max_age_ms: Option<i64>,
    /// Those that share it, where they are to have a user of their own each.
    pub shares: Vec<Arc<Share>>,
}

/// What one of several that share a credential gets instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Who, and which user.
    pub agent: Agent,
    /// How the value that it reads goes over from the shared user to its own.
    pub recipe: Arc<Recipe>,
    /// Which of the shared user's permissions it needs; `None`: that is not known, so all of them.
    pub needs: Option<Vec<Permission>>,
    /// That is what it may at the most: what of it the shared user has not, it does without.
    pub is_bound: bool,
}

impl Share {
    /// Of the rotation `own`, which is the agent's from then on; `shared` is who has the value until then.
    pub fn new(agent: &str, shared: &str, own: &Recipe, needs: Option<Vec<Permission>>) -> Option<Self> {
        let Users::One(user) = &own.users else { return None };
        let agent = Agent { name: agent.to_owned(), user: user.clone() };
        let users = Users::Two(shared.to_owned(), user.clone());
        let recipe = Arc::new(Recipe { users, shares: Vec::new(), ..own.clone() });
        Some(Self { agent, recipe, needs, is_bound: false })
    }

    /// The same, with no more than `at_most`. `None`: nothing that it needs is left.
    pub fn within(&self, at_most: Option<&[Permission]>) -> Option<Self> {
        let Some(at_most) = at_most else { return Some(self.clone()) };
        let Some(needs) = &self.needs else {
            return Some(Self { needs: Some(at_most.to_vec()), is_bound: true, ..self.clone() });
        };
        let needs: Vec<Permission> = needs.iter().filter(|one| at_most.contains(one)).cloned().collect();
        (!needs.is_empty()).then(|| Self { needs: Some(needs), ..self.clone() })
    }
}

/// What keeps a value, and so who picks it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keeper {
    /// KV version 2: we pick, store it and give it to the target.
    #[default]
    Kv,
    /// A static role of the database engine: Vault picks, sets it at the target and stores it, in one call.
    StaticRole,
    /// AWS Secrets Manager: we pick, as for KV.
    AwsSecret,
    /// The same, where AWS rotates: a function or a service of its own picks, sets it at the target and stores it.
    AwsRotated,
}

impl Keeper {
    /// The name of its connector.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kv => "vault-kv",
            Self::StaticRole => "vault-static-role",
            Self::AwsSecret => "aws-secret",
            Self::AwsRotated => "aws-rotated-secret",
        }
    }

    /// Whether the provider picks the value.
    pub fn mints(self) -> bool {
        matches!(self, Self::StaticRole | Self::AwsRotated)
    }

    /// Whether the provider is only asked for another value, and takes its time for it.
    pub fn takes_its_time(self) -> bool {
        self == Self::AwsRotated
    }
}

/// In a [`Place`] of AWS Secrets Manager: the service, where others have the mount of an engine.
pub const SECRETS_MANAGER: &str = "secretsmanager";

/// Instead of a field's name: the secret is the value, and has no fields.
pub const WHOLE: &str = "";

/// Where a value is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// What keeps it.
    pub keeper: Keeper,
    /// The store: the name of a realm, or of an account of AWS, in the configuration.
    pub realm: String,
    /// The mount of the secrets engine, such as `kv`; at AWS the service.
    pub mount: String,
    /// The path below it, as consumers read it.
    pub path: String,
    /// The field that holds the value, or [`WHOLE`].
    pub field: String,
    /// The field that holds the user name, where two take turns.
    pub user_field: Option<String>,
}

impl Place {
    /// Which store keeps it.
    pub fn store(&self) -> (Keeper, &str) {
        (self.keeper, &self.realm)
    }

    /// Whether it names one secret of AWS Secrets Manager.
    ///
    /// # Errors
    /// Why not.
    pub fn check_secret(&self) -> Result<(), &'static str> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
        let fields = [Some(&self.field), self.user_field.as_ref()];
        let is_whole = self.field == WHOLE && self.user_field.is_none();
        if self.path.is_empty() || self.path.len() > 512 || !self.path.bytes().all(is_name) {
            Err("a secret is called by its name, of letters, digits and /_+=.@-")
        } else if self.mount != SECRETS_MANAGER {
            Err("a secret of AWS has no mount")
        } else if !is_whole && fields.into_iter().flatten().any(String::is_empty) {
            Err("a field needs a name")
        } else if self.user_field.as_ref() == Some(&self.field) {
            Err("value and user name are in one field")
        } else {
            Ok(())
        }
    }

    /// `<mount>/<path>#<field>`: which it is within its realm.
    pub fn name(&self) -> String {
        format!("{}/{}#{}", self.mount, self.path, self.field)
    }
}

/// Who logs in with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// One user: the old value ends where the new one begins.
    One(String),
    /// Two in turn: the idle one takes the new value while the old one still works.
    Two(String, String),
    /// One name, by which each of many values lets in until it is ended: an AppRole, `<mount>/<role>`.
    Many(String),
    /// One user of several keys, which the provider picks and names: of IAM, `<path><name>`. The name of the key stands
    /// beside its value.
    Keys(String),
}

impl Users {
    /// Who takes the next value, where `current` has the old one. `None`: `current` is none of them.
    pub fn next(&self, current: Option<&str>) -> Option<&str> {
        match (self, current) {
            (Self::One(user) | Self::Many(user), None) => Some(user),
            (Self::One(user) | Self::Many(user), Some(current)) => (user == current).then_some(user),
            (Self::Two(a, b), Some(current)) if a == current => Some(b),
            (Self::Two(a, b), Some(current)) if b == current => Some(a),
            // How the next one is called the provider says.
            (Self::Two(..) | Self::Keys(_), _) => None,
        }
    }

    /// All of them.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::One(user) | Self::Many(user) | Self::Keys(user) => vec![user],
            Self::Two(a, b) => vec![a, b],
        }
    }

    /// Whether the old value can work while the new one does.
    pub fn overlap(&self) -> bool {
        matches!(self, Self::Two(..) | Self::Many(_) | Self::Keys(_))
    }

    /// Whether the target makes the next value, and not the store: it is stored in the same step.
    pub fn are_made_there(&self) -> bool {
        matches!(self, Self::Keys(_))
    }

    /// What ends the old value, and what was opened with it: a user is shut out, one of many values is destroyed.
    pub fn cut(&self) -> (Act, Act) {
        match self {
            Self::One(_) | Self::Two(..) | Self::Keys(_) => (Act::Disable, Act::EndSessions),
            Self::Many(_) => (Act::Revoke, Act::RevokeDerived),
        }
    }
}

/// What a candidate must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordRules {
    /// Characters.
    pub length: usize,
    /// Characters beside letters and digits that may occur; at least one of each class does.
    pub symbols: String,
}

impl Default for PasswordRules {
    fn default() -> Self {
        Self { length: 40, symbols: "-_.~".to_owned() }
    }
}

/// Who must take the new value before the old one is cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Names of the consumers; empty: nobody is waited for.
    pub consumers: Vec<String>,
    /// How long they have.
    pub within_ms: i64,
    /// What happens to those who did not.
    pub late: Late,
    /// Only their own word counts, not what the target shows of their sessions.
    pub by_word: bool,
}

/// What to do when consumers have not taken the new value in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// Hold the case and alarm.
    #[default]
    Hold,
    /// Cut the old value, and record why.
    Cut,
}

/// Which of the values at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The newest candidate, where nobody but Curfew reads it.
    Candidate,
    /// What consumers read.
    Current,
    /// A version of what consumers read.
    Version(i64),
}

/// A stored value. Its memory is zeroed when it goes.
pub struct Stored {
    /// The store's version.
    pub version: i64,
    /// Whose value it is, where the place says.
    pub user: Option<String>,
    /// The value.
    pub value: SecretString,
    /// Of a candidate: the key of the step that made it.
    pub key: Option<Uuid>,
}

impl Stored {
    /// Whether both are the same value for the same user. The time that it takes tells nothing of the values.
    pub fn is(&self, other: &Self) -> bool {
        self.user == other.user && self.is_alike(other)
    }

    /// Whether both are the same value, whosever it is.
    pub fn is_alike(&self, other: &Self) -> bool {
        let (own, its) = (self.value.expose_secret().as_bytes(), other.value.expose_secret().as_bytes());
        own.ct_eq(its).into()
    }

    /// Which it is. Nothing of the value.
    pub fn generation(&self) -> Generation {
        Generation { version: self.version, user: self.user.clone() }
    }
}

/// Keeps values. Its [`Connector::observe`] says which version is current; it does `Create`, `Promote`, `Copy`, `Destroy`
/// and `Discard`. One that mints does `Mint` instead of the first two. One that keeps a single version destroys what it
/// remembers of the one before; one that is only asked has `Begin` before it, and `Test` as the gate between the two.
#[async_trait]
pub trait Store: Connector {
    /// Reads a value; `None`: there is none, or it is destroyed.
    async fn read(&self, place: &Place, which: Which) -> Result<Option<Stored>, Failure>;

    /// Stores a candidate that its target made, `minted.user` with it where the place has a field for that, under the key of
    /// the step that had it made.
    ///
    /// # Errors
    /// `Refused` where the store takes none.
    async fn keep(&self, rotation: &Rotation, minted: &Stored) -> Result<Output, Failure>;

    /// What consumers read at version `last` and before, as far as it is stored: the newest first, `most` versions.
    async fn earlier(&self, place: &Place, last: i64, most: usize) -> Result<Vec<Stored>, Failure>;
}

/// A store that did not give a value: nothing happened at the target, and that system is not at fault.
pub fn of_store(failure: Failure) -> Failure {
    use crate::case::record::FailureKind as F;
    let kind = match failure.kind {
        same @ (F::Refused | F::Denied | F::Rejected) => same,
        _ => F::Unavailable,
    };
    Failure { kind, blocks_system: false, is_untouched: false, note: format!("the store: {}", failure.note) }
}

impl Recipe {
    /// What those of its agents get whom `moves` names, within what it says of each; all of them, where it names nobody.
    pub fn shares_of(&self, moves: Option<&[Move]>) -> Vec<Arc<Share>> {
        let Some(moves) = moves else { return self.shares.clone() };
        let of = |share: &Arc<Share>| {
            let meant = moves.iter().find(|one| one.agent == share.agent.name)?;
            share.within(meant.at_most.as_deref()).map(Arc::new)
        };
        self.shares.iter().filter_map(of).collect()
    }

    /// The copies that one store keeps.
    pub fn copies_at<'a>(&'a self, store: (Keeper, &'a str)) -> impl Iterator<Item = &'a Place> {
        self.copies.iter().filter(move |copy| copy.store() == store)
    }

    /// The stores that have copies, each once.
    pub fn stores_of_copies(&self) -> BTreeSet<(Keeper, &str)> {
        self.copies.iter().map(Place::store).collect()
    }
}

/// What a step of a rotation works on.
#[derive(Clone)]
pub struct Rotation {
    /// How.
    pub recipe: Arc<Recipe>,
    /// Where the values are.
    pub store: Arc<dyn Store>,
    /// Which values.
    pub turn: Turn,
    /// The key of the candidate that the case made last.
    pub candidate: Option<Uuid>,
    /// The old value leaked: nothing of it may come back.
    pub contains: bool,
    /// Nothing takes its place: all of its users go, whichever of them has which value.
    pub ends: bool,
    /// The copy that the step is about.
    pub copy: Option<Place>,
    /// When the case was opened: what it made was made after that.
    pub since_ms: i64,
    /// It is split: nobody is to have the old value in the end.
    pub splits: bool,
    /// Of a split: whose turn it is.
    pub share: Option<Arc<Share>>,
    /// Of a split that moves only those who are named: whom it has moved so far. What they shared lives on.
    pub moved: Option<Vec<Arc<Share>>>,
}

impl Rotation {
    /// What the case knows, with its recipe; of a split with that of the `share` whose turn it is.
    pub fn of(case: &Case, recipe: Arc<Recipe>, share: Option<Arc<Share>>, store: Arc<dyn Store>) -> Self {
        let (state, directive) = (&case.state, &case.directive);
        let mut turn = if share.is_some() { state.turn.clone() } else { state.own_turn().clone() };
        // What is verified is an older value; what was seen at the store is the one that lives.
        if let (Action::Verify, Some(version)) = (directive.action, directive.generation)
            && turn.old.as_ref().is_some_and(|current| current.version != version)
        {
            turn.new = turn.old.replace(Generation { version, user: None });
        }
        let agent = share.as_ref().map(|share| &share.agent);
        let is_it = |step: &Step| step.act == Act::Create && step.agent.as_ref() == agent;
        let create = state.plan.as_ref().and_then(|plan| plan.steps.iter().position(is_it));
        let candidate = create.map(|step| step_key(case.id, state.plan_no, step, turn.rejected + 1));
        let splits = directive.action == Action::Split;
        let moves = directive.moves();
        // What is shared ends as anything else for good, once all have gone.
        let ends = directive.action == Action::Revoke || (splits && share.is_none() && moves.is_none());
        let contains = directive.action == Action::Contain || ends;
        let named = state.current().and_then(|step| Some((&step.system, step.place.as_ref()?)));
        let is_named = |copy: &&Place| named == Some((&copy.realm, &copy.name()));
        let copy = recipe.copies.iter().find(is_named).cloned();
        let since_ms = case.opened_ms;
        let moved = moves.map(|moves| {
            let mut all = recipe.shares_of(Some(moves));
            all.retain(|share| state.moved.iter().any(|one| one.agent == share.agent.name));
            all
        });
        Self { recipe, store, turn, candidate, contains, ends, copy, since_ms, splits, share, moved }
    }

    /// What the consumers' own words say of adoption. `None`: not enough, the target is asked.
    pub fn told(&self, now_ms: i64) -> Option<Gate> {
        let (adoption, turn) = (&self.recipe.adoption, &self.turn);
        // Who logs in as whom, the target shows; that nobody does any more, only the target.
        if self.splits && (self.share.is_none() || adoption.consumers.is_empty()) {
            return None;
        }
        if adoption.consumers.iter().all(|consumer| turn.adopted.contains(consumer)) {
            return Some(Gate::Open);
        }
        let left_ms = turn.promoted_ms?.saturating_add(adoption.within_ms).saturating_sub(now_ms);
        let gate = if left_ms <= 0 { Gate::Late } else { Gate::Shut { again_ms: now_ms.saturating_add(left_ms) } };
        adoption.by_word.then_some(gate)
    }

    /// The user whose value goes.
    pub fn old_user(&self) -> Option<&str> {
        match &self.recipe.users {
            Users::One(user) | Users::Many(user) | Users::Keys(user) => Some(user),
            Users::Two(..) => self.turn.old.as_ref()?.user.as_deref(),
        }
    }

    /// The user who takes the new value.
    pub fn new_user(&self) -> Option<&str> {
        match &self.recipe.users {
            Users::One(user) | Users::Many(user) | Users::Keys(user) => Some(user),
            Users::Two(..) => self.recipe.users.next(self.old_user()),
        }
    }

    /// Who takes a candidate that a store picks.
    ///
    /// # Errors
    /// `Refused` where that cannot be said.
    pub fn taker(&self) -> Result<&str, Failure> {
        use crate::case::record::FailureKind::Refused;
        let old = self.turn.old.as_ref();
        let old = old.ok_or_else(|| Failure::new(Refused, "consumers read nothing that could be replaced"))?;
        let next = self.recipe.users.next(old.user.as_deref());
        next.ok_or_else(|| Failure::new(Refused, "the stored user is none of the recipe's"))
    }

    /// Whether the provider picks the new value.
    pub fn mints(&self) -> bool {
        self.recipe.place.keeper.mints()
    }

    /// The candidate that this case made: never another's. What a provider made is what consumers read already, and who
    /// had it made is all the same.
    ///
    /// # Errors
    /// As [`Store::read`]; `Refused` when the stored one is not ours.
    pub async fn candidate(&self) -> Result<Stored, Failure> {
        use crate::case::record::FailureKind::Refused;
        if self.mints() {
            let current = self.store.read(&self.recipe.place, Which::Current).await?;
            return current.ok_or_else(|| Failure::new(Refused, "consumers read nothing there any more"));
        }
        let stored = self.store.read(&self.recipe.place, Which::Candidate).await?;
        match stored {
            Some(stored) if stored.key.is_some() && stored.key == self.candidate => Ok(stored),
            Some(_) => Err(Failure::new(Refused, "the stored candidate is another case's")),
            None => Err(Failure::new(Refused, "the candidate is not stored any more")),
        }
    }
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotation").field("recipe", &self.recipe.name).field("turn", &self.turn).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").field("version", &self.version).field("user", &self.user).finish_non_exhaustive()
    }
}
