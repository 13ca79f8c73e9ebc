//! What is rotated, how, and where the inventory is read: shapes, defaults, and what must hold between the parts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_saphyr::{Location, Spanned};

use super::check::Checks;
use super::file::{AppRole, Millis, unplaced};
use super::problem::{Problem, said};
use super::{Aws, Inventory, Realm, System, Target, Webhook};
use super::{mariadb, splits};
use crate::ages;
use crate::case::record::FailureKind;
use crate::case::turn::Turn;
use crate::connector::Failure;
use crate::connector::candidate::LENGTH;
use crate::connector::recipe::{Adoption, Keeper, Late, PasswordRules, Place, Recipe, SECRETS_MANAGER, Users, WHOLE};
use crate::connector::vault::{approle, kv, static_role};
use crate::credential::{CredentialId, Kind};
use crate::finding::Validity;
use crate::guard::{self, Mode};
use crate::policy::rules::{FindingRule, Response, When};

/// One of `rotations`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Its name.
    pub name: Spanned<String>,
    /// The target where the users log in.
    #[serde(default)]
    pub target: Option<Spanned<String>>,
    /// One user, or two that take turns.
    #[serde(default, alias = "users")]
    pub roles: Option<Spanned<Vec<String>>>,
    /// Instead of both: the AppRole that the stored secret_id is of.
    #[serde(default)]
    pub approle: Option<Spanned<Role>>,
    /// Where consumers read the value.
    pub store: Store,
    /// Where others read the same value: kept alike. Secrets of KV engines.
    #[serde(default)]
    pub copies: Vec<Store>,
    /// Webhooks that are called when there is another value.
    #[serde(default)]
    pub webhooks: Vec<Spanned<String>>,
    /// What the target takes as a password.
    #[serde(default)]
    pub password: Option<Password>,
    /// Who must take a new value before the old one is cut.
    #[serde(default)]
    pub consumers: Vec<String>,
    /// How long they have.
    #[serde(default = "adopt_within")]
    pub adopt_within: Spanned<Millis>,
    /// What happens to those who did not.
    #[serde(default)]
    pub late: Late,
    /// They say so by `credential.adopted`: that the target shows no session of the old value is not enough.
    #[serde(default)]
    pub consumers_answer: bool,
    /// The rules may tell `prod` from `dev` by it.
    #[serde(default)]
    pub environment: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// How old its value may become; absent: any age.
    #[serde(default)]
    pub max_age: Option<Spanned<Millis>>,
    /// Those that share the value, where each is to have a user of its own.
    #[serde(default)]
    pub split: Vec<Spanned<splits::Share>>,
}

/// `approle`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The realm.
    pub realm: Spanned<String>,
    /// Where the AppRole method is mounted.
    #[serde(default = "approle")]
    pub mount: String,
    /// The role.
    pub role: String,
}

fn approle() -> String {
    "approle".to_owned()
}

fn adopt_within() -> Spanned<Millis> {
    unplaced(Millis(900_000))
}

/// `store`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The realm; of a `secret` the target with `aws`.
    pub realm: Spanned<String>,
    /// The mount of a KV secrets engine, version 2 (`kv`), or of the database engine (`database`).
    #[serde(default)]
    pub mount: Option<String>,
    /// The path below it.
    #[serde(default)]
    pub path: Option<Spanned<String>>,
    /// Instead of a path: the static role of the database engine, whose password Vault makes, sets and hands out.
    #[serde(default)]
    pub static_role: Option<Spanned<String>>,
    /// Instead of a path: the name of a secret of AWS Secrets Manager, a JSON object with the fields.
    #[serde(default)]
    pub secret: Option<Spanned<String>>,
    /// Instead of a path: the name of such a secret that AWS rotates itself, by a function or a service of its own.
    #[serde(default)]
    pub rotated_secret: Option<Spanned<String>>,
    /// The field with the value.
    #[serde(default = "password")]
    pub field: String,
    /// Instead of a field: the secret of AWS is the value, as a text without fields.
    #[serde(default)]
    pub whole: bool,
    /// The field with the user name; needed where two users take turns.
    #[serde(default)]
    pub user_field: Option<String>,
}

fn kv() -> String {
    "kv".to_owned()
}

