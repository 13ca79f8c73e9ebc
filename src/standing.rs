//! Standing credentials: who is known to use each, and what would do the same for the time of a task only. PURE.
//!
//! What is known: the runs that were said to hold one (grants), and the consumers that read it beside them (a recipe names
//! them, or they answered a rotation). Nobody watches a value being used otherwise: that no more is known is no proof.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::connector::Realm;
use crate::connector::recipe::Recipe;
use crate::credential::{CredentialId, Kind};
use crate::journal::Standing;

/// By whom it is used, as far as anybody said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Used {
    /// By tasks, and nobody else is known.
    Tasks,
    /// By tasks, and by consumers beside them.
    Both,
    /// By consumers that are no tasks.
    Consumers,
    /// Nobody said.
    Unknown,
}

impl Used {
    /// The name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Both => "both",
            Self::Consumers => "consumers",
            Self::Unknown => "unknown",
        }
    }
}

/// One standing credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which.
    pub credential: CredentialId,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Where it is used, such as `prod`.
    pub environment: Option<String>,
    /// How old its value is, since then.
    pub issued_ms: Option<i64>,
    /// By whom it is used.
    pub used: Used,
    /// Runs that held it.
    pub runs: i64,
    /// Of these, the ones that go on.
    pub live: i64,
    /// When the last of them was said to hold it.
    pub last_ms: Option<i64>,
    /// Who reads it beside them.
    pub consumers: BTreeSet<String>,
    /// What gives a task the same for its time.
    pub command: Option<String>,
    /// What that needs first.
    pub needs: Option<String>,
}

/// All of them: first those that tasks alone are known to use.
pub fn report(
    standing: Vec<Standing>,
    recipes: &[Recipe],
    realms: &[Realm],
    answered: impl Fn(&CredentialId) -> BTreeSet<String>,
) -> Vec<Line> {
    let mut lines: Vec<Line> = standing
        .into_iter()
        .map(|one| {
            let recipe = recipes.iter().find(|recipe| recipe.credential == one.credential.id);
            let named = recipe.into_iter().flat_map(|recipe| recipe.adoption.consumers.iter().cloned());
            let consumers: BTreeSet<String> = named.chain(answered(&one.credential.id)).collect();
            line(one, recipe, realms, consumers)
        })
        .collect();
    lines.sort_by(|a, b| {
        a.used.cmp(&b.used).then(b.runs.cmp(&a.runs)).then_with(|| a.credential.as_str().cmp(b.credential.as_str()))
    });
    lines
}

fn line(one: Standing, recipe: Option<&Recipe>, realms: &[Realm], consumers: BTreeSet<String>) -> Line {
    let Standing { credential, runs, live, last_ms } = one;
    let used = match (runs > 0, consumers.is_empty()) {
        (true, true) => Used::Tasks,
        (true, false) => Used::Both,
        (false, false) => Used::Consumers,
        (false, true) => Used::Unknown,
    };
    let (command, needs) = instead(&credential.id, recipe, realms);
    Line {
        used,
        runs,
        live,
        last_ms,
        consumers,
        command,
        needs,
        owner: credential.owner,
        environment: credential.environment,
        issued_ms: credential.issued_ms,
        credential: credential.id,
    }
}

/// What gives a task the same for its time, and what that needs first.
fn instead(id: &CredentialId, recipe: Option<&Recipe>, realms: &[Realm]) -> (Option<String>, Option<String>) {
    let own = id.id();
    match id.kind() {
        Kind::PostgresRole => {
            let name = variable(recipe.map_or_else(|| own.split(',').next().unwrap_or(&own), |recipe| &recipe.name));
            let roles = opening(id.instance(), realms);
            let users = own.replace(',', " or ");
            match roles.as_slice() {
                [] => {
                    let needs = format!(
                        "a database engine at a Vault for {} (`targets` of its realm), with a role that may what {users} may",
                        id.instance()
                    );
                    (None, Some(needs))
                }
                [role] if !role.ends_with('/') => {
                    (Some(exec(&name, role)), Some(format!("that {role} may what {users} may")))
                }
                [engine] => {
                    let needs = format!("a role of {engine} that may what {users} may");
                    (Some(exec(&name, &format!("{engine}ROLE"))), Some(needs))
                }
                several => {
                    let needs = format!("one of {} that may what {users} may", several.join(", "));
                    (Some(exec(&name, "PATH")), Some(needs))
                }
            }
        }
        Kind::MariadbUser | Kind::RedisUser => {
            let plugin = if id.kind() == Kind::RedisUser { "Redis" } else { "MySQL" };
            let needs = format!(
                "a database engine at a Vault for {} ({plugin} plugin), whose users live as long as the task",
                id.instance()
            );
            (None, Some(needs))
        }
        Kind::AwsAccessKey | Kind::AwsUser => {
            let needs = "a role that whoever runs the task may assume for its time: what it runs on has one, or a web \
                         identity of its platform";
            (None, Some(needs.to_owned()))
        }
        Kind::VaultLease => {
            let role = own.rsplit_once('/').map_or(own.as_str(), |(role, _)| role);
            (Some(exec(&variable(role.rsplit('/').next().unwrap_or(role)), role)), None)
        }
        Kind::VaultToken => {
            let needs = "that whoever starts the task may create a child token with its policies";
            (Some("curfew exec --policy POLICY -- COMMAND".to_owned()), Some(needs.to_owned()))
        }
        Kind::VaultApprole | Kind::VaultSecretId => {
            let needs = "a login by what the platform signs (JWT, Kubernetes), bound to its run (`bindings`): it keeps no \
                         secret_id";
            (None, Some(needs.to_owned()))
        }
        Kind::VaultKv | Kind::AwsSecret => {
            let needs =
                "to be known for what it opens: name it in a rotation; else an engine of that system, and a role";
            (None, Some(needs.to_owned()))
        }
        Kind::Unserved => (None, None),
    }
}

/// The paths whose leases open `target`, as far as the configuration tells: of a role, or of all of an engine's (with a
/// slash at the end).
fn opening(target: &str, realms: &[Realm]) -> Vec<String> {
    let all = realms.iter().flat_map(|realm| &realm.targets).filter(|(_, opens)| opens == target);
    let paths = all.map(|(prefix, _)| {
        let of_engine = prefix.trim_end_matches('/').ends_with("/creds");
        let plain = prefix.trim_end_matches('/');
        if of_engine { format!("{plain}/") } else { plain.to_owned() }
    });
    paths.collect::<BTreeSet<_>>().into_iter().collect()
}

fn exec(name: &str, path: &str) -> String {
    format!("curfew exec --role {name}={path} -- COMMAND")
}

/// A name for environment variables.
fn variable(text: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = text.chars().take(32).map(upper).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("DB_{name}") }
}

#[cfg(test)]
mod tests;
