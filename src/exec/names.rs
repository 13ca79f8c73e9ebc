//! What the task's variables are called. PURE.

use std::collections::BTreeSet;
use std::str::FromStr;

/// `[NAME=]PATH`: a path of Vault that gives a credential, and what the task calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// What its variables begin with; without it, the path in capitals.
    pub name: Option<String>,
    /// Such as `database/creds/ro`.
    pub path: String,
}

impl Role {
    /// What its variables begin with.
    pub fn prefix(&self) -> String {
        self.name.clone().unwrap_or_else(|| variable_of(&self.path))
    }

    /// Whether `text` names this role.
    fn is_called(&self, text: &str) -> bool {
        self.name.as_deref() == Some(text) || self.path == text
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').map_or((None, text), |(name, path)| (Some(name), path));
        if name.is_some_and(|name| !is_variable(name)) {
            return Err("a role's name is letters, digits and `_`, as in DB=database/creds/ro".to_owned());
        }
        let path = path.trim_matches('/');
        let plain = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_graphic());
        if !path.contains('/') || !path.split('/').all(plain) || path.contains(['?', '#', '%', '\\', '*']) {
            return Err("a role is a path of Vault that gives a credential, such as database/creds/ro".to_owned());
        }
        Ok(Self { name: name.map(str::to_owned), path: path.to_owned() })
    }
}

/// `VARIABLE=ROLE.FIELD`: a variable of another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The variable.
    pub variable: String,
    /// The role's name or path.
    pub role: String,
    /// Which of its fields.
    pub field: String,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANTED: &str = "a variable is given as VARIABLE=ROLE.FIELD, such as PGPASSWORD=DB.password";
        let (variable, from) = text.split_once('=').ok_or(WANTED)?;
        let (role, field) = from.rsplit_once('.').ok_or(WANTED)?;
        if !is_variable(variable) || role.is_empty() || field.is_empty() {
            return Err(WANTED.to_owned());
        }
        Ok(Self { variable: variable.to_owned(), role: role.to_owned(), field: field.to_owned() })
    }
}

/// One variable: which field of which role it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub variable: String,
    /// The index of the role.
    pub role: usize,
    /// The field.
    pub field: String,
}

/// Checks what can be known before anything is minted.
///
/// # Errors
/// What to change.
pub fn check(roles: &[Role], mappings: &[Mapping]) -> Result<(), String> {
    let mut prefixes = BTreeSet::new();
    for role in roles {
        if !prefixes.insert(role.prefix()) {
            let prefix = role.prefix();
            return Err(format!(
                "two roles are called {prefix}: name them apart, as in A={} B={}",
                role.path, role.path
            ));
        }
    }
    let mut variables = BTreeSet::new();
    for mapping in mappings {
        if !roles.iter().any(|role| role.is_called(&mapping.role)) {
            return Err(format!("--env {}: there is no --role {}", mapping.variable, mapping.role));
        }
        if !variables.insert(&mapping.variable) {
            return Err(format!("--env {} is given twice", mapping.variable));
        }
    }
    Ok(())
}

/// The variables of all roles, whose `fields` are as Vault gave them. A role that a mapping names has only the mapped
/// ones. `suffix` ends the names that are made here.
///
/// # Errors
/// What to change.
pub fn places(
    roles: &[Role],
    mappings: &[Mapping],
    fields: &[Vec<String>],
    suffix: &str,
) -> Result<Vec<Place>, String> {
    let mut places: Vec<Place> = Vec::new();
    for (index, (role, fields)) in roles.iter().zip(fields).enumerate() {
        let own: Vec<&Mapping> = mappings.iter().filter(|mapping| role.is_called(&mapping.role)).collect();
        if let Some(mapping) = own.iter().find(|mapping| !fields.contains(&mapping.field)) {
            let known = fields.join(", ");
            return Err(format!(
                "--env {}: {} has no field {}; it has {known}",
                mapping.variable, role.path, mapping.field
            ));
        }
        if own.is_empty() {
            let named = |field: &String| Place {
                variable: format!("{}_{}{suffix}", role.prefix(), variable_of(field)),
                role: index,
                field: field.clone(),
            };
            places.extend(fields.iter().map(named));
        } else {
            let mapped = |mapping: &&Mapping| Place {
                variable: mapping.variable.clone(),
                role: index,
                field: mapping.field.clone(),
            };
            places.extend(own.iter().map(mapped));
        }
    }
    let mut seen = BTreeSet::new();
    match places.iter().find(|place| !seen.insert(&place.variable)) {
        None => Ok(places),
        Some(twice) => Err(format!("two fields would be called {}: name the roles apart", twice.variable)),
    }
}