impl Store {
    /// What keeps the value, and where: for messages as well.
    fn place(&self, c: &mut Checks<'_>, realms: &[Realm], targets: &[Target]) -> Option<(Place, Location)> {
        if self.secret.is_some() || self.rotated_secret.is_some() {
            known_account(c, &self.realm, targets);
        } else {
            whose(c, &self.realm, realms);
            known_realm(c, &self.realm, realms);
        }
        let at_aws =
            |keeper, name: &Spanned<String>| (keeper, name.value.clone(), SECRETS_MANAGER.to_owned(), name.referenced);
        let named = (&self.path, &self.static_role, &self.secret, &self.rotated_secret);
        let (keeper, path, usual, at) = match named {
            (Some(path), None, None, None) => (Keeper::Kv, path.value.clone(), kv(), path.referenced),
            (None, None, Some(name), None) => at_aws(Keeper::AwsSecret, name),
            (None, None, None, Some(name)) => at_aws(Keeper::AwsRotated, name),
            (None, Some(role), None, None) => (
                Keeper::StaticRole,
                format!("{}{}", static_role::CREDS, role.value),
                "database".to_owned(),
                role.referenced,
            ),
            _ => {
                c.wrong(
                    self.realm.referenced,
                    "`store` has a `path` of a KV engine, a `static_role`, a `secret` of AWS, or a `rotated_secret`",
                );
                return None;
            }
        };
        let place = Place {
            keeper,
            realm: self.realm.value.clone(),
            mount: self.mount.clone().unwrap_or(usual),
            path,
            field: if self.whole { WHOLE.to_owned() } else { self.field.clone() },
            // As AWS's own rotations write it.
            user_field: self.user_field.clone().or((keeper == Keeper::AwsRotated).then(|| "username".to_owned())),
        };
        let (checked, names) = match keeper {
            Keeper::Kv => (kv::check_place(&place), "one secret of a KV engine"),
            Keeper::StaticRole => (static_role::check_place(&place), "one static role"),
            Keeper::AwsSecret | Keeper::AwsRotated => {
                (place.check_secret().map_err(|why| Failure::new(FailureKind::Refused, why)), "one secret of AWS")
            }
        };
        if let Err(failure) = checked {
            c.wrong(at, format!("`store` names {names}: {}", failure.note));
        }
        Some((place, at))
    }
}

fn password() -> String {
    "password".to_owned()
}

/// `password`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Password {
    /// Characters.
    pub length: Spanned<usize>,
    /// Characters beside letters and digits.
    pub symbols: String,
}

impl Default for Password {
    fn default() -> Self {
        let rules = PasswordRules::default();
        Self { length: unplaced(rules.length), symbols: rules.symbols }
    }
}

/// One of `inventory`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The realm.
    pub realm: Spanned<String>,
    /// Holds the token of its own login, which can only read.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The AppRole of its own login.
    #[serde(default)]
    pub approle: Option<AppRole>,
    /// The mount of a KV secrets engine, version 2 (`kv`), or of the database engine (`database`).
    #[serde(default)]
    pub mount: Option<String>,
    /// Paths; one that ends in `/` stands for all below it.
    #[serde(default = "nothing")]
    pub paths: Spanned<Vec<String>>,
    /// Instead of paths: static roles of the database engine.
    #[serde(default = "nothing")]
    pub static_roles: Spanned<Vec<String>>,
    /// The fields that hold secrets; absent: all.
    #[serde(default)]
    pub fields: Option<Vec<String>>,
    /// How often.
    #[serde(default = "minute")]
    pub every: Spanned<Millis>,
}

fn nothing() -> Spanned<Vec<String>> {
    unplaced(Vec::new())
}

fn minute() -> Spanned<Millis> {
    unplaced(Millis(60_000))
}

/// One of `policy.findings`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// When it fits; what is left out fits anything.
    #[serde(default)]
    pub when: RuleWhen,
    /// What follows.
    pub then: Response,
    /// How long whoever answers for it has to say no, before anything is done.
    #[serde(default)]
    pub notice: Option<Millis>,
}

