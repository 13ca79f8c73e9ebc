//! Which runs credentials are bound to by their metadata: shapes, and what must hold between the parts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_saphyr::{Location, Spanned};

use super::check::Checks;
use super::file::{AppRole, Millis, unplaced};
use super::problem::{Problem, said};
use super::ways::patterns;
use super::{Binding, Realm, rotations};
use crate::bind::rule::{CREATION, FREE, Origin, Rule, RunTemplate, Template};
use crate::case::Action;
use crate::connector::recipe::Recipe;

/// One of `bindings`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// The realm.
    pub realm: Spanned<String>,
    /// Holds the token of its own login, which can only list and look.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The AppRole of its own login.
    #[serde(default)]
    pub approle: Option<AppRole>,
    /// How often it is looked.
    #[serde(default = "often")]
    pub every: Spanned<Millis>,
    /// Look-ups per second.
    #[serde(default = "per_second")]
    pub per_second: std::num::NonZeroU32,
    /// The strongest action that may rest on the word of these rules: less than `revoke`, and what is bound is only told.
    #[serde(default = "track")]
    pub strongest: Action,
    /// What is taken for what: the first that fits.
    pub rules: Spanned<Vec<Taken>>,
}

fn track() -> Action {
    Action::Track
}

fn often() -> Spanned<Millis> {
    unplaced(Millis(10_000))
}

fn per_second() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(50).unwrap_or(std::num::NonZeroU32::MIN)
}

/// One of `rules`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// Of tokens that were made at this path, such as `auth/jwt-k8s/login`.
    #[serde(default)]
    pub tokens_of: Option<Spanned<String>>,
    /// Of secret_ids of this AppRole: `<mount>/<role>`.
    #[serde(default)]
    pub secret_ids_of: Option<Spanned<String>>,
    /// The custom metadata of the alias behind a token, and not its own metadata.
    #[serde(default)]
    pub alias: bool,
    /// Whoever may create tokens is believed.
    #[serde(default)]
    pub trust_creators: bool,
    /// Only where these fields of the metadata have these values.
    #[serde(default)]
    pub when: BTreeMap<String, String>,
    /// The run, with fields of the metadata in it: `/openlineage/prod:{run_id}`.
    pub run: Spanned<String>,
    /// Where one field holds the whole key: of whose runs it may be, whole or ending in `*`.
    #[serde(default)]
    pub sources: Vec<Spanned<String>>,
    /// Who runs it, with fields in it.
    #[serde(default)]
    pub identity: Option<Spanned<String>>,
}

/// What is bound, and how.
pub(super) fn bindings(
    c: &mut Checks<'_>,
    raw: &[Spanned<Bind>],
    realms: &[Realm],
    recipes: &[Recipe],
) -> Vec<Binding> {
    let mut all: Vec<Binding> = Vec::new();
    for Spanned { value: one, referenced: at, .. } in raw {
        rotations::known_realm(c, &one.realm, realms);
        rotations::whose(c, &one.realm, realms);
        if all.iter().any(|known| known.realm == one.realm.value) {
            c.wrong(one.realm.referenced, format!("{} has two `bindings`: write one", said(&one.realm.value)));
        }
        if one.rules.value.is_empty() {
            c.wrong(one.rules.referenced, "`rules` say which metadata names which run: there is none");
        }
        if one.every.value.0 < 1_000 {
            c.wrong(one.every.referenced, "`every` is at least 1s");
        }
        let realm = realms.iter().find(|known| known.rules.name == one.realm.value);
        let rules = one.rules.value.iter().filter_map(|rule| taken(c, *at, rule, realm, recipes)).collect();
        if one.strongest < Action::Revoke {
            c.warnings.push(format!(
                "bindings of realm {}: what is bound is only told, and ends with no run (`strongest: revoke`)",
                said(&one.realm.value)
            ));
        }
        let login = c.login(*at, one.token_file.as_ref(), one.approle.as_ref(), "`bindings`");
        let (Some(login), Some(tenant)) = (login, realm.and_then(|realm| realm.tenant.clone())) else { continue };
        all.push(Binding {
            realm: one.realm.value.clone(),
            tenant,
            login,
            every_ms: one.every.value.0,
            per_second: one.per_second.into(),
            strongest: one.strongest,
            rules,
        });
    }
    all
}

