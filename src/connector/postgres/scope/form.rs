//! What a permission of PostgreSQL is, and which statements take it and give it again. PURE.

use serde::{Deserialize, Serialize};

use super::super::quoted;
use crate::scope::Permission;

/// Privileges on relations, and which of them may be of single columns.
const ON_RELATION: [&str; 8] = ["SELECT", "INSERT", "UPDATE", "REFERENCES", "DELETE", "TRUNCATE", "TRIGGER", "USAGE"];
const ON_COLUMNS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "REFERENCES"];

/// A permission, by its sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// `member:<role>`
    Member(&'a str),
    /// `relation:<schema>.<name>:<privilege>`, the name as PostgreSQL writes it: quoted where it must be.
    Relation(&'a str, &'a str),
    /// `schema:<name>:<privilege>`
    Schema(&'a str, &'a str),
}

impl<'a> Named<'a> {
    /// Reads it. `None`: no permission of PostgreSQL.
    pub fn of(permission: &'a Permission) -> Option<Self> {
        let (sort, what) = permission.parts();
        match sort {
            "member" => Some(Self::Member(what)),
            "relation" => {
                let (name, privilege) = what.rsplit_once(':')?;
                (name.contains('.') && ON_RELATION.contains(&privilege)).then_some(Self::Relation(name, privilege))
            }
            "schema" => {
                let (name, privilege) = what.rsplit_once(':')?;
                matches!(privilege, "USAGE" | "CREATE").then_some(Self::Schema(name, privilege))
            }
            _ => None,
        }
    }

    /// Whether it may be of single columns.
    pub fn has_columns(self) -> bool {
        matches!(self, Self::Relation(_, privilege) if ON_COLUMNS.contains(&privilege))
    }
}

/// How a role was given a permission: enough to give it again exactly. Names are for the statements, ids tell whether they
/// still mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// The role's OID and name.
    pub role: (i64, String),
    /// On what: its OID, and its quoted name with what stands before it.
    pub on: (i64, String),
    /// On all of it; whether it may be passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<bool>,
    /// On single columns; the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<(String, bool)>,
}

/// The statement that takes it. On a relation it takes that of single columns as well.
pub fn revoke(named: Named<'_>, form: &Form) -> String {
    let (role, on) = (quoted(&form.role.1), &form.on.1);
    match named {
        Named::Member(_) => format!("REVOKE {on} FROM {role}"),
        Named::Relation(_, privilege) | Named::Schema(_, privilege) => {
            format!("REVOKE {privilege} ON {on} FROM {role}")
        }
    }
}

/// The statements that give it again.
pub fn grants(named: Named<'_>, form: &Form) -> Vec<String> {
    let (role, on) = (quoted(&form.role.1), &form.on.1);
    let further = |may: bool, with: &str| if may { format!(" WITH {with} OPTION") } else { String::new() };
    match named {
        Named::Member(_) => {
            form.whole.map(|admin| format!("GRANT {on} TO {role}{}", further(admin, "ADMIN"))).into_iter().collect()
        }
        Named::Relation(_, privilege) | Named::Schema(_, privilege) => {
            let whole = form.whole.map(|may| format!("GRANT {privilege} ON {on} TO {role}{}", further(may, "GRANT")));
            let columns = form.columns.iter().map(|(column, may)| {
                format!("GRANT {privilege} ({}) ON {on} TO {role}{}", quoted(column), further(*may, "GRANT"))
            });
            whole.into_iter().chain(columns).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_again_in_its_form() {
        let permission = Permission::parse("relation:public.\"or:ders\":SELECT").unwrap();
        let named = Named::of(&permission).unwrap();
        assert_eq!(named, Named::Relation("public.\"or:ders\"", "SELECT"));
        let form = Form {
            role: (20_001, "et\"l".to_owned()),
            on: (30_001, "TABLE \"public\".\"or:ders\"".to_owned()),
            whole: Some(true),
            columns: vec![("id".to_owned(), false)],
        };
        assert_eq!(revoke(named, &form), r#"REVOKE SELECT ON TABLE "public"."or:ders" FROM "et""l""#);
        assert_eq!(
            grants(named, &form),
            [
                r#"GRANT SELECT ON TABLE "public"."or:ders" TO "et""l" WITH GRANT OPTION"#,
                r#"GRANT SELECT ("id") ON TABLE "public"."or:ders" TO "et""l""#,
            ]
        );
        let member = Permission::parse("member:readers").unwrap();
        let form = Form { on: (1, "\"readers\"".to_owned()), whole: Some(false), columns: Vec::new(), ..form };
        assert_eq!(grants(Named::of(&member).unwrap(), &form), [r#"GRANT "readers" TO "et""l""#]);
    }

    #[test]
    fn what_is_no_permission_of_postgresql_is_none() {
        for text in
            ["policy:x", "relation:orders:SELECT", "relation:public.orders:DROP", "schema:public", "schema:a:ALL"]
        {
            assert_eq!(Named::of(&Permission::parse(text).unwrap()), None, "{text}");
        }
    }
}