/// `when`
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleWhen {
    /// What a check of the secret said.
    pub validity: Option<Validity>,
    /// Whether the public can see it.
    pub public: Option<bool>,
    /// One of these environments.
    pub environment: Option<Vec<String>>,
    /// One of these severities.
    pub severity: Option<Vec<String>>,
    /// One of these detectors.
    pub detector: Option<Vec<String>>,
    /// First seen at least so long ago.
    pub older_than: Option<Millis>,
}

/// The rules for findings; none are written: the defaults.
pub(super) fn rules(raw: Option<&[Rule]>) -> Vec<FindingRule> {
    let Some(raw) = raw else { return FindingRule::defaults() };
    let rule = |rule: &Rule| {
        let RuleWhen { validity, public, environment, severity, detector, older_than } = rule.when.clone();
        let older_than_ms = older_than.map(|span| span.0);
        let when = When { validity, public, environment, severity, detector, older_than_ms };
        FindingRule { notice_ms: rule.notice.map_or(0, |span| span.0), ..FindingRule::new(when, rule.then) }
    };
    raw.iter().map(rule).collect()
}

/// The recipes.
pub(super) fn recipes(
    c: &mut Checks<'_>,
    raw: &[Spanned<Rotation>],
    realms: &[Realm],
    targets: &[Target],
    webhooks: &[Webhook],
) -> Vec<Recipe> {
    let (mut names, mut users) = (BTreeSet::new(), BTreeSet::new());
    let mut places = BTreeSet::new();
    let mut recipes = Vec::new();
    for Spanned { value: one, .. } in raw {
        if one.name.value.is_empty() || !names.insert(&one.name.value) {
            c.wrong(one.name.referenced, "a rotation has a `name` of its own");
        }
        let Some((place, stored_at)) = one.store.place(c, realms, targets) else { continue };
        let Some(holder) = holder(c, one, &place, realms, targets) else { continue };
        for name in holder.id.split(',') {
            if !users.insert((holder.kind, holder.instance.clone(), name.to_owned())) {
                c.wrong(holder.at, format!("{} is rotated twice at this system", said(name)));
            }
        }
        if one.password.is_some() && place.keeper.mints() {
            let why = match place.keeper {
                Keeper::AwsRotated => "what AWS rotates it makes by its own rules",
                _ => "a static role's password is made by Vault, after its engine's password policy",
            };
            c.wrong(stored_at, why);
        }
        let password = one.password.clone().unwrap_or_default();
        if !LENGTH.contains(&password.length.value) {
            c.wrong(password.length.referenced, "`password.length` is 16 to 256");
        }
        if !password.symbols.bytes().all(|b| b.is_ascii_punctuation()) {
            c.wrong(password.length.referenced, "`password.symbols` are ASCII punctuation");
        }
        if let Some(age) = one.max_age.as_ref().filter(|age| age.value.0 < ages::LEAST_MS) {
            c.wrong(age.referenced, "`max_age` is at least 1h");
        }
        // Else a value would be due while consumers still move to it, and of two users both would be on the move.
        if let Some(age) = one.max_age.as_ref().filter(|age| age.value.0 < 2 * one.adopt_within.value.0) {
            c.wrong(age.referenced, "`max_age` is at least twice `adopt_within`");
        }
        if one.consumers.len() > Turn::CONSUMERS {
            c.wrong(one.name.referenced, format!("`consumers` are {} at the most", Turn::CONSUMERS));
        }
        if one.consumers_answer && one.consumers.is_empty() {
            c.wrong(one.name.referenced, "`consumers_answer` needs `consumers`: nobody is named who could answer");
        }
        let Ok(credential) = CredentialId::new(holder.kind, &holder.instance, &holder.id) else {
            c.wrong(holder.at, "a system's name stands in credential ids: letters, digits, `-`, `_` and `.`");
            continue;
        };
        let copies = copies(c, one, &place, realms, targets);
        for (place, at) in std::iter::once((&place, stored_at)).chain(copies.iter().map(|(copy, at)| (copy, *at))) {
            if !places.insert((place.realm.clone(), place.mount.clone(), place.path.clone(), place.field.clone())) {
                c.wrong(at, "two rotations share this secret, or one names it twice");
            }
        }
        for name in &one.webhooks {
            if !webhooks.iter().any(|known| known.name == name.value) {
                let message = format!("there is no webhook {}", said(&name.value));
                let known = webhooks.iter().map(|webhook| webhook.name.as_str());
                c.problems.push(Problem::new(name.referenced, message).nearest(&name.value, known));
            }
        }
        recipes.push(Recipe {
            name: one.name.value.clone(),
            credential,
            place,
            copies: copies.into_iter().map(|(copy, _)| copy).collect(),
            webhooks: one.webhooks.iter().map(|name| name.value.clone()).collect(),
            users: holder.users,
            password: PasswordRules { length: password.length.value, symbols: password.symbols },
            adoption: Adoption {
                consumers: one.consumers.clone(),
                within_ms: one.adopt_within.value.0,
                late: one.late,
                by_word: one.consumers_answer,
            },
            environment: one.environment.clone(),
            owner: one.owner.clone(),
            max_age_ms: one.max_age.as_ref().map(|age| age.value.0),
            shares: Vec::new(),
        });
    }
    recipes
}