/// Whether every shell and program takes it as a variable's name.
fn is_variable(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// In capitals, with `_` for what no variable can have.
fn variable_of(text: &str) -> String {
    let made: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    if made.starts_with(|c: char| c.is_ascii_digit()) { format!("_{made}") } else { made }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn role(text: &str) -> Role {
        text.parse().unwrap()
    }

    fn made(roles: &[&str], mappings: &[&str], fields: &[&str], suffix: &str) -> Result<Vec<String>, String> {
        let roles: Vec<Role> = roles.iter().map(|text| role(text)).collect();
        let mappings: Vec<Mapping> = mappings.iter().map(|text| text.parse().unwrap()).collect();
        check(&roles, &mappings)?;
        let fields: Vec<Vec<String>> = roles.iter().map(|_| fields.iter().map(ToString::to_string).collect()).collect();
        Ok(places(&roles, &mappings, &fields, suffix)?.into_iter().map(|place| place.variable).collect())
    }

    #[test]
    fn variables_are_called_by_role_and_field() {
        let both = &["username", "password"];
        assert_eq!(made(&["DB=database/creds/ro"], &[], both, "").unwrap(), ["DB_USERNAME", "DB_PASSWORD"]);
        let by_path = made(&["database/creds/ro-1"], &[], both, "_FILE").unwrap();
        assert_eq!(by_path, ["DATABASE_CREDS_RO_1_USERNAME_FILE", "DATABASE_CREDS_RO_1_PASSWORD_FILE"]);
        let mapped = made(&["DB=a/b", "c/d"], &["PGUSER=DB.username", "X=c/d.password"], both, "").unwrap();
        assert_eq!(mapped, ["PGUSER", "X"]);
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        for (roles, mappings, why) in [
            (&["a/b", "a/b"][..], &[][..], "two roles are called A_B"),
            (&["DB=a/b", "DB=c/d"], &[], "two roles are called DB"),
            (&["DB=a/b"], &["X=DC.username"], "there is no --role DC"),
            (&["DB=a/b"], &["X=DB.username", "X=DB.password"], "given twice"),
            (&["DB=a/b"], &["X=DB.passwort"], "it has username, password"),
            (&["A=a/b", "B=a/c"], &["A_USERNAME=B.username"], "would be called A_USERNAME"),
        ] {
            let error = made(roles, mappings, &["username", "password"], "").unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for text in ["", "x", "DB=", "1=a/b", "a b=c/d", "a//b", "../sys/seal", "a/..", "a/b?x=1", "a/%2e%2e"] {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
        for text in ["", "X", "X=DB", "X=.f", "X=DB.", "=DB.f", "1=DB.f"] {
            assert!(text.parse::<Mapping>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_and_no_two_are_the_same(
            paths in proptest::collection::vec("[a-zA-Z0-9-]{1,6}/[ -~]{1,8}", 1..4),
            fields in proptest::collection::vec("\\PC{1,8}", 1..4),
        ) {
            let roles: Vec<Role> = paths.iter().filter_map(|path| path.parse().ok()).collect();
            let all: Vec<Vec<String>> = roles.iter().map(|_| fields.clone()).collect();
            if let Ok(places) = places(&roles, &[], &all, "") {
                prop_assert_eq!(places.len(), roles.len() * fields.len());
                let names: BTreeSet<&String> = places.iter().map(|place| &place.variable).collect();
                prop_assert_eq!(names.len(), places.len());
                prop_assert!(places.iter().all(|place| is_variable(&place.variable)));
            }
        }
    }
}
