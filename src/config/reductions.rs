//! Whose permissions may be taken, and by which login: shapes, and what must hold between the parts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_saphyr::Spanned;

use super::check::Checks;
use super::file::AppRole;
use super::problem::{Problem, said};
use super::{Login, Realm, System, Target};

/// One of `reductions`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// A realm or a target.
    pub system: Spanned<String>,
    /// Whose: issuer ids, whole or ending in `*`.
    pub identities: Spanned<Vec<String>>,
    /// Of a realm: holds the token of a login of its own.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The AppRole of its own login.
    #[serde(default)]
    pub approle: Option<AppRole>,
    /// Of a PostgreSQL: holds the URL of a login of its own.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// Of an account of AWS: the file of a login of its own, as AWS's tools write it.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
}

/// By which login.
#[derive(Debug, Clone)]
pub enum By {
    /// A Vault.
    Vault(Login),
    /// A PostgreSQL: the file with the URL.
    Postgres(PathBuf),
    /// An account of AWS: the file of the login.
    Aws(PathBuf),
}

/// Whose permissions may be taken at one system.
#[derive(Debug, Clone)]
pub struct Reduction {
    /// The realm or target.
    pub system: String,
    /// Issuer ids, whole or ending in `*`.
    pub identities: Vec<String>,
    /// By which login.
    pub by: By,
}

pub(super) fn reductions(
    c: &mut Checks<'_>,
    raw: &[Spanned<Raw>],
    realms: &[Realm],
    targets: &[Target],
) -> Vec<Reduction> {
    let mut systems = BTreeSet::new();
    let mut all = Vec::new();
    for Spanned { value: one, referenced: at, .. } in raw {
        let name = &one.system.value;
        if !systems.insert(name) {
            c.wrong(one.system.referenced, format!("`reductions` names {} twice", said(name)));
        }
        let is_wide = |id: &String| id.trim_matches('*').is_empty();
        if one.identities.value.is_empty() || one.identities.value.iter().any(is_wide) {
            let help = "write whose permissions may be taken: names, whole or ending in `*`, such as `agent-*`";
            let message = "`identities` names those whose permissions may be taken, and not everybody";
            c.problems.push(Problem::new(one.identities.referenced, message).help(help));
        }
        let target = targets.iter().find(|target| target.name == *name);
        let is_account = target.is_some_and(|target| matches!(target.system, System::Aws(_)));
        if is_account && one.identities.value.iter().any(|id| id.starts_with('/')) {
            let message = "a user of IAM is named `<path><name>` without the first slash, such as `ci/etl` or `ci/*`";
            c.wrong(one.identities.referenced, message);
        }
        let by = if realms.iter().any(|realm| realm.rules.name == *name) {
            c.login(*at, one.token_file.as_ref(), one.approle.as_ref(), "`reductions`").map(By::Vault)
        } else {
            match target.map(|target| &target.system) {
                Some(System::Postgres { .. }) => one.url_file.as_ref().map(|path| By::Postgres(c.path(path))),
                Some(System::Aws(_)) => one.credentials_file.as_ref().map(|path| By::Aws(c.path(path))),
                Some(System::Mariadb { .. } | System::Redis { .. }) => {
                    let message = "permissions are taken at a Vault, a PostgreSQL or an account of AWS";
                    c.wrong(one.system.referenced, message);
                    continue;
                }
                None => {
                    let known = realms.iter().map(|realm| realm.rules.name.as_str());
                    let known = known.chain(targets.iter().map(|target| target.name.as_str()));
                    let message = format!("there is no realm or target {}", said(name));
                    c.problems.push(Problem::new(one.system.referenced, message).nearest(name, known));
                    continue;
                }
            }
        };
        match by {
            Some(by) => all.push(Reduction { system: name.clone(), identities: one.identities.value.clone(), by }),
            None if target.is_some() => {
                let message = format!("reductions at {} have a login of their own", said(name));
                let help = if is_account {
                    "write its `credentials_file`: see deploy/aws/reduce.json"
                } else {
                    "write its `url_file`: see deploy/postgres/reduce.sql"
                };
                c.problems.push(Problem::new(*at, message).help(help));
            }
            None => {}
        }
    }
    all
}