/// Where a rotation's value is read as well.
fn copies(
    c: &mut Checks<'_>,
    one: &Rotation,
    place: &Place,
    realms: &[Realm],
    targets: &[Target],
) -> Vec<(Place, Location)> {
    let mut all = Vec::new();
    for copy in &one.copies {
        let Some((copied, at)) = copy.place(c, realms, targets) else { continue };
        let mut modes = realms.iter().map(|realm| (&realm.rules.name, realm.rules.mode));
        let mut accounts = targets.iter().map(|target| (&target.name, target.mode));
        let observes = |(name, mode): (&String, Mode)| *name == copied.realm && mode == Mode::Observe;
        if modes.any(observes) || accounts.any(observes) {
            c.warnings.push(format!(
                "rotation {}: realm {} observes, and holds a copy: nothing of it is rotated (`mode: enforce` there)",
                one.name.value, copied.realm
            ));
        }
        if place.keeper.mints() || copied.keeper.mints() {
            c.wrong(at, "what Vault or AWS makes and hands out has no copies: let all read it there");
        }
        if place.user_field.is_some() && copied.user_field.is_none() {
            c.wrong(at, "where two users take turns, a copy has a `user_field` as well");
        }
        all.push((copied, at));
    }
    all
}

/// Who logs in with the values of a rotation, and where.
struct Holder {
    kind: Kind,
    instance: String,
    users: Users,
    /// What the system calls them, of two with a comma between.
    id: String,
    at: Location,
}

impl Holder {
    fn new(kind: Kind, instance: &str, users: Users, at: Location) -> Self {
        let id = users.names().join(",");
        Self { kind, instance: instance.to_owned(), users, id, at }
    }
}

fn holder(c: &mut Checks<'_>, one: &Rotation, place: &Place, realms: &[Realm], targets: &[Target]) -> Option<Holder> {
    match (&one.target, &one.roles, &one.approle) {
        (Some(target), Some(roles), None) => at_target(c, one, (target, roles), place, (realms, targets)),
        (None, None, Some(approle)) => {
            let (role, at) = (&approle.value, approle.referenced);
            known_realm(c, &role.realm, realms);
            let name = format!("{}/{}", role.mount.trim_matches('/'), role.role);
            if role.role.is_empty() || role.role.contains('/') || approle::check_role(&name).is_err() {
                c.wrong(at, "`approle` names the mount of an AppRole method, and one role of it");
            }
            if place.keeper != Keeper::Kv || place.user_field.is_some() {
                c.wrong(at, "a secret_id is stored in one field of a KV engine");
            }
            Some(Holder::new(Kind::VaultApprole, &role.realm.value, Users::Many(name), at))
        }
        _ => {
            c.wrong(one.name.referenced, "a rotation has a `target` and `roles`, or an `approle`");
            None
        }
    }
}

