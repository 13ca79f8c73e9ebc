//! What a permission of PostgreSQL is, and which statements take it and give it again. PURE.

use serde::{Deserialize, Serialize};

use super::super::quoted;
use crate::scope::Permission;

/// Privileges on relations (the last one from PostgreSQL 17 on), and which of them may be of single columns.
const ON_RELATION: [&str; 9] =
    ["SELECT", "INSERT", "UPDATE", "REFERENCES", "DELETE", "TRUNCATE", "TRIGGER", "USAGE", "MAINTAIN"];
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

/// What a membership lets do, from PostgreSQL 16 on: each option for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Pass the group on.
    pub admin: bool,
    /// Have what the group has.
    pub inherit: bool,
    /// Become the group, by SET ROLE.
    pub set: bool,
}

impl Options {
    /// What either lets do.
    pub fn or(self, other: Self) -> Self {
        Self { admin: self.admin || other.admin, inherit: self.inherit || other.inherit, set: self.set || other.set }
    }

    /// Whether all that `other` lets do is in it.
    pub fn covers(self, other: Self) -> bool {
        self.or(other) == self
    }

    fn words(self) -> String {
        let word = |is: bool| if is { "TRUE" } else { "FALSE" };
        format!("WITH ADMIN {}, INHERIT {}, SET {}", word(self.admin), word(self.inherit), word(self.set))
    }
}

/// One of several grants of a membership, from PostgreSQL 16 on: each grantor has one of his own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    /// The grantor's OID and name.
    pub by: (i64, String),
    /// What it lets do.
    pub with: Options,
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
    /// Of a membership from PostgreSQL 16 on: its grants, in an order in which they can be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Granted>,
}

impl Form {
    /// Given in no way yet.
    pub fn blank(role: (i64, String), on: (i64, String)) -> Self {
        Self { role, on, whole: None, columns: Vec::new(), grants: Vec::new() }
    }
}

/// The statements that take it. On a relation that of single columns goes with it; of a membership each grantor's goes by itself.
pub fn revokes(named: Named<'_>, form: &Form) -> Vec<String> {
    let (role, on) = (quoted(&form.role.1), &form.on.1);
    match named {
        Named::Member(_) if form.grants.is_empty() => vec![format!("REVOKE {on} FROM {role}")],
        Named::Member(_) => {
            let each = form.grants.iter().rev();
            each.map(|one| format!("REVOKE {on} FROM {role} GRANTED BY {}", quoted(&one.by.1))).collect()
        }
        Named::Relation(_, privilege) | Named::Schema(_, privilege) => {
            vec![format!("REVOKE {privilege} ON {on} FROM {role}")]
        }
    }
}

/// The statements that give it again.
pub fn grants(named: Named<'_>, form: &Form) -> Vec<String> {
    let (role, on) = (quoted(&form.role.1), &form.on.1);
    let further = |may: bool, with: &str| if may { format!(" WITH {with} OPTION") } else { String::new() };
    match named {
        Named::Member(_) => {
            let whole = form.whole.map(|admin| format!("GRANT {on} TO {role}{}", further(admin, "ADMIN")));
            let each = form.grants.iter();
            let each = each.map(|one| format!("{} GRANTED BY {}", join(on, &form.role.1, one.with), quoted(&one.by.1)));
            whole.into_iter().chain(each).collect()
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

/// The statement that makes a role a member of a group (its quoted name), from PostgreSQL 16 on. All three options are said:
/// what is left out is as the member is.
pub fn join(group: &str, role: &str, with: Options) -> String {
    format!("GRANT {group} TO {} {}", quoted(role), with.words())
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
            grants: Vec::new(),
        };
        assert_eq!(revokes(named, &form), [r#"REVOKE SELECT ON TABLE "public"."or:ders" FROM "et""l""#]);
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
        assert_eq!(revokes(Named::of(&member).unwrap(), &form), [r#"REVOKE "readers" FROM "et""l""#]);
    }

    #[test]
    fn each_grantor_s_grant_of_a_membership_goes_and_comes_by_itself() {
        let member = Permission::parse("member:readers").unwrap();
        let named = Named::of(&member).unwrap();
        let one = |oid, name: &str, with| Granted { by: (oid, name.to_owned()), with };
        let admin = Options { admin: true, ..Options::default() };
        let both = Options { inherit: true, set: true, ..Options::default() };
        let form = Form {
            role: (20_001, "etl".to_owned()),
            on: (1, "\"readers\"".to_owned()),
            whole: None,
            columns: Vec::new(),
            grants: vec![one(2, "ac\"cess", admin), one(20_001, "etl", both)],
        };
        assert_eq!(
            grants(named, &form),
            [
                r#"GRANT "readers" TO "etl" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE GRANTED BY "ac""cess""#,
                r#"GRANT "readers" TO "etl" WITH ADMIN FALSE, INHERIT TRUE, SET TRUE GRANTED BY "etl""#,
            ]
        );
        assert_eq!(
            revokes(named, &form),
            [r#"REVOKE "readers" FROM "etl" GRANTED BY "etl""#, r#"REVOKE "readers" FROM "etl" GRANTED BY "ac""cess""#]
        );
        let kept = serde_json::to_string(&form).unwrap();
        assert_eq!(serde_json::from_str::<Form>(&kept).unwrap(), form);
        assert!(admin.or(both).covers(both) && !admin.covers(both) && both.covers(Options::default()));
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