fn taken(c: &mut Checks<'_>, at: Location, raw: &Taken, realm: Option<&Realm>, recipes: &[Recipe]) -> Option<Rule> {
    let origin = match (&raw.tokens_of, &raw.secret_ids_of) {
        (Some(path), None) => tokens(c, path, raw.trust_creators, realm),
        (None, Some(role)) => secret_ids(c, role, raw.alias, realm, recipes),
        _ => {
            c.wrong(at, "a rule is of `tokens_of` a path, or of `secret_ids_of` an AppRole");
            return None;
        }
    };
    if raw.trust_creators && !matches!(&origin, Origin::Token(path) if FREE.contains(&path.as_str())) {
        c.wrong(at, "`trust_creators` is about `auth/token/create` and `auth/token/create-orphan`: leave it out here");
    }
    let sources = patterns(c, raw.sources.clone());
    let run = RunTemplate::parse(&raw.run.value, &sources)
        .map_err(|bad| c.wrong(raw.run.referenced, format!("`run`: {bad}")));
    let identity = raw.identity.as_ref().map(|identity| {
        Template::parse(&identity.value).map_err(|bad| c.wrong(identity.referenced, format!("`identity`: {bad}")))
    });
    let (Ok(run), Ok(identity)) = (run, identity.transpose()) else { return None };
    Some(Rule { origin, alias: raw.alias, when: raw.when.clone(), run, identity })
}

/// The path at which tokens are made. It is told whole: whoever may write the metadata of others' tokens decides when they
/// die.
fn tokens(c: &mut Checks<'_>, path: &Spanned<String>, trusted: bool, realm: Option<&Realm>) -> Origin {
    let (text, at) = (path.value.trim_end_matches('/'), path.referenced);
    let below = text.strip_prefix("auth/").is_some_and(|rest| rest.contains('/'));
    if !below || text.split('/').any(|part| part.is_empty() || part.contains(['*', '+'])) {
        c.wrong(at, "`tokens_of` is the whole path of a login, such as \"auth/jwt-k8s/login\": no wildcards");
    }
    if FREE.contains(&text) && !trusted {
        let problem = Problem::new(at, format!("whoever may use `{text}` writes any metadata into anybody's token"));
        c.problems.push(problem.help(
            "name a login, or a token role (\"auth/token/create/ROLE\"); or say `trust_creators: true` where all who \
             may create tokens are to be believed",
        ));
    }
    if text == CREATION.trim_end_matches('/') {
        c.wrong(at, "`auth/token` makes tokens at `auth/token/create/ROLE`: name the role");
    }
    if realm.is_some_and(|realm| !realm.tokens) {
        unreached(c, realm, "tokens are bound", "`token:` in `allowed_prefixes`");
    }
    Origin::Token(text.to_owned())
}

fn secret_ids(
    c: &mut Checks<'_>,
    role: &Spanned<String>,
    alias: bool,
    realm: Option<&Realm>,
    recipes: &[Recipe],
) -> Origin {
    let (text, at) = (role.value.trim_matches('/'), role.referenced);
    if text.split('/').count() < 2 || text.split('/').any(|part| part.is_empty() || part.contains(['*', '+'])) {
        c.wrong(at, "`secret_ids_of` is an AppRole: <mount>/<role>");
    }
    if alias {
        c.wrong(at, "a secret_id has no alias: its own metadata is taken");
    }
    let of_recipe = |recipe: &&Recipe| {
        realm.is_some_and(|realm| recipe.credential.instance() == realm.rules.name) && recipe.credential.id() == text
    };
    if let Some(recipe) = recipes.iter().find(of_recipe) {
        let name = said(&recipe.name);
        c.wrong(at, format!("rotation {name} keeps a secret_id of this AppRole alive: it is of no run"));
    }
    if realm.is_some_and(|realm| !realm.secret_id_roles.iter().any(|known| known == text)) {
        unreached(c, realm, "secret_ids are bound", "its AppRole in `secret_id_roles`");
    }
    Origin::SecretId(text.to_owned())
}

/// Said once.
fn unreached(c: &mut Checks<'_>, realm: Option<&Realm>, what: &str, needs: &str) {
    let name = realm.map_or("?", |realm| realm.rules.name.as_str());
    let warning = format!("realm {}: {what} to runs, but it may not end them ({needs})", said(name));
    if !c.warnings.contains(&warning) {
        c.warnings.push(warning);
    }
}