/// Users of a PostgreSQL, a MariaDB or a Redis.
fn at_target(
    c: &mut Checks<'_>,
    one: &Rotation,
    (target, roles): (&Spanned<String>, &Spanned<Vec<String>>),
    place: &Place,
    (realms, targets): (&[Realm], &[Target]),
) -> Option<Holder> {
    let found = targets.iter().find(|known| known.name == target.value);
    match found {
        None => {
            let message = format!("there is no target {}", said(&target.value));
            let known = targets.iter().map(|target| target.name.as_str());
            c.problems.push(Problem::new(target.referenced, message).nearest(&target.value, known));
        }
        Some(Target { system: System::Aws(aws), .. }) => {
            // What the inventory lists of the account and what it reads at the store must be one tenant's.
            if let Some(whose) = realms.iter().find(|realm| realm.rules.name == place.realm).map(|realm| &realm.tenant)
                && whose.as_ref().zip(aws.tenant.as_ref()).is_some_and(|(one, other)| one != other)
            {
                c.wrong(target.referenced, "the account is of another tenant than the realm of `store`");
            }
            return at_account(c, (target, aws), roles, place);
        }
        Some(known) if known.mode == Mode::Observe => c.warnings.push(format!(
            "rotation {}: target {} observes (`mode: enforce` there lets it be rotated)",
            one.name.value, known.name
        )),
        Some(_) => {}
    }
    if found.is_some_and(|known| matches!(known.system, System::Mariadb { .. })) {
        let users = mariadb::users(c, roles, place)?;
        // What an account is called has its host as well.
        let id = roles.value.join(",");
        return Some(Holder { id, ..Holder::new(Kind::MariadbUser, &target.value, users, roles.referenced) });
    }
    for role in &roles.value {
        if role.is_empty() || role.len() > 63 || role.contains([',', '\0']) || role.chars().any(char::is_control) {
            c.wrong(roles.referenced, "a role's name has 1 to 63 bytes, no comma and no control characters");
        }
    }
    let redis = found.is_some_and(|known| matches!(known.system, System::Redis { .. }));
    let kind = if redis { Kind::RedisUser } else { Kind::PostgresRole };
    if redis && (place.keeper != Keeper::Kv || place.user_field.is_some()) {
        c.wrong(roles.referenced, "a password of a Redis user is stored in one field of a KV engine");
    }
    let users = match roles.value.as_slice() {
        [user] if redis => Users::Many(user.clone()),
        _ if redis => {
            c.wrong(roles.referenced, "`users` is one: a Redis user has the old and the new password at once");
            return None;
        }
        [role] => Users::One(role.clone()),
        [_, _] if place.keeper == Keeper::StaticRole => {
            c.wrong(roles.referenced, "a static role is of one user");
            return None;
        }
        [a, b] => {
            if place.user_field.is_none() {
                let why = "two users take turns only where `store.user_field` says whose turn it is";
                c.wrong(roles.referenced, why);
            }
            Users::Two(a.clone(), b.clone())
        }
        _ => {
            c.wrong(roles.referenced, "`roles` are one user, or two that take turns");
            return None;
        }
    };
    Some(Holder::new(kind, &target.value, users, roles.referenced))
}

/// A user of an account of AWS.
fn at_account(
    c: &mut Checks<'_>,
    (target, aws): (&Spanned<String>, &Aws),
    users: &Spanned<Vec<String>>,
    place: &Place,
) -> Option<Holder> {
    let [user] = users.value.as_slice() else {
        c.wrong(users.referenced, "`users` is one: a user of IAM has the old and the new key at once");
        return None;
    };
    if !guard::names_user(&aws.users, user) || user.ends_with('/') {
        c.wrong(users.referenced, "the account's `users` do not name it: `<path><name>` without the first slash");
    }
    if place.user_field.is_none() || place.keeper.mints() {
        let why = "a key has two parts: `field` holds the secret, `user_field` the access key id";
        c.wrong(users.referenced, why);
    }
    Some(Holder::new(Kind::AwsUser, &target.value, Users::Keys(user.clone()), users.referenced))
}

pub(super) fn known_realm(c: &mut Checks<'_>, realm: &Spanned<String>, realms: &[Realm]) {
    if !realms.iter().any(|known| known.rules.name == realm.value) {
        let message = format!("there is no realm {}", said(&realm.value));
        let known = realms.iter().map(|realm| realm.rules.name.as_str());
        c.problems.push(Problem::new(realm.referenced, message).nearest(&realm.value, known));
    }
}

/// The account that keeps a secret, and whose it is.
fn known_account(c: &mut Checks<'_>, name: &Spanned<String>, targets: &[Target]) {
    let accounts = targets.iter().filter_map(|target| match &target.system {
        System::Aws(aws) => Some((target.name.as_str(), aws)),
        System::Postgres { .. } | System::Mariadb { .. } | System::Redis { .. } => None,
    });
    match accounts.clone().find(|(known, _)| *known == name.value) {
        Some((_, aws)) if aws.tenant.is_none() => {
            let message = format!("target {}: the topics are of several tenants", said(&name.value));
            c.problems.push(Problem::new(name.referenced, message).help("write `tenant: NAME` in its `aws`"));
        }
        Some(_) => {}
        None => {
            let message = format!("there is no target {} with `aws`", said(&name.value));
            let known = accounts.map(|(known, _)| known);
            c.problems.push(Problem::new(name.referenced, message).nearest(&name.value, known));
        }
    }
}

/// What is matched is one tenant's.
pub(super) fn whose(c: &mut Checks<'_>, realm: &Spanned<String>, realms: &[Realm]) {
    if realms.iter().any(|known| known.rules.name == realm.value && known.tenant.is_none()) {
        let message = format!("realm {}: the topics are of several tenants", said(&realm.value));
        c.problems.push(Problem::new(realm.referenced, message).help("write `tenant: NAME` in the realm"));
    }
}

/// What the inventory reads.
pub(super) fn inventories(c: &mut Checks<'_>, raw: &[Spanned<Watch>], realms: &[Realm]) -> Vec<Inventory> {
    let mut all = Vec::new();
    for Spanned { value: one, referenced: at, .. } in raw {
        known_realm(c, &one.realm, realms);
        whose(c, &one.realm, realms);
        let (paths, roles) = (&one.paths, &one.static_roles);
        let minted = !roles.value.is_empty();
        if minted != paths.value.is_empty() || paths.value.iter().any(|path| matches!(path.as_str(), "" | "/")) {
            let at = if paths.value.is_empty() { *at } else { paths.referenced };
            c.wrong(at, "`paths` are opt-in: name each, or a prefix that ends in `/`; or else name `static_roles`");
        }
        if roles.value.iter().any(|role| role.is_empty() || role.contains('/')) {
            c.wrong(roles.referenced, "`static_roles` are names: there is no list of all");
        }
        let usual = if minted { "database".to_owned() } else { kv() };
        let login = c.login(*at, one.token_file.as_ref(), one.approle.as_ref(), "`inventory`");
        let Some(login) = login else { continue };
        all.push(Inventory {
            realm: one.realm.value.clone(),
            login,
            mount: one.mount.clone().unwrap_or(usual),
            paths: paths.value.clone(),
            static_roles: roles.value.clone(),
            fields: one.fields.clone(),
            every_ms: one.every.value.0.max(1_000),
        });
    }
    all
}

/// How old a value is only the inventory knows.
pub(super) fn warn_of_unknown_ages(
    c: &mut Checks<'_>,
    recipes: &[Recipe],
    inventories: &[Inventory],
    targets: &[Target],
) {
    for recipe in recipes.iter().filter(|recipe| recipe.max_age_ms.is_some()) {
        let place = &recipe.place;
        let reads = |watch: &Inventory| {
            let paths = watch.paths.iter().any(|path| match path.strip_suffix('/') {
                Some(_) => place.path.starts_with(path.as_str()),
                None => place.path == *path,
            });
            let roles = watch.static_roles.iter().any(|role| place.path.strip_prefix(static_role::CREDS) == Some(role));
            let known = match place.keeper {
                Keeper::Kv => paths && watch.fields.as_ref().is_none_or(|fields| fields.contains(&place.field)),
                Keeper::StaticRole => roles,
                Keeper::AwsSecret | Keeper::AwsRotated => false,
            };
            known && (&watch.realm, &watch.mount) == (&place.realm, &place.mount)
        };
        let lists = |target: &Target| match &target.system {
            System::Aws(aws) if target.name == place.realm && place.mount == SECRETS_MANAGER => {
                let secrets = aws.inventory.iter().flat_map(|list| &list.secrets);
                secrets
                    .clone()
                    .any(|name| if name.ends_with('/') { place.path.starts_with(name) } else { place.path == *name })
            }
            _ => false,
        };
        if !inventories.iter().any(reads) && !targets.iter().any(lists) {
            c.warnings.push(format!(
                "rotation {}: nobody reads how old its value is, so `max_age` does nothing (add its store to `inventory`)",
                recipe.name
            ));
        }
    }
}
